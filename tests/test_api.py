"""Every row of the object channels' public API: that it is there, what it takes, what it gives back."""

import asyncio
import importlib.util
import inspect
import math
import re
import threading
import time

import aio
import pytest
from support import Item, drive, in_thread, until_blocked

import nexus_channels
from nexus_channels import Channel, Empty, EndpointClosed, Full, RecvTimeout, SendTimeout, Statistics

EVERY_LOOP = True  # see conftest.py

# Objects that code which passes values through exceptions, futures or NULL checks would mangle.
AWKWARD = [
    None,
    False,
    (),
    (1, 2),
    [],
    StopIteration(1),
    StopAsyncIteration(),
    ValueError("a value, not an error"),
    KeyError,
    asyncio.CancelledError(),
    NotImplemented,
    Ellipsis,
]
awkward = pytest.mark.parametrize("value", AWKWARD, ids=repr)


def full_channel(variant, capacity=1):
    tx, rx = variant.channel(capacity)
    for number in range(capacity):
        tx.try_send(number)
    return tx, rx


# channel()


def test_channel_gives_a_named_pair(variant):
    pair = variant.channel(3)
    assert isinstance(pair, Channel)
    assert isinstance(pair, tuple)
    assert isinstance(pair.sender, variant.Sender)
    assert isinstance(pair.receiver, variant.Receiver)


def test_channel_unpacks_into_sender_and_receiver(variant):
    pair = variant.channel(3)
    tx, rx = pair
    assert tx is pair.sender
    assert rx is pair.receiver


def test_channel_takes_capacity_by_name(variant):
    tx, _rx = variant.channel(capacity=5)
    assert tx.capacity == 5


def test_capacity_is_mandatory(variant):
    with pytest.raises(TypeError):
        variant.channel()


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 10, 64, 100, 4096])
def test_pitfall_38_capacity_is_exact(variant, capacity):
    tx, rx = variant.channel(capacity)
    for number in range(capacity):
        tx.try_send(number)
    with pytest.raises(Full):
        tx.try_send("one too many")
    assert len(rx) == capacity
    assert [rx.try_recv() for _ in range(capacity)] == list(range(capacity))
    with pytest.raises(Empty):
        rx.try_recv()


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_pitfall_38_capacity_stays_exact_after_going_round_many_times(variant, capacity):
    tx, rx = variant.channel(capacity)
    for start in range(10 * capacity):
        for number in range(capacity):
            tx.try_send((start, number))
        with pytest.raises(Full):
            tx.try_send("one too many")
        assert [rx.try_recv() for _ in range(capacity)] == [(start, number) for number in range(capacity)]


def test_capacity_may_be_any_object_with_an_index(variant):
    class Three:
        def __index__(self):
            return 3

    tx, _rx = variant.channel(Three())
    assert tx.capacity == 3


def test_channel_accepts_a_type_argument(variant):
    tx, rx = variant.channel[int](3)
    assert isinstance(tx, variant.Sender)
    tx.try_send(1)
    assert rx.try_recv() == 1


def test_endpoint_classes_accept_a_type_argument(variant):
    assert variant.Sender[int] is not None
    assert variant.Receiver[dict[str, int]] is not None


def test_endpoints_cannot_be_made_without_a_channel(variant):
    for endpoint in (variant.Sender, variant.Receiver):
        with pytest.raises(TypeError):
            endpoint()


def test_channels_are_created_with_no_event_loop_and_used_in_a_later_one(variant, run):
    tx, rx = variant.channel(1)

    async def main():
        async with aio.TaskGroup() as group:
            group.create_task(tx.send("across"))
            received = group.create_task(rx.recv())
        return received.result()

    assert run(main()) == "across"


def test_one_channel_serves_one_loop_after_another(variant, run):
    tx, rx = variant.channel(1)

    async def exchange():
        receiving = aio.create_task(rx.recv())
        await aio.sleep(0)
        await tx.send("again")
        return await receiving

    assert [run(exchange()) for _ in range(3)] == ["again"] * 3


# send, recv


