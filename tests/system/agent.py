"""Run our OCF agents as a group would: by the contract of doc/design/agents.md."""
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGENTS = ROOT / "agents/resource.d/holdfast"
DEADLINE = 60.0

OK, GENERIC, ARGS, UNIMPLEMENTED, PERM, INSTALLED, CONFIGURED = range(7)
NOT_RUNNING, PROMOTED, FAILED_PROMOTED = 7, 8, 9


def until(condition, what, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.05)


def run_agent(agent, action, params, env=None, timeout_ms=60000, prefix=()):
    """One action of one agent; gives the finished process."""
    full = {
        "PATH": os.environ["PATH"],
        "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_TYPE": agent,
        "OCF_RESOURCE_PROVIDER": "holdfast",
        "OCF_RESKEY_CRM_meta_timeout": str(timeout_ms),
        **{f"OCF_RESKEY_{k}": str(v) for k, v in params.items()},
        **(env or {}),
    }
    # what an agent leaves running must not hold its output open
    return subprocess.run([*prefix, AGENTS / agent, action], env=full, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout_ms / 1000 + 5, check=False)


class Copy:
    """One copy of a database with its agent, on a loopback address of its own."""

    def __init__(self, cluster, n):
        self.cluster = cluster
        self.id = f"copy{n}"
        self.host = f"host{n}"
        self.address = f"127.{cluster.net}.{n}"
        self.dir = cluster.dir / self.id
        self.pgdata = self.dir / "data"
        self.socket_dir = self.dir / "socket"
        self.log = self.dir / "log" / "server.log"
        self.params = {
            "pgdata": self.pgdata,
            "port": cluster.port,
            "listen_addresses": self.address,
            "socket_dir": self.socket_dir,
            "clients": "127.0.0.0/8",
            "client_auth": "trust",
            "replication_passfile": cluster.passfile,
            "mirror_networks": "127.0.0.0/8",
            "logfile": self.log,
        }
        self.mirrors = None  # HOLDFAST_MIRRORS, as the group would pass it
        self.epoch = 1

    def __str__(self):
        return f"{self.id}={self.host}@{self.address}"

    def agent(self, action, timeout_ms=60000, params=None, **env):
        """Run an action; extra environment by name, e.g. SOURCE=..., for HOLDFAST_SOURCE."""
        full = {"OCF_RESOURCE_INSTANCE": self.id, "HA_RSCTMP": str(self.dir / "run"),
                "HOLDFAST_GROUP": "test", "HOLDFAST_HOST": self.host, "HOLDFAST_RESOURCE": self.id,
                "HOLDFAST_EPOCH": str(self.epoch)}
        full |= {f"HOLDFAST_{k}": str(v) for k, v in env.items()}
        full = {k: v for k, v in full.items() if v != "None"}
        return run_agent("postgresql", action, self.params | (params or {}), full, timeout_ms)

    def do(self, action, want=OK, **kw):
        p = self.agent(action, **kw)
        assert p.returncode == want, (
            f"{self.id} {action}: {p.returncode}, not {want}\n{p.stdout}{p.stderr}{self.tail()}")
        return p.stdout

    def tail(self):
        return "\n".join(self.log.read_text().splitlines()[-25:]) if self.log.exists() else ""

    def monitor(self, **kw):
        return self.agent("monitor", **kw).returncode

    def fence(self, **kw):
        """Promote, and give the fence as a dict."""
        line = self.do("promote", **kw).splitlines()[-1]
        prefix = "holdfast-fence: "
        assert line.startswith(prefix) and len(line) - len(prefix) <= 120
        return dict(w.split("=") for w in line.removeprefix(prefix).split())

    def create(self):
        """The group's first copy: initialised, promoted, open."""
        self.do("start", INIT="yes")
        fence = self.fence()
        self.do("open")
        return fence

    def mirror(self, *mirrors, want=OK, **kw):
        """mirror-source with (copy, mode) pairs."""
        text = " ".join(f"{m}={mode}" for m, mode in mirrors)
        return self.do("mirror-source", want=want, MIRRORS=text, **kw)

    def state(self):
        """mirror-state as {id: words}"""
        return dict(line.split(" ", 1) for line in self.do("mirror-state").splitlines())

    def follow(self, source, state="caught-up", **kw):
        """mirror-target, and wait until it follows."""
        self.do("start", SOURCE=source)
        self.do("mirror-target", SOURCE=source, **kw)
        self.await_state(source, state)

    def await_state(self, source, state="caught-up"):
        """Until the copy and its source both call it that (in-sync is the source's word only)."""
        own = "caught-up" if state == "in-sync" else state
        until(lambda: self.state()[self.id] == own and source.state()[self.id] == state,
              f"{self.id} {state}: {self.state()} {source.state()}")

    def psql(self, sql, check=True, address=None, user="postgres", options=""):
        """As a client, over TCP."""
        p = subprocess.run(
            ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-c", sql,
             f"host={address or self.address} port={self.cluster.port} user={user} dbname=postgres "
             f"connect_timeout=5"],
            capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "PGOPTIONS": options})
        if check:
            assert p.returncode == 0, p.stderr
            return p.stdout.strip()
        return p

    def postmaster(self):
        return int((self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0])

    def kill(self, sig=signal.SIGKILL):
        os.kill(self.postmaster(), sig)

    def processes(self):
        found = []
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(p / "cwd").startswith(str(self.dir)):
                    found.append(int(p.name))
            except OSError:
                pass
        return found


class Cluster:
    """Several copies in a directory of their own; end() leaves nothing."""

    def __init__(self):
        user = pwd.getpwnam("postgres")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir="/tmp"))
        os.chown(self.dir, user.pw_uid, user.pw_gid)
        self.net = f"{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250 + 1}"
        with socket.socket() as s:
            s.bind((f"127.{self.net}.250", 0))
            self.port = s.getsockname()[1]
        self.passfile = self.dir / "passfile"
        self.passfile.write_text("*:*:*:holdfast:se'cr\\et\n")
        os.chmod(self.passfile, 0o600)
        os.chown(self.passfile, user.pw_uid, user.pw_gid)
        self.copies = []

    def copy(self):
        c = Copy(self, len(self.copies) + 1)
        for d in (c.dir, c.dir / "run", c.dir / "log"):
            d.mkdir()
            shutil.chown(d, "postgres", "postgres")
        self.copies.append(c)
        return c

    def end(self):
        left = []
        for c in self.copies:
            for pid in c.processes():
                try:
                    os.kill(pid, signal.SIGCONT)
                except OSError:
                    pass
            if c.agent("stop").returncode != OK:
                left.append(c.id)
            left += c.processes()
        for pid in left:
            if isinstance(pid, int):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir)
        assert not left, left
