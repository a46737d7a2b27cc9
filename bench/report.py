"""Tables and plots of files of results:

    python bench/report.py RESULTS.json [--memory FILE] [--heartbeat FILE] [--select FILE] [--logging FILE] -o docs

Writes benchmarks.md, and its plots, each as PNG and SVG: bench-throughput, bench-latency, bench-fan-in, bench-bytes and
bench-native.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import bars
from contenders import NEXUS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from measure import QUANTILES
from run import all_bars, read

from nexus_channels._programs.bench.contenders import is_ours

Record = dict[str, Any]
Kind = tuple[str, str, bool]

MAIN = ("3.11", "asyncio", False)  # what most plots and the long tables show
BURNING = ("3.11", "asyncio", True)
FREE_THREADED = ("3.13t", "asyncio", False)
OURS, FLOOR, OTHERS = "#0b6e99", "#b8b8b8", "#d9883b"
# One colour a contender, in all plots.
LINES = ["#d9883b", "#6a4c93", "#4a7c3a", "#b03a48", "#c2a83e", "#00a6a6", "#8c564b", "#555555", "#e377c2", "#6db3d1"]
LINE = {
    name: colour
    for colour, names in zip(
        LINES,
        (
            ("queue.SimpleQueue",),
            ("culsans",),
            ("janus",),
            ("aiologic.Queue",),
            ("asyncio.Queue", "asyncio.Queue + call_soon_threadsafe"),
            ("pyzmq inproc", "pyzmq inproc, bytes"),
            ("os.pipe", "os.pipe, 8 bytes"),
            ("queue.Queue",),
            ("multiprocessing.Pipe", "multiprocessing.Pipe, send_bytes"),
            ("queue face of nexus_channels",),
        ),
        strict=True,
    )
    for name in names
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--memory", help="what bench/memory.py --json wrote")
    parser.add_argument("--heartbeat", help="what bench/heartbeat.py --json wrote")
    parser.add_argument("--select", help="what bench/select_calls.py --json wrote")
    parser.add_argument("--logging", help="what bench/logging_calls.py --json wrote")
    parser.add_argument("-o", "--output", default="docs")
    options = parser.parse_args()
    records = list(read(Path(options.results)).values())
    files = (options.memory, options.heartbeat, options.select, options.logging)
    memory, beats, selects, logs = (json.loads(Path(file).read_text()) if file else [] for file in files)
    out = Path(options.output)
    out.mkdir(exist_ok=True)
    by_kind: dict[Kind, dict[str, Record]] = {}
    for record in records:
        by_kind.setdefault(kind(record), {})[record["scenario"]] = record
    main_records = by_kind.get(MAIN, {})
    plots: dict[str, tuple[Callable[[dict[Kind, dict[str, Record]]], Any], str]] = {
        "bench-throughput": (throughput, "Throughput between threads and event loops"),
        "bench-latency": (latency, "Round-trip latency between a thread and an event loop"),
        "bench-fan-in": (fan_in, "Fan-in throughput: many threads send to one task"),
        "bench-bytes": (messages, "Throughput of byte messages, by message size"),
        "bench-native": (native, "Send latency while another thread holds the GIL"),
    }
    drawn = [name for name, (draw, _) in plots.items() if save(draw(by_kind), out / name)]
    text = [
        *introduction(main_records, records),
        *(f"![{plots[name][1]}]({name}.svg)\n" for name in drawn),
        *verdicts(records, memory),
        *memory_table(memory),
        *heartbeat_table(beats),
        *select_table(selects),
        *logging_tables(logs),
        *by_interpreter(by_kind),
        *long_tables(main_records),
        *wide_tables(records),
        *left_out(records),
    ]
    (out / "benchmarks.md").write_text("\n".join(text))
    return 0


def kind(record: Record) -> Kind:
    return record["python"], record["loop"], record["burn"]


# ---- text ----------------------------------------------------------------------------------------------------------


def introduction(main_records: dict[str, Record], records: list[Record]) -> list[str]:
    first = next(iter(main_records.values()), records[0])
    about = first["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    known = {r["about"]["commit"] or "unknown" for r in records}  # a copy that is no checkout has none
    commits = sorted(commit[:12] + commit[40:] for commit in known)
    return [
        "# Benchmarks\n",
        "**For:** people who compare channels and queues by speed and memory.\n",
        "All times come from one shared machine with two cores, so compare ratios, not nanoseconds.",
        "`python bench/report.py` wrote this page. `bench/README.md` in the checkout says how to measure again.\n",
        "How to read the tables:\n",
        "- **ns**: nanoseconds for one operation, the median of interleaved rounds.",
        "- **±**: half the distance between the quartiles, as a share of the median.",
        "- **x**: the time as a multiple of the fastest nexus_channels row. 2.00 means twice as long.\n",
        "Measured with:\n",
        f"- {about['processor']}, {about['cores']} cores, {about['system']}",
        f"- CPython {about['python'].split()[0]}, nexus_channels {about['nexus_channels']} ({', '.join(commits)})",
        f"- built with {about['build']['flags']}",
        f"- {versions}",
        *(f"- also {python}" for python in dict.fromkeys(map(interpreter, records)) if python != interpreter(first)),
        f"- {min(r['about']['date'] for r in records)} to {max(r['about']['date'] for r in records)}\n",
    ]


def interpreter(record: Record) -> str:
    about = record["about"]
    free = ", free-threaded" + (" with the GIL on" if about["gil"] else "") if record["python"].endswith("t") else ""
    return f"CPython {about['python'].split()[0]}{free}"


def verdicts(records: list[Record], memory: list[Record]) -> list[str]:
    lines = [
        "## Targets\n",
        "Each row is a target that the project set itself. `0.60 x` means 0.60 times as long as the other one.\n",
        "| scenario | target | measured | |",
        "|---|---|---|---|",
    ]
    rows = bars.rows(records, all_bars())
    for row in rows:
        bar = row["bar"]
        found = said(bar, row["found"])
        python = "" if bar.python == "3.11" else f" ({bar.python})"
        lines.append(f"| {bar.title}{python} | {bar} | {found} | {'met' if row['met'] else '**missed**'} |")
    for entry in memory:
        if entry["name"] in NEXUS:
            allowed, traced, resident = 1024 + 8 * entry["capacity"], entry["traced"], entry["resident"]
            met = "met" if max(traced, resident) <= allowed else "**missed**"
            name = entry["name"].removeprefix("nexus_channels.")
            lines.append(
                f"| idle channel of {entry['capacity']:,} | at most {allowed:,} bytes "
                f"| {name} {traced:,.0f}, resident {resident:,.0f} | {met} |"
            )
    whys = {}
    for row in rows:
        if not row["met"] and (why := bars.why(row["bar"])):
            whys.setdefault(why, []).append(row["bar"].title)
    return [*lines, "", *(f"- {' and '.join(dict.fromkeys(titles))}: {why}" for why, titles in whys.items()), ""]


def said(bar: bars.Bar, found: dict[str, float]) -> str:
    """In the words of the target: as a multiple of its time, or how many times as fast."""
    numbers = {name: f"{times:.2f}" if bar.limit >= 0.25 else f"{1 / times:,.1f}" for name, times in found.items()}
    each = ", ".join(f"{name.removeprefix('nexus_channels.')} {number}" for name, number in numbers.items())
    return each + (" x" if bar.limit >= 0.25 else " x as fast")


def memory_table(memory: list[Record]) -> list[str]:
    if not memory:
        return []
    lines = [
        "## Memory of an idle channel\n",
        "**Bytes** is what the allocator gave; **resident** is how much the process grew, per channel.\n",
        "| | capacity | bytes | resident |",
        "|---|--:|--:|--:|",
    ]
    lines += [f"| {m['name']} | {m['capacity']:,} | {m['traced']:,.0f} | {m['resident']:,.0f} |" for m in memory]
    return [*lines, ""]


def heartbeat_table(beats: list[Record]) -> list[str]:
    if not beats:
        return []
    lines = [
        "## Timer delay beside a busy receiver\n",
        "One task receives items that are always ready and works 10 µs on each. Another task of the same loop wants to",
        "run every 10 ms. The table shows how late it runs, in milliseconds. `python bench/heartbeat.py`\n",
        "| | CPython | loop | beats | median | 99 % | worst |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for b in beats:
        late = " | ".join(f"{b[key]:.2f}" if key in b else "never" for key in ("median", "p99", "worst"))
        lines.append(f"| {b['name']} | {b['python']} | {b['loop']} | {b['beats']:,} | {late} |")
    return [*lines, ""]


def by_python(rows: list[Record], *more: str) -> list[str]:
    """Ratios and times by name, one column an interpreter; before those, columns of what else the rows have."""
    pythons = list(dict.fromkeys(row["python"] for row in rows))
    found = {(row["name"], row["python"]): row for row in rows}
    lines = [f"| | {' | '.join((*more, *pythons))} |", f"|---|{'--:|' * len((*more, *pythons))}"]
    for name, *its in dict.fromkeys((row["name"], *(row[key] for key in more)) for row in rows):
        cells = [str(value or "") for value in its]
        for python in pythons:
            row = found.get((name, python))
            cells.append(f"{row['ratio']:.2f} ({row['ns']:,.0f} ns)" if row else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def select_table(rows: list[Record]) -> list[str]:
    if not rows:
        return []
    return [
        "## Select\n",
        "The time of one item as a multiple of a plain `recv()`: one that is ready, or, where it says parked, one that",
        "waits. `python bench/select_calls.py`\n",
        *by_python([row | {"at most": row["bar"]} for row in rows], "at most"),
        "",
    ]


def logging_tables(rows: list[Record]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Logging\n",
        "Processor time of a logging call in the thread that logs, as a multiple of QueueHandler's; the target is at",
        "most 0.6. `python bench/logging_calls.py`\n",
        *by_python([row for row in rows if "ratio" in row]),
    ]
    lines += [
        "\nTime of a call on the clock, in µs, while each write to the disk takes a millisecond:\n",
        "| | CPython | p50 | p99 | p99.9 | max |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        if its := row.get("beside a slow disk"):
            lines.append(f"| {row['name']} | {row['python']} | {' | '.join(f'{us:,.1f}' for us in its.values())} |")
    counted = [row for row in rows if "policy" in row]
    lines += [
        "\nRecords of eight threads and an event loop. Under `block`, too, a loop never waits, so what it logs may be",
        "dropped:\n",
        f"| {' | '.join(counted[0])} |",
        f"|---|---|{'--:|' * (len(counted[0]) - 2)}",
    ]
    lines += [f"| {' | '.join(f'{v:,}' if type(v) is int else str(v) for v in row.values())} |" for row in counted]
    return [*lines, ""]


COMPARED = {  # in one column an interpreter: the scenario, and whose times are told beside ours
    "try_pair": ("two no-op C methods", "queue.SimpleQueue"),
    "await_ready": ("two no-op C awaitables", "the same, one with a value", "asyncio.Queue"),
    "pingpong_loop": ("bare futures", "asyncio.Queue"),
    "pipeline_1024": ("asyncio.Queue",),
    "thread_to_thread": ("queue.SimpleQueue", "a SimpleQueue of 1,024", "queue.Queue"),
    "thread_to_loop": ("a deque, a wake-up a burst", "culsans", "janus"),
}


def by_interpreter(by_kind: dict[Kind, dict[str, Record]]) -> list[str]:
    """What is compared most, one column an interpreter with a GIL."""
    pythons = sorted(python for python, loop, burn in by_kind if loop == "asyncio" and not burn and python[-1] != "t")
    if len(pythons) < 2:
        return []
    lines = [
        "## By version of CPython\n",
        "The slowest of ours in nanoseconds, and the time of others as a multiple of it: above 1, ours is faster.\n",
        f"| | | {' | '.join(pythons)} |",
        f"|---|---|{'--:|' * len(pythons)}",
    ]
    for scenario, others in COMPARED.items():
        all_results = [by_kind[python, "asyncio", False].get(scenario, {}).get("results", {}) for python in pythons]
        ours = [max((r for name, r in its.items() if is_ours(name)), key=median, default=None) for its in all_results]
        cells = [f"{median(result):,.0f} ns" if result else "" for result in ours]
        lines.append(f"| {scenario} | ours | {' | '.join(cells)} |")
        for other in others:
            cells = [
                f"{ratio(its[other], result):.2f} x" if result and other in its else ""
                for its, result in zip(all_results, ours, strict=True)
            ]
            lines.append(f"| | {other} | {' | '.join(cells)} |")
    return [*lines, ""]


def long_tables(main_records: dict[str, Record]) -> list[str]:
    lines = ["## CPython 3.11, asyncio\n"] if main_records else []
    for record in main_records.values():
        lines += [f"### {record['scenario']}: {record['operation']}\n"]
        results = record["results"]
        lines += ["| | ns | ± | x |", "|---|--:|--:|--:|"] if results else []
        ours = min((results[name] for name in results if is_ours(name)), key=median, default=None)
        for name, result in sorted(results.items(), key=lambda item: median(item[1])):
            times = "" if ours is None else f"{ratio(result, ours):.2f}"
            lines.append(f"| {name} | {result['median']:,.1f} | {result['spread']:.0%} | {times} |")
        lines += [*([""] if results else []), *latency_table(record)]
    return lines


def latency_table(record: Record) -> list[str]:
    if not record["latency"]:
        return []
    lines = ["| latency, µs | p50 | p99 | p99.9 | max | times |", "|---|--:|--:|--:|--:|--:|"]
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
        lines += [f"## CPython {python}, {loop}{', while another thread holds the GIL' if burn else ''}\n"]
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
    return f"**{name.removeprefix('nexus_channels.')}**" if is_ours(name) else name


def left_out(records: list[Record]) -> list[str]:
    """Who was not measured where, and why."""
    lines = [
        f"- {name}, in {r['scenario']} ({r['python']}, {r['loop']}): {why}"
        for r in records
        for name, why in r["left_out"].items()
    ]
    for python in dict.fromkeys(r["python"] for r in records):
        missing = next(r["about"]["missing"] for r in records if r["python"] == python)
        lines += [f"- {name}, on CPython {python}: {why}" for name, why in missing.items()]
    return ["## Left out\n", *lines, ""] if lines else []


# ---- plots ---------------------------------------------------------------------------------------------------------


def save(figure: Any, path: Path) -> bool:
    if figure is None:
        return False
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
    return True


def colour(record: Record, name: str) -> str:
    return FLOOR if name in record["floors"] else OURS if "nexus_channels" in name else OTHERS  # its queue face, too


def short(number: float, _: Any = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def logarithmic(axis: Any, label: str) -> None:
    """With a number at each power of ten, and at 2 and 5 between them."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label, fontsize=9)


