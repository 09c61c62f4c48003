"""The pilot of a fit: its states, what counts as its exact ends, and the calls that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from .._checks import MOST_STEPS, check_device, check_dtype, check_finite_rows, check_integer, check_state, check_tensor
from ..errors import InvalidArgumentError
from ..grids import resolve
from ..scores import Score, Split
from ..sdes import AffineSDE, Estimate, Node
from ..solvers import UniPC
from ..solving import solve
from .records import Cost


def pilot_states(
    sde: AffineSDE,
    x: Tensor | None,
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """The pilot's states: those given, checked and moved, or draws of the prior."""
    if x is None:
        generator = torch.Generator(check_device(device)).manual_seed(seed)
        return sde.prior_sample(shape, generator=generator, dtype=dtype, device=device)
    check_state("x", x)
    if dtype is not None:
        check_dtype("dtype", dtype)
    check_finite_rows("`x`", x)
    return x.to(device=check_device(device, x.device), dtype=dtype)


def reference_ends(
    sde: AffineSDE,
    watched: Any,
    x: Tensor,
    ends: tuple[float, float],
    reference: int | Tensor,
    context: Mapping[str, Any],
) -> Tensor:
    """The end states that count as exact: those given, or those of so many steps of `UniPC3` on the default grid."""
    if isinstance(reference, Tensor):
        check_tensor("reference", reference)
        if reference.shape != x.shape:
            raise InvalidArgumentError(
                f"`reference` must have the shape of the pilot, {tuple(x.shape)}, got {tuple(reference.shape)}."
            )
        return reference.to(x)
    times = resolve(None, sde, *ends, check_integer("reference", reference, low=1, high=MOST_STEPS))
    return solve(sde, watched, x, method=UniPC(order=3), grid=times, context=context).x


class Watched(Score):
    """A score function whose calls are counted, and repeated in a backward pass instead of kept."""

    def __init__(self, score_fn: Score, checkpoint: bool) -> None:
        self.score_fn, self.checkpoint = score_fn, checkpoint
        self.traits = score_fn.traits
        self.calls = self.gradients = self.rows = 0

    @property
    def only_scores(self) -> bool:
        return self.score_fn.only_scores

    def accepts(self, name: str) -> bool:
        return self.score_fn.accepts(name)

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        return self._run(self.score_fn.score, x, node, context)

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        return self._run(self.score_fn.estimate, x, node, context)

    def twisted(self, x: Tensor, node: Node, **context: object) -> Split:
        self.calls += 1
        self.rows += len(x)
        return self.score_fn.twisted(x, node, **context)

    def cost(self, pilot: int) -> Cost:
        """The cost so far."""
        return Cost(self.calls, self.gradients, self.rows / pilot)

    def _run(self, function: Callable[..., Any], x: Tensor, node: Node, context: Mapping[str, object]) -> Any:
        def call(x: Tensor, node: Node) -> Any:
            self.calls += 1
            self.rows += len(x)
            return function(x, node, **context)

        if not torch.is_grad_enabled() or not any(isinstance(v, Tensor) and v.requires_grad for v in (x, *node)):
            return call(x, node)
        out = recompute(call, x, node, use_reentrant=False) if self.checkpoint else call(x, node)
        if any(v.requires_grad for v in (out if isinstance(out, tuple) else (out,))):
            self.gradients += 1
            self.rows += 2 * len(x)
        elif x.requires_grad:
            raise InvalidArgumentError(
                "The score function has no gradient (torch.no_grad or .detach() inside?); pass gradient=False."
            )
        return out


def squares(end: Tensor, exact: Tensor) -> Tensor:
    """Mean squares over dimensions, per sample."""
    return (end.to(torch.float64) - exact.to(torch.float64)).flatten(1).square().mean(1)
