"""Queues with the interfaces of `queue.Queue` and `asyncio.Queue`, over an `mpsc` channel.

`Queue(maxsize)` is one queue with two faces.  `sync_q` has the methods of `queue.Queue`, for threads; `async_q` has
those of `asyncio.Queue`, for tasks of any event loop.  Both may be used from any number of threads and loops at once.
The names are those of janus.  Programs that were written for one of the three need to change their import only.

>>> from nexus_channels.queue import Queue
>>> queue = Queue(2)
>>> queue.sync_q.put('value')
>>> queue.async_q.get_nowait()
'value'

`as_queue(channel)` makes such a queue of a channel that exists.
"""

import asyncio
import contextlib
import inspect
import operator
import queue
import sys
import weakref
from asyncio import QueueEmpty as AsyncQueueEmpty
from asyncio import QueueFull as AsyncQueueFull
from collections.abc import Callable, Coroutine
from queue import Empty as SyncQueueEmpty
from queue import Full as SyncQueueFull
from typing import Any, Generic, SupportsIndex, TypeAlias, TypeVar

from . import mpsc, spsc
from ._types import Channel, T, Uncopied
from .errors import Closed, RecvError

if sys.version_info >= (3, 13):
    SyncQueueShutDown = queue.ShutDown
    AsyncQueueShutDown = asyncio.QueueShutDown
else:
    SyncQueueShutDown = AsyncQueueShutDown = Closed

__all__ = [
    "AsyncQueue",
    "AsyncQueueEmpty",
    "AsyncQueueFull",
    "AsyncQueueShutDown",
    "BaseQueue",
    "Queue",
    "SyncQueue",
    "SyncQueueEmpty",
    "SyncQueueFull",
    "SyncQueueShutDown",
    "as_queue",
]

F = TypeVar("F", bound=Callable[..., object])

_Sender: TypeAlias = mpsc.Sender[T] | spsc.Sender[T]
_Receiver: TypeAlias = mpsc.Receiver[T] | spsc.Receiver[T]

_HOOKS = frozenset({"_init", "_qsize", "_put", "_get"})


def _coroutine_function(function: F) -> F:
    """Marks a method that returns an awaitable of C, for those who ask `iscoroutinefunction`."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


class _Hookless(Uncopied):
    """Refuses subclasses that rely on what `queue.Queue` and `asyncio.Queue` call to store an item."""

    __slots__ = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if hooks := sorted(name for name in _HOOKS if hasattr(cls, name)):
            raise TypeError(
                f"{cls.__qualname__} defines {', '.join(hooks)}, which a queue of nexus_channels never calls: its "
                "items are in a channel, in the order they were put"
            )


# What wakes those who join: under None, a channel that nobody sends into; none while nobody joins.
_Joined: TypeAlias = dict[None, Channel[spsc.Sender[None], spsc.Receiver[None]]]

# The same for the channels that as_queue() was given: all queues of a channel, which has one receiver, share it.
_shared: "weakref.WeakKeyDictionary[Any, _Joined]" = weakref.WeakKeyDictionary()


class _Ends(Generic[T]):
    """The ends of a queue's channel, and what wakes those who join."""

    __slots__ = ("_joined", "rx", "tx")

    def __init__(self, tx: _Sender[T], rx: _Receiver[T], joined: _Joined) -> None:
        self.tx = tx
        self.rx = rx
        self._joined = joined

    def rounds(self) -> int:
        """How often the count of unfinished items has come to zero by a `task_done()`."""
        return self.rx._tasks()[1]

    def busy(self, rounds: int) -> spsc.Receiver[None] | None:
        """A receiver that ends when no item is unfinished; None if that is so, or was so since `rounds`.

        Whoever joins makes the channel first, and then looks at the count.  `task_done()` changes the count first, and
        then looks for the channel.  So at least one of the two sees what the other did.
        """
        if self._idle_since(rounds):
            return None
        joined = self._joined.get(None) or self._joined.setdefault(None, spsc.channel[None](1))
        return None if self._idle_since(rounds) else joined.receiver

    def _idle_since(self, rounds: int) -> bool:
        unfinished, now = self.rx._tasks()
        return unfinished == 0 or now != rounds

    def release(self) -> None:
        """Wake those who join."""
        if joined := self._joined.pop(None, None):
            joined.sender.close()

    def shutdown(self, immediate: bool) -> None:
        self.tx.close()
        if immediate:
            self.rx.close()
            if not self.rx._tasks()[0]:
                self.release()

    @property
    def closed(self) -> bool:
        return self.tx.is_closed or self.rx.is_closed

    def describe(self, thing: object) -> str:
        kind = type(thing)
        return (
            f"<{kind.__module__}.{kind.__qualname__} at {id(thing):#x} maxsize={self.tx.capacity} qsize={len(self.rx)}"
            f" unfinished_tasks={self.rx._tasks()[0]}{' closed' if self.closed else ''}>"
        )


