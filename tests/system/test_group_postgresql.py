"""The main job with real PostgreSQL: alpha and beta share copy1, gamma and delta copy2, epsilon is the
witness. A client counts acknowledged commits all the time: none of them is ever missing. The tests
follow each other as the acts of one story."""
import subprocess
import threading

import pytest

from lab import ROOT

HOSTS = ("alpha", "beta", "gamma", "delta", "epsilon")
COPIES = {"copy1": ("alpha", "beta"), "copy2": ("gamma", "delta")}
DEADLINE = 60.0
BOOT_WAIT = 8  # seconds
TEMPLATE = f"""
cluster {{ key_file = "/etc/holdfast/cluster.key" }}
host {{ name = "@NAME@"  address = @ADDRESS@ }}
directory {{ interface = "eth0" }}
engine {{ type = @ENGINE@ }}
group {{ boot_wait = {BOOT_WAIT}s }}
http {{ listen = "0.0.0.0:7481" }}
fence power {{ agent = "fence_holdfast_lab"  hosts = {{ "*" }} timeout = 10s }}
log {{ trace = {{ proc }} }}
"""


class Writer:
    """Inserts increasing numbers, whoever is primary, and remembers those that were acknowledged."""

    def __init__(self, orders):
        self.orders = orders
        self.n = 0
        self.acked = []
        self.stopping = False
        self.psql = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopping:
            for host in sorted(self.orders.on - {"epsilon"}):
                self.write(host)

    def write(self, host):
        """Until it fails: what is not answered with just its number is in doubt, and not counted."""
        self.psql = self.orders.psql_popen(host)
        try:
            while not self.stopping:
                self.n += 1
                self.psql.stdin.write(f"insert into t values ({self.n}) returning i;\n")
                self.psql.stdin.flush()
                if self.psql.stdout.readline() != f"{self.n}\n":
                    break
                self.acked.append(self.n)
        except OSError:
            pass
        finally:
            self.psql.kill()
            self.psql.communicate()

    def progress(self, rows=10):
        want = len(self.acked) + rows
        self.orders.until(lambda: len(self.acked) >= want, f"{rows} commits more")

    def stop(self):
        self.stopping = True
        self.psql.kill()
        self.thread.join()


class Orders:
    """The group orders, as its operator sees it."""

    def __init__(self, lab):
        self.lab = lab
        self.on = set(HOSTS)

    def show(self, host=None):
        """As a host sees it that takes part; before that it has only its record."""
        g = self.lab.json(host or max(self.on), "group", "show", "orders")[0]
        if g["standing"] != "in" or not g["quorate"]:
            raise ValueError(f"{g['host']} is {g['standing']}, quorate: {g['quorate']}")
        return g

    def until(self, condition, what, deadline=DEADLINE):
        try:
            self.lab.until(condition, what, deadline)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.story()}") from e

    def story(self):
        host = max(self.on, default=None)
        if not host:
            return "all hosts are off"
        run = self.lab.run
        return "\n".join(run("exec", host, "--", "holdfast", "group", *words, "orders", check=False).stdout
                         for words in (("show",), ("history",)))

    def until_primary(self, copy, hosts=HOSTS, in_sync=None):
        """Until that copy runs on one of these hosts, and S is as given."""

        def there():
            g = self.show()
            return (g["phase"] == "running" and g["primary"]["resource"] == copy
                    and g["primary"]["host"] in hosts and in_sync in (None, set(g["in_sync"]))
                    and (in_sync is None or in_sync == {copy} or self.mirrors(g)))

        self.until(there, f"{copy} is primary on {hosts}, in sync: {in_sync}")
        return self.shown()["primary"]["host"]

    def shown(self):
        """What show() says, once no view is under way: a host may be booting yet."""
        seen = []

        def there():
            seen.append(self.show())
            return True

        self.until(there, "a host that takes part")
        return seen[-1]

    @staticmethod
    def mirrors(g):
        return all(r["mirror"] == "in-sync" for r in g["resources"] if r["kind"] == "copy")

    def history(self, host):
        return self.lab.exec(host, "holdfast", "group", "history", "orders")

    # --- power ---

    def power_off(self, *hosts):
        self.on -= set(hosts)
        self.all_at_once("power-off", hosts)

    def boot(self, *hosts):
        self.all_at_once("boot", hosts)
        self.on |= set(hosts)

    def all_at_once(self, command, hosts):
        failed = []

        def one(host):
            try:
                self.lab.run(command, host)
            except Exception as e:  # pylint: disable=broad-except
                failed.append(e)

        threads = [threading.Thread(target=one, args=(h,)) for h in hosts]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not failed, failed

    # --- the database ---

    def conninfo(self, host):
        return (f"host={self.lab.address(host)} user=postgres dbname=postgres connect_timeout=2 "
                "tcp_user_timeout=3000 keepalives_idle=1 keepalives_interval=1 keepalives_count=2")

    def psql_popen(self, host):
        try:
            to = self.conninfo(host)
        except Exception:  # pylint: disable=broad-except
            to = "host=/nowhere"  # it was switched off just now
        return self.lab.popen("client", "psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", to,
                              stdin=subprocess.PIPE)

    def psql(self, sql):
        host = self.show()["primary"]["host"]
        return self.lab.exec("client", "psql", "-XqAtw", "-v", "ON_ERROR_STOP=1", "-c", sql,
                             self.conninfo(host))

    def nothing_lost(self, writer):
        """After a step: it goes on, and what was acknowledged before is there."""
        writer.progress()
        acked = list(writer.acked)
        have = {int(i) for i in self.psql("select i from t").split()}
        missing = sorted(set(acked) - have)
        assert not missing, f"{len(missing)} of {len(acked)} are missing: {missing[:10]}\n{self.story()}"

    def postmaster(self, copy, host):
        return self.lab.get(host, f"/srv/{copy}/data/postmaster.pid").split("\n", 1)[0]


