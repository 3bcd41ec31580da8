"""Who follows a guide (guide.py) on hosts of the lab: by the shell, and by hand what the lab does not have: apt, ssh, and systemd,
of whose units it does what they say. What is installed is the built tree, where the packages would put it; packages.py installs these."""
import contextlib
import os
import pathlib
import queue
import re
import shlex
import subprocess
import threading

from guide import for_host
from lab import ROOT, STATE, Failed
from network import in_network
from sipua import Agent

HOSTS = ("alpha", "beta", "gamma")
DEADLINE = 90.0
PROGRAMS = ("holdfastd", "holdfast", "holdfast-pg", "holdfast-pg-agent", "holdfast-sip", "holdfast-announce")
FILES = ("holdfast.conf", "holdfast-pg.conf", "holdfast-sip.conf", "pg-hba.conf")
HOME = "/srv/reader"  # where he is when he types
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
UNITS = {"corosync": "[Service]\nExecStart=/usr/sbin/corosync -f"}  # Debian's, without its notification
# what systemd does with Restart=always, until it is stopped by SIGTERM, in order
LOOP = """
echo $$ >/run/{unit}.loop
trap 'stop=1; kill $p' TERM
while :; do
    {command} &
    p=$!
    while kill -0 $p; do wait $p; done 2>/dev/null
    [ -z "$stop" ] || exit 0
    sleep 0.05
done >>/var/log/{unit}.out 2>&1
"""


