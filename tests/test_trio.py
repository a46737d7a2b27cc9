"""trio's own ways: checkpoints, cancel scopes, its clock, nurseries, guest mode, other threads, and runs that end.

What channels do in tasks of any kind is in the modules that say EVERY_LOOP.
"""

import asyncio
import collections.abc
import contextlib
import os
import types
import weakref
from functools import partial

import pytest
from harness import FREE_THREADED, has_wake_descriptors, seeded, size
from harness import run_child as harness_run_child
from support import DEADLINE, Counted, Item, collect, drive, until, until_blocked, until_parked

import nexus_channels
from nexus_channels import (
    BusyError,
    EndpointClosed,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
    local,
    mpsc,
    spsc,
    spsc_bytes,
)

trio = pytest.importorskip("trio", reason="trio is not installed")
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked  # noqa: E402

run_child = partial(harness_run_child, seconds=50)  # importing trio takes seconds on a busy machine


def run(main, *args, clock=None):
    """`trio.run` with a deadline; an error comes without the group that the nursery puts around it."""

    async def timed():
        with trio.fail_after(DEADLINE if clock is None else 1e6):
            return await main(*args)

    return trio.run(timed, clock=clock)


def ends(module, capacity=2):
    """A channel, and what to send through it: `tx`, `rx`, and the form of `recv` that gives the message itself."""
    if module.__name__.endswith("_bytes"):
        tx, rx = module.channel(64 * capacity)
        return tx, rx, rx.recv_bytes, b"message"
    tx, rx = module.channel(capacity)
    return tx, rx, rx.recv, "message"


MODULES = ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes"]


@pytest.fixture(params=MODULES)
def module(request):
    return getattr(nexus_channels, request.param)


READY = {
    "send": lambda tx, rx, message: (tx.send(message), 1),
    "send with timeout": lambda tx, rx, message: (tx.send(message, timeout=5), 1),
    "send_many": lambda tx, rx, message: (tx.send_many([message, message]), 2),
    "recv": lambda tx, rx, message: (rx.recv(), -1),
    "recv with timeout": lambda tx, rx, message: (rx.recv(timeout=0), -1),
    "recv_many": lambda tx, rx, message: (rx.recv_many(9), -2),
    "anext": lambda tx, rx, message: (anext(aiter(rx)), -1),
    "claim": lambda tx, rx, message: (tx.claim(7), 0),
    "recv_bytes": lambda tx, rx, message: (rx.recv_bytes(), -1),
    "recv_into": lambda tx, rx, message: (rx.recv_into(bytearray(64)), -1),
}


OF_BYTES = {"claim", "recv_bytes", "recv_into"}
each_ready_call = pytest.mark.parametrize(
    ("module", "form"),
    [(name, form) for name in MODULES for form in READY if name.endswith("_bytes") or form not in OF_BYTES],
    indirect=["module"],
)


def ready(module, form):
    """A channel with two messages and room for more, and a call that need not wait."""
    tx, rx, _recv, message = ends(module, 5)
    tx.try_send_many([message, message])
    return tx, rx, lambda: READY[form](tx, rx, message)[0]


@contextlib.contextmanager
def cancelled():
    with trio.CancelScope() as scope:
        scope.cancel()
        yield scope


# Checkpoints


@each_ready_call
def test_a_call_that_is_ready_is_a_checkpoint(module, form):
    _tx, _rx, call = ready(module, form)

    async def main():
        with trio.testing.assert_checkpoints():
            await call()

    run(main)


@each_ready_call
def test_a_task_that_is_cancelled_already_sends_and_takes_nothing(module, form):
    _tx, rx, call = ready(module, form)

    async def main():
        with cancelled() as scope:
            await call()
            pytest.fail("it went on")
        assert scope.cancelled_caught

    before = rx.statistics()
    run(main)
    assert rx.statistics() == before


@each_ready_call
def test_a_call_that_took_is_not_cancelled_any_more(module, form):
    """The cancellation comes while other tasks run, after the call has sent or taken."""
    _tx, _rx, call = ready(module, form)

    async def main():
        reached = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, scope)
                reached.append(await call())
                await trio.lowlevel.checkpoint()
                pytest.fail("it went on")
        assert scope.cancelled_caught
        assert len(reached) == 1

    async def cancel(scope):
        scope.cancel()

    run(main)


def test_a_shielded_call_goes_on_in_a_cancelled_task(module):
    tx, _rx, recv, message = ends(module)

    async def main():
        with cancelled(), trio.CancelScope(shield=True):
            await tx.send(message)
            return await recv()

    assert run(main) == message


def test_leaving_a_claim_block_is_no_checkpoint_as_it_has_been_committed(bytes_variant):
    tx, rx = bytes_variant.channel(64)

    async def main():
        with trio.CancelScope() as scope:
            async with tx.claim(5) as view:
                view[:] = b"hello"
                scope.cancel()
            left = True
            await trio.lowlevel.checkpoint()
        assert left and scope.cancelled_caught

    run(main)
    assert rx.try_recv_bytes() == b"hello"


