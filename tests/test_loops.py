"""Event loops of every kind and fate: without readers, stopped, restarted, closed with waiters, many at once."""

import asyncio
import gc
import sys
import threading
import warnings
import weakref

import pytest
from anychannel import ALL, AnyChannel
from harness import GIL_ENABLED, has_wake_descriptors, reuses_memory, run_child, size
from steploop import StepLoop
from support import DEADLINE, collect, until_blocked, until_parked

from nexus_channels import EndpointClosed, Full, RecvError, _core


@pytest.fixture(params=["readers", "no readers"])
def any_step_loop(request):
    loop = StepLoop(readers=request.param == "readers")
    yield loop
    if not loop.is_closed():
        assert loop.errors == []
        loop.close()


def abandoned(task):
    """Keep asyncio from reporting a task that a dead loop has left pending."""
    task._log_destroy_pending = False
    return task


# Loops that die. Pitfall 9: a wake-up to a closed loop raises in the sender.


@pytest.mark.parametrize(
    "value",
    [
        "item",
        pytest.param("loop", marks=pytest.mark.skipif(not GIL_ENABLED, reason="whoever takes the mail may look at it")),
    ],
)
def test_a_dropped_loop_is_freed_though_nobody_took_its_mail(threaded, value):
    """Its coroutines are closed, and leave the line; what is in the mailbox stays there, and must not keep the loop."""

    def loops():
        return sum(type(thing) is StepLoop for thing in gc.get_objects())

    async def receive(rx):
        return await rx.recv()

    collect()
    before = loops()
    loop = StepLoop()
    tx, rx = threaded.channel(4)
    tasks = [abandoned(loop.create_task(receive(rx))) for _ in range(3)]
    loop.run_ready()
    for _ in range(3):
        tx.try_send(loop if value == "loop" else value)
    loop.own = (tx, rx, tasks)
    del loop, tx, rx, tasks
    collect()
    assert loops() == before  # a weak reference is cleared before the coroutines are closed, and tells nothing


@pytest.mark.parametrize("armed", [False, True], ids=["never woken before", "woken before"])
def test_sending_to_a_task_of_a_closed_loop_raises_nothing_and_keeps_the_item(threaded, any_step_loop, armed):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    if armed:
        task = loop.create_task(rx.recv())
        loop.run_ready()
        tx.try_send(0)
        loop.run_ready()
        assert task.result() == 0
    task = abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    loop.close()
    tx.try_send("item")
    assert not task.done()
    assert rx.try_recv() == "item"
    tx.try_send("another")
    assert rx.recv_blocking(timeout=DEADLINE) == "another"


@pytest.mark.parametrize("armed", [False, True], ids=["never woken before", "woken before"])
def test_receiving_from_a_task_of_a_closed_loop_raises_nothing(threaded, any_step_loop, armed):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    if armed:
        task = loop.create_task(rx.recv())
        loop.run_ready()
        tx.try_send(0)
        loop.run_ready()
        assert task.result() == 0
    tx.try_send(1)
    abandoned(loop.create_task(tx.send("never sent")))
    loop.run_ready()
    loop.close()
    assert rx.try_recv() == 1
    assert rx.try_recv_many(5) == []
    tx.try_send(2)
    assert rx.recv_blocking(timeout=DEADLINE) == 2


def test_a_dead_loop_passes_its_turn_to_the_waiters_of_others(threaded, any_step_loop, spawn):
    loop = any_step_loop
    tx, rx = threaded.channel(2)
    for _ in range(2):
        abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    alive = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=3)
    loop.close()
    tx.try_send("item")
    assert alive.join() == "item"


def test_a_dead_loop_passes_the_room_it_was_owed_to_the_waiters_of_others(threaded, any_step_loop, spawn):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    tx.try_send(0)
    for _ in range(2):
        abandoned(loop.create_task(tx.send("never sent")))
    loop.run_ready()
    alive = spawn(tx.send_blocking, "sent")
    until_blocked(tx, senders=3)
    loop.close()
    assert rx.try_recv() == 0
    alive.join()
    assert rx.try_recv() == "sent"


