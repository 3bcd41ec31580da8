"""The agent of holdfast-pg, with a control socket played by the test; tests/unit/pg/control.c has the rest."""
import contextlib
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

import pytest

from agent import AGENTS, ARGS, GENERIC, INSTALLED, NOT_RUNNING, OK, PROMOTED, ROOT, UNIMPLEMENTED, run_agent, until

PATH = f"{os.environ.get('HOLDFAST_BIN', '')}:{ROOT}/build/src/pg:{os.environ['PATH']}"
PROGRAM = shutil.which("holdfast-pg", path=PATH)
ACTIONS = {"start", "stop", "monitor", "promote", "open", "demote", "mirror-source", "mirror-target",
           "mirror-state", "access", "validate-all", "meta-data", "prepare-promote", "prepare-demote"}


@pytest.fixture
def run():
    d = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-agent-"))
    yield d
    shutil.rmtree(d)


def act(run, action, params=None, **env):
    return run_agent("pg", action, {"control": run / "control"} | (params or {}),
                     {"PATH": PATH, "OCF_RESOURCE_INSTANCE": "vip.copy1"} | env)


@contextlib.contextmanager
def answering(run, answer):
    """Somebody at the socket who answers each request so; gives the list of requests."""
    asked = []
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(run / "control"))
        s.listen()

        def serve():
            while True:
                try:
                    c, _ = s.accept()
                except OSError:
                    return
                with c:
                    text = b""
                    while not text.endswith(b"\n\n") and (more := c.recv(65536)):
                        text += more
                    if text:  # else it only looked whether somebody is here
                        asked.append(text.decode())
                        with contextlib.suppress(BrokenPipeError):
                            c.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            s.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_nobody_there(run):
    assert act(run, "monitor").returncode == NOT_RUNNING
    assert act(run, "stop").returncode == OK
    assert act(run, "mirror-state").returncode == NOT_RUNNING
    for action in ("start", "promote", "access", "prepare-promote"):
        p = act(run, action)
        assert p.returncode == GENERIC
        assert p.stderr.startswith("ocf-exit-reason:") and "systemctl start holdfast-pg" in p.stderr


def test_passed_on(run):
    with answering(run, "copy2 in-sync\ncopy3 caught-up\n= 8 a reason\n") as asked:
        p = act(run, "mirror-state", HOLDFAST_EPOCH="7", HOLDFAST_MIRRORS="copy2=beta@10.0.0.2=sync",
                HOLDFAST_SOURCE="copy1=alpha@10.0.0.1", HOLDFAST_RESOURCE="copy1")
        assert (p.returncode, p.stdout) == (PROMOTED, "copy2 in-sync\ncopy3 caught-up\n")
        assert p.stderr == "ocf-exit-reason:a reason\n"
        assert asked == ["mirror-state\nepoch 7\nmirrors copy2=beta@10.0.0.2=sync\n"
                         "source copy1=alpha@10.0.0.1\nresource copy1\n\n"]


@pytest.mark.parametrize("action", sorted(ACTIONS - {"access", "validate-all", "meta-data"}))
def test_each_action(run, action):
    with answering(run, "= 0 \n") as asked:
        p = act(run, action)
        assert (p.returncode, p.stdout, p.stderr) == (OK, "", "")
        until(lambda: asked, "the request")  # one that prepares ends with its stdin, it does not wait for an answer
        assert asked == [f"{action}\n\n"]


def test_access(run):
    with answering(run, "= 1 not asked\n") as asked:
        assert act(run, "access").returncode == OK
    assert asked == []


def test_nobody_answers_any_more(run):
    with answering(run, ""):
        assert act(run, "monitor").returncode == NOT_RUNNING
        assert act(run, "promote").returncode == GENERIC


def test_program(run):
    assert act(run, "validate-all").returncode == OK
    assert act(run, "validate-all", {"program": PROGRAM}).returncode == OK
    for action in ("validate-all", "monitor", "stop"):
        p = act(run, action, {"program": "/nonexistent/holdfast-pg"})
        assert p.returncode == INSTALLED and "/nonexistent/holdfast-pg" in p.stderr
    assert act(run, "dance").returncode == UNIMPLEMENTED
    assert act(run, "promote", HOLDFAST_MIRRORS="a\nb").returncode == GENERIC  # nobody is there
    with answering(run, "= 0 \n"):
        assert act(run, "promote", HOLDFAST_MIRRORS="a\nb").returncode == ARGS


def test_meta_data(run):
    p = act(run, "meta-data")
    root = ET.fromstring(p.stdout)
    assert {a.get("name") for a in root.iter("action")} == ACTIONS
    assert {a.get("name") for a in root.iter("parameter")} == {"control", "program"}
    text = (AGENTS / "pg").read_text()
    for parameter in root.iter("parameter"):
        assert f"OCF_RESKEY_{parameter.get('name')}" in text


def test_cost(run):
    """Told, not asserted: an action of the agent beside the program alone."""
    def median(f):
        times = []
        for _ in range(15):
            t0 = time.monotonic()
            f()
            times.append(time.monotonic() - t0)
        return sorted(times)[7] * 1000

    with answering(run, "= 0 \n"):
        agent = median(lambda: act(run, "monitor"))
        alone = median(lambda: run_agent(f"{PROGRAM}-agent", "monitor", {"control": run / "control"}))
    print(f"monitor: {agent:.1f} ms, of it the program {alone:.1f} ms")
