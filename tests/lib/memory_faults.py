"""Every operation of the channels with each of its memory allocations failing in turn; for test_faults_memory.py.

A case is a generator: it sets a `World` up, yields the one call whose allocations are to fail, and then says what
must hold, whether the call succeeded or not. `python -c` children run them: see `main`.
"""

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import sys
import weakref
from asyncio import events
from select import select as look_at_descriptors

import fail_alloc  # built by the test
from harness import WAKE
from steploop import StepLoop
from support import Item, Spawned, until_blocked

import nexus_channels
from nexus_channels import ChannelError, select, select_blocking, try_select

UNSET = object()
OURS = "nexus_channels._core"
READERS = nexus_channels._core.build_info()["wake"] != "call_soon_threadsafe"
MORTAL = []  # weak references to what must be gone at the end of a case
ALLOWED = (MemoryError, ChannelError, StopIteration, StopAsyncIteration, asyncio.CancelledError)
CASES = {}


def lists_leak():
    """Does list(sequence) keep a reference where it finds no memory for the items? It does up to 3.12."""
    sequence = [UNSET]
    before = sys.getrefcount(sequence)
    for number in range(3):
        try:  # contextlib.suppress() would want memory, too
            fail_alloc.arm(number)
            list(sequence)
        except MemoryError:
            pass
        fail_alloc.disarm()
    return sys.getrefcount(sequence) > before


LEAKY_LISTS = lists_leak()
PLAN = [10**6, False]  # which allocation is to fail, and whether all that follow fail as well


def arm(coroutine=None):
    """From here on. An exception on its way needs a frame object of each frame it passes; when there is no memory
    for one, CPython loses the exception (and a debug build of it stops there), so they are made now."""
    if coroutine is not None:
        coroutine.cr_frame  # noqa: B018
    frame = sys._getframe(1)
    while frame is not None:
        frame = frame.f_back
    fail_alloc.arm(*PLAN)


class Loop(StepLoop):
    """asyncio loses a task whose wake-up finds no memory; this loop tries again, so that nothing hides behind that.

    It does not for a future of ours, which has to see to it itself: that once hid a wake-up that was lost for ever.
    """

    def __init__(self):
        super().__init__()

        def call_soon(callback, argument=UNSET, *, context=None):
            tries = 1 if type(callback).__module__ == OURS else 3
            while True:
                try:
                    arguments = () if argument is UNSET else (argument,)
                    return StepLoop.call_soon(self, callback, *arguments, context=context)
                except MemoryError:
                    tries -= 1
                    if tries == 0:
                        raise

        self.call_soon = call_soon  # not a method, which would have to be bound


class World:
    """One channel, what went into it, what came out, and everything that must be gone at the end."""

    def __init__(self, module, capacity=2, fill=0):
        self.module = module
        self.bytes = module.__name__.endswith("bytes")
        self.capacity = capacity
        self.tx, self.rx = module.channel(capacity * 64 if self.bytes else capacity)
        self.mortal = MORTAL
        self.mortal += [weakref.ref(self.tx), weakref.ref(self.rx)]
        self.made = 0
        self.results = [UNSET] * 4  # no allocation when one is put in
        self.there = []  # names of what must be in the channel, in order
        self.loop = Loop()
        for _ in range(fill):
            self.try_send()

    def new(self):
        """Something to send; a message of 56 bytes fills half of a channel of capacity 2."""
        self.made += 1
        if self.bytes:
            return f"message {self.made}".ljust(56).encode()
        item = Item(f"message {self.made}")
        self.mortal.append(weakref.ref(item))
        return item

    def name(self, item):
        return bytes(item).decode().strip() if self.bytes else item.name

    def take(self):
        return self.rx.try_recv_bytes() if self.bytes else self.rx.try_recv()

    def try_send(self):
        item = self.new()
        self.tx.try_send(item)
        self.there.append(self.name(item))

    def fill(self):
        for _ in range(self.capacity):
            self.try_send()

    def done(self, index=0):
        return self.results[index] is not UNSET

    def sent(self, item, index=0):
        """Its send returned, or it did not send."""
        if self.done(index):
            self.there.append(self.name(item))

    def took(self, index=0):
        """What its receive returned was the oldest, and it is no longer there."""
        if self.done(index):
            assert self.name(self.results[index]) == self.there.pop(0)

    def step(self, coroutine):
        """Run a coroutine on the loop until it waits; true if it does."""

        def step():
            events._set_running_loop(self.loop)
            try:
                arm(coroutine)
                coroutine.send(None)
            except StopIteration:
                return False
            finally:
                events._set_running_loop(None)
            return True

        return step

    def finish(self, *, waiting=0):
        """Nothing is lost or twice there, nobody stands in line unknown, and the channel goes on as if nothing was."""
        stats = self.tx.statistics()
        assert stats.waiting_senders + stats.waiting_receivers == waiting, stats
        assert [self.name(self.take()) for _ in self.there] == self.there
        for _ in range(3):
            item = self.new()
            self.tx.try_send(item)
            assert self.name(self.take()) == self.name(item)
        assert len(self.rx) == 0
        stats = self.tx.statistics()
        assert stats.sent == stats.received
        self.close()

    def close(self):
        self.tx.close()
        self.rx.close()
        self.loop.run_ready()
        self.loop.close()


