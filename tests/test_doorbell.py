"""The doorbell: the thread that wakes loops without readers for native code and for threads whose stack has run out."""

import asyncio
import sys

import pytest
from deafloop import DeafLoop, run_deaf
from harness import FREE_THREADED, WAKE, run_child, size, takes_long
from support import Spawned, in_thread, until_async, until_parked

from nexus_channels import mpsc, mpsc_bytes, spsc

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")

# In a process of its own there is no doorbell yet.
SETUP = """
import asyncio, atexit, importlib, os, sys, threading, time
import native_driver
from deafloop import DeafLoop, run_deaf, others
from support import *
from nexus_channels import mpsc, mpsc_bytes
driver = native_driver.Driver(sys.argv[1])
FOREVER = 2**62

async def wait_in_vain():
    tx, rx = mpsc_bytes.channel(1024)
    with tx.native():
        await rx.recv_bytes()

async def ring(rounds=3):
    tx, rx = mpsc_bytes.channel(1024)
    with tx.native() as end:
        for number in range(rounds):
            waiting = asyncio.create_task(rx.recv_bytes())
            await until_parked(tx, receivers=1)
            job = driver.producer(end, 1, who=number)
            assert await waiting == driver.stamped(number, 16, 0)
            assert job.join() == 0
"""


def child(script, driver, **kwargs):
    return run_child(SETUP + script, driver.path, **{"seconds": 20, **kwargs})


# ---- when there is a thread --------------------------------------------------------------------------------------


@linux
def test_there_is_no_thread_until_a_task_waits_for_native_code(driver):
    script = """
async def main():
    assert others() == 0
    tx, rx = mpsc.channel(1)
    for _ in range(3):  # woken from another thread of Python
        waiting = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        await in_thread(tx.try_send, 1)
        assert await waiting == 1
    tx, rx = mpsc_bytes.channel(64)
    with tx.native() as end:  # nobody waits
        assert driver.producer(end, 1).join() == 0
        await rx.recv_bytes()
    assert others() == 0
    await ring()
    until(lambda: others() == 1)
run_deaf(main())
run_deaf(ring())
until(lambda: others() == 1)
print("one")
"""
    assert child(script, driver) == "one\n"


@linux
@pytest.mark.skipif(WAKE == "call_soon_threadsafe", reason="loops have no wake descriptor on this build")
def test_loops_with_a_wake_descriptor_need_no_thread(driver, loop_factory):
    name = "asyncio" if loop_factory is asyncio.new_event_loop else "uvloop"
    script = f"""
import {name}
async def main():
    await ring()
    until(lambda: others() == {0 if name == "asyncio" else "others()"})
with asyncio.Runner(loop_factory={name}.new_event_loop) as runner:
    runner.run(main())
print("none")
"""
    assert child(script, driver) == "none\n"


@linux
def test_one_thread_serves_all_loops(driver):
    script = """
def loop():
    run_deaf(ring(30))
loops = [Spawned(loop) for _ in range(4)]
for one in loops:
    one.join()
until(lambda: others() == 1)
print("one")
"""
    assert child(script, driver) == "one\n"


@linux
def test_signals_are_left_to_other_threads(driver):
    script = """
import signal
run_deaf(ring())
known = {str(thread.native_id) for thread in threading.enumerate()}
until(lambda: others() == 1)
(bell,) = set(os.listdir("/proc/self/task")) - known
(blocked,) = [line for line in open(f"/proc/self/task/{bell}/status") if line.startswith("SigBlk")]
mask = int(blocked.split()[1], 16)
print([name for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGSEGV") if mask >> getattr(signal, name) - 1 & 1])
"""
    assert child(script, driver) == "['SIGINT', 'SIGTERM', 'SIGALRM']\n"


# ---- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("burst", [1, 100, 5000])
def test_a_burst_to_a_sleeping_loop_is_one_call_of_the_loop(driver, burst):
    loop = DeafLoop()

    async def main():
        tx, rx = mpsc_bytes.channel(1 << 20)
        with tx.native() as end:
            for number in range(4):
                waiting = asyncio.create_task(rx.recv_many(burst + 1))
                await until_parked(tx, receivers=1)
                before = loop.foreign
                assert driver.producer(end, burst).join() == 0  # with the loop's thread held up
                assert len(await waiting) == burst
                if number > 0:  # the first may set things up
                    assert loop.foreign == before + 1

    run_deaf(main(), loop)