@pytest.mark.parametrize("cancel", [False, True])
def test_a_call_that_can_only_fail_raises_its_own_error(module, cancel):
    _tx, _rx, _recv, message = ends(module)
    closed_tx, closed_rx, closed_recv, _ = ends(module)
    lone_tx, dropped_rx, _, _ = ends(module)
    dropped_tx, lone_rx, lone_recv, _ = ends(module)
    closed_tx.close(), closed_rx.close(), dropped_rx.close(), dropped_tx.close()

    ended = []

    async def main():
        with cancelled() if cancel else contextlib.nullcontext():
            with pytest.raises(EndpointClosed):
                await closed_tx.send(message)
            with pytest.raises(EndpointClosed):
                await closed_recv()
            with pytest.raises(SendError):
                await lone_tx.send(message)
            with pytest.raises(RecvError):
                await lone_recv()
            async for _ in lone_rx:
                pytest.fail("there was nothing")
            with pytest.raises(RecvError):
                await lone_rx.recv_many(3)
            ended.append(True)

    run(main)
    assert ended


def test_what_is_left_is_received_before_the_end_by_a_cancelled_task_too(module):
    tx, _rx, recv, message = ends(module)
    tx.try_send(message)
    tx.close()

    async def main():
        with cancelled():
            await recv()
            pytest.fail("it went on")
        return await recv()

    assert run(main) == message


def test_a_consumer_that_never_waits_does_not_starve_the_run(module):
    tx, _rx, recv, message = ends(module, 64)

    async def main():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(100):
                await tx.send(message)
                await recv()
            nursery.cancel_scope.cancel()
        return turns

    assert 150 < run(main) < 250


def test_a_try_with_timeout_zero_lets_other_tasks_run_also_if_it_fails():
    _tx, rx = spsc.channel(1)

    async def main():
        tries = 0
        with trio.move_on_after(0.01):
            while True:
                tries += 1
                with pytest.raises(RecvTimeout):
                    await rx.recv(timeout=0)
        return tries

    assert run(main, clock=MockClock(rate=1)) > 1


def test_a_long_batch_that_never_has_to_wait_lets_other_tasks_run():
    tx, rx = local.channel(64)
    received = 0

    def endless():
        nonlocal received
        while True:
            received += len(rx.try_recv_many(64))
            yield 1

    async def main():
        with trio.move_on_after(0.05) as scope:
            await tx.send_many(endless())
        assert scope.cancelled_caught

    run(main)
    assert tx.statistics().sent == received + len(rx) > 64


def test_a_batch_is_cancelled_between_its_parts_and_has_sent_a_prefix():
    tx, rx = spsc.channel(2)
    got = []

    async def main():
        async with trio.open_nursery() as nursery:

            async def take():
                got.extend([await rx.recv() for _ in range(3)])
                nursery.cancel_scope.cancel()

            nursery.start_soon(take)
            await tx.send_many(iter(range(10**9)))

    run(main)
    got.extend(rx.try_recv_many(5))
    assert got == list(range(len(got))) and 3 <= len(got) <= 6
    assert tx.statistics().sent == len(got)


# Waits that are cancelled


def test_move_on_after_ends_a_wait(module):
    tx, rx, recv, message = ends(module)

    async def main():
        with trio.move_on_after(5) as scope:
            await recv()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(5)
        assert rx.statistics().waiting_receivers == 0
        await tx.send(message)
        return await recv()

    assert run(main, clock=MockClock(autojump_threshold=0)) == message


def test_a_receive_called_and_cancelled_in_the_same_turn_takes_or_leaves_the_item_and_the_next_goes_on(threaded):
    """Whichever is seen first decides: the wake-up from another thread, or the cancellation."""
    outcomes = set()

    async def main(cancel_first):
        tx, rx = threaded.channel(1)
        got = []

        async def receive(name, scope):
            with scope:
                got.append((name, await rx.recv()))

        async with trio.open_nursery() as nursery:
            first, second = trio.CancelScope(), trio.CancelScope()
            nursery.start_soon(receive, "first", first)
            await until_parked(rx, receivers=1)
            nursery.start_soon(receive, "second", second)
            await until_parked(rx, receivers=2)
            if cancel_first:
                first.cancel()
            tx.try_send("item")  # in this task: the waiter is woken on the spot
            first.cancel()
            await wait_all_tasks_blocked()
            second.cancel()
        assert rx.statistics().waiting_receivers == 0
        assert [item for _, item in got] == ["item"] and rx.try_recv_many(2) == []
        outcomes.add((cancel_first, got[0][0], first.cancelled_caught))

    for cancel_first in (False, True):
        run(main, cancel_first)
    assert outcomes == {(False, "first", False), (True, "second", True)}


