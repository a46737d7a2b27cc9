"""What test_signals.py has for objects, for channels of bytes: signals, and code in the middle of calls. And for every
channel Ctrl-C during each await, and faulthandler, which looks at all threads whatever they do.

The scripts run in processes of their own, whose main thread is the one that waits.
"""

import contextlib
import gc
import sys

import pytest
from anychannel import ALL, BYTES
from harness import FREE_THREADED, SLOWNESS, run_child, size
from support import DEADLINE, drive

from nexus_channels import BusyError, ChannelError, ClaimReleased, Empty, Full

BLOCKED_CALLS = f"""
import itertools, os, signal, sys, threading, time
from anychannel import AnyChannel
from nexus_channels import *
from support import Spawned, until_blocked
LONG = {DEADLINE}
SLOWNESS = {SLOWNESS}
FULL = b"f" * 56
CALLS = [
    (True, lambda tx, rx: tx.claim_blocking(8)),
    (True, lambda tx, rx: tx.send_blocking(b"x")),
    (True, lambda tx, rx: tx.send_blocking(b"x", timeout=LONG)),
    (True, lambda tx, rx: tx.send_many_blocking([b"x", b"y"])),
    (False, lambda tx, rx: rx.recv_blocking()),
    (False, lambda tx, rx: rx.recv_bytes_blocking(timeout=LONG)),
    (False, lambda tx, rx: rx.recv_into_blocking(bytearray(64))),
    (False, lambda tx, rx: rx.recv_many_blocking(2)),
    (False, lambda tx, rx: next(iter(rx))),
]
def channel(sends):
    c = AnyChannel(sys.argv[1])
    if sends:
        c.tx.try_send(FULL)
    return c.tx, c.rx
"""

pytestmark = pytest.mark.timeout(120 * SLOWNESS)


@pytest.fixture(params=BYTES)
def name(request):
    return request.param


def test_pitfall_21_ctrl_c_ends_every_blocking_call_within_half_a_second_and_loses_nothing(name):
    script = f"""
{BLOCKED_CALLS}
def interrupt(tx, rx, sends, done):
    until_blocked(tx, senders=int(sends), receivers=int(not sends))
    start = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
    deaf = not done.wait(5 * SLOWNESS)
    took = time.monotonic() - start
    if deaf:
        (rx if sends else tx).close()
    return took, deaf
for round in range({size(2, 25)}):
    for number, (sends, call) in enumerate(CALLS):
        tx, rx = channel(sends)
        done = threading.Event()
        thread = Spawned(interrupt, tx, rx, sends, done)
        caught = None
        try:
            call(tx, rx)
        except BaseException as error:
            caught = error
        done.set()
        took, deaf = thread.join()
        assert not deaf, ("deaf", round, number)
        assert isinstance(caught, KeyboardInterrupt), (number, caught)
        assert took < 0.5 * SLOWNESS, took
        assert tx.statistics()[4:6] == (0, 0)
        assert rx.try_recv_many(5) == ([FULL] if sends else [])
        tx.send_blocking(b"works", timeout=LONG)
        assert rx.recv_bytes_blocking(timeout=LONG) == b"works"
"""
    run_child(script, name, seconds=60)


def test_pitfall_22_a_handler_gives_the_interrupted_call_what_it_waits_for_or_closes_it(name):
    script = f"""
{BLOCKED_CALLS}
def rung(handler, call, tx, rx, sends):
    signal.signal(signal.SIGUSR1, lambda *_: handler())
    def ring():
        until_blocked(tx, senders=int(sends), receivers=int(not sends))
        os.kill(os.getpid(), signal.SIGUSR1)
    thread = Spawned(ring)
    try:
        return call(tx, rx)
    finally:
        thread.wait()
for sends, call in CALLS:
    tx, rx = channel(sends)
    if sends:
        rung(rx.try_recv_bytes, call, tx, rx, sends)
    else:
        rung(lambda: tx.try_send(b"message"), call, tx, rx, sends)
    assert tx.statistics()[4:6] == (0, 0)
    for close_own in (False, True):
        tx, rx = channel(sends)
        end = tx if sends == close_own else rx
        try:
            rung(end.close, call, tx, rx, sends)
        except EndpointClosed:
            assert close_own
        except (Disconnected, StopIteration):
            assert not close_own
        else:
            assert False
# It cannot borrow the endpoint that it has interrupted in the middle of a claim, and may use it once that is over.
tx, rx = channel(False)
seen = []
def claims():
    try:
        tx.try_claim(8)
    except BusyError:
        seen.append("busy")
signal.signal(signal.SIGUSR1, lambda *_: claims())
with tx.try_claim(8) as view:
    os.kill(os.getpid(), signal.SIGUSR1)
    view[:] = b"in place"
assert seen == ["busy"] and rx.try_recv_bytes() == b"in place"
"""
    run_child(script, name)


