"""Real PostgreSQL servers from Debian's package, and holdfast-pg or PgBouncer in front of them, for tests and tools."""
import atexit
import contextlib
import csv
import functools
import itertools
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BIN = pathlib.Path(os.environ.get("PGBIN", "/usr/lib/postgresql/15/bin"))
DEADLINE = 60.0
# of a server in tests; fsync off is safe here: a killed process loses nothing that the kernel has
SETTINGS = {
    "fsync": "off",
    "restart_after_crash": "off",
    "max_connections": 200,
    "max_prepared_transactions": 10,
    "wal_level": "replica",
    "max_wal_senders": 10,
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby": "on",
    "logging_collector": "off",
    "log_line_prefix": "'%m [%p] %q%u@%d %a '",
    "dynamic_shared_memory_type": "mmap",  # nothing stays behind in /dev/shm
    "shared_buffers": "32MB",
    "max_wal_size": "1GB",
    "lc_messages": "'C'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
}


def until(condition, what, deadline=DEADLINE):
    """Wait until it is true, and give what it gave."""
    end = time.monotonic() + deadline
    while not (got := condition()):
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.02)
    return got


@functools.cache
def ports():
    """The ports of this process, in turn: below the ephemeral ones, where no client's own end can sit on the port of a
    server that is down, or connect to itself there. The name in the abstract namespace keeps other processes off."""
    size = 200
    for first in range(10000, 32000, size):
        lock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            lock.bind(f"\0holdfast-test-ports-{first}")
            return lock, itertools.cycle(range(first, first + size))
        lock.close()
    raise AssertionError("all ports are taken")


def free_port():
    for port in ports()[1]:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return port


