"""Hypothesis plays random calls on each kind of channel and compares every answer with a plain model.

The channel under test is driven through the hand-stepped loop, whose clock is its own: nothing waits for real time.
The model is a list of what is buffered, two lines of waiters, and the rules of the contract; it knows nothing of
rings, gates and boxes. What is ready on the loop is run by a rule of its own, so that calls meet waiters which were
woken and have not run yet: those are the states in which the model allows more than one answer, and says which.
"""

import contextlib

import pytest
from anychannel import AnyChannel
from harness import STRESS, size, takes_long
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from steploop import StepLoop

from nexus_channels import (
    BusyError,
    ClaimReleased,
    Closed,
    Disconnected,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
)

PROFILE = settings(
    max_examples=size(100, 3000),
    stateful_step_count=size(30, 80),
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink] if STRESS else [Phase.generate, Phase.shrink],
    database=None,
)

FINISHED = (EndpointClosed, SendError, RecvError, SendTimeout, RecvTimeout)


class Machine(RuleBasedStateMachine):
    """One channel; numbers are sent in order, so that everything received can be told."""

    name = "local"

    @initialize(capacity=st.integers(1, 5))
    def open(self, capacity):
        self.loop = StepLoop()
        self.channel = AnyChannel(self.name, capacity)
        self.unit = 16 if self.channel.bytes else 1
        self.capacity = self.channel.tx.capacity // self.unit
        self.rx = self.channel.rx
        self.senders = [self.channel.tx]  # open ones
        self.closed_senders = []
        self.next = 0
        self.sent = set()  # what must arrive, or be discarded
        self.got = []
        self.sending = {}  # task -> (numbers, sender, deadline)
        self.receiving = {}  # task -> deadline
        self.maybe = []  # batches of which a prefix went, as what arrives will tell
        self.cancelled = set()
        self.aborted = 0  # records that the receiver has yet to step over, at most
        self.claim = None  # (claim, number, sender)
        self.read = None  # (claim, number)
        self.quiet = True  # nothing on the loop is ready

    # What the model says

    @property
    def buffered(self):
        return self.rx.statistics().buffered // self.unit

    def numbers(self, count):
        self.next += count
        return list(range(self.next - count, self.next))

    def items(self, numbers):
        return [self.channel.pack(number) for number in numbers]

    def settle(self):
        """Account for the tasks that ended."""
        for task, (numbers, sender, many) in list(self.sending.items()):
            if not task.done():
                continue
            del self.sending[task]
            if task.cancelled():
                assert task in self.cancelled
                self.unsure_prefix(numbers, many)
            elif (error := task.exception()) is None:
                self.sent.update(numbers)
            else:
                if isinstance(error, BusyError):  # the endpoint was lent when the task began
                    assert self.channel.bytes
                    continue
                assert isinstance(error, FINISHED), repr(error)
                assert not isinstance(error, EndpointClosed) or sender.is_closed
                assert not isinstance(error, SendError) or self.rx.is_closed
                if not isinstance(error, EndpointClosed):
                    left = [self.channel.unpack(item) for item in error.value] if many else [numbers[-1]]
                    if not many:
                        assert self.channel.unpack(error.value) == numbers[0]
                    self.sent.update(numbers[: len(numbers) - len(left)])
                    assert numbers[len(numbers) - len(left) :] == left
                else:
                    self.unsure_prefix(numbers, many)
        for task in [task for task in self.receiving if task.done()]:
            del self.receiving[task]
            if task.cancelled():
                assert task in self.cancelled
            elif (error := task.exception()) is None:
                result = task.result()
                self.received(result if isinstance(result, list) else [result])
            else:
                if isinstance(error, BusyError):
                    assert self.channel.bytes
                    continue
                assert isinstance(error, FINISHED), repr(error)
                if isinstance(error, RecvError):
                    assert not self.senders and self.claim is None and not self.sending and self.buffered == 0
                assert not isinstance(error, EndpointClosed) or self.rx.is_closed

    def unsure_prefix(self, numbers, many):
        """A send_many that was cancelled, or whose sender was closed, has sent a prefix: what arrives will tell."""
        if many:
            self.maybe.append(numbers)

    def received(self, items):
        self.got += [self.channel.unpack(item) for item in items]

    # Calls

    @rule(which=st.integers(0, 3))
    def try_send(self, which):
        sender = self.any_sender(which)
        (number,) = self.numbers(1)
        room = self.capacity - self.buffered - self.held()
        lent = self.claim is not None and self.claim[2] is sender
        try:
            sender.try_send(self.channel.pack(number))
        except Full as error:
            assert self.channel.unpack(error.value) == number
            assert room == 0 or self.sending, "full with room that nobody waits for"
        except SendError as error:
            assert self.rx.is_closed and self.channel.unpack(error.value) == number
        except EndpointClosed:
            assert sender.is_closed
        except BusyError:
            assert lent
        else:
            assert not sender.is_closed and not self.rx.is_closed and room > 0 and not lent
            assert not self.quiet or not self.sending, "went ahead of those in line"
            self.sent.add(number)
        self.quiet = False

    @rule()
    def try_recv(self):
        before = self.buffered
        try:
            number = self.channel.try_recv()
        except Empty:
            assert before <= self.aborted or self.receiving or self.claim is not None
            assert not self.rx.is_closed
        except RecvError:
            assert before <= self.aborted and not self.senders and self.claim is None
        except EndpointClosed:
            assert self.rx.is_closed
        except BusyError:
            assert self.read is not None
        else:
            assert before > 0 and self.read is None
            assert not self.quiet or not self.receiving, "went ahead of those in line"
            self.got.append(number)
        self.quiet = False

    @rule(count=st.integers(0, 4), which=st.integers(0, 3))
    def try_send_many(self, count, which):
        sender = self.any_sender(which)
        numbers = self.numbers(count)
        try:
            went = sender.try_send_many(self.items(numbers))
        except Closed as error:
            if isinstance(error, SendError):
                assert self.rx.is_closed and self.items(numbers) == error.value
            else:
                assert sender.is_closed
        except BusyError:
            assert self.claim is not None and self.claim[2] is sender
        else:
            assert 0 <= went <= count
            self.sent.update(numbers[:went])
        self.quiet = False

    @rule(count=st.integers(1, 4))
    def try_recv_many(self, count):
        try:
            items = self.rx.try_recv_many(count)
        except RecvError:
            assert self.buffered <= self.aborted and not self.senders and self.claim is None
        except EndpointClosed:
            assert self.rx.is_closed
        except BusyError:
            assert self.read is not None
        else:
            assert len(items) <= count
            self.received(items)
        self.quiet = False

    @rule(which=st.integers(0, 3), timeout=st.sampled_from([None, None, 0, 1, 5]))
    def send(self, which, timeout):
        sender = self.any_sender(which)
        numbers = self.numbers(1)
        try:
            awaitable = sender.send(self.channel.pack(numbers[0]), timeout)
        except BusyError:
            assert self.claim is not None and self.claim[2] is sender
            return
        self.sending[self.loop.create_task(awaitable)] = numbers, sender, False
        self.quiet = False

    @rule(count=st.integers(1, 8), which=st.integers(0, 3), timeout=st.sampled_from([None, 1]))
    def send_many(self, count, which, timeout):
        sender = self.any_sender(which)
        numbers = self.numbers(count)
        try:
            awaitable = sender.send_many(self.items(numbers), timeout)
        except BusyError:
            assert self.claim is not None and self.claim[2] is sender
            return
        self.sending[self.loop.create_task(awaitable)] = numbers, sender, True
        self.quiet = False

    @rule(timeout=st.sampled_from([None, None, 0, 1, 5]), count=st.integers(0, 4))
    def recv(self, timeout, count):
        try:
            awaitable = self.rx.recv_many(count, timeout) if count else self.channel.receiving(timeout)
        except BusyError:
            assert self.read is not None
            return
        self.receiving[self.loop.create_task(awaitable)] = None
        self.quiet = False

    @precondition(lambda self: self.channel.blocks)
    @rule(which=st.integers(0, 3))
    def blocking_calls_that_do_not_wait(self, which):
        sender = self.any_sender(which)
        (number,) = self.numbers(1)
        try:
            sender.send_blocking(self.channel.pack(number), 0)
        except (SendTimeout, Closed, BusyError) as error:
            assert not isinstance(error, SendTimeout) or self.channel.unpack(error.value) == number
        else:
            self.sent.add(number)
        with contextlib.suppress(RecvTimeout, RecvError, EndpointClosed, BusyError):
            self.got.append(self.channel.recv_blocking(0))
        self.quiet = False

    @precondition(lambda self: self.sending or self.receiving)
    @rule(which=st.integers(0, 5))
    def cancel(self, which):
        tasks = [*self.sending, *self.receiving]
        task = tasks[which % len(tasks)]
        self.cancelled.add(task)
        task.cancel()
        self.quiet = False

    # Claims

    def held(self):
        return 1 if self.claim is not None and self.name == "spsc_bytes" else 0

    @precondition(lambda self: self.channel.bytes and self.claim is None)
    @rule(which=st.integers(0, 3))
    def take_claim(self, which):
        sender = self.any_sender(which)
        try:
            claim = sender.try_claim(8)
        except Full:
            assert self.buffered + 1 > self.capacity or self.sending
        except Disconnected:
            assert self.rx.is_closed
        except EndpointClosed:
            assert sender.is_closed
        else:
            (number,) = self.numbers(1)
            claim[:] = self.channel.pack(number)
            self.claim = claim, number, sender
        self.quiet = False

    @precondition(lambda self: self.channel.bytes and self.claim is not None)
    @rule(how=st.sampled_from(["commit", "abort", "drop", "with", "with error"]))
    def end_claim(self, how):
        claim, number, sender = self.claim
        self.claim = None
        self.aborted += self.name == "mpsc_bytes"
        try:
            if how == "commit":
                claim.commit()
            elif how == "abort":
                claim.abort()
            elif how == "with":
                with claim:
                    pass
            elif how == "with error":
                with pytest.raises(ZeroDivisionError), claim:
                    raise ZeroDivisionError
        except Disconnected:
            assert self.rx.is_closed
        else:
            if how in ("commit", "with"):
                assert not self.rx.is_closed
                self.sent.add(number)
        if how != "drop":
            with pytest.raises(ClaimReleased):
                claim.abort()
        del claim, sender
        self.quiet = False

    @precondition(lambda self: self.channel.bytes and self.read is None and not self.rx.is_closed)
    @rule()
    def borrow(self):
        try:
            claim = self.rx.try_recv()
        except (Empty, RecvError):
            return
        self.read = claim, self.channel.unpack(bytes(claim))
        self.quiet = False

    @precondition(lambda self: self.channel.bytes and self.read is not None)
    @rule(how=st.sampled_from(["release", "drop", "with"]))
    def give_back(self, how):
        claim, number = self.read
        self.read = None
        assert self.channel.unpack(bytes(claim)) == number, "the message changed while it was borrowed"
        if how == "release":
            claim.release()
        elif how == "with":
            with claim as view:
                assert self.channel.unpack(bytes(view)) == number
        del claim
        if not self.rx.is_closed:
            self.got.append(number)
        self.quiet = False

    # Life and inspection

    def any_sender(self, which):
        everyone = self.senders + self.closed_senders[-1:]
        return everyone[which % len(everyone)]

    @precondition(lambda self: self.channel.clones)
    @rule(which=st.integers(0, 3))
    def clone(self, which):
        sender = self.any_sender(which)
        try:
            twin = sender.clone()
        except EndpointClosed:
            assert sender.is_closed
            return
        assert twin.same_channel(self.rx)
        self.senders.append(twin)

    @rule(which=st.integers(0, 3), luck=st.integers(0, 3))
    def close_sender(self, which, luck):
        if self.senders and luck == 0:
            sender = self.senders.pop(which % len(self.senders))
            sender.close()
            self.closed_senders.append(sender)
            self.quiet = False

    @rule(luck=st.integers(0, 9))
    def close_receiver(self, luck):
        if luck == 0 and not self.rx.is_closed:
            self.rx.close()
            self.quiet = False

    @rule()
    def step(self):
        self.loop.step()

    @rule()
    def run_ready(self):
        self.loop.run_ready()
        self.quiet = True
        self.settle()
        self.check_that_nobody_waits_in_vain()

    @rule(seconds=st.sampled_from([0.5, 1, 5]))
    def pass_time(self, seconds):
        self.loop.skip(seconds)
        self.quiet = False

    @rule(what=st.sampled_from(["repr", "len", "statistics"]))
    def look(self, what):
        for end in [self.rx, *self.senders, *self.closed_senders[-1:]]:
            assert bool(end)
            assert end.capacity == self.capacity * self.unit
            if what == "repr":
                assert ("closed" in repr(end)) == end.is_closed
            elif what == "len":
                assert len(end) // self.unit <= self.capacity
            else:
                stats = end.statistics()
                assert stats.open_receivers == (not self.rx.is_closed)
                assert end.is_disconnected == (stats.open_senders == 0 if end is self.rx else stats.open_receivers == 0)

    def check_that_nobody_waits_in_vain(self):
        stats = self.rx.statistics()
        assert stats.waiting_senders == len(self.sending)
        assert stats.waiting_receivers == len(self.receiving)
        if self.sending and self.claim is None and self.read is None:
            assert not self.rx.is_closed and self.buffered == self.capacity
        if self.receiving and self.claim is None and self.read is None:
            assert not self.rx.is_closed and self.buffered == 0 and self.senders

    @invariant()
    def nothing_is_lost_or_twice(self):
        if not hasattr(self, "rx"):
            return
        stats = self.rx.statistics()
        assert 0 <= stats.buffered <= stats.capacity
        assert len(set(self.got)) == len(self.got), "received twice"
        assert not self.loop.errors, self.loop.errors

    def teardown(self):
        if not hasattr(self, "rx"):
            return
        if self.claim is not None:
            self.end_claim("abort")
        if self.read is not None:
            self.give_back("release")
        self.run_ready()
        receiver_was_open = not self.rx.is_closed
        for sender in self.senders:
            sender.close()
        self.senders = []
        if receiver_was_open:
            self.run_ready()
            with contextlib.suppress(RecvError):
                self.received(self.rx.try_recv_many(100))
            with pytest.raises(RecvError):
                self.rx.try_recv_many(1)
            assert self.buffered == 0
        self.rx.close()
        self.run_ready()
        assert not self.sending and not self.receiving
        surely = self.sent
        possibly = {number for numbers in self.maybe for number in numbers}
        assert set(self.got) <= surely | possibly, "received what was not sent"
        if receiver_was_open:
            assert surely <= set(self.got), "sent and never received"
            for numbers in self.maybe:  # a prefix of each
                arrived = [number in self.got for number in numbers]
                assert arrived == sorted(arrived, reverse=True)
        self.loop.run_ready()
        self.loop.close()


@takes_long()
@pytest.mark.parametrize("name", ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes"])
def test_random_calls_answer_as_the_model_does(name):
    machine = type(f"Machine_{name}", (Machine,), {"name": name})
    machine.TestCase.settings = PROFILE
    run_state_machine_as_test(machine, settings=PROFILE)


def test_the_model_finds_a_channel_that_gives_a_value_twice(monkeypatch):
    """The check checks."""
    real = AnyChannel.try_recv

    def repeating(self):
        last = vars(self).setdefault("repeated", [])  # a channel's own, so that a run can be run again
        number = last.pop() if last else real(self)
        if number % 3 == 2:
            last.append(number)
        return number

    monkeypatch.setattr(AnyChannel, "try_recv", repeating)
    quickly = settings(PROFILE, phases=[Phase.generate], max_examples=3000, derandomize=True)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(Machine, settings=quickly)
