"""Native to native, end to end: `nexus_send` to `nexus_recv` beside the bare ring with the same orders.

    python bench/native_pair.py [--rounds N] [--messages N]

Two C threads, a core each, messages of 64 bytes, one a call. The ends wait as they do for anybody; the bare ring spins.
Rounds are interleaved; told are the medians in nanoseconds a message, and the median of each round's ratio.
"""

import argparse
import ctypes
import shlex
import statistics
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import nexus_channels
from nexus_channels import mpsc_bytes, spsc_bytes

HERE = Path(__file__).resolve().parent
SIZE = 64
CAPACITY = 1 << 16


def build() -> Any:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    folder = tempfile.TemporaryDirectory()
    library = Path(folder.name) / "native_pair.so"
    includes = [f"-I{nexus_channels.get_include()}", f"-I{HERE.parent / 'csrc'}"]
    command = [*compiler, "-O2", "-std=c11", "-shared", "-fPIC", *includes, str(HERE / "native_pair.c"), "-pthread"]
    subprocess.run([*command, "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    folder.cleanup()  # it is loaded
    found.pair_by_ends.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t]
    found.pair_by_ring.argtypes = [ctypes.c_uint64, ctypes.c_int, ctypes.c_uint64, ctypes.c_size_t]
    found.pair_by_ends.restype = found.pair_by_ring.restype = ctypes.c_int64
    return found


def by_ends(library: Any, module: Any, messages: int) -> float:
    tx, rx = module.channel(CAPACITY)
    with tx.native() as sender, rx.native() as receiver:
        took = library.pair_by_ends(sender.address, receiver.address, messages, SIZE)
    tx.close()
    rx.close()
    return checked(took) / messages


def checked(took: int) -> int:
    if took < 0:
        raise SystemExit("native_pair: messages were lost")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description="native to native, beside the bare ring")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--messages", type=int, default=200_000)
    options = parser.parse_args()
    library = build()
    print(f"{SIZE} bytes a message, {options.rounds} rounds of {options.messages}\n")
    print("| | by the ends, ns | bare ring, ns | ring by ends |\n|---|---:|---:|---:|")
    for module, many in ((spsc_bytes, 0), (mpsc_bytes, 1)):
        rows = []
        for _ in range(options.rounds):
            ends = by_ends(library, module, options.messages)
            ring = checked(library.pair_by_ring(CAPACITY, many, options.messages, SIZE)) / options.messages
            rows.append((ends, ring, ring / ends))
        ends, ring, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {module.__name__.rpartition('.')[2]} | {ends:.1f} | {ring:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
