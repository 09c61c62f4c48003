"""Operators that the Fourier transform describes: convolutions, and some of its coefficients."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_tensor
from ...core.support.declared import Number, checked, integer
from .base import SVD, FiniteMatrix, ImageShape, LinearOperator
from .separable import gaussian_profile


class Blur(LinearOperator):
    r"""Convolution with a kernel, channel by channel, on images ``(..., H, W)``.

    With ``border="periodic"`` it is diagonal in Fourier space, :math:`s = |\hat k|`. With ``"zero"`` the image is 0
    beyond its border, and the decomposition is a dense one, for small images.

    Args:
        event_shape: ``(..., H, W)``.
        kernel: ``(h, w)``, odd and at most the image's size: `gaussian_kernel`, `motion_kernel`, or any.
        border: ``"periodic"`` or ``"zero"``.

    Example:
        >>> operator = Blur((1, 8, 8), gaussian_kernel(1.0))
        >>> operator.forward(torch.ones(1, 1, 8, 8)).mean().round(decimals=4)
        tensor(1.)
    """

    @checked
    def __init__(
        self, event_shape: ImageShape, kernel: FiniteMatrix, *, border: Literal["periodic", "zero"] = "periodic"
    ) -> None:
        (high, wide), sides = kernel.shape, event_shape[-2:]
        if not (high % 2 and wide % 2) or high > sides[0] or wide > sides[1]:
            raise InvalidArgumentError(f"`kernel` must have odd sides, at most {tuple(sides)}, got {(high, wide)}.")
        self.kernel, self.border = kernel, border
        placed = torch.zeros(*sides, dtype=torch.float64)
        placed[:high, :wide] = kernel
        self._gain = torch.fft.fft2(placed.roll((-(high // 2), -(wide // 2)), (0, 1)))
        super().__init__(event_shape, event_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.kernel.flip(0, 1), self._gain)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._convolve(y, self.kernel, self._gain.conj())

    def _convolve(self, x: Tensor, correlate: Tensor, gain: Tensor) -> Tensor:
        if self.border == "periodic":
            spectrum = torch.fft.fft2(x)
            return torch.fft.ifft2(spectrum * gain.to(device=x.device, dtype=spectrum.dtype)).real
        planes = x.reshape(-1, 1, *x.shape[-2:])
        padding = (correlate.shape[0] // 2, correlate.shape[1] // 2)
        return torch.nn.functional.conv2d(planes, correlate.to(x)[None, None], padding=padding).reshape(x.shape)

    def _decompose(self) -> SVD:
        return fourier_svd(self._gain.abs(), self.event_shape) if self.border == "periodic" else super()._decompose()


def fourier_svd(values: Tensor, event_shape: tuple[int, ...]) -> SVD:
    """The singular values of an operator that is diagonal in the two-dimensional discrete Fourier transform.

    Example:
        >>> fourier_svd(torch.ones(2, 2), (1, 2, 2)).into(torch.ones(1, 1, 2, 2))[
        ...     0, 0, 0, 0
        ... ].real.round()
        tensor(2.)
    """
    return SVD(
        values.expand(event_shape),
        lambda x: torch.fft.fft2(x, norm="ortho"),
        lambda c: torch.fft.ifft2(c, norm="ortho").real,
    )


class PartialFourier(LinearOperator):
    r"""Measure some coefficients of the unitary Fourier transform of real images ``(..., H, W)``, as magnetic resonance
    does.

    The measurement is real, ``(2, ..., count)``: real and imaginary parts. The coefficients of a real image at k and −k
    are conjugate, so :math:`s^2` at k is half the number of those two that are measured.

    Args:
        event_shape: ``(..., H, W)``.
        mask: bool ``(H, W)``, True for the coefficients measured, in the order of `torch.fft.fft2`.

    Example:
        >>> from scoresde.inverse import PartialFourier
        >>> mask = torch.zeros(4, 4, dtype=torch.bool)
        >>> mask[0, 0] = True
        >>> PartialFourier((1, 4, 4), mask).forward(torch.ones(1, 1, 4, 4)).flatten()
        tensor([4., 0.])
    """

    @checked
    def __init__(self, event_shape: ImageShape, mask: Tensor) -> None:
        check_tensor("mask", mask, event_shape[-2:], kind="boolean")
        self.mask = mask.detach().cpu()
        self._index = self.mask.flatten().nonzero()[:, 0]
        super().__init__(event_shape, (2, *event_shape[:-2], len(self._index)))

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


def gaussian_kernel(std: float, *, radius: int | None = None) -> Tensor:
    """A Gaussian, ``(2 radius + 1, 2 radius + 1)``, with sum one, float64; the radius is three standard deviations by
    default.

    Example:
        >>> gaussian_kernel(0.5).shape
        torch.Size([5, 5])
    """
    profile = gaussian_profile(std, radius)
    return profile[:, None] * profile


_Length = Annotated[int, integer(low=1, high=1 << 14)]  # pixels


@checked
def motion_kernel(length: _Length, angle: Number = 0.0) -> Tensor:
    """A straight line of ``length`` pixels (odd) through the centre, with sum one, float64.

    Args:
        length: the side of the kernel and the length of the line.
        angle: in degrees, from the horizontal, upwards.

    Example:
        >>> motion_kernel(3)
        tensor([[0.0000, 0.0000, 0.0000],
                [0.3333, 0.3333, 0.3333],
                [0.0000, 0.0000, 0.0000]], dtype=torch.float64)
    """
    if length % 2 == 0:
        raise InvalidArgumentError(f"`length` must be odd, so that the line has a centre, got {length}.")
    turn = math.radians(angle)
    centre = (length - 1) / 2
    along = torch.arange(length, dtype=torch.float64) - centre
    column, row = centre + along * math.cos(turn), centre - along * math.sin(turn)
    kernel = torch.zeros(length, length, dtype=torch.float64)
    for down in (0, 1):  # each point is spread over the four pixels around it
        for right in (0, 1):
            i, j = row.floor() + down, column.floor() + right
            weight = (1 - (row - i).abs()).clamp_min(0) * (1 - (column - j).abs()).clamp_min(0)
            place = i.long().clamp(0, length - 1), j.long().clamp(0, length - 1)
            kernel.index_put_(place, weight, accumulate=True)
    return kernel / kernel.sum()
