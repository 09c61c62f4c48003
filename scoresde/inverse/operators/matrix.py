"""Operators given as matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.noise import BatchNoise, check_seed
from ...core.support.checks import MOST_LEVELS, check_integer, check_matrix, check_shape
from .base import SVD, LinearOperator, dense_svd


class Matrix(LinearOperator):
    r"""Any matrix, over the flattened event.

    Args:
        matrix: ``(M, D)``.
        event_shape: of D elements, ``(D,)`` by default.
        measurement_shape: of M elements, ``(M,)`` by default.

    Example:
        >>> Matrix(torch.tensor([[1.0, 1.0]])).pseudo_inverse(torch.tensor([[4.0]])).round()
        tensor([[2., 2.]])
    """

    def __init__(
        self,
        matrix: Tensor,
        event_shape: Sequence[int] | None = None,
        measurement_shape: Sequence[int] | None = None,
    ) -> None:
        self._matrix = check_matrix("matrix", matrix)
        rows, columns = self._matrix.shape
        shapes = {}
        wanted = (("event_shape", event_shape, columns), ("measurement_shape", measurement_shape, rows))
        for name, given, size in wanted:
            shapes[name] = (size,) if given is None else check_shape(name, given, rank=1)
            if math.prod(shapes[name]) != size:
                raise InvalidArgumentError(
                    f"`{name}` must have {size} elements for a matrix {rows} x {columns}, got {shapes[name]}."
                )
        super().__init__(**shapes)

    def _forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self._matrix.to(x).mT).reshape(len(x), *self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self._matrix.to(y)).reshape(len(y), *self.event_shape)

    def _decompose(self) -> SVD:
        return dense_svd(self._matrix, self.event_shape)


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
