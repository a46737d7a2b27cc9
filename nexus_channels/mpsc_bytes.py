"""Channels of bytes from many senders to one receiver.  `clone()` makes another sender.

A sender claims room in the ring, writes the message there through a memoryview, and commits it.  The receiver borrows a
view of the message, and releases it.  Nothing is allocated for a message.  A message of at most `max_message_size`
bytes fits whenever that many bytes are free.  `send`, `recv_bytes` and `recv_into` copy the message once.

The receiver gets messages in the order of their claims: while a claim is open, the messages behind it wait.

Each end may be used by tasks of any asyncio or trio event loop, and by threads.
"""

from ._core import MPSC_BYTES, NativeReceiver, NativeSender, ReadClaim, WriteClaim
from ._core import MpscBytesReceiver as Receiver
from ._core import MpscBytesSender as Sender
from ._factory import BytesChannelFactory
from ._types import Channel

__all__ = ["NativeReceiver", "NativeSender", "ReadClaim", "Receiver", "Sender", "WriteClaim", "channel"]

channel: BytesChannelFactory[Channel[Sender, Receiver]] = BytesChannelFactory(MPSC_BYTES, __name__)
