"""Variational diffusion models: the bound as the loss, with a learned schedule."""

from __future__ import annotations

from ..core.sdes import VDMSDE
from ..losses import vdm
from ..nets import MonotoneGamma
from ..training import Preset
from ..zoo import Sampler
from .bounds import OfTime
from .scaling import network, scaled


def learned() -> VDMSDE:
    """A line whose ends are learned, from -13.3 and 5, as the published configuration has it."""
    return VDMSDE(MonotoneGamma(-13.3, 5.0, hidden=0))


# The exponents 7, 8 of 256 levels become 3, 4 of 17, see `scoresde.presets.scaling`. Differs from the published code in
# that the network sees t through waves of its own scale, not the sinusoids of 1000 t, does not add its input to its
# output, and that biases decay as weights do.
VDM = Preset(
    summary="the variational bound in continuous time, a learned schedule, Fourier features",
    paper="Kingma, Salimans, Poole, Ho (2021), arXiv:2107.00630",
    loss=vdm,
    recipe=scaled(
        10_000_000,
        2e-4,
        ema=0.9999,
        warmup=100,
        batch_size=128,
        optimizer="adamw",
        betas=(0.9, 0.99),
        weight_decay=0.01,
    ),
    process=learned,
    prediction="noise",
    time_input="t",
    kwargs=network(dropout=0.1, fourier=[3, 4]),
    labelled=False,
    dequantise=False,
    grey_loss=True,
    sampler=Sampler("ancestral", steps=1000, grid="time", options={"variance": "small"}),
    bound=OfTime(),
)
