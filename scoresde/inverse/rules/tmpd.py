"""Tweedie moment projected diffusion, with its row sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Known, Measurement, Rule


@dataclass(frozen=True)
class TMPD(Rule):
    r"""TMPD: as `MMPS`, with the diagonal of row sums in place of :math:`AC_tA^T`.

    .. math:: p(y|x_t) \approx N(y; A\hat x, \mathrm{diag}(AC_tA^T1) + \sigma_y^2I).

    Facts:
        2 products per evaluation; any linear operator. Exact for Gaussian data where :math:`AC_tA^T` is diagonal. Row
        sums below 0, which a covariance may have, count as 0.

    Example:
        >>> TMPD().products
        2

    References:
        Boys et al. (2023), Tweedie Moment Projected Diffusions for Inverse Problems, section 4.
        https://arxiv.org/abs/2310.06721
    """

    name: ClassVar[str] = "tmpd"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 2
    reference: ClassVar[str] = "Boys et al. (2023), section 4"
    needs: ClassVar = (Measurement.linear, Measurement.noisy)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        sums = operator.forward(known.covary(operator.adjoint(torch.ones_like(y))))
        residual = y - operator.forward(known.data)
        return known.data + known.covary(operator.adjoint(residual / (sums.clamp_min(0) + measurement.std**2)))
