"""The clients of make demo, and whoever looks on: pgbench and a psql with an open transaction, SIP phones that watch their own
registrations, and two that ask again and again how things are."""
import collections
import contextlib
import http.client
import json
import pathlib
import re
import threading
import time

from system import DASHBOARD, DOMAIN, HOSTS, PASSWORD, PORT, PROXY_PORT, takeover
import pgwire  # pylint: disable=wrong-import-order
from sipcrowd import Crowd  # pylint: disable=wrong-import-order
from takeover_chaos import Outside  # pylint: disable=wrong-import-order

Transaction = collections.namedtuple("Transaction", "client number seconds end")  # end: since 1970

# A transaction that can't be done twice, or not at all, without being found out: its client and number are in it.
SCRIPT = r"""
\set n :n + 1
begin;
insert into ledger values (:run, :client_id, :n);
update counter set n = n + 1 where run = :run and client = :client_id;
select n from counter where run = :run and client = :client_id;
commit;
"""
SCHEMA = """
create table ledger (run int, client int, n int);
create table counter (run int, client int, n int, primary key (run, client));
create table notes (text text)
"""


class Load:
    """pgbench at the service address: so many clients, so many transactions a second together. Books are kept of all of them."""

    def __init__(self, system, folder, run, clients, rate):
        self.system, self.run, self.clients = system, run, clients
        self.log = pathlib.Path(folder) / f"load{run}"
        script = pathlib.Path(folder) / "script.sql"
        script.write_text(SCRIPT, encoding="ascii")
        with system.connect() as c:
            for k in range(clients):
                pgwire.check(c.query(f"insert into counter values ({run}, {k}, 0)"))
        self.tps, self.failed, self.text = 0.0, 0, []
        self.process = system.client("pgbench", "-n", "-f", script, "-D", f"run={run}", "-D", "n=0", "-c", str(clients), "-R", str(rate),
                                     "-T", "86400", "-P", "1", "-M", "prepared", "-l", "--log-prefix", self.log,
                                     "-h", system.address, "-p", str(takeover.PORT), "-U", "postgres", "postgres")
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if m := re.match(r"progress: [\d.]+ s, ([\d.]+) tps.* (\d+) failed", line):
                self.tps, self.failed = float(m[1]), int(m[2])
            else:
                self.text.append(line)
        self.process.wait()

    def stop(self):
        """Each client ends the transaction that it has; pgbench takes the alarm of -T for it."""
        if self.process.poll() is None:
            self.system.lab.run("exec", "client", "--", "pkill", "-ALRM", "-x", "pgbench", check=False)
        self.reader.join(takeover.DEADLINE)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def acknowledged(self):
        """All Transactions, by their end. The time of one is from when it was due: who waits for another waits, too."""
        rows = []
        for path in self.log.parent.glob(f"{self.log.name}.*"):
            for line in path.read_text().splitlines():
                client, number, us, _, s, fraction, *_ = line.split()
                if us.isdigit():
                    rows.append(Transaction(int(client), int(number), int(us) / 1e6, int(s) + int(fraction) / 1e6))
        return sorted(rows, key=lambda t: t.end)

    def errors(self):
        """That pgbench tells of"""
        n = re.search(r"number of failed transactions: (\d+)", "".join(self.text))
        return (int(n[1]) if n else 0) + len(self.complaints()) + (self.process.returncode != 0)

    def complaints(self):
        """Its lines that tell of an error"""
        return [line for line in self.text if re.search("error:|ERROR:|aborted", line)]

    def books(self):
        """(lost, doubled or asked for by nobody): acknowledged transactions and what is in the database, one by one"""
        acked = collections.Counter((t.client, t.number) for t in self.acknowledged())
        with self.system.connect() as c:
            there = collections.Counter((int(k), int(n)) for k, n in c.rows(f"select client, n from ledger where run = {self.run}"))
            sums = {int(k): int(n) for k, n in c.rows(f"select client, n from counter where run = {self.run}")}
        for k in range(self.clients):  # each also added one to its counter
            rows = sum(n for (client, _), n in there.items() if client == k)
            there[(k, "counter")], acked[(k, "counter")] = sums[k] - rows, 0
        return sum((acked - there).values()), sum((there - acked).values())


class Psql:
    """A psql that leaves a transaction open. later(): says something, and does not wait; its answer's time is `answered`."""

    def __init__(self, system):
        self.program = Outside.Program(system, ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1",
                                                f"host={system.address} port={takeover.PORT} user=postgres dbname=postgres"])
        self.port = self.answered = self.error = self.thread = None

    def ask(self, sql, *want):
        self.program.ask(sql, want)

    def later(self, sql, *want):
        self.answered = None

        def wait():
            try:
                self.ask(sql, *want)
                self.answered = time.monotonic()
            except (pgwire.Closed, AssertionError, OSError) as e:
                self.error = e

        self.thread = threading.Thread(target=wait)
        self.thread.start()

    def end(self):
        self.program.abort()
        if self.thread:
            self.thread.join()


class Job:
    """What many phones do: how many are not done yet, what came of the others"""

    def __init__(self, n):
        self.left, self.got, self.begin, self.end = n, {}, time.monotonic(), None


