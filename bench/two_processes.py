"""From one process to another: `processes_*`.

- `processes_stream`: messages of 64 bytes, sent and received one by one, both sides blocking
- `processes_batches`: the same, 256 at a time
- `processes_claims`: messages of 64 KiB, filled and looked at where they lie, by those who can
- `processes_to_task`: messages of 64 bytes into a task
- `processes_pingpong`: there and back, both sides blocking; `processes_pingpong_task`: asked by a task
- `processes_asleep`: there and back, both sides blocking, on a processor each; each message is kept for two
  milliseconds, so that each finds the other process asleep; that time is not counted
- `processes_asleep_one_cpu`: the same on one processor

Beside ours are the queues and pipes of multiprocessing, a pipe by hand, faster-fifo and pyzmq, where they are
installed. When all messages have arrived, the other process says so through a pipe of its own, whoever takes part; then
it sends them back, which is not timed: so their order is checked as in all scenarios.

There is one other process (process_peer.py), started when the first of these scenarios runs. It has the queues of
multiprocessing from its start, as they can only be inherited; all other ends it is given for each run.
"""

import asyncio
import atexit
import functools
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from time import perf_counter_ns as wall_ns
from time import sleep
from typing import Any

from bars import WHY, Bar
from contenders import faster_fifo, zmq
from process_peer import ASLEEP, AT_ONCE, MESSAGE, ByHand, content, decode, on_processor, serve

from nexus_channels import mpsc_bytes, spsc_bytes
from nexus_channels._programs.bench.contenders import Contender, Ends, contender
from nexus_channels._programs.bench.scenarios import (
    ITEM,
    ROUND_TRIP,
    SCENARIOS,
    Items,
    LoopFactory,
    New,
    Scenario,
    Start,
    on_loop,
)

__all__ = ["BARS", "close_other"]

LARGE = 65536
ROOM = 1024  # messages of 64 bytes, for those who do not count in bytes


@dataclass
class Across(Ends):
    """Our ends, and how the other process comes by its own."""

    claim_blocking: Any = None
    large: Any = None  # takes part with messages of 64 KiB
    kind: str | None = None  # see process_peer.py
    there: Any = None
    back: Any = None


# ---- the other process -----------------------------------------------------------------------------------------------

# Spawned, so that it has nothing of this one.
spawn = multiprocessing.get_context("spawn")


class Other:
    """It, and the ends that it has had from its start: {name: (there, back)}."""

    def __init__(self) -> None:
        self.own: dict[str, tuple[Any, Any]] = {
            "multiprocessing.Queue": (spawn.Queue(ROOM), spawn.Queue(ROOM)),
            "multiprocessing.SimpleQueue": (spawn.SimpleQueue(), spawn.SimpleQueue()),
        }
        if faster_fifo:
            room = ROOM * 2 * MESSAGE  # its messages are pickled
            self.own["faster-fifo"] = (faster_fifo.Queue(room), faster_fifo.Queue(room))
        self.asks, asked = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(asked, self.own), daemon=True)
        self.process.start()
        asked.close()

    def hear(self, word: str) -> None:
        said = self.asks.recv()
        if said != word:
            raise RuntimeError(f"the other process: {said}")

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.asks.close()
        for name, both in self.own.items():
            for queue in both:
                queue.close()
                if name == "multiprocessing.Queue":
                    queue.cancel_join_thread()


@functools.cache
def other() -> Other:
    new = Other()
    atexit.register(close_other)
    return new


def close_other() -> None:
    """The next that asks gets a new one."""
    if other.cache_info().currsize:
        one = other()
        other.cache_clear()
        one.close()


@contextmanager
def beside(ends: Across, run: str, count: int) -> Iterator[Other]:
    """Have the other process `run` it; if that fails, there is a new one for the next.

    It keeps its ends until all that it sent has been received here: sockets of pyzmq sometimes lose the last messages
    when they are closed at once."""
    one = other()
    try:
        one.asks.send((run, ends.kind, ends.there, ends.back, count))
        one.hear("ready")
        yield one
        one.asks.send("over")
        one.hear("over")
    except BaseException:
        close_other()
        raise


# ---- contenders ------------------------------------------------------------------------------------------------------

BLOCKING = "send_blocking recv_blocking kind there back"
more: dict[str, Any] = {"decode": decode, "family": "processes"}

try:
    spsc_bytes.channel(1, shared=True)
    HAS_LANES = True
except OSError:  # they are Linux's
    HAS_LANES = False


def two_channels(variant: Any, capacity: int, size: int = MESSAGE) -> tuple[Any, Any]:
    """There and back."""
    room = capacity * (size + 8)
    return variant.channel(room, shared=True), variant.channel(room, shared=True)


