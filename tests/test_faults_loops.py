"""Loops and processes that fail under a channel: wake-ups that cannot be given, descriptors lost, reload, spawn."""

import asyncio
import contextlib
import os

import pytest
from anychannel import ALL, THREADED, AnyChannel
from harness import has_wake_descriptors, run_child, size
from steploop import StepLoop
from support import collect, until_blocked

from nexus_channels import Empty, EndpointClosed, Full, RecvError, SendError


@pytest.fixture(params=THREADED)
def channel(request):
    return AnyChannel(request.param)


class Moody(StepLoop):
    """A loop that cannot be reached from outside while it is `broken`."""

    broken = False

    def call_soon_threadsafe(self, *args, **kwargs):
        if self.broken:
            raise RuntimeError("broken, but not closed")
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.fixture
def moody(monkeypatch):
    loop = Moody(readers=False)
    loop.reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: loop.reported.append(str(report.exc_value)))
    yield loop
    loop.close()


def break_for(loop, function, *args):
    loop.broken = True
    function(*args)
    loop.broken = False
    assert loop.reported.pop() == "broken, but not closed"
    loop.run_ready()


def test_a_wake_up_that_could_not_be_given_is_given_with_the_next_send(channel, moody):
    tasks = [moody.create_task(channel.recv()) for _ in range(3)]
    moody.run_ready()
    break_for(moody, channel.try_send, 1)
    assert not any(task.done() for task in tasks)
    channel.try_send(2)
    moody.run_ready()
    assert [task.result() for task in tasks[:2]] == [1, 2]
    channel.try_send(3)
    moody.run_ready()
    assert tasks[2].result() == 3


def test_a_wake_up_that_could_not_be_given_is_given_with_the_next_receive(channel, moody):
    last = channel.fill()
    tasks = [moody.create_task(channel.sending(last + number)) for number in range(2)]
    moody.run_ready()
    break_for(moody, channel.try_recv)
    assert not any(task.done() for task in tasks)
    channel.try_recv()
    moody.run_ready()
    assert all(task.done() and task.exception() is None for task in tasks)
    assert channel.drain() == list(range(2, last + 2))


@pytest.mark.parametrize("attempt", ["send", "try_send"])
def test_a_sender_that_finds_it_full_wakes_the_receiver_that_could_not_be_told(channel, moody, attempt):
    """Else both would wait: one for room, the other for a wake-up."""
    task = moody.create_task(channel.recv())
    moody.run_ready()
    moody.broken = True
    last = channel.fill()
    moody.broken = False
    assert not task.done()
    if attempt == "send":
        sender = moody.create_task(channel.sending(last))
    else:
        with pytest.raises(Full):
            channel.try_send(last)
    moody.run_ready()
    assert task.result() == 0
    assert attempt == "try_send" or sender.done()


@pytest.mark.parametrize("attempt", ["recv", "try_recv"])
def test_a_receiver_that_finds_it_empty_wakes_the_sender_that_could_not_be_told(channel, moody, attempt):
    last = channel.fill()
    task = moody.create_task(channel.sending(last))
    moody.run_ready()
    moody.broken = True
    assert channel.drain() == list(range(last))
    moody.broken = False
    assert not task.done()
    if attempt == "recv":
        receiver = moody.create_task(channel.recv())
    else:
        with pytest.raises(Empty):
            channel.try_recv()
    moody.run_ready()
    assert task.done()
    assert last == (receiver.result() if attempt == "recv" else channel.try_recv())


@pytest.mark.parametrize("end", ["tx", "rx"])
def test_a_wake_up_that_could_not_be_given_is_given_with_the_close(channel, moody, end):
    task = moody.create_task(channel.recv())
    moody.run_ready()
    break_for(moody, channel.try_send, 1)
    getattr(channel, end).close()
    moody.run_ready()
    if end == "tx":
        assert task.result() == 1
    else:
        assert isinstance(task.exception(), EndpointClosed)


def test_one_who_waits_on_a_broken_loop_keeps_the_place_in_line(channel, moody):
    first = moody.create_task(channel.recv())
    moody.run_ready()
    break_for(moody, channel.try_send, 1)
    later = moody.create_task(channel.recv())
    moody.run_ready()
    channel.try_send(2)
    moody.run_ready()
    assert (first.result(), later.result()) == (1, 2)


def test_one_who_waits_on_a_broken_loop_may_give_up(channel, moody):
    task = moody.create_task(channel.recv())
    moody.run_ready()
    break_for(moody, channel.try_send, 1)
    task.cancel()
    moody.run_ready()
    assert task.cancelled()
    stats = channel.rx.statistics()
    assert stats.waiting_receivers == 0
    assert channel.try_recv() == 1


