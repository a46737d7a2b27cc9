"""The tree of errors: what each one is, which call raises it, and what it carries."""

import asyncio
import copy
import pickle
import queue

import pytest
from support import Item, drive

import nexus_channels
from nexus_channels import errors

SHUTDOWN = [
    getattr(module, name) for module, name in [(queue, "ShutDown"), (asyncio, "QueueShutDown")] if hasattr(module, name)
]

# name -> (its place in the tree, what else it is)
TREE = {
    "ChannelError": (["Exception"], []),
    "Closed": (["ChannelError"], SHUTDOWN),
    "Disconnected": (["Closed"], SHUTDOWN),
    "SendError": (["Disconnected", "TrySendError"], SHUTDOWN),
    "RecvError": (["Disconnected", "TryRecvError"], [EOFError, *SHUTDOWN]),
    "EndpointClosed": (["Closed"], [ValueError, *SHUTDOWN]),
    "TrySendError": (["ChannelError"], []),
    "Full": (["TrySendError"], [queue.Full, asyncio.QueueFull]),
    "SendTimeout": (["Full"], [TimeoutError, queue.Full, asyncio.QueueFull]),
    "TryRecvError": (["ChannelError"], []),
    "Empty": (["TryRecvError"], [queue.Empty, asyncio.QueueEmpty]),
    "RecvTimeout": (["Empty"], [TimeoutError, queue.Empty, asyncio.QueueEmpty]),
    "ClaimError": (["ChannelError"], []),
    "ClaimTooLarge": (["ClaimError"], [ValueError]),
    "ZeroLengthClaim": (["ClaimError"], [ValueError]),
    "ClaimReleased": (["ClaimError"], [BufferError]),
    "ClaimDisconnected": (["ClaimError", "Disconnected"], SHUTDOWN),
    "ClaimFull": (["ClaimError", "Full"], [queue.Full, asyncio.QueueFull]),
    "BusyError": (["ChannelError"], [RuntimeError]),
    "WrongThreadError": (["ChannelError"], [RuntimeError]),
}
ANCESTORS = {
    "SendError": ["Closed"],
    "RecvError": ["Closed"],
    "SendTimeout": ["TrySendError"],
    "RecvTimeout": ["TryRecvError"],
}
FOREIGN = [
    queue.Full, queue.Empty, asyncio.QueueFull, asyncio.QueueEmpty, TimeoutError, EOFError, ValueError, BufferError,
    RuntimeError, OSError, *SHUTDOWN,
]  # fmt: skip


def _class(name):
    return Exception if name == "Exception" else getattr(errors, name)


@pytest.mark.parametrize("name", TREE)
def test_error_has_its_place_in_the_tree(name):
    for base in TREE[name][0] + ANCESTORS.get(name, []):
        assert issubclass(_class(name), _class(base))


@pytest.mark.parametrize("name", TREE)
def test_error_is_also_what_other_libraries_raise(name):
    also = {base for base in FOREIGN if issubclass(_class(name), base)}
    expected = set(TREE[name][1])
    if TimeoutError in expected:
        expected.add(OSError)
    assert also == expected


@pytest.mark.parametrize("name", TREE)
def test_error_is_offered_by_the_package(name):
    assert getattr(nexus_channels, name) is _class(name)


@pytest.mark.parametrize("name", TREE)
def test_error_names_the_package_as_its_home(name):
    assert _class(name).__module__.split(".")[0] == "nexus_channels"
    assert _class(name).__name__ == name


@pytest.mark.parametrize("name", TREE)
def test_error_is_documented(name):
    assert _class(name).__doc__


def test_full_is_not_closed_and_empty_is_not_closed():
    for name in ("Full", "SendTimeout", "Empty", "RecvTimeout"):
        assert not issubclass(_class(name), errors.Closed)


# Which situation raises which error. Each gives the error and the value that was to be sent, if one was.


