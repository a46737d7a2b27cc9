"""Messages of bytes: `bytes_SIZE_WHERE` copies them, `claims_SIZE_WHERE` reads into claims and reads in place.

WHERE is `pair`, one thread that sends and receives each message in turn; `threads`, from a thread to a thread; or
`loop`, from a thread to a task. `bytes_64_receive` times the receiving side of one thread alone.

The work is the same for all. A message comes out of a source, here an io.BytesIO as it might be a socket or a file. Who
passes references needs a new object for each, and calls `source.read(size)`; who copies has `source.readinto(buffer)`
fill the same buffer each time, and sends that; who has claims has `source.readinto(claim)` fill the message where it
lies. In the scenarios of claims each message is looked at, too: eight bytes of it are unpacked, from the object that
came out or from the ring. So a reference saves the copies, and a claim saves the objects. What comes out is checked
byte by byte before anything is timed.
"""

import array
import dataclasses
import fcntl
import functools
import io
import multiprocessing
import os
import select
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any

from bars import WHY, Bar
from contenders import close_both, close_fds, zmq

from nexus_channels import mpsc_bytes, spsc_bytes
from nexus_channels._programs.bench.contenders import CONTENDERS, Contender, Ends, contender
from nexus_channels._programs.bench.scenarios import (
    RECORDERS,
    SCENARIOS,
    Items,
    LoopFactory,
    New,
    Scenario,
    Start,
    on_loop,
)
from nexus_channels._programs.bench.threads import line_up

__all__ = ["BARS", "ByteEnds", "ByteScenario"]

SIZES = (16, 64, 1024, 65536)
STAMP = struct.Struct("q")
IN_ONE_GO = 8192  # messages that are received while the clock runs on


@dataclass
class ByteEnds(Ends):
    """What byte channels have beside."""

    copies: Any = None  # sends any buffer, and it may be used again at once; else references are passed
    try_claim: Any = None
    claim_blocking: Any = None
    try_borrow: Any = None
    borrow_blocking: Any = None
    borrow: Any = None  # to be awaited
    contexts: Any = None  # claims are used in `with` statements; else handed over and finished by hand


# ---- contenders ----------------------------------------------------------------------------------------------------

RING: set[str] = set()  # the contenders whose capacity is told in bytes

COPIES = "copies try_send try_recv send_blocking recv_blocking recv"
CLAIMS = "try_claim claim_blocking try_borrow borrow_blocking borrow"
MANY = "copies try_send_many try_recv_many send_many_blocking recv_many_blocking recv_many"


def copying(pair: Any) -> ByteEnds:
    tx, rx = pair
    return ByteEnds(
        copies=True,
        try_send=tx.try_send,
        try_recv=rx.try_recv_bytes,
        send_blocking=tx.send_blocking,
        recv_blocking=rx.recv_bytes_blocking,
        recv=rx.recv_bytes,
    )


def claiming(pair: Any) -> ByteEnds:
    tx, rx = pair
    return ByteEnds(
        try_claim=tx.try_claim,
        claim_blocking=tx.claim_blocking,
        try_borrow=rx.try_recv,
        borrow_blocking=rx.recv_blocking,
        borrow=rx.recv,
    )


def in_batches(pair: Any) -> ByteEnds:
    tx, rx = pair
    return ByteEnds(
        copies=True,
        try_send_many=tx.try_send_many,
        try_recv_many=rx.try_recv_many,
        send_many_blocking=tx.send_many_blocking,
        recv_many_blocking=rx.recv_many_blocking,
        recv_many=rx.recv_many,
    )


def with_statements(pair: Any) -> ByteEnds:
    return dataclasses.replace(claiming(pair), contexts=True)


for variant in (spsc_bytes, mpsc_bytes):
    name = variant.__name__
    for form, can, ends in (
        ("", COPIES, copying),
        (", claims", CLAIMS, claiming),
        (", claims by with", f"{CLAIMS} contexts", with_statements),
        (", batches", MANY, in_batches),
    ):
        contender(name + form, "nexus_channels", can, variant.channel, family="bytes")(ends)
        RING.add(name + form)

