"""`python -m nexus_channels bench`: how fast the channels are here, beside the queues that are installed.

The suite in bench/ is built on this module; what needs a compiler, a bare floor or a plot lies there.

A contender's `new(capacity)` makes one channel as its documentation says, and `ends(channel)` picks the functions that
send and receive: the library's own, with nothing wrapped around them. A contender takes part in the scenarios whose
verbs it has; one that is not installed is left out. A scenario is written once, over the ends of any contender. It
returns the nanoseconds that it took, set-up left out: the processor time of the thread where there is but one, as that
is not disturbed by what else the machine does, and the time on the clock where threads wait for one another.
"""

import asyncio
import collections
import dataclasses
import gc
import importlib
import importlib.util
import os
import platform
import queue
import statistics
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import repeat
from time import perf_counter_ns as wall_ns
from time import thread_time_ns as cpu_ns
from typing import Any, NamedTuple

from . import __version__, local, mpsc, spsc

__all__ = [
    "CONTENDERS",
    "NEXUS",
    "SCENARIOS",
    "Contender",
    "Ends",
    "Result",
    "Scenario",
    "contender",
    "is_ours",
    "measure",
    "module",
    "on_loop",
    "spawn",
]

# ---- threads -------------------------------------------------------------------------------------------------------


class _Spawned(threading.Thread):
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call = (function, args)
        self._error: BaseException | None = None
        self._result: Any = None

    def run(self) -> None:
        function, args = self._call
        try:
            self._result = function(*args)
        except BaseException as error:  # for join() to raise
            self._error = error

    def join(self, timeout: float | None = 60) -> Any:
        """What the function returned; raises what it raised."""
        super().join(timeout)
        if self._error is not None:
            raise self._error
        if self.is_alive():
            raise TimeoutError(f"{self._call[0].__qualname__} still runs after {timeout} s")
        return self._result


def spawn(function: Callable[..., Any], *args: Any) -> _Spawned:
    thread = _Spawned(function, *args)
    thread.start()
    return thread


def line_up(*calls: tuple[Any, ...]) -> tuple[list[_Spawned], Callable[[], None]]:
    """A thread for each (function, *arguments), and what makes them all begin: starting threads is not measured."""
    gates = [threading.Lock() for _ in calls]

    def behind(gate: Any, function: Callable[..., Any], *args: Any) -> Any:
        gate.acquire()
        return function(*args)

    def go() -> None:
        for gate in gates:
            gate.release()

    for gate in gates:
        gate.acquire()
    return [spawn(behind, gate, *call) for gate, call in zip(gates, calls, strict=True)], go


# ---- contenders ----------------------------------------------------------------------------------------------------


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


# ---- scenarios -----------------------------------------------------------------------------------------------------

Items = Sequence[Any]
Start = Callable[..., None]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
New = Callable[[], Ends]
Timed = Callable[[Items, LoopFactory], int]  # a scenario bound to a contender, or a floor


@dataclass
class Scenario:
    name: str
    operation: str  # what one item stands for
    run: Callable[[New, Items, LoopFactory], int]
    needs: tuple[str, ...]  # of what a contender can; "a|b" for either
    capacity: int = 1024
    copies: int = 1  # how often each item is received
    senders: int = 1
    floors: dict[str, Timed] = field(default_factory=dict)
    fixed: int | None = None  # items a run, where the scenario says how many
    threads: bool = False  # more than one
    one_by_one: bool = False  # the asking side goes through its items once: each is a round trip to be timed alone
    latencies: Callable[..., dict[str, list[int]]] | None = None  # (samples) -> each one's nanoseconds, by who
    family: str = "objects"

    def takes(self, contender: Contender) -> bool:
        able = all(any(verb in contender.can for verb in need.split("|")) for need in self.needs)
        return able and contender.family == self.family and (self.fixed or 2) <= contender.at_once

    def entries(self, loops: LoopFactory) -> dict[str, Callable[[Items], int]]:
        """Everybody who takes part, by name: items -> nanoseconds."""
        entries = {c.name: partial(self._run, c) for c in CONTENDERS.values() if self.takes(c)} | self.floors
        return {name: partial(_with_loops, entry, loops) for name, entry in entries.items()}

    def items(self, name: str, count: int) -> list[Any]:
        """As many items as `count`, ready to be sent by the entry of that name."""
        return [CONTENDERS[name].encode(None) if name in CONTENDERS else None] * count

    def _run(self, contender: Contender, items: Items, loops: LoopFactory) -> int:
        opened = []

        def new() -> Ends:
            opened.append(contender.new(self.capacity))
            return contender.ends(opened[-1])

        nanoseconds = self.run(new, items, on_trio if contender.trio else loops)
        if contender.close is not None:
            for channel in opened:
                contender.close(channel)
        return nanoseconds

    def check(self, contender: Contender, loops: LoopFactory, count: int = 50) -> None:
        """AssertionError unless every item comes out as often as it should, those of one sender in order."""
        items = list(range(count))
        log: list[Any] = []
        recorded = contender._replace(ends=lambda *args, **named: _record(contender.ends(*args, **named), log))
        self._run(recorded, [contender.encode(item) for item in items], loops)
        log = [contender.decode(item) for item in log]
        assert Counter(log) == {item: self.copies for item in items if self.copies}, (self.name, contender.name, log)
        for sender in range(self.senders):
            received = [item for item in log if item % self.senders == sender]
            assert received == sorted(received), (self.name, contender.name, log)


