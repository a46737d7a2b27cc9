"""One stream of what several receivers get: `merge`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ._core import Claiming, ReadClaim, Sending, select, select_blocking
from .errors import ClaimReleased, EndpointClosed, RecvError

if TYPE_CHECKING:
    from ._core import _Arm

__all__ = ["merge"]

T = TypeVar("T")


class merge(AsyncIterator[tuple["_Arm[T]", T]], Iterator[tuple["_Arm[T]", T]], Generic[T]):  # noqa: N801
    """merge(*receivers, biased=False)

    Iterate over what several receivers get, as `(receiver, value)`: by `async for` in a task, by `for` in a thread.
    It ends when all have ended.  Of bytes, the value is a ReadClaim, which ends when the next value is asked for, or
    the loop is left.

    >>> from nexus_channels import merge, spsc
    >>> (tx, rx), (tx2, rx2) = spsc.channel(2), spsc.channel(2)
    >>> with tx, tx2:
    ...     tx.try_send('first')
    ...     tx2.try_send('second')
    >>> for receiver, value in merge(rx, rx2):
    ...     print(receiver is rx2, value)
    False first
    True second

    Fair, or `biased`, as `select()` is.  A receiver that has ended, or that you close, is left out from then on.
    Raises what `select()` raises for such arms.  Cancelled, it took nothing.  Others may use the receivers meanwhile.
    Safe from any thread.
    """

    __slots__ = ("_biased", "_claim", "_open")

    def __init__(self, *receivers: "_Arm[T]", biased: bool = False) -> None:
        self._claim: ReadClaim | None = None
        for receiver in receivers:
            if isinstance(receiver, Sending | Claiming):
                raise TypeError(f"merge() takes receivers, not {type(receiver).__name__}")
        select(*receivers, biased=biased).close()  # raises what ails them
        self._open = list(receivers)
        self._biased = biased

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple["_Arm[T]", T]:
        self._release()
        while self._open:
            try:
                _, receiver, value = await select(*self._open, biased=self._biased)
            except (RecvError, EndpointClosed) as end:
                self._drop(end)
            else:
                return self._hand_out(receiver, value)
        raise StopAsyncIteration

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple["_Arm[T]", T]:
        self._release()
        while self._open:
            try:
                _, receiver, value = select_blocking(*self._open, biased=self._biased)
            except (RecvError, EndpointClosed) as end:
                self._drop(end)
            else:
                return self._hand_out(receiver, value)
        raise StopIteration

    def _hand_out(self, receiver: "_Arm[T]", value: T) -> tuple["_Arm[T]", T]:
        if isinstance(value, ReadClaim):
            self._claim = value
        return receiver, value

    def _drop(self, end: RecvError | EndpointClosed) -> None:
        """Go on without the arm that has ended."""
        self._open = [receiver for receiver in self._open if receiver is not end.arm]

    def _release(self) -> None:
        """End the claim that was handed out last; raises BufferError while views of it are used."""
        if self._claim is not None:
            with suppress(ClaimReleased):  # the loop's body has done it
                self._claim.release()
            self._claim = None

    def __del__(self) -> None:
        with suppress(BufferError):  # then the claim ends when it is dropped
            self._release()
