"""Streams of AnyIO over channels, on every backend: AnyIO's interfaces, errors, cancel scopes, threads and wrappers."""

import asyncio
import copy
import ctypes
import importlib.util
import inspect
import itertools
import pickle
import re
import subprocess
import sys
import time

import pytest
from harness import seeded, size, takes_long
from support import DEADLINE

anyio = pytest.importorskip("anyio", reason="AnyIO is not installed: pip install '.[test]'")

from anyio import abc  # noqa: E402
from anyio.lowlevel import checkpoint  # noqa: E402
from anyio.streams.buffered import BufferedByteReceiveStream, BufferedByteStream  # noqa: E402
from anyio.streams.stapled import StapledByteStream, StapledObjectStream  # noqa: E402
from anyio.streams.text import TextReceiveStream, TextSendStream, TextStream  # noqa: E402

import nexus_channels.anyio as streams  # noqa: E402
from nexus_channels import (  # noqa: E402
    BusyError,
    ClaimTooLarge,
    EndpointClosed,
    RecvError,
    SendError,
    ZeroLengthClaim,
    local,
    mpsc,
    mpsc_bytes,
    spsc,
    spsc_bytes,
)
from nexus_channels.anyio import (  # noqa: E402
    ByteReceiveStream,
    ByteSendStream,
    ByteStream,
    ChannelAttribute,
    ReceiveStream,
    SendStream,
)

BACKENDS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else []), "trio"]


@pytest.fixture(params=BACKENDS)
def run(request):
    """`run(function, *args)`: AnyIO's `run` on each backend, with a deadline."""
    if request.param == "trio":
        pytest.importorskip("trio", reason="trio is not installed: pip install '.[test]'")
    backend = {"uvloop": "asyncio"}.get(request.param, request.param)
    options = {"use_uvloop": True} if request.param == "uvloop" else {}

    def run(function, *args):
        async def main():
            with anyio.fail_after(DEADLINE):
                return await function(*args)

        return anyio.run(main, backend=backend, backend_options=options)

    run.is_in_order = backend != "trio"  # trio shuffles the tasks that are ready
    return run


def pair(module, capacity):
    tx, rx = module.channel(capacity)
    return SendStream(tx), ReceiveStream(rx)


async def until_waiting(stream, *, senders=0, receivers=0):
    """Let the other tasks run until so many wait on the stream's channel."""
    end = time.monotonic() + DEADLINE
    while (stream.statistics().tasks_waiting_send, stream.statistics().tasks_waiting_receive) != (senders, receivers):
        assert time.monotonic() < end, f"{senders=}, {receivers=} did not come to wait on {stream!r}"
        await checkpoint()


async def ends_by(error, function, *args):
    with pytest.raises(error) as caught:
        await function(*args)
    return caught.value


class Outcome:
    """A call in a task of its own and a cancel scope of its own; `ended` is its result or the class of its error."""

    def __init__(self, tasks, function, *args):
        self.scope = anyio.CancelScope()
        self.ended = None
        self.is_done = False
        tasks.start_soon(self._run, function, args)

    async def _run(self, function, args):
        with self.scope:
            try:
                self.ended = await function(*args)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                self.ended = type(error)
            self.is_done = True
            return
        self.is_done = True
        self.ended = "cancelled"


# ---- items ---------------------------------------------------------------------------------------------------------


def test_they_are_streams_of_anyio(variant):
    send, receive = pair(variant, 2)
    assert isinstance(send, abc.ObjectSendStream)
    assert isinstance(receive, abc.ObjectReceiveStream)


def test_items_arrive_as_they_are_in_the_order_sent(run, variant):
    async def main():
        send, receive = pair(variant, 2)
        items = [object() for _ in range(5)]

        async def feed():
            async with send:
                for item in items:
                    await send.send(item)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            got = [await receive.receive(), *[item async for item in receive]]
        assert all(one is other for one, other in zip(got, items, strict=True))
        await ends_by(anyio.EndOfStream, receive.receive)

    run(main)


def test_messages_of_bytes_are_items(run, bytes_variant):
    async def main():
        send, receive = pair(bytes_variant, 256)
        await send.send(b"one")
        send.send_nowait(memoryview(b"two"))
        await send.send(bytearray(b"three"))
        assert receive.receive_nowait() == b"one"
        assert await receive.receive() == b"two"
        send.close()
        got = [item async for item in receive]
        assert got == [b"three"] and type(got[0]) is bytes

    run(main)


