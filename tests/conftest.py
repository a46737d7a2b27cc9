"""Fixtures of the whole suite. Plain functions are in lib/support.py, the hand-stepped loop in lib/steploop.py."""

import asyncio
import faulthandler
import gc
import importlib
import importlib.util
import os
import signal

import aio
import native_driver
import parallel
import pytest
import refleak
import slow
from steploop import StepLoop
from support import DEADLINE, Spawned

OBJECT_VARIANTS = ["local", "spsc", "mpsc"]
BYTES_VARIANTS = ["spsc_bytes", "mpsc_bytes"]
LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
TRIO = ["trio"] if importlib.util.find_spec("trio") else []

_stderr = None


def pytest_addoption(parser):
    parser.addoption("--refleaks", action="store_true", help="run each test several times and count references")


def pytest_configure(config):
    global _stderr
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's & does that, and every child would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--refleaks"):
        config.pluginmanager.register(refleak.RefLeaks(), "refleaks")
    config.addinivalue_line("markers", "watchdog(seconds): end the run with all stacks when the test takes longer")
    config.addinivalue_line("markers", "asyncio_only(reason): not run on trio, in a module of EVERY_LOOP")
    config.addinivalue_line("markers", "thread_unsafe(reason): run by one thread, also with --parallel-threads")
    # Captured output is lost when the watchdog ends the process, so keep a way to the real stderr.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        _stderr = os.dup(2)


def pytest_unconfigure():
    os.close(_stderr)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    for item in items:
        if reason := slow.reason(item.module.__name__, item.originalname):
            item.add_marker(pytest.mark.slow(reason))
    if str(config.getoption("--parallel-threads", 1)) != "1":
        for item in items:
            parallel.make_parallel(item)


def pytest_generate_tests(metafunc):
    """A module that says EVERY_LOOP = True has its tests run on trio, too, where they ask for `run` or `step_loop`."""
    names = metafunc.fixturenames
    every = getattr(metafunc.module, "EVERY_LOOP", False) and not metafunc.definition.get_closest_marker("asyncio_only")
    if "loop_factory" in names:
        metafunc.parametrize("loop_factory", LOOPS + (TRIO if every and "run" in names else []), indirect=True)
    if every and "step_loop" in names:
        metafunc.parametrize("step_loop", ["asyncio", *TRIO], indirect=True)


def freeze():
    """Set pytest's own objects aside, so that the many full collections of the tests take no time."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    ran = yield
    if nextitem is not None and nextitem.path != item.path:
        freeze()  # the reports of a file's tests, too
    return ran


def pytest_report_header():
    return f"event loops: {', '.join(LOOPS + TRIO)}"


@pytest.fixture(autouse=True)
def watchdog(request):
    """A test that hangs, be it in C with the GIL held, ends the run and says where."""
    marker = request.node.get_closest_marker("watchdog")
    seconds = marker.args[0] if marker else 3 * DEADLINE
    # Later than pytest-timeout, which ends the test alone where it can.
    faulthandler.dump_traceback_later(seconds + 15, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


def _variant(request):
    return importlib.import_module(f"nexus_channels.{request.param}")


@pytest.fixture(params=OBJECT_VARIANTS)
def variant(request):
    """Each of the object channel modules."""
    return _variant(request)


@pytest.fixture(params=["spsc", "mpsc"])
def threaded(request):
    """Each object channel module whose ends may live in different threads."""
    return _variant(request)


@pytest.fixture(params=BYTES_VARIANTS)
def bytes_variant(request):
    """Each of the byte channel modules."""
    return _variant(request)


@pytest.fixture(params=["local", "mpsc"])
def clonable(request):
    """Each object channel module whose senders can be cloned."""
    return _variant(request)


@pytest.fixture
def loop_factory(request):
    """Makes a new event loop, of each kind that is installed; "trio" where `run` is to run on trio."""
    if request.param == "trio":
        importlib.import_module("trio")
        return "trio"
    if request.param == "uvloop":
        return importlib.import_module("uvloop").new_event_loop
    return asyncio.new_event_loop


@pytest.fixture
def run(loop_factory):
    """`run(coroutine)`: `asyncio.run` on each kind of loop, with a deadline; errors the loop reports fail the test."""

    def run(coroutine, *, debug=None):
        if loop_factory == "trio":
            return aio.run_on_trio(coroutine, DEADLINE)
        reported = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
            async with asyncio.timeout(DEADLINE):
                return await coroutine

        with asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
            result = runner.run(main())
        assert reported == []
        return result

    return run


@pytest.fixture
def step_loop(request):
    """A hand-stepped loop; errors it was told of fail the test."""
    trio = getattr(request, "param", "asyncio") == "trio"
    loop = importlib.import_module("triostep").TrioStepLoop() if trio else StepLoop()
    yield loop
    if trio:
        loop.close()  # tells of its errors at the end
    errors, loop.errors = loop.errors, []
    loop.close()
    assert errors == []


@pytest.fixture
def spawn():
    """`spawn(function, *args)` starts a thread; none may be left at the end of the test."""
    threads = []

    def start(function, *args, **kwargs):
        threads.append(Spawned(function, *args, **kwargs))
        return threads[-1]

    yield start
    for thread in threads:
        thread.wait()


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """Native threads, built from `native/driver.c`."""
    if native_driver.compiler() is None:
        pytest.skip("no C compiler")
    return native_driver.Driver(native_driver.build_driver(tmp_path_factory.mktemp("driver")))
