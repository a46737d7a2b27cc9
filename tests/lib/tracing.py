"""What system calls a child process makes, by strace."""

import shutil
import subprocess
import sys

import pytest
from harness import LIB, SLOWNESS, child_command

from nexus_channels import _core

MEMORY = ("mmap", "munmap", "brk", "madvise", "mprotect", "mremap")
# asyncio._get_running_loop() of 3.11 asks for the process, each time. We ask it where we may not look ourselves.
_asked = sys.version_info < (3, 12) and "running_loop" not in _core.build_info()["insides"]
ASKED_FOR_THE_LOOP = ("getpid(",) if _asked else ()


def strace(source, *args):
    """Run `source` under strace; return [(thread, call)] in order. Its getppid() calls serve as marks."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("tracing is not permitted here")
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-o", "/dev/stderr", *child_command(source, *args)]
    child = subprocess.run(
        command, capture_output=True, text=True, timeout=60 * SLOWNESS, cwd=LIB, check=False, errors="replace"
    )
    assert child.returncode == 0, child.stderr[-3000:]
    lines = [line.split(None, 1) for line in child.stderr.splitlines()]
    return [(thread, call) for thread, call in lines if "resumed>" not in call]


def between_marks(trace):
    """What the thread that called getppid() did between its odd and its even calls. Left out: memory management, and
    what the public way to the running loop asks."""
    marks = [index for index, (_, call) in enumerate(trace) if call.startswith("getppid")]
    assert marks and len(marks) % 2 == 0, "marks do not pair"
    inside = []
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        inside += [call for thread, call in trace[begin + 1 : end] if thread == trace[begin][0]]
    return [call for call in inside if not call.startswith((*MEMORY, *ASKED_FOR_THE_LOOP))]
