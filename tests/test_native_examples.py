"""The programs in `examples/native/`, built and run as a user would."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import pytest
from harness import size, takes_long
from support import DEADLINE

TICKS = pathlib.Path(__file__).parent.parent / "examples" / "native" / "ticks.py"


def run(*arguments):
    command = [sys.executable, "-P", str(TICKS), *map(str, arguments)]
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
