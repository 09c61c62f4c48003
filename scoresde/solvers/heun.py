"""Heun's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .families.runge_kutta import RungeKutta, Tableau


@dataclass(frozen=True)
class Heun(RungeKutta):
    r"""Heun's method on the probability flow, in time: :math:`x' = x + \tfrac h2[F(x, t) + F(x + hF(x, t),\ t + h)]`.

    Facts:
        Order 2; 2 evaluations per step; no state; no noise.

    Differs from:
        EDM's sampler, which is Heun in :math:`\sigma/\alpha` and ends with one Euler step to zero noise; here the last
        step is like the others and ends at ``t_end``.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.EDMSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="heun", steps=18, grid="karras", shape=(3, 2)
        ... ).evaluations
        36

    References:
        Karras et al. (2022), algorithm 1. https://arxiv.org/abs/2206.00364
    """

    ode_order: ClassVar[int] = 2
    reference: ClassVar[str] = "Heun (1900); Karras et al. (2022), algorithm 1"
    tableau: ClassVar[Tableau] = Tableau(a=((), (1.0,)), c=(0.0, 1.0), b=(0.5, 0.5))
