"""Notifiers: an endpoint as a descriptor, for event loops of any kind."""

import contextlib
import copy
import errno
import gc
import itertools
import os
import pickle
import resource
import select
import selectors
import sys
import threading
import weakref

import native_driver
import pytest
from anychannel import ALL, BYTES, THREADED, AnyChannel
from harness import FREE_THREADED, WAKE, run_child, size, takes_long
from steploop import StepLoop
from support import Spawned, collect, readable, until, until_blocked

import nexus_channels
from nexus_channels import (
    BusyError,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    SendError,
    WrongThreadError,
    mpsc,
    mpsc_bytes,
    spsc,
    spsc_bytes,
)

every_channel = pytest.mark.parametrize("name", ALL)
every_threaded = pytest.mark.parametrize("name", THREADED)

WITHOUT = WAKE == "call_soon_threadsafe"  # NEXUS_CHANNELS_PORTABLE=1, and Windows
needs_descriptors = pytest.mark.skipif(WITHOUT, reason="there is no notifier where there is no descriptor to wait on")


@pytest.mark.skipif(not WITHOUT, reason="there are descriptors here, and so notifiers")
@every_channel
def test_without_descriptors_to_wait_on_notifier_says_so(name):
    channel = AnyChannel(name)
    for endpoint in (channel.tx, channel.rx):
        with pytest.raises(OSError, match="needs an eventfd or a pipe") as failed:
            endpoint.notifier()
        assert failed.value.errno == errno.ENOTSUP
    channel.try_send(1)
    assert channel.try_recv() == 1


def signals(notifier):
    """How often it was written to since it was cleared; clears it, too."""
    written = os.read(notifier.fileno(), 4096)
    return int.from_bytes(written, sys.byteorder) if WAKE == "eventfd" else len(written) // 8


def open_descriptors():
    return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()


# ---- one notifier ---------------------------------------------------------------------------------------------------


@needs_descriptors
@every_channel
def test_a_receiver_becomes_readable_when_there_is_something(name):
    channel = AnyChannel(name, 2)
    notifier = channel.rx.notifier()
    channel.try_send(1)
    assert not readable(notifier)  # not armed
    notifier.arm()
    assert readable(notifier)  # it could go already
    notifier.clear()
    assert not readable(notifier)
    assert channel.try_recv() == 1
    notifier.arm()
    assert not readable(notifier)
    channel.try_send(2)
    assert readable(notifier)
    channel.try_recv()
    assert readable(notifier)  # until it is cleared
    notifier.clear()
    assert not readable(notifier)
    channel.try_send(3)
    assert not readable(notifier)  # it was not armed again


@needs_descriptors
@every_channel
def test_a_sender_becomes_readable_when_there_is_room(name):
    channel = AnyChannel(name, 4)
    notifier = channel.tx.notifier()
    notifier.arm()
    assert readable(notifier)
    notifier.clear()
    channel.fill()
    notifier.arm()
    assert not readable(notifier)
    channel.try_recv()
    assert readable(notifier)


@needs_descriptors
@every_channel
def test_the_end_of_the_other_side_makes_both_readable(name):
    channel = AnyChannel(name, 4)
    ours, theirs = channel.rx.notifier(), channel.tx.notifier()
    ours.arm()
    channel.tx.close()
    assert readable(ours)
    ours.clear()
    with pytest.raises(RecvError):
        channel.try_recv()
    ours.arm()
    assert readable(ours)  # for good
    channel = AnyChannel(name, 4)
    theirs = channel.tx.notifier()
    channel.fill()
    theirs.arm()
    channel.rx.close()
    assert readable(theirs)
    theirs.clear()
    with pytest.raises(SendError):
        channel.try_send(1)
    theirs.arm()
    assert readable(theirs)


@needs_descriptors
@every_channel
def test_closing_the_endpoint_itself_makes_it_readable(name):
    channel = AnyChannel(name, 4)
    channel.fill()
    for endpoint, call in ((channel.tx, channel.try_send), (channel.rx, lambda _: channel.try_recv())):
        notifier = endpoint.notifier()
        if endpoint is channel.rx:
            notifier.arm()
            notifier.clear()
            channel.drain()
        notifier.arm()
        if endpoint is channel.tx:
            assert not readable(notifier)
        endpoint.close()
        assert readable(notifier)
        notifier.clear()
        with pytest.raises(EndpointClosed):
            call(1)
        notifier.arm()
        assert readable(notifier)
        with pytest.raises(EndpointClosed):
            endpoint.notifier()


@needs_descriptors
@every_channel
def test_an_armed_notifier_stays_armed_and_a_readable_one_readable(name):
    channel = AnyChannel(name, 4)
    notifier = channel.rx.notifier()
    for _ in range(3):
        notifier.arm()
    channel.try_send(1)
    channel.try_send(2)
    notifier.arm()
    assert readable(notifier)
    notifier.clear()
    notifier.clear()
    assert not readable(notifier)


