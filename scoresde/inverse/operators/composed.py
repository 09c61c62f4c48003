"""Operators made from others: a factor for every element, and one operator after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_kind, check_shape, check_tensor
from .base import SVD, LinearOperator
from .mask import Mask


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

    def __init__(self, factors: Tensor, event_shape: Sequence[int] | None = None) -> None:
        check_tensor("factors", factors)
        shape = check_shape("event_shape", factors.shape if event_shape is None else event_shape, rank=1)
        self.shared = tuple(factors.shape) == shape
        if not self.shared and tuple(factors.shape[1:]) != shape:
            raise InvalidArgumentError(
                f"`factors` must have the shape {shape}, or {('batch', *shape)}, got {tuple(factors.shape)}."
            )
        super().__init__(shape, shape)
        self.factors = factors.detach().to("cpu", torch.float64).clone()
        if not bool(self.factors.isfinite().all()):
            raise InvalidArgumentError("`factors` must be finite.")

    def _forward(self, x: Tensor) -> Tensor:
        if not self.shared and len(x) != len(self.factors):
            raise InvalidArgumentError(
                f"`factors` are those of {len(self.factors)} samples, but the batch has {len(x)}; give one for each."
            )
        return x * self.factors.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _decompose(self) -> SVD:
        if not self.shared:
            return super()._decompose()  # which says that there is none
        return SVD(self.factors.abs(), lambda x: x, lambda c: c)


class Composed(LinearOperator):
    r"""One operator after another, :math:`A = A_2 A_1`; ``second @ first`` is the same, where second may be a matrix.

    Its singular values are those of its matrix, for small events (but for factors after a `Mask`, of any size); with
    noise above 0, methods that need none, such as ``"mmps"``, take any size. The noise of a measurement must be given
    where ``first`` declares any.

    Args:
        second: acts on the measurements of ``first``, whose shape its events have.
        first: acts on the data.

    Example:
        >>> from scoresde.inverse import Mask, gaussian_blur
        >>> seen = Mask(torch.arange(16).reshape(1, 4, 4) % 2 == 0)
        >>> camera = seen @ gaussian_blur((1, 4, 4), 1.0)
        >>> camera.forward(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, second: LinearOperator, first: LinearOperator) -> None:
        check_kind("second", second, LinearOperator, "a LinearOperator")
        check_kind("first", first, LinearOperator, "a LinearOperator")
        if second.event_shape != first.measurement_shape:
            raise InvalidArgumentError(
                f"`second` acts on events of shape {second.event_shape}, but the measurements of `first` have shape "
                f"{first.measurement_shape}."
            )
        super().__init__(first.event_shape, second.measurement_shape)
        self.second, self.first = second, first
        self.shared = second.shared and first.shared
        self.noise_std = second.noise_std if first.noise_std == 0.0 else None
        self._eps = max(second._eps, first._eps)

    def _forward(self, x: Tensor) -> Tensor:
        return self.second._forward(self.first._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first._adjoint(self.second._adjoint(y))

    def _decompose(self) -> SVD:
        if self.shared and isinstance(self.second, Diagonal) and isinstance(self.first, Mask):
            return SVD(self.first._adjoint(self.second.factors.abs()[None])[0], lambda x: x, lambda c: c)
        values, into, back = super()._decompose()
        largest = self.second.svd.values.max() * self.first.svd.values.max()  # which may cancel in the product
        floor = max(self.size, math.prod(self.event_shape)) * self._eps * largest
        return SVD(torch.where(values > floor, values, torch.zeros_like(values)), into, back)

    def __repr__(self) -> str:
        return f"{self.second!r} @ {self.first!r}"
