"""How a result gets from a call to whoever awaits it: what carries it must keep nothing, and belongs to who catches it.

From CPython 3.12 on it is a StopIteration that is used again and again; see csrc/py_stop.c. The tests hold on all.
"""

import asyncio
import copy
import gc
import pickle
import sys
import threading
import weakref

import pytest
from support import DEADLINE, Spawned

from nexus_channels import spsc

POINTS = ["at once", "after a wait"]


class Value:
    pass


@pytest.fixture
def channel():
    return spsc.channel(4)


def stop_of(awaitable):
    """The StopIteration of a call that is ready."""
    try:
        next(awaitable.__await__())
    except StopIteration as stop:
        return stop
    raise AssertionError("it is not ready")


def ours():
    """All that there are, also that of a module that was imported anew."""
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, StopIteration) and "_core" in type(o).__module__]


def test_none_is_left_over(run, channel):
    tx, rx = channel

    async def main():
        for number in range(100):
            tx.try_send(number)
            assert stop_of(rx.recv()).value == number
            tx.try_send(number)
            assert await rx.recv() == number

    run(main())
    before = len(ours())
    run(main())
    assert len(ours()) == before


@pytest.mark.parametrize("point", POINTS)
def test_a_message_is_freed_as_soon_as_its_receiver_lets_go_of_it(run, channel, point):
    tx, rx = channel

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(3):
            values = [Value()]
            gone = weakref.ref(values[0])
            if point == "at once":
                tx.try_send(values.pop())
            else:
                loop.call_soon(lambda values=values: tx.try_send(values.pop()))
            received = await rx.recv()
            assert gone() is received
            del received
            assert gone() is None

    run(main())


def test_a_message_is_freed_at_once_although_another_thread_sleeps_that_made_a_call_before(channel):
    """Without a GIL, an object is freed by the thread that has made it, once that looks around."""
    tx, rx = channel
    called, over = threading.Event(), threading.Event()

    async def call():
        other_tx, _other_rx = spsc.channel(1)
        await other_tx.send(1)
        called.set()
        over.wait()

    async def main():
        for _ in range(3):
            values = [Value()]
            gone = weakref.ref(values[0])
            tx.try_send(values.pop())
            received = await rx.recv()
            assert gone() is received
            del received
            assert gone() is None

    other = Spawned(asyncio.run, call())
    try:
        assert called.wait(DEADLINE)
        asyncio.run(main())
    finally:
        over.set()
    other.join()


def test_a_stop_iteration_that_is_kept_stays_what_it_was(channel):
    tx, rx = channel
    kept = []
    for number in range(4):
        tx.try_send(number)
        kept.append(stop_of(rx.recv()))
    assert [stop.value for stop in kept] == [0, 1, 2, 3]
    assert len({id(stop) for stop in kept}) == 4


def test_what_somebody_did_to_it_is_not_seen_by_the_next(channel):
    tx, rx = channel
    for change in (
        lambda stop: stop.add_note("mine"),
        lambda stop: setattr(stop, "attribute", 1),
        lambda stop: setattr(stop, "args", (1, 2)),
        lambda stop: setattr(stop, "__cause__", ValueError()),
        lambda stop: setattr(stop, "__context__", ValueError()),
        lambda stop: setattr(stop, "__suppress_context__", True),
        lambda stop: setattr(stop, "value", "another"),
    ):
        tx.try_send("first")
        change(stop_of(rx.recv()))
        tx.try_send("second")
        stop = stop_of(rx.recv())
        assert stop.value == "second"
        assert not hasattr(stop, "attribute")
        assert not hasattr(stop, "__notes__")
        assert stop.args in ((), ("second",))
        assert (stop.__cause__, stop.__context__, stop.__suppress_context__) == (None, None, False)


@pytest.mark.parametrize("value", [(1, 2), ValueError("a value"), StopIteration("a value"), None, ()])
def test_any_value_comes_through(run, channel, value):
    tx, rx = channel

    async def main():
        tx.try_send(value)
        assert await rx.recv() is value

    run(main())


def test_one_that_the_collector_shows_is_not_used_again(run, channel):
    tx, rx = channel

    async def one(value):
        tx.try_send(value)
        assert await rx.recv() == value

    run(one("first"))
    shown = ours()
    run(one("second"))
    assert [stop.value for stop in shown] == [None] * len(shown)
    gc.collect()
    run(one("third"))


def test_one_that_the_collector_has_found_does_not_come_back(channel):
    """The circle is cleared first, and lets go of it; then it is cleared itself."""
    tx, rx = channel
    for number in range(20):
        circle = Value()
        circle.itself = circle
        tx.try_send(number)
        circle.stop = stop_of(rx.recv()).with_traceback(None)
        del circle
        gc.collect()
        tx.try_send("another")
        stop = stop_of(rx.recv())
        assert stop.value == "another"
        assert str(stop) in ("", "another")


def test_a_copy_is_an_ordinary_one(channel):
    tx, rx = channel
    tx.try_send((1, 2))
    stop = stop_of(rx.recv())
    for other in (copy.copy(stop), pickle.loads(pickle.dumps(stop))):
        assert type(other) is StopIteration
        if type(stop) is not StopIteration or stop.args:  # else it is a plain one, as without a GIL
            assert other.value == (1, 2)


def test_a_circle_through_it_is_collected(channel):
    tx, rx = channel
    value = Value()
    gone = weakref.ref(value)
    tx.try_send(value)
    stop = stop_of(rx.recv())
    value.stop = stop
    del value, stop
    gc.collect()
    assert gone() is None


def test_a_value_whose_end_awaits_another_one(run, channel):
    """The last reference to a message is dropped where nobody wanted it, and that sends and receives another."""
    tx, rx = channel
    others = []

    class Talkative:
        def __del__(self):
            tx.try_send("from its end")
            others.append(stop_of(rx.recv()).value)

    for _ in range(3):
        tx.try_send(Talkative())
        stop_of(rx.recv())
    assert others == ["from its end"] * 3

    async def main():
        tx.try_send("at last")
        assert await rx.recv() == "at last"

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
def test_a_debugger_that_sees_all_exceptions_sees_the_value(run, channel):
    tx, rx = channel
    seen = []
    tool, monitoring = 5, sys.monitoring
    monitoring.use_tool_id(tool, "tests")
    monitoring.register_callback(tool, monitoring.events.RAISE, lambda _code, _at, error: seen.append(error))
    monitoring.register_callback(tool, monitoring.events.STOP_ITERATION, lambda _code, _at, error: seen.append(error))

    async def main():
        for number in range(3):
            tx.try_send(number)
            assert await rx.recv() == number

    monitoring.set_events(tool, monitoring.events.RAISE | monitoring.events.STOP_ITERATION)
    try:
        run(main())
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert [error.value for error in seen if "_core" in type(error).__module__] in ([], [0, 1, 2])


def test_an_ended_call_that_is_kept_or_watched_is_not_used_again(run, channel):
    tx, rx = channel

    async def main():
        kept, watched = tx.send(1), tx.send(2)
        watch = weakref.ref(watched)
        await kept
        await watched
        del watched
        assert watch() is None
        later = tx.send(3)
        assert later is not kept
        await later
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await kept

    run(main())
    assert rx.try_recv_many(4) == [1, 2, 3]


def test_an_ended_call_that_is_watched_after_its_end_is_not_used_again(run, channel):
    tx, _rx = channel

    async def main():
        call = tx.send(1)
        await call
        watch = weakref.ref(call)
        del call
        later = tx.send(2)
        assert watch() is not later
        await later

    run(main())
