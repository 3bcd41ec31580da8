"""The address agent in network namespaces: two hosts and a client on one bridge."""
import os
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

from agent import (AGENTS, CONFIGURED, GENERIC, INSTALLED, NOT_RUNNING, OK, ROOT, UNIMPLEMENTED, run_agent,
                   until)

V4, V6 = "10.99.0.50", "fd99::50"
STALE = "02:00:00:00:00:99"
PATH = f"{ROOT}/build/src/announce:{os.environ.get('HOLDFAST_BIN', '')}:{os.environ['PATH']}"


def ip(*args, ns=None, check=True):
    p = subprocess.run(["ip", *(("-n", ns) if ns else ()), *args], capture_output=True, text=True,
                       check=False)
    assert not check or p.returncode == 0, p.stderr
    return p.stdout


class Net:
    """Namespaces "client" with a bridge, and two hosts, each with an eth0 in it."""

    def __init__(self):
        tag = f"hf-address-{os.getpid()}"
        self.client, *self.hosts = (f"{tag}-{n}" for n in ("client", "alpha", "beta"))
        for ns in (self.client, *self.hosts):
            ip("netns", "add", ns)
        ip("link", "add", "br0", "type", "bridge", ns=self.client)
        ip("link", "set", "br0", "up", ns=self.client)
        ip("addr", "add", "10.99.0.1/24", "dev", "br0", ns=self.client)
        ip("addr", "add", "fd99::1/64", "dev", "br0", "nodad", ns=self.client)
        for n, ns in enumerate(self.hosts):
            ip("link", "add", f"port{n}", "type", "veth", "peer", "name", "eth0", "netns", ns,
               ns=self.client)
            ip("link", "set", f"port{n}", "master", "br0", "up", ns=self.client)
            ip("link", "set", "eth0", "up", ns=ns)
            ip("addr", "add", f"10.99.0.1{n}/24", "dev", "eth0", ns=ns)
            ip("addr", "add", f"fd99::1{n}/64", "dev", "eth0", "nodad", ns=ns)

    def end(self):
        for ns in (self.client, *self.hosts):
            for pid in ip("netns", "pids", ns).split():
                os.kill(int(pid), 9)
            ip("netns", "del", ns)

    def agent(self, host, action, address=V4, **params):
        env = {"PATH": PATH, "OCF_RESOURCE_INSTANCE": "address", "HA_RSCTMP": "/nonexistent"}
        return run_agent("address", action, {"ip": address, "nic": "eth0", "interval": 50} | params,
                         env, prefix=("ip", "netns", "exec", host))

    def do(self, *args, want=OK, **params):
        p = self.agent(*args, **params)
        assert p.returncode == want, f"{args}: {p.returncode}, not {want}: {p.stderr}"
        return p.stdout

    def mac(self, host):
        return ip("link", "show", "eth0", ns=host).split("link/ether ")[1].split()[0]

    def neighbour(self, address):
        words = ip("neigh", "show", "to", address, "dev", "br0", ns=self.client).split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else None

    def announcers(self, host):
        pids = ip("netns", "pids", host).split()
        return [p for p in pids if "announ" in open(f"/proc/{p}/comm", encoding="ascii").read()]


@pytest.fixture(scope="module")
def net():
    n = Net()
    yield n
    n.end()


@pytest.mark.parametrize("address", [V4, V6])
def test_life(net, address):
    host = net.hosts[0]
    net.do(host, "monitor", address, want=NOT_RUNNING)
    net.do(host, "stop", address)  # of what does not run
    t0 = time.monotonic()
    net.do(host, "start", address)
    print(f"start of {address}: {(time.monotonic() - t0) * 1000:.0f} ms, with ip netns exec")
    net.do(host, "monitor", address)
    assert "tentative" not in ip("addr", "show", "dev", "eth0", "to", address, ns=host)
    net.do(host, "start", address)  # once more
    net.do(host, "stop", address)
    net.do(host, "monitor", address, want=NOT_RUNNING)
    net.do(host, "stop", address)


@pytest.mark.parametrize("address", [V4, V6])
def test_neighbours_follow_a_move(net, address):
    """A client that remembers another owner sends to the new one, without asking."""
    alpha, beta = net.hosts
    ip("neigh", "replace", address, "lladdr", STALE, "dev", "br0", "nud", "stale", ns=net.client)
    for host, other in ((alpha, beta), (beta, alpha)):
        net.do(other, "stop", address)
        net.do(host, "start", address)
        until(lambda h=host: net.neighbour(address) == net.mac(h), f"neighbour is {host}")
    net.do(beta, "stop", address)


def test_announced_with_a_label(net):
    """The label is no other interface's name."""
    host = net.hosts[0]
    ip("neigh", "replace", V4, "lladdr", STALE, "dev", "br0", "nud", "stale", ns=net.client)
    net.do(host, "start", label="pg")
    until(lambda: net.neighbour(V4) == net.mac(host), "neighbour is alpha")
    net.do(host, "stop", label="pg")


