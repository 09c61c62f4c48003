"""The phi functions against their series in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from scoresde.solvers.families.phi import phi

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


def test_values() -> None:
    for z in [sign * z for z in ARGUMENTS for sign in (1, -1)]:
        values = phi(5, z)
        tensors = phi(5, torch.tensor([z], dtype=torch.float64))
        for k in range(6):
            # the recursion loses a few digits just above |z| = 1, where k! phi_k is a small difference
            assert values[k] == pytest.approx(exact(k, z), rel=2e-13 if k > 2 else 4e-15), (k, z)
            assert float(tensors[k]) == pytest.approx(values[k], rel=1e-14), (k, z)
        assert [float(v) for v in phi(5, torch.tensor(z, dtype=torch.float64))] == values, z  # of one tensor


def test_derivatives() -> None:
    """By automatic differentiation through both branches, against a difference of exact values."""
    for z in (-1.0, -1e-12, 0.0, 1e-12, 0.5, 1.0, 3.0, -30.0):
        point = torch.tensor([z], dtype=torch.float64, requires_grad=True)
        for k in range(1, 5):
            (slope,) = torch.autograd.grad(phi(k, point)[k].sum(), point)
            difference = (exact(k, z + 1e-6) - exact(k, z - 1e-6)) / 2e-6
            assert float(slope) == pytest.approx(difference, rel=1e-7, abs=1e-9), (k, z)
    for z in (-7.0, -0.99, -0.3, 0.0, 0.4, 1.5):  # of one tensor, of any order
        at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        function = lambda z: torch.stack(phi(3, z))  # noqa: E731
        assert torch.autograd.gradcheck(function, at) and torch.autograd.gradgradcheck(function, at), z
