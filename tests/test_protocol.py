"""The rules that the sources set themselves: who includes whom, and labels in code that PROTOCOL.md explains."""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
LABEL = re.compile(r"\b[ABCDEFLNPRSTW][1-9]\b")

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
    assert wide == []


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
                "<windows.h>",
            }, (path.name, header)


SYSTEM = {"errno", "fcntl", "poll", "stdlib", "string", "sys/epoll", "sys/eventfd", "sys/file", "sys/mman"}
SYSTEM |= {"sys/random", "sys/socket", "sys/stat", "sys/sysinfo", "sys/types", "sys/un", "unistd"}


def test_system_calls_have_files_of_their_own_which_know_the_core_and_no_python():
    for path in sources("os_*.h"):
        for header in re.findall(r"#include +([<\"][^>\"]+[>\"])", code(path)):
            assert header.startswith(('"nc_', '"os_')) or header[1:-3] in SYSTEM, (path.name, header)
        assert not re.search(r"\b(Py\w+|printf|nanosleep|clock_gettime)\b", code(path)), path.name
        has_memory = path.name.startswith("os_reach")  # libc's
        assert has_memory or not re.search(r"\b(malloc|calloc|free)\b", code(path)), path.name


def test_the_core_knows_no_python_and_allocates_and_prints_nothing():
    for path in sources("nc_*.h"):
        assert not re.search(r"\b(Py\w+|malloc|calloc|free|printf|errno)\b", code(path)), path.name


@pytest.mark.parametrize(
    ("file", "others"),
    [
        ("py_ring.c", "nc_log_"),
        ("py_log.c", "nc_ring_"),
        ("py_log_recv.c", "nc_ring_"),
        ("py_log_recv.h", "nc_ring_"),
        ("py_bytes.h", "nc_ring_"),
        ("py_doc.h", "nc_"),
        ("py_claim.c", "nc_ring_"),
        ("py_claim_await.c", "nc_ring_"),
        ("py_claim.h", "nc_ring_"),
        ("py_call.c", "nc_ring_"),
        ("py_call.c", "nc_log_"),
        ("py_native.c", "nc_ring_"),
        ("py_notifier.c", "nc_ring_"),
        ("py_notifier.c", "nc_log_"),
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
        ("py_trio.c", "nc_ring_"),
        ("py_trio.c", "nc_log_"),
        ("py_mailbox.c", "nc_ring_"),
        ("py_mailbox.c", "nc_log_"),
        ("py_loop.c", "nc_ring_"),
        ("py_loop.c", "nc_log_"),
        ("py_running.c", "nc_ring_"),
        ("py_running.c", "nc_log_"),
        ("py_wake.c", "nc_ring_"),
        ("py_wake.c", "nc_log_"),
        ("py_doorbell.c", "nc_ring_"),
        ("py_doorbell.c", "nc_log_"),
    ],
)
def test_each_file_keeps_to_its_own_headers(file, others):
    assert others not in code(CSRC / file)


def test_asyncio_is_imported_in_one_place():
    assert [path.name for path in sources("*.[ch]") if '"asyncio"' in code(path)] == ["py_module.c"]


KNOW_ASYNCIO = {
    "py_asyncio.c",
    "py_running.c",
    "py_future.c",
    "py_inside.c",
    "py_module.c",
    "py_core.h",
}  # the last two: its names


def test_asyncio_is_known_in_few_files():
    words = re.compile(r"s_(add_reader|call_soon|call_later|create_future|is_closed)|get_running_loop|current_tasks")
    assert {path.name for path in sources("*.[ch]") if words.search(code(path))} == KNOW_ASYNCIO


def test_trio_is_known_in_one_file_and_its_names_in_one_module():
    words = re.compile(r"\b(checkpoint|wait_task_rescheduled|run_sync_soon|spawn_system_task|in_trio_task)\b")
    assert {path.name for path in sources("*.[ch]") if words.search(code(path))} == set()
    uses = {path.name for path in sources("*.[ch]") if re.search(r"\btrio_(here|loops|imported)\b", code(path))}
    assert uses == {"py_trio.c", "py_trio.h", "py_loop.c", "py_await.c", "py_await_life.c"}


def test_no_file_is_too_long_to_be_known():
    assert [path.name for path in sources("*.c") if path.read_text().count("\n") > 800] == []