def test_a_loop_that_dies_after_it_was_woken_passes_the_wake_up_on(threaded, any_step_loop, spawn):
    """The mail was delivered, the loop never ran again, and is only then closed."""
    loop = any_step_loop
    tx, rx = threaded.channel(2)
    abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    tx.try_send("item")
    loop.close()
    assert spawn(rx.recv_blocking, timeout=2).join() == "item"
    tx.try_send("another")
    assert rx.try_recv() == "another"


def test_a_loop_that_dies_after_it_was_owed_room_passes_that_on(threaded, any_step_loop, spawn):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    tx.try_send(0)
    abandoned(loop.create_task(tx.send("never sent")))
    loop.run_ready()
    assert rx.try_recv() == 0
    loop.close()
    spawn(tx.send_blocking, "sent", timeout=2).join()
    assert rx.try_recv() == "sent"
    tx.try_send("another")


@pytest.mark.parametrize("name", ALL)
def test_a_batch_gets_what_a_dead_loop_was_promised_as_well(name, any_step_loop):
    loop = any_step_loop
    channel = AnyChannel(name)
    abandoned(loop.create_task(channel.recv()))
    loop.run_ready()
    channel.try_send(0)
    channel.try_send(1)
    loop.close()
    assert channel.drain() == [0, 1]


@pytest.mark.parametrize("name", ALL)
def test_a_batch_gets_the_room_that_a_dead_loop_was_promised_as_well(name, any_step_loop):
    async def send():
        await channel.sending(-1)

    loop = any_step_loop
    channel = AnyChannel(name)
    full = channel.fill()
    abandoned(loop.create_task(send()))
    loop.run_ready()
    assert channel.drain() == list(range(full))
    loop.close()
    assert channel.tx.try_send_many(map(channel.pack, range(100))) == channel.room
    assert channel.drain() == list(range(channel.room))


def test_a_loop_that_dies_after_it_was_woken_fails_no_await_without_patience(threaded, any_step_loop, run):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    tx.try_send("item")
    loop.close()

    async def receive():
        return await rx.recv(timeout=0)

    assert run(receive()) == "item"


@pytest.mark.parametrize("how", ["close", "with", "async with"])
def test_the_last_sender_leaves_while_a_dead_loop_is_owed_the_last_item(threaded, any_step_loop, spawn, run, how):
    loop = any_step_loop
    tx, rx = threaded.channel(2)
    abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    alive = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=2)
    tx.try_send("item")
    loop.close()

    async def leave():
        async with tx:
            pass

    if how == "close":
        tx.close()
    elif how == "with":
        with tx:
            pass
    else:
        run(leave())
    assert alive.join() == "item"


def test_the_last_claim_ends_while_a_dead_loop_is_owed_the_last_message(bytes_variant, any_step_loop, spawn):
    loop = any_step_loop
    tx, rx = bytes_variant.channel(64)
    abandoned(loop.create_task(rx.recv_bytes()))
    loop.run_ready()
    alive = spawn(rx.recv_bytes_blocking)
    until_blocked(rx, receivers=2)
    tx.try_send(b"message")
    claim = tx.try_claim(8)
    tx.close()  # it stays among the open ones until the claim ends
    loop.close()
    claim.abort()
    assert alive.join() == b"message"


@pytest.mark.parametrize("end", ["tx", "rx"])
def test_closing_a_channel_that_tasks_of_a_dead_loop_wait_on_raises_nothing(threaded, any_step_loop, end):
    loop = any_step_loop
    tx, rx = threaded.channel(1)
    abandoned(loop.create_task(rx.recv()))
    tx2, rx2 = threaded.channel(1)
    tx2.try_send(0)
    abandoned(loop.create_task(tx2.send(1)))
    loop.run_ready()
    loop.close()
    for pair in ((tx, rx), (tx2, rx2)):
        (pair[0] if end == "tx" else pair[1]).close()
    with pytest.raises(RecvError if end == "tx" else EndpointClosed):
        rx.try_recv()


