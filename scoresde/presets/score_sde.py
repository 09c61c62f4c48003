"""Score-based models through stochastic differential equations: variance exploding, preserving, and below that."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..core.sdes import VESDE, VPSDE, SubVPSDE
from ..losses import denoising, denoising_score_matching
from ..training import Preset
from ..zoo import Sampler
from .bounds import OfTime
from .scaling import LARGEST_DISTANCE, network, scaled

PAPER = "Song et al. (2021), arXiv:2011.13456"
STEPS = 1000


# All differ from the published code in the step of the corrector, that of each sample alone; in the last step, which is
# to the expected data and not one without noise; in that the data are dequantised; and VP in that the network sees t
# through waves of its own scale, not the sinusoids of 999 t.
SCORE_SDE_VE = Preset(
    summary="variance exploding SDE, reverse diffusion with a Langevin corrector",
    paper=PAPER,
    loss=denoising_score_matching,
    recipe=scaled(1_300_000, 2e-4, ema=0.999, warmup=5000, clip=1.0, batch_size=128),
    process=partial(VESDE, 0.01, LARGEST_DISTANCE, t_min=1e-5),
    prediction="noise",
    time_input="sigma",
    kwargs=network(time="log_gaussian", dropout=0.1),
    data_range=(0.0, 1.0),
    labelled=False,
    sampler=Sampler(
        "pc", steps=STEPS, grid="time", denoise=True, options={"predictor": "reverse_diffusion", "snr": 0.16}
    ),
    bound=OfTime(),
)

SCORE_SDE_VP = Preset(
    summary="variance preserving SDE, Euler-Maruyama steps of the reverse SDE",
    paper=PAPER,
    loss=denoising,
    recipe=scaled(1_300_000, 2e-4, ema=0.9999, warmup=5000, clip=1.0, batch_size=128),
    process=partial(VPSDE, 0.1, 20.0, t_min=1e-5),
    prediction="noise",
    time_input="t",
    kwargs=network(dropout=0.1),
    labelled=False,
    sampler=Sampler("euler_maruyama", steps=STEPS, grid="time", t_end=1e-3, denoise=True),
    bound=OfTime(),
)

SCORE_SDE_SUBVP = replace(
    SCORE_SDE_VP,
    summary="sub-VP SDE, Euler-Maruyama steps of the reverse SDE",
    process=partial(SubVPSDE, 0.1, 20.0, t_min=1e-5),
)
