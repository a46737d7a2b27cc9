"""Pitfalls 24, 29 and 43: interpreters that end while channels are in use. Each round is a process of its own."""

import pytest
from harness import run_child, size

ROUNDS = size(2, 25)

ENDING = """
import asyncio, atexit, gc, importlib, os, sys, threading, time, weakref
from nexus_channels import *
from nexus_channels import local, mpsc, spsc
from support import Spawned, until, until_blocked, until_parked
module = importlib.import_module("nexus_channels." + sys.argv[1])
def daemon(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
def full():
    tx, rx = module.channel(1)
    tx.try_send(0)
    return tx, rx
"""


def run_to_the_end(script, module, rounds=ROUNDS, **kwargs):
    outputs = []
    for _ in range(rounds):
        outputs.append(run_child(ENDING + script, module.__name__.rpartition(".")[2], seconds=10, **kwargs))
    return outputs


def test_pitfall_24_daemon_threads_parked_in_every_blocking_call(threaded):
    script = """
tx, rx = module.channel(1)
full_tx, full_rx = full()
for wait in (rx.recv_blocking, lambda: rx.recv_many_blocking(3), lambda: rx.recv_blocking(timeout=100),
             lambda: list(rx)):
    daemon(wait)
for wait in (lambda: full_tx.send_blocking(1), lambda: full_tx.send_many_blocking([1, 2]),
             lambda: full_tx.send_blocking(1, timeout=100)):
    daemon(wait)
until_blocked(rx, receivers=4)
until_blocked(full_tx, senders=3)
"""
    run_to_the_end(script, threaded)


def test_pitfall_24_daemon_threads_whose_channel_goes_with_the_main_module(threaded):
    """Nothing but the parked thread's own frames refers to its endpoint; the other end goes during finalisation."""
    script = """
def park():
    tx, rx = module.channel(1)
    daemon(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    return tx
tx = park()
sys.modules["__main__"].keep = tx
"""
    run_to_the_end(script, threaded)


def test_pitfall_43_daemon_threads_that_wake_while_the_interpreter_ends(threaded):
    """Traffic, timeouts and closes go on in daemon threads until they are stopped wherever they are."""
    script = """
def loops(function):
    def run():
        try:
            while True:
                function()
        except ChannelError:
            pass
    return run
def quick(function):
    def run():
        try:
            function()
        except TimeoutError:
            pass
    return run
tx, rx = module.channel(2)
there, back = module.channel(1), module.channel(1)
daemon(loops(lambda: tx.send_blocking(object())))
daemon(loops(lambda: rx.recv_blocking()))
daemon(loops(lambda: (there.sender.send_blocking(1), back.receiver.recv_blocking())))
daemon(loops(lambda: back.sender.send_blocking(there.receiver.recv_blocking())))
idle_tx, idle_rx = module.channel(1)
daemon(loops(quick(lambda: idle_rx.recv_blocking(timeout=0.0005))))
time.sleep(0.02)
"""
    run_to_the_end(script, threaded, rounds=size(5, 50))


def test_pitfall_43_a_daemon_thread_woken_by_an_atexit_handler(threaded):
    script = """
tx, rx = module.channel(1)
daemon(lambda: [None for _ in rx])
until_blocked(rx, receivers=1)
atexit.register(tx.try_send, "late")
atexit.register(tx.close)
atexit.register(lambda: [tx.try_send(1)])
"""
    run_to_the_end(script, threaded)


def test_pitfall_43_a_daemon_thread_woken_by_a_finaliser_at_the_very_end(threaded):
    script = """
class Last:
    def __init__(self, tx):
        self.tx = tx
    def __del__(self):
        self.tx.try_send("last")
        self.tx.close()
tx, rx = module.channel(4)
daemon(lambda: [None for _ in rx])
until_blocked(rx, receivers=1)
sys.last = Last(tx)
cycle = [Last(tx.clone() if hasattr(tx, "clone") else tx)]
cycle.append(cycle)
"""
    run_to_the_end(script, threaded)


def test_pitfall_24_a_loop_left_with_parked_tasks(variant):
    script = """
tx, rx = module.channel(1)
full_tx, full_rx = full()
loop = asyncio.new_event_loop()
calls = rx.recv(), rx.recv(timeout=100), full_tx.send(1), full_tx.send_many([1, 2])
tasks = [loop.create_task(call) for call in calls]
for task in tasks:
    task._log_destroy_pending = False
loop.run_until_complete(until_parked(rx, receivers=2))
loop.run_until_complete(until_parked(full_tx, senders=2))
"""
    run_to_the_end(script, variant)


def test_pitfall_24_a_closed_loop_left_with_parked_tasks(variant):
    script = """
tx, rx = module.channel(1)
loop = asyncio.new_event_loop()
task = loop.create_task(rx.recv())
task._log_destroy_pending = False
loop.run_until_complete(until_parked(rx, receivers=1))
loop.close()
atexit.register(tx.try_send, "late")
"""
    run_to_the_end(script, variant)


