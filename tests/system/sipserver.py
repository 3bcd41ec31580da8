"""A holdfast-sip of one's own for tests: its configuration, its process, its control socket."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 20.0


def find(name="holdfast-sip"):
    return shutil.which(name, path=f"{os.environ.get('HOLDFAST_BIN', '')}:{ROOT}/build/src/sip:{ROOT}/build/src/ctl")


def free_port(kind=socket.SOCK_DGRAM):
    """For UDP and TCP alike, as far as anybody can know."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, kind) as s, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as t:
            s.bind(("127.0.0.1", 0))
            try:
                t.bind(("127.0.0.1", s.getsockname()[1]))
            except OSError:
                continue
            return s.getsockname()[1]
    raise RuntimeError("no port is free")


def wait(what, condition, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.02)


class Server:
    """Runs in `folder`; conf: more text for the configuration; sip: more lines of its section sip."""

    def __init__(self, folder, name="alpha", conf="", sip="", database=None):
        self.folder, self.name = pathlib.Path(folder), name
        self.port, self.tls_port = free_port(), free_port()
        self.web_port = free_port()
        self.control = self.folder / f"{name}.sock"
        self.path = self.folder / f"{name}.conf"
        self.log = self.folder / f"{name}.log"
        self.database = database or f"sqlite:{self.folder}/sip.db"
        self.process = None
        listen = "".join(f"listen {t} {{ transport = {t}\n address = 127.0.0.1:{self.port} }}\n" for t in ("udp", "tcp"))
        self.path.write_text(f"""
sip {{
    name = "{name}"
    domains = {{ "example.org" }}
    database = "{self.database}"
    key_file = ""
    control = "{self.control}"
    metrics_listen = 127.0.0.1:{self.web_port}
    workers = 2
    {sip}
}}
{listen}{conf}
""")

    @property
    def at(self):
        return ("127.0.0.1", self.port)

    def run(self, *options):
        """The program with options, to its end."""
        return subprocess.run([find(), "-c", self.path, *options], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False)

    def start(self):
        env = os.environ | {"HOLDFAST_SOCKET": str(self.folder / "no-holdfastd.sock")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([find(), "-c", self.path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=env)
        wait(f"{self.name}'s start: {self.log.read_text()}", self.serves)

    def serves(self):
        assert self.process.poll() is None, self.log.read_text()
        return "serves with" in self.log.read_text().rsplit("signal", 1)[-1] and self.control.exists()

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            code = self.process.wait(DEADLINE)
            assert how == signal.SIGKILL or code == 0, self.log.read_text()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.end()

    def end(self):
        """Nothing is left, however it stands."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(DEADLINE)
        s.connect(str(self.control))
        return s

    def ask(self, command, **more):
        with self.connect() as s:
            s.sendall((json.dumps({"command": command, **more}) + "\n").encode())
            with s.makefile() as f:
                return json.loads(f.readline())

    def user(self, name, password="secret"):
        answer = self.ask("user-add", user=name, password=password)
        assert answer["ok"], answer