def test_a_task_woken_before_trio_knows_that_it_waits_is_not_rescheduled_again_by_a_cancellation():
    """The wake-up comes after the call has given trio its abort function, and before trio has it."""
    tx, rx = spsc.channel(1)

    async def main():
        with trio.CancelScope() as scope:
            call = rx.recv()

            @types.coroutine
            def wait():
                message = call.send(None)
                tx.try_send("item")
                scope.cancel()
                sent = yield message
                with pytest.raises(StopIteration) as stop:
                    call.send(sent)
                return stop.value.value

            got = await wait()
        return got

    assert run(main) == "item"


def test_a_task_that_a_stranger_reschedules_waits_on():
    tx, rx = spsc.channel(1)

    async def main():
        tasks, got = [], []

        async def receive():
            tasks.append(trio.lowlevel.current_task())
            got.append(await rx.recv())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await until_parked(rx, receivers=1)
            for _ in range(3):
                trio.lowlevel.reschedule(tasks[0])
                await wait_all_tasks_blocked()
                assert rx.statistics().waiting_receivers == 1
            await tx.send("item")
        return got

    assert run(main) == ["item"]


def test_a_cancelled_waiter_that_is_woken_before_it_runs_is_not_rescheduled_again():
    """It is still in line then, so a send calls it; the item stays."""
    tx, rx = spsc.channel(1)

    async def main():
        with trio.CancelScope() as scope:
            call = rx.recv()

            @types.coroutine
            def wait():
                message = call.send(None)
                assert message.abort_func(None) is trio.lowlevel.Abort.SUCCEEDED
                runnable = trio.lowlevel.current_statistics().tasks_runnable
                tx.try_send("item")
                assert trio.lowlevel.current_statistics().tasks_runnable == runnable
                call.close()
                yield from trio.lowlevel.checkpoint().__await__()

            await wait()
        assert not scope.cancelled_caught
        return rx.try_recv()

    assert run(main) == "item"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_while_others_run_comes_after_the_result(when):
    """The item was taken, so the call returns it; the exception comes at the next moment."""
    run_child(
        """
import sys, trio
from nexus_channels import spsc
others_run = trio.lowlevel.cancel_shielded_checkpoint

async def interrupted():
    if sys.argv[1] == "after":
        await others_run()
    raise KeyboardInterrupt

trio.lowlevel.cancel_shielded_checkpoint = interrupted
tx, rx = spsc.channel(1)
tx.try_send("item")
got = []

async def main():
    try:
        got.append(await rx.recv())
        for _ in range(10):
            pass
        got.append("too late")
    except KeyboardInterrupt:
        got.append("interrupted")

trio.run(main)
assert got == ["item", "interrupted"], got
""",
        when,
    )


def test_a_cancelled_send_is_not_delivered_and_the_next_is(threaded):
    async def main():
        tx, rx = threaded.channel(1)
        tx.try_send("first")
        scopes = [trio.CancelScope() for _ in range(3)]

        async def send(number):
            with scopes[number]:
                await tx.send(number)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(send, number)
                await until_parked(tx, senders=number + 1)
            scopes[0].cancel()
            assert rx.try_recv() == "first"
            await wait_all_tasks_blocked()
            got = [await rx.recv(), await rx.recv()]
        assert got == [1, 2]
        assert [scope.cancelled_caught for scope in scopes] == [True, False, False]

    run(main)


def test_cancelling_a_nursery_ends_all_waits_and_loses_nothing(module):
    tx, rx, recv, message = ends(module)

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(recv)
            await until_parked(rx, receivers=10)
            nursery.cancel_scope.cancel()
            tx.try_send(message)
        assert rx.statistics().waiting_receivers == 0
        return await recv()

    assert run(main) == message


def test_the_error_of_one_task_cancels_the_waits_of_the_others():
    _tx, rx = spsc.channel(1)

    async def fail():
        await until_parked(rx, receivers=3)
        raise LookupError

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(rx.recv)
            nursery.start_soon(fail)

    with pytest.raises(ExceptionGroup) as raised:
        run(main)
    assert raised.group_contains(LookupError, depth=1)
    assert rx.statistics().waiting_receivers == 0


def test_random_cancellations_with_a_thread_on_the_other_side_lose_nothing(threaded, spawn):
    random = seeded("trio cancellations")
    tx, rx = threaded.channel(2)
    wanted = size(3_000, 100_000)
    received = []

    def produce():
        for number in range(wanted):
            tx.send_blocking(number)
        tx.close()

    async def consume():
        with contextlib.suppress(RecvError):
            while True:
                with trio.move_on_after(random.choice([0, 0, 1e-6, 1e-5, 1e-4, 1e-3])):
                    received.append(await rx.recv())

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(consume)

    producing = spawn(produce)
    trio.run(main)
    producing.join()
    assert sorted(received) == list(range(wanted))


