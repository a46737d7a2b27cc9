"""The log multiplexer among rotations, limits, closed streams and signals, as a service meets them."""

import contextlib
import ctypes
import gc
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from harness import FREE_THREADED
from muxing import (
    FEW_BYTES,
    archived,
    asleep,
    by_source,
    caught,
    command,
    end,
    limited,
    lines_of,
    mode,
    run,
    sorted_by_source,
    started,
)
from support import DEADLINE, until

from nexus_channels import __main__, _core

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at the program through Linux's /proc")


@pytest.fixture(autouse=True, params=[[], ["--bytes"]], ids=["objects", "bytes"])
def _mode(request):
    """Each test runs the program on either kind of channel."""
    mode[:] = request.param


@pytest.fixture(params=["inotify", "intervals"])
def environment(request, tmp_path_factory):
    """The environment of a program that is told of changes, and of one that has to look."""
    if request.param == "inotify":
        pytest.importorskip("inotify_simple", reason="the mux extra has it: pip install '.[mux]'")
        return dict(os.environ)
    folder = tmp_path_factory.mktemp("without")
    (folder / "inotify_simple.py").write_text("raise ImportError('not installed')")
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def told(tmp_path):
    """A file for standard error, and what stands in it."""

    class Told:
        path = tmp_path / "stderr"

        def __init__(self):
            self.file = self.path.open("w")

        def text(self):
            return self.path.read_text()

        def wait_for(self, text, times=1):
            until(lambda: self.text().count(text) >= times, f"{text!r} on standard error")

    told = Told()
    yield told
    told.file.close()
    assert "Traceback" not in told.text()
    assert "Warning" not in told.text()


def append(path, data):
    with open(path, "ab") as file:
        file.write(data)


def numbered(count, width=80):
    return b"".join(b"%08d " % number + b"x" * (width - 10) + b"\n" for number in range(count))


# ---- errors of opening ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obstacle", "text"),
    [
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
    ids=["a link to itself", "a directory"],
)
def test_what_cannot_be_opened_is_tried_again_and_told_at_once(tmp_path, told, environment, obstacle, text):
    log = tmp_path / "a.log"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file, env=environment) as process:
        archived(tmp_path / "archive", 1)
        log.rename(tmp_path / "a.log.1")
        obstacle(log)
        told.wait_for(f"cannot read {log}: {text}; trying again")
        append(tmp_path / "a.log.1", b"2\n")
        archived(tmp_path / "archive", 2)
        log.rename(tmp_path / "obstacle")
        log.write_bytes(b"3\n")
        archived(tmp_path / "archive", 3)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"2", b"3"]}
    assert told.text().count("trying again") == 1, "once a state"
    assert f"{log} can be read now" in told.text()


def test_a_file_without_permission_is_tried_again(tmp_path, told):
    """The superuser may read anything, so the refusal is made by hand."""
    (tmp_path / "a.log").write_bytes(b"1\n")
    (tmp_path / "archive").touch()
    code = (
        "import os, sys; from nexus_channels import __main__; real = os.open\n"
        "def refusing(path, *rest, **named):\n"
        "    if str(path).endswith('a.log') and os.path.exists(path + '.locked'):\n"
        "        raise PermissionError(13, 'no entry')\n"
        "    return real(path, *rest, **named)\n"
        "os.open = refusing; sys.exit(__main__.main(sys.argv[1:]))"
    )
    lock = tmp_path / "a.log.locked"
    lock.touch()
    arguments = ["mux", *mode, tmp_path / "a.log", "-o", tmp_path / "archive", "-f"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=told.file, text=True
    )
    try:
        told.wait_for("a.log: no entry; trying again")
        lock.unlink()
        archived(tmp_path / "archive", 1)
        end(process, signal.SIGTERM, 143)
    finally:
        process.kill()
        process.communicate()
    assert by_source(tmp_path / "archive") == {"a.log": [b"1"]}


