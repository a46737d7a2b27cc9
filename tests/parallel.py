"""Running every test by several threads at once: `pytest --parallel-threads=4`, of pytest-run-parallel.

Each thread is given fixtures of its own, so that a test stays what it is, and what the threads share is the library,
the interpreter and the process. What by its nature cannot be run so is listed here, with the reason; more is found by
the plugin itself, which reads the tests: calls of `gc.collect`, fixtures that patch or capture.
"""

import contextlib
import functools
import inspect
import types

import pytest

CHILDREN = "what it tests runs in child processes"
MAIN_THREAD = "signals are the main thread's"
PROCESS = "it changes or counts what belongs to the whole process"

# Fixtures of the plugin's own accord: tests that have one are run by one thread.
AUTOMATIC = {"capfd", "capsys", "monkeypatch", "recwarn"}

# {module: reason} or {module: {function: reason}}
ALONE = {
    "test_bench_command": CHILDREN,
    "test_c_core": CHILDREN,
    "test_examples": CHILDREN,
    "test_exit": CHILDREN,
    "test_faults_memory": CHILDREN,
    "test_fork": CHILDREN,
    "test_info": CHILDREN,
    "test_leaks": CHILDREN,
    "test_mux": CHILDREN,
    "test_native_examples": CHILDREN,
    "test_native_exit": CHILDREN,
    "test_native_header": CHILDREN,
    "test_package": CHILDREN,
    "test_readme": CHILDREN,
    "test_signals": MAIN_THREAD,
    "test_soak": CHILDREN,
    "test_subinterpreters": CHILDREN,
    "test_typing": CHILDREN,
}


def make_parallel(item):
    """Mark a test that has to be run by one thread; let each thread that runs another make its own fixtures."""
    reason = ALONE.get(item.module.__name__, {})
    if not isinstance(reason, str):
        reason = reason.get(item.originalname)
    if reason is not None:
        item.add_marker(pytest.mark.thread_unsafe(reason=reason))
    elif not AUTOMATIC & set(item.fixturenames):
        for name in _own_fixtures(item, item._fixtureinfo.argnames):
            item.funcargs[name] = None  # then pytest does not make it
        item.obj = _with_own_fixtures(item, item.obj)


def _own_fixtures(item, names):
    """Those that `names` need and that each thread makes: ours, made for each test. {name: how it is made}"""
    own = {}
    for name in names:
        definitions = item._fixtureinfo.name2fixturedefs.get(name)
        if definitions and definitions[-1].scope == "function" and definitions[-1].baseid:
            own |= {name: definitions[-1]} | _own_fixtures(item, definitions[-1].argnames)
    return own


def _with_own_fixtures(item, test):
    made_here = _in_this_thread

    def run(**given):
        with made_here(item, given) as fixtures:
            test(**fixtures)

    # With the globals of the test: the plugin looks up in them what the test calls.
    run = types.FunctionType(run.__code__, test.__globals__, test.__name__, None, run.__closure__)
    return functools.wraps(test)(run)


@contextlib.contextmanager
def _in_this_thread(item, given):
    own = _own_fixtures(item, given)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    made = {}

    def get(name):
        if name not in own:
            return given[name] if name in given else item.funcargs[name]
        if name not in made:
            request = types.SimpleNamespace(param=parameters.get(name), node=item)
            value = own[name].func(**{need: request if need == "request" else get(need) for need in own[name].argnames})
            if inspect.isgenerator(value):
                finalisers.callback(next, value, None)
                value = next(value)
            made[name] = value
        return made[name]

    with contextlib.ExitStack() as finalisers:
        yield {name: get(name) for name in given}