@needs_descriptors
@every_channel
def test_a_burst_is_one_write(name):
    channel = AnyChannel(name, 8)
    notifier = channel.rx.notifier()
    notifier.arm()
    channel.fill()
    assert signals(notifier) == 1
    notifier.clear()
    channel.drain()
    room = channel.tx.notifier()
    channel.fill()
    room.arm()
    while channel.rx.statistics().buffered:
        channel.try_recv()
    assert signals(room) == 1


@needs_descriptors
@every_channel
def test_each_notifier_of_an_endpoint_is_told(name):
    channel = AnyChannel(name, 4)
    notifiers = [channel.rx.notifier() for _ in range(3)]
    assert len({notifier.fileno() for notifier in notifiers}) == 3
    for notifier in notifiers[:2]:
        notifier.arm()
    channel.try_send(1)
    assert [readable(notifier) for notifier in notifiers] == [True, True, False]
    notifiers[0].close()
    notifiers[1].clear()
    channel.try_recv()
    notifiers[1].arm()
    notifiers[2].arm()
    channel.try_send(1)
    assert [readable(notifier) for notifier in notifiers[1:]] == [True, True]


@needs_descriptors
def test_repr_tells_what_state_it_is_in():
    tx, rx = spsc.channel(1)
    notifier, room = rx.notifier(), tx.notifier()
    assert repr(notifier).startswith("<nexus_channels.Notifier of a receiver, not armed, at 0x")
    assert "of a sender" in repr(room)
    notifier.arm()
    assert ", armed," in repr(notifier)
    tx.try_send(1)
    assert ", signalled," in repr(notifier)
    notifier.close()
    assert ", closed," in repr(notifier)
    assert type(notifier) is nexus_channels.Notifier


# ---- room for messages of any size ----------------------------------------------------------------------------------


@needs_descriptors
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_a_sender_that_was_refused_waits_for_the_room_that_it_needs(module):
    tx, rx = module.channel(256)
    notifier = tx.notifier()
    for _ in range(16):
        tx.try_send(b"12345678")
    with pytest.raises(Full):
        tx.try_send(b"x" * 100)
    notifier.arm()
    for freed in range(1, 7):
        rx.try_recv_bytes()
        assert readable(notifier) == (freed * 16 >= 112), freed
    rx.try_recv_bytes()
    assert readable(notifier)
    notifier.clear()
    tx.try_send(b"x" * 100)
    notifier.arm()  # nothing was refused since: any room will do
    notifier.clear()
    with pytest.raises(Full):
        tx.try_claim(200)
    notifier.arm()
    assert not readable(notifier)
    while tx.used > 256 - 208:
        assert not readable(notifier)
        rx.try_recv_bytes()
    assert readable(notifier)
    notifier.clear()
    tx.try_claim(200).abort()


@needs_descriptors
def test_a_batch_that_was_refused_waits_for_its_next_message():
    tx, rx = spsc_bytes.channel(128)
    notifier = tx.notifier()
    assert tx.try_send_many([b"a" * 56, b"b" * 24, b"c" * 56]) == 2
    notifier.arm()
    assert not readable(notifier)
    assert rx.try_recv_bytes() == b"a" * 56
    assert readable(notifier)
    notifier.clear()
    assert tx.try_send_many([b"c" * 56]) == 1


@needs_descriptors
def test_a_refusal_while_it_is_armed_counts_from_the_next_arm_on():
    tx, rx = spsc_bytes.channel(128)
    notifier = tx.notifier()
    assert tx.try_send_many([b"12345678"] * 9) == 8
    notifier.arm()
    with pytest.raises(Full):
        tx.try_send(b"x" * 40)
    notifier.arm()
    for _ in range(2):
        rx.try_recv_bytes()
        assert not readable(notifier)
    rx.try_recv_bytes()
    assert readable(notifier)


@needs_descriptors
def test_what_was_refused_before_the_last_arm_is_forgotten():
    tx, rx = spsc_bytes.channel(128)
    tx.try_send_many([b"12345678"] * 8)
    with pytest.raises(Full):
        tx.try_send(b"x" * 100)
    notifier = tx.notifier()
    notifier.arm()
    rx.try_recv_many(8)
    notifier.clear()
    tx.try_send_many([b"12345678"] * 5)
    notifier.arm()
    assert readable(notifier)


@needs_descriptors
def test_a_send_that_waited_and_went_through_was_not_refused():
    tx, rx = spsc_bytes.channel(128)
    tx.try_send_many([b"12345678"] * 8)
    thread = Spawned(tx.send_blocking, b"x" * 100)
    until_blocked(rx, senders=1)
    rx.try_recv_many(8)
    thread.join()
    notifier = tx.notifier()
    notifier.arm()
    assert readable(notifier)  # for the smallest: 16 of 128 bytes are free


