"""The peer: Serf (Debian package serf), gossip membership with tags, in the hosts of the lab.

Serf holds no services: what a host can say of itself are its tags, 512 bytes in all. A change of a
tag is what comes nearest to a publish. It is asked for by RPC, and each host's member list is asked
for again and again by RPC until it shows it (Serf's event stream gathers member events for seconds,
which would be unfair). The package is unpacked, not installed: nothing is started on the machine."""
import base64
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from host import percentile

RPC = 7373
TAGS_MAX = 440  # bytes of filling, so that a sequence number still fits


# --- MessagePack, as much as Serf's RPC uses -------------------------------------------------------

def pack(v):
    if isinstance(v, dict):
        return struct.pack(">BI", 0xdf, len(v)) + b"".join(pack(k) + pack(x) for k, x in v.items())
    if isinstance(v, list):
        return struct.pack(">BI", 0xdd, len(v)) + b"".join(map(pack, v))
    if isinstance(v, int):
        return struct.pack(">BI", 0xce, v)
    b = v.encode()
    return struct.pack(">BH", 0xda, len(b)) + b


class Short(Exception):
    """More bytes are needed."""


class Unpacker:
    """One value after the other out of a growing buffer."""

    NUMBER = {0xca: ">f", 0xcb: ">d", 0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b",
              0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
    LENGTH = {0xd9: ">B", 0xda: ">H", 0xdb: ">I", 0xc4: ">B", 0xc5: ">H", 0xc6: ">I", 0xdc: ">H",
              0xdd: ">I", 0xde: ">H", 0xdf: ">I"}

    def __init__(self):
        self.buf, self.at = b"", 0

    def next(self):
        start = self.at
        try:
            v = self._value()
        except Short:
            self.at = start
            raise
        self.buf, self.at = self.buf[self.at:], 0
        return v

    def _bytes(self, n):
        if len(self.buf) - self.at < n:
            raise Short
        self.at += n
        return self.buf[self.at - n:self.at]

    def _number(self, fmt):
        return struct.unpack(fmt, self._bytes(struct.calcsize(fmt)))[0]

    def _value(self):
        t = self._bytes(1)[0]
        if t < 0x80 or t >= 0xe0:
            return t if t < 0x80 else t - 256
        if t in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[t]
        if t in self.NUMBER:
            return self._number(self.NUMBER[t])
        n = t & (0x1f if 0xa0 <= t < 0xc0 else 0x0f) if t < 0xc0 else self._number(self.LENGTH[t])
        if t < 0x90 or t in (0xde, 0xdf):
            return {self._value(): self._value() for _ in range(n)}
        if t < 0xa0 or t in (0xdc, 0xdd):
            return [self._value() for _ in range(n)]
        return self._bytes(n).decode(errors="replace")


class Agent:
    """RPC with one agent."""

    def __init__(self, sock):
        self.sock, self.unpacker, self.seq = sock, Unpacker(), 0
        self.ask("handshake", {"Version": 1})

    def close(self):
        self.sock.close()

    def begin(self, command, body=None):
        self.seq += 1
        self.sock.sendall(pack({"Command": command, "Seq": self.seq}) +
                          (pack(body) if body else b""))

    def _next(self):
        while True:
            try:
                return self.unpacker.next()
            except Short:
                piece = self.sock.recv(65536)
                if not piece:
                    raise ConnectionError("serf closed the connection") from None
                self.unpacker.buf += piece

    def end(self, with_body=False):
        head = self._next()
        if head["Error"]:
            raise RuntimeError(f"serf: {head['Error']}")
        return self._next() if with_body else None

    def ask(self, command, body=None, with_body=False):
        self.begin(command, body)
        return self.end(with_body)

    def tags(self):
        """{host: tags} of all that it holds alive."""
        members = self.ask("members", with_body=True)["Members"]
        return {m["Name"]: m["Tags"] for m in members if m["Status"] == "alive"}


class Cluster:
    """Serf on some hosts of a lab. What cannot be had (no package) is left out."""

    def __init__(self, lab, hosts):
        self.lab, self.hosts = lab, hosts
        self.agents, self.shells = {}, []
        self.dir = None

    def start(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bench-serf-"))
        os.chmod(self.dir, 0o755)
        for command in ("apt-get -q update", None):
            p = subprocess.run("apt-get -q -y download serf && dpkg-deb -x serf_*.deb .",
                               shell=True, cwd=self.dir, capture_output=True, text=True,
                               timeout=120, check=False)
            if p.returncode == 0 or not command:
                break
            subprocess.run(command, shell=True, capture_output=True, timeout=120, check=False)
        if p.returncode:
            print(f"         serf cannot be had, so it is left out: {p.stderr.strip()[-200:]}")
            return {}
        key = base64.b64encode(os.urandom(32)).decode()
        first = self.lab.address(self.hosts[0])
        for h in self.hosts:
            tags = [f"-tag=s{i:02}={'x' * 24}" for i in range(TAGS_MAX // 30)]
            log = open(self.dir / f"{h}.log", "wb")
            self.shells.append(self.lab.popen(
                "exec", h, "--", self.dir / "usr/bin/serf", "agent", f"-node={h}",
                f"-bind={self.lab.address(h)}", f"-encrypt={key}", "-profile=lan",
                f"-retry-join={first}", "-retry-interval=1s", *tags, stdout=log,
                stderr=subprocess.STDOUT))
            log.close()
        end = time.monotonic() + 20
        while True:
            try:
                for h in self.hosts:
                    if h not in self.agents:
                        self.agents[h] = Agent(self.lab.connect(h, RPC))
                if all(len(a.tags()) == len(self.hosts) for a in self.agents.values()):
                    break
            except OSError:
                pass
            if time.monotonic() > end:
                raise RuntimeError("serf does not form a cluster")
            time.sleep(0.1)
        return {"serf_tags_per_host": TAGS_MAX // 30}

    def pids(self):
        """Of the agents, as the machine sees them."""
        root, out = str(self.dir / "usr/bin/serf"), []
        for p in pathlib.Path("/proc").iterdir():
            if p.name.isdigit():
                try:
                    if (p / "cmdline").read_bytes().split(b"\0")[0].decode() == root:
                        out.append(int(p.name))
                except OSError:
                    pass
        return out

    def measure(self, key, seconds):
        """One change after the other, for `seconds`; each until all hosts show it."""
        took, late, flaps, unconfirmed, k = [], 0, 0, 0, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            owner, k = random.choice(self.hosts), k + 1
            want = str(k)
            begin = time.monotonic()
            self.agents[owner].begin("tags", {"Tags": {"seq": want}})
            waiting = set(self.hosts) - {owner}
            while waiting and time.monotonic() - begin < 15:
                for h in sorted(waiting):
                    tags = self.agents[h].tags()
                    flaps += owner not in tags
                    if tags.get(owner, {}).get("seq") == want:
                        waiting.discard(h)
                time.sleep(0.001)
            if waiting:
                late += 1
            else:
                took.append(time.monotonic() - begin)
            try:
                self.agents[owner].end()
            except RuntimeError:
                unconfirmed += 1  # "timeout waiting for update broadcast"
        return {f"{key}_count": k, f"{key}_p50_ms": percentile(took, 50) * 1e3,
                f"{key}_p99_ms": percentile(took, 99) * 1e3,
                f"{key}_not_within_15_s": late, f"{key}_unconfirmed": unconfirmed, f"{key}_owner_seen_failed": int(flaps > 0)}

    def stop(self):
        for a in self.agents.values():
            a.close()
        self.agents.clear()
        for pid in self.pids() if self.dir else []:
            os.kill(pid, signal.SIGKILL)
        for p in self.shells:
            p.wait(20)
        if self.dir:
            shutil.rmtree(self.dir)
