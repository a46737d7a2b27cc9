"""From a thread into a loop that is written with `selectors`, by a notifier, or by hand with a descriptor.

`thread_to_selector` sends all items as fast as the loop takes them. Who writes by hand writes a byte when the loop may
sleep: for each item, or once a burst, which takes a flag that is lowered before the queue is emptied. These queues have
no limit, so their senders never wait; a channel of 1024 makes its sender wait for the loop.
"""

import collections
import os
import queue
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns as wall_ns
from typing import Any

from bars import Bar

from nexus_channels import mpsc, spsc
from nexus_channels._core import build_info
from nexus_channels._programs.bench.contenders import Ends, contender
from nexus_channels._programs.bench.scenarios import ITEM, Items, LoopFactory, New, feed_blocking, scenario
from nexus_channels._programs.bench.threads import line_up

__all__ = ["BARS"]


@dataclass
class SelectorEnds(Ends):
    """What a loop with selectors needs beside."""

    fileno: Any = None  # what the loop waits on
    arm: Any = None  # before each wait; None: nothing to be done
    clear: Any = None  # after it


# ---- contenders ----------------------------------------------------------------------------------------------------

CAN = "try_recv fileno clear"
OURS = []

if build_info()["wake"] != "call_soon_threadsafe":
    for variant in (spsc, mpsc):
        OURS.append(f"{variant.__name__}, notifier")

        @contender(OURS[-1], "nexus_channels", f"{CAN} arm send_blocking", variant.channel, family="selectors")
        def _(pair: Any) -> SelectorEnds:
            tx, rx = pair
            notifier = rx.notifier()
            return SelectorEnds(
                send_blocking=tx.send_blocking,
                try_recv=rx.try_recv,
                fileno=notifier.fileno,
                arm=notifier.arm,
                clear=notifier.clear,
            )


class ByHand:
    """A queue, and a descriptor that is written to."""

    def __init__(self, items: Any, read: int, write: int, close: Callable[[], Any]) -> None:
        self.items, self.read, self.write, self.close = items, read, write, close
        self.told = False


def piped(items: Callable[[], Any]) -> Callable[[int], ByHand]:
    def new(_: int) -> ByHand:
        read, write = os.pipe()
        os.set_blocking(write, False)
        return ByHand(items(), read, write, lambda: (os.close(read), os.close(write)))

    return new


def through_sockets(items: Callable[[], Any]) -> Callable[[int], ByHand]:
    def new(_: int) -> ByHand:
        read, write = socket.socketpair()
        write.setblocking(False)
        return ByHand(items(), read.fileno(), write.fileno(), lambda: (read.close(), write.close()))

    return new


def close(channel: ByHand) -> None:
    channel.close()


def by_hand(channel: ByHand, put: Any, get: Any, *, each: bool) -> SelectorEnds:
    """`each`: a byte for each item; else for each burst."""
    read, write, tell = channel.read, channel.write, os.write

    def put_and_write(item: Any) -> None:
        put(item)
        try:  # noqa: SIM105 - suppress() would take longer
            tell(write, b"x")
        except BlockingIOError:  # it is full, and so readable
            pass

    def put_and_tell(item: Any) -> None:
        put(item)
        if not channel.told:
            channel.told = True
            tell(write, b"x")

    def clear() -> None:
        os.read(read, 65536)
        channel.told = False

    return SelectorEnds(put=put_and_write if each else put_and_tell, try_recv=get, fileno=lambda: read, clear=clear)


EACH, BURST = "SimpleQueue, a byte an item", "SimpleQueue, a byte a burst"
DEQUE = "deque, a byte a burst"
SOCKETS = "SimpleQueue, socketpair, a byte an item"


@contender(EACH, "", f"{CAN} put", piped(queue.SimpleQueue), close, family="selectors")
def _(channel: ByHand) -> SelectorEnds:
    return by_hand(channel, channel.items.put, channel.items.get_nowait, each=True)


@contender(SOCKETS, "", f"{CAN} put", through_sockets(queue.SimpleQueue), close, family="selectors")
def _(channel: ByHand) -> SelectorEnds:
    return by_hand(channel, channel.items.put, channel.items.get_nowait, each=True)


@contender(BURST, "", f"{CAN} put", piped(queue.SimpleQueue), close, family="selectors")
def _(channel: ByHand) -> SelectorEnds:
    return by_hand(channel, channel.items.put, channel.items.get_nowait, each=False)


@contender(DEQUE, "", f"{CAN} put", piped(collections.deque), close, family="selectors")
def _(channel: ByHand) -> SelectorEnds:
    return by_hand(channel, channel.items.append, channel.items.popleft, each=False)


# ---- the scenario --------------------------------------------------------------------------------------------------

NOTHING = (queue.Empty, IndexError)  # channels raise Empty, which is a queue.Empty


def thread_to_selector(new: New, items: Items, _: LoopFactory) -> int:
    ends: Any = new()
    left, take, arm, clear = len(items), ends.try_recv, ends.arm, ends.clear
    (thread,), go = line_up((feed_blocking, ends, items))
    with selectors.DefaultSelector() as selector:
        selector.register(ends.fileno(), selectors.EVENT_READ)
        began = wall_ns()
        go()
        while left:
            if arm is not None:
                arm()
            selector.select()
            clear()
            try:
                while left:
                    take()
                    left -= 1
            except NOTHING:
                pass
        ended = wall_ns()
    thread.join()
    return ended - began


scenario(
    "thread_to_selector",
    ITEM,
    thread_to_selector,
    *("put|send_blocking", "try_recv", "fileno", "clear"),
    threads=True,
    family="selectors",
)

BARS = (
    [
        Bar("thread_to_selector", EACH, 0.5, tuple(OURS)),
        Bar("thread_to_selector", BURST, 1.25, tuple(OURS)),
    ]
    if OURS
    else []
)
