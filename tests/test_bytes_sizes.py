"""Every size at every place in the ring: accepted exactly when there is room, and read back intact.

A message may begin at each multiple of 8 and run over the end of the ring. Positions near 2**63 and 2**64 are tested
with the C core, where they can be set; 2**32 is passed here.
"""

import random

import pytest
from harness import STRESS, takes_long

from nexus_channels import ClaimFull, Full

HEADER = 8
PATTERN = random.Random(0).randbytes(3 * 8192)  # so that each place is told from its neighbours


def extent(size):
    return HEADER + (size + 7) // 8 * 8


class Ring:
    """An empty channel whose next record can be put at a chosen offset."""

    def __init__(self, module, capacity):
        self.tx, self.rx = module.channel(capacity)
        self.capacity = capacity
        self.at = 0
        self.sent = 0

    def message(self, size):
        self.sent = (self.sent * 31 + size) % 8191
        return PATTERN[self.sent : self.sent + size]

    def moved(self, *sizes):
        for size in sizes:
            self.at = (self.at + extent(size)) % self.capacity

    def go_to(self, offset):
        distance = (offset - self.at) % self.capacity
        if distance:
            self.tx.try_send(PATTERN[: distance - HEADER] if distance > HEADER else b"x")
            self.rx.try_recv_bytes()
            self.moved(distance - HEADER if distance > HEADER else 1)
            if self.at != offset:
                self.go_to(offset)


def copy(ring, size):
    data = ring.message(size)
    ring.tx.try_send(data)
    assert ring.rx.try_recv_bytes() == data
    ring.moved(size)


def borrow(ring, size):
    data = ring.message(size)
    with ring.tx.try_claim(size) as view:
        view[:] = data
    with ring.rx.try_recv() as view:
        assert view == data
    ring.moved(size)


def among_neighbours(ring, size):
    """The message, and another that fills the ring; and, when the first is read, one more in its place."""
    data = ring.message(size)
    ring.tx.try_send(data)
    ring.moved(size)
    rest = ring.capacity - extent(size) - HEADER
    if rest > 0:
        neighbour = ring.message(rest)
        ring.tx.try_send(neighbour)
        ring.moved(rest)
        with pytest.raises(Full):
            ring.tx.try_send(b"x")
    assert ring.rx.try_recv_bytes() == data
    again = ring.message(size)
    ring.tx.try_send(again)
    ring.moved(size)
    if rest > 0:
        assert ring.rx.try_recv_bytes() == neighbour
    assert ring.rx.try_recv_bytes() == again


def shrunk(ring, size):
    """A claim that is cut down, and a neighbour behind it."""
    kept = (size * 7 + ring.at) % size + 1
    data = ring.message(kept)
    claim = ring.tx.try_claim(size)
    claim[:kept] = data
    claim.commit(kept)
    with pytest.raises(ClaimFull):
        ring.tx.try_claim(ring.tx.max_message_size)
    rest = ring.capacity - extent(size) - HEADER
    if rest > 0:
        neighbour = ring.message(rest)
        ring.tx.try_send(neighbour)
    assert ring.rx.try_recv_bytes() == data
    if rest > 0:
        assert ring.rx.try_recv_bytes() == neighbour
    assert ring.rx.try_recv_many(1) == []
    ring.at = ring.rx.statistics().received % ring.capacity


USES = [copy, borrow, among_neighbours, shrunk]


def play(module, capacity, use, places):
    ring = Ring(module, capacity)
    for offset, size in places:
        ring.go_to(offset)
        use(ring, size)
        assert ring.tx.used == 0
    ring.go_to(0)
    assert ring.rx.statistics().received % capacity == 0


def every_place(capacity):
    for size in range(1, capacity - HEADER + 1):
        for offset in range(0, capacity, 8):
            yield offset, size


