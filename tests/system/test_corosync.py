"""The Corosync engine on real corosyncs: three hosts, each with a member that prints what it is told."""
import re
import subprocess
import threading

import pytest

from lab import ROOT

PROBE = ROOT / "build/tests/support/engine-probe"
HOSTS = ("alpha", "beta", "gamma")
DEADLINE = 40.0  # a ring is formed in 2 s; a loaded machine takes longer


class Probe:
    """One engine-probe; its lines are collected as they come."""

    def __init__(self, lab, host):
        self.lines = []
        self.process = lab.popen(host, str(PROBE), host, "g", stdin=subprocess.PIPE)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def do(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def views(self, start=0):
        """[(number, members, left)]"""
        found = [re.fullmatch(r"view (\d+) (\S*)((?: -\S+)*)", x) for x in self.lines[start:]]
        return [(int(m[1]), m[2], m[3].split()) for m in found if m]

    def quorum(self):
        """(quorate, number) as told last"""
        found = [x.split() for x in self.lines if x.startswith("quorum ")]
        return (found[-1][1] == "1", int(found[-1][2])) if found else (False, 0)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass


class Cluster:
    def __init__(self, lab):
        self.lab = lab
        self.probe = {}
        self.daemon = []  # corosyncs that a test has started

    def start(self, host):
        self.probe[host] = Probe(self.lab, host)

    def until(self, condition, what):
        try:
            self.lab.until(condition, what, DEADLINE)
        except AssertionError as e:
            said = {h: p.lines[-12:] for h, p in self.probe.items()}
            raise AssertionError(f"{e}\n{said}") from e

    def agree(self, hosts, members):
        """All these hosts are in one view, with these members and quorum."""
        last = [(self.probe[h].views() or [(0, "", [])])[-1][:2] for h in hosts]
        quorum = [self.probe[h].quorum() for h in hosts]
        return (len(set(last)) == 1 and last[0][1] == ",".join(members)
                and all(q and n >= last[0][0] for q, n in quorum))

    def whole(self):
        """Everything runs and is in one view."""
        for host in HOSTS:
            state = self.lab.state_of(host)
            if state["state"] == "off":
                self.probe.pop(host).end()
                self.lab.run("boot", host)
            if state["state"] == "frozen":
                self.lab.run("thaw", host)
            if state["cable"] == "cut":
                self.lab.run("heal", host)
            if host not in self.probe or self.probe[host].process.poll() is not None:
                if host in self.probe:
                    self.probe.pop(host).end()
                self.start(host)
        self.until(lambda: self.agree(HOSTS, HOSTS), "one view of all")
        return {h: len(p.lines) for h, p in self.probe.items()}

    def told(self, host, start, left):
        """The view since line `start` that lists `left`, or None."""
        return next((v for v in self.probe[host].views(start) if v[2] == left), None)

    def until_told(self, hosts, mark, left):
        """Until all these were told that view: the same one."""
        self.until(lambda: all(self.told(h, mark[h], left) for h in hosts), f"{left} on {hosts}")
        seen = {self.told(h, mark[h], left)[:2] for h in hosts}
        assert len(seen) == 1, seen
        return seen.pop()


@pytest.fixture(scope="module")
def running(new_lab):
    c = Cluster(new_lab("-n", "3", "--engine", "corosync", "--no-daemon"))
    yield c
    for p in list(c.probe.values()):
        p.end()
    for p in c.daemon:
        p.kill()
        p.wait()


@pytest.fixture
def cluster(running):
    running.mark = running.whole()
    return running


def test_same_order(cluster):
    for host in HOSTS:
        cluster.probe[host].do("flood 200")

    def said(host):
        return [x for x in cluster.probe[host].lines[cluster.mark[host]:] if x.startswith("msg")]

    cluster.until(lambda: all(len(said(h)) == 600 for h in HOSTS), "all messages")
    assert said("alpha") == said("beta") == said("gamma")
    for n in (1, 2, 3):
        mine = [int(x.split("flood")[1]) for x in said("alpha") if x.startswith(f"msg {n} ")]
        assert mine == list(range(200, 0, -1))


def test_process_dies_and_comes_back(cluster):
    before = cluster.probe["alpha"].views()[-1][0]
    cluster.probe["gamma"].end()
    number, members = cluster.until_told(("alpha", "beta"), cluster.mark, ["-gamma:proc"])
    assert members == "alpha,beta" and number == before + 1
    cluster.start("gamma")
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "back in one view")
    assert cluster.probe["gamma"].views()[0][1] == "alpha,beta,gamma"


