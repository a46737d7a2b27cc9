"""`pytest --refleaks`, for debug builds of Python: each test is run several times, and must leave no reference behind.

As `python -m test -R 3:3` judges it: after some runs that fill caches, each further one has to grow the total to be a
leak; the first that does not ends the test. Counted are references, blocks of memory and file descriptors.
"""

import gc
import linecache
import os
import re
import sys
import sysconfig
import warnings

import parallel
import pytest
from _pytest.runner import runtestprotocol

WARM_UPS, MEASURED = 2, 5
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# {module: reason} or {module: {function: reason}}
UNCOUNTED = {
    "test_loops": {
        "test_the_ends_may_be_tasks_of_loops_of_different_kinds": "uvloop is built for interpreters that do not count",
    },
    "test_model_machines": "hypothesis remembers what it has tried",
}


def _reason_not_to_count(item):
    reason = parallel.ALONE.get(item.module.__name__, {})
    if not isinstance(reason, str):
        reason = reason.get(item.originalname)
    if reason == parallel.CHILDREN:
        return reason
    uvloop = hasattr(item, "callspec") and item.callspec.params.get("loop_factory") == "uvloop"
    if uvloop or "numpy" in item.name:
        return "built for interpreters that do not count references"
    if "tmp_path" in item.fixturenames:
        return "each run makes a folder, of which pytest remembers something"
    reason = UNCOUNTED.get(item.module.__name__, {})
    return reason if isinstance(reason, str) else reason.get(item.originalname)


def _clear_caches():
    for module in list(sys.modules.values()):
        if hasattr(module, "__warningregistry__"):
            del module.__warningregistry__
    re.purge()
    linecache.clearcache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
    for _ in range(3):
        gc.collect()


def _totals():
    """{what: how many}"""
    _clear_caches()
    interned = 0
    if sys.version_info >= (3, 13):  # those that live for ever count as two references each
        interned = sys.getunicodeinternedsize(_only_immortal=True)
    totals = {"references": sys.gettotalrefcount() - 2 * interned, "file descriptors": len(os.listdir("/dev/fd"))}
    if not FREE_THREADED:  # there each thread leaves a heap behind
        totals["blocks"] = sys.getallocatedblocks() - interned
    return totals


class RefLeaks:
    def __init__(self):
        if not hasattr(sys, "gettotalrefcount"):
            raise pytest.UsageError("--refleaks needs a debug build of Python")

    def pytest_report_header(self):
        return f"reference leaks: {WARM_UPS} runs to warm up, then up to {MEASURED} that all leave something behind"

    def pytest_runtest_protocol(self, item, nextitem):
        if _reason_not_to_count(item) is not None:
            return None  # run once, as ever
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = self._repeat(item, nextitem)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _repeat(self, item, nextitem):
        growth, before = {}, None
        for number in range(WARM_UPS + MEASURED):
            item._initrequest()
            item._report_sections.clear()
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if any(not report.passed for report in reports):
                return reports
            del reports[:-1]  # one that tells how long it took would do; and they hold what was printed
            after = _totals()
            if number >= WARM_UPS:
                for what, total in after.items():
                    growth.setdefault(what, []).append(total - before[what])
                if all(min(deltas) < 1 for deltas in growth.values()):
                    break
            before = after
        leaks = {what: deltas for what, deltas in growth.items() if min(deltas) >= 1}
        for report in reports:
            report.when = "call"
            if leaks:
                report.outcome = "failed"
                report.longrepr = "\n".join(f"{what} left behind, by run: {deltas}" for what, deltas in leaks.items())
        return reports
