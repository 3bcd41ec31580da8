#!/usr/bin/python3
"""How long Holdfast takes: a host that loses power, a planned switch, a daemon that dies. Corosync as
Debian has it and this tree's holdfastd, in the hosts of a lab; bench/README.md says how. Writes
bench/out/holdfast.json.

    holdfast.py [--samples N] [--token MS]... [--without power|switch|crash]...

RUNS in the environment is --samples."""
import argparse
import json
import os
import random
import signal
import sys
import time

from common import (HOSTS, SETTLE, BenchLab, SteadyClock, add, column, median, sample, save, say,
                    table, until, wait_random)
import ctl  # in a directory that common knows # pylint: disable=wrong-import-order

GROUP, RESOURCE = "bench", "r1"

DEFINITION = f"""resource {RESOURCE} {{
    agent = "ocf:holdfast-bench:Stamp"
    monitor = 10s
}}
"""


class Holdfast:
    """A group of the lab's hosts with one resource."""

    def __init__(self, lab):
        self.lab = lab

    def up(self, token):
        self.lab.up("--engine", "corosync", "--token", token)
        (self.lab.state / "shared/1/definition").write_text(DEFINITION, encoding="ascii")
        until(lambda: self.admin("create", "/srv/bench/definition"), "the group is there", SETTLE, 0.3)
        for host in HOSTS[1:]:
            self.admin("join", host=host)
        self.wait_whole()

    def down(self):
        self.lab.down()

    def admin(self, action, *args, host=HOSTS[0]):
        try:
            self.lab.on(host, "holdfast", "group", action, GROUP, *args)
        except RuntimeError:
            if action != "create":
                raise
            return False
        return True

    def show(self, host):
        """What a host says of the group, or None."""
        try:
            client = self.lab.client(host)
        except (OSError, ConnectionError):
            return None
        try:
            return look(client)
        except (OSError, ctl.Refused):
            return None
        finally:
            client.close()

    def wait_whole(self, deadline=SETTLE):
        """All hosts are in and agree where the resource runs; gives that."""
        def whole():
            places = {runs_on(self.show(h), everybody=True) for h in HOSTS}
            return places.pop() if len(places) == 1 else None
        return until(whole, "the group is whole", deadline, 0.1)


def look(client):
    groups = json.loads(client.query("groups"))
    return next((g for g in groups if g["name"] == GROUP), None)


def runs_on(group, everybody=False):
    """The host where the group, as somebody sees it, has its resource running and in its hands."""
    if not group or not group["quorate"] or group.get("phase") != "running":
        return None
    if everybody and sum(h["present"] for h in group["hosts"]) != len(HOSTS):
        return None
    host = group["primary"]["host"]
    roles = {r["host"]: r["role"] for r in group["resources"][0]["roles"]}
    present = {h["host"] for h in group["hosts"] if h["present"]}
    return host if host in present and roles.get(host) == "open" else None


def power_off(cluster):
    """The host with the resource loses power; until the start elsewhere was called, s."""
    lab, victim = cluster.lab, cluster.wait_whole()
    idle = wait_random()
    with SteadyClock():
        begin = time.time()
        lab.power(f"off {victim}")
        when, _, host, _ = lab.wait_stamp(begin, "start")
    survivor = next(h for h in HOSTS if h != victim)
    until(lambda: runs_on(cluster.show(survivor)) == host, "the new place is known", SETTLE, 0.1)
    lab.run("boot", victim)
    return {"idle": idle, "s": when - begin}


def switch(cluster):
    """A planned switch: from the command until the agent's start is done, without the time that the
    agent took, ms; and from stop to start."""
    lab, source = cluster.lab, cluster.wait_whole()
    target = random.choice([h for h in HOSTS if h != source])
    idle = wait_random()
    with SteadyClock():
        begin = lab.timed(source, "holdfast", "group", "switch", GROUP, "--to", target)
        end = lab.wait_stamp(begin, "start-done", host=target)[0]
    stop, stopped, start = (lab.wait_stamp(begin, a, host=h)[0] for a, h in
                            (("stop", source), ("stop-done", source), ("start", target)))
    agent = (stopped - stop) + (end - start)
    return {"idle": idle, "ms": (end - begin - agent) * 1e3, "agent_ms": agent * 1e3,
            "to_stop_ms": (stop - begin) * 1e3, "to_start_ms": (start - stopped) * 1e3,
            "until_start_ms": (start - begin) * 1e3, "stopped_ms": (start - stop) * 1e3}


def crash(cluster):
    """holdfastd on the resource's host dies: until another host knows from the new one that the
    resource runs there, ms; and what happened to the resource meanwhile."""
    lab, host = cluster.lab, cluster.wait_whole()
    client = lab.client(next(h for h in HOSTS if h != host))
    idle = wait_random()
    missed = []

    def back():
        here = runs_on(look(client)) == host
        if not here:
            missed.append(1)
        return here and missed

    with SteadyClock():
        begin = lab.kill(host, "holdfastd")
        until(back, "holdfastd is back", SETTLE)
        took = (time.time() - begin) * 1e3
    client.close()
    time.sleep(1)
    return {"idle": idle, "restored_ms": took,
            "actions": [(round((w - begin) * 1e3, 1), a, h == host)
                        for w, a, h, _ in lab.stamps(begin)]}


def run_token(token, opt, first):
    """{key: median, key_min, key_max, key_samples: rows}"""
    out = {}
    cluster = Holdfast(BenchLab(f"hf{os.getpid()}"))
    try:
        cluster.up(token)
        say(f"token {token} ms: the group is up")
        if first and "crash" not in opt.without:
            rows = sample(f"token {token}, holdfastd dies", opt.samples, crash, cluster)
            add(out, "ours_crash_ms", rows, "restored_ms")
            out["ours_crash_stops"] = sum(bool(a) for a in column(rows, "actions"))
        if first and "switch" not in opt.without:
            rows = sample(f"token {token}, switch", opt.samples, switch, cluster)
            add(out, "ours_switch_ms", rows, "ms")
            for key in ("until_start", "stopped"):
                out[f"ours_switch_{key}_ms"] = median(column(rows, f"{key}_ms"))
        if "power" not in opt.without:
            add(out, f"ours_power_{token}_s",
                sample(f"token {token}, power", opt.samples, power_off, cluster), "s")
    finally:
        cluster.down()
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--samples", type=int, default=int(os.environ.get("RUNS", "10")))
    p.add_argument("--token", type=int, action="append")
    p.add_argument("--without", action="append", default=[], choices=("power", "switch", "crash"))
    opt = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    out = {"ours_load_begin": os.getloadavg()[0]}
    for k, token in enumerate(opt.token or (1000, 300)):
        out.update(run_token(token, opt, k == 0))
        out["ours_load_end"] = os.getloadavg()[0]
        save("holdfast.json", out)
    table(out)


if __name__ == "__main__":
    main()
