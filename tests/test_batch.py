"""Many items a call: what goes, what comes, what is left over."""

import asyncio
import gc
import sys
import weakref

import pytest
from support import Counted, Item, collect, drive, in_thread, turns, until_blocked, until_parked

from nexus_channels import Empty, EndpointClosed, Full, RecvError, RecvTimeout, SendError, SendTimeout

ITERABLES = {
    "list": lambda: [1, 2, 3],
    "tuple": lambda: (1, 2, 3),
    "range": lambda: range(1, 4),
    "generator": lambda: (number for number in (1, 2, 3)),
    "dict": lambda: {1: "a", 2: "b", 3: "c"},
    "dict values": lambda: {"a": 1, "b": 2, "c": 3}.values(),
    "bytes": lambda: bytes([1, 2, 3]),
    "map": lambda: map(int, "123"),
    "iterator": lambda: iter([1, 2, 3]),
}
SEQUENCES = ["list", "tuple", "range", "bytes"]
iterables = pytest.mark.parametrize("kind", ITERABLES)


def drain(rx):
    return rx.try_recv_many(1000)


# Sending


@iterables
def test_send_many_takes_any_iterable(variant, kind):
    tx, rx = variant.channel(3)
    drive(tx.send_many(ITERABLES[kind]()))
    assert drain(rx) == [1, 2, 3]


@iterables
def test_send_many_blocking_takes_any_iterable(threaded, kind):
    tx, rx = threaded.channel(3)
    tx.send_many_blocking(ITERABLES[kind]())
    assert drain(rx) == [1, 2, 3]


@pytest.mark.parametrize("kind", SEQUENCES)
def test_try_send_many_takes_any_sequence_and_counts(variant, kind):
    tx, rx = variant.channel(3)
    assert tx.try_send_many(ITERABLES[kind]()) == 3
    assert drain(rx) == [1, 2, 3]


def test_try_send_many_sends_what_fits(variant):
    tx, rx = variant.channel(3)
    tx.try_send(0)
    assert tx.try_send_many([1, 2, 3, 4]) == 2
    assert drain(rx) == [0, 1, 2]


def test_try_send_many_on_a_full_channel_sends_none(variant):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    assert tx.try_send_many([1, 2]) == 0
    assert drain(rx) == [0]


def test_sending_no_items_is_nothing(variant):
    tx, rx = variant.channel(1)
    drive(tx.send_many([]))
    assert tx.try_send_many([]) == 0
    tx.try_send(0)
    drive(tx.send_many([]))
    assert tx.try_send_many([]) == 0
    assert drain(rx) == [0]


def test_sending_no_items_blocking_is_nothing(threaded):
    tx, rx = threaded.channel(1)
    tx.try_send(0)
    tx.send_many_blocking([])
    assert drain(rx) == [0]


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_send_many_sends_more_than_fits_at_once_in_order(variant, run, capacity):
    tx, rx = variant.channel(capacity)

    async def main():
        sending = asyncio.create_task(tx.send_many(range(50)))
        received = [await rx.recv() for _ in range(50)]
        await sending
        return received

    assert run(main()) == list(range(50))


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_send_many_blocking_sends_more_than_fits_at_once_in_order(threaded, spawn, capacity):
    tx, rx = threaded.channel(capacity)
    sending = spawn(tx.send_many_blocking, range(50))
    assert [rx.recv_blocking() for _ in range(50)] == list(range(50))
    sending.join()


def test_send_many_sends_what_fits_before_it_waits(variant, step_loop):
    tx, rx = variant.channel(3)
    sending = step_loop.create_task(tx.send_many(range(5)))
    step_loop.run_ready()
    assert not sending.done()
    assert len(rx) == 3
    assert step_loop.call(rx.try_recv) == 0
    step_loop.run_ready()
    assert len(rx) == 3
    assert not sending.done()
    assert step_loop.call(drain, rx) == [1, 2, 3]
    step_loop.run_ready()
    assert sending.done()
    assert drain(rx) == [4]


