"""The programs in `examples/native/`, built and run as a user would."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import pytest
from harness import size, takes_long
from processes import needs_lanes
from support import DEADLINE

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
TICKS, LINES = EXAMPLES / "native" / "ticks.py", EXAMPLES / "native" / "lines.py"


def run(*arguments, program=TICKS):
    command = [sys.executable, "-P", str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(language):
    if language == "cython" and importlib.util.find_spec("Cython") is None:
        pytest.skip("no Cython: pip install 'nexus_channels[native]'")
    if not any(shutil.which(name) for name in {"c++": ("c++", "g++", "clang++")}.get(language, ("cc", "gcc", "clang"))):
        pytest.skip(f"no compiler for {language}")


@takes_long()
@pytest.mark.parametrize("language", ["c", "c++", "cython"])
def test_a_native_thread_feeds_a_task(language):
    needs(language)
    ticks = size(50_000, 5_000_000)
    assert run(language, "--ticks", ticks).startswith(f"{ticks:,} ticks from 1 producers, in order")


@takes_long()
@pytest.mark.parametrize("language", ["c", "c++", "cython"])
def test_native_and_python_producers_share_a_channel(language):
    needs(language)
    ticks = size(10_000, 1_000_000)
    said = run(language, "--ticks", ticks, "--native", 2, "--python", 2)
    assert said.startswith(f"{4 * ticks:,} ticks from 4 producers, in order")


@needs_lanes
def test_programs_in_c_send_lines_and_archive_them():
    needs("c")
    assert run(program=LINES) == "25,894 lines from 2 programs in C\na program in C: received 18001 lines\n"


@needs_lanes
def test_a_log_that_is_not_there_is_told(tmp_path):
    needs("c")
    command = [sys.executable, "-P", str(LINES), str(tmp_path / "no.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * DEADLINE, check=False)
    assert done.returncode == 1
    assert "no.log: No such file or directory" in done.stderr
    assert "1 of 1 programs failed" in done.stderr
