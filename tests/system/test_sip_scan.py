"""SIP scanners learn nothing (S6): SIPVicious itself, and probes of its kind whose answers are compared byte by byte.

Users 100 to 104 are there, 100 and 101 are registered; 105 to 109 are not. No timing is looked at: the same work is
done for all of them, which the server's own counters tell."""
import re
import socket
import subprocess
import urllib.request

import pytest
from sipserver import Server, wait
from sipua import Agent, Message, build, digest

KNOWN, REGISTERED, UNKNOWN = ["100", "101", "102", "103", "104"], ["100", "101"], ["105", "106", "107", "108", "109"]
PASSWORD = "17"  # of 103: what svcrack finds when it may
METHODS = ["REGISTER", "OPTIONS", "INVITE", "SUBSCRIBE", "PUBLISH", "MESSAGE"]


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    server = Server(folder, conf="limits { source_rate = 100000 }\nauth { algorithms = { MD5 } }\n")
    assert server.run("--init").returncode == 0
    with server:
        for name in KNOWN:
            server.user(name, PASSWORD if name == "103" else "a long one")
        agents = [Agent(name, server.at, password="a long one") for name in REGISTERED]
        for a in agents:
            assert a.register().status == 200
        yield server
        for a in agents:
            a.close()


def scan(server, tool, *words):
    """What it says."""
    home = server.folder / "home"
    home.mkdir(exist_ok=True)
    p = subprocess.run([tool, "-b", "127.0.0.1", "-p", str(server.port), *words, "127.0.0.1"], capture_output=True,
                       text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
                       env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)})
    return p.stdout + p.stderr


def test_svmap(server):
    said = scan(server, "svmap")
    assert f"127.0.0.1:{server.port}" in said  # that somebody speaks SIP is no secret
    assert "unknown" in said and "oldfast" not in said


