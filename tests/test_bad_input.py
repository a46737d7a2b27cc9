"""Wrong arguments and wrong use: refused at the call, by a message that names value and limit, and nothing is lost."""

import asyncio
import decimal
import fractions
import math
import re
import sys

import pytest
from support import drive, turns

import nexus_channels
from nexus_channels import Empty, EndpointClosed, RecvTimeout, SendTimeout, WrongThreadError

# Capacity


@pytest.mark.parametrize("capacity", [0, -1, -3, -(2**31), -(2**63), -(2**100)])
def test_a_capacity_below_one_is_a_value_error_that_names_value_and_limit(variant, capacity):
    with pytest.raises(ValueError, match=r"at least 1") as refused:
        variant.channel(capacity)
    assert str(capacity) in str(refused.value)


@pytest.mark.parametrize(
    "capacity", [True, False, 1.0, 3.5, math.nan, math.inf, "3", b"3", None, [], (3,), object(), 1j]
)
def test_a_capacity_that_is_no_integer_is_a_type_error(variant, capacity):
    with pytest.raises(TypeError, match="capacity") as refused:
        variant.channel(capacity)
    assert type(capacity).__name__ in str(refused.value)


@pytest.mark.parametrize("capacity", [2**48, 2**60, 2**61, 2**62, sys.maxsize, 2**63, 2**64, 2**64 + 1, 10**30])
def test_a_capacity_beyond_memory_is_a_memory_error(variant, capacity):
    with pytest.raises(MemoryError, match="no memory for a channel of") as refused:
        variant.channel(capacity)
    assert ("at least" in str(refused.value)) == (capacity >= sys.maxsize)


def test_an_error_in_index_is_passed_on(variant):
    class Broken:
        def __index__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        variant.channel(Broken())


def test_a_second_argument_or_an_unknown_name_is_a_type_error(variant):
    with pytest.raises(TypeError):
        variant.channel(1, 2)
    with pytest.raises(TypeError):
        variant.channel(size=1)


# Timeouts

FORMS = {
    "send": lambda tx, rx, timeout: tx.send(1, timeout=timeout),
    "recv": lambda tx, rx, timeout: rx.recv(timeout=timeout),
    "send_blocking": lambda tx, rx, timeout: tx.send_blocking(1, timeout=timeout),
    "recv_blocking": lambda tx, rx, timeout: rx.recv_blocking(timeout=timeout),
    "send_many_blocking": lambda tx, rx, timeout: tx.send_many_blocking([1], timeout=timeout),
    "recv_many_blocking": lambda tx, rx, timeout: rx.recv_many_blocking(1, timeout=timeout),
}
CASES = [
    (module, form)
    for module in ("local", "spsc", "mpsc")
    for form in FORMS
    if not (module == "local" and form.endswith("blocking"))
]
# Only the call is made: what it gives back is not awaited.
timed = pytest.mark.parametrize(("module", "form"), CASES, ids=[f"{module}-{form}" for module, form in CASES])


def _call(module, form, timeout):
    tx, rx = getattr(nexus_channels, module).channel(1)
    if form.startswith("recv"):
        tx.try_send(1)
    return FORMS[form](tx, rx, timeout)


@timed
@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan, -(10**400), fractions.Fraction(-1, 2)])
def test_a_negative_or_nan_timeout_is_a_value_error_at_the_call(module, form, timeout):
    with pytest.raises(ValueError, match="timeout"):
        _call(module, form, timeout)


@timed
def test_the_message_about_a_timeout_names_the_value(module, form):
    with pytest.raises(ValueError, match=re.escape("-2.5")):
        _call(module, form, -2.5)


@timed
@pytest.mark.parametrize("timeout", [True, False, "1", b"1", [], object(), 1j])
def test_a_timeout_that_is_no_real_number_is_a_type_error_at_the_call(module, form, timeout):
    with pytest.raises(TypeError, match="timeout") as refused:
        _call(module, form, timeout)
    assert type(timeout).__name__ in str(refused.value)


class Seconds:
    def __float__(self):
        return 0.25


@timed
@pytest.mark.parametrize(
    "timeout",
    [
        None,
        0,
        1,
        0.0,
        -0.0,
        5e-324,
        1e308,
        math.inf,
        10**400,
        fractions.Fraction(1, 3),
        decimal.Decimal("0.5"),
        Seconds(),
    ],
    ids=lambda timeout: repr(timeout)[:20],
)
def test_any_real_number_is_a_timeout(module, form, timeout):
    _call(module, form, timeout)


@timed
def test_an_error_in_float_is_passed_on(module, form):
    class Broken:
        def __float__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _call(module, form, Broken())


