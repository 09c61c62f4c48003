r"""Training objectives. Each is ``loss(model, x0, generator=None, **context) -> Tensor (batch,)``, to be averaged.

``model`` is a `ScoreModel`, whatever its network predicts; ``context`` goes to the network unchanged; options are
keywords, so that ``functools.partial(loss, weight="min_snr")`` is a loss. A loss draws noise levels and noise from
``generator`` alone (None: torch's global one), calls the model once, and never imports a solver.

- Score matching, with the distribution's own score, without it, or with the kernel's: `explicit_score_matching`,
  `implicit_score_matching`, `sliced_score_matching`, `denoising_score_matching`, `transition_score_matching`.
- Denoising, a mean over the event: `denoising` (any target, any weight), `edm`, `v_prediction`, `flow_matching`,
  `min_snr`, `p2`, and on a chain `ddpm_simple`, `iddpm_hybrid`.
- Bounds in nats: `likelihood_weighted`, `vdm`, `ddpm_vlb`.
- The building blocks: `TARGETS`, `WEIGHTS`, distributions of noise levels (`Times`, and `IndexLaw` for the levels of
  a chain).

`LOSSES` has the losses of score networks by name.
"""

from collections.abc import Callable

from torch import Tensor

from ..core.support import registries as _registries
from ..core.support.registries import Registry
from .bounds import diffusion_at, likelihood_weighted, reconstruction, vdm
from .chains import chain_term, ddpm_simple, ddpm_vlb, iddpm_hybrid, level_of
from .classification import noisy_cross_entropy
from .core import REDUCTIONS, TARGETS, denoising, denoising_at, error, look
from .gaussian import discretised_log_prob, gaussian_kl, grey_values, prior_kl
from .indices import IndexLaw, LossSecondMoment, UniformIndex, WeightedIndex
from .predictions import edm, flow_matching, min_snr, p2, v_prediction
from .score_matching import (
    denoising_score_matching,
    explicit_at,
    explicit_score_matching,
    implicit_at,
    implicit_score_matching,
    sliced_at,
    sliced_score_matching,
    transition_at,
    transition_score_matching,
)
from .times import (
    Draw,
    Fixed,
    FromLevels,
    Importance,
    LogitNormal,
    LogNormal,
    LogUniform,
    LowDiscrepancy,
    NoiseLevels,
    Times,
    UniformTimes,
)
from .weights import P2, WEIGHTS, EDMWeight, MinSNR, Sigmoid

LOSSES: Registry[Callable[..., Tensor]] = _registries.LOSSES

__all__ = [
    "LOSSES",
    "P2",
    "REDUCTIONS",
    "TARGETS",
    "WEIGHTS",
    "Draw",
    "EDMWeight",
    "Fixed",
    "FromLevels",
    "Importance",
    "IndexLaw",
    "LogNormal",
    "LogUniform",
    "LogitNormal",
    "LossSecondMoment",
    "LowDiscrepancy",
    "MinSNR",
    "NoiseLevels",
    "Sigmoid",
    "Times",
    "UniformIndex",
    "UniformTimes",
    "WeightedIndex",
    "chain_term",
    "ddpm_simple",
    "ddpm_vlb",
    "denoising",
    "denoising_at",
    "denoising_score_matching",
    "diffusion_at",
    "discretised_log_prob",
    "edm",
    "error",
    "explicit_at",
    "explicit_score_matching",
    "flow_matching",
    "gaussian_kl",
    "grey_values",
    "iddpm_hybrid",
    "implicit_at",
    "implicit_score_matching",
    "level_of",
    "likelihood_weighted",
    "look",
    "min_snr",
    "noisy_cross_entropy",
    "p2",
    "prior_kl",
    "reconstruction",
    "sliced_at",
    "sliced_score_matching",
    "transition_at",
    "transition_score_matching",
    "v_prediction",
    "vdm",
]
