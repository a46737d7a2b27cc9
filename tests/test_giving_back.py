"""Claims that are given back: by leaving a loop, by their endpoint, with their last view.

And what a claim that has ended keeps, which is nothing.
"""

import asyncio
import contextlib
import gc
import weakref

import pytest
from harness import FREE_THREADED, size
from support import collect, drive, turns, until_parked

from nexus_channels import (
    BusyError,
    ClaimReleased,
    Disconnected,
    Empty,
    RecvError,
    mpsc,
    mpsc_bytes,
)


def filled(module, *messages, capacity=256):
    tx, rx = module.channel(capacity)
    tx.try_send_many(messages or [b"first", b"second"])
    return tx, rx


def written(tx, data):
    claim = tx.try_claim(len(data))
    claim[:] = data
    return claim


# A loop that is left


class Failed(Exception):
    """What a consumer raises."""


def by_break(rx, seen):
    for claim in rx:
        seen.append(claim)
        break


def by_return(rx, seen):
    for claim in rx:
        seen.append(claim)
        return


def by_exception(rx, seen):
    for claim in rx:
        seen.append(claim)
        raise Failed


def in_a_nested_loop(rx, seen):
    for _ in range(3):
        for claim in rx:
            seen.append(claim)
            raise Failed


def by_a_generator_that_is_closed(rx, seen):
    def each():
        for claim in rx:
            seen.append(claim)
            yield claim

    generator = each()
    next(generator)
    generator.close()


def by_a_generator_that_is_dropped(rx, seen):
    def each():
        for claim in rx:
            seen.append(claim)
            yield claim

    next(each())


LEAVING = [
    by_break,
    by_return,
    by_exception,
    in_a_nested_loop,
    by_a_generator_that_is_closed,
    by_a_generator_that_is_dropped,
]


@pytest.mark.parametrize("leave", LEAVING)
def test_a_loop_that_is_left_gives_its_claim_back(bytes_variant, leave):
    _tx, rx = filled(bytes_variant)
    seen, kept = [], None
    try:
        leave(rx, seen)
    except Failed as error:
        kept = error  # with its traceback, whose frames hold the claim
    assert rx.try_recv_bytes() == b"second"
    with pytest.raises(ClaimReleased):
        seen[0].release()
    with pytest.raises(ClaimReleased):
        bytes(seen[0])
    assert rx.used == 0
    assert (kept is not None) == (leave in (by_exception, in_a_nested_loop))


def test_an_iterator_that_an_exception_keeps_is_let_go_by_the_receiver(bytes_variant):
    """A variable of a frame may hold the iterator, as the one of a generator expression does."""
    _tx, rx = filled(bytes_variant)

    def fail(claim):
        raise Failed(len(claim))

    try:
        sum(fail(claim) for claim in rx)
    except Failed as error:
        kept = error
    with pytest.raises(BusyError, match=r"ReadClaim of 5 bytes that is still open; release\(\)"):
        rx.try_recv()
    assert rx.release() is True
    assert rx.try_recv_bytes() == b"second" and kept.args == (5,)


async def async_by_break(rx, seen):
    async for claim in rx:
        seen.append(claim)
        break


async def async_by_exception(rx, seen):
    async for claim in rx:
        seen.append(claim)
        raise Failed


async def async_by_return(rx, seen):
    async for claim in rx:
        seen.append(claim)
        await turns()
        return


async def async_by_a_generator_that_is_closed(rx, seen):
    async def each():
        async for claim in rx:
            seen.append(claim)
            yield claim

    generator = each()
    await anext(generator)
    await generator.aclose()


async def by_a_task_that_is_cancelled(rx, seen):
    async def consume():
        async for claim in rx:
            seen.append(claim)
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    while not seen:
        await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as error:
        await task
    return error, task  # kept


async def by_a_timeout(rx, seen):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            async for claim in rx:
                seen.append(claim)
                await asyncio.Event().wait()


