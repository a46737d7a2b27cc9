"""The awaitables are coroutines as far as anyone can tell: asyncio takes them, and so does what drives coroutines."""

import asyncio
import collections.abc
import contextvars
import copy
import gc
import inspect
import pickle
import sys
import warnings
import weakref

import pytest
from support import Item, collect, drive, in_thread, turns

from nexus_channels import EndpointClosed, RecvTimeout, SendTimeout

FORMS = {
    "send": ("Sender.send", lambda tx, rx: tx.send(1)),
    "send_many": ("Sender.send_many", lambda tx, rx: tx.send_many([1])),
    "recv": ("Receiver.recv", lambda tx, rx: rx.recv()),
    "recv_many": ("Receiver.recv_many", lambda tx, rx: rx.recv_many(1)),
}
forms = pytest.mark.parametrize("form", FORMS)


def make(variant, form, *, ready):
    """An awaitable that will (not) have to wait, with its two endpoints."""
    tx, rx = variant.channel(1)
    if form.startswith("send") != ready:
        tx.try_send("filler")
    return FORMS[form][1](tx, rx), tx, rx


def unblock(tx, rx, form):
    if form.startswith("send"):
        rx.try_recv()
    else:
        tx.try_send(1)


def expected(form):
    """What the call gives once it is done; a receive that was ready got the filler."""
    return {"send": [None], "send_many": [None], "recv": [1, "filler"], "recv_many": [[1], ["filler"]]}[form]


def waiting(endpoint):
    stats = endpoint.statistics()
    return stats.waiting_senders + stats.waiting_receivers


# The protocol