def test_a_refused_timeout_sends_and_takes_nothing(variant):
    tx, rx = variant.channel(2)
    tx.try_send("kept")
    with pytest.raises(ValueError, match="timeout"):
        tx.send("not sent", timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        rx.recv(timeout=-1)
    assert rx.try_recv_many(9) == ["kept"]


# Missing, surplus and unknown arguments

SENDER_CALLS = ["send", "try_send", "send_many", "try_send_many", "send_blocking", "send_many_blocking"]
RECEIVER_CALLS = ["recv_many", "try_recv_many", "recv_many_blocking"]


@pytest.mark.parametrize("name", SENDER_CALLS + RECEIVER_CALLS)
def test_a_missing_argument_is_a_type_error(threaded, name):
    tx, rx = threaded.channel(1)
    with pytest.raises(TypeError):
        getattr(tx if "send" in name else rx, name)()


@pytest.mark.parametrize("name", [*SENDER_CALLS, *RECEIVER_CALLS, "recv", "try_recv", "recv_blocking"])
def test_surplus_and_unknown_arguments_are_type_errors(threaded, name):
    tx, rx = threaded.channel(1)
    method = getattr(tx if "send" in name else rx, name)
    with pytest.raises(TypeError):
        method([1], None, None, None)
    with pytest.raises(TypeError):
        method([1], patience=3)


@pytest.mark.parametrize("name", ["close", "clone", "statistics"])
def test_methods_without_arguments_take_none(name):
    tx, _rx = nexus_channels.mpsc.channel(1)
    with pytest.raises(TypeError):
        getattr(tx, name)(1)


# Batches


@pytest.mark.parametrize("n", [0, -1, -(2**63), -(2**100)])
@pytest.mark.parametrize("name", ["recv_many", "try_recv_many", "recv_many_blocking"])
def test_receiving_fewer_than_one_is_a_value_error_at_the_call(threaded, name, n):
    tx, rx = threaded.channel(1)
    tx.try_send("kept")
    with pytest.raises(ValueError, match="at least 1") as refused:
        getattr(rx, name)(n)
    assert str(n) in str(refused.value)
    assert rx.try_recv() == "kept"


@pytest.mark.parametrize("n", [1.0, "1", None, [1], object()])
@pytest.mark.parametrize("name", ["recv_many", "try_recv_many", "recv_many_blocking"])
def test_receiving_a_number_that_is_no_integer_is_a_type_error_at_the_call(threaded, name, n):
    tx, rx = threaded.channel(1)
    tx.try_send("kept")
    with pytest.raises(TypeError):
        getattr(rx, name)(n)
    assert rx.try_recv() == "kept"


@pytest.mark.parametrize("items", [1, None, 2.5, object()])
@pytest.mark.parametrize("name", ["send_many", "try_send_many", "send_many_blocking"])
def test_sending_many_of_what_is_not_iterable_is_a_type_error_at_the_call(threaded, name, items):
    tx, rx = threaded.channel(1)
    with pytest.raises(TypeError):
        getattr(tx, name)(items)
    assert len(rx) == 0


@pytest.mark.parametrize("name", ["send_many", "send_many_blocking"])
def test_an_error_in_an_iterator_is_passed_on_when_what_came_before_is_sent(threaded, name):
    def broken():
        yield 1
        raise ZeroDivisionError

    tx, rx = threaded.channel(3)
    with pytest.raises(ZeroDivisionError):
        call = getattr(tx, name)(broken())
        drive(call)
    assert rx.try_recv_many(3) == [1]


def test_same_channel_takes_endpoints_only(variant):
    for endpoint in variant.channel(1):
        for other in (None, 1, "tx", object()):
            with pytest.raises(TypeError):
                endpoint.same_channel(other)


# Awaiting wrongly

NO_LOOP = r"(?i)event loop|asyncio"


def test_a_wait_outside_an_event_loop_is_a_runtime_error_and_takes_nothing(variant):
    tx, rx = variant.channel(1)
    with pytest.raises(RuntimeError, match=NO_LOOP):
        drive(rx.recv())
    assert rx.statistics().waiting_receivers == 0
    tx.try_send("kept")
    assert rx.try_recv() == "kept"


def test_a_wait_to_send_outside_an_event_loop_is_a_runtime_error_and_sends_nothing(variant):
    tx, rx = variant.channel(1)
    tx.try_send("first")
    with pytest.raises(RuntimeError, match=NO_LOOP):
        drive(tx.send("second"))
    assert tx.statistics().waiting_senders == 0
    assert rx.try_recv_many(9) == ["first"]


def test_a_timed_wait_outside_an_event_loop_is_a_runtime_error(variant):
    _tx, rx = variant.channel(1)
    with pytest.raises(RuntimeError, match=NO_LOOP):
        drive(rx.recv(timeout=1))


def test_a_batch_that_must_wait_outside_an_event_loop_sent_what_its_error_tells(variant):
    tx, rx = variant.channel(2)
    with pytest.raises(RuntimeError, match=NO_LOOP):
        drive(tx.send_many([1, 2, 3]))
    sent = rx.try_recv_many(9)
    assert sent == [1, 2, 3][: len(sent)]
    assert tx.statistics().waiting_senders == 0


def test_what_need_not_wait_needs_no_event_loop(variant):
    tx, rx = variant.channel(2)
    drive(tx.send(1))
    drive(tx.send_many([2]))
    assert drive(rx.recv()) == 1
    assert drive(rx.recv_many(5)) == [2]


def test_a_wait_under_a_loop_of_another_kind_is_a_runtime_error_and_loses_nothing(variant):
    tx, rx = variant.channel(1)

    async def main():
        with pytest.raises(RuntimeError, match=NO_LOOP):
            await rx.recv()
        await tx.send("ready")
        with pytest.raises(RuntimeError, match=NO_LOOP):
            await tx.send("waits")
        return await rx.recv()

    assert drive(main()) == "ready"
    assert rx.statistics().waiting_receivers == 0
    assert tx.statistics().waiting_senders == 0


def test_the_error_names_the_loops_that_are_supported_and_the_blocking_form(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    for awaitable, blocking in (
        (tx.send(b"x"), "send_blocking()"),
        (tx.send_many([b"x"]), "send_many_blocking()"),
        (tx.claim(8), "claim_blocking()"),
    ):
        with pytest.raises(RuntimeError) as raised:
            drive(awaitable)
        assert all(word in str(raised.value) for word in ("asyncio", "trio", blocking))
    rx.try_recv_many(9)
    for awaitable, blocking in (
        (rx.recv(), "recv_blocking()"),
        (rx.recv_bytes(), "recv_bytes_blocking()"),
        (rx.recv_into(bytearray(8)), "recv_into_blocking()"),
        (rx.recv_many(2), "recv_many_blocking()"),
        (anext(aiter(rx)), "a plain for loop"),
    ):
        with pytest.raises(RuntimeError) as raised:
            drive(awaitable)
        assert all(word in str(raised.value) for word in ("asyncio", "trio", blocking))


REUSED = r"(?i)already|twice|reuse|once"


def test_a_finished_awaitable_cannot_be_awaited_again_and_takes_nothing(variant, run):
    tx, rx = variant.channel(2)
    tx.try_send_many([1, 2])

    async def main():
        receiving = rx.recv()
        assert await receiving == 1
        with pytest.raises(RuntimeError, match=REUSED):
            await receiving

    run(main())
    assert rx.try_recv() == 2


def test_a_finished_send_cannot_be_awaited_again_and_sends_once(variant, run):
    tx, rx = variant.channel(2)

    async def main():
        sending = tx.send("once")
        await sending
        with pytest.raises(RuntimeError, match=REUSED):
            await sending

    run(main())
    assert rx.try_recv_many(9) == ["once"]


def test_a_failed_awaitable_cannot_be_awaited_again(variant, run):
    tx, rx = variant.channel(1)

    async def main():
        receiving = rx.recv(timeout=0)
        with pytest.raises(RecvTimeout):
            await receiving
        tx.try_send("kept")
        with pytest.raises(RuntimeError, match=REUSED):
            await receiving

    run(main())
    assert rx.try_recv() == "kept"


def test_a_waiting_awaitable_cannot_be_awaited_by_a_second_task(variant, run):
    tx, rx = variant.channel(2)

    async def wait_for(awaitable):
        return await awaitable

    async def main():
        receiving = rx.recv()
        first = asyncio.create_task(wait_for(receiving))
        await turns()
        second = asyncio.create_task(wait_for(receiving))
        await turns(2)
        with pytest.raises(RuntimeError, match=REUSED):
            await second
        tx.try_send_many(["for the first", "kept"])
        return await first

    assert run(main()) == "for the first"
    assert rx.try_recv() == "kept"


def test_a_waiting_send_awaited_by_a_second_task_is_sent_once(variant, run):
    tx, rx = variant.channel(1)
    tx.try_send(0)

    async def wait_for(awaitable):
        return await awaitable

    async def main():
        sending = tx.send("once")
        first = asyncio.create_task(wait_for(sending))
        await turns()
        second = asyncio.create_task(wait_for(sending))
        await turns(2)
        with pytest.raises(RuntimeError, match=REUSED):
            await second
        assert await rx.recv() == 0
        await first
        assert await rx.recv() == "once"

    run(main())
    with pytest.raises(Empty):
        rx.try_recv()


def test_an_awaitable_is_no_async_iterator_and_no_context_manager(variant):
    tx, _rx = variant.channel(1)
    sending = tx.send(1)
    for protocol in ("__aiter__", "__enter__", "__aenter__"):
        assert not hasattr(sending, protocol)


def test_an_awaitable_cannot_be_made_without_an_endpoint(variant):
    tx, _rx = variant.channel(1)
    with pytest.raises(TypeError):
        type(tx.send(1))()


# Closed endpoints


@pytest.mark.parametrize("name", ["send", "try_send", "send_many", "try_send_many", "clone"])
def test_every_use_of_a_closed_sender_raises_endpoint_closed(clonable, name):
    tx, _rx = clonable.channel(1)
    tx.close()
    arguments = {"clone": [], "send": [1], "try_send": [1]}.get(name, [[1]])
    with pytest.raises(EndpointClosed):
        result = getattr(tx, name)(*arguments)
        drive(result)


@pytest.mark.parametrize("name", ["recv", "try_recv", "recv_many", "try_recv_many"])
def test_every_use_of_a_closed_receiver_raises_endpoint_closed(variant, name):
    _tx, rx = variant.channel(1)
    rx.close()
    with pytest.raises(EndpointClosed):
        result = getattr(rx, name)(*([1] if "many" in name else []))
        drive(result)


def test_a_closed_endpoint_can_still_be_asked_about_itself(variant):
    tx, rx = variant.channel(3)
    tx.close()
    rx.close()
    for endpoint in (tx, rx):
        assert endpoint.is_closed
        assert endpoint.is_disconnected
        assert endpoint.capacity == 3
        assert endpoint.statistics().open_senders == 0
        assert len(endpoint) == 0
        assert repr(endpoint)
    assert tx.same_channel(rx)


# local off its thread

OFF_THREAD = {
    "send": lambda tx, rx: drive(tx.send(1)),
    "try_send": lambda tx, rx: tx.try_send(1),
    "send_many": lambda tx, rx: drive(tx.send_many([1])),
    "try_send_many": lambda tx, rx: tx.try_send_many([1]),
    "recv": lambda tx, rx: drive(rx.recv()),
    "try_recv": lambda tx, rx: rx.try_recv(),
    "recv_many": lambda tx, rx: drive(rx.recv_many(1)),
    "try_recv_many": lambda tx, rx: rx.try_recv_many(1),
    "async for": lambda tx, rx: drive(anext(aiter(rx))),
    "clone": lambda tx, rx: tx.clone(),
    "close the sender": lambda tx, rx: tx.close(),
    "close the receiver": lambda tx, rx: rx.close(),
}


@pytest.mark.parametrize("form", OFF_THREAD)
def test_local_off_its_thread_raises_wrong_thread_error_and_changes_nothing(spawn, form):
    tx, rx = nexus_channels.local.channel(3)
    tx.try_send("kept")
    thread = spawn(OFF_THREAD[form], tx, rx)
    with pytest.raises(WrongThreadError, match="(?i)thread"):
        thread.join()
    assert not tx.is_closed
    assert not rx.is_closed
    assert rx.statistics().open_senders == 1
    assert rx.try_recv_many(9) == ["kept"]


def test_local_awaited_off_its_thread_raises_wrong_thread_error(spawn):
    tx, rx = nexus_channels.local.channel(3)
    sending = tx.send(1)
    thread = spawn(drive, sending)
    with pytest.raises(WrongThreadError):
        thread.join()
    assert len(rx) == 0


def test_a_local_channel_belongs_to_the_thread_that_created_it(spawn):
    def create_and_use():
        tx, rx = nexus_channels.local.channel(1)
        tx.try_send("own thread")
        return rx.try_recv(), tx, rx

    received, tx, _rx = spawn(create_and_use).join()
    assert received == "own thread"
    with pytest.raises(WrongThreadError):
        tx.try_send(1)


def test_other_variants_are_usable_off_the_thread_that_created_them(threaded, spawn):
    tx, rx = threaded.channel(1)
    spawn(tx.try_send, 1).join()
    assert spawn(rx.try_recv).join() == 1


def test_a_timeout_of_a_failed_send_is_not_confused_with_the_value(variant):
    tx, _rx = variant.channel(1)
    tx.try_send(0)
    with pytest.raises(SendTimeout) as failed:
        drive(tx.send(0.5, 0))
    assert failed.value.value == 0.5
