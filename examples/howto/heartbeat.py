"""Send a heartbeat whenever no message came for a while."""

import asyncio

from nexus_channels import RecvError, RecvTimeout, local

INTERVAL = 0.1


async def write(messages, wire):
    """Passes messages on to the wire, and heartbeats in between."""
    with messages, wire:
        while True:
            try:
                message = await messages.recv(timeout=INTERVAL)
            except RecvTimeout:  # nothing was taken, and nothing is lost
                message = "heartbeat"
            except RecvError:  # the end
                return
            await wire.send(message)


async def main():
    tx, messages = local.channel(8)
    wire, sent = local.channel(8)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(messages, wire))
        with tx:
            await tx.send("order 1")
            async for message in sent:
                print(message)
                if message == "heartbeat":
                    await tx.send("order 2")
                    break
        async for message in sent:
            print(message)


asyncio.run(main())
