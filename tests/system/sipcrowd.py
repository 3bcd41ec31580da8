"""Many SIP user agents in one thread: they register, watch their own registration, take calls; some of them call. Those with UDP have
one socket, those with TCP and TLS a connection each.

What one of them does is a generator: it yields a request (Crowd.ask()) and gets the final answer, or None."""
import contextlib
import heapq
import itertools
import re
import secrets
import selectors
import socket
import ssl
import time

from sipua import Message, build, digest

T1, T2 = 0.5, 4.0  # RFC 3261 17.1.2
STOCK = 500  # sockets made at once: to enter a network takes some 20 ms
PONG = 10.0  # RFC 5626 4.4.1
BUFFER = 16 << 20
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32


class Watch:
    """One's subscription to his own registration: what came of it, also of the one before it, which ended."""

    def __init__(self):
        self.call_id, self.ended, self.repeats, self.again, self.notified = None, None, 0, None, 0
        self.ended_id, self.body = None, ""  # Call-ID of what ended; what was told last


class Stream:
    """A user's connection to one server, over TCP or (context) TLS. What comes goes to the crowd, and that it broke."""

    def __init__(self, crowd, user, server, context):
        self.crowd, self.user, self.server = crowd, user, server
        self.sock = crowd.stream_socket()
        self.sock.setblocking(False)
        self.sock.bind((crowd.local, 0))
        self.where = "%s:%d" % self.sock.getsockname()
        self.alive, self.shaken, self.pinged = True, not context, None
        self.wait, self.out, self.buffer = [], b"", b""
        if context:
            self.bio = (ssl.MemoryBIO(), ssl.MemoryBIO())
            self.tls = context.wrap_bio(*self.bio, server_hostname=server[0])
        else:
            self.tls = None
        self.sock.connect_ex(server)
        self.mask = selectors.EVENT_READ | selectors.EVENT_WRITE  # written: it is connected
        crowd.selector.register(self.sock, self.mask, self)

    def close(self):
        if self.alive:
            self.alive = False
            self.crowd.selector.unregister(self.sock)
            self.sock.close()

    def broke(self):
        if self.alive:
            self.close()
            self.crowd.broke(self)

    def send(self, data):
        self.wait.append(data)
        if not self.mask & selectors.EVENT_WRITE:
            self.ready(selectors.EVENT_WRITE)

    def ping(self):
        now = time.monotonic()
        if self.pinged and now - self.pinged > PONG:
            self.broke()
        else:
            self.pinged = self.pinged or now
            self.send(b"\r\n\r\n")

    def ready(self, mask):
        try:
            if mask & selectors.EVENT_READ:
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionResetError
                self.pinged = None
                self.take(data)
            if self.alive:
                self.flush()
        except BlockingIOError:
            pass
        except (OSError, ssl.SSLError):
            self.broke()

    def flush(self):
        if not self.shaken:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                self.shaken = True
        while self.wait and self.shaken:
            data = self.wait.pop(0)
            if self.tls:
                self.tls.write(data)
            else:
                self.out += data
        if self.tls:
            self.out += self.bio[1].read()
        if self.out:
            with contextlib.suppress(BlockingIOError):
                self.out = self.out[self.sock.send(self.out):]
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
        if mask != self.mask:
            self.mask = mask
            self.crowd.selector.modify(self.sock, mask, self)

    def take(self, data):
        if self.tls:
            self.bio[0].write(data)
            data = b""
            with contextlib.suppress(ssl.SSLWantReadError):
                if not self.shaken:
                    self.tls.do_handshake()
                    self.shaken = True
                while True:
                    more = self.tls.read(65536)
                    if not more:
                        raise ConnectionResetError
                    data += more
        self.buffer += data
        while self.alive:
            self.buffer = self.buffer.lstrip(b"\r\n")
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            found = re.search(rb"(?im)^content-length\s*:\s*(\d+)", self.buffer[:head])
            n = head + 4 + int(found[1])
            if len(self.buffer) < n:
                return
            m, self.buffer = Message(self.buffer[:n].decode()), self.buffer[n:]
            m.peer = self
            self.crowd.take(m)


