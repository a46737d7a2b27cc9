"""Blocking calls: threads wait in line, with timeouts, beside tasks and each other, on endpoints they share."""

import asyncio
import collections
import gc
import re
import sys
import threading
import time

import pytest
from anychannel import ALL, AnyChannel
from harness import GIL_ENABLED, SLOWNESS, run_child, size
from support import DEADLINE, drive, in_thread, until, until_blocked, until_parked
from tracing import between_marks, strace

from nexus_channels import Empty, EndpointClosed, Full, RecvError, RecvTimeout, SendError, SendTimeout


def full_channel(module, capacity=1):
    tx, rx = module.channel(capacity)
    for number in range(capacity):
        tx.try_send(number)
    return tx, rx


# Each blocking call, ready and not. The other side's call that lets it go on comes from the test's thread.

WAITS = {
    "send_blocking": (lambda tx, rx: tx.send_blocking(1), True),
    "send_blocking with timeout": (lambda tx, rx: tx.send_blocking(1, timeout=DEADLINE), True),
    "send_many_blocking": (lambda tx, rx: tx.send_many_blocking([1, 2]), True),
    "send_many_blocking with timeout": (lambda tx, rx: tx.send_many_blocking([1, 2], timeout=DEADLINE), True),
    "recv_blocking": (lambda tx, rx: rx.recv_blocking(), False),
    "recv_blocking with timeout": (lambda tx, rx: rx.recv_blocking(timeout=DEADLINE), False),
    "recv_many_blocking": (lambda tx, rx: rx.recv_many_blocking(2), False),
    "recv_many_blocking with timeout": (lambda tx, rx: rx.recv_many_blocking(2, timeout=DEADLINE), False),
    "for": (lambda tx, rx: next(iter(rx)), False),
}


@pytest.fixture(params=WAITS)
def blocked(request, threaded, spawn):
    """A thread that waits in one of the blocking calls: (tx, rx, thread, is it a sender)."""
    call, sends = WAITS[request.param]
    tx, rx = full_channel(threaded) if sends else threaded.channel(1)
    thread = spawn(call, tx, rx)
    until_blocked(tx, senders=int(sends), receivers=int(not sends))
    return tx, rx, thread, sends


def test_a_blocked_call_goes_on_as_soon_as_it_can(blocked):
    tx, rx, thread, sends = blocked
    if sends:
        received = [rx.recv_blocking(timeout=DEADLINE)]
        while thread.is_alive() or len(rx):
            received += rx.try_recv_many(5)
        assert received[:2] == [0, 1]
        thread.join()
    else:
        tx.send_blocking("item")
        assert thread.join() in ("item", ["item"])
    assert tx.statistics()[4:6] == (0, 0)


def test_closing_the_other_side_wakes_a_blocked_call(blocked):
    tx, rx, thread, sends = blocked
    (rx if sends else tx).close()
    with pytest.raises(SendError if sends else (RecvError, StopIteration)) as raised:
        thread.join()
    if sends:
        assert raised.value.value in (1, [1, 2])


def test_closing_its_own_endpoint_elsewhere_wakes_a_blocked_call(blocked):
    tx, rx, thread, sends = blocked
    (tx if sends else rx).close()
    with pytest.raises(EndpointClosed):
        thread.join()


def test_dropping_the_last_reference_to_the_other_side_wakes_a_blocked_call(request, threaded, spawn):
    for call, sends in WAITS.values():
        tx, rx = full_channel(threaded) if sends else threaded.channel(1)
        ends = [tx, rx]

        # The thread must not itself hold the end that is to be dropped.
        thread = spawn(call, tx if sends else None, None if sends else rx)
        mine = tx if sends else rx
        until_blocked(mine, senders=int(sends), receivers=int(not sends))
        del tx, rx
        other = ends.pop(1 if sends else 0)
        dropper = spawn(lambda box: box.clear(), [other])
        del other
        dropper.join()
        with pytest.raises(SendError if sends else (RecvError, StopIteration)):
            thread.join()
        del mine


