"""make demo: it counts for itself what it tells. With HOLD=1 it stays up, and its dashboard is reached from this machine."""
import json
import os
import re
import signal
import subprocess
import urllib.request

from lab import ROOT, STATE


def test_demo():
    with subprocess.Popen([ROOT / "bench/demo/run"], env=os.environ | {"HOLD": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as p:
        text = ""
        try:
            while "  try  " not in text:
                line = p.stdout.readline()
                text += line
                assert line, text
            url = re.search(r"dashboard +(http://127\.0\.0\.1:\d+/)", text)[1]
            with urllib.request.urlopen(url, timeout=30) as page:
                assert b"<html" in page.read()
            with urllib.request.urlopen(url + "v1/overview", timeout=30) as page:
                shown = json.load(page)
            assert {h["host"] for h in shown["hosts"]} == {"alpha", "beta", "gamma"}
        finally:
            p.send_signal(signal.SIGTERM)
            text += p.stdout.read()
    assert p.returncode == 0 and "nothing is left behind" in text, text
    assert not (STATE / f"demo{p.pid}").exists()
