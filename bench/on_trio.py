"""Within a run of trio, and from a thread into one: `trio_ready`, `trio_pingpong` and `thread_to_trio`.

The other is trio's own memory channel. A thread sends to it in trio's own way, by `trio.from_thread.run(send, item)`.
The tasks of all are trio's. That the items come out in order is checked as in all scenarios.

trio is imported when the first of these scenarios runs, after all those of asyncio: once it is imported, each await has
to find out whether a task of trio awaits. What that costs is in docs/howto/event-loops.md.
"""

import importlib
import importlib.util
from functools import partial
from time import perf_counter_ns as wall_ns
from typing import Any

from bars import Bar
from contenders import STREAMS, close_both, stream_ends

from nexus_channels import local, mpsc, spsc
from nexus_channels._programs.bench.contenders import HERE, MISSING, THREADS, Ends, contender, local_ends, threaded
from nexus_channels._programs.bench.scenarios import (
    ITEM,
    ROUND_TRIP,
    Items,
    LoopFactory,
    New,
    Start,
    await_ready,
    drain,
    feed_blocking,
    on_loop,
    pingpong_loop,
    scenario,
)
from nexus_channels._programs.bench.threads import line_up

__all__ = ["BARS"]

THEIRS = "trio memory channel, on trio"
OURS = tuple(f"nexus_channels.{name}, on trio" for name in ("local", "spsc", "mpsc"))
more: dict[str, Any] = {"family": "trio", "trio": True}


def trio() -> Any:
    return importlib.import_module("trio")


if importlib.util.find_spec("trio") is None:
    MISSING["trio"] = "not installed"
else:
    contender(OURS[0], "trio", HERE, local.channel, **more)(local_ends)
    contender(OURS[1], "trio", f"{HERE} {THREADS}", spsc.channel, **more)(threaded)
    contender(OURS[2], "trio", f"{HERE} {THREADS}", mpsc.channel, **more)(threaded)

    def memory_channel(capacity: int) -> Any:
        return trio().open_memory_channel(capacity)

    @contender(THEIRS, "trio", f"{STREAMS} send_blocking", memory_channel, close_both, **more)
    def memory_channel_ends(pair: Any) -> Ends:
        ends, lowlevel = stream_ends(pair), trio().lowlevel
        token = lowlevel.current_trio_token() if lowlevel.in_trio_run() else None  # the thread needs it
        ends.send_blocking = partial(trio().from_thread.run, ends.send, trio_token=token)
        return ends


def thread_to_trio(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends = new()
        (thread,), go = line_up((feed_blocking, ends, items))
        began = wall_ns()
        go()
        await drain(ends, items)
        elapsed = wall_ns() - began
        await trio().to_thread.run_sync(thread.join)  # from_thread.run() returns a turn of the run later
        return elapsed

    return on_loop(main, loops)


scenario("trio_ready", ITEM, await_ready, "send", "recv", family="trio")
scenario("trio_pingpong", ROUND_TRIP, pingpong_loop, "send", "recv", capacity=1, copies=2, family="trio")
scenario("thread_to_trio", ITEM, thread_to_trio, "send_blocking", "recv", threads=True, family="trio")

BARS = [
    Bar("trio_pingpong", THEIRS, 1.1, OURS),
    Bar("thread_to_trio", THEIRS, 1 / 10, OURS[1:]),
]