@needs_descriptors
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_one_that_needs_much_room_does_not_hold_up_those_behind_it(module):
    tx, rx = module.channel(128)
    other = tx.clone() if module is mpsc_bytes else tx
    notifier = tx.notifier()
    tx.try_send_many([b"12345678"] * 8)
    with pytest.raises(Full):
        tx.try_send(b"x" * 100)
    notifier.arm()
    waiting = Spawned(other.send_blocking, b"small")
    until_blocked(rx, senders=1)
    rx.try_recv_bytes()
    waiting.join()
    assert not readable(notifier)
    rx.try_recv_many(100)
    assert readable(notifier)


# ---- nothing is kept for it -----------------------------------------------------------------------------------------


@needs_descriptors
@every_channel
def test_one_that_is_not_looked_at_holds_up_no_try_call(name):
    channel = AnyChannel(name, 1)
    notifier, room = channel.rx.notifier(), channel.tx.notifier()
    for number in range(5):
        notifier.arm()
        room.arm()
        for item in range(channel.fill(number), number, -1):
            assert channel.try_recv() == number + channel.room - (item - number)
        with pytest.raises(Empty):
            channel.try_recv()
        assert readable(notifier)
        assert readable(room)
    assert channel.tx.statistics()[4:6] == (0, 0)


@needs_descriptors
@every_channel
def test_one_that_is_not_looked_at_holds_up_no_task(name):
    loop = StepLoop()
    channel = AnyChannel(name, 1)
    notifier = channel.rx.notifier()
    notifier.arm()
    tasks = [loop.create_task(channel.recv()) for _ in range(3)]
    loop.run_ready()
    for number in range(3):
        channel.try_send(number)
        assert readable(notifier)
        loop.run_ready()
        assert [task.done() for task in tasks] == [index <= number for index in range(3)]
        assert tasks[number].result() == number
    room = channel.tx.notifier()
    channel.fill()
    room.arm()
    sends = [loop.create_task(channel.sending(number)) for number in range(3)]
    loop.run_ready()
    for number in range(3):
        channel.try_recv()
        assert readable(room)
        loop.run_ready()
        assert [task.done() for task in sends] == [index <= number for index in range(3)]


@needs_descriptors
@every_channel
def test_what_is_owed_to_those_who_wait_does_not_make_it_readable(name):
    loop = StepLoop()
    channel = AnyChannel(name, 4)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    notifier = channel.rx.notifier()
    notifier.arm()
    channel.try_send(1)
    assert not readable(notifier)
    loop.run_ready()
    assert task.result() == 1
    assert not readable(notifier)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    channel.try_send(2)
    assert readable(notifier)  # it is the first in line now, and the task is called all the same
    loop.run_ready()
    assert task.result() == 2
    notifier.clear()
    task = loop.create_task(channel.recv())
    loop.run_ready()
    notifier.arm()
    channel.try_send(3)
    assert not readable(notifier)
    task.cancel()
    loop.run_ready()
    assert readable(notifier)  # the cancelled task handed its turn on
    assert channel.try_recv() == 3


@needs_descriptors
def test_a_task_of_a_closed_loop_ahead_of_it_is_no_hindrance():
    loop = StepLoop()
    tx, rx = mpsc.channel(4)
    task = loop.create_task(rx.recv())
    loop.run_ready()
    tx.try_send(1)  # owed to the task
    loop.close()
    notifier = rx.notifier()
    notifier.arm()
    assert readable(notifier)
    assert rx.try_recv() == 1
    del task
    loop.errors.clear()


# ---- what it holds --------------------------------------------------------------------------------------------------


@needs_descriptors
@every_channel
def test_it_does_not_keep_its_endpoint_open(name):
    channel = AnyChannel(name, 4)
    notifier = channel.rx.notifier()
    notifier.arm()
    gone = weakref.ref(channel.rx)
    channel.rx = None
    collect()
    assert gone() is None
    assert channel.tx.is_disconnected
    assert readable(notifier)
    notifier.clear()
    assert not readable(notifier)
    notifier.arm()
    assert readable(notifier)
    channel.tx = None
    notifier.clear()
    notifier.arm()


@needs_descriptors
@every_channel
def test_dropping_it_closes_its_descriptor_and_leaves_the_line(name):
    channel = AnyChannel(name, 4)
    before = open_descriptors()
    notifier = channel.rx.notifier()
    descriptor = notifier.fileno()
    notifier.arm()
    gone = weakref.ref(notifier)
    del notifier
    collect()
    assert gone() is None
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    channel.try_send(1)
    assert channel.try_recv() == 1
    assert open_descriptors() == before


