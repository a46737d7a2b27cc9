"""Notifiers of the ends of channels between processes: a descriptor that any loop can wait on, though what others ring
comes by descriptors of the channel. One behaviour a test; both ends are in one process where that is enough.
"""

import contextlib
import os
import selectors

import pytest
from harness import size, takes_long
from processes import PAGE, descriptors, fill, needs_lanes, run_script, shared
from support import Spawned, collect, readable, until, until_blocked

from nexus_channels import BusyError, Empty, EndpointClosed, Full, RecvError, SendError, attach, mpsc_bytes

pytestmark = needs_lanes

SELECTING = """
import selectors, struct

def readable(notifier, seconds=0):
    with selectors.DefaultSelector() as selector:
        selector.register(notifier, selectors.EVENT_READ)
        return bool(selector.select(seconds))
"""


@pytest.fixture(params=["spsc_bytes", "mpsc_bytes"])
def module(request):
    return request.param


# ---- one notifier ---------------------------------------------------------------------------------------------------


def test_a_receiver_becomes_readable_when_there_is_something(bytes_variant):
    tx, rx = shared(bytes_variant)
    with rx.notifier() as notifier:
        assert not readable(notifier)
        notifier.arm()
        assert not readable(notifier)
        for _ in range(3):
            tx.try_send(b"x")
            assert readable(notifier)
            notifier.clear()
            assert not readable(notifier)
            assert rx.try_recv_bytes() == b"x"
            notifier.arm()
            assert not readable(notifier)


def test_a_receiver_that_has_something_is_readable_once_it_is_armed(bytes_variant):
    tx, rx = shared(bytes_variant)
    notifier = rx.notifier()
    for _ in range(3):
        tx.try_send(b"x")
        assert not readable(notifier)
    notifier.arm()
    assert readable(notifier)
    notifier.clear()
    assert not readable(notifier)
    rx.try_recv().release()
    notifier.arm()  # there are more
    assert readable(notifier)


def test_one_that_is_not_armed_says_nothing_whatever_is_rung(bytes_variant):
    tx, rx = shared(bytes_variant)
    of_rx, of_tx = rx.notifier(), tx.notifier()
    waits = Spawned(rx.recv_bytes_blocking)
    until_blocked(rx, receivers=1)
    tx.try_send(b"x")  # rings
    waits.join()
    fill(tx, 504)
    waits = Spawned(tx.send_blocking, b"y")
    until_blocked(tx, senders=1)
    rx.try_recv().release()
    waits.join()
    assert not readable(of_rx) and not readable(of_tx)
    rx.close()
    tx.close()
    assert not readable(of_rx) and not readable(of_tx)


def test_a_sender_becomes_readable_when_there_is_the_room_that_it_needs(bytes_variant):
    tx, rx = shared(bytes_variant)
    with tx.notifier() as notifier:
        notifier.arm()
        assert readable(notifier)
        notifier.clear()
        fill(tx, 504)
        notifier.arm()
        assert not readable(notifier)
        rx.try_recv().release()
        assert readable(notifier)
        notifier.clear()
        with pytest.raises(Full):
            tx.try_send(bytes(1000))
        notifier.arm()  # the room that there is will not do
        assert not readable(notifier)
        rx.try_recv().release()
        assert readable(notifier)
        notifier.clear()
        tx.try_send(bytes(1000))


@pytest.mark.parametrize("left", [0, 2])
def test_the_end_of_the_other_side_signals_and_then_is_quiet(bytes_variant, left):
    tx, rx = shared(bytes_variant)
    notifier = rx.notifier()
    notifier.arm()
    for _ in range(left):
        tx.try_send(b"x")
    tx.close()
    for _ in range(left):
        assert readable(notifier)
        notifier.clear()
        rx.try_recv().release()
        notifier.arm()
    for _ in range(3):
        assert readable(notifier)
        notifier.clear()
        assert not readable(notifier)
        with pytest.raises(RecvError):
            rx.try_recv()
        assert not readable(notifier)
        notifier.arm()
    tx, rx = shared(bytes_variant)
    fill(tx, 504)
    notifier = tx.notifier()
    notifier.arm()
    rx.close()
    for _ in range(3):
        assert readable(notifier)
        notifier.clear()
        assert not readable(notifier)
        with pytest.raises(SendError):
            tx.try_send(b"x")
        assert not readable(notifier)
        notifier.arm()


