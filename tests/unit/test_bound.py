"""The variational bound: exact answers, independence of the schedule, standard errors, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

import scoresde
from scoresde import targets, variational_bound
from scoresde.likelihood.bounds.levels import DESIGNS

from .refusals import assert_refused

F64 = torch.float64
PROCESSES = {
    "vp": scoresde.VPSDE(),
    "ve": scoresde.VESDE(),
    "sub_vp": scoresde.SubVPSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "vdm": scoresde.VDMSDE(),
}
GAUSSIAN = targets.Gaussian(torch.tensor([0.3, -0.2, 0.1], dtype=F64), torch.tensor([0.3, 0.05, 1.0], dtype=F64))


def entropy(sde: Any, t: float) -> float:
    variances = float(sde.alpha(t)) ** 2 * GAUSSIAN.spectrum.values + float(sde.sigma(t)) ** 2
    return float(0.5 * (2 * math.pi * math.e * variances).log().sum())


@pytest.mark.parametrize("name", PROCESSES)
def test_with_an_exact_score_the_mean_bound_is_the_entropy(name: str) -> None:
    """E[-ln p(z_0)] plus the divergence of the distribution at the end from the prior; 6,000 data, at 4.9 standard
    errors of draws and data together (a false alarm in 1e6; half a nat is seen, and
    less by the closed forms of `test_bound_exact`)."""
    sde = PROCESSES[name]
    x = GAUSSIAN.sample(6000, generator=torch.Generator().manual_seed(0)).to(F64)
    bound = variational_bound(sde, GAUSSIAN.score(sde), x, draws=16, seed=0)
    alpha, sigma, std = float(sde.alpha(sde.t_max)), float(sde.sigma(sde.t_max)), sde.prior.std
    ratio = (alpha**2 * GAUSSIAN.spectrum.values + sigma**2) / std**2
    divergence = float(0.5 * (ratio - 1 - ratio.log() + (alpha * GAUSSIAN.mean / std).square()).sum())
    exact = entropy(sde, sde.t_min) + divergence
    error = float(bound.total.std()) / len(x) ** 0.5
    assert float(bound.total.mean()) == pytest.approx(exact, abs=4.892 * error)
    assert error < 0.1


def test_grey_levels() -> None:
    """Data spread evenly over 17 levels: log2(17) bits at least, and hardly more, where the score knows the
    distribution and the noise at t_min is far below a level."""
    sde = scoresde.VPSDE(t_min=1e-5)
    centres = -1 + 2 * (torch.arange(17, dtype=F64) + 0.5) / 17
    target = targets.GaussianMixture(torch.ones(17), centres[:, None], scales=1e-4)
    v = torch.randint(0, 17, (3000, 1), generator=torch.Generator().manual_seed(0))
    bound = variational_bound(sde, target.score(sde), v, levels=17, draws=64, seed=0)
    error = 4.892 * float(bound.bits_per_dim.std()) / 3000**0.5
    assert float(bound.bits_per_dim.mean()) == pytest.approx(math.log2(17), abs=error + 0.02)
    assert float(bound.reconstruction.value.max()) < 1e-6


@pytest.mark.parametrize("clock", ["log_snr", "time"])
@pytest.mark.parametrize("times", DESIGNS)
@pytest.mark.parametrize("draws", [2, 9])
def test_standard_errors_are_the_spread_of_repetitions(times: str, clock: str, draws: int) -> None:
    """4000 repetitions; the ratio of variances has a relative error of some 3 %, with heavier tails in time, where
    weights differ: false alarms below 1e-3 by repetition with other seeds. An even grid is better than told."""
    sde = scoresde.VPSDE(t_min=0.05)
    x = GAUSSIAN.sample(1, generator=torch.Generator().manual_seed(0)).to(F64).repeat(4000, 1)
    options: dict[str, Any] = {"draws": draws, "times": times, "clock": clock}
    bounds = variational_bound(sde, GAUSSIAN.score(sde), x, seed=0, **options)
    ratio = float(bounds.total.var() / bounds.std_error.square().mean())
    assert 0.85 * (times != "even") < ratio < 1.15
    assert bounds.prior.std_error.abs().max() == 0.0
    again = variational_bound(sde, GAUSSIAN.score(sde), x, seed=0, **options)
    assert torch.equal(again.total, bounds.total) and bounds.nfe == draws


class Constant:
    """A noise estimate that does not depend on anything."""

    def estimate(self, x: torch.Tensor, node: Any) -> scoresde.Estimate:
        return scoresde.Estimate(x, torch.full_like(x, 2.0))

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError


@pytest.mark.parametrize("draws", [2, 3, 9])
@pytest.mark.parametrize("sde", [scoresde.VPSDE(), scoresde.FlowSDE()], ids=["vp", "flow"])
def test_an_interval_knows_the_spread_of_the_weights(sde: Any, draws: int) -> None:
    """Without noise the values are the weights times a constant, and the variance of a mean of strata is a quadrature.
    The differences of draws can only add to it."""
    x = torch.zeros(200, 3, dtype=F64)
    options: dict[str, Any] = {"clock": "time", "noise": lambda k, like: torch.zeros_like(like), "seed": 0}
    bound = variational_bound(sde, Constant(), x, draws=draws, **options)

    def weight(t: torch.Tensor) -> torch.Tensor:
        node = sde.nodes(t)
        return 0.5 * 3 * 4 * (sde.t_max - sde.t_min) * node.g2 / node.sigma**2

    sizes = [2] * (draws // 2) if draws % 2 == 0 else [2] * ((draws - 3) // 2) + [3]
    exact, u = 0.0, 0
    for size in sizes:
        low, high = (sde.t_min + (sde.t_max - sde.t_min) * v / draws for v in (u, u + size))
        near = low + (high - low) * torch.linspace(0, 1, 20_001, dtype=F64) ** 3  # finer where the weight is large
        first, second = (float(torch.trapezoid(weight(near) ** k, near)) / (high - low) for k in (1, 2))
        exact += size / draws**2 * (second - first**2)
        u += size
    deviation = bound.diffusion.deviation
    assert deviation is not None
    assert float(deviation.min()) == pytest.approx(exact**0.5, rel=1e-3)  # of the trapezoidal rule
    assert bool((deviation >= bound.diffusion.std_error).all())
    plain = variational_bound(sde, Constant(), x, draws=draws, **{**options, "clock": "log_snr"})
    assert plain.diffusion.deviation is None and float(plain.diffusion.std_error.max()) < 1e-9


def test_the_weights_of_steps_are_known_too() -> None:
    """Three steps of lengths 2, 1 and 1 on an even clock: the draws of the first of two strata are all of the first
    step, those of the second of the other two."""
    sde = scoresde.VPSDE()
    times = torch.tensor([0.2, 0.6, 0.8, 1.0], dtype=F64)
    options: dict[str, Any] = {"clock": "time", "noise": lambda k, like: torch.zeros_like(like), "seed": 0}
    bound = variational_bound(sde, Constant(), torch.zeros(50, 1, dtype=F64), steps=times, draws=4, **options)
    weights = 2.0 * torch.expm1(-0.5 * sde.log_snr(times).diff() * 2) / torch.tensor([0.5, 0.25, 0.25], dtype=F64)
    exact = 2 / 16 * float(weights[1:].var(correction=0))
    assert bound.diffusion.deviation is not None
    assert float(bound.diffusion.deviation.min()) == pytest.approx(exact**0.5, rel=1e-9)


@pytest.mark.parametrize(
    ("clock", "draws"), [("log_snr", 32), ("time", 32), pytest.param("time", 256, marks=pytest.mark.slow)]
)
def test_intervals_hold_the_mean(clock: str, draws: int) -> None:
    """Heavy tails in five dimensions, 1000 repetitions around their mean, whose own error is 30 times smaller than that
    of one: the share of a normal interval on the clock of time is 0.5 with 32 draws and 0.75 with 256. At a true share
    of 0.92 fewer than 0.885 are a false alarm in 1e4."""
    sde, scales = scoresde.VPSDE(), torch.tensor([0.15, 0.2, 0.3, 0.5, 0.9], dtype=F64)
    target = targets.GaussianMixture(torch.ones(5), torch.zeros(5, 5, dtype=F64), scales=scales)
    x = target.sample(1, generator=torch.Generator().manual_seed(2)).to(F64).repeat(1000, 1)
    bound = variational_bound(sde, target.score(sde), x, draws=draws, clock=clock, seed=0)
    low, high = bound.interval()
    mean = variational_bound(sde, target.score(sde), x, draws=64, times="even", seed=1).total.mean()
    assert float(((low < mean) & (mean < high)).to(F64).mean()) > 0.885


def test_an_interval_of_independent_draws_is_students() -> None:
    from scipy.stats import t

    sde = scoresde.VPSDE()
    x = GAUSSIAN.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
    for times, draws, freedom in (("independent", 9, 8), ("stratified", 2, 1)):  # strata of two
        bound = variational_bound(sde, GAUSSIAN.score(sde), x, draws=draws, times=times, seed=0)
        low, high = bound.interval(0.9)
        half = float(t.ppf(0.95, freedom)) * bound.std_error
        torch.testing.assert_close(high - bound.total, half, rtol=1e-9, atol=0)
        torch.testing.assert_close(high + low, 2 * bound.total)
    exact = variational_bound(sde, Constant(), torch.zeros(2, 1, dtype=F64), noise=lambda k, like: 0 * like, seed=0)
    assert torch.allclose(exact.interval()[0], exact.total) and bool(exact.interval()[1].isfinite().all())
    with pytest.raises(scoresde.InvalidArgumentError, match="`level`"):
        bound.interval(1.0)


def test_levels_in_strata_spare_draws() -> None:
    """Ten times fewer or more for the same variance, since the error at a level depends on the level most."""
    sde, target = scoresde.VPSDE(), targets.Gaussian(torch.zeros(64, dtype=F64), 0.3)
    x = target.sample(1, generator=torch.Generator().manual_seed(1)).to(F64).repeat(500, 1)
    spread = {
        times: float(variational_bound(sde, target.score(sde), x, times=times, seed=0).total.var()) for times in DESIGNS
    }
    assert max(spread["even"], spread["stratified"]) < 0.1 * spread["independent"]


def test_draws_of_levels_are_uniform() -> None:
    """Every number of a design is in [0, 1), all together are uniform: 20 cells, chi^2 below its 1 - 1e-6 quantile."""
    for times, count in itertools.product(DESIGNS, (2, 3, 4, 7)):
        u = DESIGNS[times].draw(count, 3000, torch.Generator().manual_seed(count), torch.device("cpu"))
        assert u.shape == (count, 3000) and u.dtype == F64 and float(u.min()) >= 0 and float(u.max()) < 1, times
        cells = torch.histc(u.flatten(), 20, 0, 1)
        expected = 3000 * count / 20
        assert float(((cells - expected) ** 2 / expected).sum()) < 64.0, (times, count)


def test_one_seed_gives_independent_levels_and_noise() -> None:
    """With a stream of their own, of the same seed, levels and noise would be the same numbers."""
    sde, seen = scoresde.VPSDE(), []

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(torch.stack([t, x[:, 0]]))
        return -x

    variational_bound(sde, score, torch.zeros(4000, 1, dtype=F64), draws=2, times="independent", clock="time", seed=3)
    t, z = torch.cat(seen, 1)
    z = z / sde.sigma(t)
    for f in (lambda v: v, lambda v: v.square()):
        assert abs(float(torch.corrcoef(torch.stack([f(t), f(z)]))[0, 1])) < 5 / 8000**0.5


VP, VE = scoresde.VPSDE(), scoresde.VESDE()
REFUSED: dict[str, tuple[Any, str]] = {
    "an infinite end": (lambda: bound_of(scoresde.FlowSDE(t_max=1.0)), "finite"),
    "one draw": (lambda: bound_of(VP, draws=1), "draws"),
    "a density of integers": (lambda: bound_of(VP, x=torch.zeros(2, 3, dtype=torch.long)), "`x`"),
    "a level beyond": (lambda: bound_of(VP, x=torch.full((2, 3), 17), levels=17), "16"),
    "NaN": (lambda: bound_of(VP, x=torch.full((2, 3), math.nan)), "NaN"),
    "another process": (lambda: variational_bound(VE, GAUSSIAN.score(VP), torch.zeros(2, 3)), "was made for"),
    "a score that is not finite": (lambda: variational_bound(VP, broken, torch.ones(2, 3), seed=0), "2 of 2"),
    "a decoder": (lambda: bound_of(VP, decoder=1), "decoder"),
    "a step of length 0": (lambda: bound_of(VP, steps=torch.tensor([0.1, 0.1, 0.5])), "different"),
    "steps outside": (lambda: bound_of(VP, steps=torch.tensor([0.0, 0.5])), "within"),
    "a context": (lambda: bound_of(VP, context={"y": torch.zeros(2)}), "context"),
}


def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x * math.nan


def bound_of(sde: Any, x: torch.Tensor | None = None, **options: Any) -> Any:
    return variational_bound(sde, GAUSSIAN.score(sde), torch.zeros(2, 3) if x is None else x, **options)


def test_refusals() -> None:
    assert_refused(REFUSED)
