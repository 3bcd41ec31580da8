"""The lab fixtures. A lab is shared by a module's tests and always torn down. How tests are dealt out to xdist's workers."""
import contextlib
import os
import re
import signal

import pytest

from lab import STATE, Lab
from postgres import BIN


def pytest_configure():
    """Whoever ends the run, by Ctrl-C or kill, gets what it made taken down."""
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # Debian's psql is a Perl script that looks for the one there: 55 ms
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Tests that share what a module made go to one worker (--dist loadgroup), and begin first; the others fill the gaps."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if not item.get_closest_marker("xdist_group") and shares(item):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def shares(item):
    """Whether it uses a fixture of module scope that its own module has"""
    fixtures = item._fixtureinfo.name2fixturedefs.values()  # pytest has no public name for it
    return any(d.scope == "module" and d.baseid == item.nodeid.split("::")[0] for (*_, d) in fixtures)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failed test says what the groups and managers of its rig went through: later nobody can look any more."""
    report = (yield).get_result()
    if report.failed:
        for rig in {id(f): f for f in getattr(item, "funcargs", {}).values() if hasattr(f, "story")}.values():
            with contextlib.suppress(Exception):
                report.sections.append(("story", rig.story()))


def make_lab(request, suffix=""):
    """A lab named after the test module and this process, so that several runs can go on at once."""
    module = re.sub(r"\W", "", request.module.__name__.removeprefix("test_"))
    lab = Lab(f"{module}{suffix}-{os.getpid()}")
    request.addfinalizer(lambda: tear_down(lab))
    return lab


def tear_down(lab):
    lab.down()
    assert not (STATE / lab.name).exists()


@pytest.fixture(scope="module")
def new_lab(request):
    """Call it with `up` options for a lab of one's own."""
    made = []

    def new(*options):
        lab = make_lab(request, f"-{len(made) + 1}" if made else "")
        made.append(lab)
        lab.up(*options)
        return lab

    return new
