"""Pitfall 25: after fork the child can use its copy of every channel, and cannot wake, block or corrupt the parent.

Each script runs in a process of its own, which forks; a child of it that fails or hangs fails the test.
"""

import os

import pytest
from harness import FREE_THREADED, SLOWNESS, run_child, size

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKING = f"""
import asyncio, faulthandler, gc, importlib, os, signal, sys, threading, time
from nexus_channels import *
from nexus_channels import local, spsc, mpsc
from steploop import StepLoop
from support import Spawned, until, until_blocked, until_parked
SLOWNESS = {SLOWNESS}
module = importlib.import_module("nexus_channels." + sys.argv[1])
def watch():
    \"\"\"Die with all stacks after a while. (dump_traceback_later has a thread: a second fork would wait for it.)\"\"\"
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(int(5 * SLOWNESS))
def start(function):
    \"\"\"Run `function` in a forked child; return its pid.\"\"\"
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        watch()
        function()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
def join(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
def fork(function):
    join(start(function))
"""


def run_forking(script, module, seconds=30):
    run_child(FORKING + script, module.__name__.rpartition(".")[2], seconds=seconds, flags=("-Wignore",))


def test_pitfall_25_a_send_in_the_child_does_not_wake_a_task_of_the_parent(threaded):
    script = """
loop = StepLoop()
tx, rx = module.channel(2)
for woken_before in (False, True):  # the second time there is a wake fd, which the child shares
    task = loop.create_task(rx.recv())
    loop.run_ready()
    def child():
        tx.try_send("from the child")
        tx.try_send("again")
        rx.close()
        tx.close()
    fork(child)
    assert loop.pending() == 0
    assert not task.done()
    assert rx.statistics()[1:6] == (0, 1, 1, 0, 1)
    tx.try_send("from the parent")
    loop.run_ready()
    assert task.result() == "from the parent"
"""
    run_forking(script, threaded)


def test_pitfall_25_the_child_can_use_a_channel_that_tasks_of_the_parent_wait_on(threaded):
    """Those who waited are not there: they are owed nothing in the child."""
    script = """
loop = StepLoop()
tx, rx = module.channel(1)
for woken_before in (False, True):
    task = loop.create_task(rx.recv())
    loop.run_ready()
    def child():
        assert rx.statistics().waiting_receivers == 0
        for number in range(3):
            tx.try_send(number)
            assert rx.try_recv() == number
        thread = Spawned(rx.recv_blocking)
        until_blocked(rx, receivers=1)
        tx.try_send("item")
        assert thread.join() == "item"
        async def main():
            task = asyncio.create_task(rx.recv())
            await until_parked(rx, receivers=1)
            Spawned(tx.try_send, "async").join()
            assert await task == "async"
        asyncio.run(main())
        tx.close()
        try:
            rx.try_recv()
        except RecvError:
            pass
    fork(child)
    tx.try_send("from the parent")
    loop.run_ready()
    assert task.result() == "from the parent"
"""
    run_forking(script, threaded)


def test_pitfall_25_a_called_waiter_of_the_parent_holds_back_nothing_in_the_child(threaded):
    """At the moment of the fork the item was owed to a task that had been woken and had not run."""
    script = """
loop = StepLoop()
tx, rx = module.channel(1)
task = loop.create_task(rx.recv())
loop.run_ready()
tx.try_send("item")
def child():
    assert rx.try_recv() == "item"
    tx.try_send("another")
    assert rx.recv_blocking(timeout=2) == "another"
fork(child)
loop.run_ready()
assert task.result() == "item"
tx.try_send(0)
sender = loop.create_task(tx.send(1))
loop.run_ready()
assert rx.try_recv() == 0
def child():
    tx.try_send("mine")
    assert rx.try_recv() == "mine"
fork(child)
loop.run_ready()
assert sender.done() and rx.try_recv() == 1
"""
    run_forking(script, threaded)


def test_pitfall_25_threads_that_wait_in_the_parent_are_neither_woken_nor_missed_by_the_child(threaded):
    script = """
tx, rx = module.channel(1)
full_tx, full_rx = module.channel(1)
full_tx.try_send(0)
receiver, sender = Spawned(rx.recv_blocking), Spawned(full_tx.send_blocking, 1)
until_blocked(rx, receivers=1)
until_blocked(full_tx, senders=1)
def child():
    for end in (rx, full_tx):
        assert end.statistics()[4:6] == (0, 0), end.statistics()
    tx.try_send("child")
    assert rx.try_recv() == "child"
    assert full_rx.try_recv() == 0
    full_tx.try_send(2)
    assert full_rx.recv_blocking(timeout=2) == 2
    for end in (tx, rx, full_tx, full_rx):
        end.close()
fork(child)
assert receiver.is_alive() and sender.is_alive()
assert (rx.statistics().waiting_receivers, full_tx.statistics().waiting_senders) == (1, 1)
tx.try_send("parent")
assert receiver.join() == "parent"
assert [full_rx.recv_blocking(), full_rx.recv_blocking()] == [0, 1]
sender.join()
"""
    run_forking(script, threaded)