FRESH = ", fresh bytes"


def carrying(name: str) -> None:
    """The queue of objects, which passes references to new bytes objects."""
    of_objects = CONTENDERS[name]
    can = of_objects.can - {"clone", "stream", "end_sending", "two_loops"}

    def ends(channel: Any) -> ByteEnds:
        given = of_objects.ends(channel)
        return ByteEnds(**{verb: getattr(given, verb) for verb in can})

    more = {"family": "bytes", "at_once": of_objects.at_once}
    contender(name + FRESH, of_objects.package, " ".join(can), of_objects.new, of_objects.close, **more)(ends)


for name in (
    "queue.SimpleQueue",
    "queue.Queue",
    "asyncio.Queue + call_soon_threadsafe",
    "janus",
    "culsans",
    "aiologic.Queue",
):
    if name in CONTENDERS:
        carrying(name)


def widen(fd: int, capacity: int) -> None:
    """Give the pipe as much room as the rings have, as far as the system lets us."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, min(max(capacity, 1 << 16), 1 << 20))


def open_pipe(capacity: int) -> tuple[int, int]:
    fds = os.pipe()
    widen(fds[0], capacity)
    return fds


def read_whole(fd: int, size: int) -> bytes:
    """A message that was too long to be written at once may come in pieces."""
    data = os.read(fd, size)
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


@contender("os.pipe", "", COPIES.removesuffix(" recv"), open_pipe, close_fds, family="bytes")
def _(fds: tuple[int, int], size: int = 8) -> ByteEnds:
    reader, writer = fds
    write = partial(os.write, writer)
    read = partial(os.read if size <= select.PIPE_BUF else read_whole, reader, size)
    return ByteEnds(copies=True, try_send=write, try_recv=read, send_blocking=write, recv_blocking=read)


def open_connections(capacity: int) -> Any:
    pair = multiprocessing.Pipe(duplex=False)
    widen(pair[0].fileno(), capacity)
    return pair


@contender(
    "multiprocessing.Pipe, send_bytes",
    "",
    "copies send_blocking recv_blocking",
    open_connections,
    close_both,
    family="bytes",
)
def _(pair: Any) -> ByteEnds:
    reader, writer = pair
    return ByteEnds(copies=True, send_blocking=writer.send_bytes, recv_blocking=reader.recv_bytes)


SIZED = {"os.pipe"}  # whose ends have to be told how long a message is
RING |= {"os.pipe", "multiprocessing.Pipe, send_bytes"}

if zmq is not None:
    from contenders import Inproc, awaited, running

    @contender("pyzmq inproc, bytes", "pyzmq", COPIES, Inproc, Inproc.close, family="bytes", at_once=100)
    def _(channel: Inproc) -> ByteEnds:
        push, pull = channel.push, channel.pull
        return ByteEnds(
            copies=True,
            try_send=push.send,  # with NOBLOCK it does not look at what was received, and says that it is full
            try_recv=partial(pull.recv, flags=zmq.NOBLOCK),
            send_blocking=push.send,
            recv_blocking=pull.recv,
            recv=awaited(pull).recv if running() else pull.recv,
        )


# ---- messages ------------------------------------------------------------------------------------------------------


def content(number: int, size: int) -> bytes:
    """Of message number so-and-so: no part of it could stand elsewhere, nor in another message."""
    places = range(number, number + (size // 8 << 32), 1 << 32)
    return array.array("Q", places).tobytes()


def number_of(size: int, message: bytes) -> int:
    (number,) = STAMP.unpack_from(message)
    assert message == content(number, size), f"{len(message)} bytes of message {number}, {size} were sent"
    return number


def together(size: int) -> int:
    """How many messages make a batch, and a source before it is read again from its start."""
    return 3 if size > 4096 else 64


@functools.lru_cache(16)
def source_of(numbers: tuple[int, ...], size: int, _thread: int) -> io.BytesIO:
    """Of each thread's own, as it is read from where it was left. A byte longer, as reading all of a BytesIO makes no
    new object."""
    return io.BytesIO(b"".join(content(number, size) for number in numbers) + b"x")


Input = list[tuple[io.BytesIO, range]]


def input_of(items: Items, size: int) -> Input:
    """The sources to read, and how many messages each."""
    numbers = [item or 0 for item in items]
    at_once = together(size)
    chunks = [tuple(numbers[i : i + at_once]) for i in range(0, len(numbers), at_once)]
    return [(source_of(chunk, size, threading.get_ident()), range(len(chunk))) for chunk in chunks]


# ---- sending -------------------------------------------------------------------------------------------------------


def copy_all(send: Callable[[Any], Any], given: Input, size: int) -> None:
    buffer = bytearray(size)
    for source, count in given:
        source.seek(0)
        readinto = source.readinto
        for _ in count:
            readinto(buffer)
            send(buffer)


def pass_all(send: Callable[[Any], Any], given: Input, size: int) -> None:
    for source, count in given:
        source.seek(0)
        read = source.read
        for _ in count:
            send(read(size))


def send_batches(send_many: Callable[[Any], Any], given: Input, size: int) -> None:
    for source, count in given:
        source.seek(0)
        read = source.read
        send_many([read(size) for _ in count])


def claim_all(claim: Callable[[int], Any], given: Input, size: int) -> None:
    for source, count in given:
        source.seek(0)
        readinto = source.readinto
        for _ in count:
            place = claim(size)
            readinto(place)
            place.commit()


def claim_all_with(claim: Callable[[int], Any], given: Input, size: int) -> None:
    for source, count in given:
        source.seek(0)
        readinto = source.readinto
        for _ in count:
            with claim(size) as place:
                readinto(place)


def sender(ends: ByteEnds) -> tuple[Any, ...]:
    """What a thread runs to send everything, and its first argument."""
    if ends.claim_blocking is not None:
        return (claim_all_with if ends.contexts else claim_all), ends.claim_blocking
    if ends.send_many_blocking is not None:
        return send_batches, ends.send_many_blocking
    return (copy_all if ends.copies else pass_all), ends.put or ends.send_blocking


# ---- receiving -----------------------------------------------------------------------------------------------------


def receive_all(ends: ByteEnds, left: int, size: int, looked_at: bool) -> int:
    """A thread that receives everything; returns when it was done."""
    unpack = STAMP.unpack_from
    if ends.borrow_blocking is not None:
        borrow = ends.borrow_blocking
        if ends.contexts:
            for _ in repeat(None, left):
                with borrow() as message:
                    unpack(message)
        else:
            for _ in repeat(None, left):
                message = borrow()
                unpack(message)
                message.release()
    elif ends.recv_many_blocking is not None:
        recv_many, at_once = ends.recv_many_blocking, together(size)
        while left:
            left -= len(recv_many(at_once))
    else:
        recv = ends.recv_blocking
        if looked_at:
            for _ in repeat(None, left):
                unpack(recv())
        else:
            for _ in repeat(None, left):
                recv()
    return wall_ns()


async def await_all(ends: ByteEnds, left: int, size: int, looked_at: bool) -> None:
    unpack = STAMP.unpack_from
    if ends.borrow is not None:
        borrow = ends.borrow
        if ends.contexts:
            for _ in repeat(None, left):
                with await borrow() as message:
                    unpack(message)
        else:
            for _ in repeat(None, left):
                message = await borrow()
                unpack(message)
                message.release()
    elif ends.recv_many is not None:
        recv_many, at_once = ends.recv_many, together(size)
        while left:
            left -= len(await recv_many(at_once))
    else:
        recv = ends.recv
        if looked_at:
            for _ in repeat(None, left):
                unpack(await recv())
        else:
            for _ in repeat(None, left):
                await recv()


# ---- scenarios -----------------------------------------------------------------------------------------------------


def pair(new: New, items: Items, _: LoopFactory, size: int, looked_at: bool) -> int:
    """In the source's order: read a message, send it, receive it."""
    ends: Any = new()
    given = input_of(items, size)
    unpack, buffer = STAMP.unpack_from, bytearray(size)
    began = cpu_ns()
    if ends.try_claim is not None:
        claim, borrow = ends.try_claim, ends.try_borrow
        for source, count in given:
            source.seek(0)
            readinto = source.readinto
            if ends.contexts:
                for _ in count:
                    with claim(size) as place:
                        readinto(place)
                    with borrow() as message:
                        unpack(message)
            else:
                for _ in count:
                    place = claim(size)
                    readinto(place)
                    place.commit()
                    message = borrow()
                    unpack(message)
                    message.release()
    elif ends.try_send_many is not None:
        recv_many = ends.try_recv_many

        def send_and_recv(batch: Any) -> None:
            ends.try_send_many(batch)
            recv_many(len(batch))

        send_batches(send_and_recv, given, size)
    else:
        send, recv = ends.try_send, ends.try_recv
        for source, count in given:
            source.seek(0)
            readinto, read = source.readinto, source.read
            if ends.copies and looked_at:
                for _ in count:
                    readinto(buffer)
                    send(buffer)
                    unpack(recv())
            elif ends.copies:
                for _ in count:
                    readinto(buffer)
                    send(buffer)
                    recv()
            elif looked_at:
                for _ in count:
                    send(read(size))
                    unpack(recv())
            else:
                for _ in count:
                    send(read(size))
                    recv()
    return cpu_ns() - began


