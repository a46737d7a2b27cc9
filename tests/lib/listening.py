"""What tests of listeners run in other processes, and connections that speak the protocol by hand."""

import contextlib
import os
import signal
import socket
import struct
import sys
import threading

from processes import RECORD, recv_all_from, send_all_from
from support import until

from nexus_channels import Full, mpsc_bytes, spsc_bytes

__all__ = [
    "GREETING",
    "MAGIC",
    "VERSION",
    "as_user",
    "connect_and_send",
    "fill_and_wait",
    "hold_listener",
    "keep_listener",
    "knock",
    "listen_and_fork",
    "listen_and_recv",
    "listen_and_wait",
    "listen_at_once",
    "module_of",
    "send_records",
    "served",
]

GREETING = struct.Struct("=IIIIIIQQ")  # magic, version, verdict, many, user, 0, capacity, name
MAGIC, VERSION = 0x6E636772, 1


def module_of(name):
    return {"mpsc_bytes": mpsc_bytes, "spsc_bytes": spsc_bytes}[name]


def connect_and_send(module, path, count, how="thread"):
    """Messages by path, and then the end."""
    send_all_from(module_of(module).connect(path), count, how)


def send_records(path, me, count):
    """As processes.send_numbered. The end is left to the end of the process."""
    tx = mpsc_bytes.connect(path)
    for n in range(count):
        tx.send_blocking(RECORD.pack(me, n))


def fill_and_wait(module, path, ready):
    """Send until there is no more room, say so, and send one more; the exit code tells what became of it."""
    from nexus_channels import SendError

    tx = module_of(module).connect(path)
    with contextlib.suppress(Full):
        while True:
            tx.try_send(bytes(56))
    ready.set()
    try:
        tx.send_blocking(bytes(56))
    except SendError as error:
        sys.exit(10 + error.crashed)


def listen_and_recv(module, path, ready, count, how="thread"):
    """Receive all from one sender; the end comes as the listener is closed once it is there."""
    listener = module_of(module).listen(path, 4096)
    ready.set()
    rx = listener.receiver
    assert rx.recv_bytes_blocking() == b"first"
    listener.close()
    recv_all_from(rx, count, how)


def listen_and_wait(module, path, ready, came):
    """Let senders in until something has come, take nothing, and wait to be killed."""
    listener = module_of(module).listen(path, 4096)
    ready.set()
    until(lambda: listener.receiver.statistics().buffered)
    came.set()
    while True:
        signal.pause()


def hold_listener(module, path, ready):
    """Listen, say so, and look at nothing."""
    listener = module_of(module).listen(path, 4096)
    ready.set()
    while True:
        signal.pause()
    del listener


def keep_listener(module, path, ready):
    """Listen, and return with the listener in a global."""
    global kept
    kept = module_of(module).listen(path, 4096)
    assert os.path.exists(path)
    ready.set()


def listen_and_fork(module, path, said):
    """Listen, and have a child that lives on; say which."""
    listener = module_of(module).listen(path, 4096)
    child = os.fork()
    if child > 0:
        said.send(child)
    while True:
        signal.pause()
    del listener


def listen_at_once(path, go, said):
    """Listen when it is said, and tell whether that worked."""
    assert go.wait(20)
    try:
        with mpsc_bytes.listen(path, 4096):
            said.send("listens")
            said.recv()
    except OSError as error:
        said.send(error.errno)


def knock(path):
    """A connection, by hand."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(path)
    return connection


@contextlib.contextmanager
def served(path, answer, kind=socket.SOCK_SEQPACKET):
    """Somebody else's server: `answer` gets each connection, and then it is closed."""

    def serve():
        while True:
            connection, _ = server.accept()
            with connection:
                answer(connection)
            if stopped:
                return

    stopped = []
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.append(True)
            with socket.socket(socket.AF_UNIX, kind) as last:
                last.connect(path)
                thread.join()
    os.unlink(path)


def as_user(user, function):
    """Run `function` in a forked child of that user; return what it returns, a str, or the error that it raised."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(user, user, user)
            try:
                said = function()
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said
