"""Object channels from many threads or tasks to one: senders are cloned, any Python object.

Each end may await on any event loop or block in a plain thread.
"""

from . import _core
from ._core import MpscReceiver as Receiver
from ._core import MpscSender as Sender
from ._factory import ChannelFactory

__all__ = ["Receiver", "Sender", "channel"]

channel = ChannelFactory(_core.MPSC, __name__)
