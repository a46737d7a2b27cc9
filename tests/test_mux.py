"""The log multiplexer: run as a program, on the logs that ship with the project and on nasty input."""

import asyncio
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from muxing import archived, asleep, by_source, caught, command, counted, end, lines_of, mode, run, started
from support import DEADLINE, until

from nexus_channels._programs.mux import files as reading
from nexus_channels._programs.mux import job as jobs
from nexus_channels._programs.mux import lines as splitting
from nexus_channels._programs.mux import names

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at the program through Linux's /proc")

LOGS = sorted((pathlib.Path(__file__).parent.parent / "examples" / "data").glob("*.log"))


@pytest.fixture(autouse=True, params=[[], ["--bytes"]], ids=["objects", "bytes"])
def _mode(request):
    """Each test runs the program on either kind of channel."""
    mode[:] = request.param


bytes_only = pytest.mark.parametrize("_mode", [["--bytes"]], indirect=True, ids=["bytes"])


def room_for(lines):
    """The capacity for about so many lines of usual length, in the unit of the channel."""
    return lines * 100 if mode else lines


# ---- whole files ---------------------------------------------------------------------------------------------------


def test_the_shipped_logs_are_many_enough():
    assert sum(len(lines_of(log)) for log in LOGS) >= 50_000
    assert sum(log.stat().st_size for log in LOGS) < 5_000_000


@pytest.mark.parametrize("capacity", [1, 7, 1024])
def test_each_source_is_in_the_archive_whole_and_in_order(tmp_path, capacity):
    logs = [log for log in LOGS if capacity > 1 or log.stat().st_size < 200_000]  # a wake-up a line takes its time
    done = run(*logs, "-o", tmp_path / "archive", "--capacity", room_for(capacity))
    assert by_source(tmp_path / "archive") == {log.name: lines_of(log) for log in logs}
    assert done.stderr == ""


def test_the_summary_tells_lines_speed_and_backpressure(tmp_path):
    done = run(*LOGS, "-o", tmp_path / "archive", "--capacity", room_for(10))
    table = counted(done.stdout)
    total_lines, total_held = table.pop("total")
    assert {name: lines for name, (lines, _) in table.items()} == {log.name: len(lines_of(log)) for log in LOGS}
    assert total_lines == sum(len(lines_of(log)) for log in LOGS)
    assert total_held == sum(held for _, held in table.values())
    assert table["nginx-access.log"][1] > 0, "64 KiB of short lines do not fit into 10 places"
    assert re.search(r"^53,052 lines in \d+\.\d\d s, [\d,]+ lines/s$", done.stdout, re.MULTILINE)


