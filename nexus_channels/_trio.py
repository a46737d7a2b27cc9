"""What a wait in a task of trio takes of trio: the one place that knows trio's names, for `csrc/py_trio.c`.

trio is never imported from here: `tools` is called with the module that the program has imported, when a task of trio
first awaits a channel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


class Deadline:
    """A time-out on the clock of a trio run. Each wait of the call has a cancel scope with this deadline."""

    __slots__ = ("when",)

    def __init__(self, when: float) -> None:
        self.when = when

    def cancel(self) -> None:
        """Nothing has to be taken back: the cancel scope ended with its wait."""


def tools(trio: ModuleType) -> tuple[object, ...]:
    """Everything that `py_trio.c` calls, in the order of its `enum`."""
    lowlevel = trio.lowlevel
    wait_task_rescheduled = lowlevel.wait_task_rescheduled
    wait_readable = lowlevel.wait_readable

    def deadline(seconds: float) -> Deadline:
        return Deadline(trio.current_time() + seconds)

    async def wait_until(abort: Callable[[object], object], deadline: Deadline) -> bool:
        """Wait as `wait_task_rescheduled` does, but no longer than until the deadline; was that it?"""
        with trio.CancelScope(deadline=deadline.when) as scope:
            await wait_task_rescheduled(abort)
        return bool(scope.cancelled_caught)

    async def serve(fd: int, wake: Callable[[], object], end: Callable[[], object]) -> None:
        """The system task that reads a descriptor for a run, and so wakes the tasks that wait on channels."""
        try:
            await wait_readable(fd)
            while wake() is not True:
                await wait_readable(fd)
        finally:
            end()

    def spawn(fd: int, wake: Callable[[], object], end: Callable[[], object]) -> object:
        return lowlevel.spawn_system_task(serve, fd, wake, end, name="<nexus_channels: wake-ups from other threads>")

    def soon(token: Any, callback: Callable[[], object]) -> object:
        return token.run_sync_soon(callback)

    def finished(token: Any) -> bool:
        """Whether that run has ended; it is asked by a callback that does nothing."""
        try:
            token.run_sync_soon(_nothing, idempotent=True)
        except trio.RunFinishedError:
            return True
        return False

    def current_task_or_none() -> object:
        try:
            return lowlevel.current_task()
        except RuntimeError:
            return None

    # `in_trio_task` came later than the thread-local, which tells asyncio's tasks from trio's at the least cost.
    in_task = getattr(lowlevel, "in_trio_task", None)
    sniffio = sys.modules.get("sniffio")
    library = getattr(sniffio, "thread_local", None) if in_task is not None else None
    return (
        trio,
        library,
        in_task or current_task_or_none,
        lowlevel.current_task,
        lowlevel.current_trio_token,
        lowlevel.reschedule,
        lowlevel.checkpoint_if_cancelled,
        lowlevel.cancel_shielded_checkpoint,
        lowlevel.checkpoint,
        wait_task_rescheduled,
        wait_until,
        deadline,
        spawn,
        soon,
        finished,
        lowlevel.Abort.SUCCEEDED,
        lowlevel.Abort.FAILED,
    )


def _nothing() -> None:
    pass
