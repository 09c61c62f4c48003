"""Diffusion posterior sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.support.checks import check_number
from ..measurement import Measurement, dot
from .base import Known, Rule


@dataclass(frozen=True)
class DPS(Rule):
    r"""DPS: :math:`x_0` is taken to be :math:`\hat x`, without uncertainty.

    .. math:: p(y|x_t) \approx N(y; A\hat x, \sigma_y^2 I), \qquad
              \nabla\ln p(y|x_t) \approx \frac{\zeta}{\sigma_y^2} J^TA^T(y - A\hat x).

    Facts:
        1 product per evaluation; any operator, also a function. Exact only where :math:`C_t = 0`: it trusts the
        measurement too much while there is noise, so that the posterior comes out too narrow, and the smaller
        :math:`\sigma_y` the stiffer the equation, so that its default solver is ``"ancestral"``, which diverges later
        than ``"dpmpp_2m_sde"``. `DPSStep` is the rule with the published step size.

    Args:
        scale: :math:`\zeta`.

    Example:
        >>> DPS().products
        1

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems, eq. 16.
        https://arxiv.org/abs/2209.14687
    """

    scale: float = 1.0

    name: ClassVar[str] = "dps"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    reference: ClassVar[str] = "Chung et al. (2023), eq. 16"
    needs: ClassVar = (Measurement.noisy,)
    sampler: ClassVar[str] = "ancestral"

    def __post_init__(self) -> None:
        check_number("scale", self.scale, low=0.0)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        slope = measurement.pull(known.data, y - measurement.operator.forward(known.data))
        return known.data + self.scale / measurement.std**2 * known.covary(slope)

    def log_likelihood(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.log_likelihood`."""
        residual = (y - measurement.operator.forward(known.data)).double()
        return -0.5 * self.scale / measurement.std**2 * dot(residual, residual)