@functools.cache
def template():
    """A data directory as initdb makes it, once for all servers of this process; they have one system identifier."""
    user = pwd.getpwnam("postgres")
    top = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-template-", dir="/tmp"))
    atexit.register(shutil.rmtree, top)
    os.chown(top, user.pw_uid, user.pw_gid)
    subprocess.run([BIN / "initdb", "-D", top / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
                   cwd=top, check=True, stdout=subprocess.DEVNULL, user="postgres", group="postgres", extra_groups=[])
    with open(top / "data/pg_hba.conf", "a", encoding="utf-8") as f:
        f.write("host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n")
    return top / "data"


def children(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def working_in(directory):
    found = []
    for cwd in pathlib.Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(cwd) == str(directory):
                found.append(int(cwd.parent.name))
    return found


def send(pid, sig):
    """Whether there was such a process."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return False
    return True


class Rig:
    """A directory with servers and proxies in it; end() leaves nothing of them."""

    def __init__(self):
        # ended from outside, it still tears down
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-rig-", dir="/tmp"))
        user = pwd.getpwnam("postgres")
        os.chown(self.dir, user.pw_uid, user.pw_gid)
        self.dir.chmod(0o755)
        self.servers = []
        self.proxies = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def server(self, **settings):
        """A new primary, running."""
        s = Server(self, f"pg{len(self.servers) + 1}", settings)
        self.servers.append(s)
        s.init()
        s.start()
        return s

    def standby(self, primary, sync=True, **settings):
        """A standby of it, running and, if synchronous, waited for by commits."""
        s = Server(self, f"pg{len(self.servers) + 1}", primary.settings | settings)
        self.servers.append(s)
        s.clone(primary)
        s.start()
        if sync:
            primary.wait_for(s)
        return s

    def proxy(self, servers, kind="holdfast-pg", **options):
        """Started in front of them. Options of holdfast-pg as section__option."""
        cls = {"holdfast-pg": HoldfastPg, "pgbouncer": PgBouncer}[kind]
        p = cls(self, f"proxy{len(self.proxies) + 1}", servers, options)
        self.proxies.append(p)
        p.start()
        return p

    def end(self):
        for p in self.proxies:
            p.end()
        for s in self.servers:
            s.end()
        for p in [*self.proxies, *self.servers] if "PYTEST_CURRENT_TEST" in os.environ else []:
            print(f"--- {p.name}\n{p.tail()}")  # shown by pytest when the test failed
        shutil.rmtree(self.dir)


class Endpoint:
    """Something on 127.0.0.1:port and in socket_dir that talks PostgreSQL's protocol."""

    host = "127.0.0.1"
    user = "postgres"

    def conninfo(self, dbname="postgres", **more):
        words = {"host": self.host, "port": self.port, "user": self.user, "dbname": dbname} | more
        return " ".join(f"{k}='{v}'" for k, v in words.items())

    def psql(self, sql, dbname="postgres", check=True, timeout=DEADLINE):
        p = subprocess.run(["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-c", sql,
                            self.conninfo(dbname, connect_timeout=5)],
                           capture_output=True, text=True, timeout=timeout, check=False)
        if check:
            assert p.returncode == 0, p.stderr
            return p.stdout.strip()
        return p


class Server(Endpoint):
    """One PostgreSQL server; the postmaster is our child."""

    def __init__(self, rig, name, settings):
        self.rig, self.name = rig, name
        self.settings = SETTINGS | settings
        self.port = free_port()
        self.dir = rig.dir / name
        self.data = self.dir / "data"
        self.socket_dir = self.dir / "socket"
        self.log = self.dir / "server.log"
        self.process = None
        for d in (self.dir, self.socket_dir):
            d.mkdir()
            shutil.chown(d, "postgres", "postgres")

    def run(self, *command):
        p = subprocess.run([BIN / command[0], *map(str, command[1:])], cwd=self.dir, capture_output=True,
                           text=True, user="postgres", group="postgres", extra_groups=[], check=False)
        assert p.returncode == 0, f"{command}: {p.stdout}{p.stderr}{self.tail()}"
        return p.stdout

    def init(self):
        subprocess.run(["cp", "-a", template(), self.data], check=True)
        self.configure()

    def clone(self, primary):
        self.run("pg_basebackup", "-D", self.data, "-c", "fast", "-R", "--no-sync",
                 "-d", primary.conninfo(application_name=self.name))
        self.configure()

    def recreate(self, primary):
        """As a standby of it, whatever it was; running"""
        until(lambda: not working_in(self.data), "what was killed is gone")
        shutil.rmtree(self.data)
        self.clone(primary)
        self.start()

    def configure(self, **settings):
        """In a file that is not copied along with what ALTER SYSTEM writes; reload() or restart."""
        self.settings |= settings
        own = {"listen_addresses": "'127.0.0.1'", "port": self.port,
               "unix_socket_directories": f"'{self.socket_dir}'"}
        (self.data / "rig.conf").write_text(
            "".join(f"{k} = {v}\n" for k, v in (self.settings | own).items()))
        conf = self.data / "postgresql.conf"
        if "rig.conf" not in conf.read_text():
            with open(conf, "a", encoding="utf-8") as f:
                f.write("include 'rig.conf'\n")

    def reload(self):
        os.kill(self.process.pid, signal.SIGHUP)

    def launch(self):
        """Start the postmaster; ready() waits for it."""
        assert self.process is None
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [BIN / "postgres", "-D", self.data], cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, user="postgres", group="postgres", extra_groups=[], umask=0o077)

    def state(self):
        """The last line of postmaster.pid: starting, ready, standby, stopping."""
        with contextlib.suppress(OSError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            if int(lines[0]) == self.process.pid:
                return lines[7].strip()
        return ""

    def start(self, deadline=DEADLINE):
        """Until it accepts connections. What the children of a killed postmaster still hold is waited for."""
        end = time.monotonic() + deadline
        while True:
            self.launch()
            while self.process.poll() is None and self.state() not in ("ready", "standby"):
                assert time.monotonic() < end, self.tail()
                time.sleep(0.01)
            if self.process.poll() is None:
                return
            self.process = None
            assert time.monotonic() < end, self.tail()
            assert "pre-existing shared memory block" in self.tail(), self.tail()
            time.sleep(0.05)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def gone(self):
        self.process.wait(DEADLINE)
        self.process = None

    def stop(self, mode="fast"):
        """smart, fast or immediate"""
        sig = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        os.kill(self.process.pid, sig)
        self.gone()

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def kill(self):
        """The postmaster alone, as by the OOM killer; its children notice and end."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.gone()

    def power_off(self):
        """Every process at once, none may do anything more."""
        os.kill(self.process.pid, signal.SIGSTOP)
        backends = children(self.process.pid)
        for pid in backends:
            send(pid, signal.SIGKILL)
        os.kill(self.process.pid, signal.SIGKILL)
        self.gone()

    def backends(self):
        """pids of client backends, by their titles: no query, so also of a server that hangs"""
        found = []
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
                if re.match(rb"postgres: \S+ \S+ (\[local\]|[0-9a-f.:]+\(\d+\)) ", title):
                    found.append(pid)
        return found

    def promote(self):
        """Until it is writable. The synchronous standby that it copied from its primary is not waited for."""
        self.configure(synchronous_standby_names="''")
        self.reload()
        self.run("pg_ctl", "-D", self.data, "-w", "promote")

    def wait_for(self, *standbys):
        """Commits wait for these from now on; until they do."""
        names = ", ".join(f'"{s.name}"' for s in standbys)
        self.configure(synchronous_standby_names=f"'{len(standbys)} ({names})'" if standbys else "''")
        self.reload()
        until(lambda: self.psql("show synchronous_standby_names").count('"') == 2 * len(standbys),
              "synchronous_standby_names is in force")
        for s in standbys:
            until(lambda s=s: self.psql("select sync_state from pg_stat_replication"
                                        f" where application_name = '{s.name}' and state = 'streaming'")
                  in ("sync", "quorum"), f"{s.name} is synchronous")

    def tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def end(self):
        if self.running():
            for pid in (self.process.pid, *children(self.process.pid)):
                send(pid, signal.SIGCONT)
            os.kill(self.process.pid, signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.power_off()
        self.process = None
        until(lambda: not working_in(self.data), "children of a killed postmaster end", 10)
        pidfile = self.data / "postmaster.pid"
        if pidfile.exists():  # killed: its System V segment is still there
            lines = pidfile.read_text().splitlines()
            if len(lines) > 6 and len(words := lines[6].split()) == 2:
                subprocess.run(["ipcrm", "-m", words[1]], stderr=subprocess.DEVNULL, check=False)


class Proxy(Endpoint):
    """A proxy in front of servers; its process is our child."""

    def __init__(self, rig, name, servers, options):
        self.rig, self.name, self.servers, self.options = rig, name, servers, options
        self.port = free_port()
        self.dir = rig.dir / name
        self.socket_dir = self.dir
        self.log = self.dir / "log"
        self.conf = self.dir / "conf"
        self.process = None
        self.dir.mkdir()
        shutil.chown(self.dir, "postgres", "postgres")

    def start(self):
        self.conf.write_text(self.configuration())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, user="postgres", group="postgres", extra_groups=[])
        until(self.listening, f"{self.name} listens")

    def listening(self):
        assert self.process.poll() is None, self.tail()
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            return (tcp.connect_ex((self.host, self.port)) == 0
                    and unix.connect_ex(str(self.socket_dir / f".s.PGSQL.{self.port}")) == 0)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def end(self):
        """What it is worth: the exit status, None if it had to be killed."""
        if self.process is None:
            return 0
        p, self.process = self.process, None
        if p.poll() is None:
            send(p.pid, signal.SIGCONT)
            p.terminate()
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
                return None
        return p.returncode


def find_program(name):
    """In HOLDFAST_BIN, which is a PATH; then in the build directory."""
    root = pathlib.Path(__file__).resolve().parents[2]
    build = f"{root}/build/src/pg"
    return shutil.which(name, path=f"{os.environ.get('HOLDFAST_BIN', build)}:{build}")


class HoldfastPg(Proxy):
    """holdfast-pg; options by section__option, e.g. session__rehearse_moves=10."""

    defaults = {
        "pg__admin_users": ["postgres"],
        "auth__type": "trust",
        "auth__user": "postgres",
        "auth__database": "postgres",
        "servers__exclusive": True,
    }

    def command(self):
        assert find_program("holdfast-pg"), "holdfast-pg is not built"
        return [find_program("holdfast-pg"), "-c", self.conf]

    def configuration(self):
        sections = {"pg": {"listen": [f"127.0.0.1:{self.port}"], "unix_socket_dir": str(self.socket_dir)}}
        for key, value in (self.defaults | self.options).items():
            section, _, option = key.partition("__")
            sections.setdefault(section, {})[option] = value
        for s in self.servers:
            sections[f"server {s.name}"] = {"host": s.host, "port": s.port}
        return "".join(f"{name} {{\n" + "".join(f"    {k} = {word(v)}\n" for k, v in options.items()) + "}\n"
                       for name, options in sections.items())

    def reload(self, **options):
        self.options |= options
        self.conf.write_text(self.configuration())
        os.kill(self.process.pid, signal.SIGHUP)

    def console(self, command):
        """Rows of a console command, each a dict."""
        p = subprocess.run(["psql", "-XqAw", "--csv", "-c", command, self.conninfo("holdfast")],
                           capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert p.returncode == 0, p.stderr
        return list(csv.DictReader(p.stdout.splitlines()))


def word(value):
    """A value in libconfuse's syntax"""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "{ " + ", ".join(word(v) for v in value) + " }"
    return str(value) if isinstance(value, int) else f'"{value}"'


class PgBouncer(Proxy):
    """Debian's PgBouncer in session mode, for comparison."""

    def command(self):
        return ["/usr/sbin/pgbouncer", self.conf]

    def configuration(self):
        server = self.servers[0]
        users = self.dir / "users"
        users.write_text('"postgres" ""\n')
        return f"""[databases]
* = host={server.host} port={server.port} auth_user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir = {self.socket_dir}
auth_type = trust
auth_file = {users}
admin_users = postgres
pool_mode = session
server_reset_query = DISCARD ALL
ignore_startup_parameters = extra_float_digits,options,application_name
max_client_conn = 1000
default_pool_size = 150
log_connections = 0
log_disconnections = 0
"""
