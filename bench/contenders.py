"""Everything that is measured: what makes a channel, and its two ends as bare functions.

A contender's `new(capacity)` makes one channel as its documentation says, and `ends(channel)` picks the functions
that send and receive. They are the library's own, with nothing wrapped around them. A contender takes part in the
scenarios whose verbs it has; one that is not installed is left out.
"""

import asyncio
import collections
import importlib
import importlib.util
import queue
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

__all__ = ["CONTENDERS", "NEXUS", "Contender", "Ends"]


@dataclass
class Ends:
    """The functions of an open channel; None where there is no such thing."""

    try_send: Callable[[Any], Any] | None = None
    try_recv: Callable[[], Any] | None = None
    send: Callable[[Any], Any] | None = None  # to be awaited
    recv: Callable[[], Any] | None = None
    send_blocking: Callable[[Any], Any] | None = None
    recv_blocking: Callable[[], Any] | None = None
    put: Callable[[Any], Any] | None = None  # has no limit, so that it never waits: for tasks and threads alike
    try_send_many: Callable[[list[Any]], Any] | None = None
    try_recv_many: Callable[[int], list[Any]] | None = None
    stream: Callable[[], Any] | None = None  # an asynchronous iterator that ends after `end_sending`
    end_sending: Callable[[], Any] | None = None
    clone: Callable[[], "Ends"] | None = None  # another sender

    def verbs(self) -> set[str]:
        return {field.name for field in fields(self) if getattr(self, field.name) is not None}


class Contender(NamedTuple):
    name: str
    package: str  # what has to be installed
    can: frozenset[str]  # which Ends it has; "two_loops": they may belong to tasks of different loops
    new: Callable[[int], Any]
    ends: Callable[[Any], Ends]
    close: Callable[[Any], Any] | None = None  # what has to be done before a channel is dropped


_found: list[Contender] = []


def contender(
    name: str, package: str, can: str, new: Callable[[int], Any], close: Callable[[Any], Any] | None = None
) -> Callable[[Callable[[Any], Ends]], Callable[[Any], Ends]]:
    """Registers the function that picks the ends."""

    def register(ends: Callable[[Any], Ends]) -> Callable[[Any], Ends]:
        _found.append(Contender(name, package, frozenset(can.split()), new, ends, close))
        return ends

    return register


def module(name: str) -> Any:
    """The module, or None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


# ---- ours ----------------------------------------------------------------------------------------------------------

local, spsc, mpsc = (importlib.import_module(f"nexus_channels.{name}") for name in ("local", "spsc", "mpsc"))

HERE = "try_send try_recv send recv try_send_many try_recv_many stream end_sending"
THREADS = "send_blocking recv_blocking two_loops"


@contender("nexus_channels.local", "nexus_channels", HERE, local.channel)
def _(pair: Any) -> Ends:
    tx, rx = pair
    return Ends(
        try_send=tx.try_send,
        try_recv=rx.try_recv,
        send=tx.send,
        recv=rx.recv,
        try_send_many=tx.try_send_many,
        try_recv_many=rx.try_recv_many,
        stream=lambda: rx,
        end_sending=tx.close,
    )


def threaded(pair: Any) -> Ends:
    tx, rx = pair
    return Ends(
        try_send=tx.try_send,
        try_recv=rx.try_recv,
        send=tx.send,
        recv=rx.recv,
        send_blocking=tx.send_blocking,
        recv_blocking=rx.recv_blocking,
        try_send_many=tx.try_send_many,
        try_recv_many=rx.try_recv_many,
        stream=lambda: rx,
        end_sending=tx.close,
    )


contender("nexus_channels.spsc", "nexus_channels", f"{HERE} {THREADS}", spsc.channel)(threaded)


@contender("nexus_channels.mpsc", "nexus_channels", f"{HERE} {THREADS} clone", mpsc.channel)
def clonable(pair: Any) -> Ends:
    tx, rx = pair
    ends = threaded(pair)
    ends.clone = lambda: clonable((tx.clone(), rx))
    return ends


# ---- the standard library ------------------------------------------------------------------------------------------


@contender("queue.SimpleQueue", "", "try_send try_recv put recv_blocking clone", lambda _: queue.SimpleQueue())
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


@contender("collections.deque", "", "try_send try_recv", lambda _: collections.deque())
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


if anyio := module("anyio"):

    def close_both(pair: Any) -> None:
        for stream in pair:
            stream.close()

    @contender(
        "anyio streams",
        "anyio",
        "try_send try_recv send recv stream end_sending",
        anyio.create_memory_object_stream,
        close_both,
    )
    def _(pair: Any) -> Ends:
        tx, rx = pair
        return Ends(
            try_send=tx.send_nowait,
            try_recv=rx.receive_nowait,
            send=tx.send,
            recv=rx.receive,
            stream=lambda: rx,
            end_sending=tx.close,
        )


CONTENDERS = {found.name: found for found in _found}
NEXUS = [name for name in CONTENDERS if name.startswith("nexus_channels.")]
