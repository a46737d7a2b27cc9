"""Channels of bytes from one thread or task to another: messages are written and read in place.

A sender claims room in the ring, writes into it through a memoryview and commits; the receiver borrows a view of the
message and releases it.  No allocation grows with the number of messages, and a message up to `max_message_size` fits
whenever that many bytes are free.  `send`, `recv_bytes` and `recv_into` do it with one copy.

Each end may await on any event loop or block in a plain thread.
"""

from ._core import SPSC_BYTES, NativeReceiver, NativeSender, ReadClaim, WriteClaim
from ._core import SpscBytesReceiver as Receiver
from ._core import SpscBytesSender as Sender
from ._factory import BytesChannelFactory
from ._types import Channel

__all__ = ["NativeReceiver", "NativeSender", "ReadClaim", "Receiver", "Sender", "WriteClaim", "channel"]

channel: BytesChannelFactory[Channel[Sender, Receiver]] = BytesChannelFactory(SPSC_BYTES, __name__)
