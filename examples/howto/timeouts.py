"""Time-outs and cancellation: a call that did not return normally sent nothing and took nothing."""

import asyncio

from nexus_channels import RecvTimeout, SendTimeout, spsc


async def main():
    tx, rx = spsc.channel(1)
    try:
        await rx.recv(timeout=0.01)
    except RecvTimeout:
        print("nothing came")

    await tx.send("first")  # now the channel is full
    try:
        await tx.send("second", timeout=0.01)
    except SendTimeout as error:
        print("not sent:", error.value)

    try:
        async with asyncio.timeout(0.01):
            await tx.send("third")
    except TimeoutError:
        print("not sent: third")

    task = asyncio.create_task(tx.send("fourth"))
    await asyncio.sleep(0)  # it runs, and waits
    task.cancel()
    await asyncio.wait([task])
    print("cancelled:", task.cancelled())

    print("received:", rx.try_recv_many(10))


asyncio.run(main())
