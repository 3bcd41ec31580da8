"""Who is measured by bench/sip/run: holdfast-sip and Kamailio, and what they need, on loopback."""
import csv
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "failover")]
from common import until  # noqa: E402 # pylint: disable=wrong-import-position
from host import ROOT, cpu_s, memory_mb  # noqa: E402 # pylint: disable=wrong-import-position

BUILD = ROOT / "build"
SIPLOAD = BUILD / "bench/sip/sipload"
DOMAIN, PASSWORD = "example.org", "secret"
HERE_PREFIX, AWAY_PREFIX = "u", "r"  # users of the server that is measured; of another one
EDGE = "127.0.0.2"
WORKERS = 2
BUFFER = 4 << 20
CONNECTIONS = 40000

HOLDFASTD = """
cluster {{ key_file = "{dir}/key" }}
host {{ name = "alpha" }}
directory {{
    transport = unicast
    listen = 127.0.0.1
    port = {port}
    peers = {{ "127.0.0.1" }} # itself: it is alone
    listen_wait = 1ms
    sync_wait = 1ms
}}
http {{ listen = none }}
control {{ socket = "{dir}/holdfastd.sock" }}
"""

HOLDFAST = """
sip {{
    name = "alpha"
    domains = {{ "{domain}" }}
    database = "sqlite:{dir}/sip.db"
    key_file = ""
    control = "{dir}/{name}.sock"
    group = "{group}"
    workers = {workers}
    trusted_edges = {{ "{edge}" }}
}}
auth {{
    required = {auth}
    algorithms = {{ "SHA-256" }}
    nonce_life = 3600s
}}
limits {{ source_rate = 1000000000
    connections = {connections} }}
tls {{ cert_file = "{dir}/cert.pem"
    key_file = "{dir}/key.pem" }}
listen udp {{ transport = udp
    address = 127.0.0.1:{udp} }}
listen tcp {{ transport = tcp
    address = 127.0.0.1:{udp} }}
listen tls {{ transport = tls
    address = 127.0.0.1:{tls} }}
"""

# As a registrar with a table of homes is written for it, in memory: the cheapest way for each case.
KAMAILIO = """#!KAMAILIO
debug=-1
log_stderror=yes
fork=yes
children={workers}
tcp_children={workers}
tcp_max_connections={connections}
tls_max_connections={connections}
tcp_connection_lifetime=3600
tcp_accept_no_cl=yes
max_while_loops=10000000
auto_aliases=no
dns=no
rev_dns=no
maxbuffer={buffer}
enable_tls=yes
listen=udp:127.0.0.1:{udp}
listen=tcp:127.0.0.1:{udp}
listen=tls:127.0.0.1:{tls}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "tls.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "textopsx.so"
loadmodule "siputils.so"
loadmodule "htable.so"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "hash_size", 16)
modparam("usrloc", "use_domain", 0)
modparam("registrar", "default_expires", 3600)
modparam("htable", "htable", "home=>size=15;")
modparam("htable", "htable", "ha1=>size=15;")
modparam("auth", "algorithm", "SHA-256")
modparam("auth", "qop", "auth")
modparam("auth", "nonce_expire", 3600)
modparam("auth", "nonce_count", 1)
modparam("tls", "config", "{dir}/tls.cfg")
event_route[htable:mod-init] {{
    $var(i) = 0;
    while ($var(i) < {users}) {{
        $var(n) = 1000000 + $var(i);
        $var(away) = "sip:{away}" + $(var(n){{s.substr,1,6}}) + "@{domain}";
        $sht(home=>$var(away)) = "sip:127.0.0.1:{sink}";
        $var(u) = "{here}" + $(var(n){{s.substr,1,6}});
        $var(text) = $var(u) + ":{domain}:{password}";
        $sht(ha1=>$var(u)) = $(var(text){{s.sha256}});
        $var(i) = $var(i) + 1;
    }}
}}
request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (!is_method("REGISTER")) {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
    {auth}
    $var(home) = $sht(home=>$tu);
    if ($var(home) != $null && $var(home) != 0) {{
        if ($hdrc(Via) > 1) {{
            $du = $var(home);
            forward();
            exit;
        }}
        append_to_reply("Contact: <$var(home)>;q=0.7\\r\\n");
        sl_send_reply("302", "Moved Temporarily");
        exit;
    }}
    if (!save("location")) {{ sl_reply_error(); }}
}}
"""
KAMAILIO_TLS = """[server:default]
method = TLSv1.2+
certificate = {dir}/cert.pem
private_key = {dir}/key.pem
"""
KAMAILIO_AUTH = """if (!pv_auth_check("{domain}", "$sht(ha1=>$au)", "1", "1")) {{
        www_challenge("{domain}", "1");
        exit;
    }}"""


