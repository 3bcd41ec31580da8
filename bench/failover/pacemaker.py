#!/usr/bin/python3
"""How long Pacemaker takes: a host that loses power, a planned move, a daemon that dies. Corosync and
Pacemaker as Debian has them, in the hosts of a lab; bench/README.md says how. Writes
bench/out/pacemaker.json.

    pacemaker.py [--samples N] [--token MS]... [--without power|stonith|move|crash]..."""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml_tree

from common import (HOSTS, SETTLE, BenchLab, SteadyClock, add, column, median, sample, save, say,
                    table, until, wait_random)

RESOURCE = "r1"
DAEMONS = ("execd", "controld", "pacemakerd")  # to be killed; names without "pacemaker-"

PRIMITIVE = f"""<primitive id="{RESOURCE}" class="ocf" provider="holdfast-bench" type="Stamp">
<operations><op id="{RESOURCE}-monitor" name="monitor" interval="10s"/></operations></primitive>"""
FENCE = f"""<primitive id="fence" class="stonith" type="fence_holdfast_lab">
<instance_attributes id="fence-attributes">
<nvpair id="fence-hosts" name="pcmk_host_list" value="{' '.join(HOSTS)}"/>
</instance_attributes></primitive>"""


class Pacemaker:
    """A cluster of the lab's hosts with one resource."""

    def __init__(self, lab):
        self.lab = lab
        self.daemons = {}  # host: the process that keeps pacemakerd running there

    def up(self, token):
        self.lab.up("--engine", "corosync", "--token", token, "--no-daemon")
        for host in HOSTS:
            self.start(host)
        until(self.view, "a designated controller", 2 * SETTLE, 0.3)
        self.property("stonith-enabled", "false")
        self.property("stonith-action", "off")  # the bench itself says when to boot
        self.admin("crm_attribute", "-t", "rsc_defaults", "-n", "resource-stickiness", "-v", "100")
        self.admin("cibadmin", "-o", "resources", "-C", "-X", PRIMITIVE)
        self.wait_whole()

    def start(self, host):
        """Run pacemakerd, again at once when it dies, as its systemd unit does after 0.1 s."""
        self.daemons[host] = self.lab.popen(
            "exec", host, "--", "sh", "-c",
            "mkdir -p /run/crm /run/resource-agents && chown hacluster:haclient /run/crm\n"
            "while :; do pacemakerd; done", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def down(self):
        self.lab.down()
        for p in self.daemons.values():
            p.wait()

    def admin(self, *command):
        """A command on the first host where it works: one may be off, or may not answer in time."""
        last = None
        for host in self.daemons:
            try:
                return self.lab.on(host, *command)
            except RuntimeError as e:
                last = e
        raise last

    def property(self, name, value):
        self.admin("crm_attribute", "-n", name, "-v", value)

    def view(self, host=None):
        """{"dc": host, "online": hosts, "at": hosts of the resource}, or None without a controller."""
        try:
            text = (self.lab.on(host, "crm_mon", "-1", "--output-as=xml") if host else
                    self.admin("crm_mon", "-1", "--output-as=xml"))
            root = xml_tree.fromstring(text)
        except (RuntimeError, xml_tree.ParseError):
            return None
        dc = root.find("summary/current_dc")
        if dc is None or dc.get("present") != "true":
            return None
        good = {"online": "true", "pending": "false", "unclean": "false"}
        return {"dc": dc.get("name"),
                "online": {n.get("name") for n in root.iterfind("nodes/node")
                           if all(n.get(k) == v for k, v in good.items())},
                "at": {n.get("name") for n in root.iterfind(
                    f"resources/resource[@id='{RESOURCE}'][@active='true']/node")}}

    def wait_whole(self, deadline=SETTLE):
        """All hosts are in, the resource runs on one, nothing is under way; gives the view."""
        def look():
            v = self.view()
            return v if v and v["online"] == set(HOSTS) and len(v["at"]) == 1 else None

        def whole():
            try:
                return look() and self.admin("crm_resource", "--wait", "-T", "12") == "" and look()
            except RuntimeError:
                return None
        return until(whole, "the cluster is whole", deadline, 0.3)


def power_off(cluster):
    """The host with the resource loses power; until the start elsewhere was called, s."""
    lab, view = cluster.lab, cluster.wait_whole()
    (victim,) = view["at"]
    idle = wait_random()
    with SteadyClock():
        begin = time.time()
        lab.power(f"off {victim}")
        when, _, host, _ = lab.wait_stamp(begin, "start")
    cluster.daemons.pop(victim).wait()
    until(lambda: (v := cluster.view()) and v["at"] == {host}, "the new place is known", SETTLE, 0.3)
    lab.run("boot", victim)
    cluster.start(victim)
    return {"idle": idle, "s": when - begin, "victim_was_dc": victim == view["dc"]}


def move(cluster):
    """A planned move: from the command, and from the stop, until the start elsewhere, ms."""
    lab, view = cluster.lab, cluster.wait_whole()
    (source,) = view["at"]
    target = random.choice([h for h in HOSTS if h != source])
    idle = wait_random()
    with SteadyClock():
        begin = lab.timed(source, "crm_resource", "-M", "-r", RESOURCE, "-N", target)
        stop = lab.wait_stamp(begin, "stop", host=source)
        start = lab.wait_stamp(begin, "start", host=target)
    cluster.wait_whole()
    cluster.admin("crm_resource", "-U", "-r", RESOURCE)  # what "move" left: a constraint
    return {"idle": idle, "ms": (start[0] - begin) * 1e3, "stopped_ms": (start[0] - stop[0]) * 1e3}


def crash(cluster, daemon):
    """A daemon on the resource's host dies: until it runs again there and its controller is idle
    or follows the DC's, ms; and what happened to the resource and to the host meanwhile."""
    lab, view = cluster.lab, cluster.wait_whole()
    (host,) = view["at"]
    program = daemon if daemon == "pacemakerd" else f"pacemaker-{daemon}"
    old = lab.pid(host, program)
    idle = wait_random()

    def restored():
        if lab.power(f"status {host}") == "off":
            return True
        if lab.pid(host, program) in (old, None):
            return False
        try:
            text = lab.on(host, "crmadmin", "-t", "2000", "-S", host)
        except RuntimeError:
            return False
        return "S_IDLE" in text or "S_NOT_DC" in text

    with SteadyClock():
        begin = lab.kill(host, program)
        until(restored, f"{program} is back", SETTLE)
        took = (time.time() - begin) * 1e3
    time.sleep(3)  # a fence request may be under way
    fenced = lab.power(f"status {host}") == "off"
    if fenced:
        cluster.daemons.pop(host).wait()
        until(cluster.view, "a designated controller", SETTLE, 0.3)
        lab.run("boot", host)
        cluster.start(host)
    cluster.wait_whole(2 * SETTLE)
    return {"idle": idle, "restored_ms": None if fenced else took, "fenced": fenced,
            "host_was_dc": host == view["dc"],
            "actions": [(round((w - begin) * 1e3, 1), a, h == host)
                        for w, a, h, _ in lab.stamps(begin)]}


def run_token(token, opt, crashes):
    """{key: median, key_min, key_max, key_samples: rows}"""
    out = {}

    cluster = Pacemaker(BenchLab(f"pcmk{os.getpid()}"))
    try:
        cluster.up(token)
        say(f"token {token} ms: the cluster is up")
        if "power" not in opt.without:
            add(out, f"pacemaker_unfenced_power_{token}_s",
                sample(f"token {token}, power", opt.samples, power_off, cluster), "s")
        if "move" not in opt.without:
            rows = sample(f"token {token}, move", max(3, opt.samples // 2), move, cluster)
            add(out, f"pacemaker_switch_{token}_ms", rows, "ms")
            out[f"pacemaker_switch_stopped_{token}_ms"] = median(column(rows, "stopped_ms"))
        if "stonith" in opt.without:
            return out
        cluster.admin("cibadmin", "-o", "resources", "-C", "-X", FENCE)
        cluster.property("stonith-enabled", "true")
        add(out, f"pacemaker_power_{token}_s",
            sample(f"token {token}, power, stonith", opt.samples, power_off, cluster), "s")
        for daemon in DAEMONS if crashes else ():
            key = f"pacemaker_crash_{daemon}"
            rows = sample(f"token {token}, {daemon} dies", max(3, opt.samples // 3), crash, cluster,
                          daemon)
            add(out, f"{key}_ms", rows, "restored_ms")
            out[f"{key}_fenced"] = sum(column(rows, "fenced"))
            out[f"{key}_stops"] = sum(any(a[1] == "stop" or not a[2] for a in r)
                                      for r in column(rows, "actions"))
    finally:
        cluster.down()
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--samples", type=int, default=int(os.environ.get("RUNS", "10")))
    p.add_argument("--token", type=int, action="append")
    p.add_argument("--without", action="append", default=[],
                   choices=("power", "stonith", "move", "crash"))
    opt = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    out = {}
    for k, token in enumerate(opt.token or (1000, 300)):
        # Corosync tells at once when a daemon died: the token has no part in it
        out.update(run_token(token, opt, k == 0 and "crash" not in opt.without))
        save("pacemaker.json", out)
    table(out)


if __name__ == "__main__":
    main()
