"""`holdfast backup` and `restore`: a host that lost its disk comes back as a host without a record, whatever the backup's age."""
import json

import pytest

from lab import STATE
from test_group import DEADLINE, HOSTS, WEB, Group

BACKUP = "/srv/holdfast.tar.gz"  # the lab's /srv outlives the loss of a disk here, as another machine would
LOST = ("etc/holdfast", "etc/corosync", "var/lib/holdfast")


@pytest.fixture(scope="module", name="group")
def fixture_group(new_lab):
    lab = new_lab("-n", len(HOSTS), "--engine", "corosync")
    group = Group(lab)
    lab.put("alpha", "/run/orders.conf", WEB)
    lab.until(lambda: group.command("alpha", "create", "/run/orders.conf"), "created", DEADLINE)
    for host in HOSTS[1:]:
        group.command(host, "join")
    group.until_on("alpha")
    return group


def restore(lab, host, *options, check=True):
    return lab.run("exec", host, "--", "holdfast", "restore", BACKUP, *options, check=check)


def lose_disk(group, host, seen_by=None):
    """Power off; what was on its disk is gone; a fresh system boots, with the package and nothing else of ours."""
    lab = group.lab
    lab.run("power-off", host)
    if seen_by:  # and has done what it does then: the power is not to be cut again
        lab.until(lambda: not any(m["present"] or m["may_run"] for m in group.show(seen_by)["hosts"] if m["host"] == host),
                  f"{host} is gone", DEADLINE)
    disk = STATE / lab.name / "hosts" / host / "fs"
    for folder in LOST:
        for path in sorted((disk / folder).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    settings = STATE / lab.name / "lab.conf"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("ENGINE=corosync", "ENGINE=embedded").replace("DAEMON=1", "DAEMON=0"), encoding="utf-8")
    lab.run("boot", host)  # without daemons: they have no configuration
    settings.write_text(text, encoding="utf-8")


def members(group, host):
    return {h["host"]: h["present"] for h in group.show(host)["hosts"]}


def test_a_disk_is_lost(group):
    lab = group.lab
    said = lab.exec("gamma", "holdfast", "backup", BACKUP)
    assert "files of gamma, keys and passwords among them" in said and "groups' records" in said
    assert lab.exec("gamma", "stat", "-c", "%a", BACKUP) == "600\n"
    kept = lab.get("gamma", "/var/lib/holdfast/groups/orders/config/web")
    epoch = group.show("alpha")["epoch"]
    lose_disk(group, "gamma", "alpha")

    said = restore(lab, "gamma", "--yes").stdout  # the package of corosync has brought its own configuration
    assert "next: holdfast group join orders" in said
    assert lab.run("exec", "gamma", "--", "test", "-e", "/var/lib/holdfast/groups/orders/record", check=False).returncode
    lab.run("start", "gamma")
    # not by itself: it is a member that has forgotten what it promised
    lab.until(lambda: lab.members("gamma") == {"alpha": "alive", "beta": "alive", "gamma": "self"}, "gamma hears all", DEADLINE)
    assert members(group, "alpha") == {"alpha": True, "beta": True, "gamma": False}
    assert json.loads(lab.exec("gamma", "holdfast", "group", "show", "--json")) == []
    group.command("gamma", "join")
    group.until_on("alpha")
    assert all(members(group, "gamma").values())
    assert group.show("gamma")["epoch"] == epoch
    assert lab.get("gamma", "/var/lib/holdfast/groups/orders/config/web") == kept
    history = json.loads(lab.exec("gamma", "holdfast", "group", "history", "orders", "--json"))
    assert any("is a member now" in e["text"] for e in history), "from before the loss"
    group.command("alpha", "switch", "--to", "gamma")
    group.until_on("gamma")
    group.command("alpha", "switch", "--to", "alpha")
    group.until_on("alpha")


def test_what_is_refused(group):
    lab = group.lab
    lab.exec("gamma", "holdfast", "backup", BACKUP)
    p = restore(lab, "gamma", "--yes", check=False)
    assert p.returncode == 1 and "holdfastd runs" in p.stderr and "systemctl stop holdfastd" in p.stderr
    assert "would restore 0 files of gamma" in restore(lab, "gamma", "--check").stdout
    content = lab.exec("gamma", "base64", BACKUP)
    lab.run("exec", "beta", "--", "sh", "-c", f"base64 -d >{BACKUP}", stdin=content)
    p = restore(lab, "beta", "--check", check=False)
    assert p.returncode == 1 and "got a backup of the host gamma, expected one of beta" in p.stderr


def test_an_old_backup_of_a_host_that_was_removed(group):
    """The group went on without it, twice; its old word counts for nothing, and it is admitted as anybody."""
    lab = group.lab
    lab.exec("gamma", "holdfast", "backup", BACKUP)
    group.command("gamma", "leave")
    group.command("alpha", "switch", "--to", "beta")
    group.command("alpha", "switch", "--to", "alpha")
    epoch = group.show("alpha")["epoch"]
    lose_disk(group, "gamma")
    restore(lab, "gamma", "--yes")
    lab.run("start", "gamma")
    lab.until(lambda: lab.members("gamma").get("alpha") == "alive", "gamma hears alpha", DEADLINE)
    assert members(group, "alpha") == {"alpha": True, "beta": True}
    assert json.loads(lab.exec("gamma", "holdfast", "group", "show", "--json")) == []
    assert lab.run("exec", "gamma", "--", "test", "-e", "/run/web.state", check=False).returncode
    # without the other member alpha has no majority of two, and gamma's presence is none
    lab.run("power-off", "beta")
    lab.until(lambda: group.show("alpha")["hosts"][1]["present"] is False, "beta is gone", DEADLINE)
    assert members(group, "alpha") == {"alpha": True, "beta": False}
    lab.run("boot", "beta")
    group.until_on(group.primary(), ("alpha", "beta"))
    group.command("gamma", "join")
    lab.until(lambda: members(group, "alpha") == {h: True for h in HOSTS}, "gamma is a member again", DEADLINE)
    assert group.show("gamma")["epoch"] >= epoch
    group.until_on(group.primary())


def test_a_host_without_a_record_gives_no_majority(group):
    """Two of three disks are lost, both are restored: one record of three is no majority, and nothing is promoted on it (G5)."""
    lab = group.lab
    for host in HOSTS:
        lab.exec(host, "holdfast", "backup", BACKUP)
    primary = group.primary()
    others = [h for h in HOSTS if h != primary]
    for host in (primary, *others):
        lab.run("power-off", host)
    for host in (primary, others[0]):
        lose_disk(group, host)
        restore(lab, host, "--yes")
        lab.run("start", host)
    lab.run("boot", others[1])
    for host in (primary, others[0]):
        lab.run("exec", host, "--", "holdfast", "-t", "10", "group", "join", "orders", check=False)
    last = others[1]
    lab.until(lambda: all(lab.members(last).get(h) in ("self", "alive") for h in HOSTS), "all are there", DEADLINE)
    shown = group.show(last)
    assert shown["phase"] != "running" and not shown["quorate"], shown
    for host in HOSTS:
        assert lab.run("exec", host, "--", "test", "-e", "/run/web.state", check=False).returncode, host
