"""Two shares: two service addresses, each a group and a holdfast-pg of its own on both hosts, so that clients are shared
between these. One host dies, and the other one has both; nobody's connection or transaction is lost."""
import os
import re

import pytest

import pgwire
import takeover
from lab import ROOT, Lab
from takeover import SERVICE, Connection

SECOND = "pgvip2"
EXAMPLES = ROOT / "doc/examples/shares"
METRICS = {SERVICE: 9632, SECOND: 9642}


class Shares(takeover.Rig):
    """As the rig, but with the examples' two services, copies on alpha and beta; gamma votes. Each host has an instance for
    each share, as systemd has for the units holdfast-pg@NAME."""

    supervise = ("mkdir -p /run/holdfast-pg; for n in " f"{SERVICE} {SECOND}" "; do "
                 "while :; do {program} -c /etc/holdfast/holdfast-pg@$n.conf; sleep 0.05; done >>{log} 2>&1 & done; wait")

    def start_service(self):
        head, _, last = self.address.rpartition(":" if self.v6 else ".")
        self.addresses = {SERVICE: self.address, SECOND: f"{head}.{int(last) + 1}"}
        for host in takeover.HOSTS:
            for share in (SERVICE, SECOND):
                self.lab.put(host, f"/etc/holdfast/holdfast-pg@{share}.conf", self.share_configuration(host, share))
        for host in takeover.HOSTS:
            self.start_manager(host)
        self.make_group("alpha", SERVICE)
        self.make_group("beta", SECOND)  # so it is served there

    def share_configuration(self, host, share):
        """The example, at this lab's addresses and with everybody let in"""
        text = (EXAMPLES / f"holdfast-pg@{share}.conf").read_text(encoding="ascii")
        for old, new in (("127.0.0.1:", f"{self.own[host]}:"),
                         (r"file = .*", "type = trust"),
                         (r"user = postgres\n}\n", "\\g<0>session { hold_timeout = 60s }\n"),
                         (r"address = 10\.0\.0\.[0-9]+:", f"address = {self.addresses[share]}:"),
                         (r"\.alpha\"", f".{host}\"\n    host = {host}\n    key_file = /etc/holdfast/cluster.key")):
            text, n = re.subn(old, new, text)
            assert n, old
        return text

    def make_group(self, first, share):
        text = (EXAMPLES / f"{share}.conf").read_text(encoding="ascii")
        program = takeover.find_program("holdfast-pg")  # not in the path
        text = text.replace("params {", f'params {{ program = "{program}"').replace("{ control }", "{ control, program }")
        self.lab.put(first, f"/etc/holdfast/{share}.conf", text)
        self.lab.exec(first, "holdfast", "group", "create", share, f"/etc/holdfast/{share}.conf")
        self.until(lambda: self.show(first, share)["phase"] == "running", f"{share} runs on {first}")
        for host in takeover.HOSTS:
            if host != first:
                self.lab.exec(host, "holdfast", "-t", "30", "group", "join", share)

    def start_manager(self, host):
        if hasattr(self, "addresses"):
            super().start_manager(host)

    def is_whole(self):
        g = self.shown(SECOND)
        return super().is_whole() and g["phase"] == "running" and len(g["in_sync"]) == 2

    def connect_to(self, share):
        return self.as_client(lambda: Connection(self.addresses[share], timeout=60))

    def where(self):
        return {s: self.serving(s) for s in (SERVICE, SECOND)}


@pytest.fixture(scope="module", name="rig")
def fixture_rig():
    with Shares(Lab(f"shares-{os.getpid()}")) as rig:
        yield rig


def test_one_host_dies_and_the_other_has_both(rig):
    rig.whole()
    assert rig.where() == {SERVICE: "alpha", SECOND: "beta"}
    one, two = rig.connect_to(SERVICE), rig.connect_to(SECOND)
    with one, two:
        pgwire.check(one.query("create table t (i int)"))
        for c, i in ((one, 1), (two, 2)):
            for sql in ("begin", f"insert into t values ({i})"):
                pgwire.check(c.query(sql))
        for dies, other in (("beta", "alpha"), ("alpha", "beta")):  # alpha with the database, too
            glances = [f"{s}: 1 session at {h} ({rig.addresses[s]}:{takeover.PORT}), 1 protected by "
                       f"{({'alpha', 'beta'} - {h}).pop()}\n" for s, h in rig.where().items()]
            for glance in glances:
                rig.until(lambda g=glance: g in rig.on("gamma", "holdfast", "status"), glance)
            rig.power_off(dies)
            rig.until(lambda o=other: set(rig.where().values()) == {o}, f"{other} has both shares")
            for c, i in ((one, 1), (two, 2)):
                assert c.rows("select i from t") == [(str(i),)]
            rig.whole()
            assert set(rig.where().values()) == {other}
            rig.lab.exec(other, "holdfast", "-t", "30", "group", "switch", SECOND, "--to", dies)  # shared again
            rig.until(lambda: len(set(rig.where().values())) == 2, "each host has a share")
            rig.until(rig.is_whole, "and the other's backup")
            for c, i in ((one, 1), (two, 2)):
                assert c.rows("select i from t") == [(str(i),)]
        for c in (one, two):
            pgwire.check(c.query("commit"))
        assert sorted(one.rows("select i from t")) == [("1",), ("2",)]


def test_a_new_client_of_each(rig):
    rig.whole()
    for share, host in rig.where().items():
        with rig.connect_to(share) as c:
            assert c.one("select 1") == "1"
            m = rig.on(host, "curl", "-sf", f"http://{rig.own[host]}:{METRICS[share]}/metrics")
            assert "\nholdfast_pg_sessions 1\n" in m, m
