#!/usr/bin/python3
"""How long a mirrored PostgreSQL is gone once the loss of its host is known: two copies on two hosts,
ocf:holdfast:postgresql, and a witness; bench/README.md says how. Writes bench/out/postgresql.json.

    postgresql.py [--samples N] [--token MS] [--keep]

RUNS in the environment is --samples."""
import argparse
import datetime
import os
import re
import signal
import sys
import tempfile
import threading
import time

from common import (HOSTS, SETTLE, BenchLab, Late, SteadyClock, add, column, median, sample,
                    save, say, table, until, wait_random)
from holdfast import Holdfast
from pgwire import Session  # in a directory that common knows # pylint: disable=wrong-import-order

PORT = 5432
COPIES = {HOSTS[0]: "copy1", HOSTS[1]: "copy2"}
# the lab's own, and the trace
CONFIG = """
engine { type = @ENGINE@ }
cluster { key_file = "/etc/holdfast/cluster.key" }
host { name = "@NAME@" address = "@ADDRESS@" }
directory { interface = "eth0" group = "@GROUP@" }
http { listen = "@ANY@:7481" }
fence switch {
    agent = fence_holdfast_lab
    hosts = { "*" }
}
log { trace = { engine, proc } }
"""


def definition(copy, clients="127.0.0.1/32", more=""):
    return f"""resource {copy} {{
    agent = "ocf:holdfast:postgresql"
    params {{
        pgdata = "/srv/{copy}/data"
        clients = "{clients}"
        client_auth = trust
        replication_auth = trust
    }}
    probe = {{ pgdata }}
    {more}
}}
"""


class Client(Session):
    """One connection to PostgreSQL on a host, as from a program there."""

    def __init__(self, lab, host):
        super().__init__(lab.connect(host, PORT))


class Writer(threading.Thread):
    """Writes on a host every few ms, from the first time that it can: `when` that was."""

    def __init__(self, lab, host):
        super().__init__(daemon=True)
        self.lab, self.host = lab, host
        self.when, self.ending = None, False
        self.start()

    def run(self):
        while not self.ending:
            client = None
            try:
                client = Client(self.lab, self.host)
                client.query("insert into t default values")
                self.when = time.time()
                return
            except OSError:
                time.sleep(0.003)
            finally:
                if client:
                    client.close()


class Database(Holdfast):
    """A group of two copies of a database."""

    definition = staticmethod(definition)

    def up(self, token):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as f:
            f.write(CONFIG)
            f.flush()
            self.lab.up("--engine", "corosync", "--token", token, "--config", f.name)
        for host, copy in COPIES.items():
            self.lab.on(host, "install", "-d", "-o", "postgres", f"/srv/{copy}")
            (self.lab.state / f"shared/1/{copy}").write_text(self.definition(copy), encoding="ascii")
        first, second, witness = HOSTS
        until(lambda: self.admin("create", f"/srv/bench/{COPIES[first]}", host=first),
              "the group is there", SETTLE, 0.3)
        self.admin("join", "--bring", f"/srv/bench/{COPIES[second]}", host=second)
        self.admin("join", host=witness)
        until(lambda: self.runs(), "the primary runs", SETTLE, 0.3)
        client = Client(self.lab, first)
        client.query("create table if not exists t (i bigint generated always as identity)")
        client.close()
        self.wait_whole()

    def runs(self, host=None):
        """The primary host as a host sees it, if all is well there."""
        g = self.show(host or HOSTS[-1])
        if not g or not g["quorate"] or g.get("phase") != "running":
            return None
        return g["primary"]["host"]

    def wait_whole(self, deadline=2 * SETTLE):
        """All hosts are in, and both copies in sync; gives the primary host."""
        def whole():
            g = self.show(HOSTS[-1])
            return g and len(g.get("in_sync", [])) == len(COPIES) and \
                sum(h["present"] for h in g["hosts"]) == len(HOSTS) and self.runs()
        return until(whole, "both copies are in sync", deadline, 0.2)

    def log(self, host, since):
        """[(CLOCK_REALTIME, line)] of holdfastd there."""
        path = self.lab.state / f"hosts/{host}/holdfastd.log"
        out = []
        for row in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                at = datetime.datetime.strptime(row[:23], "%Y-%m-%d %H:%M:%S.%f").timestamp()
            except ValueError:
                continue
            if at >= since:
                out.append((at, row[24:]))
        return out


def steps(log, view, host):
    """What happened there after the view: {what: ms since the view}, and {action: its ms}."""
    at, took = {}, {}
    for when, row in log:
        ms = round((when - view) * 1e3)
        if m := re.search(r"\[proc\] copy\d: ([a-z-]+), (\d+) ms: (-?\d+)", row):
            if m[1] in ("promote", "open", "demote", "start", "stop") and m[1] not in took:
                took[m[1]], at[m[1]] = int(m[2]), ms
        elif f"{host} has fenced" in row or "fencing of" in row:
            at.setdefault("fenced", ms)
        elif "promotes copy" in row:
            at.setdefault("decided", ms)
    return {"at_ms": at, "took_ms": took}


def promote(cluster):
    """The primary host loses power; from the view without it until a client's write is accepted."""
    lab, victim = cluster.lab, cluster.wait_whole()
    host = next(h for h in COPIES if h != victim)
    idle = wait_random(20.0)  # agents of a database need much of the CPUs
    writer = None
    try:
        with SteadyClock():
            begin = time.time()
            writer = Writer(lab, host)
            lab.power(f"off {victim}")
            until(lambda: writer.when, "a write is accepted", SETTLE)
        log = cluster.log(host, begin)
    finally:
        if writer:
            writer.ending = True
            writer.join()
    view = next((at for at, row in log if re.search(r"\[engine\] view \d+: 2 members", row)), None)
    if not view:
        raise Late("no view without the dead host")
    out = {"idle": idle, "ms": (writer.when - view) * 1e3, "power_s": writer.when - begin,
           **steps(log, view, host)}
    lab.run("boot", victim)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--samples", type=int, default=int(os.environ.get("RUNS", "10")))
    p.add_argument("--token", type=int, default=300)
    p.add_argument("--keep", action="store_true", help="leave the lab as it is")
    opt = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    out = {"promote_load_begin": os.getloadavg()[0]}
    cluster = Database(BenchLab(f"hfpg{os.getpid()}"))
    try:
        cluster.up(opt.token)
        say("both copies are in sync")
        rows = sample(f"token {opt.token}, promote", opt.samples, promote, cluster)
        add(out, "promote_ms", rows, "ms")
        out["promote_power_s"] = median(column(rows, "power_s"))
        for action in ("promote", "open"):
            out[f"promote_agent_{action}_ms"] = median(
                [r["took_ms"][action] for r in rows if action in r.get("took_ms", {})])
        out["promote_load_end"] = os.getloadavg()[0]
        save("postgresql.json", out)
    finally:
        if not opt.keep:
            cluster.down()
    table(out)


if __name__ == "__main__":
    main()
