"""The README's code does what its comments say."""

import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"

EXPECTED = {
    "From a thread to an event loop": sorted(f"{name} {number}" for name in ("first", "second") for number in range(3)),
    "From task to task": sorted(["one", "two", "three", "four", "nothing came"]),
    "Closing": sorted(
        [
            "no room for too much",
            "True last",
            "end of stream",
            "this end is closed",
            "nobody gets undeliverable",
        ]
    ),
    "Bytes, written and read in place": sorted(
        ["b'a copy'", "64 b'in place'", "5 b'short'", "still in use", "no room"]
    ),
}


def examples():
    return dict(re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", README.read_text(), re.MULTILINE | re.DOTALL))


def test_every_example_is_tested():
    assert examples().keys() == EXPECTED.keys()
    assert README.read_text().count("```python") == len(EXPECTED)


@pytest.mark.parametrize("title", EXPECTED)
def test_the_example_runs(title):
    command = [sys.executable, "-P", "-W", "error", "-c", examples()[title]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == EXPECTED[title]


def test_there_are_two_commands():
    commands = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert [command.count("\n") for command in commands] == [1, 1]
    assert "nexus_channels mux examples/data/" in commands[0]
    assert commands[1].rstrip().endswith("-m pytest")
