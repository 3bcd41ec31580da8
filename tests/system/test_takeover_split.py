"""Half of what holds the hosts together is gone, and nobody is fenced: at no time do two managers answer, which is looked at on
the clients' side; who wins is known beforehand, and clients go on with that one."""
import os
import signal
import time

import pytest

import pg_chaos
import pgwire
import takeover
import takeover_chaos
from postgres import find_program
from takeover_chaos import Chaos, CopyOut, remote

KINDS = (*(remote(k) for k in (pg_chaos.Insert, pg_chaos.Prepared, pg_chaos.Transfer, pg_chaos.Orm)), CopyOut)


class Rig(takeover.Rig):
    """Whose clocks can be set"""

    def prepare(self):
        self.give_clocks()


@pytest.fixture(scope="module", name="the_rig")
def fixture_the_rig():
    with Rig(takeover.Lab(f"split-{os.getpid()}"), fencing=False) as rig:
        yield rig


@pytest.fixture(name="rig")
def fixture_rig(the_rig):
    """gamma serves, which has no copy of the database; so nothing happens to that."""
    the_rig.heal()
    the_rig.whole()
    the_rig.let_serve("gamma")
    the_rig.whole()
    return the_rig


class Split:
    """Clients count while something is cut off and comes back."""

    def __init__(self, rig):
        self.rig, self.chaos, self.capture = rig, Chaos(rig, "split", KINDS), rig.capture()

    def __enter__(self):
        for c in self.chaos.clients:
            c.start()
        self.advance()
        return self

    def __exit__(self, *_):
        for c in self.chaos.clients:
            c.stopping = True
        for c in self.chaos.clients:  # the next test's have the same tables
            c.join(takeover_chaos.PATIENCE)

    def advance(self, count=50):
        self.chaos.before = self.chaos.progress()
        self.chaos.advance(count)

    def check(self, *hosts):
        """These answered, one after the other, and the books are right."""
        assert not takeover_chaos.answered_once(self.capture)
        assert self.capture.hosts() == list(hosts), self.capture.end()
        assert not self.chaos.books()


def heal(rig, cable=None):
    """gamma is heard again, after everybody is certain that it was not."""
    rig.until_apart("gamma")
    rig.heal(cable)


def loses(rig, act, undo):
    """gamma is cut off in some way; the others go on without it, and it is silent when it is back."""
    with Split(rig) as split:
        act()
        host = rig.until_elsewhere("gamma")
        split.advance()
        time.sleep(1)  # for what gamma might still say
        undo()
        rig.whole()
        split.advance()
        assert rig.serving() == host
    split.check("gamma", host)


def test_only_the_pair_is_cut(rig):
    """The group has not changed: the primary goes on, when its backup is out of S."""
    with Split(rig) as split:
        epoch = rig.epoch()
        rig.cut("gamma", "pair")
        rig.until(lambda: rig.shown(takeover.SERVICE)["in_sync"] == ["gamma"], "gamma serves alone")
        split.advance()
        rig.heal()
        rig.whole()
        split.advance()
        assert rig.epoch() == epoch
    split.check("gamma")


def test_only_the_cluster_is_cut(rig):
    """Who has the quorum goes on; the pair link says something else to both."""
    loses(rig, lambda: rig.cut("gamma", "cluster"), lambda: heal(rig))


def comes_back(rig, split, backup, cable=None):
    """gamma, when it has let go of its sessions, and before anybody else has taken them: the backup does."""
    rig.until(lambda: rig.role("gamma") != "primary", "gamma has let go")
    rig.heal(cable)
    rig.whole()
    split.advance()
    assert rig.serving() == backup


def all_are_cut(rig):
    for host in takeover.HOSTS:
        rig.cut(host, "cluster")
    rig.until(lambda: not any(rig.show(h, takeover.SERVICE)["quorate"] for h in takeover.HOSTS), "nobody is quorate")
    rig.until_apart(*takeover.HOSTS)


def test_everyone_is_cut_from_everyone(rig):
    """Nobody has a majority, so gamma lets go of its sessions. When the hosts hear each other again, who has them goes on."""
    with Split(rig) as split:
        backup = rig.backup()
        all_are_cut(rig)
        comes_back(rig, split, backup)
    split.check("gamma", backup)


