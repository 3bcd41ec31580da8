"""A PostgreSQL client of few messages, simple queries as a role that is trusted: it costs next to
nothing, needs no driver, and says exactly what came back."""
import socket
import struct


class PostgresError(ConnectionError):
    """An ErrorResponse."""

    def __init__(self, body):
        fields = {f[0]: f[1:] for f in body.decode(errors="replace").split("\0") if f}
        self.sqlstate = fields.get("C", "?????")
        super().__init__(f"{fields.get('S')}: {fields.get('M')} ({self.sqlstate})")


class Session:
    """One connection, over a connected socket."""

    def __init__(self, sock, user="postgres", database="postgres", timeout=5.0):
        self.sock, self.buf, self.columns = sock, b"", ()
        sock.settimeout(timeout)
        words = b"".join(w.encode() + b"\0" for w in ("user", user, "database", database, ""))
        sock.sendall(struct.pack(">II", len(words) + 8, 3 << 16) + words)
        self.answer()

    def answer(self):
        """Until the server is ready for a query: its rows, as text. PostgresError if it complains."""
        error, rows = None, []
        while True:
            while len(self.buf) < 5 or len(self.buf) < 1 + struct.unpack_from(">I", self.buf, 1)[0]:
                piece = self.sock.recv(65536)
                if not piece:
                    raise error or ConnectionError("closed")
                self.buf += piece
            n = 1 + struct.unpack_from(">I", self.buf, 1)[0]
            kind, body, self.buf = self.buf[:1], self.buf[5:n], self.buf[n:]
            if kind == b"E":
                error = PostgresError(body)
            elif kind == b"T":
                self.columns = columns(body)
            elif kind == b"D":
                rows.append(row(body))
            elif kind == b"R" and body != b"\0\0\0\0":
                raise ConnectionError("a password is asked for")
            elif kind == b"Z":
                if error:
                    raise error
                return rows

    def query(self, sql):
        body = sql.encode() + b"\0"
        self.sock.sendall(b"Q" + struct.pack(">I", len(body) + 4) + body)
        return self.answer()

    def close(self):
        self.sock.close()


def columns(body):
    """The names in a RowDescription."""
    out, at = [], 2
    for _ in range(struct.unpack_from(">H", body)[0]):
        end = body.index(b"\0", at)
        out.append(body[at:end].decode())
        at = end + 1 + 18
    return out


def row(body):
    """The values of a DataRow; None is NULL."""
    out, at = [], 2
    for _ in range(struct.unpack_from(">H", body)[0]):
        (n,) = struct.unpack_from(">i", body, at)
        at += 4
        out.append(None if n < 0 else body[at:at + n].decode())
        at += max(n, 0)
    return out


def connect(host, port, timeout=5.0):
    """A socket to HOST: an address, or the directory of a Unix socket."""
    if host.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        s.connect(f"{host}/.s.PGSQL.{port}")
        return s
    s = socket.create_connection((host, port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
