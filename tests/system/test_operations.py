"""doc/guide/operations.md, followed literally, where three-machines.md has its SIP servers running, while clients count and a phone
registers: backup, the loss of a disk, and a new version, host by host.

The older version is the same programs as other files, or, with HOLDFAST_FROM, a built tree of another commit (make test-upgrade)."""
import contextlib
import csv
import io
import os
import pathlib
import shutil
import threading
import time

import pg_chaos
import pgwire
from guide import blocks
from lab import ROOT, STATE, Failed
from network import enter_network, in_network
from reader import DEADLINE, HOSTS, PROGRAMS, Reader, find_program
from sipua import Agent
from test_guides import THREE

OPERATIONS = ROOT / "doc/guide/operations.md"
PATIENCE = 120  # s, of clients
LOST = ("etc/holdfast", "etc/corosync", "var/lib", "srv")  # with a disk
MIRROR = "copy2"  # of the host that loses its disk
RUN = ("holdfastd", "holdfast-pg", "holdfast-sip")
KINDS = (pg_chaos.Insert, pg_chaos.Increment, pg_chaos.Prepared, pg_chaos.Transfer, pg_chaos.Function, pg_chaos.Pipeline, pg_chaos.Session)
PACE = 0.02  # s between a client's operations: the machine is small


class Counting:
    """A client of pg_chaos, on the client host, as the guide's user"""

    def run(self):
        enter_network(self.endpoint.pid)
        super().run()

    def open(self):
        return pgwire.Connection(host=self.endpoint.address, port=6432, database="app", user="app", password="app-secret", timeout=PATIENCE)

    def connect(self):
        time.sleep(PACE)
        return super().connect()


class Endpoint:
    def __init__(self, pid, address):
        self.pid, self.address = pid, address


class Phone(threading.Thread):
    """Registers all the time, as phones do, only more often; asks again when it is not answered, or told to come later."""

    def __init__(self, pid, address, local):
        super().__init__(daemon=True)
        self.pid, self.address, self.local = pid, address, local
        self.answered, self.longest, self.stopping = 0, 0.0, False

    def run(self):
        enter_network(self.pid)
        with Agent("alice", (self.address, 5060), password="alice-secret", local=self.local) as agent:
            last = time.monotonic()
            while not self.stopping:
                with contextlib.suppress(Exception):
                    agent.register()
                    self.answered += 1
                    self.longest = max(self.longest, time.monotonic() - last)
                    last = time.monotonic()
                agent.server = (self.address, 5060)
                time.sleep(0.2)


