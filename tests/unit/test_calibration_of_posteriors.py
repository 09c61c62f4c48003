"""Calibration of posteriors, on a normal model whose posterior is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.trust.calibration import Calibration, sbc_ranks, simulation_based_calibration, tarp
from tests.unit.refusals import assert_refused

F64 = torch.float64
TESTS: list[Callable[..., Calibration]] = [simulation_based_calibration, tarp]


def simulated(
    seed: int, n: int, m: int, d: int, *, scale: float = 1.0, shift: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, samples and observations of theta ~ N(0, 1), y ~ N(theta, 1/4), whose posterior is N(0.8 y, 0.2);
    the samples have a standard deviation of ``scale`` times the right one, and a shift in its units."""
    generator = torch.Generator().manual_seed(seed)
    theta, noise = (torch.randn(n, d, generator=generator, dtype=F64) for _ in range(2))
    y = theta + 0.5 * noise
    z = torch.randn(m, n, d, generator=generator, dtype=F64)
    return theta, 0.8 * y + math.sqrt(0.2) * (scale * z + shift), y


def most(trials: int, rate: float) -> int:
    """The number of alarms that is exceeded with probability 1e-4, at a rate."""
    return int(stats.binom.isf(1e-4, trials, rate))


def test_ranks_by_hand() -> None:
    theta = torch.tensor([[0.0, 5.0], [2.5, -1.0]])
    samples = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert sbc_ranks(theta, samples).tolist() == [[0, 3], [2, 0]]
    assert sbc_ranks(theta, samples).dtype == torch.int64


def test_ranks_of_ties_are_uniform() -> None:
    """Coins have two values, but their ranks are uniform (chi-squared, one false alarm in 10,000)."""
    generator = torch.Generator().manual_seed(0)
    theta, samples = (torch.randint(2, shape, generator=generator).float() for shape in ((5000, 1), (4, 5000, 1)))
    ranks = sbc_ranks(theta, samples, seed=3)
    assert stats.chisquare(torch.bincount(ranks[:, 0], minlength=5).numpy()).pvalue > 1e-4
    assert torch.equal(ranks, sbc_ranks(theta, samples, seed=3)) and not torch.equal(ranks, sbc_ranks(theta, samples))
    assert simulation_based_calibration(theta, samples).calibrated


def test_coverage_and_statistic_by_hand() -> None:
    """The coverage is the share of ranks below k; the p-value is that of the smallest binomial tail."""
    theta, samples, _ = simulated(1, 40, 6, 2, scale=0.6)
    got = simulation_based_calibration(theta, samples, seed=5)
    ranks = sbc_ranks(theta, samples).numpy()
    assert torch.equal(got.ranks, torch.from_numpy(ranks)) and got.draws == 6
    assert got.levels.tolist() == pytest.approx([k / 7 for k in range(1, 7)])
    assert got.coverage[:, 1].tolist() == [(ranks[:, 1] < k).mean() for k in range(1, 7)]
    assert got.value == pytest.approx(max(abs((ranks[:, j] < k).mean() - k / 7) for j in (0, 1) for k in range(1, 7)))

    def least(ranks: np.ndarray) -> np.ndarray:
        k = np.arange(1, 7)
        counts, law = (ranks[..., None] < k).sum(-2), stats.binom(40, k / 7)
        return np.minimum(law.cdf(counts), law.sf(counts - 1)).min(-1)

    null = least(np.random.default_rng(0).integers(7, size=(4000, 40)))
    for j in (0, 1):
        expected = (null <= least(ranks[:, j]) * (1 + 1e-9)).mean()
        assert float(got.p_values[j]) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000 + 0.25 / 999))


@pytest.mark.parametrize("columns", [1, 3])
def test_the_band_is_where_the_verdict_is_calibrated(columns: int) -> None:
    """Exactly, with as few draws as two."""
    for level in (0.5, 0.9, 0.99):
        verdicts = set()
        for seed in range(0, 40, 4):
            theta, samples, _ = simulated(seed, 30, 2 + seed, columns, scale=1 - 0.02 * seed)
            got = simulation_based_calibration(theta, samples, level=level, seed=seed)
            low, high = (end[:, None] for end in got.band)
            inside = (got.coverage >= low) & (got.coverage <= high)
            assert [v == "calibrated" for v in got.verdicts] == inside.all(0).tolist()
            assert got.calibrated == bool(inside.all()) == (got.verdict == "calibrated")
            assert got.calibrated == (got.p_value > 1 - level + 1e-9) and got.false_alarm == 1 - level
            verdicts.add(got.calibrated)
        assert verdicts == {True, False} or level == 0.99


