"""The parts of `benchmarks.transfer`, on exact scores: what is carried over, and what its figures mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import scoresde
from benchmarks import transfer
from benchmarks._few_problems import VP, Problem
from scoresde.grids import VPTime

F64 = torch.float64
TARGET = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 1e-2], dtype=F64))


def case(sde: Any = VP, pilots: int = 16) -> transfer.Case:
    score = TARGET.score(sde)
    x = sde.prior_sample((pilots + 4, 2), generator=torch.Generator().manual_seed(4), dtype=F64)
    return transfer.Case(Problem("gaussian", "report", "exact", sde, score, x, score), pilots)


@pytest.mark.parametrize("budget", [5, 10])
def test_a_choice_is_carried_as_its_method_and_its_grid(budget: int) -> None:
    here = case()
    chosen: Any = here.record(transfer.tuned, transfer.CHOSEN)
    assert (chosen.ranking[0].method, chosen.ranking[0].grid) == ("IPNDM()", "VPTime(scale=0.3, power=0.25)")
    x, _ = here.rows(slice(here.pilots, None))
    by_hand = scoresde.solve(VP, TARGET.score(VP), x, method="ipndm", grid=VPTime(0.3, 0.25), steps=budget)
    assert by_hand.evaluations == budget
    assert torch.equal(scoresde.solve(VP, TARGET.score(VP), x, method=transfer.carried(here, budget)).x, by_hand.x)


def test_no_pilot_is_among_the_errors() -> None:
    """However many of them there are."""
    for pilots in (4, 16):
        here = case(pilots=pilots)
        assert len(here.given(transfer.PILOT)["x"]) == pilots
        x, _ = here.rows(slice(pilots, None))
        got = scoresde.solve(VP, TARGET.score(VP), x, method="auto", steps=8).x
        errors = (got - here.ends[pilots:]).square().mean(1).sqrt()
        assert here.solve(method="auto", steps=8)["median"] == pytest.approx(float(errors.median()))


def test_a_record_is_made_on_the_first_problem_and_used_on_the_second() -> None:
    source, target = case(), case(scoresde.EDMSDE())
    row = transfer.measure(source, target, "tuned", transfer.tuned, 5)
    record = source.record(transfer.tuned, 5).on(target.problem.sde)
    assert row["transferred"] == target.solve(method=record)
    assert row["made"] == target.solve(method=target.record(transfer.tuned, 5))
    assert row["auto"] == target.solve(method="auto", steps=5)
    assert len({figures["median"] for figures in row.values()}) == 3


def test_a_pair_that_is_refused_has_no_figure_and_is_counted() -> None:
    """A process of little noise: most steps of the record are beyond its end."""
    row = transfer.measure(case(), case(scoresde.EDMSDE(sigma_max=0.1)), "tuned", transfer.tuned, 5)
    assert set(row) == {"made", "auto"}
    found = {"transferred": {"median": 1.0, "rms": 8.0}, "made": {"median": 0.5, "rms": 2.0}}
    rows = {
        "a": {**found, "auto": {"median": 2.0, "rms": 2.0}},
        "b": {**found, "auto": {"median": 0.5, "rms": 1.0}},
        "c": row,
    }
    pairs = {name: dict.fromkeys(("5", "8", "10"), row) for name, row in rows.items()}
    got = transfer.summary({"another process": {"tuned": pairs}})["another process"]["tuned"]["8"]
    assert (got["pairs"], got["refused"]) == (2, 1)
    assert got["transferred"]["median"] == {"mean": pytest.approx(1.0), "worst": 2.0}
    assert got["made"]["median"] == {"mean": pytest.approx(0.5), "worst": 1.0}
    assert got["transferred / made"]["rms"] == {"mean": pytest.approx(4.0), "worst": 4.0}
    assert got["transferred"]["rms"]["mean"] == pytest.approx(math.sqrt(32))


@pytest.mark.parametrize(("part", "labels"), [("0 to 4", {0, 1, 2, 3, 4}), ("5 to 9", {5, 6, 7, 8, 9})])
def test_the_labels_of_a_problem(part: str, labels: set[int]) -> None:
    problem, pilots = transfer.problem_of(f"digits, EDM, labels {part}", None)
    assert set(problem.context["label"].tolist()) == labels
    assert len(problem.x) > pilots
