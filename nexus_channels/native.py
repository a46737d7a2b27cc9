"""`ffi` and `lib`: a cffi view of `nexus_channels.h`.

It owns nothing. `lib` has the functions of the header, which release the GIL while they run, and a few constants of
the core. `cast(end)` makes the address of a native end into a cffi pointer. A cffi module of your own gets the types by
`ffi.include(nexus_channels.native.builder())` and the functions by `#include "nexus_channels.h"`, which is found in
`nexus_channels.get_include()`.

::

    end = tx.native()
    sender = ffi.new("nexus_sender **")
    lib.nexus_attach_sender(cast(end), sender)

Importing it raises ImportError where it was not built: on free-threaded CPython 3.13, which cffi
refuses. The channels work there, native ends and `nexus_channels.h` too.
"""

from pathlib import Path
from typing import Any

from . import get_include
from ._core import NativeReceiver, NativeSender

try:
    from ._ffi import ffi, lib
except ImportError as error:
    raise ImportError(
        "nexus_channels.native was not built, as cffi does not support this Python, or cannot be loaded: "
        f"{error}. The channels work without it, and native ends have an `address`."
    ) from error

__all__ = ["NativeReceiver", "NativeSender", "builder", "cast", "ffi", "lib"]


def cast(end: NativeSender | NativeReceiver) -> Any:
    """The address of a native end as a cffi pointer, for nexus_attach_sender or nexus_attach_receiver.

    Keep `end` until a thread has attached: the pointer does not.  Safe from any thread.
    """
    return ffi.cast("void *", end.address)


def builder() -> Any:
    """What the build script of a cffi module of your own includes: a new `cffi.FFI` that declares what `ffi` knows.

    Needs cffi itself, not only what it compiled: ImportError where it is not installed.  Safe from any thread.
    """
    from cffi import FFI

    declarations = FFI()
    declarations.cdef(Path(get_include(), "ffi_cdef.h").read_text())
    declarations.set_source("nexus_channels._ffi", '#include "nexus_channels.h"')
    return declarations