# Time-outs and the clock


def test_timeouts_are_on_the_clock_of_the_run(module):
    tx, _rx, recv, message = ends(module)

    async def main():
        with pytest.raises(RecvTimeout):
            await recv(timeout=3600)
        assert trio.current_time() == pytest.approx(3600)
        while True:
            try:
                await tx.send(message, timeout=1800)
            except SendTimeout as error:
                assert error.value == message
                break
        assert trio.current_time() == pytest.approx(5400)

    run(main, clock=MockClock(autojump_threshold=0))


def test_a_timeout_that_does_not_go_off_leaves_no_deadline_behind():
    tx, rx = spsc.channel(1)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: rx.recv(timeout=1000))
            await until_parked(rx, receivers=1)
            await tx.send(1)
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    assert trio.run(main) == float("inf")


def test_a_timeout_counts_from_the_first_wait_over_all_that_follow():
    """A waiter that is called in vain waits on, but not for its whole time once more."""
    tx, rx = spsc_bytes.channel(64)
    tx.try_send_many([b"f" * 24] * 2)

    async def main():
        async def send():
            with pytest.raises(SendTimeout):
                await tx.send_many([b"x" * 24] * 3, timeout=10)
            return trio.current_time()

        async with trio.open_nursery() as nursery:
            ended = []

            async def note():
                ended.append(await send())

            nursery.start_soon(note)
            for _ in range(2):
                await trio.sleep(4)
                rx.try_recv_bytes()
        return ended

    assert run(main, clock=MockClock(autojump_threshold=0)) == [pytest.approx(10)]


def test_an_outer_scope_that_expires_with_the_timeout_wins_nothing_is_lost():
    tx, rx = spsc.channel(1)

    async def main():
        with trio.move_on_after(5):
            with pytest.raises((RecvTimeout, trio.Cancelled)) as raised:
                await rx.recv(timeout=5)
            if raised.type is trio.Cancelled:
                raise raised.value
        assert rx.statistics().waiting_receivers == 0
        await tx.send(1)
        return await rx.recv()

    assert run(main, clock=MockClock(autojump_threshold=0)) == 1


# Coroutines


def test_a_nursery_takes_the_methods_themselves():
    tx, rx = spsc.channel(1)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rx.recv)
            nursery.start_soon(tx.send, 1)
        assert len(rx) == 0
        assert tx.statistics().sent == rx.statistics().received == 1

    run(main)


def test_trio_run_takes_the_methods_themselves():
    tx, rx = spsc.channel(1)
    assert trio.run(tx.send, "value") is None
    assert trio.run(rx.recv) == "value"


def test_a_second_task_that_awaits_the_same_call_is_told_so(module):
    tx, rx, recv, message = ends(module)

    async def main():
        call = recv()
        got = []

        async def first():
            got.append(await call)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await until_parked(rx, receivers=1)
            with pytest.raises(RuntimeError, match="already being awaited"):
                await call
            await tx.send(message)
        assert got == [message]
        with pytest.raises(RuntimeError, match="already awaited"):
            await call

    run(main)


def test_a_call_that_lets_others_run_with_its_result_in_hand_is_refused_too():
    tx, rx = spsc.channel(1)
    tx.try_send("item")

    async def main():
        call = rx.recv()
        got, refused = [], []

        async def first():
            got.append(await call)

        async def second():
            while len(rx) == 1:
                await trio.lowlevel.checkpoint()
            with pytest.raises(RuntimeError, match="already"):
                await call
            refused.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            nursery.start_soon(second)
        assert (got, refused) == (["item"], [True])

    run(main)


def test_a_forgotten_await_warns_as_under_asyncio():
    tx, rx = spsc.channel(1)

    async def main():
        with pytest.warns(RuntimeWarning, match=r"Sender.send.*never awaited"):
            tx.send(1)

    run(main)
    assert len(rx) == 0


def test_closing_the_coroutine_of_a_wait_leaves_the_line(threaded):
    """As trio does with the coroutines of tasks that are destroyed."""
    tx, rx = threaded.channel(1)

    async def main():
        call = rx.recv()
        message = call.send(None)
        assert type(message).__name__ == "WaitTaskRescheduled"
        assert call.cr_suspended and isinstance(call.cr_await, collections.abc.Coroutine)
        assert rx.statistics().waiting_receivers == 1
        call.close()
        assert rx.statistics().waiting_receivers == 0
        tx.try_send("item")

    run(main)
    assert rx.try_recv() == "item"


def test_an_exception_thrown_into_a_wait_ends_it(threaded):
    _tx, rx = threaded.channel(1)

    async def main():
        call = rx.recv(timeout=5)
        call.send(None)
        with pytest.raises(LookupError):
            call.throw(LookupError())
        assert rx.statistics().waiting_receivers == 0
        with pytest.raises(RuntimeError, match="already awaited"):
            call.send(None)

    run(main)


