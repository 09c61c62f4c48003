"""RES: exponential Runge-Kutta methods that meet the stiff order conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_positive
from .dpm_singlestep import second_order
from .families.exponential_runge_kutta import ExponentialRungeKutta, PhiTableau, minus


@dataclass(frozen=True)
class RES2S(ExponentialRungeKutta):
    r"""RES of order 2 in single steps, in :math:`\hat x`.

    .. math::
        a_{21} = c_2\varphi_1(c_2z),\quad b_1 = \varphi_1 - \tfrac1{c_2}\varphi_2,\quad b_2 = \tfrac1{c_2}\varphi_2.

    Facts:
        Order 2 (stiff); 2 evaluations per step; no state; no noise. The same as DPM-Solver++ (2S) in its "taylor" form.

    Args:
        prediction: ``"data"`` or ``"noise"``, what is integrated.
        c2: the place of the inner node, in (0, 1].

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="res_2s", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        20

    References:
        Hochbruck, Ostermann (2005), Explicit exponential Runge-Kutta methods for semilinear parabolic problems, eq.
        5.4.
        Zhang et al. (2023), Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling.
        https://arxiv.org/abs/2308.02157
    """

    prediction: str = "data"
    c2: float = 0.5

    ode_order: ClassVar[int] = 2
    reference: ClassVar[str] = "Hochbruck, Ostermann (2005), eq. 5.4; Zhang et al. (2023), RES"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("c2", self.c2, high=1.0)

    @property
    def tableau(self) -> PhiTableau:
        """The method's coefficients."""
        return second_order(self.c2)


@dataclass(frozen=True)
class RES3S(ExponentialRungeKutta):
    r"""RES of order 3 in single steps, in :math:`\hat x`, with free nodes :math:`c_2, c_3`.

    With :math:`2(\gamma c_2 + c_3) = 3(\gamma c_2^2 + c_3^2)`,

    .. math::
        a_{32} = \gamma c_2\varphi_2(c_2z) + \tfrac{c_3^2}{c_2}\varphi_2(c_3z),\quad
        b_2 = \tfrac{\gamma}{\gamma c_2+c_3}\varphi_2,\quad b_3 = \tfrac{1}{\gamma c_2+c_3}\varphi_2,

    the rest from :math:`\sum_j a_{ij} = c_i\varphi_1(c_iz)` and :math:`\sum b_j = \varphi_1`. With :math:`c_3 =
    \frac23`, :math:`\gamma = 0`: DPM-Solver++ (3S) in its "dpmsolver" form.

    Facts:
        Order 3 (stiff, with the last condition met at z = 0); 3 evaluations per step; no state; no noise.

    Args:
        prediction: ``"data"`` or ``"noise"``, what is integrated.
        c2, c3: the places of the inner nodes, in (0, 1]; c2 is not 2/3 unless c3 is.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="res_3s", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        30

    References:
        Hochbruck, Ostermann (2005), eq. 5.8-5.9.
        Zhang et al. (2023), RES. https://arxiv.org/abs/2308.02157
    """

    prediction: str = "data"
    c2: float = 0.5
    c3: float = 1.0

    ode_order: ClassVar[int] = 3
    reference: ClassVar[str] = "Hochbruck, Ostermann (2005), eq. 5.8-5.9; Zhang et al. (2023), RES"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("c2", self.c2), ("c3", self.c3)):
            check_positive(name, value, high=1.0)
        if not self.c2 < self.c3 or (abs(self.c2 - 2 / 3) < 1e-6):
            raise InvalidArgumentError(f"`c2` must be less than c3 and not 2/3, got c2={self.c2}, c3={self.c3}.")

    @property
    def tableau(self) -> PhiTableau:
        """The method's coefficients."""
        c2, c3 = self.c2, self.c3
        gamma = (3 * c3 * c3 - 2 * c3) / (2 * c2 - 3 * c2 * c2)
        a32 = ((2, gamma * c2, c2), (2, c3 * c3 / c2, c3))
        b2 = ((2, gamma / (gamma * c2 + c3), 1.0),)
        b3 = ((2, 1 / (gamma * c2 + c3), 1.0),)
        return PhiTableau(
            c=(0.0, c2, c3),
            a=((), (((1, c2, c2),),), (((1, c3, c3), *minus(a32)), a32)),
            b=(((1, 1.0, 1.0), *minus(b2), *minus(b3)), b2, b3),
        )
