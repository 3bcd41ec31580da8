#!/usr/bin/python3
"""Cut the power of a home server with clients and watchers, and look after all of them: make sip-chaos."""
import argparse
import random
import re
import sys
import tempfile
import time

from sipcrowd import Crowd
from siplab import DOMAIN, EDGE_PORT, HOSTS, PASSWORD, PORT, PROXY_PORT, TLS_PORT, running
from sipua import tls_context

CALLERS = 16  # a nonce's uses may overtake each other by 31
EDGE_HOST = "delta"  # no home's: an edge's death is its clients' own
KINDS = {0: "edge", 5: "edge", 10: "tcp", 15: "tcp", 19: "tls"}  # of 20 clients; the others have UDP
PINGS = 1.0  # how often who has a connection speaks when something is wrong


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] if values else 0.0


class Town:
    """A lab with so many clients: most by UDP, some behind an edge, some by TCP and TLS (kinds: of 20). The first of those who have no
    connection that may break watch their own registrations."""

    def __init__(self, sip, clients, watchers, rate_to, seed=1, kinds=KINDS):
        self.sip, self.rate_to, self.random = sip, rate_to, random.Random(seed)
        self.names = [f"c{i}" for i in range(clients)]
        self.crowd = Crowd(sip.as_client, sip.address["client"], DOMAIN, PASSWORD)
        self.crowd.context = tls_context(sip.folder / "tls.pem")
        for i, n in enumerate(self.names):
            self.crowd.user(n).kind = kinds.get(i % 20, "udp")
        self.watchers = [n for n in self.names if not self.streams([n])][:watchers]
        self.callers, self.plan = [], None
        self.deadline = 60 + clients / 20

    def streams(self, names, server=None):
        """Those of them who have a connection; to this server"""
        users = [self.crowd.user(n) for n in names if self.crowd.user(n).kind in ("tcp", "tls")]
        return [u.name for u in users if not server or (u.stream and u.stream.server[0] == self.sip.where(server))]

    def at(self, host, port=PROXY_PORT):
        return (self.sip.where(host), port)

    def door(self, user, hosts, port=PROXY_PORT):
        """Where he asks, if it is to be one of these: at the edge, who is behind it"""
        if user.kind == "edge":
            return self.at(EDGE_HOST, EDGE_PORT)
        return self.at(self.random.choice(hosts), TLS_PORT if user.kind == "tls" else port)

    def settle(self):
        """All are registered, each at its home, and watch."""
        callers = [f"caller{i}" for i in range(CALLERS)]
        self.sip.users([*self.names, *callers])
        self.callers = [self.crowd.user(n) for n in callers]
        self.register(self.names, HOSTS)
        self.content(HOSTS, self.deadline)  # who is moved later is told, maybe only when we do not expect it any more
        self.crowd.redial = lambda user: self.door(user, self.up())
        self.crowd.broken = self.come_back
        asked = []

        def watch(user):
            m = yield from self.crowd.watch(user, self.door(user, HOSTS))
            asked.append(m.status if m else None)

        self.crowd.run([watch(self.crowd.user(n)) for n in self.watchers], self.deadline)
        assert set(asked) <= {200, 202}, asked
        self.crowd.loop(lambda: all(self.crowd.user(n).watch.notified for n in self.watchers), self.deadline)
        self.rest()

    def rest(self):
        """Who has more than his share has given it away, and those who were told of that watch again."""
        self.content(HOSTS, self.deadline)
        self.crowd.loop(lambda: not any(u.watch.ended and not u.watch.again for u in map(self.crowd.user, self.watchers)),
                        self.deadline)

    def up(self):
        return [h for h in HOSTS if self.sip.process[h].poll() is None]

    def come_back(self, user):
        """Whose connection broke makes another, to any server, until he is registered again."""
        while True:
            m = yield from self.crowd.register(user, self.door(user, self.up()), wait=4.0)
            if m is not None and m.status == 200:
                break
            yield 0.2
        user.returns, user.back = False, time.time()

    def ping(self, names, done):
        """Those of them who have connections, until all is done"""
        for n in names:
            if self.crowd.user(n).stream:
                self.crowd.user(n).stream.ping()
        if not done():
            self.crowd.at(time.monotonic() + PINGS, lambda: self.ping(names, done))

    def register(self, names, through, port=PORT):
        answers = {}

        def one(user):
            m = yield from self.crowd.register(user, self.door(user, through, port))
            answers[user.name] = m.status if m else None

        self.crowd.run([one(self.crowd.user(n)) for n in names], self.deadline)
        assert set(answers.values()) == {200}, {n: s for n, s in answers.items() if s != 200}

    def reach(self, names, through, calls=False):
        """Each is called until somebody answers: {name: when}"""
        found = {}

        def one(i, user):
            caller = self.callers[i % CALLERS]
            how = self.crowd.call if calls else self.crowd.reach
            while not (yield from how(caller, user, self.at(through[i % len(through)]), 1.0)):
                yield 0.05
            found[user.name] = time.time()

        try:
            self.crowd.run([one(i, self.crowd.user(n)) for i, n in enumerate(names)], self.deadline)
        except AssertionError as e:
            homes, lost = self.homes(), [self.crowd.user(n) for n in names if n not in found]
            raise AssertionError(f"{e}\n" + "".join(f"{u.name}: {u.kind}, home {homes[u.name]}, registered at {u.server}, connection to "
                                                    f"{u.stream and u.stream.server}\n" for u in lost[:20])) from e
        return found

    # --- what the servers say ---

    def homes(self):
        return {n: h for n, h in self.sip.homes().items() if n in self.crowd.users and not n.startswith("caller")}

    def counts(self, hosts):
        serving = [current for _, current, _ in self.homes().values()]
        return {h: serving.count(h) for h in hosts}

    def within(self, hosts):
        """The leader is content: by its reckoning (clients, requests, CPU) none of these is outside the dead zone, or moving; and none
        has more clients than its share and the zone, as nobody has much to do."""
        text = self.sip.ask(self.sip.leader(), "plan")["text"]
        self.plan = text
        zone = int(re.search(r"dead zone (\d+)", text)[1])
        shares = {m[1]: int(m[2]) for m in re.finditer(r"(?m)^(\S+) .* (\d+) %", text)}
        counts = self.counts(HOSTS)
        share = len(self.names) / len(hosts)
        few = all(abs(counts[h] - share) <= 2 for h in hosts)
        near = all(abs(shares[h] - 100) <= zone and counts[h] <= share * (100 + zone) / 100 + 2 for h in hosts)
        return text.startswith("balance: at rest") and sum(counts[h] for h in hosts) == len(self.names) and (few or near)

    def content(self, hosts, deadline):
        try:
            self.sip.until(lambda: self.within(hosts), f"{hosts} have their shares", deadline)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.plan}") from e

    def lines(self, pattern, hosts):
        """(time, match) of log lines"""
        found = []
        for h in hosts:
            for line in self.sip.lab.get(h, f"/var/log/{h}.log").splitlines():
                if m := re.search(pattern, line):
                    found.append((time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) + float("0" + line[19:23]), m))
        return found

    def steps(self, to, since):
        """(time, how many clients it gave to this server) of each step of the leader's that gave it any"""
        found = []
        for h in HOSTS:
            n = 0
            for t, m in self.lines(r"leader: (\d+) clients (?:of \S+ to (\S+):|moved)", [h]):
                if m[2]:
                    n += int(m[1]) if m[2] == to else 0
                    continue
                if n and t >= since:
                    found.append((t, n))
                n = 0
        return sorted(found)

    # --- what happens ---

    def power_off(self, victim):
        """Returns figures; raises if anything was lost. found: who is called last has waited for all the calls before, too; tenth: of
        those who are called first, drawn by lot."""
        others = [h for h in HOSTS if h != victim]
        before = self.homes()
        lost = [n for n, (_, current, _) in before.items() if current == victim]
        watching = [self.crowd.user(n) for n in self.watchers if n in set(lost)]
        for n in self.watchers:
            w = self.crowd.user(n).watch
            w.ended = w.again = None
            w.repeats = 0
        streams = self.streams(self.names, victim)  # others' clients may have theirs there, too, and the victim's elsewhere
        steady = [n for n in lost if n not in set(streams)]
        self.random.shuffle(steady)
        at = time.time()
        for n in streams:
            self.crowd.user(n).back = None
        self.crowd.stream_socket().close()  # there are some
        self.sip.power_off(victim)
        self.ping(streams, lambda: all(self.crowd.user(n).back for n in streams))
        found = self.reach(steady, others)
        self.crowd.loop(lambda: all(u.watch.again for u in watching), self.deadline)
        self.crowd.loop(lambda: all(self.crowd.user(n).back for n in streams), self.deadline)
        broken = {n: self.crowd.user(n).back for n in streams}
        self.reach(streams, others)
        after = self.homes()
        moved = {n: (before[n], after[n]) for n in before if n not in set(lost) and after[n] != before[n]}
        assert not moved, f"{moved}\n{self.sip.story()}"
        assert set(after) == set(before)
        strange = {n: (before[n], after[n]) for n in lost if after[n] != (before[n][0], after[n][1], before[n][2] + 1)}
        assert not strange, f"{strange}\n{self.sip.story()}"
        by_group = [t for t, _ in self.lines(rf"server {victim} is gone: the group has lost its host", others) if t >= at - 1]
        assert len(by_group) == len(others), self.sip.story()
        detected = min(by_group)
        assert all("deactivated" in u.watch.ended[1] for u in watching)
        others_told = [n for n in self.watchers if n not in set(lost) and self.crowd.user(n).watch.ended]
        assert not others_told, others_told
        self.content(others, 60)
        done = max(t for t, _ in self.lines(rf"leader: \d+ clients of {victim} to", others) if t >= at - 1)
        return {"victim": victim, "clients": len(lost), "detected": detected - at, "moved": done - detected,
                "found_p50": percentile([t - detected for t in found.values()], 50),
                "found_p99": percentile([t - detected for t in found.values()], 99),
                "tenth_p99": percentile([found[n] - detected for n in steady[:len(steady) // 10 + 1]], 99),
                "edge_p99": percentile([t - detected for n, t in found.items() if self.crowd.user(n).kind == "edge"], 99),
                "flows_broken": len(streams), "flows_back_p99": percentile([t - detected for t in broken.values()], 99),
                "watchers": len(watching), "notified_last": max([u.watch.ended[0] - detected for u in watching], default=0.0),
                "again_last": max([u.watch.again - detected for u in watching], default=0.0),
                "repeats": sum(u.watch.repeats for u in watching), "counts": self.counts(others)}

    def back(self, victim):
        """It is booted: it gets its clients again, not all at once."""
        at = time.time()
        self.sip.boot(victim)
        self.sip.switch(victim, victim)
        self.content(HOSTS, self.deadline)
        steps = self.steps(victim, at)
        moved = sum(n for _, n in steps)
        # the rate allows so many since the step before, and that one began after what the log (to 1 ms) has of the one before it
        since = [at, at, *(t for t, _ in steps)]
        assert steps and all(n <= self.rate_to * (t + 0.001 - s) + 1 for (t, n), s in zip(steps, since)), steps
        return {"back": time.time() - at, "moved": moved, "steps": len(steps), "counts": self.counts(HOSTS)}


def rebalance(rate_to, patience, zone=10):
    """Servers tell their figures every 5 s: patience is longer."""
    return f"patience = {patience}s\n settle = {patience}s\n rate_to = {rate_to}\n dead_zone = {zone}\n target_zone = {zone * 7 // 10}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--clients", type=int, default=10000)
    p.add_argument("--watchers", type=int, default=1000)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="sip-chaos-", dir="/tmp") as folder, \
            running("sipchaos", folder, rebalance(200, 10), EDGE_HOST, services=True) as sip:
        town = Town(sip, a.clients, a.watchers, 200, a.seed)
        sip.ends.callback(town.crowd.close)
        town.settle()
        print(f"{a.clients} clients, {a.watchers} watchers: {town.counts(HOSTS)}", flush=True)
        for i in range(a.rounds):
            leader = sip.leader()
            victim = leader if i % 2 else next(h for h in HOSTS if h != leader)
            print(f"{i + 1}: {'leader' if victim == leader else 'no leader'}", town.power_off(victim), flush=True)
            print(f"{i + 1}:", town.back(victim), flush=True)
            town.register(town.names, HOSTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
