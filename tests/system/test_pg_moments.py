"""The instants at which a server can die, each made to happen: real servers, one session, holdfast-pg between them."""
import os
import pathlib
import signal
import time

import pytest

import pg_chaos
import pgwire
import postgres
from pgwire import Bind, Connection, CopyData, Execute, Parse, Query, Sync

EPOLL_WAIT = ("232", "281", "22")  # of x86-64, with a mask, of ARM


@pytest.fixture
def rig():
    if not postgres.find_program("holdfast-pg"):
        pytest.fail("holdfast-pg is not built")
    with postgres.Rig() as r:
        yield r


class World:
    """A primary, its synchronous standby if wanted, the proxy, one session c"""

    def __init__(self, rig, standby=False, schema="", proxy=None, **settings):
        self.a = rig.server(**pg_chaos.SETTINGS, log_min_duration_statement="0", **settings)
        with Connection(self.a) as c:
            pgwire.check(c.query(f"create table t (id serial primary key, v int); {schema}"))
        self.b = rig.standby(self.a) if standby else None
        self.proxy = rig.proxy(rig.servers, **pg_chaos.PROXY | (proxy or {}))
        self.c = Connection(self.proxy)

    def read_catalog(self):
        """Until the proxy has the list of names"""
        postgres.until(lambda: "execute <unnamed>: WITH RECURSIVE odd" in self.a.log.read_text(), "reads the catalog")
        for _ in range(10):
            self.c.one("select 1")

    def crash(self):
        self.a.power_off()
        self.a.start()

    def take_over(self):
        self.a.power_off()
        self.b.promote()

    def freeze_standby(self):
        """Commits wait from now on. Its receiver waits for WAL: while it has some it would go on with more when it is thawed."""
        self.frozen = [self.b.process.pid, *postgres.children(self.b.process.pid)]

        def idle():
            os.kill(self.receiver(), signal.SIGSTOP)
            number = pathlib.Path(f"/proc/{self.receiver()}/syscall").read_text(encoding="ascii").split()[0]
            return number in EPOLL_WAIT or os.kill(self.receiver(), signal.SIGCONT)

        postgres.until(idle, "the standby waits for WAL")
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)

    def receiver(self):
        """Of the frozen standby"""
        (pid,) = (pid for pid in self.frozen if b"walreceiver" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        return pid

    def forget_what_is_on_its_way(self):
        """Of the WAL that the frozen standby has not read: its receiver ends before it does anything else."""
        os.kill(self.receiver(), signal.SIGTERM)

    def thaw_standby(self):
        for pid in self.frozen:
            postgres.send(pid, signal.SIGCONT)

    def waiting(self, what):
        """Until a client's backend of the primary waits for it: not one of the proxy's own, which reads the catalog"""
        sql = ("select pid from pg_stat_activity where backend_type = 'client backend' and"
               f" application_name not like 'holdfast-pg%' and wait_event = '{what}'")
        with Connection(self.a) as look:
            return postgres.until(lambda: look.rows(sql), f"waits for {what}")[0][0]

    def doubts(self):
        """Commits that were interrupted: how many, and how they were resolved"""
        row = self.proxy.console("show moves")[0]
        return {k.removeprefix("in_doubt_"): int(v) for k, v in row.items() if k.startswith("in_doubt") and v != "0"}

    def values(self, server=None):
        with Connection(server or self.a) as c:
            return [int(v) for (v,) in c.rows("select v from t order by 1")]


def done(c, tag, messages=None):
    if messages is None:  # some of it may have been read while it had to be unanswered
        start = max(n for n, m in enumerate(c.seen) if m.kind == "Z") + 1
        c.until()
        messages = c.seen[start:]
    pgwire.check(messages)
    assert [m.data for m in messages if m.kind == "C"] == [tag], messages
    return pgwire.rows(messages)


def test_idle(rig):
    w = World(rig)
    for sql in ("set timezone = 'Asia/Tokyo'", "prepare p as select 7", "set my.own = 'x'", "listen l"):
        pgwire.check(w.c.query(sql))
    pgwire.check(w.c.ask(Parse("select $1::int + 1", "n"), Sync))
    for _ in range(2):
        w.crash()
        assert w.c.one("show timezone") == "Asia/Tokyo"
        assert w.c.one("execute p") == "7"
        assert w.c.one("show my.own") == "x"
        assert w.c.one("select pg_listening_channels()") == "l"
        assert pgwire.rows(pgwire.check(w.c.ask(Bind([4], "n"), Execute(), Sync))) == [("5",)]


def test_gap_of_a_listener(rig):
    """Notifications are not in the WAL: an empty one says that some may be missing (X12)."""
    w = World(rig)
    pgwire.check(w.c.query("listen l"))
    w.crash()
    m = w.c.until("A")[-1]
    assert m.data[1:] == ("l", "")


@pytest.mark.parametrize("sql", ["insert into t (v) select 1 from pg_sleep(0.5)", "select 1 from pg_sleep(0.5)"])
@pytest.mark.parametrize("block", [False, True])
def test_in_a_request(rig, sql, block):
    w = World(rig)
    if block:
        pgwire.check(w.c.query("begin"))
        done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (5)"))
    w.c.send(Query(sql))
    w.waiting("PgSleep")
    w.crash()
    done(w.c, "INSERT 0 1" if "insert" in sql else "SELECT 1")
    if block:
        done(w.c, "COMMIT", w.c.query("commit"))
    assert w.values() == [1] * ("insert" in sql) + [5] * block


class Parallel(World):
    """Each request has a parallel worker, and a second session to look at it."""

    def __init__(self, rig):
        super().__init__(rig)
        pgwire.check(self.c.query("set force_parallel_mode = on"))
        self.look = Connection(self.a)

    def worker(self, but=()):
        """Of the request under way, not one of these: its pid, and its leader's"""
        sql = "select pid, leader_pid from pg_stat_activity where backend_type = 'parallel worker' and wait_event = 'PgSleep'"
        return postgres.until(lambda: [r for r in self.look.rows(sql) if r[0] not in but], "a worker runs")[0]


@pytest.mark.parametrize("block", [False, True])
def test_worker_ends_before_its_leader(rig, block):
    """As at a fast shutdown, where the leader may be told after it has heard of its worker."""
    w = Parallel(rig)
    if block:
        pgwire.check(w.c.query("begin"))
        done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (5)"))
    w.c.send(Query("select 7 from pg_sleep(0.5)"))
    worker, leader = w.worker()
    os.kill(w.proxy.process.pid, signal.SIGSTOP)
    w.look.one(f"select pg_terminate_backend({worker})")
    idle = f"select 1 from pg_stat_activity where pid = {leader} and state like 'idle%' and wait_event = 'ClientRead'"
    postgres.until(lambda: w.look.rows(idle), "its leader has said so")
    w.crash()
    postgres.send(w.proxy.process.pid, signal.SIGCONT)
    assert done(w.c, "SELECT 1") == [("7",)]
    if block:
        done(w.c, "COMMIT", w.c.query("commit"))
    assert w.values() == [5] * block


def test_worker_that_somebody_ends(rig):
    """Its request is done again, once: the second time somebody wants just that."""
    w = Parallel(rig)
    for _ in range(2):
        w.c.send(Query("select 7 from pg_sleep(600)"))
        worker, leader = w.worker()
        w.look.one(f"select pg_terminate_backend({worker})")
        again, another = w.worker(but=[worker])
        assert leader != another
        w.look.one(f"select pg_terminate_backend({again})")
        w.c.until()
        assert [m.data["code"] for m in w.c.seen if m.kind == "E"][-1] == "57P01"
        assert w.c.one("select pg_backend_pid()") == another
        done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (1)"))
    assert w.values() == [1, 1]


def test_in_a_transaction_that_is_idle(rig):
    w = World(rig)
    pgwire.check(w.c.query("begin isolation level repeatable read"))
    pgwire.check(w.c.query("set local work_mem = '3MB'"))
    done(w.c, "INSERT 0 1", w.c.query("insert into t (id, v) values (1, 1)"))
    pgwire.check(w.c.query("savepoint s"))
    assert w.c.query("select 1/0")[-1].data == "E"
    w.crash()
    assert [m.data["code"] for m in w.c.query("select 1") if m.kind == "E"] == ["25P02"]
    pgwire.check(w.c.query("rollback to s"))
    assert w.c.one("show work_mem") == "3MB"
    done(w.c, "COMMIT", w.c.query("commit"))
    assert w.values() == [1]


def commits(c, how):
    """Something that commits, sent; the tag that answers it"""
    if how == "simple":
        c.send(Query("insert into t (v) values (1)"))
        return "INSERT 0 1"
    if how == "extended":
        c.send(Parse("insert into t (v) values ($1)"), Bind([1]), Execute(), Sync)
        return "INSERT 0 1"
    pgwire.check(c.query("begin"))
    pgwire.check(c.query("insert into t (v) values (1)"))
    c.send(Query("commit"))
    return "COMMIT"


def unanswered(c, how):
    """By the extended protocol CommandComplete says nothing of the commit, ReadyForQuery does."""
    try:
        while (m := c.read(0.5)).kind not in ("ZE" if how == "extended" else "CE"):
            pass
    except TimeoutError:
        return
    pytest.fail(f"answered: {m}")


HOW = pytest.mark.parametrize("how", ["simple", "extended", "block"])


@HOW
def test_committed_and_not_answered(rig, how):
    """The commit waits for the standby when the server dies; it is there after its restart."""
    w = World(rig, standby=True)
    w.freeze_standby()
    tag = commits(w.c, how)
    w.waiting("SyncRep")
    w.crash()
    unanswered(w.c, how)  # committed is not replicated (X4)
    w.thaw_standby()
    done(w.c, tag)
    assert w.values() == [1]
    assert w.doubts() == {"in_doubt": 1, "committed": 1}


@HOW
def test_doubt_without_a_fence(rig, how):
    """Others may write to the server: who can't know whether it was committed is told so, and goes on."""
    w = World(rig, standby=True, proxy={"servers__exclusive": False})
    w.freeze_standby()
    commits(w.c, how)
    w.waiting("SyncRep")
    w.crash()
    w.thaw_standby()
    seen = w.c.until()
    assert [m.data["code"] for m in seen if m.kind == "E"] == ["08007"], seen
    assert w.doubts() == {"in_doubt": 1, "unresolved": 1}
    assert w.c.one("select count(*) from t") == "1"


@HOW
def test_standby_without_the_last_commit(rig, how):
    """It is promoted without it: the transaction is done again there; its xid belongs to somebody else by then."""
    w = World(rig, standby=True)
    other = Connection(w.proxy)
    w.freeze_standby()
    tag = commits(w.c, how)
    w.waiting("SyncRep")
    other.send(Query("insert into t (v) values (2)"))
    with Connection(w.a) as look:
        postgres.until(lambda: look.one("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "2", "both wait")
    w.a.power_off()
    w.forget_what_is_on_its_way()
    w.thaw_standby()
    w.b.promote()
    done(w.c, tag)
    done(other, "INSERT 0 1")
    assert w.values(w.b) == [1, 2]
    assert w.doubts() == {"in_doubt": 2, "aborted": 2}


@HOW
def test_not_flushed(rig, how):
    """The commit record is written with a delay; the server dies before, in place; xids are used again."""
    w = World(rig, fsync="on", commit_delay=100000, commit_siblings=0)
    tag = commits(w.c, how)
    time.sleep(0.02)  # anywhere before the flush
    w.crash()
    done(w.c, tag)
    assert w.values() == [1]
    for _ in range(3):
        done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (9)"))
    assert w.values() == [1, 9, 9, 9]


@HOW
def test_cancel_while_waiting_for_the_standby(rig, how):
    """It would be acknowledged without the standby (X4): the cancel is not passed on."""
    w = World(rig, standby=True)
    w.freeze_standby()
    tag = commits(w.c, how)
    w.waiting("SyncRep")
    w.c.cancel()
    unanswered(w.c, how)
    w.thaw_standby()
    done(w.c, tag)
    w.a.power_off()
    w.b.promote()  # it had the commit on its disk, which is not yet in its tables
    assert w.values(w.b) == [1]


@HOW
def test_terminated_while_waiting_for_the_standby(rig, how):
    """Committed here, not there: never acknowledged before it is there, and never done twice."""
    w = World(rig, standby=True)
    w.freeze_standby()
    tag = commits(w.c, how)
    pid = w.waiting("SyncRep")
    with Connection(w.a) as admin:
        admin.query(f"select pg_terminate_backend({pid})")
    w.a.power_off()
    w.thaw_standby()
    w.b.promote()
    try:
        done(w.c, tag)
        assert w.values(w.b) == [1]
    except pgwire.PgError as e:
        assert e.code in ("57P01", "08007")
        assert w.values(w.b) == []


@pytest.mark.parametrize("sql", ["select g, repeat('x', 1000) from generate_series(1, 30000) g",
                                 "copy (select g, repeat('x', 1000) from generate_series(1, 30000) g) to stdout"])
def test_partly_delivered(rig, sql):
    """What the client has is skipped, the rest comes: one result."""
    w = World(rig)
    pgwire.check(w.c.query("begin"))
    w.c.send(Query(sql))
    got = [w.c.read() for _ in range(1000)]
    w.crash()
    got += w.c.until()
    rows = [m for m in got if m.kind in "Dd"]
    pgwire.check(got)
    assert len(rows) == 30000
    assert [int(m.data[0] if m.kind == "D" else m.data.split(b"\t")[0]) for m in rows] == list(range(1, 30001))
    done(w.c, "COMMIT", w.c.query("commit"))


def test_another_result(rig):
    """What the client has seen can't be had again: 40001, and the session goes on."""
    w = World(rig)
    pgwire.check(w.c.query("begin"))
    w.c.one("select random()")
    done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (1)"))
    w.crash()
    assert [m.data["code"] for m in w.c.query("insert into t (v) values (2)") if m.kind == "E"] == ["40001"]
    done(w.c, "ROLLBACK", w.c.query("rollback"))
    assert w.values() == []


def test_in_copy(rig):
    """COPY FROM STDIN is not protected: a clear error, and nothing of it is there"""
    w = World(rig)
    w.c.send(Query("copy t (v) from stdin"))
    w.c.until("G")
    w.c.send(CopyData(b"1\n"))
    w.crash()
    w.c.send(CopyData(b"2\n"), pgwire.CopyDone)
    got = []
    try:
        got = w.c.until()
    except pgwire.Closed:
        pass
    assert [m for m in w.c.seen if m.kind == "E" and m.data["code"] in ("57P01", "40001", "08007")], got
    assert w.values() == []


def test_in_the_replay(rig):
    """It dies again while the transaction is being replayed"""
    w = World(rig)
    pgwire.check(w.c.query("begin"))
    done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (1)"))
    done(w.c, "SELECT 1", w.c.query("select 1 from pg_sleep(0.5)"))
    w.crash()
    w.c.send(Query("insert into t (v) values (2)"))
    w.waiting("PgSleep")
    w.crash()
    done(w.c, "INSERT 0 1")
    done(w.c, "COMMIT", w.c.query("commit"))
    assert w.values() == [1, 2]


@pytest.mark.parametrize("who", ["server", "spare", "old"])
def test_in_a_planned_move(rig, who):
    """It waits for a lock while the session is being restored on the spare: now the server dies, or either backend."""
    w = World(rig)
    pgwire.check(w.c.query("set work_mem = '3MB'"))
    pgwire.check(w.c.query("prepare p as select count(*) from t"))
    pgwire.check(w.c.query("listen l"))
    old = w.c.one("select pg_backend_pid()")
    me = next(r for r in w.proxy.console("show clients") if r["database"] == "postgres")["id"]
    lock = Connection(w.a)
    pgwire.check(lock.query("begin; lock table t"))
    w.proxy.console(f"move {me}")
    spare = w.waiting("relation")
    assert spare != old
    if who == "server":
        w.crash()
    else:
        with Connection(w.a) as admin:
            admin.one(f"select pg_terminate_backend({spare if who == 'spare' else old})")
    lock.abort()
    if who == "old":  # somebody wanted just that
        with pytest.raises(pgwire.Closed, match="57P01"):
            w.c.one("select 1")
        return
    assert w.c.one("show work_mem") == "3MB"
    assert w.c.one("execute p") == "0"
    assert w.c.one("select pg_listening_channels()") == "l"
    done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (1)"))
    now = w.c.one("select pg_backend_pid()")
    assert (now == old) == (who == "spare")
    w.proxy.console(f"move {me}")  # it can be moved as ever
    postgres.until(lambda: w.c.one("select pg_backend_pid()") != now, "the move")
    assert w.c.one("execute p") == "1"


def test_old_server_still_alive(rig):
    """Frozen, not dead: the standby is promoted; what the old one does when it wakes up is nowhere."""
    w = World(rig, standby=True)
    done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (1)"))
    old = [w.a.process.pid, *postgres.children(w.a.process.pid)]
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    w.c.send(Query("insert into t (v) values (2)"))
    w.b.promote()
    done(w.c, "INSERT 0 1")
    for pid in old:
        postgres.send(pid, signal.SIGCONT)
    done(w.c, "INSERT 0 1", w.c.query("insert into t (v) values (3)"))
    assert w.values(w.b) == [1, 2, 3]


def test_sequence_and_two_crashes(rig):
    """An id that the client has seen is given again, and never to two."""
    w = World(rig)
    w.read_catalog()
    pgwire.check(w.c.query("begin"))
    ids = [w.c.one("insert into t (v) values (1) returning id")]
    for _ in range(2):
        w.crash()
        ids.append(w.c.one("insert into t (v) values (2) returning id"))
    done(w.c, "COMMIT", w.c.query("commit"))
    w.crash()
    ids += [w.c.one("insert into t (v) values (3) returning id") for _ in range(5)]
    assert len(set(ids)) == len(ids)
    with Connection(w.a) as c:
        assert {i for (i,) in c.rows("select id from t")} == set(ids)


IDS = """
create schema s;
create table s."Cc" (v int, "I""d" bigint generated always as identity primary key);
create table small (id smallserial primary key, v text);
insert into t (v) select 0 from generate_series(1, 40)
"""


def test_ids_are_given_again(rig):
    """INSERT ... RETURNING in its ways, one after the other and in one go"""
    w = World(rig, schema=IDS)
    w.read_catalog()
    pgwire.check(w.c.ask(Parse("insert into t (v) values ($1), ($1 + 1) returning v, id", "p", [23]), Sync))
    pgwire.check(w.c.query("begin"))
    once = "insert into small (v) values ($1) returning id"
    seen = [pgwire.rows(pgwire.check(got)) for got in (
        w.c.query("insert into t (v) values (1), (2) returning *"),
        w.c.query("insert into small (v, id) values ('a', default) returning id"),
        w.c.query("insert into s.\"Cc\" (v) values (1), (2), (3) returning \"I\"\"d\""),
        w.c.ask(Bind([7], "p"), Execute(), Sync),
        w.c.ask(Parse("insert into t (v) values ($1) returning v, id"), Bind([9], result_formats=[0, 1]), Execute(), Sync),
        w.c.ask(Parse(once), Bind(["b"]), Execute(), Bind(["c"]), Execute(), Bind(["d"], result_formats=[1]), Execute(), Sync),
        w.c.ask(Bind([20], "p", result_formats=[1]), Execute(), Parse(once), Bind(["e"]), Execute(), Sync))]
    for v in range(2):
        w.crash()
        done(w.c, "INSERT 0 1", w.c.query(f"insert into t (v) values ({100 + v})"))
    done(w.c, "COMMIT", w.c.query("commit"))
    assert int(w.c.one("select count(*) from t")) == 40 + 2 + 2 + 1 + 2 + 2
    assert seen[0] == w.c.rows("select id, v from t where v in (1, 2) order by v")
    assert seen[1] == w.c.rows("select id from small where v = 'a'")
    assert seen[2] == w.c.rows("select \"I\"\"d\" from s.\"Cc\" order by v")
    assert seen[3] == w.c.rows("select v, id from t where v in (7, 8) order by v")
    small = [i for (i,) in w.c.rows("select id from small where v in ('b', 'c', 'd', 'e') order by v")]
    assert [i for (i,) in seen[5]][:2] == small[:2] and len(small) == 4
    assert w.c.one("insert into small (v) values ('f') returning id") not in small


def test_currval_after_a_replay(rig):
    """The sequences of a replay gave other values: as after DISCARD SEQUENCES there is none, rather than a wrong one."""
    w = World(rig)
    w.read_catalog()
    pgwire.check(w.c.query("begin"))
    seen = w.c.one("insert into t (v) values (1) returning id")
    w.crash()
    assert w.c.one("select count(*) from t") == "1"
    got = w.c.query("select currval('t_id_seq')")
    assert [m.data["code"] for m in got if m.kind == "E"] in (["55000"], []), got
    assert pgwire.rows(got) in ([], [(seen,)])
    w.c.query("rollback")


def test_discard_sequences(rig):
    """Who did it has no currval(), before a crash and after it; ids are given again as ever."""
    w = World(rig)
    w.read_catalog()
    pgwire.check(w.c.query("begin"))
    pgwire.check(w.c.query("discard sequences"))
    first = w.c.one("insert into t (v) values (2) returning id")
    w.crash()
    done(w.c, "COMMIT", w.c.query("commit"))
    assert w.c.rows("select id from t") == [(first,)]
    pgwire.check(w.c.query("insert into t (v) values (1)"))
    assert w.c.one("select currval('t_id_seq')") == w.c.one("select lastval()")
    pgwire.check(w.c.query("discard sequences"))
    for _ in range(2):
        for sql in ("select currval('t_id_seq')", "select lastval()"):
            assert [m.data["code"] for m in w.c.query(sql) if m.kind == "E"] == ["55000"]
        w.crash()


def test_an_id_that_somebody_has_by_now(rig):
    """The crash took it back, and it was given to another: 40001, and nothing is there twice."""
    w = World(rig)
    w.read_catalog()
    pgwire.check(w.c.query("begin"))
    (row,) = pgwire.rows(w.c.query("insert into t (v) values (1) returning id"))
    w.a.power_off()
    w.a.start()
    with Connection(w.a) as c:
        c.send(Query(f"insert into t (id, v) values ({row[0]}, 2) on conflict do nothing"))
        got = w.c.query("commit")  # the insert may wait for it, if the replay was before it
        pgwire.check(c.until())
    errors = [m.data["code"] for m in got if m.kind == "E"]
    assert errors in ([], ["40001"])  # whoever was quicker
    assert w.values() in ([1], [2])
    assert w.values() == ([2] if errors else [1])
