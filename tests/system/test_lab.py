"""holdfast-lab itself: hosts, cables, power cuts, freezing, loss, and leaving nothing behind."""
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as xml_tree

import pytest

from lab import STATE, Lab

# Prints what kind of TCP packet comes from an address.
SNIFF = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("eth0", 0))
source = bytes(int(x) for x in sys.argv[1].split("."))
print("ready", flush=True)
while True:
    p = s.recv(2048)
    if p[12:14] == b"\\x08\\x00" and p[26:30] == source and p[23] == 6:
        flags = p[14 + (p[14] & 15) * 4 + 13]
        print("FIN" if flags & 1 else "RST" if flags & 4 else "data", flush=True)
"""
SERVER = """
import socket
s = socket.create_server(("", 7000))
print("ready", flush=True)
c, _ = s.accept()
while c.recv(100):
    print("got", flush=True)
print("closed", flush=True)
"""
CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7000))
while True:
    s.send(b"x")
    time.sleep(0.02)
"""
UDP_PING = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    s.sendto(b"x", (sys.argv[1], 7001)) # must not fail, whatever is lost
"""
UDP_COUNT = """
import socket, select
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
a.bind(("", 7001))
end = socket.create_server(("", 7003))
print("ready", flush=True)
end.accept()
n = 0
while select.select([a], [], [], 0)[0]:
    a.recv(10)
    n += 1
