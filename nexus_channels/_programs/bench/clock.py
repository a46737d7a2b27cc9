"""Times the entries of a scenario, in many short rounds that take turns."""

import gc
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .scenarios import Items, LoopFactory, Scenario

__all__ = ["Entry", "Result", "measure"]

Entry = Callable[[Items], int]


@dataclass
class Result:
    """Nanoseconds an operation, one number a round; the rounds of all entries of a scenario belong together."""

    scenario: str
    name: str
    samples: list[float]
    items: int

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def ratio(self, other: "Result") -> float:
        """How many times the other's time; the median over the rounds, so that drift cancels out."""
        return statistics.median(a / b for a, b in zip(self.samples, other.samples, strict=True))


def measure(
    scenario: Scenario,
    loops: LoopFactory,
    *,
    names: Iterable[str] | None = None,
    rounds: int = 41,
    seconds: float = 0.02,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, Result]:
    """Time the scenario's entries, or those of the given names, each for about `seconds` a round.

    Many short rounds are better than few long ones: two entries that are compared ran at nearly the same time.
    """
    entries = scenario.entries(loops)
    if names is not None:
        entries = {name: entries[name] for name in names if name in entries}
    counts = {name: _count(scenario, name, entry, seconds) for name, entry in entries.items()}
    results = {name: Result(scenario.name, name, [], counts[name]) for name in entries}
    freeze = gc.get_freeze_count() == 0
    if freeze:
        gc.collect()
        gc.freeze()  # what was there before is not looked at in every collection that comes
    order = list(entries)
    for _ in range(rounds):
        for name in order:
            items = scenario.items(name, counts[name])
            results[name].samples.append(entries[name](items) / len(items))
            progress()
        order = order[1:] + order[:1]  # nobody always comes after the same one
    if freeze:
        gc.unfreeze()
    return results


def _count(scenario: Scenario, name: str, entry: Entry, seconds: float) -> int:
    """As many items as take about so long; enough of them to fill the channel several times."""
    if scenario.fixed is not None:
        return scenario.fixed
    least = max(64, 4 * scenario.capacity if scenario.threads else 0)
    count = least
    while True:
        elapsed = min(entry(scenario.items(name, count)) for _ in range(2)) / 1e9  # the first run is also a warm-up
        if elapsed > seconds / 8 or count >= 1 << 22:
            return max(least, int(count * seconds / max(elapsed, 1e-9)))
        count *= 4
