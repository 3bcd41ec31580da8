"""Several holdfast-sip in the lab: three hosts on Corosync with a server each, an edge beside them, PostgreSQL outside of all, and
clients on the client host: agents of our own, sipp, sipsak, baresip."""
import contextlib
import json
import os
import pathlib
import re
import select
import socket
import ssl
import subprocess
import threading

from lab import ROOT, STATE, Lab
from network import in_network
from postgres import Rig as PostgresRig
from sipserver import find
from sipua import Agent, take_call, tls_context

HOSTS = ("alpha", "beta", "gamma")
DOMAIN = "example.org"
PASSWORD = "secret"
CALLER = "caller"
# ports by the policy of those who listen there; those of the edge: for its clients, for the homes
PORT, TLS_PORT, PROXY_PORT, AUTO_PORT, EDGE_PORT, EDGE_INNER = 5060, 5061, 5070, 5080, 5090, 5092
EDGE_HOST = "gamma"
LOG = "/var/log/{}.log"
SIPP = ROOT / "tests/data/sipp"
DEADLINE = 60.0

CONF = """
sip {{
    name = "{name}"
    role = {role}
    domains = {{ "example.org" }}
    database = "{database}"
    group = "{group}"
    control = "/run/holdfast-sip/{name}.sock"
    workers = 2
}}
auth {{ algorithms = {{ MD5 }} }}
limits {{ source_rate = 1000000 }}
tls {{ cert_file = "{folder}/tls.pem"
 key_file = "{folder}/tls.key" }}
rebalance {{ {rebalance} }}
"""
LISTEN = """
listen {name} {{ transport = {transport}
 address = {address}:{port}
 policy = {policy}
 external = {external}
 {more} }}
"""
KINDS = [(t, PORT, "redirect") for t in ("udp", "tcp")] + [("tls", TLS_PORT, "redirect")] + [
    (t, p, policy) for t in ("udp", "tcp") for p, policy in ((PROXY_PORT, "proxy"), (AUTO_PORT, "auto"))]
# the example's, at this lab's address
SERVICE = ROOT / "doc/examples/sip/sip-alpha.conf"


