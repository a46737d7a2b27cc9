"""What our own cost as ratios to a floor or to a neighbour that does not change: `python bench/baseline.py` writes them
down for this version of Python, test_bench.py fails when one grows by a quarter.

Ratios of instructions where one thread does all: callgrind counts them the same on any machine, however busy. Paired
ratios of time where there are two threads, whose hand-overs no count of instructions shows, or without valgrind.
"""

import asyncio
import json
import sys
from pathlib import Path

import floors
import instructions
from bars import python_here
from measure import measure
from scenarios import SCENARIOS

__all__ = ["BASELINE", "PAIRS", "kind", "known", "ratio"]

BASELINE = Path(__file__).with_name("baseline.json")

PAIRS = {
    "try_pair": ("nexus_channels.spsc", "two no-op C methods"),
    "await_ready": ("nexus_channels.spsc", "two no-op C awaitables"),
    "pingpong_loop": ("nexus_channels.spsc", "bare futures"),
    "pipeline_64": ("nexus_channels.spsc", "asyncio.Queue"),
    "batch": ("nexus_channels.mpsc", "nexus_channels.mpsc, one by one"),
    "thread_to_thread": ("nexus_channels.spsc", "queue.SimpleQueue"),
    "thread_to_loop": ("nexus_channels.mpsc", "a deque behind an async recv()"),
}


def kind(scenario: str) -> str:
    """What its ratio is one of: "instructions" or "time"."""
    counted = instructions.available() and floors.noop is not None and not SCENARIOS[scenario].threads
    return "instructions" if counted else "time"


def ratio(scenario: str) -> float:
    ours, other = PAIRS[scenario]
    if kind(scenario) == "instructions":
        return instructions.instructions(scenario, ours) / instructions.instructions(scenario, other)
    results = measure(SCENARIOS[scenario], asyncio.new_event_loop, names=[ours, other], rounds=41, seconds=0.01)
    return results[ours].ratio(results[other])


def known(scenario: str) -> float | None:
    """The ratio that was written down for this Python."""
    every = json.loads(BASELINE.read_text())
    found = every.get(python_here(), {}).get(kind(scenario), {}).get(scenario)
    return None if found is None else float(found)


def main() -> None:
    """All by time, too, for machines that cannot count."""
    every = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    here = every.setdefault(python_here(), {"instructions": {}, "time": {}})
    for scenario, (ours, other) in PAIRS.items():
        results = measure(SCENARIOS[scenario], asyncio.new_event_loop, names=[ours, other], rounds=41, seconds=0.01)
        here["time"][scenario] = round(results[ours].ratio(results[other]), 3)
        if kind(scenario) == "instructions":
            here["instructions"][scenario] = round(ratio(scenario), 3)
        print(scenario, {how: found[scenario] for how, found in here.items() if scenario in found}, flush=True)
    BASELINE.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
