"""The programs in `examples/`, run as programs, and their parts on what a run does not show."""

import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import pathlib
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import zlib

import pytest
from harness import WAKE, seeded, size, takes_long
from processes import needs_lanes
from support import DEADLINE, until

from nexus_channels import ClaimDisconnected, ClaimTooLarge, spsc_bytes

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
LOGS = EXAMPLES / "data"
SESSION = LOGS / "session.fix"


def command(name, *arguments):
    return [sys.executable, "-P", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]


def run(name, *arguments, code=0, **kwargs):
    done = subprocess.run(
        command(name, *arguments),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        stdin=subprocess.DEVNULL,
        **kwargs,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def load(name):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def altered(folder, name, old, new):
    """The example with a fault in it, beside nothing else."""
    source = (EXAMPLES / f"{name}.py").read_text()
    assert old in source
    (folder / f"{name}.py").write_text(source.replace(old, new))
    return [sys.executable, str(folder / f"{name}.py")]


def run_altered(*words):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=DEADLINE, check=False)


FAULTS = {"an error": "1 / 0", "a kill": "os.kill(os.getpid(), 9)", "os._exit": "os._exit(7)"}


# ---- WebSocket frames ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def websocket():
    pytest.importorskip("websockets", reason="the test extra has it: pip install '.[test]'")
    return load("websocket_handoff")


@pytest.mark.usefixtures("websocket")
def test_frames_of_every_size_arrive_in_order():
    done = run("websocket_handoff", "--frames", size(300, 5000))
    assert f"{size(300, 5000):,} frames" in done.stdout
    assert "all there, in order" in done.stdout
    assert done.stderr == ""


def test_the_feed_has_frames_from_one_byte_to_a_mebibyte(websocket):
    sizes = websocket.Feed(300).sizes
    assert (len(sizes), min(sizes), max(sizes)) == (300, 1, 1 << 20)
    assert len(set(sizes)) > 200


def test_a_ring_of_one_large_frame_holds_the_client_back_and_loses_nothing(websocket):
    feed = websocket.Feed(60)
    check = websocket.Check(feed)
    asyncio.run(websocket.run(feed, check, 2 << 20))
    assert (check.frames, check.bytes) == (60, sum(feed.sizes))


def test_the_consumer_borrows_the_frames(websocket):
    seen = []

    def handle(number, frame):
        assert isinstance(frame.obj, spsc_bytes.ReadClaim)
        assert frame.readonly
        seen.append((number, len(frame)))

    feed = websocket.Feed(10)
    asyncio.run(websocket.run(feed, handle, 4 << 20))
    assert seen == list(enumerate(feed.sizes))


def test_a_frame_that_is_not_what_was_sent_is_noticed(websocket):
    feed, other = websocket.Feed(10), websocket.Feed(10, seed=1)
    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(websocket.run(feed, websocket.Check(other), 4 << 20))
    assert [str(error) for error in failed.value.exceptions if isinstance(error, ValueError)] == [
        "frame 0 is not what was sent"
    ]
    check = websocket.Check(feed)
    check(0, feed.frame(0))
    with pytest.raises(ValueError, match="frame 2 came when 1 was due"):
        check(2, feed.frame(2))


def test_a_consumer_that_fails_ends_the_client_too(websocket):
    def handle(number, frame):
        raise OSError("the consumer's own")

    for _ in range(5):
        with pytest.raises(ExceptionGroup) as failed:
            asyncio.run(websocket.run(websocket.Feed(100), handle, 2 << 20))
        others = [error for error in failed.value.exceptions if not isinstance(error, ClaimDisconnected)]
        assert [str(error) for error in others] == ["the consumer's own"]
    del failed, others
    gc.collect()  # a connection that was left open would be told now


# ---- WebSocket messages, decoded in another process ------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder():
    pytest.importorskip("websockets", reason="the test extra has it: pip install '.[test]'")
    return load("websocket_processes")


