"""A small class-conditional U-Net for small images.

Two resolutions. A residual block reads the noise level and the class through a scale and a shift of its normalised
features (FiLM), and one self-attention layer at the low resolution lets every part of the image see every other.
Nothing couples the samples of a batch: normalisation is per sample (group norm), so a sample's output does not depend
on its batch mates. Every nonlinearity is smooth, in the image and in the noise level, because solvers of high order
differentiate the network along the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._tensors import check_integer, check_number
from ..errors import InvalidArgumentError, InvalidTypeError

__all__ = ["UNet"]


class NoiseEmbedding(nn.Module):
    r"""Features of the noise label :math:`c`: :math:`\sin 2\pi f_k c, \cos 2\pi f_k c`, then two linear layers.

    The frequencies :math:`f_k` run geometrically from 0.1 to 4: with :math:`c = \frac14 \ln \rho` one period of the
    highest is one e-fold of :math:`\rho`, so the network stays smooth between noise levels.

    Shapes:
        c_noise: ``(batch,)``; result ``(batch, width)``.

    Example:
        >>> NoiseEmbedding(32)(torch.zeros(5)).shape
        torch.Size([5, 32])
    """

    frequencies: Tensor

    def __init__(self, width: int, count: int = 16) -> None:
        super().__init__()
        frequencies = 2 * math.pi * torch.logspace(-1, math.log10(4.0), count)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * count, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequencies  # (batch, count)
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


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
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(width, 2 * outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
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
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(4)  # (batch, 3, heads, c, pixels)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # (batch, heads, pixels, c) each
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(h.reshape(x.shape))


class UNet(nn.Module):
    r"""The raw network :math:`F(x, c, \text{label})` of an image model, for use with EDM's preconditioning.

    .. math:: D(y, \rho) = c_{skip} y + c_{out} F(c_{in} y, \tfrac14 \ln \rho, \text{label})

    See `scoresde.losses.edm` for the coefficients. The head starts at 0.

    Args:
        event_shape: (channels, height, width) of a sample; height and width even.
        channels: features at the full resolution, a multiple of 8; twice as many at half of it.
        blocks: residual blocks at half the resolution.
        width: size of the embedding of noise level and class.
        labels: number of classes; the label ``labels`` is the null class, "no class given".
        dropout: share of features dropped inside a residual block while training.

    Shapes:
        x: ``(batch, *event_shape)``, as the result; c_noise: ``(batch,)`` or 0-d; label: ``(batch,)`` integers
        0 … labels, an integer for all, or None for the null class.

    Example:
        >>> net = UNet()
        >>> net(torch.zeros(3, 1, 8, 8), torch.zeros(3), torch.tensor([0, 9, 10])).shape
        torch.Size([3, 1, 8, 8])

    References:
        Ronneberger, Fischer, Brox (2015), U-Net. https://arxiv.org/abs/1505.04597
        Karras, Aittala, Aila, Laine (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
        section 5. https://arxiv.org/abs/2206.00364
    """

    def __init__(
        self,
        event_shape: Sequence[int] = (1, 8, 8),
        channels: int = 32,
        blocks: int = 2,
        width: int = 64,
        labels: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shape = tuple(check_integer("event_shape", size, low=1) for size in event_shape)
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise InvalidArgumentError(
                f"`event_shape` must be (channels, height, width) with even height and width, got {shape}; write "
                "event_shape=(1, 8, 8), for example."
            )
        for name, value, low, high in (
            ("channels", channels, 8, 1024),
            ("blocks", blocks, 1, 32),
            ("width", width, 1, 4096),
            ("labels", labels, 1, 100_000),
        ):
            if check_integer(name, value, low=low) > high:
                raise InvalidArgumentError(f"`{name}` must be at most {high} in this small network, got {value}.")
        if channels % 8:
            raise InvalidArgumentError(f"`channels` must be a multiple of 8, the groups of the norm, got {channels}.")
        check_number("dropout", dropout, low=0.0, high=1.0)
        self.event_shape = shape
        self.labels = labels
        low = 2 * channels
        self.noise = NoiseEmbedding(width)
        self.label = nn.Embedding(labels + 1, width)
        self.stem = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.encoder = ResidualBlock(channels, channels, width, dropout)
        self.down = nn.Conv2d(channels, low, 2, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(low, low, width, dropout) for _ in range(blocks))
        self.attention = SelfAttention(low)
        self.up = nn.ConvTranspose2d(low, channels, 2, stride=2)
        self.decoder = ResidualBlock(low, channels, width, dropout)
        self.norm = nn.GroupNorm(8, channels)
        self.head = nn.Conv2d(channels, shape[0], 3, padding=1)
        nn.init.normal_(self.label.weight, std=0.3)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | int | None = None) -> Tensor:
        embedding = F.silu(self.noise(c_noise.expand(len(x))) + self._embed_label(label, x))
        fine = self.encoder(self.stem(x), embedding)  # (batch, channels, h, w)
        coarse = self.down(fine)  # (batch, 2 channels, h/2, w/2)
        for position, block in enumerate(self.middle):
            coarse = block(coarse, embedding)
            if position == 0:
                coarse = self.attention(coarse)
        merged = self.decoder(torch.cat([self.up(coarse), fine], dim=1), embedding)
        return self.head(F.silu(self.norm(merged)))

    def _embed_label(self, label: Tensor | int | None, x: Tensor) -> Tensor:
        index = torch.as_tensor(self.labels if label is None else label, device=x.device)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise InvalidTypeError(f"`label` must be integers, got {index.dtype}; write label.long().")
        if index.ndim > 1 or (index.ndim == 1 and len(index) != len(x)):
            raise InvalidArgumentError(
                f"`label` must be an integer or (batch,) = ({len(x)},), got shape {tuple(index.shape)}."
            )
        try:
            return self.label(index.long().expand(len(x)))
        except IndexError:  # the embedding's own check: on a GPU nothing is read back for it
            raise InvalidArgumentError(
                f"`label` must be 0 … {self.labels - 1}, or {self.labels} for no class, got {index.tolist()}."
            ) from None
