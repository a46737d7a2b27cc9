"""Wrong arguments to the byte channels: refused at the call, naming value and limit, and nothing is lost."""

import array
import asyncio
import ctypes
import decimal
import importlib.util
import math

import pytest
from support import drive

from nexus_channels import ClaimTooLarge, Empty, EndpointClosed, Full, SendError, SendTimeout, ZeroLengthClaim

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
needs_numpy = pytest.mark.skipif(not HAS_NUMPY, reason="numpy is not installed")

CLAIMS = {
    "try": lambda tx, n: tx.try_claim(n),
    "blocking": lambda tx, n: tx.claim_blocking(n),
    "await": lambda tx, n: tx.claim(n),  # never awaited: wrong arguments are refused at the call
}
SENDS = {
    "try_send": lambda tx, data: tx.try_send(data),
    "send_blocking": lambda tx, data: tx.send_blocking(data),
    "send": lambda tx, data: tx.send(data),
    "try_send_many": lambda tx, data: tx.try_send_many([b"good", data]),
    "send_many_blocking": lambda tx, data: tx.send_many_blocking([b"good", data]),
    "send_many": lambda tx, data: tx.send_many([b"good", data]),
}
RECVS_INTO = {
    "try": lambda rx, target: rx.try_recv_into(target),
    "blocking": lambda rx, target: rx.recv_into_blocking(target),
    "await": lambda rx, target: drive(rx.recv_into(target)),
}

every_claim = pytest.mark.parametrize("claim", [pytest.param(call, id=name) for name, call in CLAIMS.items()])
every_send = pytest.mark.parametrize("send", [pytest.param(call, id=name) for name, call in SENDS.items()])
every_recv_into = pytest.mark.parametrize(
    "recv_into", [pytest.param(call, id=name) for name, call in RECVS_INTO.items()]
)


def works(tx, rx):
    """The channel is empty, and takes and gives the largest message."""
    assert (tx.used, rx.used) == (0, 0)
    with pytest.raises(Empty):
        rx.try_recv()
    tx.try_send(b"w" * tx.max_message_size)
    return rx.try_recv_bytes() == b"w" * tx.max_message_size


def situation_of(module, situation):
    tx, rx = module.channel(64)
    if situation == "full":
        tx.try_send(b"f" * 56)
    elif situation == "closed here":
        tx.close()
    elif situation == "receiver gone":
        rx.close()
    return tx, rx


# Capacity


@pytest.mark.parametrize("capacity", [0, -1, -64, -(2**63), -(2**100)])
def test_a_capacity_below_one_is_a_value_error(bytes_variant, capacity):
    with pytest.raises(ValueError, match="at least 1") as refused:
        bytes_variant.channel(capacity)
    assert str(capacity) in str(refused.value)


@pytest.mark.parametrize("capacity", [True, False, 64.0, "64", b"64", None, math.inf, [], object()])
def test_a_capacity_that_is_no_integer_is_a_type_error(bytes_variant, capacity):
    with pytest.raises(TypeError, match="capacity") as refused:
        bytes_variant.channel(capacity)
    assert type(capacity).__name__ in str(refused.value)


@pytest.mark.parametrize("capacity", [2**58, 2**60, 2**60 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 64, 2**200])
def test_a_capacity_that_no_memory_holds_is_a_memory_error(bytes_variant, capacity):
    with pytest.raises(MemoryError):
        bytes_variant.channel(capacity)


# Sizes of claims


@every_claim
@pytest.mark.parametrize("situation", ["open", "full", "closed here", "receiver gone"])
def test_a_claim_of_nothing_is_refused_at_the_call_whatever_the_state(bytes_variant, claim, situation):
    tx, _rx = situation_of(bytes_variant, situation)
    with pytest.raises(ZeroLengthClaim) as refused:
        claim(tx, 0)
    assert isinstance(refused.value, ValueError)


@every_claim
@pytest.mark.parametrize("situation", ["open", "full", "closed here", "receiver gone"])
def test_pitfall_31_a_claim_that_can_never_fit_is_refused_at_the_call_whatever_the_state(
    bytes_variant, claim, situation
):
    tx, _rx = situation_of(bytes_variant, situation)
    for n in (57, 64, 65, 72, 10**6, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 9, 2**63 - 1, 2**63, 2**64, 2**64 + 8):
        with pytest.raises(ClaimTooLarge, match=r"\b56\b") as refused:
            claim(tx, n)
        assert str(n) in str(refused.value)
        assert isinstance(refused.value, ValueError)


