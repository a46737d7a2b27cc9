"""All orders of what can happen to a channel within one tick of its loop, enumerated, each with exact accounting.

A `World` is one channel with tasks on it. After each history: sends that returned == receives that returned +
buffered + discarded; nobody waits whose condition holds; and once both ends are closed everybody ends.
"""

import asyncio
import contextlib
import itertools
import sys

import pytest
from harness import STRESS, size, takes_long
from steploop import StepLoop
from support import drive

from nexus_channels import (
    Disconnected,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
)

TIMEOUT = 1.0

# Before 3.12, wait_for gives back the result of what was done already rather than be cancelled.
WAIT_FOR_KEEPS_RESULTS = sys.version_info < (3, 12)


async def _asyncio_timeout(awaitable):
    async with asyncio.timeout(TIMEOUT):
        return await awaitable


WITH_TIMEOUT = {
    "own timeout": lambda call, *args: call(*args, timeout=TIMEOUT),
    "wait_for": lambda call, *args: asyncio.wait_for(call(*args), TIMEOUT),
    "asyncio.timeout": lambda call, *args: _asyncio_timeout(call(*args)),
}


class World:
    def __init__(self, module, loop, capacity, fill=0, wrap="own timeout"):
        self.loop = loop
        self.capacity = capacity
        self.wrap = wrap
        self.tx, self.rx = module.channel(capacity)
        self.sent = []  # values of the sends that returned
        self.got = []  # values of the receives that returned, in order
        self.discarded = 0
        self.next_value = 0
        self.senders = []  # (value, task), in the order they began
        self.receivers = []  # tasks, in the order they began
        self.must_end_cancelled = set()
        self.was_cancelled = set()
        for _ in range(fill):
            self.try_send()

    def value(self):
        self.next_value += 1
        return self.next_value

    # Events

    def start_send(self, timeout=False):
        value = self.value()
        awaitable = WITH_TIMEOUT[self.wrap](self.tx.send, value) if timeout else self.tx.send(value)
        self.senders.append((value, self.loop.create_task(awaitable)))

    def start_recv(self, timeout=False):
        awaitable = WITH_TIMEOUT[self.wrap](self.rx.recv) if timeout else self.rx.recv()
        self.receivers.append(self.loop.create_task(awaitable))

    def try_send(self):
        """Send at once, or tell that it is full."""
        value = self.value()
        try:
            self.tx.try_send(value)
        except (Full, SendError, EndpointClosed) as error:
            assert isinstance(error, EndpointClosed) or error.value == value
            return isinstance(error, Full)
        self.sent.append(value)
        return False

    def send(self):
        """Send at once, or by a task that will have to wait."""
        if self.try_send():
            self.start_send()

    def try_recv(self):
        with contextlib.suppress(Empty, RecvError, EndpointClosed):
            self.got.append(self.rx.try_recv())

    def close_tx(self):
        self.tx.close()

    def close_rx(self):
        if not self.rx.is_closed:
            self.discarded += len(self.rx)
        self.rx.close()

    def cancel(self, task):
        self.was_cancelled.add(task)
        if task.cancel() and (self.wrap == "own timeout" or not WAIT_FOR_KEEPS_RESULTS):
            self.must_end_cancelled.add(task)

    def tasks(self):
        return [task for _, task in self.senders] + self.receivers

    # Accounting

    def check_counters(self):
        stats = self.tx.statistics()
        assert 0 <= stats.buffered <= self.capacity
        assert stats.sent == stats.received + stats.buffered + self.discarded

    def check_settled(self):
        """Nothing is ready on the loop: nobody waits whose condition holds."""
        stats = self.tx.statistics()
        both_open = not self.tx.is_closed and not self.rx.is_closed
        waiting_senders = sum(not task.done() for _, task in self.senders)
        waiting_receivers = sum(not task.done() for task in self.receivers)
        assert stats.waiting_senders == waiting_senders
        assert stats.waiting_receivers == waiting_receivers
        if waiting_senders:
            assert both_open and stats.buffered == self.capacity
        if waiting_receivers:
            assert both_open and stats.buffered == 0
        self.check_counters()

    def drain(self):
        """Receive all that is left; whoever waits to send must get in."""
        while not self.rx.is_closed:
            try:
                self.got.append(self.rx.try_recv())
            except (Empty, RecvError):
                break
            self.loop.run_ready()
        if not self.rx.is_closed:
            assert all(task.done() for _, task in self.senders)

    def finish(self):
        """Close both ends, and account for every value ever sent."""
        self.close_tx()
        self.close_rx()
        self.loop.run_ready()
        assert all(task.done() for task in self.tasks())
        assert self.loop.next_timer() is None, "a wait that ended left its timer behind"
        by_waiting = [value for value, task in self.senders if self.outcome_of_send(value, task)]
        received_by_waiting = [task.result() for task in self.receivers if self.outcome_of_recv(task)]
        self.sent += by_waiting
        if not self.senders:
            assert received_by_waiting == sorted(received_by_waiting), "receivers were not served in line"
        if not self.receivers:
            in_order = [value for value in self.got if value in by_waiting]
            assert in_order == sorted(in_order), "senders were not served in line"
        self.got += received_by_waiting
        assert len(set(self.got)) == len(self.got), "received twice"
        assert set(self.got) <= set(self.sent), "received, although its send raised"
        assert len(self.sent) == len(self.got) + self.discarded
        stats = self.tx.statistics()
        assert (stats.sent, stats.received) == (len(self.sent), len(self.got))
        assert (stats.waiting_senders, stats.waiting_receivers) == (0, 0)

    def outcome_of_send(self, value, task):
        if self.ended_cancelled(task):
            return False
        error = task.exception()
        assert error is None or isinstance(error, (SendError, EndpointClosed, SendTimeout, TimeoutError))
        if isinstance(error, (SendError, SendTimeout)):
            assert error.value == value
        return error is None

    def outcome_of_recv(self, task):
        if self.ended_cancelled(task):
            return False
        error = task.exception()
        assert error is None or isinstance(error, (RecvError, EndpointClosed, RecvTimeout, TimeoutError))
        return error is None

    def ended_cancelled(self, task):
        if task.cancelled():
            assert task in self.was_cancelled
            return True
        assert task not in self.must_end_cancelled, "a cancelled task went on as if nothing had been"
        return False


