"""WebSocket connections in one process, their decoder in another, and a channel each way.

The server only moves bytes. What comes from a socket is read straight into the memory of a channel, behind the number
of its connection. The decoder takes it from there, in a process of its own: it puts the frames together, unmasks them,
parses the JSON in them, and sends back what the client shall get. So no parsing delays the event loop, and whatever a
client makes the decoder do, it does not do it to the server.

When the decoder is slow its channel fills up, the server stops reading, and TCP slows the clients down. When it dies,
both channels say so.

The clients here send the lines of some files, each as JSON in a message of its own. The decoder counts them, and each
client compares that with what it sent.

    pip install websockets
    python examples/websocket_processes.py examples/data/nginx-access.log
    python examples/websocket_processes.py --connections 8 --capacity 65536 examples/data/*.log
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import signal
import socket
import struct
import sys
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from nexus_channels import ClaimFull, Disconnected, SendError, Ticket, attach, mpsc_bytes, spsc_bytes

HEAD = struct.Struct("=Q")  # of a message in both channels: the number of its connection. If that is all: its end
CHUNK = 1 << 14  # bytes that are read from a socket at once
LARGEST = 1 << 20  # bytes that a client may send in one message
ANSWERS = 1 << 16  # bytes on their way back. No answer is nearly as large
DATA = {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}
SMALLEST = 2 * CHUNK  # capacity: there is room for one read then


@dataclass
class Totals:
    """Of what a client sent, counted by itself and by the decoder."""

    messages: int = 0
    bytes: int = 0
    crc: int = 0

    def count(self, line: str) -> None:
        text = line.encode()
        self.messages += 1
        self.bytes += len(text)
        self.crc = zlib.crc32(text, self.crc)


# ---- the decoder, in its process -----------------------------------------------------------------------------------


class Connection:
    """The protocol of one connection. It knows no socket: bytes come and go."""

    def __init__(self) -> None:
        self._protocol = ServerProtocol(max_size=LARGEST)
        self._begun = bytearray()  # a message that comes in several frames
        self._totals = Totals()

    def take(self, data: Any) -> list[bytes]:
        """What came from the client, empty if that was all; returns what it shall get, where b"" is the end."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode in DATA and self._protocol.state is State.OPEN:
                self._begun += event.data
                if event.fin:
                    self._take_message(bytes(self._begun))
                    self._begun.clear()
        return self._protocol.data_to_send()

    def _take_message(self, text: bytes) -> None:
        try:
            match json.loads(text):
                case {"number": int(number), "line": str(line)} if number == self._totals.messages:
                    self._totals.count(line)
                case None:
                    self._protocol.send_text(json.dumps(asdict(self._totals)).encode())
                case _:
                    raise ValueError("it is not the next line")
        except (ValueError, RecursionError) as error:
            self._protocol.fail(CloseCode.INVALID_DATA, f"message {self._totals.messages}: {error}"[:100])


