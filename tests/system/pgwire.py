"""A small client of PostgreSQL's protocol 3 that shows every message: nothing is hidden, nothing is done unasked."""
import base64
import collections
import hashlib
import hmac
import os
import select
import socket
import ssl as tls
import struct
import time

TIMEOUT = float(os.environ.get("PGWIRE_TIMEOUT", "30"))
FIELDS = {"S": "severity_l", "V": "severity", "C": "code", "M": "message", "D": "detail", "H": "hint",
          "P": "position", "p": "internal_position", "q": "internal_query", "W": "where", "s": "schema",
          "t": "table", "c": "column", "d": "type", "n": "constraint", "F": "file", "L": "line",
          "R": "routine"}
BACKEND = {"R": "Authentication", "K": "BackendKeyData", "2": "BindComplete", "3": "CloseComplete",
           "C": "CommandComplete", "d": "CopyData", "c": "CopyDone", "G": "CopyInResponse",
           "H": "CopyOutResponse", "W": "CopyBothResponse", "D": "DataRow", "I": "EmptyQueryResponse",
           "E": "ErrorResponse", "V": "FunctionCallResponse", "v": "NegotiateProtocolVersion",
           "n": "NoData", "N": "NoticeResponse", "A": "NotificationResponse",
           "t": "ParameterDescription", "S": "ParameterStatus", "1": "ParseComplete",
           "s": "PortalSuspended", "Z": "ReadyForQuery", "T": "RowDescription"}

Column = collections.namedtuple("Column", "name table attnum type size modifier format")


class Closed(Exception):
    """The other end closed the connection."""


class PgError(Exception):
    """An ErrorResponse where the caller wanted success."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('severity')} {fields.get('code')}: {fields.get('message')}"
                         + (f" ({fields['detail']})" if "detail" in fields else ""))
        self.fields = fields
        self.code = fields.get("code")
        self.fatal = fields.get("severity") in ("FATAL", "PANIC")


# --- messages of the client ---

def zstr(text):
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def message(kind, body=b""):
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def Query(sql):
    return message("Q", zstr(sql))


def Parse(sql, name="", types=()):
    return message("P", zstr(name) + zstr(sql) + struct.pack(f"!h{len(types)}I", len(types), *types))


def value(v):
    if v is None:
        return struct.pack("!i", -1)
    v = v if isinstance(v, bytes) else str(v).encode()
    return struct.pack("!i", len(v)) + v


def formats(f):
    return struct.pack(f"!h{len(f)}h", len(f), *f)


def Bind(values=(), statement="", portal="", value_formats=(), result_formats=()):
    return message("B", zstr(portal) + zstr(statement) + formats(value_formats)
                   + struct.pack("!h", len(values)) + b"".join(map(value, values)) + formats(result_formats))


def DescribeStatement(name=""):
    return message("D", b"S" + zstr(name))


def DescribePortal(name=""):
    return message("D", b"P" + zstr(name))


def Execute(portal="", rows=0):
    return message("E", zstr(portal) + struct.pack("!i", rows))


def CloseStatement(name=""):
    return message("C", b"S" + zstr(name))


def ClosePortal(name=""):
    return message("C", b"P" + zstr(name))


def FunctionCall(oid, args=(), arg_formats=(), result_format=0):
    return message("F", struct.pack("!I", oid) + formats(arg_formats) + struct.pack("!h", len(args))
                   + b"".join(map(value, args)) + struct.pack("!h", result_format))


def CopyData(data):
    return message("d", data)


def CopyFail(why):
    return message("f", zstr(why))


Sync, Flush, CopyDone, Terminate = message("S"), message("H"), message("c"), message("X")


# --- messages of the server ---

class Reader:
    """A cursor over one message's body"""

    def __init__(self, body):
        self.body, self.at = body, 0

    def num(self, fmt):
        (v,) = struct.unpack_from("!" + fmt, self.body, self.at)
        self.at += struct.calcsize("!" + fmt)
        return v

    def text(self):
        end = self.body.index(b"\0", self.at)
        v = self.body[self.at:end]
        self.at = end + 1
        return v.decode(errors="backslashreplace")

    def value(self):
        n = self.num("i")
        if n < 0:
            return None
        v = self.body[self.at:self.at + n]
        assert len(v) == n
        self.at += n
        return v

    def rest(self):
        return self.body[self.at:]