def test_pitfall_22_a_storm_of_signals_whose_handlers_claim_and_borrow(name):
    """A timer interrupts blocking traffic with a thread; its handler claims and borrows on the same endpoints."""
    script = f"""
{BLOCKED_CALLS}
tx, rx = channel(False)
back = AnyChannel(sys.argv[1])
extra, received = [], []
numbers = itertools.count(10**9)
def handler(*_):
    number = next(numbers)
    try:
        with tx.try_claim(8) as view:
            view[:] = number.to_bytes(8, "little")
        extra.append(number)
    except (ClaimFull, BusyError):
        pass
    try:
        with back.rx.try_recv() as view:
            received.append(int.from_bytes(view, "little"))
    except (Empty, BusyError):
        pass
    tx.statistics(), len(rx), repr(tx)
def echo():
    got = []
    for claim in rx:
        with claim as view:
            message = bytes(view)
        got.append(int.from_bytes(message, "little"))
        back.tx.send_blocking(message)
    back.tx.close()
    return got
signal.signal(signal.SIGALRM, handler)
thread = Spawned(echo)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
def take():
    try:
        received.extend(int.from_bytes(message, "little") for message in back.rx.try_recv_many(5))
    except BusyError:
        pass
rounds = {size(2000, 100_000)}
for number in range(rounds):
    while True:
        try:
            tx.send_blocking(number.to_bytes(8, "little"), timeout=0.01)
            break
        except SendTimeout:
            take()
    take()
signal.setitimer(signal.ITIMER_REAL, 0)
tx.close()
while True:
    try:
        received.append(int.from_bytes(back.rx.recv_bytes_blocking(LONG), "little"))
    except RecvError:
        break
got = thread.join()
assert [number for number in got if number < 10**9] == list(range(rounds))
assert sorted(number for number in got if number >= 10**9) == sorted(extra)
assert sorted(received) == sorted(got)
"""
    run_child(script, name, seconds=60)


# Ctrl-C during each await


@pytest.mark.parametrize("name", ALL)
def test_pitfall_21_ctrl_c_ends_a_loop_in_each_await(name):
    script = f"""
import asyncio, os, signal, sys, threading, time
from anychannel import AnyChannel
from support import until_async
sends = ["send", "send_many"]
receives = ["recv", "recv_many", "anext"]
if sys.argv[1].endswith("bytes"):
    sends += ["claim"]
    receives += ["recv_bytes", "recv_into"]
arguments = {{"recv_many": (2,), "recv_into": (bytearray(8),), "claim": (8,)}}
async def call(c, name):
    if name in ("send", "send_many"):
        await getattr(c.tx, name)(c.pack(1) if name == "send" else [c.pack(1)])
    elif name == "claim":
        async with c.tx.claim(8):
            raise AssertionError
    elif name == "anext":
        async for _ in c.rx:
            raise AssertionError
    else:
        await getattr(c.rx, name)(*arguments.get(name, ()))
async def main(c, name):
    waiting = asyncio.create_task(call(c, name))
    await until_async(lambda: sum(c.rx.statistics()[4:6]) == 1)
    pressed.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
    await waiting
for name in sends + receives:
    c = AnyChannel(sys.argv[1], 1)
    sent = c.fill() if name in sends else 0
    pressed = []
    try:
        asyncio.run(main(c, name))
    except KeyboardInterrupt:
        assert time.monotonic() - pressed[0] < 0.5 * {SLOWNESS}
    else:
        raise SystemExit("not interrupted")
    assert c.rx.statistics()[4:6] == (0, 0), name
    assert c.drain() == list(range(sent))
    c.try_send(1)
    assert c.drain() == [1]
"""
    run_child(script, name, seconds=30)


# faulthandler


# The handler of CPython 3.12 and later may crash when it walks the frames of threads that run, in any program, with
# this library or without. faulthandler.dump_traceback(), which is called with the GIL, does not.
WALKS_ALL_FROM_A_HANDLER = not FREE_THREADED and sys.version_info < (3, 12)