def test_no_reader_is_held_back_while_everything_fits(tmp_path):
    (tmp_path / "a.log").write_bytes(b"1\n2\n3\n")
    done = run(tmp_path / "a.log", "-o", tmp_path / "archive", "--capacity", 3)
    assert counted(done.stdout)["a.log"] == (3, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"no newline at the end",
        b"one\nno newline at the end",
        b"dos\r\nlines\r\n",
        b"nul \0 and \xff\xfe\x80 not UTF-8\n",
        b"a\ttab\n\tanother\n",
        b"x" * splitting.CHUNK + b"\n" + b"y" * (splitting.CHUNK - 1) + b"\nz",
        b"before\n" + b"long" * 250_000 + b"\nafter\n",
        b"long without end" * 65_536,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_any_bytes_arrive_as_they_are(tmp_path, content):
    (tmp_path / "a.log").write_bytes(content)
    run(tmp_path / "a.log", "-o", tmp_path / "archive")
    assert by_source(tmp_path / "archive").get("a.log", []) == lines_of(tmp_path / "a.log")


@given(st.lists(st.binary(max_size=9) | st.just(b"\n")), st.integers(1, 12), st.integers(0, 12))
def test_lines_do_not_depend_on_where_chunks_end(chunks, longest, window):
    """And of those that are too long every part but the last is as long as may be."""
    content = b"".join(chunks)
    splitter = splitting.Lines(longest)
    blocks = []
    added = b""
    for chunk in chunks:
        seen = added[len(added) - min(window, len(added)) :]
        for text, begin, ended in splitter.add(seen + chunk, len(seen)):
            assert begin == 0 or text[begin - 1 : begin] == b"\n"
            blocks.append((text[begin : text.rfind(b"\n") + 1] if ended else text[begin:], ended))
        added += chunk
    assert splitter.begun <= longest
    expected = []
    *whole, rest = content.split(b"\n")
    for line in whole:
        while len(line) > longest:
            expected.append((line[:longest], False))
            line = line[longest:]
        expected.append((line, True))
    while len(rest) > longest:
        expected.append((rest[:longest], False))
        rest = rest[longest:]
    found = []
    for text, ended in blocks:
        assert text.endswith(b"\n") == ended
        found += [(line, True) for line in text[:-1].split(b"\n")] if ended else [(text, False)]
    assert found == expected
    assert splitter.take() == rest
    assert splitter.take() == b""


def test_an_unfinished_line_that_comes_byte_by_byte_takes_little_memory():
    splitter = splitting.Lines()
    for _ in range(10_000):
        assert list(splitter.add(b"xy")) == []
    assert len(splitter._pieces) <= splitting.MANY
    assert list(splitter.add(b"\n")) == [(b"xy" * 10_000 + b"\n", 0, True)]


@given(
    st.lists(st.binary(max_size=6).filter(lambda line: b"\n" not in line), min_size=1),
    st.sampled_from([b"a\t", b"a longer tag\t"]),
    st.integers(1, 20),
)
def test_messages_are_the_lines_with_their_tags(lines, prefix, limit):
    text = splitting.tagged(b"".join(line + b"\n" for line in lines), prefix)
    assert text == b"".join(prefix + line + b"\n" for line in lines)
    messages = [(text[start:end], lines) for start, end, lines in splitting.cut(text, limit, text.count(b"\n"))]
    assert b"".join(message for message, _ in messages) == text
    for message, count in messages:
        assert 1 <= len(message) <= limit
        assert message.count(b"\n") == count
        assert message.endswith(b"\n") == (count > 0)


@bytes_only
@pytest.mark.parametrize("capacity", [1, 64, 1000])
def test_lines_longer_than_the_ring_are_put_together_whatever_comes_between(tmp_path, capacity):
    names = ["a", "b", "a name of more bytes than the smallest ring can hold" * 2]
    files = [tmp_path / f"{name}.log" for name in names]
    for seed, path in enumerate(files):
        lengths = [(7 * number + seed) % 50 * (number % 9) for number in range(500)]
        path.write_bytes(b"".join(b"%d " % number + b"x" * length + b"\n" for number, length in enumerate(lengths)))
    done = run(*files, "-o", tmp_path / "archive", "--capacity", capacity)
    assert by_source(tmp_path / "archive") == {path.name: lines_of(path) for path in files}
    assert re.search(r"^total +1,500 ", done.stdout, re.MULTILINE)


@bytes_only
def test_a_line_too_long_for_memory_ends_its_source_alone(tmp_path):
    class Scarce(bytearray):
        def __iadd__(self, more):
            raise MemoryError

    job = jobs.Mux(["a.log", "b.log"], str(tmp_path / "archive"), capacity=1024, in_bytes=True)
    a, b = (source.whole for source in job.sources)
    a.begun = Scarce()
    messages = [(a, 0, b"a.log\tpart"), (b, 1, b"b.log\tone\n"), (a, 2, b" end\na.log\tx\n"), (b, 1, b"b.log\ttwo\n")]
    job._archive.open()
    with job._tx as tx:
        for label, lines, text in messages:
            tx.try_send(jobs.HEAD.pack(label.number, lines) + text)
        tx.close()
        asyncio.run(job._write_blocks(lambda _: None))
    job._archive.close()
    assert by_source(tmp_path / "archive") == {"b.log": [b"one", b"two"]}
    assert [(source.whole.written, source.account.failed) for source in job.sources] == [(0, True), (2, False)]
    with pytest.raises(jobs.GivenUp):  # its reader reads no further
        jobs.emit_blocks(job.sources[0], tx, b"more\n", 0, True)


def test_a_reader_without_memory_ends_its_source_alone(tmp_path, monkeypatch):
    name = "emit_blocks" if mode else "emit_lines"
    real = getattr(jobs, name)

    def scarce(source, *rest):
        if source.path.endswith("a.log"):
            raise MemoryError
        real(source, *rest)

    monkeypatch.setattr(jobs, name, scarce)
    files = [tmp_path / "a.log", tmp_path / "b.log"]
    for path in files:
        path.write_bytes(b"one\ntwo\n")
    job = jobs.Mux([*map(str, files)], str(tmp_path / "archive"), capacity=1024, in_bytes=bool(mode))
    job.run()
    assert by_source(tmp_path / "archive") == {"b.log": [b"one", b"two"]}
    assert [source.account.failed for source in job.sources] == [True, False]
    assert jobs.NO_MEMORY in job.sources[0].account.errors[0][1]


def test_a_source_for_which_there_is_no_thread_does_not_cost_the_others(tmp_path, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "b.log":
            raise RuntimeError("can't start new thread")
        start(thread)

    for name in "abc":
        (tmp_path / f"{name}.log").write_bytes(b"one\ntwo\n")
    job = jobs.Mux(
        [str(tmp_path / f"{name}.log") for name in "abc"],
        str(tmp_path / "archive"),
        capacity=1024,
        in_bytes=bool(mode),
    )
    monkeypatch.setattr(threading.Thread, "start", refuse)
    job.run()
    assert by_source(tmp_path / "archive") == {"a.log": [b"one", b"two"], "c.log": [b"one", b"two"]}
    assert [source.account.failed for source in job.sources] == [False, True, False]
    assert "can't start new thread" in job.sources[1].account.errors[0][1]
    assert job.sources[1].account.unread == 8


def test_an_older_archive_is_overwritten(tmp_path):
    (tmp_path / "a.log").write_bytes(b"new\n")
    (tmp_path / "archive").write_bytes(b"old\n" * 100)
    run(tmp_path / "a.log", "-o", tmp_path / "archive")
    assert (tmp_path / "archive").read_bytes() == b"a.log\tnew\n"


def test_pipes_are_read_to_their_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path / "pipe", "-o", tmp_path / "archive") as process:
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(b"one\ntwo\n" * 50_000)
        out, _ = process.communicate(timeout=DEADLINE)
    assert by_source(tmp_path / "archive") == {"pipe": [b"one", b"two"] * 50_000}
    assert counted(out)["pipe"][0] == 100_000


# ---- names ---------------------------------------------------------------------------------------------------------


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a/web", "b/web", "b/db"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "app.log").write_text(f"{folder}\n")
    (tmp_path / "b/other.log").write_text("other\n")
    names = ["a/web/app.log", "b/web/app.log", "b/db/app.log", "b/other.log"]
    run(*names, "-o", "archive", cwd=tmp_path)
    assert by_source(tmp_path / "archive") == {
        "a/web/app.log": [b"a/web"],
        "b/web/app.log": [b"b/web"],
        "db/app.log": [b"b/db"],
        "other.log": [b"other"],
    }


def test_names_that_would_break_the_archive_are_escaped(tmp_path):
    name = b"tab\there\nback\\slash \xff.log"
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"text\n")
    done = run(os.fsdecode(path), "-o", tmp_path / "archive")
    assert (tmp_path / "archive").read_bytes() == rb"tab\there\nback\\slash " + b"\xff.log\ttext\n"
    assert r"tab\there\nback\\slash \xff.log" in done.stdout


