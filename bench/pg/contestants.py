"""PostgreSQL on this machine's loopback and what can stand before it: each with a configuration of
its own in one directory that goes with them, run as user postgres and ended by pid. pairs.py has the
same on hosts of a network."""
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "failover")]
from common import say, until  # noqa: E402 # pylint: disable=wrong-import-position
from host import ROOT, memory_mb  # noqa: E402 # pylint: disable=wrong-import-position
from pgwire import Session, connect  # noqa: E402 # pylint: disable=wrong-import-position

BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
HOLDFAST_PG = ROOT / "build/src/pg/holdfast-pg"
USER, PASSWORD_USER, PASSWORD, DATABASE = "bench", "scram", "secret", "bench"
FILES = 20000  # open files that a process may have

POSTGRESQL = """
listen_addresses = '{address}'
port = {port}
unix_socket_directories = '{dir}'
max_connections = {connections}
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 1h
fsync = off
autovacuum = off # each run is short and looks after itself
ssl = on
ssl_cert_file = '{dir}/cert.pem'
ssl_key_file = '{dir}/key.pem'
"""

HBA = f"""
local all all trust
host all postgres {{net}} trust
host all {USER} {{net}} trust
host all {PASSWORD_USER} {{net}} scram-sha-256
"""

PGBOUNCER = """
[databases]
{database} = host={host} port={server_port}
[pgbouncer]
listen_addr = {address}
listen_port = {port}
listen_backlog = 1024
unix_socket_dir = {dir}
pool_mode = session
max_client_conn = 5000
default_pool_size = 5000
auth_type = hba
auth_hba_file = {dir}/hba
auth_file = {dir}/users
admin_users = postgres
client_tls_sslmode = allow
client_tls_cert_file = {dir}/cert.pem
client_tls_key_file = {dir}/key.pem
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
"""

HAPROXY = """
global
    maxconn 5000
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgresql
    bind {address}:{port} backlog 1024
    server one {host}:{server_port}
"""