@pytest.mark.parametrize("look", ["try_recv", "is_disconnected", "statistics", "another notifier", "a thread"])
def test_whoever_hears_the_end_first_signals_the_notifier(bytes_variant, look):
    tx, rx = shared(bytes_variant)
    notifier, other = rx.notifier(), rx.notifier()
    notifier.arm()
    tx.close()
    if look == "try_recv":
        with pytest.raises(RecvError):
            rx.try_recv()
    elif look == "another notifier":
        other.arm()
        assert readable(other)
    elif look == "a thread":
        with pytest.raises(RecvError):
            Spawned(rx.recv_blocking).join()
    elif look == "statistics":
        rx.statistics()
    else:
        assert rx.is_disconnected
    assert readable(notifier)
    notifier.clear()
    assert not readable(notifier)


def test_whoever_takes_the_message_leaves_it_quiet_until_the_next(bytes_variant):
    tx, rx = shared(bytes_variant)
    notifier = rx.notifier()
    for _ in range(3):
        waits = Spawned(rx.recv_bytes_blocking, timeout=20)
        until_blocked(rx, receivers=1)
        notifier.arm()
        tx.try_send(b"for the thread, which has stood in line before")
        waits.join()
        notifier.clear()
        notifier.arm()
        assert not readable(notifier)
        tx.try_send(b"x")
        assert readable(notifier)
        notifier.clear()
        rx.try_recv().release()


def test_closing_the_endpoint_signals_and_dropping_it_does(bytes_variant):
    for side in (0, 1):
        ends = list(shared(bytes_variant))
        fill(ends[0], 504)
        if side:
            with contextlib.suppress(Empty):
                while True:
                    ends[1].try_recv().release()
        notifier = ends[side].notifier()
        notifier.arm()
        assert not readable(notifier)
        if side:
            ends[side].close()
            with pytest.raises(EndpointClosed):
                ends[side].notifier()
        else:
            del ends[side]
        for _ in range(2):
            assert readable(notifier)
            notifier.clear()
            assert not readable(notifier)
            notifier.arm()


def test_a_sender_that_comes_and_says_nothing_is_no_reason_to_stay_awake():
    tx, rx = shared(mpsc_bytes)
    notifier = rx.notifier()
    notifier.arm()
    others = [attach(tx.clone().share()) for _ in range(3)]
    notifier.arm()  # hears that they have come
    assert not readable(notifier)
    for other in others:
        other.close()
    notifier.clear()
    with pytest.raises(Empty):
        rx.try_recv()
    notifier.arm()
    assert not readable(notifier)
    tx.try_send(b"x")
    assert readable(notifier)


def test_an_observer_that_needs_much_does_not_keep_a_waiter_behind_it_asleep(bytes_variant):
    """The other process rings when there is the room that the least of them needs."""
    tx, rx = shared(bytes_variant)
    fill(tx, 504)
    notifier = tx.notifier()
    with pytest.raises(Full):
        tx.try_send(bytes(3000))
    notifier.arm()
    waits = Spawned(tx.send_blocking, bytes(100), timeout=20)
    until_blocked(tx, senders=1)
    rx.try_recv().release()
    waits.join()
    notifier.clear()


def test_arm_refuses_while_a_claim_is_open(bytes_variant):
    tx, _rx = shared(bytes_variant)
    notifier = tx.notifier()
    claim = tx.try_claim(8)
    with pytest.raises(BusyError):
        notifier.arm()
    assert not readable(notifier)
    claim.abort()
    notifier.arm()
    assert readable(notifier)


