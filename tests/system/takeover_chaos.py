#!/usr/bin/python3
"""make takeover-chaos: clients of all kinds, while the host that has their connections dies in every way; afterwards, the
books of pg_chaos.py, and whether two hosts ever answered for the address. Clients of a protected kind must see no error at all."""
import argparse
import collections
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pg_chaos
import pgwire
import takeover
import tcpmove
from lab import Failed
from pg_chaos import Client
from pgwire import Query

PATIENCE = 90  # s, of a client
DEADLINE = 45  # s, until each of them must have gone on
WHOLE = 180  # s, a copy of the database that is made anew while clients write all the time


class Remote(Client):
    """A client on the client host: its thread is in that host's network. transport: of tcpmove.KINDS."""

    transport = "plain"

    def __init__(self, number, rig, seed):
        super().__init__(number, rig, seed, False)
        self.rig = rig

    @classmethod
    def kind(cls):
        return cls.__name__ if cls.transport == "plain" else f"{cls.__name__} {cls.transport.removeprefix('bulk-')}"

    def run(self):
        self.rig.in_clients_network()
        super().run()

    def waits(self):
        """For what: the last that came, and what is there of the next message"""
        c = self.connection
        if not isinstance(c, takeover.Connection):
            return self.kind()
        return f"{self.kind()}, operation {self.op}, from port {c.socket.getsockname()[1]}: {c.seen[-4:]}, then {bytes(c.buffer[:200])}"

    def open(self):
        options, sysctl, _ = tcpmove.KINDS[self.transport]
        return takeover.Connection(self.rig.address, options, sysctl, timeout=PATIENCE)


def remote(kind, transport="plain"):
    """A kind of pg_chaos, as a client from another host"""
    bases = (kind,) if issubclass(kind, Remote) else (Remote, kind)
    return type(kind.__name__, bases, {"transport": transport, "__doc__": kind.__doc__})


class CopyOut(Remote):
    """A COPY that is long enough to be in the middle of when the host dies; every byte of it is checked"""

    SQL = "copy (select i, repeat(md5(i::text), 30) from generate_series(1, 3000) i) to stdout"

    def setup(self, c):
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)  # most of it is not here yet
        self.want = getattr(self, "want", None) or self.all_of(c, 0)

    def all_of(self, c, pause):
        """The answer as bytes"""
        c.send(Query(self.SQL))
        got, end = bytearray(), b"Z\0\0\0\5I"
        while not got.endswith(end):
            assert select.select([c.socket], [], [], PATIENCE)[0], f"nothing for {PATIENCE} s at {len(got)}"
            data = c.socket.recv(8192)
            if not data:
                raise pgwire.Closed(f"at {len(got)} of a COPY")
            got += data
            time.sleep(pause)
        return bytes(got)

    def step(self, c):
        got = self.all_of(c, 0.001)
        if got != self.want:
            at = next((i for i, (a, b) in enumerate(zip(got, self.want)) if a != b), min(len(got), len(self.want)))
            raise AssertionError(f"COPY differs at byte {at} of {len(self.want)}, {len(got)} came: {got[at - 20:at + 200]}")
        self.ok(c.query(self.ledger()), "INSERT 0 1")


class Listen(Remote):
    """Another session notifies: each comes once, in order; after a failover of the database an empty one may stand for some (X12)"""

    def setup(self, c):
        pgwire.check(c.query(f"listen c{self.number}"))
        if getattr(self, "other", None):
            self.other.abort()
        self.other, self.gaps, self.missing = self.open(), getattr(self, "gaps", 0), set()

    def step(self, c):
        try:
            for sql in ("begin", self.ledger(), f"notify c{self.number}, '{self.op}'", "commit"):
                self.ok(self.other.query(sql))
        except pgwire.PgError:
            if self.other.status != "I":
                self.other.query("rollback")
            raise
        end = time.monotonic() + PATIENCE
        while True:
            _, channel, payload = pgwire.check(c.until("AE"))[-1].data
            assert channel == f"c{self.number}", channel
            if payload == str(self.op):
                return
            if payload == "":
                self.gaps += 1
                self.missing.add(self.op)
                return
            assert int(payload) in self.missing and time.monotonic() < end, f"{payload!r}, not {self.op}"
            self.missing.remove(int(payload))

    def drop(self):
        super().drop()
        if getattr(self, "other", None):
            self.other.abort()