ASYNC_LEAVING = [
    async_by_break,
    async_by_exception,
    async_by_return,
    async_by_a_generator_that_is_closed,
    by_a_task_that_is_cancelled,
    by_a_timeout,
]


@pytest.mark.parametrize("leave", ASYNC_LEAVING)
@pytest.mark.parametrize("late", [False, True], ids=["ready", "awaited"])
def test_an_async_loop_that_is_left_gives_its_claim_back(bytes_variant, run, leave, late):
    async def main():
        tx, rx = bytes_variant.channel(256)
        seen, kept = [], []
        if not late:
            tx.try_send_many([b"first", b"second"])

        async def consume():
            try:
                kept.append(await leave(rx, seen))
            except Failed as error:
                kept.append(error)

        consuming = asyncio.create_task(consume())
        if late:
            await until_parked(rx, receivers=1)
            await tx.send_many([b"first", b"second"])
        await consuming
        if seen:
            assert await rx.recv_bytes() == b"second"
            with pytest.raises(ClaimReleased):
                seen[0].release()
        else:
            assert leave is by_a_timeout  # it was over before the first came
            assert await rx.recv_many(2) == [b"first", b"second"]
        assert rx.used == 0

    run(main())


def test_a_consumer_that_failed_can_go_on(bytes_variant, run):
    """The program of the report: the exception is kept, and the next consumer takes over."""
    failures = []

    async def consume(rx, received):
        async for claim in rx:
            number = int(bytes(claim))
            if number % 3 == 0:
                raise Failed(number)
            received.append(number)

    async def main():
        tx, rx = bytes_variant.channel(256)
        received = []

        async def supervise():
            while True:
                try:
                    return await consume(rx, received)
                except Failed as error:
                    failures.append(error)

        async def produce():
            for number in range(30):
                await tx.send(b"%d" % number)
            tx.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervise())
            tasks.create_task(produce())
        assert received == [number for number in range(30) if number % 3]
        assert [error.args[0] for error in failures] == list(range(0, 30, 3))

    run(main())
    failures.clear()


def test_a_loop_that_is_left_calls_who_was_put_off_for_its_claim(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(256)
    leave = asyncio.Event()
    seen = []

    async def consume():
        async for claim in rx:
            seen.append(claim)
            await leave.wait()
            break

    consuming = step_loop.create_task(consume())
    step_loop.run_ready()
    waiting = step_loop.create_task(rx.recv_bytes())
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [b"first", b"second"])
    step_loop.run_ready()
    assert len(seen) == 1 and not waiting.done()
    step_loop.call(leave.set)
    step_loop.run_ready()
    assert consuming.done() and waiting.result() == b"second"
    with pytest.raises(ClaimReleased):
        bytes(seen[0])
    assert tx.used == 0


def test_an_iterator_dropped_by_another_thread_gives_its_claim_back(bytes_variant, spawn):
    for _ in range(size(20, 2000)):
        _tx, rx = filled(bytes_variant)
        held = [iter(rx)]
        claim = next(held[0])
        spawn(held.clear).join()
        assert rx.try_recv_bytes() == b"second"
        with pytest.raises(ClaimReleased):
            claim.release()


def test_an_iterator_in_a_reference_cycle_gives_its_claim_back_when_it_is_collected(bytes_variant):
    _tx, rx = filled(bytes_variant)
    iterator = iter(rx)
    cycle = [next(iterator), iterator]
    cycle.append(cycle)
    claim = cycle[0]
    del cycle, iterator
    collect()
    assert rx.try_recv_bytes() == b"second"
    with pytest.raises(ClaimReleased):
        claim.release()


def test_the_next_is_asked_for_by_the_call_of_anext(bytes_variant):
    _tx, rx = filled(bytes_variant)
    iterator = aiter(rx)
    claim = drive(anext(iterator))
    later = anext(iterator)
    with pytest.raises(ClaimReleased):
        bytes(claim)
    assert bytes(drive(later)) == b"second"


