"""select, select_blocking, try_select and merge: one arm goes and no other, fairly, and nothing is lost on the way."""

import asyncio
import contextlib
import gc
import itertools
import threading
import weakref
from collections import Counter

import pytest
from anychannel import AnyChannel
from harness import FREE_THREADED, run_child, seeded, size
from support import Item, collect, drive, until_blocked, until_parked

import nexus_channels
from nexus_channels import (
    BusyError,
    ChannelError,
    ClaimDisconnected,
    ClaimTooLarge,
    Empty,
    EndpointClosed,
    Full,
    NothingReady,
    RecvError,
    Selected,
    SelectTimeout,
    SendError,
    WrongThreadError,
    ZeroLengthClaim,
    local,
    merge,
    mpsc,
    mpsc_bytes,
    select,
    select_blocking,
    spsc,
    spsc_bytes,
    try_select,
)

TIMEOUT = 1.0


def channels(*modules, capacity=1):
    """Of each module one, with room for `capacity` items, or 64 bytes."""
    return [module.channel(64 if module in (spsc_bytes, mpsc_bytes) else capacity) for module in modules]


def longest_wait(order, index):
    """In selects: from one turn of an arm to its next, the first and the last waits included."""
    at = [-1, *[i for i, chosen in enumerate(order) if chosen == index], len(order)]
    return max(later - earlier for earlier, later in itertools.pairwise(at))


# What one select does


def test_a_ready_receiver_is_received_from(variant):
    (tx, rx), (_tx, idle) = variant.channel(1), variant.channel(1)
    tx.try_send("value")
    done = try_select(idle, rx)
    assert done == (1, rx, "value")
    assert (done.index, done.value) == (1, "value")
    assert done.arm is rx
    assert type(done) is Selected


def test_an_arm_for_sending_sends_the_very_object(variant):
    tx, rx = variant.channel(1)
    value = Item()
    arm = tx.sending(value)
    done = try_select(arm)
    assert done == (0, arm, None)
    assert done.arm is arm
    assert arm.sender is tx
    assert arm.value is value
    assert rx.try_recv() is value


def test_an_arm_may_be_passed_again_and_sends_again(variant):
    tx, rx = variant.channel(2)
    arm = tx.sending("again")
    drive(select(arm))
    drive(select(arm))
    assert [rx.try_recv(), rx.try_recv()] == ["again", "again"]


