"""First come, first served: room is owed to waiting sends, items to waiting receives, and no more than their share."""

import contextlib
import itertools
import threading

import aio
import pytest
from anychannel import ALL, THREADED, AnyChannel
from steploop import StepLoop
from support import DEADLINE, in_thread, turns, until, until_async, until_blocked, until_parked

import nexus_channels
from nexus_channels import Empty, Full, RecvError, RecvTimeout, SendError, SendTimeout

EVERY_LOOP = True  # see conftest.py


def fill(tx):
    """Make the channel full; what is in it is told apart by being negative."""
    tx.try_send_many(range(-tx.capacity, 0))


def wait(loop, *awaitables):
    """Start one task after another, in this order, all of which have to wait."""
    tasks = []
    for awaitable in awaitables:
        tasks.append(loop.create_task(awaitable))
        loop.run_ready()
        assert not tasks[-1].done()
    return tasks


def step_by_hand(loop, awaitable):
    """Start an awaitable here and now, ahead of every task that is ready; return whether it finished at once."""
    try:
        loop.call(awaitable.send, None)
    except StopIteration:
        return True
    awaitable.close()
    return False


def drain(rx):
    return rx.try_recv_many(1000)


# First come, first served


def test_items_of_one_sender_arrive_in_the_order_sent(variant, run):
    tx, rx = variant.channel(3)

    async def produce():
        for number in range(100):
            await tx.send(number)

    async def main():
        producing = aio.create_task(produce())
        received = [await rx.recv() for _ in range(100)]
        await producing
        return received

    assert run(main()) == list(range(100))


def test_items_of_each_clone_arrive_in_the_order_sent(clonable, run):
    tx, rx = clonable.channel(3)

    async def produce(name):
        with tx.clone() as own:
            for number in range(50):
                await own.send((name, number))

    async def main():
        async with aio.TaskGroup() as group:
            for name in "abc":
                group.create_task(produce(name))
            return [await rx.recv() for _ in range(150)]

    received = run(main())
    for name in "abc":
        assert [number for sender, number in received if sender == name] == list(range(50))


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_pitfall_06_waiting_sends_go_in_the_order_they_came(variant, step_loop, capacity):
    tx, rx = variant.channel(capacity)
    fill(tx)
    tasks = wait(step_loop, *(tx.send(name) for name in "ABCD"))
    received = []
    while len(received) < capacity + 4:
        received.append(step_loop.call(rx.try_recv))
        step_loop.run_ready()
    assert received[capacity:] == list("ABCD")
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_pitfall_06_waiting_receives_are_served_in_the_order_they_came(variant, step_loop, capacity):
    tx, rx = variant.channel(capacity)
    tasks = wait(step_loop, *(rx.recv() for _ in range(4)))
    for number in range(4):
        step_loop.call(tx.try_send, number)
        step_loop.run_ready()
    assert [task.result() for task in tasks] == [0, 1, 2, 3]


def test_pitfall_06_waiting_sends_woken_together_go_in_the_order_they_came(variant, step_loop):
    tx, rx = variant.channel(4)
    fill(tx)
    wait(step_loop, *(tx.send(name) for name in "ABCD"))
    step_loop.call(drain, rx)
    step_loop.run_ready()
    assert drain(rx) == list("ABCD")


def test_pitfall_06_waiting_receives_woken_together_are_served_in_the_order_they_came(variant, step_loop):
    tx, rx = variant.channel(4)
    tasks = wait(step_loop, *(rx.recv() for _ in range(4)))
    step_loop.call(tx.try_send_many, [0, 1, 2, 3])
    step_loop.run_ready()
    assert [task.result() for task in tasks] == [0, 1, 2, 3]


def test_pitfall_06_several_sends_may_wait_on_one_sender_and_on_its_clones(clonable, step_loop):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    fill(tx)
    wait(step_loop, tx.send("A"), other.send("B"), tx.send("C"), other.send("D"))
    received = []
    for _ in range(5):
        received.append(step_loop.call(rx.try_recv))
        step_loop.run_ready()
    assert received[1:] == list("ABCD")


