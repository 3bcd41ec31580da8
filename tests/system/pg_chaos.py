#!/usr/bin/python3
"""make pg-chaos: clients that count, while their server dies in every way; afterwards, the books.

Every operation carries (client, number) into the table `ledger`, which has no unique index: what was acknowledged
must be there once, what was refused must not be there, nothing may be there twice. Clients of a protected kind must
see no error at all.
"""
import argparse
import collections
import os
import random
import sys
import threading
import time

import pgwire
import postgres
from pgwire import Bind, CopyData, CopyDone, DescribePortal, Execute, Parse, Query, Sync

SCHEMA = """
create table ledger (client int, op int, at timestamptz default now());
create table counter (client int primary key, n int not null);
create table account (id int primary key, balance int not null);
insert into account select g, 1000 from generate_series(1, 100) g;
create table orders (id serial primary key, client int, op int, state text);
create function book(int, int) returns int language sql as 'insert into ledger values ($1, $2) returning $2'
"""
SETTINGS = {"autovacuum": "off", "synchronize_seqscans": "off", "deadlock_timeout": "100ms"}
PROXY = {"servers__exclusive": True, "servers__health_interval": "100ms", "servers__health_timeout": "1s",
         "session__hold_timeout": "60s"}


def pbe(sql, values=()):
    return (Parse(sql), Bind(values), DescribePortal(), Execute())


class Client(threading.Thread):
    """One client. `step` does one operation; what it raises says how it ended."""

    protected = True
    pause = 0.0  # s, between two operations
    retries = ()  # SQLSTATEs that an application of this kind repeats the transaction for

    def __init__(self, number, endpoint, seed, resend):
        super().__init__(daemon=True)
        self.number, self.endpoint, self.resend = number, endpoint, resend
        self.random = random.Random(f"{seed}/{number}")
        self.op = 0
        self.acked, self.unknown, self.refused = set(), set(), set()
        self.errors = []
        self.retried = 0
        self.stopping = False
        self.longest = 0.0
        self.connection = None

    @classmethod
    def kind(cls):
        return cls.__name__

    def setup(self, c):
        """What each session begins with"""

    def open(self):
        return pgwire.Connection(self.endpoint, timeout=120)

    def connect(self):
        if self.connection is None:
            self.connection = self.open()
            self.setup(self.connection)
        return self.connection

    def run(self):
        while not self.stopping:
            self.op += 1
            start = time.monotonic()
            try:
                self.step(self.connect())
                self.acked.add(self.op)
            except pgwire.PgError as e:
                self.failed(e)
            except (pgwire.Closed, OSError) as e:
                self.lost(e)
            except AssertionError as e:
                self.errors.append((self.op, f"wrong answer: {e}"))
                self.unknown.add(self.op)
                self.drop()
            except Exception as e:  # a thread must not die unseen
                self.errors.append((self.op, f"client broken: {e!r}"))
                self.drop()
                return
            self.longest = max(self.longest, time.monotonic() - start)
            time.sleep(self.pause)
        if self.connection:
            self.connection.close()

    def failed(self, e):
        if self.connection is None:
            return self.lost(e)
        if e.code in self.retries and not e.fatal:
            self.retried += 1
            self.refused.add(self.op)
            if self.connection.status != "I":
                try:
                    self.connection.query("rollback")
                except (pgwire.Closed, OSError) as lost:
                    self.lost(lost)
            return None
        self.errors.append((self.op, str(e)))
        known = not e.fatal and e.code != "08007"
        (self.refused if known else self.unknown).add(self.op)
        self.drop()
        return None

    def lost(self, e):
        if self.connection is None:  # not even connected: nothing was done
            self.errors.append((self.op, f"no connection: {e}"))
            self.op -= 1
        else:
            self.unknown.add(self.op)
            self.errors.append((self.op, f"connection lost: {e}"))
            if self.resend:  # as no client should
                self.op -= 1
        self.drop()
        time.sleep(0.02)

    def drop(self):
        if self.connection:
            self.connection.abort()
            self.connection = None

    def ledger(self):
        return f"insert into ledger values ({self.number}, {self.op})"

    def ok(self, messages, tag=None):
        pgwire.check(messages)
        tags = [m.data for m in messages if m.kind == "C"]
        assert tag is None or tags[-1:] == [tag], f"{messages}, not {tag}"
        return pgwire.rows(messages)