def test_send_many_takes_a_snapshot_of_its_items(variant, step_loop):
    tx, rx = variant.channel(1)
    items = [1, 2, 3]
    sending = step_loop.create_task(tx.send_many(items))
    step_loop.run_ready()
    items[:] = ["changed"] * 5
    received = []
    while not sending.done():
        received += step_loop.call(drain, rx)
        step_loop.run_ready()
    assert received + drain(rx) == [1, 2, 3]


def test_items_of_two_batches_keep_the_order_of_each(variant, run):
    tx, rx = variant.channel(2)

    async def main():
        sending = [asyncio.create_task(tx.send_many([(name, number) for number in range(20)])) for name in "ab"]
        received = [await rx.recv() for _ in range(40)]
        await asyncio.gather(*sending)
        return received

    received = run(main())
    for name in "ab":
        assert [number for sender, number in received if sender == name] == list(range(20))


def test_an_iterable_may_use_the_channel_it_is_sent_to(variant):
    tx, rx = variant.channel(4)

    def items():
        tx.try_send("from within")
        yield "first"
        assert rx.try_recv() == "from within"
        yield "second"

    drive(tx.send_many(items()))
    assert drain(rx) == ["first", "second"]


def test_the_same_object_may_be_sent_many_times(variant):
    tx, rx = variant.channel(5)
    value = Item()
    assert tx.try_send_many([value] * 5) == 5
    assert all(received is value for received in drain(rx))


# Failed and partial sends


def test_a_batch_with_no_receiver_gives_everything_back(variant):
    tx, rx = variant.channel(5)
    rx.close()
    items = [Item("a"), Item("b")]
    for call in (lambda: drive(tx.send_many(items)), lambda: tx.try_send_many(items)):
        with pytest.raises(SendError) as failed:
            call()
        assert type(failed.value.value) is list
        assert [id(item) for item in failed.value.value] == [id(item) for item in items]
    for call in (lambda it: drive(tx.send_many(it)), tx.try_send_many):
        left = iter(items)
        with pytest.raises(SendError) as failed:
            call(left)
        assert failed.value.value + list(left) == items  # what was not taken stays there


def test_a_blocking_batch_with_no_receiver_gives_everything_back(threaded):
    tx, rx = threaded.channel(5)
    rx.close()
    with pytest.raises(SendError) as failed:
        tx.send_many_blocking((1, 2))
    assert failed.value.value == [1, 2]


def test_a_batch_whose_receiver_goes_gives_back_what_was_not_sent(variant, step_loop):
    tx, rx = variant.channel(2)
    items = [Item(str(number)) for number in range(6)]
    sending = step_loop.create_task(tx.send_many(items))
    step_loop.run_ready()
    assert step_loop.call(rx.try_recv) is items[0]
    step_loop.run_ready()
    step_loop.call(rx.close)
    step_loop.run_ready()
    error = sending.exception()
    assert type(error) is SendError
    assert [id(item) for item in error.value] == [id(item) for item in items[3:]]
    assert tx.statistics().sent == 3


def test_a_blocking_batch_whose_receiver_goes_gives_back_what_was_not_sent(threaded, spawn):
    tx, rx = threaded.channel(2)
    thread = spawn(tx.send_many_blocking, [1, 2, 3, 4])
    until_blocked(rx, senders=1)
    rx.close()
    with pytest.raises(SendError) as failed:
        thread.join()
    assert failed.value.value == [3, 4]


def test_a_blocking_batch_that_times_out_gives_back_what_was_not_sent(threaded):
    tx, rx = threaded.channel(2)
    with pytest.raises(SendTimeout) as failed:
        tx.send_many_blocking([1, 2, 3, 4], timeout=0.01)
    assert failed.value.value == [3, 4]
    assert drain(rx) == [1, 2]


def test_a_blocking_batch_with_timeout_zero_sends_what_fits(threaded):
    tx, rx = threaded.channel(2)
    with pytest.raises(SendTimeout) as failed:
        tx.send_many_blocking([1, 2, 3], timeout=0)
    assert failed.value.value == [3]
    assert drain(rx) == [1, 2]


