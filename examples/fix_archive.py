"""FIX messages, parsed by several threads, archived by one, through a channel of bytes.

The parsers take the messages of a file in turn, verify BodyLength (9=), CheckSum (10=) and the standard header, and
copy each into the ring behind its sequence number of 8 bytes. The archiver appends the records to a file as it borrows
them; the file hands them to the system in batches, and whenever there is nothing left to do.

A record is the number and the message, nothing else: a message tells its own length and has its own checksum. So an
archive whose writer was killed can be read up to the record that was cut short; the next run takes that one off and
archives what is missing.

    python examples/fix_archive.py examples/data/session.fix archive.bin
    python examples/fix_archive.py --check archive.bin
"""

import argparse
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nexus_channels import Disconnected, Empty, RecvError, mpsc_bytes

SEQUENCE = struct.Struct("<Q")
BATCH = 1 << 16  # bytes handed to the system at once, if there are so many
BEGIN = re.compile(rb"8=FIX(?:\.4\.4|T\.1\.1)\x019=")  # FIX 5.0 and its service packs travel as FIXT.1.1
HEADER = re.compile(BEGIN.pattern + rb"(\d{1,6})\x01")
TRAILER = re.compile(rb"10=(\d{3})\x01")
TRAILER_SIZE = len(b"10=123\x01")

# A data field may hold any bytes, separators too; a length field in front of it says how many. These are all pairs of
# FIX 4.4, and of FIX 5.0 SP2 with its extension packs. The tag of most data fields is one more than that of the length:
LENGTHS = """
90 95 212 348 350 352 354 356 358 360 362 364 445 618 621 1184 1277 1280 1282 1397 1401 1403 1468 1578 1620 1664 1733
1871 1874 2072 2074 2111 2179 2287 2351 2481 2637 2651 2665 2715 2718 2721 2797 2971 40004 40008 40978 40980 40982
40984 40986 40988 41083 41101 41107 41256 41320 41324 41458 41476 41482 41653 41710 41806 41811 41873 41969 42025
42171 42451 42652 42947
"""
DATA = {b"%d" % length: b"%d" % (length + 1) for length in map(int, LENGTHS.split())}
DATA |= {b"93": b"89", b"1525": b"1527", b"1678": b"1697", b"2372": b"2371", b"2494": b"2493", b"2522": b"2521"}
DATA |= {b"2802": b"2801", b"2809": b"2808", b"2815": b"2814"}
DATA |= {b"43109": b"42684", b"43110": b"42486", b"43111": b"42982"}

REQUIRED = {b"35", b"49", b"56", b"34", b"52"}


class BadMessage(ValueError):
    pass


# ---- the messages --------------------------------------------------------------------------------------------------


def end_of_message(content: bytes | memoryview, start: int) -> int:
    """Where the message that starts there ends, by its BodyLength."""
    header = HEADER.match(content, start)
    if header is None:
        raise BadMessage("does not begin with BeginString and BodyLength")
    trailer = header.end() + int(header[1])
    if TRAILER.match(content, trailer) is None:
        raise BadMessage("BodyLength does not lead to a CheckSum")
    return trailer + TRAILER_SIZE


