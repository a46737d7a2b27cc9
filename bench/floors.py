"""What each scenario costs at least: the same steps with nothing in between, or the barest way to do the job.

Each is a function of the items and the loop factory that returns nanoseconds, like a scenario that is already bound
to a contender.
"""

import asyncio
import collections
import importlib.util
import os
import queue
import shlex
import subprocess
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any

from threads import spawn

from nexus_channels._programs.bench.threads import line_up

__all__ = [
    "awaited_coroutines",
    "awaited_noops",
    "bare_futures",
    "bridged_queues",
    "burst_of_futures",
    "coalesced_deque",
    "coalesced_recv",
    "eventfd_and_lock",
    "limited_deque",
    "limited_put_into_simple_queue",
    "limited_simple_queue",
    "lock_and_call_soon",
    "noop_pair",
    "noops_here_and_there",
    "noops_there_and_here",
    "put_into_simple_queue",
    "two_locks",
]

Items = Sequence[Any]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def build_noop() -> Any:
    """Compile noop.c for this interpreter; None without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "noop" + sysconfig.get_config_var("EXT_SUFFIX"))
        command = [
            *shlex.split(sysconfig.get_config_var("CC")),
            *("-O2", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"),
            *(str(Path(__file__).with_name("noop.c")), "-o", str(target)),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        spec = importlib.util.spec_from_file_location("noop", target)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def noop_pair(items: Items, _: LoopFactory, recv: str = "recv") -> int:
    end = noop.End()
    send, recv = end.send, getattr(end, recv)
    start = cpu_ns()
    for item in items:
        send(item)
        recv()
    return cpu_ns() - start


noop = build_noop()


def awaited_noops(items: Items, factory: LoopFactory, receiver: str = "End") -> int:
    """Two C objects that are ready, awaited in turn.

    The second may be a `ValueEnd`, which hands over a value: from 3.12 on by a StopIteration, one that is used again.
    """

    async def main() -> int:
        send, recv = noop.End().ready_send, getattr(noop, receiver)().ready_recv
        start = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - start

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def noops_there_and_here(items: Items, factory: LoopFactory) -> int:
    """A thread calls a C method an item, then a task awaits a C object an item: nobody waits for anybody."""

    async def main() -> int:
        end = noop.End()

        def send_all() -> int:
            send = end.send
            began = wall_ns()
            for item in items:
                send(item)
            return wall_ns() - began

        there = spawn(send_all).join()
        recv = end.ready_recv
        began = wall_ns()
        for _ in items:
            await recv()
        return there + wall_ns() - began

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def noops_here_and_there(items: Items, factory: LoopFactory) -> int:
    """A task awaits a C object an item, then a thread calls a C method an item."""

    async def main() -> int:
        end = noop.End()

        def recv_all() -> int:
            recv = end.quick_recv
            began = wall_ns()
            for _ in items:
                recv()
            return wall_ns() - began

        send = end.ready_send
        began = wall_ns()
        for item in items:
            await send(item)
        here = wall_ns() - began
        return here + spawn(recv_all).join()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def awaited_coroutines(items: Items, factory: LoopFactory) -> int:
    """Two coroutines that do nothing, awaited in turn."""

    async def send(_item: Any) -> None:
        pass

    async def recv() -> None:
        pass

    async def main() -> int:
        start = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - start

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def bare_futures(items: Items, factory: LoopFactory) -> int:
    """Two tasks that hand a future back and forth."""

    async def main() -> int:
        create = asyncio.get_running_loop().create_future
        question = create()
        answer = None

        async def responder() -> None:
            nonlocal question
            for _ in range(len(items)):
                item = await question
                question = create()
                answer.set_result(item)

        task = asyncio.create_task(responder())
        start = cpu_ns()
        for item in items:
            answer = create()
            question.set_result(item)
            await answer
        elapsed = cpu_ns() - start
        await task
        return elapsed

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def two_locks(items: Items, _: LoopFactory) -> int:
    """Two threads that release each other's lock in turn."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()

    def responder() -> None:
        for _ in range(len(items)):
            there.acquire()
            back.release()

    thread = spawn(responder)
    start = wall_ns()
    for _ in items:
        there.release()
        back.acquire()
    elapsed = wall_ns() - start
    thread.join()
    return elapsed


