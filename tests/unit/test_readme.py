"""The README is what its parts are made from: tables of measured figures, one example for another package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import scoresde
from benchmarks import _tables

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_figures():
    assert _tables.filled(TEXT) == TEXT, "run `python -c 'from benchmarks._tables import fill_readme; fill_readme()'`"
    assert all(f"<!-- table: {name} -->" in TEXT for name in _tables.FILLED)


def test_tables_and_examples_are_short():
    tables = re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)
    assert tables and all(table.count("\n") <= 14 for table in tables)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        lines = [line for line in block.splitlines() if line and not line.startswith(("(", "True"))]
        assert len(lines) <= 8, block


def test_files_and_pages_that_it_names_are_there():
    for target in re.findall(r"\]\(([^)#]+)", TEXT):
        assert target.startswith("https://img.shields.io/") or (ROOT / target).exists(), target


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {scoresde.__version__}\n" in citation and "license: MIT\n" in citation


def test_the_shipped_network_reaches_the_figures_that_were_asked_for():
    record = json.loads((ROOT / "benchmarks/results/mnist.json").read_text())["results"]
    assert record["classifier accuracy on held-out digits"] >= 0.97
    own = record["samples"]["as it comes"]
    assert own["recognised"] >= 0.95 and own["nearest"] >= 0.9 and own["evaluations"] <= 30