def test_pitfall_06_waiting_threads_send_in_the_order_they_came(threaded, spawn):
    tx, rx = threaded.channel(1)
    fill(tx)
    threads = []
    for waiting, name in enumerate("ABCD", 1):
        threads.append(spawn(tx.send_blocking, name))
        until_blocked(rx, senders=waiting)
    assert [rx.recv_blocking() for _ in range(5)][1:] == list("ABCD")
    for thread in threads:
        thread.join()


def test_pitfall_06_waiting_threads_receive_in_the_order_they_came(threaded, spawn):
    tx, rx = threaded.channel(1)
    threads = []
    for waiting in range(1, 5):
        threads.append(spawn(rx.recv_blocking))
        until_blocked(tx, receivers=waiting)
    for number in range(4):
        tx.send_blocking(number)
    assert [thread.join() for thread in threads] == [0, 1, 2, 3]


def test_pitfall_06_tasks_and_threads_stand_in_one_line_to_send(threaded, run):
    tx, rx = threaded.channel(1)
    fill(tx)

    async def main():
        waiting = []
        for place, name in enumerate("ABCDEF", 1):
            awaitable = tx.send(name) if place % 2 else in_thread(tx.send_blocking, name)
            waiting.append(aio.create_task(awaitable))
            await until_parked(rx, senders=place)
        received = [await rx.recv() for _ in range(7)]
        await aio.gather(*waiting)
        return received[1:]

    assert run(main()) == list("ABCDEF")


def test_pitfall_06_tasks_and_threads_stand_in_one_line_to_receive(threaded, run):
    tx, rx = threaded.channel(1)

    async def main():
        waiting = []
        for place in range(1, 7):
            awaitable = rx.recv() if place % 2 else in_thread(rx.recv_blocking)
            waiting.append(aio.create_task(awaitable))
            await until_parked(rx, receivers=place)
        for number in range(6):
            await tx.send(number)
        return await aio.gather(*waiting)

    assert run(main()) == [0, 1, 2, 3, 4, 5]


# Room is owed to those who wait


def test_room_freed_for_a_waiting_send_is_not_taken_by_a_later_try_send(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    (task,) = wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv)
    with pytest.raises(Full) as failed:
        step_loop.call(tx.try_send, "pushed in")
    assert failed.value.value == "pushed in"
    step_loop.run_ready()
    assert task.done()
    assert drain(rx) == ["waited"]


def test_room_freed_for_a_waiting_send_is_not_taken_by_a_later_send(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv)
    assert not step_by_hand(step_loop, tx.send("pushed in"))
    step_loop.run_ready()
    assert drain(rx) == ["waited"]


def test_room_freed_for_a_waiting_send_is_not_taken_by_a_clone(clonable, step_loop):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv)
    with pytest.raises(Full):
        step_loop.call(other.try_send, "pushed in")
    step_loop.run_ready()
    assert drain(rx) == ["waited"]


def test_room_freed_for_a_waiting_send_is_not_taken_by_a_thread(threaded, step_loop, spawn):
    tx, rx = threaded.channel(1)
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv)
    with pytest.raises(Full):
        spawn(tx.try_send, "pushed in").join()
    with pytest.raises(SendTimeout):
        spawn(tx.send_blocking, "pushed in", timeout=0.01).join()
    step_loop.run_ready()
    assert drain(rx) == ["waited"]


def test_a_send_with_timeout_zero_does_not_push_in(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv)
    with pytest.raises(SendTimeout):
        step_loop.call(tx.send("pushed in", timeout=0).send, None)
    step_loop.run_ready()
    assert drain(rx) == ["waited"]


def test_a_try_send_many_takes_only_the_room_that_is_not_owed(variant, step_loop):
    tx, rx = variant.channel(4)
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(rx.try_recv_many, 3)
    assert step_loop.call(tx.try_send_many, ["a", "b", "c"]) == 2
    step_loop.run_ready()
    assert drain(rx) == [-1, "a", "b", "waited"]


def test_an_item_sent_for_a_waiting_receive_is_not_taken_by_a_later_try_recv(variant, step_loop):
    tx, rx = variant.channel(1)
    (task,) = wait(step_loop, rx.recv())
    step_loop.call(tx.try_send, "owed")
    with pytest.raises(Empty):
        step_loop.call(rx.try_recv)
    assert step_loop.call(rx.try_recv_many, 5) == []
    step_loop.run_ready()
    assert task.result() == "owed"


