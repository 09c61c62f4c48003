"""Figures on pages are those of the result files."""

from __future__ import annotations

import re

import pytest

from tools import tables


@pytest.mark.parametrize("page", tables.FILLED)
def test_a_page_has_the_figures_of_the_files(page: str) -> None:
    text = (tables.ROOT / page).read_text(encoding="utf-8")
    assert tables.filled(page, text) == text, "run `python -m tools tables`"
    assert set(re.findall("<!-- table: (.*?) -->", text)) == set(tables.FILLED[page])


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no place for the table 'methods'"):
        tables.filled("README.md", "# scoresde")
