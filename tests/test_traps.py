"""docs/traps.md: each example runs as printed, and the wrong ways go wrong as it says."""

import asyncio
import importlib.util
import pathlib
import re
import socket
import subprocess
import sys
from unittest import mock

import pytest
from harness import SLOWNESS, run_child
from support import turns, until

from nexus_channels import BusyError, ClaimReleased, spsc, spsc_bytes

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "traps.md"

EXPECTED = {
    "Use a claim after its loop": ["given back", "b'first' b'second'"],
    "Compare a claim with bytes": ["True"],
    "Send fewer bytes than were claimed": ["b'hello'"],
    "Wait for data with a claim open on `mpsc_bytes`": [
        "the next message is not finished: a sender has a claim open",
        "b'later'",
    ],
    "Close a sender that has a claim open": ["no end yet: True", "the end"],
    "Block in a task": ["item"],
    "Send a claim through pyzmq without a copy": ["in use", "100000", "given back"],
    "Read from a socket into a claim: `asyncio.BufferedProtocol`": ["3000"],
    "Send in order, while another send of the same sender waits": ["a b", "second first", "a b", "first second"],
    "`Full` and `Empty` at the same time": [
        "Full: the channel is full (capacity 1)",
        "Empty: everything in the channel is promised to receives that already wait",
        "first",
    ],
    "gevent": ["0", "1", "2", "3", "4"],
    "A receiver that waits for ever": [
        "sender made at example.py:8 in produce",
        "receiver made at example.py:8 in produce",
    ],
    "Hand a method to a framework, or mock an endpoint": ["True False", "by the function"],
}
NEEDS = {"Send a claim through pyzmq without a copy": "zmq", "gevent": "gevent"}

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def examples():
    return dict(re.findall(r"^## ([^\n]+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def printed():
    found = re.findall(
        r"^## ([^\n]+)\n.*?```python\n.*?```\n\n```text\n(.*?)\n```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return {title: text.splitlines() for title, text in found}


def test_every_trap_has_one_example_that_is_tested():
    assert examples().keys() == EXPECTED.keys()
    assert PAGE.read_text().count("```python") == len(EXPECTED)
    assert printed() == EXPECTED


@pytest.mark.parametrize("title", [pytest.param(title, marks=needs(NEEDS.get(title, "sys"))) for title in EXPECTED])
def test_the_right_way_runs_as_printed(title, tmp_path):
    (tmp_path / "example.py").write_text(examples()[title])
    command = [sys.executable, "-P", "example.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SLOWNESS, check=False, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.replace(f"{tmp_path}/", "").splitlines() == EXPECTED[title]


# claims


def test_a_view_that_is_kept_stops_the_loop_at_its_next_turn():
    tx, rx = spsc_bytes.channel(4096)
    tx.try_send_many([b"first", b"second"])
    views = []
    told = "1 view of this claim still exists; release it first, or del the slices and arrays of it"
    with pytest.raises(BufferError, match=told):
        for claim in rx:
            views.append(memoryview(claim))
    assert bytes(views.pop()) == b"first"
    assert rx.try_recv_bytes() == b"second"


def test_a_claim_is_no_bytes():
    """Should this fail one day, the page has one trap less."""
    tx, rx = spsc_bytes.channel(4096)
    tx.try_send(b"quit")
    with rx.try_recv() as view:
        assert view.obj != b"quit"


def test_a_block_sends_all_that_was_claimed():
    tx, rx = spsc_bytes.channel(64)
    for _ in range(2):
        with tx.try_claim(50) as view:
            view[:5] = b"hello"
        assert len(rx.try_recv_bytes()) == 50


# a blocking call in a task


def test_a_blocking_call_in_a_task_takes_two_interrupts():
    source = """
import asyncio, signal, threading
from nexus_channels import spsc
async def main():
    tx, rx = spsc.channel(1)
    task = asyncio.current_task()
    def interrupt():
        while not rx.statistics().waiting_receivers:
            pass
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        while not task.cancelling():
            pass
        print("cancelled, and", rx.statistics().waiting_receivers, "waits on", flush=True)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Thread(target=interrupt).start()
    for _ in rx:
        pass
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
    assert run_child(source) == "cancelled, and 1 waits on\nKeyboardInterrupt\n"


# pyzmq


SIZE = 200_000  # more than zmq.COPY_THRESHOLD


@pytest.fixture
def sockets():
    zmq = pytest.importorskip("zmq", reason="pyzmq is not installed", exc_type=ImportError)
    with zmq.Context() as context, context.socket(zmq.PAIR) as out, context.socket(zmq.PAIR) as other:
        out.bind("inproc://traps")
        other.connect("inproc://traps")
        yield out, other


@pytest.mark.parametrize("given", ["the claim", "the view of its block"])
def test_pyzmq_lets_a_claim_go_that_it_is_still_reading(sockets, given):
    """If this fails, pyzmq has come to hold the buffer of what it sends, and the page can say so."""
    out, other = sockets
    tx, rx = spsc_bytes.channel(2 * SIZE)
    tx.try_send(b"a" * SIZE)
    claim = rx.try_recv()
    if given == "the claim":
        out.send(claim, copy=False)
        claim.release()
    else:
        with claim as view:
            out.send(view, copy=False)
    assert rx.used == 0  # the place is free, and 0MQ reads it later
    assert len(other.recv()) == SIZE


def test_a_view_of_its_own_keeps_the_claim_from_who_would_free_it(sockets):
    out, other = sockets
    tx, rx = spsc_bytes.channel(2 * SIZE)
    tx.try_send(b"a" * SIZE)
    for claim in rx:
        out.send(memoryview(claim), copy=False)
        break
    with pytest.raises(BusyError, match="a view of a ReadClaim"):
        rx.try_recv()
    assert other.recv() == b"a" * SIZE
    until(lambda: rx.used == 0, "the end of the claim, with the view that pyzmq had")
    with pytest.raises(ClaimReleased):
        claim.release()


def test_a_copy_needs_no_care(sockets):
    out, other = sockets
    tx, rx = spsc_bytes.channel(2 * SIZE)
    tx.try_send(b"a" * SIZE)
    with rx.try_recv() as view:
        out.send(view)
    assert other.recv() == b"a" * SIZE


# asyncio.BufferedProtocol


class Committing(asyncio.BufferedProtocol):
    """Commits in `buffer_updated`; `outcome` is what came of it."""

    def __init__(self, tx, returns):
        self.claim = tx.try_claim(64)
        self.returns = returns
        self.outcome = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, _sizehint):
        self.view = memoryview(self.claim) if self.returns != "the claim" else None
        return self.claim if self.view is None else self.view

    def buffer_updated(self, n):
        self.transport.pause_reading()
        try:
            if self.returns == "a view that is released":
                self.view.release()
            self.outcome.set_result(self.claim.commit(n))
        except BufferError:
            self.outcome.set_result("BufferError")


@pytest.mark.parametrize("returns", ["a view", "a view that is released", "the claim"])
def test_a_commit_in_buffer_updated(run, loop_factory, returns):
    """The table of the page."""

    async def main():
        tx, _rx = spsc_bytes.channel(4096)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: Committing(tx, returns), sock=ours
            )
            theirs.send(b"0123456789")
            outcome = await protocol.outcome
            transport.close()
            await turns(2)
        return outcome

    works = loop_factory is asyncio.new_event_loop and returns != "a view"
    assert run(main()) == (None if works else "BufferError")


def into_ring():
    """The class of the page."""
    space = {}
    source = examples()["Read from a socket into a claim: `asyncio.BufferedProtocol`"]
    exec(source.replace("asyncio.run(main())", ""), space)
    return space["IntoRing"]


@pytest.mark.parametrize("chunk", [1, 1024, 5000])
def test_a_commit_by_call_soon_loses_and_repeats_nothing(run, chunk):
    """Buffers that are filled to their end, a channel that is full, and an end of the stream."""
    data = bytes(number % 251 for number in range(20 * chunk if chunk < 1024 else 100_000))

    async def main():
        loop = asyncio.get_running_loop()
        tx, rx = spsc_bytes.channel(4096)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await loop.create_connection(lambda: into_ring()(tx), sock=ours)

        async def feed():
            with theirs:
                for at in range(0, len(data), chunk):
                    await loop.sock_sendall(theirs, data[at : at + chunk])

        feeding = loop.create_task(feed())
        received = bytearray()
        async for claim in rx:
            received += claim
        await feeding
        return received

    assert run(main()) == data


# Calls of one sender that overlap


def test_a_send_that_waits_is_not_overtaken_where_there_is_room_for_one(run):
    async def main():
        tx, rx = spsc.channel(2)
        await tx.send_many(["a", "b"])
        waiting = asyncio.create_task(tx.send("first"))
        await turns(2)
        assert rx.try_recv() == "a"
        late = asyncio.create_task(tx.send("second"))
        received = [await rx.recv() for _ in range(3)]
        await waiting
        await late
        return received

    assert run(main()) == ["b", "first", "second"]


# gevent


@needs("gevent")
def test_a_blocking_call_stops_every_greenlet_and_one_of_the_pool_none():
    source = """
from gevent import monkey
monkey.patch_all()
import gevent
from nexus_channels import RecvTimeout, mpsc
tx, rx = mpsc.channel(2)
turns = []
def turn():
    while True:
        turns.append(1)
        gevent.sleep(0)
greenlet = gevent.spawn(turn)
gevent.sleep(0.01)
def wait():
    try:
        rx.recv_blocking(timeout=0.2)
    except RecvTimeout:
        pass
before = len(turns)
wait()
blocked = len(turns) - before
gevent.get_hub().threadpool.apply(wait)
print(blocked, len(turns) - before > 10)
greenlet.kill()
"""
    assert run_child(source) == "0 True\n"


@needs("gevent")
def test_greenlets_share_a_channel_by_the_forms_that_do_not_wait():
    source = """
from gevent import monkey
monkey.patch_all()
import gevent
from nexus_channels import Empty, Full, RecvError, spsc
tx, rx = spsc.channel(2)
def produce():
    for number in range(100):
        while True:
            try:
                tx.try_send(number)
                break
            except Full:
                gevent.sleep(0)
    tx.close()
def consume():
    received = []
    while True:
        try:
            received.append(rx.try_recv())
        except Empty:
            gevent.sleep(0)
        except RecvError:
            return received
producing, consuming = gevent.spawn(produce), gevent.spawn(consume)
assert consuming.get() == list(range(100))
"""
    run_child(source)


# create_autospec


def test_a_mock_of_a_method_in_c_cannot_be_awaited():
    """Should this fail one day, the page has one trap less."""

    async def main():
        with pytest.raises(TypeError, match="await"):
            await mock.create_autospec(spsc.Sender, instance=True).send(1)

    asyncio.run(main())
