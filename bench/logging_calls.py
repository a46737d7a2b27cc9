"""What a logging call costs, and what it waits for: `python bench/logging_calls.py [--json FILE]`.

Three tables. *Calls*: processor time of the thread that logs, while nobody takes the records, so that only the call
is measured; rounds are interleaved, `x` is the median over the rounds of the ratio to QueueHandler. *Beside a slow
disk*: the time on the clock of each call, while every write to the disk takes a millisecond. *A million records*: eight
threads and an event loop, under each policy, counted. Exits 1 if a call of ours takes more than 0.6 of QueueHandler's,
or a record is neither written nor counted.
"""

import argparse
import asyncio
import contextlib
import io
import logging
import logging.handlers
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import tables

from nexus_channels import mpsc_bytes
from nexus_channels.logging import ChannelHandler

OURS, STANDARD, FLOOR = "ChannelHandler", "QueueHandler", "no handler does anything"
MOST = 0.6  # of QueueHandler's time
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def logger(handler: logging.Handler) -> logging.Logger:
    log = logging.Logger("bench", logging.DEBUG)
    log.addHandler(handler)
    return log


# ---- the call alone ------------------------------------------------------------------------------------------------


class Nothing(logging.Handler):
    def handle(self, _record: logging.LogRecord) -> bool:
        return True


def empty(records: Any) -> None:
    """Take what is left.  Whoever else takes may have the last one between a look and `get()`, which then waits."""
    with contextlib.suppress(queue.Empty):
        while True:
            records.get_nowait()


class Taken(NamedTuple):
    """A handler whose records nobody takes but `drain`."""

    handler: logging.Handler
    drain: Callable[[], object]


def calls() -> dict[str, Taken]:
    standard: queue.Queue[Any] = queue.Queue(-1)
    simple: queue.SimpleQueue[Any] = queue.SimpleQueue()
    tx, rx = mpsc_bytes.channel(1 << 20)

    return {
        FLOOR: Taken(Nothing(), lambda: None),
        OURS: Taken(ChannelHandler(tx), lambda: rx.try_recv_many(1 << 20)),
        STANDARD: Taken(logging.handlers.QueueHandler(standard), lambda: empty(standard)),
        "QueueHandler, SimpleQueue": Taken(logging.handlers.QueueHandler(simple), lambda: empty(simple)),  # type: ignore[arg-type]
    }


def time_calls(rounds: int, count: int) -> dict[str, list[float]]:
    """{name: ns a call, by round}"""
    contenders = calls()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, taken in contenders.items():
            log = logger(taken.handler)
            began = time.thread_time_ns()
            for number in range(count):
                log.info("message %d of %s", number, "many")
            found[name].append((time.thread_time_ns() - began) / count)
            taken.drain()
    ours = contenders[OURS].handler
    assert isinstance(ours, ChannelHandler)
    assert ours.dropped == 0, "the channel was full"
    return found


def ratio(found: dict[str, list[float]], name: str, other: str = STANDARD) -> float:
    return statistics.median(a / b for a, b in zip(found[name], found[other], strict=True))


# ---- beside a slow disk --------------------------------------------------------------------------------------------


