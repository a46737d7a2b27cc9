"""Processes beside the one that runs: what tests of shared channels run in them, and how they run it.

`run_script` is for the tests. All else is for the scripts that it runs, and for the children of these: whatever the
method is by which multiprocessing starts a child, it can import what it runs from here.
"""

import asyncio
import contextlib
import ctypes
import mmap
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import native_driver
import pytest
from harness import LIB, SLOWNESS, WAKE, child_command
from support import Spawned

from nexus_channels import Full, RecvError, SendError, attach

METHODS = [method for method in ("spawn", "forkserver", "fork") if method in multiprocessing.get_all_start_methods()]

HAS_LANES = WAKE == "eventfd"  # of a build that is not portable
needs_lanes = pytest.mark.skipif(not HAS_LANES, reason="no lanes between processes here")
without_lanes = pytest.mark.skipif(HAS_LANES, reason="there are lanes between processes here")

PAGE = os.sysconf("SC_PAGE_SIZE")
PRELUDE = """
import asyncio, gc, multiprocessing, os, signal, sys, time
from nexus_channels import *
from nexus_channels import mpsc_bytes, spsc_bytes
from processes import *
from support import Spawned, until, until_blocked, until_parked
"""
NATIVE = """
import native_driver
from native_driver import *
path, = sys.argv[1:]
driver = native_driver.Driver(path)
"""

# What multiprocessing itself leaves in shared memory and temporary folders while other tests run beside this one.
OF_MULTIPROCESSING = ("pymp-", "sem.", "psm_", "mp-")


# ---- for the tests -------------------------------------------------------------------------------------------------


def shared(bytes_variant, capacity=PAGE):
    return bytes_variant.channel(capacity, shared=True)


def fill(tx, length=56):
    """Send until it is full; how many messages that were."""
    sent = 0
    try:
        while True:
            tx.try_send(bytes(length))
            sent += 1
    except Full:
        return sent


def left_in(folder):
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {name for name in names if not name.startswith(OF_MULTIPROCESSING)}


