"""What is measured beside the short scenarios of the package's own `bench` command; all of them are in SCENARIOS.

A module named in MORE adds its own when it lies here: it calls `scenario` and `contender`, with
a `family` of its own where its channels do not carry objects, and may have a list BARS (see bars.py).
"""

import asyncio
import dataclasses
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any

import floors
from contenders import CONTENDERS, Contender, Ends
from threads import spawn

from nexus_channels._programs.bench.scenarios import (
    ITEM,
    ROUND_TRIP,
    SCENARIOS,
    Items,
    LoopFactory,
    New,
    Scenario,
    Start,
    drain,
    fan_in,
    feed,
    feed_blocking,
    on_loop,
    pipeline,
    scenario,
)
from nexus_channels._programs.bench.threads import line_up

__all__ = ["MORE", "SCENARIOS", "LoopFactory", "Scenario"]

MORE = ("byte_channels", "interpreters", "native", "notifiers", "on_trio", "two_processes")

# ---- one thread ----------------------------------------------------------------------------------------------------


def pipeline_for(new: New, items: Items, loops: LoopFactory) -> int:
    """As a user would write it: `async for` where there is such a thing, else a loop over recv."""

    async def main(start: Start) -> int:
        ends = new()

        async def feed_and_end() -> None:
            await feed(ends, items)
            if ends.end_sending is not None:
                ends.end_sending()

        began = cpu_ns()
        start(feed_and_end)
        if ends.stream is None:
            await drain(ends, items)
        else:
            async for _ in ends.stream():
                pass
        return cpu_ns() - began

    return on_loop(main, loops)


BATCH = 64


def batch(new: New, items: Items, _: LoopFactory) -> int:
    """64 at once where there is such a thing, else 64 times one."""
    ends = new()
    batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
    if ends.try_send_many is not None:
        send_many, recv_many = ends.try_send_many, ends.try_recv_many
        began = cpu_ns()
        for values in batches:
            send_many(values)
            recv_many(BATCH)
        return cpu_ns() - began
    send, recv = ends.try_send, ends.try_recv
    began = cpu_ns()
    for values in batches:
        for value in values:
            send(value)
        for _ in values:
            recv()
    return cpu_ns() - began


def batch_one_by_one(items: Items, loops: LoopFactory) -> int:
    """Ours, without its batch forms."""
    mpsc = CONTENDERS["nexus_channels.mpsc"]

    def new() -> Ends:
        return dataclasses.replace(mpsc.ends(mpsc.new(1024)), try_send_many=None)

    return batch(new, items, loops)


def create(new: New, items: Items, loops: LoopFactory) -> int:
    """Open and drop. `new` here makes bare channels."""

    async def main(start: Start) -> int:
        began = cpu_ns()
        for _ in items:
            new()
        return cpu_ns() - began

    return on_loop(main, loops)


@dataclasses.dataclass
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
        for _ in range(len(items)):
            send(recv())

    thread = spawn(answer)
    send, recv = there.put or there.send_blocking, back.recv_blocking
    began = wall_ns()
    for item in items:
        send(item)
        recv()
    elapsed = wall_ns() - began
    thread.join()
    return elapsed


def loop_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    """The receiver's loop runs in this thread, the sender's in another."""

    async def main(_: Start) -> int:
        ends = new()

        def send_all() -> None:
            with asyncio.Runner(loop_factory=loops) as runner:
                runner.run(feed(ends, items))

        (thread,), go = line_up((send_all,))
        began = wall_ns()
        go()
        await drain(ends, items)
        elapsed = wall_ns() - began
        thread.join()
        return elapsed

    return on_loop(main, loops)


# As above, but received up to 64 at a time, as one would who wants the rate: `many`. Of `wide`, with room for so many
# that threads seldom wait for one another; of `together`, with the usual room, but sent 64 at a time, too.

WIDE = 16_384


def batches_of(items: Items) -> list[Items]:
    return [items[i : i + BATCH] for i in range(0, len(items), BATCH)]


def feed_blocking_together(ends: Ends, batches: list[Items]) -> None:
    send_many = ends.send_many_blocking
    for batch in batches:
        send_many(batch)