class User:
    """kind: udp, tcp, tls; or edge: over UDP, by way of an edge"""

    def __init__(self, name):
        self.name, self.call_id, self.cseq = name, secrets.token_hex(8), 0
        self.kind, self.stream = "udp", None
        self.returns, self.back = False, None  # his connection is being replaced; when it was
        self.server = None  # where its last 200 came from
        self.terms = 0  # how often he was granted one
        self.redirects = 0
        self.watch = None
        self.q = ""  # his Contact's


class Crowd:
    """inside: calls a function in the clients' network, where sockets have to be made. local: its address."""

    def __init__(self, inside, local, domain, password, window=64):
        self.inside = inside
        self.sock = inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for name in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            self.sock.setsockopt(socket.SOL_SOCKET, name, BUFFER)
        self.sock.bind((local, 0))
        self.sock.setblocking(False)
        self.local, self.where = local, "%s:%d" % self.sock.getsockname()
        self.domain, self.password, self.window = domain, password, window
        self.stock, self.context = [], None  # sockets of the clients' network; for TLS
        self.broken = None  # what comes of a user whose connection broke: a function that makes a generator
        self.granted = None  # told of each registration: (user, seconds granted, seconds asked for)
        self.users = {}
        self.waiting = {}  # (Call-ID, CSeq) -> Transaction
        self.timers, self.order = [], itertools.count()
        self.running, self.queue, self.own = 0, [], set()  # own: tasks that nobody has to wait for
        self.challenges = {}  # (server, user) -> the last one, answered ahead
        self.got = {}  # kind of request: how many
        self.delivered = {}  # Call-ID of each MESSAGE that came: its branches
        self.redial = None  # where who is told to subscribes again: a function of the user
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.sock, selectors.EVENT_READ)

    def close(self):
        for u in self.users.values():
            if u.stream:
                u.stream.close()
        for s in self.stock:
            s.close()
        self.selector.close()
        self.sock.close()

    def stream_socket(self):
        if not self.stock:
            self.stock = self.inside(lambda: [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(STOCK)])
        return self.stock.pop()

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
            for key, mask in self.selector.select(wait):
                if key.data:
                    key.data.ready(mask)
                else:
                    self.read()

    def step(self, task, value):
        try:
            wish = task.send(value)
        except StopIteration:
            if task in self.own:
                self.own.remove(task)
            else:
                self.running -= 1
            return
        if isinstance(wish, float):  # a pause
            self.at(time.monotonic() + wish, lambda: self.step(task, None))
        else:
            wish.task = task
            wish.send(self)

    def start(self, task):
        """Now, whatever else runs, as what happens to a user makes him do it."""
        self.own.add(task)
        self.step(task, None)

    def broke(self, stream):
        for t in [t for t in self.waiting.values() if t.server is stream]:
            t.end(self, None)
        if stream.user.stream is stream:
            stream.user.stream = None
            if self.broken and not stream.user.returns:
                stream.user.returns = True
                self.start(self.broken(stream.user))

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

    def post(self, to, text):
        """to: a connection, or where to send a datagram"""
        if isinstance(to, Stream):
            if to.alive:
                to.send(text)
        else:
            self.sock.sendto(text, to)

    def channel(self, user, server):
        """By what this user sends there"""
        if user.kind not in ("tcp", "tls"):
            return server
        if not user.stream or user.stream.server != server:
            if user.stream:
                user.stream.close()
            user.stream = Stream(self, user, server, self.context if user.kind == "tls" else None)
        return user.stream

    def contact(self, user, server):
        channel = self.channel(user, server)
        at = f"{channel.where};transport={user.kind}" if isinstance(channel, Stream) else self.where
        return f"<sip:{user.name}@{at}>"

    # --- what others ask ---

    def serve(self, m):
        self.got[m.method] = self.got.get(m.method, 0) + 1
        if m.method == "MESSAGE":
            self.delivered.setdefault(m.get("Call-ID"), set()).add(re.search(r"branch=([^;,\s]+)", m.get("Via"))[1])
        if m.method == "ACK":
            return
        to = m.get("To")
        if not m.tag("To"):
            to += ";tag=crowd"
        fields = [("Via", v) for v in m.all("Via")] + [("Record-Route", v) for v in m.all("Record-Route")]
        fields += [("From", m.get("From")), ("To", to), ("Call-ID", m.get("Call-ID")), ("CSeq", m.get("CSeq"))]
        if m.method == "INVITE":
            fields.append(("Contact", f"<sip:{m.uri.split(':')[1].split('@')[0]}@{self.where}>"))
        self.post(m.peer, build("SIP/2.0 200 OK", fields).encode())
        if m.method == "NOTIFY":
            self.notified(m)

    def notified(self, m):
        found = re.match(r"sip:([^@]*)@", m.uri)
        user = self.users.get(found[1]) if found else None
        if not user or not user.watch or m.get("Call-ID") != user.watch.call_id:
            return
        w = user.watch
        w.notified += 1
        w.body = m.body or w.body
        state = m.get("Subscription-State")
        if not state.startswith("terminated"):
            return
        if w.ended_id == w.call_id:
            w.repeats += 1
            return
        w.ended, w.ended_id = (time.time(), state), w.call_id
        if "deactivated" in state and self.redial:  # RFC 6665 4.1.3: at once
            self.start(self.watch_again(user))

    # --- requests ---

    def ask(self, user, method, uri, to, server, fields=(), call_id=None, cseq=None, wait=32.0, to_tag="", body=""):
        """To be used with "yield from": the final answer; None: there was none. Challenges are answered, ahead if possible."""
        name = ("WWW-Authenticate", "Authorization") if method == "REGISTER" else ("Proxy-Authenticate", "Proxy-Authorization")
        call_id, tag = call_id or secrets.token_hex(8), secrets.token_hex(4)
        cseq = cseq or itertools.count(1)
        for _ in range(3):
            channel, extra, known = self.channel(user, server), [], self.challenges.get((server, user.name))
            by = (user.kind.upper(), channel.where) if isinstance(channel, Stream) else ("UDP", self.where)
            if known and method != "ACK":
                known[1] += 1
                extra = [(name[1], digest(known[0], method, uri, user.name, self.password, known[1]))]
            n = next(cseq)
            head = [("Via", f"SIP/2.0/{by[0]} {by[1]};branch=z9hG4bK{secrets.token_hex(8)};rport"), ("Max-Forwards", "70"),
                    ("From", f"<sip:{user.name}@{self.domain}>;tag={tag}"),
                    ("To", f"<{to}>" + (f";tag={to_tag}" if to_tag else "")), ("Call-ID", call_id), ("CSeq", f"{n} {method}")]
            text = build(f"{method} {uri} SIP/2.0", head + list(fields) + extra, body).encode()
            m = yield Transaction((call_id, (n, method)), text, channel, wait)
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
        for _ in range(4):
            contact = self.contact(user, server)
            fields = [("Contact", f"{contact};expires={expires}" + (f";q={user.q}" if user.q else ""))]
            m = yield from self.ask(user, "REGISTER", uri, aor, server, fields, user.call_id, cseq, wait)
            if m is None or m.status != 302:
                break
            user.redirects += 1
            uri = m.contact()
            found = re.match(r"sips?:(?:[^@]*@)?([^:;>]+)(?::(\d+))?", uri)
            server = (found[1], int(found[2] or (5061 if "transport=tls" in uri else 5060)))
        if m is not None and m.status == 200:
            user.server = server
            user.terms += 1
            if self.granted:
                own = next((v for v in m.values("Contact") if contact in v), "")
                self.granted(user, int(re.search(r";expires=(\d+)", own)[1]) if own else 0, expires)
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
            ("Event", "reg"), ("Accept", "application/reginfo+xml"), ("Contact", self.contact(user, server)),
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
        new.ended, new.ended_id, new.repeats, new.again = old.ended, old.ended_id, old.repeats, time.time()
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
        crowd.post(self.server, self.text)
        again = self.until if isinstance(self.server, Stream) else min(now + self.pause, self.until)
        crowd.at(again, lambda: self.over or self.send(crowd))
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
