"""Many channels, threads, tasks and loops at once, doing everything at random; test_soak.py runs it.

    python soak.py SECONDS SEED CHANNELS THREADS TASKS LOOPS

Every number sent is unique. A channel lives for a while; then one of those who use it closes an end, the last user to
leave accounts for every number, and a new channel takes its place. It prints what was done, or fails.
"""

import asyncio
import collections
import contextlib
import faulthandler
import gc
import itertools
import os
import random
import sys
import threading

from anychannel import THREADED, AnyChannel
from harness import SANITIZER

from nexus_channels import BusyError, ChannelError, Closed

NUMBERS = itertools.count(1)
TOTALS = collections.Counter()
FAILURES = []
STOP = threading.Event()


class World:
    """One channel, what its users say they sent and received, and how many of them there are."""

    def __init__(self, kind, capacity):
        self.channel = AnyChannel(kind, capacity)
        self.unit = 16 if self.channel.bytes else 1
        self.sent = []
        self.got = []
        self.users = 0
        self.retired = False
        self.lock = threading.Lock()

    def enter(self):
        with self.lock:
            if self.retired:
                return False
            self.users += 1
            return True

    def leave(self):
        with self.lock:
            self.users -= 1
            last = self.retired and self.users == 0
        if last:
            self.account()

    def retire(self, end):
        """Close one end; true for whoever was the first."""
        with self.lock:
            if self.retired:
                return False
            self.retired = True
            self.users += 1
        getattr(self.channel, end).close()
        self.leave()
        return True

    def account(self):
        channel, stats = self.channel, self.channel.rx.statistics()
        if not channel.rx.is_closed:
            with contextlib.suppress(Closed):
                while items := channel.rx.try_recv_many(1000):
                    self.got += map(channel.unpack, items)
            stats = channel.rx.statistics()
        assert stats.waiting_senders == stats.waiting_receivers == 0, stats
        assert len(set(self.got)) == len(self.got), "received twice"
        assert set(self.got) <= set(self.sent), "received what was not sent"
        assert stats.received == len(self.got) * self.unit, (stats, len(self.got))
        assert stats.sent == len(self.sent) * self.unit, (stats, len(self.sent))
        assert channel.rx.is_closed or len(self.got) == len(self.sent), "lost"
        if channel.name.startswith("spsc") or len(self.sent) < 2:
            pass  # any number of users share the one sender: no order among them
        TOTALS["channels"] += 1
        TOTALS["sent"] += len(self.sent)
        TOTALS["received"] += len(self.got)
        channel.tx.close()
        channel.rx.close()


class Stage:
    """The places in which channels come and go."""

    def __init__(self, places, seed):
        self.random = random.Random(seed)
        self.worlds = [self.new() for _ in range(places)]

    def new(self):
        return World(self.random.choice(THREADED), self.random.choice([1, 2, 3, 8, 64]))

    def replace(self, place):
        world = self.worlds[place]
        if world.retire("tx" if self.random.random() < 0.5 else "rx"):
            self.worlds[place] = self.new()


def note(world, sent=(), got=()):
    world.sent += sent
    world.got += got


def spare_sender(world, dice):
    """The sender, or for a while a clone of it."""
    if world.channel.clones and dice.random() < 0.2:
        with contextlib.suppress(ChannelError):
            return world.channel.tx.clone()
    return world.channel.tx


