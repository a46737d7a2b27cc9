"""What waking costs: a burst to a sleeping loop is one write(2), a running consumer none, counted by strace.

Where a loop has no wake descriptor, it is call_soon_threadsafe() that writes once, to the loop's own socket.
"""

import collections
import re
import shutil
import subprocess
import sys

import pytest
from harness import LIB, SLOWNESS, WAKE, child_command

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None or sys.platform != "linux", reason="needs strace to count with"
)

SCRIPT = """
import asyncio, os, sys, importlib
import native_driver
from support import until, until_parked
module = importlib.import_module("nexus_channels." + sys.argv[1])
driver = native_driver.Driver(sys.argv[2])
how, bursts, burst = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])

def mark(word):  # between the marks the trace counts
    os.write(2, f"MARK {word}\\n".encode())

async def sleeping(tx, rx):
    for round in range(bursts + 1):
        waiting = asyncio.create_task(rx.recv_many(burst + 1))
        await until_parked(tx, receivers=1)
        with tx.native() as end:
            if round == 1:
                mark("begin")
            job = driver.producer(end, burst, how=how)
            job.join()  # the loop sleeps until the whole burst is out
        assert len(await waiting) == burst
    mark("end")

async def running(tx, rx):
    with tx.native() as end:
        mark("begin")
        job = driver.producer(end, burst, how=how)
        received = 0
        while received < burst // 2:  # beside the producer, never asleep
            received += len(rx.try_recv_many(100))
        until(lambda: job.done == burst)
        while received < burst:  # it is all there: an await does not sleep either
            received += len(await rx.recv_many(100))
        mark("end")
        job.join()

tx, rx = module.channel(1 << 20)
asyncio.run(globals()[sys.argv[6]](tx, rx))
"""
SEND, MANY, QUIET = 17, 19, 20
WRITTEN_TO = {"eventfd": "anon_inode", "pipe": "pipe", "call_soon_threadsafe": "socket"}[WAKE]


def writes(*args):
    """How many writes were made between the marks, by the kind of the descriptor. The marks go to stderr."""
    command = ["strace", "-f", "-qq", "-y", "-e", "trace=write,sendto", *child_command(SCRIPT, *args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=LIB, timeout=50 * SLOWNESS, check=False)
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    _, begin, rest = done.stderr.partition('"MARK begin')
    counted, end, _ = rest.partition('"MARK end')
    assert begin
    assert end
    return collections.Counter(re.findall(r"(?:write|sendto)\((?!2<)\d+<(\w+|[^>]*)", counted))


@pytest.mark.parametrize("how", [SEND, MANY, QUIET])
@pytest.mark.parametrize("burst", [1, 100, 5000])
def test_a_burst_to_a_sleeping_loop_costs_one_write(bytes_variant, driver, how, burst):
    name = bytes_variant.__name__.rpartition(".")[2]
    counted = writes(name, driver.path, how, 5, burst, "sleeping")
    assert counted == {WRITTEN_TO: 5}


@pytest.mark.parametrize("how", [SEND, MANY, QUIET])
def test_a_running_consumer_costs_no_write(bytes_variant, driver, how):
    name = bytes_variant.__name__.rpartition(".")[2]
    counted = writes(name, driver.path, how, 0, 5000, "running")
    assert counted == {}
