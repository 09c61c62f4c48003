"""Rooted trees, and the conditions that they put on a Runge-Kutta method."""

from __future__ import annotations

import itertools
import math

import torch

from scoresde.solvers import RungeKutta

F64 = torch.float64

Tree = tuple  # a rooted tree is the sorted tuple of its subtrees


def trees(order: int) -> list[Tree]:
    """All rooted trees with so many nodes."""
    if order == 1:
        return [()]
    found = set()
    for sizes in range(1, order):
        for parts in itertools.combinations_with_replacement(range(1, order), sizes):
            if sum(parts) == order - 1:
                found |= {tuple(sorted(chosen)) for chosen in itertools.product(*map(trees, parts))}
    return sorted(found)


def _size(tree: Tree) -> int:
    return 1 + sum(map(_size, tree))


def _density(tree: Tree) -> int:
    return _size(tree) * math.prod(map(_density, tree))


def residuals(a: torch.Tensor, b: torch.Tensor, order: int) -> list[float]:
    r"""Butcher's conditions :math:`\sum_i b_i\Phi_i(\tau) = 1/\gamma(\tau)` for the trees of one order."""

    def phi(tree: Tree) -> torch.Tensor:
        out = torch.ones(len(b), dtype=F64)
        for child in tree:
            out = out * (a @ phi(child))
        return out

    return [abs(float(b @ phi(tree)) - 1 / _density(tree)) for tree in trees(order)]


def matrix(solver: RungeKutta) -> torch.Tensor:
    rows = solver.tableau.a
    return torch.tensor([[*row, *[0.0] * (len(rows) - len(row))] for row in rows], dtype=F64)
