"""docs/c-api.md: every program of the page is built as the page says, and prints what it says."""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from harness import SLOWNESS
from native_driver import build, compiler

import nexus_channels

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "c-api.md"

pytestmark = [
    pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler"),
    pytest.mark.timeout(180),
    pytest.mark.watchdog(180),
]

SHARED = ("-shared", "-fPIC", "-std=c11", "-Wall", "-Wextra", "-Werror")


def block(language, beginning):
    """The one block of the page in that language that holds `beginning`."""
    blocks = re.findall(
        rf"^```(?:\{{code-block\}} )?{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    (found,) = (code for code in blocks if beginning in code)
    return found


def needs(program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")


def execute(*command, folder):
    """What a program printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=100 * SLOWNESS, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(code, folder):
    """What a program of the page printed that was started in `folder`, where it finds what was built."""
    (folder / "program.py").write_text(code)
    return execute(sys.executable, "program.py", folder=folder)


def test_the_complete_program(tmp_path):
    (tmp_path / "sums.c").write_text(block("c", "sums_start"))
    build(tmp_path / "sums.so", tmp_path / "sums.c", flags=SHARED)
    printed = re.search(r"It prints:\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert run(block("python", "sums.so"), tmp_path) == printed


def test_the_wrapper_in_cpp_compiles(tmp_path):
    needs("g++")
    (tmp_path / "feed.cpp").write_text(block("cpp", "unique_ptr"))
    include = f"-I{nexus_channels.get_include()}"
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", include)
    execute("g++", *flags, "feed.cpp", folder=tmp_path)


def test_the_feed_in_rust(tmp_path):
    needs("rustc")
    needs("ar")
    (tmp_path / "nexus_shim.c").write_text(block("c", "nexus_rs_attach_sender"))
    (tmp_path / "feed.rs").write_text(block("rust", "extern"))
    build(tmp_path / "nexus_shim.o", tmp_path / "nexus_shim.c", flags=("-c", "-fPIC", "-std=c11"))
    execute("ar", "rcs", "libnexus_shim.a", "nexus_shim.o", folder=tmp_path)
    flags = "-D warnings --edition 2021 -O --crate-type cdylib -L . -l static=nexus_shim"
    execute("rustc", *flags.split(), "feed.rs", "-o", "libfeed.so", folder=tmp_path)
    assert run(block("python", "libfeed.so"), tmp_path) == "499500\n"


def test_the_feed_in_cython(tmp_path):
    if importlib.util.find_spec("Cython") is None:
        pytest.skip("no Cython: pip install 'nexus_channels[native]'")
    (tmp_path / "squares.pyx").write_text(block("cython", "send_squares"))
    (tmp_path / "setup.py").write_text(block("python", "cythonize"))
    execute(sys.executable, "setup.py", "-q", "build_ext", "--inplace", folder=tmp_path)
    assert run(block("python", "from squares import"), tmp_path).split() == ["0", "1", "4", "9", "16"]


@pytest.mark.skipif(
    importlib.util.find_spec("nexus_channels._ffi") is None, reason="nexus_channels.native is not there"
)
def test_both_ways_of_cffi(tmp_path):
    assert run(block("python", "lib.nexus_try_claim"), tmp_path) == "b'hello'\n"
    run(block("python", "ffi.set_source"), tmp_path)
    assert list(tmp_path.glob("cubes*.so"))
