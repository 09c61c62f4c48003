"""The classical fourth-order Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .families.runge_kutta import RungeKutta, Tableau


@dataclass(frozen=True)
class RK4(RungeKutta):
    r"""The classical Runge-Kutta method on the probability flow, in time.

    .. math:: x' = x + \tfrac h6 (k_1 + 2k_2 + 2k_3 + k_4).

    Facts:
        Order 4; 4 evaluations per step; no state; no noise.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="rk4", steps=10, shape=(3, 2)
        ... ).nfe.tolist()
        [40, 40, 40]

    References:
        Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, table II.1.2.
    """

    ode_order: ClassVar[int] = 4
    reference: ClassVar[str] = "Kutta (1901)"
    tableau: ClassVar[Tableau] = Tableau(
        a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), c=(0.0, 0.5, 0.5, 1.0), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)
    )
