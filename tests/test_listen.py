"""Senders that find their receiver by a path: coming, being refused, leaving, and what is left in the file system."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import importlib.util
import os
import pickle
import resource
import signal
import socket
import stat
import tempfile
import threading
import time

import pytest
from harness import size, takes_long
from listening import GREETING, MAGIC, VERSION, as_user, knock, served
from processes import METHODS, descriptors, fork, needs_lanes, run_script
from support import DEADLINE, Spawned, until, until_blocked

import nexus_channels
from nexus_channels import (
    BusyError,
    ChannelError,
    Empty,
    Listener,
    RecvError,
    RecvTimeout,
    SendError,
    attach,
    merge,
    mpsc_bytes,
    select_blocking,
    spsc_bytes,
)

pytestmark = needs_lanes

LOOPS = ["asyncio", *(name for name in ("uvloop", "trio") if importlib.util.find_spec(name))]
WAYS = ["thread", "batches", "claims", *LOOPS]
MODULES = ["spsc_bytes", "mpsc_bytes"]
PRELUDE = "from listening import *\n"
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture(params=MODULES)
def name(request):
    return request.param


@pytest.fixture
def module(name):
    return getattr(nexus_channels, name)


@pytest.fixture
def folder():
    """With a short name, as that of a socket cannot be long."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.fixture
def path(folder):
    return f"{folder}/socket"


def run(script, **options):
    return run_script(PRELUDE + script, **options)


def stale(path, kind=socket.SOCK_SEQPACKET):
    """A socket as a process leaves it that was killed."""
    with socket.socket(socket.AF_UNIX, kind) as left:
        left.bind(path)


def connected(module, listener, path=None):
    """A sender that the receiver has let in."""
    sender = Spawned(module.connect, path or listener.path, timeout=DEADLINE)
    until(lambda: look(listener.receiver) or not sender.is_alive(), "a sender that connects")
    return sender.join()


def look(rx):
    """Let senders in, and take nothing; always false."""
    rx.is_disconnected  # noqa: B018
    return False


# ---- coming ----------------------------------------------------------------------------------------------------------


def test_a_sender_comes_by_the_path_and_reaches_the_receiver(module, path):
    with module.listen(path, 5000) as listener:
        assert type(listener) is Listener and listener.path == path and not listener.is_closed
        rx = listener.receiver
        assert type(rx) is module.Receiver and rx is listener.receiver
        tx = connected(module, listener)
        assert type(tx) is module.Sender
        assert tx.capacity == rx.capacity == 8192
        assert tx.same_channel(rx) and rx.same_channel(tx)
        tx.send_blocking(b"hello")
        assert rx.recv_bytes_blocking() == b"hello"


@takes_long()
@pytest.mark.parametrize("here", WAYS)
def test_messages_come_from_another_process_in_order_and_then_the_end(name, here):
    run(
        f"""
for there in {WAYS if size(0, 1) else [here]!r}:
    with {name}.listen(os.environ["TMPDIR"] + "/s", 4096) as listener:
        sender = start(connect_and_send, {name!r}, listener.path, {size(500, 10_000)}, there)
        rx = listener.receiver
        end = Spawned(lambda: (until(lambda: sender.exitcode is not None), listener.close()))
        recv_all_from(rx, {size(500, 10_000)}, {here!r})
        end.join()
        join(sender)
""",
        seconds=size(60, 600),
    )


@pytest.mark.parametrize("here", WAYS)
def test_messages_go_to_a_listener_in_another_process(name, here):
    run(
        f"""
ready = multiprocessing.get_context("spawn").Event()
path = os.environ["TMPDIR"] + "/s"
receiver = start(listen_and_recv, {name!r}, path, ready, 500)
ready.wait()
tx = {name}.connect(path)
tx.send_blocking(b"first")
send_all_from(tx, 500, {here!r})
join(receiver)
"""
    )


@pytest.mark.parametrize("here", ["thread", "asyncio"])
def test_many_senders_come_and_every_message_comes_once_in_the_order_of_its_sender(here):
    run(
        f"""
count, senders = {size(300, 20_000)}, {size(6, 16)}
found = []
with mpsc_bytes.listen(os.environ["TMPDIR"] + "/s", 4096) as listener:
    rx = listener.receiver
    processes = [start(send_records, listener.path, me, count) for me in range(senders)]
    if {here!r} == "thread":
        found = [RECORD.unpack(rx.recv_bytes_blocking()) for _ in range(senders * count)]
    else:
        async def main():
            return [RECORD.unpack(await rx.recv_bytes()) for _ in range(senders * count)]
        found = asyncio.run(main())
    join(*processes)
try:
    rx.recv_bytes_blocking()
except RecvError as error:
    assert not error.crashed
for me in range(senders):
    assert [n for sender, n in found if sender == me] == list(range(count))
""",
        seconds=size(60, 600),
    )


