"""holdfast-pg as a proxy: sockets, TLS, logins, limits, cancel, pressure, hostile clients, the console."""
import os
import socket
import ssl
import struct
import subprocess
import threading
import urllib.request

import pytest

import pgwire
from pgwire import Closed, Connection, PgError, Query
from postgres import Rig, Server, free_port, until

SECRET = "correct horse"


@pytest.fixture(scope="module", name="rig")
def _rig():
    with Rig() as r:
        yield r


@pytest.fixture(scope="module", name="server")
def _server(rig):
    s = rig.server()
    s.psql(f"create role app login password '{SECRET}'")
    s.psql("create role old login password 'x' valid until '2001-01-01'")
    s.psql("create database certs")
    return s


@pytest.fixture(name="start")
def _start(rig, server):
    """Start holdfast-pg with these options; all of them end with the test, in order and with exit status 0."""
    started = []

    def start(**options):
        started.append(rig.proxy([server], **options))
        return started[-1]
    yield start
    for p in started:
        text = p.log.read_text()
        assert p.end() == 0, text[-3000:]
        assert SECRET not in text


@pytest.fixture(scope="module", name="certs")
def _certs(rig):
    """A CA, a server's certificate, one for the user app, one of another CA."""
    d = rig.dir / "certs"
    d.mkdir()

    def run(*words):
        subprocess.run(["openssl", *words], cwd=d, check=True, capture_output=True)
    for ca in ("ca", "other"):
        run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj",
            f"/CN={ca}", "-days", "30")
    (d / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, cn, ca in (("server", "server", "ca"), ("app", "app", "ca"), ("fake", "app", "other")):
        run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
            f"/CN={cn}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial",
            "-out", f"{name}.crt", "-days", "30", "-extfile", "ext")
    (d / "ca.conf").write_text("[ca]\ndefault_ca = d\n[d]\ndatabase = index\ndefault_md = sha256\ndefault_crl_days = 30\n")
    (d / "index").touch()
    for revoked in ("none", "app", "server"):  # app.crl: app is revoked; server.crl: both are
        if revoked != "none":
            run("ca", "-config", "ca.conf", "-cert", "ca.crt", "-keyfile", "ca.key", "-revoke", f"{revoked}.crt")
        run("ca", "-config", "ca.conf", "-cert", "ca.crt", "-keyfile", "ca.key", "-gencrl", "-out", f"{revoked}.crl")
    for f in d.iterdir():
        os.chmod(f, 0o600)
    subprocess.run(["chown", "-R", "postgres:postgres", d], check=True)
    return d


def psql(conninfo, sql="select 1", **env):
    return subprocess.run(["psql", "-XqAtw", "-c", sql, conninfo], capture_output=True, text=True, timeout=60,
                          check=False, env=os.environ | env)


def refused(code, *args, **kw):
    with pytest.raises(PgError) as e:
        Connection(*args, **kw)
    assert e.value.code == code, e.value
    return str(e.value)


# --- sockets ---

def test_tcp_ipv6_unix(start):
    port = free_port()
    p = start(pg__listen_read_only=[f"[::1]:{port}"])
    big = "select repeat('x', 5000000)"
    assert p.psql("select 1") == "1"
    assert psql(p.conninfo(host="::1", port=port), big).stdout.strip() == "x" * 5000000
    assert psql(p.conninfo(host=str(p.socket_dir)), big).stdout.strip() == "x" * 5000000


def test_byte_by_byte(start):
    p = start()
    with Connection(p, chop=1) as c:
        assert c.one("select 42") == "42"
        assert c.execute("select $1::int + 1", [1]) == [("2",)]


def test_pid_is_the_backends(start):
    with Connection(start()) as c:
        assert int(c.one("select pg_backend_pid()")) == c.key[0]


# --- logins ---

def test_scram_md5_plain(start, rig):
    f = rig.dir / "userlist"
    f.write_text(f'"app" "{SECRET}"\n')
    hba = rig.dir / "hba"
    hba.write_text("host certs all all md5\nhost all old all reject\nhost all all all scram-sha-256\n")
    p = start(auth__hba_file=str(hba), auth__file=str(f))
    for database in ("postgres", "certs"):
        with Connection(p, database, "app", SECRET) as c:
            assert c.one("select current_user") == "app"
        refused("28P01", p, database, "app", "wrong")
        refused("28P01", p, database, "nobody", "wrong")
    refused("28000", p, "postgres", "old", "x")