class Insert(Client):
    """An autocommit INSERT, simple protocol"""

    def step(self, c):
        self.ok(c.query(self.ledger()), "INSERT 0 1")


class Increment(Client):
    """An autocommit UPDATE of one's own counter; what it returns shows a repetition at once"""

    def step(self, c):
        sql = (f"with l as ({self.ledger()}) update counter set n = n + 1 where client = {self.number} returning n")
        (row,) = self.ok(c.query(sql))
        assert self.unknown or int(row[0]) == len(self.acked) + 1, f"{row[0]} after {len(self.acked)}"


class Prepared(Client):
    """A named statement of the session's beginning"""

    def setup(self, c):
        pgwire.check(c.ask(Parse(f"with l as (insert into ledger values ({self.number}, $1)) update counter set n = n + 1"
                                 f" where client = {self.number} returning n", "up", [23]),
                           Parse("insert into ledger values ($1, $2)", "in", [23, 23]), Sync))

    def step(self, c):
        if self.op % 2:
            (row,) = self.ok(c.ask(Bind([self.op], "up"), Execute(), Sync), "UPDATE 1")
            assert self.unknown or int(row[0]) == len([n for n in self.acked if n % 2]) + 1, row
        else:
            self.ok(c.ask(Bind([self.number, self.op], "in"), Execute(), Sync), "INSERT 0 1")


class Transfer(Client):
    """A transaction of several simple statements on shared accounts"""

    def step(self, c):
        a, b = sorted(self.random.sample(range(1, 101), 2))
        self.ok(c.query("begin"))
        self.ok(c.query(f"update account set balance = balance - 1 where id = {a}"), "UPDATE 1")
        self.ok(c.query(self.ledger()), "INSERT 0 1")
        self.ok(c.query(f"update account set balance = balance + 1 where id = {b}"), "UPDATE 1")
        self.ok(c.query("commit"), "COMMIT")


class OneString(Client):
    """The same as one Query"""

    def step(self, c):
        a, b = sorted(self.random.sample(range(1, 101), 2))
        self.ok(c.query(f"begin; update account set balance = balance - 1 where id = {a}; {self.ledger()};"
                        f" update account set balance = balance + 1 where id = {b}; commit"), "COMMIT")


class Function(Client):
    """A function of which nothing is known, in both protocols, in a block and outside"""

    def step(self, c):
        sql = f"select book({self.number}, {self.op})"
        how = self.op % 4
        if how < 2:
            self.ok(c.query(sql) if how else c.ask(*pbe(sql), Sync), "SELECT 1")
        else:
            self.ok(c.query("begin"))
            self.ok(c.query(sql) if how == 2 else c.ask(*pbe(sql), Sync), "SELECT 1")
            self.ok(c.query("commit"), "COMMIT")


class Implicit(Client):
    """Several statements in one Query: one implicit transaction"""

    def step(self, c):
        a, b = sorted(self.random.sample(range(1, 101), 2))
        self.ok(c.query(f"update account set balance = balance - 1 where id = {a}; {self.ledger()};"
                        f" update account set balance = balance + 1 where id = {b}"), "UPDATE 1")


class Pipeline(Client):
    """Several statements up to one Sync: one implicit transaction"""

    def step(self, c):
        a, b = sorted(self.random.sample(range(1, 101), 2))
        move = "update account set balance = balance + $1 where id = $2"
        self.ok(c.ask(*pbe(move, [-1, a]), *pbe("insert into ledger values ($1, $2)", [self.number, self.op]),
                      *pbe(move, [1, b]), Sync), "UPDATE 1")


