"""Tickets: ends of channels of bytes on their way.  Within one interpreter; test_interpreters.py goes across."""

import copy
import gc
import itertools
import os
import pickle
import random
import weakref

import pytest
from harness import run_child, seeded, size
from steploop import StepLoop
from support import Item, Spawned, collect, until_blocked

import nexus_channels
from nexus_channels import (
    BusyError,
    EndpointClosed,
    RecvError,
    SendError,
    Ticket,
    attach,
    local,
    mpsc,
    mpsc_bytes,
    spsc,
    spsc_bytes,
)

HEAD, TOKEN = 8, 16


def ends(channel, side):
    """The end of that side, and the other."""
    return tuple(channel) if side == "tx" else tuple(reversed(channel))


@pytest.fixture(params=["tx", "rx"])
def side(request):
    return request.param


@pytest.fixture
def channel(bytes_variant):
    return bytes_variant.channel(256)


# Sharing moves


def test_an_end_goes_by_a_ticket_and_is_the_same_end(channel, side):
    end, other = ends(channel, side)
    again = attach(end.share())
    assert type(again) is type(end) and again is not end
    assert again.same_channel(other) and other.same_channel(again)
    assert again.capacity == other.capacity
    tx, rx = (again, other) if side == "tx" else (other, again)
    tx.try_send(b"through")
    assert rx.try_recv_bytes() == b"through"


def test_what_was_sent_before_is_received_by_whoever_has_the_receiver_then(channel):
    tx, rx = channel
    tx.try_send(b"before")
    ticket = rx.share()
    tx.try_send(b"meanwhile")
    assert tx.statistics().buffered > 0
    rx = attach(ticket)
    tx.close()
    assert [bytes(claim) for claim in rx] == [b"before", b"meanwhile"]


def test_the_old_holders_end_is_closed(channel, side):
    end, _other = ends(channel, side)
    ticket = end.share()
    assert end.is_closed
    with pytest.raises(EndpointClosed):
        end.share()
    with pytest.raises(EndpointClosed):
        end.try_send(b"x") if side == "tx" else end.try_recv_bytes()
    end.close()
    del end
    assert attach(ticket).is_closed is False


def test_whoever_waits_on_the_old_end_is_told(channel, side):
    end, other = ends(channel, side)
    if side == "tx":
        end.try_send(bytes(end.max_message_size))
        waits = Spawned(end.send_blocking, b"x")
        until_blocked(end, senders=1)
    else:
        waits = Spawned(end.recv_bytes_blocking)
        until_blocked(end, receivers=1)
    ticket = end.share()
    with pytest.raises(EndpointClosed):
        waits.join()
    assert not other.is_disconnected
    ticket.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_task_that_waits_on_the_old_end_does_not_stand_before_the_new_holder(channel, when):
    """Its loop does not run meanwhile, as a loop of another thread may not for long."""
    tx, rx = channel
    loop = StepLoop()
    task = loop.create_task(rx.recv_bytes())
    loop.run_ready()
    until_blocked(tx, receivers=1)
    if when == "before":
        tx.try_send(b"x")  # calls the task
    again = attach(rx.share())
    if when == "after":
        tx.try_send(b"x")
    assert tx.statistics().waiting_receivers == 0
    assert again.try_recv_bytes() == b"x"
    loop.run_ready()
    with pytest.raises(EndpointClosed):
        task.result()
    loop.close()


def test_a_task_that_waits_to_send_on_the_old_end_does_not_stand_before_the_new_holder(channel):
    tx, rx = channel
    tx.try_send(bytes(tx.max_message_size))
    loop = StepLoop()
    task = loop.create_task(tx.send(b"x"))
    loop.run_ready()
    until_blocked(rx, senders=1)
    again = attach(tx.share())
    rx.try_recv_bytes()
    again.try_send(bytes(again.max_message_size))
    loop.run_ready()
    with pytest.raises(EndpointClosed):
        task.result()
    loop.close()


def test_a_ticket_counts_as_an_open_end_and_nobody_sees_an_end_in_between(channel, side):
    end, other = ends(channel, side)

    def count():
        statistics = other.statistics()
        return statistics.open_senders if side == "tx" else statistics.open_receivers

    assert count() == 1
    ticket = end.share()
    assert count() == 1 and not other.is_disconnected
    again = attach(ticket)
    assert count() == 1 and not other.is_disconnected
    again.close()
    assert count() == 0 and other.is_disconnected


