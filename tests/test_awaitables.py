"""The awaitables are coroutines as far as anyone can tell: asyncio takes them, and so does what drives coroutines."""

import asyncio
import collections.abc
import contextvars
import copy
import gc
import inspect
import pickle
import subprocess
import sys
import sysconfig
import warnings
import weakref

import pytest
from support import Item, collect, drive, in_thread, turns

from nexus_channels import EndpointClosed, RecvTimeout, SendTimeout, spsc, spsc_bytes

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
def test_never_awaited_nothing_happens_and_a_warning_says_so(variant, form, ready, recwarn):
    warnings.simplefilter("always")
    awaitable, tx, rx = make(variant, form, ready=ready)
    name = awaitable.__qualname__
    before = len(rx)
    del awaitable
    collect()
    assert len(rx) == before
    assert waiting(tx) == 0
    assert [str(warning.message) for warning in recwarn] == [f"coroutine '{name}' was never awaited"]
    assert recwarn[0].category is RuntimeWarning


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


# Those that ended are used again, where there is a GIL and nobody traces references

RECYCLES = not sysconfig.get_config_var("Py_GIL_DISABLED") and not sysconfig.get_config_var("Py_DEBUG")


def spares_of(awaitable):
    """Those that ended and nobody holds but the library, as far as the collector tells."""
    found = [other for other in gc.get_objects() if type(other) is type(awaitable) and other is not awaitable]
    assert found or not RECYCLES
    return found


def make_spares(count=100):
    tx, rx = spsc.channel(count)
    for awaitable in [tx.send(i) for i in range(count)] + [rx.recv() for _ in range(count)]:
        drive(awaitable)


def test_what_ended_and_is_shown_by_the_collector_is_of_no_use():
    make_spares()
    mine = spsc.channel(1)[1].recv()
    for spare in spares_of(mine):
        assert "done" in repr(spare)
        assert not spare.cr_running
        assert spare.cr_await is None
        assert spare.cr_frame is None
        assert spare.__name__
        assert spare.__qualname__
        assert spare.close() is None
        assert spare._expire() is None
        for use in (lambda it: it.send(None), lambda it: it.throw(ValueError), next, lambda it: it.send(1)):
            with pytest.raises(RuntimeError, match="reuse"):
                use(spare)


def test_a_claim_that_ended_and_is_shown_by_the_collector_is_of_no_use():
    tx, rx = spsc_bytes.channel(64)
    never_awaited = [tx.claim(1) for _ in range(5)]
    drive(never_awaited[0]).commit()
    for claim in never_awaited[1:]:
        claim.close()
    drive(rx.recv()).release()
    del never_awaited
    mine = tx.claim(1)
    for spare in spares_of(mine):
        with pytest.raises(RuntimeError, match="reuse"):
            spare.__aenter__()
        with pytest.raises(RuntimeError, match="reuse"):
            spare.__aexit__(None, None, None)
        with pytest.raises(RuntimeError, match="reuse"):
            spare.send(None)


def test_what_a_user_got_hold_of_is_not_used_again():
    make_spares()
    tx, rx = spsc.channel(1)
    mine = rx.recv()
    shown = spares_of(mine)
    names = [repr(other) for other in shown]
    fresh = [rx.recv() for _ in range(len(shown) + 1)]
    assert not {id(other) for other in shown} & {id(other) for other in fresh}
    assert [repr(other) for other in shown] == names
    drive(tx.send(1))
    assert drive(fresh[0]) == 1
    with pytest.raises(RuntimeError, match="reuse"):
        drive(shown[0] if shown else fresh[0])


def test_a_timer_that_goes_off_after_the_end_does_not_hurt_the_next(step_loop):
    make_spares()
    mine = spsc.channel(1)[1].recv()
    assert {spare._expire() for spare in spares_of(mine)} <= {None}
    tx, rx = spsc.channel(1)
    tasks = [step_loop.create_task(rx.recv()) for _ in range(80)]
    step_loop.run_ready()
    assert not any(task.done() for task in tasks)
    for task in tasks:
        step_loop.call(tx.try_send, "value")
        step_loop.run_ready()
        assert task.result() == "value"


def test_what_was_odd_about_one_is_gone_with_the_next(step_loop):
    """Batches, timeouts, waits and cancellation leave nothing behind for what is used again."""
    for _ in range(3):
        tx, rx = spsc.channel(2)
        batch = step_loop.create_task(tx.send_many(range(5)))
        late = [step_loop.create_task(tx.send(9, timeout=5)) for _ in range(70)]
        step_loop.run_ready()
        late[-1].cancel()
        step_loop.run_ready()
        received = []
        while waiting(tx) or len(rx):
            received += rx.try_recv_many(1)
            step_loop.run_ready()
        assert sorted(received) == [*range(5), *[9] * 69]
        assert batch.done()
        ones = [tx.send(i) for i in range(3)]
        del ones[2]
        assert [drive(one) for one in ones] == [None, None]
        waiting_one = step_loop.create_task(tx.send(2))
        step_loop.run_ready()
        assert waiting(tx) == 1
        assert rx.try_recv_many(9) == [0, 1]
        step_loop.run_ready()
        assert waiting_one.done()
        assert drive(rx.recv()) == 2


def output_of(code):
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


FROZEN = """
import asyncio, gc, weakref
from nexus_channels import spsc

class Item:
    pass

async def warm():
    tx, rx = spsc.channel(100)
    many = [tx.send(i) for i in range(100)]
    for one in many:
        await one

async def wait_alone(item, alive):
    tx, rx = spsc.channel(1)
    alive.append(weakref.ref(item))
    await rx.recv()

asyncio.run(warm())
gc.freeze()
alive = []
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda loop, context: None)
loop.create_task(wait_alone(Item(), alive))
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
del loop
for _ in range(3):
    gc.collect()
print([one() for one in alive])
"""


def test_a_task_that_waits_in_a_cycle_is_collected_after_a_freeze():
    assert output_of(FROZEN) == "[None]\n"


UNLOADED = """
import gc, importlib.util, weakref
import nexus_channels
spec = importlib.util.spec_from_file_location("nexus_channels._core", nexus_channels._core.__file__)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
tx, rx = module.open(module.SPSC, 1)
awaitables = [rx.recv() for _ in range(10)]
for awaitable in awaitables:
    awaitable.close()
alive = [weakref.ref(module), weakref.ref(type(awaitables[0]))]
del awaitable, awaitables, tx, rx, module, spec
gc.collect()
print([one() for one in alive])
"""


def test_what_is_kept_for_the_next_does_not_keep_the_module():
    assert output_of(UNLOADED) == "[None, None]\n"
