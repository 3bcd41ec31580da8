"""What holdfast-pg sees of real PostgreSQL servers: kill, restart, promotion, two primaries, silence."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import pgwire
import postgres
from postgres import until

OPTIONS = {"servers__health_interval": "100ms", "servers__health_timeout": "1s", "session__hold_timeout": "5s"}


@pytest.fixture
def rig():
    with postgres.Rig() as r:
        yield r


def told(proxy, text):
    until(lambda: text in proxy.log.read_text(), f"{proxy.name} says {text!r}: {proxy.tail()}")


def where(connection):
    return connection.one("select current_setting('port')")


def test_a_restart_is_another_incarnation(rig):
    server = rig.server()
    proxy = rig.proxy([server], **OPTIONS)
    with pgwire.Connection(proxy) as c:
        c.query("set work_mem = '3MB'")
        first = c.one("select pg_backend_pid()")
        server.kill()
        told(proxy, "pg1: primary -> down")
        server.start()
        assert c.one("show work_mem") == "3MB"
        assert c.one("select pg_backend_pid()") != first
    assert proxy.log.read_text().count("pg1 is the primary: timeline 1, fence") == 2


def test_a_crash_restart_in_place_is_seen(rig):
    """pg_postmaster_start_time() does not change then."""
    server = rig.server(restart_after_crash="on")
    proxy = rig.proxy([server], **OPTIONS)
    with pgwire.Connection(proxy) as c:
        started = c.one("select pg_postmaster_start_time()")
        first = c.one("select pg_backend_pid()")
        os.kill(int(server.psql("select pid from pg_stat_activity where backend_type = 'walwriter'")),
                signal.SIGKILL)
        until(lambda: proxy.log.read_text().count("pg1 is the primary") == 2, "two incarnations")
        assert c.one("select pg_postmaster_start_time()") == started
        assert c.one("select pg_backend_pid()") != first


def test_a_backend_that_ends_alone_is_no_restart(rig):
    server = rig.server()
    proxy = rig.proxy([server], **OPTIONS)
    monitor = until(lambda: server.psql("select pid from pg_stat_activity"
                                        " where application_name = 'holdfast-pg monitor'"), "the monitor is there")
    server.psql(f"select pg_terminate_backend({monitor})")
    until(lambda: server.psql("select pid from pg_stat_activity where application_name = 'holdfast-pg monitor'")
          not in ("", monitor), "another monitor is there")
    with pgwire.Connection(proxy) as c:
        assert where(c) == str(server.port)
    assert proxy.log.read_text().count("pg1 is the primary") == 1


def test_a_standby_is_promoted_and_the_old_primary_comes_back(rig):
    primary = rig.server()
    standby = rig.standby(primary)
    proxy = rig.proxy([primary, standby], **OPTIONS)
    with pgwire.Connection(proxy) as c:
        c.query("create table t (n int); insert into t values (1)")
        assert where(c) == str(primary.port)
        primary.power_off()
        standby.promote()
        assert where(c) == str(standby.port)
        c.query("insert into t values (2)")
        told(proxy, "pg2 is the primary: timeline 2, fence")
        primary.start()
        told(proxy, "pg1: down -> closed: an older timeline: another server was promoted")
        assert where(c) == str(standby.port)
        assert c.rows("select n from t order by 1") == [("1",), ("2",)]


def test_two_primaries_are_none(rig):
    primary = rig.server()
    a, b = rig.standby(primary, sync=False), rig.standby(primary, sync=False)
    proxy = rig.proxy([primary, a, b], **OPTIONS)
    told(proxy, "pg1: closed -> primary")
    told(proxy, "pg3: unknown -> standby")
    primary.kill()
    told(proxy, "pg1: primary -> down")
    a.promote()
    told(proxy, "pg2 is the primary: timeline 2")
    b.promote()
    told(proxy, "pg2: primary -> closed: two servers are writable on one timeline")
    with pytest.raises(pgwire.PgError) as e:
        pgwire.Connection(proxy, timeout=30)
    assert e.value.code == "57P03"
    b.stop()
    told(proxy, "pg2: closed -> primary")
    with pgwire.Connection(proxy) as c:
        assert where(c) == str(a.port)


def test_a_silent_server_is_dead_and_readers_leave_it(rig):
    primary = rig.server()
    standby = rig.standby(primary, sync=False)
    port = postgres.free_port()
    proxy = rig.proxy([primary, standby], pg__listen_read_only=[f"127.0.0.1:{port}"], **OPTIONS)
    told(proxy, "pg2: unknown -> standby")
    with pgwire.Connection(port=port) as reader:
        for _ in range(2):  # the second answer comes after what the session asks for itself
            assert where(reader) == str(standby.port)
        stopped = [standby.process.pid, *postgres.children(standby.process.pid)]
        try:
            for pid in stopped:
                postgres.send(pid, signal.SIGSTOP)
            told(proxy, "pg2: standby -> down: no answer in 1000 ms")
            assert where(reader) == str(primary.port)
        finally:
            for pid in stopped:
                postgres.send(pid, signal.SIGCONT)
        told(proxy, "pg2: down -> standby")


COUNT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import pgwire
c = pgwire.Connection(port=int(sys.argv[2]), timeout=60)
n, longest, end = 0, 0, time.monotonic() + 2
print("begun", flush=True)
while time.monotonic() < end:
    start = time.monotonic()
    c.rows(f"insert into t values ({n})")
    longest = max(longest, time.monotonic() - start)
    n += 1
assert c.one("select count(*) from t") == str(n)
print(c.one("show port"), n, round(longest * 1000, 1))
"""