def test_the_other_side_waits_on_while_an_end_moves(channel):
    tx, rx = channel
    waits = Spawned(rx.recv_bytes_blocking)
    until_blocked(rx, receivers=1)
    for _ in range(20):
        tx = attach(tx.share())
    assert waits.is_alive()
    tx.try_send(b"at last")
    assert waits.join() == b"at last"


def test_a_clone_is_shared_and_the_original_kept():
    tx, rx = mpsc_bytes.channel(256)
    ticket = tx.clone().share()
    tx.try_send(b"1")
    attach(ticket).try_send(b"2")
    tx.try_send(b"3")
    assert rx.try_recv_many(5) == [b"1", b"2", b"3"]


def test_an_end_with_an_open_claim_is_not_shared(channel, side):
    tx, rx = channel
    tx.try_send(b"x")
    end, _ = ends(channel, side)
    claim = tx.try_claim(1) if side == "tx" else rx.try_recv()
    with pytest.raises(BusyError):
        end.share()
    assert not end.is_closed
    claim.abort() if side == "tx" else claim.release()
    assert not attach(end.share()).is_closed


def test_an_end_that_is_lent_to_native_code_is_not_shared(side):
    channel = spsc_bytes.channel(64)
    end, _ = ends(channel, side)
    with end.native(), pytest.raises(BusyError):
        end.share()
    assert not end.is_closed
    assert not attach(end.share()).is_closed


@pytest.mark.parametrize("module", [local, spsc, mpsc])
def test_objects_cannot_be_shared_and_the_error_says_to_send_bytes(module, side):
    end, other = ends(module.channel(4), side)
    with pytest.raises(TypeError, match="spsc_bytes and mpsc_bytes.*send bytes"):
        end.share()
    assert not end.is_closed and not other.is_disconnected


def test_a_ticket_is_not_used_up_by_looking_at_it(channel, side):
    end, _ = ends(channel, side)
    ticket = end.share()
    kind = type(end).__module__.rpartition(".")[2]
    assert f"for the {'sender' if side == 'tx' else 'receiver'} of a channel of {kind}" in repr(ticket)
    assert bytes(ticket) == bytes(ticket) and len(bytes(ticket)) == HEAD + TOKEN
    attach(ticket)
    assert "spent" in repr(ticket)


def test_where_the_ends_are_is_remembered_in_debug_mode(channel, side):
    nexus_channels.set_debug_ends(True)
    try:
        end, other = ends(channel, side)
        again = attach(end.share())
        (found,) = [one for one in again.open_ends() if one.where]
        assert found.kind == ("sender" if side == "tx" else "receiver")
        assert "test_tickets.py" in found.where[0] and "test_tickets.py" in repr(again)
        assert len(other.open_ends()) == 2
    finally:
        nexus_channels.set_debug_ends(False)


# The collector


def waiting_task(channel):
    """A task that waits on a channel of which each end has moved; (what goes with it, its loop, the two ends)."""
    tx, rx = (attach(end.share()) for end in channel)
    loop, goes = StepLoop(), Item()

    async def wait(goes):
        return await rx.recv_bytes(), tx, goes

    task = loop.create_task(wait(goes))
    task._log_destroy_pending = False
    loop.run_ready()
    until_blocked(tx, receivers=1)
    return weakref.ref(goes), loop, tx, rx


def test_a_task_that_waits_is_collected_when_the_other_end_is_gone(bytes_variant):
    goes, loop, tx, rx = waiting_task(bytes_variant.channel(256))
    del rx
    collect()
    assert goes() is not None
    tx.close()
    loop.run_ready()
    loop.close()
    del loop, tx
    collect()
    assert goes() is None


def test_a_task_that_waits_lives_as_long_as_an_end_that_has_moved(bytes_variant):
    goes, loop, tx, rx = waiting_task(bytes_variant.channel(256))
    del rx
    for _ in range(5):
        collect()
    assert goes() is not None
    tx.try_send(b"x")
    loop.run_ready()
    loop.close()
    collect()
    assert goes() is None


@pytest.mark.parametrize("closed", [True, False])
def test_a_task_that_nobody_else_knows_is_collected_with_its_loop_though_its_ends_have_moved(bytes_variant, closed):
    goes, loop, tx, rx = waiting_task(bytes_variant.channel(256))
    alive = weakref.ref(loop)
    if closed:
        loop.close()
    del loop, tx, rx
    collect()
    assert goes() is None and alive() is None


def test_a_task_that_nobody_else_knows_is_not_collected_while_a_ticket_is_under_way(bytes_variant):
    goes, loop, tx, rx = waiting_task(bytes_variant.channel(256))
    ticket = tx.share()
    del tx, rx
    collect()
    assert goes() is not None
    attach(ticket).try_send(b"x")
    loop.run_ready()
    loop.close()
    collect()
    assert goes() is None


