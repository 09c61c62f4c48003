"""Draws of the noise levels, and what their mean is worth.

Each design gives numbers in [0, 1), ``(count, batch)``, every one of them uniform, and knows the standard error of the
mean of a function of them:

- *stratified*: each sample's interval is cut into strata of two draws (one of three if their number is odd). What
  changes from level to level then hardly counts, and the differences within the strata give an unbiased variance.
- *even*: each sample's draws are an even grid, and the grids of the samples interleave to one of all, which a single
  uniform number shifts (low discrepancy). The standard error is that of strata, and a little too large.
- *independent*: the textbook's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .result import Term


class Design(NamedTuple):
    """How numbers are drawn, ``(count, batch)``, and the mean of the values that they led to, of the same shape."""

    draw: Callable[[int, int, torch.Generator | None, torch.device], Tensor]
    mean: Callable[[Tensor], Term]


def independent_mean(values: Tensor) -> Term:
    """The mean of independent draws along axis 0.

    Example:
        >>> term = independent_mean(torch.tensor([[1.0], [3.0]]))
        >>> term.value, term.std_error
        (tensor([2.]), tensor([1.]))
    """
    return Term(values.mean(0), (_variance(values) / len(values)) ** 0.5)


def stratified_mean(values: Tensor) -> Term:
    r"""The mean of draws in strata of 2 or 3: the variance is :math:`\sum_j (n_j/n)^2 s_j^2/n_j`.

    Example:
        >>> term = stratified_mean(torch.tensor([[1.0], [3.0], [7.0], [7.0]]))
        >>> term.value, term.std_error
        (tensor([4.5000]), tensor([0.5000]))
    """
    count = len(values)
    whole = sum(len(part) * _variance(part) for part in values.split(_sizes(count)))
    return Term(values.mean(0), (whole / count**2) ** 0.5)


def _variance(values: Tensor) -> Tensor:
    """Along axis 0, NaN of one value; of empty batches, too, which `Tensor.var` warns of."""
    if len(values) < 2:
        return torch.full_like(values[0], math.nan)
    return (values - values.mean(0)).square().sum(0) / (len(values) - 1)


def _sizes(count: int) -> list[int]:
    """Of the strata: pairs, and one of three if the number is odd."""
    return [2] * (count // 2) if count % 2 == 0 else [2] * ((count - 3) // 2) + [3]


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
    "stratified": Design(_stratified, stratified_mean),
    "even": Design(_even, stratified_mean),
    "independent": Design(_uniform, independent_mean),
}
