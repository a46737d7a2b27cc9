"""Several threads do things to one object at once, whatever it is: nothing breaks, and each call answers as it may.

Worth most on free-threaded builds, and under ThreadSanitizer: `bash .ci/sanitize tsan tests/test_races.py`.
"""

import asyncio
import contextlib
import gc
import itertools
import threading
import time
import weakref

import pytest
from anychannel import THREADED, AnyChannel
from harness import run_child, seeded, size
from steploop import StepLoop
from support import DEADLINE, until

from nexus_channels import BusyError, ChannelError, Full, RecvError

ROUNDS = size(100, 20_000)


def at_once(spawn, make, *acts, rounds=ROUNDS):
    """In each round every act is done to what `make()` gave, each by a thread of its own, all at the same time.

    Returns for each round what was made, and what each act returned or raised.
    """
    made = [make() for _ in range(rounds)]
    outcomes = [[None] * len(acts) for _ in made]
    arrived = [[] for _ in made]

    def thread(number, act):
        for thing, outcome, there in zip(made, outcomes, arrived, strict=True):
            there.append(number)
            until(lambda there=there: len(there) == len(acts))  # awake: a lock would let them go one by one
            try:
                outcome[number] = act(thing)
            except Exception as error:
                outcome[number] = error.with_traceback(None)

    threads = [spawn(thread, number, act) for number, act in enumerate(acts)]
    for thread in threads:
        thread.join()
    return zip(made, outcomes, strict=True)


def only(outcome, *kinds):
    """Whatever was raised is one of these."""
    strange = [error for error in outcome if isinstance(error, Exception) and not isinstance(error, kinds)]
    assert strange == []


@pytest.fixture(params=THREADED)
def name(request):
    return request.param


def rest_of(channel):
    """Everything up to the end."""
    items = []
    with contextlib.suppress(RecvError):
        while True:
            items += channel.drain()
    return items


def look_at(endpoint):
    endpoint.statistics()
    return repr(endpoint), len(endpoint), endpoint.is_closed, endpoint.is_disconnected, endpoint.capacity


def test_an_endpoint_that_is_used_and_closed(name, spawn):
    def make():
        channel = AnyChannel(name)
        channel.try_send(1)
        return channel

    acts = [
        lambda channel: channel.try_send(2),
        lambda channel: channel.tx.close(),
        lambda channel: channel.try_recv(),
        lambda channel: look_at(channel.tx),
    ]
    for channel, outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError)
        got = [item for item in outcome[2:3] if isinstance(item, int)] + rest_of(channel)
        assert got == ([1] if isinstance(outcome[0], ChannelError) else [1, 2])


def test_a_receiver_that_is_used_and_closed(name, spawn):
    def make():
        channel = AnyChannel(name)
        channel.try_send(1)
        channel.try_send(2)
        return channel

    acts = [
        lambda channel: channel.drain(),
        lambda channel: channel.rx.close(),
        lambda channel: channel.try_send(3),
        lambda channel: look_at(channel.rx),
        lambda channel: channel.try_recv(),
    ]
    for _, outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError)


def test_the_last_senders_go_at_once(spawn, name):
    """Cloned, closed, dropped; the end comes when all are gone and not before."""

    def make():
        channel = AnyChannel(name)
        senders = [channel.tx]
        if channel.clones:
            senders += [channel.tx.clone(), channel.tx.clone()]
        channel.tx = None
        return channel.rx, senders

    def drop(made):
        made[1].pop()

    def close(made):
        sender = made[1][0]
        if hasattr(sender, "clone"):
            sender.clone().close()
        sender.close()

    for (rx, senders), outcome in at_once(spawn, make, close, drop, lambda made: look_at(made[0])):
        only(outcome, ChannelError, IndexError)
        senders.clear()
        assert rx.is_disconnected
        assert rx.statistics().open_senders == 0
        with pytest.raises(RecvError):
            rx.try_recv()


def finish(awaitable):
    """Step it once, outside of any loop; it cannot wait there."""
    try:
        return awaitable.send(None)
    except StopIteration as stop:
        return (stop.value,)


def look_at_awaitable(awaitable):
    return repr(awaitable), awaitable.cr_running, awaitable.cr_await, awaitable.__name__


