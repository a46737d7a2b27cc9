"""Bounded channels for programs that mix tasks of asyncio or trio, threads, processes and native code.

Pick the narrowest module that fits: `local` (one thread), `spsc` (one sender, one receiver) or `mpsc` (many senders)
for objects; `spsc_bytes` or `mpsc_bytes` for messages of bytes, written and read in place.
Each has `channel(capacity)`, which returns a sender and a receiver.  `select()` waits for several channels at once.

>>> from nexus_channels import mpsc
>>> tx, rx = mpsc.channel(1024)
>>> tx.try_send('value')
>>> rx.try_recv()
'value'

Imported by their own names are `nexus_channels.queue` (the interfaces of `queue.Queue` and `asyncio.Queue`),
`nexus_channels.anyio` (streams of AnyIO), `nexus_channels.logging` (a log handler) and `nexus_channels.native`
(the functions for native code).
"""

from . import errors, local, mpsc, mpsc_bytes, spsc, spsc_bytes
from ._core import (
    Listener,
    Notifier,
    Selected,
    Ticket,
    attach,
    merge,
    select,
    select_blocking,
    set_debug_ends,
    try_select,
)
from ._subprocess import SubprocessTicket
from ._types import Channel, OpenEnd, Statistics
from .errors import (
    BusyError,
    ChannelError,
    ClaimDisconnected,
    ClaimError,
    ClaimFull,
    ClaimReleased,
    ClaimTimeout,
    ClaimTooLarge,
    Closed,
    Disconnected,
    Empty,
    EndpointClosed,
    Full,
    NothingReady,
    RecvError,
    RecvTimeout,
    SelectTimeout,
    SendError,
    SendTimeout,
    TryRecvError,
    TrySendError,
    WrongThreadError,
    ZeroLengthClaim,
)

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "Channel",
    "ChannelError",
    "ClaimDisconnected",
    "ClaimError",
    "ClaimFull",
    "ClaimReleased",
    "ClaimTimeout",
    "ClaimTooLarge",
    "Closed",
    "Disconnected",
    "Empty",
    "EndpointClosed",
    "Full",
    "Listener",
    "NothingReady",
    "Notifier",
    "OpenEnd",
    "RecvError",
    "RecvTimeout",
    "SelectTimeout",
    "Selected",
    "SendError",
    "SendTimeout",
    "Statistics",
    "SubprocessTicket",
    "Ticket",
    "TryRecvError",
    "TrySendError",
    "WrongThreadError",
    "ZeroLengthClaim",
    "attach",
    "errors",
    "get_include",
    "local",
    "merge",
    "mpsc",
    "mpsc_bytes",
    "select",
    "select_blocking",
    "set_debug_ends",
    "spsc",
    "spsc_bytes",
    "try_select",
]


def get_include() -> str:
    """The folder of `nexus_channels.h` and `nexus_processes.h`, for the `-I` of a C compiler.

    Safe from any thread.
    """
    from pathlib import Path

    package = Path(__file__).resolve().parent
    installed = package / "include"
    return str(installed if installed.is_dir() else package.parent / "csrc")  # in place, as after pip install -e
