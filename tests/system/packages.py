"""make test-package: the packages of build-package/, installed by dpkg on hosts of the lab; nothing there is from the build tree.
What they install starts as it is; the guide to three machines is followed with them; an upgrade ends nobody."""
import contextlib
import os
import re
import subprocess

import pytest

from guide import blocks
from lab import ROOT
from reader import HOSTS, PATH, Reader
from test_guides import THREE

OUT = ROOT / "build-package"
NAMES = ("holdfast", "holdfast-lab", "libholdfast0", "libholdfast-dev")
SERVICES = ("holdfastd", "holdfast-pg", "holdfast-pg@", "holdfast-sip")
EXPOSURE_MAX = 35  # tenths, of systemd-analyze security: below 5 is "OK"
SANDBOXED = ("holdfast-pg", "holdfast-sip")


def deb(name):
    found = list(OUT.glob(f"{name}_*.deb"))
    assert len(found) == 1, f"{found}: make package"
    return found[0]


@pytest.fixture(name="lab_package", scope="module", autouse=True)
def fixture_lab_package(tmp_path_factory):
    """The lab is that of its package, too; it has to be outside of the hosts."""
    top = tmp_path_factory.mktemp("lab")
    subprocess.run(["dpkg-deb", "-x", deb("holdfast-lab"), top], check=True)
    before = os.environ.get("HOLDFAST_BIN")
    os.environ["HOLDFAST_BIN"] = f"{top}/usr/sbin"
    yield
    if before is None:
        del os.environ["HOLDFAST_BIN"]
    else:
        os.environ["HOLDFAST_BIN"] = before


class Installer(Reader):
    """Who follows a guide with the packages"""

    def apt(self, host, action, pattern, *others):
        """Without a network: what apt would fetch is on the machine already."""
        assert action == "install"
        if "installed" not in self.shell_said(host, "dpkg-query -W -f '${db:Status-Status}' holdfast || :"):
            self.clear(host)
        self.dpkg(host, "-i", *sorted(OUT.glob(pattern)))
        for name in others:
            assert self.shell_said(host, f"dpkg-query -W -f '${{db:Status-Status}}' {name}") == "installed", name

    def dpkg(self, host, *args):
        return self.lab.run("exec", host, "--", "env", PATH, "DEBIAN_FRONTEND=noninteractive", "dpkg", *args, timeout=300).stdout

    def shell_said(self, host, script):
        return self.lab.exec(host, "env", PATH, "bash", "-euo", "pipefail", stdin=script)

    def unit(self, host, name):
        return self.lab.get(host, f"/lib/systemd/system/{name}.service")

    def programs(self, host):
        """{pid: file} of our programs that run there"""
        text = self.shell_said(host, "for p in /proc/[0-9]*; do echo ${p#/proc/} $(readlink $p/exe || :); done")
        return dict(line.split(maxsplit=1) for line in text.splitlines() if "holdfast" in line.split("/")[-1])

    def daemons(self, host):
        """Those of them that stay; agents and commands come and go"""
        found = {p: f.removesuffix(" (deleted)") for p, f in self.programs(host).items()}
        return {p: f for p, f in found.items() if f.rpartition("/")[2] in ("holdfastd", "holdfast-pg", "holdfast-sip")}

    def assert_installed(self, host):
        """All that runs is the packages', and of that user who is meant to run it."""
        running = self.programs(host)
        assert running and all(re.fullmatch(r"/usr/s?bin/holdfast[\w-]*", f) for f in running.values()), running
        users = self.shell_said(host, "ps -eo user:20=,comm= | sort -u")
        for name, user in (("holdfastd", "root"), ("holdfast-pg", "_holdfast"), ("holdfast-sip", "_holdfast")):
            assert re.findall(rf"^(\S+) +{name}$", users, re.M) in ([user], []), users


# --- three machines ---


def test_three_machines(new_lab):
    """Literally, in order; nobody sees an error, and nothing is lost. Then the packages once more, with clients at work."""
    with contextlib.closing(Installer(new_lab("-n", 3, "--no-daemon"))) as reader:
        reader.follow_all(blocks(THREE))
        for host in HOSTS:
            reader.assert_installed(host)
            running = reader.daemons(host)
            files = reader.shell_said(host, "md5sum /etc/holdfast/*")
            reader.dpkg(host, "-i", deb("holdfast"))
            assert reader.daemons(host) == running, host
            assert reader.shell_said(host, "md5sum /etc/holdfast/*") == files
        reader.ask("insert into orders values (6);\nselect count(*) from orders;\n")
        reader.answer("6")


# --- one machine ---


@pytest.fixture(name="one", scope="module")
def fixture_one(new_lab):
    """A machine that is alone, just installed"""
    with contextlib.closing(Installer(new_lab("-n", 1, "--no-daemon"), ("alpha",))) as reader:
        reader.clear("alpha")
        reader.dpkg("alpha", "-i", *map(deb, NAMES))
        yield reader


