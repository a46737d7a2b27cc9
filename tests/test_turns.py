"""No channel starves a loop: a task whose calls are always ready yields now and then, before it sends or takes."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import time

import pytest
from anychannel import ALL, AnyChannel
from harness import GIL_ENABLED, SLOWNESS
from support import Spawned, drive

from nexus_channels import Closed, _core, mpsc, mpsc_bytes, spsc

CONSUMERS = ["recv", "async for", "recv_many", "recv with a timeout"]


def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def heartbeat(every, lateness):
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        lateness.append(loop.time() - due)


async def beside_a_heartbeat(task, seconds, every=0.01):
    """Run the task for some time: how late each beat of a heartbeat was."""
    gc.collect()  # late in a run a full collection takes as long as a starved loop: none is due in the next second
    lateness = []
    beating = asyncio.create_task(heartbeat(every, lateness))
    running = asyncio.create_task(task)
    await asyncio.sleep(seconds)
    for ending in (running, beating):
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending
    return sorted(lateness)


async def consume(rx, how, seconds_an_item, taken):
    if how == "recv":
        while True:
            taken.append(await rx.recv())
            work(seconds_an_item)
    elif how == "recv with a timeout":
        while True:
            taken.append(await rx.recv(timeout=30))
            work(seconds_an_item)
    elif how == "async for":
        async for item in rx:
            taken.append(item)
            work(seconds_an_item)
    else:
        while True:
            items = await rx.recv_many(4)
            taken += items
            work(seconds_an_item * len(items))


def feed(tx):
    with contextlib.suppress(Closed):
        number = 0
        while True:
            tx.send_blocking(number)
            number += 1


@pytest.mark.parametrize("how", CONSUMERS)
def test_a_heartbeat_goes_on_beside_a_consumer_that_never_has_to_wait(run, spawn, how):
    tx, rx = mpsc.channel(4096)  # more than is taken until a thread gets the GIL, after 5 ms
    for _ in range(2):
        spawn(feed, tx.clone())
    tx.close()
    late = run(beside_a_heartbeat(consume(rx, how, 10e-6, []), 1.0))
    rx.close()
    assert len(late) > 5
    assert late[len(late) // 2] < 0.1 * SLOWNESS, late  # seconds, where it starves
    assert late[-1] < 0.5 * SLOWNESS, late


@pytest.mark.parametrize("seconds", [0, 1e-6, 100e-6, 2e-3])
def test_a_heartbeat_goes_on_beside_consumers_of_any_pace(run, seconds):
    async def main():
        tx, rx = spsc.channel(1000)

        async def both():
            while True:
                await tx.send(1)
                await rx.recv()
                work(seconds)

        return await beside_a_heartbeat(both(), 0.6)

    late = run(main())
    assert len(late) > 3
    assert late[len(late) // 2] < 0.1 * SLOWNESS, late  # seconds, where it starves


@pytest.mark.skipif(not GIL_ENABLED, reason="without a GIL nothing of a task is kept alive, not even weakly")
def test_a_slow_task_where_a_fast_one_was_is_not_taken_for_it():
    """At the same address, but it has to yield far more often."""

    async def both(channel, seconds):
        tx, rx = channel
        while True:
            await tx.send(1)
            await rx.recv()
            work(seconds)

    async def main():
        channel = spsc.channel(1000)
        fast = asyncio.create_task(both(channel, 0))
        await asyncio.sleep(0.2)
        address = id(fast)
        fast.cancel()
        await asyncio.wait([fast])
        del fast
        others = [asyncio.create_task(both(channel, 2e-3))]
        while id(others[-1]) != address and len(others) < 1000:
            others.append(asyncio.create_task(both(channel, 2e-3)))
        slow = others.pop()
        for other in others:  # before their first step
            other.cancel()
        if id(slow) != address:
            slow.cancel()
            pytest.skip("no task came to lie there")
        late = []
        beating = asyncio.create_task(heartbeat(0.01, late))
        await asyncio.sleep(0.6)
        for ending in (slow, beating):
            ending.cancel()
        await asyncio.wait([slow, beating])
        return sorted(late)

    late = asyncio.run(main())
    assert len(late) > 3
    assert late[len(late) // 2] < 0.1 * SLOWNESS, late


@pytest.mark.parametrize("name", ALL)
def test_a_task_that_is_always_ready_is_cancelled_and_loses_nothing(name):
    async def main():
        channel = AnyChannel(name)
        sent, taken = [], []

        async def both():
            number = 0
            while True:
                await channel.sending(number)
                sent.append(number)
                number += 1
                taken.append(await channel.recv())

        task = asyncio.create_task(both())
        for _ in range(5):
            await asyncio.sleep(0.002)  # gets its turn
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        assert taken + channel.drain() == sent

    asyncio.run(main())


@pytest.mark.parametrize("name", ["spsc_bytes", "mpsc_bytes"])
def test_claims_and_iterations_of_bytes_yield_and_give_back_first(name):
    async def main():
        channel = AnyChannel(name)
        beats = 0

        iterating = False

        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0)
                if iterating:
                    channel.rx.try_recv_many(1)  # BusyError, if a claim of the iteration were still open
                beats += 1

        async def fill():
            nonlocal iterating
            async with channel.tx.claim(8) as view:
                view[:] = bytes(8)
            while True:
                messages = aiter(channel.rx)
                for _ in range(1000):
                    await channel.tx.send(bytes(8))
                    iterating = True
                    claim = await anext(messages)
                    iterating = False
                    assert len(claim) == 8

        tasks = [asyncio.create_task(beat()), asyncio.create_task(fill())]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results
        assert beats > 5

    asyncio.run(main())


async def always_ready(seconds):
    tx, rx = spsc.channel(4)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await tx.send(1)
        await rx.recv()


def test_a_loop_that_has_nothing_else_to_do_is_yielded_to_less_often():
    class Counting(asyncio.SelectorEventLoop):
        turns = 0

        def _run_once(self):
            self.turns += 1
            super()._run_once()

    async def main(others):
        loop = asyncio.get_running_loop()
        sleeping = [asyncio.create_task(spin() if others else asyncio.sleep(60))]
        await asyncio.sleep(0)
        before = loop.turns
        await always_ready(0.2)
        turns = loop.turns - before
        for task in sleeping:
            task.cancel()
        return turns

    async def spin():
        while True:
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Counting) as runner:
        idle, busy = runner.run(main(False)), runner.run(main(True))
    if "loop_queues" in _core.build_info()["insides"]:
        assert 2 < idle < busy / 3
    else:  # it is not known whether anybody wants the turn
        assert idle > 2


def test_what_only_the_kernel_knows_of_gets_through(run):
    """No callback is ready and no timer due: but a descriptor is. Its writer needs no GIL."""

    async def main():
        loop, came = asyncio.get_running_loop(), []
        command = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.02; echo; done"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            os.set_blocking(writer.stdout.fileno(), False)
            loop.add_reader(writer.stdout, lambda: came.append(writer.stdout.read()))
            await always_ready(0.5)
            loop.remove_reader(writer.stdout)
        return came

    came = run(main())
    assert len(came) > 3, "where it starves: none"


@pytest.mark.skipif(not GIL_ENABLED, reason="there is no GIL to wait for")
@pytest.mark.skipif("loop_queues" not in _core.build_info()["insides"], reason="the loop is yielded to at every turn")
def test_other_threads_get_the_gil_beside_a_task_that_is_always_ready(spawn):
    """A loop that lets go of it every few milliseconds, each time for a moment, keeps others from asking for it."""
    waits = []

    def sleep_and_wake():
        for _ in range(15):
            began = time.monotonic()
            time.sleep(0.01)  # lets go of the GIL, and then wants it again
            waits.append(time.monotonic() - began - 0.01)

    thread = spawn(sleep_and_wake)
    asyncio.run(always_ready(0.6))
    thread.join()
    assert max(waits) < 0.1 * SLOWNESS, waits  # 0.2 to 0.5 s where the loop was yielded to every 4 ms


@pytest.mark.parametrize("name", ["_ready", "_scheduled", "time"])
def test_a_loop_that_keeps_its_work_otherwise_is_yielded_to_all_the_same(name):
    """As another version of asyncio may."""

    class Other(asyncio.SelectorEventLoop):
        hidden = False

        def __getattribute__(self, asked):
            if asked == name and object.__getattribute__(self, "hidden"):
                caller = sys._getframe(1).f_code
                if caller.co_name == "always_ready":
                    raise AttributeError(asked)
            return object.__getattribute__(self, asked)

    async def main():
        asyncio.get_running_loop().hidden = True
        return await beside_a_heartbeat(always_ready(0.5), 0.4)

    with asyncio.Runner(loop_factory=Other) as runner:
        late = runner.run(main())
    assert len(late) > 5
    assert late[len(late) // 2] < 0.1 * SLOWNESS, late


def test_asyncio_timeout_gets_through_to_a_task_that_is_always_ready(run):
    async def main():
        tx, rx = spsc.channel(1000)
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                while True:
                    await tx.send(1)
                    await rx.recv()
        return time.monotonic() - began

    assert run(main()) < 1 * SLOWNESS


def test_a_timeout_of_0_yields_and_still_takes_what_is_ready(run):
    async def main():
        tx, rx = spsc.channel(4)
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        for number in range(20_000):
            await tx.send(number, timeout=0)
            assert await rx.recv(timeout=0) == number
        counting.cancel()
        return turns

    assert run(main()) > 2


def test_each_of_two_greedy_tasks_has_its_turns(run):
    async def main():
        done = [0, 0]

        async def greedy(which, seconds):
            tx, rx = spsc.channel(8)
            while True:
                await tx.send(1)
                await rx.recv()
                work(seconds)
                done[which] += 1

        tasks = [asyncio.create_task(greedy(0, 200e-6)), asyncio.create_task(greedy(1, 20e-6))]
        await asyncio.sleep(0.8)
        for task in tasks:
            task.cancel()
        return done

    slow, fast = run(main())
    assert slow > 300 / SLOWNESS
    assert fast > 3000 / SLOWNESS


def test_four_tasks_that_send_into_one_full_channel_get_in_evenly(run):
    async def main():
        tx, rx = spsc.channel(256)
        sent = [0] * 4

        async def send(which):
            while True:
                await tx.send(which)
                sent[which] += 1

        tasks = [asyncio.create_task(send(which)) for which in range(4)]
        for _ in range(10_000):
            await rx.recv()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sent

    sent = run(main())
    assert max(sent) < 0.6 * sum(sent), sent  # one took 99 % where nobody yielded


def test_four_tasks_that_receive_from_one_channel_share_it_evenly(run):
    async def main():
        tx, rx = spsc.channel(256)
        taken = [0] * 4

        async def receive(which):
            while True:
                await rx.recv()
                taken[which] += 1

        tasks = [asyncio.create_task(receive(which)) for which in range(4)]
        for _ in range(10_000):
            await tx.send(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return taken

    taken = run(main())
    assert max(taken) < 0.6 * sum(taken), taken  # one took 99 % where nobody yielded


def test_try_forms_and_awaitables_driven_by_hand_never_yield():
    tx, rx = spsc.channel(8)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        tx.try_send(1)
        rx.try_recv()
        drive(tx.send(2))
        assert drive(rx.recv()) == 2


def test_a_generator_that_never_ends_does_not_hold_the_loop(run):
    async def main():
        tx, rx = mpsc.channel(1 << 20)

        def numbers():
            number = 0
            while True:
                yield number
                number += 1

        async def send():
            await tx.send_many(numbers())

        async def both():
            sending = asyncio.create_task(send())
            try:
                while True:
                    await rx.recv_many(1000)
            finally:
                sending.cancel()

        return await beside_a_heartbeat(both(), 0.5)

    late = run(main())
    assert len(late) > 3
    assert late[len(late) // 2] < 0.1 * SLOWNESS, late  # seconds, where it starves


def test_a_consumer_of_native_messages_yields(driver, run):
    tx, rx = mpsc_bytes.channel(1 << 16)
    end = tx.native()
    tx.close()
    producer = driver.producer(end, 2_000_000)

    async def main():
        async def read():
            while True:
                await rx.recv_bytes()
                work(10e-6)  # the producer is faster, so that there always is another

        return await beside_a_heartbeat(read(), 0.5)

    late = run(main())
    rx.close()
    end.close()
    Spawned(producer.join).wait()
    assert len(late) > 5
    assert late[int(len(late) * 0.9)] < 0.1 * SLOWNESS, late


def test_a_collection_while_the_pace_is_looked_at_cannot_step_the_same_call(variant, run):
    """The look makes a weak reference to a new task; up to 3.11 that may start a collection in the middle of a step."""
    current, refused = None, 0
    received = []

    def step_again(phase, _info):
        nonlocal refused
        if phase == "start" and current is not None and current.cr_running:
            with pytest.raises(RuntimeError, match="already being awaited"):
                current.send(None)
            refused += 1

    async def exchange(tx, rx):
        nonlocal current
        for number in range(40):
            current = tx.send(number)
            await current
            current = rx.recv()
            received.append(await current)

    async def main():
        for _ in range(50):
            await asyncio.create_task(exchange(*variant.channel(1)))

    thresholds = gc.get_threshold()
    gc.callbacks.append(step_again)
    gc.set_threshold(1)
    try:
        run(main())
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(step_again)
    assert received == [*range(40)] * 50
    assert refused or sys.version_info >= (3, 12)
