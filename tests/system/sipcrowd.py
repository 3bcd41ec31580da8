"""Many SIP user agents in one thread, on one UDP socket: they register, watch their own registration, take calls; one of them calls.

What one of them does is a generator: it yields a request (Crowd.ask()) and gets the final answer, or None."""
import heapq
import itertools
import re
import secrets
import selectors
import socket
import time

from sipua import Message, build, digest

T1, T2 = 0.5, 4.0  # RFC 3261 17.1.2
BUFFER = 16 << 20
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32


class Watch:
    """One's subscription to his own registration: what came of it."""

    def __init__(self):
        self.call_id, self.ended, self.repeats, self.again, self.notified = None, None, 0, None, 0
        self.versions = []


class User:
    def __init__(self, name):
        self.name, self.call_id, self.cseq = name, secrets.token_hex(8), 0
        self.server = None  # where its last 200 came from
        self.redirects = 0
        self.watch = None


class Crowd:
    """To be made, and run, in a thread that is in the clients' network. local: its address; servers: where to send to at first."""

    def __init__(self, local, domain, password, window=64):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for name in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            self.sock.setsockopt(socket.SOL_SOCKET, name, BUFFER)
        self.sock.bind((local, 0))
        self.sock.setblocking(False)
        self.where = "%s:%d" % self.sock.getsockname()
        self.domain, self.password, self.window = domain, password, window
        self.users = {}
        self.waiting = {}  # (Call-ID, CSeq) -> Transaction
        self.timers, self.order = [], itertools.count()
        self.running, self.queue = 0, []
        self.challenges = {}  # (server, user) -> the last one, answered ahead
        self.got = {}  # kind of request: how many
        self.redial = None  # where who is told to subscribes again: a function of the user
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.sock, selectors.EVENT_READ)

    def close(self):
        self.selector.close()
        self.sock.close()

    def user(self, name):
        return self.users.setdefault(name, User(name))

    # --- the loop ---

    def run(self, tasks, deadline=120.0):
        """All of these generators to their end, some at a time."""
        self.queue.extend(tasks)
        self.loop(lambda: not self.queue and not self.running, deadline)

    def loop(self, done, deadline):
        end = time.monotonic() + deadline
        while not done():
            while self.queue and self.running < self.window:
                self.running += 1
                self.step(self.queue.pop(0), None)
            now = time.monotonic()
            assert now < end, f"not within {deadline} s: {self.running} run, {len(self.queue)} wait"
            self.expire(now)
            wait = max(0.0, min(self.timers[0][0] - now, 0.1)) if self.timers else 0.1
            if self.selector.select(wait):
                self.read()

    def step(self, task, value):
        try:
            wish = task.send(value)
        except StopIteration:
            self.running -= 1
            return
        if isinstance(wish, float):  # a pause
            self.at(time.monotonic() + wish, lambda: self.step(task, None))
        else:
            wish.task = task
            wish.send(self)

    def at(self, when, fn):
        heapq.heappush(self.timers, (when, next(self.order), fn))

    def expire(self, now):
        while self.timers and self.timers[0][0] <= now:
            heapq.heappop(self.timers)[2]()

    def read(self):
        for _ in range(500):
            try:
                data, peer = self.sock.recvfrom(65536)
            except BlockingIOError:
                return
            if data.strip():
                m = Message(data.decode())
                m.peer = peer
                self.take(m)

    def take(self, m):
        if not m.status:
            self.serve(m)
            return
        t = self.waiting.get((m.get("Call-ID"), m.cseq))
        if t and m.status >= 200:
            t.end(self, m)

    # --- what others ask ---

    def serve(self, m):
        self.got[m.method] = self.got.get(m.method, 0) + 1
        if m.method == "ACK":
            return
        to = m.get("To")
        if not m.tag("To"):
            to += ";tag=crowd"
        fields = [("Via", v) for v in m.all("Via")] + [("Record-Route", v) for v in m.all("Record-Route")]
        fields += [("From", m.get("From")), ("To", to), ("Call-ID", m.get("Call-ID")), ("CSeq", m.get("CSeq"))]
        if m.method == "INVITE":
            fields.append(("Contact", f"<sip:{m.uri.split(':')[1].split('@')[0]}@{self.where}>"))
        self.sock.sendto(build("SIP/2.0 200 OK", fields).encode(), m.peer)
        if m.method == "NOTIFY":
            self.notified(m)

    def notified(self, m):
        found = re.match(r"sip:([^@]*)@", m.uri)
        user = self.users.get(found[1]) if found else None
        if not user or not user.watch or m.get("Call-ID") != user.watch.call_id:
            return
        w = user.watch
        w.notified += 1
        state = m.get("Subscription-State")
        if not state.startswith("terminated"):
            return
        if w.ended:
            w.repeats += 1
            return
        w.ended = (time.time(), state)
        if "deactivated" in state and self.redial:  # RFC 6665 4.1.3: at once
            self.queue.append(self.watch_again(user))

    # --- requests ---

    def ask(self, user, method, uri, to, server, fields=(), call_id=None, cseq=None, wait=32.0, to_tag="", body=""):
        """To be used with "yield from": the final answer; None: there was none. Challenges are answered, ahead if possible."""
        name = ("WWW-Authenticate", "Authorization") if method == "REGISTER" else ("Proxy-Authenticate", "Proxy-Authorization")
        call_id, tag = call_id or secrets.token_hex(8), secrets.token_hex(4)
        cseq = cseq or itertools.count(1)
        for _ in range(3):
            extra, known = [], self.challenges.get((server, user.name))
            if known and method != "ACK":
                known[1] += 1
                extra = [(name[1], digest(known[0], method, uri, user.name, self.password, known[1]))]
            n = next(cseq)
            head = [("Via", f"SIP/2.0/UDP {self.where};branch=z9hG4bK{secrets.token_hex(8)};rport"), ("Max-Forwards", "70"),
                    ("From", f"<sip:{user.name}@{self.domain}>;tag={tag}"),
                    ("To", f"<{to}>" + (f";tag={to_tag}" if to_tag else "")), ("Call-ID", call_id), ("CSeq", f"{n} {method}")]
            text = build(f"{method} {uri} SIP/2.0", head + list(fields) + extra, body).encode()
            m = yield Transaction((call_id, (n, method)), text, server, wait)
            if m is None or m.status not in (401, 407):
                return m
            said = m.get(name[0])
            if known and "stale=true" not in said:
                return m
            self.challenges[(server, user.name)] = [said, 0]
        return m

    def register(self, user, server, expires=3600, wait=32.0):
        """Follows redirects."""
        aor = f"sip:{user.name}@{self.domain}"
        uri, cseq = f"sip:{self.domain}", iter(lambda: self.count(user), None)
        fields = [("Contact", f"<sip:{user.name}@{self.where}>;expires={expires}")]
        for _ in range(4):
            m = yield from self.ask(user, "REGISTER", uri, aor, server, fields, user.call_id, cseq, wait)
            if m is None or m.status != 302:
                break
            user.redirects += 1
            uri = m.contact()
            found = re.match(r"sips?:(?:[^@]*@)?([^:;>]+)(?::(\d+))?", uri)
            server = (found[1], int(found[2] or 5060))
        if m is not None and m.status == 200:
            user.server = server
        return m

    @staticmethod
    def count(user):
        user.cseq += 1
        return user.cseq

    def watch(self, user, server, wait=32.0):
        aor = f"sip:{user.name}@{self.domain}"
        w = Watch()
        w.call_id, user.watch = secrets.token_hex(8), w
        m = yield from self.ask(user, "SUBSCRIBE", aor, aor, server, [
            ("Event", "reg"), ("Accept", "application/reginfo+xml"), ("Contact", f"<sip:{user.name}@{self.where}>"),
            ("Expires", "3600")], w.call_id, wait=wait)
        return m

    def watch_again(self, user):
        old = user.watch
        while True:
            m = yield from self.watch(user, self.redial(user), 4.0)
            new, user.watch = user.watch, old
            if m is not None and m.status in (200, 202):
                break
            yield 0.2
        new.ended, new.repeats, new.again = old.ended, old.repeats, time.time()
        user.watch = new

    def reach(self, caller, user, server, wait=32.0):
        """A message to this user: whether it arrived"""
        uri = f"sip:{user.name}@{self.domain}"
        m = yield from self.ask(caller, "MESSAGE", uri, uri, server, [("Content-Type", "text/plain")], wait=wait, body="there?")
        return m is not None and m.status == 200

    def call(self, caller, user, server, wait=32.0):
        """INVITE, ACK, BYE: whether all went well. Homes record no route: the rest goes to the other's Contact."""
        uri = f"sip:{user.name}@{self.domain}"
        call_id, cseq = secrets.token_hex(8), itertools.count(1)
        contact = [("Contact", f"<sip:{caller.name}@{self.where}>")]
        m = yield from self.ask(caller, "INVITE", uri, uri, server, contact, call_id, cseq, wait)
        if m is None or m.status != 200:
            return False
        target = m.contact()
        at = target.split("@")[1].split(":")
        head = [("Via", f"SIP/2.0/UDP {self.where};branch=z9hG4bK{secrets.token_hex(8)};rport"), ("Max-Forwards", "70"),
                ("From", m.get("From")), ("To", m.get("To")), ("Call-ID", call_id), ("CSeq", f"{m.cseq[0]} ACK")]
        self.sock.sendto(build(f"ACK {target} SIP/2.0", head).encode(), (at[0], int(at[1])))
        m = yield from self.ask(caller, "BYE", target, uri, (at[0], int(at[1])), (), call_id, cseq, wait, m.tag("To"))
        return m is not None and m.status == 200


