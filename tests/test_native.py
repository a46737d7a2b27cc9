"""The cffi door: built, imported, and the way through it."""

import pathlib
import re
import subprocess
import sys

import pytest
from harness import EXPERIMENT

HEADERS = pathlib.Path(__file__).parent.parent / "csrc"


door = pytest.mark.skipif(EXPERIMENT, reason="cffi refuses free-threaded 3.13, so the door is left out there")


@door
def test_the_door_shows_the_constants_of_the_core():
    from nexus_channels import native

    sizes = map(int, re.findall(r"#define NC_CACHE_LINE (\d+)", (HEADERS / "nc_base.h").read_text()))
    assert native.lib.NC_CACHE_LINE in sizes
    assert (native.lib.NEXUS_OK, native.lib.NEXUS_FULL, native.lib.NEXUS_FORKED) == (0, 1, 11)
    assert native.lib.NEXUS_FOREVER == -1
    assert native.ffi.sizeof("nexus_result") == native.ffi.sizeof("int")


@door
def test_messages_go_through_the_door_both_ways(bytes_variant):
    from nexus_channels.native import cast, ffi, lib

    tx, rx = bytes_variant.channel(256)
    with tx.native() as sending, rx.native() as receiving:
        sender, receiver = ffi.new("nexus_sender **"), ffi.new("nexus_receiver **")
        assert lib.nexus_attach_sender(cast(receiving), sender) == lib.NEXUS_BAD_HANDLE
        assert lib.nexus_attach_sender(cast(sending), sender) == lib.NEXUS_OK
        assert lib.nexus_attach_receiver(cast(receiving), receiver) == lib.NEXUS_OK
        place, data, n = ffi.new("void **"), ffi.new("const void **"), ffi.new("size_t *")
        assert lib.nexus_try_claim(sender[0], 5, place) == lib.NEXUS_OK
        ffi.memmove(place[0], b"hello", 5)
        assert lib.nexus_commit(sender[0], 5) == lib.NEXUS_OK
        assert lib.nexus_try_peek(receiver[0], data, n) == lib.NEXUS_OK
        assert bytes(ffi.buffer(data[0], n[0])) == b"hello"
        assert lib.nexus_release(receiver[0]) == lib.NEXUS_OK
        assert ffi.string(lib.nexus_strerror(lib.NEXUS_EMPTY)) == b"no message now"
        lib.nexus_detach_sender(sender[0])
        lib.nexus_detach_receiver(receiver[0])


def test_where_it_was_not_built_the_import_says_why():
    code = (
        "import sys; sys.modules['nexus_channels._ffi'] = None\n"
        "try: import nexus_channels.native\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nexus_channels.native was not built" in said
    assert "The channels work without it" in said
