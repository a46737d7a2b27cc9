"""The cffi door: a smoke test of the way through build and import."""

import pathlib
import re
import subprocess
import sys

import pytest
from harness import FREE_THREADED

HEADERS = pathlib.Path(__file__).parent.parent / "csrc"


@pytest.mark.skipif(FREE_THREADED, reason="cffi refuses free-threaded builds, so the door is left out there")
def test_the_door_shows_the_constants_of_the_core():
    from nexus_channels import native

    sizes = map(int, re.findall(r"#define NC_CACHE_LINE (\d+)", (HEADERS / "nc_base.h").read_text()))
    assert native.lib.NC_CACHE_LINE in sizes
    assert (native.lib.NC_OK, native.lib.NC_FULL, native.lib.NC_EMPTY) == (0, 1, 2)
    assert native.ffi.sizeof("nc_result") == native.ffi.sizeof("int")


def test_without_the_door_the_import_says_why():
    code = (
        "import sys; sys.modules['nexus_channels._ffi'] = None\n"
        "try: import nexus_channels.native\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "without its native door" in said
    assert "The channels work without it" in said