# What the scenarios are called in plots: their own rows, then those with batches and with more room.
SHOWN = {
    "thread_to_thread": "thread to thread",
    "thread_to_loop": "thread to loop",
    "fan_in_4": "four threads to loop",
    "loop_to_thread": "loop to thread",
}
FORMS = {"": "", "_many": ", in batches", "_wide": ", in batches, room for 16,384"}


def throughput(by_kind: dict[Kind, dict[str, Record]]) -> Any:
    records = by_kind.get(MAIN, {})
    shown = [name for name in SHOWN if name in records]
    if not shown:
        return None
    panels = []
    for name in shown:
        bars_of = []
        for form, said_so in FORMS.items():
            record = records.get(name + form)
            for who, result in record["results"].items() if record else ():
                if form and who != "nexus_channels.mpsc":  # the other is as quick
                    continue
                bars_of.append((who + said_so, 1e9 / median(result), colour(record, who)))
        panels.append((SHOWN[name], sorted(bars_of, key=lambda bar: bar[1])))
    counts = [len(bars_of) for _, bars_of in panels]
    figure, all_axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 1 + 0.22 * sum(counts) + 0.55 * len(panels)),
        height_ratios=counts,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (title, bars_of) in zip(all_axes[:, 0], panels, strict=True):
        axes.barh(
            [who for who, _, _ in bars_of], [s for _, s, _ in bars_of], color=[c for *_, c in bars_of], height=0.72
        )
        for place, (_, speed, _) in enumerate(bars_of):
            axes.text(speed * 1.05, place, short(speed), va="center", fontsize=7.5)
        axes.set_xscale("log")
        axes.set_xlim(1e4, 1e8)
        axes.set_ylim(-0.6, len(bars_of) - 0.4)
        axes.tick_params(axis="y", labelsize=8)
        axes.tick_params(axis="x", labelsize=8, labelbottom=True)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_locator(NullLocator())
        for label, (who, _, _) in zip(axes.get_yticklabels(), bars_of, strict=True):
            label.set_fontweight("bold" if is_ours(who) else "normal")
        plain(axes)
    all_axes[-1, 0].set_xlabel("items per second, logarithmic; longer is better", fontsize=9)
    title = (
        "Throughput between threads and event loops\nblue: nexus_channels; orange: other libraries; grey: hand-written"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


PERCENTILES = ([1, 2, 10, 100, 1000, 2000], ["min", "p50", "p90", "p99", "p99.9", "p99.95"])


def curves(axes: Axes, found: Record, style: Callable[[str], Record]) -> None:
    """How long the quickest so-and-so-many took at most."""
    for name in sorted(found, key=lambda name: found[name]["p50"], reverse=True):
        its = [(1 / (1 - q), ns / 1000) for q, ns in zip(QUANTILES, found[name]["quantiles"], strict=True) if q < 1]
        axes.plot(*zip(*its, strict=True), label=name, **style(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(*PERCENTILES, fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", which="major", color="#e5e5e5")
    plain(axes)


def latency(by_kind: dict[Kind, dict[str, Record]]) -> Any:
    titles = {MAIN: "idle process", BURNING: "another thread holds the GIL"}
    shown = {
        title: by_kind[which]["pingpong_thread_loop"]
        for which, title in titles.items()
        if by_kind.get(which, {}).get("pingpong_thread_loop", {}).get("latency")
    }
    if not shown:
        return None
    figure, all_axes = plt.subplots(
        1, len(shown), figsize=(1 + 5 * len(shown), 5.4), squeeze=False, layout="constrained"
    )
    for axes, (title, record) in zip(all_axes[0], shown.items(), strict=True):
        dashes = iter(("--", ":", "-."))

        def style(name: str, record: Record = record, dashes: Any = dashes) -> Record:
            if is_ours(name):
                return {"color": OURS, "linewidth": 2.6, "linestyle": "-" if name.endswith(".mpsc") else (0, (4, 1))}
            if name in record["floors"]:
                return {"color": "#8a8a8a", "linewidth": 1.4, "linestyle": next(dashes)}
            return {"color": LINE.get(name, OTHERS), "linewidth": 1.4}

        curves(axes, record["latency"], style)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("percentile of the round trips", fontsize=9)
    all_axes[0, 0].set_ylabel("round trip in µs, logarithmic; lower is better", fontsize=9)
    figure.suptitle("Round-trip latency, thread to task and back, by percentile", x=0.01, ha="left", fontsize=11)
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + len(shown), fontsize=8, frameon=False)
    return figure


def fan_in(by_kind: dict[Kind, dict[str, Record]]) -> Any:
    shown = {}
    for which, title in ((MAIN, "CPython 3.11"), (FREE_THREADED, "free-threaded CPython 3.13")):
        its = {
            int(name.removeprefix("fan_in_")): record
            for name, record in by_kind.get(which, {}).items()
            if name.removeprefix("fan_in_").isdigit()
        }
        if len(its) > 1:
            shown[title] = dict(sorted(its.items()))
    if not shown:
        return None
    figure, all_axes = plt.subplots(
        1, len(shown), figsize=(1 + 4.6 * len(shown), 5), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (title, its) in zip(all_axes[0], shown.items(), strict=True):
        first = next(iter(its.values()))
        dashes = iter(("--", ":"))
        for name in first["results"]:
            line = [(n, 1e9 / median(r["results"][name])) for n, r in its.items() if name in r["results"]]
            if is_ours(name):
                style: Record = {"color": OURS, "linewidth": 2.6, "marker": "o", "zorder": 3}
            elif name in first["floors"]:
                style = {"color": "#8a8a8a", "linewidth": 1.4, "linestyle": next(dashes)}
            else:
                style = {"color": LINE.get(name, OTHERS), "linewidth": 1.4, "marker": "o"}
            axes.plot(*zip(*line, strict=True), label=name, markersize=4, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(list(its), [str(n) for n in its], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        logarithmic(axes.yaxis, "")
        axes.tick_params(labelsize=8)
        axes.set_xlabel("sending threads", fontsize=9)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(axis="y", color="#e5e5e5")
        plain(axes)
    all_axes[0, 0].set_ylabel("items per second, logarithmic; higher is better", fontsize=9)
    figure.suptitle("Fan-in throughput: many threads send to one task", x=0.01, ha="left", fontsize=11)
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + len(shown), fontsize=8, frameon=False)
    return figure


def messages(by_kind: dict[Kind, dict[str, Record]]) -> Any:
    """Each contender by the quicker of what it has: copies, batches, claims."""
    records = by_kind.get(MAIN, {})
    titles = {"threads": "thread to thread", "loop": "thread to task"}
    shown: dict[str, dict[str, dict[int, float]]] = {}
    for where in titles:
        for name, record in records.items():
            family, _, rest = name.partition("_")
            size, _, its_where = rest.partition("_")
            if family in ("bytes", "claims") and its_where == where:
                for who, result in record["results"].items():
                    if who.endswith(", claims by with") or (family == "claims" and not who.endswith(", claims")):
                        continue
                    shown.setdefault(where, {}).setdefault(who, {})[int(size)] = 1e9 / median(result)
    shown = {where: lines for where, lines in shown.items() if any(len(line) > 1 for line in lines.values())}
    if not shown:
        return None
    figure, all_axes = plt.subplots(
        1, len(shown), figsize=(1 + 5 * len(shown), 6), sharey=True, squeeze=False, layout="constrained"
    )
    forms = {"": "-", ", batches": "--", ", claims": ":"}
    handles: dict[str, Any] = {}
    for axes, (where, lines) in zip(all_axes[0], shown.items(), strict=True):
        for who, line in lines.items():
            if who.startswith("nexus_channels.mpsc"):
                continue  # nearly as the other; it is in the tables
            base = who.removesuffix(", fresh bytes")
            style: Record = {"color": LINE.get(base, OTHERS), "linewidth": 1.4}
            if is_ours(who):
                form = who.removeprefix("nexus_channels.spsc_bytes")
                style = {"color": OURS, "linewidth": 2.6, "linestyle": forms.get(form, "-"), "zorder": 3}
            handles[who], *_ = axes.plot(*zip(*sorted(line.items()), strict=True), marker="o", markersize=4, **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sizes = sorted({size for line in lines.values() for size in line})
        axes.set_xticks(sizes, [f"{n // 1024} KiB" if n >= 1024 else f"{n} B" for n in sizes], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        logarithmic(axes.yaxis, "")
        axes.tick_params(labelsize=8)
        axes.set_xlabel("message size", fontsize=9)
        axes.set_title(titles[where], loc="left", fontsize=10)
        axes.grid(axis="y", color="#e5e5e5")
        plain(axes)
    all_axes[0, 0].set_ylabel("messages per second, logarithmic; higher is better", fontsize=9)
    figure.suptitle("Throughput of byte messages, by message size", x=0.01, ha="left", fontsize=11)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=1 + len(shown), fontsize=8, frameon=False
    )
    return figure


def native(by_kind: dict[Kind, dict[str, Record]]) -> Any:
    found = by_kind.get(MAIN, {}).get("native_beside_bytecode", {}).get("latency")
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")

    def style(name: str) -> Record:
        if "Python thread" in name:
            return {"color": OTHERS, "linewidth": 2}
        return {"color": OURS, "linewidth": 2.6, "linestyle": ":" if name.endswith("the call") else "-"}

    curves(axes, {name.removeprefix("nexus_channels, "): its for name, its in found.items()}, style)
    axes.set_ylabel("latency in µs, logarithmic; lower is better", fontsize=9)
    axes.set_xlabel("percentile of the messages", fontsize=9)
    axes.set_title("Send latency while another thread holds the GIL", loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
