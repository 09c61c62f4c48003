"""The phi functions against their series in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from scoresde._phi import phi

ARGUMENTS = [0.0, 1e-300, 1e-9, 1e-3, 0.3, 0.999999, 1.0, 1.000001, 2.5, 8.0, 20.0, 60.0]


def exact(k: int, z: float) -> float:
    """sum_n z^n / (n + k)!, to far more digits than a float has."""
    x = Fraction(z)
    term, total, n = Fraction(1, math.factorial(k)), Fraction(0), 0
    while abs(term) > Fraction(1, 10**60):
        total += term
        n += 1
        term = term * x / (n + k)
    return float(total)


@pytest.mark.parametrize("z", [sign * z for z in ARGUMENTS for sign in (1, -1)])
def test_values(z: float) -> None:
    values = phi(5, z)
    tensors = phi(5, torch.tensor([z], dtype=torch.float64))
    for k in range(6):
        # the recursion loses a few digits just above |z| = 1, where k! phi_k is a small difference
        assert values[k] == pytest.approx(exact(k, z), rel=2e-13 if k > 2 else 4e-15)
        assert float(tensors[k]) == pytest.approx(values[k], rel=1e-14)


@pytest.mark.parametrize("z", [-1.0, -1e-12, 0.0, 1e-12, 0.5, 1.0, 3.0, -30.0])
def test_derivatives(z: float) -> None:
    """By automatic differentiation through both branches, against a difference of exact values."""
    point = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    for k in range(1, 5):
        (slope,) = torch.autograd.grad(phi(k, point)[k].sum(), point)
        step = 1e-6
        difference = (exact(k, z + step) - exact(k, z - step)) / (2 * step)
        assert float(slope) == pytest.approx(difference, rel=1e-7, abs=1e-9)


class TestOneTensor:
    """0-d tensors: the same values, and derivatives of any order."""

    @pytest.mark.parametrize("z", [-7.0, -1.0, -0.3, 0.0, 0.4, 1.5, 6.0])
    def test_equals_the_numbers(self, z):
        got = phi(4, torch.tensor(z, dtype=torch.float64))
        assert [float(v) for v in got] == phi(4, z)

    @pytest.mark.parametrize("z", [-7.0, -0.99, -0.3, 0.0, 0.4, 1.5])
    def test_derivatives(self, z):
        at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        function = lambda z: torch.stack(phi(3, z))  # noqa: E731
        assert torch.autograd.gradcheck(function, at) and torch.autograd.gradgradcheck(function, at)
