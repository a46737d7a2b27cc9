"""Runs the test suite of another queue on the queue faces: `python queue_suites.py SUITE [FOLDER]`.

The suites are CPython's own `test.test_queue` and `test.test_asyncio.test_queues`, from the interpreter's `test`
package, and those of janus and culsans, from a FOLDER with their sdist.  Nothing of them is copied.  Where a suite
makes a queue without a bound, it gets one with room for ROOM items.  SUITES names each test that is left out, with the
reason.

Prints a line of JSON: how many tests ran, what failed, what was left out, and which rows of SUITES name no test.
"""

import asyncio
import fnmatch
import functools
import importlib
import inspect
import json
import os
import pathlib
import queue
import sys
import threading
import types

import pytest

from nexus_channels import queue as faces

ROOM = 100_000  # some suites put 65,536 items before they take the first

# ---- what is left out, and why -------------------------------------------------------------------------------------

OTHER_ORDERS = "there is no LifoQueue and no PriorityQueue: a channel keeps the order in which items were put"
SIMPLE = "is about queue.SimpleQueue"
HOOKS = "overrides _put and _get, which a subclass of a face may not define: see test_queue_face.py"
RESIZED = "sets maxsize, which is fixed: the ring of a channel is made once"
INSIDES = "looks at attributes that asyncio.Queue, or janus, has for its own use"
UNBOUNDED = "is about queues without a bound, maxsize=0, which are refused"
FLOAT = "maxsize=1.3: an int is asked for, as a bound of 1.3 items is a mistake"
REPR = "is about the text of repr(), where asyncio.Queue shows its items and futures"
BOUND = "is about a queue that belongs to one event loop: a face belongs to none"
OWN_CALLS = "is about calls that culsans has beyond queue.Queue and asyncio.Queue"
ALIAS = "asks that Queue[int] be a types.GenericAlias; Queue is a typing.Generic, whose alias is another class"
SPEED = "is a benchmark, for pytest-benchmark"

ORDERS = {"*LifoQueue*::*": OTHER_ORDERS, "*PriorityQueue*::*": OTHER_ORDERS}
NEW = sys.version_info >= (3, 13)
SUITES = {
    "cpython-queue": {
        **ORDERS,
        "*SimpleQueueTest::*": SIMPLE,
        "*FailingQueueTest::*": HOOKS,
        "CQueueTest::*": "is PyQueueTest again, for the queue module with its part in C",
        "*::test_shrinking_queue": RESIZED,
    },
    "cpython-asyncio": {
        **ORDERS,
        "*::test_generic_alias": ALIAS,
        "*::test_repr": REPR,
        "*::test_str": REPR,
        "*::test_format": INSIDES,
        "*::test_get_with_putters": INSIDES,
        "*::test_cancelled_getters_not_being_held_in_self_getters": INSIDES,
        "*::test_cancelled_puts_not_being_held_in_self_putters": INSIDES,
        "*::test_float_maxsize": FLOAT,
    },
    "janus": {
        **ORDERS,
        "*test_benchmarks.py::*": SPEED,
        "TestFailingQueue::*": HOOKS,
        "TestQueue::test_shrinking_queue": RESIZED,
        "*::test_get_loop_ok": BOUND,
        "*::test_get_loop_different_loop": BOUND,
        "*::test_maxsize_default": UNBOUNDED,
        "*::test_float_maxsize": FLOAT,
        "*::test_negative_timeout_raises_exception": "asks for the very words of a ValueError, which are others here",
    },
    "culsans": {
        **ORDERS,
        "*FailingQueueTest::*": HOOKS,
        "*::test_shrinking_queue": RESIZED,
        "*::test_growing_and_shrinking": RESIZED,
        "*::test_setters": RESIZED,
        "*::test_init": UNBOUNDED,
        "*::test_getters": UNBOUNDED,
        "*::test_float_maxsize": FLOAT,
        "*::test_peek": OWN_CALLS,
        "*::test_clear": OWN_CALLS,
    },
}

# ---- the faces, by the names and with the arguments of the others --------------------------------------------------


def bounded(maxsize):
    return ROOM if maxsize == 0 else maxsize


