"""The dashboard over real hosts: what a holdfastd tells live, and what a browser on another host makes of it."""
import contextlib
import json

import pytest

import chromium
from lab import find_lab

HOSTS = ("alpha", "beta", "gamma")
PORT = 7481
WEB = """
resource web {
    agent = "ocf:heartbeat:Dummy"
    params { state = /run/web.state }
    probe = { state }
    monitor = 1s
}
"""
POSTGRES_HALF = {"group": "vip", "role": "primary", "epoch": 3, "peer": "beta", "sessions": 12, "protected": 10, "unprotected": {"TLS": 2},
                 "latency_ms": {"p50": 0.25, "p99": 1.0, "slowest": 2.0}, "lag_ms": 0.5, "servers": []}


@pytest.fixture(scope="module", name="lab")
def fixture_lab(new_lab):
    """Three hosts in a group; what holdfast-pg and holdfast-sip would tell in the tree is told by hand."""
    lab = new_lab("-n", "3", "--engine", "corosync")
    for h in HOSTS:
        lab.until(lambda h=h: len(lab.members(h)) == 3, f"{h} sees all hosts", 60)
    lab.put("alpha", "/run/orders.conf", WEB)
    lab.until(lambda: lab.exec("alpha", "holdfast", "group", "create", "orders", "/run/orders.conf"), "the group", 60)
    for h in HOSTS[1:]:
        lab.exec(h, "holdfast", "group", "join", "orders", timeout=150)
    lab.until(lambda: lab.json("alpha", "group", "show", "orders")[0]["phase"] == "running", "the group runs", 60)
    lab.publish_detached("alpha", "/manager/vip", POSTGRES_HALF)
    lab.publish_detached("beta", "/sip/servers/s2", {"state": "live", "rows": 40, "bindings": 30, "requests_s": 5, "cpu": 100})
    return lab


@contextlib.contextmanager
def follower(lab, host):
    """Gives after(kind, condition): what the host tells of that kind, as soon as the condition holds of it."""
    p = lab.popen("client", "curl", "-sSN", "--max-time", "120", f"http://{lab.address(host)}:{PORT}/v1/overview/events")

    def after(kind, condition):
        seen = []
        for line in p.stdout:
            if line == f"event: {kind}\n":
                data = json.loads(next(p.stdout).removeprefix("data: "))
                if condition(data):
                    return data
                seen = [*seen[-2:], data]
        raise AssertionError(f"no such {kind}; the last ones: {seen}")

    try:
        yield after
    finally:
        p.kill()
        p.wait()
        p.stdout.close()


def states(o):
    return {h["host"]: h["state"] for h in o["hosts"]}


def test_all_is_told_live(lab):
    with follower(lab, "alpha") as after:
        sample = after("sample", lambda s: s["about"] == "manager")
        assert (sample["name"], sample["slowest_ms"], sample["lag_ms"]) == ("vip", 2.0, 0.5)
        o = after("overview", lambda o: o["sip"] and o["managers"])
        assert states(o) == {"alpha": "self", "beta": "alive", "gamma": "alive"}
        assert [(m["owner"], m["serves"]) for m in o["managers"]] == [("alpha", True)]
        assert o["groups"][0]["primary"]["resource"] == "web"
        lab.publish_detached("beta", "/sip/servers/s2", {"state": "draining", "rows": 20})
        note = after("note", lambda n: n["about"] == "sip" and "draining" in n["text"])
        assert note["name"] == "s2"
        o = after("overview", lambda o: o["sip"][0]["value"]["state"] == "draining")
        assert next(h for h in o["hosts"] if h["host"] == "beta")["draining"] == "SIP server s2"
        host = o["groups"][0]["primary"]["host"]
        lab.exec(host, "holdfast", "group", "switch", "orders", timeout=150)
        after("note", lambda n: n["about"] == "group" and n["epoch"] > o["groups"][0]["epoch"])
        after("overview", lambda n: n["groups"][0]["phase"] == "running" and n["groups"][0]["primary"]["host"] != host)
        lab.publish_detached("beta", "/sip/servers/s2", {"state": "live", "rows": 40})


def test_the_same_as_status_and_top(lab):
    """One judgement for all."""
    with follower(lab, "beta") as after:
        o = after("overview", lambda _: True)
    asked = lab.json("beta", "status")
    assert [p["remedy"] for p in o["problems"]] == [p["remedy"] for p in asked["problems"]]
    assert [m["value"] for m in o["managers"]] == [m["value"] for m in asked["managers"]]
    shown = lab.exec("beta", "holdfast", "top", "-b", "-n", "1")
    assert "vip: 12 sessions at alpha, 10 protected by beta, 2 not: 2 TLS" in shown
    assert "orders: running" in shown and all(p["what"].split(":")[0] in shown for p in o["problems"])


def test_a_browser_on_another_host(lab):
    """A host dies and comes back before its eyes; nothing is asked of anybody else, and nothing complained about."""
    inside = (find_lab(), "--name", lab.name, "exec", "client", "--")
    with chromium.Page(inside) as page:
        url = f"http://{lab.address('alpha')}:{PORT}/"
        page.open(url)
        page.until_text("#state", "running")
        page.until("document.querySelectorAll('#picture .host').length === 3", "all hosts are drawn")
        page.until_text("#sessions", "10 by beta, 2 not: 2 TLS")
        page.until_text("#charts", "vip: stalls, the slowest request")
        page.until_text("#groups caption", "orders: running")
        try:
            lab.run("power-off", "gamma")
            page.until_text("#problems", "gamma fell silent")
            page.until_text("#hosts", "dead, silent for")
            page.until_text("#events", "gamma silent: its services leave the tree")
            said = lab.exec("alpha", "holdfast", "status")
            assert "gamma fell silent" in said
        finally:
            lab.run("boot", "gamma")
        page.until("!document.querySelector('#hosts').textContent.includes('dead')", "it is alive again", 60)
        page.until_text("#events", "gamma alive")
        lab.until(lambda: lab.json("alpha", "group", "show", "orders")[0]["phase"] == "running", "the group runs", 60)
        assert page.console == []
        assert page.requests and all(u.startswith(url) for u in page.requests), page.requests


def test_holdfastd_restarts_under_a_browser(lab):
    inside = (find_lab(), "--name", lab.name, "exec", "client", "--")
    with chromium.Page(inside) as page:
        page.open(f"http://{lab.address('beta')}:{PORT}/")
        page.until_text("#state", "running")
        lab.run("stop", "beta")
        page.until_text("#state", "Connection lost")
        lab.run("start", "beta")
        page.until_text("#state", "running")
        page.until_text("#events", "takes part in the cluster")
