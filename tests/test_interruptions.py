"""What a signal handler raises comes out, and a wake-up that fails once is given again.

A channel call runs Python code on its way: it asks loops whether they are closed, and calls their `call_soon`. A signal
handler may run there and raise, memory or the stack may run out there.
"""

import asyncio
import signal
import sys

import pytest
from anychannel import ALL, THREADED, AnyChannel
from harness import FREE_THREADED, SLOWNESS, run_child, size
from steploop import StepLoop
from support import until_parked

pytestmark = pytest.mark.thread_unsafe("signals and recursion limits are the process's")


class Alarm(Exception):
    """Not a KeyboardInterrupt: any exception that a handler raises counts."""


def on_signal(_number, _frame):
    raise Alarm


@pytest.fixture
def alarm():
    before = signal.signal(signal.SIGUSR1, on_signal)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupt(when, function, *args, **kwargs):
    """Call the function; the signal comes before it, or when it has done its work."""
    if when == "before":
        signal.raise_signal(signal.SIGUSR1)
    result = function(*args, **kwargs)
    if when == "after":
        signal.raise_signal(signal.SIGUSR1)
    return result


class Interrupted(StepLoop):
    """A signal comes inside one of its methods, the first `times` that it is called."""

    def __init__(self, point, when, times):
        super().__init__()
        self.left = 0

        def method(*args, **kwargs):
            function = getattr(StepLoop, point)
            if self.left == 0:
                return function(self, *args, **kwargs)
            self.left -= 1
            self.interrupted += 1
            return interrupt(when, function, self, *args, **kwargs)

        self.interrupted = 0
        self.times = times
        setattr(self, point, method)

    def start(self):
        self.left = self.times


def call_until_quiet(function):
    """How many alarms come out of the call, or of the bytecode behind it."""
    heard = 0
    try:
        function()
        for _ in range(3):
            pass
    except Alarm:
        heard += 1
    for _ in range(20):
        try:
            for _ in range(3):
                pass
        except Alarm:
            heard += 1
    return heard


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["is_closed", "call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", ["outside", "task"])
def test_what_a_handler_raises_on_the_way_of_a_send_is_neither_lost_nor_costs_the_wake_up(
    alarm, name, point, when, where
):
    channel = AnyChannel(name)
    loop = Interrupted(point, when, 1)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    heard = 0

    def send():
        nonlocal heard
        loop.start()
        heard += call_until_quiet(lambda: channel.try_send(7))

    if where == "outside":
        send()
    else:

        async def sending():
            send()

        loop.create_task(sending())
        loop.step()
    interrupted, loop.left = loop.interrupted, 0
    assert heard == interrupted
    loop.run_ready()
    assert task.done() and task.result() == 7
    assert loop.errors == []
    loop.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", ["create_future", "call_later"])
def test_what_a_handler_raises_while_a_call_prepares_to_wait_comes_out_and_nothing_is_taken(alarm, point, when):
    channel = AnyChannel("spsc")
    loop = Interrupted(point, when, 1)
    heard = []

    async def receiving():
        try:
            loop.start()
            await channel.recv(timeout=5)
        except Alarm:
            heard.append(True)

    task = loop.create_task(receiving())
    loop.run_ready()
    assert len(heard) == loop.interrupted
    if not task.done():
        channel.try_send(1)
        loop.run_ready()
    assert task.done()
    loop.close()


CTRL_C = f"""
import asyncio, importlib, signal, sys, threading, time, os
module = importlib.import_module("nexus_channels." + sys.argv[1])
heard = 0
ready = threading.Event()
async def consume(rx):
    ready.set()
    async for item in rx:
        pass
def run(rx):
    asyncio.run(consume(rx))
def feed(tx):  # a function: the jump at the end of a loop is outside of a `try` around it, for CPython's compiler
    end = time.monotonic() + 5 * {SLOWNESS}
    while time.monotonic() < end:
        tx.send_blocking(1)
for round in range({size(5, 50)}):
    tx, rx = module.channel(8)
    ready.clear()
    thread = threading.Thread(target=run, args=(rx,))
    thread.start()
    ready.wait()
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        feed(tx)
    except KeyboardInterrupt:
        heard += 1
    tx.close()
    thread.join()
print(heard)
"""


def test_each_ctrl_c_is_heard_while_the_main_thread_feeds_a_task_of_another_thread(threaded):
    heard = run_child(CTRL_C, threaded.__name__.rpartition(".")[2], seconds=60)
    assert int(heard) == size(5, 50)


# A wake-up that fails