def test_pitfall_24_a_loop_that_runs_in_a_daemon_thread(threaded):
    """Parked tasks on it, a wake fd, and another daemon thread that goes on sending to it."""
    script = """
tx, rx = module.channel(1)
async def consume():
    async for _ in rx:
        pass
def run():
    try:
        asyncio.new_event_loop().run_until_complete(consume())
    except RuntimeError:
        pass
daemon(run)
until_blocked(rx, receivers=1)
def send():
    while True:
        tx.send_blocking(object())
daemon(send)
time.sleep(0.02)
"""
    run_to_the_end(script, threaded, rounds=size(5, 50))


@pytest.mark.parametrize("name", ["spsc", "mpsc", "spsc_bytes", "mpsc_bytes"])
@pytest.mark.parametrize("waits", ["recv", "async for", "send"])
def test_pitfall_24_a_task_of_a_daemon_thread_that_waits_on_a_global_channel(name, waits):
    """The other end goes when the modules are emptied, asyncio's before or after: nothing is reported."""
    script = """
tx, rx = module.channel(64)
async def wait():
    if sys.argv[2] == "async for":
        async for _ in rx:
            pass
    elif sys.argv[2] == "recv":
        await rx.recv()
    else:
        await tx.send_many([b"x" * 56] * 65)
threading.Thread(target=lambda: asyncio.new_event_loop().run_until_complete(wait()), daemon=True).start()
if sys.argv[2] == "send":
    until_blocked(tx, senders=1)
else:
    until_blocked(rx, receivers=1)
"""
    for _ in range(ROUNDS):
        assert run_child(ENDING + script, name, waits, seconds=10, quiet=True) == ""


def test_pitfall_24_asyncio_run_that_leaves_tasks_to_be_cancelled(variant):
    script = """
tx, rx = module.channel(1)
async def main():
    tasks = [asyncio.create_task(rx.recv()) for _ in range(3)]
    await until_parked(rx, receivers=3)
    return tasks
tasks = asyncio.run(main())
assert all(task.cancelled() for task in tasks)
"""
    run_to_the_end(script, variant)


def test_pitfall_29_channels_in_cycles_and_globals_until_the_end(variant):
    script = """
class Value:
    def __init__(self, *others):
        self.others = others
    def __del__(self):
        for other in self.others:
            try:
                other.close()
            except Exception as error:
                os.write(2, b"Traceback: " + repr(error).encode())
tx, rx = module.channel(4)
tx.try_send(Value(tx, rx))
tx.try_send(tx)
tx.try_send(rx)
tx.try_send(rx.recv())
sys.modules["hidden"] = (tx, rx)
awaitable = tx.send(Value(tx, rx))
def generator():
    yield module.channel(1)
kept = generator()
next(kept)
"""
    run_to_the_end(script, variant)


def test_pitfall_24_exit_from_inside_a_call(threaded):
    """SystemExit by a signal handler under a blocking wait."""
    script = """
import signal
def handler(*_):
    sys.exit(0)
signal.signal(signal.SIGUSR1, handler)
tx, rx = module.channel(1)
def ring():
    until_blocked(rx, receivers=1)
    os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=ring).start()
rx.recv_blocking()
"""
    run_to_the_end(script, threaded)


def test_pitfall_24_a_normal_thread_that_waits_is_waited_for_and_can_be_ended(threaded):
    script = """
tx, rx = module.channel(1)
def consume():
    print(list(rx), flush=True)
threading.Thread(target=consume).start()
until_blocked(rx, receivers=1)
def last(main=threading.main_thread()):
    main.join()
    tx.send_blocking("item")
    tx.close()
threading.Thread(target=last).start()
"""
    assert set(run_to_the_end(script, threaded)) == {"['item']\n"}


def test_pitfall_43_a_loop_of_daemon_threads_that_end_in_the_middle_of_one_channel(threaded):
    """They share one endpoint, whose line is full of waiters when everything stops."""
    script = """
tx, rx = module.channel(1)
def send():
    while True:
        try:
            tx.send_blocking(1, timeout=0.001)
        except TimeoutError:
            pass
def receive():
    while True:
        try:
            rx.recv_blocking(timeout=0.001)
        except TimeoutError:
            pass
for function in (send, receive) * 4:
    daemon(function)
time.sleep(0.02)
gc.collect()
"""
    run_to_the_end(script, threaded, rounds=size(5, 50))


@pytest.mark.parametrize("flags", [("-X", "dev"), ("-O",), ("-I",)], ids=" ".join)
def test_the_module_loads_and_ends_cleanly_under_interpreter_flags(flags):
    script = """
import nexus_channels
tx, rx = nexus_channels.mpsc.channel(1)
tx.try_send(1)
"""
    run_child(script, flags=flags)
