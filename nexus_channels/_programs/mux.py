"""The log multiplexer behind `python -m nexus_channels mux`.

One thread a file reads lines and sends them into one `mpsc` channel; one task receives them and writes the
archive, each line behind the name of its source and a tab. When the archive is slow the channel fills up and
holds the readers back, so memory stays bounded by the capacity, whatever the size of the files.

With `in_bytes` the channel is of bytes and what goes through it are blocks of lines, tags and all, as they stand in
the archive: copied into the ring by the reader, written to the archive out of the ring. No object is made for a line.
"""

import asyncio
import os
import select
import signal
import stat
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .. import mpsc, mpsc_bytes
from ..errors import ClaimFull, Disconnected, RecvError

__all__ = ["Mux", "Source", "check_paths", "cut", "split_lines", "tagged", "tags"]

CHUNK = 1 << 16  # bytes read at once
BATCH = 1024  # lines received at once
PATIENCE = 0.2  # seconds between two looks at a followed file
HEAD = struct.Struct("=II")  # of a message in bytes: the number of its source, how many lines end in it
TOO_LONG = "a line is too long for the memory there is"


@dataclass(eq=False)
class Source:
    """One input, and what became of it."""

    path: str
    tag: bytes
    written: int = 0  # lines in the archive; the writer's
    held: int = 0  # how often the channel was full; the reader's, like the next
    error: str | None = None
    number: int = 0
    begun: bytearray = field(default_factory=bytearray)  # of a line that came in parts; the writer's, like the next
    given_up: bool = False

    @property
    def name(self) -> str:
        return self.tag.decode(errors="backslashreplace")


class Stop:
    """Asks every reader to finish. Readers can wait for it and for a pipe at once, so neither needs polling."""

    def __init__(self) -> None:
        self.requested = False
        self._read, self._write = os.pipe()

    def request(self) -> None:
        self.requested = True
        os.write(self._write, b"!")  # nobody reads it, so every waiting thread sees it; from a signal handler, too

    def wait(self, seconds: float | None = None, fd: int | None = None) -> bool:
        """Wait until the stop is requested, `fd` is readable or the time is over; true if it is requested."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)
        return self.requested

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


# ---- reading -------------------------------------------------------------------------------------------------------


def open_input(path: str) -> IO[bytes]:
    # Not blocking, so that a pipe nobody writes to yet can be waited for together with the stop.
    return open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def read_chunks(file: IO[bytes], stop: Stop) -> Iterator[bytes]:
    """What the file holds until its end or the stop."""
    may_wait = not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    while not stop.requested:
        if may_wait and stop.wait(fd=file.fileno()):
            return
        chunk = file.read(CHUNK)
        if chunk is None:  # the pipe was readable, and no longer is
            continue
        if not chunk:
            return
        yield chunk


def follow_chunks(path: str, stop: Stop) -> Iterator[bytes]:
    """What the file holds and will hold until the stop, as `tail -F`; b"" where one file ends and another begins.

    A file that is not there yet is waited for; one that was renamed or cut short is read anew. Growing files wake
    nobody in a portable way, hence the look at regular intervals.
    """
    found = False
    while not stop.requested:
        try:
            file = open_input(path)
        except FileNotFoundError:
            if stop.wait(PATIENCE) and not found:
                raise
            continue
        found = True
        with file:
            yield from read_chunks(file, stop)
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            yield from growth(file, path, stop)
        yield b""


def growth(file: IO[bytes], path: str, stop: Stop) -> Iterator[bytes]:
    """What a file that was read to its end still gets, until the stop or until another takes its place."""
    while not stop.wait(PATIENCE):
        if size(file) < file.tell():
            file.seek(0)
            yield b""
        gone = replaced(path, file)
        yield from read_chunks(file, stop)
        if gone:
            return
    # What was there when the stop came is read too; but no more, or a busy writer could keep us for ever.
    if missed := max(0, size(file) - file.tell()):
        yield file.read(missed)


def size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def replaced(path: str, file: IO[bytes]) -> bool:
    """True if the path leads to another file by now."""
    try:
        return not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False  # moved away; its writer may still go on until the new one is there


def split_lines(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The whole lines of each chunk, without their newline. A line that the end cuts short is a line too."""
    begun: list[bytes] = []
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join([*begun, whole[0]])
            begun.clear()
            yield whole
        if rest:
            begun.append(rest)
        if not chunk and begun:
            yield [b"".join(begun)]
            begun.clear()
    if begun:
        yield [b"".join(begun)]


def forward_lines(source: Source, tx: mpsc.Sender[tuple[Source, bytes]], chunks: Iterable[bytes]) -> None:
    for lines in split_lines(chunks):
        items = [(source, line) for line in lines]
        sent = tx.try_send_many(items)
        if sent < len(items):
            source.held += 1
            tx.send_many_blocking(items[sent:])