def case(function):
    CASES[function.__name__] = function
    return function


async def into(world, index, awaitable):
    world.results[index] = await awaitable


async def enter(world, index, claim):
    async with claim as view:
        view[:] = b"m" * len(view)
        world.results[index] = True


# Opening and looking


@case
def opening(module):
    world = World(module)

    def act():
        arm()
        world.results[0] = module.channel(128)

    yield act
    if world.done():
        tx, rx = world.results[0]
        world.mortal += [weakref.ref(tx), weakref.ref(rx)]
    world.finish()


@case
def cloning(module):
    world = World(module, fill=1)
    if hasattr(world.tx, "clone"):

        def act():
            arm()
            world.results[0] = world.tx.clone()

        yield act
        assert world.tx.statistics().open_senders == 1 + world.done()
        world.results[0] = None
        assert world.tx.statistics().open_senders == 1
    world.finish()


@case
def notifying(module):
    world = World(module)
    if WAKE != "call_soon_threadsafe":
        made = []

        def act():
            arm()
            made.append(world.rx.notifier())
            made[0].arm()
            world.results[0] = True

        yield act
        if world.done():
            world.try_send()
            assert look_at_descriptors(made, [], [], 0)[0]
            made[0].clear()
        made.clear()
    world.finish()


@case
def looking(module):
    world = World(module, fill=1)
    tx, rx = world.tx, world.rx

    def act():
        arm()
        for end in (tx, rx):
            end.statistics()
            repr(end)
            len(end), end.capacity, end.is_closed, end.is_disconnected, end.same_channel(tx)
        if world.bytes:
            tx.used, tx.max_message_size, tx._dump()

    yield act
    world.finish()


@case
def copying(module):
    world = World(module)

    def act():
        arm()
        with contextlib.suppress(TypeError):
            world.rx.__reduce_ex__(4)

    yield act
    world.finish()


# Not waiting


def trying(fill, prepare=None):
    def cases(module):
        world = World(module, fill=fill)
        item = world.new()
        if prepare is not None:
            prepare(world)

        def act():
            arm()
            world.results[0] = world.tx.try_send(item)

        yield act
        world.sent(item)
        if prepare is None:
            world.finish()
        else:
            assert not world.done()
            world.close()

    return cases


CASES["try_send with room"] = trying(1)
CASES["try_send on a full channel"] = trying(2)
CASES["try_send with no receiver"] = trying(1, lambda world: world.rx.close())
CASES["try_send on a closed sender"] = trying(1, lambda world: world.tx.close())


@case
def try_recv(module):
    world = World(module, fill=2)

    def act():
        arm()
        world.results[0] = world.take()

    yield act
    world.took()
    world.finish()


@case
def try_recv_of_nothing(module):
    world = World(module)

    def act():
        arm()
        world.results[0] = world.take()

    yield act
    assert not world.done()
    world.finish()


@case
def try_recv_at_the_end(module):
    world = World(module, fill=1)
    world.tx.close()
    world.take()

    def act():
        arm()
        world.results[0] = world.take()

    yield act
    assert not world.done()
    world.close()


@case
def try_send_many(module):
    world = World(module, capacity=4)
    items = [world.new() for _ in range(6)]
    if LEAKY_LISTS:
        world.mortal.clear()

    def act():
        arm()
        world.results[0] = world.tx.try_send_many(items)

    yield act
    if world.done():
        assert world.results[0] == 4
        world.there += map(world.name, items[:4])
    world.finish()


@case
def try_recv_many(module):
    world = World(module, capacity=3, fill=3)

    def act():
        arm()
        world.results[0] = world.rx.try_recv_many(5)

    yield act
    if world.done():
        got = [world.name(item) for item in world.results[0]]
        assert got == world.there[: len(got)]
        del world.there[: len(got)]
    world.finish()


# Awaiting what is ready


