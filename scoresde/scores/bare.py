"""A user's callable as a `Score`: the only place that inspects what such a callable is and declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, short
from ..core.sdes import SDE, AffineSDE, Estimate, Node
from ..core.sdes.records import PARTS, SCORE, LinearEstimate
from ..core.support.checks import check_kind, check_output, check_score_fn
from ..core.support.context import check_values
from ..core.support.signatures import accepts, extras, parameters
from ..core.support.tensors import row_times
from .base import Direct, Score, Split, Traits, changed, device_of, dtype_of, estimate_of, time_rows

ScoreFn = Callable[..., Tensor]


class Bare(Score):
    """A callable ``score_fn(x, t, **context)`` of which only the score is known.

    What it declares by attributes of the names ``sde``, ``event_shape``, ``rowwise``, ``has_noise_limit`` and
    ``data_std`` (passed over unless it is a positive number) is read once; a method ``accepts(name)`` answers for the
    context, which is otherwise read from the signature.

    Example:
        >>> Bare(lambda x, t: -x).score(torch.ones(1, 2), scoresde.VPSDE().node(0.5))
        tensor([[-1., -1.]])
    """

    only_scores = True
    takes_host_nodes = True

    def __init__(self, function: ScoreFn) -> None:
        self.function = function
        self.traits = traits_of(function)

    @property
    def bound_names(self) -> frozenset[str]:
        of_partial = isinstance(self.function, partial)
        context = getattr(self.function, "keywords" if of_partial else "context", None)
        return frozenset(context) if isinstance(context, Mapping) else frozenset()

    @property
    def network_device(self) -> torch.device | None:
        """See `Score.network_device`."""
        return device_of(self.function)

    @property
    def network_dtype(self) -> torch.dtype | None:
        """See `Score.network_dtype`."""
        return dtype_of(self.function)

    def accepts(self, name: str) -> bool:
        return accepts(self.function, name)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        return extras(self.function)

    def same_network(self, other: Score) -> bool:
        return isinstance(other, Bare) and self.function is other.function and self.rowwise

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        return self.function(x, row_times(node.t, x), **context)

    def direct(self, like: Tensor, nodes: Sequence[Node[float]], context: Mapping[str, object]) -> Direct | None:
        """See `Score.direct`."""
        learned = any(isinstance(v, Tensor) for node in nodes[:1] for v in node)
        if learned or changed(self, Bare):
            return None
        times = torch.tensor([node.t for node in nodes], dtype=torch.float64).to(like.dtype)

        def output(x: Tensor, node: Node[float], time: Tensor) -> Tensor:
            return self.function(x, time, **context)

        def read(x: Tensor, out: Tensor, node: Node[float]) -> LinearEstimate:
            return LinearEstimate(x, out, SCORE, node)

        rows = time_rows(nodes, times, like)
        return Direct(output, read, rows, context, "The score function", checked=False)

    @property
    def kind(self) -> Hashable | None:
        """See `Score.kind`."""
        return None if changed(self, Bare) else SCORE

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        return estimate_of(check_output("The score function", self.score(x, node, **context), x), x, node)


class Offered(Bare):
    """A callable that has the method ``estimate(x, node, **context)``; it may declare ``has_variance`` too, and
    ``has_shift`` and ``has_twist`` together with a method `twisted`."""

    only_scores = False
    takes_host_nodes = False

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        return dict.fromkeys(super().context_arguments, False)

    def direct(self, like: Tensor, nodes: Sequence[Node[float]], context: Mapping[str, object]) -> None:
        return None

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        out: Estimate = self.function.estimate(x, node, **context)  # type: ignore[attr-defined]
        return out

    def score(self, x: Tensor, node: Node, **context: object) -> Tensor:
        return Score.score(self, x, node, **context)

    def twisted(self, x: Tensor, node: Node, **context: object) -> Split:
        if not self.traits.shift:
            return super().twisted(x, node, **context)
        return Split(*self.function.twisted(x, node, **context))  # type: ignore[attr-defined]


def of_process(score_fn: Any, sde: SDE | None) -> Any:
    """The score function, on a process, of what has one for each process, as a loaded network does by its method
    ``for_process(sde)``; everything else as it is.

    Example:
        >>> sde = scoresde.FlowSDE()
        >>> of_process(scoresde.load("digits"), sde).traits.sde is sde
        True
    """
    has_one = sde is not None and not callable(score_fn) and hasattr(score_fn, "for_process")
    return score_fn.for_process(sde) if has_one else score_fn


def as_score(score_fn: ScoreFn, sde: SDE | None = None) -> Score:
    """A score function as a `Score`; one that is a `Score` is returned as it is.

    Args:
        score_fn: a score function; with a process also what `of_process` takes.
        sde: the process that it is for; a `ScoreModel` of another one is evaluated by `ScoreModel.on`.

    Raises:
        InvalidTypeError: it is not callable.
        InvalidArgumentError: it was made for another process.

    Example:
        >>> as_score(lambda x, t: -x).traits.rowwise
        False
    """
    score_fn = of_process(score_fn, sde)
    if isinstance(score_fn, Score):
        return score_fn if sde is None else score_fn.for_process(sde)
    check_score_fn(score_fn)
    return Offered(score_fn) if offers_estimates(score_fn) else Bare(score_fn)


def check_context(context: Mapping[str, object] | None, score_fn: Score, batch: int) -> dict[str, Any]:
    """Return what a score function gets besides x and t, or say what is wrong with it.

    Example:
        >>> check_context(
        ...     {"label": torch.ones(3)}, as_score(lambda x, t, label: -x), batch=3
        ... )
        {'label': tensor([1., 1., 1.])}
    """
    check_kind("context", context, (Mapping, type(None)), "a mapping from names to tensors")
    given = dict(context or {})
    for name in given:
        if not isinstance(name, str):
            raise InvalidTypeError(f"`context` must have strings as names, got {short(name)}.")
        if name in ("x", "t", "node") or not score_fn.accepts(name):
            known = ", ".join(repr(n) for n in sorted(score_fn.context_arguments) if score_fn.accepts(n))
            raise InvalidArgumentError(
                "`context` must have names that the score function takes besides x and t, got "
                f"{name!r}{f'; it takes {known}' if known else ''}."
            )
    check_values(given, batch)
    return given


def check_complete(context: Mapping[str, object] | None, score_fn: Score) -> None:
    """Refuse a context in which something is missing that the score function needs.

    Example:
        >>> check_complete({"label": 3}, as_score(lambda x, t, label: -x))
    """
    needed = [n for n, needs in score_fn.context_arguments.items() if needs and score_fn.accepts(n)]
    if missing := [name for name in needed if name not in (context or {})]:
        raise InvalidArgumentError(
            f"`context` lacks {' and '.join(map(repr, missing))}, which the score function takes besides x and t. Pass "
            f"context={{{missing[0]!r}: tensor}}, with one entry per sample or one for all."
        )


def offers_estimates(score_fn: object) -> bool:
    """Whether an object has the method ``estimate(x, node, **context)``; another one of that name is its own.

    Example:
        >>> offers_estimates(lambda x, t: -x)
        False
    """
    method = getattr(score_fn, "estimate", None)
    return callable(method) and "node" in (parameters(method) or {})


def _positive(value: object) -> float | None:
    """A positive number, of Python, NumPy or torch; None for anything else."""
    single = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
    number = float(value) if single and not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    return number if 0.0 < number < math.inf else None


def traits_of(function: object) -> Traits:
    """The traits of a `Score`, or those that another object declares by its attributes.

    Example:
        >>> traits_of(lambda x, t: -x).rowwise
        False
    """
    if isinstance(function, Score):
        return function.traits
    sde, shape = getattr(function, "sde", None), getattr(function, "event_shape", None)
    estimates = offers_estimates(function)
    shift = estimates and bool(getattr(function, "has_shift", False))
    std = _positive(getattr(function, "data_std", None))
    return Traits(
        sde=sde if isinstance(sde, AffineSDE) else None,
        event_shape=None if shape is None else tuple(shape),
        rowwise=bool(getattr(function, "rowwise", False)),
        noise_limit=bool(getattr(function, "has_noise_limit", False)),
        variance=estimates and bool(getattr(function, "has_variance", False)),
        network_parts=tuple(getattr(function, "network_parts", PARTS)),
        shift=shift,
        twist=bool(getattr(function, "has_twist", not shift)),
        data_std=std,
    )