def test_an_item_sent_for_a_waiting_receive_is_not_taken_by_a_later_recv(variant, step_loop):
    tx, rx = variant.channel(1)
    (task,) = wait(step_loop, rx.recv())
    step_loop.call(tx.try_send, "owed")
    assert not step_by_hand(step_loop, rx.recv())
    with pytest.raises(RecvTimeout):
        step_loop.call(rx.recv(timeout=0).send, None)
    step_loop.run_ready()
    assert task.result() == "owed"


def test_an_item_sent_for_a_waiting_receive_is_not_taken_by_a_thread(threaded, step_loop, spawn):
    tx, rx = threaded.channel(1)
    (task,) = wait(step_loop, rx.recv())
    step_loop.call(tx.try_send, "owed")
    with pytest.raises(Empty):
        spawn(rx.try_recv).join()
    step_loop.run_ready()
    assert task.result() == "owed"


@pytest.mark.asyncio_only("in trio a receive yields after it took, and the send may be done by then")
def test_a_waiting_send_is_not_starved_by_a_task_that_tries_all_the_time(variant, run):
    tx, rx = variant.channel(1)
    fill(tx)

    async def pushy():
        while True:
            try:
                tx.try_send("pushy")
            except Full:
                await aio.sleep(0)

    async def main():
        pushing = aio.create_task(pushy())
        await turns()
        for number in range(20):
            sending = aio.create_task(tx.send(number))
            await until_parked(rx, senders=1)
            while await rx.recv() != number:
                assert not sending.done()
            await sending
        pushing.cancel()

    run(main())


# But only their share: nobody convoys


@pytest.mark.parametrize("capacity", [2, 3, 8])
def test_a_woken_send_that_has_not_run_holds_back_one_place_only(variant, step_loop, capacity):
    tx, rx = variant.channel(capacity)
    fill(tx)
    (task,) = wait(step_loop, tx.send("waited"))
    step_loop.call(drain, rx)
    for number in range(capacity - 1):
        step_loop.call(tx.try_send, number)
    with pytest.raises(Full):
        step_loop.call(tx.try_send, "too many")
    step_loop.run_ready()
    assert task.done()
    assert drain(rx) == [*range(capacity - 1), "waited"]


def test_a_later_send_goes_ahead_while_there_is_more_room_than_is_owed(variant, step_loop):
    tx, rx = variant.channel(2)
    fill(tx)
    wait(step_loop, tx.send("waited"))
    step_loop.call(drain, rx)
    assert step_by_hand(step_loop, tx.send("ahead"))
    step_loop.run_ready()
    assert drain(rx) == ["ahead", "waited"]


def test_a_woken_receive_that_has_not_run_holds_back_one_item_only(variant, step_loop):
    tx, rx = variant.channel(3)
    (task,) = wait(step_loop, rx.recv())
    step_loop.call(tx.try_send_many, [1, 2, 3])
    taken = [step_loop.call(rx.try_recv), step_loop.call(rx.try_recv)]
    with pytest.raises(Empty):
        step_loop.call(rx.try_recv)
    step_loop.run_ready()
    assert [*taken, task.result()] == [1, 2, 3]


def test_a_later_receive_goes_ahead_while_there_are_more_items_than_are_owed(variant, step_loop):
    tx, rx = variant.channel(2)
    (task,) = wait(step_loop, rx.recv())
    step_loop.call(tx.try_send_many, [1, 2])
    assert step_by_hand(step_loop, rx.recv())
    step_loop.run_ready()
    assert task.result() == 2


def test_several_waiting_sends_hold_back_one_place_each(variant, step_loop):
    tx, rx = variant.channel(4)
    fill(tx)
    wait(step_loop, tx.send("A"), tx.send("B"))
    step_loop.call(drain, rx)
    assert step_loop.call(tx.try_send_many, [1, 2, 3, 4]) == 2
    step_loop.run_ready()
    assert drain(rx) == [1, 2, "A", "B"]


def test_a_woken_send_whose_loop_never_runs_again_does_not_stop_the_others(threaded, step_loop, spawn):
    tx, rx = threaded.channel(2)
    fill(tx)
    wait(step_loop, tx.send("asleep"))
    drain(rx)
    for number in range(20):
        spawn(tx.send_blocking, number).join()
        assert rx.try_recv() == number


