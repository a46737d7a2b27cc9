"""What a select costs beside a plain receive: `python bench/select_calls.py [--rounds N]`. Exits 1 if it is too much.

Ready: the channels are full, and one task receives from them until they are empty. Parked: a task waits, another sends
one item and waits for the answer. Beside them stands what one would write without a select, on `asyncio.Queue`: a task
for each `get()`, and `asyncio.wait`. All are measured in turn, so that a slow moment of the machine hits all of them.
The ratio is the median of the ratios of the rounds.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter_ns as now_ns
from typing import Any

import tables

from nexus_channels import merge, select, spsc

ITEMS = 4096
BARS = {"select of 1": 1.5, "select of 4": 3.0, "parked select of 4": 2.0}
BESIDE = {"ready": "recv", "parked": "parked recv"}


def filled(channels: int, full: int) -> list[Any]:
    """So many receivers, of which the first `full` hold ITEMS together."""
    ends = [spsc.channel(ITEMS) for _ in range(channels)]
    for tx, _ in ends[:full]:
        tx.try_send_many(range(ITEMS // full))
    return [(tx, rx) for tx, rx in ends]


async def recv() -> int:
    ((_tx, rx),) = filled(1, 1)
    began = now_ns()
    for _ in range(ITEMS):
        await rx.recv()
    return now_ns() - began


async def select_one() -> int:
    ((_tx, rx),) = filled(1, 1)
    began = now_ns()
    for _ in range(ITEMS):
        await select(rx)
    return now_ns() - began


def select_four(full: int) -> Callable[[], Awaitable[int]]:
    async def run() -> int:
        ends = filled(4, full)
        one, two, three, four = (rx for _, rx in ends)
        began = now_ns()
        for _ in range(ITEMS):
            await select(one, two, three, four)
        return now_ns() - began

    return run


async def merging() -> int:
    ends = filled(4, 4)
    merged = merge(*[rx for _, rx in ends])
    began = now_ns()
    for _ in range(ITEMS):
        await anext(merged)
    return now_ns() - began


async def waiting() -> int:
    """What one has to write without a select."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(4)]
    for queue in queues:
        for number in range(ITEMS // 4):
            queue.put_nowait(number)
    pending = {asyncio.create_task(queue.get()): queue for queue in queues}
    left = ITEMS
    began = now_ns()
    while left:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            left -= 1
            queue = pending.pop(task)
            pending[asyncio.create_task(queue.get())] = queue
    elapsed = now_ns() - began
    for task in pending:
        task.cancel()
    return elapsed


def parked(channels: int) -> Callable[[], Awaitable[int]]:
    """0 channels: a plain recv()."""

    async def run() -> int:
        ends = [spsc.channel(1) for _ in range(max(channels, 1))]
        answer_tx, answer_rx = spsc.channel(1)
        arms = tuple(rx for _, rx in ends)
        tx, rx = ends[-1]

        async def answer() -> None:
            for _ in range(ITEMS):
                await (select(*arms) if channels else rx.recv())
                answer_tx.try_send(None)

        task = asyncio.create_task(answer())
        await asyncio.sleep(0)
        began = now_ns()
        for number in range(ITEMS):
            tx.try_send(number)
            await answer_rx.recv()
        elapsed = now_ns() - began
        await task
        return elapsed

    return run


WAYS: dict[str, Callable[[], Awaitable[int]]] = {
    "recv": recv,
    "select of 1": select_one,
    "select of 4": select_four(4),
    "select of 4, one of them ready": select_four(1),
    "merge of 4": merging,
    "asyncio.wait over 4 asyncio.Queue": waiting,
    "parked recv": parked(0),
    "parked select of 1": parked(1),
    "parked select of 4": parked(4),
}


async def measure(rounds: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            found[name].append(await way())
    return found


def ratios(found: dict[str, list[int]]) -> dict[str, float]:
    """Each in times of the plain receive, ready or parked."""
    beside = {name: found[BESIDE["parked" if name.startswith("parked") else "ready"]] for name in found}
    return {name: statistics.median(a / b for a, b in zip(found[name], beside[name], strict=True)) for name in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--json", metavar="FILE", help="write it there too, beside what other interpreters found")
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds))
    failed = False
    table = []
    print("| | ns an item | times recv | at most |\n|---|--:|--:|--:|")
    for name, ratio in ratios(found).items():
        bar, ns = BARS.get(name), statistics.median(found[name]) / ITEMS
        failed |= bar is not None and ratio > bar
        print(f"| {name} | {ns:,.0f} | {ratio:.2f} | {bar or ''} |")
        table.append({"name": name, "ns": ns, "ratio": ratio, "bar": bar})
    print(f"\n{'MISSED' if failed else 'met'}")
    if options.json:
        tables.keep(options.json, table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
