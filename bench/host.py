"""The lab and its hosts, seen from the machine: control sockets, sockets in a host's network, and
what the kernel says of a process."""
import contextlib
import ctypes
import datetime
import json
import os
import pathlib
import platform
import re
import socket
import subprocess
import time

import ctl

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOOL = ROOT / "build/src/lab/holdfast-lab"
RAN = ROOT / "bench/out/ran.json"  # when, where and of which commit each of the other files is
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def entered(namespace):
    """The calling thread is in this network namespace, of which a path is given, and then again where it was."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(namespace, "rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                os._exit(1)  # in a network that the machine does not have


class Lab:
    """One lab; down() may always be called."""

    def __init__(self, name):
        self.name = name
        self.state = pathlib.Path("/run/holdfast-lab") / name

    def popen(self, *args, stdin=subprocess.DEVNULL, **kw):
        return subprocess.Popen([TOOL, "--name", self.name, *map(str, args)], stdin=stdin, **kw)

    def run(self, *args):
        p = subprocess.run([TOOL, "--name", self.name, *map(str, args)], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           timeout=90, check=False)
        if p.returncode:
            raise RuntimeError(f"holdfast-lab {' '.join(map(str, args))}: {p.stdout}")
        return p.stdout

    def down(self):
        self.run("down")

    def init_pid(self, host):
        return int((self.state / "hosts" / host / "init").read_text().split()[0])

    def address(self, host):
        hosts = (self.state / "hosts" / host / "fs/etc/hosts").read_text().splitlines()
        return next(a for a, n in (r.split() for r in hosts) if n == host and "." in a)

    def control_path(self, host):
        return f"/proc/{self.init_pid(host)}/root/run/holdfast/control.sock"

    def client(self, host):
        return ctl.Client(self.control_path(host))

    def first_client(self, host, deadline=20.0):
        """As soon as the daemon there answers."""
        path, end = self.control_path(host), time.monotonic() + deadline
        while True:
            try:
                return ctl.Client(path)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)

    def connect(self, host, port):
        """A TCP connection to a program that listens on the host's loopback."""
        with entered(f"/proc/{self.init_pid(host)}/ns/net"):
            s = socket.create_connection(("127.0.0.1", port), timeout=10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s


def cpu_s(pid):
    """CPU seconds of all threads so far, user and system, as the scheduler counts them (ns)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def memory_mb(pid):
    """{VmRSS, VmHWM, Pss} in MB (10^6 bytes)."""
    out = {}
    for name in ("status", "smaps_rollup"):
        with open(f"/proc/{pid}/{name}", encoding="ascii") as f:
            for row in f:
                key = row.split(":")[0]
                if key in ("VmRSS", "VmHWM", "Pss"):
                    out[key] = int(row.split()[1]) * 1024 / 1e6
    return out


def save(name, out):
    """What a bench has measured, to bench/out."""
    RAN.parent.mkdir(parents=True, exist_ok=True)
    (RAN.parent / name).write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    ran = json.loads(RAN.read_text(encoding="utf-8")) if RAN.exists() else {}
    RAN.write_text(json.dumps({**ran, name: HERE_AND_NOW}, indent=1) + "\n", encoding="utf-8")


def here_and_now():
    """The machine, and what is measured, as they are when a bench begins."""
    commit = subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    return {"when": f"{datetime.datetime.now():%Y-%m-%d %H:%M}", "commit": commit.stdout.strip() or "unknown", "cores": os.cpu_count(),
            "cpu": model[1] if model else platform.machine(), "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
            "kernel": platform.release(), "load": os.getloadavg()[0]}


HERE_AND_NOW = here_and_now()


def percentile(values, p):
    """Nearest rank."""
    s = sorted(values)
    return s[min(len(s) - 1, max(0, -(-len(s) * p // 100) - 1))]
