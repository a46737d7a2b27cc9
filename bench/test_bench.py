"""The short benchmarks, as tables of pytest-benchmark, and against a baseline: `pytest bench`, in two or three minutes.

All entries of a scenario are timed together, a round of each in turn; the tables replay those rounds.
"""

import asyncio
import functools

import baseline
import pytest
from contenders import CONTENDERS
from measure import measure
from scenarios import SCENARIOS

import nexus_channels

SHORT = ["try_pair", "await_ready", "pingpong_loop", "thread_to_loop", "thread_to_thread"]
ALLOWED = 1.25
BUILD = nexus_channels._core.build_info()
OPTIMIZED = not BUILD["debug"] and not BUILD["sanitizer"]


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


@pytest.mark.skipif(not OPTIMIZED, reason="the speed of a build for debugging says nothing")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", baseline.PAIRS)
def test_no_ratio_to_a_floor_has_grown_by_a_quarter(benchmark, scenario):
    """Counted instructions repeat; of times, the best of five tries is taken."""
    before = baseline.known(scenario)
    if before is None:
        pytest.skip("no baseline for this version of Python")
    tries = 1 if baseline.kind(scenario) == "instructions" else 5
    found = []

    def measured_once():
        found.append(baseline.ratio(scenario))

    while len(found) < tries and (not found or min(found) > before * ALLOWED):
        if found:
            measured_once()
        else:
            benchmark.pedantic(measured_once, rounds=1)
    benchmark.extra_info.update(ratio=round(min(found), 3), baseline=before, kind=baseline.kind(scenario))
    assert min(found) <= before * ALLOWED, f"{scenario}: {found} times {baseline.PAIRS[scenario][1]}, was {before}"
