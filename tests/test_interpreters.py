"""Channels of bytes between interpreters: both ways, tasks and threads on either side, and interpreters that end.

Each test runs a child (see interps.py), in which the main interpreter talks to others.
"""

import sys

import pytest
from harness import FREE_THREADED, WAKE, run_child, size, takes_long

OWN_GIL = sys.version_info >= (3, 12)
needs_descriptors = pytest.mark.skipif(WAKE == "call_soon_threadsafe", reason="there are no notifiers here")

USES = """
from interps import *
import gc
from support import until, until_blocked, collect
from nexus_channels import *
"""

# Both ends, in either interpreter: `start` gives what has a join().
ENDS = """
import asyncio, threading
from nexus_channels import attach, RecvError
def message(n): return (b'%d|' % n) * (1 + n % 5)
def send_all(tx, count, how):
    if how == 'thread':
        for n in range(count):
            tx.send_blocking(message(n))
        tx.close()
    elif how == 'batches':
        tx.send_many_blocking(message(n) for n in range(count))
        tx.close()
    elif how == 'claims':
        for n in range(count):
            m = message(n)
            with tx.claim_blocking(len(m)) as room:
                room[:] = m
        tx.close()
    else:
        async def main():
            async with tx:
                for n in range(count):
                    await tx.send(message(n))
        asyncio.run(main())
def recv_all(rx, count, how):
    n = 0
    if how == 'thread':
        try:
            while True:
                m = rx.recv_bytes_blocking()
                assert m == message(n), (n, m)
                n += 1
        except RecvError:
            pass
    elif how == 'batches':
        try:
            while True:
                for m in rx.recv_many_blocking(100):
                    assert m == message(n), (n, m)
                    n += 1
        except RecvError:
            pass
    elif how == 'claims':
        for claim in rx:
            assert bytes(claim) == message(n), (n, bytes(claim))
            n += 1
    else:
        async def main():
            nonlocal n
            async for claim in rx:
                assert bytes(claim) == message(n), (n, bytes(claim))
                n += 1
        asyncio.run(main())
    assert n == count, (n, count)
    rx.close()
"""


def run(script, seconds=60, **more):
    return run_child(f"{USES}\nENDS = {ENDS!r}\n{ENDS}\n{script}", seconds=seconds, **more)


def asyncio_serves_several():
    """That of 3.11 keeps one state for all interpreters; the first releases of 3.12 free it twice."""
    if not OWN_GIL:
        return False
    uses = ["Interpreter(), Interpreter()", "one.run('import asyncio; asyncio.run(asyncio.sleep(0))'); one.destroy()"]
    try:
        run_child("from interps import *\nfor one in [{}]: {}".format(*uses))
    except AssertionError:
        return False
    return True


TASKS = asyncio_serves_several()
with_tasks = pytest.mark.skipif(not TASKS, reason="the asyncio of this Python serves one interpreter only")
WAYS = ("thread", "batches", "claims", *(("task",) if TASKS else ()))


# Everything that waits, across


@takes_long()
@pytest.mark.parametrize("there", WAYS)
@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
def test_messages_go_to_another_interpreter_in_order_and_then_the_end(module, there):
    run(
        f"""
other = Interpreter()
for here in {WAYS!r}:
    tx, rx = {module}.channel(128)
    thread = other.start(ENDS + "recv_all(attach(ticket), count, {there!r})", ticket=rx.share(), count=500)
    send_all(tx, 500, here)
    thread.join()
    assert tx.is_disconnected
other.destroy()
"""
    )


@takes_long()
@pytest.mark.parametrize("there", WAYS)
@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
def test_messages_come_from_another_interpreter_in_order_and_then_the_end(module, there):
    run(
        f"""
other = Interpreter()
for here in {WAYS!r}:
    tx, rx = {module}.channel(128)
    thread = other.start(ENDS + "send_all(attach(ticket), count, {there!r})", ticket=tx.share(), count=500)
    recv_all(rx, 500, here)
    thread.join()
other.destroy()
"""
    )


