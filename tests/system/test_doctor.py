"""`holdfast doctor` in the lab: of a healthy host no fault; what is made wrong is found, with what to do."""
import json

import pytest

HOSTS = ("alpha", "beta", "gamma")
CONF = "/etc/holdfast/holdfast.conf"


@pytest.fixture(scope="module", name="lab")
def fixture_lab(new_lab):
    lab = new_lab("-n", len(HOSTS), "--engine", "corosync")
    for host in HOSTS:
        lab.until(lambda h=host: all(lab.members(h)[o] in ("self", "alive") for o in HOSTS), f"{host} knows all")
    return lab


def doctor(lab, host, *args):
    """Its exit status and findings"""
    done = lab.run("exec", host, "--", "holdfast", "doctor", *args, "--json", check=False)
    return done.returncode, json.loads(done.stdout)["findings"]


def of(findings, check, obj=None):
    return [f for f in findings if f["check"] == check and obj in (None, f["object"])]


def the_fault(findings, check, obj):
    """The only fault there is; it says what to do."""
    faults = [f for f in findings if f["verdict"] == "fault"]
    assert [(f["check"], f["object"]) for f in faults] == [(check, obj)], faults
    assert faults[0]["remedy"] and faults[0]["expected"]
    return faults[0]


def test_a_healthy_host(lab):
    lab.until(lambda: doctor(lab, "alpha")[0] == 0, "no fault")
    code, findings = doctor(lab, "alpha")
    assert code == 0
    assert not [f for f in findings if f["verdict"] == "fault"], findings
    reach, = of(findings, "multicast")
    assert reach["verdict"] == "ok" and reach["found"].startswith("3 of 3 hosts asked: in all 6 pairs")
    assert {f["object"]: f["verdict"] for f in of(findings, "other hosts")} == {"beta": "ok", "gamma": "ok"}
    assert {f["object"] for f in of(findings, "clock")} == {"NTP", "beta", "gamma"}
    assert {f["object"]: f["verdict"] for f in of(findings, "corosync")}["quorum"] == "ok"
    assert of(findings, "fencing", "power")[0]["verdict"] == "ok"
    watchdog, = of(findings, "watchdog")  # the lab's hosts have none
    assert watchdog["verdict"] == "warning" and "softdog" in watchdog["remedy"]
    assert of(findings, "resource", "all")[0]["verdict"] == "unchecked"
    assert all(f["remedy"] for f in findings if f["verdict"] in ("fault", "warning"))


def test_for_people(lab):
    text = lab.exec("beta", "holdfast", "doctor")
    assert "what to do: set watchdog.device" in text
    assert text.splitlines()[-1].startswith("beta: 0 faults, ")


def test_the_mode_of_the_key(lab):
    lab.exec("beta", "chmod", "0640", "/etc/holdfast/cluster.key")
    code, findings = doctor(lab, "beta")
    lab.exec("beta", "chmod", "0600", "/etc/holdfast/cluster.key")
    fault = the_fault(findings, "cluster key", "/etc/holdfast/cluster.key")
    assert code == 1 and "group or others may access it" in fault["found"] and "chmod 600" in fault["remedy"]
    # what needs the key is not passed silently
    assert {f["verdict"] for f in of(findings, "other hosts")} == {"unchecked"}
    assert "unchecked" in {f["verdict"] for f in of(findings, "multicast")}


def test_another_key(lab):
    lab.exec("beta", "sh", "-c", "cd /etc/holdfast && cp -p cluster.key kept && rm cluster.key && holdfast keygen cluster.key")
    code, findings = doctor(lab, "beta")
    lab.exec("beta", "mv", "/etc/holdfast/kept", "/etc/holdfast/cluster.key")
    assert code == 1
    faults = {(f["check"], f["object"]) for f in findings if f["verdict"] == "fault"}
    assert {("cluster key", "/etc/holdfast/cluster.key"), ("other hosts", "alpha"), ("other hosts", "gamma")} <= faults


