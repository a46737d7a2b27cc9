"""What the channels promise to be: ratios to others, which hold on any machine where absolute times do not."""

import sys
import sysconfig
from dataclasses import dataclass

from contenders import NEXUS

__all__ = ["BARS", "Bar"]

MINOR = sys.version_info[1]
WITH_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


@dataclass(frozen=True)
class Bar:
    """In `scenario`, each of our own takes at most `limit` times as long as `other`."""

    scenario: str
    other: str
    limit: float
    minors: tuple[int, ...] = (11,)  # the 3.x that it was set on; others are slower or faster on others
    threads: bool = False  # the more threads, the more a busy machine disturbs it

    @property
    def applies(self) -> bool:
        return WITH_GIL and MINOR in self.minors

    @property
    def ours(self) -> list[str]:
        return [name for name in NEXUS if not (self.threads and name.endswith("local"))]

    def __str__(self) -> str:
        return f"at most {self.limit:.2f} x {self.other}"


BARS = [
    Bar("try_pair", "two no-op C methods", 1.4),
    Bar("try_pair", "queue.SimpleQueue", 1.0),
    Bar("await_ready", "asyncio.Queue", 0.15),
    Bar("await_ready", "asyncio.Queue", 0.40, minors=(12, 13)),  # where a result travels as a StopIteration
    Bar("pingpong_loop", "asyncio.Queue", 0.75),
    Bar("thread_to_loop", "janus", 1 / 10, minors=(11, 12, 13), threads=True),
    Bar("thread_to_loop", "culsans", 1 / 5, minors=(11, 12, 13), threads=True),
]
