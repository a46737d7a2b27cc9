"""Web server logs, parsed by worker processes and counted in an asyncio task, through channels between processes.

The main process cuts each file into blocks of whole lines, and sends each block to the first worker that has room for
it. The workers parse the lines where they lie in the channel, and send what they counted back through one channel that
they all share. An end of a channel goes to its worker as a ticket, an argument of the process.

A worker that fails ends the program with an error: its channels tell, whatever it died of.

    python examples/logs_between_processes.py examples/data/nginx-access.log
    python examples/logs_between_processes.py --workers 2 --times 20 --compare examples/data/nginx-access.log
"""

import argparse
import asyncio
import json
import mmap
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nexus_channels import Disconnected, RecvError, Ticket, attach, mpsc_bytes, select, spsc_bytes

BLOCK = 1 << 16  # bytes of whole lines, about
LONGEST = 1 << 15  # a line
ROOM = 4 * BLOCK  # for each worker, so that it has work while the main process does something else
RESULTS = 1 << 20  # no result is as large

# nginx: time, address, "request", status, bytes, seconds
REQUEST = re.compile(rb'^\S+ (\S+) "(\S+) ([^ "?]*)[^"]*" (\d{3}) (\d+) ([\d.]+)$', re.MULTILINE)


class Totals:
    """What is counted: requests of each status, of each path, bytes, and lines that are no request."""

    def __init__(self) -> None:
        self.lines = 0
        self.bytes = 0
        self.status: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()

    def count(self, block: memoryview) -> None:
        self.lines += bytes(block).count(b"\n")
        for _, _, path, status, size, _ in REQUEST.findall(block):
            self.status[status.decode()] += 1
            self.paths[path.decode(errors="replace")] += 1
            self.bytes += int(size)

    def add(self, other: "Totals") -> None:
        self.lines += other.lines
        self.bytes += other.bytes
        self.status.update(other.status)
        self.paths.update(other.paths)

    @property
    def requests(self) -> int:
        return self.status.total()

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Totals":
        totals, fields = cls(), json.loads(text)
        totals.lines, totals.bytes = fields["lines"], fields["bytes"]
        totals.status, totals.paths = Counter(fields["status"]), Counter(fields["paths"])
        return totals


# ---- in the workers ------------------------------------------------------------------------------------------------


def work(blocks: Ticket[spsc_bytes.Receiver], results: Ticket[mpsc_bytes.Sender]) -> None:
    """A worker, from beginning to end. It is imported in a new process, so it has to stand at the top of a module."""
    with attach(results) as tx, attach(blocks) as rx:
        for claim in rx:
            totals = Totals()
            with memoryview(claim) as block:
                totals.count(block)
            tx.send_blocking(totals.to_json())


# ---- in the main process -------------------------------------------------------------------------------------------


def blocks(path: Path) -> Iterator[memoryview]:
    """Whole lines, about BLOCK bytes together, where they lie in the file."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + BLOCK) + 1 or content.find(b"\n", start) + 1 or len(content)
        if end - start > BLOCK + LONGEST:
            raise ValueError(f"{path}: a line of more than {LONGEST:,} bytes at byte {start:,}")
        yield memoryview(content)[start:end]
        start = end


async def feed(paths: list[Path], times: int, senders: list[spsc_bytes.Sender]) -> None:
    """Each block to the first worker that has room."""
    for _ in range(times):
        for path in paths:
            for block in blocks(path):
                await select(*(tx.sending(block) for tx in senders))
    for tx in senders:
        tx.close()  # a worker drains its channel, then sees the end


async def collect(rx: mpsc_bytes.Receiver) -> Totals:
    totals = Totals()
    async for claim in rx:
        totals.add(Totals.from_json(bytes(claim)))
    try:
        rx.try_recv()  # the loop ends in the same way, however the workers ended
    except RecvError as end:
        if end.crashed:
            raise
    return totals


async def count_in_pool(paths: list[Path], times: int, workers: int) -> Totals:
    processes = multiprocessing.get_context("spawn")
    channels = [spsc_bytes.channel(ROOM, shared=True) for _ in range(workers)]
    tx, rx = mpsc_bytes.channel(RESULTS, shared=True)
    started = [
        processes.Process(target=work, args=(blocks.share(), tx.clone().share()), daemon=True) for _, blocks in channels
    ]
    for process in started:
        process.start()
    tx.close()
    failed = False
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed(paths, times, [tx for tx, _ in channels]))
            collecting = tasks.create_task(collect(rx))
    except* Disconnected:
        failed = True
    if failed:  # one of them: the others would wait
        for process in started:
            process.terminate()
    for process in started:
        await asyncio.to_thread(process.join)
    codes = [process.exitcode for process in started]
    if failed or any(codes):
        raise RuntimeError(f"a worker failed: their exit codes are {codes}")
    return collecting.result()


def count_alone(paths: list[Path], times: int) -> Totals:
    totals = Totals()
    for _ in range(times):
        for path in paths:
            for block in blocks(path):
                totals.count(block)
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(description="count what is in logs of nginx, in several processes")
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--times", type=int, default=1, help="how often the logs are repeated")
    parser.add_argument("--compare", action="store_true", help="count in this process too, and compare")
    options = parser.parse_args()
    if options.workers < 1 or options.times < 1:
        parser.error("--workers and --times are at least 1")
    began = time.perf_counter()
    totals = asyncio.run(count_in_pool(options.logs, options.times, options.workers))
    elapsed = time.perf_counter() - began
    print(f"{totals.requests:,} requests in {totals.lines:,} lines, {totals.bytes:,} bytes sent")
    print("  " + ", ".join(f"{status}: {count:,}" for status, count in sorted(totals.status.items())))
    for path, count in totals.paths.most_common(3):
        print(f"  {path}: {count:,}")
    print(f"{options.workers} processes took {elapsed:.2f} s, their start included")
    if options.compare:
        began = time.perf_counter()
        alone = count_alone(options.logs, options.times)
        elapsed_alone = time.perf_counter() - began
        if vars(alone) != vars(totals):
            raise AssertionError("the processes and one alone do not agree")
        print(f"one process alone took {elapsed_alone:.2f} s and counted the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