def test_of_bytes_a_receiver_gives_a_claim_and_a_sender_claims_or_sends(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    arm = tx.claiming(3)
    assert (arm.sender, arm.size) == (tx, 3)
    with try_select(arm).value as view:
        view[:] = b"abc"
    assert try_select(tx.sending(b"def")).value is None
    for expected in (b"abc", b"def"):
        with try_select(rx).value as view:
            assert view == expected


def test_an_arm_that_sends_bytes_holds_the_buffer_that_was_passed(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    data = bytearray(b"abc")
    arm = tx.sending(data)
    assert arm.value is data
    with pytest.raises(BufferError):
        data.append(0)
    try_select(arm)
    del arm
    data.append(0)
    assert rx.try_recv_bytes() == b"abc"


def test_only_one_arm_goes():
    ends = channels(spsc, mpsc, local)
    for tx, _ in ends:
        tx.try_send(0)
    try_select(*[rx for _, rx in ends])
    assert sum(len(rx) for _, rx in ends) == 2


def test_all_kinds_mix_in_one_select():
    ends = channels(local, spsc, mpsc, spsc_bytes, mpsc_bytes)
    arms = [end for tx, rx in ends[:2] for end in (rx, tx.sending(1))] + [rx for _, rx in ends[2:]]
    assert try_select(*arms, biased=True).arm is arms[1]


def test_a_select_of_many_arms_is_no_different():
    ends = [spsc.channel(1) for _ in range(600)]
    arms = [rx for _, rx in ends]
    with pytest.raises(ValueError, match="is there twice"):
        try_select(*arms, arms[0])
    for at in (599, 300, 4):
        ends[at].sender.try_send(at)
    assert sorted(drive(select(*arms))[0] for _ in range(3)) == [4, 300, 599]

    async def parked():
        task = asyncio.create_task(select(*arms))
        await until_parked(arms[599], receivers=1)
        ends[420].sender.try_send("late")
        return await task

    assert asyncio.run(parked()) == (420, arms[420], "late")
    assert all(rx.statistics().waiting_receivers == 0 for rx in arms)


# Which arm


def test_ready_arms_take_turns(variant):
    ends = [variant.channel(12) for _ in range(3)]
    arms = [rx for _, rx in ends]
    for tx, _ in ends:
        tx.try_send_many(range(12))
    order = [drive(select(*arms)).index for _ in range(12)]
    assert order == [0, 1, 2] * 4


def test_an_arm_that_was_idle_has_its_turn_first():
    ends = [spsc.channel(12) for _ in range(3)]
    arms = [rx for _, rx in ends]
    ends[0].sender.try_send_many(range(8))
    ends[1].sender.try_send_many(range(8))
    for _ in range(5):
        drive(select(*arms))
    ends[2].sender.try_send("idle so far")
    assert drive(select(*arms)).index == 2


def test_selects_of_other_arms_in_between_take_no_turns_away():
    ends = [spsc.channel(64) for _ in range(4)]
    one, two, three, four = (rx for _, rx in ends)
    for tx, _ in ends:
        tx.try_send_many(range(64))
    order = []
    for _ in range(12):
        order.append(drive(select(one, two, three)).index)
        drive(select(one, four))
    for index in (1, 2):  # the first arm has turns in the other select, too
        assert longest_wait(order, index) <= 3, order


def test_biased_takes_the_first_that_can_go():
    ends = [spsc.channel(4) for _ in range(3)]
    arms = [rx for _, rx in ends]
    for tx, _ in ends[1:]:
        tx.try_send_many(range(3))
    assert [drive(select(*arms, biased=True)).index for _ in range(6)] == [1, 1, 1, 2, 2, 2]
    ends[0].sender.try_send(0)
    assert try_select(*arms, biased=True).index == 0


def test_an_ended_arm_takes_its_turn_among_the_ready_ones():
    (tx, rx), (tx2, rx2) = spsc.channel(4), spsc.channel(4)
    tx.close()
    tx2.try_send_many([1, 2])
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(drive(select(rx, rx2)).value)
        except RecvError:
            outcomes.append("end")
    assert outcomes == ["end", 1, "end", 2]


def test_no_arm_waits_longer_than_a_turn_of_each_other_when_all_are_saturated(run):
    ends = [mpsc.channel(8) for _ in range(4)]
    arms = [rx for _, rx in ends]
    rounds = size(400, 20_000)

    async def feed(tx):
        with contextlib.suppress(SendError):
            while True:
                await tx.send(None)

    async def main():
        feeders = [asyncio.create_task(feed(tx)) for tx, _ in ends]
        for rx in arms:
            await until_parked(rx, senders=1)
        order = []
        for _ in range(rounds):
            for rx in arms:  # saturated means: there is always something
                await until_parked(rx, senders=1)
            order.append((await select(*arms)).index)
        for rx in arms:
            rx.close()
        await asyncio.gather(*feeders)
        return order

    order = run(main())
    assert max(longest_wait(order, index) for index in range(4)) <= 4


# Errors


def test_no_arms_are_refused():
    for function in (select, select_blocking, try_select, merge):
        with pytest.raises(ValueError, match="at least one arm"):
            function()


def test_an_endpoint_twice_is_refused_and_named(variant):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    for function in (select, select_blocking, try_select, merge):
        with pytest.raises(ValueError, match="Receiver .* is there twice"):
            function(rx, rx)
    for function in (select, select_blocking, try_select):
        with pytest.raises(ValueError, match="Sender .* is there twice"):
            function(tx.sending(1), rx, tx.sending(2))
    assert len(rx) == 1


def test_what_is_no_arm_is_refused(bytes_variant):
    (tx, rx), (btx, _) = spsc.channel(1), bytes_variant.channel(64)
    for function in (select, select_blocking, try_select):
        with pytest.raises(TypeError, match=r"pass sender\.sending\(value\)$"):
            function(rx, tx)
        with pytest.raises(TypeError, match=r"sender\.sending\(value\) or sender\.claiming\(n\)$"):
            function(rx, btx)
        with pytest.raises(TypeError, match="not int") as caught:
            function(rx, 5)
        assert (caught.value.index, caught.value.arm) == (1, 5)
        with pytest.raises(TypeError, match="unexpected keyword argument 'wait'"):
            function(rx, wait=1)
    with pytest.raises(TypeError, match="merge\\(\\) takes receivers, not .*Sending"):
        merge(rx, tx.sending(1))
    with pytest.raises(TypeError, match="unexpected keyword argument 'timeout'"):
        try_select(rx, timeout=1)


@pytest.mark.parametrize("timeout", ["1", -1, float("nan"), True])
def test_a_bad_timeout_is_refused_at_the_call(timeout):
    _tx, rx = spsc.channel(1)
    for function in (select, select_blocking):
        with pytest.raises((TypeError, ValueError), match="timeout"):
            function(rx, timeout=timeout)


def test_arms_check_what_they_are_made_of(bytes_variant):
    tx, _ = bytes_variant.channel(64)
    for make, bad, error in [
        (tx.sending, b"", ZeroLengthClaim),
        (tx.sending, bytes(100), ClaimTooLarge),
        (tx.sending, "text", TypeError),
        (tx.claiming, 0, ZeroLengthClaim),
        (tx.claiming, 100, ClaimTooLarge),
        (tx.claiming, "3", TypeError),
    ]:
        with pytest.raises(error):
            make(bad)
    with pytest.raises(AttributeError):
        spsc.channel(1).sender.claiming(1)


def test_an_arm_cannot_be_made_but_by_its_sender():
    for cls in (nexus_channels._core.Sending, nexus_channels._core.Claiming, Selected):
        with pytest.raises(TypeError):
            cls()


def test_an_ended_arm_raises_its_error_and_says_which_it_is(variant):
    for function in (try_select, lambda *arms: drive(select(*arms))):
        (tx, rx), (tx2, rx2), (_tx, idle) = variant.channel(1), variant.channel(1), variant.channel(1)
        tx.close()
        rx2.close()
        arm = tx2.sending("lost")
        with pytest.raises(RecvError) as caught:
            function(idle, rx)
        assert (caught.value.index, caught.value.arm) == (1, rx)
        with pytest.raises(SendError) as caught:
            function(arm, idle)
        assert (caught.value.index, caught.value.arm) == (0, arm)
        assert caught.value.value == "lost"
        rx.close()
        with pytest.raises(EndpointClosed) as caught:
            function(idle, rx)
        assert (caught.value.index, caught.value.arm) == (1, rx)


def test_other_errors_name_no_arm():
    _tx, rx = spsc.channel(1)
    with pytest.raises(Empty) as caught:
        rx.try_recv()
    assert (caught.value.index, caught.value.arm) == (None, None)


def test_a_claim_of_a_receiver_that_is_gone_raises(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    rx.close()
    with pytest.raises(ClaimDisconnected) as caught:
        try_select(tx.claiming(4))
    assert caught.value.index == 0


def test_an_endpoint_that_a_claim_uses_is_refused_at_the_call(bytes_variant):
    (tx, rx), (_tx, idle) = bytes_variant.channel(64), spsc.channel(1)
    claim = tx.try_claim(8)
    for function in (select, select_blocking, try_select):
        with pytest.raises(BusyError) as caught:
            function(idle, tx.sending(b"abc"))
        assert caught.value.index == 1
        with pytest.raises(BusyError):
            function(tx.claiming(1), idle)
    claim.abort()
    assert try_select(tx.claiming(1)).index == 0
    assert rx.statistics().waiting_receivers == 0


def test_a_local_channel_off_its_thread_is_refused_before_anything_is_done(spawn):
    (_tx, mine), (tx, rx) = local.channel(1), spsc.channel(1)
    tx.try_send("stays")

    def elsewhere():
        for function in (try_select, select_blocking, lambda *arms: asyncio.run(collected(select(*arms)))):
            with pytest.raises(WrongThreadError) as caught:
                function(rx, mine)
            assert (caught.value.index, caught.value.arm) == (1, mine)
            with pytest.raises(WrongThreadError):
                function(mine, rx)

    async def collected(awaitable):
        return await awaitable

    spawn(elsewhere).join()
    assert rx.try_recv() == "stays"
    assert rx.statistics().waiting_receivers == 0


def test_nothing_ready_is_empty_and_full_and_nothing_is_done(variant):
    (tx, rx), (_tx, idle) = variant.channel(1), variant.channel(1)
    tx.try_send(0)
    with pytest.raises(NothingReady, match="none of 2 arms") as caught:
        try_select(idle, tx.sending(1))
    assert isinstance(caught.value, Empty)
    assert isinstance(caught.value, Full)
    assert len(rx) == 1


def test_without_a_loop_it_raises_where_it_has_to_wait(variant):
    _tx, rx = variant.channel(1)
    with pytest.raises(RuntimeError, match=r"select\(\) has to wait"):
        drive(select(rx))
    assert rx.statistics().waiting_receivers == 0


# Waiting


def test_the_first_arm_that_can_go_ends_the_wait(step_loop, variant):
    ends = [variant.channel(1) for _ in range(3)]
    arms = [rx for _, rx in ends]
    for at in range(3):
        task = step_loop.create_task(select(*arms))
        step_loop.run_ready()
        assert [rx.statistics().waiting_receivers for rx in arms] == [1, 1, 1]
        ends[at].sender.try_send(at)
        step_loop.run_ready()
        assert task.result() == (at, arms[at], at)
        assert [rx.statistics().waiting_receivers for rx in arms] == [0, 0, 0]


def test_room_for_one_of_several_sends_ends_the_wait(step_loop, variant):
    ends = [variant.channel(1) for _ in range(2)]
    for tx, _ in ends:
        tx.try_send("old")
    task = step_loop.create_task(select(*[tx.sending("new") for tx, _ in ends]))
    step_loop.run_ready()
    assert ends[1].receiver.try_recv() == "old"
    step_loop.run_ready()
    assert task.result().index == 1
    assert ends[1].receiver.try_recv() == "new"
    assert ends[0].receiver.try_recv() == "old"
    assert len(ends[0].receiver) == 0


def test_send_and_receive_on_one_channel(step_loop):
    tx, rx = spsc.channel(1)
    tx.try_send("full")
    done = drive(select(tx.sending("more"), rx))
    assert done == (1, rx, "full")


def test_a_claim_that_has_to_wait_gets_its_room(step_loop, bytes_variant):
    tx, rx = bytes_variant.channel(64)
    _tx, idle = spsc.channel(1)
    tx.try_send(bytes(40))
    task = step_loop.create_task(select(idle, tx.claiming(40)))
    step_loop.run_ready()
    rx.try_recv_bytes()
    step_loop.run_ready()
    with task.result().value as view:
        assert len(view) == 40


def test_a_wait_for_an_endpoint_that_is_lent_meanwhile_goes_on_when_it_is_given_back(step_loop, bytes_variant):
    tx, rx = bytes_variant.channel(64)
    _tx, idle = spsc.channel(1)
    task = step_loop.create_task(select(idle, rx))
    step_loop.run_ready()
    other = step_loop.create_task(rx.recv())
    step_loop.run_ready()
    tx.try_send(b"first")
    tx.try_send(b"second")
    step_loop.run_ready()
    done = task.result()
    assert bytes(done.value) == b"first"
    assert not other.done()
    again = step_loop.create_task(select(idle, tx.sending(b"x" * 48)))
    step_loop.run_ready()
    done.value.release()
    step_loop.run_ready()
    assert bytes(other.result()) == b"second"
    waits = step_loop.create_task(asyncio.sleep(0))
    step_loop.run_ready()
    assert waits.done()
    assert not again.done()
    other.result().release()
    step_loop.run_ready()
    assert again.result().index == 1


def test_a_timeout_of_zero_looks_once(variant):
    tx, rx = variant.channel(1)
    with pytest.raises(SelectTimeout):
        drive(select(rx, timeout=0))
    tx.try_send(1)
    assert drive(select(rx, timeout=0)).value == 1
    with pytest.raises(SelectTimeout):
        select_blocking(rx, timeout=0)


def test_a_timeout_ends_the_wait_and_leaves_every_line(step_loop, variant):
    ends = [variant.channel(1) for _ in range(3)]
    arms = [rx for _, rx in ends]
    task = step_loop.create_task(select(*arms, timeout=TIMEOUT))
    step_loop.run_ready()
    step_loop.advance(0.9 * TIMEOUT)
    assert not task.done()
    step_loop.advance(0.2 * TIMEOUT)
    with pytest.raises(SelectTimeout, match="none of 3 arms") as caught:
        task.result()
    assert isinstance(caught.value, TimeoutError)
    assert all(rx.statistics().waiting_receivers == 0 for rx in arms)


def test_a_merge_does_not_get_the_timeout_of_an_earlier_select(step_loop, variant):
    tx, rx = variant.channel(1)
    merged = merge(rx)
    tx.try_send(1)
    drive(select(rx, timeout=TIMEOUT))  # what it used is used again
    task = step_loop.create_task(merged.__anext__())
    step_loop.run_ready()
    step_loop.advance(2 * TIMEOUT)
    assert not task.done()
    step_loop.call(tx.try_send, 2)
    step_loop.run_ready()
    assert task.result() == (rx, 2)


def test_cancelled_when_called_it_hands_each_turn_to_the_next_in_line(step_loop, variant):
    ends = [variant.channel(1) for _ in range(2)]
    arms = [rx for _, rx in ends]
    first = step_loop.create_task(select(*arms))
    step_loop.run_ready()
    next_in_line = [step_loop.create_task(rx.recv()) for rx in arms]
    step_loop.run_ready()
    for at, (tx, _) in enumerate(ends):
        tx.try_send(at)
    first.cancel()
    step_loop.run_ready()
    assert first.cancelled()
    assert [task.result() for task in next_in_line] == [0, 1]


def test_the_turns_of_the_arms_not_taken_go_to_the_next_in_line(step_loop, variant):
    ends = [variant.channel(1) for _ in range(2)]
    arms = [rx for _, rx in ends]
    first = step_loop.create_task(select(*arms))
    step_loop.run_ready()
    behind = [step_loop.create_task(rx.recv()) for rx in arms]
    step_loop.run_ready()
    for at, (tx, _) in enumerate(ends):
        tx.try_send(at)
    step_loop.run_ready()
    taken = first.result().index
    assert behind[1 - taken].result() == 1 - taken
    assert not behind[taken].done()
    behind[taken].cancel()
    step_loop.run_ready()


def test_a_value_is_owed_to_a_select_that_was_called_but_not_for_longer(step_loop, variant):
    ends = [variant.channel(1) for _ in range(2)]
    arms = [rx for _, rx in ends]
    task = step_loop.create_task(select(*arms))
    step_loop.run_ready()
    for tx, _ in ends:
        tx.try_send(0)
    for rx in arms:
        with pytest.raises(Empty):
            rx.try_recv()
    step_loop.run_ready()
    assert arms[1 - task.result().index].try_recv() == 0


def test_an_awaited_select_cannot_be_awaited_again(run):
    tx, rx = spsc.channel(2)
    tx.try_send_many([1, 2])

    async def main():
        once = select(rx)
        assert (await once).value == 1
        with pytest.raises(RuntimeError, match="cannot reuse already awaited select"):
            await once

    run(main())
    assert rx.try_recv() == 2


def test_a_select_that_nobody_awaits_warns_and_does_nothing():
    tx, rx = spsc.channel(1)
    tx.try_send(1)
    with pytest.warns(RuntimeWarning, match="coroutine 'select' was never awaited"):
        select(rx)
    assert len(rx) == 1


def test_a_select_that_was_kept_after_the_warning_warns_again_when_it_is_used_again():
    tx, rx = spsc.channel(2)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings._warn_unawaited_coroutine", kept.append)
        select(rx)
    tx.try_send(1)
    assert drive(kept.pop()).value == 1
    with pytest.warns(RuntimeWarning, match="coroutine 'select' was never awaited"):
        select(rx)


def test_what_a_select_lets_go_of_may_try_to_close_it(variant):
    (tx, rx), (other, _rx) = variant.channel(1), variant.channel(1)

    class Closer:
        def __del__(self):
            with contextlib.suppress(RuntimeError):  # it is being awaited still
                waiting.close()

    tx.try_send(1)
    waiting = select(rx, other.sending(Closer()))  # only the arm has that
    assert drive(waiting).value == 1
    assert repr(waiting).startswith("<select() done")


def test_it_waits_in_one_loop_only(step_loop):
    from steploop import StepLoop

    _tx, rx = spsc.channel(1)
    waiting = select(rx)
    step_loop.call(waiting.send, None)
    other = StepLoop()
    with pytest.raises(RuntimeError, match="already being awaited"):
        other.call(waiting.send, None)
    waiting.close()
    assert rx.statistics().waiting_receivers == 0
    other.close()


def test_a_waiting_select_shows_as_a_coroutine_does(step_loop):
    _tx, rx = spsc.channel(1)
    waiting = select(rx)
    assert repr(waiting).startswith("<select() created at ")
    assert (waiting.__name__, waiting.cr_running, waiting.cr_await) == ("select", False, None)
    future = step_loop.call(waiting.send, None)
    assert waiting.cr_await is future
    assert waiting.cr_suspended
    waiting.close()
    assert repr(waiting).startswith("<select() done at ")


def test_closing_an_endpoint_ends_the_selects_that_wait_on_it(step_loop, variant):
    (_tx, rx), (_tx2, other) = variant.channel(1), variant.channel(1)
    task = step_loop.create_task(select(other, rx))
    step_loop.run_ready()
    rx.close()
    step_loop.run_ready()
    with pytest.raises(EndpointClosed) as caught:
        task.result()
    assert caught.value.index == 1
    assert other.statistics().waiting_receivers == 0


@pytest.mark.parametrize("index", range(3))
def test_an_endpoint_closed_just_before_the_select_lines_up_ends_the_wait(variant, index):
    from steploop import StepLoop

    class Busy(StepLoop):
        def call_later(self, *args, **kwargs):
            arms[index].close()
            return super().call_later(*args, **kwargs)

    ends = [variant.channel(1) for _ in range(3)]
    arms = [rx for _, rx in ends]
    loop = Busy()
    task = loop.create_task(select(*arms, timeout=TIMEOUT))
    loop.run_ready()
    with pytest.raises(EndpointClosed) as caught:
        task.result()
    assert caught.value.index == index
    assert all(rx.statistics().waiting_receivers == 0 for rx in arms)
    loop.close()


def test_the_end_of_one_channel_ends_the_wait(step_loop, variant):
    (tx, rx), (_tx, other) = variant.channel(1), variant.channel(1)
    task = step_loop.create_task(select(other, rx))
    step_loop.run_ready()
    tx.close()
    step_loop.run_ready()
    with pytest.raises(RecvError):
        task.result()


ASKED = """
import contextlib
from steploop import StepLoop
from nexus_channels import select, spsc

class Asked(StepLoop):
    def is_closed(self):
        with contextlib.suppress(RuntimeError, KeyError):  # it is running, not there yet, or gone
            held["waiting"].close()
            held["ahead"].close()
            held.clear()
            self.close()
        return super().is_closed()

loop, other = StepLoop(), Asked()
held = {"idle": spsc.channel(1), "ends": spsc.channel(1)}
held["ahead"] = held["ends"].receiver.recv()
other.call(held["ahead"].send, None)
held["ends"].sender.try_send(1)  # calls that one, which does not run
held["waiting"] = select(held["idle"].receiver, held["ends"].receiver)
loop.call(held["waiting"].send, None)
print(held)
"""


def test_a_loop_that_is_asked_whether_it_is_closed_may_end_the_select_that_asks():
    """The program takes all away that the select waits on, while waiters ahead of it are looked at."""
    assert run_child(ASKED, env={"PYTHONMALLOC": "debug"}) == "{}\n"


def test_a_closed_loop_with_a_select_holds_nobody_up(step_loop):
    from steploop import StepLoop

    ends = channels(mpsc, spsc)
    arms = [rx for _, rx in ends]
    dead = StepLoop()
    abandoned = dead.create_task(select(*arms))
    dead.run_ready()
    tasks = [step_loop.create_task(rx.recv()) for rx in arms]
    step_loop.run_ready()
    dead.close()
    for at, (tx, _) in enumerate(ends):
        tx.try_send(at)
    step_loop.run_ready()
    assert [task.result() for task in tasks] == [0, 1]
    abandoned._log_destroy_pending = False


# All orders within one tick of the loop


class World:
    """`n` channels of capacity 1 and a select that waits on all; each event may or may not be possible."""

    def __init__(self, loop, modules, sending):
        self.loop = loop
        self.ends = [module.channel(1) for module in modules]
        self.sends = [at in sending for at in range(len(modules))]
        self.sent, self.got, self.discarded = [[] for _ in modules], [[] for _ in modules], [0] * len(modules)
        for at, sends in enumerate(self.sends):
            if sends:
                self.try_send(at)  # full, so that the select has to wait
        self.tasks = []  # (task, what it waits on, {arm: value})
        self.start_select(timeout=TIMEOUT)
        loop.run_ready()

    def start_select(self, timeout=None):
        arms, values = [], {}
        for at, (tx, rx) in enumerate(self.ends):
            values[at] = Item(f"select {len(self.tasks)} arm {at}")
            arms.append(tx.sending(values[at]) if self.sends[at] else rx)
        self.tasks.append((self.loop.create_task(select(*arms, timeout=timeout)), range(len(arms)), values))

    def second_select(self):
        self.start_select()

    def plain(self, at):
        value = Item(f"plain {at}")
        tx, rx = self.ends[at]
        self.tasks.append((self.loop.create_task(tx.send(value) if self.sends[at] else rx.recv()), [at], {at: value}))

    def cancel(self):
        self.tasks[0][0].cancel()

    def time_out(self):
        self.loop.skip(TIMEOUT)

    def try_send(self, at):
        value = Item(f"tried {at} {len(self.sent[at])}")
        with contextlib.suppress(Full, SendError, EndpointClosed):
            self.ends[at].sender.try_send(value)
            self.sent[at].append(value)

    def try_recv(self, at):
        with contextlib.suppress(Empty, RecvError, EndpointClosed):
            self.got[at].append(self.ends[at].receiver.try_recv())

    def close_tx(self, at):
        self.ends[at].sender.close()

    def close_rx(self, at):
        if not self.ends[at].receiver.is_closed:
            self.discarded[at] += len(self.ends[at].receiver)
        self.ends[at].receiver.close()

    def settle(self):
        """Nothing is ready: nobody waits who could go on, and every value is in one place."""
        self.loop.run_ready()
        waiting = Counter()
        for task, arms, _ in self.tasks:
            if not task.done():
                waiting.update(arms)
        for at, (tx, rx) in enumerate(self.ends):
            stats = rx.statistics()
            assert (stats.waiting_senders if self.sends[at] else stats.waiting_receivers) == waiting[at]
            if waiting[at]:
                assert not tx.is_closed
                assert not rx.is_closed
                assert stats.buffered == (1 if self.sends[at] else 0)

    def finish(self):
        self.settle()
        for at in range(len(self.ends)):
            self.close_tx(at)
            while len(self.ends[at].receiver) and not self.ends[at].receiver.is_closed:
                self.try_recv(at)
        self.loop.run_ready()
        for task, arms, values in self.tasks:
            assert task.done()
            if task.cancelled() or task.exception() is not None:
                assert task.cancelled() or isinstance(task.exception(), ChannelError)
                continue
            at, _, value = task.result() if len(arms) == len(self.ends) > 1 else (arms[0], None, task.result())
            if self.sends[at]:
                self.sent[at].append(values[at])
            else:
                self.got[at].append(value)
        for at in range(len(self.ends)):
            assert len(self.sent[at]) == len(self.got[at]) + self.discarded[at]
            assert set(self.got[at]) <= set(self.sent[at])
            assert len(set(self.got[at])) == len(self.got[at])
        assert self.loop.next_timer() is None


def events(arms):
    for at in range(arms):
        for name in ("try_send", "try_recv", "close_tx", "close_rx", "plain"):
            yield name, at
    yield "second_select", None
    yield "cancel", None
    yield "time_out", None


def play(loop, modules, sending, history):
    world = World(loop, modules, sending)
    try:
        for name, at in history:
            getattr(world, name)(*([] if at is None else [at]))
        world.finish()
    except AssertionError as error:
        raise AssertionError(f"{sending=} {history=}: {error}") from error


@pytest.mark.parametrize("sending", [(), (1,), (0, 1)], ids=["both receive", "one sends", "both send"])
def test_every_order_of_three_events_in_one_tick_with_two_arms(step_loop, variant, sending):
    for history in itertools.permutations(events(2), 3):
        play(step_loop, [variant, spsc], sending, history)


@pytest.mark.parametrize("sending", [(), (2,), (0, 1, 2)], ids=["all receive", "one sends", "all send"])
def test_every_order_of_two_events_in_one_tick_with_three_arms(step_loop, sending):
    for history in itertools.product(events(3), repeat=2):
        play(step_loop, [spsc, mpsc, local], sending, history)


def test_every_order_of_four_events_with_two_arms_and_of_three_with_three(step_loop):
    for history in itertools.permutations(events(2), 4):
        play(step_loop, [mpsc, spsc], (1,), history)
    for history in itertools.permutations(events(3), 3):
        play(step_loop, [mpsc, spsc, local], (1,), history)


# In threads


def test_a_thread_sleeps_until_one_arm_can_go(threaded, spawn):
    ends = [threaded.channel(1) for _ in range(3)]
    arms = [rx for _, rx in ends]
    for at in range(3):
        thread = spawn(select_blocking, *arms)
        for rx in arms:
            until_blocked(rx, receivers=1)
        ends[at].sender.try_send(at)
        assert thread.join() == (at, arms[at], at)
        assert all(rx.statistics().waiting_receivers == 0 for rx in arms)


def test_a_thread_sends_where_there_is_room_first(threaded, spawn):
    ends = [threaded.channel(1) for _ in range(2)]
    for tx, _ in ends:
        tx.try_send("old")
    thread = spawn(select_blocking, *[tx.sending("new") for tx, _ in ends])
    for tx, _ in ends:
        until_blocked(tx, senders=1)
    assert ends[1].receiver.try_recv() == "old"
    assert thread.join().index == 1
    assert ends[1].receiver.try_recv() == "new"
    assert (len(ends[0].receiver), ends[0].sender.statistics().waiting_senders) == (1, 0)


def test_a_thread_claims_and_receives_bytes(bytes_variant, spawn):
    (tx, rx), (tx2, rx2) = bytes_variant.channel(64), bytes_variant.channel(64)
    tx2.try_send(bytes(40))
    thread = spawn(select_blocking, rx, tx2.claiming(40))
    until_blocked(rx, receivers=1)
    rx2.try_recv_bytes()
    done = thread.join()
    done.value.abort()
    thread = spawn(select_blocking, rx, rx2)
    until_blocked(rx2, receivers=1)
    tx.try_send(b"abc")
    with thread.join().value as view:
        assert view == b"abc"


def test_a_timeout_ends_the_wait_of_a_thread(threaded):
    ends = [threaded.channel(1) for _ in range(3)]
    arms = [rx for _, rx in ends]
    with pytest.raises(SelectTimeout, match="none of 3 arms"):
        select_blocking(*arms, timeout=0.001)
    assert all(rx.statistics().waiting_receivers == 0 for rx in arms)


def test_closing_or_the_end_wakes_a_thread(threaded, spawn):
    for how, error in [("close_rx", EndpointClosed), ("close_tx", RecvError)]:
        (tx, rx), (_tx, other) = threaded.channel(1), threaded.channel(1)
        thread = spawn(select_blocking, other, rx)
        until_blocked(rx, receivers=1)
        (rx if how == "close_rx" else tx).close()
        with pytest.raises(error) as caught:
            thread.join()
        assert caught.value.index == 1
        assert other.statistics().waiting_receivers == 0


def test_a_thread_that_times_out_hands_its_turn_on(threaded, spawn):
    tx, rx = threaded.channel(1)
    _tx, other = threaded.channel(1)
    thread = spawn(pytest.raises, SelectTimeout, select_blocking, other, rx, timeout=0.01)
    until_blocked(rx, receivers=1)
    behind = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=2)
    thread.join()
    tx.try_send("next")
    assert behind.join() == "next"


def test_tasks_and_threads_select_from_the_same_receivers(run, spawn):
    ends = [mpsc.channel(2) for _ in range(2)]
    arms = [rx for _, rx in ends]
    each = size(300, 30_000)
    got = []

    def take():
        with contextlib.suppress(RecvError):
            while True:
                got.append(select_blocking(*arms).value)

    async def take_too():
        with contextlib.suppress(RecvError):
            while True:
                got.append((await select(*arms)).value)

    async def main():
        tasks = [asyncio.create_task(take_too()) for _ in range(2)]
        threads = [spawn(take) for _ in range(2)]
        for number in range(each):
            await asyncio.gather(*[tx.send((at, number)) for at, (tx, _) in enumerate(ends)])
        for tx, rx in ends:
            await until_async_empty(rx)
            tx.close()
        await asyncio.gather(*tasks)
        await asyncio.to_thread(lambda: [thread.wait() for thread in threads])

    async def until_async_empty(rx):
        while len(rx):
            await asyncio.sleep(0)

    run(main())
    assert sorted(got) == [(at, number) for at in range(2) for number in range(each)]


def test_select_in_a_thread_ends_when_a_native_sender_commits(driver, bytes_variant, spawn):
    (tx, rx), (_tx, idle) = bytes_variant.channel(256), spsc.channel(1)
    with tx.native() as end:
        sender = driver.sender(end)
        thread = spawn(select_blocking, idle, rx)
        until_blocked(rx, receivers=1)
        sender.send(b"native")
        with thread.join().value as view:
            assert view == b"native"
        sender.detach()


# Many, with everything at once


@pytest.mark.watchdog(1200)
@pytest.mark.timeout(1200)
def test_select_against_sending_threads_with_cancellation_accounts_for_everything(spawn):
    """Four threads send as fast as they can; a task selects, and two of three of its calls may be cancelled."""
    rounds = size(200_000, 1_000_000)
    names = ["spsc", "mpsc", "spsc_bytes", "mpsc_bytes"]
    worlds = [AnyChannel(name) for name in names]
    stop = threading.Event()
    random = seeded("select against threads")

    def feed(channel):
        number = 0
        with contextlib.suppress(SendError):
            while not stop.is_set():
                channel.send_blocking(number)
                number += 1
            return number
        return number

    async def main():
        got = [[] for _ in worlds]
        arms = [world.rx for world in worlds]

        def account(done):
            world = worlds[done.index]
            item = done.value
            if world.bytes:
                with item as view:
                    item = bytes(view)
            got[done.index].append(world.unpack(item))

        for _ in range(rounds):
            chance = random.random()
            if chance < 0.5:
                account(await select(*arms))
                continue
            task = asyncio.create_task(select(*arms, timeout=random.choice([None, 1e-5, 1])))
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SelectTimeout):
                account(await task)
        return got

    threads = [spawn(feed, world) for world in worlds]
    try:
        got = asyncio.run(main())
    finally:
        stop.set()
        rest = [[] for _ in worlds]
        for world, thread, numbers in zip(worlds, threads, rest, strict=True):
            while thread.is_alive() or len(world.rx):
                numbers += world.drain()
    for world, thread, numbers, left in zip(worlds, threads, got, rest, strict=True):
        assert numbers + left == list(range(thread.join())), world.name
        assert len(numbers) > 0


# merge


def test_merge_gives_each_value_with_its_receiver_and_ends_with_the_last(run, variant):
    ends = [variant.channel(4) for _ in range(3)]
    arms = [rx for _, rx in ends]
    for at, (tx, _) in enumerate(ends):
        tx.try_send_many([(at, 0), (at, 1)])
        tx.close()

    async def main():
        return [(arms.index(rx), value) async for rx, value in merge(*arms)]

    assert run(main()) == [(0, (0, 0)), (1, (1, 0)), (2, (2, 0)), (0, (0, 1)), (1, (1, 1)), (2, (2, 1))]


def test_merge_in_a_thread(threaded, spawn):
    ends = [threaded.channel(1) for _ in range(2)]
    arms = [rx for _, rx in ends]

    def feed(tx, number):
        with tx:
            for value in range(50):
                tx.send_blocking((number, value))

    for number, (tx, _) in enumerate(ends):
        spawn(feed, tx, number)
    got = [value for _, value in merge(*arms)]
    assert sorted(got) == [(number, value) for number in range(2) for value in range(50)]
    assert [value for number, value in got if number == 1] == list(range(50))


def test_merge_of_ended_receivers_ends_at_once(run, variant):
    ends = [variant.channel(1) for _ in range(2)]
    ends[0].sender.close()
    ends[1].receiver.close()
    arms = [rx for _, rx in ends]
    if variant is not local:
        assert list(merge(*arms)) == []

    async def main():
        return [pair async for pair in merge(*arms)]

    assert run(main()) == []


def test_merge_goes_on_after_one_has_ended_or_was_closed(run):
    (tx, rx), (_tx, closed), (tx2, rx2) = channels(spsc, mpsc, spsc, capacity=4)
    tx.try_send(1)
    tx.close()
    tx2.try_send_many([2, 3])

    async def main():
        got = []
        async for receiver, value in merge(rx, closed, rx2):
            got.append((receiver is rx2, value))
            closed.close()
            if value == 3:
                tx2.close()
        return got

    assert run(main()) == [(False, 1), (True, 2), (True, 3)]


def test_merge_ends_each_claim_when_the_next_is_asked_for(run, bytes_variant):
    ends = [bytes_variant.channel(64) for _ in range(2)]
    arms = [rx for _, rx in ends]
    for tx, _ in ends:
        tx.try_send_many([b"one", b"two"])
        tx.close()

    async def main():
        claims = [claim async for _, claim in merge(*arms)]
        return claims

    claims = run(main())
    assert len(claims) == 4
    assert all(", done, " in repr(claim) for claim in claims)
    assert all(rx.used == 0 for rx in arms)


def test_merge_refuses_to_go_on_while_a_view_is_used(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"one", b"two"])
    merged = merge(rx)
    _, claim = next(merged)
    view = memoryview(claim)
    with pytest.raises(BufferError):
        next(merged)
    assert view == b"one"
    view.release()
    _, claim = next(merged)
    assert bytes(claim) == b"two"