def drain_blocking_many(ends: Ends, left: int) -> int:
    recv_many = ends.recv_many_blocking
    while left:
        left -= len(recv_many(BATCH))
    return wall_ns()


def fan_in_many(senders: int, new: New, items: Items, loops: LoopFactory, together: bool = False) -> int:
    async def main(_: Start) -> int:
        ends = new()
        clones = [ends.clone() for _ in range(senders)] if senders > 1 else [ends]
        shares = [items[i::senders] for i in range(senders)]
        if together:
            calls = [(feed_blocking_together, *call) for call in zip(clones, map(batches_of, shares), strict=True)]
        else:
            calls = [(feed_blocking, *call) for call in zip(clones, shares, strict=True)]
        threads, go = line_up(*calls)
        recv_many, left = ends.recv_many, len(items)
        began = wall_ns()
        go()
        while left:
            left -= len(await recv_many(BATCH))
        elapsed = wall_ns() - began
        for thread in threads:
            thread.join()
        return elapsed

    return on_loop(main, loops)


def thread_to_thread_many(new: New, items: Items, _: LoopFactory, together: bool = False) -> int:
    ends = new()
    call = (feed_blocking_together, ends, batches_of(items)) if together else (feed_blocking, ends, items)
    (thread,), go = line_up(call)
    began = wall_ns()
    go()
    ended = drain_blocking_many(ends, len(items))
    thread.join()
    return ended - began


def loop_to_thread_many(new: New, items: Items, loops: LoopFactory, together: bool = False) -> int:
    async def main(_: Start) -> int:
        ends = new()
        batches = batches_of(items)
        (thread,), go = line_up((drain_blocking_many, ends, len(items)))
        began = wall_ns()
        go()
        if together:
            send_many = ends.send_many
            for batch in batches:
                await send_many(batch)
        else:
            await feed(ends, items)
        ended: int = thread.join()
        return ended - began

    return on_loop(main, loops)


def wake_many(new: New, items: Items, loops: LoopFactory) -> int:
    """One thread sends one item to each of many channels with a parked task each."""

    async def main(start: Start) -> int:
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

        for ends in channels:
            start(wait, ends.recv)
        await asyncio.sleep(0)
        sends = [ends.put or ends.send_blocking for ends in channels]

        def send_all() -> None:
            for send, item in zip(sends, items, strict=True):
                send(item)

        (thread,), go = line_up((send_all,))
        began = wall_ns()
        go()
        await done
        elapsed = wall_ns() - began
        thread.join()
        return elapsed

    return on_loop(main, loops)


# ---- the list ------------------------------------------------------------------------------------------------------

SENDS, RECEIVES, RECEIVES_MANY = "put|send_blocking", "recv_blocking", "recv_many_blocking"

scenario(
    "pingpong_threads",
    ROUND_TRIP,
    pingpong_threads,
    SENDS,
    RECEIVES,
    capacity=1,
    copies=2,
    threads=True,
    one_by_one=True,
)
for n in (1, 64, 1024):
    scenario(f"pipeline_{n}", ITEM, pipeline, "send", "recv", capacity=n)
    scenario(f"pipeline_for_{n}", ITEM, pipeline_for, "send", "recv", capacity=n)
for form, capacity in (("many", 1024), ("wide", WIDE)):
    for name, run, *needs in (
        ("thread_to_thread", thread_to_thread_many, SENDS, RECEIVES_MANY),
        ("thread_to_loop", partial(fan_in_many, 1), SENDS, "recv_many"),
        ("loop_to_thread", loop_to_thread_many, "send", RECEIVES_MANY),
    ):
        scenario(f"{name}_{form}", ITEM, run, *needs, capacity=capacity, threads=True)
    scenario(
        f"fan_in_4_{form}",
        ITEM,
        partial(fan_in_many, 4),
        *(SENDS, "recv_many", "clone"),
        capacity=capacity,
        senders=4,
        threads=True,
    )
for name, run, *needs in (
    ("thread_to_thread_together", thread_to_thread_many, "send_many_blocking", RECEIVES_MANY),
    ("thread_to_loop_together", partial(fan_in_many, 1), "send_many_blocking", "recv_many"),
    ("loop_to_thread_together", loop_to_thread_many, "send_many", RECEIVES_MANY),
):
    scenario(name, ITEM, partial(run, together=True), *needs, threads=True)
