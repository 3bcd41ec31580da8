"""The holdfast command, end to end, against a scripted holdfastd that speaks ctl_v1."""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
HOLDFAST = os.environ.get("HOLDFAST", str(REPOSITORY / "build/src/ctl/holdfast"))
EXAMPLE = os.environ.get("EXAMPLE", str(REPOSITORY / "build/doc/examples/example-watch"))
HELLO, PUBLISH, WITHDRAW, WATCH, UNWATCH, QUERY, TRACE, RELOAD = 1, 2, 3, 4, 5, 6, 7, 8
GROUP, FOLLOW = 9, 10
RESULT, TEXT, EVENT, LINE = 16, 17, 18, 19
GROUP_STATE = 20
E_HELD, E_QUORUM, E_TIMEOUT = -1011, -1020, -1013

STATUS = {
    "host": "alpha", "state": "run", "version": "0.1.0", "incarnation": 4, "uptime_s": 3700,
    "pid": 77, "cluster_key_id": "00c0ffee", "transport": "multicast", "heartbeat_ms": 1000,
    "members": 3, "services": 12, "local_services": 2, "pulls_active": 0, "peers_behind": 0,
    "problems": [], "counters": {},
}


def string(size, data):
    return struct.pack({1: ">B", 2: ">H", 4: ">I"}[size], len(data)) + data


def frame(kind, body):
    return struct.pack(">IB", len(body) + 1, kind) + body


def result(seq, code=0, text=b""):
    return frame(RESULT, struct.pack(">Ii", seq, code) + string(2, text))


def text(seq, data):
    return frame(TEXT, struct.pack(">I", seq) + string(4, data))


def event(seq, kind, owner=b"", name=b"", value=b""):
    return frame(EVENT, struct.pack(">IB", seq, kind) + string(1, owner) + string(1, name)
                 + string(4, value))


