"""TCP connections of unmodified clients move between hosts; the other tests of moves in pieces.

More of the first one, at random: make tcp-chaos."""
import contextlib
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

import tcpmove
from network import in_network
from tcpmove import KINDS, PROGRAM, Net, Server, await_progress, run


@pytest.fixture(params=[4, 6])
def net(request):
    with tempfile.TemporaryDirectory() as d, Net(request.param, d) as n:
        yield n


@pytest.fixture
def net4():
    with tempfile.TemporaryDirectory() as d, Net(4, d) as n:
        yield n


def stop(net, clients):
    for c in clients:
        c.stopping = True
    for c in clients:
        c.end()
        net.clients.remove(c)


def send_all(s, data):
    s.settimeout(tcpmove.DEADLINE)
    s.sendall(data)


def receive(s, n):
    s.settimeout(tcpmove.DEADLINE)
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        assert more, f"end of file after {len(data)} of {n}"
        data += more
    return data


def test_all_kinds_of_clients(net):
    net.start()
    clients = [net.start_client(kind=k) for k in KINDS]
    await_progress(clients)
    for planned in (False, True, False, False):
        n = net.move(planned)
        assert n["restored"] == len(clients) and n["failed"] == n["gone"] == 0, n
        await_progress(clients, 20_000)
    stop(net, clients)


def test_an_idle_connection_needs_no_probe(net):
    net.start()
    s = net.connect()
    send_all(s, b"abc")
    assert receive(s, 3) == b"ABC"
    n = net.move(planned=True)
    assert n["restored"] == 1 and n["probes"] == 0, n
    send_all(s, b"def")
    assert receive(s, 3) == b"DEF"
    s.close()


def test_peer_without_d_sack(net4):
    """What it says may be older than the probe, so it is not relied on."""
    run("ip", "netns", "exec", net4.client, "sysctl", "-q", "net.ipv4.tcp_dsack=0")
    net4.start()
    client = net4.start_client(kind="bulk")
    for planned in (False, True):
        await_progress([client], 1 << 20)
        assert net4.move(planned)["restored"] == 1
    await_progress([client], 1 << 20)
    stop(net4, [client])


@pytest.mark.parametrize("options", [("sack",), ("sack", "timestamps", "window_scaling"), ()])
def test_slow_reader(net4, options):
    """Most of what is owed to it never left the old host; it comes as fast as it is read, not with one retransmission each."""
    net4.start()
    s = net4.connect([(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)], [tcpmove.OFF[o] for o in options])
    data = tcpmove.STREAM[:1_000_000]
    send_all(s, data)
    for planned in (False, True):
        assert net4.move(planned)["restored"] == 1
    s.settimeout(8)  # s, for the next few bytes: the clock of the retransmissions doubles
    got = b""
    while len(got) < len(data):
        got += s.recv(2048)
        time.sleep(0.001)
    assert got == tcpmove.ECHO[:len(data)]
    s.close()


MARK = 7
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
DEAF = ("add table inet hush; add chain inet hush out { type filter hook output priority 0; }; "
        f"add rule inet hush out tcp dport {tcpmove.PORT} meta mark != {MARK} drop")


def with_window(packet, window):
    """An IPv4 packet with that in its window field, and its checksum right"""
    tcp = bytearray(packet[20:])
    tcp[14:18] = struct.pack("!HH", window, 0)
    pseudo = packet[12:20] + struct.pack("!HH", 6, len(tcp))
    tcp[16:18] = struct.pack("!H", tcpmove.checksum(pseudo + bytes(tcp) + b"\0" * (len(tcp) % 2)))
    return packet[:20] + bytes(tcp)


def from_service(sniffer, n=0):
    """The next IPv4 packet from the service address with more than n bytes of data"""
    while True:
        p = sniffer.recv(65536)
        if p[9] == 6 and p[20:22] == struct.pack("!H", tcpmove.PORT) and len(p) - 20 - (p[32] >> 4) * 4 > n:
            return p