# The binding, ground first: each may use only what stands before it. A header belongs to the file of its name; those of
# one line know nothing of each other.
LADDER = """
    py_core
    py_block py_selected py_logging
    py_types
    py_bytes
    py_inside_311
    py_inside py_stop
    py_future py_wake_fd py_running py_origin py_wake
    py_doorbell
    py_mailbox
    py_asyncio py_trio
    py_loop
    py_line py_pace
    py_reach
    py_tell py_watch
    py_ends
    py_chan
    py_call
    py_claim py_park
    py_shared
    py_arm
    py_await
    py_await_life
    py_coroutine
    py_select
    py_merge
    py_endpoint
    py_batch
    py_native py_notifier py_ticket py_listen
    py_lend
    py_log_recv
    py_ring py_log
    py_claim_await
    py_module
"""
STEPS = {room: step for step, line in enumerate(LADDER.split("\n")) for room in line.split()}
# What only declares, for whoever stands above.
DECLARES = {"py_doc"}
DEFINITION = re.compile(
    r"^(?!#|typedef|extern)(?P<head>[A-Za-z_][\w \t*]*?[ *])(?P<name>\w+)\([^;{}]*\)\s*\{", re.MULTILINE
)
TABLE = re.compile(r"^(?:const )?\w+ (?P<name>\w+)(?:\[\w*\])*(?: =|;)", re.MULTILINE)


def without_strings(text):
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def definitions():
    """Name -> the file, without its ending, where a function or table that others may use is defined."""
    found = {}
    for path in sources("py_*.[ch]"):
        text = without_strings(code(path))
        for match in DEFINITION.finditer(text):
            if path.suffix == ".h" or not re.search(r"\bstatic\b", match["head"]):
                found[match["name"]] = path.stem
        if path.suffix == ".c":
            found.update((match["name"], path.stem) for match in TABLE.finditer(text))
    return found


def uses():
    """(file, other file, name) for each name that the first uses and the second defines."""
    defined = definitions()
    assert len(defined) > 150, "the definitions were not found"
    for path in sources("py_*.[ch]"):
        if path.suffix == ".h" and path.stem in DECLARES:
            continue
        text = without_strings(code(path))
        own = {match["name"] for match in DEFINITION.finditer(text)}
        for name in sorted(set(re.findall(r"\b[a-z]\w+\b", text)) & defined.keys() - own):
            declared = path.suffix == ".h" and re.search(rf"\b{name}\([^;{{}}]*\);", text)
            if defined[name] != path.stem and not declared:
                yield path.stem, defined[name], name


def test_every_file_of_the_binding_stands_on_the_ladder():
    assert {path.stem for path in sources("py_*.[ch]")} == STEPS.keys() | DECLARES


def test_no_file_of_the_binding_calls_upwards():
    wrong = [(user, used, name) for user, used, name in uses() if STEPS[user] <= STEPS[used]]
    assert wrong == []


def test_a_header_includes_only_what_stands_below_it():
    for path in sources("py_*.[ch]"):
        for name in re.findall(r'#include "(py_\w+)\.h"', code(path)):
            if path.stem not in DECLARES and name not in DECLARES | {path.stem, "py_module", "py_endpoint"}:
                assert STEPS[name] < STEPS[path.stem], (path.name, name)


ATTRIBUTE = re.compile(r"__attribute__\(\([^)]*\)\)\s*")


def test_no_two_files_define_a_function_of_the_same_name():
    files = {}
    for path in sources("*.[ch]"):
        text = ATTRIBUTE.sub("", without_strings(code(path)))
        for match in DEFINITION.finditer(text):
            files.setdefault(match["name"], set()).add(path.name)
    assert len(files) > 500, "the definitions were not found"
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


# Who asks a channel what kind of ring it has; all others ask nc_chan.h.
KNOW_THE_RING = {"py_ring.c", "py_chan.c"}
KNOW_THE_BYTES = {"py_log.c", "py_log_recv.c", "py_claim.c", "py_native.c", "py_chan.c", "py_block.c"}


def test_few_files_know_what_kind_of_ring_a_channel_has():
    for field, files in (("ring", KNOW_THE_RING), ("log", KNOW_THE_BYTES)):
        users = {path.name for path in sources("py_*.[ch]") if re.search(rf"(->|\.){field}\b", code(path))}
        assert users <= files, (field, users - files)


def test_the_core_uses_no_fences_and_no_volatile_data():
    for path in [*sources("nc_*.h"), *sources("os_*.h")]:
        assert not re.search(r"\batomic_(thread|signal)_fence\b|(?<!__)\bvolatile\b", code(path)), path.name


UNORDERED = re.compile(r"\batomic_(load|store|exchange|fetch_(add|sub|or|and|xor)|compare_exchange_(weak|strong))\(")


def test_every_atomic_operation_names_its_order():
    for path in sources("*.[ch]"):
        assert not UNORDERED.search(code(path)), path.name


def test_no_function_is_longer_than_a_screen():
    for path in sources("*.[ch]"):
        for body in re.findall(r"^\{\n(.*?)^\}", path.read_text(), re.DOTALL | re.MULTILINE):
            assert body.count("\n") <= 60, (path.name, body[:80])