def test_units(one):
    """They are what systemd understands, with manual pages that are there; those of programs that run no agents are closed."""
    files = " ".join(f"/lib/systemd/system/{s}.service" for s in SERVICES)
    said = one.shell_said("alpha", f"systemd-analyze verify --man=yes {files} 2>&1")
    assert not said, said
    for name in SANDBOXED:
        one.shell_said("alpha", f"systemd-analyze security --offline=true --threshold={EXPOSURE_MAX} --no-pager "
                       f"/lib/systemd/system/{name}.service >&2")


def test_what_is_installed_starts(one):
    """Each daemon with its configuration as the package has it"""
    lab = one.lab
    one.systemctl("alpha", "enable", "--now", "holdfastd")
    assert lab.members("alpha") == {"alpha": "self"}
    lab.until(lambda: lab.status("alpha")["state"] == "run", "alpha is part of its cluster")
    problems = lab.status("alpha")["problems"]
    assert all("no other host" in p["what"] for p in problems), problems
    assert one.shell_said("alpha", "stat -c '%U %a' /etc/holdfast/cluster.key") == "root 600\n"
    assert "alpha" in one.shell_said("alpha", "curl -fsS http://127.0.0.1:7481/v1/members")
    one.shell("alpha", """
pg_createcluster 15 main2 -d /srv/main2 --port 5432
pg_ctlcluster 15 main2 start
runuser -u postgres -- psql -X -v ON_ERROR_STOP=1 postgres <<END
create role manager login password 'manager-secret' in role pg_signal_backend;
create role app login password 'app-secret';
create database app owner app;
END
cat >>/etc/holdfast/userlist.txt <<END
"manager" "manager-secret"
"app" "app-secret"
END
""")
    one.systemctl("alpha", "enable", "--now", "holdfast-pg", "holdfast-sip")
    query = "psql -XAt -h 127.0.0.1 -p 6432 -U app app -c 'create table t (n int)' -c 'insert into t values (1)' -c 'select n from t'"
    lab.until(lambda: one.shell_said("alpha", f"PGPASSWORD=app-secret {query}").split()[-1] == "1", "a session")
    assert "console" in one.shell_said("alpha", "holdfast clients")
    lab.until(lambda: one.shell("alpha", "echo alice-secret | holdfast sip user add alice@localhost") is None, "a user")
    one.register("alice", "alice-secret", "127.0.0.1", "alpha", domain="localhost")
    one.assert_installed("alpha")
    assert one.shell_said("alpha", "stat -c %U /var/lib/holdfast-sip/sip.db") == "_holdfast\n"
    for unit in ("holdfast-sip", "holdfast-pg"):  # a reload reads as the user what root read at the start
        pid = next(p for p, f in one.programs("alpha").items() if f.endswith(unit))
        one.shell("alpha", f"kill -HUP {pid}")
        lab.until(lambda u=unit: re.search("reload", one.shell_said("alpha", f"cat /var/log/{u}.out")), f"{unit} was told to reload")
        assert "reload refused" not in one.shell_said("alpha", f"cat /var/log/{unit}.out")
    said = one.shell_said("alpha", "holdfast doctor --json || :")
    assert '"verdict": "fault"' not in said, said
    for unit in ("holdfast-sip", "holdfast-pg", "holdfastd"):
        one.systemctl("alpha", "stop", unit)
    one.shell("alpha", "pg_ctlcluster 15 main2 stop -m fast")


def test_the_library(one):
    """Its manual page says how a program is made."""
    one.shell("alpha", """
cd /srv
cc -o watch /usr/share/doc/libholdfast-dev/examples/watch.c $(pkg-config --cflags --libs libholdfast)
ldd watch >needs
grep -q 'libholdfast.so.0 => /lib/' needs
man --warnings -w libholdfast holdfastd holdfast-pg-agent fence_holdfast_lab
""")


def test_removed(one):
    """What is left when it is purged: what users have in databases."""
    one.dpkg("alpha", "-r", *NAMES)
    assert one.shell_said("alpha", "ls /etc/holdfast").split() == ["cluster.key", "holdfast-pg.conf", "holdfast-sip.conf", "holdfast.conf",
                                                                   "pg-hba.conf", "userlist.txt"]
    one.dpkg("alpha", "-P", *NAMES)
    left = one.shell_said("alpha", "find / -xdev -name '*holdfast*' -not -path '/proc/*' -not -path '/srv/*' -not -path '/run/*' "
                          "-not -path '/tmp/*' -not -path '/var/log/*'")
    assert not [p for p in left.splitlines() if p.startswith(("/usr", "/etc", "/lib"))], left
