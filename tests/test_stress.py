"""Much traffic, checked to the last item. Full sizes with NEXUS_CHANNELS_STRESS=1; seeds are printed, and given back by
NEXUS_CHANNELS_SEED. The watchdog of conftest.py dumps all stacks of a test that hangs."""

import asyncio
import collections
import contextlib
import itertools
import sys
import threading
import time

import pytest
from harness import SLOWNESS, seeded, size, takes_long
from support import DEADLINE, drive

from nexus_channels import (
    ChannelError,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    RecvTimeout,
    SendError,
    SendTimeout,
    mpsc,
)


def finish(threads):
    """Join threads that may take longer than a deadline; the watchdog looks after them."""
    for thread in threads:
        while thread.is_alive():
            thread._thread.join(1)
        thread.join()


class InOrder:
    """Checks what arrives: item = number * senders + sender, and each sender's numbers come one by one."""

    def __init__(self, senders):
        self.senders = senders
        self.next = [0] * senders

    def take(self, item):
        number, sender = divmod(item, self.senders)
        assert self.next[sender] == number, f"sender {sender}: {number} instead of {self.next[sender]}"
        self.next[sender] += 1


def send_all(tx, sender, senders, count, random):
    """By every blocking way there is, mixed."""
    items = iter(range(sender, count * senders, senders))
    with tx:
        while True:
            way = random.random()
            if way < 0.6:
                batch = list(itertools.islice(items, 1000))
                for item in batch:
                    tx.send_blocking(item)
            elif way < 0.9:
                batch = list(itertools.islice(items, random.randint(1, 2000)))
                tx.send_many_blocking(batch)
            else:
                batch = list(itertools.islice(items, 200))
                for item in batch:
                    try:
                        tx.try_send(item)
                    except Full:
                        tx.send_blocking(item)
            if not batch:
                return


@takes_long()
@pytest.mark.parametrize("capacity", [1024, 3])
def test_four_threads_into_one_asyncio_consumer_lose_nothing_and_keep_order(spawn, loop_factory, capacity):
    random = seeded("fan-in, asyncio")
    senders = 4
    count = size(25_000 if capacity > 100 else 2_500, 2_500_000 if capacity > 100 else 100_000)
    tx, rx = mpsc.channel(capacity)
    check = InOrder(senders)
    threads = [
        spawn(send_all, tx.clone(), sender, senders, count, type(random)(random.random())) for sender in range(senders)
    ]
    tx.close()

    async def consume():
        take = check.take
        turn = 0
        try:
            while True:
                turn += 1
                if turn % 3:
                    take(await rx.recv())
                else:
                    for item in await rx.recv_many(500):
                        take(item)
        except RecvError:
            pass

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(consume())
    finish(threads)
    assert check.next == [count] * senders


@takes_long()
@pytest.mark.parametrize("capacity", [1024, 3])
def test_four_threads_into_one_blocking_consumer_lose_nothing_and_keep_order(spawn, capacity):
    random = seeded("fan-in, blocking")
    senders = 4
    count = size(25_000 if capacity > 100 else 5_000, 2_500_000 if capacity > 100 else 250_000)
    tx, rx = mpsc.channel(capacity)
    check = InOrder(senders)
    threads = [
        spawn(send_all, tx.clone(), sender, senders, count, type(random)(random.random())) for sender in range(senders)
    ]
    tx.close()
    for turn, item in enumerate(rx):
        check.take(item)
        if turn % 100 == 0:
            with contextlib.suppress(RecvError):
                for more in rx.try_recv_many(500):
                    check.take(more)
    finish(threads)
    assert check.next == [count] * senders


