"""Exactly once, also under cancellation and timeouts: nothing lost, nothing twice, no wake-up dies with its waiter."""

import asyncio
import collections
import threading
import time

import aio
import pytest
from harness import seeded, size, takes_long
from support import DEADLINE, drive, turns, until, until_blocked, until_parked

from nexus_channels import Empty, Full, RecvError, RecvTimeout, SendError, SendTimeout

EVERY_LOOP = True  # see conftest.py


def full_channel(module, capacity=1):
    tx, rx = module.channel(capacity)
    for number in range(capacity):
        tx.try_send(f"buffered {number}")
    return tx, rx


# Pitfall 5: a cancelled waiter eats the wake-up.


def test_pitfall_05_a_cancelled_sender_passes_its_wake_up_on(variant, step_loop):
    tx, rx = full_channel(variant)
    a, b = (step_loop.create_task(tx.send(value)) for value in "ab")
    step_loop.run_ready()
    step_loop.call(rx.try_recv)
    a.cancel()
    step_loop.run_ready()
    assert a.cancelled()
    assert b.done() and b.result() is None
    assert rx.try_recv() == "b"


def test_pitfall_05_a_cancelled_receiver_passes_its_wake_up_on(variant, step_loop):
    tx, rx = variant.channel(1)
    a, b = (step_loop.create_task(rx.recv()) for _ in "ab")
    step_loop.run_ready()
    step_loop.call(tx.try_send, "item")
    a.cancel()
    step_loop.run_ready()
    assert a.cancelled()
    assert b.done() and b.result() == "item"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pitfall_05_the_wake_up_passes_over_any_number_of_cancelled_waiters(variant, step_loop, count):
    tx, rx = variant.channel(1)
    doomed = [step_loop.create_task(rx.recv()) for _ in range(count)]
    last = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    step_loop.call(tx.try_send, "item")
    for task in doomed:
        task.cancel()
        step_loop.step()
    step_loop.run_ready()
    assert last.done() and last.result() == "item"


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_pitfall_05_a_woken_task_that_gives_up_passes_its_wake_up_to_a_thread(threaded, step_loop, spawn, how):
    tx, rx = threaded.channel(1)
    task = step_loop.create_task(rx.recv(timeout=1.0))
    step_loop.run_ready()
    thread = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=2)
    tx.try_send("item")
    if how == "cancelled":
        task.cancel()
    else:
        step_loop.skip(2.0)  # the timer is behind the wake-up, unless that is still in the mailbox
    step_loop.run_ready()
    if task.cancelled() or task.exception() is not None:
        assert thread.join() == "item"
    else:
        assert how == "timed out" and task.result() == "item"
        tx.try_send("another")
        assert thread.join() == "another"


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_pitfall_05_a_woken_sending_task_that_gives_up_passes_its_wake_up_to_a_thread(threaded, step_loop, spawn, how):
    tx, rx = full_channel(threaded)
    task = step_loop.create_task(tx.send("from the task", timeout=1.0))
    step_loop.run_ready()
    thread = spawn(tx.send_blocking, "from the thread")
    until_blocked(tx, senders=2)
    assert rx.try_recv() == "buffered 0"
    if how == "cancelled":
        task.cancel()
    else:
        step_loop.skip(2.0)
    step_loop.run_ready()
    if task.cancelled() or task.exception() is not None:
        thread.join()
        assert rx.try_recv() == "from the thread"
    else:
        assert how == "timed out" and rx.try_recv() == "from the task"
        thread.join()
        assert rx.try_recv() == "from the thread"


def test_pitfall_05_a_cancelled_task_passes_its_wake_up_to_a_task_of_another_loop(
    threaded, step_loop, spawn, loop_factory
):
    tx, rx = threaded.channel(1)
    task = step_loop.create_task(rx.recv())
    step_loop.run_ready()

    def other_loop():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(rx.recv(timeout=DEADLINE))

    thread = spawn(other_loop)
    until_blocked(rx, receivers=2)
    tx.try_send("item")
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    assert thread.join() == "item"


