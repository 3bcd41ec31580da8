"""README.md, HACKING.md, the manual pages, pages of design: what they show is there. Their commands are run, or, where that says nothing,
looked for in the programs; their configuration is checked by the program it is for; no option and no function is left out."""
import contextlib
import os
import pathlib
import re
import subprocess

import pytest

from lab import ROOT, Lab, end
from reader import PATH, Reader, find_program
from test_guides import CHECKS

MAN = ROOT / "doc/man"
README = ROOT / "README.md"
TEXTS = (README, ROOT / "HACKING.md", ROOT / "bench/README.md", *sorted(ROOT.glob("doc/**/*.md")))
# C programs with their manual pages
DAEMON = "src/os/daemon.c"  # the command line of all of them
GETOPT = {"holdfast": "src/ctl/main.c", "holdfastd": DAEMON, "holdfast-pg": DAEMON, "holdfast-sip": DAEMON,
          "holdfast-announce": "src/announce/announce.c"}


def page(name):
    return (MAN / name).read_text(encoding="utf-8")


def plain(mdoc):
    """Of a literal display: its characters"""
    return mdoc.replace(r"\e", "\\").replace(r"\*(Gt", ">").replace(r"\&", "")


def displays(name):
    """(line, section, text) of each literal display, .Bd -literal and .Dl, of a page"""
    section, inside, found = "", None, []
    for number, line in enumerate(page(name).splitlines(), 1):
        if line.startswith((".Sh ", ".Ss ")):
            section = line[4:]
        elif line.startswith(".Bd -literal"):
            inside = []
        elif line == ".Ed":
            found.append((number, section, plain("\n".join(inside) + "\n")))
            inside = None
        elif inside is not None:
            inside.append(line)
        elif line.startswith(".Dl "):
            found.append((number, section, plain(line[4:]) + "\n"))
    return found


def shown(heading, begin):
    """The indented block of README.md in the section of that heading that has this line"""
    section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.M):
        text = re.sub(r"^    ", "", block.strip("\n"), flags=re.M) + "\n"
        if re.search(rf"^{re.escape(begin)}", text, re.M):
            return text
    raise LookupError(begin)


# --- nothing is left out ---


@pytest.mark.parametrize("program", GETOPT)
def test_flags_are_in_the_manual(program):
    text = (ROOT / GETOPT[program]).read_text(encoding="utf-8")
    manual = page("holdfast.1" if program == "holdfast" else f"{program}.8")
    if GETOPT[program] == DAEMON:
        main = ROOT / {"holdfastd": "src/hostd", "holdfast-pg": "src/pg", "holdfast-sip": "src/sip"}[program] / "main.c"
        for task in re.findall(r'\.task = "(\w+)"', main.read_text(encoding="utf-8")):
            text += f'{{"{task}", no_argument'
    short = re.search(r'getopt(?:_long)?\(argc, argv, "([^"]+)"', text)[1].replace(":", "")
    for flag in short:
        assert re.search(rf"\bFl {flag}\b", manual), f"-{flag}"
    for flag in re.findall(r'\{"([\w-]+)", (?:no|required|optional)_argument', text):
        assert re.search(rf"\bFl Fl {flag}(?![\w-])", manual), f"--{flag}"


def test_flags_of_the_lab_are_in_the_manual():
    usage = subprocess.run([find_program("holdfast-lab"), "--help"], capture_output=True, text=True, check=True).stdout
    manual = page("holdfast-lab.8")
    for flag in set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", usage)):
        name = flag.removeprefix("--").removeprefix("-")
        assert re.search(rf"\bFl -?{name}(?![\w-])", manual), flag
    for command in set(re.findall(r"(?:\] |\|)([a-z][a-z-]+)(?= |\||$)", usage, re.M)) - {"corosync", "hang"}:
        assert re.search(rf"\bCm .*\b{command}\b", manual), command


