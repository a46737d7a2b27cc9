"""`python -m nexus_channels`: version, info, and what it says to wrong arguments."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest
from harness import EXPERIMENT, FREE_THREADED, GIL_ENABLED, WAKE, run_child

import nexus_channels
from nexus_channels import __main__, _core
from nexus_channels._programs import info as program


def run(*arguments, code=0):
    # -P: the package that is installed, not the sources that happen to lie where the tests are run.
    command = [sys.executable, "-P", "-m", "nexus_channels", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def info():
    return {line[:15].strip(): line[16:] for line in run("info").stdout.splitlines()}


@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["mux", "--help"]])
def test_a_reader_of_the_output_may_go_away(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-P", "-m", "nexus_channels", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_version():
    assert run("--version").stdout == f"nexus_channels {nexus_channels.__version__}\n"


def test_info_tells_the_versions(info):
    assert info["nexus_channels"] == nexus_channels.__version__
    assert sys.version.split()[0].rstrip("+") in info["python"]


def test_info_tells_how_it_was_built(info):
    build = _core.build_info()
    assert info["compiler"] == build["compiler"]
    assert info["flags"] == build["flags"]
    assert info["debug"] == ("assertions on" if build["debug"] else "no")
    assert info["sanitizer"] == (build["sanitizer"] or "none")


def test_the_flags_are_those_of_the_build(info):
    assert "-std=c11" in info["flags"]
    assert "-fvisibility=hidden" in info["flags"]
    assert _core.build_info()["debug"] == ("-UNDEBUG" in info["flags"].split())


def test_info_tells_whether_atomics_are_lock_free(info):
    assert info["atomics"] == "lock-free"


def test_info_tells_how_loops_are_woken(info):
    assert info["wake-up"].split(",")[0] == WAKE
    assert WAKE in ("eventfd", "pipe", "call_soon_threadsafe")
    if "NC_PORTABLE" not in info["flags"]:
        assert {"linux": "eventfd", "win32": "call_soon_threadsafe"}.get(sys.platform, "pipe") == WAKE
    assert "EventLoop (woken by " in info["event loops"]
    assert ("uvloop not installed" in info["event loops"]) == (importlib.util.find_spec("uvloop") is None)


def test_info_tells_whether_the_gil_is_there(info):
    assert _core.build_info()["free_threaded"] == FREE_THREADED
    assert info["free-threaded"].startswith("yes" if FREE_THREADED else "no")
    if FREE_THREADED and not GIL_ENABLED:
        assert info["free-threaded"] == "yes, running without the GIL"


@pytest.mark.skipif(not FREE_THREADED, reason="this build of Python has a GIL")
def test_importing_every_module_leaves_the_gil_off():
    script = """
import importlib, pkgutil, sys
import nexus_channels
for module in pkgutil.walk_packages(nexus_channels.__path__, "nexus_channels."):
    if module.name.rpartition(".")[2] not in ("__main__", "native"):  # the program; native, which is not built
        importlib.import_module(module.name)
        assert not sys._is_gil_enabled(), module.name
assert "nexus_channels._core" in sys.modules
print("off")
"""
    assert run_child(script, flags=["-W", "error"], env={"PYTHON_GIL": ""}) == "off\n"


def test_info_tells_whether_there_is_a_native_module(info):
    assert info["native module"].startswith("not built: " if EXPERIMENT else "built")


def test_info_tells_what_is_missing(monkeypatch, capsys):
    """An environment without uvloop and without the native module; a free-threaded build with and without its GIL."""

    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.delattr(nexus_channels, "native", raising=False)
    monkeypatch.setitem(sys.modules, "nexus_channels.native", None)
    assert __main__.main(["info"]) == 0
    rows = {line[:15].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}
    assert rows["event loops"].endswith("trio not installed; uvloop not installed")
    assert rows["native module"].startswith("not built: ")
    for enabled, said in ((True, "yes, but the GIL was turned on"), (False, "yes, running without the GIL")):
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda enabled=enabled: enabled, raising=False)
        assert program._free_threaded(True) == said


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "too", "much"], ["mux"], ["mux", "a.log"]])
def test_wrong_arguments_are_answered_by_the_usage(arguments):
    assert "usage: nexus-channels" in run(*arguments, code=2).stderr
