"""The native door: `ffi` and `lib`, a cffi view of the C core for programs that work beside Python.

It owns nothing. So far it shows constants of the core's headers, such as `lib.NC_CACHE_LINE`.

Importing it raises ImportError where the door was not built: on free-threaded builds of CPython, which cffi
refuses. The channels themselves work there.
"""

try:
    from ._ffi import ffi, lib
except ImportError as error:
    raise ImportError(
        "nexus_channels was built without its native door: cffi does not support this Python, "
        f"or could not be loaded ({error}). The channels work without it."
    ) from error

__all__ = ["ffi", "lib"]
