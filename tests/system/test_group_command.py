"""Groups as an operator and programs see them: one real host, a group without agents."""
import json
import os
import subprocess

import pytest

from lab import ROOT

LEAD = os.environ.get("LEAD", str(ROOT / "build/doc/examples/example-lead"))
TEMPLATE = """
cluster { key_file = "/etc/holdfast/cluster.key" }
host { name = "@NAME@"  address = @ADDRESS@ }
directory { interface = "eth0" }
http { listen = "0.0.0.0:7481" }
"""


@pytest.fixture(scope="module")
def lab(new_lab, tmp_path_factory):
    template = tmp_path_factory.mktemp("lab") / "holdfast.conf"
    template.write_text(TEMPLATE)
    lab = new_lab("-n", "1", "--config", str(template))
    lab.until(lambda: lab.status("alpha")["state"] == "run", "alpha takes part", 40)
    lab.put("alpha", "/tmp/jobs", "resource lead { }\n")
    lab.exec("alpha", "holdfast", "group", "create", "jobs", "/tmp/jobs")
    lab.until(lambda: group(lab)["phase"] == "running", "jobs runs")
    return lab


def group(lab, name="jobs"):
    return lab.json("alpha", "group", "show", name)[0]


def curl(lab, path):
    return lab.exec("client", "curl", "-sS", "-m", "5", f"http://alpha:7481{path}")


def refused(lab, *args):
    """What a command says when it is refused."""
    p = lab.run("exec", "alpha", "--", "holdfast", "group", *args, check=False)
    assert p.returncode == 1, p
    return p.stderr


def test_show(lab):
    g = group(lab)
    assert g["quorate"] and g["primary"]["host"] == "alpha" and g["in_sync"] == ["lead"]
    text = lab.exec("alpha", "holdfast", "group", "show")
    assert text.startswith("group jobs: running, epoch ")
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "group jobs: running" in lab.exec("alpha", "holdfast", "status")
    assert lab.json("alpha", "group", "history", "jobs")
    assert "no group x" in refused(lab, "show", "x")


def test_the_tree_tells_where_the_primary_is(lab):
    tree = lab.tree("alpha", "/group")
    assert set(tree) == {"/group/jobs", "/group/jobs/primary", "/group/jobs/lead"}
    owner, value = tree["/group/jobs/primary"]
    g = group(lab)
    assert owner == "alpha"
    assert (value["host"], value["resource"], value["epoch"]) == ("alpha", "lead", g["epoch"])


def test_http(lab):
    assert json.loads(curl(lab, "/v1/groups"))[0]["name"] == "jobs"
    metrics = curl(lab, "/metrics")
    assert 'holdfast_group_phase{group="jobs"} 4\n' in metrics
    assert 'holdfast_group_primary_here{group="jobs"} 1\n' in metrics


def test_pause_and_resume(lab):
    lab.exec("alpha", "holdfast", "group", "pause", "jobs")
    try:
        lab.until(lambda: any("jobs is paused" in p["what"] for p in lab.status("alpha")["problems"]), "paused")
    finally:
        lab.exec("alpha", "holdfast", "group", "resume", "jobs")
    lab.until(lambda: not group(lab)["paused"], "resumed")


def test_agents_have_a_place_for_their_state(lab):
    """Dummy keeps a file there; at boot it is gone."""
    lab.put("alpha", "/etc/holdfast/dummy", 'resource dummy {\n agent = "ocf:heartbeat:Dummy"\n fence = none\n}\n')
    lab.exec("alpha", "holdfast", "group", "create", "dummy", "/etc/holdfast/dummy")
    lab.until(lambda: group(lab, "dummy")["phase"] == "running", "dummy runs")
    assert "dummy" in lab.exec("alpha", "ls", "/run/resource-agents")


def test_refused(lab):
    assert "no host or resource nowhere; it has: alpha" in refused(lab, "switch", "jobs", "--to",
                                                                   "nowhere")
    assert "already" in refused(lab, "create", "jobs", "/tmp/jobs")
    lab.put("alpha", "/tmp/bad", "resource lead {\n nonsense = 1\n}\n")
    assert "/tmp/bad:2: " in refused(lab, "create", "other", "/tmp/bad")
    assert "in no group other" in refused(lab, "pause", "other")


def test_a_program_leads_while_the_daemon_does(lab):
    p = lab.popen("alpha", LEAD, "jobs", stdin=subprocess.PIPE)
    try:
        epoch = group(lab)["epoch"]
        assert p.stdout.readline() == f"begin to work in epoch {epoch}\n"
        lab.run("stop", "alpha")
        assert p.stdout.readline().startswith("stop working: ")
        lab.run("start", "alpha")
        while not (line := p.stdout.readline()).startswith("begin to work"):
            assert line  # not the end
    finally:
        p.kill()
        p.communicate(timeout=10)


def test_the_last_member_ends_the_group(lab):
    lab.until(lambda: group(lab)["phase"] == "running", "it runs again")
    lab.exec("alpha", "holdfast", "group", "leave", "jobs")
    assert "no group jobs" in refused(lab, "show", "jobs")
    lab.put("alpha", "/tmp/jobs", "resource lead { }\n")
    lab.exec("alpha", "holdfast", "group", "create", "jobs", "/tmp/jobs")
