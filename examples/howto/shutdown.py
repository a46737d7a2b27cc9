"""Shut down on Ctrl-C: the producers stop, and everything that they sent is received."""

import asyncio
import signal
import threading

from nexus_channels import mpsc


def produce(tx, stop, sent):
    with tx:
        number = 0
        while not stop.is_set():
            tx.send_blocking(number)
            number += 1
    sent.append(number)


async def main():
    stop = threading.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    sent = []
    tx, rx = mpsc.channel(8)
    with tx:
        threads = [threading.Thread(target=produce, args=(tx.clone(), stop, sent)) for _ in range(3)]
    for thread in threads:
        thread.start()
    received = 0
    with rx:
        async for _ in rx:  # goes on until every producer has closed its sender
            received += 1
            if received == 100:
                signal.raise_signal(signal.SIGINT)  # stands for Ctrl-C
    for thread in threads:
        thread.join()
    print("stopped:", stop.is_set())
    print("everything was received:", received == sum(sent))


asyncio.run(main())