class Transaction:
    """A request on its way: sent again until it is answered (RFC 3261 17.1.2, also for INVITE, whose ACK of a refusal is sent)."""

    def __init__(self, key, text, server, wait):
        self.key, self.text, self.server, self.wait = key, text, server, wait
        self.task, self.over, self.pause, self.until = None, False, T1, 0.0

    def send(self, crowd):
        now = time.monotonic()
        if not self.until:
            self.until = now + self.wait
            crowd.waiting[self.key] = self
        elif now >= self.until:
            self.end(crowd, None)
            return
        crowd.sock.sendto(self.text, self.server)
        crowd.at(min(now + self.pause, self.until), lambda: self.over or self.send(crowd))
        self.pause = min(2 * self.pause, T2)

    def end(self, crowd, m):
        self.over = True
        del crowd.waiting[self.key]
        if m is not None and self.key[1][1] == "INVITE" and m.status >= 300:
            head = [("Via", m.all("Via")[0].split(",")[0]), ("Max-Forwards", "70"), ("From", m.get("From")), ("To", m.get("To")),
                    ("Call-ID", m.get("Call-ID")), ("CSeq", f"{self.key[1][0]} ACK")]
            uri = self.text.split(b" ", 2)[1].decode()
            crowd.sock.sendto(build(f"ACK {uri} SIP/2.0", head).encode(), self.server)
        crowd.step(self.task, m)
