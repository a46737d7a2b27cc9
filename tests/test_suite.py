"""What the suite says of its own tests is true, and its files lie where one looks for them."""

import ast
import importlib

import parallel
import pytest
import refleak
import slow
from harness import LIB, TESTS

LISTS = [parallel.ALONE, refleak.UNCOUNTED, slow.SLOW]
CHANNELS = ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes"]


@pytest.mark.parametrize("listed", LISTS, ids=["run by one thread", "not counted", "slow"])
def test_every_test_that_is_listed_exists_and_every_list_is_in_order(listed):
    assert list(listed) == sorted(listed)
    for module, functions in listed.items():
        there = {node.name for node in ast.parse((TESTS / f"{module}.py").read_text()).body if hasattr(node, "name")}
        assert isinstance(functions, str) or set(functions) <= there


def test_the_marker_slow_is_on_the_tests_that_are_listed_and_on_no_other(request):
    for item in request.session.items:
        marked = [marker.args[0] for marker in item.iter_markers("slow")]
        reason = slow.reason(item.module.__name__, item.originalname)
        assert marked == ([reason] if reason else []), item.nodeid


def test_the_quick_form_uses_every_public_method_of_every_channel():
    used = set()
    for path in TESTS.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if slow.reason(path.stem, getattr(node, "name", "")) is None:
                used |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                used |= {part.name for part in ast.walk(node) if isinstance(part, ast.alias)}
    for name in CHANNELS:
        assert name in used
        for end in importlib.import_module(f"nexus_channels.{name}").channel(64):
            assert {method for method in dir(end) if not method.startswith("_")} <= used


def test_modules_of_tests_lie_beside_conftest_and_all_others_in_lib():
    assert {path.name for path in TESTS.glob("*.py") if not path.name.startswith("test_")} == {"conftest.py"}
    assert [path.name for path in LIB.glob("test_*.py")] == []
