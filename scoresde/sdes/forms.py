"""The reverse-time and probability-flow forms that a process hands out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .._tensors import (
    MOST_STOCHASTICITY,
    Scalar,
    check_number,
    check_score_fn,
    check_state,
    compute_dtype,
    output_problem,
)
from ..errors import ScoreFnError
from .base import SDE, Spread, as_time, check_sde, times_of


class ReverseSDE:
    r"""The family of reverse-time processes with the forward marginals.

    .. math:: dx = \Big[f(x, t) - \tfrac12 (1+\eta^2)\, g(t)^2\, s(x, t)\Big] dt + \eta\, g(t)\, d\bar w, \qquad dt < 0.

    :math:`\eta = 0` is the probability-flow ODE, :math:`\eta = 1` Anderson's reverse SDE.

    Args:
        sde: the forward process.
        score_fn: ``score_fn(x, t)`` with t as ``(batch,)``.
        stochasticity: :math:`\eta \ge 0`.

    Example:
        >>> from scoresde import VESDE
        >>> flow = VESDE().probability_flow(lambda x, t: -x)
        >>> flow.drift(torch.ones(1, 2), 0.0), float(flow.diffusion(0.0))
        (tensor([[0.0009, 0.0009]]), 0.0)

    References:
        Song et al. (2021), Score-Based Generative Modeling through SDEs, eqs. 6 and 13.
        https://arxiv.org/abs/2011.13456
    """

    def __init__(self, sde: SDE, score_fn: Callable[..., Tensor], stochasticity: float = 1.0) -> None:
        check_sde(sde)
        check_score_fn(score_fn)
        self.sde = sde
        self.score_fn = score_fn
        self.stochasticity = check_number("stochasticity", stochasticity, low=0.0, high=MOST_STOCHASTICITY)
        self._spread = Spread(sde)

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """The drift, shaped like ``x``; multiply it by a negative dt."""
        check_state("x", x)
        time = as_time("t", t).to(device=x.device, dtype=compute_dtype(x.dtype))
        score = self.score_fn(x, times_of(x, t).to(x.device, time.dtype))
        problem = output_problem(score, x)
        if problem is not None:
            raise ScoreFnError(f"The score function {problem}.")
        g = self._spread(x, as_time("t", t))
        return (self.sde.drift(x, t) - 0.5 * (1 + self.stochasticity**2) * g**2 * score).to(x.dtype)

    def diffusion(self, t: Scalar) -> Tensor:
        r""":math:`\eta\, g(t)`."""
        return self.stochasticity * self.sde.diffusion(t)
