"""The bounds of presets: one of a chain, and one of continuous time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..likelihood import Bound, chain_bound, variational_bound
from ..scores import ScoreModel


@dataclass(frozen=True)
class OfChain:
    """`scoresde.likelihood.chain_bound` with a variance, over all levels of the model's chain or some.

    Args:
        variance: see `scoresde.likelihood.chain_bound`.
        levels: how many levels, chosen evenly; None for all.
        clip: see `scoresde.likelihood.chain_bound`.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear(100)
        >>> model = scoresde.ScoreModel(
        ...     lambda x, i: x, chain.sde(), "noise", time_input="index", chain=chain
        ... )
        >>> OfChain("large", levels=5)(
        ...     model, torch.zeros(2, 3).long(), levels=17, seed=0
        ... ).nfe
        5
    """

    variance: str
    levels: int | None = None
    clip: bool = False

    def __call__(self, model: ScoreModel, v: Tensor, **options: Any) -> Bound:
        if model.chain is None:
            raise InvalidArgumentError(f"`model` must have a chain, got {model!r}.")
        chain = model.chain if self.levels is None else model.chain.respace(self.levels)
        return chain_bound(chain, model.on(chain.sde()), v, variance=self.variance, clip=self.clip, **options)


@dataclass(frozen=True)
class OfTime:
    """`scoresde.variational_bound` of the model's process in continuous time.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.VDMSDE(), "noise")
        >>> OfTime()(model, torch.zeros(2, 3).long(), levels=17, draws=4, seed=0).nfe
        4
    """

    def __call__(self, model: ScoreModel, v: Tensor, **options: Any) -> Bound:
        return variational_bound(model.sde, model, v, **options)