class SipLab:
    """folder: for certificates and logs; the hosts read it, too. rebalance: that section of the configuration. edge_host: may be one of
    its own; None: no edge. services: each home has a service address, which another one takes over (S1). MD5 only: neither Debian's sipp
    nor baresip knows another, and sipp takes the first challenge."""

    def __init__(self, name, folder, rebalance="", edge_host=EDGE_HOST, services=False):
        self.lab, self.folder = Lab(name), pathlib.Path(folder)
        self.address, self.process = {}, {}
        self.clients, self.servers = [], {h: (h, "home") for h in HOSTS} | ({"edge": (edge_host, "edge")} if edge_host else {})
        self.database, self.rebalance = None, rebalance
        self.services, self.service = services, {}  # the latter: addresses, by their owners
        self.ends = contextlib.ExitStack()  # what it started
        self.unknown = iter(())  # users

    # --- from nothing to all is well ---

    def start(self):
        rig = self.ends.enter_context(PostgresRig())
        self.database = rig.server()
        self.ends.callback(self.stop_servers)
        self.ends.callback(self.lab.down)
        self.lab.up("-n", len(self.hosts()), "--engine", "corosync", "--token", 300)
        self.found()

    def hosts(self):
        return sorted({host for host, _ in self.servers.values()})

    def found(self):
        """In a lab that is up, with a database: all but these."""
        self.address = {h: self.lab.address(h) for h in (*self.hosts(), "client")}
        if self.services:
            net = self.address["alpha"].rpartition(".")[0]
            self.service = {h: f"{net}.{201 + i}" for i, h in enumerate(HOSTS)}
        self.make_certificate()
        self.make_group()
        for host in self.service:
            self.make_service(host)
        self.configure()
        self.lab.exec("alpha", find(), "-c", "/etc/holdfast/alpha.conf", "--init")
        for name in self.servers:
            self.start_server(name)
        self.until(self.is_whole, "all servers see each other, and one of them leads")

    def end(self):
        for c in self.clients:
            self.as_client(c.close)
        self.ends.close()
        assert not (STATE / self.lab.name).exists()

    def make_certificate(self):
        names = ",".join(f"IP:{a}" for a in (*self.address.values(), *self.service.values()))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=sip", "-addext", f"subjectAltName={names}", "-keyout", self.folder / "tls.key",
                        "-out", self.folder / "tls.pem"], check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def make_group(self):
        """Who of them leads: nothing else hangs on it."""
        self.lab.put("alpha", "/etc/holdfast/sip.conf", "resource lead {\n fence = none\n}\n")
        self.until(lambda: self.lab.exec("alpha", "holdfast", "group", "create", "sip", "/etc/holdfast/sip.conf"), "the group")
        self.until(lambda: self.lab.json("alpha", "group", "show", "sip")[0]["phase"] == "running", "the group runs")
        for host in HOSTS[1:]:
            self.lab.exec(host, "holdfast", "-t", "30", "group", "join", "sip")

    def make_service(self, owner):
        """The group of its address"""
        text = SERVICE.read_text(encoding="ascii")
        text, n = re.subn(r"ip = [0-9.]+", f"ip = {self.service[owner]}", text)
        assert n == 1
        name = f"sip-{owner}"
        self.lab.put(owner, f"/etc/holdfast/{name}.conf", text)
        self.lab.exec(owner, "holdfast", "group", "create", name, f"/etc/holdfast/{name}.conf")
        self.until(lambda: self.holds(owner, owner), f"{owner} has its address")
        for host in HOSTS:
            if host != owner:
                self.lab.exec(host, "holdfast", "-t", "30", "group", "join", name)

    def holds(self, host, owner):
        """Is this server's service address on this host?"""
        return f" {self.service[owner]}/" in self.lab.exec(host, "ip", "-4", "addr", "show", "dev", "eth0")

    def switch(self, owner, to):
        """Its service address goes there."""
        def asked():
            self.lab.exec(to, "holdfast", "-t", "30", "group", "switch", f"sip-{owner}", "--to", to)
            return True

        self.until(asked, f"{owner}'s address may go to {to}")  # which is a backup only a while after its boot
        self.until(lambda: self.holds(to, owner), f"{to} has {owner}'s address")

    def where(self, host):
        """The address by which clients know this server"""
        return self.service.get(host, self.address[host])

    def places(self, host, role):
        """Where a server listens: (transport, address, port, policy, external, more)"""
        at = self.address[host]
        if role == "edge":
            return [(t, at, p, "proxy", p == EDGE_PORT, "") for t in ("udp", "tcp") for p in (EDGE_PORT, EDGE_INNER)]
        called = f'host = "{self.service[host]}"' if self.service else ""
        places = [(*kind[:1], at, *kind[1:], False, called) for kind in KINDS]
        for owner in sorted(self.service, key=lambda o: o != host):  # its own first
            places += [(t, self.service[owner], p, policy, False, "elsewhere = true") for t, p, policy in KINDS if p != AUTO_PORT]
        return places

    def conninfo(self):
        return f"host={self.database.socket_dir} port={self.database.port} user=postgres dbname=postgres"

    def sql(self, text):
        """What the database says: a line for each row, with | between columns"""
        return self.database.psql(text)

    def configure(self):
        database = self.conninfo()
        for name, (host, role) in self.servers.items():
            text = CONF.format(name=name, role=role, database=database, folder=self.folder, group="sip" if role == "home" else "",
                               rebalance=self.rebalance)
            for i, (transport, address, port, policy, external, more) in enumerate(self.places(host, role)):
                text += LISTEN.format(name=f"l{i}", transport=transport, address=address, port=port, policy=policy,
                                      external=str(external).lower(), more=more)
            self.lab.put(host, f"/etc/holdfast/{name}.conf", text)

    # --- servers ---

    def start_server(self, name):
        host = self.servers[name][0]
        log = LOG.format(name)
        self.lab.exec(host, "sh", "-c", f": >{log}")
        self.process[name] = self.lab.popen(host, "sh", "-c", f"exec {find()} -c /etc/holdfast/{name}.conf >>{log} 2>&1",
                                            stdout=subprocess.DEVNULL)
        self.until(lambda: "serves with" in self.lab.get(host, log), f"{name} serves")

    def stop_servers(self):
        for p in self.process.values():
            p.terminate()
        for p in self.process.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(10)
            p.kill()
            p.wait()

    def power_off(self, host):
        self.lab.run("power-off", host)

    def boot(self, host):
        """With the servers on it, as systemd would have it"""
        self.lab.run("boot", host)
        for name, (at, _) in self.servers.items():
            if at == host:
                self.process[name].wait()
                self.start_server(name)

    def ask(self, name, command, **more):
        """One question on a server's control socket."""
        with self.control(name) as f:
            return self.say(f, command, **more)

    @contextlib.contextmanager
    def control(self, name):
        """For many questions on one connection."""
        pid = self.lab.init(self.servers[name][0])
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(DEADLINE)
            s.connect(f"/proc/{pid}/root/run/holdfast-sip/{name}.sock")
            with s.makefile("rw") as f:
                yield f

    @staticmethod
    def say(f, command, **more):
        f.write(json.dumps({"command": command, **more}) + "\n")
        f.flush()
        answer = json.loads(f.readline())
        assert answer["ok"], answer
        return answer

    def seen(self, name):
        """{server: what it tells of itself}, as this one has it"""
        return {s["name"]: s for s in self.ask(name, "servers")["servers"]}

    def leader(self):
        return next(s["name"] for s in self.seen("alpha" if "alpha" in self.alive() else "beta").values() if s.get("leads"))

    def alive(self):
        return [n for n, p in self.process.items() if p.poll() is None]

    def is_whole(self):
        for name in self.servers:
            seen = self.seen(name)
            if any(seen.get(n, {}).get("state") != "live" for n in self.servers):
                return False
        return self.leader() in self.servers

    def users(self, names):
        with self.control("alpha") as f:
            for n in names:
                self.say(f, "user-add", user=n, password=PASSWORD)

    def homes(self, name="alpha"):
        """{user: (home, current, epoch)} by the table"""
        rows = self.sql("SELECT aor, home, current, epoch FROM assignment").splitlines()
        rows = [r.split("|") for r in rows]
        return {r[0].removeprefix("sip:").split("@")[0]: (r[1], r[2], int(r[3])) for r in rows}

    def serving(self, user):
        return self.homes()[user][1]

    def other(self, user):
        """A home that is not this user's"""
        return next(h for h in HOSTS if h != self.serving(user))

    def move(self, user, to):
        self.ask(self.leader(), "assign", aor=f"sip:{user}@{DOMAIN}", server=to)

    def log(self, name, lines=40):
        with contextlib.suppress(Exception):
            return f"--- {name}\n" + self.lab.exec(self.servers[name][0], "tail", "-n", lines, LOG.format(name))
        return f"--- {name}: off\n"

    def story(self):
        return "".join(self.log(n) for n in self.servers)

    def until(self, condition, what, deadline=DEADLINE):
        try:
            Lab.until(condition, what, deadline)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.story()}") from e

    def forget(self, agents):
        for a in agents:
            self.clients.remove(a)
            self.as_client(a.close)

    # --- clients ---

    def as_client(self, fn):
        """fn() in a thread that is in the clients' network"""
        try:
            return in_network(self.lab.init("client"), fn)
        except Exception as e:
            raise AssertionError(f"{e!r}\n{self.story()}") from e

    def agent(self, user, host, port=PORT, transport="udp", **more):
        at = (self.where(host), TLS_PORT if transport == "tls" else port)
        context = tls_context(self.folder / "tls.pem") if transport == "tls" else None
        a = self.as_client(lambda: Agent(user, at, password=PASSWORD, local=self.address["client"], transport=transport,
                                         context=context, **more))
        self.clients.append(a)
        return a

    def sipp(self, scenario, user, host, port=PORT, transport="udp", **keys):
        """Runs a scenario of tests/data/sipp once, to its end. keys: of sipp's -key."""
        mode, at = ("un" if transport == "udp" else "tn"), f"{self.address[host]}:{port}"
        base = self.folder / f"{scenario}-{user}-{transport}"
        words = ["-sf", SIPP / f"{scenario}.xml", "-m", 1, "-s", user, "-au", user, "-ap", PASSWORD, "-i", self.address["client"],
                 "-t", mode, "-max_socket", 10, "-nostdin", "-recv_timeout", 20000, "-timeout", 40, "-timeout_error",
                 "-trace_err", "-error_file", f"{base}.err", "-trace_msg", "-message_file", f"{base}.messages", "-trace_logs",
                 "-log_file", f"{base}.log"]
        for k, v in ({"domain": DOMAIN, "via": transport.upper()} | keys).items():
            words += ["-key", k, v]
        for f in ("err", "messages", "log"):
            pathlib.Path(f"{base}.{f}").unlink(missing_ok=True)
        p = self.lab.run("exec", "client", "--", "env", "TERM=dumb", "sipp", *words, at, check=False)
        tail = "".join(pathlib.Path(f"{base}.{f}").read_text(errors="replace") for f in ("err", "messages")
                       if pathlib.Path(f"{base}.{f}").exists())
        assert p.returncode == 0, f"sipp {scenario} as {user}: {p.returncode}\n{tail}\n{self.story()}"
        log = pathlib.Path(f"{base}.log")
        return log.read_text(errors="replace") if log.exists() else ""

    @contextlib.contextmanager
    def tls_relay(self, host):
        """Debian's sipp has no TLS: a port on the client host that has it, with the certificate verified."""
        target = (self.address[host], TLS_PORT)
        listener = self.as_client(lambda: socket.create_server((self.address["client"], 0)))
        conns = []

        def relay(near, far):  # one thread for both ways: OpenSSL's objects are for one at a time
            ready = select.poll()
            for c in (near, far):
                ready.register(c, select.POLLIN)
            data = b"any"
            with contextlib.suppress(OSError):
                while data:
                    for fd, _ in ready.poll():
                        a, b = (near, far) if fd == near.fileno() else (far, near)
                        a.settimeout(0)
                        try:
                            data = a.recv(65536)  # with TLS a whole record: nothing stays behind
                        except (BlockingIOError, ssl.SSLWantReadError):  # a ticket
                            continue
                        b.settimeout(DEADLINE)
                        b.sendall(data)
            for c in (near, far):
                with contextlib.suppress(OSError):
                    c.shutdown(socket.SHUT_RDWR)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    near = listener.accept()[0]
                    far = socket.create_connection(target, DEADLINE)
                    far = tls_context(self.folder / "tls.pem").wrap_socket(far, server_hostname=target[0])
                    conns.extend((near, far))
                    threading.Thread(target=relay, args=(near, far), daemon=True).start()

        def start():
            t = threading.Thread(target=serve, daemon=True)
            t.start()
            return t

        thread = self.as_client(start)
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)
            for c in [listener, *conns]:
                c.close()


