"""Checks of the arguments of the bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..._arguments import check_events, check_made_for, context_of
from ...errors import InvalidArgumentError
from ...noise import BatchNoise, Noise, check_seed, resolve
from ...processes import Network
from ...scores import Score, ScoreFn, as_score
from ...sdes import AffineSDE, NormalPrior
from .prior import Grey, read


def check_model(sde: AffineSDE, score_fn: ScoreFn) -> Score:
    """The score function; one of another process is refused, and a process whose prior has no known divergence."""
    score = as_score(score_fn)
    check_made_for(sde, score)
    if not isinstance(sde.prior, NormalPrior):
        raise InvalidArgumentError("The bound needs a NormalPrior, whose divergence has a closed form.")
    return score


class Given(NamedTuple):
    """Data, network and randomness, ready to use."""

    data: Tensor
    grey: Grey | None
    network: Network
    noise: Noise
    generator: torch.Generator | None  # of the levels


def prepare(
    score: Score,
    x: Tensor,
    levels: int | None,
    data_range: tuple[float, float],
    context: Mapping[str, Tensor] | None,
    seed: int | None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None,
) -> Given:
    """Check the data and what belongs to them."""
    data, grey = read(x, levels, data_range)
    check_events(score, data)
    device, batch = data.device, len(data)
    generator = None if seed is None else BatchNoise.seeded(check_seed("seed", seed), device).generator
    source = resolve(seed=None, seeds=None, generator=None, noise=noise, device=device, batch=batch)
    if noise is None:
        source = BatchNoise(generator)  # one stream for levels and noise: two of one seed would be the same numbers
    return Given(data, grey, Network(score, context_of(context, score, batch, device)), source, generator)
