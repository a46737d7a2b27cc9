"""The archive: whole lines, appended; it may be rotated while it is written."""

import contextlib
import os
import select
import signal
import socket
import stat
import threading

from .names import STANDARD
from .watch import PATIENCE

__all__ = ["Archive", "Refused"]


class Refused(Exception):
    """The archive takes no more. `whole` is how many bytes of the refused text stand in it, up to a line's end."""

    def __init__(self, error: OSError, whole: int) -> None:
        super().__init__(error)
        self.error = error
        self.whole = whole


class Archive:
    def __init__(self, path: str) -> None:
        """Nothing is opened yet."""
        self.path = path
        self.identity: tuple[int, int] | None = None  # of the file that must not be read, as it is written
        self._fd = -1
        self._regular = False
        self._given_up = False

    def open(self) -> None:
        """Empty or make it; OSError if that fails. Waits for the reader of a pipe, or until a signal handler raises."""
        if self.path == STANDARD:
            self._take(1)
        elif threading.current_thread() is threading.main_thread() and is_pipe(self.path):
            self._take(self._opened_aside())
        else:
            self._take(self._opened(os.O_TRUNC))

    def reopen(self) -> None:
        """Go on in the file that the path leads to now, at its end. After an OSError the old one is written on."""
        if self._regular and self.path != STANDARD:  # to open a pipe could mean to wait for its reader
            old, fd = self._fd, self._opened(0)
            self._take(fd)
            os.close(old)

    def _opened(self, flags: int) -> int:
        # O_APPEND: where the archive was cut by somebody who copied it, it goes on at the new end.
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o666)

    def _opened_aside(self) -> int:
        """Open it in a thread of its own, and wait for a byte from that thread or from Python, which writes one at each
        signal. A wait in open() would miss a signal that comes just before it."""
        opened: list[int | OSError] = []
        here, there = socket.socketpair()

        def work() -> None:
            try:
                opened.append(self._opened(os.O_TRUNC))
            except OSError as error:
                opened.append(error)
            with contextlib.suppress(OSError):  # nobody waits any more, or enough bytes are there already
                there.send(b"\0")

        with here, there:
            there.setblocking(False)
            usual = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
            try:
                threading.Thread(target=work, name="archive", daemon=True).start()
                while not opened:
                    here.recv(4096)
            finally:
                signal.set_wakeup_fd(usual)
        if isinstance(opened[0], OSError):
            raise opened[0]
        return opened[0]

    def _take(self, fd: int) -> None:
        state = os.fstat(fd)
        self._fd = fd
        self._regular = stat.S_ISREG(state.st_mode)
        self.identity = (state.st_dev, state.st_ino) if self._regular else None

    def write(self, text: bytes | bytearray | memoryview) -> None:
        """Append whole lines. Refused if not all of them could be; then no line is left in two."""
        done = 0
        with memoryview(text) as view:  # no part of it outlives the call: a view of a claim would keep its record
            while done < len(view):
                with view[done:] as rest:
                    try:
                        done += os.write(self._fd, rest)
                        continue
                    except BlockingIOError as error:  # given up, or somebody made the pipe one that does not block
                        if not self._given_up:
                            poll = select.poll()
                            poll.register(self._fd, select.POLLOUT)
                            poll.poll(PATIENCE * 1000)
                            continue
                        raise Refused(error, self._without_torn_line(bytes(view[:done]))) from None
                    except OSError as error:
                        raise Refused(error, self._without_torn_line(bytes(view[:done]))) from None

    def give_up(self) -> None:
        """Wait no longer for somebody to take what is written. For a signal handler: it raises nothing, so that what
        was written by then is known."""
        self._given_up = True
        if self._fd >= 0 and not self._regular:
            os.set_blocking(self._fd, False)

    def _without_torn_line(self, written: bytes) -> int:
        """Take the beginning of a line off the end; returns the bytes of whole lines."""
        whole = written.rfind(b"\n") + 1
        if self._regular and whole < len(written):
            try:
                end = os.lseek(self._fd, 0, os.SEEK_CUR)
                if os.fstat(self._fd).st_size == end:  # nobody has cut it or gone on behind us
                    os.ftruncate(self._fd, end - (len(written) - whole))
            except OSError:
                pass  # then the line is torn, and the message about the archive says that it failed
        return whole

    def close(self) -> None:
        """OSError if the system only now tells that something was not written, as on a network or a quota."""
        fd, self._fd = self._fd, -1
        if self._given_up and not self._regular:
            os.set_blocking(fd, True)  # others may write to the same pipe
        if fd > 2:
            os.close(fd)


def is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False