@needs_descriptors
@every_channel
def test_a_closed_one_is_closed_as_a_file_is(name):
    channel = AnyChannel(name, 4)
    with channel.rx.notifier() as notifier:
        descriptor = notifier.fileno()
        notifier.arm()
        assert not notifier.is_closed
    assert notifier.is_closed
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    for call in (notifier.fileno, notifier.arm, notifier.clear):
        with pytest.raises(ValueError, match="this notifier is closed"):
            call()
    notifier.close()
    channel.try_send(1)
    assert channel.try_recv() == 1


@needs_descriptors
def test_a_cycle_through_the_channel_is_collected():
    tx, rx = spsc.channel(4)
    notifier = rx.notifier()
    gone = weakref.ref(notifier)
    cycle = [tx, rx, notifier]
    tx.try_send(cycle)
    notifier.arm()
    del tx, rx, notifier, cycle
    collect()
    assert gone() is None


@needs_descriptors
@every_channel
def test_it_can_be_neither_copied_nor_pickled_nor_made(name):
    notifier = AnyChannel(name).rx.notifier()
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"cannot copy or pickle .* notifier\(\) of the endpoint"):
            way(notifier)
    with pytest.raises(TypeError):
        nexus_channels.Notifier()


# ---- claims and native ends -----------------------------------------------------------------------------------------


@needs_descriptors
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_while_a_claim_is_open_it_cannot_be_armed(module):
    tx, rx = module.channel(128)
    notifier, room = rx.notifier(), tx.notifier()
    claim = tx.try_claim(8)
    with pytest.raises(BusyError, match="WriteClaim of 8 bytes"):
        room.arm()
    notifier.arm()
    assert not readable(notifier)
    claim.commit()
    assert readable(notifier)
    read = rx.try_recv()
    notifier.clear()
    with pytest.raises(BusyError, match="ReadClaim of 8 bytes"):
        notifier.arm()
    read.release()
    notifier.arm()
    assert not readable(notifier)
    room.arm()
    assert readable(room)
    claim = tx.try_claim(8)
    tx.close()
    room.clear()
    room.arm()  # closed: there is no claim to wait for
    assert readable(room)
    claim.abort()


@needs_descriptors
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_an_aborted_claim_frees_room_once_the_receiver_comes_by(module):
    tx, rx = module.channel(64)
    notifier, room = rx.notifier(), tx.notifier()
    claim = tx.try_claim(40)
    notifier.arm()
    claim.abort()
    if readable(notifier):  # many senders: there is a gap to step over
        notifier.clear()
        with pytest.raises(Empty):
            rx.try_recv_bytes()
    room.arm()
    assert readable(room)
    tx.try_send(b"x" * 56)


@needs_descriptors
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_while_a_native_end_has_the_endpoint_it_cannot_be_armed(module):
    tx, rx = module.channel(128)
    notifier = rx.notifier()
    notifier.arm()  # hinders no native end
    with rx.native():
        tx.try_send(b"1")
        assert readable(notifier)
        notifier.clear()
        with pytest.raises(BusyError, match="native end"):
            notifier.arm()
    notifier.arm()
    assert readable(notifier)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if native_driver.compiler() is None:
        pytest.skip("no C compiler")
    return native_driver.Driver(native_driver.build_driver(tmp_path_factory.mktemp("driver")))


@needs_descriptors
@takes_long()
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
@pytest.mark.parametrize("how", [native_driver.SEND, native_driver.QUIET, native_driver.CLAIM])
def test_native_senders_signal_without_the_gil(module, how, driver):
    count = size(20_000, 1_000_000)
    tx, rx = module.channel(1 << 12)
    check, got = driver.checker(), 0
    with tx.native() as end, rx.notifier() as notifier, selectors.DefaultSelector() as selector:
        selector.register(notifier, selectors.EVENT_READ)
        job = driver.producer(end, count, how=how)
        tx.close()
        while got < count:
            notifier.arm()
            selector.select()
            notifier.clear()
            for message in messages_of(rx):
                check(message)
                got += 1
        assert job.join() == native_driver.OK
    assert check.due[0] == got == count
    notifier = rx.notifier()
    notifier.arm()
    assert readable(notifier)
    with pytest.raises(RecvError):
        rx.try_recv_bytes()


def messages_of(rx):
    while True:
        try:
            yield rx.try_recv_bytes()
        except Empty:
            return


@needs_descriptors
@takes_long()
def test_a_native_receiver_makes_room_known(driver):
    count = size(20_000, 1_000_000)
    tx, rx = spsc_bytes.channel(1 << 10)
    with rx.native() as end, tx.notifier() as notifier:
        job = driver.consumer(end, count)
        sent = 0
        while sent < count:
            notifier.arm()
            select.select([notifier], [], [])
            notifier.clear()
            while sent < count:
                try:
                    tx.try_send(driver.stamped(0, 16, sent))
                except Full:
                    break
                sent += 1
        assert job.join() == native_driver.OK
        assert (job.done, job.complaint) == (count, 0)


