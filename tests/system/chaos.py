#!/usr/bin/python3
"""make chaos: the whole system in the lab, while everything happens to it that may happen; afterwards, the books.

Three hosts on Corosync: a PostgreSQL group with a synchronous standby, a service address with holdfast-pg, three SIP servers whose table
is in that database at that address; a client host with database clients of all kinds, and phones that are called and watch themselves.
What happens comes from the seed alone, event by event, to hosts by what they are at that moment; two things at once where they are to be
survived. From all is well to all is well: who is off is booted, and only then comes the next event."""
import argparse
import collections
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pgwire
import sip_chaos
import takeover
import takeover_chaos
from lab import ROOT, STATE, Failed, Lab
from siplab import DOMAIN, PORT, PROXY_PORT, SipLab
from sipserver import find
from takeover import COPIES, DATABASE, HOSTS, SERVICE
from takeover_chaos import KINDS, Node, Pgbench

TOKEN = 1000  # ms; much else runs on this machine's cores
WHOLE = 180.0  # s
DEADLINE = 45.0  # s, until every client and every phone has gone on
PHONES, WATCHERS, CALLERS = 60, 12, 3
PHONE_KINDS = {3: "tcp", 8: "tcp", 13: "tls"}  # of 20
PAUSE = 0.03  # s, of a database client: others are to have CPU time, too
DISK_FULL = re.compile("No space left on device|Check free disk space")  # in 53100
COPY_MIB, STATE_MIB = 768, 8
DAEMONS = ("holdfastd", "holdfast-pg", "holdfast-sip", "corosync")
THEIRS = "tcp established"
AGENTS = "/usr/lib/ocf/resource.d/holdfast"
AGENTS_LOG, ALIVE_LOG = "/var/log/agents", "/var/log/alive"
ALIVE_GAP = 1.0  # s without a word: it was off, or stood still

# systemd: SIP server, holdfast-pg; and who says all the time that this host is alive
SUPERVISE = f"""
mkdir -p /run/holdfast-pg /run/holdfast-sip
while :; do [ ! -e /etc/holdfast/$(hostname).conf ] || {{sip}} -c /etc/holdfast/$(hostname).conf; sleep 0.2
done >>/var/log/$(hostname).log 2>&1 &
mkfifo /run/tick
bash -c 'exec 9<>/run/tick; echo boot; while read -r up _ </proc/uptime; do echo "$up"; read -rt 0.02 -u 9; done' >>{ALIVE_LOG} &
{takeover.SUPERVISE}"""
# stands before each agent and says what it is asked and how that ends, by a clock that all hosts have and nobody steps
AGENT = f"""#!/bin/sh
note() {{
    read -r up _ </proc/uptime
    echo "$up $1 ${{HOLDFAST_GROUP:--}} $2" >>{AGENTS_LOG}
}}
note begin "$1"
setpriv --pdeathsig KILL -- "$0.real" "$@"
rc=$?
note end "$1 $rc"
exit $rc
"""


# --- what happens, from the seed -------------------------------------------------------------------

class Fault:
    """One thing that happens. role: to whom; value: in what way; seconds: then it is undone, unless the host is gone by then."""

    def __init__(self, name, role, value=None, seconds=0.0):
        self.name, self.role, self.value, self.seconds = name, role, value, seconds

    def __str__(self):
        value = " ".join(map(str, self.value)) if isinstance(self.value, tuple) else self.value
        return f"{self.name}{'' if value is None else f' {value}'} {self.role}" + (f" {self.seconds:.2f}s" if self.seconds else "")


LOSSES = ("power", "power", "power", "no-fencing", "freeze", "cable", "cluster", "others")  # a host is gone
ANY = ("serving", "backup", "spare", "primary", "mirror", "leader")
OTHERS = ("other1", "other2")  # those to whom the first thing does not happen
PROGRAMS = {"holdfastd": ANY, "holdfast-pg": ("serving", "serving", "backup", "spare"), "postgres": ("primary", "primary", "mirror"),
            "backend": ("primary",), "holdfast-sip": ANY, "corosync": ANY}
RELOADED = ("holdfastd", "holdfast-pg", "holdfast-sip", "postgres")


def draw_loss(r, roles=("serving", "serving", "primary", "backup", "mirror", "spare", "leader")):
    name, seconds = r.choice(LOSSES), r.uniform(1.5, 5)
    return Fault(name, r.choice(roles), None, 0.0 if name == "power" else seconds)


def draw_kill(r, roles=None, programs=tuple(PROGRAMS)):
    program = r.choice(programs)
    return Fault("kill", r.choice(roles or PROGRAMS[program]), program)