def until_sent(sniffer, end):
    """The service address has sent so far, by TCP's count."""
    left = 1
    while 0 < left < 1 << 31:
        p = from_service(sniffer)
        left = (end - struct.unpack("!I", p[24:28])[0] - (len(p) - 20 - (p[32] >> 4) * 4)) % (1 << 32)


def await_socket(host, unread=0, unacknowledged=False):
    """Until the connection of the service there has that much to be read, and something that is not acknowledged."""
    end = time.monotonic() + tcpmove.DEADLINE
    while True:
        _, receive_q, send_q, *_ = run("ip", "netns", "exec", host, "ss", "-Htn", f"sport = :{tcpmove.PORT}").split()
        if int(receive_q) >= unread and (send_q != "0" or not unacknowledged):
            return
        assert time.monotonic() < end, f"{receive_q} bytes to be read, {send_q} not acknowledged"


def sniff():
    """A socket that has all packets of the namespace, with room for what comes while nobody reads"""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
    return s


def forget(sniffer):
    sniffer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sniffer.recv(65536):
            pass
    sniffer.settimeout(tcpmove.DEADLINE)


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_that_is_too_old(net4, late):
    """Without SACK: the dead host had sent what a later acknowledgement let it; the first that comes to the new one is an older one.
    A few bytes that come next show it; late: they are not answered for so long that the old one is believed, and found out later."""
    net4.start()
    seen = in_network(net4.client, sniff)
    s = net4.connect([(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)], [tcpmove.OFF["sack"]])
    data = tcpmove.STREAM[:200_000]
    send_all(s, data)
    seen.settimeout(tcpmove.DEADLINE)
    full = []
    while len(full) < 3:  # its buffer is full, and stays so when it is asked
        p = seen.recv(65536)
        if p[9] == 6 and p[22:24] == struct.pack("!H", tcpmove.PORT):
            is_full = p[34:36] == b"\0\0" and len(p) == 20 + (p[32] >> 4) * 4  # and nothing of its own is under way
            full = [*full, with_window(p, 0)] if is_full else []
    old = full[-1]
    raw = in_network(net4.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    to = (str(net4.address), 0)
    run("ip", "netns", "exec", net4.client, "nft", DEAF)
    got = receive(s, 8000)
    forget(seen)
    window = with_window(old, 4096)  # for which there is room
    raw.sendto(window, to)
    from_service(seen, 48)  # which are sent, and acknowledged in vain
    new = net4.ready()
    net4.power_off()
    net4.take_address(new.host)
    forget(seen)
    new.go()
    if late:
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            raw.sendto(old, to)
            time.sleep(0.002)
    else:
        raw.sendto(window, to)
        while from_service(seen)[24:28] != old[28:32]:  # they are sent where the old one says
            raw.sendto(window, to)  # to each probe
    run("ip", "netns", "exec", net4.client, "nft", "delete table inet hush")
    got += receive(s, len(data) - len(got))
    assert got == tcpmove.ECHO[:len(data)]
    line = new.until("taken")
    assert (" inexact=1 " if late else " inexact=0 lowered=0 tried=1 ") in line and late == (" lowered=0 " not in line), line
    net4.server = new
    for x in (s, raw, seen):
        x.close()


@pytest.mark.parametrize("options", [(), ("sack",)], ids=["sack", "no-sack"])
def test_bytes_are_missing_in_the_middle(net4, options):
    """The dead host's bytes came, but for some. As these come, what is acknowledged jumps over all that came before: beyond what the
    new host has sent."""
    net4.start()
    old = net4.server
    # Packets are lost one by one; and however slowly this runs, the congestion window stays, which a timeout, or as long without
    # sending, would close.
    run("ip", "-n", old.host, "link", "set", "eth0", "gso_max_segs", 1)
    run("ip", "-n", old.host, "route", "change", "10.79.0.0/16", "dev", "eth0", "rto_min", "60s")
    seen = in_network(net4.client, sniff)
    s = net4.connect([], [tcpmove.OFF[o] for o in options])
    missing, data = 2 * 1448, tcpmove.STREAM[:360_000]  # the client has a window of 64 KiB, or more
    more = tcpmove.STREAM[len(data):len(data) + 10_000]
    send_all(s, data[:300_000])  # which opens its congestion window
    got = receive(s, 300_000)
    forget(seen)
    send_all(s, data[300_000:300_001])
    p = from_service(seen)
    got += receive(s, 1)
    at = struct.unpack("!I", p[24:28])[0] + 1
    rest = len(data) - len(got)
    old.signal(signal.SIGSTOP)
    send_all(s, data[len(got):])
    await_socket(old.host, unread=rest)
    run("ip", "netns", "exec", net4.client, "nft",
        "add table inet gap; add chain inet gap in { type filter hook input priority 0; }; "
        f"add rule inet gap in tcp sport {tcpmove.PORT} tcp sequence {at}-{at + missing - 1} drop; {DEAF}")
    old.signal(signal.SIGCONT)
    until_sent(seen, at + rest)
    new = net4.ready()
    net4.power_off()
    run("ip", "netns", "exec", net4.client, "nft", "delete table inet gap; delete table inet hush")
    net4.take_address(new.host)
    new.go()
    got += receive(s, len(data) - len(got))
    assert got == tcpmove.ECHO[:len(data)]
    send_all(s, more)
    assert receive(s, len(more)) == tcpmove.ECHO[len(data):len(data) + len(more)]
    assert " lowered=0 " not in new.until("taken")
    net4.server = new
    s.close()
    seen.close()


@pytest.mark.parametrize("late", [True, False])
def test_peer_that_does_not_answer(net4, late):
    """Late: the listener does not wait for it, and it is restored exactly. Never: restored all the same, slowly."""
    deaf = ("add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; "
            f"add rule inet deaf in tcp sport {tcpmove.PORT} drop")
    net4.start()
    client = net4.start_client(kind="bulk")
    await_progress([client], 1 << 20)
    new = net4.ready()
    run("ip", "netns", "exec", net4.client, "nft", deaf)
    await_socket(net4.server.host, unacknowledged=True)
    net4.power_off()
    net4.take_address(new.host)
    new.go()
    new.until("settled" if late else "taken")
    run("ip", "netns", "exec", net4.client, "nft", "delete table inet deaf")
    line = new.until("taken")  # what a deaf peer resends may show that it has all there is
    assert (" answered=1 inexact=0 " if late else " restored=1 ") in line, line
    net4.server = new
    await_progress([client], 1 << 20)
    stop(net4, [client])


def test_half_closed(net):
    """The client's FIN came before the host died: its echo is still owed, then our FIN."""
    net.start()
    sockets = [net.connect() for _ in range(4)]
    data = tcpmove.STREAM[:300_000]
    for i, s in enumerate(sockets):
        send_all(s, data[:100_000 * i])
        s.shutdown(socket.SHUT_WR)
    net.move()
    net.move()
    for i, s in enumerate(sockets):
        assert receive(s, 100_000 * i) == tcpmove.ECHO[:100_000 * i]
        assert s.recv(1) == b""
        s.close()


def test_client_that_is_gone(net4):
    net4.start()
    s, other = net4.connect(), net4.connect()
    for c in (s, other):
        send_all(c, b"x")
        assert receive(c, 1) == b"X"
    new = net4.ready()
    net4.power_off()
    send_all(other, b"y")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()  # a reset, that nobody hears
    net4.server = new
    net4.take_address(new.host)
    new.go()
    line = new.until("taken")
    assert " gone=1 restored=1 " in line, line
    assert receive(other, 1) == b"Y"
    other.close()


def capture(net, host, run_it):
    """(SYN, SYN-ACK) seen on that host while run_it() runs."""
    s = in_network(host, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
    s.settimeout(tcpmove.DEADLINE)
    offset = 20 if net.version == 4 else 40
    seen = {}
    run_it()
    while len(seen) < 2:
        p = s.recv(65536)
        protocol = p[9] if p[0] >> 4 == 4 else p[6]
        if p[0] >> 4 == net.version and protocol == 6 and p[offset + 13] & 2:
            seen.setdefault(p[offset + 13] & 0x12, p)
    s.close()
    return seen[2], seen[0x12]


@pytest.mark.parametrize("lost", [True, False])
def test_embryo(net, tmp_path, lost):
    """The host died right behind its SYN-ACK, which the client has not, or has."""
    net.start()
    guard = ("add table inet lose; add chain inet lose in { type filter hook input priority 0; }; "
             f"add rule inet lose in tcp sport {tcpmove.PORT} drop")
    if lost:
        run("ip", "netns", "exec", net.client, "nft", guard)
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    s = in_network(net.client, lambda: socket.socket(family))
    s.setblocking(False)
    packets = capture(net, net.server.host, lambda: s.connect_ex((str(net.address), tcpmove.PORT)))
    net.power_off()
    if not lost:
        s.setblocking(True)
        send_all(s, b"hello")  # what the old host had acknowledged would be lost: it had no output commit
    net.state.write_bytes(b"")  # it never heard of the connection
    file = tmp_path / "handshake"
    file.write_text("".join(p.hex() + "\n" for p in packets), encoding="ascii")
    new = net.ready("--handshake", file)
    net.take_address(new.host)
    if lost:
        run("ip", "netns", "exec", net.client, "nft", "delete table inet lose")
    new.go()
    assert " restored=1 " in new.until("taken")
    s.setblocking(True)
    if lost:
        send_all(s, b"hello")
    assert receive(s, 5) == b"HELLO"
    net.server = new
    s.close()


def test_new_connection_during_the_take_over(net):
    """Its SYN comes before there is a listener: recorded, then given to it."""
    net.start()
    new = net.ready()
    net.power_off()
    net.take_address(new.host)
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    s = in_network(net.client, lambda: socket.socket(family))
    s.setblocking(False)
    seen = in_network(new.host, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
    s.connect_ex((str(net.address), tcpmove.PORT))
    seen.settimeout(tcpmove.DEADLINE)
    while True:  # until the SYN is there
        p = seen.recv(65536)
        if p[9] == 6 or (p[0] >> 4 == 6 and p[6] == 6):
            break
    seen.close()
    new.go()
    line = new.until("taken")
    assert " recorded=1 replayed=1 " in line, line
    net.server = new
    s.setblocking(True)
    send_all(s, b"abc")
    assert receive(s, 3) == b"ABC"
    s.close()


def test_many(net4):
    """Hundreds in one batch, all of them with something unacknowledged or on its way."""
    net4.start()
    sockets = [net4.connect() for _ in range(400)]
    for s in sockets:
        send_all(s, tcpmove.STREAM[:1000])
    n = net4.move()
    assert n["restored"] == 400 and n["failed"] == 0, n
    for s in sockets:
        assert receive(s, 1000) == tcpmove.ECHO[:1000]
        s.close()


CAPS = {"both": "+net_admin,+net_raw", "no raw": "+net_admin", "no admin": "+net_raw"}


@pytest.mark.parametrize("caps", CAPS)
def test_capabilities(net4, caps):
    """CAP_NET_ADMIN and CAP_NET_RAW are needed, and enough, for a user that is not root."""
    prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all," +
              CAPS[caps], "--inh-caps", "-all," + CAPS[caps], "--ambient-caps", "-all," + CAPS[caps], "--no-new-privs")
    net4.state.parent.chmod(0o777)
    net4.start()
    client = net4.start_client()
    await_progress([client], 10_000)
    if caps == "both":
        for _ in range(2):
            net4.take_over(net4.ready(prefix=prefix))
            await_progress([client], 10_000)
    else:
        server = Server(net4, net4.boot(), net4.address, net4.state, "--take", prefix=prefix)
        line = server.until("tcp-move: take:")
        assert ("CAP_NET_RAW" if caps == "no raw" else "CAP_NET_ADMIN") in line
    stop(net4, [client])


def test_refuses_another_users_address():
    p = subprocess.run([PROGRAM, "10.0.0.1", "/nonexistent", "--take"], capture_output=True, text=True, timeout=10,
                       check=False)
    assert p.returncode == 1 and "address with its port" in p.stderr
