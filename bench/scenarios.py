"""What is measured: each scenario is written once, over the bare ends of any contender.

A scenario sends the items through channels that `new` makes, and returns the nanoseconds it took, set-up left out:
the processor time of the thread where there is but one, as that is not disturbed by what else the machine does, and
the time on the clock where threads wait for one another.
`Scenario.check` runs it with recorded ends first: every item must come out, once and in order.
"""

import asyncio
import dataclasses
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any

import floors
from contenders import CONTENDERS, Contender, Ends
from threads import spawn

__all__ = ["SCENARIOS", "Scenario", "Timed"]

Items = list[Any]
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
    floors: dict[str, Timed] = field(default_factory=dict)
    fixed: int | None = None  # items a run, where the scenario says how many
    threads: bool = False  # more than one

    def takes(self, contender: Contender) -> bool:
        return all(any(verb in contender.can for verb in need.split("|")) for need in self.needs)

    def entries(self, loops: LoopFactory) -> dict[str, Callable[[Items], int]]:
        """Everybody who takes part, by name: items -> nanoseconds."""
        entries = {c.name: partial(self._run, c) for c in CONTENDERS.values() if self.takes(c)} | self.floors
        return {name: partial(_with_loops, entry, loops) for name, entry in entries.items()}

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        opened = []

        def new() -> Ends:
            opened.append(contender.new(self.capacity))
            return contender.ends(opened[-1])

        nanoseconds = self.run(new, items, loops)
        if contender.close is not None:
            for channel in opened:
                contender.close(channel)
        return nanoseconds

    def check(self, contender: Contender, loops: LoopFactory, count: int = 50) -> None:
        """AssertionError unless every item comes out as often as it should, those of one sender in order."""
        items = list(range(count))
        log: list[int] = []
        recorded = contender._replace(ends=lambda channel: _record(contender.ends(channel), log))
        self._run(recorded, items, loops)
        assert Counter(log) == {item: self.copies for item in items if self.copies}, (self.name, contender.name, log)
        for sender in range(self.senders):
            received = [item for item in log if item % self.senders == sender]
            assert received == sorted(received), (self.name, contender.name, log)


def _with_loops(entry: Timed, loops: LoopFactory, items: Items) -> int:
    gc.collect()
    return entry(items, loops)


def _record(ends: Ends, log: list[int]) -> Ends:
    """The same, writing down what is received."""

    def plain(receive: Callable[[], Any]) -> Callable[[], Any]:
        def recorded() -> Any:
            log.append(receive())
            return log[-1]

        return recorded

    def awaited(receive: Callable[[], Any]) -> Callable[[], Any]:
        async def recorded() -> Any:
            log.append(await receive())
            return log[-1]

        return recorded

    def many(receive: Callable[[int], list[Any]]) -> Callable[[int], list[Any]]:
        def recorded(n: int) -> list[Any]:
            received = receive(n)
            log.extend(received)
            return received

        return recorded

    def streamed(stream: Callable[[], Any]) -> Callable[[], Any]:
        async def recorded() -> AsyncIterator[Any]:
            async for item in stream():
                log.append(item)
                yield item

        return recorded

    wrappers = {
        "try_recv": plain,
        "recv": awaited,
        "recv_blocking": plain,
        "try_recv_many": many,
        "stream": streamed,
    }
    return dataclasses.replace(
        ends, **{verb: wrap(getattr(ends, verb)) for verb, wrap in wrappers.items() if verb in ends.verbs()}
    )


# ---- parts ---------------------------------------------------------------------------------------------------------


def on_loop(main: Callable[[], Any], loops: LoopFactory) -> Any:
    with asyncio.Runner(loop_factory=loops) as runner:
        return runner.run(main())


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


# ---- one thread ----------------------------------------------------------------------------------------------------


