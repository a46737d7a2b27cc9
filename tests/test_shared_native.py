"""Native ends of channels between processes: native threads send and receive by the lane of their process without the
GIL, beside its tasks and threads. One behaviour a test; both ends are in one process where that is enough.
"""

import asyncio
import importlib.util

import pytest
from harness import seeded, size, takes_long
from native_driver import (
    CLAIM,
    DISCONNECTED,
    EMPTY,
    FULL,
    MANY,
    MILLISECOND,
    OK,
    PEEK,
    QUIET,
    RECV,
    SEND,
    TIMEOUT,
)
from processes import NATIVE, PAGE, descriptors, fill, needs_lanes, run_script, shared
from support import Spawned, collect, until, until_blocked, until_parked

from nexus_channels import BusyError, EndpointClosed, Full, RecvError, SendError, attach, mpsc_bytes, spsc_bytes

pytestmark = needs_lanes

HOWS = ["thread", "native", *(name for name in ("asyncio", "uvloop", "trio") if importlib.util.find_spec(name))]
PAIRS = [("native", how) for how in HOWS] + [(how, "native") for how in HOWS if how != "native"]


@pytest.fixture(params=["spsc_bytes", "mpsc_bytes"])
def module(request):
    return request.param


def script(text, driver, **more):
    return run_script(NATIVE + text, driver.path, **more)


# ---- traffic ---------------------------------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize(("sends", "takes"), PAIRS)
def test_native_threads_and_others_of_another_process_lose_nothing(module, driver, sends, takes):
    count = size(5000, 500_000)
    script(
        f"""
tx, rx = {module}.channel(4096, shared=True)
there = start(take_stamped, path, rx.share(), [0, {count}], {takes!r})
stamped_from(driver, tx, 1, {count}, {sends!r})
tx.close()
join(there)
tx, rx = {module}.channel(4096, shared=True)
there = start(send_stamped, path, tx.share(), 2, {count}, {sends!r})
stamped_to(driver, rx, [0, 0, {count}], {takes!r})
join(there)
""",
        driver,
        seconds=size(60, 600),
    )


@takes_long()
@pytest.mark.parametrize("takes", ["native", "thread", "asyncio"])
def test_native_threads_tasks_and_threads_share_the_end_of_each_of_several_processes(driver, takes):
    count = size(2000, 200_000)
    script(
        f"""
tx, rx = mpsc_bytes.channel(4096, shared=True)
hows = ["native", "thread", "native", "asyncio", "native"]
there = [start(send_stamped_by_many, path, tx.clone().share(), first, {count}, hows) for first in (0, 5)]
here = Spawned(send_stamped_by_many, path, tx.share(), 10, {count}, hows[:4])
stamped_to(driver, rx, [{count}] * 14, {takes!r})
here.join()
join(*there)
""",
        driver,
        seconds=size(60, 900),
    )


