"""Closing, dropping, copying and collecting: the life of endpoints and of the values between them."""

import copy
import gc
import itertools
import pickle
import subprocess
import sys
import warnings
import weakref

import aio
import pytest
from support import Counted, Item, collect, drive, in_thread, turns, until_blocked, until_parked

import nexus_channels
from nexus_channels import Empty, EndpointClosed, Full, RecvError, SendError

EVERY_LOOP = True  # see conftest.py


def _python(code, *options):
    return subprocess.run(
        [sys.executable, "-P", *options, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


# Closing and what the other side sees


def test_what_was_sent_is_received_before_the_end(variant):
    tx, rx = variant.channel(3)
    tx.try_send_many([1, 2, 3])
    tx.close()
    assert [rx.try_recv() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(RecvError):
        rx.try_recv()
    with pytest.raises(RecvError):
        rx.try_recv()


def test_pitfall_11_the_last_value_before_a_close_arrives(variant, run):
    async def main():
        for _ in range(100):
            tx, rx = variant.channel(1)
            receiving = aio.create_task(rx.recv())
            await turns(2)
            tx.try_send("last")
            tx.close()
            assert await receiving == "last"
            with pytest.raises(RecvError):
                await rx.recv()

    run(main())


@pytest.mark.parametrize("capacity", [1, 2])
def test_pitfall_11_the_last_value_arrives_though_the_sender_closes_at_once_in_another_thread(
    threaded, spawn, capacity
):
    pairs = [threaded.channel(capacity) for _ in range(2000)]

    def send_and_close():
        for number, (tx, _rx) in enumerate(pairs):
            tx.try_send(number)
            tx.close()

    def receive_until_the_end(rx):
        received = []
        while True:
            try:
                received.append(rx.try_recv())
            except Empty:
                continue
            except RecvError:
                return received

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        sending = spawn(send_and_close)
        lost = [number for number, (_tx, rx) in enumerate(pairs) if receive_until_the_end(rx) != [number]]
        sending.join()
    finally:
        sys.setswitchinterval(interval)
    assert lost == []


def test_pitfall_12_who_is_woken_by_a_disconnect_sees_it(variant, run):
    tx, rx = variant.channel(1)

    async def receive():
        try:
            await rx.recv()
        except RecvError:
            return rx.is_disconnected

    async def main():
        receiving = aio.create_task(receive())
        await turns(2)
        tx.close()
        return await receiving

    assert run(main())


def test_a_sender_sees_the_receiver_go_at_once(variant):
    tx, rx = variant.channel(1)
    rx.close()
    with pytest.raises(SendError):
        tx.try_send(1)


def test_pitfall_13_a_receiver_is_disconnected_when_the_last_clone_is_gone(clonable):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    tx.close()
    assert not rx.is_disconnected
    other.close()
    assert rx.is_disconnected


def test_pitfall_13_a_receiver_is_disconnected_though_items_are_still_buffered(variant):
    tx, rx = variant.channel(1)
    tx.try_send(1)
    tx.close()
    assert rx.is_disconnected
    assert rx.try_recv() == 1


def test_pitfall_13_a_sender_with_siblings_is_disconnected_when_the_receiver_is_gone(clonable):
    tx, rx = clonable.channel(1)
    siblings = [tx.clone() for _ in range(3)]
    assert not tx.is_disconnected
    rx.close()
    assert tx.is_disconnected
    assert all(sibling.is_disconnected for sibling in siblings)


def test_pitfall_13_siblings_that_go_do_not_disconnect_a_sender(clonable):
    tx, _rx = clonable.channel(1)
    sibling = tx.clone()
    sibling.close()
    assert not tx.is_disconnected


def test_closing_one_clone_leaves_the_others_open(clonable):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    tx.close()
    assert not other.is_closed
    other.try_send(1)
    assert rx.try_recv() == 1


def test_a_closed_sender_may_close_again_without_closing_its_siblings(clonable):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    tx.close()
    tx.close()
    del tx
    assert not rx.is_disconnected
    assert rx.statistics().open_senders == 1
    other.close()


def test_a_clone_of_a_disconnected_sender_is_disconnected(clonable):
    tx, rx = clonable.channel(1)
    rx.close()
    other = tx.clone()
    with pytest.raises(SendError):
        other.try_send(1)


@pytest.mark.parametrize("how", ["close", "with", "async with", "drop"])
@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_every_way_to_close_disconnects_the_other_side(variant, run, how, side):
    tx, rx = variant.channel(1)
    closing, other = (tx, rx) if side == "sender" else (rx, tx)
    del tx, rx

    async def use():
        async with closing:
            pass

    if how == "close":
        closing.close()
    elif how == "with":
        with closing:
            pass
    elif how == "async with":
        run(use())
    else:
        del closing, use  # `use` holds a reference too
    assert other.is_disconnected


def test_leaving_a_with_block_by_an_exception_closes_and_passes_it_on(variant):
    for endpoint in variant.channel(1):
        with pytest.raises(ZeroDivisionError), endpoint:
            raise ZeroDivisionError
        assert endpoint.is_closed


def test_leaving_an_async_with_block_by_an_exception_closes_and_passes_it_on(variant, run):
    async def leave(endpoint):
        async with endpoint:
            raise ZeroDivisionError

    for endpoint in variant.channel(1):
        with pytest.raises(ZeroDivisionError):
            run(leave(endpoint))
        assert endpoint.is_closed


def test_closing_inside_a_with_block_is_fine(variant):
    for endpoint in variant.channel(1):
        with endpoint:
            endpoint.close()
        assert endpoint.is_closed


def test_a_pair_in_a_temporary_closes_what_is_not_kept(variant):
    rx = variant.channel(1).receiver
    assert rx.is_disconnected
    tx = variant.channel(1).sender
    assert tx.is_disconnected


def test_iterators_keep_the_receiver_open(variant):
    tx, rx = variant.channel(1)
    iterator = aiter(rx)
    del rx
    assert not tx.is_disconnected
    del iterator
    assert tx.is_disconnected


def test_bound_methods_keep_the_endpoint_open(variant):
    tx, rx = variant.channel(1)
    send = tx.try_send
    del tx
    assert not rx.is_disconnected
    send(1)
    del send
    assert rx.is_disconnected
    assert rx.try_recv() == 1


# Closing wakes everybody


def _outcomes(results):
    return [type(result) if isinstance(result, BaseException) else result for result in results]


def test_closing_the_receiver_wakes_every_waiting_sender_with_its_value(variant, run):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    values = [Item(str(number)) for number in range(5)]

    async def main():
        sending = [aio.create_task(tx.send(value)) for value in values]
        await until_parked(tx, senders=5)
        rx.close()
        return await aio.gather(*sending, return_exceptions=True)

    results = run(main())
    assert _outcomes(results) == [SendError] * 5
    assert all(result.value is value for result, value in zip(results, values, strict=True))


def test_closing_the_sender_wakes_every_waiting_receiver(variant, run):
    tx, rx = variant.channel(1)

    async def main():
        receiving = [aio.create_task(rx.recv()) for _ in range(5)]
        await until_parked(rx, receivers=5)
        tx.close()
        return await aio.gather(*receiving, return_exceptions=True)

    assert _outcomes(run(main())) == [RecvError] * 5


def test_dropping_the_sender_wakes_every_waiting_receiver(variant, run):
    tx, rx = variant.channel(1)
    keep = [tx]
    del tx

    async def main():
        receiving = [aio.create_task(rx.recv()) for _ in range(5)]
        await until_parked(rx, receivers=5)
        keep.clear()
        return await aio.gather(*receiving, return_exceptions=True)

    assert _outcomes(run(main())) == [RecvError] * 5


def test_closing_a_sender_makes_its_own_waiting_sends_raise_and_sends_nothing(variant, run):
    tx, rx = variant.channel(1)
    tx.try_send(0)

    async def main():
        sending = [aio.create_task(tx.send(number)) for number in range(1, 6)]
        await until_parked(tx, senders=5)
        tx.close()
        return await aio.gather(*sending, return_exceptions=True)

    assert _outcomes(run(main())) == [EndpointClosed] * 5
    assert rx.try_recv() == 0
    with pytest.raises(RecvError):
        rx.try_recv()


def test_closing_a_receiver_makes_its_own_waiting_receives_raise(variant, run):
    tx, rx = variant.channel(1)

    async def main():
        receiving = [aio.create_task(rx.recv()), aio.create_task(rx.recv_many(3))]
        await until_parked(rx, receivers=2)
        rx.close()
        return await aio.gather(*receiving, return_exceptions=True)

    assert _outcomes(run(main())) == [EndpointClosed] * 2
    assert tx.is_disconnected


def test_closing_one_clone_leaves_the_waits_of_the_others_in_line(clonable, run):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    tx.try_send(0)

    async def main():
        own = aio.create_task(tx.send("own"))
        sibling = aio.create_task(other.send("sibling"))
        await until_parked(tx, senders=2)
        tx.close()
        with pytest.raises(EndpointClosed):
            await own
        assert not sibling.done()
        assert await rx.recv() == 0
        await sibling
        return await rx.recv()

    assert run(main()) == "sibling"


@pytest.mark.parametrize("freed", ["before", "after"])
def test_the_waits_of_a_closed_clone_hold_up_no_other_though_their_loop_does_not_run(clonable, step_loop, freed):
    tx, rx = clonable.channel(1)
    twin = tx.clone()
    tx.try_send(1)
    waiting = step_loop.create_task(twin.send(2))
    step_loop.run_ready()
    until_blocked(rx, senders=1)
    if freed == "before":
        assert rx.try_recv() == 1  # calls it
    twin.close()
    if freed == "after":
        assert rx.try_recv() == 1
    tx.try_send(3)
    step_loop.run_ready()
    with pytest.raises(EndpointClosed):
        waiting.result()
    assert rx.try_recv() == 3


def test_waiting_sends_count_as_the_sender_being_there(variant, run):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    keep = [tx]
    del tx

    async def main():
        sending = aio.create_task(keep[0].send("waits"))
        await until_parked(rx, senders=1)
        keep.clear()
        received = [await rx.recv(), await rx.recv()]
        await sending
        return received

    assert run(main()) == [0, "waits"]


def test_closing_the_receiver_wakes_waiting_threads_and_tasks_alike(threaded, run):
    tx, rx = threaded.channel(1)
    tx.try_send(0)

    async def main():
        sending = [aio.create_task(tx.send(1)), aio.create_task(in_thread(tx.send_blocking, 2))]
        await until_parked(tx, senders=2)
        rx.close()
        return await aio.gather(*sending, return_exceptions=True)

    assert _outcomes(run(main())) == [SendError] * 2


def test_closing_the_sender_wakes_every_waiting_thread(threaded, spawn):
    tx, rx = threaded.channel(1)
    threads = [spawn(rx.recv_blocking) for _ in range(3)]
    until_blocked(tx, receivers=3)
    tx.close()
    for thread in threads:
        with pytest.raises(RecvError):
            thread.join()


def test_closing_the_receiver_makes_threads_that_wait_on_it_raise(threaded, spawn):
    tx, rx = threaded.channel(1)
    threads = [spawn(rx.recv_blocking) for _ in range(3)]
    until_blocked(tx, receivers=3)
    rx.close()
    for thread in threads:
        with pytest.raises(EndpointClosed):
            thread.join()


def test_closing_the_sender_makes_threads_that_wait_on_it_raise(threaded, spawn):
    tx, rx = threaded.channel(1)
    tx.try_send(0)
    threads = [spawn(tx.send_blocking, number) for number in range(1, 4)]
    until_blocked(rx, senders=3)
    tx.close()
    for thread in threads:
        with pytest.raises(EndpointClosed):
            thread.join()
    assert rx.try_recv_many(9) == [0]


def test_closing_ends_a_blocking_for_loop_in_another_thread(threaded, spawn):
    tx, rx = threaded.channel(1)
    thread = spawn(list, rx)
    until_blocked(tx, receivers=1)
    tx.close()
    assert thread.join() == []


# Values: discarded at once, freed once


def test_pitfall_16_closing_the_receiver_frees_what_is_buffered_at_once_and_in_order(variant):
    counted = Counted()
    tx, rx = variant.channel(5)
    for number in range(5):
        tx.try_send(counted.new(number))
    rx.close()
    assert counted.freed == [0, 1, 2, 3, 4]
    assert len(tx) == 0


def test_pitfall_16_dropping_the_receiver_frees_what_is_buffered_at_once(variant):
    counted = Counted()
    tx, rx = variant.channel(5)
    for number in range(5):
        tx.try_send(counted.new(number))
    del rx
    assert sorted(counted.freed) == [0, 1, 2, 3, 4]
    assert tx.is_disconnected


def test_pitfall_16_closing_the_sender_frees_nothing_the_receiver_may_still_take(variant):
    counted = Counted()
    tx, rx = variant.channel(2)
    tx.try_send(counted.new("kept"))
    tx.close()
    del tx
    assert counted.freed == []
    rx.try_recv()
    assert counted.freed == ["kept"]


def test_pitfall_16_dropping_both_ends_frees_what_is_buffered_at_once(variant):
    counted = Counted()
    pair = variant.channel(5)
    for number in range(5):
        pair.sender.try_send(counted.new(number))
    gc.disable()
    try:
        del pair
        assert sorted(counted.freed) == [0, 1, 2, 3, 4]
    finally:
        gc.enable()


@pytest.mark.parametrize("taken", range(8))
def test_pitfall_16_every_value_is_freed_exactly_once(variant, taken):
    counted = Counted()
    tx, rx = variant.channel(4)
    received = []
    for number in range(7):
        if number >= 4 and len(received) < taken:
            received.append(rx.try_recv())
        try:
            tx.try_send(counted.new(number))
        except Full as full:
            full.value = None
    still_there = {item._name for item in received}
    rx.close()
    assert sorted(counted.freed) == sorted(set(range(7)) - still_there)
    received.clear()
    tx.close()
    del tx, rx
    collect()
    assert sorted(counted.freed) == list(range(7))


def test_pitfall_16_values_of_failed_sends_are_freed_once(variant):
    counted = Counted()
    tx, rx = variant.channel(1)
    tx.try_send(None)
    with pytest.raises(Full):
        tx.try_send(counted.new("full"))
    rx.close()
    with pytest.raises(SendError):
        tx.try_send(counted.new("try_send"))
    with pytest.raises(SendError):
        drive(tx.send(counted.new("send")))
    tx.close()
    with pytest.raises(EndpointClosed):
        tx.try_send(counted.new("closed"))
    collect()
    assert sorted(counted.freed) == ["closed", "full", "send", "try_send"]


def test_pitfall_16_a_received_value_is_no_longer_held_by_the_channel(variant):
    tx, rx = variant.channel(2)
    value = Item()
    alive = weakref.ref(value)
    tx.try_send(value)
    del value
    rx.try_recv()
    assert alive() is None
    assert len(tx) == 0


def test_pitfall_16_values_freed_by_a_close_may_use_the_channel(variant):
    tx, rx = variant.channel(3)
    seen = []

    class Busy:
        def __del__(self):
            seen.append((len(tx), tx.is_disconnected, rx.is_closed))
            rx.close()
            try:
                tx.try_send("from a finaliser")
            except SendError as error:
                seen.append(error.value)

    for _ in range(3):
        tx.try_send(Busy())
    rx.close()
    assert seen.count("from a finaliser") == 3
    assert len(seen) == 6
    assert all(entry[1:] == (True, True) for entry in seen if isinstance(entry, tuple))
    assert len(tx) == 0


def test_pitfall_16_values_freed_by_a_close_may_close_other_channels(variant):
    ends = [variant.channel(1) for _ in range(50)]
    outer = ends[0]
    for (tx, _rx), (_tx, inner) in itertools.pairwise(ends):
        tx.try_send(inner)
    last_sender = ends[-1].sender
    keep = outer.receiver
    del ends, outer, tx, _rx, _tx, inner
    assert not last_sender.is_disconnected
    keep.close()
    assert last_sender.is_disconnected


CHAIN = """
from nexus_channels import {module}

tx, rx = {module}.channel(1)
for _ in range(50_000):
    outer_tx, outer_rx = {module}.channel(1)
    outer_tx.try_send(rx)
    rx = outer_rx
del outer_tx, outer_rx
assert not tx.is_disconnected
del rx
assert tx.is_disconnected
"""


@pytest.mark.parametrize("module", ["local", "spsc", "mpsc"])
def test_pitfall_16_a_long_chain_of_channels_is_freed_without_overflowing_the_stack(module):
    done = _python(CHAIN.format(module=module))  # apart: an overflow ends the process
    assert done.returncode == 0, done.stderr


def test_a_send_after_the_receiver_closed_leaves_nothing_behind(variant):
    counted = Counted()
    tx, rx = variant.channel(3)
    rx.close()
    for _ in range(3):
        with pytest.raises(SendError):
            tx.try_send(counted.new())
    assert len(tx) == 0
    collect()
    assert len(counted.freed) == 3


# The garbage collector


def test_endpoints_are_tracked_by_the_garbage_collector(variant):
    for endpoint in variant.channel(1):
        assert gc.is_tracked(endpoint)


@pytest.mark.parametrize("held", ["sender", "receiver", "both"])
def test_pitfall_29_a_buffered_value_that_refers_to_its_own_channel_is_collected(variant, held):
    tx, rx = variant.channel(2)
    value = Item()
    value.ends = {"sender": (tx,), "receiver": (rx,), "both": (tx, rx)}[held]
    alive = weakref.ref(value)
    tx.try_send(value)
    del tx, rx, value
    collect()
    assert alive() is None


def test_pitfall_29_a_buffered_endpoint_of_its_own_channel_is_collected(variant):
    tx, rx = variant.channel(2)
    alive = weakref.ref(rx)
    tx.try_send(rx)
    tx.try_send(tx)
    del tx, rx
    collect()
    assert alive() is None


def test_pitfall_29_two_channels_buffered_in_each_other_are_collected(variant):
    first, second = variant.channel(1), variant.channel(1)
    alive = weakref.ref(first.receiver)
    first.sender.try_send(second)
    second.sender.try_send(first)
    del first, second
    collect()
    assert alive() is None


def test_pitfall_29_a_cycle_with_an_open_end_outside_is_not_collected(variant):
    tx, rx = variant.channel(1)
    value = Item()
    value.sender = tx
    tx.try_send(value)
    del tx, value
    collect()
    value = rx.try_recv()
    assert value.sender.same_channel(rx)
    assert not rx.is_disconnected


def test_pitfall_29_an_awaitable_in_a_cycle_with_its_value_is_collected(variant):
    tx, _rx = variant.channel(1)
    others = [tx.send(0) for _ in range(100)]  # those kept for use again, which conftest.freeze() has set aside
    value = Item()
    value.sending = [tx.send(value), tx.send_many([value])]
    alive = weakref.ref(value)
    del value
    collect()
    assert alive() is None
    assert len(others) == 100


def test_pitfall_29_an_iterator_in_a_cycle_with_a_buffered_value_is_collected(variant):
    tx, rx = variant.channel(1)
    value = Item()
    value.iterator = aiter(rx)
    alive = weakref.ref(value)
    tx.try_send(value)
    del tx, rx, value
    collect()
    assert alive() is None


def test_pitfall_29_a_failed_send_in_a_cycle_with_its_value_is_collected(variant):
    tx, _rx = variant.channel(1)
    tx.try_send(0)
    value = Item()
    alive = weakref.ref(value)
    try:
        tx.try_send(value)
    except Full as error:
        value.error = error
    del value
    collect()
    assert alive() is None


@pytest.mark.asyncio_only("trio knows all of its tasks")
@pytest.mark.parametrize("form", ["recv", "send"])
def test_pitfall_29_a_task_that_waits_on_a_channel_only_it_knows_is_collected(variant, step_loop, form):
    alive = []

    async def wait_alone():
        tx, rx = variant.channel(1)
        tx.try_send(0)
        marker = Item()
        alive.extend([weakref.ref(marker), weakref.ref(tx), weakref.ref(rx)])
        if form == "send":
            await tx.send(marker)
        else:
            await rx.recv()
            await rx.recv()

    step_loop.create_task(wait_alone())
    step_loop.run_ready()
    assert len(alive) == 3
    collect()
    step_loop.run_ready()
    assert [reference() for reference in alive] == [None] * 3
    reported = [context["message"] for context in step_loop.errors]
    step_loop.errors.clear()
    assert all("destroyed but it is pending" in message for message in reported)


def test_pitfall_29_a_waiting_task_that_is_known_elsewhere_is_not_collected(variant, step_loop):
    tx, rx = variant.channel(1)
    task = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    collect()
    step_loop.call(tx.try_send, "still there")
    step_loop.run_ready()
    assert task.result() == "still there"


def test_pitfall_29_a_waiting_task_is_kept_alive_by_the_channel_it_waits_on(variant, step_loop):
    """Nobody but the channel knows the task (asyncio itself keeps weak references only)."""
    tx, rx = variant.channel(1)
    received = []

    async def receive():
        received.append(await rx.recv())

    step_loop.create_task(receive())
    step_loop.run_ready()
    collect()
    step_loop.call(tx.try_send, "arrived")
    step_loop.run_ready()
    assert received == ["arrived"]


def test_pitfall_29_an_endpoint_in_the_traceback_of_a_failed_task_closes_when_the_task_is_let_go(variant, run):
    tx, rx = variant.channel(1)
    keep = [tx]
    del tx

    async def fail(sender):
        await sender.send(1)
        raise ZeroDivisionError

    async def main():
        task = aio.create_task(fail(keep.pop()))
        await aio.wait([task])
        assert not rx.is_disconnected
        assert isinstance(task.exception(), ZeroDivisionError)
        del task
        collect()
        return rx.is_disconnected

    assert run(main())


def test_pitfall_29_an_endpoint_in_the_traceback_of_its_own_error_closes_when_the_error_is_let_go(variant):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    kept = []

    def fail(sender):
        try:
            sender.try_send(1)
        except Full as error:
            error.itself = error
            kept.append(error)

    fail(tx)
    del tx
    assert not rx.is_disconnected
    kept.clear()
    collect()
    assert rx.is_disconnected


def test_an_endpoint_in_a_cycle_closes_when_it_is_collected(variant):
    tx, rx = variant.channel(1)
    holder = Item()
    holder.itself, holder.sender = holder, tx
    del tx
    assert not rx.is_disconnected
    del holder
    collect()
    assert rx.is_disconnected


def test_an_endpoint_collected_in_a_cycle_wakes_who_waits(variant, run):
    tx, rx = variant.channel(1)
    holder = Item()
    holder.itself, holder.sender = holder, tx
    keep = [holder]
    del holder, tx

    async def main():
        receiving = aio.create_task(rx.recv())
        await turns(2)
        keep.clear()
        collect()
        with pytest.raises(RecvError):
            await receiving

    run(main())


# Weak references


def test_endpoints_can_be_weakly_referenced(variant):
    for endpoint in variant.channel(1):
        assert weakref.ref(endpoint)() is endpoint


def test_weak_references_die_with_the_endpoint_and_call_back(variant):
    tx, rx = variant.channel(1)
    gone = []
    references = [weakref.ref(tx, gone.append), weakref.ref(rx, gone.append)]
    del tx
    assert gone == references[:1]
    del rx
    assert gone == references


def test_a_weakref_callback_may_use_the_other_end(variant):
    tx, rx = variant.channel(1)
    seen = []
    reference = weakref.ref(tx, lambda _: seen.append(rx.statistics().capacity))
    del tx
    assert seen == [1]
    assert reference() is None


def test_endpoints_work_in_weak_containers(variant):
    tx, rx = variant.channel(1)
    names = weakref.WeakKeyDictionary({tx: "tx", rx: "rx"})
    assert names[tx] == "tx"
    del tx
    assert list(names.values()) == ["rx"]


# Truth


def test_pitfall_27_endpoints_are_true_whatever_they_hold(variant):
    tx, rx = variant.channel(1)
    assert len(tx) == 0
    assert tx
    assert rx
    tx.try_send(1)
    assert tx
    assert rx
    tx.close()
    rx.close()
    assert tx
    assert rx
    assert bool(tx) is True


# Pickling and copying


def _copies():
    operations = {"copy": copy.copy, "deepcopy": copy.deepcopy}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        operations[f"pickle-{protocol}"] = lambda value, protocol=protocol: pickle.dumps(value, protocol)
    return [pytest.param(operation, id=name) for name, operation in operations.items()]


@pytest.mark.parametrize("operation", _copies())
def test_pitfall_26_endpoints_are_not_copied_or_pickled(variant, operation):
    for endpoint in variant.channel(1):
        with pytest.raises(TypeError, match=type(endpoint).__name__):
            operation(endpoint)
        assert not endpoint.is_closed
        assert not endpoint.is_disconnected


@pytest.mark.parametrize("operation", _copies())
def test_pitfall_26_the_error_says_what_to_do_instead(operation):
    tx, rx = nexus_channels.mpsc.channel(1)
    with pytest.raises(TypeError, match=r"clone\(\)"):
        operation(tx)
    with pytest.raises(TypeError) as refused:
        operation(rx)
    assert len(str(refused.value)) > len("cannot pickle 'nexus_channels.mpsc.Receiver' object")


def test_pitfall_26_a_value_that_holds_an_endpoint_is_not_pickled_either(variant):
    tx, rx = variant.channel(1)
    value = Item()
    value.ends = (tx, rx)
    with pytest.raises(TypeError):
        pickle.dumps(value)
    with pytest.raises(TypeError):
        copy.deepcopy(value)


def test_pitfall_26_a_refused_copy_leaves_no_half_made_endpoint(clonable):
    tx, rx = clonable.channel(1)
    for operation in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            operation(tx)
    collect()
    assert rx.statistics().open_senders == 1
    assert rx.statistics().open_receivers == 1


def test_endpoints_cannot_be_made_by_new(variant):
    for endpoint in (variant.Sender, variant.Receiver):
        with pytest.raises(TypeError):
            endpoint.__new__(endpoint)
        with pytest.raises(TypeError):
            object.__new__(endpoint)


# No noise


def test_pitfall_15_dropping_endpoints_warns_of_nothing(variant, recwarn):
    warnings.simplefilter("always")
    tx, rx = variant.channel(1)
    tx.try_send(1)
    del tx
    del rx
    collect()
    assert list(recwarn) == []


QUIET = """
import asyncio, gc
from nexus_channels import {module}

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60
    tx, rx = {module}.channel(1)
    await tx.send(1)
    waiting = asyncio.create_task(tx.send(2))
    await asyncio.sleep(0)
    await rx.recv()
    await waiting
    never_started = rx.recv()
    never_started.close()

asyncio.run(main(), debug=True)
tx, rx = {module}.channel(1)
tx.try_send(tx)
del tx
cycle = [rx]
cycle.append(cycle)
del rx, cycle
gc.collect()
left_open = {module}.channel(1)
"""


@pytest.mark.parametrize("module", ["local", "spsc", "mpsc"])
def test_pitfall_15_a_program_in_development_mode_hears_nothing_of_dropped_endpoints(module):
    done = _python(QUIET.format(module=module), "-X", "dev", "-W", "error")
    assert done.stderr == ""
    assert done.returncode == 0
