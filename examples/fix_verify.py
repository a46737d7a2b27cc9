"""FIX messages, verified by a pool of workers, each in an interpreter of its own, on as many processors.

Threads of one interpreter take turns, as one of them at a time runs Python. Interpreters that have a GIL each do not.
The main thread cuts the file into messages and sends each to the next worker, through a channel of bytes for each. The
workers verify what they receive in place, as fix_archive.py does, and send what is wrong back through one channel that
they all share. An end of a channel goes to its worker as a ticket.

Needs CPython 3.12 or later: from then on interpreters have a GIL of their own.

    python examples/fix_verify.py examples/data/session.fix
    python examples/fix_verify.py --workers 2 --times 25 --compare examples/data/session.fix
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fix_archive import SEQUENCE, BadMessage, Tape, verify

from nexus_channels import Closed, Ticket, mpsc_bytes, spsc_bytes

ROOM = 1 << 18  # bytes for each worker, so that it has work while the main thread does something else
READY, GOOD = 2**64 - 2, 2**64 - 1  # in place of a number: a worker is there; so many messages were as they should be

# What runs in each interpreter. `folder`, `messages` and `verdicts` are put there before: two tickets, as bytes.
WORKER = """
import sys

if sys.version_info < (3, 13):  # the first releases of 3.12 do not bear ssl, of asyncio's, in two interpreters
    sys.modules["ssl"] = sys.modules["_ssl"] = None
sys.path.insert(0, folder)
from fix_archive import SEQUENCE, BadMessage, verify
from fix_verify import GOOD, READY
from nexus_channels import attach

good = 0
with attach(verdicts) as tx, attach(messages) as rx:
    tx.send_blocking(SEQUENCE.pack(READY))
    for claim in rx:
        with memoryview(claim) as record, record[SEQUENCE.size :] as message:
            try:
                verify(message)
            except BadMessage as error:
                tx.send_blocking(bytes(record[: SEQUENCE.size]) + str(error).encode())
            else:
                good += 1
    tx.send_blocking(SEQUENCE.pack(GOOD) + b"%d" % good)
"""


# ---- interpreters ----------------------------------------------------------------------------------------------------


@contextmanager
def interpreter() -> Iterator[Callable[[str], None]]:
    """A new one: a function that runs source code there.  Its own interface came with 3.14."""
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        new = interpreters.create()
        try:
            yield new.exec
        finally:
            new.close()
        return
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    inside: Any = importlib.import_module(name)
    number = inside.create()

    def run(source: str) -> None:
        failed = (inside.exec if sys.version_info >= (3, 13) else inside.run_string)(number, source)
        if failed is not None:
            raise RuntimeError(failed.errdisplay)

    try:
        yield run
    finally:
        inside.destroy(number)


def work(messages: Ticket[spsc_bytes.Receiver], verdicts: Ticket[mpsc_bytes.Sender]) -> None:
    """A worker, from beginning to end, in a thread that lends it its time."""
    folder = os.path.dirname(os.path.abspath(__file__))
    given = {
        "folder": folder,
        "messages": bytes(messages),
        "verdicts": bytes(verdicts),
    }  # the tickets are kept meanwhile
    with interpreter() as run:
        run("".join(f"{name} = {value!r}\n" for name, value in given.items()) + WORKER)


# ---- the pool --------------------------------------------------------------------------------------------------------


def feed(tape: Tape, senders: list[spsc_bytes.Sender]) -> int:
    """Every message to the next worker; returns how many there were."""
    sent = 0
    while (taken := tape.take()) is not None:
        number, message = taken
        with senders[sent % len(senders)].claim_blocking(SEQUENCE.size + len(message)) as room:
            SEQUENCE.pack_into(room, 0, number)
            room[SEQUENCE.size :] = message
        sent += 1
    return sent


def close_all(senders: list[spsc_bytes.Sender]) -> None:
    for sender in senders:
        sender.close()


def collect(rx: mpsc_bytes.Receiver) -> tuple[int, list[tuple[int, str]]]:
    """How many messages were good, and what is wrong with the others."""
    good, bad = 0, []
    for claim in rx:
        record = bytes(claim)
        (number,) = SEQUENCE.unpack_from(record)
        if number == GOOD:
            good += int(record[SEQUENCE.size :])
        else:
            bad.append((number, record[SEQUENCE.size :].decode()))
    return good, sorted(bad)


def verify_in_pool(tape: Tape, workers: int) -> tuple[int, list[tuple[int, str]], float]:
    """Good ones, bad ones, and the seconds from the first message to the last verdict, once all workers are there."""
    channels = [spsc_bytes.channel(ROOM) for _ in range(workers)]
    senders = [tx for tx, _ in channels]
    tx, rx = mpsc_bytes.channel(ROOM)
    with ThreadPoolExecutor(workers + 1) as threads:
        running = [threads.submit(work, messages.share(), tx.clone().share()) for _, messages in channels]
        for one in running:
            one.add_done_callback(lambda done: done.exception() and rx.close())  # without it, the others are of no use
        tx.close()
        try:
            for _ in running:
                rx.recv_bytes_blocking()  # READY
            collecting = threads.submit(collect, rx)
            began = time.perf_counter()
            feed(tape, senders)
            close_all(senders)  # a worker drains its channel, then sees the end
            good, bad = collecting.result()
            elapsed = time.perf_counter() - began
        except Closed:
            close_all(senders)  # a worker failed, and its error is raised below
        for one in running:
            one.result()
    return good, bad, elapsed


def verify_alone(tape: Tape) -> tuple[int, list[tuple[int, str]], float]:
    """The same in this thread."""
    good, bad, began = 0, [], time.perf_counter()
    while (taken := tape.take()) is not None:
        try:
            verify(taken[1])
            good += 1
        except BadMessage as error:
            bad.append((taken[0], str(error)))
    return good, sorted(bad), time.perf_counter() - began


# ---- the program -----------------------------------------------------------------------------------------------------


class LongTape(Tape):
    """A session that is repeated."""

    def __init__(self, path: Path, times: int) -> None:
        super().__init__(path)
        self._content *= times


def main() -> int:
    parser = argparse.ArgumentParser(description="verify FIX messages, in an interpreter for each processor")
    parser.add_argument("session", type=Path, help="a file of FIX messages")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many interpreters")
    parser.add_argument("--times", type=int, default=1, help="how often the session is repeated")
    parser.add_argument("--compare", action="store_true", help="verify it in this interpreter too, and compare")
    options = parser.parse_args()
    if sys.version_info < (3, 12):
        print("this needs CPython 3.12 or later, whose interpreters have a GIL of their own", file=sys.stderr)
        return 2
    if options.workers < 1 or options.times < 1:
        parser.error("--workers and --times are at least 1")
    tape = LongTape(options.session, options.times)
    good, bad, elapsed = verify_in_pool(tape, options.workers)
    bad += tape.rejected
    print(f"{good:,} messages verified by {options.workers} interpreters in {elapsed:.2f} s, {len(bad)} rejected")
    for number, why in bad[:10]:
        print(f"  message {number}: {why}")
    if options.compare:
        again = LongTape(options.session, options.times)
        good_alone, bad_alone, alone = verify_alone(again)
        if (good_alone, bad_alone + again.rejected) != (good, bad):
            raise AssertionError("the pool and one interpreter do not agree")
        print(f"one interpreter alone took {alone:.2f} s: the pool was {alone / elapsed:.1f} times as fast")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
