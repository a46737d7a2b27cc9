"""What the tests of the log multiplexer share: running it, and reading its archive."""

import collections
import contextlib
import pathlib
import re
import resource
import subprocess
import sys

from harness import FREE_THREADED
from support import DEADLINE, until

# Of address space: far less than the files of the tests hold. A free-threaded Python takes 1 GiB of it for its
# allocator and more for each thread, and hangs in Thread.start() where a new thread finds none (3.13).
FEW_BYTES = 1_300_000_000 if FREE_THREADED else 200_000_000

mode = []  # the options that each test of a module runs with; see the fixture in it


def command(*arguments):
    # -P: the package that is installed, not the sources that happen to lie where the tests are run.
    return [sys.executable, "-P", "-m", "nexus_channels", "mux", *mode, *map(str, arguments)]


def run(*arguments, code=0, **kwargs):
    """Run it to its end; it must exit with `code` and never show a traceback."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run(command(*arguments), text=True, timeout=DEADLINE, check=False, **kwargs)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in (done.stderr or "")
    assert "Warning" not in (done.stderr or "")
    return done


@contextlib.contextmanager
def started(*arguments, **kwargs):
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(command(*arguments), text=True, **kwargs)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process, number, code):
    """Send the signal; returns what it wrote to stdout and stderr until it exited with `code`."""
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, err
    assert "Traceback" not in (err or "")
    assert "Warning" not in (err or "")
    return out, err


def by_source(archive):
    """The archive as {tag: lines}; each line must be whole, tagged and ended by a newline."""
    return sorted_by_source(archive.read_bytes())


def sorted_by_source(content):
    sources = collections.defaultdict(list)
    assert content == b"" or content.endswith(b"\n")
    for line in content.split(b"\n")[:-1]:
        tag, text = line.split(b"\t", 1)
        sources[tag.decode()].append(text)
    return dict(sources)


def lines_of(path):
    lines = path.read_bytes().split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def counted(summary):
    """The summary's table as {name: (lines archived, held back)}."""
    rows = re.findall(r"^(\S+) +([\d,]+)(?: +[\d,]+){4} +([\d,]+)$", summary, re.MULTILINE)
    return {name: (int(lines.replace(",", "")), int(held.replace(",", ""))) for name, lines, held in rows}


def archived(archive, count):
    """Wait until the archive has so many lines."""
    until(lambda: archive.exists() and archive.read_bytes().count(b"\n") >= count, f"{count} lines in the archive")


def limited(**limits):
    """What to do in the child before it becomes the program: set resource limits, as NOFILE=32."""

    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return limit


def asleep(process):
    """True if every thread of the process waits in the kernel."""
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one ended meanwhile
        return all("State:\tS" in (task / "status").read_text() for task in tasks)
    return False


def caught(process, number):
    """True once the signal is neither pending nor being handled: the process waits in the kernel again."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    pending = int(re.search(r"^ShdPnd:\s+(\w+)", status, re.MULTILINE)[1], 16)
    return not pending >> (number - 1) & 1 and asleep(process)
