"""The short benchmarks, as tables of pytest-benchmark, and the bars: `pytest bench`, in about a minute.

All entries of a scenario are timed together, a round of each in turn; the tables replay those rounds. A bar is missed
only if it is missed three times in a row, and by more than the margin that a busy machine is allowed.
"""

import asyncio
import functools

import pytest
from bars import BARS
from contenders import CONTENDERS
from measure import measure
from scenarios import SCENARIOS

SHORT = ["try_pair", "await_ready", "pingpong_loop", "thread_to_loop"]
ATTEMPTS = 3
MARGIN = {False: 1.15, True: 1.5}  # is there more than one thread?


class ReplayClock:
    """Shows the seconds that an operation took, round after round."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def replay(self, samples):
        rounds = iter(samples)

        def one_round():
            self.now += next(rounds) / 1e9

        return one_round


clock = ReplayClock()


@functools.cache
def measured(name):
    return measure(SCENARIOS[name], asyncio.new_event_loop, rounds=21, seconds=0.01)


def entries():
    return [
        pytest.param(
            name, entry, marks=pytest.mark.benchmark(timer=clock, group=f"{name}: {SCENARIOS[name].operation}")
        )
        for name in SHORT
        for entry in SCENARIOS[name].entries(asyncio.new_event_loop)
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("scenario", "entry"), entries())
def test_table(benchmark, scenario, entry):
    if entry in CONTENDERS:
        SCENARIOS[scenario].check(CONTENDERS[entry], asyncio.new_event_loop)
    result = measured(scenario)[entry]
    benchmark.extra_info["items a round"] = result.items
    benchmark.pedantic(clock.replay(result.samples), rounds=len(result.samples), iterations=1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bar", BARS, ids=lambda bar: f"{bar.scenario}, {bar}")
def test_bar(bar):
    if not bar.applies:
        pytest.skip("set on another version of Python")
    scenario = SCENARIOS[bar.scenario]
    if bar.other not in scenario.entries(asyncio.new_event_loop):
        pytest.skip(f"{bar.other} is not installed")
    best = dict.fromkeys(bar.ours, float("inf"))
    for _ in range(ATTEMPTS):
        results = measure(scenario, asyncio.new_event_loop, names=[*best, bar.other], rounds=31, seconds=0.005)
        best = {name: min(ratio, results[name].ratio(results[bar.other])) for name, ratio in best.items()}
        if max(best.values()) <= bar.limit:
            break
    print({name: round(ratio, 3) for name, ratio in best.items()})
    assert max(best.values()) <= bar.limit * MARGIN[bar.threads], (str(bar), best)