def test_senders_come_in_by_every_call_that_waits_or_looks(module, path):
    buffer = bytearray(100)

    def by_merge(rx):
        for _, claim in merge(rx):
            return bytes(claim)

    async def by_loop(rx):
        async for claim in rx:
            return bytes(claim)

    calls = [
        lambda rx: rx.recv_bytes_blocking(),
        lambda rx: bytes(buffer[: rx.recv_into_blocking(buffer)]),
        lambda rx: rx.recv_many_blocking(1)[0],
        lambda rx: bytes(select_blocking(rx).value),
        by_merge,
        lambda rx: asyncio.run(by_loop(rx)),
    ]
    for call in calls:
        with module.listen(path, 4096) as listener:
            rx = Spawned(call, listener.receiver)
            with module.connect(path, timeout=DEADLINE) as tx:
                tx.send_blocking(b"hello")
                assert rx.join() == b"hello"
            gc.collect()
    for call in (lambda rx: rx.try_recv(), lambda rx: rx.statistics(), look):
        with module.listen(path, 4096) as listener:
            sender = Spawned(module.connect, path)
            with contextlib.suppress(Empty):
                until(lambda: call(listener.receiver) is None or not sender.is_alive())  # noqa: B023
            with contextlib.suppress(Empty):
                until(lambda: look(listener.receiver) or not sender.is_alive())  # noqa: B023
            sender.join().close()


def test_a_task_that_waits_lets_many_senders_in(path):
    async def main():
        with mpsc_bytes.listen(path, 4096) as listener:

            def work(n):
                with mpsc_bytes.connect(path) as tx:
                    tx.send_blocking(b"%d" % n)

            jobs = [asyncio.create_task(asyncio.to_thread(work, n)) for n in range(50)]
            found = [int(await listener.receiver.recv_bytes()) for _ in jobs]
            await asyncio.gather(*jobs)
            assert sorted(found) == list(range(50))

    asyncio.run(main())


def test_a_path_may_be_str_bytes_or_an_object_of_pathlib(module, folder):
    import pathlib

    for path in (f"{folder}/s", f"{folder}/s".encode(), pathlib.Path(folder, "s")):
        with module.listen(path, 4096) as listener:
            assert listener.path == os.fspath(path)
            connected(module, listener, path).close()


def test_a_sender_that_has_come_can_be_cloned_and_moved(path):
    with mpsc_bytes.listen(path, 4096) as listener:
        tx = connected(mpsc_bytes, listener)
        tx.send_blocking(b"1")
        twin = tx.clone()
        moved = attach(tx.share())
        moved.send_blocking(b"2")
        twin.send_blocking(b"3")
        assert sorted(listener.receiver.recv_bytes_blocking() for _ in range(3)) == [b"1", b"2", b"3"]
        listener.close()
        moved.close()
        assert not listener.receiver.is_disconnected
        twin.close()
        assert listener.receiver.is_disconnected


def test_connect_is_interrupted_by_a_signal_and_nobody_has_seen_a_sender(module, path):
    class Interrupted(Exception):
        pass

    def handler(*_):
        raise Interrupted

    with module.listen(path, 4096) as listener:
        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)  # again, should one come before the wait
            with pytest.raises(Interrupted):
                module.connect(path)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        look(listener.receiver)
        connected(module, listener).close()
        listener.close()
        with pytest.raises(RecvError) as end:
            listener.receiver.recv_bytes_blocking()
        assert not end.value.crashed


# ---- the end -------------------------------------------------------------------------------------------------------


def test_a_listener_counts_as_an_open_sender(module, path):
    with module.listen(path, 4096) as listener:
        rx = listener.receiver
        connected(module, listener).close()
        assert not rx.is_disconnected
        assert rx.statistics().open_senders == 1
        with pytest.raises(Empty):
            rx.try_recv()
        with pytest.raises(RecvTimeout):
            rx.recv_bytes_blocking(timeout=0.01)
    assert rx.is_disconnected
    with pytest.raises(RecvError):
        rx.try_recv()


def test_closing_the_listener_ends_a_wait_in_a_thread(module, path):
    listener = module.listen(path, 4096)
    waits = Spawned(listener.receiver.recv_bytes_blocking)
    until_blocked(listener.receiver, receivers=1)
    listener.close()
    with pytest.raises(RecvError):
        waits.join()


def test_closing_the_listener_ends_a_wait_in_a_task(module, path):
    async def main():
        listener = module.listen(path, 4096)
        waits = asyncio.create_task(listener.receiver.recv_bytes())
        await asyncio.sleep(0)
        await asyncio.to_thread(listener.close)
        with pytest.raises(RecvError):
            await waits

    asyncio.run(main())


def test_senders_that_have_come_stay_when_the_listener_closes(module, path):
    listener = module.listen(path, 4096)
    tx = connected(module, listener)
    listener.close()
    listener.close()
    assert listener.is_closed and not listener.receiver.is_disconnected
    tx.send_blocking(b"later")
    tx.close()
    assert listener.receiver.recv_bytes_blocking() == b"later"
    with pytest.raises(RecvError):
        listener.receiver.recv_bytes_blocking()


