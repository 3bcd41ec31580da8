"""The host that has a client's connection dies, and the client goes on: the same connection, session and transaction.

Every kind of client and every way to die at random: make takeover-chaos."""
import contextlib
import json
import os
import signal
import socket
import ssl
import threading

import pytest

import pg_chaos
import pgwire
import takeover
import takeover_chaos
from lab import end
from pgwire import Bind, Execute, Parse, Query, Sync
from takeover import Connection
from takeover_chaos import Chaos, CopyOut, Listen, Psql, Psycopg, remote

KINDS = (*(remote(k) for k in (pg_chaos.Insert, pg_chaos.Prepared, pg_chaos.Transfer, pg_chaos.PipelineTransaction, pg_chaos.Orm,
                               pg_chaos.Session)), CopyOut, Listen, Psql, Psycopg)
SMALL = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 16384),)


@pytest.fixture(scope="module", name="the_rig")
def fixture_the_rig():
    with takeover.rig_for("takeover", tls=True) as rig:
        yield rig


@pytest.fixture(name="rig")
def fixture_rig(the_rig):
    the_rig.whole()
    return the_rig


@pytest.fixture(name="table")
def fixture_table(rig):
    with rig.connect() as c:
        for sql in ("drop table if exists t", "create table t (i int primary key, v text)"):
            pgwire.check(c.query(sql))


def lose(rig, way):
    """The serving host is no more; another one serves."""
    host = rig.serving()
    epoch = rig.epoch()
    if way == "power_off":
        rig.power_off(host)
    elif way == "process":
        rig.kill_manager(host)
    else:
        rig.switch()
    rig.until(lambda: rig.epoch() > epoch and rig.serving(), "another reign")


WAYS = ("power_off", "process", "planned")


@pytest.mark.parametrize("way", ["power_off", "process"])  # the others, at random: make takeover-chaos
def test_clients_that_count(rig, way):
    chaos = Chaos(rig, "test", KINDS)
    capture = rig.capture()
    chaos.run(1, [getattr(chaos, way)])
    assert not takeover_chaos.answered_once(capture)
    assert not chaos.books()


@pytest.mark.parametrize("way", WAYS)
def test_an_open_transaction(rig, table, way):
    with rig.connect() as c:
        for sql in ("begin", "insert into t values (1, 'before')", "savepoint s", "insert into t values (2, 'in s')"):
            pgwire.check(c.query(sql))
        lose(rig, way)
        assert c.rows("select i, v from t order by i") == [("1", "before"), ("2", "in s")]
        for sql in ("rollback to s", "insert into t values (3, 'after')", "commit"):
            pgwire.check(c.query(sql))
        assert c.rows("select i, v from t order by i") == [("1", "before"), ("3", "after")]


def test_a_failed_transaction_stays_failed(rig, table):
    with rig.connect() as c:
        c.query("begin")
        c.query("insert into t values (1, 'x')")
        assert c.query("select 1/0")[-1].data == "E"
        lose(rig, "process")
        with pytest.raises(pgwire.PgError, match="25P02"):
            c.rows("select 1")
        pgwire.check(c.query("rollback"))
        assert c.one("select count(*) from t") == "0"


@pytest.mark.parametrize("way", WAYS)
def test_prepared_statements_and_settings(rig, table, way):
    with rig.connect() as c:
        pgwire.check(c.ask(Parse("insert into t values ($1, current_setting('my.own')) returning v", "add", [23]), Sync))
        for sql in ("set my.own = 'kept'", "set timezone = 'Asia/Tokyo'", "prepare q(int) as select $1 + 1"):
            pgwire.check(c.query(sql))
        for n in range(2):
            assert pgwire.rows(pgwire.check(c.ask(Bind([n], "add"), Execute(), Sync))) == [("kept",)]
            if not n:
                lose(rig, way)
        assert c.rows("execute q(1)") == [("2",)]
        assert c.one("show timezone") == "Asia/Tokyo"


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_out_in_the_middle(rig, way):
    sql = "select i, repeat(md5(i::text), 30) from generate_series(1, 20000) i"
    with rig.connect() as c:
        want = [b"\t".join(v.encode() for v in r) + b"\n" for r in c.rows(sql)]
    with rig.connect(options=SMALL) as c:
        c.send(Query(f"copy ({sql}) to stdout"))
        c.until("H")
        got = [c.read().data for _ in range(100)]
        lose(rig, way)
        got += [m.data for m in pgwire.check(c.until()) if m.kind == "d"]
        assert got == want
        assert c.one("select 1") == "1"


