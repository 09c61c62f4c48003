"""The README is what its parts are made from: tables of measured figures, one example for another package."""

from __future__ import annotations

from pathlib import Path

import scoresde

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {scoresde.__version__}\n" in citation and "license: MIT\n" in citation