def test_a_look_that_leaves_the_message_where_it_is_leaves_the_notifier_readable(bytes_variant):
    """It takes in the lane of a new sender, which is what the notifier had become readable for."""
    tx, rx = shared(bytes_variant)
    tx.try_send(b"so that the lane is taken in")
    rx.try_recv().release()
    with rx.notifier() as notifier:
        notifier.arm()
        other = attach(tx.share())
        other.try_send(b"a message")
        with pytest.raises(ValueError, match="the message stays"):
            rx.try_recv_into(bytearray(1))
        assert readable(notifier)
        notifier.clear()
        assert rx.try_recv_bytes() == b"a message"
    other.close()


def test_descriptors_are_given_back_and_strangers_noticed(bytes_variant):
    tx, rx = shared(bytes_variant)
    tx.try_send(b"so that the lane is taken in")
    rx.try_recv().release()
    collect()
    before = descriptors()
    for endpoint in (tx, rx):
        for armed in (False, True):
            notifier = endpoint.notifier()
            if armed:
                notifier.arm()
            notifier.close()
            assert descriptors() == before
    for number in range(2):
        notifier = rx.notifier()
        os.close(notifier.fileno())
        held = [os.dup(0)] if number else []  # it has the number now
        with pytest.raises(OSError, match="closed by somebody else"):
            notifier.arm()
        notifier.close()
        for fd in held:
            os.close(fd)
        assert descriptors() == before
    with rx.notifier() as notifier:
        notifier.arm()
        tx.try_send(b"x")
        assert readable(notifier)


def test_who_comes_by_the_path_is_let_in_by_who_looks_at_the_notifier(bytes_variant, tmp_path):
    with bytes_variant.listen(tmp_path / "path", PAGE) as listener, listener.receiver.notifier() as notifier:
        notifier.arm()
        assert not readable(notifier)
        connects = Spawned(bytes_variant.connect, tmp_path / "path")
        until(lambda: readable(notifier))
        notifier.clear()
        with pytest.raises(Empty):
            listener.receiver.try_recv()
        tx = connects.join()
        notifier.arm()
        assert not readable(notifier)
        tx.try_send(b"x")
        assert readable(notifier)
        notifier.clear()
        assert listener.receiver.try_recv_bytes() == b"x"


# ---- other processes -----------------------------------------------------------------------------------------------


@takes_long()
def test_a_selector_receives_all_that_processes_send(module):
    count, senders = size(3000, 200_000), 1 if module == "spsc_bytes" else 3
    run_script(
        SELECTING
        + f"""
tx, rx = {module}.channel(4096, shared=True)
ends = [tx.clone() for _ in range({senders})] if {senders} > 1 else [tx]
there = [start(send_numbered, end.share(), who, {count}) for who, end in enumerate(ends)]
tx.close()
due, woken = [0] * {senders}, 0
with selectors.DefaultSelector() as selector, rx.notifier() as notifier:
    selector.register(notifier, selectors.EVENT_READ)
    open = True
    while open:
        notifier.arm()
        assert selector.select(20 * SLOWNESS)
        notifier.clear()
        woken += 1
        try:
            while True:
                for record in rx.try_recv_many(100):
                    who, n = RECORD.unpack(record)
                    assert n == due[who]
                    due[who] += 1
        except Empty:
            pass
        except RecvError as error:
            open = False
            assert not error.crashed
assert due == [{count}] * {senders}
assert woken < 10 * sum(due)
join(*there)
""",
        seconds=size(60, 600),
    )


@takes_long()
def test_a_selector_sends_all_that_a_process_receives(module):
    count = size(3000, 200_000)
    run_script(
        SELECTING
        + f"""
tx, rx = {module}.channel(4096, shared=True)
there = start(recv_all, rx.share(), {count}, "thread")
n = 0
with selectors.DefaultSelector() as selector, tx.notifier() as notifier:
    selector.register(notifier, selectors.EVENT_READ)
    while n < {count}:
        notifier.arm()
        assert selector.select(20 * SLOWNESS)
        notifier.clear()
        try:
            while n < {count}:
                tx.try_send(message(n))
                n += 1
        except Full:
            pass
tx.close()
join(there)
""",
        seconds=size(60, 600),
    )


