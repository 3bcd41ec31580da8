"""A rig for take-overs: a lab of three hosts on Corosync with a client host outside. Group `orders` is a database with a
copy on alpha and one on beta, which mirror each other; gamma votes. Group `pgvip` is the service address: a
holdfast-pg on each host is a copy of it. What a test does to the hosts, and how it waits until all is well again."""
import collections
import contextlib
import csv
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pgwire
from lab import ROOT, STATE, Failed, Lab
from network import enter_network, in_network
from postgres import find_program

HOSTS = ("alpha", "beta", "gamma")
COPIES = {"alpha": "copy1", "beta": "copy2"}  # of the database
DATABASE, SERVICE = "orders", "pgvip"
PORT = 6432
PEER_PORT = 6434
COROSYNC_PORT = 5405
TOKEN = 300  # ms
BOOT_WAIT = 8  # s
DEADLINE = 60.0
CLOCK = "var/lib/step-clock"
STEP_CLOCK = ROOT / "build/tests/support/step-clock.so"

HOLDFAST = f"""
cluster {{ key_file = "/etc/holdfast/cluster.key" }}
host {{ name = "@NAME@"  address = @ADDRESS@ }}
control {{ group = "postgres" }}
directory {{ interface = "eth0" }}
engine {{ type = @ENGINE@ }}
group {{ boot_wait = {BOOT_WAIT}s }}
log {{ trace = {{ proc }} }}
fence power {{ agent = "fence_holdfast_lab"  hosts = {{ "*" }} timeout = 10s }}
"""
COPY = """
resource {name} {{
    agent = "ocf:holdfast:postgresql"
    params {{
        pgdata = "/srv/{name}/data"
        volume = "/srv/{name}"
        config = "/etc/holdfast/postgresql.conf"
        clients = "10.0.0.0/8"
        client_auth = trust
        mirror_networks = "10.0.0.0/8"
        replication_auth = trust
        initdb_options = "--locale=C.UTF-8 --wal-segsize=4"
    }}
    probe = {{ pgdata, volume }}
}}
"""
# A copy is what is in the memory of the holdfast-pg of its host.
MANAGER_COPY = """
resource {name} {{
    agent = "ocf:holdfast:pg"
    params {{
        control = "/run/holdfast-pg/{name}"
        program = "{program}"
    }}
    probe = {{ control, program }}
    {more}
}}
"""
MANAGER = """
pg {{
    listen = {{ {own}:{port} }}
    unix_socket_dir = "/run/holdfast-pg"
    metrics_listen = {own}:9632
    admin_users = {{ postgres }}
}}
auth {{ hba_file = "/etc/holdfast/hba"  file = "/etc/holdfast/users"  user = postgres }}
session {{ hold_timeout = 60s }}
servers {{ group = {database} }}
"""
HBA = """
local all all trust
host all mary all scram-sha-256
host all all all trust
"""
USERS = '"mary" "secret"\n'
MANAGER_SERVICE = """
service {{
    address = {address}
    interface = eth0
    host = {host}
    key_file = "/etc/holdfast/cluster.key"
    control = "/run/holdfast-pg/{host}"
}}
"""
MANAGER_TLS = """
client_tls {
    sslmode = prefer
    cert_file = "/etc/holdfast/server.crt"
    key_file = "/etc/holdfast/server.key"
}
"""
CERTIFICATE = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=takeover", "-keyout", "/etc/holdfast/server.key", "-out", "/etc/holdfast/server.crt")
# systemd's Restart=always
SUPERVISE = "mkdir -p /run/holdfast-pg; while :; do {program} -c /etc/holdfast/holdfast-pg.conf; sleep 0.05; done >>{log} 2>&1"
LOG = "/var/log/holdfast-pg.log"


def descriptors(pid):
    """What a process has open, by kind; its TCP connections by their state: an established one is its peer's matter, too"""
    states = {}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            states[words[9]] = "established" if words[3] == "01" else "listening" if words[3] == "0A" else "ending"
    kinds = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            inode = re.fullmatch(r"socket:\[(\d+)\]", name)
            kinds[f"tcp {states[inode[1]]}" if inode and inode[1] in states else re.sub(r":?\[?\d+\]?$", "", name)] += 1
    return kinds


