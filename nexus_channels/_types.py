"""The named tuples that channels are handed out and described in."""

import os
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Never, TypeAlias, TypeVar

__all__ = ["AnyPath", "Channel", "OpenEnd", "Statistics", "Uncopied"]

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

S = TypeVar("S")
R = TypeVar("R")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # of what a channel is, where it does not say
else:
    T = TypeVar("T")


class Uncopied:
    """Refuses copies, as the ends of a channel do: a copy would share the channel, and not what belongs to its use."""

    __slots__ = ()

    def __reduce__(self) -> Never:
        raise TypeError(f"cannot copy or pickle {type(self).__qualname__!r}: share the object itself, or make another")


class Channel(NamedTuple, Generic[S, R]):
    """The sender and the receiver of a new channel.  A named tuple, which unpacks.

    >>> from nexus_channels import spsc
    >>> tx, rx = spsc.channel(2)
    >>> channel = spsc.channel(2)
    >>> channel.sender.same_channel(channel.receiver)
    True

    Safe from any thread.
    """

    sender: S
    """The first sender."""
    receiver: R
    """The receiver."""


class OpenEnd(NamedTuple):
    """Names one end that keeps a channel open, as `open_ends()` lists it.  A named tuple.

    >>> from nexus_channels import spsc
    >>> tx, rx = spsc.channel(2)
    >>> [end.kind for end in rx.open_ends()]
    ['sender', 'receiver']

    Safe from any thread.
    """

    kind: str
    """What it is: "sender", "receiver", "native sender" or "native receiver"."""
    where: tuple[str, ...]
    """The line that made it and its callers, each "file:line in function". Empty if debug mode was off then."""


class Statistics(NamedTuple):
    """Tells how full a channel is and who uses it, as `statistics()` returns it.  A named tuple.

    >>> from nexus_channels import spsc
    >>> tx, rx = spsc.channel(2)
    >>> tx.try_send('value')
    >>> rx.statistics().buffered
    1

    Amounts are in items, or in bytes of the ring for a channel of bytes.  Safe from any thread.
    """

    capacity: int
    """How much the channel holds at most."""
    buffered: int
    """How much was sent and not yet received."""
    open_senders: int
    """How many senders are open."""
    open_receivers: int
    """How many receivers are open."""
    waiting_senders: int
    """How many sends and claims wait for room."""
    waiting_receivers: int
    """How many receives wait for an item."""
    sent: int
    """How much was sent since the channel was opened."""
    received: int
    """How much was received since the channel was opened."""