def test_a_merge_that_is_left_gives_its_claim_back(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"one", b"two"])
    kept = []
    for _, claim in merge(rx):
        kept.append(claim)
        break
    assert ", done, " in repr(kept[0])
    assert rx.try_recv_bytes() == b"two"


def test_cancelling_a_merge_loses_nothing(step_loop, variant):
    ends = [variant.channel(1) for _ in range(2)]
    merged = merge(*[rx for _, rx in ends])
    task = step_loop.create_task(merged.__anext__())
    step_loop.run_ready()
    ends[0].sender.try_send("kept")
    task.cancel()
    step_loop.run_ready()
    assert task.cancelled()
    task = step_loop.create_task(merged.__anext__())
    step_loop.run_ready()
    assert task.result()[1] == "kept"


def test_merge_is_fair_or_biased(run):
    ends = [spsc.channel(4) for _ in range(2)]
    arms = [rx for _, rx in ends]

    async def order(biased):
        for tx, _ in ends:
            tx.try_send_many(range(4))
        got = []
        async for rx, _ in merge(*arms, biased=biased):
            got.append(arms.index(rx))
            if len(got) == 8:
                return got

    assert run(order(False)) == [0, 1] * 4
    assert run(order(True)) == [0] * 4 + [1] * 4


# In tasks of trio


