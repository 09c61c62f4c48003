"""Corrector-only sampling: annealed Langevin dynamics along a grid of levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import MCMCSolver, Node, Process, Step, StepResult
from .correctors import LangevinCorrector


@dataclass(frozen=True)
class Langevin(MCMCSolver):
    r"""Langevin moves at each level of the grid, without a predictor.

    A step from s to t is ``moves`` Langevin moves at t with :math:`\epsilon = 2(r\sigma_t)^2` (see
    `scoresde.LangevinCorrector`). Mixing is slow where the data is far wider than the noise: take many
    levels.

    Facts:
        No order: it targets the distribution of each level, and is tested by its fixed point. ``moves`` evaluations per
        step.

    Differs from:
        score_sde's corrector-only sampler, whose step takes norms over the batch.

    Args:
        snr: r.
        moves: Langevin moves per level.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="langevin",
        ...     steps=10,
        ...     moves=3,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).evaluations
        30

    References:
        Song, Ermon (2019), Generative Modeling by Estimating Gradients, algorithm 1. https://arxiv.org/abs/1907.05600
    """

    snr: float = 0.16
    moves: int = 1

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Song, Ermon (2019), algorithm 1"

    def __post_init__(self) -> None:
        LangevinCorrector(self.snr, self.moves)  # checks the options

    @property
    def evaluations(self) -> int:
        """One per move."""
        return self.moves

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        return StepResult((yield from LangevinCorrector(self.snr, self.moves).correct(process, x, stop)))