def test_dropping_everything_of_a_dead_loop_raises_nothing(variant):
    """Tasks, loop and channel go together, in whatever order the collector likes."""
    loop = StepLoop()
    tx, rx = variant.channel(1)
    task = abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    gone = [weakref.ref(thing) for thing in (task, loop, tx, rx)]
    loop.close()
    del task, loop, tx, rx
    collect()
    assert [ref() for ref in gone] == [None] * 4


def test_waiters_of_a_loop_that_was_dropped_unclosed_do_not_stand_in_the_way(threaded):
    loop = StepLoop()
    tx, rx = threaded.channel(1)
    abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    del loop
    collect()
    tx.try_send("item")
    try:
        # Whoever still refers to the loop, the item is not lost: it is there, or owed to a task that could still run.
        assert rx.recv_blocking(timeout=0.05) == "item"
    except TimeoutError:
        assert rx.statistics().waiting_receivers == 1
        assert len(rx) == 1


# Pitfall 42: asked whether it is closed, it says no; called a moment later, it is.


class LyingLoop(StepLoop):
    """Says it is open until it is called."""

    lies = False

    def is_closed(self):
        if self.lies:
            self.lies = False
            return False
        return super().is_closed()


@pytest.mark.parametrize("readers", [False, True])
def test_pitfall_42_a_loop_that_closes_between_the_question_and_the_call_is_a_closed_loop(threaded, spawn, readers):
    loop = LyingLoop(readers=readers)
    tx, rx = threaded.channel(1)
    abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    alive = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=2)
    loop.close()
    loop.lies = True
    tx.try_send("item")
    assert alive.join() == "item"


def test_pitfall_42_an_error_of_an_open_loop_is_reported_not_swallowed(threaded, monkeypatch):
    """And it is not raised in the sender either, whose item is in the channel."""

    class Broken(StepLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            raise RuntimeError("broken, but not closed")

    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reported.append(str(report.exc_value)))
    loop = Broken(readers=False)
    tx, rx = threaded.channel(1)
    task = abandoned(loop.create_task(rx.recv()))
    loop.run_ready()
    tx.try_send("item")
    assert reported == ["broken, but not closed"]
    task.cancel()
    loop.run_ready()
    assert task.cancelled()
    assert rx.try_recv() == "item"
    loop.close()


def test_a_loop_closed_while_senders_hammer_it(threaded, spawn):
    """Close falls anywhere into the wake-up; no sender ever sees an exception, and nothing is lost or twice."""
    for _ in range(size(100, 3000)):
        tx, rx = threaded.channel(1)
        loop = asyncio.new_event_loop()
        received = []

        async def receive(rx=rx, received=received):
            while True:
                received.append(await rx.recv())

        task = abandoned(loop.create_task(receive()))

        def send(tx=tx):
            number = 0
            while True:
                try:
                    tx.send_blocking(number, timeout=0.02)
                except Full:
                    return number
                number += 1

        thread = spawn(send)
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        loop.close()
        sent = thread.join()
        received += rx.try_recv_many(5)
        del task
        assert received == list(range(sent))