# ---- threads --------------------------------------------------------------------------------------------------------


@needs_descriptors
def test_of_a_local_channel_it_belongs_to_its_thread():
    channel = AnyChannel("local")
    notifier = channel.rx.notifier()
    for call in (channel.rx.notifier, notifier.arm, notifier.clear, notifier.fileno, notifier.close):
        with pytest.raises(WrongThreadError):
            Spawned(call).join()
    notifier.arm()
    channel.try_send(1)
    assert readable(notifier)


def in_selector(notifier, take, done):
    """A hand-written loop: `take` until it is Empty or Full, then wait."""
    with selectors.DefaultSelector() as selector:
        selector.register(notifier, selectors.EVENT_READ)
        while not done():
            notifier.arm()
            selector.select()
            notifier.clear()
            try:
                while not done():
                    take()
            except (Empty, Full):
                pass


@needs_descriptors
@takes_long()
@every_threaded
@pytest.mark.parametrize("senders", [1, 4])
def test_everything_that_threads_send_comes_out_of_a_selector(name, senders):
    channel = AnyChannel(name, 16)
    senders = senders if channel.clones else 1
    each = size(20_000, 1_000_000) // senders
    seen = [[] for _ in range(senders)]

    def send(endpoint, number):
        with endpoint:
            for item in range(each):
                endpoint.send_blocking(channel.pack(item * senders + number))

    def take():
        item = channel.try_recv()
        seen[item % senders].append(item // senders)

    ends = [channel.tx.clone() for _ in range(senders)] if channel.clones else [channel.tx]
    if channel.clones:
        channel.tx.close()
    threads = [Spawned(send, end, number) for number, end in enumerate(ends)]
    with channel.rx.notifier() as notifier, pytest.raises(RecvError):
        in_selector(notifier, take, lambda: False)
    for thread in threads:
        thread.join()
    assert all(items == list(range(each)) for items in seen)


@needs_descriptors
@takes_long()
@every_threaded
def test_everything_that_a_selector_sends_is_received(name):
    channel = AnyChannel(name, 16)
    count = size(20_000, 1_000_000)
    numbers = itertools.count()
    left = [next(numbers)]

    def put():
        channel.try_send(left[0])
        left[0] = next(numbers)

    def receive():
        return [channel.recv_blocking() for _ in range(count)]

    thread = Spawned(receive)
    with channel.tx.notifier() as notifier:
        in_selector(notifier, put, lambda: left[0] == count)
    assert thread.join() == list(range(count))


@needs_descriptors
@takes_long()
@every_threaded
def test_selectors_and_threads_share_one_receiver(name):
    """Beside an armed notifier others take, waiting or not: nothing is lost, and nobody sleeps on what is there."""
    channel = AnyChannel(name, 4)
    count = size(10_000, 300_000)
    got = [[], [], []]

    def blocking():
        try:
            while True:
                got[0].append(channel.recv_blocking())
        except RecvError:
            pass

    def trying():
        try:
            while True:
                try:
                    got[1].append(channel.try_recv())
                except Empty:
                    os.sched_yield() if hasattr(os, "sched_yield") else None
        except RecvError:
            pass

    threads = [Spawned(blocking), Spawned(trying)]

    def send():
        with channel.tx:
            for number in range(count):
                channel.send_blocking(number)

    threads.append(Spawned(send))
    with channel.rx.notifier() as notifier, pytest.raises(RecvError):
        in_selector(notifier, lambda: got[2].append(channel.try_recv()), lambda: False)
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*got)) == list(range(count))


@needs_descriptors
@takes_long()
@every_threaded
def test_one_item_at_a_time_beside_one_that_takes_and_goes(name):
    """A thread that takes one item without waiting goes away at once: what came meanwhile is signalled."""
    channel = AnyChannel(name, 4)
    rounds = size(2_000, 100_000)
    notifier = channel.rx.notifier()
    go, went = threading.Barrier(3), threading.Barrier(3)
    taken = []

    def send():
        other = channel.tx.clone() if channel.clones else channel.tx
        for number in range(rounds):
            go.wait()
            channel.try_send(2 * number)
            other.try_send(channel.pack(2 * number + 1))
            went.wait()

    def take():
        for _ in range(rounds):
            go.wait()
            with contextlib.suppress(Empty):
                taken.append(channel.try_recv())
            went.wait()

    threads = [Spawned(send), Spawned(take)]
    for _ in range(rounds):
        notifier.arm()
        go.wait()
        went.wait()
        if channel.rx.statistics().buffered:
            assert readable(notifier)
        notifier.clear()
        taken += channel.drain()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(2 * rounds))


