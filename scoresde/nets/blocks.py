"""The parts of networks for images: normalisation is per sample, nonlinearities are smooth; see `UNet`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InvalidArgumentError
from ..core.support.checks import MOST_NUMBERS, check_integers, check_number
from .embeddings import check_sizes

GROUPS = 8  # of the norms


class ResidualBlock(nn.Module):
    r"""Two convolutions around a FiLM, added to the input: :math:`x + W_2 \phi(n(W_1 \phi(n(x)))(1 + a) + b)`.

    Here n is group norm, φ SiLU, and (a, b) an affine map of the embedding. :math:`W_2` starts at 0.

    Shapes:
        x: ``(batch, inputs, h, w)``; embedding: ``(batch, width)``; result ``(batch, outputs, h, w)``.

    Example:
        >>> ResidualBlock(8, 16, width=4)(torch.zeros(2, 8, 4, 4), torch.zeros(2, 4)).shape
        torch.Size([2, 16, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(width, 2 * outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels, added to the input. The output projection starts at 0.

    Shapes:
        x: ``(batch, channels, h, w)``, as the result.

    Example:
        >>> SelfAttention(8)(torch.ones(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(4)  # (batch, 3, heads, c, pixels)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # (batch, heads, pixels, c) each
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(h.reshape(x.shape))


def descend(
    x: Tensor, embedding: Tensor, encoders: Iterable[nn.Module], downs: Iterable[nn.Module]
) -> tuple[Tensor, list[Tensor]]:
    """The way down: the features at the lowest resolution, and those of each encoder. Odd sizes are padded to even."""
    skips = []
    for encoder, down in zip(encoders, downs, strict=True):
        x = encoder(x, embedding)
        skips.append(x)
        odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        x = down(F.pad(x, odd, mode="replicate") if any(odd) else x)
    return x, skips


def mix(x: Tensor, embedding: Tensor, blocks: Iterable[nn.Module], attention: nn.Module | None) -> Tensor:
    """The lowest resolution: residual blocks, and attention after the first."""
    for position, block in enumerate(blocks):
        x = block(x, embedding)
        if position == 0 and attention is not None:
            x = attention(x)
    return x


def ascend(
    x: Tensor, embedding: Tensor, ups: Iterable[nn.Module], decoders: Iterable[nn.Module], skips: Sequence[Tensor]
) -> Tensor:
    """The way up, with the encoders' features put beside."""
    for up, decoder, skip in zip(ups, decoders, reversed(skips), strict=True):
        risen = up(x)[:, :, : skip.shape[2], : skip.shape[3]]
        x = decoder(torch.cat([risen, skip], dim=1), embedding)
    return x


def check_image(
    event_shape: Sequence[int], channels: int, multipliers: Sequence[int], blocks: int, heads: int, dropout: float
) -> tuple[tuple[int, ...], list[int]]:
    """The shape of an image, and the features at each resolution, checked."""
    shape = check_integers("event_shape", event_shape, low=1, high=MOST_NUMBERS)
    if len(shape) != 3:
        raise InvalidArgumentError(
            f"`event_shape` must be (channels, height, width), as event_shape=(1, 8, 8), got {shape}."
        )
    check_sizes(channels=(channels, 8, 1024), blocks=(blocks, 1, 32), heads=(heads, 0, 64))
    if channels % GROUPS:
        raise InvalidArgumentError(f"`channels` must be a multiple of 8, the groups of the norm, got {channels}.")
    sizes = [channels * m for m in check_integers("multipliers", multipliers, low=1, high=16)]
    if not 2 <= len(sizes) <= 8:
        raise InvalidArgumentError(f"`multipliers` must be two to eight, one per resolution, got {list(multipliers)}.")
    if heads and sizes[-1] % heads:
        raise InvalidArgumentError(f"`heads` must divide the {sizes[-1]} features it shares, got {heads}.")
    check_number("dropout", dropout, low=0.0, high=1.0)
    return shape, sizes
