"""What make chaos stands on: its schedule comes from the seed alone, and its look at the agents' logs finds two primaries."""
import chaos
import pytest
from chaos import Event, reigns

ALIVE = [n / 50 for n in range(5000)]  # s 0 to 100
BOOTED = [[t for t in ALIVE if t < 30], [t for t in ALIVE if t > 30.5]]


def log(*lines):
    return [f"{t} {what} orders {action}" for t, what, action in lines]


def test_a_seed_repeats_its_schedule():
    events = [str(Event("7", n)) for n in range(1, 200)]
    assert events == [str(Event("7", n)) for n in range(1, 200)]
    assert events != [str(Event("8", n)) for n in range(1, 200)]
    drawn = {f.name for n in range(1, 1000) for f in Event("7", n).faults}
    assert drawn == {"power", "no-fencing", "freeze", "cable", "cluster", "others", "pause", "flap", "pair", "drop", "kill", "stop", "disk",
                     "clock", "reload", "switch", "drain", "maintenance"}
    for name in drawn:
        assert callable(getattr(chaos.System, chaos.System.METHODS.get(name, name)))


@pytest.mark.parametrize("lines, boots, spans", [
    ([(1, "begin", "promote"), (2, "end", "promote 0"), (5, "begin", "demote"), (6, "end", "demote 0")], [ALIVE], [(1, 5)]),
    ([(1, "begin", "promote"), (2, "end", "promote 1")], [ALIVE], [(1, 2)]),
    ([(1, "begin", "promote"), (2, "end", "promote 0")], [[t for t in ALIVE if t < 30 or t > 50]], [(1, 29.98)]),
    ([(1, "begin", "prepare-promote"), (2, "end", "prepare-promote 0"), (9, "begin", "stop")], [ALIVE], [(2, 9)]),
    ([(1, "begin", "promote"), (3, "begin", "prepare-demote"), (4, "end", "prepare-demote 0"), (5, "end", "monitor 8"),
      (7, "end", "monitor 7")], [ALIVE], [(1, 3), (5, 7)]),
    ([(1, "begin", "promote"), (60, "begin", "promote")], [[t for t in ALIVE if t < 30 or t > 50]], [(1, 29.98), (60, ALIVE[-1])]),
    ([(1, "begin", "promote"), (31, "end", "monitor 7")], BOOTED, [(1, 29.98)]),
    ([(1, "begin", "promote"), (31, "begin", "promote"), (32, "begin", "stop")], BOOTED, [(1, 29.98), (31, 32)]),
    ([(1, "begin", "monitor"), (2, "end", "monitor 0")], [ALIVE], []),
])
def test_when_a_host_was_primary(lines, boots, spans):
    assert reigns(log(*lines), boots).get("orders", []) == spans
