"""Waiting on byte channels: who is woken by what, in which order, by size; and all orders of events within one tick."""

import asyncio
import contextlib
import itertools
import threading

import aio
import pytest
from harness import seeded, size, takes_long
from steploop import StepLoop
from support import collect, drive, in_thread, until, until_blocked, until_parked

from nexus_channels import (
    BusyError,
    ClaimDisconnected,
    ClaimFull,
    ClaimTimeout,
    Disconnected,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
    mpsc_bytes,
)

EVERY_LOOP = True  # see conftest.py

HEADER = 8


def extent(length):
    return HEADER + (length + 7) // 8 * 8


def wait(loop, *awaitables):
    """Tasks that have taken their places in line, in this order."""
    tasks = [loop.create_task(awaitable) for awaitable in awaitables]
    loop.run_ready()
    assert not any(task.done() for task in tasks)
    return tasks


def done(tasks):
    return [task.done() for task in tasks]


# The deadlock of pitfall 4


@pytest.mark.parametrize("end", ["drop", "abort"])
def test_pitfall_04_a_dropped_claim_wakes_the_receiver_whose_look_makes_room_for_the_next(bytes_variant, run, end):
    tx, rx = bytes_variant.channel(64)

    async def main():
        receiving = aio.create_task(rx.recv_bytes())
        await until_parked(tx, receivers=1)
        claim = await tx.claim(40)
        if end == "abort":
            claim.abort()
        del claim
        async with tx.claim(40) as view:
            view[:] = b"4" * 40
        assert await receiving == b"4" * 40

    run(main())


def test_pitfall_04_between_threads(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    receiving = spawn(lambda: [rx.recv_bytes_blocking() for _ in range(100)])

    def produce():
        for number in range(100):
            tx.claim_blocking(40)  # dropped
            with tx.claim_blocking(40) as view:
                view[:] = bytes([number]) * 40

    until_blocked(rx, receivers=1)
    spawn(produce).join()
    assert receiving.join() == [bytes([number]) * 40 for number in range(100)]


def test_pitfall_03_the_space_is_free_when_the_sender_is_woken(bytes_variant, step_loop):
    """One look must do: the woken claim takes the whole ring."""
    tx, rx = bytes_variant.channel(64)
    for _ in range(5):
        tx.try_send(b"f" * 56)
        (task,) = wait(step_loop, tx.claim(56))
        claim = rx.try_recv()
        step_loop.run_ready()
        assert not task.done()
        step_loop.call(claim.release)
        step_loop.run_ready()
        assert task.done()
        task.result().abort()
        del task
        with pytest.raises(Empty):
            rx.try_recv()


# By size


def test_a_sender_is_woken_when_its_own_size_fits(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"12345678"] * 4)
    (task,) = wait(step_loop, tx.claim(40))
    for _ in range(2):
        step_loop.call(rx.try_recv_bytes)
        assert step_loop.pending() == 0, "woken although it does not fit yet"
        assert not task.done()
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert len(task.result()) == 40


