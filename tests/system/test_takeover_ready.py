"""What is done before a take-over, and after it: logins of the backup, prepared switches, what the old host leaves."""
import os
import pathlib
import signal

import pytest

import pgwire
import takeover
from lab import STATE, Failed
from postgres import find_program

WARM = 2


class Rig(takeover.Rig):
    def manager_configuration(self, host):
        return super().manager_configuration(host).rstrip().removesuffix("}") + f"    warm = {WARM}\n}}\n"


@pytest.fixture(scope="module", name="the_rig")
def fixture_the_rig():
    with Rig(takeover.Lab(f"ready-{os.getpid()}")) as rig:
        yield rig


@pytest.fixture(name="rig")
def fixture_rig(the_rig):
    the_rig.whole()
    return the_rig


def warm(rig, host):
    """Server connections of a backup that nobody has"""
    return sum(row.split(",")[3] == "login" for row in rig.console(host, "SHOW CONNECTIONS").splitlines()[1:])


def daemon_log(rig, host):
    return (STATE / rig.lab.name / "hosts" / host / "holdfastd.log").read_text(errors="replace")


def named(rig):
    c = rig.connect()
    pgwire.check(c.query("set application_name = 'ready'"))
    return c


def backends(c):
    return int(c.one("select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name = 'ready'"))


def test_the_backup_keeps_some_logged_in(rig):
    clients = [rig.connect() for _ in range(WARM + 2)]
    try:
        rig.until(lambda: warm(rig, rig.backup()) == WARM, f"the backup has {WARM} connections")
        clients.pop().close()
        clients.pop().close()
        clients.pop().close()
        rig.until(lambda: warm(rig, rig.backup()) == WARM - 1, "not more than sessions")
        old = rig.serving()
        rig.power_off(old)
        rig.until_elsewhere(old)
        assert clients[0].one("select 1") == "1"
        rig.until(lambda: warm(rig, rig.serving()) == 0, "none is left over")
    finally:
        for c in clients:
            c.close()


def test_a_switch_is_prepared(rig):
    with named(rig) as c:
        pgwire.check(c.query("set my.own = 'kept'"))
        old, new = rig.serving(), rig.backup()
        rig.switch()
        rig.until_serving(new)
        assert c.one("select current_setting('my.own')") == "kept"
        for host, word in ((old, "demote"), (new, "promote"), (new, "open")):
            assert f"{host}: {word} by a process that was there" in daemon_log(rig, host)
        rig.until(lambda: backends(c) == 1, "the old server process has ended")


@pytest.mark.parametrize("way", ["power_off", "process"])
def test_idle_server_processes_are_ended_afterwards(rig, way):
    with named(rig) as c, named(rig) as other:
        assert backends(c) == 2
        old = rig.serving()
        if way == "power_off":
            rig.power_off(old)
        else:
            rig.kill_manager(old)
        rig.until_elsewhere(old)
        assert other.one("select 1") == "1"
        rig.until(lambda: backends(c) == 2, "the old server processes have ended")


LINGER = "hf-pg-linger"


def packet_sockets(pid):
    """To close the last one takes the kernel some 15 ms, and a process has ended only then."""
    known = {line.split()[8] for line in pathlib.Path(f"/proc/{pid}/net/packet").read_text().splitlines()[1:]}
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {n.strip("]") for link in links for n in link.split("socket:[")[1:] if n.strip("]") in known}


def linger_of(rig, host):
    """That of a process that died before may still have something to do."""
    rig.until(lambda: len(rig.pids(host, LINGER)) == 1, "one of them")
    return rig.pids(host, LINGER)[0]


def held(pid):
    """TCP connections that a process has open"""
    return sum(n for kind, n in takeover.descriptors(pid).items() if kind.startswith("tcp"))


def test_what_outlives_the_process(rig):
    """Its server connections, one after the other, if a backup goes on with the sessions; what is closed before is not held."""
    old = rig.serving()
    linger = linger_of(rig, old)
    rig.until(lambda: held(linger) == 0, "former clients' have ended")
    clients = [named(rig) for _ in range(8)]
    try:
        rig.until(lambda: held(linger) == 8, "it holds them")
        assert len(mine := packet_sockets(rig.manager(old))) == 2 and mine <= packet_sockets(linger)
        clients.pop().close()
        rig.until(lambda: held(linger) == 7, "but not what is closed")
        rig.kill_manager(old)
        rig.until_elsewhere(old)
        assert [c.one("select 1") for c in clients] == ["1"] * 7
        rig.until(lambda: backends(clients[0]) == 7, "the old server processes have ended")
        rig.until(lambda: linger not in rig.pids(old, LINGER), "it ends, too")
    finally:
        for c in clients:
            c.close()