# Tickets are good once


def spent(ticket):
    with pytest.raises(ValueError, match="not good any more"):
        attach(ticket)
    return True


def test_a_ticket_is_attached_once_as_itself_or_as_bytes(channel):
    tx, rx = channel
    ticket = tx.share()
    text = bytes(ticket)
    tx = attach(text)
    assert spent(ticket) and spent(text)
    assert not rx.is_disconnected
    ticket = rx.share()
    rx = attach(ticket)
    assert spent(ticket) and spent(bytes(ticket))
    assert not tx.is_disconnected


@pytest.mark.parametrize("how", ["close", "drop", "collect"])
def test_a_ticket_that_is_given_up_disconnects(channel, side, how):
    end, other = ends(channel, side)
    ticket = end.share()
    text = bytes(ticket)
    if how == "close":
        ticket.close()
        ticket.close()
        assert spent(ticket)
    elif how == "drop":
        del ticket
    else:
        cycle = [ticket]
        cycle.append(cycle)
        del ticket, cycle
        collect()
    assert other.is_disconnected and spent(text)
    with pytest.raises(RecvError if side == "tx" else SendError):
        other.recv_bytes_blocking() if side == "tx" else other.send_blocking(b"x")


def test_a_with_block_gives_up_a_ticket_that_was_not_attached(channel, side):
    end, other = ends(channel, side)
    with end.share() as ticket:
        again = attach(ticket)
    assert not other.is_disconnected
    with pytest.raises(KeyError), again.share() as ticket:
        assert type(ticket) is Ticket
        raise KeyError
    assert other.is_disconnected and spent(ticket)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_ticket_that_is_given_up_wakes_whoever_waits(channel, side, how):
    end, other = ends(channel, side)
    if side == "tx":
        waits = Spawned(other.recv_bytes_blocking)
        until_blocked(other, receivers=1)
    else:
        other.try_send(bytes(other.max_message_size))
        waits = Spawned(other.send_blocking, b"x")
        until_blocked(other, senders=1)
    ticket = end.share()
    assert waits.is_alive()
    if how == "close":
        ticket.close()
    del ticket
    with pytest.raises(RecvError if side == "tx" else SendError):
        waits.join()


def test_a_receivers_ticket_that_is_given_up_discards_what_is_buffered(channel):
    tx, rx = channel
    tx.try_send(b"x")
    rx.share()
    assert tx.used == 0 and tx.is_disconnected


def test_closing_a_ticket_that_was_attached_does_nothing(channel, side):
    end, other = ends(channel, side)
    ticket = end.share()
    again = attach(ticket)
    ticket.close()
    del ticket
    assert not other.is_disconnected and not again.is_closed


@pytest.mark.parametrize("wrong", [None, 1, bytearray(24), memoryview(bytes(24)), object(), Ticket])
def test_attach_takes_a_ticket_or_bytes(wrong):
    with pytest.raises(TypeError, match="a Ticket, or the bytes of one"):
        attach(wrong)


def test_tickets_cannot_be_made_otherwise():
    with pytest.raises(TypeError):
        Ticket()
    with pytest.raises(TypeError):
        Ticket(bytes(24))


# Forged ones


def test_forged_bytes_are_refused_and_harm_nothing(channel):
    tx, rx = channel
    ticket = tx.share()
    good, rng = bytes(ticket), seeded("forged tickets")
    forged = [
        b"",
        good[:-1],
        good + b"\0",
        bytes(len(good)),
        good[:HEAD] + bytes(TOKEN),
        good[:HEAD] + b"\xff" * TOKEN,
        b"N" * len(good),
        *(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :] for at in range(len(good)) for bit in range(8)),
        *(good[:at] + rng.randbytes(size) + good[at + size :] for at in range(len(good)) for size in (1, 4, 8)),
        *(rng.randbytes(rng.randrange(64)) for _ in range(1000)),
        *(good[:HEAD] + rng.randbytes(TOKEN) for _ in range(size(5000, 100_000))),
    ]
    for text in forged:
        if text != good:
            with pytest.raises(ValueError, match="ticket"):
                attach(text)
    attach(good).try_send(b"still good")
    assert rx.try_recv_bytes() == b"still good"


def test_a_ticket_of_another_version_or_kind_says_so(channel):
    good = bytes(channel.sender.share())
    with pytest.raises(ValueError, match="version 2 and kind 1.*knows version 1 and kind 1"):
        attach(good[:4] + b"\x02" + good[5:])
    with pytest.raises(ValueError, match="version 1 and kind 9"):
        attach(good[:5] + b"\x09" + good[6:])
    with pytest.raises(ValueError, match="23 bytes"):
        attach(good[:-1])


