"""What native threads gain: no wait for the GIL, and messages that a task receives nearly as fast as `bytes` are made.

`native_to_loop`: 64-byte messages from a C thread into an asyncio task, 64 a commit, received in batches as `bytes`.
Beside them, as floors, ready-made objects through `queue.SimpleQueue` from a thread to a thread, and the making of such
`bytes` alone, by `struct`, as many a call as the task asks for.

`native_beside_bytecode`: while a Python thread runs bytecode and never lets go of the GIL of its own will, a C thread
and then a Python thread send a message now and then into a ring with room. Noted is how long after it was due the
message was in the ring, and of the C thread, how long the call alone took.
"""

import atexit
import ctypes
import functools
import queue
import shlex
import shutil
import struct
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns as wall_ns
from typing import Any

from bars import WHY, Bar
from threads import burning

import nexus_channels
from nexus_channels import mpsc_bytes, spsc_bytes
from nexus_channels._programs.bench.contenders import Ends, contender
from nexus_channels._programs.bench.scenarios import (
    SCENARIOS,
    Items,
    LoopFactory,
    New,
    Scenario,
    Start,
    on_loop,
    scenario,
)
from nexus_channels._programs.bench.threads import line_up

__all__ = ["BARS", "load"]

HERE = Path(__file__).resolve().parent
MESSAGE = 64
RECORD = MESSAGE + 8
AT_ONCE = 64  # messages that the C thread commits together
BATCH = 1000  # that the task takes at most at a time


@functools.cache
def load() -> Any:
    """The native producer, built; None without a compiler."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = Path(folder, "native_producer.so")
    flags = ["-std=c11", "-O2", "-shared", "-fPIC", "-pthread", f"-I{nexus_channels.get_include()}"]
    command = [*compiler, *flags, str(HERE / "native_producer.c"), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    lib = ctypes.CDLL(str(target))
    numbers = ctypes.POINTER(ctypes.c_int64)
    lib.run_start.restype = ctypes.c_void_p
    lib.run_start.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_int64,
        numbers,
        numbers,
    ]
    lib.run_finish.argtypes = [ctypes.c_void_p]
    return lib


def finish(run: Any) -> None:
    result = load().run_finish(run)
    if result != 0:
        raise RuntimeError(f"the producer ended with nexus_result {result}")


# ---- into a task ---------------------------------------------------------------------------------------------------


@dataclass
class NativeEnds(Ends):
    native: Any = None  # makes an end for a native sender: () -> end


def native_ends(pair: Any) -> NativeEnds:
    tx, rx = pair
    return NativeEnds(native=tx.native, recv_many=rx.recv_many)


def number_of(message: bytes) -> int:
    assert message[8:] == bytes(MESSAGE - 8)
    return int.from_bytes(message[:8], "little")


def for_messages(open_channel: Callable[[int], Any]) -> Callable[[int], Any]:
    return lambda messages: open_channel(messages * RECORD)


OURS = []
for variant in (spsc_bytes, mpsc_bytes):
    OURS.append(f"{variant.__name__}, C thread")
    can = "native recv_many"
    new = for_messages(variant.channel)
    contender(OURS[-1], "nexus_channels", can, new, decode=number_of, family="native")(native_ends)


def native_to_loop(new: New, items: Items, loops: LoopFactory) -> int:
    async def main(_: Start) -> int:
        ends: Any = new()
        left, recv_many = len(items), ends.recv_many
        with ends.native() as end:
            began = wall_ns()
            run = load().run_start(end.address, left, MESSAGE, AT_ONCE, 0, None, None)
            while left:
                left -= len(await recv_many(BATCH))
            elapsed = wall_ns() - began
            finish(run)
        return elapsed

    return on_loop(main, loops)


def ready_made_objects(items: Items, _: LoopFactory) -> int:
    """From a thread to a thread."""
    objects = [bytes(MESSAGE)] * len(items)
    channel: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def produce() -> None:
        put = channel.put
        for value in objects:
            put(value)

    (thread,), go = line_up((produce,))
    get = channel.get
    began = wall_ns()
    go()
    for _ in objects:
        get()
    elapsed = wall_ns() - began
    thread.join()
    return elapsed


def making_bytes(items: Items, _: LoopFactory) -> int:
    """Each batch is kept until the next is there, as the task's are."""
    memory = bytearray(MESSAGE * BATCH)
    sizes = [min(BATCH, len(items) - i) for i in range(0, len(items), BATCH)]
    unpackers = [struct.Struct(f"{MESSAGE}s" * size).unpack_from for size in dict.fromkeys(sizes)]
    whole, rest = unpackers[0], unpackers[-1]
    began = wall_ns()
    for _size in sizes[1:]:
        kept = whole(memory)
    kept = rest(memory)
    elapsed = wall_ns() - began
    assert len(kept) == sizes[-1]
    return elapsed