def ours(pair: tuple[Any, Any]) -> Across:
    (tx, there), (back, rx) = pair
    return Across(
        send_blocking=tx.send_blocking,
        recv_blocking=rx.recv_bytes_blocking,
        send=tx.send,
        recv=rx.recv_bytes,
        send_many_blocking=tx.send_many_blocking,
        claim_blocking=tx.claim_blocking,
        large=True,
        kind="channels",
        there=there.share(),
        back=back.share(),
    )


def close_ours(pair: tuple[Any, Any]) -> None:
    for channel in pair:
        for end in channel:
            end.close()


OURS = tuple(f"{variant.__name__}, two processes" for variant in (spsc_bytes, mpsc_bytes))
if HAS_LANES:
    for name, variant in zip(OURS, (spsc_bytes, mpsc_bytes), strict=True):
        can = f"{BLOCKING} send recv send_many_blocking claim_blocking large"
        contender(name, "nexus_channels", can, partial(two_channels, variant), close_ours, **more)(ours)


def inherited(name: str, *_: int, **__: int) -> str:
    return name


QUEUE, SIMPLE, FIFO = "multiprocessing.Queue", "multiprocessing.SimpleQueue", "faster-fifo"
PIPE, OS_PIPE, ZMQ = "multiprocessing.Pipe", "os.pipe", "pyzmq ipc"


@contender(f"{QUEUE}, two processes", "", f"{BLOCKING} recv", partial(inherited, QUEUE), **more)
@contender(f"{SIMPLE}, two processes", "", f"{BLOCKING} recv", partial(inherited, SIMPLE), **more)
def queues(name: str) -> Across:
    """A task can only receive in an executor."""
    there, back = other().own[name]
    recv = partial(asyncio.to_thread, back.get)
    return Across(send_blocking=there.put, recv_blocking=back.get, recv=recv, kind="queues", there=name, back=name)


if faster_fifo:

    @contender(
        f"{FIFO}, two processes",
        "faster-fifo",
        f"{BLOCKING} send_many_blocking",
        partial(inherited, FIFO),
        **more,
    )
    def _(name: str) -> Across:
        there, back = other().own[name]
        return Across(
            send_blocking=there.put,
            recv_blocking=back.get,
            send_many_blocking=there.put_many,
            kind="fifos",
            there=name,
            back=name,
        )


def two_connections(*_: int, **__: int) -> tuple[Any, Any, Any, Any]:
    return (*spawn.Pipe(duplex=False), *spawn.Pipe(duplex=False))


def close_all(ends: Any) -> None:
    for end in ends:
        end.close()


@contender(f"{PIPE}, two processes", "", f"{BLOCKING} recv large", two_connections, close_all, **more)
def _(four: tuple[Any, Any, Any, Any]) -> Across:
    there, tx, rx, back = four
    return Across(
        send_blocking=tx.send_bytes,
        recv_blocking=rx.recv_bytes,
        recv=partial(asyncio.to_thread, rx.recv_bytes),
        large=True,
        kind="connections",
        there=there,
        back=back,
    )


def two_pipes(*_: int, **__: int) -> tuple[int, int, int, int]:
    return (*os.pipe(), *os.pipe())


def close_fds(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


@contender(f"{OS_PIPE}, two processes", "", BLOCKING, two_pipes, close_fds, **more)
def _(fds: tuple[int, int, int, int]) -> Across:
    there, tx, rx, back = fds
    return Across(
        send_blocking=partial(os.write, tx),
        recv_blocking=partial(os.read, rx, MESSAGE),
        kind="pipes",
        there=DupFd(there),
        back=DupFd(back),
    )


if zmq:

    class Ipc:
        """Two sockets of the file system, and their folder."""

        def __init__(self, *_: int, **__: int) -> None:
            self.folder = Path(tempfile.mkdtemp())
            self.push, self.pull = (zmq.Context.instance().socket(kind) for kind in (zmq.PUSH, zmq.PULL))
            self.there, self.back = (f"ipc://{self.folder}/{name}" for name in ("there", "back"))
            self.push.bind(self.there)
            self.pull.bind(self.back)

        def close(self) -> None:
            self.push.close(0)
            self.pull.close(0)
            shutil.rmtree(self.folder)

    @contender(f"{ZMQ}, two processes", "pyzmq", f"{BLOCKING} large", Ipc, Ipc.close, **more)
    def _(both: Ipc) -> Across:
        return Across(
            send_blocking=both.push.send,
            recv_blocking=both.pull.recv,
            large=True,
            kind="sockets",
            there=both.there,
            back=both.back,
        )


# ---- scenarios -------------------------------------------------------------------------------------------------------


def receive_again(ends: Across, count: int) -> None:
    for _ in range(count):
        ends.recv_blocking()


def send_all(run: str, ends: Any, send: Callable[[Any], Any], messages: list[Any], count: int) -> int:
    """Until `count` have arrived: how long it took."""
    with beside(ends, run, count) as peer:
        began = wall_ns()
        for each in messages:
            send(each)
        peer.hear("done")
        elapsed = wall_ns() - began
        receive_again(ends, count)
    return elapsed


def stream(new: New, items: Items, _: LoopFactory) -> int:
    ends: Any = new()
    return send_all("stream", ends, ends.send_blocking, items, len(items))


def batches(new: New, items: Items, _: LoopFactory) -> int:
    ends: Any = new()
    all_at_once = [items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE)]
    return send_all("batches", ends, ends.send_many_blocking, all_at_once, len(items))