@pytest.mark.parametrize("trials", [80, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("test", TESTS)
def test_false_alarms(test: Callable[..., Calibration], d: int, trials: int) -> None:
    """At 5 % for all parameters together (the limit fails one time in 10,000; it sees a rate of 24 % in 80 repetitions
    and of 13 % in 300 at least nine times in ten), with the seed of the test that of the parameters."""
    alarms = sum(not test(*simulated(k, 40, 19, d)[:2], seed=k).calibrated for k in range(trials))
    assert alarms <= most(trials, 0.05)


@pytest.mark.parametrize("trials", [80, pytest.param(300, marks=pytest.mark.slow)])
def test_parameters_that_are_equal_raise_no_false_alarms(trials: int) -> None:
    """The family-wise rate holds however parameters depend on each other; equal ones are conservative."""
    alarms = 0
    for k in range(trials):
        theta, samples, _ = simulated(k, 40, 19, 1)
        alarms += not simulation_based_calibration(theta.expand(-1, 4), samples.expand(-1, -1, 4), seed=k).calibrated
    assert alarms <= most(trials, 0.05)


@pytest.mark.parametrize("d", [1, 5])
def test_what_is_wrong_with_posteriors(d: int) -> None:
    """Too narrow, too wide, and biased ones, by more than the test can miss."""
    for options, verdict in (
        ({"scale": 0.6}, "over-confident"),
        ({"scale": 1.6}, "under-confident"),
        ({"shift": 0.4}, "biased"),
        ({"shift": -0.4}, "biased"),
    ):
        got = simulation_based_calibration(*simulated(0, 300, 99, d, **options)[:2])
        assert set(got.verdicts) == {verdict} and got.verdict == verdict
        if verdict != "biased":
            assert tarp(*simulated(0, 300, 99, d, **options)[:2]).verdict == verdict
    assert tarp(*simulated(0, 300, 99, d, shift=1.5)[:2]).verdict == "over-confident"


def test_the_verdict_is_that_of_the_worst_parameter() -> None:
    theta, samples, _ = simulated(1, 300, 99, 3)
    samples[..., 1] += 0.2
    samples[..., 2] = samples[..., 2].mean(0) + 0.3 * (samples[..., 2] - samples[..., 2].mean(0))
    got = simulation_based_calibration(theta, samples)
    assert got.verdicts == ("calibrated", "biased", "over-confident")
    assert got.verdict == "over-confident" and got.p_value == pytest.approx(3 * float(got.p_values.min()))


def test_ranks_that_are_wrong_in_another_way() -> None:
    """Three of 0, …, 8, with the right mean and variance."""
    ranks = torch.tensor([1.0, 4.0, 7.0]).repeat_interleave(torch.tensor([148, 104, 148]))
    samples = torch.arange(8.0)[:, None, None].expand(8, 400, 1)
    got = simulation_based_calibration(ranks[:, None] - 0.5, samples)
    assert torch.equal(got.ranks[:, 0], ranks.long())
    assert got.verdict == "not calibrated"


def test_its_ranks_are_those_of_distances() -> None:
    theta, samples, _ = simulated(2, 50, 20, 3)
    samples = samples * torch.tensor([1.0, 100.0, 0.01])
    theta = theta * torch.tensor([1.0, 100.0, 0.01])
    references = theta.flip(0)
    scale = torch.cat([theta[None], samples]).flatten(0, 1).std(0)
    far = ((samples - references) / scale).norm(dim=-1), ((theta - references) / scale).norm(dim=-1)
    got = tarp(theta, samples, references=references)
    assert torch.equal(got.ranks[:, 0], (far[0] < far[1]).sum(0))
    assert got.distances and got.coverage.shape == (20, 1)


def test_it_sees_the_joint_distribution() -> None:
    """Samples of the right marginal distributions, but equal to each other in both parameters."""
    theta, samples, y = simulated(3, 500, 99, 2)
    samples[..., 1] = 0.8 * y[:, 1] + (samples[..., 0] - 0.8 * y[:, 0])
    assert simulation_based_calibration(theta, samples).calibrated
    assert not tarp(theta, samples).calibrated


def test_references_are_on_all_sides() -> None:
    """From the middle, posteriors at -theta would be as far as those at theta."""
    theta, samples, _ = simulated(3, 200, 49, 2)
    assert tarp(theta, samples).calibrated and not tarp(theta, -samples).calibrated
    assert tarp(theta, -samples, references=torch.zeros_like(theta)).calibrated


def test_references_that_depend_on_the_observation_find_what_others_miss() -> None:
    """The prior in place of the posterior."""
    theta, _, y = simulated(4, 400, 99, 1)
    prior = torch.randn(99, 400, 1, generator=torch.Generator().manual_seed(1), dtype=F64)
    assert simulation_based_calibration(theta, prior).calibrated and tarp(theta, prior).calibrated
    assert not tarp(theta, prior, references=y).calibrated
    exact = simulated(4, 400, 99, 1)[1]
    assert tarp(theta, exact, references=y).calibrated


@pytest.mark.parametrize("test", TESTS)
def test_a_seed_determines_the_result(test: Callable[..., Calibration]) -> None:
    theta, samples, _ = simulated(5, 60, 9, 2)
    state = torch.get_rng_state()
    first, again, other = (test(theta, samples, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.p_values, again.p_values) and torch.equal(first.ranks, again.ranks)
    assert not torch.equal(first.p_values, other.p_values)
    assert repr(first) == repr(again) and "verdict=calibrated" in repr(first)


@pytest.mark.parametrize("test", TESTS)
def test_ranks_do_not_depend_on_dtype_or_unit(test: Callable[..., Calibration]) -> None:
    theta, samples, _ = simulated(6, 30, 9, 2)
    theta, samples = theta.half(), samples.half()
    exact = test(theta.double(), samples.double()).ranks
    assert torch.equal(test(theta, samples).ranks, exact)
    assert torch.equal(test(theta.double() * 2**40, samples.double() * 2**40).ranks, exact)
    assert torch.equal(test(theta.requires_grad_(), samples).ranks, exact)


def test_many_simulations_of_uniform_ranks_are_made_in_blocks() -> None:
    """Of 600 parameters, which need more of them, the distribution is that of one: p-values of a right posterior are
    uniform (their mean is within 4 standard errors of 1/2: a false alarm in 15,000)."""
    theta, samples, _ = simulated(7, 20, 99, 600)
    got = simulation_based_calibration(theta, samples)
    assert float(got.p_values.min()) >= 1 / 120_000
    assert abs(float(got.p_values.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 600) + 0.05  # of 20 ranks p-values are coarse


@pytest.mark.parametrize("test", TESTS)
def test_parameters_that_are_all_equal(test: Callable[..., Calibration]) -> None:
    """Constants have ranks that are drawn."""
    theta = torch.full((100, 1), 0.1)
    assert test(theta, theta.expand(9, 100, 1)).calibrated
    assert test(theta, torch.full((9, 100, 1), 0.2)).p_value <= 0.01


def test_refusals() -> None:
    theta, samples, _ = simulated(8, 10, 6, 2)
    bad, infinite = theta.clone(), samples.clone()
    bad[1, 0], infinite[2, 3, 1] = torch.nan, torch.inf
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: tarp(theta, samples, level=95), InvalidArgumentError, "level"),
        (lambda: tarp(theta, samples, level=1 - 1e-7), InvalidArgumentError, r"`level` must be at most 0\.9999"),
        (lambda: tarp(theta, samples, seed=-1), InvalidArgumentError, "seed"),
        (lambda: tarp(theta, samples, references=theta[:3]), InvalidArgumentError, "references"),
        (lambda: tarp(theta, samples, references=bad), NonFiniteError, "references"),
        (lambda: tarp(theta, samples, references=theta.long()), InvalidTypeError, "references"),
    ]
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (theta[:, :1], samples, InvalidArgumentError, ""),
        (theta[:1], samples[:, :1], InvalidArgumentError, ""),
        (theta, samples[:1], InvalidArgumentError, ""),
        (theta, samples.movedim(0, 1), InvalidArgumentError, r"got \(10, 6, 2\); try samples.movedim\(1, 0\)"),
        (bad, samples, NonFiniteError, ""),
        (theta, infinite, NonFiniteError, r"`samples` .* 1 of 10 simulations \(first: \[3\]\)"),
        (theta, samples.long(), InvalidTypeError, ""),
    ]
    for test in (*TESTS, sbc_ranks):
        cases += [(lambda test=test, a=a, b=b: test(a, b), error, text) for a, b, error, text in wrong]
    assert_refused(cases)
