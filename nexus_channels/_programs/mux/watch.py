"""What readers wait for: the stop, and changes of the files that they follow."""

import contextlib
import os
import select
import sys
import threading
from typing import Any

__all__ = ["AT_ONCE", "PATIENCE", "SAFETY", "Stop", "Waiter", "Watch"]

PATIENCE = 0.2  # seconds between two looks at a followed file that nothing tells about
SAFETY = 1.0  # the same where the system tells: a network file system may not tell of what others write
AT_ONCE = 0.01  # seconds between two reports of changes: a busy writer wakes its reader no more often


class Stop:
    """Asks every reader to finish. It can be waited for together with a descriptor, so that nothing has to poll."""

    def __init__(self) -> None:
        self.requested = False
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0)  # one descriptor instead of two
        else:
            self._read, self._write = os.pipe()

    def request(self) -> None:
        """May be called in a signal handler."""
        self.requested = True
        if self._write >= 0:
            os.write(self._write, (1).to_bytes(8, sys.byteorder))  # nobody reads it, so every waiting thread sees it

    def wait(self, seconds: float | None = None, fd: int | None = None) -> bool:
        """Wait until the stop is requested, `fd` is readable or the time is over; true if it is requested."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)
        return self.requested

    def close(self) -> None:
        read, write = self._read, self._write
        self._read = self._write = -1  # for a signal that comes late
        for fd in {read, write}:
            os.close(fd)


class Waiter:
    """One reader's wait for news of its file."""

    def __init__(self) -> None:
        self._news = threading.Event()
        self.folders: set[int] = set()  # the watches on folders that tell about it
        self.names: set[str] = set()
        self.file = -1  # the watch on the file that it reads
        self.came = 0  # files that came under its name since it last asked

    def wake(self) -> None:
        self._news.set()

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()


class Watch:
    """Wakes waiters when the system tells of a change, and all of them at the stop.

    inotify tells, where the package `inotify_simple` is installed; without it waiters look at intervals. A thread of
    its own waits for both. Any thread may call the methods.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._folders: dict[int, set[Waiter]] = {}
        self._files: dict[int, set[Waiter]] = {}
        self._flags: Any = None
        self._inotify: Any = None
        try:
            import inotify_simple  # pyright: ignore[reportMissingTypeStubs]

            self._inotify = inotify_simple.INotify(nonblocking=True)
            self._flags = inotify_simple.flags
        except (ImportError, OSError, AttributeError):  # not installed, not on this system, no descriptor left
            pass
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Where no thread is to be had, waiters look at intervals, and see the stop at the next look."""
        try:
            self._thread.start()
        except RuntimeError:
            self._inotify = None

    def close(self) -> None:
        """The stop must have been requested."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._inotify is not None:
            self._inotify.close()

    def add(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.add(waiter)

    def wake_all(self) -> None:
        with self._lock:
            for waiter in self._waiters:
                waiter.wake()

    def follow_name(self, waiter: Waiter, path: str, again: bool = False) -> None:
        """Have files that come and go under this path told, where the system can: then the waiter has folders."""
        if self._inotify is None or (waiter.folders and not again):
            return
        flags = self._flags
        mask = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
        real = os.path.realpath(path)  # the name may be a link: its target's folder tells of the target
        with self._lock, contextlib.suppress(OSError):
            for each in {os.path.abspath(path), real}:
                number = self._inotify.add_watch(os.path.dirname(each), mask | flags.ONLYDIR)
                self._folders.setdefault(number, set()).add(waiter)
                waiter.folders.add(number)
                waiter.names.add(os.path.basename(each))

    def follow_file(self, waiter: Waiter, fd: int) -> bool:
        """Have the next change of an open file told, once; false where the system cannot."""
        if self._inotify is None:
            return False
        with self._lock:
            try:
                # Not its path: that may lead to another file by now.
                number = self._inotify.add_watch(f"/proc/self/fd/{fd}", self._flags.MODIFY | self._flags.ONESHOT)
            except OSError:
                return False
            self._files.setdefault(number, set()).add(waiter)
            waiter.file = number
            return True

    def leave_file(self, waiter: Waiter) -> None:
        """The file is read no more. The system would keep its watch until the file changes or is deleted."""
        with self._lock:
            waiters = self._files.get(waiter.file, set())
            waiters.discard(waiter)
            if waiter.file >= 0 and not waiters and self._files.pop(waiter.file, None) is not None:
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(waiter.file)
            waiter.file = -1

    def came(self, waiter: Waiter) -> int:
        """How many files came under the waiter's name since the last call."""
        if self._inotify is None:
            return 0
        with self._lock:
            self._read()
            count, waiter.came = waiter.came, 0
            return count

    def _run(self) -> None:
        fd = None if self._inotify is None else self._inotify.fileno()
        while not self._stop.wait(fd=fd):
            with self._lock:
                self._read()
            if self._stop.wait(AT_ONCE):
                break
        self.wake_all()

    def _read(self) -> None:
        flags = self._flags
        try:
            events = self._inotify.read(timeout=0)
        except OSError:
            return
        for event in events:
            if event.mask & flags.Q_OVERFLOW:
                for waiter in self._waiters:
                    waiter.wake()
            elif event.wd in self._files:
                for waiter in self._files.pop(event.wd):
                    waiter.file = -1
                    waiter.wake()
            elif event.mask & (flags.IGNORED | flags.DELETE_SELF | flags.MOVE_SELF):
                self._lose(event.wd)
            else:
                for waiter in self._folders.get(event.wd, ()):
                    if event.name in waiter.names:
                        waiter.came += bool(event.mask & (flags.CREATE | flags.MOVED_TO))
                        waiter.wake()

    def _lose(self, folder: int) -> None:
        """A folder was removed or moved away; its waiters look for the one that takes its place."""
        waiters = self._folders.pop(folder, set())
        for waiter in waiters:
            waiter.folders.clear()
            waiter.names.clear()
            waiter.wake()
        if waiters:
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(folder)
