"""Records from worker threads into an AnyIO program: a byte channel read as a stream, and objects passed on."""

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from nexus_channels import mpsc_bytes, spsc
from nexus_channels.anyio import ByteReceiveStream, ReceiveStream, SendStream

CHUNKS = {
    "north": [b"north 3\nnor", b"th 5\n"],  # as they come from a device: a record may be cut anywhere
    "south": [b"south 4\n"],
}


def read_device(name, tx):
    """A worker thread: its own end of the channel needs no AnyIO."""
    with tx:
        for record in b"".join(CHUNKS[name]).splitlines(keepends=True):
            tx.send_blocking(record)


async def parse(stream, parsed):
    """Any AnyIO code would do: it is given streams, and knows of no channels."""
    async with stream, parsed:
        while True:
            try:
                line = await stream.receive_until(b"\n", 100)
            except anyio.IncompleteRead:
                return  # every thread has closed its end
            name, _, number = line.decode().partition(" ")
            await parsed.send((name, int(number)))


async def main():
    raw_tx, raw = mpsc_bytes.channel(4096)
    parsed_tx, parsed = spsc.channel(16)
    async with anyio.create_task_group() as tasks:
        for name in CHUNKS:
            tasks.start_soon(anyio.to_thread.run_sync, read_device, name, raw_tx.clone())
        raw_tx.close()  # the clones are open
        tasks.start_soon(parse, BufferedByteReceiveStream(ByteReceiveStream(raw)), SendStream(parsed_tx))
        totals = {}
        async for name, number in ReceiveStream(parsed):
            totals[name] = totals.get(name, 0) + number
    for name, total in sorted(totals.items()):
        print(name, total)


anyio.run(main)
