"""No lost wake-up: whoever waits is woken as soon as its condition holds, wherever that comes from; and its cost."""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import weakref

import pytest
from harness import SLOWNESS, WAKE, run_child, size, takes_long
from steploop import StepLoop
from support import DEADLINE, collect, in_thread, turns, until, until_blocked, until_parked
from tracing import between_marks, strace

from nexus_channels import EndpointClosed, RecvError, SendError


def full_channel(module, capacity=1):
    tx, rx = module.channel(capacity)
    for number in range(capacity):
        tx.try_send(number)
    return tx, rx


class HookedLoop(StepLoop):
    """Calls `hook()` at the very moment between a wait's first look and its place in line."""

    hook = None

    def create_future(self):
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        return super().create_future()


@pytest.fixture
def hooked():
    loop = HookedLoop()
    yield loop
    assert loop.errors == []
    loop.close()


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_pitfall_01_an_item_that_comes_between_the_look_and_the_sleep_is_seen(variant, hooked, timeout):
    tx, rx = variant.channel(1)
    task = hooked.create_task(rx.recv(timeout=timeout))
    hooked.hook = lambda: tx.try_send("item")
    hooked.run_ready()
    assert task.done() and task.result() == "item"
    assert rx.statistics().waiting_receivers == 0
    assert hooked.next_timer() is None


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_pitfall_01_room_that_comes_between_the_look_and_the_sleep_is_seen(variant, hooked, timeout):
    tx, rx = full_channel(variant)
    task = hooked.create_task(tx.send("second", timeout=timeout))
    hooked.hook = rx.try_recv
    hooked.run_ready()
    assert task.done() and task.result() is None
    assert rx.try_recv() == "second"
    assert hooked.next_timer() is None


@pytest.mark.parametrize("closer", ["tx", "rx"])
@pytest.mark.parametrize("waits", ["send", "recv"])
def test_pitfall_01_a_close_between_the_look_and_the_sleep_is_seen(variant, hooked, waits, closer):
    tx, rx = variant.channel(1)
    if waits == "send":
        tx.try_send("first")
    task = hooked.create_task(tx.send("second") if waits == "send" else rx.recv())
    hooked.hook = tx.close if closer == "tx" else rx.close
    hooked.run_ready()
    own = (waits == "send") == (closer == "tx")
    assert task.done(), "sleeps on"
    assert isinstance(task.exception(), EndpointClosed if own else SendError if waits == "send" else RecvError)
    assert tx.statistics()[4:6] == (0, 0)


def test_pitfall_01_data_and_close_between_the_look_and_the_sleep_are_seen_in_this_order(variant, hooked):
    tx, rx = variant.channel(1)

    def last_words():
        tx.try_send("last")
        tx.close()

    task = hooked.create_task(rx.recv())
    hooked.hook = last_words
    hooked.run_ready()
    assert task.result() == "last"
    after = hooked.create_task(rx.recv())
    hooked.run_ready()
    assert isinstance(after.exception(), RecvError)


def test_pitfall_01_an_item_for_two_that_comes_while_the_second_lines_up_goes_to_the_first(variant, hooked):
    tx, rx = variant.channel(1)
    first = hooked.create_task(rx.recv())
    hooked.run_ready()
    second = hooked.create_task(rx.recv())
    hooked.hook = lambda: tx.try_send("item")
    hooked.run_ready()
    assert first.done() and first.result() == "item"
    assert not second.done()
    tx.try_send("next")
    hooked.run_ready()
    assert second.result() == "next"


class WatchedLoop(StepLoop):
    """A loop without readers that calls `on_wake()` at the moment it is woken."""

    on_wake = None

    def __init__(self):
        super().__init__(readers=False)

    def call_soon_threadsafe(self, *args, **kwargs):
        self.on_wake()
        return super().call_soon_threadsafe(*args, **kwargs)


def test_pitfall_03_the_room_is_free_before_the_sender_is_woken(threaded):
    loop = WatchedLoop()
    tx, rx = full_channel(threaded, 2)
    seen = []
    loop.on_wake = lambda: seen.append(len(tx))
    task = loop.create_task(tx.send("late"))
    loop.run_ready()
    rx.try_recv()
    loop.run_ready()
    assert seen == [1]
    assert task.done()
    task = loop.create_task(tx.send("later"))
    loop.run_ready()
    assert rx.try_recv_many(2) == [1, "late"]
    loop.run_ready()
    assert seen == [1, 0]
    assert task.done()
    loop.close()