def in_trio(function, *args, clock=None):
    return pytest.importorskip("trio", reason="trio is not installed").run(function, *args, clock=clock)


def test_a_select_in_trio_waits_for_what_comes_first(variant):
    async def main():
        import trio.testing

        (tx, rx), (_tx, idle) = variant.channel(1), variant.channel(1)
        done = []

        async def wait():
            done.append(await select(idle, rx))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert rx.statistics().waiting_receivers == idle.statistics().waiting_receivers == 1
            tx.try_send("value")
        assert done == [(1, rx, "value")]
        assert rx.statistics().waiting_receivers == idle.statistics().waiting_receivers == 0

    in_trio(main)


def test_a_select_in_trio_is_a_checkpoint_before_it_does_anything(variant):
    async def main():
        import trio.testing

        (tx, rx), (tx2, rx2) = variant.channel(1), variant.channel(1)
        tx.try_send("stays")
        with trio.CancelScope() as scope:
            scope.cancel()
            await select(rx, tx2.sending("not sent"))
        assert scope.cancelled_caught
        assert (len(rx), len(rx2)) == (1, 0)
        with trio.testing.assert_checkpoints():
            assert (await select(rx)).value == "stays"

    in_trio(main)


def test_a_select_in_trio_that_was_called_and_is_cancelled_hands_its_turns_on(variant):
    async def main():
        import trio.testing

        ends = [variant.channel(1) for _ in range(2)]
        arms = [rx for _, rx in ends]
        got = []

        async def first(scope):
            with scope:
                await select(*arms)

        async def behind(rx):
            got.append(await rx.recv())

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, scope)
            await trio.testing.wait_all_tasks_blocked()
            for rx in arms:
                nursery.start_soon(behind, rx)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            for at, (tx, _) in enumerate(ends):
                tx.try_send(at)
        assert sorted(got) == [0, 1]

    in_trio(main)


