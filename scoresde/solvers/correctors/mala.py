"""Metropolis-adjusted Langevin moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.errors import ScoreFnError
from ...core.support.checks import check_callable, check_integer, check_number
from ...core.support.tensors import expand, row_sums, row_times, where
from .base import Asking, Corrector, Node, Process


@dataclass(frozen=True)
class MALACorrector(Corrector):
    r"""Metropolis-adjusted Langevin moves, where the log-density is known up to a constant.

    A Langevin move from x to y with :math:`\epsilon = 2(r\sigma_t)^2` is accepted with probability

    .. math::
        \min\Big(1, \frac{p_t(y)\,q(x|y)}{p_t(x)\,q(y|x)}\Big),\qquad q(y|x) = N(y;\ x+\epsilon s(x),\ 2\epsilon I).

    Facts:
        The distribution :math:`p_t` is its fixed point exactly, whatever the step. ``moves + 1`` evaluations per call,
        besides those of the log-density.

    Raises:
        ScoreFnError: the log-density is not finite (minus infinity, outside the support, is).

    Args:
        log_prob: ``log_prob(x, t) -> (batch,)``, the log-density at time t (``(batch,)``) up to a constant; an energy
            with its sign changed.
        snr: r, the size of a move relative to the noise level.
        moves: moves per call.

    Example:
        >>> import scoresde
        >>> target, sde = (
        ...     scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)),
        ...     scoresde.VPSDE(),
        ... )
        >>> corrector = MALACorrector(lambda x, t: target.log_prob(x, sde, t), snr=0.4)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="pc", corrector=corrector, steps=5, seed=0
        ... ).evaluations
        15

    References:
        Roberts, Tweedie (1996), Exponential convergence of Langevin distributions and their discrete approximations.
    """

    log_prob: Callable[[Tensor, Tensor], Tensor]
    snr: float = 0.3
    moves: int = 1

    name: ClassVar[str] = "mala"
    not_gaussian: ClassVar[str] = "a move that is rejected leaves the state where it was, with a probability of its own"

    def __post_init__(self) -> None:
        check_callable("log_prob", self.log_prob, "log_prob(x, t)")
        check_number("snr", self.snr, low=0.0, strict=True)
        check_integer("moves", self.moves, low=1)

    @property
    def evaluations(self) -> int:
        """The score at the start, and at every proposal."""
        return self.moves + 1

    def correct(self, process: Process, x: Tensor, node: Node) -> Asking[Tensor]:
        """See `Corrector.correct`."""
        epsilon = 2 * (self.snr * node.sigma) * (self.snr * node.sigma)
        drift, spread = expand(epsilon, x), expand((2 * epsilon) ** 0.5, x)
        score, density = (yield process.score(x, node)), self._density(x, node)
        for _ in range(self.moves):
            z = yield process.normal(x)
            y = x + drift * score + spread * z
            there, its = (yield process.score(y, node)), self._density(y, node)
            back = (x - y - drift * there) / spread  # the draw that would lead back
            squares, squares_back = (row_sums(v.to(torch.float64).square()) for v in (z, back))
            log_ratio = its - density + 0.5 * (squares - squares_back)
            uniform = torch.special.ndtr((yield process.normal(x.flatten(1)[:, 0].to(torch.float64))))
            accept = uniform.log() < log_ratio
            x, score, density = (where(accept, new, old) for new, old in ((y, x), (there, score), (its, density)))
        return x

    def _density(self, x: Tensor, node: Node) -> Tensor:
        value = self.log_prob(x, row_times(node.t, x))
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ScoreFnError(f"`log_prob` must return ({len(x)},), one value per sample, got {got}.")
        bad = torch.isnan(value) | (value == torch.inf)  # -inf is a place outside the support
        if bool(bad.any()):
            rows = bad.nonzero()[:, 0].tolist()
            raise ScoreFnError(
                f"`log_prob` returned NaN or infinity for {len(rows)} of {len(x)} samples (first: {rows[:5]}) at "
                f"t={float(row_times(node.t, x)[rows[0]]):.6g}."
            )
        return value.to(torch.float64, copy=True)
