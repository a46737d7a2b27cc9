"""Fan in: threads and tasks send into one channel, and one task receives everything."""

import asyncio
import threading
from collections import defaultdict

from nexus_channels import mpsc


def read_in_thread(tx, name):
    with tx:  # closes this sender at the end
        for value in range(3):
            tx.send_blocking((name, value))


async def read_in_task(tx, name):
    with tx:
        for value in range(3):
            await tx.send((name, value))


async def main():
    tx, rx = mpsc.channel(4)
    values = defaultdict(list)
    with rx:
        async with asyncio.TaskGroup() as tasks:
            with tx:  # each producer gets a sender of its own; this first one is closed here
                for name in ("thread 1", "thread 2"):
                    threading.Thread(target=read_in_thread, args=(tx.clone(), name)).start()
                for name in ("task 1", "task 2"):
                    tasks.create_task(read_in_task(tx.clone(), name))
            async for name, value in rx:  # ends when every sender is closed
                values[name].append(value)
    for name in sorted(values):
        print(name, values[name])


asyncio.run(main())
