"""The guides in doc/guide: every configuration block is valid, every command exists, every link leads somewhere; and
doc/guide/three-machines.md is followed literally on hosts of the lab, up to the loss of one of them and its return."""
import contextlib
import re
import subprocess

import pytest

from guide import GUIDES, blocks, for_host
from lab import ROOT
from reader import Reader, find_program

THREE = ROOT / "doc/guide/three-machines.md"
PGBOUNCER, PACEMAKER, KAMAILIO = (ROOT / f"doc/guide/from-{x}.md" for x in ("pgbouncer", "pacemaker", "kamailio"))
CHECKS = {"holdfast.conf": ("holdfast", "config", "--check"), "holdfast-pg.conf": ("holdfast-pg", "--check", "-c"),
          "holdfast-sip.conf": ("holdfast-sip", "--check", "-c")}


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
        folders = (ROOT / "src" / d for d in ("hostd", "core/group", "pg", "sip"))
        source = "".join(p.read_text(encoding="utf-8") for d in folders for p in sorted(d.glob("*.c")))
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


def test_three_machines(new_lab):
    """Literally, in order; nobody sees an error, and nothing is lost."""
    with contextlib.closing(Reader(new_lab("-n", 3, "--no-daemon"))) as reader:
        reader.follow_all(blocks(THREE))


# --- from other programs ---


# of [databases], values, and what PgBouncer has since 1.19
NOT_IN_CONFIG = {"host", "port", "dbname", "statement", "ldap", "auth_dbname", "auth_ident_file", "max_prepared_statements"}


def table(guide, heading):
    """[[words in `backquotes` of a cell, ...] of a row, ...] of the first table in the section of that heading"""
    section = guide.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = re.search(r"^\|[-|]+\n((?:\|.*\n)+)", section, re.M)[1].splitlines()
    return [[re.findall(r"`([^`]+)`", cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def shows(words):
    """`SHOW A`, `B` mean SHOW A and SHOW B."""
    said = [w if " " in w else f"SHOW {w}" for w in words] if words and words[0].startswith("SHOW ") else []
    return [w for w in said if w.startswith("SHOW ")]


def test_from_pgbouncer(new_lab):
    """Literally, on a machine with Debian's PostgreSQL and PgBouncer. What the tables say of both there is."""
    lab = new_lab("-n", 1, "--no-daemon")
    with contextlib.closing(Reader(lab, ("alpha",))) as reader:
        reader.apt("alpha")
        reader.debian_database("alpha")
        reader.shell("alpha", """
cd /etc/pgbouncer
sed -i -e '/^\\[databases\\]/a app = host=127.0.0.1' -e '/^\\[pgbouncer\\]/a admin_users = app' pgbouncer.ini
echo '"app" "app-secret"' >userlist.txt
""")
        reader.start("alpha", "pgbouncer")
        reader.connect("alpha", "host=127.0.0.1", "port=6432", "user=app", "dbname=app", "password=app-secret")
        reader.ask("create table orders (n int);\n")
        console = ["psql", "-XAt", "-d", "host=127.0.0.1 port=6432 user=app dbname=pgbouncer password=app-secret", "-c"]
        has = {line.partition("|")[0] for line in lab.exec("alpha", *console, "SHOW CONFIG").splitlines()}
        options = {w.partition("=")[0].strip() for row in table(PGBOUNCER, "What you know, and what it is here") for w in row[0]}
        unknown = {o for o in options if re.fullmatch(r"[a-z_]+", o)} - has - NOT_IN_CONFIG
        assert not unknown, unknown
        for row in table(PGBOUNCER, "The console"):
            for show in shows(row[0]):
                lab.exec("alpha", *console, show)
        reader.follow_all(blocks(PGBOUNCER))
        for row in table(PGBOUNCER, "The console"):
            for show in shows(row[1]):
                lab.exec("alpha", "psql", "-XAt", "-h", "/run/holdfast-pg", "-p", "6432", "-U", "root", "holdfast", "-c", show)


def test_from_pacemaker(new_lab, tmp_path):
    """Literally, from the point at which Pacemaker has let go of a database with a standby that is behind: nothing is lost."""
    lab = new_lab("-n", 2, "--engine", "corosync", "--no-daemon")
    with contextlib.closing(Reader(lab, ("alpha", "beta"))) as reader:
        for host in reader.hosts:
            reader.apt(host)
        key = lab.exec("alpha", "cat", "/etc/holdfast/cluster.key")
        lab.run("exec", "beta", "--", "sh", "-c", "cat >/etc/holdfast/cluster.key", stdin=key)
        reader.shell("alpha", reader.here("""
export PATH=$PATH:/usr/lib/postgresql/15/bin
install -d -o postgres -m 0750 /srv/orders
runuser -u postgres -- initdb -D /srv/orders/data -A trust --locale=C.UTF-8 >/dev/null
runuser -u postgres -- pg_ctl -D /srv/orders/data -o "-k /srv/orders" -w -l /srv/orders/log start >/dev/null
runuser -u postgres -- psql -X -h /srv/orders postgres -c "create table orders (n int)" -c "insert into orders values (1)"
ip addr add 192.0.2.100/24 dev eth0
runuser -u postgres -- pg_basebackup -h /srv/orders -D /srv/orders/behind -R -c fast
cp -a /srv/orders/behind MOVED
""").replace("MOVED", str(tmp_path)))
        reader.shell("beta", f"""
install -d -o postgres -m 0750 /srv/orders
cp -a {tmp_path}/behind /srv/orders/data
cd /srv/orders
sed -i "s/^primary_conninfo.*/primary_conninfo = 'host=nowhere'/" data/postgresql.auto.conf
runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_ctl -D data -o "-k /srv/orders" -w -l log start >/dev/null
""")
        reader.shell("alpha", """
runuser -u postgres -- psql -X -h /srv/orders postgres -c "insert into orders values (2)"
rm -r /srv/orders/behind
""")
        reader.follow_all(blocks(PACEMAKER))
        said = reader.lab.exec("beta", "psql", "-XAt", "-U", "postgres", "-c", "select count(*) from orders", "postgres")
        assert said == "2\n"


def test_from_kamailio(new_lab):
    """Literally: users of a file register and have a home."""
    lab = new_lab("-n", 1, "--no-daemon")
    with contextlib.closing(Reader(lab, ("alpha",))) as reader:
        reader.apt("alpha")
        reader.debian_database("alpha", "create role sip login password 'sip-secret';", "create database sip owner sip;")
        reader.shell("alpha", reader.here("""
echo "listen_addresses = '*'" >>/etc/postgresql/15/guide/postgresql.conf
echo "host all all 192.0.2.0/24 scram-sha-256" >>/etc/postgresql/15/guide/pg_hba.conf
ip addr add 192.0.2.100/24 dev eth0
pg_ctlcluster 15 guide restart
echo "alice alice-secret" >users
"""))
        reader.follow_all(blocks(KAMAILIO))
