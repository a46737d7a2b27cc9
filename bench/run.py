"""The benchmark suite: `python bench/run.py [--quick] [--scenario NAME]...`; see README.md beside this file.

Every scenario is checked first: a contender that loses or reorders an item is not timed.
"""

import argparse
import asyncio
import datetime
import fnmatch
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from bars import BARS
from contenders import CONTENDERS, NEXUS
from measure import Result, measure
from scenarios import SCENARIOS, LoopFactory, Scenario

import nexus_channels
from nexus_channels import _core


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    chosen = [s for s in SCENARIOS.values() if any(fnmatch.fnmatch(s.name, p) for p in options.scenario or ["*"])]
    if not chosen:
        print(f"no such scenario; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    loops = loop_factory(options.loop)
    rounds = options.rounds or (11 if options.quick else 41)
    seconds = options.seconds or (0.01 if options.quick else 0.02)
    report: dict[str, Any] = {"about": about(options.loop, rounds, seconds), "scenarios": [], "bars": []}
    for scenario in chosen:
        names = [name for name in scenario.entries(loops) if wanted(name, options.contender)]
        check(scenario, names, loops)
        results = measure(scenario, loops, names=names, rounds=rounds, seconds=seconds, progress=dot)
        end_of_dots()
        report["scenarios"].append(as_dict(scenario, results))
        report["bars"] += verdicts(scenario, results)
        print(table(scenario, results), flush=True)
    for line in map(verdict_line, report["bars"]):
        print(line)
    report["about"]["load_after"] = os.getloadavg()
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(verdict["met"] for verdict in report["bars"]) or not options.strict else 1


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scenario", action="append", metavar="NAME", help="only these, * and ? allowed")
    p.add_argument("--contender", action="append", metavar="NAME", help="only these beside our own, * and ? allowed")
    p.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    p.add_argument("--rounds", type=int)
    p.add_argument("--seconds", type=float, help="how long one entry runs in one round, about")
    p.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    p.add_argument("--json", metavar="FILE", help="write all samples there, and what they were taken on")
    p.add_argument("--strict", action="store_true", help="exit 1 where a bar is missed")
    return p


def wanted(name: str, patterns: list[str] | None) -> bool:
    return not patterns or name in NEXUS or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def loop_factory(name: str) -> LoopFactory:
    if name == "uvloop":
        factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
        return factory
    return asyncio.new_event_loop


def check(scenario: Scenario, names: list[str], loops: LoopFactory) -> None:
    for name in names:
        if name in CONTENDERS:
            scenario.check(CONTENDERS[name], loops)


def dot() -> None:
    if sys.stderr.isatty():
        print(".", end="", file=sys.stderr, flush=True)


def end_of_dots() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


# ---- what is said --------------------------------------------------------------------------------------------------


def table(scenario: Scenario, results: dict[str, Result]) -> str:
    """Markdown, the fastest first; `x` is how many times the time of our own fastest."""
    ours = min((results[name] for name in NEXUS if name in results), key=lambda r: r.median, default=None)
    lines = [
        f"### {scenario.name}: {scenario.operation}",
        "",
        "| | ns | ± | x |",
        "|---|--:|--:|--:|",
    ]
    for result in sorted(results.values(), key=lambda r: r.median):
        times = "" if ours is None else f"{result.ratio(ours):.2f}"
        lines.append(f"| {result.name} | {result.median:,.1f} | {result.spread:.0%} | {times} |")
    return "\n".join([*lines, ""])


def verdicts(scenario: Scenario, results: dict[str, Result]) -> list[dict[str, Any]]:
    return [
        {
            "scenario": bar.scenario,
            "ours": name,
            "bar": str(bar),
            "ratio": round(ratio := results[name].ratio(results[bar.other]), 4),
            "met": ratio <= bar.limit,
        }
        for bar in BARS
        if bar.applies and bar.scenario == scenario.name and bar.other in results
        for name in bar.ours
        if name in results
    ]


def verdict_line(verdict: dict[str, Any]) -> str:
    said = "met" if verdict["met"] else "MISSED"
    return f"{said:6}  {verdict['scenario']}, {verdict['ours']}: {verdict['ratio']:.3f}, {verdict['bar']}"


def as_dict(scenario: Scenario, results: dict[str, Result]) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "operation": scenario.operation,
        "capacity": scenario.capacity,
        "unit": "ns an operation",
        "results": [
            {
                "name": result.name,
                "median": round(result.median, 2),
                "spread": round(result.spread, 4),
                "items": result.items,
                "samples": [round(sample, 2) for sample in result.samples],
            }
            for result in results.values()
        ],
    }


# ---- what it was measured on ---------------------------------------------------------------------------------------


def about(loop: str, rounds: int, seconds: float) -> dict[str, Any]:
    packages = sorted(
        {c.package for c in CONTENDERS.values() if c.package} | ({"uvloop"} if loop == "uvloop" else set())
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "nexus_channels": nexus_channels.__version__,
        "commit": commit(),
        "build": _core.build_info(),
        "python": sys.version,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "loop": loop,
        "versions": {name: importlib.metadata.version(name) for name in packages},
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