def test_pitfall_25_the_child_of_a_running_loop_uses_channels_and_loops_of_its_own(variant):
    script = """
tx, rx = module.channel(1)
async def parent():
    waiting = asyncio.create_task(rx.recv())
    await until_parked(rx, receivers=1)
    def child():
        asyncio._set_running_loop(None)
        async def main():
            tx, rx = module.channel(1)
            task = asyncio.create_task(rx.recv())
            await until_parked(rx, receivers=1)
            await tx.send(1)
            assert await task == 1
        asyncio.run(main())
    fork(child)
    await asyncio.sleep(0)
    assert not waiting.done()
    await tx.send("item")
    assert await waiting == "item"
asyncio.run(parent())
"""
    run_forking(script, variant)


def test_pitfall_25_a_child_that_ends_like_any_program_takes_nothing_from_the_parent(threaded):
    """It runs all of its finalisation: its copies of channels, tasks and mailboxes are freed there."""
    script = """
loop = asyncio.new_event_loop()
tx, rx = module.channel(1)
task = loop.create_task(rx.recv())
for number in range(2):
    loop.run_until_complete(until_parked(rx, receivers=1))
    if number == 0:
        Spawned(tx.try_send, 0).join()
        assert loop.run_until_complete(task) == 0
        task = loop.create_task(rx.recv())
thread_tx, thread_rx = module.channel(1)
thread = Spawned(thread_rx.recv_blocking)
until_blocked(thread_rx, receivers=1)
pid = os.fork()
if pid == 0:
    task._log_destroy_pending = False
    del task, loop
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert not task.done() and thread.is_alive()
thread_tx.try_send(1)
assert thread.join() == 1
Spawned(tx.try_send, "item").join()
assert loop.run_until_complete(task) == "item"
loop.close()
"""
    run_forking(script, threaded)


def test_pitfall_25_a_handler_that_forks_under_a_blocking_call(threaded):
    """Parent and child both go on with the wait, each on its own copy."""
    script = """
tx, rx = module.channel(1)
parent = os.getpid()
pids = []
def handler(*_):
    pid = os.fork()
    if pid:
        pids.append(pid)
    else:
        watch()
        threading.Thread(target=lambda: (time.sleep(0.05), tx.try_send("child's"))).start()
signal.signal(signal.SIGUSR1, handler)
def ring():
    until_blocked(rx, receivers=1)
    os.kill(parent, signal.SIGUSR1)
    until(lambda: pids)
    assert os.waitpid(pids[0], 0)[1] == 0
    tx.try_send("parent's")
thread = Spawned(ring)
got = rx.recv_blocking()
if os.getpid() != parent:
    os._exit(0 if got == "child's" and rx.statistics().waiting_receivers == 0 else 1)
thread.join()
assert got == "parent's"
"""
    run_forking(script, threaded)


def test_pitfall_25_grandchildren_are_children_too(threaded):
    script = """
tx, rx = module.channel(1)
thread = Spawned(rx.recv_blocking)
until_blocked(rx, receivers=1)
def use():
    assert rx.statistics().waiting_receivers == 0
    tx.try_send(1)
    assert rx.recv_blocking(timeout=2) == 1
def wait_and(function):
    thread = Spawned(rx.recv_blocking)
    until_blocked(rx, receivers=1)
    fork(function)
    assert thread.is_alive()
    tx.try_send("mine")
    assert thread.join() == "mine"
fork(lambda: wait_and(lambda: wait_and(use)))
assert thread.is_alive()
tx.try_send("mine")
assert thread.join() == "mine"
"""
    run_forking(script, threaded)


@pytest.mark.skipif(FREE_THREADED, reason="objects that other threads had locked stay locked in the child")
def test_pitfall_25_a_fork_in_the_midst_of_traffic_leaves_both_sides_working(threaded):
    """Wherever the other threads and loops are at that moment, the child can use what they were using."""
    script = f"""
channels = [module.channel(2) for _ in range(3)]
stop = threading.Event()
def send(tx):
    number = 0
    while not stop.is_set():
        tx.send_blocking(number)
        number += 1
    tx.close()
    return number
def receive(rx):
    return sum(1 for _ in rx)
async def receive_async(rx):
    count = 0
    async for _ in rx:
        count += 1
    return count
senders = [Spawned(send, tx) for tx, _ in channels]
receivers = [Spawned(receive, channels[0].receiver), Spawned(lambda: asyncio.run(receive_async(channels[1].receiver))),
             Spawned(lambda: asyncio.run(receive_async(channels[2].receiver)))]
def child():
    for tx, rx in channels:
        rx.try_recv_many(10)
        for number in range(5):
            tx.send_blocking(number, timeout=3 * SLOWNESS)
            assert rx.recv_blocking(timeout=3 * SLOWNESS) == number
        tx.close()
        rx.close()
for number in range({size(25, 300)}):
    time.sleep(0.002)
    fork(child)
stop.set()
assert [thread.join() for thread in senders] == [thread.join() for thread in receivers]
"""
    run_forking(script, threaded, seconds=120)


def test_pitfall_25_multiprocessing_by_fork_inherits_channels_as_copies(threaded):
    script = """
import multiprocessing
tx, rx = module.channel(2)
tx.try_send("buffered")
def work(pipe):
    pipe.send([rx.try_recv(), rx.is_disconnected])
    tx.try_send("unseen")
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
process.start()
assert ours.recv() == ["buffered", False]
process.join()
assert process.exitcode == 0
assert rx.try_recv_many(5) == ["buffered"]
"""
    run_forking(script, threaded)
