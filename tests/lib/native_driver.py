"""native/driver.c as Python sees it: native threads that work on one end, and nexus_channels.h by ctypes.

ctypes rather than cffi, so that it runs on free-threaded builds as well. Without a C compiler the tests are skipped.
"""

import ctypes as c
import functools
import os
import pathlib
import shlex
import shutil
import subprocess
import sysconfig

import nexus_channels

NATIVE = pathlib.Path(__file__).parent.parent / "native"
FOREVER = -1
MILLISECOND = 1_000_000

OK, FULL, EMPTY, TIMEOUT, DISCONNECTED, TOO_LARGE = range(6)
ZERO_LENGTH, BUSY, NO_CLAIM, BAD_HANDLE, BAD_VERSION, FORKED = range(6, 12)
BAD_PEER = 15
SEND, CLAIM, MANY, QUIET, ABORTING = 17, 18, 19, 20, 21
PEEK, RECV = 0, 1
PRODUCERS = 16


def compiler():
    """The C compiler that Python was built with, or any, as a command; None where there is none."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)[:1]
    return None


def build(target, *sources, flags=(), cc=None):
    """Compile C sources that include nexus_channels.h; the result is `target`."""
    command = [*(cc or compiler()), "-O2", "-g", "-pthread", f"-I{nexus_channels.get_include()}", *flags]
    done = subprocess.run(
        [*command, *map(str, sources), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def build_driver(folder):
    flags = ("-shared", "-fPIC", "-std=c11", *shlex.split(os.environ.get("NEXUS_TEST_DRIVER_FLAGS", "")))
    return build(pathlib.Path(folder, "driver.so"), NATIVE / "driver.c", flags=flags)


class Message(c.Structure):
    _fields_ = [("data", c.c_char_p), ("size", c.c_size_t)]


_P, _Z, _I, _L, _U32, _U64 = c.c_void_p, c.c_size_t, c.c_int, c.c_int64, c.c_uint32, c.c_uint64
_POINTER, _SIZE = c.POINTER(c.c_void_p), c.POINTER(c.c_size_t)
SIGNATURES = {
    "attach_sender": (_I, _P, _POINTER),
    "attach_receiver": (_I, _P, _POINTER),
    "detach_sender": (None, _P),
    "detach_receiver": (None, _P),
    "max_message_size": (_Z, _P),
    "used": (_Z, _P),
    "send": (_I, _P, c.c_char_p, _Z, _L),
    "try_send": (_I, _P, c.c_char_p, _Z),
    "send_many": (_I, _P, c.POINTER(Message), _Z, _L, _SIZE),
    "claim": (_I, _P, _Z, _L, _POINTER),
    "try_claim": (_I, _P, _Z, _POINTER),
    "commit": (_I, _P, _Z),
    "commit_quiet": (_I, _P, _Z),
    "flush": (_I, _P),
    "abort": (_I, _P),
    "sender_is_disconnected": (_I, _P),
    "peek": (_I, _P, _POINTER, _SIZE, _L),
    "try_peek": (_I, _P, _POINTER, _SIZE),
    "release": (_I, _P),
    "recv": (_I, _P, c.c_char_p, _Z, _SIZE, _L),
    "try_recv": (_I, _P, c.c_char_p, _Z, _SIZE),
    "receiver_is_disconnected": (_I, _P),
    "strerror": (c.c_char_p, _I),
    "job": (_P, _P, _I, _U32, _U64, _U32, _U32, _L, _I),
    "start_producer": (_I, _P),
    "start_consumer": (_I, _P),
    "join": (_I, _P),
    "done": (_U64, _P),
    "complaint": (_I, _P),
    "due": (_U64, _P, _U32),
    "free": (None, _P),
    "echo": (_I, _P, _P),
    "check": (_I, c.c_char_p, _Z, c.POINTER(_U64)),
    "stamp": (None, c.c_char_p, _U32, _U32, _U64),
}


@functools.cache
def load(path):
    lib = c.CDLL(str(path))
    for name, (result, *args) in SIGNATURES.items():
        function = getattr(lib, f"t_{name}")
        function.restype = result
        function.argtypes = args
    return lib


class Job:
    """A native thread at work. `join` gives its result; `done` counts messages."""

    def __init__(self, driver, start, address, how, who, count, least, most, timeout, stay):
        self._lib = driver.lib
        self._job = self._lib.t_job(address, how, who, count, least, most, timeout, stay)
        self._result = None
        assert start(self._job) == 0

    def join(self):
        if self._result is None:
            self._result = self._lib.t_join(self._job)
        return self._result

    @property
    def done(self):
        return self._lib.t_done(self._job)

    @property
    def complaint(self):
        return self._lib.t_complaint(self._job)

    def due(self, who):
        return self._lib.t_due(self._job, who)

    def __del__(self):
        if self._result is not None:  # else the thread still uses it
            self._lib.t_free(self._job)


class Sender:
    """The calling thread, attached to a sending end. Every call gives back its result."""

    def __init__(self, lib, address):
        self._lib = lib
        self._end = c.c_void_p()
        self.attached = lib.t_attach_sender(address, c.byref(self._end))

    def detach(self):
        self._lib.t_detach_sender(self._end)

    def max_message_size(self):
        return self._lib.t_max_message_size(self._end)

    def used(self):
        return self._lib.t_used(self._end)

    def send(self, data, timeout=FOREVER):
        return self._lib.t_send(self._end, data, len(data), timeout)

    def try_send(self, data):
        return self._lib.t_try_send(self._end, data, len(data))

    def send_many(self, messages, timeout=FOREVER):
        """The result, and how many went."""
        array = (Message * len(messages))(*((data, len(data)) for data in messages))
        sent = c.c_size_t(99)
        result = self._lib.t_send_many(self._end, array, len(messages), timeout, c.byref(sent))
        return result, sent.value

    def claim(self, n, timeout=FOREVER):
        """The result, and the address."""
        place = c.c_void_p(99)
        result = self._lib.t_claim(self._end, n, timeout, c.byref(place))
        return result, place.value

    def try_claim(self, n):
        place = c.c_void_p(99)
        result = self._lib.t_try_claim(self._end, n, c.byref(place))
        return result, place.value

    def commit(self, n):
        return self._lib.t_commit(self._end, n)

    def commit_quiet(self, n):
        return self._lib.t_commit_quiet(self._end, n)

    def flush(self):
        return self._lib.t_flush(self._end)

    def abort(self):
        return self._lib.t_abort(self._end)

    def is_disconnected(self):
        return self._lib.t_sender_is_disconnected(self._end)


class Receiver:
    """The calling thread, attached to a receiving end."""

    def __init__(self, lib, address):
        self._lib = lib
        self._end = c.c_void_p()
        self.attached = lib.t_attach_receiver(address, c.byref(self._end))

    def detach(self):
        self._lib.t_detach_receiver(self._end)

    def peek(self, timeout=FOREVER):
        """The result, and a copy of what was borrowed."""
        data, n = c.c_void_p(99), c.c_size_t(99)
        result = self._lib.t_peek(self._end, c.byref(data), c.byref(n), timeout)
        return result, c.string_at(data.value, n.value) if data.value else None

    def try_peek(self):
        data, n = c.c_void_p(99), c.c_size_t(99)
        result = self._lib.t_try_peek(self._end, c.byref(data), c.byref(n))
        return result, c.string_at(data.value, n.value) if data.value else None

    def release(self):
        return self._lib.t_release(self._end)

    def recv(self, size, timeout=FOREVER):
        """The result, the size of the message, and what the buffer holds of it."""
        buffer, n = c.create_string_buffer(size), c.c_size_t(99)
        result = self._lib.t_recv(self._end, buffer, size, c.byref(n), timeout)
        return result, n.value, buffer.raw[: n.value] if result == OK else None

    def try_recv(self, size):
        buffer, n = c.create_string_buffer(size), c.c_size_t(99)
        result = self._lib.t_try_recv(self._end, buffer, size, c.byref(n))
        return result, n.value, buffer.raw[: n.value] if result == OK else None

    def is_disconnected(self):
        return self._lib.t_receiver_is_disconnected(self._end)


class Driver:
    def __init__(self, path):
        self.path = path
        self.lib = load(path)

    def sender(self, end):
        """Attach this thread; asserts that it worked, and keeps the end."""
        tx = Sender(self.lib, end.address)
        tx.end = end
        assert tx.attached == OK
        return tx

    def receiver(self, end):
        rx = Receiver(self.lib, end.address)
        rx.end = end
        assert rx.attached == OK
        return rx

    def attach_sender(self, address):
        return Sender(self.lib, address).attached

    def attach_receiver(self, address):
        return Receiver(self.lib, address).attached

    def strerror(self, result):
        return self.lib.t_strerror(result).decode()

    def producer(self, end, count, *, how=SEND, who=0, least=16, most=16, timeout=FOREVER, stay=False):
        """Start a native thread that sends `count` stamped messages of `least` to `most` bytes."""
        return Job(self, self.lib.t_start_producer, end.address, how, who, count, least, most, timeout, stay)

    def consumer(self, end, count=2**63, *, how=PEEK, most=4096, timeout=FOREVER, stay=False):
        """Start a native thread that receives and verifies until the end, or `count` messages."""
        return Job(self, self.lib.t_start_consumer, end.address, how, 0, count, 0, most, timeout, stay)

    def echo(self, source, target):
        """Send back what comes, until the end: the result."""
        return self.lib.t_echo(source.address, target.address)

    def stamped(self, who, size, number):
        buffer = c.create_string_buffer(size)
        self.lib.t_stamp(buffer, who, size, number)
        return buffer.raw

    def checker(self):
        """A function that verifies one message after the other, and `due`, the number that comes next by producer."""
        due = (c.c_uint64 * PRODUCERS)()

        def check(message):
            complaint = self.lib.t_check(message, len(message), due)
            assert complaint == 0, (complaint, message)

        check.due = due
        return check