def tagged(chunks: Iterable[bytes], prefix: bytes) -> Iterator[bytes]:
    """The chunks as they will stand in the archive. A line that the end cuts short gets its newline."""
    ended = True
    for chunk in chunks:
        if chunk:
            text = chunk.replace(b"\n", b"\n" + prefix)
            if ended:
                text = prefix + text
            ended = chunk.endswith(b"\n")
            yield text[: -len(prefix)] if ended else text
        elif not ended:
            ended = True
            yield b"\n"
    if not ended:
        yield b"\n"


def cut(text: bytes, limit: int) -> Iterator[tuple[int, int, int]]:
    """The messages to send a text in, as (start, end, lines): each ends with a newline, or else has none in it."""
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + limit) + 1
        lines = text.count(b"\n", start, end) if end else 0
        end = end or min(start + limit, len(text))
        yield start, end, lines
        start = end


def forward_blocks(source: Source, tx: mpsc_bytes.Sender, chunks: Iterable[bytes]) -> None:
    # A message as large as the ring would have to wait until it is empty, and then fill it alone.
    largest = min(tx.max_message_size, max(tx.capacity // 4, 64 - HEAD.size))
    for text in tagged(chunks, source.tag + b"\t"):
        with memoryview(text) as whole:
            for start, end, lines in cut(text, largest - HEAD.size):
                size = HEAD.size + end - start
                try:
                    claim = tx.try_claim(size)
                except ClaimFull:
                    source.held += 1
                    claim = tx.claim_blocking(size)
                with claim as room:
                    HEAD.pack_into(room, 0, source.number, lines)
                    room[HEAD.size :] = whole[start:end]
        if source.given_up:
            return


def read_source(source: Source, tx: Any, stop: Stop, follow: bool, forward: Callable[..., None]) -> None:
    """The whole life of a reader thread."""
    with tx:
        try:
            chunks = follow_chunks(source.path, stop) if follow else once(source.path, stop)
            forward(source, tx, until_error(chunks, source))
        except Disconnected:
            pass  # the archive failed, and says so itself
        except MemoryError:
            source.error = TOO_LONG


def once(path: str, stop: Stop) -> Iterator[bytes]:
    with open_input(path) as file:
        yield from read_chunks(file, stop)


def until_error(chunks: Iterator[bytes], source: Source) -> Iterator[bytes]:
    """What was read before an error is kept; the error ends this source alone."""
    try:
        yield from chunks
    except OSError as error:
        source.error = reason(error)


def reason(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)


# ---- names ---------------------------------------------------------------------------------------------------------


def tags(paths: Iterable[str]) -> list[bytes]:
    """The shortest ends of the paths that tell them apart, usually the plain file names; no tab or newline in them."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    shared = Counter(whole[-depth:] for whole in parts for depth in range(1, len(whole) + 1))
    names = []
    for whole in parts:
        depth = next((d for d in range(1, len(whole)) if shared[whole[-d:]] == 1), len(whole))
        names.append(os.fsencode(os.path.join(*whole[-depth:])))
    return [name.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n") for name in names]


def check_paths(inputs: list[str], output: str) -> None:
    """Raise ValueError where an input is given twice, or would be overwritten."""
    for path, times in Counter(map(os.path.abspath, inputs)).items():
        if times > 1:
            raise ValueError(f"{path} is given {times} times")
    for path in inputs:
        if same_file(path, output):
            raise ValueError(f"{path} is both an input and the archive")


def same_file(path: str, other: str) -> bool:
    if os.path.realpath(path) == os.path.realpath(other):
        # A device or a pipe can be both; a file cannot, not even one that is yet to be made.
        return not os.path.exists(path) or os.path.isfile(path)
    try:
        return os.path.isfile(path) and os.path.samefile(path, other)
    except OSError:
        return False


# ---- the whole -----------------------------------------------------------------------------------------------------


class Mux:
    """Merges files into an archive; `run` does it, the rest tells how it went."""

    def __init__(
        self, paths: list[str], output: str, *, capacity: int, follow: bool = False, in_bytes: bool = False
    ) -> None:
        """`capacity` is in lines, or in bytes if the channel is one of bytes."""
        named = zip(paths, tags(paths), strict=True)
        self.sources = [Source(path, tag, number=number) for number, (path, tag) in enumerate(named)]
        self.output = output
        self.follow = follow
        self.seconds = 0.0
        self.signal: signal.Signals | None = None  # what ended it early, if anything did
        self._in_bytes = in_bytes
        self._tx: Any
        self._rx: Any
        self._tx, self._rx = mpsc_bytes.channel(capacity) if in_bytes else mpsc.channel(capacity)
        self._stop = Stop()

    def run(self, show_progress: Callable[[int], Any]) -> None:
        """Read, merge, write; OSError if the archive fails. SIGINT and SIGTERM end it with everything written that
        was read; a second one does what it always did. Errors of the sources are theirs to keep.

        `show_progress` is called with the number of bytes that were merged since the last call.
        """
        began = time.monotonic()
        # Plain handlers, not the loop's: they also run while the loop is stuck in a write to a slow archive.
        self._handlers = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            # No buffer: what has come in since the last write is written at once, however much it is, and closing
            # has nothing left to write that might fail or wait.
            with open(self.output, "wb", buffering=0) as archive:
                asyncio.run(self._run(archive, show_progress))
        finally:
            self._restore_handlers()
            self._stop.close()
            self.seconds = time.monotonic() - began

    def _interrupt(self, number: int, _frame: object) -> None:
        self._restore_handlers()
        self.signal = signal.Signals(number)
        self._stop.request()  # the readers finish, then the channel is at its end, then the archive is complete

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    async def _run(self, archive: IO[bytes], show_progress: Callable[[int], Any]) -> None:
        readers = self._start_readers()
        try:
            await (self._write_blocks if self._in_bytes else self._write_lines)(archive, show_progress)
        finally:
            self._rx.close()  # wakes readers that wait for room; after a clean end there are none
            self._stop.request()
            for reader in readers:
                reader.join()

    def _start_readers(self) -> list[threading.Thread]:
        readers = []
        forward = forward_blocks if self._in_bytes else forward_lines
        for source in self.sources:
            tx = self._tx.clone()
            arguments = (source, tx, self._stop, self.follow, forward)
            reader = threading.Thread(target=read_source, args=arguments, name=source.name)
            try:
                reader.start()
            except RuntimeError as error:  # no more threads to be had
                source.error = reason(error)
                tx.close()
            else:
                readers.append(reader)
        self._tx.close()  # from now on the readers alone keep the channel open
        return readers

    async def _write_lines(self, archive: IO[bytes], show_progress: Callable[[int], Any]) -> None:
        while True:
            try:
                batch = await self._rx.recv_many(BATCH)
            except RecvError:
                return
            pieces: list[bytes] = []
            for source, line in batch:
                pieces += (source.tag, b"\t", line, b"\n")
            write_all(archive, b"".join(pieces))
            for source, _ in batch:
                source.written += 1
            show_progress(sum(len(line) + 1 for _, line in batch))

    async def _write_blocks(self, archive: IO[bytes], show_progress: Callable[[int], Any]) -> None:
        async for claim in self._rx:
            with claim as message, message[HEAD.size :] as text:
                number, lines = HEAD.unpack_from(message)
                source = self.sources[number]
                if lines and not source.begun and not source.given_up:
                    write_all(archive, text)  # out of the ring
                else:
                    self._write_part(archive, source, text, lines)
                if not source.given_up:
                    source.written += lines
                show_progress(len(text) - lines * (len(source.tag) + 1))

    def _write_part(self, archive: IO[bytes], source: Source, text: memoryview, lines: int) -> None:
        """Keep the parts of a line until its last one is there: other sources' lines come between them."""
        if source.given_up:
            return
        try:
            source.begun += text
        except MemoryError:
            source.begun.clear()
            source.given_up = True
            source.error = TOO_LONG
        if lines:
            write_all(archive, source.begun)
            source.begun.clear()

    def total_size(self) -> int | None:
        """Bytes to merge, or None where that is not known beforehand."""
        try:
            states = [os.stat(source.path) for source in self.sources]
        except OSError:
            return None
        if self.follow or not all(stat.S_ISREG(state.st_mode) for state in states):
            return None
        return sum(state.st_size for state in states)

    def summary(self) -> str:
        """A table of the sources, and how fast it went."""
        lines = sum(source.written for source in self.sources)
        held = sum(source.held for source in self.sources)
        rows = [(source.name, f"{source.written:,}", f"{source.held:,}") for source in self.sources]
        rows = [("source", "lines", "held back"), *rows, ("total", f"{lines:,}", f"{held:,}")]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [f"{name:<{widths[0]}}  {n:>{widths[1]}}  {held:>{widths[2]}}" for name, n, held in rows]
        rate = lines / self.seconds if self.seconds else 0.0
        table.append(f"{lines:,} lines in {self.seconds:.2f} s, {rate:,.0f} lines/s")
        table.append(f"a full channel held readers back {held:,} times")
        return "\n".join(table)


def write_all(file: IO[bytes], data: bytes | bytearray | memoryview) -> None:
    done = 0
    with memoryview(data) as view:  # no part of it outlives the call: a view of a claim would keep its record
        while done < len(view):
            with view[done:] as rest:
                done += file.write(rest)


def progress_bar(total: int | None) -> Any:
    """A tqdm bar on standard error, or None where that is no terminal or tqdm is not installed."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="merging")