def test_pitfall_05_threads_that_time_out_pass_their_wake_ups_on(threaded, spawn):
    """A short timeout in front of an endless wait: whichever way each race goes, the endless one gets its item."""
    for round_number in range(size(60, 2000)):
        tx, rx = threaded.channel(1)
        short = spawn(_recv_or_none, rx, 0.001)
        if round_number % 2:
            until(lambda rx=rx, short=short: rx.statistics().waiting_receivers or not short.is_alive())
        endless = spawn(rx.recv_blocking)
        time.sleep(0.001 * (round_number % 3) / 2)  # not for a state: to land before, at and after the timeout
        tx.send_blocking(1)
        if short.join() is not None:
            tx.send_blocking(2)
        assert endless.join() in (1, 2)
        assert len(rx) == 0


def _recv_or_none(rx, timeout):
    try:
        return rx.recv_blocking(timeout=timeout)
    except RecvTimeout:
        return None


def test_pitfall_05_sending_threads_that_time_out_pass_their_wake_ups_on(threaded, spawn):
    for round_number in range(size(60, 2000)):
        tx, rx = full_channel(threaded)
        short = spawn(_sent, tx, "short", 0.001)
        if round_number % 2:
            until(lambda tx=tx, short=short: tx.statistics().waiting_senders or not short.is_alive())
        endless = spawn(tx.send_blocking, "endless")
        time.sleep(0.001 * (round_number % 3) / 2)
        received = [rx.recv_blocking()]
        if short.join():
            received.append(rx.recv_blocking())
        endless.join()
        received += rx.try_recv_many(10)
        expected = ["buffered 0", "endless"] + ["short"] * (len(received) - 2)
        assert sorted(received) == sorted(expected)


def _sent(tx, value, timeout):
    try:
        tx.send_blocking(value, timeout=timeout)
    except SendTimeout as error:
        assert error.value == value
        return False
    return True


def test_pitfall_05_room_that_a_cancelled_send_many_was_owed_goes_to_the_next(variant, step_loop):
    tx, rx = full_channel(variant, 2)
    many = step_loop.create_task(tx.send_many("abc"))
    one = step_loop.create_task(tx.send("d"))
    step_loop.run_ready()
    step_loop.call(rx.try_recv_many, 2)
    many.cancel()
    step_loop.run_ready()
    assert many.cancelled()
    assert one.done() and one.result() is None
    assert rx.try_recv() == "d"
    assert len(rx) == 0


def test_pitfall_05_items_that_a_cancelled_recv_many_was_owed_go_to_the_next(variant, step_loop):
    tx, rx = variant.channel(3)
    many = step_loop.create_task(rx.recv_many(3))
    one = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [1, 2, 3])
    many.cancel()
    step_loop.run_ready()
    assert many.cancelled()
    assert one.result() == 1
    assert rx.try_recv_many(5) == [2, 3]


# Pitfall 17: an item handed to a receiver that is cancelled before it runs is lost.


def test_pitfall_17_an_item_for_a_receiver_cancelled_before_it_runs_is_still_there(variant, step_loop):
    tx, rx = variant.channel(1)
    task = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    step_loop.call(tx.try_send, "item")
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    assert rx.statistics().received == 0
    assert rx.try_recv() == "item"


def test_pitfall_17_an_item_for_a_receiver_cancelled_from_another_thread_is_still_there(threaded, step_loop, spawn):
    tx, rx = threaded.channel(1)
    task = step_loop.create_task(rx.recv())
    step_loop.run_ready()

    def send_and_cancel():
        tx.try_send("item")
        step_loop.call_soon_threadsafe(task.cancel)

    spawn(send_and_cancel).join()
    step_loop.wait_ready()
    # The wake-up and the cancellation come in the same tick, in whichever order the loop sees them.
    step_loop.run_ready()
    received = [] if task.cancelled() else [task.result()]
    assert received + rx.try_recv_many(2) == ["item"]