@given(
    st.sets(st.lists(st.sampled_from(["a", "b", "a/b", "\t", "\\t"]), min_size=1, max_size=3).map("/".join), min_size=1)
)
def test_no_two_sources_have_the_same_tag(paths):
    paths = {os.path.abspath(path) for path in paths}
    assert len(set(names.tags(paths))) == len(paths)


# ---- errors --------------------------------------------------------------------------------------------------------


def test_a_source_that_cannot_be_read_does_not_cost_the_others(tmp_path):
    (tmp_path / "good.log").write_bytes(b"good\n" * 1000)
    done = run(tmp_path / "missing.log", tmp_path / "good.log", tmp_path, "-o", tmp_path / "archive", code=1)
    assert by_source(tmp_path / "archive") == {"good.log": [b"good"] * 1000}
    assert f"cannot read {tmp_path}/missing.log: No such file or directory" in done.stderr
    assert f"cannot read {tmp_path}: Is a directory" in done.stderr
    assert counted(done.stdout)["good.log"][0] == 1000


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file whose reading fails: Linux's /proc")
def test_an_error_in_the_middle_of_reading_is_told(tmp_path):
    done = run("/proc/self/mem", "-o", tmp_path / "archive", code=1)
    assert "cannot read /proc/self/mem: Input/output error" in done.stderr


