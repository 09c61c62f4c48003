"""The rotation of the default tier."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import CELLS, TURNS, in_turn, part


@pytest.mark.parametrize(
    ("count", "most"), [(1, CELLS), (30, CELLS), (31, CELLS), (420, CELLS), (2000, CELLS), (50, 8)]
)
def test_fourteen_turns_run_every_cell(count: int, most: int) -> None:
    parts = min(TURNS, -(-count // most))
    turns = [in_turn(count, parts, turn, "name") for turn in range(123, 123 + parts)]
    assert sorted(i for chosen in turns for i in chosen) == list(range(count))
    assert max(map(len, turns)) <= max(most, -(-count // TURNS))


def test_a_turn_mixes_the_factors_of_a_cross() -> None:
    """Cells are in the order of a product, here of 40 cases with 14 processes, and 14 turns would pick one process."""
    assert len({i % 14 for i in in_turn(560, 14, 5, "name")}) > 7
    assert {i // 14 for i in in_turn(560, 14, 5, "name")} == set(range(40))


def test_a_part_is_one_of_n() -> None:
    assert part("2/3") == (2, 3)
    for text in ("0/3", "4/3", "1/0", "x"):
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            part(text)


@pytest.mark.slow
def test_what_is_named_is_collected_in_every_tier() -> None:
    """A slow test and a page by their names; a folder of pages is not."""
    slow = f"tests/unit/test_tiers.py::{test_what_is_named_is_collected_in_every_tier.__name__}"
    for argument, found in ((slow, True), ("docs/adaptive.md", True), ("docs/theory", False)):
        command = [sys.executable, "-m", "pytest", "-q", "--co", "-p", "no:cacheprovider", argument]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert ("::" in done.stdout) == found and ("deselected" in done.stdout) != found, done.stdout + done.stderr
