"""Expectations over data and noise as finite sums: the nodes stand in a batch, and losses take them for draws."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from scoresde import losses, targets

F64 = torch.float64


@functools.cache
def hermite(points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the standard normal distribution."""
    x, w = (torch.tensor(v, dtype=F64) for v in np.polynomial.hermite_e.hermegauss(points))
    return x, w / math.sqrt(2 * math.pi)


@functools.cache
def legendre(points: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the integral over an interval."""
    x, w = (torch.tensor(v, dtype=F64) for v in np.polynomial.legendre.leggauss(points))
    return low + 0.5 * (high - low) * (x + 1), 0.5 * (high - low) * w


class Line:
    """A mixture of normal distributions on the line (one of them: a normal distribution), with its nodes and its
    diffused density."""

    def __init__(self, weights: list[float], means: list[float], variances: list[float]) -> None:
        self.weights, self.means, self.variances = (torch.tensor(v, dtype=F64) for v in (weights, means, variances))
        self.target = targets.GaussianMixture(self.weights, self.means[:, None], self.variances[:, None])

    def pairs(self, points: int) -> tuple[Tensor, Tensor, Tensor]:
        """Data and noise ``(n, 1)`` and weights ``(n,)``."""
        z, w = hermite(points)
        data = self.means[:, None, None] + self.variances.sqrt()[:, None, None] * z[:, None]
        x0, noise = torch.broadcast_tensors(data, z)
        weight = self.weights[:, None, None] * w[:, None] * w
        return x0.reshape(-1, 1), noise.reshape(-1, 1), weight.flatten()

    def mean(self, sde: scoresde.AffineSDE, t: float, function: Callable[[Tensor], Tensor]) -> float:
        """E f(x_t), by a fine grid over the diffused density."""
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        spread = (alpha**2 * self.variances + sigma**2).sqrt()
        low, high = float((alpha * self.means - 12 * spread).min()), float((alpha * self.means + 12 * spread).max())
        x, w = legendre(500, low, high)
        density = (
            self.weights
            * torch.exp(-0.5 * ((x[:, None] - alpha * self.means) / spread) ** 2)
            / (spread * math.sqrt(2 * math.pi))
        ).sum(1)
        return float(w @ (density * function(x[:, None])[:, 0]))


NORMAL = Line([1.0], [0.4], [0.3])
MIXTURE = Line([0.3, 0.5, 0.2], [-1.2, 0.4, 1.5], [0.2, 0.3, 0.25])


class Off:
    """A model whose noise estimate is off by a function of the state: an exact score, a little wrong."""

    def __init__(self, exact: Any, off: Callable[[Tensor], Tensor]) -> None:
        self.exact, self.off, self.sde = exact, off, exact.sde

    def accepts(self, name: str) -> bool:
        return False

    def estimate(self, x: Tensor, node: scoresde.Node) -> scoresde.Estimate:
        given, off = self.exact.estimate(x, node), self.off(x)
        ratio = (node.sigma / node.alpha).reshape(-1, 1)
        return scoresde.Estimate(given.data - ratio * off, given.noise + off)


class Given(losses.Times):
    """A distribution that returns a prepared draw."""

    def __init__(self, t: Tensor, weight: Tensor | None = None, index: Tensor | None = None) -> None:
        self.made = losses.Draw(t, torch.ones_like(t) if weight is None else weight, index)

    def at(self, sde: Any, u: Tensor) -> losses.Draw:
        return self.made
