"""`python -m nexus_channels bench`: works from what is installed, without bench/, and says what it found."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from harness import SLOWNESS

from nexus_channels import RecvError, __main__, mpsc
from nexus_channels._programs.bench import command as bench
from nexus_channels._programs.bench.contenders import CONTENDERS, NEXUS, Ends
from nexus_channels._programs.bench.threads import spawn

pytestmark = [pytest.mark.timeout(120 * SLOWNESS), pytest.mark.watchdog(120 * SLOWNESS)]

STANDARD = ["queue.SimpleQueue", "queue.Queue", "asyncio.Queue"]


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(bench, "SHORT", ["try_pair", "pingpong_thread_loop"])


def test_it_prints_a_table_a_scenario(tmp_path):
    command = [sys.executable, "-P", "-m", "nexus_channels", "bench", "--quick"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=110 * SLOWNESS,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n{name}: " in done.stdout for name in bench.SHORT)
    assert all(f"\n{name} " in done.stdout for name in NEXUS + STANDARD)


def test_every_row_has_a_time_a_spread_and_a_ratio(little, capsys):
    assert __main__.main(["bench", "--quick"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nexus_channels.")]
    tables = [row.split() for row in rows if "," not in row.split()[0]]
    assert len(tables) == 3 + 2
    for _, nanoseconds, spread, times in tables:
        assert float(nanoseconds.replace(",", "")) > 0
        assert spread.endswith("%")
        assert float(times) > 0


def test_progress_is_told_step_by_step(little):
    told = []
    for _ in bench.run(quick=True, progress=told.append):
        pass
    assert len(set(told)) == 1
    assert len(told) == told[0]


def test_a_contender_that_fails_its_check_stops_it(little, monkeypatch):
    deque = CONTENDERS["collections.deque"]
    monkeypatch.setitem(
        CONTENDERS,
        deque.name,
        deque._replace(ends=lambda d: Ends(try_send=d.append, try_recv=lambda: d[0])),
    )
    with pytest.raises(AssertionError):
        list(bench.run(quick=True))


def test_what_a_thread_of_it_raises_is_raised():
    def fail():
        raise LookupError("in the thread")

    with pytest.raises(LookupError, match="in the thread"):
        spawn(fail).join()
    assert spawn(divmod, 7, 2).join() == (3, 1)


def test_a_thread_of_it_that_does_not_end_is_named():
    tx, rx = mpsc.channel(1)
    thread = spawn(rx.recv_blocking)
    with pytest.raises(TimeoutError, match="recv_blocking still runs after 0 s"):
        thread.join(timeout=0)
    tx.close()
    with pytest.raises(RecvError):
        thread.join()


def test_a_terminal_sees_a_progress_bar(tmp_path):
    pytest.importorskip("tqdm")
    code = (
        "import sys; from nexus_channels import __main__; from nexus_channels._programs.bench.scenarios import SHORT;"
        "SHORT[1:] = [];"
        "sys.exit(__main__.main(['bench', '--quick']))"
    )
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=inner, stdout=subprocess.PIPE, stderr=inner, cwd=tmp_path
    )
    os.close(inner)
    seen = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is closed says so by an error
        while data := os.read(outer, 4096):
            seen += data
    os.close(outer)
    out, _ = child.communicate(timeout=60 * SLOWNESS)
    assert child.returncode == 0
    assert b"measuring" in seen
    assert b"100%" in seen
    assert b"try_pair: one item" in out
