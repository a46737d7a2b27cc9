"""Reading: files to their end, or as `tail -F` follows them through every kind of rotation; pipes to their end.

A reader is one thread. It hands what it reads to `emit`, whole lines or a part of a line, and keeps its source's
account: what was read, what was left, what went wrong. Nothing is read twice and nothing silently left out:

* A file is known by its device and inode number. While it is open no other file can get these numbers.
* The bytes in front of the place that was read last are remembered, and compared with every read. A file that was cut
  and filled again is found by that, however long it has become.
* A file that lost its name to another one is read on, beside the new one, until nothing was added for a while: its
  writer may not have noticed yet.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .lines import CHUNK, Lines
from .names import STANDARD
from .watch import PATIENCE, SAFETY, Stop, Waiter, Watch

__all__ = ["Account", "Emit", "Follower", "Pool", "read_once", "reason", "size_of"]

WINDOW = 1024  # bytes in front of the place read last that are remembered, and compared where a file seems to end
NEAR = 128  # the last of them, which are compared with every chunk
LINGER = 5.0  # seconds without growth after which a file that was renamed or removed is given up
SPARE_AFTER = 0.5  # the same where descriptors are short
LAST = 1 << 20  # bytes of a followed file that are still read after the stop; of more than that, none
IN_ONE_GO = 64  # chunks that are read between two looks at the name
MISSING = os.strerror(errno.ENOENT)
SHORT = (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE))
OLD_FILES = 4  # renamed or removed files that one reader holds open at most
KEPT = 100  # errors of a source that are kept; all are counted
PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")  # made of an older file, not written by the program

# Takes (text, where whole lines begin in it, True), or (a part of a line, 0, False): what Lines.add gives.
Emit = Callable[[bytes, int, bool], None]


@dataclass(eq=False)
class Account:
    """What became of one source; written by its reader."""

    path: str
    say: Callable[[str], None]
    unread: int = 0  # bytes
    failed: bool = False  # something of it is known to be missing
    errors: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  # (time, text), the first ones
    error_count: int = 0
    trouble: str | None = None  # why it cannot be read just now

    def error(self, text: str, failed: bool = True) -> None:
        """Report it, and keep it for the summary."""
        self.failed = self.failed or failed
        self.error_count += 1
        if len(self.errors) < KEPT:
            self.errors.append((time.time(), text))
        self.say(text)

    def in_trouble(self, text: str) -> None:
        """It cannot be read now, and will be tried again: reported once, until something else is the matter."""
        if text != self.trouble:
            self.trouble = text
            self.error(f"cannot read {self.path}: {text}; trying again", failed=False)

    def out_of_trouble(self) -> None:
        if self.trouble is not None:
            self.say(f"{self.path} can be read now")
            self.trouble = None

    def wait_for(self) -> None:
        """There is no such file yet: said once."""
        if self.trouble != MISSING:
            self.trouble = MISSING
            self.say(f"waiting for {self.path}")


class Pool:
    """The descriptors that all readers share, and the file that none of them may read."""

    def __init__(self, forbidden: Callable[[], tuple[int, int] | None] = lambda: None) -> None:
        self._forbidden = forbidden
        self._lock = threading.Lock()
        self._open = 0
        self.shortages = 0  # how often there was no descriptor

    def open(self, path: str, instead: int | None = None) -> int:
        """A descriptor to read; OSError. With `instead` that one is closed first, and nobody else gets its place."""
        with self._lock:
            if instead is not None:
                self._open -= 1
                os.close(instead)
            fd = self._opened(path)
            self._open += 1
        return fd

    def _opened(self, path: str) -> int:
        # Not blocking, so that a pipe nobody writes to yet can be waited for together with the stop. Standard input is
        # left as it is: the terminal or pipe may be shared.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.dup(0) if path == STANDARD else os.open(path, flags)
        try:
            state = os.fstat(fd)
            if stat.S_ISDIR(state.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if (state.st_dev, state.st_ino) == self._forbidden():
                raise OSError(errno.ELOOP, "it is the archive")
        except OSError:
            os.close(fd)
            raise
        return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open -= 1
        os.close(fd)

    def is_short(self, error: OSError) -> bool:
        """No descriptor was to be had; the others are asked to give up what they can spare."""
        short = error.errno in (errno.EMFILE, errno.ENFILE)
        if short:
            self.shortages += 1  # a lost count does no harm
        return short

    @property
    def in_use(self) -> bool:
        return self._open > 0


class Cut(Exception):
    """The file was cut, and perhaps filled again, since it was read last."""


class Input:
    """A regular file that is open, and how far it was read."""

    def __init__(self, fd: int) -> None:
        state = os.fstat(fd)
        self.fd = fd
        self.identity = (state.st_dev, state.st_ino)
        self.lines = Lines()
        self.position = 0
        self.size = state.st_size  # when it was opened
        self.end = 0  # its size when it was read to its end
        self.grew = time.monotonic()  # when something was read last, or when it lost its name
        self.done = False  # everything of it was handed on
        self.caught_up = False  # was read to its end at least once
        self.has_size = True
        self._seen = b""  # the last bytes in front of the position

    def read(self, emit: Emit) -> bool:
        """Hand on what comes next; false at the end. Cut or OSError."""
        # One call for both: each lets go of the GIL, and with many readers that costs more than to copy.
        window = self._seen[-NEAR:] if self.has_size else b""
        data = os.pread(self.fd, len(window) + CHUNK, self.position - len(window))
        count = max(0, len(data) - len(window))
        if count < CHUNK or not data.startswith(window):
            size = os.fstat(self.fd).st_size
            self._check(size)
            if not count:
                self.caught_up = True
                self.end = size
                return False
        self.position += count
        self._seen = data[-WINDOW:]
        self.grew = time.monotonic()
        for text, begin, whole in self.lines.add(data, len(window)):
            emit(text, begin, whole)
        return True

    def _check(self, size: int) -> None:
        """Cut, if what was read is not there any more. Looked at after the chunk was read: it was not cut before."""
        if not self.has_size or self.position == 0:
            return
        if size >= self.position:
            if os.pread(self.fd, len(self._seen), self.position - len(self._seen)) != self._seen:
                raise Cut
            return
        # A file as in /proc has no size, and yet there is something in it.
        self.has_size = size > 0 or not os.pread(self.fd, 1, 0) or os.fstat(self.fd).st_size > 0
        if self.has_size:
            raise Cut

    def resume(self, other: "Input") -> None:
        """Go on where the other one, which was the same file, ended; if it still is what it was."""
        with contextlib.suppress(OSError):
            if os.pread(self.fd, len(other._seen), other.position - len(other._seen)) == other._seen:
                self.position, self._seen = other.position, other._seen

    def begin_again(self) -> None:
        self.position = self.size = 0
        self._seen = b""

    @property
    def left(self) -> int:
        """Bytes that were not read, as far as the system tells, and those of a line whose end was not."""
        try:
            size = os.fstat(self.fd).st_size
        except OSError:
            size = 0
        return max(0, size - self.position) + self.lines.begun

    @property
    def removed(self) -> bool:
        """It has no name any more, not even another one."""
        try:
            return os.fstat(self.fd).st_nlink == 0
        except OSError:
            return True

    @property
    def spare(self) -> bool:
        """Nothing was added for a little while: it may be closed if something else needs the descriptor."""
        return self.caught_up and time.monotonic() > self.grew + SPARE_AFTER

    @property
    def abandoned(self) -> bool:
        """Nothing was added for so long that nobody will."""
        return self.caught_up and time.monotonic() > self.grew + LINGER


def reason(error: OSError | RuntimeError) -> str:
    return getattr(error, "strerror", None) or str(error)


# ---- once ----------------------------------------------------------------------------------------------------------


def read_once(path: str, account: Account, pool: Pool, stop: Stop, emit: Emit) -> None:
    """Read a file, or whatever else the path leads to, from its beginning to its end or the stop."""
    try:
        fd = _open_in_turn(path, pool, stop)
    except OSError as error:
        account.error(f"cannot read {path}: {reason(error)}")
        return
    if fd is None:
        account.unread += size_of(path)
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) and path != STANDARD:
            _read_file(Input(fd), account, stop, emit)
        else:
            _read_stream(fd, account, stop, emit)
    finally:
        pool.close(fd)


def _open_in_turn(path: str, pool: Pool, stop: Stop) -> int | None:
    """None if the stop came first. While other readers hold all the descriptors, wait for one of theirs."""
    while not stop.requested:
        try:
            return pool.open(path)
        except OSError as error:
            if not (pool.is_short(error) and pool.in_use):
                raise
        stop.wait(PATIENCE)
    return None


def size_of(path: str) -> int:
    """Bytes of the file that the path leads to; 0 where there is none."""
    with contextlib.suppress(OSError):
        state = os.stat(path)
        return state.st_size if stat.S_ISREG(state.st_mode) else 0
    return 0


def _read_file(file: Input, account: Account, stop: Stop, emit: Emit) -> None:
    try:
        while not stop.requested:
            if not file.read(emit):
                _finish(file, emit)
                file.done = True
                return
    except Cut:
        _flush_torn(file, emit)
        account.error(f"{account.path} was cut while it was read")
    except OSError as error:
        _flush_torn(file, emit)
        account.error(f"cannot read {account.path}: {reason(error)}")
    finally:
        account.unread += 0 if file.done else file.left


def _finish(file: Input, emit: Emit) -> None:
    """The file is at its end: a last line without a newline is a line, too."""
    if rest := file.lines.take():
        emit(rest + b"\n", 0, True)


def _flush_torn(file: Input, emit: Emit) -> None:
    """The end of the line cannot be read any more: what was read of it is archived as a part."""
    if rest := file.lines.take():
        emit(rest, 0, False)


def _read_stream(fd: int, account: Account, stop: Stop, emit: Emit) -> None:
    """A pipe, a terminal, standard input: nothing can be read twice, so what was read is never left out."""
    lines = Lines()
    try:
        while not stop.wait(fd=fd):
            try:
                chunk = os.read(fd, CHUNK)
            except BlockingIOError:  # it was readable, and no longer is: somebody else has read
                continue
            if not chunk:
                if rest := lines.take():
                    emit(rest + b"\n", 0, True)
                return
            for text, begin, whole in lines.add(chunk):
                emit(text, begin, whole)
    except OSError as error:
        account.error(f"cannot read {account.path}: {reason(error)}")
    if rest := lines.take():
        emit(rest, 0, False)
    account.unread += _buffered(fd)


def _buffered(fd: int) -> int:
    """Bytes that wait in a pipe."""
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return max(0, os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR))
        count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    except OSError:
        return 0
    return count


# ---- following -----------------------------------------------------------------------------------------------------


class Follower:
    """Reads what a file holds and will hold until the stop, whichever file has its name."""

    def __init__(self, path: str, account: Account, pool: Pool, stop: Stop, watch: Watch, emit: Emit) -> None:
        self._path = path
        self._account = account
        self._pool = pool
        self._stop = stop
        self._watch = watch
        self._emit = emit
        self._waiter = Waiter()
        self._file: Input | None = None  # the one that has the name, or had it last
        self._old: list[Input] = []  # that lost the name to another, the oldest first
        self._closed: dict[tuple[int, int], Input] = {}  # the last ones that were given up
        self._found = False
        self._readable = True
        self._nameless = False
        self._finished = False  # a pipe whose writers went away, a file that cannot be followed
        self._looked = time.time()  # when the name was last seen to lead to the file that is read
        self._came = 0  # files that came under the name since then, as far as the system tells
        self._neighbours: set[tuple[int, int]] = set()  # files with similar names that were there then
        self._shortages = pool.shortages
        self._short = False  # somebody found no descriptor a short while ago
        self._short_until = 0.0
        watch.add(self._waiter)

    def run(self) -> None:
        if self._path == STANDARD:  # has no name that could lead to another file
            read_once(self._path, self._account, self._pool, self._stop, self._emit)
            return
        try:
            while not self._stop.requested and not self._finished:
                if not self._look() and not self._finished:
                    self._wait()
            if not self._finished:
                self._read_the_rest()
        except Exception:  # nobody takes the lines any more
            self._account.unread += sum(file.left for file in self._files())
            raise
        finally:
            for file in self._files():
                self._pool.close(file.fd)

    def _files(self) -> list[Input]:
        return [*self._old, *filter(None, [self._file])]

    # -- one look

    def _look(self) -> bool:
        """True if something was read."""
        self._watch.follow_name(self._waiter, self._path)
        self._readable = True
        self._came += self._watch.came(self._waiter)  # asked before the name is looked at: what comes later is kept
        identity, why = self._identity()
        looked = time.time()
        grew = sum(self._read(file) for file in self._old) > 0  # every one of them
        file = self._file
        if file is not None and all(old.caught_up for old in self._old):  # so that their lines come first
            grew = self._read(file) or grew
        if file is not None and not file.has_size:
            self._end_unfollowed(file)
            return True
        self._drop_old()
        if identity is None:
            self._without_name(why)
            return grew
        self._nameless = False
        if self._file is not None and identity == self._file.identity:
            if self._readable:
                self._account.out_of_trouble()
            self._looked = looked
            self._came = 0
            return grew
        return self._open() or grew

    def _identity(self) -> tuple[tuple[int, int] | None, str]:
        try:
            state = os.stat(self._path)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                return None, ""
            return None, reason(error)
        return (state.st_dev, state.st_ino), ""

    def _without_name(self, why: str) -> None:
        """The path leads nowhere. Its file is read on, until it is certain that nobody writes to it any more."""
        if why or os.path.islink(self._path):
            self._came = 0  # a link that leads nowhere: nothing in it that could be missed
        if why:
            self._account.in_trouble(why)
            return
        if not self._found:
            self._account.wait_for()
        elif self._account.trouble is not None:
            self._account.trouble = MISSING  # and told before
        if self._file is not None:
            if not self._nameless:
                self._file.grew = time.monotonic()
            elif self._file.removed and (self._file.abandoned or (self._short and self._file.spare)):
                self._give_up(self._file)
                self._file = None
        self._nameless = True

    def _open(self) -> bool:
        """The path leads to another file than before: read that one, and the old one beside it for a while."""
        try:
            fd = self._opened()
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                return False  # gone already: the next look tells
            if error.errno in (errno.EISDIR, errno.ELOOP):
                self._came = 0  # nothing in it that could be missed
            self._account.in_trouble(reason(error))
            return False
        self._account.out_of_trouble()
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._read_pipe(fd)
            return True
        file = Input(fd)
        if self._file is not None and file.identity == self._file.identity:  # it came back in the meantime
            self._pool.close(fd)
            return False
        if self._found:
            self._report_missed(file.identity)
        if self._file is not None:
            self._old.append(self._file)
            self._file.grew = time.monotonic()
        elif file.identity in self._closed:
            file.resume(self._closed.pop(file.identity))
        self._watch.leave_file(self._waiter)
        known = [old for old in self._old if old.identity == file.identity]
        if known:  # a file that was renamed, and got its name back
            self._pool.close(fd)
            file = known[0]
            self._old.remove(file)
        self._file = file
        self._found = True
        self._came = 0
        self._looked = time.time()
        self._watch.follow_name(self._waiter, self._path, again=True)  # what is a link may lead to another folder
        self._neighbours = {identity for _, identity, _ in self._similar()}
        return True

    def _opened(self) -> int:
        """A descriptor; where there is none, that of an old file, or of the file that was replaced."""
        try:
            return self._pool.open(self._path)
        except OSError as error:
            if not self._pool.is_short(error):
                raise
            self._watch.wake_all()  # others may have an old file to close
            if self._old and self._old[0].spare:
                file = self._old.pop(0)
            elif self._file is not None and self._account.trouble is not None and self._file.spare:
                file, self._file = self._file, None
            else:
                if self._file is not None and self._account.trouble is None:
                    self._file.grew = time.monotonic()  # it has just lost its name
                raise
        _finish(file, self._emit)
        self._remember(file)
        return self._pool.open(self._path, instead=file.fd)

    def _drop_old(self) -> None:
        if self._shortages != self._pool.shortages:
            self._shortages = self._pool.shortages
            self._short_until = time.monotonic() + LINGER
        self._short = time.monotonic() < self._short_until
        for file in [file for file in self._old if file.spare]:
            if self._short or len(self._old) > OLD_FILES or file.abandoned:
                self._old.remove(file)
                self._give_up(file)

    def _give_up(self, file: Input) -> None:
        """It was read to its end and will not grow."""
        _finish(file, self._emit)
        self._part_with(file)

    def _part_with(self, file: Input) -> None:
        self._pool.close(file.fd)
        self._remember(file)

    def _remember(self, file: Input) -> None:
        self._neighbours.add(file.identity)  # it was read: no need to report it as missed
        self._closed[file.identity] = file
        while len(self._closed) > OLD_FILES:
            del self._closed[next(iter(self._closed))]

    # -- reading

    def _read(self, file: Input) -> bool:
        """Read what is there, up to the stop; true if there was anything. Errors are tried again."""
        grew = False
        try:
            for _ in range(IN_ONE_GO):
                if self._stop.requested or not file.read(self._emit):
                    break
                grew = True
        except Cut:
            self._begin_again(file)
            return True
        except OSError as error:
            self._readable = False
            self._account.in_trouble(reason(error))
            if error.errno == errno.ESTALE and file is self._file:  # of a network: to be opened anew
                _flush_torn(file, self._emit)
                self._file = None
                self._part_with(file)
        return grew

    def _begin_again(self, file: Input) -> None:
        _flush_torn(file, self._emit)
        lost = max(0, file.size - file.position)
        file.begin_again()
        self._account.unread += lost
        but = f", {lost:,} bytes of it were not read" if lost else ""
        self._account.error(f"{self._path} was cut{but}; reading it from its start", failed=lost > 0)

    def _end_unfollowed(self, file: Input) -> None:
        self._account.say(f"{self._path} has no size: it was read once and is not followed")
        self._finished = True
        for each in [*self._old, file]:
            _finish(each, self._emit)

    def _read_pipe(self, fd: int) -> None:
        """What was a file may have become a pipe: then it ends with its writers."""
        try:
            while self._old:
                self._give_up(self._old.pop(0))
            if self._file is not None:
                self._give_up(self._file)
                self._file = None
            _read_stream(fd, self._account, self._stop, self._emit)
        finally:
            self._finished = True
            self._pool.close(fd)

    def _read_the_rest(self) -> None:
        """The stop came. What was there by then is read, if that takes no time; the rest is counted."""
        files = self._files()
        identity, _ = self._identity()
        for file in files:
            try:
                end = os.fstat(file.fd).st_size
                if end - file.position <= LAST:
                    while file.position < end and file.read(self._emit):
                        pass
                    _flush_torn(file, self._emit)
                    continue
            except Cut:
                self._begin_again(file)
            except OSError as error:
                self._account.error(f"cannot read {self._path}: {reason(error)}")
            self._account.unread += file.left
        if identity is not None and identity not in {file.identity for file in files}:
            self._account.unread += size_of(self._path)
        if self._account.trouble == MISSING or (self._account.trouble is None and not self._found):
            self._account.error(f"cannot read {self._path}: {MISSING}", failed=False)
        elif self._account.trouble is not None and not (self._account.trouble in SHORT and self._is_empty()):
            self._account.failed = True

    def _is_empty(self) -> bool:
        """The path leads to a file in which nothing could be missed."""
        with contextlib.suppress(OSError):
            state = os.stat(self._path)
            return stat.S_ISREG(state.st_mode) and state.st_size == 0
        return False

    # -- rotations that went too fast

    def _similar(self) -> list[tuple[str, tuple[int, int], os.stat_result]]:
        """The regular files whose names begin with that of the followed one."""
        folder, name = os.path.split(self._path)
        found: list[tuple[str, tuple[int, int], os.stat_result]] = []
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.startswith(name) and entry.name != name and not entry.name.endswith(PACKED):
                    with contextlib.suppress(OSError):
                        state = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(state.st_mode):
                            found.append((entry.path, (state.st_dev, state.st_ino), state))
        return found

    def _report_missed(self, new: tuple[int, int]) -> None:
        """A file that got the name after the last look, and lost it before this one, was never read: say so."""
        known = {file.identity for file in self._files()} | self._neighbours | {new}
        since = self._looked - 0.05  # clocks of file systems go in steps
        missed = [
            path
            for path, identity, state in self._similar()
            if identity not in known and state.st_mtime >= since and state.st_ctime >= since
        ]
        for path in missed:
            self._account.error(f"{self._path} was replaced twice between two looks; {path} was not read")
        came = self._came + self._watch.came(self._waiter) - len(missed)
        self._came = 0
        if came > 1:
            self._account.error(f"{self._path} was replaced {came} times between two looks; not all files were read")

    # -- waiting

    def _wait(self) -> None:
        settled = self._file is not None and not self._old and self._account.trouble is None
        told = bool(self._waiter.folders)
        if settled and told and self._file is not None:
            told = self._watch.follow_file(self._waiter, self._file.fd)
            if told and os.fstat(self._file.fd).st_size != self._file.end:
                return  # it grew just before the watch was there
        self._waiter.wait(SAFETY if told and settled else PATIENCE)
