"""The committed coverage of certificates, against its law, and the committed diagnoses, against what was planted."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from scipy.stats import norm

from benchmarks import certificates, diagnoses
from benchmarks._tables import load

FAMILY = 1e-3  # the false-alarm rate of all cells together


def cells() -> list[tuple[str, dict[str, Any]]]:
    """Every problem and setting."""
    problems = load("certificates")["results"]["problems"]
    return [(problem["kind"], row) for problem in problems.values() for row in problem["settings"].values()]


def test_every_problem_is_measured() -> None:
    """With a network that somebody else trained, and none half done."""
    results = load("certificates")["results"]
    assert set(results["problems"]) == {*certificates.PROBLEMS, "foreign network, VP"}
    assert not results["pilots"]


def test_all_cells_are_covered_as_the_law_says() -> None:
    """The mean coverage, and its spread over pilots, at a family-wise false-alarm rate of 1e-3 each."""
    judged = [row for _, cell in cells() for row in cell["coverage"].values()]
    assert len(judged) >= 40
    limit = norm.isf(FAMILY / (2 * len(judged)))
    assert max(abs(row["z"]) for row in judged) < limit
    assert min(row["p of spread"] for row in judged) > FAMILY / len(judged)


@pytest.mark.parametrize(("kind", "bar"), [("exact", 3.0), ("network", 6.0)])
def test_bounds_are_not_much_larger_than_errors(kind: str, bar: float) -> None:
    found = [cell for of, cell in cells() if of == kind]
    assert statistics.median(cell["bound / error"] for cell in found) <= bar
    assert statistics.median(cell["over hindsight"] for cell in found) <= 1.5
    assert max(cell["over hindsight"] for cell in found) <= 1.5


def test_indicators_take_at_most_half_of_the_evaluations() -> None:
    assert max(cell["extra"] for _, cell in cells()) <= 0.5
    counts = [cell["evaluations"] for _, cell in cells()]
    assert min(counts) <= 6 and max(counts) >= 49


def test_diagnoses_of_planted_faults() -> None:
    """27 of 30 are right, ten of them planted by somebody who had not seen the code; exact parts within 20 %."""
    results = load("diagnoses")["results"]
    assert not diagnoses.check(results)
    assert results["cases"].keys() == diagnoses.cases().keys() and len(results["parts"]) == len(diagnoses.PARTS)
    for name, (of, planted, case) in diagnoses.cases().items():
        row = results["cases"][name]
        assert (row["set"], row["fault"], tuple(row["accepted"])) == (of, planted, case.accepted)
        first = row["limits"][:1]
        assert row["right"] == (bool(first) and first[0] in case.accepted if planted else not first)