@pytest.mark.parametrize("name", ALL)
def test_faulthandler_looks_at_threads_and_tasks_in_the_middle_of_everything(name):
    """It walks the frames of all threads from a signal handler and from a thread without the GIL, a thousand times."""
    script = f"""
import asyncio, faulthandler, os, signal, sys, threading, time
from anychannel import AnyChannel
from support import Spawned
nowhere = open(os.devnull, "w")
faulthandler.register(signal.SIGUSR1, file=nowhere, all_threads={WALKS_ALL_FROM_A_HANDLER})
c = AnyChannel(sys.argv[1], 2)
count = {size(2000, 200_000)}
async def consume():
    got = []
    async for item in c.rx:
        got.append(c.unpack(item))
    return got
async def both():
    async def produce():
        for number in range(count):
            await c.sending(number)
        c.tx.close()
    producing = asyncio.create_task(produce())
    got = await consume()
    await producing
    return got
def feed():
    for number in range(count):
        c.send_blocking(number)
    c.tx.close()
stop = threading.Event()
def storm():
    while not stop.is_set():
        faulthandler.dump_traceback(nowhere, all_threads={not FREE_THREADED})
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.001)
threads = [Spawned(storm)] + ([Spawned(feed)] if c.blocks else [])
got = asyncio.run(consume() if c.blocks else both())
stop.set()
for thread in threads:
    thread.join()
assert got == list(range(count))
"""
    run_child(script, name, seconds=60)


# Code in the middle of calls


def use_everything(tx, rx):
    """Each kind of call, whatever comes of it."""
    for call in (
        lambda: tx.try_send(b"inside"),
        lambda: tx.try_claim(8).commit(),
        lambda: tx.try_claim(8).abort(),
        lambda: tx.try_send_many([b"1", b"2"]),
        lambda: rx.try_recv().release(),
        rx.try_recv_bytes,
        lambda: rx.try_recv_into(bytearray(64)),
        lambda: rx.try_recv_many(2),
        lambda: (tx.statistics(), rx.used, repr(tx), rx._dump()),
        lambda: drive(tx.send(b"awaited", timeout=0)),
        lambda: drive(rx.recv_bytes(timeout=0)),
    ):
        with contextlib.suppress(ChannelError):
            call()


def traffic(tx, rx, rounds):
    """Messages by every way; other code may have claimed, borrowed and taken in between."""
    for number in range(rounds):
        with contextlib.suppress(Full, Empty, BusyError):
            with tx.try_claim(8) as view:
                view[:] = number.to_bytes(8, "little")
            with rx.try_recv() as view:
                bytes(view)
        with contextlib.suppress(Full, Empty, BusyError, ClaimReleased):
            tx.try_send(bytearray(5))
            rx.try_recv_into(bytearray(64))
            drive(tx.send_many([b"a", b"b"]))
            rx.try_recv_many(9)


def settled(tx, rx):
    with contextlib.suppress(Empty):
        while True:
            rx.try_recv_bytes()
    assert rx.used == 0
    tx.try_send(b"works")
    assert rx.try_recv_bytes() == b"works"
    stats = rx.statistics()
    assert (stats.waiting_senders, stats.waiting_receivers, stats.sent) == (0, 0, stats.received)


class Once:
    """Calls a function unless it is already doing so, and counts."""

    def __init__(self, function, *args):
        self.function, self.args = function, args
        self.busy, self.runs = False, 0

    def __call__(self, *_):
        if not self.busy:
            self.busy = True
            self.function(*self.args)
            self.runs += 1
            self.busy = False
        return self