def test_a_running_consumer_is_not_woken(driver):
    loop = DeafLoop()

    async def main():
        tx, rx = mpsc_bytes.channel(1 << 20)
        with tx.native() as end:
            before = loop.foreign
            assert driver.producer(end, 5000).join() == 0
            received = 0
            while received < 5000:
                received += len(await rx.recv_many(100))
            assert loop.foreign == before

    run_deaf(main(), loop)


# ---- many at once ------------------------------------------------------------------------------------------------


@takes_long(60, 600)
def test_many_loops_and_many_native_threads_lose_nothing(driver):
    count = size(3000, 200_000)

    def consume(number):
        async def main():
            tx, rx = mpsc_bytes.channel(512)
            ends = [tx.native() for _ in range(2)]
            jobs = [driver.producer(end, count, who=who) for who, end in enumerate(ends)]
            check = driver.checker()
            received = 0
            while received < 2 * count:
                messages = await rx.recv_many(7)
                for message in messages:
                    check(message)
                received += len(messages)
            assert [job.join() for job in jobs] == [0, 0]
            for end in ends:
                end.close()

        run_deaf(main())

    for loop in [Spawned(consume, number) for number in range(3)]:
        loop.join()


@takes_long(60, 600)
def test_native_receivers_wake_tasks_that_send(driver):
    count = size(2000, 100_000)

    async def main():
        tx, rx = mpsc_bytes.channel(128)
        with rx.native() as end:
            job = driver.consumer(end, count)
            for number in range(count):
                await tx.send(driver.stamped(0, 24, number))
            assert await in_thread(job.join) == 0
            assert (job.done, job.complaint) == (count, 0)

    run_deaf(main())


# ---- what could not be called is called by the doorbell ----------------------------------------------------------


def deep(levels, function):
    return function() if levels == 0 else deep(levels - 1, function)


@pytest.mark.skipif(FREE_THREADED, reason="where the stack ends is counted per thread and in another way")
@pytest.mark.parametrize("module", [spsc, mpsc, mpsc_bytes])
def test_the_first_wake_up_of_a_loop_may_come_from_a_thread_near_its_recursion_limit(module, loop_factory):
    """The loop has no wake descriptor yet, or never gets one."""

    def attempt(levels, tx):
        try:
            deep(levels, lambda: tx.try_send(b"item"))
        except RecursionError:
            return False
        return True

    async def main(levels):
        tx, rx = module.channel(64)
        task = asyncio.create_task(rx.recv_bytes() if module is mpsc_bytes else rx.recv())
        await until_parked(rx, receivers=1)
        if not await in_thread(attempt, levels, tx):
            task.cancel()
            await asyncio.wait([task])
            return False
        async with asyncio.timeout(10):
            assert await task == b"item"
        return True

    done = 0
    for levels in range(sys.getrecursionlimit() - 80, sys.getrecursionlimit()):
        for factory in (loop_factory, DeafLoop):
            with asyncio.Runner(loop_factory=factory) as runner:
                done += runner.run(main(levels))
    assert done > 0


class Failing(DeafLoop):
    """Its call_soon_threadsafe() finds no memory, `fails` times."""

    fails = 0

    def call_soon_threadsafe(self, callback, *args, **kwargs):
        if self.fails > 0 and "_core.Mailbox" in repr(callback):
            self.fails -= 1
            raise MemoryError
        return super().call_soon_threadsafe(callback, *args, **kwargs)


@pytest.mark.parametrize("fails", [1, 2, 100])
def test_a_wake_up_that_finds_no_memory_is_tried_again(fails):
    loop = Failing()

    async def main():
        tx, rx = mpsc.channel(1)
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        loop.fails = fails
        await in_thread(tx.try_send, "item")
        async with asyncio.timeout(10):
            assert await task == "item"
        assert loop.fails == 0

    run_deaf(main(), loop)


