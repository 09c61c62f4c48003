"""The arguments of the bounds: checks, and the data as a bound takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..._arguments import check_events, context_of
from ..._checks import check_finite_rows, check_state, check_tensor
from ..._tensors import compute_dtype
from ...errors import InvalidArgumentError, InvalidTypeError
from ...noise import BatchNoise, Noise, resolve
from ...processes import Network
from ...scores import Score
from ..bits import cell


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
        return x.to(compute_dtype(x.dtype)), None
    low, width = cell(levels, data_range)
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or x.ndim < 2:
        raise InvalidTypeError("`x` must hold integers 0 … levels - 1, (batch, *event), where `levels` is given.")
    check_tensor("x", x, kind="integer")
    x = x.to(torch.int64)  # in a narrow type the number of levels would wrap
    if bool(((x < 0) | (x >= levels)).any()):
        raise InvalidArgumentError(f"`x` must hold integers 0 … {levels - 1}.")
    grey = Grey(x, levels, low, width)
    return grey.centres()[x].to(torch.get_default_dtype()), grey


class Given(NamedTuple):
    """Data, network and randomness, ready to use."""

    data: Tensor
    grey: Grey | None
    network: Network
    noise: Noise
    generator: torch.Generator | None  # of the levels


def prepare(
    score: Score,
    x: Tensor,
    levels: int | None,
    data_range: tuple[float, float],
    context: Mapping[str, Tensor] | None,
    seed: int | None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None,
) -> Given:
    """Check the data and what belongs to them."""
    data, grey = read(x, levels, data_range)
    check_events(score, data)
    device, batch = data.device, len(data)
    generator = None if seed is None else BatchNoise.seeded(seed, device).generator
    source = resolve(seed=None, seeds=None, generator=None, noise=noise, device=device, batch=batch)
    if noise is None:
        source = BatchNoise(generator)  # one stream for levels and noise: two of one seed would be the same numbers
    return Given(data, grey, Network(score, context_of(context, score, batch, device)), source, generator)