def ready_send(*args):
    def cases(module):
        world = World(module, fill=1)
        item = world.new()
        coroutine = into(world, 0, world.tx.send(item, *args))
        yield world.step(coroutine)
        coroutine.close()
        world.sent(item)
        world.finish()

    return cases


CASES["send that need not wait"] = ready_send()
CASES["send that need not wait, with a timeout"] = ready_send(5)


def ready_recv(*args):
    def cases(module):
        world = World(module, fill=1)
        coroutine = into(world, 0, (world.rx.recv_bytes if world.bytes else world.rx.recv)(*args))
        yield world.step(coroutine)
        coroutine.close()
        world.took()
        world.finish()

    return cases


CASES["recv that need not wait"] = ready_recv()
CASES["recv that need not wait, with a timeout"] = ready_recv(5)


@case
def awaitables_that_nobody_awaits(module):
    world = World(module, fill=1)
    item = world.new()
    if LEAKY_LISTS:
        world.mortal.clear()

    def act():
        arm()
        world.results[0] = world.tx.send(item)
        world.results[1] = world.rx.recv()
        world.results[2] = world.tx.send_many([item])
        world.results[3] = world.rx.recv_many(3)
        repr(world.results[0])

    yield act
    world.results[:] = [UNSET] * 4
    world.finish()


@case
def send_many_and_recv_many_that_need_not_wait(module):
    world = World(module, capacity=3)
    items = [world.new() for _ in range(3)]
    send, receive = world.step(into(world, 0, world.tx.send_many(items))), None
    yield send
    if world.done():
        world.there += map(world.name, items)
        receive = world.step(into(world, 1, world.rx.recv_many(3)))
        receive()
        assert [world.name(item) for item in world.results[1]] == world.there
        world.there = []
    world.finish()


@case
def recv_many_that_need_not_wait(module):
    world = World(module, capacity=3, fill=3)
    yield world.step(into(world, 0, world.rx.recv_many(3)))
    if world.done():
        got = [world.name(item) for item in world.results[0]]
        assert got == world.there[: len(got)]
        del world.there[: len(got)]
    world.finish()


def of_select(world, index=0):
    """The item that a select received; of bytes it gave a claim."""
    if world.done(index) and world.bytes:
        with world.results[index].value as view:
            world.results[index] = bytes(view)
    elif world.done(index):
        world.results[index] = world.results[index].value


def selected(world, *others):
    """The end of a case whose select received: `others` are of its other arms."""
    of_select(world)
    world.took()
    for each in (world, *others):
        each.finish()


@case
def try_select_that_receives(module):
    world = World(module, fill=1)
    idle = World(module)
    idle_rx, rx = idle.rx, world.rx

    def act():
        arm()
        world.results[0] = try_select(idle_rx, rx)

    yield act
    selected(world, idle)


@case
def try_select_that_sends(module):
    world = World(module, fill=1)
    idle = World(module)
    item = world.new()

    def act():
        arm()
        world.results[0] = try_select(idle.rx, world.tx.sending(item))

    yield act
    world.sent(item)
    world.results[0] = UNSET
    world.finish()
    idle.finish()


@case
def try_select_of_nothing(module):
    world = World(module)

    def act():
        arm()
        world.results[0] = try_select(world.rx)

    yield act
    assert not world.done()
    world.finish()


@case
def select_of_many_that_need_not_wait(module):
    world = World(module, fill=1)
    others = [World(module) for _ in range(257)]  # so many that the index of the last is no int that is kept ready
    arms = (*[other.rx for other in others], world.rx)  # a list in the call would leak: see lists_leak()

    def act():
        arm()
        world.results[0] = try_select(*arms)

    yield act
    selected(world, *others)


@case
def select_that_need_not_wait(module):
    world = World(module, fill=1)
    idle = World(module)
    coroutine = into(world, 0, select(idle.rx, world.rx))
    yield world.step(coroutine)
    coroutine.close()
    selected(world, idle)


@case
def a_select_that_nobody_awaits(module):
    world = World(module, fill=1)

    def act():
        arm()
        world.results[0] = select(world.rx)

    yield act
    if world.done():
        world.results[0].close()
    world.results[0] = UNSET
    world.finish()


@case
def context_managers(module):
    world = World(module)

    async def use():
        async with world.tx, world.rx:
            world.results[0] = True

    yield world.step(use())
    world.close()


@case
def closing_with_items_inside(module):
    world = World(module, fill=2)

    def act():
        arm()
        world.rx.close()
        world.results[0] = True

    yield act
    if world.done():
        assert world.rx.is_closed and len(world.tx) == 0
    world.close()