@pytest.mark.parametrize(("capacity", "items", "owed"), [(4, 2, 2), (4, 3, 3), (4, 4, 4), (4, 9, 4), (1, 9, 1)])
def test_a_waiting_send_many_is_owed_what_it_has_left_up_to_the_capacity(variant, step_loop, capacity, items, owed):
    tx, rx = variant.channel(capacity)
    fill(tx)
    wait(step_loop, tx.send_many(range(items)))
    step_loop.call(drain, rx)
    assert step_loop.call(tx.try_send_many, ["x"] * capacity) == capacity - owed
    step_loop.run_ready()
    assert drain(rx) == ["x"] * (capacity - owed) + list(range(owed))


def test_a_send_many_that_sent_a_part_is_owed_the_rest_only(variant, step_loop):
    tx, rx = variant.channel(4)
    wait(step_loop, tx.send_many([1, 2, 3, 4, 5, 6]))
    assert step_loop.call(drain, rx) == [1, 2, 3, 4]
    assert step_loop.call(tx.try_send_many, ["x"] * 4) == 2
    step_loop.run_ready()
    assert drain(rx) == ["x", "x", 5, 6]


@pytest.mark.parametrize(("capacity", "n", "owed"), [(4, 2, 2), (4, 3, 3), (4, 4, 4), (4, 9, 4), (1, 9, 1)])
def test_a_waiting_recv_many_is_owed_what_it_asks_for_up_to_the_capacity(variant, step_loop, capacity, n, owed):
    tx, rx = variant.channel(capacity)
    (task,) = wait(step_loop, rx.recv_many(n))
    step_loop.call(tx.try_send_many, range(capacity))
    taken = step_loop.call(rx.try_recv_many, 9)
    assert taken == list(range(capacity - owed))
    step_loop.run_ready()
    assert task.result() == list(range(capacity - owed, capacity))


def test_pitfall_07_every_waiter_that_fits_is_woken_not_one_a_free_place(variant, step_loop):
    tx, rx = variant.channel(3)
    fill(tx)
    tasks = wait(step_loop, *(tx.send(name) for name in "ABC"))
    step_loop.call(rx.try_recv_many, 3)
    step_loop.run_ready()
    assert all(task.done() for task in tasks)
    tasks = wait(step_loop, tx.send_many("DE"), tx.send("F"))
    assert step_loop.call(drain, rx) == list("ABC")
    step_loop.run_ready()
    assert all(task.done() for task in tasks)
    assert drain(rx) == list("DEF")


def test_pitfall_07_a_sender_behind_one_whose_loop_sleeps_is_woken_too(threaded, step_loop, spawn):
    tx, rx = threaded.channel(2)
    fill(tx)
    wait(step_loop, tx.send("asleep"))
    thread = spawn(tx.send_blocking, "awake")
    until_blocked(rx, senders=2)
    assert drain(rx) == [-2, -1]
    thread.join()
    assert drain(rx) == ["awake"]


def test_pitfall_07_a_receiver_behind_one_whose_loop_sleeps_is_woken_too(threaded, step_loop, spawn):
    tx, rx = threaded.channel(2)
    wait(step_loop, rx.recv())
    thread = spawn(rx.recv_blocking)
    until_blocked(tx, receivers=2)
    tx.try_send_many([1, 2])
    assert thread.join() == 1


def test_every_receive_that_can_be_served_is_woken(variant, step_loop):
    tx, rx = variant.channel(3)
    tasks = wait(step_loop, *(rx.recv() for _ in range(3)))
    step_loop.call(tx.try_send_many, [1, 2, 3])
    step_loop.run_ready()
    assert [task.result() for task in tasks] == [1, 2, 3]


def test_what_a_batch_does_not_take_goes_to_the_next_in_line(variant, step_loop):
    tx, rx = variant.channel(3)
    first, second = wait(step_loop, rx.recv_many(3), rx.recv())
    step_loop.call(tx.try_send, 1)
    step_loop.run_ready()
    assert first.result() == [1]
    assert not second.done()
    step_loop.call(tx.try_send, 2)
    step_loop.run_ready()
    assert second.result() == 2


# Those who give up hand on what they were owed