ACCESS = LOGS / "nginx-access.log"
SUMMARY = re.compile(
    r"(?P<messages>[\d,]+) messages of (?P<connections>\d+) connections, (?P<bytes>[\d,]+) bytes, in [\d.]+ s\n"
    r"decoded in another process: all there, in order, checksums (?P<crcs>[\da-f, ]+)\n"
    r"the server waited for the decoder (?P<held>[\d,]+) times\n"
)


def summary_of(paths, connections):
    lines = [line.encode() for path in paths for line in path.read_text("utf-8", "replace").splitlines()]
    crcs = [zlib.crc32(b"".join(lines[first::connections])) for first in range(connections)]
    return len(lines), sum(map(len, lines)), ", ".join(f"{crc:08x}" for crc in crcs)


@needs_lanes
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(("connections", "capacity"), [(1, 1 << 20), (4, 1 << 15), (30, 1 << 16)])
def test_the_messages_of_many_connections_are_decoded_in_another_process(connections, capacity):
    logs = [ACCESS] if connections == 30 else sorted(LOGS.glob("*.log"))
    done = run("websocket_processes", *logs, "--connections", connections, "--capacity", capacity)
    found = SUMMARY.fullmatch(done.stdout)
    messages, size, crcs = summary_of(logs, connections)
    assert (found["messages"], found["bytes"]) == (f"{messages:,}", f"{size:,}")
    assert (found["connections"], found["crcs"]) == (str(connections), crcs)
    if connections > 1:
        assert found["held"] != "0", "there was room for one or three reads, and the decoder needs longer than those"
    assert done.stderr == ""


@needs_lanes
@pytest.mark.usefixtures("decoder")
def test_clients_that_have_nothing_to_send_are_answered_too(tmp_path):
    (tmp_path / "empty").touch()
    done = run("websocket_processes", tmp_path / "empty", "--connections", 3)
    assert SUMMARY.fullmatch(done.stdout)["messages"] == "0"
    assert done.stderr == ""


DECODING = "                for answer in connections[number].take(data):\n"


@needs_lanes
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("when", ["at first", "in the middle"])
@pytest.mark.parametrize("fault", ["an error", "a kill", "os._exit"])
def test_a_decoder_that_dies_is_told_from_one_that_ends_and_cuts_all_connections(tmp_path, fault, when):
    done_so_far = "connections[number]._totals.messages >= 1000"
    before = f"                if {when == 'at first'} or {done_so_far}:\n                    {FAULTS[fault]}\n"
    before = "                import os\n" + before
    command = altered(tmp_path, "websocket_processes", DECODING, before + DECODING)
    done = run_altered(*command, *[ACCESS] * 3)
    assert (done.returncode, done.stdout) == (1, "")
    ends = {
        "an error": "closed its ends early, and its exit code is 1",
        "a kill": "did not close its ends, and its exit code is -9",
        "os._exit": "did not close its ends, and its exit code is 7",
    }
    assert f"the decoder {ends[fault]}; all connections were cut\n" in done.stderr
    assert ("ZeroDivisionError" in done.stderr) == (fault == "an error")


@needs_lanes
@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("wrong", ["line.upper()", "'' if number == 7 else line"])
def test_lines_that_do_not_arrive_as_they_were_sent_are_an_error(tmp_path, wrong):
    command = altered(tmp_path, "websocket_processes", "self._totals.count(line)", f"self._totals.count({wrong})")
    done = run_altered(*command, ACCESS)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"ValueError: Totals\(.*\) were sent, and Totals\(.*\) arrived", done.stderr)


@needs_lanes
@pytest.mark.usefixtures("decoder")
def test_ctrl_c_ends_the_server_and_with_it_the_decoder(tmp_path):
    at_work = tmp_path / "at work"  # a link to the decoder's number, which is there at once or not at all
    note = "                import os\n                with contextlib.suppress(FileExistsError):\n"
    note += f"                    os.symlink(str(os.getpid()), {str(at_work)!r})\n"
    command = altered(tmp_path, "websocket_processes", DECODING, note + DECODING)
    # In a session of its own, so that the signal is that of a terminal: for both processes.
    words = [*command, *[str(ACCESS)] * 100]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until(at_work.is_symlink, "the decoder at work")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err == "stopped: not everything was sent\n"
    assert not pathlib.Path("/proc", at_work.readlink()).exists()


