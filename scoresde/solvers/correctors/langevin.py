"""Unadjusted Langevin moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_choice, check_integer, check_number
from ...core.support.combination import combine, formula, tensor_of
from ...core.support.tensors import Scalar, row_norms
from .base import Asking, Corrector, Node, Process

# The ratio |z| / |s| of the published rules: (z, s) -> float or (batch,).
RATIOS: dict[str, Callable[[Tensor, Tensor], Scalar]] = {
    "batch": formula(lambda z, s: row_norms(z).mean() / row_norms(s).mean()),
    "sample": formula(lambda z, s: row_norms(z) / row_norms(s)),
    "dimension": lambda z, s: _by_dimension(s),
}


@formula
def _by_dimension(s: Tensor) -> Tensor:
    return math.sqrt(s[0].numel()) / row_norms(s)


@dataclass(frozen=True)
class LangevinCorrector(Corrector):
    r"""Unadjusted Langevin moves at time t.

    .. math:: x \leftarrow x + \epsilon\, s(x, t) + \sqrt{2\epsilon}\, z, \qquad \epsilon = 2 (r\sigma_t)^2.

    The published rules take :math:`\epsilon = 2(r\,\|z\|/\|s\|)^2` instead, with the norms' means over the batch
    ("batch"), or of each sample ("sample"), or :math:`\sqrt D` for :math:`\|z\|` ("dimension"); and a factor
    :math:`1+2f(t)/N`, which is :math:`1-\beta_i` of a VP chain of N steps and 1 for VE.

    Facts:
        By default the step needs no norm, so samples do not depend on each other. On :math:`N(0, v)` the fixed point is
        then :math:`v / (1 - \epsilon/2v)`; one move contracts the mean by :math:`1 - \epsilon/v`. The norm rules have
        the fixed point :math:`v(1+r^2)` for large dimension and are biased in small ones (by about :math:`2/D` with
        "dimension", twice that with "sample"; no fixed point for D <= 2); "batch" couples the samples.

    Differs from:
        score_sde's ``LangevinCorrector``, which is ``rule="batch", chain=1000``.

    Args:
        snr: r, the size of a move relative to the noise level, in (0, 1): no distribution has less variance than
            :math:`\sigma_t^2`, and moves on one that has no more diverge from 1 on.
        moves: moves per call.
        rule: ``"sigma"`` or a published one: ``"batch"``, ``"sample"``, ``"dimension"``.
        chain: N of the published factor; None leaves it out.

    Example:
        >>> LangevinCorrector(snr=0.1).moves
        1

    References:
        Song et al. (2021), appendix G. https://arxiv.org/abs/2011.13456
    """

    snr: float = 0.16
    moves: int = 1
    rule: str = "sigma"
    chain: int | None = None

    name: ClassVar[str] = "langevin"
    keeps_estimates: ClassVar[bool] = False
    not_gaussian: ClassVar[str] = "the size of a move depends on its draw"

    def __post_init__(self) -> None:
        check_number(
            "snr", self.snr, low=0.0, high=1.0, strict=True, hint=" From 1 on the moves diverge where noise dominates."
        )
        check_integer("moves", self.moves, low=1)
        check_choice("rule", self.rule, ("sigma", *RATIOS))
        if self.chain is not None:
            check_integer("chain", self.chain, low=1)

    @property
    def batch_coupled(self) -> bool:
        """Whether samples depend on the others of their batch."""
        return self.rule == "batch"

    @property
    def gaussian_step(self) -> bool:
        """True if the size of a move does not depend on its draw."""
        return self.rule in ("sigma", "dimension")

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Corrector.prepare`."""
        for node in nodes:
            if not self._factor(node) > 0.0:
                raise InvalidArgumentError(
                    f"`chain`={self.chain} is too short for the process: 1 + 2 f / chain, the 1 - beta of a chain, is "
                    f"{self._factor(node):.3g} at t={node.t:.4g}; leave `chain` out, or take one of "
                    f"{math.floor(-2 * node.f) + 1} steps or more."
                )

    def _factor(self, node: Node) -> Scalar:
        return 1.0 if self.chain is None else 1 + 2 * node.f / self.chain

    def correct(self, process: Process, x: Tensor, node: Node) -> Asking[Tensor]:
        """See `Corrector.correct`."""
        factor = self._factor(node)
        for _ in range(self.moves):
            score, z = (yield process.linear_score(x, node)), (yield process.normal(x))
            if self.rule == "sigma":
                size = node.sigma
            else:
                score = tensor_of(score)
                size = RATIOS[self.rule](z, score)
            epsilon = 2 * factor * (self.snr * size) * (self.snr * size)
            x = combine(1.0, x, 1.0, (epsilon, (2 * epsilon) ** 0.5), (score, z))
        return x