@pytest.mark.parametrize("waits", ["receiver", "sender"])
def test_dropping_the_last_reference_in_another_thread_wakes_its_maker(threaded, spawn, waits):
    """The thread that made both ends waits on one of them, and so cannot look after the other."""
    tx, rx = full_channel(threaded) if waits == "sender" else threaded.channel(1)
    box = [rx if waits == "sender" else tx]
    statistics = (tx if waits == "sender" else rx).statistics

    def drop(box=box):
        until(lambda: statistics().waiting_senders + statistics().waiting_receivers == 1)
        box.clear()

    if waits == "sender":
        del rx
    else:
        del tx
    spawn(drop)
    with pytest.raises((SendError, RecvError)) as raised:
        tx.send_blocking(1, timeout=3 * SLOWNESS) if waits == "sender" else rx.recv_blocking(timeout=3 * SLOWNESS)
    assert not isinstance(raised.value, TimeoutError)


def test_dropping_the_last_of_several_clones_wakes_and_no_earlier_one(spawn):
    from nexus_channels import mpsc

    tx, rx = mpsc.channel(1)
    clones = [tx.clone() for _ in range(3)]
    thread = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    del tx
    while len(clones) > 1:
        clones.pop()
        assert rx.statistics()[2:6] == (len(clones), 1, 0, 1)
    clones.pop()
    with pytest.raises(RecvError):
        thread.join()


# Timeouts


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_timeout_zero_tries_once(threaded, timeout):
    tx, rx = threaded.channel(1)
    with pytest.raises(Empty):
        rx.recv_blocking(timeout=timeout)
    with pytest.raises(Empty):
        rx.recv_many_blocking(3, timeout=timeout)
    tx.send_blocking(1, timeout=timeout)
    with pytest.raises(Full) as raised:
        tx.send_blocking(2, timeout=timeout)
    assert raised.value.value == 2
    assert rx.recv_blocking(timeout=timeout) == 1


@pytest.mark.parametrize("seconds", [0.02, 0.25, 1.3])
def test_pitfall_10_timeouts_are_fractions_of_seconds_and_not_rounded(threaded, seconds):
    tx, rx = full_channel(threaded)
    start = time.monotonic()
    with pytest.raises(SendTimeout) as raised:
        tx.send_blocking("late", timeout=seconds)
    sending = time.monotonic() - start
    assert raised.value.value == "late"
    rx.try_recv()
    start = time.monotonic()
    with pytest.raises(RecvTimeout):
        rx.recv_blocking(timeout=seconds)
    receiving = time.monotonic() - start
    for took in (sending, receiving):
        assert seconds - 0.001 <= took < seconds + 0.5 * SLOWNESS


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, 10**12])
def test_long_timeouts_wait_until_the_item_comes(threaded, spawn, timeout):
    tx, rx = threaded.channel(1)
    thread = spawn(rx.recv_blocking, timeout=timeout)
    until_blocked(rx, receivers=1)
    tx.try_send("item")
    assert thread.join() == "item"
    tx.try_send("fill")
    thread = spawn(tx.send_blocking, "item", timeout=timeout)
    until_blocked(tx, senders=1)
    assert [rx.recv_blocking(), rx.recv_blocking()] == ["fill", "item"]


def test_a_send_many_that_times_out_tells_what_it_did_not_send(threaded):
    tx, rx = threaded.channel(2)
    with pytest.raises(SendTimeout) as raised:
        tx.send_many_blocking(range(5), timeout=0.01)
    assert raised.value.value == [2, 3, 4]
    assert rx.try_recv_many(5) == [0, 1]
    assert tx.statistics()[4:6] == (0, 0)


def test_timeouts_are_on_the_monotonic_clock():
    """The wall clock jumps an hour ahead, then back, while a thread waits: as if by a library call that lies."""
    script = """
import threading, time
from nexus_channels import mpsc, RecvTimeout
tx, rx = mpsc.channel(1)
real, offset = time.time, 3600
time.time = lambda: real() + offset
start = time.monotonic()
for offset in (3600, -3600):
    try:
        rx.recv_blocking(timeout=0.2)
    except RecvTimeout:
        pass
assert 0.4 <= time.monotonic() - start < 5
"""
    run_child(script)


# Waiters are served first come, first served