class Connection(pgwire.Connection):
    """A session of a client with these socket options and, while it connects, sysctls (tcpmove.KINDS). To be made in a
    thread that is in the clients' network."""

    sysctl_lock = threading.Lock()

    def __init__(self, host, options=(), sysctl=(), **kw):
        self.socket_options, self.sysctl = options, sysctl
        super().__init__(host=host, port=PORT, **kw)

    def connect(self):
        if isinstance(self.address, str):
            return super().connect()
        s = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        for level, name, value in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *self.socket_options):
            s.setsockopt(level, name, value)
        s.settimeout(self.timeout)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.sysctl_lock)  # others' are in force for all
            for name, value in self.sysctl:
                path = pathlib.Path(f"/proc/sys/net/ipv4/{name}")
                stack.callback(path.write_text, path.read_text(encoding="ascii"), encoding="ascii")
                path.write_text(str(value), encoding="ascii")
            s.connect(self.address)
        return s


class Capture:
    """Who answered for the address, as the clients' host saw it. Ended by hosts(), or end()."""

    def __init__(self, rig):
        self.rig, self.told = rig, None
        self.process = rig.lab.popen("client", "/usr/bin/python3", "-B", ROOT / "tests/system/capture.py", "eth0", rig.address,
                                     stdin=subprocess.PIPE)
        assert self.process.stdout.readline() == "listening\n", self.process.communicate()

    def end(self):
        """{"runs": [[host, first, last, {kind: frames}, {kind: first}]]}, and "dropped": how many frames are missing in it"""
        if self.told is None:
            text, _ = self.process.communicate("\n", timeout=30)
            self.told = json.loads(text)
            for run in self.told["runs"]:
                run[0] = self.rig.host_of_mac(run[0])
        return self.told

    def hosts(self, kinds=("data", "ack", "rst", "arp", "other")):
        """The hosts that answered, in order; one that begins again after another is there twice."""
        hosts = []
        for host, _, _, seen, _ in self.end()["runs"]:
            if any(k in seen for k in kinds) and hosts[-1:] != [host]:
                hosts.append(host)
        return hosts


