"""The other process of two_processes.py.  It imports little, so that it is there soon.

`serve()` runs what it is asked for, with ends that came with the question or that it had from its start.
"""

import asyncio
import os
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns, sleep
from typing import Any

__all__ = ["ASLEEP", "AT_ONCE", "MESSAGE", "ByHand", "content", "decode", "on_processor", "open_ends", "serve"]

MESSAGE = 64
AT_ONCE = 256  # messages in a batch
ASLEEP = 0.002  # seconds after which whoever waits is asleep
STAMP = struct.Struct("q")


def content(number: int | None, size: int) -> bytes:
    """No part of it could stand elsewhere, nor in another message."""
    number = number or 0
    return b"".join(STAMP.pack(number + (place << 32)) for place in range(size // 8))


def decode(message: Any) -> int:
    (number,) = STAMP.unpack_from(message)
    return int(number)


@contextmanager
def on_processor(place: int) -> Iterator[None]:
    """Keep this process to one of the processors that it may use, which are the same for both."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[place]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class Its:
    """What this process does with its ends."""

    send: Any
    recv: Any
    send_many: Any = None
    recv_many: Any = None
    borrow: Any = None
    close: Callable[[], Any] = lambda: None


# ---- ends, of each kind ----------------------------------------------------------------------------------------------


def channels(there: Any, back: Any) -> Its:
    from nexus_channels import attach

    rx, tx = attach(there), attach(back)

    def close() -> None:
        rx.close()
        tx.close()

    many = {"send_many": tx.send_many_blocking, "recv_many": partial(rx.recv_many_blocking, AT_ONCE)}
    return Its(tx.send_blocking, rx.recv_bytes_blocking, borrow=rx.recv_blocking, close=close, **many)


def queues(there: Any, back: Any) -> Its:
    return Its(back.put, there.get)


def fifos(there: Any, back: Any) -> Its:
    return Its(back.put, there.get, back.put_many, partial(there.get_many, max_messages_to_get=AT_ONCE))


def connections(there: Any, back: Any) -> Its:
    def close() -> None:
        there.close()
        back.close()

    return Its(back.send_bytes, there.recv_bytes, close=close)


def pipes(there: Any, back: Any) -> Its:
    reader, writer = there.detach(), back.detach()

    def close() -> None:
        os.close(reader)
        os.close(writer)

    return Its(partial(os.write, writer), partial(os.read, reader, MESSAGE), close=close)


def sockets(there: str, back: str) -> Its:
    import zmq

    pull, push = zmq.Context.instance().socket(zmq.PULL), zmq.Context.instance().socket(zmq.PUSH)
    pull.connect(there)
    push.connect(back)

    def close() -> None:
        pull.close(0)
        push.close()

    return Its(push.send, pull.recv, close=close)


KINDS: dict[str, Callable[..., Its]] = {
    "channels": channels,
    "queues": queues,
    "fifos": fifos,
    "connections": connections,
    "pipes": pipes,
    "eventfds": pipes,
    "sockets": sockets,
}


def open_ends(kind: str, there: Any, back: Any) -> Its:
    return KINDS[kind](there, back)


# ---- what it is asked for --------------------------------------------------------------------------------------------


def stream(its: Its, count: int, done: Callable[[], None]) -> None:
    """Receive them all, say so, and send them back, which is not timed."""
    recv = its.recv
    items = [recv() for _ in range(count)]
    done()
    for item in items:
        its.send(item)


def batches(its: Its, count: int, done: Callable[[], None]) -> None:
    items: list[Any] = []
    recv_many = its.recv_many
    while len(items) < count:
        items += recv_many()
    done()
    for start in range(0, count, AT_ONCE):
        its.send_many(items[start : start + AT_ONCE])


def look(its: Its, count: int, done: Callable[[], None]) -> None:
    """Each message is looked at, where it lies if it can be. What goes back are the numbers of them."""
    numbers = []
    unpack, borrow, recv = STAMP.unpack_from, its.borrow, its.recv
    for _ in range(count):
        message = recv() if borrow is None else borrow()
        numbers.append(unpack(message)[0])
        if numbers[-1] != 0:  # those that are measured are all alike
            assert bytes(message) == content(numbers[-1], len(message))
        if borrow is not None:
            message.release()
    done()
    for number in numbers:
        its.send(content(number, MESSAGE))


def pour(its: Its, count: int, done: Callable[[], None]) -> None:
    send, items = its.send, [content(number, MESSAGE) for number in range(count)]
    done()  # making them is not timed
    for item in items:
        send(item)


def echo(its: Its, count: int, done: Callable[[], None]) -> None:
    send, recv = its.send, its.recv
    done()
    for _ in range(count):
        send(recv())


def echo_late(its: Its, count: int, done: Callable[..., None], *, place: int) -> None:
    """Keep each message until the other process is asleep; tell how long each was kept, in nanoseconds."""
    send, recv = its.send, its.recv
    held: list[int] = []
    with on_processor(place):
        done()
        for _ in range(count):
            item = recv()
            began = perf_counter_ns()
            sleep(ASLEEP)
            held.append(perf_counter_ns() - began)
            send(item)
    done(held)


RUNS = {
    "stream": stream,
    "batches": batches,
    "look": look,
    "pour": pour,
    "echo": echo,
    "echo_late": partial(echo_late, place=-1),
    "echo_late_here": partial(echo_late, place=0),  # on the processor of who asks
}


def serve(asked: Any, own: dict[str, tuple[Any, Any]]) -> None:
    """`own` are ends that can only be inherited."""
    while True:
        try:
            run, kind, there, back, count = asked.recv()
        except EOFError:
            return
        try:
            its = open_ends(kind, *(own[there] if isinstance(there, str) and there in own else (there, back)))
            asked.send("ready")
            RUNS[run](its, count, lambda word="done": asked.send(word))
            asked.recv()  # all that was sent has been received
            its.close()
            asked.send("over")
        except BaseException:
            asked.send(traceback.format_exc())


class ByHand:
    """An eventfd in a loop of asyncio, as one would write it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[None] | None = None
        self.loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        os.read(self.fd, 8)
        if self.waiting is not None:
            self.waiting.set_result(None)
            self.waiting = None

    async def recv(self) -> None:
        self.waiting = self.loop.create_future()
        await self.waiting

    def close(self) -> None:
        self.loop.remove_reader(self.fd)
