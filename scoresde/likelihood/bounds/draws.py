r"""Draws of the noise levels, and the standard errors of their means.

Each design gives numbers in [0, 1), ``(count, batch)``, every one of them uniform, and has a standard error for the
mean of a function of them:

- *stratified*: each sample's interval is cut into strata of two draws (one of three if their number is odd). What
  changes from level to level then hardly counts, and the differences within the strata give an unbiased variance.
  Where values are w(u) q with weights w that vary much inside a stratum, few draws seldom see the largest weights, and
  most estimates of the variance are too small. The weights are known, though, and with them the larger part of it,

  .. math:: \mathrm{Var}[wq] \approx E[w]^2\,\mathrm{Var}[q] + \mathrm{Var}[w]\,E[q^2],

  for a q that does not depend on the weight; an interval takes the larger of the two variances.
- *even*: each sample's draws are an even grid, and the grids of the samples interleave to one of all, which a single
  uniform number shifts (low discrepancy). The standard error is that of strata, and a little too large.
- *independent*: independent draws, with the usual standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .result import Term, pooled_freedom


class Weights(NamedTuple):
    """Known weights of values: those drawn, ``(count, batch)``, and the means of the weight and of its square in each
    stratum, ``(strata,)``."""

    drawn: Tensor
    mean: Tensor
    square: Tensor


class Design(NamedTuple):
    """How numbers are drawn, ``(count, batch)``; the mean of the values that they led to, of the same shape; whether
    they are drawn in strata, whose mean takes `Weights`."""

    draw: Callable[[int, int, torch.Generator | None, torch.device], Tensor]
    mean: Callable[..., Term]
    strata: bool


def independent_mean(values: Tensor) -> Term:
    """The mean of independent draws along axis 0.

    Example:
        >>> term = independent_mean(torch.tensor([[1.0], [3.0]]))
        >>> term.value, term.std_error
        (tensor([2.]), tensor([1.]))
    """
    freedom = torch.full(values.shape[1:], len(values) - 1.0, dtype=torch.float64, device=values.device)
    return Term(values.mean(0), (_variance(values) / len(values)) ** 0.5, freedom=freedom)


def stratified_mean(values: Tensor, weights: Weights | None = None) -> Term:
    r"""The mean of draws in strata of 2 or 3: the variance is :math:`\sum_j (n_j/n)^2 s_j^2/n_j`.

    Example:
        >>> term = stratified_mean(torch.tensor([[1.0], [3.0], [7.0], [7.0]]))
        >>> term.value, term.std_error
        (tensor([4.5000]), tensor([0.5000]))
    """
    count, sizes = len(values), _sizes(len(values))
    whole = sum(len(part) * _variance(part) for part in values.split(sizes))
    std_error = (whole / count**2) ** 0.5
    size = torch.tensor(sizes, dtype=torch.float64, device=values.device)[:, None]
    each = _by_stratum(values, _variance) * size / count**2
    freedom = pooled_freedom(each, size - 1)
    if weights is None:
        return Term(values.mean(0), std_error, freedom=freedom)
    q, mean, square = values / weights.drawn, weights.mean[:, None], weights.square[:, None]
    within = mean.square() * _by_stratum(q, _variance) * size / count**2
    among = (square - mean.square()).clamp_min(0.0) * _by_stratum(q.square(), _mean) * size / count**2
    # the squared coefficient of variation of q^2, of all strata together
    scatter = _by_stratum(q.square(), _variance).sum(0) / _by_stratum(q.square(), _product).sum(0)
    known = pooled_freedom(torch.cat([within, among]), torch.cat([(size - 1).expand_as(within), 2 * size / scatter]))
    variance = (within + among).sum(0)
    larger = variance > std_error.square()
    return Term(
        values.mean(0), std_error, torch.where(larger, variance.sqrt(), std_error), torch.where(larger, known, freedom)
    )


def _by_stratum(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``(strata, batch)``."""
    return torch.stack([function(part) for part in values.split(_sizes(len(values)))])


def _mean(values: Tensor) -> Tensor:
    return values.mean(0)


def _product(values: Tensor) -> Tensor:
    """The mean product of two different values along axis 0."""
    return (values.sum(0).square() - values.square().sum(0)) / (len(values) * (len(values) - 1))


def _variance(values: Tensor) -> Tensor:
    """Along axis 0, NaN of one value; of empty batches, too, which `Tensor.var` warns of."""
    if len(values) < 2:
        return torch.full_like(values[0], math.nan)
    return (values - values.mean(0)).square().sum(0) / (len(values) - 1)


def _sizes(count: int) -> list[int]:
    """The sizes of the strata: pairs, and one of three if the number is odd."""
    return [2] * (count // 2) if count % 2 == 0 else [2] * ((count - 3) // 2) + [3]


def edges(count: int, device: torch.device) -> Tensor:
    """The edges of the strata in [0, 1], ``(strata + 1,)``.

    Example:
        >>> edges(4, torch.device("cpu")).tolist()
        [0.0, 0.5, 1.0]
    """
    return torch.tensor([0, *_sizes(count)], dtype=torch.float64, device=device).cumsum(0) / count


def _stratified(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    sizes = torch.tensor(_sizes(count), device=device)
    begin, width = ((v.repeat_interleave(sizes) / count)[:, None].double() for v in (sizes.cumsum(0) - sizes, sizes))
    return (begin + width * _uniform(count, batch, generator, device)).clamp_max(_BELOW_ONE)


def _even(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    place = torch.randperm(batch, generator=generator, device=device)
    first = (place.to(torch.float64) + shift) / max(1, batch)
    return ((torch.arange(count, device=device)[:, None] + first) / count).clamp_max(_BELOW_ONE)


def _uniform(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.rand((count, batch), generator=generator, dtype=torch.float64, device=device)


_BELOW_ONE = math.nextafter(1.0, 0.0)

DESIGNS = {
    "stratified": Design(_stratified, stratified_mean, True),
    "even": Design(_even, stratified_mean, True),
    "independent": Design(_uniform, independent_mean, False),
}