def draw_stop(r):
    program = r.choice(("holdfastd", "holdfast-pg", "holdfast-sip", "postgres"))
    return Fault("stop", r.choice(PROGRAMS[program]), program, r.uniform(0.2, 4))


def draw_drop(r, roles=ANY):
    return Fault("drop", r.choice(roles), r.randint(3, 15), r.uniform(2, 6))


def draw_clock(r, roles=ANY):
    return Fault("clock", r.choice(roles), round(r.choice((-1, 1)) * 10 ** r.uniform(-0.5, 2.7), 1))


def draw_disk(r):
    if r.random() < 0.6:
        return Fault("disk", r.choice(("primary", "mirror")), "copy", r.uniform(2, 6))
    return Fault("disk", r.choice(ANY), "state", r.uniform(2, 6))


def draw_reload(r, roles=ANY):
    return Fault("reload", r.choice(roles), r.choice(RELOADED))


def draw_switch(r, what=("service", "service", "database", "database", "sip")):
    what = r.choice(what)
    if what == "sip":
        return Fault("switch", r.choice(HOSTS), ("sip", r.choice(HOSTS)))
    return Fault("switch", "serving" if what == "service" else "primary", (what,))


DRAWN = (
    (6, draw_loss),
    (2, lambda r: Fault("pause", r.choice(ANY), None, r.uniform(0.05, 1.2))),
    (1, lambda r: Fault("flap", r.choice(ANY), None, r.uniform(0.05, 1.5))),
    (2, lambda r: Fault("pair", "serving", None, r.uniform(1, 6))),
    (2, draw_drop),
    (6, draw_kill),
    (2, draw_stop),
    (2, draw_disk),
    (2, draw_clock),
    (2, draw_reload),
    (4, draw_switch),
    (1, lambda r: Fault("drain", r.choice(ANY), None, r.uniform(2, 8))),
    (1, lambda r: Fault("maintenance", r.choice(ANY))),
)
# beside the loss of a host: what must not cost more than that
BESIDE_LOSS = (
    lambda r: draw_kill(r, OTHERS, ("holdfastd",)),
    lambda r: draw_kill(r, OTHERS, ("holdfast-sip",)),
    lambda r: draw_kill(r, ("spare",), ("holdfast-pg",)),
    lambda r: draw_kill(r, OTHERS, ("postgres",)),  # a copy's data are safe on its disk
    lambda r: draw_drop(r, OTHERS),
    lambda r: draw_clock(r, OTHERS),
    lambda r: draw_reload(r, OTHERS),
    lambda r: draw_switch(r, ("sip",)),
)
# beside what is planned: one fault
BESIDE_PLANNED = (
    draw_loss,
    lambda r: draw_kill(r, None, ("holdfast-pg", "holdfastd", "postgres", "holdfast-sip")),
    lambda r: Fault("pair", "serving", None, r.uniform(0.5, 3)),
    draw_drop,
)
# beside what costs no host
BESIDE_SMALL = (draw_clock, draw_reload, lambda r: draw_kill(r, None, ("holdfast-sip",)), draw_switch)


class Event:
    """Number n of this seed: up to two faults, so many seconds apart, after a pause."""

    def __init__(self, seed, n):
        r = random.Random(f"{seed}/{n}")
        self.n, self.pause = n, r.uniform(0, 1.5)
        self.gap = r.choice((0.0, r.uniform(0, 0.2), r.uniform(0, 2)))
        draw = r.choices([d for _, d in DRAWN], [w for w, _ in DRAWN])[0]
        self.faults = [draw(r)]
        name = self.faults[0].name
        beside = (BESIDE_LOSS if name in LOSSES else BESIDE_PLANNED if name == "switch" else
                  BESIDE_SMALL if name in ("kill", "stop", "drop", "pair", "disk") else ())
        if beside and r.random() < 0.4:
            self.faults.append(r.choice(beside)(r))

    def __str__(self):
        return f"{self.n:3} after {self.pause:.2f}s {f' and {self.gap:.2f}s later '.join(map(str, self.faults))}"

    def name(self):
        """For the table"""
        return " + ".join(" ".join([f.name, *([f.value] if f.name == "kill" else f.value[:1] if f.name == "switch" else ())])
                          for f in self.faults)


# --- the hosts -------------------------------------------------------------------------------------