class PipelineTransaction(Client):
    """A whole transaction in one go, and its parts with a Sync each"""

    def step(self, c):
        parts = (pbe("begin"), pbe("insert into ledger values ($1, $2)", [self.number, self.op]),
                 pbe("update counter set n = n + 1 where client = $1 returning n", [self.number]), pbe("commit"))
        if self.op % 2:
            self.ok(c.ask(*(m for p in parts for m in p), Sync), "COMMIT")
        else:
            self.ok(c.ask(*(m for p in parts for m in (*p, Sync)), count=len(parts)), "COMMIT")


class Serial(Client):
    """INSERT ... RETURNING id, autocommit, by both protocols; 40001 when an id was delivered and somebody has it
    by now, since the crash took it back"""

    retries = ("40001",)

    def step(self, c):
        sql = (f"with l as ({self.ledger()}) insert into orders (client, op) values ({self.number}, {self.op}) returning id")
        got = c.ask(*pbe(sql), Sync) if self.op % 2 else c.query(sql)
        (row,) = self.ok(got, "INSERT 0 1")
        self.ids.append((int(row[0]), self.op))

    def setup(self, c):
        self.ids = getattr(self, "ids", [])


class Orm(Client):
    """What an object-relational mapper sends: the id of one INSERT is used in the next statements. 40001 as for Serial."""

    retries = ("40001",)

    def step(self, c):
        self.ok(c.ask(*pbe("begin"), Sync))
        (row,) = self.ok(c.ask(*pbe("insert into orders (client, op, state) values ($1, $2, 'new') returning id",
                                    [self.number, self.op]), Sync))
        self.ok(c.ask(*pbe("savepoint a"), Sync))
        self.ok(c.ask(*pbe("select id, state from orders where id = $1", [row[0]]), Sync), "SELECT 1")
        self.ok(c.ask(*pbe("insert into ledger values ($1, $2)", [self.number, self.op]), Sync), "INSERT 0 1")
        self.ok(c.ask(*pbe("release a"), Sync))
        self.ok(c.ask(*pbe("update orders set state = 'done' where id = $1 returning client, op", [row[0]]), Sync))
        self.ok(c.ask(*pbe("commit"), Sync), "COMMIT")


class Session(Client):
    """State of the session: settings, role, prepared statements, and reads that must go on"""

    def setup(self, c):
        pgwire.check(c.ask(Query("set timezone = 'Asia/Tokyo'"), Query("set my.own = 'kept'"), Query("set work_mem = '7MB'"),
                           Query("prepare q(int) as select $1 + 1"), count=4))

    def step(self, c):
        got = self.ok(c.query("select current_setting('timezone'), current_setting('my.own'), current_setting('work_mem')"))
        assert got == [("Asia/Tokyo", "kept", "7MB")], got
        got = self.ok(c.query(f"execute q({self.op})"))
        assert got == [(str(self.op + 1),)], got
        got = self.ok(c.query("select sum(balance) from account"))
        assert got == [("100000",)], got
        self.ok(c.query(self.ledger()), "INSERT 0 1")


class Copy(Client):
    """COPY FROM STDIN is not protected: it may fail, but never twice"""

    protected = False

    def step(self, c):
        c.send(Query("copy ledger (client, op) from stdin"))
        pgwire.check(c.until("GZ"))
        c.send(CopyData(f"{self.number}\t{self.op}\n".encode()), CopyDone)
        self.ok(c.until(), "COPY 1")


KINDS = (Insert, Increment, Prepared, Transfer, OneString, Function, Implicit, Pipeline, PipelineTransaction, Serial, Orm, Session, Copy)