class Operator(Reader):
    """Who follows the guide, with two versions of the programs"""

    def __init__(self, lab, old):
        super().__init__(lab)
        self.old, self.new, self.upgraded_on = old, False, set()
        self.counting, self.phone = [], None

    # --- commands ---

    def apt(self, host, *packages):
        """The older version where there is none, or only the lab's; the newer one where there is one."""
        if "corosync" in packages:  # a fresh system
            super().apt(host, *packages)
        else:
            self.upgraded_on.add(host)
        for name in PROGRAMS:
            program = find_program(name) if host in self.upgraded_on else self.old / name
            self.lab.exec(host, "ln", "-sf", program, f"/usr/sbin/{name}")

    # --- what the operator does by hand and waits for ---

    def lose_disk(self, host):
        self.lab.run("power-off", host)
        for key in [k for k in self.units if k[0] == host]:
            self.units.pop(key).wait()
        def is_gone():
            """For all groups, which go on without its copies: nothing primary was there, so nobody cuts its power again."""
            groups = self.lab.json("alpha", "group", "show")
            return (not any(m["present"] for g in groups for m in g["hosts"] if m["host"] == host)
                    and not any(r["name"] in g["in_sync"] for g in groups for r in g["resources"] if r["name"] in (host, MIRROR)))

        self.lab.until(is_gone, f"{host} is off for the others, too", DEADLINE)
        disk = STATE / self.lab.name / "hosts" / host / "fs"
        for folder in LOST:
            for path in (disk / folder).iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.lab.run("boot", host)

    def is_whole(self):
        """Hosts, copies, managers, SIP servers: all there, and every session with a backup"""
        for name in ("orders", "pgvip", "sip", *(f"sip-{h}" for h in HOSTS)):
            for host in HOSTS:
                (g,) = self.lab.json(host, "group", "show", name)
                if g["phase"] != "running" or not g["quorate"] or not all(h["present"] for h in g["hosts"]) or len(g["hosts"]) != 3:
                    return False
            if name in ("orders", "pgvip") and len(g["in_sync"]) < 2:
                return False
        unprotected = [p["what"] for h in HOSTS for p in self.lab.status(h)["problems"] if "would not outlive" in p["what"]]
        return not unprotected and all(self.lab.exec(h, "holdfast", "sip", "status") for h in HOSTS)

    def whole(self):
        self.sip_servers(3)
        self.lab.until(self.is_whole, "all is whole", 2 * DEADLINE)

    def drained(self, host):
        """Nobody is at home there."""
        def current():
            return {row["current"] for row in csv.DictReader(io.StringIO(self.lab.exec(host, "holdfast", "sip", "export")))}

        self.lab.until(lambda: host not in current(), f"no users at {host}", DEADLINE)

    def clients(self):
        pid = self.lab.init("client")
        endpoint = Endpoint(pid, self.here("192.0.2.110"))
        with self.inside(endpoint) as c:
            for sql in pg_chaos.SCHEMA.split(";"):
                pgwire.check(c.query(sql))
            pgwire.check(c.query(f"insert into counter select g, 0 from generate_series(0, {len(KINDS)}) g"))
        self.counting = [type(k.__name__, (Counting, k), {"__doc__": k.__doc__})(n, endpoint, 1, False) for n, k in enumerate(KINDS)]
        self.phone = Phone(pid, self.here("192.0.2.121"), self.lab.address("client"))
        for t in (*self.counting, self.phone):
            t.start()
        self.progress()

    @contextlib.contextmanager
    def inside(self, endpoint):
        """A session made in the clients' network, used here"""
        with in_network(endpoint.pid, lambda: pgwire.Connection(host=endpoint.address, port=6432, database="app", user="app",
                                                                password="app-secret", timeout=PATIENCE)) as c:
            yield c

    def progress(self):
        """All of them, from now on; nobody has had an error."""
        before = [len(c.acked) for c in self.counting], self.phone.answered
        self.lab.until(lambda: all(len(c.acked) > n + 3 for c, n in zip(self.counting, before[0])) and self.phone.answered > before[1],
                       "every client goes on", PATIENCE)
        wrong = {c.kind(): c.errors[:3] for c in self.counting if c.errors}
        assert not wrong, wrong

    def upgraded(self):
        """Every program that runs is the newer file."""
        for host in HOSTS:
            for name in RUN:
                for pid in self.lab.exec(host, "pidof", name).split():
                    assert self.lab.exec(host, "readlink", f"/proc/{pid}/exe").strip() == find_program(name), (host, name)

    def books(self):
        self.progress()
        for c in self.counting:
            c.stopping = True
        self.phone.stopping = True
        for t in (*self.counting, self.phone):
            t.join(PATIENCE)
        with self.inside(self.counting[0].endpoint) as c:
            wrong = pg_chaos.books(self.counting, c)
        print(f"alice: {self.phone.answered} answers, the longest time between two {self.phone.longest:.1f} s")
        assert not wrong, wrong
        assert "bindings" in self.lab.exec("beta", "holdfast", "sip", "show", "alice@example.org")

    def follow(self, block):
        super().follow(block)
        if self.counting and block.text.strip() != "books":
            self.progress()

    def close(self):
        for t in (*self.counting, *([self.phone] if self.phone else ())):
            t.stopping = True
        super().close()


def old_version(folder):
    """Where the programs of the older version are: built from another commit, or the same as other files"""
    source = os.environ.get("HOLDFAST_FROM")
    for name in PROGRAMS:
        program = pathlib.Path(find_program(name))
        if source:
            program = next(p for p in pathlib.Path(source, "src").glob(f"*/{name}") if os.access(p, os.X_OK))
        shutil.copy2(program, folder / name)
    return folder


def test_operations(new_lab, tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    lab = new_lab("-n", 3, "--no-daemon")
    text = THREE.read_text(encoding="utf-8").splitlines()
    end = text.index("## Lose a host")
    with contextlib.closing(Operator(lab, old_version(tmp_path))) as operator:
        for block in [b for b in blocks(THREE) if b.line < end and b.language != "sql"] + blocks(OPERATIONS):
            try:
                operator.follow(block)
            except (Exception, Failed) as e:
                raise AssertionError(f"{block}: {e}\n{operator.logs()}") from e
