"""The names of the sources in the archive, and inputs that cannot be inputs."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["STANDARD", "check_paths", "tags"]

STANDARD = "-"  # the path that stands for standard input or standard output


def tags(paths: Iterable[str]) -> list[bytes]:
    """The shortest ends of the paths that tell them apart, usually the plain file names; no tab or newline in them."""
    parts = [(STANDARD,) if path == STANDARD else Path(os.path.abspath(path)).parts for path in paths]
    shared = Counter(whole[-depth:] for whole in parts for depth in range(1, len(whole) + 1))
    names: list[bytes] = []
    for whole in parts:
        depth = next((d for d in range(1, len(whole)) if shared[whole[-d:]] == 1), len(whole))
        names.append(os.fsencode(os.path.join(*whole[-depth:])))
    return [name.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n") for name in names]


def check_paths(inputs: list[str], output: str) -> None:
    """Raise ValueError where an input is given twice, or would be overwritten."""
    for path, times in Counter(p if p == STANDARD else os.path.abspath(p) for p in inputs).items():
        if times > 1:
            raise ValueError(f"{path} is given {times} times")
    for path in inputs:
        if _same_file(path, output):
            raise ValueError(f"{path} is both an input and the archive")


def _same_file(path: str, output: str) -> bool:
    if STANDARD not in (path, output) and os.path.realpath(path) == os.path.realpath(output):
        # A device or a pipe can be both; a file cannot, not even one that is yet to be made.
        return not os.path.exists(path) or os.path.isfile(path)
    try:
        one, other = (os.fstat(fd) if name == STANDARD else os.stat(name) for name, fd in ((path, 0), (output, 1)))
    except OSError:
        return False
    return os.path.samestat(one, other) and stat.S_ISREG(one.st_mode)