def test_a_call_dropped_with_its_result_in_hand_is_not_used_again_as_it_is():
    """Calls that have ended are kept and used again; this one has not ended."""
    tx, rx = spsc.channel(4)
    tx.try_send_many([1, 2, 3])

    async def main():
        for _ in range(2):
            call = rx.recv()
            call.send(None)
            del call

    run(main)
    assert drive(rx.recv()) == 3
    drive(tx.send(4))
    assert drive(rx.recv()) == 4


def test_trio_shows_where_a_task_waits():
    _tx, rx = spsc.channel(1)

    async def main():
        tasks = []

        async def wait():
            tasks.append(trio.lowlevel.current_task())
            await rx.recv()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until_parked(rx, receivers=1)
            names = [frame.f_code.co_name for frame, _ in tasks[0].iter_await_frames()]
            nursery.cancel_scope.cancel()
        return names

    assert run(main)[:2] == ["wait", "recv"]


def test_a_task_that_waits_twice_for_the_same_endpoint_in_two_runs_is_told_so():
    _tx, rx = spsc.channel(1)
    calls = []

    async def begin():
        calls.append(rx.recv())
        with contextlib.suppress(StopIteration):
            calls[0].send(None)

    async def again():
        with pytest.raises(RuntimeError, match=r"another task|another event loop|already"):
            await calls[0]

    run(begin)
    run(again)
    calls[0].close()
    assert rx.statistics().waiting_receivers == 0


# With other threads and other loops


def test_a_thread_feeds_a_task(threaded, spawn):
    tx, rx = threaded.channel(4)

    def produce():
        for number in range(1000):
            tx.send_blocking(number)
        tx.close()

    async def main():
        return [item async for item in rx]

    spawn(produce)
    assert run(main) == list(range(1000))


def test_a_task_feeds_a_thread(threaded, spawn):
    tx, rx = threaded.channel(4)

    async def main():
        for number in range(1000):
            await tx.send(number)
        tx.close()

    receiving = spawn(lambda: list(rx))
    run(main)
    assert receiving.join() == list(range(1000))


@pytest.mark.parametrize("trio_sends", [False, True])
@pytest.mark.parametrize("name", ["spsc", "mpsc", "spsc_bytes", "mpsc_bytes"])
def test_a_task_of_trio_and_a_task_of_asyncio_hold_the_two_ends(name, trio_sends, spawn, loop_factory):
    tx, _rx, recv, message = ends(getattr(nexus_channels, name))
    items = [message * (1 + number % 5) for number in range(size(2_000, 100_000))]

    async def send():
        for item in items:
            await tx.send(item)
        tx.close()

    async def receive():
        got = []
        with contextlib.suppress(RecvError):
            while True:
                got.append(await recv())
        return got

    def on_asyncio(function):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(function())

    if trio_sends:
        receiving = spawn(on_asyncio, receive)
        run(send)
        assert receiving.join() == items
    else:
        sending = spawn(on_asyncio, send)
        assert run(receive) == items
        sending.join()


def test_two_runs_in_two_threads_hold_the_two_ends(threaded, spawn):
    tx, rx = threaded.channel(1)
    back_tx, back_rx = threaded.channel(1)
    rounds = size(2_000, 100_000)

    async def echo():
        async for item in rx:
            await back_tx.send(item)

    async def ask():
        for number in range(rounds):
            await tx.send(number)
            assert await back_rx.recv() == number
        tx.close()

    echoing = spawn(trio.run, echo)
    run(ask)
    echoing.join()


def test_tasks_and_threads_stand_in_one_line(threaded, spawn):
    tx, rx = threaded.channel(1)
    got = []

    async def main():
        async def receive(place):
            got.append((place, await rx.recv()))

        def receive_blocking(place):
            got.append((place, rx.recv_blocking()))

        async with trio.open_nursery() as nursery:
            for place in range(6):
                if place % 2:
                    nursery.start_soon(trio.to_thread.run_sync, receive_blocking, place)
                else:
                    nursery.start_soon(receive, place)
                await until_parked(rx, receivers=place + 1)
            for number in range(6):
                await tx.send(number)

    run(main)
    assert sorted(got) == [(number, number) for number in range(6)]


@has_wake_descriptors
def test_a_burst_from_another_thread_wakes_all_at_once(spawn):
    """The run stands still while the thread sends, so all fifty are woken in one turn, by one write."""
    pairs = [spsc.channel(1) for _ in range(50)]
    woken = []

    async def main():
        async def receive(rx):
            woken.append(await rx.recv())

        async with trio.open_nursery() as nursery:
            tx, rx = spsc.channel(1)
            nursery.start_soon(rx.recv)  # so that the descriptor is open
            await until_parked(rx, receivers=1)
            await trio.to_thread.run_sync(tx.send_blocking, None)
            for _, rx in pairs:
                nursery.start_soon(receive, rx)
                await until_parked(rx, receivers=1)
            spawn(lambda: [tx.send_blocking(n) for n, (tx, _) in enumerate(pairs)]).wait()
            while not woken:
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            return len(woken)

    assert run(main) == 50
    assert sorted(woken) == list(range(50))


