r"""The random numbers that users get: `solve` with ``seed=`` and ``seeds=`` has the exact distribution of the discrete
scheme.

The null hypothesis needs no bias to be tuned: on Gaussian data the distribution of a fixed-grid solve is the normal
distribution that probing reads off, on a mixture the expectations of the backward recursion. Seeds are fixed, so a run
is deterministic; the stated rates say how surprising the fixed seeds would have to be for a right program to fail.

False alarms: every verdict splits `ALPHA` evenly over its comparisons (Bonferroni); with the 20 verdicts below on right
programs that is 2e-5 in all. Power: a deviation that a comparison sees with probability 0.999 is about 8 standard
errors; with the 80,000 numbers of a solve, 2.8 % of a standard deviation in the mean, 4 % of the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats

import scoresde
from scoresde import testing
from scoresde.core.noise import BatchNoise, Noise
from scoresde.solvers import Solver
from scoresde.testing.kolmogorov import OBSERVABLES, expectations, observe
from tests.convergence.problems import MIXTURE, PROCESSES

F64 = torch.float64
ALPHA = 1e-6
SEED = 20_240_601
COUNT, SIZE = 10_000, 8  # samples, and independent coordinates of each
TARGET = scoresde.targets.Gaussian(torch.tensor([0.7], dtype=F64), 0.3)
STEPS = 32


class Verdict(NamedTuple):
    """p-values by name; the distribution is rejected if the smallest is below its share of `ALPHA`."""

    p: dict[str, float]

    @property
    def rejected(self) -> bool:
        return min(self.p.values()) < ALPHA / len(self.p)


def compare(x: torch.Tensor, mean: float, variance: float) -> Verdict:
    """Independent samples against N(mean, variance): mean and variance exactly, the distribution by the
    Dvoretzky-Kiefer-Wolfowitz bound, and the independence of neighbours by their correlation."""
    z = ((x - mean) / math.sqrt(variance)).flatten()
    n = len(z)
    by_mean = 2 * special.ndtr(-abs(float(z.sum()) / math.sqrt(n)))
    square = float((z**2).sum())
    by_variance = 2 * min(stats.chi2.cdf(square, n), stats.chi2.sf(square, n))
    ranks = special.ndtr(np.sort(z.numpy()))
    gap = max((np.arange(1, n + 1) / n - ranks).max(), (ranks - np.arange(n) / n).max())
    by_cdf = min(1.0, 2 * math.exp(-2 * n * gap**2))
    rows = z.reshape(x.shape[0], -1)
    neighbours = [(rows[1:] * rows[:-1]).flatten()]
    if rows.shape[1] > 1:
        neighbours.append((rows[:, 1:] * rows[:, :-1]).flatten())
    related = [2 * special.ndtr(-abs(float(v.sum()) / math.sqrt(len(v)))) for v in neighbours]
    return Verdict(
        {"mean": by_mean, "variance": by_variance, "distribution": by_cdf, "neighbours": min(1.0, 2 * min(related))}
    )


def discrete_law(sde: scoresde.AffineSDE, method: str | Solver, **options: Any) -> tuple[float, float]:
    """The exact mean and variance of a solve from the prior."""

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        options.setdefault("steps", STEPS)
        return scoresde.solve(sde, TARGET.score(sde), method=method, shape=shape, noise=draw, dtype=F64, **options).x

    mean, covariance = testing.affine_law(run, (1,))
    return float(mean), float(covariance)


def sample(sde: scoresde.AffineSDE, method: str | Solver, count: int, size: int, **options: Any) -> torch.Tensor:
    """A solve of ``count`` samples whose ``size`` coordinates are independent and alike."""
    many = scoresde.targets.Gaussian(torch.full((size,), 0.7, dtype=F64), 0.3)
    options.setdefault("steps", STEPS)
    return scoresde.solve(sde, many.score(sde), method=method, shape=(count, size), dtype=F64, **options).x


ONE_SEED: list[tuple[str, str, dict[str, Any]]] = [
    ("vp", "euler_maruyama", {}),
    ("vp", "reverse_diffusion", {}),
    ("vp", "ancestral", {}),
    ("vp", "langevin", {"moves": 2}),
    ("vp", "pc", {}),
    ("vp", "pc", {"order": "pc", "predictor": "ancestral"}),
    ("ve", "pc", {}),
    ("subvp", "euler_maruyama", {"stochasticity": 0.5}),
    ("vdm", "ancestral", {}),
    ("flow", "euler_maruyama", {"stochasticity": 2.0, "grid": "log_snr"}),
    ("vp", "heun", {}),
]


@pytest.mark.parametrize(("name", "method", "options"), ONE_SEED, ids=lambda v: str(v))
def test_one_seed_has_the_discrete_law(name: str, method: str, options: dict[str, Any]) -> None:
    sde = PROCESSES[name]
    mean, variance = discrete_law(sde, method, **options)
    verdict = compare(sample(sde, method, COUNT, SIZE, seed=SEED, **options), mean, variance)
    assert not verdict.rejected, verdict


def test_a_seed_a_sample_has_the_discrete_law() -> None:
    """1000 generators, seeded by consecutive integers, which must not be related."""
    sde = PROCESSES["vp"]
    for method in ("ancestral", "pc"):
        mean, variance = discrete_law(sde, method)
        verdict = compare(sample(sde, method, 1000, 80, seeds=range(1000)), mean, variance)
        assert not verdict.rejected, (method, verdict)


def test_a_generator_and_the_default_have_the_discrete_law() -> None:
    sde = PROCESSES["vp"]
    mean, variance = discrete_law(sde, "ancestral")
    own = sample(sde, "ancestral", COUNT, SIZE, generator=torch.Generator().manual_seed(5))
    assert not compare(own, mean, variance).rejected
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        default = sample(sde, "ancestral", COUNT, SIZE)
    assert not compare(default, mean, variance).rejected


def test_draws_of_different_steps_are_independent() -> None:
    """Correlations between all pairs of 24 consecutive draws, of one generator and of one per sample."""
    for source in (BatchNoise.seeded(3, torch.device("cpu")), scoresde.SampleNoise(range(500))):
        draws = torch.stack([source.normal(torch.empty(500, 40, dtype=F64)) for _ in range(24)]).flatten(1)
        n = draws.shape[1]
        correlation = (draws @ draws.mT / n)[tuple(torch.triu_indices(24, 24, 1))]
        worst = 2 * special.ndtr(-float(correlation.abs().max()) * math.sqrt(n))
        assert worst > ALPHA / len(correlation)


@pytest.mark.parametrize(("method", "draws"), [("euler_maruyama", 1), ("ancestral", 1), ("pc", 2)])
def test_expectations_on_a_mixture(method: str, draws: int) -> None:
    """A non-linear score: means of three observables against the recursion, which is right to 1e-4, far below the
    standard error of 40,000 samples, 0.005 standard deviations: eight of them are 4 %."""
    sde, count = PROCESSES["vp"], 40_000
    times = scoresde.grids.log_snr(sde, 1.0, 0.02, 12)
    exact = expectations(MIXTURE, sde, times, method, draws=draws, points=301, nodes=20 if draws == 1 else 10)
    generator = torch.Generator().manual_seed(8)
    x = MIXTURE.sample(count, sde, 1.0, generator=generator)
    got = scoresde.solve(sde, MIXTURE.score(sde), x, method=method, grid=times, seed=9).x
    seen = observe(got[:, 0].numpy())
    z = (seen.mean(0) - exact) / (seen.std(0) / math.sqrt(count))
    p = dict(zip(OBSERVABLES, 2 * special.ndtr(-np.abs(z)), strict=True))
    assert not Verdict(p).rejected, p


# --- power: these defects must be rejected ----------------------------------------------------------------------------


@dataclass
class _WrongNoise(Noise):
    """One generator for the batch, with one mistake."""

    mistake: str
    source: Noise = field(default_factory=lambda: BatchNoise.seeded(SEED, torch.device("cpu")))

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        z = self.source.normal(like)
        if self.mistake == "noise times 1.02":
            return 1.02 * z
        if self.mistake == "one draw for two samples":
            return z[: len(z) // 2].repeat_interleave(2, 0)
        if self.mistake == "one draw for two coordinates":
            return z[:, :4].repeat_interleave(2, 1)
        if self.mistake == "uniform noise":  # of variance one: only the shape is left to see
            return math.sqrt(12) * (torch.special.ndtr(z) - 0.5)
        return z


def test_defects_are_rejected() -> None:
    """With the sample size of the tests above; the null is the distribution of the program without the defect, which is
    not rejected. Mistakes of methods are planted in the package itself, by `tools/mutations.py`."""
    sde = PROCESSES["vp"]
    mean, variance = discrete_law(sde, "euler_maruyama", grid="time")
    for mistake in ("", "noise times 1.02", "one draw for two samples", "one draw for two coordinates"):
        x = sample(sde, "euler_maruyama", COUNT, SIZE, grid="time", noise=_WrongNoise(mistake))
        assert compare(x, mean, variance).rejected == bool(mistake), mistake


def test_a_wrong_shape_of_noise_is_rejected() -> None:
    """Uniform draws of variance one, seen after few steps by the distribution alone."""
    sde = PROCESSES["vp"]
    options = {"grid": "time", "steps": 3}
    mean, variance = discrete_law(sde, "ancestral", **options)
    x = sample(sde, "ancestral", COUNT, SIZE, noise=_WrongNoise("uniform noise"), **options)
    verdict = compare(x, mean, variance)
    assert verdict.p["distribution"] < ALPHA / 4, verdict


def test_equal_seeds_are_rejected() -> None:
    """Two samples from one seed are one sample twice."""
    sde = PROCESSES["vp"]
    mean, variance = discrete_law(sde, "ancestral", steps=8)
    repeated = [i // 2 for i in range(400)]
    x = sample(sde, "ancestral", 400, 160, seeds=repeated, steps=8)
    assert compare(x, mean, variance).rejected
    assert not compare(sample(sde, "ancestral", 400, 160, seeds=range(400), steps=8), mean, variance).rejected


def test_verdicts_are_calibrated() -> None:
    """p-values of right samples are uniform (1500 of them, within the Dvoretzky-Kiefer-Wolfowitz bound at 1e-6), but
    for the distribution's, which is conservative."""
    generator = torch.Generator().manual_seed(12)
    p: dict[str, list[float]] = {}
    for _ in range(1500):
        x = 1.3 + 2.0 * torch.randn(60, 4, generator=generator, dtype=F64)
        for name, value in compare(x, 1.3, 4.0).p.items():
            p.setdefault(name, []).append(value)
    bound = math.sqrt(math.log(2 / ALPHA) / (2 * 1500))
    for name in ("mean", "variance"):
        ranked = np.sort(p[name])
        assert np.abs(ranked - (np.arange(1500) + 0.5) / 1500).max() < bound + 1 / 3000, name
    assert np.mean(np.array(p["distribution"]) < 0.01) < 0.03
