"""Arguments, buffers, futures and loops that lie, raise, or use the channel in the middle of its own call.

Whatever they do, the call ends with a result or an exception, the channel goes on, and no item is lost or there twice.
See docs/threat-model.md.
"""

import asyncio
import gc
import importlib
import sys
import threading
import weakref

import pytest
from anychannel import ALL, THREADED, AnyChannel
from conftest import BYTES_VARIANTS
from harness import size
from steploop import StepLoop
from support import collect, drive

from nexus_channels import (
    ClaimReleased,
    Empty,
    EndpointClosed,
    RecvError,
    SendError,
    WrongThreadError,
    _core,
    local,
)


@pytest.fixture(params=ALL)
def channel(request):
    return AnyChannel(request.param, 4)


def still_works(channel):
    """What is sent is received, once, in order; nobody stands in line."""
    channel.drain()
    channel.try_send(901)
    channel.try_send(902)
    assert channel.drain() == [901, 902]
    stats = channel.rx.statistics()
    assert (stats.waiting_senders, stats.waiting_receivers, stats.buffered) == (0, 0, 0)


class Angry(Exception):
    pass


class Index:
    """An integer by way of a function."""

    def __init__(self, function):
        self.function = function

    def __index__(self):
        return self.function()


def angry(*_):
    raise Angry


# Numbers


class Incomparable(int):
    """Beyond all floats, and nobody is told on which side."""

    def __lt__(self, other):
        raise Angry


def test_a_timeout_that_cannot_be_compared_passes_its_error_on(channel):
    with pytest.raises(Angry):
        channel.sending(1, Incomparable(10**400))
    still_works(channel)


def test_a_count_whose_index_raises_takes_nothing(channel):
    channel.try_send(1)
    for call in (channel.rx.try_recv_many, channel.rx.recv_many):
        with pytest.raises(Angry):
            call(Index(angry))
    assert channel.drain() == [1]


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_an_index_into_a_claim_that_raises_or_is_beyond_everything(name):
    channel = AnyChannel(name)
    with pytest.raises(IndexError):
        channel.tx.try_claim(8)[10**100]
    claim = channel.tx.try_claim(8)
    with pytest.raises(Angry):
        claim[Index(angry)]
    with pytest.raises(Angry):
        claim[Index(angry)] = 1
    claim.abort()
    still_works(channel)


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_an_index_into_a_claim_that_ends_the_claim_reaches_no_memory_of_others(name):
    """By then the record could be another's: to read it is refused, and to end it while it is written is."""
    channel = AnyChannel(name)

    def end_and_send_another():
        claim.commit()
        channel.tx.try_send(b"another!")
        return 0

    claim = channel.tx.try_claim(8)
    claim[:] = b"the one!"
    with pytest.raises(ClaimReleased):
        claim[Index(end_and_send_another)]
    assert channel.rx.try_recv_many(9) == [b"the one!", b"another!"]
    claim = channel.tx.try_claim(8)
    claim[:] = b"the one!"
    with pytest.raises(BufferError):
        claim[Index(end_and_send_another)] = 0xEE
    claim.commit()
    assert channel.rx.try_recv_many(9) == [b"the one!"]


@pytest.mark.parametrize("arguments", [(), (0,), (0, 1, 2), ("0", 1), (-1, 1), (99, 1), (2**70, 1)])
def test_the_native_module_refuses_a_kind_that_it_does_not_know(arguments):
    with pytest.raises((TypeError, OverflowError)):
        _core.open(*arguments)


def test_a_caller_may_pass_an_empty_tuple_of_names(channel):
    """As C code may, where Python passes none at all."""
    call = pytest.importorskip("_testcapi").pyobject_vectorcall
    drive(call(channel.tx.send, (channel.pack(1),), ()))
    assert channel.unpack(drive(call(channel.rx.recv_bytes if channel.bytes else channel.rx.recv, (), ()))) == 1


# Iterables and sequences


@pytest.mark.parametrize("hint", [2**62, -5, "many", None])
def test_an_iterable_that_lies_about_its_length_sends_all_or_nothing(channel, hint):
    class Liar:
        def __iter__(self):
            return iter([channel.pack(1), channel.pack(2)])

        def __length_hint__(self):
            if hint is None:
                raise Angry
            return hint

    try:
        drive(channel.tx.send_many(Liar()))
    except (MemoryError, ValueError, TypeError, OverflowError, Angry):
        assert channel.drain() == []
    else:
        assert channel.drain() == [1, 2]
    still_works(channel)