def test_a_timeout_of_a_select_in_trio_runs_on_its_clock(variant):
    async def main():
        import trio

        (_tx, rx), (_tx2, rx2) = variant.channel(1), variant.channel(1)
        began = trio.current_time()
        with pytest.raises(SelectTimeout):
            await select(rx, rx2, timeout=60)
        assert trio.current_time() - began == pytest.approx(60)
        with trio.move_on_after(60) as scope:
            await select(rx, rx2)
        assert scope.cancelled_caught
        assert rx.statistics().waiting_receivers == rx2.statistics().waiting_receivers == 0

    testing = pytest.importorskip("trio.testing", reason="trio is not installed")
    in_trio(main, clock=testing.MockClock(autojump_threshold=0))


def test_a_merge_in_trio_gets_what_threads_send(threaded):
    async def main():
        ends = [threaded.channel(4) for _ in range(2)]

        def feed(at, tx):
            with tx:
                for number in range(100):
                    tx.send_blocking((at, number))

        threads = [threading.Thread(target=feed, args=(at, tx)) for at, (tx, _) in enumerate(ends)]
        for thread in threads:
            thread.start()
        got = [value async for _, value in merge(*[rx for _, rx in ends])]
        for thread in threads:
            thread.join()
        assert sorted(got) == [(at, number) for at in range(2) for number in range(100)]

    in_trio(main)