@with_tasks
def test_both_ends_in_interpreters_other_than_the_first():
    run(
        """
a, b = Interpreter(), Interpreter()
tx, rx = spsc_bytes.channel(128)
send, receive = tx.share(), rx.share()
del tx, rx
threads = [a.start(ENDS + "send_all(attach(ticket), 1000, 'task')", ticket=send),
           b.start(ENDS + "recv_all(attach(ticket), 1000, 'task')", ticket=receive)]
for thread in threads: thread.join()
a.destroy(); b.destroy()
"""
    )


def test_many_senders_in_many_interpreters_one_receiver():
    run(
        """
SEND = '''
from nexus_channels import attach
with attach(ticket) as tx:
    for n in range(count):
        tx.send_blocking(b'%d %d' % (me, n))
'''
tx, rx = mpsc_bytes.channel(256)
others = [Interpreter() for _ in range(4)]
threads = [other.start(SEND, ticket=tx.clone().share(), me=me, count=2000) for me, other in enumerate(others)]
tx.close()
seen = [0] * 4
for claim in rx:
    me, n = map(int, bytes(claim).split())
    assert seen[me] == n
    seen[me] += 1
assert seen == [2000] * 4
for thread in threads: thread.join()
for other in others: other.destroy()
"""
    )


def test_a_sender_is_moved_on_and_on_while_its_receiver_waits():
    run(
        """
tx, rx = spsc_bytes.channel(64)
others = [Interpreter() for _ in range(3)]
ON = '''
import nexus_channels
tx = nexus_channels.attach(ticket)
tx.send_blocking(b'%d' % n)
ticket = tx.share()
back = nexus_channels.attach(back)
back.send_blocking(bytes(ticket))
back_ticket = back.share()
go = nexus_channels.attach(go)
go.recv_bytes_blocking()
'''
ticket = tx.share()
from support import Spawned
receiver = Spawned(lambda: list(map(bytes, rx)))
for n in range(30):
    answers_tx, answers = spsc_bytes.channel(128)
    go_tx, go = spsc_bytes.channel(64)
    thread = others[n % 3].start(ON, ticket=ticket, back=answers_tx.share(), go=go.share(), n=n)
    there = answers.recv_bytes_blocking()
    ticket = attach(there).share()  # it is held there until it is claimed here
    go_tx.send_blocking(b'go')
    thread.join()
ticket.close()
assert receiver.join() == [b'%d' % n for n in range(30)]
for other in others: other.destroy()
"""
    )


def test_a_round_trip_of_select_and_timeouts_there():
    run(
        """
THERE = '''
from nexus_channels import *
rx, tx, rx2 = attach(rx), attach(tx), attach(rx2)
done = select_blocking(rx, rx2)
assert done.index == 1 and bytes(done.value) == b'second'
done.value.release()
tx.send_blocking(b'selected')
try:
    rx.recv_bytes_blocking(timeout=0.01)
except RecvTimeout:
    tx.send_blocking(b'timed out')
buffer = bytearray(64)
assert rx.recv_into_blocking(buffer) == 4
assert buffer[:4] == b'into'
s = rx.statistics()
assert (s.open_senders, s.open_receivers, s.buffered) == (1, 1, 0), s
assert '1 sender, receiver open' in repr(rx), rx
assert rx.open_ends()[0].where == () and len(rx.open_ends()) == 2
'''
tx, rx = spsc_bytes.channel(64)
tx2, rx2 = spsc_bytes.channel(64)
back_tx, back = spsc_bytes.channel(64)
other = Interpreter()
thread = other.start(THERE, rx=rx.share(), rx2=rx2.share(), tx=back_tx.share())
until_blocked(tx, receivers=1)
assert 'receiver waiting' in repr(tx) and tx.statistics().waiting_receivers == 1
until_blocked(tx2, receivers=1)
tx2.send_blocking(b'second')
assert back.recv_bytes_blocking() == b'selected'
assert back.recv_bytes_blocking() == b'timed out'
tx.send_blocking(b'into')
thread.join()
assert tx.statistics().sent == tx.statistics().received == 16
other.destroy()
until(lambda: tx.is_disconnected and tx2.is_disconnected)
"""
    )


