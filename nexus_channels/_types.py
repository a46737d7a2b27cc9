"""The named tuples that channels are handed out and described in."""

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

__all__ = ["Channel", "OpenEnd", "Statistics"]

S = TypeVar("S")
R = TypeVar("R")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # of what a channel is, where it does not say


class Channel(NamedTuple, Generic[S, R]):
    """The two ends of a new channel; `tx, rx = channel(...)` unpacks it.  A tuple.  Safe from any thread."""

    sender: S
    receiver: R


class OpenEnd(NamedTuple):
    """An endpoint or native end that is open, as `open_ends()` lists it.  A tuple.  Safe from any thread."""

    kind: str
    """What it is: "sender", "receiver", "native sender" or "native receiver"."""
    where: tuple[str, ...]
    """The line that made it and its callers, each "file:line in function". Empty if debug mode was off then."""


class Statistics(NamedTuple):
    """A snapshot of a channel: items (or bytes of the ring), endpoints and calls that wait.  A tuple.

    Safe from any thread.
    """

    capacity: int
    buffered: int
    open_senders: int
    open_receivers: int
    waiting_senders: int
    waiting_receivers: int
    sent: int
    received: int
