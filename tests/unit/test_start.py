"""Warm starts: the exact map, how far it may go, and what `solve` refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import scoresde
from scoresde import GaussianStart, fit_start, solve, targets

from .refusals import assert_refused

F64 = torch.float64
GAUSSIAN = targets.Gaussian(torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[0.3, 0.1], [0.1, 1.5]], dtype=F64))
ANGLES = torch.arange(4, dtype=F64) * (math.pi / 2)
RING = targets.GaussianMixture(torch.ones(4), torch.stack([ANGLES.cos(), ANGLES.sin()], 1), scales=0.3)
OF_RING = targets.Gaussian(torch.zeros(2, dtype=F64), 0.59)  # the ring's own mean and variances, 1/2 + 0.3^2
PROCESSES = {
    "vp": scoresde.VPSDE(),
    "ve": scoresde.VESDE(),
    "cosine": scoresde.CosineVPSDE(),
    "flow": scoresde.FlowSDE(t_max=1.0),
}


@pytest.mark.parametrize(
    ("name", "method"), [("vp", "adams"), ("flow", "adams"), ("ve", "dpm_3m"), ("flow", "dpm_3m"), ("cosine", "pc")]
)
def test_on_gaussian_data_it_is_the_solve_from_its_time(name: str, method: str) -> None:
    """The state at the start is the exact one, and the method goes on from there."""
    sde, t = PROCESSES[name], 0.4
    x = sde.prior.from_normal(torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=F64))
    options: dict[str, Any] = {"method": method, "seed": 3} | ({} if method == "adams" else {"steps": 6})
    score = GAUSSIAN.score(sde)
    got = solve(sde, score, x, start=GaussianStart(GAUSSIAN, sde, t), **options)
    plain = solve(sde, score, GAUSSIAN.flow_map(x, sde, sde.t_max, t), t_start=t, **options)
    assert torch.equal(got.x, plain.x) and got.evaluations == plain.evaluations
    if method == "adams":
        exact = GAUSSIAN.flow_map(x, sde, sde.t_max, sde.t_min)
        assert float((got.x - exact).abs().max()) < 1e-2


def test_a_start_at_the_end_and_at_the_beginning() -> None:
    sde, x = PROCESSES["vp"], torch.ones(2, 2, dtype=F64)
    score = GAUSSIAN.score(sde)
    whole = solve(sde, score, x, method="ddim", steps=4, start=GaussianStart(GAUSSIAN, sde, sde.t_min))
    assert whole.evaluations == 0
    torch.testing.assert_close(whole.x, GAUSSIAN.flow_map(x, sde, sde.t_max, sde.t_min))
    drawn = solve(sde, score, method="ddim", steps=4, seeds=[1, 2], start=GaussianStart(GAUSSIAN, sde, 0.3), dtype=F64)
    z = solve(sde, score, method="ddim", steps=4, seeds=[1, 2], t_end=1.0, dtype=F64).x  # drawn where the process ends
    again = solve(sde, score, z, method="ddim", steps=4, start=GaussianStart(GAUSSIAN, sde, 0.3))
    assert torch.equal(drawn.x, again.x)
    none = solve(sde, score, x, method="ddim", steps=4, start=GaussianStart(GAUSSIAN, sde, sde.t_max))
    assert torch.equal(none.x, solve(sde, score, x, method="ddim", steps=4).x)


def test_a_given_grid_begins_at_the_start() -> None:
    sde, x = PROCESSES["vp"], torch.ones(2, 2, dtype=F64)
    start = GaussianStart(GAUSSIAN, sde, 0.3)
    got = solve(sde, GAUSSIAN.score(sde), x, method="ddim", grid=[0.3, 0.1, 0.01], start=start)
    assert got.evaluations == 2 and got.t.tolist() == [0.01] * 2
    with pytest.raises(scoresde.InvalidArgumentError, match=r"begin.*t=0\.3"):
        solve(sde, GAUSSIAN.score(sde), x, method="ddim", grid=[0.4, 0.1], start=start)


@pytest.mark.parametrize(("name", "rtol"), [("vp", 1e-1), ("vp", 1e-2), ("ve", 1e-3), ("cosine", 1e-1), ("flow", 1e-3)])
def test_the_bound_is_one(name: str, rtol: float) -> None:
    """The state at the start is no further from the exact one than the bound says, nor than the tolerance."""
    sde = PROCESSES[name]
    x = sde.prior.from_normal(torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64))
    score = RING.score(sde)
    start = fit_start(sde, score, OF_RING, x=x, rtol=rtol)
    exact = solve(sde, score, x, method="adams", rtol=1e-8, atol=1e-8, t_end=start.t).x
    error = float((start.state(x) - exact).square().mean().sqrt()) / float(sde.alpha(start.t) or 1.0)
    assert error <= 1.05 * start.bound + 1e-6  # the network is asked on the Gaussian's path, not on its own
    assert start.bound <= rtol * math.sqrt(0.59)
    assert start.t < sde.t_max or rtol < 1e-2


def test_looser_tolerances_go_further_and_save_more() -> None:
    sde = PROCESSES["vp"]
    starts = [fit_start(sde, RING.score(sde), OF_RING, rtol=r, dtype=F64) for r in (1e-1, 1e-2, 1e-3)]
    assert starts[0].t < starts[1].t < starts[2].t
    assert starts[0].saved > 0 and starts[0].warm.rms < 0.2
    exact = fit_start(sde, GAUSSIAN.score(sde), GAUSSIAN, rtol=1e-3, dtype=F64)
    assert float(sde.sigma(exact.t)) < 0.5 and exact.saved > 3


def test_a_wrong_gaussian_is_not_trusted() -> None:
    sde = PROCESSES["vp"]
    wrong = targets.Gaussian(torch.full((2,), 1.0, dtype=F64), 0.59)
    assert fit_start(sde, RING.score(sde), wrong, rtol=1e-2, dtype=F64).t > 0.8


def test_fixed_steps_gain_accuracy() -> None:
    sde = PROCESSES["vp"]
    start = fit_start(sde, RING.score(sde), OF_RING, method="unipc2", steps=8, dtype=F64)
    assert start.full.evaluations == start.warm.evaluations == 8 and start.saved == 0
    assert start.warm.median < 0.3 * start.full.median
    assert "8.0 evaluations" in repr(start)


VP, VE = scoresde.VPSDE(), scoresde.VESDE()
FROM = GaussianStart(OF_RING, VP, 0.3)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a target that is not Gaussian": (lambda: fit_start(VP, RING.score(VP), RING), "Gaussian"),
    "no tolerance": (lambda: fit_start(VP, RING.score(VP), OF_RING, rtol=0.0), "rtol"),
    "another process": (lambda: solve(VE, RING.score(VE), method="pc", start=FROM), "was made for"),
    "two starts": (lambda: solve(VP, RING.score(VP), method="pc", start=FROM, t_start=1.0), "t_start"),
    "a stochastic method": (lambda: fitted(method="dpmpp_2m_sde", steps=5), "deterministic"),
    "no steps": (lambda: fitted(method="unipc2"), "give `steps`"),
    "an end": (lambda: fitted(method="unipc2", steps=5, t_end=0.3), "t_end"),
    "a context": (lambda: fitted(context={"y": torch.zeros(64)}), "context"),
}


def fitted(**options: Any) -> GaussianStart:
    return fit_start(VP, RING.score(VP), OF_RING, **options)


def test_refusals() -> None:
    assert_refused(REFUSED)
