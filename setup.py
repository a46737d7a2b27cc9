"""What pyproject.toml cannot say: the native modules, how they are compiled, and what depends on the interpreter.

Environment switches, each on when set to anything but "" or "0":

    NEXUS_CHANNELS_DEBUG      -O0 -g, assertions on
    NEXUS_CHANNELS_COVERAGE   the same, counting lines for gcov
    NEXUS_CHANNELS_ASAN       AddressSanitizer and UndefinedBehaviorSanitizer
    NEXUS_CHANNELS_TSAN       ThreadSanitizer
    NEXUS_CHANNELS_WERROR     warnings are errors
    NEXUS_CHANNELS_PORTABLE   nothing that only Linux has, to try there what other systems get: as on Windows, where
                              event loops are woken by call_soon_threadsafe; or, if set to "pipes", as on macOS
"""

import os
import sys
import sysconfig
import tempfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

# Free-threaded 3.13 was an experiment. We publish no wheel for it, nor do many others; what cannot be had there is left
# out. All other interpreters get the same metadata, so that a lock file holds for all of them.
EXPERIMENT = bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14)
HAS_DOOR = not EXPERIMENT  # cffi refuses it; everything else builds there and works without

CFFI = [] if EXPERIMENT else ["cffi>=1.16"]
UVLOOP = [] if EXPERIMENT else ["uvloop>=0.19; sys_platform != 'win32'"]
NUMPY = [] if EXPERIMENT else ["numpy>=1.26"]
HYPOTHESIS = "hypothesis>=6.100,<6.140" if EXPERIMENT else "hypothesis>=6.100"  # later ones need a Rust build there
MYPY = [] if EXPERIMENT else ["mypy>=1.13"]
TQDM = "tqdm>=4.66"
TRIO = "trio>=0.27"
INOTIFY = "inotify-simple>=2; sys_platform == 'linux'"  # plain Python, for any build of it

ANYIO = "anyio>=4.6"
CYTHON = "cython>=3.0"

EXTRAS = {
    "anyio": [ANYIO],
    "mux": [INOTIFY, TQDM],
    "native": [CYTHON],
    "test": [
        "anyio>=4.16",  # whose own tests are run; the streams work with earlier ones
        "build>=1.2",
        CYTHON,
        HYPOTHESIS,
        INOTIFY,
        "pytest>=8.3",
        "pytest-benchmark>=5.1",
        "pytest-timeout>=2.3",
        "python-json-logger>=3.2",
        "setuptools>=77",
        "structlog>=24",
        TQDM,
        TRIO,
        "websockets>=14",
        *MYPY,
        *NUMPY,
        *UVLOOP,
    ],
    "bench": [
        "aiologic>=0.13",
        ANYIO,
        "culsans>=0.7",
        "janus>=2",
        "loguru>=0.7",
        "matplotlib>=3.9",
        "pytest-benchmark>=5.1",
        "pyzmq>=26",
        TQDM,
        TRIO,
        *UVLOOP,
    ],
    "docs": [ANYIO, "furo>=2025.7", "myst-parser>=4", "sphinx>=8.1", "sphinx-copybutton>=0.5.2", "sphinx-design>=0.6"],
    # Formatters are pinned: another version has another opinion.
    "dev": [
        ANYIO,
        "build>=1.2",
        "clang-format==23.1.5",
        "codespell>=2.3",
        "mypy>=1.13",
        "pre-commit>=4",
        "pyright>=1.1.414",
        "ruff==0.17.6",
    ],
}


def switched_on(name: str) -> bool:
    return os.environ.get(f"NEXUS_CHANNELS_{name}", "0") not in ("", "0")


def flags() -> tuple[list[str], list[str]]:
    """What to compile and to link with."""
    instruments = []
    if switched_on("COVERAGE"):
        instruments += ["--coverage", "-fprofile-update=atomic"]  # threads count, too
    if switched_on("ASAN"):
        instruments += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    if switched_on("TSAN"):
        instruments.append("-fsanitize=thread")

    if switched_on("DEBUG") or switched_on("COVERAGE"):
        level = ["-O0", "-g"]
    elif instruments:
        level = ["-O1", "-g", "-fno-omit-frame-pointer"]
    else:
        level = ["-O3"]
    # Python's own flags come first and may say either; a debug interpreter wants its assertions everywhere.
    asserting = "-g" in level or bool(sysconfig.get_config_var("Py_DEBUG"))
    level.append("-UNDEBUG" if asserting else "-DNDEBUG")

    choices = []
    if switched_on("PORTABLE"):
        choices.append("-DNC_PORTABLE")
        if os.environ["NEXUS_CHANNELS_PORTABLE"] != "pipes":
            choices.append("-DNC_NO_READERS")
    warnings = ["-Wall", "-Wextra"] + (["-Werror"] if switched_on("WERROR") else [])
    return [*level, "-std=c11", "-fvisibility=hidden", *choices, *warnings, *instruments], instruments


PROBE = """
#include <Python.h>
#include <stdatomic.h>
static _Atomic int works = 1;
int probe(void) { return atomic_load_explicit(&works, memory_order_acquire) + PY_MAJOR_VERSION; }
"""

NO_COMPILER = """

nexus_channels is written in C and needs a C11 compiler and the header files of this Python to build,
and a test program did not compile: {error}

Install a compiler and the headers, e.g.
    Debian, Ubuntu    apt-get install gcc python3-dev
    Fedora            dnf install gcc python3-devel
    Alpine            apk add gcc musl-dev python3-dev
    macOS             xcode-select --install
or, if you have a compiler, say where it is: CC=/path/to/cc pip install ...
"""


class build_ext_c11(build_ext):  # noqa: N801 - commands are named like this
    """Every native module, the one that cffi writes included, is compiled alike; a missing compiler is told plainly."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # objects of an earlier build may have been made with other switches, and do not tell

    def build_extensions(self) -> None:
        compile_args, link_args = flags()
        self._probe()
        for extension in self.extensions:
            extension.extra_compile_args += compile_args
            extension.extra_link_args += link_args
            extension.define_macros.append(("NC_BUILD_FLAGS", f'"{" ".join(compile_args)}"'))
        super().build_extensions()

    def _probe(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(PROBE)
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-std=c11"])
            except Exception as error:  # each compiler class has errors of its own
                raise CompileError(NO_COMPILER.format(error=error)) from None


class build_py_with_headers(build_py):  # noqa: N801
    """The wheel carries the C headers, and a C file for programs, in `nexus_channels/include`; not checked in twice."""

    def _headers(self) -> list[tuple[str, str]]:
        if getattr(self, "editable_mode", False):
            return []  # used from where they are
        folder = Path(self.build_lib, "nexus_channels", "include")
        return [(header, str(folder / Path(header).name)) for header in public_headers()]

    def run(self) -> None:
        super().run()
        for source, target in self._headers():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + [target for _, target in self._headers()]


def public_headers() -> list[str]:
    files = ["nc_*.h", "os_*.h", "nexus_*.h", "nexus_processes.c", "ffi_cdef.h"]
    return sorted(path for file in files for path in glob(f"csrc/{file}"))


core = Extension("nexus_channels._core", sorted(glob("csrc/py_*.c")), depends=sorted(glob("csrc/*.h")))

setup(
    ext_modules=[core],
    cmdclass={"build_ext": build_ext_c11, "build_py": build_py_with_headers},
    setup_requires=CFFI,
    install_requires=CFFI,
    extras_require=EXTRAS,
    **({"cffi_modules": ["csrc/ffi_build.py:ffi"]} if HAS_DOOR else {}),
)
