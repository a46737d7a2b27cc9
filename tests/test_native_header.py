"""The public header: clean C11 and C++17, found where get_include() says, and usable from a user's own cffi module."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from harness import EXPERIMENT

import nexus_channels

HEADER = pathlib.Path(nexus_channels.get_include(), "nexus_channels.h")
SOURCE = pathlib.Path(__file__).parent / "native" / "header.c"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
COMPILERS = {
    "gcc-c11": ["gcc", "-std=c11", "-Wmissing-prototypes", "-Wstrict-prototypes"],
    "clang-c11": ["clang-16", "-std=c11", "-Wmissing-prototypes", "-Wstrict-prototypes"],
    "gcc-c++17": ["g++", "-x", "c++", "-std=c++17"],
    "clang-c++17": ["clang++-16", "-x", "c++", "-std=c++17"],
}


def test_the_header_is_where_get_include_says():
    assert HEADER.is_file()


@pytest.mark.parametrize("name", COMPILERS)
def test_the_header_compiles_without_a_warning(name):
    compiler, *flags = COMPILERS[name]
    found = shutil.which(compiler) or shutil.which(compiler.removesuffix("-16"))
    if found is None:
        pytest.skip(f"no {compiler} here")
    command = [found, *flags, *STRICT, f"-I{HEADER.parent}", "-fsyntax-only", str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def functions(text):
    return set(re.findall(r"\b(nexus_[a-z_]+)\(", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))


def test_every_function_is_documented_used_and_shown_to_cffi():
    text = HEADER.read_text()
    defined = set(re.findall(r"^static inline [^(]*?\b(nexus_\w+)\(", text, re.MULTILINE)) - {"nexus_attach_end"}
    assert len(defined) > 20
    assert defined <= functions(SOURCE.read_text())
    assert set(re.findall(r"\*/\nstatic inline [^(]*?\b(nexus_\w+)\(", text)) == defined
    assert functions((HEADER.parent / "ffi_cdef.h").read_text()) == defined


def test_the_header_needs_nothing_but_two_standard_headers():
    assert re.findall(r"#include +(\S+)", HEADER.read_text()) == ["<stddef.h>", "<stdint.h>"]


USERS_MODULE = """
import sys
from cffi import FFI
import nexus_channels.native

ffi = FFI()
ffi.include(nexus_channels.native.builder())
ffi.cdef("int send_squares(nexus_sender *tx, int count);")
ffi.set_source("squares", '''
    #include "nexus_channels.h"
    static int send_squares(nexus_sender *tx, int count)
    {
        for (int i = 0; i < count; i++) {
            int square = i * i, result = nexus_send(tx, &square, sizeof square, NEXUS_FOREVER);
            if (result != NEXUS_OK)
                return result;
        }
        return NEXUS_OK;
    }
''', include_dirs=[nexus_channels.get_include()])
ffi.compile(verbose=False)
sys.path.insert(0, ".")
from squares import ffi, lib

tx, rx = nexus_channels.spsc_bytes.channel(1024)
with tx.native() as end:
    sender = ffi.new("nexus_sender **")
    assert nexus_channels.native.lib.nexus_attach_sender(nexus_channels.native.cast(end), sender) == 0
    assert lib.send_squares(sender[0], 5) == lib.NEXUS_OK
    nexus_channels.native.lib.nexus_detach_sender(sender[0])
print([int.from_bytes(square, sys.byteorder) for square in rx.try_recv_many(9)])
"""


@pytest.mark.skipif(EXPERIMENT, reason="cffi refuses free-threaded 3.13")
def test_a_users_own_cffi_module_includes_the_door(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "-c", USERS_MODULE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 1, 4, 9, 16]"