def test_a_broken_loop_in_any_order_of_events_loses_nothing(channel, moody):
    for pattern in range(size(64, 1024)):
        world = AnyChannel(channel.name)
        tasks = [moody.create_task(world.recv()) for _ in range(3)]
        moody.run_ready()
        for bit in range(10):
            moody.broken = bool(pattern >> bit & 1)
            with contextlib.suppress(Exception):
                world.try_send(bit)
            if bit == 4:
                tasks[pattern % 3].cancel()
            moody.broken = False
            moody.run_ready()
        if not all(task.done() for task in tasks):  # whoever finds it full tells them again
            world.fill()
            moody.run_ready()
        got = [task.result() for task in tasks if not task.cancelled() and task.done()] + world.drain()
        stats = world.rx.statistics()
        assert stats.sent == stats.received and len(set(got)) == len(got)
        assert len(got) * (16 if world.bytes else 1) == stats.received
        world.tx.close()
        moody.run_ready()
        assert all(task.done() for task in tasks)
        for task in tasks:
            assert task.cancelled() or isinstance(task.exception(), RecvError | None)


# The wake descriptor in other hands


def armed(channel, loop):
    """The descriptor by which another thread wakes the loop, opened by the first such wake-up."""
    task = loop.create_task(channel.recv())
    loop.run_ready()
    channel.try_send(0)
    loop.run_ready()
    assert task.result() == 0
    (descriptor,) = loop._readers
    return descriptor


@has_wake_descriptors
def test_a_wake_descriptor_closed_by_somebody_else_is_done_without(channel):
    loop = StepLoop()
    os.close(armed(channel, loop))
    loop._readers.clear()
    for number in range(5):
        task = loop.create_task(channel.recv())
        loop.run_ready()
        channel.try_send(number)
        loop.run_ready()
        assert task.result() == number
    loop.close()


@has_wake_descriptors
def test_the_number_of_a_lost_descriptor_is_left_to_its_new_owner(channel):
    reader, new = os.pipe()
    loop = StepLoop()
    descriptor = armed(channel, loop)
    os.close(descriptor)
    loop._readers.clear()
    task = loop.create_task(channel.recv())
    loop.run_ready()
    channel.try_send(1)  # finds it closed
    loop.run_ready()
    assert task.result() == 1
    os.dup2(new, descriptor)
    os.close(new)
    task = loop.create_task(channel.recv())
    loop.run_ready()
    channel.try_send(2)
    loop.run_ready()
    assert task.result() == 2
    loop.close()
    del loop, task
    collect()
    os.write(descriptor, b"still open, and nobody wrote to it")
    os.close(descriptor)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"still open, and nobody wrote to it"


@has_wake_descriptors
def test_a_loop_that_ends_neither_reads_nor_closes_what_has_the_number_of_its_lost_descriptor(channel):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    loop = StepLoop()
    descriptor = armed(channel, loop)
    os.dup2(reader, descriptor)  # closes it
    os.close(reader)
    os.write(writer, b"for the new owner")
    loop._readers.clear()
    assert os.read(descriptor, 100) == b"for the new owner"
    loop.close()
    del loop
    collect()
    os.write(writer, b"who still has it")
    assert os.read(descriptor, 100) == b"who still has it"
    os.close(descriptor)
    os.close(writer)


def test_a_real_loop_whose_descriptors_were_closed_behind_it(channel, spawn, loop_factory):
    """As os.closerange() does in a program that becomes a daemon."""

    def descriptors():
        links = {}
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        return {number for number, link in links.items() if "eventfd" in link}

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc to find the descriptor in")

    async def main():
        before = descriptors()
        task = asyncio.ensure_future(channel.recv())
        await asyncio.sleep(0)
        spawn(channel.try_send, 0).wait()
        assert await task == 0
        for descriptor in descriptors() - before:
            os.close(descriptor)
        for number in range(5):
            task = asyncio.ensure_future(channel.recv())
            await asyncio.sleep(0)
            thread = spawn(channel.try_send, number)
            assert await asyncio.wait_for(task, 10) == number
            thread.wait()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


# The life of the process


PRELUDE = """
import asyncio, atexit, importlib, os, sys, threading
from anychannel import AnyChannel
from support import Spawned, until_blocked
channel = AnyChannel(sys.argv[1])
"""


@pytest.mark.parametrize("name", ALL)
def test_the_package_is_imported_anew_while_channels_of_the_old_one_are_in_use(name):
    script = (
        PRELUDE
        + """
import gc
from steploop import StepLoop
loop = StepLoop()
channel.fill()
waiting = loop.create_task(channel.sending(7))
loop.run_ready()
modules = [name for name in sys.modules if name.startswith("nexus_channels")]
for _ in range(5):
    old = [sys.modules.pop(name) for name in modules if name in sys.modules]
    importlib.import_module("nexus_channels")
    for other in ("spsc", "mpsc_bytes", "local"):
        fresh = AnyChannel(other)
        fresh.try_send(1)
        assert fresh.try_recv() == 1
    del old
    gc.collect()
channel.drain()
loop.run_ready()
assert waiting.done() and channel.try_recv() == 7
importlib.reload(sys.modules["nexus_channels.mpsc"])
channel.try_send(1)
assert channel.try_recv() == 1
loop.close()
"""
    )
    run_child(script, name)


