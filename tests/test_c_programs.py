"""Programs in C, without Python, at the ends of channels between processes: `nexus_processes.h`.

`native/program.c` does what its arguments say, and prints how it went. It is compiled plainly, and with the sanitizers.
"""

import asyncio
import errno
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys

import pytest
from harness import size, takes_long
from listening import GREETING, MAGIC, VERSION
from native_driver import (
    BAD_HANDLE,
    BAD_VERSION,
    BUSY,
    DISCONNECTED,
    EMPTY,
    FORKED,
    FULL,
    NATIVE,
    NO_CLAIM,
    OK,
    TIMEOUT,
    TOO_LARGE,
    ZERO_LENGTH,
    build,
    compiler,
)
from processes import needs_lanes
from support import DEADLINE, Spawned, until, until_blocked

import nexus_channels
from nexus_channels import RecvError, SendError, mpsc_bytes, spsc_bytes

pytestmark = [needs_lanes, pytest.mark.skipif(compiler() is None, reason="no C compiler")]

NO_RECEIVER, TAKEN, FOREIGN, BAD_PEER, BAD_TICKET, SYSTEM = range(12, 18)
INCLUDE = pathlib.Path(nexus_channels.get_include())
SOURCE = INCLUDE / "nexus_processes.c"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "howto" / "c-programs.md"
NUMBER = struct.Struct("=Q")


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def binary(request, tmp_path_factory):
    flags = SANITIZED if request.param == "sanitized" else ()
    target = tmp_path_factory.mktemp("program") / "program"
    return build(target, NATIVE / "program.c", SOURCE, flags=(*STRICT, *flags))


