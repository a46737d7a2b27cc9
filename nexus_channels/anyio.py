"""Streams of AnyIO over the ends of a channel, for code that takes `ObjectSendStream`, `ByteReceiveStream` and so on.

`SendStream` and `ReceiveStream` carry items, as AnyIO's memory object streams do.  `ByteSendStream`,
`ByteReceiveStream` and `ByteStream` carry bytes without message borders, over a channel of bytes.  Their errors are
AnyIO's, and each has the channel's own error as its `__cause__`.

The other end of the channel needs no stream: it may be used by a thread, by native code, or by a task of another event
loop.  The extra `anyio` installs what this module imports.

As AnyIO asks, each awaited call is a checkpoint: it lets other tasks run, and can be cancelled there, before it sends
or takes anything.
"""

import contextlib
import importlib
import operator
from collections.abc import Callable, Coroutine, Generator, Mapping
from types import SimpleNamespace, coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, overload

try:
    from anyio import (
        BrokenResourceError,
        BusyResourceError,
        ClosedResourceError,
        EndOfStream,
        TypedAttributeSet,
        WouldBlock,
        abc,
        typed_attribute,
    )
    from anyio.lowlevel import checkpoint
    from anyio.streams.memory import MemoryObjectStreamStatistics
except ImportError as error:
    raise ImportError("nexus_channels.anyio needs AnyIO: pip install 'nexus_channels[anyio]'") from error

from ._core import (
    LocalReceiver,
    LocalSender,
    MpscBytesReceiver,
    MpscBytesSender,
    MpscReceiver,
    MpscSender,
    ReadClaim,
    SpscBytesReceiver,
    SpscBytesSender,
    SpscReceiver,
    SpscSender,
)
from ._types import Uncopied
from .errors import BusyError, ClaimReleased, Closed, Empty, EndpointClosed, Full, RecvError, SendError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._types import Statistics

__all__ = [
    "ByteReceiveStream",
    "ByteSendStream",
    "ByteStream",
    "ChannelAttribute",
    "ReceiveStream",
    "SendStream",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)

_Sender: TypeAlias = LocalSender[T] | SpscSender[T] | MpscSender[T]
_Receiver: TypeAlias = LocalReceiver[T] | SpscReceiver[T] | MpscReceiver[T]
_BytesSender: TypeAlias = SpscBytesSender | MpscBytesSender
_BytesReceiver: TypeAlias = SpscBytesReceiver | MpscBytesReceiver

_BYTES_SENDERS = (SpscBytesSender, MpscBytesSender)
_BYTES_RECEIVERS = (SpscBytesReceiver, MpscBytesReceiver)
_SENDERS = (LocalSender, SpscSender, MpscSender, *_BYTES_SENDERS)
_RECEIVERS = (LocalReceiver, SpscReceiver, MpscReceiver, *_BYTES_RECEIVERS)

_LEAST_PIECE = 65536  # bytes: what a receive asks for by default

_SENDING = "writing to"  # as AnyIO's own streams say it in a BusyResourceError
_RECEIVING = "reading from"


# ---- checkpoints -----------------------------------------------------------------------------------------------------

_library: Any = SimpleNamespace(name=None)  # `name` is "trio" while a task of trio runs
with contextlib.suppress(ImportError):
    _library = importlib.import_module("sniffio").thread_local  # trio installs it


@coroutine
def _yield_once() -> Generator[None, None, None]:
    """What asyncio.sleep(0) does: the loop goes round once, and a cancellation is raised here."""
    yield


def _on_trio() -> bool:
    """Under trio each call of a channel is a checkpoint by itself; asyncio has to be given one."""
    return bool(_library.name == "trio")


# ---- what the streams have in common ---------------------------------------------------------------------------------

_TRANSLATED = (Closed, Full, Empty, BusyError, ClaimReleased)


def _translated(error: Exception, action: str) -> Exception:
    """The error of AnyIO for one of `_TRANSLATED`."""
    if isinstance(error, EndpointClosed):
        return ClosedResourceError()
    if isinstance(error, RecvError):
        return EndOfStream()
    if isinstance(error, (Closed, ClaimReleased)):
        return BrokenResourceError()
    if isinstance(error, BusyError):
        return BusyResourceError(action)
    return WouldBlock()