@pytest.fixture(scope="module", name="orders")
def fixture_orders(new_lab, tmp_path_factory):
    template = tmp_path_factory.mktemp("lab") / "holdfast.conf"
    template.write_text(TEMPLATE)
    lab = new_lab("-n", str(len(HOSTS)), "--engine", "corosync", "--token", "300",
                  "--config", str(template),
                  *(w for c, hosts in COPIES.items() for w in ("--shared", f"{','.join(hosts)}:/srv/{c}")))
    for copy, hosts in COPIES.items():
        lab.exec(hosts[0], "chown", "postgres:", f"/srv/{copy}")
        lab.put(hosts[0], f"/srv/{copy}/.holdfast-marker", f"orders-{copy[-1]}\n")
    lab.put("alpha", "/etc/holdfast/orders.conf", (ROOT / "tests/system/orders.conf").read_text())
    lab.exec("alpha", "holdfast", "group", "create", "orders", "/etc/holdfast/orders.conf")
    orders = Orders(lab)
    orders.until(lambda: orders.show("alpha")["phase"] == "running", "alpha is primary")
    for host in HOSTS[1:]:
        lab.exec(host, "holdfast", "-t", "30", "group", "join", "orders")
    orders.until_primary("copy1", ("alpha",), {"copy1", "copy2"})
    orders.psql("create table t(i bigint primary key)")
    return orders


@pytest.fixture(scope="module", name="writer")
def fixture_writer(orders):
    w = Writer(orders)
    yield w
    w.stop()


def test_a_peer_takes_the_copy_over(orders, writer):
    """Nothing is copied: the mirror follows the same data at its new host."""
    writer.progress()
    mirror = orders.postmaster("copy2", "gamma")
    orders.power_off("alpha")
    orders.until_primary("copy1", ("beta",), {"copy1", "copy2"})
    assert orders.postmaster("copy2", "gamma") == mirror  # neither base backup nor rewind
    assert "out of sync" not in orders.history("epsilon")
    orders.nothing_lost(writer)


def test_the_other_side_takes_over(orders, writer):
    orders.power_off("beta")
    orders.until_primary("copy2", ("gamma",), {"copy2"})
    orders.nothing_lost(writer)


def test_hosts_come_back_as_mirror(orders, writer):
    orders.boot("alpha", "beta")
    orders.until_primary("copy2", ("gamma",), {"copy1", "copy2"})
    orders.nothing_lost(writer)


def test_a_damaged_copy_is_left(orders, writer):
    """Its host is healthy: a restart in place is tried, then the other copy."""
    pid = orders.postmaster("copy2", "gamma")
    orders.lab.exec("gamma", "rm", "-r", "/srv/copy2/data/global")
    orders.lab.exec("gamma", "kill", "-KILL", pid)
    orders.until_primary("copy1")
    orders.nothing_lost(writer)
    orders.until_primary("copy1", in_sync={"copy1", "copy2"})  # made anew


def test_the_way_back(orders, writer):
    orders.lab.exec(orders.shown()["primary"]["host"], "holdfast", "group", "switch", "orders", "--to", "copy2")
    orders.until_primary("copy2", in_sync={"copy1", "copy2"})
    orders.nothing_lost(writer)
    orders.lab.exec("epsilon", "holdfast", "group", "switch", "orders", "--to", "alpha")
    orders.until_primary("copy1", ("alpha",), {"copy1", "copy2"})
    orders.nothing_lost(writer)


@pytest.mark.parametrize("order", [
    (("beta", "gamma", "delta", "epsilon"), ("alpha",)),  # former primary last
    (("alpha",), ("beta", "gamma", "delta", "epsilon")),
    (("gamma", "epsilon"), ("alpha",), ("delta",), ("beta",)),
], ids=("primary-last", "primary-first", "mixed"))
def test_cold_start(orders, writer, order):
    """All power goes at once; whatever comes back first, the former primary goes on (G5)."""
    orders.until_primary("copy1", ("alpha",), {"copy1", "copy2"})
    epoch = orders.shown()["epoch"]
    orders.power_off(*HOSTS)
    for hosts in order:
        orders.boot(*hosts)
    orders.until_primary("copy1", ("alpha",), {"copy1", "copy2"})
    assert orders.shown()["epoch"] > epoch
    orders.nothing_lost(writer)


def test_a_stale_copy_is_never_promoted(orders, writer):
    """Nobody who has the newest data is there: no primary, until somebody comes."""
    orders.until_primary("copy1", ("alpha",), {"copy1", "copy2"})
    orders.power_off("gamma", "delta")
    orders.until_primary("copy1", ("alpha",), {"copy1"})
    orders.nothing_lost(writer)
    orders.power_off("alpha", "beta", "epsilon")
    orders.boot("gamma", "delta", "epsilon")
    orders.until(lambda: "the newest data is in copy1" in orders.show()["why"], "the boot wait is over")
    g = orders.shown()
    assert g["phase"] == "none" and g["in_sync"] == ["copy1"]
    orders.boot("beta")
    orders.until_primary("copy1", ("beta",), {"copy1", "copy2"})
    orders.nothing_lost(writer)


def test_the_former_primary_never_boots(orders, writer):
    """After the boot wait it is fenced, and another member of the in-sync set goes on."""
    orders.boot("alpha")
    orders.until_primary("copy1", ("beta",), {"copy1", "copy2"})
    orders.power_off(*HOSTS)
    orders.boot("gamma", "delta", "epsilon")
    orders.until_primary("copy2", in_sync={"copy2"})
    assert "has fenced beta" in orders.history("epsilon")
    orders.nothing_lost(writer)
