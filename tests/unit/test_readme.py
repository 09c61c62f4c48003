"""The README is what its parts are made from: tables of measured figures, one example for another package."""

from __future__ import annotations

import re
from pathlib import Path

import scoresde
from benchmarks import _tables

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_figures():
    assert _tables.filled(TEXT) == TEXT, "run `python -c 'from benchmarks._tables import fill_readme; fill_readme()'`"
    assert all(f"<!-- table: {name} -->" in TEXT for name in _tables.FILLED)


def test_files_and_pages_that_it_names_are_there():
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert target.startswith("https://img.shields.io/") or (ROOT / target).exists(), target


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {scoresde.__version__}\n" in citation and "license: MIT\n" in citation