def test_send_gives_none_and_recv_gives_the_value(variant, run):
    tx, rx = variant.channel(1)
    value = Item()

    async def main():
        return await tx.send(value), await rx.recv()

    nothing, received = run(main())
    assert nothing is None
    assert received is value


@awkward
def test_any_object_travels_unchanged_when_nobody_waits(variant, run, value):
    tx, rx = variant.channel(1)

    async def main():
        await tx.send(value)
        return await rx.recv()

    assert run(main()) is value


@awkward
def test_any_object_travels_unchanged_to_a_waiting_task(variant, run, value):
    tx, rx = variant.channel(1)

    async def main():
        async def receive():
            return await rx.recv()

        receiving = aio.create_task(receive())
        await aio.sleep(0)
        await tx.send(value)
        return await receiving

    assert run(main()) is value


@awkward
def test_any_object_travels_unchanged_from_a_waiting_task(variant, run, value):
    tx, rx = full_channel(variant)

    async def main():
        sending = aio.create_task(tx.send(value))
        await aio.sleep(0)
        assert await rx.recv() == 0
        await sending
        return await rx.recv()

    assert run(main()) is value


@awkward
def test_any_object_travels_unchanged_through_the_try_forms(variant, value):
    tx, rx = variant.channel(1)
    tx.try_send(value)
    assert rx.try_recv() is value


@awkward
def test_any_object_travels_unchanged_through_the_blocking_forms(threaded, value):
    tx, rx = threaded.channel(1)
    tx.send_blocking(value)
    assert rx.recv_blocking() is value


@awkward
def test_any_object_travels_unchanged_through_the_batch_forms(variant, value):
    tx, rx = variant.channel(2)
    assert tx.try_send_many([value, value]) == 2
    first, second = rx.try_recv_many(2)
    assert first is value
    assert second is value


@awkward
def test_any_object_travels_unchanged_through_async_iteration(variant, run, value):
    tx, rx = variant.channel(1)

    async def main():
        sending = aio.create_task(tx.send(value))
        async for received in rx:
            await sending
            return received

    assert run(main()) is value


@awkward
def test_any_object_travels_unchanged_through_blocking_iteration(threaded, value):
    tx, rx = threaded.channel(1)
    tx.try_send(value)
    for received in rx:
        assert received is value
        break


def test_send_waits_for_room(variant, run):
    tx, rx = full_channel(variant)

    async def main():
        sending = aio.create_task(tx.send("late"))
        await aio.sleep(0)
        assert not sending.done()
        assert rx.try_recv() == 0
        await sending
        return rx.try_recv()

    assert run(main()) == "late"


def test_recv_waits_for_an_item(variant, run):
    tx, rx = variant.channel(1)

    async def main():
        receiving = aio.create_task(rx.recv())
        await aio.sleep(0)
        assert not receiving.done()
        tx.try_send("late")
        return await receiving

    assert run(main()) == "late"


@pytest.mark.parametrize("timeout", [None, 0, 0.0, 1, 2.5, math.inf, 1e300])
def test_send_that_need_not_wait_ignores_its_timeout(variant, timeout):
    tx, rx = variant.channel(1)
    drive(tx.send("now", timeout=timeout))
    assert drive(rx.recv(timeout=timeout)) == "now"


def test_timeout_may_be_given_by_position(variant):
    tx, rx = full_channel(variant)
    with pytest.raises(SendTimeout):
        drive(tx.send("late", 0))
    rx.try_recv()
    with pytest.raises(RecvTimeout):
        drive(rx.recv(0))


def test_timeout_of_zero_is_one_try(variant):
    tx, rx = full_channel(variant)
    with pytest.raises(SendTimeout) as failed:
        drive(tx.send("late", timeout=0))
    assert failed.value.value == "late"
    rx.try_recv()
    with pytest.raises(RecvTimeout):
        drive(rx.recv(timeout=0))


def test_send_times_out_when_its_time_is_up_and_not_before(variant, step_loop):
    tx, rx = full_channel(variant)
    sending = step_loop.create_task(tx.send("late", timeout=1.5))
    step_loop.advance(1.4)
    assert not sending.done()
    step_loop.advance(0.2)
    assert isinstance(sending.exception(), SendTimeout)
    assert sending.exception().value == "late"
    assert rx.try_recv_many(9) == [0]