def test_a_sequence_that_another_call_empties_meanwhile_is_sent_as_it_was(channel):
    items = [channel.pack(number) for number in range(3)]
    sending = channel.tx.send_many(items)
    items.clear()
    drive(sending)
    assert channel.drain() == [0, 1, 2]

    class Emptying(list):
        """What list() makes of it is what its own iteration gives."""

        def __iter__(self):
            found = list.__iter__(self[:])
            self.clear()
            channel.try_send(100)
            return found

    items = Emptying(channel.pack(number) for number in range(2))
    assert channel.tx.try_send_many(items) == 2
    assert channel.drain() == [100, 0, 1]
    still_works(channel)


# Buffers


needs_buffers_in_python = pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is there since 3.12")


class Exporter:
    """A buffer that does something when it is asked for, and when it is given back."""

    def __init__(self, data=b"12345678", asked=int, given_back=int):
        self.data, self.asked, self.given_back = data, asked, given_back

    def __buffer__(self, flags):
        self.asked()
        return memoryview(self.data)

    def __release_buffer__(self, view):
        view.release()
        self.given_back()


@needs_buffers_in_python
@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_buffer_that_cannot_be_had_passes_its_error_on(name):
    channel = AnyChannel(name)
    broken = Exporter(asked=angry)
    for call in (channel.tx.try_send, channel.tx.send, channel.tx.send_blocking):
        with pytest.raises(Angry):
            call(broken)
    with pytest.raises(Angry):
        channel.tx.try_send_many([b"good", broken])
    assert channel.drain() == []
    channel.try_send(1)
    for call in (channel.rx.try_recv_into, channel.rx.recv_into, channel.rx.recv_into_blocking):
        with pytest.raises(Angry):
            call(broken)
    assert channel.drain() == [1]


@needs_buffers_in_python
@pytest.mark.parametrize("when", ["asked", "given_back"])
@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_buffer_that_uses_the_channel_is_sent_whole(name, when):
    channel = AnyChannel(name, 8)
    used = []

    def use():
        channel.try_send(7)
        used.append(True)

    for call in (channel.tx.try_send, lambda data: drive(channel.tx.send(data)), channel.tx.send_blocking):
        call(Exporter((8).to_bytes(8, "little"), **{when: use}))
        assert used
        assert sorted(channel.drain()) == [7, 8]
        used.clear()


@needs_buffers_in_python
@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_buffer_that_closes_the_channel(name):
    for end, error in (("tx", EndpointClosed), ("rx", SendError)):
        channel = AnyChannel(name)
        with pytest.raises(error):
            channel.tx.try_send(Exporter(asked=getattr(channel, end).close))
        channel = AnyChannel(name)
        channel.tx.try_send(Exporter(given_back=getattr(channel, end).close))
        assert getattr(channel, end).is_closed
    channel = AnyChannel(name)
    channel.try_send(1)
    with pytest.raises(EndpointClosed):
        channel.rx.try_recv_into(Exporter(bytearray(8), asked=channel.rx.close))
    channel = AnyChannel(name)
    channel.try_send(1)
    target = bytearray(8)
    assert channel.rx.try_recv_into(Exporter(target, given_back=channel.rx.close)) == 8
    assert target[0] == 1


@needs_buffers_in_python
@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_target_that_takes_the_message_itself_gets_the_next_or_none(name):
    channel = AnyChannel(name)
    channel.try_send(1)
    target = bytearray(8)
    with pytest.raises(Empty):
        channel.rx.try_recv_into(Exporter(target, asked=channel.drain))
    assert target == bytes(8)
    still_works(channel)


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_buffer_that_changes_while_it_is_sent_spoils_no_other_message(name, spawn):
    """A thread writes into the memory all the time: the content is anybody's guess, sizes and neighbours are not."""
    channel = AnyChannel(name, 64)
    data = bytearray(200)
    stop = threading.Event()

    def scribble():
        while not stop.is_set():
            data[:] = b"\xff" * 200
            data[:] = bytes(200)

    thread = spawn(scribble)
    try:
        for number in range(size(300, 30_000)):
            channel.try_send(number)
            channel.tx.try_send(data)
            channel.try_send(number + 1)
            before, changed, after = channel.rx.try_recv_many(9)
            assert (channel.unpack(before), len(changed), channel.unpack(after)) == (number, 200, number + 1)
            assert set(changed) <= {0, 255}
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_buffer_cannot_be_resized_while_a_send_waits_with_it(name, step_loop):
    channel = AnyChannel(name)
    data = bytearray(b"12345678")
    channel.fill()
    task = step_loop.create_task(channel.tx.send(data))
    step_loop.run_ready()
    with pytest.raises(BufferError):
        data.extend(b"more")
    task.cancel()
    step_loop.run_ready()
    del task
    data.extend(b"more")


