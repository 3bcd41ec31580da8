"""Groups on real hosts: Corosync, agents of resource-agents, a power switch that cuts power."""
import json

import pytest

DEADLINE = 60.0
HOSTS = ("alpha", "beta", "gamma")
# One state file for each host (its /run): what runs there. The address says where it runs.
WEB = """
resource web {
    agent = "ocf:heartbeat:Dummy"
    params { state = /run/web.state }
    probe = { state }
    monitor = 1s
}
resource beside {
    agent = "ocf:heartbeat:Dummy"
    kind = attached
    params { state = /run/beside.state }
}
"""


class Group:
    def __init__(self, lab):
        self.lab = lab

    def show(self, host):
        return self.lab.json(host, "group", "show", "orders")[0]

    def command(self, host, *words, **kw):
        return self.lab.run("exec", host, "--", "holdfast", "group", words[0], "orders", *words[1:],
                            timeout=150, **kw)

    def runs_on(self, hosts, host):
        """All these hosts say that the group runs on `host`, which can be seen there and only there."""
        for h in hosts:
            g = self.show(h)
            if g["phase"] != "running" or g["primary"]["host"] != host:
                return False
        for h in hosts:
            for name in ("web", "beside"):
                p = self.lab.run("exec", h, "--", "test", "-e", f"/run/{name}.state", check=False)
                if (p.returncode == 0) != (h == host):
                    return False
        return True

    def until_on(self, host, hosts=HOSTS):
        try:
            self.lab.until(lambda: self.runs_on(hosts, host), f"orders runs on {host}", DEADLINE)
        except AssertionError as e:
            shown = "\n".join(self.lab.run("exec", h, "--", "holdfast", "group", "show",
                                           check=False).stdout for h in hosts)
            raise AssertionError(f"{e}\n{shown}") from e

    def primary(self):
        return self.show("alpha")["primary"]["host"]

    def daemon_pid(self, host):
        return int(self.lab.exec(host, "pidof", "-s", "holdfastd"))


@pytest.fixture(scope="module")
def running(new_lab):
    lab = new_lab("-n", "3", "--engine", "corosync")
    g = Group(lab)
    lab.put("alpha", "/run/orders.conf", WEB)
    lab.until(lambda: g.command("alpha", "create", "/run/orders.conf"), "created", DEADLINE)
    for host in ("beta", "gamma"):
        g.command(host, "join")
    yield g


@pytest.fixture
def group(running):
    """All hosts up, the group on alpha."""
    for host in HOSTS:
        if running.lab.state_of(host)["state"] == "off":
            running.lab.run("boot", host)
    running.lab.until(lambda: all(len([m for m in running.show(h)["hosts"] if m["present"]]) == 3
                                  for h in HOSTS), "all members present", DEADLINE)
    if running.primary() != "alpha":
        running.command("alpha", "switch", "--to", "alpha")
    running.until_on("alpha")
    return running


def test_created_and_joined(group):
    shown = group.show("gamma")
    assert [m["host"] for m in shown["hosts"]] == list(HOSTS)
    history = json.loads(group.lab.exec("alpha", "holdfast", "group", "history", "orders", "--json"))
    assert any("beta is a member now" in e["text"] for e in history)


def test_switch(group):
    group.command("gamma", "switch", "--to", "beta")
    group.until_on("beta")
    group.command("beta", "switch")
    assert group.primary() != "beta"


def test_power_off(group):
    epoch = group.show("beta")["epoch"]
    group.lab.run("power-off", "alpha")
    group.lab.until(lambda: group.show("beta")["primary"]["host"] != "alpha", "moved", DEADLINE)
    group.until_on(group.show("beta")["primary"]["host"], ("beta", "gamma"))
    assert group.show("gamma")["epoch"] > epoch
    group.lab.run("boot", "alpha")
    group.until_on(group.show("beta")["primary"]["host"])


def test_daemon_crash_is_no_failover(group):
    epoch = group.show("beta")["epoch"]
    pid = group.daemon_pid("alpha")
    group.lab.exec("alpha", "kill", "-KILL", str(pid))
    group.lab.until(lambda: group.daemon_pid("alpha") != pid, "back", DEADLINE)
    group.until_on("alpha")
    assert group.show("beta")["epoch"] == epoch


def test_host_cut_off_is_fenced(group):
    group.lab.run("cut", "alpha")
    group.lab.until(lambda: group.show("beta")["primary"]["host"] != "alpha", "moved", DEADLINE)
    assert group.lab.state_of("alpha")["state"] == "off"
    group.lab.run("heal", "alpha")


def test_corosync_dies_and_comes_back(group):
    """Nothing of the group runs there: nobody fences it, and it finds its way back."""
    group.lab.exec("gamma", "kill", "-KILL", group.lab.exec("gamma", "pidof", "-s", "corosync").strip())

    def present():
        return [h["host"] for h in group.show("beta")["hosts"] if h["present"]]

    group.lab.until(lambda: present() == ["alpha", "beta"], "gamma is out", DEADLINE)
    group.lab.until(lambda: group.show("gamma")["standing"] == "out", "gamma knows", DEADLINE)
    corosync = group.lab.popen("gamma", "corosync", "-f")
    try:
        group.lab.until(lambda: present() == list(HOSTS), "gamma is back", DEADLINE)
        group.until_on("alpha")
        group.lab.run("power-off", "gamma")  # the next boot starts the lab's own
    finally:
        corosync.kill()
        corosync.wait()
        corosync.stdout.close()


def test_resource_fails(group):
    group.lab.exec("alpha", "rm", "/run/web.state")
    group.lab.until(lambda: group.show("beta")["resources"][0]["restarts"] == 1, "restarted", DEADLINE)
    group.until_on("alpha")


def test_without_fencing_nothing_moves(group):
    group.lab.run("fence-break", "alpha")
    try:
        group.lab.run("power-off", "alpha")
        group.lab.until(lambda: "fenc" in group.show("beta")["why"], "held", DEADLINE)
        assert group.lab.run("exec", "beta", "--", "test", "-e", "/run/web.state",
                             check=False).returncode
        group.command("beta", "confirm", "alpha")
        group.lab.until(lambda: group.show("beta")["primary"]["host"] != "alpha", "moved", DEADLINE)
    finally:
        group.lab.run("fence-mend", "alpha")


def test_stop_in_order(group):
    group.lab.exec("alpha", "kill", "-TERM", str(group.daemon_pid("alpha")))
    group.lab.until(lambda: group.show("beta")["primary"]["host"] != "alpha", "given away", DEADLINE)
    assert group.lab.state_of("alpha")["state"] == "on"
