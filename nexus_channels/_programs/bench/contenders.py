"""The channels and queues that are measured, each under the verbs that it has.

A contender's `new(capacity)` makes one channel as its documentation says, and `ends(channel)` picks the functions that
send and receive: the library's own, with nothing wrapped around them. A contender takes part in the scenarios whose
verbs it has; one that is not installed is left out.
"""

import asyncio
import collections
import dataclasses
import importlib
import importlib.util
import queue
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

from ... import local, mpsc, spsc

__all__ = [
    "CONTENDERS",
    "MISSING",
    "NEXUS",
    "STREAMS",
    "Contender",
    "Ends",
    "close_both",
    "contender",
    "is_ours",
    "module",
    "stream_ends",
]


def _same(item: Any) -> Any:
    return item


@dataclass
class Ends:
    """The functions of an open channel; None where there is no such thing."""

    try_send: Any = None
    try_recv: Any = None
    send: Any = None  # to be awaited
    recv: Any = None
    send_blocking: Any = None
    recv_blocking: Any = None
    put: Any = None  # has no limit, so that it never waits: for tasks and threads alike
    try_send_many: Any = None
    try_recv_many: Any = None
    send_many: Any = None  # to be awaited
    recv_many: Any = None
    send_many_blocking: Any = None
    recv_many_blocking: Any = None
    stream: Any = None  # an asynchronous iterator that ends after `end_sending`
    end_sending: Any = None
    clone: Any = None  # another sender: () -> Ends

    def verbs(self) -> set[str]:
        return {field.name for field in fields(self) if getattr(self, field.name) is not None}


class Contender(NamedTuple):
    name: str
    package: str  # what has to be installed
    can: frozenset[str]  # which Ends it has; "two_loops": they may belong to tasks of different loops
    new: Callable[[int], Any]
    ends: Callable[[Any], Ends]
    close: Callable[[Any], Any] | None = None  # what has to be done before a channel is dropped
    encode: Callable[[Any], Any] = _same  # what an item is made into before the clock runs
    decode: Callable[[Any], Any] = _same
    trio: bool = False  # its tasks run on trio, not on asyncio
    family: str = "objects"  # it takes part in the scenarios of its family
    at_once: int = 1_000_000  # channels that may be open, where each takes descriptors


CONTENDERS: dict[str, Contender] = {}


def contender(
    name: str, package: str, can: str, new: Callable[[int], Any], close: Callable[[Any], Any] | None = None, **more: Any
) -> Callable[[Callable[[Any], Ends]], Callable[[Any], Ends]]:
    """Registers the function that picks the ends."""

    def register(ends: Callable[[Any], Ends]) -> Callable[[Any], Ends]:
        CONTENDERS[name] = Contender(name, package, frozenset(can.split()), new, ends, close, **more)
        return ends

    return register


MISSING: dict[str, str] = {}  # modules that contenders would need, and why they are not there


def module(name: str) -> Any:
    """The module, or None where it is not installed or cannot be imported."""
    if importlib.util.find_spec(name) is None:
        MISSING[name] = "not installed"
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a library of somebody else's may raise on an interpreter it does not know
        MISSING[name] = f"{type(error).__name__}: {error}"
        return None


# ---- ours ----------------------------------------------------------------------------------------------------------

HERE = "try_send try_recv send recv try_send_many try_recv_many send_many recv_many stream end_sending"
THREADS = "send_blocking recv_blocking send_many_blocking recv_many_blocking two_loops"


@contender("nexus_channels.local", "nexus_channels", HERE, local.channel)
def local_ends(pair: Any) -> Ends:
    tx, rx = pair
    return Ends(
        try_send=tx.try_send,
        try_recv=rx.try_recv,
        send=tx.send,
        recv=rx.recv,
        try_send_many=tx.try_send_many,
        try_recv_many=rx.try_recv_many,
        send_many=tx.send_many,
        recv_many=rx.recv_many,
        stream=lambda: rx,
        end_sending=tx.close,
    )


def threaded(pair: Any) -> Ends:
    tx, rx = pair
    return dataclasses.replace(
        local_ends(pair),
        send_blocking=tx.send_blocking,
        recv_blocking=rx.recv_blocking,
        send_many_blocking=tx.send_many_blocking,
        recv_many_blocking=rx.recv_many_blocking,
    )


contender("nexus_channels.spsc", "nexus_channels", f"{HERE} {THREADS}", spsc.channel)(threaded)