SIMPLE, MAKING = "ready-made objects, queue.SimpleQueue", f"making the bytes, {BATCH:,} a call"

if load() is not None:
    scenario(
        "native_to_loop",
        "one 64-byte message sent and received",
        native_to_loop,
        *("native", "recv_many"),
        capacity=8192,
        threads=True,
        family="native",
        floors={SIMPLE: ready_made_objects, MAKING: making_bytes},
    )

# ---- beside a thread that runs bytecode ----------------------------------------------------------------------------


def late_from_c(count: int, every: int) -> tuple[list[int], list[int]]:
    """One message each `every` nanoseconds: how late each was, and how long its call took."""
    tx, _rx = spsc_bytes.channel(2 * count * RECORD)
    late, took = (ctypes.c_int64 * count)(), (ctypes.c_int64 * count)()
    with tx.native() as end:
        finish(load().run_start(end.address, count, MESSAGE, 1, every, late, took))
    return list(late), list(took)


def late_from_python(count: int, every: int) -> list[int]:
    tx, _rx = spsc_bytes.channel(2 * count * RECORD)
    payload, late = bytes(MESSAGE), []
    due = time.monotonic_ns()
    for _ in range(count):
        due += every
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        tx.try_send(payload)
        late.append(time.monotonic_ns() - due)
        due = max(due, time.monotonic_ns())  # do not count one wait twice
    return late


def late_beside_bytecode(samples: int, progress: Callable[[], Any] = lambda: None) -> dict[str, list[int]]:
    """A Python thread gets the GIL back after 5 ms only: of its messages there are fewer."""
    with burning(True):
        late, took = late_from_c(samples, 100_000)
        progress()
        from_python = late_from_python(max(100, samples // 50), 1_000_000)
        progress()
    return {
        "nexus_channels, C thread: due to sent": late,
        "nexus_channels, C thread: the call": took,
        "nexus_channels, Python thread: due to sent": from_python,
    }


if load() is not None:
    SCENARIOS["native_beside_bytecode"] = Scenario(
        "native_beside_bytecode",
        "one message sent when it is due",
        lambda *_: 0,
        ("native",),
        family="no contender",
        threads=True,
        latencies=late_beside_bytecode,
    )

BARS = [
    Bar("native_to_loop", SIMPLE, 1 / 1.5, tuple(OURS)),
    Bar("native_to_loop", MAKING, 1.6, tuple(OURS)),
    *(
        Bar(
            "native_beside_bytecode",
            "nexus_channels, Python thread: due to sent",
            0.1,
            ("nexus_channels, C thread: the call",),
            what=what,
        )
        for what in ("p50", "p99")
    ),
]

WHY["native_to_loop", MAKING] = (
    "making them is nothing but a thousand objects out of 64 KB that stay in the cache. With all messages "
    "already in the ring and one thread alone, taking them in such batches needs one and a half times as long "
    "(`bytes_64_receive` has it for batches of 64); the rest is that each message is in another core's cache."
)
