"""Channels of Python objects between tasks of one thread.  `clone()` makes another sender.

A channel belongs to the thread that opens it: a call from another thread raises `WrongThreadError`.  So no operation
is atomic, and there are no blocking calls: nobody else could end such a wait.
"""

from typing import TYPE_CHECKING, SupportsIndex

from ._core import LOCAL
from ._core import LocalReceiver as Receiver
from ._core import LocalSender as Sender
from ._factory import ChannelFactory
from ._types import Channel

__all__ = ["Receiver", "Sender", "channel"]

if TYPE_CHECKING:
    from ._types import T

    class channel(Channel[Sender[T], Receiver[T]]):  # noqa: N801 - what `channel[T](n)` is to type checkers
        def __new__(cls, capacity: SupportsIndex) -> "channel[T]": ...

else:
    channel = ChannelFactory(LOCAL, __name__)