def decode(received: Ticket[mpsc_bytes.Receiver], answers: Ticket[spsc_bytes.Sender]) -> None:
    """The decoder, from beginning to end. A new process imports it, so it has to stand at the top of a module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, and its end ends this loop
    connections: dict[int, Connection] = {}
    with attach(answers) as tx, attach(received) as rx, contextlib.suppress(SendError):  # the server may go first
        for claim in rx:
            with claim as message, message[HEAD.size :] as data:  # where the server has read it to
                (number,) = HEAD.unpack_from(message)
                if number not in connections:
                    connections[number] = Connection()
                for answer in connections[number].take(data):
                    tx.send_blocking(HEAD.pack(number) + answer)
                if not data:
                    del connections[number]


# ---- the server ----------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, tx: mpsc_bytes.Sender, rx: spsc_bytes.Receiver) -> None:
        self._tx = tx
        self._rx = rx
        self._open: dict[int, socket.socket] = {}
        self.held = 0  # how often a connection waited for the decoder

    async def accept(self, listening: socket.socket, connections: asyncio.TaskGroup) -> None:
        """Until it is cancelled. Connections go on to their own end."""
        number = 0
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            connections.create_task(self._receive(number, sock))
            number += 1

    async def _receive(self, number: int, sock: socket.socket) -> None:
        """All of a connection into the channel, each read as a message."""
        with sock, self._tx.clone() as tx:
            sock.setblocking(False)
            self._open[number] = sock
            try:
                size = 1
                while size:
                    await readable(sock)  # and only then claim: messages of other connections wait behind a claim
                    size = await self._read(number, sock, tx)
            finally:
                del self._open[number]

    async def _read(self, number: int, sock: socket.socket, tx: mpsc_bytes.Sender) -> int:
        try:
            claim = tx.try_claim(HEAD.size + CHUNK)
        except ClaimFull:
            self.held += 1
            claim = await tx.claim(HEAD.size + CHUNK)
        with claim as room:
            HEAD.pack_into(room, 0, number)
            with room[HEAD.size :] as place:
                try:
                    size = sock.recv_into(place)  # waits for nothing
                except BlockingIOError:  # it was not readable after all
                    claim.abort()
                    return 1
                except OSError:  # the client is gone without a word, which is an end as any other
                    size = 0
            claim.commit(HEAD.size + size)
        return size

    async def answer(self) -> None:
        """What the decoder sends, to the clients."""
        async for claim in self._rx:
            with claim as message, message[HEAD.size :] as data:
                (number,) = HEAD.unpack_from(message)
                if number in self._open:  # else the client has gone meanwhile
                    give(self._open[number], data)
        if not self._tx.is_closed:  # nobody has asked the decoder to end
            self._rx.try_recv()  # raises what the loop has ended by

    def close(self) -> None:
        """The decoder takes what is left, and ends; so does `answer()`."""
        self._tx.close()


def give(sock: socket.socket, data: memoryview) -> None:
    """Without waiting, as the other clients would wait, too. So a client that does not read its answers is cut off."""
    try:
        if not data:
            sock.shutdown(socket.SHUT_WR)
            return
        if sock.send(data) == len(data):
            return
    except OSError:
        pass
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


async def readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


# ---- the clients ---------------------------------------------------------------------------------------------------


async def client(url: str, lines: list[str]) -> Totals:
    """Send the lines, ask what arrived, and compare."""
    sent = Totals()
    async with connect(url, compression=None) as connection:
        for number, line in enumerate(lines):
            text = json.dumps({"number": number, "line": line})
            await connection.send(text if number % 10 else (text[:20], text[20:]))  # now and then in two frames
            sent.count(line)
        await connection.send("null")
        arrived = Totals(**json.loads(await connection.recv()))
    if arrived != sent:
        raise ValueError(f"{sent} were sent, and {arrived} arrived")
    return sent


# ---- all of it -----------------------------------------------------------------------------------------------------


async def serve(server: Server, shares: list[list[str]]) -> list[Totals]:
    """Until all clients have what they wanted, and the decoder has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        async with asyncio.TaskGroup() as tasks:  # whatever fails ends all of it
            tasks.create_task(server.answer())
            async with asyncio.TaskGroup() as connections:
                accepting = connections.create_task(server.accept(listening, connections))
                async with asyncio.TaskGroup() as clients:
                    asked = [clients.create_task(client(url, share)) for share in shares]
                accepting.cancel()
            server.close()
    return [one.result() for one in asked]


def run(lines: list[str], connections: int, capacity: int) -> tuple[list[Totals], int]:
    """What each client sent, which is what arrived; and how often the server waited for the decoder."""
    tx, received = mpsc_bytes.channel(capacity, shared=True)
    answers, rx = spsc_bytes.channel(ANSWERS, shared=True)
    decoder = multiprocessing.get_context("spawn").Process(
        target=decode, args=(received.share(), answers.share()), daemon=True
    )
    decoder.start()
    failed: ExceptionGroup[Exception] | None = None
    server = Server(tx, rx)
    try:
        with tx, rx:
            totals = asyncio.run(serve(server, [lines[first::connections] for first in range(connections)]))
    except ExceptionGroup as errors:
        failed = errors
    finally:
        decoder.join()  # both channels are closed, so it ends
    if decoder.exitcode or (failed and failed.subgroup(Disconnected)):
        raise SystemExit(f"the decoder {how_it_ended(decoder.exitcode, failed)}; all connections were cut")
    if failed:
        raise failed
    return totals, server.held


def how_it_ended(exitcode: int | None, failed: ExceptionGroup[Exception] | None) -> str:
    """By its exit code, and by what its channels said."""
    crashed = failed and failed.subgroup(lambda error: isinstance(error, Disconnected) and error.crashed)
    said = "did not close its ends" if crashed else "closed its ends early"
    return f"{said}, and its exit code is {exitcode}"


def main() -> int:
    parser = argparse.ArgumentParser(description="lines as WebSocket messages, decoded in another process")
    parser.add_argument("files", type=Path, nargs="+", help="whose lines the clients send")
    parser.add_argument("--connections", type=int, default=4, metavar="N", help="how many clients (%(default)s)")
    parser.add_argument(
        "--capacity", type=int, default=1 << 20, metavar="N", help="bytes on their way to the decoder (%(default)s)"
    )
    options = parser.parse_args()
    if options.connections < 1 or options.capacity < SMALLEST:
        parser.error(f"--connections is at least 1, and --capacity at least {SMALLEST:,}")

    lines = [line for path in options.files for line in path.read_text("utf-8", errors="replace").splitlines()]
    began = time.perf_counter()
    try:
        totals, held = run(lines, options.connections, options.capacity)
    except KeyboardInterrupt:
        print("stopped: not everything was sent", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - began
    messages, size = sum(one.messages for one in totals), sum(one.bytes for one in totals)
    if messages != len(lines):
        print(f"{len(lines):,} lines, and {messages:,} messages", file=sys.stderr)
        return 1
    print(f"{messages:,} messages of {len(totals)} connections, {size:,} bytes, in {seconds:.2f} s")
    print("decoded in another process: all there, in order, checksums " + ", ".join(f"{one.crc:08x}" for one in totals))
    print(f"the server waited for the decoder {held:,} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
