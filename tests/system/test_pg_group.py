"""holdfast-pg follows a group: clients that count go on over a failover, a restart in place and a switch."""
import shutil
import subprocess
import time

import pytest

from lab import ROOT, STATE
from postgres import find_program

TEMPLATE = """
cluster { key_file = "/etc/holdfast/cluster.key" }
host { name = "@NAME@"  address = @ADDRESS@ }
directory { interface = "eth0" }
engine { type = @ENGINE@ }
group { boot_wait = 8s }
log { trace = { proc } }
fence power { agent = "fence_holdfast_lab"  hosts = { "*" } timeout = 10s }
"""
COPY = """
resource %s {
    agent = "ocf:holdfast:postgresql"
    params {
        pgdata = "/srv/%s/data"
        volume = "/srv/%s"
        clients = "10.0.0.0/8"
        client_auth = trust
        mirror_networks = "10.0.0.0/8"
        replication_auth = trust
        initdb_options = "--locale=C.UTF-8 --wal-segsize=4"
    }
    probe = { pgdata, volume }
}
"""
MANAGER = """
pg { listen = { 0.0.0.0:6432 } }
auth { type = trust user = postgres }
session { hold_timeout = 60s }
servers { group = orders }
"""
# Inserts 1, 2, 3, ... each by itself; for a line on stdin tells how many, the longest wait in ms, and what failed
CLIENT = """
import select, sys, time
sys.path.insert(0, sys.argv[1])
import pgwire
c = pgwire.Connection(host=sys.argv[2], port=6432, timeout=120)
n, longest, errors = 0, 0, []
while True:
    start = time.monotonic()
    try:
        c.rows(f"insert into t values ({n + 1})")
        n += 1
    except Exception as e:
        errors.append(repr(e))
        if not isinstance(e, pgwire.PgError) or e.fatal:
            c = pgwire.Connection(host=sys.argv[2], port=6432, timeout=120)
        n = int(c.one("select coalesce(max(i), 0) from t"))
    longest = max(longest, time.monotonic() - start)
    if select.select([sys.stdin], [], [], 0)[0]:
        if not sys.stdin.readline():
            break
        print(n, int(longest * 1000), errors, flush=True)
        longest = 0
"""


class Group:
    def __init__(self, lab):
        self.lab = lab
        self.client = None

    def show(self):
        return self.lab.json("gamma", "group", "show", "orders")[0]

    def until_primary(self, host, in_sync):
        def there():
            g = self.show()
            return (g["standing"] == "in" and g["quorate"] and g["phase"] == "running"
                    and g["primary"]["host"] == host and set(g["in_sync"]) == in_sync)

        self.lab.until(there, f"{host} is primary, in sync {in_sync}", 60)

    def begin(self):
        self.lab.put("gamma", "/etc/holdfast/holdfast-pg.conf", MANAGER)
        self.manager = self.lab.popen("gamma", "sh", "-c",
                                      f"exec {find_program('holdfast-pg')} -c /etc/holdfast/holdfast-pg.conf"
                                      " >/var/log/holdfast-pg.log 2>&1")
        self.told("is the primary: timeline 1, fence")
        self.client = self.lab.popen("client", "/usr/bin/python3", "-c", CLIENT, str(ROOT / "tests/system"),
                                     self.lab.address("gamma"), stdin=subprocess.PIPE)

    def log(self):
        return self.lab.get("gamma", "/var/log/holdfast-pg.log")

    def told(self, text, count=1):
        try:
            self.lab.until(lambda: self.log().count(text) >= count, f"holdfast-pg says {text!r}", 60)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log()[-3000:]}") from e

    def count(self):
        """So many commits; the longest wait in ms since the last call; all errors so far."""
        self.client.stdin.write("\n")
        self.client.stdin.flush()
        n, longest, errors = self.client.stdout.readline().split(" ", 2)
        return int(n), int(longest), errors.strip()

    def goes_on(self, what):
        before = self.count()
        time.sleep(0.3)
        n, _, errors = self.count()
        assert errors == "[]", f"{what}: {errors}\n{self.log()[-3000:]}"
        assert n > before[0]
        print(f"{what}: longest wait {before[1]} ms")

    def end(self):
        for p in (self.client, self.manager):
            if p:
                p.kill()
                p.communicate()


