"""holdfast-sip as a program: two users register and call each other, over UDP, TCP and TLS, with SQLite below."""
import json
import signal
import ssl
import subprocess
import threading
import urllib.request

import pytest
from sipserver import Server, find, wait
from sipua import Agent, Timeout, take_call, tls_context

CERTIFICATE = """umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
 -subj /CN=sip -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.pem""".replace("\n", "")


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sip")
    subprocess.run(CERTIFICATE, shell=True, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    server = Server(folder, conf=f"tls {{ cert_file = \"{folder}/tls.pem\"\n key_file = \"{folder}/tls.key\" }}\n")
    with open(server.path, "a") as f:
        f.write(f"listen tls {{ transport = tls\n address = 127.0.0.1:{server.tls_port} }}\n")
    assert server.run("--check").returncode == 0
    assert server.run("--init").returncode == 0
    with server:
        for name in ("alice", "bob", "carol"):
            server.user(name)
        yield server


def agent(server, user, transport="udp", **more):
    at = ("127.0.0.1", server.tls_port) if transport == "tls" else server.at
    return Agent(user, at, password=more.pop("password", "secret"), transport=transport,
                 context=tls_context(server.folder / "tls.pem") if transport == "tls" else None, **more)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_register(server, transport):
    with agent(server, "alice", transport) as alice:
        ok = alice.register()
        assert ok.status == 200
        assert [c for c in ok.values("Contact") if alice.where in c]
        known = server.ask("show", aor="alice")
        assert known["ok"] and alice.where in json.dumps(known["known"])
        assert alice.register(expires=0).status == 200
        assert alice.where not in json.dumps(server.ask("show", aor="alice"))


def test_refused(server):
    """A wrong password and an unknown user get the same."""
    for user, password in (("alice", "wrong"), ("nobody", "secret")):
        with agent(server, user, password=password) as a:
            m = a.register()
            assert (m.status, m.start) == (401, "SIP/2.0 401 Unauthorized")
    with agent(server, "alice") as alice, agent(server, "carol") as carol:
        assert alice.register().status == 200
        m = carol.ask("REGISTER", "sip:example.org", to=alice.aor, fields=[("Contact", carol.contact)])
        assert m.status == 403  # another's address of record
        assert alice.register(expires=0).status == 200


def test_call(server):
    with agent(server, "alice") as alice, agent(server, "bob") as bob:
        assert alice.register().status == bob.register().status == 200
        thread = take_call(bob)
        call = alice.call(bob.aor)
        thread.join()
        assert call.status == 200
        assert call.target in bob.contact
        assert call.bye().status == 200
        assert bob.next_request("BYE").get("Call-ID") == call.call_id


def test_forking(server):
    """All of a user's contacts ring; the first to answer gets the call, the others a CANCEL."""
    with agent(server, "alice") as alice, agent(server, "bob") as one, agent(server, "bob") as other:
        for a in (alice, one, other):
            assert a.register().status == 200
        waiting = threading.Thread(target=lambda: other.answer(other.next_request("INVITE"), 180, "Ringing"))
        waiting.start()
        thread = take_call(one)
        call = alice.call(one.aor)
        thread.join()
        waiting.join()
        assert call.status == 200
        other.next_request("CANCEL")
        for a in (one, other):
            assert a.register(expires=0).status == 200


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_flow(server, transport):
    """What is for an agent behind a connection comes over that one."""
    with agent(server, "alice") as alice, agent(server, "bob", transport) as bob:
        assert alice.register().status == bob.register().status == 200
        assert alice.message(bob.aor, "hello").status == 200
        assert bob.next_request("MESSAGE").body == "hello"
        assert bob.message(alice.aor, "hello to you").status == 200
        assert alice.next_request("MESSAGE").body == "hello to you"
        bob.send("\r\n\r\n")  # RFC 5626 keep-alive: nothing but its answer comes of it
        assert bob.register(expires=0).status == 200
        assert alice.register(expires=0).status == 200


def test_watched(server):
    """Who watches his own registration hears of each change of it (RFC 3680)."""
    with agent(server, "alice") as alice, agent(server, "alice") as phone:
        assert alice.register().status == 200
        assert alice.subscribe(alice.aor).status in (200, 202)
        assert alice.where in alice.next_request("NOTIFY").body
        assert phone.register().status == 200
        while phone.where not in alice.next_request("NOTIFY").body:
            pass
        assert phone.register(expires=0).status == 200
        assert alice.register(expires=0).status == 200


def test_not_there(server):
    with agent(server, "alice") as alice:
        for user in ("carol", "nobody"):
            assert alice.message(f"sip:{user}@example.org", "?").status == 480


def test_restart(server):
    """Bindings survive their server: the callee is found before it registers again."""
    with agent(server, "alice") as alice, agent(server, "bob") as bob:
        assert alice.register().status == bob.register().status == 200
        for how in (signal.SIGTERM, signal.SIGKILL):
            server.stop(how)
            server.start()
            assert alice.message(bob.aor, "still there?").status == 200
            assert bob.next_request("MESSAGE").body == "still there?"
        assert bob.register(expires=0).status == 200


def test_many(server):
    """Users of all workers, at once."""
    names = [f"user{i}" for i in range(20)]
    for name in names:
        server.user(name)
    agents = [agent(server, name, transport) for name in names for transport in ("udp", "tcp")]
    try:
        results = []
        threads = [threading.Thread(target=lambda a=a: results.append(a.register().status)) for a in agents]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert results == [200] * len(agents)
        workers = server.ask("status")["workers"]
        wait("bindings of all", lambda: sum(w["bindings"] for w in server.ask("status")["workers"]) >= len(agents))
        assert len(workers) == 2
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{server.web_port}/metrics", timeout=20).read().decode()
        assert "holdfast_sip_registers_total" in metrics
        assert "holdfast_sip_worker_lost_total 0" in metrics
        assert "holdfast_sip_watch_subscriptions_total 0" in metrics and "holdfast_sip_presence_published_total 0" in metrics
    finally:
        for a in agents:
            a.close()


def test_command(server):
    """holdfast sip ..., as an operator says it."""
    def sip(*words, **more):
        return subprocess.run([find("holdfast"), "-s", server.control, "sip", *words], capture_output=True, text=True,
                              timeout=60, stdin=more.get("stdin", subprocess.DEVNULL), check=False)
    assert "alpha" in sip("status").stdout
    assert "alpha" in sip("servers").stdout
    assert sip("plan").returncode == 0
    assert sip("rebalance").returncode == 0
    assert sip("pin", "alice").returncode == 0
    assert "alice@example.org" in sip("export").stdout
    assert sip("unpin", "alice").returncode == 0
    assert sip("user", "delete", "carol").returncode == 0
    assert sip("user", "delete", "carol").returncode == 1
    server.user("carol")
    assert sip("drain").returncode == 0
    wait("draining", lambda: server.ask("servers")["servers"][0]["state"] == "draining")
    assert sip("undrain").returncode == 0
    with agent(server, "alice") as alice:
        assert alice.register().status == 200
        assert alice.where in sip("show", "alice").stdout
    assert sip("nonsense").returncode == 2


def test_trace(server):
    with subprocess.Popen([find("holdfast"), "-s", server.control, "sip", "trace", "alice"], stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True) as p:
        assert "alice" in p.stdout.readline()
        with agent(server, "alice") as alice:
            assert alice.register().status == 200
        seen = ""
        while "200 OK" not in seen:
            line = p.stdout.readline()
            assert line
            seen += line
        p.terminate()
    assert "REGISTER" in seen and "401" in seen


def test_reload(server):
    text = server.path.read_text()
    server.path.write_text(text.replace("workers = 2", "workers = 2\n weight = 7"))
    server.process.send_signal(signal.SIGHUP)
    wait("reload", lambda: server.ask("servers")["servers"][0]["weight"] == 7)
    server.path.write_text(text.replace("workers = 2", "workers = 3"))
    server.process.send_signal(signal.SIGHUP)
    wait("refusal", lambda: "sip.workers cannot change" in server.log.read_text())
    server.path.write_text(text)
    server.process.send_signal(signal.SIGHUP)
    wait("reload", lambda: server.ask("servers")["servers"][0]["weight"] == 100)


def certificate(server):
    """What a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", server.tls_port), timeout=20)


def test_certificates(server):
    """SIGHUP: new connections get the new certificate, those that stand go on; a bad one changes nothing."""
    pem, key = server.folder / "tls.pem", server.folder / "tls.key"
    first = certificate(server)
    with agent(server, "alice") as alice, agent(server, "bob", "tls") as bob:
        assert alice.register().status == bob.register().status == 200
        reloads = server.log.read_text().count("and certificates")
        subprocess.run(CERTIFICATE, shell=True, cwd=server.folder, check=True, capture_output=True,
                       stdin=subprocess.DEVNULL)
        server.process.send_signal(signal.SIGHUP)
        wait("reload", lambda: server.log.read_text().count("and certificates") > reloads)
        for _ in range(8):  # of whichever worker
            wait("the new certificate", lambda: certificate(server) == pem.read_text())
        assert certificate(server) != first
        with agent(server, "carol", "tls") as carol:
            assert carol.register().status == 200
            assert carol.register(expires=0).status == 200
        good = pem.read_text(), key.read_text()
        pem.write_text("no certificate")
        server.process.send_signal(signal.SIGHUP)
        wait("refusal", lambda: f"{pem}" in server.log.read_text().rsplit("reload refused", 1)[-1])
        assert certificate(server) == good[0]
        pem.write_text(good[0])
        assert alice.message(bob.aor, "by the old connection").status == 200
        assert bob.next_request("MESSAGE").body == "by the old connection"
        assert bob.register(expires=0).status == 200
        assert alice.register(expires=0).status == 200


def test_garbage(server):
    """Nothing that comes ends it."""
    with agent(server, "alice", "tcp", answers=False) as alice:
        alice.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with agent(server, "alice") as alice:
        for text in ("x" * 65000, "REGISTER sip:example.org SIP/2.0\r\n\r\n", "\0" * 100, "SIP/2.0 200 OK\r\n\r\n"):
            alice.send(text)
        with pytest.raises(Timeout):
            key, _ = alice.request("ACK", "sip:bob@example.org")
            alice.response(key, timeout=0.2)
        assert alice.register().status == 200
