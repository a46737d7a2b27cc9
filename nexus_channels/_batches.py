"""Sending what an async iterator gives, which takes a coroutine of Python's own."""

from collections.abc import AsyncIterable
from time import monotonic
from typing import Any

from .errors import TrySendError

__all__ = ["send_many"]


async def send_many(sender: Any, source: AsyncIterable[Any], timeout: float | None) -> None:
    """Send each value of `source` as it comes; an error's `.value` is the list of the one that was not sent.

    `timeout` is for the whole of it, in seconds; it is looked at between the values, and ends a wait for room.
    """
    deadline = None if timeout is None else monotonic() + timeout
    async for value in source:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            await sender.send(value, left)
        except TrySendError as error:
            error.value = [value]
            raise


send_many.__qualname__ = "Sender.send_many"