@pytest.mark.parametrize("off_loop", [False, True])
def test_pitfall_05_a_cancelled_send_passes_its_wake_up_to_the_next(variant, step_loop, off_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    first, second = wait(step_loop, tx.send("A"), tx.send("B"))
    assert (rx.try_recv() if off_loop else step_loop.call(rx.try_recv)) == -1
    first.cancel()
    step_loop.run_ready()
    assert first.cancelled()
    assert second.done()
    assert drain(rx) == ["B"]


@pytest.mark.parametrize("off_loop", [False, True])
def test_pitfall_05_a_cancelled_receive_passes_its_wake_up_to_the_next(variant, step_loop, off_loop):
    tx, rx = variant.channel(1)
    first, second = wait(step_loop, rx.recv(), rx.recv())
    if off_loop:
        tx.try_send("kept")
    else:
        step_loop.call(tx.try_send, "kept")
    first.cancel()
    step_loop.run_ready()
    assert first.cancelled()
    assert second.result() == "kept"


def test_pitfall_05_a_send_that_times_out_as_it_is_woken_passes_its_wake_up_to_the_next(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    first, second = wait(step_loop, tx.send("A", timeout=1), tx.send("B"))
    step_loop.skip(1)  # the timeout is ready to fire, before the wake-up
    step_loop.call(rx.try_recv)
    step_loop.run_ready()
    if first.exception() is None:
        assert drain(rx) == ["A"]
        step_loop.run_ready()
    else:
        assert isinstance(first.exception(), SendTimeout)
    assert second.done()
    assert drain(rx) == ["B"]


def test_pitfall_05_a_thread_that_times_out_passes_on_what_it_was_owed(threaded, spawn):
    tx, rx = threaded.channel(1)

    def impatient():
        try:
            return rx.recv_blocking(timeout=0.002)
        except RecvTimeout:
            return None

    for _ in range(20):
        threads = [spawn(impatient), spawn(rx.recv_blocking)]
        tx.send_blocking("first")
        tx.send_blocking("second")  # needs the room that one of the two makes
        received = [thread.join() for thread in threads]
        if received[0] is None:
            received[0] = rx.try_recv()
        assert sorted(received) == ["first", "second"]


def test_pitfall_05_a_closed_clone_passes_on_what_its_sends_were_owed(clonable, step_loop):
    tx, rx = clonable.channel(1)
    other = tx.clone()
    fill(tx)
    first, second = wait(step_loop, tx.send("A"), other.send("B"))
    step_loop.call(rx.try_recv)
    step_loop.call(tx.close)
    step_loop.run_ready()
    assert isinstance(first.exception(), nexus_channels.EndpointClosed)
    assert second.done()
    assert drain(rx) == ["B"]


def test_a_cancelled_send_gives_its_place_back_to_everybody(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    (task,) = wait(step_loop, tx.send("A"))
    step_loop.call(rx.try_recv)
    task.cancel()
    step_loop.run_ready()
    tx.try_send("B")
    assert drain(rx) == ["B"]


def test_a_cancelled_send_in_the_middle_of_the_line_leaves_the_order_of_the_others(variant, step_loop):
    tx, rx = variant.channel(1)
    fill(tx)
    tasks = wait(step_loop, *(tx.send(name) for name in "ABCDE"))
    tasks[1].cancel()
    tasks[3].cancel()
    step_loop.run_ready()
    received = []
    for _ in range(4):
        received.append(step_loop.call(rx.try_recv))
        step_loop.run_ready()
    assert received[1:] == list("ACE")


def test_a_cancelled_batch_gives_its_whole_share_back(variant, step_loop):
    tx, rx = variant.channel(3)
    fill(tx)
    batch, single = wait(step_loop, tx.send_many("ABC"), tx.send("D"))
    batch.cancel()
    step_loop.run_ready()
    step_loop.call(drain, rx)
    assert step_loop.call(tx.try_send_many, "xyz") == 2
    step_loop.run_ready()
    assert single.done()
    assert drain(rx) == ["x", "y", "D"]


def test_a_line_that_empties_leaves_no_debt(variant, step_loop):
    tx, rx = variant.channel(2)
    for _ in range(50):
        fill(tx)
        tasks = wait(step_loop, tx.send("A"), tx.send_many("BCD"), tx.send("E"))
        tasks[2].cancel()
        step_loop.run_ready()
        received = []
        while not (tasks[0].done() and tasks[1].done()):
            received += step_loop.call(drain, rx)
            step_loop.run_ready()
        received += drain(rx)
        assert received == [-2, -1, *"ABCD"]
    assert tx.try_send_many(range(5)) == 2


# Across threads and loops


def test_pitfall_08_an_item_sent_from_another_thread_wakes_the_loop(threaded, run, spawn):
    tx, rx = threaded.channel(1)

    async def main():
        receiving = aio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        thread = spawn(tx.try_send, "from a thread")
        received = await receiving  # the loop has nothing else to wake it, but the deadline of the test
        thread.join()
        return received

    assert run(main()) == "from a thread"


def test_pitfall_08_room_made_in_another_thread_wakes_the_loop(threaded, run, spawn):
    tx, rx = threaded.channel(1)
    fill(tx)

    async def main():
        sending = aio.create_task(tx.send("sent"))
        await until_parked(tx, senders=1)
        thread = spawn(rx.try_recv)
        await sending
        return thread.join()

    assert run(main()) == -1
    assert rx.try_recv() == "sent"


def test_pitfall_08_an_item_sent_from_another_thread_wakes_the_loop_each_time(threaded, run, spawn):
    tx, rx = threaded.channel(1)

    async def main():
        thread = spawn(lambda: [tx.send_blocking(number) for number in range(300)])
        received = [await rx.recv() for _ in range(300)]
        thread.join()
        return received

    assert run(main()) == list(range(300))


@pytest.mark.parametrize("readers", [True, False])
def test_pitfall_08_a_loop_with_or_without_add_reader_is_woken(threaded, spawn, readers):
    loop = StepLoop(readers=readers)
    tx, rx = threaded.channel(1)
    (task,) = wait(loop, rx.recv())
    spawn(tx.try_send, "woken").join()
    loop.wait_ready()
    loop.run_ready()
    assert task.result() == "woken"
    assert loop.errors == []
    loop.close()


# Measured: between two turns of one waiter the others have at most one each, whatever they try


class Turns:
    """Who had a turn, in order; and after how many turns of others the longest wait was over."""

    def __init__(self):
        self.order = []

    def longest(self, names):
        waits = []
        for name in names:
            turns = [number for number, who in enumerate(self.order) if who == name]
            assert len(turns) > 3, f"{name} had only {len(turns)} turns of {len(self.order)}"
            waits += [later - earlier - 1 for earlier, later in itertools.pairwise(turns)]
        return max(waits)


@pytest.mark.parametrize("senders", [2, 7, 30])
@pytest.mark.parametrize("capacity", [1, 2, 8])
@pytest.mark.parametrize("name", ALL)
def test_no_sending_task_waits_longer_than_a_turn_of_each_other_task(name, capacity, senders, run):
    channel = AnyChannel(name, capacity)
    turns = Turns()

    async def send(number):
        while True:
            await channel.sending(number)

    async def main():
        tasks = [aio.create_task(send(number)) for number in range(senders)]
        for _ in range(20 * senders):
            turns.order.append(await channel.recv())
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)

    run(main())
    # One that finds room may use it all before another comes; from then on everybody waits in line.
    assert turns.longest(range(senders)) <= senders - 1 + channel.room


@pytest.mark.parametrize("receivers", [2, 7, 30])
@pytest.mark.parametrize("name", ALL)
def test_no_receiving_task_waits_longer_than_a_turn_of_each_other_task(name, receivers, run):
    channel = AnyChannel(name, 2)
    turns = Turns()

    async def receive(number):
        while True:
            await channel.receiving()
            turns.order.append(number)

    async def main():
        tasks = [aio.create_task(receive(number)) for number in range(receivers)]
        for number in range(20 * receivers):
            await channel.sending(number)
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)

    run(main())
    assert turns.longest(range(receivers)) <= receivers - 1 + channel.room


@pytest.mark.parametrize("capacity", [1, 4])
def test_no_single_send_waits_longer_than_a_turn_of_each_batch(variant, capacity, run):
    """A batch takes at most what the channel holds, and goes to the end of the line."""
    tx, rx = variant.channel(capacity)
    turns = Turns()
    batches, singles = 3, 4

    async def send_batches(name):
        while True:
            await tx.send_many([name] * 50)

    async def send(name):
        while True:
            await tx.send(name)

    async def main():
        tasks = [aio.create_task(send_batches(f"batch {number}")) for number in range(batches)]
        tasks += [aio.create_task(send(number)) for number in range(singles)]
        for _ in range(1000):
            turns.order.append(await rx.recv())
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)

    run(main())
    assert turns.longest(range(singles)) <= singles - 1 + batches * capacity


