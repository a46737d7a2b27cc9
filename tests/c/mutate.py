#!/usr/bin/env python3
"""Weaken every memory order in the headers of the core in turn and see who notices.

Each atomic operation that is not relaxed is tried relaxed, and one step weaker where there is such a step, in a copy
of the headers.  First the models get it, then, if none objects, the stress programs under ThreadSanitizer.  What nobody
catches is printed as such: either a model is missing, or the order is not needed for what is checked here.

    mutate.py [-o MUTATIONS.md] [--label R1] [--only-relaxed]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"  # a snapshot of both takes their place while it runs
BYTES = "-DCHAN_OF_BYTES"
# Who is asked, in this order: models, then stress programs under ThreadSanitizer; source and definitions.
MODELS = {
    "nc_ring.h": ["ring.c", "gate.c"],
    "nc_log.h": ["log.c", f"gate.c {BYTES}"],
    "nc_log_reader.h": ["log.c"],
    "nc_gate.h": ["gate.c", f"gate.c {BYTES}", "select.c"],
    "nc_end.h": ["end.c"],
    "nc_chan.h": ["gate.c", f"gate.c {BYTES}", "select.c"],
    "nc_lane.h": ["lane.c"],
    "nc_lanes.h": ["lanes.c"],
}
STRESS = {
    "nc_ring.h": ["stress_ring.c", "stress_gate.c"],
    "nc_log.h": ["stress_log.c", f"stress_gate.c {BYTES}"],
    "nc_log_reader.h": [],
    "nc_gate.h": ["stress_gate.c", f"stress_gate.c {BYTES}"],
    "nc_end.h": [],
    "nc_chan.h": [],
    "nc_lane.h": ["stress_lane.c"],
    "nc_lanes.h": [],
}
CFLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]

# An order that is passed in counts as seq_cst at the operation that it reaches.
ORDER = re.compile(r"memory_order_(?:acquire|release|acq_rel|seq_cst)|\b(?:publish|order)\b(?=\))")
WEAKER = {
    "load": {"seq_cst": ["acquire"]},
    "store": {"seq_cst": ["release"]},
    "rmw": {"seq_cst": ["acq_rel"], "acq_rel": ["acquire", "release"]},
    "failure": {},
}

# What nobody can catch, and why: (function, order, tried) -> the reason.  Anything else that is not caught is an error.
R2 = (
    "R1 and A1 carry it already: a producer has written what its values point to before it swaps `tail`, which "
    "releases, and the consumer has acquired a `tail` past the slot before it reads it."
)
F2 = (
    "It orders what a fork copies, which no model does: a child sees how far the thread got. "
    "`test_log.c` takes such copies."
)
ARGUED = {
    ("nc_ring_pop_mpsc", "acquire", "relaxed", "A2"): R2,
    ("nc_log_commit_sp", "release", "relaxed", "F2"): F2,
    ("nc_log_advance_sc", "release", "relaxed", "F2"): F2,
    ("nc_post_abandon", "acq_rel", "release", "B4"): (
        "Who abandons with success never looks at the waiter again, so this half is not used; but C11 wants the order "
        "of success to be no weaker than that of failure, which acquires."
    ),
    ("nc_gate_set_flag", "release", "relaxed", "W1"): (
        "The lowered flag carries nothing: who reads 0 does nothing, and who reads NC_GONE acts on it under the gate's "
        "lock. Relaxed would do."
    ),
    (
        "nc_gate_set_over",
        "seq_cst",
        "release",
        "C1",
    ): "Release is enough: nothing is read after. It runs once a channel.",
}


class Mutation:
    def __init__(self, header, function, target, label, span, what, order, to):
        self.header, self.function, self.target, self.label = header, function, target, label
        self.span, self.what, self.order, self.to = span, what, order, to
        self.caught = None

    @property
    def argued(self):
        keys = [(self.function, self.order, self.to), *((self.function, self.order, self.to, k) for k in self.labels)]
        return next((ARGUED[key] for key in keys if key in ARGUED), None)

    @property
    def labels(self):
        return self.label.split("/")

    @property
    def where(self):
        return f"{self.header} `{self.function}`: `{self.target}`"


def strip_comments(text):
    """The same text with comments blanked, so that offsets stay."""
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)


def operations(text):
    """(start, end, name) of each atomic operation, and of each call that hands an order to one."""
    for m in re.finditer(r"\b(atomic_(load|store|exchange|fetch_\w+?|compare_\w+?)_explicit|nc_ring_fill)\(", text):
        depth, end = 1, m.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        kind = m.group(2)
        yield m.start(), end, "store" if kind is None else kind if kind in ("load", "store") else "rmw"


def first_argument(call):
    """The text between the first parenthesis and the first comma that is in no other."""
    begin = call.index("(") + 1
    depth = 0
    for i, c in enumerate(call[begin:], begin):
        if c == "," and depth == 0:
            return call[begin:i]
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(c, 0)
    return call[begin:-1]


def label_of(text, start, end):
    """The labels in the comment on the operation's line, else the nearest one above it."""
    line_end = text.index("\n", end)
    for place, last in ((text[end:line_end], False), (text[start:line_end], False), (text[start - 900 : start], True)):
        labels = re.findall(r"\b([RWBCALNFP]\d)\b", " ".join(re.findall(r"/\*.*?\*/", place, flags=re.DOTALL)))
        if labels:
            return labels[-1] if last else "/".join(dict.fromkeys(labels))
    return "-"