def test_what_was_read_before_an_error_is_kept(tmp_path, monkeypatch):
    (tmp_path / "a.log").write_bytes(b"one\ntwo")
    real = reading.Input.read

    def failing(file, emit):
        if file.position:
            raise OSError(5, "Input/output error")
        return real(file, emit)

    monkeypatch.setattr(reading.Input, "read", failing)
    job = jobs.Mux([str(tmp_path / "a.log")], str(tmp_path / "archive"), capacity=1024, in_bytes=bool(mode))
    job.run()
    assert (tmp_path / "archive").read_bytes() == b"a.log\tone\na.log\\+\ttwo\n"
    assert "Input/output error" in job.sources[0].account.errors[0][1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_a_full_disk_is_told_and_ends_it(tmp_path, follow):
    done = run(*LOGS, "-o", "/dev/full", "--capacity", 2, *follow, code=1)
    assert "cannot write /dev/full: No space left on device" in done.stderr


def test_a_full_disk_is_told_also_when_the_archive_fits_into_the_buffer(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    (tmp_path / "a.log").write_bytes(b"one\n")
    done = run(tmp_path / "a.log", "-o", "/dev/full", code=1)
    assert "cannot write /dev/full: No space left on device" in done.stderr


def test_an_archive_that_cannot_be_opened_is_told(tmp_path):
    done = run(LOGS[0], "-o", tmp_path / "no" / "archive", code=1)
    assert f"cannot write {tmp_path}/no/archive: No such file or directory" in done.stderr


def test_a_reader_of_the_archive_who_goes_away_ends_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with started(*LOGS, "-o", tmp_path / "pipe") as process:
        with open(tmp_path / "pipe", "rb") as pipe:
            assert pipe.read(10)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "Broken pipe" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_an_input_is_never_overwritten(tmp_path, link):
    (tmp_path / "a.log").write_bytes(b"precious\n")
    archive = tmp_path / "a.log"
    if link:
        archive = tmp_path / "link"
        link(tmp_path / "a.log", archive)
    done = run(tmp_path / "a.log", "-o", archive, code=2)
    assert "both an input and the archive" in done.stderr
    assert (tmp_path / "a.log").read_bytes() == b"precious\n"


def test_an_archive_that_is_yet_to_be_made_is_no_input_either(tmp_path):
    done = run("new.log", "-o", "./new.log", "--follow", code=2, cwd=tmp_path)
    assert "both an input and the archive" in done.stderr


def test_an_input_given_twice_is_refused(tmp_path):
    done = run(LOGS[0], LOGS[1], LOGS[0], "-o", tmp_path / "archive", code=2)
    assert "is given 2 times" in done.stderr


@pytest.mark.parametrize("capacity", ["0", "-1", "1.5", "many", ""])
def test_a_capacity_that_is_none_is_refused(tmp_path, capacity):
    done = run(LOGS[0], "-o", tmp_path / "archive", f"--capacity={capacity}", code=2)
    assert "is not a whole number of at least 1" in done.stderr


def test_a_capacity_beyond_memory_is_refused(tmp_path):
    done = run(LOGS[0], "-o", tmp_path / "archive", "--capacity", 2**61, code=1)
    assert "not enough memory" in done.stderr


# ---- following -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_following_ends_at_a_signal_with_everything_that_was_written_until_then(tmp_path, number, code):
    files = [tmp_path / "a.log", tmp_path / "b.log"]
    files[0].write_bytes(b"a 0\n")
    files[1].write_bytes(b"b 0\n")
    with started(*files, "-o", tmp_path / "archive", "--follow") as process:
        archived(tmp_path / "archive", 2)
        for count in range(1, 2001):
            for path in files:
                with open(path, "ab") as file:
                    file.write(b"%s %d\n" % (path.stem.encode(), count))
        with open(files[0], "ab") as file:
            file.write(b"half a line")
        out, err = end(process, number, code)
    found = by_source(tmp_path / "archive")
    assert found.pop("a.log\\+") == [b"half a line"], "it may go on: it is no whole line"
    assert {name: len(lines) for name, lines in found.items()} == {"a.log": 2001, "b.log": 2001}
    assert all(lines == lines_of(tmp_path / name)[: len(lines)] for name, lines in found.items())
    assert {name: lines for name, (lines, _) in counted(out).items()} == {"a.log": 2001, "b.log": 2001, "total": 4002}
    assert f"ended by {number.name}" in err


def test_a_line_written_in_two_halves_is_one_line(tmp_path):
    with open(tmp_path / "a.log", "wb", buffering=0) as file:
        file.write(b"first\nhal")
        with started(tmp_path / "a.log", "-o", tmp_path / "archive", "--follow") as process:
            archived(tmp_path / "archive", 1)
            file.write(b"f\nlast\n")
            archived(tmp_path / "archive", 3)
            end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"first", b"half", b"last"]}


