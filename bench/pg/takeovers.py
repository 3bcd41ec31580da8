"""What the contestants of bench-takeover use: many clients on the lab's client host (stall.py), and samples of what is done to
the host that has their connections."""
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "failover")]
from common import Late, median, say  # noqa: E402 # pylint: disable=wrong-import-position
from host import percentile  # noqa: E402 # pylint: disable=wrong-import-position

RATE = 500  # requests a second of all clients together
RUNS = int(os.environ.get("RUNS", "0"))
SETTLE = 180.0  # s
PATIENCE = 60.0  # s that a client's answer may take


class Clients:
    """stall.py on the client host. cluster has popen(host, *command, **kw), address, port, query(sql)."""

    def __init__(self, cluster, sessions):
        self.cluster, self.sessions = cluster, sessions
        cluster.query("drop table if exists counters")
        cluster.query("create table counters (id int primary key, n bigint not null) with (fillfactor = 10)")
        cluster.query(f"insert into counters select g, 0 from generate_series(0, {sessions - 1}) g")
        self.process = cluster.popen("client", sys.executable, "-B", HERE / "stall.py", cluster.address, cluster.port, sessions, RATE,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def tell(self):
        self.order("tell")
        return json.loads(self.process.stdout.readline())

    def wait_answers(self, patience=PATIENCE):
        """Until each client got an answer to a request of its own from now on; gives what they tell."""
        self.order("mark")
        end = time.monotonic() + patience
        while (told := self.tell())["answered"] < self.sessions:
            if time.monotonic() > end:
                told["longest_ms"] = told["longest_ms"][-1]
                raise Late(f"not within {patience} s: all clients go on, {told}")
            time.sleep(0.1)  # it sorts thousands of numbers
        return told

    def quit(self):
        """How many acknowledged additions are lost, and how many were done twice."""
        self.order("quit")
        counted = json.loads(self.process.stdout.readline())
        self.process.wait()
        there = {int(k): int(n) for k, n in self.cluster.query("select id, n from counters")}
        return {"lost": sum(max(0, acked - there[k]) for k, (acked, _) in enumerate(counted)),
                "doubled": sum(max(0, there[k] - acked - doubt) for k, (acked, doubt) in enumerate(counted)),
                "in_doubt": sum(doubt for _, doubt in counted)}

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def taken(cluster, clients, way):
    """One sample: from when all is well until it is again."""
    host = cluster.wait_whole()
    clients.wait_answers()
    time.sleep(0.5 + random.random() * 0.5)
    clients.order("begin")
    time.sleep(0.2)
    act = getattr(cluster, way)
    parts = cluster.watch()
    begin = time.monotonic()
    act(host)
    acted = time.monotonic() - begin
    try:
        told = clients.wait_answers()
        out = {"host": host, "act_ms": round(acted * 1e3, 1), "stall_ms": told["longest_ms"][-1],
               "median_stall_ms": told["longest_ms"][len(told["longest_ms"]) // 2],
               "errors": told["errors"], "reasons": told["reasons"], "refused": told["refused"], "load": os.getloadavg()[0]}
    finally:
        parts = parts(begin)
        cluster.restore(host)
    cluster.wait_whole()
    return {**out, "whole_s": round(time.monotonic() - begin, 1), "parts": parts}


def figures(rows):
    """Of the samples that came to an end"""
    good = [r for r in rows if "stall_ms" in r]
    stalls = [r["stall_ms"] for r in good]
    out = {"takeovers": len(good), "failed": len(rows) - len(good), "client_errors": sum(r["errors"] for r in good),
           "client_errors_per_takeover": sum(r["errors"] for r in good) / len(good) if good else None}
    for name, value in (("p50", median(stalls)), ("p99", percentile(stalls, 99) if stalls else None), ("max", max(stalls, default=None))):
        out[f"{name}_ms"] = value
    out["load"] = median([r["load"] for r in good])
    out["median_client_p50_ms"] = median([r["median_stall_ms"] for r in good])
    parts = collections.defaultdict(list)
    for r in good:
        for name, ms in (r["parts"] or {}).items():
            parts[name].append(ms)
    if parts:
        out["parts"] = {name: median(values) for name, values in parts.items()}
    return out


def measure(cluster, what, plan, done=lambda out: None):
    """{"WAY-SESSIONS": figures and samples}; plan: {sessions: {way: samples}}; done is called with what there is after each number
    of sessions"""
    out = {}
    for sessions, ways in plan.items():
        clients = Clients(cluster, sessions)
        try:
            clients.wait_answers()
            rows = collections.defaultdict(list)
            # in turns, so that what changes slowly is in all alike
            order = [w for w, n in ways.items() for _ in range(min(n, RUNS or n))]
            random.shuffle(order)
            for k, way in enumerate(order):
                try:
                    row = taken(cluster, clients, way)
                except (Late, OSError, RuntimeError, AssertionError) as e:
                    row = {"failed": re.sub(r"\s+", " ", str(e))[:300]}
                    if isinstance(e, Late):
                        cluster.complain()
                rows[way].append(row)
                say(f"{what}, {sessions} sessions, {way} {k + 1}/{len(order)}: {json.dumps(row)[:400]}")
                if sum("failed" in r for r in rows[way]) > 3:
                    raise RuntimeError(f"{what}: {way} fails: {rows[way][-1]['failed']}")
            books = clients.quit()
            say(f"{what}, {sessions} sessions: {json.dumps(books)}")
            for way, samples in rows.items():
                out[f"{way}-{sessions}"] = {**figures(samples), **books, "samples": samples}
            done(out)
        except (Late, OSError, RuntimeError):
            cluster.complain()
            raise
        finally:
            clients.kill()
    return out
