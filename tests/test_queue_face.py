"""The faces of `nexus_channels.queue`: the interfaces of queue.Queue and asyncio.Queue, task_done and join, the end."""

import asyncio
import collections
import contextlib
import copy
import gc
import inspect
import itertools
import logging.handlers
import pickle
import queue
import signal
import sys
import threading
import weakref

import pytest
from harness import FREE_THREADED, reuses_memory, run_child, size, takes_long
from steploop import StepLoop
from support import DEADLINE, Item, Spawned, collect, in_thread, until, until_async, until_blocked, until_parked

from nexus_channels import Closed, EndpointClosed, Full, local, mpsc, mpsc_bytes, spsc
from nexus_channels import queue as faces
from nexus_channels.queue import AsyncQueue, Queue, SyncQueue, as_queue

NEW = sys.version_info >= (3, 13)


def joiners(face):
    """How many calls of join() wait."""
    joined = face._ends._joined.get(None)
    return joined.receiver.statistics().waiting_receivers if joined else 0


# ---- making one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxsize", [1, 2, 3, 5, 7, 8, 1000])
def test_a_queue_holds_exactly_maxsize_items(maxsize):
    q = Queue(maxsize)
    for number in range(maxsize):
        assert not q.sync_q.full()
        q.sync_q.put_nowait(number)
    assert q.sync_q.full()
    assert q.async_q.full()
    assert q.maxsize == q.sync_q.maxsize == q.async_q.maxsize == q.sync_q.qsize() == maxsize
    with pytest.raises(queue.Full):
        q.sync_q.put_nowait(maxsize)
    assert [q.async_q.get_nowait() for _ in range(maxsize)] == list(range(maxsize))


@pytest.mark.parametrize("arguments", [(), (0,), (-1,)])
def test_a_queue_without_a_bound_is_refused_with_the_reason(arguments):
    with pytest.raises(ValueError, match=r"maxsize must be at least 1, not .*always bounded"):
        Queue(*arguments)


@pytest.mark.parametrize("maxsize", [1.0, "1", None])
def test_maxsize_is_an_int(maxsize):
    with pytest.raises(TypeError, match="maxsize must be an int, not"):
        Queue(maxsize)


def test_a_queue_needs_no_running_loop_and_has_the_same_faces_for_ever():
    q = Queue[int](maxsize=2)
    assert q.sync_q is q.sync_q
    assert q.async_q is q.async_q
    assert isinstance(q.sync_q, SyncQueue)
    assert isinstance(q.async_q, AsyncQueue)


@pytest.mark.parametrize("cls", [Queue, SyncQueue, AsyncQueue])
@pytest.mark.parametrize("hook", ["_init", "_qsize", "_put", "_get"])
def test_a_subclass_that_relies_on_hooks_is_refused(cls, hook):
    with pytest.raises(TypeError, match=f"Mine defines {hook}, which a queue of nexus_channels never calls"):
        type("Mine", (cls,), {hook: lambda self: None})


def test_a_base_class_that_brings_a_hook_along_is_refused_too():
    mixin = type("Mixin", (), {"_put": lambda self, item: None})
    with pytest.raises(TypeError, match="Mine defines _put"):
        type("Mine", (mixin, SyncQueue), {})


def test_a_subclass_may_have_keywords_for_other_bases():
    class Base:
        def __init_subclass__(cls, key):
            cls.key = key

    assert type("Mine", (Queue, Base), {}, key=3).key == 3


def test_a_subclass_may_override_public_methods():
    class Loud(SyncQueue):
        def put(self, item, block=True, timeout=None):
            super().put(item.upper(), block, timeout)

    q = Loud(Queue(1)._ends)
    q.put("item")
    assert q.get() == "ITEM"


@pytest.mark.parametrize(("cls", "name"), [(SyncQueue, "sync_q"), (AsyncQueue, "async_q")])
def test_a_face_is_not_made_by_itself(cls, name):
    with pytest.raises(TypeError, match=rf"use Queue\(maxsize\)\.{name}"):
        cls(10)


def test_what_is_shown_tells_how_full_it_is():
    q = Queue(3)
    q.sync_q.put(1)
    assert repr(q) == f"<nexus_channels.queue.Queue at {id(q):#x} maxsize=3 qsize=1 unfinished_tasks=1>"
    q.shutdown()
    face = q.async_q
    assert repr(face).startswith(f"<nexus_channels.queue.AsyncQueue at {id(face):#x} ")
    assert repr(face).endswith(" closed>")


def test_a_queue_is_always_true_and_can_be_referred_to_weakly_and_not_be_copied():
    q = Queue(1)
    for thing in (q, q.sync_q, q.async_q):
        assert thing
        assert weakref.ref(thing)() is thing
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"cannot copy or pickle '{type(thing).__name__}'"):
                attempt(thing)


