"""Programs as users write them, for mypy and pyright; they are checked and not run.

`# type: ignore[...]` marks what must not type-check: a checker that warns of unused ignores notices when it does.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from nexus_channels import Channel, EndpointClosed, Full, RecvError, SendError, mpsc, mpsc_bytes, spsc, spsc_bytes
from nexus_channels.logging import ChannelHandler, ChannelListener


async def produce(tx: mpsc.Sender[int]) -> None:
    async with tx:
        for number in range(10):
            await tx.send(number, timeout=1)


async def consume(rx: mpsc.Receiver[int]) -> int:
    total = 0
    async for number in rx:
        total += assert_type(number, int)
    return total


async def fan_in() -> int:
    tx, rx = mpsc.channel[int](16)
    async with asyncio.TaskGroup() as tasks:
        total = tasks.create_task(consume(rx))
        for _ in range(3):
            tasks.create_task(produce(tx.clone()))
        tx.close()
    return assert_type(total.result(), int)


def thread_to_task() -> None:
    tx, rx = spsc.channel[str](4)

    def work() -> None:
        with tx:
            tx.send_many_blocking(["a", "b"])

    threading.Thread(target=work).start()
    for word in rx:
        assert_type(word, str)


def a_channel_of_anything() -> None:
    tx, rx = spsc.channel(4)
    assert_type(rx.try_recv(), Any)
    tx.try_send(None)


def an_endpoint_is_a_parameter(channel: Channel[spsc.Sender[int], spsc.Receiver[int]]) -> spsc.Receiver[object]:
    channel.sender.try_send(1)
    return channel.receiver  # a receiver of ints is a receiver of objects


def a_sender_of_objects_takes_ints(tx: spsc.Sender[object]) -> spsc.Sender[int]:
    return tx


def not_sent(tx: mpsc.Sender[bytes], data: bytes) -> object:
    try:
        tx.try_send(data)
    except (Full, SendError) as error:
        return error.value
    except EndpointClosed:
        return None
    return data


async def messages(rx: spsc_bytes.Receiver) -> AsyncIterator[bytes]:
    try:
        while True:
            yield await rx.recv_bytes()
    except RecvError:
        return


async def in_place(tx: mpsc_bytes.Sender) -> None:
    async with tx.claim(8) as view:
        view[:] = bytes(8)
    claim = await tx.claim(8, timeout=1)
    claim.commit(4)


def borrowed(rx: mpsc_bytes.Receiver) -> Iterator[int]:
    for claim in rx:
        with claim as view:
            yield assert_type(len(view), int)


def logged(tx: mpsc_bytes.Sender, rx: mpsc_bytes.Receiver) -> int:
    with ChannelListener(rx, logging.StreamHandler()) as listener, ChannelHandler(tx, policy="block") as handler:
        logging.getLogger().addHandler(handler)
        assert_type(handler.flush(timeout=1), bool)
        assert_type(listener.stop(), bool)
    own = ChannelHandler(targets=["console", logging.NullHandler()], capacity=1 << 16, level="INFO")
    assert_type(own.listener, ChannelListener | None)
    return assert_type(own.dropped, int)


def must_not_type_check(tx: mpsc.Sender[int], rx: mpsc.Receiver[int], btx: spsc_bytes.Sender) -> None:
    tx.try_send("text")  # type: ignore[arg-type]
    tx.try_send_many(["text"])  # type: ignore[list-item]
    tx.send_blocking(1, timeout="1")  # type: ignore[arg-type]
    mpsc.channel[int]()  # type: ignore[call-arg]
    mpsc.channel[int](1.5)  # type: ignore[arg-type]
    mpsc.Sender()  # type: ignore[call-arg]
    rx.try_send(1)  # type: ignore[attr-defined]
    rx.capacity = 5  # type: ignore[misc]
    word: str = rx.recv_blocking()  # type: ignore[assignment]
    del word
    ChannelHandler(btx)  # type: ignore[arg-type]
    ChannelHandler(targets=[], policy="wait")  # type: ignore[arg-type]
    btx.try_send("text")  # type: ignore[arg-type]
    btx.clone()  # type: ignore[attr-defined]
    btx.try_claim(b"8")  # type: ignore[arg-type]
    wider: mpsc.Sender[object] = tx  # type: ignore[assignment]
    del wider