@every_claim
@pytest.mark.parametrize("n", [-1, -8, -(2**31), -(2**63), -(2**64)])
def test_a_negative_size_is_a_value_error(bytes_variant, claim, n):
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(ValueError, match=str(n)):
        claim(tx, n)
    assert works(tx, rx)


@every_claim
@pytest.mark.parametrize("n", [True, False, 8.0, "8", b"8", None, 1j, decimal.Decimal(8), [8], object()])
def test_a_size_that_is_no_integer_is_a_type_error(bytes_variant, claim, n):
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(TypeError) as refused:
        claim(tx, n)
    assert type(n).__name__ in str(refused.value)
    assert works(tx, rx)


def test_a_size_may_be_any_object_with_an_index(bytes_variant):
    class Index:
        def __index__(self):
            return 5

    class Broken:
        def __index__(self):
            raise KeyError("mine")

    tx, _rx = bytes_variant.channel(64)
    with tx.try_claim(Index()) as view:
        assert len(view) == 5
    with pytest.raises(KeyError, match="mine"):
        tx.try_claim(Broken())


def test_a_size_whose_index_closes_or_claims_meanwhile(bytes_variant):
    tx, rx = bytes_variant.channel(64)

    class Index:
        def __init__(self, action):
            self.action = action

        def __index__(self):
            self.kept = self.action()
            return 5

    busy = Index(lambda: tx.try_claim(8))
    with pytest.raises(RuntimeError):
        tx.try_claim(busy)
    busy.kept.abort()
    with pytest.raises(Empty):
        rx.try_recv()
    with pytest.raises(EndpointClosed):
        tx.try_claim(Index(tx.close))


@needs_numpy
def test_numpy_integers_are_sizes_and_capacities(bytes_variant):
    import numpy

    tx, rx = bytes_variant.channel(numpy.int64(100))
    assert tx.capacity == 128
    for kind in (numpy.int8, numpy.uint16, numpy.int32, numpy.uint64, numpy.intp):
        claim = tx.try_claim(kind(12))
        claim.commit(kind(3))
        assert len(rx.try_recv_bytes()) == 3
    for wrong in (numpy.float64(3), numpy.bool_(True)):
        with pytest.raises(TypeError):
            tx.try_claim(wrong)
    with pytest.raises(ClaimTooLarge):
        tx.try_claim(numpy.uint64(2**64 - 1))
    with pytest.raises(ZeroLengthClaim):
        tx.try_claim(numpy.int8(0))


@every_claim
def test_pitfall_34_sizes_near_every_power_of_two_and_limit(bytes_variant, claim):
    tx, rx = bytes_variant.channel(1024)
    for power in (31, 32, 62, 63, 64, 65):
        for near in range(-16, 17):
            with pytest.raises(ClaimTooLarge):
                claim(tx, 2**power + near)
            with pytest.raises(ValueError, match="at least 1"):
                claim(tx, -(2**power) + near)
    assert works(tx, rx)


@pytest.mark.parametrize("capacity", [64, 128, 4096])
def test_pitfall_30_sizes_around_the_limit_are_taken_or_refused_never_waited_for(bytes_variant, capacity):
    tx, rx = bytes_variant.channel(capacity)
    limit = tx.max_message_size
    assert limit == capacity - 8
    for lap in range(8):
        for n in range(limit - 8, capacity + 9):
            data = bytes([n % 251 + 1]) * n
            if n <= limit:
                for send in (tx.try_send, tx.send_blocking, lambda data: drive(tx.send(data))):
                    send(data)
                    assert rx.try_recv_bytes() == data
                drive(tx.claim(n)).abort()
                with pytest.raises(Empty):
                    rx.try_recv()
            else:
                for call in CLAIMS.values():
                    with pytest.raises(ClaimTooLarge, match=str(limit)):
                        call(tx, n)
                for call in SENDS.values():
                    with pytest.raises(ClaimTooLarge, match=str(limit)):
                        call(tx, data)
        tx.try_send(b"m" * min(8 * lap + 1, limit))  # so that the next lap begins elsewhere
        rx.try_recv_bytes()
    assert works(tx, rx)