def test_anext_while_a_view_of_the_last_claim_exists_takes_nothing(bytes_variant):
    _tx, rx = filled(bytes_variant)
    iterator = aiter(rx)
    view = memoryview(drive(anext(iterator)))
    with pytest.raises(BufferError, match="1 view of this claim"):
        drive(anext(iterator))
    assert bytes(view) == b"first"
    view.release()
    assert bytes(drive(anext(iterator))) == b"second"


# Views that are still there


def test_a_loop_that_is_left_with_a_view_gives_its_claim_back_with_the_last_view(bytes_variant):
    _tx, rx = filled(bytes_variant)

    def consume():
        for claim in rx:
            kept = [claim, memoryview(claim), claim[1:]]
            break
        return kept

    claim, view, part = consume()
    assert bytes(view) == b"first" and bytes(part) == b"irst"
    with pytest.raises(BusyError, match=r"used by views of a ReadClaim of 5 bytes \(views of the claim: 2\)"):
        rx.try_recv_bytes()
    view.release()
    with pytest.raises(BusyError, match=r"used by a view of a ReadClaim of 5 bytes .*release the view"):
        rx.try_recv_bytes()
    with pytest.raises(BufferError, match="1 view of this claim"):
        claim.release()
    assert bytes(part) == b"irst"
    del part
    assert rx.try_recv_bytes() == b"second"
    with pytest.raises(ClaimReleased):
        claim.release()
    assert rx.used == 0


def test_a_view_kept_by_an_exception_is_named_and_goes_with_it(bytes_variant):
    _tx, rx = filled(bytes_variant)

    def consume():
        for claim in rx:
            view = memoryview(claim)
            raise Failed(len(view))

    try:
        consume()
    except Failed as error:
        kept = error
    with pytest.raises(BusyError, match="a view of a ReadClaim of 5 bytes"):
        rx.try_recv()
    with pytest.raises(BufferError, match="1 view of this claim"):
        rx.release()
    assert kept.args == (5,)
    kept = None
    assert rx.try_recv_bytes() == b"second"


def test_a_with_block_that_outlives_its_iteration_ends_without_an_error(bytes_variant):
    for explicit in (False, True):
        _tx, rx = filled(bytes_variant)
        iterator = iter(rx)
        claim = next(iterator)
        with claim as view:
            del iterator
            assert bytes(view) == b"first"
            if explicit:
                claim.release()
        assert rx.try_recv_bytes() == b"second"


def test_a_with_block_that_outlives_its_iteration_and_is_exported_ends_with_that(bytes_variant):
    _tx, rx = filled(bytes_variant)
    iterator = iter(rx)
    with contextlib.suppress(Failed), next(iterator) as view:
        part = view[1:]
        del iterator
        raise Failed
    with pytest.raises(BusyError, match="view of a ReadClaim"):
        rx.try_recv()
    assert bytes(part) == b"irst"
    part.release()
    assert rx.try_recv_bytes() == b"second"


def test_views_of_a_left_claim_released_by_many_threads_at_once(bytes_variant, spawn):
    for _ in range(size(20, 2000)):
        _tx, rx = filled(bytes_variant)
        iterator = iter(rx)
        claim = next(iterator)
        views = [memoryview(claim) for _ in range(4)]
        acts = [view.release for view in views]
        held = [iterator]
        del iterator
        acts += [held.clear, lambda rx=rx: refused(rx.release)]
        for thread in [spawn(act) for act in acts]:
            thread.join()
        assert rx.try_recv_bytes() == b"second"
        with pytest.raises(ClaimReleased):
            claim.release()
        assert rx.used == 0


def refused(call):
    with contextlib.suppress(BufferError):
        call()


# rx.release() and tx.abort()


def test_a_receiver_gives_its_open_claim_back(bytes_variant):
    _tx, rx = filled(bytes_variant)
    assert rx.release() is False
    claim = rx.try_recv()
    with pytest.raises(
        BusyError, match=r"ReadClaim of 5 bytes that is still open; release\(\) .* release\(\) of the rec"
    ):
        rx.try_recv()
    assert rx.release() is True
    assert rx.release() is False
    with pytest.raises(ClaimReleased):
        claim.release()
    assert rx.try_recv_bytes() == b"second"