def test_nothing_outlives_an_orderly_end(rig):
    """Nor does its absence do harm."""
    host = rig.backup()
    linger = linger_of(rig, host)
    os.kill(rig.manager(host), signal.SIGTERM)
    rig.until(lambda: linger not in rig.pids(host, LINGER), "it ends")
    rig.whole()
    old = rig.serving()
    linger = linger_of(rig, old)
    os.kill(linger, signal.SIGKILL)
    with named(rig) as c:
        rig.until(lambda: LINGER in rig.log(old), "it is missed")
        rig.kill_manager(old)
        rig.until_elsewhere(old)
        assert c.one("select 1") == "1"


def test_the_address_of_a_dead_process_goes(rig):
    old = rig.serving()
    rig.stop_manager(old)
    rig.until_elsewhere(old)
    assert rig.address not in rig.on(old, "ip", "addr", "show", "dev", "eth0")


def test_mirror_state_tells_each_copy(rig):
    host, backup = rig.serving(), rig.backup()
    (third,) = set(takeover.HOSTS) - {host, backup}
    mirrors = f"{backup}={backup}@{rig.own[backup]}=sync {third}={third}@{rig.own[third]}=async"
    told = {f"{backup} in-sync", f"{third} suspended {backup} is the backup; this one takes its place if "
            f"{backup} leaves the group, or its holdfast-pg stops", "holdfast-again"}

    def tells():
        text = rig.on(host, "env", f"OCF_RESKEY_control=/run/holdfast-pg/{host}", f"HOLDFAST_MIRRORS={mirrors}",
                      find_program("holdfast-pg-agent"), "mirror-state")
        lines = text.splitlines()
        return f"{backup} in-sync" in lines and lines[-1] == "holdfast-again" and set(lines) <= told

    rig.until(tells, "a line for each")


def test_a_switch_to_a_host_that_waits(rig):
    """Refused, with the reason; as ocf_holdfast_pg(7) says it works, and clients notice nothing."""
    rig.whole()
    rig.let_serve("alpha")  # where the group was made: only it knows its own copy, if it left it would have to bring that
    rig.whole()
    host, backup = rig.serving(), rig.backup()
    (third,) = set(takeover.HOSTS) - {host, backup}
    with rig.connect() as c:
        pgwire.check(c.query("begin"))
        with pytest.raises(Failed, match=rf"{third} on {third} is not in sync .*; in sync: {backup} on {backup}\."):
            rig.switch(third)
        rig.until(lambda: f"suspended: {backup} is the backup" in rig.on(host, "holdfast", "group", "show", takeover.SERVICE), "why it waits")
        rig.on(host, "holdfast", "-t", "30", "group", "leave", takeover.SERVICE, "--host", backup, timeout=40)
        rig.until(lambda: rig.backup() == third, f"{third} is the backup")
        rig.on(backup, "holdfast", "-t", "30", "group", "join", takeover.SERVICE, timeout=40)
        rig.switch(third)
        assert rig.serving() == third
        assert c.one("select 1") == "1"
        pgwire.check(c.query("commit"))
    rig.whole()


def test_a_server_without_room_for_both(request):
    """Old and new server processes together are more than max_connections."""
    n, limit = 25, 45
    rig = takeover.Rig(takeover.Lab(f"room-{os.getpid()}"), connections=limit)
    request.addfinalizer(rig.end)
    rig.start()
    clients = [rig.connect() for _ in range(n)]
    try:
        for c in clients:
            pgwire.check(c.query("set my.own = 'kept'"))
        old = rig.serving()
        rig.power_off(old)
        rig.until_elsewhere(old)
        for c in clients:
            assert c.one("select current_setting('my.own')") == "kept"
    finally:
        for c in clients:
            c.close()


def test_an_old_warm_connection_is_ended_when_it_is_lost(rig):
    """Its server process began long before its session had it."""
    with rig.connect() as c, rig.connect() as look:
        for sql in ("drop table if exists w", "create table w (i int primary key)"):
            pgwire.check(c.query(sql))
        rig.until(lambda: warm(rig, rig.backup()) == WARM, f"the backup has {WARM} connections")
        old = "select count(*) from pg_stat_activity where backend_type = 'client backend' and query = '' and " \
              "clock_timestamp() - backend_start > '12 s'"
        rig.until(lambda: int(look.one(old)) >= WARM, "they are old")
        first = rig.serving()
        rig.kill_manager(first)
        rig.until_elsewhere(first)
        for sql in ("begin", "insert into w values (1)"):
            pgwire.check(c.query(sql))
        rig.whole()
        second = rig.serving()
        rig.power_off(second)
        rig.until_elsewhere(second)
        pgwire.check(c.query("commit"))
        assert look.one("select count(*) from w") == "1"