@pytest.mark.skipif(_core.build_info()["sanitizer"] == "address", reason="what was freed is not used again for long")
def test_a_loop_that_lies_where_a_dead_one_was_is_not_taken_for_it(threaded):
    """While dead loops are looked for, one goes and another comes, at the same address."""

    # So large that nothing else takes its place, and below 512 bytes with its attributes, which lie in it since 3.13:
    # what is larger is not of CPython's own allocator, and may lie anywhere.
    class Large(StepLoop):
        __slots__ = [f"unused_{number}" for number in range(40 if sys.version_info < (3, 13) else 12)]

    class Asked(StepLoop):
        when_asked = None

        def is_closed(self):
            asked, self.when_asked = self.when_asked, None
            if asked:
                asked()
            return super().is_closed()

    def wait_on(loop):
        tx, rx = threaded.channel(1)
        task = loop.create_task(rx.recv())
        loop.run_ready()
        return tx, task

    def replace():
        nonlocal again, found
        address = id(loops.pop())
        collect()  # its last handle holds it, in a circle
        others = [Large()]
        while id(others[-1]) != address and len(others) < 10_000:
            others.append(Large())
        found = id(others[-1]) == address
        again = [others[-1], *wait_on(others[-1])]

    again, found = [], False
    asked = Asked()
    asked_tx, asked_task = wait_on(asked)
    around = [Large() for _ in range(100)]  # they keep the memory of the one in the middle for loops of this kind
    loops = [around.pop(50)]
    old_tx, old_task = wait_on(loops[0])
    old_tx.try_send("old")
    loops[0].run_ready()
    assert old_task.result() == "old"
    del old_task
    asked.when_asked = replace
    newest = StepLoop()
    newest_tx, newest_task = wait_on(newest)
    assert found
    loop, tx, task = again
    tx.try_send("item")
    loop.run_ready()
    assert task.done() and task.result() == "item"
    for loop, tx, task in ((asked, asked_tx, asked_task), (newest, newest_tx, newest_task)):
        tx.try_send("item")
        loop.run_ready()
        assert task.result() == "item"
        loop.close()
    again[0].close()


# Loops that stop and go on


def test_a_stopped_loop_finds_its_wake_ups_when_it_goes_on(threaded, loop_factory, spawn):
    loop = loop_factory()
    try:
        tx, rx = threaded.channel(1)
        task = loop.create_task(rx.recv())
        loop.run_until_complete(until_parked(rx, receivers=1))
        for number in range(3):
            spawn(tx.try_send, number).join()
            assert not task.done()
            assert loop.run_until_complete(task) == number
            task = loop.create_task(rx.recv())
            loop.run_until_complete(until_parked(rx, receivers=1))
        tx.close()
        with pytest.raises(RecvError):
            loop.run_until_complete(task)
    finally:
        loop.close()


def test_a_stopped_loop_holds_up_nobody_but_those_behind_it(threaded, loop_factory, spawn):
    loop = loop_factory()
    try:
        tx, rx = threaded.channel(3)
        task = loop.create_task(rx.recv())
        loop.run_until_complete(until_parked(rx, receivers=1))
        thread = spawn(rx.recv_blocking)
        until_blocked(rx, receivers=2)
        tx.try_send(1)
        tx.try_send(2)  # one for the stopped loop's task, one for the thread
        assert thread.join() in (1, 2)
        assert loop.run_until_complete(task) in (1, 2)
    finally:
        loop.close()


def test_several_loops_one_after_another_in_one_thread(variant, loop_factory):
    for number in range(size(30, 300)):

        async def main(number=number):
            tx, rx = variant.channel(1)
            task = asyncio.create_task(rx.recv())
            await until_parked(rx, receivers=1)
            asyncio.get_running_loop().call_soon(tx.try_send, number)
            return await task

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(main()) == number


def test_one_channel_used_by_several_loops_one_after_another(variant, loop_factory):
    """Also by those that left a cancelled wait behind."""
    tx, rx = variant.channel(1)
    for number in range(size(30, 300)):

        async def main(number=number):
            left = asyncio.create_task(rx.recv())  # cancelled when the loop ends
            await until_parked(rx, receivers=1)
            task = asyncio.create_task(rx.recv())
            await until_parked(rx, receivers=2)
            tx.try_send(number)
            assert await left == number
            asyncio.get_running_loop().call_soon(tx.try_send, -number)
            assert await task == -number
            abandon = asyncio.create_task(rx.recv())
            await until_parked(rx, receivers=1)
            return abandon

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            task = runner.run(main())
        assert task.cancelled()
        assert rx.statistics().waiting_receivers == 0


def test_two_loops_in_two_threads_wait_on_both_ends_of_many_channels(threaded, spawn, loop_factory):
    rounds = size(300, 20_000)
    channels = [threaded.channel(1) for _ in range(8)]

    def in_loop(function):
        async def main():
            return await asyncio.gather(*(function(*channel) for channel in channels))

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    async def send(tx, _):
        async with tx:
            for number in range(rounds):
                await tx.send(number)

    async def receive(_, rx):
        return [item async for item in rx]

    receiver = spawn(in_loop, receive)
    spawn(in_loop, send).join()
    assert receiver.join() == [list(range(rounds))] * 8


