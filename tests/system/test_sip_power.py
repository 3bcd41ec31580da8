"""The power of a home server goes: its clients are called again, its watchers told, nobody else is moved; then it comes back."""
import pytest
from sip_chaos import EDGE_HOST, Town, rebalance
from siplab import HOSTS, running

CLIENTS, WATCHERS, RATE_TO = 200, 20, 5


@pytest.fixture(name="town", scope="module")
def fixture_town(tmp_path_factory):
    with running("sippower", tmp_path_factory.mktemp("sip"), rebalance(RATE_TO, 6), EDGE_HOST, services=True) as s:
        t = Town(s, CLIENTS, WATCHERS, RATE_TO)
        s.ends.callback(t.crowd.close)
        t.settle()
        yield t


def test_power_off(town):
    """Of the server that leads, too"""
    victim = town.sip.leader()
    print(town.power_off(victim))
    others = [h for h in HOSTS if h != victim]
    town.reach([n for n in town.names if town.crowd.user(n).kind == "udp"], others, calls=True)
    town.reach(town.names, others)
    town.register([n for n, (home, _, _) in town.homes().items() if home == victim], others)
    print(town.back(victim))
    town.register(town.names, HOSTS)
    town.reach(town.names, HOSTS)
