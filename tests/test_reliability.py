"""docs/: the tests and commands that the pages name are there, and the tests of the pitfalls are all named."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["reliability.md", "threat-model.md"]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are not here")


def functions(path):
    return re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


TESTS = {path.name: functions(path) for path in sorted((ROOT / "tests").glob("test_*.py"))}
NAMES = [name for names in TESTS.values() for name in names]


def code(page):
    """What the page has between backticks."""
    return re.findall(r"`([^`\n]+)`", (ROOT / "docs" / page).read_text())


def matching(pattern):
    return [name for name in NAMES if re.fullmatch(pattern.replace("*", r"\w*"), name)]


def chosen(command):
    """The tests that a pytest command would run, by the names of files and functions alone."""
    words = shlex.split(command)[1:]
    wanted = words[words.index("-k") + 1] if "-k" in words else ""
    files = [Path(word) for word in words if word.endswith(".py")]
    assert all((ROOT / file).is_file() for file in files), command
    names = [name for file in files for name in TESTS[file.name]] if files else NAMES
    expression = re.sub(r"\b(?!or\b|and\b|not\b)\w+", lambda word: f"({word[0]!r} in name)", wanted) or "True"
    return [name for name in names if eval(expression, {"name": name})]


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page):
    named = [word for word in code(page) if re.fullmatch(r"test_[\w*]+", word)]
    assert len(named) > 20
    assert [pattern for pattern in named if not matching(pattern) and pattern != "test_pitfall_NN_*"] == []


def test_every_command_finds_tests():
    commands = [word for word in code("reliability.md") if re.match(r"pytest [^.]", word)]
    assert len(commands) > 40
    assert [command for command in commands if not chosen(command)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    for word in code(page):
        for path in re.findall(r"(?:^|\s)((?:tests|csrc|docs|\.ci)/[\w./-]+)", word):
            assert (ROOT / path).exists(), path


def test_every_word_of_a_choice_finds_a_test():
    """`-k "one or two"` would hide that there is no two."""
    for command in (word for word in code("reliability.md") if word.startswith("pytest ") and " -k " in word):
        wanted = shlex.split(command)[-1]
        head = command[: command.index(" -k ")]
        for part in wanted.split(" or "):
            assert chosen(f"{head} -k '{part}'"), (command, part)


def test_each_pitfall_has_a_test_of_its_name_and_a_row():
    page = (ROOT / "docs" / "reliability.md").read_text()
    for number in range(1, 44):
        assert matching(f"test_pitfall_{number:02}_*"), number
        assert f"test_pitfall_{number:02}_" in page, number
