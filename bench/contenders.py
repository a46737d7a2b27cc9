"""Who is measured beside those that the package's own `bench` command knows: what needs another library's loop, a
queue between processes, or a stream of bytes.

The scenarios of other kinds of channel register their contenders in modules of their own: see MORE in scenarios.py.
"""

import asyncio
import importlib
import itertools
import math
import multiprocessing
import os
from functools import partial
from typing import Any

from nexus_channels import mpsc
from nexus_channels._programs.bench.contenders import (
    CONTENDERS,
    NEXUS,
    STREAMS,
    Contender,
    Ends,
    close_both,
    contender,
    module,
    stream_ends,
)
from nexus_channels.queue import Queue

__all__ = ["CONTENDERS", "FACE", "NEXUS", "Contender", "Ends", "contender", "module"]

FACE = "queue face of nexus_channels"
WORD = 8


def to_bytes(item: int | None) -> bytes:
    return (item or 0).to_bytes(WORD, "little")


def from_bytes(data: bytes) -> int:
    return int.from_bytes(data, "little")


# ---- ours, as others know it ---------------------------------------------------------------------------------------


@contender(
    FACE,
    "nexus_channels",
    "try_send try_recv send recv send_blocking recv_blocking two_loops clone",
    Queue,
)
def face_ends(queue: Any) -> Ends:
    sync_q, async_q = queue.sync_q, queue.async_q
    return Ends(
        try_send=sync_q.put_nowait,
        try_recv=sync_q.get_nowait,
        send=async_q.put,
        recv=async_q.get,
        send_blocking=sync_q.put,
        recv_blocking=sync_q.get,
        clone=lambda: face_ends(queue),
    )


# ---- the standard library: between processes -----------------------------------------------------------------------


@contender(
    "multiprocessing.Pipe",
    "",
    "send_blocking recv_blocking",
    lambda _: multiprocessing.Pipe(duplex=False),
    close_both,
)
def _(pair: Any) -> Ends:
    reader, writer = pair
    return Ends(send_blocking=writer.send, recv_blocking=reader.recv)


def close_fds(fds: tuple[int, int]) -> None:
    for fd in fds:
        os.close(fd)


@contender(
    "os.pipe, 8 bytes",
    "",
    "send_blocking recv_blocking clone",
    lambda _: os.pipe(),
    close_fds,
    encode=to_bytes,
    decode=from_bytes,
)
def pipe_ends(fds: tuple[int, int]) -> Ends:
    reader, writer = fds
    return Ends(
        send_blocking=partial(os.write, writer),
        recv_blocking=partial(os.read, reader, WORD),
        clone=lambda: pipe_ends(fds),
    )


# ---- from PyPI -----------------------------------------------------------------------------------------------------

if module("anyio"):
    streams = importlib.import_module("nexus_channels.anyio")

    def streamed(capacity: int) -> Any:
        """Ours, as AnyIO code gets it: each call is a checkpoint."""
        tx, rx = mpsc.channel(capacity)
        return streams.SendStream(tx), streams.ReceiveStream(rx)

    contender("mpsc by streams of anyio", "anyio", STREAMS, streamed, close_both)(stream_ends)


if zmq := module("zmq"):
    zmq_asyncio = module("zmq.asyncio")
    numbers = itertools.count()

    class Inproc:
        """A PULL socket and the PUSH sockets that are connected to it; those of asyncio are views of the same."""

        def __init__(self, capacity: int) -> None:
            self.capacity = capacity
            self.address = f"inproc://bench-{next(numbers)}"
            self.sockets: list[Any] = []
            self.pull = self.open(zmq.PULL, "rcvhwm", "bind")
            self.push = self.open(zmq.PUSH, "sndhwm", "connect")

        def open(self, kind: int, mark: str, attach: str) -> Any:
            socket = zmq.Context.instance().socket(kind)
            socket.linger = 0
            setattr(socket, mark, math.ceil(self.capacity / 2))  # the two ends' high-water marks add up
            getattr(socket, attach)(self.address)
            self.sockets.append(socket)
            return socket

        def close(self) -> None:
            for socket in self.sockets:
                socket.close()

    def awaited(socket: Any) -> Any:
        """The socket as the running loop sees it."""
        return zmq_asyncio.Socket.shadow(socket)

    def running() -> bool:
        return asyncio._get_running_loop() is not None

    def push_ends(channel: Inproc, push: Any) -> Ends:
        return Ends(
            send_blocking=push.send,
            recv_blocking=channel.pull.recv,
            send=awaited(push).send if running() else push.send,
            recv=awaited(channel.pull).recv if running() else channel.pull.recv,
            clone=lambda: push_ends(channel, channel.open(zmq.PUSH, "sndhwm", "connect")),
        )

    @contender(
        "pyzmq inproc",
        "pyzmq",
        "send recv send_blocking recv_blocking clone",
        Inproc,
        Inproc.close,
        encode=to_bytes,
        decode=from_bytes,
        at_once=100,
    )
    def _(channel: Inproc) -> Ends:
        return push_ends(channel, channel.push)


if faster_fifo := module("faster_fifo"):

    @contender(
        "faster-fifo",
        "faster-fifo",
        "try_send try_recv send_blocking recv_blocking clone",
        lambda capacity: faster_fifo.Queue(max_size_bytes=max(32 * capacity, 1000)),
        lambda queue: queue.close(),
    )
    def fifo_ends(queue: Any) -> Ends:
        return Ends(
            try_send=queue.put_nowait,
            try_recv=queue.get_nowait,
            send_blocking=queue.put,
            recv_blocking=queue.get,
            clone=lambda: fifo_ends(queue),
        )