# Waiting in a task


def parking(side, *, known_loop, timeout=None):
    """The step that makes everything it takes to wait: mailbox, timer, future."""

    def cases(module):
        world = World(module, fill=0 if side == "recv" else 2)
        if known_loop:
            other = World(module)
            other.loop = world.loop
            waiter = other.rx.recv()
            world.loop.call(waiter.send, None)
            waiter.close()
            other.tx.close(), other.rx.close()
        item = world.new()
        if side == "send":
            awaitable = world.tx.send(item, timeout)
        else:
            awaitable = (world.rx.recv_bytes if world.bytes else world.rx.recv)(timeout)
        coroutine = into(world, 0, awaitable)
        del awaitable
        yield world.step(coroutine)
        waiting = coroutine.cr_await is not None
        stats = world.tx.statistics()
        assert stats.waiting_senders + stats.waiting_receivers == waiting
        assert not world.done()
        if waiting and side == "send":
            assert world.name(world.loop.call(world.take)) == world.there.pop(0)
            world.loop.run_ready()
            assert world.step(coroutine)() is False
            assert world.results[0] is None
            world.sent(item)
        elif waiting:
            world.loop.call(world.try_send)
            world.loop.run_ready()
            assert world.step(coroutine)() is False
            world.took()
        coroutine.close()
        world.finish()

    return cases


for side in ("send", "recv"):
    CASES[f"{side} that waits, the first on its loop"] = parking(side, known_loop=False)
    CASES[f"{side} that waits"] = parking(side, known_loop=True)
    CASES[f"{side} that waits with a timeout"] = parking(side, known_loop=True, timeout=5)


def selecting(*, known_loop, timeout=None):
    """The same for a wait in two lines."""

    def cases(module):
        world = World(module)
        idle = World(module)
        if known_loop:
            waiter = idle.rx.recv()
            world.loop.call(waiter.send, None)
            waiter.close()
        coroutine = into(world, 0, select(idle.rx, world.rx, timeout=timeout))
        yield world.step(coroutine)
        waiting = coroutine.cr_await is not None
        assert world.tx.statistics().waiting_receivers == idle.tx.statistics().waiting_receivers == waiting
        assert not world.done()
        if waiting:
            world.loop.call(world.try_send)
            world.loop.run_ready()
            assert world.step(coroutine)() is False
            of_select(world)
            world.took()
        coroutine.close()
        world.finish()
        idle.finish()

    return cases


CASES["select that waits, the first on its loop"] = selecting(known_loop=False)
CASES["select that waits"] = selecting(known_loop=True)
CASES["select that waits with a timeout"] = selecting(known_loop=True, timeout=5)


@case
def a_select_that_is_woken(module):
    world = World(module, fill=0)
    idle = World(module)
    coroutine = into(world, 0, select(idle.rx, world.rx))
    assert world.step(coroutine)()
    fail_alloc.disarm()
    world.loop.call(world.try_send)
    world.loop.run_ready()
    yield world.step(coroutine)
    coroutine.close()
    selected(world, idle)


@case
def a_wait_on_a_loop_of_asyncio(module):
    """Its futures are made in another way than those of a loop that has a `create_future` of its own."""
    world = World(module)
    world.real = asyncio.new_event_loop()
    world.step_loop, world.loop = world.loop, world.real
    waiter = world.rx.recv()
    try:
        events._set_running_loop(world.real)
        waiter.send(None)  # the loop has a mailbox now
    finally:
        events._set_running_loop(None)
    waiter.close()
    coroutine = into(world, 0, (world.rx.recv_bytes if world.bytes else world.rx.recv)())
    yield world.step(coroutine)
    waiting = coroutine.cr_await is not None
    assert world.rx.statistics().waiting_receivers == waiting
    coroutine.close()
    world.real.close()
    world.loop = world.step_loop
    world.finish()


def parked(world, awaitable):
    """A coroutine that waits, and its future, which a task would wait on."""
    coroutine = into(world, 0, awaitable)
    assert world.step(coroutine)()
    return coroutine


def ending(how):
    """A wait that ends before its time, after it was called or not."""

    def cases(module, called):
        world = World(module)
        coroutine = parked(world, world.rx.recv())
        if called:
            world.try_send()

        def act():
            how(coroutine)

        yield act
        coroutine.close()
        world.finish()

    return cases


def cancel(coroutine):
    error = asyncio.CancelledError()
    arm(coroutine)
    coroutine.throw(error)


def close(coroutine):
    arm(coroutine)
    coroutine.close()


