"""Channels whose ends can go to other processes, within one process: all calls, errors, forks, descriptors and memory.

test_shared_processes.py goes across.
"""

import asyncio
import copy
import errno
import gc
import os
import pickle
import struct
import sys
import weakref

import aio
import pytest
from harness import seeded, size, takes_long
from processes import PAGE, descriptors, fill, needs_lanes, run_script, without_lanes
from support import Spawned, collect, in_thread, until_blocked, until_parked

from nexus_channels import (
    BusyError,
    ClaimDisconnected,
    ClaimFull,
    ClaimReleased,
    ClaimTimeout,
    ClaimTooLarge,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
    Ticket,
    ZeroLengthClaim,
    attach,
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

EVERY_LOOP = True  # see conftest.py

HEADER = 8
LARGEST = PAGE - HEADER


def extent(length):
    return HEADER + (length + 7) // 8 * 8


def ends(channel, side):
    """The end of that side, and the other."""
    return tuple(channel) if side == "tx" else tuple(reversed(channel))


@pytest.fixture(params=["tx", "rx"])
def side(request):
    return request.param


@pytest.fixture
def channel(bytes_variant):
    """Of one page; nothing of it is left open."""
    opened = bytes_variant.channel(PAGE, shared=True)
    yield opened
    for end in opened:
        end.abort() if hasattr(end, "abort") else end.release()
        end.close()


def take(rx, count):
    """So many messages, in order; a sender that has just been attached is heard of by whoever waits."""
    return [rx.recv_bytes_blocking(timeout=20) for _ in range(count)]


def told(tx):
    """Send until the sender is told that nobody receives: at the latest when the ring is full. The error."""
    try:
        for _ in range(PAGE):
            tx.send_blocking(b"x", timeout=20)
    except SendError as error:
        return error
    raise AssertionError("it was never told")


# ---- where there are no lanes --------------------------------------------------------------------------------------


@without_lanes
def test_where_there_are_no_lanes_it_is_an_error_that_says_so(bytes_variant):
    with pytest.raises(OSError, match="shared") as refused:
        bytes_variant.channel(PAGE, shared=True)
    assert refused.value.errno == errno.ENOTSUP
    bytes_variant.channel(PAGE, shared=False)


@pytest.mark.parametrize("module", [spsc, mpsc])
def test_objects_do_not_go_to_other_processes_and_the_error_says_what_does(module):
    for opened in (module.channel, module.channel[int]):
        with pytest.raises(TypeError, match="bytes") as refused:
            opened(4, shared=True)
        assert "pickle" in str(refused.value)


def test_a_local_channel_is_never_shared():
    with pytest.raises(TypeError):
        local.channel(4, shared=True)


def test_it_is_asked_for_by_name(bytes_variant):
    with pytest.raises(TypeError):
        bytes_variant.channel(PAGE, True)
    tx, rx = bytes_variant.channel(64, shared=False)
    assert tx.capacity == rx.capacity == 64


# ---- opening -------------------------------------------------------------------------------------------------------


@needs_lanes
@pytest.mark.parametrize(
    ("asked", "capacity"),
    [(1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (2 * PAGE + 1, 4 * PAGE), (1 << 20, 1 << 20)],
)
def test_the_capacity_is_rounded_up_to_pages_and_a_power_of_two(bytes_variant, asked, capacity):
    tx, rx = bytes_variant.channel(asked, shared=True)
    for end in (tx, rx):
        assert end.capacity == capacity
        assert end.max_message_size == capacity - HEADER
        assert not end.is_closed and not end.is_disconnected and bool(end)
    tx.try_send(bytes(capacity - HEADER))
    with pytest.raises(Full):
        tx.try_send(b"x")
    assert rx.try_recv_bytes() == bytes(capacity - HEADER)


@needs_lanes
@pytest.mark.parametrize(("asked", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("x", TypeError)])
def test_a_wrong_capacity_is_refused_as_that_of_any_channel(bytes_variant, asked, error):
    with pytest.raises(error) as plain:
        bytes_variant.channel(asked)
    with pytest.raises(error) as shared:
        bytes_variant.channel(asked, shared=True)
    assert str(shared.value) == str(plain.value)


@needs_lanes
@pytest.mark.parametrize("asked", [sys.maxsize, 1 << 63, 1 << 64, 1 << 100])
def test_a_capacity_beyond_any_memory_is_refused(bytes_variant, asked):
    before = descriptors()
    with pytest.raises((MemoryError, OSError, OverflowError)):
        bytes_variant.channel(asked, shared=True)
    assert descriptors() == before


@needs_lanes
def test_memory_that_is_not_there_is_an_error_and_no_signal():
    """All of it is taken when the channel is opened, so nobody meets SIGBUS later."""
    run_script(
        """
import resource
before = descriptors()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for module in (spsc_bytes, mpsc_bytes):
    for capacity in (1 << 21, 1 << 30, 1 << 40):
        try:
            module.channel(capacity, shared=True)
        except (OSError, MemoryError):
            pass
        else:
            raise SystemExit("no error")
    assert descriptors() == before, (descriptors(), before)
    tx, rx = module.channel(1 << 19, shared=True)
    tx.try_send(b"small")
    assert rx.try_recv_bytes() == b"small"
    tx.close(), rx.close()
"""
    )


@needs_lanes
def test_more_memory_than_the_machine_has_is_refused_before_any_is_taken():
    """Linux would kill processes to get it. The limit is there for whoever takes the refusal out: then it is EFBIG."""
    run_script(
        """
import errno, resource
before = descriptors()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
path = os.path.join(os.environ["TMPDIR"], "socket")
for module in (spsc_bytes, mpsc_bytes):
    for open_it in (lambda: module.channel(1 << 45, shared=True), lambda: module.listen(path, 1 << 45)):
        try:
            open_it()
        except OSError as error:
            assert error.errno == errno.ENOMEM, error
            assert "a lane of 35184372088832 bytes does not fit" in str(error), error
        else:
            raise SystemExit("no error")
    for number in (1 << 62, 10**30):
        try:
            module.channel(number, shared=True)
        except MemoryError as error:
            assert str(number) in str(error), error
        else:
            raise SystemExit("no error")
assert descriptors() == before, (descriptors(), before)
"""
    )


# ---- every call ----------------------------------------------------------------------------------------------------


@needs_lanes
def test_messages_of_every_length_come_out_as_they_went_in(channel):
    tx, rx = channel
    rng = seeded("messages of every length")
    for length in [*range(1, 200), LARGEST - 9, LARGEST - 8, LARGEST - 1, LARGEST] * size(1, 20):
        message = rng.randbytes(length)
        tx.try_send(message)
        assert rx.try_recv_bytes() == message


@needs_lanes
def test_the_largest_message_fits_wherever_the_last_one_ended(channel):
    tx, rx = channel
    for start in range(0, PAGE, 8):
        tx.try_send(bytes(8))  # moves on by 16
        assert rx.try_recv_bytes() == bytes(8)
        message = struct.pack("q", start) * (LARGEST // 8)
        tx.try_send(message)
        with rx.try_recv() as view:
            assert view == message


@needs_lanes
def test_each_form_of_sending_meets_each_form_of_receiving(channel):
    tx, rx = channel

    def by_claim(message):
        claim = tx.try_claim(len(message) + 9)
        claim[: len(message)] = message
        claim.commit(len(message))

    def by_with(message):
        with tx.claim_blocking(len(message)) as room:
            room[:] = message

    def into():
        buffer = bytearray(rx.max_message_size)
        return bytes(buffer[: rx.try_recv_into(buffer)])

    def in_place():
        with rx.recv_blocking() as view:
            return bytes(view)

    def by_release():
        claim = rx.try_recv()
        message = bytes(claim)
        claim.release()
        return message

    sends = [tx.try_send, tx.send_blocking, lambda m: tx.try_send_many([m]), lambda m: tx.send_many_blocking([m])]
    receives = [rx.try_recv_bytes, rx.recv_bytes_blocking, lambda: rx.try_recv_many(9)[0], into, in_place, by_release]
    receives.append(lambda: rx.recv_many_blocking(1)[0])
    number = 0
    for _ in range(size(3, 100)):
        for send in [*sends, by_claim, by_with]:
            for receive in receives:
                number += 1
                message = b"%d" % number * (number % 50 + 1)
                send(message)
                assert receive() == message
    assert tx.used == rx.used == 0


@needs_lanes
def test_awaiting_each_form(channel, run):
    tx, rx = channel

    async def main():
        buffer = bytearray(PAGE)
        for n in range(size(100, 3000)):
            message = b"%d" % n * 5
            await tx.send(message)
            async with tx.claim(len(message)) as room:
                room[:] = message
            await tx.send_many([message, message, message])
            assert await rx.recv_bytes() == message
            with await rx.recv() as view:
                assert view == message
            assert await rx.recv_into(buffer) == len(message)
            assert await rx.recv_many(9) == [message, message]

    run(main())


@needs_lanes
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_random_calls_do_what_a_plain_channel_of_the_same_size_does(module):
    """One sender, one receiver, no waiting: neither results nor errors nor amounts tell the two apart.

    Of many senders a plain channel keeps the room of what was aborted until the receiver has come by.
    """
    rng = seeded("a shared and a plain channel")
    for _ in range(size(20, 400)):
        pairs = [spsc_bytes.channel(PAGE), module.channel(PAGE, shared=True)]  # a lane has one producer
        for _, rx in pairs:
            with pytest.raises(Empty):
                rx.try_recv()  # a receiver counts the lanes that it has taken in
        open_claims = [{}, {}]

        def call(pair, claims, what, n):
            tx, rx = pair
            try:
                if what == "send":
                    return tx.try_send(b"%d" % n * n)
                if what == "send many":
                    return tx.try_send_many([bytes([k]) * n for k in range(1, 9)])
                if what == "claim":
                    claims["tx"] = tx.try_claim(n)
                    claims["tx"][:] = b"c" * n
                    return len(claims["tx"])
                if what == "commit":
                    claim = claims.pop("tx", None)
                    if claim is None:
                        return None
                    return claim.commit(min(n, len(claim)))
                if what == "abort":
                    claims.pop("tx", None)
                    return tx.abort()
                if what == "receive":
                    return rx.try_recv_bytes()
                if what == "receive many":
                    return rx.try_recv_many(n % 7 + 1)
                if what == "into":
                    buffer = bytearray(n)
                    return rx.try_recv_into(buffer), buffer
                if what == "borrow":
                    claims["rx"] = rx.try_recv()
                    return bytes(claims["rx"])
                if what == "release":
                    claims.pop("rx", None)
                    return rx.release()
                if what == "close":
                    return tx.close()
                assert what == "amounts"
                return tx.capacity, tx.used, rx.used, len(tx), len(rx), tx.is_closed, rx.is_disconnected
            except Exception as error:
                return type(error), getattr(error, "value", None)

        calls = ["send", "send many", "claim", "commit", "abort", "receive", "receive many", "into", "borrow"]
        calls += ["release", "amounts"]
        for step in range(300):
            what = "close" if step == 280 else rng.choice(calls)
            n = (
                rng.choice([1, 2, 8, 100, 700, 1500, LARGEST, LARGEST + 1])
                if rng.random() < 0.5
                else rng.randrange(300)
            )
            plain, shared = (call(*each, what, n) for each in zip(pairs, open_claims, strict=True))
            assert shared == plain, (step, what, n)
        for claims in open_claims:
            claims.clear()


@needs_lanes
def test_wrong_lengths_are_refused_at_the_call(channel):
    tx, rx = channel
    for call in (tx.try_send, tx.send_blocking, lambda m: tx.try_claim(len(m))):
        with pytest.raises(ClaimTooLarge, match=str(LARGEST)):
            call(bytes(LARGEST + 1))
    with pytest.raises(ZeroLengthClaim):
        tx.try_send(b"")
    with pytest.raises(Empty):
        rx.try_recv()
    assert rx.try_recv_many(5) == []


@needs_lanes
def test_a_full_ring_refuses_and_hands_back_what_was_not_sent(channel):
    tx, rx = channel
    assert fill(tx) == PAGE // 64
    message = bytearray(b"x")
    with pytest.raises(Full) as full:
        tx.try_send(message)
    assert full.value.value is message
    with pytest.raises(ClaimFull):
        tx.try_claim(1)
    with pytest.raises(SendTimeout):
        tx.send_blocking(message, timeout=0.01)
    with pytest.raises(ClaimTimeout):
        tx.claim_blocking(1, timeout=0.01)
    assert tx.try_send_many([b"x"]) == 0
    assert len(rx.recv_many_blocking(1000)) == PAGE // 64
    with pytest.raises(RecvTimeout):
        rx.recv_blocking(timeout=0.01)


@needs_lanes
def test_a_message_is_read_where_it_was_written(channel):
    """Both claims are views of the ring: nothing is copied between them."""
    np = pytest.importorskip("numpy", reason="a view whose address can be asked for")
    tx, rx = channel
    with tx.try_claim(256) as room:
        numbers = np.frombuffer(room, dtype="q")
        numbers[:] = range(32)
        del numbers
    claim = rx.try_recv()
    numbers = np.frombuffer(claim, dtype="q")
    assert numbers.tolist() == list(range(32))
    assert numbers.ctypes.data % 8 == 0
    assert not numbers.flags.writeable and not numbers.flags.owndata
    with pytest.raises(BufferError):
        claim.release()
    del numbers
    claim.release()


@needs_lanes
def test_claims_end_as_those_of_any_channel(channel):
    tx, rx = channel
    claim = tx.try_claim(16)
    with pytest.raises(BusyError):
        tx.try_send(b"x")
    view = memoryview(claim)
    with pytest.raises(BufferError):
        claim.commit()
    view.release()
    with pytest.raises(ValueError, match="17"):
        claim.commit(17)
    claim[:3] = b"abc"
    claim.commit(3)
    with pytest.raises(ClaimReleased):
        claim.commit()
    tx.try_claim(500)  # dropped: aborted
    with tx.try_claim(5) as room:
        room[:] = b"hello"
    with pytest.raises(ZeroDivisionError), tx.try_claim(5) as room:
        room[:] = b"wrong"
        raise ZeroDivisionError
    with rx.try_recv() as view:
        assert view == b"abc" and view.readonly
        with pytest.raises(BusyError):
            rx.try_recv()
    assert rx.try_recv_bytes() == b"hello"
    with pytest.raises(Empty):
        rx.try_recv()
    assert tx.used == 0


@needs_lanes
def test_a_claim_outlives_the_close_of_its_end(channel):
    tx, rx = channel
    tx.try_send(b"first")
    claim = tx.try_claim(6)
    tx.close()
    assert rx.try_recv_bytes() == b"first"
    with pytest.raises(Empty):
        rx.try_recv()
    claim[:] = b"second"
    claim.commit()
    read = rx.try_recv()
    rx.close()
    assert bytes(read) == b"second"
    read.release()


# ---- several senders, one lane -------------------------------------------------------------------------------------


@needs_lanes
@pytest.mark.parametrize("how", ["commit", "abort", "drop"])
def test_while_one_sender_has_a_claim_the_others_of_its_process_wait(how):
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    other = tx.clone()
    claim = tx.try_claim(8)
    with pytest.raises(Full):
        other.try_send(b"x")
    with pytest.raises(ClaimFull):
        other.try_claim(1)
    assert other.try_send_many([b"x"]) == 0
    with pytest.raises(SendTimeout):
        other.send_blocking(b"x", timeout=0.01)
    waits = Spawned(other.send_blocking, b"behind")
    until_blocked(tx, senders=1)
    claim[:] = b"in front"
    if how == "drop":
        del claim
    else:
        getattr(claim, how)()
    waits.join()
    assert rx.recv_many_blocking(9) == [b"in front", b"behind"][how != "commit" :]
    other.close(), tx.close()
    with pytest.raises(RecvError):
        rx.try_recv()


@needs_lanes
def test_a_sender_that_moved_has_a_lane_of_its_own():
    """A clone by clone() shares a lane, one by a ticket does not: so its claim holds up nobody."""
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    other = attach(tx.clone().share())
    sent = fill(tx)
    other.try_send(b"there is room here")
    claim = other.try_claim(8)
    assert set(take(rx, sent + 1)) == {bytes(56), b"there is room here"}
    tx.try_send(b"beside it")
    assert rx.try_recv_bytes() == b"beside it"
    claim.abort()


@needs_lanes
def test_four_threads_with_a_clone_each(spawn):
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    count = size(2000, 200_000)

    def produce(tx, me):
        with tx:
            for n in range(count):
                tx.send_blocking(struct.pack("iq", me, n))

    threads = [spawn(produce, tx.clone(), me) for me in range(4)]
    tx.close()
    seen = [0] * 4
    for claim in rx:
        me, n = struct.unpack("iq", claim)
        assert n == seen[me]
        seen[me] += 1
    assert seen == [count] * 4
    for thread in threads:
        thread.join()


@needs_lanes
def test_lanes_take_turns():
    """A sender that is always ready keeps nobody else's messages back."""
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    senders = [tx, *(attach(tx.clone().share()) for _ in range(3))]
    for sender in senders:
        sender.try_send(b"here")
    take(rx, 4)
    for me, sender in enumerate(senders):
        for _ in range(200):
            sender.try_send(bytes([me]))
    first = [rx.try_recv_bytes()[0] for _ in range(400)]
    assert set(first) == {0, 1, 2, 3}
    assert max(first.count(me) for me in range(4)) < 200


# ---- waiting -------------------------------------------------------------------------------------------------------


def stream(n):
    return b"%d " % n * (n % 30 + 1)


@needs_lanes
@pytest.mark.parametrize("sends", ["thread", "task"])
@pytest.mark.parametrize("receives", ["thread", "task"])
def test_threads_and_tasks_on_either_end(channel, run, sends, receives):
    tx, rx = channel
    count = size(1000, 100_000)

    def feed():
        for n in range(count):
            tx.send_blocking(stream(n))
        tx.close()

    async def feed_task():
        for n in range(count):
            await tx.send(stream(n))
        tx.close()

    def drain():
        return sum(bytes(claim) == stream(n) for n, claim in enumerate(rx))

    async def drain_task():
        n = 0
        async for claim in rx:
            assert bytes(claim) == stream(n)
            n += 1
        return n

    threads = [Spawned(function) for how, function in ((sends, feed), (receives, drain)) if how == "thread"]
    tasks = [function for how, function in ((sends, feed_task), (receives, drain_task)) if how == "task"]

    async def main():
        return [await task for task in [aio.create_task(function()) for function in tasks]]

    results = run(main()) + [thread.join() for thread in threads]
    assert sorted(results, key=str) == [count, None]


@needs_lanes
def test_round_trips_at_the_smallest_capacity_lose_no_wake_up(bytes_variant, run):
    there_tx, there = bytes_variant.channel(1, shared=True)
    back_tx, back = bytes_variant.channel(1, shared=True)
    count = size(2000, 200_000)

    def echo():
        for claim in there:
            back_tx.send_blocking(bytes(claim))

    async def main():
        for n in range(count):
            await there_tx.send(b"%d" % n)
            assert await back.recv_bytes() == b"%d" % n

    answering = Spawned(echo)
    run(main())
    there_tx.close()
    answering.join()


@needs_lanes
def test_several_tasks_and_threads_wait_on_one_receiver_first_come_first_served(bytes_variant, run):
    tx, rx = bytes_variant.channel(PAGE, shared=True)

    async def main():
        waiting = []
        for number in range(6):
            waiting.append(aio.create_task(in_thread(rx.recv_bytes_blocking) if number % 2 else rx.recv_bytes()))
            await until_parked(rx, receivers=number + 1)
        for number in range(6):
            await tx.send(b"%d" % number)
        assert await aio.gather(*waiting) == [b"%d" % number for number in range(6)]

    run(main())


@needs_lanes
def test_room_goes_to_those_who_wait_in_their_order(bytes_variant, run):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    tx.try_send(bytes(LARGEST))

    async def main():
        waiting = []
        for number in range(5):
            waiting.append(aio.create_task(tx.send(b"%d" % number)))
            await until_parked(tx, senders=number + 1)
        assert await rx.recv_bytes() == bytes(LARGEST)
        assert [await rx.recv_bytes() for _ in range(5)] == [b"%d" % number for number in range(5)]
        await aio.gather(*waiting)

    run(main())


@needs_lanes
@pytest.mark.parametrize("call", ["recv", "recv_bytes", "recv_many", "send", "claim"])
def test_a_cancelled_call_took_and_sent_nothing(channel, run, call):
    tx, rx = channel

    async def main():
        if call in ("send", "claim"):
            tx.try_send(bytes(LARGEST))
        end, argument = (tx, {"send": b"x", "claim": 1}[call]) if call in ("send", "claim") else (rx, None)
        for _ in range(20):
            method = getattr(end, call)
            task = aio.create_task(method(5) if call == "recv_many" else method() if end is rx else method(argument))
            await until_parked(end, **{"senders" if end is tx else "receivers": 1})
            task.cancel()
            with pytest.raises(aio.CancelledError):
                await task
        await until_parked(end, senders=0, receivers=0)
        if end is rx:
            tx.try_send(b"x")
            assert rx.try_recv_bytes() == b"x"
        else:
            assert len(rx.try_recv_bytes()) == LARGEST
        with pytest.raises(Empty):
            rx.try_recv()

    run(main())


@needs_lanes
def test_random_cancellations_and_timeouts_lose_nothing(channel, run):
    tx, rx = channel
    rng = seeded("cancellations on a shared channel")
    count = size(500, 30_000)

    async def main():
        sent, got = 0, []

        async def feed():
            nonlocal sent
            while sent < count:
                try:
                    async with aio.timeout(rng.random() * 0.001):
                        await tx.send(stream(sent), timeout=rng.choice([None, 0, 0.0005]))
                except (TimeoutError, Full):
                    await aio.sleep(0)
                    continue
                sent += 1
            tx.close()

        feeding = aio.create_task(feed())
        while True:
            try:
                async with aio.timeout(rng.random() * 0.001):
                    got.append(await rx.recv_bytes(timeout=rng.choice([None, 0, 0.0005])))
            except (TimeoutError, Empty):
                await aio.sleep(0)
            except RecvError:
                break
        await feeding
        assert len(got) == count
        assert all(message == stream(n) for n, message in enumerate(got))

    run(main())


@needs_lanes
@pytest.mark.parametrize("call", ["recv_blocking", "send_blocking"])
def test_a_signal_handler_that_raises_ends_a_blocking_call(call):
    run_script(
        f"""
tx, rx = spsc_bytes.channel(4096, shared=True)
tx.try_send(bytes(4000))
if {call!r} == "recv_blocking":
    rx.try_recv_bytes()
def handler(*_):
    raise ZeroDivisionError
signal.signal(signal.SIGALRM, handler)
for _ in range(5):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        rx.recv_blocking() if {call!r} == "recv_blocking" else tx.send_blocking(bytes(4000))
    except ZeroDivisionError:
        continue
    raise SystemExit("it returned")
assert tx.statistics().waiting_senders == rx.statistics().waiting_receivers == 0
rx.try_recv_many(9)
tx.try_send(b"x")
assert rx.try_recv_bytes() == b"x"
"""
    )


@needs_lanes
def test_a_select_over_shared_and_plain_channels(bytes_variant, run):
    shared, plain, objects = bytes_variant.channel(PAGE, shared=True), bytes_variant.channel(64), mpsc.channel(1)

    async def main():
        arms = (shared.receiver, plain.receiver, objects.receiver)
        for n in range(30):
            waiting = aio.create_task(select(*arms))
            await until_parked(shared.receiver, receivers=1)
            pair = (shared, plain, objects)[n % 3]
            await in_thread(pair.sender.send_blocking, b"%d" % n)
            done = await waiting
            assert done.arm is pair.receiver
            assert bytes(done.value) == b"%d" % n
            if pair is not objects:
                done.value.release()

    run(main())
    fill(shared.sender)
    done = Spawned(select_blocking, shared.sender.sending(b"later"), plain.receiver)
    until_blocked(shared.sender, senders=1)
    assert len(shared.receiver.try_recv_many(1000)) == PAGE // 64
    assert done.join().index == 0
    assert try_select(plain.receiver, shared.receiver).index == 1
    shared.receiver.release()
    shared.sender.close()
    with pytest.raises(RecvError) as ended:
        select_blocking(shared.receiver)
    assert ended.value.arm is shared.receiver and not ended.value.crashed


@needs_lanes
def test_merging_shared_channels(bytes_variant, spawn):
    pairs = [bytes_variant.channel(PAGE, shared=True) for _ in range(3)]

    def feed(tx, me):
        with tx:
            for n in range(300):
                tx.send_blocking(struct.pack("qq", me, n))

    for me, (tx, _) in enumerate(pairs):
        spawn(feed, tx, me)
    seen = [0] * 3
    for rx, claim in merge(*(rx for _, rx in pairs)):
        me, n = struct.unpack("qq", claim)
        assert rx is pairs[me].receiver and n == seen[me]
        seen[me] += 1
    assert seen == [300] * 3


# ---- the end -------------------------------------------------------------------------------------------------------


@needs_lanes
@pytest.mark.parametrize("how", ["close", "drop", "with"])
def test_everything_is_received_before_the_end(bytes_variant, how):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    for n in range(10):
        tx.try_send(b"%d" % n)
    if how == "close":
        tx.close()
        tx.close()
    elif how == "drop":
        del tx
    else:
        with tx:
            pass
    assert rx.is_disconnected
    for n in range(10):
        assert rx.try_recv_bytes() == b"%d" % n
    for call in (rx.try_recv, rx.recv_blocking, lambda: rx.try_recv_many(3), lambda: rx.recv_bytes_blocking(timeout=1)):
        with pytest.raises(RecvError) as ended:
            call()
        assert ended.value.crashed is False


@needs_lanes
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_sender_is_told_that_the_receiver_is_gone_and_has_its_message_back(bytes_variant, how):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    tx.try_send(b"never received")
    if how == "drop":
        del rx
    else:
        rx.close()
    assert tx.is_disconnected
    message = bytearray(b"x")
    for call in (tx.try_send, tx.send_blocking):
        with pytest.raises(SendError) as gone:
            call(message)
        assert gone.value.value is message and gone.value.crashed is False
    for call in (tx.try_claim, tx.claim_blocking):
        with pytest.raises(ClaimDisconnected):
            call(5)
    with pytest.raises(SendError) as gone:
        tx.try_send_many([b"a", b"b"])
    assert gone.value.value == [b"a", b"b"]


@needs_lanes
def test_your_own_close_is_told_from_the_others(channel, side):
    end, _other = ends(channel, side)
    end.close()
    assert end.is_closed
    with pytest.raises(EndpointClosed):
        end.try_send(b"x") if side == "tx" else end.try_recv()
    with pytest.raises(EndpointClosed):
        end.share()


@needs_lanes
@pytest.mark.parametrize("where", ["thread", "task"])
@pytest.mark.parametrize("closed", ["own", "other"])
def test_closing_wakes_whoever_waits(channel, side, run, where, closed):
    end, other = ends(channel, side)
    if side == "tx":
        fill(end)
    error = EndpointClosed if closed == "own" else SendError if side == "tx" else RecvError

    async def main():
        for_task = (lambda: end.send(bytes(100))) if side == "tx" else end.recv_bytes
        for_thread = (lambda: end.send_blocking(bytes(100))) if side == "tx" else end.recv_bytes_blocking
        waits = [aio.create_task(for_task() if where == "task" else in_thread(for_thread)) for _ in range(3)]
        await until_parked(end, **{"senders" if side == "tx" else "receivers": 3})
        (end if closed == "own" else other).close()
        for waiting in waits:
            with pytest.raises(error):
                await waiting

    run(main())


@needs_lanes
def test_the_end_comes_when_every_sender_has_gone():
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    clones = [tx.clone(), attach(tx.clone().share()), tx.clone()]
    ticket = clones.pop().share()
    tx.close()
    for clone in clones:
        assert not rx.is_disconnected
        clone.try_send(b"x")
        clone.close()
    assert len(rx.try_recv_many(9)) == 2
    with pytest.raises(Empty):
        rx.try_recv()
    ticket.close()
    with pytest.raises(RecvError) as ended:
        rx.recv_blocking()
    assert ended.value.crashed is False


@needs_lanes
def test_endpoints_in_a_cycle_are_collected(bytes_variant, side):
    end, other = ends(bytes_variant.channel(PAGE, shared=True), side)
    seen = weakref.ref(end)
    holder = [end]
    holder.append(holder)
    del end, holder
    collect()
    assert seen() is None
    assert other.is_disconnected


# ---- asking --------------------------------------------------------------------------------------------------------


@needs_lanes
def test_statistics_count_what_goes_through(channel):
    tx, rx = channel
    tx.try_send(bytes(56))
    tx.try_send(bytes(56))
    for end in (tx, rx):
        statistics = end.statistics()
        assert statistics.capacity == PAGE
        assert statistics.buffered == 128
        assert (statistics.open_senders, statistics.open_receivers) == (1, 1)
    rx.try_recv_bytes()
    assert rx.statistics().received == tx.statistics().received == 64
    assert rx.statistics().sent == tx.statistics().sent == 128
    assert len(tx) == len(rx) == tx.used == rx.used == 64


@needs_lanes
def test_the_representation_tells_how_full_it_is_and_who_is_there(channel):
    tx, rx = channel
    assert type(tx).__qualname__ in repr(tx) and type(rx).__qualname__ in repr(rx)
    empty = repr(rx)
    tx.try_send(bytes(56))
    assert "64" in repr(rx) and repr(rx) != empty
    tx.close()
    assert "closed" in repr(tx)
    repr(rx)


@needs_lanes
def test_whether_two_ends_are_of_one_channel(bytes_variant):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    other_tx, other_rx = bytes_variant.channel(PAGE, shared=True)
    assert tx.same_channel(tx) and rx.same_channel(rx)
    assert not tx.same_channel(other_tx) and not rx.same_channel(other_rx)
    assert not tx.same_channel(other_rx)
    assert isinstance(tx.open_ends(), list)


@needs_lanes
def test_endpoints_themselves_cannot_be_copied_or_pickled(channel, side):
    end, _other = ends(channel, side)
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="share"):
            call(end)


# ---- tickets -------------------------------------------------------------------------------------------------------


@needs_lanes
def test_a_ticket_makes_the_same_end_once(channel, side):
    end, other = ends(channel, side)
    ticket = end.share()
    assert type(ticket) is Ticket
    assert end.is_closed
    with pytest.raises(EndpointClosed):
        end.share()
    again = attach(ticket)
    assert type(again) is type(end) and again.capacity == other.capacity
    for _ in range(2):
        with pytest.raises(ValueError, match="ticket"):
            attach(ticket)
    tx, rx = (again, other) if side == "tx" else (other, again)
    tx.try_send(b"through")
    assert take(rx, 1) == [b"through"]
    ticket.close()  # it has nothing to do with the end any more
    tx.try_send(b"through")
    assert take(rx, 1) == [b"through"]
    again.close()


@needs_lanes
def test_order_holds_across_a_move(bytes_variant):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    numbers = iter(range(10_000))
    for _ in range(size(20, 300)):
        for _ in range(3):
            tx.try_send(b"%d" % next(numbers))
        tx = attach(tx.share())
        for _ in range(2):
            tx.try_send(b"%d" % next(numbers))
        ticket = rx.share()
        tx.try_send(b"%d" % next(numbers))
        rx = attach(ticket)
        last = next(numbers)
        tx.try_send(b"%d" % last)
        assert [int(message) for message in take(rx, 7)] == list(range(last - 6, last + 1))
    tx.close()
    with pytest.raises(RecvError):
        rx.try_recv()


@needs_lanes
def test_a_receiver_of_many_lanes_moves_with_all_that_is_in_them():
    """More than one lobby takes along; a third of their senders have closed, and are heard to have."""
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    senders = [attach(tx.clone().share()) for _ in range(150)]
    for n, sender in enumerate(senders):
        sender.try_send(b"%d 0" % n)
    take(rx, len(senders))
    before = descriptors()
    for count in range(1, 4):
        for n, sender in enumerate(senders):
            sender.try_send(b"%d %d" % (n, count))
        for sender in senders[count::3]:
            sender.close()
        assert rx.statistics().waiting_receivers == 0  # which hears them close
        rx = attach(rx.share())
        came = [tuple(map(int, message.split())) for message in take(rx, len(senders))]
        assert sorted(came) == [(n, count) for n in sorted({n for n, _ in came})]
        assert len(came) == len(senders)
        senders = [attach(tx.clone().share()) if sender.is_closed else sender for sender in senders]
        for n, sender in enumerate(senders):
            sender.try_send(b"%d 0" % n)
        take(rx, len(senders))
    assert len(descriptors()) <= len(before)
    tx.close()
    for sender in senders:
        sender.close()
    with pytest.raises(RecvError):
        rx.recv_blocking(timeout=5)


@needs_lanes
def test_a_lane_for_which_there_is_no_memory_waits_until_there_is():
    run_script(
        """
import resource
size = 64 << 20
tx, rx = mpsc_bytes.channel(size, shared=True)
tx.try_send(b"x")
ticket = rx.share()
used = int(open("/proc/self/statm").read().split()[0]) * PAGE
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + size, limits[1]))
rx = attach(ticket)
for _ in range(3):
    try:
        rx.recv_bytes_blocking(timeout=20)
    except OSError as error:
        assert error.errno == 12, error
    else:
        raise AssertionError
resource.setrlimit(resource.RLIMIT_AS, limits)
try:
    message = rx.recv_bytes_blocking(timeout=20)
except OSError:  # it was looked for once more before there was any
    message = rx.recv_bytes_blocking(timeout=20)
assert message == b"x"
"""
    )


@needs_lanes
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_ticket_counts_as_an_open_end_until_it_is_given_up(bytes_variant, side, how):
    end, other = ends(bytes_variant.channel(PAGE, shared=True), side)
    if side == "tx":
        end.try_send(b"before")
    ticket = end.share()
    assert not other.is_disconnected
    if how == "close":
        ticket.close()
        ticket.close()
        with pytest.raises(ValueError, match="ticket"):
            attach(ticket)
    else:
        del ticket
    if side == "tx":
        assert other.recv_bytes_blocking(timeout=5) == b"before"
    if side == "tx":
        with pytest.raises(RecvError) as ended:
            other.recv_blocking(timeout=5)
    assert (ended.value if side == "tx" else told(other)).crashed is False


@needs_lanes
@pytest.mark.parametrize("where", ["thread", "task"])
def test_whoever_waits_on_the_other_end_waits_on_while_an_end_moves(channel, side, run, where):
    end, other = ends(channel, side)

    async def main():
        nonlocal end
        if side == "rx":
            fill(other)
            waits = in_thread(other.send_blocking, b"last") if where == "thread" else other.send(b"last")
        else:
            waits = in_thread(other.recv_bytes_blocking) if where == "thread" else other.recv_bytes()
        waiting = aio.create_task(waits)
        await until_parked(other, **{"senders" if side == "rx" else "receivers": 1})
        end = attach(end.share())
        if side == "rx":
            assert len(end.try_recv_many(1000)) >= PAGE // 64
            await waiting
        else:
            end.try_send(b"there")
            assert await waiting == b"there"

    run(main())
    end.close()


@needs_lanes
def test_whoever_waits_on_the_moved_end_is_told(channel, side):
    end, other = ends(channel, side)
    if side == "tx":
        fill(end)
    waits = Spawned(*((end.send_blocking, b"x") if side == "tx" else (end.recv_bytes_blocking,)))
    until_blocked(end, **{"senders" if side == "tx" else "receivers": 1})
    ticket = end.share()
    with pytest.raises(EndpointClosed):
        waits.join()
    assert not other.is_disconnected
    ticket.close()


@needs_lanes
def test_an_end_with_an_open_claim_stays_where_it_is(channel, side):
    end, other = ends(channel, side)
    if side == "tx":
        claim = end.try_claim(5)
    else:
        other.try_send(b"x")
        claim = end.try_recv()
    with pytest.raises(BusyError):
        end.share()
    assert not end.is_closed
    claim.abort() if side == "tx" else claim.release()
    end.share().close()


@needs_lanes
def test_a_ticket_is_neither_bytes_nor_a_plain_pickle(channel, side):
    end, _other = ends(channel, side)
    ticket = end.share()
    with pytest.raises(TypeError, match="process"):
        bytes(ticket)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="multiprocessing"):
            pickle.dumps(ticket, protocol)
    for call in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            call(ticket)
    assert type(attach(ticket)) is type(end)  # none of that spent it


@needs_lanes
def test_a_pickle_that_fails_behind_the_ticket_loses_no_end(channel, side):
    """Of multiprocessing's own pickler: something else in the message cannot be pickled."""
    from multiprocessing.reduction import ForkingPickler

    end, other = ends(channel, side)
    ticket = end.share()
    for message in ([ticket, lambda: None], [lambda: None, ticket]):
        with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
            ForkingPickler.dumps(message)
    ticket.close()
    if side == "tx":
        with pytest.raises(RecvError):
            other.recv_blocking(timeout=5)
    else:
        told(other)


@needs_lanes
def test_a_ticket_of_another_process_is_told_from_one_between_interpreters():
    tx, _rx = spsc_bytes.channel(64)
    assert len(bytes(tx.share())) == 24
    shared, _rx = spsc_bytes.channel(PAGE, shared=True)
    assert "Ticket" in repr(shared.share())
    for wrong in (b"", bytes(24), b"x" * 100):
        with pytest.raises(ValueError, match="ticket"):
            attach(wrong)
    with pytest.raises(TypeError):
        attach(3)


@needs_lanes
def test_what_cannot_go_to_another_process_says_what_can(bytes_variant):
    shared, plain = bytes_variant.channel(PAGE, shared=True), bytes_variant.channel(PAGE)
    for end in shared:
        with pytest.raises(TypeError, match=r"; pass what share\(\) returns to another process$"):
            pickle.dumps(end)
    for end in plain:
        with pytest.raises(TypeError, match="; for another process, open the channel with shared=True and pass what"):
            pickle.dumps(end)
    for end in mpsc.channel(1):
        with pytest.raises(TypeError, match="; to another process, send bytes: open a channel of spsc_bytes or mpsc_b"):
            pickle.dumps(end)
    ticket = bytes(plain.receiver.share())  # given up, as nobody holds it: what another process sees
    with pytest.raises(ValueError, match="; for another process, open the channel with shared=True$"):
        attach(ticket)


@needs_lanes
def test_of_many_threads_with_one_ticket_exactly_one_has_the_end(bytes_variant):
    for _ in range(size(30, 1000)):
        tx, rx = bytes_variant.channel(PAGE, shared=True)
        ticket = tx.share()

        def win(ticket=ticket):
            try:
                return attach(ticket)
            except ValueError:
                return None

        threads = [Spawned(win) for _ in range(3)]
        found = [end for end in (thread.join() for thread in threads) if end is not None]
        assert len(found) == 1
        found[0].try_send(b"mine")
        assert take(rx, 1) == [b"mine"]


# ---- forks ---------------------------------------------------------------------------------------------------------


@needs_lanes
def test_after_a_fork_the_ends_of_the_child_are_dead_and_the_parents_are_not():
    run_script(
        """
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    tx.try_send(b"before")
    def child():
        for call in (lambda: tx.try_send(b"x"), lambda: tx.send_blocking(b"x", timeout=1), lambda: tx.try_claim(5),
                     lambda: tx.try_send_many([b"x"]), rx.try_recv, lambda: rx.recv_blocking(timeout=1),
                     rx.try_recv_bytes, lambda: rx.try_recv_into(bytearray(99)), lambda: next(iter(rx)),
                     tx.share, rx.share, lambda: asyncio.run(await_one(rx.recv())),
                     lambda: asyncio.run(await_one(tx.send(b"x"))), lambda: select_blocking(rx, timeout=1)):
            try:
                call()
            except (ChannelError, StopIteration):
                continue
            raise SystemExit(f"no error: {call}")
        repr(tx), repr(rx), tx.used, rx.is_closed, rx.is_disconnected, tx.statistics(), rx.statistics(), tx.open_ends()
        tx.close(), rx.close()
        gc.collect()
    async def await_one(awaitable):
        return await awaitable
    fork(child)
    tx.try_send(b"after")
    assert rx.recv_many_blocking(9) == [b"before", b"after"]
    assert not tx.is_disconnected and not rx.is_disconnected
    tx.close()
    try:
        rx.recv_blocking()
    except RecvError as error:
        assert not error.crashed
"""
    )


@needs_lanes
def test_claims_and_their_views_in_a_forked_child_crash_nothing():
    """Their memory is not mapped there: what is left of it are other pages, or none."""
    run_script(
        """
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    tx.try_send(b"to be read")
    reading, writing = rx.try_recv(), tx.try_claim(8)
    read_view, write_view = memoryview(reading), memoryview(writing)
    def child():
        for use in (lambda: writing.commit(), lambda: writing.abort(), lambda: reading.release(),
                    lambda: bytes(reading), lambda: writing.__setitem__(0, 1), lambda: len(writing),
                    lambda: read_view[0], lambda: bytes(read_view), lambda: write_view.__setitem__(0, 1),
                    lambda: rx.release(), lambda: tx.abort()):
            try:
                use()
            except (ChannelError, BufferError):
                pass
        read_view.release(), write_view.release()
        for use in (lambda: writing.commit(), lambda: reading.release(), lambda: bytes(reading)):
            try:
                use()
            except (ChannelError, BufferError):
                pass
        for end in (tx, rx):
            end.close()
    fork(child)
    assert bytes(read_view) == b"to be read"
    read_view.release()
    reading.release()
    write_view[:] = b"and sent"
    write_view.release()
    writing.commit()
    assert rx.try_recv_bytes() == b"and sent"
"""
    )


@needs_lanes
def test_forks_in_the_middle_of_traffic_disturb_nobody():
    run_script(
        f"""
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    def feed():
        for n in range({size(5000, 200_000)}):
            tx.send_blocking(b"%d" % n)
        tx.close()
    feeding, forks = Spawned(feed), 0
    def child():
        for call in (lambda: tx.try_send(b"x"), rx.try_recv):
            try:
                call()
            except ChannelError:
                pass
        tx.close(), rx.close()
    n = 0
    for claim in rx:
        assert bytes(claim) == b"%d" % n
        n += 1
        if n % {size(1000, 5000)} == 0:
            del claim
            fork(child)
            forks += 1
    feeding.join()
    assert n == {size(5000, 200_000)} and forks > 3
""",
        seconds=size(60, 600),
    )


@needs_lanes
def test_a_child_that_lives_on_keeps_nothing_of_its_parent_open():
    """The child's copies of the sockets would hide the parent's end from the other side."""
    run_script(
        """
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    before = {name for name in descriptors().values() if "socket" in name or "memfd" in name}
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, ",".join(descriptors().values()).encode() + b".")
        signal.pause()
    said = b""
    while not said.endswith(b"."):
        said += os.read(reading, 1 << 16)
    still = {name for name in said.decode().rstrip(".").split(",")} & before
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading), os.close(writing)
    assert not still, still
"""
    )


# ---- descriptors and memory ----------------------------------------------------------------------------------------

AT_MOST = 4  # descriptors of an idle end


@needs_lanes
def test_an_idle_channel_has_few_descriptors_and_closing_gives_them_back(bytes_variant):
    gc.collect()
    before = descriptors()
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    opened = descriptors().keys() - before.keys()
    assert len(opened) <= 2 * AT_MOST
    assert not any(os.get_inheritable(fd) for fd in opened)
    tx.close()
    assert len(descriptors().keys() - before.keys()) <= AT_MOST
    rx.close()
    assert descriptors() == before


@needs_lanes
def test_what_waited_leaves_no_descriptor(bytes_variant, run):
    run(aio.sleep(0))
    gc.collect()
    before = descriptors()
    tx, rx = bytes_variant.channel(PAGE, shared=True)

    async def main():
        for _ in range(5):
            receiving = aio.create_task(rx.recv_bytes())
            await until_parked(rx, receivers=1)
            await in_thread(tx.send_blocking, b"x")
            assert await receiving == b"x"
        receiving = aio.create_task(rx.recv_bytes())
        await until_parked(rx, receivers=1)
        receiving.cancel()
        with pytest.raises(aio.CancelledError):
            await receiving

    run(main())
    tx.close(), rx.close()
    del main
    gc.collect()
    assert descriptors() == before


@needs_lanes
def test_memory_has_no_name_and_is_the_ring_and_a_page_or_two():
    run_script(
        """
def shared_bytes():
    sizes = {}
    for line in open("/proc/self/maps"):
        span, access, offset, device, inode, *name = line.split(None, 5)
        if access.endswith("s") and "gconv" not in line:
            assert name and "/memfd:" in name[0] and "(deleted)" in name[0], line
            low, high = (int(part, 16) for part in span.split("-"))
            sizes[inode] = max(sizes.get(inode, 0), int(offset, 16) + high - low)
    return sum(sizes.values())
def shown():
    return os.listdir("/dev/shm"), [line for line in open("/proc/self/mounts") if "nexus" in line]
assert shared_bytes() == 0
for module in (spsc_bytes, mpsc_bytes):
    for capacity in (4096, 1 << 16, 1 << 20):
        tx, rx = module.channel(capacity, shared=True)
        tx.try_send(bytes(capacity - 8))
        assert rx.try_recv_bytes() == bytes(capacity - 8)
        assert capacity <= shared_bytes() <= capacity + 2 * PAGE, (capacity, shared_bytes())
        tx.close(), rx.close()
        del tx, rx
        assert shared_bytes() == 0
"""
    )


@needs_lanes
@takes_long()
def test_many_channels_in_a_loop_leave_nothing_behind():
    run_script(
        f"""
import resource
def once(module, n):
    tx, rx = module.channel(4096, shared=True)
    tx.try_send(b"x" * 100)
    if n % 3 == 0:
        tx = attach(tx.share())
    if n % 3 == 1:
        rx = attach(rx.share())
    if n % 5 == 0:
        tx.share().close()
    elif n % 5 == 1:
        rx.share()
    elif n % 5 == 2:
        rx.try_recv()
        tx.try_claim(20)
    elif n % 5 == 3:
        async def main():
            task = asyncio.create_task(rx.recv_bytes())
            await asyncio.sleep(0)
            assert await task == b"x" * 100
            late = asyncio.create_task(rx.recv_bytes())
            await asyncio.sleep(0)
            late.cancel()
        asyncio.run(main())
    else:
        tx.close()
        assert [bytes(claim) for claim in rx] == [b"x" * 100]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * PAGE
def mapped():
    return sum(1 for line in open("/proc/self/maps"))
for module in (spsc_bytes, mpsc_bytes):
    for n in range(100):
        once(module, n)
    gc.collect()
    before = descriptors(), mapped(), resident()
    for n in range({size(1000, 30_000)}):
        once(module, n)
    gc.collect()
    assert descriptors() == before[0]
    assert mapped() - before[1] < 30, (mapped(), before[1])
    assert resident() - before[2] < 4 << 20, (resident(), before[2])
""",
        seconds=size(60, 900),
    )


@needs_lanes
def test_without_descriptors_it_is_an_os_error_and_nothing_is_lost():
    """The limit is lowered until each call has failed at each descriptor that it needs."""
    run_script(
        """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
def with_free(n, call):
    \"\"\"What it gives, or None: with descriptors for n files more.\"\"\"
    used = set(descriptors())
    blockers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1 + n, hard))
    try:
        while True:
            blockers.append(os.open("/dev/null", os.O_RDONLY))
            if len(blockers) > 1000:
                raise SystemExit("no limit")
    except OSError:
        pass
    for fd in blockers[len(blockers) - n if n else len(blockers):]:
        os.close(fd)
    try:
        return call()
    except OSError as error:
        assert error.errno in (24, 23), error
        return None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in blockers[:len(blockers) - n] if n else blockers:
            os.close(fd)
for module in (spsc_bytes, mpsc_bytes):
    # opening
    before = descriptors()
    for n in range(10):
        pair = with_free(n, lambda: module.channel(4096, shared=True))
        if pair is not None:
            break
        assert descriptors() == before, n
    assert pair is not None and n > 0, n
    pair.sender.close(), pair.receiver.close()
    # moving each end
    for side in ("sender", "receiver"):
        for n in range(10):
            pair = module.channel(4096, shared=True)
            pair.sender.try_send(b"before")
            end = getattr(pair, side)
            ticket = with_free(n, end.share)
            if ticket is None:  # it stayed where it was
                assert not end.is_closed
                ticket = end.share()
            end = with_free(n, lambda: attach(ticket))
            if end is None:  # the ticket is good still
                end = attach(ticket)
            tx, rx = (end, pair.receiver) if side == "sender" else (pair.sender, end)
            tx.try_send(b"after")
            got, failed = [], 0
            while len(got) < 2:
                try:
                    got.append(rx.recv_bytes_blocking(timeout=20))
                except OSError as error:  # a lane could not be taken in, then; it is now
                    failed += 1
                    assert error.errno in (23, 24) and failed < 3, error
            assert got == [b"before", b"after"], got
            tx.close(), rx.close(), ticket.close()
            del pair, end, tx, rx, ticket
            assert descriptors() == before, (side, n)
"""
    )


@needs_lanes
def test_a_channel_of_many_lanes_gives_each_descriptor_back():
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    with pytest.raises(Empty):
        rx.try_recv()  # it has taken the first lane in
    with pytest.raises(RecvTimeout):
        rx.recv_blocking(timeout=0.001)  # and keeps what its blocking waits sleep on
    before = descriptors()
    for round_number in range(3):
        senders = [attach(tx.clone().share()) for _ in range(30)]
        for n, sender in enumerate(senders):
            sender.try_send(b"%d %d" % (round_number, n))
        for sender in senders:
            sender.close()
        assert len(take(rx, 30)) == 30
        with pytest.raises(Empty):
            rx.try_recv()
        assert descriptors() == before
    tx.close()
    with pytest.raises(RecvError):
        rx.recv_blocking()


@needs_lanes
@pytest.mark.parametrize("how", ["return", "sys.exit"])
@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
def test_the_interpreter_exits_with_everything_open(module, how):
    run_script(
        f"""
import threading
tx, rx = {module}.channel(4096, shared=True)
other_tx, other_rx = {module}.channel(4096, shared=True)
third_tx, third_rx = {module}.channel(4096, shared=True)
tx.try_send(b"x")
claim, room, ticket = rx.try_recv(), tx.try_claim(9), third_tx.share()
view = memoryview(claim)
threading.Thread(target=other_rx.recv_blocking, daemon=True).start()
until_blocked(other_rx, receivers=1)
loop = asyncio.new_event_loop()
async def main():
    global task
    task = asyncio.create_task(third_rx.recv_bytes())
    await asyncio.sleep(0)
loop.run_until_complete(main())
if {how!r} == "sys.exit":
    sys.exit(0)
"""
    )


# ---- what a wait costs ---------------------------------------------------------------------------------------------


def bells():
    """How many descriptors are eventfds."""
    return sum("eventfd" in target for target in descriptors().values())


@needs_lanes
def test_an_end_keeps_one_descriptor_from_a_blocking_wait_for_the_next_and_closes_it(bytes_variant):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    fill(tx)
    before = bells()
    for _ in range(3):
        with pytest.raises(SendTimeout):
            tx.send_blocking(bytes(56), timeout=0.001)
        assert bells() == before + 1
    waiting = [Spawned(tx.send_blocking, bytes(56), timeout=20) for _ in range(2)]
    until_blocked(tx, senders=2)
    assert bells() == before + 2
    take(rx, PAGE // 64)
    for thread in waiting:
        thread.join()
    assert bells() == before + 2  # one of each end: the receiver has waited, too
    tx.close(), rx.close()
    assert bells() == before


@needs_lanes
def test_the_descriptor_of_a_wait_that_was_ended_by_close_is_closed(bytes_variant):
    tx, rx = bytes_variant.channel(PAGE, shared=True)
    before = bells()
    waiting = Spawned(rx.recv_blocking, timeout=20)
    until_blocked(rx, receivers=1)
    rx.close()
    with pytest.raises(EndpointClosed):
        waiting.join()
    tx.close()
    del tx, rx, waiting
    collect()
    assert bells() == before


@needs_lanes
def test_a_new_sender_is_heard_beside_one_that_is_always_waited_for():
    tx, rx = mpsc_bytes.channel(PAGE, shared=True)
    asks, asked = spsc.channel(1)

    def old():
        while asked.recv_blocking(timeout=20):
            tx.send_blocking(b"old", timeout=20)

    sender = Spawned(old)
    for _ in range(10):  # so that the receiver stays awake for it
        asks.send_blocking(True)
        assert rx.recv_bytes_blocking(timeout=20) == b"old"
    new = attach(tx.clone().share())
    new.try_send(b"new")
    received = []
    while b"new" not in received and len(received) < 100:
        if received.count(b"old") == len(received):
            asks.send_blocking(True)
        received.append(rx.recv_bytes_blocking(timeout=20))
    asks.send_blocking(False)
    sender.join()
    assert len(received) < 32, received
    for end in (tx, rx, new):
        end.close()


@needs_lanes
def test_a_blocking_call_hears_a_new_lane_before_its_time_is_up(bytes_variant):
    for timeout in (1e-9, 1e-6, 1e-3):
        tx, rx = bytes_variant.channel(PAGE, shared=True)
        tx.try_send(b"there")
        assert rx.recv_bytes_blocking(timeout=timeout) == b"there"
        tx.close(), rx.close()


@needs_lanes
def test_a_task_that_another_process_wakes_costs_its_loop_no_further_kick(bytes_variant):
    kicks = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args, **kwargs):
            kicks.append(args)
            return super().call_soon_threadsafe(*args, **kwargs)

    tx, rx = bytes_variant.channel(PAGE, shared=True)

    async def receive():
        got = []
        for n in range(5):
            loop.call_soon(tx.try_send, b"%d" % n)  # once this task waits; the ring goes through the lane's socket
            got.append(await rx.recv_bytes())
        return got

    loop = Loop()
    assert loop.run_until_complete(receive()) == [b"0", b"1", b"2", b"3", b"4"]
    assert kicks == []
    tx.close(), rx.close()
    loop.close()
