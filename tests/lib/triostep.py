"""A run of trio that its caller steps, task by task, with a clock of its own: to trio what steploop.py is to asyncio.

The loop of `trio.run` is a generator, which asks its driver for what the descriptors have. Here the test is the driver.
Tasks run in the order in which they were scheduled, one at each step. trio keeps the generator, the queue of tasks that
are ready and the deadlines under private names.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Coroutine

import aio
import outcome
import trio
from sniffio import thread_local as library
from trio._core import _run
from trio._core._traps import CancelShieldedCheckpoint
from trio.testing import MockClock


class OneAtATime(deque):
    """The queue of ready tasks. trio takes all of them at each turn; of this one it gets the first `limit`."""

    limit = 1

    def __iter__(self):
        return iter(list(itertools.islice(super().__iter__(), self.limit)))

    def clear(self):
        for _ in range(min(self.limit, len(self))):
            self.popleft()

    def everything(self):
        return list(super().__iter__())

    def __contains__(self, task):
        return any(task is other for other in super().__iter__())


class TrioStepLoop:
    kind = "trio"

    def __init__(self):
        self.errors = []
        self._closed = False
        self._clock = MockClock()
        self._in_order = aio.InOrder.scheduling()
        self._in_order.__enter__()
        self._runner = _run.setup_runner(self._clock, [], False, True)
        self._runner.runq = self._queue = OneAtATime()
        self._nursery = None
        self._events = []
        self._loop = _run.unrolled_run(self._runner, self._main, (), host_uses_signal_set_wakeup_fd=True)
        with self._on_loop():
            next(self._loop)
        self.run_ready()

    async def _main(self):
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    # Stepping

    def _turn(self, limit):
        self._queue.limit = limit
        events, self._events = self._events, []
        with self._on_loop(), contextlib.suppress(StopIteration):
            self._loop.send(events)

    def step(self):
        """Run the task that has been ready for longest, and whatever descriptors and deadlines make ready before."""
        if not self.pending():
            return False
        self._turn(1)
        return True

    def tick(self):
        due = len(self._queue)
        if self.pending():
            self._turn(max(due, 1))
        return due

    def run_ready(self, limit=100_000):
        for ran in range(limit):
            if not self.step():
                return ran
        raise AssertionError(f"still tasks ready after {limit} steps")

    def advance(self, seconds):
        end = self._now() + seconds
        self.run_ready()
        while (due := self.next_timer()) is not None and due <= end:
            self._clock.jump(max(due - self._now(), 0))
            self.run_ready()
        self._clock.jump(end - self._now())

    def skip(self, seconds):
        self._clock.jump(seconds)

    def call(self, function, *args):
        """Call `function` now, between two tasks; a step of an awaitable within a task, as only tasks can wait."""
        if isinstance(getattr(function, "__self__", None), Coroutine):
            return self.call_in_task(function, *args)
        return function(*args)

    def call_in_task(self, function, *args):
        """Call it as a task, ahead of all that are ready. If it waits, that task stays for as long as the loop."""
        calls, outcomes = [function], []
        del function  # the caller may drop an awaitable that waits

        async def hand():
            call = calls.pop()
            outcomes.append(outcome.capture(call, *args))
            while getattr(outcomes[0], "value", None) is CancelShieldedCheckpoint:  # it is ready
                outcomes[0] = outcome.capture(call, outcome.Value(None))
            del call
            with contextlib.suppress(trio.Cancelled):
                while type(getattr(outcomes[0], "value", None)).__name__ == "WaitTaskRescheduled":
                    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

        self._nursery.start_soon(hand)
        self._queue.rotate(1)
        self._queue.limit = 1
        with self._on_loop():
            self._loop.send([])  # what the descriptors have is for the next step
        return outcomes[0].unwrap()

    def wait_ready(self, deadline=20.0):
        end = time.monotonic() + deadline
        while not self.pending():
            assert time.monotonic() < end, f"nothing became ready within {deadline} s"
            time.sleep(0)

    def pending(self):
        due = self.next_timer()
        self._events += self._runner.io_manager.get_events(0)  # which tells of each once
        return len(self._queue) + len(self._events) + (due is not None and due <= self._now())

    def next_timer(self):
        due = self._runner.deadlines.next_deadline()
        return due if due < float("inf") else None

    def call_soon_threadsafe(self, function, *args):
        self._runner.entry_queue.run_sync_soon(function, *args)

    def create_task(self, awaitable):
        return aio.TrioTask(awaitable, self._nursery)

    def _now(self):
        return self._clock.current_time()

    @contextlib.contextmanager
    def _on_loop(self):
        before, library.name = library.name, "trio"
        try:
            yield
        finally:
            library.name = before

    def close(self):
        """End the run. Unlike a loop of asyncio it cancels what is left, as a run of trio cannot end otherwise."""
        if self._closed:
            return
        self._closed = True
        try:
            self._nursery.cancel_scope.cancel()
            self._queue.limit = 1
            with self._on_loop():
                for _ in range(100_000):
                    self.pending()
                    events, self._events = self._events, []
                    self._loop.send(events)
                raise AssertionError("the run does not end")
        except StopIteration:
            pass
        finally:
            self._in_order.__exit__(None, None, None)
        if isinstance(self._runner.main_task_outcome, outcome.Error):
            self.errors.append(self._runner.main_task_outcome.error)