def test_closing_the_receiver_closes_the_listener(module, path):
    listener = module.listen(path, 4096)
    tx = connected(module, listener)
    listener.receiver.close()
    assert listener.is_closed and not os.path.lexists(path)
    with pytest.raises(SendError):
        tx.send_blocking(b"nobody")
    with pytest.raises(FileNotFoundError):
        module.connect(path)
    listener.close()


def test_a_receiver_that_closes_is_seen_by_senders_that_it_has_not_looked_at(module):
    tx, rx = module.channel(4096, shared=True)
    tx = attach(tx.share())
    rx.close()
    with pytest.raises(SendError) as error:
        tx.send_blocking(b"nobody")
    assert not error.value.crashed


def test_a_sender_that_is_killed_has_crashed_and_what_it_had_sent_comes_first(name):
    run(
        f"""
with {name}.listen(os.environ["TMPDIR"] + "/s", 4096) as listener:
    ready = multiprocessing.get_context("spawn").Event()
    sender = start(fill_and_wait, {name!r}, listener.path, ready)
    rx = listener.receiver
    until(lambda: rx.is_disconnected or ready.is_set())
    killed(sender)
listener.close()
n = 0
try:
    while True:
        assert rx.recv_bytes_blocking() == bytes(56)
        n += 1
except RecvError as error:
    assert error.crashed
assert n == 4096 // 64
"""
    )


def test_a_receiver_that_is_killed_ends_its_senders_and_its_socket_is_replaced(name):
    run(
        f"""
path = os.environ["TMPDIR"] + "/s"
ready, came, full = (multiprocessing.get_context("spawn").Event() for _ in range(3))
receiver = start(listen_and_wait, {name!r}, path, ready, came)
ready.wait()
sender = start(fill_and_wait, {name!r}, path, full)
full.wait()
came.wait()
killed(receiver)
join(sender, code=11)
assert os.path.exists(path)
try:
    {name}.connect(path)
except ConnectionRefusedError as error:
    assert "any more" in str(error)
else:
    raise SystemExit("there is nobody")
with {name}.listen(path, 4096) as listener:
    again = start(connect_and_send, {name!r}, path, 1)
    assert listener.receiver.recv_bytes_blocking() == message(0)
    join(again)
"""
    )


def test_a_waiting_connect_is_refused_when_the_listener_closes_or_its_process_is_killed(name):
    run(
        f"""
path = os.environ["TMPDIR"] + "/s"
def refused():
    try:
        {name}.connect(path)
    except ConnectionRefusedError as error:
        return str(error)
def knocks():  # a socket that has come has the name of the one that listens
    with open("/proc/net/unix") as sockets:
        return sockets.read().count(path) > 1
listener = {name}.listen(path, 4096)
waits = Spawned(refused)
until(knocks)
listener.close()
assert "before it let this sender in" in waits.join()

ready = multiprocessing.get_context("spawn").Event()
process = start(hold_listener, {name!r}, path, ready)
ready.wait()
stop(process)
waits = Spawned(refused)
until(knocks)
process.kill()
join(process, code=-signal.SIGKILL)
assert "before it let this sender in" in waits.join()
os.unlink(path)
"""
    )


# ---- one sender at a time --------------------------------------------------------------------------------------------


def test_a_second_sender_of_an_spsc_is_refused_while_one_is_there(path):
    with spsc_bytes.listen(path, 4096) as listener:
        tx = connected(spsc_bytes, listener)
        with pytest.raises(ConnectionRefusedError, match="has a sender already"):
            connected(spsc_bytes, listener)
        moved = tx.share()  # on its way it is still one
        with pytest.raises(ConnectionRefusedError, match="has a sender already"):
            connected(spsc_bytes, listener)
        tx = attach(moved)
        tx.send_blocking(b"of the first")
        tx.close()
        tx = connected(spsc_bytes, listener)
        tx.send_blocking(b"of the second")
        assert listener.receiver.recv_bytes_blocking() == b"of the first"
        assert listener.receiver.recv_bytes_blocking() == b"of the second"


def test_all_of_one_sender_of_an_spsc_comes_before_the_first_of_the_next(path):
    with spsc_bytes.listen(path, 4096) as listener:
        for first in (0, 100, 200):  # more than a turn among lanes
            with connected(spsc_bytes, listener) as tx:
                for n in range(first, first + 100):
                    tx.send_blocking(b"%d" % n)
        assert [int(listener.receiver.recv_bytes_blocking()) for _ in range(300)] == list(range(300))


