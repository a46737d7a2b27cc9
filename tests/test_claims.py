"""Claims: each way to end one, views that outlive it, closing while one is out, threads that share one, who is busy."""

import array
import asyncio
import ctypes
import gc
import importlib.util
import itertools
import pickle
import threading
import weakref

import aio
import pytest
from harness import run_child, size
from support import collect, drive, in_thread, turns, until, until_blocked, until_parked

from nexus_channels import (
    BusyError,
    ClaimDisconnected,
    ClaimReleased,
    ClaimTooLarge,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    SendError,
    ZeroLengthClaim,
    mpsc_bytes,
)

EVERY_LOOP = True  # see conftest.py

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
needs_numpy = pytest.mark.skipif(not HAS_NUMPY, reason="numpy is not installed")


def written(tx, data):
    """A claim with `data` in it, not committed."""
    claim = tx.try_claim(len(data))
    claim[:] = data
    return claim


def lent(tx, rx, data):
    """A read claim on a message of its own."""
    tx.try_send(data)
    return rx.try_recv()


def both_claims(module):
    """An open claim of each side, with the way to end it."""
    tx, rx = module.channel(64)
    read = lent(tx, rx, b"to read!")
    return tx, rx, written(tx, b"to write"), read


# Ended once


@pytest.mark.parametrize("again", ["commit", "abort"])
@pytest.mark.parametrize("first", ["commit", "abort", "commit part"])
def test_a_write_claim_ends_once(bytes_variant, first, again):
    for _ in range(size(20, 10_000)):
        tx, rx = bytes_variant.channel(64)
        claim = written(tx, b"message!")
        if first == "commit part":
            claim.commit(4)
        else:
            getattr(claim, first)()
        before = rx._dump()
        with pytest.raises(ClaimReleased, match="already committed or aborted"):
            getattr(claim, again)()
        assert rx._dump() == before
        if first == "abort":
            with pytest.raises(Empty):
                rx.try_recv()
        else:
            assert rx.try_recv_bytes() == (b"message!" if first == "commit" else b"mess")
            with pytest.raises(Empty):
                rx.try_recv()


def test_a_read_claim_ends_once(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = lent(tx, rx, b"first")
    tx.try_send(b"second")
    claim.release()
    with pytest.raises(ClaimReleased, match="already released"):
        claim.release()
    assert rx.try_recv_bytes() == b"second"


def test_nothing_can_be_read_or_written_through_a_claim_that_ended(bytes_variant):
    tx, rx, write, read = both_claims(bytes_variant)
    write.commit()
    read.release()
    for claim in (write, read):
        for use in (
            lambda claim: memoryview(claim),
            lambda claim: bytes(claim),
            lambda claim: claim[:],
            lambda claim: claim[0],
            lambda claim: claim.__enter__(),
            lambda claim: array.array("B").frombytes(claim),
            lambda claim: tx.try_send(claim),
        ):
            with pytest.raises(ClaimReleased) as error:
                use(claim)
            assert isinstance(error.value, BufferError)
    for key in (0, slice(None)):
        with pytest.raises(ClaimReleased):
            write[key] = b"12345678" if key else 1
    with pytest.raises(ClaimReleased):
        ctypes.c_char.from_buffer(write)
    assert rx.try_recv_bytes() == b"to write"


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ZeroLengthClaim),
        (-1, ValueError),
        (9, ClaimTooLarge),
        (2**31, ClaimTooLarge),
        (2**63, ClaimTooLarge),
        (2**64 + 4, ClaimTooLarge),
        (-(2**64), ValueError),
        (True, TypeError),
        (4.0, TypeError),
        ("4", TypeError),
    ],
)
def test_a_commit_of_an_impossible_size_changes_nothing(bytes_variant, n, error):
    tx, rx = bytes_variant.channel(64)
    claim = written(tx, b"message!")
    with pytest.raises(error):
        claim.commit(n)
    with pytest.raises(Empty):
        rx.try_recv()
    claim.commit(None)
    assert rx.try_recv_bytes() == b"message!"


def test_wrong_arguments_of_the_methods(bytes_variant):
    _tx, _rx, write, read = both_claims(bytes_variant)
    for call in (lambda: write.commit(1, 2), lambda: write.abort(1), lambda: read.release(1)):
        with pytest.raises(TypeError):
            call()
    write.commit()
    read.release()


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 15, 16, 39, 40])
@pytest.mark.parametrize("kept", [1, 2, 7, 8, 9, 15, 16, 39, 40])
def test_shrinking_gives_the_rest_back_and_harms_no_neighbour(bytes_variant, length, kept):
    if kept > length:
        return
    tx, rx = bytes_variant.channel(128)
    for lap in range(20):  # over the end of the ring too
        tx.try_send(b"before")
        claim = written(tx, bytes([lap + 1]) * length)
        claim.commit(kept)
        tx.try_send(b"after")
        assert rx.try_recv_many(5) == [b"before", bytes([lap + 1]) * kept, b"after"]
        assert rx.used == 0