def test_a_planned_switchover(rig):
    """One command; who writes notices nothing but a wait."""
    primary = rig.server()
    standby = rig.standby(primary, sync=False)
    proxy = rig.proxy([primary, standby], **OPTIONS)
    primary.psql("create table t (n int primary key)")
    told(proxy, "pg2: unknown -> standby")
    client = subprocess.Popen([sys.executable, "-c", COUNT, os.path.dirname(__file__), str(proxy.port)],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "begun\n"
        time.sleep(0.5)
        assert proxy.psql("switchover pg2", "holdfast") == ""
        port, n, longest = client.communicate(timeout=60)[0].split()
    finally:
        client.kill()
        client.wait()
    assert client.returncode == 0, proxy.tail()
    print(f"{n} commits, longest wait {longest} ms")
    assert port == str(standby.port)
    told(proxy, "switchover: attaching -> none")
    assert "given up" not in proxy.log.read_text()


def held(c):
    """No answer comes."""
    with pytest.raises(TimeoutError):
        c.read(0.5)


@pytest.mark.parametrize("begun", [False, True])
def test_pause_and_switchover_hold_for_themselves(rig, begun):
    """Whichever ends first, who is held by the other one stays so: nothing is written to the old primary."""
    primary = rig.server()
    standby = rig.standby(primary)
    proxy = rig.proxy([primary, standby], **OPTIONS | {"session__hold_timeout": "60s"})
    primary.psql("create table t (n int primary key)")
    told(proxy, "pg2: unknown -> standby")
    with pgwire.Connection(proxy) as before:
        before.one("select 1")
        proxy.psql("pause", "holdfast")
        proxy.psql("switchover", "holdfast")
        told(proxy, "switchover: freezing -> frozen")
        with pgwire.Connection(proxy) if begun else before as c:
            c.send(pgwire.Query("insert into t values (1)"))
            proxy.psql("resume", "holdfast")  # the switchover holds on
            held(c)
            proxy.psql("pause", "holdfast")
            primary.power_off()
            standby.promote()
            told(proxy, "switchover: attaching -> none")  # PAUSE holds on
            held(c)
            assert standby.psql("select count(*) from t") == "0"
            proxy.psql("resume", "holdfast")
            pgwire.check(c.until())
    assert standby.psql("select count(*) from t") == "1"


def ctl(proxy, *words):
    tool = pathlib.Path(postgres.find_program("holdfast-pg")).parent.parent / "ctl" / "holdfast"
    return subprocess.run([shutil.which("holdfast", path=os.environ.get("HOLDFAST_BIN", "")) or tool, "-s",
                           proxy.socket_dir / f".s.PGSQL.{proxy.port}", *words], capture_output=True, text=True,
                          env={"PGUSER": "postgres"}, timeout=60, check=False)


def test_holdfast_clients_and_drain(rig):
    primary = rig.server()
    standby = rig.standby(primary, sync=False)
    port = postgres.free_port()
    proxy = rig.proxy([primary, standby], pg__listen_read_only=[f"127.0.0.1:{port}"], **OPTIONS)
    told(proxy, "pg2: unknown -> standby")
    told(proxy, "pg1: closed -> primary")
    with pgwire.Connection(port=port) as reader, pgwire.Connection(proxy) as writer:
        assert where(reader) == str(standby.port) and where(writer) == str(primary.port)
        clients = json.loads(ctl(proxy, "clients", "--json").stdout)
        assert sorted(c["server"] for c in clients if c["server"]) == ["pg1", "pg2"]
        assert "PROTECTED" in ctl(proxy, "clients").stdout
        drained = ctl(proxy, "drain", "pg2")
        assert drained.returncode == 0, drained.stderr
        until(lambda: where(reader) == str(primary.port), "the reader has moved")
        pg2 = next(s for s in json.loads(ctl(proxy, "drain", "--json").stdout) if s["name"] == "pg2")
        assert pg2["draining"] == "yes" and pg2["sessions"] == "0"
        assert ctl(proxy, "undrain", "pg2").returncode == 0
        with pgwire.Connection(port=port) as another:
            assert where(another) == str(standby.port)
    unknown = ctl(proxy, "drain", "pg9")
    assert unknown.returncode == 1 and "no server has the name pg9" in unknown.stderr
    proxy.end()
    assert ctl(proxy, "clients").returncode == 3