def find_program(name):
    path = os.environ.get("HOLDFAST_BIN", "") + "".join(f":{ROOT}/build/src/{d}" for d in ("hostd", "ctl", "pg", "sip", "lab", "announce"))
    for folder in path.split(":"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return str(pathlib.Path(folder, name).absolute())
    raise LookupError(name)


class Unit:
    """A unit file of systemd: what of it can be done without systemd"""

    def __init__(self, name, text):
        self.name, self.set = name, {}
        for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
            self.set.setdefault(key, []).append(value.replace("%N", name).replace("%n", f"{name}.service"))

    def all(self, key):
        return " ".join(self.set.get(key, [])).split()

    def script(self):
        """For sh: conditions, directories, then the command, again when it dies, with its capabilities"""
        lines = [f"umask {self.set.get('UMask', ['0022'])[-1]}"]
        lines += [f"test -e '{p}' || exit 9" for p in self.all("ConditionPathExists")]
        for kind, top in (("Runtime", "/run"), ("State", "/var/lib")):
            mode = self.set.get(f"{kind}DirectoryMode", ["0755"])[-1]
            lines += [f"mkdir -pm {mode} '{top}/{d}'" for d in self.all(f"{kind}Directory")]
        user, prefix = self.set.get("User", [""])[-1], []
        if user:
            prefix += ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        if "CapabilityBoundingSet" in self.set:
            names = "".join(f",+{c.removeprefix('CAP_').lower()}" for c in self.all("CapabilityBoundingSet"))
            prefix += ["setpriv", f"--bounding-set=-all{names}"]
            prefix += ["--no-new-privs"] if self.all("NoNewPrivileges") == ["yes"] else []
        command = " ".join([*prefix, *map(shlex.quote, self.set["ExecStart"][-1].split())])
        return "\n".join(lines) + LOOP.format(unit=self.name, command=command)


class Reader:
    """Who follows the guide. 192.0.2.N is the lab's: the hosts' addresses, and its network for the others."""

    def __init__(self, lab, hosts=HOSTS):
        self.lab, self.hosts, self.units, self.enabled = lab, hosts, {}, {h: [] for h in hosts}
        self.address = {str(i): lab.address(h) for i, h in enumerate(hosts, 1)}
        self.net = self.address["1"].rpartition(".")[0]
        self.psql, self.said = None, queue.Queue()

    def number(self, found):
        n = found[1]
        return self.address.get(n) or f"{self.net}.{int(n) + 50 if int(n) > 13 else n}"  # .100 is the lab's client

    def here(self, text):
        text = re.sub(r"192\.0\.2\.(\d+)", self.number, text)
        return text.replace("fence_ipmilan", "fence_holdfast_lab")

    def follow_all(self, blocks):
        for block in blocks:
            try:
                self.follow(block)
            except Exception as e:
                raise AssertionError(f"{block}: {e}\n{self.logs()}") from e

    def follow(self, block):
        if block.language == "conf":
            for host in block.hosts():
                self.lab.put(host, block.marks["file"], self.here(for_host(block.text, host)))
        elif block.language == "sh":
            for host in block.hosts():
                self.run(host, self.here(block.text))
        elif block.language == "sql":
            self.ask(block.text)
        elif block.language == "test":
            words = self.here(block.text).split()
            getattr(self, words[0].replace("-", "_"))(*words[1:])

    # --- commands ---

    def run(self, host, text):
        """Line by line what the lab does not have (apt, systemd, ssh); the rest by the shell."""
        script = ""
        for line in text.splitlines():
            words = line.split()
            if words[:1] and words[0] in ("apt", "systemctl", "scp"):
                self.shell(host, script)
                script = ""
                getattr(self, words[0])(host, *words[1:])
            else:
                script += line + "\n"
        self.shell(host, script)

    def shell(self, host, script):
        if script.strip():
            script = f"mkdir -p {HOME}; cd {HOME}\n{script}"
            self.lab.run("exec", host, "--", "env", PATH, "bash", "-euo", "pipefail", stdin=script, timeout=150)

    def apt(self, host, *_):
        """The package's files where it puts them, and what it does when it is installed"""
        self.clear(host)
        for name in PROGRAMS:
            self.lab.exec(host, "ln", "-sf", find_program(name), f"/usr/sbin/{name}")
        packaging = ROOT / "packaging"
        self.lab.exec(host, "install", "-m", "0644", "-t", "/etc/holdfast", *(packaging / f for f in FILES))
        self.lab.exec(host, "systemd-sysusers", packaging / "debian/holdfast.sysusers")
        self.lab.exec(host, "systemd-tmpfiles", "--create", packaging / "debian/holdfast.tmpfiles")
        self.lab.exec(host, "env", PATH, "sh", packaging / "debian/holdfast.postinst", "configure", "")

    def clear(self, host):
        """What the lab made before is taken away."""
        self.lab.exec(host, "sh", "-c", "mkdir -p /etc/corosync /var/lib/corosync; "
                      "cd /etc; rm -f holdfast/* corosync/*.conf corosync/authkey")

    def scp(self, host, path, to):
        other, _, there = to.partition(":")
        text = self.lab.exec(host, "base64", path)
        self.lab.run("exec", other, "--", "sh", "-c", f"umask 077; base64 -d >{there}", stdin=text)

    def systemctl(self, host, action, *units):
        units = [u for u in units if u != "--now"]
        assert action in ("enable", "disable", "start", "stop", "restart")
        for unit in units:
            if action in ("stop", "restart", "disable"):
                self.stop(host, unit)
            if action in ("start", "restart", "enable"):
                self.start(host, unit)

    def unit(self, host, name):
        """The text of a unit file on a host"""
        ours = ROOT / f"packaging/{name}.service"
        return ours.read_text(encoding="utf-8") if ours.exists() else self.lab.get(host, f"/lib/systemd/system/{name}.service")

    def start(self, host, name):
        """What the unit says, as systemd would"""
        if name not in self.enabled[host]:
            self.enabled[host].append(name)
        unit = Unit(name, UNITS.get(name) or self.unit(host, name))
        self.units[host, name] = self.lab.popen(host, "env", PATH, "sh", "-c", unit.script(), stdout=subprocess.DEVNULL)
        if name == "corosync":
            self.lab.until(lambda: self.lab.exec(host, "corosync-cfgtool", "-s"), f"{name} on {host}", DEADLINE)
        if name == "holdfastd":
            self.lab.until(lambda: self.lab.exec(host, "holdfast", "status"), f"{name} on {host}", DEADLINE)

    def stop(self, host, name):
        """In order, and until it has ended; nothing if it does not run."""
        if (host, name) in self.units:
            self.lab.exec(host, "sh", "-c", f"kill $(cat /run/{name}.loop)")
            assert self.units.pop((host, name)).wait(timeout=DEADLINE) == 0, name

    # --- the open psql ---

    def connect(self, host, *where):
        """The open psql is this one from now on."""
        if self.psql:
            self.psql.kill()
            self.psql.wait()
        psql = ["psql", "-XAt", "-d", " ".join(where)]
        self.lab.until(lambda: self.lab.exec(host, *psql, "-c", "select 1"), f"a session at {where}", DEADLINE)
        self.psql = self.lab.popen(host, *psql, stdin=subprocess.PIPE)
        said = self.said = queue.Queue()
        threading.Thread(target=lambda p: [said.put(line) for line in p.stdout], args=[self.psql], daemon=True).start()

    def ask(self, text):
        if not self.psql:
            self.connect("client", *self.here("host=192.0.2.110 port=6432 user=app dbname=app password=app-secret").split())
        self.psql.stdin.write(text + "\\echo end\n")
        self.psql.stdin.flush()
        self.heard = []
        try:
            while (line := self.said.get(timeout=DEADLINE).rstrip()) != "end":
                self.heard.append(line)
        except queue.Empty:
            raise AssertionError(f"psql: {self.heard}") from None
        assert not re.search("ERROR|FATAL|WARNING|lost|closed", "\n".join(self.heard)), self.heard

    def answer(self, wanted):
        assert self.heard[-1] == wanted, self.heard

    # --- what is there before a guide begins ---

    def debian_database(self, host, *sql):
        """PostgreSQL as Debian's package sets it up, at port 5432, with a user and a database of an application"""
        script = "create role app login password 'app-secret';\ncreate database app owner app;\n" + "\n".join(sql)
        self.shell(host, f"""
pg_createcluster --port 5432 -d /srv/guide 15 guide
pg_ctlcluster 15 guide start
runuser -u postgres -- psql -X -v ON_ERROR_STOP=1 postgres <<END
{script}
END
""")

    # --- what the reader waits for and does by hand ---

    def members(self, count):
        for host in self.hosts:
            self.lab.until(lambda h=host: len(self.lab.members(h)) == int(count), f"{count} hosts on {host}", DEADLINE)

    def managers(self):
        for host in self.hosts:
            self.lab.until(lambda h=host: self.lab.exec(h, "test", "-S", f"/run/holdfast-pg/{h}") == "", f"holdfast-pg on {host}", DEADLINE)

    def shown(self, group):
        """As the first host knows it that has it"""
        for host in reversed(self.hosts):
            with contextlib.suppress(Failed):
                return self.lab.json(host, "group", "show", group)[0]
        raise Failed(group)

    def until(self, group, *wanted):
        def so():
            g = self.shown(group)
            now = {"primary": g["primary"]["host"] if g["phase"] == "running" else "", "sync": g["in_sync"]}
            return all(set(v.split(",")) <= set(now[k]) if k == "sync" else now[k] == v for k, v in (w.split("=") for w in wanted))

        self.lab.until(so, f"{group}: {wanted}", DEADLINE)

    def sip_answers(self, host):
        self.lab.until(lambda: self.lab.exec(host, "holdfast", "sip", "status"), f"holdfast-sip on {host}", DEADLINE)

    def sip_servers(self, count):
        for host in self.hosts:
            self.lab.until(lambda h=host: len(re.findall(r"^(alpha|beta|gamma)\b", self.lab.exec(h, "holdfast", "sip", "servers"), re.M))
                           == int(count), f"{count} SIP servers on {host}", DEADLINE)

    def register(self, user, password, address, host="client", **options):
        """A phone on a host that does it again until it is answered, as phones do"""
        def phone():
            local = "127.0.0.1" if address == "127.0.0.1" else self.lab.address(host)
            with Agent(user, (address, 5060), password=password, local=local, **options) as agent:
                def registered():
                    with contextlib.suppress(Exception):
                        agent.register()
                        return True
                    agent.server = (address, 5060)
                    return False

                self.lab.until(registered, f"{user} registered at {address}", DEADLINE)

        in_network(self.lab.init(host), phone)

    def power_off(self, host):
        self.lab.run("power-off", host)

    def boot(self, host):
        self.lab.run("boot", host)
        for unit in self.enabled[host]:
            self.units[host, unit].wait()
            self.start(host, unit)

    # --- the end ---

    def logs(self):
        """For whoever reads that a test failed"""
        text = []
        for log in sorted((STATE / self.lab.name).glob("hosts/*/fs/var/log/*.out")):
            text += [f"--- {log}", *log.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join(text)

    def close(self):
        for p in (*self.units.values(), *([self.psql] if self.psql else ())):
            p.kill()
            p.wait()