def test_what_shrinking_leaves_over_wakes_who_waits_for_it(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    claim = written(tx, b"x" * 48)
    claim.commit(8)
    task = step_loop.create_task(tx.send(b"y" * 40))
    step_loop.run_ready()
    assert step_loop.call(rx.try_recv_bytes) == b"x" * 8
    if bytes_variant is mpsc_bytes:  # the rest is a skip, which goes when the receiver next looks
        with pytest.raises(Empty):
            step_loop.call(rx.try_recv)
    step_loop.run_ready()
    assert task.done()
    assert rx.try_recv_bytes() == b"y" * 40


# Views that are still there


def numpy_array(claim):
    import numpy

    return numpy.frombuffer(claim, dtype="u1")


def ctypes_array(claim):
    if isinstance(claim, memoryview) or memoryview(claim).readonly:
        pytest.skip("ctypes shares writable buffers only")
    return (ctypes.c_char * len(claim)).from_buffer(claim)


EXPORTS = {
    "view": memoryview,
    "slice": lambda claim: claim[2:5],
    "slice of a released view": lambda claim: released_parent(memoryview(claim), lambda view: view[1:]),
    "cast of a released view": lambda claim: released_parent(memoryview(claim), lambda view: view.cast("Q")),
    "view of a view": lambda claim: memoryview(memoryview(claim)),
    "readonly": lambda claim: memoryview(claim).toreadonly(),
    "PickleBuffer": pickle.PickleBuffer,
    "ctypes": ctypes_array,
    "iterator": lambda claim: consumed_once(iter(memoryview(claim))),
    "numpy": pytest.param(numpy_array, id="numpy", marks=needs_numpy),
    "numpy part": pytest.param(lambda claim: numpy_array(claim)[::3], id="numpy part", marks=needs_numpy),
}


def released_parent(view, part):
    child = part(view)
    view.release()
    return child


def consumed_once(iterator):
    next(iterator)
    return iterator


every_export = pytest.mark.parametrize(
    "export",
    [value if not callable(value) else pytest.param(value, id=name) for name, value in EXPORTS.items()],
)


@every_export
@pytest.mark.parametrize("end", ["commit", "abort"])
def test_pitfall_33_a_write_claim_with_a_view_cannot_be_ended_and_stays_as_it_is(bytes_variant, export, end):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"before")
    claim = written(tx, b"12345678")
    kept = export(claim)
    before = rx._dump(), rx.used, rx.statistics()
    for _ in range(3):
        with pytest.raises(BufferError, match="view") as error:
            getattr(claim, end)()
        assert not isinstance(error.value, ClaimReleased)
    if end == "commit":
        with pytest.raises(BufferError):
            claim.commit(3)
    assert (rx._dump(), rx.used, rx.statistics()) == before
    assert bytes(claim) == b"12345678"
    assert "open" in repr(claim)
    assert rx.try_recv_bytes() == b"before"
    with pytest.raises(Empty):
        rx.try_recv()
    claim[:] = b"abcdefgh"
    del kept, error
    collect()
    getattr(claim, end)()
    if end == "commit":
        assert rx.try_recv_bytes() == b"abcdefgh"
    with pytest.raises(Empty):
        rx.try_recv()
    assert rx.used == 0


@every_export
def test_pitfall_33_a_read_claim_with_a_view_cannot_be_released_and_stays_as_it_is(bytes_variant, export):
    tx, rx = bytes_variant.channel(64)
    claim = lent(tx, rx, b"12345678")
    kept = export(claim)
    before = rx._dump(), rx.used, rx.statistics()
    for _ in range(3):
        with pytest.raises(BufferError, match="view") as error:
            claim.release()
        assert not isinstance(error.value, ClaimReleased)
    assert (rx._dump(), rx.used, rx.statistics()) == before
    with pytest.raises(Full):
        tx.try_send(b"x" * 56)
    tx.try_send(b"x" * 40)
    assert bytes(claim) == b"12345678"
    del kept, error
    collect()
    claim.release()
    assert rx.try_recv_bytes() == b"x" * 40
    assert rx.used == 0


@every_export
@pytest.mark.parametrize("side", ["write", "read"])
def test_pitfall_33_a_dropped_claim_ends_with_its_last_view(bytes_variant, export, side):
    tx, rx = bytes_variant.channel(64)
    claim = written(tx, b"12345678") if side == "write" else lent(tx, rx, b"12345678")
    kept = export(claim)
    further = memoryview(kept) if side == "write" and isinstance(kept, memoryview) else None
    del claim
    collect()
    with pytest.raises(BusyError):
        tx.try_send(b"busy") if side == "write" else rx.try_recv()
    del kept
    collect()
    if further is not None:
        with pytest.raises(BusyError):
            tx.try_send(b"still busy")
        del further
        collect()
    with pytest.raises(Empty):
        rx.try_recv()
    tx.try_send(b"n" * 56)
    assert rx.try_recv_bytes() == b"n" * 56


