"""The contestants on hosts of a network: client, database, proxy, and alpha and beta, whose holdfast-pg
are a pair with a service address, each session of which is protected by the other. Hosts are network
namespaces with a cable to a bridge; what a group would tell the managers is told here."""
import os
import secrets
import socket
import subprocess
import time

from contestants import (BIN, DATABASE, HOLDFAST, HOLDFAST_PG, USER, Contestant, Rig, connect, free_port)
from common import median, say, until  # from bench/failover # pylint: disable=wrong-import-position
from host import entered  # pylint: disable=wrong-import-position
from pgwire import Session  # pylint: disable=wrong-import-position

HOSTS = {"client": "10.9.8.1", "database": "10.9.8.2", "proxy": "10.9.8.3", "alpha": "10.9.8.4",
         "beta": "10.9.8.5"}
SERVICE = "10.9.8.100"
PROTECTED = "holdfast-protected"
BRIDGE_NETFILTER = tuple(f"/proc/sys/net/bridge/bridge-nf-call-{t}tables" for t in ("arp", "ip", "ip6"))
PINGS, PING_SIZE = 3000, 100

MANAGER_SERVICE = """
service {{
    address = "{service}:{service_port}"
    interface = eth0
    prefix_length = 24
    key_file = "{dir}/key"
    host = {host}
    control = "{dir}/{host}.control"
}}
"""


class Network:
    """HOSTS; down() may always be called."""

    def __init__(self):
        self.prefix, self.made = f"hf-bench-{os.getpid()}-", []

    def name(self, host):
        return self.prefix + host

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def up(self):
        for host in ("switch", *HOSTS):
            self.ip("netns", "add", self.name(host))
            self.made.append(host)
            self.ip("-n", self.name(host), "link", "set", "lo", "up")
        switch = self.name("switch")
        for path in BRIDGE_NETFILTER:  # a switch costs hosts nothing
            subprocess.run(self.argv("switch", "sh", "-c", f"[ ! -e {path} ] || echo 0 >{path}"), check=True)
        self.ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        self.ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in HOSTS.items():
            self.ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns",
                    self.name(host))
            self.ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            self.ip("-n", self.name(host), "addr", "add", f"{address}/24", "dev", "eth0")
            self.ip("-n", self.name(host), "link", "set", "eth0", "up")

    def down(self):
        for host in self.made:
            subprocess.run(["ip", "netns", "del", self.name(host)], check=False)
        self.made = []

    def argv(self, host, *argv):
        """To run a command there; the process is the same."""
        return ("nsenter", f"--net=/run/netns/{self.name(host)}", "--", *argv)

    def entered(self, host):
        """This thread is there."""
        return entered(f"/run/netns/{self.name(host)}")


class Pair(Contestant):
    """holdfast-pg on alpha, protected by that on beta."""

    def __init__(self, rig, port, console_port, managers):
        super().__init__(rig, PROTECTED, SERVICE, port, managers["alpha"])
        self.console_port, self.managers, self.seen = console_port, managers, None

    def processes(self):
        return {"cpu_us": self.managers["alpha"], "backup_cpu_us": self.managers["beta"]}

    def last_words(self):
        return "\n".join(f"{host}:\n{self.rig.last_words(host)}" for host in self.managers)

    def console(self, host, command):
        """Rows, as dicts."""
        with self.rig.network.entered(host):
            s = connect(HOSTS[host], self.console_port)
        session = Session(s, "postgres", "holdfast")
        try:
            return [dict(zip(session.columns, row)) for row in session.query(command)]
        finally:
            session.close()

    def beside(self):
        return {"pair_rtt_us": self.rig.round_trip_us(),
                "pair_beat_us": float(self.console("alpha", "SHOW SERVICE")[0]["rtt_ms"]) * 1e3}

    def look(self, clients):
        """Each of them is protected by beta, which has them."""
        rows = [r for r in self.console("alpha", "SHOW PROTECTION") if r["user"] == USER]
        bare = [r for r in rows if r["backup"] != "beta" or r["backup_reason"]]
        if len(rows) != clients or bare:
            return f"{len(rows) - len(bare)} of {clients} sessions are protected: {bare[:1]}"
        state = self.console("alpha", "SHOW SERVICE")[0]["state"]
        kept = int(self.console("beta", "SHOW SERVICE")[0]["sessions"])
        if state != "in sync" or kept < clients:
            return f"the pair is {state}, the backup has {kept} of {clients}"
        return ""


