"""Methods without an order: the distribution that they reach, exact by probing."""

from __future__ import annotations

import pytest
import torch

import scoresde
from scoresde import solvers, targets

from .problems import PROCESSES, SHIFTED, affine_from

F64 = torch.float64


def variance_error(method: scoresde.Solver, name: str, steps: int, wrong: float = 1.0) -> float:
    """How far the variance is from the exact one, from an exact start or one whose variance is ``wrong`` times that."""
    sde = PROCESSES[name]
    times = sde.time(torch.linspace(-4.0, 4.0, steps + 1, dtype=F64))
    affine = affine_from(SHIFTED, sde, times, method)
    response = affine.response.flatten()
    variance = float(wrong * response[0] ** 2 + (response[1:] ** 2).sum())
    exact = 0.3 * float(sde.alpha(times[-1])) ** 2 + float(sde.sigma(times[-1])) ** 2
    return variance / exact - 1


INTERVALS = ((0.1, 0.5, 2), (0.5, 2.0, 1))  # of rho; and how often


@pytest.mark.parametrize("name", PROCESSES)
def test_restart_has_the_right_law_in_the_limit(name: str) -> None:
    """Whatever the intervals: the added noise is that of the forward process. An error of the start gets smaller."""
    restarts = {n: solvers.Restart(tuple((*i, n) for i in INTERVALS)) for n in (10, 20, 40)}
    errors = [abs(variance_error(method, name, steps)) for steps, method in restarts.items()]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 8e-3  # four times that of twice the steps
    plain = variance_error(solvers.RhoHeun(), name, 40, wrong=1.5)
    kept = variance_error(restarts[40], name, 40, wrong=1.5)
    assert plain > 0.2 and abs(kept) < 0.3 * plain


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 1.0])
def test_cas_is_exact_for_one_point(epsilon: float) -> None:
    """The published consistency: every level has exactly its own variance."""
    point = targets.Gaussian(torch.zeros(1, dtype=F64), 1e-30)
    for name, sde in PROCESSES.items():
        times = sde.time(torch.linspace(-4.0, 4.0, 30, dtype=F64))
        affine = affine_from(point, sde, times, solvers.CAS(epsilon))
        assert float(affine.covariance) == pytest.approx(float(sde.sigma(times[-1])) ** 2, rel=1e-9), name


@pytest.mark.parametrize("times", [1, 2, 10])
def test_the_leaps_of_a_restart_are_independent_on_a_path_too(times: int) -> None:
    """The variance of 4,000 samples, at 4.9 standard errors (a false alarm in 1e6); one noise for all leaps gives
    twice the variance."""
    sde, n = scoresde.EDMSDE(), 4000
    target = targets.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=F64) * 6401**0.5
    options = {"method": "restart", "intervals": ((0.5, 3.0, times, 8),), "grid": "karras", "steps": 30}
    path = scoresde.BrownianPath(range(n), sde.t_min, sde.t_max)
    variance = float(scoresde.solve(sde, target.score(sde), x, noise=path, **options).x.var())
    assert variance == pytest.approx(1.0, abs=4.892 * (2 / n) ** 0.5 + 5e-3)


def visited(sde: scoresde.AffineSDE, interval: tuple[float, ...], t_end: float | None = None) -> int:
    """Steps beyond the grid of 20."""
    method, score = solvers.Restart((interval,)), targets.Gaussian(torch.zeros(1), 1.0).score(sde)
    return scoresde.solve(sde, score, method=method, steps=20, shape=(1, 1), t_end=t_end).steps - 20


def test_parts_of_an_interval_outside_the_solve_are_left_out() -> None:
    chain = scoresde.discrete.NoiseScales.geometric(10, 0.01, 0.2).sde()
    for sde in (chain, scoresde.VDMSDE(), scoresde.VPSDE(), scoresde.EDMSDE()):
        assert visited(sde, (0.1, 1e4, 1, 3)) == 4  # up to the start
    assert visited(scoresde.EDMSDE(), (0.1, 0.3, 2, 3), t_end=0.15) == 8  # down to the end
    assert visited(scoresde.EDMSDE(), (0.001, 0.3, 1, 3)) == 4
    assert visited(scoresde.EDMSDE(), (100.0, 200.0, 1, 3)) == visited(scoresde.EDMSDE(), (1e-4, 1e-3, 1, 3)) == 0