@pytest.mark.parametrize("way", [SEND, CLAIM, MANY, QUIET])
def test_both_ends_in_one_process_without_the_gil(bytes_variant, driver, way):
    tx, rx = shared(bytes_variant)
    end, other = tx.native(), rx.native()
    consumer = driver.consumer(other, how=RECV if way == SEND else PEEK)
    producer = driver.producer(end, size(20_000, 10**6), how=way, most=300)
    assert producer.join() == OK
    end.close()
    tx.close()
    assert (consumer.join(), consumer.complaint, consumer.done) == (DISCONNECTED, 0, producer.done)


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_a_native_end_tells_how_full_its_lane_is_and_who_is_gone(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    with tx.native() as end, rx.native() as other:
        sender, receiver = driver.sender(end), driver.receiver(other)
        assert sender.max_message_size() == tx.max_message_size
        assert sender.send(b"a message") == OK
        assert sender.used() == 24
        assert not sender.is_disconnected() and not receiver.is_disconnected()
        assert not end.is_disconnected and not other.is_disconnected
        assert receiver.recv(100)[::2] == (OK, b"a message")
        assert sender.used() == 0
        sender.detach()
        end.close()
        tx.close()
        assert receiver.is_disconnected() and other.is_disconnected
        receiver.detach()
    tx, rx = shared(bytes_variant)
    with tx.native() as end:
        sender = driver.sender(end)
        rx.close()
        assert sender.is_disconnected() and end.is_disconnected
        assert sender.try_send(b"x") == DISCONNECTED
        sender.detach()


def test_waits_end_on_time_and_tries_do_not_wait(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    with tx.native() as end, rx.native() as other:
        sender, receiver = driver.sender(end), driver.receiver(other)
        for timeout in (1, MILLISECOND, 30 * MILLISECOND):
            assert receiver.recv(100, timeout)[0] == TIMEOUT
            assert receiver.peek(timeout)[0] == TIMEOUT
        assert receiver.try_recv(100)[0] == receiver.try_peek()[0] == EMPTY
        while sender.try_send(bytes(100)) == OK:
            pass
        for timeout in (1, MILLISECOND, 30 * MILLISECOND):
            assert sender.send(bytes(100), timeout) == TIMEOUT
            assert sender.claim(100, timeout)[0] == TIMEOUT
        assert sender.try_send(bytes(100)) == sender.try_claim(100)[0] == FULL
        sender.detach()
        receiver.detach()


def test_a_native_thread_that_sleeps_is_woken_by_the_other_side(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    with rx.native() as other:
        consumer = driver.consumer(other)
        for number in range(size(200, 20_000)):
            until(lambda number=number: consumer.done == number)
            until_blocked(rx, receivers=1)
            tx.try_send(driver.stamped(0, 16, number))
        tx.close()
        assert (consumer.join(), consumer.complaint) == (DISCONNECTED, 0)
    tx, rx = shared(bytes_variant)
    fill(tx, 56)
    with tx.native() as end:
        producer = driver.producer(end, size(200, 20_000), least=56, most=56)
        for number in range(size(200, 20_000)):
            until_blocked(tx, senders=1)
            assert producer.done == number
            rx.try_recv().release()
            until(lambda number=number: producer.done > number)
        assert producer.join() == OK


@pytest.mark.parametrize("how", ["native end", "endpoint", "other side"])
def test_closing_wakes_a_native_thread_that_sleeps(bytes_variant, driver, how):
    for side in ("tx", "rx"):
        tx, rx = shared(bytes_variant)
        if side == "tx":
            fill(tx, 100)
            end = tx.native()
            job = driver.producer(end, 1, least=100, most=100)
            until_blocked(tx, senders=1)
        else:
            end = rx.native()
            job = driver.consumer(end)
            until_blocked(rx, receivers=1)
        if how == "native end":
            end.close()
        elif how == "endpoint":  # the native end stays open
            (tx if side == "tx" else rx).close()
            assert not end.is_closed
            end.close()
        else:
            (rx if side == "tx" else tx).close()
        assert job.join() == DISCONNECTED
        assert job.done == 0
        end.close()


def test_quiet_commits_wake_with_the_flush_and_are_there_for_who_looks(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    assert not rx.is_disconnected  # which takes the lane in: else whoever waits wakes up for that
    with tx.native() as end:
        sender = driver.sender(end)
        waits = Spawned(rx.recv_many_blocking, 10)
        until_blocked(rx, receivers=1)
        for _ in range(3):
            assert sender.try_claim(8)[0] == OK
            assert sender.commit_quiet(8) == OK
        assert sender.flush() == OK
        assert len(waits.join()) == 3
        assert sender.try_claim(8)[0] == OK
        assert sender.commit_quiet(8) == OK
        assert len(rx.try_recv_many(10)) == 1
        assert sender.try_claim(8)[0] == OK
        assert sender.commit_quiet(8) == OK
        waits = Spawned(rx.recv_many_blocking, 10)
        assert len(waits.join()) == 1
        sender.detach()


# ---- one claim at a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["commit", "commit_quiet", "abort", "detach", "abandon"])
def test_the_end_of_a_native_claim_lets_the_others_of_its_process_go_on(driver, ends):
    tx, rx = shared(mpsc_bytes)
    end, second = tx.native(), tx.native()
    sender = driver.sender(end)
    assert sender.try_claim(8)[0] == OK
    with pytest.raises(Full):
        tx.try_send(b"x")
    waits = Spawned(tx.send_blocking, b"from a thread of Python", timeout=20)
    until_blocked(tx, senders=1)
    job = driver.producer(second, 1)
    until_blocked(tx, senders=2)
    if ends == "abandon":
        end.close(abandon=True)
    elif ends == "detach":
        sender.detach()
    else:
        assert getattr(sender, ends)(*([8] if ends.startswith("commit") else [])) == OK
    waits.join()
    assert job.join() == OK
    assert len(rx.try_recv_many(10)) == 2 + ends.startswith("commit")
    if ends not in ("detach", "abandon"):
        sender.detach()
    end.close()
    second.close()


def test_a_claim_of_python_makes_native_threads_wait_for_their_turn(driver):
    tx, rx = shared(mpsc_bytes)
    end = tx.native()
    claim = tx.claim_blocking(8)
    job = driver.producer(end, 1)
    until_blocked(tx, senders=1)
    claim[:] = b"12345678"
    claim.commit(8)
    assert job.join() == OK
    assert len(rx.try_recv_many(10)) == 2
    end.close()


@pytest.mark.parametrize("first", ["endpoint", "native end"])
def test_a_native_claim_that_is_open_as_python_closes_is_still_sent(bytes_variant, driver, first):
    tx, rx = shared(bytes_variant)
    end = tx.native()
    sender = driver.sender(end)
    assert sender.try_claim(3)[0] == OK
    for closes in (tx, end) if first == "endpoint" else (end, tx):
        closes.close()
    assert not rx.is_disconnected
    assert sender.commit(3) == OK
    assert sender.try_send(b"x") == DISCONNECTED
    sender.detach()
    assert len(rx.recv_bytes_blocking(timeout=20)) == 3
    with pytest.raises(RecvError) as ended:
        rx.recv_blocking(timeout=20)
    assert not ended.value.crashed


def test_what_a_native_receiver_borrows_stays_until_it_gives_it_back(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    tx.try_send(b"a message")
    end = rx.native()
    receiver = driver.receiver(end)
    assert receiver.peek() == (OK, b"a message")
    end.close()
    rx.close()
    assert not tx.is_disconnected
    assert receiver.release() == OK
    receiver.detach()
    with pytest.raises(SendError):
        tx.send_blocking(b"x")


# ---- beside Python ---------------------------------------------------------------------------------------------------


def test_tasks_and_threads_that_wait_already_are_woken_by_native_threads(driver):
    """Their boxes were made for a channel of which the GIL was the lock."""

    async def main():
        tx, rx = shared(mpsc_bytes)
        fill(tx, 100)
        task = asyncio.ensure_future(tx.send(b"from a task".ljust(100)))
        thread = Spawned(tx.clone().send_blocking, b"from a thread".ljust(100), timeout=20)
        await until_parked(tx, senders=2)
        with tx.native() as end, rx.native() as other:
            sender, receiver = driver.sender(end), driver.receiver(other)
            assert sender.try_send(bytes(100)) == FULL
            waits = Spawned(sender.send, b"from a native thread".ljust(100))
            await until_parked(tx, senders=3)
            got = []
            while len(got) < 3:
                result, _n, message = receiver.try_recv(200)
                if result == OK and message.startswith(b"from"):
                    got.append(message.rstrip())
                await asyncio.sleep(0)
            assert sorted(got) == [b"from a native thread", b"from a task", b"from a thread"]
            await task
            thread.join()
            assert waits.join() == OK
            receiver.detach()
            sender.detach()

    asyncio.run(main())


def test_python_calls_say_what_to_do_about_a_native_end(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    end = rx.native()
    for call in (rx.try_recv, rx.share, rx.native):
        with pytest.raises(BusyError, match=r"close\(\) the native end"):
            call()
    end.close()
    with rx.share() as ticket:
        rx = attach(ticket)
    waits = Spawned(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    with pytest.raises(BusyError, match="others wait on this receiver"):
        rx.native()
    tx.close()
    with pytest.raises(RecvError):
        waits.join()
    rx.close()
    with pytest.raises(EndpointClosed):
        rx.native()


def test_a_sender_of_one_that_is_lent_cannot_be_shared_and_one_of_many_can(driver):
    tx, _rx = shared(spsc_bytes)
    with tx.native(), pytest.raises(BusyError, match=r"close\(\) the native end"):
        tx.share()
    tx.share().close()
    tx, rx = shared(mpsc_bytes)
    with tx.native() as end:
        sender = driver.sender(end)
        tx.try_send(b"first")
        moved = attach(tx.share())
        assert sender.try_send(b"the native end stays where it is") == OK
        moved.try_send(b"second")
        got = rx.try_recv_many(10)
        assert len(got) == 3
        assert got.index(b"first") < got.index(b"second")
        sender.detach()


def test_statistics_count_native_ends(driver):
    tx, rx = shared(mpsc_bytes)
    with tx.native(), tx.native(), rx.native():
        assert tx.statistics().open_senders == 3
        assert rx.statistics().open_receivers == 2
    assert tx.statistics().open_senders == 1


def test_a_native_receiver_lets_in_who_comes_by_the_path(bytes_variant, driver, tmp_path):
    """Nobody else waits there, and the thread does not hold the GIL."""
    with bytes_variant.listen(tmp_path / "path", PAGE) as listener, listener.receiver.native() as end:
        consumer = driver.consumer(end)
        for n in range(3):
            until_blocked(listener.receiver, receivers=1)
            with bytes_variant.connect(tmp_path / "path") as tx, tx.native() as other:
                sender = driver.sender(other)
                assert sender.send(driver.stamped(n, 16, 0)) == OK
                sender.detach()
            until(lambda n=n: consumer.done == n + 1)
        listener.close()
        assert (consumer.join(), consumer.complaint) == (DISCONNECTED, 0)


# ---- the other process ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes", ["native", "thread"])
def test_all_that_a_killed_native_sender_had_sent_is_received_and_then_the_end(module, driver, takes):
    script(
        f"""
for _ in range({size(3, 100)}):
    tx, rx = {module}.channel(4096, shared=True)
    with __import__("tempfile").TemporaryDirectory() as folder:
        counter = Counter(folder + "/counter")
        there = start(send_natively_for_ever, path, tx.share(), counter, True)
        if {takes!r} == "native":
            end = rx.native()
            consumer = driver.consumer(end)
            until(lambda: counter.value > 0)
            os.kill(there.pid, signal.SIGKILL)
            assert consumer.join() == DISCONNECTED
            assert (consumer.complaint, consumer.done >= 1000) == (0, True)
            end.close()
        else:
            check = driver.checker()
            for claim in rx:
                check(bytes(claim))
                if check.due[0] == 3000:
                    os.kill(there.pid, signal.SIGKILL)
            assert check.due[0] >= 3000
        try:
            rx.try_recv()
        except RecvError as error:
            assert error.crashed
        join(there, code=-signal.SIGKILL)
""",
        driver,
    )


def test_a_native_sender_that_waits_is_told_when_the_receiver_is_killed(module, driver):
    script(
        f"""
tx, rx = {module}.channel(4096, shared=True)
ready = multiprocessing.get_context("spawn").Event()
there = start(hold, rx.share(), ready)
assert ready.wait(20 * SLOWNESS)
with tx.native() as end:
    job = driver.producer(end, 10**6)
    until_blocked(tx, senders=1)
    killed(there)
    assert job.join() == DISCONNECTED
""",
        driver,
    )


def test_a_process_that_ends_under_its_native_threads_ends_in_good_order(module, driver):
    script(
        f"""
for _ in range({size(3, 100)}):
    tx, rx = {module}.channel(4096, shared=True)
    with __import__("tempfile").TemporaryDirectory() as folder:
        there = start(send_natively_for_ever, path, tx.share(), Counter(folder + "/counter"), False)
        check = driver.checker()
        for claim in rx:
            check(bytes(claim))
        try:
            rx.try_recv()
            raise AssertionError
        except RecvError as error:
            assert not error.crashed
        join(there)
        assert check.due[0] >= 1000
""",
        driver,
    )


def test_forks_in_the_middle_of_native_traffic_disturb_nobody(module, driver):
    script(
        f"""
tx, rx = {module}.channel(4096, shared=True)
end, other = tx.native(), rx.native()
consumer, producer = driver.consumer(other), driver.producer(end, 2**62, how=QUIET, most=300)

def child():
    assert driver.attach_sender(end.address) == driver.attach_receiver(other.address) == FORKED
    for each in (end, other, tx, rx):
        repr(each)
        each.close()
    gc.collect()

for _ in range({size(10, 200)}):
    fork(child)
before = consumer.done
until(lambda: consumer.done > before)
end.close()
tx.close()
assert producer.join() == DISCONNECTED
assert consumer.join() == DISCONNECTED
assert (consumer.complaint, consumer.done >= producer.done) == (0, True)
""",
        driver,
    )


def test_a_fault_of_another_process_is_told_once_and_the_others_go_on(driver):
    """Somebody sends a descriptor that is no lane by a door of the channel."""
    script(
        """
import socket, struct
from nexus_channels._core import ticket_parts
tx, rx = mpsc_bytes.channel(4096, shared=True)
ticket = tx.clone().share()
with rx.native() as end:
    receiver = driver.receiver(end)
    for wait in (False, True):
        assert receiver.try_recv(100)[0] == EMPTY
        job = Spawned(receiver.recv, 100) if wait else None
        if wait:
            until_blocked(rx, receivers=1)
        with socket.socket(fileno=os.dup(ticket_parts(ticket)[1][1])) as door:
            socket.send_fds(door, [struct.pack("=IIQQQQQ", 0x6E637669, 1, 0, 0, 1, 0, 0)], [0, 0])
        assert (job.join() if wait else receiver.try_recv(100))[0] == BAD_PEER
        assert receiver.try_recv(100)[0] == EMPTY
        tx.try_send(b"goes on")
        assert receiver.recv(100)[::2] == (OK, b"goes on")
        ticket.close()
        ticket = tx.clone().share()
    ticket.close()
    tx.close()
    assert receiver.recv(100)[0] == DISCONNECTED
    receiver.detach()
""",
        driver,
    )


def test_native_ends_leave_no_descriptor(bytes_variant, driver):
    tx, rx = shared(bytes_variant)
    tx.try_send(b"so that the lane is taken in")
    rx.try_recv().release()
    collect()
    before = descriptors()
    for endpoint in (tx, rx):
        with endpoint.native() as end:
            assert len(descriptors()) == len(before) + 1
            job = (driver.producer if endpoint is tx else driver.consumer)(end, 1)
            assert job.join() == OK
        del end
    collect()
    assert descriptors() == before


def test_a_native_receiver_that_takes_new_senders_in_needs_no_gil(driver):
    """tracemalloc takes the GIL for each allocation, and who holds the GIL may wait for the lock of the lanes."""
    script(
        f"""
import tracemalloc
tracemalloc.start()
tx, rx = mpsc_bytes.channel(4096, shared=True)
with rx.native() as end:
    consumer = driver.consumer(end)
    for n in range({size(300, 10_000)}):
        other = attach(tx.clone().share())
        for _ in range(5):
            other.statistics()
            rx.statistics()
        other.try_send(driver.stamped(0, 16, n))
        until(lambda: consumer.done == n + 1)
        other.close()
    tx.close()
    assert (consumer.join(), consumer.complaint) == (DISCONNECTED, 0)
""",
        driver,
    )


def count_all(rx):
    count = 0
    try:
        while True:
            count += len(rx.recv_many_blocking(100))
    except RecvError:
        return count


@takes_long()
def test_native_ends_that_come_and_go_at_any_moment(driver):
    """What a thread was told is sent is received, whenever its end was closed."""
    rng = seeded("native ends that come and go")
    tx, rx = shared(mpsc_bytes)
    receives, jobs = Spawned(count_all, rx), []
    for _ in range(size(100, 5000)):
        ends = [tx.native() for _ in range(rng.randrange(1, 4))]
        now = [driver.producer(end, 2**62, how=SEND + rng.randrange(5), most=100) for end in ends]
        wanted = rng.randrange(200)
        until(lambda job=now[0], wanted=wanted: job.done >= wanted)
        for end in ends:
            end.close()
        jobs += now
        assert {job.join() for job in now} == {DISCONNECTED}
    tx.close()
    assert receives.join() == sum(job.done for job in jobs)
