"""Much traffic over byte channels, checked to the last byte, and memory that stays what it is.

Full sizes with NEXUS_CHANNELS_STRESS=1; seeds are printed.
"""

import asyncio
import gc
import itertools
import os
import pathlib
import random
import sys
import tracemalloc
import zlib

import pytest
from harness import GIL_ENABLED, reuses_memory, seeded, size, takes_long
from support import drive

from nexus_channels import BusyError, Full, RecvError, mpsc_bytes

SENDERS = 4
PERIOD = 1009  # of each sender's messages
STATM = pathlib.Path("/proc/self/statm")


def messages_of(sender):
    """Messages of 1 to 200 bytes; the first byte tells who sent it, and roughly when."""
    chosen = random.Random(sender)
    lengths = [chosen.randint(1, 200) for _ in range(PERIOD)]
    return [bytes([sender | number % 64 << 2]) + chosen.randbytes(length - 1) for number, length in enumerate(lengths)]


MESSAGES = [messages_of(sender) for sender in range(SENDERS)]


class Check:
    """Each sender's messages arrive in order, whole; the checksum over all of them is known beforehand."""

    def __init__(self, count):
        self.count = count
        self.next = [0] * SENDERS
        self.sums = [0] * SENDERS

    def take(self, data):
        sender = data[0] & 3
        number = self.next[sender]
        expected = MESSAGES[sender][number % PERIOD]
        assert data == expected, f"sender {sender}, message {number}: {bytes(data)!r} instead of {expected!r}"
        self.sums[sender] = zlib.crc32(data, self.sums[sender])
        self.next[sender] = number + 1

    def finish(self):
        assert self.next == [self.count] * SENDERS
        for sender in range(SENDERS):
            expected = 0
            for number in range(self.count):
                expected = zlib.crc32(MESSAGES[sender][number % PERIOD], expected)
            assert self.sums[sender] == expected


def send_all(tx, sender, count, chosen):
    """By every blocking way there is, mixed; with claims dropped, aborted and shrunk in between."""
    messages = itertools.islice(itertools.cycle(MESSAGES[sender]), count)
    ways = ["send", "claim", "many", "try", "shrink", "abort", "drop"]
    with tx:
        while batch := list(itertools.islice(messages, chosen.randint(1, 100))):
            way = chosen.choice(ways)
            if way == "many":
                tx.send_many_blocking(batch)
                continue
            for data in batch:
                if way == "send":
                    tx.send_blocking(data)
                elif way == "claim":
                    with tx.claim_blocking(len(data)) as view:
                        view[:] = data
                elif way == "shrink":
                    claim = tx.claim_blocking(len(data) + chosen.randint(0, 50))
                    claim[: len(data)] = data
                    claim.commit(len(data))
                elif way == "try":
                    try:
                        tx.try_send(data)
                    except Full:
                        tx.send_blocking(data)
                else:
                    claim = tx.claim_blocking(chosen.randint(1, 200))
                    claim[:1] = b"!"
                    if way == "abort":
                        claim.abort()
                    del claim
                    tx.send_blocking(data)


def receive_all(rx, check, chosen):
    target = bytearray(256)
    try:
        while True:
            for claim in itertools.islice(rx, chosen.randint(1, 200)):
                with claim as view:
                    check.take(view)
            for data in rx.recv_many_blocking(chosen.randint(1, 200)):
                check.take(data)
            for _ in range(chosen.randint(1, 100)):
                check.take(rx.recv_bytes_blocking())
            for _ in range(chosen.randint(1, 100)):
                check.take(target[: rx.recv_into_blocking(target)])
    except RecvError:
        return


async def receive_all_async(rx, check, chosen):
    target = bytearray(256)
    try:
        while True:
            left = chosen.randint(1, 200)
            async for claim in rx:
                with claim as view:
                    check.take(view)
                left -= 1
                if left == 0:
                    break
            for data in await rx.recv_many(chosen.randint(1, 200)):
                check.take(data)
            for _ in range(chosen.randint(1, 100)):
                check.take(await rx.recv_bytes())
            for _ in range(chosen.randint(1, 100)):
                check.take(target[: await rx.recv_into(target)])
    except RecvError:
        return


def finish(threads):
    """Join threads that may take longer than a deadline; the watchdog looks after them."""
    for thread in threads:
        while thread.is_alive():
            thread._thread.join(1)
        thread.join()


def start_senders(spawn, tx, count):
    seeds = seeded("senders")
    senders = [tx] + [tx.clone() for _ in range(SENDERS - 1)]
    return [spawn(send_all, senders[sender], sender, count, random.Random(seeds.random())) for sender in range(SENDERS)]


@takes_long(full=7200)
@pytest.mark.parametrize("capacity", [512, 65536])
def test_four_threads_into_one_thread_lose_nothing_and_keep_order(spawn, capacity):
    count = size(6_000, 2_500_000 if capacity > 1000 else 250_000)
    tx, rx = mpsc_bytes.channel(capacity)
    check = Check(count)
    threads = start_senders(spawn, tx, count)
    del tx
    receive_all(rx, check, seeded("receiver"))
    finish(threads)
    check.finish()
    assert rx.used == 0


@takes_long(full=7200)
@pytest.mark.parametrize("capacity", [512, 65536])
def test_four_threads_into_one_task_lose_nothing_and_keep_order(spawn, loop_factory, capacity):
    count = size(6_000, 2_500_000 if capacity > 1000 else 250_000)
    tx, rx = mpsc_bytes.channel(capacity)
    check = Check(count)
    threads = start_senders(spawn, tx, count)
    del tx
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(receive_all_async(rx, check, seeded("receiver")))
    finish(threads)
    check.finish()
    assert rx.used == 0