# Awaitables that are used while they run


class Calling(StepLoop):
    """A loop that calls something whenever a future is to be made, in the middle of a wait."""

    def __init__(self):
        super().__init__()
        self.hook = None

    def create_future(self):
        if self.hook is not None:
            hook, self.hook = self.hook, None
            hook()
        return super().create_future()


def in_the_middle(channel, function):
    """Let a receive wait on a loop that calls `function(awaitable)` meanwhile; the receive must go on unharmed."""
    loop = Calling()
    waiting = channel.receiving()

    async def main():
        return channel.unpack(await waiting)

    loop.hook = lambda: function(waiting)
    task = loop.create_task(main())
    loop.run_ready()
    loop.call(channel.try_send, 5)
    loop.run_ready()
    assert task.result() == 5
    assert loop.errors == []
    loop.close()
    still_works(channel)


def test_an_awaitable_is_awaited_in_the_middle_of_its_own_step(channel):
    def again(waiting):
        with pytest.raises(RuntimeError, match="already being awaited"):
            waiting.send(None)
        assert waiting.cr_running

    in_the_middle(channel, again)


def test_an_awaitable_is_closed_in_the_middle_of_its_own_step(channel):
    def close(waiting):
        with pytest.raises(RuntimeError, match="already being awaited"):
            waiting.close()

    in_the_middle(channel, close)


def test_an_awaitable_is_thrown_at_in_the_middle_of_its_own_step(channel):
    def throw(waiting):
        with pytest.raises(RuntimeError, match="already being awaited"):
            waiting.throw(Angry)

    in_the_middle(channel, throw)


def test_an_item_that_comes_in_the_middle_of_the_step_is_received_by_it(channel):
    loop = Calling()
    loop.hook = lambda: channel.try_send(6)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    assert task.result() == 6
    loop.close()


@pytest.mark.parametrize("end", ["tx", "rx"])
def test_an_end_that_closes_in_the_middle_of_the_step_ends_it(channel, end):
    loop = Calling()
    loop.hook = getattr(channel, end).close
    task = loop.create_task(channel.recv())
    loop.run_ready()
    assert isinstance(task.exception(), RecvError if end == "tx" else EndpointClosed)
    loop.close()


def test_an_awaitable_that_waits_on_one_loop_is_refused_by_another(channel):
    """It was woken on the first; the second drives it, finds nothing, and cannot wait there."""
    first, second = StepLoop(), StepLoop()
    waiting = channel.receiving()
    future = first.call(waiting.send, None)
    future.set_result(None)  # by a stranger
    with pytest.raises(RuntimeError, match="first awaited on another event loop"):
        second.call(waiting.send, None)
    still_works(channel)
    first.close()
    second.close()


def test_cr_await_is_the_future_while_it_waits(channel, step_loop):
    waiting = channel.receiving()
    assert waiting.cr_await is None
    future = step_loop.call(waiting.send, None)
    assert waiting.cr_await is future
    waiting.close()
    assert waiting.cr_await is None


def test_next_gives_the_future_to_wait_on(channel, step_loop):
    waiting = channel.receiving()
    future = step_loop.call(next, waiting)
    assert future is waiting.cr_await
    step_loop.call(channel.try_send, 1)
    step_loop.run_ready()
    with pytest.raises(StopIteration) as raised:
        step_loop.call(next, waiting)
    assert channel.unpack(raised.value.value) == 1


def test_throw_takes_one_to_three_arguments_and_a_traceback_of_its_own(channel):
    for wrong in ((), (1, 2, 3, 4)):
        waiting = channel.receiving()
        with pytest.raises(TypeError):
            waiting.throw(*wrong)
        waiting.close()
    try:
        angry()
    except Angry as error:
        traceback = error.__traceback__
    with pytest.raises(Angry) as raised:
        channel.receiving().throw(Angry("mine"), None, traceback)
    last = raised.value.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    assert last.tb_frame.f_code is angry.__code__


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_claim_that_was_awaited_cannot_be_entered(name):
    channel = AnyChannel(name)

    async def main():
        waiting = channel.tx.claim(8)
        (await waiting).abort()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            async with waiting:
                raise AssertionError("entered")

    asyncio.run(main())
    still_works(channel)


@pytest.mark.parametrize("side", [0, 1])
def test_leaving_an_async_with_block_off_the_thread_of_a_local_channel(side, spawn):
    end = local.channel(1)[side]

    def leave():
        with pytest.raises(WrongThreadError):
            drive(end.__aexit__(None, None, None))

    spawn(leave).join()
    assert not end.is_closed