def lock_and_call_soon(items: Items, factory: LoopFactory) -> int:
    """A thread asks by call_soon_threadsafe, a task answers by releasing a lock."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        back = threading.Lock()
        back.acquire()
        question = loop.create_future()

        def asker() -> int:
            start = wall_ns()
            for item in items:
                loop.call_soon_threadsafe(question.set_result, item)
                back.acquire()
            return wall_ns() - start

        thread = spawn(asker)
        for _ in range(len(items)):
            await question
            question = loop.create_future()
            back.release()
        return thread.join()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def bridged_queues(items: Items, factory: LoopFactory) -> int:
    """A thread asks by call_soon_threadsafe into an asyncio.Queue, a task answers into a SimpleQueue."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        there: asyncio.Queue[Any] = asyncio.Queue()
        back: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def asker() -> int:
            start = wall_ns()
            for item in items:
                loop.call_soon_threadsafe(there.put_nowait, item)
                back.get()
            return wall_ns() - start

        thread = spawn(asker)
        for _ in range(len(items)):
            back.put(await there.get())
        return thread.join()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def eventfd_and_lock(items: Items, factory: LoopFactory) -> int:
    """A thread writes to an eventfd, the loop's reader releases a lock: no task, no item."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        back = threading.Lock()
        back.acquire()
        left, done = len(items), loop.create_future()

        def read() -> None:
            nonlocal left
            os.eventfd_read(fd)
            back.release()
            left -= 1
            if not left:
                done.set_result(None)

        def asker() -> int:
            start = wall_ns()
            for _ in items:
                os.eventfd_write(fd, 1)
                back.acquire()
            return wall_ns() - start

        loop.add_reader(fd, read)
        thread = spawn(asker)
        await done
        loop.remove_reader(fd)
        elapsed = thread.join()
        os.close(fd)
        return elapsed

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


class Burst:
    """A deque without limit, whose senders wake the loop once a burst."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.buffer: collections.deque[Any] = collections.deque()
        self.asleep: asyncio.Future[None] | None = None
        self.woken = True

    def wake(self) -> None:
        if self.asleep is not None:
            self.asleep.set_result(None)
            self.asleep = None

    def feed(self, items: Items) -> None:
        append = self.buffer.append
        for item in items:
            append(item)
            if not self.woken:
                self.woken = True
                self.loop.call_soon_threadsafe(self.wake)

    def feed_limited(self, items: Items, at_once: int, more: threading.Lock) -> None:
        """Goes on after so many items when it is let."""
        for i in range(0, len(items), at_once):
            if i:
                more.acquire()
            self.feed(items[i : i + at_once])

    async def sleep(self) -> None:
        """Until there is something, or for no reason."""
        self.asleep = asleep = self.loop.create_future()
        self.woken = False
        if self.buffer:  # it came between the two looks
            self.asleep = None
        else:
            await asleep

    async def recv(self) -> Any:
        while not self.buffer:
            await self.sleep()
        return self.buffer.popleft()


def coalesced(items: Items, factory: LoopFactory, senders: int, receive: Callable[[Burst, int], Any]) -> int:
    async def main() -> int:
        burst = Burst()
        threads, go = line_up(*((burst.feed, items[i::senders]) for i in range(senders)))
        start = wall_ns()
        go()
        await receive(burst, len(items))
        elapsed = wall_ns() - start
        for thread in threads:
            thread.join()
        return elapsed

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


async def pop_all(burst: Burst, count: int) -> None:
    buffer = burst.buffer
    for _ in range(count):
        while not buffer:
            await burst.sleep()
        buffer.popleft()