def test_pitfall_17_a_batch_for_a_receiver_cancelled_before_it_runs_is_still_there(variant, step_loop):
    tx, rx = variant.channel(4)
    task = step_loop.create_task(rx.recv_many(4))
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [1, 2, 3])
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    assert rx.try_recv_many(4) == [1, 2, 3]


def test_pitfall_17_an_iteration_cancelled_as_the_item_arrives_loses_nothing(variant, step_loop):
    tx, rx = variant.channel(2)
    seen = []

    async def consume():
        async for item in rx:
            seen.append(item)

    task = step_loop.create_task(consume())
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    step_loop.call(tx.try_send, 2)
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    assert seen + rx.try_recv_many(2) == [1, 2]


def test_pitfall_17_items_of_receivers_in_a_task_group_that_fails_are_still_there(variant, run):
    async def main():
        tx, rx = variant.channel(4)

        async def fail():
            await until_parked(rx, receivers=3)
            tx.try_send_many([1, 2, 3])
            raise LookupError

        with pytest.raises(ExceptionGroup) as raised:
            async with aio.TaskGroup() as group:
                tasks = [group.create_task(rx.recv()) for _ in range(3)]
                group.create_task(fail())
        assert raised.group_contains(LookupError)
        received = [task.result() for task in tasks if not task.cancelled()]
        assert received + rx.try_recv_many(4) == [1, 2, 3]
        assert rx.statistics().waiting_receivers == 0

    run(main())


# Pitfall 18: a send that was cancelled but delivered, or delivered twice.


def test_pitfall_18_a_send_cancelled_as_room_comes_is_not_delivered(variant, step_loop):
    tx, rx = full_channel(variant)
    task = step_loop.create_task(tx.send("cancelled"))
    step_loop.run_ready()
    step_loop.call(rx.try_recv)
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    assert rx.try_recv_many(5) == []
    assert tx.statistics().sent == 1


def test_pitfall_18_a_send_that_went_through_before_the_cancel_returns(variant, step_loop):
    tx, rx = full_channel(variant)
    task = step_loop.create_task(tx.send("delivered"))
    step_loop.run_ready()
    step_loop.call(rx.try_recv)
    step_loop.run_ready()
    assert task.cancel() is False
    assert task.done() and task.result() is None
    assert rx.try_recv_many(5) == ["delivered"]


def test_pitfall_18_a_cancelled_send_many_has_sent_a_prefix(variant, step_loop):
    for received in range(6):
        tx, rx = variant.channel(2)
        task = step_loop.create_task(tx.send_many(range(6)))
        step_loop.run_ready()
        got = []
        for _ in range(received):
            got.append(step_loop.call(rx.try_recv))
            step_loop.run_ready()
        task.cancel()
        step_loop.run_ready()
        got += rx.try_recv_many(10)
        assert got == list(range(min(received + 2, 6)))
        assert task.cancelled() == (received < 4)
        assert tx.statistics().sent == len(got)


def test_pitfall_18_a_send_many_that_fails_tells_exactly_what_was_not_sent(variant, step_loop):
    values = [object() for _ in range(6)]
    tx, rx = variant.channel(2)
    task = step_loop.create_task(tx.send_many(values))
    step_loop.run_ready()
    got = [step_loop.call(rx.try_recv)]
    step_loop.run_ready()
    step_loop.call(rx.close)
    step_loop.run_ready()
    error = task.exception()
    assert isinstance(error, SendError)
    assert got == values[:1]
    assert error.value == values[3:]
    assert tx.statistics().sent == 3


# Pitfall 19: wait_for and timeout in the tick in which the item arrives.


async def _within(seconds, awaitable):
    async with aio.timeout(seconds):
        return await awaitable


WRAPS = {
    "wait_for": lambda call, seconds: aio.wait_for(call(), seconds),
    "aio.timeout": lambda call, seconds: _within(seconds, call()),
    "timeout=": lambda call, seconds: call(timeout=seconds),
}


