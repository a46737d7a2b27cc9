"""Arrays of numpy between processes without a copy on the way: pickle protocol 5, straight into a channel's memory.

The pairs of neighbouring bytes in some files are counted, which is how a byte-pair encoding begins. The main process
sends blocks of the files to workers. Each worker sends its counts back: 65,536 numbers, 512 KiB, in one message.

`put()` and `load()` are all that a program needs to send objects with large buffers. pickle writes the object without
its buffers, which protocol 5 hands over as they are. `put()` copies them into the message, once. `load()` makes the
object of what lies in the message: its arrays are views of memory that both processes see, and nothing is copied.

    pip install numpy
    python examples/arrays_between_processes.py --workers 2 examples/data/*.log
    python examples/arrays_between_processes.py --times 20 --compare examples/data/redis.log
"""

import argparse
import importlib.util
import itertools
import multiprocessing
import os
import pickle
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nexus_channels import RecvError, SendError, Ticket, attach, mpsc_bytes, select_blocking, spsc_bytes

BLOCK = 1 << 18  # bytes of a file
ROOM = 1 << 20  # of each channel: a few messages
NUMBER = struct.Struct("Q")
PAIRS = 1 << 16


# ---- objects with buffers ------------------------------------------------------------------------------------------
#
#     | how many parts | their lengths | the pickle | a buffer | a buffer | ...        each at a multiple of 8