def test_threads_that_share_a_merge_all_see_its_end(threaded, spawn):
    ends = [threaded.channel(1) for _ in range(4)]
    for tx, _ in ends:
        tx.close()
    merges = [merge(*[rx for _, rx in ends]) for _ in range(size(3000 if FREE_THREADED else 100, 20_000))]
    together = threading.Barrier(3)

    def iterate():
        for merged in merges:
            together.wait()
            assert list(merged) == []

    for thread in [spawn(iterate) for _ in range(3)]:
        thread.join()


# Memory


def test_nothing_is_kept_alive_by_a_select_that_has_ended(variant):
    tx, rx = variant.channel(1)
    value = Item()
    weak = weakref.ref(value)
    tx.try_send(value)
    del value
    waiting = select(rx)
    done = drive(waiting)
    assert done.value is weak()
    del done
    assert weak() is None
    del tx
    channel = weakref.ref(rx)
    del rx
    assert channel() is None
    assert repr(waiting).startswith("<select() done")


def test_what_was_to_be_sent_is_not_kept_by_a_select_that_ended(step_loop, variant):
    (tx, _rx), (_tx, other) = variant.channel(1), variant.channel(1)
    tx.try_send(0)
    value = Item()
    weak = weakref.ref(value)
    task = step_loop.create_task(select(other, tx.sending(value)))
    del value
    step_loop.run_ready()
    task.cancel()
    step_loop.run_ready()
    collect()
    assert weak() is None


