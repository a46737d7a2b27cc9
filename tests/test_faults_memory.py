"""Memory runs out: each allocation of every operation fails in turn. An exception or success, and nothing else.

Nothing is lost or there twice, no reference is kept, nobody stands in line who does not wait, a wake-up that found no
memory is given all the same, and the channel goes on. The cases are in lib/memory_faults.py.
"""

import os
import shlex
import subprocess
import sys
import sysconfig

import pytest
from conftest import BYTES_VARIANTS, OBJECT_VARIANTS
from harness import FREE_THREADED, LIB, SLOWNESS, TESTS, child_command, run_child

DEBUG_BUILD = hasattr(sys, "gettotalrefcount")

pytestmark = pytest.mark.skipif(
    FREE_THREADED and sys.version_info < (3, 14),
    reason="where it finds no memory, list_new() of free-threaded 3.13 frees what it has not set yet",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What a child needs to import `fail_alloc`, which makes allocations fail."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    folder = tmp_path_factory.mktemp("fail_alloc")
    target = folder / f"fail_alloc{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    source = TESTS / "c" / "fail_alloc.c"
    subprocess.run([*compiler, "-shared", "-fPIC", "-O1", include, source, "-o", target], check=True)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


def failures(script, environment):
    """How many allocations failed, and of how many operations. How often one allocates is up to CPython."""
    failed, operations = map(int, run_child(script, env=environment, seconds=50).split())
    return failed, operations


@pytest.mark.parametrize("name", OBJECT_VARIANTS + BYTES_VARIANTS)
def test_each_allocation_of_every_operation_fails_once(name, environment):
    script = f"import memory_faults; memory_faults.main({name!r})"
    failed, operations = failures(script, environment)
    assert failed > (240 if sys.version_info < (3, 14) else 2 * operations)
    assert operations > 25


@pytest.mark.skipif(DEBUG_BUILD, reason="without memory for a frame, a debug build of CPython stops by an assertion")
@pytest.mark.parametrize("name", OBJECT_VARIANTS + BYTES_VARIANTS)
def test_every_allocation_of_every_operation_fails_from_some_point_on(name, environment):
    script = f"import memory_faults; memory_faults.main({name!r}, forever=True)"
    failed, operations = failures(script, environment)
    assert failed > (150 if sys.version_info < (3, 14) else operations)
    assert operations > 50


def cpython_survives(environment):
    """Can a module of CPython's own be made while memory fails? The dict of 3.13 and its assertions cannot."""
    source = "import memory_faults; memory_faults.load_module('_queue')"
    env = {**os.environ, **environment}
    child = subprocess.run(child_command(source), cwd=LIB, env=env, capture_output=True, check=False)
    return child.returncode == 0


@pytest.mark.timeout(60 * SLOWNESS)
def test_each_allocation_of_the_making_of_the_module_fails_once(environment):
    if not cpython_survives(environment):
        pytest.skip("CPython's own _queue does not survive this either: a type's dict that finds no memory crashes")
    failed, _ = failures("import memory_faults; memory_faults.load_module()", environment)
    assert failed > 300