def waiting_world(side, module, loop, capacity, wrap, timed):
    """Two tasks wait, the first to be served first; those numbered in `timed` have a timeout."""
    world = World(module, loop, capacity, fill=capacity if side == "senders" else 0, wrap=wrap)
    for number in range(2):
        start = world.start_send if side == "senders" else world.start_recv
        start(timeout=number in timed)
        loop.run_ready()
    world.check_settled()
    assert not any(task.done() for task in world.tasks())
    return world


IN_TASK = asyncio.Future  # what asyncio takes for the current task may be any object

EVENTS = ("send", "try_recv", "cancel", "timeout", "close_tx", "close_rx")

# Every order of every selection of the events: 1,957.
ORDERS = [order for count in range(len(EVENTS) + 1) for order in itertools.permutations(EVENTS, count)]


def call_in_task(loop, function, *args):
    """Call `function` as if a task of the loop did: wake-ups then need no detour."""

    def call():
        asyncio.tasks._enter_task(loop, IN_TASK)
        try:
            return function(*args)
        finally:
            asyncio.tasks._leave_task(loop, IN_TASK)

    return loop.call(call)


def play(world, order, mode, cancelled):
    """Let the events happen, all within one tick of the loop unless `mode` steps the loop in between."""
    loop = world.loop
    victim = world.tasks()[cancelled]
    actions = {
        "send": world.send,
        "try_recv": world.try_recv,
        "cancel": lambda: world.cancel(victim),
        "close_tx": world.close_tx,
        "close_rx": world.close_rx,
    }
    for event in order:
        if event == "timeout":
            loop.skip(TIMEOUT)
        elif mode == "off the loop":
            actions[event]()
        elif mode == "from a callback":
            loop.call(actions[event])
        else:
            call_in_task(loop, actions[event])
        world.check_counters()
        if mode == "one step between":
            loop.step()
    loop.run_ready()
    world.check_settled()
    world.drain()
    loop.call(world.finish)


