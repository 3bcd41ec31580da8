#!/usr/bin/python3
"""How long clients of holdfast-pg stall when the host dies that has their connections, when its holdfast-pg dies, and when the
address is moved; bench/README.md says how. Writes bench/out/takeover-holdfast.json."""
import datetime
import json
import os
import re
import signal
import sys
import time

from takeovers import measure
from common import ROOT, save, say  # pylint: disable=wrong-import-order

sys.path.insert(0, str(ROOT / "tests/system"))
import takeover  # noqa: E402 # pylint: disable=wrong-import-position,wrong-import-order
from lab import STATE, Failed  # noqa: E402 # pylint: disable=wrong-import-position,wrong-import-order

# power_off_database: the host of the connections is the database's, too
# nothing: what clients wait for in a second like any other
PLAN = {1: {"power_off": 10, "process": 10, "planned": 10, "nothing": 10},
        100: {"power_off": 60, "power_off_database": 20, "process": 40, "planned": 40, "nothing": 20},
        2000: {"power_off": 5, "process": 3, "planned": 3}}


WARM = int(os.environ.get("WARM", "100"))  # server connections that the backup keeps logged in


def stamp(line):
    """When a line of a log was written, or None"""
    try:
        return datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S.%f").timestamp()
    except ValueError:
        return None


class Rig(takeover.Rig):
    """With the options of the bench"""

    def manager_configuration(self, host):
        text = super().manager_configuration(host)
        return text.rstrip().removesuffix("}") + f"    warm = {WARM}\n}}\n"


class Cluster:
    """The rig of the system tests, as the bench wants it."""

    port = takeover.PORT

    def __init__(self, rig):
        self.rig = rig

    def up(self):
        self.rig.start()
        self.address = self.rig.address

    def popen(self, host, *command, **kw):
        return self.rig.lab.popen(host, *map(str, command), **{"stderr": None, **kw})

    def query(self, sql):
        with self.rig.connect() as c:
            return c.rows(sql)

    def wait_whole(self):
        """Connections and database are on two hosts, and all three managers are ready, the one that is nobody's backup, too: it
        would load its guard while clients wait, on the cores that they share."""
        try:
            self.rig.whole()
            if self.rig.serving() == self.rig.serving(takeover.DATABASE):
                self.rig.let_serve("gamma")
                self.rig.whole()
            self.rig.until(lambda: all(self.rig.role(h) in ("primary", "backup") for h in takeover.HOSTS), "all managers are ready")
        except Failed as e:
            raise RuntimeError(str(e)) from e
        return self.rig.serving()

    def power_off(self, host):
        self.rig.power_off(host)

    def power_off_database(self, host):
        """Of the host that has both"""
        self.rig.power_off(host)

    def process(self, host):
        self.rig.kill_manager(host)

    def planned(self, _):
        self.rig.switch()

    def nothing(self, _):
        time.sleep(1)

    def restore(self, _):
        """whole() does it"""

    def watch(self):
        """Called before; gives what is to be called afterwards, with the time of the act: the parts of it in ms."""
        capture, old = self.rig.capture(), self.rig.serving()

        def parts(begin):
            times, new = {}, None
            for host, _, _, _, first in capture.end()["runs"]:
                if host != old:
                    new = host
                    for kind, when in first.items():
                        times.setdefault(kind, (when - begin) * 1e3)
            marks = self.marks(new, begin) if new else {}
            return {**marks, **{n: times[k] for n, k in (("address", "arp"), ("first_byte", "data")) if k in times}}
        return parts

    def marks(self, host, begin):
        """What holdfastd and holdfast-pg there said first, and "last": when the last session had its server connection; ms"""
        offset, out = time.time() - time.monotonic(), {}
        lines = (STATE / self.rig.lab.name / "hosts" / host / "holdfastd.log").read_text(errors="replace") + self.rig.log(host)
        patterns = {name: re.compile(p.replace("{address}", re.escape(self.address))) for name, p in MARKS.items()}
        for line in lines.splitlines():
            for name, pattern in patterns.items():
                if pattern.search(line) and (at := stamp(line)) is not None and at - offset >= begin:
                    ms = (at - offset - begin) * 1e3
                    out[name] = min(out.get(name, ms), ms)
                    if name == "database":
                        out["last"] = max(out.get("last", ms), ms)
        return out

    def complain(self):
        """Twice: what is said again and again, and what waits in silence"""
        print(self.rig.story(), file=sys.stderr)
        for pause in (3, 0):
            print(self.rig.sessions(), file=sys.stderr)
            time.sleep(pause)

    def down(self):
        self.rig.end()


# of the host that takes over, in the order in which they happen
MARKS = {"membership": r"pgvip: .* is to run .* as primary", "fencing": r"pgvip: .* has fenced", "decision": r"pgvip: epoch \d+: .* promotes",
         "word": r"the word: promote", "promote": r"service address: taking over", "restore": r"service address: primary",
         "listener": r"listening on {address}:", "database": r"goes on on another server connection"}


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    only, which = ([w for w in os.environ.get(name, "").split(",") if w] for name in ("SESSIONS", "WAYS"))
    plan = {n: {w: k for w, k in ways.items() if not which or w in which} for n, ways in PLAN.items() if not only or str(n) in only}
    path = ROOT / "bench/out/takeover-holdfast.json"  # the other cases stay those of their last run
    before = json.loads(path.read_text(encoding="utf-8")) if (only or which) and path.exists() else {}

    def done(cases):
        save(path.name, {**before, "token_ms": takeover.TOKEN, "lease_ms": 200, "warm": WARM, "cores": os.cpu_count(), **cases})

    cluster = Cluster(Rig(takeover.Lab(f"tkb{os.getpid()}"), connections=2300))
    try:
        cluster.up()
        say("holdfast: all is well")
        measure(cluster, "holdfast", plan, done)
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
