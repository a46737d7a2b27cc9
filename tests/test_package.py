"""sdist and wheel: what is in them, and that the wheel works away from the checkout. Builds from a copy of the tree."""

import email
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from harness import EXPERIMENT, SLOWNESS

import nexus_channels

TREE = pathlib.Path(__file__).parent.parent
NOT_SOURCES = (
    ".git",
    ".*_cache",
    "__pycache__",
    ".venv",
    ".benchmarks",
    ".hypothesis",
    "build",
    "dist",
    "target",
    "Cargo.lock",
    "*.egg-info",
    "*.so",
)

pytestmark = [
    pytest.mark.timeout(400 * SLOWNESS),
    pytest.mark.watchdog(400 * SLOWNESS),
    pytest.mark.skipif(not (TREE / "setup.py").exists(), reason="the tests lie beside no source tree"),
]


def environment(**changes):
    """This process's, without the switches that would change the build."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_CHANNELS_")}
    return {**plain, **changes}


def build(tree, out, *what, **env):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what, str(tree)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**env), check=False, cwd=out.parent)


def copy_of_the_tree(folder):
    return shutil.copytree(TREE, folder / "tree", ignore=shutil.ignore_patterns(*NOT_SOURCES))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_of_the_tree(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def dist(tree, tmp_path_factory):
    """A folder with the sdist, and with the wheel that was built from the sdist alone."""
    out = tmp_path_factory.mktemp("package") / "dist"
    built = build(tree, out)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def sdist(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    root = f"nexus_channels-{nexus_channels.__version__}/"
    assert all(name.startswith(root) for name in names)
    return {name.removeprefix(root) for name in names}


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder to put on PYTHONPATH, with nothing but the wheel in it."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(command, check=True)
    return target


def run_installed(installed, code):
    command = [sys.executable, "-P", "-c", code]
    env = environment(PYTHONPATH=str(installed))
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=installed.parent, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def python_sources():
    return {str(path.relative_to(TREE)) for path in (TREE / "nexus_channels").rglob("*.py")}


def public_headers():
    return {path.name for kind in ("nc", "os", "nexus") for path in (TREE / "csrc").glob(f"{kind}_*.h")}


def test_the_sdist_holds_the_whole_tree(tree, sdist):
    folders = [".github", "csrc", "nexus_channels", "tests", "bench", "docs", "examples"]
    expected = {
        str(path.relative_to(tree)) for folder in folders for path in (tree / folder).rglob("*") if path.is_file()
    }
    top = (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        ".ci/run",
    )
    expected.update(top)
    assert expected - sdist == set()


def test_the_sdist_holds_nothing_that_was_built(tree, sdist):
    made_by_setuptools = {"PKG-INFO", "setup.cfg"}
    foreign = {
        name
        for name in sdist - made_by_setuptools
        if not name.startswith("nexus_channels.egg-info/") and not (tree / name).exists()
    }
    assert foreign == set()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"nexus_channels-{nexus_channels.__version__}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name.removeprefix(info) for name in names if name.startswith(info)}
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}

    package = {name for name in names if not name.startswith(info)}
    native = {name for name in package if name.endswith(".so")}
    assert {name.split(".")[0] for name in native} == {"nexus_channels/_core"} | (
        set() if EXPERIMENT else {"nexus_channels/_ffi"}
    )
    headers = {f"nexus_channels/include/{name}" for name in public_headers() | {"ffi_cdef.h", "nexus_processes.c"}}
    assert package - native == python_sources() | headers | {
        f"nexus_channels/{name}" for name in ("py.typed", "_core.pyi", "_ffi.pyi")
    }


def test_the_metadata_say_what_is_needed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [line.split(">")[0] for line in needed] == ([] if EXPERIMENT else ["cffi"])
    assert metadata["Version"] == nexus_channels.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra")) == {"anyio", "mux", "native", "test", "bench", "dev", "docs"}
    assert any("uvloop" in line for line in metadata.get_all("Requires-Dist")) != EXPERIMENT


def test_the_wheel_works_away_from_the_checkout(installed):
    code = (
        "import nexus_channels as nc\n"
        "tx, rx = nc.mpsc.channel(2)\n"
        "tx.try_send('item')\n"
        "print(nc.__file__, nc._core.__file__, rx.try_recv(), nc.__version__, sep='\\n')"
    )
    package, core, item, version = run_installed(installed, code).splitlines()
    assert pathlib.Path(package).is_relative_to(installed)
    assert pathlib.Path(core).is_relative_to(installed)
    assert (item, version) == ("item", nexus_channels.__version__)


@pytest.mark.skipif(EXPERIMENT, reason="cffi refuses free-threaded 3.13, so the door is left out there")
def test_the_door_of_the_wheel_opens(installed):
    assert run_installed(installed, "from nexus_channels import native; print(native.lib.NEXUS_OK)") == "0"


def test_the_program_of_the_wheel_runs(installed, tmp_path):
    (tmp_path / "a.log").write_text("line\n")
    command = [installed / "bin" / "nexus-channels", "mux", tmp_path / "a.log", "-o", tmp_path / "archive", "--quiet"]
    subprocess.run(command, env=environment(PYTHONPATH=str(installed)), check=True, cwd=tmp_path)
    assert (tmp_path / "archive").read_text() == "a.log\tline\n"


@pytest.mark.skipif(not shutil.which("cc"), reason="no command named cc to compile the headers with")
def test_each_header_of_the_wheel_stands_alone(installed, tmp_path):
    folder = installed / "nexus_channels" / "include"
    for header in public_headers():
        source = tmp_path / "one.c"
        source.write_text(f'#include "{header}"\n')
        command = ["cc", "-std=gnu11", *OF_A_PROGRAM, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        subprocess.run([*command, "-I", folder, source], check=True)


# What whoever includes the headers of system calls defines before.
OF_A_PROGRAM = ["-D_GNU_SOURCE", "-include", "stdlib.h"]
OF_A_PROGRAM += [f"-DOS_{name.upper()}={name}" for name in ("malloc", "calloc", "free")]


@pytest.mark.skipif(not shutil.which("cc"), reason="no command named cc to compile with")
def test_the_file_for_programs_compiles_from_the_wheel(installed, tmp_path):
    source = installed / "nexus_channels" / "include" / "nexus_processes.c"
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", source, "-o", tmp_path / "processes.o"]
    subprocess.run(command, check=True)


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm to look at symbols with")
def test_a_native_module_shows_its_init_function_alone(installed):
    for module in (installed / "nexus_channels").glob("*.so"):
        symbols = subprocess.run(
            ["nm", "--dynamic", "--defined-only", module], check=True, capture_output=True, text=True
        ).stdout.split()[2::3]
        assert [name for name in symbols if not name.startswith("_cffi_pypyinit_")] == [
            f"PyInit_{module.name.split('.')[0]}"
        ]


def test_without_a_compiler_the_build_says_so(tmp_path):
    built = build(copy_of_the_tree(tmp_path), tmp_path / "dist", "--wheel", CC="/nonexistent/cc")
    assert built.returncode != 0
    said = built.stdout + built.stderr
    assert "needs a C11 compiler and the header files of this Python" in said
    assert "/nonexistent/cc" in said
    assert "apt-get install gcc python3-dev" in said


def test_a_debug_build_is_one_variable_away(tmp_path):
    out = tmp_path / "dist"
    built = build(copy_of_the_tree(tmp_path), out, "--wheel", NEXUS_CHANNELS_DEBUG="1", NEXUS_CHANNELS_WERROR="1")
    assert built.returncode == 0, built.stdout + built.stderr
    zipfile.ZipFile(next(out.glob("*.whl"))).extractall(tmp_path / "installed")
    info = run_installed(tmp_path / "installed", "from nexus_channels import _core; print(_core.build_info())")
    assert "'debug': True" in info
    assert "-O0 -g -UNDEBUG" in info
