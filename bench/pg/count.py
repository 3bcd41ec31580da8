#!/usr/bin/python3
"""Clients that count: each adds one to its own row, again as soon as that was acknowledged, and
connects again after an error, as a careful application does. Runs on the client host of the move bench.

    count.py ADDRESS PORT CLIENTS

Lines on standard input: "begin" forgets what was, "tell" tells it as a line of JSON: stall_ms, the
longest time between two acknowledgements of any one client; least, how many acknowledgements each had
at least; errors, requests that failed, and reasons; refused, connections that could not be had. "quit"
ends, and tells of each client since its start: acknowledged additions, and those that got an error
instead of an answer, which may have been done or not."""
import collections
import json
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from pgwire import Session, connect  # noqa: E402 # pylint: disable=wrong-import-position

PAUSE = 0.001  # s between two requests: the machine is not to be busy with this
RETRY = 0.01  # s until a client tries again after an error
PATIENCE = 60.0  # s


class Counter(threading.Thread):
    """One client; its row is `me`."""

    def __init__(self, address, port, me):
        super().__init__(daemon=True)
        self.to, self.me, self.lock = (address, port), me, threading.Lock()
        self.acked = self.in_doubt = 0
        self.ending = False
        self.begin()
        self.start()

    def begin(self):
        with self.lock:
            self.last, self.stall, self.count = time.monotonic(), 0.0, 0
            self.errors, self.refused = collections.Counter(), 0

    def tell(self):
        """A stall that has not ended counts, too."""
        with self.lock:
            return (max(self.stall, time.monotonic() - self.last), self.count, +self.errors,
                    self.refused)

    def run(self):
        session = None
        while not self.ending:
            try:
                if not session:
                    session = Session(connect(*self.to, timeout=1.0))
                    session.sock.settimeout(PATIENCE)
                session.query(f"update counters set n = n + 1 where id = {self.me}")
                self.acknowledged()
                time.sleep(PAUSE)
            except OSError as e:
                self.failed(e, session)
                if session:
                    session.close()
                session = None
                time.sleep(RETRY)

    def failed(self, e, session):
        with self.lock:
            if session:
                self.errors[str(e)] += 1
                self.in_doubt += 1
            else:
                self.refused += 1

    def acknowledged(self):
        with self.lock:
            now = time.monotonic()
            self.stall = max(self.stall, now - self.last)
            self.last = now
            self.count += 1
        self.acked += 1


def main():
    address, port, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    counters = [Counter(address, port, k) for k in range(clients)]
    for line in sys.stdin:
        word = line.strip()
        if word == "begin":
            for c in counters:
                c.begin()
        elif word == "tell":
            stalls, counts, errors, refused = zip(*(c.tell() for c in counters))
            errors = sum(errors, collections.Counter())
            print(json.dumps({"stall_ms": max(stalls) * 1e3, "least": min(counts),
                              "errors": errors.total(), "refused": sum(refused),
                              "reasons": errors}), flush=True)
        elif word == "quit":
            break
    for c in counters:
        c.ending = True
    for c in counters:
        c.join(PATIENCE)
    print(json.dumps([(c.acked, c.in_doubt) for c in counters]), flush=True)


if __name__ == "__main__":
    main()