@pytest.mark.parametrize("native", [False, True], ids=["thread", "native"])
def test_a_loop_that_never_has_memory_is_not_tried_for_ever(native, driver, monkeypatch):
    """The error is reported, and the waiter waits on; the next send calls it."""
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))
    loop = Failing()

    async def main():
        tx, rx = mpsc_bytes.channel(64)
        task = asyncio.create_task(rx.recv_bytes())
        await until_parked(rx, receivers=1)
        end = tx.native() if native else None
        await asyncio.sleep(0)
        loop.fails = 10**9
        if native:
            assert await in_thread(driver.producer(end, 1).join) == 0
        else:
            await in_thread(tx.try_send, driver.stamped(0, 16, 0))
        await until_async(lambda: reports)
        assert reports == [MemoryError]
        assert not task.done()
        assert rx.statistics().waiting_receivers == 1
        loop.fails = 0
        await in_thread(tx.try_send if not native else tx.clone().try_send, b"next")
        assert await task == driver.stamped(0, 16, 0)
        if native:
            end.close()

    run_deaf(main(), loop)


# ---- exit --------------------------------------------------------------------------------------------------------

EXITS = {
    "asleep": """
run_deaf(ring())
""",
    "ringing a loop that was closed": """
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
async def main():
    job = driver.producer(end, FOREVER)
    for _ in range(100):
        await rx.recv_many(10)
    return job
job = run_deaf(main())
""",
    "ringing a loop that was never closed": """
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
loop = DeafLoop()
job = driver.producer(end, FOREVER)
async def main():
    for _ in range(100):
        await rx.recv_many(10)
loop.run_until_complete(main())
task = loop.create_task(rx.recv_many(10**6))
loop.run_until_complete(asyncio.sleep(0))
sys.stderr = open(os.devnull, "w")  # "Task was destroyed but it is pending!", which is true
""",
    "ringing a loop that a daemon thread runs": """
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
got = []
async def main():
    while True:
        got.append(len(await rx.recv_many(10)))
threading.Thread(target=run_deaf, args=(main(),), daemon=True).start()
job = driver.producer(end, FOREVER)
until(lambda: len(got) > 100)
""",
    "in a call of a loop that takes its time, and rung again": """
class Slow(DeafLoop):
    def call_soon_threadsafe(self, *args, **kwargs):
        entered.set()
        leave.wait()
        return super().call_soon_threadsafe(*args, **kwargs)
entered, leave = threading.Event(), threading.Event()
loop = Slow()
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
async def main():
    task = asyncio.create_task(rx.recv_bytes())
    await until_parked(tx, receivers=1)
    job = driver.producer(end, 1)
    assert job.join() == 0
    return task
task = loop.run_until_complete(main())
entered.wait()
other, (tx2, rx2) = DeafLoop(), mpsc_bytes.channel(1024)
end2 = tx2.native()
async def main2():
    task = asyncio.create_task(rx2.recv_bytes())
    await until_parked(tx2, receivers=1)
    return task
task2 = other.run_until_complete(main2())
assert driver.producer(end2, 1).join() == 0  # in the queue, and to be answered before the end
late = threading.Timer(0.05, leave.set)
late.daemon = True
late.start()  # the interpreter exits meanwhile
sys.stderr = open(os.devnull, "w")
""",
    "SystemExit in the middle": """
async def main():
    await ring()
    raise SystemExit(0)
run_deaf(main())
""",
}


@pytest.mark.parametrize("scene", EXITS)
def test_the_interpreter_exits(scene, driver):
    for _ in range(size(4, 100)):
        child(EXITS[scene], driver)


def test_a_task_that_waits_while_the_interpreter_exits_is_told_so(driver):
    script = """
def late():
    try:
        run_deaf(wait_in_vain())
    except RuntimeError as error:
        print(error)
atexit.register(late)  # before the doorbell is made, so it runs after that has ended
run_deaf(ring())
"""
    told = child(script, driver)
    assert "recv_bytes() has to wait, and native code could not wake" in told
    assert told.endswith("the interpreter is exiting\n")


def test_a_function_registered_later_still_has_it(driver):
    script = """
run_deaf(ring())
atexit.register(lambda: (run_deaf(ring()), print("rang")))
"""
    assert child(script, driver) == "rang\n"