def test_pitfall_03_the_item_is_there_before_the_receiver_is_woken(threaded):
    loop = WatchedLoop()
    tx, rx = threaded.channel(2)
    seen = []
    loop.on_wake = lambda: seen.append(len(rx))
    task = loop.create_task(rx.recv())
    loop.run_ready()
    tx.try_send_many([1, 2])
    loop.run_ready()
    assert seen == [2]
    assert task.result() == 1
    loop.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_pitfall_12_the_disconnect_is_visible_before_the_peer_is_woken(threaded, how):
    loop = WatchedLoop()
    tx, rx = threaded.channel(1)
    seen = []
    loop.on_wake = lambda: seen.append(rx.is_disconnected)
    task = loop.create_task(rx.recv())
    loop.run_ready()
    if how == "close":
        tx.close()
    del tx
    assert seen == [True]
    loop.run_ready()
    assert isinstance(task.exception(), RecvError)
    loop.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_pitfall_12_the_disconnect_is_visible_before_the_sender_is_woken(threaded, how):
    loop = WatchedLoop()
    tx, rx = full_channel(threaded)
    seen = []
    loop.on_wake = lambda: seen.append(tx.is_disconnected)
    task = loop.create_task(tx.send("late"))
    loop.run_ready()
    if how == "close":
        rx.close()
    del rx
    assert seen == [True]
    loop.run_ready()
    assert isinstance(task.exception(), SendError)
    loop.close()


@pytest.mark.parametrize("closer", ["tx", "rx"])
def test_pitfall_01_a_close_between_the_look_and_the_sleep_of_a_thread_is_seen(threaded, spawn, closer):
    """Part of the batch goes, and waking the receiver runs code, which closes an end before the rest waits."""
    loop = WatchedLoop()
    tx, rx = threaded.channel(1)
    task = loop.create_task(rx.recv())
    loop.run_ready()
    loop.on_wake = tx.close if closer == "tx" else rx.close
    thread = spawn(tx.send_many_blocking, [1, 2, 3])
    with pytest.raises(EndpointClosed if closer == "tx" else SendError):
        thread.join()
    assert tx.statistics().waiting_senders == 0
    loop.run_ready()
    assert task.done() and (task.exception() is None) == (closer == "tx")
    loop.close()


# Pitfall 7: as many are woken as can go on.


@pytest.mark.parametrize("freed", [1, 2, 3, 5])
def test_pitfall_07_as_many_senders_are_woken_as_there_is_room_for(variant, step_loop, freed):
    tx, rx = full_channel(variant, 5)
    tasks = [step_loop.create_task(tx.send(number)) for number in range(5)]
    step_loop.run_ready()
    step_loop.call(rx.try_recv_many, freed)
    step_loop.run_ready()
    assert [task.done() for task in tasks] == [True] * freed + [False] * (5 - freed)
    rx.close()
    step_loop.run_ready()
    assert all(isinstance(task.exception(), SendError) for task in tasks[freed:])


@pytest.mark.parametrize("sent", [1, 2, 3, 5])
def test_pitfall_07_as_many_receivers_are_woken_as_there_are_items_for(variant, step_loop, sent):
    tx, rx = variant.channel(5)
    tasks = [step_loop.create_task(rx.recv()) for _ in range(5)]
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, list(range(sent)))
    step_loop.run_ready()
    assert [task.done() for task in tasks] == [True] * sent + [False] * (5 - sent)
    assert [task.result() for task in tasks[:sent]] == list(range(sent))
    tx.close()
    step_loop.run_ready()
    assert all(isinstance(task.exception(), RecvError) for task in tasks[sent:])


def test_pitfall_07_what_a_big_receive_leaves_goes_to_the_next_in_line(variant, step_loop):
    tx, rx = variant.channel(4)
    big = step_loop.create_task(rx.recv_many(2))
    small = [step_loop.create_task(rx.recv()) for _ in range(2)]
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [1, 2, 3, 4])
    step_loop.run_ready()
    assert big.result() == [1, 2]
    assert [task.result() for task in small] == [3, 4]


