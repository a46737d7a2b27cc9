"""Request and reply: each request carries the sender of a channel for its own reply."""

import asyncio
import contextlib
import threading

from nexus_channels import SendError, mpsc, spsc


def serve(requests):
    with requests:
        for number, reply in requests:
            with reply, contextlib.suppress(SendError):  # SendError: the requester gave up
                reply.try_send(number * number)  # never full: one reply, and room for one


async def ask(tx, number, timeout=None):
    reply, rx = spsc.channel(1)
    with rx:
        await tx.send((number, reply), timeout=timeout)
        del reply  # only the server holds it now: if the server fails, recv() raises RecvError
        return await rx.recv(timeout=timeout)


async def main():
    tx, requests = mpsc.channel(16)
    threading.Thread(target=serve, args=(requests,)).start()
    with tx:
        print("one:", await ask(tx, 7))
        print("many at once:", await asyncio.gather(*(ask(tx, number, timeout=5) for number in range(4))))


asyncio.run(main())
