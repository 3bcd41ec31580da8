"""The directory on real hosts: find each other, lose hosts, cables and packets, and agree again."""
import json
import re

import pytest

HOSTS = ("alpha", "beta", "gamma")
V4_TEMPLATE = """
cluster { key_file = "/etc/holdfast/cluster.key" }
host { name = "@NAME@" }
directory { interface = "eth0" }
http { listen = "0.0.0.0:7481" }
dns { listen = "0.0.0.0:53"  domain = "lab.internal" }
"""
UNICAST_TEMPLATE = """
cluster { key_file = "/etc/holdfast/cluster.key" }
host { name = "@NAME@" }
directory {
    transport = unicast
    peers = { @PEERS@ }
}
"""


@pytest.fixture(scope="module")
def lab(new_lab, tmp_path_factory):
    template = tmp_path_factory.mktemp("lab") / "holdfast.conf"
    template.write_text(V4_TEMPLATE)
    lab = new_lab("-n", "3", "--config", str(template))
    joined(lab)
    return lab


@pytest.fixture(autouse=True)
def whole(request):
    """Each test begins with all hosts on, connected and agreed, and with an empty tree."""
    if "lab" not in request.fixturenames:
        return
    lab = request.getfixturevalue("lab")
    for host in HOSTS:
        row = lab.state_of(host)
        if row["state"] == "off":
            lab.run("boot", host)
        elif row["state"] == "frozen":
            lab.run("thaw", host)
        if row["cable"] == "cut":
            lab.run("heal", host)
        if row["drop"] != "0%":
            lab.run("drop", host, 0)
        lab.run("start", host)
    joined(lab)
    for name, (owner, _) in lab.tree("alpha").items():
        lab.run("exec", owner, "--", "holdfast", "withdraw", name, check=False)
    lab.until_tree(HOSTS, {})


def joined(lab, hosts=HOSTS):
    """Until all hosts take part and see each other."""
    for host in hosts:
        lab.until(lambda h=host: lab.status(h)["state"] == "run", f"{host} takes part", 40)
        lab.until(lambda h=host: set(lab.members(h)) == set(hosts)
                  and set(lab.members(h).values()) <= {"self", "alive"},
                  f"{host} sees all of {hosts}", 40)


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def curl(lab, path, host="alpha"):
    return lab.exec("client", "curl", "-sS", "-m", "5", f"http://{host}:7481{path}")


def test_publish_is_seen_by_all(lab):
    p = lab.publish("alpha", "/t/one", {"port": 80})
    lab.until_tree(HOSTS, {"/t/one": "alpha"})
    assert lab.tree("gamma")["/t/one"] == ("alpha", {"port": 80})
    end(p)
    lab.until_tree(HOSTS, {})


def test_withdraw(lab):
    lab.publish_detached("beta", "/t/two", {})
    lab.until_tree(HOSTS, {"/t/two": "beta"})
    lab.exec("beta", "holdfast", "withdraw", "/t/two")
    lab.until_tree(HOSTS, {})


def test_only_the_owner_withdraws(lab):
    lab.publish_detached("beta", "/t/mine", {})
    lab.until_tree(HOSTS, {"/t/mine": "beta"})
    p = lab.run("exec", "alpha", "--", "holdfast", "withdraw", "/t/mine", check=False)
    assert p.returncode == 1 and p.stderr
    assert "/t/mine" in lab.tree("alpha")


def test_killed_publisher(lab):
    p = lab.publish("gamma", "/t/held", {})
    lab.until_tree(HOSTS, {"/t/held": "gamma"})
    lab.exec("gamma", "pkill", "-KILL", "-x", "holdfast")
    p.wait()
    p.stdout.close()
    lab.until_tree(HOSTS, {})


def test_lease_expires(lab):
    lab.publish_detached("alpha", "/t/lease", {}, lease=3)
    lab.until_tree(HOSTS, {"/t/lease": "alpha"})
    lab.until_tree(HOSTS, {})
    assert lab.counter("alpha", "leases_expired") >= 1


def test_power_off_and_boot(lab):
    lab.publish_detached("alpha", "/t/stays", {})
    lab.publish_detached("gamma", "/t/goes", {})
    lab.until_tree(HOSTS, {"/t/stays": "alpha", "/t/goes": "gamma"})
    lab.run("power-off", "gamma")
    lab.until_tree(("alpha", "beta"), {"/t/stays": "alpha"})
    assert "gamma fell silent" in problems(lab, "alpha")
    lab.run("boot", "gamma")
    lab.publish_detached("gamma", "/t/goes", {})
    lab.until_tree(HOSTS, {"/t/stays": "alpha", "/t/goes": "gamma"}, deadline=40)
    assert "gamma" not in problems(lab, "alpha")


