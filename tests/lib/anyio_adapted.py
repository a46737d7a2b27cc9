"""A pytest plugin that runs AnyIO's own tests of streams against `nexus_channels.anyio`: see test_anyio_suite.py.

Their files are used as they are.  What they make streams with is replaced before or after they are imported: memory
object streams, the plain streams that are stapled together, and the Unix socket with its server.

`LEFT_OUT` lists the tests that cannot pass, each with the reason.  They are run all the same, unless they would never
end, and must fail: a test that begins to pass has no place in the list.
"""

import importlib.util
import os
import queue
import sys
import types

import anyio
import pytest

import nexus_channels
from nexus_channels import RecvError, spsc_bytes
from nexus_channels.anyio import ByteReceiveStream, ByteSendStream, ByteStream, ReceiveStream, SendStream

CHANNEL = os.environ["NEXUS_CHANNEL"]  # the module whose channels the memory streams become
of_bytes = CHANNEL.endswith("_bytes")

# What AnyIO's tests import, and these do not use.
for names in (["psutil"], ["trustme"], ["pytest_mock", "pytest_mock.plugin"]):
    if importlib.util.find_spec(names[0]) is None:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__getattr__ = lambda attribute: type(attribute, (), {})

# ---- what is left out ----------------------------------------------------------------------------------------------

NO_CHECK = "AnyIO's function checks its own arguments; a channel checks its capacity: see test_bad_input.py"
NO_RENDEZVOUS = "a channel holds at least one item, so a first send does not wait for the receiver"
NO_CLONE = "a channel has one receiver, so a ReceiveStream has no clone()"
ITEM_STAYS = "the item stays in the channel until its receiver runs, so whoever closes the receiver first discards it"
SENDER_PUTS = "room that is made for a waiting send is filled when its task runs, not at once"
CANCELLED_TOOK_NOTHING = "a receive that was woken and then cancelled took nothing, and leaves the item to the next"
NO_WARNING = "dropping an end is a normal way to close it, and warns of nothing"
HAS_ATTRIBUTES = "these streams have extra attributes: the ends of their channel"
NO_EMPTY = "a channel of bytes has no empty messages"
NOT_SOCKETS = "it tests sockets: their names, descriptors, records or listeners"
STANDS_IN = "it tests how StapledObjectStream treats streams without a send_nowait(), or with a broken one"
NO_EMPTY_READ = "after the last byte a receive waits for more; the stand-in of AnyIO's test returns an empty string"
ACLOSE_IS_NO_CHECKPOINT = "aclose() does not wait, as that of AnyIO's memory streams does not"

# {file: {test: reason}}; a test that begins with "!" would never end or leave threads behind, and is not run.
LEFT_OUT = {
    "test_memory": {
        "test_invalid_max_buffer": NO_CHECK,
        "test_negative_max_buffer": NO_CHECK,
        "test_receive_then_send_nowait": NO_RENDEZVOUS,
        "test_close_receive_clone_while_receiving": NO_CLONE,
        "test_close_send_clone_while_sending": NO_RENDEZVOUS,
        "test_cancel_receive": NO_RENDEZVOUS,
        "test_cancel_send": NO_RENDEZVOUS,
        "test_clone": NO_CLONE,
        "test_clone_closed": NO_CLONE,
        "test_close_send_while_sending": NO_RENDEZVOUS,
        "test_close_receive_while_sending": NO_RENDEZVOUS,
        "test_close_receive_after_item_sent": ITEM_STAYS,
        "test_cancel_during_receive": CANCELLED_TOOK_NOTHING,
        "test_statistics": SENDER_PUTS,
        "test_deprecated_item_type_parameter": NO_CHECK,
        "test_not_closed_warning": NO_WARNING,
    },
    "test_buffered": {"test_receive_skips_empty_messages": NO_EMPTY} if of_bytes else {},
    "test_text": {
        "test_bidirectional_stream": HAS_ATTRIBUTES,
    },
    "test_stapled": {
        "!TestStapledByteStream.test_receive_send": NO_EMPTY_READ,
        "TestStapledObjectStream.test_send_nowait_not_implemented": STANDS_IN,
    },
    "test_sockets": {
        "!TestUNIXStream.test_extra_attributes": NOT_SOCKETS,
        "!TestUNIXStream.test_send_receive_seqsocket": NOT_SOCKETS,
        "!TestUNIXStream.test_receive_fds": NOT_SOCKETS,
        "!TestUNIXStream.test_receive_fds_bad_args": NOT_SOCKETS,
        "!TestUNIXStream.test_send_fds": NOT_SOCKETS,
        "!TestUNIXStream.test_send_fds_bad_args": NOT_SOCKETS,
        "!TestUNIXStream.test_send_fds_large_message": NOT_SOCKETS,
        "!TestUNIXStream.test_close_after_cancelled_io": NOT_SOCKETS,
        "!TestUNIXStream.test_concurrent_aclose_forcefully_closes_socket": NOT_SOCKETS,
        "!TestUNIXStream.test_aclose_in_cancelled_scope_raises_cancelled_exc": ACLOSE_IS_NO_CHECKPOINT,
        "!TestUNIXStream.test_cannot_connect": NOT_SOCKETS,
        "!TestUNIXStream.test_connecting_using_bytes": NOT_SOCKETS,
        "!TestUNIXStream.test_connecting_with_non_utf8": NOT_SOCKETS,
    },
}