# Buffers to send


@every_send
@pytest.mark.parametrize(
    "data", [b"", bytearray(), memoryview(b""), memoryview(b"abc")[3:], array.array("q"), memoryview(b"abcd")[::2][2:]]
)
def test_pitfall_35_an_empty_message_is_refused(bytes_variant, send, data):
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(ZeroLengthClaim):
        send(tx, data)
    assert works(tx, rx)


@every_send
@pytest.mark.parametrize(
    "data",
    [
        memoryview(b"0123456789")[::2],
        memoryview(b"0123456789")[::-1],
        pytest.param("numpy", marks=needs_numpy),
        pytest.param("fortran", marks=needs_numpy),
    ],
    ids=["every second", "reversed", "numpy column", "numpy fortran order"],
)
def test_pitfall_35_a_buffer_that_is_not_contiguous_is_refused(bytes_variant, send, data):
    if isinstance(data, str):
        import numpy

        table = numpy.arange(12, dtype="u1").reshape(3, 4)
        data = table[:, 1] if data == "numpy" else numpy.asfortranarray(table)
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(BufferError, match="contiguous"):
        send(tx, data)
    assert works(tx, rx)


@every_send
@pytest.mark.parametrize("data", ["text", 5, None, 1.5, [1, 2], object(), {1: 2}], ids=lambda data: type(data).__name__)
def test_what_is_no_buffer_is_refused(bytes_variant, send, data):
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(TypeError):
        send(tx, data)
    assert works(tx, rx)


@every_send
def test_a_released_view_is_refused(bytes_variant, send):
    tx, rx = bytes_variant.channel(64)
    view = memoryview(b"released")
    view.release()
    with pytest.raises(ValueError, match="released"):
        send(tx, view)
    assert works(tx, rx)


def test_pitfall_35_read_only_and_many_dimensional_buffers_can_be_sent(bytes_variant):
    tx, rx = bytes_variant.channel(128)
    for data in (
        memoryview(b"read only"),
        memoryview(bytearray(24)).cast("B", (2, 3, 4)),
        (ctypes.c_int * 3 * 2)(),
        (ctypes.c_char * 5)(*b"chars"),
    ):
        tx.try_send(data)
        assert rx.try_recv_bytes() == memoryview(data).tobytes()


@pytest.mark.parametrize("form", ["try_send_many", "send_many", "send_many_blocking"])
def test_a_batch_is_checked_whole_before_any_of_it_is_sent(bytes_variant, form):
    tx, rx = bytes_variant.channel(256)
    for bad, error in (
        (b"", ZeroLengthClaim),
        (b"x" * 249, ClaimTooLarge),
        ("text", TypeError),
        (memoryview(b"abcd")[::2], BufferError),
    ):
        for messages in ([bad, b"good"], [b"good", b"good", bad]):
            with pytest.raises(error):
                getattr(tx, form)(messages)
    for no_iterable in (5, None):
        with pytest.raises(TypeError):
            getattr(tx, form)(no_iterable)
    assert works(tx, rx)


def test_an_iterator_that_raises_sends_what_came_before(bytes_variant):
    def messages():
        yield b"first"
        raise KeyError("mine")

    tx, rx = bytes_variant.channel(64)
    for call in (lambda it: drive(tx.send_many(it)), tx.send_many_blocking, tx.try_send_many):
        with pytest.raises(KeyError, match="mine"):
            call(messages())
        assert rx.try_recv_many(9) == [b"first"]
    assert works(tx, rx)


# Buffers to receive into


@every_recv_into
@pytest.mark.parametrize("size", [0, 1, 4, 11])
def test_a_target_that_is_too_small_is_refused_with_both_sizes_and_the_message_stays(bytes_variant, recv_into, size):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"twelve bytes")
    target = bytearray(b"-" * size)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"\b12\b") as refused:
            recv_into(rx, target)
        assert str(size) in str(refused.value)
    assert target == b"-" * size
    assert rx._dump() == [(0, "message", 12)]
    target = bytearray(12)
    assert recv_into(rx, target) == 12
    assert target == b"twelve bytes"
    assert works(tx, rx)


