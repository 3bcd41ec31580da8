"""Every acknowledged commit is there exactly once, and no client sees an error, however its server dies."""
import pytest

import pg_chaos
import postgres

SEED = "holdfast"


def chaos(kills, **kw):
    with postgres.Rig() as rig:
        c = pg_chaos.Chaos(rig, SEED, **kw)
        c.run(kills)
        return c.books()


def test_books_are_right_without_a_proxy():
    """What the clients of a bare server lose is their connection, never a commit."""
    wrong = [line for line in chaos(4, direct=True) if " errors, as " not in line]
    assert not wrong


def test_books_show_what_was_done_twice():
    """Clients that repeat what was interrupted: the figures of this test are worth something. Whether six deaths meet a commit whose
    answer is under way is chance; that thirty do not is none."""
    assert any("done twice" in line for _ in range(5) for line in chaos(6, direct=True, resend=True))


def test_exactly_once():
    if not postgres.find_program("holdfast-pg"):
        pytest.fail("holdfast-pg is not built")
    assert not chaos(30)
