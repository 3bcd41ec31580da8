"""Three holdfast-sip of one cluster in the lab: homes, redirects, proxying, and the death of a server."""
import contextlib
import json
import os
import pathlib
import subprocess

import pytest
from conftest import make_lab
from lab import STATE
from network import in_network
from sipserver import find
from sipua import Agent

HOSTS = ("alpha", "beta", "gamma")
USERS = [f"user{i}" for i in range(12)]
PROXY_PORT = 5070
CONF = """
sip {{
    domains = {{ "example.org" }}
    database = "sqlite:/srv/sip/sip.db"
    group = "sip"
    workers = 2
}}
listen udp {{ transport = udp
 address = {address} }}
listen tcp {{ transport = tcp
 address = {address} }}
listen proxied {{ transport = udp
 address = {address}:5070
 policy = proxy }}
"""
LOG = "/var/log/holdfast-sip.log"


class Cluster:
    def __init__(self, lab):
        self.lab, self.address, self.process = lab, {}, {}

    def start(self, host):
        self.address[host] = self.lab.address(host)
        self.lab.put(host, "/etc/holdfast/holdfast-sip.conf", CONF.format(address=self.address[host]))
        self.process[host] = self.lab.popen(host, "sh", "-c", f"exec {find()} >>{LOG} 2>&1", stdout=subprocess.DEVNULL)
        self.lab.until(lambda: "serves with" in self.lab.get(host, LOG), f"holdfast-sip of {host} serves")

    def end(self):
        for p in self.process.values():
            p.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(10)
            p.kill()
            p.wait()

    def sip(self, host, *words, stdin=None):
        return self.lab.exec(host, "holdfast", "sip", *words, stdin=stdin)

    def servers(self, host):
        return {s["name"]: s for s in json.loads(self.sip(host, "servers", "--json"))["servers"]}

    def leader(self):
        return next(h for h in HOSTS if self.servers(h).get(h, {}).get("leads"))

    def homes(self, host="alpha"):
        """{user: the server that serves him now}"""
        lines = [line.split(",") for line in self.sip(host, "export").splitlines()]
        head = next(i for i, line in enumerate(lines) if "current" in line)
        at = lines[head].index("current"), lines[head].index("aor")
        return {row[at[1]].split(":")[1].split("@")[0]: row[at[0]] for row in lines[head + 1:]}

    def story(self):
        text = ""
        for host in HOSTS:
            with contextlib.suppress(Exception):
                text += f"--- {host}\n" + self.lab.exec(host, "tail", "-n", "40", LOG)
        return text


@pytest.fixture(name="cluster", scope="module")
def fixture_cluster(request):
    lab = make_lab(request)
    lab.up("-n", "3", "--engine", "corosync", "--shared", "alpha,beta,gamma:/srv/sip")
    c = Cluster(lab)
    request.addfinalizer(c.end)
    lab.put("alpha", "/tmp/sip", "resource lead {\n fence = none\n}\n")
    lab.until(lambda: lab.run("exec", "alpha", "--", "holdfast", "group", "create", "sip", "/tmp/sip",
                              check=False).returncode == 0, "the group")
    lab.until(lambda: "running" in lab.exec("alpha", "holdfast", "group", "show"), "the group runs")
    for host in ("beta", "gamma"):
        lab.exec(host, "holdfast", "-t", "30", "group", "join", "sip")
    for host in HOSTS:
        c.start(host)
    lab.until(lambda: all(set(c.servers(h)) == set(HOSTS) for h in HOSTS), "all servers see each other")
    lab.until(c.leader, "somebody leads")
    for user in USERS:
        c.sip("alpha", "user", "add", user, stdin="secret\n")
    return c


@pytest.fixture(name="client")
def fixture_client(cluster):
    """Runs functions in a thread that is in the clients' network; agents are to be made there."""
    agents = []

    def call(fn):
        try:
            return in_network(cluster.lab.init("client"), fn)
        except Exception as e:
            raise AssertionError(f"{e!r}\n{cluster.story()}") from e

    def agent(user, host, port=5060, **more):
        local = cluster.lab.address("client")
        a = call(lambda: Agent(user, (cluster.address[host], port), password="secret", local=local, **more))
        agents.append(a)
        return a

    call.agent = agent
    yield call
    for a in agents:
        call(a.close)


def register_all(client, host, **more):
    agents = {user: client.agent(user, host, **more) for user in USERS}
    for a in agents.values():
        m = client(a.register)
        assert m.status == 200, (a.user, m)
    return agents


def reach_all(client, cluster, agents, through):
    caller = client.agent(USERS[0], through, port=PROXY_PORT)
    for a in agents.values():
        text = os.urandom(4).hex()
        m = client(lambda a=a, text=text: caller.message(a.aor, text))
        assert m.status == 200, f"{a.user}: {m}\n{cluster.story()}"
        while client(lambda a=a: a.next_request("MESSAGE")).body != text:
            pass


def test_redirected(cluster, client):
    """Each ends at its home by one redirect at most, and is found from everywhere."""
    agents = register_all(client, "alpha")
    homes = cluster.homes()
    assert {homes[u] for u in USERS} <= set(HOSTS)
    assert sum(a.redirects for a in agents.values()) == sum(homes[u] != "alpha" for u in USERS)
    for user, a in agents.items():
        assert a.server[0] == cluster.address[homes[user]]
    for host in HOSTS:
        reach_all(client, cluster, agents, host)
    for a in agents.values():
        assert client(lambda a=a: a.register(expires=0)).status == 200


