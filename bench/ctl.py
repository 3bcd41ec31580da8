"""A client of holdfastd's control socket (doc/wire/control.md) for measurements: it never blocks
where it could be late, and knows the pid of the daemon at the other end."""
import json
import socket
import struct

HELLO, PUBLISH, WITHDRAW, WATCH, QUERY, RESULT, TEXT, EVENT = 1, 2, 3, 4, 6, 16, 17, 18
ADDED, CHANGED, REMOVED, SYNCED = 1, 2, 3, 4


class Refused(Exception):
    """A request ended with an error; the text is the daemon's."""


class Client:
    """One connection. Frames that come are queued in `events` (watches) and `results` (by seq)."""

    def __init__(self, path, timeout=10.0):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.pid = struct.unpack("3i", self.sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.buf = bytearray()
        self.seq = 0
        self.greeted = False
        self.events = []  # (event, owner, name, value)
        self.results = {}  # seq: (code, text)
        self.texts = {}  # seq: [bytes]
        self._send(HELLO, b"\x01" + self._str(">H", "bench"))
        while not self.greeted:
            self.receive()

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    @staticmethod
    def _str(length, s):
        b = s if isinstance(s, bytes) else s.encode()
        return struct.pack(length, len(b)) + b

    def _send(self, kind, body):
        self.sock.sendall(struct.pack(">IB", len(body) + 1, kind) + body)

    def _frame(self, kind, body):
        self.seq += 1
        return struct.pack(">IBI", len(body) + 5, kind, self.seq) + body

    def receive(self):
        """Read once (blocks if nothing is there) and take the whole frames in."""
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise ConnectionError("holdfastd closed the connection")
        self.buf += piece
        at = 0
        while len(self.buf) - at >= 4:
            n = struct.unpack_from(">I", self.buf, at)[0]
            if len(self.buf) - at < 4 + n:
                break
            self._take(self.buf[at + 4], bytes(self.buf[at + 5:at + 4 + n]))
            at += 4 + n
        del self.buf[:at]

    def _take(self, kind, b):
        if kind == HELLO:
            self.greeted = True
            return
        seq = struct.unpack_from(">I", b)[0]
        if kind == RESULT:
            self.results[seq] = (struct.unpack_from(">i", b, 4)[0], b[10:].decode())
        elif kind == TEXT:
            self.texts.setdefault(seq, []).append(b[8:])
        elif kind == EVENT:
            at = 6 + b[5]
            name = b[at + 1:at + 1 + b[at]]
            self.events.append((b[4], b[6:at].decode(), name.decode(), b[at + 5 + len(name):]))

    def wait(self, seq):
        while seq not in self.results:
            self.receive()
        code, text = self.results.pop(seq)
        if code:
            raise Refused(text)
        return b"".join(self.texts.pop(seq, []))

    def publish(self, name, value):
        """Ask for it; the answer is in `results` later."""
        self.sock.sendall(self._frame(PUBLISH, struct.pack(">I", 0) + self._str("B", name) +
                                      self._str(">I", value)))
        return self.seq

    def publish_all(self, entries):
        """Many at once, answers read as they come; returns when all are in."""
        entries = list(entries)
        for at in range(0, len(entries), 500):
            frames = [self._frame(PUBLISH, struct.pack(">I", 0) + self._str("B", name) +
                                  self._str(">I", value)) for name, value in entries[at:at + 500]]
            self.sock.sendall(b"".join(frames))
            for seq in range(self.seq - len(frames) + 1, self.seq + 1):
                self.wait(seq)

    def watch(self, prefix):
        """Events of what is there now are read and thrown away."""
        self.sock.sendall(self._frame(WATCH, self._str("B", prefix)))
        self.wait(self.seq)
        while not any(e[0] == SYNCED for e in self.events):
            self.receive()
        self.events.clear()

    def query(self, what):
        self.sock.sendall(self._frame(QUERY, self._str("B", what) + self._str(">I", "")))
        return self.wait(self.seq)

    def status(self):
        return json.loads(self.query("status"))
