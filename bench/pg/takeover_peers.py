#!/usr/bin/python3
"""How long clients stall, and what errors they get, when the host dies that has their connections: HAProxy before Patroni, and
PgBouncer, both with keepalived's address, as Debian has them, in the hosts of a lab; bench/README.md says how. Writes
bench/out/takeover-peers.json.

    takeover_peers.py [NAME]..."""
import os
import signal
import subprocess
import sys

from takeovers import SETTLE, measure
from common import HOSTS, STAMPS, BenchLab, save, say, until  # pylint: disable=wrong-import-order
from move_patroni import HAPROXY, MEMBERS, SETUPS, Patroni
from pgwire import Session  # pylint: disable=wrong-import-order

PORT = 6432
PROXIES = ("gamma", "delta")  # there, and no database
PLAN = {1: {"power_off": 5, "process": 3, "planned": 3}, 100: {"power_off": 10, "process": 5, "planned": 5}}

# advert: keepalived's default, and the least that people use
KEEPALIVED = """
global_defs {{
    router_id {host}
    vrrp_version 3
    vrrp_garp_master_delay 0
}}
vrrp_instance service {{
    state BACKUP
    interface eth0
    virtual_router_id 77
    priority {priority}
    advert_int {advert}
    nopreempt
    virtual_ipaddress {{
        {address}/32
    }}
}}
"""
PGBOUNCER = """[databases]
* = host={server} port=5432 auth_user=postgres
[pgbouncer]
listen_addr = *
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {shared}/users
pool_mode = session
max_client_conn = 3000
default_pool_size = 2500
ignore_startup_parameters = extra_float_digits
"""
ADVERTS = {"": 1, "_tuned": 0.1}


class Proxies:
    """The part with keepalived: proxies on two hosts, one of which has the address. Mixed in."""

    advert, program, port, stopped = 1, None, PORT, False

    def popen(self, host, *command, **kw):
        return self.lab.popen("exec", host, "--", *command, **kw)

    def start_proxies(self):
        self.address = self.lab.address(HOSTS[0]).rpartition(".")[0] + ".200"
        for host in PROXIES:
            (self.shared / f"keepalived-{host}.conf").write_text(KEEPALIVED.format(
                host=host, priority=100 + PROXIES.index(host), advert=self.advert, address=self.address), encoding="ascii")
            self.start_proxy(host)

    def start_proxy(self, host):
        """The proxy again at once when it dies, as systemd with Restart=always"""
        command = " ".join(map(str, self.proxy_command()))
        self.spawn(host, self.program, "sh", "-c", f"mkdir -p /run/keepalived; while :; do {command}; sleep 0.1; done")
        self.spawn(host, "keepalived", "keepalived", "--dont-fork", "--log-console", "-p", "/run/keepalived.pid", "-r", "/run/vrrp.pid",
                   "-f", f"{STAMPS}/keepalived-{host}.conf")

    def holder(self):
        """The host that has the address; None: nobody or both"""
        have = [h for h in PROXIES if self.on(h) and f" {self.address}/" in self.lab.on(h, "ip", "-o", "-4", "addr", "show", "dev", "eth0")]
        return have[0] if len(have) == 1 else None

    def on(self, host):
        return f"{host} " in self.lab.run("status") and self.lab.run("status").split(f"\n{host} ")[1].split()[0] == "on"

    def query(self, sql):
        s = Session(self.lab.connect(until(self.holder, "one host has the address", SETTLE, 0.3), PORT), timeout=60)
        try:
            return s.query(sql)
        finally:
            s.close()

    def watch(self):
        return lambda _: None

    def power_off(self, host):
        self.lab.power(f"off {host}")

    def process(self, host):
        self.lab.kill(host, self.program)

    def planned(self, host):
        """keepalived is stopped, so that the address goes, as its documentation has it"""
        self.stopped = True
        self.lab.on(host, "sh", "-c", "kill $(cat /run/keepalived.pid)")

    def restore(self, host):
        if not self.on(host):
            self.lab.run("boot", host)
            self.again(host)
        elif self.stopped:
            self.stopped = False
            until(lambda: not self.lab.pid(host, "keepalived"), "keepalived has stopped", SETTLE, 0.1)
            self.spawn(host, "keepalived", "keepalived", "--dont-fork", "--log-console", "-p", "/run/keepalived.pid", "-r", "/run/vrrp.pid",
                       "-f", f"{STAMPS}/keepalived-{host}.conf")

    def again(self, host):
        self.start_proxy(host)


