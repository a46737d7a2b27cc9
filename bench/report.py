"""Tables and plots of a file of results: `python bench/report.py RESULTS.json [--memory MEMORY.json] -o docs`.

Writes benchmarks.md, and bench-throughput, bench-latency and bench-fan-in, each as PNG and SVG.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import bars
from contenders import NEXUS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from run import all_bars

Record = dict[str, Any]

MAIN = ("3.11", "asyncio", False)  # what the plots and the long tables show
OURS, FLOOR, OTHERS = "#0b6e99", "#b8b8b8", "#d9883b"
LINES = ["#0b6e99", "#d9883b", "#6a4c93", "#4a7c3a", "#b03a48", "#7f7f7f", "#00a6a6", "#c2a83e"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--memory", help="what bench/memory.py --json wrote")
    parser.add_argument("-o", "--output", default="docs")
    options = parser.parse_args()
    records = json.loads(Path(options.results).read_text())
    memory = json.loads(Path(options.memory).read_text()) if options.memory else []
    out = Path(options.output)
    out.mkdir(exist_ok=True)
    main_records = {r["scenario"]: r for r in records if kind(r) == MAIN}
    plots = {
        "bench-throughput": (throughput, "Items a second between threads and loops"),
        "bench-latency": (latency, "How long a round trip between a thread and a loop takes"),
        "bench-fan-in": (fan_in, "Many threads sending to one task"),
    }
    drawn = [name for name, (draw, _) in plots.items() if save(draw(main_records), out / name)]
    text = [
        *introduction(main_records, records),
        *(f"![{plots[name][1]}]({name}.svg)\n" for name in drawn),
        *verdicts(records, memory),
        *memory_table(memory),
        *long_tables(main_records),
        *wide_tables(records),
        *left_out(records),
    ]
    (out / "benchmarks.md").write_text("\n".join(text))
    return 0


def kind(record: Record) -> tuple[str, str, bool]:
    return record["python"], record["loop"], record["burn"]


# ---- text ----------------------------------------------------------------------------------------------------------


def introduction(main_records: dict[str, Record], records: list[Record]) -> list[str]:
    about = next(iter(main_records.values()), records[0])["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    commits = sorted({str(r["about"]["commit"])[:12] + r["about"]["commit"][40:] for r in records})
    return [
        "# Benchmarks\n",
        "Written by `python bench/report.py`; [bench/README.md](../bench/README.md) says how it is measured.",
        "All times are from one shared machine: look at the ratios. Nanoseconds an operation, medians of interleaved",
        "rounds; ±: half the distance between the quartiles; x: how many times the time of the fastest of ours, the",
        "median over the rounds.\n",
        f"- {about['processor']}, {about['cores']} cores, {about['system']}",
        f"- CPython {about['python'].split()[0]}, nexus_channels {about['nexus_channels']} ({', '.join(commits)})",
        f"- built with {about['build']['flags']}",
        f"- {versions}",
        f"- {min(r['about']['date'] for r in records)} to {max(r['about']['date'] for r in records)}\n",
    ]


def verdicts(records: list[Record], memory: list[Record]) -> list[str]:
    lines = ["## What was asked for\n", "| scenario | asked | found | |", "|---|---|---|---|"]
    rows = bars.rows(records, all_bars())
    for row in rows:
        bar = row["bar"]
        found = ", ".join(
            f"{name.removeprefix('nexus_channels.')} {said(times)}" for name, times in row["found"].items()
        )
        python = "" if bar.python == "3.11" else f" ({bar.python})"
        lines.append(f"| {bar.title}{python} | {bar} | {found} | {'met' if row['met'] else '**missed**'} |")
    for entry in memory:
        if entry["name"] in NEXUS:
            allowed, traced = 1024 + 8 * entry["capacity"], entry["traced"]
            met = "met" if traced <= allowed else "**missed**"
            name = entry["name"].removeprefix("nexus_channels.")
            lines.append(
                f"| idle channel of {entry['capacity']:,} | {allowed:,} bytes | {name} {traced:,.0f} | {met} |"
            )
    missed = [row["bar"] for row in rows if not row["met"]]
    whys = dict.fromkeys(why for bar in missed if (why := bars.why(bar)))
    return [*lines, "", *([f"- {why}" for why in whys]), ""] if whys else [*lines, ""]


def said(times: float) -> str:
    return f"{times:.2f} x" if times >= 0.25 else f"1/{1 / times:.1f}"


def memory_table(memory: list[Record]) -> list[str]:
    if not memory:
        return []
    lines = ["## Bytes of an idle channel\n", "| | capacity | bytes | resident |", "|---|--:|--:|--:|"]
    lines += [f"| {m['name']} | {m['capacity']:,} | {m['traced']:,.0f} | {m['resident']:,.0f} |" for m in memory]
    return [*lines, ""]


def long_tables(main_records: dict[str, Record]) -> list[str]:
    lines = ["## CPython 3.11, asyncio\n"] if main_records else []
    for record in main_records.values():
        lines += [f"### {record['scenario']}: {record['operation']}\n", "| | ns | ± | x |", "|---|--:|--:|--:|"]
        results = record["results"]
        ours = min((results[name] for name in results if name.startswith("nexus_channels.")), key=median, default=None)
        for name, result in sorted(results.items(), key=lambda item: median(item[1])):
            times = "" if ours is None else f"{ratio(result, ours):.2f}"
            lines.append(f"| {name} | {result['median']:,.1f} | {result['spread']:.0%} | {times} |")
        lines += ["", *latency_table(record)]
    return lines


def latency_table(record: Record) -> list[str]:
    if not record["latency"]:
        return []
    lines = ["| round trip, µs | p50 | p99 | p99.9 | max | round trips |", "|---|--:|--:|--:|--:|--:|"]
    for name, found in sorted(record["latency"].items(), key=lambda item: item[1]["p50"]):
        cells = [f"{found[p] / 1000:,.1f}" for p in ("p50", "p99", "p99.9", "max")]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['count']:,} |")
    return [*lines, ""]


def median(result: Record) -> float:
    return float(result["median"])


def ratio(result: Record, other: Record) -> float:
    ratios = sorted(a / b for a, b in zip(result["samples"], other["samples"], strict=True))
    return ratios[len(ratios) // 2]


def wide_tables(records: list[Record]) -> list[str]:
    """The other interpreters, loops and loads: one table each, ns."""
    lines = []
    for which in dict.fromkeys(map(kind, records)):
        if which == MAIN:
            continue
        python, loop, burn = which
        its = [r for r in records if kind(r) == which]
        lines += [f"## CPython {python}, {loop}{', beside a thread that burns bytecode' if burn else ''}\n"]
        lines += ["| | ns, the fastest first |", "|---|---|"]
        for record in its:
            cells = sorted(record["results"].items(), key=lambda item: median(item[1]))
            text = ", ".join(f"{bold(name)} {result['median']:,.0f}" for name, result in cells)
            lines.append(f"| {record['scenario']} | {text} |")
        lines.append("")
        for record in its:
            if record["latency"]:
                lines += [f"{record['scenario']}:\n", *latency_table(record)]
    return lines


def bold(name: str) -> str:
    return f"**{name.removeprefix('nexus_channels.')}**" if name in NEXUS else name


def left_out(records: list[Record]) -> list[str]:
    lines = [
        f"- {name}, in {r['scenario']} ({r['python']}, {r['loop']}): {why}"
        for r in records
        for name, why in r["left_out"].items()
    ]
    return ["## Left out, as they failed the check\n", *lines, ""] if lines else []


# ---- plots ---------------------------------------------------------------------------------------------------------


def save(figure: Any, path: Path) -> bool:
    if figure is None:
        return False
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
    return True


def colour(record: Record, name: str) -> str:
    if name.startswith("nexus_channels."):
        return OURS
    return FLOOR if name in record["floors"] else OTHERS


def short(number: float, _: Any = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def throughput(records: dict[str, Record]) -> Any:
    titles = {
        "thread_to_thread": "thread to thread",
        "thread_to_loop": "thread to loop",
        "fan_in_4": "four threads to loop",
        "loop_to_thread": "loop to thread",
    }
    shown = [name for name in titles if name in records]
    if not shown:
        return None
    counts = [len(records[name]["results"]) for name in shown]
    figure, all_axes = plt.subplots(
        len(shown),
        1,
        figsize=(8, 0.9 + 0.27 * sum(counts) + 0.6 * len(shown)),
        height_ratios=counts,
        squeeze=False,
        layout="constrained",
    )
    for axes, name in zip(all_axes[:, 0], shown, strict=True):
        record = records[name]
        ranked = sorted(record["results"].items(), key=lambda item: -median(item[1]))
        speeds = [1e9 / median(result) for _, result in ranked]
        axes.barh([who for who, _ in ranked], speeds, color=[colour(record, who) for who, _ in ranked], height=0.7)
        for place, speed in enumerate(speeds):
            axes.text(speed * 1.06, place, short(speed), va="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(1e4, 4e7)
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelsize=8)
        axes.set_title(titles[name], loc="left", fontsize=10)
        plain(axes)
    all_axes[-1, 0].set_xlabel("items a second (logarithmic); blue: ours, grey: the bare job by hand", fontsize=9)
    return figure


def latency(records: dict[str, Record]) -> Any:
    found = records.get("pingpong_thread_loop", {}).get("latency", {})
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    names = [name for name in found if name != "nexus_channels.spsc"]  # the same as mpsc
    names.sort(key=lambda name: found[name]["p50"])
    floors = records["pingpong_thread_loop"]["floors"]
    others, dashes = iter(LINES[1:]), iter(("--", ":", "-."))
    for name in names:
        its = [(1 / (1 - q), ns / 1000) for q, ns in found[name]["quantiles"] if q < 1]
        ours, floor = name in NEXUS, name in floors
        shade = LINES[0] if ours else "#8a8a8a" if floor else next(others)
        style = {"linewidth": 2.6 if ours else 1.4, "linestyle": next(dashes) if floor else "-"}
        axes.plot(*zip(*its, strict=True), label=name, color=shade, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000, 2000], ["min", "p50", "p90", "p99", "p99.9", "p99.95"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda us, _: short(us) if str(us)[0] in "25" else ""))
    axes.set_ylabel("µs a round trip (logarithmic)")
    axes.set_title("a thread asks, a task answers: one item there and back", loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(axis="y", which="major", color="#e5e5e5")
    plain(axes)
    return figure


def fan_in(records: dict[str, Record]) -> Any:
    its = sorted(
        (int(name.removeprefix("fan_in_")), record) for name, record in records.items() if name.startswith("fan_in_")
    )
    if len(its) < 2:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    names = list(its[0][1]["results"])
    names.sort(key=lambda name: median(its[0][1]["results"][name]))
    others = iter(LINES[1:])
    for name in names:
        line = [(n, 1e9 / median(record["results"][name])) for n, record in its if name in record["results"]]
        ours, floor = name in NEXUS, name in its[0][1]["floors"]
        shade = LINES[0] if ours else FLOOR if floor else next(others)
        axes.plot(*zip(*line, strict=True), "o-", label=name, color=shade, linewidth=2.6 if ours else 1.4, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([n for n, _ in its], [str(n) for n, _ in its])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.set_xlabel("threads that send to one task")
    axes.set_ylabel("items a second (logarithmic)")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y", color="#e5e5e5")
    plain(axes)
    return figure


if __name__ == "__main__":
    sys.exit(main())