print(n, flush=True)
"""


@pytest.fixture(scope="module")
def lab(new_lab):
    return new_lab("-n", "3", "--no-daemon")


def python(lab, host, program, *args):
    """Start a Python program on a host and wait for its "ready"."""
    p = lab.popen(host, "/usr/bin/python3", "-c", program, *args)
    if 'print("ready"' in program:
        assert p.stdout.readline() == "ready\n"
    return p


def end(*processes):
    for p in processes:
        p.kill()
        p.wait()
        p.stdout.close()


def reaches(lab, a, b, v6=False):
    """Whether a TCP connection attempt from a gets an answer (a refusal) from b."""
    text = ("import socket, sys\ntry:\n    socket.create_connection((sys.argv[1], 9), 0.5)\n"
            "except ConnectionRefusedError:\n    print('yes')\nexcept OSError:\n    pass")
    address = lab.address(b, v6) if lab.state_of(b)["state"] == "on" else lab.state_of(b)["address"]
    return lab.exec(a, "/usr/bin/python3", "-c", text, address) == "yes\n"


def test_hosts_are_apart(lab):
    assert [lab.exec(h, "hostname").strip() for h in ("alpha", "beta", "gamma", "client")] == [
        "alpha", "beta", "gamma", "client"]
    for kind in ("net", "mnt", "uts", "pid", "ipc"):
        spaces = {lab.exec(h, "readlink", f"/proc/self/ns/{kind}") for h in ("alpha", "client")}
        assert len(spaces | {os.readlink(f"/proc/self/ns/{kind}") + "\n"}) == 3, kind
    for path in ("/run", "/dev/shm", "/var/lib/holdfast", "/etc/holdfast"):
        lab.put("alpha", f"{path}/mark", "alpha")
        assert lab.run("exec", "beta", "--", "test", "-e", f"{path}/mark", check=False).returncode
        assert not os.path.exists(f"{path}/mark")


def test_network(lab):
    assert reaches(lab, "alpha", "beta") and reaches(lab, "client", "gamma")
    assert reaches(lab, "alpha", "beta", v6=True)
    assert "gamma" in lab.exec("alpha", "getent", "hosts", "gamma")


def test_nothing_in_the_machines_network(lab):
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "alpha" not in links and lab.name not in links


def test_exec_gives_status_and_output(lab):
    p = lab.run("exec", "alpha", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (p.returncode, p.stdout, p.stderr) == (7, "out\n", "err\n")


def test_orphans_are_reaped(lab):
    lab.exec("alpha", "sh", "-c", "(sh -c 'exit 0' &) & exit 0")
    lab.until(lambda: " Z" not in lab.exec("alpha", "ps", "-e", "-o", "pid,stat"), "no zombies")


def connected(lab):
    """A server and a sniffer on beta, a client on alpha that keeps sending."""
    sniffer = python(lab, "beta", SNIFF, lab.address("alpha"))
    server = python(lab, "beta", SERVER)
    client = python(lab, "alpha", CLIENT, lab.address("beta"))
    assert server.stdout.readline() == "got\n"
    return sniffer, server, client


def heard(sniffer):
    sniffer.kill()
    return set(sniffer.stdout.read().split())


def test_a_killed_process_says_goodbye(lab):
    """The counterpart of the next test: shows that the capture would see it."""
    sniffer, server, client = connected(lab)
    lab.exec("alpha", "pkill", "-KILL", "-f", "create_connection")
    assert any(line in ("FIN\n", "RST\n") for line in sniffer.stdout)
    sniffer.kill()
    end(server, client, sniffer)


def test_power_off_sends_nothing(lab):
    sniffer, server, client = connected(lab)
    lab.run("power-off", "alpha")
    assert lab.state_of("alpha")["state"] == "off"
    assert not reaches(lab, "beta", "alpha")  # half a second in which it could still speak
    assert heard(sniffer) == {"data"}
    assert server.poll() is None  # it still waits: nobody told it
    end(server, client, sniffer)
    assert lab.run("exec", "alpha", "--", "true", check=False).returncode == 1
    lab.run("power-off", "alpha")  # twice is once


def test_boot_keeps_files_but_not_memory(lab):
    lab.run("power-off", "beta")
    lab.run("boot", "beta")
    lab.put("beta", "/var/lib/holdfast/kept", "1")
    lab.put("beta", "/srv/kept", "2")
    lab.put("beta", "/run/lost", "1")
    lab.run("power-off", "beta")
    lab.run("boot", "beta")
    assert lab.get("beta", "/var/lib/holdfast/kept") == "1"
    assert lab.get("beta", "/srv/kept") == "2"
    assert not os.path.exists("/srv/kept")
    assert lab.run("exec", "beta", "--", "test", "-e", "/run/lost", check=False).returncode
    p = lab.run("boot", "beta", check=False)
    assert p.returncode == 1 and "on already" in p.stderr


def test_cut_and_heal(lab):
    boot_all(lab)
    lab.run("cut", "alpha")
    assert not reaches(lab, "beta", "alpha") and not reaches(lab, "alpha", "client")
    lab.run("power-off", "alpha")
    lab.run("boot", "alpha")  # does not mend a cable
    assert not reaches(lab, "beta", "alpha")
    lab.run("heal", "alpha")
    lab.until(lambda: reaches(lab, "beta", "alpha"), "healed")


# --- the fence device -----------------------------------------------------------------------------

def fence_status(lab, plug, host="gamma"):
    return lab.fence(host, "status", plug, check=False).returncode


def test_fence_off_and_on(lab):
    boot_all(lab)
    assert fence_status(lab, "alpha") == 0
    server = python(lab, "beta", SERVER)
    sniffer = python(lab, "beta", SNIFF, lab.address("alpha"))
    client = python(lab, "alpha", CLIENT, lab.address("beta"))
    assert server.stdout.readline() == "got\n"
    init = lab.init("alpha")
    lab.fence("beta", "off", "alpha")
    assert not pathlib.Path(f"/proc/{init}/ns").exists() or pathlib.Path(
        f"/proc/{init}/stat").read_text().split(") ")[1][0] in "ZX"
    assert (fence_status(lab, "alpha"), lab.state_of("alpha")["state"]) == (2, "off")
    assert not reaches(lab, "beta", "alpha")
    assert heard(sniffer) == {"data"}  # dead without a word, as after "power-off"
    end(server, client, sniffer)
    lab.fence("beta", "off", "alpha")  # twice is once
    lab.fence("gamma", "on", "alpha")
    assert fence_status(lab, "alpha") == 0
    assert reaches(lab, "beta", "alpha")
    lab.run("power-off", "alpha")
    assert fence_status(lab, "alpha") == 2
    lab.run("boot", "alpha")
    assert fence_status(lab, "alpha") == 0


def test_fence_reboot(lab):
    boot_all(lab)
    lab.put("alpha", "/run/mark", "before")
    lab.fence("beta", "reboot", "alpha")
    lab.until(lambda: fence_status(lab, "alpha") == 0 and lab.run(
        "exec", "alpha", "--", "test", "-e", "/run/mark", check=False).returncode, "alpha is back")
    lab.until(lambda: reaches(lab, "beta", "alpha"), "with its cable")


def test_fence_oneself(lab):
    """The request outlives the one who made it."""
    boot_all(lab)
    lab.fence("alpha", "off", "alpha", check=False)
    lab.until(lambda: fence_status(lab, "alpha") == 2, "it is off")
    lab.run("boot", "alpha")


def test_fence_while_booting(lab):
    """Either it is off afterwards, or it was booted afterwards: never "off" and then alive."""
    boot_all(lab)
    lab.run("power-off", "alpha")
    holder, before = STATE / lab.name / "hosts/alpha/holder", ""
    for _ in range(5):
        boot = subprocess.Popen([lab.tool, "--name", lab.name, "boot", "alpha"],
                                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.until(lambda b=before: holder.read_text() not in (b, ""), "the boot has begun")
        before = holder.read_text()
        lab.fence("beta", "off", "alpha")
        boot.wait()
        assert fence_status(lab, "alpha") == 2
    lab.run("boot", "alpha")


def test_fence_frozen(lab):
    """A frozen host is killed frozen: nothing in it runs a step further."""
    boot_all(lab)
    for how in (lambda: lab.fence("beta", "off", "gamma"), lambda: lab.run("power-off", "gamma")):
        ticker = lab.popen("gamma", "sh", "-c", "i=0; while :; do echo $((i+=1)) >/srv/ticks; done")
        lab.until(lambda: lab.get("gamma", "/srv/ticks"), "it ticks")
        lab.run("freeze", "gamma")
        ticks = STATE / lab.name / "hosts/gamma/fs/srv/ticks"
        before = (ticks.read_text(), ticks.stat().st_mtime_ns)
        how()
        assert lab.state_of("gamma")["state"] == "off"
        assert (ticks.read_text(), ticks.stat().st_mtime_ns) == before
        end(ticker)
        lab.run("boot", "gamma")


def test_fence_broken(lab):
    boot_all(lab)
    lab.run("fence-break", "alpha")
    assert lab.state_of("alpha")["fence"] == "error"
    p = lab.fence("beta", "off", "alpha", check=False)
    assert p.returncode == 1 and "does not reach alpha" in p.stderr
    assert fence_status(lab, "alpha") == 1 and lab.state_of("alpha")["state"] == "on"
    lab.fence("beta", "off", "gamma")  # the others it still reaches
    lab.run("fence-break", "alpha", "hang")
    with pytest.raises(subprocess.TimeoutExpired):
        lab.fence("beta", "off", "alpha", timeout=1)
    assert lab.state_of("alpha")["state"] == "on"
    lab.run("power-off", "alpha")  # by hand it goes all the same
    lab.run("fence-mend", "alpha")
    assert fence_status(lab, "alpha", "beta") == 2
    boot_all(lab)


def test_fence_agent(lab):
    boot_all(lab)
    p = lab.fence("alpha", "list")
    assert set(p.stdout.split()) == {"alpha,", "beta,", "gamma,", "client,"}
    lab.fence("alpha", "monitor")
    xml = xml_tree.fromstring(lab.fence("alpha", "metadata").stdout)
    assert {a.get("name") for a in xml.iter("action")} >= {"on", "off", "reboot", "status",
                                                           "monitor", "metadata"}
    for stdin, text in (("action=off\nplug=omega\n", "no host"), ("action=off\n", "which host"),
                        ("action=fly\nplug=beta\n", "unknown action"),
                        ("action=off\nplug=beta\nsocket=/nowhere\n", "/nowhere"),
                        ("action=off\nplug=../beta\n", "no host")):
        p = lab.run("exec", "alpha", "--", "fence_holdfast_lab", stdin=stdin, check=False)
        assert p.returncode == 1 and text in p.stderr
    p = lab.run("exec", "alpha", "--", "fence_holdfast_lab", check=False,
                stdin="# as Pacemaker writes\nnodename=beta\nport=beta\nverbose=1\naction=status\n")
    assert p.returncode == 0
    assert lab.run("exec", "alpha", "--", "fence_holdfast_lab", "-o", "status", "-n", "beta",
                   check=False).returncode == 0


def test_shared_directory(new_lab):
    lab = new_lab("-n", "3", "--no-daemon", "--shared", "alpha,beta:/srv/shared",
                  "--shared", "beta,gamma:/var/lib/both")
    lab.put("alpha", "/srv/shared/x", "1")
    assert lab.get("beta", "/srv/shared/x") == "1"
    assert lab.run("exec", "gamma", "--", "test", "-e", "/srv/shared", check=False).returncode
    lab.put("gamma", "/var/lib/both/y", "2")
    for host in ("alpha", "beta"):
        lab.run("power-off", host)
    lab.run("boot", "beta")
    assert (lab.get("beta", "/srv/shared/x"), lab.get("beta", "/var/lib/both/y")) == ("1", "2")
    assert not os.path.exists("/srv/shared") and not os.path.exists("/var/lib/both")


def test_full_disk(new_lab):
    """A shared directory with a size is a disk of its own, which is full while others have room."""
    lab = new_lab("-n", "1", "--no-daemon", "--shared", "alpha:/srv/small:1", "--shared", "alpha:/srv/large")
    fill = ("sh", "-c", "head -c 2M /dev/zero >$0/x")
    assert "No space left" in lab.run("exec", "alpha", "--", *fill, "/srv/small", check=False).stderr
    lab.exec("alpha", *fill, "/srv/large")
    lab.run("power-off", "alpha")
    lab.run("boot", "alpha")
    assert lab.exec("alpha", "stat", "-c", "%s", "/srv/small/x").strip() == str(1 << 20)
    lab.down()
    assert not lab.leftovers()


def test_corosync(new_lab):
    lab = new_lab("-n", "5", "--engine", "corosync", "--token", "700")

    def quorum(host):
        text = lab.run("exec", host, "--", "corosync-quorumtool", "-s", check=False).stdout
        return dict(re.findall(r"^([A-Z][\w ]+):\s+(\w+)", text, re.M))

    for host in ("alpha", "epsilon"):
        lab.until(lambda h=host: quorum(h).get("Nodes") == "5", f"{host} sees five")
    assert quorum("alpha")["Expected votes"] == "5"
    assert re.search(r"totem.token .*= 700\n", lab.exec("alpha", "corosync-cmapctl"))
    # with half a token, an idle ring's links were taken for dead at 300 ms, every nine seconds
    assert re.search(r"knet_ping_timeout .*= 1000\n", lab.exec("alpha", "corosync-cmapctl"))
    assert lab.status("alpha")
    lab.fence("alpha", "off", "beta")
    lab.run("power-off", "gamma")
    lab.until(lambda: quorum("alpha").get("Nodes") == "3", "two are gone")
    assert quorum("alpha")["Quorate"] == "Yes"
    lab.run("boot", "beta")
    lab.until(lambda: quorum("beta").get("Nodes") == "4", "one is back")


def test_daemon_is_restarted(new_lab):
    lab = new_lab("-n", "1")
    pid = lambda: lab.exec("alpha", "pgrep", "-x", "holdfastd")
    for _ in range(3):
        before = pid()
        lab.exec("alpha", "pkill", "-KILL", "-x", "holdfastd")
        lab.until(lambda b=before: pid() != b and lab.status("alpha"), "it runs again")
    lab.run("stop", "alpha")
    assert lab.state_of("alpha")["holdfastd"] == "-"
    assert lab.run("exec", "alpha", "--", "pgrep", "-x", "hf-supervise", check=False).returncode
    lab.run("start", "alpha")
    lab.exec("alpha", "pkill", "-TERM", "-x", "holdfastd")  # an end in order is no reason to stay
    lab.until(lambda: lab.status("alpha"), "it runs again")


def test_daemon_is_not_restarted(new_lab):
    lab = new_lab("-n", "1", "--no-restart")
    lab.exec("alpha", "pkill", "-KILL", "-x", "holdfastd")
    lab.until(lambda: lab.state_of("alpha")["holdfastd"] == "-", "it is dead")
    assert lab.run("exec", "alpha", "--", "pgrep", "-x", "hf-supervise", check=False).returncode
    lab.run("start", "alpha")
    lab.run("stop", "alpha")


def drain(fd):
    """All that is there to be read now."""
    data = b""
    try:
        while piece := os.read(fd, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_freeze_and_thaw(lab):
    boot_all(lab)
    ticker = lab.popen("gamma", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    assert ticker.stdout.readline() == "1\n"
    lab.run("freeze", "gamma")
    assert lab.state_of("gamma")["state"] == "frozen"
    out = ticker.stdout.fileno()
    os.set_blocking(out, False)
    drain(out)
    time.sleep(0.3)
    assert not drain(out)
    p = lab.run("exec", "gamma", "--", "true", check=False)
    assert p.returncode == 1 and "frozen" in p.stderr
    lab.run("thaw", "gamma")
    lab.until(lambda: drain(out), "it goes on")
    end(ticker)
    lab.run("freeze", "gamma")
    lab.run("power-off", "gamma")  # frozen hosts lose power too
    lab.run("boot", "gamma")
    assert lab.state_of("gamma")["state"] == "on"


def lost(lab, source, target, packets):
    receiver = python(lab, target, UDP_COUNT)
    python(lab, source, UDP_PING, lab.address(target), str(packets)).communicate(timeout=30)
    # the end over the target's loopback, where nothing is lost
    lab.exec(target, "/usr/bin/python3", "-c",
             "import socket\nsocket.create_connection(('127.0.0.1', 7003), 20)")
    got = int(receiver.communicate(timeout=30)[0])
    return packets - got


def test_drop(lab):
    boot_all(lab)
    # also lets them learn each other's addresses: a lost ARP request would count a thousandfold
    assert lost(lab, "alpha", "beta", 2000) == 0
    assert lost(lab, "client", "alpha", 2000) == 0
    lab.run("drop", "alpha", 30)
    assert 450 < lost(lab, "alpha", "beta", 2000) < 750
    assert 450 < lost(lab, "client", "alpha", 2000) < 750
    lab.run("drop", "alpha", 100)
    assert not reaches(lab, "alpha", "beta")
    lab.run("drop", "alpha", 0)
    assert lost(lab, "alpha", "beta", 2000) == 0
    assert "percent" in lab.run("drop", "alpha", 101, check=False).stderr


def boot_all(lab):
    for host in ("alpha", "beta", "gamma", "client"):
        if lab.state_of(host)["state"] == "off":
            lab.run("boot", host)


def test_wrong_words(lab):
    for args, text in (
        (("cut", "omega"), "no host"),
        (("exec", "../alpha", "--", "true"), "no host"),
        (("up",), "there already"),
        (("drop", "alpha", "many"), "percent"),
        (("start", "client"), "no holdfastd"),
        (("fence-break", "alpha", "often"), "error or hang"),
    ):
        p = lab.run(*args, check=False)
        assert p.returncode == 1 and text in p.stderr, args
    assert lab.run("fly", check=False).returncode == 2
    p = Lab("no-such-lab").run("status", check=False)
    assert p.returncode == 1 and "no lab" in p.stderr
    assert "no name" in Lab("../x").run("up", check=False).stderr
    for shared in ("alpha:/etc/x", "omega:/srv/x", "alpha:/srv/../x", "/srv/x", "alpha:/srv/x:much"):
        p = Lab("no-such-lab").run("up", "--shared", shared, check=False)
        assert p.returncode == 1 and "--shared" in p.stderr


def test_several_at_once_and_nothing_left(lab, new_lab):
    other = new_lab("-n", "1", "--no-daemon")
    python(other, "alpha", "import time\nprint('ready', flush=True)\ntime.sleep(1000)")
    assert other.address("alpha") != lab.address("alpha")
    assert other.leftovers()
    other.down()
    assert other.leftovers() == []
    other.down()  # idempotent
    assert lab.state_of("client")["state"] == "on"


def test_killed_from_outside(new_lab):
    """Somebody kills a host's first process and the switch: status says so, down cleans up."""
    lab = new_lab("-n", "2", "--no-daemon")
    state = STATE / lab.name
    os.kill(int((state / "hosts/alpha/init").read_text().split()[0]), signal.SIGKILL)
    lab.until(lambda: lab.state_of("alpha")["state"] == "off", "alpha seen off")
    lab.run("boot", "alpha")
    assert lab.state_of("alpha")["state"] == "on"
    os.kill(int((state / "switch").read_text().split()[0]), signal.SIGKILL)
    lab.until(lambda: "gone" in lab.run("status").stderr, "the switch seen gone")
    lab.down()
    assert lab.leftovers() == []