def test_a_killed_sender_of_an_spsc_makes_room_for_the_next():
    run(
        """
with spsc_bytes.listen(os.environ["TMPDIR"] + "/s", 4096) as listener:
    rx = listener.receiver
    for _ in range(3):
        ready = multiprocessing.get_context("spawn").Event()
        sender = start(fill_and_wait, "spsc_bytes", listener.path, ready)
        until(lambda: rx.is_disconnected or ready.is_set())
        killed(sender)
        for _ in range(10):
            assert rx.recv_bytes_blocking() == bytes(56)
    last = start(connect_and_send, "spsc_bytes", listener.path, 1)
    for _ in range(3 * (4096 // 64 - 10)):
        assert rx.recv_bytes_blocking() == bytes(56)
    assert rx.recv_bytes_blocking() == message(0)
    join(last)
"""
    )


# ---- being refused -------------------------------------------------------------------------------------------------


def test_connect_where_nobody_listens_fails_at_once(module, path):
    with pytest.raises(FileNotFoundError) as error:
        module.connect(path)
    assert error.value.filename == path
    stale(path)
    with pytest.raises(ConnectionRefusedError, match="any more") as error:
        module.connect(path)
    assert error.value.filename == path
    os.unlink(path)
    with open(path, "w"):
        pass
    with pytest.raises(ConnectionRefusedError, match="no socket"):
        module.connect(path)
    with pytest.raises(FileNotFoundError):
        module.connect("")


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_connect_times_out_when_the_receiver_never_looks(module, path, timeout):
    with module.listen(path, 4096) as listener:
        before = time.monotonic()
        with pytest.raises(TimeoutError, match=f"did not answer within {float(timeout)} seconds"):
            module.connect(path, timeout=timeout)
        assert time.monotonic() - before >= timeout
        with pytest.raises(Empty):
            listener.receiver.try_recv()
        with pytest.raises(Empty):  # he was let in, and has gone
            listener.receiver.try_recv()
        connected(module, listener).close()


def test_connect_times_out_when_more_knock_than_there_is_room_for(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen(0)
        with knock(path), pytest.raises(TimeoutError):
            mpsc_bytes.connect(path, timeout=0.05)
        with pytest.raises(OSError, match="listens there already"):
            mpsc_bytes.listen(path, 4096)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
def test_a_timeout_that_is_none_is_refused(module, path, timeout):
    with pytest.raises((ValueError, TypeError)):
        module.connect(path, timeout=timeout)


def test_the_other_kind_of_channel_is_refused_with_the_name_of_the_right_one(name, module, path):
    other = ({*MODULES} - {name}).pop()
    with module.listen(path, 4096) as listener:
        with pytest.raises(ValueError, match=rf"use {name}\.connect\(\), not {other}\.connect\(\)"):
            connected(getattr(nexus_channels, other), listener)
        connected(module, listener).close()


@needs_root
def test_another_user_is_refused_with_both_names(module, folder, path):
    os.chmod(folder, 0o755)
    with module.listen(path, 4096) as listener:
        said = as_user(NOBODY, lambda: module.connect(path) and "connected")
        assert said.startswith("PermissionError") and "user 0" in said and f"user {NOBODY}" in said
        os.chmod(path, 0o666)
        said = as_user(NOBODY, lambda: module.connect(path) and "connected")
        assert said.startswith("PermissionError") and "user 0" in said and f"user {NOBODY}" in said
        # who does not ask for himself is refused by the receiver
        waits = Spawned(as_user, NOBODY, lambda: str(GREETING.unpack(knock(path).recv(100))))
        until(lambda: look(listener.receiver) or not waits.is_alive())
        assert waits.join().startswith(f"({MAGIC}, {VERSION}, 2, ")
        connected(module, listener).close()


@needs_root
def test_root_is_not_let_in_by_another_user_either(module, folder, path):
    os.chown(folder, NOBODY, NOBODY)

    def listen_and_be_called():
        with module.listen(path, 4096):
            ready.set()
            wait, _ = os.pipe()
            os.read(wait, 1)
        return ""

    import multiprocessing

    ready = multiprocessing.get_context("fork").Event()
    pid = os.fork()
    if pid == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with contextlib.suppress(BaseException):
            listen_and_be_called()
        os._exit(1)
    try:
        assert ready.wait(DEADLINE)
        with pytest.raises(PermissionError, match=f"is of user {NOBODY}, and this process is of user 0"):
            module.connect(path, timeout=DEADLINE)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def greeting(magic=MAGIC, version=VERSION, verdict=0, many=1, capacity=4096):
    return GREETING.pack(magic, version, verdict, many, os.geteuid(), 0, capacity, 7)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"hello", OSError, "no receiver of nexus_channels"),
        (greeting(magic=1), OSError, "no receiver of nexus_channels"),
        (greeting(version=9), OSError, "version 9 .* version 1"),
        (greeting(verdict=5), OSError, "no receiver of nexus_channels"),
        (greeting(many=2), OSError, "no receiver of nexus_channels"),
        (greeting(capacity=0), OSError, "no receiver of nexus_channels"),
        (greeting(capacity=5000), OSError, "no receiver of nexus_channels"),
        (greeting(capacity=1 << 63), OSError, "no receiver of nexus_channels"),
        (greeting()[:-1], OSError, "no receiver of nexus_channels"),
        (greeting(verdict=1), ConnectionRefusedError, "has a sender already"),
        (greeting(verdict=2), PermissionError, "user"),
        (None, ConnectionRefusedError, "before it let this sender in"),
    ],
)
def test_a_greeting_that_is_none_is_told_from_others(path, answer, error, says):
    gc.collect()
    before = descriptors()
    with (
        served(path, lambda connection: answer and connection.send(answer)),
        pytest.raises(error, match=says) as raised,
    ):
        mpsc_bytes.connect(path, timeout=DEADLINE)
    assert raised.value.filename == path
    gc.collect()
    assert descriptors() == before


