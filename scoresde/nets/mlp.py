"""A residual multilayer perceptron, for vectors and points of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InvalidArgumentError
from ..core.support.checks import MOST_NUMBERS, check_flag, check_integers, check_number
from .embeddings import Conditioned, check_sizes, fourier_features, keeps_arguments


class DenseBlock(nn.Module):
    r"""Two linear layers around a FiLM, added to the input: :math:`x + W_2 \phi(n(W_1 \phi(n(x)))(1 + a) + b)`.

    Here n is layer norm, φ SiLU, and (a, b) an affine map of the embedding. :math:`W_2` starts at 0.

    Shapes:
        x: ``(batch, channels)``, as the result; embedding: ``(batch, width)``.

    Example:
        >>> DenseBlock(8, width=4)(torch.ones(2, 8), torch.zeros(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, channels)
        self.film = nn.Linear(width, 2 * channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(channels, channels)
        for parameter in self.linear2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.linear1(F.silu(self.norm1(x)))
        scale, shift = self.film(embedding).chunk(2, dim=1)
        return x + self.linear2(self.dropout(F.silu(self.norm2(h) * (1 + scale) + shift)))


class MLP(Conditioned):
    r"""A residual network of vectors, a time and a class, :math:`F(x, c, \text{label})`; the head starts at 0.

    Args:
        event_shape: shape of a sample, of any rank; it is flattened.
        channels: features.
        blocks: residual blocks.
        width, labels, dropout, time, fourier, learned_variance: as of `scoresde.nets.UNet`.

    Shapes:
        x: ``(batch, *event_shape)``, as the result; c_noise: ``(batch,)`` or 0-d; label: ``(batch,)`` integers
        0 … labels, an integer for all, or None for the null class.

    Example:
        >>> net = MLP((2,))
        >>> (
        ...     net(torch.zeros(5, 2), torch.zeros(5)).shape,
        ...     sum(p.numel() for p in net.parameters()),
        ... )
        (torch.Size([5, 2]), 157698)
    """

    @keeps_arguments
    def __init__(
        self,
        event_shape: Sequence[int] = (2,),
        channels: int = 128,
        blocks: int = 3,
        width: int = 64,
        labels: int = 0,
        dropout: float = 0.0,
        *,
        time: str = "fourier",
        fourier: Sequence[int] = (),
        learned_variance: bool = False,
    ) -> None:
        shape = check_integers("event_shape", event_shape, low=1, high=MOST_NUMBERS)
        if not shape:
            raise InvalidArgumentError("`event_shape` must have at least one entry, got (); write (1,) for scalars.")
        check_sizes(channels=(channels, 2, 8192), blocks=(blocks, 1, 64))
        check_number("dropout", dropout, low=0.0, high=1.0)
        check_flag("learned_variance", learned_variance)
        super().__init__(width, labels, time, shape, fourier)
        self.out_shape = (shape[0] * (2 if learned_variance else 1), *shape[1:])
        self.stem = nn.Linear(math.prod(shape) * (1 + 2 * len(self.fourier)), channels)
        self.blocks = nn.ModuleList(DenseBlock(channels, width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, math.prod(self.out_shape))
        self.finish(self.head)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | int | None = None) -> Tensor:
        embedding = self.embed(x, c_noise, label)
        h = self.stem(fourier_features(x, self.fourier).flatten(1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(F.silu(self.norm(h))).unflatten(1, self.out_shape)
