"""A SIP user agent for tests: REGISTER with digest (RFC 8760), calls, MESSAGE, SUBSCRIBE; UDP, TCP, TLS.

One Agent has one socket (UDP: bound; TCP, TLS: connected to the server) and a thread that reads.
Plain and strict: it checks what it gets, and answers as RFC 3261 says."""
import hashlib
import queue
import re
import secrets
import select
import socket
import ssl
import threading

WAIT = 20  # seconds for anything to come


class Timeout(Exception):
    pass


def split(text):
    """A header's values at its commas, outside of quotes and <>."""
    out, depth, quoted, cur = [], 0, False, ""
    for c in text:
        quoted ^= c == '"'
        depth += (c == "<") - (c == ">") if not quoted else 0
        if c == "," and not quoted and not depth:
            out.append(cur.strip())
            cur = ""
        else:
            cur += c
    return out + [cur.strip()] if cur.strip() else out


class Message:
    def __init__(self, text):
        head, self.body = text.split("\r\n\r\n", 1)
        lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
        self.start = lines[0]
        self.fields = []
        for line in lines[1:]:
            name, value = line.split(":", 1)
            self.fields.append((name.strip(), value.strip()))
        self.status = int(self.start.split(" ", 2)[1]) if self.start.startswith("SIP/") else 0
        self.method = "" if self.status else self.start.split(" ")[0]
        self.uri = "" if self.status else self.start.split(" ")[1]

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def values(self, name):
        return [v for line in self.all(name) for v in split(line)]

    def get(self, name, default=""):
        found = self.all(name)
        return found[0] if found else default

    def tag(self, name):
        found = re.search(r";\s*tag=([^;\s]+)", self.get(name))
        return found[1] if found else ""

    @property
    def cseq(self):
        number, method = self.get("CSeq").split()
        return int(number), method

    def contact(self):
        """The URI of the first Contact."""
        found = re.search(r"<([^>]*)>|(\S+)", self.get("Contact"))
        return found[1] or found[2] if found else ""

    def __repr__(self):
        return self.start


def build(start, fields, body=""):
    lines = [start] + [f"{n}: {v}" for n, v in fields]
    return "\r\n".join(lines + [f"Content-Length: {len(body.encode())}", "", body])


HASHES = {"MD5": lambda s: hashlib.md5(s).hexdigest(), "SHA-256": lambda s: hashlib.sha256(s).hexdigest(),
          "SHA-512-256": lambda s: hashlib.new("sha512_256", s).hexdigest()}


def digest(challenge, method, uri, user, password, count=1):
    """The value of Authorization for one challenge; None: not one that we can answer. count: how often its nonce is used."""
    given = dict((k.lower(), v.strip('"')) for k, v in re.findall(r'(\w+)=("[^"]*"|[^\s,]+)', challenge))
    algorithm = given.get("algorithm", "MD5")
    if algorithm not in HASHES:
        return None
    h = lambda s: HASHES[algorithm](s.encode())
    cnonce, nc = secrets.token_hex(8), f"{count:08x}"
    response = h(":".join([h(f"{user}:{given['realm']}:{password}"), given["nonce"], nc, cnonce, "auth",
                           h(f"{method}:{uri}")]))
    return (f'Digest username="{user}", realm="{given["realm"]}", nonce="{given["nonce"]}", uri="{uri}", '
            f'response="{response}", algorithm={algorithm}, qop=auth, nc={nc}, cnonce="{cnonce}"')


