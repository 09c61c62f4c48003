"""Operators that act on rows and columns apart: down-sampling, and blur with a border of zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_positive
from ...core.support.declared import Count, Kind, checked, integer
from .base import SVD, FiniteMatrix, ImageShape, LinearOperator, full_right

_LARGEST_RADIUS = 1 << 14  # pixels
_Width = Annotated[float, Kind(partial(check_positive, high=_LARGEST_RADIUS / 3))]
_Radius = Annotated[int, integer(low=0, high=_LARGEST_RADIUS)]


class Separable(LinearOperator):
    r"""One matrix along the rows and one along the columns of images ``(..., H, W)``: :math:`Y = R X C^T`. Its
    decomposition is made of two small ones.

    Args:
        event_shape: ``(..., H, W)``.
        rows: R, ``(h, H)``.
        columns: C, ``(w, W)``.

    Example:
        >>> mean = torch.full((1, 2), 0.5)
        >>> Separable((1, 2, 2), mean, mean).forward(
        ...     torch.arange(4.0).reshape(1, 1, 2, 2)
        ... ).flatten()
        tensor([1.5000])
    """

    @checked
    def __init__(self, event_shape: ImageShape, rows: FiniteMatrix, columns: FiniteMatrix) -> None:
        for name, matrix, size in (("rows", rows, event_shape[-2]), ("columns", columns, event_shape[-1])):
            if matrix.shape[1] != size:
                raise InvalidArgumentError(f"`{name}` must be a matrix (n, {size}), got {tuple(matrix.shape)}.")
        self.rows, self.columns = rows, columns
        super().__init__(event_shape, (*event_shape[:-2], len(rows), len(columns)))

    def _forward(self, x: Tensor) -> Tensor:
        return self.rows.to(x) @ x @ self.columns.to(x).mT

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.rows.to(y).mT @ y @ self.columns.to(y)

    def _decompose(self) -> SVD:
        (s, left), (r, right) = full_right(self.rows), full_right(self.columns)
        return SVD(
            (s[:, None] * r).expand(self.event_shape),
            lambda x: left.to(x) @ x @ right.to(x).mT,
            lambda c: left.to(c).mT @ c @ right.to(c),
        )


def block_average(event_shape: ImageShape, factor: Count) -> Separable:
    """Down-sampling by the means of blocks of ``factor`` x ``factor`` pixels.

    Args:
        event_shape: ``(..., H, W)``, divisible by the factor.
        factor: the side of a block.

    Example:
        >>> block_average((1, 8, 8), 2).measurement_shape
        (1, 4, 4)
    """
    return _down(event_shape, factor, lambda size, f: torch.eye(size // f).repeat_interleave(f, dim=1) / f)


def bicubic(event_shape: ImageShape, factor: Count) -> Separable:
    r"""Bicubic down-sampling, with the kernel widened by the factor against aliasing (as in Pillow and MATLAB) and
    border pixels repeated.

    The kernel is Keys's, with a = −½. Rows sum to one.

    Args:
        event_shape: ``(..., H, W)``, divisible by the factor.
        factor: the ratio of the resolutions.

    Example:
        >>> bicubic((1, 8, 8), 2).forward(torch.ones(1, 1, 8, 8)).flatten()[:3].round(
        ...     decimals=4
        ... )
        tensor([1., 1., 1.])

    References:
        Keys (1981), Cubic convolution interpolation for digital image processing, eq. 15.
    """
    return _down(event_shape, factor, _bicubic_matrix)


@checked
def gaussian_blur(event_shape: ImageShape, std: float, *, radius: int | None = None) -> Separable:
    """Gaussian blur with zeros beyond the border; with a periodic border, `Blur` of a `gaussian_kernel`.

    Args:
        event_shape: ``(..., H, W)``.
        std: the kernel's standard deviation in pixels.
        radius: the kernel has ``2 radius + 1`` pixels per side; three standard deviations by default.

    Example:
        >>> gaussian_blur((1, 8, 8), 1.0).rank
        64
    """
    kernel = gaussian_profile(std, radius)
    reach = len(kernel) // 2

    def toeplitz(size: int) -> Tensor:
        place = torch.arange(size)
        offset = place[:, None] - place + reach
        inside = (offset >= 0) & (offset < len(kernel))
        return torch.where(inside, kernel[offset.clamp(0, len(kernel) - 1)], torch.zeros_like(kernel[0]))

    return Separable(event_shape, toeplitz(event_shape[-2]), toeplitz(event_shape[-1]))


@checked
def gaussian_profile(std: _Width, radius: _Radius | None = None) -> Tensor:
    """A Gaussian on ``2 radius + 1`` pixels, with sum one, float64.

    Example:
        >>> round(float(gaussian_profile(1.0).sum()), 6)
        1.0
    """
    reach = math.ceil(3 * std) if radius is None else radius
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place / std) ** 2)
    return kernel / kernel.sum()


@checked
def _down(event_shape: ImageShape, factor: Count, matrix: Callable[[int, int], Tensor]) -> Separable:
    high, wide = event_shape[-2:]
    if high % factor or wide % factor:
        raise InvalidArgumentError(f"`factor` must divide the image's sides {(high, wide)}, got {factor}.")
    return Separable(event_shape, matrix(high, factor), matrix(wide, factor))


def _bicubic_matrix(size: int, factor: int) -> Tensor:
    centre = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    reach = 2 * factor + 1
    place = torch.floor(centre)[:, None] + torch.arange(-reach, reach + 1)
    u = ((place - centre[:, None]) / factor).abs()
    near, far = (1.5 * u - 2.5) * u * u + 1, ((-0.5 * u + 2.5) * u - 4) * u + 2
    weight = torch.where(u <= 1, near, torch.where(u < 2, far, torch.zeros_like(u)))
    weight = weight / weight.sum(1, keepdim=True)
    index = place.long().clamp(0, size - 1)  # border pixels are repeated
    return torch.zeros(len(centre), size, dtype=torch.float64).scatter_add(1, index, weight)
