"""What the bounds check of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._arguments import check_events, check_made_for, context_of
from ..._tensors import check_score_fn
from ...errors import InvalidArgumentError
from ...noise import BatchNoise, Noise, check_seed, resolve
from ...processes import Network
from ...sdes import AffineSDE, NormalPrior
from .prior import Grey, read


def check_model(sde: AffineSDE, score_fn: Any) -> None:
    """Refuse what is no score function of the process, and a process whose prior has no known divergence."""
    check_score_fn(score_fn)
    check_made_for(sde, score_fn)
    if not isinstance(sde.prior, NormalPrior):
        raise InvalidArgumentError("The bound needs a NormalPrior, whose divergence is known.")


class Given(NamedTuple):
    """Data, network and randomness, ready to use."""

    data: Tensor
    grey: Grey | None
    network: Network
    noise: Noise
    generator: torch.Generator | None  # of the levels


def prepare(
    score_fn: Callable[..., Any],
    x: Tensor,
    levels: int | None,
    data_range: tuple[float, float],
    context: Mapping[str, Tensor] | None,
    seed: int | None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None,
) -> Given:
    """Check the data and what belongs to them."""
    data, grey = read(x, levels, data_range)
    check_events(score_fn, data)
    device, batch = data.device, len(data)
    generator = None if seed is None else BatchNoise.seeded(check_seed("seed", seed), device).generator
    source = resolve(seed=None, seeds=None, generator=None, noise=noise, device=device, batch=batch)
    if noise is None:
        source = BatchNoise(generator)  # one stream for levels and noise: two of one seed would be the same numbers
    return Given(data, grey, Network(score_fn, context_of(context, score_fn, batch, device)), source, generator)