@pytest.mark.parametrize("items", [0, 1])
def test_an_awaitable_that_is_stepped_and_ended(name, spawn, items):
    def make():
        channel = AnyChannel(name)
        for number in range(items):
            channel.try_send(number)
        return channel, channel.receiving()

    acts = [
        lambda made: finish(made[1]),
        lambda made: made[1].close(),
        lambda made: finish(made[1]),
        lambda made: look_at_awaitable(made[1]),
        lambda made: made[1].throw(KeyError("thrown")),
    ]
    for (channel, _), outcome in at_once(spawn, make, *acts):
        only(outcome, RuntimeError, KeyError)
        taken = [channel.unpack(result[0]) for result in outcome[:3] if isinstance(result, tuple)]
        assert taken + channel.drain() == list(range(items))


def test_an_awaitable_that_waits_is_woken_and_ended_elsewhere(name, spawn):
    """Its loop stands still in the meantime."""
    loops = [StepLoop() for _ in range(ROUNDS // 10)]
    each = iter(loops)

    def make():
        channel, loop = AnyChannel(name), next(each)
        awaitable = channel.receiving()
        loop.call(awaitable.send, None)
        return channel, loop, awaitable

    acts = [
        lambda made: made[0].try_send(7),
        lambda made: made[2].close(),
        lambda made: look_at_awaitable(made[2]),
        lambda made: made[0].rx.close(),
    ]
    for (_, loop, awaitable), outcome in at_once(spawn, make, *acts, rounds=len(loops)):
        only(outcome, ChannelError)
        loop.run_ready()
        assert "done" in repr(awaitable)
        assert loop.errors == []
        loop.close()


def test_tasks_of_one_loop_woken_by_many_threads_while_others_are_cancelled(name, spawn, run):
    """Callers and the cancelled meet at the mailbox."""
    channel = AnyChannel(name, capacity=2)
    rounds = size(30, 3000)

    def send():
        sent = 0
        for number in range(rounds):
            try:
                channel.send_blocking(number, timeout=0.02)
                sent += 1
            except ChannelError:
                pass
        return sent

    async def main():
        received = 0
        threads = [spawn(send) for _ in range(3)]
        while any(thread.is_alive() for thread in threads):
            tasks = [asyncio.create_task(channel.recv()) for _ in range(4)]
            await asyncio.sleep(0)
            for task in tasks[1::2]:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.01)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            received += sum(isinstance(item, int) for item in done)
        received += len(channel.drain())
        return received, sum(thread.join() for thread in threads)

    received, sent = run(main())
    assert received == sent


@pytest.fixture(params=["spsc_bytes", "mpsc_bytes"])
def bytes_name(request):
    return request.param


def look_at_claim(claim):
    return repr(claim), len(claim), claim[0]


def test_a_write_claim_that_is_ended_in_both_ways(bytes_name, spawn):
    def make():
        channel = AnyChannel(bytes_name)
        claim = channel.tx.try_claim(8)
        claim[:] = channel.pack(5)
        return channel, claim

    acts = [
        lambda made: made[1].commit(),
        lambda made: made[1].abort(),
        lambda made: look_at_claim(made[1]),
        lambda made: made[0].tx.close(),
        lambda made: memoryview(made[1]).release(),
    ]
    for (channel, _), outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError, BufferError)
        ended = [result is None for result in outcome[:2]]
        assert sum(ended) < 2
        if not any(ended):  # a view was in the way of both
            continue
        assert rest_of(channel) == ([5] if ended[0] else [])


def test_a_read_claim_that_is_released_by_several(bytes_name, spawn):
    def make():
        channel = AnyChannel(bytes_name)
        channel.try_send(5)
        channel.try_send(6)
        return channel, channel.rx.try_recv()

    acts = [
        lambda made: made[1].release(),
        lambda made: made[1].release(),
        lambda made: look_at_claim(made[1]),
        lambda made: bytes(made[1]),
        lambda made: made[0].try_recv(),
    ]
    for (channel, claim), outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError, BufferError)
        released = sum(result is None for result in outcome[:2])
        assert released < 2
        if not released:
            claim.release()
        got = [6] if outcome[4] == 6 else []
        assert got + channel.drain() == [6]


