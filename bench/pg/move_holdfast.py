#!/usr/bin/python3
"""How long clients of holdfast-pg stall when its group switches the primary, and when the primary's server
is killed: two copies of a database and a witness in a lab, holdfast-pg on the witness; bench/README.md
says how. Writes bench/out/move-holdfast.json."""
import os
import signal
import subprocess
import sys

from moves import PROXY, PROXY_PORT, SETTLE, measure
from common import STAMPS, BenchLab, Late, save, say, until  # pylint: disable=wrong-import-order
from contestants import HOLDFAST_PG
from holdfast import GROUP  # pylint: disable=wrong-import-order
from pgwire import Session  # pylint: disable=wrong-import-order
from postgresql import COPIES, Database, definition  # pylint: disable=wrong-import-order

TOKEN = 300  # ms
MONITOR = "250ms"

CONFIG = """
pg {{ listen = {{ "0.0.0.0:{port}" }} }}
auth {{
    type = trust
    user = "postgres"
    database = "postgres"
}}
servers {{ group = "{group}" }}
"""


class Moving(Database):
    """The database of bench-failover, with holdfast-pg before it."""

    proxy, period = None, 1.0

    @staticmethod
    def definition(copy):
        return definition(copy, "10.0.0.0/8 127.0.0.1/32", f"monitor = {MONITOR}")

    def up(self, token):
        super().up(token)
        shared = self.lab.state / "shared/1"
        (shared / "holdfast-pg.conf").write_text(CONFIG.format(port=PROXY_PORT, group=GROUP),
                                                 encoding="ascii")
        with open(shared / "holdfast-pg.log", "ab") as log:
            self.proxy = self.lab.popen("exec", PROXY, "--", HOLDFAST_PG, "-c",
                                        f"{STAMPS}/holdfast-pg.conf", stdout=log, stderr=log)

        def ready():
            try:
                Session(self.lab.connect(PROXY, PROXY_PORT)).close()
                return True
            except OSError:
                if self.proxy.poll() is None:
                    return False
                raise RuntimeError(f"holdfast-pg: status {self.proxy.returncode}") from None
        try:
            until(ready, "holdfast-pg lets a client in", SETTLE, 0.1)
        except (Late, RuntimeError):
            self.complain()
            raise

    def switch(self, source):
        target = next(h for h in COPIES if h != source)
        self.admin("switch", "--to", COPIES[target])
        until(lambda: self.runs() == target, f"{target} is primary", SETTLE, 0.05)

    def crash(self, source):
        pid = f"/srv/{COPIES[source]}/data/postmaster.pid"
        self.lab.on(source, "sh", "-c", f"kill -KILL $(head -n 1 {pid})")

    def complain(self):
        log = self.lab.state / "shared/1/holdfast-pg.log"
        print(f"--- holdfast-pg\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        print(self.lab.on(PROXY, "holdfast", "group", "history", GROUP)[-3000:], file=sys.stderr)

    def down(self):
        super().down()
        if self.proxy:
            self.proxy.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the lab down
    if not os.path.exists(HOLDFAST_PG):
        sys.exit(f"there is no {HOLDFAST_PG}")
    cluster = Moving(BenchLab(f"mvh{os.getpid()}"))
    try:
        cluster.up(TOKEN)
        say("holdfast: both copies are in sync, holdfast-pg is there")
        save("move-holdfast.json", {"token": TOKEN, "monitor": MONITOR, **measure(cluster, "holdfast")})
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