def test_a_batch_whose_own_sender_is_closed_has_sent_a_prefix(variant, step_loop):
    tx, rx = variant.channel(2)
    sending = step_loop.create_task(tx.send_many([1, 2, 3, 4]))
    step_loop.run_ready()
    step_loop.call(tx.close)
    step_loop.run_ready()
    assert isinstance(sending.exception(), EndpointClosed)
    assert drain(rx) == [1, 2]
    with pytest.raises(RecvError):
        rx.try_recv()


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_a_cancelled_batch_has_sent_a_prefix(variant, step_loop, taken):
    tx, rx = variant.channel(2)
    sending = step_loop.create_task(tx.send_many([1, 2, 3, 4, 5, 6, 7]))
    step_loop.run_ready()
    received = []
    for _ in range(taken):
        received.append(step_loop.call(rx.try_recv))
        step_loop.run_ready()
    sending.cancel()
    step_loop.run_ready()
    assert sending.cancelled()
    received += drain(rx)
    assert received == list(range(1, taken + 3))
    assert tx.statistics().sent == len(received)


def test_a_batch_cancelled_in_the_tick_room_was_made_sends_no_more(variant, step_loop):
    tx, rx = variant.channel(2)
    sending = step_loop.create_task(tx.send_many([1, 2, 3, 4]))
    step_loop.run_ready()
    received = step_loop.call(drain, rx)
    sending.cancel()
    step_loop.run_ready()
    assert sending.cancelled()
    assert received == [1, 2]
    assert drain(rx) == []


def test_a_failed_try_send_many_on_a_full_channel_keeps_no_value(variant):
    tx, _rx = variant.channel(1)
    tx.try_send(0)
    value = Item()
    alive = weakref.ref(value)
    assert tx.try_send_many([value]) == 0
    del value
    assert alive() is None


# Receiving


def test_recv_many_gives_what_is_there_up_to_n(variant):
    tx, rx = variant.channel(5)
    tx.try_send_many([1, 2, 3, 4, 5])
    assert drive(rx.recv_many(2)) == [1, 2]
    assert drive(rx.recv_many(1)) == [3]
    assert drive(rx.recv_many(10)) == [4, 5]


def test_recv_many_gives_a_list(variant):
    tx, rx = variant.channel(1)
    tx.try_send(1)
    assert type(drive(rx.recv_many(1))) is list


def test_recv_many_waits_for_one_item_and_not_for_more(variant, step_loop):
    tx, rx = variant.channel(5)
    receiving = step_loop.create_task(rx.recv_many(3))
    step_loop.run_ready()
    assert not receiving.done()
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert receiving.result() == [1]


def test_recv_many_takes_all_that_came_before_it_ran(variant, step_loop):
    tx, rx = variant.channel(5)
    receiving = step_loop.create_task(rx.recv_many(3))
    step_loop.run_ready()
    for number in range(5):
        step_loop.call(tx.try_send, number)
    step_loop.run_ready()
    assert receiving.result() == [0, 1, 2]
    assert drain(rx) == [3, 4]


def test_recv_many_at_the_end_gives_the_rest_and_then_the_end(variant):
    tx, rx = variant.channel(5)
    tx.try_send_many([1, 2])
    tx.close()
    assert drive(rx.recv_many(5)) == [1, 2]
    with pytest.raises(RecvError):
        drive(rx.recv_many(5))


def test_recv_many_that_waits_meets_the_end(variant, step_loop):
    tx, rx = variant.channel(5)
    receiving = step_loop.create_task(rx.recv_many(3))
    step_loop.run_ready()
    step_loop.call(tx.close)
    step_loop.run_ready()
    assert isinstance(receiving.exception(), RecvError)


def test_recv_many_blocking_waits_for_one_item_and_not_for_more(threaded, spawn):
    tx, rx = threaded.channel(5)
    receiving = spawn(rx.recv_many_blocking, 3)
    until_blocked(tx, receivers=1)
    tx.try_send(1)
    assert receiving.join() == [1]