def test_trio_may_be_imported_after_us_and_its_first_await_is_a_checkpoint():
    """Also if the counter of ready awaits allows many more calls before it looks."""
    run_child(
        """
import asyncio, sys
from nexus_channels import spsc
assert "trio" not in sys.modules
tx, rx = spsc.channel(1)

async def on_asyncio(count):
    for number in range(count):
        await tx.send(number)
        assert await rx.recv() == number

for count in (1, 7, 50, 1000):
    asyncio.run(on_asyncio(count))
import trio, trio.testing

async def on_trio():
    with trio.testing.assert_checkpoints():
        await tx.send(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await rx.recv()
    assert scope.cancelled_caught and len(rx) == 1
    with trio.testing.assert_checkpoints():
        assert await rx.recv() == 1

trio.run(on_trio)
asyncio.run(on_asyncio(1000))
trio.run(on_trio)
"""
    )


def test_trio_imported_by_another_thread_while_a_loop_of_asyncio_runs():
    run_child(
        """
import asyncio, sys, threading
from nexus_channels import mpsc
tx, rx = mpsc.channel(4)
go = threading.Event()

def other():
    import trio, trio.testing
    own_tx, own_rx = mpsc.channel(1)

    async def main():
        for number in range(100):
            with trio.testing.assert_checkpoints():
                await own_tx.send(number)
            with trio.testing.assert_checkpoints():
                await own_rx.recv()
            await tx.send(number)
        tx.close()

    trio.run(main)

async def main():
    own_tx, own_rx = mpsc.channel(1)
    for number in range(200):
        await own_tx.send(number)
        await own_rx.recv()
    thread = threading.Thread(target=other)
    thread.start()
    got = [item async for item in rx]
    thread.join()
    return got

assert asyncio.run(main()) == list(range(100))
"""
    )


@pytest.mark.skipif(
    "asyncgen_hook" not in nexus_channels._core.build_info()["insides"], reason="without it sniffio alone is asked"
)
def test_a_nested_loop_of_asyncio_in_a_task_of_trio_is_asyncio():
    """Not advisable, but possible; sniffio still says trio then."""
    tx, rx = mpsc.channel(1)

    async def nested():
        receiving = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        await tx.send("item")
        return await receiving

    async def main():
        with trio.testing.assert_no_checkpoints():
            got = asyncio.run(nested())
        with trio.testing.assert_checkpoints():
            await tx.send("again")
        return got, await rx.recv()

    assert run(main) == ("item", "again")


def test_a_module_called_trio_that_is_none_of_ours_changes_nothing():
    run_child(
        """
import asyncio, sys, types
from nexus_channels import spsc
tx, rx = spsc.channel(1)

async def main():
    for _ in range(10):
        await tx.send(1)
        await rx.recv()

for module in (None, types.ModuleType("trio"), "no module"):
    sys.modules["trio"] = module
    asyncio.run(main())
    del sys.modules["trio"]
    asyncio.run(main())
import trio
trio.run(main)
""",
        quiet=True,
    )


@pytest.mark.skipif(FREE_THREADED, reason="without a GIL the first trio stays: another thread may be using it")
def test_trio_imported_anew_is_the_one_that_is_asked():
    run_child(
        """
import sys
from nexus_channels import spsc
tx, rx = spsc.channel(1)

def use():
    import trio, trio.testing

    async def main():
        with trio.testing.assert_checkpoints():
            await tx.send(1)
        with trio.move_on_after(0):
            await rx.recv()
        assert len(rx) == 1
        assert await rx.recv() == 1
        with trio.move_on_after(0.01):
            await rx.recv()

    trio.run(main)

use()
for name in [name for name in sys.modules if name.partition(".")[0] in ("trio", "sniffio", "outcome")]:
    del sys.modules[name]
use()
""",
    )


def test_guest_mode_over_asyncio():
    """A task of trio, its host's tasks of asyncio, and a thread, on the same channels in one thread."""
    to_trio, from_asyncio = mpsc.channel(1)
    to_asyncio, from_trio = mpsc.channel(1)
    idle = spsc.channel(1)

    async def guest():
        got = []
        async for number in from_asyncio:
            with trio.testing.assert_checkpoints():
                await to_asyncio.send(number)
            got.append(number)
        with trio.move_on_after(0.001) as scope:
            await idle.receiver.recv()
        to_asyncio.close()
        return got, scope.cancelled_caught

    async def host():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        for number in range(50):
            await to_trio.send(number)
            assert await from_trio.recv() == number
        to_trio.close()
        with pytest.raises(RecvError):
            await from_trio.recv()
        return (await done).unwrap()

    async def timed():
        async with asyncio.timeout(DEADLINE):
            return await host()

    assert asyncio.run(timed()) == (list(range(50)), True)


