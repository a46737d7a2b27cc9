"""The pages of docs/: each program runs as printed and prints what the page says; each page says whom it serves."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest
from harness import SLOWNESS, has_wake_descriptors
from processes import needs_lanes

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PROGRAMS = DOCS.parent / "examples" / "howto"
WITH_TESTS_OF_THEIR_OWN = {"traps.md"}
BY_DESCRIPTOR = {"selectors_loop.py"}
OF_3_14 = {"two_interpreters.py"}
BETWEEN_PROCESSES = {"by_path.py", "digests_by_channel.py", "logging_processes.py"}
BETWEEN_PROCESSES |= {"pool_of_processes.py", "two_processes.py"}

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the docs are not here")

PRINTED = r"(?:(?:(?!\n#|\n```).)*?\n```text\n(?P<output>.*?)```)?"  # before the next heading or block of code
INCLUDED = re.compile(r"```\{literalinclude\} (?P<path>\S+\.py)\n.*?```\n" + PRINTED, re.DOTALL)
WRITTEN = re.compile(r"^```python\n(?P<code>.*?)^```\n" + PRINTED, re.MULTILINE | re.DOTALL)


def pages():
    return sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


def programs():
    """(name, path or code, output) of every complete program."""
    for page in pages():
        name = str(page.relative_to(DOCS))
        if name in WITH_TESTS_OF_THEIR_OWN:
            continue
        text = page.read_text()
        for found in INCLUDED.finditer(text):
            path = (page.parent / found["path"]).resolve()
            if path.parent == PROGRAMS:  # others are tested where they are from
                without = "import trio" in path.read_text() and importlib.util.find_spec("trio") is None
                marks = [pytest.mark.skip(reason="trio is not installed")] if without else []
                marks += [has_wake_descriptors] if path.name in BY_DESCRIPTOR else []
                marks += [needs_lanes] if path.name in BETWEEN_PROCESSES else []
                old = sys.version_info < (3, 14) and path.name in OF_3_14
                marks += [pytest.mark.skip(reason="it needs Python 3.14")] if old else []
                yield pytest.param(path, found["output"], id=f"{name}:{path.name}", marks=marks)
        for number, found in enumerate(WRITTEN.finditer(text), 1):
            yield pytest.param(found["code"], found["output"], id=f"{name}:{number}")


@pytest.mark.parametrize(("program", "output"), list(programs()))
def test_each_program_prints_what_the_page_says(program, output):
    assert output is not None, "a ```text block behind it says what it prints"
    where = [str(program)] if isinstance(program, pathlib.Path) else ["-c", program]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", *where],
        capture_output=True,
        text=True,
        timeout=20 * SLOWNESS,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == output


def test_each_program_stands_on_a_page():
    shown = {str(program.values[0]) for program in programs()}
    assert {str(path) for path in PROGRAMS.glob("*.py")} <= shown


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(DOCS))) for page in pages()])
def test_each_page_says_at_its_top_whom_it_serves(page):
    assert re.match(r"# [^\n]+\n\n\*\*For:\*\* ", page.read_text())