for called in (False, True):
    suffix = " after it was called" if called else ""
    CASES["cancelling" + suffix] = lambda module, called=called: ending(cancel)(module, called)
    CASES["closing a wait" + suffix] = lambda module, called=called: ending(close)(module, called)


@case
def a_wait_that_goes_on(module):
    world = World(module)
    coroutine = parked(world, world.rx.recv_bytes() if world.bytes else world.rx.recv())
    world.loop.call(world.try_send)
    world.loop.run_ready()
    yield world.step(coroutine)
    coroutine.close()
    world.took()
    world.finish()


@case
def a_send_that_goes_on(module):
    world = World(module, fill=2)
    item = world.new()
    coroutine = parked(world, world.tx.send(item))
    assert world.name(world.loop.call(world.take)) == world.there.pop(0)
    world.loop.run_ready()
    yield world.step(coroutine)
    coroutine.close()
    world.sent(item)
    world.finish()


@case
def a_wait_that_times_out(module):
    world = World(module)
    coroutine = parked(world, world.rx.recv(timeout=1))
    timer = world.loop._timers[0][2]
    step = world.step(coroutine)

    def act():
        arm()
        timer._callback()
        step()

    yield act
    coroutine.close()
    world.finish()


@case
def a_wait_that_ends_with_its_channel(module):
    world = World(module)
    coroutine = parked(world, world.rx.recv())
    world.tx.close()
    world.loop.run_ready()
    yield world.step(coroutine)
    coroutine.close()
    assert not world.done()
    world.close()


# Waking


def waking(way, side, what="item"):
    """A task waits; what wakes it finds no memory. It is woken all the same, and nobody has to come by for that."""

    def cases(module):
        world = World(module, capacity=4, fill=4 if side == "send" else 0)
        loop = world.loop
        item, later = world.new(), world.new()
        receive = world.rx.recv_bytes if world.bytes else world.rx.recv
        waits = [
            loop.create_task(into(world, i, world.tx.send(w) if side == "send" else receive()))
            for i, w in enumerate((item, later))
        ]
        loop.run_ready()
        if way == "thread, by its descriptor":
            other = World(module)
            other.loop = loop
            task = loop.create_task(other.rx.recv())
            loop.run_ready()
            other.tx.try_send(other.new())  # opens it
            loop.run_ready()
            assert task.done() and bool(loop._readers) == READERS
            other.tx.close(), other.rx.close()
            del task, other
        sent = world.new()

        def wake():
            arm()
            if what == "close":
                (world.rx if side == "send" else world.tx).close()
                world.results[2] = True
            elif side == "send":
                world.results[2] = world.take()
            else:
                world.results[2] = world.tx.try_send(sent)

        def act():
            if way.startswith("thread"):
                wake()
                return
            events._set_running_loop(loop)
            if way == "task":
                asyncio.tasks._enter_task(loop, loop)
            try:
                wake()
            finally:
                if way == "task":
                    asyncio.tasks._leave_task(loop, loop)
                events._set_running_loop(None)

        yield act
        loop.run_ready()
        assert waits[0].done() == world.done(2), "the wake-up was lost, or there was none to give"
        for task in waits:
            task.cancel()
        loop.run_ready()
        assert all(task.done() for task in waits)
        for task in waits:
            task.cancelled() or task.exception()
        stats = world.tx.statistics()
        assert stats.waiting_senders == stats.waiting_receivers == 0
        world.close()

    return cases


for way in ("thread", "thread, by its descriptor", "callback", "task"):
    for side in ("send", "recv"):
        CASES[f"waking a {side} from a {way}"] = waking(way, side)
        CASES[f"waking a {side} from a {way} by closing"] = waking(way, side, "close")


@case
def opening_the_wake_descriptor(module):
    world = World(module)
    task = world.loop.create_task(into(world, 0, world.rx.recv_bytes() if world.bytes else world.rx.recv()))
    world.loop.run_ready()
    world.try_send()
    (handle,) = world.loop._foreign
    world.loop._foreign.clear()

    def act():
        arm()
        handle._callback()

    yield act
    world.loop.run_ready()
    if not task.done():  # the callback failed before it began
        handle._callback()
        world.loop.run_ready()
    assert task.done()
    world.took()
    world.finish()


# Blocking


def blocking(module):
    return hasattr(module.Sender, "send_blocking")


@case
def blocking_calls_that_need_not_wait(module):
    world = World(module, fill=1)
    if blocking(module):
        item = world.new()

        def act():
            arm()
            world.results[0] = world.tx.send_blocking(item, 1)
            world.results[1] = (world.rx.recv_bytes_blocking if world.bytes else world.rx.recv_blocking)(1)

        yield act
        world.sent(item)
        world.took(1)
    world.finish()