def test_commands_are_in_the_manual():
    usage = subprocess.run([find_program("holdfast"), "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?) .*\S  +\S", usage, re.M)
    said = re.sub(r"\b(?:Cm|Op|Ar|Fl|Oc|Oo|Xc|Xo|Ic) ", "", page("holdfast.1"))
    for command in {c.strip() for c in commands}:
        assert re.search(rf"^\.It .*\b{command.replace(' ', '.*')}\b", said, re.M), command


def test_the_library_is_in_the_manual():
    """Functions, types and constants of the header"""
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "include/holdfast/holdfast.h").read_text(encoding="utf-8"), flags=re.S)
    manual = page("libholdfast.3")
    names = set(re.findall(r"\b(holdfast_\w+|HOLDFAST_[A-Z]\w*)\b", header)) - {"HOLDFAST_H", "HOLDFAST_HOLDFAST_H"}
    assert len(names) > 30
    missing = {n for n in names if not re.search(rf"\b{n}\b", manual)}
    assert not missing, missing


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in set(TEXTS) - {ROOT / "doc/status.md"}:  # which says what is to come
        for target in re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", text.read_text(encoding="utf-8"), re.M):
            assert re.search(rf"^{target}:", makefile, re.M) or target == "TARGET", f"{text.name}: make {target}"


# --- commands that are named ---


def test_named_commands_exist():
    usage = subprocess.run([find_program("holdfast"), "--help"], capture_output=True, text=True, check=True).stdout
    named = [(t.name, c) for t in TEXTS for c in re.findall(r"`holdfast ([a-z][^`]*)`", t.read_text(encoding="utf-8"))]
    for manual in sorted(MAN.glob("*.[1-8]")):
        named += [(manual.name, re.sub(r" (?:Cm|Ar|Fl|Op|Oo|Oc|Pa|Ns) ", " ", c))
                  for c in re.findall(r"^\.Ic holdfast ([a-z].*)", manual.read_text("utf-8"), re.M)]
    assert len(named) > 40
    for where, line in named:
        words = line.split()
        assert re.search(rf"^  {words[0]}\b", usage, re.M), f"{where}: holdfast {line}"
        if words[0] in ("group", "sip") and len(words) > 1 and re.fullmatch("[a-z]+", words[1]):
            assert re.search(rf"^  {words[0]} {words[1]}\b", usage, re.M), f"{where}: holdfast {line}"


# --- configuration ---


def conf_blocks():
    found = [(f"{name}.5:{number}", name, text) for name in CHECKS for number, _, text in displays(f"{name}.5") if "{\n" in text]
    found.append(("README.md", "holdfast.conf", shown("On your machines", "directory {")))
    found += [(str(p.relative_to(ROOT)), re.sub("@.*", "", p.stem) + ".conf" if "@" in p.name else p.name, p.read_text(encoding="utf-8"))
              for p in (*sorted((ROOT / "doc/examples").glob("s*/holdfast-*.conf")), *sorted((ROOT / "packaging").glob("holdfast*.conf")))]
    found.append(("sandbox.conf", "", (ROOT / "packaging/sandbox.conf").read_text(encoding="utf-8")))
    return [f for f in found if f[1]]


@pytest.mark.parametrize("where, name, text", conf_blocks(), ids=lambda x: x if isinstance(x, str) and "\n" not in x else "")
def test_configuration_is_valid(where, name, text, tmp_path):
    """By the program it is for; the files that it names are there"""
    key, cert = tmp_path / "cluster.key", tmp_path / "cert.pem"
    subprocess.run([find_program("holdfast"), "keygen", key], check=True, capture_output=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
                    "-keyout", tmp_path / "key.pem", "-out", cert], check=True, capture_output=True)
    (tmp_path / "userlist.txt").write_text("", encoding="utf-8")
    text = re.sub(r'"?/etc/holdfast/(userlist.txt|cluster.key)"?', rf'"{tmp_path}/\1"', text)
    text = re.sub(r'"?/etc/holdfast/pg-hba.conf"?', f'"{ROOT}/packaging/pg-hba.conf"', text)
    text = text.replace("/etc/holdfast/sip.pem", str(cert)).replace("/etc/holdfast/sip.key", str(tmp_path / "key.pem"))
    if name != "holdfast.conf" and "cluster.key" not in text:
        text = re.sub(r"^(sip|service) \{", rf'\1 {{ key_file = "{key}"\n', text, flags=re.M)
        if name == "holdfast-sip.conf" and "key_file" not in text:
            text += f'sip {{ key_file = "{key}" domains = {{ example.org }} }}\n'
    (tmp_path / name).write_text(text, encoding="utf-8")
    program, *options = CHECKS[name]
    command = [find_program(program), *options, tmp_path / name]
    p = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert p.returncode == 0, f"{where}: {p.stdout}{p.stderr}"


