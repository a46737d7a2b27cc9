"""Channels between processes when something goes wrong: looked at while somebody waits, peers that flood, lie or die,
no descriptors left, ends that leave while they are in use.

Each script runs in a process of its own.
"""

import pytest
from harness import SLOWNESS, run_child

from nexus_channels import spsc_bytes


def _are_here():
    try:
        for end in spsc_bytes.channel(64, shared=True):
            end.close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _are_here(), reason="no channels between processes here")

SCRIPT = f"""
import asyncio, contextlib, faulthandler, os, resource, socket, struct, sys, threading, time
from nexus_channels import *
from nexus_channels import mpsc_bytes, spsc_bytes
from nexus_channels._core import leave_shared, ticket_of_parts, ticket_parts
from support import Spawned, until, until_blocked
SLOWNESS = {SLOWNESS}
DEADLINE = 5 * SLOWNESS
faulthandler.dump_traceback_later(4 * DEADLINE, exit=True)
"""

INTO_A_LANE = """
def visit(ticket, kind, *fds):
    \"\"\"Send a further lobby by the door of a ticket; if `kind` is 2, in place of the one there.\"\"\"
    says = struct.pack("=IIQQQQQ", 0x6E637669, 1, 0, 0, kind, 0, 0)
    with socket.socket(fileno=os.dup(ticket_parts(ticket)[1][1])) as door:
        socket.send_fds(door, [says], fds)
"""


FORGED = """
senders = []

VISIT = struct.Struct("=IIQQQQQ")  # magic, version, reserved, capacity, id, after, after_pos

def unpacked(packed):
    \"\"\"What lies in the lobby of a ticket: lanes, and the rest, each as (numbers, descriptors).\"\"\"
    lanes, others = [], []
    with socket.socket(fileno=os.dup(packed)) as lobby:
        while True:
            said, more, _, _ = lobby.recvmsg(VISIT.size, 1024, socket.MSG_DONTWAIT)
            if not said:
                return lanes, others
            came = [list(struct.unpack("2i", data)) for _, kind, data in more if kind == socket.SCM_RIGHTS]
            numbers = VISIT.unpack(said)
            (lanes if numbers[3] else others).append((numbers, came[0]))

def repacked(numbers, token, visits):
    \"\"\"The receiver that comes by a ticket of these.\"\"\"
    lobby, door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lobby.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    for said, came in visits:
        socket.send_fds(door, [VISIT.pack(*said)], came)
        for fd in came:
            os.close(fd)
    door.close()
    return attach(ticket_of_parts(numbers, (os.dup(token), lobby.detach())))

def forged(n, forge):
    \"\"\"The receiver of n lanes, which comes by a ticket in which their (id, after, after_pos) are other ones.\"\"\"
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    for _ in range(n):
        senders.append(attach(tx.clone().share()))
        senders[-1].try_send(b"so that the lane is taken in")
    tx.close()
    for _ in range(n):
        assert rx.recv_bytes_blocking() == b"so that the lane is taken in"
    try:
        rx.try_recv_bytes()  # tx has gone, and its lane goes
    except Empty:
        pass
    numbers, (token, packed) = ticket_parts(ticket := rx.share())
    visits, others = unpacked(packed)
    assert len(visits) == n
    for (said, came), lane in zip(visits, forge([said[4:] for said, _ in visits])):
        others.append(((*said[:4], *lane), came))
    rx = repacked(numbers, token, others)
    ticket.close()
    return rx
"""


def run_shared(script, *args, before="", seconds=30):
    run_child(SCRIPT + before + script, *args, seconds=seconds)


@pytest.mark.parametrize("look", ["statistics()", "open_ends()", "__repr__()", "is_disconnected"])
def test_whoever_looks_at_an_end_takes_no_ring_from_those_who_wait(look):
    script = """
async def main():
    tx, rx = mpsc_bytes.channel(1000, shared=True)
    task = asyncio.ensure_future(rx.recv_bytes())
    await asyncio.sleep(0)
    tx.try_send(b"it rings")
    eval("rx." + sys.argv[1])
    assert await asyncio.wait_for(task, DEADLINE) == b"it rings"
    size = tx.max_message_size
    tx.try_send(bytes(size))
    task = asyncio.ensure_future(tx.send(bytes(size)))
    await asyncio.sleep(0)
    rx.try_recv_bytes()
    eval("tx." + sys.argv[1])
    await asyncio.wait_for(task, DEADLINE)
    task = asyncio.ensure_future(tx.send(bytes(size)))
    await asyncio.sleep(0)
    rx.try_recv_bytes()
    task = [task, asyncio.ensure_future(rx.recv_bytes())]
    await asyncio.sleep(0)
    other = attach(tx.clone().share())  # a new lane, in which there is something already
    other.try_send(b"by another lane")
    eval("rx." + sys.argv[1])
    for one in task:
        await asyncio.wait_for(one, DEADLINE)
asyncio.run(main())
"""
    run_shared(script, look)