@contextlib.contextmanager
def running(name, folder, *words, users=(), **more):
    """A SipLab, all of it started; with users: these, whom no server has seen yet, and one who calls them."""
    sip = SipLab(f"{name}-{os.getpid()}", folder, *words, **more)
    try:
        sip.start()
        if users:
            sip.users([*users, CALLER])
        sip.unknown = iter(users)
        yield sip
    finally:
        sip.end()


def reaches(sip, caller, callee):
    """A message to the user arrives."""
    text = os.urandom(4).hex()
    m = caller.message(f"sip:{callee.user}@{DOMAIN}", text)
    assert m.status == 200, f"{m}\n{sip.story()}"
    while callee.next_request("MESSAGE").body != text:
        pass


def calls(sip, caller, callee, takes=take_call):
    """A call, to its end. takes: what answers it, if not the phone itself."""
    thread = takes(callee) if takes else None
    call = caller.call(f"sip:{callee.user}@{DOMAIN}")
    assert call.status == 200, f"{call}\n{sip.story()}"
    if thread:
        thread.join()
    assert call.bye().status == 200


class Softphone:
    """baresip, without a sound card; it does not follow a redirect, takes each call, and is told what to do by its console."""

    CONFIG = """
poll_method epoll
sip_listen {local}:{port}
audio_source aubridge,a
audio_player aubridge,a
audio_alert aubridge,a
module_path /usr/lib/baresip/modules
module stdio.so
module g711.so
module aubridge.so
module_tmp account.so
module_app menu.so
"""
    ACCOUNT = '<sip:{user}@{domain}>;auth_pass={password};outbound="sip:{server}";regint=600;answermode=auto\n'

    def __init__(self, lab, user, host, port):
        self.lab, self.user = lab, user
        folder = lab.folder / f"baresip-{user}"
        folder.mkdir()
        (folder / "config").write_text(self.CONFIG.format(local=lab.address["client"], port=5066))
        (folder / "accounts").write_text(self.ACCOUNT.format(user=user, domain=DOMAIN, password=PASSWORD,
                                                             server=f"{lab.address[host]}:{port}"))
        self.out = folder / "out"
        with open(self.out, "wb") as out:
            self.process = lab.lab.popen("client", "baresip", "-4", "-f", folder, "-s", stdin=subprocess.PIPE, stdout=out)

    def said(self, text):
        return text in self.out.read_text(errors="replace")

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def quit(self):
        """As its user does: it unregisters."""
        self.tell("/quit")
        self.process.wait(DEADLINE)

    def end(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
