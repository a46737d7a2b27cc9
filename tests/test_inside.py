"""Short ways through the insides of CPython and asyncio: which are taken, and that all works without them."""

import os
import platform
import re
import subprocess
import sys

import pytest
from harness import FREE_THREADED, TESTS, WAKE, run_child

from nexus_channels import _core

SOURCE = TESTS.parent / "csrc" / "py_inside.c"
PAGE = TESTS.parent / "docs" / "install.md"

# What takes such a way, or would lose something if the public way were not as good.
AFFECTED = [
    "test_api.py",
    "test_awaitables.py",
    "test_cancellation.py",
    "test_coroutine_faces.py",
    "test_faults_loops.py",
    "test_futures.py",
    "test_interleavings.py",
    "test_interruptions.py",
    "test_loops.py",
    "test_turns.py",
    "test_wakeups.py",
]


def expected():
    version = sys.version_info[:2]
    if version == (3, 11):
        yield "thread_state"
    elif (WAKE, platform.machine(), platform.libc_ver()[0]) == ("eventfd", "x86_64", "glibc"):
        yield "first_thread"
    if version == (3, 11):
        yield "running_loop"
    if version <= (3, 13):
        yield "current_tasks"
    yield "loop_queues"
    if not FREE_THREADED:
        yield "done_future"
    yield "asyncgen_hook"


def taken(**environment):
    script = "from nexus_channels import _core; print(*_core.build_info()['insides'])"
    return run_child(script, env=environment).split()


@pytest.mark.parametrize("value", ["", "0"])
def test_the_ways_that_this_version_has_are_taken(value):
    assert taken(NEXUS_CHANNELS_PUBLIC_ONLY=value) == list(expected())


def test_none_is_taken_where_only_public_ways_are_wanted():
    assert taken(NEXUS_CHANNELS_PUBLIC_ONLY="1") == []


def test_a_module_that_a_thread_imports_first_does_not_take_that_thread_for_the_first():
    script = """
import sys, threading

def other():
    from nexus_channels import _core, mpsc
    print(*_core.build_info()["insides"])

threading.Thread(target=other).start()
"""
    assert run_child(script).split() == [name for name in taken() if name != "first_thread"]


@pytest.mark.parametrize("page", [SOURCE, PAGE], ids=["py_inside.c", "install.md"])
def test_each_way_is_in_the_table(page):
    if not page.exists():
        pytest.skip("the tests lie beside no source tree")
    rows = re.findall(r"^(?: \*     |\| `)([a-z]+_[a-z]+)[` ]", page.read_text(), re.MULTILINE)
    assert rows == [
        "thread_state",
        "first_thread",
        "running_loop",
        "current_tasks",
        "loop_queues",
        "done_future",
        "asyncgen_hook",
    ]


@pytest.mark.timeout(600)
@pytest.mark.watchdog(600)
def test_all_works_without_them():
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *AFFECTED]
    environment = {**os.environ, "NEXUS_CHANNELS_PUBLIC_ONLY": "1"}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 1000


def test_it_was_said_what_the_tests_here_run_with():
    """In a run where they are turned off, the tests run without them, too."""
    wanted = os.environ.get("NEXUS_CHANNELS_PUBLIC_ONLY", "0") in ("", "0")
    assert bool(_core.build_info()["insides"]) == wanted