def test_recv_times_out_when_its_time_is_up_and_not_before(variant, step_loop):
    tx, rx = variant.channel(1)
    receiving = step_loop.create_task(rx.recv(timeout=1.5))
    step_loop.advance(1.4)
    assert not receiving.done()
    step_loop.advance(0.2)
    assert isinstance(receiving.exception(), RecvTimeout)
    tx.try_send("kept")
    assert rx.try_recv() == "kept"


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_an_endless_timeout_waits_and_is_woken(variant, run, timeout):
    tx, rx = variant.channel(1)

    async def main():
        receiving = aio.create_task(rx.recv(timeout=timeout))
        await aio.sleep(0)
        tx.try_send("woken")
        return await receiving

    assert run(main()) == "woken"


def test_a_finished_wait_leaves_no_timer_behind(variant, step_loop):
    tx, rx = variant.channel(1)
    receiving = step_loop.create_task(rx.recv(timeout=5))
    step_loop.run_ready()
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert receiving.result() == 1
    assert step_loop.next_timer() is None


# send_blocking, recv_blocking


def test_blocking_send_and_recv_need_no_loop(threaded):
    tx, rx = threaded.channel(1)
    value = Item()
    assert tx.send_blocking(value) is None
    assert rx.recv_blocking() is value


def test_blocking_send_waits_for_room(threaded, spawn):
    tx, rx = full_channel(threaded)
    sending = spawn(tx.send_blocking, "late")
    until_blocked(rx, senders=1)
    assert rx.try_recv() == 0
    sending.join()
    assert rx.try_recv() == "late"


def test_blocking_recv_waits_for_an_item(threaded, spawn):
    tx, rx = threaded.channel(1)
    receiving = spawn(rx.recv_blocking)
    until_blocked(tx, receivers=1)
    tx.try_send("late")
    assert receiving.join() == "late"


def test_blocking_send_waits_its_timeout_out(threaded):
    tx, rx = full_channel(threaded)
    start = time.monotonic()
    with pytest.raises(SendTimeout) as failed:
        tx.send_blocking("late", timeout=0.05)
    assert time.monotonic() - start >= 0.05
    assert failed.value.value == "late"
    assert rx.try_recv_many(9) == [0]


def test_blocking_recv_waits_its_timeout_out(threaded):
    _tx, rx = threaded.channel(1)
    start = time.monotonic()
    with pytest.raises(RecvTimeout):
        rx.recv_blocking(timeout=0.05)
    assert time.monotonic() - start >= 0.05


def test_blocking_timeouts_are_not_rounded_to_whole_seconds(threaded):
    _tx, rx = threaded.channel(1)
    start = time.monotonic()
    for _ in range(5):
        with pytest.raises(RecvTimeout):
            rx.recv_blocking(timeout=0.002)
    assert time.monotonic() - start < 1


def test_blocking_timeout_of_zero_is_one_try(threaded):
    tx, rx = full_channel(threaded)
    with pytest.raises(SendTimeout):
        tx.send_blocking("late", timeout=0)
    assert rx.recv_blocking(timeout=0) == 0
    with pytest.raises(RecvTimeout):
        rx.recv_blocking(timeout=0)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 1e10])
def test_an_endless_blocking_timeout_waits_and_is_woken(threaded, spawn, timeout):
    tx, rx = threaded.channel(1)
    receiving = spawn(rx.recv_blocking, timeout=timeout)
    until_blocked(tx, receivers=1)
    tx.try_send("woken")
    assert receiving.join() == "woken"


def test_a_thread_sends_to_a_task(threaded, run):
    tx, rx = threaded.channel(2)

    async def main():
        sending = aio.create_task(in_thread(lambda: [tx.send_blocking(number) for number in range(100)]))
        received = [await rx.recv() for _ in range(100)]
        await sending
        return received

    assert run(main()) == list(range(100))