def books(clients, c):
    """Reads the tables over this connection; what is wrong, as lines; prints the clients' table."""
    wrong = []
    ledger = collections.Counter((int(a), int(b)) for a, b in c.rows("select client, op from ledger"))
    counters = {int(a): int(b) for a, b in c.rows("select client, n from counter")}
    orders = {int(i): (int(n), int(op)) for i, n, op in c.rows("select id, client, op from orders")}
    total = int(c.one("select sum(balance) from account"))
    if total != 100_000:
        wrong.append(f"the accounts have {total}, not 100000")
    print(f"{'kind':27} {'acked':>7} {'retried':>7} {'unknown':>7} {'errors':>7} {'lost':>5} {'twice':>5} {'undead':>6}")
    for k in clients:
        mine = {op: n for (client, op), n in ledger.items() if client == k.number}
        lost = k.acked - mine.keys()
        twice = {op for op, n in mine.items() if n > 1}
        undead = mine.keys() - k.acked - k.unknown
        print(f"{k.kind():27} {len(k.acked):7} {k.retried:7} {len(k.unknown):7} {len(k.errors):7} {len(lost):5}"
              f" {len(twice):5} {len(undead):6}")
        for what, ops in (("acknowledged and lost", lost), ("done twice", twice), ("refused and done", undead)):
            if ops:
                wrong.append(f"{k.kind()} ({k.number}): {what}: {sorted(ops)[:10]}")
        if k.protected and k.errors:
            wrong.append(f"{k.kind()} ({k.number}): {len(k.errors)} errors, as {k.errors[:3]}")
        if k.is_alive():
            wrong.append(f"{k.kind()} ({k.number}) hangs")
        n = {Increment: len(mine), PipelineTransaction: len(mine),
             Prepared: sum(c for op, c in mine.items() if op % 2)}
        n = next((count for kind, count in n.items() if isinstance(k, kind)), 0)
        if counters[k.number] != n and not twice:
            wrong.append(f"{k.kind()}: its counter is {counters[k.number]}, not {n}")
        if isinstance(k, Serial):
            wrong += [f"Serial: id {i} was given for {op} and is {orders.get(i)}" for i, op in k.ids
                      if orders.get(i) != (k.number, op)][:5]
    return wrong


