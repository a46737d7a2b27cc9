"""What an idle channel costs: `python bench/memory.py [--count N]`. Exits 1 if ours cost more than they may.

Each is counted in a process of its own: by tracemalloc, which sees every block that is asked for, and by the growth
of the resident set, which sees what the allocators take for it. Descriptors, threads and tasks are counted too.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import sysconfig
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from contenders import CONTENDERS, NEXUS

__all__ = ["Cost", "allowed", "cost", "traced_bytes"]

CAPACITIES = (1, 64, 1024)


class Cost(NamedTuple):
    traced: float  # bytes a channel, by tracemalloc
    resident: float  # bytes a channel, by the resident set
    descriptors: int  # all together
    threads: int
    tasks: int


def allowed(capacity: int) -> int:
    """Bytes that one of our channels may cost. Without a GIL each side has cache lines of its own."""
    lines = 128 if sysconfig.get_config_var("Py_GIL_DISABLED") else 0
    return 1024 + lines + 8 * capacity


def open_many(name: str, capacity: int, count: int) -> list[Any]:
    """So many idle channels, as a user would hold them: ours by their two ends."""
    new: Callable[[int], Any] = CONTENDERS[name].new
    if name in NEXUS:
        kept: list[Any] = [None] * (2 * count)
        for i in range(0, 2 * count, 2):
            kept[i : i + 2] = new(capacity)
        return kept
    return [new(capacity) for _ in range(count)]


def traced_bytes(name: str, capacity: int, count: int) -> float:
    kept = open_many(name, capacity, 10)  # whatever is made once is there now
    gc.collect()
    tracemalloc.start()
    kept = open_many(name, capacity, count)
    traced, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (traced - sys.getsizeof(kept)) / count


def resident_set() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def resources() -> tuple[int, int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())


async def cost(name: str, capacity: int, count: int) -> Cost:
    """In this process, which should be new: memory that was freed before would be used again unseen."""
    open_many(name, capacity, 10)
    gc.collect()
    before, resident = resources(), resident_set()
    kept = open_many(name, capacity, count)
    resident = resident_set() - resident - sys.getsizeof(kept)
    grown = [after - then for after, then in zip(resources(), before, strict=True)]
    del kept
    return Cost(traced_bytes(name, capacity, min(count, 1000)), resident / count, *grown)


def cost_in_child(name: str, capacity: int, count: int) -> Cost:
    command = [sys.executable, __file__, "--one", name, str(capacity), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Cost(*json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="channels to open")
    parser.add_argument("--json", metavar="FILE", help="write what was found there too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, capacity, count = options.one
        print(json.dumps(asyncio.run(cost(name, int(capacity), int(count)))))
        return 0

    print("| | capacity | bytes | resident | may cost | descriptors | threads | tasks |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    failed = False
    table = []
    for capacity in CAPACITIES:
        count = min(options.count, 100_000_000 // (8 * capacity + 1024))  # at most a hundred megabytes or so
        for name in (*NEXUS, "asyncio.Queue", "queue.SimpleQueue", "queue.Queue", "janus", "culsans", "anyio streams"):
            if name not in CONTENDERS:
                continue
            found = cost_in_child(name, capacity, count)
            limit = f"{allowed(capacity):,}" if name in NEXUS else ""
            print(f"| {name} | {capacity:,} | {found.traced:,.0f} | {found.resident:,.0f} | {limit} |", end="")
            print(f" {found.descriptors} | {found.threads} | {found.tasks} |", flush=True)
            table.append({"name": name, "capacity": capacity, **found._asdict()})
            if name in NEXUS:
                failed |= max(found.traced, found.resident) > allowed(capacity)
                failed |= (found.descriptors, found.threads, found.tasks) != (0, 0, 0)
    asked = "at most 1,024 bytes and 8 a slot, no descriptor, thread or task"
    print(f"\n{'MISSED' if failed else 'met':6}  idle channel: {asked}")
    if options.json:
        Path(options.json).write_text("[\n" + ",\n".join(map(json.dumps, table)) + "\n]\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