class BaseQueue(_Hookless, Generic[T]):
    """What the two faces of a queue have in common: all that never waits.

    >>> from nexus_channels.queue import BaseQueue, Queue
    >>> queue = Queue(2)
    >>> isinstance(queue.sync_q, BaseQueue), isinstance(queue.async_q, BaseQueue)
    (True, True)

    Safe from any thread.
    """

    __slots__ = ("__weakref__", "_ends", "_rx", "_tx")

    def __init__(self, ends: _Ends[T], /) -> None:
        self._check(ends)
        self._ends = ends
        self._tx = ends.tx
        self._rx = ends.rx

    def _check(self, ends: object) -> None:
        if not isinstance(ends, _Ends):
            name = "async_q" if isinstance(self, AsyncQueue) else "sync_q"
            raise TypeError(f"{type(self).__qualname__} is a face of a queue: use Queue(maxsize).{name}")

    def put_nowait(self, item: T) -> None:
        """Put an item now.

        Raises `Full`, which is a `queue.Full` and an `asyncio.QueueFull`, if the queue is full; ShutDown after
        `shutdown()`.  When it raised, it put nothing.  Never waits: safe in signal handlers and finalisers.  Safe from
        any thread.
        """
        self._tx.try_send(item)

    def get_nowait(self) -> T:
        """Take an item now.

        Raises `Empty`, which is a `queue.Empty` and an `asyncio.QueueEmpty`, if there is none; ShutDown after
        `shutdown()`, once the queue is empty.  When it raised, it took nothing.  Never waits.  Safe from any thread.
        """
        return self._rx.try_recv()

    def task_done(self) -> None:
        """Report that an item that was taken has been worked off.

        Call it once for each item.  When every item that was put has been reported, `join()` returns.

        Raises ValueError if it is called more often than items were put.  Never waits.  Safe from any thread.
        """
        if self._rx._task_done():
            self._ends.release()

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue: `put()` raises ShutDown from now on, and `get()` does once the queue is empty.

        With `immediate`, the items in the queue are discarded, and count as reported by `task_done()`.  Calls that wait
        are woken: puts, gets that will find nothing, and joins if no item is unfinished.

        What is raised is `queue.ShutDown` and `asyncio.QueueShutDown`; before Python 3.13, `nexus_channels.Closed`.
        Idempotent.  Never waits.  Safe from any thread.
        """
        self._ends.shutdown(immediate)

    def qsize(self) -> int:
        """How many items are in the queue.  Safe from any thread."""
        return len(self._rx)

    def empty(self) -> bool:
        """True if no item is in the queue.  Another thread may put one at any time.  Safe from any thread."""
        return len(self._rx) == 0

    def full(self) -> bool:
        """True if `maxsize` items are in the queue.  Another thread may take one at any time.  Safe from any thread."""
        return len(self._tx) >= self._tx.capacity

    @property
    def maxsize(self) -> int:
        """How many items the queue holds at most."""
        return self._tx.capacity

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put, and not yet reported by `task_done()` or discarded by `shutdown()`."""
        return self._rx._tasks()[0]

    @property
    def closed(self) -> bool:
        """True after `shutdown()`."""
        return self._ends.closed

    @property
    def is_shutdown(self) -> bool:
        """The same as `closed`, by the name that `queue.Queue` has for it."""
        return self._ends.closed

    def __repr__(self) -> str:
        return self._ends.describe(self)