def _full(variant):
    tx, rx = variant.channel(1)
    tx.try_send(0)
    return tx, rx


def try_send_on_a_full_channel(variant):
    value, (tx, _rx) = Item(), _full(variant)
    return _raised(lambda: tx.try_send(value)), value


def send_that_times_out(variant):
    value, (tx, _rx) = Item(), _full(variant)
    return _raised(lambda: drive(tx.send(value, timeout=0))), value


def try_send_with_no_receiver(variant):
    value, (tx, rx) = Item(), _full(variant)
    rx.close()
    return _raised(lambda: tx.try_send(value)), value


def send_with_no_receiver(variant):
    value, (tx, rx) = Item(), variant.channel(1)
    rx.close()
    return _raised(lambda: drive(tx.send(value))), value


def send_with_timeout_and_no_receiver(variant):
    value, (tx, rx) = Item(), variant.channel(1)
    rx.close()
    return _raised(lambda: drive(tx.send(value, timeout=0))), value


def try_send_on_a_closed_sender(variant):
    tx, _rx = variant.channel(1)
    tx.close()
    return _raised(lambda: tx.try_send(1)), None


def send_on_a_closed_sender(variant):
    tx, _rx = variant.channel(1)
    tx.close()
    return _raised(lambda: drive(tx.send(1))), None


def try_send_many_on_a_closed_sender(variant):
    tx, _rx = variant.channel(1)
    tx.close()
    return _raised(lambda: tx.try_send_many([1])), None


def send_many_on_a_closed_sender(variant):
    tx, _rx = variant.channel(1)
    tx.close()
    return _raised(lambda: drive(tx.send_many([1]))), None


def send_on_a_closed_sender_with_no_receiver(variant):
    tx, rx = variant.channel(1)
    rx.close()
    tx.close()
    return _raised(lambda: tx.try_send(1)), None


def try_recv_on_an_empty_channel(variant):
    _tx, rx = variant.channel(1)
    return _raised(lambda: rx.try_recv()), None


def recv_that_times_out(variant):
    _tx, rx = variant.channel(1)
    return _raised(lambda: drive(rx.recv(timeout=0))), None


def try_recv_at_the_end(variant):
    tx, rx = variant.channel(1)
    tx.close()
    return _raised(lambda: rx.try_recv()), None


def recv_at_the_end(variant):
    tx, rx = variant.channel(1)
    tx.close()
    return _raised(lambda: drive(rx.recv())), None


def recv_with_timeout_at_the_end(variant):
    tx, rx = variant.channel(1)
    tx.close()
    return _raised(lambda: drive(rx.recv(timeout=0))), None


def try_recv_many_at_the_end(variant):
    tx, rx = variant.channel(1)
    tx.close()
    return _raised(lambda: rx.try_recv_many(1)), None


def recv_many_at_the_end(variant):
    tx, rx = variant.channel(1)
    tx.close()
    return _raised(lambda: drive(rx.recv_many(1))), None


def try_recv_on_a_closed_receiver(variant):
    _tx, rx = variant.channel(1)
    rx.close()
    return _raised(lambda: rx.try_recv()), None


def recv_on_a_closed_receiver(variant):
    _tx, rx = variant.channel(1)
    rx.close()
    return _raised(lambda: drive(rx.recv())), None


def recv_many_on_a_closed_receiver(variant):
    _tx, rx = variant.channel(1)
    rx.close()
    return _raised(lambda: drive(rx.recv_many(1))), None


def try_recv_many_on_a_closed_receiver(variant):
    _tx, rx = variant.channel(1)
    rx.close()
    return _raised(lambda: rx.try_recv_many(1)), None


def recv_on_a_closed_receiver_with_no_sender(variant):
    tx, rx = variant.channel(1)
    tx.close()
    rx.close()
    return _raised(lambda: rx.try_recv()), None


def _raised(call):
    with pytest.raises(errors.ChannelError) as failed:
        call()
    return failed.value


