"""Interpreters beside the one that runs, on any version that has them.

For children of tests (harness.run_child) alone: the first releases of 3.12 corrupt memory when `ssl`, which asyncio
would import, was imported in two interpreters of a process. It is kept out here, in both.
"""

import sys

BEFORE = (
    "import sys\nsys.modules['ssl'] = sys.modules['_ssl'] = None\n" if sys.version_info < (3, 13) else "import sys\n"
)
exec(BEFORE)  # in this interpreter too

from support import Spawned  # noqa: E402

if sys.version_info >= (3, 13):
    import _interpreters
else:
    import _xxsubinterpreters as _interpreters

OWN_GIL = sys.version_info >= (3, 12)


class Interpreter:
    """One with a GIL of its own, where there are such. `run()` raises what the source raised, as an AssertionError."""

    def __init__(self, legacy=False):
        if sys.version_info >= (3, 13):
            self.number = _interpreters.create("legacy" if legacy else "isolated", reqrefs=False)
        else:
            self.number = _interpreters.create(isolated=not legacy)
        self.run("import threading")  # takes the thread that will destroy the interpreter for the main one

    def run(self, source, **values):
        """`values` are there by name: bytes, str, numbers; of tickets the bytes, and they are held meanwhile."""
        plain = {name: v if isinstance(v, bytes | str | int | float) else bytes(v) for name, v in values.items()}
        source = BEFORE + "".join(f"{name} = {value!r}\n" for name, value in plain.items()) + source
        if sys.version_info >= (3, 13):
            failed = _interpreters.exec(self.number, source)
            assert failed is None, failed.errdisplay
        else:
            _interpreters.run_string(self.number, source)

    def start(self, source, **values):
        """The same in a thread of its own."""
        return Spawned(self.run, source, **values)

    def destroy(self):
        _interpreters.destroy(self.number)