def play_all_orders(module, loop, capacity, side, mode, wrap, cancelled, timed):
    for order in ORDERS:
        try:
            play(waiting_world(side, module, loop, capacity, wrap, timed), order, mode, cancelled)
            assert loop.errors == []
        except AssertionError as error:
            error.add_note(f"capacity {capacity}, two {side} wait, {timed=}, {cancelled=}, {mode}, {wrap}: {order}")
            raise
        finally:
            loop.skip(10 * TIMEOUT)
            loop.run_ready()


# The first three within one tick. Off the loop and in bare callbacks wake-ups take the way of another thread.
MODES = ["from a task", "from a callback", "off the loop", "one step between"]

# Who is cancelled and who has a timeout: the one the wake-up goes to, the one behind it, or both.
TARGETS = {"both first": (0, {0}), "cancel second": (1, {0}), "time out second": (0, {1}), "time out both": (0, {0, 1})}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["senders", "receivers"])
@pytest.mark.parametrize("capacity", [1, 2])
def test_every_order_of_events_in_one_tick_is_accounted_for_exactly(variant, step_loop, capacity, side, mode):
    names = TARGETS if STRESS or mode in ("from a task", "one step between") else ["both first"]
    for name in names:
        cancelled, timed = TARGETS[name]
        play_all_orders(variant, step_loop, capacity, side, mode, "own timeout", cancelled, timed)


@pytest.mark.parametrize("wrap", ["wait_for", "asyncio.timeout"])
@pytest.mark.parametrize("side", ["senders", "receivers"])
def test_every_order_of_events_is_accounted_for_under_the_timeouts_of_asyncio(variant, step_loop, side, wrap):
    for capacity in size([1], [1, 2]):
        for mode in size(["from a task"], MODES):
            play_all_orders(variant, step_loop, capacity, side, mode, wrap, 0, {0})


@pytest.mark.parametrize("side", ["senders", "receivers"])
@pytest.mark.parametrize("mode", MODES)
def test_every_order_of_events_is_accounted_for_on_a_loop_without_readers(threaded, side, mode):
    loop = StepLoop(readers=False)
    for capacity in size([1], [1, 2]):
        play_all_orders(threaded, loop, capacity, side, mode, "own timeout", 0, {0})
    loop.close()


# Free programs: each letter is an event, and the loop may step anywhere.


def oldest(world):
    return next((task for task in world.tasks() if not task.done()), None)


def newest(world):
    return next((task for task in reversed(world.tasks()) if not task.done()), None)


def cancel_found(find):
    def cancel(world):
        if (task := find(world)) is not None:
            world.cancel(task)

    return cancel


def start_send(world):
    if not world.tx.is_closed:
        world.start_send()


def start_recv(world):
    if not world.rx.is_closed:
        world.start_recv()


LETTERS = {
    "S": start_send,
    "R": start_recv,
    "s": World.try_send,
    "r": World.try_recv,
    "c": cancel_found(oldest),
    "C": cancel_found(newest),
    "x": World.close_tx,
    "y": World.close_rx,
    ".": None,
}


@takes_long()
@pytest.mark.parametrize("capacity", [1, 2])
def test_every_short_program_is_accounted_for_exactly(variant, step_loop, capacity):
    loop = step_loop
    for program in itertools.product(LETTERS, repeat=size(4, 5)):
        world = World(variant, loop, capacity)
        try:
            for letter in program:
                if letter == ".":
                    loop.step()
                else:
                    call_in_task(loop, LETTERS[letter], world)
                world.check_counters()
            loop.run_ready()
            world.check_settled()
            world.drain()
            loop.call(world.finish)
        except AssertionError as error:
            error.add_note(f"capacity {capacity}: {''.join(program)}")
            raise


# The few orders whose outcome is not only consistent but fixed.


