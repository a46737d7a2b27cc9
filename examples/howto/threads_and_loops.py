"""Hand work from an event loop to a thread, and take the results back: two channels."""

import asyncio
import hashlib
import threading

from nexus_channels import spsc


def compute(rx, tx):
    """Runs in a thread: it may block as long as it likes."""
    with rx, tx:
        for name, data in rx:
            tx.send_blocking((name, hashlib.sha256(data).hexdigest()))


async def feed(tx):
    with tx:
        for name in ("one", "two", "three"):
            await tx.send((name, name.encode() * 100_000))


async def main():
    to_thread, work = spsc.channel(2)
    to_loop, results = spsc.channel(2)
    threading.Thread(target=compute, args=(work, to_loop)).start()
    with results:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed(to_thread))
            async for name, digest in results:  # the loop runs other tasks while this one waits
                print(name, digest[:8])


asyncio.run(main())
