"""What the suite says of its own tests is true, and its files lie where one looks for them."""

import ast

import parallel
import pytest
import refleak
from harness import LIB, TESTS

LISTS = [parallel.ALONE, refleak.UNCOUNTED]


@pytest.mark.parametrize("listed", LISTS, ids=["run by one thread", "not counted"])
def test_every_test_that_is_listed_exists_and_every_list_is_in_order(listed):
    assert list(listed) == sorted(listed)
    for module, functions in listed.items():
        there = {node.name for node in ast.parse((TESTS / f"{module}.py").read_text()).body if hasattr(node, "name")}
        assert isinstance(functions, str) or set(functions) <= there


def test_modules_of_tests_lie_beside_conftest_and_all_others_in_lib():
    assert {path.name for path in TESTS.glob("*.py") if not path.name.startswith("test_")} == {"conftest.py"}
    assert [path.name for path in LIB.glob("test_*.py")] == []