def test_a_select_that_is_dropped_while_it_waits_leaves_its_lines(step_loop, variant):
    arms_of = [variant.channel(1) for _ in range(2)]
    arms = [rx for _, rx in arms_of]
    waiting = select(*arms)
    step_loop.call(waiting.send, None)
    assert [rx.statistics().waiting_receivers for rx in arms] == [1, 1]
    del waiting
    assert [rx.statistics().waiting_receivers for rx in arms] == [0, 0]


def test_a_cycle_through_a_waiting_select_is_collected(step_loop):
    item = Item()
    weak = weakref.ref(item)

    async def wait(item):
        item.task = asyncio.current_task()
        item.ends = channels(spsc, mpsc)
        await select(*[rx for _, rx in item.ends])

    task = step_loop.create_task(wait(item))
    step_loop.run_ready()
    task._log_destroy_pending = False
    del task, item
    collect()
    assert weak() is None


GARBAGE = """
import gc, sys, typing, weakref

def make():
    import nexus_channels
    from nexus_channels import spsc, spsc_bytes
    hold = type("Hold", (), {})()
    (tx, rx), (txb, rxb) = spsc.channel(1), spsc_bytes.channel(64)
    tx.try_send(1)
    txb.try_send(b"x")
    merged = nexus_channels.merge(rxb)
    hold.all = [hold, nexus_channels.try_select(rx), merged, next(merged)]
    nexus_channels._core.hold = hold
    return weakref.ref(nexus_channels.merge)

kind = make()
for name in [name for name in sys.modules if name.startswith("nexus_channels")]:
    del sys.modules[name]
for forget in typing._cleanups:
    forget()
sys.unraisablehook = print
for _ in range(4):
    gc.collect()
print(kind() is None)
"""