@needs_descriptors
def test_a_notifier_there_is_told():
    run(
        """
THERE = '''
from select import select as poll
from nexus_channels import attach
rx, tx = attach(rx), attach(tx)
n = rx.notifier()
n.arm()
tx.send_blocking(b'armed')
assert poll([n], [], [], 20)[0], 'not told'
n.clear(); n.close()
assert rx.try_recv_bytes() == b'noticed'
'''
tx, rx = spsc_bytes.channel(64)
back_tx, back = spsc_bytes.channel(64)
other = Interpreter()
thread = other.start(THERE, rx=rx.share(), tx=back_tx.share())
assert back.recv_bytes_blocking() == b'armed'
tx.send_blocking(b'noticed')
thread.join()
other.destroy()
"""
    )


def test_claims_are_read_where_they_were_written_in_another_interpreter():
    run(
        """
tx, rx = mpsc_bytes.channel(1 << 16)
other = Interpreter()
other.run('''
from nexus_channels import attach
tx = attach(ticket)
claim = tx.try_claim(40000)
claim[:3] = b'abc'
tx.clone().try_send(b'behind')
''', ticket=tx.share())
try:
    rx.try_recv()
except Empty as e:
    assert 'claim open' in str(e), e
other.run("claim.commit(3)")
with rx.try_recv() as view:
    assert view == b'abc'
assert rx.try_recv_bytes() == b'behind'
other.destroy()
try:
    rx.try_recv()
except RecvError:
    pass
"""
    )


def test_a_native_end_of_an_endpoint_that_came_by_a_ticket():
    """Lent, the endpoint stays in its interpreter; given back, it may move on."""
    run(
        """
tx, rx = spsc_bytes.channel(64)
there = attach(tx.share())
native = there.native()
try:
    there.share()
except BusyError as e:
    assert 'native' in str(e)
native.close()
again = attach(there.share())
again.try_send(b'x')
assert rx.try_recv_bytes() == b'x'
"""
    )


@with_tasks
def test_a_task_that_nobody_refers_to_waits_on_for_an_end_in_another_interpreter():
    """Here the collector finds the other end, and with it the task; there it cannot."""
    run(
        """
THERE = '''
import asyncio, gc
from nexus_channels import attach
async def wait():
    with attach(ticket) as rx, attach(back) as tx:
        gone.set()
        await rx.recv_bytes()
        await tx.send(b'it lives')
async def main():
    global gone
    gone = asyncio.Event()
    asyncio.create_task(wait())
    await gone.wait()
    await asyncio.sleep(0)
    for _ in range(5):
        gc.collect()
    tx = attach(ready)
    await tx.send(b'ready')
    for _ in range(5):
        await asyncio.sleep(0)
        gc.collect()
    await attach(end).recv_bytes()
asyncio.run(main())
'''
(tx, rx), (back, answers), (ready, is_ready), (go, end) = (spsc_bytes.channel(64) for _ in range(4))
other = Interpreter()
thread = other.start(THERE, ticket=rx.share(), back=back.share(), ready=ready.share(), end=end.share())
assert is_ready.recv_bytes_blocking() == b'ready'
tx.try_send(b'x')
assert answers.recv_bytes_blocking() == b'it lives'
go.send_blocking(b'end')
thread.join()
other.destroy()
"""
    )


