"""The benchmark suite: `python bench/run.py [--quick] [--scenario NAME]...`; see README.md beside this file.

Every contender is checked first in every scenario: one that loses or reorders an item is named, and not timed.
"""

import argparse
import asyncio
import datetime
import fnmatch
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bars
from contenders import CONTENDERS
from measure import QUANTILES, Latency, latencies, measure
from scenarios import MORE, SCENARIOS, LoopFactory, Scenario
from threads import burning

import nexus_channels
from nexus_channels import _core
from nexus_channels._programs.bench.clock import Result
from nexus_channels._programs.bench.command import Bar as ProgressBar
from nexus_channels._programs.bench.command import markdown
from nexus_channels._programs.bench.contenders import MISSING, is_ours

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    chosen = [s for s in SCENARIOS.values() if any(fnmatch.fnmatch(s.name, p) for p in options.scenario or ["*"])]
    if options.barred:
        spoken_of = {
            name for bar in all_bars() if bar.python == bars.python_here() for name in (bar.scenario, bar.than)
        }
        chosen = [scenario for scenario in chosen if scenario.name in spoken_of]
    if not chosen:
        print(f"no such scenario; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    file = Path(options.json) if options.json else None
    if bars.FREE_THREADED and sys._is_gil_enabled():
        print("a module that was imported has turned the GIL on: set PYTHON_GIL=0", file=sys.stderr)
    records = read(file)
    new = []
    for scenario in chosen:
        if options.resume and key_of(scenario, options) in records:
            continue
        record = run(scenario, options)
        new.append(record)
        records[key_of(scenario, options)] = record
        if file is not None:
            write(file, records.values())
    verdicts = bars.rows(new, all_bars())
    for row in verdicts:
        print(verdict_line(row))
    return 0 if all(row["met"] for row in verdicts) or not options.strict else 1


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scenario", action="append", metavar="NAME", help="only these, * and ? allowed")
    p.add_argument("--contender", action="append", metavar="NAME", help="only these beside our own, * and ? allowed")
    p.add_argument("--barred", action="store_true", help="only what a bar for this version of Python speaks of")
    p.add_argument("--quick", action="store_true", help="fewer and shorter rounds, and fewer round trips")
    p.add_argument("--rounds", type=int)
    p.add_argument("--seconds", type=float, help="how long one entry runs in one round, about")
    p.add_argument("--latency", type=int, metavar="N", help="round trips to time one by one (100,000; 0: none)")
    p.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    p.add_argument("--burn", action="store_true", help="beside one more thread, which burns bytecode")
    p.add_argument("--json", metavar="FILE", help="add all samples to that file, and what they were taken on")
    p.add_argument("--resume", action="store_true", help="leave out what is in the file already")
    p.add_argument("--strict", action="store_true", help="exit 1 where a bar is missed")
    return p


def run(scenario: Scenario, options: argparse.Namespace) -> dict[str, Any]:
    """Check, time, print; returns the record of it."""
    loops = loop_factory(options.loop)
    rounds = options.rounds or (11 if options.quick else 31)
    seconds = options.seconds or (0.01 if options.quick else 0.02) * (2 if scenario.threads else 1)
    wanted_names = [name for name in scenario.entries(loops) if wanted(name, options.contender)]
    about_it = about(options.loop, rounds, seconds)
    names, left_out = check(scenario, wanted_names, loops)
    bar = ProgressBar()
    steps = len(names) * rounds
    with burning(options.burn):
        results = measure(
            scenario, loops, names=names, rounds=rounds, seconds=seconds, progress=lambda: bar.step(steps)
        )
        samples = latency_samples(scenario, options, results)
        found = latencies(scenario, loops, names=names, samples=samples) if samples else {}
    bar.close()
    about_it["load_after"] = os.getloadavg()
    print(markdown(scenario, results) if results else f"### {scenario.name}: {scenario.operation}\n", flush=True)
    if found:
        print(latency_table(found), flush=True)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    return {
        **dict(zip(("python", "loop", "burn", "scenario"), key_of(scenario, options), strict=True)),
        **as_dict(scenario, results),
        "latency": {name: percentiles(latency) for name, latency in found.items()},
        "left_out": left_out,
        "about": about_it,
    }


def latency_samples(scenario: Scenario, options: argparse.Namespace, results: dict[str, Result]) -> int:
    if not (scenario.one_by_one or scenario.latencies) or options.latency == 0:
        return 0
    if options.burn and results:  # a switch of threads may take 5 ms then
        slowest = max(result.median for result in results.values())
        return max(100, min(options.latency or 100_000, int(2e9 / slowest)))
    return options.latency or (2_000 if options.quick else 100_000)


def wanted(name: str, patterns: list[str] | None) -> bool:
    ours = name in CONTENDERS and is_ours(name)
    return not patterns or ours or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def loop_factory(name: str) -> LoopFactory:
    if name == "uvloop":
        factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
        return factory
    return asyncio.new_event_loop


def check(scenario: Scenario, names: list[str], loops: LoopFactory) -> tuple[list[str], dict[str, str]]:
    """Who takes part, and why the others do not."""
    left_out = {}
    for name in names:
        if name in CONTENDERS:
            try:
                scenario.check(CONTENDERS[name], loops)
            except Exception as error:  # whatever a library of somebody else's may raise
                if is_ours(name):
                    raise
                left_out[name] = f"{type(error).__name__}: {error}"
    return [name for name in names if name not in left_out], left_out


def all_bars() -> list[bars.Bar]:
    """Ours, and those of the modules with scenarios of their own."""
    more = [module for name in MORE if (module := sys.modules.get(name)) is not None]
    return [*bars.BARS, *(bar for module in more for bar in getattr(module, "BARS", []))]


# ---- what is said --------------------------------------------------------------------------------------------------


def verdict_line(row: dict[str, Any]) -> str:
    said = "met" if row["met"] else "MISSED"
    found = ", ".join(f"{name.removeprefix('nexus_channels.')} {ratio:.3f}" for name, ratio in row["found"].items())
    return f"{said:6}  {row['bar'].title}: {found}; {row['bar']}"


def latency_table(found: dict[str, Latency]) -> str:
    lines = ["| us | " + " | ".join(PERCENTILES) + " | times |", "|---|--:|--:|--:|--:|--:|"]
    for latency in sorted(found.values(), key=lambda latency: latency.at(0.5)):
        cells = [f"{latency.at(quantile) / 1000:,.1f}" for quantile in PERCENTILES.values()]
        lines.append(f"| {latency.name} | {' | '.join(cells)} | {len(latency.sorted):,} |")
    return "\n".join([*lines, ""])


def percentiles(latency: Latency) -> dict[str, Any]:
    return {
        **{name: latency.at(quantile) for name, quantile in PERCENTILES.items()},
        "count": len(latency.sorted),
        "quantiles": [latency.at(quantile) for quantile in QUANTILES],
    }


def as_dict(scenario: Scenario, results: dict[str, Result]) -> dict[str, Any]:
    return {
        "operation": scenario.operation,
        "capacity": scenario.capacity,
        "unit": "ns an operation",
        "floors": list(scenario.floors),
        "results": {
            result.name: {
                "median": rounded(result.median),
                "spread": round(result.spread, 4),
                "items": result.items,
                "samples": [rounded(sample) for sample in result.samples],
            }
            for result in results.values()
        },
    }


# ---- the file ------------------------------------------------------------------------------------------------------

Key = tuple[str, str, bool, str]


def key_of(scenario: Scenario, options: argparse.Namespace) -> Key:
    return bars.python_here(), options.loop, options.burn, scenario.name


TOLD_ONCE = (
    "nexus_channels",
    "commit",
    "build",
    "python",
    "gil",
    "missing",
    "versions",
    "system",
    "processor",
    "cores",
)


def read(file: Path | None) -> dict[Key, dict[str, Any]]:
    if file is None or not file.exists():
        return {}
    content = json.loads(file.read_text())
    for record in content["records"]:
        record["about"].update(content["about"][record["about"].pop("which")])
    return {(r["python"], r["loop"], r["burn"], r["scenario"]): r for r in content["records"]}


def write(file: Path, records: Iterable[dict[str, Any]]) -> None:
    """One record a line, what many have in common once; whole or not at all."""
    lines, told = [], []
    for record in records:
        once = {key: record["about"][key] for key in TOLD_ONCE}
        if once not in told:
            told.append(once)
        about = {key: value for key, value in record["about"].items() if key not in TOLD_ONCE}
        lines.append(compact(record | {"about": about | {"which": told.index(once)}}))
    new = file.with_suffix(".new")
    new.write_text(
        '{"about": [\n' + ",\n".join(map(compact, told)) + '\n], "records": [\n' + ",\n".join(lines) + "\n]}\n"
    )
    new.replace(file)


def compact(what: Any) -> str:
    return json.dumps(what, separators=(",", ":"))


def rounded(nanoseconds: float) -> float:
    """To four digits, or to the whole number."""
    return round(nanoseconds) if nanoseconds >= 1000 else float(f"{nanoseconds:.4g}")


# ---- what it was measured on ---------------------------------------------------------------------------------------


def about(loop: str, rounds: int, seconds: float) -> dict[str, Any]:
    packages = {c.package for c in CONTENDERS.values()} | ({"uvloop"} if loop == "uvloop" else set())
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "nexus_channels": nexus_channels.__version__,
        "commit": commit(),
        "build": _core.build_info(),
        "python": sys.version,
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "missing": MISSING,
        "versions": {name: importlib.metadata.version(name) for name in sorted(packages - {"", "nexus_channels"})},
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "rounds": rounds,
        "seconds": seconds,
    }


def commit() -> str | None:
    """Of the checkout that this file lies in, marked where it was changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    sys.exit(main())
