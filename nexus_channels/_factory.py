"""The callable behind every module's `channel`: `channel(n)` opens one, `channel[T](n)` says of what."""

from typing import Any, Generic, SupportsIndex, TypeVar

from ._core import open as open_channel
from ._core import open_shared
from ._processes import register_tickets
from ._types import Channel

__all__ = ["BytesChannelFactory", "ChannelFactory"]

C = TypeVar("C")


class ChannelFactory:
    """channel(capacity)

    Open a channel that holds exactly `capacity` items, at least 1; returns `Channel(sender, receiver)`.
    No event loop is needed.  `channel[T](capacity)` is the same, and tells type checkers what the items are.

    >>> from nexus_channels import spsc
    >>> tx, rx = spsc.channel[str](2)
    >>> rx.capacity
    2

    Raises TypeError unless `capacity` is an int, ValueError below 1, MemoryError if there is not that much.
    Safe from any thread; a local channel is for that thread only.
    """

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: int, module: str) -> None:
        self._kind = kind
        self._name = f"{module}.channel"

    def __call__(self, capacity: int, *, shared: bool = False) -> Channel[Any, Any]:
        if shared:
            raise TypeError(
                f"{self._name}() cannot be shared between processes, as an object belongs to one: use spsc_bytes or "
                "mpsc_bytes, and send bytes; docs/howto/processes.md shows how to send pickles without a copy"
            )
        return Channel(*open_channel(self._kind, capacity))

    def __getitem__(self, item: object) -> "ChannelFactory":
        return self

    def __repr__(self) -> str:
        return f"<function {self._name}>"


class BytesChannelFactory(Generic[C]):
    """channel(capacity, shared=False)

    Open a channel that holds `capacity` bytes, rounded up to a power of two, at least 64; returns
    `Channel(sender, receiver)`, whose `capacity` is the real size.  Each message takes 8 bytes more than its own, and
    is padded to 8.  No event loop is needed.

    If `shared`, each end can move to another process of this user and machine: `share()` it, and `attach()` the ticket
    there.  Each process that sends has a ring of that capacity then, of whole pages, whose memory is all taken when
    the ring is made.

    >>> from nexus_channels import spsc_bytes
    >>> tx, rx = spsc_bytes.channel(1000)
    >>> rx.capacity, rx.max_message_size
    (1024, 1016)

    Raises TypeError unless `capacity` is an int, ValueError below 1, MemoryError if there is not that much; if
    `shared`, OSError on other systems than Linux (ENOTSUP), if the machine has not that much memory (ENOMEM), or if no
    descriptor is left.  Safe from any thread.
    """

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: int, module: str) -> None:
        self._kind = kind
        self._name = f"{module}.channel"

    def __call__(self, capacity: SupportsIndex, *, shared: bool = False) -> C:
        if not shared:
            return Channel(*open_channel(self._kind, capacity))  # type: ignore[return-value]
        register_tickets()
        return Channel(*open_shared(self._kind, capacity))  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"<function {self._name}>"
