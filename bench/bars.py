"""What the channels promise to be: ratios to others, which hold on any machine where absolute times do not."""

import sys
from dataclasses import dataclass

from contenders import NEXUS

__all__ = ["BARS", "Bar"]


@dataclass(frozen=True)
class Bar:
    """In `scenario`, each of `ours` takes at most `limit` times as long as `other`."""

    scenario: str
    other: str
    limit: float
    threads: bool = False  # the more threads, the more a busy machine disturbs it
    ours: tuple[str, ...] = tuple(NEXUS)

    def __str__(self) -> str:
        return f"at most {self.limit:.2f} x {self.other}"


SINCE_3_12 = sys.version_info >= (3, 12)  # from then on awaiting a C awaitable raises StopIteration

BARS = [
    Bar("try_pair", "two no-op C methods", 1.4),
    Bar("try_pair", "queue.SimpleQueue", 1.0),
    Bar("await_ready", "asyncio.Queue", 0.40 if SINCE_3_12 else 0.15),
    Bar("pingpong_loop", "asyncio.Queue", 0.75),
    Bar("thread_to_loop", "janus", 1 / 10, threads=True),
    Bar("thread_to_loop", "culsans", 1 / 5, threads=True),
]
