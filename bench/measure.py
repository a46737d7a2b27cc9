"""Interleaved timing (from the package), and latency: how long each single round trip takes."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from scenarios import LoopFactory, Scenario

from nexus_channels._programs.bench.clock import Result, measure

__all__ = ["Latency", "Result", "latencies", "measure"]

QUANTILES = [i / 100 for i in range(0, 100, 2)] + [0.99, 0.995, 0.999, 0.9995, 1.0]  # what a plot is drawn from


class Stamped:
    """Items that note when they are asked for."""

    def __init__(self, item: Any, count: int) -> None:
        self.item = item
        self.stamps = array("q", bytes(8 * (count + 1)))

    def __len__(self) -> int:
        return len(self.stamps) - 1

    def __iter__(self) -> Iterator[Any]:
        stamps, item = self.stamps, self.item
        for i in range(len(self)):
            stamps[i] = perf_counter_ns()
            yield item
        stamps[-1] = perf_counter_ns()

    def lengths(self) -> list[int]:
        return [after - before for before, after in zip(self.stamps, self.stamps[1:], strict=False)]


@dataclass
class Latency:
    """Nanoseconds of every round trip, sorted."""

    name: str
    sorted: list[int]

    def at(self, quantile: float) -> int:
        """The smallest that so large a part of all is not longer than."""
        return self.sorted[max(0, math.ceil(quantile * len(self.sorted)) - 1)]


def latencies(
    scenario: Scenario,
    loops: LoopFactory,
    *,
    names: Iterable[str] | None = None,
    samples: int = 100_000,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, Latency]:
    """At least so many round trips of each entry, in ten turns each; those with which a turn begins are left out.

    A scenario may have a way of its own."""
    if scenario.latencies is not None:
        return {name: Latency(name, sorted(lengths)) for name, lengths in scenario.latencies(samples).items()}
    entries = scenario.entries(loops)
    if names is not None:
        entries = {name: entries[name] for name in names if name in entries}
    count = math.ceil(samples / 10)
    cold = max(2, count // 50)
    found: dict[str, list[int]] = {name: [] for name in entries}
    order = list(entries)
    for _ in range(10):
        for name in order:
            items = Stamped(scenario.items(name, 1)[0], count + cold)
            entries[name](items)
            found[name] += items.lengths()[cold:]
            progress()
        order = order[1:] + order[:1]
    return {name: Latency(name, sorted(lengths)) for name, lengths in found.items()}
