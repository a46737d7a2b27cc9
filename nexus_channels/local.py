"""Object channels within one thread: tasks of one event loop, no atomic operation on the way.

Any number of senders (`clone`), one receiver, any Python object.  Waits are awaits; there are no blocking
forms, as nobody else could end such a wait.  A channel belongs to the thread that opens it: any other
gets `WrongThreadError`.
"""

from . import _core
from ._core import LocalReceiver as Receiver
from ._core import LocalSender as Sender
from ._factory import ChannelFactory

__all__ = ["Receiver", "Sender", "channel"]

channel = ChannelFactory(_core.LOCAL, __name__)
