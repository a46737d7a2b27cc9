"""A deterministic asyncio event loop that its caller steps, callback by callback, with a clock of its own.

    loop = StepLoop()
    task = loop.create_task(rx.recv())
    loop.step()                      # the oldest ready callback, here the first step of the task
    loop.call(tx.try_send, 1)        # something done on the loop, as a callback would do it
    tx.try_send(2)                   # something done on this thread, but not on the loop
    task.cancel()
    loop.run_ready()                 # everything that is ready, and what that makes ready, oldest first
    loop.advance(1.5)                # 1.5 seconds later: timers come due, in order
    assert loop.errors == []

Only ready callbacks run; nothing ever waits for the real clock. With `readers=False` the loop has no `add_reader`, as
some loops have none, so that wake-ups must come by `call_soon_threadsafe`.
"""

import asyncio
import collections
import contextlib
import heapq
import select
import sys
import threading
import time
from asyncio import events

ONE_TASK_A_THREAD = sys.version_info >= (3, 14)  # else each loop has a current task, also where loops run nested


class StepLoop(asyncio.AbstractEventLoop):
    kind = "asyncio"

    def __init__(self, *, readers=True, debug=False):
        self._ready = collections.deque()
        self._foreign = collections.deque()  # from call_soon_threadsafe, by any thread; appends are atomic
        self._timers = []
        self._now = 0.0
        self._order = 0
        self._readers = {}
        self._has_readers = readers
        self._debug = debug
        self._closed = False
        self._running = False
        self._owner = threading.get_ident()
        self._exception_handler = None
        self.errors = []  # contexts given to the exception handler, oldest first

    # Stepping

    def step(self):
        """Run the oldest ready callback; return whether there was one."""
        self._gather()
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                with self._on_loop():
                    handle._run()
                return True
        return False

    def tick(self):
        """One turn of the loop: what is ready now, and nothing that it makes ready. Return how many ran."""
        self._gather()
        due = len(self._ready)
        ran = 0
        for _ in range(due):
            if not self._ready:
                break
            handle = self._ready.popleft()
            if not handle.cancelled():
                with self._on_loop():
                    handle._run()
                ran += 1
        return ran

    def run_ready(self, limit=100_000):
        """Run until nothing is ready. Return how many callbacks ran. A loop that never calms down fails."""
        for ran in range(limit):
            if not self.step():
                return ran
        raise AssertionError(f"still callbacks ready after {limit} steps")

    def advance(self, seconds):
        """Let `seconds` pass: timers fire each at its own time, and what one makes ready runs before the next."""
        end = self._now + seconds
        self.run_ready()
        while (due := self.next_timer()) is not None and due <= end:
            self._now = max(self._now, due)
            self.run_ready()
        self._now = end

    def skip(self, seconds):
        """Let `seconds` pass without running anything: timers due by then are ready, behind what is ready already."""
        self._now += seconds
        self._gather()

    def call(self, function, *args):
        """Call `function` now, on the loop, as one of its callbacks would."""
        with self._on_loop():
            return function(*args)

    def wait_ready(self, deadline=20.0):
        """Wait, by yielding to other threads, until they have made something ready."""
        end = time.monotonic() + deadline
        while not self.pending():
            assert time.monotonic() < end, f"nothing became ready within {deadline} s"
            time.sleep(0)

    def pending(self):
        """How many callbacks are ready."""
        self._gather()
        return sum(not handle.cancelled() for handle in self._ready)

    def next_timer(self):
        """When the next timer is due, or None."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    @contextlib.contextmanager
    def _on_loop(self):
        before = events._get_running_loop()
        nested = ONE_TASK_A_THREAD and before is not None and before is not self
        task = asyncio.tasks._swap_current_task(before, None) if nested else None
        events._set_running_loop(self)
        self._running, self._owner = True, threading.get_ident()
        try:
            yield
        finally:
            self._running = False
            events._set_running_loop(before)
            if nested:
                asyncio.tasks._swap_current_task(before, task)

    def _gather(self):
        while self._foreign:
            self._ready.append(self._foreign.popleft())
        if self._readers:
            readable, _, _ = select.select(list(self._readers), [], [], 0)
            for fd in readable:
                handle = self._readers[fd]
                if handle not in self._ready:
                    self._ready.append(handle)
        while (due := self.next_timer()) is not None and due <= self._now:
            self._ready.append(heapq.heappop(self._timers)[2])

    # What asyncio asks of a loop

    def time(self):
        return self._now

    def call_soon(self, callback, *args, context=None):
        self._check()
        if threading.get_ident() != self._owner:
            raise RuntimeError("call_soon from a thread that does not run this loop")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        self._check()
        handle = asyncio.Handle(callback, args, self, context)
        self._foreign.append(handle)
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        self._check()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, timer))
        return timer

    def _timer_handle_cancelled(self, handle):
        pass  # next_timer() drops it

    def add_reader(self, fd, callback, *args):
        if not self._has_readers:
            raise NotImplementedError
        self._check()
        self._readers[_fileno(fd)] = asyncio.Handle(callback, args, self)

    def remove_reader(self, fd):
        if not self._has_readers:
            raise NotImplementedError
        handle = self._readers.pop(_fileno(fd), None)
        if handle is None:
            return False
        handle.cancel()
        return True

    create_future = asyncio.BaseEventLoop.create_future  # so that waits on it are as on asyncio's own loops

    def create_task(self, coro, **kwargs):
        self._check()
        return asyncio.Task(coro, loop=self, **kwargs)

    def get_task_factory(self):
        return None

    def run_until_complete(self, future):
        """Step until `future` is done, letting virtual time pass whenever nothing else can happen."""
        task = asyncio.ensure_future(future, loop=self)
        while not task.done():
            self.run_ready()
            if not task.done():
                due = self.next_timer()
                assert due is not None, "nothing is ready, no timer is set, and the future is not done"
                self._now = max(self._now, due)
        return task.result()

    def is_running(self):
        return self._running

    def is_closed(self):
        return self._closed

    def close(self):
        """Forget everything that was to run. Like any loop, it does not cancel tasks."""
        assert not self._running
        self._closed = True
        self._ready.clear()
        self._foreign.clear()
        self._timers.clear()
        self._readers.clear()

    async def shutdown_asyncgens(self):
        pass

    async def shutdown_default_executor(self, timeout=None):
        pass

    def get_debug(self):
        return self._debug

    def set_debug(self, enabled):
        self._debug = enabled

    def get_exception_handler(self):
        return self._exception_handler

    def set_exception_handler(self, handler):
        self._exception_handler = handler

    def default_exception_handler(self, context):
        self.errors.append(context)

    def call_exception_handler(self, context):
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)

    def _check(self):
        if self._closed:
            raise RuntimeError("Event loop is closed")


def _fileno(fd):
    return fd if isinstance(fd, int) else fd.fileno()
