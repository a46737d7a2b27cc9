"""Channels of Python objects from one sender to one receiver.

Each end may be used by tasks of any asyncio or trio event loop, and by threads.
"""

from typing import TYPE_CHECKING, SupportsIndex

from ._core import SPSC
from ._core import SpscReceiver as Receiver
from ._core import SpscSender as Sender
from ._factory import ChannelFactory
from ._types import Channel

__all__ = ["Receiver", "Sender", "channel"]

if TYPE_CHECKING:
    from ._types import T

    class channel(Channel[Sender[T], Receiver[T]]):  # noqa: N801 - what `channel[T](n)` is to type checkers
        def __new__(cls, capacity: SupportsIndex) -> "channel[T]": ...

else:
    channel = ChannelFactory(SPSC, __name__)
