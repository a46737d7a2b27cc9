"""What is measured: each scenario is written once, over the ends of any contender.

A scenario returns the nanoseconds that it took, set-up left out: the processor time of the thread where there is but
one, as that is not disturbed by what else the machine does, and the time on the clock where threads wait for one
another.
"""

import asyncio
import dataclasses
import gc
import importlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any

from .contenders import CONTENDERS, Contender, Ends
from .threads import line_up, spawn

__all__ = [
    "ITEM",
    "RECORDERS",
    "ROUND_TRIP",
    "SCENARIOS",
    "SHORT",
    "Items",
    "LoopFactory",
    "New",
    "Scenario",
    "Start",
    "drain",
    "fan_in",
    "feed",
    "feed_blocking",
    "on_loop",
    "scenario",
]

Items = Sequence[Any]
Start = Callable[..., None]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
New = Callable[[], Ends]
Timed = Callable[[Items, LoopFactory], int]  # a scenario bound to a contender, or a floor


@dataclass
class Scenario:
    name: str
    operation: str  # what one item stands for
    run: Callable[[New, Items, LoopFactory], int]
    needs: tuple[str, ...]  # of what a contender can; "a|b" for either
    capacity: int = 1024
    copies: int = 1  # how often each item is received
    senders: int = 1
    floors: dict[str, Timed] = field(default_factory=dict[str, Timed])
    fixed: int | None = None  # items a run, where the scenario says how many
    threads: bool = False  # more than one
    one_by_one: bool = False  # the asking side goes through its items once: each is a round trip to be timed alone
    latencies: Callable[..., dict[str, list[int]]] | None = None  # (samples) -> each one's nanoseconds, by who
    family: str = "objects"

    def takes(self, contender: Contender) -> bool:
        able = all(any(verb in contender.can for verb in need.split("|")) for need in self.needs)
        return able and contender.family == self.family and (self.fixed or 2) <= contender.at_once

    def entries(self, loops: LoopFactory) -> dict[str, Callable[[Items], int]]:
        """Everybody who takes part, by name: items -> nanoseconds."""
        entries = {c.name: partial(self._run, c) for c in CONTENDERS.values() if self.takes(c)} | self.floors
        return {name: partial(_with_loops, entry, loops) for name, entry in entries.items()}

    def items(self, name: str, count: int) -> list[Any]:
        """As many items as `count`, ready to be sent by the entry of that name."""
        return [CONTENDERS[name].encode(None) if name in CONTENDERS else None] * count

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        opened: list[Any] = []

        def new() -> Ends:
            opened.append(contender.new(self.capacity))
            return contender.ends(opened[-1])

        nanoseconds = self.run(new, items, on_trio if contender.trio else loops)
        if contender.close is not None:
            for channel in opened:
                contender.close(channel)
        return nanoseconds

    def check(self, contender: Contender, loops: LoopFactory, count: int = 50) -> None:
        """AssertionError unless every item comes out as often as it should, those of one sender in order."""
        items = list(range(count))
        log: list[Any] = []

        def ends(*args: Any, **named: Any) -> Ends:
            return _record(contender.ends(*args, **named), log)

        recorded = contender._replace(ends=ends)
        self._run(recorded, [contender.encode(item) for item in items], loops)
        log = [contender.decode(item) for item in log]
        assert Counter(log) == {item: self.copies for item in items if self.copies}, (self.name, contender.name, log)
        for sender in range(self.senders):
            received = [item for item in log if item % self.senders == sender]
            assert received == sorted(received), (self.name, contender.name, log)


def _with_loops(entry: Timed, loops: LoopFactory, items: Items) -> int:
    gc.collect()
    return entry(items, loops)


# How what a verb receives is written down: (the verb's function, the log) -> the same, noting it.


