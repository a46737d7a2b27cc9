"""Ticks from native threads, which never take the GIL, into an asyncio task, and from Python threads beside them.

Each producer stamps its ticks 0, 1, 2 ...; the task checks that none is lost or out of order, and says how long they
took. The producers are `producer.c`, `producer.cpp` and `producer.pyx` beside this file, built here into a temporary
folder: that takes a C or C++ compiler, and for the last one `pip install 'nexus_channels[native]'`.

    python examples/native/ticks.py c
    python examples/native/ticks.py c++ --ticks 1000000
    python examples/native/ticks.py cython
    python examples/native/ticks.py c --native 2 --python 2
"""

import argparse
import asyncio
import ctypes
import importlib.util
import pathlib
import shlex
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable

import nexus_channels
from nexus_channels import mpsc_bytes

HERE = pathlib.Path(__file__).resolve().parent
TICK = struct.Struct("<IIQqd")  # tick.h: source, unused, number, nanoseconds, price

# Runs a native thread to its end, without the GIL: (address, source, count) -> nexus_result
Feed = Callable[[int, int, int], int]


def compile_shared(language: str, source: pathlib.Path, target: pathlib.Path) -> None:
    compiler = {"c": ("CC", "cc", "-std=c11"), "c++": ("CXX", "c++", "-std=c++17")}[language]
    name, fallback, standard = compiler
    command = shlex.split(sysconfig.get_config_var(name) or fallback)[:1]
    folders = [nexus_channels.get_include(), str(HERE), sysconfig.get_path("include")]
    flags = [standard, "-O2", "-shared", "-fPIC", "-pthread", *(f"-I{folder}" for folder in folders)]
    subprocess.run([*command, *flags, str(source), "-o", str(target)], check=True)


def build(language: str, folder: pathlib.Path) -> Feed:
    if language == "cython":
        return build_cython(folder)
    compile_shared(language, HERE / {"c": "producer.c", "c++": "producer.cpp"}[language], folder / "producer.so")
    library = ctypes.CDLL(str(folder / "producer.so"))  # ctypes lets go of the GIL while a function runs
    library.feed_start.restype = ctypes.c_void_p
    library.feed_start.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64]
    library.feed_finish.argtypes = [ctypes.c_void_p]

    def feed(address: int, source: int, count: int) -> int:
        thread = library.feed_start(address, source, count)
        if thread is None:
            raise RuntimeError("the native thread cannot be started")
        return int(library.feed_finish(thread))

    return feed


def build_cython(folder: pathlib.Path) -> Feed:
    source = folder / "producer.c"
    subprocess.run([sys.executable, "-m", "cython", str(HERE / "producer.pyx"), "-o", str(source)], check=True)
    target = folder / f"producer{sysconfig.get_config_var('EXT_SUFFIX')}"
    compile_shared("c", source, target)
    spec = importlib.util.spec_from_file_location("producer", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    feed: Feed = module.feed
    return feed


async def produce_natively(feed: Feed, end: nexus_channels.mpsc_bytes.NativeSender, source: int, count: int) -> None:
    with end:  # closed when the thread is done: that is how the receiver learns of the end
        # A task that is cancelled here drops `end`, but the thread may not have attached yet: the lambda keeps `end`.
        result = await asyncio.to_thread(lambda: feed(end.address, source, count))
        if result != 0:
            raise RuntimeError(f"the producer ended with nexus_result {result}")


def produce_in_python(tx: mpsc_bytes.Sender, source: int, count: int) -> None:
    with tx:
        for number in range(count):
            tx.send_blocking(TICK.pack(source, 0, number, time.monotonic_ns(), 100 + number % 64 / 64))


async def consume(rx: mpsc_bytes.Receiver, sources: int) -> list[int]:
    """How many ticks came from each source; raises if one is missing or out of order."""
    due = [0] * sources
    while True:
        try:
            ticks = await rx.recv_many(1000)
        except nexus_channels.RecvError:  # every producer has closed its end
            return due
        for source, _, number, _, _ in map(TICK.unpack, ticks):
            if number != due[source]:
                raise RuntimeError(f"tick {number} of source {source} where {due[source]} was due")
            due[source] += 1


async def run(feed: Feed, native: int, python: int, count: int) -> list[int]:
    tx, rx = mpsc_bytes.channel(1 << 20)
    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume(rx, native + python))
        for source in range(native):
            group.create_task(produce_natively(feed, tx.native(), source, count))
        for source in range(native, native + python):
            group.create_task(asyncio.to_thread(produce_in_python, tx.clone(), source, count))
        tx.close()
    return consumer.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=["c", "c++", "cython"])
    parser.add_argument("--ticks", type=int, default=200_000, help="of each producer")
    parser.add_argument("--native", type=int, default=1, help="native producers")
    parser.add_argument("--python", type=int, default=0, help="producers that are Python threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        feed = build(options.language, pathlib.Path(folder))
        began = time.perf_counter()
        received = asyncio.run(run(feed, options.native, options.python, options.ticks))
        seconds = time.perf_counter() - began
    print(f"{sum(received):,} ticks from {len(received)} producers, in order, {sum(received) / seconds:,.0f} a second")


if __name__ == "__main__":
    main()