@case
def blocking_calls_that_time_out(module):
    world = World(module, fill=2)
    if blocking(module):
        empty = module.channel(64)

        def act():
            arm()
            with contextlib.suppress(ChannelError):
                world.tx.send_blocking(b"x" * 60 if world.bytes else None, 0.0001)
            with contextlib.suppress(ChannelError):
                empty.receiver.recv_blocking(0.0001)

        yield act
        stats = empty.receiver.statistics()
        assert stats.waiting_receivers == 0
    world.finish()


@case
def select_blocking_that_times_out(module):
    world = World(module)
    if blocking(module):
        idle = World(module)

        def act():
            arm()
            with contextlib.suppress(ChannelError):
                select_blocking(idle.rx, world.rx, timeout=0.0001)

        yield act
        idle.finish()
    world.finish()


@case
def blocking_iteration(module):
    world = World(module, fill=1)
    if blocking(module) and not world.bytes:
        world.tx.close()
        iterator = iter(world.rx)

        def act():
            arm()
            world.results[0] = next(iterator)
            next(iterator)

        yield act
        world.took()
        world.there and world.took(0)
    world.close()


def waking_a_thread(side):
    def cases(module):
        world = World(module, fill=2 if side == "send" else 0)
        if blocking(module):
            item = world.new()
            if side == "send":
                thread = Spawned(world.tx.send_blocking, item)
            else:
                thread = Spawned(world.rx.recv_bytes_blocking if world.bytes else world.rx.recv_blocking)
            until_blocked(world.tx, **{"senders" if side == "send" else "receivers": 1})
            sent = world.new()

            def act():
                arm()
                if side == "send":
                    world.results[0] = world.take()
                else:
                    world.results[0] = world.tx.try_send(sent)

            yield act
            if side == "send":
                if not world.done():
                    world.take()
                world.there.pop(0)
                thread.join()
                world.there.append(world.name(item))
            else:
                if not world.done():
                    world.tx.try_send(sent)
                assert world.name(thread.join()) == world.name(sent)
        world.finish()

    return cases


CASES["waking a thread that sends"] = waking_a_thread("send")
CASES["waking a thread that receives"] = waking_a_thread("recv")


# Claims


def bytes_case(function):
    def cases(module):
        if module.__name__.endswith("bytes"):
            yield from function(module)

    CASES[function.__name__] = cases
    return cases


@bytes_case
def claiming(module):
    world = World(module, fill=1)

    def act():
        arm()
        world.results[0] = world.tx.try_claim(8)

    yield act
    if world.done():
        world.results[0][:] = b"claimed "
        world.results[0].commit()
        world.there.append("claimed")
    world.finish()


@bytes_case
def claiming_in_a_full_ring(module):
    world = World(module, fill=2)

    def act():
        arm()
        world.results[0] = world.tx.try_claim(8)

    yield act
    assert not world.done()
    world.finish()


@bytes_case
def writing_and_committing(module):
    world = World(module, fill=1)
    claim = world.tx.try_claim(16)

    def act():
        arm()
        memoryview(claim)[:] = b"0123456789abcdef"
        claim[0:4] = b"4567"
        claim[-1], len(claim), bytes(claim), repr(claim)
        world.results[0] = claim.commit(8)

    yield act
    if world.done():
        world.there.append("45674567")
    else:
        with contextlib.suppress(ChannelError):
            claim.abort()
    world.finish()


@bytes_case
def a_with_block(module):
    world = World(module, fill=1)
    claim = world.tx.try_claim(8)

    def act():
        arm()
        with claim as view:
            view[:] = b"in block"
        world.results[0] = True

    yield act
    if world.done():
        world.there.append("in block")
    else:
        with contextlib.suppress(ChannelError):
            claim.abort()
    claim = None
    world.finish()


@bytes_case
def aborting(module):
    world = World(module, fill=1)
    claim = world.tx.try_claim(8)

    def act():
        arm()
        world.results[0] = claim.abort()

    yield act
    with contextlib.suppress(ChannelError):
        claim.abort()
    world.finish()


@bytes_case
def using_a_claim_that_ended(module):
    world = World(module, fill=1)
    claim = world.tx.try_claim(8)
    claim.abort()

    def act():
        arm()
        with contextlib.suppress(BufferError):
            memoryview(claim)
        with contextlib.suppress(BufferError):
            claim.commit()

    yield act
    world.finish()