def test_cut_and_heal(lab):
    lab.publish_detached("alpha", "/t/a", {})
    lab.publish_detached("beta", "/t/b", {})
    lab.until_tree(HOSTS, {"/t/a": "alpha", "/t/b": "beta"})
    lab.run("cut", "beta")
    lab.until_tree(("alpha", "gamma"), {"/t/a": "alpha"})
    lab.until_tree(("beta",), {"/t/b": "beta"})
    lab.publish_detached("alpha", "/t/meanwhile", {})
    lab.run("heal", "beta")
    lab.until_tree(HOSTS, {"/t/a": "alpha", "/t/b": "beta", "/t/meanwhile": "alpha"}, deadline=40)


def test_loss_converges(lab):
    for host in HOSTS:
        lab.run("drop", host, 16)  # both ends of each cable: 30 % from host to host
    wanted = {}
    for i in range(20):
        host = HOSTS[i % 3]
        lab.publish_detached(host, f"/t/{i}", {"i": i})
        wanted[f"/t/{i}"] = host
    lab.until_tree(HOSTS, wanted, deadline=40)
    for name in [n for n in wanted if wanted[n] == "beta"]:
        lab.exec("beta", "holdfast", "withdraw", name)
        del wanted[name]
    lab.until_tree(HOSTS, wanted, deadline=40)


def test_frozen_host_wakes_up(lab):
    """Its services leave; when it wakes up it finds out before anybody takes it for alive (I10)."""
    lab.publish_detached("gamma", "/t/frozen", {})
    lab.publish_detached("alpha", "/t/old", {})
    lab.until_tree(HOSTS, {"/t/frozen": "gamma", "/t/old": "alpha"})
    lab.run("freeze", "gamma")
    lab.until_tree(("alpha", "beta"), {"/t/old": "alpha"})
    lab.exec("alpha", "holdfast", "withdraw", "/t/old")
    lab.run("thaw", "gamma")
    lab.until_tree(HOSTS, {"/t/frozen": "gamma"}, deadline=40)


def test_daemon_killed_and_restarted(lab):
    lab.publish_detached("beta", "/t/stale", {})
    lab.until_tree(HOSTS, {"/t/stale": "beta"})
    before = lab.status("beta")["incarnation"]
    lab.exec("beta", "pkill", "-KILL", "-x", "holdfastd")
    lab.until(lambda: lab.status("beta")["incarnation"] > before, "the daemon runs again")
    joined(lab)
    lab.until_tree(HOSTS, {})


def test_http(lab):
    lab.publish_detached("beta", "/t/web", {"port": 8080})
    lab.until_tree(HOSTS, {"/t/web": "beta"})
    assert json.loads(curl(lab, "/v1/tree?prefix=/t")) == [
        {"name": "/t/web", "owner": "beta", "value": {"port": 8080}}]
    assert {m["host"] for m in json.loads(curl(lab, "/v1/members"))} == set(HOSTS)
    (group,) = json.loads(curl(lab, "/v1/sd"))
    assert group["targets"][0].endswith(":8080") and group["labels"]
    assert re.search(r"^holdfast_up 1$", curl(lab, "/metrics"), re.M)
    assert json.loads(curl(lab, "/healthz"))["state"] == "run"
    code = lab.exec("client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST",
                    "http://alpha:7481/v1/tree")
    assert code in ("403", "404", "405")


def test_http_events(lab):
    events = lab.popen("client", "curl", "-sSN", "http://gamma:7481/v1/events?prefix=/t")
    read = iter(events.stdout.readline, "")
    assert next(line for line in read if line.startswith("event:")) == "event: synced\n"
    lab.publish_detached("alpha", "/t/event", {"n": 1})
    assert next(line for line in read if line.startswith("event:")) == "event: added\n"
    data = json.loads(next(read).removeprefix("data:"))
    assert data == {"name": "/t/event", "owner": "alpha", "value": {"n": 1}}
    lab.exec("alpha", "holdfast", "withdraw", "/t/event")
    assert next(line for line in read if line.startswith("event:")) == "event: removed\n"
    end(events)


