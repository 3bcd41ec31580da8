"""Drive holdfast-lab from tests: commands, and waiting for conditions with a deadline."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATE = pathlib.Path("/run/holdfast-lab")
DEADLINE = 20.0  # seconds; generous: what is late is a failure, what is early costs nothing


def find_lab():
    """holdfast-lab: HOLDFAST_BIN, then this tree's build directory, then its source."""
    path = os.environ.get("HOLDFAST_BIN", "") + f":{ROOT}/build/src/lab:{ROOT}/src/lab"
    return shutil.which("holdfast-lab", path=path)


def end(process):
    """End what Lab.popen started and all that it started itself, which would hold its pipes open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class Failed(Exception):
    """A command failed; the text has its output."""


class Lab:
    """One lab. Commands raise Failed; down() may always be called."""

    def __init__(self, name):
        self.name = name
        self.tool = find_lab()

    # --- commands ---

    def run(self, *args, check=True, timeout=90, stdin=None):
        p = subprocess.run(
            [self.tool, "--name", self.name, *map(str, args)],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and p.returncode:
            raise Failed(f"holdfast-lab {' '.join(map(str, args))}: {p.returncode}\n"
                         f"{p.stdout}{p.stderr}")
        return p

    def up(self, *args):
        return self.run("up", *args)

    def down(self):
        return self.run("down")

    def leftovers(self):
        """What there is of it outside of its hosts, as lines; after down() nothing"""
        found = [str(STATE / self.name)] if (STATE / self.name).exists() else []
        found += [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob(f"**/holdfast-lab.{self.name}")]
        found += [line for line in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if f"/{self.name}/" in line]
        for p in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"/holdfast-lab/{self.name}/".encode() in p.read_bytes():
                    found.append(str(p))
        return found

    def exec(self, host, *command, **kw):
        """Run a command on a host and give its output."""
        return self.run("exec", host, "--", *command, **kw).stdout

    def popen(self, host, *command, **kw):
        """Start a command on a host; the caller ends it, and what it started itself, with end()."""
        kw = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
              "text": True, "start_new_session": True, **kw}
        return subprocess.Popen([self.tool, "--name", self.name, "exec", host, "--", *command],
                                **kw)

    def put(self, host, path, text):
        """Write a file on a host."""
        self.run("exec", host, "--", "sh", "-c", f"cat >'{path}'", stdin=text)

    def get(self, host, path):
        return self.exec(host, "cat", path)

    def address(self, host, v6=False):
        text = self.exec(host, "ip", "-6" if v6 else "-4", "-j", "addr", "show", "dev", "eth0")
        return next(a["local"] for i in json.loads(text) for a in i["addr_info"]
                    if a["scope"] == "global")

    def init(self, host):
        """The machine's pid of the host's first process, when it was last switched on"""
        return int((STATE / self.name / "hosts" / host / "init").read_text().split()[0])

    def log(self, host):
        return self.run("log", host).stdout

    def state_of(self, host):
        """The host's row of "status", as a dict."""
        rows = [r.split() for r in self.run("status").stdout.splitlines()]
        row = next(r for r in rows if r[0] == host)
        return dict(zip(("host", "state", "cable", "drop", "holdfastd", "fence", "address"), row))

    def until_apart(self, all_hosts, hosts):
        """Corosync has given up its links from and to these, which takes seconds. Heard again before that, a link may be taken for
        dead a moment later, on one side only; then somebody else may be left out of the ring, and fenced."""
        def links(at):
            text = self.exec(at, "timeout", "5", "corosync-cmapctl", "-m", "stats")
            nodes = re.findall(r"^stats\.knet\.node(\d+)\.link0\.connected .* = 1$", text, re.M)
            return {all_hosts[int(n) - 1] for n in nodes} - {at}

        def linked(at):
            return self.state_of(at)["state"] == "on" and links(at) & (set(all_hosts) if at in hosts else set(hosts))

        self.until(lambda: not any(map(linked, all_hosts)), f"{', '.join(hosts)}: no links")

    def fence(self, host, action, plug="", check=True, **kw):
        """Run the lab's fence agent on a host, as a cluster manager would."""
        return self.run("exec", host, "--", "fence_holdfast_lab", check=check,
                        stdin=f"action={action}\nplug={plug}\n", **kw)

    # --- holdfast ---

    def json(self, host, *args):
        return json.loads(self.exec(host, "holdfast", *args, "--json"))

    def tree(self, host, prefix="/"):
        """{name: (owner, value)}"""
        return {e["name"]: (e["owner"], e["value"]) for e in self.json(host, "tree", prefix)}

    def members(self, host):
        """{host: state}"""
        return {m["host"]: m["state"] for m in self.json(host, "members")}

    def status(self, host):
        return self.json(host, "status")

    def counter(self, host, *words):
        """Sum of the counters whose name has all the words in it."""
        counters = self.status(host)["counters"]
        return sum(v for k, v in counters.items() if all(w in k for w in words))

    def publish(self, host, name, value):
        """Publish, held by the process returned: killing it withdraws."""
        p = self.popen(host, "holdfast", "publish", name, json.dumps(value))
        self.until(lambda: name in self.tree(host, name), f"{name} published on {host}")
        return p

    def publish_detached(self, host, name, value, lease=3600):
        self.exec(host, "holdfast", "publish", name, json.dumps(value),
                  "--detach", str(lease))

    # --- waiting ---

    @staticmethod
    def until(condition, what, deadline=DEADLINE):
        """Poll until the condition is true; what it raises meanwhile counts as false."""
        end = time.monotonic() + deadline
        last = None
        while True:
            try:
                if condition():
                    return
                last = None
            except (Failed, OSError, ValueError, KeyError, StopIteration) as e:
                last = e
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline} s: {what} ({last})")
            time.sleep(0.05)

    def until_tree(self, hosts, wanted, prefix="/", deadline=DEADLINE):
        """Until each host shows exactly `wanted` ({name: owner}) under prefix."""
        for host in hosts:
            self.until(lambda h=host: {n: o for n, (o, _) in self.tree(h, prefix).items()} == wanted,
                       f"{host} shows {wanted} under {prefix}", deadline)
