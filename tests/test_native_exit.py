"""Native threads and the life of the process: the interpreter's end, forks, sub-interpreters, loops that are closed."""

import asyncio
import contextlib
import glob
import os
import subprocess
import sys
import sysconfig

import native_driver
import pytest
from harness import SANITIZER, child_command, run_child, size
from native_driver import DISCONNECTED, FORKED, FULL, OK, QUIET, SEND, TIMEOUT
from support import collect, until, until_blocked, until_parked

from nexus_channels import Empty, spsc_bytes

SETUP = """
import os, sys, importlib
import native_driver
from support import *
module = importlib.import_module("nexus_channels." + sys.argv[1])
driver = native_driver.Driver(sys.argv[2])
tx, rx = module.channel(1 << 12)
FOREVER = 2**62
"""

SCENES = {
    # how the interpreter ends while a native thread is at work
    "sending at full speed": """
end = tx.native()
job = driver.producer(end, FOREVER, timeout=0, how=int(sys.argv[3]))
until(lambda: job.done > 10)
""",
    "asleep on a full ring": """
end = tx.native()
job = driver.producer(end, FOREVER)
until_blocked(tx, senders=1)
""",
    "asleep on an empty ring": """
end = rx.native()
job = driver.consumer(end)
until_blocked(tx, receivers=1)
""",
    "waking a daemon thread": """
import threading
def drain():
    while True:
        rx.recv_many_blocking(1000)
threading.Thread(target=drain, daemon=True).start()
end = tx.native()
job = driver.producer(end, FOREVER, how=int(sys.argv[3]))
until(lambda: job.done > 1000)
""",
    "waking a loop": """
import asyncio
end = tx.native()
async def main():
    job = driver.producer(end, FOREVER, how=int(sys.argv[3]))
    for _ in range(100):
        await rx.recv_many(10)
    asyncio.create_task(rx.recv_bytes())
    return job
job = asyncio.run(main())
""",
    "waking a loop that was never closed": """
import asyncio
end = tx.native()
loop = asyncio.new_event_loop()
job = driver.producer(end, FOREVER, how=int(sys.argv[3]))
async def main():
    for _ in range(100):
        await rx.recv_many(10)
loop.run_until_complete(main())
task = loop.create_task(rx.recv_many(10**6))
loop.run_until_complete(asyncio.sleep(0))
sys.stderr = open(os.devnull, "w")  # "Task was destroyed but it is pending!", which is true
""",
    "kept by a cycle that nobody collects": """
import gc
gc.disable()
class Knot: pass
knot = Knot()
knot.self = knot
knot.end = tx.native()
job = driver.producer(knot.end, FOREVER, timeout=0)
until(lambda: job.done > 10)
builtins = __import__("builtins")
builtins.keep = knot
""",
    "with a claim open": """
end = tx.native()
native = driver.sender(end)
assert native.try_claim(100)[0] == 0
second = module.channel(64).sender.native()
""",
}


@pytest.mark.parametrize("scene", SCENES)
def test_the_interpreter_exits_while_native_threads_run(bytes_variant, driver, scene):
    name = bytes_variant.__name__.rpartition(".")[2]
    for _ in range(size(2, 25)):
        for how in (SEND, QUIET) if "argv[3]" in SCENES[scene] else (SEND,):
            run_child(SETUP + SCENES[scene], name, driver.path, how)


def test_a_native_thread_that_outlives_the_interpreter_is_told(tmp_path, driver):
    """Embedded: Py_Finalize, and the thread goes on in the same process."""
    source = tmp_path / "embed.c"
    source.write_text(EMBED)
    libdir, include, version = (
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_path("include"),
        sysconfig.get_config_var("LDVERSION"),
    )
    if not glob.glob(f"{libdir}/libpython{version}.*"):
        pytest.skip("this Python comes without the library that embeds it")
    flags = [f"-I{include}", f"-L{libdir}", f"-Wl,-rpath,{libdir}", "-Wl,--export-dynamic"]
    if SANITIZER:
        flags.append(f"-fsanitize={SANITIZER}")
    libraries = [f"-lpython{version}", "-ldl", "-lm", "-lutil"]
    program = native_driver.build(tmp_path / "embed", source, *flags, *libraries)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([program, sys.prefix], capture_output=True, text=True, timeout=30, env=env, check=False)
    assert (done.returncode, done.stdout) == (0, "disconnected\n"), done.stderr


EMBED = r"""
#include <Python.h>
#include <pthread.h>
#include <nexus_channels.h>

static const void *address;
static pthread_barrier_t ready;
static int last;
static unsigned long long sent;

static void *send(void *arg)
{
    nexus_sender *tx;
    (void)arg;
    last = nexus_attach_sender(address, &tx);
    pthread_barrier_wait(&ready);
    while (last == NEXUS_OK || last == NEXUS_FULL) {
        last = nexus_try_send(tx, "0123456789abcdef", 16);
        sent += last == NEXUS_OK;
    }
    nexus_detach_sender(tx);
    return NULL;
}

int main(void)
{
    pthread_t thread;
    pthread_barrier_init(&ready, NULL, 2);
    Py_Initialize();
    if (PyRun_SimpleString("import nexus_channels\n"
                           "tx, rx = nexus_channels.mpsc_bytes.channel(1024)\n"
                           "end = tx.native()\n"))
        return 1;
    PyObject *main = PyImport_AddModule("__main__");
    PyObject *number = PyRun_String("end.address", Py_eval_input, PyModule_GetDict(main), PyModule_GetDict(main));
    address = PyLong_AsVoidPtr(number);
    Py_DECREF(number);
    pthread_create(&thread, NULL, send, NULL);
    pthread_barrier_wait(&ready);
    if (PyRun_SimpleString("for _ in range(1000): rx.recv_many_blocking(10)") || Py_FinalizeEx() < 0)
        return 2;
    pthread_join(thread, NULL);
    puts(last == NEXUS_DISCONNECTED && sent >= 1000 ? "disconnected" : nexus_strerror(last));
    return 0;
}
"""


