"""What the tests ask of an event loop, whichever kind runs: the names of asyncio, for asyncio's tasks and for trio's.

Under asyncio each is asyncio's own. Under trio a task is a `TrioTask`, which behaves as asyncio's do as far as the
tests can tell: it may be awaited, cancelled and asked for its outcome. What trio does differently is in test_trio.py.
"""

import asyncio
import contextlib
import contextvars
import importlib
import random
import sys

CancelledError = asyncio.CancelledError  # raised where a cancelled task is awaited, under both
nursery = contextvars.ContextVar("nursery")  # of the running test, under trio


def under_trio():
    sniffio = sys.modules.get("sniffio")
    return sniffio is not None and sniffio.thread_local.name == "trio"


def _trio():
    return sys.modules["trio"]


class InOrder(random.Random):
    """In place of trio's random generator, by which it would turn half of its batches round: now all of them.

    trio takes the last of a batch first, so tasks run in the order in which they were made ready, as asyncio's do.
    Where hypothesis is loaded, trio sorts each batch first; not meanwhile.
    """

    def random(self):
        return 0.0

    @classmethod
    @contextlib.contextmanager
    def scheduling(cls):
        run = importlib.import_module("trio._core._run")
        before = run._r, run._ALLOW_DETERMINISTIC_SCHEDULING
        run._r, run._ALLOW_DETERMINISTIC_SCHEDULING = cls(), False
        try:
            yield
        finally:
            run._r, run._ALLOW_DETERMINISTIC_SCHEDULING = before


class TrioTask:
    """A task of trio with the face of an asyncio.Task."""

    def __init__(self, awaitable, started_in):
        trio = _trio()
        self.scope = trio.CancelScope()
        self._awaitable = awaitable
        self._value = self._error = None
        self._over = trio.Event()
        self._task = None
        self._callbacks = []
        self._spreads = False  # its error ends the nursery, as in a TaskGroup
        started_in.start_soon(self._run)

    async def _run(self):
        self._task = _trio().lowlevel.current_task()
        try:
            with self.scope:
                self._value = await self._awaitable
        except Exception as error:
            self._error = error
            if self._spreads:
                raise
        finally:
            self._awaitable = None
            self._over.set()
            for callback in self._callbacks:
                callback(self)

    def cancel(self):
        """False if that has no effect: the task is done, or was woken and goes on first."""
        if self.done():
            return False
        runs = self._task is not None and self._task in self._task._runner.runq
        before = self.scope.cancel_called
        self.scope.cancel()
        return not runs or before

    def add_done_callback(self, callback):
        self._callbacks.append(callback)

    def done(self):
        return self._over.is_set()

    def cancelled(self):
        return self.done() and self.scope.cancelled_caught

    def exception(self):
        assert self.done()
        if self.cancelled():
            raise CancelledError
        return self._error

    def result(self):
        if error := self.exception():
            raise error
        return self._value

    async def over(self):
        await self._over.wait()

    def __await__(self):
        yield from self.over().__await__()
        return self.result()


class TrioGroup:
    """asyncio.TaskGroup, of tasks of trio."""

    async def __aenter__(self):
        self._manager = _trio().open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *error):
        return await self._manager.__aexit__(*error)

    def create_task(self, awaitable):
        task = TrioTask(awaitable, self._nursery)
        task._spreads = True
        return task


def create_task(awaitable):
    return TrioTask(awaitable, nursery.get()) if under_trio() else asyncio.create_task(awaitable)


def TaskGroup():  # noqa: N802
    return TrioGroup() if under_trio() else asyncio.TaskGroup()


def Event():  # noqa: N802
    return _trio().Event() if under_trio() else asyncio.Event()


async def sleep(seconds):
    await (_trio() if under_trio() else asyncio).sleep(seconds)


async def gather(*awaitables, return_exceptions=False):
    if not under_trio():
        return await asyncio.gather(*awaitables, return_exceptions=return_exceptions)
    tasks = [a if isinstance(a, TrioTask) else create_task(a) for a in awaitables]
    outcomes = []
    for task in tasks:
        try:
            outcomes.append(await task)
        except (Exception, CancelledError) as error:
            if not return_exceptions:
                raise
            outcomes.append(error)
    return outcomes


async def wait(tasks, timeout=None):
    if not under_trio():
        return await asyncio.wait(tasks, timeout=timeout)
    with _trio().move_on_after(float("inf") if timeout is None else timeout):
        for task in tasks:
            await task.over()
    done = {task for task in tasks if task.done()}
    return done, set(tasks) - done


@contextlib.asynccontextmanager
async def timeout(seconds):
    if under_trio():
        with _trio().move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise TimeoutError
    else:
        async with asyncio.timeout(seconds):
            yield


async def wait_for(awaitable, seconds):
    if not under_trio():
        return await asyncio.wait_for(awaitable, seconds)
    async with timeout(seconds):
        return await awaitable


def run_on_trio(coroutine, seconds):
    """`trio.run`, as asyncio.run does it: tasks that are left at the end are cancelled."""
    trio = _trio()

    async def main():
        async with trio.open_nursery() as own:
            nursery.set(own)
            with trio.fail_after(seconds):
                result = await coroutine
            own.cancel_scope.cancel()
        return result

    try:
        with InOrder.scheduling():
            return trio.run(main)
    except BaseExceptionGroup as group:  # from the nursery of main(), around the one error
        while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
            group = group.exceptions[0]
        raise group from None
    finally:
        coroutine.close()
