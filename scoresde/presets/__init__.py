"""The published systems by name: process, network, loss, recipe, sampler and bound of each.

`PRESETS` holds a `scoresde.training.Preset` a system. Numbers are the published ones for CIFAR-10, brought to the
digits by the rules of `scoresde.presets.scaling`; where a system differs from its published code, a comment beside it
says so. All but ``"edm-wide"`` are unconditional.

Example:
    >>> from scoresde.presets import PRESETS
    >>> PRESETS["edm"].sampler
    Sampler(method='rho_heun', steps=17, grid='karras', ..., denoise=True, options={}, clip=None)
    >>> PRESETS["iddpm"].process()
    BetaChain(4000 levels, times 0 to 3999)
"""

from __future__ import annotations

from ..training import Preset
from .bounds import OfChain, OfTime
from .ddpm import DDPM, IDDPM
from .edm import EDM, EDM_WIDE
from .ncsn import NCSN, NCSNV2
from .scaling import scaled
from .score_sde import SCORE_SDE_SUBVP, SCORE_SDE_VE, SCORE_SDE_VP
from .vdm import VDM

__all__ = ["DEFAULT", "PRESETS", "OfChain", "OfTime", "scaled"]

# By name, for `scoresde train --preset`. Yours: PRESETS["mine"] = Preset(...).
PRESETS: dict[str, Preset] = {
    "ncsn": NCSN,
    "ncsnv2": NCSNV2,
    "ddpm": DDPM,
    "iddpm": IDDPM,
    "score-sde-ve": SCORE_SDE_VE,
    "score-sde-vp": SCORE_SDE_VP,
    "score-sde-subvp": SCORE_SDE_SUBVP,
    "vdm": VDM,
    "edm": EDM,
    "edm-wide": EDM_WIDE,
}
DEFAULT = "edm-wide"