def coalesced_deque(items: Items, factory: LoopFactory, senders: int = 1) -> int:
    """Threads append to a deque without limit, and wake the loop once a burst; the task awaits nothing meanwhile."""
    return coalesced(items, factory, senders, pop_all)


def limited_deque(items: Items, factory: LoopFactory, senders: int = 1, limit: int = 1024) -> int:
    """The same, but there are never more than so many in the deque: then the threads wait until it is empty."""

    async def main() -> int:
        burst = Burst()
        locks = [threading.Lock() for _ in range(senders)]
        calls = []
        for i, more in enumerate(locks):
            more.acquire()
            calls.append((burst.feed_limited, items[i::senders], limit // senders, more))
        threads, go = line_up(*calls)
        start = wall_ns()
        go()
        for left in range(len(items), 0, -limit):
            await pop_all(burst, min(left, limit))
            for more in locks if left > limit else ():
                more.release()
        elapsed = wall_ns() - start
        for thread in threads:
            thread.join()
        return elapsed

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def coalesced_recv(items: Items, factory: LoopFactory) -> int:
    """The same, received by awaiting a coroutine an item, as from any channel."""

    async def receive(burst: Burst, count: int) -> None:
        for _ in range(count):
            await burst.recv()

    return coalesced(items, factory, 1, receive)


def put_into_simple_queue(items: Items, factory: LoopFactory) -> int:
    """A task puts into a queue without limit that a thread reads."""
    q: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def main() -> int:
        def drain() -> int:
            for _ in items:
                q.get()
            return wall_ns()

        (thread,), go = line_up((drain,))
        start = wall_ns()
        go()
        for item in items:
            q.put(item)
        return thread.join() - start

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def limited_put_into_simple_queue(items: Items, factory: LoopFactory, limit: int = 1024) -> int:
    """The same, but never more than so many: then the task waits until the thread has taken all."""
    q: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        emptied = loop.create_future()

        def drain() -> int:
            for i in range(len(items)):
                q.get()
                if i % limit == limit - 1:
                    loop.call_soon_threadsafe(emptied.set_result, None)
            return wall_ns()

        (thread,), go = line_up((drain,))
        start = wall_ns()
        go()
        for i in range(0, len(items), limit):
            for item in items[i : i + limit]:
                q.put(item)
            if i + limit <= len(items):
                await emptied
                emptied = loop.create_future()
        return thread.join() - start

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def limited_simple_queue(items: Items, _: LoopFactory, limit: int = 1024) -> int:
    """From a thread to a thread, never more than so many in the queue: then the sender waits until it is empty."""
    q: queue.SimpleQueue[Any] = queue.SimpleQueue()
    emptied = threading.Lock()
    emptied.acquire()

    def feed() -> None:
        put = q.put
        for i in range(0, len(items), limit):
            for item in items[i : i + limit]:
                put(item)
            if i + limit < len(items):
                emptied.acquire()

    (thread,), go = line_up((feed,))
    start = wall_ns()
    go()
    get = q.get
    for left in range(len(items), 0, -limit):
        for _ in range(min(left, limit)):
            get()
        if left > limit:
            emptied.release()
    elapsed = wall_ns() - start
    thread.join()
    return elapsed


def burst_of_futures(items: Items, factory: LoopFactory) -> int:
    """A task a future; one callback from a thread resolves them all."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        left = len(items)
        done = loop.create_future()

        async def wait(future: asyncio.Future[Any]) -> None:
            nonlocal left
            await future
            left -= 1
            if not left:
                done.set_result(None)

        tasks = [loop.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)

        def resolve_all() -> None:
            for future, item in zip(futures, items, strict=True):
                future.set_result(item)

        (thread,), go = line_up((loop.call_soon_threadsafe, resolve_all))
        start = wall_ns()
        go()
        await done
        elapsed = wall_ns() - start
        thread.join()
        await asyncio.gather(*tasks)
        return elapsed

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
