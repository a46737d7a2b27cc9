"""Channels of bytes from many senders to one receiver.  `clone()` makes another sender.

A sender claims room in the ring, writes the message there through a memoryview, and commits it.  The receiver borrows a
view of the message, and releases it.  Nothing is allocated for a message.  A message of at most `max_message_size`
bytes fits whenever that many bytes are free.  `send`, `recv_bytes` and `recv_into` copy the message once.

The receiver gets messages in the order of their claims: while a claim is open, the messages behind it wait.

Each end may be used by tasks of any asyncio or trio event loop, and by threads.  `share()` moves it to another
interpreter, or to another process if the channel was opened by `channel(n, shared=True)`.
"""

from typing import SupportsFloat, SupportsIndex

from ._core import MPSC_BYTES, Listener, NativeReceiver, NativeSender, ReadClaim, WriteClaim, connect_to, listen_at
from ._core import MpscBytesReceiver as Receiver
from ._core import MpscBytesSender as Sender
from ._factory import BytesChannelFactory
from ._processes import register_tickets
from ._types import AnyPath, Channel

__all__ = [
    "Listener",
    "NativeReceiver",
    "NativeSender",
    "ReadClaim",
    "Receiver",
    "Sender",
    "WriteClaim",
    "channel",
    "connect",
    "listen",
]

channel: BytesChannelFactory[Channel[Sender, Receiver]] = BytesChannelFactory(MPSC_BYTES, __name__)


def listen(path: AnyPath, capacity: SupportsIndex) -> Listener[Receiver]:
    """Open a channel that other processes of this user find by a path, and send to; returns a `Listener`.

    `listener.receiver` is the receiver; `connect(path)` makes a sender, in any process.  A sender comes in when the
    receiver waits for a message, or looks for one.  The listener counts as an open sender until it is closed.

    Any number of processes can send.  Each has a ring of `capacity` bytes, rounded up to whole pages and a power of
    two.

    The path becomes a socket that this user alone can connect to (mode 0600).  Choose a folder where others cannot
    write, such as `$XDG_RUNTIME_DIR`.  A socket that a killed process left there is replaced.

    Raises FileExistsError if there is a file that is no socket, which is left alone; OSError (EADDRINUSE) if somebody
    listens there, (ENAMETOOLONG) if the path has more than 107 bytes, (ENOTSUP) where processes share no memory that
    way, or as the system does; and what `channel()` raises.  Safe from any thread.
    """
    register_tickets()
    return listen_at(MPSC_BYTES, path, capacity)


def connect(path: AnyPath, timeout: SupportsFloat | SupportsIndex | None = None) -> Sender:
    """Make a sender of the channel whose receiver listens at that path, mostly in another process.

    Waits until the receiver lets it in, which is when that waits for a message or looks for one, blocking this thread
    without the GIL; in a task, use `await asyncio.to_thread(connect, path)`.

    Raises FileNotFoundError or ConnectionRefusedError at once if nobody listens there;
    TimeoutError if the receiver did not look within `timeout` seconds; PermissionError if it is of another user;
    ValueError if the channel is of spsc_bytes; OSError (EPROTO, EPROTOTYPE) if something else listens there, or another
    version of this, and as the system does; and whatever a signal handler raises.  Then nobody has seen a sender.
    Safe from any thread.
    """
    register_tickets()
    sender: Sender = connect_to(MPSC_BYTES, path, timeout)
    return sender