def act(world, dice):
    """One thing that a thread does."""
    channel, choice = world.channel, dice.randrange(8)
    timeout = dice.choice([0, 0.0005, 0.005])
    if choice <= 2:
        number = next(NUMBERS)
        tx = spare_sender(world, dice)
        if choice:
            tx.send_blocking(channel.pack(number), timeout)
        else:
            tx.try_send(channel.pack(number))
        note(world, sent=[number])
        if tx is not channel.tx:
            tx.close()
    elif choice <= 5:
        note(world, got=[channel.recv_blocking(timeout) if choice > 3 else channel.try_recv()])
    elif choice == 6:
        note(world, got=list(map(channel.unpack, channel.rx.recv_many_blocking(5, timeout))))
    else:
        numbers = [next(NUMBERS) for _ in range(3)]
        went = channel.tx.try_send_many([channel.pack(number) for number in numbers])
        note(world, sent=numbers[:went])
    if channel.bytes and choice == 0:
        number = next(NUMBERS)
        with channel.tx.claim_blocking(8, timeout) as view:
            view[:] = channel.pack(number)
        note(world, sent=[number])


def thread_main(stage, seed):
    dice = random.Random(seed)
    try:
        while not STOP.is_set():
            place = dice.randrange(len(stage.worlds))
            world = stage.worlds[place]
            if not world.enter():
                continue
            try:
                act(world, dice)
            except (ChannelError, BusyError):
                TOTALS["refused"] += 1
            finally:
                world.leave()
            if dice.random() < 0.003:
                stage.replace(place)
    except BaseException as error:
        FAILURES.append(error)
        STOP.set()
        raise


async def try_for(awaitable, dice):
    """Await it to its end, or cancel it after some turns of the loop, or let its time run out."""
    choice = dice.randrange(3)
    if choice == 0:
        return await asyncio.wait_for(awaitable, 0.002)
    task = asyncio.ensure_future(awaitable)
    if choice == 1:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
    return await task


async def act_async(world, dice):
    channel, choice = world.channel, dice.randrange(6)
    if choice <= 2:
        number = next(NUMBERS)
        await try_for(channel.sending(number, 0.005), dice)
        note(world, sent=[number])
    elif choice <= 4:
        note(world, got=[channel.unpack(await try_for(channel.receiving(0.005), dice))])
    else:
        note(world, got=list(map(channel.unpack, await try_for(channel.rx.recv_many(4, 0.005), dice))))


async def task_main(stage, dice):
    while not STOP.is_set():
        place = dice.randrange(len(stage.worlds))
        world = stage.worlds[place]
        if world.enter():
            try:
                await act_async(world, dice)
            except (ChannelError, TimeoutError, asyncio.CancelledError):
                TOTALS["refused"] += 1
            finally:
                world.leave()
        if dice.random() < 0.0005:
            stage.replace(place)
        await asyncio.sleep(0)


def loop_main(stage, seed, tasks):
    async def main():
        dice = random.Random(seed)
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(task_main(stage, random.Random(dice.random())))

    try:
        asyncio.run(main())
    except BaseException as error:
        FAILURES.append(error)
        STOP.set()
        raise


def resources():
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resident, threading.active_count(), len(os.listdir("/proc/self/fd"))


def main(seconds, seed, channels, threads, tasks, loops):
    dice = random.Random(seed)
    stage = Stage(channels, dice.random())
    running = [threading.Thread(target=thread_main, args=(stage, dice.random())) for _ in range(threads)]
    running += [threading.Thread(target=loop_main, args=(stage, dice.random(), tasks // loops)) for _ in range(loops)]
    faulthandler.dump_traceback_later(seconds * 3 + 120, exit=True)
    for thread in running:
        thread.start()
    STOP.wait(seconds / 3)  # everything that is made once is made by then
    gc.collect()
    start = resources()
    STOP.wait(seconds * 2 / 3)
    gc.collect()
    end = resources()
    STOP.set()
    for thread in running:
        thread.join()
    assert not FAILURES, FAILURES
    for place in range(channels):
        stage.worlds[place].retire("tx")
    print(dict(TOTALS), "resident, threads, descriptors:", start, "->", end)
    assert TOTALS["channels"] >= channels and TOTALS["received"] > 0
    assert end[1:] == start[1:], "threads or descriptors grow"
    assert SANITIZER or end[0] - start[0] < 48 * 1024 * 1024, "memory grows"


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