@pytest.mark.parametrize("first", ["item", "timeout"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_pitfall_19_a_timeout_in_the_tick_in_which_the_item_arrives(variant, step_loop, wrap, first):
    tx, rx = variant.channel(1)
    task = step_loop.create_task(WRAPS[wrap](rx.recv, 1.0))
    step_loop.run_ready()
    events = [lambda: step_loop.call(tx.try_send, "item"), lambda: step_loop.skip(1.0)]
    for event in events if first == "item" else reversed(events):
        event()
    step_loop.run_ready()
    if task.exception() is None:
        assert task.result() == "item"
        assert rx.try_recv_many(2) == []
    else:
        assert isinstance(task.exception(), TimeoutError)
        assert rx.try_recv_many(2) == ["item"]
    assert step_loop.next_timer() is None


@pytest.mark.parametrize("first", ["room", "timeout"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_pitfall_19_a_timeout_in_the_tick_in_which_room_comes(variant, step_loop, wrap, first):
    tx, rx = full_channel(variant)

    def call(**timeout):
        return tx.send("late", **timeout)

    task = step_loop.create_task(WRAPS[wrap](call, 1.0))
    step_loop.run_ready()
    events = [lambda: step_loop.call(rx.try_recv), lambda: step_loop.skip(1.0)]
    for event in events if first == "room" else reversed(events):
        event()
    step_loop.run_ready()
    error = task.exception()
    assert error is None or isinstance(error, TimeoutError)
    assert rx.try_recv_many(2) == (["late"] if error is None else [])
    assert step_loop.next_timer() is None


@pytest.mark.parametrize("wrap", WRAPS)
def test_pitfall_19_a_timeout_and_a_cancel_in_the_same_tick_as_the_item(variant, step_loop, wrap):
    for cancel_first in (False, True):
        tx, rx = variant.channel(1)
        task = step_loop.create_task(WRAPS[wrap](rx.recv, 1.0))
        step_loop.run_ready()
        if cancel_first:
            task.cancel()
        step_loop.call(tx.try_send, "item")
        step_loop.skip(1.0)
        if not cancel_first:
            task.cancel()
        step_loop.run_ready()
        assert task.done()
        received = [] if task.cancelled() or task.exception() else [task.result()]
        assert received + rx.try_recv_many(2) == ["item"]


def test_a_timeout_that_comes_too_early_for_the_item_leaves_it_for_the_next(variant, step_loop):
    tx, rx = variant.channel(1)
    first = step_loop.create_task(rx.recv(timeout=1.0))
    second = step_loop.create_task(rx.recv(timeout=2.0))
    step_loop.advance(1.0)
    assert isinstance(first.exception(), RecvTimeout)
    assert not second.done()
    step_loop.call(tx.try_send, "item")
    step_loop.run_ready()
    assert second.result() == "item"
    assert step_loop.next_timer() is None


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_timeout_zero_is_a_try(variant, timeout):
    tx, rx = variant.channel(1)
    with pytest.raises(Empty):
        drive(rx.recv(timeout=timeout))
    drive(tx.send("first", timeout=timeout))
    with pytest.raises(Full) as raised:
        drive(tx.send("second", timeout=timeout))
    assert raised.value.value == "second"
    assert drive(rx.recv(timeout=timeout)) == "first"
    assert tx.statistics() == (1, 0, 1, 1, 0, 0, 1, 1)


def test_a_timeout_of_infinity_waits_for_ever_and_sets_no_timer(variant, step_loop):
    tx, rx = variant.channel(1)
    task = step_loop.create_task(rx.recv(timeout=float("inf")))
    step_loop.run_ready()
    assert step_loop.next_timer() is None
    step_loop.advance(1e9)
    assert not task.done()
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert task.result() == 1


# Other ways to stop waiting


def test_a_parked_awaitable_that_is_closed_leaves_the_line(variant, step_loop):
    """As a task's coroutine is when the task is destroyed while pending."""
    tx, rx = variant.channel(1)
    awaitable = rx.recv()
    assert step_loop.call(awaitable.send, None) is not None
    behind = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    assert rx.statistics().waiting_receivers == 2
    awaitable.close()
    assert rx.statistics().waiting_receivers == 1
    step_loop.call(tx.try_send, "item")
    step_loop.run_ready()
    assert behind.result() == "item"


def test_a_parked_awaitable_that_is_dropped_leaves_the_line(variant, step_loop):
    tx, rx = variant.channel(1)
    awaitable = rx.recv()
    step_loop.call(awaitable.send, None)
    behind = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    step_loop.call(tx.try_send, "item")
    del awaitable  # after it was woken
    step_loop.run_ready()
    assert behind.done() and behind.result() == "item"


def test_a_parked_send_that_is_dropped_sends_nothing_and_frees_its_value(variant, step_loop):
    tx, rx = full_channel(variant)
    freed = []

    class Value:
        def __del__(self):
            freed.append(True)

    awaitable = tx.send(Value())
    step_loop.call(awaitable.send, None)
    assert tx.statistics().waiting_senders == 1
    del awaitable
    assert freed == [True]
    assert tx.statistics().waiting_senders == 0
    assert rx.try_recv_many(3) == ["buffered 0"]


def test_an_exception_thrown_into_a_parked_wait_comes_out_and_takes_nothing(variant, step_loop):
    tx, rx = variant.channel(1)
    awaitable = rx.recv()
    step_loop.call(awaitable.send, None)
    step_loop.call(tx.try_send, "item")
    with pytest.raises(LookupError):
        step_loop.call(awaitable.throw, LookupError())
    assert rx.statistics().waiting_receivers == 0
    assert rx.try_recv() == "item"


@pytest.mark.asyncio_only("a cancellation by trio is not taken back")
def test_a_cancel_request_that_the_task_takes_back_costs_nothing(variant, run):
    """The task catches the cancellation of one receive and receives again."""

    async def main():
        tx, rx = variant.channel(1)
        caught = []

        async def stubborn():
            while True:
                try:
                    return await rx.recv()
                except asyncio.CancelledError:
                    caught.append(True)
                    asyncio.current_task().uncancel()

        task = aio.create_task(stubborn())
        for _ in range(5):
            await until_parked(rx, receivers=1)
            task.cancel()
            await turns(2)
        tx.try_send("item")
        task.cancel()
        assert await task == "item"
        assert len(caught) == 6

    run(main())


# Random cancellations and timeouts, with exact accounting


class Accounts:
    """What sends and receives returned. Values are unique; appending is atomic."""

    def __init__(self):
        self.sent = collections.deque()
        self.received = collections.deque()
        self.gave_up = collections.Counter()

    def check(self, rx, buffered):
        sent, received = sorted(self.sent), sorted([*self.received, *buffered])
        assert len(set(received)) == len(received), "received twice"
        assert sent == received
        stats = rx.statistics()
        assert (stats.sent, stats.received) == (len(sent), len(received))
        assert (stats.buffered, stats.waiting_senders, stats.waiting_receivers) == (0, 0, 0)


@takes_long()
def test_random_cancellations_and_timeouts_on_a_stepped_loop_lose_nothing(variant, step_loop):
    """Every choice comes from the seed, so that a failure repeats exactly."""
    random = seeded("stepped cancellations")
    loop = step_loop
    accounts = Accounts()
    wanted = size(20_000, 200_000)
    capacity = random.randint(1, 3)
    tx, rx = variant.channel(capacity)
    tasks = {}
    value = 0

    def start():
        nonlocal value
        value += 1
        timeout = random.choice([None, None, 0, 1.0, 2.0])
        wait_for = random.choice([None, None, 1.0, 2.0])
        if random.random() < 0.5:
            call, sent = tx.send(value, timeout=timeout), value
        else:
            call, sent = rx.recv(timeout=timeout), None
        tasks[loop.create_task(call if wait_for is None else aio.wait_for(call, wait_for))] = sent

    def account():
        for task in [task for task in tasks if task.done()]:
            sent = tasks.pop(task)
            if task.cancelled():
                accounts.gave_up["cancelled"] += 1
            elif (error := task.exception()) is not None:
                assert isinstance(error, TimeoutError), error
                accounts.gave_up["timed out"] += 1
            elif sent is None:
                accounts.received.append(task.result())
            else:
                accounts.sent.append(sent)

    while sum(accounts.gave_up.values()) < wanted:
        for _ in range(random.randint(1, 4)):
            start()
        for _ in range(random.randint(0, 3)):
            random.choice([loop.step, loop.tick, lambda: loop.skip(0.5)])()
            if tasks and random.random() < 0.7:
                random.choice(list(tasks)).cancel()
        if random.random() < 0.1:
            loop.run_ready()
            stats = rx.statistics()
            assert not (stats.waiting_receivers and stats.buffered)
            assert not (stats.waiting_senders and stats.buffered < capacity)
        account()
    for task in tasks:
        task.cancel()
    loop.run_ready()
    account()
    assert not tasks
    accounts.check(rx, _drained(rx))


def _drained(rx):
    received = []
    while True:
        try:
            received.append(rx.try_recv())
        except (Empty, RecvError):
            return received


@takes_long()
def test_random_cancellations_and_timeouts_between_tasks_and_threads_lose_nothing(threaded, spawn, loop_factory):
    """Tasks that are cancelled and time out on a loop, and threads that time out, on both ends of one channel."""
    random = seeded("mixed cancellations")
    accounts = Accounts()
    wanted = size(3_000, 200_000)
    tx, rx = threaded.channel(random.randint(1, 3))
    stop = threading.Event()
    timeouts = [0, 1e-6, 1e-5, 1e-4, 1e-3]

    def gave_up(why):
        accounts.gave_up[why] += 1
        if sum(accounts.gave_up.values()) >= wanted:
            stop.set()

    def sending_thread(values, random):
        for value in values:
            if stop.is_set():
                break
            try:
                tx.send_blocking(value, timeout=random.choice(timeouts))
            except Full as error:
                assert error.value == value
                gave_up("thread send")
            else:
                accounts.sent.append(value)

    def receiving_thread(random):
        while not stop.is_set():
            try:
                accounts.received.append(rx.recv_blocking(timeout=random.choice(timeouts)))
            except Empty:
                gave_up("thread recv")

    async def sending_task(values, random):
        for value in values:
            if stop.is_set():
                break
            task = aio.create_task(tx.send(value, timeout=random.choice([None, 1e-4])))
            if await _end_somehow(task, random, gave_up):
                accounts.sent.append(value)

    async def receiving_task(random):
        while not stop.is_set():
            task = aio.create_task(rx.recv(timeout=random.choice([None, 1e-4])))
            if await _end_somehow(task, random, gave_up):
                accounts.received.append(task.result())

    async def main(seed):
        rng = type(random)(seed)
        await aio.gather(
            sending_task(range(1, 10**9, 4), rng),
            sending_task(range(2, 10**9, 4), rng),
            receiving_task(rng),
            receiving_task(rng),
        )

    def run_loop(seed):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(seed))

    new = type(random)
    threads = [
        spawn(run_loop, random.random()),
        spawn(sending_thread, range(3, 10**9, 4), new(random.random())),
        spawn(receiving_thread, new(random.random())),
    ]
    for thread in threads:
        while thread.is_alive():  # longer than a deadline in the stress suite; the watchdog looks after it
            thread._thread.join(1)
        thread.join()
    print(dict(accounts.gave_up), len(accounts.sent), "sent")
    accounts.check(rx, _drained(rx))


async def _end_somehow(task, random, gave_up):
    """Let the task run a little, then cancel it, or time it out; tell whether it returned."""
    for _ in range(random.randint(0, 3)):
        await aio.sleep(0)
    if random.random() < 0.8:
        task.cancel()
    await aio.wait([task], timeout=random.choice([0.0001, 0.001]))
    task.cancel()
    await aio.wait([task])
    if task.cancelled():
        gave_up("cancelled")
        return False
    if task.exception() is not None:
        assert isinstance(task.exception(), TimeoutError), task.exception()
        gave_up("timed out")
        return False
    return True
