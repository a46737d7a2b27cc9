"""Every row of the byte channels' API, from both ends: what is given back, and what it does to the channel."""

import array
import asyncio
import copy
import inspect
import io
import mmap
import pickle
import struct
import weakref

import pytest
from support import collect, drive, turns, until_blocked, until_parked

import nexus_channels
from nexus_channels import (
    ClaimDisconnected,
    ClaimFull,
    ClaimTimeout,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
    mpsc_bytes,
    spsc_bytes,
)

HEADER = 8


def extent(size):
    """Bytes of the ring that a message of so many bytes takes."""
    return HEADER + (size + 7) // 8 * 8


def fill(tx, leave=0):
    """Leave exactly so many bytes of room."""
    tx.try_send(b"f" * (tx.capacity - tx.used - leave - HEADER))
    assert tx.capacity - tx.used == leave


# Opening


def test_channel_gives_a_named_pair(bytes_variant):
    pair = bytes_variant.channel(64)
    assert isinstance(pair, nexus_channels.Channel)
    assert pair.sender is pair[0] and pair.receiver is pair[1]
    assert type(pair.sender) is bytes_variant.Sender
    assert type(pair.receiver) is bytes_variant.Receiver


@pytest.mark.parametrize(
    ("wish", "capacity"),
    [(1, 64), (8, 64), (63, 64), (64, 64), (65, 128), (128, 128), (129, 256), (1000, 1024), (4097, 8192)],
)
def test_capacity_is_rounded_up_to_a_power_of_two_of_at_least_64(bytes_variant, wish, capacity):
    for end in bytes_variant.channel(wish):
        assert end.capacity == capacity
        assert end.max_message_size == capacity - HEADER
        assert end.statistics().capacity == capacity


def test_capacity_may_be_given_by_name(bytes_variant):
    assert bytes_variant.channel(capacity=64).sender.capacity == 64


def test_capacity_may_be_any_object_with_an_index(bytes_variant):
    class Index:
        def __index__(self):
            return 100

    assert bytes_variant.channel(Index()).sender.capacity == 128


def test_endpoints_cannot_be_made_without_a_channel(bytes_variant):
    for cls in (bytes_variant.Sender, bytes_variant.Receiver, bytes_variant.WriteClaim, bytes_variant.ReadClaim):
        with pytest.raises(TypeError):
            cls()


def test_each_module_exports_its_classes_and_channel(bytes_variant):
    assert set(bytes_variant.__all__) >= {"Sender", "Receiver", "WriteClaim", "ReadClaim", "channel"}
    assert bytes_variant.Sender.__module__ == bytes_variant.__name__
    assert bytes_variant.Receiver.__module__ == bytes_variant.__name__


def test_every_public_method_has_a_docstring(bytes_variant):
    for cls in (bytes_variant.Sender, bytes_variant.Receiver, bytes_variant.WriteClaim, bytes_variant.ReadClaim):
        assert inspect.getdoc(cls)
        for name, member in vars(cls).items():
            assert name.startswith("_") or inspect.getdoc(member), f"{cls.__name__}.{name}"


# Copying forms


