"""holdfast-sip in the lab with real agents: sipp's scenarios for every branch of D3 to D6, sipsak that follows a redirect, a softphone
that does not."""
import re

import pytest
from siplab import AUTO_PORT, CALLER, DOMAIN, EDGE_HOST, EDGE_PORT, HOSTS, PORT, PROXY_PORT, Softphone, calls, reaches, running

USERS = [f"user{i}" for i in range(40)]


@pytest.fixture(name="sip", scope="module")
def fixture_sip(tmp_path_factory):
    with running("siplab", tmp_path_factory.mktemp("sip"), users=USERS) as s:
        yield s


@pytest.fixture(name="user")
def fixture_user(sip):
    """One whom nobody knows yet"""
    return next(sip.unknown)


@pytest.fixture(name="agent")
def fixture_agent(sip):
    """sip.agent(), for one test"""
    made = []

    def new(*words, **more):
        made.append(sip.agent(*words, **more))
        return made[-1]

    yield new
    sip.forget(made)


@pytest.fixture(name="relayed")
def fixture_relayed(sip):
    """Runs sipp's scenarios: over TLS by way of a relay."""
    def run(scenario, user, host, transport, **more):
        if transport != "tls":
            return sip.sipp(scenario, user, host, more.pop("port", PORT), transport, **more)
        with sip.tls_relay(host) as port:
            return sip.sipp(scenario, user, "client", port, "tcp", via="TLS", **more)

    return run


def bound(sip, user):
    """In the answer to who is registered"""
    return f"{user}@{sip.address['client']}"


def give_home(sip, user):
    """By a REGISTER without bindings; which"""
    a = sip.agent(user, HOSTS[0], PROXY_PORT)
    assert a.ask("REGISTER", f"sip:{DOMAIN}", to=a.aor).status == 200
    sip.forget([a])
    return sip.serving(user)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_unassigned(sip, user, transport):
    """Seen for the first time, somebody gets a home, and is served by it, whoever was asked."""
    assert user not in sip.homes()
    assert bound(sip, user) in sip.sipp("register", user, HOSTS[0], PROXY_PORT, transport)
    assert sip.homes()[user][2] == 1


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_own_and_redirected(sip, user, relayed, transport):
    """The home serves, any other redirects to it with the row's epoch; who follows is served there."""
    home = give_home(sip, user)
    assert bound(sip, user) in relayed("register", user, home, transport)
    said = relayed("redirect", user, sip.other(user), transport)
    assert f"to sip:{sip.address[home]}" in said and "hf=1." in said
    if transport != "tls":  # the relay goes to one server
        assert bound(sip, user) in relayed("follow", user, sip.other(user), transport)
    assert sip.homes()[user] == (home, home, 1)


def test_redirected_tls(sip, user, agent):
    home = give_home(sip, user)
    a = agent(user, sip.other(user), transport="tls", follows=False)
    m = a.register()
    assert m.status == 302 and f"{sip.address[home]};transport=tls" in m.contact().replace(":5061", "")
    b, caller = agent(user, home, transport="tls"), agent(CALLER, sip.other(user), PROXY_PORT)
    assert b.register().status == 200
    reaches(sip, caller, b)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_edge(sip, user, agent, transport):
    """Who comes through an edge is never redirected, wherever his home is, and is called by way of it."""
    give_home(sip, user)
    sip.move(user, next(h for h in HOSTS if h != EDGE_HOST))
    assert bound(sip, user) in sip.sipp("register", user, EDGE_HOST, EDGE_PORT, transport)
    a, caller = agent(user, EDGE_HOST, EDGE_PORT, transport, follows=False), agent(CALLER, "alpha", PROXY_PORT)
    m = a.register()
    assert m.status == 200 and "Path" in dict(m.fields)
    reaches(sip, caller, a)
    calls(sip, caller, a)
    assert a.register(expires=0).status == 200


def test_refresh_at_the_old_home(sip, user, agent):
    """After a move the old home redirects; the new one knows the binding before anybody comes."""
    old = give_home(sip, user)
    a, caller = agent(user, old), agent(CALLER, sip.other(user), PROXY_PORT)
    assert (a.register().status, a.redirects) == (200, 0)
    new = sip.other(user)
    sip.move(user, new)
    reaches(sip, caller, a)
    assert f"to sip:{sip.address[new]}" in sip.sipp("redirect", user, old)
    assert (a.register().status, a.redirects) == (200, 1)
    assert a.server[0] == sip.address[new]
    reaches(sip, caller, a)
    assert a.register(expires=0).status == 200


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_moved_with_a_connection(sip, user, agent, transport):
    """Who has registered over a connection is called by it when he has been moved to another server, and when he is back."""
    old = give_home(sip, user)
    a, caller = agent(user, old, transport=transport), agent(CALLER, sip.other(user), PROXY_PORT)
    assert (a.register().status, a.redirects) == (200, 0)
    for home in (sip.other(user), old):
        sip.move(user, home)
        sip.until(lambda h=home: sip.ask(h, "show", aor=user)["known"]["bindings"], f"{home} has loaded it")
        for _ in range(3):
            reaches(sip, caller, a)
    assert a.register(expires=0).status == 200