def test_a_result_and_a_merge_that_are_collected_with_their_module_end_quietly():
    assert run_child(GARBAGE, quiet=True) == "True\n"


def test_a_chain_of_a_hundred_thousand_results_and_arms_is_freed(variant):
    tx, rx = variant.channel(1)
    chain = arm = None
    for _ in range(100_000):
        tx.try_send(chain)
        chain = try_select(rx)
        arm = tx.sending(arm)
    del chain, arm
    gc.collect()


def test_selected_is_a_tuple_with_names(variant):
    tx, rx = variant.channel(1)
    tx.try_send("value")
    done = try_select(rx)
    match done:
        case Selected(index, arm, value):
            assert (index, arm, value) == (0, rx, "value")
    index, arm, value = done
    assert isinstance(done, tuple)
    assert hash(done) == hash((0, rx, "value"))
    assert repr(done) == f"Selected(index=0, arm={rx!r}, value='value')"
    assert gc.is_tracked(done)
    with pytest.raises(TypeError, match="cannot copy or pickle"):
        done.__reduce_ex__(2)
    assert Selected[int].__origin__ is Selected


def test_a_result_that_holds_itself_shows_and_is_collected(variant):
    tx, rx = variant.channel(1)
    holder = Item()
    tx.try_send(holder)
    holder.done = try_select(rx)
    weak = weakref.ref(holder)
    values = [None]
    tx.try_send(values)
    values[0] = try_select(rx)
    assert "Selected(...)" in repr(values[0])
    del holder, values
    collect()
    assert weak() is None