def test_try_send_and_try_recv_bytes(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert tx.try_send(b"hello") is None
    got = rx.try_recv_bytes()
    assert type(got) is bytes and got == b"hello"


def test_awaited_send_and_recv_bytes(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert drive(tx.send(b"hello")) is None
    got = drive(rx.recv_bytes())
    assert type(got) is bytes and got == b"hello"


def test_blocking_send_and_recv_bytes(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert tx.send_blocking(b"hello") is None
    got = rx.recv_bytes_blocking()
    assert type(got) is bytes and got == b"hello"


@pytest.mark.parametrize("form", ["await", "blocking", "try"])
def test_recv_into_gives_the_size_and_leaves_the_rest_of_the_buffer_alone(bytes_variant, form):
    tx, rx = bytes_variant.channel(64)
    target = bytearray(b"-" * 10)
    tx.try_send(b"hello")
    if form == "await":
        size = drive(rx.recv_into(target))
    elif form == "blocking":
        size = rx.recv_into_blocking(target)
    else:
        size = rx.try_recv_into(target)
    assert size == 5
    assert target == b"hello-----"
    assert rx.used == 0


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(b"a part")[2:],
        memoryview(b"12345678").cast("I"),
        memoryview(b"123456789012").cast("B", (3, 4)),
        array.array("d", [1.5, 2.5]),
        struct.pack("<qd", 7, 1.25),
        type("Bytes", (bytes,), {})(b"a subclass"),
    ],
    ids=lambda data: f"{type(data).__name__}-{len(bytes(data))}",
)
def test_send_takes_any_contiguous_buffer(bytes_variant, data):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(data)
    assert rx.try_recv_bytes() == bytes(data)
    tx.send_blocking(data)
    assert rx.try_recv_bytes() == bytes(data)
    drive(tx.send(data))
    assert rx.try_recv_bytes() == bytes(data)
    tx.try_send_many([data])
    assert rx.try_recv_bytes() == bytes(data)


def test_send_takes_a_claim_of_another_channel(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    further, end = bytes_variant.channel(64)
    tx.try_send(b"passed on")
    with rx.try_recv() as view:
        further.try_send(view)
    assert end.try_recv_bytes() == b"passed on"
    tx.try_send(b"claimed")
    claim = rx.try_recv()
    further.try_send(claim)
    claim.release()
    assert end.try_recv_bytes() == b"claimed"


@pytest.mark.parametrize("make", [lambda: bytearray(16), lambda: array.array("q", [0, 0]), lambda: mmap.mmap(-1, 16)])
def test_recv_into_takes_any_writable_contiguous_buffer(bytes_variant, make):
    tx, rx = bytes_variant.channel(64)
    target = make()
    tx.try_send(b"0123456789abcdef")
    assert rx.try_recv_into(target) == 16
    assert bytes(memoryview(target).cast("B")) == b"0123456789abcdef"


def test_the_data_is_copied_when_it_is_sent(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    data = bytearray(b"before")
    tx.try_send(data)
    data[:] = b"after!"
    assert rx.try_recv_bytes() == b"before"


def test_a_waiting_send_keeps_its_buffer_from_being_resized_and_lets_go_of_it(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    fill(tx)
    data = bytearray(b"twelve bytes")
    task = step_loop.create_task(tx.send(data))
    step_loop.run_ready()
    with pytest.raises(BufferError):
        data.append(1)
    rx.try_recv_bytes()
    step_loop.run_ready()
    assert task.done()
    del task
    data.append(1)
    assert rx.try_recv_bytes() == b"twelve bytes"


def test_messages_of_one_sender_arrive_in_the_order_sent(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def produce():
        for number in range(200):
            await tx.send(str(number).encode())

    async def main():
        producing = asyncio.create_task(produce())
        received = [int(await rx.recv_bytes()) for _ in range(200)]
        await producing
        return received

    assert run(main()) == list(range(200))


# Batches


def test_batches_by_every_form(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    messages = [b"a", b"bb", b"ccc"]
    assert tx.try_send_many(messages) == 3
    assert drive(tx.send_many(iter(messages))) is None
    assert tx.send_many_blocking(message for message in messages) is None
    assert rx.try_recv_many(2) == messages[:2]
    assert drive(rx.recv_many(2)) == [b"ccc", b"a"]
    assert rx.recv_many_blocking(100) == messages[1:] + messages
    assert rx.try_recv_many(5) == []


def test_try_send_many_tells_how_many_went(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert tx.try_send_many([b"12345678"] * 10) == 4
    assert tx.try_send_many([b"x"]) == 0
    assert tx.try_send_many([]) == 0
    assert rx.try_recv_many(100) == [b"12345678"] * 4


def test_send_many_longer_than_the_ring_waits_for_room_and_keeps_the_order(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    messages = [bytes([number]) * (number % 50 + 1) for number in range(100)]

    async def main():
        sending = asyncio.create_task(tx.send_many(messages))
        received = []
        while len(received) < 100:
            received += await rx.recv_many(7)
        await sending
        return received

    assert run(main()) == messages


def test_try_recv_many_raises_only_at_the_end(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"last")
    tx.close()
    assert rx.try_recv_many(5) == [b"last"]
    with pytest.raises(RecvError):
        rx.try_recv_many(5)


def test_a_failed_send_many_gives_back_what_was_not_sent(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    messages = [bytearray(b"x" * 24) for _ in range(5)]
    task = step_loop.create_task(tx.send_many(messages))
    step_loop.run_ready()
    rx.close()
    step_loop.run_ready()
    error = task.exception()
    assert type(error) is SendError
    assert len(error.value) == 3
    assert all(left is message for left, message in zip(error.value, messages[2:], strict=True))


# Claims by every form


def test_sending_no_messages_is_nothing_but_on_a_closed_channel(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert drive(tx.send_many([])) is None
    assert tx.try_send_many([]) == 0
    late = tx.send_many([])
    rx.close()
    with pytest.raises(SendError) as raised:
        drive(late)
    assert raised.value.value == []
    late = tx.send_many([])
    tx.close()
    with pytest.raises(EndpointClosed):
        drive(late)


@pytest.mark.parametrize("form", ["await", "blocking", "try"])
def test_claim_write_commit_recv_read_release(bytes_variant, form):
    tx, rx = bytes_variant.channel(64)
    if form == "await":
        claim = drive(tx.claim(5))
    elif form == "blocking":
        claim = tx.claim_blocking(5)
    else:
        claim = tx.try_claim(5)
    assert type(claim) is bytes_variant.WriteClaim
    assert len(claim) == 5
    claim[:] = b"hello"
    with pytest.raises(Empty):
        rx.try_recv()
    assert claim.commit() is None
    if form == "await":
        message = drive(rx.recv())
    elif form == "blocking":
        message = rx.recv_blocking()
    else:
        message = rx.try_recv()
    assert type(message) is bytes_variant.ReadClaim
    assert len(message) == 5
    assert bytes(message) == b"hello"
    assert message.release() is None
    assert (tx.used, rx.used) == (0, 0)
    with pytest.raises(Empty):
        rx.try_recv()


def test_the_ways_to_write_into_a_claim(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(24)
    memoryview(claim)[:8] = b"memoryvw"
    claim[8:12] = b"item"
    struct.pack_into("<i", claim, 12, 77)
    assert io.BytesIO(b"readinto").readinto(claim[16:]) == 8
    claim.commit()
    assert rx.try_recv_bytes() == b"memoryvwitem" + struct.pack("<i", 77) + b"readinto"


def test_items_and_slices_of_claims(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(4)
    claim[:] = b"abcd"
    assert claim[0] == ord("a") and claim[-1] == ord("d")
    claim[1] = ord("B")
    assert isinstance(claim[:], memoryview) and bytes(claim[1:3]) == b"Bc"
    for index in (4, -5):
        with pytest.raises(IndexError):
            claim[index]
        with pytest.raises(IndexError):
            claim[index] = 0
    with pytest.raises(ValueError, match="different structures"):
        claim[:] = b"longer than that"
    with pytest.raises(TypeError):
        del claim[0]
    claim.commit()
    message = rx.try_recv()
    assert message[1] == ord("B")
    assert bytes(message[2:]) == b"cd"
    message.release()


def test_the_view_of_a_write_claim_is_writable_and_that_of_a_read_claim_is_not(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    with tx.try_claim(3) as view:
        assert not view.readonly and view.nbytes == 3 and view.format == "B" and view.c_contiguous
        view[:] = b"abc"
    message = rx.try_recv()
    with message as view:
        assert view.readonly and view.nbytes == 3
        with pytest.raises(TypeError):
            view[0] = 1
        with pytest.raises(TypeError):
            message[0] = 1
        with pytest.raises(TypeError):
            message[:] = b"xyz"
        with pytest.raises((TypeError, BufferError, ValueError)):
            struct.pack_into("B", message, 0, 1)
        assert bytes(view) == b"abc"


def test_payloads_start_aligned_to_eight_bytes(bytes_variant):
    ctypes = pytest.importorskip("ctypes")
    tx, rx = bytes_variant.channel(256)
    for size in range(1, 60):
        with tx.try_claim(size) as view:
            at = ctypes.addressof(ctypes.c_char.from_buffer(view))
            assert at % 8 == 0
        rx.try_recv().release()


def test_a_claim_of_many_commits_may_be_shorter(bytes_variant):
    tx, rx = bytes_variant.channel(128)
    claim = tx.try_claim(100)
    claim[:5] = b"hello"
    claim.commit(5)
    tx.try_send(b"next")
    assert rx.try_recv_bytes() == b"hello"
    assert rx.try_recv_bytes() == b"next"
    with pytest.raises(Empty):
        rx.try_recv()
    assert rx.used == 0


def test_the_context_managers_commit_and_release(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def main():
        with tx.try_claim(3) as view:
            assert type(view) is memoryview
            view[:] = b"one"
        with rx.try_recv() as view:
            assert bytes(view) == b"one"
        async with tx.claim(3) as view:
            assert type(view) is memoryview
            view[:] = b"two"
        with await rx.recv() as view:
            assert bytes(view) == b"two"
        with await tx.claim(5) as view:
            view[:] = b"three"
        with rx.recv_blocking() as view:
            assert bytes(view) == b"three"
        with tx.claim_blocking(4) as view:
            view[:] = b"four"
        assert await rx.recv_bytes() == b"four"

    run(main())
    assert tx.used == 0


def test_async_with_waits_for_room(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    fill(tx)

    async def write():
        async with tx.claim(40) as view:
            view[:] = b"w" * 40

    async def main():
        writing = asyncio.create_task(write())
        await until_parked(tx, senders=1)
        assert len(rx.try_recv_bytes()) == 56
        await writing
        return await rx.recv_bytes()

    assert run(main()) == b"w" * 40


# Iteration


def test_async_iteration_gives_claims_and_ends_at_disconnect(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    messages = [bytes([number]) * 20 for number in range(10)]

    async def produce():
        await tx.send_many(messages)
        tx.close()

    async def main():
        producing = asyncio.create_task(produce())
        received = []
        async for claim in rx:
            assert type(claim) is bytes_variant.ReadClaim
            received.append(bytes(claim))
        await producing
        return received

    assert run(main()) == messages
    assert rx.used == 0


def test_blocking_iteration_gives_claims_and_ends_at_disconnect(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    messages = [bytes([number]) * 20 for number in range(10)]

    def produce():
        with tx:
            for message in messages:
                tx.send_blocking(message)

    producing = spawn(produce)
    received = []
    for claim in rx:
        assert type(claim) is bytes_variant.ReadClaim
        received.append(bytes(claim))
    producing.join()
    assert received == messages
    assert rx.used == 0


def test_iteration_releases_each_claim_when_the_next_is_asked_for(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"1", b"2"])
    iterator = iter(rx)
    first = next(iterator)
    assert bytes(first) == b"1"
    assert rx.used == 32
    second = next(iterator)
    assert rx.used == 16
    with pytest.raises(nexus_channels.ClaimReleased):
        bytes(first)
    assert bytes(second) == b"2"
    tx.close()
    with pytest.raises(StopIteration):
        next(iterator)
    assert rx.used == 0
    with pytest.raises(nexus_channels.ClaimReleased):
        second.release()


def test_async_iteration_releases_each_claim_when_the_next_is_asked_for(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"1", b"2"])
    iterator = aiter(rx)
    first = drive(anext(iterator))
    second = drive(anext(iterator))
    with pytest.raises(nexus_channels.ClaimReleased):
        first.release()
    assert bytes(second) == b"2"
    tx.close()
    with pytest.raises(StopAsyncIteration):
        drive(anext(iterator))
    assert rx.used == 0


def test_the_body_of_a_loop_may_release_the_claim_itself(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"1", b"2", b"3"])
    tx.close()
    received = []
    for claim in rx:
        with claim as view:
            received.append(bytes(view))
        assert rx.used == 16 * (3 - len(received))
    assert received == [b"1", b"2", b"3"]


def test_a_loop_that_is_left_can_be_taken_up_again(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"1", b"2"])
    for number in (b"1", b"2"):
        for claim in rx:
            assert bytes(claim) == number
            claim.release()
            break


def test_iteration_over_an_endpoint_closed_here_raises(bytes_variant, run):
    _tx, rx = bytes_variant.channel(64)
    rx.close()
    with pytest.raises(EndpointClosed):
        next(iter(rx))

    async def main():
        with pytest.raises(EndpointClosed):
            async for _claim in rx:
                pass

    run(main())


def test_senders_are_not_iterable(bytes_variant):
    tx, _rx = bytes_variant.channel(64)
    with pytest.raises(TypeError):
        iter(tx)
    with pytest.raises(TypeError):
        aiter(tx)


# What a call raises when it cannot


def test_a_full_channel(bytes_variant):
    tx, _rx = bytes_variant.channel(64)
    fill(tx, leave=8)
    data = bytearray(b"x")
    with pytest.raises(Full) as full:
        tx.try_send(data)
    assert type(full.value) is Full and full.value.value is data
    with pytest.raises(ClaimFull) as refused:
        tx.try_claim(1)
    assert type(refused.value) is ClaimFull


def test_an_empty_channel(bytes_variant):
    _tx, rx = bytes_variant.channel(64)
    for call in (rx.try_recv, rx.try_recv_bytes, lambda: rx.try_recv_into(bytearray(56))):
        with pytest.raises(Empty) as empty:
            call()
        assert type(empty.value) is Empty


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_timeouts_of_the_sender(bytes_variant, step_loop, timeout):
    tx, _rx = bytes_variant.channel(64)
    fill(tx)
    data = bytearray(b"x")
    with pytest.raises(ClaimTimeout):
        tx.claim_blocking(1, timeout=timeout)
    with pytest.raises(SendTimeout) as error:
        tx.send_blocking(data, timeout)
    assert error.value.value is data
    with pytest.raises(SendTimeout) as error:
        tx.send_many_blocking([data], timeout=timeout)
    assert error.value.value[0] is data
    tasks = [
        step_loop.create_task(call)
        for call in (tx.claim(1, timeout), tx.send(data, timeout=timeout), tx.send_many([data], timeout=timeout))
    ]
    step_loop.run_ready()
    step_loop.advance(timeout)
    assert [type(task.exception()) for task in tasks] == [ClaimTimeout, SendTimeout, SendTimeout]
    assert tasks[1].exception().value is data
    assert step_loop.next_timer() is None


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_timeouts_of_the_receiver(bytes_variant, step_loop, timeout):
    _tx, rx = bytes_variant.channel(64)
    for call in (
        lambda: rx.recv_blocking(timeout),
        lambda: rx.recv_bytes_blocking(timeout=timeout),
        lambda: rx.recv_into_blocking(bytearray(8), timeout=timeout),
        lambda: rx.recv_many_blocking(3, timeout=timeout),
    ):
        with pytest.raises(RecvTimeout):
            call()
    tasks = [
        step_loop.create_task(call)
        for call in (
            rx.recv(timeout),
            rx.recv_bytes(timeout=timeout),
            rx.recv_into(bytearray(8), timeout=timeout),
            rx.recv_many(3, timeout=timeout),
        )
    ]
    step_loop.run_ready()
    step_loop.advance(timeout)
    assert [type(task.exception()) for task in tasks] == [RecvTimeout] * 4
    assert step_loop.next_timer() is None


def test_the_receiver_is_gone(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    rx.close()
    data = b"never arrives"
    for call in (lambda: tx.try_send(data), lambda: tx.send_blocking(data), lambda: drive(tx.send(data))):
        with pytest.raises(SendError) as error:
            call()
        assert type(error.value) is SendError and error.value.value is data
    for call in (lambda: tx.try_claim(3), lambda: tx.claim_blocking(3), lambda: drive(tx.claim(3))):
        with pytest.raises(ClaimDisconnected):
            call()
    for call in (tx.try_send_many, tx.send_many_blocking, lambda messages: drive(tx.send_many(messages))):
        with pytest.raises(SendError) as error:
            call([data])
        assert error.value.value == [data]


def test_the_sender_is_gone_and_all_was_received(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"1")
    tx.close()
    assert rx.try_recv_bytes() == b"1"
    for call in (
        rx.try_recv,
        rx.recv_blocking,
        lambda: drive(rx.recv()),
        rx.try_recv_bytes,
        rx.recv_bytes_blocking,
        lambda: drive(rx.recv_bytes()),
        lambda: rx.try_recv_into(bytearray(8)),
        lambda: rx.recv_into_blocking(bytearray(8)),
        lambda: drive(rx.recv_into(bytearray(8))),
        lambda: rx.try_recv_many(1),
        lambda: rx.recv_many_blocking(1),
        lambda: drive(rx.recv_many(1)),
    ):
        with pytest.raises(RecvError) as error:
            call()
        assert type(error.value) is RecvError


def test_an_endpoint_closed_here(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.close()
    rx.close()
    for call in (
        lambda: tx.try_claim(1),
        lambda: tx.claim_blocking(1),
        lambda: drive(tx.claim(1)),
        lambda: tx.try_send(b"x"),
        lambda: tx.send_blocking(b"x"),
        lambda: drive(tx.send(b"x")),
        lambda: tx.try_send_many([b"x"]),
        lambda: tx.send_many_blocking([b"x"]),
        lambda: drive(tx.send_many([b"x"])),
        rx.try_recv,
        rx.recv_blocking,
        lambda: drive(rx.recv()),
        rx.try_recv_bytes,
        rx.recv_bytes_blocking,
        lambda: drive(rx.recv_bytes()),
        lambda: rx.try_recv_into(bytearray(8)),
        lambda: rx.recv_into_blocking(bytearray(8)),
        lambda: drive(rx.recv_into(bytearray(8))),
        lambda: rx.try_recv_many(1),
        lambda: rx.recv_many_blocking(1),
        lambda: drive(rx.recv_many(1)),
    ):
        with pytest.raises(EndpointClosed) as error:
            call()
        assert type(error.value) is EndpointClosed


# Life cycle and inspection


def test_used_and_len_count_headers_and_padding(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    total = 0
    for size in (1, 7, 8, 9, 16, 17):
        tx.try_send(b"x" * size)
        total += extent(size)
        assert tx.used == rx.used == len(tx) == len(rx) == tx.statistics().buffered == total
    for size in (1, 7, 8, 9, 16, 17):
        rx.try_recv_bytes()
        total -= extent(size)
        assert tx.used == rx.used == total


def test_a_borrowed_message_still_takes_its_room(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"x" * 56)
    claim = rx.try_recv()
    assert rx.used == 64
    with pytest.raises(Full):
        tx.try_send(b"y")
    claim.release()
    assert rx.used == 0
    tx.try_send(b"y")


def test_statistics_count_bytes_of_the_ring(bytes_variant):
    tx, rx = bytes_variant.channel(128)
    tx.try_send_many([b"1", b"123456789"])
    rx.try_recv_bytes()
    stats = rx.statistics()
    assert isinstance(stats, nexus_channels.Statistics)
    assert (stats.capacity, stats.buffered, stats.sent, stats.received) == (128, 24, 40, 16)
    assert (stats.open_senders, stats.open_receivers) == (1, 1)
    rx.close()
    stats = tx.statistics()
    assert (stats.buffered, stats.sent, stats.received, stats.open_receivers) == (0, 40, 16, 0)


def test_statistics_count_those_that_wait(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    fill(tx)
    tasks = [step_loop.create_task(call) for call in (tx.claim(8), tx.send(b"x"), tx.send_many([b"y"]))]
    step_loop.run_ready()
    assert tx.statistics().waiting_senders == 3
    tx.close()
    step_loop.run_ready()
    assert all(type(task.exception()) is EndpointClosed for task in tasks)
    assert rx.statistics().waiting_senders == 0


def test_properties_cannot_be_set(bytes_variant):
    for end in bytes_variant.channel(64):
        for name in ("capacity", "max_message_size", "used", "is_closed", "is_disconnected"):
            with pytest.raises(AttributeError):
                setattr(end, name, 1)


def test_is_closed_and_is_disconnected(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"buffered")
    assert (tx.is_closed, rx.is_closed, tx.is_disconnected, rx.is_disconnected) == (False,) * 4
    assert tx.close() is None
    assert tx.close() is None
    assert (tx.is_closed, rx.is_closed, tx.is_disconnected, rx.is_disconnected) == (True, False, False, True)
    rx.close()
    assert (rx.is_closed, tx.is_disconnected) == (True, True)


def test_with_closes_the_endpoint(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    with tx as same:
        assert same is tx
    assert tx.is_closed

    async def main():
        async with rx as same:
            assert same is rx
        assert rx.is_closed

    run(main())


def test_dropping_an_endpoint_closes_it(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"sent before")
    del tx
    assert rx.is_disconnected
    assert rx.try_recv_bytes() == b"sent before"
    with pytest.raises(RecvError):
        rx.try_recv_bytes()
    tx, rx = bytes_variant.channel(64)
    del rx
    assert tx.is_disconnected
    with pytest.raises(SendError):
        tx.try_send(b"x")


def test_closing_the_receiver_discards_what_is_buffered_at_once(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    fill(tx)
    rx.close()
    assert tx.used == 0


def test_endpoints_are_always_true(bytes_variant):
    for end in bytes_variant.channel(64):
        assert len(end) == 0
        assert bool(end) is True


def test_same_channel(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    other, _ = bytes_variant.channel(64)
    assert tx.same_channel(rx) and rx.same_channel(tx) and tx.same_channel(tx)
    assert not tx.same_channel(other)
    objects, _ = nexus_channels.spsc.channel(1)
    assert not tx.same_channel(objects)
    with pytest.raises(TypeError):
        tx.same_channel(3)


def test_only_mpsc_bytes_has_clones():
    tx, rx = spsc_bytes.channel(64)
    assert not hasattr(tx, "clone") and not hasattr(rx, "clone")
    tx, rx = mpsc_bytes.channel(128)
    assert not hasattr(rx, "clone")
    twin = tx.clone()
    assert type(twin) is mpsc_bytes.Sender and twin.same_channel(tx) and twin is not tx
    assert rx.statistics().open_senders == 2
    tx.try_send(b"of one")
    twin.try_send(b"of the other")
    tx.close()
    assert not rx.is_disconnected
    twin.close()
    assert rx.is_disconnected
    assert rx.try_recv_many(3) == [b"of one", b"of the other"]
    with pytest.raises(EndpointClosed):
        tx.clone()


def test_endpoints_and_claims_cannot_be_copied_or_pickled(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"x")
    for thing in (tx, rx, tx.try_claim(1), rx.try_recv()):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot copy or pickle"):
                attempt(thing)


def test_endpoints_are_weakly_referenceable_and_collected(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    references = [weakref.ref(tx), weakref.ref(rx)]
    del tx, rx
    collect()
    assert [reference() for reference in references] == [None, None]


def test_repr_names_the_class_and_the_state(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    for end in (tx, rx):
        assert f"{bytes_variant.__name__}.{type(end).__name__}" in repr(end)
    assert repr(bytes_variant.channel) == f"<function {bytes_variant.__name__}.channel>"
    tx.try_send(b"x")
    claims = tx.try_claim(3), rx.try_recv()
    assert "WriteClaim of 3 bytes" in repr(claims[0]) and "open" in repr(claims[0])
    assert "ReadClaim of 1 bytes" in repr(claims[1]) and "open" in repr(claims[1])
    for claim, end in zip(claims, ("abort", "release"), strict=True):
        getattr(claim, end)()
        assert "open" not in repr(claim)


def test_dump_tells_what_lies_in_the_ring(bytes_variant):
    tx, rx = bytes_variant.channel(128)
    assert rx._dump() == []
    tx.try_send(b"x")
    tx.try_send(b"y" * 20)
    assert rx._dump() == tx._dump() == [(0, "message", 1), (16, "message", 20)]
    rx.try_recv_bytes()
    assert rx._dump() == [(16, "message", 20)]
    claim = tx.try_claim(9)
    many = bytes_variant is mpsc_bytes
    assert rx._dump() == [(16, "message", 20)] + ([(48, "claimed", 0)] if many else [])
    claim.abort()
    assert rx._dump() == [(16, "message", 20)] + ([(48, "skip", 24)] if many else [])


def test_the_awaitables_serve_as_coroutines(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def main():
        async with asyncio.TaskGroup() as group:
            message = group.create_task(rx.recv_bytes())
            await turns(2)
            group.create_task(tx.send(b"grouped"))
        assert message.result() == b"grouped"
        claim, _ = await asyncio.gather(tx.claim(3), asyncio.sleep(0))
        claim[:] = b"abc"
        claim.commit()
        read = await asyncio.wait_for(rx.recv(), 5)
        assert bytes(read) == b"abc"
        read.release()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rx.recv(), 0.01)
        async with asyncio.timeout(5):
            await tx.send_many([b"1", b"2"])
            assert await rx.recv_many(5) == [b"1", b"2"]

    run(main())


def test_an_awaitable_that_is_never_awaited_does_nothing(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.send(b"x")
    tx.claim(8)
    assert tx.used == 0
    tx.try_send(b"y")
    rx.recv()
    rx.recv_bytes()
    assert rx.try_recv_bytes() == b"y"


def test_a_thread_and_a_task_at_either_end(bytes_variant, run, spawn):
    there, worker_in = bytes_variant.channel(64)
    worker_out, back = bytes_variant.channel(64)

    def echo():
        with worker_out:
            for claim in worker_in:
                with claim as view, worker_out.claim_blocking(len(view)) as room:
                    room[:] = view

    echoing = spawn(echo)

    async def main():
        for number in range(50):
            await there.send(b"%d" % number)
            with await back.recv() as view:
                assert bytes(view) == b"%d" % number
        there.close()
        with pytest.raises(RecvError):
            await back.recv()

    run(main())
    echoing.join()


def test_a_blocked_thread_counts_as_waiting(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    receiving = spawn(rx.recv_bytes_blocking)
    until_blocked(tx, receivers=1)
    tx.try_send(b"woken")
    assert receiving.join() == b"woken"


@pytest.mark.parametrize("operation", [copy.copy, copy.deepcopy, pickle.dumps])
def test_the_error_of_copying_an_endpoint_names_share(bytes_variant, operation):
    for endpoint in bytes_variant.channel(64):
        with pytest.raises(
            TypeError, match=r"share\(\) returns to another interpreter; for another process, .* shared=True"
        ):
            operation(endpoint)
        assert not endpoint.is_closed
