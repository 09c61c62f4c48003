"""The parts of `benchmarks.transfer`, on exact scores, and what `docs/few_evaluations.md` says of its figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import scoresde
from benchmarks import transfer
from benchmarks._few_problems import FLOW, VP, Problem
from benchmarks._tables import load

F64 = torch.float64
TARGET = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 1e-2], dtype=F64))


def case(sde: Any = VP, pilots: int = 16) -> transfer.Case:
    score = TARGET.score(sde)
    x = sde.prior_sample((pilots + 4, 2), generator=torch.Generator().manual_seed(4), dtype=F64)
    return transfer.Case(Problem("gaussian", "report", "exact", sde, score, x, score), pilots)


@pytest.mark.parametrize("budget", [5, 10])
def test_a_choice_is_carried_as_its_method_and_its_grid(budget: int) -> None:
    """And begins where lists of candidates begin."""
    here = case()
    chosen: Any = here.record(transfer.tuned, transfer.CHOSEN)
    method, grid, start = chosen.ranking[0].method, *chosen.ranking[0].grid.split(", from ")
    assert (method, grid, start) == ("Euler()", "quadratic", "sigma/alpha = 100")
    x, _ = here.rows(slice(here.pilots, None))
    by_hand = scoresde.solve(VP, TARGET.score(VP), x, method="euler", grid="quadratic", steps=budget)
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


class TestFigures:
    """What the page says of the committed figures."""

    RESULTS = load("transfer")["results"]

    def mean(self, group: str, kind: str, budget: int, what: str = "transferred", figure: str = "median") -> float:
        got: float = self.RESULTS["ratios"][group][kind][str(budget)][what][figure]["mean"]
        return got

    def test_the_ratios_are_those_of_the_errors(self) -> None:
        ratios = transfer.summary(self.RESULTS["groups"])
        assert list(ratios) == list(self.RESULTS["ratios"]) == list(transfer.GROUPS)
        for group, kinds in ratios.items():
            for kind, budgets in kinds.items():
                for budget, row in budgets.items():
                    known = self.RESULTS["ratios"][group][kind][budget]
                    assert (row["pairs"], row["refused"]) == (known["pairs"], known["refused"])
                    for what in transfer.RATIOS:
                        for figure in ("median", "rms"):
                            assert row[what][figure] == pytest.approx(known[what][figure], rel=1e-4)

    def test_nothing_was_refused(self) -> None:
        assert not any(
            row["refused"] for g in self.RESULTS["ratios"].values() for k in g.values() for row in k.values()
        )

    @pytest.mark.parametrize("budget", transfer.BUDGETS)
    @pytest.mark.parametrize("kind", ["tuned", "learned"])
    def test_with_other_labels_nothing_is_lost(self, kind: str, budget: int) -> None:
        assert self.mean("other labels", kind, budget, "transferred / made") < 1.1
        if kind == "learned":
            assert self.mean("other labels", kind, budget) < 0.4

    def test_a_choice_gains_nothing_at_5_evaluations_of_digits(self) -> None:
        for group in ("other labels", "another process", "guidance 3, used with 1", "small networks, used on digits"):
            assert self.mean(group, "tuned", 5, "made") > 0.97

    @pytest.mark.parametrize("budget", transfer.BUDGETS)
    def test_on_another_process(self, budget: int) -> None:
        """A learned solver has a third of the error of ``auto``, and a choice is about as good as one made there."""
        assert self.mean("another process", "learned", budget) < 0.37
        assert self.mean("another process", "tuned", budget, "transferred / made") < 1.25

    def test_the_end_of_vp_is_too_early_for_flow(self) -> None:
        """The record ends where VP does, and the states are those of flow there."""
        end = case().record(transfer.tuned, 5).on(FLOW).times[-1]
        assert float(FLOW.log_snr(end)) == pytest.approx(float(VP.log_snr(VP.t_min)))
        assert float(FLOW.alpha(end)) == pytest.approx(0.99, abs=5e-4)
        pairs = self.RESULTS["groups"]["another process"]["learned"]
        for pair, row in pairs.items():
            lost = row["10"]["transferred"]["median"] / row["10"]["made"]["median"]
            assert (lost > 5) == (pair == "digits, VP → digits, flow")

    @pytest.mark.parametrize("budget", transfer.BUDGETS)
    def test_on_guidance_that_it_was_not_made_for(self, budget: int) -> None:
        """A learned solver errs 1.6 to 2.8 times as much as one made there, and less than ``auto``."""
        for group in ("guidance 1, used with 3", "guidance 3, used with 1"):
            assert 1.6 < self.mean(group, "learned", budget, "transferred / made") < 2.85
            assert self.mean(group, "learned", budget) < 0.9

    def test_a_choice_for_guidance_3_is_worse_without(self) -> None:
        rows = self.RESULTS["ratios"]["guidance 3, used with 1"]["tuned"].values()
        assert max(row["transferred"]["median"]["worst"] for row in rows) == pytest.approx(1.6, abs=0.05)
        back = self.RESULTS["ratios"]["guidance 1, used with 3"]["tuned"].values()
        assert max(row["transferred"]["median"]["worst"] for row in back) < 1.01

    @pytest.mark.parametrize(("kind", "low", "high"), [("tuned", 0.75, 1.75), ("learned", 1.6, 9.4)])
    def test_between_networks_it_is_mostly_worse_than_auto(self, kind: str, low: float, high: float) -> None:
        groups = "digits, used on small networks", "small networks, used on digits"
        means = [self.mean(group, kind, budget) for group in groups for budget in transfer.BUDGETS]
        assert min(means) == pytest.approx(low, abs=0.05)
        assert max(means) == pytest.approx(high, abs=0.05)
        assert all(self.mean(group, "learned", budget, "made") < 0.4 for group in groups for budget in transfer.BUDGETS)

    @pytest.mark.parametrize("budget", transfer.BUDGETS)
    def test_between_digits_and_mnist_the_gain_is_lost(self, budget: int) -> None:
        """Three times the error of what is made there, or more."""
        assert self.mean("digits and MNIST, each used on the other", "learned", budget, "transferred / made") > 3
        assert self.mean("digits and MNIST, each used on the other", "tuned", budget) > 0.96

    def test_a_choice_for_8_evaluations_serves_for_10_and_not_for_5(self) -> None:
        group = "8 evaluations, used with 5 and 10"
        assert self.mean(group, "tuned", 10, "transferred / made") < 1.2
        assert self.mean(group, "tuned", 5, "transferred / made") > 1.25
        assert self.RESULTS["ratios"][group]["tuned"]["5"]["transferred"]["median"]["worst"] > 2