def _plain(receive: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    def recorded() -> Any:
        log.append(receive())
        return log[-1]

    return recorded


def _awaited(receive: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    async def recorded() -> Any:
        log.append(await receive())
        return log[-1]

    return recorded


def _many(receive: Callable[[int], list[Any]], log: list[Any]) -> Callable[[int], list[Any]]:
    def recorded(n: int) -> list[Any]:
        received = receive(n)
        log.extend(received)
        return received

    return recorded


def _awaited_many(receive: Callable[[int], Any], log: list[Any]) -> Callable[[int], Any]:
    async def recorded(n: int) -> Any:
        received = await receive(n)
        log.extend(received)
        return received

    return recorded


def _streamed(stream: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    async def recorded() -> AsyncIterator[Any]:
        async for item in stream():
            log.append(item)
            yield item

    return recorded


RECORDERS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "try_recv": _plain,
    "recv": _awaited,
    "recv_blocking": _plain,
    "try_recv_many": _many,
    "recv_many": _awaited_many,
    "recv_many_blocking": _many,
    "stream": _streamed,
}


def _record(ends: Ends, log: list[Any]) -> Ends:
    """The same, writing down what is received."""
    wrapped = {verb: RECORDERS[verb](getattr(ends, verb), log) for verb in ends.verbs() & RECORDERS.keys()}
    return dataclasses.replace(ends, **wrapped)


def on_trio() -> asyncio.AbstractEventLoop:
    """Stands for trio where a loop factory is asked for."""
    raise TypeError("trio has no event loop of asyncio's kind")


def on_loop(main: Callable[[Start], Any], loops: LoopFactory) -> int:
    """Run `main(start)`, which starts tasks beside itself by `start(function, *arguments)`; all end before it does."""
    if loops is on_trio:
        return _on_trio(main)

    async def run() -> int:
        tasks: list[asyncio.Task[Any]] = []

        def start(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
            tasks.append(asyncio.create_task(function(*args)))

        result: int = await main(start)
        for task in tasks:
            await task
        return result

    with asyncio.Runner(loop_factory=loops) as runner:
        return runner.run(run())


def _on_trio(main: Callable[[Start], Any]) -> int:
    trio = importlib.import_module("trio")

    async def run() -> int:
        async with trio.open_nursery() as nursery:
            result: int = await main(nursery.start_soon)
        return result

    result: int = trio.run(run)
    return result


async def feed(ends: Ends, items: Items) -> None:
    """A task that sends everything."""
    if ends.put is not None:
        put = ends.put
        for item in items:
            put(item)
        return
    send = ends.send
    for item in items:
        await send(item)


def feed_blocking(ends: Ends, items: Items) -> None:
    """A thread that sends everything."""
    send = ends.put or ends.send_blocking
    for item in items:
        send(item)


async def drain(ends: Ends, items: Items) -> None:
    """A task that receives everything."""
    recv = ends.recv
    for _ in items:
        await recv()


def drain_blocking(ends: Ends, items: Items) -> int:
    """A thread that receives everything; returns when it was done."""
    recv = ends.recv_blocking
    for _ in items:
        recv()
    return wall_ns()


def try_pair(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    send, recv = ends.try_send, ends.try_recv
    began = cpu_ns()
    for item in items:
        send(item)
        recv()
    return cpu_ns() - began


def await_ready(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends = new()
        send, recv = ends.send, ends.recv
        began = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - began

    return on_loop(main, loops)


def pingpong_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        there, back = new(), new()

        async def answer() -> None:
            send, recv = back.send, there.recv
            for _ in repeat(None, len(items)):
                await send(await recv())

        start(answer)
        send, recv = there.send, back.recv
        began = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - began

    return on_loop(main, loops)


def pipeline(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        ends = new()
        began = cpu_ns()
        start(feed, ends, items)
        await drain(ends, items)
        return cpu_ns() - began

    return on_loop(main, loops)


def pingpong_thread_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        there, back = new(), new()

        def ask() -> int:
            send, recv = there.send_blocking, back.recv_blocking
            began = wall_ns()
            for item in items:
                send(item)
                recv()
            return wall_ns() - began

        thread = spawn(ask)
        send, recv = back.send, there.recv
        for _ in repeat(None, len(items)):
            await send(await recv())
        elapsed: int = thread.join()
        return elapsed

    return on_loop(main, loops)


def thread_to_thread(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    (thread,), go = line_up((feed_blocking, ends, items))
    began = wall_ns()
    go()
    ended: int = drain_blocking(ends, items)
    thread.join()
    return ended - began


def thread_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    return fan_in(1, new, items, loops)


def loop_to_thread(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends = new()
        (thread,), go = line_up((drain_blocking, ends, items))
        began = wall_ns()
        go()
        await feed(ends, items)
        ended: int = thread.join()
        return ended - began

    return on_loop(main, loops)


def fan_in(senders: int, new: New, items: Items, loops: LoopFactory) -> int:
    """Of one sender it needs no clone."""

    async def main(_: Start) -> int:
        ends = new()
        clones = [ends.clone() for _ in range(senders)] if senders > 1 else [ends]
        threads, go = line_up(*((feed_blocking, clone, items[i::senders]) for i, clone in enumerate(clones)))
        began = wall_ns()
        go()
        await drain(ends, items)
        elapsed = wall_ns() - began
        for thread in threads:
            thread.join()
        return elapsed

    return on_loop(main, loops)


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, operation: str, run: Callable[[New, Items, LoopFactory], int], *needs: str, **more: Any
) -> None:
    """Registers it."""
    SCENARIOS[name] = Scenario(name, operation, run, needs, **more)


ITEM = "one item sent and received"
ROUND_TRIP = "one item there and back"

scenario("try_pair", ITEM, try_pair, "try_send", "try_recv")
scenario("await_ready", ITEM, await_ready, "send", "recv")
scenario("pingpong_loop", ROUND_TRIP, pingpong_loop, "send", "recv", capacity=1, copies=2, one_by_one=True)
scenario("pipeline_64", ITEM, pipeline, "send", "recv", capacity=64)
scenario("thread_to_thread", ITEM, thread_to_thread, "put|send_blocking", "recv_blocking", threads=True)
scenario("thread_to_loop", ITEM, thread_to_loop, "put|send_blocking", "recv", threads=True)
scenario("fan_in_4", ITEM, partial(fan_in, 4), "put|send_blocking", "recv", "clone", senders=4, threads=True)
scenario("loop_to_thread", ITEM, loop_to_thread, "send", "recv_blocking", threads=True)
scenario(
    "pingpong_thread_loop",
    ROUND_TRIP,
    pingpong_thread_loop,
    *("send", "recv", "send_blocking", "recv_blocking"),
    capacity=1,
    copies=2,
    threads=True,
    one_by_one=True,
)
SHORT = list(SCENARIOS)  # what the command runs; bench/ adds others