def test_leave(cluster):
    cluster.probe["beta"].do("leave")
    cluster.until_told(HOSTS, cluster.mark, ["-beta:left"])
    cluster.probe["beta"].do("join")
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "joined again")


def test_second_process_is_refused(cluster):
    second = Probe(cluster.lab, "gamma")
    cluster.until(lambda: "join HF_EHELD" in second.lines, "refused")
    assert cluster.agree(HOSTS, HOSTS)
    cluster.probe["gamma"].end()  # it took the host's name for another's
    cluster.probe["gamma"] = second
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "accepted when the first is gone")


def test_power_off(cluster):
    cluster.lab.run("power-off", "gamma")
    number, members = cluster.until_told(("alpha", "beta"), cluster.mark, ["-gamma:node"])
    assert members == "alpha,beta"
    cluster.until(lambda: cluster.agree(("alpha", "beta"), ("alpha", "beta")), "quorum of two")
    cluster.whole()
    assert cluster.probe["alpha"].views()[-1][0] > number


def test_cut_and_heal(cluster):
    cluster.lab.run("cut", "gamma")
    cluster.until_told(("alpha", "beta"), cluster.mark, ["-gamma:node"])
    cluster.until_told(("gamma",), cluster.mark, ["-alpha:node", "-beta:node"])
    cluster.until(lambda: not cluster.probe["gamma"].quorum()[0], "gamma without quorum")
    gamma = cluster.probe["gamma"]
    alone = len(gamma.lines)
    cluster.lab.run("heal", "gamma")
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "one view again")
    acted_alone(gamma.lines[alone:], "gamma")


def acted_alone(lines, members):
    """Never quorate in a view of its own: the others went on."""
    for line in lines:
        word = line.split()
        if word[0] == "view":
            members = word[2]
        assert not (word[0] == "quorum" and word[1] == "1" and members == "gamma"), lines


def test_freeze_and_thaw(cluster):
    gamma = cluster.probe["gamma"]
    cluster.lab.run("freeze", "gamma")
    cluster.until_told(("alpha", "beta"), cluster.mark, ["-gamma:node"])
    before = cluster.mark["gamma"]
    cluster.lab.run("thaw", "gamma")
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "one view again")
    assert cluster.told("gamma", before, ["-alpha:node", "-beta:node"])[1] == "gamma"
    acted_alone(gamma.lines[before:], "alpha,beta,gamma")


def test_pause_of_the_process(cluster):
    """Only the program stops: nothing is lost, and messages come in order afterwards."""
    cluster.probe["gamma"].do("pause 1500")
    cluster.probe["alpha"].do("flood 20")
    gamma = cluster.probe["gamma"]
    cluster.until(lambda: "msg 1 flood1" in gamma.lines[cluster.mark["gamma"]:], "all of it")
    assert cluster.agree(HOSTS, HOSTS)
    assert not gamma.views(cluster.mark["gamma"])


def test_corosync_dies(cluster):
    gamma = cluster.probe["gamma"]
    cluster.lab.exec("gamma", "pkill", "-KILL", "-x", "corosync")
    cluster.until(lambda: "lost HF_ECLOSED" in gamma.lines, "lost")
    cluster.until(lambda: "join HF_ENOTREADY" in gamma.lines[cluster.mark["gamma"]:], "not ready")
    cluster.until_told(("alpha", "beta"), cluster.mark, ["-gamma:node"])
    cluster.daemon.append(cluster.lab.popen("gamma", "corosync", "-f", stdout=subprocess.DEVNULL))
    cluster.until(lambda: cluster.agree(HOSTS, HOSTS), "joined again")
