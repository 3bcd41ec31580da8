"""`holdfast top` on a terminal of ours, told by a scripted holdfastd: what it draws, and that the terminal is as before however it ends."""
import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from test_command import HOLDFAST, args_of, query, run
from test_command import start  # noqa: F401 pylint: disable=unused-import

ENTER, LEAVE, HOME = "\033[?1049h\033[?25l\033[?7l", "\033[?7h\033[?25h\033[?1049l", "\033[H"
DEADLINE = 20.0
OVERVIEW = {
    "host": "alpha", "state": "run", "members": 2, "hosts_more": 0,
    "problems": [{"severity": "error", "what": "beta fell silent 7 s ago: its services have left the tree", "remedy": "see whether the host is up"}],
    "hosts": [{"host": "alpha", "state": "self", "draining": ""}, {"host": "beta", "state": "dead", "draining": ""}],
    "groups": [], "managers": [], "sip": [],
    "events": [{"at": 1700000000000 + i, "about": "host", "name": "beta", "text": f"event {i}"} for i in range(100)], "samples": [],
}


def answers(**changes):
    return query({"overview": json.dumps(OVERVIEW | changes).encode()})


class Terminal:
    """holdfast top on a terminal of this size. `all` is what it has written."""

    def __init__(self, tmp_path, *args, rows=24, columns=80):
        self.ours, self.theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.theirs)
        self.all = ""
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            args_of(tmp_path, "top", *args), stdin=self.theirs, stdout=self.theirs, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, "NO_COLOR": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"})

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))  # SIGWINCH comes of it

    def read(self, timeout):
        if select.select([self.ours], [], [], timeout)[0]:
            self.all += os.read(self.ours, 65536).decode()

    def until(self, condition, what):
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"not within {DEADLINE} s: {what}; it wrote {self.all[-3000:]!r}"
            self.read(0.05)

    def frames(self):
        """The screens drawn to the end, as lists of lines"""
        return [f.split("\033[J")[0].replace("\033[K", "").split("\r\n") for f in self.all.split(HOME)[1:] if "\033[J" in f]

    def until_frame(self, condition, what):
        self.until(lambda: self.frames() and condition(self.frames()[-1]), what)

    def type(self, text):
        os.write(self.ours, text.encode())

    def end(self):
        """It ends; gives its exit status. The terminal is as before."""
        self.until(lambda: self.process.poll() is not None, "it ends")
        self.read(0)
        return self.process.returncode

    def is_restored(self):
        return self.all.endswith(LEAVE) and termios.tcgetattr(self.theirs) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.process.stderr.close()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture(name="terminal")
def fixture_terminal(tmp_path):
    with contextlib.ExitStack() as stack:
        def new(*args, **more):
            t = Terminal(tmp_path, *args, **more)
            stack.callback(t.close)
            return t

        yield new


def test_a_screen_of_80_by_24(start, terminal):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    t = terminal()
    t.until_frame(lambda f: len(f) == 24, "all lines are used")
    assert t.all.startswith(ENTER + HOME)
    frame = t.frames()[-1]
    assert frame[:4] == ["holdfast top - alpha: running, 1 problem, 2 hosts", "PROBLEMS",
                         "ERROR    beta fell silent 7 s ago: its services have left the tree", "  what to do: see whether the host is up"]
    assert all(len(line) <= 80 for line in frame)
    assert frame[-1] == "  ... 85 more lines"
    attributes = termios.tcgetattr(t.theirs)[3]
    assert not attributes & (termios.ICANON | termios.ECHO)
    t.type("q")
    assert t.end() == 0
    assert t.is_restored()


def test_it_follows_the_size(start, terminal):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    t = terminal("-d", "600")
    t.until_frame(lambda f: len(f) == 24, "the first screen")
    t.resize(10, 40)
    t.until_frame(lambda f: len(f) == 10 and max(map(len, f)) <= 40, "the smaller screen")
    t.resize(60, 200)
    t.until_frame(lambda f: len(f) == 60, "the larger screen")
    t.resize(1, 1)
    t.until_frame(lambda f: f == ["h"], "the smallest screen")


def test_it_is_live(start, terminal):  # noqa: F811 pylint: disable=redefined-outer-name
    told = {"problems": OVERVIEW["problems"]}
    start(lambda *a: answers(**told)(*a))
    t = terminal("-d", "0.05")
    t.until_frame(lambda f: "1 problem" in f[0], "there is a problem")
    told["problems"] = []
    t.until_frame(lambda f: "no problems" in f[0], "there is none")
    t.type("\n")
    t.type("Q")
    assert t.end() == 0


