"""All interleavings of up to five operations of three tasks, enumerated on the stepped loop, for every channel.

A history is a list of choices. At each point it lets one of the three workers go on: a worker whose wait was ended
resumes, one that holds a claim ends it, one that is idle begins any operation, and a timer that is set may go off.
Every list of choices with so many operations is played, each on a new channel, and accounted for to the last item.
"""

import asyncio
import heapq

import pytest
from anychannel import ALL, AnyChannel
from harness import size, takes_long

from nexus_channels import BusyError, ChannelError, Closed, Empty, Full, RecvError

WORKERS = 3
LONG = 1.0  # the timeout of those that have one
# A wait with a timeout that does not go off is a wait without one, so BRIEF leaves those out and loses little.
BRIEF = ("send_in_time", "recv_in_time", "try_send", "try_recv", "close_tx", "close_rx")
EVENTS = ("send", "recv", *BRIEF)
CLAIMS = ("claim", "borrow")  # of channels of bytes: held while others go on
SENDING = ("send", "send_in_time", "try_send", "close_tx", "claim")
RECEIVING = ("recv", "recv_in_time", "try_recv", "close_rx", "borrow")


class Pause:
    """Awaiting it lets every other callback go first: the task is ready again at once."""

    def __await__(self):
        yield


class Worker:
    """A task that does one operation after another as it is told."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.state = "idle"  # or "waits", "holds a claim"
        self.order = None
        self.cancelled = False
        self.task = world.loop.create_task(self.work())

    async def work(self):
        while True:
            await Pause()
            event, self.order = self.order, None
            if event == "end":
                return
            if event is not None:
                await self.do(event)

    async def do(self, event):
        self.state = "waits"
        was_cancelled = False
        try:
            await getattr(self.world, event)(self)
        except asyncio.CancelledError:
            assert self.cancelled, "cancelled, and nobody asked for it"
            was_cancelled = True
            self.task.uncancel()
        except ChannelError as error:
            self.world.check_error(error)
        assert was_cancelled == self.cancelled, "a cancelled task went on as if nothing had been"
        self.cancelled = False
        self.state = "idle"


class World:
    def __init__(self, loop, name, capacity, events):
        self.loop = loop
        self.capacity = capacity
        self.all_events = events
        self.channel = AnyChannel(name, capacity)
        self.tx, self.rx = self.channel.tx, self.channel.rx
        self.room = 56 if capacity == 1 else 24  # a message that fills its share of a channel of bytes
        self.made = 0
        self.sent = {}  # what a send that returned has sent: the worker it is of
        self.got = []  # (worker, value), in the order the receives returned
        self.discarded = 0
        self.workers = []
        for number in range(WORKERS):
            self.workers.append(Worker(self, number))
            self.step(self.workers[-1])  # to its first pause
        self.begun = 0  # those that never did anything are alike: they begin in order

    # Operations, as the workers do them

    def new(self):
        self.made += 1
        return self.made.to_bytes(8, "little").ljust(self.room) if self.channel.bytes else self.made

    def value(self, item):
        return int.from_bytes(bytes(item)[:8], "little") if self.channel.bytes else item

    async def send(self, worker, timeout=None):
        item = self.new()
        await self.tx.send(item, timeout)
        self.sent[self.value(item)] = worker.number

    async def send_in_time(self, worker):
        await self.send(worker, LONG)

    async def recv(self, worker, timeout=None):
        call = self.rx.recv_bytes if self.channel.bytes else self.rx.recv
        self.got.append((worker.number, self.value(await call(timeout))))

    async def recv_in_time(self, worker):
        await self.recv(worker, LONG)

    async def try_send(self, worker):
        item = self.new()
        self.tx.try_send(item)
        self.sent[self.value(item)] = worker.number

    async def try_recv(self, worker):
        self.got.append((worker.number, self.take()))

    def take(self):
        return self.value(self.rx.try_recv_bytes() if self.channel.bytes else self.rx.try_recv())

    async def claim(self, worker):
        item = self.new()
        async with self.tx.claim(self.room) as view:
            worker.state = "holds a claim"
            view[:] = item
            await Pause()
        self.sent[self.value(item)] = worker.number

    async def borrow(self, worker):
        with await self.rx.recv() as view:
            worker.state = "holds a claim"
            self.got.append((worker.number, self.value(view)))
            await Pause()

    async def close_tx(self, _worker):
        self.tx.close()

    async def close_rx(self, _worker):
        self.discarded = len(self.sent) - len(self.got)
        assert self.channel.bytes or self.buffered() == self.discarded
        self.rx.close()

    def check_error(self, error):
        assert isinstance(error, (Closed, Full, Empty, BusyError)), error
        if isinstance(error, RecvError):
            assert self.tx.is_closed and self.buffered() == 0

    # Choices. All this runs inside of `loop.call`, so that it is the running loop.

    def handle_of(self, worker):
        """Where the task of this worker stands in the queue of the loop, or None if it waits."""
        for handle in self.loop._ready:
            if not handle.cancelled() and getattr(handle._callback, "__self__", None) is worker.task:
                return handle
        return None

    def step(self, worker):
        handle = self.handle_of(worker)
        self.loop._ready.remove(handle)
        handle._run()

    def choices(self, operations_left):
        """What may happen next: (worker, event), where the event None lets a worker go on; or ("time", None)."""
        found = []
        for worker in self.workers:
            if self.handle_of(worker) is None:
                continue
            if worker.state != "idle":
                found.append((worker.number, None))
            elif operations_left and worker.number <= self.begun:
                found += [(worker.number, event) for event in self.events()]
                found += [
                    (worker.number, other.number)
                    for other in self.workers
                    if other.state == "waits" and not other.cancelled
                ]
        if self.loop.next_timer() is not None:
            found.append(("time", None))
        return found

    def events(self):
        events = self.all_events + (CLAIMS if self.channel.bytes else ())
        if self.tx.is_closed:
            events = [event for event in events if event not in SENDING]
        if self.rx.is_closed:
            events = [event for event in events if event not in RECEIVING]
        return events

    def play(self, choice):
        who, event = choice
        if who == "time":
            self.loop._now = max(self.loop._now, self.loop.next_timer())
            heapq.heappop(self.loop._timers)[2]._run()
            return
        worker = self.workers[who]
        if event is not None:
            self.begun = max(self.begun, who + 1)
        if isinstance(event, int):  # cancel another
            victim = self.workers[event]
            victim.cancelled = True
            victim.task.cancel()
            return
        if event is not None:
            worker.order = event
        self.step(worker)

    def in_task(self, function):
        """Call it as a task of the loop would: wake-ups then need no detour."""
        task = asyncio.Future(loop=self.loop)  # what asyncio takes for the current task may be any object
        asyncio.tasks._enter_task(self.loop, task)
        try:
            return function()
        finally:
            asyncio.tasks._leave_task(self.loop, task)

    # Accounting

    def buffered(self):
        return self.rx.used // (64 // self.capacity) if self.channel.bytes else len(self.rx)

    def settle(self):
        """Whoever can go on does; then nobody waits whose condition holds."""
        while busy := [worker for worker in self.workers if worker.state != "idle" and self.handle_of(worker)]:
            for worker in busy:
                self.step(worker)
        stats = self.rx.statistics()
        waiting = [worker for worker in self.workers if worker.state != "idle"]
        assert stats.waiting_senders + stats.waiting_receivers == len(waiting)
        if waiting:
            assert not self.tx.is_closed and not self.rx.is_closed
            assert not (stats.waiting_senders and self.buffered() < self.capacity), "waits although there is room"
            assert not (stats.waiting_receivers and self.buffered()), "waits although there is something"

    def finish(self):
        """Receive what is left, close both ends, and account for every value."""
        self.settle()
        while not self.rx.is_closed:
            try:
                self.got.append((-1, self.in_task(self.take)))
            except (Empty, RecvError):
                break
            self.settle()
        self.in_task(self.tx.close)
        self.in_task(self.rx.close)
        self.settle()
        for worker in self.workers:
            assert worker.state == "idle"
            worker.order = "end"
            self.step(worker)
            assert worker.task.done() and worker.task.exception() is None
        assert self.loop.next_timer() is None, "a wait that ended left its timer behind"
        assert self.loop.pending() == 0
        values = [value for _, value in self.got]
        assert len(set(values)) == len(values), "received twice"
        assert set(values) <= set(self.sent), "received, although its send raised"
        assert len(self.sent) == len(values) + self.discarded, "lost"
        for receiver in {worker for worker, _ in self.got}:
            for sender in range(WORKERS):
                own = [value for by, value in self.got if by == receiver and self.sent[value] == sender]
                assert own == sorted(own), "one sender's items were received in another order"


def histories(loop, name, capacity, operations, events):
    """Play every history, depth first; how many there were."""
    played = 0
    path = []  # (choices at this point, which of them was taken)
    while True:
        world = World(loop, name, capacity, events)
        left = operations
        taken = []
        try:
            for depth in range(1000):
                if depth == len(path):
                    path.append((world.choices(left), 0))
                found, index = path[depth]
                if not found:
                    break
                choice = found[index]
                taken.append(choice)
                left -= choice[1] is not None
                world.play(choice)
            world.finish()
            assert loop.errors == []
        except AssertionError as error:
            error.add_note(f"{name}, capacity {capacity}: {taken}")
            raise
        played += 1
        while path and path[-1][1] + 1 >= len(path[-1][0]):
            path.pop()
        if not path:
            return played
        path[-1] = (path[-1][0], path[-1][1] + 1)


@takes_long(full=2 * 3600)
@pytest.mark.parametrize("capacity", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_every_interleaving_of_three_tasks_is_accounted_for_exactly(name, capacity, step_loop):
    """Stress: five operations, 2 million histories of a channel of objects and 13 million of one of bytes."""
    for operations, events in size([(2, EVENTS), (3, EVENTS)], [(4, EVENTS), (5, BRIEF)]):
        played = step_loop.call(histories, step_loop, name, capacity, operations, events)
        assert played > len(events) ** operations * {2: 1, 3: 3, 4: 10, 5: 30}[operations]
    assert step_loop.errors == []