# trio does not cancel a call that was woken, so the receiver gets the item after all.
PASS_ON_TRIO = {"test_cancel_during_receive"}


# ---- what takes the place of AnyIO's streams ------------------------------------------------------------------------


class create_memory_object_stream:  # noqa: N801 - named as what it stands for
    """A channel of the same capacity, or of 1 where AnyIO's has 0; of bytes with room for as many short messages."""

    def __class_getitem__(cls, item):
        return cls

    def __new__(cls, max_buffer_size=0):
        module = getattr(nexus_channels, CHANNEL)
        capacity = max(max_buffer_size, 1)
        tx, rx = module.channel(64 * capacity if of_bytes else capacity)
        return SendStream(tx), ReceiveStream(rx)


anyio.create_memory_object_stream = create_memory_object_stream


class StapledByteReceive(ByteReceiveStream):
    def __init__(self, data):
        self.sender, receiver = spsc_bytes.channel(1024)
        self.sender.try_send(data)
        super().__init__(receiver)


class StapledByteSend(ByteSendStream):
    def __init__(self):
        sender, self.receiver = spsc_bytes.channel(1024)
        super().__init__(sender)

    @property
    def buffer(self):
        return b"".join(self.receiver.try_recv_many(100))


class StapledObjectReceive(ReceiveStream):
    def __init__(self, data):
        sender, receiver = nexus_channels.mpsc.channel(100)
        sender.try_send_many(list(data))
        super().__init__(receiver)


class StapledObjectSend(SendStream):
    def __class_getitem__(cls, item):
        return cls

    def __init__(self):
        sender, self.receiver = nexus_channels.mpsc.channel(100)
        super().__init__(sender)

    @property
    def buffer(self):
        return self.receiver.try_recv_many(100)


class Peer:
    """What a server accepts: the other side of a ByteStream, with the calls of a blocking socket."""

    def __init__(self, sender, receiver):
        self.sender, self.receiver = sender, receiver

    def recv(self, size):
        try:
            data = self.receiver.recv_bytes_blocking()
        except RecvError:
            return b""
        assert len(data) <= size
        return data

    def sendall(self, data):
        for start in range(0, len(data), 1000):
            self.sender.send_blocking(data[start : start + 1000])

    def close(self):
        self.sender.close()
        self.receiver.close()


class Server:
    def __init__(self):
        self.peers = queue.SimpleQueue()

    def connect(self):
        there, back = spsc_bytes.channel(1024), spsc_bytes.channel(4096)
        self.peers.put(Peer(back.sender, there.receiver))
        return ByteStream(there.sender, back.receiver)

    def accept(self):
        return self.peers.get(timeout=10), None


servers = {}


@pytest.fixture
def server_sock(self, socket_path):
    servers[str(socket_path)] = server = Server()
    yield server
    del servers[str(socket_path)]


async def connect_unix(path):
    return servers[str(path)].connect()


def replace(module):
    name = module.__name__.rpartition(".")[2]
    if name == "test_stapled":
        module.DummyByteReceiveStream, module.DummyByteSendStream = StapledByteReceive, StapledByteSend
        module.DummyObjectReceiveStream = StapledObjectReceive
        module.DummyObjectSendStream = module.DummyObjectSendStreamWithSendNowait = StapledObjectSend
    elif name == "test_sockets":
        module.connect_unix = connect_unix
        module.TestUNIXStream.server_sock = server_sock


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule(module_path, parent):
    collector = yield
    if module_path.name.startswith("test_"):
        replace(collector.obj)
    return collector


def pytest_collection_modifyitems(items):
    for item in items:
        listed = LEFT_OUT[item.module.__name__.rpartition(".")[2]]
        name = item.originalname if item.cls is None else f"{item.cls.__name__}.{item.originalname}"
        if name in PASS_ON_TRIO and "trio" in item.callspec.id:
            continue
        if name in listed:
            item.add_marker(pytest.mark.xfail(reason=listed[name], strict=True))
        elif f"!{name}" in listed:
            item.add_marker(pytest.mark.skip(reason=listed[f"!{name}"]))
