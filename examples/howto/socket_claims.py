"""Read from a TCP socket straight into the ring of a channel; another task reads the bytes in place."""

import asyncio
import hashlib
import socket

from nexus_channels import spsc_bytes

DATA = bytes(range(256)) * 4000  # what the server sends


async def serve(reader, writer):
    """Stands for the peer: sends 1,024,000 bytes and closes the connection."""
    writer.write(DATA)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def receive(sock, tx):
    """The task at the socket: what one read gives is one message."""
    loop = asyncio.get_running_loop()
    with tx:
        while True:
            claim = await tx.claim(4096)  # waits while the ring is full
            with claim as view:
                n = await loop.sock_recv_into(sock, view)  # the kernel writes into the ring
                if n == 0:  # the peer has closed the connection
                    claim.abort()
                    break
                claim.commit(n)  # a short read: only n bytes are sent


async def consume(rx):
    """The task that reads each message in place."""
    size, digest = 0, hashlib.sha256()
    with rx:
        async for claim in rx:
            with claim as chunk:
                digest.update(chunk)
                size += len(chunk)
    print(f"{size} bytes, unchanged: {digest.digest() == hashlib.sha256(DATA).digest()}")


async def main():
    tx, rx = spsc_bytes.channel(16384)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with socket.socket() as sock:
            sock.setblocking(False)  # asyncio needs a non-blocking socket
            await asyncio.get_running_loop().sock_connect(sock, server.sockets[0].getsockname())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(receive(sock, tx))
                tasks.create_task(consume(rx))


asyncio.run(main())