HOLDFAST = """
pg {{
    listen = {{ "{address}:{port}" }}
    max_clients = 5000
}}
auth {{
    hba_file = "{dir}/hba"
    file = "{dir}/users"
    user = "postgres"
    database = "{database}"
}}
client_tls {{
    sslmode = allow
    cert_file = "{dir}/cert.pem"
    key_file = "{dir}/key.pem"
}}
server_tls {{ sslmode = disable }}
session {{ protect_writes = {protect_writes} }}
servers {{ exclusive = true }}
log {{ level = warn }} # as PgBouncer's log_connections = 0
server one {{
    host = "{host}"
    port = {server_port}
}}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Contestant:
    """What clients connect to, and whose CPU that costs: `process` is None for the server itself."""

    def __init__(self, rig, name, address, port, process=None):
        self.rig, self.name, self.address, self.port, self.process = rig, name, address, port, process

    def processes(self):
        """{key of its CPU per transaction: process}"""
        return {"cpu_us": self.process} if self.process else {}

    def session(self, user=USER, database=DATABASE):
        return Session(self.rig.connect(self.address, self.port), user, database)

    def last_words(self):
        return self.rig.last_words(self.name)

    @staticmethod
    def look(_clients):
        """While that many clients are at work: why it is not (yet) what it is said to be, or ""."""
        return ""

    @staticmethod
    def beside():
        """What is to be told beside the figures of a run that has ended: {key: number}."""
        return {}

    def rss_kib(self):
        return memory_mb(self.process.pid)["VmRSS"] * 1e6 / 1024


class Rig:
    """One server, and the contestants that were asked for; down() may always be called."""

    server_address = proxy_address = "127.0.0.1"
    net = "127.0.0.1/32"  # where clients are
    pgbench = (BIN / "pgbench",)

    def __init__(self, connections=3000):
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="hf-bench-pg-"))
        shutil.chown(self.dir, "postgres", "postgres")
        self.port, self.processes, self.own = free_port(), [], None
        self.connections = connections

    def path(self, name):
        return self.dir / name

    def connect(self, host, port):
        """A socket from where the clients are."""
        return connect(host, port)

    def spawn(self, name, *argv):
        with open(self.path(f"{name}.log"), "ab") as log:
            p = subprocess.Popen([str(a) for a in argv], cwd=self.dir, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, user="postgres", group="postgres",
                                 extra_groups=[], start_new_session=True)
        self.processes.append(p)
        return p

    def run(self, *argv):
        subprocess.run([str(a) for a in argv], cwd=self.dir, stdin=subprocess.DEVNULL, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user="postgres", group="postgres", extra_groups=[])

    def write(self, name, text):
        self.path(name).write_text(text, encoding="ascii")
        shutil.chown(self.path(name), "postgres", "postgres")
        self.path(name).chmod(0o600)
        return self.path(name)

    def up(self, scale):
        """The server, with pgbench's tables."""
        self.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-batch",
                 "-subj", "/CN=localhost", "-keyout", self.path("key.pem"), "-out",
                 self.path("cert.pem"))
        self.run(BIN / "initdb", "-D", self.path("data"), "-U", "postgres", "-A", "trust",
                 "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        self.write("hba", HBA.format(net=self.net))
        shutil.copyfile(self.path("hba"), self.path("data/pg_hba.conf"))
        with open(self.path("data/postgresql.conf"), "a", encoding="ascii") as f:
            f.write(POSTGRESQL.format(address=self.server_address, port=self.port, dir=self.dir,
                                      connections=self.connections))
        self.spawn("postgresql", BIN / "postgres", "-D", self.path("data"))
        self.own = self.wait_ready(self.session)
        for sql in (f"create role {USER} login", f"create role {PASSWORD_USER} login password '{PASSWORD}'",
                    f"create database {DATABASE} owner {USER}",
                    f"grant pg_read_all_data to {PASSWORD_USER}"):
            self.own.query(sql)
        self.run(BIN / "pgbench", "-h", self.dir, "-p", self.port, "-U", USER, "-q", "-i", "-I", "dtGvp",
                 "-s", scale, DATABASE)
        users = self.own.query("select rolname, coalesce(rolpassword, '') from pg_authid where rolcanlogin")
        self.write("users", "".join(f'"{u}" "{p}"\n' for u, p in users))

    def session(self, user="postgres", database="postgres"):
        """Straight to the server, as anybody."""
        return Session(connect(str(self.dir), self.port), user, database, timeout=60)

    def wait_ready(self, attempt):
        """The value of attempt() as soon as it does not fail; unless the last process has died."""
        def ready():
            try:
                return attempt()
            except OSError:
                p = self.processes[-1]
                if p.poll() is None:
                    return None
                raise RuntimeError(f"status {p.returncode}") from None
        return until(ready, f"{self.processes[-1].args[0]} answers", 20, 0.05)

    def last_words(self, name):
        return self.path(f"{name}.log").read_text(errors="replace")[-1500:]

    def start(self, name):
        """A contestant by name, or None if it can't be had here."""
        host = str(self.dir) if name.endswith("-unix") else self.server_address
        port, kind = free_port(), name.split("-", maxsplit=1)[0]
        words = {"dir": self.dir, "address": self.proxy_address, "port": port, "host": host,
                 "server_port": self.port,
                 "database": DATABASE,
                 "protect_writes": "false" if name.endswith("-unprotected") else "true"}
        if kind == "direct":
            return Contestant(self, name, self.server_address, self.port)
        if kind == "pgbouncer":
            argv = ("pgbouncer", self.write(f"{name}.conf", PGBOUNCER.format(**words)))
        elif kind == "haproxy":
            argv = ("haproxy", "-db", "-f", self.write(f"{name}.conf", HAPROXY.format(**words)))
        else:
            argv = (HOLDFAST_PG, "-c", self.write(f"{name}.conf", HOLDFAST.format(**words)))
        program = shutil.which(argv[0])
        if not program:
            say(f"{name}: left out, there is no {argv[0]}")
            return None
        c = Contestant(self, name, self.proxy_address, port, self.spawn(name, program, *argv[1:]))
        try:
            self.wait_ready(c.session).close()
        except Exception as e:  # pylint: disable=broad-except
            say(f"{name}: left out, it does not let a client in: {e}\n{self.last_words(name)}")
            self.stop(c.process)
            return None
        self.quiet(c)
        return c

    def set(self, name, value):
        self.own.query(f"alter system set {name} = {value}")
        self.own.query("select pg_reload_conf()")

    def quiet(self, contestant=None):
        """Until the server connections of the last run are gone; PgBouncer would keep them, warm, for
        the next."""
        if contestant and contestant.name.startswith("pgbouncer"):
            console = Session(connect(str(self.dir), contestant.port), "postgres", "pgbouncer")
            console.query("RECONNECT")
            console.close()
        until(lambda: self.own.query("select count(*) from pg_stat_activity where usename in "
                                     f"('{USER}', '{PASSWORD_USER}')") == [["0"]],
              "all server connections have ended", 30, 0.05)

    def stop(self, process, wait=20.0):
        """SIGINT is a fast shutdown for PostgreSQL, and at once for who would drain."""
        if process.poll() is None:
            if process is self.processes[0]:
                process.send_signal(2)
            else:
                process.terminate()
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def down(self):
        if self.own:
            self.own.close()
        for p in reversed(self.processes):
            self.stop(p)
        shutil.rmtree(self.dir, ignore_errors=True)


def idle_sessions(rig, name, count, first=100):
    """KiB that an idle plaintext session takes, what the first ones take for good left out."""
    c = rig.start(name)
    if not c:
        return None
    sessions = []
    try:
        for k in range(first + count):
            if k == first:
                time.sleep(0.5)
                before = c.rss_kib()
            s = c.session()
            s.query("select 1")  # a server connection is its own from now on
            sessions.append(s)
        time.sleep(0.5)
        return {"rss_kib": (c.rss_kib() - before) / count, "sessions": count}
    finally:
        for s in sessions:
            s.close()
        rig.stop(c.process)
        rig.quiet()