@pytest.mark.parametrize("end", ["\x03", "\x1c", signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_the_terminal_is_as_before_however_it_ends(start, terminal, end):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    t = terminal()
    t.until_frame(bool, "the first screen")
    if isinstance(end, str):
        t.type(end)
    else:
        t.process.send_signal(end)
    crash = end in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
    assert t.end() == (-end if crash else 0)
    assert t.is_restored()


def test_ctrl_z_and_back(start, terminal):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    t = terminal("-d", "600")
    t.until_frame(bool, "the first screen")
    t.type("\x1a")
    t.until(lambda: open(f"/proc/{t.process.pid}/stat", encoding="ascii").read().split()[2] == "T", "it is stopped")
    t.until(t.is_restored, "the terminal is as before")
    t.all = ""
    t.process.send_signal(signal.SIGCONT)
    t.until(lambda: t.all.startswith(ENTER) and t.frames(), "it draws again")
    t.type("q")
    assert t.end() == 0
    assert t.is_restored()


def test_holdfastd_goes_and_returns(start, terminal, tmp_path):  # noqa: F811 pylint: disable=redefined-outer-name
    daemon = start(answers())
    t = terminal("-d", "0.05")
    t.until_frame(lambda f: "1 problem" in f[0], "the first screen")
    daemon.close()
    t.until_frame(lambda f: f[1].startswith("OLD: ") and "PROBLEMS" in f, "the last that was known, marked as old")
    assert str(tmp_path)[:20] in " ".join(t.frames()[-1][1:4])
    start(answers(members=9))
    t.until_frame(lambda f: f[0].endswith("9 hosts") and f[1] == "PROBLEMS", "what is known now")
    t.type("q")
    assert t.end() == 0


def test_rounds_on_a_terminal(start, terminal):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    t = terminal("-n", "3", "-d", "0.01")
    assert t.end() == 0
    assert len(t.frames()) == 3
    assert t.is_restored()


def test_nothing_answers(terminal):
    t = terminal()
    t.process.wait(DEADLINE)
    assert t.process.returncode == 3
    assert "no socket at" in t.process.stderr.read()
    t.read(0)
    assert t.all == ""  # nothing is drawn over what the user sees


def test_batch(start, tmp_path):  # noqa: F811 pylint: disable=redefined-outer-name
    daemon = start(answers())
    code, out, err = run(tmp_path, "top", "-b", "-n", "1")
    assert (code, err) == (0, "")
    assert "\033" not in out
    lines = out.splitlines()
    assert lines[0] == "holdfast top - alpha: running, 1 problem, 2 hosts"
    assert len(lines) == 1 + 3 + 3 + 101  # all of it: nothing is left out
    code, twice, _ = run(tmp_path, "top", "--batch", "--rounds", "2", "--delay", "0.01")
    assert (code, twice) == (0, f"{out}\n{out}")
    narrow = subprocess.run(args_of(tmp_path, "top", "-b", "-n", "1"), capture_output=True, text=True, timeout=30, check=True,
                            env={**os.environ, "COLUMNS": "30"}).stdout
    assert max(map(len, narrow.splitlines())) <= 30
    daemon.close()
    code, out, err = run(tmp_path, "top", "-b", "-n", "2", "-d", "0.01")
    assert (code, out) == (3, "") and "no socket at" in err


def test_batch_ends_with_the_last_answer(start, tmp_path):  # noqa: F811 pylint: disable=redefined-outer-name
    def answer(kind, seq, body):
        daemon.close_soon = len(daemon.requests) >= 2
        return answers()(kind, seq, body) if not daemon.close_soon else b"\0\0\0\1\x63"

    daemon = start(answer)
    code, out, err = run(tmp_path, "top", "-b", "-n", "2", "-d", "0.01")
    assert code == 1 and out.count("holdfast top") == 1 and err.startswith("holdfast: ")


def test_answers_that_are_wrong(start, tmp_path):  # noqa: F811 pylint: disable=redefined-outer-name
    start(query({"overview": b"[1,"}))
    code, out, err = run(tmp_path, "top", "-b", "-n", "1")
    assert (code, out) == (1, "") and "is not JSON" in err


def test_not_a_terminal(start, tmp_path):  # noqa: F811 pylint: disable=redefined-outer-name
    start(answers())
    assert run(tmp_path, "top") == (1, "", "holdfast: this is not a terminal: use -b\n")


@pytest.mark.parametrize("args", [("-n", "0"), ("-n", "x"), ("-d", "0"), ("-d", "-1"), ("--json",), ("more",)])
def test_usage(args):
    done = subprocess.run([HOLDFAST, "top", *args], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    done = subprocess.run([HOLDFAST, "status", "-b"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
