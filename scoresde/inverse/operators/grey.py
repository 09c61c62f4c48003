"""From colour to grey."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_times
from ...core.support.declared import checked
from .base import SVD, ImageShape, LinearOperator, full_right


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

    @checked
    def __init__(self, event_shape: ImageShape, weights: Sequence[float] | Tensor | None = None) -> None:
        channels = event_shape[0]
        given = check_times("weights", [1 / channels] * channels if weights is None else weights, "weights")
        if len(given) != channels or not bool(given.isfinite().all()) or not bool(given.any()):
            raise InvalidArgumentError(f"`weights` must be {channels} finite numbers, not all 0, got {given.tolist()}.")
        self.weights = given
        super().__init__(event_shape, (1, *event_shape[1:]))

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
