"""Score functions made from score functions: what limits and guidance share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ._signatures import accepts, offers_estimates
from ._tensors import check_state, compute_dtype, expand, has_graph, output_problem, row_times
from .errors import InvalidArgumentError, InvalidTypeError, ScoreFnError
from .sdes import AffineSDE, Estimate, Node
from .sdes.base import times_of
from .sdes.records import copied, network_parts

ScoreFn = Callable[..., Any]
Estimator = Callable[..., Estimate]


class Wrapper(abc.ABC):
    """A score function made from others; a subclass gives `_estimate`.

    It passes on what the first of them declares, and of all of them what must hold for all. Where none knows its
    process, it gives scores only.

    Args:
        score_fns: one or more; the first is the one that is changed.
        sde: the process, if none of them knows it.
    """

    needs_process = True

    def __init__(self, score_fns: tuple[ScoreFn, ...], sde: AffineSDE | None = None) -> None:
        for score_fn in score_fns:
            if not callable(score_fn):
                raise InvalidTypeError(f"`score_fn` must be callable as score_fn(x, t), got {type(score_fn).__name__}.")
        self.score_fns = score_fns
        self.sde = _process(score_fns, sde)
        if self.needs_process and self.sde is None:
            raise InvalidArgumentError("`sde` is missing, and this score function does not know its own; pass sde=….")
        self.rowwise = all(bool(getattr(f, "rowwise", False)) for f in score_fns)
        self.has_noise_limit = all(bool(getattr(f, "has_noise_limit", False)) for f in score_fns)
        self.has_variance = self.sde is not None and bool(getattr(score_fns[0], "has_variance", False))
        shapes = {tuple(f.event_shape) for f in score_fns if hasattr(f, "event_shape")}
        if len(shapes) > 1:
            raise InvalidArgumentError(f"The score functions are for events of different shapes: {sorted(shapes)}.")
        if shapes:
            self.event_shape = shapes.pop()

    def accepts(self, name: str) -> bool:
        """Whether one of the score functions takes a context of this name."""
        return any(accepts(f, name) for f in self.score_fns)

    @abc.abstractmethod
    def _estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate: ...

    @property
    def estimate(self) -> Estimator | None:
        """``estimate(x, node, **context)``: the `Estimate` at a node, what solvers call; None where the process is not
        known."""
        return None if self.sde is None else self._estimate

    def ask(
        self, score_fn: ScoreFn, x: Tensor, node: Node, context: Mapping[str, Any], *, keep: bool = False
    ) -> Estimate:
        """The estimate of one of the score functions, from its score where it does not offer one; to ``keep`` while
        others are evaluated, which may overwrite the same memory, it is copied."""
        if self.sde is not None and offers_estimates(score_fn):
            estimate: Estimate = score_fn.estimate(x, node, **context)  # type: ignore[attr-defined]
            return copied(estimate, network_parts(score_fn)) if keep else estimate
        alpha, sigma = expand(node.alpha, x), expand(node.sigma, x)
        score = score_fn(x, row_times(node.t, x), **context)
        problem = output_problem(score, x)
        if problem is not None:
            raise ScoreFnError(f"The score function {problem}.")
        noise = -sigma * (score.clone() if has_graph(alpha, sigma) else score)
        return Estimate(data=(x - sigma * noise) / alpha, noise=noise)

    def __call__(self, x: Tensor, t: Any, **context: Any) -> Tensor:
        """The score, shaped like ``x``; ``t`` is a float, 0-d or ``(batch,)``."""
        check_state("x", x)
        state = x.to(compute_dtype(x.dtype))
        times = times_of(state, t)
        node = _nameless(times) if self.sde is None else self.sde.nodes(times)
        return (-self._estimate(state, node, **context).noise / expand(node.sigma, state)).to(x.dtype)


def bound_names(score_fn: ScoreFn) -> set[str]:
    """The names of context that a score function, or one that it is made of, has values for itself."""
    own = getattr(score_fn, "context", None)
    names = set(own) if isinstance(own, Mapping) else set()
    parts: tuple[ScoreFn, ...] = getattr(score_fn, "score_fns", ())
    return names.union(*(bound_names(part) for part in parts))


def _process(score_fns: tuple[ScoreFn, ...], sde: AffineSDE | None) -> AffineSDE | None:
    """The process that is given, or known to one of the score functions; the same to all."""
    if sde is not None and not isinstance(sde, AffineSDE):
        raise InvalidTypeError(f"`sde` must be an affine process such as scoresde.VPSDE(), got {type(sde).__name__}.")
    process = sde
    for score_fn in score_fns:
        own = getattr(score_fn, "sde", None)
        if not isinstance(own, AffineSDE):
            continue
        if process is not None and not process.same_schedule(own):
            if sde is None:
                raise InvalidArgumentError(f"The score functions were made for {process!r} and {own!r}.")
            raise InvalidArgumentError(f"`score_fn` was made for {own!r}, but `sde` is {sde!r}; leave `sde` out.")
        process = own if process is None else process
    return process


def with_data(given: Estimate, data: Tensor, x: Tensor, node: Node) -> Estimate:
    r"""An estimate with other data: :math:`x = \alpha\hat x + \sigma\hat\varepsilon` holds on."""
    return given._replace(
        data=data, noise=given.noise + (given.data - data) * (expand(node.alpha, x) / expand(node.sigma, x))
    )


def _nameless(times: Tensor) -> Node:
    """A node of no process: with alpha = sigma = 1 the algebra of estimates is that of scores."""
    one, none = torch.ones_like(times), torch.full_like(times, torch.nan)
    return Node(times, one, one, none, none, none, none, none)
