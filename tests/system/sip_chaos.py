#!/usr/bin/python3
"""Cut the power of a home server with clients and watchers, and look after all of them: make sip-chaos."""
import argparse
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time

from sipcrowd import Crowd
from siplab import DOMAIN, HOSTS, PASSWORD, PROXY_PORT, SipLab

CALLERS = 16  # a nonce's uses may overtake each other by 31


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] if values else 0.0


class Town:
    """A lab with so many clients, the first of whom watch their own registrations."""

    def __init__(self, sip, clients, watchers, rate_to, seed=1):
        self.sip, self.rate_to, self.random = sip, rate_to, random.Random(seed)
        self.names = [f"c{i}" for i in range(clients)]
        self.watchers = self.names[:watchers]
        self.crowd = sip.as_client(lambda: Crowd(sip.address["client"], DOMAIN, PASSWORD))
        self.callers, self.plan = [], None
        self.deadline = 60 + clients / 20

    def at(self, host, port=PROXY_PORT):
        return (self.sip.address[host], port)

    def settle(self):
        """All are registered, each at its home, and watch."""
        callers = [f"caller{i}" for i in range(CALLERS)]
        self.sip.users([*self.names, *callers])
        self.callers = [self.crowd.user(n) for n in callers]
        self.register(self.names, HOSTS)
        self.crowd.redial = lambda user: self.at(self.random.choice(self.up()))
        asked = []

        def watch(user):
            m = yield from self.crowd.watch(user, self.at(self.random.choice(HOSTS)))
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

    def register(self, names, through, port=5060):
        answers = {}

        def one(user):
            m = yield from self.crowd.register(user, self.at(self.random.choice(through), port))
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

        self.crowd.run([one(i, self.crowd.user(n)) for i, n in enumerate(names)], self.deadline)
        return found

    # --- what the servers say ---

    def homes(self):
        return {n: h for n, h in self.sip.homes().items() if n in self.crowd.users and not n.startswith("caller")}

    def counts(self, hosts):
        serving = [current for _, current, _ in self.homes().values()]
        return {h: serving.count(h) for h in hosts}

    def within(self, hosts):
        """The leader is content: by its reckoning (clients, requests, CPU) none of these is outside the dead zone, or moving."""
        text = self.sip.ask(self.sip.leader(), "plan")["text"]
        self.plan = text
        zone = int(re.search(r"dead zone (\d+)", text)[1])
        shares = {m[1]: int(m[2]) for m in re.finditer(r"(?m)^(\S+) .* (\d+) %", text)}
        counts = self.counts(HOSTS)
        few = all(abs(counts[h] - len(self.names) / len(hosts)) <= 2 for h in hosts)
        return (text.startswith("balance: at rest") and sum(counts[h] for h in hosts) == len(self.names)
                and (few or all(abs(shares[h] - 100) <= zone for h in hosts)))

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

    # --- what happens ---

    def power_off(self, victim):
        """Returns figures; raises if anything was lost."""
        others = [h for h in HOSTS if h != victim]
        before = self.homes()
        lost = [n for n, (_, current, _) in before.items() if current == victim]
        watching = [self.crowd.user(n) for n in self.watchers if n in set(lost)]
        for n in self.watchers:
            w = self.crowd.user(n).watch
            w.ended = w.again = None
            w.repeats = 0
        at = time.time()
        self.sip.power_off(victim)
        found = self.reach(lost, others)
        self.crowd.loop(lambda: all(u.watch.again for u in watching), self.deadline)
        after = self.homes()
        moved = {n: (before[n], after[n]) for n in before if n not in found and after[n] != before[n]}
        assert not moved, f"{moved}\n{self.sip.story()}"
        assert set(after) == set(before)
        strange = {n: (before[n], after[n]) for n in lost if after[n] != (before[n][0], after[n][1], before[n][2] + 1)}
        assert not strange, f"{strange}\n{self.sip.story()}"
        detected = min(t for t, _ in self.lines(rf"server {victim} is gone", others) if t >= at - 1)
        assert all("deactivated" in u.watch.ended[1] for u in watching)
        others_told = [n for n in self.watchers if n not in found and self.crowd.user(n).watch.ended]
        assert not others_told, others_told
        self.content(others, 60)
        return {"victim": victim, "clients": len(lost), "detected": detected - at,
                "found_p50": percentile([t - detected for t in found.values()], 50),
                "found_p99": percentile([t - detected for t in found.values()], 99),
                "watchers": len(watching), "notified_last": max([u.watch.ended[0] - detected for u in watching], default=0.0),
                "again_last": max([u.watch.again - detected for u in watching], default=0.0),
                "repeats": sum(u.watch.repeats for u in watching), "counts": self.counts(others)}

    def back(self, victim):
        """It is booted: it gets its clients again, not all at once."""
        at = time.time()
        self.sip.boot(victim)
        self.content(HOSTS, self.deadline)
        moves = [(t, int(m[1])) for t, m in self.lines(rf"leader: (\d+) clients of \S+ to {victim}:", HOSTS) if t >= at]
        steps = {}
        for t, n in moves:
            steps[round(t, 1)] = steps.get(round(t, 1), 0) + n
        # a leader that had nothing to move for a while may catch up 10 s of its rate (rebalance.c)
        assert steps and max(steps.values()) <= 10 * self.rate_to, steps
        return {"back": time.time() - at, "moved": sum(n for _, n in moves), "steps": len(steps), "counts": self.counts(HOSTS)}


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
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sip-chaos-", dir="/var/tmp"))
    sip = SipLab(f"sipchaos-{os.getpid()}", folder, rebalance(200, 10))
    try:
        sip.start()
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
    finally:
        sip.end()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