def test_a_file_that_is_rotated_is_followed_to_its_end_and_then_anew(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "--follow") as process:
        archived(tmp_path / "archive", 1)
        log.rename(tmp_path / "a.log.1")
        with open(tmp_path / "a.log.1", "ab") as old:
            old.write(b"2\nnot ended")
        log.write_bytes(b"3\n")
        archived(tmp_path / "archive", 4)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"2", b"3", b"not ended"]}, "it might have gone on"


def test_a_file_that_is_cut_short_is_read_from_its_start(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"one\ntwo\nthree\n")
    with started(log, "-o", tmp_path / "archive", "--follow") as process:
        archived(tmp_path / "archive", 3)
        log.write_bytes(b"new\n")
        archived(tmp_path / "archive", 4)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"one", b"two", b"three", b"new"]}


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path):
    log = tmp_path / "late.log"
    with started(log, tmp_path / "never.log", "-o", tmp_path / "archive", "--follow") as process:
        until((tmp_path / "archive").exists)
        log.write_bytes(b"here\n")
        archived(tmp_path / "archive", 1)
        _, err = end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"late.log": [b"here"]}
    assert f"waiting for {log}" in err
    assert "never.log: No such file or directory" in err


def test_a_followed_pipe_ends_with_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path / "pipe", "-o", tmp_path / "archive", "--follow") as process:
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(b"one\ntwo\n")
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert by_source(tmp_path / "archive") == {"pipe": [b"one", b"two"]}


def test_a_pipe_whose_bytes_another_reader_took_is_waited_for_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    class Looks:
        """A stop whose waits are over at once; before the second and third something happens."""

        look = 0

        def wait(self, seconds=None, fd=None):
            self.look += 1
            {2: lambda: os.write(pipe, b"one"), 3: lambda: os.close(pipe)}.get(self.look, int)()
            return False

    pipe = os.open(tmp_path / "pipe", os.O_WRONLY)
    stop = Looks()
    read = []
    reading._read_stream(fd, reading.Account("pipe", print), stop, lambda *text: read.append(text))
    os.close(fd)
    assert read == [(b"one\n", 0, True)]
    assert stop.look == 3


