"""Randomness without a state: what a step draws is a function of the run's seed, the step and the rank."""

from __future__ import annotations

import numpy as np
import torch

ROWS, DATA, LOSS, DROPOUT, STATISTICS, WEIGHTS = range(6)  # purposes, each with numbers of its own


def seed_of(seed: int, purpose: int, step: int = 0, rank: int = 0) -> int:
    """A seed of 63 bits; different places have unrelated numbers.

    Example:
        >>> (
        ...     seed_of(0, DATA, 5) == seed_of(0, DATA, 5),
        ...     seed_of(0, DATA, 5) == seed_of(0, LOSS, 5),
        ... )
        (True, False)
    """
    low, high = np.random.SeedSequence([int(seed), purpose, step, rank]).generate_state(2)
    return int(high) << 31 ^ int(low)


def generator_of(
    seed: int, purpose: int, step: int = 0, rank: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for a place.

    Example:
        >>> one, two = (torch.rand(2, generator=generator_of(1, DATA, 7)) for _ in range(2))
        >>> torch.equal(one, two)
        True
    """
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, step, rank))
