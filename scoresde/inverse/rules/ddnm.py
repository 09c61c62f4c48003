"""Null-space projection of the data estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

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