def test_no_two_tokens_are_alike_and_no_bit_is_constant():
    tx, _rx = mpsc_bytes.channel(64)
    tickets = [tx.clone().share() for _ in range(500)]
    tokens = [int.from_bytes(bytes(ticket)[HEAD:], "big") for ticket in tickets]
    assert len(set(tokens)) == len(tokens)
    ones, zeros = 0, 0
    for token in tokens:
        ones |= token
        zeros |= ~token
    assert ones == 2 ** (8 * TOKEN) - 1 and zeros & ones == ones


def test_a_token_that_another_ticket_has_is_drawn_again(monkeypatch):
    drawn = iter([b"a" * TOKEN, b"a" * TOKEN, b"a" * TOKEN, b"b" * TOKEN])
    monkeypatch.setattr(os, "urandom", lambda n: next(drawn))
    channels = [spsc_bytes.channel(64) for _ in range(2)]
    tickets = [tx.share() for tx, _ in channels]
    assert [bytes(ticket)[HEAD:] for ticket in tickets] == [b"a" * TOKEN, b"b" * TOKEN]
    for at, ticket in enumerate(tickets):
        assert attach(ticket).same_channel(channels[at].receiver)


def test_a_source_of_tokens_that_gives_only_one_is_an_error_and_harms_nothing(monkeypatch, channel, side):
    monkeypatch.setattr(os, "urandom", bytes)
    other_tx, other_rx = spsc_bytes.channel(64)
    held = other_tx.share()
    end, other = ends(channel, side)
    with pytest.raises(OSError, match=r"os\.urandom\(\)"):
        end.share()
    assert not end.is_closed and not other.is_disconnected
    assert attach(held).same_channel(other_rx)
    assert attach(end.share()).same_channel(other)  # the token is free again


def test_many_tickets_at_once_each_leads_to_its_own_channel():
    channels = [spsc_bytes.channel(64) for _ in range(300)]
    tickets = [channel.sender.share() for channel in channels]
    order = list(range(len(channels)))
    random.Random(1).shuffle(order)
    for at in order:
        attach(bytes(tickets[at])).try_send(b"%d" % at)
    for at, (_, rx) in enumerate(channels):
        assert rx.try_recv_bytes() == b"%d" % at


# Copies and pickles: every order of what may be done


class Model:
    """What a ticket is, in the simplest words: objects and unread pickles hold it, until it is attached or closed."""

    def __init__(self):
        self.there, self.attached, self.holders, self.pickles = True, False, 1, 0

    def settle(self):
        self.there = self.there and (self.holders > 0 or self.pickles > 0)

    def open(self):
        return self.there or self.attached


STEPS = ("pickle", "load", "drop", "attach", "attach bytes", "close", "copy")


def run_steps(steps):
    tx, rx = spsc_bytes.channel(64)
    model = Model()
    objects, pickles, attached = [tx.share()], [], None
    text = bytes(objects[0])
    for step in steps:
        if step == "pickle" and objects:
            pickles.append(pickle.dumps(objects[-1]))
            model.pickles += model.there
        elif step == "copy" and objects:
            objects.append(copy.copy(objects[-1]))
            model.holders += 1
        elif step == "load" and pickles:
            objects.append(pickle.loads(pickles[-1]))  # may be read again
            model.holders += 1
            model.pickles = max(model.pickles - 1, 0)
        elif step == "drop" and objects:
            objects.pop()
            model.holders -= 1
            model.settle()
        elif step == "close" and objects:
            objects[-1].close()
            model.there = False
        elif step.startswith("attach") and (objects or step == "attach bytes"):
            try:
                attached = attach(text if step == "attach bytes" else objects[-1])
            except ValueError:
                assert not model.there, (steps, step)
            else:
                assert model.there, (steps, step)
                model.there, model.attached = False, True
        assert rx.is_disconnected is not model.open(), (steps, step)
        assert ("spent" in repr(objects[-1])) is not model.there if objects else True, (steps, step)
    if attached is not None:
        attached.try_send(b"x")
        assert rx.try_recv_bytes() == b"x"
    elif model.there:
        attach(text).close()
    assert attached is not None or rx.is_disconnected


def test_every_order_of_steps_does_what_the_model_says():
    for length in range(1, size(5, 6) + 1):
        for steps in itertools.product(STEPS, repeat=length):
            run_steps(steps)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_the_ticket_until_it_is_loaded(channel, side, protocol):
    end, other = ends(channel, side)
    text = pickle.dumps(end.share(), protocol)
    collect()
    assert not other.is_disconnected
    ticket = pickle.loads(text)
    assert type(ticket) is Ticket
    again = attach(ticket)
    assert again.same_channel(other)
    assert spent(pickle.loads(text))