def test_a_source_that_still_cannot_be_read_at_the_end_is_a_failure(tmp_path, told):
    (tmp_path / "a.log").mkdir()
    with started(tmp_path / "a.log", "-o", tmp_path / "archive", "-f", stderr=told.file) as process:
        told.wait_for("Is a directory; trying again")
        end(process, signal.SIGINT, 1)


# ---- a stop while it catches up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [["-f"], []], ids=["follow", "once"])
def test_a_stop_is_prompt_and_bounded_and_tells_what_was_not_read(tmp_path, told, follow):
    log, archive = tmp_path / "a.log", tmp_path / "archive"
    block = numbered(100_000)
    with open(log, "wb") as file:
        file.writelines(block for _ in range(60))
    size = log.stat().st_size
    limit = limited(AS=FEW_BYTES)
    with started(log, "-o", archive, *follow, stderr=told.file, preexec_fn=limit) as process:
        until(lambda: archive.exists() and archive.stat().st_size > 0, "something in the archive")
        began = time.monotonic()
        end(process, signal.SIGTERM, 143)
        took = time.monotonic() - began
    unread = int(re.search(r"([\d,]+) bytes were left unread", told.text())[1].replace(",", ""))
    content = archive.read_bytes()
    tag = b"a.log\t"
    assert content.endswith(b"\n")
    assert content.replace(b"\n" + tag, b"\n").removeprefix(tag) == (block * 61)[: size - unread]
    assert unread > size / 10
    assert took < DEADLINE / 4
    assert "every line that was read is in" in told.text()


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "tgkill"), reason="this system cannot signal one thread of another process"
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_that_another_thread_gets_ends_it_all_the_same(tmp_path, environment, number, code):
    """The handler runs in the main thread, and the signal itself does not end that thread's wait. A signal that comes
    just before the wait has the same effect, but a test cannot hit that moment."""
    log = tmp_path / "a.log"
    log.write_bytes(numbered(10))
    with started(log, "-o", tmp_path / "archive", "-f", env=environment) as process:
        archived(tmp_path / "archive", 10)
        threads = pathlib.Path(f"/proc/{process.pid}/task")
        main = threads / str(process.pid) / "stat"
        until(lambda: main.read_text().rpartition(")")[2].split()[0] == "S", "the main thread waits")
        other = next(int(thread.name) for thread in threads.iterdir() if int(thread.name) != process.pid)
        assert ctypes.CDLL(None).tgkill(process.pid, other, number) == 0
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, err
    assert by_source(tmp_path / "archive")["a.log"] == lines_of(log)


# ---- rotations -----------------------------------------------------------------------------------------------------


def test_a_file_that_was_cut_and_filled_again_is_read_from_its_start(tmp_path, told, environment):
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(b"old %d\n" % n for n in range(100)))
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file, env=environment) as process:
        archived(tmp_path / "archive", 100)
        halt(process)
        log.write_bytes(b"".join(b"brand-new %d\n" % n for n in range(100)))
        process.send_signal(signal.SIGCONT)
        archived(tmp_path / "archive", 200)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive")["a.log"][100:] == [b"brand-new %d" % n for n in range(100)]
    assert told.text().count("was cut; reading it from its start") == 1


def test_what_is_lost_because_a_file_was_cut_while_it_was_read_is_told(tmp_path, told, environment):
    """The archive takes nothing, so that the reader is far behind when the file is cut."""
    log = tmp_path / "a.log"
    os.mkfifo(tmp_path / "stuck")
    log.write_bytes(numbered(200_000))
    arguments = (log, "-o", tmp_path / "stuck", "-f", "--json")
    with (
        started(*arguments, stderr=told.file, env=environment) as process,
        open(tmp_path / "stuck", "rb", buffering=0) as archive,
    ):
        assert archive.read(1) == b"a"
        until(lambda: asleep(process), "the pipe and the channel full")
        log.write_bytes(b"new\n")
        content = archive.read(1 << 20)
        while b"\ta.log\tnew\n" not in content and not content.endswith(b"a.log\tnew\n"):
            content += archive.read(1 << 20)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=DEADLINE)
    (source,) = json.loads(out)["sources"]
    assert process.returncode == 1
    part = [line for line in content.split(b"\n") if line.startswith(b"a.log\\+")]
    read = (source["lines_read"] - 1) * 80 + sum(len(line) - len(b"a.log\\+\t") for line in part)
    assert source["bytes_unread"] == 200_000 * 80 - read
    assert f"{source['bytes_unread']:,} bytes of it were not read" in told.text()