def test_a_task_sends_to_a_thread(threaded, run):
    tx, rx = threaded.channel(2)

    async def main():
        async with aio.TaskGroup() as group:
            receiving = group.create_task(in_thread(lambda: [rx.recv_blocking() for _ in range(100)]))
            for number in range(100):
                await tx.send(number)
        return receiving.result()

    assert run(main()) == list(range(100))


# try_send, try_recv


def test_try_send_gives_none(variant):
    tx, _rx = variant.channel(1)
    assert tx.try_send(1) is None


def test_try_send_on_a_full_channel_gives_the_value_back(variant):
    tx, rx = full_channel(variant)
    value = Item()
    with pytest.raises(Full) as failed:
        tx.try_send(value)
    assert failed.value.value is value
    assert rx.try_recv_many(9) == [0]


def test_try_recv_on_an_empty_channel_raises_empty(variant):
    _tx, rx = variant.channel(1)
    with pytest.raises(Empty):
        rx.try_recv()


# clone


def test_clones_send_into_the_same_channel(clonable):
    tx, rx = clonable.channel(4)
    other = tx.clone()
    assert isinstance(other, clonable.Sender)
    assert other is not tx
    tx.try_send("from the first")
    other.try_send("from the clone")
    assert rx.try_recv_many(9) == ["from the first", "from the clone"]


def test_a_clone_can_be_cloned(clonable):
    tx, rx = clonable.channel(4)
    tx.clone().clone().try_send(1)
    assert rx.try_recv() == 1


def test_spsc_has_one_sender_and_nothing_has_two_receivers(variant):
    tx, rx = variant.channel(1)
    assert hasattr(tx, "clone") == (variant.__name__ != "nexus_channels.spsc")
    assert not hasattr(rx, "clone")


# Iteration


def test_async_iteration_gives_every_item_and_ends_at_disconnect(variant, run):
    tx, rx = variant.channel(2)

    async def produce():
        with tx:
            for number in range(10):
                await tx.send(number)

    async def main():
        producing = aio.create_task(produce())
        received = [value async for value in rx]
        await producing
        return received

    assert run(main()) == list(range(10))


def test_async_iteration_may_be_left_and_taken_up_again(variant, run):
    tx, rx = variant.channel(4)
    tx.try_send_many([1, 2, 3])
    tx.close()

    async def main():
        async for first in rx:
            assert first == 1
            break
        return [value async for value in rx]

    assert run(main()) == [2, 3]


def test_async_iteration_over_an_endpoint_closed_here_raises(variant, run):
    _tx, rx = variant.channel(1)

    async def main():
        rx.close()
        async for _ in rx:
            pass

    with pytest.raises(EndpointClosed):
        run(main())


def test_closing_during_a_wait_of_async_iteration_raises(variant, run):
    _tx, rx = variant.channel(1)

    async def iterate():
        async for _ in rx:
            pass

    async def main():
        iterating = aio.create_task(iterate())
        await aio.sleep(0)
        rx.close()
        await iterating

    with pytest.raises(EndpointClosed):
        run(main())


def test_anext_ends_with_stop_async_iteration(variant, run):
    tx, rx = variant.channel(1)
    tx.try_send("last")
    tx.close()

    async def main():
        iterator = aiter(rx)
        return await anext(iterator), await anext(iterator, "default")

    assert run(main()) == ("last", "default")


def test_blocking_iteration_gives_every_item_and_ends_at_disconnect(threaded, spawn):
    tx, rx = threaded.channel(2)
    receiving = spawn(lambda: list(rx))
    for number in range(10):
        tx.send_blocking(number)
    tx.close()
    assert receiving.join() == list(range(10))


def test_blocking_iteration_may_be_left_and_taken_up_again(threaded):
    tx, rx = threaded.channel(4)
    tx.try_send_many([1, 2, 3])
    tx.close()
    for first in rx:
        assert first == 1
        break
    assert list(rx) == [2, 3]


def test_blocking_iteration_over_an_endpoint_closed_here_raises(threaded):
    _tx, rx = threaded.channel(1)
    rx.close()
    with pytest.raises(EndpointClosed):
        list(rx)


