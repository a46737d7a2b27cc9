"""Threads that hand back what they raise, and begin together."""

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["line_up", "spawn"]


class _Spawned(threading.Thread):
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


def spawn(function: Callable[..., Any], *args: Any) -> _Spawned:
    thread = _Spawned(function, *args)
    thread.start()
    return thread


def line_up(*calls: tuple[Any, ...]) -> tuple[list[_Spawned], Callable[[], None]]:
    """A thread for each (function, *arguments), and what makes them all begin: starting threads is not measured."""
    gates = [threading.Lock() for _ in calls]

    def behind(gate: Any, function: Callable[..., Any], *args: Any) -> Any:
        gate.acquire()
        return function(*args)

    def go() -> None:
        for gate in gates:
            gate.release()

    for gate in gates:
        gate.acquire()
    return [spawn(behind, gate, *call) for gate, call in zip(gates, calls, strict=True)], go