def fields(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(tag, value) of every field; those that hold data may have any bytes in them, also the separator."""
    at = 0
    size = {}  # of data that is to come
    while at < len(body):
        tag, equals, _ = body[at : at + 8].partition(b"=")
        start = at + len(tag) + 1
        end = start + size.pop(tag) if tag in size else body.find(b"\x01", start)
        if not equals or not tag.isdigit() or body[end : end + 1] != b"\x01":
            raise BadMessage(f"a broken field at byte {at} of the body")
        value = body[start:end]
        yield tag, value
        if tag in DATA:
            if not value.isdigit():
                raise BadMessage(f"the length in field {tag.decode()} is no number")
            size[DATA[tag]] = int(value)
        at = end + 1


def verify(message: memoryview) -> dict[bytes, bytes]:
    """The fields of the body (of groups, the last); BadMessage if anything is wrong with the message."""
    if end_of_message(message, 0) != len(message):
        raise BadMessage("there is more behind the CheckSum")
    stated = int(message[-4:-1])
    if stated != sum(message[:-TRAILER_SIZE]) % 256:
        raise BadMessage("wrong CheckSum")
    start = HEADER.match(message).end()  # type: ignore[union-attr]  # it was there a moment ago
    body = dict(fields(bytes(message[start:-TRAILER_SIZE])))
    if missing := REQUIRED - body.keys():
        raise BadMessage(f"without field {', '.join(sorted(tag.decode() for tag in missing))}")
    return body


class Tape:
    """The messages of a file, each to whichever thread comes next."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._lock = threading.Lock()
        self._at = 0
        self._sequence = 0
        self.rejected: list[tuple[int, str]] = []

    def take(self) -> tuple[int, memoryview] | None:
        """The next message and its number, counted from 0; None at the end."""
        with self._lock:
            while (begin := BEGIN.search(self._content, self._at)) is not None:
                start = begin.start()
                number = self._sequence
                self._sequence += 1
                try:
                    self._at = end_of_message(self._content, start)
                except BadMessage as error:
                    self._at = start + 1  # the length may be what is wrong: go on with the next that begins
                    self.reject(number, error)
                else:
                    # A view of its own: without the GIL, threads must not share one, nor slices of one.
                    return number, memoryview(self._content)[start : self._at]
            return None

    def reject(self, number: int, error: BadMessage) -> None:
        self.rejected.append((number, str(error)))


# ---- the archive ---------------------------------------------------------------------------------------------------


def records(content: bytes) -> Iterator[tuple[int, memoryview]]:
    """(sequence number, message) of every record, up to one that was cut short or is damaged."""
    view = memoryview(content)
    at = 0
    while at < len(content):
        start = at + SEQUENCE.size
        try:
            at = end_of_message(content, start)
            verify(view[start:at])
        except BadMessage:
            return
        yield *SEQUENCE.unpack_from(content, start - SEQUENCE.size), view[start:at]


def recover(path: Path) -> set[int]:
    """Take off what was cut short; returns the numbers of what is there."""
    if not path.exists():
        return set()
    numbers = set()
    whole = 0
    for number, message in records(path.read_bytes()):
        numbers.add(number)
        whole += SEQUENCE.size + len(message)
    os.truncate(path, whole)
    return numbers


def parse(tape: Tape, tx: mpsc_bytes.Sender, done: set[int]) -> None:
    """A parser thread."""
    with tx:
        while (taken := tape.take()) is not None:
            number, message = taken
            if number in done:
                continue
            try:
                verify(message)
            except BadMessage as error:
                tape.reject(number, error)
                continue
            try:
                with tx.claim_blocking(SEQUENCE.size + len(message)) as slot:
                    SEQUENCE.pack_into(slot, 0, number)
                    slot[SEQUENCE.size :] = message
            except Disconnected:
                return  # the archive failed, and says so itself


def append(rx: mpsc_bytes.Receiver, path: Path) -> int:
    """The archiver thread; returns how many records it wrote."""
    count = 0
    with rx, open(path, "ab", buffering=BATCH) as file:
        while True:
            try:
                try:
                    claim = rx.try_recv()
                except Empty:
                    file.flush()  # nothing to do but this
                    claim = rx.recv_blocking()
            except RecvError:
                return count
            with claim as record:
                file.write(record)
            count += 1


def archive(source: Path, path: Path, threads: int, capacity: int) -> tuple[int, list[tuple[int, str]]]:
    """Bring the archive up to date; returns how many records were added, and what was not fit to be."""
    tape = Tape(source)
    done = recover(path)
    tx, rx = mpsc_bytes.channel(capacity)
    with ThreadPoolExecutor(threads + 1) as pool:
        archiver = pool.submit(append, rx, path)
        parsers = [pool.submit(parse, tape, tx.clone(), done) for _ in range(threads)]
        tx.close()  # from now on the parsers alone keep the channel open
        for parser in parsers:
            parser.result()
    return archiver.result(), sorted(tape.rejected)


def check(path: Path) -> int:
    content = path.read_bytes()
    count = whole = 0
    for _, message in records(content):
        count += 1
        whole += SEQUENCE.size + len(message)
    print(f"{count:,} records, {whole:,} bytes; {len(content) - whole:,} bytes of a record that was cut short")
    return 0 if whole == len(content) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", type=Path, nargs="?", metavar="SESSION", help="FIX 4.4 or 5.0 messages, one after another"
    )
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="what to append to")
    parser.add_argument("--check", action="store_true", help="read an archive, and tell how much of it is whole")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="parsers (%(default)s)")
    parser.add_argument("--capacity", type=int, default=BATCH, metavar="N", help="bytes of the ring (%(default)s)")
    options = parser.parse_args()
    if options.check:
        return check(options.archive)
    if options.source is None:
        parser.error("give a session to archive, or --check")

    began = time.perf_counter()
    try:
        count, rejected = archive(options.source, options.archive, options.threads, options.capacity)
    except OSError as error:
        print(f"cannot archive: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - began
    for number, reason in rejected:
        print(f"message {number} rejected: {reason}", file=sys.stderr)
    print(f"{count:,} messages archived in {seconds:.2f} s, {len(rejected):,} rejected")
    return 1 if rejected else 0


if __name__ == "__main__":
    sys.exit(main())
