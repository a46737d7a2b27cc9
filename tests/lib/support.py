"""Plain functions the tests share: waiting for a state, threads whose failures are not lost, awaitables by hand.

Nothing here sleeps for a state to come about: a wait yields the processor until the state is seen, and fails at a
deadline.
"""

import gc
import os
import select
import threading
import time

import aio

# Slow builds (sanitizers, valgrind) raise it.
DEADLINE = float(os.environ.get("NEXUS_TEST_DEADLINE", "20"))


def until(condition, what="the awaited state"):
    """Yield to other threads until `condition()` is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about within {DEADLINE} s"
        time.sleep(0)


async def until_async(condition, what="the awaited state"):
    """Yield to the running loop, and so to other threads too, until `condition()` is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about within {DEADLINE} s"
        await aio.sleep(0)


def _waiting(endpoint, senders, receivers):
    def reached():
        stats = endpoint.statistics()
        return (senders is None or stats.waiting_senders == senders) and (
            receivers is None or stats.waiting_receivers == receivers
        )

    return reached, f"senders={senders}, receivers={receivers} waiting on {endpoint!r}"


def until_blocked(endpoint, *, senders=None, receivers=None):
    """Return once exactly so many senders and receivers wait in line, as `statistics()` counts them."""
    until(*_waiting(endpoint, senders, receivers))


async def until_parked(endpoint, *, senders=None, receivers=None):
    """`until_blocked` for use inside a task: other tasks of the loop go on meanwhile."""
    await until_async(*_waiting(endpoint, senders, receivers))


class Spawned:
    """A running thread. `join()` gives back what its function returned or raises what it raised."""

    def __init__(self, function, *args, **kwargs):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, function, args, kwargs):
        try:
            self._outcome = (function(*args, **kwargs), None)
        except BaseException as error:  # join() raises it again
            self._outcome = (None, error)

    @property
    def ident(self):
        return self._thread.ident

    def is_alive(self):
        return self._thread.is_alive()

    def wait(self):
        """Wait for the end of the thread, whatever its outcome."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"thread still running after {DEADLINE} s"

    def join(self):
        self.wait()
        value, error = self._outcome
        if error is not None:
            try:
                raise error
            finally:
                self._outcome = error = None
        return value


async def in_thread(function, *args, **kwargs):
    """Run `function` in a new thread and wait for it without stopping the loop."""
    thread = Spawned(function, *args, **kwargs)
    await until_async(lambda: not thread.is_alive(), "the end of the thread")
    return thread.join()


def drive(awaitable):
    """Run an awaitable that never has to wait, with no event loop, and give back its result."""
    coroutine = awaitable.__await__()
    try:
        yielded = coroutine.send(None) if hasattr(coroutine, "send") else next(coroutine)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(f"had to wait, yielding {yielded!r}")


async def turns(count=1):
    """Let the running loop go round `count` times."""
    for _ in range(count):
        await aio.sleep(0)


def collect():
    """A full garbage collection, twice: what a finaliser or callback of the first dropped goes in the second."""
    gc.collect()
    gc.collect()


class Item:
    """A value that can be told apart, weakly referenced, and given attributes to build cycles with."""

    def __init__(self, name="item"):
        self.name = name

    def __repr__(self):
        return f"Item({self.name!r})"


class Counted:
    """Values made by `new`; `freed` lists the names of those that are gone, in order, each time one goes."""

    def __init__(self):
        self.freed = []

    def new(self, name="item"):
        return _CountedItem(name, self.freed)


class _CountedItem:
    def __init__(self, name, freed):
        self._name = name
        self._freed = freed

    def __del__(self):
        self._freed.append(self._name)


def readable(notifier):
    """Would an event loop come by now?"""
    poll = select.poll()
    poll.register(notifier, select.POLLIN)
    return bool(poll.poll(0))
