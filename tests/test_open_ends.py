"""What keeps a channel open: `repr()`, `open_ends()`, and where each end was made, in debug mode."""

import asyncio
import gc
import inspect
import re
import weakref

import pytest
from harness import run_child, size
from support import collect, until, until_blocked

import nexus_channels
from nexus_channels import OpenEnd, mpsc, mpsc_bytes, spsc_bytes

ALL = ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes"]


@pytest.fixture(params=ALL)
def module(request):
    return getattr(nexus_channels, request.param)


@pytest.fixture
def debugging():
    nexus_channels.set_debug_ends(True)
    yield
    nexus_channels.set_debug_ends(False)


def short(endpoint):
    """Its repr without the module and the address."""
    found = re.fullmatch(r"<nexus_channels\.(\w+\.\w+ .*), at 0x\w+>", repr(endpoint))
    assert found, repr(endpoint)
    return found[1]


def here(back=0):
    """This line of the caller's, as `open_ends()` names it, so many lines before."""
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno - back} in {frame.f_code.co_qualname}"


# repr


def test_repr_tells_how_full_the_channel_is_and_who_is_there(module):
    tx, rx = module.channel(128)
    name = module.__name__.rpartition(".")[2]
    unit, used = ("bytes ", 48) if "bytes" in name else ("", 3)
    for _ in range(3):
        tx.try_send(b"x")
    for end, kind in ((tx, "Sender"), (rx, "Receiver")):
        assert short(end) == f"{name}.{kind} {used}/128 {unit}buffered, 1 sender, receiver open"
    tx.close()
    assert short(tx) == f"{name}.Sender closed, {used}/128 {unit}buffered, no senders, receiver open"
    assert short(rx) == f"{name}.Receiver disconnected, {used}/128 {unit}buffered, no senders, receiver open"
    rx.close()
    assert short(rx) == f"{name}.Receiver closed, 0/128 {unit}buffered, no senders, receiver gone"


def test_repr_counts_the_senders():
    for module in (nexus_channels.local, mpsc, mpsc_bytes):
        tx, rx = module.channel(64)
        twins = [tx.clone() for _ in range(3)]
        assert "4 senders, receiver open" in repr(rx)
        twins.pop()
        tx.close()
        assert "2 senders, receiver open" in repr(rx) and "closed, " in repr(tx)
        rx.close()
        assert "disconnected, " in repr(twins[0]) and "2 senders, receiver gone" in repr(twins[0])


def test_repr_tells_who_waits(module, step_loop):
    tx, rx = module.channel(64 if "bytes" in module.__name__ else 1)
    receives = [step_loop.create_task(rx.recv_many(1)) for _ in range(2)]
    step_loop.run_ready()
    assert "1 sender, receiver waiting (2 calls)" in repr(tx)
    receives.pop().cancel()
    step_loop.run_ready()
    assert "1 sender, receiver waiting, at" in repr(tx)
    receives.pop().cancel()
    step_loop.run_ready()
    tx.try_send(b"x" * 56)
    sends = [step_loop.create_task(tx.send(b"y" * 56))]
    step_loop.run_ready()
    assert "1 sender (1 call waiting), receiver open" in repr(rx)
    sends.append(step_loop.create_task(tx.send(b"z" * 56)))
    step_loop.run_ready()
    assert "1 sender (2 calls waiting), receiver open" in repr(rx)
    for task in sends:
        task.cancel()
    step_loop.run_ready()


def test_repr_counts_native_ends():
    tx, rx = mpsc_bytes.channel(64)
    with tx.native():
        assert "2 senders" in repr(rx)
    assert "1 sender," in repr(rx)


@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_repr_tells_of_an_open_claim_also_of_a_closed_endpoint(module):
    tx, rx = module.channel(64)
    assert "a claim open" not in repr(tx)
    claim = tx.try_claim(8)
    tx.close()
    assert "Sender closed, a claim open, " in repr(tx)
    claim.commit()
    assert "Sender closed, 16/64 bytes buffered" in repr(tx)
    claim = rx.try_recv()
    assert "a claim open, " in repr(rx)
    claim.release()
    assert "a claim open" not in repr(rx)


# Without debug mode


def test_open_ends_are_counted_without_debug_mode(module):
    tx, rx = module.channel(64)
    assert tx.open_ends() == [OpenEnd("sender", ()), OpenEnd("receiver", ())]
    rx.close()
    assert rx.open_ends() == [OpenEnd("sender", ())]
    tx.close()
    assert tx.open_ends() == []


# Debug mode


def make(module):
    return module.channel(64)


def test_each_end_remembers_where_it_was_made(module, debugging):
    tx, rx = make(module)
    caller = here(back=1)
    made = f"{make.__code__.co_filename}:{make.__code__.co_firstlineno + 1} in make"
    for end in rx.open_ends():
        assert end.where[:2] == (made, caller)
        assert len(end.where) <= 5
    assert [end.kind for end in tx.open_ends()] == ["sender", "receiver"]
    assert f"made at {made}, at" in repr(tx) and f"made at {made}, at" in repr(rx)


