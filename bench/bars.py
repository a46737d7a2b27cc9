"""What the channels are to be: ratios to others, which hold on any machine where absolute times do not.

A bar that was not reached stays here, and the report says so.
"""

import statistics
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from contenders import FACE, NEXUS

__all__ = ["BARS", "Bar", "python_here", "rows"]

LOCAL, SPSC, MPSC = NEXUS
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def python_here() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}{'t' if FREE_THREADED else ''}"


@dataclass(frozen=True)
class Bar:
    """In `scenario`, the slowest of `ours` takes at most `limit` times as long as `other`."""

    scenario: str
    other: str
    limit: float
    ours: tuple[str, ...] = (LOCAL, SPSC, MPSC)
    python: str = "3.11"  # that it was set on; others are slower or faster on others
    what: str = "median"  # or a percentile of the latency: "p50", "p99"
    burn: bool = False  # beside a thread that burns bytecode
    than: str = ""  # the scenario that `other` is taken from, if it is another one
    close: bool = False  # to what the interpreter allows: nothing a busy machine may be tested for

    def __str__(self) -> str:
        times = f"at most {self.limit:.2f} x" if self.limit >= 0.25 else f"at least {1 / self.limit:.3g} x as fast as"
        where = f" in {self.than}" if self.than else ""
        return f"{times} {self.other}{where}" + (f", {self.what}" if self.what != "median" else "")

    @property
    def title(self) -> str:
        return f"{self.scenario}{' while another thread holds the GIL' if self.burn else ''}"


THREADED = (SPSC, MPSC)
DEQUE = "a deque, a wake-up a burst"
INTO_LOOP = [
    Bar("", "culsans", 1 / 15),
    Bar("", "janus", 1 / 30),
    Bar("", "asyncio.Queue + call_soon_threadsafe", 1 / 30),
    Bar("", DEQUE, 1 / 1.5, close=True),
]
FREE = Bar("", "", 1.0, THREADED, python="3.13t")

BARS = [
    Bar("try_pair", "two no-op C methods", 1.25),
    Bar("try_pair", "queue.SimpleQueue", 0.6),
    Bar("await_ready", "asyncio.Queue", 0.11),
    *(  # where a result travels as a StopIteration
        replace(bar, python=python)
        for python in ("3.13", "3.14")
        for bar in (
            Bar("await_ready", "asyncio.Queue", 0.18),
            Bar("await_ready", "two no-op C awaitables", 1.4),
            Bar("pipeline_1024", "asyncio.Queue", 1 / 5),
            Bar("thread_to_thread", "queue.SimpleQueue", 1.0, THREADED, close=True),
            Bar("thread_to_loop", "culsans", 1 / 14, THREADED),
        )
    ),
    Bar("pingpong_loop", "bare futures", 1.05),
    Bar("pipeline_64", "asyncio.Queue", 1 / 4),
    Bar("pipeline_1024", "asyncio.Queue", 1 / 6),
    Bar("thread_to_thread", "queue.SimpleQueue", 1 / 1.2, THREADED, close=True),
    Bar("thread_to_thread", "queue.Queue", 1 / 12, THREADED),
    *(replace(bar, scenario="thread_to_loop", ours=THREADED) for bar in INTO_LOOP),
    *(replace(bar, scenario="fan_in_4", ours=(MPSC,)) for bar in INTO_LOOP),
    *(Bar("pingpong_thread_loop", other, 0.5, THREADED, what="p99") for other in ("janus", "culsans")),
    Bar("pingpong_thread_loop", "a lock + call_soon_threadsafe", 1.0, THREADED, what="p50", burn=True),
    Bar("pingpong_thread_loop", "janus", 0.5, THREADED, what="p50", burn=True),
    Bar("batch", "nexus_channels.mpsc, one by one", 1 / 5, (MPSC,)),
    Bar("loop_to_thread", "put into a SimpleQueue", 1 / 1.1, THREADED, close=True),
    *(  # with batches and room, for those who want the rate
        Bar(f"{scenario}_{form}", other, limit, ours, close=True)
        for scenario, other, limit, ours in (
            ("thread_to_thread", "queue.SimpleQueue, one by one", 1 / 1.2, THREADED),
            ("thread_to_loop", DEQUE, 1 / 1.5, THREADED),
            ("fan_in_4", DEQUE, 1 / 1.5, (MPSC,)),
            ("loop_to_thread", "put into a SimpleQueue", 1 / 1.1, THREADED),
        )
        for form in ("many", "wide")
    ),
    Bar("wake_many_1000", "bare futures", 1.3, THREADED),
    *(
        replace(FREE, scenario="thread_to_thread", other=other)
        for other in ("queue.SimpleQueue", "queue.Queue", "janus", "culsans", "aiologic.Queue", "os.pipe, 8 bytes")
    ),
    *(
        replace(FREE, scenario="fan_in_2", ours=(MPSC,), other=other)
        for other in ("asyncio.Queue + call_soon_threadsafe", "janus", "culsans", "aiologic.Queue")
    ),
    replace(FREE, scenario="fan_in_2", ours=(MPSC,), other=MPSC, than="fan_in_1", limit=1 / 0.8),
    *(  # for those who change their import only
        Bar(scenario, other, limit, (FACE,), python=python)
        for python in ("3.11", "3.13", "3.14")
        for scenario, other, limit in (
            ("thread_to_thread", "queue.Queue", 1 / 5),
            ("await_ready", "asyncio.Queue", 1 / 2),
            ("pipeline_1024", "asyncio.Queue", 1 / 2),
            ("thread_to_loop", "janus", 1 / 10),
        )
    ),
]


