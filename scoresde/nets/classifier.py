"""A classifier of noisy images, for classifier guidance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import GROUPS, ResidualBlock, SelfAttention, check_image, descend, mix
from .embeddings import Conditioned, check_sizes, keeps_arguments


class Classifier(Conditioned):
    r"""The logits of :math:`p(y|x_t)`: the way down of `scoresde.nets.UNet`, a mean over the pixels, a linear layer.

    The linear layer starts at 0, where all classes are equally likely.

    Args:
        event_shape: (channels, height, width) of a sample, any size.
        classes: number of classes.
        channels, blocks, width, dropout, multipliers, heads, time: as of `scoresde.nets.UNet`.

    Shapes:
        x: ``(batch, *event_shape)``; t: ``(batch,)`` or 0-d, in the unit that it is trained with; result
        ``(batch, classes)``.

    Example:
        >>> net = Classifier((1, 8, 8), classes=10)
        >>> (
        ...     net(torch.zeros(3, 1, 8, 8), torch.zeros(3)).shape,
        ...     sum(p.numel() for p in net.parameters()),
        ... )
        (torch.Size([3, 10]), 220042)

    References:
        Dhariwal, Nichol (2021), Diffusion Models Beat GANs on Image Synthesis, section 4 and appendix.
        https://arxiv.org/abs/2105.05233
    """

    @keeps_arguments
    def __init__(
        self,
        event_shape: Sequence[int] = (1, 8, 8),
        classes: int = 10,
        channels: int = 32,
        blocks: int = 2,
        width: int = 64,
        dropout: float = 0.0,
        *,
        multipliers: Sequence[int] = (1, 2),
        heads: int = 2,
        time: str = "fourier",
    ) -> None:
        shape, sizes = check_image(event_shape, channels, multipliers, blocks, heads, dropout)
        check_sizes(classes=(classes, 2, 100_000))
        super().__init__(width, 0, time, shape)
        self.classes = classes
        low = sizes[-1]
        self.stem = nn.Conv2d(shape[0], sizes[0], 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(high, high, width, dropout) for high in sizes[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(high, below, 2, stride=2) for high, below in itertools.pairwise(sizes))
        self.middle = nn.ModuleList(ResidualBlock(low, low, width, dropout) for _ in range(blocks))
        self.attention = SelfAttention(low, heads) if heads else None
        self.norm = nn.GroupNorm(GROUPS, low)
        self.head = nn.Linear(low, classes)
        self.finish(self.head)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.embed(x, t, None)
        h, _ = descend(self.stem(x), embedding, self.encoders, self.downs)
        h = mix(h, embedding, self.middle, self.attention)
        return self.head(F.silu(self.norm(h)).mean((2, 3)))
