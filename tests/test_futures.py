"""What a waiting task waits on is a future as far as asyncio and its tools can tell."""

import asyncio
import contextvars
import gc
import sysconfig
import weakref
from functools import partial

import pytest
from support import collect, turns

from nexus_channels import spsc

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

TASKS = {
    "C": asyncio.Task,
    "a subclass": type("Subclass", (asyncio.Task,), {}),
    "Python": asyncio.tasks._PyTask,
}


@pytest.fixture
def parked(step_loop):
    """park(**options of the task) -> task, the future that it waits on, the endpoints: all on step_loop."""

    def park(cls=asyncio.Task):
        tx, rx = spsc.channel(1)
        awaitable = rx.recv()
        task = cls(awaitable, loop=step_loop)
        step_loop.run_ready()
        return task, awaitable.cr_await, tx, rx

    return park


def send_in_task(step_loop, tx, value):
    """Send in a task of the loop, which wakes at once whoever waits there; he has not run yet."""
    sending = step_loop.create_task(tx.send(value))
    assert step_loop.step()
    assert sending.done()


def test_it_looks_like_a_pending_future(parked, step_loop):
    task, future, tx, _rx = parked()
    assert not isinstance(future, asyncio.Future)
    assert asyncio.isfuture(future)
    assert not asyncio.iscoroutine(future)
    assert asyncio.ensure_future(future) is future
    assert future.get_loop() is step_loop
    assert not future.done()
    assert not future.cancelled()
    assert not future._asyncio_future_blocking
    for ask in (future.result, future.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    assert "pending" in repr(future)
    assert task._fut_waiter is future
    assert "wait_for=<" in repr(task)
    send_in_task(step_loop, tx, 1)
    assert future.done()
    assert future.result() is None
    assert future.exception() is None
    assert not future.cancelled()
    assert "finished" in repr(future)
    step_loop.run_ready()
    assert task.result() == 1


@pytest.mark.parametrize("cls", TASKS)
def test_tasks_of_every_kind_are_woken(parked, step_loop, cls):
    task, _future, tx, _rx = parked(TASKS[cls])
    step_loop.call(tx.try_send, "value")
    step_loop.run_ready()
    assert task.result() == "value"


@pytest.mark.parametrize("cls", TASKS)
@pytest.mark.parametrize("message", [None, "why"])
def test_tasks_of_every_kind_are_cancelled_and_told_why(parked, step_loop, cls, message):
    task, future, tx, rx = parked(TASKS[cls])
    assert task.cancel(message) if message else task.cancel()
    assert future.cancelled()
    assert future.done()
    step_loop.run_ready()
    assert task.cancelled()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        task.result()
    assert cancelled.value.args == ((message,) if message else ())
    tx.try_send(1)
    assert rx.try_recv() == 1


@pytest.mark.parametrize("cls", TASKS)
def test_a_task_that_is_cancelled_after_it_was_woken_takes_nothing(parked, step_loop, cls):
    task, future, tx, rx = parked(TASKS[cls])
    send_in_task(step_loop, tx, 1)
    assert task.cancel()
    assert future.done()
    assert not future.cancelled()
    step_loop.run_ready()
    assert task.cancelled()
    assert rx.try_recv() == 1


@pytest.mark.parametrize("cls", TASKS)
def test_a_task_that_is_woken_after_it_was_cancelled_takes_nothing(parked, step_loop, cls):
    task, future, tx, rx = parked(TASKS[cls])
    assert task.cancel()
    send_after = step_loop.create_task(tx.send(1))
    assert future.cancelled()
    step_loop.run_ready()
    assert task.cancelled()
    assert send_after.done()
    assert rx.try_recv() == 1


def test_cancel_answers_once(parked, step_loop):
    _task, future, _tx, _rx = parked()
    assert step_loop.call(partial(future.cancel, msg="first")) is True
    assert step_loop.call(future.cancel, "second") is False
    for ask in (future.result, future.exception):
        with pytest.raises(asyncio.CancelledError) as cancelled:
            ask()
        assert cancelled.value.args == ("first",)
    for wrong in (lambda: future.cancel(1, 2), lambda: future.cancel(other=1), lambda: future.cancel(1, msg=2)):
        with pytest.raises(TypeError):
            wrong()
    step_loop.run_ready()


def test_callbacks_are_called_in_order_with_the_future_and_in_their_contexts(parked, step_loop):
    variable = contextvars.ContextVar("variable", default="outside")
    _task, future, tx, _rx = parked()
    called = []

    def note(name):
        def callback(argument):
            called.append((name, argument is future, variable.get()))

        return callback

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    future.add_done_callback(note("first"), context=context)
    unset = variable.set("current")
    future.add_done_callback(note("second"))
    variable.set("later")
    send_in_task(step_loop, tx, 1)
    assert called == []
    step_loop.run_ready()
    assert called == [("first", True, "given"), ("second", True, "current")]
    step_loop.call(future.add_done_callback, note("late"))
    step_loop.run_ready()
    assert called[2:] == [("late", True, "later")]
    variable.reset(unset)


@pytest.mark.parametrize("wrong", [(), (print, print), (print, {"other": 1}), (print, {"context": None, "other": 1})])
def test_callbacks_are_added_one_by_one(parked, wrong):
    _task, future, _tx, _rx = parked()
    positional = [argument for argument in wrong if not isinstance(argument, dict)]
    keywords = {name: value for argument in wrong if isinstance(argument, dict) for name, value in argument.items()}
    with pytest.raises(TypeError):
        future.add_done_callback(*positional, **keywords)


def test_callbacks_are_removed_by_equality(parked, step_loop):
    _task, future, tx, _rx = parked()
    called = []

    class Owner:
        def method(self, _future):
            called.append("method")

    owner, other = Owner(), Owner()
    for method in (owner.method, called.append, owner.method, other.method):
        future.add_done_callback(method)
    assert future.remove_done_callback(owner.method) == 2
    assert future.remove_done_callback(owner.method) == 0
    assert future.remove_done_callback(print) == 0
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert called == [future, "method"]


def test_the_task_is_woken_though_others_come_and_go(parked, step_loop):
    task, future, tx, _rx = parked()
    future.add_done_callback(print)
    assert future.remove_done_callback(print) == 1
    step_loop.call(tx.try_send, "value")
    step_loop.run_ready()
    assert task.result() == "value"


@pytest.mark.skipif(FREE_THREADED, reason="asyncio's own")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_comparison_that_fails_or_changes_the_callbacks_loses_none(parked, step_loop, when):
    task, future, tx, _rx = parked()
    called = []

    class Sly:
        def __eq__(self, other):
            if when == "before":
                raise ValueError("not comparable")
            future.add_done_callback(lambda _: called.append("added"))
            return False

        __hash__ = None

    if when == "before":
        with pytest.raises(ValueError, match="not comparable"):
            future.remove_done_callback(Sly())
    else:
        assert future.remove_done_callback(Sly()) == 0
    step_loop.call(tx.try_send, "value")
    step_loop.run_ready()
    assert task.result() == "value"
    assert called == ["added"] * (when == "after")


def test_a_stranger_who_sets_its_result_wakes_the_task_in_vain(parked, step_loop):
    task, future, tx, _rx = parked()
    step_loop.call(future.set_result, None)
    with pytest.raises(asyncio.InvalidStateError):
        future.set_result(None)
    step_loop.run_ready()
    assert not task.done()
    step_loop.call(tx.try_send, "value")
    step_loop.run_ready()
    assert task.result() == "value"


def test_it_may_be_awaited_by_another_task(parked, step_loop):
    task, future, tx, _rx = parked()

    async def wait_too():
        return await future, await future

    other = step_loop.create_task(wait_too())
    step_loop.run_ready()
    assert not other.done()
    step_loop.call(tx.try_send, "value")
    step_loop.run_ready()
    assert task.result() == "value"
    assert other.result() == (None, None)


def test_who_awaits_it_sees_its_cancellation(parked, step_loop):
    task, future, _tx, _rx = parked()

    async def wait_too():
        await future

    other = step_loop.create_task(wait_too())
    step_loop.run_ready()
    step_loop.call(task.cancel)
    step_loop.run_ready()
    assert task.cancelled()
    assert other.cancelled()


def test_gather_and_wait_take_it(run):
    async def main():
        tx, rx = spsc.channel(1)
        awaitable = rx.recv()
        task = asyncio.create_task(awaitable)
        await turns(2)
        future = awaitable.cr_await
        together = asyncio.gather(future, asyncio.sleep(0))
        waited = asyncio.create_task(asyncio.wait([future], timeout=30))
        await turns(2)
        await tx.send("value")
        assert await together == [None, None]
        assert await waited == ({future}, set())
        assert await task == "value"

    run(main())


def test_a_debugged_loop_and_its_tools_take_it(capsys):
    async def main():
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        tx, rx = spsc.channel(1)
        task = loop.create_task(rx.recv())
        await turns(2)
        assert task.get_stack() is not None
        task.print_stack()
        assert "wait_for=" in repr(task)
        await tx.send("value")
        assert await task == "value"

    asyncio.run(main(), debug=True)
    capsys.readouterr()


def test_it_goes_with_its_task(parked, step_loop):
    task, future, tx, rx = parked()
    marker = type("Marker", (), {"__call__": lambda self, _future: None})()
    alive = weakref.ref(marker)
    future.add_done_callback(marker)
    assert gc.is_tracked(future)
    step_loop.call(task.cancel)
    step_loop.run_ready()
    del task, future, tx, rx, marker
    collect()
    assert alive() is None


def test_a_cycle_through_it_is_collected(parked, step_loop):
    _task, future, _tx, _rx = parked()
    marker = type("Marker", (), {"__call__": lambda self, _future: None})()
    marker.future = future
    alive = weakref.ref(marker)
    future.add_done_callback(marker)
    future.remove_done_callback(print)
    del marker, future, _task, _tx, _rx
    collect()
    assert alive() is None
    assert all("destroyed but it is pending" in context["message"] for context in step_loop.errors)
    step_loop.errors.clear()


def test_they_are_used_again_as_new(step_loop):
    """Many at once, more than are kept, some with callbacks and some cancelled: the next know nothing of it."""
    for _ in range(3):
        tx, rx = spsc.channel(200)
        awaitables = [rx.recv() for _ in range(150)]
        tasks = [step_loop.create_task(one) for one in awaitables]
        step_loop.run_ready()
        futures = [one.cr_await for one in awaitables]
        assert not any(one.done() for one in futures)
        assert len({id(one) for one in futures}) == 150
        called = []
        for one in futures[::3]:
            one.add_done_callback(called.append)
        for task in tasks[::2]:
            task.cancel("half of them")
        step_loop.run_ready()
        for number in range(75):
            step_loop.call(tx.try_send, number)
        step_loop.run_ready()
        assert [task.result() for task in tasks[1::2]] == list(range(75))
        assert called == [*futures[::6], *futures[3::6]]
        del futures, awaitables, tasks, called, one, task
