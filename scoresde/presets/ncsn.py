"""Noise-conditional score networks: levels of noise, denoising score matching, annealed Langevin dynamics."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..discrete import NoiseScales
from ..losses import denoising_score_matching
from ..training import Preset
from ..zoo import Sampler
from .bounds import OfChain
from .scaling import LARGEST_DISTANCE, network, scaled

SIGMA_MIN = 0.01
# Of NCSNv2, by the functions of `scoresde.discrete.ncsnv2` for 64 dimensions. Fewer levels lie farther apart:
# the moves are as many as bring the samples' spread at a level to the published one, 1.055, which takes 5 at
# CIFAR-10's 232 levels.
LEVELS, MOVES, STEP = 21, 25, 8.42e-06


# Differs from the published code: it starts from the levels' own prior and not from uniform noise, receives the level
# through an embedding and not through the norms of its layers, and does not mirror digits.
NCSN = Preset(
    summary="noise-conditional score network: 10 levels, annealed Langevin dynamics",
    paper="Song, Ermon (2019), arXiv:1907.05600",
    loss=denoising_score_matching,
    recipe=scaled(200_000, 1e-3, batch_size=128),
    process=partial(NoiseScales.geometric, 10, SIGMA_MIN, 1.0),
    prediction="score",
    time_input="index",
    kwargs=network(time="sinusoidal"),
    data_range=(0.0, 1.0),
    labelled=False,
    sampler=Sampler("annealed_langevin", levels=10, options={"epsilon": 2e-5, "moves": 100}),
    bound=OfChain("small"),
)

# The network does not receive the level, and its output over sigma is the score, up to the sign that "noise" has.
# Differs from the published code as NCSN does, and in that the data are dequantised.
NCSNV2 = replace(
    NCSN,
    summary="NCSN with levels, step and parameterisation from the data, and a last denoising step",
    paper="Song, Ermon (2020), arXiv:2006.09011",
    recipe=scaled(300_000, 1e-4, ema=0.999, batch_size=128),
    # by NCSNv2's first two techniques, from the digits' largest distance
    process=partial(NoiseScales.geometric, LEVELS, SIGMA_MIN, LARGEST_DISTANCE),
    prediction="noise",
    kwargs=network(time="constant"),
    sampler=Sampler(
        "annealed_langevin",
        levels=LEVELS,
        denoise=True,
        options={"epsilon": STEP, "moves": MOVES},
    ),
)