def run_script(script, *args, seconds=30, before=(), env=None):
    """Run `script` in a new interpreter, as harness.run_child does; return its stdout.

    Whatever it started is gone afterwards, also if it hangs. It must leave no file behind, neither in its folder for
    temporary files nor in /dev/shm.
    """
    shared = left_in("/dev/shm")
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            [*before, *child_command(PRELUDE + script, *args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=LIB,
            env={**os.environ, "TMPDIR": folder, **(env or {})},
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=seconds * SLOWNESS)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if not ended:
            out, err = child.communicate()
        report = f"exit code {child.returncode}\n--- stdout\n{out}\n--- stderr\n{err}"
        assert ended, f"still running after {seconds * SLOWNESS} s: {report}"
        assert child.returncode == 0, report
        assert "Fatal Python error" not in err, report
        assert "Traceback" not in err, report
        assert left_in(folder) == set(), report
    assert left_in("/dev/shm") <= shared, report
    return out


# ---- for the scripts -----------------------------------------------------------------------------------------------

__all__ = [
    "PAGE",
    "RECORD",
    "SLOWNESS",
    "Counter",
    "answer",
    "attach_first",
    "claim_and_wait",
    "compute",
    "descriptors",
    "drain",
    "end_by",
    "fork",
    "from_carrier",
    "give_on",
    "give_receiver_on",
    "have_a_child_and_be_killed",
    "hold",
    "join",
    "keep",
    "killed",
    "message",
    "on_loop",
    "park",
    "recv_all",
    "recv_all_from",
    "resume",
    "send_all",
    "send_all_from",
    "send_counting",
    "send_natively_for_ever",
    "send_numbered",
    "send_stamped",
    "send_stamped_by_many",
    "stamped_from",
    "stamped_to",
    "start",
    "stop",
    "take_and_end_by",
    "take_stamped",
    "tamper",
    "two_threads",
    "with_kept",
    "work",
]

RECORD = struct.Struct("<iq")  # who sent it, and the number


def start(function, *args, method="spawn"):
    """A child that runs it. It ends with this process."""
    process = multiprocessing.get_context(method).Process(target=function, args=args, daemon=True)
    process.start()
    return process


def join(*processes, code=0):
    for process in processes:
        process.join(20 * SLOWNESS)
        assert process.exitcode == code, (process.name, process.exitcode)


def killed(process, sign=signal.SIGKILL):
    os.kill(process.pid, sign)
    join(process, code=-sign)


def state_of(process):
    """The letter of the system's: R runs, S sleeps, T is stopped."""
    return pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(process):
    """Stop it, and return when it is stopped."""
    os.kill(process.pid, signal.SIGSTOP)
    end = time.monotonic() + 20 * SLOWNESS
    while state_of(process) != "T":
        assert time.monotonic() < end, "it was not stopped"
        time.sleep(0)


def resume(process):
    os.kill(process.pid, signal.SIGCONT)


def fork(function):
    """Run `function` in a forked child, and wait for its end, which is to be a good one."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(int(15 * SLOWNESS))
            function()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"


def descriptors():
    """{number: what it is}, of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


class Counter:
    """A number in a file that a process writes and others read, whatever becomes of the writer."""

    SIZE = struct.calcsize("q")

    def __init__(self, path):
        self.path = path
        with open(path, "ab") as file:
            file.truncate(self.SIZE)
        with open(path, "r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), self.SIZE)).cast("q")

    def __reduce__(self):
        return type(self), (self.path,)

    @property
    def value(self):
        return self._numbers[0]

    @value.setter
    def value(self, value):
        """By one store: a struct's pack_into() writes zeros first, and the writer may be killed between the two."""
        self._numbers[0] = value


# Both ends in each way there is


def message(n):
    return b"%d|" % n * (1 + n % 5)


def on_loop(main, how):
    if how == "trio":
        import trio

        trio.run(main)
    elif how == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    else:
        asyncio.run(main())


def send_all_from(tx, count, how, first=0):
    """Messages number `first` to `count`, and then the end."""
    numbers = range(first, count)
    if how == "thread":
        for n in numbers:
            tx.send_blocking(message(n))
    elif how == "batches":
        tx.send_many_blocking(map(message, numbers))
    elif how == "claims":
        for n in numbers:
            with tx.claim_blocking(len(message(n)) + 3) as room:
                room[: len(message(n))] = message(n)
                claim = room.obj
                del room
                claim.commit(len(message(n)))
    else:

        async def main():
            for n in numbers:
                await tx.send(message(n))

        on_loop(main, how)
    tx.close()


def recv_all_from(rx, count, how):
    """All of them, each as it should be, and then the end of who closed."""
    n = 0

    def look(received):
        nonlocal n
        assert received == message(n), (n, bytes(received))
        n += 1

    try:
        if how == "thread":
            while True:
                look(rx.recv_bytes_blocking())
        elif how == "batches":
            while True:
                for received in rx.recv_many_blocking(100):
                    look(received)
        elif how == "into":
            buffer = bytearray(rx.max_message_size)
            while True:
                look(buffer[: rx.recv_into_blocking(buffer)])
        elif how == "claims":
            for claim in rx:
                look(memoryview(claim))
        else:

            async def main():
                async for claim in rx:
                    look(memoryview(claim))

            on_loop(main, how)
    except RecvError as error:
        assert not error.crashed
    assert n == count, (n, count)
    rx.close()


def send_all(ticket, *more):
    send_all_from(attach(ticket), *more)


def recv_all(ticket, *more):
    recv_all_from(attach(ticket), *more)


def send_numbered(ticket, me, count):
    """`count` records. The end is left to the end of the process."""
    tx = attach(ticket)
    for n in range(count):
        tx.send_blocking(RECORD.pack(me, n))


def send_counting(ticket, me, counter):
    """Records without an end; `counter` says how many were committed, at least."""
    tx, n = attach(ticket), 0
    while True:
        try:
            tx.send_blocking(RECORD.pack(me, n))
        except SendError:
            return
        n += 1
        counter.value = n


def hold(ticket, ready):
    """Have the end, say so, and wait to be killed."""
    end = attach(ticket)
    ready.set()
    while True:
        signal.pause()
    del end


def _end(how, end):
    if how == "close":
        end.close()
    elif how == "raise":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # multiprocessing prints the error there
        raise ValueError("on purpose")
    elif how == "sys.exit":
        sys.exit(3)
    elif how == "os._exit":
        os._exit(4)
    elif how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()
    else:
        assert how == "return"


def end_by(how, ticket, said):
    """Attach a sender, send what is said, and end in one way or another, with the end in a global."""
    global kept
    kept = attach(ticket)
    for message in said:
        kept.send_blocking(message)
    _end(how, kept)


def take_and_end_by(how, ticket, count, go):
    """The same of a receiver, after `count` messages and a word."""
    global kept
    kept = attach(ticket)
    for _ in range(count):
        kept.recv_bytes_blocking()
    assert go.wait(20 * SLOWNESS)
    _end(how, kept)


def park(ticket, ready):
    """A sender, to whom no more room is given once it is full. It ends with what it was told."""
    tx = attach(ticket)
    with contextlib.suppress(Full):
        while True:
            tx.try_send(bytes(56))
    ready.set()
    try:
        tx.send_blocking(bytes(56))
    except SendError as error:
        sys.exit(10 + error.crashed)


def give_on(ticket, first, count, queue, taken):
    """Send messages `first` to `count`, and give the end on. This process serves its descriptors until it is taken."""
    tx = attach(ticket)
    for n in range(first, count):
        tx.send_blocking(message(n))
    queue.put(tx.share())
    assert taken.wait(20 * SLOWNESS)


def give_receiver_on(ticket, first, count, queue, taken):
    """The same of a receiver."""
    rx = attach(ticket)
    for n in range(first, count):
        assert rx.recv_bytes_blocking() == message(n)
    queue.put(rx.share())
    assert taken.wait(20 * SLOWNESS)


def compute(ticket):
    """Say that it begins, and never pause."""
    with attach(ticket) as tx:
        tx.send_blocking(b"begins")
    while True:
        pass


def answer(ticket, back, count, how="thread"):
    """A server: what it receives it sends back."""
    rx, tx = attach(ticket), attach(back)
    if how == "thread":
        for _ in range(count):
            tx.send_blocking(rx.recv_bytes_blocking())
        return

    async def main():
        for _ in range(count):
            await tx.send(await rx.recv_bytes())

    on_loop(main, how)


def two_threads(ticket, first, count):
    """Two threads with a sender each: numbers `first` and the next."""

    def feed(tx, me):
        with tx:
            for n in range(count):
                tx.send_blocking(RECORD.pack(me, n))

    with attach(ticket) as tx:
        threads = [Spawned(feed, tx.clone(), first + more) for more in range(2)]
    for thread in threads:
        thread.join()


def drain(ticket, ready):
    """A receiver that goes on until it is killed."""
    rx = attach(ticket)
    ready.set()
    for _ in rx:
        pass


def claim_and_wait(ticket, ready):
    """Commit a message, and have a claim of the next, until this process is killed."""
    tx = attach(ticket)
    tx.send_blocking(b"committed")
    claim = tx.claim_blocking(13)
    claim[:] = b"not committed"
    ready.set()
    while True:
        signal.pause()


def have_a_child_and_be_killed(ticket, heir):
    """Of what the child is called the pid is sent. It lives on."""
    tx = attach(ticket)
    if heir == "fork":
        pid = os.fork()
        while pid == 0:
            signal.pause()
    else:
        sleeps = "import signal; signal.pause()"
        pid = subprocess.Popen([sys.executable, "-c", sleeps], close_fds=False).pid
    tx.send_blocking(b"%d" % pid)
    os.kill(os.getpid(), signal.SIGKILL)


# Native threads, tasks and threads of Python: who sends is stamped on each message. `path` is the driver's.


def stamped_from(driver, tx, who, count, how):
    if how == "native":
        with tx.native() as end:
            assert driver.producer(end, count, how=native_driver.SEND + who % 5, who=who, most=200).join() == 0
    elif how == "thread":
        for n in range(count):
            tx.send_blocking(driver.stamped(who, 16 + n % 185, n))
    else:

        async def main():
            for n in range(count):
                await tx.send(driver.stamped(who, 16 + n % 185, n))

        on_loop(main, how)


def send_stamped(path, ticket, who, count, how):
    with attach(ticket) as tx:
        stamped_from(native_driver.Driver(path), tx, who, count, how)


def send_stamped_by_many(path, ticket, first, count, hows):
    """A thread for each of them, by one lane."""
    driver = native_driver.Driver(path)
    with attach(ticket) as tx:
        ends = [tx.clone() for _ in hows]
        threads = [Spawned(stamped_from, driver, end, first + i, count, hows[i]) for i, end in enumerate(ends)]
        for thread, end in zip(threads, ends, strict=True):
            thread.join()
            end.close()


def stamped_to(driver, rx, counts, how, crashed=False):
    """All of them to the end: so many by each sender, if `counts` says how many that are."""
    if how == "native":
        with rx.native() as end:
            consumer = driver.consumer(end, how=native_driver.PEEK)
            assert consumer.join() == native_driver.DISCONNECTED
            assert consumer.complaint == 0, consumer.complaint
            got = [consumer.due(who) for who in range(len(counts))]
    else:
        check = driver.checker()

        async def main():
            async for claim in rx:
                check(bytes(claim))

        if how == "thread":
            for claim in rx:
                check(bytes(claim))
        else:
            on_loop(main, how)
        got = list(check.due)[: len(counts)]
    assert got == counts, (got, counts)
    try:
        rx.try_recv()
    except RecvError as error:
        assert error.crashed == crashed


def take_stamped(path, ticket, counts, how):
    with attach(ticket) as rx:
        stamped_to(native_driver.Driver(path), rx, counts, how)


def send_natively_for_ever(path, ticket, counter, stays):
    """`counter` says how many thousands were sent. The process ends without asking its thread, or is killed."""
    global kept
    end = attach(ticket).native()
    kept = end, native_driver.Driver(path).producer(end, 2**62, stay=True)
    while counter.value == 0:
        counter.value = kept[1].done // 1000
    while stays:
        signal.pause()


# What carries a ticket


def from_carrier(carrier, function, *args):
    """Run it with the ticket that comes by a queue or a pipe."""
    function((carrier.recv if hasattr(carrier, "recv") else carrier.get)(), *args)


def keep(ticket):
    """An initializer."""
    global kept
    kept = attach(ticket)


def with_kept(function, *args):
    function(kept, *args)


def attach_first(tickets):
    """An initializer of several workers: each takes a ticket of its own out of a queue."""
    keep(tickets.get())


def work(jobs):
    """In a worker: a result for each job, and the pid of who did it, through the end that it keeps."""
    for job in jobs:
        kept.send_blocking(RECORD.pack(os.getpid(), job * job))


# Peers that one should not trust


def tamper(what, ticket, seed):
    """Have an end, and do something to what it shares with its peer, at random, until this process is killed."""
    rng = random.Random(seed)
    end = attach(ticket)
    if what == "memory":
        regions = []
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            span, access, *_ = line.split()
            if access.startswith("rw") and "/memfd:" in line:
                low, high = (int(part, 16) for part in span.split("-"))
                regions.append((low, high))
        assert regions
        while True:
            low, high = rng.choice(regions)
            at = rng.choice([low + 8 * rng.randrange(64), low + 8 * rng.randrange((high - low) // 8)])
            ctypes.memmove(at, rng.randbytes(8) if rng.random() < 0.5 else bytes([rng.randrange(256), *bytes(7)]), 8)
    sockets = [fd for fd, name in _sockets() if fd > 2]
    assert sockets
    while True:
        fd = rng.choice(sockets)
        with contextlib.suppress(OSError):
            if what == "socket":
                with socket.socket(fileno=os.dup(fd)) as one:
                    one.send(rng.randbytes(rng.randrange(1, 200)), socket.MSG_DONTWAIT)
            else:  # descriptors
                with socket.socket(fileno=os.dup(fd)) as one:
                    socket.send_fds(one, [b"x"], [0, 1, 2], socket.MSG_DONTWAIT)
    del end


def _sockets():
    return [(fd, name) for fd, name in descriptors().items() if name.startswith("socket:")]