def test_senders_are_not_iterable(variant):
    tx, _rx = variant.channel(1)
    with pytest.raises(TypeError):
        iter(tx)
    with pytest.raises(TypeError):
        aiter(tx)


# local has no blocking half: a wait there could never end


@pytest.mark.parametrize("name", ["send_blocking", "send_many_blocking"])
def test_local_senders_have_no_blocking_forms(name):
    tx, _rx = nexus_channels.local.channel(1)
    assert not hasattr(tx, name)


@pytest.mark.parametrize("name", ["recv_blocking", "recv_many_blocking", "__iter__", "__next__"])
def test_local_receivers_have_no_blocking_forms(name):
    _tx, rx = nexus_channels.local.channel(1)
    assert not hasattr(rx, name)


def test_local_receivers_are_not_iterable_by_a_plain_for():
    _tx, rx = nexus_channels.local.channel(1)
    with pytest.raises(TypeError):
        iter(rx)


# Inspection


def test_capacity_is_the_same_on_both_ends(variant):
    tx, rx = variant.channel(10)
    assert tx.capacity == rx.capacity == 10


def test_len_is_what_is_buffered_on_both_ends(variant):
    tx, rx = variant.channel(3)
    lengths = [(len(tx), len(rx))]
    for number in range(3):
        tx.try_send(number)
        lengths.append((len(tx), len(rx)))
    rx.try_recv()
    lengths.append((len(tx), len(rx)))
    assert lengths == [(0, 0), (1, 1), (2, 2), (3, 3), (2, 2)]


def test_is_closed_is_about_this_endpoint(variant):
    tx, rx = variant.channel(1)
    assert (tx.is_closed, rx.is_closed) == (False, False)
    tx.close()
    assert (tx.is_closed, rx.is_closed) == (True, False)
    rx.close()
    assert (tx.is_closed, rx.is_closed) == (True, True)


def test_is_disconnected_is_about_the_other_side(variant):
    tx, rx = variant.channel(1)
    assert (tx.is_disconnected, rx.is_disconnected) == (False, False)
    tx.close()
    assert (tx.is_disconnected, rx.is_disconnected) == (False, True)
    rx.close()
    assert (tx.is_disconnected, rx.is_disconnected) == (True, True)


@pytest.mark.parametrize("name", ["capacity", "is_closed", "is_disconnected"])
def test_properties_cannot_be_set(variant, name):
    for endpoint in variant.channel(1):
        with pytest.raises(AttributeError):
            setattr(endpoint, name, 5)


def test_statistics_is_a_named_tuple(variant):
    tx, rx = variant.channel(3)
    for endpoint in (tx, rx):
        stats = endpoint.statistics()
        assert isinstance(stats, Statistics)
        assert isinstance(stats, tuple)
        assert stats._asdict() == {
            "capacity": 3,
            "buffered": 0,
            "open_senders": 1,
            "open_receivers": 1,
            "waiting_senders": 0,
            "waiting_receivers": 0,
            "sent": 0,
            "received": 0,
        }


def test_statistics_count_items_sent_received_and_buffered(variant):
    tx, rx = variant.channel(4)
    tx.try_send_many([1, 2, 3])
    rx.try_recv()
    drive(tx.send(4))
    drive(rx.recv())
    stats = tx.statistics()
    assert (stats.sent, stats.received, stats.buffered) == (4, 2, 2)
    assert rx.statistics() == stats


def test_statistics_do_not_count_what_failed(variant):
    tx, rx = full_channel(variant)
    with pytest.raises(Full):
        tx.try_send(1)
    with pytest.raises(SendTimeout):
        drive(tx.send(1, timeout=0))
    assert rx.statistics().sent == 1
    rx.try_recv()
    with pytest.raises(Empty):
        rx.try_recv()
    assert rx.statistics().received == 1