SITUATIONS = [
    (try_send_on_a_full_channel, errors.Full),
    (send_that_times_out, errors.SendTimeout),
    (try_send_with_no_receiver, errors.SendError),
    (send_with_no_receiver, errors.SendError),
    (send_with_timeout_and_no_receiver, errors.SendError),
    (try_send_on_a_closed_sender, errors.EndpointClosed),
    (send_on_a_closed_sender, errors.EndpointClosed),
    (try_send_many_on_a_closed_sender, errors.EndpointClosed),
    (send_many_on_a_closed_sender, errors.EndpointClosed),
    (send_on_a_closed_sender_with_no_receiver, errors.EndpointClosed),
    (try_recv_on_an_empty_channel, errors.Empty),
    (recv_that_times_out, errors.RecvTimeout),
    (try_recv_at_the_end, errors.RecvError),
    (recv_at_the_end, errors.RecvError),
    (recv_with_timeout_at_the_end, errors.RecvError),
    (try_recv_many_at_the_end, errors.RecvError),
    (recv_many_at_the_end, errors.RecvError),
    (try_recv_on_a_closed_receiver, errors.EndpointClosed),
    (recv_on_a_closed_receiver, errors.EndpointClosed),
    (try_recv_many_on_a_closed_receiver, errors.EndpointClosed),
    (recv_many_on_a_closed_receiver, errors.EndpointClosed),
    (recv_on_a_closed_receiver_with_no_sender, errors.EndpointClosed),
]
situations = pytest.mark.parametrize(
    ("situation", "expected"), SITUATIONS, ids=[situation.__name__ for situation, _ in SITUATIONS]
)


@situations
def test_situation_raises_exactly(variant, situation, expected):
    error, _value = situation(variant)
    assert type(error) is expected


@situations
def test_a_failed_send_carries_the_very_object(variant, situation, expected):
    error, value = situation(variant)
    if issubclass(expected, errors.TrySendError):
        assert error.value is value
    else:
        assert not hasattr(error, "value")


@situations
def test_every_error_says_something(variant, situation, expected):
    error, _value = situation(variant)
    assert str(error).strip()


@situations
def test_every_raised_error_can_be_copied(variant, situation, expected):
    error, value = situation(variant)
    twin = copy.copy(error)
    assert type(twin) is expected
    assert str(twin) == str(error)
    if value is not None:
        assert twin.value is value


@situations
def test_every_raised_error_can_be_pickled(variant, situation, expected):
    error, value = situation(variant)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is expected
    assert str(twin) == str(error)
    if value is not None:
        assert twin.value.name == value.name


BLOCKING = [
    ("send_blocking", [Item(), 0], errors.SendTimeout),
    ("send_many_blocking", [[1, 2], 0], errors.SendTimeout),
    ("recv_blocking", [0], errors.RecvTimeout),
    ("recv_many_blocking", [5, 0], errors.RecvTimeout),
]


def _method(variant, name, *, close_peer=False, close_own=False):
    tx, rx = variant.channel(1)
    own, peer = (tx, rx) if name.startswith("send") else (rx, tx)
    if name.startswith("send"):
        tx.try_send(0)
    if close_peer:
        peer.close()
    if close_own:
        own.close()
    return getattr(own, name), peer


@pytest.mark.parametrize(("name", "arguments", "expected"), BLOCKING)
def test_blocking_forms_time_out_with_the_same_errors(threaded, name, arguments, expected):
    method, _peer = _method(threaded, name)
    error = _raised(lambda: method(*arguments))
    assert type(error) is expected


@pytest.mark.parametrize(("name", "arguments", "expected"), BLOCKING)
def test_blocking_forms_meet_a_closed_peer_with_the_same_errors(threaded, name, arguments, expected):
    method, _peer = _method(threaded, name, close_peer=True)
    error = _raised(lambda: method(*arguments))
    assert type(error) is (errors.SendError if name.startswith("send") else errors.RecvError)


