"""Euler's method."""

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