@pytest.mark.parametrize("way", WAYS)
def test_a_listener(rig, way):
    with rig.connect() as c, rig.connect() as other:
        pgwire.check(c.query("listen news"))
        pgwire.check(other.query("notify news, 'one'"))
        lose(rig, way)
        pgwire.check(other.query("notify news, 'two'"))
        heard = []
        while heard[-1:] not in (["two"], [""]):
            heard.append(c.until("A")[-1].data[2])
        pgwire.check(other.query("notify news, 'three'"))
        while heard[-1] != "three":
            heard.append(c.until("A")[-1].data[2])
        # an empty one says that some may be missing (X12)
        assert [h for h in heard if h] in (["one", "two", "three"], ["one", "three"], ["two", "three"], ["three"]), heard
        assert len(set(heard) - {""}) == 3 or "" in heard, heard


def test_a_statement_that_runs(rig, table):
    """The answer comes, from whichever server, and nothing is done twice."""
    with rig.connect() as c:
        c.send(Query("insert into t select i, (select count(*) from generate_series(1, 300000))::text from generate_series(1, 30) i"))
        lose(rig, "power_off")
        assert pgwire.check(c.until())[0].data == "INSERT 0 30"
        assert c.one("select count(*) from t") == "30"


def test_idle_sessions(rig):
    """They say nothing meanwhile, and are there all the same: many, and one that is half closed"""
    sessions = [rig.connect() for _ in range(50)]
    lose(rig, "power_off")
    for n, c in enumerate(sessions):
        assert c.one(f"select {n}") == str(n)
        c.close()


def test_a_connection_made_meanwhile(rig):
    """Its first packets come when nobody, or not yet anybody, has the address. Only one whose handshake is hardly over
    is lost: it is told so at once, and the next one is let in."""
    done, lost, end = [], [], threading.Event()

    def connect():
        while not end.is_set():
            try:
                c = takeover.Connection(rig.address, timeout=60)
            except pgwire.Closed as e:
                assert "reset" in str(e)
                lost.append(e)
                continue
            with c:
                done.append(c.one("select 1"))

    t = threading.Thread(target=lambda: rig.as_client(connect))
    t.start()
    try:
        rig.until(lambda: len(done) > 3 or not t.is_alive(), "connections")
        lose(rig, "power_off")
        n = len(done)
        rig.until(lambda: len(done) > n + 3 or not t.is_alive(), "connections afterwards")
        assert t.is_alive() and len(lost) <= 1
    finally:
        end.set()
        t.join()