class Whole(takeover.Rig):
    """The rig of take-overs with SIP servers, disks that can be full, and a clock for each host."""

    token = TOKEN
    # the disks are small
    database_configuration = "max_wal_size = 64MB\nmin_wal_size = 32MB\n"

    def __init__(self, lab, folder):
        super().__init__(lab, tls=True)
        self.folder, self.sip = folder, None
        self.supervise = SUPERVISE.replace("{sip}", find())

    def disks(self):
        return [*(f"{h}:/srv/{c}:{COPY_MIB}" for h, c in COPIES.items()), *(f"{h}:/var/lib/holdfast:{STATE_MIB}" for h in HOSTS)]

    def disk(self, host, what):
        """copy or state: where the machine has it"""
        at = [d.split(":")[:2] for d in self.disks()]
        wanted = [host, f"/srv/{COPIES.get(host)}" if what == "copy" else "/var/lib/holdfast"]
        return STATE / self.lab.name / "shared" / str(at.index(wanted) + 1)

    def prepare(self):
        for host in HOSTS:
            for agent in ("postgresql", "pg", "address"):
                self.lab.exec(host, "mv", f"{AGENTS}/{agent}", f"{AGENTS}/{agent}.real")
                self.lab.put(host, f"{AGENTS}/{agent}", AGENT)
                self.lab.exec(host, "chmod", "755", f"{AGENTS}/{agent}")
        self.give_clocks()
        for host in HOSTS:  # its daemons have this clock from the start
            self.lab.run("power-off", host)
            self.lab.run("boot", host)

    def repair(self):
        super().repair()
        running = {(host, name) for host, _, name, state in self.processes() if state != "Z"}
        for host in HOSTS:
            if not {(host, "corosync"), (host, "holdfastd")} <= running:
                self.lab.run("start", host)  # holdfastd only if nobody else starts it again

    def is_whole(self):
        return super().is_whole() and (not self.sip or self.sip.is_whole())

    def processes(self):
        """[(host, pid, program, state)] of all hosts"""
        spaces = {os.readlink(f"/proc/{pid}/ns/pid"): h for h in HOSTS if (pid := self.init(h))}
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if host := spaces.get(os.readlink(f"/proc/{pid}/ns/pid")):
                    name, _, rest = pathlib.Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
                    found.append((host, int(pid), name, rest.split()[0]))
        return found

    def story(self, lines=25):
        return super().story(lines) + "\n" + (self.sip.story() if self.sip else "")


class Sip(SipLab):
    """SIP servers on the rig's hosts, with the rig's database; its hosts start them."""

    def __init__(self, rig, folder):
        super().__init__(rig.lab.name, folder, sip_chaos.rebalance(10, 6, 30), None, services=True)
        self.lab, self.rig = rig.lab, rig

    def conninfo(self):
        return f"host={self.rig.address} port={takeover.PORT} user=postgres dbname=postgres"

    def sql(self, text):
        with self.rig.connect() as c:
            return "\n".join("|".join(map(str, row)) for row in c.rows(text))

    def start_server(self, name):
        self.until(lambda: "serves with" in self.lab.get(name, f"/var/log/{name}.log"), f"{name} serves")

    def alive(self):
        def answers(name):
            with contextlib.suppress(OSError, ValueError):
                return self.ask(name, "status")["ok"]
            return False

        return [n for n in self.servers if answers(n)]

    def is_whole(self):
        try:
            return super().is_whole()
        except (AssertionError, StopIteration):  # one refused; none leads
            return False


