"""Every item of docs/promises.md is held by a test that says so with `@pytest.mark.promise(ITEM)`."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ITEMS = re.findall(r"^## ([\w-]+)[.:] ", (ROOT / "docs" / "promises.md").read_text(), flags=re.MULTILINE)
MARKED = {
    item
    for path in (ROOT / "tests").rglob("test_*.py")
    for marks in re.findall(r"pytest\.mark\.promise\(([^)]*)\)", path.read_text())
    for item in re.findall(r"\"([\w-]+)\"", marks)
}


@pytest.mark.parametrize("item", ITEMS)
def test_every_promise_is_held_by_a_test(item):
    assert item in MARKED


def test_marks_name_items_that_exist():
    assert set(ITEMS) >= MARKED