def places(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of each part, and of one more, that is empty: the end of all."""
    at = NUMBER.size * (1 + len(lengths))
    for length in [*lengths, 0]:
        yield at, at + length
        at += (length + 7) // 8 * 8


def size_of(lengths: list[int]) -> int:
    *_, (_, end) = places(lengths)
    return end


def parts_of(value: object) -> list[memoryview]:
    """The pickle, and the buffers that do not lie in it."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [memoryview(pickled), *(buffer.raw() for buffer in buffers)]


def write(room: memoryview, parts: list[memoryview], lengths: list[int]) -> None:
    struct.pack_into(f"{1 + len(parts)}Q", room, 0, len(parts), *lengths)
    for part, (start, end) in zip(parts, places(lengths), strict=False):
        room[start:end] = part


def put(tx: Any, value: object) -> None:
    """Send an object. Its buffers are copied once, into the message."""
    parts = parts_of(value)
    lengths = [part.nbytes for part in parts]
    with tx.claim_blocking(size_of(lengths)) as room:
        write(room, parts, lengths)


def load(claim: Any) -> Any:
    """The object in a message. Its buffers are in the message still: release the claim when they are not used any more.

    Only for messages of processes that you started yourself: a pickle can run any code.
    """
    message = memoryview(claim)
    (count,) = NUMBER.unpack_from(message)
    lengths = list(struct.unpack_from(f"{count}Q", message, NUMBER.size))
    pickled, *buffers = (message[start:end] for start, end in itertools.islice(places(lengths), count))
    return pickle.loads(pickled, buffers=buffers)


# ---- in the workers ------------------------------------------------------------------------------------------------


def pairs(block: Any) -> Any:
    """How often each pair of neighbours occurs, of an array of bytes."""
    import numpy as np

    numbers = block[:-1].astype(np.uint16) << 8 | block[1:]
    return np.bincount(numbers, minlength=PAIRS)


def work(jobs: Ticket[spsc_bytes.Receiver], results: Ticket[mpsc_bytes.Sender]) -> None:
    """A worker, from beginning to end."""
    with attach(results) as tx, attach(jobs) as rx:
        for claim in rx:
            put(tx, answer(**load(claim)))


def answer(path: Path, block: Any) -> dict[str, Any]:
    """When it returns, nothing refers to the block in the message, so that the claim can be released."""
    return {"path": path, "pairs": pairs(block)}


# ---- in the main process -------------------------------------------------------------------------------------------


def blocks(paths: Iterable[Path], times: int) -> Iterator[dict[str, Any]]:
    """Each file in blocks, which overlap by a byte, so that no pair is lost between two."""
    import numpy as np

    for _ in range(times):
        for path in paths:
            content = np.fromfile(path, dtype=np.uint8)
            for start in range(0, max(1, len(content) - 1), BLOCK):
                yield {"path": path, "block": content[start : start + BLOCK + 1]}


def send_and_receive(
    jobs: Iterator[dict[str, Any]], senders: list[spsc_bytes.Sender], rx: mpsc_bytes.Receiver, found: dict[Path, Any]
) -> None:
    """Send each job to whichever worker has room for it first; take each result as it comes.

    Whoever only sends first and receives afterwards waits for ever, once the workers have no room for their results.
    """
    for job in jobs:
        parts = parts_of(job)
        lengths = [part.nbytes for part in parts]
        sent = False
        while not sent:
            done = select_blocking(rx, *(tx.claiming(size_of(lengths)) for tx in senders))
            if done.arm is rx:
                add(found, done.value)
            else:
                with done.value as room:
                    write(room, parts, lengths)
                sent = True
    for tx in senders:
        tx.close()  # a worker drains its channel, then sees the end
    while True:
        try:
            claim = rx.recv_blocking()
        except RecvError:
            return
        add(found, claim)


def count_in_pool(paths: list[Path], times: int, workers: int) -> dict[Path, Any]:
    """The counts of each file."""
    processes = multiprocessing.get_context("spawn")
    channels = [spsc_bytes.channel(ROOM, shared=True) for _ in range(workers)]
    tx, rx = mpsc_bytes.channel(ROOM, shared=True)
    started = [
        processes.Process(target=work, args=(jobs.share(), tx.clone().share()), daemon=True) for _, jobs in channels
    ]
    for process in started:
        process.start()
    tx.close()
    found: dict[Path, Any] = {}
    failed = False
    try:
        send_and_receive(blocks(paths, times), [tx for tx, _ in channels], rx, found)
    except (RecvError, SendError):  # a worker is gone, and the others would wait; or all are
        failed = True
        for process in started:
            process.terminate()
    for process in started:
        process.join()
    codes = [process.exitcode for process in started]
    if failed or any(codes):
        raise RuntimeError(f"a worker failed: their exit codes are {codes}")
    return found


def add(found: dict[Path, Any], claim: Any) -> None:
    """Of one block to those of its file, from where they lie in the message."""
    result = load(claim)
    if result["path"] in found:
        found[result["path"]] += result["pairs"]
    else:
        found[result["path"]] = result["pairs"].copy()  # the message goes
    del result  # the last views of the message
    claim.release()


def count_alone(paths: list[Path], times: int) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for job in blocks(paths, times):
        counted = pairs(job["block"])
        found[job["path"]] = found[job["path"]] + counted if job["path"] in found else counted
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="count the pairs of neighbouring bytes, in several processes")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--times", type=int, default=1, help="how often the files are repeated")
    parser.add_argument("--compare", action="store_true", help="count in this process too, and compare")
    options = parser.parse_args()
    if importlib.util.find_spec("numpy") is None:
        print("this needs numpy: pip install numpy", file=sys.stderr)
        return 2
    if options.workers < 1 or options.times < 1:
        parser.error("--workers and --times are at least 1")
    began = time.perf_counter()
    found = count_in_pool(options.files, options.times, options.workers)
    elapsed = time.perf_counter() - began
    total = sum(found.values())
    print(f"{int(total.sum()):,} pairs counted by {options.workers} processes in {elapsed:.2f} s")
    for pair in total.argsort()[-1:-4:-1].tolist():
        print(f"  {pair.to_bytes(2, 'big')!r}: {int(total[pair]):,}")
    if options.compare:
        began = time.perf_counter()
        alone = count_alone(options.files, options.times)
        elapsed_alone = time.perf_counter() - began
        if alone.keys() != found.keys() or any((alone[path] != found[path]).any() for path in alone):
            raise AssertionError("the processes and one alone do not agree")
        print(f"one process alone took {elapsed_alone:.2f} s and found the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