def test_the_ends_may_be_tasks_of_loops_of_different_kinds(threaded, spawn):
    uvloop = pytest.importorskip("uvloop")
    tx, rx = threaded.channel(2)

    async def send():
        async with tx:
            await tx.send_many(range(2000))

    async def receive():
        return [item async for item in rx]

    def run(factory, main):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    receiver = spawn(run, uvloop.new_event_loop, receive)
    spawn(run, asyncio.new_event_loop, send).join()
    assert receiver.join() == list(range(2000))


# Other loops


class SelectorLessLoop(asyncio.SelectorEventLoop):
    """As the proactor loop of Windows was, and many others are: no readers."""

    def add_reader(self, *args):
        raise NotImplementedError


def test_a_real_loop_without_add_reader_is_woken_by_call_soon_threadsafe(threaded, spawn):
    calls = []

    class Loop(SelectorLessLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            calls.append(threading.get_ident())
            return super().call_soon_threadsafe(*args, **kwargs)

    tx, rx = threaded.channel(1)
    parked = threading.Event()

    async def collect():
        return [item async for item in rx]

    async def main():
        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        parked.set()
        return await collecting

    def send():
        parked.wait()
        with tx:
            for number in range(200):
                tx.send_blocking(number)

    with asyncio.Runner(loop_factory=Loop) as runner:
        thread = spawn(send)
        assert runner.run(main()) == list(range(200))
        thread.join()
    assert thread.ident in calls


@has_wake_descriptors
def test_pitfall_28_a_loop_that_was_woken_once_is_woken_without_its_call_soon_threadsafe(threaded, loop_factory, spawn):
    """That of uvloop may fail to wake on free-threaded builds: from the second time on nothing depends on it."""
    probe = loop_factory()
    probe.close()

    class Deaf(type(probe)):
        asked = 0

        def call_soon_threadsafe(self, *args, **kwargs):
            self.asked += 1
            return super().call_soon_threadsafe(*args, **kwargs) if self.asked == 1 else None

    async def main():
        tx, rx = threaded.channel(1)
        thread = spawn(lambda: [tx.send_blocking(number) for number in range(200)])
        async with asyncio.timeout(DEADLINE):
            assert [await rx.recv() for _ in range(200)] == list(range(200))
        thread.join()

    loop = Deaf()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_loop_whose_add_reader_fails_for_want_of_descriptors_is_still_woken(threaded, spawn):
    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, *args):
            raise OSError(24, "Too many open files")

    tx, rx = threaded.channel(1)

    async def main():
        return [item async for item in rx]

    def send():
        with tx:
            for number in range(200):
                tx.send_blocking(number)

    with asyncio.Runner(loop_factory=Loop) as runner:
        thread = spawn(send)
        assert runner.run(main()) == list(range(200))
        thread.join()


def test_without_free_descriptors_waits_across_threads_still_work(threaded):
    script = """
import asyncio, importlib, os, resource, sys, threading
tx, rx = importlib.import_module("nexus_channels." + sys.argv[1]).channel(1)
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    try:
        while True:
            held.append(os.dup(2))
    except OSError:
        pass
    def send():
        with tx:
            for number in range(100):
                tx.send_blocking(number)
    thread = threading.Thread(target=send)
    thread.start()
    assert [item async for item in rx] == list(range(100))
    thread.join()
asyncio.run(main())
"""
    run_child(script, threaded.__name__.rpartition(".")[2])


