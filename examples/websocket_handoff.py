"""WebSocket frames from an event loop to a worker thread, through a channel of bytes.

A server on the loopback interface sends binary frames of 1 byte to 1 MiB. The client's task writes each into a ring,
behind its number; a thread borrows it there, checks it, and gives it back: the reading side copies nothing. When the
thread is slow the ring fills up, the client stops reading, and TCP slows the server down.

    python examples/websocket_handoff.py --frames 500
"""

import argparse
import asyncio
import contextlib
import random
import struct
import sys
import time
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from nexus_channels import spsc_bytes

LARGEST = 1 << 20  # bytes of a frame
HEAD = struct.Struct("<Q")  # before each frame: its number. So that an empty frame is a message, too


class Feed:
    """What the server sends, and so what must come out at the other end."""

    def __init__(self, frames: int, seed: int = 0) -> None:
        chance = random.Random(seed)
        sizes = [1, LARGEST, *(round(2 ** chance.uniform(0, 20)) for _ in range(frames - 2))]
        self.sizes = sizes[:frames]
        self._noise = chance.randbytes(2 * LARGEST)

    def frame(self, number: int) -> memoryview:
        start = number * 7919 % LARGEST
        return memoryview(self._noise)[start : start + self.sizes[number]]


class Check:
    """Takes the frames that arrive, and compares them with the feed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.frames = 0
        self.bytes = 0

    def __call__(self, number: int, frame: memoryview) -> None:
        if number != self.frames:
            raise ValueError(f"frame {number} came when {self.frames} was due")
        if frame != self.feed.frame(number):
            raise ValueError(f"frame {number} is not what was sent")
        self.frames += 1
        self.bytes += len(frame)


async def receive(url: str, tx: spsc_bytes.Sender) -> None:
    """The client: every frame goes into the ring, text or binary, in the order of arrival."""
    with tx:
        async with connect(url, max_size=LARGEST, compression=None) as connection:
            try:
                await fill(connection, tx)
            except BaseException:
                connection.transport.abort()  # a farewell would have to wait for frames that nobody reads any more
                raise


async def fill(connection: ClientConnection, tx: spsc_bytes.Sender) -> None:
    number = 0
    while True:
        try:
            frame = await connection.recv(decode=False)
        except ConnectionClosedOK:
            return
        async with tx.claim(HEAD.size + len(frame)) as room:  # waits while the ring is full
            HEAD.pack_into(room, 0, number)
            room[HEAD.size :] = frame
        number += 1


def consume(rx: spsc_bytes.Receiver, handle: Callable[[int, memoryview], None]) -> None:
    """The worker thread: `handle` sees each frame where it lies in the ring, and no longer than it runs."""
    with rx:
        for claim in rx:
            with claim as message, message[HEAD.size :] as frame:
                handle(*HEAD.unpack_from(message), frame)


async def run(feed: Feed, handle: Callable[[int, memoryview], None], capacity: int) -> None:
    async def send(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):  # the client has hung up, and tells why
            for number in range(len(feed.sizes)):
                await connection.send(feed.frame(number))

    tx, rx = spsc_bytes.channel(capacity)
    async with serve(send, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.TaskGroup() as tasks:  # each end closes its side, so that neither outlives the other
            tasks.create_task(asyncio.to_thread(consume, rx, handle))
            tasks.create_task(receive(f"ws://127.0.0.1:{port}", tx))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500, metavar="N", help="how many to send (%(default)s)")
    parser.add_argument("--capacity", type=int, default=4 << 20, metavar="N", help="bytes of the ring (%(default)s)")
    options = parser.parse_args()

    feed = Feed(options.frames)
    check = Check(feed)
    began = time.perf_counter()
    asyncio.run(run(feed, check, options.capacity))
    seconds = time.perf_counter() - began
    print(f"{check.frames:,} frames, {check.bytes:,} bytes, in {seconds:.2f} s: all there, in order, as they were sent")
    return 0 if check.frames == options.frames else 1


if __name__ == "__main__":
    sys.exit(main())