def tls_context(ca):
    """For clients that verify their server."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(ca)
    return c


class Agent:
    """An agent of one user. server: (address, port) that everything is sent to."""

    def __init__(self, user, server, domain="example.org", password="", transport="udp", local="127.0.0.1",
                 port=0, context=None, follows=True, answers=True):
        self.user, self.server, self.domain, self.password = user, server, domain, password
        self.transport, self.follows, self.answers = transport, follows, answers
        self.aor = f"sip:{user}@{domain}"
        self.call_id, self.number = secrets.token_hex(8) + "@" + local, 0
        self.responses, self.requests = {}, queue.Queue()
        self.lock = threading.Lock()
        self.seen = []  # all requests that came
        self.redirects = 0
        self.closed = False
        family = socket.AF_INET6 if ":" in local else socket.AF_INET
        if transport == "udp":
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
            self.sock.bind((local, port))
        else:
            self.sock = socket.create_connection(server, WAIT, (local, port))
            if transport == "tls":
                self.sock = context.wrap_socket(self.sock, server_hostname=server[0])
            self.sock.settimeout(None)
        self.host, self.port = self.sock.getsockname()[:2]
        where = f"[{self.host}]" if ":" in self.host else self.host
        self.where = f"{where}:{self.port}"
        param = "" if transport == "udp" else f";transport={transport}"
        self.contact = f"<sip:{user}@{self.where}{param}>"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def close(self):
        self.closed = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if self.transport == "udp":  # wakes the reader
            with socket.socket(self.sock.family, socket.SOCK_DGRAM) as s:
                s.sendto(b"\r\n\r\n", (self.host, self.port))
        self.thread.join(WAIT)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- the wire ----

    def send(self, text, to=None):
        data = text.encode()
        with self.lock:
            if self.transport == "udp":
                self.sock.sendto(data, to or self.server)
            else:
                self.sock.sendall(data)

    def _receive(self):
        if self.transport == "udp":
            return self.sock.recvfrom(65536)
        if self.transport == "tcp":
            return self.sock.recv(65536), None
        ready = select.poll()
        ready.register(self.sock, select.POLLIN)
        while True:
            if not self.sock.pending():
                ready.poll()
            with self.lock:  # OpenSSL's objects are for one thread at a time
                self.sock.settimeout(0)
                try:
                    return self.sock.recv(65536), None
                except (BlockingIOError, ssl.SSLWantReadError):  # a ticket, half a record
                    pass
                finally:
                    self.sock.settimeout(None)

    def _read(self):
        buf = b""
        while not self.closed:
            try:
                data, peer = self._receive()
            except OSError:
                return
            if self.transport == "udp":
                if data.strip():
                    self._take(data.decode(), peer)
                continue
            if not data:
                return
            buf += data
            while True:
                buf = buf.lstrip(b"\r\n")
                head = buf.find(b"\r\n\r\n")
                if head < 0:
                    break
                found = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", buf[:head])
                n = head + 4 + (int(found[1]) if found else 0)
                if len(buf) < n:
                    break
                self._take(buf[:n].decode(), None)
                buf = buf[n:]

    def _take(self, text, peer):
        m = Message(text)
        m.peer = peer  # answers go back to where it came from
        if m.status:
            self.responses.setdefault((m.get("Call-ID"), m.cseq), queue.Queue()).put(m)
            return
        self.seen.append(m)
        if self.answers and m.method in ("MESSAGE", "OPTIONS", "NOTIFY", "BYE", "CANCEL"):
            self.answer(m, 200, "OK")
        self.requests.put(m)

    # ---- answers ----

    def answer(self, m, status, reason, fields=(), body=""):
        to = m.get("To")
        if not m.tag("To") and status > 100:
            m.local_tag = getattr(m, "local_tag", None) or secrets.token_hex(4)
            to += f";tag={m.local_tag}"
        copied = [("Via", v) for v in m.all("Via")] + [("Record-Route", v) for v in m.all("Record-Route")]
        copied += [("From", m.get("From")), ("To", to), ("Call-ID", m.get("Call-ID")), ("CSeq", m.get("CSeq"))]
        self.send(build(f"SIP/2.0 {status} {reason}", copied + list(fields), body), m.peer)

    def next_request(self, method, timeout=WAIT):
        """The next request of this method; others are left out."""
        while True:
            try:
                m = self.requests.get(timeout=timeout)
            except queue.Empty:
                raise Timeout(f"{self.user}: no {method} came") from None
            if m.method == method:
                return m

    # ---- requests ----

    def via(self):
        return f"SIP/2.0/{self.transport.upper()} {self.where};branch=z9hG4bK{secrets.token_hex(8)};rport"

    def request(self, method, uri, to=None, fields=(), body="", call_id=None, from_tag=None, to_tag="", cseq=None,
                server=None):
        """Sends one; returns what tells its answers apart."""
        self.number += 1
        key = (call_id or self.call_id, (cseq or self.number, method))
        to = to or uri
        head = [("Via", self.via()), ("Max-Forwards", "70"),
                ("From", f"<{self.aor}>;tag={from_tag or secrets.token_hex(4)}"),
                ("To", f"<{to}>" + (f";tag={to_tag}" if to_tag else "")), ("Call-ID", key[0]),
                ("CSeq", f"{key[1][0]} {method}"), ("User-Agent", "holdfast-sipua")]
        self.responses.setdefault(key, queue.Queue())
        text = build(f"{method} {uri} SIP/2.0", head + list(fields), body)
        self.send(text, server)
        return key, text

    def of_its_transaction(self, method, invite, to_tag=""):
        """A CANCEL, or the ACK of a refusal, for an INVITE as it was sent (RFC 3261 9.1, 17.1.1.3)."""
        m = Message(invite)
        to = m.get("To") + (f";tag={to_tag}" if to_tag else "")
        number = m.cseq[0]
        self.responses.setdefault((m.get("Call-ID"), (number, method)), queue.Queue())
        self.send(build(f"{method} {m.uri} SIP/2.0", [
            ("Via", m.get("Via")), ("Max-Forwards", "70"), ("From", m.get("From")), ("To", to),
            ("Call-ID", m.get("Call-ID")), ("CSeq", f"{number} {method}")]))
        return m.get("Call-ID"), (number, method)

    def response(self, key, timeout=WAIT, final=True):
        """The next one, by default the next final one."""
        while True:
            try:
                m = self.responses[key].get(timeout=timeout)
            except queue.Empty:
                raise Timeout(f"{self.user}: no answer to {key[1][1]}") from None
            if m.status >= 200 or not final:
                return m

    def ask(self, method, uri, fields=(), timeout=WAIT, retransmit=0.5, server=None, **rest):
        """A request and its final answer; challenges are answered, UDP is sent again."""
        extra, rest["from_tag"] = list(fields), rest.get("from_tag") or secrets.token_hex(4)
        for _ in range(4):
            key, text = self.request(method, uri, fields=extra, server=server, **rest)
            m = self._await(key, text, timeout, retransmit, server)
            if m.status in (401, 407):
                name = ("WWW-Authenticate", "Authorization") if m.status == 401 else (
                    "Proxy-Authenticate", "Proxy-Authorization")
                if any(n == name[1] for n, _ in extra) and "stale=true" not in "".join(m.all(name[0])):
                    return m
                said = next(filter(None, (digest(c, method, uri, self.user, self.password)
                                          for c in m.all(name[0]))), None)
                if said is None:
                    return m
                extra = [f for f in extra if f[0] != name[1]] + [(name[1], said)]
                continue
            if m.status in (301, 302) and self.follows and method == "REGISTER":
                self.redirects += 1
                uri = m.contact()
                found = re.match(r"sips?:(?:[^@]*@)?(\[[^\]]*\]|[^:;>]+)(?::(\d+))?", uri)
                server = (found[1].strip("[]"), int(found[2] or 5060))
                self.server = server
                rest.setdefault("to", self.aor)
                continue
            return m
        return m

    def _await(self, key, text, timeout, retransmit, server):
        if self.transport != "udp":
            return self.response(key, timeout)
        waited, pause = 0.0, retransmit
        while True:
            try:
                return self.response(key, pause)
            except Timeout:
                waited += pause
                if waited >= timeout:
                    raise
                pause = min(2 * pause, 4)
                self.send(text, server)

    def register(self, expires=3600, contact=None, **rest):
        fields = [("Contact", f"{contact or self.contact};expires={expires}")]
        return self.ask("REGISTER", f"sip:{self.domain}", to=self.aor, fields=fields, **rest)

    def register_alone(self):
        """What others have registered is ended."""
        gone = self.ask("REGISTER", f"sip:{self.domain}", to=self.aor, fields=[("Contact", "*"), ("Expires", "0")])
        return self.register() if gone.status == 200 else gone

    def message(self, to, text):
        return self.ask("MESSAGE", to, fields=[("Content-Type", "text/plain")], body=text,
                        call_id=secrets.token_hex(8))

    def subscribe(self, to, package="reg", expires=600, accept="application/reginfo+xml"):
        return self.ask("SUBSCRIBE", to, call_id=secrets.token_hex(8),
                        fields=[("Event", package), ("Accept", accept), ("Contact", self.contact),
                                ("Expires", str(expires))])

    def invite(self, to):
        """An INVITE that was let in, and waits: what tells its answers apart, and its text."""
        call_id, tag, fields = secrets.token_hex(8), secrets.token_hex(4), [("Contact", self.contact)]
        while True:
            key, text = self.request("INVITE", to, call_id=call_id, from_tag=tag, fields=fields)
            m = self.response(key, final=False)
            if m.status != 407 or len(fields) > 1:
                return key, text
            self.of_its_transaction("ACK", text, m.tag("To"))
            fields.append(("Proxy-Authorization",
                           digest(m.get("Proxy-Authenticate"), "INVITE", to, self.user, self.password)))

    def call(self, to):
        """INVITE up to its 200, with ACK: a Dialog; or the answer that refused it."""
        call_id, tag = secrets.token_hex(8), secrets.token_hex(4)
        m = self.ask("INVITE", to, call_id=call_id, from_tag=tag, timeout=WAIT,
                     fields=[("Contact", self.contact), ("Content-Type", "application/sdp")],
                     body=f"v=0\r\no=- 1 1 IN IP4 {self.host}\r\ns=-\r\nc=IN IP4 {self.host}\r\nt=0 0\r\n"
                          "m=audio 40000 RTP/AVP 0\r\n")
        if m.status != 200:
            return m
        d = Dialog(self, m.contact(), to, call_id, tag, m.tag("To"), list(reversed(m.values("Record-Route"))),
                   m.cseq[0])
        d.ack()
        return d


class Dialog:
    def __init__(self, agent, target, to, call_id, tag, to_tag, route, cseq):
        self.agent, self.target, self.to = agent, target, to
        self.call_id, self.tag, self.to_tag, self.route, self.cseq = call_id, tag, to_tag, route, cseq
        self.status = 200

    def _fields(self):
        return [("Route", r) for r in self.route] + [("Contact", self.agent.contact)]

    def _hop(self):
        """Where a request in the dialog goes: its first route, or the target. Of UDP only: an agent with a stream
        has but this one, so let it call others only by way of somebody who records a route."""
        found = re.search(r"sips?:(?:[^@>]*@)?(\[[^\]]*\]|[^:;>]+)(?::(\d+))?",
                          self.route[0] if self.route else self.target)
        return (found[1].strip("[]"), int(found[2] or 5060)) if self.agent.transport == "udp" else None

    def ack(self):
        self.agent.request("ACK", self.target, to=self.to, fields=self._fields(), call_id=self.call_id,
                           from_tag=self.tag, to_tag=self.to_tag, cseq=self.cseq, server=self._hop())

    def bye(self):
        return self.agent.ask("BYE", self.target, to=self.to, fields=self._fields(), call_id=self.call_id,
                              from_tag=self.tag, to_tag=self.to_tag, server=self._hop())


def take_call(callee):
    """An agent takes one call, in a thread of its own that ends when it is set up."""
    def run():
        m = callee.next_request("INVITE")
        callee.answer(m, 180, "Ringing")
        callee.answer(m, 200, "OK", [("Contact", callee.contact)])
        callee.next_request("ACK")
    t = threading.Thread(target=run)
    t.start()
    return t