def test_a_target_found_too_small_after_a_wait_leaves_the_message_to_the_next(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    small = step_loop.create_task(rx.recv_into(bytearray(3)))
    behind = step_loop.create_task(rx.recv_bytes())
    step_loop.run_ready()
    step_loop.call(tx.try_send, b"larger")
    step_loop.run_ready()
    assert type(small.exception()) is ValueError
    assert behind.result() == b"larger"


@every_recv_into
@pytest.mark.parametrize("target", [b"read only, and long enough", memoryview(bytes(64))])
def test_pitfall_35_a_read_only_target_is_refused_and_the_message_stays(bytes_variant, recv_into, target):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"stays")
    with pytest.raises((TypeError, BufferError), match="writable"):
        recv_into(rx, target)
    assert rx.try_recv_bytes() == b"stays"


@every_recv_into
@pytest.mark.parametrize(
    "target", [memoryview(bytearray(64))[::2], memoryview(bytearray(64))[::-1]], ids=["every second", "reversed"]
)
def test_pitfall_35_a_target_that_is_not_contiguous_is_refused_and_the_message_stays(bytes_variant, recv_into, target):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"stays")
    with pytest.raises(BufferError, match="contiguous"):
        recv_into(rx, target)
    assert bytes(target) == bytes(len(target))
    assert rx.try_recv_bytes() == b"stays"


@every_recv_into
@pytest.mark.parametrize("target", ["text", 5, None, [0] * 64], ids=lambda target: type(target).__name__)
def test_a_target_that_is_no_buffer_is_refused_and_the_message_stays(bytes_variant, recv_into, target):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"stays")
    with pytest.raises(TypeError):
        recv_into(rx, target)
    assert rx.try_recv_bytes() == b"stays"


def test_pitfall_35_a_target_of_many_dimensions_is_filled_in_memory_order(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    memory = bytearray(12)
    tx.try_send(b"0123456789ab")
    assert rx.try_recv_into(memoryview(memory).cast("B", (3, 4))) == 12
    assert memory == b"0123456789ab"


def test_a_target_cannot_be_resized_while_a_receive_waits_for_it(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    target = bytearray(8)
    task = step_loop.create_task(rx.recv_into(target))
    step_loop.run_ready()
    with pytest.raises(BufferError):
        target.clear()
    step_loop.call(tx.try_send, b"12345678")
    step_loop.run_ready()
    assert task.result() == 8
    del task
    assert target == b"12345678"
    target.clear()


def test_a_receive_into_the_memory_of_a_claim(bytes_variant):
    """From ring to ring with one copy."""
    tx, rx = bytes_variant.channel(64)
    further, end = bytes_variant.channel(64)
    tx.try_send(b"12345678")
    with further.try_claim(8) as view:
        assert rx.try_recv_into(view) == 8
    tx.try_send(b"abcdefgh")
    claim = further.try_claim(8)
    assert rx.try_recv_into(claim) == 8
    claim.commit()
    assert end.try_recv_many(3) == [b"12345678", b"abcdefgh"]


# Counts and timeouts


@pytest.mark.parametrize("form", ["recv_many", "recv_many_blocking", "try_recv_many"])
def test_counts_of_recv_many(bytes_variant, form):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"stays")
    for n in (0, -1, -(2**63), -(2**70)):
        with pytest.raises(ValueError, match="at least 1"):
            getattr(rx, form)(n)
    for n in (True, 1.0, "1", None):
        with pytest.raises(TypeError):
            getattr(rx, form)(n)
    for n in (2**31, 2**63 - 1, 2**63, 2**100):
        result = getattr(rx, form)(n)
        assert (drive(result) if form == "recv_many" else result) == [b"stays"]
        tx.try_send(b"stays")


TIMED = {
    "claim": lambda tx, rx, t: tx.claim(8, timeout=t),
    "claim_blocking": lambda tx, rx, t: tx.claim_blocking(8, timeout=t),
    "send": lambda tx, rx, t: tx.send(b"x", timeout=t),
    "send_blocking": lambda tx, rx, t: tx.send_blocking(b"x", timeout=t),
    "send_many": lambda tx, rx, t: tx.send_many([b"x"], timeout=t),
    "send_many_blocking": lambda tx, rx, t: tx.send_many_blocking([b"x"], timeout=t),
    "recv": lambda tx, rx, t: rx.recv(timeout=t),
    "recv_blocking": lambda tx, rx, t: rx.recv_blocking(timeout=t),
    "recv_bytes": lambda tx, rx, t: rx.recv_bytes(timeout=t),
    "recv_bytes_blocking": lambda tx, rx, t: rx.recv_bytes_blocking(timeout=t),
    "recv_into": lambda tx, rx, t: rx.recv_into(bytearray(8), timeout=t),
    "recv_into_blocking": lambda tx, rx, t: rx.recv_into_blocking(bytearray(8), timeout=t),
    "recv_many": lambda tx, rx, t: rx.recv_many(1, timeout=t),
    "recv_many_blocking": lambda tx, rx, t: rx.recv_many_blocking(1, timeout=t),
}


@pytest.mark.parametrize("name", TIMED)
def test_wrong_timeouts_are_refused_at_the_call(bytes_variant, name):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"there")
    for timeout in (-1, -0.001, math.nan, -math.inf):
        with pytest.raises(ValueError, match="timeout"):
            TIMED[name](tx, rx, timeout)
    for timeout in (True, "1", b"1", 1j, [1], object()):
        with pytest.raises(TypeError):
            TIMED[name](tx, rx, timeout)
    assert rx.try_recv_bytes() == b"there"
    assert works(tx, rx)


