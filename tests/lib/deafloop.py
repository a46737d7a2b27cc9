"""An asyncio loop without `add_reader`, as on Windows: it has no wake descriptor on any build."""

import asyncio
import os
import threading


class DeafLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        self.foreign = 0  # calls of call_soon_threadsafe

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError

    def call_soon_threadsafe(self, callback, *args, **kwargs):
        self.foreign += 1
        return super().call_soon_threadsafe(callback, *args, **kwargs)


def run_deaf(main, loop=None):
    """asyncio.run() on such a loop."""
    with asyncio.Runner(loop_factory=DeafLoop if loop is None else lambda: loop) as runner:
        return runner.run(main)


def threads():
    """The threads of the process, also those that Python did not start."""
    return len(os.listdir("/proc/self/task"))


def others():
    """Those of them that Python does not know."""
    return threads() - threading.active_count()