def test_descriptors_that_come_with_a_greeting_are_closed(path):
    def answer(connection):
        with open(os.devnull) as file, contextlib.suppress(OSError):
            socket.send_fds(connection, [b"hello"], [file.fileno()] * 3)

    gc.collect()
    before = descriptors()
    # from Linux 6.16 on, the kernel may refuse them, and with them the greeting
    with (
        served(path, answer),
        pytest.raises(OSError, match="no receiver of nexus_channels|before it let this sender in"),
    ):
        mpsc_bytes.connect(path, timeout=DEADLINE)
    assert descriptors() == before


def test_a_server_of_another_kind_is_told(path):
    with served(path, lambda connection: None, socket.SOCK_STREAM):
        with pytest.raises(OSError, match="no receiver of nexus_channels") as error:
            mpsc_bytes.connect(path)
        assert error.value.errno == errno.EPROTOTYPE
        with pytest.raises(OSError, match="listens there already") as error:
            mpsc_bytes.listen(path, 4096)
        assert error.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(48), bytes(1000)])
def test_a_visitor_that_sends_no_lane_disturbs_nobody(module, path, junk):
    with module.listen(path, 4096) as listener:
        rx = listener.receiver
        with knock(path) as visitor:
            look(rx)
            assert GREETING.unpack(visitor.recv(100))[:4] == (MAGIC, VERSION, 0, module is mpsc_bytes)
            for _ in range(3):
                visitor.send(junk)
            with pytest.raises(ChannelError, match="was refused"):
                rx.try_recv()
        with pytest.raises(Empty):
            rx.try_recv()
        connected(module, listener).send_blocking(b"hello")
        assert rx.recv_bytes_blocking() == b"hello"


def test_a_visitor_that_says_nothing_holds_up_nobody(path):
    with mpsc_bytes.listen(path, 4096) as listener, knock(path), knock(path):
        with connected(mpsc_bytes, listener) as tx:
            tx.send_blocking(b"hello")
        assert listener.receiver.recv_bytes_blocking() == b"hello"
        listener.close()
        assert not listener.receiver.is_disconnected  # the two may still come with lanes
    assert listener.receiver.is_disconnected


def test_a_visitor_that_goes_before_it_reads_its_greeting_is_no_fault(path):
    with mpsc_bytes.listen(path, 4096) as listener:
        rx = listener.receiver
        with knock(path):
            look(rx)
        with pytest.raises(Empty):
            rx.try_recv()
        with knock(path) as sends:
            look(rx)
            sends.send(b"junk")
        with pytest.raises(ChannelError, match="was refused"):  # what it had sent is heard nevertheless, once
            rx.try_recv()
        for _ in range(3):
            with pytest.raises(Empty):
                rx.try_recv()
        listener.close()
        with pytest.raises(RecvError) as end:
            rx.try_recv()
        assert not end.value.crashed


def test_many_visitors_that_come_and_go_leave_nothing(module, path):
    with module.listen(path, 4096) as listener:
        look(listener.receiver)
        before = descriptors()
        for _ in range(5):
            for _ in range(100):
                knock(path).close()
            look(listener.receiver)
            look(listener.receiver)
            assert descriptors() == before
        connected(module, listener).close()


