"""The archive: whole lines, appended; it may be rotated while it is written."""

import os
import select
import stat

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
        """Empty it, or make it; OSError if that fails."""
        if self.path == STANDARD:
            self._take(1)
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
