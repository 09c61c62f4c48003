r"""Limits for the data estimate: score functions made from score functions.

Data that lie in a known range, as images, have estimates in that range; a network at high noise, or under strong
guidance, leaves it. Both wrappers limit :math:`\hat x` and keep :math:`x = \alpha\hat x + \sigma\hat\varepsilon`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._signatures import accepts, offers_estimates
from ._tensors import check_number, check_positive, check_state, compute_dtype, expand, output_problem, row_times
from .errors import InvalidArgumentError, InvalidTypeError, ScoreFnError
from .sdes import AffineSDE, Estimate, Node
from .sdes.base import times_of

__all__ = ["Clip", "DynamicThreshold"]


class Limited(abc.ABC):
    """A score function with limits on its data estimate; subclasses give `limit`."""

    def __init__(self, score_fn: Callable[..., Any], sde: AffineSDE | None = None) -> None:
        own = getattr(score_fn, "sde", None)
        process = own if sde is None else sde
        if not callable(score_fn):
            raise InvalidTypeError(f"`score_fn` must be callable as score_fn(x, t), got {type(score_fn).__name__}.")
        if not isinstance(process, AffineSDE):
            raise InvalidArgumentError("`sde` is missing, and this score function does not know its own; pass sde=….")
        if isinstance(own, AffineSDE) and not process.same_schedule(own):
            raise InvalidArgumentError(f"`score_fn` was made for {own!r}, but `sde` is {process!r}; leave `sde` out.")
        self.score_fn, self.sde = score_fn, process
        self.rowwise = bool(getattr(score_fn, "rowwise", False))
        self.has_noise_limit = bool(getattr(score_fn, "has_noise_limit", False))
        self.has_variance = bool(getattr(score_fn, "has_variance", False))
        if hasattr(score_fn, "event_shape"):
            self.event_shape = score_fn.event_shape

    @abc.abstractmethod
    def limit(self, data: Tensor) -> Tensor:
        """The data estimate, within its limits."""

    def accepts(self, name: str) -> bool:
        """As the score function."""
        return accepts(self.score_fn, name)

    def estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
        """The limited `Estimate` at a node; what solvers call."""
        alpha, sigma = expand(node.alpha, x), expand(node.sigma, x)
        if offers_estimates(self.score_fn):
            given = self.score_fn.estimate(x, node, **context)  # type: ignore[attr-defined]
        else:
            noise = -sigma * _checked(self.score_fn(x, row_times(node.t, x), **context), x)
            given = Estimate(data=(x - sigma * noise) / alpha, noise=noise)
        data = self.limit(given.data)
        return given._replace(data=data, noise=given.noise + (given.data - data) * (alpha / sigma))

    def __call__(self, x: Tensor, t: Any, **context: Any) -> Tensor:
        """The score of the limited estimate, shaped like ``x``."""
        check_state("x", x)
        state = x.to(compute_dtype(x.dtype))
        node = self.sde.nodes(times_of(state, t))
        return (-self.estimate(state, node, **context).noise / expand(node.sigma, state)).to(x.dtype)


def _checked(score: Any, x: Tensor) -> Tensor:
    """A score, if it is one of the state: what comes after would broadcast it."""
    problem = output_problem(score, x)
    if problem is not None:
        raise ScoreFnError(f"The score function {problem}.")
    return score


class Clip(Limited):
    r"""Clip the data estimate: :math:`\hat x \leftarrow \min(\max(\hat x, lo), hi)`.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        low, high: the range of the data.
        sde: the process, if the score function does not know it.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> model = scoresde.ScoreModel(lambda x, t: 3 * torch.ones_like(x), sde, prediction="data")
        >>> Clip(model).estimate(torch.zeros(1, 2), sde.node(0.5)).data
        tensor([[1., 1.]])

    References:
        Ho, Jain, Abbeel (2020), the released code. https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self, score_fn: Callable[..., Any], low: float = -1.0, high: float = 1.0, *, sde: AffineSDE | None = None
    ) -> None:
        super().__init__(score_fn, sde)
        self.low, self.high = check_number("low", low), check_number("high", high)
        if not self.low < self.high:
            raise InvalidArgumentError(f"`low` must be below high={high}, got {low}.")

    def limit(self, data: Tensor) -> Tensor:
        """See `Limited.limit`."""
        return data.clamp(self.low, self.high)


class DynamicThreshold(Limited):
    r"""Dynamic thresholding: each sample's data estimate is clipped at a quantile of its own, and scaled back.

    With s the larger of the bound and the quantile of :math:`|\hat x|` over a sample's elements,
    :math:`\hat x \leftarrow \min(\max(\hat x, -s), s)\,\cdot bound/s`.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        quantile: in (0, 1], 0.995 as published.
        bound: half the width of the data's range, which is symmetric.
        sde: the process, if the score function does not know it.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> model = scoresde.ScoreModel(lambda x, t: torch.tensor([[4.0, 2.0]]), sde, prediction="data")
        >>> DynamicThreshold(model, quantile=1.0).estimate(torch.zeros(1, 2), sde.node(0.5)).data
        tensor([[1.0000, 0.5000]])

    References:
        Saharia et al. (2022), Imagen, section 2.3. https://arxiv.org/abs/2205.11487
    """

    def __init__(
        self,
        score_fn: Callable[..., Any],
        quantile: float = 0.995,
        bound: float = 1.0,
        *,
        sde: AffineSDE | None = None,
    ) -> None:
        super().__init__(score_fn, sde)
        self.quantile = check_positive("quantile", quantile, high=1.0)
        self.bound = check_number("bound", bound, low=0.0, strict=True)

    def limit(self, data: Tensor) -> Tensor:
        """See `Limited.limit`."""
        sizes = data.flatten(1).abs()
        scale = expand(torch.quantile(sizes.to(torch.float32), self.quantile, dim=1).clamp_min(self.bound), data)
        return torch.minimum(torch.maximum(data, -scale), scale) * (self.bound / scale)