@pytest.mark.parametrize("name", TIMED)
def test_wrong_argument_lists_are_type_errors(bytes_variant, name):
    tx, rx = bytes_variant.channel(64)
    method = getattr(tx if name.startswith(("claim", "send")) else rx, name)
    for args, kwargs in (((1, 2, 3, 4), {}), ((), {"nonsense": 1})):
        with pytest.raises(TypeError):
            method(*args, **kwargs)
    assert works(tx, rx)


def test_waiting_outside_a_loop_is_a_runtime_error_and_loses_nothing(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    for call in (rx.recv, rx.recv_bytes, lambda: rx.recv_into(bytearray(8)), lambda: rx.recv_many(1)):
        with pytest.raises(RuntimeError):
            call().send(None)
    tx.try_send(b"f" * 56)
    for call in (lambda: tx.claim(1), lambda: tx.send(b"x"), lambda: tx.send_many([b"x"])):
        with pytest.raises(RuntimeError):
            call().send(None)
    assert rx.try_recv_bytes() == b"f" * 56
    assert works(tx, rx)
    stats = rx.statistics()
    assert (stats.waiting_senders, stats.waiting_receivers) == (0, 0)


def test_awaiting_twice_is_a_runtime_error_and_loses_nothing(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def main():
        receiving = rx.recv_bytes()
        tx.try_send(b"1")
        assert await receiving == b"1"
        with pytest.raises(RuntimeError):
            await receiving
        claiming = tx.claim(1)
        (await claiming).abort()
        with pytest.raises(RuntimeError):
            await claiming
        waiting = rx.recv_bytes()
        task = asyncio.create_task(waiting)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await waiting
        tx.try_send(b"2")
        assert await task == b"2"

    run(main())
    assert works(tx, rx)


@pytest.mark.parametrize("reason", ["receiver gone", "timeout"])
@pytest.mark.parametrize("form", ["send", "send_blocking", "send_many", "send_many_blocking"])
@pytest.mark.parametrize(
    "data",
    [b"bytes", bytearray(b"x"), memoryview(b"abcdef")[2:4], array.array("i", [1])],
    ids=lambda data: type(data).__name__,
)
def test_a_failed_send_has_the_very_buffer_that_was_passed(bytes_variant, form, data, reason):
    tx, _rx = situation_of(bytes_variant, "full" if reason == "timeout" else reason)
    with pytest.raises(SendError if reason == "receiver gone" else SendTimeout) as error:
        result = getattr(tx, form)([data] if "many" in form else data, timeout=0)
        drive(result)
    value = error.value.value[0] if "many" in form else error.value.value
    assert value is data


@pytest.mark.parametrize("situation", ["full", "receiver gone"])
def test_a_failed_try_send_has_the_very_buffer_that_was_passed(bytes_variant, situation):
    tx, _rx = situation_of(bytes_variant, situation)
    for data in (b"bytes", bytearray(b"x"), memoryview(b"abcdef")[2:4]):
        with pytest.raises((SendError, Full)) as error:
            tx.try_send(data)
        assert error.value.value is data