# Futures and loops


class Odd(asyncio.Future):
    """A future of a class of its own."""

    fails = None
    woken = 0

    def set_result(self, result):
        Odd.woken += 1
        if Odd.fails is not None:
            error, Odd.fails = Odd.fails, None
            raise error
        super().set_result(result)


class OddLoop(StepLoop):
    def create_future(self):
        return Odd(loop=self)


@pytest.fixture
def odd_loop():
    Odd.woken = 0
    loop = OddLoop()
    yield loop
    Odd.fails = None
    loop.close()


@pytest.fixture
def unraisable(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(type(report.exc_value)))
    return reported


def from_a_task(loop, function, *args):
    """Call it as a task of the loop does: wake-ups are then delivered on the spot."""

    async def call():
        function(*args)

    loop.create_task(call())
    loop.run_ready()


def test_a_loop_may_have_futures_of_its_own(channel, odd_loop):
    task = odd_loop.create_task(channel.recv())
    odd_loop.run_ready()
    from_a_task(odd_loop, channel.try_send, 3)
    assert task.result() == 3
    assert Odd.woken == 1


def test_a_future_that_cannot_be_resolved_is_reported_and_costs_no_item(channel, odd_loop, unraisable):
    tasks = [odd_loop.create_task(channel.recv()) for _ in range(2)]
    odd_loop.run_ready()
    Odd.fails = Angry()
    from_a_task(odd_loop, channel.try_send, 3)
    assert unraisable == [Angry]
    assert not any(task.done() for task in tasks)
    tasks[0].cancel()  # it was called, and never ran: the next is
    odd_loop.run_ready()
    assert tasks[1].result() == 3
    still_works(channel)


def test_ctrl_c_while_a_future_is_resolved_is_raised_by_the_caller(channel, odd_loop):
    task = odd_loop.create_task(channel.recv())
    odd_loop.run_ready()
    Odd.fails = KeyboardInterrupt()
    caught = []

    def send():
        try:
            channel.try_send(3)
            for _ in range(100):  # the interrupt comes with one of the next instructions
                pass
        except KeyboardInterrupt:
            caught.append(True)

    from_a_task(odd_loop, send)
    assert caught
    assert task.result() == 3  # it was told all the same


def test_a_loop_without_a_future_or_timer_to_give_passes_its_error_on(channel):
    class Poor(StepLoop):
        fails = "create_future"

        def create_future(self):
            if self.fails == "create_future":
                raise Angry
            return super().create_future()

        def call_later(self, *args, **kwargs):
            if self.fails == "call_later":
                raise Angry
            return super().call_later(*args, **kwargs)

    loop = Poor()
    for Poor.fails in ("create_future", "call_later"):
        task = loop.create_task(channel.recv(timeout=1))
        loop.run_ready()
        assert isinstance(task.exception(), Angry)
        still_works(channel)
    loop.close()


def test_a_future_that_takes_no_mark_passes_its_error_on(channel):
    class Closed_(asyncio.Future):  # noqa: N801
        @property
        def _asyncio_future_blocking(self):
            return False

    class Loop(StepLoop):
        def create_future(self):
            return Closed_(loop=self)

    loop = Loop()
    task = loop.create_task(channel.recv())
    loop.run_ready()
    assert isinstance(task.exception(), AttributeError)
    still_works(channel)
    loop.close()


def test_a_timer_that_cannot_be_cancelled_is_reported(channel, unraisable):
    class Stubborn(StepLoop):
        def call_later(self, *args, **kwargs):
            timer = super().call_later(*args, **kwargs)

            class Timer:
                cancel = staticmethod(angry)

            self.real = timer
            return Timer()

    loop = Stubborn()
    task = loop.create_task(channel.recv(timeout=5))
    loop.run_ready()
    from_a_task(loop, channel.try_send, 1)
    assert task.result() == 1
    assert unraisable == [Angry]
    loop.advance(10)  # it goes off, and finds nothing to end
    still_works(channel)
    loop.close()


@pytest.mark.parametrize("name", THREADED)
def test_a_loop_that_will_not_say_whether_it_is_closed_is_taken_for_open(name):
    channel = AnyChannel(name)

    class Silent(StepLoop):
        def is_closed(self):
            raise Angry

    loop = Silent(readers=False)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    channel.try_send(1)
    loop.run_ready()
    assert task.result() == 1


