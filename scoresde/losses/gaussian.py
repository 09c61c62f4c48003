r"""Pieces of variational bounds: divergences of Gaussians, and probabilities of grey values under one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import NormalPrior
from ..core.support.checks import check_broadcast, check_choice, check_grey, check_number, check_state, check_tensor
from ..core.support.tensors import Scalar


def gaussian_kl(distance: Tensor, log_variance: Scalar, other_log_variance: Scalar) -> Tensor:
    r""":math:`KL(N(m, v)\,\|\,N(m', v'))` elementwise, in nats:
    :math:`\tfrac12[(m-m')^2/v' + v/v' - 1 - \ln(v/v')]`.

    Args:
        distance: :math:`m - m'`.
        log_variance: ln v, a number or a tensor that broadcasts.
        other_log_variance: ln v'.

    Example:
        >>> gaussian_kl(torch.tensor([1.0]), 0.0, 0.0)
        tensor([0.5000])
    """
    check_tensor("distance", distance)
    log_v = _logarithm("log_variance", log_variance, distance)
    log_other = _logarithm("other_log_variance", other_log_variance, distance)
    ratio, inverse = log_v - log_other, torch.exp(-log_other)
    return 0.5 * (distance.square() * inverse + torch.expm1(ratio) - ratio)


def _logarithm(name: str, value: object, like: Tensor) -> Tensor:
    """A number as a float64 tensor, or a tensor that broadcasts."""
    given = _checked(name, value, like, low=-_LARGEST, high=_LARGEST)
    return given if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float64, device=like.device)


def _checked(name: str, value: object, like: Tensor, **limits: Any) -> Scalar:
    """A number within limits, or a tensor that broadcasts."""
    if not isinstance(value, Tensor):
        return check_number(name, value, **limits)
    check_broadcast(name, value, like)
    return value


_LARGEST = 700.0  # of the logarithm of a variance, whose exponential is a number


def prior_kl(x0: Tensor, alpha: Scalar, sigma: Scalar, prior: NormalPrior | None) -> Tensor:
    r""":math:`KL(N(\alpha x_0, \sigma^2 I)\,\|\,\pi)` for a normal prior, in nats, ``(batch,)``.

    Example:
        >>> prior_kl(torch.ones(1, 2), 1.0, 1.0, scoresde.NormalPrior())
        tensor([1.])
    """
    check_state("x0", x0)
    if not isinstance(prior, NormalPrior):
        raise InvalidArgumentError(f"The bound needs a NormalPrior, whose divergence is known, got {prior!r}.")
    mean = prior.mean.to(x0) if isinstance(prior.mean, Tensor) else prior.mean
    alpha, sigma = _checked("alpha", alpha, x0, low=0.0), _checked("sigma", sigma, x0, low=0.0, strict=True)
    # on a GPU nothing is read back for it
    if isinstance(sigma, Tensor) and not sigma.is_cuda and not bool((sigma > 0).all()):
        raise InvalidArgumentError(f"`sigma` must be positive, got {sigma.min():g} as the smallest.")
    log_variance = 2 * torch.as_tensor(sigma, dtype=torch.float64, device=x0.device).log()
    return gaussian_kl(alpha * x0 - mean, log_variance, 2 * math.log(prior.std)).flatten(1).sum(1).to(x0.dtype)


# Where L grey values stand in [lo, hi]: (the first value, the distance of neighbours).
GREY_GRIDS: dict[str, Callable[[float, float, int], tuple[float, float]]] = {
    "ends": lambda low, high, levels: (low, (high - low) / (levels - 1)),
    "cells": lambda low, high, levels: (low + 0.5 * (high - low) / levels, (high - low) / levels),
}


def grey_values(
    levels: int, data_range: tuple[float, float] = (-1.0, 1.0), grid: str = "cells"
) -> tuple[float, float, int]:
    """The first of L grey values, the distance of neighbours, and L.

    Args:
        levels: L, two or more.
        data_range: lo and hi.
        grid: ``"cells"``, the middles of L equal cells (VDM), or ``"ends"``, from lo to hi (DDPM).

    Example:
        >>> grey_values(4), grey_values(5, grid="ends")
        ((-0.75, 0.5, 4), (-1.0, 0.5, 5))
    """
    count, low, high = check_grey(levels, data_range)
    check_choice("grid", grid, GREY_GRIDS)
    return (*GREY_GRIDS[grid](low, high, count), count)


def discretised_log_prob(
    x: Tensor,
    mean: Tensor,
    log_variance: Scalar,
    *,
    levels: int = 256,
    data_range: tuple[float, float] = (-1.0, 1.0),
    grid: str = "ends",
) -> Tensor:
    r"""The log-probability of grey values under a Gaussian, elementwise in nats:

    .. math:: \ln\big[\Phi((x + h - \mu)/\sigma) - \Phi((x - h - \mu)/\sigma)\big],

    h half the distance of neighbours, and all of a tail for the first and the last value, so that the probabilities of
    all values add up to 1.

    Args:
        x: grey values in ``data_range``.
        mean: :math:`\mu`, shaped like x.
        log_variance: :math:`\ln\sigma^2`, a number or a tensor that broadcasts.
        levels, data_range, grid: see `grey_values`.

    Differs from:
        DDPM's code, which approximates :math:`\Phi` by a tanh and clamps probabilities at 1e-12: this is exact, and its
        gradient does not vanish far away.

    Example:
        >>> v = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
        >>> round(
        ...     float(discretised_log_prob(v, 0.3 + 0 * v, -2.0, levels=5).exp().sum()), 12
        ... )
        1.0

    References:
        Ho, Jain, Abbeel (2020), eq. 13. https://arxiv.org/abs/2006.11239
    """
    first, width, count = grey_values(levels, data_range, grid)
    check_tensor("x", x)
    check_broadcast("mean", mean, x)
    log_variance = _checked("log_variance", log_variance, x, low=-_LARGEST, high=_LARGEST)
    scale = torch.exp(-0.5 * torch.as_tensor(log_variance))
    above = (x + 0.5 * width - mean) * scale
    below = (x - 0.5 * width - mean) * scale
    flip = below + above > 0  # in the upper half take the mirror image, where the logarithms keep their digits
    low = torch.where(flip, -above, below)
    high = torch.where(flip, -below, above)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    gap = (log_high - log_low).clamp_min(torch.finfo(x.dtype).tiny)
    inner = log_high + torch.log(-torch.expm1(-gap))
    lowest, highest = x < first + 0.5 * width, x > first + (count - 1.5) * width
    outer = torch.special.log_ndtr(torch.where(lowest, above, -below))
    return torch.where(lowest | highest, outer, inner)