@pytest.mark.parametrize("count", [2, 8])
def test_pitfall_06_threads_that_wait_to_send_on_one_endpoint_are_served_in_line(threaded, spawn, count):
    tx, rx = full_channel(threaded)
    threads = []
    for number in range(1, count + 1):
        threads.append(spawn(tx.send_blocking, number))
        until_blocked(tx, senders=number)
    assert [rx.recv_blocking(timeout=DEADLINE) for _ in range(count + 1)] == list(range(count + 1))
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("count", [2, 8])
def test_pitfall_06_threads_that_wait_to_receive_on_one_endpoint_are_served_in_line(threaded, spawn, count):
    tx, rx = threaded.channel(count)
    threads = []
    for number in range(1, count + 1):
        threads.append(spawn(rx.recv_blocking))
        until_blocked(rx, receivers=number)
    # One by one: those woken together race each other for who takes the older item.
    for number, thread in enumerate(threads):
        tx.send_blocking(number)
        assert thread.join() == number


def test_pitfall_06_threads_and_tasks_of_several_loops_are_served_in_one_line(threaded, spawn, loop_factory):
    tx, rx = threaded.channel(8)

    def in_a_loop():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(rx.recv(timeout=DEADLINE))

    waiters = []
    for number in range(1, 9):
        waiters.append(spawn(in_a_loop if number % 2 else rx.recv_blocking))
        until_blocked(rx, receivers=number)
    for number, waiter in enumerate(waiters):
        tx.send_blocking(number)
        assert waiter.join() == number


def test_a_later_try_does_not_overtake_those_in_line(threaded, spawn):
    tx, rx = full_channel(threaded)
    thread = spawn(tx.send_blocking, "in line")
    until_blocked(tx, senders=1)
    rx.try_recv()
    with pytest.raises(Full):  # the room is owed to the thread, or already taken by it
        tx.try_send("later")
    assert rx.recv_blocking(timeout=DEADLINE) == "in line"
    thread.join()


def test_a_later_try_may_use_room_that_nobody_in_line_will_take(threaded, step_loop):
    """A woken task that has not run yet holds back its own share, and no more."""
    tx, rx = full_channel(threaded, 3)
    task = step_loop.create_task(tx.send("in line"))
    step_loop.run_ready()
    assert rx.try_recv_many(3) == [0, 1, 2]
    tx.try_send("later 1")
    tx.try_send("later 2")
    with pytest.raises(Full):
        tx.try_send("later 3")
    step_loop.run_ready()
    assert task.done()
    assert rx.try_recv_many(5) == ["later 1", "later 2", "in line"]


def test_fairness_a_thread_in_line_gets_its_turn_beside_a_greedy_task(threaded, run):
    """The task sends without end; the thread behind it must get in as soon as its turn comes."""

    async def main():
        tx, rx = threaded.channel(1)
        stop = False

        async def greedy():
            while not stop:
                await tx.send("task")

        task = asyncio.create_task(greedy())
        await until_parked(tx, senders=1)
        thread = asyncio.create_task(in_thread(tx.send_blocking, "thread"))
        await until_parked(tx, senders=2)
        # In the buffer: one of the task's. In line: one of the task's, then the thread's.
        received = [await rx.recv() for _ in range(3)]
        assert received == ["task", "task", "thread"]
        stop = True
        while not task.done():
            rx.try_recv_many(5)
            await asyncio.sleep(0)
        await task
        await thread

    run(main())


def test_fairness_a_task_in_line_gets_its_turn_beside_greedy_threads(threaded, run):
    async def main():
        tx, rx = threaded.channel(1)
        stop = threading.Event()

        def greedy():
            while not stop.is_set():
                try:
                    tx.send_blocking("thread", timeout=DEADLINE)
                except SendError:
                    return

        threads = [asyncio.create_task(in_thread(greedy)) for _ in range(2)]
        await until_parked(tx, senders=2)
        mine = asyncio.create_task(tx.send("task"))
        await until_parked(tx, senders=3)
        received = [await rx.recv() for _ in range(4)]
        assert received == ["thread", "thread", "thread", "task"]
        stop.set()
        rx.close()
        await mine
        await asyncio.gather(*threads)

    run(main())


# Threads and loops


