"""Where the log-density changes along the flow, against exact laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import scoresde
from scoresde import density_profile, log_likelihood, targets

F64 = torch.float64
PROCESSES: dict[str, scoresde.AffineSDE] = {
    "ve": scoresde.VESDE(),
    "vp": scoresde.VPSDE(),
    "vdm": scoresde.VDMSDE(),
    "edm": scoresde.EDMSDE(),
    "flow": scoresde.FlowSDE(),
}
TIGHT: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6, "seed": 0}


def gaussian() -> targets.Gaussian:
    return targets.Gaussian(torch.tensor([1.0, -1.0, 0.5], dtype=F64), torch.tensor([1e-4, 0.1, 2.0], dtype=F64))


@pytest.mark.parametrize("name", PROCESSES)
def test_a_gaussian_stretches_as_its_variances_do(name: str) -> None:
    """The flow maps by sqrt(v_t/v_0) along each axis, with v_t = alpha^2 v + sigma^2."""
    sde, target = PROCESSES[name], gaussian()
    x = target.sample(2, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    got = density_profile(sde, target.score(sde), x, points=9, divergence="exact", **TIGHT)
    times = sde.time(got.log_snr)
    variance = sde.alpha(times)[:, None] ** 2 * torch.tensor([1e-4, 0.1, 2.0]) + sde.sigma(times)[:, None] ** 2
    exact = 0.5 * (variance / variance[0]).log().sum(1)
    assert got.log_det.shape == (2, 9) and float(got.log_det[:, 0].abs().max()) == 0.0
    assert float((got.log_det - exact).abs().max()) < 1e-4
    assert torch.allclose(got.log_snr[[0, -1]], sde.log_snr(torch.tensor([sde.t_min, sde.t_max], dtype=F64)))
    assert float(got.log_snr.diff().diff().abs().max()) < 1e-9  # even levels


@pytest.mark.parametrize(("divergence", "method"), [("hutchinson", "adams"), ("exact", "rk45"), ("hutch++", "adams")])
def test_its_end_is_the_likelihood(divergence: str, method: str) -> None:
    """The same probes, stopped on the way."""
    sde = scoresde.VPSDE()
    means = torch.randn(3, 1, 1, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    target = targets.GaussianMixture(torch.ones(3), means, scales=0.2)
    x = target.sample(2, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"divergence": divergence, "probes": 3, "method": method, **TIGHT}
    got = density_profile(sde, target.score(sde), x, points=5, **options)
    whole = log_likelihood(sde, target.score(sde), x, **options)
    assert torch.allclose(got.log_det[:, -1], whole.log_prob - whole.prior_log_prob, atol=1e-4)
    assert torch.allclose((got.rate * -got.log_snr.diff()).sum(1), got.log_det[:, -1])


def test_twice_the_rate_counts_the_dimensions_that_the_noise_fills() -> None:
    """One, two, three of three well separated variances lie below the variance of the noise."""
    sde = scoresde.VESDE(sigma_min=1e-3, sigma_max=1e2)
    target = targets.Gaussian(torch.zeros(3, dtype=F64), torch.tensor([1e-10, 1e-3, 10.0], dtype=F64))
    got = density_profile(sde, target.score(sde), torch.zeros(1, 3, dtype=F64), points=24, divergence="exact", seed=0)
    middle = (got.log_snr[:-1] + got.log_snr[1:]) / 2  # sigma^2 = exp(-log_snr)
    for variance, count in ((10**-4.8, 1), (0.1, 2), (10**3.5, 3)):
        nearest = (middle + math.log(variance)).abs().argmin()
        assert 2 * float(got.rate[0, nearest]) == pytest.approx(count, abs=0.1)


def test_dtypes_seeds_and_inputs() -> None:
    sde, target = scoresde.VPSDE(), gaussian()
    x = torch.zeros(2, 3)
    kept, state = x.clone(), torch.get_rng_state()
    a, b = (density_profile(sde, target.score(sde), x, points=3, seeds=[1, 2]).log_det for _ in range(2))
    assert torch.equal(a, b) and a.dtype == F64 and not a.requires_grad
    alone = density_profile(sde, target.score(sde), x[1:], points=3, seeds=[2]).log_det
    assert torch.allclose(alone, a[1:], atol=1e-6)
    assert torch.equal(x, kept) and torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit() -> None:
    sde, exact, x = scoresde.VPSDE(), gaussian().score(scoresde.VPSDE()), torch.zeros(1, 3)
    infinite = scoresde.FlowSDE(t_max=1.0)  # which has no even levels of the log-SNR
    net = scoresde.ScoreModel(lambda x, t: 0 * x, infinite, prediction="flow")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"points": 1}, scoresde.InvalidArgumentError, "`points`"),
        ({"x": x[:0]}, scoresde.InvalidArgumentError, "at least one sample"),
        ({"x": x / 0}, scoresde.NonFiniteError, "NaN or infinite"),
        ({"x": x.half()}, scoresde.InvalidTypeError, "float32 or float64"),
        ({"method": "euler"}, scoresde.InvalidArgumentError, "`method`"),
        ({"score_fn": lambda x, t: exact(x, t).detach()}, scoresde.ScoreFnError, "blocks gradients"),
        ({"sde": infinite, "score_fn": net}, scoresde.InvalidArgumentError, "finite at both ends"),
    ]
    for arguments, error, said in cases:
        with pytest.raises(error, match=said):
            density_profile(**{"sde": sde, "score_fn": exact, "x": x, **arguments})