def test_the_backup_is_heard_last(rig):
    """As before, but gamma and the third host hear each other first: they wait for who has the sessions."""
    with Split(rig) as split:
        backup = rig.backup()
        all_are_cut(rig)
        rig.heal(but=backup)
        rig.until(lambda: "waiting a while for " + backup in rig.show("gamma", takeover.SERVICE)["why"], "the group waits for the backup")
        comes_back(rig, split, backup)
    split.check("gamma", backup)


def test_cut_off_while_the_backups_daemon_starts_anew(rig):
    """Who is left takes it for a start of the whole group and waits for gamma, which comes back without its sessions."""
    with Split(rig) as split:
        backup = rig.backup()
        rig.cut("gamma")
        for pid in rig.pids(backup, "holdfastd"):
            os.kill(pid, signal.SIGKILL)

        def decided():
            g = rig.show(backup, takeover.SERVICE)
            return g["quorate"] and g["standing"] == "in" and (g["phase"] == "none" or g["primary"]["host"] == backup)

        rig.until(decided, "the others wait, or go on")
        rig.until_apart("gamma")
        comes_back(rig, split, backup, "gamma")
    split.check("gamma", backup)


def test_cut_from_everyone_but_the_clients(rig):
    loses(rig, lambda: rig.cut("gamma", "others"), lambda: heal(rig))


def test_frozen_and_thawed(rig):
    def undo():
        time.sleep(5)
        assert rig.thaw("gamma")

    loses(rig, lambda: rig.freeze("gamma"), undo)


def test_the_databases_clock_is_set_meanwhile(rig):
    """The server processes that clients had from a host that is gone, with their locks, are known all the same."""
    host = rig.serving(takeover.DATABASE)
    with rig.connect() as c, rig.connect() as other:
        for sql in ("drop table if exists clocked", "create table clocked (i int primary key)", "begin", "insert into clocked values (1)"):
            pgwire.check(c.query(sql))
        idle = other.one("select pg_backend_pid()")
        rig.step_clock(host, -32)
        try:
            rig.cut("gamma")
            rig.until_elsewhere("gamma")
            for sql in ("insert into clocked values (2)", "commit"):
                pgwire.check(c.query(sql))
            assert other.one("select count(*) from clocked") == "2"
            rig.until(lambda: other.one(f"select count(*) from pg_stat_activity where pid = {idle}") == "0", "nobody's process is ended")
        finally:
            rig.step_clock(host, 0)
            heal(rig, "gamma")


# Nothing would silence this host when it is cut off: what says so, and how it comes about (CAP_SYS_ADMIN includes CAP_BPF)
NO_LEASE = ("service.lease is 0", "lease = 0ms", "{program}")
NO_BPF = ("the guard is by NFQUEUE", "", "setpriv --bounding-set=-bpf,-sys_admin {program}")


@pytest.mark.parametrize("why, option, program", [NO_LEASE, NO_BPF], ids=["lease", "bpf"])
def test_a_host_that_would_not_fall_silent(rig, why, option, program):
    """Its sessions can't be taken over to it, and it says why; as it is again, they can."""
    host, before = rig.backup(), rig.manager_configuration
    try:
        rig.stop_manager(host)
        rig.supervise = takeover.SUPERVISE.replace("{program}", program)
        rig.lab.put(host, "/etc/holdfast/holdfast-pg.conf", before(host).rstrip().removesuffix("}") + f"    {option}\n}}\n")
        rig.start_manager(host)
        rig.until(lambda: why in rig.lab.log(host), "it is refused, with the reason")
        assert rig.serving() == "gamma" and host not in rig.shown(takeover.SERVICE)["in_sync"]
    finally:
        rig.supervise = takeover.SUPERVISE
        rig.lab.put(host, "/etc/holdfast/holdfast-pg.conf", before(host))
        rig.stop_manager(host)
        rig.start_manager(host)
    rig.whole()


def test_a_host_gives_the_address_up(rig):
    """The guard outlives its process; --unguard takes it off."""
    host, command = rig.backup(), (find_program("holdfast-pg"), "-c", "/etc/holdfast/holdfast-pg.conf", "--unguard")

    def guarded():
        return [way for way in ("ingress", "egress") if rig.on(host, "tc", "filter", "show", "dev", "eth0", way)]

    p = rig.lab.run("exec", host, "--", *command, check=False)
    assert p.returncode and "stop it first" in p.stderr and guarded() == ["ingress", "egress"], p
    try:
        rig.stop_manager(host)
        assert guarded() == ["ingress", "egress"]
        rig.on(host, *command)
        assert not guarded()
        rig.on(host, *command)  # there is none any more
    finally:
        rig.start_manager(host)
    rig.whole()