def try_pair(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    send, recv = ends.try_send, ends.try_recv
    start = cpu_ns()
    for item in items:
        send(item)
        recv()
    return cpu_ns() - start


def await_ready(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        ends = new()
        send, recv = ends.send, ends.recv
        start = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - start

    return on_loop(main, loops)


def pingpong_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        there, back = new(), new()

        async def answer() -> None:
            send, recv = back.send, there.recv
            for _ in items:
                await send(await recv())

        task = asyncio.create_task(answer())
        send, recv = there.send, back.recv
        start = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        elapsed = cpu_ns() - start
        await task
        return elapsed

    return on_loop(main, loops)


def pipeline(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        ends = new()
        start = cpu_ns()
        task = asyncio.create_task(feed(ends, items))
        await drain(ends, items)
        elapsed = cpu_ns() - start
        await task
        return elapsed

    return on_loop(main, loops)


def pipeline_for(new: New, items: Items, loops: LoopFactory) -> int:
    """As a user would write it: `async for` where there is such a thing, else a loop over recv."""

    async def main() -> int:
        ends = new()

        async def feed_and_end() -> None:
            await feed(ends, items)
            if ends.end_sending is not None:
                ends.end_sending()

        start = cpu_ns()
        task = asyncio.create_task(feed_and_end())
        if ends.stream is None:
            await drain(ends, items)
        else:
            async for _ in ends.stream():
                pass
        elapsed = cpu_ns() - start
        await task
        return elapsed

    return on_loop(main, loops)


BATCH = 64


def batch(new: New, items: Items, _: LoopFactory) -> int:
    """64 at once where there is such a thing, else 64 times one."""
    ends = new()
    batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
    if ends.try_send_many is not None:
        send_many, recv_many = ends.try_send_many, ends.try_recv_many
        start = cpu_ns()
        for values in batches:
            send_many(values)
            recv_many(BATCH)
        return cpu_ns() - start
    send, recv = ends.try_send, ends.try_recv
    start = cpu_ns()
    for values in batches:
        for value in values:
            send(value)
        for _ in values:
            recv()
    return cpu_ns() - start


def batch_one_by_one(items: Items, loops: LoopFactory) -> int:
    """Ours, without its batch forms."""
    mpsc = CONTENDERS["nexus_channels.mpsc"]

    def new() -> Ends:
        return dataclasses.replace(mpsc.ends(mpsc.new(1024)), try_send_many=None)

    return batch(new, items, loops)


def create(new: New, items: Items, loops: LoopFactory) -> int:
    """Open and drop. `new` here makes bare channels."""

    async def main() -> int:
        start = cpu_ns()
        for _ in items:
            new()
        return cpu_ns() - start

    return on_loop(main, loops)


@dataclass
class Create(Scenario):
    """Times the making itself, not the picking of the ends."""

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        def new_and_close() -> None:
            contender.close(contender.new(self.capacity))

        new = partial(contender.new, self.capacity) if contender.close is None else new_and_close
        return self.run(new, items, loops)


# ---- threads and loops ---------------------------------------------------------------------------------------------


def pingpong_threads(new: New, items: Items, _: LoopFactory) -> int:
    there, back = new(), new()

    def answer() -> None:
        send, recv = back.put or back.send_blocking, there.recv_blocking
        for _ in items:
            send(recv())

    thread = spawn(answer)
    send, recv = there.put or there.send_blocking, back.recv_blocking
    start = wall_ns()
    for item in items:
        send(item)
        recv()
    elapsed = wall_ns() - start
    thread.join()
    return elapsed


def pingpong_thread_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        there, back = new(), new()

        def ask() -> int:
            send, recv = there.send_blocking, back.recv_blocking
            start = wall_ns()
            for item in items:
                send(item)
                recv()
            return wall_ns() - start

        thread = spawn(ask)
        send, recv = back.send, there.recv
        for _ in items:
            await send(await recv())
        return thread.join()

    return on_loop(main, loops)


def thread_to_thread(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    start = wall_ns()
    thread = spawn(feed_blocking, ends, items)
    elapsed = drain_blocking(ends, items) - start
    thread.join()
    return elapsed


def thread_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        ends = new()
        start = wall_ns()
        thread = spawn(feed_blocking, ends, items)
        await drain(ends, items)
        elapsed = wall_ns() - start
        thread.join()
        return elapsed

    return on_loop(main, loops)


def loop_to_thread(new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        ends = new()
        start = wall_ns()
        thread = spawn(drain_blocking, ends, items)
        await feed(ends, items)
        return thread.join() - start

    return on_loop(main, loops)


def loop_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    """The receiver's loop runs in this thread, the sender's in another."""

    async def main() -> int:
        ends = new()
        start = wall_ns()
        thread = spawn(on_loop, partial(feed, ends, items), loops)
        await drain(ends, items)
        elapsed = wall_ns() - start
        thread.join()
        return elapsed

    return on_loop(main, loops)


def fan_in(senders: int, new: New, items: Items, loops: LoopFactory) -> int:
    async def main() -> int:
        ends = new()
        clones = [ends.clone() for _ in range(senders)]
        start = wall_ns()
        threads = [spawn(feed_blocking, clone, items[i::senders]) for i, clone in enumerate(clones)]
        await drain(ends, items)
        elapsed = wall_ns() - start
        for thread in threads:
            thread.join()
        return elapsed

    return on_loop(main, loops)


def wake_many(new: New, items: Items, loops: LoopFactory) -> int:
    """One thread sends one item to each of many channels with a parked task each."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        channels = [new() for _ in items]
        left = len(items)
        done = loop.create_future()

        async def wait(recv: Callable[[], Any]) -> None:
            nonlocal left
            await recv()
            left -= 1
            if not left:
                done.set_result(None)

        tasks = [loop.create_task(wait(ends.recv)) for ends in channels]
        await asyncio.sleep(0)
        go = threading.Lock()
        go.acquire()
        sends = [ends.put or ends.send_blocking for ends in channels]

        def send_all() -> None:
            go.acquire()
            for send, item in zip(sends, items, strict=True):
                send(item)

        thread = spawn(send_all)
        start = wall_ns()
        go.release()
        await done
        elapsed = wall_ns() - start
        thread.join()
        await asyncio.gather(*tasks)
        return elapsed

    return on_loop(main, loops)


# ---- the list ------------------------------------------------------------------------------------------------------

AWAITED = ("send", "recv")
ITEM = "one item sent and received"
ROUND_TRIP = "one item there and back"

Threads = partial(Scenario, threads=True)

_all = [
    Scenario(
        "try_pair",
        ITEM,
        try_pair,
        ("try_send", "try_recv"),
        floors={"two no-op C methods": floors.noop_pair} if floors.noop else {},
    ),
    Scenario("await_ready", ITEM, await_ready, AWAITED, floors={"two empty coroutines": floors.awaited_coroutines}),
    Scenario(
        "pingpong_loop", ROUND_TRIP, pingpong_loop, AWAITED, 1, copies=2, floors={"bare futures": floors.bare_futures}
    ),
    Threads(
        "pingpong_threads",
        ROUND_TRIP,
        pingpong_threads,
        ("put|send_blocking", "recv_blocking"),
        1,
        copies=2,
        floors={"two locks": floors.two_locks},
    ),
    Threads(
        "pingpong_thread_loop",
        ROUND_TRIP,
        pingpong_thread_loop,
        ("send", "recv", "send_blocking", "recv_blocking"),
        1,
        copies=2,
        floors={
            "a lock + call_soon_threadsafe": floors.lock_and_call_soon,
            "asyncio.Queue + call_soon_threadsafe, SimpleQueue": floors.bridged_queues,
        },
    ),
    *(Scenario(f"pipeline_{n}", ITEM, pipeline, AWAITED, n) for n in (1, 64, 1024)),
    *(Scenario(f"pipeline_for_{n}", ITEM, pipeline_for, AWAITED, n) for n in (1, 64, 1024)),
    Threads("thread_to_thread", ITEM, thread_to_thread, ("put|send_blocking", "recv_blocking")),
    Threads(
        "thread_to_loop",
        ITEM,
        thread_to_loop,
        ("put|send_blocking", "recv"),
        floors={"a deque, a wake-up a burst": floors.coalesced_deque},
    ),
    Threads(
        "loop_to_thread",
        ITEM,
        loop_to_thread,
        ("send", "recv_blocking"),
        floors={"put into a SimpleQueue": floors.put_into_simple_queue},
    ),
    Threads("loop_to_loop", ITEM, loop_to_loop, ("put|send", "recv", "two_loops")),
    *(
        Threads(f"fan_in_{n}", ITEM, partial(fan_in, n), ("put|send_blocking", "recv", "clone"), senders=n)
        for n in (1, 2, 4, 8)
    ),
    Scenario(
        "batch", ITEM, batch, ("try_send", "try_recv"), floors={"nexus_channels.mpsc, one by one": batch_one_by_one}
    ),
    Threads(
        "wake_many",
        "one task woken by its item",
        wake_many,
        ("put|send_blocking", "recv"),
        1,
        floors={"bare futures": floors.burst_of_futures},
        fixed=1000,
    ),
    Create("create", "one channel opened and dropped", create, (), 64, copies=0),
]

SCENARIOS = {scenario.name: scenario for scenario in _all}
