"""The output commit in network namespaces: a server behind the guard, and a client that sees all of its packets."""
import itertools
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from agent import ROOT, until
from network import in_network

PROBE, SERVE = (f"{ROOT}/build/tests/support/egress-{n}" for n in ("probe", "serve"))
V4, V6, PORT = "10.99.0.50", "fd99::50", 5432
FIN, SYN, RST, ACK = 1, 2, 4, 16
HOWS = ["bpf", "nfqueue"]
BACKED_OFF = 130.0  # s; a client that gets no answer repeats itself after 0.2 s, 0.4 s ... 120 s


def run(*args, ns=None, check=True, **kw):
    p = subprocess.run([*(("ip", "netns", "exec", ns) if ns else ()), *args], capture_output=True, text=True,
                       check=False, **kw)
    assert not check or p.returncode == 0, f"{args}: {p.stdout}{p.stderr}"
    return p


class Capture:
    """What comes from the service's port to the client's interface: (time, family, flags, seq, ack, length)."""

    def __init__(self, ns):
        self.packets, self.problem = [], None
        self.socket = in_network(ns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self.socket.bind(("eth0", 3))
        self.socket.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.socket.settimeout(0.05)
        self.go = True
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self):
        while self.go:
            try:
                data, anc, _, frm = self.socket.recvmsg(65536, 256)
            except socket.timeout:
                continue
            if frm[2] == socket.PACKET_OUTGOING:
                continue
            when = next(struct.unpack("qq", a[2][:16]) for a in anc if a[1] == 35)
            self.note(data, when[0] * 10**9 + when[1])

    def note(self, data, when):
        kind = data[12:14]
        if kind == b"\x08\x00" and data[23] == 6:
            ip, end = 14 + (data[14] & 15) * 4, 14 + struct.unpack(">H", data[16:18])[0]
        elif kind == b"\x86\xdd" and data[20] == 6:
            ip, end = 54, 54 + struct.unpack(">H", data[18:20])[0]
        else:
            return
        port, peer, seq, ack, off, flags, window = struct.unpack(">HHIIBBH", data[ip:ip + 16])
        if port == PORT:
            self.packets.append((when, peer, flags, seq, ack, end - ip - (off >> 4) * 4, window))

    def end(self):
        self.go = False
        self.thread.join()
        self.socket.close()

    def ends(self, *sockets):
        """RSTs and FINs for them; what came for a former test's clients may still be on its way."""
        peers = [s.getsockname()[1] for s in sockets]
        return [p for p in self.packets if p[1] in peers and p[2] & (RST | FIN)]

    def highest_ack(self, peer):
        """None: nothing was seen yet"""
        acks = [p[4] for p in self.packets if p[1] == peer and p[2] & ACK]
        return max(acks, key=lambda a: (a - acks[0] + 2**31) % 2**32) if acks else None