@pytest.mark.parametrize("method", ["REGISTER", "OPTIONS", "INVITE"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_svwar(server, method, force):
    said = scan(server, "svwar", "-m", method, "-e", "100-109", *force)
    assert "found nothing" in said
    if not force:
        assert "authentication request for an unknown extension" in said


def test_svcrack(server):
    """A wrong password and an unknown user are one; a right one it finds, so it does look."""
    tried = [scan(server, "svcrack", "-u", user, "-r", "1-20") for user in ("102", "107")]
    assert all("found nothing" in said for said in tried)
    assert tried[0].replace("102", "107") == tried[1]
    assert re.search(rf"\|\s*103\s*\|\s*{PASSWORD}\s*\|", scan(server, "svcrack", "-u", "103", "-r", "1-20"))


class Prober:
    """One address from which requests come, with the same Call-ID, tag and branch for whom they are about."""

    def __init__(self, server):
        self.server, self.n = server, 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(20)
        self.at = "127.0.0.1:%d" % self.sock.getsockname()[1]

    def ask(self, method, user, fields=(), uri=None, frm="scanner"):
        self.n += 1
        aor = f"sip:{user}@example.org"
        uri = uri or ("sip:example.org" if method == "REGISTER" else aor)
        more = {"SUBSCRIBE": [("Event", "presence")], "PUBLISH": [("Event", "presence")]}.get(method, [])
        text = build(f"{method} {uri} SIP/2.0", [
            ("Via", f"SIP/2.0/UDP {self.at};branch=z9hG4bK{self.n};rport"), ("Max-Forwards", "70"),
            ("From", f"<sip:{frm}@example.org>;tag=1"), ("To", f"<{aor}>"), ("Call-ID", f"scan-{self.n}"),
            ("CSeq", f"{self.n} {method}"), ("Contact", f"<sip:x@{self.at}>"), *more, *fields])
        self.sock.sendto(text.encode(), self.server.at)
        while True:
            answer = self.sock.recv(65536).decode()
            if f"Call-ID: scan-{self.n}\r\n" in answer and not answer.startswith("SIP/2.0 100"):
                return answer

    def blank(self, answer, user):
        """Without what is of chance, and the name that was given."""
        answer = re.sub(r"nonce=\"[0-9a-f]+\"", "nonce=\"\"", answer)
        answer = re.sub(r"tag=[0-9a-f]{16}", "tag=", answer)
        return re.sub(rf"(scan-|z9hG4bK|CSeq: ){self.n}\b", "N", answer).replace(f"sip:{user}@", "sip:USER@")

    def as_insider(self, method, user, uri=None):
        """Asked as 104, who has good credentials."""
        uri = uri or ("sip:example.org" if method == "REGISTER" else f"sip:{user}@example.org")
        m = Message(self.ask(method, user, uri=uri))
        name = "WWW-Authenticate" if m.status == 401 else "Proxy-Authenticate"
        credentials = digest(m.get(name), method, uri, "104", "a long one")
        to = "Authorization" if m.status == 401 else "Proxy-Authorization"
        return self.ask(method, user, [(to, credentials)], uri=uri)


@pytest.fixture(name="prober")
def fixture_prober(server):
    p = Prober(server)
    yield p
    p.sock.close()


WORK = ["requests", "challenged", "auth_failed", "refused", "waiting", "registers", "forked", "not_found", "loaded",
        "redirected", "proxied"]


def counters(server):
    """When they stand: figures are shown once a second."""
    seen = []

    def stand():
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.web_port}/metrics", timeout=20).read().decode()
        seen.append({n: int(re.search(rf"(?m)^holdfast_sip_{n}_total (\d+)$", text)[1]) for n in WORK})
        return len(seen) > 120 and seen[-1] == seen[-120]  # 20 ms each at least
    wait("figures that stand", stand)
    return seen[-1]


@pytest.mark.parametrize("method", METHODS)
def test_same_answers(prober, method):
    """To who has no credentials, or wrong ones: of users who are registered, are there, are not."""
    plain, wrong = set(), set()
    for user in KNOWN + UNKNOWN:
        answer = prober.ask(method, user)
        m = Message(answer)
        assert m.status == (401 if method == "REGISTER" else 407)
        plain.add(prober.blank(answer, user))
        uri = "sip:example.org" if method == "REGISTER" else f"sip:{user}@example.org"
        credentials = digest(m.get("WWW-Authenticate") or m.get("Proxy-Authenticate"), method, uri, user, "guess")
        wrong.add(prober.blank(prober.ask(method, user, [("Authorization" if method == "REGISTER" else
                                                          "Proxy-Authorization", credentials)]), user))
    assert len(plain) == 1, plain
    assert len(wrong) == 1, wrong


def test_same_work(server, prober):
    """As many of each kind of work for those who are there as for those who are not: nobody was asked for before."""
    done = []
    for n in range(200, 205):
        server.user(f"{n}", "a long one")
    for users in (range(200, 205), range(205, 210)):
        before = counters(server)
        for user in map(str, users):
            m = Message(prober.ask("REGISTER", user))
            credentials = digest(m.get("WWW-Authenticate"), "REGISTER", "sip:example.org", user, "guess")
            assert Message(prober.ask("REGISTER", user, [("Authorization", credentials)])).status == 401
        after = counters(server)
        done.append({k: after[k] - before[k] for k in WORK})
    assert done[0]["auth_failed"] == done[0]["waiting"] == 5 and done[0]["requests"] == 10
    assert done[0] == done[1]


@pytest.mark.parametrize("method", ["REGISTER", "PUBLISH"])
def test_insider_for_others(prober, method):
    """A user who asks for another one's registration or presence gets 403, whether that one is there or not."""
    got = set()
    for user in ["100", "102"] + UNKNOWN[:2]:
        answer = prober.as_insider(method, user)
        assert Message(answer).status == 403
        got.add(prober.blank(answer, user))
    assert len(got) == 1, got


def test_insider_calls(prober):
    """... and who calls somebody who is not registered gets 480, whether that one is there or not."""
    got = set()
    for method in ("MESSAGE", "OPTIONS"):
        for user in ["102"] + UNKNOWN[:2]:
            answer = prober.as_insider(method, user)
            assert Message(answer).status == 480
            got.add(prober.blank(answer, user).replace(method, "METHOD"))
    assert len(got) == 1, got
