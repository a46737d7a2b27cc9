"""For tests of many rounds, and for tests that need a process of their own."""

import os
import pathlib
import random
import subprocess
import sys
import sysconfig

import pytest

from nexus_channels import _core

# Full sizes take minutes; the short form of the same test runs every time.
STRESS = os.environ.get("NEXUS_CHANNELS_STRESS") == "1"

# Sanitizer builds are several times slower, and say so by a longer deadline (see support.DEADLINE).
SLOWNESS = float(os.environ.get("NEXUS_TEST_DEADLINE", "20")) / 20

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# cffi refuses free-threaded 3.13, so the door is left out there, and what else has no wheel for it.
EXPERIMENT = FREE_THREADED and sys.version_info < (3, 14)
GIL_ENABLED = getattr(sys, "_is_gil_enabled", lambda: True)()

WAKE = _core.build_info()["wake"]  # see NEXUS_CHANNELS_PORTABLE in setup.py
_without = WAKE == "call_soon_threadsafe"
has_wake_descriptors = pytest.mark.skipif(_without, reason="loops have no wake descriptor where there is no add_reader")

# What the interpreter was built with, and what is linked with it has to be: -fsanitize=...
_configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
_flags = {"--with-address-sanitizer": "address,undefined", "--with-thread-sanitizer": "thread"}
SANITIZER = next((flag for option, flag in _flags.items() if option in _configured), None)

# For tests that look at where memory is and how much of it.
reuses_memory = pytest.mark.skipif(SANITIZER is not None, reason="sanitizers keep freed memory, and more of their own")

LIB = pathlib.Path(__file__).parent
TESTS = LIB.parent


def size(short, full):
    """How many rounds: `full` in the stress suite, else `short`."""
    return full if STRESS else short


def seeded(name):
    """A random generator whose seed is printed, and can be given back by NEXUS_CHANNELS_SEED."""
    seed = int(os.environ.get("NEXUS_CHANNELS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"{name}: NEXUS_CHANNELS_SEED={seed}", flush=True)
    return random.Random(seed)


def child_command(source, *args, flags=()):
    return [sys.executable, "-X", "faulthandler", *flags, "-c", source, *map(str, args)]


def run_child(source, *args, seconds=10, flags=(), before=(), env=None, code=0, quiet=False):
    """Run `source` in a new interpreter and return its stdout.

    It must end in time, with exit code `code` and no traceback, and nothing at all on stderr if `quiet`. `before` is a
    command to run it under. It can import the modules of tests/lib.
    """
    child = subprocess.run(
        [*before, *child_command(source, *args, flags=flags)],
        capture_output=True,
        text=True,
        timeout=seconds * SLOWNESS,
        cwd=LIB,
        env={**os.environ, **(env or {})},
        check=False,
    )
    report = f"exit code {child.returncode}\n--- stdout\n{child.stdout}\n--- stderr\n{child.stderr}"
    assert child.returncode == code, report
    assert "Fatal Python error" not in child.stderr, report
    assert "Traceback" not in child.stderr, report
    assert not (quiet and child.stderr), report
    return child.stdout


def takes_long(short=120, full=1800):
    """A decorator for tests that need more than a minute at full size: both watchdogs wait for them."""
    seconds = (full if STRESS else short) * SLOWNESS

    def mark(function):
        return pytest.mark.stress(pytest.mark.timeout(seconds)(pytest.mark.watchdog(seconds)(function)))

    return mark
