"""The variational bound: exact answers, independence of the schedule, standard errors, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import scoresde
from scoresde import targets, variational_bound

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
    """E[-ln p(z_0)] plus the divergence of the law at the end from the prior; 20,000 data, at 4.9 standard errors of
    draws and data together."""
    sde = PROCESSES[name]
    x = GAUSSIAN.sample(20_000, generator=torch.Generator().manual_seed(0)).to(F64)
    bound = variational_bound(sde, GAUSSIAN.score(sde), x, draws=16, seed=0)
    alpha, sigma, std = float(sde.alpha(sde.t_max)), float(sde.sigma(sde.t_max)), sde.prior.std
    ratio = (alpha**2 * GAUSSIAN.spectrum.values + sigma**2) / std**2
    divergence = float(0.5 * (ratio - 1 - ratio.log() + (alpha * GAUSSIAN.mean / std).square()).sum())
    exact = entropy(sde, sde.t_min) + divergence
    error = float(bound.total.std()) / len(x) ** 0.5
    assert float(bound.total.mean()) == pytest.approx(exact, abs=4.892 * error)
    assert error < 0.1


def test_a_wrong_score_costs_what_theory_says() -> None:
    """A score off by a constant shift of the noise estimate adds half its square times the range of gamma."""
    sde = scoresde.VPSDE()
    x = GAUSSIAN.sample(2000, generator=torch.Generator().manual_seed(0)).to(F64)
    shift = 0.1

    class Off:
        def estimate(self, x: torch.Tensor, node: Any) -> scoresde.Estimate:
            given = GAUSSIAN.score(sde).estimate(x, node)
            return scoresde.Estimate(given.data, given.noise + shift)

        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    right, wrong = (variational_bound(sde, f, x, draws=16, seed=0) for f in (GAUSSIAN.score(sde), Off()))
    span = float(sde.log_snr(sde.t_min) - sde.log_snr(sde.t_max))
    difference = wrong.diffusion.value - right.diffusion.value
    error = 4.892 * float(difference.std()) / 2000**0.5
    assert float(difference.mean()) == pytest.approx(0.5 * span * 3 * shift**2, abs=error)


def test_the_schedule_between_the_ends_does_not_matter() -> None:
    """Two processes with the same ends of the log-SNR: the mean diffusion terms agree within their errors."""
    linear = scoresde.VDMSDE()
    ends = float(linear.log_snr(linear.t_min)), float(linear.log_snr(linear.t_max))

    def gamma(t: torch.Tensor) -> torch.Tensor:
        return -ends[0] + (ends[0] - ends[1]) * (0.3 * t + 0.7 * t**3)

    bent = scoresde.VDMSDE(gamma)
    x = GAUSSIAN.sample(5000, generator=torch.Generator().manual_seed(0)).to(F64)
    first, second = (variational_bound(s, GAUSSIAN.score(s), x, draws=16, seed=i) for i, s in enumerate((linear, bent)))
    gap = first.diffusion.value - second.diffusion.value
    assert abs(float(gap.mean())) < 4.892 * float(gap.std()) / 5000**0.5


def test_grey_levels() -> None:
    """Data spread evenly over 17 levels: log2(17) bits at least, and hardly more, where the score knows the law and the
    noise at t_min is far below a level."""
    sde = scoresde.VPSDE(t_min=1e-5)
    centres = -1 + 2 * (torch.arange(17, dtype=F64) + 0.5) / 17
    target = targets.GaussianMixture(torch.ones(17), centres[:, None], scales=1e-4)
    v = torch.randint(0, 17, (3000, 1), generator=torch.Generator().manual_seed(0))
    bound = variational_bound(sde, target.score(sde), v, levels=17, draws=64, seed=0)
    error = 4.892 * float(bound.bits_per_dim.std()) / 3000**0.5
    assert float(bound.bits_per_dim.mean()) == pytest.approx(math.log2(17), abs=error + 0.02)
    assert float(bound.reconstruction.value.max()) < 1e-6


def test_standard_errors_cover_the_spread_of_repetitions() -> None:
    sde = scoresde.VPSDE()
    x = GAUSSIAN.sample(1, generator=torch.Generator().manual_seed(0)).to(F64).repeat(400, 1)
    bounds = variational_bound(sde, GAUSSIAN.score(sde), x, draws=32, seed=0)
    ratio = float(bounds.total.std() / bounds.std_error.square().mean().sqrt())
    assert 0.7 < ratio < 1.1  # the grid of noise levels makes it less
    assert bounds.prior.std_error.abs().max() == 0.0
    again = variational_bound(sde, GAUSSIAN.score(sde), x, draws=32, seed=0)
    assert torch.equal(again.total, bounds.total) and bounds.nfe == 32


def test_the_shipped_network() -> None:
    model, sde = scoresde.load("digits"), scoresde.VPSDE()
    v = torch.randint(0, 17, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    bound = variational_bound(sde, model.score(sde), v, levels=17, draws=4, seed=0)
    assert bound.total.dtype == F64 and bool((bound.bits_per_dim > 3).all())  # no digits
    density = variational_bound(sde, model.score(sde), torch.zeros(2, 1, 8, 8), draws=4, seed=0)
    with pytest.raises(scoresde.InvalidArgumentError, match="bits_per_dim"):
        _ = density.bits_per_dim


VP, VE = scoresde.VPSDE(), scoresde.VESDE()
REFUSED: dict[str, tuple[Any, str]] = {
    "an infinite end": (lambda: bound_of(scoresde.FlowSDE(t_max=1.0)), "finite"),
    "one draw": (lambda: bound_of(VP, draws=1), "draws"),
    "a density of integers": (lambda: bound_of(VP, x=torch.zeros(2, 3, dtype=torch.long)), "`x`"),
    "levels of a density": (lambda: bound_of(VP, levels=17), "integers"),
    "a level beyond": (lambda: bound_of(VP, x=torch.full((2, 3), 17), levels=17), "16"),
    "NaN": (lambda: bound_of(VP, x=torch.full((2, 3), math.nan)), "NaN"),
    "no score": (lambda: variational_bound(VP, None, torch.zeros(2, 3)), "score_fn"),  # type: ignore[arg-type]
    "a seed": (lambda: bound_of(VP, seed=-1), "seed"),
    "another process": (
        lambda: variational_bound(scoresde.VESDE(), GAUSSIAN.score(VP), torch.zeros(2, 3)),
        "was made for",
    ),
    "another event": (lambda: bound_of(VP, x=torch.zeros(2, 4)), "events"),
    "a score that is not finite": (
        lambda: variational_bound(VP, lambda x, t: x * math.nan, torch.ones(2, 3), seed=0),
        "2 of 2",
    ),
    "a context": (lambda: bound_of(VP, context={"y": torch.zeros(2)}), "context"),
}


def bound_of(sde: Any, x: torch.Tensor | None = None, **options: Any) -> Any:
    return variational_bound(sde, GAUSSIAN.score(sde), torch.zeros(2, 3) if x is None else x, **options)


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(scoresde.ScoreSDEError, match=words):
        make()