def test_proxied(cluster, client):
    """Who does not follow a redirect, and is not given one, ends registered all the same."""
    agents = register_all(client, "beta", port=PROXY_PORT, follows=False)
    assert not any(a.redirects for a in agents.values())
    reach_all(client, cluster, agents, "gamma")
    for a in agents.values():
        assert client(lambda a=a: a.register(expires=0)).status == 200


def test_drained(cluster, client):
    """Its users are moved to others, with their bindings; then it takes users again."""
    agents = register_all(client, "alpha")
    leader = cluster.leader()
    other = next(h for h in HOSTS if h != leader)
    p = cluster.lab.run("exec", other, "--", "holdfast", "sip", "plan", check=False)
    assert p.returncode != 0 and f"ask on {leader}, " in p.stderr, p
    cluster.sip("beta", "drain")
    try:
        cluster.lab.until(lambda: "beta" not in cluster.homes().values(), "beta is empty", 60)
        reach_all(client, cluster, agents, "alpha")
    finally:
        cluster.sip("beta", "undrain")
    assert cluster.leader() == leader


def test_moved_while_it_rings(cluster, client):
    """A call rings while its callee goes to another home: who cancels it is heard."""
    callee = client.agent("user1", "alpha")
    assert client(callee.register_alone).status == 200
    caller = client.agent("user0", "alpha", port=PROXY_PORT)
    leader = cluster.leader()

    def move(host):
        cluster.sip(leader, "assign", "user1", host)

        def comes_from_there():  # so alpha knows, too
            return (client(lambda: caller.message(callee.aor, "where?")).status == 200 and
                    callee.next_request("MESSAGE").peer[0] == cluster.address[host])
        cluster.lab.until(comes_from_there, f"user1 is called by {host}")

    move("beta")
    call, invite = caller.invite(callee.aor)
    ringing = callee.next_request("INVITE")
    callee.answer(ringing, 180, "Ringing")
    while caller.response(call, final=False).status != 180:
        pass
    move("gamma")
    cancel = caller.of_its_transaction("CANCEL", invite)
    callee.next_request("CANCEL")
    assert caller.response(cancel).status in (200, 481)  # beta's and gamma's: whose comes first
    callee.answer(ringing, 487, "Request Terminated")
    refused = caller.response(call)
    assert refused.status == 487
    caller.of_its_transaction("ACK", invite, refused.tag("To"))


def no_leader(cluster):
    """A server that does not lead; it gets a third of the users, if they are not there"""
    leader = cluster.leader()
    victim = next(h for h in ("gamma", "alpha", "beta") if h != leader)
    for user in USERS[::3]:
        cluster.sip(leader, "assign", user, victim)
    cluster.lab.until(lambda: all(cluster.homes()[u] == victim for u in USERS[::3]), f"{victim} has users")
    return victim


def told_by_the_group(cluster, hosts, victim):
    """How often each of them was told so of the victim"""
    return [cluster.lab.get(h, LOG).count(f"server {victim} is gone: the group has lost its host") for h in hosts]


def test_cut_off(cluster, client):
    """A host is cut off, and lives, with the database: its users are the others' as soon as the group has lost it; when it is back nobody
    has two homes."""
    agents = register_all(client, "alpha")
    victim = no_leader(cluster)
    others = [h for h in HOSTS if h != victim]
    told = told_by_the_group(cluster, others, victim)
    cluster.lab.run("cut", victim)
    try:
        cluster.lab.until(lambda: victim not in cluster.homes(others[0]).values(), f"{victim} has nobody any more", 60)
        reach_all(client, cluster, agents, others[0])
        assert told_by_the_group(cluster, others, victim) == [n + 1 for n in told], cluster.story()
        cluster.lab.until_apart(HOSTS, [victim])
    finally:
        cluster.lab.run("heal", victim)
    cluster.lab.until(lambda: all(s.get("state") == "live" for h in HOSTS for s in cluster.servers(h).values()), "all see each other", 60)
    cluster.lab.until(lambda: all(m["present"] for h in HOSTS for m in cluster.lab.json(h, "group", "show", "sip")[0]["hosts"]),
                      "the group is whole again", 60)
    for a in agents.values():
        assert client(a.register).status == 200, f"{a.user}\n{cluster.story()}"
    homes = cluster.homes()
    for user, a in agents.items():
        assert a.server[0] == cluster.address[homes[user]]
    for host in HOSTS:
        reach_all(client, cluster, agents, host)


def test_server_dies(cluster, client):
    """The power goes: its users are others', who know their bindings."""
    agents = register_all(client, "alpha")
    victim = no_leader(cluster)
    before = cluster.homes()
    others = [h for h in HOSTS if h != victim]
    told = told_by_the_group(cluster, others, victim)
    cluster.lab.run("power-off", victim)
    cluster.lab.until(lambda: victim not in cluster.homes(others[0]).values(), f"{victim} has nobody any more", 60)
    after = cluster.homes(others[0])
    assert all(after[u] == before[u] for u in USERS if before[u] != victim)  # no other client moved
    assert told_by_the_group(cluster, others, victim) == [n + 1 for n in told], cluster.story()
    reach_all(client, cluster, agents, others[0])
    assert pathlib.Path(STATE / cluster.lab.name).exists()
