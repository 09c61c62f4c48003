"""The adaptive Adams method: weights, tolerances, evaluations, orders, and samples that do not feel each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import solvers, targets
from tests.parameters import pairs

from .problems import PROCESSES

F64 = torch.float64


def gaussian() -> targets.Gaussian:
    """32 dimensions, variances 1e-3 to 1 in a random basis."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=F64)).Q
    values = torch.logspace(-3, 0, 32, dtype=F64)
    return targets.Gaussian(0.5 * torch.randn(32, generator=generator, dtype=F64), (basis * values) @ basis.mT)


GAUSSIAN = gaussian()


def run(sde: scoresde.AffineSDE, tolerance: float, **options: Any) -> tuple[float, float]:
    """The RMS error on the Gaussian, and the mean evaluations."""
    x = sde.prior.from_normal(torch.randn(16, 32, generator=torch.Generator().manual_seed(1), dtype=F64))
    exact = GAUSSIAN.flow_map(x, sde, sde.t_max, sde.t_min)
    method = solvers.Adams(**options)
    got = scoresde.solve(sde, GAUSSIAN.score(sde), x, method=method, rtol=tolerance, atol=tolerance)
    assert torch.equal(got.nfe, 1 + got.accepted + got.rejected)
    return float((got.x - exact).square().mean().sqrt()), float(got.nfe.double().mean())


@pytest.mark.cells(4)
@pytest.mark.parametrize(("spread", "name"), pairs([0.1, 0.2, 0.5], PROCESSES))
def test_the_error_is_the_tolerance(spread: float, name: str) -> None:
    """Within a factor of 10 from 1e-2 to 1e-8, and proportional to it."""
    tolerances = [1e-2, 1e-5, 1e-8]
    errors = [run(PROCESSES[name], tolerance, spread=spread)[0] for tolerance in tolerances]
    for tolerance, error in zip(tolerances, errors, strict=True):
        assert 0.1 * tolerance < error < 10 * tolerance, (tolerance, error)
    assert math.log10(errors[0] / errors[-1]) / 6 == pytest.approx(1.0, abs=0.2)


def test_evaluations_for_an_error() -> None:
    """General-purpose solvers take 40 to 61 evaluations for 1e-3, and 83 to 155 for 1e-5. Fourteen and 28 when this was
    written."""
    for tolerance, most in ((1e-3, 18), (1e-5, 36)):
        reached, evaluations = run(scoresde.VPSDE(), tolerance)
        assert reached < tolerance and evaluations < most, tolerance


def test_slivers_of_steps_move_the_newest_node() -> None:
    """Differences of nodes side by side would be worthless: with pairs of times to save, 1e-9 apart in the log-SNR,
    the result is as good, for at most two evaluations and a half per pair."""
    sde = scoresde.VPSDE()
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    levels = torch.linspace(-6, 6, 9, dtype=F64).repeat_interleave(2) + torch.tensor([0.0, 1e-9] * 9)
    options: dict[str, Any] = {"method": "adams", "rtol": 1e-6, "atol": 1e-6}
    plain = scoresde.solve(sde, GAUSSIAN.score(sde), x, **options)
    got = scoresde.solve(sde, GAUSSIAN.score(sde), x, save_at=sde.time(levels).tolist(), **options)
    exact = GAUSSIAN.flow_map(x, sde, sde.t_max, sde.t_min)
    assert float((got.x - exact).square().mean().sqrt()) < 1e-5
    assert float((got.nfe - plain.nfe).double().mean()) < 2.5 * 9


def test_higher_orders_pay() -> None:
    evaluations = [run(scoresde.VPSDE(), 1e-6, max_order=order)[1] for order in (2, 3, 4, 6)]
    assert evaluations == sorted(evaluations, reverse=True)
    assert evaluations[-1] < 0.3 * evaluations[0]


class Rough:
    """A network whose output has an error that is the same for the same input, but not smooth."""

    rowwise = True

    def __init__(self, size: float) -> None:
        self.size = size
        self.model = GAUSSIAN.score(scoresde.VPSDE())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t) + self.size * torch.sin(1e4 * x)


def test_a_rough_network_lowers_the_order() -> None:
    """Where the network's roughness rules the errors, high orders are of no use, and cost next to nothing."""
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    for size in (1e-4, 1e-3):
        options: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "max_steps": 400}
        used = [
            float(scoresde.solve(scoresde.VPSDE(), Rough(size), x, method=solvers.Adams(k), **options).nfe.sum())
            for k in (1, 5)
        ]
        assert used[1] < 1.3 * used[0], size


