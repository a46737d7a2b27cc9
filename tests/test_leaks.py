"""Nothing is left behind: references, blocks and memory stay flat. Each measurement is a process of its own."""

import sys

import pytest
from harness import SLOWNESS, STRESS, reuses_memory, run_child, size, takes_long
from leak_operations import operations

from nexus_channels import local, mpsc, spsc

DEBUG_BUILD = hasattr(sys, "gettotalrefcount")

SETUP = """
import asyncio, gc, importlib, os, sys, tracemalloc
from leak_operations import collect_all, operations
module = importlib.import_module("nexus_channels." + sys.argv[1])
wanted = sys.argv[2]
made = operations(module)
def warm_up(name):
    # these look up attributes, or run loops: the caches for that fill for long, with or without channels
    return {"pickling": 1000, "a_loop_of_its_own": 1000}.get(name, 20)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
"""

CASES = [(module.__name__.rpartition(".")[2], name) for module in (local, spsc, mpsc) for name in operations(module)]


@pytest.mark.skipif(not DEBUG_BUILD, reason="only debug builds count all references")
@takes_long(short=240)
@pytest.mark.parametrize("name", ["local", "spsc", "mpsc"])
def test_the_total_of_references_stays_flat_over_each_operation(name):
    script = f"""
{SETUP}
for _ in range(500):  # asyncio's own caches take this long to fill
    asyncio.run(asyncio.sleep(0))
leaks = []
for name, operation in made.items():
    rounds = {size(100, 1000)} if name not in ("a_loop_of_its_own", "threads_that_wait") else {size(30, 300)}
    for _ in range(warm_up(name)):
        operation()
    best = None
    for attempt in range(15):  # caches of the interpreter fill for a while
        collect_all()
        before = sys.gettotalrefcount()
        for _ in range(rounds):
            operation()
        collect_all()
        grown = sys.gettotalrefcount() - before
        best = grown if best is None else min(best, grown)
        if best <= 3:
            break
    if best > 3:
        leaks.append((name, best, rounds))
assert not leaks, leaks
"""
    run_child(script, name, "all", seconds=600 if STRESS else 200)


@takes_long()
@pytest.mark.parametrize("name", ["local", "spsc", "mpsc"])
def test_the_count_of_allocated_blocks_stays_flat_over_each_operation(name):
    """sys.getallocatedblocks() sees every small object and buffer of Python's allocator, on any build."""
    script = f"""
{SETUP}
for _ in range(500):  # asyncio's own caches take this long to fill
    asyncio.run(asyncio.sleep(0))
leaks = []
for name, operation in made.items():
    rounds = {size(50, 1000)} if name not in ("a_loop_of_its_own", "threads_that_wait") else {size(10, 300)}
    for _ in range(warm_up(name)):
        operation()
    best = None
    for attempt in range(15):  # caches of the interpreter fill for a while
        collect_all()
        before = sys.getallocatedblocks()
        for _ in range(rounds):
            operation()
        collect_all()
        grown = sys.getallocatedblocks() - before
        best = grown if best is None else min(best, grown)
        if best <= 3:
            break
    if best > 3:
        leaks.append((name, best, rounds))
assert not leaks, leaks
"""
    run_child(script, name, "all", seconds=600 if STRESS else 100)


RESIDENT = f"""
{SETUP}
def grow(rounds):
    operation = made[wanted]
    for _ in range(rounds):
        operation()
rounds = int(sys.argv[3])
grow(max(rounds // 5, 200))
collect_all()
start = resident()
grow(rounds)
collect_all()
grown = resident() - start
assert grown < 2 * 1024 * 1024, f"{{grown / 1024:.0f}} KiB in {{rounds}} rounds"
"""


@takes_long()
@pytest.mark.parametrize("name", ["local", "spsc", "mpsc"])
@pytest.mark.parametrize("operation", ["create_and_drop", "try_calls", "create_and_close"])
@reuses_memory
def test_resident_memory_stays_flat_over_channels_that_come_and_go(name, operation):
    """What tracemalloc and the reference counts do not see: rings, gates, boxes."""
    run_child(RESIDENT, name, operation, size(50_000, 1_000_000), seconds=300)


@takes_long()
@pytest.mark.parametrize(
    "operation",
    ["tasks_that_wait", "tasks_that_are_cancelled", "parked_and_dropped", "blocking_timeouts", "threads_that_wait"],
)
@reuses_memory
def test_resident_memory_stays_flat_over_waits(operation):
    rounds = size(1_000, 20_000) if operation == "threads_that_wait" else size(3_000, 100_000)
    run_child(RESIDENT, "mpsc", operation, rounds, seconds=300)


@pytest.mark.parametrize(("name", "operation"), [case for case in CASES if case[1].startswith("cycles")])
def test_pitfall_29_cycles_through_a_buffer_are_collected(name, operation):
    script = f"""
{SETUP}
gc.disable()
for _ in range(100):
    made[wanted]()  # a few awaitables that ended are kept, to be used again
collect_all()
before = len(gc.get_objects())
for _ in range(100):
    made[wanted]()
assert len(gc.get_objects()) > before + 100
collect_all()
assert len(gc.get_objects()) <= before + 5, len(gc.get_objects()) - before
"""
    run_child(script, name, operation)


@reuses_memory
def test_an_idle_channel_is_small(variant):
    """At most 1 KiB and 16 bytes a slot."""
    script = """
import importlib, os, sys, sysconfig
module = importlib.import_module("nexus_channels." + sys.argv[1])
lines = 128 if sysconfig.get_config_var("Py_GIL_DISABLED") else 0  # cache lines of each side's own
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
for capacity, count in ((1, 20_000), (64, 10_000), (4096, 500)):
    keep = [module.channel(capacity) for _ in range(100)]
    keep.extend([None] * count)
    start = resident()
    for index in range(count):
        keep[index] = module.channel(capacity)
    each = (resident() - start) / count
    assert each <= 1024 + lines + 16 * capacity + 100, (capacity, each)  # 100: the named tuple around it
"""
    run_child(script, variant.__name__.rpartition(".")[2], seconds=30 * SLOWNESS)
