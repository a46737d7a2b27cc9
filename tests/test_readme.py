"""The README's example prints what stands below it, and there are two commands."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_prints_what_stands_below_it():
    [program] = blocks("python")
    [printed] = blocks("text")
    command = [sys.executable, "-P", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == printed.splitlines()  # two threads: in any order
    for name in ("first", "second"):
        assert [line for line in done.stdout.splitlines() if line.startswith(name)] == [f"{name} 0", f"{name} 1"]


def test_there_are_two_commands():
    commands = blocks("sh")
    assert [command.count("\n") for command in commands] == [1, 1]
    assert "nexus_channels mux examples/data/" in commands[0]
    assert commands[1].rstrip().endswith("-m pytest")


def test_it_is_read_in_five_minutes():
    assert len(README.read_text().splitlines()) <= 150