def test_statistics_count_waiting_tasks(variant, step_loop):
    tx, rx = variant.channel(1)
    receiving = [step_loop.create_task(rx.recv()) for _ in range(3)]
    step_loop.run_ready()
    assert tx.statistics().waiting_receivers == 3
    for task in receiving:
        task.cancel()
    step_loop.run_ready()
    assert tx.statistics().waiting_receivers == 0
    tx.try_send(0)
    sending = [step_loop.create_task(tx.send(1)) for _ in range(2)]
    step_loop.run_ready()
    assert tx.statistics().waiting_senders == 2
    for task in sending:
        task.cancel()
    step_loop.run_ready()
    assert tx.statistics().waiting_senders == 0


def test_statistics_count_open_endpoints(clonable):
    tx, rx = clonable.channel(1)
    clones = [tx.clone(), tx.clone()]
    assert rx.statistics().open_senders == 3
    clones.pop()
    assert rx.statistics().open_senders == 2
    tx.close()
    assert rx.statistics().open_senders == 1
    rx.close()
    assert clones[0].statistics().open_receivers == 0


def test_same_channel_knows_the_other_end(variant):
    tx, rx = variant.channel(1)
    assert tx.same_channel(rx)
    assert rx.same_channel(tx)
    assert tx.same_channel(tx)


def test_same_channel_knows_clones(clonable):
    tx, rx = clonable.channel(1)
    assert tx.clone().same_channel(tx)
    assert rx.same_channel(tx.clone())


def test_same_channel_tells_channels_apart(variant):
    tx, rx = variant.channel(1)
    other_tx, other_rx = variant.channel(1)
    assert tx.same_channel(other_tx) is False
    assert tx.same_channel(other_rx) is False
    assert rx.same_channel(other_tx) is False


def test_same_channel_tells_variants_apart():
    spsc_tx, _ = nexus_channels.spsc.channel(1)
    _, mpsc_rx = nexus_channels.mpsc.channel(1)
    assert spsc_tx.same_channel(mpsc_rx) is False


def test_endpoints_are_equal_only_to_themselves_and_hashable(variant):
    tx, rx = variant.channel(1)
    assert {tx: 1}[tx] == 1
    assert tx != rx
    assert len({tx, rx}) == 2


def test_repr_names_the_class(variant):
    tx, rx = variant.channel(7)
    assert "Sender" in repr(tx)
    assert "Receiver" in repr(rx)
    assert repr(variant.channel) == f"<function {variant.__name__}.channel>"


# close and context managers


def test_close_gives_none_and_may_be_repeated(variant):
    for endpoint in variant.channel(1):
        assert endpoint.close() is None
        assert endpoint.close() is None


def test_with_gives_the_endpoint_and_closes_it(variant):
    for endpoint in variant.channel(1):
        with endpoint as entered:
            assert entered is endpoint
            assert not endpoint.is_closed
        assert endpoint.is_closed


def test_async_with_gives_the_endpoint_and_closes_it(variant, run):
    async def main():
        for endpoint in variant.channel(1):
            async with endpoint as entered:
                assert entered is endpoint
                assert not endpoint.is_closed
            assert endpoint.is_closed

    run(main())


# The package


@pytest.mark.parametrize(
    "name", ["Channel", "OpenEnd", "Statistics", "errors", "local", "spsc", "mpsc", "set_debug_ends", "__version__"]
)
def test_package_offers(name):
    assert hasattr(nexus_channels, name)


def test_each_module_exports_its_classes_and_channel(variant):
    assert {"Sender", "Receiver", "channel"} <= set(variant.__all__)
    for name in variant.__all__:
        assert hasattr(variant, name)


def test_classes_say_which_module_they_are_of(variant):
    assert variant.Sender.__module__ == variant.__name__
    assert variant.Receiver.__module__ == variant.__name__
    assert (variant.Sender.__name__, variant.Receiver.__name__) == ("Sender", "Receiver")


def test_each_variant_has_classes_of_its_own():
    modules = [nexus_channels.local, nexus_channels.spsc, nexus_channels.mpsc]
    assert len({module.Sender for module in modules} | {module.Receiver for module in modules}) == 6


def test_every_public_member_has_a_docstring(variant):
    documented = [variant, variant.channel, variant.Sender, variant.Receiver]
    for endpoint in (variant.Sender, variant.Receiver):
        documented += [getattr(endpoint, name) for name in dir(endpoint) if not name.startswith("_")]
    missing = [thing for thing in documented if not inspect.getdoc(thing)]
    assert missing == []


