"""Some elements of an event."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.declared import checked, tensor
from .base import SVD, EventShape, LinearOperator


class Mask(LinearOperator):
    r"""Measure the elements where ``mask`` is True (inpainting). The measurement is the list of them,
    ``(batch, count)``; ``operator.adjoint(y)`` puts them back in their places, with zeros elsewhere.

    Args:
        mask: bool, of the event's shape, or one that broadcasts to ``event_shape``.
        event_shape: that of ``mask`` by default.

    Example:
        >>> Mask(torch.tensor([True, False, True])).forward(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 3.]])
    """

    selects = True

    @checked
    def __init__(self, mask: Annotated[Tensor, tensor(kind="boolean")], event_shape: EventShape | None = None) -> None:
        found = tuple(mask.shape)
        shape = found if event_shape is None else tuple(event_shape)
        try:
            self.mask = mask.detach().cpu().expand(shape).contiguous()
        except RuntimeError as error:
            raise InvalidArgumentError(f"`mask` of shape {found} does not broadcast to {shape}.") from error
        self._index = self.mask.flatten().nonzero()[:, 0]
        super().__init__(shape, (len(self._index),))

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, self._index.to(x.device)]

    def _adjoint(self, y: Tensor) -> Tensor:
        size = self.mask.numel()
        flat = y.new_zeros(len(y), size).index_copy(1, self._index.to(y.device), y)
        return flat.reshape(len(y), *self.event_shape)

    def _decompose(self) -> SVD:
        return SVD(self.mask.to(torch.float64), lambda x: x, lambda c: c)
