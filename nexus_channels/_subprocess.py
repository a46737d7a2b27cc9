"""Tickets of channels between processes, as text and inherited descriptors: for subprocess, and for any other program.

The text names each descriptor by its number and its inode: `nxc1-NUMBERS-FD.INODE-...`.  Whoever attaches it believes
the numbers only of descriptors that were passed on: those which are inheritable, and which have that inode.  Python
makes no other descriptor inheritable.  So a text that comes too late, or from elsewhere, touches nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, Self

from ._core import Ticket, attach, ticket_of_parts, ticket_parts
from ._processes import register_tickets
from ._types import Uncopied

__all__ = ["SubprocessTicket", "attach_text", "for_subprocess"]

_HEAD = "nxc1"
_SHOWN = 40  # characters of a text that is quoted in an error

_taking = threading.Lock()
"""Between looking at descriptors and owning them."""
_taken: dict[str, Ticket[Any]] = {}
"""What could not be attached for want of memory or descriptors, for the next try."""


class SubprocessTicket(Uncopied):
    """A ticket for a program that `subprocess` starts: a text, and the descriptors that it is about.

    `for_subprocess()` of a ticket makes it. Give `pass_fds` to `subprocess.Popen()`, and the text to the program, which
    calls `attach(text)`. A context manager, which unpacks.

    >>> import subprocess, sys
    >>> from nexus_channels import spsc_bytes
    >>> program = "import sys, nexus_channels; nexus_channels.attach(sys.argv[1]).send_blocking(b'hello')"
    >>> tx, rx = spsc_bytes.channel(4096, shared=True)
    >>> with tx.share().for_subprocess() as (text, fds):
    ...     child = subprocess.Popen([sys.executable, "-c", program, text], pass_fds=fds)
    >>> rx.recv_bytes_blocking()
    b'hello'
    >>> child.wait()
    0

    Hold it until `Popen()` has returned, and then close it, so that the end is in the program alone; dropping it closes
    it, too. If no program has got it by then, its end of the channel is closed in good order.
    Safe from any thread.
    """

    __slots__ = ("_ticket", "pass_fds", "text")

    text: str
    """What `attach()` takes in the program: an argument, or an environment variable. It is ASCII, without spaces."""
    pass_fds: tuple[int, ...]
    """The descriptors that the program needs, for `pass_fds` of `subprocess.Popen()`. They are closed by `close()`."""

    def __init__(self, ticket: Ticket[Any], text: str, pass_fds: tuple[int, ...]) -> None:
        self._ticket: Ticket[Any] | None = ticket
        self.text = text
        self.pass_fds = pass_fds

    def close(self) -> None:
        """Close the descriptors here; the program keeps its own. Idempotent. Safe from any thread."""
        self._ticket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.text, self.pass_fds))

    def __repr__(self) -> str:
        state = "closed" if self._ticket is None else f"{len(self.pass_fds)} descriptors"
        return f"<nexus_channels.SubprocessTicket, {state}, at {id(self):#x}>"


def for_subprocess(ticket: Ticket[Any]) -> SubprocessTicket:
    """Called by the method of a ticket, with a new one that has its descriptors, and that nobody else refers to."""
    parts = ticket_parts(ticket)
    assert parts is not None
    numbers, descriptors = parts
    named = (f"{fd}.{os.fstat(fd).st_ino}" for fd in descriptors)
    text = "-".join((_HEAD, numbers.hex(), *named))
    return SubprocessTicket(ticket, text, tuple(descriptors))


def attach_text(text: str) -> Any:
    """Called by attach()."""
    with _taking:
        ticket = _taken.pop(text, None) or _take(text)
    try:
        return attach(ticket)
    except ValueError:
        raise
    except BaseException:
        with _taking:
            _taken[text] = ticket
        raise


def _take(text: str) -> Ticket[Any]:
    head, *rest = text.split("-")
    if head != _HEAD or len(rest) < 2:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise ValueError(
            f"{shown!r} is no ticket of this version of nexus_channels: the text of for_subprocess() begins with "
            f"'{_HEAD}-' and is passed on whole"
        )
    register_tickets()
    try:
        numbers = bytes.fromhex(rest[0])
        named = [_parse(name) for name in rest[1:]]
    except ValueError:
        raise ValueError("this text is not whole: it is no more what for_subprocess() gave") from None
    for fd, inode in named:
        _check(fd, inode)
    descriptors = tuple(fd for fd, _ in named)
    if len(set(descriptors)) < len(descriptors):
        raise ValueError("this text names a descriptor twice")
    ticket = ticket_of_parts(numbers, descriptors)
    for fd in descriptors:
        os.set_inheritable(fd, False)
    return ticket


def _parse(name: str) -> tuple[int, int]:
    fd, inode = name.split(".")
    if not (fd.isdecimal() and inode.isdecimal()):
        raise ValueError
    return int(fd), int(inode)


def _check(fd: int, inode: int) -> None:
    """Is that the descriptor that was passed on?"""
    try:
        passed = os.get_inheritable(fd) and os.fstat(fd).st_ino == inode
    except (OSError, OverflowError):
        passed = False
    if not passed:
        raise ValueError(
            f"descriptor {fd} was not passed to this process, or the text was attached before: give pass_fds to "
            "subprocess.Popen(), and attach the text once, in the process that was started"
        )