def test_pitfall_22_a_collection_in_the_middle_of_any_call_uses_the_channel_of_bytes(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    callback = Once(use_everything, tx, rx)
    threshold = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(size(200, 20_000)):
            traffic(tx, rx, 1)
            cycle = []
            cycle.append(cycle)
            if number % 20 == 0:  # without a GIL it is too seldom time for one
                gc.collect()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    assert callback.runs > 10
    settled(tx, rx)


MESSAGES = [b"a" * 8, b"b" * 40, b"c" * 16, b"d" * 24]
ALLOCATING = {  # calls that make a claim or a list, and so may begin a collection
    "try_recv": lambda tx, rx, steps: rx.try_recv(),
    "recv": lambda tx, rx, steps: drive(steps),
    "async for": lambda tx, rx, steps: first_of(aiter(rx)),
    "try_recv_many": lambda tx, rx, steps: rx.try_recv_many(3),
    "try_claim": lambda tx, rx, steps: tx.try_claim(24),
    "claim": lambda tx, rx, steps: drive(tx.claim(24)),
}
MEANWHILE = {  # what is done in the middle of one
    "receives one": lambda tx, rx, steps: rx.try_recv_bytes(),
    "receives all": lambda tx, rx, steps: rx.try_recv_many(9),
    "borrows": lambda tx, rx, steps: rx.try_recv(),
    "claims": lambda tx, rx, steps: tx.try_claim(40),
    "sends": lambda tx, rx, steps: tx.try_send(MESSAGES[3]),
    "closes the receiver": lambda tx, rx, steps: rx.close(),
    "closes the sender": lambda tx, rx, steps: tx.close(),
    "steps the same": lambda tx, rx, steps: drive(steps),
}


def first_of(iterator):
    """The bytes of the first claim of an iteration, which is over then."""
    return bytes(drive(anext(iterator)))


def contents(result):
    """The messages that a call got, which is then over."""
    if hasattr(result, "abort"):
        result.abort()
    elif hasattr(result, "release"):
        with result as view:
            return [bytes(view)]
    return [result] if isinstance(result, bytes) else result if isinstance(result, list) else []


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 collections begin between bytecodes only")
@pytest.mark.parametrize("outer", ALLOCATING)
@pytest.mark.parametrize("inner", MEANWHILE)
def test_pitfall_22_a_collection_that_a_claim_or_a_list_begins_uses_the_endpoint(bytes_variant, outer, inner):
    tx, rx = bytes_variant.channel(256)
    others = [bytes_variant.channel(64) for _ in range(64)]
    kept = [other.sender.try_claim(8) for other in others], [[] for _ in range(100)]  # else spares would be used
    assert tx.try_send_many(MESSAGES[:3]) == 3
    steps, got, refused = rx.recv(), [], []

    def call(which):
        try:
            got.append(which(tx, rx, steps))
        except (ChannelError, BusyError, RuntimeError) as error:
            refused.append(repr(error))  # not itself: its traceback holds an iterator, and so a claim

    callback = Once(call, MEANWHILE[inner])
    threshold = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1, 1, 1)
    try:
        call(ALLOCATING[outer])
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    assert kept and callback.runs > 0
    received = [message for result in got for message in contents(result)]
    with contextlib.suppress(ChannelError):
        received += rx.try_recv_many(100)
    if inner == "closes the receiver":
        assert received in ([], MESSAGES[:1], MESSAGES[:3])
    else:
        assert sorted(received) == MESSAGES[:3] + [MESSAGES[3]] * received.count(MESSAGES[3])
        assert rx.statistics().sent == rx.statistics().received
    assert tx.used == 0


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_pitfall_22_a_tracer_uses_the_channel_of_bytes_around_every_call(bytes_variant, hook):
    tx, rx = bytes_variant.channel(256)
    tracer = Once(use_everything, tx, rx)
    before = sys.gettrace(), sys.getprofile()
    getattr(sys, hook)(tracer)
    try:
        traffic(tx, rx, 100)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert tracer.runs > 100
    settled(tx, rx)


class Source(bytearray):
    """A buffer that uses the channel when it is freed."""

    def __del__(self):
        use_everything(*self.ends)
        self.log.append(True)


def test_pitfall_22_a_finaliser_of_a_buffer_that_was_sent_uses_the_channel(bytes_variant, step_loop):
    ends = tx, rx = bytes_variant.channel(64)
    log = []

    def source(data=b"12345678"):
        made = Source(data)
        made.ends, made.log = ends, log
        return made

    tx.try_send(source())
    assert log == [True]
    rx.try_recv_many(9)
    drive(tx.send(source()))
    tx.try_send_many([b"f" * 40, source()])
    rx.try_recv_many(9)
    with contextlib.suppress(Full):
        tx.try_send(source(bytes(56)))
        tx.try_send(source(bytes(56)))
    task = step_loop.create_task(tx.send(source(bytes(56))))
    step_loop.run_ready()
    task.cancel()
    step_loop.run_ready()
    del task
    gc.collect()
    assert len(log) == 6
    settled(tx, rx)