@pytest.mark.parametrize(
    "pickled", [(), ("text", 1), (b"", "text"), (bytes(24), -1), (bytes(24), 1 << 64), (bytes(24),)]
)
def test_what_is_no_pickle_of_a_ticket_is_refused(pickled):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        nexus_channels._core._ticket(*pickled)


# Threads


def test_two_threads_with_one_ticket_exactly_one_wins(channel, side):
    import threading

    end, other = ends(channel, side)
    for _ in range(size(300, 5000)):
        ticket = end.share()
        barrier = threading.Barrier(3)

        def claim(what, barrier=barrier):
            barrier.wait()
            try:
                return attach(what)
            except ValueError:
                return None

        threads = [Spawned(claim, what) for what in (ticket, bytes(ticket), ticket)]
        won = [thread.join() for thread in threads]
        (end,) = [one for one in won if one is not None]
        assert not other.is_disconnected


def test_two_threads_share_one_end_exactly_one_wins(channel, side):
    import threading

    end, other = ends(channel, side)
    for _ in range(size(300, 5000)):
        barrier = threading.Barrier(2)

        def share(end=end, barrier=barrier):
            barrier.wait()
            try:
                return end.share()
            except EndpointClosed:
                return None

        threads = [Spawned(share) for _ in range(2)]
        (ticket,) = [one for one in (thread.join() for thread in threads) if one is not None]
        end = attach(ticket)
        assert not other.is_disconnected


def test_attaching_against_dropping_the_last_object(channel):
    """Whoever comes first: an endpoint, or the end of the stream, never both and never neither."""
    import threading

    for _ in range(size(300, 5000)):
        tx, rx = spsc_bytes.channel(64)
        held = [tx.share()]
        text = bytes(held[0])
        barrier = threading.Barrier(2)

        def claim(text=text, barrier=barrier):
            barrier.wait()
            try:
                return attach(text)
            except ValueError:
                return None

        def drop(held=held, barrier=barrier):
            barrier.wait()
            held.clear()

        threads = Spawned(claim), Spawned(drop)
        end, _ = [thread.join() for thread in threads]
        assert rx.is_disconnected is (end is None)


# Fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_cannot_attach_a_ticket_of_its_parent_and_dropping_it_there_harms_nobody():
    run_child(
        """
import os, gc
from nexus_channels import attach, spsc_bytes
tx, rx = spsc_bytes.channel(64)
ticket = tx.share()
pid = os.fork()
if pid == 0:
    try:
        for what in (ticket, bytes(ticket)):
            try:
                attach(what)
                os._exit(1)
            except ValueError as e:
                assert 'parent' in str(e), e
        assert 'parent' in repr(ticket)
        own = spsc_bytes.channel(64)
        attach(own.sender.share()).try_send(b'x')  # its own tickets are good
        assert own.receiver.try_recv_bytes() == b'x'
        ticket.close()
        assert rx.is_disconnected
        del ticket
        gc.collect()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert not rx.is_disconnected
attach(ticket).try_send(b'x')
assert rx.try_recv_bytes() == b'x'
"""
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_while_other_threads_share_and_attach():
    """The table's lock is held by a thread that the child does not have, unless a fork waits for it."""
    run_child(
        f"""
import os, threading, warnings
warnings.simplefilter("ignore")
from nexus_channels import attach, spsc_bytes
stop = False
def work():
    tx, rx = spsc_bytes.channel(64)
    while not stop:
        tx = attach(tx.share())
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range({size(50, 500)}):
    pid = os.fork()
    if pid == 0:
        tx, rx = spsc_bytes.channel(64)
        attach(tx.share()).try_send(b'x')
        os._exit(0 if rx.try_recv_bytes() == b'x' else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
for thread in threads: thread.join()
""",
        seconds=100,
    )


# Memory


def test_nothing_is_lost_by_tickets_that_are_given_up_or_attached():
    import tracemalloc

    def use():
        for module in (spsc_bytes, mpsc_bytes):
            tx, rx = module.channel(64)
            tx = attach(tx.share())
            rx = attach(pickle.loads(pickle.dumps(rx.share())))
            tx.share()
            rx.share().close()
            with pytest.raises(ValueError, match="no ticket"):
                attach(bytes(24))

    for _ in range(50):
        use()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(500):
        use()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000, grown  # 500 tickets lost would be more