@forms
def test_it_is_a_coroutine_by_every_test(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    assert isinstance(awaitable, collections.abc.Coroutine)
    assert isinstance(awaitable, collections.abc.Awaitable)
    assert asyncio.iscoroutine(awaitable)
    assert inspect.isawaitable(awaitable)


@forms
def test_it_knows_its_name(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    assert awaitable.__name__ == form
    assert awaitable.__qualname__ == FORMS[form][0]


@forms
def test_its_repr_names_the_call(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    assert FORMS[form][0] in repr(awaitable)


@forms
def test_its_await_gives_an_iterator(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    iterator = awaitable.__await__()
    assert isinstance(iterator, collections.abc.Iterator)


@forms
@pytest.mark.parametrize("ready", [True, False])
def test_an_awaitable_class_may_yield_from_its_await(variant, form, ready, run):
    awaitable, tx, rx = make(variant, form, ready=ready)

    class Wrapped:
        def __await__(self):
            return (yield from awaitable.__await__())

    async def main():
        task = asyncio.ensure_future(Wrapped())
        await turns(3)
        if not ready:
            unblock(tx, rx, form)
        return await task

    assert run(main()) in expected(form)


@forms
def test_a_ready_one_finishes_at_the_first_send(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with pytest.raises(StopIteration) as stopped:
        awaitable.send(None)
    assert stopped.value.value in expected(form)


@forms
def test_a_ready_one_finishes_at_the_first_next(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with pytest.raises(StopIteration) as stopped:
        next(awaitable.__await__())
    assert stopped.value.value in expected(form)


@pytest.mark.parametrize("value", [(), (1, 2), StopIteration(3), StopIteration, ValueError("x"), None])
def test_send_protocol_wraps_the_value_untouched(variant, value):
    tx, rx = variant.channel(1)
    tx.try_send(value)
    with pytest.raises(StopIteration) as stopped:
        rx.recv().send(None)
    assert stopped.value.value is value


@forms
def test_a_just_started_one_takes_no_value(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with pytest.raises(TypeError, match="non-None"):
        awaitable.send(5)
    assert drive(awaitable) in expected(form)


@forms
def test_it_yields_a_future_of_its_loop_while_it_waits(variant, form, step_loop):
    awaitable, tx, _rx = make(variant, form, ready=False)
    yielded = step_loop.call(awaitable.send, None)
    assert asyncio.isfuture(yielded)
    assert yielded.get_loop() is step_loop
    assert waiting(tx) == 1
    awaitable.close()


@forms
def test_close_before_the_start_does_nothing_and_ends_it(variant, form):
    awaitable, _tx, rx = make(variant, form, ready=True)
    before = len(rx)
    assert awaitable.close() is None
    awaitable.close()
    assert len(rx) == before
    with pytest.raises(RuntimeError):
        awaitable.send(None)
    assert len(rx) == before


@forms
def test_close_while_waiting_gives_up_the_place_in_line(variant, form, step_loop):
    awaitable, tx, rx = make(variant, form, ready=False)
    step_loop.call(awaitable.send, None)
    step_loop.call(awaitable.close)
    assert waiting(tx) == 0
    unblock(tx, rx, form)
    with pytest.raises(RuntimeError):
        step_loop.call(awaitable.send, None)


@forms
def test_close_after_the_end_does_nothing(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    drive(awaitable)
    awaitable.close()


@forms
def test_throw_before_the_start_raises_and_does_nothing(variant, form):
    awaitable, _tx, rx = make(variant, form, ready=True)
    before = len(rx)
    error = ZeroDivisionError("thrown")
    with pytest.raises(ZeroDivisionError) as raised:
        awaitable.throw(error)
    assert raised.value is error
    assert len(rx) == before
    with pytest.raises(RuntimeError):
        awaitable.send(None)


@forms
def test_throw_while_waiting_raises_and_gives_up_the_place_in_line(variant, form, step_loop):
    awaitable, tx, rx = make(variant, form, ready=False)
    step_loop.call(awaitable.send, None)
    before = len(rx)
    error = ZeroDivisionError("thrown")
    with pytest.raises(ZeroDivisionError) as raised:
        step_loop.call(awaitable.throw, error)
    assert raised.value is error
    assert waiting(tx) == 0
    assert len(rx) == before


@forms
def test_throw_after_the_end_is_a_runtime_error_or_the_error_itself(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    drive(awaitable)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        awaitable.throw(ZeroDivisionError)


@forms
def test_throw_takes_a_class(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with pytest.raises(ZeroDivisionError):
        awaitable.throw(ZeroDivisionError)


@forms
def test_throw_takes_the_old_three_arguments(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ZeroDivisionError, match="thrown"):
            awaitable.throw(ZeroDivisionError, ZeroDivisionError("thrown"), None)


@forms
def test_throw_refuses_what_is_no_exception(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with pytest.raises(TypeError):
        awaitable.throw(5)


# What asyncio does with coroutines


@forms
def test_create_task_takes_it(variant, form, run):
    awaitable, _tx, _rx = make(variant, form, ready=True)

    async def main():
        return await asyncio.create_task(awaitable)

    assert run(main()) in expected(form)


@forms
def test_create_task_takes_one_that_waits(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        task = asyncio.create_task(awaitable, name="waits")
        await turns(2)
        assert not task.done()
        unblock(tx, rx, form)
        return await task

    assert run(main()) in expected(form)


@forms
def test_a_task_around_it_can_be_printed_and_asked_for_its_stack(variant, form, run, capsys):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        task = asyncio.create_task(awaitable)
        await turns(2)
        assert form in repr(task)
        assert task.get_coro() is awaitable
        task.get_stack()
        task.print_stack()
        unblock(tx, rx, form)
        await task
        assert form in repr(task)

    run(main())


@forms
def test_gather_takes_it(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        async def later():
            await turns(2)
            unblock(tx, rx, form)

        return (await asyncio.gather(awaitable, later()))[0]

    assert run(main()) in expected(form)


@forms
def test_wait_for_takes_it(variant, form, run):
    awaitable, _tx, _rx = make(variant, form, ready=True)

    async def main():
        return await asyncio.wait_for(awaitable, 5)

    assert run(main()) in expected(form)


@forms
def test_wait_for_that_times_out_leaves_the_line(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)
    before = len(rx)

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(awaitable, 0.001)

    run(main())
    assert waiting(tx) == 0
    assert len(rx) == before


@forms
def test_asyncio_timeout_around_it_leaves_the_line(variant, form, step_loop):
    awaitable, tx, rx = make(variant, form, ready=False)
    before = len(rx)

    async def main():
        async with asyncio.timeout(1):
            await awaitable

    task = step_loop.create_task(main())
    step_loop.advance(2)
    assert isinstance(task.exception(), TimeoutError)
    assert waiting(tx) == 0
    assert len(rx) == before


@forms
def test_task_group_takes_it(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(awaitable)
            await turns(2)
            unblock(tx, rx, form)
        return task.result()

    assert run(main()) in expected(form)


@forms
def test_task_group_cancels_it_when_another_fails(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)
    before = len(rx)

    async def fail():
        await turns(2)
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(awaitable)
                group.create_task(fail())
        assert failed.group_contains(ZeroDivisionError)
        return task.cancelled()

    assert run(main())
    assert waiting(tx) == 0
    assert len(rx) == before


@forms
def test_shield_keeps_it_going(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        inner = asyncio.ensure_future(awaitable)
        outer = asyncio.ensure_future(asyncio.shield(inner))
        await turns(2)
        outer.cancel()
        await turns(2)
        assert outer.cancelled()
        unblock(tx, rx, form)
        return await inner

    assert run(main()) in expected(form)


@forms
def test_ensure_future_and_as_completed_take_it(variant, form, run):
    awaitable, _tx, _rx = make(variant, form, ready=True)

    async def main():
        for finished in asyncio.as_completed([awaitable]):
            return await finished

    assert run(main()) in expected(form)


@forms
def test_it_can_be_the_main_coroutine_of_a_runner(variant, form, loop_factory):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(awaitable) in expected(form)


@forms
def test_run_until_complete_takes_it(variant, form, loop_factory):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    loop = loop_factory()
    try:
        assert loop.run_until_complete(awaitable) in expected(form)
    finally:
        loop.close()


@forms
def test_run_coroutine_threadsafe_takes_it(threaded, form, run):
    awaitable, _tx, _rx = make(threaded, form, ready=True)

    async def main():
        loop = asyncio.get_running_loop()
        return await in_thread(lambda: asyncio.run_coroutine_threadsafe(awaitable, loop).result(10))

    assert run(main()) in expected(form)


def eager(loop, coro, **kwargs):
    """asyncio.eager_task_factory, which up to 3.13.2 does not take the eager_start that uvloop 0.23 passes on."""
    return asyncio.Task(coro, loop=loop, **{**kwargs, "eager_start": True})


@forms
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_that_need_not_wait_is_done_at_once(variant, form, run):
    awaitable, _tx, _rx = make(variant, form, ready=True)

    async def main():
        asyncio.get_running_loop().set_task_factory(eager)
        task = asyncio.create_task(awaitable)
        assert task.done()
        return task.result()

    assert run(main()) in expected(form)


@forms
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_waits_and_is_woken(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        asyncio.get_running_loop().set_task_factory(eager)
        task = asyncio.create_task(awaitable)
        assert waiting(tx) == 1
        await turns(2)
        assert not task.done()
        unblock(tx, rx, form)
        return await task

    assert run(main()) in expected(form)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_is_the_current_task_again_after_its_wait(variant, run):
    tx, rx = variant.channel(1)

    async def receive():
        before = asyncio.current_task()
        await rx.recv()
        return before is asyncio.current_task()

    async def main():
        asyncio.get_running_loop().set_task_factory(eager)
        here = asyncio.current_task()
        task = asyncio.create_task(receive())
        assert asyncio.current_task() is here
        await tx.send(1)
        return await task

    assert run(main())


@forms
def test_asyncio_debug_mode_takes_it(variant, form, run, recwarn):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def main():
        task = asyncio.create_task(awaitable)
        await turns(2)
        assert form in repr(task)
        unblock(tx, rx, form)
        return await task

    assert run(main(), debug=True) in expected(form)
    assert list(recwarn) == []


@forms
def test_it_runs_under_a_deep_chain_of_coroutines(variant, form, run):
    awaitable, tx, rx = make(variant, form, ready=False)

    async def deep(levels):
        return await (deep(levels - 1) if levels else awaitable)

    async def main():
        task = asyncio.create_task(deep(50))
        await turns(2)
        unblock(tx, rx, form)
        return await task

    assert run(main()) in expected(form)


def test_it_keeps_the_context_of_its_task(variant, run):
    tag = contextvars.ContextVar("tag")
    tx, rx = variant.channel(1)

    async def receive(name):
        tag.set(name)
        await rx.recv()
        return tag.get()

    async def main():
        first, second = (asyncio.create_task(receive(name)) for name in ("first", "second"))
        await turns(2)
        await tx.send(1)
        await tx.send(2)
        return await first, await second

    assert run(main()) == ("first", "second")


def test_waits_may_follow_each_other_in_one_task_any_number_of_times(variant, run):
    tx, rx = variant.channel(1)

    async def echo():
        return [await rx.recv() for _ in range(200)]

    async def main():
        echoing = asyncio.create_task(echo())
        for number in range(200):
            await tx.send(number)
        return await echoing

    assert run(main()) == list(range(200))


# Made ahead of time


def test_making_an_awaitable_does_nothing_yet(variant):
    tx, rx = variant.channel(1)
    sending = tx.send("later")
    assert len(rx) == 0
    tx.try_send("first")
    rx.try_recv()
    drive(sending)
    assert rx.try_recv() == "later"


def test_order_is_that_of_the_awaits_not_of_the_calls(variant):
    tx, rx = variant.channel(2)
    first, second = tx.send("called first"), tx.send("called second")
    drive(second)
    drive(first)
    assert rx.try_recv_many(9) == ["called second", "called first"]


def test_an_awaitable_made_before_close_fails_when_awaited_after(variant):
    tx, rx = variant.channel(1)
    sending, receiving = tx.send(1), rx.recv()
    tx.close()
    with pytest.raises(EndpointClosed):
        drive(sending)
    rx.close()
    with pytest.raises(EndpointClosed):
        drive(receiving)


def test_a_timeout_counts_from_the_await_not_from_the_call(variant, step_loop):
    _tx, rx = variant.channel(1)
    receiving = rx.recv(timeout=1)
    step_loop.advance(5)
    task = step_loop.create_task(receiving)
    step_loop.advance(0.9)
    assert not task.done()
    step_loop.advance(0.2)
    assert isinstance(task.exception(), RecvTimeout)


@forms
def test_an_awaitable_keeps_its_endpoint_open(variant, form):
    awaitable, tx, rx = make(variant, form, ready=True)
    if form.startswith("send"):
        del tx
        assert not rx.is_disconnected
        drive(awaitable)
        del awaitable
        assert rx.is_disconnected
    else:
        del rx
        assert not tx.is_disconnected
        drive(awaitable)
        del awaitable
        assert tx.is_disconnected


# Never awaited


@forms
@pytest.mark.parametrize("ready", [True, False])
def test_never_awaited_nothing_happens_and_nobody_is_warned(variant, form, ready, recwarn):
    warnings.simplefilter("always")
    awaitable, tx, rx = make(variant, form, ready=ready)
    before = len(rx)
    del awaitable
    collect()
    assert len(rx) == before
    assert waiting(tx) == 0
    assert list(recwarn) == []


def test_never_awaited_the_value_is_let_go(variant):
    tx, _rx = variant.channel(1)
    value = Item()
    alive = weakref.ref(value)
    for sending in (tx.send(value), tx.send_many([value])):
        del value
        assert alive() is not None
        value = alive()
        del sending
    del value
    assert alive() is None


@forms
def test_never_awaited_the_endpoint_is_let_go(variant, form):
    awaitable, tx, rx = make(variant, form, ready=True)
    alive = weakref.ref(tx if form.startswith("send") else rx)
    del tx, rx
    assert alive() is not None
    del awaitable
    assert alive() is None


def test_a_finished_send_does_not_keep_the_value(variant):
    tx, rx = variant.channel(1)
    value = Item()
    alive = weakref.ref(value)
    sending = tx.send(value)
    drive(sending)
    rx.try_recv()
    del value
    assert alive() is None
    assert sending is not None


def test_a_closed_send_does_not_keep_the_value(variant):
    tx, _rx = variant.channel(1)
    value = Item()
    alive = weakref.ref(value)
    sending = tx.send(value)
    sending.close()
    del value
    assert alive() is None


def test_a_finished_recv_does_not_keep_the_value(variant, step_loop):
    tx, rx = variant.channel(1)
    value = Item()
    alive = weakref.ref(value)
    receiving = rx.recv()
    task = step_loop.create_task(receiving)
    step_loop.run_ready()
    step_loop.call(tx.try_send, value)
    step_loop.run_ready()
    assert task.result() is value
    del task, value
    collect()
    assert alive() is None
    assert receiving is not None


def test_a_wait_that_times_out_holds_nothing(variant, step_loop):
    tx, _rx = variant.channel(1)
    tx.try_send(0)
    value = Item()
    alive = weakref.ref(value)
    task = step_loop.create_task(tx.send(value, timeout=1))
    step_loop.advance(2)
    assert isinstance(task.exception(), SendTimeout)
    del task, value
    collect()
    assert alive() is None


# Dropped while waiting, as objects


@forms
def test_a_waiting_awaitable_that_is_dropped_leaves_the_line(variant, form, step_loop):
    awaitable, tx, rx = make(variant, form, ready=False)
    future = step_loop.call(awaitable.send, None)
    assert waiting(tx) == 1
    del awaitable, future
    collect()
    assert waiting(tx) == 0
    unblock(tx, rx, form)
    step_loop.run_ready()


@forms
def test_a_woken_awaitable_that_is_dropped_passes_its_wake_up_to_the_next(variant, form, step_loop):
    awaitable, tx, rx = make(variant, form, ready=False)
    future = step_loop.call(awaitable.send, None)
    behind = step_loop.create_task(FORMS[form][1](tx, rx))
    step_loop.run_ready()
    step_loop.call(unblock, tx, rx, form)
    del awaitable, future
    collect()
    step_loop.run_ready()
    assert behind.result() in expected(form)


@forms
def test_awaitables_are_tracked_by_the_garbage_collector(variant, form):
    awaitable, _tx, _rx = make(variant, form, ready=True)
    assert gc.is_tracked(awaitable)


def test_awaitables_cannot_be_pickled_or_copied(variant):
    tx, _rx = variant.channel(1)
    sending = tx.send(1)
    for operation in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            operation(sending)