def test_a_block_that_is_left_by_several(bytes_name, spawn):
    def make():
        channel = AnyChannel(bytes_name)
        claim = channel.tx.try_claim(8)
        return channel, claim

    def leave(made):
        made[1].__enter__()  # and leaves the view alone: one view belongs to one thread
        made[1].__exit__(None, None, None)

    acts = [leave, leave, lambda made: made[1].__exit__(ValueError, ValueError(), None), lambda made: repr(made[1])]
    for (channel, claim), outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError, BufferError, ValueError)
        claim.__exit__(None, None, None)
        assert len(channel.drain()) <= 1


def test_an_iterator_of_claims_that_several_advance(bytes_name, spawn):
    def make():
        channel = AnyChannel(bytes_name)
        for number in range(3):
            channel.try_send(number)
        channel.tx.close()
        return channel, iter(channel.rx)

    def advance(made):
        try:
            next(made[1])
            return True
        except StopIteration:
            return False

    acts = [advance, advance, advance, lambda made: look_at(made[0].rx)]
    for (channel, iterator), outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError)
        del iterator
        assert sum(map(bool, outcome[:3])) == 3
        assert channel.rx.is_disconnected


def test_one_put_off_for_a_claim_is_stepped_and_called_at_once(spawn):
    """Called not by the claim's end, but because one in line beside it will never run: its loop is closed."""
    loops = []

    def make():
        channel, loop, dying = AnyChannel("mpsc_bytes"), StepLoop(), StepLoop()
        channel.fill()
        calls = claiming, put_off, lost = channel.tx.claim(8), channel.sending(1), channel.sending(2)
        for call in calls:
            (dying if call is lost else loop).call(call.send, None)
        channel.drain()
        claim = loop.call(finish, claiming)[0]
        loop.call(put_off.send, None)
        dying.close()
        loops.append(loop)
        return channel, channel.tx.clone(), put_off, claim, lost

    def step(made):
        for _ in range(20):
            with contextlib.suppress(RuntimeError):
                finish(made[2])

    # There is room for this, but not behind those in line.
    acts = [lambda made: made[1].try_send(bytes(40)), step]
    for made, outcome in at_once(spawn, make, *acts):
        only(outcome, Full)
        channel, _, put_off, claim, _ = made
        put_off.close()
        claim.abort()
        assert channel.tx.statistics().waiting_senders == 0
    for loop in loops:
        loop.close()


def test_native_ends_that_are_made_and_closed(bytes_name, spawn):
    def make():
        channel = AnyChannel(bytes_name)
        return channel, channel.tx.native()

    acts = [
        lambda made: made[1].close(),
        lambda made: made[1].close(),
        lambda made: (repr(made[1]), made[1].is_closed, made[1].is_attached, made[1].is_disconnected),
        lambda made: made[0].rx.close(),
        lambda made: made[0].try_send(3),
        lambda made: made[0].tx.native().close(),
    ]
    for (channel, end), outcome in at_once(spawn, make, *acts):
        only(outcome, ChannelError)
        assert end.is_closed
        channel.tx.close()
        assert channel.rx.statistics().open_senders == 0


LEFT_AT_MOST = 30  # loops of a thread that nobody has collected yet


def test_collections_while_everything_is_used(name, spawn):
    """Cycles through values, waiting tasks and endpoints are collected by one thread, and used by others."""
    collected = threading.Event()

    def collect():
        # So many times, whatever they take: without a GIL each stops all threads, which would not get far otherwise.
        try:
            for _ in range(size(40, 5000)):
                gc.collect()
        finally:
            collected.set()

    def still_there(left):
        if len(left) >= LEFT_AT_MOST:
            gc.collect()
            left[:] = [loop for loop in left if loop() is not None]
        return len(left)

    def use(number):
        generator = seeded(f"collections {number}")
        rounds, left = 0, []
        while rounds < 3 or not collected.is_set():
            rounds += 1
            channel, loop = AnyChannel(name), StepLoop()
            tasks = [loop.create_task(channel.recv()) for _ in range(3)]
            loop.run_ready()
            for value in range(generator.randrange(4)):
                channel.try_send(value)
            if generator.random() < 0.5:
                loop.run_ready()
            for task in tasks:
                task._log_destroy_pending = False
                if generator.random() < 0.3:
                    task.cancel()
            loop.own = (channel, tasks)  # a cycle
            if generator.random() < 0.5:
                loop.close()
            left.append(weakref.ref(loop))
            del channel, loop, task, tasks
            # Else they are made faster than they are collected: each has memory, and an open one descriptors.
            until(lambda left=left: still_there(left) < LEFT_AT_MOST, "a collection of the loops")

    for thread in [spawn(collect), *(spawn(use, number) for number in range(3))]:
        thread.join()


