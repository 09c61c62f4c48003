"""Denoising diffusion probabilistic models, and the improved ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..discrete import BetaChain
from ..likelihood.bits import cell
from ..losses import ddpm_simple, iddpm_hybrid
from ..losses.core import Model
from ..training import Preset
from ..zoo import Sampler
from .bounds import OfChain
from .scaling import network, scaled

STEPS = 1000
CLIP = (-1.0, 1.0)


def hybrid(
    model: Model,
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    **context: Any,
) -> Tensor:
    """Improved DDPM's hybrid of grey levels in the middle of their cells of ``data_range``."""
    if levels is not None:
        low, width = cell(levels, data_range)
        data_range = (low + 0.5 * width, low + (levels - 0.5) * width)
    return iddpm_hybrid(model, x0, generator, levels=levels, data_range=data_range, **context)


DDPM = Preset(
    summary="1000 levels, the simple loss of the noise, ancestral sampling with the large variance",
    paper="Ho, Jain, Abbeel (2020), arXiv:2006.11239",
    loss=ddpm_simple,
    recipe=scaled(800_000, 2e-4, ema=0.9999, warmup=5000, clip=1.0, batch_size=128),
    process=partial(BetaChain.linear, STEPS, 1e-4, 0.02),
    prediction="noise",
    time_input="index",
    kwargs=network(time="sinusoidal", dropout=0.1),
    labelled=False,
    dequantise=False,
    sampler=Sampler("ancestral", levels=STEPS, denoise=True, options={"variance": "large"}, clip=CLIP),
    bound=OfChain("large", clip=True),
)

# Differs from the published code in that the network receives the level 0 … 3999, not its place on a scale of 1000.
IDDPM = replace(
    DDPM,
    summary="4000 levels of the cosine schedule, learned variances, the hybrid loss, 50 steps",
    paper="Nichol, Dhariwal (2021), arXiv:2102.09672",
    loss=hybrid,
    recipe=scaled(500_000, 1e-4, ema=0.9999, batch_size=128, optimizer="adamw"),
    process=partial(BetaChain.cosine, 4000, 0.008, 0.999),
    variance="learned_range",
    kwargs=network(time="sinusoidal", dropout=0.3, learned_variance=True),
    grey_loss=True,
    sampler=Sampler(
        "ancestral", levels=50, spacing="linspace", denoise=True, options={"variance": "learned"}, clip=CLIP
    ),
    bound=OfChain("learned", clip=True),
)