@pytest.fixture
def program(binary):
    """Start it; whatever was started is gone after the test, and none may have had anything to say on stderr."""
    started = []

    def start(*arguments, pass_fds=()):
        child = subprocess.Popen(
            [binary, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        assert child.stderr.read() == ""
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    return "feed"


def line(child):
    return child.stdout.readline().strip()


def opened(child):
    assert line(child) == f"open {OK} 0"
    return child


def go_on(child):
    child.stdin.write("go\n")
    child.stdin.flush()


def ended(child, code=0):
    """What it has printed since."""
    out = child.stdout.read().splitlines()
    assert child.wait(60) == code
    return out


def numbers_of(rx):
    """All numbers that come, and whether the end was a crash."""
    numbers = [NUMBER.unpack_from(claim)[0] for claim in rx]
    with pytest.raises(RecvError) as end:
        rx.try_recv()
    return numbers, end.value.crashed


# ---- from C to Python --------------------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize("how", ["send", "claim", "many", "quiet"])
@pytest.mark.parametrize("module", [spsc_bytes, mpsc_bytes])
def test_a_program_sends_by_path_whatever_its_calls_are(program, path, module, how):
    count = size(20_000, 2_000_000)
    with module.listen(path, 4096) as listener:
        child = program(f"connect:{path}", f"numbers:{count}:{how}", "detach")
        first = NUMBER.unpack_from(listener.receiver.recv_bytes_blocking())[0]
        listener.close()
        numbers, crashed = numbers_of(listener.receiver)
    assert [first, *numbers] == list(range(count))
    assert not crashed
    assert ended(opened(child)) == [f"numbers {count} {OK}"]


@pytest.mark.parametrize("how", ["send", "claim", "many", "quiet"])
def test_a_task_receives_from_a_program(program, path, how):
    count = size(5_000, 500_000)

    async def receive(listener):
        numbers = [NUMBER.unpack(await listener.receiver.recv_bytes())[0]]
        listener.close()
        return numbers + [NUMBER.unpack_from(claim)[0] async for claim in listener.receiver]

    with mpsc_bytes.listen(path, 4096) as listener:
        child = program(f"connect:{path}", f"numbers:{count}:{how}")
        assert asyncio.run(receive(listener)) == list(range(count))
    assert ended(opened(child)) == [f"numbers {count} {OK}"]


def test_programs_send_side_by_side(program, path):
    count = size(2_000, 200_000)
    with mpsc_bytes.listen(path, 4096) as listener:
        children = [program(f"connect:{path}", "read", f"numbers:{count}:{how}") for how in ("send", "many", "quiet")]
        for child in children:
            opened_by(listener, child)
        listener.close()
        for child in children:
            go_on(child)
        numbers, crashed = numbers_of(listener.receiver)
    assert sorted(numbers) == sorted(3 * list(range(count)))
    assert not crashed
    for child in children:
        assert ended(child) == ["read", f"numbers {count} {OK}"]


def test_a_sender_is_inherited_by_a_program(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    tx.send_blocking(NUMBER.pack(0))
    with tx.share().for_subprocess() as (text, fds):
        child = program(f"sender:{text}", "numbers:1000:send", pass_fds=fds)
    numbers, crashed = numbers_of(rx)
    assert numbers == [0, *range(1000)]
    assert not crashed
    assert ended(opened(child)) == [f"numbers 1000 {OK}"]


def test_a_text_is_good_once_and_for_its_side(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = program(f"receiver:{text}", f"open:sender:{text}", f"open:sender:{text}", "send:hello", pass_fds=fds)
        assert rx.recv_bytes_blocking() == b"hello"
        assert ended(child) == [f"open {BAD_HANDLE} 0", f"open {OK} 0", f"open {BAD_TICKET} 0", f"send {OK}"]
        late = program(f"sender:{text}", pass_fds=fds)
        assert ended(late) == [f"open {BAD_TICKET} 0"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "nxc2" + text[4:],
        lambda text: text[:-1],
        lambda text: text + "-",
        lambda text: text + "-0.1",
        lambda text: text + "-x",
        lambda text: text.rsplit("-", 1)[0],
        lambda text: re.sub(r"^nxc1-..", "nxc1-", text),
        lambda text: re.sub(r"^nxc1-", "nxc1-zz", text),
        lambda text: re.sub(r"^nxc1-.", "nxc1-7", text),
        lambda text: re.sub(r"\d+\.", "0.", text),
        lambda text: re.sub(r"\d+\.", "99999999999999999999.", text),
        lambda text: text.rsplit("-", 1)[0] + "-" + text.rsplit("-", 2)[1],
        lambda text: text.replace(".", "-"),
    ],
)
def test_a_text_that_is_none_is_refused_and_touches_nothing(program, spoil):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = program(f"sender:{spoil(text)}", f"open:sender:{text}", "send:hello", pass_fds=fds)
        assert rx.recv_bytes_blocking() == b"hello"
        assert ended(child) == [f"open {BAD_TICKET} 0", f"open {OK} 0", f"send {OK}"]


def test_descriptors_that_were_not_passed_on_are_not_touched(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, _):
        assert ended(program(f"sender:{text}")) == [f"open {BAD_TICKET} 0"]
    with pytest.raises(RecvError) as end:
        rx.recv_blocking(timeout=DEADLINE)
    assert not end.value.crashed


# ---- from Python to C --------------------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize("receive", ["total", "total_peek", "poll"])
@pytest.mark.parametrize("many", [0, 1])
def test_a_program_listens(program, path, many, receive):
    count = size(20_000, 2_000_000)
    child = opened(program(f"listen:{path}:4096:{many}", "take", "stop", receive, "disconnected"))
    with (mpsc_bytes if many else spsc_bytes).connect(path, timeout=DEADLINE) as tx:
        tx.send_blocking(b"begin")
        for n in range(count):
            tx.send_blocking(NUMBER.pack(n))
    told = {
        "poll": rf"polled {count} {DISCONNECTED} slept \d",
        "total": f"total {count} wrong 0 {DISCONNECTED} crashed 0",
    }
    out = ended(child)
    assert out[:2] == [f"take {OK} 5 begin", f"stop {OK}"]
    assert re.fullmatch(told[receive.removesuffix("_peek")], out[2])
    assert out[3:] == ["disconnected 1 crashed 0"]
    assert not os.path.exists(path)


def test_a_receiver_is_inherited_by_a_program_with_what_was_sent_before(program):
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    for n in range(100):
        tx.send_blocking(NUMBER.pack(n))
    with rx.share().for_subprocess() as (text, fds):
        child = program(f"receiver:{text}", "total", pass_fds=fds)
    for n in range(100, 5000):
        tx.send_blocking(NUMBER.pack(n))
    tx.close()
    assert ended(opened(child)) == [f"total 5000 wrong 0 {DISCONNECTED} crashed 0"]


def test_a_receiver_is_inherited_after_one_of_its_senders_has_died(program):
    tx, rx = mpsc_bytes.channel(4096, shared=True)
    with tx.clone().share().for_subprocess() as (text, fds):
        dying = program(f"sender:{text}", "send:last words", "kill", pass_fds=fds)
    assert ended(opened(dying), -signal.SIGKILL) == [f"send {OK}"]
    tx.close()
    with rx.share().for_subprocess() as (text, fds):
        child = program(f"receiver:{text}", "take", "take", "disconnected", pass_fds=fds)
    assert ended(opened(child)) == [f"take {OK} 10 last words", f"take {DISCONNECTED} 0", "disconnected 1 crashed 1"]


def test_a_program_receives_from_tasks_and_threads_side_by_side(program, path):
    count = size(2_000, 200_000)
    child = opened(program(f"listen:{path}:4096:1", "take", "take", "stop", "count"))

    async def send(tx):
        with tx:
            for n in range(count):
                await tx.send(NUMBER.pack(n))

    def send_blocking(tx):
        with tx:
            for n in range(count):
                tx.send_blocking(NUMBER.pack(n))

    senders = [mpsc_bytes.connect(path, timeout=DEADLINE) for _ in range(2)]
    for tx in senders:
        tx.send_blocking(b"begin")
    assert [line(child) for _ in range(3)] == [f"take {OK} 5 begin", f"take {OK} 5 begin", f"stop {OK}"]
    thread = Spawned(send_blocking, senders[0])
    asyncio.run(send(senders[1]))
    thread.join()
    assert ended(child) == [f"count {2 * count} {DISCONNECTED} crashed 0"]


# ---- from C to C -------------------------------------------------------------------------------------------------


@takes_long()
@pytest.mark.parametrize("how", ["send", "claim", "many", "quiet"])
def test_two_programs_without_any_python_between_them(program, path, how):
    count = size(200_000, 10_000_000)
    receiver = opened(program(f"listen:{path}:4096:0", "take", "stop", "total"))
    sender = opened(program(f"connect:{path}", "send:begin", f"numbers:{count}:{how}"))
    assert ended(sender) == [f"send {OK}", f"numbers {count} {OK}"]
    assert ended(receiver) == [
        f"take {OK} 5 begin",
        f"stop {OK}",
        f"total {count} wrong 0 {DISCONNECTED} crashed 0",
    ]


def test_both_wait_as_event_loops_do(program, path):
    count = size(20_000, 2_000_000)
    receiver = opened(program(f"listen:{path}:4096:0", "take", "stop", "poll"))
    sender = opened(program(f"connect:{path}", "send:begin", f"poll:{count}"))
    assert re.fullmatch(rf"polled {count} {OK} slept \d", ended(sender)[-1])
    assert re.fullmatch(rf"polled {count} {DISCONNECTED} slept \d", ended(receiver)[-1])


# ---- waiting -----------------------------------------------------------------------------------------------------


def test_a_sender_waits_for_room_and_the_time_goes_by(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = opened(program(f"sender:{text}", "fill", "send:late:50", "big:4000", pass_fds=fds))
    assert [line(child), line(child)] == [f"fill 256 {FULL}", f"send {TIMEOUT}"]
    for n in range(256):
        assert NUMBER.unpack(rx.recv_bytes_blocking(timeout=DEADLINE)) == (n,)
    assert rx.recv_bytes_blocking(timeout=DEADLINE) == b"b" * 4000
    assert ended(child) == [f"big {OK}"]


def test_a_sender_that_waits_as_an_event_loop_does_is_woken_for_room(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = opened(program(f"sender:{text}", "fill", "poll:1000", pass_fds=fds))
    assert line(child) == f"fill 256 {FULL}"
    until(lambda: asleep(child), "a sleeping process")
    numbers, _ = numbers_of(rx)
    assert numbers == [*range(256), *range(1000)]
    assert ended(child) == [f"polled 1000 {OK} slept 1"]


def asleep(child):
    return pathlib.Path(f"/proc/{child.pid}/stat").read_text().rsplit(") ")[1].startswith("S")


def test_a_receiver_waits_for_a_message_and_the_time_goes_by(program, path):
    child = opened(program(f"listen:{path}:4096:0", "take:0", "take:50", "take", "peek:0", "peek:50", "peek"))
    assert [line(child), line(child)] == [f"take {EMPTY} 0", f"take {TIMEOUT} 0"]
    with spsc_bytes.connect(path, timeout=DEADLINE) as tx:
        until(lambda: asleep(child), "a sleeping process")
        tx.send_blocking(b"first")
        assert line(child) == f"take {OK} 5 first"
        assert [line(child), line(child)] == [
            f"peek {EMPTY} {OK} 0 {NO_CLAIM}",
            f"peek {TIMEOUT} {OK} 0 {NO_CLAIM}",
        ]
        tx.send_blocking(b"second")
        assert ended(child) == [f"peek {OK} {BUSY} {OK} {NO_CLAIM}"]


def test_a_receiver_in_python_waits_for_a_program(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = opened(program(f"sender:{text}", "read", "send:hello", pass_fds=fds))
    received = Spawned(rx.recv_bytes_blocking)
    until_blocked(rx)
    go_on(child)
    assert received.join() == b"hello"
    assert ended(child) == ["read", f"send {OK}"]


def test_messages_and_buffers_of_bad_sizes_and_calls_in_a_bad_order(program):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = opened(program(f"sender:{text}", "misuse", "send:0123456789", pass_fds=fds))
    expected = [NO_CLAIM, NO_CLAIM, ZERO_LENGTH, TOO_LARGE, OK, BUSY, TOO_LARGE, OK]
    assert ended(child) == [f"{' '.join(map(str, expected))} misuse 4088", f"send {OK}"]
    with rx.share().for_subprocess() as (text, fds):
        child = opened(program(f"receiver:{text}", "take:0:9", "take:0:10", pass_fds=fds))
    assert ended(child) == [f"take {TOO_LARGE} 10", f"take {OK} 10 0123456789"]


# ---- the end of a process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "code", "crashed"), [("kill", -9, True), ("_exit", 0, True), ("detach", 0, False), ("fds", 0, False)]
)
def test_how_a_sending_program_ended_is_told_after_all_that_it_sent(program, last, code, crashed):
    tx, rx = spsc_bytes.channel(4096, shared=True)
    with tx.share().for_subprocess() as (text, fds):
        child = opened(program(f"sender:{text}", "numbers:100:quiet", "claim", last, pass_fds=fds))
    child.wait(60)
    assert numbers_of(rx) == (list(range(100)), crashed)
    assert child.returncode == code


@pytest.mark.parametrize(
    ("last", "code", "crashed"), [("kill", -9, True), ("_exit", 0, True), ("detach", 0, False), ("fds", 0, False)]
)
def test_how_a_receiving_program_ended_is_told_its_senders(program, path, last, code, crashed):
    child = opened(program(f"listen:{path}:4096:0", "take", "read", last))
    with spsc_bytes.connect(path, timeout=DEADLINE) as tx:
        tx.send_blocking(b"hello")
        assert line(child) == f"take {OK} 5 hello"
        go_on(child)
        with pytest.raises(SendError) as end:
            while True:
                tx.send_blocking(b"more", timeout=DEADLINE)
        assert end.value.crashed == crashed
    child.wait(60)
    assert child.returncode == code
    assert os.path.exists(path) == crashed
    with spsc_bytes.listen(path, 4096):  # what a killed one left is replaced
        pass


PYTHON_SENDER = """
import os, sys
from nexus_channels import spsc_bytes
tx = spsc_bytes.connect(sys.argv[1], timeout=10)
tx.send_blocking(b"hello")
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["kill", "return"])
def test_a_program_is_told_how_a_sender_in_python_ended(program, path, how):
    child = opened(program(f"listen:{path}:4096:0", "take", "stop", "take", "disconnected"))
    python = subprocess.run([sys.executable, "-P", "-c", PYTHON_SENDER, path, how], timeout=60, check=False)
    assert python.returncode == (-9 if how == "kill" else 0)
    assert ended(child)[2:] == [f"take {DISCONNECTED} 0", f"disconnected 1 crashed {int(how == 'kill')}"]


PYTHON_RECEIVER = """
import os, sys
from nexus_channels import spsc_bytes
with spsc_bytes.listen(sys.argv[1], 4096) as listener:
    print("listens", flush=True)
    listener.receiver.recv_blocking(timeout=10)
    listener.receiver.release()
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["kill", "return"])
def test_a_program_is_told_how_a_receiver_in_python_ended(program, path, how):
    command = [sys.executable, "-P", "-c", PYTHON_RECEIVER, path, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as python:
        assert python.stdout.readline() == b"listens\n"
        child = opened(program(f"connect:{path}", "gone"))
        assert ended(child) == [f"gone {DISCONNECTED} crashed {int(how == 'kill')} disconnected 1"]
        assert python.wait(60) == (-9 if how == "kill" else 0)


@takes_long()
def test_a_program_is_killed_at_any_moment_and_all_it_sent_is_received_once(program, path):
    for n in range(size(10, 300)):
        with mpsc_bytes.listen(path, 4096) as listener:
            child = opened_by(listener, program(f"connect:{path}", f"numbers:100000000:{'scmq'[n % 4]}"))
            numbers = [NUMBER.unpack_from(listener.receiver.recv_bytes_blocking())[0] for _ in range(1 + 97 * n)]
            child.kill()
            listener.close()
            rest, crashed = numbers_of(listener.receiver)
            assert numbers + rest == list(range(len(numbers) + len(rest)))
            assert crashed


def opened_by(listener, child):
    """A program that has come in."""
    opening = Spawned(line, child)
    until(lambda: look(listener.receiver) or not opening.is_alive(), "a sender")
    assert opening.join() == f"open {OK} 0"
    return child


def look(rx):
    """A look lets senders in; whether there is anything is for others to ask."""
    return rx.is_disconnected


def test_a_fork_takes_no_end_along(program, path):
    with mpsc_bytes.listen(path, 4096) as listener:
        child = program(f"connect:{path}", "fds", "fork", "send:from the parent")
        assert listener.receiver.recv_bytes_blocking() == b"from the parent"
        listener.close()
        assert numbers_of(listener.receiver) == ([], False)
    out = ended(opened(child))
    before = int(out[0].removeprefix("fds "))
    assert out[1:] == [f"child {FORKED} {FORKED} -1 fds {before - 2}", "forked", f"send {OK}"]


def test_a_fork_leaves_a_listener_to_its_parent(program, path):
    child = opened(program(f"listen:{path}:4096:1", "fork_beside", "take"))
    assert [line(child), line(child)] == [f"child {FORKED} {FORKED} -1 fds 3", "forked"]
    with mpsc_bytes.connect(path, timeout=DEADLINE) as tx:
        tx.send_blocking(b"one")
        tx.send_blocking(b"two")
        assert ended(child) == [f"thread {OK}", f"take {OK} 3 two"]


def test_a_child_forked_while_its_parent_connects_keeps_nothing_of_that(program, path):
    with mpsc_bytes.listen(path, 4096) as listener:
        child = program("connect:nobody", "fork_connecting", "send:hello")
        assert line(child) == f"open {NO_RECEIVER} 0"
        forked = int(line(child).removeprefix("forked "))
        try:
            assert listener.receiver.recv_bytes_blocking(timeout=DEADLINE) == b"hello"
            listener.close()
            with pytest.raises(RecvError) as end:
                listener.receiver.recv_blocking(timeout=DEADLINE)
            assert not end.value.crashed
        finally:
            os.kill(forked, signal.SIGKILL)
    assert ended(child) == [f"connected {OK}", f"send {OK}"]


def test_a_child_forked_while_a_connection_is_refused_has_no_copy_of_it(tmp_path, path):
    built = build(
        tmp_path / "knocking", NATIVE / "knocking.c", SOURCE, flags=(*STRICT, "-Wl,--wrap=pthread_mutex_unlock")
    )
    done = subprocess.run([built, path, str(size(200, 5000))], capture_output=True, text=True, check=True)
    assert done.stdout == "more 0\n"


def works(flags, folder):
    """Does a program that is compiled with these flags run here?"""
    (folder / "nothing.c").write_text("int main(void) { return 0; }")
    command = [*compiler(), *flags, folder / "nothing.c", "-o", folder / "nothing"]
    return not any(subprocess.run(c, capture_output=True, check=False).returncode for c in (command, [command[-1]]))


@takes_long()
@pytest.mark.parametrize("flags", [(), ("-fsanitize=thread",)], ids=["plain", "thread-sanitizer"])
def test_threads_have_an_end_each_while_another_one_forks(tmp_path, path, flags):
    if not works(flags, tmp_path):
        pytest.skip(f"no {' '.join(flags)} here")
    built = build(tmp_path / "threads", NATIVE / "threads.c", SOURCE, flags=(*STRICT, *flags))
    command = [built, path, str(size(20_000, 2_000_000)), str(size(20, 500))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrong 0 crashed 0\n", "")
    assert not os.path.exists(path)


# ---- being refused -----------------------------------------------------------------------------------------------


def test_nobody_is_there(program, path):
    assert ended(program(f"connect:{path}")) == [f"open {NO_RECEIVER} 0"]
    assert ended(program("connect::50")) == [f"open {NO_RECEIVER} 0"]
    pathlib.Path(path).write_text("a file")
    assert ended(program(f"connect:{path}")) == [f"open {NO_RECEIVER} 0"]
    assert ended(program(f"listen:{path}:4096:1")) == [f"open {SYSTEM} {errno.EEXIST}"]
    assert pathlib.Path(path).read_text() == "a file"
    assert ended(program(f"connect:{'x' * 108}")) == [f"open {SYSTEM} {errno.ENAMETOOLONG}"]
    assert ended(program(f"listen:{'x' * 108}:4096:1")) == [f"open {SYSTEM} {errno.ENAMETOOLONG}"]
    assert ended(program("listen:no/folder:4096:1")) == [f"open {SYSTEM} {errno.ENOENT}"]
    assert ended(program("listen:huge:4611686018427387904:1")) == [f"open {TOO_LARGE} 0"]


def test_the_receiver_does_not_look(program, path):
    with spsc_bytes.listen(path, 4096):
        assert ended(program(f"connect:{path}:50")) == [f"open {TIMEOUT} 0"]


def test_the_place_is_taken(program, path):
    with spsc_bytes.listen(path, 4096) as listener:
        assert ended(program(f"listen:{path}:4096:1")) == [f"open {TAKEN} 0"]
        first = opened_by(listener, program(f"connect:{path}", "read", "send:first"))
        second = program(f"connect:{path}")
        until(lambda: look(listener.receiver) or second.poll() is not None)
        assert ended(second) == [f"open {TAKEN} 0"]
        go_on(first)
        assert listener.receiver.recv_bytes_blocking() == b"first"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("feed")
        os.chown("feed", 65534, 65534)
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        assert ended(program("connect:feed")) == [f"open {FOREIGN} 0"]


@pytest.mark.parametrize(
    ("greeting", "result"),
    [
        (GREETING.pack(MAGIC, VERSION + 1, 0, 1, os.geteuid(), 0, 4096, 1), BAD_VERSION),
        (GREETING.pack(MAGIC + 1, VERSION, 0, 1, os.geteuid(), 0, 4096, 1), BAD_PEER),
        (GREETING.pack(MAGIC, VERSION, 0, 1, os.geteuid(), 0, 4097, 1), BAD_PEER),
        (GREETING.pack(MAGIC, VERSION, 2, 1, os.geteuid(), 0, 4096, 1), FOREIGN),
        (GREETING.pack(MAGIC, VERSION, 3, 1, os.geteuid(), 0, 4096, 1), BAD_PEER),
        (b"who is there?", BAD_PEER),
        (b"", NO_RECEIVER),
    ],
)
def test_whoever_listens_is_no_receiver_of_this_version(program, path, greeting, result):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        child = program(f"connect:{path}")
        connection, _ = listener.accept()
        with connection:
            if greeting:
                connection.send(greeting)
            connection.shutdown(socket.SHUT_WR)
            assert ended(child) == [f"open {result} 0"]


def test_another_kind_of_socket_listens_there(program, path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        assert ended(program(f"connect:{path}")) == [f"open {BAD_PEER} 0"]


def test_what_comes_by_a_path_and_is_no_lane_is_told_once(program, path):
    child = opened(program(f"listen:{path}:4096:1", "take", "take", "stop", "take"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(path)
        stranger.send(b"no visit")
        assert line(child) == f"take {BAD_PEER} 0"
    with mpsc_bytes.connect(path, timeout=DEADLINE) as tx:
        tx.send_blocking(b"an honest one")
    assert ended(child) == [f"take {OK} 13 an honest one", f"stop {OK}", f"take {DISCONNECTED} 0"]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    target = tmp_path_factory.mktemp("refusals") / "refusals"
    return build(target, NATIVE / "refusals.c", SOURCE, flags=STRICT)


@pytest.mark.parametrize(
    ("what", "capacity", "told"),
    [
        # a lane of many pages is made though signals come all the time
        ("interrupted", 1 << 24, [f"open {OK} 0 unmapped 0"]),
        # what is unmapped twice may be another thread's by then
        ("unmapped", 4096, [f"open {SYSTEM} {errno.ENOMEM} unmapped 1"]),
        ("asleep", 4096, [f"open {OK} 0 unmapped 0", f"send {SYSTEM} {errno.EINVAL}"]),
    ],
)
def test_what_the_system_seldom_refuses(refusals, path, what, capacity, told):
    with mpsc_bytes.listen(path, capacity) as listener:
        child = subprocess.Popen([refusals, what, path], stdout=subprocess.PIPE, text=True)
        try:
            until(lambda: look(listener.receiver) or child.poll() is not None, "the program's end")
            assert child.stdout.read().splitlines() == told
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def test_a_socket_that_comes_while_the_process_exits_is_not_left_behind(refusals, path):
    folder = os.open(".", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with subprocess.Popen([refusals, "exiting", path], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert line(child) == "exiting"
        finally:
            os.close(folder)
        assert ended(child) == [f"listen {DISCONNECTED}"]
    assert not os.path.exists(path)


# ---- what is left ------------------------------------------------------------------------------------------------


def test_no_descriptor_is_left_whatever_came_of_it(program, path):
    again = [f"open:connect:{path}:1000", "numbers:10:send", "detach"] * 20
    with mpsc_bytes.listen(path, 4096) as listener:
        child = program(
            "connect:nobody", "fds", *again, "fds", *["open:sender:nxc1-00-1.1", "open:connect:nobody"] * 20, "fds"
        )
        for _ in range(200):
            listener.receiver.recv_bytes_blocking()
        out = ended(child)
    counts = [text for text in out if text.startswith("fds")]
    assert len(counts) == 3
    assert len(set(counts)) == 1


@pytest.mark.parametrize("room", [0, 1, 2])  # for the connection; for a lane, too; and for its memory
def test_without_descriptors_it_is_told_once_and_the_sender_comes_in_later(program, path, room):
    in_use = 6  # three, and those of a listener
    child = opened(program(f"listen:{path}:4096:1", f"limit:{in_use + room}", "take", "limit:64", "take"))
    connecting = Spawned(mpsc_bytes.connect, path, timeout=DEADLINE)
    assert [line(child), line(child)] == ["limit 0", f"take {SYSTEM} 0"]
    with connecting.join() as tx:
        tx.send_blocking(b"hello")
        assert ended(child) == ["limit 0", f"take {OK} 5 hello"]


def test_a_listener_gives_back_what_its_senders_had(program, path):
    child = opened(program(f"listen:{path}:4096:1", "fds", *["take"] * 20, "disconnected", "fds", "detach", "fds"))
    before = int(line(child).removeprefix("fds "))
    for _ in range(20):
        with mpsc_bytes.connect(path, timeout=DEADLINE) as tx:
            tx.send_blocking(b"x")
    out = ended(child)
    assert out[20] == "disconnected 0 crashed 0"
    assert int(out[21].removeprefix("fds ")) <= before + 4  # the last one may still be on its way out
    assert out[22] == "fds 3"


# ---- the header --------------------------------------------------------------------------------------------------

CXX = """
#include "nexus_processes.h"
#include <cstring>
int main(int, char **argv)
{
    nexus_sender *tx;
    int result = nexus_connect(argv[1], NEXUS_FOREVER, &tx);
    if (result == NEXUS_OK)
        result = nexus_send(tx, "from C++", 8, NEXUS_FOREVER);
    nexus_detach_sender(tx);
    return result;
}
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_a_program_in_cpp_includes_the_header(tmp_path, path):
    pathlib.Path("main.cpp").write_text(CXX)
    built = build(tmp_path / "processes.o", SOURCE, flags=(*STRICT, "-c"))
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    subprocess.run([*command, f"-I{INCLUDE}", "main.cpp", built, "-pthread", "-o", "main"], check=True)
    with mpsc_bytes.listen(path, 4096) as listener:
        child = subprocess.Popen(["./main", path])
        assert listener.receiver.recv_bytes_blocking() == b"from C++"
        assert child.wait(60) == OK


def test_the_file_compiles_strictly_and_defines_nothing_but_what_the_header_declares(tmp_path):
    built = build(tmp_path / "processes.o", SOURCE, flags=(*STRICT, "-D_POSIX_C_SOURCE=200809L", "-O3", "-c"))
    symbols = subprocess.run(["nm", "--defined-only", "-g", built], check=True, capture_output=True, text=True).stdout
    declared = set(re.findall(r"\b(nexus_\w+)\(", code_of(INCLUDE / "nexus_processes.h")))
    assert len(declared) == 11
    assert {name for name in symbols.split()[2::3] if not name.startswith("__")} == declared


@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not here")
def test_the_page_shows_each_function_as_it_is_declared():
    declared = re.findall(r"^(?:int|const char \*)\b[^;]*?\);", code_of(INCLUDE / "nexus_processes.h"), re.MULTILINE)
    assert len(declared) == 11
    page = PAGE.read_text()
    assert [text for text in declared if f"`{' '.join(text.removesuffix(';').split())}`" not in page] == []


def code_of(header):
    return re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)


def test_where_there_are_no_lanes_every_end_is_refused(tmp_path):
    folder = tmp_path / "include"
    shutil.copytree(INCLUDE, folder, ignore=shutil.ignore_patterns("*.pyc"))
    bell = folder / "os_bell.h"
    bell.write_text(bell.read_text().replace("#define OS_HAS_LANES 1", "#define OS_HAS_LANES 0"))
    built = build(tmp_path / "program", NATIVE / "program.c", folder / "nexus_processes.c", flags=STRICT)
    for how in ("connect:x", "listen:x:4096:1", "sender:x", "receiver:x"):
        done = subprocess.run([built, how], capture_output=True, text=True, check=True)
        assert done.stdout == f"open {SYSTEM} {errno.ENOTSUP}\n"