def test_a_large_send_that_is_closed_makes_way_for_a_small_one_before_its_loop_comes_by():
    """What a lane is to ring for is what the first of those in line needs: now the small one is the first."""
    script = """
tx, rx = mpsc_bytes.channel(4096, shared=True)
large, held, end = tx.clone(), threading.Event(), threading.Event()
try:
    while True:
        tx.try_send(bytes(40))
except Full:
    pass
async def main():
    task = asyncio.ensure_future(large.send(bytes(4000)))
    await asyncio.sleep(0)
    held.set()
    end.wait(4 * DEADLINE)  # the loop does not run meanwhile
    try:
        await task
    except EndpointClosed:
        return "closed"
waits = Spawned(lambda: asyncio.run(main()))
held.wait(DEADLINE)
until_blocked(tx, senders=1)
small = Spawned(tx.send_blocking, bytes(100))
until_blocked(tx, senders=2)
large.close()
for _ in range(8):
    rx.try_recv_bytes()
small.join()
end.set()
assert waits.join() == "closed"
"""
    run_shared(script)


def test_a_receiver_that_never_sleeps_may_ring_as_often_as_there_is_room():
    script = """
tx, rx = spsc_bytes.channel(4096, shared=True)
message = bytes(rx.max_message_size)
async def send():
    for _ in range(1500):
        await tx.send(message)
sender = Spawned(asyncio.run, send())
for _ in range(1500):
    until(lambda: rx.statistics().buffered > 0)
    rx.try_recv_bytes()
sender.join()
assert not tx.is_disconnected
"""
    run_shared(script)


def test_a_sender_may_ring_as_often_as_it_sends_while_the_receiver_has_no_use_for_it():
    script = """
async def main():
    tx, rx = mpsc_bytes.channel(1 << 17, shared=True)
    first = asyncio.ensure_future(rx.recv())
    tasks = [asyncio.ensure_future(rx.recv_bytes()) for _ in range(3)]
    await asyncio.sleep(0)
    tx.try_send(b"borrowed for long")
    claim = await first
    for i in range(1500):
        tx.try_send(b"%d" % i)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    claim.release()
    assert await asyncio.gather(*tasks) == [b"0", b"1", b"2"]
    for i in range(3, 1500):
        assert rx.try_recv_bytes() == b"%d" % i
    try:
        rx.try_recv_bytes()
    except Empty:
        pass
    tx.try_send(b"the lane goes on")
    assert rx.try_recv_bytes() == b"the lane goes on"
asyncio.run(main())
"""
    run_shared(script)


def test_a_process_that_rings_and_does_nothing_else_is_found_out():
    script = """
async def main():
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    tx.try_send(b"so that the lane is there")
    assert await rx.recv_bytes() == b"so that the lane is there"
    task = asyncio.ensure_future(rx.recv_bytes())
    sockets = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if (one := socket.socket(fileno=os.dup(fd))).type == socket.SOCK_STREAM:
                sockets.append(one)
    assert len(sockets) >= 2  # of asyncio, and both ends of the lane
    end = time.monotonic() + DEADLINE
    while not task.done() and time.monotonic() < end:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.send(b"!", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        await asyncio.sleep(0)
    assert isinstance(task.exception(), ChannelError), task
    until(lambda: tx.is_disconnected)
asyncio.run(main())
"""
    run_shared(script)


def test_a_sender_whose_room_is_claimed_by_another_one_sleeps():
    script = """
tx, rx = mpsc_bytes.channel(4096, shared=True)
other = tx.clone()
tx.try_send(b"what is received moves the lane")
rx.try_recv_bytes()
claim = tx.try_claim(8)
try:
    other.send_blocking(b"behind the claim", timeout=0.05)
except SendTimeout:
    pass
else:
    raise AssertionError
waits = Spawned(other.send_blocking, b"behind the claim")
until_blocked(tx, senders=1)
began = time.process_time()
time.sleep(0.2)
assert time.process_time() - began < 0.1
claim.abort()
waits.join()
assert rx.try_recv_bytes() == b"behind the claim"
"""
    run_shared(script)


