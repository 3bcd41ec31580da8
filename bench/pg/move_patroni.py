#!/usr/bin/python3
"""How long clients stall with Patroni, etcd and HAProxy as Debian has them, in the hosts of a lab; bench/README.md
says how. Writes bench/out/move-patroni.json."""
import http.client
import json
import os
import signal
import subprocess
import sys

from moves import PROXY, PROXY_PORT, SETTLE, measure
from common import HOSTS, STAMPS, BenchLab, save, say, until  # pylint: disable=wrong-import-order

MEMBERS = HOSTS[:2]  # with a copy of the database; etcd is on all three hosts, HAProxy on the third
REST = 8008
# dcs: Patroni's. check: HAProxy's, the first as Patroni's documentation has it
SETUPS = {
    "patroni": {"dcs": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10},
                "check": "inter 3s fall 3 rise 2"},
    # the least that its documentation allows; a server that died is given up, not started again
    "patroni_tuned": {"dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3,
                              "primary_start_timeout": 0},
                      "check": "inter 100ms fall 1 rise 1"},
}

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen primary
    bind *:{port}
    option httpchk
    http-check expect status 200
    default-server {check} on-marked-down shutdown-sessions
{servers}
"""


class Patroni:
    """Two copies of a database, one of them synchronous standby."""

    connections = 100  # PostgreSQL's default

    def __init__(self, lab, setup):
        self.lab, self.setup, self.processes = lab, setup, []
        self.shared = lab.state / "shared/1"
        self.period = setup["dcs"]["loop_wait"]

    def spawn(self, host, name, *command):
        with open(self.shared / f"{name}-{host}.log", "ab") as log:
            self.processes.append(self.lab.popen("exec", host, "--", *command, stdout=log, stderr=log))

    def up(self):
        self.lab.up("--no-daemon")
        at = {h: self.lab.address(h) for h in HOSTS}
        for h in HOSTS:
            self.start_daemons(h)
        servers = "\n".join(f"    server {h} {at[h]}:5432 maxconn 100 check port {REST}" for h in MEMBERS)
        (self.shared / "haproxy.cfg").write_text(
            HAPROXY.format(port=PROXY_PORT, check=self.setup["check"], servers=servers), encoding="ascii")
        self.spawn(PROXY, "haproxy", "haproxy", "-db", "-f", f"{STAMPS}/haproxy.cfg")
        self.wait_whole()

    def start_daemons(self, host):
        """etcd, and Patroni if it has a copy"""
        at = {h: self.lab.address(h) for h in HOSTS}
        peers = ",".join(f"{h}=http://{a}:2380" for h, a in at.items())
        self.spawn(host, "etcd", "etcd", "--name", host, "--data-dir", "/srv/etcd",
                   "--listen-peer-urls", f"http://{at[host]}:2380",
                   "--initial-advertise-peer-urls", f"http://{at[host]}:2380",
                   "--listen-client-urls", f"http://{at[host]}:2379",
                   "--advertise-client-urls", f"http://{at[host]}:2379", "--initial-cluster", peers)
        if host in MEMBERS:
            self.lab.on(host, "install", "-d", "-m", "700", "-o", "postgres", "-g", "postgres", "/srv/pg")
            (self.shared / f"patroni-{host}.yml").write_text(json.dumps(self.config(host, at)),
                                                             encoding="ascii")  # JSON is YAML
            self.spawn(host, "patroni", "runuser", "-u", "postgres", "--", "patroni",
                       f"{STAMPS}/patroni-{host}.yml")

    def config(self, host, at):
        login = {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"}}
        return {
            "scope": "bench", "name": host,
            "restapi": {"listen": f"0.0.0.0:{REST}", "connect_address": f"{at[host]}:{REST}"},
            "etcd3": {"hosts": [f"{a}:2379" for a in at.values()]},
            "bootstrap": {
                "dcs": {**self.setup["dcs"], "synchronous_mode": True,
                        "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                       "parameters": {"max_connections": self.connections}}},
                "initdb": [{"locale": "C.UTF-8"}, "data-checksums"]},
            "postgresql": {
                "listen": "0.0.0.0:5432", "connect_address": f"{at[host]}:5432",
                "data_dir": "/srv/pg/data", "bin_dir": "/usr/lib/postgresql/15/bin",
                "pgpass": "/srv/pg/pgpass", "authentication": login,
                "parameters": {"unix_socket_directories": "/srv/pg"},
                "pg_hba": ["local all all trust", "host all all 0.0.0.0/0 trust",
                           "host replication all 0.0.0.0/0 trust"]},
        }

    def rest(self, host, method, path, body=None):
        """(status, answer) of Patroni there, which is what patronictl asks, too."""
        c = http.client.HTTPConnection("localhost")
        c.sock = self.lab.connect(host, REST)
        c.sock.settimeout(SETTLE)
        try:
            c.request(method, path, json.dumps(body) if body else None)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def primary(self):
        """The host of the primary, if the other copy is its synchronous standby; or None."""
        try:
            _, text = self.rest(MEMBERS[0], "GET", "/cluster")
        except (OSError, http.client.HTTPException):
            return None
        members = {m["role"]: m for m in json.loads(text).get("members", [])
                   if m["state"] in ("running", "streaming")}
        if set(members) != {"leader", "sync_standby"}:
            return None
        return members["leader"]["name"]

    def wait_whole(self):
        return until(self.primary, "a primary and a synchronous standby", SETTLE, 0.2)

    def switch(self, source):
        target = next(h for h in MEMBERS if h != source)
        status, text = self.rest(source, "POST", "/switchover", {"leader": source, "candidate": target})
        if status != 200:
            raise RuntimeError(f"switchover: {status} {text}")

    def crash(self, source):
        self.lab.on(source, "sh", "-c", "kill -KILL $(head -n 1 /srv/pg/data/postmaster.pid)")

    def complain(self):
        for log in sorted(self.shared.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)

    def down(self):
        self.lab.down()
        for p in self.processes:
            p.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    out = {}
    for name, setup in SETUPS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        cluster = Patroni(BenchLab(f"mvp{os.getpid()}"), setup)
        try:
            cluster.up()
            say(f"{name}: the cluster is up")
            out[name] = {**setup["dcs"], **measure(cluster, name)}
        except (RuntimeError, subprocess.SubprocessError):
            cluster.complain()
            raise
        finally:
            cluster.down()
        save("move-patroni.json", out)


if __name__ == "__main__":
    main()