def test_a_task_is_collected_once_the_end_that_could_wake_it_has_come_back_and_nobody_else_has_it():
    run(
        """
import asyncio, weakref
class Item: pass
tx, rx = spsc_bytes.channel(64)
back, answers = spsc_bytes.channel(64)
async def wait():
    global alive
    item = Item()
    alive = weakref.ref(item)
    await rx.recv_bytes()
loop = asyncio.new_event_loop()
task = loop.create_task(wait())
task._log_destroy_pending = False
loop.run_until_complete(asyncio.sleep(0))
other = Interpreter()
other.run("from nexus_channels import attach\\ntx = attach(ticket)", ticket=tx.share())
loop.close()
del loop, task, tx
wait.__globals__.pop("rx")
collect()
assert alive() is not None
other.run("ticket = tx.share()\\ndel tx\\nattach(back).send_blocking(bytes(ticket))", back=back.share())
alive().tx = attach(answers.recv_bytes_blocking())  # only the task has it now
collect()
assert alive() is None
other.destroy()
"""
    )


# The ends of interpreters


HOLD = {
    "an endpoint": "end = attach(ticket)",
    "an endpoint in a cycle": "end = [attach(ticket)]; end.append(end)",
    "an endpoint in builtins": "import builtins; builtins.end = attach(ticket)",
    "an endpoint in a generator": """
def generator():
    with attach(ticket):
        yield
running = generator()
next(running)
""",
    "an endpoint and a notifier": "end = attach(ticket); n = end.notifier(); n.arm()",
    "a ticket": "t = attach(ticket).share()",
    "a ticket that was pickled": "import pickle; t = pickle.dumps(attach(ticket).share())",
    "a native end": "end = attach(ticket); native = end.native()",
}


if WAKE == "call_soon_threadsafe":
    del HOLD["an endpoint and a notifier"]


@pytest.mark.parametrize("what", HOLD)
@pytest.mark.parametrize("side", ["tx", "rx"])
def test_an_interpreter_that_ends_with_something_open_disconnects(what, side):
    """The other side waits meanwhile, and is woken."""
    run(
        f"""
from support import Spawned
tx, rx = spsc_bytes.channel(64)
other = Interpreter()
if {side!r} == "tx":
    other.run('from nexus_channels import attach\\n' + {HOLD[what]!r}, ticket=tx.share())
    waits = Spawned(rx.recv_bytes_blocking)
    until_blocked(rx, receivers=1)
else:
    other.run('from nexus_channels import attach\\n' + {HOLD[what]!r}, ticket=rx.share())
    tx.try_send(bytes(56))
    waits = Spawned(tx.send_blocking, b'x')
    until_blocked(tx, senders=1)
assert not tx.is_disconnected and not rx.is_disconnected
other.destroy()
try:
    waits.join()
    raise SystemExit("no error")
except (SendError if {side!r} == "rx" else RecvError):
    pass
"""
    )


@pytest.mark.parametrize("first", ["the last to write", "the first to write"])
def test_the_pickle_of_one_interpreter_stays_good_when_another_that_pickled_the_ticket_ends(first):
    run(
        f"""
import pickle
WRITE = '''
import pickle
from nexus_channels import attach
attach(back).send_blocking(pickle.dumps(pickle.loads(text)))
'''
tx, rx = spsc_bytes.channel(64)
ticket = tx.share()
others, texts = [Interpreter(), Interpreter()], []
for other in others:
    back, answers = spsc_bytes.channel(1024)
    other.run(WRITE, text=pickle.dumps(ticket), back=back.share())
    texts.append(answers.recv_bytes_blocking())
del ticket  # two pickles hold it, each of another interpreter
if {first!r} == "the last to write":
    others.reverse()
    texts.reverse()
others[0].destroy()
assert not rx.is_disconnected
ticket = pickle.loads(texts[1])
again = attach(ticket)
again.try_send(b'still good')
assert rx.try_recv_bytes() == b'still good'
others[1].destroy()
tx, rx = spsc_bytes.channel(64)
ticket, other = tx.share(), Interpreter()
back, answers = spsc_bytes.channel(1024)
other.run(WRITE, text=pickle.dumps(ticket), back=back.share())
pickle.loads(pickle.dumps(ticket))  # is read, and that of the other interpreter is not
del ticket
assert not rx.is_disconnected
other.destroy()
assert rx.is_disconnected
"""
    )