def outcomes(tasks):
    return [
        "waits"
        if not task.done()
        else "cancelled"
        if task.cancelled()
        else type(task.exception()).__name__
        if task.exception()
        else task.result()
        for task in tasks
    ]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["send"], [1, "waits"]),
        (["send", "send"], [1, 2]),
        (["send", "cancel"], ["cancelled", 1]),
        (["cancel", "send"], ["cancelled", 1]),
        (["send", "close_tx"], [1, "RecvError"]),
        (["send", "cancel", "close_tx"], ["cancelled", 1]),
        (["close_tx"], ["RecvError", "RecvError"]),
        (["close_rx"], ["EndpointClosed", "EndpointClosed"]),
        (["send", "close_rx"], ["EndpointClosed", "EndpointClosed"]),
        (["close_tx", "close_rx"], ["EndpointClosed", "EndpointClosed"]),
        (["timeout"], ["RecvTimeout", "waits"]),
        (["timeout", "send"], None),
        (["send", "try_recv"], [1, "waits"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_outcome_for_two_waiting_receivers(variant, step_loop, order, expected):
    world = waiting_world("receivers", variant, step_loop, 2, "own timeout", {0} if "timeout" in order else ())
    for event in order:
        if event == "timeout":
            step_loop.skip(TIMEOUT)
        elif event == "cancel":
            world.cancel(world.receivers[0])
        else:
            step_loop.call(getattr(world, event))
    step_loop.run_ready()
    result = outcomes(world.receivers)
    if expected is None:  # both at once: whoever gives up leaves the item to the next
        assert result in ([1, "waits"], ["RecvTimeout", 1])
    else:
        assert result == expected
    step_loop.call(world.finish)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["try_recv"], [None, "waits"]),
        (["try_recv", "cancel"], ["cancelled", None]),
        (["cancel", "try_recv"], ["cancelled", None]),
        (["close_rx"], ["SendError", "SendError"]),
        (["close_tx"], ["EndpointClosed", "EndpointClosed"]),
        (["try_recv", "close_rx"], ["SendError", "SendError"]),
        (["try_recv", "close_tx"], ["EndpointClosed", "EndpointClosed"]),
        (["timeout"], ["SendTimeout", "waits"]),
        (["timeout", "try_recv"], None),
        (["try_recv", "send"], [None, "waits"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_outcome_for_two_waiting_senders(variant, step_loop, order, expected):
    world = waiting_world("senders", variant, step_loop, 1, "own timeout", {0} if "timeout" in order else ())
    waiting = [task for _, task in world.senders]
    for event in order:
        if event == "timeout":
            step_loop.skip(TIMEOUT)
        elif event == "cancel":
            world.cancel(waiting[0])
        else:
            step_loop.call(getattr(world, event))
    step_loop.run_ready()
    result = outcomes(waiting)
    if expected is None:
        assert result in ([None, "waits"], ["SendTimeout", None])
    else:
        assert result == expected
    step_loop.call(world.finish)


def test_data_comes_before_disconnect_in_every_order_of_close_and_receive(variant, step_loop):
    """Pitfall 11 on one loop: what was sent before the close is received, wherever the close falls."""
    for capacity in (1, 2):
        for position in range(capacity + 1):
            tx, rx = variant.channel(capacity)
            receivers = [step_loop.create_task(rx.recv()) for _ in range(capacity + 1)]
            for number in range(capacity):
                if number == position:
                    step_loop.run_ready()
                step_loop.call(tx.try_send, number)
            step_loop.call(tx.close)
            step_loop.run_ready()
            assert outcomes(receivers) == [*range(capacity), "RecvError"]


def test_a_task_that_is_not_yet_run_holds_no_place_in_line(variant, step_loop):
    tx, rx = variant.channel(1)
    drive(tx.send(0))
    never_run = step_loop.create_task(tx.send(1))
    never_run.cancel()
    step_loop.run_ready()
    assert outcomes([never_run]) == ["cancelled"]
    assert rx.try_recv() == 0
    tx.try_send(2)
    assert rx.try_recv() == 2
    rx.close()
    with pytest.raises(Disconnected):
        tx.try_send(3)