def test_a_thread_feeds_a_task(threaded, run):
    count = size(2_000, 200_000)

    async def main():
        tx, rx = threaded.channel(4)

        def feed():
            with tx:
                for number in range(count):
                    tx.send_blocking(number)

        thread = asyncio.create_task(in_thread(feed))
        received = [item async for item in rx]
        await thread
        assert received == list(range(count))

    run(main())


def test_a_task_feeds_a_thread(threaded, run):
    count = size(2_000, 200_000)

    async def main():
        tx, rx = threaded.channel(4)
        thread = asyncio.create_task(in_thread(list, rx))
        async with tx:
            for number in range(count):
                await tx.send(number)
        assert await thread == list(range(count))

    run(main())


def test_a_thread_feeds_a_thread(threaded, spawn):
    count = size(5_000, 500_000)
    tx, rx = threaded.channel(4)
    thread = spawn(list, rx)
    with tx:
        for number in range(count):
            tx.send_blocking(number)
    assert thread.join() == list(range(count))


def test_a_loop_in_one_thread_feeds_a_loop_in_another(threaded, spawn, loop_factory):
    count = size(2_000, 200_000)
    tx, rx = threaded.channel(2)

    async def produce():
        async with tx:
            for number in range(count):
                await tx.send(number)

    async def consume():
        return [item async for item in rx]

    def run_loop(main):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    consumer = spawn(run_loop, consume)
    spawn(run_loop, produce).join()
    assert consumer.join() == list(range(count))


def test_pitfall_08_a_send_from_another_thread_wakes_an_idle_loop(threaded, run):
    """The loop has nothing else to do and no timer: only the send can wake it."""

    async def main():
        tx, rx = threaded.channel(1)
        task = asyncio.current_task()
        sent_at = []

        def send():
            until_blocked(rx, receivers=1)
            time.sleep(0.05)  # let the loop go to sleep in its selector; too early would only test less
            sent_at.append(time.monotonic())
            tx.try_send("item")

        thread = threading.Thread(target=send)
        thread.start()
        assert await rx.recv() == "item"
        assert time.monotonic() - sent_at[0] < 1.0 * SLOWNESS
        thread.join()
        assert task is asyncio.current_task()

    run(main())


def test_loops_of_several_threads_wake_their_own_tasks_at_once(threaded, spawn, loop_factory):
    """Under ThreadSanitizer it shows if what wakes them is shared."""

    async def there_and_back():
        tx, other_rx = threaded.channel(1)
        other_tx, rx = threaded.channel(1)

        async def echo():
            async for number in other_rx:
                await other_tx.send(number)

        echoing = asyncio.create_task(echo())
        received = []
        for number in range(count):
            await tx.send(number)
            received.append(await rx.recv())
        tx.close()
        await echoing
        return received

    def run_loop():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(there_and_back())

    count = size(200, 20_000)
    threads = [spawn(run_loop) for _ in range(3)]
    for thread in threads:
        assert thread.join() == list(range(count))