@pytest.fixture(scope="module", name="group")
def fixture_group(new_lab, tmp_path_factory):
    template = tmp_path_factory.mktemp("lab") / "holdfast.conf"
    template.write_text(TEMPLATE)
    lab = new_lab("-n", "3", "--engine", "corosync", "--token", "300", "--config", str(template), "--shared", "alpha:/srv/copy1", "--shared",
                  "beta:/srv/copy2")
    for host, copy in (("alpha", "copy1"), ("beta", "copy2")):
        lab.exec(host, "chown", "postgres:", f"/srv/{copy}")
    lab.put("alpha", "/etc/holdfast/orders.conf", "degraded = allow\n" + COPY % (("copy1",) * 3))
    lab.put("beta", "/etc/holdfast/copy2.conf", COPY % (("copy2",) * 3))
    lab.exec("alpha", "holdfast", "group", "create", "orders", "/etc/holdfast/orders.conf")
    g = Group(lab)
    lab.until(lambda: lab.json("alpha", "group", "show", "orders")[0]["phase"] == "running", "alpha is primary", 60)
    lab.exec("beta", "holdfast", "-t", "30", "group", "join", "orders", "--bring", "/etc/holdfast/copy2.conf")
    lab.exec("gamma", "holdfast", "-t", "30", "group", "join", "orders")
    g.until_primary("alpha", {"copy1", "copy2"})
    lab.exec("alpha", "psql", "-XqAtw", "-h", "/run/postgresql", "-U", "postgres", "-c", "create table t(i bigint primary key)")
    g.begin()
    yield g
    g.end()


def test_fence_texts_arrive(group):
    fence = group.show()["fence_text"]
    xmax = next(w for w in fence.split() if w.startswith("xmax=")).removeprefix("xmax=")
    group.told(f"fence {xmax}")
    group.goes_on("nothing happened")


def switch(group, to, what):
    """To this host's copy. Was all held in time? A busy machine may take longer than the 100 ms of the agent."""
    seen = len(group.log())
    group.lab.exec("gamma", "holdfast", "group", "switch", "orders", "--to", to)
    group.until_primary(to, {"copy1", "copy2"})
    group.goes_on(what)
    said = group.log()[seen:]
    assert "no fence" not in said
    return "switchover: freezing -> frozen" in said and "was interrupted" not in said


def test_a_planned_switch_is_followed(group):
    # clients are held, and nothing that they do is cut off
    held = switch(group, "beta", "planned switch")
    for _ in range(3):
        if held:
            break
        print(group.log()[-3000:])
        switch(group, "alpha", "back, as it was not held in time")
        held = switch(group, "beta", "planned switch, once more")
    assert held
    # by the processes that had prepared it
    for host, steps in (("alpha", ("demote",)), ("beta", ("promote", "open"))):
        for step in steps:
            assert f"{step} by a process that was there" in group.lab.log(host), step


def test_a_switch_is_prepared_anew_each_time(group):
    switch(group, "alpha", "and back")


def kill_server(group, host, copy):
    primary = group.lab.get(host, f"/srv/{copy}/data/postmaster.pid").split("\n", 1)[0]
    epoch = group.show()["epoch"]
    group.lab.exec(host, "kill", "-KILL", primary)
    group.lab.until(lambda: group.show()["epoch"] > epoch, "another reign", 60)


def test_a_mirror_goes_on_when_the_server_dies(group):
    kill_server(group, "alpha", "copy1")
    group.until_primary("beta", {"copy1", "copy2"})
    group.goes_on("server killed, its mirror goes on")
    assert "no fence" not in group.log()


def test_a_failover_is_followed(group):
    group.lab.run("power-off", "beta")
    group.until_primary("alpha", {"copy1"})
    group.goes_on("host of the primary switched off")
    assert "no fence" not in group.log()


def test_a_restart_in_place_is_followed(group):
    kill_server(group, "alpha", "copy1")
    group.until_primary("alpha", {"copy1"})
    group.goes_on("server killed, no mirror: restarted in place")


def test_a_host_whose_disk_was_lost_gives_its_copy_again(group):
    """The configuration of copy2 was on beta's disk only (B4), and there is no backup."""
    lab = group.lab
    shutil.rmtree(STATE / lab.name / "hosts/beta/fs/var/lib/holdfast/groups")
    lab.run("boot", "beta")
    lab.until(lambda: lab.members("beta").get("gamma") == "alive", "beta hears the others", 60)
    lab.exec("beta", "holdfast", "-t", "30", "group", "join", "orders", "--bring", "/etc/holdfast/copy2.conf")
    group.until_primary("alpha", {"copy1", "copy2"})
    group.goes_on("the copy is back")
    group.lab.exec("gamma", "holdfast", "group", "switch", "orders", "--to", "beta")
    group.until_primary("beta", {"copy1", "copy2"})
    group.goes_on("and serves")