@contextlib.contextmanager
def descriptors_left(count):
    """This process can open so many, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + count + 20, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_the_receiver_says_so_and_lets_senders_in_later(path):
    with contextlib.ExitStack() as stack:
        rx = stack.enter_context(mpsc_bytes.listen(path, 4096)).receiver
        visitors = [stack.enter_context(knock(path)) for _ in range(40)]
        with descriptors_left(10):
            for _ in range(3):
                with pytest.raises(OSError, match="Too many open files"):
                    rx.try_recv()
        look(rx)
        for visitor in visitors:
            assert len(visitor.recv(100)) == GREETING.size


def test_without_descriptors_a_loop_does_not_run_hot(path):
    """A task has waited once, and then nobody does: what cannot be let in must not wake the loop again and again."""

    async def main():
        with mpsc_bytes.listen(path, 4096) as listener:
            with pytest.raises(RecvTimeout):
                await listener.receiver.recv_bytes(timeout=0.01)
            with descriptors_left(1), knock(path):
                before = time.process_time()
                await asyncio.sleep(0.3)
                assert time.process_time() - before < 0.15
                with pytest.raises(OSError, match="Too many open files"):
                    listener.receiver.try_recv()
            with pytest.raises(Empty):
                listener.receiver.try_recv()
            await asyncio.gather(asyncio.to_thread(mpsc_bytes.connect, path), take(listener.receiver))

    async def take(rx):
        with pytest.raises(RecvTimeout):
            await rx.recv_bytes(timeout=0.3)

    asyncio.run(main())


def test_without_descriptors_what_has_come_by_many_senders_waits(path):
    with contextlib.ExitStack() as stack:
        rx = stack.enter_context(mpsc_bytes.listen(path, 4096)).receiver
        visitors = [stack.enter_context(knock(path)) for _ in range(40)]
        junk = stack.enter_context(knock(path))
        look(rx)
        junk.send(b"junk")  # that is told first, and its connection is closed, which leaves one descriptor
        for visitor in visitors:
            socket.send_fds(visitor, [bytes(48)], [0, 0])
        with descriptors_left(0):
            with pytest.raises(ChannelError, match="was refused"):
                rx.try_recv()
            for _ in range(3):
                with pytest.raises(OSError, match="Too many open files"):
                    rx.try_recv()
        with pytest.raises(ChannelError, match="was refused"):
            rx.try_recv()
        with pytest.raises(Empty):
            rx.try_recv()


# ---- the file system -------------------------------------------------------------------------------------------------


def test_nothing_is_in_the_folder_but_the_socket_and_closing_removes_it(module, folder, path):
    gc.collect()
    before = descriptors()
    with module.listen(path, 4096) as listener:
        assert os.listdir(folder) == ["socket"]
        assert stat.S_ISSOCK(os.lstat(path).st_mode)
        connected(module, listener).close()
    assert os.listdir(folder) == []
    del listener
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_the_socket_is_for_its_user_alone_whatever_the_umask(path, umask):
    before = os.umask(umask)
    try:
        with mpsc_bytes.listen(path, 4096) as listener:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            connected(mpsc_bytes, listener).close()
    finally:
        os.umask(before)


def test_a_file_that_is_no_socket_is_refused_and_left_alone(module, folder, path):
    target = f"{folder}/target"
    stale(target)
    makers = {
        "file": lambda: open(path, "w").close(),
        "folder": lambda: os.mkdir(path),
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: os.symlink(f"{folder}/nothing", path),
        "link to a socket": lambda: os.symlink(target, path),
    }
    for make in makers.values():
        make()
        before = os.lstat(path)
        with pytest.raises(FileExistsError) as error:
            module.listen(path, 4096)
        assert error.value.filename == path
        after = os.lstat(path)
        assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
        os.rmdir(path) if stat.S_ISDIR(after.st_mode) else os.unlink(path)
    assert os.listdir(folder) == ["target"]


def test_a_socket_that_somebody_listens_at_is_refused_and_goes_on(module, path):
    with module.listen(path, 4096) as listener:
        for other in (mpsc_bytes, spsc_bytes):
            with pytest.raises(OSError, match="listens there already") as error:
                other.listen(path, 4096)
            assert error.value.errno == errno.EADDRINUSE and error.value.filename == path
        connected(module, listener).send_blocking(b"hello")
        assert listener.receiver.recv_bytes_blocking() == b"hello"


def test_a_socket_that_nobody_listens_at_is_replaced(module, path):
    stale(path)
    for _ in range(3):
        with module.listen(path, 4096) as listener:
            connected(module, listener).close()
        stale(path)


def test_of_many_that_replace_a_socket_at_once_one_listens():
    run(
        f"""
path = os.environ["TMPDIR"] + "/s"
spawn = multiprocessing.get_context("spawn")
for _ in range({size(3, 50)}):
    go, pipes = spawn.Event(), [spawn.Pipe() for _ in range(6)]
    import socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(path)
    processes = [start(listen_at_once, path, go, there, method="fork") for here, there in pipes]
    go.set()
    said = [here.recv() for here, there in pipes]
    assert sorted(map(str, said)) == ["98"] * 5 + ["listens"], said
    pipes[said.index("listens")][0].send("enough")
    join(*processes)
    assert not os.path.exists(path)