def public_things():
    """Every public class, function, method and property of the package, once, by name.  Exceptions are not used, and so
    promise nothing."""
    found = {}
    for module in ["nexus_channels", *(f"nexus_channels.{name}" for name in PUBLIC_MODULES)]:
        if module.endswith("native") and importlib.util.find_spec("nexus_channels._ffi") is None:
            continue  # a build without cffi
        names = vars(importlib.import_module(module))
        for name in names.get("__all__", names):
            if callable(names[name]) and not name.startswith("_"):
                found.setdefault(id(names[name]), (f"{module}.{name}", names[name]))
    things = {name: thing for name, thing in found.values() if not is_exception(thing)}
    for name, cls in list(things.items()):
        if inspect.isclass(cls):
            things |= {f"{name}.{member}": value for member, value in vars(cls).items() if is_public(member, value)}
    return things


def is_exception(thing):
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def is_public(name, member):
    return not name.startswith("_") and (callable(member) or inspect.isgetsetdescriptor(member))


PUBLIC_MODULES = ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes", "native", "_core"]  # that one has functions, too
ANY_THREAD = (
    r"Safe from any thread(| \(local: its own only\)|; its views are not|; a local channel is for that thread only)"
)
ONE_THREAD = r"elsewhere, to send, receive, clone or close raises WrongThreadError"
THREADS = re.compile(rf"({ANY_THREAD}|{ONE_THREAD})\.$")
NOTHING = r"it (did not send|took nothing|reserved nothing)\. Safe"
PREFIX = r"it sent a prefix, and drops what else it took from an iterator\. Safe"
AWAITED = re.compile(rf"Cancelled or timed out, {NOTHING}|Cancelled, {PREFIX}")
BLOCKING = re.compile(rf"When it raised, {NOTHING}|Interrupted by a signal handler that raises, {PREFIX}")


def keeps_its_contract(name, doc):
    text = " ".join(doc.split())
    method = name.rpartition(".")[2]
    waits = method.startswith(("claim", "send", "recv")) and method not in ("sending", "claiming", "sender")
    early_end = BLOCKING if method.endswith("_blocking") else AWAITED
    return THREADS.search(text) and (not waits or early_end.search(text))


def test_each_docstring_ends_with_what_is_promised_under_cancellation_and_threads():
    docs = {name: inspect.getdoc(thing) or "" for name, thing in public_things().items()}
    lacking = [f"{name}: ...{doc[-100:]}" for name, doc in docs.items() if not keeps_its_contract(name, doc)]
    assert not lacking, "\n\n".join(lacking)


def test_no_docstring_is_wider_than_a_line_of_the_sources():
    for name, thing in public_things().items():
        assert max(map(len, (inspect.getdoc(thing) or "").splitlines())) < 120, name


@pytest.mark.parametrize("name", ["send", "recv"])
def test_signatures_can_be_read(variant, name):
    tx, rx = variant.channel(1)
    method = getattr(tx, name, None) or getattr(rx, name)
    assert inspect.signature(method).parameters["timeout"].default is None


def test_signatures_of_the_classes_begin_with_self(variant):
    """Or unittest.mock.create_autospec makes methods that take one argument too few."""
    for endpoint in (variant.Sender, variant.Receiver):
        methods = [getattr(endpoint, name) for name in dir(endpoint) if not name.startswith("_")]
        first = {
            method.__name__: next(iter(inspect.signature(method).parameters), None)
            for method in methods
            if callable(method)
        }
        assert set(first.values()) == {"self"}, first


def test_classes_cannot_be_changed_from_outside(variant):
    for endpoint in (variant.Sender, variant.Receiver):
        with pytest.raises(TypeError):
            endpoint.send = None


def test_nothing_starts_a_thread_while_channels_are_only_used_without_waiting(threaded):
    before = threading.active_count()
    tx, rx = threaded.channel(1)
    tx.try_send(1)
    rx.try_recv()
    assert threading.active_count() == before