@pytest.mark.parametrize(("name", "arguments", "expected"), BLOCKING)
def test_blocking_forms_on_a_closed_endpoint_raise_the_same_errors(threaded, name, arguments, expected):
    method, _peer = _method(threaded, name, close_own=True)
    error = _raised(lambda: method(*arguments))
    assert type(error) is errors.EndpointClosed


def test_a_blocking_send_carries_the_very_object(threaded):
    value = Item()
    method, _peer = _method(threaded, "send_blocking")
    assert _raised(lambda: method(value, timeout=0)).value is value
    method, _peer = _method(threaded, "send_blocking", close_peer=True)
    assert _raised(lambda: method(value)).value is value


def test_an_error_is_a_new_object_each_time(variant):
    _tx, rx = variant.channel(1)
    assert _raised(rx.try_recv) is not _raised(rx.try_recv)


def test_an_error_has_no_context_of_its_own(variant):
    tx, _rx = _full(variant)
    error = _raised(lambda: tx.try_send(1))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_wrong_thread_error_is_raised_off_the_thread_of_a_local_channel(spawn):
    tx, _rx = nexus_channels.local.channel(1)
    thread = spawn(tx.try_send, 1)
    with pytest.raises(errors.WrongThreadError):
        thread.join()


# Catching the way users of other libraries do


def test_code_written_for_queue_catches_full_and_empty(variant):
    tx, rx = _full(variant)
    with pytest.raises(queue.Full):
        tx.try_send(1)
    rx.try_recv()
    with pytest.raises(queue.Empty):
        rx.try_recv()


def test_code_written_for_asyncio_queue_catches_full_and_empty(variant):
    tx, rx = _full(variant)
    with pytest.raises(asyncio.QueueFull):
        tx.try_send(1)
    rx.try_recv()
    with pytest.raises(asyncio.QueueEmpty):
        rx.try_recv()


def test_timeouts_are_timeout_errors(variant):
    tx, rx = _full(variant)
    with pytest.raises(TimeoutError):
        drive(tx.send(1, timeout=0))
    rx.try_recv()
    with pytest.raises(TimeoutError):
        drive(rx.recv(timeout=0))


@pytest.mark.parametrize(
    "situation", [send_on_a_closed_sender, send_with_no_receiver, recv_at_the_end, recv_on_a_closed_receiver]
)
def test_pitfall_14_one_except_clause_catches_every_way_of_being_closed(variant, situation):
    error, _value = situation(variant)
    assert isinstance(error, errors.Closed)
    for shutdown in SHUTDOWN:
        assert isinstance(error, shutdown)


def test_pitfall_14_one_except_clause_catches_everything_a_channel_raises(variant):
    for situation, _expected in SITUATIONS:
        error, _value = situation(variant)
        assert isinstance(error, errors.ChannelError)


def test_full_and_empty_tell_that_calls_which_wait_already_go_first(variant):
    async def main():
        tx, rx = variant.channel(1)
        with pytest.raises(errors.Empty, match="^the channel is empty$"):
            rx.try_recv()
        receive = asyncio.ensure_future(rx.recv())
        await asyncio.sleep(0)
        tx.try_send(1)
        with pytest.raises(errors.Full, match=r"^the channel is full \(capacity 1\)$"):
            tx.try_send(2)
        with pytest.raises(errors.Empty, match="^everything in the channel is promised to receives that already wait$"):
            rx.try_recv()
        assert await receive == 1
        tx.try_send(2)
        send = asyncio.ensure_future(tx.send(3))
        await asyncio.sleep(0)
        assert rx.try_recv() == 2
        with pytest.raises(errors.Full, match=r"^all room is promised to sends that already wait \(room for 1 of 1\)$"):
            tx.try_send(4)
        await send
        assert rx.try_recv() == 3

    asyncio.run(main())
