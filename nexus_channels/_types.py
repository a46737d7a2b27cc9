"""The two named tuples that channels are handed out and described in."""

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

__all__ = ["Channel", "Statistics"]

S = TypeVar("S")
R = TypeVar("R")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # of what a channel is, where it does not say


class Channel(NamedTuple, Generic[S, R]):
    """The two ends of a new channel; `tx, rx = channel(...)` unpacks it."""

    sender: S
    receiver: R


class Statistics(NamedTuple):
    """A snapshot of a channel; all numbers are items, endpoints or waiting calls."""

    capacity: int
    buffered: int
    open_senders: int
    open_receivers: int
    waiting_senders: int
    waiting_receivers: int
    sent: int
    received: int
