"""The errors of the channels: one class for each situation.

Three situations are told apart everywhere: *you* closed this endpoint (`EndpointClosed`), the *other side*
is gone (`Disconnected`), and the channel has no room or no item *now* (`Full`, `Empty`).  Code written for
`queue`, `asyncio.Queue` or files already catches them: `Full` is a `queue.Full` and an `asyncio.QueueFull`,
`RecvError` is an `EOFError`, and so on.
"""

import asyncio
import queue
import sys
from typing import Any

__all__ = [
    "BusyError",
    "ChannelError",
    "ClaimDisconnected",
    "ClaimError",
    "ClaimFull",
    "ClaimReleased",
    "ClaimTimeout",
    "ClaimTooLarge",
    "Closed",
    "Disconnected",
    "Empty",
    "EndpointClosed",
    "Full",
    "NothingReady",
    "RecvError",
    "RecvTimeout",
    "SelectTimeout",
    "SendError",
    "SendTimeout",
    "TryRecvError",
    "TrySendError",
    "WrongThreadError",
    "ZeroLengthClaim",
]


class ChannelError(Exception):
    """Base of everything a channel raises."""

    index: int | None = None
    """The place of the arm that raised, if a select did."""
    arm: Any = None
    """That arm, the very object that was passed."""


if sys.version_info >= (3, 13):

    class Closed(ChannelError, queue.ShutDown, asyncio.QueueShutDown):
        """One side of the channel is closed: yours (`EndpointClosed`) or the other (`Disconnected`)."""

else:

    class Closed(ChannelError):
        """One side of the channel is closed: yours (`EndpointClosed`) or the other (`Disconnected`)."""


class Disconnected(Closed):
    """The other side is gone: closed, or dropped."""

    crashed: bool = False
    """Whether a process died that had not closed its end; only between processes."""


class EndpointClosed(Closed, ValueError):
    """You closed this endpoint yourself."""


class TrySendError(ChannelError):
    """The value was not sent; `value` is the very object that was passed.

    For a `send_many` it is the list of what was not sent.

    >>> from nexus_channels import Full, spsc
    >>> tx, rx = spsc.channel(1)
    >>> tx.try_send('first')
    >>> try:
    ...     tx.try_send('second')
    ... except Full as error:
    ...     print(error.value)
    second
    """

    def __init__(self, message: str = "", value: object = None) -> None:
        super().__init__(message)
        self.value = value
        """What was not sent."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.value)


class TryRecvError(ChannelError):
    """Nothing was received."""


class SendError(Disconnected, TrySendError):
    """Not sent: the receiver is gone.  `value` is what was passed."""


class RecvError(Disconnected, TryRecvError, EOFError):
    """The end: every sender is gone and everything sent was received."""


class Full(TrySendError, queue.Full, asyncio.QueueFull):
    """Not sent: no room now.  `value` is what was passed."""


class SendTimeout(Full, TimeoutError):
    """Not sent: no room within the timeout.  `value` is what was passed."""


class Empty(TryRecvError, queue.Empty, asyncio.QueueEmpty):
    """Nothing received: no item now."""


class RecvTimeout(Empty, TimeoutError):
    """Nothing received: no item within the timeout."""


class NothingReady(Empty, Full):
    """No arm of a `try_select` can go now: nothing was sent or received."""


class SelectTimeout(NothingReady, TimeoutError):
    """No arm of a select could go within the timeout: nothing was sent or received."""


class ClaimError(ChannelError):
    """Base of the errors about claims of byte channels."""


class ClaimTooLarge(ClaimError, ValueError):
    """The claim is larger than `max_message_size`: it could never be granted."""


class ZeroLengthClaim(ClaimError, ValueError):
    """A message has at least one byte."""


class ClaimReleased(ClaimError, BufferError):
    """The claim was already committed, aborted or released."""


class ClaimDisconnected(ClaimError, SendError):
    """No claim: the receiver is gone."""


class ClaimFull(ClaimError, Full):
    """No claim: the ring has no room for it now."""


class ClaimTimeout(ClaimFull, SendTimeout):
    """No claim: the ring had no room for it within the timeout."""


class BusyError(ChannelError, RuntimeError):
    """A claim or a native end that is still open borrows the endpoint."""


class WrongThreadError(ChannelError, RuntimeError):
    """An endpoint of a `local` channel was used off the thread that created it."""