class SlowDisk(io.StringIO):
    """A file whose every flush takes a millisecond, as a busy disk's does."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        time.sleep(0.001)


@contextlib.contextmanager
def file_handler() -> Generator[Callable[[int], object]]:
    log = logger(logging.StreamHandler(SlowDisk()))
    yield lambda number: log.info("message %d of %s", number, "many")


@contextlib.contextmanager
def queue_handler() -> Generator[Callable[[int], object]]:
    records: queue.Queue[Any] = queue.Queue(-1)
    listener = logging.handlers.QueueListener(records, logging.StreamHandler(SlowDisk()))
    log = logger(logging.handlers.QueueHandler(records))
    listener.start()
    yield lambda number: log.info("message %d of %s", number, "many")
    empty(records)  # what is left would be written one by one
    listener.stop()


@contextlib.contextmanager
def channel_handler() -> Generator[Callable[[int], object]]:
    with ChannelHandler(targets=[logging.StreamHandler(SlowDisk())], capacity=1 << 24) as handler:
        log = logger(handler)
        yield lambda number: log.info("message %d of %s", number, "many")


@contextlib.contextmanager
def loguru_enqueue() -> Generator[Callable[[int], object]]:
    from loguru import logger as loguru

    disk = SlowDisk()

    def sink(message: str) -> None:
        disk.write(message)
        disk.flush()

    loguru.remove()
    number = loguru.add(sink, enqueue=True, format="{message}")
    yield lambda number: loguru.info("message {} of {}", number, "many")
    loguru.remove(number)


DISKS: dict[str, Callable[[], contextlib.AbstractContextManager[Callable[[int], object]]]] = {
    "FileHandler": file_handler,
    STANDARD: queue_handler,
    OURS: channel_handler,
    "loguru, enqueue=True": loguru_enqueue,
}


def latencies(name: str, count: int) -> list[int]:
    """The nanoseconds of each call, sorted. A little time lies between two calls, as in a program."""
    found = []
    with DISKS[name]() as call:
        for number in range(count):
            began = time.perf_counter_ns()
            call(number)
            found.append(time.perf_counter_ns() - began)
            if number % 10 == 0:
                time.sleep(0.0002)
    return sorted(found)


# ---- a million records ---------------------------------------------------------------------------------------------


class Counting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.by_threads = 0
        self.by_the_loop = 0
        self.reported = 0

    def createLock(self) -> None:  # noqa: N802
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        if record.name == "bench.loop":
            self.by_the_loop += 1
        elif record.name == "bench":
            self.by_threads += 1
        else:
            self.reported += getattr(record, "dropped", 0)
        return True


def many(policy: Any, count: int, threads: int = 8) -> dict[str, Any]:
    """So many records, by threads and by a task; how many were written, dropped and reported as dropped."""
    target = Counting()
    each = count // (threads + 1)

    async def task() -> None:
        for number in range(count - threads * each):
            in_loop.info("message %d of %s", number, "many")
            if number % 100 == 0:
                await asyncio.sleep(0)

    def thread() -> None:
        for number in range(each):
            log.info("message %d of %s", number, "many")

    began = time.perf_counter()
    with ChannelHandler(targets=[target], policy=policy) as handler:
        log, in_loop = logger(handler), logger(handler)
        in_loop.name = "bench.loop"
        running = [threading.Thread(target=thread) for _ in range(threads)]
        for one in running:
            one.start()
        asyncio.run(task())
        for one in running:
            one.join()
        handler.flush(None)
    return {
        "policy": policy,
        "by threads": threads * each,
        "written": target.by_threads,
        "by the loop": count - threads * each,
        "written too": target.by_the_loop,
        "dropped": handler.dropped,
        "reported": target.reported,
        "seconds": round(time.perf_counter() - began, 1),
    }


def is_exact(row: dict[str, Any]) -> bool:
    lost = row["by threads"] + row["by the loop"] - row["written"] - row["written too"]
    blocked = row["policy"] == "drop" or row["written"] == row["by threads"]
    return bool(lost == row["dropped"] == row["reported"]) and blocked


# ---- the program ---------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--count", type=int, default=3000, help="calls a round")
    parser.add_argument("--latency", type=int, default=20_000, metavar="N", help="calls timed beside a slow disk")
    parser.add_argument("--records", type=int, default=1_000_000, help="records by eight threads and a loop")
    parser.add_argument("--json", metavar="FILE", help="write it there too, beside what other interpreters found")
    options = parser.parse_args(arguments)

    found = time_calls(options.rounds, options.count)
    print("| logging call | ns | x |\n|---|--:|--:|")
    for name, samples in sorted(found.items(), key=lambda item: statistics.median(item[1])):
        print(f"| {name} | {statistics.median(samples):,.0f} | {ratio(found, name):.2f} |")
    met = ratio(found, OURS) <= MOST

    print(f"\n| us beside a slow disk | {' | '.join(PERCENTILES)} |\n|---|{'--:|' * len(PERCENTILES)}")
    beside: dict[str, dict[str, float]] = {}
    for name in DISKS:
        try:
            # Each call of a FileHandler takes a millisecond.
            taken = latencies(name, min(options.latency, 2000) if name == "FileHandler" else options.latency)
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        beside[name] = {p: taken[min(len(taken) - 1, int(q * len(taken)))] / 1000 for p, q in PERCENTILES.items()}
        print(f"| {name} | {' | '.join(f'{value:,.1f}' for value in beside[name].values())} |")

    counted = [many(policy, options.records) for policy in ("block", "drop")]
    print(f"\n| {' | '.join(counted[0])} |\n|---|{'--:|' * (len(counted[0]) - 1)}")
    for row in counted:
        print("| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()) + " |")
    exact = all(is_exact(row) for row in counted)
    said = {True: "met", False: "MISSED"}
    print(f"\n{said[met]:6}  a call takes at most {MOST} of QueueHandler's time: {ratio(found, OURS):.3f}")
    print(f"{said[exact]:6}  every record is written or counted, and under block every one of a thread is written")
    if options.json:
        rows: list[dict[str, Any]] = [
            {"name": name, "ns": statistics.median(found[name]), "ratio": ratio(found, name)} for name in found
        ]
        rows += [{"name": name, "beside a slow disk": its} for name, its in beside.items()]
        tables.keep(options.json, rows + counted)
    return 0 if met and exact else 1


if __name__ == "__main__":
    sys.exit(main())