def test_dropping_a_queue_and_its_faces_frees_what_is_in_it_at_once():
    q = Queue(2)
    face = q.sync_q
    item = Item()
    face.put(item)
    gone = weakref.ref(item)
    gc.disable()
    try:
        del item, q
        assert gone() is face.get()
        face.put(gone())
        del face
        assert FREE_THREADED or gone() is None
    finally:
        gc.enable()
    collect()
    assert gone() is None


# ---- the interfaces ------------------------------------------------------------------------------------------------


if sys.version_info >= (3, 12):
    is_coroutine_function = inspect.iscoroutinefunction
else:
    is_coroutine_function = asyncio.iscoroutinefunction


def parameters(function):
    return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("face", "standard"), [(SyncQueue, queue.Queue), (AsyncQueue, asyncio.Queue)])
def test_each_public_method_of_the_standard_queue_is_there_with_the_same_arguments(face, standard):
    names = {name for name in dir(standard) if not name.startswith("_")} - {"mro"}
    assert names >= {"put", "get", "put_nowait", "get_nowait", "task_done", "join", "qsize", "empty", "full"}
    for name in names:
        theirs = inspect.getattr_static(standard, name)
        if inspect.isfunction(theirs):
            assert parameters(getattr(face, name)) == parameters(theirs), name
            assert is_coroutine_function(getattr(face, name)) == is_coroutine_function(theirs), name
        else:
            assert inspect.getattr_static(face, name) is not None


def test_arguments_may_be_given_by_position_and_by_name_as_to_the_standard_queue():
    q = Queue(1).sync_q
    q.put("item", True, 5)
    with pytest.raises(queue.Full):
        q.put("more", False)
    with pytest.raises(queue.Full):
        q.put("more", 0, 5)
    with pytest.raises(queue.Full):
        q.put(item="more", block=True, timeout=0)
    with pytest.raises(queue.Full):
        q.put_nowait(item="more")
    assert q.get(True, 5) == "item"
    for arguments in ((False,), (False, 5), (True, 0), (True, 0.001)):
        with pytest.raises(queue.Empty):
            q.get(*arguments)


@pytest.mark.parametrize("room", [True, False])
def test_a_negative_timeout_is_a_value_error_and_changes_nothing(room):
    q = Queue(2).sync_q
    if not room:
        q.put(0), q.put(1)
    before = q.qsize(), q.unfinished_tasks
    with pytest.raises(ValueError, match="-1"):
        q.put("item", timeout=-1)
    with pytest.raises(ValueError, match="-1"):
        q.get(timeout=-1)
    assert (q.qsize(), q.unfinished_tasks) == before
    with contextlib.suppress(queue.Full):
        q.put("item", False, -1)  # a timeout means nothing if the call does not wait


def test_the_errors_are_those_of_queue_and_of_asyncio():
    q = Queue(1)
    assert faces.SyncQueueEmpty is queue.Empty
    assert faces.SyncQueueFull is queue.Full
    assert faces.AsyncQueueEmpty is asyncio.QueueEmpty
    assert faces.AsyncQueueFull is asyncio.QueueFull
    assert faces.SyncQueueShutDown is (queue.ShutDown if NEW else Closed)
    assert faces.AsyncQueueShutDown is (asyncio.QueueShutDown if NEW else Closed)
    with pytest.raises(queue.Empty):
        q.sync_q.get_nowait()
    with pytest.raises(asyncio.QueueEmpty):
        q.async_q.get_nowait()
    q.sync_q.put(1)
    with pytest.raises(Full) as full:
        q.async_q.put_nowait(2)
    assert isinstance(full.value, asyncio.QueueFull)
    assert isinstance(full.value, queue.Full)
    assert full.value.value == 2
    q.shutdown()
    for face, error in ((q.sync_q, faces.SyncQueueShutDown), (q.async_q, faces.AsyncQueueShutDown)):
        with pytest.raises(error):
            face.put_nowait(2)


def test_a_forgotten_await_is_warned_of():
    q = Queue(1).async_q
    with pytest.warns(RuntimeWarning, match="never awaited"):
        q.put(1)  # freed at once
    assert q.empty()


def test_threads_and_tasks_of_several_loops_use_one_queue():
    q = Queue(1)

    async def take():
        return await q.async_q.get()

    takers = [Spawned(asyncio.run, take()), Spawned(q.sync_q.get), Spawned(asyncio.run, take())]
    until_blocked(q._ends.rx, receivers=3)
    asyncio.run(q.async_q.put("first"))
    q.sync_q.put("second")
    q.sync_q.put("third")
    assert sorted(taker.join() for taker in takers) == ["first", "second", "third"]


