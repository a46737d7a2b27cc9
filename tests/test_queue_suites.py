"""The test suites of CPython's queues, of janus and of culsans, run on the faces; tests/lib/queue_suites.py leaves some
tests out, and says why."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile

import pytest
from harness import LIB, SLOWNESS

SDISTS = {"janus": "2.0.0", "culsans": "0.11.0"}
RUN_AT_LEAST = {
    "cpython-queue": 23 if sys.version_info >= (3, 13) else 5,
    "cpython-asyncio": 26,
    "janus": 69,
    "culsans": 68,
}

pytestmark = [pytest.mark.timeout(400 * SLOWNESS), pytest.mark.watchdog(400 * SLOWNESS)]


def run(suite, *folder):
    done = subprocess.run(
        [sys.executable, "-P", LIB / "queue_suites.py", suite, *folder],
        capture_output=True,
        text=True,
        timeout=300 * SLOWNESS,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == [], done.stdout
    assert result["unknown"] == [], "names no test any more"
    assert result["ran"] >= RUN_AT_LEAST[suite]


@pytest.fixture
def sdist(request, tmp_path):
    """A folder with the unpacked sdist of a project."""
    requirement = f"{request.param}=={SDISTS[request.param]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--retries=0"]
    got = subprocess.run(
        [*command, "--dest", tmp_path, requirement], capture_output=True, timeout=200 * SLOWNESS, check=False
    )
    if got.returncode != 0:
        pytest.skip(f"pip cannot download the sdist of {requirement}")
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / requirement.replace("==", "-")


@pytest.mark.parametrize("suite", ["cpython-queue", "cpython-asyncio"])
def test_the_suite_of_cpython_passes(suite):
    module = {"cpython-queue": "test.test_queue", "cpython-asyncio": "test.test_asyncio.test_queues"}[suite]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("this interpreter was installed without its package `test`")
    run(suite)


@pytest.mark.parametrize("sdist", ["janus"], indirect=True)
def test_the_suite_of_janus_passes(sdist):
    run("janus", sdist)


@pytest.mark.parametrize("sdist", ["culsans"], indirect=True)
def test_the_suite_of_culsans_passes(sdist):
    pytest.importorskip("aiologic", reason="the tests of culsans import aiologic: pip install '.[bench]'")
    run("culsans", sdist)
