"""Select: one task serves prices and orders as they come, and stops at once when it is told to."""

import asyncio

from nexus_channels import RecvError, mpsc, select, spsc


async def trade(orders, prices, stop):
    last = None
    while True:
        try:
            done = await select(orders, prices, stop)
        except RecvError as end:
            if end.arm is stop:
                break
            raise
        if done.arm is prices:
            last = done.value
        else:
            print(done.value, "at", last)
    print("stopped")


async def main():
    (orders_tx, orders), (prices_tx, prices), (stop_tx, stop) = mpsc.channel(8), mpsc.channel(8), spsc.channel(1)
    trader = asyncio.create_task(trade(orders, prices, stop))
    await prices_tx.send(101)
    await asyncio.sleep(0.01)  # the market moves
    await orders_tx.send("buy")
    await prices_tx.send(99)
    await asyncio.sleep(0.01)
    await orders_tx.send("sell")
    await asyncio.sleep(0.01)
    stop_tx.close()  # the end of a channel is a message, too
    await trader


asyncio.run(main())
