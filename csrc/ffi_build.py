"""Builds the cffi door, `nexus_channels._ffi`, from the declarations beside this file. Run by setup.py."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffi = FFI()
ffi.cdef((HERE / "ffi_cdef.h").read_text())
ffi.set_source("nexus_channels._ffi", '#include "nc_base.h"\n#include "nexus_channels.h"', include_dirs=[str(HERE)])
