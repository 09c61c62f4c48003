"""EDM as published, and with the noise levels of all processes."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.sdes import EDMSDE
from ..losses import NoiseLevels, edm
from ..scores import ScoreModel
from ..training import DIGITS, DIGITS_LEVELS, Preset, Recipe
from ..training.digits import DIGITS_DROPOUT, DIGITS_LABEL_DROPOUT
from ..zoo import Sampler
from .bounds import OfTime
from .scaling import network, scaled

LEVELS = NoiseLevels(-1.2, 1.2)
PAPER = "Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364"
BATCH, IMAGES, HALF_LIFE, RAMP = 512, 200e6, 0.5e6, 10e6  # counted in images, as published


def edm_wide(model: ScoreModel, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
    """EDM's loss with the noise levels of all processes."""
    return edm(model.net, x0, generator, sigma_data=model.sigma_data, levels=DIGITS_LEVELS, **context)


# sigma_data is the data's own standard deviation (published: 0.5, that of CIFAR-10). Differs from the published code in
# that the images are not augmented, and are dequantised.
EDM = Preset(
    summary="preconditioned denoising, Heun's method on its own grid, 35 evaluations",
    paper=PAPER,
    loss=functools.partial(edm, levels=LEVELS),
    recipe=scaled(
        round(IMAGES / BATCH),
        1e-3,
        ema=0.5 ** (BATCH / HALF_LIFE),
        warmup=round(RAMP / BATCH),
        batch_size=BATCH,
    ),
    process=EDMSDE,
    prediction="edm",
    kwargs=network(dropout=0.13),
    labelled=False,
    # 18 levels: 17 steps of two evaluations, and one to the data
    sampler=Sampler("rho_heun", steps=17, grid="karras", denoise=True),
    bound=OfTime(),
)

EDM_WIDE = Preset(
    summary="EDM at the noise levels of all processes, with labels, as in the shipped network of digits",
    paper=PAPER,
    loss=edm_wide,
    recipe=replace(DIGITS, ema_power=9.0),
    kwargs={"channels": 32, "blocks": 3, "width": 64, "dropout": DIGITS_DROPOUT},
    label_dropout=DIGITS_LABEL_DROPOUT,
)

# The network of 28 x 28 digits that comes with the package: 762,561 parameters, 3.05 MB.
MNIST = Preset(
    summary="EDM at the noise levels of all processes, with labels, for the 28 x 28 digits of MNIST",
    paper=PAPER,
    loss=edm_wide,
    recipe=Recipe(
        steps=13_000,
        batch_size=64,
        learning_rate=2e-3,
        warmup=500,
        ema_power=9.0,
        precision="bfloat16",
    ),
    kwargs={"channels": 32, "multipliers": [1, 2, 4], "blocks": 1, "width": 96, "dropout": DIGITS_DROPOUT},
    label_dropout=0.2,
    sampler=Sampler("dpmpp_2m_sde", steps=25),
)
