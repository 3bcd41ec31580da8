#!/usr/bin/python3
"""Many clients in one process, each adding one to its own row every now and then, all together RATE times a second; after an
error a client connects again, every 10 ms, as a careful application does. Runs on the client host of bench-takeover.

    stall.py ADDRESS PORT SESSIONS RATE

Lines on standard input: "begin" forgets what was; "tell" tells as a line of JSON: longest_ms, of each client the longest time
from a request to its answer (what is under way counts, reconnecting too), sorted; answered, how many clients got an answer that
they asked for after the last "mark"; errors, requests that failed, and reasons; refused, connections that could not be had; now,
CLOCK_MONOTONIC; "mark": now; "quit" ends, and tells of each client acknowledged additions, and those that got an error instead."""
import collections
import heapq
import json
import os
import select
import socket
import struct
import sys
import time

RETRY = 0.01  # s until a client tries again
CONNECT = 1.0  # s until it gives up a connection that is not made
LOGIN = 20.0  # ... one that is made, but does not let it in


def message(kind, text):
    body = text.encode() + b"\0"
    return kind + struct.pack(">I", len(body) + 4) + body


STARTUP = b"user\0postgres\0database\0postgres\0\0"
STARTUP = struct.pack(">II", len(STARTUP) + 8, 3 << 16) + STARTUP


class Client:
    """A state machine: off -> connecting -> login -> idle <-> asking"""

    def __init__(self, all_, me, due):
        self.all, self.me = all_, me
        self.state, self.sock, self.buf = "off", None, b""
        self.asked = None  # when what it waits for was asked first
        self.acked = self.in_doubt = 0
        self.longest, self.answered_at = 0.0, 0.0
        self.at(due)

    def at(self, due):
        """When it does what is next; None: when it is told something"""
        self.due = due
        if due is not None:
            heapq.heappush(self.all.due, (due, self.me))

    def act(self, now):
        if self.state == "off":
            self.connect(now)
        elif self.state == "idle":
            self.asked = self.asked or now
            self.state = "asking"
            self.at(None)
            self.say(message(b"Q", f"update counters set n = n + 1 where id = {self.me}"))
        elif self.state in ("connecting", "login"):
            self.lost(now, "no answer to a connection", refused=True)

    def connect(self, now):
        self.sock = socket.socket(socket.AF_INET6 if ":" in self.all.to[0] else socket.AF_INET)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf, self.state = b"", "connecting"
        self.at(now + CONNECT)
        self.all.by_fd[self.sock.fileno()] = self
        self.all.poll.register(self.sock, select.EPOLLOUT)
        self.sock.connect_ex(self.all.to)

    def say(self, data):
        try:
            self.sock.send(data)
        except OSError:
            pass  # it is told when it is read

    def event(self, now):
        if self.state == "connecting":
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.lost(now, os.strerror(error), refused=True)
                return
            self.state = "login"
            self.at(now + LOGIN)
            self.all.poll.modify(self.sock, select.EPOLLIN)
            self.say(STARTUP)
            return
        try:
            data = self.sock.recv(65536)
        except OSError as e:
            self.lost(now, e.strerror, refused=self.state == "login")
            return
        if not data:
            self.lost(now, "closed", refused=self.state == "login")
            return
        self.buf += data
        while len(self.buf) >= 5 and len(self.buf) > (n := struct.unpack_from(">I", self.buf, 1)[0]):
            kind, body, self.buf = self.buf[:1], self.buf[5:n + 1], self.buf[n + 1:]
            if kind == b"E":
                fields = {f[0]: f[1:] for f in body.decode(errors="replace").split("\0") if f}
                self.lost(now, f"{fields.get('C')} {fields.get('M')}", refused=self.state == "login")
                return
            if kind == b"Z":
                self.ready(now)

    def ready(self, now):
        if self.state == "asking":
            self.acked += 1
            self.longest, self.answered_at = max(self.longest, now - self.asked), self.asked
            self.asked = None
        self.state = "idle"
        self.at(now if self.asked else now + self.all.period)

    def lost(self, now, why, refused=False):
        if refused:
            self.all.refused += 1
        elif self.state == "asking":
            self.all.errors[why] += 1
            self.in_doubt += 1
        else:
            self.all.errors[f"idle: {why}"] += 1
        self.asked = self.asked or now
        del self.all.by_fd[self.sock.fileno()]
        self.all.poll.unregister(self.sock)
        self.sock.close()
        self.state = "off"
        self.at(now + RETRY)


class Clients:
    def __init__(self, to, sessions, rate):
        self.to, self.period = to, sessions / rate
        self.poll, self.by_fd, self.ending = select.epoll(), {}, False
        self.errors, self.refused, self.mark = collections.Counter(), 0, 0.0
        self.due = []  # a heap of (when, whose number); out of date if that one has another time by now
        now = time.monotonic()
        # one after the other, both when they begin and afterwards
        self.clients = [Client(self, k, now + k / rate) for k in range(sessions)]

    def begin(self):
        self.errors.clear()
        self.refused = 0
        for c in self.clients:
            c.longest = 0.0

    def tell(self):
        now = time.monotonic()
        longest = sorted(max(c.longest, now - c.asked if c.asked else 0.0) * 1e3 for c in self.clients)
        print(json.dumps({"longest_ms": [round(n, 2) for n in longest], "errors": self.errors.total(), "reasons": self.errors,
                          "refused": self.refused, "now": now, "answered": sum(c.answered_at > self.mark for c in self.clients)}),
              flush=True)

    def turn(self):
        """What is due, then what comes; True when a line of input is there."""
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            due, k = heapq.heappop(self.due)
            if not self.ending and self.clients[k].due == due:
                self.clients[k].act(now)
        said = False
        for fd, _ in self.poll.poll(0.002, 256):
            if fd == 0:
                said = True
            elif c := self.by_fd.get(fd):
                c.event(time.monotonic())
        return said

    def run(self):
        self.poll.register(0, select.EPOLLIN)
        while True:
            if not self.turn():
                continue
            word = sys.stdin.buffer.raw.readline().strip()
            if word == b"begin":
                self.begin()
            elif word == b"tell":
                self.tell()
            elif word == b"mark":
                self.mark = time.monotonic()
            else:
                break
        self.ending, end = True, time.monotonic() + 60
        while any(c.state == "asking" for c in self.clients) and time.monotonic() < end:
            self.turn()
        print(json.dumps([(c.acked, c.in_doubt) for c in self.clients]), flush=True)


def main():
    address, port, sessions, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    Clients((address, port), sessions, rate).run()


if __name__ == "__main__":
    main()