# ---- signals -------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_middle_of_big_files_leaves_whole_beginnings(tmp_path):
    files = [tmp_path / f"{name}.log" for name in "abc"]
    for path in files:
        path.write_bytes(b"".join(b"%s %d\n" % (path.stem.encode(), n) for n in range(1_000_000)))
    with started(*files, "-o", tmp_path / "archive", "--capacity", room_for(16)) as process:
        archived(tmp_path / "archive", 1000)
        out, _ = end(process, signal.SIGINT, 130)
    table = counted(out)
    for name, lines in by_source(tmp_path / "archive").items():
        assert table[name][0] == len(lines) < 1_000_000
        assert lines == lines_of(tmp_path / name)[: len(lines)], "no line is cut"


@needs_proc
def test_ctrl_c_while_a_pipe_is_waited_for_keeps_what_came_through_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path / "pipe", "-o", tmp_path / "archive") as process, open(tmp_path / "pipe", "wb", 0) as pipe:
        pipe.write(b"one\ntwo\nhal")
        until(lambda: unread(pipe) == 0 and asleep(process), "the pipe empty and nobody busy")
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"pipe": [b"one", b"two"], "pipe\\+": [b"hal"]}


def unread(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0]


@needs_proc
def test_ctrl_c_while_a_pipe_has_no_writer_yet(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path / "pipe", "-o", tmp_path / "archive") as process:
        until(lambda: holds_open(process, tmp_path / "pipe") and asleep(process), "the pipe waited for")
        end(process, signal.SIGINT, 130)
    assert (tmp_path / "archive").read_bytes() == b""


def holds_open(process, path):
    descriptors = pathlib.Path(f"/proc/{process.pid}/fd")
    with contextlib.suppress(FileNotFoundError):  # one was closed meanwhile
        return str(path) in {os.readlink(link) for link in descriptors.iterdir()}
    return False


@needs_proc
def test_a_second_ctrl_c_ends_it_even_if_nobody_takes_the_archive(tmp_path):
    os.mkfifo(tmp_path / "stuck")
    with (
        started(*LOGS, "-o", tmp_path / "stuck") as process,
        open(tmp_path / "stuck", "rb", buffering=0) as archive,
    ):
        until(lambda: unread(archive) >= 32768, "the pipe so full that the next part does not fit")
        process.send_signal(signal.SIGINT)
        until(lambda: caught(process, signal.SIGINT), "the first Ctrl-C handled")
        process.send_signal(signal.SIGINT)
        leave = threading.Timer(DEADLINE, process.kill)
        leave.start()
        archive.read(10)
        _, err = process.communicate()
        leave.cancel()
    assert process.returncode == 1, err  # what was read is not all written
    assert "Traceback" not in err


# ---- on a terminal -------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments, env=None):
    """Run it with standard error on a terminal; returns what the terminal saw."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    try:
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.DEVNULL, stderr=slave, env={**os.environ, **(env or {})}
        )
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(master, 4096):
                seen += part
        assert process.wait(DEADLINE) == 0, seen
    finally:
        os.close(master)
    return seen.decode()


def test_a_terminal_shows_how_far_it_is(tmp_path):
    seen = on_a_terminal(*LOGS, "-o", tmp_path / "archive")
    assert "merging" in seen
    assert "100%" in seen


def test_quiet_shows_nothing(tmp_path):
    assert on_a_terminal(*LOGS, "-o", tmp_path / "archive", "--quiet") == ""
    done = run(*LOGS, "-o", tmp_path / "archive", "--quiet")
    assert done.stdout == done.stderr == ""


def test_it_works_without_a_progress_bar_library(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ImportError('not installed')")
    seen = on_a_terminal(*LOGS, "-o", tmp_path / "archive", env={"PYTHONPATH": str(tmp_path)})
    assert seen == ""
    assert by_source(tmp_path / "archive") == {log.name: lines_of(log) for log in LOGS}
