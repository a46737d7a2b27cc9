"""The readers, the channel and the writer.

One thread a file reads lines and sends them into one `mpsc` channel; one task receives them and writes the
archive, each line behind the name of its source and a tab. When the archive is slow the channel fills up and
holds the readers back, so memory stays bounded by the capacity, whatever the size of the files.

With `in_bytes` the channel is of bytes and what goes through it are blocks of lines, tags and all, as they stand in
the archive: copied into the ring by the reader, written to the archive out of the ring. No object is made for a line.
"""

import asyncio
import contextlib
import gc
import os
import signal
import stat
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, Self

from ... import mpsc, mpsc_bytes
from ...errors import ClaimFull, Disconnected, RecvError
from .archive import Archive, Refused
from .files import Account, Follower, Pool, read_once, reason, size_of
from .lines import CHUNK, cut, tagged
from .names import STANDARD, tags
from .watch import PATIENCE, Stop, Watch

__all__ = ["Label", "Mux", "Source"]

LONG_LINES = 16  # of more than CHUNK bytes, that are on their way at once
SHORT_LINES = 4096  # made ready to be sent at once
BATCH = 1024  # lines received at once
HEAD = struct.Struct("=II")  # of a message in bytes: the number of its label, how many lines end in it
STACK = 1 << 19  # bytes for each reader's stack; the usual 8 MiB would be most of a limited address space
COLLECT_AFTER = 50_000  # new objects; see collecting_rarely
GRACE = 10.0  # seconds that readers have to end, once nothing is received any more
NO_MEMORY = "not enough memory for what was read"


class GivenUp(Exception):
    """The writer takes no more lines of this source."""