def test_pitfall_07_freeing_one_big_record_wakes_as_many_as_fit_in_their_order(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = wait(step_loop, *(tx.send(b"%d" % number) for number in range(6)))
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert done(tasks) == [True] * 4 + [False] * 2
    assert step_loop.call(rx.try_recv_many, 2) == [b"0", b"1"]
    step_loop.run_ready()
    assert done(tasks) == [True] * 6
    assert rx.try_recv_many(9) == [b"2", b"3", b"4", b"5"]


def test_pitfall_07_a_claim_that_is_shrunk_lets_the_next_in(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = wait(step_loop, tx.claim(56), tx.send(b"behind"))
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert done(tasks) == [True, False]
    step_loop.call(tasks[0].result().commit, 8)
    step_loop.run_ready()
    if bytes_variant is mpsc_bytes:  # the rest is a skip, which the receiver has to step over
        assert len(step_loop.call(rx.try_recv_bytes)) == 8
        with pytest.raises(Empty):
            step_loop.call(rx.try_recv_bytes)
        step_loop.run_ready()
        assert done(tasks) == [True, True]
        assert rx.try_recv_bytes() == b"behind"
    else:
        assert done(tasks) == [True, True]
        assert [len(message) for message in rx.try_recv_many(9)] == [8, 6]


def test_a_small_sender_does_not_overtake_a_big_one_that_waits(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"f" * 24] * 2)
    big, small = wait(step_loop, tx.send(b"b" * 56), tx.send(b"s"))
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert done([big, small]) == [False, False]
    with pytest.raises(Full):
        step_loop.call(tx.try_send, b"t")
    with pytest.raises(ClaimFull):
        step_loop.call(tx.try_claim, 1)
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert done([big, small]) == [True, False]
    assert step_loop.call(rx.try_recv_bytes) == b"b" * 56
    step_loop.run_ready()
    assert rx.try_recv_bytes() == b"s"


def test_a_big_sender_is_not_starved_by_small_ones(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    order = []

    async def small(number):
        await tx.send(b"%d" % number)

    async def big():
        await tx.send(b"B" * 56)

    async def main():
        tx.try_send(b"f" * 56)
        async with aio.TaskGroup() as group:
            for number in range(20):
                group.create_task(small(number))
            await until_parked(tx, senders=20)
            group.create_task(big())
            await until_parked(tx, senders=21)
            for number in range(20, 40):
                group.create_task(small(number))
            await until_parked(tx, senders=41)
            for _ in range(42):
                order.append(await rx.recv_bytes())

    run(main())
    assert order[1:] == [b"%d" % n for n in range(20)] + [b"B" * 56] + [b"%d" % n for n in range(20, 40)]


def test_a_later_send_goes_ahead_only_while_there_is_more_room_than_the_waiting_take(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(128)
    tx.try_send_many([b"f" * 56] * 2)
    (task,) = wait(step_loop, tx.send(b"w" * 24))  # 32 bytes with its header
    assert len(step_loop.call(rx.try_recv_bytes)) == 56  # 64 bytes are free, 32 of them owed
    with pytest.raises(Full):
        step_loop.call(tx.try_send, b"x" * 32)
    step_loop.call(tx.try_send, b"y" * 24)
    with pytest.raises(Full):
        step_loop.call(tx.try_send, b"z")
    step_loop.run_ready()
    assert task.done()
    assert rx.try_recv_many(9)[1:] == [b"y" * 24, b"w" * 24]


def test_waiting_senders_of_clones_go_in_the_order_they_came(step_loop):
    tx, rx = mpsc_bytes.channel(64)
    senders = [tx, tx.clone(), tx.clone()]
    tx.try_send(b"f" * 56)
    wait(step_loop, *(senders[number % 3].send(b"%d" % number * 20) for number in range(9)))
    received = []
    while len(received) < 10:
        received.append(step_loop.call(rx.try_recv_bytes))
        step_loop.run_ready()
    assert [message[:1] for message in received[1:]] == [b"%d" % number for number in range(9)]


def test_waiting_threads_of_different_sizes_go_in_the_order_they_came(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    threads = []
    lengths = [56, 30, 40, 33, 56, 50]  # one at a time: those called together run in any order
    for waiting, length in enumerate(lengths, 1):
        threads.append(spawn(tx.send_blocking, bytes([waiting]) * length))
        until_blocked(rx, senders=waiting)
    received = [rx.recv_bytes_blocking() for _ in range(7)]
    assert received[1:] == [bytes([number]) * length for number, length in enumerate(lengths, 1)]
    for thread in threads:
        thread.join()


def test_one_release_wakes_several_threads(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    threads = []
    for number in range(4):
        threads.append(spawn(tx.send_blocking, b"%d" % number))
        until_blocked(rx, senders=number + 1)
    rx.try_recv().release()
    for thread in threads:
        thread.join()
    assert sorted(rx.try_recv_many(9)) == [b"0", b"1", b"2", b"3"]


def test_waiting_receives_of_every_form_are_served_in_the_order_they_came(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(128)
    target = bytearray(8)
    tasks = wait(step_loop, rx.recv_bytes(), rx.recv_into(target), rx.recv_many(1), rx.recv(), rx.recv_bytes())
    for number in range(5):
        step_loop.call(tx.try_send, b"%d" % number)
    step_loop.run_ready()
    assert done(tasks) == [True] * 4 + [False]  # the fourth has borrowed the receiver
    assert tasks[0].result() == b"0"
    assert (tasks[1].result(), bytes(target[:1])) == (1, b"1")
    assert tasks[2].result() == [b"2"]
    step_loop.call(tasks[3].result().release)
    step_loop.run_ready()
    assert tasks[4].result() == b"4"


def test_pitfall_40_a_cancelled_claim_passes_the_room_on(bytes_variant, step_loop):
    """Pitfall 5 for sizes: the first is called and cancelled in the same tick; what it was owed fits two others."""
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = wait(step_loop, tx.claim(56), tx.send(b"a" * 24), tx.send(b"b" * 24))
    step_loop.call(rx.try_recv_bytes)
    tasks[0].cancel()
    step_loop.run_ready()
    assert tasks[0].cancelled()
    assert done(tasks) == [True] * 3
    assert rx.try_recv_many(9) == [b"a" * 24, b"b" * 24]


def test_pitfall_40_a_big_sender_that_gives_up_lets_the_small_ones_behind_it_in(bytes_variant, step_loop):
    for way in ("cancel", "timeout"):
        tx, rx = bytes_variant.channel(64)
        tx.try_send(b"f" * 24)
        big, small = wait(step_loop, tx.claim(56, timeout=1.0), tx.send(b"small"))
        if way == "cancel":
            big.cancel()
            step_loop.run_ready()
        else:
            step_loop.advance(1.0)
            assert type(big.exception()) is ClaimTimeout
        assert small.done()
        assert rx.try_recv_many(9) == [b"f" * 24, b"small"]


def test_a_thread_that_gives_up_lets_the_small_ones_behind_it_in(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 24)
    big = spawn(tx.claim_blocking, 56, 0.5)
    until_blocked(rx, senders=1)
    small = spawn(tx.send_blocking, b"small")
    with pytest.raises(ClaimTimeout):
        big.join()
    small.join()
    assert rx.try_recv_many(9) == [b"f" * 24, b"small"]


@pytest.mark.parametrize("end", ["tx", "rx"])
def test_close_wakes_everybody(bytes_variant, step_loop, spawn, end):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = wait(step_loop, tx.claim(8), tx.send(b"x"), tx.send_many([b"y", b"z"]))
    threads = [spawn(tx.claim_blocking, 8), spawn(tx.send_blocking, b"x")]
    until_blocked(rx, senders=5)
    (tx if end == "tx" else rx).close()
    step_loop.run_ready()
    expected = EndpointClosed if end == "tx" else Disconnected
    for task in tasks:
        assert isinstance(task.exception(), expected)
    for thread in threads:
        with pytest.raises(expected):
            thread.join()


def test_the_receivers_close_reaches_who_was_put_off_for_a_claim(bytes_variant, step_loop):
    """Called, and then the sender was lent: it need not wait for that claim's end to learn that nobody reads."""
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 48)
    tasks = wait(step_loop, tx.claim(8), tx.send(b"x"))
    assert len(rx.try_recv_bytes()) == 48  # its loop has not looked yet
    claim = tx.try_claim(8)
    step_loop.run_ready()
    assert not any(task.done() for task in tasks)
    rx.close()
    step_loop.run_ready()
    for task in tasks:
        assert isinstance(task.exception(), Disconnected)
    with pytest.raises(ClaimDisconnected):
        claim.commit()


@pytest.mark.parametrize("end", ["tx", "rx"])
def test_close_wakes_every_receiver(bytes_variant, step_loop, spawn, end):
    tx, rx = bytes_variant.channel(64)
    tasks = wait(step_loop, rx.recv(), rx.recv_bytes(), rx.recv_into(bytearray(8)), rx.recv_many(2))
    threads = [spawn(rx.recv_blocking), spawn(rx.recv_many_blocking, 2), spawn(next, iter(rx), "end")]
    until_blocked(tx, receivers=7)
    (tx if end == "tx" else rx).close()
    step_loop.run_ready()
    expected = RecvError if end == "tx" else EndpointClosed
    for task in tasks:
        assert type(task.exception()) is expected
    for thread in threads[:2]:
        with pytest.raises(expected):
            thread.join()
    if end == "tx":
        assert threads[2].join() == "end"
    else:
        with pytest.raises(EndpointClosed):
            threads[2].join()


def test_pitfall_11_the_last_message_before_a_close_arrives(bytes_variant, spawn):
    pairs = [bytes_variant.channel(64) for _ in range(size(500, 20_000))]
    barrier = threading.Barrier(2)

    def send_and_close():
        barrier.wait(20)
        for number, (tx, _rx) in enumerate(pairs):
            claim = tx.try_claim(8)
            claim[:] = b"%08d" % number
            if number % 2:
                claim.commit()
                tx.close()
            else:
                tx.close()
                claim.commit()

    sending = spawn(send_and_close)
    barrier.wait(20)
    for number, (_tx, rx) in enumerate(pairs):
        assert [bytes(claim) for claim in rx] == [b"%08d" % number]
    sending.join()


# Cancelled and timed out at random, accounted for exactly


def test_random_cancellations_and_timeouts_are_accounted_for_exactly(bytes_variant, run):
    chosen = seeded(f"cancelled waits {bytes_variant.__name__}")
    tx, rx = bytes_variant.channel(128)
    counts = {"sent": 0, "received": 0}
    numbers = itertools.count()

    async def send():
        data = b"%d " % next(numbers) + b"x" * chosen.randrange(110)
        timeout = chosen.choice([None, None, 0, 0.0005])
        with contextlib.suppress(SendTimeout, BusyError):
            if chosen.random() < 0.5:
                await tx.send(data, timeout)
            else:
                claim = await tx.claim(len(data), timeout)
                claim[:] = data
                claim.commit()
            counts["sent"] += len(data)

    async def receive():
        timeout = chosen.choice([None, None, 0, 0.0005])
        with contextlib.suppress(RecvTimeout, BusyError):
            if chosen.random() < 0.5:
                data = await rx.recv_bytes(timeout)
                counts["received"] += len(data)
            else:
                with await rx.recv(timeout) as view:
                    counts["received"] += len(view)

    async def main():
        tasks = set()
        for _ in range(size(4_000, 200_000)):
            task = aio.create_task(send() if chosen.random() < 0.5 else receive())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if tasks and chosen.random() < 0.4:
                chosen.choice(tuple(tasks)).cancel()
            if chosen.random() < 0.3 or len(tasks) > 20:
                await aio.sleep(0)
            if len(tasks) > 60:
                for task in tasks:
                    task.cancel()
                await aio.sleep(0)
        for task in tasks:
            task.cancel()
        await aio.gather(*tasks, return_exceptions=True)

    run(main())
    left = sum(len(message) for message in rx.try_recv_many(1000))
    assert counts["sent"] == counts["received"] + left
    assert rx.used == 0
    stats = rx.statistics()
    assert (stats.waiting_senders, stats.waiting_receivers) == (0, 0)
    assert counts["sent"] > 1000


def test_threads_that_time_out_at_random_are_accounted_for_exactly(bytes_variant, spawn):
    rounds = size(300, 20_000)
    tx, rx = bytes_variant.channel(128)

    def produce(seed):
        chosen, sent = seeded(f"producer {seed}"), 0
        for _ in range(rounds):
            length = chosen.randint(1, 100)
            with contextlib.suppress(SendTimeout, BusyError):
                tx.send_blocking(b"x" * length, timeout=chosen.choice([0, 0.0001, 0.001]))
                sent += length
        return sent

    def consume(seed):
        chosen, received = seeded(f"consumer {seed}"), 0
        with contextlib.suppress(RecvError):
            while True:
                with contextlib.suppress(RecvTimeout, BusyError):
                    received += len(rx.recv_bytes_blocking(timeout=chosen.choice([0.0001, 0.001])))
        return received

    producers = [spawn(produce, number) for number in range(2)]
    consumers = [spawn(consume, number) for number in range(2)]
    sent = sum(thread.join() for thread in producers)
    tx.close()
    assert sent == sum(thread.join() for thread in consumers)
    assert rx.used == 0


def test_tasks_and_threads_wait_on_one_sender_together(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)

    async def main():
        async with aio.TaskGroup() as group:
            group.create_task(tx.send(b"0" * 50))
            await until_parked(rx, senders=1)
            group.create_task(in_thread(tx.send_blocking, b"1" * 50))
            await until_parked(rx, senders=2)
            group.create_task(tx.send(b"2" * 50))
            await until_parked(rx, senders=3)
            return [(await rx.recv_bytes())[:1] for _ in range(4)]

    assert run(main()) == [b"f", b"0", b"1", b"2"]


# All orders of events within one tick

TIMEOUT = 1.0
EVENTS = ("claim", "commit", "abort", "drop", "cancel", "timeout", "recv", "release", "close_tx", "close_rx")
MODES = ["from a task", "from a callback", "off the loop", "one step between"]
IN_TASK = asyncio.Future  # what asyncio takes for the current task may be any object


class World:
    """A ring of 64 bytes with two tasks that wait; claims that anybody was given lie in `writes` and `reads`."""

    def __init__(self, module, loop, side, lengths):
        self.loop = loop
        self.module = module
        self.tx, self.rx = module.channel(64)
        self.other = self.tx.clone() if module is mpsc_bytes else self.tx
        self.names = itertools.count(1)
        self.writes = []  # (claim, name), oldest first
        self.reads = []
        self.sent = []
        self.got = []
        self.by_line = []  # names of those that waited to send, in line
        self.must_end_cancelled = set()
        self.may_end_cancelled = set()
        self.receiver_closed = False
        if side == "senders":
            self.try_send(56)
            waits = [self.claim_and_keep(lengths[0]), self.send(lengths[1])]
        else:
            waits = [self.recv_and_keep(), self.recv_bytes()]
        self.lengths = lengths if side == "senders" else None
        self.tasks = wait(loop, *waits)

    # What the tasks do; what a task was given, it has noted before anything else runs

    async def claim_and_keep(self, length):
        name = next(self.names)
        self.by_line.append(name)
        claim = await self.tx.claim(length, timeout=TIMEOUT)
        self.writes.append((claim, name))

    async def send(self, length):
        name = next(self.names)
        self.by_line.append(name)
        await self.other.send(bytes([name]) * length)
        self.sent.append(name)

    async def recv_and_keep(self):
        claim = await self.rx.recv(timeout=TIMEOUT)
        self.reads.append(claim)

    async def recv_bytes(self):
        self.take(await self.rx.recv_bytes())

    def take(self, data):
        name = bytes(data)[0]
        assert set(bytes(data)) == {name}, "torn"
        self.got.append(name)

    # Events

    def try_send(self, length):
        name = next(self.names)
        self.tx.try_send(bytes([name]) * length)
        self.sent.append(name)

    def claim(self):
        with contextlib.suppress(ClaimFull, BusyError, EndpointClosed, ClaimDisconnected):
            claim = self.other.try_claim(20)
            self.writes.append((claim, next(self.names)))

    def commit(self):
        if self.writes:
            claim, name = self.writes.pop(0)
            claim[:] = bytes([name]) * len(claim)
            try:
                claim.commit()
                assert not self.receiver_closed
                self.sent.append(name)
            except ClaimDisconnected:
                assert self.receiver_closed

    def abort(self):
        if self.writes:
            self.writes.pop(0)[0].abort()

    def drop(self):
        if self.writes:
            del self.writes[0]

    def recv(self):
        with contextlib.suppress(Empty, BusyError, RecvError, EndpointClosed):
            self.reads.append(self.rx.try_recv())

    def release(self):
        if self.reads:
            claim = self.reads.pop(0)
            self.take(claim)
            claim.release()

    def cancel(self):
        if not self.tasks[0].done():
            self.may_end_cancelled.add(self.tasks[0])
        if self.tasks[0].cancel():  # under asyncio that is the same; see aio.TrioTask.cancel
            self.must_end_cancelled.add(self.tasks[0])

    def close_tx(self):
        self.tx.close()
        self.other.close()

    def close_rx(self):
        self.receiver_closed = True
        self.rx.close()

    # Accounting

    def check_settled(self):
        """Nothing is ready on the loop: nobody waits whose condition holds."""
        stats = self.rx.statistics()
        pending = [task for task in self.tasks if not task.done()]
        senders, receivers = (len(pending), 0) if self.lengths else (0, len(pending))
        assert (stats.waiting_senders, stats.waiting_receivers) == (senders, receivers)
        if not pending:
            return
        if senders:
            first = self.tasks.index(pending[0])
            endpoint = (self.tx, self.other)[first]
            lent = any(endpoint_of(claim, self) is endpoint for claim in self.writes)
            room = 64 - self.rx.used
            assert not self.receiver_closed and not self.tx.is_closed
            assert lent or room < extent(self.lengths[first]), "waits although there is room"
        else:
            assert not self.receiver_closed
            dump = self.rx._dump()
            assert self.reads or not dump or dump[0][1] == "claimed", "waits although there is something"
            if self.tx.is_closed and not self.reads:
                assert self.writes, "waits although all is over"

    def drain(self):
        """End the claims, receive all; whoever waits gets what it waits for."""
        for _ in range(20):
            while self.writes:
                self.loop.call(self.commit)
                self.loop.run_ready()
            while self.reads:
                self.loop.call(self.release)
                self.loop.run_ready()
            self.loop.call(self.recv)
            self.loop.run_ready()
        assert not self.writes and not self.reads
        if self.lengths:
            assert all(done(self.tasks))
        assert self.rx.used == 0

    def finish(self):
        self.loop.call(self.close_tx)
        was_closed = self.receiver_closed
        self.loop.call(self.close_rx)
        self.loop.run_ready()
        assert all(done(self.tasks))
        assert self.loop.next_timer() is None, "a wait that ended left its timer behind"
        for task in self.tasks:
            if task.cancelled():
                assert task in self.may_end_cancelled
                continue
            assert task not in self.must_end_cancelled, "a cancelled task went on as if nothing had been"
            assert isinstance(
                task.exception(), (type(None), SendError, RecvError, EndpointClosed, ClaimTimeout, RecvTimeout)
            )
        assert len(set(self.got)) == len(self.got), "received twice"
        if was_closed:
            assert set(self.got) <= set(self.sent)
        else:
            assert sorted(self.got) == sorted(self.sent)
        in_line = [name for name in self.got if name in self.by_line]
        assert in_line == sorted(in_line), "senders were not served in line"
        stats = self.rx.statistics()
        assert (stats.buffered, stats.open_senders, stats.open_receivers) == (0, 0, 0)


def endpoint_of(write, world):
    """Which sender a claim borrows: the task's, or the one that `claim` uses."""
    return world.tx if world.tx is world.other or write[1] in world.by_line else world.other


def call_in_task(loop, function):
    """Call `function` as if a task of the loop did: wake-ups then need no detour."""
    if loop.kind == "trio":
        return loop.call_in_task(function)

    def call():
        asyncio.tasks._enter_task(loop, IN_TASK)
        try:
            return function()
        finally:
            asyncio.tasks._leave_task(loop, IN_TASK)

    return loop.call(call)


def play(world, order, mode):
    loop = world.loop
    for event in order:
        if event == "timeout":
            loop.skip(TIMEOUT)
            continue
        action = getattr(world, event)
        if mode == "off the loop":
            action()
        elif mode == "from a callback":
            loop.call(action)
        else:
            call_in_task(loop, action)
        if mode == "one step between":
            loop.step()
    loop.run_ready()
    world.check_settled()
    world.drain()
    world.finish()


def play_all(module, loop, side, lengths, mode, orders):
    for order in orders:
        try:
            play(World(module, loop, side, lengths), order, mode)
            assert loop.errors == []
        except AssertionError as error:
            error.add_note(f"{side} wait, {lengths}, {mode}: {', '.join(order)}")
            raise
        finally:
            loop.skip(10 * TIMEOUT)
            loop.run_ready()


def orders_up_to(length):
    return [order for count in range(length + 1) for order in itertools.permutations(EVENTS, count)]


@takes_long()
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("side", "lengths"),
    [("senders", (24, 24)), ("senders", (56, 1)), ("senders", (8, 56)), ("receivers", None)],
    ids=["two halves wait", "big before small waits", "small before big waits", "receivers wait"],
)
def test_every_order_of_events_in_one_tick_is_accounted_for_exactly(bytes_variant, step_loop, side, lengths, mode):
    play_all(bytes_variant, step_loop, side, lengths, mode, orders_up_to(size(3, 5)))


@takes_long()
@pytest.mark.parametrize("side", ["senders", "receivers"])
def test_every_order_of_events_is_accounted_for_on_a_loop_without_readers(bytes_variant, side):
    loop = StepLoop(readers=False)
    play_all(bytes_variant, loop, side, (24, 24), "off the loop", orders_up_to(size(2, 4)))
    loop.close()


# Programs of repeated events: each letter is one, a dot is a step of the loop

LETTERS = {
    "k": "claim",
    "c": "commit",
    "d": "drop",
    "r": "recv",
    "l": "release",
    "X": "cancel",
    ".": None,
}


@takes_long()
@pytest.mark.parametrize("side", ["senders", "receivers"])
def test_every_short_program_is_accounted_for_exactly(bytes_variant, step_loop, side):
    for program in itertools.product(LETTERS, repeat=size(3, 6)):
        world = World(bytes_variant, step_loop, side, (24, 24))
        try:
            for letter in program:
                if letter == ".":
                    step_loop.step()
                else:
                    call_in_task(step_loop, getattr(world, LETTERS[letter]))
            step_loop.run_ready()
            world.check_settled()
            world.drain()
            world.finish()
        except AssertionError as error:
            error.add_note(f"{side} wait: {''.join(program)}")
            raise


# What is left behind


def test_a_wait_that_is_dropped_by_hand_leaves_the_line(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    dropped = tx.claim(56)
    step_loop.call(dropped.send, None)
    (behind,) = wait(step_loop, tx.send(b"behind"))
    step_loop.call(rx.try_recv_bytes)
    del dropped
    collect()
    step_loop.run_ready()
    assert behind.done()
    assert rx.try_recv_bytes() == b"behind"


def test_a_finished_wait_leaves_no_timer_and_no_place_behind(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    (task,) = wait(step_loop, tx.claim(8, timeout=5))
    assert step_loop.next_timer() is not None
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    assert task.done()
    assert step_loop.next_timer() is None
    assert rx.statistics().waiting_senders == 0


def test_a_claim_ready_at_once_needs_no_loop(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = drive(tx.claim(5))
    claim[:] = b"ready"
    claim.commit()
    assert bytes(drive(rx.recv())) == b"ready"


def test_blocked_senders_wake_on_the_release_of_another_thread(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    claim = rx.try_recv()
    sending = spawn(tx.send_blocking, b"s" * 56)
    until_blocked(rx, senders=1)
    spawn(claim.release).join()
    sending.join()
    until(lambda: rx.used == 64)
    assert rx.try_recv_bytes() == b"s" * 56