class Phones(sip_chaos.Town):
    """They are called, and register again, all the time, in a thread of their own; who is called or asked by way of is drawn by lot."""

    def __init__(self, sip, seed):
        super().__init__(sip, PHONES, WATCHERS, 10, seed, PHONE_KINDS)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.stopping, self.error = False, None
        self.longest, self.reached, self.refreshed, self.changes = 0.0, 0, 0, 0
        self.moved = collections.Counter()  # times that a watcher was told to go elsewhere

    def up(self):
        """They do not know."""
        return HOSTS

    def any(self, user, port=PROXY_PORT):
        return self.door(user, HOSTS, port)

    # --- in their thread ---

    def run(self):
        try:
            self.crowd.loop(lambda: self.stopping, 1e9)
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def begin(self):
        watching = set(self.watchers)
        quiet = [self.crowd.user(n) for n in self.names if n not in watching and not self.streams([n])]
        for caller in self.callers[:CALLERS]:
            self.crowd.start(self.call_all(caller))
        self.crowd.start(self.refresh_all(quiet))
        self.crowd.granted = self.granted
        self.ping_all()
        self.thread.start()

    def end(self):
        self.stopping = True
        if self.thread.is_alive():
            self.thread.join()

    def ping_all(self):
        for n in self.names:
            if stream := self.crowd.user(n).stream:
                stream.ping()
        self.crowd.at(time.monotonic() + sip_chaos.PINGS, self.ping_all)

    def call(self, caller, user):
        """Until he answers"""
        begin = time.monotonic()
        while not (yield from self.crowd.reach(caller, user, self.at(self.random.choice(HOSTS)), 2.0)):
            yield 0.1
        self.longest = max(self.longest, time.monotonic() - begin)
        self.reached += 1

    def call_all(self, caller):
        while True:
            yield from self.call(caller, self.crowd.user(self.random.choice(self.names)))
            yield self.random.uniform(0.0, 0.2)

    def refresh(self, user):
        """Until it is done"""
        while True:
            m = yield from self.crowd.register(user, self.any(user, self.random.choice((PORT, PROXY_PORT))), wait=3.0)
            if m is not None and m.status == 200:
                self.refreshed += 1
                return
            yield 0.3

    def granted(self, user, seconds, asked):
        """Less than he asked for, as the database was away: he registers again in time, as every phone does."""
        term = user.terms

        def renew():
            while user.terms == term and not user.returns:
                yield from self.crowd.register(user, user.server, wait=3.0)
                yield 0.3

        if seconds < asked:
            self.crowd.at(time.monotonic() + seconds / 2, lambda: self.crowd.start(renew()))

    def refresh_all(self, users):
        while True:
            yield from self.refresh(self.random.choice(users))
            yield self.random.uniform(0.0, 0.4)

    # --- from outside ---

    def until(self, condition, what, deadline=DEADLINE):
        end = time.monotonic() + deadline
        while not condition():
            if self.error:
                raise AssertionError(f"the phones are broken: {self.error!r}") from self.error
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline:.0f} s: {what()}\n{self.sip.story()}")
            time.sleep(0.05)

    def do(self, tasks, what):
        """tasks: {name: what he does}; until all have done it"""
        left = set(tasks)

        def one(name, task):
            yield from task
            left.discard(name)

        self.crowd.queue.extend(one(n, t) for n, t in tasks.items())
        self.until(lambda: not left, lambda: f"{what}: {self.about(sorted(left))}")

    def about(self, names):
        """For whoever looks for why"""
        with contextlib.suppress(AssertionError, OSError, pgwire.Closed, pgwire.PgError):
            homes, kept = self.homes(), self.sip.sql("SELECT aor, what, id, expires FROM kept").splitlines()
            return "; ".join(f"{n} ({u.kind}): home {homes.get(n)}, registered at {u.server}, connection to "
                             f"{u.stream and u.stream.server}, watches {u.watch and vars(u.watch)}, "
                             f"stored {[k for k in kept if k.startswith(f'sip:{n}@')]}, "
                             f"shown {[self.sip.ask(h, 'show', aor=f'sip:{n}@{DOMAIN}') for h in self.sip.alive()]}"
                             for n in names[:5] for u in [self.crowd.user(n)])
        return f"{names[:5]}"

    def check(self):
        """Everyone can be called; what changes is told to everyone who watches it."""
        self.do({n: self.call(self.callers[CALLERS + i % (sip_chaos.CALLERS - CALLERS)], self.crowd.user(n))
                 for i, n in enumerate(self.names)}, "every phone answers")
        self.changes += 1
        users = [self.crowd.user(n) for n in self.watchers]
        for u in users:
            u.q = f"0.{self.changes % 9 + 1}00"
        self.do({u.name: self.refresh(u) for u in users}, "every watcher registers")

        def missed():
            return [u.name for u in users if f'q="{u.q}"' not in u.watch.body]

        self.until(lambda: not missed(), lambda: f"every watcher is told: {self.about(missed())}")

    def once_each(self):
        """What is wrong at last, as lines: by each server a call comes to the one place, and one server has it."""
        wrong, lost = [], []
        self.crowd.delivered.clear()

        def one(caller, user, host):
            if not (yield from self.crowd.reach(caller, user, self.at(host), 10.0)):
                lost.append((user.name, host))

        for host in HOSTS:
            self.do({n: one(self.callers[i % sip_chaos.CALLERS], self.crowd.user(n), host) for i, n in enumerate(self.names)}, f"by {host}")
        if lost:
            wrong.append(f"calls that did not arrive: {lost[:10]}")
        forked = sum(len(branches) > 1 for branches in self.crowd.delivered.values())
        if forked:
            wrong.append(f"{forked} messages came by more than one way")
        homes, has = self.homes(), collections.defaultdict(list)
        for host in HOSTS:
            with self.sip.control(host) as f:
                for n in self.names:
                    if self.sip.say(f, "show", aor=f"sip:{n}@{DOMAIN}")["known"]["bindings"]:
                        has[n].append(host)
        if set(homes) != set(self.names):
            wrong.append(f"without a row: {sorted(set(self.names) - set(homes))[:10]}")
        wrong += [f"{n}: served by {has[n]}, by the table {homes[n]}" for n in self.names if n in homes and has[n] != [homes[n][1]]][:10]
        return wrong