scenario("loop_to_loop", ITEM, loop_to_loop, "put|send", "recv", "two_loops", threads=True)
for n in (1, 2, 4, 8, 16, 32):
    scenario(f"fan_in_{n}", ITEM, partial(fan_in, n), SENDS, "recv", "clone", senders=n, threads=True)
scenario("batch", ITEM, batch, "try_send", "try_recv")
for n in (1, 10, 100, 1000, 5000):
    scenario(
        f"wake_many_{n}", "one task woken by its item", wake_many, SENDS, "recv", capacity=1, fixed=n, threads=True
    )
SCENARIOS["create"] = Create("create", "one channel opened and dropped", create, (), 64, copies=0)

NOOPS = floors.noop is not None
INTO_LOOP: dict[str, Any] = {
    "a deque, a wake-up a burst": floors.coalesced_deque,
    "a deque of 1,024, a wake-up a burst": floors.limited_deque,
}
INTO_THREAD: dict[str, Any] = {
    "put into a SimpleQueue": floors.put_into_simple_queue,
    "put into a SimpleQueue of 1,024": floors.limited_put_into_simple_queue,
}
BETWEEN_THREADS: dict[str, Any] = {"a SimpleQueue of 1,024": floors.limited_simple_queue}
ONE_BY_ONE: dict[str, Any] = {
    "queue.SimpleQueue, one by one": partial(SCENARIOS["thread_to_thread"]._run, CONTENDERS["queue.SimpleQueue"])
}
AWAITED: dict[str, Any] = {"two empty coroutines": floors.awaited_coroutines}
if NOOPS:
    AWAITED |= {
        "two no-op C awaitables": floors.awaited_noops,
        "the same, one with a value": partial(floors.awaited_noops, receiver="ValueEnd"),
    }
FLOORS: dict[str, dict[str, Any]] = {
    "try_pair": {
        "two no-op C methods": floors.noop_pair,
        "two no-op C methods, the quickest to call": partial(floors.noop_pair, recv="quick_recv"),
    }
    if NOOPS
    else {},
    "await_ready": AWAITED,
    "pingpong_loop": {"bare futures": floors.bare_futures},
    "pingpong_threads": {"two locks": floors.two_locks},
    "pingpong_thread_loop": {
        "a lock + call_soon_threadsafe": floors.lock_and_call_soon,
        "asyncio.Queue + call_soon_threadsafe, SimpleQueue": floors.bridged_queues,
        "an eventfd + a loop turn, a lock": floors.eventfd_and_lock,
    },
    "thread_to_thread": BETWEEN_THREADS | ({"two no-op C methods, nobody waits": floors.noop_pair} if NOOPS else {}),
    "thread_to_loop": INTO_LOOP
    | {"a deque behind an async recv()": floors.coalesced_recv}
    | ({"a no-op call, a no-op await, nobody waits": floors.noops_there_and_here} if NOOPS else {}),
    "loop_to_thread": INTO_THREAD
    | ({"a no-op await, a no-op call, nobody waits": floors.noops_here_and_there} if NOOPS else {}),
    "batch": {"nexus_channels.mpsc, one by one": batch_one_by_one},
}
for n in (1, 2, 4, 8, 16, 32):
    FLOORS[f"fan_in_{n}"] = {who: partial(floor, senders=n) for who, floor in INTO_LOOP.items()}
for n in (1, 10, 100, 1000, 5000):
    FLOORS[f"wake_many_{n}"] = {"bare futures": floors.burst_of_futures}
for form in ("many", "wide", "together"):
    FLOORS[f"thread_to_loop_{form}"] = INTO_LOOP
    FLOORS[f"loop_to_thread_{form}"] = INTO_THREAD
    FLOORS[f"thread_to_thread_{form}"] = BETWEEN_THREADS | ONE_BY_ONE
for form in ("many", "wide"):
    FLOORS[f"fan_in_4_{form}"] = FLOORS["fan_in_4"]
for name, its in FLOORS.items():
    SCENARIOS[name].floors = its

for name in MORE:
    if Path(__file__).with_name(f"{name}.py").exists():
        importlib.import_module(name)
