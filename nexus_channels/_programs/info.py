"""`python -m nexus_channels info`: how this copy was built, and what it can do here."""

import argparse
import asyncio
import importlib.metadata
import platform
import sys
import sysconfig

from .. import __version__
from .._core import build_info

__all__ = ["main"]


def main(_options: argparse.Namespace) -> int:
    build = build_info()
    readers_missing = build["wake"] == "call_soon_threadsafe"
    rows = {
        "nexus_channels": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}, {sysconfig.get_platform()}",
        "free-threaded": _free_threaded(bool(build["free_threaded"])),
        "compiler": build["compiler"],
        "flags": build["flags"] or "not recorded",
        "debug": "assertions on" if build["debug"] else "no",
        "sanitizer": build["sanitizer"] or "none",
        "atomics": "lock-free" if build["atomics_lock_free"] else "emulated by locks",
        "wake-up": build["wake"] if readers_missing else f"{build['wake']}, one for each loop",
        "insides": ", ".join(build["insides"]) or "none is read",
        "event loops": _event_loops(readers=not readers_missing),
        "native module": _native_module(),
    }
    for name, value in rows.items():
        print(f"{name:<15} {value}")
    return 0


def _free_threaded(built: bool) -> str:
    if not built:
        return "no"
    enabled = sys._is_gil_enabled()  # type: ignore[attr-defined]  # there since 3.13, as are such builds
    return "yes, but the GIL was turned on" if enabled else "yes, running without the GIL"


def _event_loops(readers: bool) -> str:
    loop = asyncio.new_event_loop()
    loop.close()
    how = "woken by a reader" if readers and hasattr(loop, "add_reader") else "woken by call_soon_threadsafe"
    return f"{type(loop).__name__} ({how}); trio {_installed('trio')}; uvloop {_installed('uvloop')}"


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _native_module() -> str:
    try:
        from .. import native
    except ImportError as error:
        return f"not built: {error.__cause__ or error}"
    return f"built, cache line {native.lib.NC_CACHE_LINE} bytes"