# --- what happens to them --------------------------------------------------------------------------

def forgive(client):
    """What a database answers whose disk is full is no fault of ours. Whether there was any"""
    left = [e for e in client.errors if not DISK_FULL.search(e[1])]
    some = len(left) < len(client.errors)
    client.errors[:] = left
    return some


class Bench(Pgbench):
    """Goes on when a disk was full"""

    rate = 40

    def run(self):
        super().run()
        while not self.stopping and forgive(self):
            super().run()


class System(takeover_chaos.Chaos):
    """The rig, its clients and phones, and what is done to it; faults are methods: fault(f, host) gives what undoes it, or None."""

    width = 40

    def __init__(self, rig, seed, kinds):
        super().__init__(rig, seed, [Bench if k is Pgbench else k for k in kinds])
        self.sip = self.phones = None
        self.seed, self.start, self.unasked = seed, time.monotonic(), []
        self.clock = dict.fromkeys(HOSTS, 0.0)
        self.calm, self.off = {}, set()
        for c in self.clients:
            c.pause = PAUSE
            c.retries = (*getattr(c, "retries", ()), "53100")

    def say(self, text):
        t = time.monotonic() - self.start
        print(f"{int(t // 60):3}:{t % 60:04.1f} {text}", flush=True)

    def raise_phones(self):
        self.sip = Sip(self.rig, self.rig.folder)
        self.sip.found()
        self.rig.sip = self.sip
        self.phones = Phones(self.sip, self.seed)
        self.phones.settle()
        self.rig.whole(WHOLE)

    # --- to whom ---

    def hosts_of(self, event):
        """The host of each fault, as things are before the first"""
        roles = {"serving": self.rig.serving(), "backup": self.rig.backup(), "primary": self.rig.serving(DATABASE),
                 "leader": self.sip.leader()}
        roles["spare"] = next(h for h in HOSTS if h not in (roles["serving"], roles["backup"]))
        roles["mirror"] = next(h for h in COPIES if h != roles["primary"])
        roles |= {h: h for h in HOSTS}
        first = roles[event.faults[0].role]
        roles |= dict(zip(OTHERS, (h for h in HOSTS if h != first)))
        return [roles[f.role] for f in event.faults]

    def pid_of(self, program, host):
        """None: it does not run there"""
        with contextlib.suppress(Failed, OSError, IndexError, ValueError):
            if program == "holdfast-pg":
                return self.rig.manager(host)
            if program in ("postgres", "backend"):
                init, copy = self.rig.init(host), COPIES[host] if host in COPIES else "none"
                pid = int(pathlib.Path(f"/proc/{init}/root/srv/{copy}/data/postmaster.pid").read_text().split()[0])
                inside = {self.inner_pid(p): p for p in self.rig.pids(host, "postgres")}
                if program == "postgres":
                    return inside.get(pid)
                clients = [p for p in inside.values() if b"10." in pathlib.Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0")[0]]
                return sorted(clients)[len(clients) // 2]
            return self.rig.pids(host, program)[0]
        return None

    @staticmethod
    def inner_pid(pid):
        """As its host has it"""
        return int(re.search(r"(?m)^NSpid:.*\t(\d+)$", pathlib.Path(f"/proc/{pid}/status").read_text())[1])

    def signal(self, program, host, signo):
        pid = self.pid_of(program, host)
        if pid is None:
            self.say(f"    {program} does not run on {host}")
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signo)
        return pid

    # --- faults ---

    def power(self, _, host):
        self.rig.power_off(host)

    def no_fencing(self, _, host):
        """its power is gone, and the power switch does not say so for a while"""
        self.rig.lab.run("fence-break", host)
        self.rig.power_off(host)
        return lambda: self.rig.lab.run("fence-mend", host)

    def freeze(self, _, host):
        self.rig.freeze(host)
        return lambda: self.rig.thaw(host)

    pause = freeze

    def cable(self, _, host):
        self.rig.cut(host)
        return lambda: self.rig.lab.run("heal", host)

    flap = cable

    def pair(self, _, host):
        self.rig.cut(host, "pair")
        return self.rig.heal

    def cluster(self, _, host):
        self.rig.cut(host, "cluster")
        return self.rig.heal

    def others(self, _, host):
        self.rig.cut(host, "others")
        return self.rig.heal

    def drop(self, f, host):
        self.rig.lab.run("drop", host, f.value)
        return lambda: self.rig.lab.run("drop", host, 0)

    def kill(self, f, host):
        self.signal(f.value, host, signal.SIGKILL)

    def stop_process(self, f, host):
        pid = self.signal(f.value, host, signal.SIGSTOP)

        def go_on():
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(pid, signal.SIGCONT)

        return go_on

    def disk(self, f, host):
        at = self.rig.disk(host, f.value) / "filler"
        free = os.statvfs(at.parent)
        with open(at, "ab", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
            with contextlib.suppress(OSError):  # what became free meanwhile
                while file.write(bytes(4096)):
                    pass
        return at.unlink

    def step(self, f, host):
        self.clock[host] = max(-600.0, min(600.0, self.clock[host] + f.value))
        self.rig.step_clock(host, self.clock[host])

    def reload(self, f, host):
        self.signal(f.value, host, signal.SIGHUP)

    def switch(self, f, host):
        """As it goes on by itself; what it says is looked at afterwards."""
        if f.value[0] == "sip":
            words, at = (f"sip-{host}", "--to", f.value[1]), f.value[1]
        else:
            words, at = (SERVICE if f.value[0] == "service" else DATABASE,), host
        p = self.rig.lab.popen(at, "holdfast", "-t", "30", "group", "switch", *words)

        def done():
            text = p.communicate(timeout=60)[0]
            if p.returncode:
                self.say(f"    switch: {text.strip()}")
            return p.returncode == 0 or f.value[0] == "sip"

        return done

    def drain(self, _, host):
        self.sip.ask(host, "drain")

        def undrain():
            with contextlib.suppress(OSError, ValueError):  # it may have started again, undrained
                self.sip.ask(host, "undrain")

        return undrain

    def maintenance(self, _, host):
        """a host is emptied as its operator would, stopped, and switched off"""
        if self.rig.serving() == host:
            self.rig.switch()
            self.rig.until_elsewhere(host)
        if self.rig.serving(DATABASE) == host:
            self.rig.lab.exec(host, "holdfast", "-t", "30", "group", "switch", DATABASE)
            self.rig.until(lambda: self.rig.serving(DATABASE) != host, f"the database leaves {host}")
        self.sip.ask(host, "drain")
        self.rig.until(lambda: not self.phones.counts(HOSTS)[host], f"{host} has no phones")
        self.rig.lab.run("stop", host)
        self.rig.power_off(host)

    METHODS = {"no-fencing": "no_fencing", "stop": "stop_process", "clock": "step"}

    def apply(self, fault, host):
        """Gives (when, what undoes it)"""
        undo = getattr(self, self.METHODS.get(fault.name, fault.name))(fault, host)
        return time.monotonic() + fault.seconds, undo or (lambda: True)

    def failed(self):
        for c in self.clients:
            forgive(c)
        return super().failed()

    # --- one event ---

    def look_for_deaths(self, event, hosts):
        """Hosts that nobody asked to go: not wrong by itself, but to be known of"""
        gone = {h for h in HOSTS if not self.rig.init(h)}
        asked = {h for f, h in zip(event.faults, hosts) if f.name not in ("clock", "reload", "switch", "drain")}
        if gone - asked - self.off:
            self.unasked.append((event.n, sorted(gone - asked)))
            self.say(f"    off, and not by us: {' '.join(sorted(gone - asked))}")
        self.off = gone

    def one(self, event):  # pylint: disable=arguments-renamed
        self.before = self.progress()
        self.advance(len(self.clients), DEADLINE)
        time.sleep(event.pause)
        for c in (*self.clients, self.phones):
            c.longest = 0.0
        self.rig.whole(WHOLE)  # it may have lost a backup by itself
        hosts = self.hosts_of(event)
        self.say(f"{event}: {', '.join(hosts)}")
        begin, undo = time.monotonic(), []
        for i, (fault, host) in enumerate(zip(event.faults, hosts)):
            if i:
                time.sleep(event.gap)
            undo.append(self.apply(fault, host))
        worked = []
        for when, fn in sorted(undo, key=lambda u: u[0]):
            while time.monotonic() < when:
                time.sleep(0.05)
                self.look_for_deaths(event, hosts)
            worked.append(fn() is not False)
        if len(event.faults) == 1 and event.faults[0].name == "switch":
            assert all(worked), "what was planned, and nothing else happened, failed"
        self.before = self.progress()
        self.advance(len(self.clients), DEADLINE)
        self.look_for_deaths(event, hosts)
        self.rig.whole(WHOLE)
        took = time.monotonic() - begin
        self.phones.check()
        self.before = self.progress()
        self.advance(len(self.clients), DEADLINE)
        slowest = max(self.counting, key=lambda c: c.longest)
        self.events[event.name()] += 1
        self.stalls[event.name()].append(slowest.longest)
        self.say(f"    whole after {took:.1f} s; longest operation {slowest.longest:.2f} s ({slowest.kind()}), "
                 f"call {self.phones.longest:.2f} s")

    def run(self, minutes, count):  # pylint: disable=arguments-renamed,arguments-differ
        self.calm = self.resources()
        for c in self.clients:
            c.start()
        self.phones.begin()
        end, n = time.monotonic() + 60 * minutes, 0
        try:
            self.before = self.progress()
            self.advance(100, DEADLINE)
            while time.monotonic() < end and n < count and not self.failed():
                n += 1
                self.one(Event(self.seed, n))
        finally:
            self.stop()
            self.failed()

    # --- the books ---

    def resources(self):
        """{(host, program, pid): (KiB, kinds of descriptors)} of the daemons, and {program: how many} of all processes, but for those
        that come and go, as agents do: the group always has one that waits 1.5 s for news."""
        stay, daemons = None, {}
        for _ in range(8):
            seen = self.rig.processes()
            now = {(host, pid, name if state != "Z" else "zombies") for host, pid, name, state in seen}
            stay = now if stay is None else stay & now
            time.sleep(0.3)
        for host, pid, name, _ in seen:
            if name in DAEMONS:
                with contextlib.suppress(OSError):
                    status = pathlib.Path(f"/proc/{pid}/status").read_text()
                    daemons[host, name, pid] = (int(re.search(r"VmRSS:\s+(\d+)", status)[1]), takeover.descriptors(pid))
        return daemons, collections.Counter(name for _, _, name in stay)

    def leaks(self):
        """What is wrong, as lines: whoever runs is as before the clients came, as far as the busiest of its kind went then.
        Connections come and go with who is whose home: there may be some more of them."""
        def own(kinds):
            return kinds.total() - kinds[THEIRS]
        end, wrong = time.monotonic() + 60, None
        while wrong is None or (wrong and time.monotonic() < end):
            (before, few), (after, many) = self.calm, self.resources()
            wrong = []
            for name in DAEMONS:
                first = [v for (_, n, _), v in before.items() if n == name]
                kib, most = max(v[0] for v in first), max((v[1] for v in first), key=own)
                wrong += [f"{name} on {host}: {own(now[1])} descriptors and connections {dict(now[1])}, {own(most)} at first {dict(most)}"
                          for (host, n, _), now in after.items()
                          if n == name and (own(now[1]) > own(most) + 8 or now[1][THEIRS] > 2 * most[THEIRS] + 32)]
                wrong += [f"{name} on {host}: {now[0]} KiB, {kib} at first" for (host, n, _), now in after.items()
                          if n == name and now[0] > 1.5 * kib + (32 << 10)]
            wrong += [f"{n} processes {name}, {few[name]} at first" for name, n in many.items()
                      if n > few[name] + (8 if name == "postgres" else 0)]
        for name in DAEMONS:
            lived = [k for k in after if k[1] == name and k in before]
            print(f"  {name:13} at first: most {max(v[0] for k, v in before.items() if k[1] == name):7} KiB, "
                  f"{max(v[1].total() for k, v in before.items() if k[1] == name):4} descriptors; at last: "
                  f"{max(v[0] for k, v in after.items() if k[1] == name):7} KiB, "
                  f"{max(v[1].total() for k, v in after.items() if k[1] == name):4}; "
                  f"{len(lived)} lived through it all")
        return wrong


# --- at most one primary ---------------------------------------------------------------------------

def boot_of(boots, t):
    """Which of them that is; the next one, if the host was off then"""
    return next((i for i, times in enumerate(boots) if times and times[-1] >= t), len(boots))


def alive_until(boots, start):
    """The last that a host said from then on without a pause"""
    last = start
    for t in next(iter(boots[boot_of(boots, start):]), []):
        if t > last:
            if t - last > ALIVE_GAP:
                break
            last = t
    return last


def reigns(lines, boots):
    """From the log of one host's agents, {group: [(from, until)]}: when it was the primary for sure. From the begin of a promotion (of a
    prepared one: its end) until what ends it is asked for, or the host is not heard of any more. boots: when it said that it is alive,
    a list for each boot."""
    since, found = {}, collections.defaultdict(list)

    def over(group, t):
        if group in since:
            start = since.pop(group)
            found[group].append((start, min(t, alive_until(boots, start))))

    for line in lines:
        up, what, group, action, *rc = line.split()
        t = float(up)
        if (what, action) == ("begin", "promote") or (what, action, rc) in (("end", "prepare-promote", ["0"]), ("end", "monitor", ["8"])):
            if group in since and (t > alive_until(boots, since[group]) + ALIVE_GAP
                                   or boot_of(boots, t) > boot_of(boots, since[group])):  # it was off in between
                over(group, t)
            since.setdefault(group, t)
        elif (what == "begin" and action in ("stop", "demote", "prepare-demote")) or (
                what == "end" and action in ("promote", "monitor") and rc not in (["0"], ["8"], ["9"])) or (
                (what, action, rc) == ("end", "monitor", ["0"])):
            over(group, t)
    for group in list(since):
        over(group, 1e9)
    return found


def one_primary(rig):
    """What is wrong, as lines, by the agents' logs and by what the groups remember"""
    found, wrong = collections.defaultdict(list), []
    for host in HOSTS:
        files = STATE / rig.lab.name / "hosts" / host / "fs"
        lines = (files / AGENTS_LOG[1:]).read_text().splitlines()
        boots = [[float(t) for t in boot.split()] for boot in (files / ALIVE_LOG[1:]).read_text().split("boot")]
        for group, spans in reigns(lines, boots).items():
            found[group] += [(a, b, host) for a, b in spans]
    for group in (DATABASE, SERVICE):
        spans = sorted(found[group])
        print(f"  {group}: {len(spans)} times primary, on {dict(collections.Counter(h for _, _, h in spans))}")
        wrong += [f"{group}: {h1} was primary until {b1:.2f}, {h2} from {a2:.2f}" for (_, b1, h1), (a2, _, h2) in zip(spans, spans[1:])
                  if h1 != h2 and b1 > a2 + 0.02]
        epochs = collections.defaultdict(set)
        for host in HOSTS:
            history = rig.on(host, "holdfast", "group", "history", group)
            for epoch, copy, at in re.findall(r"epoch (\d+): (\S+) is primary on (\S+)", history):
                epochs[int(epoch)].add((copy, at))
        wrong += [f"{group}: epoch {e} has {sorted(who)}" for e, who in epochs.items() if len(who) > 1]
        if not spans or not epochs:
            wrong.append(f"{group}: nothing is known of its primaries")
    return wrong


# --- all of it -------------------------------------------------------------------------------------

def play(rig, a, kinds):
    """What is wrong, as lines"""
    rig.start()
    system, wrong = System(rig, a.seed, kinds), []
    system.raise_phones()
    capture = rig.capture()
    system.start = time.monotonic()
    try:
        system.run(a.minutes, a.events)
    except (AssertionError, Failed, OSError, subprocess.TimeoutExpired, pgwire.Closed, pgwire.PgError) as e:
        wrong.append(f"{type(e).__name__}: {e}")
    system.say("the books")
    wrong += takeover_chaos.answered_once(capture)
    try:
        rig.whole(WHOLE)
        if system.phones.thread.is_alive():
            wrong += system.phones.once_each()
        system.phones.end()
        wrong += system.books()
        wrong += one_primary(rig)
        wrong += system.leaks()
    except (AssertionError, Failed, OSError, pgwire.Closed, pgwire.PgError) as e:
        wrong.append(f"the books can't be read: {e!r}\n{rig.sessions()}")
    finally:
        system.phones.end()
        system.phones.crowd.close()
    p = system.phones
    print(f"  phones: {len(p.names)}, {p.reached} calls answered, {p.refreshed} registrations, "
          f"{p.changes * len(p.watchers)} changes told to watchers")
    if system.unasked:
        print(f"  hosts that were off though no event was about them: {system.unasked}")
    for line in wrong:
        print(line)
    if wrong:
        print(rig.story(60))
    return wrong


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--minutes", type=float, default=5)
    a.add_argument("--events", type=int, default=10 ** 9)
    a.add_argument("--seed", default=str(int(time.time())))
    a.add_argument("--kind", action="append", choices=sorted({k.__name__ for k in KINDS}), help="only these database clients")
    a.add_argument("--list", type=int, metavar="N", help="print the first events of this seed, and do nothing")
    a = a.parse_args()
    print(f"SEED={a.seed}", flush=True)
    if a.list:
        print("\n".join(str(Event(a.seed, n)) for n in range(1, a.list + 1)))
        return 0
    if os.geteuid():
        sys.exit("chaos: needs root, for the lab")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    kinds = [k for k in KINDS if not a.kind or k.__name__ in a.kind]
    if Node in kinds and not Node.there():
        kinds.remove(Node)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    rig = Whole(Lab(f"chaos-{os.getpid()}"), folder)
    try:
        wrong = play(rig, a, kinds)
    finally:
        rig.end()
        shutil.rmtree(folder)
    if left := rig.lab.leftovers():
        wrong.append("left behind")
        print("left behind:", *left, sep="\n")
    print("chaos:", "ok" if not wrong else f"SEED={a.seed} failed")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
