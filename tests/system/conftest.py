"""The lab fixtures. A lab is shared by a module's tests and always torn down."""
import os
import re

import pytest

from lab import STATE, Lab


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
