"""What both halves of the move bench use: clients that count on the lab's client host, and samples of
a primary that is switched or whose server is killed under them."""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "failover")]
from common import (Late, column, median, sample, say,  # noqa: E402 # pylint: disable=wrong-import-position
                    until, wait_random)
from pgwire import Session  # noqa: E402 # pylint: disable=wrong-import-position

CLIENTS = 4
PROXY, PROXY_PORT = "gamma", 6432  # where the clients connect to
SAMPLES = {"planned": 3, "crash": 5}  # a crash meets a cluster manager at any moment of its cycle
RUNS = int(os.environ.get("RUNS", "0"))
SETTLE = 120.0  # s


class Clients:
    """count.py on the client host."""

    def __init__(self, lab):
        self.lab = lab
        self.session = Session(lab.connect(PROXY, PROXY_PORT))
        self.session.query("drop table if exists counters")
        self.session.query("create table counters (id int primary key, n bigint not null)")
        self.session.query(f"insert into counters select g, 0 from generate_series(0, {CLIENTS - 1}) g")
        self.session.close()
        self.process = lab.popen("exec", "client", "--", HERE / "count.py", lab.address(PROXY), PROXY_PORT,
                                 CLIENTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def tell(self):
        self.order("tell")
        return json.loads(self.process.stdout.readline())

    def wait_progress(self, rows=20):
        """Until each client had that many acknowledgements more."""
        want = self.tell()["least"] + rows
        until(lambda: self.tell()["least"] >= want, "the clients go on", SETTLE, 0.05)

    def quit(self):
        """How many acknowledged additions are lost, and how many were done twice."""
        self.order("quit")
        counted = json.loads(self.process.stdout.readline())
        self.process.wait()
        session = Session(self.lab.connect(PROXY, PROXY_PORT))
        there = {int(k): int(n) for k, n in session.query("select id, n from counters")}
        session.close()
        return {"lost": sum(max(0, acked - there[k]) for k, (acked, _) in enumerate(counted)),
                "doubled": sum(max(0, there[k] - acked - doubt)
                               for k, (acked, doubt) in enumerate(counted)),
                "in_doubt": sum(doubt for _, doubt in counted)}

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def moved(cluster, clients, act):
    """One sample: from the act until the cluster is whole again, its former primary a standby. What was
    before it began with a round of the cluster manager, so the act comes at any moment of one."""
    source = cluster.wait_whole()
    idle = wait_random()
    time.sleep(random.random() * cluster.period)
    clients.wait_progress()
    clients.order("begin")
    time.sleep(0.3)
    begin = time.monotonic()
    act(source)
    acted = time.monotonic() - begin
    time.sleep(0.2)
    clients.wait_progress()
    to = cluster.wait_whole()
    clients.wait_progress()
    return {"idle": idle, "elsewhere": to != source, "act_s": round(acted, 3),
            "whole_s": round(time.monotonic() - begin, 3), **clients.tell()}


def measure(cluster, what):
    """{planned_stall_ms, crash_stall_ms, client_errors, ...} of a cluster that is up."""
    clients, out = Clients(cluster.lab), {}
    try:
        cluster.wait_whole()
        clients.wait_progress()
        clients.order("begin")
        time.sleep(3)
        out["calm_stall_ms"] = clients.tell()["stall_ms"]
        say(f"{what}: nothing happens: {out['calm_stall_ms']:.1f} ms")
        for key, act in (("planned", cluster.switch), ("crash", cluster.crash)):
            rows = sample(f"{what}, {key}", RUNS or SAMPLES[key], moved, cluster, clients, act)
            stalls = column(rows, "stall_ms")
            out[f"{key}_stall_ms"] = median(stalls)
            out[f"{key}_stall_ms_min"] = min(stalls, default=None)
            out[f"{key}_stall_ms_max"] = max(stalls, default=None)
            out[f"{key}_client_errors"] = sum(column(rows, "errors"))
            out[f"{key}_failed"] = sum("failed" in r for r in rows)
            out[f"{key}_stall_ms_samples"] = rows
        out["client_errors"] = out["planned_client_errors"] + out["crash_client_errors"]
        out.update(clients.quit())
    except (Late, OSError, RuntimeError):
        cluster.complain()
        raise
    finally:
        clients.kill()
    return out
