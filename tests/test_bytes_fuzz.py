"""Random calls on a byte channel beside a model in plain Python, compared after each call.

Everything a program can do on one thread: claim, write, shrink, commit, abort, drop a claim, keep views of it, send,
receive by each form, release, iterate, close either end. The seed is printed; NEXUS_CHANNELS_SEED plays it again.
"""

import collections
import random

import pytest
from harness import seeded, size, takes_long

from nexus_channels import (
    BusyError,
    ClaimDisconnected,
    ClaimFull,
    ClaimReleased,
    Empty,
    EndpointClosed,
    Full,
    RecvError,
    SendError,
)

HEADER = 8
NOISE = random.Random(1).randbytes(1 << 14)


def extent(size):
    return HEADER + (size + 7) // 8 * 8


class Record:
    """What the model holds for a stretch of the ring: kind is "claimed", "message" or "skip"."""

    __slots__ = ("data", "extent", "kind")

    def __init__(self, kind, extent, data=None):
        self.kind = kind
        self.extent = extent
        self.data = data


class Borrowed:
    """A claim with the views that were kept of it, and the bytes that it must show."""

    __slots__ = ("claim", "content", "record", "views", "written")

    def __init__(self, claim, content, record):
        self.claim = claim  # None once it was dropped
        self.content = content
        self.record = record
        self.written = False  # a fresh claim shows anything
        self.views = []  # (start, stop, memoryview)