def test_several_loops_and_threads_share_one_receiver(threaded, spawn, loop_factory):
    count = size(3_000, 100_000)
    tx, rx = threaded.channel(3)

    async def take_all():
        async def take():
            return [item async for item in rx]

        return await asyncio.gather(take(), take())

    def run_loop():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return sum(runner.run(take_all()), [])

    takers = [spawn(run_loop), spawn(run_loop), spawn(list, rx)]
    with tx:
        for number in range(count):
            tx.send_blocking(number)
    received = [taker.join() for taker in takers]
    assert sorted(sum(received, [])) == list(range(count))
    assert received[2] == sorted(received[2])


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_one_endpoint_used_by_many_threads_at_once_corrupts_nothing(threaded, spawn, side):
    """Every kind of call at once on one endpoint, spsc too: calls are serialised."""
    count = size(1_000, 50_000)
    tx, rx = threaded.channel(3)
    many = 4

    def send(base):
        numbers = iter(range(base, base + count))
        for number in numbers:
            kind = number % 4
            if kind == 0:
                tx.send_blocking(number)
            elif kind == 1:
                batch = [number, *(next(numbers, None) for _ in range(2))]
                tx.send_many_blocking([item for item in batch if item is not None])
            else:
                while True:
                    try:
                        tx.try_send(number)
                        break
                    except Full:
                        time.sleep(0)

    def receive(out):
        while True:
            try:
                kind = len(out) % 3
                if kind == 0:
                    out.append(rx.recv_blocking())
                elif kind == 1:
                    out.extend(rx.recv_many_blocking(2))
                else:
                    out.extend(rx.try_recv_many(2) or [rx.recv_blocking()])
            except RecvError:
                return

    received = [[] for _ in range(many if side == "receiver" else 1)]
    receivers = [spawn(receive, out) for out in received]
    senders = [spawn(send, number * 10**6) for number in range(many if side == "sender" else 1)]
    for thread in senders:
        while thread.is_alive():
            thread._thread.join(1)
        thread.join()
    tx.close()
    for thread in receivers:
        thread.join()
    everything = sorted(sum(received, []))
    assert everything == sorted(base * 10**6 + number for base in range(len(senders)) for number in range(count))
    if side == "sender":
        for base in range(many):
            mine = [item for item in received[0] if item // 10**6 == base]
            assert mine == sorted(mine), "items of one thread out of order"


def test_closing_an_endpoint_that_other_threads_hammer_ends_them_all(threaded, spawn):
    for _ in range(size(20, 500)):
        tx, rx = threaded.channel(2)
        sent, received = collections.deque(), collections.deque()

        def send(base, tx=tx, sent=sent):
            try:
                for number in range(base, base + 10**6):
                    tx.send_blocking(number)
                    sent.append(number)
            except (SendError, EndpointClosed) as error:
                return type(error)

        def receive(rx=rx, received=received):
            try:
                while True:
                    received.append(rx.recv_blocking())
            except (RecvError, EndpointClosed) as error:
                return type(error)

        senders = [spawn(send, number * 10**6) for number in range(2)]
        receivers = [spawn(receive) for _ in range(2)]
        until(lambda received=received: len(received) > 20)
        tx.close()
        assert [thread.join() for thread in senders] == [EndpointClosed] * 2
        assert [thread.join() for thread in receivers] == [RecvError] * 2
        assert sorted(sent) == sorted(received)


def test_receivers_hammered_while_they_are_closed_account_for_every_item(threaded, spawn):
    for _ in range(size(20, 500)):
        tx, rx = threaded.channel(2)
        received = collections.deque()

        def receive(rx=rx, received=received):
            try:
                while True:
                    received.append(rx.recv_blocking())
            except EndpointClosed:
                pass

        threads = [spawn(receive) for _ in range(2)]

        def send(tx=tx):
            for number in range(10**6):
                try:
                    tx.send_blocking(number)
                except SendError as error:
                    assert error.value == number
                    return number

        sender = spawn(send)
        until(lambda received=received: len(received) > 20)
        rx.close()
        sent = sender.join()
        for thread in threads:
            thread.join()
        stats = tx.statistics()
        assert (stats.sent, stats.received, stats.buffered) == (sent, len(received), 0)
        assert sorted(received) == list(range(len(received)))
        assert sent - len(received) <= 3  # two in the ring, and one on its way when it was closed


# What a call costs others


@pytest.mark.skipif(not GIL_ENABLED, reason="there is no GIL to lose")
def test_pitfall_20_a_try_call_beside_a_busy_thread_does_not_lose_the_gil(variant):
    """Each loss of the GIL would cost a switch interval: 400 pairs, 40 s together. Without, a few at most."""
    interval = sys.getswitchinterval()
    stop = False

    def spin():
        while not stop:
            pass

    thread = threading.Thread(target=spin)
    sys.setswitchinterval(0.05)
    try:
        thread.start()
        tx, rx = variant.channel(8)
        start = time.monotonic()
        for number in range(400):
            tx.try_send(number)
            assert len(rx) == 1
            assert rx.try_recv() == number
            tx.try_send_many([1, 2])
            assert rx.try_recv_many(5) == [1, 2]
        took = time.monotonic() - start
    finally:
        stop = True
        sys.setswitchinterval(interval)
        thread.join()
    assert took < 4


@pytest.mark.skipif(not GIL_ENABLED, reason="there is no GIL to lose")
@pytest.mark.parametrize("name", ALL)
def test_pitfall_20_calls_that_need_not_wait_never_let_go_of_the_gil(name, spawn):
    """Threads that want it all the time get it when it is let go, and by force after a long time."""
    channel = AnyChannel(name, 8)
    interval, stop = sys.getswitchinterval(), False
    turns = []

    def want():
        while not stop:
            turns.append(None)
            time.sleep(0)

    for _ in range(2):
        spawn(want)
    try:
        until(lambda: len(turns) > 10)
        sys.setswitchinterval(DEADLINE)
        for _ in range(2):  # what they began to wait before that is forced once more
            before = len(turns)
            for number in range(10_000):
                channel.try_send(number)
                channel.try_recv()
                drive(channel.sending(number))
                if channel.blocks:
                    channel.recv_blocking()
                    channel.send_blocking(number)
                channel.drain()
            during = len(turns) - before
        assert during == 0
    finally:
        sys.setswitchinterval(interval)
        stop = True


@pytest.mark.skipif(not GIL_ENABLED, reason="there is no GIL to lose")
def test_pitfall_20_a_blocking_call_that_need_not_wait_keeps_the_gil(threaded):
    interval = sys.getswitchinterval()
    stop = False

    def spin():
        while not stop:
            pass

    thread = threading.Thread(target=spin)
    sys.setswitchinterval(0.05)
    try:
        thread.start()
        tx, rx = threaded.channel(8)
        start = time.monotonic()
        for number in range(200):
            tx.send_blocking(number)
            assert rx.recv_blocking() == number
        took = time.monotonic() - start
    finally:
        stop = True
        sys.setswitchinterval(interval)
        thread.join()
    assert took < 4


def test_a_blocked_wait_lets_other_threads_run(blocked):
    """It has released the GIL: this thread gets on meanwhile."""
    tx, rx, thread, sends = blocked
    start = time.monotonic()
    for _ in range(1000):
        gc.get_count()
        time.sleep(0)
    assert time.monotonic() - start < DEADLINE
    assert thread.is_alive()
    (rx if sends else tx).close()
    with pytest.raises((SendError, RecvError, StopIteration)):
        thread.join()


def test_pitfall_10_a_blocked_wait_uses_no_processor_time(threaded):
    """No poll, no periodic timer: a thread that waits for 1 s is scheduled a handful of times."""
    script = """
import resource, sys, threading, importlib
from nexus_channels import RecvTimeout
tx, rx = importlib.import_module("nexus_channels." + sys.argv[1]).channel(1)
def wait():
    before = resource.getrusage(resource.RUSAGE_THREAD)
    try:
        rx.recv_blocking(timeout=1.0)
    except RecvTimeout:
        pass
    after = resource.getrusage(resource.RUSAGE_THREAD)
    print(after.ru_nvcsw - before.ru_nvcsw, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
thread = threading.Thread(target=wait)
thread.start()
thread.join()
"""
    switches, seconds = run_child(script, threaded.__name__.rpartition(".")[2]).split()
    assert int(switches) < 20, "polls"
    assert float(seconds) < 0.1 * SLOWNESS


def test_calls_make_no_system_call_when_nobody_waits(variant):
    name = variant.__name__.rpartition(".")[2]
    script = """
import os, sys, importlib, asyncio
name = sys.argv[1]
tx, rx = importlib.import_module("nexus_channels." + name).channel(4)
def pair(number):
    tx.try_send(number)
    rx.try_recv()
    tx.try_send_many([1, 2])
    rx.try_recv_many(2)
    len(rx), rx.is_closed, tx.is_disconnected
    rx.statistics()
    if name != "local":
        tx.send_blocking(number)
        rx.recv_blocking()
async def main():
    for mark in (False, True):
        if mark:
            os.getppid()
        for number in range(100):
            pair(number)
            await tx.send(number)
            await rx.recv()
            await tx.send_many([1, 2])
            await rx.recv_many(2)
        if mark:
            os.getppid()
for number in range(100):
    pair(number)
os.getppid()
for number in range(100):
    pair(number)
os.getppid()
asyncio.run(main())
"""
    calls = between_marks(strace(script, name))
    # A task that has held its loop for a turn, as it may under strace, yields once: the loop looks at what is ready.
    assert [call for call in calls if not re.match(r"epoll_wait\(.*, 0\) ", call)] == []
