"""The postgresql agent with real servers: several copies on loopback addresses, driven as a group would."""
import pathlib
import time

import pytest

from agent import FAILED_PROMOTED, NOT_RUNNING, OK, PROMOTED, Cluster

pytestmark = pytest.mark.skipif(not pathlib.Path("/usr/lib/postgresql").exists(), reason="no PostgreSQL")


@pytest.fixture
def cluster():
    c = Cluster()
    yield c
    c.end()


def test_create_mirror_promote(cluster):
    """A copy is made, mirrored, and the mirror takes over with all that was acknowledged."""
    a, b = cluster.copy(), cluster.copy()
    assert a.monitor() == NOT_RUNNING
    a.create()
    assert a.monitor() == PROMOTED
    a.mirror((b, "async"))
    b.follow(a)
    assert b.monitor() == OK
    a.mirror((b, "sync"))
    assert a.state() == {b.id: "in-sync"}
    a.psql("create table t(i int); insert into t values (1)")
    a.kill()
    assert a.monitor() == FAILED_PROMOTED
    t0 = time.monotonic()
    fence = b.fence(MIRRORS="")
    t1 = time.monotonic()
    b.do("open")
    t2 = time.monotonic()
    print(f"promote {(t1 - t0) * 1000:.0f} ms, open {(t2 - t1) * 1000:.0f} ms")
    assert fence["timeline"] == "2"
    assert b.psql("select i from t") == "1"
    b.psql("insert into t values (2)")
