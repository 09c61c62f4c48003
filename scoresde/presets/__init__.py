"""The published systems by name: process, network, loss, recipe, sampler and bound of each.

`PRESETS` holds a `scoresde.training.Preset` a system. Numbers are the published ones for CIFAR-10, brought to the
digits by the rules of `scoresde.presets.scaling`; where a system differs from its published code, a comment beside it
describes the difference. All but ``"edm-wide"`` are unconditional.

Example:
    >>> from scoresde.presets import PRESETS
    >>> PRESETS["edm"].sampler
    Sampler(method='rho_heun', steps=17, evaluations=None, grid='karras', ..., denoise=True, options={}, clip=None)
    >>> PRESETS["iddpm"].process()
    BetaChain(4000 levels, times 0 to 3999)
"""

from __future__ import annotations

from ..core.support import registries as _registries
from ..core.support.registries import DEFAULT_PRESET as DEFAULT
from ..core.support.registries import Registry
from ..training import Preset
from .bounds import OfChain, OfTime
from .scaling import scaled

__all__ = ["DEFAULT", "PRESETS", "OfChain", "OfTime", "scaled"]

# By name, for `scoresde train --preset`. Yours: PRESETS["mine"] = Preset(...).
PRESETS: Registry[Preset] = _registries.PRESETS
