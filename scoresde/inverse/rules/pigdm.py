"""Pseudo-inverse guided diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.support.checks import check_number
from ...core.support.tensors import Scalar, expand
from ..measurement import Measurement, dot
from .base import Known, Node, Rule


@dataclass(frozen=True)
class PiGDM(Rule):
    r"""ΠGDM: :math:`x_0` is taken to be spread about :math:`\hat x` as data N(0, v I) would be.

    .. math::
        p(y|x_t) \approx N(y; A\hat x, r_t^2AA^T + \sigma_y^2I),\qquad r_t^2 = \frac{\sigma^2v}{\alpha^2v+\sigma^2},
        \qquad \nabla\ln p(y|x_t) \approx J^TA^T(r_t^2AA^T+\sigma_y^2I)^{-1}(y-A\hat x).

    Facts:
        1 product per evaluation, and the singular values of A. Exact for data N(m, v I). With :math:`\sigma_y = 0` the
        inverse is the pseudo-inverse.

    Differs from:
        the published sampler, which takes v = 1 and multiplies the guidance by :math:`r_t^2` in a DDIM step.

    Args:
        data_std: :math:`\sqrt v`, the standard deviation of the data.

    Example:
        >>> PiGDM(data_std=0.5).variance(scoresde.EDMSDE().node(0.5))
        0.125

    References:
        Song et al. (2023), Pseudoinverse-Guided Diffusion Models for Inverse Problems, eq. 7-8 and appendix A.
    """

    data_std: float = 1.0

    name: ClassVar[str] = "pigdm"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    reference: ClassVar[str] = "Song et al. (2023), ΠGDM, eq. 7"
    needs: ClassVar = (Measurement.spectral,)

    def __post_init__(self) -> None:
        check_number("data_std", self.data_std, low=0.0, strict=True)

    def variance(self, node: Node) -> Scalar:
        r""":math:`r_t^2`."""
        v = self.data_std**2
        return node.sigma * node.sigma * v / (node.alpha * node.alpha * v + node.sigma * node.sigma)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        slope = operator.adjoint(y - operator.forward(known.data))
        return known.data + known.covary(operator.filter(slope, self._inverse(measurement, known.node)))

    def log_likelihood(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.log_likelihood`."""
        operator, inverse = measurement.linear(self.name), self._inverse(measurement, known.node)
        slope = operator.adjoint((y - operator.forward(known.data)).double())
        return -0.5 * dot(slope, operator.filter(slope, lambda s: inverse(s) / s**2))  # what A cannot reach is fixed

    def _inverse(self, measurement: Measurement, node: Node) -> Callable[[Tensor], Tensor]:
        r2 = self.variance(node)
        return lambda s: 1 / (measurement.std**2 + expand(r2, s) * s**2)