class Message:
    """One message of the server: type (its letter), name, body, and what it says in `data`."""

    def __init__(self, kind, body):
        self.kind, self.body = kind, body
        self.name = BACKEND.get(kind, kind)
        self.data = getattr(self, "read_" + self.name, lambda r: r.rest())(Reader(body))

    def __repr__(self):
        return f"{self.name} {self.data}" if self.data not in (b"", None) else self.name

    def read_fields(self, r):
        fields = {}
        while (k := r.num("c")) != b"\0":
            fields[FIELDS.get(k.decode(), k.decode())] = r.text()
        return fields

    read_ErrorResponse = read_NoticeResponse = read_fields

    def read_RowDescription(self, r):
        return [Column(r.text(), r.num("I"), r.num("h"), r.num("I"), r.num("h"), r.num("i"), r.num("h"))
                for _ in range(r.num("h"))]

    def read_DataRow(self, r):
        return tuple(r.value() for _ in range(r.num("h")))

    def read_ParameterDescription(self, r):
        return [r.num("I") for _ in range(r.num("h"))]

    def read_CommandComplete(self, r):
        return r.text()

    def read_ReadyForQuery(self, r):
        return r.num("c").decode()

    def read_ParameterStatus(self, r):
        return (r.text(), r.text())

    def read_BackendKeyData(self, r):
        return (r.num("i"), r.rest())

    def read_NotificationResponse(self, r):
        return (r.num("i"), r.text(), r.text())

    def read_CopyInResponse(self, r):
        return (r.num("b"), [r.num("h") for _ in range(r.num("h"))])

    read_CopyOutResponse = read_CopyBothResponse = read_CopyInResponse

    def read_FunctionCallResponse(self, r):
        return r.value()

    def read_Authentication(self, r):
        return (r.num("i"), r.rest())

    def read_NegotiateProtocolVersion(self, r):
        return (r.num("i"), [r.text() for _ in range(r.num("i"))])