# Runs that end


def test_a_run_that_ended_leaves_no_waiter_and_the_next_run_goes_on(threaded):
    tx, rx = threaded.channel(1)

    async def main():
        with trio.move_on_after(0.001):
            await rx.recv()

    for _ in range(3):
        run(main)
        assert rx.statistics().waiting_receivers == 0
    tx.try_send(1)
    assert trio.run(rx.recv) == 1


def test_a_waiter_of_a_run_that_ended_is_buried_and_hands_its_turn_on(threaded, spawn):
    """A coroutine that was begun by hand in a run, and outlives it."""
    tx, rx = threaded.channel(1)
    calls = []

    async def main():
        calls.append(rx.recv())
        calls[0].send(None)

    run(main)
    assert rx.statistics().waiting_receivers == 1
    receiving = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=2)
    tx.try_send("item")
    assert receiving.join() == "item"
    assert rx.statistics().waiting_receivers == 0
    calls[0].close()


@has_wake_descriptors
def test_a_waiter_of_a_run_that_ended_after_its_descriptor_was_open_is_buried_too(threaded, spawn):
    tx, rx = threaded.channel(1)
    calls = []

    async def main():
        await trio.to_thread.run_sync(lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rx.recv)
            await until_parked(rx, receivers=1)
            await trio.to_thread.run_sync(tx.send_blocking, "opens it")
        calls.append(rx.recv())
        calls[0].send(None)

    for elsewhere in (False, True):
        spawn(trio.run, main).join() if elsewhere else run(main)
        assert rx.statistics().waiting_receivers == 1
        tx.try_send("item")
        assert rx.recv_blocking() == "item"
        calls.pop().close()


def test_a_crash_of_the_run_leaves_the_line(threaded):
    tx, rx = threaded.channel(1)

    def crash():
        raise LookupError

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rx.recv)
            await until_parked(rx, receivers=1)
            trio.lowlevel.current_trio_token().run_sync_soon(crash)
            await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    collect()
    tx.try_send("item")
    assert rx.recv_blocking() == "item"


@has_wake_descriptors
def test_runs_leave_no_descriptors_behind(threaded, spawn):
    async def main():
        tx, rx = threaded.channel(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rx.recv)
            await until_parked(rx, receivers=1)
            await trio.to_thread.run_sync(tx.send_blocking, 1)

    def descriptors():
        collect()
        return len(os.listdir("/proc/self/fd"))

    run(main)
    before = descriptors()
    for _ in range(5):
        run(main)
        spawn(trio.run, main).join()
    assert descriptors() <= before + 1


def test_a_shielded_system_task_is_woken_after_the_main_task_has_ended(spawn):
    """trio has cancelled the task that reads our descriptor by then."""
    tx, rx = mpsc.channel(1)
    got = []

    async def system():
        with trio.CancelScope(shield=True):
            got.append(await rx.recv())
            got.append(await rx.recv())

    async def main():
        trio.lowlevel.spawn_system_task(system)
        await until_parked(rx, receivers=1)

    def feed():
        until_blocked(rx, receivers=1)
        tx.send_blocking(1)
        until(lambda: got == [1])
        until_blocked(rx, receivers=1)
        tx.send_blocking(2)

    feeding = spawn(feed)
    run(main)
    feeding.join()
    assert got == [1, 2]


def test_what_waits_in_a_run_is_freed_with_it(threaded):
    gone = []

    async def main():
        tx, rx = threaded.channel(1)
        marker = Item()
        gone.extend([weakref.ref(marker), weakref.ref(rx)])
        tx.try_send(0)
        with trio.move_on_after(0.001):
            await tx.send(marker)
        with trio.move_on_after(0.001):
            await rx.recv()
            await rx.recv()

    run(main)
    collect()
    assert [reference() for reference in gone] == [None, None]


