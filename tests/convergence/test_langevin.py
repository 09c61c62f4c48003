r"""Langevin moves: no order, but a fixed point.

On :math:`N(0, v)` one move with :math:`\epsilon = 2(r\sigma)^2` maps the variance V to
:math:`(1-\epsilon/v)^2 V + 2\epsilon`, whose fixed point is :math:`v/(1-\epsilon/2v)`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scoresde
from scoresde import testing
from scoresde.testing.kolmogorov import components

from .problems import MIXTURE, PROCESSES, SHIFTED

F64 = torch.float64


def level(name: str) -> tuple[scoresde.AffineSDE, torch.Tensor]:
    """A step that ends at sigma/alpha = 1, where data and noise matter alike."""
    sde = PROCESSES[name]
    return sde, torch.tensor([float(sde.time(-1.0)), float(sde.time(0.0))], dtype=F64)


def langevin(name: str, snr: float, moves: int) -> tuple[testing.AffineMap, float, float, float]:
    """The map of a start (draw 0) and so many moves at one level; the level's mean, variance and step."""
    sde, times = level(name)

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        options = {"method": "langevin", "grid": times, "snr": snr, "moves": moves}
        x, later = draw(0, torch.empty(shape, dtype=F64)), lambda k, like: draw(k + 1, like)
        return scoresde.solve(sde, SHIFTED.score(sde), x, noise=later, **options).x

    end = float(times[-1])
    alpha, sigma = float(sde.alpha(end)), float(sde.sigma(end))
    return testing.probe(run, (1,)), 0.7 * alpha, alpha**2 * 0.3 + sigma**2, 2 * (snr * sigma) ** 2


by_process = pytest.mark.parametrize("name", PROCESSES)


@by_process
def test_moves_have_their_closed_form(name: str) -> None:
    """One shrinks a deviation from the mean by 1 - epsilon/v and adds noise of variance 2 epsilon; many reach the
    fixed point."""
    for snr in (0.05, 0.16, 0.5):
        affine, mean, v, epsilon = langevin(name, snr, 1)
        factor, spread = affine.response.flatten().tolist()
        assert factor == pytest.approx(1 - epsilon / v, abs=1e-13)
        assert spread == pytest.approx(math.sqrt(2 * epsilon), rel=1e-13)
        assert float(affine.constant) == pytest.approx(mean * epsilon / v, rel=1e-12)
    fixed = v / (1 - epsilon / (2 * v))
    for moves in (4, 16, 64):
        affine, *_ = langevin(name, snr, moves)
        left = (1 - epsilon / v) ** moves  # of the start's deviation
        assert float(affine.mean) == pytest.approx(mean * (1 - left), rel=1e-10), moves
        assert float(affine.covariance) == pytest.approx(fixed + left**2 * (1 - fixed), rel=1e-10), moves


@by_process
def test_a_move_on_a_mixture_changes_the_law_in_second_order_only(name: str) -> None:
    r"""For x of any distribution p, :math:`E s = 0` and :math:`E x s = -1`, so a move keeps the mean and adds exactly
    :math:`\epsilon^2 E s^2` to the second moment. By quadrature, through the solver."""
    sde = PROCESSES[name]
    for log_snr in (-4.0, 0.0, 5.0):
        times = torch.tensor([float(sde.time(log_snr - 1)), float(sde.time(log_snr))], dtype=F64)
        end = float(times[-1])
        weights, means, stds = components(MIXTURE, sde, end)
        low, high = (means - 9 * stds).min(), (means + 9 * stds).max()
        x = np.linspace(low, high, 8001)  # the trapezoidal rule, exact to rounding for smooth functions that vanish
        density = (weights * np.exp(-0.5 * ((x[:, None] - means) / stds) ** 2) / stds / math.sqrt(2 * math.pi)).sum(1)
        p = density * (x[1] - x[0])
        assert p.sum() == pytest.approx(1.0, abs=1e-12)
        state = torch.as_tensor(x)[:, None]
        epsilon = 2 * (0.16 * float(sde.sigma(end))) ** 2
        moved = []
        for z in (-1.0, 1.0):  # two nodes are exact for second moments
            noise = lambda k, like, z=z: torch.full_like(like, z)  # noqa: E731
            got = scoresde.solve(sde, MIXTURE.score(sde), state, method="langevin", grid=times, noise=noise)
            moved.append(got.x[:, 0].numpy())
        first, second = (sum(0.5 * p @ m**power for m in moved) for power in (1, 2))
        score = MIXTURE.score(sde)(state, end)[:, 0].numpy()
        scale = p @ x**2
        assert first - p @ x == pytest.approx(0.0, abs=1e-11 * math.sqrt(scale))
        assert (second - p @ x**2) / scale == pytest.approx(epsilon**2 * (p @ score**2) / scale, abs=1e-11)


@pytest.mark.parametrize("moves", [3, 300])
def test_annealing_follows_the_levels(moves: int) -> None:
    """Corrector-only sampling, from the prior: the distribution is that of the recursion level by level, and with
    enough moves that of the last level's fixed point."""
    sde = scoresde.VESDE(sigma_min=0.5, sigma_max=20.0)
    times = scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 12)

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        options = {"grid": times, "moves": moves, "shape": shape, "noise": draw, "dtype": F64}
        return scoresde.solve(sde, SHIFTED.score(sde), method="langevin", **options).x

    mean, covariance = testing.affine_law(run, (1,))
    m, var = 0.0, 20.0**2
    for t in times[1:].tolist():
        sigma = float(sde.sigma(t))
        v, epsilon = 0.3 + sigma**2, 2 * (0.16 * sigma) ** 2
        kept = (1 - epsilon / v) ** moves
        m, var = 0.7 + kept * (m - 0.7), v / (1 - epsilon / (2 * v)) + kept**2 * (var - v / (1 - epsilon / (2 * v)))
    assert float(mean) == pytest.approx(m, rel=1e-10)
    assert float(covariance) == pytest.approx(var, rel=1e-10)
    if moves == 300:
        assert float(mean) == pytest.approx(0.7, rel=1e-2)
        assert float(covariance) == pytest.approx(v / (1 - epsilon / (2 * v)), rel=1e-5)
