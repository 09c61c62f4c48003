"""From colour to grey."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_times
from .base import SVD, LinearOperator, check_image, full_right


class Grey(LinearOperator):
    r"""A weighted sum of the channels: events ``(C, H, W)``, measurements ``(1, H, W)``.

    Its V is the orthogonal transform of the channels whose first axis is the grey level, as in colourisation by Song et
    al. (2021), appendix I.3: the grey channel is known, the two others are imputed.

    Args:
        event_shape: ``(C, H, W)``.
        weights: of the channels, the mean by default.

    Example:
        >>> Grey((3, 1, 1)).forward(
        ...     torch.tensor([[[[1.0]], [[2.0]], [[6.0]]]])
        ... ).flatten().round(decimals=4)
        tensor([3.])

    References:
        Song et al. (2021), appendix I.3. https://arxiv.org/abs/2011.13456
    """

    def __init__(self, event_shape: Sequence[int], weights: Sequence[float] | Tensor | None = None) -> None:
        shape = check_image("event_shape", event_shape)
        channels = shape[0]
        if weights is None:
            self.weights = torch.full((channels,), 1 / channels, dtype=torch.float64)
        else:
            self.weights = check_times("weights", weights, "weights")
        if len(self.weights) != channels or not bool(self.weights.isfinite().all()) or not bool(self.weights.any()):
            raise InvalidArgumentError(
                f"`weights` must be {channels} finite numbers, not all 0, got {self.weights.tolist()}."
            )
        super().__init__(shape, (1, *shape[1:]))

    def _forward(self, x: Tensor) -> Tensor:
        return torch.einsum("c,bc...->b...", self.weights.to(x), x).unsqueeze(1)

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.einsum("c,b...->bc...", self.weights.to(y), y[:, 0])

    def _decompose(self) -> SVD:
        values, vh = full_right(self.weights[None])
        return SVD(
            values.reshape(-1, *([1] * (len(self.event_shape) - 1))).expand(self.event_shape),
            lambda x: torch.einsum("kc,bc...->bk...", vh.to(x), x),
            lambda c: torch.einsum("kc,bk...->bc...", vh.to(c), c),
        )