def test_results_are_handed_over_and_freed_once(threaded):
    counted = Counted()

    async def main():
        tx, rx = threaded.channel(2)
        for name in range(5):
            await tx.send(counted.new(name))
            await rx.recv()
        assert counted.freed == list(range(5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rx.recv)
            await until_parked(rx, receivers=1)
            await tx.send(counted.new("waited"))

    run(main)
    collect()
    assert counted.freed == [*range(5), "waited"]


# Signals, forks, interpreters


INTERRUPTED = """
import os, signal, threading, time
import trio
from nexus_channels import mpsc
from support import until

tx, rx = mpsc.channel(1)
got = []

async def main():
    got.append("waits")
    await rx.recv()

def interrupt():
    until(lambda: rx.statistics().waiting_receivers == 1)
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
thread.start()
try:
    trio.run(main)
except KeyboardInterrupt:
    got.append("interrupted")
thread.join()
assert got == ["waits", "interrupted"], got
assert rx.statistics().waiting_receivers == 0
tx.try_send("item")
assert trio.run(rx.recv) == "item"
"""


def test_a_wait_obeys_ctrl_c():
    run_child(INTERRUPTED)


def test_ctrl_c_at_any_moment_loses_no_item():
    """The main task is interrupted again and again while it moves numbers."""
    run_child(
        """
import itertools, os, random, signal, threading, time
import trio
from nexus_channels import local

tx, rx = local.channel(4)
numbers, received, armed, finished = itertools.count(), [], threading.Event(), False

def interrupt():
    global finished
    for _ in range(200):
        armed.wait()
        armed.clear()
        time.sleep(random.random() / 1000)
        finished = _ == 200 - 1
        os.kill(os.getpid(), signal.SIGINT)

async def main():
    armed.set()
    for number in numbers:
        await tx.send(number)
        received.append(await rx.recv())

signal.signal(signal.SIGINT, signal.default_int_handler)
thread = threading.Thread(target=interrupt)
thread.start()
interrupted = 0
while not finished:
    try:
        trio.run(main)
    except KeyboardInterrupt:
        interrupted += 1
thread.join()
assert interrupted == 200
stats = rx.statistics()
assert stats.received + stats.buffered == stats.sent
assert len(received) <= stats.received <= len(received) + interrupted
assert len(set(received)) == len(received)
""",
    )


def test_a_child_that_was_forked_in_a_run_does_not_wake_its_parent():
    run_child(
        """
import os, trio
from nexus_channels import mpsc
tx, rx = mpsc.channel(1)

async def main():
    async with trio.open_nursery() as nursery:
        got = []

        async def receive():
            got.append(await rx.recv())

        nursery.start_soon(receive)
        while rx.statistics().waiting_receivers == 0:
            await trio.lowlevel.checkpoint()
        child = os.fork()
        if child == 0:
            try:
                tx.try_send("from the child")
            finally:
                os._exit(0)
        await trio.to_thread.run_sync(os.waitpid, child, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        tx.try_send("from the parent")
    assert got == ["from the parent"]

import trio.testing, warnings
warnings.simplefilter("ignore")
trio.run(main)
"""
    )


# Claims


def test_a_claim_block_in_a_task(bytes_variant):
    tx, rx = bytes_variant.channel(64)

    async def main():
        async with trio.open_nursery() as nursery:

            async def fill():
                for number in range(20):
                    async with tx.claim(40) as view:
                        view[:] = bytes([number]) * 40
                tx.close()

            nursery.start_soon(fill)
            return [bytes(claim)[0] async for claim in rx]

    assert run(main) == list(range(20))


def test_a_claim_block_that_is_cancelled_while_it_waits_for_room_reserves_nothing(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)

    async def main():
        with trio.move_on_after(0.001) as scope:
            async with tx.claim(40):
                pytest.fail("there was no room")
        assert scope.cancelled_caught

    run(main)
    assert rx.try_recv_many(9) == [b"f" * 56]
    with tx.try_claim(40) as view:
        view[:] = b"x" * 40


def test_a_claim_that_waits_while_its_endpoint_is_lent(bytes_variant):
    tx, rx = bytes_variant.channel(64)

    async def main():
        order = []

        async def take(name):
            claim = await rx.recv()
            order.append((name, bytes(claim)))
            await trio.lowlevel.checkpoint()
            claim.release()

        async with trio.open_nursery() as nursery:
            for name in range(2):
                nursery.start_soon(take, name)
                await until_parked(rx, receivers=name + 1)
            tx.try_send_many([b"0", b"1"])
        return order

    assert run(main) == [(0, b"0"), (1, b"1")]


def test_busy_is_raised_in_a_task_as_anywhere(bytes_variant):
    tx, rx = bytes_variant.channel(64)

    async def main():
        claim = await tx.claim(8)
        with pytest.raises(BusyError):
            await tx.send(b"x")
        claim.abort()
        await tx.send(b"x")

    run(main)
    assert rx.try_recv_bytes() == b"x"


def test_a_local_channel_belongs_to_one_thread_in_trio_too(spawn):
    _tx, rx = local.channel(1)

    async def main():
        with pytest.raises(nexus_channels.WrongThreadError):
            await rx.recv()

    spawn(trio.run, main).join()


def test_steps_in_the_order_of_a_sequencer():
    """trio's own tool for such orders works with our awaits as with any."""
    tx, rx = spsc.channel(1)
    log = []

    async def first(seq):
        async with seq(0):
            await tx.send("a")
        async with seq(2):
            await tx.send("b")

    async def second(seq):
        async with seq(1):
            log.append(await rx.recv())
        async with seq(3):
            log.append(await rx.recv())

    async def main():
        seq = Sequencer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, seq)
            nursery.start_soon(second, seq)

    run(main)
    assert log == ["a", "b"]
