#!/usr/bin/env python3
"""Weaken every memory order in nc_ring.h and nc_gate.h in turn and see who notices.

Each atomic operation that is not relaxed is tried relaxed, and one step weaker where there is such a step, in a copy of
the headers.  First the models get it, then, if none objects, the stress programs under ThreadSanitizer.  What nobody catches is printed
as such: either a model is missing, or the order is not needed for what is checked here.

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
HEADERS = ["nc_ring.h", "nc_gate.h"]
MODELS = {"nc_ring.h": ["ring.c", "gate.c"], "nc_gate.h": ["gate.c"]}
CFLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]

# An order that is passed in counts as seq_cst at the operation that it reaches.
ORDER = re.compile(r"memory_order_(?:acquire|release|acq_rel|seq_cst)|\b(?:publish|order)\b(?=\))")
WEAKER = {
    "load": {"seq_cst": ["acquire"]},
    "store": {"seq_cst": ["release"]},
    "rmw": {"seq_cst": ["acq_rel"], "acq_rel": ["acquire", "release"]},
    "failure": {},
}


class Mutation:
    def __init__(self, header, line, function, label, span, what, order, to):
        self.header, self.line, self.function, self.label = header, line, function, label
        self.span, self.what, self.order, self.to = span, what, order, to
        self.caught = None

    @property
    def where(self):
        return f"{self.header}:{self.line} `{self.function}`"


def strip_comments(text):
    """The same text with comments blanked, so that offsets stay."""
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def operations(text):
    """(start, end, name) of each atomic operation, and of each call that hands an order to one."""
    for m in re.finditer(r"\b(atomic_(load|store|exchange|fetch_\w+?|compare_exchange_\w+?)_explicit|nc_ring_fill)\(", text):
        depth, end = 1, m.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        kind = m.group(2)
        yield m.start(), end, "store" if kind is None else kind if kind in ("load", "store") else "rmw"


def label_of(text, start, end):
    """The labels named in the comment that ends the operation's line, or the one above it, or the one in its function."""
    tail = text[end : text.index("\n", end)]
    spot = text[start : text.index("\n", end)]
    for place in (tail, spot, text[text.rindex("\n", 0, text.rindex("\n", 0, start)) : start], text[max(0, start - 900) : start]):
        labels = re.findall(r"\b([RWBCA]\d)\b", " ".join(re.findall(r"/\*.*?\*/", place, flags=re.S)))
        if labels:
            return labels[-1] if place not in (tail, spot) else "/".join(dict.fromkeys(labels))
    return "-"


def mutations(header):
    text = (CSRC / header).read_text()
    code = strip_comments(text)
    for start, end, kind in operations(code):
        if code[start:end].startswith("nc_ring_fill(nc_ring *"):
            continue
        function = re.findall(r"^static inline [^;{]*?(\w+)\(", code[:start], flags=re.M)[-1]
        if function == "nc_ring_fill":
            continue  # its callers' orders are what counts
        orders = list(ORDER.finditer(code, start, end))
        for i, m in enumerate(orders):
            given = m.group().removeprefix("memory_order_")
            order = "seq_cst" if given in ("publish", "order") else given
            what = "failure" if kind == "rmw" and i == 1 else kind
            line = code.count("\n", 0, m.start()) + 1
            label = label_of(text, start, end)
            for to in ["relaxed", *WEAKER[what].get(order, [])]:
                yield Mutation(header, line, function, label, m.span(), what, order, to)