@pytest.mark.parametrize("module", ["spsc_bytes", "mpsc_bytes"])
@pytest.mark.parametrize("viewed", [False, True])
def test_an_interpreter_that_ends_with_a_write_claim_open_aborts_it(module, viewed):
    run(
        f"""
tx, rx = {module}.channel(64)
other = Interpreter()
other.run("from nexus_channels import attach; tx = attach(t); tx.try_send(b'a'); claim = tx.try_claim(8)", t=tx.share())
if {viewed}:
    other.run("view = memoryview(claim)[2:]")
assert rx.try_recv_bytes() == b'a'
try: rx.try_recv()
except Empty: pass
other.destroy()
try:
    rx.recv_bytes_blocking(timeout=20)
except RecvError: pass
assert rx.statistics().buffered == 0
"""
    )


@pytest.mark.parametrize("viewed", [False, True])
def test_an_interpreter_that_ends_with_a_read_claim_open_gives_it_back(viewed):
    run(
        f"""
tx, rx = spsc_bytes.channel(64)
tx.try_send(b'a'); tx.try_send(b'b')
other = Interpreter()
other.run("from nexus_channels import attach; rx = attach(t); claim = rx.try_recv()", t=rx.share())
if {viewed}:
    other.run("view = memoryview(claim)[:1]")
assert tx.used == 32
other.destroy()
assert tx.is_disconnected and tx.used == 0
try:
    tx.try_send(b'c')
except SendError: pass
"""
    )


@pytest.mark.skipif(not OWN_GIL, reason="an interpreter that has threads is not destroyed before 3.12")
def test_an_interpreter_waits_for_its_blocked_thread_which_sees_the_end_of_the_stream():
    run(
        """
tx, rx = spsc_bytes.channel(64)
other = Interpreter()
other.run('''
import threading
from nexus_channels import attach, RecvError
rx = attach(t)
def wait():
    try: rx.recv_bytes_blocking()
    except RecvError: pass
threading.Thread(target=wait).start()
''', t=rx.share())
until_blocked(tx, receivers=1)
from support import Spawned
begun = False
closes = Spawned(lambda: (until(lambda: begun), tx.close()))
begun = True
other.destroy()
closes.join()
"""
    )


@with_tasks
def test_an_interpreter_that_ends_with_a_task_in_line_hands_its_turn_on():
    """Two senders wait for room: a task of an interpreter that ends, and behind it a thread here."""
    run(
        """
from support import Spawned
tx, rx = mpsc_bytes.channel(64)
tx.try_send(bytes(56))
other = Interpreter()
other.run('''
import asyncio
from nexus_channels import attach
tx = attach(t)
loop = asyncio.new_event_loop()
async def send(): await tx.send(bytes(40))
task = loop.create_task(send())
loop.run_until_complete(asyncio.sleep(0))
''', t=tx.clone().share())
until_blocked(rx, senders=1)
behind = Spawned(tx.send_blocking, bytes(40))
until_blocked(rx, senders=2)
rx.try_recv_bytes()  # calls the task, whose loop does not run
assert behind.is_alive()
other.destroy()
behind.join()
assert rx.statistics().open_senders == 1 and rx.try_recv_bytes() == bytes(40)
"""
    )


