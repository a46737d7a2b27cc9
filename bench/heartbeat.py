"""How late a timer is beside a task that never has to wait: `python bench/heartbeat.py [--seconds N]`.

A task takes items that always are there already, and works 10 µs on each, while two threads, or one in C, fill the
channel as fast as they can. Beside it another task of the loop wants to run every 10 ms. Each contender is measured on
each loop in a process of its own. Exits 1 if ours is later than it may be.
"""

import argparse
import asyncio
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from time import perf_counter_ns as wall_ns
from typing import Any

import native
import tables
from contenders import CONTENDERS
from run import loop_factory

from nexus_channels import mpsc_bytes

__all__ = ["lateness"]

CAPACITY = 4096  # more than the task takes until a thread gets the GIL, after 5 ms: it never has to wait
BEAT = 10_000_000  # ns
WORK = 10_000  # ns an item
FEEDERS = 2
NATIVE = "nexus_channels.mpsc_bytes, C thread"
OTHERS = ("janus", "culsans", "aiologic.Queue")
ALLOWED = {"nexus_channels.mpsc": (10.0, 25.0), NATIVE: (2.0, math.inf)}  # ms: the 99th percentile, and the worst


def work(ns: int) -> None:
    end = wall_ns() + ns
    while wall_ns() < end:
        pass


def feed(send: Callable[[int], Any]) -> None:
    while True:
        send(1)


def from_threads(name: str) -> Callable[[], Awaitable[Any]]:
    ends = CONTENDERS[name].ends(CONTENDERS[name].new(CAPACITY))
    kept.append(ends)
    for _ in range(FEEDERS):
        sender = ends.clone() if ends.clone is not None else ends
        threading.Thread(target=feed, args=(sender.send_blocking,), daemon=True).start()
    recv: Callable[[], Awaitable[Any]] = ends.recv
    return recv


def from_native() -> Callable[[], Awaitable[Any]]:
    tx, rx = mpsc_bytes.channel(CAPACITY * native.RECORD)
    end = tx.native()
    kept.extend((end, rx))
    native.load().run_start(end.address, 1 << 62, native.MESSAGE, native.AT_ONCE, 0, None, None)
    return rx.recv_bytes


kept: list[Any] = []  # as long as threads use it


async def lateness(name: str, seconds: float) -> list[float]:
    """How many milliseconds each beat was late, sorted.

    The threads go on: the process is to be ended."""
    recv = from_native() if name == NATIVE else from_threads(name)
    late: list[float] = []

    async def consume() -> None:
        while True:
            await recv()
            work(WORK)

    consuming = asyncio.create_task(consume())
    stop = wall_ns() + seconds * 1e9
    while (began := wall_ns()) < stop:
        await asyncio.sleep(BEAT / 1e9)
        late.append((wall_ns() - began - BEAT) / 1e6)
    consuming.cancel()
    return sorted(late)


def measure_here(name: str, loop: str, seconds: float) -> None:
    """Prints them; the process ends at once, whatever its threads do."""
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        print(json.dumps(runner.run(lateness(name, seconds))), flush=True)
        os._exit(0)


def in_child(name: str, loop: str, seconds: float) -> list[float] | None:
    """None if it does not get that far: a loop that starves does not even end."""
    command = [sys.executable, __file__, "--seconds", str(seconds), "--one", name, loop]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=5 * seconds + 10)
    except subprocess.TimeoutExpired:
        return None
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="for each contender and loop")
    parser.add_argument("--json", metavar="FILE", help="write it there too, beside what other interpreters found")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure_here(options.one[0], options.one[1], options.seconds)

    names = ["nexus_channels.mpsc", *([NATIVE] if native.load() else []), *(n for n in OTHERS if n in CONTENDERS)]
    loops = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
    print("| | loop | beats | median late, ms | 99 % | worst |")
    print("|---|---|--:|--:|--:|--:|")
    table: list[dict[str, Any]] = []
    missed = []
    for name in names:
        for loop in loops:
            late = in_child(name, loop, options.seconds)
            if not late:
                print(f"| {name} | {loop} | 0 | | | |", flush=True)
                table.append({"name": name, "loop": loop, "beats": 0})
                continue
            median, p99, worst = late[len(late) // 2], late[math.ceil(0.99 * len(late)) - 1], late[-1]
            print(f"| {name} | {loop} | {len(late):,} | {median:.2f} | {p99:.2f} | {worst:.2f} |", flush=True)
            row = {"name": name, "loop": loop, "beats": len(late), "median": median, "p99": p99, "worst": worst}
            table.append(row)
            most = ALLOWED.get(name, (math.inf, math.inf))
            if p99 > most[0] or worst > most[1]:
                missed.append(f"{name} on {loop}")
    asked = "; ".join(f"{name}: 99 % at most {p99:g} ms, worst {worst:g}" for name, (p99, worst) in ALLOWED.items())
    print(f"\n{'MISSED' if missed else 'met':6}  {asked}" + "".join(f"\n        {name}" for name in missed))
    if options.json:
        tables.keep(options.json, table)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