def test_auth_query(start, rig, server):
    query = ("SELECT usename, CASE WHEN valuntil IS NULL OR valuntil > now() THEN passwd END FROM pg_shadow"
             " WHERE usename = $1")
    p = start(auth__type="scram-sha-256", auth__query=query)
    with Connection(p, "certs", "app", SECRET) as c:
        assert c.one("select current_user || ' ' || current_database()") == "app certs"
    refused("28P01", p, "postgres", "app", "wrong")
    refused("28P01", p, "postgres", "old", "x")  # CVE-2025-2291
    # CVE-2025-12819: what a client asks to be set does not reach the connection that asks for its secret
    server.psql("create schema evil; create view evil.pg_shadow as select 'app'::name as usename, "
                "'oops'::text as passwd, null::timestamptz as valuntil; grant usage on schema evil to public; "
                "grant select on evil.pg_shadow to public")
    refused("28P01", p, "postgres", "app", "oops", options={"search_path": "evil, pg_catalog"})
    server.psql("drop schema evil cascade")


def test_peer(start, rig):
    hba = rig.dir / "hba-peer"
    hba.write_text("local all all peer\n")
    p = start(auth__hba_file=str(hba))
    path = f"{p.socket_dir}/.s.PGSQL.{p.port}"
    refused("28000", unix=path)  # we are root
    got = subprocess.run(["psql", "-XAtwc", "select 7", p.conninfo(host=str(p.socket_dir))], user="postgres",
                         group="postgres", extra_groups=[], cwd="/", capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "7"


def test_ident_maps(with_tls, certs, rig):
    """Who is somebody by certificate or on this machine is whom the map says, and nobody else."""
    hba = rig.dir / "hba-map"
    hba.write_text("local all all peer map=os\nhostssl all all all cert map=crt\n")
    ident = rig.dir / "ident"
    ident.write_text("# names\nos root app\nos postgres postgres\ncrt app postgres\n")
    p = with_tls("prefer", auth__hba_file=str(hba), auth__ident_file=str(ident))
    path = f"{p.socket_dir}/.s.PGSQL.{p.port}"
    with Connection(unix=path, user="app") as c:
        assert c.one("select current_user") == "app"
    refused("28000", unix=path)
    refused("28000", unix=path, user="root")
    with Connection(p, ssl=context(certs, "app")) as c:
        assert c.one("select current_user") == "postgres"
    refused("28000", p, "postgres", "app", ssl=context(certs, "app"))
    ident.write_text("os root postgres\ncrt app app\n")
    p.reload()
    until(lambda: "reloaded" in p.log.read_text(), "the reload")
    with Connection(unix=path) as c:
        assert c.one("select current_user") == "postgres"
    refused("28000", unix=path, user="app")
    with Connection(p, "postgres", "app", ssl=context(certs, "app")) as c:
        assert c.one("select current_user") == "app"


def test_errors_of_the_server_reach_the_client(start):
    p = start()
    assert "does not exist" in refused("3D000", p, "nowhere")
    assert "does not exist" in refused("28000", p, "postgres", "nobody")


# --- TLS ---

def context(certs, name=None):
    c = ssl.create_default_context(cafile=certs / "ca.crt")
    if name:
        c.load_cert_chain(certs / f"{name}.crt", certs / f"{name}.key")
    return c


@pytest.fixture(name="with_tls")
def _with_tls(start, certs, rig):
    def with_tls(mode, **more):
        return start(client_tls__sslmode=mode, client_tls__cert_file=str(certs / "server.crt"),
                     client_tls__key_file=str(certs / "server.key"), client_tls__ca_file=str(certs / "ca.crt"), **more)
    return with_tls


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # that they are old is the point
def test_tls(with_tls, certs):
    p = with_tls("prefer")
    assert psql(p.conninfo(sslmode="disable")).stdout == "1\n"
    full = p.conninfo(sslmode="verify-full", sslrootcert=certs / "ca.crt")
    assert psql(full, "select repeat('y', 3000000)").stdout.strip() == "y" * 3000000
    with Connection(p, ssl=context(certs)) as c:
        assert c.socket.version() == "TLSv1.3"
        assert c.one("select 1") == "1"
    old = context(certs)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.raises((ssl.SSLError, OSError)):
        Connection(p, ssl=old)


def test_tls_is_required(with_tls, certs):
    p = with_tls("require")
    refused("28000", p)
    with Connection(p, ssl=context(certs)) as c:
        assert c.one("select 1") == "1"


def test_client_certificates(with_tls, certs, rig):
    hba = rig.dir / "hba-cert"
    hba.write_text("hostssl certs all all cert\nhostssl all all all scram-sha-256 clientcert=verify-full\n")
    users = rig.dir / "userlist-cert"
    users.write_text(f'"app" "{SECRET}"\n"postgres" "p"\n')
    p = with_tls("prefer", auth__hba_file=str(hba), auth__file=str(users))
    with Connection(p, "certs", "app", ssl=context(certs, "app")) as c:
        assert c.one("select current_user") == "app"
    refused("28000", p, "certs", "postgres", ssl=context(certs, "app"))
    refused("28000", p, "certs", "app", ssl=context(certs))
    with Connection(p, "postgres", "app", SECRET, ssl=context(certs, "app")) as c:
        assert c.one("select 1") == "1"
    refused("28P01", p, "postgres", "app", "wrong", ssl=context(certs, "app"))
    with pytest.raises((ssl.SSLError, OSError, Closed)):
        Connection(p, "certs", "app", ssl=context(certs, "fake"))


def test_revoked_client_certificate(with_tls, certs):
    p = with_tls("require", client_tls__crl_file=str(certs / "none.crl"), auth__type="cert")
    with Connection(p, "certs", "app", ssl=context(certs, "app")) as before:
        assert before.one("select current_user") == "app"
        p.reload(client_tls__crl_file=str(certs / "app.crl"))
        until(lambda: "reloaded" in p.log.read_text(), "the reload")
        with pytest.raises((ssl.SSLError, OSError, Closed)):
            Connection(p, "certs", "app", ssl=context(certs, "app"))
        assert "revoked" in until(lambda: (t := p.log.read_text()) and "revoked" in t and t, "why")
        assert before.one("select 1") == "1"  # who is in stays


def test_channel_binding(with_tls, certs, rig):
    users = rig.dir / "userlist-plus"
    users.write_text(f'"app" "{SECRET}"\n')
    p = with_tls("require", auth__type="scram-sha-256", auth__file=str(users))
    got = psql(p.conninfo(user="app", sslmode="require", channel_binding="require"), PGPASSWORD=SECRET)
    assert got.stdout == "1\n", got.stderr


def test_direct_tls(with_tls, certs):
    p = with_tls("require")
    for alpn in (["postgresql"], None):
        c = context(certs)
        if alpn:
            c.set_alpn_protocols(alpn)
        with socket.create_connection((p.host, p.port)) as raw, c.wrap_socket(raw, server_hostname="127.0.0.1") as s:
            s.settimeout(20)
            body = struct.pack("!HH", 3, 0) + b"user\0postgres\0database\0postgres\0\0"
            try:
                s.sendall(struct.pack("!i", len(body) + 4) + body)
                first = s.recv(1)
            except OSError:
                first = b""
            assert first == (b"R" if alpn else b"")


def test_nothing_is_slipped_in_before_tls(with_tls):
    """CVE-2021-23214"""
    p = with_tls("prefer")
    with socket.create_connection((p.host, p.port)) as s:
        s.settimeout(20)
        body = struct.pack("!HH", 3, 0) + b"user\0postgres\0\0"
        s.sendall(struct.pack("!ii", 8, 80877103) + struct.pack("!i", len(body) + 4) + body)
        got = b""
        try:
            while more := s.recv(100):
                got += more
        except OSError:
            pass
        assert got[:1] in (b"", b"S", b"E") and not got[1:].startswith(b"R")


def test_tls_to_the_server(rig, certs, start, server):
    for f in ("server.crt", "server.key"):
        (server.data / f).write_bytes((certs / f).read_bytes())
        os.chmod(server.data / f, 0o600)
        subprocess.run(["chown", "postgres:postgres", server.data / f], check=True)
    server.configure(ssl="on")
    server.reload()
    until(lambda: server.psql("show ssl") == "on", "TLS of the server")
    mine = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    p = start(server_tls__sslmode="verify-full", server_tls__ca_file=str(certs / "ca.crt"))
    assert p.psql(mine) == "t"
    with Connection(p) as c:  # by TLS, too, and still the right one
        c.send(Query("select pg_sleep(60)"))
        until(lambda: p.console("show clients") and any(r["active"] == "yes" for r in p.console("show clients")), "it")
        c.cancel()
        assert [m for m in c.until() if m.kind == "E"][0].data["code"] == "57014"
    assert start(server_tls__sslmode="disable").psql(mine) == "f"
    p = start(server_tls__sslmode="verify-full", server_tls__ca_file=str(certs / "other.crt"), session__hold_timeout=0)
    assert "certificate verify failed" in until(lambda: (t := p.log.read_text()) and "verify failed" in t and t, "it")
    p = start(server_tls__sslmode="verify-ca", server_tls__ca_file=str(certs / "ca.crt"),
              server_tls__crl_file=str(certs / "app.crl"))
    assert p.psql(mine) == "t"
    p = start(server_tls__sslmode="verify-ca", server_tls__ca_file=str(certs / "ca.crt"),
              server_tls__crl_file=str(certs / "server.crl"), session__hold_timeout=0)
    until(lambda: "certificate revoked" in p.log.read_text(), "the server's certificate is revoked")
    server.configure(ssl="off")
    server.reload()


# --- cancel ---

def test_cancel(start):
    p = start()
    with Connection(p) as c, Connection(p) as other:
        c.send(Query("select pg_sleep(60)"))
        wrong = c.key
        runs = f"select state = 'active' and query ~ 'pg_sleep' from pg_stat_activity where pid = {wrong[0]}"
        until(lambda: other.one(runs) == "t", "its begin")  # not what was asked before it
        c.key = (wrong[0], bytes(b ^ 1 for b in wrong[1]))
        c.cancel()
        c.key = (wrong[0] + 1, wrong[1])
        c.cancel()
        assert other.one(runs) == "t"
        c.key = wrong
        c.cancel()
        assert [m for m in c.until() if m.kind == "E"][0].data["code"] == "57014"
        assert c.one("select 1") == "1"
        c.cancel()  # nothing runs: nothing happens
        assert c.one("select 2") == "2"


# --- limits ---

def test_limits(start):
    p = start(pg__max_clients=4, pg__max_clients_per_user=2)
    with Connection(p), Connection(p):
        assert "too many connections for role" in refused("53300", p)
        with Connection(p, user="app"), Connection(p, user="app"):
            assert "too many clients" in refused("53300", p, user="app")
    until(lambda: psql(p.conninfo()).returncode == 0, "room again")
    p = start(pg__max_clients_per_database=1)
    with Connection(p):
        refused("53300", p)
        with Connection(p, "certs"):
            pass


def test_timeouts(start):
    p = start(pg__login_timeout="300ms", pg__idle_timeout="300ms",
              pg__idle_in_transaction_timeout="200ms")
    with socket.create_connection((p.host, p.port)) as s:
        s.settimeout(20)
        while s.recv(1000):
            pass
    with Connection(p) as c:
        assert [m.data["code"] for m in c.rest() if m.kind == "E"] == ["57P05"]
    with Connection(p) as c:
        c.query("begin")
        assert [m.data["code"] for m in c.rest() if m.kind == "E"] == ["25P03"]
    with Connection(p) as c:
        assert c.one("select 'long' from pg_sleep(0.9)") == "long"


# --- pressure ---

def test_slow_reader(start):
    """Who does not read stalls nobody else, and does not fill our memory."""
    p = start()

    def rss():
        return next(int(line.split()[1]) for line in open(f"/proc/{p.process.pid}/status", encoding="ascii")
                    if line.startswith("VmRSS"))
    with Connection(p) as slow, Connection(p) as quick:
        before = rss()
        slow.send(Query("select repeat('z', 1000) from generate_series(1, 200000)"))
        for i in range(200):
            assert quick.one(f"select {i}") == str(i)
        assert rss() - before < 20000
        assert sum(m.kind == "D" for m in slow.until()) == 200000
        assert slow.one("select 1") == "1"


def test_what_a_server_sent_before_its_end_is_read(start):
    """By a slow reader, too: a session that is not protected, so that nothing is done again."""
    p = start()
    with Connection(p) as slow, Connection(p) as other:
        slow.query("create temp table mine (a int)")
        slow.send(Query("select repeat('z', 1000) from generate_series(1, 30000); "
                        "select pg_terminate_backend(pg_backend_pid())"))
        for i in range(50):
            assert other.one(f"select {i}") == str(i)
        got = slow.rest()
        assert sum(m.kind == "D" for m in got) in (30000, 30001)  # the second SELECT has one
        assert [m.data["code"] for m in got if m.kind == "E"] == ["57P01"]


def test_slow_server(start):
    """A client that sends faster than its server takes, by COPY."""
    p = start()
    with Connection(p) as c, Connection(p) as other:
        c.query("create table if not exists sink (t text)")
        c.send(Query("copy sink from stdin"))
        c.until("G")
        row = b"w" * 999 + b"\n"
        t = threading.Thread(target=lambda: c.send(*[pgwire.CopyData(row * 100)] * 500, pgwire.CopyDone))
        t.start()
        for i in range(100):
            assert other.one(f"select {i}") == str(i)
        t.join(60)
        c.until()
        assert c.one("select count(*) from sink") == "50000"
        c.query("drop table sink")


def test_max_memory(start):
    """Used up: no client is taken, then a transaction that needs more is not protected; with its end all is as before."""
    p = start(pg__max_memory="1MiB", session__transaction_log_max="4MiB")
    with Connection(p) as c:
        c.query("begin")
        more = f"select length('{'x' * 60_000}')"
        for _ in range(9):  # the log's buffer doubles: it is all there is when it has half of it
            assert c.one(more) == "60000"
        me = next(r for r in p.console("show protection") if r["database"] == "postgres")
        assert me["protected"] == "yes" and int(me["log_bytes"]) > 1 << 19
        assert "max_memory" in refused("53300", p)
        for _ in range(10):  # it doubles once more
            assert c.one(more) == "60000"
        me = next(r for r in p.console("show protection") if r["database"] == "postgres")
        assert me["protected"] == "no" and me["reasons"] == "max_memory exceeded"
        with Connection(p) as another:
            assert another.one("select 1") == "1"
        c.query("commit")
        assert c.one("select 2") == "2"
        assert next(r for r in p.console("show protection") if r["id"] == me["id"])["protected"] == "yes"


# --- replication ---

def test_a_standby_behind_the_proxy(start, rig, server):
    """pg_basebackup, then streaming: all of a server's replication goes through."""
    p = start()
    standby = Server(rig, "standby", server.settings)
    rig.servers.append(standby)
    standby.clone(p)
    standby.start()
    try:
        server.psql("create table replicated as select generate_series(1, 10000) i")
        lsn = server.psql("select pg_current_wal_lsn()")
        until(lambda: standby.psql(f"select pg_last_wal_replay_lsn() >= '{lsn}'") == "t", "it is replayed")
        assert standby.psql("select count(*) from replicated") == "10000"
        assert standby.psql("select sender_port from pg_stat_wal_receiver") == str(p.port)
        until(lambda: [r["protected"] for r in p.console("show clients") if r["state"] == "running"] == ["no"],
              "one session, not protected")
    finally:
        standby.end()
        server.psql("drop table if exists replicated")


def test_pg_receivewal(start, rig, server):
    """Up to a position; it has the server's very bytes."""
    p = start()
    d = rig.dir / "received"
    d.mkdir()
    subprocess.run(["chown", "postgres:postgres", d], check=True)
    server.psql("create table received as select generate_series(1, 100000) i; drop table received")
    end = server.psql("select pg_current_wal_lsn()")
    server.run("pg_receivewal", "-D", d, "-d", p.conninfo(), "--endpos", end, "--no-loop")
    name, offset = server.psql(f"select file_name, file_offset from pg_walfile_name_offset('{end}')").split("|")
    (got,) = d.glob(f"{name}*")
    assert got.read_bytes()[:int(offset)] == (server.data / "pg_wal" / name).read_bytes()[:int(offset)]


# --- hostile clients ---

@pytest.mark.parametrize("data", [
    b"", b"\0", b"\0\0\0\4", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", struct.pack("!ii", 8, 80877103) * 3,
    struct.pack("!ii", 2**31 - 1, 196608), struct.pack("!ii", 12, 196608) + b"user",
    struct.pack("!iiI", 12, 80877102, 1), struct.pack("!ii", 9, 0x00020000) + b"\0", b"\x16\x03\x01\xff\xff" + b"a" * 99,
])
def test_garbage(start, data):
    p = start()
    with socket.create_connection((p.host, p.port)) as s:
        s.settimeout(20)
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        try:
            while s.recv(1000):
                pass
        except ConnectionError:
            pass
    assert p.psql("select 1") == "1"


@pytest.mark.parametrize("data", [b"Q\0\0\0\0", b"Q\xff\xff\xff\xff", b"\0\0\0\0\4", b"P\0\0\0\5a", b"B\0\0\0\4",
                                  b"Q\x7f\xff\xff\xff", b"~\0\0\0\4"])
def test_garbage_in_a_session(start, data):
    p = start()
    c = Connection(p)
    c.send(data + pgwire.Sync)
    c.socket.shutdown(socket.SHUT_WR)
    c.rest()
    c.abort()
    assert p.psql("select 1") == "1"


def test_clients_that_go(start):
    p = start()
    for sql in ("select pg_sleep(1)", "select repeat('a', 1000) from generate_series(1, 100000)", "begin"):
        for _ in range(3):
            c = Connection(p)
            c.send(Query(sql))
            c.abort()
    until(lambda: len(p.console("show clients")) == 1, "that they are gone")
    until(lambda: p.psql("select count(*) from pg_stat_activity where backend_type = 'client backend' and "
                         "query like '%repeat%' and pid <> pg_backend_pid()") == "0", "their backends", 60)


# --- operator ---

def test_console(start):
    p = start(pg__stats_users=["app"])
    with Connection(p) as c:
        assert c.one("select 1") == "1"
        row = next(r for r in p.console("show clients") if r["database"] == "postgres")
        assert row["user"] == "postgres" and row["requests"] == "1" and row["protected"] == "yes"
        assert p.console("show servers")[0]["state"] == "primary"
        c.query("create temp table t (a int)")
        row = next(r for r in p.console("show protection") if r["id"] == row["id"])
        assert row["protected"] == "no" and "temporary" in row["reasons"]
        for what in ("help", "version", "connections", "databases", "users", "stats", "counters", "moves", "config",
                     "mem", "lists"):
            assert p.console(f"show {what}"), what
        with Connection(p, "holdfast", "app") as stats:
            assert stats.rows("SHOW VERSION")
            with pytest.raises(PgError) as e:
                stats.rows(f"KILL {row['id']}")
            assert e.value.code == "42501"
        refused("42501", p, "holdfast", "old")
        p.console(f"kill {row['id']}")
        assert [m.data["code"] for m in c.rest() if m.kind == "E"] == ["57P01"]


def test_move_by_the_console(start):
    p = start()
    with Connection(p) as c:
        c.query("set work_mem = '7MB'")
        before = c.one("select pg_backend_pid()")
        me = next(r for r in p.console("show clients") if r["database"] == "postgres")["id"]
        p.console(f"move {me}")
        until(lambda: c.one("select pg_backend_pid()") != before, "the move")
        assert c.one("show work_mem") == "7MB"
        assert p.console("show moves")[0]["moves"] == "1"


def test_reload(start):
    p = start()
    with Connection(p) as c:
        p.reload(pg__max_clients=1)
        until(lambda: "reloaded" in p.log.read_text(), "the reload")
        refused("53300", p)
        p.conf.write_text(p.conf.read_text().replace("max_clients = 1", "max_clients = oops"))
        os.kill(p.process.pid, 1)
        until(lambda: "reload refused" in p.log.read_text(), "the refusal")
        refused("53300", p)
        assert c.one("select 1") == "1"


def test_check(start, rig):
    p = start()
    for text, code in ((p.conf.read_text(), 0), ("pg { nonsense = 1 }", 1), (p.conf.read_text() + "server x { }", 1)):
        f = rig.dir / "check.conf"
        f.write_text(text)
        got = subprocess.run([*p.command()[:1], "-c", f, "--check"], capture_output=True, text=True, check=False)
        assert got.returncode == code, got.stderr


def test_metrics(start):
    port = free_port()
    p = start(pg__metrics_listen=f"127.0.0.1:{port}")
    p.psql("select 1")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as r:
        text = r.read().decode()
    assert 'holdfast_pg_database_query_count_total{database="postgres"}' in text
    assert 'holdfast_pg_server_state{server="pg1",state="primary"} 1' in text


def test_end(start, rig, server):
    p = rig.proxy([server])
    with Connection(p) as c, Connection(p) as idle:
        c.query("begin")
        os.kill(p.process.pid, 2)  # SIGINT: who is in a transaction may finish
        assert [m.data["code"] for m in idle.rest() if m.kind == "E"] == ["57P01"]
        assert c.one("select 1") == "1"
        c.query("commit")
        c.rest()
    assert p.process.wait(20) == 0


def test_memory_of_an_idle_session(start):
    p = start()

    def rss():
        return next(int(line.split()[1]) for line in open(f"/proc/{p.process.pid}/smaps_rollup", encoding="ascii")
                    if line.startswith("Private_Dirty"))
    with Connection(p) as c:
        assert c.one("select 1") == "1"
        before = rss()
        many = [Connection(p) for _ in range(100)]
        for one in many:
            assert one.one("select 1") == "1"
        each = (rss() - before) / 100
        for one in many:
            one.close()
    print(f"{each:.1f} KiB per idle session")
    assert each <= 16