def test_asyncio_debug_mode_finds_nothing_to_complain_about(variant, run):
    async def main():
        tx, rx = variant.channel(1)
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        await tx.send(1)
        assert await task == 1
        asyncio.get_running_loop().call_soon(tx.try_send, 2)
        assert await rx.recv() == 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main(), debug=True)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_eager_tasks_wait_and_are_woken(variant, spawn):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        tx, rx = variant.channel(1)
        ready = asyncio.create_task(tx.send(1))
        assert ready.done()
        assert asyncio.create_task(rx.recv()).result() == 1
        waiting = asyncio.create_task(rx.recv())
        assert not waiting.done()
        assert rx.statistics().waiting_receivers == 1
        assert asyncio.create_task(tx.send(2)).done()
        assert await waiting == 2

    asyncio.run(main())


# What loops leave behind


def test_descriptors_stay_flat_over_many_loops(loop_factory):
    """Each loop is woken across threads, so that each has a wake fd; half of them leave a task waiting."""
    script = """
import asyncio, importlib, os, sys
from support import in_thread, until_parked
from nexus_channels import mpsc
factory = importlib.import_module(sys.argv[1]).new_event_loop
async def main(number):
    tx, rx = mpsc.channel(1)
    for _ in range(2):
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        await in_thread(tx.try_send, number)
        assert await task == number
    if number % 2:
        task = asyncio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
counts = []
for number in range(int(sys.argv[2])):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(number))
    counts.append(len(os.listdir("/proc/self/fd")))
assert counts[-1] <= counts[2] + 2, counts
assert max(counts) <= min(counts) + 4, counts
"""
    module = "asyncio" if loop_factory is asyncio.new_event_loop else "uvloop"
    run_child(script, module, 500, seconds=60)


def test_loops_that_are_dropped_take_their_wake_descriptor_with_them(threaded):
    script = """
import asyncio, gc, importlib, os, sys, weakref
from support import Spawned, collect, until_parked
module = importlib.import_module("nexus_channels." + sys.argv[1])
asyncio.new_event_loop().close()
before = len(os.listdir("/proc/self/fd"))
for _ in range(5):
    loop = asyncio.new_event_loop()
    tx, rx = module.channel(1)
    for _ in range(2):
        task = loop.create_task(rx.recv())
        loop.run_until_complete(until_parked(rx, receivers=1))
        Spawned(tx.try_send, 1).join()
        assert loop.run_until_complete(task) == 1
    loop.close()
alive = weakref.ref(loop)
del loop, task, tx, rx
collect()
assert alive() is None
assert len(os.listdir("/proc/self/fd")) == before
"""
    run_child(script, threaded.__name__.rpartition(".")[2])


@reuses_memory
def test_a_new_loop_at_the_address_of_a_dead_one_is_not_taken_for_it(threaded, spawn):
    """Mailboxes are found by the loop's address, and the allocator hands freed addresses out again."""
    tx, rx = threaded.channel(1)
    addresses = set()
    for number in range(300):
        loop = StepLoop()
        addresses.add(id(loop))
        task = loop.create_task(rx.recv())
        loop.run_ready()
        tx.try_send(number)
        loop.run_ready()
        assert task.done() and task.result() == number
        if number % 2:
            loop.close()
        del loop, task
        if number % 10 == 0:
            gc.collect()
    assert len(addresses) < 300


def test_loops_and_channels_that_come_and_go_in_many_threads(threaded, spawn):
    """Every thread runs loop after loop; all of them send to one another's channels."""
    count = 3
    rounds = size(20, 500)
    channels = [threaded.channel(1) for _ in range(count)]
    start = threading.Barrier(count)

    async def main(mine, others, number):
        waiting = asyncio.create_task(mine.recv(timeout=DEADLINE))
        for tx in others:
            await tx.send(number)
        return [await waiting, *[await mine.recv(timeout=DEADLINE) for _ in others[1:]]]

    def run(index):
        others = [tx for other, (tx, _) in enumerate(channels) if other != index]
        received = []
        for number in range(rounds):
            start.wait(DEADLINE)
            with asyncio.Runner() as runner:
                received += runner.run(main(channels[index].receiver, others, number))
        return received

    threads = [spawn(run, index) for index in range(count)]
    for thread in threads:
        assert thread.join() == [number for number in range(rounds) for _ in range(count - 1)]