@pytest.mark.parametrize("spread", [0.05, 0.2, 2.0])
def test_there_and_back(spread: float) -> None:
    sde, score = scoresde.VPSDE(), GAUSSIAN.score(scoresde.VPSDE())
    options: dict[str, Any] = {"method": solvers.Adams(spread=spread), "rtol": 1e-7, "atol": 1e-7}
    x = GAUSSIAN.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
    there = scoresde.solve(sde, score, x, t_start=0.01, t_end=1.0, **options).x
    torch.testing.assert_close(there, GAUSSIAN.flow_map(x, sde, 0.01, 1.0), rtol=0, atol=1e-5)
    back = scoresde.solve(sde, score, there, t_start=1.0, t_end=0.01, **options).x
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("t_min", [0.0, 1e-3])
def test_from_pure_noise(t_min: float) -> None:
    """The flow's ends, where the signal or the noise is gone and the log-SNR infinite."""
    sde = scoresde.FlowSDE(t_min=t_min, t_max=1.0)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    got = scoresde.solve(sde, GAUSSIAN.score(sde), x, method="adams", rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.x, GAUSSIAN.flow_map(x, sde, 1.0, t_min), rtol=0, atol=3e-5)


def test_the_result_can_be_differentiated() -> None:
    sde = scoresde.VPSDE()
    target = targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 0.1], dtype=F64))
    x = torch.tensor([[0.5, -0.2]], dtype=F64, requires_grad=True)
    got = scoresde.solve(sde, target.score(sde), x, method="adams", rtol=1e-8, atol=1e-8, differentiable=True).x
    (slope,) = torch.autograd.grad(got[0, 1], x)
    exact = target.flow_map(torch.tensor([[0.0, 1.0]], dtype=F64), sde, sde.t_max, sde.t_min)[0, 1]
    assert float(slope[0, 1]) == pytest.approx(float(exact), rel=1e-5)
    assert abs(float(slope[0, 0])) < 1e-12


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("process", ["ve", "vp"])
def test_the_spread_follows_the_scale_of_the_data(process: str, scale: float) -> None:
    """Errors by the defaults are within a few tolerances; at other scales they are tens of them with that of 1."""
    means = scale * torch.tensor([[-1.0, 0.3], [1.0, -0.5], [0.2, 0.9]], dtype=torch.float64)
    target = scoresde.targets.GaussianMixture(torch.ones(3), means, scales=0.2 * scale)
    sde = scoresde.VPSDE() if process == "vp" else scoresde.VESDE(sigma_min=0.01 * scale, sigma_max=50 * scale)
    x = sde.prior.from_normal(torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))

    def run(tolerance: float, **options: Any) -> torch.Tensor:
        given: dict[str, Any] = {"rtol": tolerance, "atol": tolerance * scale}
        return scoresde.solve(sde, target.score(sde), x, method="adams", **given, **options).x

    exact, one = run(1e-8), run(1e-3, spread=0.2)
    errors = [float((got - exact).abs().max() / (1e-3 * scale)) for got in (run(1e-3), one)]
    assert errors[0] < 6
    if scale == 1.0:
        assert torch.equal(run(1e-3), one)
    elif process == "vp" or scale < 1:
        assert errors[1] > 20


def test_where_the_spread_comes_from() -> None:
    adams, given = solvers.Adams(), solvers.Adams(spread=0.3)
    assert adams.coordinate == solvers.Adams(spread=0.2).coordinate and given.for_data(1e-3) is given
    for std, spread in ((1e-3, 2e-4), (0.5, 0.2), (2.0, 0.2), (5.0, 2.0), (700.0, 200.0), (1e-300, 2e-13)):
        assert adams.for_data(std).spread == pytest.approx(spread, rel=1e-9, abs=0)


def test_every_solve_takes_the_scale() -> None:
    """A model that is told the scale gives what a spread of that size gives; so do a likelihood and a profile."""
    sde, x = scoresde.VPSDE(), 0.01 * torch.ones(2, 2, dtype=torch.float64)
    target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([1e-4, 3e-5]))
    exact = target.score(sde)
    model = scoresde.ScoreModel(lambda x, t: exact.noise(x, t), sde, "noise")
    given: dict[str, Any] = {"method": "adams", "rtol": 1e-4, "atol": 1e-6}
    runs: list[Callable[..., torch.Tensor]] = [
        lambda **o: scoresde.solve(sde, model, x, **given, **o).x,
        lambda **o: scoresde.log_likelihood(sde, model, x, divergence="exact", **given, **o).log_prob,
        lambda **o: scoresde.density_profile(sde, model, x, points=4, divergence="exact", **given, **o).log_det,
    ]
    unknown = [run() for run in runs]
    wanted = [run(spread=0.2 * 10.0**-2) for run in runs]
    model.data_std = 0.008
    for run, before, value in zip(runs, unknown, wanted, strict=True):
        assert torch.equal(run(), value) and not torch.equal(value, before)