def threads(new: New, items: Items, _: LoopFactory, size: int, looked_at: bool) -> int:
    ends: Any = new()
    feed, first = sender(ends)
    (thread,), go = line_up((feed, first, input_of(items, size), size))
    began = wall_ns()
    go()
    ended = receive_all(ends, len(items), size, looked_at)
    thread.join()
    return ended - began


def loop(new: New, items: Items, loops: LoopFactory, size: int, looked_at: bool) -> int:
    async def main(_: Start) -> int:
        ends: Any = new()
        feed, first = sender(ends)
        (thread,), go = line_up((feed, first, input_of(items, size), size))
        began = wall_ns()
        go()
        await await_all(ends, len(items), size, looked_at)
        elapsed = wall_ns() - began
        thread.join()
        return elapsed

    return on_loop(main, loops)


def receive(new: New, items: Items, _: LoopFactory, size: int) -> int:
    """As many as there is room for are sent before the clock runs on."""
    ends: Any = new()
    elapsed = 0
    at_once, recv, recv_many = together(size), ends.try_recv, ends.try_recv_many
    given = input_of(items, size)
    fits = IN_ONE_GO // at_once
    for some in (given[i : i + fits] for i in range(0, len(given), fits)):
        left = sum(len(count) for _, count in some)
        if recv_many is not None:
            send_batches(ends.try_send_many, some, size)
            began = cpu_ns()
            while left:
                left -= len(recv_many(at_once))
            elapsed += cpu_ns() - began
            continue
        (copy_all if ends.copies else pass_all)(ends.try_send, some, size)
        began = cpu_ns()
        for _ in repeat(None, left):
            recv()
        elapsed += cpu_ns() - began
    return elapsed


