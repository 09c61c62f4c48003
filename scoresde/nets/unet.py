"""A small class-conditional U-Net for small images.

A residual block receives the noise level and the class through a scale and a shift of its normalised features (FiLM),
and one self-attention layer at the lowest resolution lets every part of the image see every other. Nothing couples the
samples of a batch: normalisation is per sample (group norm), so a sample's output does not depend on the rest of its
batch. Every nonlinearity is smooth, in the image and in the noise level, because solvers of high order differentiate
the network along the path.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.support.checks import check_flag
from .blocks import GROUPS, ResidualBlock, SelfAttention, ascend, check_image, descend, mix
from .embeddings import Conditioned, fourier_features, keeps_arguments


class UNet(Conditioned):
    r"""A network of images, a time and a class, :math:`F(x, c, \text{label})`.

    With the defaults it is the raw network of EDM's preconditioning,

    .. math:: D(y, \rho) = c_{skip} y + c_{out} F(c_{in} y, \tfrac14 \ln \rho, \text{label}),

    see `scoresde.losses.edm` for the coefficients; `scoresde.ScoreModel` has the other conventions. A resolution has a
    residual block on the way down and one on the way up, the lowest has ``blocks`` and the attention. The head starts
    at 0.

    Args:
        event_shape: (channels, height, width) of a sample; any size, odd ones are padded by a repeated edge inside.
        channels: features at the full resolution, a multiple of 8.
        blocks: residual blocks at the lowest resolution.
        width: size of the embedding of time and class.
        labels: number of classes; the label ``labels`` is the null class, "no class given". 0: no classes.
        dropout: share of features dropped inside a residual block while training.
        multipliers: features at each resolution, from the full one down by halves, in units of ``channels``.
        heads: heads of the attention, whose work grows as the square of the number of pixels at the lowest resolution;
            0 leaves it out.
        time: the encoding of the time, see `scoresde.nets.EMBEDDINGS`.
        fourier: exponents n of `scoresde.nets.fourier_features`, VDM's are (7, 8).
        learned_variance: whether the output has twice the channels, for ``ScoreModel(variance="learned_range")``.

    Shapes:
        x: ``(batch, *event_shape)``, as the result; c_noise: ``(batch,)`` or 0-d; label: ``(batch,)`` integers
        0 … labels, an integer for all, or None for the null class.

    Example:
        >>> net = UNet()
        >>> net(torch.zeros(3, 1, 8, 8), torch.zeros(3), torch.tensor([0, 9, 10])).shape
        torch.Size([3, 1, 8, 8])
        >>> net = UNet((3, 32, 32), channels=64, multipliers=(1, 2, 2), labels=0)
        >>> sum(p.numel() for p in net.parameters())
        1913283

    References:
        Ronneberger, Fischer, Brox (2015), U-Net. https://arxiv.org/abs/1505.04597
        Karras, Aittala, Aila, Laine (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
        section 5. https://arxiv.org/abs/2206.00364
    """

    @keeps_arguments
    def __init__(
        self,
        event_shape: Sequence[int] = (1, 8, 8),
        channels: int = 32,
        blocks: int = 2,
        width: int = 64,
        labels: int = 10,
        dropout: float = 0.0,
        *,
        multipliers: Sequence[int] = (1, 2),
        heads: int = 2,
        time: str = "fourier",
        fourier: Sequence[int] = (),
        learned_variance: bool = False,
    ) -> None:
        shape, sizes = check_image(event_shape, channels, multipliers, blocks, heads, dropout)
        check_flag("learned_variance", learned_variance)
        super().__init__(width, labels, time, shape, fourier)
        low = sizes[-1]
        halves = list(itertools.pairwise(sizes))

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, width, dropout)

        # The full resolution has names of its own, those of the first saved models; the lists are the others'.
        self.stem = nn.Conv2d(shape[0] * (1 + 2 * len(self.fourier)), sizes[0], 3, padding=1)
        self.encoder, self.down = block(sizes[0], sizes[0]), nn.Conv2d(*halves[0], 2, stride=2)
        self.encoders = nn.ModuleList(block(high, high) for high, _ in halves[1:])
        self.downs = nn.ModuleList(nn.Conv2d(high, below, 2, stride=2) for high, below in halves[1:])
        self.middle = nn.ModuleList(block(low, low) for _ in range(blocks))
        self.attention = SelfAttention(low, heads) if heads else None
        self.ups = nn.ModuleList(nn.ConvTranspose2d(below, high, 2, stride=2) for high, below in halves[:0:-1])
        self.decoders = nn.ModuleList(block(2 * high, high) for high, _ in halves[:0:-1])
        self.up = nn.ConvTranspose2d(halves[0][1], halves[0][0], 2, stride=2)
        self.decoder = block(2 * sizes[0], sizes[0])
        self.norm = nn.GroupNorm(GROUPS, sizes[0])
        self.head = nn.Conv2d(sizes[0], shape[0] * (2 if learned_variance else 1), 3, padding=1)
        self.finish(self.head)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | int | None = None) -> Tensor:
        embedding = self.embed(x, c_noise, label)
        h = self.stem(fourier_features(x, self.fourier) if self.fourier else x)
        h, skips = descend(h, embedding, [self.encoder, *self.encoders], [self.down, *self.downs])
        h = mix(h, embedding, self.middle, self.attention)
        h = ascend(h, embedding, [*self.ups, self.up], [*self.decoders, self.decoder], skips)
        return self.head(F.silu(self.norm(h)))