class Budget:
    """Bounds the memory of long lines: the channel counts lines, and a thousand of the longest would be a gigabyte."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(LONG_LINES)
        self._lock = threading.Lock()
        self._taken = 0
        self._over = False

    def take(self) -> None:
        """Wait until there is room for another long line."""
        if not self._over:
            self._free.acquire()
        with self._lock:
            self._taken += 1

    def give_back(self, batch: list[tuple["Label", bytes]]) -> None:
        """These were written."""
        if self._taken and (count := sum(len(line) > CHUNK for _, line in batch)):
            with self._lock:
                self._taken -= count
            self._free.release(count)

    def end(self, readers: int) -> None:
        """Nothing is received any more; none of so many readers must wait."""
        self._over = True
        self._free.release(readers)


class Label:
    """What stands in front of a line in the archive, and how many such lines there are."""

    def __init__(self, number: int, source: "Source", prefix: bytes) -> None:
        self.number = number
        self.source = source
        self.prefix = prefix
        self.written = 0  # the writer's, like the next
        self.begun = bytearray()  # of a line that came in several messages


class Source:
    """One input, and what became of it."""

    def __init__(self, number: int, path: str, tag: bytes, say: Callable[[str], None]) -> None:
        self.path = path
        self.tag = tag
        self.account = Account(path, say)
        self.whole = Label(2 * number, self, tag + b"\t")
        # No tag ends like this, as a backslash in a name is doubled: the line goes on in the next one of this source.
        self.part = Label(2 * number + 1, self, tag + b"\\+\t")
        self.read = 0  # lines; the reader's, like the next two
        self.parts = 0
        self.held = 0  # how often the channel was full
        self.begun = False  # its reader was started
        self.given_up = False  # the writer's

    @property
    def name(self) -> str:
        return self.tag.decode(errors="backslashreplace")


class Mux:
    """Merges files into an archive; `run` does it, the rest tells how it went."""

    def __init__(
        self,
        paths: list[str],
        output: str,
        *,
        capacity: int,
        follow: bool = False,
        in_bytes: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`capacity` is in lines, or in bytes if the channel is one of bytes. Any thread may call `say`."""
        named = zip(paths, tags(paths), strict=True)
        self.sources = [Source(number, path, tag, say) for number, (path, tag) in enumerate(named)]
        self.output = output
        self.follow = follow
        self.seconds = 0.0
        self.signal: signal.Signals | None = None  # what ended it early, if anything did
        self.forced = False  # the same signal came again: what was read is not all written
        self.failure: OSError | None = None  # of the archive
        self.reopened = 0
        self._say = say
        self._in_bytes = in_bytes
        self._tx: Any
        self._rx: Any
        self._tx, self._rx = mpsc_bytes.channel(capacity) if in_bytes else mpsc.channel(capacity)
        self._labels: list[Label] = [label for source in self.sources for label in (source.whole, source.part)]
        self._archive = Archive(output)
        self._budget = Budget()
        self._stop = Stop()
        self._pool = Pool(lambda: self._archive.identity)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._reopen_wanted = False
        self._reopen_trouble: str | None = None
        self._opening = False
        self._handlers: dict[int, Any] = {}
        self._had_terminal = False

    # -- the whole

    def __enter__(self) -> Self:
        """From now on signals end it; until the block ends, so that the summary is told, too."""
        self._had_terminal = has_terminal()
        self._take_signals()
        return self

    def __exit__(self, *_: object) -> None:
        with signals_held():
            for number, handler in self._handlers.items():
                if handler is not None:  # else it was set by native code, and cannot be set again
                    signal.signal(number, handler)

    def run(self, show_progress: Callable[[int], Any] = lambda count: None) -> None:
        """Read, merge, write. Inside its `with` block SIGINT and SIGTERM end it with everything written that was read;
        the same one again ends it at once; SIGHUP opens the archive anew. Errors are told, and kept here.

        `show_progress` is called with the number of bytes that were merged since the last call.
        """
        began = time.monotonic()
        try:
            with collecting_rarely():
                self._write_archive(show_progress)
        except OSError as error:
            self.failure = self.failure or error
        except (KeyboardInterrupt, asyncio.CancelledError):
            pass  # as asked for: nothing was opened yet, or it was said twice
        finally:
            self._stop.close()
            for source in self.sources:
                source.account.unread += 0 if source.begun else size_of(source.path)
            self.seconds = time.monotonic() - began

    def _write_archive(self, show_progress: Callable[[int], Any]) -> None:
        self._opening = True
        if self._stop.requested:
            return
        self._archive.open()  # a pipe waits here for its reader
        self._opening = False
        try:
            check_descriptors(4)
            # The loop takes its descriptors before readers take all that there are.
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                wake_by_signals(self._loop)
                try:
                    runner.run(self._run(show_progress))
                finally:
                    self._loop = None
        finally:
            self._archive.close()

    async def _run(self, show_progress: Callable[[int], Any]) -> None:
        self._task = asyncio.current_task()
        readers: list[threading.Thread] = []
        watch = Watch(self._stop) if self.follow else None
        # Once the writer waits: its wake-up takes a descriptor, too.
        asyncio.get_running_loop().call_soon(self._start_readers, readers, watch)
        try:
            await (self._write_blocks if self._in_bytes else self._write_lines)(show_progress)
        except Refused as refused:
            if not self.forced:
                self.failure = refused.error
        finally:
            self._task = None
            self._rx.close()  # wakes readers that wait for room; after a clean end there are none
            self._budget.end(len(self.sources))
            self._tx.close()
            self._stop.request()
            end = time.monotonic() + GRACE
            for reader in readers:
                reader.join(max(0.0, end - time.monotonic()))  # one that hangs in a network file system is left behind
            if watch is not None:
                watch.close()

    # -- signals

    def _take_signals(self) -> None:
        # Plain handlers, not the loop's: they also run while the loop is stuck in a write to a slow archive.
        wanted: list[tuple[int, Callable[..., None]]] = [
            (signal.SIGINT, self._interrupt),
            (signal.SIGTERM, self._interrupt),
        ]
        if self.output != STANDARD:
            wanted.append((signal.SIGHUP, self._hang_up))
        if threading.current_thread() is not threading.main_thread():
            return  # nobody may set handlers elsewhere
        self._handlers[signal.SIGURG] = signal.getsignal(signal.SIGURG)  # the loop's for a while, see wake_by_signals
        with signals_held():
            for number, handler in wanted:
                if signal.getsignal(number) != signal.SIG_IGN:  # else somebody wants it ignored: nohup, a shell's &
                    self._handlers[number] = signal.signal(number, handler)

    def _interrupt(self, number: int, _frame: object) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            self._stop.request()  # the readers finish, then the channel is at its end, then the archive is complete
            if self._opening:
                raise KeyboardInterrupt
        elif self.signal == number:  # another one after the first says nothing new
            self.forced = True
            self._archive.give_up()
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _hang_up(self, number: int, frame: object) -> None:
        if self._had_terminal and not has_terminal():
            self._interrupt(number, frame)  # no rotation: its terminal is gone
            return
        self._reopen_wanted = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._reopen)  # also if nothing comes to be written

    def _reopen(self, again: bool = False) -> None:
        if not (again or self._reopen_wanted):
            return
        self._reopen_wanted = False
        try:
            self._archive.reopen()
        except OSError as error:
            self._pool.is_short(error)  # the readers give up what they can spare
            if reason(error) != self._reopen_trouble:
                self._reopen_trouble = reason(error)
                self._say(f"cannot open {self.output} again: {self._reopen_trouble}; writing on to the old file")
            if self._loop is not None:
                self._loop.call_later(PATIENCE, self._reopen, True)
        else:
            self._reopen_trouble = None
            self.reopened += 1

    # -- readers

    def _start_readers(self, readers: list[threading.Thread], watch: Watch | None) -> None:
        usual = threading.stack_size(STACK)
        try:
            if watch is not None:
                watch.start()
            for source in self.sources:
                tx = self._tx.clone()
                reader = threading.Thread(
                    target=self._read_source, args=(source, tx, watch), name=source.name, daemon=True
                )
                try:
                    reader.start()
                except RuntimeError as error:  # no more threads to be had
                    source.account.error(f"cannot read {source.path}: {reason(error)}")
                    tx.close()
                else:
                    source.begun = True
                    readers.append(reader)
        finally:
            threading.stack_size(usual)
            self._tx.close()  # from now on the readers alone keep the channel open

    def _read_source(self, source: Source, tx: Any, watch: Watch | None) -> None:
        """The whole life of a reader thread."""
        with tx:
            emit = partial(emit_blocks, source, tx) if self._in_bytes else partial(emit_lines, source, tx, self._budget)
            try:
                if watch is None:
                    read_once(source.path, source.account, self._pool, self._stop, emit)
                else:
                    Follower(source.path, source.account, self._pool, self._stop, watch, emit).run()
            except (Disconnected, GivenUp):
                pass  # whoever caused it has told
            except MemoryError:
                source.account.error(f"{source.path}: {NO_MEMORY}")

    # -- the writer

    async def _write_lines(self, show_progress: Callable[[int], Any]) -> None:
        while True:
            try:
                batch = await self._rx.recv_many(BATCH)
            except RecvError:
                return
            self._write_batch(batch)
            show_progress(sum(len(line) + 1 for _, line in batch))

    def _write_batch(self, batch: list[tuple[Label, bytes]]) -> None:
        """A function of its own, so that the text is freed before the next one is made: two at once would have the
        allocator take memory from the system and give it back again and again."""
        pieces: list[bytes] = []
        for label, line in batch:
            pieces += (label.prefix, line, b"\n")
        text = b"".join(pieces)
        try:
            self._write(text)
        except Refused as refused:
            for label, _ in batch[: text.count(b"\n", 0, refused.whole)]:
                label.written += 1
            raise
        for label, _ in batch:
            label.written += 1
        self._budget.give_back(batch)

    async def _write_blocks(self, show_progress: Callable[[int], Any]) -> None:
        number: int
        lines: int
        async for claim in self._rx:
            with claim as message, message[HEAD.size :] as text:
                number, lines = HEAD.unpack_from(message)
                label = self._labels[number]
                if lines and not label.begun and not label.source.given_up:
                    self._write_counted(label, text, lines)  # out of the ring
                else:
                    self._write_begun(label, text, lines)
                show_progress(len(text) - lines * len(label.prefix))

    def _write_begun(self, label: Label, text: memoryview, lines: int) -> None:
        """Keep the beginning of a line until its end is there: other sources' lines come between them."""
        if label.source.given_up:
            return
        try:
            label.begun += text
        except MemoryError:
            label.begun.clear()
            label.source.given_up = True
            label.source.account.error(f"{label.source.path}: {NO_MEMORY}")
        if lines and not label.source.given_up:
            self._write_counted(label, label.begun, lines)
            label.begun.clear()

    def _write_counted(self, label: Label, text: bytearray | memoryview, lines: int) -> None:
        try:
            self._write(text)
        except Refused as refused:
            label.written += bytes(text[: refused.whole]).count(b"\n")
            raise
        label.written += lines

    def _write(self, text: bytes | bytearray | memoryview) -> None:
        if self._reopen_wanted:
            self._reopen()
        self._archive.write(text)

    def total_size(self) -> int | None:
        """Bytes to merge, or None where that is not known beforehand."""
        try:
            states = [os.stat(source.path) for source in self.sources]
        except OSError:
            return None
        if self.follow or not all(stat.S_ISREG(state.st_mode) for state in states):
            return None
        return sum(state.st_size for state in states)