def deep(levels, function):
    return deep(levels - 1, function) if levels else function()


@pytest.mark.skipif(FREE_THREADED, reason="where the stack ends is counted per thread and in another way")
@pytest.mark.parametrize("name", ALL)
def test_a_wake_up_near_the_recursion_limit_is_given_later(name):
    """Each depth at which the call itself still succeeds."""

    async def main():
        sent = 0
        for levels in range(sys.getrecursionlimit() - 140, sys.getrecursionlimit()):
            channel = AnyChannel(name)
            task = asyncio.create_task(channel.recv())
            while not channel.rx.statistics().waiting_receivers:
                await asyncio.sleep(0)
            try:
                deep(levels, lambda channel=channel: channel.tx.try_send(channel.pack(1)))
            except RecursionError:
                assert len(channel.rx) == 0
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                continue
            sent += 1
            async with asyncio.timeout(10):
                assert await task == 1
        assert sent > 0

    asyncio.run(main())


@pytest.mark.skipif(FREE_THREADED, reason="where the stack ends is counted per thread and in another way")
@pytest.mark.parametrize("name", THREADED)
def test_a_wake_up_from_a_thread_near_its_recursion_limit_is_not_lost(name):
    """Also where the stack ends while the mailbox of the loop is looked for."""

    def attempt(levels, channel):
        try:
            deep(levels, lambda: channel.tx.try_send(channel.pack(1)))
        except RecursionError:
            return False
        return True

    async def main():
        sent = 0
        for levels in range(sys.getrecursionlimit() - 140, sys.getrecursionlimit()):
            channel = AnyChannel(name)
            task = asyncio.create_task(channel.recv())
            await until_parked(channel.rx, receivers=1)
            if await asyncio.to_thread(attempt, levels, channel):
                sent += 1
                async with asyncio.timeout(10):
                    assert await task == 1
            else:
                assert len(channel.rx) == 0
                task.cancel()
                await asyncio.wait([task])
        assert sent > 0

    asyncio.run(main())


class Failing(StepLoop):
    """Its call_soon() finds no memory, before or after it has done its work."""

    fails = 0
    after = False

    def call_soon(self, callback, *args, context=None):
        fails = self.fails > 0 and "_core" in type(callback).__module__
        if fails:
            self.fails -= 1
        if fails and not self.after:
            raise MemoryError
        handle = super().call_soon(callback, *args, context=context)
        if fails:
            raise MemoryError
        return handle


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails", [1, 2, 5])
@pytest.mark.parametrize("name", ALL)
def test_a_wake_up_that_found_no_memory_is_given_later_without_another_send(name, fails, after):
    channel = AnyChannel(name)
    loop = Failing()
    loop.after = after
    task = loop.create_task(channel.recv())
    loop.run_ready()

    async def send():
        loop.fails = fails
        channel.try_send(1)

    loop.create_task(send())
    for _ in range(100):  # the interpreter looks for pending calls between bytecodes
        loop.run_ready()
    assert task.done() and task.result() == 1
    loop.close()


@pytest.mark.parametrize("name", ALL)
def test_a_task_whose_wake_up_never_succeeds_can_be_cancelled_and_costs_nothing(name, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    channel = AnyChannel(name)
    loop = Failing()
    task = loop.create_task(channel.recv())
    loop.run_ready()

    async def send():
        loop.fails = 10**6
        channel.try_send(1)

    loop.create_task(send())
    for _ in range(2000):
        loop.run_ready()
    loop.fails = 0
    assert not task.done()
    assert reported and set(reported) == {MemoryError}
    task.cancel()
    loop.run_ready()
    assert task.cancelled()
    assert channel.drain() == [1]
    loop.close()


# Who was called together


def test_threads_and_loops_that_are_called_together_are_kicked_in_the_order_of_the_line(threaded):
    loops = [StepLoop() for _ in range(5)]
    order = []
    tx, rx = threaded.channel(8)
    tasks = []
    for number, loop in enumerate(loops):

        def told(callback, *args, number=number, loop=loop, **kwargs):
            order.append(number)
            return StepLoop.call_soon_threadsafe(loop, callback, *args, **kwargs)

        loop.call_soon_threadsafe = told
        tasks.append(loop.create_task(rx.recv()))
        loop.run_ready()
    tx.try_send_many(range(5))
    assert order == [0, 1, 2, 3, 4]
    for loop in loops:
        loop.run_ready()
    assert [task.result() for task in tasks] == [0, 1, 2, 3, 4]
    for loop in loops:
        loop.close()
