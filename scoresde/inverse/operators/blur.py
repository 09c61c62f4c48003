"""Convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_choice, check_integer, check_matrix, check_number
from .base import SVD, LinearOperator, check_image
from .separable import gaussian_profile

_BORDERS = ("periodic", "zero")


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

    def __init__(self, event_shape: Sequence[int], kernel: Tensor, *, border: str = "periodic") -> None:
        shape = check_image("event_shape", event_shape)
        self.kernel = check_matrix("kernel", kernel)
        high, wide = self.kernel.shape
        if not (high % 2 and wide % 2) or high > shape[-2] or wide > shape[-1]:
            raise InvalidArgumentError(
                f"`kernel` must have odd sides, at most those of the image {shape[-2:]}, got {(high, wide)}."
            )
        check_choice("border", border, _BORDERS)
        self.border = border
        placed = torch.zeros(shape[-2:], dtype=torch.float64)
        placed[:high, :wide] = self.kernel
        self._gain = torch.fft.fft2(placed.roll((-(high // 2), -(wide // 2)), (0, 1)))
        super().__init__(shape, shape)

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


def gaussian_kernel(std: float, *, radius: int | None = None) -> Tensor:
    """A Gaussian, ``(2 radius + 1, 2 radius + 1)``, with sum one, float64; the radius is three standard deviations by
    default.

    Example:
        >>> gaussian_kernel(0.5).shape
        torch.Size([5, 5])
    """
    profile = gaussian_profile(std, radius)
    return profile[:, None] * profile


_LONGEST = 1 << 14  # pixels


def motion_kernel(length: int, angle: float = 0.0) -> Tensor:
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
    side = check_integer("length", length, low=1, high=_LONGEST)
    if side % 2 == 0:
        raise InvalidArgumentError(f"`length` must be odd, so that the line has a centre, got {side}.")
    turn = math.radians(check_number("angle", angle))
    centre = (side - 1) / 2
    along = torch.arange(side, dtype=torch.float64) - centre
    column, row = centre + along * math.cos(turn), centre - along * math.sin(turn)
    kernel = torch.zeros(side, side, dtype=torch.float64)
    for down in (0, 1):  # each point is spread over the four pixels around it
        for right in (0, 1):
            i, j = row.floor() + down, column.floor() + right
            weight = (1 - (row - i).abs()).clamp_min(0) * (1 - (column - j).abs()).clamp_min(0)
            kernel.index_put_((i.long().clamp(0, side - 1), j.long().clamp(0, side - 1)), weight, accumulate=True)
    return kernel / kernel.sum()
