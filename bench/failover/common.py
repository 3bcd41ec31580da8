"""What both halves of the failover bench use: a lab with a file of time stamps that outlives its
hosts, its power switch, processes of a host, and samples."""
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from host import ROOT, Lab, save  # noqa: E402 # pylint: disable=wrong-import-position

HOSTS = ("alpha", "beta", "gamma")
STAMPS = "/srv/bench"  # in the hosts
AGENTS = "/usr/lib/ocf/resource.d/holdfast-bench"
SETTLE = 60.0  # s, for a cluster to be whole again
QUIET, QUIET_WAIT = 0.7, 5.0  # idle share of the CPUs that is waited for, s at most
START = time.monotonic()


def say(text):
    print(f"{time.monotonic() - START:6.1f} s  {text}", flush=True)


class Late(Exception):
    """Something did not happen in time."""


def until(condition, what, deadline, step=0.002):
    """The first true value of condition()."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Late(f"not within {deadline} s: {what}")
        time.sleep(step)


class BenchLab(Lab):
    """A lab whose hosts share STAMPS, where the agents of this bench write."""

    hosts = HOSTS

    def up(self, *args):
        self.run("up", "-n", len(self.hosts), "--shared", f"{','.join(self.hosts)}:{STAMPS}", *args)
        for host in self.hosts:
            self.on(host, "mkdir", "-p", AGENTS)
            for name in ("Stamp", "PromotableStamp"):
                self.on(host, "install", HERE / "stamp", f"{AGENTS}/{name}")

    def on(self, host, *command):
        """Run a command on a host, never for long: some hang when there is nobody to answer."""
        return self.run("exec", host, "--", "timeout", "-k", "1", "15", *command)

    def power(self, request):
        """Ask the power switch; "off" returns when no process of the host is left."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.state / "power/power.sock"))
            s.sendall(request.encode() + b"\n")
            answer = b"".join(iter(lambda: s.recv(4096), b"")).decode()
        if not answer.startswith("ok"):
            raise RuntimeError(f"power switch: {request}: {answer}")
        return answer[2:].strip()

    def timed(self, host, *command):
        """Run a command on a host; when it began there (CLOCK_REALTIME), the lab's part not counted."""
        script = 'echo "$EPOCHREALTIME" >&3; exec "$@"'
        with tempfile.TemporaryFile() as begin:
            os.set_inheritable(begin.fileno(), True)
            p = self.popen("exec", host, "--", "timeout", "-k", "1", "60", "bash", "-c",
                           script.replace("&3", f"&{begin.fileno()}"), "bash", *command,
                           pass_fds=(begin.fileno(),), stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
            text = p.communicate()[0]
            if p.returncode:
                raise RuntimeError(f"{host}: {' '.join(command)}: {text}")
            begin.seek(0)
            return float(begin.read())

    def pid(self, host, program):
        """The machine's pid of a program on a host (None: it does not run)."""
        space = os.readlink(f"/proc/{self.init_pid(host)}/ns/pid")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as f:
                    if f.read().rstrip() == program[:15] and \
                            os.readlink(f"/proc/{pid}/ns/pid") == space:
                        return int(pid)
            except OSError:
                pass
        return None

    def kill(self, host, program):
        """SIGKILL; returns when it was sent (CLOCK_REALTIME)."""
        pid = self.pid(host, program)
        now = time.time()
        os.kill(pid, signal.SIGKILL)
        return now

    def stamps(self, since=0.0):
        """[(when, action, host, resource)], oldest first."""
        try:
            text = (self.state / "shared/1/stamp.log").read_text(encoding="ascii")
        except FileNotFoundError:
            return []
        rows = [r.split() for r in text.splitlines()]
        return sorted((float(w), a, h, r) for w, a, h, r in rows if float(w) > since)

    def wait_stamp(self, since, action, deadline=60.0, host=None):
        """The first stamp of an action (on a host) since then."""
        def found():
            return next((s for s in self.stamps(since)
                         if s[1] == action and host in (None, s[2])), None)
        return until(found, f"{action} on {host or 'any host'}", deadline)


class SteadyClock:
    """with SteadyClock(): complains if the real-time clock was set meanwhile, which would be taken
    for a time that something took."""

    def __enter__(self):
        self.begin = time.time() - time.monotonic()

    def __exit__(self, kind, *_):
        if kind is None and abs(time.time() - time.monotonic() - self.begin) > 0.005:
            raise RuntimeError("the clock was set during a measurement: start again")


def table(out):
    for key, value in out.items():
        if not key.endswith("_samples"):
            print(f"{key:45} {'-' if value is None else f'{value:.3f}'}")


def idle_share(seconds):
    """How much of the machine's CPU time was idle for a while."""
    def read():
        with open("/proc/stat", encoding="ascii") as f:
            now = [int(n) for n in f.readline().split()[1:9]]
        return sum(now), now[3] + now[4]
    before = read()
    time.sleep(seconds)
    after = read()
    return (after[1] - before[1]) / max(1, after[0] - before[0])


def wait_random(quiet_wait=QUIET_WAIT):
    """Where Corosync's token is, and how long ago the last monitor was, is chance. What others do on
    the machine is not to be measured: wait a while for an idle moment. How idle it was."""
    time.sleep(1 + random.random())
    end = time.monotonic() + quiet_wait
    while (share := idle_share(0.3)) < QUIET and time.monotonic() < end:
        pass
    return round(share, 2)


def sample(what, times, measure, *args):
    """Some samples; one that fails is told, not hidden."""
    out = []
    for k in range(times):
        try:
            out.append(measure(*args))
        except (Late, RuntimeError) as e:
            out.append({"failed": str(e)})
        say(f"{what} {k + 1}/{times}: {json.dumps(out[-1])}")
    return out


def column(rows, key):
    return [r[key] for r in rows if r.get(key) is not None]


def median(values):
    return statistics.median(values) if values else None


def add(out, key, rows, name):
    """Median and spread of a column of samples, and the samples."""
    values = column(rows, name)
    out[key] = median(values)
    out[f"{key}_min"], out[f"{key}_max"] = min(values, default=None), max(values, default=None)
    out[f"{key}_samples"] = rows