@with_tasks
def test_a_closed_loop_of_another_interpreter_does_not_keep_the_turn():
    """In every order of closing the loop, lining up behind it, and making room."""
    run(
        """
import itertools
from support import Spawned
for order in itertools.permutations(['close', 'behind', 'room']):
    tx, rx = mpsc_bytes.channel(64)
    tx.try_send(bytes(56))
    other = Interpreter()
    other.run('''
import asyncio
from nexus_channels import attach
tx = attach(t)
loop = asyncio.new_event_loop()
async def send(): await tx.send(bytes(40))
task = loop.create_task(send())
task._log_destroy_pending = False
loop.run_until_complete(asyncio.sleep(0))
''', t=tx.clone().share())
    until_blocked(rx, senders=1)
    closed = False
    for step in order:
        if step == 'close':
            other.run("loop.close()")
            closed = True
        elif step == 'room':
            rx.try_recv_bytes()
        else:
            behind = Spawned(tx.send_blocking, bytes(40))
            until(lambda: rx.statistics().waiting_senders == 2 or not behind.is_alive() or closed)
    behind.join()
    assert rx.try_recv_bytes() == bytes(40), order
    tx.close()
    other.destroy()
"""
    )


# Loops that waited before the channel was shared, in this interpreter


WAITS_HERE = """
import asyncio
RECEIVE = "from nexus_channels import attach\\nrx = attach(rx)\\nfor n in range(count): rx.recv_bytes_blocking()"
tx, rx = mpsc_bytes.channel(64)
tx.try_send(bytes(56))
async def send(tx): await tx.send(bytes(40))
def line_up(tx):
    "In a loop of its own, which is not run any further."
    before = tx.statistics().waiting_senders
    loop = asyncio.new_event_loop()
    loop.task = loop.create_task(send(tx))
    loop.task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    until_blocked(tx, senders=before + 1)
    return loop
"""


def test_a_loop_behind_those_of_a_closed_end_can_be_woken_by_the_other_interpreter():
    """The loops of the main thread have no descriptor yet; share() sends for each of them."""
    run(
        f"""{WAITS_HERE}
ends = [tx.clone() for _ in range(4)]
loops = [line_up(end) for end in [*ends, tx]]
for end in ends:
    end.close()  # its task stands in line until its loop runs
other = Interpreter()
thread = other.start(RECEIVE, rx=rx.share(), count=2)
loops[-1].run_until_complete(asyncio.wait_for(loops[-1].task, 20))
thread.join()
for loop in loops: loop.close()
other.destroy()
"""
    )