def test_a_lane_that_waits_for_another_one_keeps_no_receiver_awake():
    script = """
rx = forged(2, lambda lanes: [(lanes[0][0], 0, 0), (lanes[1][0], lanes[0][0], 1 << 20)])
for i in [0, 1] * 32:  # 32 are a turn: then it is that of the lane which waits
    senders[i].try_send(b"%d" % i)
first = int(rx.recv_bytes_blocking(timeout=DEADLINE))
for _ in range(31):
    assert int(rx.recv_bytes_blocking(timeout=DEADLINE)) == first
for timeout in (0.05, 0.2):
    began = time.process_time()
    try:
        rx.recv_bytes_blocking(timeout=timeout)
    except RecvTimeout:
        pass
    else:
        raise AssertionError
    assert time.process_time() - began < 0.1
waits = Spawned(rx.recv_bytes_blocking, timeout=DEADLINE)
until_blocked(rx, receivers=1)
senders[first].close()
assert int(waits.join()) == 1 - first
"""
    run_shared(script, before=FORGED)


def test_lanes_that_wait_for_one_another_are_not_waited_for():
    script = """
rx = forged(3, lambda lanes: [(lanes[i][0], lanes[i - 1][0], 1 << 20) for i in range(3)])
for i, sender in enumerate(senders):
    sender.try_send(b"%d" % i)
got = [rx.recv_bytes_blocking(timeout=DEADLINE)]  # the others wait for that lane
for sender in senders:
    sender.close()
got += [rx.recv_bytes_blocking(timeout=DEADLINE) for _ in range(2)]
assert sorted(got) == [b"0", b"1", b"2"]
waits = Spawned(rx.recv_bytes_blocking)
try:
    waits.join()
except RecvError:
    pass
else:
    raise AssertionError
"""
    run_shared(script, before=FORGED)


def test_a_lane_that_is_refused_takes_no_other_along_when_the_receiver_moves():
    """Its sender may have written anything into the memory meanwhile."""
    script = """
tx, rx = mpsc_bytes.channel(4096, shared=True)
senders = [attach(tx.clone().share()) for _ in range(3)]
for i, sender in enumerate(senders):
    sender.try_send(b"%d" % i)
assert sorted(rx.recv_bytes_blocking() for _ in range(3)) == [b"0", b"1", b"2"]
numbers, (token, packed) = ticket_parts(ticket := rx.share())
visits, others = unpacked(packed)
said, came = visits[2]
visits[2] = (*said[:3], 8192, *said[4:]), came  # which is not what was agreed on
rx = repacked(numbers, token, visits + others)
ticket.close()
for sender in (tx, *senders):
    try:
        sender.try_send(b"goes on")
    except SendError:
        pass
came, refused = 0, 0
for _ in range(4):
    try:
        assert rx.recv_bytes_blocking(timeout=DEADLINE) == b"goes on"
        came += 1
    except RecvTimeout:
        raise
    except ChannelError:
        refused += 1
assert (came, refused) == (3, 1), (came, refused)
"""
    run_shared(script, before=FORGED)


NO_DESCRIPTORS = """
@contextlib.contextmanager
def no_descriptors_left():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)
"""


def test_a_receivers_ticket_is_given_up_although_no_descriptor_is_left():
    """And a forked child has a copy of it."""
    script = """
import signal
tx, rx = mpsc_bytes.channel(4096, shared=True)
tx.try_send(b"so that the lane is taken in")
rx.try_recv_bytes()
ticket = rx.share()
pid = os.fork()
if pid == 0:
    signal.pause()
with no_descriptors_left():
    ticket.close()
try:
    while True:
        tx.send_blocking(bytes(1000), timeout=DEADLINE)
except SendError as error:
    assert type(error) is SendError, error
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""
    run_shared(script, before=NO_DESCRIPTORS)


def test_a_lane_for_which_no_descriptor_is_left_is_told_and_keeps_no_loop_awake():
    script = """