class Logins(Remote):
    """A session for each statement: one that has not logged in when its host dies gets an error, at once"""

    protected = False

    def step(self, c):
        self.ok(c.query(self.ledger()), "INSERT 0 1")
        self.acked.add(self.op)
        c.close()
        self.connection = None


class Tls(Remote):
    """Not protected beyond its host; it learns of the loss at once all the same"""

    protected = False

    def open(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return takeover.Connection(self.rig.address, ssl=context, timeout=PATIENCE)

    def step(self, c):
        self.ok(c.query("begin"))
        self.ok(c.query(self.ledger()), "INSERT 0 1")
        self.ok(c.query("commit"), "COMMIT")


class Outside(Remote):
    """A program on the client host that answers a line with a line."""

    class Program:
        """Stands in for a connection"""

        status = "I"

        def __init__(self, rig, command):
            self.process = rig.client(*command, stdin=subprocess.PIPE, bufsize=1)

        def ask(self, text, want):
            """Say it; the next lines must be these."""
            self.process.stdin.write(text + "\n")
            for line in want:
                assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"no answer to {text!r} in {PATIENCE} s"
                got = self.process.stdout.readline()
                if got != f"{line}\n":
                    raise pgwire.Closed(f"{text!r}: {got + self.rest()!r}, not {line!r}")

        def rest(self):
            """What else it has to say: none of them goes on after an error"""
            guard = threading.Timer(10, self.process.kill)
            guard.start()
            try:
                return self.process.stdout.read()
            finally:
                guard.cancel()

        def abort(self):
            self.process.kill()
            self.process.communicate()

        close = abort

    def command(self):
        raise NotImplementedError

    def open(self):
        return self.Program(self.rig, self.command())


class Psql(Outside):
    """psql, in an open transaction for a while"""

    def command(self):
        return ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", f"host={self.rig.address} port={takeover.PORT} user=postgres dbname=postgres sslmode=disable"]

    def step(self, c):
        c.ask(f"begin; {self.ledger()} returning op;", [self.op])
        time.sleep(self.random.random() * 0.5)
        c.ask(f"select count(*) from ledger where client = {self.number} and op = {self.op};", [1])
        c.ask(f"commit;\n\\echo done {self.op}", [f"done {self.op}"])


class Psycopg(Outside):
    """psycopg 3: transactions, prepared after some"""

    SCRIPT = """
import sys
import psycopg
c = psycopg.connect(sys.argv[1])
for line in sys.stdin:
    n, op = map(int, line.split())
    with c.transaction():
        c.execute("insert into ledger values (%s, %s)", (n, op))
        (got,) = c.execute("select count(*) from ledger where client = %s and op = %s", (n, op)).fetchone()
    print("done", op, got, flush=True)
"""

    def command(self):
        return ["/usr/bin/python3", "-Bc", self.SCRIPT, f"host={self.rig.address} port={takeover.PORT} user=postgres dbname=postgres sslmode=disable"]

    def step(self, c):
        c.ask(f"{self.number} {self.op}", [f"done {self.op} 1"])


class Node(Outside):
    """node-postgres, where there is one (Debian: node-pg, or NODE_PATH): the same"""

    @staticmethod
    def there():
        return shutil.which("node") and not subprocess.run(["node", "-e", "require('pg')"], capture_output=True, check=False).returncode

    SCRIPT = """
const { Client } = require('pg');
const c = new Client({ host: process.argv[1], port: process.argv[2], user: 'postgres', database: 'postgres' });
c.on('error', (e) => { console.log('error', String(e)); process.exit(1); });
c.connect().then(async () => {
    for await (const line of require('readline').createInterface({ input: process.stdin })) {
        const [n, op] = line.split(' ').map(Number);
        await c.query('begin');
        await c.query({ name: 'add', text: 'insert into ledger values ($1, $2)', values: [n, op] });
        const r = await c.query('select count(*) from ledger where client = $1 and op = $2', [n, op]);
        await c.query('commit');
        console.log('done', op, r.rows[0].count);
    }
}).catch((e) => { console.log('error', String(e)); process.exit(1); });
"""

    def command(self):
        return ["node", "-e", self.SCRIPT, self.rig.address, str(takeover.PORT)]

    step = Psycopg.step


class Pgbench(threading.Thread):
    """pgbench's TPC-B in runs of some seconds; its own tables are its books"""

    protected = True
    rate = 0  # transactions per second; 0: as many as there can be
    retried = 0

    def __init__(self, number, rig, _seed):
        super().__init__(daemon=True)
        self.number, self.rig, self.stopping, self.process = number, rig, False, None
        self.acked, self.unknown, self.errors = set(), set(), []
        self.done = self.progress = 0
        self.longest = 0.0

    @classmethod
    def kind(cls):
        return cls.__name__

    def command(self, *words):
        return ["pgbench", "-h", self.rig.address, "-p", str(takeover.PORT), "-U", "postgres", *words, "dbname=postgres sslmode=disable"]

    def prepare(self):
        p = self.rig.client(*self.command("-i", "-q"))
        text = p.communicate(timeout=PATIENCE)[0]
        assert p.returncode == 0, text

    def run(self):
        protocols = ["simple", "prepared", "extended"]
        while not self.stopping:
            protocols.append(protocols.pop(0))
            rate = ("-R", str(self.rate)) if self.rate else ()
            self.process = self.rig.client(*self.command("-n", "-c", "2", "-T", "10", "-P", "1", "-M", protocols[0], *rate))
            text = []
            for line in self.process.stdout:
                text.append(line)
                if m := re.match(r"progress: [\d.]+ s, ([\d.]+) tps", line):
                    self.progress += float(m[1]) > 0
            self.process.wait()
            text = "".join(text)
            n = re.search(r"transactions actually processed: (\d+)", text)
            failed = re.search(r"failed transactions: (\d+)", text)
            self.done += int(n[1]) if n else 0
            self.progress += 1
            if "could not create connection" in text and not n:
                continue  # who is logging in is not protected
            if self.process.returncode or not n or not failed or int(failed[1]) or "error" in text.lower():
                self.errors.append((self.done, text[:2000]))
                return

    def waits(self):
        return self.kind()

    def books(self, c):
        """What is wrong, as lines"""
        n, delta = map(int, c.rows("select count(*), coalesce(sum(delta), 0) from pgbench_history")[0])
        sums = {t: int(c.one(f"select sum({t[0]}balance) from pgbench_{t}")) for t in ("accounts", "tellers", "branches")}
        print(f"{'Pgbench':27} {self.done:7} {0:7} {0:7} {len(self.errors):7} {max(0, self.done - n):5} {max(0, n - self.done):5}")
        wrong = [f"Pgbench: {e}" for e in self.errors]
        if set(sums.values()) != {delta}:
            wrong.append(f"Pgbench: history {delta}, {sums}")
        if n != self.done and not self.errors:
            wrong.append(f"Pgbench: {self.done} transactions, {n} in history")
        if self.is_alive():
            wrong.append("Pgbench hangs")
        return wrong


LEDGER_KINDS = tuple(remote(*k) for k in (
    (pg_chaos.Insert, "no-timestamps"), (pg_chaos.Increment, "no-sack"), (pg_chaos.Prepared, "no-scaling"),
    (pg_chaos.Transfer, "no-options"), (pg_chaos.OneString,), (pg_chaos.Function,), (pg_chaos.Implicit,),
    (pg_chaos.Pipeline, "bulk-bbr"), (pg_chaos.PipelineTransaction, "bulk-cubic"), (pg_chaos.Serial,), (pg_chaos.Orm,),
    (pg_chaos.Session,), (pg_chaos.Copy,), (CopyOut,), (CopyOut, "no-sack"), (CopyOut, "no-options"), (CopyOut, "no-timestamps"),
    (Listen,), (Listen, "no-options")))
LEDGER_KINDS += (Logins, Tls, Psql, Psycopg, Node)
KINDS = (*LEDGER_KINDS, Pgbench)


class Chaos:
    """The rig, the clients and what happens to them."""

    width = 14  # of what happens, in the table

    def __init__(self, rig, seed, kinds=KINDS):
        self.rig, self.random = rig, random.Random(seed)
        with rig.connect() as c:
            for sql in ("drop schema public cascade", "create schema public", *pg_chaos.SCHEMA.split(";")):
                pgwire.check(c.query(sql))
            pgwire.check(c.query(f"insert into counter select g, 0 from generate_series(0, {len(kinds)}) g"))
        self.clients = [kind(n, rig, seed) for n, kind in enumerate(kinds)]
        self.pgbench = [c for c in self.clients if isinstance(c, Pgbench)]
        self.counting = [c for c in self.clients if not isinstance(c, Pgbench)]
        for c in self.pgbench:
            c.prepare()
        self.events = collections.Counter()
        self.stalls = collections.defaultdict(list)
        self.reigns = []
        self.before = None

    # --- what happens; each gives True if another host must serve afterwards ---

    def power_off(self, host):
        """its power is gone"""
        self.rig.power_off(host)
        return True

    def process(self, host):
        """kill -9 of holdfast-pg"""
        self.rig.kill_manager(host)
        return True

    def freeze(self, host):
        """all its processes stop; it is fenced"""
        self.rig.freeze(host)
        return True

    def cable(self, host):
        """its cable is cut; it is fenced"""
        self.rig.cut(host)
        return True

    def planned(self, _):
        """holdfast group switch"""
        self.rig.switch()
        return True

    def backup_off(self, host):
        """the power of another host is gone, mostly the backup's"""
        self.rig.power_off(self.random.choice([h for h in takeover.HOSTS if h != host]))
        return False

    def backup_process(self, _):
        """kill -9 of the backup's holdfast-pg"""
        self.rig.kill_manager(self.rig.backup())
        return False

    def database(self, _):
        """kill -9 of the database's server"""
        host = self.rig.serving(takeover.DATABASE)
        pid = self.rig.on(host, "head", "-n1", f"/srv/{takeover.COPIES[host]}/data/postmaster.pid").strip()
        self.rig.on(host, "kill", "-KILL", pid)
        return False

    def progress_of(self, c):
        return c.progress if isinstance(c, Pgbench) else len(c.acked) + c.retried + len(c.unknown)

    def progress(self):
        return {c: self.progress_of(c) for c in self.clients}

    def advance(self, count, deadline=DEADLINE):
        """Until so many more operations ended, and one of each client"""
        end = time.monotonic() + deadline
        while True:
            now = self.progress()
            moved = [now[c] - self.before[c] for c in self.clients if c.is_alive()]
            if (sum(moved) >= count and all(moved)) or not moved:
                return
            if time.monotonic() > end:
                stuck = [c.waits() for c in self.clients if c.is_alive() and now[c] == self.before[c]]
                raise AssertionError(f"no progress in {deadline} s after {dict(self.events)}: {stuck}\n{self.rig.story()}\n"
                                     + self.rig.sessions())
            time.sleep(0.02)

    def one(self, way):
        """One of them, from all is well to all is well."""
        self.before = self.progress()
        self.advance(self.random.randint(20, 200))
        time.sleep(self.random.random() * 0.2)
        for c in self.clients:
            c.longest = 0.0
        host = self.rig.serving() if self.rig.service else "gamma"
        epoch = self.rig.epoch() if self.rig.service else 0
        begin = time.monotonic()
        moves = way(host)
        if moves:
            self.rig.until(lambda: self.rig.epoch() > epoch and self.rig.serving(), "another reign")
        self.before = self.progress()
        self.advance(20)
        slowest = max(self.counting, key=lambda c: c.longest)
        stall = slowest.longest
        self.rig.whole(WHOLE)
        name = way.__name__
        self.events[name] += 1
        self.stalls[name].append(stall)
        print(f"{sum(self.events.values()):4} {name:14} {host:6} longest operation {stall * 1000:6.0f} ms, whole after "
              f"{time.monotonic() - begin:5.1f} s, {slowest.kind()}", flush=True)
        return moves

    def run(self, takeovers, ways=None, seconds=None):
        """So many take-overs, or as many as there is time for"""
        ways = ways or [self.power_off, self.power_off, self.process, self.process, self.freeze, self.cable, self.planned,
                        self.backup_off, self.backup_process, self.database]
        for c in self.clients:
            c.start()
        done, end = 0, time.monotonic() + (seconds or 1e9)
        try:
            self.before = self.progress()
            self.advance(100)
            while done < takeovers and time.monotonic() < end and not self.failed():
                done += self.one(self.random.choice(ways)) or not self.rig.service
        finally:
            self.stop()

    def stop(self):
        """The clients, each after its operation"""
        for c in self.clients:
            c.stopping = True
        for c in self.clients:
            if c.is_alive():
                c.join(PATIENCE)

    def failed(self):
        """What is wrong already needs no more take-overs."""
        return [c for c in self.clients if c.protected and c.errors]

    def books(self):
        with self.rig.connect() as c:
            wrong = pg_chaos.books(self.counting, c)
            for p in self.pgbench:
                wrong += p.books(c)
        gaps = {c.kind(): c.gaps for c in self.clients if getattr(c, "gaps", 0)}
        print(f"{sum(self.events.values())} events" + (f"; notifications that an empty one stood for: {gaps}" if gaps else ""))
        for name, n in sorted(self.events.items()):
            s = sorted(self.stalls[name])
            print(f"  {name:{self.width}} {n:4}   longest operation, ms: median {s[len(s) // 2] * 1000:6.0f}, most {s[-1] * 1000:6.0f}")
        return wrong


def answered_once(capture):
    """What is wrong with who answered: between two hosts' answers there may be no way back but by another reign."""
    told = capture.end()
    wrong = [f"{told['dropped']} frames were not seen"] if told["dropped"] else []
    runs = told["runs"]
    for a, b, c in zip(runs, runs[1:], runs[2:]):
        if a[0] == c[0] and b[2] - a[2] < 0.05 and c[1] - b[1] < 0.05:
            wrong.append(f"{a[0]} and {b[0]} answered at the same time: {a}, {b}, {c}")
    return wrong


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--takeovers", type=int, default=200)
    a.add_argument("--seconds", type=float)
    a.add_argument("--seed", default=str(int(time.time())))
    a.add_argument("--kind", action="append", choices=sorted({k.__name__ for k in KINDS}))
    a.add_argument("--way", action="append", help="only these of what happens")
    a.add_argument("--ipv6", action="store_true")
    a.add_argument("--no-service", action="store_true", help="clients at a host that nothing happens to; only its database dies")
    a = a.parse_args()
    if os.geteuid():
        sys.exit("takeover-chaos: needs root, for the lab")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    print(f"SEED={a.seed}", flush=True)
    kinds = [k for k in KINDS if not a.kind or k.__name__ in a.kind]
    if Node in kinds and not Node.there():
        kinds.remove(Node)
        print("no node-postgres here: without it")
    wrong = []
    with takeover.rig_for("takechaos", v6=a.ipv6, service=not a.no_service, tls=True) as rig:
        chaos = Chaos(rig, a.seed, kinds)
        capture = rig.capture()
        ways = a.way or (["database"] if a.no_service else None)
        try:
            chaos.run(a.takeovers, [getattr(chaos, w) for w in ways] if ways else None, a.seconds)
        except (AssertionError, Failed) as e:
            wrong.append(str(e))
        wrong += answered_once(capture)
        try:
            rig.whole()
            wrong += chaos.books()
        except (AssertionError, Failed, OSError, pgwire.Closed, pgwire.PgError) as e:
            wrong.append(f"the books can't be read: {e!r}\n{rig.sessions()}")
        for line in wrong:
            print(line)
        if wrong:
            print(rig.story(60))
    print("takeover-chaos:", "ok" if not wrong else f"SEED={a.seed} failed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
