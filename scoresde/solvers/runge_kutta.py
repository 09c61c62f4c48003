"""Runge-Kutta methods on the probability flow, in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .families.runge_kutta import RungeKutta, Tableau


@dataclass(frozen=True)
class Euler(RungeKutta):
    r"""Euler's method on the probability flow: :math:`x_s = x_t + (s - t)\,F(x_t, t)`.

    Facts:
        Order 1; 1 evaluation per step; no state; no noise.

    Differs from:
        k-diffusion's ``sample_euler``, which is `DDIM`: Euler in :math:`\sigma/\alpha`. This is Euler in time, linear
        part included.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="euler", steps=10, shape=(3, 2)
        ... ).nfe.tolist()
        [10, 10, 10]

    References:
        Song et al. (2021), eq. 13 (the ODE). https://arxiv.org/abs/2011.13456
    """

    ode_order: ClassVar[int] = 1
    reference: ClassVar[str] = "Euler (1768); Song et al. (2021), eq. 13"
    tableau: ClassVar[Tableau] = Tableau(a=((),), c=(0.0,), b=(1.0,))


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
