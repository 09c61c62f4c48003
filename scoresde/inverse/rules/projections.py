"""Rules that take no vector-Jacobian product: projections of the data estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.support.declared import Positive, checked
from ...core.support.tensors import expand
from .base import Known, Measurement, Rule


@dataclass(frozen=True)
class DDNM(Rule):
    r"""DDNM: the part of the data estimate that is measured is replaced by the measurement.

    .. math:: \hat x \leftarrow \hat x + A^+(y - A\hat x) = A^+y + (I - A^+A)\hat x.

    Facts:
        No vector-Jacobian product; the singular values of A. The end agrees with y exactly, noise included; how the
        measured part informs the rest is left to the network's later evaluations. `DDNMPlus` is the version for noisy
        measurements.

    Example:
        >>> DDNM().gradients
        False

    References:
        Wang, Yu, Zhang (2023), Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, eq. 13.
        https://arxiv.org/abs/2212.00490
    """

    name: ClassVar[str] = "ddnm"
    reference: ClassVar[str] = "Wang, Yu, Zhang (2023), eq. 13"
    needs: ClassVar = (Measurement.spectral,)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        return known.data + operator.pseudo_inverse(y - operator.forward(known.data))


@checked
@dataclass(frozen=True)
class DiffPIR(Rule):
    r"""DiffPIR: the data estimate is moved to the proximal point of the measurement.

    .. math::
        \hat x \leftarrow \arg\min_x \|y-Ax\|^2 + \rho_t\|x-\hat x\|^2
            = \hat x + (A^TA+\rho_tI)^{-1}A^T(y-A\hat x), \qquad \rho_t = \lambda\,\sigma_y^2\alpha^2/\sigma^2.

    Facts:
        No vector-Jacobian product; the singular values of A. With :math:`\lambda = 1` it is Kalman's update with the
        covariance :math:`(\sigma/\alpha)^2I`, which is larger than any :math:`C_t` of data with less variance; with
        :math:`\sigma_y = 0` it is `DDNM`.

    Differs from:
        the published sampler, whose step redraws a fixed share of the noise; take ``ancestral`` or ``ddim_eta``.

    Args:
        weight: :math:`\lambda`.

    Example:
        >>> DiffPIR(weight=1.0).name
        'diffpir'

    References:
        Zhu et al. (2023), Denoising Diffusion Models for Plug-and-Play Image Restoration, eq. 12-13.
        https://arxiv.org/abs/2305.08995
    """

    weight: Positive = 7.0

    name: ClassVar[str] = "diffpir"
    reference: ClassVar[str] = "Zhu et al. (2023), eq. 12-13"
    needs: ClassVar = (Measurement.spectral,)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator, node = measurement.linear(self.name), known.node
        rho = self.weight * (measurement.std * node.alpha / node.sigma) ** 2
        slope = operator.adjoint(y - operator.forward(known.data))
        return known.data + operator.filter(slope, lambda s: 1 / (s**2 + expand(rho, s)))