def test_configuration_that_is_not_valid(lab):
    good = lab.get("beta", CONF)
    lab.put("beta", "/etc/holdfast/bad.conf", good + "directory {\n    ttl = 999\n}\n")
    code, findings = doctor(lab, "beta", "/etc/holdfast/bad.conf")
    fault = the_fault(findings, "configuration", "/etc/holdfast/bad.conf")
    assert code == 1 and "ttl" in fault["found"]
    assert of(findings, "fencing")[0]["verdict"] == "unchecked"


def test_a_watchdog_that_is_not_there(lab):
    lab.put("beta", "/etc/holdfast/dog.conf", lab.get("beta", CONF) + 'watchdog {\n    device = "/dev/no-watchdog"\n}\n')
    code, findings = doctor(lab, "beta", "/etc/holdfast/dog.conf")
    fault = the_fault(findings, "watchdog", "/dev/no-watchdog")
    assert code == 1 and "softdog" in fault["remedy"]


def test_a_fence_agent_that_is_not_there(lab):
    lab.put("beta", "/etc/holdfast/fence.conf", lab.get("beta", CONF).replace("fence_holdfast_lab", "fence_nothing"))
    code, findings = doctor(lab, "beta", "/etc/holdfast/fence.conf")
    fault = the_fault(findings, "fencing", "power")
    assert code == 1 and "fence_nothing" in fault["found"]


def test_an_agent_that_lacks_something(lab):
    """The settings of resources are checked by their agents."""
    lab.put("alpha", "/etc/holdfast/g", 'resource copy1 {\n agent = "ocf:holdfast:postgresql"\n'
            ' params {\n  pgdata = "/srv/copy1/data"\n  bindir = "/no/such"\n }\n}\n')
    lab.exec("alpha", "holdfast", "group", "create", "g", "/etc/holdfast/g")
    code, findings = doctor(lab, "alpha")
    assert code == 1
    fault, = of(findings, "resource")
    assert (fault["verdict"], fault["object"]) == ("fault", "g/copy1")
    assert "no postgres and psql in /no/such" in fault["found"]
    lab.exec("alpha", "holdfast", "group", "leave", "g")
    lab.until(lambda: doctor(lab, "alpha")[0] == 0, "no fault any more")


def test_a_host_that_is_deaf(lab):
    """gamma hears no multicast: what it is told when it asks is all it has."""
    lab.exec("gamma", "nft", "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; "
             "add rule ip deaf in ip daddr 239.192.74.80 drop")
    heard = []

    def found():
        heard[:] = [f for f in of(doctor(lab, "alpha")[1], "multicast") if f["verdict"] == "fault"]
        return heard

    lab.until(found, "alpha's doctor tells that gamma hears nobody", 40)
    assert all(f["object"].startswith("gamma hears ") and "IGMP" in f["remedy"] for f in heard)
    lab.exec("gamma", "nft", "delete table ip deaf")
    lab.until(lambda: doctor(lab, "alpha")[0] == 0, "all hear each other again")


def test_no_corosync(lab):
    lab.exec("gamma", "sh", "-c", "kill -KILL $(pidof corosync)")
    lab.until(lambda: of(doctor(lab, "gamma")[1], "corosync", "corosync"), "it is looked at")
    code, findings = doctor(lab, "gamma")
    corosync, = of(findings, "corosync")
    assert code == 1 and corosync["verdict"] == "fault" and "systemctl start corosync" in corosync["remedy"]


def test_before_it_joins(lab):
    """No holdfastd yet: what concerns the others is said to be unchecked."""
    lab.run("stop", "beta")
    code, findings = doctor(lab, "beta")
    assert code == 0, [f for f in findings if f["verdict"] == "fault"]
    assert of(findings, "holdfastd")[0]["verdict"] == "warning"
    assert of(findings, "multicast")[0]["verdict"] == "unchecked"