def test_gets_of_threads_and_tasks_are_served_first_come_first_served():
    q = Queue(10)
    order = []

    def take_in_a_thread(name):
        order.append((name, q.sync_q.get()))

    async def take(name):
        order.append((name, await q.async_q.get()))

    waiting = []
    for number in range(6):
        if number % 2:
            waiting.append(Spawned(take_in_a_thread, number))
        else:
            waiting.append(Spawned(asyncio.run, take(number)))
        until_blocked(q._ends.rx, receivers=number + 1)
    for number in range(6):
        q.sync_q.put(number)
        until(lambda: len(order) == number + 1)  # noqa: B023 - it is called in this round
    assert order == [(number, number) for number in range(6)]
    for thread in waiting:
        thread.join()


def test_the_handler_of_the_standard_library_logs_through_a_face():
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    q = Queue(100).sync_q
    listener = logging.handlers.QueueListener(q, Keep())
    logger = logging.Logger("face")
    logger.addHandler(logging.handlers.QueueHandler(q))
    listener.start()
    for number in range(50):
        logger.info("message %d", number)
    listener.stop()
    assert records == [f"message {number}" for number in range(50)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes no queue listener before 3.12")
def test_dict_config_takes_a_face():
    import logging.config

    made = []

    def new():
        made.append(Queue(10).sync_q)
        return made[-1]

    handlers = {"out": {"class": "logging.NullHandler"}}
    handlers["q"] = {"class": "logging.handlers.QueueHandler", "queue": {"()": new}, "handlers": ["out"]}
    logging.config.dictConfig(
        {"version": 1, "handlers": handlers, "loggers": {"face": {"handlers": ["q"], "level": "INFO"}}}
    )
    logging.getLogger("face").info("message")
    logging.getLogger("face").handlers.clear()
    assert made[0].get_nowait().getMessage() == "message"


# ---- task_done and join --------------------------------------------------------------------------------------------


def test_task_done_once_too_often_is_a_value_error_and_changes_nothing():
    q = Queue(2).sync_q
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    q.put(1)
    q.task_done()  # also before it is taken, as with queue.Queue
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()
    assert (q.unfinished_tasks, q.qsize()) == (0, 1)
    q.put(2)
    assert q.unfinished_tasks == 1


def test_a_put_that_failed_does_not_count():
    q = Queue(1).sync_q
    q.put(1)
    for timeout in (0, 0.001):
        with pytest.raises(queue.Full):
            q.put(2, timeout=timeout)
    assert q.unfinished_tasks == 1


def test_join_returns_at_once_if_nothing_is_unfinished():
    q = Queue(1)
    q.sync_q.join()
    asyncio.run(q.async_q.join())
    assert q._ends._joined == {}


def test_the_last_task_done_wakes_the_joins_of_all_threads_and_loops():
    q = Queue(2)
    q.sync_q.put(1)
    q.sync_q.put(2)

    async def join_twice():
        await asyncio.gather(q.async_q.join(), q.async_q.join())

    waiting = [Spawned(q.sync_q.join), Spawned(asyncio.run, join_twice()), Spawned(asyncio.run, join_twice())]
    until(lambda: joiners(q) == 5)
    q.sync_q.task_done()
    assert joiners(q) == 5
    q.async_q.task_done()
    for thread in waiting:
        thread.join()


def test_join_waits_for_what_is_put_while_it_waits():
    q = Queue(2)
    q.sync_q.put(1)
    waiting = Spawned(q.sync_q.join)
    until(lambda: joiners(q) == 1)
    q.sync_q.put(2)
    q.sync_q.task_done()
    assert joiners(q) == 1
    q.sync_q.task_done()
    waiting.join()


def test_join_returns_if_the_count_was_zero_for_a_moment():
    """asyncio.Queue does the same; queue.Queue would wait on, for as long as items go on to come."""
    q = Queue(2)
    loop = StepLoop()
    q.sync_q.put(1)
    join = loop.create_task(q.async_q.join())
    loop.run_ready()
    q.sync_q.task_done()
    q.sync_q.put(2)
    loop.run_ready()
    assert join.done()
    assert q.unfinished_tasks == 1


def test_a_join_that_began_after_the_count_was_zero_is_not_woken_by_that_zero():
    """The thread of the last task_done() is halted before it wakes anybody."""
    q = Queue(2)
    q.sync_q.put(1)
    earlier = Spawned(q.sync_q.join)
    until(lambda: joiners(q) == 1)
    assert q._ends.rx._task_done()  # what task_done() does first
    q.sync_q.put(2)
    later = Spawned(q.sync_q.join)
    until(lambda: joiners(q) == 2)
    q._ends.release()  # and what it does then
    earlier.join()
    until(lambda: joiners(q) == 1)
    assert later.is_alive()
    q.sync_q.task_done()
    later.join()


def test_a_join_between_the_count_and_the_wake_up_does_not_wait_for_ever():
    q = Queue(2)
    q.sync_q.put(1)
    assert q._ends.rx._task_done()
    q.sync_q.join()
    q._ends.release()


def test_a_report_between_the_first_look_of_a_join_and_its_wait_is_seen(monkeypatch):
    q = Queue(2)
    q.sync_q.put(1)

    class Reporting:
        def __getitem__(self, _):
            return self

        def __call__(self, capacity):
            q.sync_q.task_done()
            return channel(capacity)

    channel = faces.spsc.channel
    monkeypatch.setattr(faces.spsc, "channel", Reporting())
    Spawned(q.sync_q.join).join()


def test_a_cancelled_join_leaves_the_others_waiting():
    q = Queue(2)

    async def main():
        await q.async_q.put(1)
        tasks = [asyncio.create_task(q.async_q.join()) for _ in range(3)]
        await until_async(lambda: joiners(q) == 3)
        tasks[0].cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(q.async_q.join(), 0.001)
        await until_async(lambda: joiners(q) == 2)
        assert not tasks[1].done()
        q.async_q.task_done()
        await asyncio.gather(*tasks[1:])
        assert tasks[0].cancelled()

    asyncio.run(main())


def test_a_signal_handler_may_report_the_last_item_under_the_join_that_it_interrupts():
    q = Queue(2)
    q.sync_q.put(1)
    before = signal.signal(signal.SIGUSR1, lambda *_: q.sync_q.task_done())
    try:
        main = threading.get_ident()

        def interrupt():
            until(lambda: joiners(q) == 1)
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = Spawned(interrupt)
        q.sync_q.join()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert q.unfinished_tasks == 0


def test_a_signal_handler_that_raises_ends_join_put_and_get_and_nothing_is_lost():
    q = Queue(1)
    q.sync_q.put(1)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        main = threading.get_ident()

        def interrupt(state):
            until(state)
            signal.pthread_kill(main, signal.SIGUSR1)

        ends = q._ends
        for call, state in (
            (q.sync_q.join, lambda: joiners(q) == 1),
            (lambda: q.sync_q.put(2), lambda: ends.tx.statistics().waiting_senders == 1),
            (lambda: (q.sync_q.get(), q.sync_q.get()), lambda: ends.rx.statistics().waiting_receivers == 1),
        ):
            thread = Spawned(interrupt, state)
            with pytest.raises(Stop):
                call()
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert q.unfinished_tasks == 1
    q.sync_q.put(3)
    assert q.sync_q.get_nowait() == 3


@takes_long()
def test_reports_of_many_threads_at_once_are_counted_exactly():
    for _ in range(size(20, 500)):
        q = Queue(200).sync_q
        for number in range(200):
            q.put(number)
        barrier = threading.Barrier(4)

        def report(q=q, barrier=barrier):
            barrier.wait()
            for reported in itertools.count():
                try:
                    q.task_done()
                except ValueError:
                    return reported
            raise AssertionError

        threads = [Spawned(report) for _ in range(4)]
        q.join()
        assert sum(thread.join() for thread in threads) == 200
        assert q.unfinished_tasks == 0


# ---- the end -------------------------------------------------------------------------------------------------------


def test_after_shutdown_what_is_there_is_taken_and_then_the_end():
    q = Queue(3)
    q.sync_q.put(1)
    q.sync_q.put(2)
    q.sync_q.shutdown()
    assert q.closed
    assert q.is_shutdown
    assert q.sync_q.closed
    assert q.async_q.is_shutdown
    with pytest.raises(faces.SyncQueueShutDown):
        q.sync_q.put(3, timeout=1)
    assert [q.sync_q.get(), q.async_q.get_nowait()] == [1, 2]
    for _ in range(2):
        with pytest.raises(faces.SyncQueueShutDown):
            q.sync_q.get()
        with pytest.raises(faces.AsyncQueueShutDown):
            q.async_q.get_nowait()
    q.sync_q.task_done()
    q.sync_q.task_done()
    q.sync_q.join()


def test_shutdown_wakes_puts_and_gets_of_threads_and_tasks():
    for immediate in (False, True):
        full, empty = Queue(1), Queue(1)
        full.sync_q.put(1)

        async def both(full=full, empty=empty):
            return await asyncio.gather(full.async_q.put(2), empty.async_q.get(), return_exceptions=True)

        tasks = Spawned(asyncio.run, both())
        threads = [Spawned(full.sync_q.put, 3), Spawned(empty.sync_q.get)]
        until_blocked(full._ends.tx, senders=2)
        until_blocked(empty._ends.rx, receivers=2)
        full.shutdown(immediate)
        empty.async_q.shutdown(immediate=immediate)
        assert all(isinstance(error, faces.AsyncQueueShutDown) for error in tasks.join())
        for thread in threads:
            with pytest.raises(faces.SyncQueueShutDown):
                thread.join()
        assert full.sync_q.qsize() == full.unfinished_tasks == (0 if immediate else 1)


def test_immediate_shutdown_takes_an_item_from_a_get_that_was_woken_for_it_and_has_not_run():
    q = Queue(2)
    loop = StepLoop()
    get = loop.create_task(q.async_q.get())
    loop.run_ready()
    q.sync_q.put(1)
    q.shutdown(immediate=True)
    assert q.sync_q.empty()
    assert q.unfinished_tasks == 0
    loop.run_ready()
    assert isinstance(get.exception(), faces.AsyncQueueShutDown)


def test_immediate_shutdown_ends_a_join_only_if_no_item_that_was_taken_is_unfinished():
    for taken in (0, 1):
        q = Queue(3)
        for number in range(3):
            q.sync_q.put(number)
        for _ in range(taken):
            q.sync_q.get()
        waiting = Spawned(q.sync_q.join)
        until(lambda: joiners(q) == 1)  # noqa: B023 - it is called in this round
        q.shutdown(True)
        assert q.unfinished_tasks == taken
        if taken:
            assert joiners(q) == 1
            q.sync_q.task_done()
        waiting.join()
        with pytest.raises(ValueError, match="too many times"):
            q.sync_q.task_done()


def test_items_discarded_by_shutdown_may_use_the_queue_while_they_are_freed():
    q = Queue(3)
    seen = []

    class Last:
        def __del__(self):
            q.sync_q.join()
            with contextlib.suppress(Closed):
                q.sync_q.put_nowait("more")
            seen.append(q.sync_q.qsize())

    q.sync_q.put(Last())
    q.sync_q.task_done()
    q.close()
    collect()
    assert seen == [0]


def test_the_life_cycle_of_janus():
    async def main():
        q = Queue(2)
        with pytest.raises(RuntimeError, match="non-closed"):
            await q.wait_closed()
        await q.async_q.put(1)
        q.close()
        await q.wait_closed()
        assert q.closed
        assert q.sync_q.empty()
        await q.async_q.join()
        q.close()
        await q.aclose()
        q.shutdown()

    asyncio.run(main())


# ---- of an existing channel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [spsc, mpsc])
def test_as_queue_uses_the_ends_of_a_channel(module):
    tx, rx = channel = module.channel(3)
    q = as_queue(channel)
    assert q.maxsize == 3
    tx.try_send("sent")
    q.sync_q.put("put")
    assert rx.try_recv() == "sent"
    assert q.sync_q.get() == "put"
    assert q.unfinished_tasks == 2
    with pytest.raises(TypeError):
        as_queue((rx, tx))


def test_as_queue_counts_what_is_in_the_channel_and_what_comes_and_not_what_was_received():
    tx, rx = mpsc.channel(5)
    for number in range(5):
        tx.try_send(number)
    assert rx.try_recv_many(2) == [0, 1]
    q = as_queue((tx, rx))
    assert q.unfinished_tasks == 3
    for _ in range(3):
        q.sync_q.get()
        q.sync_q.task_done()
    q.sync_q.join()
    q.sync_q.put(5)
    assert as_queue((tx, rx)).unfinished_tasks == 1, "a second queue of the channel shares the count"
    tx.clone().try_send(6)
    assert q.unfinished_tasks == 2


@pytest.mark.parametrize("end", ["task_done", "shutdown"])
@pytest.mark.parametrize("cloned", [False, True])
def test_a_join_returns_whichever_queue_of_the_channel_ends_it(cloned, end):
    tx, rx = mpsc.channel(2)
    first, second = as_queue((tx, rx)), as_queue((tx.clone() if cloned else tx, rx))
    first.sync_q.put(1)
    joins = Spawned(first.sync_q.join)
    until(lambda: joiners(first.sync_q) == 1)
    if end == "task_done":
        second.sync_q.get()
        second.sync_q.task_done()
    else:
        second.shutdown(immediate=True)
    joins.join()


def test_what_queues_of_a_channel_share_goes_with_the_channel():
    collect()
    before = len(faces._shared)
    ends = mpsc.channel(2)
    queues = [as_queue(ends) for _ in range(2)]
    assert len(faces._shared) == before + 1
    del ends, queues
    collect()
    assert len(faces._shared) == before


def test_a_clone_keeps_a_queue_of_its_channel_from_ending():
    tx, rx = mpsc.channel(2)
    clone = tx.clone()
    q = as_queue((tx, rx))
    q.shutdown()
    with pytest.raises(EndpointClosed):
        q.sync_q.put(1)
    clone.try_send(2)
    assert q.sync_q.get() == 2
    clone.close()
    with pytest.raises(faces.SyncQueueShutDown):
        q.sync_q.get()


@pytest.mark.parametrize("channel", [local.channel(1), mpsc_bytes.channel(64), ("tx", "rx")], ids=str)
def test_as_queue_refuses_other_channels_and_names_them(channel):
    with pytest.raises(TypeError, match=f"not {type(channel[0]).__module__}.{type(channel[0]).__qualname__} and "):
        as_queue(channel)


def test_as_queue_refuses_the_ends_of_two_channels():
    with pytest.raises(ValueError, match="two channels"):
        as_queue((mpsc.channel(1).sender, mpsc.channel(1).receiver))


# ---- all short programs, against a plain model ---------------------------------------------------------------------


class Model:
    """What queue.Queue and asyncio.Queue promise, for calls that come one after the other."""

    def __init__(self, maxsize):
        self.maxsize = maxsize
        self.items = collections.deque()
        self.unfinished = 0
        self.closed = False
        self.waiting = []  # [(kind, number of the task, item)], oldest first
        self.results = {}  # of the tasks that are done

    def put(self, item):
        if self.closed:
            return "ShutDown"
        if len(self.items) == self.maxsize:
            return "Full"
        self.items.append(item)
        self.unfinished += 1
        return None

    def get(self):
        if self.items:
            return self.items.popleft()
        return "ShutDown" if self.closed else "Empty"

    def task_done(self):
        if self.unfinished == 0:
            return "ValueError"
        self.unfinished -= 1
        return None

    def shutdown(self, immediate):
        self.closed = True
        if immediate:
            self.unfinished = max(0, self.unfinished - len(self.items))
            self.items.clear()

    def attempt(self, kind, item):
        if kind == "join":
            return "Wait" if self.unfinished else None
        return self.put(item) if kind == "put" else self.get()

    def start(self, kind, number, item):
        self.waiting.append((kind, number, item))

    def cancel(self):
        if self.waiting:
            self.results[self.waiting.pop(0)[1]] = "cancelled"

    def settle(self):
        """Let all that can go on go on, in the order in which they began to wait."""
        going = True
        while going:
            going = False
            for waiter in list(self.waiting):
                outcome = self.attempt(waiter[0], waiter[2])
                if outcome not in ("Wait", "Full", "Empty"):
                    self.results[waiter[1]] = outcome
                    self.waiting.remove(waiter)
                    going = True
                    break


def outcome_of(call, *arguments):
    try:
        return call(*arguments)
    except (faces.AsyncQueueShutDown, faces.SyncQueueShutDown):
        return "ShutDown"
    except queue.Full:
        return "Full"
    except queue.Empty:
        return "Empty"
    except ValueError:
        return "ValueError"


CALLS = {
    "put_nowait": lambda q, model, item: (outcome_of(q.sync_q.put_nowait, item), model.put(item)),
    "get_nowait": lambda q, model, _: (outcome_of(q.async_q.get_nowait), model.get()),
    "task_done": lambda q, model, _: (outcome_of(q.sync_q.task_done), model.task_done()),
    "shutdown": lambda q, model, _: (q.shutdown(), model.shutdown(False)),
    "close": lambda q, model, _: (q.close(), model.shutdown(True)),
}
STARTS = {
    "put": lambda q, item: q.async_q.put(item),
    "get": lambda q, _: q.async_q.get(),
    "join": lambda q, _: q.async_q.join(),
}
EVENTS = [*CALLS, *STARTS, "cancel"]


def run_program(loop, maxsize, program):
    q, model, tasks = Queue(maxsize), Model(maxsize), []
    for item, event in enumerate(program):
        if event in CALLS:
            ours, expected = CALLS[event](q, model, item)
            assert ours == expected, (program, item)
        elif event in STARTS:
            model.start(event, len(tasks), item)
            tasks.append(loop.create_task(STARTS[event](q, item)))
        else:
            for task in tasks:
                if not task.done():
                    task.cancel()
                    break
            model.cancel()
        loop.run_ready()
        model.settle()
        results = {
            n: outcome_of(t.result) if not t.cancelled() else "cancelled" for n, t in enumerate(tasks) if t.done()
        }
        assert results == model.results, (program, item)
        assert (q.sync_q.qsize(), q.unfinished_tasks) == (len(model.items), model.unfinished), (program, item)
        assert (q.closed, q.async_q.full()) == (model.closed, len(model.items) == maxsize)
    for task in tasks:
        task.cancel()
    loop.run_ready()


@takes_long()
@pytest.mark.parametrize("maxsize", [1, 2])
def test_every_short_program_does_what_the_model_does(maxsize):
    loop = StepLoop()
    for length in range(1, size(4, 6) + 1):
        for program in itertools.product(EVENTS, repeat=length):
            run_program(loop, maxsize, program)
    assert loop.errors == []


@pytest.mark.skipif(not NEW, reason="queue.Queue has no shutdown before 3.13")
@pytest.mark.parametrize("maxsize", [1, 2])
def test_every_short_program_without_waits_does_what_queue_queue_does(maxsize):
    calls = {
        "put": lambda q: q.put(1, block=False),
        "get": lambda q: q.get(False),
        "task_done": lambda q: q.task_done(),
        "shutdown": lambda q: q.shutdown(),
        "immediate": lambda q: q.shutdown(immediate=True),
    }
    for program in itertools.product(calls, repeat=size(5, 7)):
        ours, theirs = Queue(maxsize).sync_q, queue.Queue(maxsize)
        for call in program:
            assert outcome_of(calls[call], ours) == outcome_of(calls[call], theirs), program
            for name in ("unfinished_tasks", "is_shutdown"):
                assert getattr(ours, name) == getattr(theirs, name), program
            assert (ours.qsize(), ours.full(), ours.empty()) == (theirs.qsize(), theirs.full(), theirs.empty()), program


@takes_long()
@pytest.mark.parametrize("ending", [None, "shutdown", "close"])
def test_every_order_of_events_in_one_tick_is_accounted_for(ending):
    """Two waiting puts and gets, reports and cancellations, without a turn of the loop in between."""
    loop = StepLoop()
    events = ["put", "get", "join", "put_nowait", "get_nowait", "task_done", "cancel_put", "cancel_get"]
    orders = itertools.permutations(events[: size(6, 8)] + ([ending] if ending else []))
    for order in orders:
        q = Queue(1)
        q.sync_q.put("first")
        tasks = {name: loop.create_task(STARTS[name](q, name)) for name in STARTS}
        second = {name: loop.create_task(STARTS[name](q, name + " 2")) for name in ("put", "get")}
        loop.run_ready()
        done, took, put = 0, 0, 1
        for event in order:
            if event in STARTS:
                second[event + " 3"] = loop.create_task(STARTS[event](q, event + " 3"))
            elif event.startswith("cancel"):
                tasks[event[7:]].cancel()
            else:
                result = CALLS[event](q, Model(1), event)[0]
                put += event == "put_nowait" and result is None
                took += event == "get_nowait" and result not in ("Empty", "ShutDown")
                done += event == "task_done" and result is None
        loop.run_ready()
        ended = [
            (name, task) for name, task in [*tasks.items(), *second.items()] if task.done() and not task.cancelled()
        ]
        put += sum(name.startswith("put") and task.exception() is None for name, task in ended)
        took += sum(name.startswith("get") and task.exception() is None for name, task in ended)
        left = q.sync_q.qsize()
        if ending == "close":
            assert left == 0, order
            assert q.unfinished_tasks == max(0, took - done), order
        else:
            assert put == took + left, order
            assert q.unfinished_tasks == put - done, order
        for task in (*tasks.values(), *second.values()):
            task.cancel()
        loop.run_ready()
    assert loop.errors == []


# ---- traffic -------------------------------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize("maxsize", [1, 64])
def test_many_producers_and_consumers_in_threads_and_loops_lose_nothing(maxsize):
    q = Queue(maxsize)
    each = size(12_500, 125_000) if maxsize > 1 else size(1_000, 12_500)
    producers = 8

    def put_all(name):
        for number in range(each):
            q.sync_q.put((name, number))

    async def put_all_async(name):
        for number in range(each):
            await q.async_q.put((name, number))

    def take_all():
        taken = []
        with contextlib.suppress(faces.SyncQueueShutDown):
            while True:
                taken.append(q.sync_q.get())
                q.sync_q.task_done()
        return taken

    async def take_all_async():
        taken = []
        with contextlib.suppress(faces.AsyncQueueShutDown):
            while True:
                taken.append(await q.async_q.get())
                q.async_q.task_done()
        return taken

    async def two(function, *arguments):
        return await asyncio.gather(*(function(*argument) for argument in arguments))

    consuming = [Spawned(take_all) for _ in range(2)] + [Spawned(asyncio.run, two(take_all_async, (), ()))]
    producing = [Spawned(put_all, name) for name in range(4)]
    producing += [Spawned(asyncio.run, two(put_all_async, (name,), (name + 1,))) for name in (4, 6)]
    for thread in producing:
        while thread.is_alive():  # longer than one deadline, if need be
            thread._thread.join(DEADLINE)
        thread.join()
    q.sync_q.join()
    assert q.unfinished_tasks == q.sync_q.qsize() == 0
    q.shutdown()
    taken = [consuming[0].join(), consuming[1].join(), *consuming[2].join()]
    for items in taken:
        for name in range(producers):
            mine = [number for producer, number in items if producer == name]
            assert mine == sorted(mine), "the items of one producer come in order"
    assert sorted(itertools.chain(*taken)) == [(name, number) for name in range(producers) for number in range(each)]


@takes_long()
def test_joins_while_items_come_and_go_return_and_are_right():
    """Whoever puts an item and joins returns only after that item was reported."""
    q = Queue(4)
    reported = set()

    def work():
        with contextlib.suppress(faces.SyncQueueShutDown):
            while True:
                item = q.sync_q.get()
                reported.add(item)
                q.sync_q.task_done()

    def put_and_join(name):
        for number in range(size(300, 20_000)):
            q.sync_q.put((name, number))
            q.sync_q.join()
            assert (name, number) in reported

    async def put_and_join_async(name):
        for number in range(size(300, 20_000)):
            await q.async_q.put((name, number))
            await q.async_q.join()
            assert (name, number) in reported

    workers = [Spawned(work) for _ in range(2)]
    putting = [Spawned(put_and_join, 1), Spawned(put_and_join, 2), Spawned(asyncio.run, put_and_join_async(3))]
    for thread in putting:
        while thread.is_alive():  # longer than one deadline, if need be
            thread._thread.join(DEADLINE)
        thread.join()
    q.shutdown()
    for thread in workers:
        thread.join()


@takes_long()
def test_random_cancellations_and_timeouts_lose_nothing():
    q = Queue(2)
    count = size(200, 5_000)

    async def main():
        taken = []

        def produce():
            for number in range(count):
                while True:
                    try:
                        q.sync_q.put(number, timeout=0.0005)
                        break
                    except queue.Full:
                        pass
            q.shutdown()

        producing = asyncio.create_task(in_thread(produce))
        with contextlib.suppress(faces.AsyncQueueShutDown):
            while True:
                get = asyncio.ensure_future(q.async_q.get())
                await asyncio.sleep(0)
                get.cancel()
                try:
                    taken.append(await get)
                    q.async_q.task_done()
                except asyncio.CancelledError:
                    pass
        await producing
        assert taken == list(range(count))
        await q.async_q.join()

    asyncio.run(main())


# ---- processes -----------------------------------------------------------------------------------------------------


@reuses_memory
@takes_long()
def test_no_memory_stays_behind():
    script = """
import asyncio, gc, sys
from steploop import StepLoop
from nexus_channels.queue import Queue, as_queue
from nexus_channels import mpsc
loop = StepLoop()
kept = Queue(4)
def one_round():
    q = Queue(2)
    q.sync_q.put(object())
    q.sync_q.put_nowait(object())
    tasks = [loop.create_task(call) for call in (q.async_q.put(1), q.async_q.join(), q.async_q.join())]
    loop.run_ready()
    tasks[1].cancel()
    q.sync_q.get(); q.sync_q.task_done(); q.sync_q.get(True, 1); q.sync_q.task_done()
    loop.run_ready()
    q.shutdown(); q.shutdown(True); repr(q)
    loop.run_ready()
    as_queue(mpsc.channel(1)).sync_q.put(1)
    for bad in (q.sync_q.task_done, q.sync_q.get_nowait, lambda: Queue(0), lambda: q.sync_q.put(1)):
        try:
            bad()
        except Exception:
            pass
    kept.sync_q.put(1)
    join = loop.create_task(kept.async_q.join())
    loop.run_ready()
    join.cancel()
    loop.run_ready()
    kept.sync_q.get(); kept.sync_q.task_done()
    for task in tasks:
        if not task.cancelled():
            task.exception()
for _ in range(200):
    one_round()
best = None
for _ in range(10):
    gc.collect(); gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        one_round()
    gc.collect(); gc.collect()
    grown = sys.getallocatedblocks() - before
    best = grown if best is None else min(best, grown)
assert best < 40, best
"""
    run_child(script, seconds=60)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_counts_on_whatever_other_threads_were_at():
    script = f"""
import os, threading, warnings
from nexus_channels.queue import Queue
warnings.simplefilter("ignore")
q = Queue(8)
stop = threading.Event()
def traffic():
    while not stop.is_set():
        q.sync_q.put(1)
        q.sync_q.get()
        q.sync_q.task_done()
        q.sync_q.join()
threads = [threading.Thread(target=traffic) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range({size(30, 1000)}):
    child = os.fork()
    if child == 0:
        own = Queue(1)
        own.sync_q.put(1)
        own.sync_q.get()
        own.sync_q.task_done()
        own.sync_q.join()
        q.unfinished_tasks
        try:
            q.sync_q.task_done()
        except ValueError:
            pass
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
"""
    run_child(script, seconds=60)


def test_the_main_thread_may_end_while_others_wait_in_a_queue():
    script = """
import threading
from nexus_channels.queue import Queue
q = Queue(1)
q.sync_q.put(1)
for call in (q.sync_q.join, lambda: q.sync_q.put(2)):
    threading.Thread(target=call, daemon=True).start()
while not (q._ends._joined and q._ends.tx.statistics().waiting_senders):
    pass
print("end")
"""
    assert run_child(script, quiet=True) == "end\n"


def test_the_parked_are_seen_by_the_helpers_of_these_tests():
    async def main():
        q = Queue(1)
        get = asyncio.create_task(q.async_q.get())
        await until_parked(q._ends.rx, receivers=1)
        q.sync_q.put(1)
        assert await get == 1

    asyncio.run(main())