class PairRig(Rig):
    """The server on `database`, other proxies on `proxy`, pgbench on `client`."""

    server_address, proxy_address, net = HOSTS["database"], HOSTS["proxy"], "10.9.8.0/24"

    def __init__(self):
        super().__init__(connections=300)
        self.network = Network()
        self.pgbench = self.network.argv("client", BIN / "pgbench")

    def up(self, scale):
        self.network.up()
        super().up(scale)

    def down(self):
        super().down()
        self.network.down()

    def connect(self, host, port):
        with self.network.entered("client"):
            return connect(host, port)

    def spawn(self, name, *argv):
        """As user postgres, unless it minds a service address."""
        host = {"postgresql": "database", "alpha": "alpha", "beta": "beta"}.get(name, "proxy")
        if host in ("database", "proxy"):
            argv = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv)
        with open(self.path(f"{name}.log"), "ab") as log:
            p = subprocess.Popen([str(a) for a in self.network.argv(host, *argv)], cwd=self.dir,
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(p)
        return p

    def start(self, name):
        return super().start(name) if name != PROTECTED else self.start_pair()

    def start_pair(self):
        self.path("key").write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        self.path("key").chmod(0o600)
        console_port, port = free_port(), free_port()
        managers = {}
        try:
            for host in ("alpha", "beta"):
                words = {"dir": self.dir, "address": HOSTS[host], "port": console_port,
                         "host": self.server_address, "server_port": self.port, "database": DATABASE,
                         "protect_writes": "true"}
                text = HOLDFAST.format(**words) + MANAGER_SERVICE.format(
                    service=SERVICE, service_port=port, dir=self.dir, host=host)
                text = text.replace("pg {", "pg {\n    admin_users = { postgres }")
                managers[host] = self.spawn(host, HOLDFAST_PG, "-c", self.write(f"{host}.conf", text))
                self.wait_ready(lambda h=host: self.ask(h, "monitor"))
                self.ask(host, "start")
            self.pair()
            c = Pair(self, port, console_port, managers)
            self.wait_ready(c.session).close()
        except Exception as e:  # pylint: disable=broad-except
            say(f"{PROTECTED}: left out: {e}")
            for host, p in managers.items():
                say(f"{host}:\n{self.last_words(host)}")
                self.stop(p)
            return None
        self.quiet(c)
        return c

    def ask(self, host, action, **words):
        """What the group's agent would; its answer."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.path(f"{host}.control")))
            s.sendall("".join(f"{w}\n" for w in (action, *(f"{k} {v}" for k, v in words.items()), "")).encode())
            return b"".join(iter(lambda: s.recv(4096), b"")).decode()

    def pair(self):
        """alpha is the primary, and beta recorded as its backup."""
        def mirror(mode):
            return self.ask("alpha", "mirror-source", epoch=1, mirrors=f"copyb=beta@{HOSTS['beta']}={mode}")

        self.ask("alpha", "promote", epoch=1)
        self.ask("alpha", "open", epoch=1)
        mirror("async")
        self.ask("beta", "mirror-target", epoch=1, source=f"copya=alpha@{HOSTS['alpha']}")
        until(lambda: "caught-up" in self.ask("alpha", "mirror-state", resource="copya"),
              "the backup has everything", 20, 0.05)
        mirror("grow")
        mirror("sync")

    def round_trip_us(self):
        """Of some bytes between alpha and beta, by TCP and two small programs: median."""
        with self.network.entered("beta"), socket.create_server((HOSTS["beta"], 0)) as server, \
                self.network.entered("alpha"):
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        with ours, theirs:
            for s in (ours, theirs):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return ping(ours, theirs)


def ping(ours, theirs):
    """us from sending to the answer; theirs answers in a process of its own, and on a CPU of its own, as
    hosts have."""
    cpus = sorted(os.sched_getaffinity(0))
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, cpus[-1:])
        ours.close()
        while piece := theirs.recv(PING_SIZE):
            theirs.sendall(piece)
        os._exit(0)
    took = []
    os.sched_setaffinity(0, cpus[:1])
    for _ in range(PINGS):
        begin = time.perf_counter()
        ours.sendall(bytes(PING_SIZE))
        ours.recv(PING_SIZE)
        took.append((time.perf_counter() - begin) * 1e6)
    os.sched_setaffinity(0, cpus)
    ours.shutdown(socket.SHUT_WR)
    os.waitpid(child, 0)
    return median(took)