def test_pitfall_07_a_receive_that_takes_less_than_its_share_wakes_the_next(variant, step_loop):
    """recv_many(4) is owed four, but there is one: it takes that, and then the next one is next."""
    tx, rx = variant.channel(4)
    big = step_loop.create_task(rx.recv_many(4))
    small = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert big.result() == [1]
    assert not small.done()
    step_loop.call(tx.try_send, 2)
    step_loop.run_ready()
    assert small.result() == 2


def test_a_send_many_longer_than_the_channel_and_a_recv_many_meet(variant, step_loop):
    tx, rx = variant.channel(2)
    sender = step_loop.create_task(tx.send_many(range(7)))
    received = []

    async def receive():
        while len(received) < 7:
            received.extend(await rx.recv_many(5))

    step_loop.run_until_complete(receive())
    step_loop.run_ready()
    assert sender.done() and sender.result() is None
    assert received == list(range(7))


# The ways a wake-up can come from the loop's own thread


@pytest.fixture(params=["item", "room", "close"])
def awaited(request, variant):
    """(coroutine function that waits, function that lets it go on)."""
    if request.param == "room":
        tx, rx = full_channel(variant)
        return lambda: tx.send(1), rx.try_recv, tx
    tx, rx = variant.channel(1)

    async def recv():
        try:
            return await rx.recv()
        except RecvError:
            return "end"

    return recv, (tx.close if request.param == "close" else lambda: tx.try_send("item")), rx


async def woken_by(awaited, arrange):
    """Wait; `arrange(go_on)` is called once that is so. The loop has no timer and nothing else to do meanwhile."""
    wait, go_on, endpoint = awaited
    task = asyncio.create_task(wait())
    await until_parked(endpoint, **{"senders" if endpoint.statistics().buffered else "receivers": 1})
    arrange(go_on)
    return await task


def test_a_task_is_woken_from_a_callback(awaited, run):
    run(woken_by(awaited, lambda go_on: asyncio.get_running_loop().call_soon(go_on)))


def test_a_task_is_woken_from_a_timer(awaited, run):
    run(woken_by(awaited, lambda go_on: asyncio.get_running_loop().call_later(0.01, go_on)))


def test_a_task_is_woken_from_another_task(awaited, run):
    async def other(go_on):
        await turns(3)
        go_on()

    run(woken_by(awaited, lambda go_on: other_tasks.append(asyncio.create_task(other(go_on)))))
    other_tasks.clear()


other_tasks = []  # the loop itself holds tasks weakly


def test_a_task_is_woken_from_the_done_callback_of_a_future(awaited, run):
    def arrange(go_on):
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: go_on())
        future.set_result(None)

    run(woken_by(awaited, arrange))


def test_a_task_is_woken_from_a_reader_callback(awaited, run):
    ours, theirs = socket.socketpair()

    def arrange(go_on):
        loop = asyncio.get_running_loop()

        def readable():
            loop.remove_reader(ours)
            go_on()

        loop.add_reader(ours, readable)
        theirs.send(b"x")

    try:
        run(woken_by(awaited, arrange))
    finally:
        ours.close()
        theirs.close()


def test_a_task_is_woken_from_a_finaliser(awaited, run):
    class Finalised:
        def __init__(self, go_on):
            self.go_on = go_on

        def __del__(self):
            self.go_on()

    def arrange(go_on):
        finalised = Finalised(go_on)
        asyncio.get_running_loop().call_soon(lambda held: None, finalised)

    run(woken_by(awaited, arrange))


