"""Standard streams that may be closed, replaced, or read by somebody who goes away."""

import os
import sys
import threading
from typing import Any, TextIO

__all__ = ["Voice", "claim_descriptors", "lenient", "settle", "show"]


def claim_descriptors() -> set[int]:
    """Put /dev/null where a standard descriptor is closed, so that no file gets its number; returns which were."""
    closed: set[int] = set()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    return closed


def lenient(stream: Any) -> None:
    """File names may be any bytes: have what cannot be encoded escaped. In a notebook it is no such stream."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def show(text: str, stream: TextIO | None) -> OSError | None:
    """Print it all, now; returns what was in the way. A closed stream shows nothing, and that is no error."""
    if stream is None:
        return None
    try:
        print(text, file=stream, flush=True)
    except ValueError:  # closed by whoever called us
        return None
    except OSError as error:
        _discard(stream)
        return error
    return None


def settle(stream: TextIO) -> None:
    """Hand over what the stream holds. Nobody hears of what fails: its reader went away, or it was told before."""
    try:
        stream.flush()
    except ValueError:
        pass
    except OSError:
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """What the stream still holds would fail once more when the interpreter ends."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


class Voice:
    """Messages on standard error, from any thread, whole lines each."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._lock = threading.Lock()
        self.bar: Any = None  # a progress bar that has to make room

    def say(self, text: str) -> None:
        with self._lock:
            if self.bar is not None:
                self.bar.clear()
            show(f"{self._program}: {text}", sys.stderr)
            if self.bar is not None:
                self.bar.refresh()
