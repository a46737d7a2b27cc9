"""Lines of logs between programs in C, which know nothing of Python, and this one.

`lines.c` beside this file is built into a temporary folder, which takes a C compiler. Two of it send the lines of a log
each, and this process receives them. Then this process sends the lines of the first log to another one, which writes
them to a file.

    python examples/native/lines.py
    python examples/native/lines.py /var/log/syslog /var/log/messages
"""

import argparse
import pathlib
import shlex
import subprocess
import sysconfig
import tempfile
import threading

import nexus_channels
from nexus_channels import mpsc_bytes, spsc_bytes

HERE = pathlib.Path(__file__).resolve().parent
LOGS = [HERE.parent / "data" / name for name in ("nginx-access.log", "postgresql.log")]
CAPACITY = 1 << 16  # bytes, for each sender


def build(folder: pathlib.Path) -> str:
    include = pathlib.Path(nexus_channels.get_include())
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    sources = [str(HERE / "lines.c"), str(include / "nexus_processes.c")]
    program = str(folder / "lines")
    subprocess.run(
        [*compiler, "-std=c11", "-O2", "-pthread", f"-I{include}", *sources, "-o", program],
        check=True,
    )
    return program


def receive(program: str, path: str, logs: list[pathlib.Path]) -> int:
    """From a program in C for each log: how many lines."""
    with mpsc_bytes.listen(path, CAPACITY) as listener:
        children = [subprocess.Popen([program, "send", path, str(log)], stdout=subprocess.DEVNULL) for log in logs]

        def close() -> None:  # nobody else comes
            for child in children:
                child.wait()
            listener.close()

        threading.Thread(target=close).start()
        lines = sum(1 for _ in listener.receiver)
    failed = sum(child.returncode != 0 for child in children)
    if failed:
        raise SystemExit(f"{failed} of {len(children)} programs failed")
    return lines


def send(program: str, path: str, log: pathlib.Path, archive: pathlib.Path) -> str:
    """To a program in C, which writes them to a file; what it says."""
    child = subprocess.Popen([program, "archive", path, str(archive)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    if child.stdout.readline() != "listening\n":
        raise SystemExit("the program does not listen")
    with spsc_bytes.connect(path) as tx, log.open("rb") as lines:
        for line in lines:
            tx.send_blocking(line)
    said = child.stdout.read()
    child.wait()
    if archive.read_bytes() != log.read_bytes():
        raise SystemExit(f"{archive} is not what was sent")
    return said.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("logs", nargs="*", type=pathlib.Path, default=LOGS)
    logs = parser.parse_args().logs
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = build(folder)
        print(f"{receive(program, str(folder / 'feed'), logs):,} lines from {len(logs)} programs in C")
        print("a program in C:", send(program, str(folder / "archive.sock"), logs[0], folder / "archive"))


if __name__ == "__main__":
    main()