def test_clones_and_native_ends_remember_too(debugging):
    tx, rx = mpsc_bytes.channel(64)
    lines = [here(back=1)]
    twin = tx.clone()
    lines.append(here(back=1))
    native = tx.native()
    lines.append(here(back=1))
    borrowed = rx.native()
    lines.append(here(back=1))
    ends = rx.open_ends()
    assert [end.kind for end in ends] == ["sender", "sender", "native sender", "receiver", "native receiver"]
    assert [end.where[0] for end in ends] == [*lines[:3], lines[0], lines[3]]
    twin.close()
    native.close()
    borrowed.close()
    assert [end.where[0] for end in rx.open_ends()] == [lines[0], lines[0]]
    del tx
    assert [end.kind for end in rx.open_ends()] == ["receiver"]


def test_an_end_counts_until_its_last_claim_ends(debugging):
    tx, rx = mpsc_bytes.channel(64)
    made = here(back=1)
    claim = tx.try_claim(8)
    tx.close()
    assert rx.open_ends()[0] == OpenEnd("sender", rx.open_ends()[1].where) and made in rx.open_ends()[0].where
    claim.abort()
    assert [end.kind for end in rx.open_ends()] == ["receiver"]


def test_ends_made_before_and_after_are_told_apart(module):
    tx, rx = module.channel(64)
    nexus_channels.set_debug_ends(True)
    try:
        if hasattr(tx, "clone"):
            twin = tx.clone()
            made = here(back=1)
            assert [end.where[:1] for end in rx.open_ends()] == [(made,), (), ()]
            assert "made at" in repr(twin)
        assert "made at" not in repr(rx)
    finally:
        nexus_channels.set_debug_ends(False)
    tx, rx = module.channel(64)
    assert [end.where for end in rx.open_ends()] == [(), ()]


def test_a_sender_in_the_frame_of_a_kept_exception_is_found(module, run, debugging):
    """The situation of the report: the receiver waits for ever, and the output names the line of that sender."""
    kept = []

    def produce(rx_of):
        tx, rx = module.channel(64)
        rx_of.append((rx, here(back=1)))
        tx.try_send(b"one")
        raise KeyError("produce")

    async def main():
        receivers = []
        try:
            produce(receivers)
        except KeyError as error:
            kept.append(error)
        rx, made = receivers.pop()
        await rx.recv_many(1)
        waiting = asyncio.create_task(rx.recv_many(1))
        while rx.statistics().waiting_receivers == 0:
            await asyncio.sleep(0)
        assert "1 sender, receiver waiting" in repr(rx)
        (sender,) = [end for end in rx.open_ends() if end.kind == "sender"]
        assert sender.where[0] == made
        kept.clear()  # what the output leads to
        with pytest.raises(nexus_channels.RecvError):
            await waiting

    run(main())


def test_nothing_is_kept_alive_by_what_is_remembered(debugging):
    class Local:
        pass

    def make_and_forget():
        local = Local()
        return mpsc.channel(1), weakref.ref(local)

    pair, local = make_and_forget()
    assert local() is None
    gone = weakref.ref(pair.sender)
    rx = pair.receiver
    del pair
    assert gone() is None and [end.kind for end in rx.open_ends()] == ["receiver"]


def test_ends_in_cycles_are_collected(debugging):
    tx, rx = mpsc.channel(4)
    gone = weakref.ref(tx)
    tx.try_send((tx, rx, tx.clone()))
    del tx, rx
    collect()
    assert gone() is None


def test_many_threads_make_list_and_close_ends(debugging, spawn):
    tx, rx = mpsc_bytes.channel(64)
    done = []

    def churn():
        for number in range(size(100, 5000)):
            twin, native = tx.clone(), tx.native()
            (twin if number % 2 else native).close()

    def look():
        while not done:
            ends = rx.open_ends()
            assert ends[-1].kind == "receiver" and all(len(end.where) <= 5 for end in ends)
            repr(tx)
            gc.collect(0)

    looking = spawn(look)
    for thread in [spawn(churn) for _ in range(3)]:
        thread.join()
    done.append(True)
    looking.join()
    assert [end.kind for end in rx.open_ends()] == ["sender", "receiver"]


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_the_environment_turns_it_on_at_import(value, on):
    out = run_child(
        "from nexus_channels import spsc\ntx, rx = spsc.channel(1)\nprint(rx.open_ends()[0].where)\n",
        env={"NEXUS_CHANNELS_DEBUG_ENDS": value},
    )
    assert out == ("('<string>:2 in <module>',)\n" if on else "()\n")


def test_a_thread_that_waits_for_ever_is_explained(debugging, spawn):
    tx, rx = mpsc.channel(1)
    made = here(back=1)
    waiting = spawn(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    assert made in rx.open_ends()[0].where
    tx.close()
    with pytest.raises(nexus_channels.RecvError):
        waiting.join()
    until(lambda: "receiver open" in repr(rx))
