"""Random matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...core.noise import BatchNoise, check_seed
from ...core.support.checks import MOST_LEVELS, check_integer, check_shape
from .base import Matrix


def random_projection(event_shape: Sequence[int], rows: int, *, seed: int = 0) -> Matrix:
    """Measure ``rows`` random directions: entries N(0, 1/rows), as in compressed sensing.

    Args:
        event_shape: of the events.
        rows: the number of measurements.
        seed: of the matrix.

    Example:
        >>> random_projection((1, 4, 4), rows=3, seed=1).forward(
        ...     torch.zeros(2, 1, 4, 4)
        ... ).shape
        torch.Size([2, 3])
    """
    shape = check_shape("event_shape", event_shape, rank=1)
    count = check_integer("rows", rows, low=1, high=MOST_LEVELS)
    check_seed("seed", seed)
    like = torch.empty(count, math.prod(shape), dtype=torch.float64)
    return Matrix(BatchNoise.seeded(seed, like.device).normal(like) / math.sqrt(count), shape)