class Lab:
    def __init__(self, folder, cc):
        self.folder, self.cc = Path(folder), cc
        self.csrc = self.folder / "csrc"
        self.csrc.mkdir()
        for header in CSRC.glob("nc_*.h"):
            shutil.copy(header, self.csrc)
        self.engine = self.folder / "model.o"
        self.run([cc, "-O2", "-std=gnu11", "-c", HERE / "model/model.c", "-o", self.engine], check=True)

    @staticmethod
    def snapshot(folder):
        """Work on copies: the run is long, and somebody may edit meanwhile."""
        global HERE, CSRC
        HERE = Path(shutil.copytree(HERE, Path(folder) / "tests"))
        CSRC = Path(shutil.copytree(CSRC, Path(folder) / "pristine", ignore=lambda _, names: [n for n in names if n[:3] != "nc_"]))

    def run(self, command, check=False, timeout=300, env=None):
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
        )
        if check and done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    def plant(self, mutation):
        text = (CSRC / mutation.header).read_text()
        a, b = mutation.span
        unused = "(void)publish, " if text[a:b] == "publish" else "(void)order, " if text[a:b] == "order" else ""
        (self.csrc / mutation.header).write_text(f"{text[:a]}({unused}memory_order_{mutation.to}){text[b:]}")

    def restore(self, header):
        shutil.copy(CSRC / header, self.csrc)

    def model(self, source):
        """Who objects, or None."""
        obj, program = self.folder / "m.o", self.folder / "m"
        self.run(
            [self.cc, "-O1", *CFLAGS, '-DNC_MODEL="model.h"', f"-I{HERE / 'model'}", f"-I{HERE}", f"-I{self.csrc}",
             "-fsanitize=thread", "-c", HERE / "model" / source, "-o", obj], check=True)  # fmt: skip
        self.run([self.cc, obj, self.engine, "-o", program], check=True)
        try:
            done = self.run([program, "-x"])
        except subprocess.TimeoutExpired:
            return f"model `{source}`: no end"
        failed = re.search(r"^FAILED (.*?) +\d+ executions.*: (.*)$", done.stdout, flags=re.M)
        if failed:
            return f"model \"{failed.group(1)}\": {failed.group(2)}"
        return f"model {source}: exit {done.returncode} {done.stderr}" if done.returncode else None

    def stress(self, source):
        program = self.folder / "s"
        self.run([self.cc, "-O1", "-g", *CFLAGS, f"-I{HERE}", f"-I{self.csrc}", "-fsanitize=thread", HERE / source,
                  "-pthread", "-o", program], check=True)  # fmt: skip
        done = self.run([program], env={"TSAN_OPTIONS": "halt_on_error=1", "STRESS_ITEMS": "20000"})
        if "ThreadSanitizer" in done.stderr:
            return f"TSan, {source}"
        return f"{source}: exit {done.returncode}" if done.returncode else None

    def try_out(self, mutation):
        self.plant(mutation)
        mutation.caught = None
        for source in MODELS[mutation.header]:
            mutation.caught = mutation.caught or self.model(source)
        for source in ["stress_ring.c", "stress_gate.c"]:
            if mutation.caught is None and (HERE / source).exists():
                mutation.caught = self.stress(source)
        self.restore(mutation.header)


def table(rows):
    yield "| label | where | operation | order | tried | caught by |"
    yield "|---|---|---|---|---|---|"
    for m in rows:
        caught = (m.caught or "**nobody**").replace("|", "\\|")
        yield f"| {m.label} | {m.where} | {m.what} | {m.order} | {m.to} | {caught} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--label", help="only orders with this label, or in this function")
    parser.add_argument("--only-relaxed", action="store_true", help="not the steps in between")
    parser.add_argument("--list", action="store_true", help="say what there is, try nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Lab.snapshot(folder)
        todo = [m for header in HEADERS for m in mutations(header)]
        if args.label:
            todo = [m for m in todo if args.label in m.label.split("/") or args.label == m.function]
        if args.only_relaxed:
            todo = [m for m in todo if m.to == "relaxed"]
        lab = Lab(folder, os.environ.get("CC", "gcc"))
        for m in todo if not args.list else []:
            lab.try_out(m)
            print(f"{m.label:6} {m.where:50} {m.order:8} -> {m.to:8} {m.caught or 'NOBODY'}", flush=True)
    text = "\n".join(table(todo)) + "\n"
    if args.output:
        args.output.write_text(text)
    elif args.list:
        print(text)
    missed = [m for m in todo if m.to == "relaxed" and not m.caught]
    print(f"{len(todo)} mutations, {len(missed)} relaxed ones caught by nobody")
    return 0


if __name__ == "__main__":
    sys.exit(main())