class Peer:
    """A client, as the decoder sees it."""

    def __init__(self, decoder):
        from websockets.client import ClientProtocol
        from websockets.uri import parse_uri

        self.connection = decoder.Connection()
        self.protocol = ClientProtocol(parse_uri("ws://localhost/"))
        self.protocol.send_request(self.protocol.connect())
        self.exchange()
        assert self.protocol.state.name == "OPEN"

    def exchange(self):
        """Until nobody has anything to say."""
        while data := b"".join(self.protocol.data_to_send()):
            for answer in self.connection.take(memoryview(data)):
                if answer:
                    self.protocol.receive_data(answer)
                else:
                    self.protocol.receive_eof()
        return [event for event in self.protocol.events_received() if hasattr(event, "opcode")]

    def send(self, text, fin=True):
        self.protocol.send_text(text, fin)
        return [bytes(event.data) for event in self.exchange()]


def test_a_message_in_parts_with_a_ping_between_them_is_one_message(decoder):
    peer = Peer(decoder)
    assert peer.send(b'{"number": 0, "li', fin=False) == []
    peer.protocol.send_ping(b"still there?")
    (pong,) = peer.exchange()
    assert (pong.opcode.name, bytes(pong.data)) == ("PONG", b"still there?")
    peer.protocol.send_continuation(b'ne": "\xc3\xa9"}', True)
    assert peer.exchange() == []
    (totals,) = peer.send(b"null")
    assert json.loads(totals) == {"messages": 1, "bytes": 2, "crc": zlib.crc32(b"\xc3\xa9")}
    peer.protocol.send_close(1000)
    peer.exchange()
    assert peer.protocol.close_code == 1000
    assert peer.connection.take(b"") == []


@pytest.mark.parametrize(
    "text",
    [
        b"no JSON",
        b"{}",
        b"[" * 100_000,
        b'{"number": 1, "line": "the second one first"}',
        b'{"number": 0, "line": "\\ud800"}',
        b'{"number": 0, "line": 5}',
        b"\xff\xfe",
    ],
)
def test_a_client_that_sends_something_else_is_told_so_and_cut_off(decoder, text):
    peer = Peer(decoder)
    peer.send(text[:7], fin=False)
    peer.protocol.send_continuation(text[7:], True)
    peer.protocol.send_text(b"null")  # on its way already, and not answered
    (end,) = peer.exchange()
    assert end.opcode.name == "CLOSE"
    assert peer.protocol.close_code == 1007
    assert peer.protocol.close_reason.startswith("message 0: ")


