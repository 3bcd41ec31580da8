"""holdfast-pg has the capabilities it needs and no other: none without a service address, with one exactly these, through a
take-over and for a user that is not root; and it says which one is missing, and what for."""
import os
import pathlib
import subprocess
import tempfile

import pytest

import pgwire
import takeover
from lab import Lab
from postgres import find_program, free_port

USER = "postgres"
NUMBERS = {"net_bind_service": 10, "net_admin": 12, "net_raw": 13, "bpf": 39}
SERVICE = ("net_admin", "net_raw", "bpf")  # holdfast-pg(8)
MASKS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def mask(caps):
    return sum(1 << NUMBERS[c] for c in caps)


def masks(pid):
    """{"CapEff": mask, ...} of a process, and its user id as "Uid" """
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    words = dict(line.split(":\t", 1) for line in lines if "\t" in line)
    return {m: int(words[m], 16) for m in MASKS} | {"Uid": {int(u) for u in words["Uid"].split()}}


def assert_exactly(pid, caps):
    has = masks(pid)
    uid = int(subprocess.run(["id", "-u", USER], capture_output=True, text=True, check=True).stdout)
    assert has["Uid"] == {uid}, has
    assert {m: has[m] for m in ("CapPrm", "CapEff", "CapBnd")} == dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), mask(caps)), has


def as_user(caps):
    """As systemd does for User= with AmbientCapabilities= and CapabilityBoundingSet="""
    names = "".join(f",+{c}" for c in caps)
    return ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--no-new-privs",
            f"--inh-caps=-all{names}", f"--ambient-caps=-all{names}", f"--bounding-set=-all{names}"]


# --- through a take-over ---

class AsUser(takeover.Rig):
    """Managers that are never root: the user has directory and key."""

    supervise = ("mkdir -p /run/holdfast-pg; chown {user} /run/holdfast-pg; touch {{log}}; chown {user} {{log}};"
                 "install -o {user} -m 600 /etc/holdfast/cluster.key /etc/holdfast/pg.key;"
                 "while :; do {prefix} {{program}} -c /etc/holdfast/holdfast-pg.conf; sleep 0.05; done >>{{log}} 2>&1"
                 ).format(user=USER, prefix=" ".join(as_user(SERVICE)))

    def manager_configuration(self, host):
        return super().manager_configuration(host).replace("/etc/holdfast/cluster.key", "/etc/holdfast/pg.key")


class Drops(takeover.Rig):
    """Managers that are started as root and become the user."""

    def manager_configuration(self, host):
        return super().manager_configuration(host).replace("pg {", f'pg {{\n    user = "{USER}"', 1)


@pytest.mark.parametrize("kind", [AsUser, Drops])
def test_a_take_over_with_exactly_these(kind):
    with kind(Lab(f"caps-{os.getpid()}")) as rig:
        with rig.connect() as c:
            for sql in ("create table t (i int)", "begin", "insert into t values (1)"):
                pgwire.check(c.query(sql))
            for way in (rig.power_off, rig.kill_manager):  # the host that dies comes back with these, too
                host, epoch = rig.serving(), rig.epoch()
                assert_exactly(rig.manager(host), SERVICE)
                way(host)
                rig.until(lambda e=epoch: rig.epoch() > e and rig.serving(), "another reign")
                assert c.one("select i from t") == "1"
                assert_exactly(rig.manager(rig.serving()), SERVICE)
                assert "guard of the service address: bpf" in rig.log(rig.serving())
                rig.whole()
            pgwire.check(c.query("commit"))
        assert not [line for h in takeover.HOSTS for line in rig.log(h).splitlines() if "Operation not permitted" in line]


# --- what is missing ---

@pytest.fixture(name="program")
def fixture_program():
    """Start it as that user with these capabilities; ended, and gone, with the test"""
    started = []
    with tempfile.TemporaryDirectory(dir="/tmp") as top:  # where that user may go
        os.chmod(top, 0o755)
        yield lambda caps, port=takeover.PORT, service=True: start(started, pathlib.Path(top), caps, port, service)
        for p in started:
            p.kill()
            p.communicate()


def start(started, top, caps, port, service):
    home, own = top / str(len(started)), free_port()
    home.mkdir()
    key = home / "key"
    key.write_text("00" * 31 + "01\n", encoding="ascii")
    key.chmod(0o600)
    text = f"""
pg {{ listen = {{ 127.0.0.1:{own} }} }}
server s {{ host = "127.0.0.1" port = {free_port()} }}
"""
    if service:
        text += f'service {{ address = 192.0.2.1:{port} interface = lo key_file = "{key}" control = "{home}/control" }}\n'
    conf = home / "conf"
    conf.write_text(text, encoding="ascii")
    subprocess.run(["chown", "-R", f"{USER}:", home], check=True)
    started.append(subprocess.Popen([*as_user(caps), find_program("holdfast-pg"), "-c", conf], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return started[-1]


def until(p, word):
    """What it says up to a line with that word"""
    said = []
    while not said or word not in said[-1]:
        line = p.stdout.readline()
        assert line, f"it ended: {said}"
        said.append(line)
    return "".join(said)


@pytest.mark.parametrize("missing, what", [("net_admin", "TCP_REPAIR"), ("net_raw", "to probe clients")])
def test_it_says_what_is_missing(program, missing, what):
    p = program([c for c in SERVICE if c != missing])
    said = p.communicate(timeout=30)[0]
    assert p.returncode == 1 and f"needs CAP_{missing.upper()}, " in said and what in said, said


def test_without_bpf_it_uses_nfqueue(program):
    p = program(["net_admin", "net_raw"])
    said = until(p, "started")
    assert "CAP_BPF is missing" in said and "NFQUEUE" in said


def test_a_low_port(program):
    p = program(SERVICE, port=999)
    said = p.communicate(timeout=30)[0]
    assert p.returncode == 1 and "needs CAP_NET_BIND_SERVICE, to listen at a port below 1024" in said
    p = program([*SERVICE, "net_bind_service"], port=999)
    until(p, "started")
    assert_exactly(p.pid, [*SERVICE, "net_bind_service"])


def test_none_without_a_service_address(program):
    p = program([], service=False)
    until(p, "started")
    assert_exactly(p.pid, [])
