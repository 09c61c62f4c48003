"""SDE-DPM-Solver++ in multiple steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_number
from .base import Node, SDESolver
from .dpm_multistep import DPM2M, DPM3M
from .families.multistep import Multistep


@dataclass(frozen=True)
class _Stochastic(SDESolver, Multistep):
    """What makes a multistep method one of the reverse SDE; its eta comes after the fields of that method."""

    eta: float = 1.0

    ode_order: ClassVar[None] = None
    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.0
    gaussian_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eta", self.eta, low=0.0)

    def stochasticity(self, node: Node) -> float:
        """Eta."""
        return self.eta

    def follows(self, eta: float) -> float | None:
        """Its own eta."""
        return self.eta


@dataclass(frozen=True)
class DPMpp2MSDE(_Stochastic, DPM2M):  # type: ignore[misc]  # which has no ode_order
    r"""SDE-DPM-Solver++ (2M): `DPMpp2M` for the reverse SDE with stochasticity :math:`\eta`.

    .. math::
        x_t = \frac{\sigma_t}{\sigma_s}e^{-\eta^2h}x_s + (1+\eta^2)\alpha_t h[\varphi_1(z)\hat x_0 +
            \tfrac12\varphi_1(z) D_1] + \sigma_t\sqrt{1-e^{-2\eta^2h}}\,z_0,\qquad z = -(1+\eta^2)h.

    Facts:
        Weak order 2, strong order 1; 1 evaluation per step; keeps one estimate. With :math:`\eta = 0` it is
        `DPMpp2M`.

    Differs from:
        k-diffusion, whose eta is :math:`\eta^2` here and whose draws come from a Brownian tree (noise=BrownianPath(...)
        here).

    Args:
        form: ``"dpmsolver"`` (midpoint) or ``"taylor"`` (heun).
        lower_order_final: make the last step one of order 1.
        eta: the stochasticity, 0 or more.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="dpmpp_2m_sde", steps=10, shape=(4, 2), seed=0
        ... ).evaluations
        10

    References:
        Lu et al. (2022), DPM-Solver++, section 5. https://arxiv.org/abs/2211.01095
    """

    prediction: str = "data"


@dataclass(frozen=True)
class DPMpp3MSDE(_Stochastic, DPM3M):  # type: ignore[misc]  # which has no ode_order
    r"""SDE-DPM-Solver++ (3M): `DPMpp3M` for the reverse SDE with stochasticity :math:`\eta`.

    Facts:
        Weak order 2 (one increment per step allows no more for :math:`\eta > 0`; the third node lowers the constant),
        strong order 1; 1 evaluation per step; keeps two estimates. With :math:`\eta = 0` it is `DPMpp3M` with the
        published start-up.

    Differs from:
        k-diffusion, where the factor 2 of the second derivative is missing: ``variant="published"``.

    Args:
        variant: ``"corrected"`` or ``"published"``.
        start_up: ``"published"``, steps of orders 1 and 2; the single steps of `DPMpp3M` have no noise.
        lower_order_final: use orders 2 and 1 in the last two steps.
        eta: the stochasticity, 0 or more.

    Example:
        >>> DPMpp3MSDE().evaluations
        1

    References:
        Lu et al. (2022), DPM-Solver++. https://arxiv.org/abs/2211.01095
        Crowson, k-diffusion. https://github.com/crowsonkb/k-diffusion
    """

    prediction: str = "data"
    start_up: str = "published"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_up != "published":
            raise InvalidArgumentError(
                "`start_up` must be 'published' here: the single steps of higher order are deterministic."
            )
