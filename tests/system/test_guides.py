"""The guides in doc/guide: every configuration block is valid, every command exists, every link leads somewhere; and
doc/guide/three-machines.md is followed literally on hosts of the lab, up to the loss of one of them and its return."""
import contextlib
import os
import pathlib
import queue
import re
import subprocess
import threading

import pytest

from guide import GUIDES, blocks, for_host
from lab import ROOT, STATE, Failed
from sipua import Agent
from takeover import enter_network

THREE = ROOT / "doc/guide/three-machines.md"
HOSTS = ("alpha", "beta", "gamma")
DEADLINE = 90.0
PROGRAMS = ("holdfastd", "holdfast", "holdfast-pg", "holdfast-pg-agent", "holdfast-sip", "holdfast-announce")
CHECKS = {"holdfast.conf": ("holdfast", "config", "--check"), "holdfast-pg.conf": ("holdfast-pg", "--check", "-c"),
          "holdfast-sip.conf": ("holdfast-sip", "--check-config", "-c")}
UNITS = {"corosync": "corosync -f"}  # Debian's; ours are in packaging/


def find_program(name):
    path = os.environ.get("HOLDFAST_BIN", "") + "".join(f":{ROOT}/build/src/{d}" for d in ("hostd", "ctl", "pg", "sip", "lab", "announce"))
    for folder in path.split(":"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return str(pathlib.Path(folder, name).absolute())
    raise LookupError(name)


# --- all guides ---


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_configuration_is_valid(guide, tmp_path):
    """By the program it is for. A file without a check of its own (Corosync's, HBA, users) is read when the guide is followed."""
    key = tmp_path / "cluster.key"
    for b in blocks(guide):
        name = b.marks.get("file", "").rpartition("/")[2]
        if b.language != "conf" or name not in CHECKS:
            used = name == "group.conf" or any(b.marks.get("file", "-") in o.text for o in blocks(guide) if o is not b)
            assert b.language != "conf" or guide == THREE or used, f"{b}: nobody checks it"
            continue
        for host in b.hosts():
            text = for_host(b.text, host)
            for path in re.findall(r"(?:hba_file|file|_file) = \"?(/etc/holdfast/[^\s\"]+)", text):
                beside = tmp_path / path.rpartition("/")[2]
                beside.write_text(beside_of(guide, path), encoding="utf-8")
                text = text.replace(path, str(beside))
            if "key_file" not in text:  # the cluster's is not on this machine
                subprocess.run([find_program("holdfast"), "keygen", key], check=not key.exists(), capture_output=True)
                text = re.sub(r"^(sip|service) \{", rf'\1 {{ key_file = "{key}"\n', text, flags=re.M)
            (tmp_path / name).write_text(text, encoding="utf-8")
            program, *options = CHECKS[name]
            command = [find_program(program), *options, tmp_path / name]
            p = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            assert p.returncode == 0, f"{b}: {p.stdout}{p.stderr}"


def beside_of(guide, path):
    """The file that another block of the guide makes"""
    return "".join(b.text for b in blocks(guide) if b.marks.get("file") == path)


@pytest.mark.parametrize("guide", [g for g in GUIDES if g != THREE], ids=lambda g: g.name)
def test_group_definitions_are_valid(guide, tmp_path):
    """Of resources, by the schema of holdfast-group(5)"""
    pages = (ROOT / "doc/man/holdfast-group.5").read_text(encoding="utf-8")
    known = set(re.findall(r"^\.It Cm (\w+)$", pages, re.M))
    for b in blocks(guide):
        if b.marks.get("file", "").endswith("/group.conf"):
            text = re.sub(r"(params|timeouts) \{[^}]*\}", "", b.text)
            for option in re.findall(r"^\s+(\w+) =", text, re.M):
                assert option in known, f"{b}: {option}"


def commands(guide):
    """(where, words): lines of its sh blocks, and in its text what stands in `backquotes` and begins with one of our programs"""
    for b in blocks(guide):
        if b.language == "sh":
            for line in re.sub(r"<<END\n.*?\nEND\n", "\n", b.text, flags=re.S).splitlines():
                yield b, line
    text = re.sub(r"^```.*?^```$", "", guide.read_text(encoding="utf-8"), flags=re.S | re.M)
    for line in re.findall(r"`(holdfast[a-z-]* [^`\n]+)`", text):
        yield guide.name, line


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_commands_exist(guide):
    """Of our programs: the synopsis or the list of commands in the manual page has the words."""
    usage = subprocess.run([find_program("holdfast"), "--help"], capture_output=True, text=True, check=True).stdout
    for where, line in commands(guide):
        for words in (w.split() for w in re.split(r"[|;&]+", line)):
            if words[:1] != ["holdfast"]:
                continue
            words = [w for w in words[1:] if not w.startswith("-")]
            assert re.search(rf"^\s+(?:\S+, )*{re.escape(words[0])}\b", usage, re.M), f"{where}: {line}\n{usage}"
            if words[0] in ("group", "sip"):
                assert re.search(rf"{words[0]} .*\b{re.escape(words[1])}\b", usage), f"{where}: {line}\n{usage}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_options_exist(guide):
    """Options named as `section.option` are in a manual page's section of that name."""
    known = set()
    for page in ("holdfast.conf.5", "holdfast-pg.conf.5", "holdfast-sip.conf.5"):
        section = ""
        for line in (ROOT / "doc/man" / page).read_text(encoding="utf-8").splitlines():
            if line.startswith(".Ss Section "):
                section = line.split()[2]
            elif line.startswith(".It Cm "):
                known.add(f"{section}.{line.split()[2]}")
    sections = {k.split(".")[0] for k in known} - {""}
    for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", guide.read_text(encoding="utf-8")):
        if name.split(".")[0] in sections and name not in ("group.conf",):
            assert name in known, f"{guide.name}: {name}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_links_lead_somewhere(guide):
    text = guide.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (guide.parent / target).exists(), f"{guide.name}: {target}"
    for page, section in re.findall(r"\b((?:lib)?holdfast[a-z.-]*|ocf_holdfast_\w+)\((\d)\)", text):
        assert (ROOT / f"doc/man/{page}.{section}").exists(), f"{guide.name}: {page}({section})"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_named_tests_and_texts_exist(guide):
    """Tests that a guide refers to, and what it says that a program says: "...", of more than three words"""
    text = guide.read_text(encoding="utf-8")
    for name, test in re.findall(r"(test_\w+\.py)::(test_\w+)", text):
        assert f"def {test}(" in (ROOT / "tests/system" / name).read_text(encoding="utf-8"), test
    if guide.name == "failures.md":
        source = "".join(p.read_text(encoding="utf-8") for d in ("hostd", "core/group") for p in sorted((ROOT / "src" / d).glob("*.c")))
        source = re.sub(r'"\s+"', "", source)
        for said in re.findall(r'"([^"]*)"', re.sub(r"\s+", " ", text)):
            for part in said.replace("alpha", "%s").split("; last failure: ...")[0:1]:
                assert part in source, said


def test_packages_are_ours_and_known():
    """What apt is to install: our package, and others that it suggests or needs."""
    control = (ROOT / "packaging/debian/control").read_text(encoding="utf-8")
    for b in blocks(THREE):
        for line in b.text.splitlines():
            if line.startswith("apt install "):
                ours, *others = line.split()[2:]
                assert re.fullmatch(r"\./(\S+)_\*\.deb", ours)[1] in re.findall(r"^Package: (\S+)$", control, re.M)
                suggested = re.split(r"[,\s]+", re.search(r"^Suggests: (.*)$", control, re.M)[1])
                assert set(others) <= set(suggested), others


# --- the three machines ---


class Reader:
    """Who follows the guide. 192.0.2.N is the lab's: the hosts' addresses, and its network for the others."""

    def __init__(self, lab):
        self.lab, self.units, self.enabled = lab, {}, {h: [] for h in HOSTS}
        self.address = {str(i): lab.address(h) for i, h in enumerate(HOSTS, 1)}
        self.net = self.address["1"].rpartition(".")[0]
        self.psql, self.said = None, queue.Queue()

    def number(self, found):
        n = found[1]
        return self.address.get(n) or f"{self.net}.{int(n) + 50 if int(n) > 13 else n}"  # .100 is the lab's client

    def here(self, text):
        text = re.sub(r"192\.0\.2\.(\d+)", self.number, text)
        return text.replace("fence_ipmilan", "fence_holdfast_lab")

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
            self.lab.run("exec", host, "--", "bash", "-euo", "pipefail", stdin=script, timeout=150)

    def apt(self, host, *_):
        """The package's programs, where it puts them; what the lab made before it is taken away."""
        for name in PROGRAMS:
            self.lab.exec(host, "ln", "-sf", find_program(name), f"/usr/sbin/{name}")
        self.lab.exec(host, "sh", "-c", "mkdir -p /etc/corosync /var/lib/corosync; cd /etc; rm -f holdfast/* corosync/*.conf corosync/authkey")

    def scp(self, host, path, to):
        other, _, there = to.partition(":")
        text = self.lab.exec(host, "base64", path)
        self.lab.run("exec", other, "--", "sh", "-c", f"umask 077; base64 -d >{there}", stdin=text)

    def systemctl(self, host, action, *units):
        units = [u for u in units if u != "--now"]
        if action == "disable":
            assert units == ["postgresql"]  # none runs in the lab
            return
        assert action in ("enable", "restart")
        for unit in units:
            self.enabled[host].append(unit)
            self.start(host, unit)

    def start(self, host, unit):
        """What the unit says, as systemd would: directory, command, again when it dies."""
        command, folder = UNITS.get(unit), ""
        if not command:
            text = (ROOT / f"packaging/{unit}.service").read_text(encoding="utf-8").replace("%N", unit)
            command = re.search(r"^ExecStart=(.*)$", text, re.M)[1]
            folder = re.search(r"^RuntimeDirectory=(.*)$", text, re.M)[1]
        loop = f"umask 077; mkdir -pm 0755 '/run/{folder}' '/var/lib/{folder}'; while :; do {command}; sleep 0.05; done >>/var/log/{unit}.out 2>&1"
        self.units[host, unit] = self.lab.popen(host, "sh", "-c", loop, stdout=subprocess.DEVNULL)
        if unit == "corosync":
            self.lab.until(lambda: self.lab.exec(host, "corosync-cfgtool", "-s"), f"{unit} on {host}", DEADLINE)
        if unit == "holdfastd":
            self.lab.until(lambda: self.lab.exec(host, "holdfast", "status"), f"{unit} on {host}", DEADLINE)

    # --- the open psql ---

    def ask(self, text):
        if not self.psql:
            self.psql = self.lab.popen("client", "psql", "-XAt", "-d",
                                       self.here("host=192.0.2.110 port=6432 user=app dbname=app password=app-secret"),
                                       stdin=subprocess.PIPE)
            threading.Thread(target=lambda: [self.said.put(line) for line in self.psql.stdout], daemon=True).start()
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

    # --- what the reader waits for and does by hand ---

    def members(self, count):
        for host in HOSTS:
            self.lab.until(lambda h=host: len(self.lab.members(h)) == int(count), f"{count} hosts on {host}", DEADLINE)

    def managers(self):
        for host in HOSTS:
            self.lab.until(lambda h=host: self.lab.exec(h, "test", "-S", f"/run/holdfast-pg/{h}") == "", f"holdfast-pg on {host}", DEADLINE)

    def shown(self, group):
        """As the first host knows it that has it"""
        for host in reversed(HOSTS):
            with contextlib.suppress(Failed):
                return self.lab.json(host, "group", "show", group)[0]
        raise Failed(group)

    def until(self, group, *wanted):
        def so():
            g = self.shown(group)
            now = {"primary": g["primary"]["host"] if g["phase"] == "running" else "", "sync": g["in_sync"]}
            return all(set(v.split(",")) <= set(now[k]) if k == "sync" else now[k] == v for k, v in (w.split("=") for w in wanted))

        self.lab.until(so, f"{group}: {wanted}", DEADLINE)

    def sip_servers(self, count):
        for host in HOSTS:
            self.lab.until(lambda h=host: len(re.findall(r"^(alpha|beta|gamma)\b", self.lab.exec(h, "holdfast", "sip", "servers"), re.M))
                           == int(count), f"{count} SIP servers on {host}", DEADLINE)

    def register(self, user, password, address):
        """A phone that does it again until it is answered, as phones do"""
        pid = int((STATE / self.lab.name / "hosts/client/init").read_text().split()[0])
        told = []

        def phone():
            enter_network(pid)
            with Agent(user, (address, 5060), password=password, local=self.lab.address("client")) as agent:
                def registered():
                    with contextlib.suppress(Exception):
                        told.append(agent.register())
                        return True
                    agent.server = (address, 5060)
                    return False

                self.lab.until(registered, f"{user} registered at {address}", DEADLINE)
                told.append("done")

        thread = threading.Thread(target=phone)
        thread.start()
        thread.join()
        assert told[-1:] == ["done"], told

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


def test_three_machines(new_lab):
    """Literally, in order; nobody sees an error, and nothing is lost."""
    lab = new_lab("-n", 3, "--no-daemon")
    with contextlib.closing(Reader(lab)) as reader:
        for block in blocks(THREE):
            try:
                reader.follow(block)
            except Exception as e:
                raise AssertionError(f"{block}: {e}\n{reader.logs()}") from e