def test_recv_many_blocking_times_out_with_nothing_taken(threaded):
    tx, rx = threaded.channel(5)
    with pytest.raises(RecvTimeout):
        rx.recv_many_blocking(3, timeout=0.01)
    tx.try_send(1)
    assert rx.recv_many_blocking(3, timeout=0) == [1]


def test_recv_many_blocking_meets_the_end(threaded, spawn):
    tx, rx = threaded.channel(5)
    receiving = spawn(rx.recv_many_blocking, 3)
    until_blocked(tx, receivers=1)
    tx.close()
    with pytest.raises(RecvError):
        receiving.join()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 collections begin between bytecodes only")
@pytest.mark.parametrize("event", ["more", "all", "close"])
def test_what_comes_while_the_list_is_made_belongs_to_the_batch(variant, event):
    """A short batch says that nothing is left, also when a collection, which making a list may begin, sends more."""
    events = {
        "more": lambda tx, rx: tx.try_send_many([1, 2, 3]),
        "all": lambda tx, rx: tx.try_send_many(range(1, 9)),
        "close": lambda tx, rx: (tx.try_send_many([1, 2, 3]), tx.close()),
    }
    expected = {"more": [0, 1, 2, 3], "all": [0, 1, 2, 3, 4, 5, 6], "close": [0, 1, 2, 3]}
    tx, rx = variant.channel(9)
    left = []

    def send(phase, _):
        if phase == "start" and left:
            events[left.pop()](tx, rx)

    threshold = gc.get_threshold()
    gc.callbacks.append(send)
    try:
        tx.try_send(0)
        spares = [[] for _ in range(100)]  # so that a list has to be allocated, which may begin a collection
        left.append(event)
        gc.set_threshold(1)
        got = rx.try_recv_many(7)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(send)
    assert spares and not left
    assert got == expected[event]


def test_try_recv_many_gives_up_to_n_and_then_empty_lists(variant):
    tx, rx = variant.channel(5)
    assert rx.try_recv_many(3) == []
    tx.try_send_many([1, 2, 3, 4])
    assert rx.try_recv_many(3) == [1, 2, 3]
    assert rx.try_recv_many(3) == [4]
    assert rx.try_recv_many(3) == []


def test_try_recv_many_raises_only_at_the_end(variant):
    tx, rx = variant.channel(5)
    tx.try_send_many([1, 2])
    tx.close()
    assert rx.try_recv_many(1) == [1]
    assert rx.try_recv_many(5) == [2]
    with pytest.raises(RecvError):
        rx.try_recv_many(1)


@pytest.mark.parametrize("n", [sys.maxsize, 2**62, 2**31, 2**32])
def test_huge_n_takes_what_is_there_and_no_memory(variant, n):
    tx, rx = variant.channel(3)
    tx.try_send_many([1, 2])
    assert rx.try_recv_many(n) == [1, 2]
    assert rx.try_recv_many(n) == []
    tx.try_send_many([3, 4])
    assert drive(rx.recv_many(n)) == [3, 4]


@pytest.mark.parametrize("n", [sys.maxsize, 2**62, 2**31, 2**32])
def test_huge_n_waits_and_is_woken(variant, step_loop, n):
    tx, rx = variant.channel(3)
    receiving = step_loop.create_task(rx.recv_many(n))
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [1, 2])
    step_loop.run_ready()
    assert receiving.result() == [1, 2]


@pytest.mark.parametrize("n", [2**63, 2**64, 10**30])
def test_an_n_beyond_any_machine_word_loses_nothing(variant, n):
    tx, rx = variant.channel(3)
    tx.try_send_many([1, 2])
    try:
        received = rx.try_recv_many(n)
    except OverflowError:
        received = drain(rx)
    assert received == [1, 2]


def test_n_may_be_any_object_with_an_index(variant):
    class Two:
        def __index__(self):
            return 2

    tx, rx = variant.channel(3)
    tx.try_send_many([1, 2, 3])
    assert rx.try_recv_many(Two()) == [1, 2]