"""
    )


def test_a_path_that_is_too_long_is_refused_with_the_limit(module, folder):
    longest = folder + "/" + "x" * (107 - len(folder) - 1)
    with module.listen(longest, 4096) as listener:
        connected(module, listener).close()
    for call in (lambda: module.listen(longest + "x", 4096), lambda: module.connect(longest + "x")):
        with pytest.raises(OSError, match="108 bytes.* 107 at most") as error:
            call()
        assert error.value.errno == errno.ENAMETOOLONG and error.value.filename == longest + "x"


@pytest.mark.parametrize("path", [5, None, "a\0b"])
def test_what_is_no_path_is_refused(module, path):
    for call in (lambda: module.listen(path, 4096), lambda: module.connect(path)):
        with pytest.raises((TypeError, ValueError)):
            call()


def test_a_capacity_is_checked_as_that_of_a_channel(module, folder, path):
    for capacity, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (1 << 62, MemoryError)):
        with pytest.raises(error):
            module.listen(path, capacity)
    assert os.listdir(folder) == []


def test_a_folder_that_is_not_there_is_an_error_of_the_system(module, folder):
    with pytest.raises(FileNotFoundError):
        module.listen(f"{folder}/no/socket", 4096)
    with pytest.raises(IsADirectoryError):
        module.listen(f"{folder}/", 4096)


def test_a_relative_path_is_removed_from_where_it_was(module, folder, monkeypatch):
    monkeypatch.chdir(folder)
    listener = module.listen("socket", 4096)
    os.mkdir("below")
    os.chdir("below")
    connected(module, listener, "../socket").close()
    listener.close()
    os.chdir("..")
    assert os.listdir(".") == ["below"]


def test_closing_leaves_what_somebody_else_has_put_there(module, path):
    with module.listen(path, 4096):
        os.unlink(path)
        with module.listen(path, 4096) as second:
            pass
        second = module.listen(path, 4096)
    connected(module, second).close()
    second.close()
    with module.listen(path, 4096):
        os.unlink(path)
        with open(path, "w"):
            pass
    assert stat.S_ISREG(os.lstat(path).st_mode)


def test_dropping_the_listener_closes_it(module, path):
    listener = module.listen(path, 4096)
    rx = listener.receiver
    del listener
    gc.collect()
    assert not os.path.lexists(path)
    with pytest.raises(RecvError):
        rx.recv_bytes_blocking()


@pytest.mark.parametrize("how", ["", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_a_process_that_exits_removes_its_socket(name, folder, path, how):
    import subprocess
    import sys

    program = f"import sys\nfrom nexus_channels import {name}\nkept = [{name}.listen({path!r}, 4096)]\n"
    program += f"kept.append(kept)\nsys.kept = kept\nprint('listens')\n{how}"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "listens\n"
    assert os.listdir(folder) == []


def test_a_child_of_multiprocessing_that_ends_removes_its_socket(name):
    run(
        f"""
for method in {METHODS!r}:
    ready = multiprocessing.get_context(method).Event()
    join(start(keep_listener, {name!r}, os.environ["TMPDIR"] + "/s", ready, method=method))
"""
    )


# ---- forks, moving, the object -------------------------------------------------------------------------------------


def test_a_sender_comes_in_while_another_one_keeps_the_receiver_busy(path):
    with mpsc_bytes.listen(path, 4096) as listener:
        rx = listener.receiver
        connecting = Spawned(mpsc_bytes.connect, path)
        until(lambda: rx.is_disconnected or not connecting.is_alive())  # which looks who is there
        busy = connecting.join()
        for _ in range(20):
            busy.try_send(bytes(56))
        connecting = Spawned(mpsc_bytes.connect, path, timeout=DEADLINE)
        end = time.monotonic() + DEADLINE
        while connecting.is_alive() and time.monotonic() < end:
            rx.try_recv().release()
            busy.try_send(bytes(56))
            time.sleep(0)
        connecting.join().close()


def test_senders_come_one_after_the_other_also_where_the_receiver_has_moved(path):
    """The second one goes on to another process, and had sent nothing until then."""
    listener = spsc_bytes.listen(path, 4096)
    rx = listener.receiver

    def connected():
        connecting = Spawned(spsc_bytes.connect, path)
        until(lambda: rx.is_disconnected or not connecting.is_alive())
        return connecting.join()

    first = connected()
    for n in range(30):
        first.send_blocking(b"1 %d" % n)
    assert rx.recv_bytes_blocking() == b"1 0"
    first.close()
    second = connected()
    ticket = second.share()
    listener.close()
    rx = attach(rx.share())
    second = attach(ticket)
    for n in range(30):
        second.send_blocking(b"2 %d" % n)
    second.close()
    assert rx.is_disconnected  # which hears of the second one while what the first one sent is there
    said = [bytes(claim).decode() for claim in rx]
    assert said == [*(f"1 {n}" for n in range(1, 30)), *(f"2 {n}" for n in range(30))]


def test_a_fork_while_somebody_waits_to_listen_has_no_copy_of_the_socket(module, path):
    def sockets():
        return sorted(what for what in descriptors().values() if what.startswith("socket:"))

    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    before, count = sockets(), len(descriptors())
    waiting = Spawned(module.listen, path, 4096)
    until(lambda: len(descriptors()) > count)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"same" if sockets() == before else b"more")
        os._exit(0)
    os.waitpid(pid, 0)
    fcntl.flock(folder, fcntl.LOCK_UN)
    waiting.join().close()
    assert os.read(reading, 4) == b"same"
    for fd in (folder, reading, writing):
        os.close(fd)


def test_a_fork_while_somebody_connects_keeps_no_sender_alive(module, path):
    """The child lives on, and has no copy of what the sender comes by."""
    listener = module.listen(path, 4096)
    before = len(descriptors())
    connecting = Spawned(module.connect, path)
    until(lambda: len(descriptors()) > before)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        until(lambda: listener.receiver.is_disconnected or not connecting.is_alive())  # which lets the sender in
        tx = connecting.join()
        tx.send_blocking(b"before the end")
        tx.close()
        listener.close()
        assert listener.receiver.recv_bytes_blocking(timeout=DEADLINE) == b"before the end"
        with pytest.raises(RecvError):
            listener.receiver.recv_blocking(timeout=DEADLINE)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(pid, 0)


def test_a_forked_child_neither_listens_nor_removes_the_socket(module, path):
    before = descriptors()
    with module.listen(path, 4096) as listener:
        ours = {what for fd, what in descriptors().items() if fd not in before and what.startswith("socket")}
        assert ours

        def child():
            assert listener.is_closed
            assert not ours & set(descriptors().values())
            listener.close()
            with pytest.raises(ChannelError):
                listener.receiver.try_recv()

        fork(child)
        assert os.path.exists(path) and not listener.is_closed
        connected(module, listener).send_blocking(b"hello")
        assert listener.receiver.recv_bytes_blocking() == b"hello"


def test_a_child_that_lives_on_does_not_listen_for_its_parent(name):
    run(
        f"""