def test_an_unknown_option_is_found(tmp_path):
    """The check above would tell."""
    for name, (program, *options) in CHECKS.items():
        (tmp_path / name).write_text("nothing { like = this }\n", encoding="utf-8")
        assert subprocess.run([find_program(program), *options, tmp_path / name], capture_output=True, check=False).returncode == 1


def definitions():
    """Of groups: (where, text)"""
    found = [(f"holdfast-group.5:{number}", text) for number, _, text in displays("holdfast-group.5")]
    found += [(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8")) for d in ("groups", "shares", "sip")
              for p in sorted((ROOT / "doc/examples" / d).glob("*.conf")) if not p.name.startswith("holdfast-")]
    return found


def test_group_definitions_are_taken(new_lab):
    """A group is made of each; that it has nothing to run here is another matter."""
    lab = new_lab("-n", 1, "--engine", "corosync")
    for i, (where, text) in enumerate(definitions()):
        lab.put("alpha", "/run/definition", text)
        p = lab.run("exec", "alpha", "--", "holdfast", "-t", "20", "group", "create", f"g{i}", "/run/definition", check=False)
        assert lab.json("alpha", "group", "show", f"g{i}")[0]["resources"], f"{where}: {p.stdout}{p.stderr}"
    lab.put("alpha", "/run/definition", "resource one { agnet = ocf:holdfast:address }\n")
    assert lab.run("exec", "alpha", "--", "holdfast", "group", "create", "bad", "/run/definition", check=False).returncode == 1


def columns(sql):
    """{table: {column, ...}} of its CREATE TABLEs"""
    found = {}
    for table, body in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \(((?:[^()]|\([^()]*\))*)\)", re.sub(r"--.*", "", sql)):
        rows = re.split(r",(?![^(]*\))", body)
        found[table] = {r.split()[0] for r in rows} - {"PRIMARY"}
    return found


def test_tables_of_the_design():
    (text,) = re.findall(r"^```sql\n(.*?)^```", (ROOT / "doc/design/sip.md").read_text(encoding="utf-8"), re.S | re.M)
    source = (ROOT / "src/sip/store_schema.c").read_text(encoding="utf-8").replace("\\\n", "\n").replace('\\"', "'")
    source = re.sub(r'"\s*\b(?:TEXT|BYTES|END)\b\s*"', "t", source)
    schema = "".join(re.findall(r'"([^"]*)"', source))
    assert columns(text) == columns(schema)


# --- commands that are run ---


@contextlib.contextmanager
def own_lab(name):
    """A lab that the text itself raises"""
    lab = Lab(f"{name}-{os.getpid()}")
    try:
        yield lab
    finally:
        lab.down()


def follow_lab(lab, text, folder):
    """As typed in the source tree; top for one round, as nobody types q."""
    (folder / "build").symlink_to(ROOT / "build")
    text = re.sub(r"^make$", "", text, flags=re.M)
    text = re.sub(r"holdfast top(?= )", "holdfast top -b -n 1", text)
    env = {**os.environ, "HOLDFAST_LAB": lab.name}
    with subprocess.Popen(["bash", "-euxo", "pipefail", "-c", text], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as p:
        try:
            said = p.communicate(timeout=120)[0]
        finally:
            end(p)
    assert p.returncode == 0, said
    return said


def test_readme_by_hand(tmp_path):
    with own_lab("readme") as lab:
        assert "jobs" in follow_lab(lab, shown("Try it", "holdfast-lab up"), tmp_path)


def test_example_of_the_lab(tmp_path):
    with own_lab("example") as lab:
        text = displays("holdfast-lab.8")[-1][2]
        folder = str(pathlib.Path(find_program("holdfast-lab")).parent)
        follow_lab(lab, f"export PATH={folder}:$PATH\n{text}", tmp_path)


def test_readme_in_front_of_a_database(new_lab):
    """As the user postgres, before Debian's PostgreSQL, which dies in the middle of a transaction"""
    lab = new_lab("-n", 1, "--no-daemon")
    with contextlib.closing(Reader(lab, ("alpha",))) as reader:
        reader.debian_database("alpha")
        text = shown("Try it", "cat >holdfast-pg.conf")
        before, psql = re.fullmatch(r"(.*)^(psql [^#\n]*)#[^\n]*\n", text, re.M | re.S).groups()
        reader.shell("alpha", f"install -d -o postgres /srv/by-hand; ln -s {ROOT}/build /srv/by-hand/build")
        typed = reader.lab.popen("alpha", "env", PATH, "runuser", "-u", "postgres", "--", "bash", "-euc",
                                 f"cd /srv/by-hand; {before}wait", stdin=subprocess.DEVNULL)
        reader.units["alpha", "by-hand"] = typed
        words = dict(zip(psql.split()[1:-1:2], psql.split()[2:-1:2]))
        reader.connect("alpha", f"host={words['-h']}", f"port={words['-p']}", f"user={words['-U']}", f"dbname={psql.split()[-1]}")
        reader.ask("create table t (n int);\nbegin;\ninsert into t values (1);\n")
        reader.shell("alpha", "kill -9 $(head -n 1 /srv/guide/postmaster.pid)")
        lab.until(lambda: reader.shell("alpha", "pg_ctlcluster 15 guide start") is None, "the server again")
        reader.ask("commit;\nselect count(*) from t;\n")
        reader.answer("1")


def test_readme_on_your_machines(new_lab):
    """With the package's files; what a browser would show is fetched."""
    with contextlib.closing(Reader(new_lab("-n", 1, "--no-daemon"), ("alpha",))) as reader:
        reader.apt("alpha")
        text = shown("On your machines", "systemctl enable --now holdfastd")
        text = text.replace("xdg-open", "curl -fsS -o /dev/null")
        for line in text.splitlines():
            reader.run("alpha", line.partition("#")[0])


# --- libholdfast ---


def test_example_of_the_library(new_lab, tmp_path):
    """It is compiled as it stands, and publishes and watches."""
    (text,) = [t for _, section, t in displays("libholdfast.3") if section == "EXAMPLES"]
    (tmp_path / "example.c").write_text(f"""
#include <holdfast/holdfast.h>
#include <stdint.h>
#include <stdio.h>

static void on_event(void *arg, enum holdfast_event event, const char *owner, const char *name, const char *value)
{{
    (void)arg;
    printf("%d %s %s %s\\n", (int)event, owner ? owner : "", name ? name : "", value ? value : "");
    fflush(stdout);
}}

int main(void)
{{
{text}
    return rc ? 1 : 0;
}}
""", encoding="utf-8")
    library = ROOT / "build/src/lib"
    subprocess.run(["cc", "-Wall", "-Werror", "-I", ROOT / "include", "-o", tmp_path / "example", tmp_path / "example.c", "-L", library,
                    "-lholdfast", f"-Wl,-rpath,{library}"], check=True)
    lab = new_lab("-n", 1)
    p = lab.popen("alpha", str(tmp_path / "example"))
    try:
        lab.until(lambda: lab.tree("alpha", "/web") == {"/web/shop/1": ("alpha", {"port": 8080})}, "the example's service")
        lab.publish_detached("alpha", "/pg/one", {"port": 5432})
        while "/pg/one" not in (line := p.stdout.readline()):
            assert line, "it ended"
    finally:
        end(p)


def test_examples_of_the_command(new_lab):
    """Of holdfast(1), on two hosts with a group"""
    lab = new_lab("-n", 2, "--engine", "corosync")
    lab.put("alpha", "/run/orders", "resource lead { fence = none }\n")
    lab.exec("alpha", "holdfast", "group", "create", "orders", "/run/orders")
    lab.exec("beta", "holdfast", "group", "join", "orders")
    publish, top, watch, switch, backup, restore = [t for _, section, t in displays("holdfast.1") if section == "EXAMPLES"]
    published = lab.popen("alpha", "sh", "-c", f"exec {publish}")
    stub = 'systemctl() { echo "$@" >>/run/told; }\n'
    watching = lab.popen("alpha", "bash", "-c", stub + watch)
    try:
        lab.until(lambda: "/web/shop/1" in lab.tree("beta"), "the example's service")
        lab.until(lambda: "reload proxy" in lab.get("alpha", "/run/told"), "the proxy reloaded")
        assert "alpha" in lab.exec("alpha", "sh", "-c", top)
        lab.exec("alpha", "sh", "-c", f"mkdir -p /var/backups; {backup}")
        lab.exec("alpha", "sh", "-c", restore.replace("/mnt/alpha", "/var/backups").replace("--yes", "--check"))
        lab.until(lambda: lab.json("alpha", "group", "show", "orders")[0]["phase"] == "running", "the group runs")
        lab.exec("alpha", "sh", "-c", switch)
        lab.until(lambda: lab.json("alpha", "group", "show", "orders")[0]["primary"]["host"] == "beta", "beta leads")
    finally:
        for p in (published, watching):
            end(p)