@bytes_case
def a_claim_with_a_view(module):
    world = World(module, fill=1)
    claim = world.tx.try_claim(8)
    view = memoryview(claim)

    def act():
        arm()
        with contextlib.suppress(BufferError):
            claim.commit()

    yield act
    view.release()
    claim.abort()
    world.finish()


@bytes_case
def async_with_a_claim(module):
    world = World(module, fill=1)
    coroutine = enter(world, 0, world.tx.claim(8))
    yield world.step(coroutine)
    coroutine.close()
    del coroutine
    gc.collect()
    held = [bytes(message).decode().strip() for message in world.rx.try_recv_many(9)]
    assert held in (world.there, [*world.there, "mmmmmmmm"])
    world.there = []
    world.finish()


@bytes_case
def reading(module):
    world = World(module, fill=2)

    def act():
        arm()
        world.results[0] = world.rx.try_recv()

    yield act
    if world.done():
        assert world.name(world.results[0]) == world.there.pop(0)
        world.results[0].release()
    world.finish()


@bytes_case
def releasing(module):
    world = World(module, fill=2)
    claim = world.rx.try_recv()

    def act():
        arm()
        with claim as view:
            bytes(view)
        world.results[0] = True

    yield act
    with contextlib.suppress(ChannelError):
        claim.release()
    world.there.pop(0)
    world.finish()


@bytes_case
def receiving_into(module):
    world = World(module, fill=2)
    target = bytearray(80)

    def act():
        arm()
        world.results[0] = world.rx.try_recv_into(target)

    yield act
    if world.done():
        assert target[: world.results[0]].decode().strip() == world.there.pop(0)
    world.finish()


@bytes_case
def receiving_a_long_message_into(module):
    """So long that its size is no small integer."""
    world = World(module)
    tx, rx = module.channel(1024)
    tx.try_send(b"m" * 600)
    target = bytearray(600)

    def act():
        arm()
        world.results[0] = rx.try_recv_into(target)

    yield act
    if world.done():
        assert (world.results[0], target) == (600, b"m" * 600)
    else:
        assert rx.try_recv_bytes() == b"m" * 600
    assert rx.used == 0
    world.finish()


@bytes_case
def lending_an_end_to_native_code(module):
    """With tasks in line, on a loop that native code could not wake yet."""
    world = World(module)
    coroutines = [parked(world, world.rx.recv_bytes()) for _ in range(2)]

    def act():
        arm()
        world.results[1] = world.tx.native()

    yield act
    lent = world.done(1)
    world.results[1] = None
    world.loop.run_ready()
    for coroutine in coroutines:
        coroutine.close()
    assert world.tx.statistics().open_senders == 1, lent
    world.finish()


@bytes_case
def sharing_an_end(module):
    """With tasks in line, on a loop that others could not wake yet."""
    world = World(module)
    coroutines = [parked(world, world.rx.recv_bytes()) for _ in range(2)]

    def act():
        arm()
        world.results[1] = world.tx.share()

    yield act
    assert world.tx.is_closed is world.done(1)
    assert world.rx.statistics().open_senders == 1
    if world.done(1):
        world.tx = nexus_channels.attach(world.results[1])
        world.results[1] = None
    world.loop.run_ready()
    for coroutine in coroutines:
        coroutine.close()
    world.finish()


@bytes_case
def attaching_a_ticket(module):
    """A ticket for which there was no memory is as good as before."""
    world = World(module, fill=1)
    ticket = world.rx.share()

    def act():
        arm()
        world.results[0] = nexus_channels.attach(ticket)

    yield act
    world.rx = world.results[0] if world.done() else nexus_channels.attach(ticket)
    world.results[0] = UNSET
    assert "spent" in repr(ticket)
    world.finish()


@bytes_case
def pickling_a_ticket(module):
    world = World(module, fill=1)
    ticket = world.tx.share()

    def act():
        arm()
        function, arguments = ticket.__reduce_ex__(4)
        world.results[0] = function(*arguments)
        world.results[1] = bytes(ticket), repr(ticket)

    yield act
    assert not world.rx.is_disconnected
    world.tx = nexus_channels.attach(ticket)
    world.results[0] = world.results[1] = UNSET
    world.finish()


@bytes_case
def sending_any_buffer(module):
    world = World(module, fill=1)
    data = bytearray(b"from a bytearray")

    def act():
        arm()
        world.results[0] = world.tx.try_send(data)

    yield act
    data.clear()  # nobody holds on to it
    if world.done():
        world.there.append("from a bytearray")
    world.finish()