class SyncFace(faces.SyncQueue):
    """queue.Queue"""

    def __init__(self, maxsize=0):
        super().__init__(faces.Queue(bounded(maxsize))._ends)


class AsyncFace(faces.AsyncQueue):
    """asyncio.Queue"""

    def __init__(self, maxsize=0):
        super().__init__(faces.Queue(bounded(maxsize))._ends)


class Both(faces.Queue):
    """janus.Queue, culsans.Queue"""

    def __init__(self, maxsize=0):
        super().__init__(bounded(maxsize))
        OWNERS[self._ends] = self

    def __init_subclass__(cls):
        """Lets the modules define the subclasses whose tests are left out."""


SyncFace.__name__ = AsyncFace.__name__ = Both.__name__ = "Queue"  # by which the suites tell the order of the items


def prepare_cpython_queue():
    module = importlib.import_module("test.test_queue")
    face = types.SimpleNamespace(
        Queue=SyncFace, Empty=queue.Empty, Full=queue.Full, ShutDown=getattr(queue, "ShutDown", None)
    )
    module.PyQueueTest.queue = module.CQueueTest.queue = face
    return module.__file__


def prepare_cpython_asyncio():
    asyncio.Queue = AsyncFace
    return importlib.import_module("test.test_asyncio.test_queues").__file__


OWNERS = {}


def prepare_sdist(name, folder):
    # What these suites ask of the insides.
    Both._sync_mutex = threading.Lock()  # they wait until it is free
    Both._maxsize = Both.maxsize
    Both._qsize = lambda self: self.sync_q.qsize()
    Both.getting = property(lambda self: self._ends.rx.statistics().waiting_receivers)
    Both.putting = property(lambda self: self._ends.tx.statistics().waiting_senders)
    Both._sync_not_empty_waiting = Both._async_not_empty_waiting = Both.getting
    Both._sync_not_full_waiting = Both._async_not_full_waiting = Both.putting
    faces.BaseQueue._parent = faces.BaseQueue.wrapped = property(lambda self: OWNERS[self._ends])
    module = types.ModuleType(name)
    vars(module).update({exported: getattr(faces, exported) for exported in faces.__all__})
    module.Queue = module.LifoQueue = module.PriorityQueue = Both
    sys.modules[name] = module
    return str(pathlib.Path(folder) / "tests")


PREPARE = {
    "cpython-queue": prepare_cpython_queue,
    "cpython-asyncio": prepare_cpython_asyncio,
    "janus": functools.partial(prepare_sdist, "janus"),
    "culsans": functools.partial(prepare_sdist, "culsans"),
}


# ---- running -------------------------------------------------------------------------------------------------------


class Runner:
    """A plugin of pytest: leaves tests out, awaits those that are coroutines, and counts."""

    def __init__(self, left_out):
        self.left_out = left_out
        self.unknown = set(left_out)
        self.omitted, self.ran, self.failed = [], [], []

    def pytest_configure(self, config):
        config.addinivalue_line("markers", "asyncio: a coroutine")

    def pytest_collection_modifyitems(self, items):
        for item in list(items):
            name = "::".join(item.nodeid.split("::")[-2:])
            found = [pattern for pattern in self.left_out if fnmatch.fnmatchcase(name, pattern)]
            if found:
                self.unknown -= set(found)
                self.omitted.append(name)
                items.remove(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        asyncio.run(pyfuncitem.obj())
        return True

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.ran.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def main(suite, *folder):
    runner = Runner(SUITES[suite])
    where = PREPARE[suite](*folder)
    options = ["-q", "-c", "/dev/null", "--rootdir", str(pathlib.Path(where).parent), "-p", "no:cacheprovider"]
    pytest.main([where, *options, "--timeout=60"], plugins=[runner])
    result = {"ran": len(runner.ran), "failed": runner.failed, "left_out": len(runner.omitted)}
    print("\n" + json.dumps(result | {"unknown": sorted(runner.unknown)}), flush=True)
    os._exit(0)  # not held up by a thread that a failed test left behind


if __name__ == "__main__":
    main(*sys.argv[1:])
