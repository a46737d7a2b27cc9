"""Object channels within one thread: tasks of one event loop, no atomic operation on the way.

Any number of senders (`clone`), one receiver, any Python object.  Waits are awaits; there are no blocking
forms, as nobody else could end such a wait.  A channel belongs to the thread that opens it: any other
gets `WrongThreadError`.
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
