"""A thread whose result, or failure, is not lost."""

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["spawn"]


class Spawned(threading.Thread):
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call = (function, args)
        self._error: BaseException | None = None
        self._result: Any = None

    def run(self) -> None:
        function, args = self._call
        try:
            self._result = function(*args)
        except BaseException as error:  # for join() to raise
            self._error = error

    def join(self, timeout: float | None = 60) -> Any:
        """What the function returned; raises what it raised."""
        super().join(timeout)
        if self._error is not None:
            raise self._error
        if self.is_alive():
            raise TimeoutError(f"{self._call[0].__qualname__} still runs after {timeout} s")
        return self._result


def spawn(function: Callable[..., Any], *args: Any) -> Spawned:
    thread = Spawned(function, *args)
    thread.start()
    return thread