class Connection:
    """A session. `seen` holds every message that came, from the login on."""

    def __init__(self, endpoint=None, database="postgres", user="postgres", password=None, *, host="127.0.0.1",
                 port=None, unix=None, options=None, protocol=(3, 0), ssl=None, chop=0, timeout=TIMEOUT):
        """endpoint: something with a port, or host and port, or the path of a Unix socket. ssl: an SSLContext.
        chop: so many bytes in a segment (of what is not large), to let the other end see parts of messages."""
        self.address = unix or (host, port or endpoint.port)
        self.seen, self.parameters, self.key, self.chop, self.timeout = [], {}, None, chop, timeout
        self.status = None  # of the last ReadyForQuery
        self.buffer = bytearray()
        self.socket = self.connect()
        if ssl:
            self.socket.sendall(struct.pack("!ii", 8, 80877103))
            assert self.socket.recv(1) == b"S", "no TLS"
            self.socket = ssl.wrap_socket(self.socket, server_hostname=host)
        words = {"user": user, "database": database} | (options or {})
        body = struct.pack("!HH", *protocol) + b"".join(zstr(k) + zstr(v) for k, v in words.items()) + b"\0"
        try:
            self.send(struct.pack("!i", len(body) + 4) + body)
            self.login(user, password)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        if isinstance(self.address, str):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(self.timeout)
            s.connect(self.address)
            return s
        s = socket.create_connection(self.address, self.timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def send(self, *messages):
        data = b"".join(messages)
        step = max(len(data), 1) if not self.chop else self.chop if len(data) < 10_000 else 997
        try:
            for i in range(0, len(data), step):
                self.socket.sendall(data[i:i + step])
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it said before it closed is still to be read

    def read(self, timeout=None):
        """The next message. TimeoutError when none comes."""
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            if len(self.buffer) >= 5:
                (n,) = struct.unpack_from("!i", self.buffer, 1)
                if len(self.buffer) > n:
                    m = Message(chr(self.buffer[0]), bytes(self.buffer[5:n + 1]))
                    del self.buffer[:n + 1]
                    break
            if not (isinstance(self.socket, tls.SSLSocket) and self.socket.pending()):
                if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                    raise TimeoutError(f"after {self.seen[-3:]}")
            try:
                data = self.socket.recv(65536)
            except ConnectionError as e:
                raise Closed(f"{e}, after {self.seen[-3:]}") from e
            if not data:
                raise Closed(f"after {self.seen[-3:]}")
            self.buffer += data
        self.seen.append(m)
        if m.kind == "Z":
            self.status = m.data
        elif m.kind == "S":
            self.parameters[m.data[0]] = m.data[1]
        elif m.kind == "K":
            self.key = m.data
        return m

    def until(self, kinds="Z", count=1):
        """All messages up to the count-th of these types (letters)."""
        got = []
        while count:
            got.append(self.read())
            count -= got[-1].kind in kinds
        return got

    def rest(self):
        """All messages until the other end closes."""
        got = []
        while True:
            try:
                got.append(self.read())
            except Closed:
                return got

    def ask(self, *messages, count=1):
        """Send them, and give all up to the count-th ReadyForQuery."""
        self.send(*messages)
        return self.until("Z", count)

    def query(self, sql):
        return self.ask(Query(sql))

    def rows(self, sql):
        """Rows of text, as tuples; PgError when it fails."""
        return rows(check(self.query(sql)))

    def one(self, sql):
        return self.rows(sql)[0][0]

    def execute(self, sql, values=(), **kw):
        """By the extended protocol; rows."""
        return rows(check(self.ask(Parse(sql), Bind(values, **kw), DescribePortal(), Execute(), Sync)))

    def cancel(self):
        pid, secret = self.key
        with self.connect() as s:
            s.sendall(struct.pack("!iii", 12 + len(secret), 80877102, pid) + secret)
            s.recv(1)  # closed when it was handled

    def close(self):
        try:
            self.socket.sendall(Terminate)
        except OSError:
            pass
        self.socket.close()

    def abort(self):
        """Without a word"""
        self.socket.close()

    # --- login ---

    def login(self, user, password):
        scram = None
        while True:
            m = self.read()
            if m.kind == "E":
                raise PgError(m.data)
            if m.kind == "Z":
                return
            if m.kind != "R" or m.data[0] in (0, 12):
                continue
            kind, data = m.data
            if kind == 3:
                self.send(message("p", zstr(password)))
            elif kind == 5:
                inner = hashlib.md5((password + user).encode()).hexdigest()
                self.send(message("p", b"md5" + zstr(hashlib.md5(inner.encode() + data).hexdigest())))
            elif kind == 10:
                assert b"SCRAM-SHA-256" in data.split(b"\0")
                nonce = base64.b64encode(os.urandom(18))
                scram = b"n=,r=" + nonce
                first = b"n,," + scram
                self.send(message("p", zstr("SCRAM-SHA-256") + struct.pack("!i", len(first)) + first))
            elif kind == 11:
                self.send(message("p", scram_final(password, scram, data)))
            else:
                raise PgError({"severity": "FATAL", "code": "28000", "message": f"authentication {kind}"})


def scram_final(password, first_bare, server_first):
    words = dict(w.split(b"=", 1) for w in server_first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(words[b"s"]), int(words[b"i"]))
    client = hmac.digest(salted, b"Client Key", "sha256")
    final = b"c=biws,r=" + words[b"r"]
    auth = b",".join((first_bare, server_first, final))
    signature = hmac.digest(hashlib.sha256(client).digest(), auth, "sha256")
    proof = bytes(a ^ b for a, b in zip(client, signature))
    return final + b",p=" + base64.b64encode(proof)


def check(messages):
    """The messages, unless one is an error."""
    for m in messages:
        if m.kind == "E":
            raise PgError(m.data)
    return messages


def rows(messages):
    return [tuple(None if v is None else v.decode() for v in m.data) for m in messages if m.kind == "D"]