def test_pitfall_33_a_released_view_reads_nothing_of_the_next_record(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    with tx.try_claim(8) as view:
        view[:] = b"mine!!!!"
    with pytest.raises(ValueError, match="released"):
        view[0]
    with rx.try_recv() as seen:
        pass
    tx.try_send(b"secret!!")
    with pytest.raises(ValueError, match="released"):
        bytes(seen)


# With blocks


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_with_block_left_by_an_exception_aborts(bytes_variant, run, asynchronous):
    tx, rx = bytes_variant.channel(64)

    async def write():
        if asynchronous:
            async with tx.claim(8) as view:
                view[:4] = b"half"
                raise KeyError("mine")
        else:
            with tx.try_claim(8) as view:
                view[:4] = b"half"
                raise KeyError("mine")

    async def main():
        for _ in range(size(10, 10_000)):
            with pytest.raises(KeyError, match="mine"):
                await write()
            with pytest.raises(Empty):
                rx.try_recv()
            assert rx.used == 0
        await tx.send(b"x" * 56)

    run(main())


def test_a_with_block_over_a_message_left_by_an_exception_releases_it(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    tx.try_send_many([b"1", b"2"])
    with pytest.raises(KeyError), rx.try_recv():
        raise KeyError
    assert rx.try_recv_bytes() == b"2"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_with_block_left_while_a_part_of_the_view_lives_raises_and_changes_nothing(bytes_variant, run, asynchronous):
    tx, rx = bytes_variant.channel(64)
    kept = []

    async def write():
        if asynchronous:
            async with tx.claim(8) as view:
                view[:] = b"12345678"
                kept.append(view[2:])
        else:
            with tx.try_claim(8) as view:
                view[:] = b"12345678"
                kept.append(view[2:])

    async def main():
        with pytest.raises(BufferError):
            await write()

    run(main())
    collect()
    with pytest.raises(Empty):
        rx.try_recv()
    with pytest.raises(BusyError):
        tx.try_claim(8)
    assert bytes(kept[0]) == b"345678"
    kept.clear()
    collect()
    with pytest.raises(Empty):
        rx.try_recv()
    tx.try_send(b"x" * 56)
    assert rx.try_recv_bytes() == b"x" * 56


def test_after_a_with_block_that_could_not_commit_the_claim_can_still_be_committed(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(8)
    with pytest.raises(BufferError), claim as view:
        view[:] = b"12345678"
        part = view[2:]
    part[:2] = b"ab"
    part.release()
    claim.commit()
    assert rx.try_recv_bytes() == b"12ab5678"


def test_the_exception_of_the_block_wins_over_a_view_that_still_lives(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    with pytest.raises(KeyError), tx.try_claim(8) as view:
        part = view[2:]
        raise KeyError
    del part, view
    collect()
    tx.try_send(b"x")
    assert rx.try_recv_bytes() == b"x"


def test_a_block_may_commit_a_part_itself(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(40)
    with claim as view:
        view[:5] = b"hello"
        claim.commit(5)
        with pytest.raises(ValueError, match="released"):
            view[0]
    assert rx.try_recv_bytes() == b"hello"
    with pytest.raises(Empty):
        rx.try_recv()


def test_a_block_that_commits_while_its_view_is_exported_keeps_the_view(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(8)
    with claim as view:
        view[:] = b"12345678"
        exported = pickle.PickleBuffer(view)  # of the view itself: a slice is an export of the claim
        with pytest.raises(BufferError):
            claim.commit()
        exported.release()
        view[7:] = b"!"
    assert rx.try_recv_bytes() == b"1234567!"


def test_a_block_may_abort_itself(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(40)
    with claim:
        claim.abort()
    with pytest.raises(Empty):
        rx.try_recv()
    assert rx.used == 0


def test_a_block_may_release_its_view_itself(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    with tx.try_claim(2) as view:
        view[:] = b"ok"
        view.release()
    with rx.try_recv() as view:
        assert bytes(view) == b"ok"
        view.release()
    assert rx.used == 0


def test_a_task_cancelled_in_the_block_aborts(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def write():
        async with tx.claim(8) as view:
            view[:] = b"12345678"
            await aio.Event().wait()

    async def main():
        writing = aio.create_task(write())
        await turns(2)
        with pytest.raises(BusyError):
            tx.try_send(b"x")
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(Empty):
            rx.try_recv()
        await tx.send(b"x" * 56)

    run(main())


def test_an_async_with_cancelled_while_it_waits_claims_nothing(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    entered = []

    async def write():
        async with tx.claim(8):
            entered.append(True)

    async def main():
        writing = aio.create_task(write())
        await until_parked(tx, senders=1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert rx.try_recv_bytes() == b"f" * 56
        assert entered == [] and tx.used == 0
        tx.try_send(b"g" * 56)

    run(main())


# Dropped


@pytest.mark.parametrize("count", [size(100, 10_000)])
def test_pitfall_32_dropped_claims_are_handed_back_and_wedge_nobody(bytes_variant, count):
    tx, rx = bytes_variant.channel(64)
    for number in range(count):
        tx.try_claim(number % 56 + 1)
        with pytest.raises(Empty):
            rx.try_recv()
        tx.try_send(b"%d" % number)
        assert bytes(rx.try_recv()) == b"%d" % number  # dropped too
        assert rx.used == 0


def test_pitfall_32_the_claim_of_one_sender_dropped_lets_the_others_messages_through():
    tx, rx = mpsc_bytes.channel(256)
    twin = tx.clone()
    claim = written(tx, b"never")
    twin.try_send(b"behind it")
    with pytest.raises(Empty):
        rx.try_recv()
    del claim
    assert rx.try_recv_bytes() == b"behind it"


def test_a_claim_in_a_reference_cycle_is_handed_back_by_the_collector(bytes_variant):
    for with_view in (False, True):
        tx, rx = bytes_variant.channel(64)
        cycle = [lent(tx, rx, b"lent"), written(tx, b"in cycle")]
        cycle.append(cycle)
        if with_view:
            cycle += [memoryview(cycle[0]), memoryview(cycle[1])]
        del cycle
        collect()
        with pytest.raises(Empty):
            rx.try_recv()
        tx.try_send(b"x" * 56)
        assert rx.try_recv_bytes() == b"x" * 56


def test_a_cycle_of_claims_and_endpoints_is_collected(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    gone = [weakref.ref(tx), weakref.ref(rx)]
    cycle = [tx, rx, tx.send(b"never awaited"), iter(rx)]
    read = lent(tx, rx, b"lent")
    cycle += [cycle, read, memoryview(read), written(tx, b"written")]
    del tx, rx, read, cycle
    collect()
    assert [reference() for reference in gone] == [None, None]


NAMES = ("tx", "rx", "write", "view of write", "read", "view of read")


@pytest.mark.parametrize("in_cycle", [False, True])
def test_everything_may_be_dropped_in_any_order(bytes_variant, in_cycle):
    """Pitfall 36: claims and views outlive both endpoints."""
    orders = itertools.permutations(NAMES)
    for order in itertools.islice(orders, 0, None, size(30, 1)) if in_cycle else orders:
        tx, rx = bytes_variant.channel(64)
        gone = [weakref.ref(tx), weakref.ref(rx)]
        read = lent(tx, rx, b"to read!")
        write = written(tx, b"to write")
        held = dict(zip(NAMES, (tx, rx, write, memoryview(write)[1:], read, memoryview(read)[1:]), strict=True))
        del tx, rx, write, read
        if in_cycle:
            for name in order:
                held[name] = [held[name], held]
            gc.collect(0)
            del held
            gc.collect()
        else:
            for name in order:
                del held[name]
                if "view of write" in held:
                    held["view of write"][:] = b"WRITING"
                if "view of read" in held:
                    assert bytes(held["view of read"]) == b"o read!"
                elif "write" in held:
                    assert bytes(held["write"])[1:] in (b"WRITING", b"o write")
        assert [reference() for reference in gone] == [None, None], order


# Closed while a claim is out


@pytest.mark.parametrize("way", ["close", "drop"])
def test_pitfall_36_the_receiver_goes_while_a_write_claim_is_out(bytes_variant, way):
    for end in ("commit", "abort", "drop"):
        tx, rx = bytes_variant.channel(64)
        tx.try_send(b"before")
        claim = written(tx, b"12345678")
        rx.close()
        if way == "drop":
            del rx
        assert tx.is_disconnected
        claim[:] = b"abcdefgh"
        assert bytes(claim) == b"abcdefgh"
        if end == "commit":
            with pytest.raises(ClaimDisconnected):
                claim.commit()
            with pytest.raises(ClaimReleased):
                claim.commit()
        elif end == "abort":
            claim.abort()
        else:
            del claim
        assert tx.used == 0
        with pytest.raises(SendError):
            tx.try_send(b"x")


@pytest.mark.parametrize("end", ["commit", "abort", "drop"])
def test_pitfall_36_a_write_claim_outlives_the_close_of_its_sender(bytes_variant, end):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"before")
    claim = written(tx, b"12345678")
    tx.close()
    assert tx.is_closed
    assert not rx.is_disconnected
    assert rx.statistics().open_senders == 1
    with pytest.raises(EndpointClosed):
        tx.try_claim(8)
    assert rx.try_recv_bytes() == b"before"
    with pytest.raises(Empty):
        rx.try_recv()
    claim[:4] = b"abcd"
    if end == "drop":
        del claim
    else:
        getattr(claim, end)()
    assert rx.is_disconnected
    if end == "commit":
        assert rx.try_recv_bytes() == b"abcd5678"
    with pytest.raises(RecvError):
        rx.try_recv()


@pytest.mark.parametrize("end", ["commit", "abort", "drop"])
def test_pitfall_36_a_waiting_receiver_learns_of_the_end_from_the_last_claim(bytes_variant, step_loop, spawn, end):
    for by_thread in (False, True):
        tx, rx = bytes_variant.channel(64)
        claim = written(tx, b"12345678")
        if by_thread:
            waiting = spawn(rx.recv_bytes_blocking)
            until_blocked(rx, receivers=1)
        else:
            waiting = step_loop.create_task(rx.recv_bytes())
            step_loop.run_ready()
        tx.close()
        step_loop.run_ready()
        assert rx.statistics().waiting_receivers == 1
        if end == "drop":
            del claim
        else:
            getattr(claim, end)()
        if not by_thread:
            step_loop.run_ready()
        result = waiting.join if by_thread else waiting.result
        if end == "commit":
            assert result() == b"12345678"
        else:
            with pytest.raises(RecvError):
                result()


@pytest.mark.parametrize("end", ["release", "drop"])
def test_pitfall_36_a_read_claim_outlives_the_close_of_its_receiver(bytes_variant, end):
    tx, rx = bytes_variant.channel(64)
    claim = lent(tx, rx, b"12345678")
    tx.try_send(b"discarded")
    rx.close()
    assert tx.is_disconnected
    with pytest.raises(SendError):
        tx.try_send(b"x")
    with pytest.raises(ClaimDisconnected):
        tx.try_claim(8)
    with pytest.raises(EndpointClosed):
        rx.try_recv()
    assert bytes(claim) == b"12345678"
    if end == "release":
        claim.release()
        with pytest.raises(ClaimReleased):
            bytes(claim)
    else:
        del claim
    assert tx.used == 0


def test_pitfall_36_the_sender_goes_while_a_read_claim_is_out(bytes_variant):
    tx, rx = bytes_variant.channel(64)
    claim = lent(tx, rx, b"12345678")
    tx.try_send(b"last")
    tx.close()
    del tx
    assert bytes(claim) == b"12345678"
    claim.release()
    assert rx.try_recv_bytes() == b"last"
    with pytest.raises(RecvError):
        rx.try_recv()


def test_pitfall_36_claims_outlive_both_endpoints(bytes_variant):
    tx, rx, write, read = both_claims(bytes_variant)
    tx.close()
    rx.close()
    del tx, rx
    collect()
    write[:] = b"WRITTEN!"
    assert bytes(write) == b"WRITTEN!"
    assert bytes(read) == b"to read!"
    with pytest.raises(ClaimDisconnected):
        write.commit()
    assert bytes(read) == b"to read!"
    read.release()


def test_pitfall_41_every_order_of_closing_both_ends_and_ending_both_claims(bytes_variant):
    events = ("close tx", "close rx", "end write", "end read")
    for order, write_end, read_end in itertools.product(
        itertools.permutations(events), ("commit", "abort", "drop"), ("release", "drop")
    ):
        tx, rx, write, read = both_claims(bytes_variant)
        ends = {"write": write, "read": read}
        del write, read
        for event in order:
            if event == "close tx":
                tx.close()
            elif event == "close rx":
                rx.close()
            elif event == "end read":
                assert bytes(ends["read"]) == b"to read!"
                getattr(ends.pop("read"), read_end, int)()
            elif write_end == "commit" and rx.is_closed:
                with pytest.raises(ClaimDisconnected):
                    ends.pop("write").commit()
            else:
                getattr(ends.pop("write"), write_end, int)()
        assert tx.used == 0, (order, write_end, read_end)
        stats = rx.statistics()
        assert (stats.open_senders, stats.open_receivers) == (0, 0)


# Shared by threads


def test_a_claim_may_be_written_and_ended_by_another_thread(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(64)
    claim = tx.try_claim(8)

    def write():
        claim[:] = b"threaded"
        claim.commit()

    spawn(write).join()
    read = rx.try_recv()
    assert spawn(bytes, read).join() == b"threaded"
    spawn(read.release).join()
    with pytest.raises(ClaimReleased):
        claim.commit()
    tx.try_send(b"x" * 56)


@pytest.mark.parametrize("rounds", [size(100, 10_000)])
def test_one_of_many_threads_ends_a_claim(bytes_variant, spawn, rounds):
    tx, rx = bytes_variant.channel(64)
    barrier = threading.Barrier(3)
    current = [None]
    outcomes = []

    def end():
        for number in range(rounds):
            barrier.wait(20)
            try:
                current[0].commit() if number % 2 else current[0].abort()
                outcomes.append(number)
            except ClaimReleased:
                pass
            barrier.wait(20)

    threads = [spawn(end) for _ in range(2)]
    for number in range(rounds):
        current[0] = written(tx, b"%08d" % number)
        barrier.wait(20)
        barrier.wait(20)
        if number % 2:
            assert rx.try_recv_bytes() == b"%08d" % number
        with pytest.raises(Empty):
            rx.try_recv()
    for thread in threads:
        thread.join()
    assert outcomes == list(range(rounds))


@pytest.mark.parametrize("rounds", [size(100, 10_000)])
def test_a_view_taken_while_another_thread_commits_never_writes_into_a_sent_message(bytes_variant, spawn, rounds):
    tx, rx = bytes_variant.channel(64)
    start = threading.Barrier(2)
    current = [None]

    def scribble():
        for _ in range(rounds):
            start.wait(20)
            claim = current[0]
            for letter in itertools.cycle(b"abcdefgh"):
                try:
                    view = memoryview(claim)
                except ClaimReleased:
                    break
                view[:] = bytes([letter]) * 8
                view.release()
            start.wait(20)

    thread = spawn(scribble)
    for _ in range(rounds):
        claim = current[0] = written(tx, b"--------")
        start.wait(20)
        while True:
            try:
                claim.commit()
                break
            except BufferError as error:
                assert not isinstance(error, ClaimReleased)
        first = bytes(rx.try_recv())
        tx.try_send(b"=" * 56)
        assert len(set(first)) == 1
        start.wait(20)
        assert rx.try_recv_bytes() == b"=" * 56
    thread.join()


@pytest.mark.parametrize("way", ["returns", "raises", "thread local"])
def test_a_thread_that_dies_between_claim_and_commit_wedges_nobody(bytes_variant, way, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)  # pytest's own keeps the exception
    tx, rx = bytes_variant.channel(64)
    store = threading.local()

    def die():
        claim = written(tx, b"half do")
        if way == "thread local":
            store.claim = claim
        if way == "raises":
            raise KeyError

    for _ in range(size(10, 10_000)):
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()
        with pytest.raises(Empty):
            rx.try_recv()
        tx.try_send(b"x" * 56)
        assert rx.try_recv_bytes() == b"x" * 56


def test_a_receiver_blocked_behind_the_claim_of_a_thread_that_dies_is_served(spawn):
    tx, rx = mpsc_bytes.channel(256)
    twin = tx.clone()
    claimed, behind = threading.Event(), threading.Event()

    def die():
        claim = written(tx, b"half do")
        claimed.set()
        assert behind.wait(20)
        del claim

    dying = spawn(die)
    assert claimed.wait(20)
    twin.try_send(b"behind it")
    receiving = spawn(rx.recv_bytes_blocking)
    until_blocked(rx, receivers=1)
    behind.set()
    dying.join()
    assert receiving.join() == b"behind it"


@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
def test_pitfall_43_the_interpreter_exits_with_claims_out_and_a_daemon_thread_waiting(module):
    code = """
import sys, threading, time
from importlib import import_module
module = import_module("nexus_channels." + sys.argv[1])
tx, rx = module.channel(64)
tx.try_send(b"12345678")
claim = tx.try_claim(8)
view = memoryview(claim)
other_tx, other_rx = module.channel(64)

def wait():
    lent = rx.recv_blocking()
    kept = memoryview(lent)
    other_rx.recv_blocking()

for target in (wait, other_rx.recv_bytes_blocking):
    threading.Thread(target=target, daemon=True).start()
while other_rx.statistics().waiting_receivers < 2:
    time.sleep(0)
print("left")
"""
    for _ in range(size(2, 25)):
        assert run_child(code, module) == "left\n"


# Busy


def sender_calls(tx):
    return {
        "try_claim": lambda: tx.try_claim(1),
        "claim_blocking": lambda: tx.claim_blocking(1),
        "claim": lambda: tx.claim(1),
        "try_send": lambda: tx.try_send(b"x"),
        "send_blocking": lambda: tx.send_blocking(b"x"),
        "send": lambda: tx.send(b"x"),
        "try_send_many": lambda: tx.try_send_many([b"x"]),
        "send_many_blocking": lambda: tx.send_many_blocking([b"x"]),
        "send_many": lambda: tx.send_many([b"x"]),
    }


def receiver_calls(rx):
    return {
        "try_recv": rx.try_recv,
        "recv_blocking": rx.recv_blocking,
        "recv": rx.recv,
        "try_recv_bytes": rx.try_recv_bytes,
        "recv_bytes_blocking": rx.recv_bytes_blocking,
        "recv_bytes": rx.recv_bytes,
        "try_recv_into": lambda: rx.try_recv_into(bytearray(8)),
        "recv_into_blocking": lambda: rx.recv_into_blocking(bytearray(8)),
        "recv_into": lambda: rx.recv_into(bytearray(8)),
        "try_recv_many": lambda: rx.try_recv_many(1),
        "recv_many_blocking": lambda: rx.recv_many_blocking(1),
        "recv_many": lambda: rx.recv_many(1),
        "next": lambda: next(iter(rx)),
        "anext": lambda: drive(anext(aiter(rx))),
    }


def test_an_endpoint_lent_to_a_claim_raises_busy_at_the_call(bytes_variant):
    tx, rx, write, read = both_claims(bytes_variant)
    before = rx._dump()
    for calls in (sender_calls(tx), receiver_calls(rx)):
        for name, call in calls.items():
            with pytest.raises(BusyError):
                call()
                pytest.fail(name)
    assert rx._dump() == before
    write.commit()
    read.release()
    assert rx.try_recv_bytes() == b"to write"
    tx.try_send(b"x")


def test_each_side_and_each_clone_has_a_claim_of_its_own():
    tx, rx = mpsc_bytes.channel(256)
    twin = tx.clone()
    tx.try_send(b"first")
    with tx.try_claim(1) as one, twin.try_claim(2) as two, rx.try_recv() as read:
        one[:] = b"1"
        two[:] = b"22"
        assert bytes(read) == b"first"
    assert rx.try_recv_many(5) == [b"1", b"22"]


def test_claims_that_wait_in_line_wait_on_while_the_sender_is_lent(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = [step_loop.create_task(tx.claim(8)) for _ in range(3)]
    sending = step_loop.create_task(tx.send(b"sent"))
    step_loop.run_ready()
    assert rx.try_recv_bytes() == b"f" * 56  # room for all
    step_loop.run_ready()
    for number, task in enumerate(tasks):
        assert [other.done() for other in tasks] == [index <= number for index in range(3)]
        assert not sending.done()
        claim = task.result()
        claim[:] = b"message%d" % number
        step_loop.call(claim.commit if number != 1 else claim.abort)
        step_loop.run_ready()
    assert sending.done() and sending.exception() is None
    assert rx.try_recv_many(9) == [b"message0", b"message2", b"sent"]


def test_receives_that_wait_in_line_wait_on_while_the_receiver_is_lent(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tasks = [step_loop.create_task(rx.recv()) for _ in range(2)]
    copying = step_loop.create_task(rx.recv_bytes())
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [b"0", b"1", b"2"])
    step_loop.run_ready()
    for number, task in enumerate(tasks):
        assert [other.done() for other in tasks] == [index <= number for index in range(2)]
        assert not copying.done()
        assert bytes(task.result()) == b"%d" % number
        step_loop.call(task.result().release)
        step_loop.run_ready()
    assert copying.result() == b"2"
    assert rx.used == 0


@pytest.mark.parametrize("by", ["release", "drop", "cancel", "close"])
def test_a_thread_that_waits_in_line_waits_on_while_the_receiver_is_lent(bytes_variant, spawn, by):
    tx, rx = bytes_variant.channel(64)
    lent_to, free = [], threading.Event()

    def borrow():
        claim = rx.recv_blocking()
        lent_to.append(bytes(claim))
        assert free.wait(20)
        if by == "release":
            claim.release()
        elif by == "close":
            rx.close()
        return claim if by == "close" else None

    borrowing = spawn(borrow)
    until_blocked(rx, receivers=1)
    waiting = spawn(rx.recv_bytes_blocking, 0.5 if by == "cancel" else None)
    until_blocked(rx, receivers=2)
    tx.try_send_many([b"first", b"second"])
    until(lambda: lent_to == [b"first"])
    if by == "cancel":
        with pytest.raises(Empty):
            waiting.join()
        free.set()
        borrowing.join()
        assert rx.try_recv_bytes() == b"second"
        return
    assert waiting.is_alive()
    free.set()
    if by == "close":
        with pytest.raises(EndpointClosed):
            waiting.join()
        assert bytes(borrowing.join()) == b"first"
    else:
        assert waiting.join() == b"second"


def test_signals_do_not_wake_a_thread_that_waits_while_the_receiver_is_lent(bytes_variant):
    """It was called, its turn came, and a claim has its endpoint: each signal lets it look, and sleep on."""
    run_child(
        f"""
import signal, threading
from support import Spawned, until, until_blocked
from {bytes_variant.__name__} import channel
tx, rx = channel(64)
signals, free = [], threading.Event()
signal.signal(signal.SIGALRM, lambda *_: signals.append(len(signals)))

def borrow():
    with rx.recv_blocking() as view:
        assert view == b"first"
        tx.try_send(b"second")
        before = len(signals)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        until(lambda: len(signals) > before + 20)
        signal.setitimer(signal.ITIMER_REAL, 0)

borrowing = Spawned(borrow)
until_blocked(rx, receivers=1)

def send():
    until_blocked(rx, receivers=2)
    tx.try_send(b"first")

sending = Spawned(send)
assert rx.recv_bytes_blocking() == b"second"
sending.join()
borrowing.join()
"""
    )


def test_a_waiter_put_off_by_a_claim_keeps_its_place(bytes_variant, step_loop):
    tx, rx = bytes_variant.channel(64)
    tasks = [step_loop.create_task(rx.recv()) for _ in range(2)]
    step_loop.run_ready()
    step_loop.call(tx.try_send_many, [b"0", b"1"])
    step_loop.run_ready()
    claim = tasks[0].result()
    with pytest.raises(BusyError):
        rx.try_recv()
    claim.release()
    with pytest.raises(Empty):  # owed to the one in line
        rx.try_recv()
    step_loop.run_ready()
    assert bytes(tasks[1].result()) == b"1"


def test_two_tasks_iterating_over_one_receiver_share_the_messages(bytes_variant, run):
    tx, rx = bytes_variant.channel(128)
    received = {"a": [], "b": []}

    async def consume(name):
        async for claim in rx:
            received[name].append(int(bytes(claim)))
            await turns(2)

    async def main():
        async with aio.TaskGroup() as group:
            for name in received:
                group.create_task(consume(name))
            await until_parked(rx, receivers=2)
            for number in range(100):
                await tx.send(b"%d" % number)
            tx.close()

    run(main())
    assert sorted(received["a"] + received["b"]) == list(range(100))
    assert all(numbers == sorted(numbers) and len(numbers) >= 40 for numbers in received.values())
    assert rx.used == 0


def test_two_threads_iterating_over_one_receiver_share_the_messages(bytes_variant, spawn):
    tx, rx = bytes_variant.channel(128)

    def consume():
        return [int(bytes(claim)) for claim in rx]

    threads = [spawn(consume) for _ in range(2)]
    until_blocked(rx, receivers=2)
    for number in range(500):
        tx.send_blocking(b"%d" % number)
    tx.close()
    received = [thread.join() for thread in threads]
    assert sorted(received[0] + received[1]) == list(range(500))
    assert all(numbers == sorted(numbers) for numbers in received)


def test_a_claim_handed_from_a_thread_to_a_task(bytes_variant, run):
    tx, rx = bytes_variant.channel(64)

    async def main():
        claim = await in_thread(tx.claim_blocking, 5)
        claim[:] = b"hello"
        receiving = aio.create_task(rx.recv())
        await until_parked(rx, receivers=1)
        await in_thread(claim.commit)
        read = await receiving
        assert await in_thread(bytes, read) == b"hello"
        await in_thread(read.release)

    run(main())
    assert rx.used == 0


# Handing back


HAND_BACK = {
    "abort": lambda claims: claims.pop().abort(),
    "drop": lambda claims: claims.clear(),
    "exception": lambda claims: claims.pop().__exit__(KeyError, KeyError(), None),
    "shrink": lambda claims: claims.pop().commit(1),
}


@pytest.mark.parametrize("how", HAND_BACK)
def test_pitfall_40_a_sender_in_line_gets_what_the_claim_of_another_hands_back(step_loop, how):
    tx, rx = mpsc_bytes.channel(64)
    other = tx.clone()
    claims = [tx.try_claim(56)]
    receiving = [step_loop.create_task(rx.recv_bytes()) for _ in range(2)]
    sending = step_loop.create_task(other.send(b"y" * 40))
    step_loop.run_ready()
    assert not sending.done()
    step_loop.call(HAND_BACK[how], claims)
    step_loop.run_ready()
    assert sending.done() and sending.exception() is None
    if how == "shrink":
        assert [len(task.result()) for task in receiving] == [1, 40]
    else:
        assert receiving[0].result() == b"y" * 40
        assert not receiving[1].done()


@pytest.mark.parametrize("how", HAND_BACK)
def test_pitfall_40_a_sender_put_off_by_its_own_claim_goes_on_when_it_is_handed_back(bytes_variant, step_loop, how):
    tx, rx = bytes_variant.channel(64)
    tx.try_send(b"f" * 56)
    tasks = [step_loop.create_task(tx.claim(20)), step_loop.create_task(tx.send(b"y" * 20))]
    step_loop.run_ready()
    step_loop.call(rx.try_recv_bytes)
    step_loop.run_ready()
    claims = [tasks.pop(0).result()]
    assert not tasks[0].done()
    step_loop.call(HAND_BACK[how], claims)
    step_loop.run_ready()
    assert tasks[0].done()
    assert rx.try_recv_many(9)[-1] == b"y" * 20


@pytest.mark.parametrize("how", HAND_BACK)
def test_pitfall_40_blocked_senders_get_what_is_handed_back(spawn, how):
    tx, rx = mpsc_bytes.channel(64)
    other = tx.clone()
    claims = [tx.try_claim(56)]
    receiving = [spawn(rx.recv_bytes_blocking) for _ in range(2)]
    sending = spawn(other.send_blocking, b"y" * 40)
    until_blocked(rx, senders=1, receivers=2)
    HAND_BACK[how](claims)
    sending.join()
    if how != "shrink":
        tx.send_blocking(b"z")
    assert sorted(len(thread.join()) for thread in receiving) == [1, 40]
