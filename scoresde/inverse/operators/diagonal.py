"""A factor for every element."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.declared import checked, tensor
from .base import SVD, EventShape, LinearOperator


class Diagonal(LinearOperator):
    r"""Multiply every element by its own factor, such as the sensitivity of a detector.

    Factors of 0 and 1 are a mask that may differ from sample to sample: an element whose factor is 0 is measured as 0,
    which with any noise says nothing.

    Args:
        factors: of the event's shape, or ``(batch, *event)`` with those of each sample.
        event_shape: that of ``factors`` by default; must be given where the samples differ.

    Example:
        >>> Diagonal(torch.tensor([2.0, 0.5])).forward(torch.ones(1, 2))
        tensor([[2.0000, 0.5000]])
        >>> Diagonal(torch.eye(2), event_shape=(2,)).forward(torch.ones(2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """

    @checked
    def __init__(self, factors: Annotated[Tensor, tensor(finite=True)], event_shape: EventShape | None = None) -> None:
        found = tuple(factors.shape)
        shape = found if event_shape is None else tuple(event_shape)
        self.shared = found == shape
        if not self.shared and found[1:] != shape:
            raise InvalidArgumentError(f"`factors` must have the shape {shape}, or (batch, *event), got {found}.")
        super().__init__(shape, shape)
        self.factors: Tensor = factors.detach().to("cpu", torch.float64).clone()

    def _forward(self, x: Tensor) -> Tensor:
        if not self.shared and len(x) != len(self.factors):
            size = len(self.factors)
            raise InvalidArgumentError(f"`factors` are those of {size} samples, but the batch has {len(x)}.")
        return x * self.factors.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _decompose(self) -> SVD:
        if not self.shared:
            return super()._decompose()  # which refuses, as there is none
        return SVD(self.factors.abs(), lambda x: x, lambda c: c)
