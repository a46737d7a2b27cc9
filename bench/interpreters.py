"""From one interpreter to another, each with its own GIL: `interpreters_stream` and `interpreters_pingpong`.

Messages are 64 bytes. Beside ours is `concurrent.interpreters.Queue`, which came with Python 3.14, and a pipe by hand.
When all items of a stream have arrived, the other interpreter says so through a pipe, whoever takes part; then it sends
them back, which is not timed: so their order is checked as in all scenarios.

There is one other interpreter, made when the first of these scenarios runs. Its setting up is not timed.
"""

import atexit
import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns as wall_ns
from typing import Any

from bars import Bar

from nexus_channels import Ticket, mpsc_bytes, spsc_bytes
from nexus_channels._programs.bench.contenders import MISSING, Ends, contender
from nexus_channels._programs.bench.scenarios import ITEM, ROUND_TRIP, Items, LoopFactory, New, scenario
from nexus_channels._programs.bench.threads import spawn

__all__ = ["BARS"]

MESSAGE = 64
ROOM = 1024  # messages, for those who count in bytes
RECORD = MESSAGE + 8


def encode(item: int | None) -> bytes:
    return (item or 0).to_bytes(MESSAGE, "big")


def decode(data: bytes) -> int:
    return int.from_bytes(data, "big")


@dataclass
class Across(Ends):
    """Our ends, and how the other interpreter comes by its own."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])  # what it is given, by name
    source: str = ""  # makes send() and recv() of these, there


# ---- contenders ----------------------------------------------------------------------------------------------------

CAN = "send_blocking recv_blocking values source"
QUEUE = "concurrent.interpreters.Queue"
OURS = tuple(f"{variant.__name__}, two interpreters" for variant in (spsc_bytes, mpsc_bytes))
more: dict[str, Any] = {"encode": encode, "decode": decode, "family": "interpreters"}

try:
    interpreters: Any = importlib.import_module("concurrent.interpreters")
except ImportError:
    interpreters = None
    MISSING["concurrent.interpreters"] = "new in Python 3.14"


def two_channels(variant: Any, capacity: int) -> tuple[Any, Any]:
    """There and back."""
    room = min(capacity, ROOM) * RECORD
    return variant.channel(room), variant.channel(room)


def ours(channels: tuple[Any, Any]) -> Across:
    (tx, there), (back, rx) = channels
    return Across(
        send_blocking=tx.send_blocking,
        recv_blocking=rx.recv_bytes_blocking,
        values={"there": there.share(), "back": back.share()},
        source="""
from nexus_channels import attach
rx, tx = attach(there), attach(back)
send, recv = tx.send_blocking, rx.recv_bytes_blocking
""",
    )


def two_queues(capacity: int) -> tuple[Any, Any]:
    return interpreters.create_queue(capacity), interpreters.create_queue(capacity)


def queues(both: tuple[Any, Any]) -> Across:
    there, back = both
    return Across(
        send_blocking=there.put,
        recv_blocking=back.get,
        values={"there": there, "back": back},
        source="send, recv = back.put, there.get",
    )


def two_pipes(_: int) -> tuple[int, int, int, int]:
    return (*os.pipe(), *os.pipe())


def pipes(fds: tuple[int, int, int, int]) -> Across:
    read_there, write_there, read_back, write_back = fds
    return Across(
        send_blocking=partial(os.write, write_there),
        recv_blocking=partial(os.read, read_back, MESSAGE),
        values={"there": read_there, "back": write_back},
        source=f"""
from functools import partial
send, recv = partial(os.write, back), partial(os.read, there, {MESSAGE})
""",
    )


def close_pipes(fds: tuple[int, int, int, int]) -> None:
    for fd in fds:
        os.close(fd)


if interpreters is not None:
    for name, variant in zip(OURS, (spsc_bytes, mpsc_bytes), strict=True):
        contender(name, "nexus_channels", CAN, partial(two_channels, variant), **more)(ours)
    contender(QUEUE, "", CAN, two_queues, **more)(queues)
    contender("os.pipe, by hand", "", CAN, two_pipes, close_pipes, **more)(pipes)


# ---- the other interpreter -------------------------------------------------------------------------------------------

STREAM = """
import os
os.write(told, b'x')
items = [recv() for _ in range(count)]
os.write(told, b'x')
for item in items:
    send(item)
"""
ECHO = """
import os
os.write(told, b'x')
for _ in range(count):
    send(recv())
"""
LET_GO = "rx = tx = send = recv = there = back = items = item = None"


@functools.cache
def other() -> Any:
    new = interpreters.create()
    atexit.register(close_other)
    return new


def close_other() -> None:
    """The next that asks gets a new one. CPython 3.13 and 3.14 cannot fork while there are several."""
    if other.cache_info().currsize:
        other().close()
        other.cache_clear()


def run_there(ends: Across, source: str, count: int, told: int) -> None:
    values = {name: bytes(v) if isinstance(v, Ticket) else v for name, v in ends.values.items()}
    try:
        other().prepare_main(told=told, count=count, **values)
        other().exec(f"{ends.source}\n{source}\n{LET_GO}")
    finally:
        os.close(told)  # if it failed, nobody waits for it


def beside(new: New, items: Items, source: str, here: Callable[[Any, Callable[[], Any]], int]) -> int:
    """Run `here(ends, wait)` while the other interpreter runs `source`; `wait()` until it says something."""
    ends: Any = new()
    hears, told = os.pipe()
    thread = spawn(run_there, ends, source, len(items), told)
    with os.fdopen(hears, "rb", buffering=0) as heard:
        if heard.read(1):  # it is set up
            elapsed = here(ends, partial(heard.read, 1))
        thread.join()
    return elapsed


# ---- scenarios -------------------------------------------------------------------------------------------------------


def stream(new: New, items: Items, _: LoopFactory) -> int:
    def here(ends: Across, wait: Callable[[], Any]) -> int:
        send = ends.send_blocking
        began = wall_ns()
        for item in items:
            send(item)
        wait()
        elapsed = wall_ns() - began
        for _ in range(len(items)):
            ends.recv_blocking()
        return elapsed

    return beside(new, items, STREAM, here)


def pingpong(new: New, items: Items, _: LoopFactory) -> int:
    def here(ends: Across, _: Callable[[], Any]) -> int:
        send, recv = ends.send_blocking, ends.recv_blocking
        began = wall_ns()
        for item in items:
            send(item)
            recv()
        return wall_ns() - began

    return beside(new, items, ECHO, here)


both: dict[str, Any] = {"threads": True, "family": "interpreters"}
scenario("interpreters_stream", ITEM, stream, *CAN.split(), **both)
scenario("interpreters_pingpong", ROUND_TRIP, pingpong, *CAN.split(), capacity=1, **both)

BARS = [
    Bar("interpreters_stream", QUEUE, 1 / 10, OURS, python="3.14"),
    Bar("interpreters_pingpong", QUEUE, 1 / 100, OURS, python="3.14"),
]