class Chaos:
    """The servers, the proxy, the clients and the killer."""

    def __init__(self, rig, seed, direct=False, resend=False, kinds=KINDS, standby=True):
        self.rig, self.seed, self.direct = rig, seed, direct
        self.random = random.Random(seed)
        self.primary = rig.server(**SETTINGS)
        with pgwire.Connection(self.primary) as c:
            for sql in SCHEMA.split(";"):
                pgwire.check(c.query(sql))
            pgwire.check(c.query(f"insert into counter select g, 0 from generate_series(0, {len(kinds)}) g"))
        self.other = rig.standby(self.primary) if standby else None
        self.proxy = None if direct else rig.proxy(rig.servers, **PROXY)
        endpoint = self if direct else self.proxy
        self.clients = [kind(n, endpoint, seed, resend) for n, kind in enumerate(kinds)]
        self.events = collections.Counter()
        self.stalls = collections.defaultdict(float)

    @property
    def port(self):
        return self.primary.port

    # --- how a server dies ---

    def kill(self):
        """kill -9 of the postmaster; its children notice by themselves"""
        self.primary.kill()
        self.primary.start()

    def power_off(self):
        """all of its processes at once"""
        self.primary.power_off()
        self.primary.start()

    def immediate(self):
        """pg_ctl stop -m immediate"""
        self.primary.restart("immediate")

    def fast(self):
        """pg_ctl restart"""
        self.primary.restart("fast")

    def backend(self):
        """kill -9 of one backend: the server goes down (restart_after_crash = off)"""
        pids = self.primary.backends()
        if pids and postgres.send(self.random.choice(pids), 9):
            self.primary.gone()
            self.primary.start()

    def promote(self):
        """the host dies, its synchronous standby is promoted, and the dead one comes back as its standby"""
        self.primary.power_off()
        self.other.promote()
        self.primary, self.other = self.other, self.primary
        self.before = self.progress()
        self.advance(20)
        self.other.recreate(self.primary)
        self.primary.wait_for(self.other)

    def progress(self):
        return {c: len(c.acked) + c.retried + len(c.unknown) for c in self.clients}

    def advance(self, count, deadline=120):
        """Until so many more operations ended, and one of each client"""
        end = time.monotonic() + deadline
        while True:
            now = self.progress()
            moved = [now[c] - self.before[c] for c in self.clients if c.is_alive()]
            if (sum(moved) >= count and all(moved)) or not moved:
                return
            if time.monotonic() > end:
                stuck = [type(c).__name__ for c in self.clients if c.is_alive() and now[c] == self.before[c]]
                raise AssertionError(f"no progress in {deadline} s after {dict(self.events)}: {stuck}\n"
                                     + (self.proxy.tail() if self.proxy else ""))
            time.sleep(0.001)

    def run(self, kills, seconds=None):
        """So many deaths, or as many as there is time for"""
        ways = [self.kill, self.power_off, self.immediate, self.fast, self.backend]
        if self.other:
            ways.append(self.promote)
        for c in self.clients:
            c.start()
        end = time.monotonic() + (seconds or 1e9)
        try:
            self.before = self.progress()
            self.advance(100)
            while sum(self.events.values()) < kills and time.monotonic() < end:
                self.before = self.progress()
                self.advance(self.random.randint(20, 300))
                # anywhere in an operation
                time.sleep(self.random.random() * 0.005)
                way = self.random.choice(ways)
                for c in self.clients:
                    c.longest = 0.0
                way()
                self.before = self.progress()
                self.advance(20)
                name = way.__name__
                self.events[name] += 1
                self.stalls[name] = max(self.stalls[name], *(c.longest for c in self.clients))
        finally:
            for c in self.clients:
                c.stopping = True
            for c in self.clients:
                if c.is_alive():
                    c.join(120)

    def stats(self):
        try:
            return self.proxy.console("SHOW STATS")
        except AssertionError as e:
            return [{"SHOW STATS": e}]

    def books(self):
        """What is wrong, as lines; prints the table."""
        with pgwire.Connection(self.primary) as c:
            wrong = books(self.clients, c)
        events = ", ".join(f"{n} {name}" for name, n in sorted(self.events.items()))
        stalls = ", ".join(f"{name} {s * 1000:.0f}" for name, s in sorted(self.stalls.items()))
        print(f"deaths: {sum(self.events.values())} ({events}); longest operation over one, ms: {stalls}")
        if self.proxy:
            for row in self.stats():
                print("  ".join(f"{k}={v}" for k, v in row.items()))
        return wrong


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--kills", type=int, default=200)
    a.add_argument("--seconds", type=float)
    a.add_argument("--seed", default=str(int(time.time())))
    a.add_argument("--kind", action="append", choices=[k.__name__ for k in KINDS])
    a.add_argument("--direct", action="store_true", help="without a proxy: errors, but right books")
    a.add_argument("--resend", action="store_true", help="clients repeat what was interrupted: the books must show it")
    a.add_argument("--no-standby", action="store_true")
    a = a.parse_args()
    if os.geteuid():
        sys.exit("pg-chaos: needs root, to start servers as user postgres")
    print(f"SEED={a.seed}", flush=True)
    kinds = [k for k in KINDS if not a.kind or k.__name__ in a.kind]
    with postgres.Rig() as rig:
        chaos = Chaos(rig, a.seed, a.direct, a.resend, kinds, not a.no_standby)
        try:
            chaos.run(a.kills, a.seconds)
        except AssertionError as e:
            print(str(e)[:3000])
            chaos.books()
            return 1
        wrong = chaos.books()
        for line in wrong:
            print(line)
    print("pg-chaos:", "ok" if not wrong else f"SEED={a.seed} failed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