# ---- verdicts over records, as run.py writes them ------------------------------------------------------------------


def ratio(bar: Bar, name: str, records: dict[str, dict[str, Any]]) -> float | None:
    """How many times the other's time; None where it was not measured."""
    ours = records.get(bar.scenario, {})
    others = records.get(bar.than or bar.scenario, {})
    if bar.what != "median":
        mine, its = (of.get("latency", {}).get(n) for of, n in ((ours, name), (others, bar.other)))
        return mine[bar.what] / its[bar.what] if mine and its else None
    mine, its = (of.get("results", {}).get(n) for of, n in ((ours, name), (others, bar.other)))
    if not mine or not its:
        return None
    if bar.than:
        return float(mine["median"] / its["median"])
    return statistics.median(a / b for a, b in zip(mine["samples"], its["samples"], strict=True))


def rows(records: Iterable[dict[str, Any]], bars: Iterable[Bar] = BARS) -> list[dict[str, Any]]:
    """Each bar of which something was measured, with what was found: {bar, python, found, worst, met}."""
    by_kind: dict[tuple[str, bool], dict[str, dict[str, Any]]] = {}
    for record in records:
        if record["loop"] == "asyncio":
            by_kind.setdefault((record["python"], record["burn"]), {})[record["scenario"]] = record
    found = []
    for bar in bars:
        ratios = {name: ratio(bar, name, by_kind.get((bar.python, bar.burn), {})) for name in bar.ours}
        known = {name: float(f"{times:.4g}") for name, times in ratios.items() if times is not None}
        if known:
            worst = max(known.values())
            found.append({"bar": bar, "found": known, "worst": worst, "met": worst <= bar.limit})
    return found


# ---- why some are not met ------------------------------------------------------------------------------------------

HAND_OVERS = (
    "a queue without a bound lets one thread hold the GIL for the whole switch interval of 5 ms: tens of thousands of "
    "items. With room for 1,024 items, both sides hand the GIL over once for each 1,024. The row of the same queue "
    "with that bound shows what this costs. From thread to thread, an item takes 34 ns and one round of two hand-overs "
    "3 to 11 µs more, for any capacity from 256 to 16,384. System calls are not the reason: 1,024 items take 11 from a "
    "thread to a loop (hand-written: 9), and 11 from a loop to a thread (hand-written: 11), counted by strace. "
    "Scenarios named `_wide` have room for 16,384 items and receive in batches. The hand-written forms on a loop also "
    "await nothing; one row shows what the same calls and awaits take when they do nothing."
)
WHY: dict[tuple[str, str], str] = {
    ("try_pair", "queue.SimpleQueue"): (
        "nearly all of the time is the interpreter's. A pair takes 402 instructions (SimpleQueue: 753), of which 95 "
        "are in nexus_channels, counted by callgrind. One row shows two C methods that do nothing, of the kind that "
        "CPython 3.11 calls fastest."
    ),
    ("await_ready", "asyncio.Queue"): (
        "one row shows two C awaitables that do nothing: they take two thirds of the time, on 3.14 six sevenths. From "
        "3.12 on `await` gets each result as the value of a StopIteration; another row shows what two such awaitables "
        "take if the second hands over a value. What is left is for sending, receiving and making both awaitables."
    ),
    ("thread_to_thread", "queue.SimpleQueue"): HAND_OVERS,
    ("thread_to_loop", DEQUE): HAND_OVERS,
    ("fan_in_4", DEQUE): HAND_OVERS,
    ("loop_to_thread", "put into a SimpleQueue"): HAND_OVERS,
}


def why(bar: Bar) -> str | None:
    """What keeps it from being met, as far as that was found out by measuring."""
    return WHY.get((bar.scenario, bar.other))