class Rig:
    """service: False leaves the group pgvip out: clients talk to the holdfast-pg on gamma, which nothing happens to.
    fencing: False: hosts are not fenced for the sake of pgvip, the lease must silence them. connections: the database's limit.
    tls: clients may have it, and are unprotected then."""

    supervise = SUPERVISE
    token = TOKEN
    database_configuration = ""

    def __init__(self, lab, v6=False, fencing=True, service=True, lease=None, connections=300, tls=False):
        self.lab, self.v6, self.fencing, self.service, self.lease = lab, v6, fencing, service, lease
        self.connections, self.tls = connections, tls
        self.managers = {}
        self.own, self.macs = {}, {}
        self.address = None
        self.captures = []

    # --- from nothing to all is well ---

    def start(self):
        template = pathlib.Path(f"/tmp/{self.lab.name}.conf")
        template.write_text(HOLDFAST, encoding="ascii")
        try:
            self.lab.up("-n", len(HOSTS), "--engine", "corosync", "--token", self.token, "--config", template,
                        *(w for d in self.disks() for w in ("--shared", d)))
        finally:
            template.unlink()
        self.prepare()
        for host in HOSTS:
            self.own[host] = self.lab.address(host)
            link = json.loads(self.lab.exec(host, "ip", "-j", "link", "show", "dev", "eth0"))
            self.macs[link[0]["address"]] = host
        net = self.lab.address("client", self.v6)
        self.address = (net.rpartition("::")[0] + "::c8" if self.v6 else net.rpartition(".")[0] + ".200")
        if not self.service:
            self.address = self.own["gamma"]
        self.start_database()
        for host in HOSTS:
            if self.tls:
                self.lab.exec(host, *CERTIFICATE)
            self.lab.put(host, "/etc/holdfast/holdfast-pg.conf", self.manager_configuration(host))
            self.lab.put(host, "/etc/holdfast/hba", HBA)
            self.lab.put(host, "/etc/holdfast/users", USERS)
            self.start_manager(host)
        if self.service:
            self.start_service()
        self.whole()

    def disks(self):
        """As the lab's --shared takes them"""
        return [f"{h}:/srv/{c}" for h, c in COPIES.items()]

    def prepare(self):
        """What the hosts of this rig have beside the lab's"""

    def give_clocks(self):
        """For prepare(): what is started from now on has its host's clock, which can be set."""
        for host in HOSTS:
            self.lab.exec(host, "sh", "-c", f"head -c 8 /dev/zero >/{CLOCK}; chmod 644 /{CLOCK}; install {STEP_CLOCK} /etc/step-clock.so;"
                          " echo /etc/step-clock.so >/etc/ld.so.preload")

    def step_clock(self, host, seconds):
        """To so much beside the machine's"""
        with open(f"/proc/{self.init(host)}/root/{CLOCK}", "r+b") as f:
            f.write(int(seconds * 1e9).to_bytes(8, sys.byteorder, signed=True))

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def start_database(self):
        for host, copy in COPIES.items():
            self.lab.exec(host, "chown", "postgres:", f"/srv/{copy}")
            self.lab.put(host, "/etc/holdfast/postgresql.conf", f"max_connections = {self.connections}\n{self.database_configuration}")
        self.create(DATABASE, "".join(COPY.format(name=c) for c in COPIES.values()))

    def start_service(self):
        more = "" if self.fencing else "fence = none"
        self.create(SERVICE, "".join(MANAGER_COPY.format(name=h, program=find_program("holdfast-pg"), more=more) for h in HOSTS))

    def create(self, group, text):
        self.lab.put("alpha", f"/etc/holdfast/{group}.conf", text)
        self.lab.exec("alpha", "holdfast", "group", "create", group, f"/etc/holdfast/{group}.conf")
        self.lab.until(lambda: self.show("alpha", group)["phase"] == "running", f"{group} runs on alpha", DEADLINE)
        for host in HOSTS[1:]:
            self.lab.exec(host, "holdfast", "-t", "30", "group", "join", group)

    def manager_configuration(self, host):
        text = MANAGER.format(own=self.own[host], port=PORT, database=DATABASE) + (MANAGER_TLS if self.tls else "")
        if self.service:
            address = f"[{self.address}]:{PORT}" if self.v6 else f"{self.address}:{PORT}"
            text += MANAGER_SERVICE.format(address=address, host=host)
            if self.lease:
                text = text.rstrip().removesuffix("}") + f"    lease = {self.lease}\n}}\n"
        return text

    def end(self):
        for c in self.captures:
            c.process.kill()
            c.process.communicate()
        self.lab.down()
        for p in self.managers.values():
            p.kill()
            p.wait()
        assert not (STATE / self.lab.name).exists()

    # --- processes ---

    def start_manager(self, host):
        """holdfast-pg, and again when it dies; also while the host is still booting."""
        if old := self.managers.pop(host, None):
            old.kill()
            old.wait()
        command = self.supervise.format(program=find_program("holdfast-pg"), log=LOG)
        self.managers[host] = self.lab.popen(host, "sh", "-c", command, stdout=subprocess.DEVNULL)

    def attend(self, host):
        """As systemd would: what belongs on a host that is on runs there, whoever switched it on."""
        if self.managers[host].poll() is not None or not self.pids(host, "sh"):
            self.start_manager(host)

    def stop_manager(self, host):
        """It does not start again."""
        for pid in self.pids(host, "sh"):  # the one that would start it
            with contextlib.suppress(OSError):
                if b"holdfast-pg" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        self.kill_manager(host)

    def init(self, host):
        """The machine's pid of the host's first process; None: it is off."""
        try:
            pid, start = (STATE / self.lab.name / "hosts" / host / "init").read_text().split()
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(pid) if stat[19] == start and stat[0] not in "ZX" else None
        except (OSError, ValueError):  # it is just being written
            return None

    def pids(self, host, program):
        """The machine's pids of a program on a host."""
        if not (init := self.init(host)):
            return []
        found, space = [], os.readlink(f"/proc/{init}/ns/pid")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if (pathlib.Path(f"/proc/{pid}/comm").read_text().rstrip() == program[:15]
                        and os.readlink(f"/proc/{pid}/ns/pid") == space):
                    found.append(int(pid))
        return found

    def manager(self, host):
        """The pid of its holdfast-pg itself (not of an agent's other end)"""
        for pid in self.pids(host, "holdfast-pg"):
            with contextlib.suppress(OSError):
                if b"--agent" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise Failed(f"no holdfast-pg on {host}")

    def log(self, host):
        with contextlib.suppress(OSError):
            return (STATE / self.lab.name / "hosts" / host / f"fs{LOG}").read_text(errors="replace")
        return ""

    def story(self, lines=25):
        """For whoever reads that a test failed."""
        text = []
        for group in (DATABASE, SERVICE)[:1 + self.service]:
            for host in HOSTS:
                if self.init(host):
                    for words in (("show", group), ("history", group)):
                        with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                            text += ["", *self.on(host, "holdfast", "group", *words).splitlines()[-lines:]]
                    break
        for host in HOSTS:
            text += [f"--- holdfast-pg on {host}", *self.log(host).splitlines()[-lines:]]
        return "\n".join(text)

    def sessions(self):
        """What there is to see of the clients' connections, both ends: for who looks why one hangs."""
        text = []
        for host, side in ((self.serving() if self.service else "gamma", "sport"), ("client", "dport")):
            text += [f"--- {host}", self.on(host, "ss", "-tinoH", f"{side} = :{PORT}")]
            if side == "sport":
                for what in ("CLIENTS", "PROTECTION", "COUNTERS"):
                    text.append(self.console(host, f"SHOW {what}"))
        return "\n".join(text)

    def on(self, host, *command, timeout=10):
        """A short command; faster than lab.exec, and it ends when the host hangs."""
        if not (init := self.init(host)):
            raise Failed(f"{host} is off")
        try:
            p = subprocess.run(["nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "--", "timeout", str(timeout), *command],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout + 5, check=False,
                               env=os.environ | {"PATH": f"{os.environ.get('HOLDFAST_BIN', '')}:{ROOT}/build/src/ctl:"
                                                         f"{os.environ['PATH']}:/usr/sbin:/sbin"})
        except subprocess.TimeoutExpired as e:
            raise Failed(str(e)) from e
        if p.returncode:
            raise Failed(f"{host}: {' '.join(map(str, command))}: {p.returncode} {p.stdout}{p.stderr}")
        return p.stdout

    # --- what the groups say ---

    def show(self, host, group):
        return json.loads(self.on(host, "holdfast", "group", "show", group, "--json"))[0]

    def shown(self, group):
        """As a member says that takes part, with quorum"""
        why = "all hosts are off"
        for host in reversed(HOSTS):
            try:
                g = self.show(host, group)
                if g["standing"] == "in" and g["quorate"]:
                    return g
                why = f"{host} is {g['standing']}"
            except Failed as e:
                why = str(e)
        raise Failed(why)

    def serving(self, group=SERVICE):
        g = self.shown(group)
        if g["phase"] != "running":
            raise Failed(f"{group} is {g['phase']}")
        return g["primary"]["host"]

    def backup(self):
        """The host whose manager is in S beside the serving one"""
        g = self.shown(SERVICE)
        names = [n for n in g["in_sync"] if n != g["primary"]["resource"]]
        if not names:
            raise Failed(f"nobody protects {g['primary']['host']}")
        return names[0]

    def epoch(self, group=SERVICE):
        return self.shown(group)["epoch"]

    def role(self, host):
        """Of its manager: primary, backup, stopped"""
        return self.console(host, "SHOW SERVICE").splitlines()[1].split(",")[0]

    def console(self, host, command):
        return self.on(host, "psql", "-XqAw", "--csv", "-c", command, f"host={self.own[host]} port={PORT} user=postgres dbname=holdfast")

    def rows(self, what, host=None):
        """Of a SHOW, as dicts; asked at the (serving) host's own address."""
        return list(csv.DictReader(self.console(host or self.serving(), f"SHOW {what}").splitlines()))

    def protection(self, host=None):
        return self.rows("PROTECTION", host)

    def metrics(self, host=None):
        """{name with labels: value}"""
        host = host or self.serving()
        text = self.on(host, "curl", "-sf", f"http://{self.own[host]}:9632/metrics")
        return {name: float(v) for name, _, v in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}

    def is_whole(self):
        """Everything runs, with a spare for each; raises if not even that can be told."""
        g = self.shown(DATABASE)
        if g["phase"] != "running" or set(g["in_sync"]) != set(COPIES.values()) or not self.present(g):
            return False
        if not self.service:
            return True
        g = self.shown(SERVICE)
        return g["phase"] == "running" and len(g["in_sync"]) >= 2 and self.present(g)

    @staticmethod
    def present(g):
        return sum(h["present"] for h in g["hosts"]) == len(HOSTS)

    def repair(self):
        """What is the operator's to do: who is off is switched on."""
        for host in HOSTS:
            if not self.init(host):
                self.boot(host)
            else:
                self.attend(host)

    def whole(self, deadline=DEADLINE):
        """Until all is well, by nobody's doing but the operator's."""
        def there():
            self.repair()
            return self.is_whole()

        self.until(there, "all is well again", deadline)

    def until(self, condition, what, deadline=DEADLINE):
        end, last = time.monotonic() + deadline, None
        while True:
            try:
                if condition():
                    return
                last = None
            except (Failed, OSError, ValueError, KeyError, IndexError) as e:
                last = e
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline} s: {what} ({last})\n{self.story()}")
            time.sleep(0.1)

    def until_serving(self, host, deadline=DEADLINE):
        """host: None is any, otherwise its name, or a set of names"""
        hosts = HOSTS if host is None else {host} if isinstance(host, str) else host
        self.until(lambda: self.serving() in hosts, f"{host} serves", deadline)
        return self.serving()

    def until_elsewhere(self, host, deadline=DEADLINE):
        """Until another host than this one serves; which."""
        return self.until_serving(set(HOSTS) - {host}, deadline)

    # --- what happens ---

    def power_off(self, host):
        self.lab.run("power-off", host)

    def boot(self, host):
        """Its holdfast-pg starts beside its other daemons, as systemd would have it."""
        self.lab.run("heal", host)
        p = subprocess.Popen([self.lab.tool, "--name", self.lab.name, "boot", host], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not self.init(host) and p.poll() is None:
            time.sleep(0.01)
        if self.init(host):
            self.start_manager(host)
        text, _ = p.communicate(timeout=90)
        if p.returncode:
            raise Failed(f"boot {host}: {text}")

    def kill_manager(self, host):
        os.kill(self.manager(host), signal.SIGKILL)

    def freeze(self, host):
        self.lab.run("freeze", host)

    def thaw(self, host):
        """False if there is nothing left to thaw"""
        return self.lab.run("thaw", host, check=False).returncode == 0

    def switch(self, to=None):
        words = ("--to", to) if to else ()
        self.lab.exec(self.serving(), "holdfast", "-t", "30", "group", "switch", SERVICE, *words)

    def let_back(self, host):
        """It is the backup. One that is in its stead is out of the way meanwhile; whole() brings that back."""
        if self.backup() != host:
            self.stop_manager(self.backup())
            self.until(lambda: self.backup() == host, f"{host} is the backup")

    def let_serve(self, host):
        """Planned"""
        if self.serving() == host:
            return
        self.let_back(host)
        self.switch(host)
        self.until_serving(host)

    def cut(self, host, what="cable"):
        """what: cable; pair, the connections between managers; cluster, Corosync's; others, all but clients"""
        if what == "cable":
            self.lab.run("cut", host)
        else:
            self.in_switch(self.cutting(host, what))

    @staticmethod
    def cutting(host, what):
        rules = {
            "pair": [f"tcp {d} {PEER_PORT}" for d in ("sport", "dport")],
            "cluster": [f"udp {d} {COROSYNC_PORT}" for d in ("sport", "dport")],
        }.get(what)
        ports = [f'{mine} "{host}" {theirs} "{h}"' for mine, theirs in (("iifname", "oifname"), ("oifname", "iifname"))
                 for h in HOSTS if h != host]
        lines = [f"{p} {r} drop" for p in ports for r in rules or [""]]
        return "\n".join(["table bridge cut {", "chain forward {", "type filter hook forward priority 0;", *lines, "}", "}", ""])

    def until_apart(self, *hosts):
        self.lab.until_apart(HOSTS, hosts)

    def heal(self, host=None, but=None):
        """All that was cut, also the cable of that host, but not the cluster's traffic of this one"""
        self.in_switch("add table bridge cut\ndelete table bridge cut\n" + (self.cutting(but, "cluster") if but else ""))
        if host:
            self.lab.run("heal", host)

    def in_switch(self, rules):
        """nftables of the network's switch, where no program of a host notices anything"""
        pid = (STATE / self.lab.name / "switch").read_text().split()[0]
        p = subprocess.run(["nsenter", "-t", pid, "-n", "--", "nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
        if p.returncode:
            raise Failed(f"{rules}: {p.stderr}")

    # --- clients ---

    def in_clients_network(self):
        """The calling thread's sockets are the client host's from now on."""
        enter_network(self.init("client"))

    def as_client(self, fn):
        """fn() in a thread that is in the clients' network"""
        return in_network(self.init("client"), fn)

    def connect(self, **kw):
        """A session of a client"""
        kw.setdefault("timeout", 60)
        return self.as_client(lambda: Connection(self.address, **kw))

    def client(self, *command, **kw):
        """A program on the client host; the caller ends it."""
        return self.lab.popen("client", *command, **kw)

    def capture(self):
        self.captures.append(Capture(self))
        return self.captures[-1]

    def host_of_mac(self, mac):
        return self.macs.get(mac, mac)


def rig_for(name, **kw):
    """A rig with a lab of its own, of this process"""
    return Rig(Lab(f"{name}-{os.getpid()}"), **kw)
