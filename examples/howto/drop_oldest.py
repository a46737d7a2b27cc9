"""Drop the oldest item when the channel is full, so that the newest items are kept."""

import asyncio

from nexus_channels import Empty, Full, local


async def send_newest(tx, rx, item):
    """Send `item`; while there is no room, drop the oldest item. Returns how many were dropped."""
    dropped = 0
    while True:
        try:
            tx.try_send(item)
        except Full:
            try:
                rx.try_recv()
                dropped += 1
            except Empty:  # what is buffered belongs to a receive that waits: let its task run
                await asyncio.sleep(0)
        else:
            return dropped


async def main():
    tx, rx = local.channel(3)
    dropped = 0
    with tx:
        for number in range(10):
            dropped += await send_newest(tx, rx, number)
    print("dropped:", dropped)
    with rx:
        async for number in rx:
            print(number)


asyncio.run(main())