def claims(new: New, items: Items, _: LoopFactory) -> int:
    """Whoever has no claims sends what was filled elsewhere."""
    ends: Any = new()
    with beside(ends, "look", len(items)) as peer:
        began = wall_ns()
        if ends.claim_blocking is None:
            send, buffer = ends.send_blocking, bytearray(LARGE)
            for item in items:
                buffer[:] = item
                send(buffer)
        else:
            claim = ends.claim_blocking
            for item in items:
                place = claim(LARGE)
                place[:] = item
                place.commit()
        peer.hear("done")
        elapsed = wall_ns() - began
        receive_again(ends, len(items))
    return elapsed


def one_copy(items: Items, _: LoopFactory) -> int:
    """Fill as much memory in turn as the ring has, and look at it: what the channel adds is the rest."""
    source = content(0, LARGE)
    places = [bytearray(LARGE) for _ in range(16)]
    began = wall_ns()
    for number in range(len(items)):
        places[number % 16][:] = source
    return wall_ns() - began


def to_task(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends: Any = new()
        with beside(ends, "pour", len(items)) as peer:
            peer.hear("done")  # it has made the messages, and begins
            recv = ends.recv
            began = wall_ns()
            for _ in range(len(items)):
                await recv()
            return wall_ns() - began

    return on_loop(main, loops)


def pingpong(new: New, items: Items, _: LoopFactory) -> int:
    ends: Any = new()
    with beside(ends, "echo", len(items)) as peer:
        peer.hear("done")
        send, recv = ends.send_blocking, ends.recv_blocking
        began = wall_ns()
        for item in items:
            send(item)
            recv()
        return wall_ns() - began


def asleep(new: New, items: Items, _: LoopFactory, *, run: str) -> int:
    ends: Any = new()
    with beside(ends, run, len(items)) as peer:
        return wake_in_turn(peer, items, ends.send_blocking, ends.recv_blocking)


def wake_in_turn(peer: Other, items: Items, send: Callable[[Any], Any], recv: Callable[[], Any]) -> int:
    """The median round trip, for each: few are timed, and what else runs on that processor may hold one up for long."""
    peer.hear("done")
    took = []
    with on_processor(0):
        for item in items:
            sleep(ASLEEP)
            began = wall_ns()
            send(item)
            recv()
            took.append(wall_ns() - began)
    held = peer.asks.recv()
    return len(items) * round(statistics.median(all_of - some for all_of, some in zip(took, held, strict=True)))


def pingpong_task(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends: Any = new()
        with beside(ends, "echo", len(items)) as peer:
            peer.hear("done")
            send, recv = ends.send, ends.recv
            began = wall_ns()
            for item in items:
                await send(item)
                await recv()
            return wall_ns() - began

    return on_loop(main, loops)


def with_eventfds(run: Callable[[Any, int, int], int], items: Items) -> int:
    there, back = os.eventfd(0), os.eventfd(0)
    try:
        with beside(Across(kind="eventfds", there=DupFd(there), back=DupFd(back)), "echo", len(items)) as peer:
            peer.hear("done")
            return run(items, there, back)
    finally:
        os.close(there)
        os.close(back)


def two_eventfds(items: Items, _: LoopFactory) -> int:
    """Nothing but the two wake-ups."""

    def run(items: Items, there: int, back: int) -> int:
        one = (1).to_bytes(8, sys.byteorder)
        began = wall_ns()
        for _ in items:
            os.write(there, one)
            os.read(back, 8)
        return wall_ns() - began

    return with_eventfds(run, items)


def asleep_eventfds(items: Items, _: LoopFactory, *, run: str) -> int:
    there, back = os.eventfd(0), os.eventfd(0)
    one = (1).to_bytes(8, sys.byteorder)
    try:
        with beside(Across(kind="eventfds", there=DupFd(there), back=DupFd(back)), run, len(items)) as peer:
            return wake_in_turn(peer, [one] * len(items), partial(os.write, there), partial(os.read, back, 8))
    finally:
        os.close(there)
        os.close(back)


def asleep_sockets(items: Items, _: LoopFactory, *, run: str) -> int:
    tx, there = socket.socketpair()
    back, rx = socket.socketpair()
    with tx, there, back, rx:
        ends = Across(kind="pipes", there=DupFd(there.fileno()), back=DupFd(back.fileno()))
        with beside(ends, run, len(items)) as peer:
            return wake_in_turn(peer, [content(0, MESSAGE)] * len(items), tx.send, partial(rx.recv, MESSAGE))


def eventfd_in_a_loop(items: Items, loops: LoopFactory) -> int:
    def run(items: Items, there: int, back: int) -> int:
        async def main(_: Start) -> int:
            one = (1).to_bytes(8, sys.byteorder)
            hand = ByHand(back)
            began = wall_ns()
            for _ in items:
                os.write(there, one)
                await hand.recv()
            elapsed = wall_ns() - began
            hand.close()
            return elapsed

        return on_loop(main, loops)

    return with_eventfds(run, items)


@dataclass
class ProcessScenario(Scenario):
    """Between two processes, with messages of a size."""

    size: int = MESSAGE
    threads: bool = True  # the clock runs on while this process sleeps
    family: str = "processes"
    floors: dict[str, Any] = field(default_factory=dict[str, Any])

    def items(self, name: str, count: int) -> list[Any]:
        return [content(0, self.size)] * count

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        return super()._run(contender._replace(new=partial(contender.new, size=self.size)), items, loops)

    def check(self, contender: Contender, loops: LoopFactory, count: int = 50) -> None:
        super().check(contender._replace(encode=partial(content, size=self.size)), loops, count)


EVENTFDS, BY_HAND, COPY = "two eventfds", "an eventfd with add_reader", "one copy of 64 KiB"
SOCKETS = "two pairs of sockets"


def asleep_scenario(name: str, run: str) -> ProcessScenario:
    floors: dict[str, Any] = {}
    if hasattr(os, "eventfd"):
        floors = {EVENTFDS: partial(asleep_eventfds, run=run), SOCKETS: partial(asleep_sockets, run=run)}
    call, both = partial(asleep, run=run), ("send_blocking", "recv_blocking")
    return ProcessScenario(name, ROUND_TRIP, call, both, capacity=1, fixed=64, floors=floors)


for kind in (
    ProcessScenario("processes_stream", ITEM, stream, ("send_blocking", "recv_blocking")),
    ProcessScenario("processes_batches", ITEM, batches, ("send_many_blocking", "recv_blocking")),
    ProcessScenario("processes_claims", ITEM, claims, ("large",), capacity=15, size=LARGE, floors={COPY: one_copy}),
    ProcessScenario("processes_to_task", ITEM, to_task, ("recv",)),
    ProcessScenario(
        "processes_pingpong",
        ROUND_TRIP,
        pingpong,
        ("send_blocking", "recv_blocking"),
        capacity=1,
        one_by_one=True,
        floors={EVENTFDS: two_eventfds} if hasattr(os, "eventfd") else {},
    ),
    asleep_scenario("processes_asleep", "echo_late"),
    asleep_scenario("processes_asleep_one_cpu", "echo_late_here"),
    ProcessScenario(
        "processes_pingpong_task",
        ROUND_TRIP,
        pingpong_task,
        ("send", "recv"),
        capacity=1,
        one_by_one=True,
        floors={BY_HAND: eventfd_in_a_loop} if hasattr(os, "eventfd") else {},
    ),
):
    SCENARIOS[kind.name] = kind

ALL_BARS = [
    Bar("processes_stream", f"{QUEUE}, two processes", 1 / 30, OURS),
    Bar("processes_stream", f"{PIPE}, two processes", 1 / 14, OURS),
    Bar("processes_stream", f"{FIFO}, two processes", 1 / 20, OURS),
    Bar("processes_batches", f"{FIFO}, two processes", 1 / 15, OURS),
    Bar("processes_claims", f"{PIPE}, two processes", 1 / 5, OURS),
    Bar("processes_claims", COPY, 1 / 0.8, OURS, close=True),
    Bar("processes_to_task", f"{QUEUE}, two processes", 1 / 25, OURS),
    Bar("processes_pingpong", EVENTFDS, 1.15, OURS, what="p50"),
    Bar("processes_asleep", EVENTFDS, 1.15, OURS, close=True),
    Bar("processes_asleep_one_cpu", EVENTFDS, 1.15, OURS, close=True),
    Bar("processes_pingpong_task", BY_HAND, 1.2, OURS, what="p50"),
]
BARS = ALL_BARS if HAS_LANES else []
if HAS_LANES:
    WHY[("processes_asleep", EVENTFDS)] = WHY[("processes_asleep_one_cpu", EVENTFDS)] = (
        "a wake-up is a byte on a socket. An eventfd would be quicker, but whoever shares it could make it block the "
        "other process for ever. One row shows what pairs of sockets take by hand."
    )