class Slow(Connection):
    """Says half of a message of its login, and the rest when `go` is set."""

    def __init__(self, host, stage, go, **kw):
        self.stage, self.half, self.go, self.said = stage, threading.Event(), go, 0
        self.thread = threading.Thread(target=lambda: super(Slow, self).__init__(host, user="mary", password="secret", timeout=60, **kw))

    def send(self, *messages):
        data = b"".join(messages)
        if self.said == self.stage:
            super().send(data[:len(data) // 2])
            self.half.set()
            assert self.go.wait(60)
            data = data[len(data) // 2:]
        self.said += 1
        super().send(data)


@pytest.mark.parametrize("way", WAYS)
def test_a_login_under_way(rig, way):
    """StartupMessage, SASLInitialResponse, SASLResponse: whichever it is at, it goes on on the other host."""
    with rig.connect() as c:
        c.query("create role mary login")
    go = threading.Event()
    logins = [Slow(rig.address, stage, go) for stage in range(3)]
    rig.as_client(lambda: [s.thread.start() for s in logins])  # threads inherit the network
    try:
        for s in logins:
            assert s.half.wait(60)
        lose(rig, way)
    finally:
        go.set()
        for s in logins:
            s.thread.join()
    for s in logins:
        assert s.one("select current_user") == "mary"
        s.close()


def no_verification():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("way", WAYS)
def test_who_cannot_be_taken_over_learns_it(rig, table, way):
    """It only waits, and sends nothing: who has TLS, whose locks go, too."""
    tls = rig.as_client(lambda: Connection(rig.address, ssl=no_verification(), timeout=60))
    pgwire.check(tls.query("begin"))
    pgwire.check(tls.query("lock table t"))
    with rig.connect() as c:
        assert "TLS" in str(rig.protection())
        lose(rig, way)
        with pytest.raises(pgwire.Closed):
            tls.read()
        pgwire.check(c.query("insert into t values (1, 'x')"))
    tls.socket.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_last_answer_arrives(rig, way):
    """The session is over, but its client has not read everything."""
    with rig.connect(options=SMALL) as c, rig.connect() as other:
        port = c.socket.getsockname()[1]

        def shown():
            return [r for r in rig.rows("CLIENTS") if r["addr"].endswith(f":{port}")]

        want = c.one("select repeat('last', 12500)")
        c.send(Query("select repeat('last', 12500)"))
        c.until("T")
        rig.until(lambda: shown()[0]["active"] == "no", "the answer is on its way")
        c.send(pgwire.Terminate)
        rig.until(lambda: not shown(), "its session is over")
        lose(rig, way)
        assert [m.data[0].decode() for m in c.rest() if m.kind == "D"] == [want]
        assert other.one("select 1") == "1"


def test_a_session_that_has_no_server_yet(rig):
    """It has lost nothing, so that nobody waits for it when the database's server and its host go on elsewhere."""
    rig.let_serve(rig.serving(takeover.DATABASE))
    rig.whole()
    host, sessions = rig.serving(), []
    with rig.connect() as c:
        assert c.one("select 1") == "1"  # the manager knows the database
    pid = rig.on(host, "head", "-n1", f"/srv/{takeover.COPIES[host]}/data/postmaster.pid").strip()
    rig.on(host, "kill", "-STOP", pid)  # lets nobody in
    t = threading.Thread(target=lambda: sessions.append(rig.connect(timeout=40)))
    t.start()
    try:
        rig.until(lambda: [r for r in rig.rows("CLIENTS") if r["state"] == "starting" and r["backup"]], "it is protected")
        lose(rig, "power_off")
    finally:
        for stopped in rig.pids(host, "postgres"):
            os.kill(stopped, signal.SIGCONT)
        t.join()
    with sessions[0] as c:
        assert c.one("select 1") == "1"


def test_cancel_reaches_the_session_elsewhere(rig):
    with rig.connect() as c:
        lose(rig, "process")
        c.send(Query("select pg_sleep(60)"))
        with rig.connect() as other:
            sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
            rig.until(lambda: other.one(sleeps) != "0", "it sleeps")
        rig.as_client(c.cancel)
        with pytest.raises(pgwire.PgError, match="57014"):
            pgwire.check(c.until())
        assert c.one("select 1") == "1"


def test_the_way_back(rig, table):
    """The host that died becomes the backup by itself, and the connection comes back to it."""
    first = rig.serving()
    with rig.connect() as c:
        pgwire.check(c.query("begin"))
        pgwire.check(c.query("insert into t values (1, 'x')"))
        lose(rig, "power_off")
        second = rig.serving()
        (third,) = set(takeover.HOSTS) - {first, second}
        rig.boot(first)
        rig.whole()
        rig.stop_manager(third)
        rig.until(lambda: rig.backup() == first, f"{first} is the backup")
        rig.kill_manager(second)
        rig.until_serving(first)
        pgwire.check(c.query("commit"))
        assert c.one("select count(*) from t") == "1"


def protected_by(rig):
    """{hosts that the sessions' rows name}"""
    rows = [r for r in rig.protection() if r["database"] == "postgres"]
    return {h for r in rows for h in takeover.HOSTS if h in r.values()}, rows


def test_protection_is_told(rig):
    """By which host; and when there is nobody, that too, and for how long."""
    with rig.connect() as c:
        assert c.one("select 1") == "1"
        rig.until(lambda: protected_by(rig)[0] == {rig.backup()}, "sessions are protected by the backup")
        serving, backup = rig.serving(), rig.backup()
        (third,) = set(takeover.HOSTS) - {serving, backup}
        (row,) = (r for r in json.loads(rig.on(serving, "env", "PGUSER=postgres", "holdfast", "clients", "--json")) if r["database"] == "postgres")
        assert (row["protected"], row["backup"], row["why_not"]) == ("yes", backup, "")
        m = rig.metrics()
        assert m['holdfast_pg_role{role="primary"}'] == m["holdfast_pg_backup_in_sync"] == m["holdfast_pg_sessions_protected"] == 1
        assert m[f'holdfast_pg_peer{{host="{backup}"}}'] == 1
        assert m["holdfast_pg_epoch"] == rig.epoch() == int(rig.rows("SERVICE")[0]["epoch"])
        assert m["holdfast_pg_unprotected_seconds"] == 0 < m["holdfast_pg_confirm_seconds_count"]
        guard = {k.split('"')[1]: v for k, v in m.items() if k.startswith("holdfast_pg_guard_packets_total")}
        assert len(guard) == 10 and guard["beyond"] == guard["lost"] == 0, guard
        total = m["holdfast_pg_unprotected_reign_seconds"]
        rig.stop_manager(backup)
        rig.until(lambda: protected_by(rig)[0] == {third}, "sessions are protected by the third host")
        rig.stop_manager(third)
        rig.until(lambda: rig.shown(takeover.SERVICE)["in_sync"] == [serving], "nobody protects")
        assert not protected_by(rig)[0]
        assert c.one("select 2") == "2"
        m = rig.metrics()
        (why,) = (k for k in m if k.startswith("holdfast_pg_sessions_unprotected{"))
        assert "backup" in why and m[why] == 1 and m["holdfast_pg_sessions_protected"] == m["holdfast_pg_backup_in_sync"] == 0
        assert m["holdfast_pg_protection_losses_total"] >= 2
        (row,) = rig.rows("SERVICE")
        assert float(row["unprotected_s"]) > 0 and float(row["unprotected_total_s"]) >= total + float(row["unprotected_s"])
        assert "sessions are not protected any more" in rig.log(serving)
    rig.whole()
    with rig.connect() as c:
        rig.until(lambda: protected_by(rig)[0] == {rig.backup()}, "sessions are protected again")
        assert rig.rows("SERVICE")[0]["unprotected_s"] == "0.000"
        assert "without protection" in rig.log(rig.serving())


# --- two failures ---


def counting(rig, act):
    """Clients count over it; what must survive survives, and nothing hangs."""
    chaos = Chaos(rig, "two", KINDS)

    def two(host):
        act(host)
        return True

    chaos.run(1, [two])
    return chaos.books()


def test_the_backup_dies_with_the_takeover_of_a_third(rig):
    """The new primary dies as soon as another host protects it."""
    def act(host):
        rig.kill_manager(host)
        second = rig.until_elsewhere(host)
        rig.until(rig.backup, "another backup")
        rig.kill_manager(second)
        rig.until_elsewhere(second)

    assert not counting(rig, act)


@contextlib.contextmanager
def slow_to_promote(rig, host):
    """Its agent prepares nothing, and is never done with the promotion."""
    path = takeover.STATE / rig.lab.name / "hosts" / host / "fs/usr/lib/ocf/resource.d/holdfast/pg"
    agent = path.read_text()
    first, rest = agent.split("\n", 1)
    path.write_text(f"{first}\ncase $1 in\nprepare-promote) exit 3 ;;\npromote) sleep 60 ;;\nesac\n{rest}")
    try:
        yield
    finally:
        path.write_text(agent)


def test_the_new_primary_dies_within_the_switch(rig):
    """The group still counts on the former one, which has the sessions."""
    def act(host):
        new = rig.backup()
        with slow_to_promote(rig, new):
            order = rig.lab.popen(host, "holdfast", "-t", "30", "group", "switch", takeover.SERVICE)
            rig.until(lambda: rig.role(host) == "backup", "the former primary has let go")
            rig.power_off(new)
            text = order.communicate(timeout=60)[0]
            assert order.returncode and f"it did not work there; primary is {host} on {host}" in text, text
        assert rig.role(host) == "primary"

    assert not counting(rig, act)


def test_alone_without_a_quorum(rig):
    """Who serves without a backup lets go when it is not quorate, and has the sessions when it is again."""
    host = rig.serving()
    others = sorted(set(takeover.HOSTS) - {host})
    with rig.connect() as c, rig.connect() as idle:
        pgwire.check(c.query("begin"))
        assert c.one("select 1") == "1"
        pgwire.check(idle.query("set my.own = 'kept'"))
        for other in others:
            rig.stop_manager(other)
        rig.until(lambda: rig.shown(takeover.SERVICE)["in_sync"] == [host], "nobody protects")
        for other in others:
            rig.cut(other)
        rig.until(lambda: rig.role(host) == "backup", "it has let go")
        rig.until_apart(*takeover.HOSTS)
        for other in others:
            rig.heal(other)
        rig.until(lambda: rig.role(host) == "primary", "it serves again")
        assert idle.one("select current_setting('my.own')") == "kept"
        assert c.one("select 2") == "2"
        pgwire.check(c.query("commit"))
    rig.whole()


def test_nobody_has_the_sessions(rig):
    """The primary is alone, and its process dies: who only waits learns it by a reset from the next one, or by
    the dead one's FIN."""
    with rig.connect() as c, rig.as_client(lambda: socket.create_connection((rig.address, takeover.PORT), timeout=60)) as login:
        host, epoch = rig.serving(), rig.epoch()
        for other in set(takeover.HOSTS) - {host}:
            rig.stop_manager(other)
        rig.until(lambda: rig.shown(takeover.SERVICE)["in_sync"] == [host], "nobody protects")
        rig.kill_manager(host)
        rig.until(lambda: rig.epoch() > epoch and rig.serving(), "another reign")
        with pytest.raises(ConnectionResetError):
            c.socket.recv(1)
        with contextlib.suppress(ConnectionResetError):
            assert login.recv(1) == b""
    with rig.connect() as c:
        assert c.one("select 1") == "1"


def test_both_managers_die_at_once(rig, table):
    """Nobody has the sessions: who asks learns it by a reset, what was acknowledged is there, and new sessions are let in."""
    with rig.connect() as c, rig.connect() as idle:
        pgwire.check(c.query("insert into t values (1, 'acknowledged')"))
        pgwire.check(c.query("begin"))
        pgwire.check(c.query("insert into t values (2, 'not')"))
        epoch = rig.epoch()
        for pid in [rig.manager(host) for host in (rig.serving(), rig.backup())]:
            os.kill(pid, signal.SIGKILL)
        rig.until(lambda: rig.epoch() > epoch and rig.serving(), "another reign")
        for lost in (c, idle):
            with pytest.raises((pgwire.Closed, OSError)):
                lost.one("select 1")
    with rig.connect() as c:
        assert c.rows("select i from t") == [("1",)]


def test_standby_and_backup_die_together(rig):
    """One host had both: the primary and its manager go on alone."""
    rig.let_serve(rig.serving(takeover.DATABASE))
    rig.whole()
    (other,) = set(takeover.COPIES) - {rig.serving()}
    rig.let_back(other)

    def act(_):
        rig.power_off(other)
        rig.until(lambda: other not in rig.shown(takeover.SERVICE)["in_sync"], "it is out of S")

    chaos = Chaos(rig, "two", KINDS)
    chaos.run(1, [act], seconds=1)
    assert not chaos.books()


# The numbers of processes go round there, from the first to the last of these.
ROUND = """import sys
first, end = map(int, sys.argv[1:])
print("go", flush=True)
while True:
    with open("/proc/sys/kernel/ns_last_pid", "r+") as f:
        if not first <= int(f.read()) < end:
            f.seek(0)
            f.write(str(first))"""


def test_another_servers_processes_have_the_same_numbers(rig):
    """The host of the database and of the sessions dies, and clients with it: what they had at that server is not ended at another one."""
    rig.let_serve(rig.serving(takeover.DATABASE))
    rig.whole()
    host = rig.serving()
    (other,) = set(takeover.COPIES) - {host}
    rig.lab.put(host, "/tmp/sleep", "\\sleep 100 s\n")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(rig.connect()) for _ in range(10)]
        stack.callback(end, rig.lab.popen(host, "pgbench", "-n", "-f", "/tmp/sleep", "-c", "60", "-h", rig.address, "-p", str(takeover.PORT),
                                          "-U", "postgres", "postgres"))
        theirs = "select pid from pg_stat_activity where application_name = 'pgbench'"
        rig.until(lambda: len(clients[0].rows(theirs)) == 60, "all are connected")
        numbers = {int(pid) for pid, in clients[0].rows(theirs)}
        rig.until(lambda: protected_by(rig)[0] == {rig.backup()}, "all are protected")
        round_ = rig.lab.popen(other, "python3", "-c", ROUND, str(min(numbers)), str(max(numbers)))
        stack.callback(end, round_)
        assert round_.stdout.readline() == "go\n"
        rig.power_off(host)
        new = {c: c.one("select pg_backend_pid()") for c in clients}
        assert {int(n) for n in new.values()} & numbers
        for _ in range(40):  # some seconds
            for c, n in new.items():
                assert c.rows("select pg_backend_pid(), pg_sleep(0.01)") == [(n, "")]


@pytest.mark.parametrize("way", WAYS)
def test_takeovers_are_counted(rig, way):
    with rig.connect() as c:
        kind = "planned" if way == "planned" else "failure"
        lose(rig, way)
        assert c.one("select 1") == "1"
        host = rig.serving()
        rig.until(lambda: rig.metrics(host)[f'holdfast_pg_takeover_seconds_count{{kind="{kind}"}}'] >= 1, "it is counted")
        m = rig.metrics(host)
        assert m["holdfast_pg_takeover_sessions_restored_total"] >= 1
        assert {r["what"]: int(r["count"]) for r in rig.rows("TAKEOVERS", host)}[f"take-overs: {kind}"] >= 1
        rig.until(lambda: f"{host} took over ({kind}, epoch " in rig.on(host, "holdfast", "top", "-b", "-n", "1"), "the timeline has it")
        rig.until(lambda: "slowest (stalls)" in rig.on(host, "holdfast", "top", "-b", "-n", "1"), "what requests take is told")


def test_managers_watch_each_other(rig):
    """Both ways: load, sessions and databases of each host in the tree, at every host; gone with the host."""
    with rig.connect() as c:
        assert c.one("select 1") == "1"
        rig.until(lambda: protected_by(rig)[0] == {rig.backup()}, "the session is protected")
        serving, backup = rig.serving(), rig.backup()
        (third,) = set(takeover.HOSTS) - {serving, backup}

        def managers(host):
            return {r["host"]: r for r in rig.rows("MANAGERS", host)}

        def status(host):
            return json.loads(rig.on(host, "holdfast", "status", "--json"))

        rig.until(lambda: int(managers(serving)[backup]["stored"]) >= 1, "the primary knows what the backup has")
        rig.until(lambda: managers(backup)[serving]["protected"] == "1", "the backup knows what the primary has")
        for host in takeover.HOSTS:
            rig.until(lambda h=host: set(managers(h)) == set(takeover.HOSTS), f"{host} hears all")
            rows = managers(host)
            assert all(float(r["cpus"]) >= 1 and float(r["memory_mib"]) > 0 for r in rows.values()), rows
            assert all(" primary" in r["databases"] for r in rows.values()), rows
        glance = f"{takeover.SERVICE}: 1 session at {serving} ({rig.address}:{takeover.PORT}), 1 protected by {backup}\n"
        rig.until(lambda: glance in rig.on(third, "holdfast", "status"), glance)
        rig.power_off(backup)
        rig.until(lambda: backup not in managers(serving), f"{backup} is gone")
        rig.until(lambda: protected_by(rig)[0] == {third}, f"{third} protects")
        rig.stop_manager(third)
        rig.until(lambda: any("would not outlive" in p["what"] for p in status(serving)["problems"]), "status warns")
        assert "none protected for" in rig.on(serving, "holdfast", "status")
    rig.whole()
    rig.until(lambda: not any("would not outlive" in p["what"] for p in status(serving)["problems"]), "status warns no more")