def test_a_line_whose_end_was_cut_off_is_no_whole_line(tmp_path, environment):
    log = tmp_path / "a.log"
    log.write_bytes(b"whole\nhal")
    with started(log, "-o", tmp_path / "archive", "-f", env=environment) as process:
        archived(tmp_path / "archive", 1)
        log.write_bytes(b"new\n")
        archived(tmp_path / "archive", 3)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"whole", b"new"], "a.log\\+": [b"hal"]}


def test_what_is_written_to_a_renamed_file_is_archived_also_when_the_new_one_is_there(tmp_path, environment):
    log, old = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "-f", env=environment) as process:
        archived(tmp_path / "archive", 1)
        log.rename(old)
        append(old, b"2\n")
        archived(tmp_path / "archive", 2)
        log.write_bytes(b"3\n")
        archived(tmp_path / "archive", 3)
        append(old, b"4\n")  # its writer has not been told yet
        archived(tmp_path / "archive", 4)
        append(log, b"5\n")
        archived(tmp_path / "archive", 5)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"2", b"3", b"4", b"5"]}


def test_a_removed_file_is_read_until_its_writer_is_gone(tmp_path, environment):
    log = tmp_path / "a.log"
    with open(log, "wb", buffering=0) as writer:
        writer.write(b"1\n")
        with started(log, "-o", tmp_path / "archive", "-f", env=environment) as process:
            archived(tmp_path / "archive", 1)
            log.unlink()
            writer.write(b"2\n")
            archived(tmp_path / "archive", 2)
            log.write_bytes(b"3\n")
            archived(tmp_path / "archive", 3)
            end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"2", b"3"]}


def test_a_file_that_gets_its_name_back_is_not_read_twice(tmp_path, environment):
    log, old = tmp_path / "a.log", tmp_path / "a.log.1"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "-f", env=environment) as process:
        archived(tmp_path / "archive", 1)
        log.rename(old)
        log.write_bytes(b"2\n")
        archived(tmp_path / "archive", 2)
        os.replace(old, log)
        append(log, b"3\n")
        archived(tmp_path / "archive", 3)
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"2", b"3"]}


def halt(process):
    """Stop it, and wait until each of its threads stands: one may still be at work when the signal was sent."""
    process.send_signal(signal.SIGSTOP)
    threads = pathlib.Path(f"/proc/{process.pid}/task")
    until(
        lambda: all(re.search(r"^State:\s+T", (at / "status").read_text(), re.MULTILINE) for at in threads.iterdir()),
        "all threads stopped",
    )


def test_two_rotations_between_two_looks_are_noticed_and_told(tmp_path, told, environment):
    log = tmp_path / "a.log"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file, env=environment) as process:
        archived(tmp_path / "archive", 1)
        halt(process)
        log.rename(tmp_path / "a.log.2")
        log.write_bytes(b"never seen\n")
        log.rename(tmp_path / "a.log.1")
        log.write_bytes(b"3\n")
        process.send_signal(signal.SIGCONT)
        archived(tmp_path / "archive", 2)
        told.wait_for(f"{log} was replaced twice between two looks; {log}.1 was not read")
        end(process, signal.SIGINT, 1)
    assert by_source(tmp_path / "archive") == {"a.log": [b"1", b"3"]}


