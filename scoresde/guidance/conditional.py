"""Score functions with their labels bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import check_integer, check_number
from ..core.support.context import has_rows, per_row
from ..scores.wrapper import AffineSDE, Estimate, Node, Score, ScoreFn, Wrapper


class Conditional(Wrapper):
    """See `conditional`."""

    needs_process = False

    def __init__(self, score_fn: ScoreFn, labels: dict[str, object], sde: AffineSDE | None = None) -> None:
        super().__init__((score_fn,), sde)
        if not labels:
            raise InvalidArgumentError("`labels` are missing: write conditional(score_fn, label=3), for example.")
        for name, value in labels.items():
            if name in ("x", "t", "node") or not self.score_fns[0].accepts(name):
                raise InvalidArgumentError(
                    f"`{name}` is not an argument that the score function takes besides x and t."
                )
            if isinstance(value, str | bytes):
                raise InvalidTypeError(f"`{name}` must be a number or a tensor, got {value!r}.")
            if isinstance(value, int) and not isinstance(value, bool):
                check_integer(name, value, low=-(1 << 63), high=(1 << 63) - 1)
            elif isinstance(value, float | np.number):
                check_number(name, float(value))
        self.labels = dict(labels)
        self.traits = replace(self.traits, rowwise=self.rowwise and not has_rows(labels))

    def accepts(self, name: str) -> bool:
        """Like the score function, except for the labels that are bound."""
        return name not in self.labels and super().accepts(name)

    @property
    def context_arguments(self) -> Mapping[str, bool]:
        """See `Score.context_arguments`."""
        return {name: needed for name, needed in super().context_arguments.items() if name not in self.labels}

    @property
    def bound_names(self) -> frozenset[str]:
        """See `Score.bound_names`."""
        return super().bound_names | frozenset(self.labels)

    def unbound(self, context: Mapping[str, object]) -> tuple[Score, dict[str, object]]:
        """See `Score.unbound`."""
        return self.score_fns[0].unbound({**context, **self.labels})

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        bound = per_row(self.labels, x)
        return self.ask(self.score_fns[0], x, node, {**context, **bound})


def conditional(score_fn: ScoreFn, *, sde: AffineSDE | None = None, **labels: object) -> Conditional:
    """A score function with labels, or other context, bound to it.

    Args:
        score_fn: ``score_fn(x, t, **context)``: a `ScoreModel`, or any callable.
        sde: the process, if the score function does not declare it.
        **labels: what to pass to every call, as the ``context`` of a `ScoreModel`: numbers are expanded to ``(batch,)``
            and tensors ``(1, …)`` to the batch; tensors ``(batch, …)`` belong to one batch, and the score function is
            then not ``rowwise``. The ``context`` of a solve cannot change them.

    Raises:
        InvalidArgumentError: the score function has no such argument.

    Example:
        >>> score_fn = lambda x, t, shift: -(x - shift[:, None])
        >>> conditional(score_fn, shift=2.0)(torch.zeros(1, 1), 0.5)
        tensor([[2.]])
    """
    return Conditional(score_fn, labels, sde)
