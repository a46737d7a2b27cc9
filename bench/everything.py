"""All that docs/benchmarks.md shows, in one go: `python bench/everything.py [--python PATH]... [-o docs]`.

Each interpreter needs the project installed in it, with `bench` of its extras as far as these install there; what a
contender lacks is told in the report. This one, which needs matplotlib, is measured too where no --python is given.
What each is measured for:

- CPython 3.11: everything on asyncio; what runs on a loop on uvloop; round trips beside a thread that burns bytecode;
  bytes of an idle channel
- each: how late timers are beside a busy receiver, what a select costs, what a logging call costs
- another version with a GIL: what there are bars for, and the shortest scenarios
- a free-threaded one: threads among themselves, many threads to a task

Nothing is measured twice: started again, it goes on where it was interrupted, unless --afresh is given. Takes
forty minutes on two cores, which should do nothing else.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TELL = (
    "import sys, sysconfig; print(f'{sys.version_info[0]}.{sys.version_info[1]}'"
    " + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
)

ON_LOOPS = (
    *("await_ready", "pingpong_loop", "pipeline_64", "pipeline_1024", "thread_to_loop", "loop_to_thread", "fan_in_4"),
    *("pingpong_thread_loop", "loop_to_loop", "wake_many_1000", "bytes_64_loop"),
)
FREE_THREADED = ("try_pair", "thread_to_thread", "fan_in_*", "bytes_64_threads")
SHORTEST = ("try_pair", "await_ready", "pingpong_loop", "pipeline_64", "thread_to_thread", "thread_to_loop")
BURNING = ("pingpong_*",)


def plan(version: str) -> list[list[str]]:
    """The arguments of each run of run.py."""
    if version.endswith("t"):
        return [named(FREE_THREADED)]
    if version != "3.11":
        return [["--barred"], named(SHORTEST)]
    return [
        ["--scenario", "*"],
        ["--loop", "uvloop", "--latency", "20000", *named(ON_LOOPS)],
        ["--burn", "--rounds", "5", *named(BURNING)],
    ]


def named(scenarios: tuple[str, ...]) -> list[str]:
    return [word for name in scenarios for word in ("--scenario", name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter to measure with")
    parser.add_argument("-o", "--output", default="docs", help="for the report, its plots and the results (docs)")
    parser.add_argument("--afresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--rounds", default="19")
    parser.add_argument("--seconds", help="how long one entry runs in one round, about")
    parser.add_argument("--latency", help="round trips to time one by one")
    options = parser.parse_args()
    out = Path(options.output)
    out.mkdir(exist_ok=True)
    results, memory = out / "benchmarks.json", out / "benchmarks-memory.json"
    programs = {"heartbeat": "heartbeat.py", "select": "select_calls.py", "logging": "logging_calls.py"}
    tables = {name: out / f"benchmarks-{name}.json" for name in programs}
    if options.afresh:
        for path in (results, memory, *tables.values()):
            path.unlink(missing_ok=True)
    more = [
        word for name in ("seconds", "latency") if (value := getattr(options, name)) for word in (f"--{name}", value)
    ]
    failed = []

    def run(python: str, *command: str, **env: str) -> None:
        print("$", python, *command, flush=True)
        began = time.monotonic()
        done = subprocess.run([python, *command], check=False, env={**os.environ, **env})
        print(f"{time.monotonic() - began:.0f} s, exit {done.returncode}\n", flush=True)
        if done.returncode:
            failed.append(" ".join((python, *command)))

    for python in options.python or [sys.executable]:
        version = subprocess.run([python, "-c", TELL], check=True, capture_output=True, text=True).stdout.strip()
        # A module that knows nothing of free threads would turn the GIL on, for all.
        env = {"PYTHON_GIL": "0"} if version.endswith("t") else {}
        for arguments in plan(version):
            start = (str(HERE / "run.py"), "--json", str(results), "--resume", "--rounds", options.rounds)
            run(python, *start, *more, *arguments, **env)
        if version == "3.11" and not memory.exists():
            run(python, str(HERE / "memory.py"), "--count", "20000", "--json", str(memory))
        for name, program in programs.items():
            run(python, str(HERE / program), "--json", str(tables[name]), **env)
    found = {"memory": memory, **tables}
    more_tables = [word for name, path in found.items() if path.exists() for word in (f"--{name}", str(path))]
    run(sys.executable, str(HERE / "report.py"), str(results), *more_tables, "-o", str(out))
    for command in failed:
        print("failed:", command, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