def _checked(end: object, kinds: tuple[type, ...], stream: object, wanted: str) -> Any:
    if not isinstance(end, kinds):
        raise TypeError(f"{type(stream).__name__} takes {wanted}, not {type(end).__name__!r}")
    return end


class ChannelAttribute(TypedAttributeSet):
    """Names what `extra()` finds: the ends of the channel, also through AnyIO's wrappers of these streams.

    >>> from nexus_channels import spsc
    >>> from nexus_channels.anyio import ChannelAttribute, SendStream
    >>> tx, rx = spsc.channel(2)
    >>> SendStream(tx).extra(ChannelAttribute.sender) is tx
    True

    Safe from any thread.
    """

    sender: Any = typed_attribute()
    """The sender that a stream sends by."""
    receiver: Any = typed_attribute()
    """The receiver that a stream receives by."""


class _Closable(Protocol):
    def close(self) -> None: ...


class _Closing(Uncopied):
    """The ways to close a stream."""

    async def aclose(self: _Closable) -> None:
        """Close the stream, as `close()` does.  It does not wait, so it cannot be cancelled.

        Safe from any thread; a local channel is for that thread only.
        """
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self: _Closable, *exception: object) -> None:
        self.close()


def _statistics(of: "Statistics") -> MemoryObjectStreamStatistics:
    return MemoryObjectStreamStatistics(
        current_buffer_used=of.buffered,
        max_buffer_size=of.capacity,
        open_send_streams=of.open_senders,
        open_receive_streams=of.open_receivers,
        tasks_waiting_send=of.waiting_senders,
        tasks_waiting_receive=of.waiting_receivers,
    )


# ---- items -----------------------------------------------------------------------------------------------------------