@pytest.mark.parametrize("event", ["send", "recv", "close tx", "close rx", "cancel"])
@pytest.mark.parametrize("name", THREADED)
def test_a_loop_that_uses_the_channel_while_it_is_being_told(name, event):
    """`call_soon_threadsafe` runs in the waker's call: it may use and close the very channel."""
    channel = AnyChannel(name)

    class Busy(StepLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            handle = super().call_soon_threadsafe(*args, **kwargs)
            if not self.hook_done:
                self.hook_done = True
                actions[event]()
            return handle

    loop = Busy(readers=False)
    loop.hook_done = False
    got = []
    actions = {
        "send": lambda: channel.try_send(2),
        "recv": lambda: got.extend(channel.drain()),
        "close tx": channel.tx.close,
        "close rx": channel.rx.close,
        "cancel": lambda: tasks[0].cancel(),
    }
    tasks = [loop.create_task(channel.recv()) for _ in range(2)]
    loop.run_ready()
    channel.try_send(1)
    loop.run_ready()
    assert loop.hook_done
    got += [task.result() for task in tasks if task.done() and not task.cancelled() and not task.exception()]
    if event != "close rx":
        assert sorted(got) == ([1, 2] if event == "send" else [1])
    for end in (channel.tx, channel.rx):
        end.close()
    loop.run_ready()
    assert all(task.done() for task in tasks)
    assert loop.errors == []
    for task in tasks:
        task.cancelled() or task.exception()  # seen
    loop.close()


@pytest.mark.parametrize("name", THREADED)
def test_a_loop_that_drops_the_waiter_it_is_told_of_and_then_fails(name, unraisable):
    """The one who was called is gone when the wake-up is taken back: the item is the next one's."""
    channel = AnyChannel(name)

    class Dropping(StepLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            if not waiting:
                return super().call_soon_threadsafe(*args, **kwargs)
            waiting.pop().close()
            raise Angry

    loop = Dropping(readers=False)
    waiting = [channel.receiving()]
    loop.call(waiting[0].send, None)
    channel.try_send(1)
    assert unraisable == [Angry]
    assert channel.rx.statistics().waiting_receivers == 0
    task = loop.create_task(channel.recv())
    loop.run_ready()
    assert task.result() == 1
    still_works(channel)
    loop.close()


@pytest.mark.parametrize("name", THREADED)
def test_what_a_closed_loop_never_took_goes_to_the_next_when_its_mailbox_is_let_go(name):
    """The mailbox of a closed loop is let go when another loop comes, and with it the mail."""
    channel, elsewhere = AnyChannel(name), AnyChannel(name)
    closing, second, third = StepLoop(), StepLoop(), StepLoop()
    first = closing.create_task(channel.recv())
    closing.run_ready()
    task = second.create_task(channel.recv())
    second.run_ready()
    channel.try_send(1)  # for the first, whose loop never runs again
    assert second.pending() == 0
    closing.close()
    waiting = third.create_task(elsewhere.recv())
    third.run_ready()
    second.wait_ready()
    second.run_ready()
    assert task.result() == 1
    assert not first.done()
    elsewhere.try_send(2)
    third.wait_ready()
    third.run_ready()
    assert waiting.result() == 2
    del first
    for loop in (second, third):
        loop.close()


# The collector


def test_a_collection_in_the_middle_of_a_channel_that_cannot_be_opened():
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for name in ALL:
            module = importlib.import_module(f"nexus_channels.{name}")
            for _ in range(5):
                with pytest.raises(MemoryError):
                    module.channel(2**60)
    finally:
        gc.set_threshold(*before)


def test_the_collector_finds_the_channel_that_holds_a_waiting_future(channel, step_loop):
    waiting = channel.receiving()
    future = step_loop.call(waiting.send, None)
    assert any(type(holder).__name__ == "Chan" for holder in gc.get_referrers(future))
    waiting.close()
    assert not any(type(holder).__name__ == "Chan" for holder in gc.get_referrers(future))


# Native ends


@pytest.mark.parametrize("side", ["tx", "rx"])
@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_native_end_in_a_reference_cycle_is_closed_by_the_collector(name, side):
    channel = AnyChannel(name)
    gc.disable()
    try:
        end = getattr(channel, side).native()
        cycle = [end]
        cycle.append(cycle)
        weak = weakref.ref(end)
        del end, cycle
        assert weak() is not None
    finally:
        gc.enable()
    collect()
    assert weak() is None
    still_works(channel)
    channel.tx.close()
    assert channel.rx.is_disconnected


@pytest.mark.parametrize("name", BYTES_VARIANTS)
def test_a_weak_reference_to_a_native_end_dies_with_it_and_calls_back(name):
    channel = AnyChannel(name)
    end = channel.tx.native()
    called = []
    weak = weakref.ref(end, lambda _: called.append(channel.rx.is_disconnected))
    del end
    assert weak() is None
    assert called == [False]