path = os.environ["TMPDIR"] + "/s"
here, there = multiprocessing.Pipe()
parent = start(listen_and_fork, {name!r}, path, there, method="fork")
child = here.recv()
os.kill(parent.pid, signal.SIGKILL)
os.waitpid(parent.pid, 0)  # join() would wait for the child, too
try:
    {name}.connect(path, timeout=5)
except ConnectionRefusedError:
    os.unlink(path)
os.kill(child, signal.SIGKILL)
"""
    )


def test_a_receiver_with_a_listener_is_not_shared_until_that_is_closed(module, path):
    listener = module.listen(path, 4096)
    tx = connected(module, listener)
    tx.send_blocking(b"before")
    with pytest.raises(BusyError, match="listener"):
        listener.receiver.share()
    assert not listener.receiver.is_closed
    listener.close()
    rx = attach(listener.receiver.share())
    tx.send_blocking(b"after")
    tx.close()
    assert [bytes(claim) for claim in rx] == [b"before", b"after"]


def test_a_listener_says_what_it_is(name, module, path):
    listener = module.listen(path, 4096)
    assert repr(listener).startswith(f"<nexus_channels.Listener of {name}, listens at {path!r}, at 0x")
    listener.close()
    assert repr(listener).startswith(f"<nexus_channels.Listener of {name}, closed, was at {path!r}, at 0x")
    assert Listener[module.Receiver]
    with pytest.raises(TypeError):
        Listener()
    with pytest.raises(TypeError):
        pickle.dumps(listener)
    for attribute in ("path", "receiver", "is_closed"):
        with pytest.raises(AttributeError):
            setattr(listener, attribute, None)


def test_many_listeners_come_and_go_without_a_trace(module, path):
    def once():
        with module.listen(path, 4096) as listener, connected(module, listener) as tx:
            tx.send_blocking(b"x")
        gc.collect()

    once()
    before = descriptors()
    for _ in range(20):
        once()
    assert descriptors() == before


def test_threads_connect_and_listeners_close_in_any_order(path):
    """Whoever comes has a sender, or an error that says why not; nobody hangs."""
    outcomes = []

    def come():
        sent = 0
        while sent < size(10, 500):
            try:
                with mpsc_bytes.connect(path, timeout=DEADLINE) as tx:
                    tx.send_blocking(b"x")
                outcomes.append("sent")
                sent += 1
            except (FileNotFoundError, ConnectionRefusedError, SendError) as error:
                outcomes.append(type(error).__name__)

    threads = [Spawned(come) for _ in range(4)]
    received = 0
    while any(thread.is_alive() for thread in threads):
        with mpsc_bytes.listen(path, 4096) as listener:
            with contextlib.suppress(RecvTimeout):
                for _ in range(5):
                    listener.receiver.recv_bytes_blocking(timeout=0.01)
                    received += 1
            closer = threading.Thread(target=listener.close)
            closer.start()
            with contextlib.suppress(RecvError, RecvTimeout):
                while True:
                    listener.receiver.recv_bytes_blocking(timeout=DEADLINE)
                    received += 1
            closer.join()
    for thread in threads:
        thread.join()
    assert received == outcomes.count("sent")