class Line:
    """Threads and tasks that call again and again, one item a call, and say so before they do."""

    def __init__(self, channel, side, count):
        self.channel, self.side, self.count = channel, side, count
        self.begun = [0] * count
        self.turns = Turns()

    def send(self, number):
        with contextlib.suppress(SendError):
            while True:
                self.begun[number] += 1
                self.channel.send_blocking(number, DEADLINE)

    def receive(self, number):
        with contextlib.suppress(RecvError):
            while True:
                self.begun[number] += 1
                self.channel.recv_blocking(DEADLINE)
                self.turns.order.append(number)

    async def send_async(self, number):
        with contextlib.suppress(SendError):
            while True:
                self.begun[number] += 1
                await self.channel.sending(number)

    def complete(self, turns):
        """After so many turns, do all of them stand in line again, however they were scheduled?"""
        stats = self.channel.rx.statistics()
        waiting = stats.waiting_senders if self.side == "senders" else stats.waiting_receivers
        return sum(self.begun) == turns + self.count and waiting == self.count


@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("name", THREADED)
def test_no_sending_thread_waits_longer_than_a_turn_of_each_other_thread(name, capacity, spawn):
    line = Line(AnyChannel(name, capacity), "senders", 6)
    threads = [spawn(line.send, number) for number in range(line.count)]
    for number in range(15 * line.count):
        until(lambda number=number: line.complete(number + line.channel.room))
        line.turns.order.append(line.channel.try_recv())
    line.channel.rx.close()
    for thread in threads:
        thread.join()
    assert line.turns.longest(range(line.count)) <= line.count - 1 + line.channel.room


