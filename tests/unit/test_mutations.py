"""The planted defects of `benchmarks mutations`: each has its place in the source, and was caught."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks._tables import load
from benchmarks.mutations import DEFECTS, ROOT, Defect, planted


def test_their_names_differ() -> None:
    assert max(Counter(defect.name for defect in DEFECTS).values()) == 1


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_each_changes_its_file_and_is_python(defect: Defect) -> None:
    changed = planted(defect)
    assert changed != (ROOT / "scoresde" / defect.path).read_text()
    compile(changed, defect.path, "exec")


def test_all_were_caught_by_tests_that_are_there() -> None:
    caught = load("mutations")["results"]["caught_by"]
    assert caught.keys() == {defect.name for defect in DEFECTS}
    assert all((ROOT / test.split("::")[0]).is_file() for test in caught.values())
