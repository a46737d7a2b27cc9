"""Awaitables are coroutines also where they are looked at, kept, chained and forgotten."""

import asyncio
import inspect
import sys
import warnings
import weakref

import pytest
from harness import run_child
from support import collect, drive

from nexus_channels import RecvError, spsc, spsc_bytes


def test_inspect_knows_the_state_of_an_awaitable(step_loop):
    tx, rx = spsc.channel(1)
    created = rx.recv()
    assert inspect.getcoroutinestate(created) == inspect.CORO_CREATED
    created.close()
    assert inspect.getcoroutinestate(created) == inspect.CORO_CLOSED
    waiting = rx.recv()
    task = step_loop.create_task(waiting)
    step_loop.run_ready()
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_SUSPENDED
    tx.try_send(1)
    step_loop.run_ready()
    assert task.result() == 1
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


def test_an_awaitable_has_weak_references():
    _tx, rx = spsc.channel(1)
    awaitable = rx.recv()
    alive = weakref.ref(awaitable)
    assert alive() is awaitable
    awaitable.close()
    del awaitable
    assert alive() is None


@pytest.mark.parametrize("form", ["send", "send_many", "claim"])
def test_calls_that_are_done_and_kept_do_not_keep_the_sender(step_loop, form):
    tx, rx = (spsc_bytes if form == "claim" else spsc).channel(64)
    value = {"send": 1, "send_many": [1, 2], "claim": 8}[form]
    kept = [step_loop.create_task(getattr(tx, form)(value))]
    step_loop.run_ready()
    if form == "claim":
        kept[0].result().commit()
    del tx
    collect()
    rx.try_recv_many(9)
    with pytest.raises(RecvError):
        rx.try_recv_many(9)
    assert kept[0].done()


def test_a_forgotten_await_is_told_with_the_place_where_it_was_made():
    tx, _rx = spsc.channel(1)
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(2)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            sending = tx.send(1)
            assert sending.cr_origin[0][0] == __file__
            del sending
            collect()
    finally:
        sys.set_coroutine_origin_tracking_depth(before)
    told = [str(warning.message) for warning in heard if "was never awaited" in str(warning.message)]
    assert len(told) == 1
    assert told[0].startswith("coroutine 'Sender.send' was never awaited\nCoroutine created at")
    assert "test_coroutine_faces.py" in told[0]


def test_closed_before_the_start_or_cancelled_before_it_is_silent(step_loop, recwarn):
    tx, rx = spsc.channel(1)
    tx.send(1).close()
    task = step_loop.create_task(rx.recv())
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    collect()
    assert list(recwarn) == []


def test_a_deep_chain_of_awaitables_is_freed():
    script = """
import warnings
warnings.simplefilter("ignore")
from nexus_channels import spsc
tx, rx = spsc.channel(1)
op = 1
for _ in range(300_000):
    op = tx.send(op)
del op
"""
    run_child(script, seconds=60)


def test_the_one_line_that_frameworks_take_for_a_coroutine_function():
    """A method in C cannot be marked as one; a function around it is one."""
    tx, rx = spsc.channel(1)

    async def send(value):
        await tx.send(value)

    assert inspect.iscoroutinefunction(send)
    if hasattr(inspect, "markcoroutinefunction"):
        with pytest.raises(AttributeError):
            inspect.markcoroutinefunction(tx.send)
    asyncio.run(send(1))
    assert drive(rx.recv()) == 1


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio shows call graphs since 3.14")
def test_the_call_graph_of_a_task_ends_at_the_call_that_it_waits_in():
    tx, rx = spsc.channel(1)

    async def consume():
        await rx.recv()

    async def main():
        task = asyncio.create_task(consume(), name="consumer")
        await asyncio.sleep(0)
        graph = asyncio.capture_call_graph(task)
        names = [entry.frame.f_code.co_name for entry in graph.call_stack]
        text = asyncio.format_call_graph(task)
        tx.try_send(1)
        await task
        return names, text

    names, text = asyncio.run(main())
    assert names == ["recv", "consume"]
    assert "recv()" in text
    assert "consumer" in text