class SyncQueue(BaseQueue[T]):
    """The face of a queue for threads, with the interface of `queue.Queue`.  `Queue.sync_q` is one.

    >>> from nexus_channels.queue import Queue
    >>> queue = Queue(2).sync_q
    >>> queue.put('value')
    >>> queue.get(timeout=1)
    'value'

    Safe from any thread.
    """

    __slots__ = ()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; wait while the queue is full.

        Waits at most `timeout` seconds if that is not None, and not at all if `block` is false.

        Raises `Full`, which is a `queue.Full`, if the queue stayed full; ShutDown after `shutdown()`, also during the
        wait; ValueError if `timeout` is negative; what a signal handler raises.  When it raised, it put nothing.  Waits
        without the GIL.  Safe from any thread.
        """
        if block:
            self._tx.send_blocking(item, timeout)
        else:
            self._tx.try_send(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item; wait while the queue is empty.

        Waits at most `timeout` seconds if that is not None, and not at all if `block` is false.  Calls that wait are
        served first come, first served, whether they wait in threads or in tasks.

        Raises `Empty`, which is a `queue.Empty`, if the queue stayed empty; ShutDown after `shutdown()`, once the queue
        is empty; ValueError if `timeout` is negative; what a signal handler raises.  When it raised, it took nothing.
        Waits without the GIL.  Safe from any thread.
        """
        if block:
            return self._rx.recv_blocking(timeout)
        return self._rx.try_recv()

    def join(self) -> None:
        """Wait until no item is unfinished: until each one that was put has been reported by `task_done()`.

        Returns when the count of unfinished items has been zero at some moment since the call, also if another item
        was put since.  Raises what a signal handler raises.  Waits without the GIL.  Safe from any thread.
        """
        rounds = self._ends.rounds()
        while busy := self._ends.busy(rounds):
            with contextlib.suppress(RecvError):
                busy.recv_blocking()


class AsyncQueue(BaseQueue[T]):
    """The face of a queue for tasks, with the interface of `asyncio.Queue`.  `Queue.async_q` is one.

    >>> import asyncio
    >>> from nexus_channels.queue import Queue
    >>> async def main():
    ...     queue = Queue(2).async_q
    ...     await queue.put('value')
    ...     return await queue.get()
    >>> asyncio.run(main())
    'value'

    Not bound to an event loop.  Safe from any thread.
    """

    __slots__ = ()

    @_coroutine_function
    def put(self, item: T) -> Coroutine[Any, Any, None]:
        """Put an item; wait while the queue is full.  Await the result.

        Raises ShutDown after `shutdown()`, also if that comes during the wait.  Cancelled or timed out from outside, it
        put nothing.  Safe from any thread.
        """
        return self._tx.send(item)

    @_coroutine_function
    def get(self) -> Coroutine[Any, Any, T]:
        """Take an item; wait while the queue is empty.  Await the result.

        Calls that wait are served first come, first served, whether they wait in threads or in tasks.

        Raises ShutDown after `shutdown()`, once the queue is empty.  Cancelled or timed out from outside, it took
        nothing.  Safe from any thread.
        """
        return self._rx.recv()

    async def join(self) -> None:
        """Wait until no item is unfinished: until each one that was put has been reported by `task_done()`.

        Returns when the count of unfinished items has been zero at some moment since the call, also if another item
        was put since.  Cancelled, it changes nothing.  Safe from any thread.
        """
        rounds = self._ends.rounds()
        while busy := self._ends.busy(rounds):
            with contextlib.suppress(RecvError):
                await busy.recv()


