"""One way to talk to every kind of channel: numbers go in, numbers come out, as objects or as messages of 8 bytes."""

import importlib

from nexus_channels import Full

OBJECTS = ["local", "spsc", "mpsc"]
BYTES = ["spsc_bytes", "mpsc_bytes"]
THREADED = ["spsc", "mpsc", *BYTES]
ALL = OBJECTS + BYTES


class AnyChannel:
    """`tx` and `rx` of a channel, and the calls by which numbers travel."""

    def __init__(self, name, capacity=4):
        self.name = name
        self.bytes = name in BYTES
        self.blocks = name != "local"
        self.clones = name in ("local", "mpsc", "mpsc_bytes")
        # A message of 8 bytes takes 16 with its header.
        self.tx, self.rx = importlib.import_module(f"nexus_channels.{name}").channel(
            max(64, 16 * capacity) if self.bytes else capacity
        )
        self.room = self.tx.capacity // (16 if self.bytes else 1)  # so many numbers fit in

    def pack(self, number):
        return number.to_bytes(8, "little") if self.bytes else number

    def unpack(self, item):
        return int.from_bytes(item, "little") if self.bytes else item

    def try_send(self, number):
        self.tx.try_send(self.pack(number))

    def try_recv(self):
        return self.unpack(self.rx.try_recv_bytes() if self.bytes else self.rx.try_recv())

    def send_blocking(self, number, timeout=None):
        self.tx.send_blocking(self.pack(number), timeout)

    def recv_blocking(self, timeout=None):
        call = self.rx.recv_bytes_blocking if self.bytes else self.rx.recv_blocking
        return self.unpack(call(timeout))

    def sending(self, number, timeout=None):
        """An awaitable."""
        return self.tx.send(self.pack(number), timeout)

    def receiving(self, timeout=None):
        """An awaitable of what `unpack` takes."""
        return (self.rx.recv_bytes if self.bytes else self.rx.recv)(timeout)

    async def recv(self, timeout=None):
        return self.unpack(await self.receiving(timeout))

    def fill(self, number=0):
        """Send until it is full; the number of what is next."""
        try:
            while True:
                self.try_send(number)
                number += 1
        except Full:
            return number

    def drain(self):
        return [self.unpack(item) for item in self.rx.try_recv_many(1 << 20)]
