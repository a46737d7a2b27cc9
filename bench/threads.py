"""A thread whose result, or failure, is not lost; and one that does nothing but run bytecode."""

import contextlib
import threading
from collections.abc import Iterator

from nexus_channels._programs.bench.threads import spawn

__all__ = ["burning", "spawn"]


@contextlib.contextmanager
def burning(wanted: bool) -> Iterator[None]:
    """Beside a thread that never lets go of the GIL by itself."""
    stop: list[None] = []

    def burn() -> int:
        turns = 0
        while not stop:
            turns += 1
        return turns

    if not wanted:
        yield
        return
    thread = threading.Thread(target=burn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.append(None)
        thread.join()