def test_a_file_that_came_and_went_between_two_looks_is_noticed_where_the_system_tells(tmp_path, told):
    pytest.importorskip("inotify_simple", reason="the mux extra has it: pip install '.[mux]'")
    log = tmp_path / "a.log"
    log.write_bytes(b"1\n")
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file) as process:
        archived(tmp_path / "archive", 1)
        halt(process)
        log.rename(tmp_path / "a.log.1")
        log.write_bytes(b"never seen\n")
        log.unlink()
        log.write_bytes(b"3\n")
        process.send_signal(signal.SIGCONT)
        archived(tmp_path / "archive", 2)
        told.wait_for(f"{log} was replaced 2 times between two looks")
        end(process, signal.SIGINT, 1)


def test_a_usual_rotation_is_no_error(tmp_path, told, environment):
    log = tmp_path / "a.log"
    log.write_bytes(b"0\n")
    (tmp_path / "a.log.1").write_bytes(b"older\n")
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file, env=environment) as process:
        for number in range(1, 4):
            archived(tmp_path / "archive", number)
            (tmp_path / "a.log.1").rename(tmp_path / "a.log.2")
            (tmp_path / "a.log.2.gz").write_bytes((tmp_path / "a.log.2").read_bytes())
            log.rename(tmp_path / "a.log.1")
            log.write_bytes(b"%d\n" % number)
        archived(tmp_path / "archive", 4)
        end(process, signal.SIGINT, 130)
    assert "replaced" not in told.text()
    assert by_source(tmp_path / "archive") == {"a.log": [b"0", b"1", b"2", b"3"]}


@needs_proc
def test_a_file_of_proc_is_read_once(tmp_path):
    done = run("/proc/filesystems", "-o", tmp_path / "archive", "-f")
    assert by_source(tmp_path / "archive") == {"filesystems": lines_of(pathlib.Path("/proc/filesystems"))}
    assert "/proc/filesystems has no size: it was read once and is not followed" in done.stderr


def test_a_followed_path_that_leads_to_the_archive_is_not_read(tmp_path, told):
    log = tmp_path / "a.log"
    with started(log, "-o", tmp_path / "archive", "-f", stderr=told.file) as process:
        until((tmp_path / "archive").exists)
        log.symlink_to("archive")
        told.wait_for("it is the archive; trying again")
        end(process, signal.SIGINT, 1)
    assert (tmp_path / "archive").read_bytes() == b""


# ---- streams that are closed or replaced ---------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_closed_standard_streams_are_no_obstacle(tmp_path, closed):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\n")

    def close():
        for number in closed:
            os.close(number)

    run(tmp_path / "a.log", "-o", tmp_path / "archive", stdout=None, stderr=None, preexec_fn=close)
    assert by_source(tmp_path / "archive") == {"a.log": [b"one", b"two"]}
    run(tmp_path / "missing.log", "-o", tmp_path / "archive", stdout=None, stderr=None, preexec_fn=close, code=1)
    assert (tmp_path / "archive").read_bytes() == b"", "no message in it, though it might have had descriptor 1 or 2"