def test_a_cancelled_recv_many_took_nothing(variant, step_loop):
    tx, rx = variant.channel(5)
    receiving = step_loop.create_task(rx.recv_many(3))
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [1, 2])
    receiving.cancel()
    step_loop.run_ready()
    assert receiving.cancelled()
    assert drain(rx) == [1, 2]


# Both ends at once


def test_batches_from_a_thread_to_a_task(threaded, run):
    tx, rx = threaded.channel(7)

    def produce():
        with tx:
            for start in range(0, 1000, 25):
                tx.send_many_blocking(range(start, start + 25))

    async def main():
        producing = asyncio.create_task(in_thread(produce))
        received = []
        while len(received) < 1000:
            received += await rx.recv_many(10)
        await producing
        with pytest.raises(RecvError):
            await rx.recv_many(10)
        return received

    assert run(main()) == list(range(1000))


def test_batches_from_a_task_to_a_thread(threaded, run):
    tx, rx = threaded.channel(7)

    def consume():
        received = []
        try:
            while True:
                received += rx.recv_many_blocking(10)
        except RecvError:
            return received

    async def main():
        consuming = asyncio.create_task(in_thread(consume))
        async with tx:
            for start in range(0, 1000, 25):
                await tx.send_many(range(start, start + 25))
        return await consuming

    assert run(main()) == list(range(1000))


def test_a_waiting_batch_and_single_sends_share_one_line(variant, run):
    tx, rx = variant.channel(2)
    tx.try_send_many([0, 0])

    async def main():
        sending = []
        for place, awaitable in enumerate([tx.send("a"), tx.send_many("bcd"), tx.send("e")], 1):
            sending.append(asyncio.create_task(awaitable))
            await until_parked(rx, senders=place)
        received = []
        for _ in range(7):
            received.append(await rx.recv())
            await turns(3)
        await asyncio.gather(*sending)
        return received[2:]

    received = run(main())
    assert sorted(received) == list("abcde")
    assert [name for name in received if name in "bcd"] == list("bcd")
    assert received[0] == "a"


# Values


def test_items_of_batches_are_freed_exactly_once(variant):
    counted = Counted()
    tx, rx = variant.channel(3)
    assert tx.try_send_many([counted.new(number) for number in range(5)]) == 3
    assert sorted(counted.freed) == [3, 4]
    first = rx.try_recv_many(1)
    rx.close()
    assert sorted(counted.freed) == [1, 2, 3, 4]
    first.clear()
    assert sorted(counted.freed) == [0, 1, 2, 3, 4]


def test_items_of_a_batch_that_failed_half_way_are_freed_exactly_once(variant, step_loop):
    counted = Counted()
    tx, rx = variant.channel(2)
    sending = step_loop.create_task(tx.send_many([counted.new(number) for number in range(5)]))
    step_loop.run_ready()
    step_loop.call(rx.close)
    step_loop.run_ready()
    assert sorted(counted.freed) == [0, 1]
    assert len(sending.exception().value) == 3
    del sending
    collect()
    assert sorted(counted.freed) == [0, 1, 2, 3, 4]


def test_items_of_a_sent_batch_are_not_kept_by_its_awaitable(variant):
    tx, rx = variant.channel(2)
    value = Item()
    alive = weakref.ref(value)
    sending = tx.send_many([value])
    drive(sending)
    rx.try_recv()
    del value
    assert alive() is None
    assert sending is not None


def test_batches_count_items_in_statistics(variant):
    tx, rx = variant.channel(5)
    tx.try_send_many([1, 2, 3])
    drive(tx.send_many([4, 5]))
    drive(rx.recv_many(2))
    rx.try_recv_many(1)
    stats = tx.statistics()
    assert (stats.sent, stats.received, stats.buffered) == (5, 3, 2)


def test_full_and_empty_are_not_raised_by_batches(variant):
    tx, rx = variant.channel(1)
    try:
        tx.try_send_many([1, 2])
        tx.try_send_many([1, 2])
        rx.try_recv_many(2)
        rx.try_recv_many(2)
    except (Full, Empty) as error:
        pytest.fail(f"raised {error!r}")