@needs_descriptors
@takes_long()
@every_threaded
def test_any_thread_may_arm_clear_and_close_while_others_send(name):
    channel = AnyChannel(name, 2)
    stop = threading.Event()

    def worry(notifier):
        while not stop.is_set():
            try:
                notifier.arm()
                notifier.fileno()
                notifier.clear()
            except ValueError:
                return

    def send():
        number = 0
        while not stop.is_set():
            try:
                channel.try_send(number)
                number += 1
            except Full:
                channel.drain()
        return number

    sender = Spawned(send)
    for _ in range(size(8, 1000)):
        notifier = channel.rx.notifier()
        threads = [Spawned(worry, notifier) for _ in range(2)]
        until(lambda notifier=notifier: "not armed" not in repr(notifier))
        notifier.close()
        for thread in threads:
            thread.join()
    stop.set()
    sender.join()
    channel.drain()
    assert channel.rx.statistics().waiting_receivers == 0


@needs_descriptors
@takes_long()
@every_threaded
def test_closing_from_another_thread_is_not_missed(name):
    for number in range(size(200, 20_000)):
        channel = AnyChannel(name, 2)
        notifier = channel.rx.notifier()
        endpoint = channel.tx if number % 2 else channel.rx
        thread = Spawned(endpoint.close)
        notifier.arm()
        select.select([notifier], [], [])
        notifier.clear()
        with pytest.raises((RecvError, EndpointClosed, Empty)):
            channel.try_recv()
        thread.join()


# ---- descriptors ----------------------------------------------------------------------------------------------------