def some_places(capacity, count, seed):
    """All offsets and all sizes occur, not all pairs; the edges all occur."""
    chosen = random.Random(seed)
    largest = capacity - HEADER
    edges = [
        1,
        7,
        8,
        9,
        capacity // 2 - 8,
        capacity // 2 - 7,
        capacity // 2,
        largest - 8,
        largest - 7,
        largest - 1,
        largest,
    ]
    for offset in range(0, capacity, 8):
        yield offset, chosen.choice(edges)
    for size in edges:
        for offset in (0, 8, capacity // 2, capacity - 16, capacity - 8):
            yield offset, size
    for _ in range(count):
        yield chosen.randrange(0, capacity, 8), chosen.randint(1, largest)


@takes_long()
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("capacity", [64, 128, 256, 512])
def test_pitfall_30_every_size_at_every_offset_is_accepted_and_read_back_intact(bytes_variant, capacity, use):
    exhaustive = STRESS or capacity <= 256 or use is copy
    places = every_place(capacity) if exhaustive else some_places(capacity, 2000, capacity)
    play(bytes_variant, capacity, use, places)


@takes_long()
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("capacity", [1024, 2048, 4096])
def test_pitfall_30_many_sizes_at_many_offsets_of_larger_rings(bytes_variant, capacity, use):
    play(bytes_variant, capacity, use, some_places(capacity, 200_000 if STRESS else 1000, capacity))


@pytest.mark.parametrize("capacity", [64, 128])
def test_pitfall_30_a_message_fits_exactly_when_its_bytes_are_free(bytes_variant, capacity):
    """Whatever is in the ring, and wherever it begins: no size is refused while there is room, or for ever."""
    ring = Ring(bytes_variant, capacity)
    for offset in range(0, capacity, 8):
        for in_use in range(0, capacity + 1, 16):
            for size in range(1, capacity - HEADER + 1):
                if in_use + extent(size) <= capacity and size % 8 not in (0, 1, 7):
                    continue
                ring.go_to(offset)
                ring.tx.try_send_many([b"12345678"] * (in_use // 16))
                fits = in_use + extent(size) <= capacity
                data = ring.message(size)
                try:
                    ring.tx.try_send(data)
                    assert fits
                except Full:
                    assert not fits
                assert ring.rx.try_recv_many(100) == [b"12345678"] * (in_use // 16) + [data] * fits
                ring.moved(*[8] * (in_use // 16), *[size] * fits)


def test_pitfall_37_records_over_the_end_of_the_ring_leave_their_neighbours_headers_alone(bytes_variant):
    """Two messages and three; each boundary between them falls on each word of the ring."""
    for sizes in ((24, 24), (8, 40), (40, 8), (1, 1, 1), (8, 8, 8), (7, 9, 8)):
        ring = Ring(bytes_variant, 64)
        for _lap in range(3):
            for offset in range(0, 64, 8):
                ring.go_to(offset)
                messages = [ring.message(size) for size in sizes]
                ring.tx.try_send_many(messages)
                kinds = [(kind, size) for _position, kind, size in ring.rx._dump()]
                assert kinds == [("message", size) for size in sizes]
                for number, message in enumerate(messages):
                    assert ring.rx.try_recv_bytes() == message
                    assert len(ring.rx._dump()) == len(sizes) - number - 1
                ring.moved(*sizes)


def test_pitfall_37_payloads_that_look_like_headers_are_never_taken_for_one(bytes_variant):
    """What was consumed must not come to life when claims are aborted or shrunk over it."""
    tx, rx = bytes_variant.channel(128)
    header = (5).to_bytes(8, "little")
    skip = ((1 << 63) | 8).to_bytes(8, "little")
    for number in range(300):
        tx.try_send((header if number % 2 else skip) * 13)
        rx.try_recv_bytes()
        claim = tx.try_claim(number % 100 + 1)
        assert rx.try_recv_many(9) == []
        if number % 3:
            claim.abort()
            assert rx.try_recv_many(9) == []
        else:
            claim[:] = (header * 13)[: len(claim)]
            claim.commit(len(claim) // 2 + 1)
            assert rx.try_recv_many(9) == [(header * 13)[: (number % 100 + 1) // 2 + 1]]
        assert rx.try_recv_many(9) == []
        assert rx.used == 0


def test_pitfall_39_positions_beyond_32_bits(bytes_variant):
    capacity = 1 << 24
    tx, rx = bytes_variant.channel(capacity)
    while rx.statistics().received < 2**32 - capacity:
        tx.try_claim(capacity - HEADER).commit()
        rx.try_recv().release()
    tx.try_claim(capacity - HEADER - 512).commit()
    rx.try_recv().release()
    assert rx.statistics().received == 2**32 - 512
    for size in range(1, 200):
        data = PATTERN[size : 2 * size]
        tx.try_send_many([data, data[::-1]])
        assert tx.used == 2 * extent(size)
        assert rx.try_recv_bytes() == data
        with rx.try_recv() as view:
            assert view == data[::-1]
    assert rx.statistics().received > 2**32 + 512
    tx.try_claim(capacity - HEADER).commit()
    with pytest.raises(Full):
        tx.try_send(b"x")
    assert rx.used == capacity
    rx.try_recv().release()
    assert rx.used == 0