class PatroniProxies(Proxies, Patroni):
    """HAProxy; copies of the database on alpha and beta; etcd on three hosts."""

    # those of proxies that lost power are never closed
    program, connections = "haproxy", 2600

    def proxy_command(self):
        return ["haproxy", "-db", "-f", f"{STAMPS}/proxy.cfg"]

    def spawn(self, host, name, *command):
        if (name, command[0]) != ("haproxy", "haproxy"):  # ours are others
            super().spawn(host, name, *command)

    def wait_whole(self):
        if not hasattr(self, "address"):
            super().wait_whole()
            at = {h: self.lab.address(h) for h in HOSTS}
            servers = "\n".join(f"    server {h} {at[h]}:5432 check port 8008" for h in MEMBERS)
            text = HAPROXY.replace("maxconn 100", "maxconn 3000").format(port=PORT, check=self.setup["check"], servers=servers)
            (self.shared / "proxy.cfg").write_text(text, encoding="ascii")
            self.start_proxies()
        until(lambda: self.primary() and self.holder(), "all is well", SETTLE, 0.3)
        return self.holder()

    def again(self, host):
        if host in HOSTS:
            self.start_daemons(host)
        super().again(host)


class PgBouncerProxies(Proxies):
    """PgBouncer; one database on alpha, which nothing happens to."""

    program = "pgbouncer"

    def __init__(self, lab, advert):
        self.lab, self.advert, self.processes = lab, advert, []
        self.shared = lab.state / "shared/1"

    def spawn(self, host, name, *command):
        with open(self.shared / f"{name}-{host}.log", "ab") as log:
            self.processes.append(self.lab.popen("exec", host, "--", *command, stdout=log, stderr=log))

    def proxy_command(self):
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "pgbouncer", f"{STAMPS}/pgbouncer.ini"]

    def up(self):
        self.lab.up("--no-daemon")
        binaries = "/usr/lib/postgresql/15/bin"
        self.lab.on(HOSTS[0], "install", "-d", "-m", "700", "-o", "postgres", "/srv/pg")
        self.lab.on(HOSTS[0], "runuser", "-u", "postgres", "--", f"{binaries}/initdb", "-D", "/srv/pg/data", "-A", "trust", "--locale=C.UTF-8")
        self.lab.on(HOSTS[0], "sh", "-c", "echo 'host all all 0.0.0.0/0 trust' >>/srv/pg/data/pg_hba.conf")
        self.spawn(HOSTS[0], "postgres", "runuser", "-u", "postgres", "--", f"{binaries}/postgres", "-D", "/srv/pg/data",
                   "-c", "listen_addresses=*", "-c", "unix_socket_directories=/srv/pg", "-c", "max_connections=2600")
        (self.shared / "pgbouncer.ini").write_text(PGBOUNCER.format(server=self.lab.address(HOSTS[0]), port=PORT, shared=STAMPS),
                                                   encoding="ascii")
        (self.shared / "users").write_text('"postgres" ""\n', encoding="ascii")
        self.start_proxies()
        self.wait_whole()

    def wait_whole(self):
        def there():
            try:
                return self.holder() and self.query("select 1") and all(self.lab.pid(h, "keepalived") for h in PROXIES) and self.holder()
            except OSError:
                return False
        return until(there, "all is well", SETTLE, 0.3)

    def complain(self):
        for log in sorted(self.shared.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)

    def down(self):
        self.lab.down()
        for p in self.processes:
            p.wait()


def contestants():
    made = 0

    def lab():
        nonlocal made
        made += 1
        one = BenchLab(f"tkp{os.getpid()}-{made}")
        one.hosts = (*HOSTS, "delta")
        return one

    for suffix, advert in ADVERTS.items():
        yield f"pgbouncer_keepalived{suffix}", PgBouncerProxies(lab(), advert)
    for (name, setup), advert in zip(SETUPS.items(), ADVERTS.values()):
        cluster = PatroniProxies(lab(), setup)
        cluster.advert = advert
        yield f"{name}_haproxy", cluster


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    out = {}
    for name, cluster in contestants():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        try:
            cluster.up()
            say(f"{name}: the cluster is up")
            out[name] = {"advert_s": cluster.advert, **measure(cluster, name, PLAN)}
        except (RuntimeError, subprocess.SubprocessError):
            cluster.complain()
            raise
        finally:
            cluster.down()
        save("takeover-peers.json", out)


if __name__ == "__main__":
    main()
