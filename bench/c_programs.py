"""What a message between two processes costs where one of them, or both, is a program in C without Python.

    python bench/c_programs.py [--count N] [--size BYTES] [--rounds N]

Both block. Each round takes all four pairs in turn; what is printed is the median, in ns for each message, from the
first message to the last one.
"""

import argparse
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from time import perf_counter_ns as wall_ns

import nexus_channels
from nexus_channels import spsc_bytes

HERE = pathlib.Path(__file__).resolve().parent
CAPACITY = 1 << 17  # as c_programs.c
PAIRS = [("Python", "Python"), ("C", "Python"), ("Python", "C"), ("C", "C")]


def build(folder: pathlib.Path) -> str:
    include = pathlib.Path(nexus_channels.get_include())
    program = str(folder / "c_programs")
    command = [*shlex.split(sysconfig.get_config_var("CC") or "cc")[:1], "-std=c11", "-O2", "-pthread", f"-I{include}"]
    sources = [str(HERE / "c_programs.c"), str(include / "nexus_processes.c")]
    subprocess.run([*command, *sources, "-o", program], check=True)
    return program


def send_all(path: str, count: int, size: int) -> None:
    filler = bytes(size - 8)
    with spsc_bytes.connect(path) as tx:
        send = tx.send_blocking
        for n in range(count):
            send(n.to_bytes(8, "little") + filler)


def recv_all(path: str, count: int) -> None:
    with spsc_bytes.listen(path, CAPACITY) as listener:
        print("listening", flush=True)
        recv = listener.receiver.recv_bytes_blocking
        recv()
        began = wall_ns()
        for n in range(1, count):
            if int.from_bytes(recv()[:8], "little") != n:
                raise SystemExit("out of order")
        print(wall_ns() - began)


def ns_each(program: str, pair: tuple[str, str], count: int, size: int) -> float:
    command = {"C": [program], "Python": [sys.executable, "-P", __file__, "--as"]}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [os.path.join(folder, "feed"), str(count), str(size)]
        with subprocess.Popen([*command[pair[1]], "recv", *arguments], stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout is not None
            receiver.stdout.readline()
            subprocess.run([*command[pair[0]], "send", *arguments], check=True)
            return int(receiver.stdout.read()) / (count - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--as", nargs=4, dest="role", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        role, path, count, size = args.role
        if role == "send":
            send_all(path, int(count), int(size))
        else:
            recv_all(path, int(count))
        return
    with tempfile.TemporaryDirectory() as folder:
        program = build(pathlib.Path(folder))
        rounds = [[ns_each(program, pair, args.count, args.size) for pair in PAIRS] for _ in range(args.rounds)]
    for (sender, receiver), times in zip(PAIRS, zip(*rounds, strict=True), strict=True):
        print(f"{sender:>6} -> {receiver:6} {statistics.median(times):8.0f} ns   {min(times):.0f} .. {max(times):.0f}")


if __name__ == "__main__":
    main()
