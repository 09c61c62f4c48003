r"""Energy distances of samples, without bias and with a standard error.

.. math:: D^2 = 2E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

is 0 if X and Y have the same distribution, and larger otherwise. All three means are over the pairs :math:`i \ne j` of
:math:`z_i = (x_i, y_i)`,

.. math::
    h(z_i, z_j) = \|x_i - y_j\| + \|x_j - y_i\| - \|x_i - x_j\| - \|y_i - y_j\|, \qquad
    U = \frac1{n(n-1)}\sum_{i\ne j}h(z_i, z_j),

so that U has the mean :math:`D^2` however :math:`x_i` depends on :math:`y_i`, and may be negative. Samples that belong
together, such as the ends of two solves from the same state, make it more exact: U = 0 if they are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2**20  # pairs at a time


class PairMean(NamedTuple):
    """A mean over pairs, and its standard error."""

    value: float
    error: float


def energy(x: Tensor, y: Tensor) -> PairMean:
    r"""The energy distance :math:`D^2` of samples; infinite if one of x is not finite.

    Args:
        x, y: ``(n, *event)`` with n > 2; the pairs :math:`(x_i, y_i)` are independent of each other.
    """
    x, y = _flat(x), _flat(y)
    return mean_of_pairs(lambda rows: _across(x, y, rows) - _within(y, rows), x)


def difference(x: Tensor, other: Tensor, y: Tensor) -> PairMean:
    """By how much x is farther from y than other samples, all as for `energy`."""
    x, other, y = _flat(x), _flat(other), _flat(y)
    return mean_of_pairs(lambda rows: _across(x, y, rows) - _across(other, y, rows), x)


def _flat(x: Tensor) -> Tensor:
    return x.to(torch.float64).flatten(1)


def _across(x: Tensor, y: Tensor, rows: slice) -> Tensor:
    """The part of h that depends on x, for some samples with all, ``(rows, n)``."""
    return _lengths(x[rows], y) + _lengths(y[rows], x) - _within(x, rows)


def _within(x: Tensor, rows: slice) -> Tensor:
    return _lengths(x[rows], x)


def _lengths(a: Tensor, b: Tensor) -> Tensor:
    """Distances of all pairs, without the cancellation of a product of matrices."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def mean_of_pairs(kernel: Callable[[slice], Tensor], x: Tensor) -> PairMean:
    r"""The U-statistic of a symmetric kernel, given by rows.

    With :math:`g_i` the mean of :math:`h(z_i, z_j)` over j, the jackknife's variance is :math:`4s_g^2(n-1)^2/n(n-2)^2`.
    Where the two distributions are nearly the same, :math:`g_i` is noise of the pairs alone, and may be small by
    chance; the variance is therefore not less than :math:`2\zeta/n(n-1)`, with :math:`\zeta` the variance of
    :math:`h(z_i, z_j) - g_i - g_j`.
    """
    n = len(x)
    means, squares = torch.zeros_like(x[:, 0]), 0.0
    for start in range(0, n, max(1, _BLOCK // n)):
        rows = slice(start, start + max(1, _BLOCK // n))
        h = kernel(rows)
        h.diagonal(start).zero_()
        means[rows] = h.sum(1) / (n - 1)
        squares += float(h.square().sum())
    value, spread = float(means.mean()), float(means.var())
    if not math.isfinite(spread + squares):
        return PairMean(math.inf, math.inf)
    pairs = max(0.0, squares / (n * (n - 1)) - value**2 - 2 * spread)
    jackknife = 2 * (n - 1) / (n - 2) * math.sqrt(spread / n)
    return PairMean(value, max(jackknife, math.sqrt(2 * pairs / (n * (n - 1)))))