class Queue(_Hookless, Generic[T]):
    """Queue(maxsize)

    A queue of at most `maxsize` items, for threads and tasks together.

    >>> import asyncio
    >>> from nexus_channels.queue import Queue
    >>> async def main():
    ...     queue = Queue(2)
    ...     putting = asyncio.to_thread(queue.sync_q.put, 'from a thread')
    ...     await asyncio.gather(putting, queue.async_q.join(), take(queue.async_q))
    >>> async def take(queue):
    ...     print(await queue.get())
    ...     queue.task_done()
    >>> asyncio.run(main())
    from a thread

    It needs no running event loop, and belongs to none.  Its memory is taken when it is made: about 8 bytes an item.
    When the queue and its faces are dropped, items that are still in it are freed.

    Raises ValueError if `maxsize` is less than 1: there are no unbounded queues.  TypeError unless it is an int,
    MemoryError if there is not that much.  Safe from any thread.
    """

    __slots__ = ("__weakref__", "_async_q", "_ends", "_sync_q")

    def __init__(self, maxsize: SupportsIndex = 0) -> None:
        try:
            size = operator.index(maxsize)
        except TypeError:
            raise TypeError(f"maxsize must be an int, not {type(maxsize).__name__}") from None
        if size < 1:
            raise ValueError(
                f"maxsize must be at least 1, not {size}: queues of nexus_channels are always bounded, so that a slow "
                "consumer holds its producers back instead of filling the memory"
            )
        channel: Channel[mpsc.Sender[T], mpsc.Receiver[T]] = mpsc.channel(size)
        self._connect(_Ends(channel.sender, channel.receiver, {}))

    def _connect(self, ends: _Ends[T]) -> None:
        self._ends = ends
        self._sync_q = SyncQueue(self._ends)
        self._async_q = AsyncQueue(self._ends)

    @property
    def sync_q(self) -> SyncQueue[T]:
        """The face for threads."""
        return self._sync_q

    @property
    def async_q(self) -> AsyncQueue[T]:
        """The face for tasks."""
        return self._async_q

    @property
    def maxsize(self) -> int:
        """How many items the queue holds at most."""
        return self._ends.tx.capacity

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put, and not yet reported by `task_done()` or discarded."""
        return self._sync_q.unfinished_tasks

    @property
    def closed(self) -> bool:
        """True after `shutdown()` and `close()`."""
        return self._ends.closed

    @property
    def is_shutdown(self) -> bool:
        """The same as `closed`, by the name that culsans has for it."""
        return self._ends.closed

    def shutdown(self, immediate: bool = False) -> None:
        """The same as `shutdown()` of either face.  Idempotent.  Never waits.  Safe from any thread."""
        self._ends.shutdown(immediate)

    def close(self) -> None:
        """The same as `shutdown(immediate=True)`.  Idempotent.  Never waits.  Safe from any thread."""
        self._ends.shutdown(True)

    async def wait_closed(self) -> None:
        """Wait until the queue is closed, as janus has it.  Nothing is left to wait for after `close()`.

        Raises RuntimeError if the queue is not closed.  Safe from any thread.
        """
        if not self._ends.closed:
            raise RuntimeError("Waiting for non-closed queue: call close() or shutdown() before wait_closed()")

    async def aclose(self) -> None:
        """Close the queue, as `close()` does.  Never waits.  Safe from any thread."""
        self._ends.shutdown(True)

    def __repr__(self) -> str:
        return self._ends.describe(self)


def as_queue(channel: Channel[_Sender[T], _Receiver[T]] | tuple[_Sender[T], _Receiver[T]], /) -> Queue[T]:
    """Make a queue of the sender and the receiver of an `spsc` or `mpsc` channel.

    >>> from nexus_channels import mpsc
    >>> from nexus_channels.queue import as_queue
    >>> tx, rx = mpsc.channel(2)
    >>> queue = as_queue((tx, rx)).sync_q
    >>> tx.try_send('value')
    >>> queue.get()
    'value'

    The queue uses these two ends, which may be used beside it, also by another queue of the same channel.  All that is
    sent into the channel counts for `join()`; what was received before the first call of `as_queue` does not.
    `shutdown()` closes the sender: as long as a clone of it is open, `get()` goes on to wait for items.  Discard by
    `shutdown(immediate=True)`, not by `rx.close()`, which does not wake a `join()`.

    Raises TypeError if these are not such ends, ValueError if they are not those of one channel.  Safe from any thread.
    """
    tx, rx = channel
    _check_ends(tx, rx)
    if not tx.same_channel(rx):
        raise ValueError("as_queue() takes the two ends of one channel; these are of two channels")
    rx._tally()
    made: Queue[T] = Queue.__new__(Queue)
    made._connect(_Ends(tx, rx, _shared.setdefault(rx, {})))  # pyright: ignore[reportPrivateUsage]
    return made


def _check_ends(tx: object, rx: object) -> None:
    names = " and ".join(f"{type(end).__module__}.{type(end).__qualname__}" for end in (tx, rx))
    if not isinstance(tx, mpsc.Sender | spsc.Sender) or not isinstance(rx, mpsc.Receiver | spsc.Receiver):
        raise TypeError(f"as_queue() takes the sender and the receiver of an spsc or mpsc channel, not {names}")