def test_a_sender_gives_its_open_claim_back(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    assert tx.abort() is False
    claim = written(tx, b"never sent")
    with pytest.raises(BusyError, match=r"WriteClaim of 10 bytes .*commit\(\) or abort\(\) .* abort\(\) of the sender"):
        tx.try_send(b"x")
    assert tx.abort() is True
    assert tx.abort() is False
    with pytest.raises(ClaimReleased):
        claim.commit()
    tx.try_send(b"x" * 24)
    assert rx.try_recv_bytes() == b"x" * 24


def test_a_claim_kept_by_an_exception_is_given_back_by_its_endpoint(bytes_variant, run):
    async def consume(rx):
        claim = await rx.recv()
        raise Failed(len(claim))

    async def produce(tx):
        claim = await tx.claim(8)
        raise Failed(len(claim))

    async def main():
        tx, rx = filled(bytes_variant)
        kept = []
        for fail in (consume(rx), produce(tx)):
            try:
                await fail
            except Failed as error:
                kept.append(error)
        with pytest.raises(BusyError):
            rx.try_recv()
        with pytest.raises(BusyError):
            tx.try_send(b"x")
        assert rx.release() and tx.abort()
        await tx.send(b"third")
        assert await rx.recv_many(5) == [b"second", b"third"]
        assert len(kept) == 2

    run(main())


def test_nothing_is_given_back_while_a_view_exists(bytes_variant):
    tx, rx = filled(bytes_variant)
    for end, claim in ((rx.release, rx.try_recv()), (tx.abort, written(tx, b"12345"))):
        view = memoryview(claim)
        with pytest.raises(BufferError, match="1 view of this claim still exists; release"):
            end()
        assert "open" in repr(claim)
        view.release()
        assert end() is True
    assert rx.try_recv_many(9) == [b"second"]


def test_the_view_of_a_with_block_is_released_with_the_claim(bytes_variant):
    _tx, rx = filled(bytes_variant)
    with rx.try_recv() as view:
        assert rx.release() is True
        with pytest.raises(ValueError, match="released"):
            bytes(view)
    assert rx.try_recv_bytes() == b"second"


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_closed_endpoint_gives_its_open_claim_back(bytes_variant, side):
    tx, rx = filled(bytes_variant)
    if side == "sender":
        claim = written(tx, b"last")
        tx.close()
        assert not rx.is_disconnected
        assert tx.abort() is True
        assert rx.try_recv_many(9) == [b"first", b"second"]
        with pytest.raises(RecvError):
            rx.try_recv()
    else:
        claim = rx.try_recv()
        rx.close()
        assert bytes(claim) == b"first"
        assert rx.release() is True
        assert tx.used == 0
    assert "done" in repr(claim)


def test_giving_back_wakes_who_waits_for_room(bytes_variant, step_loop):
    tx, rx = filled(bytes_variant, b"x" * 56, capacity=64)
    claim = rx.try_recv()
    sending = step_loop.create_task(tx.send(b"y" * 56))
    step_loop.run_ready()
    step_loop.call(rx.release)
    step_loop.run_ready()
    assert sending.done() and "done" in repr(claim)
    assert rx.try_recv_bytes() == b"y" * 56


def test_a_native_end_is_named_and_is_not_a_claim(bytes_variant):
    _tx, rx = filled(bytes_variant)
    with rx.native():
        with pytest.raises(BusyError, match=r"this receiver is used by a native end .* close\(\) the native end"):
            rx.try_recv()
        assert rx.release() is False
    assert rx.try_recv_bytes() == b"first"


def test_a_claim_that_several_threads_give_back_ends_once(bytes_variant, spawn):
    for _ in range(size(30, 5000)):
        tx, rx = filled(bytes_variant)
        claims = [rx.try_recv(), written(tx, b"12345678")]
        ends = [rx.release, rx.release, tx.abort, tx.abort, claims.clear]
        outcomes = [thread.join() for thread in [spawn(end) for end in ends]]
        assert sum(map(bool, outcomes[:2])) <= 1 and sum(map(bool, outcomes[2:4])) <= 1
        assert rx.try_recv_bytes() == b"second"
        with pytest.raises(Empty):
            rx.try_recv()
        tx.try_send(b"x")
        assert rx.try_recv_bytes() == b"x"
        assert rx.used == 0


# What a claim that has ended keeps


ENDS = {
    "commit": lambda claim, _: claim.commit(),
    "commit a part": lambda claim, _: claim.commit(1),
    "abort": lambda claim, _: claim.abort(),
    "with": lambda claim, _: claim.__exit__(None, None, claim.__enter__() and None),
    "abort by the endpoint": lambda _, end: end.abort(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_finished_write_claim_does_not_hold_the_channel_open(bytes_variant, end):
    tx, rx = bytes_variant.channel(64)
    claim = written(tx, b"12345678")
    ENDS[end](claim, tx)
    gone = weakref.ref(tx)
    del tx
    assert gone() is None
    assert rx.is_disconnected
    assert rx.try_recv_many(9) if "abort" not in end else True
    with pytest.raises(RecvError):
        rx.try_recv()
    assert len(claim) == 8 and "WriteClaim of 8 bytes, done" in repr(claim)
    for use in (claim.commit, claim.abort, claim.__enter__, lambda: claim.commit(3), lambda: bytes(claim)):
        with pytest.raises(ClaimReleased):
            use()
    assert claim.__exit__(None, None, None) is None


def left(rx):
    for claim in rx:
        return claim


@pytest.mark.parametrize("end", ["release", "with", "release by the endpoint", "the loop goes on", "the loop is left"])
def test_a_finished_read_claim_does_not_hold_the_channel_open(bytes_variant, end):
    tx, rx = filled(bytes_variant, b"12345678", b"x")
    if end == "the loop goes on":
        iterator = iter(rx)
        claim = next(iterator)
        next(iterator)
        del iterator
    elif end == "the loop is left":
        claim = left(rx)
    else:
        claim = rx.try_recv()
        if end == "release":
            claim.release()
        elif end == "with":
            with claim:
                pass
        else:
            rx.release()
    gone = weakref.ref(rx)
    del rx
    assert gone() is None
    assert tx.is_disconnected
    assert len(claim) == 8 and "ReadClaim of 8 bytes, done" in repr(claim)
    for use in (claim.release, claim.__enter__, lambda: bytes(claim), lambda: claim[:2]):
        with pytest.raises(ClaimReleased):
            use()


def test_a_finished_async_claim_does_not_hold_the_channel_open(bytes_variant, run):
    async def main():
        tx, rx = bytes_variant.channel(64)
        claims = [await tx.claim(8)]
        claims[0].commit()
        claims.append(await rx.recv())
        claims[1].release()
        gone = weakref.ref(tx), weakref.ref(rx)
        del tx
        with pytest.raises(RecvError):
            await rx.recv()
        del rx
        assert [end() for end in gone] == [None, None] and len(claims) == 2

    run(main())


def test_a_claim_that_fails_to_commit_has_ended_too(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = written(tx, b"12345678")
    rx.close()
    with pytest.raises(Disconnected):
        claim.commit()
    gone = weakref.ref(tx)
    del tx
    assert gone() is None
    with pytest.raises(ClaimReleased):
        claim.abort()


def test_an_exhausted_iterator_does_not_hold_the_channel_open(bytes_variant):
    tx, rx = filled(bytes_variant)
    tx.close()
    iterator, asynchronous = iter(rx), aiter(rx)
    assert sum(1 for _ in iterator) == 2
    with pytest.raises(StopAsyncIteration):
        drive(anext(asynchronous))
    gone = weakref.ref(rx)
    del rx
    assert gone() is None
    for _ in range(2):
        assert next(iterator, "end") == "end"
        with pytest.raises(StopAsyncIteration):
            drive(anext(asynchronous))
        assert drive(anext(asynchronous, "end")) == "end"
        later = anext(asynchronous)
        assert "Receiver.__anext__() created" in repr(later)
        later.close()


def test_an_exhausted_iterator_is_no_trouble_to_a_task(bytes_variant, run):
    async def main():
        tx, rx = filled(bytes_variant)
        tx.close()
        iterator = aiter(rx)
        assert [bytes(claim) async for claim in iterator] == [b"first", b"second"]
        del rx
        assert [claim async for claim in iterator] == []
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    run(main())


def test_a_claim_ended_by_one_thread_while_others_use_it(bytes_variant, spawn):
    """Without a GIL its endpoint goes while they look at it."""
    for _ in range(size(30, 5000)):
        tx, rx = filled(bytes_variant)
        read, write = rx.try_recv(), written(tx, b"12345678")

        def use(*claims):
            for claim in claims:
                for call in (repr, len, bytes, lambda claim: claim[0], lambda claim: claim.commit(99)):
                    with contextlib.suppress(ClaimReleased, ValueError, AttributeError, BufferError):
                        call(claim)

        def end(call):
            with contextlib.suppress(ClaimReleased, BufferError, Disconnected):
                call()

        ends = [read.release, read.release, write.commit, write.abort]
        del tx, rx
        threads = [spawn(end, call) for call in ends] + [spawn(use, read, write) for _ in range(2)]
        for thread in threads:
            thread.join()
        for call in (read.release, write.abort):
            with pytest.raises(ClaimReleased):
                call()


def test_claims_that_ended_are_used_again_without_a_trace_of_the_last(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    for _ in range(100):
        other_tx, other_rx = bytes_variant.channel(64)
        claim = written(other_tx, b"other")
        claim.commit()
        del claim
        mine = written(tx, b"mine")
        del other_tx
        assert other_rx.is_disconnected and not rx.is_disconnected
        mine.commit()
        assert rx.try_recv_bytes() == b"mine"


def test_a_claim_outlives_everything_but_its_module(bytes_variant):
    tx, rx = filled(bytes_variant)
    claim, iterator = rx.try_recv(), iter(rx)
    claim.release()
    assert bytes(next(iterator)) == b"second"
    tx.close()
    assert list(iterator) == []
    del tx, rx
    collect()
    assert gc.is_tracked(claim)
    with pytest.raises(ClaimReleased):
        claim.release()
    assert list(iterator) == []


# Chains of them


def link(number):
    """Something with a claim, an iterator, a native end, each of a channel of its own."""
    tx, rx = mpsc_bytes.channel(64)
    tx.try_send(b"x")
    iterator = iter(rx)
    if number % 3 == 0:
        return tx.clone().try_claim(1), iterator, next(iterator)
    return (tx.native(), iterator) if number % 3 == 1 else memoryview(written(tx, b"y"))


def nested(depth):
    """Channels within channels, with claims, iterators and native ends between."""
    held = None
    for number in range(depth):
        tx, rx = mpsc.channel(1)
        tx.try_send((held, link(number)))
        held = rx
    return held


def test_a_long_chain_through_claims_iterators_and_native_ends_is_freed_without_overflowing_the_stack():
    held = nested(size(20_000, 200_000))
    assert len(held) == 1
    del held
    collect()


@pytest.mark.skipif(not FREE_THREADED, reason="with a GIL a collection is no other thread")
def test_iterators_dropped_while_their_endpoints_release_and_a_collector_runs(bytes_variant, spawn):
    collector = spawn(lambda: [gc.collect() for _ in range(size(40, 2000))])
    rounds = 0
    while rounds < 10 or collector.is_alive():
        rounds += 1
        _tx, rx = filled(bytes_variant)
        iterator = iter(rx)
        held = [next(iterator), iterator]
        del iterator
        for thread in [spawn(held.clear), spawn(rx.release)]:
            thread.join()
        assert rx.try_recv_bytes() == b"second"
    collector.join()