def test_announcer_ends_with_the_address(net):
    """An address that has moved on is not called back."""
    host = net.hosts[0]
    net.do(host, "start", count=1000)
    until(lambda: net.announcers(host), "announcer")
    net.do(host, "stop")
    until(lambda: not net.announcers(host), "announcer ended")


@pytest.mark.parametrize("address", [V4, V6])
def test_connections_end_with_the_address(net, address):
    """Both ends learn it at once: else one sends to who has the address next, the other over what leads there."""
    host = net.hosts[0]

    def python(ns, text):
        return subprocess.Popen(["ip", "netns", "exec", ns, "python3", "-uc", f"import socket, sys\n{text}"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, text=True)

    until_reset = "s.settimeout(20)\ntry:\n    print(s.recv(1))\nexcept OSError as e:\n    print(type(e).__name__)"
    family = "AF_INET6" if ":" in address else "AF_INET"
    net.do(host, "start", address)
    server = python(host, f"l = socket.create_server(({address!r}, 9000), family=socket.{family})\nprint('listens')\ns, _ = l.accept()\n"
                    f"{until_reset}")
    try:
        assert server.stdout.readline() == "listens\n"
        client = python(net.client, f"s = socket.create_connection(({address!r}, 9000))\nprint('connected')\n{until_reset}")
        try:
            assert client.stdout.readline() == "connected\n"
            net.do(host, "stop", address)
            assert client.stdout.readline() == "ConnectionResetError\n"
            assert server.stdout.readline().startswith("Connection")
        finally:
            client.kill()
            client.communicate()
    finally:
        server.kill()
        server.communicate()


def test_prefix_and_label(net):
    host = net.hosts[0]
    until(lambda: not net.announcers(host), "those of former addresses have ended")
    net.do(host, "start", cidr_netmask=24, label="pg", count=0)
    assert f"{V4}/24" in ip("addr", "show", "dev", "eth0", ns=host)
    assert "eth0:pg" in ip("addr", "show", "dev", "eth0", ns=host)
    assert not net.announcers(host)
    net.do(host, "stop")  # also when the parameters were changed meanwhile
    net.do(host, "monitor", want=NOT_RUNNING)


def test_link_down_is_a_fault(net):
    host = net.hosts[0]
    net.do(host, "start", count=0)
    ip("link", "set", "eth0", "down", ns=host)
    try:
        net.do(host, "monitor", want=GENERIC)
        net.do(host, "access", want=INSTALLED)
        net.do(host, "start", want=INSTALLED)
        net.do(host, "stop")
    finally:
        ip("link", "set", "eth0", "up", ns=host)
        ip("addr", "add", "fd99::10/64", "dev", "eth0", "nodad", ns=host)  # gone with the link
    until(lambda: net.agent(host, "access").returncode == OK, "link up again")


@pytest.mark.parametrize("params, want", [
    ({"address": "nonsense"}, CONFIGURED),
    ({"address": "10.0.0.1;id"}, CONFIGURED),
    ({"nic": "eth0 dev lo"}, CONFIGURED),
    ({"label": "a b"}, CONFIGURED),
    ({"cidr_netmask": 33}, CONFIGURED),
    ({"count": "many"}, CONFIGURED),
    ({"nic": "eth7"}, OK),
])
def test_parameters(net, params, want):
    net.do(net.hosts[0], "validate-all", want=want, **params)


def test_missing_interface(net):
    net.do(net.hosts[0], "access", nic="eth7", want=INSTALLED)
    net.do(net.hosts[0], "monitor", nic="eth7", want=NOT_RUNNING)
    net.do(net.hosts[0], "stop", nic="eth7")


def test_announce_by_hand(net):
    def run(*args):
        return subprocess.run(["ip", "netns", "exec", net.hosts[0], "holdfast-announce", *args],
                              env={"PATH": PATH}, capture_output=True, check=False).returncode

    assert run("-c", "2", "-i", "1", "eth0", "10.99.0.10") == 0
    assert run("-c", "1", "eth0", "fd99::10") == 0
    assert run("-c", "1", "eth0", V4) == 3  # not ours
    assert run("-c", "0", "eth0", V4) == 2
    assert run("eth0", "x") == 2
    assert run("eth7", V4) == 1


def test_meta_data():
    p = run_agent("address", "meta-data", {})
    actions = {a.get("name") for a in ET.fromstring(p.stdout).iter("action")}
    assert actions == {"start", "stop", "monitor", "access", "validate-all", "meta-data"}
    text = (AGENTS / "address").read_text()
    for parameter in ET.fromstring(p.stdout).iter("parameter"):
        assert f"OCF_RESKEY_{parameter.get('name')}" in text
    assert run_agent("address", "dance", {}).returncode == UNIMPLEMENTED
