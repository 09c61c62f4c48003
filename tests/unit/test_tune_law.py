"""`tune` by a distance of distributions: the estimate itself, what it ranks, and stochastic methods in a record."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import solve, tune
from scoresde.core.errors import CorruptCheckpointError
from scoresde.solvers import from_config
from scoresde.solvers.registry.auto import HIGH
from scoresde.tuning import FittedGrid, PilotErrors, Tuned, energy
from scoresde.tuning.objectives import Distributions
from scoresde.tuning.pilot import Pilot
from scoresde.tuning.tuning import CANDIDATES, STOCHASTIC
from tests.unit.refusals import assert_refused
from tests.unit.strategies import between

F64 = torch.float64
SDE = scoresde.VPSDE()
RING = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.1
)
ROUNDING = 1e-12  # of a sum of some thousand float64 numbers near 1
ERSDE = ("er_sde2", "vp_quadratic")


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def by_hand(x: Tensor, y: Tensor) -> float:
    """The U-statistic, pair by pair."""
    n, total = len(x), 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                a, b, c = (float((u - v).norm()) for u, v in ((x[i], y[j]), (x[i], x[j]), (y[i], y[j])))
                total += 2 * a - b - c
    return total / (n * (n - 1))


def of_normals(mean: float, std: float) -> float:
    r"""D^2 of N(0, 1) and N(mean, std^2): :math:`E|N(m, s^2)| = s\sqrt{2/\pi}e^{-m^2/2s^2} + m\,\mathrm{erf}(m/s
    \sqrt 2)`."""

    def length(m: float, s: float) -> float:
        return s * math.sqrt(2 / math.pi) * math.exp(-((m / s) ** 2) / 2) + m * math.erf(m / (s * math.sqrt(2)))

    return 2 * length(mean, math.hypot(1, std)) - length(0, math.sqrt(2)) - length(0, std * math.sqrt(2))


class TestEnergy:
    def test_it_is_the_mean_over_pairs(self) -> None:
        x, y, other = draws(0, 12, 3), 0.3 + draws(1, 12, 3), draws(2, 12, 3)
        assert energy.energy(x, y).value == pytest.approx(by_hand(x, y), abs=ROUNDING)
        wanted = by_hand(x, y) - by_hand(other, y)
        assert energy.difference(x, other, y).value == pytest.approx(wanted, abs=ROUNDING)
        x, y = draws(0, 1100, 3), 0.3 + draws(1, 1100, 3)  # more pairs than are compared at a time
        across, own, its = torch.cdist(x, y), torch.cdist(x, x), torch.cdist(y, y)
        total = 2 * (across.sum() - across.diagonal().sum()) - own.sum() - its.sum()
        assert energy.energy(x, y).value == pytest.approx(float(total) / (1100 * 1099), abs=1e-9)

    def test_its_error_is_that_of_the_jackknife(self) -> None:
        """Of distributions that are far apart, where no floor is needed."""
        x, y = draws(0, 15, 2), 2.0 + draws(1, 15, 2)
        left_out = torch.tensor([by_hand(x[keep], y[keep]) for keep in 1 - torch.eye(15) > 0], dtype=F64)
        wanted = math.sqrt(14 / 15 * float((left_out - left_out.mean()).square().sum()))
        assert energy.energy(x, y).error == pytest.approx(wanted, rel=1e-9)  # a sum of squares of differences

    def test_normals(self) -> None:
        """Within four standard errors of the closed form, 7 in 100,000 for each; pairs that are drawn together too."""
        y = draws(3, 1000, 1)
        for mean, std in ((0.0, 1.0), (0.5, 1.0), (0.0, 1.5), (1.0, 0.5)):
            for coupled in (False, True):
                found = energy.energy(mean + std * (y if coupled else draws(4, 1000, 1)), y)
                assert abs(found.value - of_normals(mean, std)) <= 4 * found.error, (mean, std, coupled)
                assert found.error < 0.1

    def test_it_has_no_bias_and_an_honest_error_where_the_distributions_are_the_same(self) -> None:
        """Of 200 pairs of sets, the mean is within four of its standard errors (a false alarm in 15,000), and hardly
        any value is beyond two of its own: more than 2 % are if the errors are a third too small."""
        sets = draws(5, 2, 200, 40, 2)
        found = torch.tensor([energy.energy(x, y) for x, y in zip(*sets, strict=True)], dtype=F64)
        value, error = found.unbind(1)
        assert abs(float(value.mean())) < 4 * float(value.std()) / math.sqrt(200)
        assert float(value.std()) < float(error.square().mean().sqrt()) < 2 * float(value.std())
        assert float((value.abs() > 2 * error).double().mean()) < 0.02

    def test_equal_samples_and_those_that_are_not_finite(self) -> None:
        x, y = draws(0, 20, 2), draws(1, 20, 2)
        assert energy.energy(x.reshape(20, 1, 2), x.reshape(20, 1, 2)) == (0.0, 0.0)
        for value in (math.nan, math.inf, 1e200):
            x[3, 1] = value
            assert energy.energy(x, y) == (math.inf, math.inf)


POINT = scoresde.targets.Gaussian(torch.tensor([0.6, -0.3], dtype=F64), 1e-16 * torch.eye(2, dtype=F64))
EULER = ("euler_maruyama", None)


class TestRanking:
    def test_an_exact_method_is_ahead_of_one_that_is_not(self) -> None:
        """For data in one point the data estimate is constant, and `ddim_eta` samples the distribution exactly at all
        times, here one half. The reference is other draws of it."""
        mean = SDE.node(0.5).alpha * torch.tensor([0.6, -0.3], dtype=F64)
        exact = mean + SDE.node(0.5).sigma * draws(7, 1024, 2)
        pairs = [EULER, ("ddim_eta", None)]
        for reference in (exact, None):
            options: dict[str, Any] = {"candidates": pairs, "t_end": 0.5, "reference": reference, "pilot": 1024}
            tuned = tune(SDE, POINT.score(SDE), 4, objective="law", dtype=F64, **options)
            first, last = tuned.ranking
            assert tuned.method == first.method and last.method == "EulerMaruyama()"
            assert (first.behind, first.uncertainty) == (1.0, 0.0)
            assert abs(first.distance) < 3 * first.distance_error < last.distance
            assert last.behind > math.exp(2 * last.uncertainty) > 1
            assert tuned.fitted == PilotErrors(first.rms, first.median, first.distance, first.distance_error)
            assert math.isnan(tuned.default.median) and tuned.default.distance is None

    def test_a_stochastic_method_is_chosen_where_it_is_better(self) -> None:
        tuned = tune(SDE, RING.score(SDE), 5, objective="law", candidates=[("ddim", "time"), ERSDE], dtype=F64)
        first, last = tuned.ranking
        assert from_config(first.method).stochastic and last.behind > math.exp(2 * last.uncertainty)
        solution = solve(SDE, RING.score(SDE), method=tuned, shape=(4, 2), seeds=range(4))
        assert solution.evaluations == tuned.evaluations == 5

    def test_the_default_list_has_both_kinds(self) -> None:
        tuned = tune(SDE, RING.score(SDE), 8, objective="law", pilot=64, dtype=F64)
        kinds = [from_config(row.method).stochastic for row in tuned.ranking]
        assert sum(kinds) == len(STOCHASTIC) and kinds.count(False) >= len(CANDIDATES)
        assert tuned.cost.pilots <= 50 * 8 + 102 and tuned.cost.calls == tuned.cost.pilots
        assert tuned.default.distance is not None and tuned.fitted.distance <= max(
            tuned.default.distance, tuned.default.distance_error
        )

    def test_the_default_reference_is_an_accurate_solve_from_where_candidates_begin(self) -> None:
        far = scoresde.VPSDE(beta_min=1e-6, beta_max=32.0)  # to a noise level of 2,981; candidates begin at 300
        batch = pilot_of(draws(0, 64, 2), far, level=HIGH)
        given: dict[str, Any] = {"t_start": batch.start, "method": "adams", "rtol": 1e-10, "atol": 1e-10}
        exact = solve(far, RING.score(far), batch.x, **given).x
        found = Distributions.exact(batch, 8)
        assert batch.from_noise
        assert abs(energy.energy(found, exact).value) < 1e-9  # as far as the start changes it: 1e-6

    def test_luck_is_not_ahead_of_what_is_known(self) -> None:
        """Of a small distance that is known well and a negative estimate with a large error, the former is first, and
        the other cannot be told from it."""
        y = draws(0, 64, 2)
        good, lucky = y + 1e-3 * draws(1, 64, 2), min((draws(k, 64, 2) for k in range(2, 22)), key=lambda x: by(x, y))
        compared = Distributions([lucky, good, y + 3.0], y)
        assert compared.errors(0).distance < 0 < compared.scores[1] < compared.scores[0] < compared.scores[2]
        for i, tied in enumerate((True, True, False)):
            behind, uncertainty = compared.behind(i, 1)
            assert behind >= 1 and (behind <= math.exp(2 * uncertainty)) == tied

    def test_the_uncertainty_is_that_of_the_difference(self) -> None:
        """``behind`` is at its limit where the distances differ by two standard errors of the difference."""
        y = draws(0, 64, 2)
        ends = [y + 0.8 + 0.5 * draws(1, 64, 2), y + 0.7]
        best, other = (energy.energy(x, y).value for x in reversed(ends))
        behind, uncertainty = Distributions(ends, y).behind(0, 1)
        assert behind == pytest.approx(other / best)
        limit = best + 2 * energy.difference(*ends, y).error
        assert math.exp(2 * uncertainty) == pytest.approx(limit / best)


def by(x: Tensor, y: Tensor) -> float:
    return energy.energy(x, y).value


class TestFailures:
    @staticmethod
    def score(x: Tensor, t: Tensor) -> Tensor:
        """It overflows in one sample at times that only some grids have."""
        bad = ((t < 0.2) & (t > 0.1))[:, None] & (torch.arange(len(x)) == 0)[:, None]
        return torch.where(bad, torch.inf, RING.score(SDE)(x, t))

    @pytest.mark.parametrize("method", ["ddim", "ddim_eta"])
    def test_a_candidate_with_a_sample_that_fails_comes_last(self, method: str) -> None:
        pairs = [(method, between(0.15)), (method, between(0.5))]
        given = {"x": draws(0, 16, 2), "reference": draws(1, 16, 2), "objective": "law"}
        tuned = tune(SDE, self.score, 2, candidates=pairs, **given)
        assert [row.grid for row in tuned.ranking] == ["at 0.5", "at 0.15"]
        last = tuned.ranking[1]
        assert math.isinf(last.distance) and math.isinf(last.behind) and math.isinf(last.uncertainty)
        assert math.isfinite(tuned.fitted.distance)
        with pytest.raises(scoresde.NonFiniteError, match="Every candidate"):
            tune(SDE, self.score, 2, candidates=pairs[:1], **given)


class TestSeeds:
    OPTIONS: dict[str, Any] = {"objective": "law", "candidates": [ERSDE, EULER], "reference": 20}

    def test_it_is_a_function_of_its_seed(self) -> None:
        torch.manual_seed(0)
        one = tune(SDE, RING.score(SDE), 4, pilot=32, **self.OPTIONS)
        again, other = (tune(SDE, RING.score(SDE), 4, pilot=32, seed=seed, **self.OPTIONS) for seed in (0, 2**40))
        assert str(vars(one)) == str(vars(again)) and one.ranking != other.ranking

    def test_the_noise_of_a_sample_does_not_depend_on_the_batch(self) -> None:
        """The first half of the pilot ends where it ends without the other half."""
        found: list[Tensor] = []
        for count in (32, 16):
            batch = pilot_of(draws(0, 32, 2)[:count])
            found.append(batch.solve(scoresde.solvers.EulerMaruyama(), batch.times(None, 4)))
        torch.testing.assert_close(found[0][:16], found[1], rtol=0, atol=ROUNDING)
        rows = batch.solve(scoresde.solvers.EulerMaruyama(), batch.times(None, 4), slice(8, 16))
        torch.testing.assert_close(rows, found[1][8:], rtol=0, atol=ROUNDING)


def pilot_of(x: Tensor, sde: scoresde.SDE = SDE, level: float = math.inf) -> Pilot:
    return Pilot.of(
        sde, RING.score(sde), None, x=x, checkpoint=False, level=level, shape=None, seed=3, t_start=None,
        t_end=None, context=None, dtype=None, device=None,
    )  # fmt: skip


def test_the_distributions_are_those_over_the_contexts() -> None:
    """Samples that have the classes of each other have the right distribution."""

    def score(x: Tensor, t: Tensor, sign: Tensor) -> Tensor:
        node = SDE.nodes(t)
        return -(x - (node.alpha * sign)[:, None]) / (node.alpha**2 * 1e-2 + node.sigma**2)[:, None]

    sign = torch.ones(64, dtype=F64)
    sign[::2] = -1
    x, pairs = draws(0, 64, 1), [("dpmpp_2m", None)]
    options: dict[str, Any] = {"x": x, "candidates": pairs, "objective": "law"}
    ends = solve(SDE, score, draws(1, 64, 1), method="unipc3", steps=40, context={"sign": -sign}).x
    found = tune(SDE, score, 12, context={"sign": sign}, reference=ends, **options).fitted
    assert abs(found.distance) < 2 * found.distance_error < 0.2 < 1 < found.median
    found = tune(SDE, score, 12, context={"sign": torch.ones(1, dtype=F64)}, reference=ends, **options).fitted
    assert found.distance > 3 * found.distance_error


class TestRecords:
    TUNED = replace(
        tune(SDE, RING.score(SDE), 5, objective="law", candidates=[ERSDE, ("ddim", "time")], dtype=F64),
        default=PilotErrors(0.1, 0.2, 0.3, 0.4),  # what is NaN does not equal itself
    )
    X = SDE.prior_sample((3, 2), generator=torch.Generator().manual_seed(0), dtype=F64)

    def test_it_comes_back(self, tmp_path: Path) -> None:
        self.TUNED.save(tmp_path / "tuned.json")
        again = FittedGrid.load(tmp_path / "tuned.json")
        assert isinstance(again, Tuned) and again == self.TUNED and repr(again) == repr(self.TUNED)
        assert again.ranking[0].distance == self.TUNED.fitted.distance
        content = self.TUNED.fields()
        with pytest.raises(CorruptCheckpointError, match="near"):
            FittedGrid.of({**content, "fitted": {**content["fitted"], "distance": "near"}}, "x.json")  # type: ignore[dict-item]

    def test_every_default_is_itself_again(self) -> None:
        """As a method of `solve`, with the noise of the same seeds, and in a file."""
        for name, options, grid in STOCHASTIC:
            solver = scoresde.solvers.make_solver(name, options, ())
            steps = 4 * solver.evaluations + solver.extra_evaluations
            tuned = tune(SDE, RING.score(SDE), steps, objective="law", candidates=[(solver, grid)], pilot=16)
            here = solve(SDE, RING.score(SDE), self.X, method=FittedGrid.of(tuned.fields(), "x"), seeds=[1, 2, 3])
            there = solve(SDE, RING.score(SDE), self.X, method=name, **options, steps=4, grid=grid, seeds=[1, 2, 3])
            assert torch.equal(here.x, there.x) and here.evaluations == there.evaluations == steps, name


def test_refusals() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"objective": "lw"}, "objective.*law"),
        ({"candidates": [("ddim", None), EULER]}, r"candidates\[1\].*draws noise.*pass `objective='law'`"),
        ({"candidates": [("ggf", None)], "objective": "law"}, "chooses its own steps"),
        ({"objective": "law", "pilot": 15}, "at least 16 samples to compare distributions, got 15"),
        ({"objective": "law", "reference": torch.zeros(3, 2)}, "reference"),
    ]
    assert_refused((partial(tune, SDE, RING.score(SDE), 5, **given), message) for given, message in refused)