@takes_long()
def test_one_thread_into_one_consumer_by_spsc_loses_nothing_and_keeps_order(spawn, threaded):
    random = seeded("spsc")
    count = size(100_000, 5_000_000)
    for capacity in (1, 2, 3, 7, 8, 64, 4096):
        tx, rx = threaded.channel(capacity)
        share = max(count // (50 if capacity < 64 else 4), 100)
        check = InOrder(1)
        thread = spawn(send_all, tx, 0, 1, share, type(random)(random.random()))
        del tx
        for item in rx:
            check.take(item)
        finish([thread])
        assert check.next == [share]


# Pitfall 11: pop says empty, the peer pushes and closes, closed says yes.


@takes_long()
@pytest.mark.parametrize("receiver", ["polls", "blocks", "awaits", "iterates"])
def test_pitfall_11_the_last_value_before_a_close_always_arrives(threaded, spawn, receiver):
    rounds = size(500 if receiver != "awaits" else 300, 20_000)
    turn = threading.Barrier(2)
    ends = []

    def close_after_the_last_send():
        for number in range(rounds):
            try:
                turn.wait(DEADLINE)
            except threading.BrokenBarrierError:
                return
            tx = ends.pop()
            for _ in range(number % 37):  # later and later against the receiver
                pass
            if number % 3 == 0:
                tx.send_blocking(("last", number))
            else:
                tx.try_send(("last", number))
            if number % 2:
                tx.close()
            del tx  # else the drop closes

    def poll(rx):
        got = []
        while True:
            try:
                got.append(rx.try_recv())
            except Empty:
                pass
            except RecvError:
                return got

    def block(rx):
        got = []
        while True:
            try:
                got.append(rx.recv_blocking(timeout=DEADLINE))
            except RecvError:
                return got

    async def collect(rx):
        return [item async for item in rx]

    thread = spawn(close_after_the_last_send)
    with asyncio.Runner() as runner:
        receive = {
            "polls": poll,
            "blocks": block,
            "iterates": list,
            "awaits": lambda rx: runner.run(collect(rx)),
        }[receiver]
        try:
            for number in range(rounds):
                tx, rx = threaded.channel(1 + number % 2)
                ends.append(tx)
                del tx
                turn.wait(DEADLINE)
                assert receive(rx) == [("last", number)]
        finally:
            turn.abort()
    finish([thread])


@takes_long()
def test_a_close_of_the_receiver_against_a_send_tells_each_send_its_fate(threaded, spawn):
    """Sent means received or discarded; raised means neither. Each value is freed exactly once."""
    rounds = size(500, 20_000)
    turn = threading.Barrier(2)
    ends = []
    outcomes = []
    freed = collections.Counter()

    class Value:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            freed[self.number] += 1

    def send():
        for number in range(rounds):
            turn.wait(DEADLINE)
            tx = ends.pop()
            for _ in range(number % 37):
                pass
            try:
                tx.send_blocking(Value(number), timeout=DEADLINE) if number % 2 else tx.try_send(Value(number))
                outcomes.append("sent")
            except SendError as error:
                assert error.value.number == number
                outcomes.append("refused")
            assert tx.is_disconnected or outcomes[-1] == "sent"

    thread = spawn(send)
    received = 0
    for number in range(rounds):
        tx, rx = threaded.channel(1)
        ends.append(tx)
        turn.wait(DEADLINE)
        if number % 4 < 2:
            received += len(rx.try_recv_many(1))
        rx.close()
        del rx, tx
    finish([thread])
    assert len(outcomes) == rounds
    assert received <= outcomes.count("sent")
    assert freed == dict.fromkeys(range(rounds), 1)


# Linearizability: what several threads saw must be explained by some order of their calls on a plain queue.


class Model:
    """A bounded queue, one call at a time: what each call would answer."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.items = ()
        self.senders_closed = False
        self.receiver_closed = False

    def copy(self):
        new = Model(self.capacity)
        new.items, new.senders_closed, new.receiver_closed = self.items, self.senders_closed, self.receiver_closed
        return new

    def apply(self, operation):
        name, value = operation
        if name in ("try_send", "send", "try_send_many"):
            if self.senders_closed:
                return "EndpointClosed"
            if self.receiver_closed:
                return "SendError"
            values = value if name == "try_send_many" else (value,)
            fit = values[: self.capacity - len(self.items)]
            self.items += fit
            if name == "try_send_many":
                return len(fit)
            return "ok" if fit else "Full"
        if name in ("try_recv", "recv", "try_recv_many"):
            if self.receiver_closed:
                return "EndpointClosed"
            if not self.items and self.senders_closed:
                return "RecvError"
            count = 2 if name == "try_recv_many" else 1
            taken, self.items = self.items[:count], self.items[count:]
            if name == "try_recv_many":
                return list(taken)
            return taken[0] if taken else "Empty"
        if name == "close_tx":
            self.senders_closed = True
            return None
        if name == "close_rx":
            self.receiver_closed = True
            self.items = ()
            return None
        if name == "len":
            return len(self.items)
        raise AssertionError(name)


def perform(tx, rx, operation):
    name, value = operation
    calls = {
        "try_send": lambda: tx.try_send(value),
        "send": lambda: tx.send_blocking(value, timeout=0),
        "try_send_many": lambda: tx.try_send_many(value),
        "try_recv": rx.try_recv,
        "recv": lambda: rx.recv_blocking(timeout=0),
        "try_recv_many": lambda: rx.try_recv_many(2),
        "close_tx": tx.close,
        "close_rx": rx.close,
        "len": lambda: len(rx),
    }
    try:
        result = calls[name]()
    except (SendTimeout, RecvTimeout) as error:
        return "Full" if isinstance(error, Full) else "Empty"
    except ChannelError as error:
        return type(error).__name__
    return "ok" if name in ("try_send", "send") else result


def single_calls(call, number):
    """(begin, end, operation, allowed answers, number): a batch moves its items one by one, while others go on."""
    begin, end, (name, value), answer = call
    if name == "try_send_many" and isinstance(answer, int):
        went = [(("try_send", item), ("ok",)) for item in value[:answer]]
        if answer < len(value):
            stopped = ("Full",) if answer == 0 else ("Full", "SendError", "EndpointClosed")
            went.append((("try_send", value[answer]), stopped))
    elif name == "try_send_many":
        went = [(("try_send", value[0]), (answer,))]
    elif name == "try_recv_many" and isinstance(answer, list):
        went = [(("try_recv", None), (item,)) for item in answer]
        if len(answer) < 2:
            went.append((("try_recv", None), ("Empty", "RecvError", "EndpointClosed") if answer else ("Empty",)))
    elif name == "try_recv_many":
        went = [(("try_recv", None), (answer,))]
    else:
        went = [((name, value), (answer,))]
    return [(begin, end, operation, answers, number) for operation, answers in went]


def explained(history, capacity):
    """Is there an order of the calls, each between its begin and end, that a queue would answer so? Depth first."""
    calls = []
    for number, call in enumerate(sorted(itertools.chain.from_iterable(history), key=lambda call: call[0])):
        calls += single_calls(call, number)
    seen = set()

    def search(left, model):
        if not left:
            return True
        key = (left, model.items, model.senders_closed, model.receiver_closed)
        if key in seen:
            return False
        seen.add(key)
        first_end = min(calls[index][1] for index in left)
        begun = set()
        for index in sorted(left):
            begin, _, operation, answers, number = calls[index]
            if begin > first_end or number in begun:
                continue
            begun.add(number)  # only the first of what is left of a batch may be next
            after = model.copy()
            if after.apply(operation) in answers and search(left - {index}, after):
                return True
        return False

    return search(frozenset(range(len(calls))), Model(capacity))


def test_the_checker_of_histories_finds_what_is_wrong():
    """A queue that loses, doubles or reorders must be found out, and overlapping calls may go either way."""
    sequential = [[(0, 1, ("try_send", 1), "ok"), (2, 3, ("try_recv", None), 1)]]
    assert explained(sequential, 1)
    assert not explained([[(0, 1, ("try_send", 1), "ok"), (2, 3, ("try_recv", None), "Empty")]], 1)
    assert not explained([[(0, 1, ("try_send", 1), "ok"), (2, 3, ("try_send", 2), "ok")]], 1)
    assert not explained([*sequential, [(4, 5, ("try_recv", None), 1)]], 1)
    overlapping = [[(0, 3, ("try_send", 1), "ok")], [(1, 2, ("try_recv", None), "Empty")]]
    assert explained(overlapping, 1)
    assert explained([overlapping[0], [(1, 2, ("try_recv", None), 1)]], 1)
    assert not explained(
        [[(0, 1, ("try_send", 1), "ok"), (2, 3, ("close_tx", None), None)], [(4, 5, ("try_recv", None), "RecvError")]],
        1,
    )


@takes_long()
def test_histories_of_three_threads_are_explained_by_a_queue(threaded, spawn):
    random = seeded("linearizability")
    rounds = size(300, 100_000)
    operations = ["try_send", "send", "try_send_many", "try_recv", "recv", "try_recv_many", "len"]
    workers = 3
    plans, results, ends = [None] * workers, [None] * workers, []
    begin, end = threading.Barrier(workers + 1), threading.Barrier(workers + 1)
    clock = itertools.count()  # its next() is one step, atomic, and so orders begins and ends

    def work(index):
        with contextlib.suppress(threading.BrokenBarrierError):
            for _ in range(rounds):
                begin.wait(DEADLINE)
                tx, rx = ends[index]
                history = []
                for operation in plans[index]:
                    start = next(clock)
                    answer = perform(tx, rx, operation)
                    history.append((start, next(clock), operation, answer))
                results[index] = history
                del tx, rx
                end.wait(DEADLINE)

    threads = [spawn(work, index) for index in range(workers)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # else the GIL lets one thread after the other do all of its calls
    try:
        for number in range(rounds):
            capacity = random.randint(1, 3)
            channel = threaded.channel(capacity)
            # With a sender each the threads are not even kept apart by sharing one; but then none can close for all.
            cloned = threaded is mpsc and number % 2 == 0
            clones = [channel.sender.clone() for _ in range(workers - 1)] if cloned else []
            rare = ["close_rx"] if cloned else ["close_tx", "close_rx"]
            values = itertools.count(1)
            for index in range(workers):
                names = [random.choice(rare if random.random() < 0.06 else operations) for _ in range(4)]
                plans[index] = [
                    (name, (next(values), next(values)) if name == "try_send_many" else next(values)) for name in names
                ]
            ends[:] = [channel] * workers
            if cloned:
                ends[:] = [(tx, channel.receiver) for tx in (channel.sender, *clones)]
            begin.wait(DEADLINE)
            end.wait(DEADLINE)
            assert explained(results, capacity), f"round {number}, capacity {capacity}: {results}"
    finally:
        sys.setswitchinterval(interval)
        begin.abort()
    finish(threads)


# One thread, random calls, beside a plain model


@takes_long()
def test_random_calls_answer_as_a_plain_queue_would(variant):
    random = seeded("model")
    name = variant.__name__.rpartition(".")[2]
    blocking = name != "local"
    kinds = ["try_send", "try_recv", "try_send_many", "try_recv_many", "len"] + (["send", "recv"] if blocking else [])
    for _ in range(size(300, 20_000)):
        capacity = random.choice([1, 2, 3, 7, 8])
        tx, rx = variant.channel(capacity)
        model = Model(capacity)
        values = itertools.count()
        story = []
        sent = received = 0
        for _ in range(60):
            kind = random.choice(kinds) if random.random() > 0.02 else random.choice(["close_tx", "close_rx"])
            value = (next(values), next(values)) if kind == "try_send_many" else next(values)
            operation = (kind, value)
            story.append(operation)
            before = len(model.items)
            expected = model.apply(operation)
            assert perform(tx, rx, operation) == expected, story
            change = len(model.items) - before
            sent += max(change, 0)
            received -= min(change, 0) if kind != "close_rx" else 0
            stats = tx.statistics()
            assert stats == (
                capacity,
                len(model.items),
                not model.senders_closed,
                not model.receiver_closed,
                0,
                0,
                sent,
                received,
            ), story
            assert len(tx) == len(rx) == len(model.items)
            assert tx.is_disconnected == model.receiver_closed
            assert rx.is_disconnected == model.senders_closed
            assert (tx.is_closed, rx.is_closed) == (model.senders_closed, model.receiver_closed)
            if not tx.is_closed and not rx.is_closed and random.random() < 0.1:
                if len(rx) == capacity:
                    with pytest.raises(Full):
                        drive(tx.send(None, timeout=0))
                elif len(rx) == 0:
                    with pytest.raises(Empty):
                        drive(rx.recv(timeout=0))


# Everything at once


@takes_long()
def test_channels_that_open_carry_and_close_in_every_way_at_once(spawn, threaded):
    """Threads hand each other the ends of ever new channels through channels; tasks and threads wait on all of them."""
    random = seeded("everything")
    seconds = size(2.0, 120.0)
    rounds = collections.Counter()
    stop = time.monotonic() + seconds

    def work(seed):
        rng = type(random)(seed)
        while time.monotonic() < stop:
            tx, rx = threaded.channel(rng.randint(1, 4))
            count = rng.randint(0, 40)
            ways = rng.randint(0, 3)

            def feed(tx=tx, count=count, ways=ways):
                try:
                    if ways == 0:
                        tx.send_many_blocking(range(count), timeout=DEADLINE)
                    else:
                        for number in range(count):
                            tx.send_blocking(number, timeout=DEADLINE)
                except (SendError, EndpointClosed):
                    return
                if ways != 1:
                    tx.close()

            feeder = threading.Thread(target=feed)
            feeder.start()
            del tx, feed
            if ways == 2:

                async def drain(rx=rx):
                    return [item async for item in rx]

                got = asyncio.run(drain())
            elif ways == 3 and count > 5:
                got = [rx.recv_blocking(timeout=DEADLINE) for _ in range(3)]
                rx.close()
                count = 3
            else:
                # The thread's own reference to the sender goes when it ends.
                got = []
                while len(got) < count:
                    got += rx.recv_many_blocking(7, timeout=DEADLINE)
            feeder.join(DEADLINE)
            assert not feeder.is_alive()
            assert got == list(range(count))
            rounds[ways] += 1

    finish([spawn(work, random.random()) for _ in range(3)])
    print(dict(rounds))
    assert sum(rounds.values()) > 10 / SLOWNESS
