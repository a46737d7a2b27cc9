"""A trio program that is fed by threads: the threads block, the tasks await, and cancel scopes end a wait."""

import threading

import trio

from nexus_channels import mpsc


def read_sensor(tx, name, values):
    """Runs in a thread, as a library that knows no event loop would call it."""
    with tx:
        for value in values:
            tx.send_blocking((name, value))


async def sum_up(rx, totals):
    async for name, value in rx:  # ends when every thread has closed its sender
        totals[name] = totals.get(name, 0) + value


async def main():
    tx, rx = mpsc.channel(4)
    with trio.move_on_after(0.01) as scope:
        await rx.recv()  # nothing has been sent yet
    print("gave up:", scope.cancelled_caught)

    totals = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sum_up, rx, totals)
        with tx:
            for name in ("temperature", "pressure"):
                threading.Thread(target=read_sensor, args=(tx.clone(), name, range(100))).start()
    print(sorted(totals.items()))


trio.run(main)