def test_a_task_is_woken_from_a_collected_cycle(awaited, run):
    class Finalised:
        def __init__(self, go_on):
            self.go_on = go_on
            self.cycle = self

        def __del__(self):
            self.go_on()

    def arrange(go_on):
        asyncio.get_running_loop().call_soon(Finalised, go_on)
        asyncio.get_running_loop().call_soon(gc.collect)

    run(woken_by(awaited, arrange))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_a_loop_blocked_in_its_selector_is_woken_from_a_signal_handler_on_its_own_thread(awaited, run):
    """The handler interrupts select(), which then goes back to sleep: only a written wake fd ends it."""
    go = []

    def arrange(go_on):
        go.append(go_on)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    previous = signal.signal(signal.SIGUSR1, lambda *_: go[0]())
    try:
        start = time.monotonic()
        run(woken_by(awaited, arrange))
        assert time.monotonic() - start < 2 * SLOWNESS
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_loop_is_woken_from_a_handler_it_was_given_itself(awaited, run):
    def arrange(go_on):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go_on)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    async def main():
        try:
            await woken_by(awaited, arrange)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_a_storm_of_timer_signals_that_send_is_received_whole(loop_factory):
    """A handler sends, again and again, wherever it finds the loop: in select, in a task, in a channel call."""
    script = f"""
import asyncio, importlib, itertools, signal, sys
from nexus_channels import EndpointClosed, Full
def new_event_loop():
    return importlib.import_module(sys.argv[1]).new_event_loop()
async def main(name):
    tx, rx = importlib.import_module("nexus_channels." + name).channel(4)
    sent, numbers = [], itertools.count()
    def handler(*_):  # may itself be interrupted by the next one
        try:
            number = next(numbers)
            tx.try_send(number)
        except (Full, EndpointClosed):
            return
        sent.append(number)
        if len(sent) >= {size(300, 5000)}:
            signal.setitimer(signal.ITIMER_REAL, 0)
            tx.close()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    received = [item async for item in rx]
    assert sorted(received) == sorted(sent), (received, sent)
for name in ("local", "spsc", "mpsc"):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(name))
"""
    module = "uvloop" if loop_factory is not asyncio.new_event_loop else "asyncio"
    run_child(script, module, seconds=60)


# What a wake-up costs


@pytest.mark.parametrize("count", [1, 50])
def test_a_burst_over_any_number_of_channels_wakes_the_loop_once(threaded, step_loop, count):
    channels = [threaded.channel(1) for _ in range(count)]
    for _ in range(2):  # the second time by the wake fd
        tasks = [step_loop.create_task(rx.recv()) for _, rx in channels]
        step_loop.run_ready()
        for tx, _ in channels:
            tx.try_send("item")
        assert step_loop.pending() == 1
        step_loop.step()
        step_loop.run_ready()
        assert [task.result() for task in tasks] == ["item"] * count


def test_a_burst_from_a_thread_over_many_channels_is_one_system_call(loop_factory):
    """The loop's thread is held up in a callback, so that all of the burst finds it unread."""
    script = """
import asyncio, importlib, os, sys, threading
from support import until_parked
from nexus_channels import mpsc
count = 50
channels = [mpsc.channel(4) for _ in range(count)]
async def main():
    for _ in range(3):  # the first burst may set things up
        tasks = [asyncio.create_task(rx.recv()) for _, rx in channels]
        for _, rx in channels:
            await until_parked(rx, receivers=1)
        def burst():
            os.getppid()
            for tx, _ in channels:
                tx.try_send(1)
                tx.try_send(2)
            os.getppid()
        thread = threading.Thread(target=burst)
        thread.start()
        thread.join()  # in a lock, with the loop held up
        for task in tasks:
            assert await task == 1
        for _, rx in channels:
            assert rx.try_recv() == 2
with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[1]).new_event_loop) as runner:
    runner.run(main())
"""
    module = "uvloop" if loop_factory is not asyncio.new_event_loop else "asyncio"
    calls = between_marks(strace(script, module))
    writes = [call for call in calls if not call.startswith("futex")]
    assert 1 <= len(writes) <= 3, writes
    assert all(call.startswith(("write", "sendto")) for call in writes)


def test_two_tasks_of_one_loop_wake_each_other_without_a_system_call_of_their_own(variant):
    """Their loop asks its selector once a turn; nothing else is to be seen."""
    script = """
import asyncio, importlib, os, sys
module = importlib.import_module("nexus_channels." + sys.argv[1])
async def main():
    there, back = module.channel(1), module.channel(1)
    async def echo():
        async for item in there.receiver:
            await back.sender.send(item)
    task = asyncio.create_task(echo())
    for mark in (False, True):
        if mark: os.getppid()
        for number in range(50):
            await there.sender.send(number)
            assert await back.receiver.recv() == number
        if mark: os.getppid()
    there.sender.close()
    await task
asyncio.run(main())
"""
    calls = between_marks(strace(script, variant.__name__.rpartition(".")[2]))
    assert [call for call in calls if not call.startswith(("epoll", "select", "poll"))] == []


# Descriptors are counted in a process of its own: here, loops of earlier tests may still hold some.

COUNTING = """
import asyncio, importlib, os, sys, threading
from support import in_thread, until_blocked, until_parked
module = importlib.import_module("nexus_channels." + sys.argv[1])
def held():
    return len(os.listdir("/proc/self/fd")), threading.active_count()
def run(main):
    with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[2]).new_event_loop) as runner:
        runner.run(main)
"""