def free_port():
    """For UDP and TCP alike, as far as anybody can know."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as u, socket.socket() as t:
            u.bind(("127.0.0.1", 0))
            try:
                t.bind(u.getsockname())
            except OSError:
                continue
            return u.getsockname()[1]


class Process:
    """A program of the bench, its output in a file."""

    def __init__(self, name, log, *argv, env=None, piped=False):
        self.name, self.log = name, pathlib.Path(log)
        with open(log, "wb") as f:
            self.p = subprocess.Popen([str(a) for a in argv], stderr=f, stdout=subprocess.PIPE if piped else f,
                                      stdin=subprocess.PIPE if piped else subprocess.DEVNULL, text=piped,
                                      env={**os.environ, **(env or {})})

    @property
    def pid(self):
        return self.p.pid

    def line(self, text=None):
        """Say something, and what it answers."""
        if text is not None:
            self.p.stdin.write(text + "\n")
            self.p.stdin.flush()
        answer = self.p.stdout.readline()
        if not answer:
            self.p.wait(10)
            raise RuntimeError(f"{self.name} ended with {self.p.returncode}: {self.said()}")
        return answer.rstrip("\n")

    def said(self):
        return self.log.read_text(errors="replace")[-2000:]

    def alive(self):
        if self.p.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.p.returncode}: {self.said()}")
        return True

    def stop(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(20)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        for f in (self.p.stdin, self.p.stdout):
            if f:
                f.close()


def family(pid):
    """A process and its descendants."""
    out = [pid]
    for p in out:
        for task in os.listdir(f"/proc/{p}/task"):
            with open(f"/proc/{p}/task/{task}/children", encoding="ascii") as f:
                out += map(int, f.read().split())
    return out


class Contestant:
    """A server under way: where it listens, and what it has used so far."""

    def __init__(self, process, udp, tls):
        self.process, self.udp, self.tls = process, udp, tls

    def at(self, transport):
        return f"127.0.0.1:{self.tls if transport == 'tls' else self.udp}"

    def cpu_s(self):
        self.process.alive()
        return sum(map(cpu_s, family(self.process.pid)))

    def memory_kib(self):
        return sum(memory_mb(p)["Pss"] for p in family(self.process.pid)) * 1e6 / 1024


class Rig:
    """A folder, holdfastd with another server in its tree, that server, and the contestants."""

    def __init__(self, users):
        self.users, self.all = users, []
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bench-sip-"))
        try:
            self._certificate()
            self.sink = free_port()
            self.run("another home", SIPLOAD, "serve", f"127.0.0.1:{self.sink}", piped=True).line()
            self._directory()
            self._database()
        except BaseException:
            self.close()
            raise

    def close(self):
        self.end_since(0)
        shutil.rmtree(self.dir)

    def end_since(self, n):
        """All programs but the first n."""
        while len(self.all) > n:
            self.all.pop().stop()

    def run(self, name, *argv, **kw):
        p = Process(name, self.dir / f"{name.replace(' ', '-')}-{len(self.all)}.log", *argv, **kw)
        self.all.append(p)
        return p

    def end(self, p):
        p.stop()
        self.all.remove(p)

    def _certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048",
                        "-nodes", "-days", "2", "-subj", "/CN=sip", "-keyout", "key.pem", "-out", "cert.pem"],
                       cwd=self.dir, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _directory(self):
        """A tree with another home server in it, to which redirects point."""
        self.socket = self.dir / "holdfastd.sock"
        subprocess.run([BUILD / "src/ctl/holdfast", "keygen", self.dir / "key"], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)
        conf = self.dir / "holdfast.conf"
        conf.write_text(HOLDFASTD.format(dir=self.dir, port=free_port()))
        p = self.run("holdfastd", BUILD / "src/hostd/holdfastd", "-c", conf)
        until(lambda: p.alive() and self.socket.exists(), "holdfastd", 20)
        server = f'{{"udp":"127.0.0.1:{self.sink}","host":"127.0.0.1","port":{self.sink},"role":"home",' \
                 f'"weight":100,"state":"live"}}'
        self.run("publish", BUILD / "src/ctl/holdfast", "-s", self.socket, "publish", "/sip/servers/beta", server)

    def _users(self, prefix):
        return [f"{prefix}{i:06}" for i in range(self.users)]

    def _database(self):
        """Users with the digests of their passwords, and assignments, which only a leader imports."""
        conf = self.dir / "init.conf"
        conf.write_text(self._holdfast_conf("init", True, free_port(), free_port(), group=""))
        subprocess.run([BUILD / "src/sip/holdfast-sip", "-c", conf, "--init"], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)
        def row(u):
            return u, DOMAIN, f"sip:{u}@{DOMAIN}", hashlib.sha256(f"{u}:{DOMAIN}:{PASSWORD}".encode()).digest()
        db = sqlite3.connect(self.dir / "sip.db")
        db.executemany("insert into users (username, realm, aor, sha256) values (?, ?, ?, ?)",
                       map(row, self._users(HERE_PREFIX)))
        db.commit()
        db.close()
        with open(self.dir / "rows.csv", "w", newline="", encoding="ascii") as f:
            w = csv.writer(f)
            w.writerow(["aor", "home"])
            for prefix, server in ((HERE_PREFIX, "alpha"), (AWAY_PREFIX, "beta")):
                w.writerows((f"sip:{u}@{DOMAIN}", server) for u in self._users(prefix))
        p = self._start("init", conf, self.dir / "alone")
        said = self._ctl("init", "import", self.dir / "rows.csv")
        if said.returncode:
            raise RuntimeError(f"import: {said.stdout}{said.stderr}")
        self.end(p)

    def _holdfast_conf(self, name, auth, udp, tls, group="nobody"):
        """In a group that is not there, so that nobody leads, and nobody moves users."""
        return HOLDFAST.format(dir=self.dir, name=name, auth=str(auth).lower(), udp=udp, tls=tls, edge=EDGE,
                               domain=DOMAIN, workers=WORKERS, connections=CONNECTIONS, group=group)

    def _start(self, name, conf, tree):
        p = self.run(name, BUILD / "src/sip/holdfast-sip", "-c", conf, env={"HOLDFAST_SOCKET": str(tree)})
        until(lambda: p.alive() and (self.dir / f"{name}.sock").exists() and "serves with" in p.said(), name, 20)
        return p

    def _ctl(self, name, *words):
        return subprocess.run([BUILD / "src/ctl/holdfast", "-s", self.dir / f"{name}.sock", "sip", *words],
                              check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)

    def holdfast(self, auth):
        name = f"holdfast-{'auth' if auth else 'open'}"
        udp, tls = free_port(), free_port()
        conf = self.dir / f"{name}.conf"
        conf.write_text(self._holdfast_conf(name, auth, udp, tls))
        p = self._start(name, conf, self.socket)
        until(lambda: "beta" in self._ctl(name, "servers").stdout, "the other server in the tree", 20)
        return Contestant(p, udp, tls)

    def kamailio(self, auth):
        if not shutil.which("kamailio"):
            return None
        name = f"kamailio-{'auth' if auth else 'open'}"
        udp, tls = free_port(), free_port()
        conf, run = self.dir / f"{name}.cfg", self.dir / name
        run.mkdir(exist_ok=True)
        (self.dir / "tls.cfg").write_text(KAMAILIO_TLS.format(dir=self.dir))
        conf.write_text(KAMAILIO.format(dir=self.dir, udp=udp, tls=tls, workers=WORKERS, buffer=BUFFER,
                                        users=self.users, away=AWAY_PREFIX, here=HERE_PREFIX, domain=DOMAIN,
                                        password=PASSWORD, sink=self.sink, connections=CONNECTIONS,
                                        auth=KAMAILIO_AUTH.format(domain=DOMAIN) if auth else ""))
        p = self.run(name, shutil.which("kamailio"), "-DD", "-E", "-f", conf, "-m", "1024", "-M", "16",
                     "-P", run / "pid", "-Y", run)
        def listens():
            with socket.socket() as s:
                return p.alive() and s.connect_ex(("127.0.0.1", udp)) == 0
        until(listens, name, 60)
        time.sleep(0.5)  # the others of its processes
        return Contestant(p, udp, tls)