def _with_loops(entry: Timed, loops: LoopFactory, items: Items) -> int:
    gc.collect()
    return entry(items, loops)


# How what a verb receives is written down: (the verb's function, the log) -> the same, noting it.


def _plain(receive: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    def recorded() -> Any:
        log.append(receive())
        return log[-1]

    return recorded


def _awaited(receive: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    async def recorded() -> Any:
        log.append(await receive())
        return log[-1]

    return recorded


def _many(receive: Callable[[int], list[Any]], log: list[Any]) -> Callable[[int], list[Any]]:
    def recorded(n: int) -> list[Any]:
        received = receive(n)
        log.extend(received)
        return received

    return recorded


def _awaited_many(receive: Callable[[int], Any], log: list[Any]) -> Callable[[int], Any]:
    async def recorded(n: int) -> Any:
        received = await receive(n)
        log.extend(received)
        return received

    return recorded


def _streamed(stream: Callable[[], Any], log: list[Any]) -> Callable[[], Any]:
    async def recorded() -> AsyncIterator[Any]:
        async for item in stream():
            log.append(item)
            yield item

    return recorded


RECORDERS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "try_recv": _plain,
    "recv": _awaited,
    "recv_blocking": _plain,
    "try_recv_many": _many,
    "recv_many": _awaited_many,
    "recv_many_blocking": _many,
    "stream": _streamed,
}


def _record(ends: Ends, log: list[Any]) -> Ends:
    """The same, writing down what is received."""
    wrapped = {verb: RECORDERS[verb](getattr(ends, verb), log) for verb in ends.verbs() & RECORDERS.keys()}
    return dataclasses.replace(ends, **wrapped)


def on_trio() -> asyncio.AbstractEventLoop:
    """Stands for trio where a loop factory is asked for."""
    raise TypeError("trio has no event loop of asyncio's kind")


def on_loop(main: Callable[[Start], Any], loops: LoopFactory) -> int:
    """Run `main(start)`, which starts tasks beside itself by `start(function, *arguments)`; all end before it does."""
    if loops is on_trio:
        return _on_trio(main)

    async def run() -> int:
        tasks = []
        result: int = await main(lambda function, *args: tasks.append(asyncio.create_task(function(*args))))
        for task in tasks:
            await task
        return result

    with asyncio.Runner(loop_factory=loops) as runner:
        return runner.run(run())


def _on_trio(main: Callable[[Start], Any]) -> int:
    trio = importlib.import_module("trio")

    async def run() -> int:
        async with trio.open_nursery() as nursery:
            result: int = await main(nursery.start_soon)
        return result

    result: int = trio.run(run)
    return result


async def feed(ends: Ends, items: Items) -> None:
    """A task that sends everything."""
    if ends.put is not None:
        put = ends.put
        for item in items:
            put(item)
        return
    send = ends.send
    for item in items:
        await send(item)


def feed_blocking(ends: Ends, items: Items) -> None:
    """A thread that sends everything."""
    send = ends.put or ends.send_blocking
    for item in items:
        send(item)


async def drain(ends: Ends, items: Items) -> None:
    """A task that receives everything."""
    recv = ends.recv
    for _ in items:
        await recv()


def drain_blocking(ends: Ends, items: Items) -> int:
    """A thread that receives everything; returns when it was done."""
    recv = ends.recv_blocking
    for _ in items:
        recv()
    return wall_ns()


def try_pair(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    send, recv = ends.try_send, ends.try_recv
    began = cpu_ns()
    for item in items:
        send(item)
        recv()
    return cpu_ns() - began


def await_ready(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends = new()
        send, recv = ends.send, ends.recv
        began = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - began

    return on_loop(main, loops)


def pingpong_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        there, back = new(), new()

        async def answer() -> None:
            send, recv = back.send, there.recv
            for _ in repeat(None, len(items)):
                await send(await recv())

        start(answer)
        send, recv = there.send, back.recv
        began = cpu_ns()
        for item in items:
            await send(item)
            await recv()
        return cpu_ns() - began

    return on_loop(main, loops)


def pipeline(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        ends = new()
        began = cpu_ns()
        start(feed, ends, items)
        await drain(ends, items)
        return cpu_ns() - began

    return on_loop(main, loops)


def pingpong_thread_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(start: Start) -> int:
        there, back = new(), new()

        def ask() -> int:
            send, recv = there.send_blocking, back.recv_blocking
            began = wall_ns()
            for item in items:
                send(item)
                recv()
            return wall_ns() - began

        thread = spawn(ask)
        send, recv = back.send, there.recv
        for _ in repeat(None, len(items)):
            await send(await recv())
        elapsed: int = thread.join()
        return elapsed

    return on_loop(main, loops)


def thread_to_thread(new: New, items: Items, _: LoopFactory) -> int:
    ends = new()
    (thread,), go = line_up((feed_blocking, ends, items))
    began = wall_ns()
    go()
    ended: int = drain_blocking(ends, items)
    thread.join()
    return ended - began


def thread_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    return fan_in(1, new, items, loops)


def loop_to_thread(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends = new()
        (thread,), go = line_up((drain_blocking, ends, items))
        began = wall_ns()
        go()
        await feed(ends, items)
        ended: int = thread.join()
        return ended - began

    return on_loop(main, loops)


def fan_in(senders: int, new: New, items: Items, loops: LoopFactory) -> int:
    """Of one sender it needs no clone."""

    async def main(_: Start) -> int:
        ends = new()
        clones = [ends.clone() for _ in range(senders)] if senders > 1 else [ends]
        threads, go = line_up(*((feed_blocking, clone, items[i::senders]) for i, clone in enumerate(clones)))
        began = wall_ns()
        go()
        await drain(ends, items)
        elapsed = wall_ns() - began
        for thread in threads:
            thread.join()
        return elapsed

    return on_loop(main, loops)


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, operation: str, run: Callable[[New, Items, LoopFactory], int], *needs: str, **more: Any
) -> None:
    """Registers it."""
    SCENARIOS[name] = Scenario(name, operation, run, needs, **more)


ITEM = "one item sent and received"
ROUND_TRIP = "one item there and back"

scenario("try_pair", ITEM, try_pair, "try_send", "try_recv")
scenario("await_ready", ITEM, await_ready, "send", "recv")
scenario("pingpong_loop", ROUND_TRIP, pingpong_loop, "send", "recv", capacity=1, copies=2, one_by_one=True)
scenario("pipeline_64", ITEM, pipeline, "send", "recv", capacity=64)
scenario("thread_to_thread", ITEM, thread_to_thread, "put|send_blocking", "recv_blocking", threads=True)
scenario("thread_to_loop", ITEM, thread_to_loop, "put|send_blocking", "recv", threads=True)
scenario("fan_in_4", ITEM, partial(fan_in, 4), "put|send_blocking", "recv", "clone", senders=4, threads=True)
scenario("loop_to_thread", ITEM, loop_to_thread, "send", "recv_blocking", threads=True)
scenario(
    "pingpong_thread_loop",
    ROUND_TRIP,
    pingpong_thread_loop,
    *("send", "recv", "send_blocking", "recv_blocking"),
    capacity=1,
    copies=2,
    threads=True,
    one_by_one=True,
)
SHORT = list(SCENARIOS)  # what the command runs; bench/ adds others


# ---- measuring -----------------------------------------------------------------------------------------------------

Entry = Callable[[Items], int]


@dataclass
class Result:
    """Nanoseconds an operation, one number a round; the rounds of all entries of a scenario belong together."""

    scenario: str
    name: str
    samples: list[float]
    items: int

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def ratio(self, other: "Result") -> float:
        """How many times the other's time; the median over the rounds, so that drift cancels out."""
        return statistics.median(a / b for a, b in zip(self.samples, other.samples, strict=True))


def measure(
    scenario: Scenario,
    loops: LoopFactory,
    *,
    names: Iterable[str] | None = None,
    rounds: int = 41,
    seconds: float = 0.02,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, Result]:
    """Time the scenario's entries, or those of the given names, each for about `seconds` a round.

    Many short rounds are better than few long ones: two entries that are compared ran at nearly the same time.
    """
    entries = scenario.entries(loops)
    if names is not None:
        entries = {name: entries[name] for name in names if name in entries}
    counts = {name: _count(scenario, name, entry, seconds) for name, entry in entries.items()}
    results = {name: Result(scenario.name, name, [], counts[name]) for name in entries}
    freeze = gc.get_freeze_count() == 0
    if freeze:
        gc.collect()
        gc.freeze()  # what was there before is not looked at in every collection that comes
    order = list(entries)
    for _ in range(rounds):
        for name in order:
            items = scenario.items(name, counts[name])
            results[name].samples.append(entries[name](items) / len(items))
            progress()
        order = order[1:] + order[:1]  # nobody always comes after the same one
    if freeze:
        gc.unfreeze()
    return results


def _count(scenario: Scenario, name: str, entry: Entry, seconds: float) -> int:
    """As many items as take about so long; enough of them to fill the channel several times."""
    if scenario.fixed is not None:
        return scenario.fixed
    least = max(64, 4 * scenario.capacity if scenario.threads else 0)
    count = least
    while True:
        elapsed = min(entry(scenario.items(name, count)) for _ in range(2)) / 1e9  # the first run is also a warm-up
        if elapsed > seconds / 8 or count >= 1 << 22:
            return max(least, int(count * seconds / max(elapsed, 1e-9)))
        count *= 4


# ---- the command ---------------------------------------------------------------------------------------------------


def table(results: dict[str, Result]) -> list[list[str]]:
    """The fastest first: name, nanoseconds, spread, and how many times the time of our own fastest."""
    ours = min((result for name, result in results.items() if is_ours(name)), key=lambda r: r.median, default=None)
    return [
        [r.name, f"{r.median:,.1f}", f"{r.spread:.0%}", "" if ours is None else f"{r.ratio(ours):.2f}"]
        for r in sorted(results.values(), key=lambda r: r.median)
    ]


def markdown(scenario: Scenario, results: dict[str, Result]) -> str:
    lines = [f"### {scenario.name}: {scenario.operation}", "", "| | ns | ± | x |", "|---|--:|--:|--:|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table(results)), ""])


def where() -> str:
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "with a GIL"
    python = f"{platform.python_implementation()} {platform.python_version()} {build}"
    return f"nexus_channels {__version__}, {python}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


class Bar:
    """A tqdm bar on standard error; none where that is no terminal or tqdm is not installed."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._wanted = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None

    def step(self, steps: int) -> None:
        if self._wanted and self._bar is None:
            self._bar = importlib.import_module("tqdm").tqdm(
                total=steps, desc="measuring", unit="round", leave=False, mininterval=0.2
            )
        if self._bar is not None:
            self._bar.update()

    def write(self, text: str) -> None:
        """Print above the bar."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def run(quick: bool = False, progress: Callable[[int], Any] | None = None) -> Iterator[str]:
    """Check and time everything that is short, and yield what is to be shown, a table a scenario.

    `progress` is told after each step how many there are altogether.
    """
    rounds, seconds = (7, 0.006) if quick else (31, 0.012)
    loops = asyncio.new_event_loop
    chosen = [SCENARIOS[name] for name in SHORT]
    steps = sum(len(s.entries(loops)) for s in chosen) * rounds
    step = partial(progress, steps) if progress is not None else lambda: None
    yield where()
    yield "Nanoseconds an operation, medians; x: how many times the time of the fastest of nexus_channels.\n"
    for scenario in chosen:
        names = list(scenario.entries(loops))
        for name in names:
            if name in CONTENDERS:  # else a floor that bench/ has added
                scenario.check(CONTENDERS[name], loops)
        results = measure(scenario, loops, names=names, rounds=rounds, seconds=seconds, progress=step)
        rows = [[f"{scenario.name}: {scenario.operation}", "ns", "±", "x"], *table(results)]
        yield "\n".join(f"{name:<48} {ns:>11} {spread:>5} {times:>8}" for name, ns, spread, times in rows) + "\n"