def test_whoever_speaks_no_websocket_or_sends_too_much_is_cut_off(decoder):
    assert decoder.Connection().take(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")[-1] == b""
    assert decoder.Connection().take(b"\x16\x03\x01 this is TLS\r\n") == [b""]
    assert decoder.Connection().take(b"") == [b""]
    peer = Peer(decoder)
    peer.send(bytes(decoder.LARGEST + 1))
    assert peer.protocol.close_code == 1009


def test_a_client_that_does_not_read_its_answers_is_cut_off_and_nobody_waits(decoder):
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        sent = 0
        with contextlib.suppress(OSError):
            while True:
                sent += here.send(bytes(1000))
        decoder.give(here, memoryview(b"answer"))
        there.settimeout(DEADLINE)
        while data := there.recv(1 << 16):
            sent -= len(data)
        assert sent == 0
        assert here.recv(10) == b"", "the server's own reader sees the end"


# ---- FIX messages --------------------------------------------------------------------------------------------------


fix = load("fix_archive")


def messages():
    """Of the session, by their number."""
    tape = fix.Tape(SESSION)
    return {number: bytes(message) for number, message in iter(tape.take, None)}


def archived(path):
    """{number: message} of the records that are whole."""
    found = list(fix.records(path.read_bytes()))
    assert len({number for number, _ in found}) == len(found), "archived twice"
    return {number: bytes(message) for number, message in found}


def long_session(path, times):
    path.write_bytes(SESSION.read_bytes() * times)
    return path


def test_the_session_is_what_its_generator_writes():
    generated = subprocess.run(command("make_fix_session"), capture_output=True, check=True, timeout=DEADLINE).stdout
    assert generated == SESSION.read_bytes()
    assert len(generated) < 1_000_000
    assert len(messages()) == 4000


def test_the_session_has_messages_of_many_kinds_and_data_with_separators_in_it():
    bodies = [fix.verify(memoryview(message)) for message in messages().values()]
    assert {body[b"35"] for body in bodies} == set(b"A 0 5 D 8 F W X".split())
    assert [int(body[b"34"]) for body in bodies] == list(range(1, 4001))
    assert bodies[0][b"96"] == b"salt\x01and\npepper"


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("capacity", [512, 1 << 16])
def test_the_archive_holds_every_message_once(tmp_path, threads, capacity):
    done = run("fix_archive", SESSION, tmp_path / "archive", "--threads", threads, "--capacity", capacity)
    assert done.stdout.startswith("4,000 messages archived")
    assert done.stderr == ""
    assert archived(tmp_path / "archive") == messages()
    assert "4,000 records, " in run("fix_archive", "--check", tmp_path / "archive").stdout


def test_one_parser_keeps_the_order(tmp_path):
    run("fix_archive", SESSION, tmp_path / "archive", "--threads", 1)
    assert list(archived(tmp_path / "archive")) == list(range(4000))


DAMAGE = {
    "wrong CheckSum": lambda message: message.replace(b"56=BROKER", b"56=BRAKER"),
    "BodyLength does not lead to a CheckSum": lambda message: message.replace(b"\x0156=", b"\x01156="),
    "without field 49": lambda message: signed(message.replace(b"49=GATEWAY", b"50=GATEWAY")),
    "a broken field at byte 0 of the body": lambda message: signed(message.replace(b"35=", b"3_5")),
    "the length in field 95 is no number": lambda message: signed(message.replace(b"56=BROKER", b"95=TEN.67")),
}


def signed(message):
    """The message with the right checksum."""
    return message[:-7] + b"10=%03d\x01" % (sum(message[:-7]) % 256)


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_message_is_rejected_and_no_other(tmp_path, reason):
    sound = messages()
    session = dict(sound)
    for number in (1, 2000, 3999):
        damaged = DAMAGE[reason](session[number])
        assert damaged != session[number]
        session[number] = damaged
    (tmp_path / "session").write_bytes(b"".join(session.values()))
    done = run("fix_archive", tmp_path / "session", tmp_path / "archive", code=1)
    assert done.stderr.splitlines() == [f"message {number} rejected: {reason}" for number in (1, 2000, 3999)]
    assert archived(tmp_path / "archive") == {n: sound[n] for n in sound if n not in (1, 2000, 3999)}


# All of FIX 4.4, and those that FIX 5.0 SP2 was published with; 93 and 89 are the pair that is out of order.
PAIRS_OF_4_4 = [(90, 91), (93, 89), (95, 96), (212, 213), (348, 349), (350, 351), (352, 353), (354, 355), (356, 357)]
PAIRS_OF_4_4 += [(358, 359), (360, 361), (362, 363), (364, 365), (445, 446), (618, 619), (621, 622)]
PAIRS_OF_5_0 = [(1184, 1185), (1277, 1278), (1280, 1281), (1282, 1283), (1397, 1398), (1401, 1402), (1403, 1404)]
PAIRS_OF_5_0 += [(1468, 1469), (1525, 1527), (1678, 1697), (2372, 2371), (41101, 41102), (43109, 42684)]


def message(begin, *fields):
    head = [(35, b"B"), (34, b"7"), (49, b"GATEWAY"), (52, b"20261120-14:30:00"), (56, b"BROKER")]
    body = b"".join(b"%d=%b\x01" % field for field in [*head, *fields])
    return signed(b"8=%b\x019=%d\x01%b10=000\x01" % (begin, len(body), body))


@pytest.mark.parametrize(
    ("begin", "length", "data"),
    [(begin, *pair) for begin in (b"FIX.4.4", b"FIXT.1.1") for pair in PAIRS_OF_4_4]
    + [(b"FIXT.1.1", *pair) for pair in PAIRS_OF_5_0],
)
def test_a_data_field_may_hold_separators_and_whole_messages(tmp_path, begin, length, data):
    inner = b"\x0110=000\x01 text " + message(b"FIX.4.4", (58, b"inner"))
    outer = message(begin, (length, b"%d" % len(inner)), (data, inner), (58, b"after"))
    following = message(begin, (58, b"the next"))
    (tmp_path / "session").write_bytes(outer + b"\n" + following)
    assert fix.archive(tmp_path / "session", tmp_path / "archive", threads=2, capacity=1 << 12) == (2, [])
    assert archived(tmp_path / "archive") == {0: outer, 1: following}
    assert fix.verify(memoryview(outer))[b"%d" % data] == inner


def test_no_field_is_both_a_length_and_data():
    assert len(fix.DATA) == len(set(fix.DATA.values())) == 84
    assert not fix.DATA.keys() & set(fix.DATA.values())


def test_an_archive_cut_anywhere_can_be_read_up_to_there(tmp_path):
    path = tmp_path / "archive"
    run("fix_archive", SESSION, path, "--threads", 2)
    whole = path.read_bytes()
    start = whole.index(b"8=FIX", 5000) - fix.SEQUENCE.size  # of some record
    end = whole.index(b"8=FIX", start + 20) - fix.SEQUENCE.size
    before = [(number, bytes(message)) for number, message in fix.records(whole[:start])]
    assert sum(len(message) + fix.SEQUENCE.size for _, message in before) == start
    for cut in range(start, end):
        assert list(fix.records(whole[:cut])) == before
    assert len(list(fix.records(whole[:end]))) == len(before) + 1

    path.write_bytes(whole[: start + 30])
    assert "30 bytes of a record that was cut short" in run("fix_archive", "--check", path, code=1).stdout
    run("fix_archive", SESSION, path)
    assert archived(path) == messages()


@takes_long()
def test_killed_at_any_moment_it_leaves_a_readable_beginning(tmp_path):
    chance = seeded("killed")
    session = long_session(tmp_path / "session", 5)
    tape = fix.Tape(session)
    expected = {number: bytes(message) for number, message in iter(tape.take, None)}
    total = sum(fix.SEQUENCE.size + len(message) for message in expected.values())
    for round_number in range(size(4, 50)):
        path = tmp_path / f"archive{round_number}"
        moment = chance.randrange(1, total * 8 // 10)
        archive_until_killed(session, path, moment)
        content = path.read_bytes()
        whole = archived(path)
        assert whole.items() <= expected.items()
        torn = len(content) - sum(fix.SEQUENCE.size + len(message) for message in whole.values())
        assert 0 <= torn < fix.SEQUENCE.size + max(map(len, expected.values())), "only the last record may be cut"
    run("fix_archive", session, path)
    assert archived(path) == expected, "the next run archives what is missing"


def archive_until_killed(session, path, moment):
    """Start the program, and kill it once so many bytes are in the archive."""
    process = subprocess.Popen(command("fix_archive", session, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: path.exists() and path.stat().st_size >= moment, f"{moment} bytes in the archive")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_disk_that_takes_no_more_is_told_and_ends_it(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = run("fix_archive", SESSION, tmp_path / "archive", code=1, preexec_fn=limit)
    assert "cannot archive: [Errno 27] File too large" in done.stderr
    assert 1000 < len(archived(tmp_path / "archive")) < 4000


def test_a_session_that_is_not_there_is_told(tmp_path):
    done = run("fix_archive", tmp_path / "missing", tmp_path / "archive", code=1)
    assert "cannot archive: [Errno 2] No such file or directory" in done.stderr
    assert not (tmp_path / "archive").exists()


def test_the_session_is_required(tmp_path):
    assert "give a session to archive" in run("fix_archive", tmp_path / "archive", code=2).stderr


# ---- a window of Qt --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qt():
    """PySide6 is no part of the test extra: it is large. Importing it needs libraries of the system, too."""
    widgets = pytest.importorskip("PySide6.QtWidgets", reason="PySide6 cannot be imported", exc_type=ImportError)
    if WAKE == "call_soon_threadsafe":
        pytest.skip("there is no notifier where there is no descriptor to wait on")
    thing, before = widgets.QApplication, sys.getrefcount(None)
    for _ in range(100):
        thing.processEvents()
    if sys.getrefcount(None) < before - 50:  # 6.12 does on Python 3.11, and the interpreter then aborts
        pytest.skip("this PySide6 gives up a reference to None with each call")
    return widgets


@pytest.mark.usefixtures("qt")
@takes_long()
@pytest.mark.parametrize("steps", [1, 64, size(5000, 1_000_000)])
def test_a_qt_window_shows_what_a_thread_reports(steps):
    done = run("qt_progress", "--steps", steps, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
    assert done.stdout == f"{steps:,} reports, in order\nthe bar shows 100%\n"


@pytest.mark.usefixtures("qt")
def test_a_qt_window_that_was_closed_stops_the_thread():
    source = """
import threading
import qt_progress
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
from nexus_channels import SendError, spsc
application = QApplication([])
tx, rx = spsc.channel(4)
seen, failed = [], []

def work():
    try:
        qt_progress.work(tx, 10**9)
    except SendError as error:
        failed.append(error.value)

def show(steps):
    seen.extend(steps)
    if len(seen) > 100:
        items.stop()
        application.quit()

items = qt_progress.Items(rx, show, lambda: print("ended"))
thread = threading.Thread(target=work)
thread.start()
application.exec()
thread.join()
assert seen == list(range(1, len(seen) + 1))
assert failed and failed[0] > len(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=EXAMPLES,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# ---- FIX messages, verified in several interpreters -----------------------------------------------------------------


def run_pool(*arguments, code=0):
    """It takes the messages apart by fix_archive.py, which lies beside it."""
    return run("fix_verify", *arguments, code=code, env={**os.environ, "PYTHONPATH": str(EXAMPLES)})


several = pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters have a GIL of their own from 3.12 on")


@several
@pytest.mark.parametrize("workers", [1, 3])
def test_a_pool_of_interpreters_finds_every_message_good_as_one_alone_does(workers):
    done = run_pool(SESSION, "--workers", workers, "--times", 2, "--compare")
    assert done.stdout.startswith(f"8,000 messages verified by {workers} interpreters in ")
    assert ", 0 rejected" in done.stdout and "times as fast" in done.stdout
    assert done.stderr == ""


@several
def test_a_pool_of_interpreters_rejects_what_one_alone_rejects(tmp_path):
    content = bytearray(SESSION.read_bytes())
    rng = seeded("a damaged session")
    places = [rng.randrange(len(content)) for _ in range(20)]
    for at in places:
        content[at] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    done = run_pool(tmp_path / "damaged", "--workers", 2, "--compare", code=1)
    assert re.search(r"in [\d.]+ s, [1-9]\d* rejected\n  message \d+: ", done.stdout)
    assert "times as fast" in done.stdout, "the two do not agree"


@several
def test_a_worker_that_fails_ends_the_pool_with_its_error(tmp_path):
    for name in ("fix_archive.py", "fix_verify.py"):
        source = (EXAMPLES / name).read_text()
        (tmp_path / name).write_text(source.replace("    tx.send_blocking(SEQUENCE.pack(READY))", "    1 / 0"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "fix_verify.py"), str(SESSION), "--workers", "3"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there are such interpreters")
def test_without_interpreters_that_have_a_gil_each_the_program_says_so():
    done = run_pool(SESSION, code=2)
    assert "needs CPython 3.12" in done.stderr


# ---- pools of processes ----------------------------------------------------------------------------------------------


@needs_lanes
@pytest.mark.parametrize("workers", [1, 3])
def test_a_pool_of_processes_counts_what_one_alone_counts(workers):
    logs = [LOGS / "nginx-access.log", LOGS / "nginx-error.log"]
    done = run("logs_between_processes", *logs, "--workers", workers, "--times", 3, "--compare")
    assert done.stdout.startswith("54,003 requests in 57,366 lines, ")
    assert "  200: 45,003, 301: 6,000, 404: 3,000\n" in done.stdout
    assert f"\n{workers} processes took " in done.stdout and "and counted the same" in done.stdout
    assert done.stderr == ""


@needs_lanes
def test_logs_that_are_empty_or_of_another_kind_are_counted_too(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_bytes(bytes(range(256)) * 1000 + b"\n" + b"no end of line")
    done = run("logs_between_processes", tmp_path / "empty", tmp_path / "other", "--workers", 2, "--compare")
    assert done.stdout.startswith("0 requests in 1,001 lines, 0 bytes sent\n")
    assert done.stderr == ""


@needs_lanes
@pytest.mark.parametrize("when", ["at first", "in the middle"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_process_that_fails_ends_the_pool_with_an_error(tmp_path, fault, when):
    inside = "            with memoryview(claim) as block:\n"
    before = f"            if {when == 'at first'} or claim[0:4] != b'2026':\n                {FAULTS[fault]}\n"
    command = altered(tmp_path, "logs_between_processes", inside, before + inside)
    logs = [LOGS / "nginx-access.log"] * 2 + [LOGS / "make.log"] * 30
    done = run_altered(*command, *logs, "--workers", "2")
    assert done.returncode == 1
    assert "RuntimeError: a worker failed: their exit codes are [" in done.stderr
    assert done.stdout == ""


@needs_lanes
@pytest.mark.parametrize("fault", FAULTS)
def test_a_ported_program_ends_with_an_error_when_a_worker_dies(tmp_path, fault):
    """What docs/howto/processes.md says of it. The other worker must not wait for jobs, nor the program for results."""
    before = f"            if block[0] == 9:\n                import os\n                {FAULTS[fault]}\n"
    sending = "            tx.send_blocking("
    (tmp_path / "howto").mkdir()
    command = altered(tmp_path, "howto/digests_by_channel", sending, before + sending)
    program = tmp_path / "howto" / "digests_by_channel.py"
    few, many = "[bytes([n]) * 1000 for n in range(4)]", "[bytes([n % 256]) * 1000 for n in range(2000)]"
    assert few in program.read_text()
    program.write_text(program.read_text().replace(few, many))
    done = run_altered(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert "RuntimeError: a worker failed" in done.stderr
    assert "SendError: the receiver is gone" in done.stderr, "the thread that feeds"


@needs_lanes
@pytest.mark.parametrize("workers", [1, 3])
def test_arrays_go_to_other_processes_and_come_back(workers):
    pytest.importorskip("numpy", reason="the arrays are numpy's")
    logs = sorted(LOGS.glob("*.log"))
    done = run("arrays_between_processes", *logs, "--workers", workers, "--times", 2, "--compare")
    total = 2 * sum(max(0, path.stat().st_size - 1) for path in logs)
    assert done.stdout.startswith(f"{total:,} pairs counted by {workers} processes in ")
    assert "and found the same" in done.stdout
    assert done.stderr == ""


@needs_lanes
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_fails_over_an_array_ends_the_pool_with_an_error(tmp_path, fault):
    pytest.importorskip("numpy", reason="the arrays are numpy's")
    old = "    with attach(results) as tx, attach(jobs) as rx:\n        for claim in rx:\n"
    command = altered(tmp_path, "arrays_between_processes", old, f"{old}            {FAULTS[fault]}\n")
    done = run_altered(*command, *[LOGS / "redis.log"] * 9, "--workers", "2")
    assert done.returncode == 1
    assert "RuntimeError: a worker failed: their exit codes are [" in done.stderr


def test_without_numpy_the_program_says_so():
    hidden = "import importlib.util, runpy, sys; importlib.util.find_spec = lambda name: None; del sys.argv[0]; "
    program = hidden + "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = run_altered(sys.executable, "-P", "-c", program, EXAMPLES / "arrays_between_processes.py", SESSION)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "this needs numpy: pip install numpy\n"


@pytest.fixture
def arrays():
    return load("arrays_between_processes")


@pytest.mark.parametrize("capacity", [1 << 12, 1 << 16])
def test_objects_with_buffers_come_out_as_they_went_in(arrays, capacity):
    """Between threads: the recipe does not ask where the other end is."""
    tx, rx = spsc_bytes.channel(capacity)
    values = [
        None,
        {"name": "x" * 100, "numbers": [1, 2.5, 3]},
        [pickle.PickleBuffer(bytearray(range(n))) for n in (0, 1, 7, 8, 9, 200)],
        pickle.PickleBuffer(b"read-only"),
    ]
    for value in values:
        arrays.put(tx, value)
        claim = rx.try_recv()
        found = arrays.load(claim)
        if isinstance(value, list):
            assert [bytes(one) for one in found] == [bytes(one) for one in value]
        else:
            assert found == value if not isinstance(value, pickle.PickleBuffer) else bytes(found) == b"read-only"
        del found
        claim.release()
    with pytest.raises(ClaimTooLarge):
        arrays.put(tx, pickle.PickleBuffer(bytes(capacity)))
    assert tx.used == 0


def test_arrays_are_read_where_they_lie(arrays):
    np = pytest.importorskip("numpy", reason="the arrays are numpy's")
    tx, rx = spsc_bytes.channel(1 << 16)
    sent = {"a": np.arange(1000.0), "b": np.arange(24, dtype="c8").reshape(2, 3, 4), "empty": np.empty((0, 3))}
    sent |= {"fortran": np.asfortranarray(np.arange(12).reshape(3, 4)), "apart": np.arange(100)[::3]}
    arrays.put(tx, sent)
    claim = rx.try_recv()
    found = arrays.load(claim)
    low = np.frombuffer(claim, dtype="u1").ctypes.data
    for name, array in sent.items():
        assert (found[name] == array).all() and found[name].shape == array.shape and found[name].dtype == array.dtype
    for name in ("a", "b", "fortran"):
        assert low <= found[name].ctypes.data < low + len(claim), "it was copied"
        assert found[name].ctypes.data % 8 == 0
        assert not found[name].flags.writeable
    with pytest.raises(BufferError):
        claim.release()
    del found, array
    claim.release()


def test_record_batches_of_arrow_are_read_where_they_lie():
    """What docs/howto/processes.md shows."""
    pyarrow = pytest.importorskip("pyarrow", reason="the batches are Arrow's")
    page = (EXAMPLES.parent / "docs" / "howto" / "processes.md").read_text()
    (code,) = re.findall(r"^```\{code-block\} python\n(def write\(batch.*?)^```", page, re.MULTILINE | re.DOTALL)
    recipe = {"pyarrow": pyarrow}
    exec(code, recipe)
    tx, rx = spsc_bytes.channel(1 << 16)
    batch = pyarrow.record_batch({"price": [1.0, 2.0, 3.5], "name": ["a", "b", None]})
    recipe["put"](tx, batch)
    claim = rx.try_recv()
    found = recipe["load"](claim)
    assert found.equals(batch)
    with memoryview(claim) as view:
        low = pyarrow.py_buffer(view).address
        assert low <= found.column(0).buffers()[1].address < low + len(claim), "it was copied"
    del found
    gc.collect()
    claim.release()
