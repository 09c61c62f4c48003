"""Underdamped Langevin moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.support.checks import check_integer, check_number
from ...core.support.combination import combine
from .base import Asking, Corrector, Node, Process


@dataclass(frozen=True)
class UnderdampedCorrector(Corrector):
    r"""Underdamped Langevin dynamics at time t by the BAOAB splitting, from a fresh velocity :math:`v \sim N(0, I)`.

    With :math:`h = r\sigma_t` and the friction :math:`\gamma` in units of :math:`1/\sigma_t`, a move is

    .. math::
        v \mathrel{+}= \tfrac h2 s(x),\quad x \mathrel{+}= \tfrac h2 v,\quad v \leftarrow e^{-\gamma r}v +
            \sqrt{1-e^{-2\gamma r}}\,z,\quad x \mathrel{+}= \tfrac h2 v,\quad v \mathrel{+}= \tfrac h2 s(x).

    Facts:
        Its fixed point is exact for Gaussians, except for the fresh velocities, whose error falls with the number of
        moves. ``moves + 1`` evaluations per call.

    Args:
        snr: r, the size of a move relative to the noise level.
        moves: moves per call.
        friction: :math:`\gamma`; with large values the velocity is redrawn in every move.

    Example:
        >>> UnderdampedCorrector(moves=3).evaluations
        4

    References:
        Leimkuhler, Matthews (2013), Rational construction of stochastic numerical methods for molecular sampling.
        https://arxiv.org/abs/1203.5428
    """

    snr: float = 0.3
    moves: int = 2
    friction: float = 1.0

    name: ClassVar[str] = "underdamped"
    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("snr", self.snr, low=0.0, strict=True)
        check_integer("moves", self.moves, low=1)
        check_number("friction", self.friction, low=0.0)

    @property
    def evaluations(self) -> int:
        """The score at the start, and after every move."""
        return self.moves + 1

    def correct(self, process: Process, x: Tensor, node: Node) -> Asking[Tensor]:
        """See `Corrector.correct`."""
        half = 0.5 * self.snr * node.sigma
        kept = math.exp(-self.friction * self.snr)
        v = yield process.normal(x)
        score = yield process.score(x, node)
        for _ in range(self.moves):
            v = combine(1.0, v, half, (1.0,), (score,))
            x = combine(1.0, x, half, (1.0,), (v,))
            v = combine(kept, v, (1 - kept * kept) ** 0.5, (1.0,), ((yield process.normal(x)),))
            x = combine(1.0, x, half, (1.0,), (v,))
            score = yield process.score(x, node)
            v = combine(1.0, v, half, (1.0,), (score,))
        return x
