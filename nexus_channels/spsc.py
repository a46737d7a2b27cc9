"""Object channels from one thread or task to another: one sender, one receiver, any Python object.

Each end may await on any event loop or block in a plain thread.
"""

from . import _core
from ._core import SpscReceiver as Receiver
from ._core import SpscSender as Sender
from ._factory import ChannelFactory

__all__ = ["Receiver", "Sender", "channel"]

channel = ChannelFactory(_core.SPSC, __name__)
