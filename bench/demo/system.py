"""What make demo raises in the lab: the rig of the take-over tests (three hosts on Corosync, a database with two copies, a service
address), with a SIP server on each host whose assignments are in that database; and a door to the dashboard."""
import contextlib
import pathlib
import select
import socket
import socketserver
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/system"))
import takeover  # noqa: E402 # pylint: disable=wrong-import-position
from lab import Failed, Lab  # noqa: E402 # pylint: disable=wrong-import-position
from sipserver import find  # noqa: E402 # pylint: disable=wrong-import-position

HOSTS, DATABASE, SERVICE = takeover.HOSTS, takeover.DATABASE, takeover.SERVICE
SIP_GROUP, DOMAIN, PASSWORD = "sip", "example.org", "secret"
PORT, PROXY_PORT = 5060, 5070
DASHBOARD = 7481
DEADLINE = 60.0

# patience: in this story the operator says when
SIP = """
sip {{
    name = {host}
    domains = {{ {domain} }}
    group = {group}
    database = "host={address} port={pg_port} user=postgres dbname=postgres"
}}
auth {{ algorithms = {{ SHA-256 }} }}
rebalance {{ patience = 10m  settle = 5s  rate_to = 20 }}
listen clients {{ transport = udp  address = {own}:{port}  policy = redirect }}
listen calls {{ transport = udp  address = {own}:{proxy_port}  policy = proxy }}
"""
SIP_CONF = "/etc/holdfast/holdfast-sip.conf"
# as systemd would, from when its configuration is there
SUPERVISE_SIP = """mkdir -p /run/holdfast-sip
while :; do [ ! -e {conf} ] || {program} -c {conf}; sleep 0.2; done >>/var/log/holdfast-sip.log 2>&1 &
"""


class System(takeover.Rig):
    """The whole of it"""

    def __init__(self, name):
        super().__init__(Lab(name))
        self.sip_program = find("holdfast-sip")
        self.supervise = SUPERVISE_SIP.format(conf=SIP_CONF, program=self.sip_program) + takeover.SUPERVISE

    def start_sip(self, users):
        """The servers, and those who may register"""
        for host in HOSTS:
            text = SIP.format(host=host, domain=DOMAIN, group=SIP_GROUP, address=self.address, pg_port=takeover.PORT, own=self.own[host],
                              port=PORT, proxy_port=PROXY_PORT)
            self.lab.put(host, "/etc/holdfast/new.conf", text)
        self.lab.exec("alpha", self.sip_program, "-c", "/etc/holdfast/new.conf", "--init")
        for host in HOSTS:
            self.on(host, "mv", "/etc/holdfast/new.conf", SIP_CONF)
        self.create(SIP_GROUP, "resource lead {\n    fence = none\n}\n")
        for host in HOSTS:
            self.until(lambda h=host: self.sip_live(h) == set(HOSTS), f"{host} sees all SIP servers")
        script = f'for u; do holdfast sip user add "$u" <<<{PASSWORD} || exit; done'
        self.lab.exec("alpha", "bash", "-c", script, "add", *users)

    def sip_live(self, host):
        """The SIP servers that this host takes for live"""
        return {s["name"] for s in self.lab.json(host, "sip", "servers")["servers"] if s["state"] == "live"}

    def protected(self):
        """(sessions at the service address, how many of them its backup has)"""
        rows = [r for r in self.protection() if r["database"] == "postgres"]
        return len(rows), sum(r["backup"] != "" and not r["backup_reason"] for r in rows)

    def story(self, lines=25):
        text = [super().story(lines)]
        for host in HOSTS:
            with contextlib.suppress(Failed):
                text += [f"--- holdfast-sip on {host}", self.on(host, "tail", "-n", str(lines), "/var/log/holdfast-sip.log")]
        return "\n".join(text)

    def in_network(self, host, fn):
        """Call fn in a thread that is in a host's network, as sockets have to be made there."""
        got = []

        def call():
            with contextlib.suppress(OSError):
                takeover.enter_network(self.init(host))
                got.append(fn())

        t = threading.Thread(target=call)
        t.start()
        t.join()
        return got[0] if got else None

    def to_dashboard(self):
        """A connection to the dashboard of a host that is on, or None"""
        for host in HOSTS:
            if self.init(host):
                s = self.in_network(host, lambda: socket.create_connection(("127.0.0.1", DASHBOARD), 5))
                if s:
                    return s
        return None


class Door(socketserver.ThreadingTCPServer):
    """A port of this machine's loopback that leads to the dashboard, for its browser. Nothing else is reached through it, and by
    nobody from outside."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, system):
        self.system = system
        try:
            super().__init__(("127.0.0.1", DASHBOARD), Passage)
        except OSError:  # somebody has it
            super().__init__(("127.0.0.1", 0), Passage)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A browser that goes, or a host: no news"""


class Passage(socketserver.BaseRequestHandler):
    """One connection, until either side ends it"""

    def handle(self):
        there = self.server.system.to_dashboard()
        if there is None:
            return
        with there:
            there.settimeout(None)
            to = {self.request: there, there: self.request}
            while True:
                for s in select.select(list(to), [], [])[0]:
                    data = s.recv(65536)
                    if not data:
                        return
                    to[s].sendall(data)