class Fuzz:
    def __init__(self, module, chosen):
        self.module = module
        self.chosen = chosen
        self.many = module.__name__.endswith("mpsc_bytes")
        self.done = []  # claims that ended, kept to see that they stay dead
        self.log = collections.deque(maxlen=60)
        self.channels = 0
        self.calls = [
            (self.write, 4),
            (self.claim, 6),
            (self.commit, 5),
            (self.abort, 1),
            (self.drop_write, 1),
            (self.keep_view, 2),
            (self.write_view, 2),
            (self.drop_view, 3),
            (self.send, 4),
            (self.send_many, 1),
            (self.recv, 6),
            (self.recv_copy, 3),
            (self.recv_many, 1),
            (self.release, 5),
            (self.drop_read, 1),
            (self.keep_read_view, 2),
            (self.drop_read_view, 3),
            (self.iterate, 1),
            (self.use_after_end, 1),
            (self.compare_all, 1),
        ]
        self.calls, self.weights = zip(*self.calls, strict=True)
        self.open()

    def open(self):
        self.channels += 1
        tx, self.rx = self.module.channel(self.chosen.choice([64, 64, 64, 128, 256, 1024]))
        self.capacity = tx.capacity
        self.senders = [tx] + [tx.clone() for _ in range(self.chosen.randint(0, 2) if self.many else 0)]
        self.writing = [None] * len(self.senders)  # a Borrowed each
        self.reading = None
        self.records = collections.deque()
        self.position = 0
        self.used = 0

    def play(self, count):
        draw, calls, weights = self.chosen.choices, self.calls, self.weights
        while count > 0:
            life = min(count, int(self.chosen.expovariate(1 / 400)) + 1)
            for call in draw(calls, weights, k=life):
                self.log.append(call.__name__)
                call()
                assert self.rx.used == self.used
            count -= life
            self.chosen.choice([self.end_by_senders, self.end_by_receiver, self.end_by_dropping])()
            self.open()

    # The model

    def put(self, size, kind, data=None):
        record = Record(kind, extent(size), data)
        self.records.append(record)
        self.used += record.extent
        return record

    def pop(self):
        record = self.records.popleft()
        self.used -= record.extent
        self.position += record.extent

    def look(self):
        """The first message, once skips are stepped over; None if there is none."""
        while self.records and self.records[0].kind == "skip":
            self.pop()
        if self.records and self.records[0].kind == "message":
            return self.records[0]
        return None

    def bytes(self, size):
        start = self.chosen.randrange(len(NOISE) - size)
        return NOISE[start : start + size]

    def size(self):
        largest = self.capacity - HEADER
        way = self.chosen.random()
        if way < 0.6:
            return self.chosen.randint(1, min(largest, 24))
        if way < 0.9:
            return self.chosen.randint(1, largest)
        return largest - self.chosen.randint(0, 8)

    def sender(self):
        return self.chosen.randrange(len(self.senders))

    # Senders

    def claim(self):
        number, size = self.sender(), self.size()
        tx = self.senders[number]
        try:
            claim = tx.try_claim(size) if self.chosen.random() < 0.7 else tx.claim_blocking(size, timeout=0)
        except BusyError:
            assert self.writing[number] is not None
        except ClaimFull:
            assert self.writing[number] is None
            assert self.used + extent(size) > self.capacity
        else:
            assert self.writing[number] is None
            assert self.used + extent(size) <= self.capacity
            assert len(claim) == size
            record = self.put(size, "claimed") if self.many else None
            self.writing[number] = Borrowed(claim, bytearray(size), record)
            if self.chosen.random() < 0.8:
                self.fill(self.writing[number])

    def fill(self, borrowed):
        data = self.bytes(len(borrowed.content))
        borrowed.claim[:] = data
        borrowed.content[:] = data
        borrowed.written = True

    def known(self, borrowed):
        """Memory of a fresh claim is not cleared: before it is committed all of it is written."""
        if not borrowed.written:
            self.fill(borrowed)

    def write(self):
        borrowed = self.writing[self.sender()]
        if borrowed is None or borrowed.claim is None:
            return
        self.known(borrowed)
        start = self.chosen.randrange(len(borrowed.content))
        data = self.bytes(self.chosen.randint(1, len(borrowed.content) - start))
        borrowed.claim[start : start + len(data)] = data
        borrowed.content[start : start + len(data)] = data

    def finished_writing(self, number, data):
        """The claim ended: `data` was sent, or nothing."""
        borrowed, self.writing[number] = self.writing[number], None
        if data is None:
            if self.many:
                borrowed.record.kind = "skip"
        elif not self.many:
            self.put(len(data), "message", data)
        else:
            record = borrowed.record
            rest = record.extent - extent(len(data))
            record.kind, record.data, record.extent = "message", data, record.extent - rest
            if rest:
                index = next(i for i, other in enumerate(self.records) if other is record)
                self.records.insert(index + 1, Record("skip", rest))

    def commit(self):
        number = self.sender()
        borrowed = self.writing[number]
        if borrowed is None or borrowed.claim is None:
            return
        if not borrowed.views:
            self.known(borrowed)
        length = len(borrowed.content)
        kept = self.chosen.randint(1, length) if self.chosen.random() < 0.4 else None
        try:
            if kept is None and self.chosen.random() < 0.3:
                with borrowed.claim as view:
                    assert view.nbytes == length
            else:
                borrowed.claim.commit(kept)
        except BufferError:
            assert borrowed.views
        else:
            assert not borrowed.views
            self.remember(borrowed.claim)
            self.finished_writing(number, bytes(borrowed.content[:kept]))

    def abort(self):
        number = self.sender()
        borrowed = self.writing[number]
        if borrowed is None or borrowed.claim is None:
            return
        try:
            if self.chosen.random() < 0.5:
                borrowed.claim.abort()
            else:
                with borrowed.claim:
                    raise KeyError
        except BufferError:
            assert borrowed.views
        except KeyError:
            if not borrowed.views:
                self.remember(borrowed.claim)
                self.finished_writing(number, None)
        else:
            assert not borrowed.views
            self.remember(borrowed.claim)
            self.finished_writing(number, None)

    def drop_write(self):
        number = self.sender()
        borrowed = self.writing[number]
        if borrowed is not None:
            borrowed.claim = None
            if not borrowed.views:
                self.finished_writing(number, None)

    def keep(self, borrowed):
        length = len(borrowed.content)
        start = self.chosen.randrange(length)
        stop = self.chosen.randint(start + 1, length)
        way = self.chosen.randrange(3)
        if way == 0:
            view = borrowed.claim[start:stop]
        elif way == 1:
            whole = memoryview(borrowed.claim)
            view = whole[start:stop]
            whole.release()
        else:
            view = memoryview(borrowed.claim).cast("b").cast("B")[start:stop]
        borrowed.views.append((start, stop, view))

    def keep_view(self):
        borrowed = self.writing[self.sender()]
        if borrowed is not None and borrowed.claim is not None:
            self.known(borrowed)
            self.keep(borrowed)

    def write_view(self):
        borrowed = self.writing[self.sender()]
        if borrowed is not None and borrowed.views:
            start, stop, view = self.chosen.choice(borrowed.views)
            assert bytes(view) == borrowed.content[start:stop]
            data = self.bytes(stop - start)
            view[:] = data
            borrowed.content[start:stop] = data

    def forget_view(self, borrowed):
        """Drop a view; return whether the claim ends by that."""
        index = self.chosen.randrange(len(borrowed.views))
        start, stop, view = borrowed.views.pop(index)
        assert bytes(view) == borrowed.content[start:stop]
        if self.chosen.random() < 0.5:
            view.release()
        del view
        return borrowed.claim is None and not borrowed.views

    def drop_view(self):
        number = self.sender()
        borrowed = self.writing[number]
        if borrowed is not None and borrowed.views and self.forget_view(borrowed):
            self.finished_writing(number, None)

    def send(self):
        number, data = self.sender(), self.bytes(self.size())
        tx = self.senders[number]
        try:
            tx.try_send(data) if self.chosen.random() < 0.7 else tx.send_blocking(memoryview(data), timeout=0)
        except BusyError:
            assert self.writing[number] is not None
        except Full:
            assert self.writing[number] is None
            assert self.used + extent(len(data)) > self.capacity
        else:
            assert self.writing[number] is None
            self.put(len(data), "message", data)

    def send_many(self):
        number = self.sender()
        messages = [self.bytes(self.size()) for _ in range(self.chosen.randint(1, 6))]
        try:
            count = self.senders[number].try_send_many(messages)
        except BusyError:
            assert self.writing[number] is not None
            return
        assert self.writing[number] is None
        fitting = 0
        for data in messages:
            if self.used + extent(len(data)) > self.capacity:
                break
            self.put(len(data), "message", data)
            fitting += 1
        assert count == fitting

    # The receiver

    def recv(self):
        try:
            claim = self.rx.try_recv() if self.chosen.random() < 0.7 else self.rx.recv_blocking(timeout=0)
        except BusyError:
            assert self.reading is not None
        except Empty:
            assert self.reading is None
            assert self.look() is None
        else:
            assert self.reading is None
            record = self.look()
            assert bytes(claim) == record.data
            self.reading = Borrowed(claim, record.data, record)
            self.reading.written = True

    def recv_copy(self):
        way = self.chosen.randrange(3)
        target = bytearray(self.chosen.choice([self.capacity, 20]))
        data = None
        try:
            if way == 0:
                data = self.rx.try_recv_bytes()
            elif way == 1:
                data = self.rx.recv_bytes_blocking(timeout=0)
            else:
                data = bytes(target[: self.rx.try_recv_into(target)])
        except BusyError:
            assert self.reading is not None
        except Empty:
            assert self.reading is None
            assert self.look() is None
        except ValueError:
            assert len(self.look().data) > len(target)
            assert not any(target)
        else:
            assert self.reading is None
            assert data == self.look().data
            self.pop()

    def recv_many(self):
        wanted = self.chosen.randint(1, 5)
        try:
            messages = self.rx.try_recv_many(wanted)
        except BusyError:
            assert self.reading is not None
            return
        assert self.reading is None
        expected = []
        while len(expected) < wanted and (record := self.look()) is not None:
            expected.append(record.data)
            self.pop()
        assert messages == expected

    def finished_reading(self):
        assert self.records[0] is self.reading.record
        self.reading = None
        self.pop()

    def release(self):
        borrowed = self.reading
        if borrowed is None or borrowed.claim is None:
            return
        assert bytes(borrowed.claim) == borrowed.content
        try:
            if self.chosen.random() < 0.3:
                with borrowed.claim as view:
                    assert bytes(view) == borrowed.content
            else:
                borrowed.claim.release()
        except BufferError:
            assert borrowed.views
        else:
            assert not borrowed.views
            self.remember(borrowed.claim)
            self.finished_reading()

    def drop_read(self):
        if self.reading is not None:
            self.reading.claim = None
            if not self.reading.views:
                self.finished_reading()

    def keep_read_view(self):
        if self.reading is not None and self.reading.claim is not None:
            self.keep(self.reading)

    def drop_read_view(self):
        if self.reading is not None and self.reading.views and self.forget_view(self.reading):
            self.finished_reading()

    def iterate(self):
        """Over all that is there now; a loop that would block is left before."""
        if self.reading is not None:
            with pytest.raises(BusyError):
                next(iter(self.rx))
            return
        iterator, last = iter(self.rx), None
        while (record := self.model_next(last)) is not None:
            last = next(iterator)
            assert bytes(last) == record.data
        del iterator  # the loop is left
        if last is not None:
            with pytest.raises(ClaimReleased):
                last.release()
            self.pop()

    def model_next(self, last):
        """The record behind the one lent last, or None."""
        records = iter(self.records)
        found = next((record for record in records if record.kind != "skip"), None)
        if last is not None:
            found = next((record for record in records if record.kind != "skip"), None)
        if found is None or found.kind != "message":
            return None
        if last is not None:
            self.pop()
        self.look()
        return found

    # What is dead stays dead, and all is as the model says

    def remember(self, claim):
        if len(self.done) < 20:
            self.done.append(claim)
        else:
            self.done[self.chosen.randrange(20)] = claim

    def use_after_end(self):
        if self.done:
            claim = self.chosen.choice(self.done)
            for use in (memoryview, bytes, getattr(claim, "commit", getattr(claim, "release", None))):
                with pytest.raises(ClaimReleased):
                    use() if use not in (memoryview, bytes) else use(claim)

    def compare_all(self):
        dump = []
        at = self.position
        for record in self.records:
            length = len(record.data) if record.kind == "message" else record.extent if record.kind == "skip" else 0
            dump.append((at, record.kind, length))
            if record.kind == "claimed":
                break
            at += record.extent
        assert self.rx._dump() == dump
        stats = self.rx.statistics()
        assert (stats.received, stats.buffered, stats.sent) == (self.position, self.used, self.position + self.used)
        assert (stats.waiting_senders, stats.waiting_receivers) == (0, 0)
        assert stats.open_senders == len(self.senders)

    # Ends of channels

    def end_writes(self, gone):
        """End all open write claims, one way or another."""
        for number in self.chosen.sample(range(len(self.writing)), len(self.writing)):
            borrowed = self.writing[number]
            if borrowed is None:
                continue
            way = self.chosen.randrange(3) if borrowed.claim is not None else 2
            if way == 2:
                borrowed.claim = None
            while borrowed.views:
                self.forget_view(borrowed)
            data = None
            if way == 0:
                self.known(borrowed)
                data = bytes(borrowed.content)
                try:
                    borrowed.claim.commit()
                    assert not gone
                except ClaimDisconnected:
                    assert gone
                    data = None
            elif way == 1:
                borrowed.claim.abort()
            self.finished_writing(number, data)

    def end_read(self):
        borrowed = self.reading
        if borrowed is None:
            return
        if borrowed.claim is not None:
            assert bytes(borrowed.claim) == borrowed.content
        while borrowed.views:
            self.forget_view(borrowed)
        if borrowed.claim is not None and self.chosen.random() < 0.5:
            borrowed.claim.release()
        self.finished_reading()

    def end_by_senders(self):
        """All that was sent is received, and then the end is seen."""
        for tx in self.senders:
            tx.close()
            with pytest.raises(EndpointClosed):
                tx.try_send(b"x")
        assert self.rx.is_disconnected == (not any(self.writing))
        self.end_writes(gone=False)
        assert self.rx.is_disconnected
        self.end_read()
        for claim in self.rx:
            assert bytes(claim) == self.look().data
            self.pop()
        assert self.look() is None
        with pytest.raises(RecvError):
            self.rx.try_recv()
        assert self.rx.used == 0

    def end_by_receiver(self):
        """Senders see it at once; claims that are out stay what they are."""
        self.rx.close()
        for number, tx in enumerate(self.senders):
            assert tx.is_disconnected
            with pytest.raises(SendError):
                tx.try_send(b"x")
            borrowed = self.writing[number]
            if borrowed is not None and borrowed.claim is not None:
                self.fill(borrowed)
        ends = [lambda: self.end_writes(gone=True), self.end_read]
        self.chosen.shuffle(ends)
        for end in ends:
            end()
        for borrowed in self.writing:
            assert borrowed is None
        assert self.senders[0].used == 0

    def end_by_dropping(self):
        """Both ends go; the claims keep what they borrowed."""
        self.senders.clear()
        self.rx = None
        for borrowed in [*self.writing, self.reading]:
            if borrowed is not None and borrowed.claim is not None and borrowed.written:
                assert bytes(borrowed.claim) == borrowed.content
        self.writing.clear()
        self.reading = None


@takes_long(full=3600)
def test_random_calls_do_what_the_model_does(bytes_variant):
    chosen = seeded(f"fuzz {bytes_variant.__name__}")
    fuzz = Fuzz(bytes_variant, chosen)
    try:
        fuzz.play(size(100_000, 5_000_000))
    except BaseException as error:
        error.add_note(f"channel {fuzz.channels} of {fuzz.capacity} bytes; last calls: {', '.join(fuzz.log)}")
        raise
    assert fuzz.channels > 100