@pytest.fixture
def count_in_child(loop_factory):
    def run(module, script, *args):
        loops = "asyncio" if loop_factory is asyncio.new_event_loop else "uvloop"
        run_child(COUNTING + script, module.__name__.rpartition(".")[2], loops, *args)

    return run


def test_nothing_is_made_until_somebody_waits_across_threads(variant, count_in_child):
    """No descriptor, thread or task: not for channels, not for calls, not for waits between tasks of one loop."""
    script = """
async def main():
    before, tasks = held(), len(asyncio.all_tasks())
    channels = [module.channel(2) for _ in range(100)]
    for tx, rx in channels:
        tx.try_send(1)
        await tx.send(2)
        assert [await rx.recv(), rx.try_recv()] == [1, 2]
    tx, rx = channels[0]
    for number in range(3):
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        assert len(asyncio.all_tasks()) == tasks + 1
        await tx.send("item")
        assert await task == "item"
    task = asyncio.create_task(rx.recv(timeout=10))
    await until_parked(rx, receivers=1)
    task.cancel()
    await asyncio.wait([task])
    assert (held(), len(asyncio.all_tasks())) == (before, tasks)
run(main())
"""
    count_in_child(variant, script)


def test_no_descriptor_is_opened_for_wake_ups_from_callbacks_of_the_same_loop(variant, count_in_child):
    """As a protocol's data_received would send. Nobody waits across threads."""
    script = """
async def main():
    tx, rx = module.channel(1)
    before = held()
    for _ in range(3):
        asyncio.get_running_loop().call_soon(tx.try_send, "item")
        assert await rx.recv() == "item"
    assert held() == before
run(main())
"""
    count_in_child(variant, script)


def test_one_loop_has_one_wake_descriptor_however_many_channels_it_waits_on(threaded, count_in_child):
    script = """
async def main():
    before = held()
    channels = [module.channel(1) for _ in range(50)]
    for _ in range(3):
        tasks = [asyncio.create_task(rx.recv()) for _, rx in channels]
        for _, rx in channels:
            await until_parked(rx, receivers=1)
        await in_thread(lambda: [tx.try_send(1) for tx, _ in channels])
        await asyncio.gather(*tasks)
        assert held()[0] <= before[0] + int(sys.argv[3])
run(main())
"""
    count_in_child(threaded, script, {"eventfd": 1, "pipe": 2, "call_soon_threadsafe": 0}[WAKE])


def test_blocking_waits_open_no_descriptor_and_start_no_thread(threaded, spawn):
    before = len(os.listdir("/proc/self/fd"))
    tx, rx = threaded.channel(1)
    thread = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    assert len(os.listdir("/proc/self/fd")) == before
    tx.try_send(1)
    assert thread.join() == 1


# Pitfall 9: the wake-up that is swallowed


def test_pitfall_09_a_flood_of_wake_ups_for_a_loop_that_does_not_run_neither_blocks_nor_gets_lost(threaded, step_loop):
    """A full self-pipe would hold 65,536 of them."""
    tx, rx = threaded.channel(1)
    task = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    for number in range(size(100_000, 1_000_000)):
        another = None
        try:
            tx.try_send(number)
        except Exception:
            another = rx.try_recv_many(1)
        assert another in (None, [], [0])
    step_loop.run_ready()
    assert task.done() and task.result() == 0


def test_pitfall_09_a_wake_up_meets_each_state_of_the_mailbox(threaded, run):
    """Written, read but not yet taken, taken, written again: sends fall into every gap of a running loop."""
    rounds = size(3_000, 100_000)

    async def main():
        tx, rx = threaded.channel(1)

        def send():
            for number in range(rounds):
                tx.send_blocking(number)
                if number % 7 == 0:
                    until(lambda: len(rx) == 0)

        thread = asyncio.create_task(in_thread(send))
        for number in range(rounds):
            assert await rx.recv() == number
            if number % 3 == 0:
                await asyncio.sleep(0)
        await thread

    run(main())


# Pitfalls 1, 2 and 10: round trips at capacity 1, where every step must wake the other side


TOO_LONG = 4.0 * SLOWNESS
BLOCK = 500


