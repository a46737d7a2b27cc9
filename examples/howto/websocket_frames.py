"""Hand the frames of a WebSocket from the event loop to a worker thread, which reads them in place."""

import asyncio
import struct

from nexus_channels import spsc_bytes

NUMBER = struct.Struct("<Q")


async def connection():
    """Stands for a WebSocket connection: frames of several sizes, one of them empty."""
    for frame in (b'{"subscribe": "ticks"}', b"", b"x" * 3000, "price: 99 €".encode()):
        yield frame


async def receive(frames, tx):
    """The task: writes each frame into the ring, behind its number."""
    with tx:
        number = 0
        async for frame in frames:
            async with tx.claim(NUMBER.size + len(frame)) as room:  # waits while the ring is full
                NUMBER.pack_into(room, 0, number)
                room[NUMBER.size :] = frame
            number += 1


def consume(rx):
    """The worker thread: sees each frame where it lies in the ring."""
    with rx:
        for claim in rx:
            with claim as view, view[NUMBER.size :] as frame:
                (number,) = NUMBER.unpack_from(view)
                print(f"frame {number}: {len(frame)} bytes, the first {bytes(frame[:9])}")


async def main():
    tx, rx = spsc_bytes.channel(4096)  # room for the largest frame, its number and 8 bytes
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(consume, rx))
        tasks.create_task(receive(connection(), tx))


asyncio.run(main())
