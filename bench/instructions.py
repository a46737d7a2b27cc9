"""Instructions an operation, counted by valgrind's callgrind: `python bench/instructions.py SCENARIO [NAME]...`.

A count repeats to a per mille or so on whatever machine, however busy, which no time does; it tells nothing about cache
misses and system calls. Only what runs inside the scenario is counted, not the interpreter's start.
"""

import argparse
import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["available", "instructions"]

OTHERS = ("aiologic", "anyio", "culsans", "faster_fifo", "janus", "trio", "zmq", "tqdm")
FEW, MANY = 500, 4_500  # items: what does not grow with them falls out of the difference


def available() -> bool:
    return shutil.which("valgrind") is not None


def instructions(scenario: str, name: str) -> float:
    """Of one operation of that entry."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"),
            *("--collect-atstart=no", "--toggle-collect=counted_few", "--toggle-collect=counted_many"),
            *(sys.executable, __file__, "--one", scenario, name),
        ]
        env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        few, many = (inclusive(out.read_text(), function) for function in ("counted_few", "counted_many"))
    return (many - few) / (MANY - FEW)


def inclusive(profile: str, function: str) -> int:
    """What all calls of it cost, with what they called. (A call is noted as its target, `calls=`, then a cost line.)"""
    number = re.search(rf"^c?fn=\((\d+)\) {function}$", profile, re.MULTILINE)
    assert number is not None, f"{function} was not called"
    calls = re.findall(rf"^cfn=\({number[1]}\).*\ncalls=.*\n\S+ (\d+)$", profile, re.MULTILINE)
    return sum(map(int, calls))


def run_one(scenario: str, name: str) -> None:
    """Warm up, then run inside the functions that callgrind counts in."""
    for package in OTHERS:
        if package not in name.replace("-", "_"):
            sys.modules[package] = None  # type: ignore[assignment]  # as if it were not installed: imports take long
    import floors
    from scenarios import SCENARIOS

    its = SCENARIOS[scenario]
    entry = its.entries(asyncio.new_event_loop)[name]
    few, many = its.items(name, FEW), its.items(name, MANY)
    entry(few)
    gc.collect()
    gc.freeze()
    gc.collect = int  # type: ignore[assignment]  # what comes before each run is not of it
    floors.noop.counted_few(lambda: entry(few))
    floors.noop.counted_many(lambda: entry(many))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("names", metavar="NAME", nargs="*", help="all that take part, if left out")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.scenario, *options.names)
        return
    from scenarios import SCENARIOS

    names = options.names or list(SCENARIOS[options.scenario].entries(asyncio.new_event_loop))
    print("| | instructions |\n|---|--:|")
    for name in names:
        print(f"| {name} | {instructions(options.scenario, name):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
