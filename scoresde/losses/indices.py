r"""Distributions of the levels of a chain: `Times` that draw places i = 0 … T - 1 and weigh them by :math:`1/(T p_i)`,
so that

.. math:: E_{i\sim p}[w_i f_i] = \frac1T\sum_i f_i .
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.errors import CheckpointMismatchError, InvalidArgumentError, NonFiniteError
from ..core.sdes import SDE, AffineSDE
from ..core.support.checks import MOST_LEVELS, check_integer, check_kind, check_number, check_times, check_weights
from ..discrete import Chain
from .times import Draw, Times


class IndexLaw(Times):
    """A distribution of the levels of a chain. A subclass gives `probabilities`.

    Args:
        chain: the chain, whose process the model has.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear(10)
        >>> UniformIndex(chain).at(chain.sde(), torch.tensor([0.0, 0.55])).index
        tensor([0, 5])
    """

    def __init__(self, chain: Chain) -> None:
        check_kind("chain", chain, Chain, "a chain such as scoresde.discrete.BetaChain.linear()")
        self.chain = chain
        self._checked: SDE | None = None  # the last process that was found to be the chain's

    @abc.abstractmethod
    def probabilities(self) -> Tensor:
        """The probabilities of the levels, float64 ``(T,)``."""

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`; times are the chain's.

        Raises:
            InvalidArgumentError: the process has other noise levels at these times.
        """
        self._check_process(sde)
        p = self.probabilities().to(u.device)
        ends = p.cumsum(0)
        index = torch.searchsorted(ends, u.to(p) * ends[-1], right=True).clamp_max(len(p) - 1)
        return Draw(self.chain.times.to(u.device)[index], 1 / (len(p) * p[index]), index)

    def _check_process(self, sde: SDE) -> None:
        if sde is self._checked:
            return
        ends = [(float(self.chain.times[i]), float(self.chain.log_snrs[i])) for i in (0, -1)]
        if not isinstance(sde, AffineSDE) or not all(
            sde.t_min <= t <= sde.t_max and math.isclose(2 * sde.node(t).lam, level, rel_tol=1e-6, abs_tol=1e-6)
            for t, level in ends
        ):
            raise InvalidArgumentError(
                f"{self!r} is a distribution of the levels of its chain, and the process has other levels at these "
                f"times: {sde!r}. Take chain.sde(), or a distribution of times such as times=losses.LowDiscrepancy()."
            )
        self._checked = sde

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.chain!r})"


class UniformIndex(IndexLaw):
    """All levels are equally likely; every weight is 1.

    Example:
        >>> UniformIndex(scoresde.discrete.BetaChain.linear(4)).probabilities().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def probabilities(self) -> Tensor:
        """1/T each."""
        return torch.full((len(self.chain),), 1 / len(self.chain), dtype=torch.float64)


class WeightedIndex(IndexLaw):
    """Levels in proportion to given numbers.

    Args:
        chain: the chain.
        weights: T positive numbers, the cleanest level's first.

    Example:
        >>> WeightedIndex(
        ...     scoresde.discrete.BetaChain.linear(2), [1.0, 3.0]
        ... ).probabilities().tolist()
        [0.25, 0.75]
    """

    def __init__(self, chain: Chain, weights: Sequence[float] | Tensor) -> None:
        super().__init__(chain)
        w = check_weights(check_times("weights", weights, "numbers"), len(chain))
        self._probabilities = w / w.sum()

    def probabilities(self) -> Tensor:
        """The numbers over their sum."""
        return self._probabilities


class LossSecondMoment(IndexLaw):
    r"""Improved DDPM's distribution for the pure variational bound: :math:`p_i \propto \sqrt{E[L_i^2]}`.

    The mean is over the last ``history`` losses of each level; until every level has as many, the distribution is
    uniform. A share of uniform draws keeps every level possible: :math:`p_i = (1-q)\,\sqrt{m_i}/\sum_j\sqrt{m_j} +
    q/T`. Losses given this distribution as ``times=`` report to it automatically, except under ``torch.no_grad()``;
    with several processes gather ``index`` and ``losses`` and call `update` with the same values on all.

    Args:
        chain: the chain.
        history: losses kept per level.
        uniform_prob: q, in [0, 1].

    Example:
        >>> law = LossSecondMoment(
        ...     scoresde.discrete.BetaChain.linear(2), history=1, uniform_prob=0.0
        ... )
        >>> law.update(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
        >>> law.probabilities().tolist()
        [0.25, 0.75]

    References:
        Nichol, Dhariwal (2021), section 3.3 and eq. 18. https://arxiv.org/abs/2102.09672
    """

    def __init__(self, chain: Chain, history: int = 10, uniform_prob: float = 0.001) -> None:
        super().__init__(chain)
        self.history = check_integer("history", history, low=1, high=MOST_LEVELS)
        self.uniform_prob = check_number("uniform_prob", uniform_prob, low=0.0, high=1.0)
        self._squares = torch.zeros(len(chain), self.history, dtype=torch.float64)
        self._counts = torch.zeros(len(chain), dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """See the class."""
        size = len(self.chain)
        uniform = torch.full((size,), 1 / size, dtype=torch.float64)
        root = self._squares.mean(1).sqrt()
        if bool((self._counts < self.history).any()) or not bool(root.sum() > 0):
            return uniform
        p = (1 - self.uniform_prob) * root / root.sum() + self.uniform_prob * uniform
        return p.clamp_min(torch.finfo(torch.float64).tiny)

    def update(self, index: Tensor, losses: Tensor) -> None:
        """Keep losses ``(n,)`` of levels ``(n,)``; the oldest of a level are dropped.

        Raises:
            InvalidArgumentError: shapes differ, or a place is not in the chain.
            NonFiniteError: a loss is NaN or infinite.
        """
        index, losses = index.detach().cpu().flatten(), losses.detach().cpu().to(torch.float64).flatten()
        if index.shape != losses.shape or bool(((index < 0) | (index >= len(self.chain))).any()):
            raise InvalidArgumentError(
                f"`index` must hold places 0 … {len(self.chain) - 1}, one per loss; got {len(index)} places for "
                f"{len(losses)} losses."
            )
        if not bool(torch.isfinite(losses).all()):
            raise NonFiniteError("`losses` has NaN or infinite values.", stage="input")
        for i, square in zip(index.tolist(), losses.square().tolist(), strict=True):
            self._squares[i, self._counts[i] % self.history] = square
            self._counts[i] += 1

    def observe(self, draw: Draw, losses: Tensor) -> None:
        """See `Times`."""
        if draw.index is not None:
            self.update(draw.index, losses)

    def state_dict(self) -> dict[str, Tensor]:
        """The losses that it keeps, as tensors."""
        return {"squares": self._squares.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of another one of the same size.

        Raises:
            CheckpointMismatchError: names or shapes differ.
        """
        own = self.state_dict()
        got = {k: tuple(v.shape) for k, v in state.items() if isinstance(v, Tensor)}
        wanted = {k: tuple(v.shape) for k, v in own.items()}
        if got != wanted:
            raise CheckpointMismatchError(f"The state of a LossSecondMoment must have {wanted}, got {got}.")
        self._squares, self._counts = (state[k].detach().cpu().to(own[k].dtype).clone() for k in ("squares", "counts"))
