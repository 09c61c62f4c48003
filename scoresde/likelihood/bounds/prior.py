"""The prior term, and the data as a bound takes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..._checks import check_finite_rows, check_state, check_tensor
from ...errors import InvalidArgumentError, InvalidTypeError
from ...losses import prior_kl
from ...sdes import Node, NormalPrior
from ..bits import cell
from .result import Term


def prior_term(x: Tensor, node: Node, prior: NormalPrior) -> Term:
    r""":math:`KL(N(\alpha x, \sigma^2)\,\|\,N(m, s^2))`.

    Example:
        >>> import scoresde
        >>> prior_term(torch.ones(1, 2), scoresde.EDMSDE().node(2.0), NormalPrior(2.0)).value
        tensor([0.2500], dtype=torch.float64)
    """
    value = prior_kl(x.to(torch.float64), node.alpha, node.sigma, prior)
    return Term(value, torch.zeros_like(value))


class Grey(NamedTuple):
    """Grey values, and the cells that they stand for."""

    values: Tensor  # int64 (batch, *event)
    levels: int
    low: float
    width: float

    def centres(self) -> Tensor:
        """The centres of all cells, float64 ``(levels,)``."""
        return self.low + self.width * (torch.arange(self.levels, dtype=torch.float64, device=self.values.device) + 0.5)


def read(x: Tensor, levels: int | None, data_range: tuple[float, float]) -> tuple[Tensor, Grey | None]:
    """The data, float32 or float64, and the grey values if there are some.

    Example:
        >>> read(torch.tensor([[0, 1]]), 2, (-1.0, 1.0))[0]
        tensor([[-0.5000,  0.5000]])
    """
    if levels is None:
        check_state("x", x)
        check_finite_rows("`x`", x)
        return x.to(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype), None
    low, width = cell(levels, data_range)
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or x.ndim < 2:
        raise InvalidTypeError("`x` must hold integers 0 … levels - 1, (batch, *event), where `levels` is given.")
    check_tensor("x", x, kind="integer")
    x = x.to(torch.int64)  # in a narrow type the number of levels would wrap
    if bool(((x < 0) | (x >= levels)).any()):
        raise InvalidArgumentError(f"`x` must hold integers 0 … {levels - 1}.")
    grey = Grey(x, levels, low, width)
    return grey.centres()[x].to(torch.get_default_dtype()), grey
