"""A score function as the loop sees it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._signatures import offers_estimates
from .._tensors import Scalar, expand, output_problem, row_finite, row_times, warn_caller, where
from ..errors import ScoreFnError
from ..sdes import Estimate, Node
from ..sdes.records import LearnedEstimate, copied, network_parts


class Network:
    """A score function as the loop sees it: checked, counted, and given its context.

    Args:
        score_fn: ``score_fn(x, t, **context)``.
        context: ``{name: (batch, …) tensor}``.
        copies: return copies of what the network may overwrite at its next call (a CUDA graph writes every output to
            the same memory); False is for callers that use each evaluation before the next one.

    Attributes:
        calls: evaluations so far.
        warned: whether a cast to the state's dtype has been told.
        gives_estimates: whether the score function has `estimate`, which is asked then.
        last: the tensors that the last evaluation returned.
        has_variance: whether the estimates have the variance of a reverse step; a score function says so by an
            attribute of this name.
        has_shift: whether guidance can be told from what it guides, see `split`; likewise.
        has_twist: whether it is the gradient of a known log-density at every time, see `twisted`.
    """

    def __init__(
        self, score_fn: Callable[..., Any], context: Mapping[str, Any] | None = None, *, copies: bool = True
    ) -> None:
        self.score_fn = score_fn
        self.context = dict(context or {})
        self.copies = copies
        self.calls = 0
        self.warned = False
        self.last: tuple[Tensor, ...] = ()
        self.gives_estimates = offers_estimates(score_fn)
        self.has_variance = self.gives_estimates and bool(getattr(score_fn, "has_variance", False))
        self.has_shift = self.gives_estimates and bool(getattr(score_fn, "has_shift", False))
        self.has_twist = self.has_shift and bool(getattr(score_fn, "has_twist", False))

    def score(self, x: Tensor, node: Node) -> Tensor:
        """The score, shaped like ``x``."""
        if self.gives_estimates:
            return self.estimate(x, node).noise / expand(-node.sigma, x)
        return self._evaluate(x, node)

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        r""":math:`\hat x` and :math:`\hat\varepsilon`, from the network itself where it offers them, else from its
        score."""
        if self.gives_estimates:
            return self._evaluate(x, node)
        sigma = expand(node.sigma, x)
        noise = self._evaluate(x, node) * -sigma
        return Estimate(data=(x - sigma * noise) / expand(node.alpha, x), noise=noise)

    def split(self, x: Tensor, node: Node) -> tuple[Estimate, Tensor | None]:
        """The estimate without guidance, and the gradient that guidance adds to the score, if any; one evaluation."""
        return self.twisted(x, node)[:2]

    def twisted(self, x: Tensor, node: Node) -> tuple[Estimate, Tensor | None, Tensor | None]:
        """What `split` gives, and the log-density ``(batch,)`` that the gradient is of."""
        added: tuple[Tensor | None, ...] = (None, None)

        def ask(x: Tensor, node: Node, **context: Any) -> Estimate:
            nonlocal added
            estimate, *added = self.score_fn.twisted(x, node, **context)  # type: ignore[attr-defined]
            return estimate

        return self._evaluate(x, node, ask), *added

    def take(self, rows: Tensor) -> Network:
        """The same network for some samples; the count goes on."""
        part = copy.copy(self)
        part.context = {k: v[rows] for k, v in self.context.items()}
        return part

    def _evaluate(self, x: Tensor, node: Node, ask: Callable[..., Any] | None = None) -> Any:
        # inference tensors do not tell when they are written to; of others the callee may set the flag of gradients
        given = x.clone() if x.is_inference() else x.detach()
        tracked = torch.is_grad_enabled() and x.requires_grad
        if tracked:
            given = x.view_as(x)  # a place for a hook
        version = None if x.is_inference() else x._version
        out: Any
        if self.gives_estimates:
            ask = self.score_fn.estimate if ask is None else ask  # type: ignore[attr-defined]
            out = self._checked_estimate(ask(given, node, **self.context), x, node)
        else:
            out = self._checked(self.score_fn(given, row_times(node.t, x), **self.context), x, node)
        self.calls += 1
        if version is not None and x._version != version:
            raise ScoreFnError(
                f"The score function modified its input in place (call {self.calls}); work on x.clone() inside it."
            )
        if self.copies:
            out = copied(out, network_parts(self.score_fn)) if self.gives_estimates else out.clone()
        self.last = _parts(out) if self.gives_estimates else (out,)
        if tracked:
            _cut(given, self.last)
        return out

    def _checked(self, out: Any, x: Tensor, node: Node) -> Tensor:
        problem = output_problem(out, x)
        if problem is not None:
            raise ScoreFnError(f"The score function {problem} (call {self.calls + 1}, t={_first(node.t):.6g}).")
        if out.dtype == x.dtype:
            return out
        if torch.finfo(out.dtype).bits > torch.finfo(x.dtype).bits and not (self.calls or self.warned):
            self.warned = True
            warn_caller(
                f"The score function returns {out.dtype}, the state is {x.dtype}; scores are cast to the state's dtype."
                f" Pass dtype={out.dtype} to solve in that precision."
            )
        return out.to(x.dtype)

    def _checked_estimate(self, out: Any, x: Tensor, node: Node) -> Estimate:
        if not isinstance(out, tuple) or len(out) != 2:
            raise ScoreFnError(f"`estimate` of the score function must return an Estimate, got {type(out).__name__}.")
        parts = [self._checked(part, x, node) for part in _parts(out)]
        return LearnedEstimate(*parts) if isinstance(out, LearnedEstimate) else Estimate(*parts)


def _cut(x: Tensor, outputs: tuple[Tensor, ...]) -> None:
    """Samples whose output is not finite are not stepped, and send no gradient (0 times infinity) to their input."""
    good = torch.stack([row_finite(out.detach()) for out in outputs]).all(0)
    if not bool(good.all()):
        x.register_hook(lambda slope: where(good, slope, torch.zeros_like(slope)))


def _parts(estimate: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The tensors of an estimate, a learned variance included."""
    return (*estimate, estimate.variance) if isinstance(estimate, LearnedEstimate) else tuple(estimate)


def _first(value: Scalar) -> float:
    return (
        float(value.flatten()[0])
        if isinstance(value, Tensor) and value.numel()
        else float(value)
        if not isinstance(value, Tensor)
        else math.nan
    )