class Phones(threading.Thread):
    """So many phones on one UDP socket of the client host, the first of which watch their own registrations. They take calls, and do what
    they are told, in a thread of their own."""

    def __init__(self, system, n, watchers):
        super().__init__(daemon=True)
        self.system, self.over, self.error = system, False, None
        self.crowd = Crowd(system.as_client, system.lab.address("client"), DOMAIN, PASSWORD)
        self.users = [self.crowd.user(f"phone{k}") for k in range(n)]
        self.watchers = self.users[:watchers]
        self.caller = self.crowd.user("caller")
        self.through = list(HOSTS)  # servers that they know of
        self.crowd.redial = lambda user: self.at(self.users.index(user), PROXY_PORT)

    def names(self):
        return [u.name for u in (*self.users, self.caller)]

    def run(self):
        try:
            self.crowd.loop(lambda: self.over, 1e9)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def end(self):
        self.over = True
        if self.is_alive():
            self.join()
        self.crowd.close()

    def at(self, k, port=PORT):
        return (self.system.own[self.through[k % len(self.through)]], port)

    def start_all(self, users, task):
        """task(k, user) of each"""
        job = Job(len(users))

        def one(k, user):
            job.got[user.name] = yield from task(k, user)
            job.left -= 1
            job.end = time.monotonic()

        self.crowd.queue.extend([one(k, u) for k, u in enumerate(users)])
        return job

    def register(self):
        return self.start_all(self.users, lambda k, u: self.crowd.register(u, self.at(k)))

    def watch(self):
        return self.start_all(self.watchers, lambda k, u: self.crowd.watch(u, self.at(k, PROXY_PORT)))

    def call(self):
        """Each is called until it answers."""
        def reach(k, user):
            tries = 1
            while not (yield from self.crowd.call(self.caller, user, self.at(k, PROXY_PORT), 1.0)):
                tries += 1
                yield 0.05
            return tries

        return self.start_all(self.users, reach)

    def forget(self):
        """What watchers were told, before something happens."""
        for u in self.watchers:
            u.watch.ended = u.watch.again = None
            u.watch.repeats = 0

    def told(self):
        """Names of watchers who were told that their subscription is over here"""
        return {u.name for u in self.watchers if u.watch.ended}

    def back(self):
        """... and those who watch again"""
        return {u.name for u in self.watchers if u.watch.ended and u.watch.again}

    def repeats(self):
        return sum(u.watch.repeats for u in self.watchers)


class Onlooker(threading.Thread):
    """Asks again and again; a subclass says what."""

    pause = 0.1

    def __init__(self, system):
        super().__init__(daemon=True)
        self.system, self.over = system, threading.Event()

    def run(self):
        while not self.over.wait(self.pause):
            self.look()

    def end(self):
        self.over.set()
        if self.is_alive():
            self.join()

    def look(self):
        raise NotImplementedError


class Overview(Onlooker):
    """What the dashboard of one host shows: /v1/overview"""

    def __init__(self, system, host):
        super().__init__(system)
        self.host, self.now = host, None
        self.look()

    def look(self):
        def get():
            c = http.client.HTTPConnection("127.0.0.1", DASHBOARD, timeout=5)
            with contextlib.closing(c), contextlib.suppress(http.client.HTTPException):
                c.request("GET", "/v1/overview")
                return json.load(c.getresponse())

        self.now = self.system.in_network(self.host, get) or self.now

    def primary(self, group):
        """The host that serves, or "-" while nobody does"""
        for g in self.now["groups"]:
            if g["name"] == group and g["phase"] == "running":
                return g["primary"]["host"]
        return "-"

    def events(self, since):
        """(ms since 1970, about, name, text) from then on"""
        return [(e["at"], e["about"], e["name"], e["text"]) for e in self.now["events"] if e["at"] >= since]


class Homes(Onlooker):
    """A client of the database, too: where the phones belong"""

    pause = 0.2

    def __init__(self, system):
        super().__init__(system)
        self.connection, self.errors, self.error = system.connect(), 0, None
        self.rows = {}  # user -> (current, epoch)
        self.look()

    def look(self):
        try:
            rows = self.connection.rows("select aor, current, epoch from assignment")
        except (pgwire.PgError, pgwire.Closed, OSError) as e:
            self.errors += 1
            self.error = e
            self.over.set()
            return
        self.rows = {a.removeprefix("sip:").split("@")[0]: (current, int(epoch)) for a, current, epoch in rows if "phone" in a}

    def count(self, host):
        return sum(current == host for current, _ in self.rows.values())

    def end(self):
        super().end()
        self.connection.abort()


def ports(system):
    """Of the client host's connections to the service address: those that are new since are not the old ones"""
    text = system.on("client", "ss", "-tnH", "state", "established", f"dst {system.address}")
    return {line.split()[2] for line in text.splitlines()}


def wait(condition, what, deadline=takeover.DEADLINE, each=lambda: None):
    """each(): meanwhile, again and again"""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:.0f} s: {what}")
        each()
        time.sleep(0.05)