def test_database_away(sip, agent):
    """Who is known is served, for a minute at a time; who is not is asked to come again; then all is as before."""
    known, unknown = next(sip.unknown), next(sip.unknown)
    home = give_home(sip, known)
    a, caller = agent(known, home), agent(CALLER, home, PROXY_PORT)
    assert a.register().status == 200
    reaches(sip, caller, a)
    sip.database.power_off()
    try:
        sip.until(lambda: all(w["table"] == "away" for h in HOSTS for w in sip.ask(h, "status")["workers"]), "the database is away")
        m = a.register()
        assert m.status == 200
        assert [int(re.search(r"expires=(\d+)", c)[1]) <= 60 for c in m.values("Contact") if a.where in c] == [True]
        reaches(sip, caller, a)
        sip.sipp("refused", unknown, home)
    finally:
        sip.database.start()
    sip.until(lambda: all(w["table"] == "fresh" for h in HOSTS for w in sip.ask(h, "status")["workers"]), "the database is back")
    assert a.register().status == 200
    sip.sipp("register", unknown, home, PROXY_PORT)
    reaches(sip, caller, a)


def test_sipsak_follows(sip, user):
    """A program of others' that follows a redirect"""
    give_home(sip, user)
    to = sip.address[sip.other(user)]
    p = sip.lab.run("exec", "client", "--", "timeout", 30, "sipsak", "-U", "-s", f"sip:{user}@{to}:{PORT}", "-u", user, "-a", "secret",
                    "-x", "600", "-H", sip.address["client"], "-vvv", check=False)
    assert p.returncode == 0 and "received redirect" in p.stdout, f"{p.stdout}{p.stderr}{sip.story()}"
    assert sip.address["client"] in str(sip.ask(sip.serving(user), "show", aor=user)["known"])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("follows", [True, False])
def test_auto(sip, user, agent, transport, follows):
    """Under policy auto a redirect is tried when nothing can be lost; who does not follow it is proxied from then on."""
    home = give_home(sip, user)
    a = agent(user, sip.other(user), AUTO_PORT, transport, follows=follows and transport == "udp")
    caller = agent(CALLER, sip.other(user), PROXY_PORT)
    assert (a.register().status, a.redirects) == (200, 0)
    reaches(sip, caller, a)
    m = a.register()
    if a.follows:
        assert (m.status, a.redirects) == (200, 1)
        assert a.server[0] == sip.address[home]
    else:
        assert m.status == 302 and sip.address[home] in m.contact()
        reaches(sip, caller, a)  # nothing is lost
        for _ in range(2):
            assert a.register().status == 200
    reaches(sip, caller, a)
    if transport == "udp":
        calls(sip, caller, a)
    assert a.register(expires=0).status == 200


def test_softphone(sip, user, agent):
    """One that does not follow ends registered and callable all the same."""
    home = give_home(sip, user)
    caller = agent(CALLER, sip.other(user), PROXY_PORT)
    phone = Softphone(sip, user, sip.other(user), AUTO_PORT)
    try:
        sip.until(lambda: phone.said("registered successfully"), "it says so")
        for _ in range(2):
            calls(sip, caller, phone, takes=None)
        phone.quit()
        sip.until(lambda: sip.address["client"] not in str(sip.ask(home, "show", aor=user)["known"]), "its binding is gone")
    finally:
        phone.end()


def test_seen_by_whoever_looks_at_the_cluster(sip, user):
    """The servers with their users, and who leads, in one look at any host."""
    home = give_home(sip, user)

    def top():
        return sip.lab.exec("beta", "holdfast", "top", "-b", "-n", "1").splitlines()

    def row(name):
        lines = top()
        return next((line for line in lines[lines.index("SIP") + 1:] if line.split()[0] == name), "")

    sip.until(lambda: all(row(n).split()[1] == "live" for n in sip.servers), "all servers are shown")
    sip.until(lambda: int(row(home).split()[2]) >= 1, "the home has users")
    assert "leads" in row(sip.leader())
    host = sip.servers[home][0]
    shown = next(line for line in top() if line.split()[0] == host and "SIP users" in line)
    assert int(shown.split("sessions")[1].split()[0]) >= 1
