"""`python -m nexus_channels bench`: how fast the channels are here, beside the queues that are installed."""

import argparse
import asyncio
import importlib
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ... import __version__
from .clock import Result, measure
from .contenders import CONTENDERS, is_ours
from .scenarios import SCENARIOS, SHORT, Scenario

__all__ = ["Bar", "main", "markdown", "run"]


def main(options: argparse.Namespace) -> int:
    bar = Bar()
    try:
        for text in run(options.quick, bar.step):
            bar.write(text)
    finally:
        bar.close()
    return 0


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
