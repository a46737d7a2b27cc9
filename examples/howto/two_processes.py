import asyncio
import multiprocessing

from nexus_channels import Ticket, attach, spsc_bytes

WORDS = [b"over", b"to the", b"other process"]


def shout(words: Ticket[spsc_bytes.Receiver], shouted: Ticket[spsc_bytes.Sender]) -> None:  # runs in the other process
    with attach(words) as rx, attach(shouted) as tx:
        for word in rx:  # blocks this process; ends when every sender is closed
            tx.send_blocking(bytes(word).upper())


async def main() -> None:
    tx, words = spsc_bytes.channel(4096, shared=True)
    shouted, rx = spsc_bytes.channel(4096, shared=True)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=shout, args=(words.share(), shouted.share()))
    process.start()
    with tx:
        for word in WORDS:
            await tx.send(word)  # waits while the channel is full, as between tasks
    async for answer in rx:
        print(bytes(answer).decode())
    process.join()


if __name__ == "__main__":
    asyncio.run(main())
