"""The adaptive Adams method: weights, tolerances, evaluations, orders, and samples that do not feel each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import solvers, targets
from scoresde.solvers.adams import _newton
from scoresde.solvers.exponential import adams_weights

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


@pytest.mark.parametrize("count", range(1, 7))
def test_newton_s_form_gives_the_weights_of_adams(count: int) -> None:
    """The same weights as by Lagrange's basis, for uneven nodes of two samples at once."""
    nodes = torch.tensor([[0.0, -1.0, -2.5, -2.9, -4.0, -7.0], [0.0, -0.3, -0.5, -1.5, -1.6, -2.0]], dtype=F64)
    newton = _newton(nodes[:, :count])
    weights = (newton.integrals[:, None, :-1] @ newton.differences)[:, 0]
    for i in range(2):
        known = adams_weights(nodes[i, :count].tolist(), 0.0)
        assert weights[i].tolist() == pytest.approx(known, rel=1e-9)
        corrected = adams_weights([1.0, *nodes[i, :count].tolist()], 0.0)
        assert float(newton.integrals[i, -1] / newton.reach[i, -1]) == pytest.approx(corrected[0], rel=1e-9)


@pytest.mark.parametrize("spread", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("name", PROCESSES)
def test_the_error_is_the_tolerance(name: str, spread: float) -> None:
    """Within a factor of 10 from 1e-2 to 1e-8, and proportional to it."""
    tolerances = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
    errors = [run(PROCESSES[name], tolerance, spread=spread)[0] for tolerance in tolerances]
    for tolerance, error in zip(tolerances, errors, strict=True):
        assert 0.1 * tolerance < error < 10 * tolerance, (tolerance, error)
    assert math.log10(errors[0] / errors[-1]) / 6 == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("tolerance", "error", "most"), [(1e-3, 1e-3, 18), (1e-5, 1e-5, 40)])
def test_evaluations_for_an_error(tolerance: float, error: float, most: int) -> None:
    """General-purpose solvers take 40 to 61 evaluations for 1e-3, and 83 to 155 for 1e-5. Fourteen and 28 when this was
    written."""
    reached, evaluations = run(scoresde.VPSDE(), tolerance)
    assert reached < error and evaluations < most


def test_higher_orders_pay() -> None:
    evaluations = [run(scoresde.VPSDE(), 1e-6, max_order=order)[1] for order in (2, 3, 4, 6)]
    assert evaluations == sorted(evaluations, reverse=True)
    assert evaluations[-1] < 0.3 * evaluations[0]


def test_samples_do_not_feel_each_other() -> None:
    sde = scoresde.VPSDE()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=F64)

    def score(x: Tensor, t: Tensor) -> Tensor:
        a2 = torch.exp(-(0.1 * t + 9.95 * t**2))[:, None]
        return -x / (0.04 * a2 + 1 - a2)

    whole = scoresde.solve(sde, score, x, method="adams", rtol=1e-5, atol=1e-5)
    order = [3, 0, 6, 1, 5, 2, 4]
    permuted = scoresde.solve(sde, score, x[order], method="adams", rtol=1e-5, atol=1e-5)
    assert torch.equal(permuted.x, whole.x[order]) and torch.equal(permuted.nfe, whole.nfe[order])
    for i in range(7):
        alone = scoresde.solve(sde, score, x[i : i + 1], method="adams", rtol=1e-5, atol=1e-5)
        assert torch.equal(alone.x[0], whole.x[i]) and int(alone.nfe) == int(whole.nfe[i])


class Rough:
    """A network whose output has an error that is the same for the same input, but not smooth."""

    rowwise = True

    def __init__(self, size: float) -> None:
        self.size = size
        self.model = GAUSSIAN.score(scoresde.VPSDE())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t) + self.size * torch.sin(1e4 * x)


@pytest.mark.parametrize("size", [1e-4, 1e-3])
def test_a_rough_network_lowers_the_order(size: float) -> None:
    """Where the network's roughness rules the errors, high orders are of no use, and cost next to nothing."""
    sde = scoresde.VPSDE()
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    used = []
    for order in (1, 5):
        solution = scoresde.solve(sde, Rough(size), x, method=solvers.Adams(order), rtol=1e-3, atol=1e-3, max_steps=400)
        used.append(float(solution.nfe.double().mean()))
    assert used[1] < 1.3 * used[0]


@pytest.mark.parametrize("spread", [0.05, 0.2, 2.0])
def test_there_and_back(spread: float) -> None:
    sde = scoresde.VPSDE()
    method = solvers.Adams(spread=spread)
    x = GAUSSIAN.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
    there = scoresde.solve(sde, GAUSSIAN.score(sde), x, method=method, t_start=0.01, t_end=1.0, rtol=1e-8, atol=1e-8)
    exact = GAUSSIAN.flow_map(x, sde, 0.01, 1.0)
    torch.testing.assert_close(there.x, exact, rtol=0, atol=1e-6)
    back = scoresde.solve(
        sde, GAUSSIAN.score(sde), there.x, method=method, t_start=1.0, t_end=0.01, rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-6)


def test_from_pure_noise() -> None:
    """The flow's end, where the signal is gone and the log-SNR infinite."""
    sde = scoresde.FlowSDE(t_max=1.0)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1), dtype=F64)
    got = scoresde.solve(sde, GAUSSIAN.score(sde), x, method="adams", rtol=1e-6, atol=1e-6)
    exact = GAUSSIAN.flow_map(x, sde, 1.0, sde.t_min)
    torch.testing.assert_close(got.x, exact, rtol=0, atol=3e-5)


def test_float32_and_images() -> None:
    target = targets.Gaussian(torch.zeros(2, 4, 4), 0.25)
    sde = scoresde.VESDE()
    x = 50 * torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    got = scoresde.solve(sde, target.score(sde), x, method="adams", rtol=1e-4, atol=1e-4)
    assert got.x.dtype == torch.float32 and got.x.shape == x.shape
    torch.testing.assert_close(got.x, target.flow_map(x, sde, sde.t_max, sde.t_min), rtol=0, atol=3e-3)
    assert float(got.nfe.max()) < 60


def test_the_result_can_be_differentiated() -> None:
    sde = scoresde.VPSDE()
    target = targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 0.1], dtype=F64))
    x = torch.tensor([[0.5, -0.2]], dtype=F64, requires_grad=True)
    got = scoresde.solve(sde, target.score(sde), x, method="adams", rtol=1e-8, atol=1e-8, differentiable=True).x
    (slope,) = torch.autograd.grad(got[0, 1], x)
    exact = target.flow_map(torch.tensor([[0.0, 1.0]], dtype=F64), sde, sde.t_max, sde.t_min)[0, 1]
    assert float(slope[0, 1]) == pytest.approx(float(exact), rel=1e-5)
    assert abs(float(slope[0, 0])) < 1e-12
