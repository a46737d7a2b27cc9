"""The benchmarks in miniature: every scenario does what it says, and no ratio is far from where it should be."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import pathlib
import queue
import sys

import pytest
from harness import SLOWNESS
from support import Spawned

BENCH = pathlib.Path(__file__).parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("the tests lie beside no source tree", allow_module_level=True)
sys.path.insert(0, str(BENCH))

import bars  # noqa: E402 - found by the line before
import byte_channels  # noqa: E402
import heartbeat  # noqa: E402
import interpreters as two_interpreters  # noqa: E402
import logging_calls  # noqa: E402
import memory  # noqa: E402
import run as runner  # noqa: E402
import select_calls  # noqa: E402
import tables  # noqa: E402
import two_processes  # noqa: E402
from contenders import CONTENDERS, NEXUS  # noqa: E402
from measure import Latency, Result, latencies, measure  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

import nexus_channels  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def no_interpreter_is_left():
    """Other tests fork, which CPython 3.13 and 3.14 do not bear beside a second interpreter."""
    yield
    two_interpreters.close_other()


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    two_processes.close_other()


BUILD = nexus_channels._core.build_info()
OPTIMIZED = not BUILD["debug"] and not BUILD["sanitizer"]

pytestmark = [pytest.mark.timeout(60 * SLOWNESS), pytest.mark.watchdog(60 * SLOWNESS)]


def far(bar, threads=False):
    """More than so many times what is promised is no noise."""
    asks = "trio" in sys.modules and "asyncgen_hook" not in BUILD["insides"]  # sniffio, whether a task of trio runs
    return bar * (4 if threads else 2) * (2 if asks else 1)


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


TESTED = [bar for bar in bars.BARS if bar.what == "median" and not bar.close and not bar.than]


@pytest.mark.skipif(not OPTIMIZED, reason="the speed of a build for debugging says nothing")
@pytest.mark.parametrize("bar", TESTED, ids=lambda bar: f"{bar.python}-{bar.scenario}, {bar}")
def test_no_ratio_is_far_from_its_bar(bar):
    if bar.python != bars.python_here():
        pytest.skip("set on another version of Python")
    scenario = SCENARIOS[bar.scenario]
    if bar.other not in scenario.entries(asyncio.new_event_loop):
        pytest.skip(f"{bar.other} is not installed")
    names = [*bar.ours, bar.other]
    for _ in range(3):
        results = measure(scenario, asyncio.new_event_loop, names=names, rounds=11, seconds=0.002)
        ratios = {name: results[name].ratio(results[bar.other]) for name in bar.ours}
        if max(ratios.values()) <= far(bar.limit, scenario.threads):
            return
    pytest.fail(f"{bar} is asked, found {ratios}")


def record(scenario, **samples):
    results = {
        name: {"median": sorted(values)[len(values) // 2], "samples": values} for name, values in samples.items()
    }
    return {"python": "3.11", "loop": "asyncio", "burn": False, "scenario": scenario, "results": results, "latency": {}}


def test_a_select_costs_about_what_it_may():
    for _ in range(3):
        ratios = select_calls.ratios(asyncio.run(select_calls.measure(5)))
        assert ratios.keys() == select_calls.WAYS.keys()
        slow = [name for name, bar in select_calls.BARS.items() if ratios[name] > far(bar)]
        if not OPTIMIZED or (not slow and ratios["merge of 4"] < ratios["asyncio.wait over 4 asyncio.Queue"] / 10):
            return
    pytest.fail(f"far from what is asked: {ratios}")


def test_a_bar_is_judged_by_the_slowest_of_ours():
    bar = bars.Bar("s", "other", 0.5, ("quick", "slow"))
    (row,) = bars.rows([record("s", quick=[1, 2, 3], slow=[2, 4, 6], other=[4, 8, 12])], [bar])
    assert row["found"] == {"quick": 0.25, "slow": 0.5}
    assert row["met"]
    (row,) = bars.rows([record("s", quick=[1, 2, 3], slow=[3, 6, 9], other=[4, 8, 12])], [bar])
    assert not row["met"]


def test_a_bar_may_compare_with_another_scenario_and_is_left_out_where_nothing_was_measured():
    bar = bars.Bar("two", "mine", 1.25, ("mine",), than="one")
    records = [record("one", mine=[8, 8, 8]), record("two", mine=[9, 9, 9])]
    assert [row["worst"] for row in bars.rows(records, [bar])] == [9 / 8]
    assert bars.rows(records[1:], [bar]) == []
    assert bars.rows([r | {"python": "3.13"} for r in records], [bar]) == []


def test_every_round_trip_is_timed_alone():
    trips = SCENARIOS["pingpong_loop"]
    found = latencies(trips, asyncio.new_event_loop, names=["nexus_channels.spsc", "bare futures"], samples=100)
    assert set(found) == {"nexus_channels.spsc", "bare futures"}
    for latency in found.values():
        assert len(latency.sorted) == 100
        assert 0 < latency.sorted[0] <= latency.at(0.5) <= latency.at(1.0) == latency.sorted[-1]


def test_percentiles_are_of_the_samples():
    latency = Latency("a", list(range(1, 1001)))
    assert [latency.at(q) for q in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]


def test_a_table_keeps_what_other_interpreters_found(tmp_path):
    file = tmp_path / "table.json"
    file.write_text('[{"python": "2.7", "ns": 1}]')
    for ns in (3, 2):
        tables.keep(str(file), [{"ns": ns}])
    assert json.loads(file.read_text()) == [{"python": "2.7", "ns": 1}, {"python": bars.python_here(), "ns": 2}]


@pytest.mark.parametrize("name", ["nexus_channels.mpsc", heartbeat.NATIVE])
def test_a_heartbeat_is_measured_beside_a_task_that_never_has_to_wait(name):
    if name == heartbeat.NATIVE and heartbeat.native.load() is None:
        pytest.skip("no C compiler")
    late = heartbeat.in_child(name, "asyncio", 0.3)
    assert late
    assert late[0] >= 0


FEW_LOGGING_CALLS = ["--rounds", "3", "--count", "200", "--latency", "50", "--records", "2000"]


def test_logging_calls_are_timed_and_every_record_is_accounted_for(capsys):
    logging_calls.main(FEW_LOGGING_CALLS)  # whether few calls took 0.6 of the time is chance
    said = capsys.readouterr().out
    assert "met     every record is written or counted" in said
    assert f"| {logging_calls.OURS} |" in said


def test_a_queue_is_emptied_although_a_listener_takes_the_last_record():
    class Contended(queue.Queue):
        def empty(self):
            found = super().empty()
            with contextlib.suppress(queue.Empty):
                self.get_nowait()  # as the thread of a listener does between a look and the next step
            return found

    records = Contended()
    records.put("record")
    Spawned(logging_calls.empty, records).join()
    assert records.qsize() == 0


def test_a_record_that_is_neither_written_nor_counted_is_noticed():
    row = {"policy": "drop", "by threads": 8, "written": 7, "by the loop": 1, "written too": 1}
    assert logging_calls.is_exact(row | {"dropped": 1, "reported": 1})
    assert not logging_calls.is_exact(row | {"dropped": 0, "reported": 0})
    assert not logging_calls.is_exact(row | {"policy": "block", "dropped": 1, "reported": 1})


@pytest.mark.skipif(not OPTIMIZED, reason="the speed of a build for debugging says nothing")
def test_a_logging_call_is_not_far_from_what_is_promised():
    for _ in range(3):
        found = logging_calls.time_calls(rounds=5, count=1000)
        if (worst := logging_calls.ratio(found, logging_calls.OURS)) <= 0.8:
            return
    pytest.fail(f"{logging_calls.MOST} of QueueHandler's time is asked, found {worst}")


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


def test_the_program_writes_tables_and_adds_all_samples_to_a_file(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["--contender", "collections*", "--rounds", "3", "--seconds", "0.001", "--json", str(report)]
    assert runner.main(["--scenario", "batch", *arguments]) == 0
    assert "| nexus_channels.mpsc |" in capsys.readouterr().out
    assert runner.main(["--scenario", "pingpong_loop", "--latency", "50", *arguments]) == 0
    assert "| us | p50 |" in capsys.readouterr().out
    batch, pingpong = runner.read(report).values()
    assert set(batch["results"]) == {*NEXUS, "collections.deque"}
    assert all(len(result["samples"]) == 3 for result in batch["results"].values())
    assert batch["about"]["build"]["flags"] == nexus_channels._core.build_info()["flags"]
    assert pingpong["latency"]["nexus_channels.spsc"]["count"] == 50


def test_the_program_goes_on_where_it_was_interrupted(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["--scenario", "batch", "--rounds", "2", "--seconds", "0.001", "--json", str(report), "--resume"]
    runner.main(arguments)
    before = report.read_text()
    capsys.readouterr()
    runner.main(arguments)
    assert "batch" not in capsys.readouterr().out
    assert report.read_text() == before


def test_a_contender_that_loses_items_is_named_and_not_timed(monkeypatch, tmp_path, capsys):
    deque = CONTENDERS["collections.deque"]

    def ends(channel):
        good = deque.ends(channel)
        return type(good)(try_send=good.try_send, try_recv=losing(good.try_recv))

    monkeypatch.setitem(CONTENDERS, deque.name, deque._replace(ends=ends))
    runner.main(["--scenario", "try_pair", "--contender", deque.name, "--rounds", "2", "--seconds", "0.001"])
    said = capsys.readouterr().out
    assert f"left out: {deque.name}: AssertionError" in said
    assert f"| {deque.name} |" not in said


def test_a_scenario_that_is_not_there_is_named():
    assert runner.main(["--scenario", "no such thing"]) == 2


def test_a_reason_is_given_for_bars_only():
    known = {(bar.scenario, bar.other) for bar in runner.all_bars()}
    assert known >= bars.WHY.keys()


def test_every_bar_speaks_of_somebody_who_takes_part(loop_factory):
    """Or of whom a package is missing."""
    entries = {name: set(scenario.entries(loop_factory)) for name, scenario in SCENARIOS.items()}
    entries |= {name: set(late(samples=1)) for name, scenario in SCENARIOS.items() if (late := scenario.latencies)}
    packages = (
        "janus",
        "culsans",
        "aiologic",
        "pyzmq",
        "faster-fifo",
        "two no-op",
        "concurrent.interpreters",
    )  # "two" by a compiler
    for bar in runner.all_bars():
        if bar.scenario.startswith("native") and bar.scenario not in SCENARIOS:
            continue  # they need a compiler, too
        if bar.scenario.startswith("interpreters") and not entries[bar.scenario]:
            continue  # they need interpreters with a GIL of their own
        assert entries[bar.scenario] >= set(bar.ours), bar
        assert bar.other in entries[bar.than or bar.scenario] or bar.other.startswith(packages), bar


def byte_contender(name, **replaced):
    """That channel, of which something is broken."""
    good = CONTENDERS[name]

    def ends(channel):
        its = good.ends(channel)
        return dataclasses.replace(its, **{verb: broken(its) for verb, broken in replaced.items()})

    return good._replace(ends=ends)


def test_the_check_looks_at_every_byte_of_a_message():
    def garbled(its):
        return lambda: its.try_recv()[:-1] + b"?"

    scenario = SCENARIOS["bytes_1024_pair"]
    name = "queue.SimpleQueue, fresh bytes"
    scenario.check(byte_contender(name), asyncio.new_event_loop)
    with pytest.raises(AssertionError):
        scenario.check(byte_contender(name, try_recv=garbled), asyncio.new_event_loop)


def test_the_check_looks_into_what_is_borrowed():
    def garbled(its):
        def borrow():
            claim = its.try_borrow()
            return claim if bytes(claim[:8]) != bytes(8) else memoryview(b"?" * len(claim))

        return borrow

    scenario = SCENARIOS["claims_64_pair"]
    with pytest.raises(AssertionError):
        scenario.check(
            byte_contender("nexus_channels.spsc_bytes, claims by with", try_borrow=garbled), asyncio.new_event_loop
        )


def test_messages_are_read_afresh_as_objects_of_their_own():
    """A BytesIO hands out itself where all of it is read at once."""
    ((source, count),) = byte_channels.input_of([7], 64)
    source.seek(0)
    assert len(count) == 1
    first = source.read(64)
    source.seek(0)
    assert source.read(64) is not first
    assert byte_channels.number_of(64, first) == 7


def test_the_report_shows_every_kind_of_scenario(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("culsans")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    import report

    results = tmp_path / "results.json"
    few = ["--contender", "culsans", "--rounds", "2", "--seconds", "0.001", "--latency", "10", "--json", str(results)]
    runner.main(["--scenario", "thread_to_loop", "--scenario", "pingpong_thread_loop", *few])
    items, trips = (record | {"python": "3.11"} for record in runner.read(results).values())
    names = ("thread_to_loop", "fan_in_1", "fan_in_2", "bytes_16_loop", "bytes_64_loop")
    records = [items | {"scenario": name} for name in names]  # as if each had been measured
    records += [trips, trips | {"burn": True}, trips | {"scenario": "native_beside_bytecode", "results": {}}]
    runner.write(results, records)
    selects, logs = str(tmp_path / "select.json"), str(tmp_path / "logging.json")
    monkeypatch.setattr(sys, "argv", ["select_calls.py", "--rounds", "1", "--json", selects])
    select_calls.main()
    logging_calls.main([*FEW_LOGGING_CALLS, "--json", logs])
    more = ["--select", selects, "--logging", logs]
    monkeypatch.setattr(sys, "argv", ["report.py", str(results), *more, "-o", str(tmp_path / "docs")])
    assert report.main() == 0
    text = (tmp_path / "docs/benchmarks.md").read_text()
    assert all(f"### {name}: " in text for name in (*names, "native_beside_bytecode"))
    assert "| thread_to_loop | at least 15 x as fast as culsans | " in text
    rows = [*select_calls.WAYS, logging_calls.OURS, f"{logging_calls.OURS} | {bars.python_here()}"]
    rows += [f"{bars.python_here()} | {policy}" for policy in ("block", "drop")]
    assert [row for row in rows if f"\n| {row} | " not in text] == []
    for plot in ("throughput", "latency", "fan-in", "bytes", "native"):
        assert f"(bench-{plot}.svg)" in text
        assert (tmp_path / f"docs/bench-{plot}.png").stat().st_size > 10_000