@contender("nexus_channels.mpsc", "nexus_channels", f"{HERE} {THREADS} clone", mpsc.channel)
def clonable(pair: Any) -> Ends:
    tx, rx = pair
    ends = threaded(pair)
    ends.clone = lambda: clonable((tx.clone(), rx))
    return ends


# ---- the standard library ------------------------------------------------------------------------------------------


@contender("queue.SimpleQueue", "", "try_send try_recv put recv_blocking clone", lambda _: queue.SimpleQueue[Any]())
def simple_queue(q: Any) -> Ends:
    return Ends(try_send=q.put, try_recv=q.get_nowait, put=q.put, recv_blocking=q.get, clone=lambda: simple_queue(q))


@contender("queue.Queue", "", "try_send try_recv send_blocking recv_blocking clone", queue.Queue)
def bounded_queue(q: Any) -> Ends:
    return Ends(
        try_send=q.put_nowait,
        try_recv=q.get_nowait,
        send_blocking=q.put,
        recv_blocking=q.get,
        clone=lambda: bounded_queue(q),
    )


@contender("collections.deque", "", "try_send try_recv", lambda _: collections.deque[Any]())
def _(d: Any) -> Ends:
    return Ends(try_send=d.append, try_recv=d.popleft)


@contender("asyncio.Queue", "", "try_send try_recv send recv", asyncio.Queue)
def _(q: Any) -> Ends:
    return Ends(try_send=q.put_nowait, try_recv=q.get_nowait, send=q.put, recv=q.get)


@contender(
    "asyncio.Queue + call_soon_threadsafe",
    "",
    "put recv clone two_loops",
    lambda _: (asyncio.Queue(), asyncio.get_running_loop()),
)
def bridged(pair: Any) -> Ends:
    """The usual way into a loop; without a limit, as one would have to wait for an answer with every item."""
    q, loop = pair
    return Ends(put=partial(loop.call_soon_threadsafe, q.put_nowait), recv=q.get, clone=lambda: bridged(pair))


# ---- from PyPI -----------------------------------------------------------------------------------------------------

if janus := module("janus"):

    @contender(
        "janus",
        "janus",
        "try_send try_recv send recv send_blocking recv_blocking clone",
        janus.Queue,
        janus.Queue.close,
    )
    def janus_ends(q: Any) -> Ends:
        return Ends(
            try_send=q.sync_q.put_nowait,
            try_recv=q.sync_q.get_nowait,
            send=q.async_q.put,
            recv=q.async_q.get,
            send_blocking=q.sync_q.put,
            recv_blocking=q.sync_q.get,
            clone=lambda: janus_ends(q),
        )


if culsans := module("culsans"):

    @contender(
        "culsans", "culsans", "try_send try_recv send recv send_blocking recv_blocking clone two_loops", culsans.Queue
    )
    def culsans_ends(q: Any) -> Ends:
        return Ends(
            try_send=q.put_nowait,
            try_recv=q.get_nowait,
            send=q.async_put,
            recv=q.async_get,
            send_blocking=q.sync_put,
            recv_blocking=q.sync_get,
            clone=lambda: culsans_ends(q),
        )


if aiologic := module("aiologic"):

    @contender(
        "aiologic.Queue",
        "aiologic",
        "send recv send_blocking recv_blocking clone two_loops",
        lambda capacity: aiologic.Queue(maxsize=capacity),
    )
    def aiologic_ends(q: Any) -> Ends:
        return Ends(
            send=q.async_put,
            recv=q.async_get,
            send_blocking=q.green_put,
            recv_blocking=q.green_get,
            clone=lambda: aiologic_ends(q),
        )


STREAMS = "try_send try_recv send recv stream end_sending"


def stream_ends(pair: Any) -> Ends:
    """Of a pair as trio's memory channels are, and anyio's after them."""
    tx, rx = pair
    return Ends(
        try_send=tx.send_nowait,
        try_recv=rx.receive_nowait,
        send=tx.send,
        recv=rx.receive,
        stream=lambda: rx,
        end_sending=tx.close,
    )


def close_both(pair: Any) -> None:
    for end in pair:
        end.close()


if anyio := module("anyio"):
    contender("anyio streams", "anyio", STREAMS, anyio.create_memory_object_stream, close_both)(stream_ends)


NEXUS = [name for name in CONTENDERS if name.startswith("nexus_channels.")]  # those of objects


def is_ours(name: str) -> bool:
    return name.startswith("nexus_channels.")