@pytest.mark.parametrize("side", ["tx", "rx"])
def test_the_death_of_the_other_process_signals(module, side):
    run_script(
        SELECTING
        + f"""
tx, rx = {module}.channel(4096, shared=True)
ready = multiprocessing.get_context("spawn").Event()
mine, other = (tx, rx) if {side!r} == "tx" else (rx, tx)
there = start(hold, other.share(), ready)
assert ready.wait(20 * SLOWNESS)
if mine is tx:
    try:
        while True:
            tx.try_send(bytes(500))
    except Full:
        pass
else:
    try:
        rx.try_recv()  # sees that the lane which tx had here has ended
    except Empty:
        pass
notifier = mine.notifier()
notifier.arm()
assert not readable(notifier)
killed(there)
for _ in range(3):
    assert readable(notifier, 20 * SLOWNESS)
    notifier.clear()
    assert not readable(notifier)
    try:
        mine.try_send(b"x") if mine is tx else mine.try_recv()
        raise AssertionError
    except (SendError, RecvError) as error:
        assert error.crashed
    notifier.arm()
"""
    )


def test_a_forked_child_leaves_the_notifier_of_its_parent_alone(module):
    run_script(
        SELECTING
        + f"""
tx, rx = {module}.channel(4096, shared=True)
notifier = rx.notifier()
notifier.arm()

def child():
    for call in (notifier.arm, notifier.clear, notifier.fileno):
        try:
            call()
            raise AssertionError
        except RuntimeError:
            pass
    notifier.close()
    rx.close()

fork(child)
assert not readable(notifier)
tx.try_send(b"x")
assert readable(notifier)
notifier.clear()
assert not readable(notifier)
assert rx.try_recv_bytes() == b"x"
"""
    )


def test_a_sender_for_which_no_descriptor_is_left_is_told_and_keeps_no_loop_awake():
    run_script(
        SELECTING
        + """
import contextlib, resource
from nexus_channels import *
tx, rx = mpsc_bytes.channel(4096, shared=True)
notifier = rx.notifier()
notifier.arm()
other = attach(tx.clone().share())
limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, limits[1]))
with contextlib.suppress(OSError):
    while True:
        held.append(os.dup(0))
poll = __import__("select").poll()
readable = lambda: bool(poll.poll(0))
for fd in held[-1:]:
    poll.register(notifier, 1)
for _ in range(3):
    notifier.arm()
    assert readable()
    notifier.clear()
    assert not readable()
    try:
        rx.try_recv()
        raise AssertionError
    except OSError:
        pass
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
for fd in held:
    os.close(fd)
other.try_send(b"x")
notifier.arm()
assert readable()
notifier.clear()
assert rx.try_recv_bytes() == b"x"
notifier.arm()
assert not readable()
"""
    )


def test_several_selectors_and_a_thread_share_one_receiver(module):
    """Nobody is kept awake, and each message comes once."""
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    count, got = size(2000, 100_000), []

    def selects():
        with selectors.DefaultSelector() as selector, rx.notifier() as notifier:
            selector.register(notifier, selectors.EVENT_READ)
            while True:
                notifier.arm()
                selector.select()
                notifier.clear()
                with contextlib.suppress(Empty):
                    got.extend(rx.try_recv_many(5))

    def loops():
        while True:
            got.append(rx.recv_bytes_blocking())

    threads = [Spawned(selects), Spawned(selects), Spawned(loops)]
    for n in range(count):
        tx.send_blocking(b"%d" % n)
    tx.close()
    for thread in threads:
        with pytest.raises(RecvError):
            thread.join()
    assert sorted(map(int, got)) == list(range(count))