# ---- fork -------------------------------------------------------------------------------------------------------


def in_child(function):
    """Run it in a forked child: its exit code, 0 unless it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_parents_ends_alone(bytes_variant, driver):
    tx, rx = bytes_variant.channel(1024)
    end = tx.native()
    native = driver.sender(end)
    assert native.try_claim(8)[0] == OK
    waiting = rx.native()
    consumer = driver.consumer(waiting)
    until_blocked(tx, receivers=1)

    def child():
        assert native.try_send(b"x") == native.commit(8) == native.flush() == FORKED
        assert driver.attach_sender(end.address) == FORKED
        native.detach()
        end.close()
        waiting.close()
        tx.close()
        collect()

    assert in_child(child) == 0
    assert native.abort() == OK
    assert native.send(driver.stamped(0, 16, 0)) == OK
    until(lambda: consumer.done == 1)
    end.close()
    tx.close()
    assert consumer.join() == DISCONNECTED
    assert consumer.complaint == 0
    native.detach()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_call_does_not_stop_the_child(bytes_variant, driver):
    """The thread is not in the child, whatever it was doing."""
    tx, rx = bytes_variant.channel(1 << 12)
    end = tx.native()
    producer = driver.producer(end, 2**62, how=SEND, most=400)

    def child():
        end.close()
        tx.close()
        rx.close()
        tx2, rx2 = bytes_variant.channel(64)
        with tx2.native() as mine:
            assert driver.producer(mine, 1).join() == OK
            assert rx2.try_recv_bytes() == driver.stamped(0, 16, 0)

    for _ in range(size(10, 200)):
        rx.recv_many_blocking(1000)
        assert in_child(child) == 0
    end.close()
    assert producer.join() == DISCONNECTED


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_commit_leaves_the_child_a_whole_ring(driver):
    """While there is room, the thread is in the middle of a send most of the time. That a commit is cut is rare all the
    same: `tests/c/test_log.c` takes a copy at each step.
    """
    tx, rx = spsc_bytes.channel(1 << 20)
    end = tx.native()
    producer = driver.producer(end, 2**62, how=SEND, most=16)

    def child():
        with contextlib.suppress(Empty):
            while rx.try_recv_many(10_000):
                pass
        assert rx.used == 0
        rx.close()

    for _ in range(size(200, 2000)):
        with contextlib.suppress(Empty):
            rx.try_recv_many(100_000)
        while rx.used < 10_000:  # it was asleep beside a full ring
            pass
        assert in_child(child) == 0
    rx.close()
    end.close()
    assert producer.join() == DISCONNECTED


# ---- loops and interpreters --------------------------------------------------------------------------------------


def test_native_code_wakes_a_loop_that_was_closed_without_harm(loop_factory, bytes_variant, driver):
    tx, rx = bytes_variant.channel(64)
    end = tx.native()
    loop = loop_factory()

    async def main():
        task = asyncio.create_task(rx.recv_bytes())
        await until_parked(tx, receivers=1)
        return task

    task = loop.run_until_complete(main())
    loop.close()
    assert driver.producer(end, 1).join() == OK
    task._log_destroy_pending = False
    assert rx.recv_bytes_blocking(timeout=10) == driver.stamped(0, 16, 0)
    assert driver.producer(end, 9, how=SEND, least=56, most=56, timeout=0).join() == FULL
    assert driver.producer(end, 9, how=SEND, least=56, most=56, timeout=1000).join() == TIMEOUT


SUBINTERPRETER = """
import sys
sys.path[:] = {path!r}
import nexus_channels, native_driver
driver = native_driver.Driver({driver!r})
tx, rx = nexus_channels.{module}.channel(1024)
end = tx.native()
job = driver.producer(end, 2000, least=16, most=64)
check = driver.checker()
while check.due[0] < 2000:
    check(rx.recv_bytes_blocking(timeout=10))
assert job.join() == 0
job = driver.producer(end, 2**62, timeout=-1)  # at work when the interpreter goes
assert rx.recv_many_blocking(10)
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="ctypes loads in sub-interpreters from 3.13 on")
@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
def test_a_sub_interpreter_has_native_ends_too_and_may_end_before_them(driver, module):
    inside = SUBINTERPRETER.format(path=sys.path, driver=str(driver.path), module=module)
    source = f"""
import importlib, sys
sys.path[:] = {sys.path!r}
interpreters = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
for _ in range(3):
    one = interpreters.create()
    failed = interpreters.run_string(one, {inside!r})
    assert failed is None, failed
    interpreters.destroy(one)
print("done")
"""
    done = subprocess.run(child_command(source), capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