@pytest.mark.parametrize("name", THREADED)
def test_exit_handlers_send_receive_and_wake_a_daemon_thread(name):
    script = (
        PRELUDE
        + """
reply = AnyChannel(sys.argv[1])
def serve():
    while True:
        reply.send_blocking(channel.recv_blocking() + 1)
threading.Thread(target=serve, daemon=True).start()
until_blocked(channel.rx, receivers=1)
@atexit.register
def last():
    for number in range(10):
        channel.send_blocking(number)
        assert reply.recv_blocking(10) == number + 1
    print("done")
"""
    )
    for _ in range(size(2, 25)):
        assert run_child(script, name, seconds=20) == "done\n"


@pytest.mark.parametrize("name", THREADED)
def test_a_thread_forks_while_another_waits(name):
    script = (
        PRELUDE
        + """
waits = Spawned(channel.recv_blocking)
until_blocked(channel.rx, receivers=1)
def fork():
    pid = os.fork()
    if pid == 0:
        fresh = AnyChannel(sys.argv[1])
        answer = Spawned(fresh.recv_blocking)
        until_blocked(fresh.rx, receivers=1)
        fresh.try_send(5)
        channel.try_send(6)  # the child's copy: in it nobody waits
        ok = answer.join() == 5 and channel.try_recv() == 6
        os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert Spawned(fork).join() == 0
assert waits.is_alive() and len(channel.rx) == 0
channel.try_send(1)
assert waits.join() == 1
"""
    )
    flags = ("-W", "ignore::DeprecationWarning")  # CPython warns of forks among threads
    for _ in range(size(3, 25)):
        run_child(script, name, flags=flags)


def test_multiprocessing_spawn_refuses_endpoints_and_uses_its_own(tmp_path):
    """An endpoint is not sent to another process; the child makes its own channels, loops and threads."""
    program = tmp_path / "spawning.py"
    program.write_text(
        """
import asyncio, multiprocessing, sys
from nexus_channels import mpsc, spsc_bytes

def work(number):
    async def main():
        tx, rx = mpsc.channel(1)
        asyncio.get_running_loop().call_soon(tx.try_send, number)
        return await rx.recv()
    tx, rx = spsc_bytes.channel(64)
    tx.send_blocking(b"x")
    return asyncio.run(main()) + len(rx.recv_bytes_blocking())

def take(endpoint):
    pass

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    tx, rx = mpsc.channel(1)
    try:
        context.Process(target=take, args=(tx,)).start()
    except TypeError as error:
        assert "cannot copy or pickle" in str(error), error
    else:
        sys.exit("an endpoint was pickled")
    with context.Pool(2) as pool:
        assert pool.map(work, range(4)) == [1, 2, 3, 4]
    tx.try_send(1)
    assert rx.try_recv() == 1
    print("done")
"""
    )
    script = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    # A spawned child imports the main program by its path: so it is run as a program.
    script = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, {str(program)!r}]).returncode)"
    assert "done" in run_child(script, seconds=40)


def test_a_loop_that_is_closed_by_the_wake_up_itself(channel):
    """The callback that is to be woken closes the loop, with others still in the mail."""
    loop = StepLoop()
    tasks = [loop.create_task(channel.recv()) for _ in range(3)]
    loop.run_ready()
    for number in range(3):
        channel.try_send(number)
    loop.step()  # delivers to all three; none has run
    for task in tasks:
        task._log_destroy_pending = False
    loop.close()
    assert channel.rx.statistics().buffered == (48 if channel.bytes else 3)
    other = StepLoop()
    got = other.run_until_complete(channel.recv())
    assert got == 0
    channel.rx.close()
    with pytest.raises(SendError):
        channel.try_send(9)
    del tasks, loop
    collect()
    other.close()


def test_a_loop_collected_with_waiters_of_every_channel():
    """Nobody refers to the loop but its own tasks; what they waited for goes to those who are left."""
    worlds = [AnyChannel(name) for name in THREADED]
    loop = StepLoop()
    for world in worlds:
        loop.create_task(world.recv())._log_destroy_pending = False
    loop.run_ready()
    for world in worlds:
        until_blocked(world.rx, receivers=1)
    loop.close()
    del loop
    collect()
    for world in worlds:
        world.try_send(1)
        assert world.recv_blocking(10) == 1