class SendStream(_Closing, abc.ObjectSendStream[T_contra], Generic[T_contra]):
    """SendStream(sender)

    Makes an `ObjectSendStream` of AnyIO of a sender.  Over a channel of bytes each item is one message.

    >>> import anyio
    >>> from nexus_channels import spsc
    >>> from nexus_channels.anyio import SendStream
    >>> async def main():
    ...     tx, rx = spsc.channel[str](2)
    ...     async with SendStream(tx) as stream:
    ...         await stream.send('value')
    ...     return rx.try_recv()
    >>> anyio.run(main)
    'value'

    Dropping the stream closes nothing as long as the sender itself is referred to.

    Raises TypeError unless `sender` is a sender of a channel.
    Safe from any thread; a local channel is for that thread only.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, sender: _Sender[T_contra], /) -> None: ...
        @overload
        def __init__(self: "SendStream[Buffer]", sender: _BytesSender, /) -> None: ...

    def __init__(self, sender: Any, /) -> None:
        self._sender = _checked(sender, _SENDERS, self, "a sender of a channel")
        self._send: Callable[[T_contra], Coroutine[Any, Any, None]] = self._sender.send

    async def send(self, item: T_contra) -> None:
        """Send an item; wait while the channel is full.

        Raises ClosedResourceError if this end was closed, BrokenResourceError if the receiver is gone: the item is the
        `value` of its `__cause__`.  Of bytes it raises `ClaimTooLarge` above the channel's `max_message_size`,
        `ZeroLengthClaim` for an empty message, and BusyResourceError while a claim of the sender is open.

        Cancelled, it did not send.  Safe from any thread; a local channel is for that thread only.
        """
        if _library.name != "trio":  # _on_trio(), without the call
            await _yield_once()
        try:
            await self._send(item)
        except _TRANSLATED as error:
            raise _translated(error, _SENDING) from error

    def send_nowait(self, item: T_contra) -> None:
        """Send an item at once.

        Raises WouldBlock if there is no room now, and what `send()` raises.

        When it raised, it did not send.  Safe from any thread; a local channel is for that thread only.
        """
        try:
            self._sender.try_send(item)
        except _TRANSLATED as error:
            raise _translated(error, _SENDING) from error

    def clone(self) -> "SendStream[T_contra]":
        """A stream over a clone of the sender.  The receiver sees the end when all are closed.

        Raises ClosedResourceError if this end was closed, TypeError for a channel that has one sender.
        Safe from any thread; a local channel is for that thread only.
        """
        if not hasattr(self._sender, "clone"):
            raise TypeError(f"{self!r} cannot be cloned: its channel has one sender; open an mpsc or local channel")
        try:
            return type(self)(self._sender.clone())
        except _TRANSLATED as error:
            raise _translated(error, _SENDING) from error

    def close(self) -> None:
        """Close the sender.  The receiver gets what was sent, and then the end.

        Sends that wait raise ClosedResourceError.  Closing twice does nothing.
        Safe from any thread; a local channel is for that thread only.
        """
        self._sender.close()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """How full the channel is and who uses it, in items or in bytes of the ring.  Threads that wait count as tasks.

        Safe from any thread.
        """
        return _statistics(self._sender.statistics())

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.sender: lambda: self._sender}

    def __repr__(self) -> str:
        return f"<SendStream over {self._sender!r}>"


class ReceiveStream(_Closing, abc.ObjectReceiveStream[T_co], Generic[T_co]):
    """ReceiveStream(receiver)

    Makes an `ObjectReceiveStream` of AnyIO of a receiver.  Over a channel of bytes each item is one message: `bytes`.

    >>> import anyio
    >>> from nexus_channels import spsc
    >>> from nexus_channels.anyio import ReceiveStream
    >>> async def main():
    ...     tx, rx = spsc.channel[str](2)
    ...     tx.try_send('value')
    ...     tx.close()
    ...     return [item async for item in ReceiveStream(rx)]
    >>> anyio.run(main)
    ['value']

    Several tasks may share a stream: each item goes to one of them.  It has no `clone()`, as a channel has one
    receiver.  Dropping the stream closes nothing as long as the receiver itself is referred to.

    Raises TypeError unless `receiver` is a receiver of a channel.
    Safe from any thread; a local channel is for that thread only.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, receiver: _Receiver[T_co], /) -> None: ...
        @overload
        def __init__(self: "ReceiveStream[bytes]", receiver: _BytesReceiver, /) -> None: ...

    def __init__(self, receiver: Any, /) -> None:
        self._receiver = _checked(receiver, _RECEIVERS, self, "a receiver of a channel")
        of_bytes = hasattr(receiver, "recv_bytes")
        self._recv: Callable[[], Coroutine[Any, Any, T_co]] = receiver.recv_bytes if of_bytes else receiver.recv
        self._try_recv: Callable[[], T_co] = receiver.try_recv_bytes if of_bytes else receiver.try_recv

    async def receive(self) -> T_co:
        """Receive an item; wait while the channel is empty.

        Raises EndOfStream when every sender is gone and everything was received, ClosedResourceError if this end was
        closed, BusyResourceError while a claim of the receiver is open.

        Cancelled, it took nothing.  Safe from any thread; a local channel is for that thread only.
        """
        if _library.name != "trio":
            await _yield_once()
        try:
            return await self._recv()
        except _TRANSLATED as error:
            raise _translated(error, _RECEIVING) from error

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "receive" in vars(cls) and "__anext__" not in vars(cls):  # as in AnyIO: `async for` calls its own receive()
            cls.__anext__ = abc.ObjectReceiveStream.__anext__  # type: ignore[method-assign]

    async def __anext__(self) -> T_co:
        if _library.name != "trio":
            await _yield_once()
        try:
            return await self._recv()
        except RecvError:
            raise StopAsyncIteration from None
        except _TRANSLATED as error:
            raise _translated(error, _RECEIVING) from error

    def receive_nowait(self) -> T_co:
        """Receive an item at once.

        Raises WouldBlock if there is none now, and what `receive()` raises.

        When it raised, it took nothing.  Safe from any thread; a local channel is for that thread only.
        """
        try:
            return self._try_recv()
        except _TRANSLATED as error:
            raise _translated(error, _RECEIVING) from error

    def close(self) -> None:
        """Close the receiver, and discard what was not received.

        Receives that wait raise ClosedResourceError, and sends BrokenResourceError.  Closing twice does nothing.
        Safe from any thread; a local channel is for that thread only.
        """
        self._receiver.close()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """How full the channel is and who uses it, in items or in bytes of the ring.  Threads that wait count as tasks.

        Safe from any thread.
        """
        return _statistics(self._receiver.statistics())

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.receiver: lambda: self._receiver}

    def __repr__(self) -> str:
        return f"<ReceiveStream over {self._receiver!r}>"