def mutations(header):
    text = (CSRC / header).read_text()
    code = strip_comments(text)
    for start, end, kind in operations(code):
        if code[start:end].startswith("nc_ring_fill(nc_ring *"):
            continue
        function = re.findall(r"^(?:NC_\w+ )?static inline [^;{]*?(\w+)\(", code[:start], flags=re.MULTILINE)[-1]
        if function == "nc_ring_fill":
            continue  # its callers' orders are what counts
        orders = list(ORDER.finditer(code, start, end))
        for i, m in enumerate(orders):
            given = m.group().removeprefix("memory_order_")
            order = "seq_cst" if given in ("publish", "order") else given
            what = "failure" if kind == "rmw" and i == 1 else kind
            target = first_argument(code[start:end]).lstrip("&")
            target = "slot" if target == "r" else target  # nc_ring_fill
            label = label_of(text, start, end)
            for to in ["relaxed", *WEAKER[what].get(order, [])]:
                yield Mutation(header, function, target, label, m.span(), what, order, to)


class Lab:
    def __init__(self, folder, cc):
        self.folder, self.cc = Path(folder), cc
        self.csrc = self.folder / "csrc"
        self.csrc.mkdir()
        for header in [*CSRC.glob("nc_*.h"), *CSRC.glob("os_*.h")]:
            shutil.copy(header, self.csrc)
        self.engine = self.folder / "model.o"
        self.run([cc, "-O2", "-std=gnu11", "-c", HERE / "model/model.c", "-o", self.engine], check=True)

    @staticmethod
    def snapshot(folder):
        """Work on copies: the run is long, and somebody may edit meanwhile."""
        global HERE, CSRC
        HERE = Path(shutil.copytree(HERE, Path(folder) / "tests"))
        CSRC = Path(shutil.copytree(CSRC, Path(folder) / "pristine"))

    def run(self, command, check=False, timeout=300, env=None):
        command, env = [str(part) for part in command], {**os.environ, **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
        if check and done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def plant(self, mutation):
        text = (CSRC / mutation.header).read_text()
        a, b = mutation.span
        unused = "(void)publish, " if text[a:b] == "publish" else "(void)order, " if text[a:b] == "order" else ""
        (self.csrc / mutation.header).write_text(f"{text[:a]}({unused}memory_order_{mutation.to}){text[b:]}")

    def restore(self, header):
        shutil.copy(CSRC / header, self.csrc)

    def model(self, what):
        """Who objects, or None."""
        source, *defines = what.split()
        obj, program = self.folder / "m.o", self.folder / "m"
        self.run(
            [self.cc, "-O1", *CFLAGS, *defines, '-DNC_MODEL="model.h"', f"-I{HERE / 'model'}", f"-I{self.csrc}",
             f"-I{HERE}", "-fsanitize=thread", "-c", HERE / "model" / source, "-o", obj], check=True)  # fmt: skip
        self.run([self.cc, obj, self.engine, "-o", program], check=True)
        try:
            done = self.run([program, "-x"])
        except subprocess.TimeoutExpired:
            return f"model {what}: no end"
        failed = re.search(r"^FAILED (.*?) +\d+ executions.*: (.*)$", done.stdout, flags=re.MULTILINE)
        if failed:
            of_bytes = " (bytes)" if defines else ""
            return f'model "{failed.group(1)}"{of_bytes}: {failed.group(2)}'
        return f"model {what}: exit {done.returncode} {done.stderr}" if done.returncode else None

    def stress(self, what):
        source, *defines = what.split()
        program = self.folder / "s"
        self.run([self.cc, "-O1", "-g", *CFLAGS, *defines, f"-I{HERE}", f"-I{self.csrc}", "-fsanitize=thread",
                  HERE / source, "-pthread", "-o", program], check=True)  # fmt: skip
        done = self.run([program], env={"TSAN_OPTIONS": "halt_on_error=1", "STRESS_ITEMS": "20000"})
        if "ThreadSanitizer" in done.stderr:
            return f"TSan, {what}"
        return f"{what}: exit {done.returncode}" if done.returncode else None

    def try_out(self, mutation):
        self.plant(mutation)
        mutation.caught = None
        for what in MODELS[mutation.header]:
            mutation.caught = mutation.caught or self.model(what)
        for what in STRESS[mutation.header]:
            mutation.caught = mutation.caught or self.stress(what)
        self.restore(mutation.header)


def summary(rows):
    caught, argued = sum(bool(m.caught) for m in rows), sum(not m.caught and bool(m.argued) for m in rows)
    return f"{len(rows)} tried, {caught} caught, {argued} argued, {len(rows) - caught - argued} neither"


def report(rows):
    yield "# Every memory order weakened in turn, and who noticed"
    yield ""
    yield "Made by `tests/c/mutate.py`, which says what is tried. Each row is one change to a copy of the headers. A"
    yield "model is one of `tests/c/model`; TSan is a stress program of `tests/c` under ThreadSanitizer. What a label"
    yield "stands for is in `csrc/PROTOCOL.md`, and there, in short, who notices what."
    yield ""
    yield "| label | where | operation | order | tried | caught by |"
    yield "|---|---|---|---|---|---|"
    reasons = []
    for m in rows:
        caught = m.caught
        if caught is None and m.argued:
            if m.argued not in reasons:
                reasons.append(m.argued)
            caught = f"nobody: reason {reasons.index(m.argued) + 1}"
        caught = (caught or "**nobody**").replace("|", "\\|")
        yield f"| {m.label} | {m.where} | {m.what} | {m.order} | {m.to} | {caught} |"
    yield ""
    yield summary(rows)
    yield ""
    yield "## Reasons"
    yield ""
    yield from (f"{i}. {reason}" for i, reason in enumerate(reasons, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--label", help="only orders with this label, or in this function")
    parser.add_argument("--header", help="only this one")
    parser.add_argument("--only-relaxed", action="store_true", help="not the steps in between")
    parser.add_argument("--list", action="store_true", help="say what there is, try nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Lab.snapshot(folder)
        todo = [m for header in MODELS for m in mutations(header)]
        if args.label:
            todo = [m for m in todo if args.label in m.label.split("/") or args.label == m.function]
        if args.header:
            todo = [m for m in todo if args.header == m.header]
        if args.only_relaxed:
            todo = [m for m in todo if m.to == "relaxed"]
        lab = Lab(folder, os.environ.get("CC", "gcc"))
        for m in todo if not args.list else []:
            lab.try_out(m)
            print(f"{m.label:6} {m.where:64} {m.order:8} -> {m.to:8} {m.caught or 'NOBODY'}", flush=True)
    text = "\n".join(report(todo)) + "\n"
    if args.list:
        print(text)
    elif args.output:
        args.output.write_text(text)
    print(summary(todo))
    unexplained = [m for m in todo if not m.caught and not m.argued]
    return 1 if unexplained and not args.list else 0


if __name__ == "__main__":
    sys.exit(main())