def test_it_runs_where_the_streams_are_no_files(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\n")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert __main__.main(["mux", *mode, str(tmp_path / "a.log"), "-o", str(tmp_path / "archive")]) == 0
        assert __main__.main(["mux", *mode, str(tmp_path / "missing"), "-o", str(tmp_path / "other")]) == 1
    assert "2 lines in" in out.getvalue()
    assert "missing: No such file" in err.getvalue()


def test_what_it_changes_in_the_process_is_put_back(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\n")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGURG)
    usual = [signal.signal(number, lambda *_: None) for number in numbers]
    threshold = gc.get_threshold()
    gc.set_threshold(701, 11, 12)
    ours = gc.get_threshold()  # 3.14 has no third number
    try:
        before = [signal.getsignal(number) for number in numbers]
        assert __main__.main(["mux", *mode, str(tmp_path / "a.log"), "-o", str(tmp_path / "archive")]) == 0
        assert [signal.getsignal(number) for number in numbers] == before
        assert gc.get_threshold() == ours
    finally:
        gc.set_threshold(*threshold)
        for number, handler in zip(numbers, usual, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_of_the_summary_or_the_messages_may_go_away(tmp_path, stream):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\n")
    reader, writer = os.pipe()
    os.close(reader)
    code = 0 if stream == "stdout" else 1
    files = [tmp_path / "a.log"] + [tmp_path / "missing.log"] * code
    done = run(*files, "-o", tmp_path / "archive", code=code, **{stream: writer})
    os.close(writer)
    assert not done.stderr
    assert by_source(tmp_path / "archive") == {"a.log": [b"one", b"two"]}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_summary_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    with open("/dev/full", "w") as full:
        done = run(tmp_path / "a.log", "-o", tmp_path / "archive", code=1, stdout=full)
    assert "cannot write the summary: No space left on device" in done.stderr


def test_standard_input_is_a_source_and_standard_output_an_archive(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    (tmp_path / "-").write_bytes(b"a file\n")
    (tmp_path / "input").write_bytes(b"two\nthree")
    with open(tmp_path / "input") as given:
        done = run("a.log", "-", "./-", "-o", "-", stdin=given, cwd=tmp_path)
    folder = tmp_path.name
    assert sorted_by_source(done.stdout.encode()) == {
        "a.log": [b"one"],
        "-": [b"two", b"three"],
        f"{folder}/-": [b"a file"],
    }
    assert "4 lines in" in done.stderr, "the summary is not in the archive"


@pytest.mark.parametrize(("closed", "files"), [(1, ["a.log"]), (0, ["-"])], ids=["stdout", "stdin"])
def test_a_closed_stream_cannot_be_what_is_read_or_written(tmp_path, closed, files):
    (tmp_path / "a.log").write_bytes(b"one\n")
    kwargs = {"stdin": None, "stdout": None, "preexec_fn": lambda: os.close(closed)}
    output = "-" if closed == 1 else "archive"
    done = run(*files, "-o", output, code=2, cwd=tmp_path, **kwargs)
    assert "is closed" in done.stderr


def test_an_input_that_is_also_standard_output_is_refused(tmp_path):
    (tmp_path / "a.log").write_bytes(b"precious\n")
    with open(tmp_path / "a.log", "a") as out:
        done = run(tmp_path / "a.log", "-o", "-", code=2, stdout=out)
    assert "both an input and the archive" in done.stderr
    assert (tmp_path / "a.log").read_bytes() == b"precious\n"


def test_a_reader_of_the_archive_that_goes_away_is_told_and_counted(tmp_path):
    (tmp_path / "a.log").write_bytes(numbered(200_000))
    with started(tmp_path / "a.log", "-o", "-") as process:
        assert process.stdout.readline() == "a.log\t" + numbered(1).decode()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(DEADLINE) == 1
    assert "cannot write -: Broken pipe" in err
    assert re.search(r"[\d,]+ lines are in -; [\d,]+ that were read are not; [\d,]+ bytes were left unread", err)
    assert "Traceback" not in err


# ---- limits --------------------------------------------------------------------------------------------------------


def test_more_files_than_descriptors_are_read_in_turn(tmp_path):
    """Each of them is so large that its reader waits for room, and so holds its descriptor, while others begin."""
    files = [tmp_path / f"{number:03}.log" for number in range(100)]
    for path in files:
        path.write_bytes(numbered(1000))
    limit = limited(NOFILE=40)
    done = run(*files, "-o", tmp_path / "archive", "-q", "--capacity", 1024, preexec_fn=limit)
    assert done.stderr == ""
    assert by_source(tmp_path / "archive") == {path.name: lines_of(path) for path in files}


def test_more_files_than_descriptors_are_told_and_tried_again_while_following(tmp_path, told):
    files = [tmp_path / f"{number:03}.log" for number in range(60)]
    for path in files:
        path.write_bytes(b"one\n")
    limit = limited(NOFILE=40)
    with started(*files, "-o", tmp_path / "archive", "-f", "-q", stderr=told.file, preexec_fn=limit) as process:
        told.wait_for("Too many open files; trying again")
        for least in (15, 30, 45, 60):
            archived(tmp_path / "archive", least)
            for path in by_source(tmp_path / "archive"):
                (tmp_path / path).unlink(missing_ok=True)  # and its descriptor is another's
        end(process, signal.SIGINT, 130)
    assert by_source(tmp_path / "archive") == {path.name: [b"one"] for path in files}


def test_too_few_descriptors_to_begin_with_are_told(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    code = (
        "import resource, sys; from nexus_channels import __main__; import asyncio.events, asyncio.unix_events\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)); sys.exit(__main__.main(sys.argv[1:]))"
    )
    arguments = ["mux", *mode, tmp_path / "a.log", "-o", tmp_path / "archive"]
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_a_hole_takes_little_memory_and_is_archived_in_parts(tmp_path):
    size = 300 << 20
    with open(tmp_path / "a.log", "wb") as file:
        file.write(b"before\n")
        file.seek(size, os.SEEK_CUR)
        file.write(b"\nafter\n")
    done = run(tmp_path / "a.log", "-o", tmp_path / "archive", "--json", preexec_fn=limited(AS=FEW_BYTES))
    (source,) = json.loads(done.stdout)["sources"]
    assert (source["lines_archived"], source["parts_archived"]) == (3, 299)
    with open(tmp_path / "archive", "rb") as archive:
        archived = list(archive)
    assert {line[:8] for line in archived[1:300]} == {b"a.log\\+\t"}
    assert [line[6:] for line in (archived[0], archived[-1])] == [b"before\n", b"after\n"]
    assert sum(line.count(b"\0") for line in archived) == size


@pytest.mark.skipif(FREE_THREADED, reason="each thread takes much of it there, and Thread.start() hangs without")
def test_it_follows_many_files_in_a_small_address_space(tmp_path):
    files = [tmp_path / f"{number:02}.log" for number in range(20)]
    for path in files:
        path.write_bytes(numbered(2000))
    limit = limited(AS=FEW_BYTES)
    with started(*files, "-o", tmp_path / "archive", "-f", preexec_fn=limit) as process:
        archived(tmp_path / "archive", 40_000)
        _, err = end(process, signal.SIGTERM, 143)
    assert "memory" not in err
    assert "thread" not in err


# ---- the archive ---------------------------------------------------------------------------------------------------


def test_the_archive_may_be_renamed_and_is_opened_anew_at_a_hang_up(tmp_path):
    log, archive, old = tmp_path / "a.log", tmp_path / "archive", tmp_path / "archive.1"
    log.write_bytes(b"1\n")
    with started(log, "-o", archive, "-f", start_new_session=True) as process:
        archived(archive, 1)
        archive.rename(old)
        append(log, b"2\n")
        archived(old, 2)
        process.send_signal(signal.SIGHUP)
        until(archive.exists, "the new archive, though nothing comes to be written")
        append(log, b"3\n")
        archived(archive, 1)
        end(process, signal.SIGTERM, 143)
    assert by_source(old) == {"a.log": [b"1", b"2"]}
    assert by_source(archive) == {"a.log": [b"3"]}


def test_an_archive_that_cannot_be_opened_anew_is_written_on(tmp_path, told):
    log, folder = tmp_path / "a.log", tmp_path / "folder"
    folder.mkdir()
    log.write_bytes(b"1\n")
    arguments = (log, "-o", folder / "archive", "-f")
    with started(*arguments, stderr=told.file, start_new_session=True) as process:
        archived(folder / "archive", 1)
        folder.rename(tmp_path / "old")
        process.send_signal(signal.SIGHUP)
        told.wait_for("writing on to the old file")
        append(log, b"2\n")
        archived(tmp_path / "old" / "archive", 2)
        end(process, signal.SIGTERM, 143)


def test_the_archive_may_be_copied_and_cut(tmp_path):
    log, archive = tmp_path / "a.log", tmp_path / "archive"
    log.write_bytes(b"1\n")
    with started(log, "-o", archive, "-f") as process:
        archived(archive, 1)
        os.truncate(archive, 0)
        append(log, b"2\n")
        archived(archive, 1)
        end(process, signal.SIGTERM, 143)
    assert archive.read_bytes() == b"a.log\t2\n", "no hole"


def test_a_full_disk_leaves_whole_lines_and_tells_what_is_missing(tmp_path):
    log, archive = tmp_path / "a.log", tmp_path / "archive"
    log.write_bytes(numbered(10_000))
    done = run(log, "-o", archive, "--json", code=1, preexec_fn=limited(FSIZE=100_001))
    (source,) = json.loads(done.stdout)["sources"]
    assert by_source(archive) == {"a.log": lines_of(log)[: source["lines_archived"]]}
    assert 99_900 < archive.stat().st_size <= 100_001
    lost = source["lines_read"] - source["lines_archived"]
    assert "cannot write" in done.stderr
    assert f"{source['lines_archived']:,} lines are in {archive}; {lost:,} that were read are not" in done.stderr
    read = source["lines_read"] * 80
    assert source["bytes_unread"] == log.stat().st_size - read


# ---- signals -------------------------------------------------------------------------------------------------------


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path):
    log = tmp_path / "a.log"
    log.write_bytes(b"1\n")

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(log, "-o", tmp_path / "archive", "-f", preexec_fn=ignore) as process:
        archived(tmp_path / "archive", 1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        append(log, b"2\n")
        archived(tmp_path / "archive", 2)
        end(process, signal.SIGTERM, 143)


def test_two_kinds_of_stop_at_once_are_one(tmp_path, told):
    log = tmp_path / "a.log"
    log.write_bytes(numbered(300_000))
    with started(log, "-o", tmp_path / "archive", "--json", stderr=told.file) as process:
        until(lambda: (tmp_path / "archive").exists() and (tmp_path / "archive").stat().st_size > 0)
        halt(process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode in (130, 143)
    (source,) = json.loads(out)["sources"]
    assert by_source(tmp_path / "archive") == {"a.log": lines_of(log)[: source["lines_archived"]]}
    assert source["lines_read"] == source["lines_archived"]


def test_a_stop_while_nobody_opens_the_archive_ends_it(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path / "a.log", "-o", tmp_path / "pipe") as process:
        status = pathlib.Path(f"/proc/{process.pid}/status")
        until(lambda: int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16) >> 14 & 1, "the handlers")
        end(process, signal.SIGTERM, 143)


SIGNALLED_WHILE_OPENING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The last moment before the program waits: the handler in C has run, that in Python has not. */
static int late(const char *symbol, const char *path, int flags, mode_t mode)
{
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, "/pipe") == 0)
        kill(getpid(), SIGTERM);
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, symbol))(path, flags, mode);
}
int open(const char *path, int flags, mode_t mode) { return late("open", path, flags, mode); }
int open64(const char *path, int flags, mode_t mode) { return late("open64", path, flags, mode); }
"""


@needs_proc
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(bool(_core.build_info()["sanitizer"]), reason="its runtime is to be loaded first")
def test_a_stop_that_comes_just_before_the_archive_waits_for_its_reader_ends_it(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "late.c").write_text(SIGNALLED_WHILE_OPENING, encoding="utf-8")
    build = ["cc", "-shared", "-fPIC", "-w", "-o", str(tmp_path / "late.so"), str(tmp_path / "late.c"), "-ldl"]
    subprocess.run(build, check=True, timeout=DEADLINE)
    late = {**os.environ, "LD_PRELOAD": str(tmp_path / "late.so")}
    done = run(tmp_path / "a.log", "-o", tmp_path / "pipe", code=143, env=late)
    assert "SIGTERM" in done.stderr


SIGNALLED_EARLY = """
import os, signal, sys
from nexus_channels import __main__
usual = signal.signal

def set_late(number, handler):
    if number == signal.SIGTERM and callable(handler):
        os.kill(os.getpid(), number)
    return usual(number, handler)

signal.signal = set_late
sys.exit(__main__.main(["mux", *sys.argv[1:]]))
"""


def test_a_signal_that_comes_while_its_handler_is_being_set_is_a_stop(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\n")
    command = [sys.executable, "-P", "-c", SIGNALLED_EARLY, *mode, str(tmp_path / "a.log"), "-o", str(tmp_path / "all")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 143, done.stderr
    assert "SIGTERM" in done.stderr


def test_a_second_signal_tells_what_it_cost(tmp_path):
    (tmp_path / "a.log").write_bytes(numbered(5000))
    os.mkfifo(tmp_path / "stuck")
    with (
        started(tmp_path / "a.log", "-o", tmp_path / "stuck", "--json") as process,
        open(tmp_path / "stuck", "rb", buffering=0) as archive,
    ):
        assert archive.read(1) == b"a"
        for _ in range(2):
            until(lambda: caught(process, signal.SIGTERM), "the pipe full, or the first signal handled")
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)
        took = (b"a" + archive.read()).count(b"\n")
    (source,) = json.loads(out)["sources"]
    assert process.returncode == 1
    assert source["lines_archived"] == took < source["lines_read"]
    assert f"{took:,} lines are in {tmp_path}/stuck" in err


# ---- the summary ---------------------------------------------------------------------------------------------------


def test_the_summary_for_programs_tells_all(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\n")
    done = run(tmp_path / "a.log", tmp_path / "missing.log", "-o", tmp_path / "archive", "--json", code=1)
    told = json.loads(done.stdout)
    good, bad = told.pop("sources")
    assert told.pop("seconds") > 0
    assert told == {
        "archive": str(tmp_path / "archive"),
        "archive_error": None,
        "archive_reopened": 0,
        "signal": None,
        "forced": False,
        "exit_status": 1,
    }
    assert good == {
        "path": str(tmp_path / "a.log"),
        "tag": "a.log",
        "lines_read": 2,
        "lines_archived": 2,
        "parts_archived": 0,
        "bytes_unread": 0,
        "held_back": 0,
        "failed": False,
        "error_count": 0,
        "errors": [],
    }
    assert bad["failed"]
    assert abs(bad["errors"][0]["time"] - time.time()) < 60
    assert bad["errors"][0]["text"].endswith("missing.log: No such file or directory")


def test_errors_that_repeat_for_days_take_no_memory():
    from nexus_channels._programs.mux.files import KEPT, Account

    account = Account("path", lambda text: None)
    for number in range(10 * KEPT):
        account.error(f"error {number}")
    assert account.error_count == 10 * KEPT
    assert len(account.errors) == KEPT


def test_help_tells_the_exit_status_and_an_example_for_each_use():
    done = run("--help")
    for text in ("exit status:", "130", "143", " -f ", "--bytes", "zcat", "-o -", "--json", "kill -HUP"):
        assert text in done.stdout


def test_the_page_names_every_option():
    page = pathlib.Path(__file__).parent.parent / "docs" / "mux.md"
    if not page.exists():
        pytest.skip("the tests lie beside no source tree")
    options = set(
        re.findall(
            r"(?<!\w)--?[a-z]\w*",
            subprocess.run(command("--help"), capture_output=True, text=True, check=True)
            .stdout.partition("options:")[2]
            .partition("examples:")[0],
        )
    )
    assert {option for option in options if f"`{option}" not in page.read_text()} == set()
