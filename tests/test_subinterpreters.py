"""The package in interpreters with a GIL of their own: import, use, destroy, again and again, many at once."""

import sys

import pytest
from harness import FREE_THREADED, run_child, size, takes_long

OWN_GIL = sys.version_info >= (3, 12)

# `run(id, source, **shared)` raises what the source raised, in each version's own way.
INTERPRETERS = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters
    create = lambda: _interpreters.create("isolated", reqrefs=False)
    destroy = _interpreters.destroy
    def run(interpreter, source):
        failed = _interpreters.exec(interpreter, source)
        if failed is not None:
            raise SystemExit(f"in the sub-interpreter: {failed.formatted}")
else:
    import _xxsubinterpreters as _interpreters
    create = lambda: _interpreters.create(isolated=True)
    destroy = _interpreters.destroy
    # The first releases of 3.12 corrupt memory when ssl, which asyncio would use, was imported in two interpreters.
    BEFORE = "import sys; sys.modules['ssl'] = sys.modules['_ssl'] = None\\n"
    def run(interpreter, source):
        _interpreters.run_string(interpreter, BEFORE + source)
"""

USE = """
from nexus_channels import local, spsc, mpsc, spsc_bytes, mpsc_bytes
from nexus_channels import Channel, Empty, Full, RecvError, SendError, EndpointClosed
import gc, weakref
for module in (local, spsc, mpsc):
    tx, rx = module.channel(2)
    tx.try_send_many([1, 2])
    try:
        tx.try_send(3)
    except Full as error:
        assert error.value == 3
    assert rx.try_recv_many(5) == [1, 2]
    try:
        rx.try_recv()
    except Empty:
        pass
    awaitable = tx.send(1)
    try:
        awaitable.send(None)
    except StopIteration:
        pass
    cycle = [tx]
    tx.try_send(cycle)
    tx.close()
    assert rx.try_recv() == 1
    rx.close()
    rx = tx = None
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(64)
    with tx.try_claim(5) as room:
        room[:] = b"bytes"
    with rx.try_recv() as message:
        assert message == b"bytes"
    kept = tx.try_claim(8)
    tx.close()
    rx.close()
    kept = rx = tx = None
gc.collect()
"""

WAIT = """
import asyncio, threading
from nexus_channels import mpsc
async def main():
    tx, rx = mpsc.channel(1)
    async def consume():
        return [item async for item in rx]
    task = asyncio.create_task(consume())
    def feed():
        with tx:
            for number in range(50):
                tx.send_blocking(number)
    thread = threading.Thread(target=feed)
    thread.start()
    assert await task == list(range(50))
    thread.join()
asyncio.run(main())
"""


def run_interpreters(script, seconds=60):
    return run_child(f"{INTERPRETERS}\nUSE = {USE!r}\nWAIT = {WAIT!r}\n{script}", seconds=seconds)


def can_wait_in_subinterpreters():
    """asyncio and threading themselves may refuse: then there is nothing of ours to see."""
    probe = "import asyncio, threading\\nthreading.Thread(target=id, args=[1]).start()\\nasyncio.run(asyncio.sleep(0))"
    try:
        run_child(f'{INTERPRETERS}\nrun(create(), "{probe}")')
    except AssertionError:
        return False
    return True


@takes_long()
def test_import_use_and_destroy():
    run_interpreters(
        f"""
for number in range({size(100, 1000)}):
    interpreter = create()
    run(interpreter, USE)
    if number % 10 == 0:
        run(interpreter, USE)
    destroy(interpreter)
""",
        seconds=size(110, 1500),
    )


@pytest.mark.skipif(not OWN_GIL, reason="interpreters have a GIL of their own from 3.12 on")
def test_it_loads_where_modules_without_support_for_it_do_not():
    """An isolated interpreter refuses extension modules that do not declare a GIL of their own."""
    run_interpreters(
        """
interpreter = create()
run(interpreter, "import nexus_channels._core")
destroy(interpreter)
"""
    )


def test_waits_of_threads_and_tasks_inside_a_sub_interpreter():
    if not can_wait_in_subinterpreters():
        pytest.skip("asyncio does not run in a sub-interpreter of this Python")
    run_interpreters(
        f"""
for _ in range({size(3, 100)}):
    interpreter = create()
    run(interpreter, WAIT)
    destroy(interpreter)
"""
    )


def test_many_interpreters_at_once_in_threads_of_their_own():
    run_interpreters(
        f"""
import threading
failed = []
def work():
    try:
        for _ in range({size(3, 30)}):
            interpreter = create()
            run(interpreter, USE)
            destroy(interpreter)
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
exec(USE)
for thread in threads: thread.join()
assert not failed, failed
"""
    )


def test_types_and_errors_of_one_interpreter_are_its_own():
    run_interpreters(
        """
import nexus_channels
from nexus_channels import mpsc
interpreter = create()
run(interpreter, "import nexus_channels; nexus_channels.errors.Full.mark = 'inner'; nexus_channels.mpsc.mark = 'inner'")
assert not hasattr(nexus_channels.Full, "mark") and not hasattr(mpsc, "mark")
tx, rx = mpsc.channel(1)
destroy(interpreter)
tx.try_send(1)
assert rx.try_recv() == 1
try:
    rx.try_recv()
except nexus_channels.Empty:
    pass
"""
    )


def test_an_interpreter_destroyed_with_full_channels_frees_what_is_in_them():
    run_interpreters(
        f"""
import os
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
FILL = '''
from nexus_channels import mpsc
keep = [mpsc.channel(1000) for _ in range(20)]
for tx, rx in keep:
    tx.try_send_many([bytes(1000) for _ in range(1000)])
'''
def growth(source):
    for number in range({size(5, 30)} + 2):
        interpreter = create()
        run(interpreter, source)
        destroy(interpreter)
        if number == 1:  # the first ones fill caches
            start = resident()
    return (resident() - start) / {size(5, 30)}
LISTS = '''
from nexus_channels import mpsc
keep = [[bytes(1000) for _ in range(1000)] for _ in range(20)]
'''
lists, channels = growth(LISTS), growth(FILL)
assert channels - lists < 5_000_000, (lists, channels)  # each filled 20 MB
"""
    )


@pytest.mark.skipif(FREE_THREADED, reason="the main interpreter's GIL is what is asked after")
@pytest.mark.skipif(not OWN_GIL, reason="interpreters have a GIL of their own from 3.12 on")
def test_a_blocking_wait_in_one_interpreter_does_not_hold_up_another():
    run_interpreters(
        """
import threading, time
from nexus_channels import mpsc
SOURCE = '''
from nexus_channels import mpsc, RecvTimeout
tx, rx = mpsc.channel(1)
try:
    rx.recv_blocking(timeout=0.5)
except RecvTimeout:
    pass
'''
def work():  # all in one thread, which the interpreter's threading module takes for its main thread
    interpreter = create()
    run(interpreter, SOURCE)
    destroy(interpreter)
thread = threading.Thread(target=work)
thread.start()
tx, rx = mpsc.channel(1)
count = 0
while thread.is_alive():
    tx.send_blocking(count)
    assert rx.recv_blocking() == count
    count += 1
thread.join()
assert count > 1000
"""
    )