@bytes_case
def sending_many_buffers(module):
    world = World(module, fill=1)
    data = [bytearray(b"one"), memoryview(b"two"), b"three"]
    coroutine = into(world, 0, world.tx.send_many(data))
    yield world.step(coroutine)
    coroutine.close()
    if world.done():
        world.there += ["one", "two", "three"]
    world.finish()


@bytes_case
def iterating_over_claims(module):
    world = World(module, fill=2)
    iterator = iter(world.rx)

    def act():
        arm()
        world.results[0] = world.name(next(iterator))
        world.results[1] = world.name(next(iterator))

    yield act
    iterator = None
    left = [bytes(message).decode().strip() for message in world.rx.try_recv_many(9)]
    got = [name for name in world.results[:2] if name is not UNSET]
    # a claim that was handed out and lost to a failure of its own reading was released, as any claim that is dropped
    assert world.there[: len(got)] == got and left == world.there[len(world.there) - len(left) :]
    assert len(left) + len(got) >= len(world.there) - 1
    world.there = []
    world.finish()


@bytes_case
def a_claim_that_waits(module):
    world = World(module, fill=2)
    coroutine = into(world, 0, world.tx.claim(8))
    yield world.step(coroutine)
    waiting = coroutine.cr_await is not None
    assert world.tx.statistics().waiting_senders == waiting
    if waiting:
        assert world.name(world.loop.call(world.take)) == world.there.pop(0)
        world.loop.run_ready()
        assert world.step(coroutine)() is False
        world.results[0].abort()
    coroutine.close()
    world.finish()


# Running them


def spares():
    """With a GIL some awaitables and claims are kept for the next call, which then finds memory: what uses them up."""
    channels = [nexus_channels.spsc_bytes.channel(64) for _ in range(20)]
    return channels, [tx.try_claim(8) for tx, _ in channels], [channels[0].receiver.recv_bytes() for _ in range(80)]


def unheard(_unraisable):
    """What CPython reports of an allocation that failed where it could raise nothing."""


def collected():
    for _ in range(3):
        if all(reference() is None for reference in MORTAL):
            return True
        gc.collect()
    return False


def play(cases, module, number, forever):
    """Return how many allocations failed: none when `number` is more than the call makes; None where it is not made."""
    MORTAL.clear()
    generator = cases(module)
    act = next(generator, None)
    if act is None:
        return None
    unexpected = None
    used_up = spares()
    PLAN[:] = number, forever
    try:
        act()
    except ALLOWED:
        pass
    except SystemError as error:
        if not forever or str(error) != "error return without exception set":  # CPython's, see arm()
            unexpected = error
    except BaseException as error:
        unexpected = error
    PLAN[:] = 10**6, False
    failed = fail_alloc.disarm()
    if unexpected is not None:
        raise unexpected
    del act, used_up
    assert next(generator, None) is None
    generator.close()
    del generator
    assert collected(), f"kept alive: {[reference() for reference in MORTAL if reference() is not None]}"
    return failed


def main(name, forever=False, only=None):
    """Each allocation of each case in turn; print how many failed, and how many cases there were."""
    module = importlib.import_module(f"nexus_channels.{name}")
    sys.unraisablehook = unheard
    total = operations = 0
    gc.collect()
    gc.freeze()
    for title, cases in CASES.items():
        if only is not None and only != title:
            continue
        if forever and (title.startswith("waking") or title == "opening_the_wake_descriptor"):
            continue  # with no memory at all asyncio itself loses what it was told
        play(cases, module, 10**6, False)  # first uses: caches
        operations += 1
        for number in range(1000):
            try:
                failed = play(cases, module, number, forever)
            except BaseException as error:
                error.add_note(f"{name}: {title}, allocation {number}")
                raise
            if not failed:
                break
            total += 1
        else:
            raise AssertionError(f"{title}: no end of allocations")
    print(total, operations)


def load_module(name="nexus_channels._core"):
    """Another instance of a native module, each allocation of its making failing in turn. Not ours: to compare with."""
    spec = importlib.util.find_spec(name)
    sys.unraisablehook = unheard

    def make():
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    make()
    total = 0
    for number in range(10_000):
        module = None
        fail_alloc.arm(number)
        try:
            module = make()
        except (MemoryError, ImportError, SystemError, AttributeError):
            assert module is None
        failed = fail_alloc.disarm()
        if hasattr(module, "open"):
            tx, rx = module.open(2, 3)
            tx.try_send(1)
            assert rx.try_recv() == 1
            del tx, rx
        module = None
        gc.collect()
        if not failed:
            break
        total += 1
    print(total, 1)


__all__ = ["CASES", "load_module", "main"]
