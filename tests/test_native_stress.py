"""Native threads at length: every message checksummed and in its producer's order, none lost, none twice."""

import asyncio
import threading

import pytest
from harness import size, takes_long
from native_driver import ABORTING, CLAIM, DISCONNECTED, MANY, OK, QUIET, SEND
from support import Spawned, in_thread

from nexus_channels import mpsc_bytes


@takes_long()
@pytest.mark.parametrize("how", [SEND, QUIET])
def test_native_to_native_64_bytes(bytes_variant, driver, how):
    count = size(300_000, 100_000_000)
    tx, rx = bytes_variant.channel(1 << 16)
    with tx.native() as sending, rx.native() as receiving:
        consumer = driver.consumer(receiving, count)
        producer = driver.producer(sending, count, how=how, least=64, most=64)
        assert producer.join() == OK
        assert consumer.join() == OK
        assert (consumer.complaint, consumer.due(0)) == (0, count)


@takes_long()
@pytest.mark.parametrize("capacity", [64, 256, 4096])
def test_producers_of_every_way_into_a_native_consumer(driver, capacity):
    count = size(20_000, 5_000_000 if capacity > 256 else 250_000)
    tx, rx = mpsc_bytes.channel(capacity)
    ways = [SEND, CLAIM, MANY, QUIET] + ([ABORTING] if capacity > 64 else [])
    ends = [tx.native() for _ in ways]
    receiving = rx.native()
    consumer = driver.consumer(receiving)
    jobs = [
        driver.producer(end, count, how=how, who=who, least=16, most=min(capacity - 32, 600))
        for who, (how, end) in enumerate(zip(ways, ends, strict=True))
    ]
    assert [job.join() for job in jobs] == [OK] * len(ways)
    for end in (*ends, tx):
        end.close()
    assert consumer.join() == DISCONNECTED
    assert consumer.complaint == 0
    assert [consumer.due(who) for who in range(len(ways))] == [count] * len(ways)


@takes_long()
@pytest.mark.parametrize("capacity", [256, 1 << 16])
def test_two_native_and_two_python_producers_into_one_task(run, driver, capacity):
    count = size(10_000, 5_000_000 if capacity > 256 else 250_000)
    check = driver.checker()

    def produce(tx, who):
        with tx:
            for number in range(count):
                tx.send_blocking(driver.stamped(who, 64, number))

    async def main():
        tx, rx = mpsc_bytes.channel(capacity)
        ends = [tx.native(), tx.native()]
        jobs = [
            driver.producer(end, count, how=how, who=who, least=64, most=64)
            for who, (how, end) in enumerate(zip((SEND, QUIET), ends, strict=True))
        ]
        threads = [Spawned(produce, tx.clone(), who) for who in (2, 3)]
        tx.close()
        closing = Spawned(close_after, jobs, ends)
        received = 0
        while received < 4 * count:
            for message in await rx.recv_many(1000):
                check(message)
                received += 1
        assert closing.join() == [OK, OK]
        for thread in threads:
            thread.join()
        assert rx.try_recv_many(1) == [] if not rx.is_disconnected else True
        assert list(check.due)[:4] == [count] * 4

    def close_after(jobs, ends):
        results = [job.join() for job in jobs]
        for end in ends:
            end.close()
        return results

    if count > 100_000:
        asyncio.run(main())
    else:
        run(main())


@takes_long()
def test_round_trips_between_a_task_and_a_native_thread(run, bytes_variant, driver):
    """One message at a time: each of them parks and wakes both sides, and none may miss the other."""
    rounds = size(3_000, 300_000)

    async def main():
        there, back = bytes_variant.channel(64), bytes_variant.channel(64)
        check = driver.checker()
        with there.receiver.native() as source, back.sender.native() as target:
            echo = Spawned(driver.echo, source, target)
            for number in range(rounds):
                await there.sender.send(driver.stamped(1, 48, number))
                check(await back.receiver.recv_bytes())
            there.sender.close()
            assert await in_thread(echo.join) == DISCONNECTED

    if rounds > 10_000:
        asyncio.run(main())
    else:
        run(main())


@takes_long()
def test_round_trips_between_a_thread_and_a_native_thread(bytes_variant, driver):
    there, back = bytes_variant.channel(64), bytes_variant.channel(64)
    check = driver.checker()
    with there.receiver.native() as source, back.sender.native() as target:
        echo = Spawned(driver.echo, source, target)
        for number in range(size(5_000, 1_000_000)):
            there.sender.send_blocking(driver.stamped(1, 48, number))
            check(back.receiver.recv_bytes_blocking(timeout=30))
        there.sender.close()
        assert echo.join() == DISCONNECTED


@takes_long()
def test_ends_that_come_and_go_while_messages_flow(driver):
    """Opened, attached, closed at any moment, by several threads; the receiver stays one task's."""
    rounds = size(100, 5_000)
    tx, rx = mpsc_bytes.channel(1 << 12)
    told, failures = [0] * 4, []

    def come_and_go(who, mine):
        try:
            with mine:
                for number in range(rounds):
                    end = mine.native()
                    job = driver.producer(end, 10**9, who=who, timeout=-1 if number % 2 else 0)
                    threading.Event().wait(0.0002 * (number % 4))
                    end.close()
                    assert job.join() != OK
                    told[who] += job.done
        except BaseException as error:  # told below
            failures.append(error)

    async def main():
        threads = [Spawned(come_and_go, who, tx.clone()) for who in range(4)]
        tx.close()
        received = 0
        async for claim in rx:
            assert len(claim) == 16
            received += 1
        for thread in threads:
            thread.join()
        return received

    received = asyncio.run(main())
    assert failures == []
    assert received == sum(told)
