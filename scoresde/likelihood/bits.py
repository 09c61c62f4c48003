r"""From grey values to densities and back.

A value v of :math:`0 \ldots L-1` stands for a cell of width :math:`w = (hi-lo)/L`. With uniform noise u in the cell,
:math:`x = lo + w(v+u)` has a density, and Jensen's inequality bounds the probability of the values,

.. math:: \ln P(v) = \ln E_u\,p(x)\,w^D \ge E_u \ln p(x) + D\ln w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.support.checks import MOST_DRAWS, check_grey, check_number, check_shape, check_tensor, form, shown
from ..core.support.declared import Kind, checked, integer

EventShape = Annotated[Sequence[int], Kind(partial(check_shape, rank=1))]
Draws = Annotated[int, integer(low=1, high=MOST_DRAWS)]
Several = Annotated[int, integer(low=2, high=MOST_DRAWS)]


@checked
def dequantize(
    v: Tensor,
    *,
    levels: int = 256,
    data_range: tuple[float, float] = (-1.0, 1.0),
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Uniform dequantisation: :math:`x = lo + (v+u)(hi-lo)/L` with u uniform on [0, 1).

    Args:
        v: integers 0 … ``levels`` - 1, of any shape; floating-point tensors of whole numbers are accepted.
        levels: L.
        data_range: lo and hi.
        generator: the source of u.
        dtype: of the result, torch's default otherwise.

    Raises:
        InvalidArgumentError: a value is not a whole number of the range.

    Example:
        >>> x = dequantize(
        ...     torch.tensor([[0, 255]]), generator=torch.Generator().manual_seed(0)
        ... )
        >>> bool((x[0, 0] < -1 + 2 / 256) & (x[0, 1] >= 1 - 2 / 256))
        True

    References:
        Theis, van den Oord, Bethge (2016), A note on the evaluation of generative models, section 3.1.
        https://arxiv.org/abs/1511.01844
    """
    low, width = cell(levels, data_range)
    v = grey_levels(v, levels)
    u = uniform(v, generator)
    return (low + width * (v.to(torch.float64) + u)).to(float_dtype(dtype))


@checked
def bits_per_dim(
    log_prob: Tensor | float,
    event_shape: EventShape,
    *,
    levels: int = 256,
    data_range: tuple[float, float] = (-1.0, 1.0),
    throw: bool = True,
) -> Tensor:
    r"""Bits per dimension of the grey values, from the log-density of `dequantize`'s x:

    .. math:: -\frac{\ln p(x) + D\ln\frac{hi-lo}{L}}{D\ln 2},

    which is :math:`-\ln p/(D\ln2) + 7` for 256 levels on [-1, 1]. Its mean over u is an upper bound of the bits of the
    values. A standard error in nats becomes one in bits by the factor :math:`1/(D\ln2)`.

    Args:
        log_prob: nats, of any shape.
        event_shape: of one sample, whose size is D.
        levels, data_range: as for `dequantize`.
        throw: refuse NaN and infinity; False keeps them, such as the values of failed samples.

    Raises:
        InvalidArgumentError, InvalidTypeError: an argument does not fit.
        NonFiniteError: a log-density is NaN or infinite.

    Example:
        >>> uniform = torch.tensor([-64 * math.log(2)], dtype=torch.float64)  # on [-1, 1]
        >>> bits_per_dim(uniform, (64,)).round(decimals=6)
        tensor([8.], dtype=torch.float64)
    """
    size = math.prod(event_shape)
    if size < 1:
        raise InvalidArgumentError(f"`event_shape` must have a size of 1 or more, got {tuple(event_shape)}.")
    _, width = cell(levels, data_range)
    if not isinstance(log_prob, Tensor):
        log_prob = torch.tensor(check_number("log_prob", log_prob), dtype=torch.float64)
    check_tensor("log_prob", log_prob, kind="real")
    bad = ~torch.isfinite(log_prob)
    if throw and bool(bad.any()):
        raise NonFiniteError(
            f"`log_prob` has {int(bad.sum())} NaN or infinite values of {bad.numel()}; throw=False keeps them.",
            stage="logp",
            indices=bad.flatten().nonzero()[:5, 0].tolist(),
        )
    return -(log_prob / size + math.log(width)) / math.log(2)


def bits_of(nats: Tensor, event_shape: tuple[int, ...], levels: int | None, name: str) -> Tensor:
    """Bits per dimension of a bound of grey values; one of a density, called by its name, has none."""
    if levels is None:
        raise InvalidArgumentError(
            f"A density has no bits; give `levels` of grey values, or take bits_per_dim({name}, event_shape, levels=L) "
            "for data from dequantize(v, levels=L)."
        )
    return nats / (math.prod(event_shape) * math.log(2))


def cell(levels: int, data_range: tuple[float, float]) -> tuple[float, float]:
    """The lower end of the first cell, and the width of all cells."""
    count, low, high = check_grey(levels, data_range)
    return low, (high - low) / count


def grey_levels(v: object, levels: int) -> Tensor:
    """Whole numbers 0 … ``levels`` - 1 of any dtype, or what is wrong with them."""
    if not isinstance(v, Tensor) or v.dtype.is_complex or v.dtype == torch.bool:
        raise InvalidTypeError(f"`v` must be a tensor of grey values, got {form(v)}.")
    v = v.detach()
    v = v if v.is_floating_point() else v.to(torch.int64)  # in a narrow type the number of levels would wrap
    wrong = (v < 0) | (v > levels - 1) | (v != v.round() if v.is_floating_point() else False)
    if bool(torch.as_tensor(wrong).any()):
        raise InvalidArgumentError(
            f"`v` must hold whole numbers 0 … {levels - 1}, got {v[wrong].flatten()[:5].tolist()}; scaled or "
            "dequantised values need no dequantisation."
        )
    return v


def float_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of dequantised values: torch's default, or one that resolves the noise in a cell."""
    out = torch.get_default_dtype() if dtype is None else dtype
    if out not in (torch.float32, torch.float64):
        raise InvalidTypeError(f"`dtype` must be float32 or float64, to resolve the noise in cells, got {shown(out)}.")
    return out


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Float64 numbers of [0, 1), shaped like a tensor and on its device."""
    where = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=where).to(like.device)
