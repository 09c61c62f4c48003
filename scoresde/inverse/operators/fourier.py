"""Some Fourier coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.support.checks import check_tensor
from .base import SVD, LinearOperator, check_image
from .blur import fourier_svd


class PartialFourier(LinearOperator):
    r"""Measure some coefficients of the unitary Fourier transform of real images ``(..., H, W)``, as magnetic resonance
    does.

    The measurement is real, ``(2, ..., count)``: real and imaginary parts. The coefficients of a real image at k and −k
    are conjugate, so :math:`s^2` at k is half the number of those two that are measured.

    Args:
        event_shape: ``(..., H, W)``.
        mask: bool ``(H, W)``, True for the coefficients measured, in the order of `torch.fft.fft2`.

    Example:
        >>> mask = torch.zeros(4, 4, dtype=torch.bool)
        >>> mask[0, 0] = True
        >>> PartialFourier((1, 4, 4), mask).forward(torch.ones(1, 1, 4, 4)).flatten()
        tensor([4., 0.])
    """

    def __init__(self, event_shape: Sequence[int], mask: Tensor) -> None:
        shape = check_image("event_shape", event_shape)
        check_tensor("mask", mask, shape[-2:], kind="boolean")
        self.mask = mask.detach().cpu()
        self._index = self.mask.flatten().nonzero()[:, 0]
        super().__init__(shape, (2, *shape[:-2], len(self._index)))

    def _forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.fft2(x, norm="ortho").flatten(-2)[..., self._index.to(x.device)]
        return torch.stack([seen.real, seen.imag], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        seen = torch.complex(y[:, 0].contiguous(), y[:, 1].contiguous())
        grid = seen.new_zeros(*seen.shape[:-1], self.mask.numel()).index_copy(-1, self._index.to(y.device), seen)
        return torch.fft.ifft2(grid.reshape(len(y), *self.event_shape), norm="ortho").real

    def _decompose(self) -> SVD:
        here = self.mask.to(torch.float64)
        mirrored = here.flip(0, 1).roll((1, 1), (0, 1))  # at -k
        return fourier_svd(((here + mirrored) / 2).sqrt(), self.event_shape)
