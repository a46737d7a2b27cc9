"""Bounded channels for programs that mix asyncio tasks, threads and native code.

Pick the narrowest module that fits: `local` (one thread), `spsc` (one sender, one receiver) or `mpsc` (many senders)
for objects; `spsc_bytes` or `mpsc_bytes` for messages of bytes, written and read in place.
Each has `channel(capacity)`, which returns a sender and a receiver.

    tx, rx = nexus_channels.mpsc.channel(1024)
"""

from . import errors, local, mpsc, mpsc_bytes, spsc, spsc_bytes
from ._types import Channel, Statistics
from .errors import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["Channel", "Statistics", "errors", "local", "mpsc", "mpsc_bytes", "spsc", "spsc_bytes", *errors.__all__]
