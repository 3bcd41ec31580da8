"""The postgresql agent with real servers: several copies on loopback addresses, driven as a group would."""
import os
import pathlib
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ET

import pytest

from agent import (AGENTS, CONFIGURED, DEADLINE, FAILED_PROMOTED, GENERIC, INSTALLED, NOT_RUNNING, OK,
                   PROMOTED, UNIMPLEMENTED, Cluster, run_agent, until)


@pytest.fixture
def cluster():
    c = Cluster()
    yield c
    c.end()


def pair(cluster):
    """A primary with one synchronous mirror."""
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    b.follow(a)
    a.mirror((b, "grow"))
    a.psql("create table t(i bigint primary key)")
    return a, b


class Writer:
    """Inserts rows one by one and remembers those whose commit was acknowledged."""

    def __init__(self, copy):
        self.acked = []
        self.longest = 0.0  # seconds between two acknowledged commits
        self.stopping = False
        self.psql = subprocess.Popen(
            ["psql", "-XqAtw", "-v", "ON_ERROR_STOP=1",
             f"host={copy.address} port={copy.cluster.port} user=postgres dbname=postgres"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        n, last = 0, time.monotonic()
        try:
            while not self.stopping:
                n += 1
                self.psql.stdin.write(f"insert into t values ({n}) returning i;\n")
                self.psql.stdin.flush()
                if self.psql.stdout.readline().strip() != str(n):
                    break
                self.acked.append(n)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
        except OSError:
            pass
        self.error = "" if self.stopping else self.psql.stderr.read()

    def progress(self, rows=20, deadline=DEADLINE):
        """Until so many more are acknowledged."""
        want = len(self.acked) + rows
        until(lambda: len(self.acked) >= want, f"{rows} commits more; {len(self.acked)} so far", deadline)

    def stop(self):
        self.stopping = True
        self.psql.stdin.close()
        self.psql.kill()
        self.psql.wait()
        self.thread.join()
        self.psql.stdout.close()
        self.psql.stderr.close()


def nothing_lost(writer, copy):
    have = {int(i) for i in copy.psql("select i from t").split()}
    assert set(writer.acked) <= have
    assert len(have - set(writer.acked)) <= 1  # the one in doubt


# --- one copy ---

def test_life_of_a_sole_copy(cluster):
    a = cluster.copy()
    assert a.monitor() == NOT_RUNNING
    a.do("stop")
    a.do("start", INIT="yes")
    assert a.monitor() == OK
    first = a.fence()
    assert a.monitor() == PROMOTED
    assert a.psql("select 1", check=False).returncode == 2  # closed means closed
    assert a.fence() == first  # asked again, it is the same fence
    a.do("open")
    a.do("open")
    assert a.psql("select 1") == "1"
    assert a.psql("show autovacuum") == "on"
    a.do("start")  # of what runs
    a.do("demote")
    assert a.monitor() == OK
    assert a.psql("select 1", check=False).returncode == 2
    a.do("demote")
    a.do("stop")
    a.do("stop")
    assert a.monitor() == NOT_RUNNING


def test_no_data_is_no_copy(cluster):
    a = cluster.copy()
    a.do("start", want=CONFIGURED)
    a.do("promote", want=CONFIGURED)
    assert not a.pgdata.exists()
    a.pgdata.mkdir()
    (a.pgdata / "something").touch()
    a.do("start", INIT="yes", want=CONFIGURED)
    assert list(a.pgdata.iterdir()) == [a.pgdata / "something"]


def test_closed_until_opened(cluster):
    """Nothing takes a transaction id before the fence: no client, no autovacuum, no subscription."""
    a = cluster.copy()
    a.create()
    a.do("demote")
    a.do("promote")
    p = a.psql("select 1", check=False)
    assert p.returncode == 2 and "no pg_hba.conf entry" in p.stderr
    own = subprocess.run(["psql", "-XqAt", "-h", a.socket_dir, "-p", str(cluster.port), "-U", "postgres",
                          "-c", "show autovacuum", "-c", "show max_logical_replication_workers",
                          "-c", "show restart_after_crash", "postgres"],
                         capture_output=True, text=True, check=True)
    assert own.stdout.split() == ["off", "0", "off"]


def test_fence_of_every_start(cluster):
    """A crash restart in place uses transaction ids again: it is fenced, too (X3)."""
    a = cluster.copy()
    fences = [a.create()]
    a.psql("create table t(i int)")
    for _ in range(2):
        a.psql("insert into t values (1)")
        seen = int(a.psql("begin; insert into t values (2); select pg_current_xact_id(); commit"))
        a.kill()
        assert a.monitor() == FAILED_PROMOTED
        a.do("demote", want=FAILED_PROMOTED)
        a.do("stop")
        assert a.monitor() == NOT_RUNNING
        a.do("start")
        fences.append(a.fence())
        assert int(fences[-1]["xmax"]) > seen  # committed is below the fence
        a.do("open")
        assert int(a.psql("select pg_current_xact_id()")) >= int(fences[-1]["xmax"])
    assert len({f["sysid"] for f in fences}) == 1
    assert [int(f["xmax"]) for f in fences] == sorted({int(f["xmax"]) for f in fences})


def test_promotion_cut_short_is_taken_up_again(cluster):
    """The time for it ran out in recovery, or the agent was killed before it had the fence."""
    a = cluster.copy()
    a.create()
    a.kill()
    a.do("stop")
    a.do("start")
    slow = slow_tool(a, "psql", "exec sleep 1000")
    a.do("promote", params=slow, timeout_ms=2000, want=GENERIC)
    fence = a.fence()
    assert a.psql("select 1", check=False).returncode == 2
    a.do("open")
    assert int(a.psql("select pg_current_xact_id()")) >= int(fence["xmax"])


def test_backend_crash_ends_the_server(cluster):
    """restart_after_crash = off: what comes back writable comes back through promote."""
    a = cluster.copy()
    a.create()
    p = subprocess.Popen(["psql", "-Xqw", f"host={a.address} port={cluster.port} user=postgres",
                          "-c", "select pg_sleep(60)"], stderr=subprocess.PIPE)
    query = "select pid from pg_stat_activity where query like 'select pg_sleep%'"
    until(lambda: a.psql(query), "the backend")
    os.kill(int(a.psql(query)), signal.SIGKILL)
    p.communicate()
    until(lambda: a.monitor() == FAILED_PROMOTED, "the crash is seen")


def test_hung_server_is_seen(cluster):
    a = cluster.copy()
    a.create()
    a.kill(signal.SIGSTOP)
    assert a.monitor(timeout_ms=3000) == FAILED_PROMOTED
    a.do("stop", timeout_ms=5000)
    assert a.monitor() == NOT_RUNNING
    assert not a.processes()


def test_operators_configuration(cluster):
    """The operator's file is untouched and in force, but for what the agent must decide."""
    a = cluster.copy()
    a.create()
    conf = a.pgdata / "postgresql.conf"
    text = conf.read_text() + ("work_mem = '7MB'\nwal_keep_size = '32MB'\nfull_page_writes = on\n"
                               "restart_after_crash = on\nwal_log_hints = off\n")
    conf.write_text(text)
    a.do("demote")
    a.do("promote")
    a.do("open")
    shown = [a.psql(f"show {s}") for s in ("work_mem", "wal_keep_size", "restart_after_crash",
                                           "wal_log_hints")]
    assert shown == ["7MB", "32MB", "off", "on"]
    assert conf.read_text() == text


def test_alter_system_cannot_undo_protection(cluster):
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    b.follow(a)
    a.psql("alter system set synchronous_standby_names = ''")
    a.mirror((b, "sync"), want=GENERIC)
    a.psql("alter system reset synchronous_standby_names")
    a.mirror((b, "grow"))


# --- shared data ---

def test_left_open_by_another_host(cluster):
    """A data directory that another host had open is used only by a cluster that has fenced it (G1)."""
    a = cluster.copy()
    a.create()
    a.kill()
    a.host, a.epoch = "elsewhere", None
    a.do("stop")
    (a.pgdata / "postmaster.pid").write_text(f"{os.getpid()}\n{a.pgdata}\n")
    a.do("start")
    a.do("promote", want=GENERIC)
    assert a.pgdata.joinpath("postmaster.pid").exists()
    a.epoch = 7
    a.fence()
    a.do("open")
    assert a.psql("select 1") == "1"


def test_marker_of_a_volume(cluster):
    a = cluster.copy()
    shared = {"volume": a.dir, "marker": "b2c0"}
    a.do("access", params=shared, want=INSTALLED)
    (a.dir / ".holdfast-marker").write_text("b2c1\n")
    a.do("access", params=shared, want=INSTALLED)
    (a.dir / ".holdfast-marker").write_text("b2c0\n")
    a.do("access", params=shared)
    a.do("access", params=shared | {"volume": a.dir / "nothing"}, want=INSTALLED)
    a.do("access")


# --- mirrors ---

def test_create_mirror_promote(cluster):
    """The mirror takes over with all that was acknowledged, and the old primary comes back."""
    a, b = pair(cluster)
    assert b.monitor() == OK
    assert a.state() == {b.id: "in-sync"}
    writer = Writer(a)
    try:
        writer.progress(100)
        a.kill()
        writer.thread.join()
        assert a.monitor() == FAILED_PROMOTED
        t0 = time.monotonic()
        fence = b.fence(MIRRORS="")
        t1 = time.monotonic()
        b.do("open")
        t2 = time.monotonic()
        print(f"promote {(t1 - t0) * 1000:.0f} ms, open {(t2 - t1) * 1000:.0f} ms")
        assert fence["timeline"] == "2" and b.monitor() == PROMOTED
        nothing_lost(writer, b)
        b.psql("insert into t values (0)")
        assert int(b.psql("select pg_current_xact_id()")) >= int(fence["xmax"])
    finally:
        writer.stop()
    a.do("stop")
    b.mirror((a, "async"))
    a.follow(b, OVERWRITE="yes")
    b.mirror((a, "grow"))
    b.psql("insert into t values (-1)")
    assert a.monitor() == OK


def test_demoted_primary_follows_without_copying(cluster):
    """A planned change of roles, and back: no rewind, no base backup."""
    a, b = pair(cluster)
    a.psql("insert into t values (1)")
    for old, new in ((a, b), (b, a)):
        old.do("demote")
        assert old.monitor() == OK
        new.fence(MIRRORS="")
        new.mirror((old, "async"))
        old.follow(new, OVERWRITE="no")
        new.mirror((old, "grow"))
        new.do("open")
        new.psql("insert into t select max(i) + 1 from t")
    assert a.psql("select count(*) from t") == "3"
    for c in (a, b):
        assert "pg_rewind" not in c.log.read_text()
    assert not list(b.pgdata.glob("pg_replslot/*"))  # they would keep WAL for ever


def diverge(a, b):
    """a was primary, wrote alone and died; b was promoted without that."""
    a.mirror((b, "async"))
    b.do("stop")
    a.psql("insert into t values (666)")
    a.kill()
    a.do("stop")
    b.do("start")
    b.fence(MIRRORS="")
    b.do("open")
    b.psql("insert into t values (1)")
    b.mirror((a, "async"))


def content(directory):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in directory.rglob("*")
            if p.is_file() and not p.name.startswith("holdfast.owner")}


def test_diverged_copy_is_kept_or_overwritten_as_told(cluster):
    a, b = pair(cluster)
    diverge(a, b)
    a.do("start")
    before = content(a.pgdata)
    a.do("mirror-target", SOURCE=b, OVERWRITE="no", want=GENERIC)
    assert content(a.pgdata) == before
    a.follow(b, OVERWRITE="yes")
    assert "pg_rewind: Done!" in a.log.read_text(), a.tail()
    b.mirror((a, "grow"))
    b.do("demote")
    a.fence(MIRRORS="")
    a.do("open")
    assert a.psql("select i from t") == "1"


def test_diverged_standby(cluster):
    """A standby that got WAL which the new primary does not have."""
    a, b = pair(cluster)
    c = cluster.copy()
    a.mirror((b, "sync"), (c, "async"))
    c.follow(a)
    a.mirror((b, "async"), (c, "async"))
    b.do("stop")
    a.psql("insert into t values (666)")
    until(lambda: a.psql("select count(*) from pg_stat_replication where "
                         "replay_lsn = pg_current_wal_lsn()") == "1", "c has it")
    a.kill()
    b.do("start")
    b.fence(MIRRORS="")
    b.mirror((c, "async"))
    b.do("open")
    b.psql("insert into t values (1)")
    c.do("mirror-target", SOURCE=b, OVERWRITE="no", want=GENERIC)
    assert c.monitor() == OK
    c.follow(b, OVERWRITE="yes")
    b.mirror((c, "sync"))
    b.psql("insert into t values (2)")
    assert b.psql("select count(*) from t") == "2"


def test_running_standby_is_aimed_anew(cluster):
    """Of three copies, the third follows the new primary without a restart."""
    a, b = pair(cluster)
    c = cluster.copy()
    a.mirror((b, "sync"), (c, "async"))
    c.follow(a)
    a.mirror((b, "sync"), (c, "grow"))
    a.psql("insert into t values (1)")
    pid = c.postmaster()
    a.kill()
    b.fence(MIRRORS=f"{c}=sync")
    c.do("mirror-target", SOURCE=b, OVERWRITE="no")
    b.mirror((c, "sync"))
    b.do("open")
    b.psql("insert into t values (2)")
    assert c.postmaster() == pid
    assert b.state() == {c.id: "in-sync"}
    assert c.state() == {c.id: "caught-up"}


def test_foreign_database_is_not_overwritten_unasked(cluster):
    a, b = cluster.copy(), cluster.copy()
    a.create()
    b.create()
    b.do("demote")
    a.mirror((b, "async"))
    b.do("mirror-target", SOURCE=a, OVERWRITE="no", want=GENERIC)
    b.follow(a, OVERWRITE="yes")


def test_promoted_copy_is_no_target(cluster):
    a, b = cluster.copy(), cluster.copy()
    a.create()
    b.create()
    a.mirror((b, "async"))
    b.do("mirror-target", SOURCE=a, OVERWRITE="yes", want=GENERIC)
    assert b.monitor() == PROMOTED


def test_in_sync_set_grows_and_shrinks_under_load(cluster):
    """At each promotion of a member of the set, none of the acknowledged commits is missing (X5)."""
    a = cluster.copy()
    a.create()
    a.psql("create table t(i bigint primary key)")
    b, c = cluster.copy(), cluster.copy()
    writer = Writer(a)
    try:
        writer.progress()
        a.mirror((b, "async"), (c, "async"))
        b.follow(a)
        c.follow(a)
        for mirrors in (((b, "grow"), (c, "async")), ((b, "sync"), (c, "grow")),
                        ((b, "async"), (c, "sync")), ((b, "grow"), (c, "async")), (),
                        ((b, "async"), (c, "async")), ((b, "async"), (c, "sync"))):
            writer.longest = 0
            a.mirror(*mirrors)
            writer.progress()
            text = " ".join(f"{m.id}={mode}" for m, mode in mirrors) or "none"
            print(f"{text}: longest commit {writer.longest * 1000:.0f} ms")
            a.mirror(*mirrors)  # again
            if not mirrors:
                assert a.psql("select count(*) from pg_replication_slots") == "0"
                continue
            for m, mode in mirrors:
                m.await_state(a, "caught-up" if mode == "async" else "in-sync")
        a.mirror((b, "grow"), (c, "grow"))
        writer.progress()
        a.kill()
        writer.thread.join()
        print(f"{len(writer.acked)} commits")
        c.fence(MIRRORS="")
        c.do("open")
        nothing_lost(writer, c)
    finally:
        writer.stop()


def test_mirror_that_is_away_is_not_made_synchronous(cluster):
    """That would stop all commits: refused, and the set is as before."""
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    b.follow(a)
    b.do("stop")
    until(lambda: a.state() == {b.id: "suspended not connected"}, "b is away")
    a.mirror((b, "grow"), want=GENERIC)
    a.psql("create table t()")


def test_member_of_the_set_that_is_away_is_waited_for(cluster):
    """It is on record: whether it follows or not, commits must not be acknowledged without it."""
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.psql("create table t(i bigint primary key)")
    for mirrors in (f"{b}=sync", f"{b.id}==sync"):  # the second: nobody hosts it now
        a.do("mirror-source", MIRRORS=mirrors)
        writer = Writer(a)
        try:
            until(lambda: waiting(a), "a commit waits")
            assert not writer.acked
        finally:
            writer.stop()
        a.mirror()
        until(lambda: not waiting(a), "the commit is released")
        a.psql("delete from t")


def test_mirror_that_fell_too_far_behind(cluster):
    """Its WAL is gone at the source: it is copied anew."""
    a, b = pair(cluster)
    a.mirror((b, "async"))
    b.do("stop")
    with open(a.pgdata / "postgresql.conf", "a", encoding="ascii") as f:
        f.write("wal_keep_size = 0\nmax_slot_wal_keep_size = '16MB'\nmax_wal_size = '32MB'\n"
                "min_wal_size = '32MB'\n")
    a.mirror((b, "async"))
    for _ in range(6):
        a.psql("insert into t select coalesce(max(i), 0) + 1 from t")
        a.psql("select pg_switch_wal()")
        a.psql("checkpoint")
    assert a.state()[b.id].startswith("failed")
    b.do("mirror-target", SOURCE=a, OVERWRITE="no", want=GENERIC)
    b.do("mirror-target", SOURCE=a, OVERWRITE="yes")
    b.await_state(a)
    a.mirror((b, "grow"))
    a.mirror((b, "async"))
    b.do("stop")
    a.mirror()  # without a slot nothing is kept
    for _ in range(6):
        a.psql("insert into t select coalesce(max(i), 0) + 1 from t")
        a.psql("select pg_switch_wal()")
        a.psql("checkpoint")
    a.mirror((b, "async"))
    b.do("mirror-target", SOURCE=a, OVERWRITE="yes")
    b.await_state(a)


def waiting(copy):
    return copy.psql("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1"


def test_lost_mirror_stops_commits_until_the_set_shrinks(cluster):
    a, b = pair(cluster)
    b.kill()
    writer = Writer(a)
    try:
        until(lambda: waiting(a), "a commit waits")
        assert not writer.acked
        a.mirror()
        writer.progress()
    finally:
        writer.stop()


def test_waiting_commits_go_on_when_the_set_changes(cluster):
    """WAL senders release commits only at their mirror's next word, and all WAL may be confirmed already."""
    a, b = cluster.copy(), cluster.copy()
    c = cluster.copy()
    a.create()
    with open(a.pgdata / "postgresql.conf", "a", encoding="ascii") as f:
        # no keep-alives from either side
        f.write("wal_sender_timeout = 0\nwal_receiver_timeout = 0\nwal_receiver_status_interval = 0\n")
    a.psql("create table t(i bigint primary key)")
    writer = Writer(a)
    try:
        a.mirror((b, "async"), (c, "async"))
        b.follow(a)
        c.follow(a)
        a.mirror((b, "grow"), (c, "async"))
        writer.progress(deadline=10)  # every 15 s the server writes WAL by itself
        a.mirror((b, "sync"), (c, "grow"))
        writer.progress(deadline=10)
        c.kill()
        until(lambda: waiting(a), "a commit waits")
        a.mirror((b, "sync"))
        writer.progress(deadline=10)
    finally:
        writer.stop()


def test_degraded_refuse(cluster):
    """Without any mirror no commit is acknowledged, where the group's configuration says so."""
    a, b = pair(cluster)
    b.kill()
    a.mirror(DEGRADED="refuse")
    writer = Writer(a)
    try:
        until(lambda: waiting(a), "a commit waits")
        assert not writer.acked
        a.mirror(DEGRADED="allow")
        writer.progress()
    finally:
        writer.stop()


def test_promoted_copy_waits_for_its_set(cluster):
    """Opening waits until the set has all that recovery brought back (X4)."""
    a, b = pair(cluster)
    a.kill()
    b.do("stop")
    a.do("stop")
    a.do("start")
    a.do("promote")  # the set is still the one on record here
    a.do("open", timeout_ms=3000, want=GENERIC)
    assert a.psql("select 1", check=False).returncode == 2
    b.do("start", SOURCE=a)
    a.do("open")
    a.psql("insert into t values (1)")


def test_promotion_does_not_hold_up_its_own_replay(cluster):
    """Replay waits for a snapshot that sees what the WAL removes, recovery ends after replay, and the agent waits for that end."""
    a, b = pair(cluster)
    b_socket = ["psql", "-XqAt", "-h", b.socket_dir, "-p", str(cluster.port), "-U", "postgres", "postgres", "-c"]

    def own(sql):
        return subprocess.run([*b_socket, sql], capture_output=True, text=True, check=True).stdout.strip()

    a.psql("insert into t select generate_series(1, 1000)")
    own("select pg_wal_replay_pause()")
    until(lambda: own("select pg_get_wal_replay_pause_state()") == "paused", "replay stands still")
    a.psql("delete from t")
    a.psql("vacuum t")
    removed = a.psql("select pg_current_wal_flush_lsn()")
    until(lambda: own(f"select pg_last_wal_receive_lsn() >= '{removed}'") == "t", "the mirror has the WAL")
    a.kill()
    b.fence()  # a snapshot of its own, while replay goes on, is cancelled after max_standby_archive_delay, 30 s
    b.do("open")
    assert b.psql("select count(*) from t") == "0"


def test_sessions_of_a_standby_end_at_promotion(cluster):
    """A read-only session would become writable (X7)."""
    a, b = pair(cluster)
    p = subprocess.Popen(["psql", "-Xqw", "-h", b.socket_dir, "-p", str(cluster.port), "-U", "postgres",
                          "-c", "select pg_sleep(60)", "postgres"], stderr=subprocess.PIPE, text=True)
    until(lambda: any("pg_sleep" in l for l in subprocess.run(
        ["psql", "-XqAt", "-h", b.socket_dir, "-p", str(cluster.port), "-U", "postgres", "-c",
         "select query from pg_stat_activity where backend_type = 'client backend' and "
         "pid <> pg_backend_pid()", "postgres"], capture_output=True, text=True,
        check=True).stdout.splitlines()), "the session")
    a.kill()
    b.fence(MIRRORS="")
    _, err = p.communicate()
    assert "terminating connection due to administrator command" in err


# --- broken-off copying ---

def slow_tool(copy, name, script):
    """A directory of PostgreSQL's programs with one replaced."""
    real = pathlib.Path(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1])
    bindir = copy.dir / f"bin-{name}"
    bindir.mkdir()
    for tool in real.iterdir():
        (bindir / tool.name).symlink_to(tool)
    (bindir / name).unlink()
    (bindir / name).write_text(f"#!/bin/sh\nreal={real}/{name}\n{script}\n")
    (bindir / name).chmod(0o755)
    return {"bindir": bindir}


def test_source_wants_no_mirror_any_more(cluster):
    """The group does without a copy that has just begun to follow: its host leaves, and must not wait for it."""
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    b.follow(a)
    b.do("stop")
    b.do("start", SOURCE=a)
    pause = slow_tool(b, "psql", f'"$real" "$@"; rc=$?\ncase "$*" in *"dbname=postgres host="*)\n'
                                 f'touch {b.dir}/slot; until [ -e {b.dir}/on ]; do sleep 0.02; done\nesac\nexit $rc')
    ended = []
    t = threading.Thread(target=lambda: ended.append(b.agent("mirror-target", SOURCE=a, params=pause)))
    t.start()
    until((b.dir / "slot").exists, "the slot at the source")
    a.mirror()
    (b.dir / "on").touch()
    t.join()
    assert ended[0].returncode == GENERIC and "wants no standby here any more" in ended[0].stdout + ended[0].stderr
    a.mirror((b, "async"))
    b.follow(a)


def test_interrupted_base_backup(cluster):
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    hang = slow_tool(b, "pg_basebackup", '"$real" "$@" || exit; echo "1/2 kB (50%)" >&2; exec sleep 1000')
    b.do("start", SOURCE=a)
    b.do("mirror-target", SOURCE=a, params=hang)
    until(lambda: b.state() == {b.id: "syncing 50"}, "half of it")
    assert b.monitor() == OK
    b.do("promote", want=GENERIC)
    b.do("mirror-target", SOURCE=a, params=hang)  # goes on already
    for pid in b.processes():
        os.kill(pid, signal.SIGKILL)  # the host died
    assert b.state()[b.id].startswith("failed")
    assert b.monitor() == GENERIC
    b.do("stop")
    b.do("start", want=CONFIGURED)  # never started as a database
    b.do("promote", want=GENERIC)
    b.follow(a)
    a.mirror((b, "grow"))


def test_failed_base_backup_keeps_the_old_data(cluster):
    a, b = pair(cluster)
    diverge(a, b)
    a.do("start")
    broken = slow_tool(a, "pg_basebackup", "echo no space left >&2; exit 1")
    (a.dir / "bin-pg_basebackup" / "pg_rewind").unlink()
    (a.dir / "bin-pg_basebackup" / "pg_rewind").symlink_to("/bin/false")
    a.do("mirror-target", SOURCE=b, OVERWRITE="yes", params=broken)
    until(lambda: a.state()[a.id].startswith("failed"), "it failed")
    assert (a.pgdata / "PG_VERSION").exists()
    a.do("promote", want=GENERIC)  # the group has decided that it is out of date
    a.follow(b, OVERWRITE="yes")
    assert not a.pgdata.with_name("data.old").exists()


def test_failed_rewind_becomes_a_base_backup(cluster):
    a, b = pair(cluster)
    diverge(a, b)
    a.do("start")
    broken = slow_tool(a, "pg_rewind", "exit 1")
    a.do("mirror-target", SOURCE=b, OVERWRITE="yes", params=broken)
    a.await_state(b)
    b.mirror((a, "grow"))
    b.psql("insert into t values (2)")


def test_host_dies_while_the_copy_is_swapped_in(cluster):
    a, b = cluster.copy(), cluster.copy()
    a.create()
    a.mirror((b, "async"))
    b.follow(a)
    b.do("stop")
    b.pgdata.rename(b.dir / "data.copy")
    (b.dir / "data.copy" / "holdfast.complete").touch()
    (b.dir / "data.copying").touch()
    b.do("start", SOURCE=a)
    b.await_state(a)


def test_interrupted_rewind(cluster):
    a, b = pair(cluster)
    diverge(a, b)
    a.do("start")
    hang = slow_tool(a, "pg_rewind", '"$real" "$@" || exit; exec sleep 1000')
    a.do("mirror-target", SOURCE=b, OVERWRITE="yes", params=hang)
    until(lambda: "pg_rewind: Done!" in a.log.read_text(), "rewound")
    for pid in a.processes():
        os.kill(pid, signal.SIGKILL)
    a.do("start", want=CONFIGURED)
    a.do("promote", want=GENERIC)
    a.follow(b, OVERWRITE="yes")


# --- without a group ---

def test_pacemaker(cluster):
    """Pacemaker knows neither open nor fences, and wants a promotion score."""
    a = cluster.copy()
    score = a.dir / "crm_master"
    score.write_text(f'#!/bin/sh\necho "$@" >>{a.dir}/score\n')
    score.chmod(0o755)
    env = {"OCF_RESOURCE_INSTANCE": "db:0", "HA_RSCTMP": str(a.dir / "run"),
           "PATH": f"{a.dir}:{os.environ['PATH']}"}
    a.create()
    a.do("stop")

    def do(action, want):
        p = run_agent("postgresql", action, a.params | {"extra": ""}, env)
        assert p.returncode == want, p.stderr
        return p.stdout

    do("monitor", NOT_RUNNING)
    do("start", OK)
    do("monitor", OK)
    do("notify", OK)
    assert "holdfast-fence" in do("promote", OK)
    assert a.psql("select 1") == "1"
    do("monitor", PROMOTED)
    do("demote", OK)
    do("stop", OK)
    assert "-v 100" in (a.dir / "score").read_text()


def test_meta_data():
    p = run_agent("postgresql", "meta-data", {"pgdata": "/a/b"})
    root = ET.fromstring(p.stdout)
    actions = {a.get("name") for a in root.iter("action")}
    for action in actions:
        assert action in (AGENTS / "postgresql").read_text().split("case $action in", 1)[1]
    assert {"start", "stop", "monitor", "promote", "demote", "notify", "validate-all", "meta-data", "access",
            "open", "mirror-source", "mirror-target", "mirror-state", "prepare-promote", "prepare-demote"} == actions
    text = (AGENTS / "postgresql").read_text()
    for parameter in root.iter("parameter"):
        assert f"OCF_RESKEY_{parameter.get('name')}" in text
    assert run_agent("postgresql", "dance", {"pgdata": "/a/b"}).returncode == UNIMPLEMENTED


@pytest.mark.parametrize("params, want", [
    ({"pgdata": ""}, CONFIGURED),
    ({"pgdata": "data"}, CONFIGURED),
    ({"pgdata": "/data"}, CONFIGURED),
    ({"pgdata": "/var/tmp/a'b"}, CONFIGURED),
    ({"port": "x"}, CONFIGURED),
    ({"user": "nobody-here"}, CONFIGURED),
    ({"user": "nobodyhere"}, INSTALLED),
    ({"replication_auth": "md5"}, CONFIGURED),
    ({"bindir": "/nonexistent"}, INSTALLED),
    ({}, OK),
])
def test_parameters(cluster, params, want):
    cluster.copy().do("validate-all", params=params, want=want)