async def main():
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    task = asyncio.ensure_future(rx.recv_bytes())
    await asyncio.sleep(0)
    tx.try_send(b"the loop hears the channel from now on")
    await task
    other = attach(tx.clone().share())
    selector, turns = asyncio.get_running_loop()._selector, []
    select = selector.select
    selector.select = lambda timeout=None: turns.append(timeout) or select(timeout)
    with no_descriptors_left():
        await asyncio.sleep(0.2)
        assert len(turns) < 20, turns
        for _ in range(3):
            try:
                await rx.recv_bytes()
            except OSError:
                pass
            else:
                raise AssertionError
        task = asyncio.ensure_future(rx.recv_bytes())
        await asyncio.wait([task], timeout=DEADLINE)
        assert isinstance(task.exception(), OSError)
    with contextlib.suppress(OSError):  # it may have been heard once more meanwhile
        with contextlib.suppress(RecvTimeout):
            await rx.recv_bytes(timeout=0.01)
    task = asyncio.ensure_future(rx.recv_bytes())
    await asyncio.sleep(0)
    other.try_send(b"there are some again")
    assert await asyncio.wait_for(task, DEADLINE) == b"there are some again"
    with no_descriptors_left():
        another = attach_later(tx)
    assert await asyncio.wait_for(rx.recv_bytes(), DEADLINE) == b"by a third one"

def attach_later(tx):
    \"\"\"Nothing is opened, and what was open is as it was.\"\"\"
    try:
        tx.clone().share()
    except OSError:
        tx.try_send(b"by a third one")
    else:
        raise AssertionError
asyncio.run(main())
"""
    run_shared(script, before=NO_DESCRIPTORS)


@pytest.mark.parametrize("what", ["listening", "not connected", "a stream", "a file", "closed elsewhere"])
def test_what_is_no_lobby_is_refused_once(what):
    script = """
tx, rx = mpsc_bytes.channel(4096, shared=True)
one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
other = None
if sys.argv[1] == "listening":
    one.bind("")
    one.listen()
    other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.connect(one.getsockname())
elif sys.argv[1] == "a stream":
    one, other = socket.socketpair()
elif sys.argv[1] == "a file":
    one = open("/dev/null")
elif sys.argv[1] == "closed elsewhere":
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.send(b"so that the end is told as a reset")
    other.close()
visit(tx.clone().share(), 1, one.fileno(), one.fileno())
faults = 0
for _ in range(5):
    try:
        rx.try_recv_bytes()
    except ChannelError as error:
        faults += not isinstance(error, Empty)
    else:
        raise AssertionError
assert faults <= 1, faults
tx.try_send(b"the others go on")
assert rx.recv_bytes_blocking(timeout=DEADLINE) == b"the others go on"
tx.close()
try:
    rx.recv_bytes_blocking(timeout=DEADLINE)
except RecvError:
    pass
else:
    raise AssertionError
"""
    run_shared(script, what, before=INTO_A_LANE)


MULTIPROCESSING = """
import multiprocessing, sys, threading
from concurrent.futures import ThreadPoolExecutor
from nexus_channels import *
from nexus_channels import spsc_bytes
go = threading.Event()

def send(tx):
    for i in range(200):
        tx.send_blocking(b"%d" % i)
        threading.Event().wait(0.0005)
    tx.close()

def target(ticket):
    tx = attach(ticket)
    if sys.argv[2] == "thread":
        threading.Thread(target=send, args=(tx,)).start()
    else:
        global pool
        pool = ThreadPoolExecutor(1)
        pool.submit(send, tx)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    tx, rx = spsc_bytes.channel(4096, shared=True)
    process = context.Process(target=target, args=(tx.share(),))
    process.start()
    got = []
    try:
        while True:
            got.append(int(rx.recv_bytes_blocking(timeout=20)))
    except RecvError as error:
        assert not error.crashed
    assert got == list(range(200)), got
    process.join()
    assert process.exitcode == 0
"""


@pytest.mark.parametrize("how", ["thread", "pool"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_threads_of_a_process_go_on_sending_after_its_target_has_returned(method, how, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    source = f"import runpy, sys; sys.argv[0] = {str(program)!r}; runpy.run_path({str(program)!r}, run_name='__main__')"
    run_child(source, method, how, seconds=60)


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_who_waits_on_an_end_that_leaves_with_its_process_does_not_wait_on(side):
    script = """
tx, rx = spsc_bytes.channel(4096, shared=True)
tx.send_blocking(bytes(4000))
end, call = (tx, lambda: tx.send_blocking(bytes(4000))) if sys.argv[1] == "sender" else (rx, rx.recv_bytes_blocking)
if end is rx:
    rx.try_recv_bytes()
waits = Spawned(call)
until_blocked(end, **{sys.argv[1] + "s": 1})
leave_shared()
try:
    waits.join()
except Disconnected:
    pass
else:
    raise AssertionError
try:
    tx.try_send(b"to nobody")
except SendError:
    pass
else:
    raise AssertionError
"""
    run_shared(script, side)
