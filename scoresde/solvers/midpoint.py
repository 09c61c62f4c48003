"""The explicit midpoint method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .families.runge_kutta import RungeKutta, Tableau


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    r"""The midpoint method on the probability flow, in time: :math:`x' = x + hF(x + \tfrac h2 F(x, t),\ t + \tfrac
    h2)`.

    Facts:
        Order 2; 2 evaluations per step, none at its end; no state; no noise.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="midpoint", steps=10, shape=(3, 2)
        ... ).nfe.tolist()
        [20, 20, 20]

    References:
        Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, section II.1.
    """

    ode_order: ClassVar[int] = 2
    reference: ClassVar[str] = "Runge (1895)"
    tableau: ClassVar[Tableau] = Tableau(a=((), (0.5,)), c=(0.0, 0.5), b=(0.0, 1.0))
