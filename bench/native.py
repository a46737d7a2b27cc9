"""What native threads gain: no wait for the GIL, and messages a task receives nearly as fast as `bytes` can be made.

    python bench/native.py latency
    python bench/native.py throughput

`latency`: while a Python thread runs bytecode and never lets go of the GIL of its own will, a native thread and then a
Python thread send a message every millisecond. Printed: how long after it was due the message was in the ring, and for
the native thread, what the call alone took.

`throughput`: 64-byte messages from a native thread into an asyncio task, received in batches as `bytes`; beside them,
ready-made objects through `queue.SimpleQueue` from a thread to a thread, and the making of such `bytes` alone, by
`struct`, a thousand a call. The three take turns, and the median of each counts.
"""

import argparse
import asyncio
import ctypes
import pathlib
import queue
import shlex
import statistics
import struct
import subprocess
import sysconfig
import tempfile
import threading
import time

import nexus_channels
from nexus_channels import spsc_bytes

HERE = pathlib.Path(__file__).resolve().parent
MESSAGE = 64
BATCH = 1000  # messages that the task takes at most at a time


def load(folder):
    """The native producer, built into `folder`."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    target = pathlib.Path(folder, "native_producer.so")
    flags = ["-std=c11", "-O2", "-shared", "-fPIC", "-pthread", f"-I{nexus_channels.get_include()}"]
    subprocess.run([*compiler, *flags, str(HERE / "native_producer.c"), "-o", str(target)], check=True)
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


def finish(lib, run):
    result = lib.run_finish(run)
    if result != 0:
        raise RuntimeError(f"the producer ended with nexus_result {result}")


# ---- latency ----------------------------------------------------------------------------------------------------


def quantiles(nanoseconds):
    ordered = sorted(nanoseconds)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000 for share in (0.5, 0.99, 0.999, 1)]


def native_latency(lib, count, every):
    tx, _rx = spsc_bytes.channel(2 * count * (MESSAGE + 8))
    late, took = (ctypes.c_int64 * count)(), (ctypes.c_int64 * count)()
    with tx.native() as end:
        finish(lib, lib.run_start(end.address, count, MESSAGE, 1, every, late, took))
    return list(late), list(took)


def python_latency(count, every):
    tx, _rx = spsc_bytes.channel(2 * count * (MESSAGE + 8))
    payload, late = bytes(MESSAGE), []
    due = time.monotonic_ns()
    for _ in range(count):
        due += every
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        tx.try_send(payload)
        late.append(time.monotonic_ns() - due)
        due = max(due, time.monotonic_ns())  # do not count one wait twice
    return late


def latency(lib, count=5000, every=1_000_000):
    """Rows of (who, [p50, p99, p99.9, max] in microseconds)."""
    stop = threading.Event()

    def burn():
        x = 0
        while not stop.is_set():
            for _ in range(10_000):
                x += 1

    burner = threading.Thread(target=burn)
    burner.start()
    try:
        late, took = native_latency(lib, count, every)
        from_python = python_latency(count // 5, every)
    finally:
        stop.set()
        burner.join()
    return [
        ("native thread: the call", quantiles(took)),
        ("native thread: due to sent", quantiles(late)),
        ("Python thread: due to sent", quantiles(from_python)),
    ]


# ---- throughput -------------------------------------------------------------------------------------------------


def native_to_task(lib, count):
    async def main():
        tx, rx = spsc_bytes.channel(1 << 20)
        with tx.native() as end:
            began = time.perf_counter()
            run = lib.run_start(end.address, count, MESSAGE, 64, 0, None, None)
            received = 0
            while received < count:
                batch = await rx.recv_many(BATCH)
                received += len(batch)
            took = time.perf_counter() - began
            finish(lib, run)
        assert int.from_bytes(batch[-1][:8], "little") == count - 1
        return took

    return asyncio.run(main()) / count


def simple_queue(count):
    objects = [bytes(MESSAGE)] * count
    channel = queue.SimpleQueue()

    def produce():
        put = channel.put
        for value in objects:
            put(value)

    producer = threading.Thread(target=produce)
    get = channel.get
    began = time.perf_counter()
    producer.start()
    for _ in range(count):
        get()
    took = time.perf_counter() - began
    producer.join()
    return took / count


def making_bytes(count):
    batch = struct.Struct(f"{MESSAGE}s" * BATCH)
    memory = bytearray(batch.size)
    began = time.perf_counter()
    for _ in range(count // BATCH):
        kept = batch.unpack(memory)  # kept until the next is there, as the task's are
    assert len(kept) == BATCH
    return (time.perf_counter() - began) / (count // BATCH * BATCH)


def throughput(lib, count=1_000_000, rounds=7):
    """Median seconds a message of: native to task, SimpleQueue, making bytes."""
    times = [(native_to_task(lib, count), simple_queue(count), making_bytes(count)) for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["latency", "throughput"])
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as folder:
        lib = load(folder)
        if what == "latency":
            print("| microseconds | p50 | p99 | p99.9 | max |\n|---|---:|---:|---:|---:|")
            for who, row in latency(lib):
                print(f"| {who} | " + " | ".join(f"{value:,.2f}" for value in row) + " |")
            return
        native, simple, making = throughput(lib)
        print("| 64-byte messages | ns each |\n|---|---:|")
        print(f"| native thread to task, recv_many({BATCH}) | {native * 1e9:.1f} |")
        print(f"| ready-made objects, queue.SimpleQueue | {simple * 1e9:.1f} |")
        print(f"| making the bytes alone | {making * 1e9:.1f} |")
        print(
            f"\n{simple / native:.2f} x the rate of SimpleQueue, {native / making:.2f} x the time of making the bytes"
        )


if __name__ == "__main__":
    main()
