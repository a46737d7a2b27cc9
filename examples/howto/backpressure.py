"""Backpressure: a fast producer waits for a slow consumer, and at most two items are in between."""

import asyncio

from nexus_channels import Full, local


async def produce(tx):
    with tx:
        for number in range(5):
            try:
                tx.try_send(number)  # only to show when it is full: send() alone is enough
            except Full:
                print(f"{number} has to wait")
                await tx.send(number)
            print(f"{number} is sent")


async def main():
    tx, rx = local.channel(2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce(tx))
        with rx:
            async for number in rx:
                await asyncio.sleep(0.01)  # stands for slow work
                print(f"    {number} is done")


asyncio.run(main())