def test_reused_pid_is_not_killed(new_lab):
    lab = new_lab("-n", "1", "--no-daemon")
    bystander = subprocess.Popen(["sleep", "100"])
    (STATE / lab.name / "hosts/alpha/holder").write_text(f"{bystander.pid} 1\n")
    lab.down()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


LEAVES_LAST = """
while mapfile -t all <"$1/cgroup.procs"; ((${#all[@]} > 1)); do
    sleep 0.02
done"""


def test_a_process_without_a_number_is_not_killed():
    """cgroup.procs has 0 for one that is being reaped, or is of another pid namespace, and to kill 0 is to kill oneself, and who asked."""
    lab = Lab(f"zero-{os.getpid()}")
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as shell:
        def ask(*words):
            print(lab.tool, "--name", lab.name, *words, "2>&1; echo done $?", file=shell.stdin, flush=True)
            text = ""
            for line in shell.stdout:
                if line.startswith("done "):
                    assert line == "done 0\n", text
                    return
                text += line
            raise AssertionError(f"the shell was killed by {words}: {text}")

        with contextlib.ExitStack() as stack:
            stack.callback(lab.down)
            stack.callback(shell.communicate)
            ask("up", "-n", "2", "--no-daemon")
            cgroup = re.search("^CG=(.*)", (STATE / lab.name / "lab.conf").read_text(), re.M)[1]
            for words in ("power-off", "alpha"), ("exec", "beta", "--", "fence_holdfast_lab", "<<<$'action=off\\nplug=alpha'"):
                other = stack.enter_context(subprocess.Popen(["bash", "-c", LEAVES_LAST, "bash", f"{cgroup}/alpha"]))
                stack.callback(other.kill)
                (pathlib.Path(cgroup) / "alpha/cgroup.procs").write_text(str(other.pid))
                ask("freeze", "alpha")
                ask(*words)  # thaws it
                other.wait()
                ask("boot", "alpha")
            ask("down")
    assert lab.leftovers() == []


def test_failed_up_leaves_nothing(tmp_path, monkeypatch):
    """A holdfastd that dies at once: up fails with its last words and takes everything down."""
    for name, text in (("holdfastd", "echo no luck today >&2; exit 3"), ("holdfast", "exit 1")):
        program = tmp_path / name
        keygen = 'if [ "$1" = keygen ]; then echo 00 >"$2"; exit 0; fi\n' if name == "holdfast" else ""
        program.write_text(f"#!/bin/sh\n{keygen}{text}\n")
        program.chmod(0o755)
    lab = Lab(f"fails-{os.getpid()}")
    monkeypatch.setenv("HOLDFAST_BIN", str(tmp_path))
    p = lab.run("up", check=False)
    assert p.returncode == 1
    assert "no luck today" in p.stderr and "does not come up" in p.stderr
    assert lab.leftovers() == []


def test_needs_root():
    p = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", Lab("x").tool, "up"],
                       capture_output=True, text=True, check=False)
    assert p.returncode == 1 and "needs root" in p.stderr
