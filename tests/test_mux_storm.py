"""A week of log rotation in a minute: files are written, renamed, cut, removed and made anew while they are read."""

import collections
import contextlib
import os
import signal
import time

import pytest
from harness import FREE_THREADED, STRESS, seeded, size, takes_long
from muxing import FEW_BYTES, limited, mode, started
from support import DEADLINE, until

FILES = 20
# What is written less than this before a file is cut, removed or renamed again may be lost: a program that is told of
# changes needs some milliseconds, one that looks at intervals 0.2 s, and the machine may be busy.
GRACE = 1.5

# Each on its own in the full size, all at once in the short one. Without a GIL each thread takes much address space.
LIMITS = {"descriptors": {"NOFILE": 32}, "memory": {"AS": FEW_BYTES}, "archive": {}}
if FREE_THREADED:
    del LIMITS["memory"]
TROUBLES = [(), *((name,) for name in LIMITS)] if STRESS else [(), tuple(LIMITS)]


@pytest.fixture(autouse=True, params=[[], ["--bytes"]], ids=["objects", "bytes"])
def _mode(request):
    mode[:] = request.param


class Log:
    """A log whose writer rotates it now and then. Each of its lines is written once."""

    def __init__(self, path):
        self.path = path
        self.lines = 0
        self.rotations = 0
        self.touched = 0.0  # when something happened to it last
        self.fd = self._open()

    def _open(self):
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def close(self):
        os.close(self.fd)

    def write(self, count):
        name = self.path.name.encode()
        lines = range(self.lines, self.lines + count)
        os.write(self.fd, b"".join(b"%s %d of generation %d\n" % (name, n, self.rotations) for n in lines))
        self.lines += count
        self.touched = time.monotonic()

    def rotate(self, how, chance):
        self.rotations += 1
        if how == "cut":
            os.truncate(self.path, 0)
            self.write(chance.choice([0, 1, 300]))
            return
        if how == "rename":
            self.path.rename(self.path.with_name(f"{self.path.name}.{self.rotations}"))
        else:
            self.path.unlink()
        self.write(chance.choice([0, 1]))  # by the old writer
        old, self.fd = self.fd, self._open()
        os.write(old, b"%s %d of generation %d\n" % (self.path.name.encode(), self.lines, self.rotations))  # and again
        self.lines += 1
        os.close(old)
        self.write(chance.choice([0, 1]))


@takes_long(short=120, full=400)
@pytest.mark.parametrize("troubles", TROUBLES, ids=lambda troubles: "+".join(troubles) or "plain")
def test_every_line_of_a_week_of_rotations_is_archived_once(tmp_path, troubles):
    chance = seeded("rotations")
    folder = tmp_path / "logs"
    folder.mkdir()
    logs = [Log(folder / f"{number:02}.log") for number in range(FILES)]
    archives = [tmp_path / "archive"]
    limits = {name: value for trouble in troubles for name, value in LIMITS[trouble].items()}
    kwargs = {"preexec_fn": limited(**limits), "start_new_session": True}
    told = tmp_path / "stderr"
    with (
        told.open("w") as stderr,
        started(*(log.path for log in logs), "-o", archives[0], "-f", "--json", stderr=stderr, **kwargs) as process,
    ):
        until(archives[0].exists, "the archive")
        stop = time.monotonic() + size(5, 60)
        rotated = time.monotonic()
        while time.monotonic() < stop:
            log = chance.choice(logs)
            if log.touched < time.monotonic() - GRACE and log.lines:
                log.rotate(chance.choice(["rename", "remove", "cut"]), chance)
            elif chance.random() < 0.02 or not log.lines:
                log.write(chance.randrange(1, 200))
            if "archive" in troubles and time.monotonic() > rotated + 0.5:
                rotated = time.monotonic()
                archives.append(tmp_path / f"archive.{len(archives)}")
                os.rename(archives[0], archives[-1])
                process.send_signal(signal.SIGHUP)
                until(archives[0].exists, "the new archive")
            time.sleep(0.001)  # the pace of the writers, not a wait for anything
        expected = sum(log.lines for log in logs)
        count = lambda: sum(path.read_bytes().count(b"\n") for path in archives if path.exists())  # noqa: E731
        with contextlib.suppress(AssertionError):  # below it is told which lines are missing
            until(lambda: count() >= expected, "all lines in the archive")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    for log in logs:
        log.close()
    found = collections.Counter()
    for path in archives:
        content = path.read_bytes()
        assert content.endswith(b"\n") or not content
        found.update(content.split(b"\n")[:-1])
    by_log = collections.defaultdict(list)
    for line, times in found.items():
        tag, _, text = line.partition(b"\t")
        assert times == 1, (line, times, told.read_text())
        name, number, _, _, _ = text.split()
        assert name == tag, line
        by_log[name.decode()].append(int(number))
    missing = {log.path.name: sorted(set(range(log.lines)) - set(by_log[log.path.name]))[:9] for log in logs}
    assert {name: lines for name, lines in missing.items() if lines} == {}, told.read_text()
    assert sum(map(len, by_log.values())) == expected
    assert sum(log.rotations for log in logs) > size(10, 100), "rotations enough to tell something"
    assert "replaced" not in told.read_text(), "no rotation was missed"
    assert process.returncode == 143, told.read_text()