@pytest.mark.parametrize("name", THREADED)
def test_no_receiving_thread_waits_longer_than_a_turn_of_each_other_thread(name, spawn):
    line = Line(AnyChannel(name), "receivers", 6)
    threads = [spawn(line.receive, number) for number in range(line.count)]
    for number in range(15 * line.count):
        until(lambda number=number: line.complete(number))
        line.channel.try_send(number)
    until(lambda: line.complete(15 * line.count))
    line.channel.tx.close()
    for thread in threads:
        thread.join()
    assert line.turns.longest(range(line.count)) <= line.count - 1


@pytest.mark.parametrize("name", THREADED)
def test_tasks_and_threads_that_send_have_their_turns_in_one_line(name, run, spawn):
    line = Line(AnyChannel(name, 1), "senders", 8)

    async def main():
        tasks = [aio.create_task(line.send_async(number)) for number in range(4)]
        threads = [spawn(line.send, number) for number in range(4, 8)]
        for number in range(15 * line.count):
            await until_async(lambda number=number: line.complete(number + line.channel.room))
            line.turns.order.append(line.channel.try_recv())
        line.channel.rx.close()
        await aio.gather(*tasks)
        for thread in threads:
            thread.join()

    run(main())
    assert line.turns.longest(range(line.count)) <= line.count - 1 + line.channel.room


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("name", THREADED)
def test_a_thread_in_line_needs_one_receive_to_get_in_whatever_others_try(name, capacity, spawn):
    """Three threads try all the time, and one waits in line: the room that comes next is its."""
    channel = AnyChannel(name, capacity)
    stop = threading.Event()

    def hammer(number):
        while not stop.is_set():
            with contextlib.suppress(Full):
                if number == 0:
                    channel.send_blocking(0, 0)
                else:
                    channel.try_send(0)

    threads = [spawn(hammer, number) for number in range(3)]
    waited = 0
    try:
        while waited < 10:
            waiting = spawn(channel.send_blocking, 1, DEADLINE)
            until(lambda w=waiting: not w.is_alive() or channel.rx.statistics().waiting_senders == 1)
            waited += waiting.is_alive()
            channel.recv_blocking(DEADLINE)
            waiting.join()
    finally:
        stop.set()
        for thread in threads:
            thread.wait()
