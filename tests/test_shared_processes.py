"""Channels between processes: everything that waits, every way to start, to move, to end, to be killed or stopped.

Each test runs a script in an interpreter of its own (see lib/processes.py), which starts the others by multiprocessing.
What runs in these is in lib/processes.py, too, so that it can be imported there.
"""

import importlib.util
import signal

import pytest
from harness import seeded, size, takes_long
from processes import METHODS, needs_lanes, run_script

pytestmark = needs_lanes

LOOPS = ["asyncio", *(name for name in ("uvloop", "trio") if importlib.util.find_spec(name))]
SENDS = ["thread", "batches", "claims", *LOOPS]
TAKES = [*SENDS, "into"]
MODULES = ["spsc_bytes", "mpsc_bytes"]

CARRIERS = ["argument", "Queue", "SimpleQueue", "Pipe", "executor", "submit", "Pool", "apply"]
TRAVELS = [(method, carrier, side) for carrier in CARRIERS for method in METHODS for side in ("tx", "rx")]
if not size(0, 1):  # each carrier both ways, and each method with each side
    TRAVELS = [
        (METHODS[(n + (side == "rx")) % len(METHODS)], c, side) for n, c in enumerate(CARRIERS) for side in ("tx", "rx")
    ]


def some(ways, one):
    """All of them in a long run; in a short one the next after this one, as each pair costs a process."""
    n = ways.index(one) if one in ways else 0
    return ways if size(0, 1) else [ways[(n + 1) % len(ways)]]


def few(pairs):
    """All pairs in a long run; in a short one every third, so that each member of both sides is there."""
    return pairs if size(0, 1) else pairs[::3]


@pytest.fixture(params=MODULES)
def module(request):
    return request.param


@pytest.fixture(params=["tx", "rx"])
def side(request):
    return request.param


# ---- everything that waits, across ---------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize("there", TAKES)
def test_messages_go_to_another_process_in_order_and_then_the_end(module, there):
    run_script(
        f"""
for here in {some(SENDS, there)!r}:
    tx, rx = {module}.channel(4096, shared=True)
    there = start(recv_all, rx.share(), {size(1000, 20_000)}, {there!r})
    send_all_from(tx, {size(1000, 20_000)}, here)
    join(there)
""",
        seconds=size(60, 600),
    )


@takes_long()
@pytest.mark.parametrize("there", SENDS)
def test_messages_come_from_another_process_in_order_and_then_the_end(module, there):
    run_script(
        f"""
for here in {some(TAKES, there)!r}:
    tx, rx = {module}.channel(4096, shared=True)
    there = start(send_all, tx.share(), {size(1000, 20_000)}, {there!r})
    recv_all_from(rx, {size(1000, 20_000)}, here)
    join(there)
""",
        seconds=size(60, 600),
    )


