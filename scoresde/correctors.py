r"""Correctors: Markov chains that leave the law at one time as it is, and so repair the law of a state there."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ._tensors import check_integer, check_number, expand
from .noise import Noise
from .processes import Process
from .sdes import Node


class Corrector(abc.ABC):
    """Moves a state towards the law at one time; a frozen dataclass without memory."""

    name: ClassVar[str] = "own"
    moves: int = 1  # evaluations a call

    @abc.abstractmethod
    def correct(self, process: Process, x: Tensor, node: Node, noise: Noise) -> Tensor:
        """The corrected state."""


@dataclass(frozen=True)
class LangevinCorrector(Corrector):
    r"""Unadjusted Langevin moves at time t.

    .. math:: x \leftarrow x + \epsilon\, s(x, t) + \sqrt{2\epsilon}\, z, \qquad \epsilon = 2 (r\sigma_t)^2.

    Facts:
        The step needs no norm, so samples do not depend on each other. On :math:`N(0, v)` the fixed point is
        :math:`v / (1 - \epsilon/2v)`; one move contracts the mean by :math:`1 - \epsilon/v`.

    Differs from:
        score_sde's ``LangevinCorrector``, which measures norms of the current batch, and multiplies by
        :math:`1-\beta_i` for VP.

    Args:
        snr: r, the size of a move relative to the noise level.
        moves: moves per call.

    Example:
        >>> LangevinCorrector(snr=0.1).moves
        1

    References:
        Song et al. (2021), appendix G. https://arxiv.org/abs/2011.13456
    """

    snr: float = 0.16
    moves: int = 1

    name: ClassVar[str] = "langevin"

    def __post_init__(self) -> None:
        check_number("snr", self.snr, low=0.0, strict=True)
        check_integer("moves", self.moves, low=1)

    def correct(self, process: Process, x: Tensor, node: Node, noise: Noise) -> Tensor:
        """See `Corrector.correct`."""
        epsilon = 2 * (self.snr * node.sigma) * (self.snr * node.sigma)
        drift, spread = expand(epsilon, x), expand((2 * epsilon) ** 0.5, x)
        for _ in range(self.moves):
            x = x + drift * process.score(x, node) + spread * noise.normal(x)
        return x
