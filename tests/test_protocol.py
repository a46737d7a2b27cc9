"""The rules that the sources set themselves: who includes whom, and labels in code that PROTOCOL.md explains."""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
LABEL = re.compile(r"\b[ABCEFLNRSW][1-9]\b")

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources are not here")


def comments(path):
    """All comments of a C file as one text."""
    return "\n".join(re.findall(r"/\*.*?\*/", path.read_text(), re.DOTALL))


def code(path):
    """A C file without its comments."""
    return re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def sources(pattern):
    found = sorted(CSRC.glob(pattern))
    assert found
    return found


def test_every_label_in_the_code_is_explained_and_every_explained_label_is_in_the_code():
    in_code = {label for path in sources("*.[ch]") for label in LABEL.findall(comments(path))}
    in_protocol = set(LABEL.findall((CSRC / "PROTOCOL.md").read_text()))
    assert in_code == in_protocol


def test_the_page_is_no_wider_than_120_columns():
    wide = [line for line in (CSRC / "PROTOCOL.md").read_text().splitlines() if len(line) > 120]
    assert {line[:6] for line in wide} <= {"`send`", "| L2 |", "| F1 |"}, "these are still to be cut"


def test_the_page_begins_with_a_glossary_of_our_own_words():
    page = (CSRC / "PROTOCOL.md").read_text()
    rows = re.findall(r"^\| ([^|]*) \|", page[: page.index("## 1. ")], re.MULTILINE)
    words = {word for row in rows for word in row.split(", ")}
    assert words >= {"gate", "flag", "crowd", "owed", "called", "box", "kick", "look", "reap", "bury", "spill", "lent"}


def test_the_core_includes_nothing_but_itself_and_libc():
    for path in sources("nc_*.h"):
        for header in re.findall(r"#include +([<\"][^>\"]+[>\"])", code(path)):
            assert header.startswith('"nc_') or header in {
                "<pthread.h>",
                "<sched.h>",
                "<stdatomic.h>",
                "<stdbool.h>",
                "<stddef.h>",
                "<stdint.h>",
                "<string.h>",
            }, (path.name, header)


def test_the_core_knows_no_python_and_allocates_and_prints_nothing():
    for path in sources("nc_*.h"):
        assert not re.search(r"\b(Py\w+|malloc|calloc|free|printf|errno)\b", code(path)), path.name


@pytest.mark.parametrize(
    ("file", "others"),
    [
        ("py_ring.c", "nc_log_"),
        ("py_log.c", "nc_ring_"),
        ("py_log.h", "nc_ring_"),
        ("py_claim.c", "nc_ring_"),
        ("py_claim_await.c", "nc_ring_"),
        ("py_claim.h", "nc_ring_"),
        ("py_call.c", "nc_ring_"),
        ("py_call.c", "nc_log_"),
        ("py_native.c", "nc_ring_"),
        ("py_line.c", "nc_ring_"),
        ("py_line.c", "nc_log_"),
        ("py_pace.c", "nc_ring_"),
        ("py_pace.c", "nc_log_"),
        ("py_park.c", "nc_ring_"),
        ("py_park.c", "nc_log_"),
        ("py_await.c", "nc_ring_"),
        ("py_await.c", "nc_log_"),
        ("py_coroutine.c", "nc_ring_"),
        ("py_coroutine.c", "nc_log_"),
        ("py_asyncio.c", "nc_ring_"),
        ("py_asyncio.c", "nc_log_"),
        ("py_running.c", "nc_ring_"),
        ("py_running.c", "nc_log_"),
        ("py_wake.c", "nc_ring_"),
        ("py_wake.c", "nc_log_"),
    ],
)
def test_each_file_keeps_to_its_own_headers(file, others):
    assert others not in code(CSRC / file)


def test_asyncio_is_imported_in_one_place():
    assert [path.name for path in sources("*.[ch]") if '"asyncio"' in code(path)] == ["py_module.c"]


KNOW_ASYNCIO = {"py_asyncio.c", "py_running.c", "py_future.c", "py_module.c", "py_core.h"}  # the last two: its names


def test_asyncio_is_known_in_few_files():
    words = re.compile(r"s_(add_reader|call_soon|call_later|create_future|is_closed)|get_running_loop|current_tasks")
    assert {path.name for path in sources("*.[ch]") if words.search(code(path))} == KNOW_ASYNCIO


def test_no_file_is_too_long_to_be_known():
    long = {path.name for path in sources("*.c") if path.read_text().count("\n") > 800}
    assert long <= {"py_log.c"}, "it is still to be cut"


def test_the_core_uses_no_fences_and_no_volatile_data():
    for path in sources("nc_*.h"):
        assert not re.search(r"\batomic_(thread|signal)_fence\b|(?<!__)\bvolatile\b", code(path)), path.name


UNORDERED = re.compile(r"\batomic_(load|store|exchange|fetch_(add|sub|or|and|xor)|compare_exchange_(weak|strong))\(")


def test_every_atomic_operation_names_its_order():
    for path in sources("*.[ch]"):
        assert not UNORDERED.search(code(path)), path.name


def test_no_function_is_longer_than_a_screen():
    for path in sources("*.[ch]"):
        for body in re.findall(r"^\{\n(.*?)^\}", path.read_text(), re.DOTALL | re.MULTILINE):
            assert body.count("\n") <= 60, (path.name, body[:80])