def set_offload(ns, on):
    """Checksums and segments of eth0 by the "card", or by the kernel."""
    import array  # pylint: disable=import-outside-toplevel
    import fcntl  # pylint: disable=import-outside-toplevel
    for command in (0x17, 0x1F, 0x24):  # ETHTOOL_STXCSUM, _STSO, _SGSO
        value = array.array("I", [command, int(on)])
        with in_network(ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
            fcntl.ioctl(s, 0x8946, struct.pack("16sP", b"eth0", value.buffer_info()[0]))  # SIOCETHTOOL


class Serve:
    """egress-serve in the host's namespace."""

    def __init__(self, ns, how, *addresses, interfaces="eth0", prefix=()):
        self.args = (how, interfaces, *(f"[{a}]:{PORT}" if ":" in a else f"{a}:{PORT}" for a in addresses))
        self.lines, self.ns = [], ns
        self.p = subprocess.Popen(  # pylint: disable=consider-using-with
            ["ip", "netns", "exec", ns, *prefix, SERVE, *self.args], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        self.wait("ready")

    def read(self):
        for line in self.p.stdout:
            self.lines.append(line.strip())

    def wait(self, pattern, since=0):
        """The first line from `since` on that matches."""
        def look():
            return next((m for m in (re.fullmatch(pattern, x) for x in self.lines[since:]) if m), None)
        until(lambda: look() or self.p.poll() is not None, f"{pattern!r} from the server")
        m = look()
        assert m, f"no {pattern!r}: {self.p.stderr.read()}"
        return m

    def say(self, text):
        since = len(self.lines)
        self.p.stdin.write(text + "\n")
        self.p.stdin.flush()
        self.wait("done " + text.split()[0], since)

    def counters(self, address=0):
        since = len(self.lines)
        self.say("counters")
        m = self.wait(rf"counters {address} (.*)", since)
        return {k: int(v) for k, v in (x.split("=") for x in m[1].split())}

    def kill(self):
        self.p.kill()
        self.end()

    def end(self):
        if self.p.poll() is None:
            self.p.stdin.close()
        self.p.wait(10)
        self.reader.join()
        self.p.stdout.close()
        self.p.stderr.close()

    def remove(self):
        run(SERVE, "remove", *self.args, ns=self.ns)


class Net:
    """Two namespaces on one cable: a client and a host with the service addresses."""

    def __init__(self):
        tag = f"hf-egress-{os.getpid()}"
        self.client, self.host = f"{tag}-c", f"{tag}-h"
        self.servers, self.captures, self.sockets = [], [], []
        for ns in (self.client, self.host):
            run("ip", "netns", "add", ns)
            run("ip", "link", "set", "lo", "up", ns=ns)
        run("ip", "link", "add", "eth0", "netns", self.client, "type", "veth", "peer", "name", "eth0", "netns",
            self.host)
        for n, ns in enumerate((self.client, self.host)):
            run("ip", "link", "set", "eth0", "up", ns=ns)
            run("ip", "addr", "add", f"10.99.0.{n + 1}/24", "dev", "eth0", ns=ns)
            run("ip", "addr", "add", f"fd99::{n + 1}/64", "dev", "eth0", "nodad", ns=ns)
        run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0", ns=self.host)
        run("ip", "addr", "add", f"{V4}/32", "dev", "eth0", ns=self.host)
        run("ip", "addr", "add", f"{V6}/128", "dev", "eth0", "nodad", ns=self.host)

    def serve(self, how, *addresses, lease=-1, **kw):
        self.servers.append(Serve(self.host, how, *addresses, **kw))
        self.servers[-1].say(f"lease {lease}")
        return self.servers[-1]

    def capture(self):
        self.captures.append(Capture(self.client))
        return self.captures[-1]

    def socket(self, address):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        s = in_network(self.client, lambda: socket.socket(family, socket.SOCK_STREAM))
        s.settimeout(10)
        self.sockets.append(s)
        return s

    def connect(self, address, server):
        s = self.socket(address)
        s.connect((address, PORT))
        server.wait(f"accepted {s.getsockname()[1]}")
        return s

    def answers(self, address):
        """Does the host say of a datagram to nobody that there is nobody?"""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with in_network(self.client, lambda: socket.socket(family, socket.SOCK_DGRAM)) as s:
            s.connect((address, 9))
            s.settimeout(0.5)
            try:
                s.send(b"?")
                s.recv(1)
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
            return False

    def resolves(self, address):
        """Does the client learn who has the address?"""
        run("ip", "neigh", "flush", "dev", "eth0", ns=self.client)
        self.answers(address)
        return "lladdr" in run("ip", "neigh", "show", "to", address, "dev", "eth0", ns=self.client).stdout

    def tidy(self):
        """After each test: nothing of it is left in the namespaces."""
        for s in self.sockets:
            s.close()
        for server in self.servers:
            if server.p.poll() is None:
                server.end()
            server.remove()
        for c in self.captures:
            c.end()
        left = "".join(run("tc", "filter", "show", "dev", d, way, ns=self.host).stdout
                       for d in ("eth0", "lo") for way in ("egress", "ingress"))
        assert "hf_" not in left
        for cmd in ("iptables-save", "ip6tables-save"):
            assert "NFQUEUE" not in run(cmd, ns=self.host).stdout
        assert "holdfast" not in run("nft", "list", "tables", ns=self.host).stdout
        self.servers, self.captures, self.sockets = [], [], []

    def end(self):
        for ns in (self.client, self.host):
            for pid in run("ip", "netns", "pids", ns).stdout.split():
                os.kill(int(pid), 9)
            run("ip", "netns", "del", ns)


@pytest.fixture(scope="module", name="whole_net")
def make_net():
    n = Net()
    yield n
    n.end()


@pytest.fixture(name="net")
def use_net(whole_net):
    yield whole_net
    whole_net.tidy()


def after(a, b):
    """Is sequence number a after b?"""
    return 0 < (a - b) % 2**32 < 2**31


def test_filter_agrees_with_rules():
    """BPF test runs: the program and the rules in user space say the same of each packet."""
    print(run(PROBE, "table").stdout)
    print(run(PROBE, "random", "20261", "20000").stdout)


@pytest.mark.parametrize("how, address", itertools.product(HOWS, (V4, V6)))
def test_acknowledgements_wait(net, how, address):
    server, cap = net.serve(how, V4, V6), net.capture()
    s = net.connect(address, server)
    peer = s.getsockname()[1]
    n = int(address == V6)
    base = int(server.wait(rf"syn-ack {peer} (\d+) (\d+)")[2])
    assert server.wait(rf"syn {peer} (\d+) \d+")  # what came in was told, too
    s.sendall(b"q" * 100)
    server.wait(f"read {peer} 100")
    until(lambda: server.counters(n)["ack_held"] > 0, "an acknowledgement that is held")
    until(lambda: cap.highest_ack(peer), "the SYN-ACK")
    assert cap.highest_ack(peer) == base
    server.say("confirm 40")
    until(lambda: cap.highest_ack(peer) == base + 40, "an acknowledgement of 40 bytes")
    server.say("confirm 100")
    until(lambda: cap.highest_ack(peer) == base + 100, "an acknowledgement of 100 bytes")
    assert server.counters(n)["sent"] >= 3  # the SYN-ACK, and these two

    s.sendall(b"r" * 50)  # now a response carries the lowered one
    server.wait(f"read {peer} 150")
    server.say("write hello")
    assert s.recv(100) == b"hello"
    until(lambda: server.counters(n)["ack_lowered"] > 0, "a lowered acknowledgement")
    assert cap.highest_ack(peer) == base + 100
    server.say("confirm 150")
    until(lambda: cap.highest_ack(peer) == base + 150, "an acknowledgement of all")

    server.say("early early")  # a bug of the owner: nothing leaves before it is confirmed
    until(lambda: server.counters(n)["beyond"] > 0, "unconfirmed data to be dropped")
    server.say("commit")
    assert s.recv(100) == b"early"
    server.say("close")
    assert s.recv(100) == b""


@pytest.mark.parametrize("how, address, offload", itertools.product(HOWS, (V4, V6), (True, False)))
def test_bulk(net, how, address, offload):
    """1 MB both ways with acknowledgements held and lowered all the time: never one too high. With offload, packets
    are larger than the MTU when they are judged; without it, the client's kernel checks each checksum."""
    set_offload(net.host, offload)
    server, cap = net.serve(how, V4, V6), net.capture()
    s = net.connect(address, server)
    peer = s.getsockname()[1]
    base = int(server.wait(rf"syn-ack {peer} (\d+) (\d+)")[2])
    server.say("auto")
    size, sent, got, own, end = 1 << 20, 0, b"", 0, time.monotonic() + 60  # own: an x for each of the server's reads
    server.say(f"blast {size}")
    s.setblocking(False)
    while len(got) - own < size or not own or sent < size or not after(cap.highest_ack(peer) + 1, base + size):
        assert time.monotonic() < end, f"sent {sent}, got {len(got)}, acknowledged {cap.highest_ack(peer) - base}"
        try:
            sent += s.send(b"u" * min(65536, size - sent)) if sent < size else 0
        except BlockingIOError:
            pass
        try:
            part = s.recv(65536)
            got, own = got + part, own + part.count(b"x")
        except BlockingIOError:
            time.sleep(0.001)
    assert got.replace(b"x", b"") == bytes(97 + i % 23 for i in range(size))
    counters = server.counters(int(address == V6))  # and it has told all that it confirmed
    confirmed = [(int(m[2]), int(m[1])) for m in (re.fullmatch(rf"conf {peer} (\d+) (\d+)", x)
                                                  for x in server.lines) if m]
    at, i = base, 0
    for when, port, flags, _, ack, _, _ in cap.packets:
        if port != peer or not flags & ACK:
            continue
        while i < len(confirmed) and confirmed[i][0] <= when:
            at, i = confirmed[i][1], i + 1
        assert not after(ack, at), f"{ack - base} acknowledged, {at - base} confirmed"
    assert counters["ack_held"] and counters["ack_lowered"] and not counters["beyond"] and not counters["bad"]
    assert (how, offload) != ("bpf", True) or max(p[5] for p in cap.packets) > 1500
    lost = run("nstat", "-asz", "TcpInCsumErrors", ns=net.client).stdout.split()
    assert lost[lost.index("TcpInCsumErrors") + 1] == "0"


@pytest.mark.parametrize("how", HOWS)
def test_syn_ack_waits(net, how):
    server, cap = net.serve(how, V4), net.capture()
    server.say("syn hold")
    s = net.socket(V4)
    s.setblocking(False)
    s.connect_ex((V4, PORT))
    until(lambda: server.counters()["syn_ack_held"] > 0, "a SYN-ACK that is held")
    port = s.getsockname()[1]
    assert not [p for p in cap.packets if p[1] == port]  # others' FINs may still be on their way
    server.say("syn go")
    s.settimeout(10)
    until(lambda: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01", "a connection")
    server.say("close")
    assert s.recv(1) == b""


@pytest.mark.parametrize("how, address", itertools.product(HOWS, (V4, V6)))
def test_syn_ack_waits_long(net, how, address):
    """The kernel has repeated it meanwhile, and still knows of the handshake."""
    server = net.serve(how, V4, V6)
    server.say("syn hold")
    s = net.socket(address)
    s.setblocking(False)
    s.connect_ex((address, PORT))
    until(lambda: server.counters(int(address == V6))["syn_ack_held"] > 3, "a SYN-ACK that is held again")
    server.say("syn go")
    s.settimeout(10)
    until(lambda: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01", "a connection")
    s.sendall(b"one")
    server.wait(f"read {s.getsockname()[1]} 3")


@pytest.mark.parametrize("how", HOWS)
def test_syn_ack_outlives_its_lease(net, how):
    """The process learns of a handshake, has no lease when the kernel repeats the SYN-ACK, and lets it go on afterwards."""
    server = net.serve(how, V4)
    server.say("syn hold")
    s = net.socket(V4)
    s.setblocking(False)
    s.connect_ex((V4, PORT))
    until(lambda: server.counters()["syn_ack_held"] > 0, "a SYN-ACK that is held")
    server.say("lease 0")
    before = server.counters()["lease"]
    until(lambda: server.counters()["lease"] >= before + 3, "SYN-ACKs without a lease")
    server.say("lease -1")
    server.say("syn go")
    s.settimeout(10)
    until(lambda: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01", "a connection")
    s.sendall(b"one")
    server.wait(f"read {s.getsockname()[1]} 3")


@pytest.mark.parametrize("how, address", itertools.product(HOWS, (V4, V6)))
def test_death_says_nothing(net, how, address):
    """kill -9, packets to the dead, a new process, packets of the old connection: no RST, no FIN."""
    server, cap = net.serve(how, V4, V6), net.capture()
    s = net.connect(address, server)
    peer = s.getsockname()[1]
    s.sendall(b"one")
    server.wait(f"read {peer} 3")
    server.say("write two")
    assert s.recv(10) == b"two"
    stop = threading.Event()

    def talk():  # on and on, while processes come and go
        while not stop.wait(0.005):
            s.send(b"x")

    t = threading.Thread(target=talk)
    t.start()
    server.kill()
    seen = len(cap.packets)
    other = net.socket(address)  # no listener: its RST does not get out, either
    other.setblocking(False)
    other.connect_ex((address, PORT))
    for _ in range(3):
        again = net.serve(how, V4, V6)
        until(lambda a=again: sum(a.counters(int(address == V6)).values()) > 0, "packets for the new guard", BACKED_OFF)
        again.kill()
    again = net.serve(how, V4, V6)
    new = net.connect(address, again)
    new.sendall(b"four")
    again.wait(f"read {new.getsockname()[1]} 4")
    stop.set()
    t.join()
    assert len(cap.packets) > seen
    assert not cap.ends(s, other, new)
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    if how == "bpf":
        assert run("tc", "filter", "show", "dev", "eth0", "egress", ns=net.host).stdout.count(" handle ") == 1
    again.say("flags 2")  # all that lives is known: now the others may learn of their end
    s.settimeout(BACKED_OFF)
    with pytest.raises(ConnectionResetError):  # of the first packet, or of one that is repeated before it
        s.send(b"?")
        s.recv(1)


@pytest.mark.parametrize("how, address", itertools.product(HOWS, (V4, V6)))
def test_lease(net, how, address):
    """After its lease an address is silent: TCP, ICMP, ARP (not with NFQUEUE) and neighbour advertisements."""
    server, cap = net.serve(how, V4, V6), net.capture()
    s = net.connect(address, server)
    peer = s.getsockname()[1]
    assert net.resolves(address) and net.answers(address)
    before = server.counters(int(address == V6))["lease"]
    server.say("lease 1")
    until(lambda: not net.answers(address), "silence")
    seen = len(cap.packets)
    s.sendall(b"anybody?")
    server.wait(f"read {peer} 8")
    server.say("confirm 8")
    server.say("write no")
    assert net.resolves(address) == (how == "nfqueue" and address == V4)
    assert server.wait(r"lease counts (\d)")[1] == str(int(how == "bpf"))
    assert net.answers("fd99::2" if address == V6 else "10.99.0.2")  # the host itself speaks
    assert peer not in [p[1] for p in cap.packets[seen:]]
    assert server.counters(int(address == V6))["lease"] > before
    server.say("lease -1")
    assert net.resolves(address)
    assert s.recv(10) == b"no"


@pytest.mark.parametrize("how", HOWS)
def test_frozen_process(net, how):
    """A stopped process does not go on speaking, whatever its lease; thawed, it goes on."""
    server, cap = net.serve(how, V4, lease=2000), net.capture()
    s = net.connect(V4, server)
    peer = s.getsockname()[1]
    base = int(server.wait(rf"syn-ack {peer} (\d+) (\d+)")[2])
    os.kill(server.p.pid, 19)
    try:
        s.sendall(b"early")
        until(lambda: not net.answers(V4), "silence")
        until(lambda: cap.highest_ack(peer), "the SYN-ACK")
        assert cap.highest_ack(peer) == base
    finally:
        os.kill(server.p.pid, 18)
    server.wait(f"read {peer} 5")
    server.say("lease -1")
    server.say("confirm 5")
    until(lambda: cap.highest_ack(peer) == base + 5, "an acknowledgement")


@pytest.mark.parametrize("how", HOWS)
def test_solo(net, how):
    """Without a backup everything goes as it is, except RST and FIN that are not ours."""
    server, cap = net.serve(how, V4), net.capture()
    server.say("flags 1")
    s = net.connect(V4, server)
    peer = s.getsockname()[1]
    s.sendall(b"q" * 100)
    until(lambda: cap.highest_ack(peer) and server.wait(f"read {peer} 100"), "an acknowledgement")
    first = next(p for p in cap.packets if p[2] & SYN)
    until(lambda: cap.highest_ack(peer) == first[4] + 100, "an acknowledgement")
    server.kill()
    s.sendall(b"more")
    assert not cap.ends(s)


@pytest.mark.parametrize("how", HOWS)
def test_two_processes(net, how):
    """Each guards its own address on the same interface, whatever becomes of the other."""
    one, two = net.serve(how, V4), net.serve(how, V6)
    a, b = net.connect(V4, one), net.connect(V6, two)
    if how == "bpf":
        assert run("tc", "filter", "show", "dev", "eth0", "egress", ns=net.host).stdout.count(" handle ") == 2
    one.say("lease 1")
    until(lambda: not net.answers(V4), "silence")
    b.sendall(b"q")
    two.wait(rf"read {b.getsockname()[1]} 1")
    assert net.answers(V6)
    one.say("lease -1")
    cap = net.capture()
    two.kill()
    assert net.answers(V4)
    a.sendall(b"q")
    one.wait(rf"read {a.getsockname()[1]} 1")
    b.sendall(b"more")
    assert not cap.ends(a, b)


def test_two_interfaces(net):
    """The loopback can be guarded, too: clients on the same host."""
    server = net.serve("bpf", V4, interfaces="eth0,lo")
    s = in_network(net.host, lambda: socket.create_connection((V4, PORT), 10))
    net.sockets.append(s)
    peer = s.getsockname()[1]
    server.wait(f"accepted {peer}")
    s.sendall(b"q")
    server.wait(f"read {peer} 1")
    until(lambda: server.counters()["ack_held"] > 0, "an acknowledgement that is held")
    server.kill()
    s.sendall(b"r")
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize("how", HOWS)
def test_slots(net, how):
    """A slot more than there are is refused, and so is a second one of a client; what is given back is used again."""
    server = net.serve(how, V4)
    server.say("slots")
    full = [x for x in server.lines if x == "slots 64, again: File exists, then: a limit is reached"]
    assert len(full) == 2, server.lines
    net.connect(V4, server)


CAPS = {"bpf": ("bpf", "net_admin", "net_raw"), "nfqueue": ("net_admin", "net_raw")}


def as_nobody(caps):
    names = ",".join(f"+{c}" for c in caps)
    names = f",{names}" if names else ""
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
            f"--inh-caps=-all{names}", f"--ambient-caps=-all{names}", f"--bounding-set=-all{names}")


@pytest.mark.parametrize("how", HOWS)
def test_capabilities(net, how):
    """Exactly these are needed: with them it works, without any one it says which."""
    server = net.serve(how, V4, prefix=as_nobody(CAPS[how]))
    s = net.connect(V4, server)
    s.sendall(b"q")
    server.wait(rf"read \d+ 1")
    server.end()
    server.remove()
    for missing in CAPS[how]:
        have = [c for c in CAPS[how] if c != missing]
        p = run(*as_nobody(have), SERVE, *server.args, ns=net.host, check=False, stdin=subprocess.DEVNULL)
        assert p.returncode == 1 and "CAP_" in p.stderr, f"without {missing}: {p.stderr}"


def test_probe(net):
    def probe(*caps):
        return run(*as_nobody(caps), SERVE, "probe", ns=net.host).stdout.strip()
    assert probe("bpf", "net_admin", "net_raw") == "bpf:"
    assert probe("net_admin", "net_raw").startswith("nfqueue: the kernel does not take the egress filter")
    assert "CAP_BPF" in probe("net_admin", "net_raw")
    nothing = probe()
    assert nothing.startswith("none: ") and "CAP_NET_RAW" in nothing


def test_refused(net):
    for args, text in ((("bpf", "nope", f"{V4}:{PORT}"), "interface nope"),
                       (("bpf", "eth0", f"{V4}:{PORT}", f"{V4}:{PORT}"), "twice"),
                       (("bpf", "eth0", V4), "no port")):
        p = run(SERVE, *args, ns=net.host, check=False, stdin=subprocess.DEVNULL)
        assert p.returncode == 1 and text in p.stderr, p.stderr


def test_built():
    assert pathlib.Path(SERVE).exists() and pathlib.Path(PROBE).exists()
