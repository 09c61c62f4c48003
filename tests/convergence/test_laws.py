"""Methods without an order: the law that they reach, exact by probing."""

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


INTERVALS = ((0.1, 0.5, 2, 8), (0.5, 2.0, 1, 8))


@pytest.mark.parametrize("name", PROCESSES)
def test_restart_has_the_right_law_in_the_limit(name: str) -> None:
    """Whatever the intervals: the added noise is that of the forward process."""
    errors = []
    for steps in (20, 40, 80):
        intervals = tuple((low, high, times, steps) for low, high, times, _ in INTERVALS)
        errors.append(abs(variance_error(solvers.Restart(intervals), name, steps)))
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 2e-3


@pytest.mark.parametrize("name", PROCESSES)
def test_restart_contracts_an_error_of_the_start(name: str) -> None:
    plain = variance_error(solvers.RhoHeun(), name, 80, wrong=1.5)
    kept = variance_error(solvers.Restart(tuple((*i[:3], 80) for i in INTERVALS)), name, 80, wrong=1.5)
    assert plain > 0.2 and abs(kept) < 0.3 * plain


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("name", PROCESSES)
def test_cas_is_exact_for_one_point(name: str, epsilon: float) -> None:
    """The published consistency: every level has exactly its own variance."""
    sde = PROCESSES[name]
    times = sde.time(torch.linspace(-4.0, 4.0, 30, dtype=F64))
    point = targets.Gaussian(torch.zeros(1, dtype=F64), 1e-30)
    affine = affine_from(point, sde, times, solvers.CAS(epsilon))
    assert float(affine.covariance) == pytest.approx(float(sde.sigma(times[-1])) ** 2, rel=1e-9)
