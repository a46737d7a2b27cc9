"""Tickets of channels between processes, as multiprocessing carries them.

A ticket holds descriptors, so only multiprocessing can pickle it: it knows where the bytes go, and has the descriptors
follow.  multiprocessing is imported when the first such channel is opened.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

from ._core import Ticket, leave_shared, ticket_of_parts, ticket_parts

__all__ = ["register_tickets"]


_registered = 0
"""The process that did it: what a child inherits of multiprocessing's registers, it clears."""


def register_tickets() -> None:
    """Teach multiprocessing to carry tickets. Safe from any thread, any number of times."""
    global _registered
    if _registered == os.getpid():
        return
    # multiprocessing imports these when a thread of its own first hands a descriptor over. A fork in the middle
    # of that leaves the child with a module that nobody goes on to import.
    for name in ("hmac", "multiprocessing.resource_sharer"):
        importlib.import_module(name)
    from multiprocessing import parent_process, util
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.register(Ticket, _reduce)
    # A child of multiprocessing may end by os._exit(), after its finalizers. It clears them when it begins to run, that
    # is after it unpickled its arguments, and then calls what was registered for that moment.
    util.register_after_fork(_leave_at_the_end, _leave_at_the_end)
    if parent_process() is not None:
        _leave_at_the_end()
    _registered = os.getpid()


def _leave_at_the_end(*_: object) -> None:
    from multiprocessing import util

    util.Finalize(None, _leave, exitpriority=-100)


def _leave() -> None:
    """multiprocessing waits for threads after this, and they may be at work on channels: so wait for them here."""
    threading._shutdown()  # type: ignore[attr-defined]
    leave_shared()


def _reduce(ticket: Ticket[Any]) -> Any:
    from multiprocessing.reduction import DupFd

    parts = ticket_parts(ticket)
    if parts is None:
        return ticket.__reduce_ex__(2)
    numbers, descriptors = parts
    return _rebuild, (numbers, tuple(map(DupFd, descriptors)))


def _rebuild(numbers: bytes, descriptors: tuple[Any, ...]) -> Ticket[Any]:
    """Called where the ticket has come to. What has come is closed if the rest does not."""
    register_tickets()
    came: list[int] = []
    try:
        came.extend(descriptor.detach() for descriptor in descriptors)
        return ticket_of_parts(numbers, tuple(came))
    except BaseException:
        for fd in came:
            os.close(fd)
        raise
