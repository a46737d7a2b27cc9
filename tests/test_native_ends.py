"""Native ends, one behaviour a test: attaching, sending, receiving, claims, closing from either side."""

import asyncio
import copy
import ctypes
import gc
import pickle
import time
import weakref

import pytest
from harness import run_child
from native_driver import (
    ABORTING,
    BAD_HANDLE,
    BAD_VERSION,
    BUSY,
    CLAIM,
    DISCONNECTED,
    EMPTY,
    FULL,
    MANY,
    MILLISECOND,
    NO_CLAIM,
    OK,
    PEEK,
    QUIET,
    RECV,
    SEND,
    TIMEOUT,
    TOO_LARGE,
    ZERO_LENGTH,
)
from steploop import StepLoop
from support import Spawned, collect, in_thread, until, until_blocked, until_parked

from nexus_channels import errors, mpsc_bytes, spsc_bytes

WAYS = [SEND, CLAIM, MANY, QUIET, ABORTING]


# ---- what Python sees -------------------------------------------------------------------------------------------


def test_an_end_has_an_address_and_tells_its_state(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    for endpoint in (tx, rx):
        end = endpoint.native()
        assert isinstance(end.address, int)
        assert end.address % 8 == 0
        assert (end.is_closed, end.is_attached, end.is_disconnected) == (False, False, False)
        assert "open, nobody attached" in repr(end)
        end.close()
        assert end.is_closed
        assert "closed" in repr(end)
        end.close()


def test_the_capsule_is_named_for_its_side_and_keeps_the_address_good(bytes_variant, driver):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tx, rx = bytes_variant.channel(256)
    for endpoint, name in ((tx, b"nexus_channels.sender"), (rx, b"nexus_channels.receiver")):
        end = endpoint.native()
        capsule = end.capsule
        address = end.address
        assert get(capsule, name) == address
        del end
        collect()
        attach = driver.attach_sender if endpoint is tx else driver.attach_receiver
        assert attach(address) == DISCONNECTED


def test_an_end_cannot_be_copied_or_pickled_or_made_by_hand(bytes_variant):
    end = bytes_variant.channel(64).sender.native()
    for attempt in (lambda: copy.copy(end), lambda: pickle.dumps(end), type(end)):
        with pytest.raises(TypeError):
            attempt()
    with pytest.raises(TypeError):
        end.close(True)


def test_an_end_counts_as_open_and_keeps_its_endpoint(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    end = tx.native()
    assert rx.statistics().open_senders == 2
    gone = weakref.ref(tx)
    del tx
    collect()
    assert gone() is not None
    assert not rx.is_disconnected
    end.close()
    collect()
    assert gone() is None
    assert rx.is_disconnected
    with pytest.raises(errors.RecvError):
        rx.try_recv()


def test_dropping_an_end_closes_it_and_so_does_leaving_its_block(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    tx.native()
    collect()
    assert rx.statistics().open_senders == 1
    with tx.native() as end:
        assert rx.statistics().open_senders == 2
        assert not end.is_closed
    assert end.is_closed
    assert rx.statistics().open_senders == 1


def test_a_closed_endpoint_gives_no_end(bytes_variant):
    tx, rx = bytes_variant.channel(256)
    tx.close()
    rx.close()
    for endpoint in (tx, rx):
        with pytest.raises(errors.EndpointClosed):
            endpoint.native()


def test_ends_of_one_mpsc_sender_are_further_senders():
    tx, rx = mpsc_bytes.channel(256)
    ends = [tx.native(), tx.native()]
    assert rx.statistics().open_senders == 3
    tx.try_send(b"not lent")
    assert rx.try_recv_bytes() == b"not lent"
    tx.close()
    for end in ends:
        assert not rx.is_disconnected
        end.close()
    assert rx.is_disconnected


@pytest.mark.parametrize(
    ("module", "side"), [(spsc_bytes, "sender"), (spsc_bytes, "receiver"), (mpsc_bytes, "receiver")]
)
def test_a_lent_endpoint_is_busy_until_its_end_is_closed(module, side):
    channel = module.channel(256)
    endpoint = getattr(channel, side)
    end = endpoint.native()
    calls = (
        [lambda: endpoint.try_send(b"x"), lambda: endpoint.try_claim(1), lambda: endpoint.send(b"x")]
        if hasattr(endpoint, "send")
        else [endpoint.try_recv, endpoint.try_recv_bytes, endpoint.recv, lambda: endpoint.recv_blocking(timeout=1)]
    )
    for call in [*calls, endpoint.native]:
        with pytest.raises(errors.BusyError, match="native end"):
            call()
    assert len(endpoint) == 0
    end.close()
    if hasattr(endpoint, "send"):
        endpoint.try_send(b"x")
    else:
        with pytest.raises((errors.Empty, errors.RecvError)):
            endpoint.try_recv()


def test_an_endpoint_is_not_lent_while_a_claim_is_open_or_somebody_waits():
    tx, rx = spsc_bytes.channel(64)
    claim = tx.try_claim(8)
    with pytest.raises(errors.BusyError, match="claim"):
        tx.native()
    claim.abort()
    waiting = Spawned(rx.recv_bytes_blocking)
    until_blocked(tx, receivers=1)
    with pytest.raises(errors.BusyError, match="others wait"):
        rx.native()
    tx.try_send(b"x")
    waiting.join()
    rx.native().close()


def test_a_lent_endpoint_that_is_closed_leaves_with_its_end(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    with rx.native() as end:
        native = driver.receiver(end)
        rx.close()
        assert not tx.is_disconnected
        tx.try_send(b"still there")
        assert native.try_recv(64)[2] == b"still there"
        native.detach()
    assert tx.is_disconnected
    with pytest.raises(errors.SendError):
        tx.try_send(b"x")


# ---- attaching --------------------------------------------------------------------------------------------------


def test_one_thread_at_a_time_is_attached(bytes_variant, driver):
    tx, _rx = bytes_variant.channel(256)
    end = tx.native()
    native = driver.sender(end)
    assert end.is_attached
    assert driver.attach_sender(end.address) == BUSY
    native.detach()
    assert not end.is_attached
    driver.sender(end).detach()


def test_what_is_not_an_end_of_this_side_is_refused(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    assert driver.attach_sender(None) == BAD_HANDLE
    assert driver.attach_receiver(tx.native().address) == BAD_HANDLE
    assert driver.attach_sender(rx.native().address) == BAD_HANDLE
    nothing = ctypes.create_string_buffer(64)
    assert driver.attach_sender(ctypes.addressof(nothing)) == BAD_HANDLE


@pytest.mark.parametrize(("at", "value"), [(8, 2), (8, 0), (12, 8)])
def test_another_version_is_refused(driver, at, value):
    end = spsc_bytes.channel(64).sender.native()
    copied = ctypes.create_string_buffer(ctypes.string_at(end.address, 24), 24)
    ctypes.c_uint32.from_buffer(copied, at).value = value  # the layout, or the size of the table
    assert driver.attach_sender(ctypes.addressof(copied)) == BAD_VERSION


def test_a_newer_table_that_has_more_is_accepted(driver):
    end = spsc_bytes.channel(64).sender.native()
    size = ctypes.c_uint32.from_address(end.address + 12)
    size.value += 8
    driver.sender(end).detach()


def test_results_have_words(driver):
    words = [driver.strerror(result) for result in range(18)]
    assert len(set(words)) == 18
    assert driver.strerror(18) == driver.strerror(-1) == "unknown result"


# ---- sending ----------------------------------------------------------------------------------------------------


def test_a_message_sent_natively_arrives_and_what_python_sends_too(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native_tx, native_rx = driver.sender(tx.native()), driver.receiver(rx.native())
    assert native_tx.max_message_size() == 248
    assert native_tx.try_send(b"hello") == OK
    assert native_tx.used() == 16
    assert native_rx.try_peek() == (OK, b"hello")
    assert native_rx.release() == OK
    assert native_rx.try_recv(64) == (EMPTY, 0, None)
    native_tx.detach()
    native_rx.detach()


def test_sizes_that_do_not_fit_are_refused_first(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    native = driver.sender(tx.native())
    assert native.try_send(b"") == ZERO_LENGTH
    assert native.try_send(bytes(57)) == TOO_LARGE
    assert native.claim(0) == (ZERO_LENGTH, None)
    assert native.claim(2**64 - 1) == (TOO_LARGE, None)
    assert native.send_many([b"one", b"", b"three"]) == (ZERO_LENGTH, 1)
    assert rx.try_recv_bytes() == b"one"
    assert native.try_send(bytes(56)) == OK
    assert native.try_send(b"x") == FULL
    assert native.try_claim(1) == (FULL, None)
    native.detach()


def test_a_claim_is_written_in_place_and_may_shrink(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native = driver.sender(tx.native())
    result, place = native.claim(40)
    assert result == OK
    assert place % 8 == 0
    ctypes.memmove(place, b"shorter", 7)
    assert native.try_claim(8) == (BUSY, None)
    assert native.try_send(b"x") == BUSY
    assert native.send_many([b"x"]) == (BUSY, 0)
    assert native.commit(41) == TOO_LARGE
    assert native.commit(0) == ZERO_LENGTH
    assert rx.try_recv_many(5) == []
    assert native.commit(7) == OK
    assert rx.try_recv_bytes() == b"shorter"
    assert native.commit(1) == native.abort() == NO_CLAIM
    native.detach()


def test_an_aborted_claim_leaves_nothing(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    native = driver.sender(tx.native())
    for _ in range(20):
        assert native.try_claim(56)[0] == OK
        assert native.abort() == OK
        assert rx.try_recv_many(1) == []
    assert native.try_send(bytes(56)) == OK
    native.detach()


def test_detaching_aborts_the_claim_and_announces_what_was_quiet(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    end = tx.native()
    native = driver.sender(end)
    waiting = Spawned(rx.recv_bytes_blocking)
    until_blocked(tx, receivers=1)
    _, place = native.claim(5)
    ctypes.memmove(place, b"quiet", 5)
    assert native.commit_quiet(5) == OK
    assert native.try_claim(8)[0] == OK
    assert waiting.is_alive()
    native.detach()
    assert waiting.join() == b"quiet"
    assert rx.try_recv_many(1) == []
    assert tx.statistics().open_senders == 2


def test_quiet_commits_wake_with_the_flush(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native = driver.sender(tx.native())
    waiting = Spawned(rx.recv_bytes_blocking)
    until_blocked(tx, receivers=1)
    for _ in range(3):
        assert native.claim(8)[0] == OK
        assert native.commit_quiet(8) == OK
    assert tx.statistics().waiting_receivers == 1
    assert native.flush() == OK
    waiting.join()
    assert len(rx.try_recv_many(9)) == 2
    native.detach()


def test_a_full_ring_announces_what_was_quiet(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    native = driver.sender(tx.native())
    waiting = Spawned(rx.recv_bytes_blocking)
    until_blocked(tx, receivers=1)
    assert native.claim(56)[0] == OK
    assert native.commit_quiet(56) == OK
    assert native.try_send(b"x") == FULL
    assert waiting.join() == bytes(56)
    native.detach()


def test_a_batch_goes_as_far_as_there_is_room(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    native = driver.sender(tx.native())
    assert native.send_many([b"12345678"] * 9, timeout=0) == (FULL, 4)
    assert native.send_many([b"12345678"] * 9, timeout=MILLISECOND) == (TIMEOUT, 0)
    sending = Spawned(native.send_many, [b"abcdefgh"] * 9)
    assert [rx.recv_bytes_blocking(timeout=10) for _ in range(13)] == [b"12345678"] * 4 + [b"abcdefgh"] * 9
    assert sending.join() == (OK, 9)
    assert native.send_many([]) == (OK, 0)
    native.detach()


# ---- receiving --------------------------------------------------------------------------------------------------


def test_a_native_receiver_borrows_or_copies(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native = driver.receiver(rx.native())
    assert native.try_peek() == (EMPTY, None)
    assert native.release() == NO_CLAIM
    for message in (b"first", b"second", b"third, longer"):
        tx.try_send(message)
    assert native.try_peek() == (OK, b"first")
    assert native.try_peek() == (BUSY, None)
    assert native.try_recv(64) == (BUSY, 0, None)
    assert native.release() == OK
    assert native.try_recv(6) == (OK, 6, b"second")
    assert native.try_recv(6) == (TOO_LARGE, 13, None)
    assert native.recv(13) == (OK, 13, b"third, longer")
    native.detach()


def test_detaching_releases_what_was_borrowed(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    end = rx.native()
    native = driver.receiver(end)
    tx.try_send(bytes(56))
    assert native.try_peek()[0] == OK
    native.detach()
    tx.try_send(b"room again")
    end.close()
    assert rx.try_recv_bytes() == b"room again"


def test_everything_is_received_before_the_end(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native = driver.receiver(rx.native())
    tx.try_send_many([b"a", b"b"])
    assert not native.is_disconnected()
    tx.close()
    assert native.is_disconnected()
    assert native.recv(8)[2] == b"a"
    assert native.peek() == (OK, b"b")
    assert native.release() == OK
    assert native.recv(8) == (DISCONNECTED, 0, None)
    assert native.try_peek() == (DISCONNECTED, None)
    native.detach()


# ---- waiting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds", [0, 1, 30])
def test_waits_end_on_time(bytes_variant, driver, milliseconds):
    tx, rx = bytes_variant.channel(64)
    native_tx, native_rx = driver.sender(tx.native()), driver.receiver(rx.native())
    timeout = milliseconds * MILLISECOND
    began = time.monotonic()
    assert native_rx.peek(timeout) == (TIMEOUT if timeout else EMPTY, None)
    assert native_rx.recv(8, timeout)[0] == (TIMEOUT if timeout else EMPTY)
    native_tx.try_send(bytes(56))
    assert native_tx.send(b"x", timeout) == (TIMEOUT if timeout else FULL)
    assert native_tx.claim(8, timeout) == (TIMEOUT if timeout else FULL, None)
    assert time.monotonic() - began >= 4 * milliseconds / 1000
    assert tx.statistics().waiting_senders == tx.statistics().waiting_receivers == 0
    assert native_rx.recv(64, 2**63 - 1)[0] == OK
    assert native_tx.send(b"x", 2**63 - 1) == OK
    native_tx.detach()
    native_rx.detach()


def test_python_wakes_a_native_receiver_and_a_native_sender(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    native = driver.receiver(rx.native())
    receiving = Spawned(native.recv, 64)
    until_blocked(tx, receivers=1)
    tx.try_send(b"wake up")
    assert receiving.join() == (OK, 7, b"wake up")
    native.detach()

    tx, rx = bytes_variant.channel(64)
    tx.try_send(bytes(56))
    native = driver.sender(tx.native())
    sending = Spawned(native.send, b"room?")
    until_blocked(rx, senders=1)
    assert rx.try_recv_bytes() == bytes(56)
    assert sending.join() == OK
    assert rx.try_recv_bytes() == b"room?"
    native.detach()


def test_a_native_thread_wakes_a_blocked_python_thread(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    with tx.native() as end:
        waiting = Spawned(rx.recv_bytes_blocking)
        until_blocked(tx, receivers=1)
        assert driver.producer(end, 1, most=24).join() == OK
        assert waiting.join() == driver.stamped(0, 16, 0)


def test_a_native_thread_wakes_a_task(run, bytes_variant, driver):
    """Of a loop that was never woken from outside before, with no wake fd yet."""

    async def main():
        tx, rx = bytes_variant.channel(64)
        with tx.native() as end:
            for number in range(3):
                waiting = asyncio.create_task(rx.recv_bytes())
                await until_parked(tx, receivers=1)
                job = driver.producer(end, 1, who=number)
                assert await waiting == driver.stamped(number, 16, 0)
                assert job.join() == OK

    run(main())


def test_a_task_that_waited_before_there_was_a_native_end_is_woken_too(run, bytes_variant, driver):
    async def main():
        tx, rx = bytes_variant.channel(64)
        waiting = asyncio.create_task(rx.recv_bytes())
        await until_parked(tx, receivers=1)
        with tx.native() as end:
            job = driver.producer(end, 1)
            assert job.join() == OK  # without the loop running in between
            assert await waiting == driver.stamped(0, 16, 0)

    run(main())


def test_two_tasks_of_one_loop_that_waited_before_there_was_a_native_end_are_woken(run, bytes_variant, driver):
    async def main():
        tx, rx = bytes_variant.channel(64)
        waiting = [asyncio.create_task(rx.recv_bytes()) for _ in range(2)]
        await until_parked(tx, receivers=2)
        with tx.native() as end:
            assert driver.producer(end, 2).join() == OK
            for number in range(2):
                assert await waiting[number] == driver.stamped(0, 16, number)

    run(main())


def test_native_code_that_comes_between_the_look_and_the_sleep_wakes_the_task_too(bytes_variant, driver):
    """The end is made after the task has seen that there is none, before it stands in line."""
    ends = []

    class Loop(StepLoop):
        def create_future(self):
            if not ends:
                ends.append(tx.native())
            return super().create_future()

    loop = Loop()
    tx, rx = bytes_variant.channel(64)
    task = loop.create_task(rx.recv_bytes())
    loop.run_ready()
    assert driver.producer(ends[0], 1).join() == OK
    loop.wait_ready()
    loop.run_ready()
    assert task.result() == driver.stamped(0, 16, 0)
    ends[0].close()
    assert loop.errors == []
    loop.close()


def test_a_native_receiver_wakes_a_sending_task(run, bytes_variant, driver):
    async def main():
        tx, rx = bytes_variant.channel(64)
        with rx.native() as end:
            tx.try_send(driver.stamped(0, 48, 0))
            sending = asyncio.create_task(tx.send(driver.stamped(0, 48, 1)))
            await until_parked(tx, senders=1)
            job = driver.consumer(end, 2)
            await sending
            assert await in_thread(job.join) == OK
            assert (job.done, job.complaint) == (2, 0)

    run(main())


DEAF = """
import asyncio, importlib, sys, threading
import native_driver
from support import *
module = importlib.import_module("nexus_channels." + sys.argv[1])
driver = native_driver.Driver(sys.argv[2])

class Deaf(asyncio.SelectorEventLoop):
    deaf = False

    def add_reader(self, *args):
        if self.deaf:
            raise NotImplementedError
        return super().add_reader(*args)

def run(main):
    async def deaf():
        asyncio.get_running_loop().deaf = True
        await main()
    loop = Deaf()
    loop.run_until_complete(deaf())
    loop.close()
"""


def test_a_task_on_a_loop_without_readers_is_woken_by_native_code_too(bytes_variant, driver):
    script = """
async def main():
    tx, rx = module.channel(64)
    before = asyncio.create_task(rx.recv_bytes())
    await until_parked(tx, receivers=1)
    with tx.native() as end:
        assert driver.producer(end, 1).join() == 0  # without the loop running in between
        assert await before == driver.stamped(0, 16, 0)
        for number in range(100):
            waiting = asyncio.create_task(rx.recv_bytes())
            await until_parked(tx, receivers=1)
            job = driver.producer(end, 1, who=number)
            assert await waiting == driver.stamped(number, 16, 0)
            assert job.join() == 0

run(main)
print("woken")
"""
    name = bytes_variant.__name__.rpartition(".")[2]
    assert run_child(DEAF + script, name, driver.path, seconds=30) == "woken\n"


def test_a_task_on_a_loop_that_native_code_could_not_wake_is_told_so(bytes_variant, driver):
    """There are no readers, and no thread can be started."""
    script = """
threads = threading.stack_size(1 << 46)

async def refused(awaitable):
    try:
        await awaitable
    except RuntimeError as error:
        return str(error)

async def main():
    tx, rx = module.channel(64)
    before = asyncio.create_task(refused(rx.recv_bytes()))
    await until_parked(tx, receivers=1)
    end = tx.native()
    message = await before
    assert "recv_bytes() has to wait, and native code could not wake <" in message, message
    assert message.endswith("and no thread could be started to call its call_soon_threadsafe()"), message
    assert await refused(rx.recv_bytes()) == message
    assert tx.statistics().waiting_receivers == 0
    threading.stack_size(threads)
    assert driver.producer(end, 1).join() == 0
    assert await rx.recv_bytes() == driver.stamped(0, 16, 0)
    end.close()
    del end
    collect()
    after = asyncio.create_task(rx.recv_bytes())  # no native code, no need
    await until_parked(tx, receivers=1)
    await in_thread(tx.try_send, b"by call_soon_threadsafe")
    assert await after == b"by call_soon_threadsafe"

run(main)
print("told")
"""
    name = bytes_variant.__name__.rpartition(".")[2]
    assert run_child(DEAF + script, name, driver.path, seconds=30) == "told\n"


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("receive", [PEEK, RECV])
def test_native_to_native_in_a_small_ring(bytes_variant, driver, how, receive):
    tx, rx = bytes_variant.channel(256)
    with tx.native() as sending, rx.native() as receiving:
        consumer = driver.consumer(receiving, 20_000, how=receive)
        producer = driver.producer(sending, 20_000, how=how, who=3, least=16, most=100)
        assert producer.join() == OK
        assert consumer.join() == OK
        assert (consumer.done, consumer.complaint, consumer.due(3)) == (20_000, 0, 20_000)


# ---- closing ----------------------------------------------------------------------------------------------------


def test_a_sender_is_told_that_the_receiver_is_gone(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    native = driver.sender(tx.native())
    assert native.try_claim(8)[0] == OK
    rx.close()
    assert native.is_disconnected()
    assert native.commit(8) == DISCONNECTED
    assert native.commit(8) == NO_CLAIM
    assert native.try_send(b"x") == native.send(b"x") == DISCONNECTED
    assert native.claim(8) == (DISCONNECTED, None)
    assert native.send_many([b"x"]) == (DISCONNECTED, 0)
    native.detach()


@pytest.mark.parametrize("how", WAYS)
def test_closing_the_receiver_wakes_a_native_sender(bytes_variant, driver, how):
    tx, rx = bytes_variant.channel(64)
    end = tx.native()
    producer = driver.producer(end, 1000, how=how)
    until_blocked(tx, senders=1)
    rx.close()
    assert producer.join() == DISCONNECTED


def test_closing_the_senders_wakes_a_native_receiver(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    end = rx.native()
    consumer = driver.consumer(end)
    until_blocked(tx, receivers=1)
    tx.close()
    assert consumer.join() == DISCONNECTED


@pytest.mark.parametrize("drop", [False, True])
def test_closing_an_end_wakes_its_own_thread(bytes_variant, driver, drop):
    tx, rx = bytes_variant.channel(64)
    end = rx.native()
    consumer = driver.consumer(end)
    until_blocked(tx, receivers=1)
    if drop:
        del end
    else:
        end.close()
    assert consumer.join() == DISCONNECTED
    assert tx.statistics().waiting_receivers == 0
    tx.try_send(b"given back")
    assert rx.try_recv_bytes() == b"given back"


def test_after_closing_every_call_answers_disconnected(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    ends = [tx.native(), rx.native()]
    native_tx, native_rx = driver.sender(ends[0]), driver.receiver(ends[1])
    native_tx.end = native_rx.end = None
    for end in ends:
        end.close()
    del ends, end
    tx.close()
    rx.close()
    del tx, rx
    collect()
    assert native_tx.try_send(b"x") == native_tx.abort() == native_tx.commit(1) == DISCONNECTED
    assert native_tx.flush() == OK
    assert native_tx.is_disconnected() == native_rx.is_disconnected() == 1
    assert native_rx.try_peek() == (DISCONNECTED, None)
    assert native_rx.recv(8)[0] == native_rx.release() == DISCONNECTED
    native_tx.detach()
    native_rx.detach()


def test_an_open_write_claim_keeps_a_closed_end_in_the_channel(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    end = tx.native()
    native = driver.sender(end)
    _, place = native.claim(4)
    ctypes.memmove(place, b"last", 4)
    end.close()
    tx.close()
    native.end = None
    del end, tx
    collect()
    assert not rx.is_disconnected
    assert rx.try_recv_many(1) == []
    assert native.try_send(b"x") == DISCONNECTED
    assert native.commit_quiet(4) == OK
    assert rx.is_disconnected
    assert rx.try_recv_bytes() == b"last"
    with pytest.raises(errors.RecvError):
        rx.try_recv_bytes()
    assert native.commit(4) == DISCONNECTED
    native.detach()


def test_an_open_read_claim_keeps_a_closed_end_in_the_channel(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(bytes(56))
    end = rx.native()
    native = driver.receiver(end)
    assert native.peek()[0] == OK
    sending = Spawned(tx.send_blocking, b"value")
    until_blocked(rx, senders=1)
    end.close()
    rx.close()
    assert not tx.is_disconnected
    assert native.release() == OK
    assert tx.is_disconnected
    with pytest.raises(errors.SendError):
        sending.join()
    native.detach()


def test_an_endpoint_comes_back_when_its_end_is_closed_and_its_claim_over(driver):
    tx, rx = spsc_bytes.channel(256)
    end = tx.native()
    native = driver.sender(end)
    native.claim(8)
    end.close()
    with pytest.raises(errors.BusyError):
        tx.try_send(b"x")
    assert native.abort() == OK
    tx.try_send(b"x")
    assert rx.try_recv_bytes() == b"x"
    native.detach()


def test_an_abandoned_write_claim_is_aborted(bytes_variant, driver):
    """The thread died between claim and commit."""
    tx, rx = bytes_variant.channel(256)
    end = tx.native()
    assert driver.sender(end).try_claim(8)[0] == OK
    end.close()
    assert rx.statistics().open_senders == 2
    end.close(abandon=True)
    assert not end.is_attached
    assert rx.statistics().open_senders == 1
    tx.try_send(b"the way is free")
    assert rx.try_recv_bytes() == b"the way is free"
    end.close(abandon=True)


def test_an_abandoned_read_claim_is_released(bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(bytes(56))
    with rx.native() as end:
        assert driver.receiver(end).try_peek()[0] == OK
        end.close(abandon=True)
    tx.try_send(b"room")
    assert rx.try_recv_bytes() == b"room"


def test_a_thread_that_died_without_detaching_leaves_by_close(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    end = tx.native()
    assert driver.producer(end, 3, stay=True).join() == OK
    assert end.is_attached
    tx.close()
    end.close()
    assert rx.is_disconnected
    assert len(rx.try_recv_many(9)) == 3
    end.close(abandon=True)


@pytest.mark.parametrize("how", WAYS)
def test_an_end_closed_in_mid_stream_delivers_what_its_thread_was_told_went(bytes_variant, driver, how):
    """Exactly: sends that returned OK == messages received, whatever the moment of the close."""
    for pause in range(30):
        tx, rx = bytes_variant.channel(1 << 14)
        end = tx.native()
        producer = driver.producer(end, 10**9, how=how, timeout=0)
        tx.close()
        until(lambda job=producer, least=pause * 7: job.done >= least or job.join() != OK)
        end.close()
        received = []
        while True:
            try:
                received += rx.try_recv_many(1000)
            except errors.RecvError:
                break
        assert producer.join() in (DISCONNECTED, FULL)
        check = driver.checker()
        for message in received:
            check(message)
        assert len(received) == producer.done


def test_a_loop_of_ends_leaks_nothing_and_blocks_nothing(bytes_variant, driver):
    tx, rx = bytes_variant.channel(256)
    gc.collect()
    for number in range(200):
        with tx.native() as sending, rx.native() as receiving:
            consumer = driver.consumer(receiving, 1)
            assert driver.producer(sending, 1, who=number % 16).join() == OK
            assert consumer.join() == OK
    stats = tx.statistics()
    assert (stats.open_senders, stats.open_receivers, stats.buffered) == (1, 1, 0)


def test_a_claim_by_a_python_sibling_and_native_sends_keep_their_order():
    """An open claim holds up what others send after it, whoever they are."""
    tx, rx = mpsc_bytes.channel(256)
    claim = tx.try_claim(5)
    twin = tx.clone()
    twin.try_send(b"later")
    assert rx.try_recv_many(5) == []
    claim[:] = b"first"
    claim.commit()
    assert rx.try_recv_many(5) == [b"first", b"later"]


def test_native_and_python_senders_are_served_in_line(driver):
    tx, rx = mpsc_bytes.channel(64)
    tx.try_send(bytes(56))
    ends = [tx.native(), tx.native()]
    first = driver.producer(ends[0], 1, who=1, least=48, most=48)
    until_blocked(rx, senders=1)
    second = Spawned(tx.send_blocking, driver.stamped(2, 48, 0))
    until_blocked(rx, senders=2)
    third = driver.producer(ends[1], 1, who=3, least=48, most=48)
    until_blocked(rx, senders=3)
    assert rx.recv_bytes_blocking() == bytes(56)
    for who in (1, 2, 3):
        assert rx.recv_bytes_blocking(timeout=10) == driver.stamped(who, 48, 0)
    assert first.join() == third.join() == OK
    second.join()