def dig(lab, name, kind):
    server = lab.state_of("gamma")["address"]
    return lab.exec("client", "dig", "+short", "+time=2", f"@{server}", name, kind).split("\n")[:-1]


def test_dns(lab):
    address = lab.state_of("alpha")["address"]
    lab.publish_detached("alpha", "/t/db", {"port": 5432})
    lab.until_tree(HOSTS, {"/t/db": "alpha"})
    assert dig(lab, "alpha.host.lab.internal", "A") == [address]
    assert dig(lab, "db.t.lab.internal", "A") == [address]
    (srv,) = dig(lab, "db.t.lab.internal", "SRV")
    assert srv.split()[2] == "5432" and "alpha" in srv
    assert dig(lab, "nothing.t.lab.internal", "A") == []


def test_bad_reload_changes_nothing(lab):
    path = "/etc/holdfast/holdfast.conf"
    good = lab.get("alpha", path)
    config = lab.exec("alpha", "holdfast", "config")
    try:
        lab.put("alpha", path, good + "directory { heartbeat = 1y }\n")
        check = lab.run("exec", "alpha", "--", "holdfastd", "--check", check=False)
        assert check.returncode != 0 and path in check.stderr and "heartbeat" in check.stderr
        p = lab.run("exec", "alpha", "--", "holdfast", "reload", check=False)
        assert p.returncode == 1 and "heartbeat" in p.stderr
        assert lab.exec("alpha", "holdfast", "config") == config
        assert lab.status("alpha")["state"] == "run"
    finally:
        lab.put("alpha", path, good)
    assert lab.run("exec", "alpha", "--", "holdfastd", "--check").returncode == 0
    lab.exec("alpha", "holdfast", "reload")


def problems(lab, host):
    return json.dumps(lab.status(host)["problems"])


def test_duplicate_name(new_lab):
    lab = new_lab("-n", "2")
    joined(lab, ("alpha", "beta"))
    lab.run("stop", "beta")
    text = lab.get("beta", "/etc/holdfast/holdfast.conf").replace('"beta"', '"alpha"')
    lab.put("beta", "/etc/holdfast/holdfast.conf", text)
    lab.run("start", "beta")
    lab.until(lambda: any("name" in problems(lab, h) and lab.counter(h, "conflicts")
                          for h in ("alpha", "beta")), "the conflict is told", 40)


def test_wrong_key(new_lab):
    """A host with another key: refused and counted, a problem is shown, nothing of it is seen."""
    lab = new_lab("-n", "2")
    joined(lab, ("alpha", "beta"))
    lab.run("stop", "beta")
    lab.exec("beta", "rm", "/etc/holdfast/cluster.key")
    lab.exec("beta", "holdfast", "keygen", "/etc/holdfast/cluster.key")
    lab.run("start", "beta")
    lab.until(lambda: lab.status("beta")["state"] == "run", "beta is alone", 40)
    lab.publish_detached("beta", "/t/forged", {})
    lab.until(lambda: lab.counter("alpha", "other_cluster") + lab.counter("alpha", "forged") > 0,
              "alpha counts what it refuses")
    lab.until(lambda: "key" in problems(lab, "alpha"), "alpha says so")
    lab.until(lambda: lab.members("alpha").get("beta") != "alive", "the old beta is gone")
    assert lab.tree("alpha") == {}


@pytest.mark.parametrize("kind", ["ipv6", "unicast"])
def test_other_transports(new_lab, tmp_path, kind):
    if kind == "ipv6":
        lab = new_lab("-n", "3", "--ipv6")
    else:
        template = tmp_path / "holdfast.conf"
        template.write_text(UNICAST_TEMPLATE)
        lab = new_lab("-n", "3", "--config", str(template))
    joined(lab)
    lab.publish_detached("beta", "/t/far", {})
    lab.until_tree(HOSTS, {"/t/far": "beta"})
    lab.run("power-off", "beta")
    lab.until_tree(("alpha", "gamma"), {})


def test_terminated_daemon_says_goodbye_or_leaves_in_time(lab):
    lab.publish_detached("beta", "/t/bye", {})
    lab.until_tree(HOSTS, {"/t/bye": "beta"})
    lab.run("stop", "beta")
    lab.until_tree(("alpha", "gamma"), {})
    assert lab.state_of("beta")["holdfastd"] == "-"