# ---- bytes without borders -------------------------------------------------------------------------------------------


class ByteSendStream(_Closing, abc.ByteSendStream):
    """ByteSendStream(sender)

    Makes a `ByteSendStream` of AnyIO of a sender of bytes.  What is longer than the channel's largest message is sent
    in pieces.

    >>> import anyio
    >>> from nexus_channels import spsc_bytes
    >>> from nexus_channels.anyio import ByteSendStream
    >>> async def main():
    ...     tx, rx = spsc_bytes.channel(1024)
    ...     await ByteSendStream(tx).send(b'bytes')
    ...     return rx.try_recv_bytes()
    >>> anyio.run(main)
    b'bytes'

    Raises TypeError unless `sender` is a sender of a channel of bytes.
    For the tasks of one event loop; to close it is safe from any thread.
    """

    def __init__(self, sender: _BytesSender, /) -> None:
        self._sender: _BytesSender = _checked(sender, _BYTES_SENDERS, self, "a sender of a channel of bytes")
        self._is_sending = False

    async def send(self, item: "Buffer") -> None:
        """Send all of `item`; wait while the channel is full.

        Raises ClosedResourceError if this end was closed, BrokenResourceError if the receiver is gone,
        BusyResourceError while another task sends by this stream or a claim of the sender is open.

        Cancelled, it did not send, or of an item longer than `max_message_size` a part from its beginning.
        For the tasks of one event loop.
        """
        with memoryview(item) as view:
            if self._is_sending:
                raise BusyResourceError(_SENDING)
            self._is_sending = True
            try:
                if not _on_trio():
                    await _yield_once()
                if 0 < view.nbytes <= self._sender.max_message_size:
                    await self._sender.send(view)
                else:
                    await self._send_pieces(view)
            except _TRANSLATED as error:
                if isinstance(error, SendError):
                    error.value = item  # not a view of it
                raise _translated(error, _SENDING) from error
            finally:
                self._is_sending = False

    async def _send_pieces(self, view: memoryview) -> None:
        if view.nbytes == 0:
            if _on_trio():
                await checkpoint()
            if self._sender.is_closed:
                raise ClosedResourceError
            return
        if not view.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")
        # The largest message fits only once the receiver has taken all that was before.  In a large ring, smaller
        # pieces let both sides work at the same time; in a small one, more turns of the loop cost more than that gains.
        most = min(self._sender.max_message_size, max(self._sender.capacity // 4, _LEAST_PIECE))
        with view.cast("B") as data:
            for start in range(0, len(data), most):
                with data[start : start + most] as piece:
                    await self._sender.send(piece)

    def close(self) -> None:
        """Close the sender.  The receiver gets what was sent, and then the end.

        Sends that wait raise ClosedResourceError.  Closing twice does nothing.  Safe from any thread.
        """
        self._sender.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.sender: lambda: self._sender}

    def __repr__(self) -> str:
        return f"<ByteSendStream over {self._sender!r}>"


class ByteReceiveStream(_Closing, abc.ByteReceiveStream):
    """ByteReceiveStream(receiver)

    Makes a `ByteReceiveStream` of AnyIO of a receiver of bytes.

    >>> import anyio
    >>> from nexus_channels import spsc_bytes
    >>> from nexus_channels.anyio import ByteReceiveStream
    >>> async def main():
    ...     tx, rx = spsc_bytes.channel(1024)
    ...     tx.try_send(b'some bytes')
    ...     stream = ByteReceiveStream(rx)
    ...     return await stream.receive(4), await stream.receive()
    >>> anyio.run(main)
    (b'some', b' bytes')

    The rest of a message that was received in part stays in the ring until it is received; meanwhile the receiver
    itself is lent, and raises `BusyError`.

    Raises TypeError unless `receiver` is a receiver of a channel of bytes.
    For the tasks of one event loop.
    """

    def __init__(self, receiver: _BytesReceiver, /) -> None:
        self._receiver: _BytesReceiver = _checked(receiver, _BYTES_RECEIVERS, self, "a receiver of a channel of bytes")
        self._is_receiving = False
        self._claim: ReadClaim | None = None  # a message of which a part was received: the first `_at` bytes
        self._at = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte and at most `max_bytes`, all of one message; wait while the channel is empty.

        Raises TypeError unless `max_bytes` is an int, ValueError if it is below 1, EndOfStream when every sender is
        gone and everything was received, ClosedResourceError if this end was closed, BusyResourceError while another
        task receives by this stream or a claim of the receiver is open, BrokenResourceError once if the receiver's
        `release()` dropped the rest of a message.

        Cancelled, it took nothing.  For the tasks of one event loop.
        """
        max_bytes = operator.index(max_bytes)
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be a positive integer, not {max_bytes}")
        if self._is_receiving:
            raise BusyResourceError(_RECEIVING)
        self._is_receiving = True
        try:
            if not _on_trio():
                await _yield_once()
            elif self._claim is not None:
                await checkpoint()
            if self._claim is None:
                if max_bytes >= self._receiver.max_message_size:
                    return await self._receiver.recv_bytes()
                self._claim, self._at = await self._receiver.recv(), 0
            return self._take(self._claim, max_bytes)
        except _TRANSLATED as error:
            raise _translated(error, _RECEIVING) from error
        finally:
            self._is_receiving = False

    def _take(self, claim: ReadClaim, max_bytes: int) -> bytes:
        start = self._at
        try:
            end = min(start + max_bytes, len(claim))
            with claim[start:end] as view:
                data = bytes(view)
        except ClaimReleased:  # by whoever called release() of the receiver: the rest of the message is gone
            self._claim = None
            raise
        self._at = end
        if end == len(claim):
            self._claim = None
            claim.release()
        return data

    def close(self) -> None:
        """Close the receiver, and discard what was not received.

        A receive that waits raises ClosedResourceError, and sends BrokenResourceError.  Closing twice does nothing.
        For the tasks of one event loop.
        """
        claim, self._claim = self._claim, None
        try:
            if claim is not None:
                with contextlib.suppress(ClaimReleased):  # by whoever called release() of the receiver
                    claim.release()
        finally:
            self._receiver.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.receiver: lambda: self._receiver}

    def __repr__(self) -> str:
        return f"<ByteReceiveStream over {self._receiver!r}>"


class ByteStream(ByteReceiveStream, ByteSendStream, abc.ByteStream):
    """ByteStream(sender, receiver)

    Makes a `ByteStream` of AnyIO of a sender of one channel of bytes and the receiver of another.

    >>> import anyio
    >>> from nexus_channels import spsc_bytes
    >>> from nexus_channels.anyio import ByteStream
    >>> there, back = spsc_bytes.channel(1024), spsc_bytes.channel(1024)
    >>> client = ByteStream(there.sender, back.receiver)
    >>> server = ByteStream(back.sender, there.receiver)
    >>> async def main():
    ...     await client.send(b'question')
    ...     await client.send_eof()
    ...     return [data async for data in server]
    >>> anyio.run(main)
    [b'question']

    Raises TypeError unless they are a sender and a receiver of channels of bytes.
    For the tasks of one event loop.
    """

    def __init__(self, sender: _BytesSender, receiver: _BytesReceiver, /) -> None:
        ByteSendStream.__init__(self, sender)
        ByteReceiveStream.__init__(self, receiver)

    async def send_eof(self) -> None:
        """Close the sender alone: the other side gets what was sent, and then the end.  It does not wait.

        Sends that wait, and later ones, raise ClosedResourceError.  Doing it twice does nothing.  Safe from any thread.
        """
        self._sender.close()

    def close(self) -> None:
        """Close both ends.  The other side gets what was sent; what was not received here is discarded.

        Calls that wait raise ClosedResourceError.  Closing twice does nothing.  For the tasks of one event loop.
        """
        ByteSendStream.close(self)
        ByteReceiveStream.close(self)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {ChannelAttribute.sender: lambda: self._sender, ChannelAttribute.receiver: lambda: self._receiver}

    def __repr__(self) -> str:
        return f"<ByteStream over {self._sender!r} and {self._receiver!r}>"
