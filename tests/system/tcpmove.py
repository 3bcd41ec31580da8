#!/usr/bin/python3
"""make tcp-chaos: TCP connections of unmodified clients move between hosts, again and again.

Hosts are network namespaces on one bridge, made and removed here. A server (tests/support/tcp_move.c) echoes what
clients send; its host is cut from the net and killed, or hands over as planned, and a new host goes on with its
connections. Each client checks every byte of its stream.
"""
import argparse
import contextlib
import ipaddress
import os
import pathlib
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from network import in_network

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HOLDFAST", ROOT / "build/src/ctl/holdfast")).resolve().parents[2]
PROGRAM = BUILD / "tests/support/tcp-move"
PORT = 5432
DEADLINE = 40.0
TURN = bytes(b ^ 0x20 for b in range(256))
STREAM = random.Random(1).randbytes((1 << 21) + 17)
ECHO = STREAM.translate(TURN)


def run(*words):
    p = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=30, check=False)
    assert p.returncode == 0, f"{' '.join(map(str, words))}: {p.stderr}"
    return p.stdout


def checksum(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


def announce(address):
    """Gratuitous ARP, or an unsolicited neighbour advertisement, in the caller's namespace."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0))
    mac = s.getsockname()[4]
    ip = address.packed
    if address.version == 4:
        for op in (1, 2):
            s.send(b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, op) +
                   mac + ip + (b"\0" if op == 1 else b"\xff") * 6 + ip)
    else:
        everyone = ipaddress.ip_address("ff02::1").packed
        icmp = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ip + b"\x02\x01" + mac
        sum_ = checksum(ip + everyone + struct.pack("!II", len(icmp), 58) + icmp)
        s.send(b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(icmp), 58, 255) +
               ip + everyone + icmp[:2] + struct.pack("!H", sum_) + icmp[4:])
    s.close()


class Server:
    """tcp-move on a host; lines of its output in order."""

    def __init__(self, net, host, address, state, *options, prefix=()):
        self.host = host
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", host, *prefix, PROGRAM, f"[{address}]:{PORT}" if address.version == 6 else
             f"{address}:{PORT}", state, *options],
            cwd=state.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        net.servers.append(self)

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.strip())
                self.changed.notify_all()
        with self.changed:
            self.lines.append("(end)")
            self.changed.notify_all()

    def until(self, word):
        """The line that begins with word."""
        def found():
            return next((n for n in self.lines if n.startswith((word, "(end)"))), None)
        with self.changed:
            assert self.changed.wait_for(found, DEADLINE), f"no '{word}': {self.lines}"
            line = found()
        assert line.startswith(word), f"no '{word}': {self.lines}"
        return line

    def signal(self, signo):
        self.process.send_signal(signo)

    def go(self):
        """Take over, once ready."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


class Net:
    """A bridge, a client host, and server hosts that come and go. The service address is v4 or v6."""

    made = 0

    def __init__(self, version=4, directory="/tmp"):
        Net.made += 1
        self.id = f"hftm{os.getpid()}x{Net.made}"
        self.version = version
        self.address = ipaddress.ip_address("10.79.0.100" if version == 4 else "fd79::100")
        self.client = f"{self.id}-c"
        self.bridge = f"{self.id}-br"
        self.state = pathlib.Path(directory) / f"{self.id}-{version}.state"
        self.hosts, self.servers, self.clients = [], [], []
        self.n = 0
        self.server = None  # that has the address
        self.takes = []

    def __enter__(self):
        try:
            run("ip", "netns", "add", self.bridge)
            run("ip", "-n", self.bridge, "link", "add", "br0", "type", "bridge", "forward_delay", 0,
                "mcast_snooping", 0)
            run("ip", "-n", self.bridge, "link", "set", "br0", "up")
            self.plug(self.client, 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for c in self.clients:
            c.abandon()
        for s in self.servers:
            s.kill()
        for h in [*self.hosts, self.client, self.bridge]:
            subprocess.run(["ip", "netns", "del", h], capture_output=True, check=False)
        self.state.unlink(missing_ok=True)

    def plug(self, host, number):
        cable = f"v{number}"
        run("ip", "netns", "add", host)
        run("ip", "link", "add", cable, "netns", self.bridge, "type", "veth", "peer", "name", "eth0", "netns", host)
        run("ip", "-n", self.bridge, "link", "set", cable, "master", "br0", "up")
        run("ip", "-n", host, "link", "set", "lo", "up")
        run("ip", "-n", host, "link", "set", "eth0", "up")
        run("ip", "-n", host, "addr", "add", f"10.79.{number // 250}.{number % 250 + 1}/16", "dev", "eth0")
        run("ip", "-n", host, "addr", "add", f"fd79::{number + 0x1000:x}/64", "dev", "eth0", "nodad")

    def boot(self):
        """A server host; what would answer for sockets that are not there yet is dropped."""
        self.n += 1
        host = f"{self.id}-{self.n}"
        self.hosts.append(host)
        self.plug(host, self.n + 1)
        run("ip", "netns", "exec", host, "nft", "add table inet guard; add chain inet guard out "
            "{ type filter hook output priority 0; }; "
            f"add rule inet guard out tcp sport {PORT} tcp flags & rst == rst drop")
        return host

    def cut(self, host):
        """The cable, so that nothing goes either way."""
        run("ip", "-n", self.bridge, "link", "set", f"v{int(host.rpartition('-')[2]) + 1}", "down")

    def remove(self, host):
        run("ip", "-n", self.bridge, "link", "del", f"v{int(host.rpartition('-')[2]) + 1}")
        run("ip", "netns", "del", host)
        self.hosts.remove(host)

    def take_address(self, host):
        if self.version == 4:
            run("ip", "-n", host, "addr", "add", f"{self.address}/32", "dev", "eth0")
        else:
            run("ip", "-n", host, "addr", "add", f"{self.address}/128", "dev", "eth0", "nodad")
        in_network(host, lambda: announce(self.address))

    def start(self):
        """The first server."""
        host = self.boot()
        self.take_address(host)
        self.server = Server(self, host, self.address, self.state)
        self.server.until("serving")

    def ready(self, *options, prefix=()):
        """A server that waits to take over."""
        server = Server(self, self.boot(), self.address, self.state, "--take", *options, prefix=prefix)
        server.until("ready")
        return server

    def power_off(self):
        """Cut the host that serves, then kill; what it had read is known to others, no more."""
        old = self.server
        self.cut(old.host)
        old.signal(signal.SIGUSR1)
        old.until("saved")
        old.kill()
        self.remove(old.host)

    def take_over(self, new, planned=False):
        """Returns the counters of the take-over."""
        if planned:
            old = self.server
            self.take_address(new.host)
            self.cut(old.host)
            old.signal(signal.SIGUSR2)
            old.until("saved")
            old.kill()
            self.remove(old.host)
            in_network(new.host, lambda: announce(self.address))  # the old one may have said otherwise
        else:
            self.power_off()
            self.take_address(new.host)
        new.go()
        line = new.until("taken")
        self.server = new
        self.servers = [s for s in self.servers if s.process.poll() is None]
        counters = {k: int(v) for k, _, v in (w.partition("=") for w in line.split()[1:])}
        self.takes.append(counters)
        return counters

    def move(self, planned=False):
        return self.take_over(self.ready(), planned)

    def connect(self, options=(), sysctl=()):
        """A socket on the client host, connected. sysctl: (name, value) while it connects."""
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6

        def make():
            old = [(n, pathlib.Path(f"/proc/sys/net/ipv4/{n}").read_text(encoding="ascii")) for n, _ in sysctl]
            s = socket.socket(family, socket.SOCK_STREAM)
            for level, name, value in options:
                s.setsockopt(level, name, value)
            with contextlib.ExitStack() as stack:
                for name, value in sysctl:
                    pathlib.Path(f"/proc/sys/net/ipv4/{name}").write_text(str(value), encoding="ascii")
                stack.callback(lambda: [pathlib.Path(f"/proc/sys/net/ipv4/{n}").write_text(v, encoding="ascii")
                                        for n, v in old])
                s.settimeout(DEADLINE)
                s.connect((str(self.address), PORT))
            return s
        return in_network(self.client, make)

    def start_client(self, **kw):
        c = Client(self, **kw)
        self.clients.append(c)
        c.start()
        return c


NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
CORK = (socket.IPPROTO_TCP, socket.TCP_CORK, 1)
OFF = {name: (f"tcp_{name}", 0) for name in ("sack", "timestamps", "window_scaling", "dsack")}


def congestion(name):
    return (socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


# name: options, sysctls, bytes in flight each way
KINDS = {
    "plain": ((), (), 4000),
    "nodelay": ((NODELAY,), (), 4000),
    "cork": ((CORK,), (), 100_000),
    "bulk": ((), (), 1 << 20),
    "bulk-cubic": ((congestion("cubic"),), (), 1 << 20),
    "bulk-bbr": ((congestion("bbr"),), (), 1 << 20),
    "no-timestamps": ((), (OFF["timestamps"],), 50_000),
    "no-sack": ((), (OFF["sack"],), 50_000),
    "no-scaling": ((), (OFF["window_scaling"],), 50_000),
    "no-options": ((), (OFF["timestamps"], OFF["sack"], OFF["window_scaling"]), 1 << 20),
    "bulk-no-sack": ((), (OFF["sack"],), 1 << 20),
}


class Client(threading.Thread):
    """Sends the stream, up to `ahead` bytes before their echo, and checks each byte that comes back."""

    def __init__(self, net, kind="plain", seed=0):
        super().__init__(daemon=True)
        self.kind = kind
        self.options, self.sysctl, self.ahead = KINDS[kind]
        self.random = random.Random(f"{seed}/{kind}")
        self.socket = net.connect(self.options, self.sysctl)
        self.socket.setblocking(False)
        self.sent = self.received = 0
        self.error = None
        self.stopping = False
        self.longest = 0.0

    def run(self):
        try:
            while not self.stopping:
                self.exchange(self.random.randint(1, self.ahead))
            self.socket.setblocking(True)
            self.socket.settimeout(DEADLINE)
            self.socket.shutdown(socket.SHUT_WR)
            assert self.socket.recv(1) == b"", "more than was sent"
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def exchange(self, n):
        """Send n bytes and wait for all of their echo; both at once."""
        goal, last = self.sent + n, time.monotonic()
        if CORK in self.options:  # pushed out by turning it off and on
            self.socket.setsockopt(*CORK)
        while self.received < goal:
            want_write = [self.socket] if self.sent < goal else []
            if not want_write and CORK in self.options:
                self.socket.setsockopt(*CORK[:2], 0)
            r, w, _ = select.select([self.socket], want_write, [], DEADLINE)
            assert r or w, f"nothing for {DEADLINE} s at {self.received} of {self.sent}"
            if w:
                at = self.sent % len(STREAM)
                self.sent += self.socket.send(STREAM[at:at + min(goal - self.sent, 1 << 18)])
            if r:
                data = self.socket.recv(1 << 18)
                assert data, f"end of file at {self.received} of {self.sent}"
                self.check(data)
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()

    def check(self, data):
        while data:
            at = self.received % len(ECHO)
            want = ECHO[at:at + len(data)]
            assert data[:len(want)] == want, f"other bytes than sent, after {self.received}"
            self.received += len(want)
            data = data[len(want):]

    def abandon(self):
        """Stop now, whatever it is at."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.socket.close()

    def end(self):
        """Stop; raises what went wrong."""
        self.stopping = True
        self.join(2 * DEADLINE)
        self.socket.close()
        if self.error:
            error, self.error = self.error, None
            raise AssertionError(f"client {self.kind}: {error}") from error


def await_progress(clients, n=1):
    """Until each client has had n bytes more, or an error."""
    goals = [(c, c.received + n) for c in clients]
    end = time.monotonic() + DEADLINE
    for c, goal in goals:
        while c.received < goal and c.error is None and time.monotonic() < end:
            time.sleep(0.002)
        assert c.error is None, f"client {c.kind}: {c.error}"
        assert c.received >= goal, f"client {c.kind} stands at {c.received}"


def chaos(moves, seed, version, kinds=tuple(KINDS), per_kind=1, say=print):
    rng = random.Random(seed)
    with Net(version) as net:
        net.start()
        clients = [net.start_client(kind=k, seed=f"{seed}/{i}") for k in kinds for i in range(per_kind)]
        await_progress(clients)
        longest = []
        for i in range(moves):
            new = net.ready()
            time.sleep(rng.uniform(0, 0.2))
            planned = rng.random() < 0.25
            t0 = time.monotonic()
            n = net.take_over(new, planned)
            await_progress(clients)
            longest.append(time.monotonic() - t0)
            assert n["restored"] == len(clients) and n["failed"] == n["gone"] == 0, n
            if say and (i + 1) % 20 == 0:
                say(f"{i + 1} moves of {len(clients)} connections, IPv{version}: median of the slowest client "
                    f"{sorted(longest)[len(longest) // 2] * 1000:.0f} ms, worst {max(longest) * 1000:.0f} ms; "
                    f"unanswered {sum(t['unanswered'] for t in net.takes)}")
        for c in clients:
            c.stopping = True
        for c in clients:
            c.end()
            net.clients.remove(c)
        return net.takes, {c.kind: c.longest for c in clients}


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so what was made is removed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--moves", type=int, default=300)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--kind", action="append", choices=list(KINDS))
    p.add_argument("--per-kind", type=int, default=1)
    a = p.parse_args()
    for version in (4, 6):
        print(f"seed {a.seed}, IPv{version}")
        takes, longest = chaos((a.moves + 1) // 2, a.seed, version, tuple(a.kind or KINDS), a.per_kind)
        print("take-over, median us:", sorted(t["us"] for t in takes)[len(takes) // 2])
        print("longest wait, ms:", {k: round(v * 1000) for k, v in longest.items()})
    print("all bytes right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
