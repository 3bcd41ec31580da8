"""Each SIP server's address is a service address: when its host dies, another server answers there (S1); DNS tells of those that
live (D1)."""
import contextlib

import pytest
from siplab import CALLER, DOMAIN, HOSTS, PORT, PROXY_PORT, calls, reaches, running

USERS = [f"user{i}" for i in range(12)]
VICTIM, OTHER = "beta", "gamma"


@pytest.fixture(name="sip", scope="module")
def fixture_sip(tmp_path_factory):
    with running("sipaddress", tmp_path_factory.mktemp("sip"), "patience = 1h", users=USERS, services=True) as s:
        yield s


def holder(sip, owner):
    """Whose host has this server's service address"""
    return next((h for h in sip.alive() if h in HOSTS and sip.holds(h, owner)), None)


def register(sip, agent, status=200):
    m = agent.register()
    assert m.status == status, f"{m}\n{sip.story()}"
    return m


def give(sip, user, to):
    """Makes this server his home."""
    sip.move(user, to)
    sip.until(lambda: sip.ask(to, "show", aor=user)["known"].get("current") == to, f"{user} is {to}'s")


def is_broken(agent):
    """Whether its connection is, once it has said something."""
    with contextlib.suppress(OSError):
        agent.send("\r\n\r\n")
    return not agent.thread.is_alive()


# --- DNS ---


def dig(sip, name, kind):
    lines = sip.lab.exec("client", "dig", "+short", "+time=2", f"@{sip.address['alpha']}", f"{name}lab.internal", kind)
    return sorted(line.split() for line in lines.splitlines())


def found(sip, labels="_sip._udp."):
    """{server: (priority, weight, port)}"""
    records = dig(sip, f"{labels}sip.", "SRV")
    return {target.split(".")[0]: (int(a), int(b), int(c)) for a, b, c, target in records}


@pytest.mark.parametrize("base", ["sip.", ""])
def test_naptr(sip, base):
    at = f"{base}lab.internal."
    assert dig(sip, base, "NAPTR") == sorted(["10", str(preference), '"s"', f'"{service}"', '""', f"{labels}.{at}"] for (
        preference, service, labels) in ((10, "SIPS+D2T", "_sips._tcp"), (20, "SIP+D2T", "_sip._tcp"), (30, "SIP+D2U", "_sip._udp")))


@pytest.mark.parametrize("labels, port", [("_sip._udp.", PORT), ("_sip._tcp.", PORT), ("_sips._tcp.", 5061)])
def test_srv(sip, labels, port):
    """Homes, by their service addresses; no edge."""
    servers = found(sip, labels)
    assert set(servers) == set(HOSTS)
    for host, (priority, weight, at) in servers.items():
        assert (priority, at) == (10, port) and 0 < weight <= 1000
        assert dig(sip, f"{host}.servers.sip.", "A") == [[sip.service[host]]]


def test_drained_server_vanishes(sip):
    sip.ask(OTHER, "drain")
    try:
        sip.until(lambda: set(found(sip)) == set(HOSTS) - {OTHER}, "DNS does not tell of it")
    finally:
        sip.ask(OTHER, "undrain")
    sip.until(lambda: set(found(sip)) == set(HOSTS), "DNS tells of it")


# --- the address ---


def test_dead_servers_address_is_answered(sip):
    """Who knows only the address of a server that is dead is answered there, by another one, and can be called; nothing is lost when
    it comes back, without its address and with it."""
    agents = [sip.agent(next(sip.unknown), VICTIM) for _ in range(6)]
    phones = [sip.agent(next(sip.unknown), VICTIM, PROXY_PORT, follows=False) for _ in range(3)]
    stream = sip.agent(next(sip.unknown), VICTIM, PORT, "tcp")
    caller = sip.agent(CALLER, VICTIM, PROXY_PORT)
    for a in (*agents, *phones, stream):
        a.follows, follows = False, a.follows
        a.ask("REGISTER", f"sip:{DOMAIN}", to=a.aor)  # so that it has a home
        a.follows = follows
        give(sip, a.user, VICTIM)
    for a in (*agents, *phones, stream):
        register(sip, a)
        assert a.redirects == 0 and a.server[0] == sip.where(VICTIM)
        reaches(sip, caller, a)

    sip.power_off(VICTIM)
    sip.until(lambda: holder(sip, VICTIM), "another one has the address")
    now = holder(sip, VICTIM)
    sip.until(lambda: VICTIM not in {current for _, current, _ in sip.homes().values()}, "its clients have other homes")
    for a in (*agents, *phones):
        reaches(sip, caller, a)  # who has not heard of it, by somebody who has not either
    for a in agents:
        m = register(sip, a)
        home = sip.serving(a.user)
        assert (a.redirects, a.server[0]) == ((0, sip.where(VICTIM)) if home == now else (1, sip.where(home))), f"{m} {home} {now}"
        calls(sip, caller, a)
    for a in phones:
        assert register(sip, a).peer[0] == sip.where(VICTIM)
        calls(sip, caller, a)
    sip.until(lambda: is_broken(stream), "a connection is reset at its next word")
    again = sip.agent(stream.user, VICTIM, PROXY_PORT, "tcp", follows=False)
    register(sip, again)
    reaches(sip, caller, again)

    sip.boot(VICTIM)  # its address stays where it is
    sip.until(sip.is_whole, "all servers see each other")
    assert holder(sip, VICTIM) == now
    a = phones[0]
    for phone in (a, again):
        give(sip, phone.user, VICTIM)
        register(sip, phone)
        reaches(sip, caller, phone)
    calls(sip, caller, a)
    b = sip.agent(a.user, OTHER)  # sent to an address where its home is not: it is proxied
    m = register(sip, b)
    assert (b.redirects, b.server[0]) == (1, sip.where(VICTIM)), m
    reaches(sip, caller, b)
    sip.switch(VICTIM, VICTIM)
    for phone in (a, b):
        register(sip, phone)
        reaches(sip, caller, phone)
    switch_all_back(sip)


def switch_all_back(sip):
    for host in HOSTS:
        if holder(sip, host) != host:
            sip.switch(host, host)


def test_dead_server_vanishes_from_dns(sip):
    sip.power_off(OTHER)
    try:
        sip.until(lambda: set(found(sip)) == set(HOSTS) - {OTHER}, "DNS does not tell of it")
        assert dig(sip, f"{OTHER}.servers.sip.", "A") == []
    finally:
        sip.boot(OTHER)
    sip.until(lambda: set(found(sip)) == set(HOSTS), "DNS tells of it")
    switch_all_back(sip)