def test_exit_functions_that_are_dropped_end_it(driver):
    script = """
run_deaf(ring())
atexit._clear()
try:
    run_deaf(wait_in_vain())
except RuntimeError as error:
    print(error)
"""
    assert child(script, driver).endswith("the interpreter is exiting\n")


# ---- fork and sub-interpreters -----------------------------------------------------------------------------------


def test_a_forked_child_has_a_doorbell_of_its_own(driver):
    script = """
import warnings
warnings.simplefilter("ignore")
run_deaf(ring())
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
job = driver.producer(end, FOREVER, most=64)  # rings while the process forks
got = []
async def main():
    while not done.is_set():
        got.append(len(await rx.recv_many(3)))
done = threading.Event()
consumer = Spawned(run_deaf, main())
for _ in range(int(sys.argv[2])):
    seen = len(got)
    until(lambda: len(got) > seen)
    pid = os.fork()
    if pid == 0:
        run_deaf(ring())
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
seen = len(got)
until(lambda: len(got) > seen + 10)
done.set()
consumer.join()
end.close()
print("done")
"""
    assert run_child(SETUP + script, driver.path, size(5, 100), seconds=30) == "done\n"


INSIDE = """
import sys
sys.path[:] = {path!r}
import asyncio, threading
from nexus_channels import mpsc
from deafloop import others, run_deaf
from support import *

def deep(levels, function):
    return function() if levels == 0 else deep(levels - 1, function)

def attempt(levels, tx, sent):
    try:
        deep(levels, lambda: tx.try_send(1))
    except RecursionError:
        return
    sent.append(levels)

async def main():
    done = 0
    for levels in range(sys.getrecursionlimit() - 60, sys.getrecursionlimit()):
        tx, rx = mpsc.channel(1)
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        sent = []
        thread = threading.Thread(target=attempt, args=(levels, tx, sent))
        thread.start()
        thread.join()
        if sent:
            assert await task == 1
            done += 1
        else:
            task.cancel()
            await asyncio.wait([task])
    assert done > 0

run_deaf(main())
until(lambda: others() == 1)
"""


@linux
@pytest.mark.skipif(FREE_THREADED, reason="where the stack ends is counted per thread and in another way")
def test_a_sub_interpreter_has_its_own_and_ends_with_it():
    """3.11 and 3.12 refuse to run and to end an interpreter that has a further thread state."""
    from test_subinterpreters import INTERPRETERS, OWN_GIL, can_wait_in_subinterpreters

    if OWN_GIL and not can_wait_in_subinterpreters():  # without a GIL of its own it can, where it is not isolated
        pytest.skip("asyncio does not run in a sub-interpreter of this Python")
    source = f"""
{INTERPRETERS.replace("isolated=True", "isolated=sys.version_info >= (3, 12)")}
from deafloop import others
from support import until
for _ in range({size(2, 20)}):
    one = create()
    for _ in range(3):
        run(one, {INSIDE.format(path=sys.path)!r})
    destroy(one)
    until(lambda: others() == 0)
print("done")
"""
    assert run_child(source, seconds=50) == "done\n"


INSIDE_NATIVE = """
import sys
sys.path[:] = {path!r}
import asyncio
import native_driver
from deafloop import run_deaf
from support import *
from nexus_channels import mpsc_bytes
driver = native_driver.Driver({driver!r})
tx, rx = mpsc_bytes.channel(1024)
end = tx.native()
async def main():
    job = driver.producer(end, 2**62)  # at work when the interpreter goes
    for _ in range(50):
        assert await rx.recv_many(10)
run_deaf(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="ctypes loads in sub-interpreters from 3.13 on")
def test_native_code_rings_in_several_interpreters_and_after_their_end(driver):
    from test_subinterpreters import INTERPRETERS

    source = f"""
{INTERPRETERS}
import threading
def use():
    for _ in range({size(3, 30)}):
        one = create()
        run(one, {INSIDE_NATIVE.format(path=sys.path, driver=str(driver.path))!r})
        destroy(one)
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""
    assert run_child(source, seconds=50) == "done\n"