# Where the loop that ends has waited: a loop of the main thread has no descriptor before another thread wakes it, and
# this one is closed before it runs again.
PLACES = {"the main thread": "lambda f, *args: f(*args)", "a thread": "lambda f, *args: pool.submit(f, *args).result()"}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("closed", ["before", "after"])
def test_a_closed_loop_that_waited_before_the_channel_was_shared_does_not_keep_the_turn(where, closed):
    """A thread waits behind its task, and the room is made in another interpreter, which cannot ask the loop."""
    run(
        f"""{WAITS_HERE}
from support import Spawned
from concurrent.futures import ThreadPoolExecutor
pool, twin = ThreadPoolExecutor(1), tx.clone()
there = {PLACES[where]}
loop = there(line_up, twin)
behind = Spawned(tx.send_blocking, bytes(40))
until_blocked(rx, senders=2)
if {closed!r} == "before":
    there(loop.close)
ticket = rx.share()
if {closed!r} == "after":
    there(loop.close)
other = Interpreter()
other.run(RECEIVE, rx=ticket, count=1)
behind.join()
other.destroy()
"""
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_tickets_through_the_public_interface_of_3_14():
    run(
        """
from concurrent import interpreters
from concurrent.futures import InterpreterPoolExecutor
def count(ticket):
    from nexus_channels import attach
    return sum(len(claim) for claim in attach(ticket))
other = interpreters.create()
queue = interpreters.create_queue()
tx, rx = spsc_bytes.channel(4096)
queue.put(rx.share())  # its Ticket is gone at once; the pickle holds it
tx.send_blocking(b'12345')
tx.close()
other.prepare_main(queue=queue)
other.exec("from nexus_channels import attach\\nassert [bytes(m) for m in attach(queue.get())] == [b'12345']")
tx, rx = spsc_bytes.channel(4096)
tx.send_blocking(b'123456')
tx.close()
assert other.call(count, rx.share()) == 6
other.close()
with InterpreterPoolExecutor(2) as pool:
    channels = [spsc_bytes.channel(256) for _ in range(2)]
    futures = [pool.submit(count, rx.share()) for tx, rx in channels]
    for tx, rx in channels:
        for n in range(100):
            tx.send_blocking(bytes(50))
        tx.close()
    assert [future.result() for future in futures] == [5000, 5000]
"""
    )


def test_sub_interpreters_that_share_the_gil():
    run(
        """
tx, rx = spsc_bytes.channel(64)
other = Interpreter(legacy=True)
thread = other.start(ENDS + "recv_all(attach(ticket), 500, 'thread')", ticket=rx.share())
send_all(tx, 500, 'thread')
thread.join()
other.destroy()
"""
    )


# Many, and long


@takes_long()
def test_interpreters_that_come_and_go_in_traffic():
    """Each sends a few messages and is destroyed, with its sender closed or not."""
    run(
        f"""
SEND = '''
from nexus_channels import attach
tx = attach(ticket)
for n in range(20):
    tx.send_blocking(b'%d %d' % (me, n))
if me % 2:
    tx.close()
'''
tx, rx = mpsc_bytes.channel(256)
from support import Spawned
def count():
    seen = dict()
    for claim in rx:
        me, n = map(int, bytes(claim).split())
        assert seen.get(me, 0) == n
        seen[me] = n + 1
    return seen
receiver = Spawned(count)
def work(numbers):
    for me in numbers:
        other = Interpreter()
        other.run(SEND, ticket=tx.clone().share(), me=me)
        other.destroy()
rounds = {size(40, 200)}
workers = [Spawned(work, range(k, rounds, 2)) for k in range(2)]
for worker in workers: worker._thread.join(); worker.join()
tx.close()
receiver._thread.join()
assert receiver.join() == dict.fromkeys(range(rounds), 20)
""",
        seconds=size(110, 900),
    )


@takes_long()
def test_a_million_messages_between_two_interpreters_each_exactly_once():
    count = size(50_000, 1_000_000)
    run(
        f"""
RECV = '''
from nexus_channels import attach
next = 0
for claim in attach(ticket):
    assert bytes(claim) == next.to_bytes(8, 'big'), next
    next += 1
assert next == count, next
'''
tx, rx = spsc_bytes.channel(1 << 14)
other = Interpreter()
thread = other.start(RECV, ticket=rx.share(), count={count})
for n in range({count}):
    tx.send_blocking(n.to_bytes(8, 'big'))
tx.close()
thread._thread.join()
thread.join()
other.destroy()
""",
        seconds=size(110, 900),
    )


@pytest.mark.skipif(FREE_THREADED, reason="there is no GIL to be held up by")
@pytest.mark.skipif(not OWN_GIL, reason="interpreters have a GIL of their own from 3.12 on")
def test_a_receiver_that_never_lets_go_of_its_gil_does_not_hold_its_sender_up():
    """It looks again and again; the sender of the other interpreter must get on meanwhile."""
    run(
        """
BUSY = '''
import sys
from nexus_channels import attach, Empty, RecvError
sys.setswitchinterval(1000)
rx, n = attach(ticket), 0
while True:
    try:
        assert rx.try_recv_bytes() == b'%d' % n
        n += 1
    except Empty:
        pass
    except RecvError:
        break
assert n == 5000
'''
tx, rx = spsc_bytes.channel(64)
other = Interpreter()
thread = other.start(BUSY, ticket=rx.share())
for n in range(5000):
    tx.send_blocking(b'%d' % n)
tx.close()
thread.join()
other.destroy()
"""
    )