def test_a_message_that_no_channel_of_bytes_takes_is_a_value_error(run, bytes_variant):
    async def main():
        send, receive = pair(bytes_variant, 64)
        await ends_by(ClaimTooLarge, send.send, bytes(57))
        await ends_by(ZeroLengthClaim, send.send, b"")
        with pytest.raises(ClaimTooLarge):
            send.send_nowait(bytes(57))
        with pytest.raises(anyio.WouldBlock):
            receive.receive_nowait()

    run(main)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tx, rx: SendStream(rx), "SendStream takes a sender of a channel, not 'Receiver'"),
        (lambda tx, rx: ReceiveStream(tx), "ReceiveStream takes a receiver of a channel, not 'Sender'"),
        (lambda tx, rx: ReceiveStream(None), "ReceiveStream takes a receiver of a channel, not 'NoneType'"),
        (lambda tx, rx: ByteSendStream(tx), "ByteSendStream takes a sender of a channel of bytes, not 'Sender'"),
        (
            lambda tx, rx: ByteReceiveStream(rx),
            "ByteReceiveStream takes a receiver of a channel of bytes, not 'Receiver'",
        ),
        (lambda tx, rx: ByteStream(rx, tx), "ByteStream takes a sender of a channel of bytes, not 'Receiver'"),
    ],
)
def test_what_is_no_such_end_is_refused(make, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        make(*spsc.channel(2))


def test_calls_that_do_not_wait_say_so(variant):
    send, receive = pair(variant, 1)
    with pytest.raises(anyio.WouldBlock):
        receive.receive_nowait()
    send.send_nowait("item")
    with pytest.raises(anyio.WouldBlock) as caught:
        send.send_nowait("another")
    assert caught.value.__cause__.value == "another"
    assert receive.receive_nowait() == "item"


def test_the_errors_are_those_of_anyio_and_keep_the_channels_own(run, variant):
    async def main():
        send, receive = pair(variant, 1)
        send.close()
        send.close()
        error = await ends_by(anyio.ClosedResourceError, send.send, 1)
        assert isinstance(error.__cause__, EndpointClosed)
        with pytest.raises(anyio.ClosedResourceError):
            send.send_nowait(1)
        error = await ends_by(anyio.EndOfStream, receive.receive)
        assert isinstance(error.__cause__, RecvError)
        with pytest.raises(anyio.EndOfStream):
            receive.receive_nowait()
        await ends_by(StopAsyncIteration, receive.__anext__)
        receive.close()
        await ends_by(anyio.ClosedResourceError, receive.receive)
        await ends_by(anyio.ClosedResourceError, receive.__anext__)
        with pytest.raises(anyio.ClosedResourceError):
            receive.receive_nowait()

        send, receive = pair(variant, 1)
        await receive.aclose()
        error = await ends_by(anyio.BrokenResourceError, send.send, "item")
        assert isinstance(error.__cause__, SendError) and error.__cause__.value == "item"
        with pytest.raises(anyio.BrokenResourceError):
            send.send_nowait(1)

    run(main)


def test_a_claim_that_is_open_makes_a_resource_busy(run, bytes_variant):
    async def main():
        tx, rx = bytes_variant.channel(1024)
        send, receive = SendStream(tx), ReceiveStream(rx)
        claim = tx.try_claim(8)
        error = await ends_by(anyio.BusyResourceError, send.send, b"x")
        assert isinstance(error.__cause__, BusyError) and "writing to" in str(error)
        with pytest.raises(anyio.BusyResourceError):
            send.send_nowait(b"x")
        await ends_by(anyio.BusyResourceError, ByteSendStream(tx).send, b"x")
        claim.commit()
        claim = rx.try_recv()
        error = await ends_by(anyio.BusyResourceError, receive.receive)
        assert "reading from" in str(error)
        await ends_by(anyio.BusyResourceError, receive.__anext__)
        with pytest.raises(anyio.BusyResourceError):
            receive.receive_nowait()
        await ends_by(anyio.BusyResourceError, ByteReceiveStream(rx).receive)

    run(main)


def test_senders_are_cloned_where_their_channel_allows_it(run, clonable):
    async def main():
        send, receive = pair(clonable, 4)
        other = send.clone()
        send.close()
        await other.send(1)
        assert receive.statistics().open_send_streams == 1
        other.close()
        assert [item async for item in receive] == [1]
        with pytest.raises(anyio.ClosedResourceError):
            other.clone()

    run(main)


def test_the_one_sender_of_a_channel_is_not_cloned():
    for stream in (SendStream(spsc.channel(2).sender), SendStream(spsc_bytes.channel(64).sender)):
        with pytest.raises(TypeError, match=r"<SendStream over .*> cannot be cloned: its channel has one sender"):
            stream.clone()


def test_statistics_are_in_the_words_of_anyio(run, variant):
    async def main():
        send, receive = pair(variant, 2)
        send.send_nowait(1)
        assert send.statistics() == receive.statistics() == (1, 2, 1, 1, 0, 0)
        assert type(send.statistics()) is anyio.streams.memory.MemoryObjectStreamStatistics
        async with anyio.create_task_group() as tasks:
            send.send_nowait(2)
            tasks.start_soon(send.send, 3)
            await until_waiting(send, senders=1)
            assert [await receive.receive() for _ in range(3)] == [1, 2, 3]
            tasks.start_soon(receive.receive)
            await until_waiting(send, receivers=1)
            send.send_nowait(4)

    run(main)


def test_leaving_a_block_closes(run, variant):
    async def main():
        send, receive = pair(variant, 2)
        with send as entered:
            assert entered is send
        assert send.extra(ChannelAttribute.sender).is_closed
        async with receive as entered:
            assert entered is receive
        assert receive.extra(ChannelAttribute.receiver).is_closed

    run(main)


def test_dropping_a_stream_drops_its_end_and_warns_of_nothing(variant):
    send, receive = pair(variant, 2)
    send.send_nowait(1)
    del send
    assert receive.receive_nowait() == 1
    with pytest.raises(anyio.EndOfStream):
        receive.receive_nowait()


def test_a_stream_shows_its_end():
    tx, rx = spsc_bytes.channel(64)
    assert repr(SendStream(tx)) == f"<SendStream over {tx!r}>"
    assert repr(ReceiveStream(rx)) == f"<ReceiveStream over {rx!r}>"
    assert repr(ByteSendStream(tx)) == f"<ByteSendStream over {tx!r}>"
    assert repr(ByteReceiveStream(rx)) == f"<ByteReceiveStream over {rx!r}>"
    assert repr(ByteStream(tx, rx)) == f"<ByteStream over {tx!r} and {rx!r}>"


# ---- checkpoints and cancellation ----------------------------------------------------------------------------------


def byte_pair():
    tx, rx = spsc_bytes.channel(1024)
    return ByteSendStream(tx), ByteReceiveStream(rx)


PAIRS = {
    "local": lambda: (*pair(local, 64), "item"),
    "spsc": lambda: (*pair(spsc, 64), "item"),
    "mpsc": lambda: (*pair(mpsc, 64), "item"),
    "messages": lambda: (*pair(mpsc_bytes, 1024), b"item"),
    "bytes": lambda: (*byte_pair(), b"item"),
}


@pytest.fixture(params=list(PAIRS))
def open_streams(request):
    return PAIRS[request.param]


CALLS_IN_A_ROW = 40


async def turns_of_others(function, *args):
    """How many turns another task of the loop has during so many calls, the sum of which takes far less than 0.5 ms."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        while turns < 2:
            await checkpoint()
        turns = 0
        for _ in range(CALLS_IN_A_ROW):
            await function(*args)
        during = turns
        tasks.cancel_scope.cancel()
    return during


LEAST_TURNS = CALLS_IN_A_ROW // 8  # asyncio gives one each time; trio shuffles, and may give none


def test_each_call_that_is_ready_lets_other_tasks_run(run, open_streams):
    async def main():
        send, receive, item = open_streams()
        assert await turns_of_others(send.send, item) >= LEAST_TURNS
        assert await turns_of_others(receive.receive) >= LEAST_TURNS
        for _ in range(CALLS_IN_A_ROW):
            await send.send(item)
        assert await turns_of_others(receive.__anext__) >= LEAST_TURNS

    run(main)


def test_the_rest_of_a_message_and_an_empty_send_are_checkpoints_too(run):
    async def main():
        send, receive, _ = PAIRS["bytes"]()
        await send.send(bytes(CALLS_IN_A_ROW + 2))
        await receive.receive(1)
        assert await turns_of_others(receive.receive, 1) >= LEAST_TURNS
        assert await turns_of_others(send.send, b"") >= LEAST_TURNS

    run(main)


def test_a_call_in_a_cancelled_scope_sends_and_takes_nothing(run, open_streams):
    async def main():
        send, receive, item = open_streams()

        async def cancelled(function, *args):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await function(*args)
            assert scope.cancelled_caught

        await cancelled(send.send, item)
        await send.send(item[::-1])
        await cancelled(receive.receive)
        await cancelled(receive.__anext__)
        assert await receive.receive() == item[::-1]
        await cancelled(receive.receive)
        await send.send(item)
        send.close()
        assert [got async for got in receive] == [item]

    run(main)


def test_a_cancelled_scope_does_not_take_the_rest_of_a_message(run):
    async def main():
        send, receive = byte_pair()
        await send.send(b"some bytes")
        assert await receive.receive(5) == b"some "
        with anyio.CancelScope() as scope:
            scope.cancel()
            await receive.receive()
        assert scope.cancelled_caught
        assert await receive.receive() == b"bytes"

    run(main)


def test_a_wait_that_times_out_has_done_nothing(run, open_streams):
    async def main():
        send, receive, item = open_streams()
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await receive.receive()
        with anyio.move_on_after(0.001) as scope:
            await receive.__anext__()
        assert scope.cancelled_caught
        sent = 0
        with anyio.move_on_after(0.05) as scope:
            while True:
                await send.send(item)
                sent += 1
        assert scope.cancelled_caught
        send.close()
        assert b"".join([bytes(str(got), "ascii") for got in [one async for one in receive]]) == (
            bytes(str(item), "ascii") * sent
        )

    run(main)


def test_the_item_of_a_cancelled_receive_goes_to_the_next_in_line(run, variant):
    async def main():
        send, receive = pair(variant, 2)
        async with anyio.create_task_group() as tasks:
            first = Outcome(tasks, receive.receive)
            await until_waiting(receive, receivers=1)
            second = Outcome(tasks, receive.receive)
            await until_waiting(receive, receivers=2)
            first.scope.cancel()
            send.send_nowait("item")
            with anyio.move_on_after(DEADLINE):
                while not second.is_done and not first.is_done:
                    await checkpoint()
            send.close()
        assert sorted([first.ended, second.ended], key=str) in (
            ["cancelled", "item"],
            [anyio.EndOfStream, "item"],  # where a wake-up that was given cannot be cancelled, as under trio
        )

    run(main)


def test_closing_ends_the_calls_that_wait(run, variant):
    async def main():
        send, receive = pair(variant, 1)
        async with anyio.create_task_group() as tasks:
            waiting = [Outcome(tasks, receive.receive) for _ in range(2)]
            await until_waiting(receive, receivers=2)
            receive.close()
        assert [one.ended for one in waiting] == [anyio.ClosedResourceError] * 2

        send, receive = pair(variant, 1)
        send.send_nowait(0)
        async with anyio.create_task_group() as tasks:
            waiting = [Outcome(tasks, send.send, number) for number in range(2)]
            await until_waiting(send, senders=2)
            send.close()
        assert [one.ended for one in waiting] == [anyio.ClosedResourceError] * 2
        assert [item async for item in receive] == [0]

        send, receive = pair(variant, 1)
        send.send_nowait(0)
        async with anyio.create_task_group() as tasks:
            waiting = [Outcome(tasks, send.send, number) for number in range(2)]
            await until_waiting(send, senders=2)
            await receive.aclose()
        assert [one.ended for one in waiting] == [anyio.BrokenResourceError] * 2

    run(main)


def test_a_task_that_asyncio_cancels_has_taken_nothing(variant):
    async def main():
        send, receive = pair(variant, 1)
        task = asyncio.ensure_future(receive.receive())
        await until_waiting(receive, receivers=1)
        send.send_nowait("item")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert receive.receive_nowait() == "item"

    asyncio.run(main())


LETTERS = "SRcCxy."


async def play(module, program, capacity):
    """Each letter is an event: a send or receive begins, the oldest or newest is cancelled, an end closes, a turn."""
    send, receive = pair(module, capacity)
    calls, sends, receives = [], [], []
    async with anyio.create_task_group() as tasks:
        for number, letter in enumerate(program):
            waiting = [call for call in calls if not call.is_done]
            if letter == "S":
                sends.append((number, Outcome(tasks, send.send, number)))
                calls.append(sends[-1][1])
            elif letter == "R":
                receives.append(Outcome(tasks, receive.receive))
                calls.append(receives[-1])
            elif letter in "cC" and waiting:
                waiting[0 if letter == "c" else -1].scope.cancel()
            elif letter == "x":
                send.close()
            elif letter == "y":
                receive.close()
            elif letter == ".":
                await checkpoint()
        for _ in range(6):
            await checkpoint()
        stats = send.statistics()
        if "x" not in program and "y" not in program:
            assert sum(not call.is_done for _, call in sends) == stats.tasks_waiting_send
            assert sum(not call.is_done for call in receives) == stats.tasks_waiting_receive
            assert not (stats.tasks_waiting_receive and stats.current_buffer_used)
            assert not (stats.tasks_waiting_send and stats.current_buffer_used < capacity)
        tasks.cancel_scope.cancel()
    assert all(call.is_done or call.ended is None for call in calls)
    sent = [number for number, call in sends if call.is_done and call.ended is None]
    got = [call.ended for call in receives if isinstance(call.ended, int)]
    left = []
    if "y" not in program:
        try:
            while True:
                left.append(receive.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            pass
        assert sorted(got + left) == sent
    assert len(set(got)) == len(got)
    assert set(got) <= set(sent)
    return left


@takes_long()
@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("module", [local, mpsc], ids=["local", "mpsc"])
def test_every_short_program_of_streams_is_accounted_for_exactly(run, module, capacity):
    async def main():
        for program in map("".join, itertools.product(LETTERS, repeat=size(4, 5))):
            try:
                left = await play(module, program, capacity)
                assert not run.is_in_order or left == sorted(left)
            except BaseException as error:
                error.add_note(program)
                raise

    run(main)


# ---- threads -------------------------------------------------------------------------------------------------------


def test_worker_threads_hold_the_other_end(run, threaded):
    async def main():
        numbers, results = threaded.channel(4), threaded.channel(4)

        def work():
            with numbers.receiver as rx, results.sender as tx:
                for number in rx:
                    tx.send_blocking(number * 2)

        async def feed():
            async with SendStream(numbers.sender) as stream:
                for number in range(300):
                    await stream.send(number)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            tasks.start_soon(feed)
            assert [item async for item in ReceiveStream(results.receiver)] == list(range(0, 600, 2))

    run(main)


def test_worker_threads_use_the_streams_by_from_thread(run, variant):
    async def main():
        send, receive = pair(variant, 2)

        def work():
            for number in range(20):
                anyio.from_thread.run(send.send, number)
            anyio.from_thread.run_sync(send.close)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            assert [item async for item in receive] == list(range(20))

    run(main)


def test_a_blocking_portal_uses_the_streams():
    tx, rx = spsc.channel(2)
    with anyio.from_thread.start_blocking_portal() as portal:
        send = SendStream(tx)
        sent = portal.start_task_soon(send.send, 1)
        assert rx.recv_blocking(timeout=DEADLINE) == 1
        sent.result(DEADLINE)
        portal.call(send.aclose)
    assert list(rx) == []


def test_streams_of_two_loops_of_any_kinds_talk_to_each_other(run):
    async def main():
        there, back = spsc.channel(2), spsc.channel(2)

        async def echo():
            async with SendStream(back.sender) as stream:
                async for item in ReceiveStream(there.receiver):
                    await stream.send(item)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, lambda: anyio.run(echo))
            async with SendStream(there.sender) as send:
                receive = ReceiveStream(back.receiver)
                for number in range(100):
                    await send.send(number)
                    assert await receive.receive() == number

    run(main)


# ---- bytes without borders -----------------------------------------------------------------------------------------


def two_ways(module=spsc_bytes, capacity=1024):
    there, back = module.channel(capacity), module.channel(capacity)
    return ByteStream(there.sender, back.receiver), ByteStream(back.sender, there.receiver)


def test_they_are_byte_streams_of_anyio():
    client, _ = two_ways()
    assert isinstance(client, abc.ByteStream)
    tx, rx = spsc_bytes.channel(64)
    assert isinstance(ByteSendStream(tx), abc.ByteSendStream)
    assert isinstance(ByteReceiveStream(rx), abc.ByteReceiveStream)


@pytest.mark.parametrize("capacity", [64, 128, 1024])
def test_bytes_of_any_length_arrive_whole(run, bytes_variant, capacity):
    rng = seeded("bytes of any length")
    sizes = [0, 1, capacity - 8, capacity - 7, capacity, 5 * capacity + 3]
    sizes += [rng.randrange(3 * capacity) for _ in range(40)]
    data = [rng.randbytes(length) for length in sizes]

    async def main():
        client, server = two_ways(bytes_variant, capacity)

        async def feed():
            for part in data:
                await client.send(part)
            await client.send_eof()

        got = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            while True:
                most = rng.choice([1, 7, 30, 65536])
                try:
                    part = await server.receive(most)
                except anyio.EndOfStream:
                    break
                assert 1 <= len(part) <= most and type(part) is bytes
                got.append(part)
        assert b"".join(got) == b"".join(data)

    run(main)


def test_any_buffer_is_sent_by_its_bytes(run):
    async def main():
        send, receive = byte_pair()
        await send.send(bytearray(b"abc"))
        await send.send(memoryview(b"12345678").cast("I"))
        assert await receive.receive() == b"abc"
        assert await receive.receive() == b"12345678"
        await ends_by(TypeError, send.send, "text")
        await ends_by(BufferError, send.send, memoryview(b"abcdef")[::2])
        await send.send(b"after")
        assert await receive.receive() == b"after"

    run(main)


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_byte_is_asked_for(run, most):
    async def main():
        _, receive = byte_pair()
        error = await ends_by(ValueError, receive.receive, most)
        assert str(error) == f"max_bytes must be a positive integer, not {most}"

    run(main)


def test_the_end_of_sending_leaves_the_other_way_open(run, bytes_variant):
    async def main():
        client, server = two_ways(bytes_variant)
        await client.send(b"question")
        await client.send_eof()
        await client.send_eof()
        await ends_by(anyio.ClosedResourceError, client.send, b"more")
        await ends_by(anyio.ClosedResourceError, client.send, b"")
        assert [part async for part in server] == [b"question"]
        await server.send(b"answer")
        assert await client.receive() == b"answer"
        await server.aclose()
        await ends_by(anyio.EndOfStream, client.receive)
        await client.aclose()
        await ends_by(anyio.ClosedResourceError, client.receive)

    run(main)


def test_a_peer_that_is_gone_breaks_the_stream(run, bytes_variant):
    async def main():
        client, server = two_ways(bytes_variant)
        await server.aclose()
        await ends_by(anyio.BrokenResourceError, client.send, b"bytes")
        await ends_by(anyio.BrokenResourceError, client.send, bytes(10_000))
        await ends_by(anyio.EndOfStream, client.receive)

    run(main)


def test_one_task_at_a_time_sends_and_one_receives(run):
    async def main():
        client, server = two_ways()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.receive)
            await until_waiting(ReceiveStream(client.extra(ChannelAttribute.receiver)), receivers=1)
            error = await ends_by(anyio.BusyResourceError, client.receive)
            assert "reading from" in str(error)
            await client.send(bytes(900))
            tasks.start_soon(client.send, bytes(900))
            await until_waiting(SendStream(client.extra(ChannelAttribute.sender)), senders=1, receivers=0)
            error = await ends_by(anyio.BusyResourceError, client.send, b"x")
            assert "writing to" in str(error)
            await server.send(b"y")
            assert len(await server.receive()) == 900
            assert len(await server.receive()) == 900

    run(main)


def test_a_cancelled_send_of_what_is_long_has_sent_a_part_from_the_beginning(run):
    async def main():
        tx, rx = spsc_bytes.channel(64)
        send, receive = ByteSendStream(tx), ByteReceiveStream(rx)
        data = bytes(range(200))
        async with anyio.create_task_group() as tasks:
            call = Outcome(tasks, send.send, data)
            await until_waiting(SendStream(tx), senders=1)
            call.scope.cancel()
        assert call.ended == "cancelled"
        send.close()
        got = b"".join([part async for part in receive])
        assert 0 < len(got) < 200 and data.startswith(got)

    run(main)


def test_the_rest_of_a_message_stays_in_the_ring(run):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        receive = ByteReceiveStream(rx)
        tx.try_send(b"some bytes")
        tx.try_send(b"next")
        used = rx.used
        assert await receive.receive(4) == b"some"
        assert rx.used == used
        with pytest.raises(BusyError):
            rx.try_recv()
        assert await receive.receive(6) == b" bytes"
        assert rx.used < used
        assert rx.try_recv_bytes() == b"next"

    run(main)


def test_closing_drops_the_rest_of_a_message(run):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        receive = ByteReceiveStream(rx)
        tx.try_send(b"some bytes")
        await receive.receive(4)
        receive.close()
        receive.close()
        assert rx.is_closed and tx.is_disconnected
        await ends_by(anyio.ClosedResourceError, receive.receive)

    run(main)


def test_the_rest_of_a_message_is_read_after_its_receiver_was_closed_elsewhere(run):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        receive = ByteReceiveStream(rx)
        tx.try_send(b"some bytes")
        await receive.receive(4)
        rx.close()
        assert await receive.receive() == b" bytes"
        await ends_by(anyio.ClosedResourceError, receive.receive)

    run(main)


def test_a_rest_that_somebody_released_breaks_the_stream_once(run):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        receive = ByteReceiveStream(rx)
        tx.try_send(b"some bytes")
        tx.try_send(b"next")
        await receive.receive(4)
        assert rx.release()
        await ends_by(anyio.BrokenResourceError, receive.receive)
        assert await receive.receive() == b"next"

    run(main)


@pytest.mark.parametrize("both", [False, True])
def test_a_stream_closes_although_somebody_released_the_rest_of_a_message(run, both):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        back = spsc_bytes.channel(1024)
        tx.try_send(b"some bytes")
        with pytest.raises(KeyError):
            async with ByteStream(back.sender, rx) if both else ByteReceiveStream(rx) as receive:
                await receive.receive(4)
                assert rx.release()
                raise KeyError
        assert rx.is_closed and tx.is_disconnected
        assert back.sender.is_closed == both

    run(main)


@pytest.mark.parametrize("max_bytes", [2.0, float("nan"), float("inf"), "4", None])
def test_how_much_to_receive_is_an_int(run, max_bytes):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        tx.try_send(b"some bytes")
        with pytest.raises(TypeError):
            await ByteReceiveStream(rx).receive(max_bytes)
        assert rx.try_recv_bytes() == b"some bytes"

    run(main)


@pytest.mark.parametrize("stream", [SendStream, ByteSendStream])
@pytest.mark.parametrize("length", [5, 5000])
def test_an_error_has_the_item_that_was_not_sent_and_no_view_of_it(run, stream, length):
    async def main():
        tx, rx = spsc_bytes.channel(8192 if stream is SendStream else 1024)
        rx.close()
        item = bytearray(length)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await stream(tx).send(item)
        assert caught.value.__cause__.value is item
        item.append(1)  # no view locks it

    run(main)


def test_a_byte_stream_sends_what_is_empty_in_any_shape_and_refuses_what_is_not_in_one_piece(run):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        send = ByteSendStream(tx)
        await send.send((ctypes.c_int * 4 * 0)())
        assert not rx.used
        for length in (100, 5000):
            with pytest.raises(BufferError):
                await send.send(memoryview(bytes(length))[::2])
        assert not rx.used

    run(main)


def test_a_subclass_that_receives_in_its_own_way_does_so_in_async_for_too(run):
    class Counted(ReceiveStream):
        async def receive(self):
            return "counted", await super().receive()

    class Own(Counted):
        async def __anext__(self):
            return "own", await anyio.abc.ObjectReceiveStream.__anext__(self)

    async def main():
        for cls, expected in ((ReceiveStream, 1), (Counted, ("counted", 1)), (Own, ("own", ("counted", 1)))):
            tx, rx = mpsc.channel(2)
            tx.try_send(1)
            tx.close()
            assert [item async for item in cls(rx)] == [expected]

    run(main)


def test_a_thread_writes_in_place_what_a_task_reads_as_a_stream(run, bytes_variant):
    async def main():
        tx, rx = bytes_variant.channel(256)

        def write():
            with tx:
                for number in range(500):
                    with tx.claim_blocking(4) as view:
                        view[:] = number.to_bytes(4, "little")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, write)
            stream = BufferedByteReceiveStream(ByteReceiveStream(rx))
            for number in range(250):
                wanted = (2 * number).to_bytes(4, "little") + (2 * number + 1).to_bytes(4, "little")
                assert await stream.receive_exactly(8) == wanted
            await ends_by(anyio.EndOfStream, stream.receive)

    run(main)


# ---- what AnyIO makes of them --------------------------------------------------------------------------------------


def test_object_streams_are_stapled(run):
    async def main():
        there, back = mpsc.channel(2), mpsc.channel(2)
        client = StapledObjectStream(SendStream(there.sender), ReceiveStream(back.receiver))
        server = StapledObjectStream(SendStream(back.sender), ReceiveStream(there.receiver))
        await client.send(1)
        client.send_nowait(2)
        await client.send_eof()
        assert [item async for item in server] == [1, 2]
        await server.send("answer")
        assert await client.receive() == "answer"
        assert client.extra(ChannelAttribute.sender) is there.sender
        assert client.extra(ChannelAttribute.receiver) is back.receiver
        await client.aclose()
        assert there.sender.is_closed and back.receiver.is_closed

    run(main)


def test_byte_streams_are_stapled(run):
    async def main():
        tx, rx = spsc_bytes.channel(64)
        stream = StapledByteStream(ByteSendStream(tx), ByteReceiveStream(rx))
        await stream.send(b"some bytes")
        assert await stream.receive(4) == b"some"
        await stream.send_eof()
        assert [part async for part in stream] == [b" bytes"]
        assert (stream.extra(ChannelAttribute.sender), stream.extra(ChannelAttribute.receiver)) == (tx, rx)

    run(main)


TEXT = "Grüße, 世界 🎉 " * 30


@pytest.mark.parametrize("kind", ["messages", "stream"])
def test_text_goes_through_both_kinds(run, kind):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        sends = {"messages": SendStream, "stream": ByteSendStream}[kind](tx)
        receives = {"messages": ReceiveStream, "stream": ByteReceiveStream}[kind](rx)
        text_send, text_receive = TextSendStream(sends), TextReceiveStream(receives)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(text_send.send, TEXT)
            got = ""
            while got != TEXT:
                got += await text_receive.receive()
        await text_send.aclose()
        await ends_by(anyio.EndOfStream, text_receive.receive)

    run(main)


def test_text_goes_both_ways_over_a_byte_stream(run):
    async def main():
        client, server = map(TextStream, two_ways())
        await client.send("Frage?")
        assert await server.receive() == "Frage?"
        await server.send("Äußerst.")
        assert await client.receive() == "Äußerst."
        assert isinstance(client.extra(ChannelAttribute.sender), spsc_bytes.Sender)

    run(main)


@pytest.mark.parametrize("kind", ["messages", "stream"])
def test_a_buffer_finds_lines_and_lengths_across_messages(run, kind):
    async def main():
        tx, rx = spsc_bytes.channel(1024)
        receives = {"messages": ReceiveStream, "stream": ByteReceiveStream}[kind](rx)
        stream = BufferedByteReceiveStream(receives)
        for part in (b"first li", b"ne\nlast ", b"line\n12345", b"678 rest"):
            tx.try_send(part)
        tx.close()
        assert await stream.receive_until(b"\n", 100) == b"first line"
        assert await stream.receive_until(b"\n", 100) == b"last line"
        assert await stream.receive_exactly(8) == b"12345678"
        assert await stream.receive() == b" rest"
        await ends_by(anyio.IncompleteRead, stream.receive_exactly, 1)
        assert stream.extra(ChannelAttribute.receiver) is rx

    run(main)


def test_a_buffer_goes_both_ways_over_a_byte_stream(run):
    async def main():
        client, server = map(BufferedByteStream, two_ways())
        await client.send(b"question\n")
        assert await server.receive_until(b"\n", 100) == b"question"
        await server.send(b"answer\n")
        assert await client.receive_until(b"\n", 100) == b"answer"
        await client.send_eof()
        await ends_by(anyio.EndOfStream, server.receive)

    run(main)


# ---- the module ----------------------------------------------------------------------------------------------------


def child(code):
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)


def test_the_package_does_not_import_anyio():
    assert child("import nexus_channels, sys; assert 'anyio' not in sys.modules").returncode == 0


def test_without_anyio_the_import_says_what_to_install():
    done = child("import sys; sys.modules['anyio'] = None; import nexus_channels.anyio")
    assert "ImportError: nexus_channels.anyio needs AnyIO: pip install 'nexus_channels[anyio]'" in done.stderr


def test_it_works_where_trio_and_sniffio_are_not_installed():
    code = """
import sys
sys.modules["sniffio"] = sys.modules["trio"] = None
import anyio
from nexus_channels import spsc
from nexus_channels.anyio import ReceiveStream, SendStream
tx, rx = spsc.channel(1)
async def main():
    await SendStream(tx).send("item")
    return await ReceiveStream(rx).receive()
assert anyio.run(main) == "item"
"""
    done = child(code)
    assert done.returncode == 0, done.stderr


def test_streams_cannot_be_copied_or_pickled():
    """A copy would share the channel, and not the claim of a message that was received in part."""
    tx, rx = spsc.channel(1)
    bytes_tx, bytes_rx = spsc_bytes.channel(64)
    made = SendStream(tx), ReceiveStream(rx), ByteSendStream(bytes_tx), ByteReceiveStream(bytes_rx)
    for stream in (*made, ByteStream(bytes_tx, bytes_rx)):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"cannot copy or pickle '{type(stream).__name__}'"):
                attempt(stream)


CALLS = {
    f"{name}.{method}": getattr(getattr(streams, name), method)
    for name in streams.__all__
    for method in vars(getattr(streams, name))
    if inspect.isfunction(getattr(getattr(streams, name), method)) and not method.startswith("_")
}


@pytest.mark.parametrize("name", list(CALLS))
def test_each_docstring_says_what_is_promised_under_cancellation_and_threads(name):
    doc = " ".join(inspect.getdoc(CALLS[name]).split())
    assert re.search(r"(Safe from any thread(; a local channel is for that thread only)?|one event loop)\.$", doc)
    if re.search(r"\.(send|receive)$", name):
        assert re.search(r"Cancelled, it (did not send|took nothing)", doc)
    if re.search(r"_nowait$", name):
        assert re.search(r"When it raised, it (did not send|took nothing)", doc)