@needs_descriptors
def test_without_descriptors_left_it_is_an_error_and_nothing_leaks():
    tx, rx = spsc.channel(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, references = open_descriptors(), sys.getrefcount(rx)
    kept = []
    limit = max(map(int, before or {100})) + 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as failed:
            for _ in range(limit):
                kept.append(rx.notifier())
        assert failed.value.errno == errno.EMFILE
        kept.pop().close()
        kept.append(tx.notifier())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    del failed
    kept.clear()
    collect()
    assert open_descriptors() == before
    assert sys.getrefcount(rx) == references


@needs_descriptors
def test_a_descriptor_that_a_stranger_closed_is_an_error_and_is_left_alone():
    tx, rx = spsc.channel(2)
    notifier = rx.notifier()
    notifier.arm()
    descriptor = notifier.fileno()
    os.close(descriptor)
    tx.try_send(1)  # the sender does not care
    for call in (notifier.arm, notifier.clear, notifier.fileno):
        with pytest.raises(OSError, match="closed by somebody else") as failed:
            call()
        assert failed.value.errno == errno.EBADF
    other = os.open("/dev/null", os.O_RDONLY)
    try:
        assert other == descriptor or WAKE != "eventfd"
        notifier.close()
        os.fstat(other)
    finally:
        os.close(other)
    assert rx.try_recv() == 1
    second = rx.notifier()
    os.close(second.fileno())
    with pytest.raises(OSError, match="closed by somebody else"):
        second.clear()


@needs_descriptors
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_its_own_and_cannot_touch_the_parents():
    run_child(
        """
import os, select
from nexus_channels import mpsc, spsc_bytes
def readable(n):
    return bool(select.select([n], [], [], 0)[0])
def child(body):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
def refuses(call):
    try:
        call()
    except RuntimeError as error:
        assert "before fork()" in str(error)
    else:
        raise AssertionError(call)
for module, one in ((mpsc, 1), (spsc_bytes, b"1")):
    tx, rx = module.channel(64)
    notifier, armed = rx.notifier(), rx.notifier()
    armed.arm()
    descriptor = armed.fileno()
    def quiet():
        for call in (notifier.arm, notifier.clear, notifier.fileno):
            refuses(call)
        assert "not armed" in repr(armed)
        tx.try_send(one)  # into the child's copy: wakes nobody of the parent
        mine = rx.notifier()
        mine.arm()
        assert readable(mine)
        armed.close()
        rx.close()
    child(quiet)
    assert not readable(armed)
    tx.try_send(one)
    assert readable(armed)
    child(quiet)
    assert readable(armed)  # not drained
    armed.clear()
    assert not readable(armed)
    def close():
        armed.close()
        tx.close()
    armed.arm()
    child(close)
    assert armed.fileno() == descriptor and readable(armed)
""",
        flags=("-Wignore",),
    )


@needs_descriptors
def test_the_interpreter_exits_with_armed_notifiers():
    run_child(
        """
import threading
from nexus_channels import mpsc, mpsc_bytes
kept = []
def work(tx):
    try:
        while True:
            tx.send_blocking(b"x", 0.01)
    except Exception:
        pass
for module in (mpsc, mpsc_bytes):
    tx, rx = module.channel(64)
    notifier = rx.notifier()
    notifier.arm()
    kept.append((tx, rx, notifier, tx.notifier()))
    tx.notifier().arm()
    threading.Thread(target=work, args=(tx.clone(),), daemon=True).start()
class Later:
    def __init__(self, *kept): self.kept = kept
    def __del__(self):
        tx, rx, notifier, room = self.kept
        try:
            notifier.clear()
            notifier.arm()
            room.arm()
        except Exception:
            pass
late = [Later(*ends) for ends in kept]
""",
        quiet=True,
    )


@needs_descriptors
@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_a_sub_interpreter_has_its_own():
    from test_subinterpreters import INTERPRETERS

    source = """
import select
from nexus_channels import local, mpsc, mpsc_bytes
kept = []
for module, item in ((local, 1), (mpsc, 1), (mpsc_bytes, b'1')):
    tx, rx = module.channel(64)
    notifier = rx.notifier()
    notifier.arm()
    tx.try_send(item)
    assert select.select([notifier], [], [], 0)[0]
    notifier.clear()
    notifier.arm()
    kept.append((tx, rx, notifier))
"""
    rounds = 1 if FREE_THREADED else 5
    run_child(
        INTERPRETERS
        + f"""
import os
source = {source!r}
for _ in range({rounds}):
    interpreter = create()
    run(interpreter, source)
    destroy(interpreter)
    if _ == 0:
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
assert {FREE_THREADED} or not before or len(os.listdir("/proc/self/fd")) <= before
""",
        seconds=60,
    )


# ---- other loops ----------------------------------------------------------------------------------------------------


@needs_descriptors
@every_threaded
def test_the_hub_of_gevent_waits_for_it(name):
    pytest.importorskip("gevent", reason="gevent is not installed")
    run_child(
        f"""
import threading
import gevent
from gevent.socket import wait_read
from anychannel import AnyChannel
from nexus_channels import Empty, Full, RecvError
channel = AnyChannel({name!r}, 4)
COUNT = 500
turns = []

def send():  # in a real thread
    with channel.tx:
        for number in range(COUNT):
            channel.send_blocking(number)

def consume():
    got = []
    with channel.rx.notifier() as notifier:
        while True:
            notifier.arm()
            wait_read(notifier.fileno())
            notifier.clear()
            try:
                while True:
                    got.append(channel.try_recv())
            except Empty:
                pass
            except RecvError:
                return got

def heartbeat():
    while True:
        turns.append(1)
        gevent.sleep(0.001)

beat = gevent.spawn(heartbeat)
consumer = gevent.spawn(consume)
gevent.sleep(0)
thread = threading.Thread(target=send)
thread.start()
assert consumer.get(timeout=30) == list(range(COUNT))
thread.join()
beat.kill()
assert len(turns) > 1
""",
        seconds=60,
        flags=("-Wignore",),
    )


@every_channel
def test_awaiting_without_a_loop_says_what_else_there_is(name):
    channel = AnyChannel(name)
    waiting = channel.receiving()
    with pytest.raises(RuntimeError) as failed:
        waiting.send(None)
    message = str(failed.value)
    for word in ("Receiver.recv", "asyncio", "uvloop", "blocking form", "notifier()"):
        assert word in message


# ---- all orders -----------------------------------------------------------------------------------------------------


class Reference:
    """What the page says, in the plainest way: one channel of `room` items, one notifier, and tasks that wait.

    Turned round for a sender: there it is room that comes and goes.
    """

    def __init__(self, have, most=sys.maxsize):
        self.have = have  # items of a receiver, or room of a sender
        self.most = most  # of messages of bytes only the first is seen; the next when it is taken
        self.over = self.shut = False
        self.line = []  # waiting tasks and the notifier, by order of arrival
        self.signalled = False

    @property
    def waiting(self):
        return [who for who in self.line if who != "notifier"]

    @property
    def spare(self):
        """What is left to those who do not wait."""
        return self.have if not self.waiting else min(self.have, self.most) - len(self.waiting)

    def look(self):
        """Is the armed notifier called?  Those who came before it are served first."""
        if "notifier" in self.line and not self.signalled:
            ahead = self.line.index("notifier")
            self.signalled = self.shut or self.can_go(ahead)

    def arm(self):
        if not self.signalled and "notifier" not in self.line:
            self.line.append("notifier")
        if self.shut:
            self.signalled = True
        self.look()

    def clear(self):
        self.signalled = False
        if "notifier" in self.line:
            self.line.remove("notifier")

    def can_go(self, ahead):
        raise NotImplementedError


class Items(Reference):
    def can_go(self, ahead):
        return min(self.have, self.most) > ahead or (self.have == 0 and self.over)


class Room(Reference):
    def can_go(self, ahead):
        return self.have > ahead or self.over


class Receiving:
    """A receiver with a notifier, beside tasks that receive."""

    events = ("give", "take", "over", "shut", "arm", "clear", "wait", "run")

    def __init__(self, channel, loop):
        self.channel, self.loop = channel, loop
        self.model, self.notifier = self.watched()
        self.poll = select.poll()
        self.poll.register(self.notifier, select.POLLIN)
        self.tasks = []

    def watched(self):
        return Items(0, 1 if self.channel.bytes else sys.maxsize), self.channel.rx.notifier()

    def call(self):
        return self.channel.recv()

    def raises(self):
        return self.model.shut or (self.model.over and self.model.have == 0)

    def give(self):
        model = self.model
        full = model.have == self.channel.room
        try:
            self.channel.try_send(1)
        except Full:
            assert full
        except (SendError, EndpointClosed):
            assert model.shut or model.over
        else:
            assert not (full or model.shut or model.over)
            model.have += 1

    def take(self):
        model = self.model
        spare = model.spare
        try:
            self.channel.try_recv()
        except Empty:
            assert not model.shut
            assert spare <= 0
            assert model.have or not model.over
        except RecvError:
            assert model.over
            assert model.have == 0
        except EndpointClosed:
            assert model.shut
        else:
            assert spare > 0
            model.have -= 1

    def over(self):
        self.channel.tx.close()
        self.model.over = True

    def shut(self):
        self.channel.rx.close()
        self.model.shut = True
        self.model.have = 0

    def begin(self, coroutine):
        """A task that has run up to its first wait, ahead of those that were called before."""
        task = self.loop.create_task(coroutine)
        self.loop.call(self.loop._ready.pop()._run)
        return task

    def wait(self):
        """A task that makes the call."""
        model = self.model
        task = self.begin(self.call())
        if not task.done():
            assert not self.raises()
            assert model.spare <= 0
            model.line.append(task)
            self.tasks.append(task)
        elif task.exception() is None:
            assert model.spare > 0
            model.have -= 1
        else:
            assert self.raises()

    def run(self):
        """Let those tasks go on that were called."""
        self.loop.run_ready()
        model = self.model
        for task in model.waiting:
            if task.done():
                model.line.remove(task)
                model.have -= task.exception() is None
                model.look()  # each leaves the line before the next goes on

    def arm(self):
        self.notifier.arm()
        self.model.arm()

    def clear(self):
        self.notifier.clear()
        self.model.clear()

    def do(self, event):
        getattr(self, event)()
        self.model.look()
        assert bool(self.poll.poll(0)) == self.model.signalled

    def end(self):
        self.channel.tx.close()
        self.channel.rx.close()
        self.loop.run_ready()
        assert all(task.done() for task in self.tasks)
        for task in self.tasks:
            task.exception()
        self.notifier.close()


class Sending(Receiving):
    """A sender with a notifier, beside tasks that send: `give` frees room, `take` uses it."""

    def watched(self):
        return Room(self.channel.room), self.channel.tx.notifier()

    def call(self):
        return self.channel.sending(1)

    def raises(self):
        return self.model.shut or self.model.over

    def give(self):
        model = self.model
        empty = model.have == self.channel.room
        try:
            self.channel.try_recv()
        except Empty:
            assert empty
        except (RecvError, EndpointClosed):
            assert model.over or (model.shut and empty)
        else:
            assert not model.over
            model.have += 1

    def take(self):
        model = self.model
        spare = model.spare
        try:
            self.channel.try_send(1)
        except Full:
            assert not model.shut
            assert not model.over
            assert spare <= 0
        except SendError:
            assert model.over
        except EndpointClosed:
            assert model.shut
        else:
            assert spare > 0
            model.have -= 1

    def over(self):
        self.channel.rx.close()
        self.model.over = True

    def shut(self):
        self.channel.tx.close()
        self.model.shut = True


@needs_descriptors
@takes_long()
@every_channel
@pytest.mark.parametrize("side", [Receiving, Sending])
def test_in_every_order_of_events_it_is_readable_when_it_should_be(name, side):
    length = size(4, 6)
    loop = StepLoop()
    gc.disable()
    try:
        for events in itertools.product(side.events, repeat=length):
            world = side(AnyChannel(name, 1 if name not in BYTES else 4), loop)
            try:
                if side is Sending and name in BYTES:
                    world.channel.try_send(1)
                    world.channel.try_send(1)
                    world.channel.try_send(1)
                    world.model.have -= 3
                for event in events:
                    world.do(event)
                world.end()
            except AssertionError as error:
                raise AssertionError(f"after {' '.join(events)}") from error
    finally:
        gc.enable()
    assert loop.errors == []
