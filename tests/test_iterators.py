"""send_many takes an iterator as it goes, and leaves in it what it did not take."""

import asyncio
import itertools

import pytest
from anychannel import ALL, THREADED, AnyChannel
from support import Item, drive

from nexus_channels import Full, SendError, SendTimeout, mpsc, spsc


def counted(taken, upto=10**9):
    for number in range(upto):
        taken.append(number)
        yield number


@pytest.mark.parametrize("name", ALL)
def test_never_more_is_taken_than_the_channel_could_hold(name):
    async def main():
        channel = AnyChannel(name, 4)
        taken = []
        messages = (channel.pack(number) for number in counted(taken))
        task = asyncio.create_task(channel.tx.send_many(messages))
        received = []
        for _ in range(1000):
            received.append(await channel.recv())
            assert len(taken) - len(received) <= 2 * channel.room + 1
        task.cancel()
        await asyncio.wait([task])
        assert received == list(range(1000))

    asyncio.run(main())


@pytest.mark.parametrize("name", ALL)
def test_a_try_form_leaves_in_the_iterator_what_there_is_no_room_for(name):
    channel = AnyChannel(name, 4)
    numbers = iter(range(100))
    messages = map(channel.pack, numbers)
    assert channel.tx.try_send_many(messages) == channel.room
    assert channel.drain() == list(range(channel.room))
    assert next(numbers) == channel.room
    assert channel.tx.try_send_many(iter([])) == 0


@pytest.mark.parametrize("name", ["spsc_bytes", "mpsc_bytes"])
def test_a_message_that_was_taken_and_does_not_fit_is_handed_back(name):
    channel = AnyChannel(name)
    big = bytes(48)
    messages = iter([bytes(8), big, b"later"])
    with pytest.raises(Full, match="no room; 1 taken from the iterator and not sent") as full:
        channel.tx.try_send_many(messages)
    assert full.value.value == [big]
    assert channel.rx.try_recv_many(9) == [bytes(8)]
    assert next(messages) == b"later"


def test_a_timeout_hands_back_what_was_taken_and_not_sent(run):
    async def main():
        tx, rx = spsc.channel(3)
        numbers = iter(range(10))
        with pytest.raises(SendTimeout) as late:
            await tx.send_many(numbers, timeout=0.01)
        assert rx.try_recv_many(9) + late.value.value + list(numbers) == list(range(10))
        assert len(late.value.value) <= 3

    run(main())


@pytest.mark.parametrize("name", THREADED)
def test_a_blocking_form_takes_as_it_goes(name, spawn):
    channel = AnyChannel(name, 4)
    taken = []
    thread = spawn(channel.tx.send_many_blocking, (channel.pack(number) for number in counted(taken, 500)))
    assert [channel.recv_blocking(20) for _ in range(500)] == list(range(500))
    thread.join()


def test_a_receiver_that_goes_takes_nothing_more_from_the_iterator():
    tx, rx = mpsc.channel(4)
    numbers = itertools.count()
    tx.try_send_many(numbers)
    rx.close()
    with pytest.raises(SendError) as gone:
        drive(tx.send_many(numbers))
    assert gone.value.value == []
    assert next(numbers) == 4


def test_what_the_iterator_raises_is_the_context_of_a_send_that_failed(run):
    def failing():
        yield 1
        yield 2
        raise ZeroDivisionError

    async def main():
        tx, _rx = spsc.channel(1)
        with pytest.raises((SendTimeout, ZeroDivisionError)) as failed:
            await tx.send_many(failing(), timeout=0.01)
        assert failed.type is SendTimeout
        assert failed.value.value == [2]

    run(main())


@pytest.mark.parametrize("name", ALL)
def test_an_async_iterator_is_sent_as_its_values_come(name, run):
    async def numbers(channel):
        for number in range(20):
            await asyncio.sleep(0)
            yield channel.pack(number)

    async def main():
        channel = AnyChannel(name, 2)
        sending = channel.tx.send_many(numbers(channel))
        assert sending.__qualname__ == "Sender.send_many"
        task = asyncio.create_task(sending)
        assert [await channel.recv() for _ in range(20)] == list(range(20))
        await task

    run(main())


def test_an_async_iterator_and_a_receiver_that_is_gone(run):
    async def values():
        yield Item("first")

    async def main():
        tx, rx = spsc.channel(1)
        rx.close()
        with pytest.raises(SendError) as gone:
            await tx.send_many(values())
        assert [item.name for item in gone.value.value] == ["first"]

    run(main())


def test_an_iterator_cannot_be_used_where_it_would_be_waited_for():
    tx, _rx = spsc.channel(1)

    async def values():
        yield 1

    for call in (tx.send_many_blocking, tx.try_send_many):
        with pytest.raises(TypeError, match="not iterable"):
            call(values())