class Daemon:
    """Accepts connections one after the other and answers each request by answer(kind, body)."""

    def __init__(self, path, answer, hello=frame(HELLO, b"\1" + string(2, b"alpha"))):
        self.path, self.answer, self.hello = path, answer, hello
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.conns = []
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        threads = []
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                break
            self.conns.append(conn)
            threads.append(threading.Thread(target=self.serve, args=(conn,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def serve(self, conn):
        stream = conn.makefile("rb")
        while True:
            try:
                head = stream.read(4)
                if len(head) < 4:
                    return
                message = stream.read(struct.unpack(">I", head)[0])
                kind, body = message[0], message[1:]
                if kind == HELLO:
                    conn.sendall(self.hello)
                    continue
                self.requests.append((kind, body[4:]))
                conn.sendall(self.answer(kind, struct.unpack(">I", body[:4])[0], body[4:]))
            except OSError:
                return

    def close(self):
        os.unlink(self.path)
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for conn in self.conns:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join()
        for conn in self.conns:
            conn.close()


@pytest.fixture
def start(tmp_path):
    daemons = []

    def make(answer, **more):
        daemons.append(Daemon(tmp_path / "sock", answer, **more))
        return daemons[-1]

    yield make
    for daemon in daemons:
        if daemon.listener.fileno() >= 0:
            daemon.close()


def args_of(tmp_path, *args):
    return [HOLDFAST, "-s", str(tmp_path / "sock"), *args]


def run(tmp_path, *args):
    done = subprocess.run(args_of(tmp_path, *args), capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def begin(tmp_path, *args):
    return subprocess.Popen(args_of(tmp_path, *args), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def query(answers):
    """Answers QUERY name by answers[name], in two pieces."""

    def answer(kind, seq, body):
        assert kind == QUERY
        data = answers[body[1:1 + body[0]].decode()]
        half = len(data) // 2
        return text(seq, data[:half]) + text(seq, data[half:]) + result(seq)

    return answer


def test_status(start, tmp_path):
    start(query({"status": json.dumps(STATUS).encode()}))
    code, out, err = run(tmp_path, "status")
    assert (code, err) == (0, "")
    assert out.startswith("alpha: running, no problems\n")
    assert "up 1 h 1 m" in out
    code, out, err = run(tmp_path, "status", "--json")
    assert json.loads(out) == STATUS


def test_status_watch_follows_until_the_signal(start, tmp_path):
    start(query({"status": json.dumps(STATUS).encode()}))
    process = begin(tmp_path, "status", "--watch", "--json")
    for _ in range(2):
        assert json.loads(process.stdout.readline()) == STATUS
    process.terminate()
    process.communicate(timeout=10)


def test_members_and_tree(start, tmp_path):
    members = [{"host": "alpha", "address": "", "state": "self", "services": 1, "period_ms": 1000},
               {"host": "beta", "address": "192.0.2.2:7480", "state": "alive", "services": 2,
                "heard_ms": 40, "period_ms": 1000, "behind": True, "pull_failures": 2,
                "last_error": "no answer in time"}]
    tree = [{"name": "/pg/a", "owner": "beta", "value": {"port": 5432}}]
    start(query({"members": json.dumps(members).encode(), "tree": json.dumps(tree).encode()}))
    code, out, _ = run(tmp_path, "members")
    assert code == 0
    assert "beta   192.0.2.2:7480  alive" in out and "2 pulls failed: no answer in time" in out
    code, out, _ = run(tmp_path, "tree", "/pg")
    assert out == 'NAME   HOST  VALUE\n/pg/a  beta  {"port":5432}\n'
    code, out, _ = run(tmp_path, "tree", "--json")
    assert json.loads(out) == tree


def test_answers_that_are_text(start, tmp_path):
    start(query({"metrics": b"holdfast_up 1\n", "recorder": b"a \x1b[31mline\n",
                 "config": b"user = \"\"\n"}))
    assert run(tmp_path, "metrics") == (0, "holdfast_up 1\n", "")
    assert run(tmp_path, "recorder") == (0, "a ?[31mline\n", "")
    assert run(tmp_path, "config") == (0, 'user = ""\n', "")


def test_answers_that_are_wrong(start, tmp_path):
    start(query({"status": b"[", "members": b"{}"}))
    code, _, err = run(tmp_path, "status")
    assert code == 1 and "not JSON" in err
    code, _, err = run(tmp_path, "members")
    assert code == 1 and "cannot show" in err


GROUPS = [{
    "name": "orders", "phase": "running", "epoch": 7, "quorate": True, "in_sync": ["copy1"],
    "primary": {"resource": "copy1", "host": "alpha", "address": "192.0.2.1"}, "why": "",
    "hosts": [{"host": "alpha", "address": "192.0.2.1", "here": True, "present": True,
               "subgroup": "copy1"}],
    "resources": [{"name": "copy1", "kind": "copy", "host": "alpha", "mirror": "in-sync",
                   "roles": [{"host": "alpha", "role": "open"}], "why": "", "error": ""}],
}]
HISTORY = [{"at": 1700000000000, "epoch": 1, "text": "created"}]


def test_group_show_and_history(start, tmp_path):
    start(query({"groups": json.dumps(GROUPS).encode(),
                 "group-history": json.dumps(HISTORY).encode()}))
    code, out, err = run(tmp_path, "group", "show")
    assert (code, err) == (0, "")
    assert out.startswith("group orders: running, epoch 7, quorate\n")
    assert "  copy1     primary  alpha  alpha:open\n" in out
    assert json.loads(run(tmp_path, "group", "show", "orders", "--json")[1]) == GROUPS
    code, out, err = run(tmp_path, "group", "history", "orders")
    assert (code, err) == (0, "") and "1      created\n" in out
    assert json.loads(run(tmp_path, "group", "history", "orders", "--json")[1]) == HISTORY


def group(action, name, host=b"", resource=b"", definition=b"", wait_ms=120000):
    return (GROUP, struct.pack(">BI", action, wait_ms) + string(1, name) + string(1, host)
            + string(1, resource) + string(4, definition))


@pytest.mark.parametrize("args, expected", [
    (("create", "g", "FILE"), group(1, b"g", definition=b"group g {}\n")),
    (("join", "g"), group(2, b"g")),
    (("join", "g", "--bring", "FILE"), group(2, b"g", definition=b"group g {}\n")),
    (("leave", "g"), group(3, b"g")),
    (("leave", "g", "--host", "beta"), group(3, b"g", b"beta")),
    (("switch", "g", "-t", "2.5"), group(4, b"g", wait_ms=2500)),
    (("switch", "g", "--to", "copy2"), group(4, b"g", b"copy2")),
    (("force", "g", "copy2", "--yes"), group(5, b"g", resource=b"copy2")),
    (("pause", "g"), group(6, b"g")),
    (("resume", "g"), group(7, b"g")),
    (("resume", "g", "copy2"), group(7, b"g", resource=b"copy2")),
    (("confirm", "g", "beta"), group(8, b"g", b"beta")),
])
def test_group_commands(start, tmp_path, args, expected):
    answers = [(0, b"it is done"), (0, b""), (E_QUORUM, b"no quorum: 1 of 3 hosts is heard")]
    daemon = start(lambda kind, seq, body: result(seq, *answers.pop(0)))
    (tmp_path / "def").write_text("group g {}\n")
    args = [str(tmp_path / "def") if a == "FILE" else a for a in args]
    assert run(tmp_path, "group", *args) == (0, "it is done\n", "")
    assert run(tmp_path, "group", *args) == (0, "done\n", "")
    assert run(tmp_path, "group", *args) == (
        1, "", "holdfast: no quorum: 1 of 3 hosts is heard\n")
    assert daemon.requests == [expected] * 3


def test_group_force_says_what_it_risks(start, tmp_path):
    daemon = start(lambda kind, seq, body: result(seq))
    code, out, err = run(tmp_path, "group", "force", "g", "copy2")
    assert (code, out) == (2, "") and "is lost" in err and "add --yes" in err
    assert daemon.requests == []


def test_group_definitions_that_cannot_be_sent(start, tmp_path):
    daemon = start(lambda kind, seq, body: result(seq))
    path = tmp_path / "def"
    code, _, err = run(tmp_path, "group", "create", "g", str(path))
    assert code == 1 and "cannot read" in err
    path.write_text("")
    code, _, err = run(tmp_path, "group", "create", "g", str(path))
    assert code == 1 and "is empty" in err
    path.write_text("x" * 65537)
    code, _, err = run(tmp_path, "group", "join", "g", "--bring", str(path))
    assert code == 1 and "at most 65536 bytes" in err
    code, _, err = run(tmp_path, "group", "pause", "g" * 32)
    assert code == 1 and "at most 31 bytes" in err
    assert daemon.requests == []


def test_group_definitions_that_are_refused(start, tmp_path):
    path = tmp_path / "def"
    path.write_text("x {\n}\n")
    start(lambda kind, seq, body: result(seq, -1016, b"definition:1: no section x"))
    assert run(tmp_path, "group", "create", "g", str(path)) == (
        1, "", f"holdfast: {path}:1: no section x\n")


def test_group_silence(start, tmp_path):
    code, _, err = run(tmp_path, "group", "pause", "g")
    assert code == 3 and "no socket" in err
    start(lambda kind, seq, body: b"" if kind == GROUP and seq == 1 else result(seq))
    code, _, err = run(tmp_path, "-t", "0.2", "group", "pause", "g")
    assert code == 3 and "no answer" in err


def test_group_too_late(start, tmp_path):
    start(lambda kind, seq, body: result(seq, E_TIMEOUT, b"not done within 1 s: waits for beta"))
    assert run(tmp_path, "group", "pause", "g") == (
        3, "", "holdfast: not done within 1 s: waits for beta\n")


def test_publish_is_held_and_survives_a_restart(start, tmp_path):
    def answer(kind, seq, body):
        return result(seq)

    daemon = start(answer)
    process = begin(tmp_path, "publish", "/pg/a", '{"port":1}')
    assert process.stdout.readline() == "published /pg/a\n"
    daemon.close()
    assert "is lost" in process.stderr.readline()
    published = threading.Event()

    def again(kind, seq, body):
        published.set()
        return result(seq)

    daemon = start(again)
    assert "is back" in process.stderr.readline()
    assert published.wait(10)
    expected = struct.pack(">I", 0) + string(1, b"/pg/a") + string(4, b'{"port":1}')
    assert daemon.requests == [(PUBLISH, expected)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_publish_refused_detached_and_invalid(start, tmp_path):
    codes = [E_HELD, 0]
    daemon = start(lambda kind, seq, body: result(seq, codes.pop(0), b"held by another program"))
    code, out, err = run(tmp_path, "publish", "/a", "{}")
    assert (code, out, err) == (1, "", "holdfast: /a: held by another program\n")
    assert run(tmp_path, "publish", "/a", "{}", "--detach", "2.5") == (
        0, "published /a for 2.5 s\n", "")
    assert daemon.requests[1][1][:4] == struct.pack(">I", 2500)
    code, _, err = run(tmp_path, "publish", "/a", "[1]")
    assert code == 1 and "not one JSON object" in err
    code, _, err = run(tmp_path, "publish", "a", "{}")
    assert code == 1 and "not a name" in err


def test_withdraw_and_reload(start, tmp_path):
    codes = [0, 0, -1012, -1016]
    start(lambda kind, seq, body: result(seq, codes.pop(0), b"because"))
    assert run(tmp_path, "withdraw", "/a") == (0, "withdrawn /a\n", "")
    assert run(tmp_path, "reload")[0] == 0
    assert run(tmp_path, "withdraw", "/a") == (1, "", "holdfast: because\n")
    assert run(tmp_path, "reload") == (1, "", "holdfast: because\n")


@pytest.mark.parametrize("args, expected", [
    ((), ["added    /a  beta  {\"x\":1}", "synced", "removed  /a  beta"]),
    (("--json",), ['{"event":"added","name":"/a","owner":"beta","value":{"x":1}}',
                   '{"event":"synced"}', '{"event":"removed","name":"/a","owner":"beta"}']),
])
def test_watch(start, tmp_path, args, expected):
    def answer(kind, seq, body):
        assert (kind, body) == (WATCH, string(1, b"/a"))
        return (result(seq) + event(seq, 1, b"beta", b"/a", b'{"x":\n1}') + event(seq, 4)
                + event(seq, 3, b"beta", b"/a"))

    start(answer)
    process = begin(tmp_path, "watch", "/a", *args)
    assert [process.stdout.readline().rstrip("\n") for _ in expected] == expected
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_trace(start, tmp_path):
    def answer(kind, seq, body):
        assert kind == TRACE
        if body == struct.pack(">I", 0):
            return result(seq)
        return result(seq) + frame(LINE, struct.pack(">I", seq) + string(2, b"[dir] hello"))

    start(answer)
    process = begin(tmp_path, "trace", "dir")
    assert process.stdout.readline() == "[dir] hello\n"
    process.terminate()
    process.communicate(timeout=10)
    assert run(tmp_path, "trace", "off") == (0, "", "")
    code, _, err = run(tmp_path, "trace", "nonsense")
    assert code == 2 and "directory: adverts" in err


def test_nothing_answers(tmp_path):
    path = tmp_path / "sock"
    code, _, err = run(tmp_path, "status")
    assert code == 3 and f"no socket at {path}" in err
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    code, _, err = run(tmp_path, "status")
    assert code == 3 and f"nobody listens on {path}" in err
    listener.listen(1)
    code, _, err = run(tmp_path, "-t", "0.2", "status")
    assert code == 3
    assert err == (f"holdfast: no answer from holdfastd on {path} within 0.2 s: is it running? "
                   "try: systemctl status holdfastd\n")
    listener.close()


def test_silence_after_hello(start, tmp_path):
    start(lambda kind, seq, body: b"")
    code, _, err = run(tmp_path, "-t", "0.2", "status")
    assert code == 3 and "within 0.2 s" in err
    code, _, err = run(tmp_path, "-t", "0.2", "publish", "/a", "{}")
    assert code == 3 and "within 0.2 s" in err
    code, _, err = run(tmp_path, "-t", "0.2", "publish", "/a", "{}", "--detach", "1")
    assert code == 3


def test_another_version(start, tmp_path):
    start(lambda kind, seq, body: b"", hello=frame(HELLO, b"\2" + string(2, b"alpha")))
    code, _, err = run(tmp_path, "status")
    assert code == 1 and "another version of the control protocol" in err


def test_keygen_and_config_files(tmp_path):
    key = tmp_path / "key"
    code, out, _ = run(tmp_path, "keygen", str(key))
    assert code == 0 and str(key) in out
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_text().strip()) == 64
    code, _, err = run(tmp_path, "keygen", str(key))
    assert code == 1 and "not overwritten" in err
    conf = tmp_path / "conf"
    conf.write_text("host { name = alpha }\ndirectory { heartbeat = 2s }\n")
    assert run(tmp_path, "config", "--check", str(conf)) == (0, f"{conf} is valid\n", "")
    code, out, _ = run(tmp_path, "config", str(conf))
    assert code == 0 and "heartbeat = 2s" in out
    conf.write_text(out)
    assert run(tmp_path, "config", str(conf)) == (0, out, "")
    conf.write_text("directory { hartbeat = 2s }\n")
    code, _, err = run(tmp_path, "config", "--check", str(conf))
    assert code == 1 and err.startswith(f"holdfast: {conf}:1: ") and '"heartbeat"' in err


@pytest.mark.parametrize("args", [
    (), ("nonsense",), ("publish", "/a"), ("status", "x"), ("members", "--watch"),
    ("group",), ("group", "x"), ("group", "show", "a", "b"), ("group", "create", "g"),
    ("group", "pause"), ("group", "pause", "g", "--yes"), ("group", "switch", "g", "beta"),
    ("group", "leave", "g", "--to", "x"), ("group", "confirm", "g"), ("status", "--yes"),
    ("-t", "0", "status"), ("publish", "/a", "{}", "--detach", "x"), ("--nonsense",),
])
def test_usage(tmp_path, args):
    code, out, err = run(tmp_path, *args)
    assert (code, out) == (2, "") and err


def test_help_and_version(tmp_path):
    code, out, _ = run(tmp_path, "--help")
    assert code == 0 and "publish NAME JSON" in out
    assert run(tmp_path, "version")[1].startswith("holdfast ")
    assert run(tmp_path, "--version") == run(tmp_path, "version")


def test_full_output(tmp_path):
    with open("/dev/full", "w", encoding="ascii") as full:
        conf = tmp_path / "conf"
        conf.write_text("host { name = alpha }\n")
        done = subprocess.run(args_of(tmp_path, "config", str(conf)), stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_the_example_program(start, tmp_path):
    def answer(kind, seq, body):
        if kind == WATCH:
            return result(seq) + event(seq, 1, b"beta", b"/a", b"{}") + event(seq, 4)
        return result(seq)

    start(answer)
    process = subprocess.Popen([EXAMPLE, "/x", "{}", "/"], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "HOLDFAST_SOCKET": str(tmp_path / "sock")})
    lines = {process.stdout.readline().strip() for _ in range(3)}
    assert lines == {"published /x", "added beta /a {}", "that is all for now"}
    process.communicate(timeout=10)  # the end of its input ends it
    assert process.returncode == 0


def group_state(seq, flags, epoch=0, host=b""):
    return frame(GROUP_STATE, struct.pack(">IBBQ", seq, flags, 4, epoch) + string(1, b"r")
                 + string(1, host) + string(1, b"192.0.2.1") + string(1, b"") + string(2, b""))


def test_the_leader_example(start, tmp_path):
    def answer(kind, seq, body):
        assert (kind, body) == (FOLLOW, string(1, b"jobs"))
        return (result(seq) + group_state(seq, 0) + group_state(seq, 3, 1, b"beta")
                + group_state(seq, 7, 2, b"alpha") + group_state(seq, 7, 4, b"alpha"))

    daemon = start(answer)
    process = subprocess.Popen([EXAMPLE.replace("example-watch", "example-lead"), "jobs"], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env={**os.environ, "HOLDFAST_SOCKET": str(tmp_path / "sock")})
    expected = ["jobs: nobody works", "jobs: beta works", "begin to work in epoch 2",
                "stop working: epoch 2 is over", "begin to work in epoch 4"]
    assert [process.stdout.readline().rstrip() for _ in expected] == expected
    daemon.close()  # it cannot know any more
    assert process.stdout.readline() == "stop working: epoch 4 is over\n"
    process.communicate(timeout=10)  # the end of its input ends it
    assert process.returncode == 0


@pytest.mark.parametrize("words, expected", [
    (["holdfast", "me"], ["members", "metrics"]),
    (["holdfast", "-s", "x", "sta"], ["status"]),
    (["holdfast", "status", "--w"], ["--watch"]),
    (["holdfast", "trace", "d"], ["dir", "dns"]),
    (["holdfast", "group", "s"], ["show", "switch"]),
    (["holdfast", "group", "force", "x", "c", "--y"], ["--yes"]),
    (["holdfast", "group", "pause", "o"], ["orders"]),
    (["holdfast", "group", "resume", "orders", "c"], ["copy1"]),
    (["holdfast", "group", "confirm", "orders", ""], ["alpha"]),
    (["holdfast", "group", "switch", "orders", "--to", ""], ["alpha", "copy1"]),
])
def test_completion(start, tmp_path, words, expected):
    start(query({"groups": json.dumps(GROUPS).encode()}))
    script = """
        _init_completion() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
            cur=${words[cword]} prev=${words[cword-1]}; }
        . "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _holdfast
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, "bash",
                           str(REPOSITORY / "packaging/completion/holdfast"), *words],
                          capture_output=True, text=True, timeout=30,
                          env={**os.environ, "HOLDFAST_SOCKET": str(tmp_path / "sock"),
                               "PATH": f"{pathlib.Path(HOLDFAST).parent}:{os.environ['PATH']}"})
    assert (done.stdout.split(), done.stderr) == (expected, "")


def test_completion_knows_every_command():
    usage = subprocess.run([HOLDFAST, "--help"], capture_output=True, text=True, timeout=30).stdout
    lines = [line.split() for line in usage.splitlines()
             if line.startswith("  ") and line[2] not in "- "]
    commands = [" ".join(words[:2 if words[0] == "group" else 1]) for words in lines]
    completion = (REPOSITORY / "packaging/completion/holdfast").read_text()
    manual = (REPOSITORY / "doc/man/holdfast.1").read_text()
    assert len(commands) > 10
    for command in commands:
        assert all(word in completion for word in command.split())
        assert f".It Cm {command}" in manual
