"""Programs as users write them, for mypy and pyright; they are checked and not run.

`# type: ignore[...]` marks what must not type-check: a checker that warns of unused ignores notices when it does.
"""

import asyncio
import logging
import selectors
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import anyio.abc

from nexus_channels import (
    Channel,
    EndpointClosed,
    Full,
    Listener,
    Notifier,
    RecvError,
    SendError,
    Ticket,
    attach,
    mpsc,
    mpsc_bytes,
    select,
    spsc,
    spsc_bytes,
)
from nexus_channels.anyio import ByteReceiveStream, ByteSendStream, ByteStream, ReceiveStream, SendStream
from nexus_channels.logging import ChannelHandler, ChannelListener
from nexus_channels.queue import Queue, SyncQueue, as_queue


async def receive_from(arms: list[mpsc.Receiver[int]]) -> AsyncIterator[int]:
    while arms:
        try:
            done = await select(*arms)
        except RecvError as error:
            arms.remove(error.arm)  # it has ended
        else:
            yield done.value


async def produce(tx: mpsc.Sender[int]) -> None:
    async with tx:
        for number in range(10):
            await tx.send(number, timeout=1)


async def consume(rx: mpsc.Receiver[int]) -> int:
    total = 0
    async for number in rx:
        total += assert_type(number, int)
    return total


def moved_to_another_interpreter() -> int:
    tx, rx = mpsc_bytes.channel(4096)
    ticket = assert_type(rx.share(), Ticket[mpsc_bytes.Receiver])
    text: bytes = bytes(ticket)
    there = assert_type(attach(ticket), mpsc_bytes.Receiver)
    from_bytes: mpsc_bytes.Receiver = attach(text)
    sender = assert_type(attach(tx.clone().share()), mpsc_bytes.Sender)
    with ticket as same:
        assert_type(same, Ticket[mpsc_bytes.Receiver])
    ticket.close()
    objects, _ = mpsc.channel[int](4)
    attach(3)  # type: ignore[call-overload]
    sender.try_send(b"x")
    if objects.is_closed:
        objects.share()  # always raises
    return len(there.try_recv_bytes()) + len(from_bytes)


def found_by_a_path(path: Path) -> int:
    with spsc_bytes.listen(path, 4096) as listener:
        assert_type(listener, Listener[spsc_bytes.Receiver])
        assert_type(listener.receiver, spsc_bytes.Receiver)
        where: str | bytes = listener.path
    with mpsc_bytes.listen(b"feed", 4096) as many:
        tx = assert_type(mpsc_bytes.connect(many.path, timeout=1), mpsc_bytes.Sender)
        assert_type(many.receiver, mpsc_bytes.Receiver)
    mpsc_bytes.listen(4, 4096)  # type: ignore[arg-type]
    with tx.share().for_subprocess() as passed:
        text: str = passed.text
        numbers: tuple[int, ...] = passed.pass_fds
    there: mpsc_bytes.Sender = attach(text)
    return len(where) + len(numbers) + len(there)


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


def selected(rx: mpsc.Receiver[int]) -> int:
    with rx.notifier() as notifier, selectors.DefaultSelector() as selector:
        selector.register(notifier, selectors.EVENT_READ)
        assert_type(notifier, Notifier)
        notifier.arm()
        selector.select()
        notifier.clear()
        assert_type(notifier.fileno(), int)
        return rx.try_recv()


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
    Notifier()  # type: ignore[call-arg]
    wider: mpsc.Sender[object] = tx  # type: ignore[assignment]
    del wider


async def objects_of_anyio(channel: mpsc.channel[int]) -> anyio.abc.ObjectReceiveStream[object]:
    tx, rx = channel
    send, receive = SendStream(tx), ReceiveStream(rx)
    assert_type(send, SendStream[int])
    assert_type(receive, ReceiveStream[int])
    await send.send(1)
    send.send_nowait(2)
    await send.send("text")  # type: ignore[arg-type]
    assert_type(send.clone(), SendStream[int])
    assert_type(await receive.receive(), int)
    assert_type(receive.receive_nowait(), int)
    async for item in receive:
        assert_type(item, int)
    async with send as entered:
        assert_type(entered, SendStream[int])
    assert_type(receive.statistics().tasks_waiting_receive, int)
    SendStream(rx)  # type: ignore[call-overload]
    booleans: anyio.abc.ObjectSendStream[bool] = send  # a stream for ints takes bools
    await booleans.send(True)
    return receive


async def bytes_of_anyio(tx: mpsc_bytes.Sender, rx: spsc_bytes.Receiver) -> anyio.abc.ByteStream:
    messages: anyio.abc.ObjectSendStream[bytes] = SendStream(tx)
    await messages.send(b"message")
    assert_type(ReceiveStream(rx), ReceiveStream[bytes])
    one_way: anyio.abc.ByteSendStream = ByteSendStream(tx)
    await one_way.send(b"bytes")
    assert_type(await ByteReceiveStream(rx).receive(10), bytes)
    ByteReceiveStream(tx)  # type: ignore[arg-type]
    return ByteStream(tx, rx)


def work(jobs: SyncQueue[str], done: SyncQueue[int]) -> None:
    while True:
        done.put(len(assert_type(jobs.get(), str)), timeout=1)
        jobs.task_done()


async def faces_of_a_queue() -> int:
    jobs, done = Queue[str](4), as_queue(mpsc.channel[int](4))
    threading.Thread(target=work, args=(jobs.sync_q, done.sync_q), daemon=True).start()
    await jobs.async_q.put("job")
    await jobs.async_q.put(1)  # type: ignore[arg-type]
    await jobs.async_q.join()
    return assert_type(await done.async_q.get(), int)
