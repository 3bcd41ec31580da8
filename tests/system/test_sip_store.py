"""The SIP store's own tests (tests/unit/sip/store.c) against a real PostgreSQL, which dies meanwhile."""
import os
import pathlib
import subprocess

import pytest
from postgres import Rig

PROGRAM = pathlib.Path(os.environ.get("HF_STORE_TEST", pathlib.Path(__file__).parents[2] / "build/tests/unit/unit-sip-store"))


@pytest.fixture(name="server", scope="module")
def fixture_server():
    with Rig() as rig:
        yield rig.server(fsync="on")


def uri(server):
    return f"host={server.socket_dir} port={server.port} user=postgres dbname=postgres"


def test_store(server):
    """It asks for the server's death by a byte, and gets one when it is there again."""
    ask, asked = os.pipe()
    told, tell = os.pipe()
    env = os.environ | {"HF_STORE_URI": uri(server), "HF_STORE_OUTAGE": f"{asked} {told}"}
    with subprocess.Popen([PROGRAM], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, pass_fds=(asked, told)) as p:
        os.close(asked)
        os.close(told)
        while os.read(ask, 1):
            server.power_off()
            server.start()
            os.write(tell, b"x")
        out = p.communicate(timeout=300)[0]
    os.close(ask)
    os.close(tell)
    assert p.returncode == 0, out
