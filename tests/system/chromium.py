"""A headless Chromium for tests, driven over its debugging pipe (Chrome DevTools Protocol): nothing else is needed."""
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

PROGRAMS = ("chromium-headless-shell", "chromium")
DEADLINE = 30.0
SIZE = "640,480"


def find():
    """Its path. tools/setup test installs it; a test without it fails, and says this."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert path, "the dashboard's tests need Chromium: tools/setup test installs it (Debian: chromium-headless-shell)"
    return path


class Page:
    """One page. prefix: a command that runs Chromium elsewhere, as in a host of the lab. `console` has what a developer's tools
    would show as an error or a warning, `requests` all addresses asked for."""

    def __init__(self, prefix=()):
        self.home = tempfile.TemporaryDirectory(prefix="hf-chromium-")
        down, self.to = os.pipe()
        self.back, up = os.pipe()
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*prefix, find(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--mute-audio", f"--user-data-dir={self.home.name}", f"--window-size={SIZE}",
             "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if not prefix else subprocess.DEVNULL,
            start_new_session=True, pass_fds=(3, 4, down, up), preexec_fn=lambda: as_3_and_4(down, up))
        os.close(down)
        os.close(up)
        self.number, self.rest, self.session = 0, b"", None
        self.console, self.requests = [], []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Runtime", "Log", "Page", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.process.poll() is None:
            try:
                self.session = None
                self.send("Browser.close")
                self.process.wait(DEADLINE / 2)
            except (OSError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        if self.process.stderr:
            self.process.stderr.close()
        os.close(self.to)
        os.close(self.back)
        self.home.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- the protocol ---

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        return self.number

    def receive(self, timeout):
        """The next message, or None."""
        end = time.monotonic() + timeout
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], max(0, end - time.monotonic()))
            if not ready:
                return None
            data = os.read(self.back, 1 << 16)
            assert data, f"Chromium has ended: {self.process.stderr.read().decode() if self.process.stderr else ''}"
            self.rest += data
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def note(self, message):
        params = message.get("params", {})
        kind = message.get("method")
        if kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(str(params["args"]))
        elif kind == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif kind == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def call(self, method, **params):
        number, end = self.send(method, **params), time.monotonic() + DEADLINE
        while True:
            message = self.receive(end - time.monotonic())
            assert message, f"no answer to {method}"
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]
            self.note(message)

    # --- what a person does ---

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'", url)

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector):
        """All that is written in the first element of this kind, on one line"""
        return " ".join((self.evaluate(said(selector)) or "").split())

    def until(self, expression, what, deadline=DEADLINE):
        end = time.monotonic() + deadline
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"not within {deadline} s: {what}; the page:\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def until_text(self, selector, part):
        self.until(f"({said(selector)} || '').replace(/\\s+/g, ' ').includes({json.dumps(part)})", f"{selector} says {part}")

    def until_console(self, part):
        end = time.monotonic() + DEADLINE
        while not any(part in c for c in self.console):
            assert time.monotonic() < end, f"not within {DEADLINE} s in the console: {part}; there are {self.console}"
            self.evaluate("0")  # hears what has come meanwhile

    def key(self, name, code, modifiers=0):
        for kind in ("keyDown", "keyUp"):
            more = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, modifiers=modifiers, **more)

    def tab(self, back=False):
        self.key("Tab", 9, 8 if back else 0)

    def enter(self):
        self.key("Enter", 13)

    def colours(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def said(selector):
    """What the first such element says, as JavaScript"""
    return f"((e) => e?.innerText ?? e?.textContent)(document.querySelector({json.dumps(selector)}))"


def as_3_and_4(down, up):
    """In the child: what Chromium reads and writes. The two may be in each other's place."""
    a, b = os.dup(down), os.dup(up)
    while min(a, b) < 5:  # neither may be overwritten
        a, b = os.dup(a), os.dup(b)
    os.dup2(a, 3)
    os.dup2(b, 4)
