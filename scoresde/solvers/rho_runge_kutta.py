r"""Runge-Kutta methods in :math:`\rho = \sigma/\alpha`: the tableaux of the time methods on another clock.

There the probability flow is :math:`\frac{d}{d\rho}\frac{x}{\alpha} = \hat\varepsilon`, without a linear part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.processes import RHO, Coordinate
from .families.runge_kutta import RungeKutta, Tableau
from .runge_kutta import RK4, Heun, Midpoint


@dataclass(frozen=True)
class RhoHeun(Heun):
    r"""Heun's method in :math:`\rho`: EDM's deterministic sampler, on any process.

    Facts:
        Order 2; 2 evaluations per step; no state; no noise. A step that ends at sigma = 0 is one of DDIM, as EDM's
        last.

    Differs from:
        EDM's code, where the process is always alpha = 1; `Heun`, which steps in time.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.EDMSDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="edm_heun",
        ...     steps=18,
        ...     grid="karras",
        ...     shape=(3, 2),
        ... ).evaluations
        36

    References:
        Karras et al. (2022), algorithm 1. https://arxiv.org/abs/2206.00364
    """

    coordinate: ClassVar[Coordinate] = RHO
    reference: ClassVar[str] = "Karras et al. (2022), algorithm 1; Zhang, Chen (2023), rhoRK-DEIS"


@dataclass(frozen=True)
class RhoMidpoint(Midpoint):
    r"""The midpoint method in :math:`\rho`: EDM's family of order 2 with :math:`\alpha = \frac12`.

    Facts:
        Order 2; 2 evaluations per step; no state; no noise.

    Example:
        >>> RhoMidpoint().evaluations
        2

    References:
        Karras et al. (2022), appendix D.2. https://arxiv.org/abs/2206.00364
    """

    coordinate: ClassVar[Coordinate] = RHO
    reference: ClassVar[str] = "Karras et al. (2022), appendix D.2"


@dataclass(frozen=True)
class RhoRalston(RungeKutta):
    r"""Ralston's method in :math:`\rho`: EDM's family of order 2 with :math:`\alpha = \frac23`.

    Facts:
        Order 2; 2 evaluations per step; no state; no noise.

    Example:
        >>> RhoRalston().tableau.c
        (0.0, 0.6666666666666666)

    References:
        Karras et al. (2022), appendix D.2. https://arxiv.org/abs/2206.00364
    """

    coordinate: ClassVar[Coordinate] = RHO
    ode_order: ClassVar[int] = 2
    reference: ClassVar[str] = "Ralston (1962); Karras et al. (2022), appendix D.2"
    tableau: ClassVar[Tableau] = Tableau(a=((), (2 / 3,)), c=(0.0, 2 / 3), b=(1 / 4, 3 / 4))


@dataclass(frozen=True)
class RhoKutta3(RungeKutta):
    r"""Kutta's method of order 3 in :math:`\rho`: ρ3Kutta-DEIS.

    Facts:
        Order 3; 3 evaluations per step; no state; no noise.

    Example:
        >>> RhoKutta3().evaluations
        3

    References:
        Zhang, Chen (2023), DEIS, section 3.3. https://arxiv.org/abs/2204.13902
    """

    coordinate: ClassVar[Coordinate] = RHO
    ode_order: ClassVar[int] = 3
    reference: ClassVar[str] = "Kutta (1901); Zhang, Chen (2023), rhoRK-DEIS"
    tableau: ClassVar[Tableau] = Tableau(a=((), (0.5,), (-1.0, 2.0)), c=(0.0, 0.5, 1.0), b=(1 / 6, 2 / 3, 1 / 6))


@dataclass(frozen=True)
class RhoRK4(RK4):
    r"""The classical Runge-Kutta method in :math:`\rho`: ρ4RK-DEIS.

    Facts:
        Order 4; 4 evaluations per step; no state; no noise.

    Example:
        >>> RhoRK4().ode_order
        4

    References:
        Zhang, Chen (2023), DEIS, section 3.3. https://arxiv.org/abs/2204.13902
    """

    coordinate: ClassVar[Coordinate] = RHO
    reference: ClassVar[str] = "Kutta (1901); Zhang, Chen (2023), rhoRK-DEIS"