def test_statistics_are_asked_while_what_nobody_will_receive_is_dropped(name, spawn):
    """Under ThreadSanitizer it shows if the counters are read without their lock."""
    for _ in range(size(20, 1000)):
        channel = AnyChannel(name)
        go = threading.Barrier(2)

        def ask(rx=channel.rx, go=go):
            go.wait()
            for _ in range(50):
                assert rx.statistics().received == 0

        asking = spawn(ask)
        go.wait()
        channel.rx.close()
        for number in range(50):
            with contextlib.suppress(ChannelError):
                channel.try_send(number)
        asking.join()


def test_loops_that_die_with_tasks_in_line_while_their_channel_is_used(name, spawn):
    """Threads behind them in line are served, and every value arrives once or stays."""
    channel = AnyChannel(name, capacity=3)
    rounds = size(60, 4000)
    numbers = itertools.count()
    lost_loops = threading.Event()

    def send():
        sent = []
        while not lost_loops.is_set():
            number = next(numbers)
            try:
                channel.send_blocking(number, timeout=0.01)
                sent.append(number)
            except ChannelError:
                pass
        return sent

    def receive():
        received = []
        while not lost_loops.is_set():
            with contextlib.suppress(ChannelError):
                received.append(channel.recv_blocking(timeout=0.01))
        return received

    def lose_loops():
        received = []

        async def take():
            received.append(await channel.recv())

        for _ in range(rounds):
            loop = asyncio.new_event_loop()
            tasks = [loop.create_task(take()) for _ in range(3)]
            loop.call_later(0.001, loop.stop)
            loop.run_forever()
            loop.close()
            for task in tasks:
                task._log_destroy_pending = False
        return received

    losers = [spawn(lose_loops) for _ in range(2)]
    senders = [spawn(send) for _ in range(2)]
    receivers = [spawn(receive)]
    received = [number for thread in losers for number in thread.join()]
    lost_loops.set()
    sent = [number for thread in senders for number in thread.join()]
    received += [number for thread in receivers for number in thread.join()]
    received += channel.drain()
    assert sorted(received) == sorted(sent)


def test_claims_that_put_off_others_while_loops_die(bytes_name, spawn):
    """Whoever waits for a lent endpoint is called when it comes back, also beside waiters that never run again."""
    channel = AnyChannel(bytes_name)
    rounds = size(40, 3000)

    def take():
        received = []
        while True:
            try:
                with channel.rx.recv_blocking() as view:
                    received.append(channel.unpack(bytes(view)))
            except BusyError:
                time.sleep(0)
            except RecvError:
                return received

    def lose_loops():
        received = []

        async def one():
            with contextlib.suppress(BusyError, RecvError):
                received.append(await channel.recv())

        for _ in range(rounds):
            loop = StepLoop()
            tasks = [loop.create_task(one()) for _ in range(2)]
            loop.run_ready()
            loop.close()
            for task in tasks:
                task._log_destroy_pending = False
        return received

    threads = [spawn(act) for act in (take, take, lose_loops, lose_loops)]
    for number in range(rounds * 5):
        channel.send_blocking(number, timeout=DEADLINE)
    channel.tx.close()
    received = [number for thread in threads for number in thread.join()]
    assert sorted(received) == list(range(rounds * 5))


def test_futures_of_many_loops_are_given_callbacks_by_tasks_and_by_programs_at_once():
    """Each caller has a tuple of keywords of its own: whoever keeps it must not let go of it twice."""
    source = """
import asyncio, threading
from nexus_channels import mpsc
def use():
    loop = asyncio.new_event_loop()
    tx, rx = mpsc.channel(1)
    async def main():
        for _ in range(2000):
            task = asyncio.ensure_future(rx.recv())
            await asyncio.sleep(0)
            task._fut_waiter.add_done_callback(lambda _: None, context=None)
            tx.try_send(1)
            await task
    loop.run_until_complete(main())
    loop.close()
    done.append(loop)
done = []
threads = [threading.Thread(target=use) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done))
"""
    assert run_child(source) == "6\n"