class Pace:
    """Each block of rounds must be quick: a wake-up that a timeout or a poll made up for shows."""

    def __init__(self):
        self.count = 0
        self.since = time.monotonic()

    def tick(self):
        self.count += 1
        if self.count % BLOCK == 0:
            now = time.monotonic()
            assert now - self.since < TOO_LONG, f"{BLOCK} round trips took {now - self.since:.1f} s"
            self.since = now


def rally_blocking(tx, rx, rounds, begins):
    pace = Pace()
    for number in range(rounds):
        if begins:
            tx.send_blocking(number, timeout=DEADLINE)
        assert rx.recv_blocking(timeout=DEADLINE) == number
        if not begins:
            tx.send_blocking(number, timeout=DEADLINE)
        pace.tick()


async def rally_async(tx, rx, rounds, begins):
    pace = Pace()
    for number in range(rounds):
        if begins:
            await tx.send(number)
        assert await rx.recv() == number
        if not begins:
            await tx.send(number)
        pace.tick()


@takes_long()
@pytest.mark.parametrize("players", ["thread and thread", "task and thread", "loop and loop"])
def test_pitfall_02_round_trips_at_capacity_1_lose_no_wake_up(threaded, spawn, loop_factory, players):
    rounds = size(4_000, 1_000_000)
    there, back = threaded.channel(1), threaded.channel(1)

    def in_loop(*args):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(rally_async(*args))

    first = in_loop if players != "thread and thread" else rally_blocking
    second = in_loop if players == "loop and loop" else rally_blocking
    threads = [
        spawn(first, there.sender, back.receiver, rounds, True),
        spawn(second, back.sender, there.receiver, rounds, False),
    ]
    for thread in threads:
        while thread.is_alive():
            thread._thread.join(1)
        thread.join()


@takes_long()
def test_round_trips_between_tasks_of_one_loop_lose_no_wake_up(variant, loop_factory):
    rounds = size(20_000, 1_000_000)
    there, back = variant.channel(1), variant.channel(1)

    async def main():
        await asyncio.gather(
            rally_async(there.sender, back.receiver, rounds, True),
            rally_async(back.sender, there.receiver, rounds, False),
        )

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@takes_long()
@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_one_way_traffic_at_small_capacity_loses_no_wake_up(threaded, spawn, capacity):
    """Both sides wait by turns, each as often as the other lets it."""
    rounds = size(20_000, 1_000_000)
    tx, rx = threaded.channel(capacity)

    def receive():
        pace = Pace()
        for number in range(rounds):
            assert rx.recv_blocking(timeout=DEADLINE) == number
            pace.tick()

    thread = spawn(receive)
    for number in range(rounds):
        tx.send_blocking(number, timeout=DEADLINE)
    thread.join()


def test_pitfall_10_a_wake_up_takes_far_less_than_a_poll_would(threaded, spawn):
    """The median of many: CPython's interpreters queue makes 62 round trips a second."""
    rounds = 200
    there, back = threaded.channel(1), threaded.channel(1)
    thread = spawn(rally_blocking, back.sender, there.receiver, rounds, False)
    times = []
    for number in range(rounds):
        start = time.perf_counter()
        there.sender.send_blocking(number)
        back.receiver.recv_blocking()
        times.append(time.perf_counter() - start)
    thread.join()
    assert sorted(times)[rounds // 2] < 0.005 * SLOWNESS


def test_pitfall_06_tasks_that_wait_on_one_endpoint_are_served_first_come_first_served(variant, step_loop):
    tx, rx = full_channel(variant)
    tasks = [step_loop.create_task(tx.send(name)) for name in "abcd"]
    step_loop.run_ready()
    order = []
    for _ in range(5):
        order.append(step_loop.call(rx.try_recv))
        step_loop.run_ready()
    assert order == [0, *"abcd"]
    assert all(task.done() for task in tasks)


def test_a_waiting_task_is_kept_alive_by_its_channel(variant, run):
    """asyncio itself refers to tasks weakly: one that nobody else holds must not vanish while it waits."""

    async def main():
        tx, rx = variant.channel(1)
        got = []

        async def wait():
            got.append(await rx.recv())

        alive = weakref.ref(asyncio.create_task(wait()))
        await until_parked(rx, receivers=1)
        collect()
        assert alive() is not None
        await tx.send("item")
        await turns(3)
        assert got == ["item"]

    run(main())