@pytest.mark.parametrize(("method", "carrier", "side"), TRAVELS)
def test_an_end_travels_by_everything_that_multiprocessing_has(method, carrier, side):
    run_script(
        f"""
from concurrent.futures import ProcessPoolExecutor
context = multiprocessing.get_context({method!r})
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    if {side!r} == "tx":
        ticket, here, there, ready_made = tx.share(), lambda: recv_all_from(rx, 500, "thread"), send_all, send_all_from
    else:
        ticket, here, there, ready_made = rx.share(), lambda: send_all_from(tx, 500, "thread"), recv_all, recv_all_from
    if {carrier!r} == "argument":
        process = context.Process(target=there, args=(ticket, 500, "thread"))
        process.start()
        here()
        join(process)
    elif {carrier!r} in ("Queue", "SimpleQueue", "Pipe"):
        get, put = context.Pipe(False) if {carrier!r} == "Pipe" else [getattr(context, {carrier!r})()] * 2
        process = context.Process(target=from_carrier, args=(get, there, 500, "thread"))
        process.start()
        (put.send if {carrier!r} == "Pipe" else put.put)(ticket)
        here()
        join(process)
    elif {carrier!r} in ("executor", "submit"):
        first = dict(initializer=keep, initargs=(ticket,)) if {carrier!r} == "executor" else {{}}
        with ProcessPoolExecutor(1, mp_context=context, **first) as pool:
            if {carrier!r} == "executor":
                done = pool.submit(with_kept, ready_made, 500, "thread")
            else:
                done = pool.submit(there, ticket, 500, "thread")
            here()
            done.result()
    else:
        first = (keep, (ticket,)) if {carrier!r} == "Pool" else (None, ())
        with context.Pool(1, *first) as pool:
            if {carrier!r} == "Pool":
                done = pool.apply_async(with_kept, (ready_made, 500, "thread"))
            else:
                done = pool.apply_async(there, (ticket, 500, "thread"))
            here()
            done.get()
            pool.close()
            pool.join()
    try:
        attach(ticket)
    except ValueError:
        pass
    else:
        raise SystemExit("the ticket is good twice")
"""
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_worker_of_a_pool_takes_an_end_of_its_own(method):
    run_script(
        f"""
from concurrent.futures import ProcessPoolExecutor
context = multiprocessing.get_context({method!r})
tx, rx = mpsc_bytes.channel(4096, shared=True)
tickets = context.Queue()
for _ in range(3):
    tickets.put(tx.clone().share())
tx.close()
with ProcessPoolExecutor(3, mp_context=context, initializer=attach_first, initargs=(tickets,)) as pool:
    jobs = [pool.submit(work, range(n * 100, n * 100 + 100)) for n in range(30)]
    found = [RECORD.unpack(rx.recv_bytes_blocking()) for _ in range(3000)]
    for job in jobs:
        job.result()
while not tickets.empty():  # a worker that was not needed
    tickets.get().close()
assert sorted(square for _, square in found) == [n * n for n in range(3000)]
assert len({{pid for pid, _ in found}}) in (1, 2, 3)
try:
    rx.recv_blocking()
except RecvError as error:
    assert not error.crashed
"""
    )


def test_a_ticket_that_nobody_took_out_of_a_queue_is_no_crash_when_it_is_given_up():
    run_script(
        """
tx, rx = spsc_bytes.channel(4096, shared=True)
ticket = tx.share()
queue = multiprocessing.get_context("spawn").SimpleQueue()
queue.put(ticket)
again = queue.get()  # in the same process
assert not rx.is_disconnected
tx = attach(again)
tx.try_send(b"here again")
assert rx.recv_bytes_blocking() == b"here again"
tx.close()
try:
    rx.recv_blocking()
except RecvError as error:
    assert not error.crashed
"""
    )


@pytest.mark.parametrize("how", few([(a, b) for a in ("thread", *LOOPS) for b in ("thread", *LOOPS)]), ids="-".join)
def test_round_trips_lose_no_wake_up(how):
    run_script(
        f"""
count = {size(500, 50_000)}
(tx, there), (back_tx, back) = (spsc_bytes.channel(1, shared=True) for _ in range(2))
process = start(answer, there.share(), back_tx.share(), count, {how[1]!r})
if {how[0]!r} == "thread":
    for n in range(count):
        tx.send_blocking(b"%d" % n)
        assert back.recv_bytes_blocking() == b"%d" % n
else:
    async def main():
        for n in range(count):
            await tx.send(b"%d" % n)
            assert await back.recv_bytes() == b"%d" % n
    on_loop(main, {how[0]!r})
join(process)
""",
        seconds=size(30, 300),
    )


def test_whoever_waits_beside_a_process_that_computes_does_not_yield_to_it_each_time():
    run_script(
        """
trips = 500
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the children, too
(tx, there), (back_tx, back) = (spsc_bytes.channel(1, shared=True) for _ in range(2))
process = start(answer, there.share(), back_tx.share(), trips, "thread")
begins, begun = spsc_bytes.channel(64, shared=True)
computing = start(compute, begins.share())
begun.recv_bytes_blocking()
late = 0
for n in range(trips):
    began = time.perf_counter()
    tx.send_blocking(b"%d" % n)
    back.recv_bytes_blocking()
    late += time.perf_counter() - began > 0.001
killed(computing)
join(process)
assert late < trips / 8, late  # if each wait spins, a third of them
"""
    )


def test_both_ends_in_other_processes(module):
    run_script(
        f"""
tx, rx = {module}.channel(4096, shared=True)
send, receive = tx.share(), rx.share()
del tx, rx
join(start(send_all, send, 2000, "thread"), start(recv_all, receive, 2000, "asyncio"))
"""
    )


@takes_long(60, 3600)
@pytest.mark.parametrize("there", ["thread", "asyncio"])
def test_four_senders_each_exactly_and_in_order(there):
    run_script(
        f"""
count = {size(10_000, 2_500_000)}
tx, rx = mpsc_bytes.channel(1 << 16, shared=True)
senders = [start(send_numbered, tx.clone().share(), me, count) for me in range(4)]
tx.close()
seen = [0] * 4
def look(claim):
    me, n = RECORD.unpack(claim)
    assert n == seen[me], (me, n, seen[me])
    seen[me] += 1
if {there!r} == "thread":
    for claim in rx:
        look(claim)
else:
    async def main():
        async for claim in rx:
            look(claim)
    asyncio.run(main())
assert seen == [count] * 4
join(*senders)
""",
        seconds=size(60, 3600),
    )


def test_clones_of_several_processes_and_of_several_threads():
    """In each process two threads share a lane."""
    run_script(
        """
tx, rx = mpsc_bytes.channel(4096, shared=True)
senders = [start(two_threads, tx.clone().share(), 2 * n, 3000) for n in range(2)]
tx.close()
seen = [0] * 4
for claim in rx:
    me, n = RECORD.unpack(claim)
    assert n == seen[me]
    seen[me] += 1
assert seen == [3000] * 4
join(*senders)
"""
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_calls_that_are_cancelled_or_time_out_lose_nothing(loop):
    run_script(
        f"""
import random, aio
rng = random.Random({seeded("cancelled across processes").randrange(1 << 30)})
count = {size(2000, 50_000)}
tx, rx = spsc_bytes.channel(4096, shared=True)
back_tx, back = spsc_bytes.channel(4096, shared=True)
process = start(answer, rx.share(), back_tx.share(), count)
async def main():
    sent = got = 0
    while got < count:
        try:
            if sent < count and sent - got < 100:
                await tx.send(b"%d" % sent, timeout=rng.choice([0, 0.0003, None]))
                sent += 1
        except Full:
            pass
        try:
            task = back.recv_bytes(timeout=rng.choice([0, 0.0001, 0.001]))
            if rng.random() < 0.3:
                task = limited(task)
            assert await task == b"%d" % got
            got += 1
        except (Empty, TimeoutError):
            pass
async def limited(awaitable):
    async with aio.timeout(rng.random() * 0.001):
        return await awaitable
on_loop(main, {loop!r})
join(process)
""",
        seconds=size(30, 300),
    )


@pytest.mark.parametrize("loop", ["thread", *LOOPS])
def test_select_and_merge_over_channels_of_several_processes(loop):
    run_script(
        f"""
channels = [spsc_bytes.channel(4096, shared=True) for _ in range(3)]
receivers = [rx for _, rx in channels]
senders = [start(send_numbered, tx.share(), me, 1000) for me, (tx, _) in enumerate(channels)]
plain_tx, plain = mpsc.channel(4)
plain_tx.send_blocking("of this process")
plain_tx.close()
seen = [0] * 3
def look(rx, claim):
    if rx is plain:
        assert claim == "of this process"
        return
    me, n = RECORD.unpack(claim)
    assert rx is receivers[me] and n == seen[me]
    seen[me] += 1
if {loop!r} == "thread":
    done = select_blocking(*receivers)
    look(done.arm, done.value)
    done.value.release()
    for rx, claim in merge(plain, *receivers):
        look(rx, claim)
else:
    async def main():
        done = await select(*receivers)
        look(done.arm, done.value)
        done.value.release()
        async for rx, claim in merge(plain, *receivers):
            look(rx, claim)
    on_loop(main, {loop!r})
assert seen == [1000] * 3
join(*senders)
"""
    )


# ---- moving --------------------------------------------------------------------------------------------------------


def test_a_sender_moves_twice_and_its_order_holds(module):
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
tx, rx = {module}.channel(4096, shared=True)
for n in range(50):
    tx.send_blocking(message(n))
receiving = Spawned(recv_all_from, rx, 400, "claims")
queue, taken = context.Queue(), context.Event()
first = start(give_on, tx.share(), 50, 150, queue, taken)
second = start(give_on, queue.get(), 150, 250, queue, taken)
tx = attach(queue.get())
taken.set()
for n in range(250, 400):
    tx.send_blocking(message(n))
tx.close()
receiving.join()
join(first, second)
"""
    )


def test_a_receiver_moves_twice_and_loses_nothing(module):
    """What is in the ring when it moves is received by whoever has it next."""
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
tx, rx = {module}.channel(4096, shared=True)
sending = Spawned(send_all_from, tx, 400, "claims")
for n in range(50):
    assert rx.recv_bytes_blocking() == message(n)
queue, taken = context.Queue(), context.Event()
first = start(give_receiver_on, rx.share(), 50, 150, queue, taken)
second = start(give_receiver_on, queue.get(), 150, 250, queue, taken)
rx = attach(queue.get())
taken.set()
for n in range(250, 400):
    assert rx.recv_bytes_blocking() == message(n)
try:
    rx.recv_blocking()
except RecvError as error:
    assert not error.crashed
sending.join()
join(first, second)
"""
    )


@pytest.mark.parametrize("waits", ["thread", "asyncio"])
def test_whoever_waits_on_the_other_side_waits_on_while_an_end_moves(waits, side):
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
tx, rx = spsc_bytes.channel(4096, shared=True)
queue, taken = context.Queue(), context.Event()
async def await_it(awaitable):
    return await awaitable
if {side!r} == "tx":
    call = (lambda: asyncio.run(await_it(rx.recv_bytes()))) if {waits!r} == "asyncio" else rx.recv_bytes_blocking
    waiting = Spawned(call)
    until_blocked(rx, receivers=1)
    process = start(give_on, tx.share(), 0, 0, queue, taken)
    tx = attach(queue.get())
    tx.try_send(b"at last")
    assert waiting.join() == b"at last"
else:
    tx.try_send(bytes(4088))
    if {waits!r} == "asyncio":
        waiting = Spawned(lambda: asyncio.run(await_it(tx.send(b"at last"))))
    else:
        waiting = Spawned(tx.send_blocking, b"at last")
    until_blocked(tx, senders=1)
    process = start(give_receiver_on, rx.share(), 0, 0, queue, taken)
    rx = attach(queue.get())
    assert rx.recv_bytes_blocking() == bytes(4088)
    assert rx.recv_bytes_blocking() == b"at last"
    waiting.join()
taken.set()
join(process)
"""
    )


# ---- ends of processes ---------------------------------------------------------------------------------------------

ORDERLY = {"close": 0, "return": 0, "raise": 1, "sys.exit": 3}
CRASHES = {"os._exit": 4, "SIGKILL": -signal.SIGKILL, "SIGTERM": -signal.SIGTERM}


@pytest.mark.parametrize(("method", "how"), few([(method, how) for method in METHODS for how in (*ORDERLY, *CRASHES)]))
def test_what_a_process_sent_is_received_before_its_end_and_a_crash_is_told_from_a_return(method, how):
    run_script(
        f"""
for module in (spsc_bytes, mpsc_bytes):
    for waits in (False, True):
        tx, rx = module.channel(4096, shared=True)
        said = [b"%d" % n for n in range(0 if waits else 20)]
        waiting = Spawned(rx.recv_blocking) if waits else None
        process = start(end_by, {how!r}, tx.share(), said, method={method!r})
        join(process, code={(ORDERLY | CRASHES)[how]})
        for n, word in enumerate(said):
            assert rx.recv_bytes_blocking(timeout=20) == word
        try:
            waiting.join() if waits else rx.recv_blocking(timeout=20)
        except RecvError as error:
            assert error.crashed is {how in CRASHES}, error.crashed
        else:
            raise SystemExit("no end")
        for _ in range(2):  # and it stays so
            try:
                rx.try_recv()
            except RecvError as error:
                assert error.crashed is {how in CRASHES}
        rx.close()
"""
    )


@pytest.mark.parametrize("how", [*ORDERLY, *CRASHES])
def test_a_sender_is_told_how_the_receiver_ended(how):
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
for module in (spsc_bytes, mpsc_bytes):
    tx, rx = module.channel(4096, shared=True)
    go = context.Event()
    process = start(take_and_end_by, {how!r}, rx.share(), 1, go)
    tx.send_blocking(b"taken")
    try:
        while True:
            tx.try_send(bytes(100))
    except Full:
        pass
    blocked = bytearray(4000)
    waiting = Spawned(tx.send_blocking, blocked)
    until_blocked(tx, senders=1)
    go.set()
    join(process, code={(ORDERLY | CRASHES)[how]})
    try:
        waiting.join()
    except SendError as error:
        assert error.value is blocked and error.crashed is {how in CRASHES}, error.crashed
    else:
        raise SystemExit("sent to nobody")
    until(lambda: tx.is_disconnected)
    try:
        tx.try_send(b"x")
    except SendError as error:
        assert error.crashed is {how in CRASHES}
"""
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_are_told_of_a_crash(loop):
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
(tx, rx), (full_tx, full_rx) = (spsc_bytes.channel(4096, shared=True) for _ in range(2))
full_tx.try_send(bytes(4088))
ready = [context.Event() for _ in range(2)]
sender, receiver = start(hold, tx.share(), ready[0]), start(hold, full_rx.share(), ready[1])
for event in ready:
    assert event.wait(20 * SLOWNESS)
import aio
async def main():
    receiving, sending = aio.create_task(rx.recv_bytes()), aio.create_task(full_tx.send(b"x"))
    await until_parked(rx, receivers=1)
    await until_parked(full_tx, senders=1)
    killed(sender), killed(receiver)
    for task, error in (receiving, RecvError), (sending, SendError):
        try:
            await task
        except error as told:
            assert told.crashed
        else:
            raise SystemExit("not told")
if {loop!r} == "trio":
    import trio
    aio.run_on_trio(main(), 20 * SLOWNESS)
else:
    on_loop(main, {loop!r})
"""
    )


def test_one_crash_among_orderly_senders_is_told_at_the_end_and_loses_nothing_of_the_others():
    run_script(
        """
tx, rx = mpsc_bytes.channel(4096, shared=True)
process = start(end_by, "SIGKILL", tx.clone().share(), [b"1", b"2"])
join(process, code=-signal.SIGKILL)
assert [rx.recv_bytes_blocking(), rx.recv_bytes_blocking()] == [b"1", b"2"]
try:
    rx.recv_blocking(timeout=0.2)
except RecvTimeout:
    pass  # this process has a sender still
join(start(end_by, "return", tx.clone().share(), [b"3"]))
tx.try_send(b"4")
tx.close()
assert sorted([rx.recv_bytes_blocking(), rx.recv_bytes_blocking()]) == [b"3", b"4"]
try:
    rx.recv_blocking()
except RecvError as error:
    assert error.crashed
else:
    raise SystemExit("no end")
"""
    )


def test_iterations_end_at_a_crash_as_at_any_end(module):
    """A loop cannot tell: whoever must know asks the channel once more."""
    run_script(
        f"""
tx, rx = {module}.channel(4096, shared=True)
process = start(end_by, "SIGKILL", tx.share(), [b"1", b"2"])
assert [bytes(claim) for claim in rx] == [b"1", b"2"]
try:
    rx.try_recv()
except RecvError as error:
    assert error.crashed
join(process, code=-signal.SIGKILL)
"""
    )


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_blocked_sender_in_another_process_is_freed(how):
    run_script(
        f"""
context = multiprocessing.get_context("spawn")
tx, rx = spsc_bytes.channel(4096, shared=True)
blocked, held = context.Event(), context.Event()
sender = start(park, tx.share(), blocked)
assert blocked.wait(20 * SLOWNESS)
if {how!r} == "closed":
    rx.close()
    join(sender, code=10)
else:
    receiver = start(hold, rx.share(), held)
    assert held.wait(20 * SLOWNESS)
    killed(receiver)
    join(sender, code=11)
"""
    )


def test_a_killed_sender_loses_what_it_had_not_committed_and_holds_up_nobody():
    run_script(
        """
context = multiprocessing.get_context("spawn")
tx, rx = mpsc_bytes.channel(4096, shared=True)
ready = context.Event()
process = start(claim_and_wait, tx.clone().share(), ready)
assert ready.wait(20 * SLOWNESS)
tx.try_send(b"not held up")
assert {rx.recv_bytes_blocking(), rx.recv_bytes_blocking()} == {b"committed", b"not held up"}
killed(process)
tx.try_send(b"nor after it")
assert rx.recv_bytes_blocking() == b"nor after it"
tx.close()
try:
    rx.recv_blocking(timeout=20)
except RecvError as error:
    assert error.crashed
"""
    )


@pytest.mark.parametrize("heir", ["fork", "subprocess"])
def test_children_of_a_crashed_process_do_not_keep_its_end_open(heir):
    """They have inherited neither the socket nor the memory."""
    run_script(
        f"""
tx, rx = spsc_bytes.channel(4096, shared=True)
process = start(have_a_child_and_be_killed, tx.share(), {heir!r})
pid = int(rx.recv_bytes_blocking())
try:
    rx.recv_blocking(timeout=20 * SLOWNESS)
except RecvError as error:
    assert error.crashed
os.kill(pid, 0)  # it lives
os.kill(pid, signal.SIGKILL)
join(process, code=-signal.SIGKILL)
"""
    )


@pytest.mark.parametrize("waits", ["thread", "asyncio"])
def test_a_death_is_told_within_50_ms_to_who_waits(waits, side):
    """The quickest of several, as other programs may have the processors."""
    run_script(
        f"""
context = multiprocessing.get_context("fork")
def call(end):
    return end.recv_blocking() if {side!r} == "tx" else end.send_blocking(bytes(4000))
async def task(end):
    return await (end.recv() if {side!r} == "tx" else end.send(bytes(4000)))
def wait(end):
    try:
        call(end) if {waits!r} == "thread" else asyncio.run(task(end))
    except (SendError, RecvError) as error:
        return error.crashed, time.perf_counter()
took = []
for _ in range(5):
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    tx.try_send(bytes(2000))
    gone, stays = (tx, rx) if {side!r} == "tx" else (rx, tx)
    if {side!r} == "tx":
        rx.recv_blocking().release()
    ready = context.Event()
    process = start(hold, gone.share(), ready, method="fork")
    assert ready.wait(20 * SLOWNESS)
    waiting = Spawned(wait, stays)
    until_blocked(stays, **{{"receivers" if {side!r} == "tx" else "senders": 1}})
    os.sched_yield()
    began = time.perf_counter()
    os.kill(process.pid, signal.SIGKILL)
    crashed, ended = waiting.join()
    assert crashed
    took.append(ended - began)
    join(process, code=-signal.SIGKILL)
assert min(took) < 0.05, took
print(min(took), max(took))
"""
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("taken_in", [False, True])
def test_copies_of_a_ticket_do_not_keep_a_receiver_alive_that_was_killed(method, taken_in):
    """This process keeps the tickets, and under fork each child has those of the others."""
    run_script(
        f"""
context = multiprocessing.get_context({method!r})
channels = [mpsc_bytes.channel(4096, shared=True) for _ in range(2)]
if {taken_in}:
    for tx, rx in channels:
        tx.send_blocking(b"so that the lane is taken in")
        rx.recv_bytes_blocking()
tickets = [rx.share() for _, rx in channels]
ready = [context.Event() for _ in range(2)]
processes = [start(hold, ticket, event, method={method!r}) for ticket, event in zip(tickets, ready)]
for event in ready:
    assert event.wait(20 * SLOWNESS)
tx = channels[0].sender
for _ in range(60):
    tx.try_send(bytes(56))
waits = Spawned(tx.send_blocking, bytes(4000))
until_blocked(tx, senders=1)
killed(processes[0])
try:
    waits.join()
except SendError as error:
    assert error.crashed
else:
    raise AssertionError
try:
    attach(tx.clone().share()).send_blocking(b"too late", timeout=20 * SLOWNESS)
except SendError:
    pass
else:
    raise AssertionError
killed(processes[1])
"""
    )


@takes_long(60, 1800)
@pytest.mark.parametrize("method", ["fork", "forkserver"] if size(0, 1) else ["fork"])
def test_a_sender_is_killed_at_any_moment_and_every_committed_message_is_received_once(method):
    run_script(
        f"""
import random, tempfile
rng = random.Random({seeded("senders that are killed").randrange(1 << 30)})
counter = Counter(tempfile.mkstemp()[1])
for _ in range({size(15, 10_000 if method == "fork" else 500)}):
    counter.value = 0
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    victim = start(send_counting, tx.clone().share(), 0, counter, method={method!r})
    living = start(send_numbered, tx.clone().share(), 1, 2000, method={method!r})
    tx.close()
    last, seen, crashed = rng.choice([0, 1, rng.randrange(3000)]), [0, 0], None
    if last == 0:
        killed(victim)
    try:
        while True:
            me, n = RECORD.unpack(rx.recv_bytes_blocking(timeout=20 * SLOWNESS))
            assert n == seen[me], (me, n, seen)
            seen[me] += 1
            if me == 0 and n + 1 == last:
                killed(victim)
    except RecvError as error:
        crashed = error.crashed
    assert seen[1] == 2000, seen
    assert counter.value <= seen[0] <= counter.value + 1, (counter.value, seen)
    assert crashed or seen[0] == 0, "not told"  # else it may not have had its end yet
    join(living)
    rx.close()
os.unlink(counter.path)
""",
        seconds=size(60, 1800),
    )


@takes_long(60, 1800)
@pytest.mark.parametrize("method", ["fork", "forkserver"] if size(0, 1) else ["fork"])
def test_a_receiver_is_killed_at_any_moment_and_its_senders_go_on_elsewhere(method):
    run_script(
        f"""
import random
rng = random.Random({seeded("receivers that are killed").randrange(1 << 30)})
def feed(tx):
    n = 0
    try:
        while True:
            tx.send_blocking(message(n))
            n += 1
    except SendError as error:
        return error.crashed, error.value == message(n)
for _ in range({size(15, 10_000 if method == "fork" else 500)}):
    context = multiprocessing.get_context({method!r})
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    ready = context.Event()
    process = start(hold if rng.random() < 0.3 else drain, rx.share(), ready, method={method!r})
    senders = [Spawned(feed, tx.clone()) for _ in range(2)]
    assert ready.wait(20 * SLOWNESS)
    for _ in range(rng.randrange(20)):
        os.sched_yield()
    killed(process)
    for sender in senders:
        assert sender.join() == (True, True)
    assert tx.is_disconnected
    tx.close()
""",
        seconds=size(60, 1800),
    )


@takes_long(60, 600)
def test_both_sides_are_killed_and_nothing_is_left():
    """run_script looks for files that stay; here are the descriptors and the memory of who started them."""
    run_script(
        f"""
import random
context = multiprocessing.get_context("forkserver")
first = None
for n in range({size(6, 100)}):
    tx, rx = spsc_bytes.channel(1 << 16, shared=True)
    ready = [context.Event() for _ in range(2)]
    both = [start(hold, end.share(), event, method="forkserver") for end, event in zip((tx, rx), ready)]
    for event in ready:
        assert event.wait(20 * SLOWNESS)
    for process in both:
        killed(process)
        process.close()
    del tx, rx, ready, both, process, event
    gc.collect()
    now = len(descriptors()), open("/proc/self/maps").read().count("/memfd:")
    if n == 1:
        first = now
    assert n < 2 or now == first, (now, first)
""",
        seconds=size(60, 600),
    )


# ---- stopped processes ---------------------------------------------------------------------------------------------


def test_a_stopped_receiver_loses_nothing_and_its_sender_waits():
    run_script(
        f"""
tx, rx = spsc_bytes.channel(4096, shared=True)
process = start(recv_all, rx.share(), 2000, "thread")
for n in range(100):
    tx.send_blocking(message(n))
stop(process)
sent = 100
try:
    while True:
        tx.send_blocking(message(sent), timeout={size(0.5, 10)})
        sent += 1
except SendTimeout:
    pass
assert sent < 2000 and not tx.is_disconnected
resume(process)
for n in range(sent, 2000):
    tx.send_blocking(message(n))
tx.close()
join(process)
"""
    )


def test_a_stopped_sender_loses_nothing_and_holds_up_nobody_else():
    run_script(
        f"""
tx, rx = mpsc_bytes.channel(4096, shared=True)
first = start(send_numbered, tx.clone().share(), 0, 5000)
seen = [0, 0]
def take(timeout=None):
    me, n = RECORD.unpack(rx.recv_bytes_blocking(timeout))
    assert n == seen[me]
    seen[me] += 1
take()
stop(first)
second = start(send_numbered, tx.share(), 1, 5000)
while seen[1] < 5000:
    take()
try:
    while True:
        take({size(0.5, 10)})
except RecvTimeout:
    pass
assert seen[1] == 5000 > seen[0], seen
assert not rx.is_disconnected
resume(first)
try:
    while True:
        take()
except RecvError as error:
    assert not error.crashed
assert seen == [5000, 5000]
join(first, second)
"""
    )


# ---- peers that one should not trust -------------------------------------------------------------------------------


@takes_long(60, 900)
@pytest.mark.parametrize("what", ["memory", "socket", "descriptors"])
def test_a_sender_that_tampers_with_its_lane_harms_no_other(what):
    """Its own lane may end at any time; this process lives on, and all of the other sender arrives."""
    run_script(
        f"""
import random
rng = random.Random({seeded("a sender that tampers").randrange(1 << 30)})
for _ in range({size(3, 60)}):
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    hostile = start(tamper, {what!r}, tx.clone().share(), rng.randrange(1 << 30))
    honest = start(send_numbered, tx.clone().share(), 1, 3000)
    tx.close()
    seen = faults = 0
    while seen < 3000:
        try:
            with rx.recv_blocking(timeout=20 * SLOWNESS) as view:
                if len(view) == RECORD.size and RECORD.unpack(view)[0] == 1:
                    if RECORD.unpack(view)[1] == seen:
                        seen += 1
        except RecvTimeout:
            raise
        except ChannelError as error:
            faults += 1
            assert faults < 100, error
    killed(hostile)
    join(honest)
    ended = 0
    while not ended:
        try:
            rx.recv_bytes_blocking(timeout=20 * SLOWNESS)
        except RecvError:
            ended = 1
        except RecvTimeout:
            raise
        except ChannelError:
            faults += 1
            assert faults < 100
    rx.close()
""",
        seconds=size(60, 900),
    )


@takes_long(60, 900)
@pytest.mark.parametrize("what", ["memory", "socket", "descriptors"])
def test_a_receiver_that_tampers_with_its_lane_ends_its_sender_and_no_more(what):
    run_script(
        f"""
import random
rng = random.Random({seeded("a receiver that tampers").randrange(1 << 30)})
for _ in range({size(3, 60)}):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    hostile = start(tamper, {what!r}, rx.share(), rng.randrange(1 << 30))
    try:
        for n in range(5000):
            tx.send_blocking(message(n), timeout=1)
    except (ChannelError, TimeoutError):
        pass
    killed(hostile)
    try:
        for n in range(5000):
            tx.send_blocking(message(n), timeout=20 * SLOWNESS)
        raise SystemExit("sent to nobody")
    except SendTimeout:
        raise
    except ChannelError:
        pass
    tx.close()
    own_tx, own_rx = spsc_bytes.channel(4096, shared=True)
    own_tx.try_send(b"alive and well")
    assert own_rx.recv_bytes_blocking() == b"alive and well"
""",
        seconds=size(60, 900),
    )


# ---- a program of multiprocessing.Queue ----------------------------------------------------------------------------


def test_a_program_of_multiprocessing_queue_and_its_port_find_the_same():
    """The two programs of docs/howto/processes.md, on more workers and jobs than there."""
    run_script(
        """
import pathlib
sys.path.insert(0, str(pathlib.Path("../../examples/howto").resolve()))
import digests_by_channel, digests_by_queue
blocks = [bytes([n % 251]) * (n * 37 % 5000 + 1) for n in range(500)]
results = [sorted(module.digests(blocks, workers=3)) for module in (digests_by_queue, digests_by_channel)]
assert results[0] == results[1] and len(results[0]) == 500
"""
    )


def test_memory_of_a_small_dev_shm_does_not_matter():
    """A channel larger than what containers give to /dev/shm; nothing of it is there."""
    run_script(
        """
def free():
    found = os.statvfs("/dev/shm")
    return found.f_bfree * found.f_frsize
before = free()
tx, rx = spsc_bytes.channel(96 << 20, shared=True)
assert before - free() < 48 << 20
process = start(recv_all, rx.share(), 1000, "thread")
send_all_from(tx, 1000, "thread")
join(process)
"""
    )