@dataclass
class ByteScenario(Scenario):
    """The capacity is that of messages; byte channels and pipes have as many bytes as these take."""

    size: int = 0
    family: str = "bytes"

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        if contender.name in RING:
            contender = contender._replace(new=partial(self._open, contender.new))
        if contender.name in SIZED:
            contender = contender._replace(ends=partial(contender.ends, size=self.size))
        return super()._run(contender, items, loops)

    def _open(self, new: Callable[[int], Any], messages: int) -> Any:
        return new(messages * (self.size + 8))

    def check(self, contender: Contender, loops: LoopFactory, count: int = 50) -> None:
        super().check(contender._replace(decode=partial(number_of, self.size)), loops, count)


# What is borrowed is noted as a copy.


def noted(claim: Any, log: list[Any]) -> Any:
    log.append(bytes(claim))
    return claim


def borrowed(borrow: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    return lambda: noted(borrow(), log)


def borrowed_awaiting(borrow: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    async def recorded() -> Any:
        return noted(await borrow(), log)

    return recorded


RECORDERS.update(try_borrow=borrowed, borrow_blocking=borrowed, borrow=borrowed_awaiting)

# ---- the list ------------------------------------------------------------------------------------------------------

SENDS = "put|send_blocking"
RECEIVES_MANY = {"try_recv": "try_recv_many", "recv_blocking": "recv_many_blocking", "recv": "recv_many"}
OPERATION = "one message read, sent and received"

for size in SIZES:
    few, some = (3, 15) if size > 4096 else (1024, 1024)  # of the large ones, rings of 256 KiB and of 1 MiB
    for where, run, sends, takes, claims, borrows, room in (
        ("pair", pair, "try_send", "try_recv", "try_claim", "try_borrow", few),
        ("threads", threads, SENDS, "recv_blocking", "claim_blocking", "borrow_blocking", some),
        ("loop", loop, SENDS, "recv", "claim_blocking", "borrow", some),
    ):
        many = "try_send_many" if run is pair else "send_many_blocking"
        for kind, needs in (
            ("bytes", (f"{sends}|{many}", f"{takes}|{RECEIVES_MANY[takes]}")),
            ("claims", (f"{sends}|{claims}", f"{takes}|{borrows}")),
        ):
            name = f"{kind}_{size}_{where}"
            SCENARIOS[name] = ByteScenario(
                name,
                OPERATION,
                partial(run, size=size, looked_at=kind == "claims"),
                needs,
                capacity=room,
                size=size,
                threads=run is not pair,
            )
SCENARIOS["bytes_64_receive"] = ByteScenario(
    "bytes_64_receive",
    "one message received",
    partial(receive, size=64),
    ("try_send|try_send_many", "try_recv|try_recv_many"),
    capacity=IN_ONE_GO,
    size=64,
)

# ---- what they are to be -------------------------------------------------------------------------------------------

COPYING = ("nexus_channels.spsc_bytes", "nexus_channels.mpsc_bytes")
CLAIMING = tuple(f"{name}, claims" for name in COPYING)
SIMPLE = f"queue.SimpleQueue{FRESH}"

BARS = [
    Bar("bytes_64_pair", SIMPLE, 1.3, COPYING),
    *(
        Bar("bytes_64_threads", other, 1 / 8, COPYING)
        for other in ("os.pipe", "multiprocessing.Pipe, send_bytes", "pyzmq inproc, bytes")
    ),
    *(Bar("bytes_64_receive", name, 1 / 1.5, (f"{name}, batches",)) for name in COPYING),
    Bar("bytes_64_loop", f"culsans{FRESH}", 1 / 10, COPYING),
    Bar("bytes_64_loop", "pyzmq inproc, bytes", 1 / 60, COPYING),
    *(
        Bar(f"claims_65536_{where}", other, limit, CLAIMING)
        for where in ("pair", "threads")
        for other, limit in ((SIMPLE, 1.0), ("os.pipe", 1 / 4))
    ),
]

WHY.update(
    {
        ("bytes_64_pair", SIMPLE): (
            "the channel copies 64 bytes twice and keeps the accounts of a ring; the queue moves a pointer. Both make "
            "one object for each message."
        ),
        ("claims_65536_pair", SIMPLE): (
            "in one thread, the queue's object is freed before the next is made, so that the same 64 KiB stay in the "
            "cache. The ring uses 256 KiB in turn: `readinto` alone, into four places in turn, takes 0.91 to 1.02 "
            "times as long as the queue with its read. Two claims are four calls where the queue has two: "
            "0.14 more. Between threads, objects pile up, and the channel is faster: see `claims_65536_threads`."
        ),
        ("claims_65536_threads", "os.pipe"): (
            "the receiving core fetches the message from the other core's cache, and the sending core fetches the room "
            "back. A pipe copies twice, which on some runs takes less than four times as long."
        ),
    }
)
