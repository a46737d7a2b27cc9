"""AnyIO's own tests of its streams, run against ours.  They come from AnyIO's source distribution, and stay there.

What is replaced, and which tests are left out for which reason, is in `lib/anyio_adapted.py`.
"""

import os
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest
from harness import LIB, SLOWNESS

pytest.importorskip("anyio", reason="AnyIO is not installed: pip install '.[test]'")

VERSION = "4.16.0"  # the list of what is left out is for this one; it is run whichever is installed

INI = """\
[pytest]
anyio_mode = auto
timeout = 20
filterwarnings = error
markers =
    network: AnyIO's own
"""

pytestmark = [pytest.mark.timeout(300 * SLOWNESS), pytest.mark.watchdog(300 * SLOWNESS)]


def download(folder):
    """The source distribution: NEXUS_CHANNELS_ANYIO_SDIST names a file, else pip fetches it."""
    if given := os.environ.get("NEXUS_CHANNELS_ANYIO_SDIST"):
        return given
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "anyio", "-d", folder]
    done = subprocess.run([*command, f"anyio=={VERSION}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["pip says nothing"]
        pytest.skip(f"AnyIO's source distribution cannot be had: {said[-1]}")
    return next(pathlib.Path(folder).glob("*.tar.gz"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anyio")
    with tarfile.open(download(folder)) as archive:
        archive.extractall(folder, filter="data")
    sources = folder / f"anyio-{VERSION}"
    (sources / "pytest.ini").write_text(INI)
    return sources


def run(sources, channel, *arguments):
    """The summary of a run, {"passed": 3, ...}."""
    path = os.pathsep.join([str(LIB), str(sources / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-c",
            "pytest.ini",
            "-p",
            "anyio_adapted",
            "-q",
            "--tb=short",
            *arguments,
        ],
        cwd=sources,
        env=os.environ | {"PYTHONPATH": path, "NEXUS_CHANNEL": channel},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    return {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", summary)}


# The least that has to pass, on asyncio and trio alone: uvloop, and eager tasks of later Pythons, come on top.
LEAST = {"memory": 36, "buffered": 28, "text": 22, "stapled": 16}


@pytest.mark.parametrize(
    ("channel", "name"),
    [
        ("mpsc", "memory"),
        ("local", "memory"),
        ("mpsc", "buffered"),
        ("mpsc_bytes", "buffered"),
        ("mpsc", "text"),
        ("mpsc_bytes", "text"),
        ("mpsc", "stapled"),
    ],
)
def test_the_tests_of_anyio_pass(sources, channel, name):
    assert run(sources, channel, f"tests/streams/test_{name}.py")["passed"] >= LEAST[name]


def test_the_tests_of_anyio_for_streams_of_sockets_pass(sources):
    """Both ends of the socket are channels of bytes, and its server's is used by a thread."""
    assert run(sources, "mpsc", "tests/test_sockets.py", "-k", "TestUNIXStream and not path")["passed"] >= 30


def test_what_is_left_out_is_there(sources):
    """A test that AnyIO renamed would have a reason without being left out."""
    text = (LIB / "anyio_adapted.py").read_text()
    left_out = [name.rpartition(".")[2] for name in re.findall(r'^ +"!?([\w.]*test_\w+)": [A-Z]', text, re.MULTILINE)]
    assert len(left_out) > 20
    theirs = "".join(path.read_text() for path in (sources / "tests").rglob("test_*.py"))
    assert [name for name in left_out if f"def {name}(" not in theirs] == []