# ---- from the reader into the channel ------------------------------------------------------------------------------


def emit_lines(
    source: Source, tx: mpsc.Sender[tuple[Label, bytes]], budget: Budget, text: bytes, begin: int, whole: bool
) -> None:
    for items in batches(source, text, begin, whole):
        if len(items[0][1]) > CHUNK:  # the first alone can be as long: the others came in one chunk
            budget.take()
        sent = tx.try_send_many(items)
        if sent < len(items):
            source.held += 1
            tx.send_many_blocking(items[sent:])


def batches(source: Source, text: bytes, begin: int, whole: bool) -> Iterator[list[tuple[Label, bytes]]]:
    """(label, line) in lists that are not too long: a pair takes more memory than a short line."""
    if not whole:
        source.parts += 1
        yield [(source.part, text)]
        return
    lines = text.split(b"\n")
    del lines[-1]  # behind the last newline
    del lines[: text.count(b"\n", 0, begin)]  # emitted before
    source.read += len(lines)
    label = source.whole
    if len(lines) <= SHORT_LINES:
        yield [(label, line) for line in lines]
        return
    for start in range(0, len(lines), SHORT_LINES):
        yield [(label, line) for line in lines[start : start + SHORT_LINES]]


def emit_blocks(source: Source, tx: mpsc_bytes.Sender, text: bytes, begin: int, whole: bool) -> None:
    if source.given_up:
        raise GivenUp
    label = source.whole if whole else source.part
    if whole:
        text = text[begin : text.rfind(b"\n") + 1]
    else:
        source.parts += 1
        text += b"\n"
    # A message as large as the ring would have to wait until it is empty, and then fill it alone.
    largest = min(tx.max_message_size, max(tx.capacity // 4, 64 - HEAD.size))
    block = tagged(text, label.prefix)
    count = (len(block) - len(text)) // len(label.prefix)
    if whole:
        source.read += count
    with memoryview(block) as view:
        for start, end, lines in cut(block, largest - HEAD.size, count):
            size = HEAD.size + end - start
            try:
                claim = tx.try_claim(size)
            except ClaimFull:
                source.held += 1
                claim = tx.claim_blocking(size)
            with claim as room:
                HEAD.pack_into(room, 0, label.number, lines)
                room[HEAD.size :] = view[start:end]


@contextlib.contextmanager
def collecting_rarely() -> Generator[None, None, None]:
    """Have the garbage collector look at objects less often.

    Each line on its way is a new tuple, and the usual 700 of them are one chunk of one reader: for each chunk it would
    look at what all the others have read. Lines never hold each other in a circle.
    """
    usual = gc.get_threshold()
    if usual[0]:  # else it is off
        gc.set_threshold(max(COLLECT_AFTER, usual[0]), *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextlib.contextmanager
def signals_held() -> Generator[None]:
    """Signals to this thread, then mostly the only one, wait until the block ends: CPython loses one that comes while
    its handler is being set."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wake_by_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Have every signal wake the loop.

    Python runs a handler in the main thread only. If the signal reaches another thread, or comes just before the loop
    waits, nothing ends that wait. A loop that handles one signal itself has Python write all of them to the pipe that
    wakes the loop, and this pipe is there already.
    """
    if threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGURG, lambda: None)  # ignored by default, so nobody misses it


def check_descriptors(count: int) -> None:
    """OSError unless so many can be had. An event loop that gets too few leaves a traceback behind."""
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - those that were had are given back
    finally:
        for fd in taken:
            os.close(fd)


def has_terminal() -> bool:
    """Is there a terminal that controls this process?"""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