@takes_long()
def test_one_thread_to_another_through_a_ring_of_64_bytes(bytes_variant, spawn):
    """Both sides wait again and again: a lost wake-up would hang it."""
    count = size(5_000, 1_000_000)
    there, worker_in = bytes_variant.channel(64)
    worker_out, back = bytes_variant.channel(64)

    def echo():
        with worker_out:
            for claim in worker_in:
                with claim as view, worker_out.claim_blocking(len(view)) as room:
                    room[:] = view

    echoing = spawn(echo)
    for number in range(count):
        data = b"%d" % number * (number % 7 + 1)
        there.send_blocking(data[:56])
        if number % 2:
            assert back.recv_bytes_blocking() == data[:56]
        else:
            with back.recv_blocking() as view:
                assert view == data[:56]
    there.close()
    finish([echoing])
    with pytest.raises(RecvError):
        back.recv_bytes_blocking()


@takes_long()
def test_threads_that_share_one_sender_and_one_receiver_never_mix_messages(bytes_variant, spawn):
    """An endpoint lent to one thread's claim is busy for the others; nobody ever sees half a message."""
    count = size(1_000, 100_000)
    tx, rx = bytes_variant.channel(512)

    def send(sender):
        chosen = random.Random(sender)
        for number in range(count):
            data = MESSAGES[sender][number % PERIOD]
            while True:
                try:
                    if chosen.random() < 0.5:
                        tx.send_blocking(data)
                    else:
                        with tx.claim_blocking(len(data)) as view:
                            view[:] = data
                    break
                except BusyError:
                    os.sched_yield()

    received = [[], []]

    def receive(mine):
        while True:
            try:
                mine.append(rx.recv_bytes_blocking())
                with rx.recv_blocking() as view:
                    mine.append(bytes(view))
            except BusyError:
                os.sched_yield()
            except RecvError:
                return

    senders = [spawn(send, sender) for sender in range(2)]
    receivers = [spawn(receive, mine) for mine in received]
    finish(senders)
    tx.close()
    finish(receivers)
    expected = [MESSAGES[sender][number % PERIOD] for sender in range(2) for number in range(count)]
    assert sorted(received[0] + received[1]) == sorted(expected)


# Memory


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pass_messages(tx, rx, count):
    """By each form that need not wait; a tenth of the claims end some other way."""
    target = bytearray(256)
    for number in range(count // 5):
        data = MESSAGES[0][number % PERIOD]
        tx.try_send(data)
        rx.try_recv_bytes()
        with tx.try_claim(len(data)) as view:
            view[:] = data
        with rx.try_recv() as view:
            view[0]
        drive(tx.send(data))
        drive(rx.recv_into(target))
        tx.try_send_many([data])
        rx.try_recv_many(3)
        claim = tx.try_claim(200)
        if number % 2:
            claim.commit(100)
            drive(rx.recv()).release()
        else:
            claim.abort()
        del claim
        tx.send_blocking(data)
        rx.recv_blocking()  # dropped


@takes_long()
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
@reuses_memory
def test_no_memory_grows_with_the_number_of_messages(bytes_variant):
    tx, rx = bytes_variant.channel(1024)
    pass_messages(tx, rx, 20_000)
    gc.collect()
    before = resident()
    pass_messages(tx, rx, size(200_000, 10_000_000))
    gc.collect()
    assert resident() - before < 2 << 20


@takes_long()
def test_no_traced_allocation_grows_with_the_number_of_messages(bytes_variant):
    tx, rx = bytes_variant.channel(1024)
    pass_messages(tx, rx, 5_000)
    gc.collect()
    tracemalloc.start()
    try:
        pass_messages(tx, rx, 1_000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        pass_messages(tx, rx, size(20_000, 1_000_000))
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096
    assert peak - before < 65536


@takes_long()
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
@pytest.mark.skipif(not GIL_ENABLED, reason="without the GIL, freed objects wait for quiet moments of all threads")
@reuses_memory
def test_no_memory_grows_while_both_sides_wait_for_each_other(bytes_variant, spawn):
    count = size(20_000, 10_000_000)
    tx, rx = bytes_variant.channel(128)

    def produce():
        for number in range(count):
            tx.send_blocking(MESSAGES[0][number % PERIOD][:100])

    producing = spawn(produce)
    before = None
    for number in range(count):
        rx.recv_bytes_blocking()
        if number == count // 10:
            before = resident()
    finish([producing])
    assert resident() - before < 2 << 20


@takes_long()
@reuses_memory
def test_channels_with_claims_out_are_freed_whole(bytes_variant):
    """Rings of 64 KiB: a leak of one in a hundred would show."""
    if not STATM.exists():
        pytest.skip("needs /proc")

    def open_and_leave(rounds):
        for number in range(rounds):
            tx, rx = bytes_variant.channel(1 << 16)
            tx.try_send(b"x" * 60_000)
            kept = [rx.try_recv(), memoryview(tx.try_claim(1000))]
            if number % 2:
                tx.close()
                rx.close()
            if number % 3 == 0:
                kept.append(kept)
                kept.append(tx)
            if number % 100 == 0:
                gc.collect()  # beside a large heap the collector waits long, and the C library keeps what it was given

    open_and_leave(300)
    gc.collect()
    before = resident()
    open_and_leave(size(3_000, 300_000))
    gc.collect()
    assert resident() - before < 8 << 20, sys.version
