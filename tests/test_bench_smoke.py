"""The benchmarks in miniature: every scenario does what it says, and no ratio is far from where it should be."""

import asyncio
import functools
import json
import pathlib
import sys

import pytest
from harness import SLOWNESS

BENCH = pathlib.Path(__file__).parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("the tests lie beside no source tree", allow_module_level=True)
sys.path.insert(0, str(BENCH))

import memory  # noqa: E402 - found by the line before
import run as runner  # noqa: E402
from bars import BARS  # noqa: E402
from contenders import CONTENDERS, NEXUS  # noqa: E402
from measure import Result, measure  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

import nexus_channels  # noqa: E402

OPTIMIZED = not nexus_channels._core.build_info()["debug"] and not nexus_channels._core.build_info()["sanitizer"]
FAR = {False: 2.0, True: 4.0}  # more than so many times what is promised is no noise; are there threads?

pytestmark = [pytest.mark.timeout(60 * SLOWNESS), pytest.mark.watchdog(60 * SLOWNESS)]


def taking_part():
    return [
        pytest.param(scenario, contender, id=f"{scenario.name}-{contender.name}")
        for scenario in SCENARIOS.values()
        for contender in CONTENDERS.values()
        if scenario.takes(contender)
    ]


@pytest.mark.parametrize(("scenario", "contender"), taking_part())
def test_every_item_comes_out_of_every_contender_once_and_in_order(scenario, contender, loop_factory):
    scenario.check(contender, loop_factory, count=20)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_every_floor_comes_to_its_end(scenario, loop_factory):
    entries = scenario.entries(loop_factory)
    assert all(entries[floor]([None] * 20) > 0 for floor in scenario.floors)


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=list(CONTENDERS))
def test_a_contender_can_do_what_it_says_and_no_more(contender):
    async def main():
        channel = contender.new(2)
        verbs = contender.ends(channel).verbs()
        if contender.close is not None:
            contender.close(channel)
        return verbs

    assert asyncio.run(main()) == contender.can - {"two_loops"}


def losing(receive):
    """The receiver of a channel that repeats its first item."""

    @functools.cache
    def broken():
        return receive()

    return broken


def test_the_check_finds_a_channel_that_gives_an_item_twice():
    deque = CONTENDERS["collections.deque"]

    def ends(channel):
        good = deque.ends(channel)
        return type(good)(try_send=good.try_send, try_recv=losing(good.try_recv))

    with pytest.raises(AssertionError):
        SCENARIOS["try_pair"].check(deque._replace(ends=ends), asyncio.new_event_loop)


def test_ratios_are_taken_round_by_round():
    slow_then_fast = Result("s", "a", [20.0, 2.0, 2.0, 20.0], 1)
    other = Result("s", "b", [10.0, 1.0, 1.0, 10.0], 1)
    assert slow_then_fast.ratio(other) == 2
    assert slow_then_fast.median == 11


@pytest.mark.skipif(not OPTIMIZED, reason="the speed of a build for debugging says nothing")
@pytest.mark.parametrize("bar", BARS, ids=lambda bar: f"{bar.scenario}, {bar}")
def test_no_ratio_is_far_from_its_bar(bar):
    if not bar.applies:
        pytest.skip("set on another version of Python")
    scenario = SCENARIOS[bar.scenario]
    if bar.other not in scenario.entries(asyncio.new_event_loop):
        pytest.skip(f"{bar.other} is not installed")
    names = [*bar.ours, bar.other]
    for _ in range(3):
        results = measure(scenario, asyncio.new_event_loop, names=names, rounds=11, seconds=0.002)
        ratios = {name: results[name].ratio(results[bar.other]) for name in bar.ours}
        if max(ratios.values()) <= bar.limit * FAR[bar.threads]:
            return
    pytest.fail(f"{bar} is promised, found {ratios}")


@pytest.mark.parametrize("capacity", memory.CAPACITIES)
@pytest.mark.parametrize("name", NEXUS)
def test_an_idle_channel_costs_little_memory(name, capacity):
    assert memory.traced_bytes(name, capacity, 100) <= memory.allowed(capacity)


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="no /proc to count descriptors in")
def test_idle_channels_cost_no_descriptor_thread_or_task():
    async def main():
        return await memory.cost("nexus_channels.mpsc", 1, 100)

    found = asyncio.run(main())
    assert (found.descriptors, found.threads, found.tasks) == (0, 0, 0)


def test_the_program_writes_a_table_and_all_samples(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["--scenario", "batch", "--contender", "collections*", "--rounds", "3", "--seconds", "0.001"]
    assert runner.main([*arguments, "--json", str(report)]) == 0
    assert "| nexus_channels.mpsc |" in capsys.readouterr().out
    said = json.loads(report.read_text())
    (batch,) = said["scenarios"]
    assert {result["name"] for result in batch["results"]} == {*NEXUS, "collections.deque"}
    assert all(len(result["samples"]) == 3 for result in batch["results"])
    assert said["about"]["build"]["flags"] == nexus_channels._core.build_info()["flags"]


def test_a_scenario_that_is_not_there_is_named():
    assert runner.main(["--scenario", "no such thing"]) == 2
