"""Score functions with their labels bound."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .._signatures import accepts
from .._tensors import check_integer, check_number
from .._wrappers import ScoreFn, Wrapper
from ..errors import InvalidArgumentError, InvalidTypeError
from ..models import per_row
from ..sdes import AffineSDE, Estimate, Node


class Conditional(Wrapper):
    """See `conditional`."""

    needs_process = False

    def __init__(self, score_fn: ScoreFn, labels: dict[str, Any], sde: AffineSDE | None = None) -> None:
        super().__init__((score_fn,), sde)
        if not labels:
            raise InvalidArgumentError("`labels` are missing: write conditional(score_fn, label=3), for example.")
        for name, value in labels.items():
            if name in ("x", "t", "node") or not accepts(score_fn, name):
                raise InvalidArgumentError(f"`{name}` is no context that the score function takes besides x and t.")
            if isinstance(value, str | bytes):
                raise InvalidTypeError(f"`{name}` must be a number or a tensor, got {value!r}.")
            if isinstance(value, int) and not isinstance(value, bool):
                check_integer(name, value, low=-(1 << 63), high=(1 << 63) - 1)
            elif isinstance(value, float | np.number):
                check_number(name, float(value))
        self.labels = dict(labels)
        self.rowwise = self.rowwise and not any(isinstance(v, Tensor) and v.ndim for v in labels.values())

    def accepts(self, name: str) -> bool:
        """As the score function, but for the labels that are bound."""
        return name not in self.labels and super().accepts(name)

    def _estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
        bound = {k: per_row(v, x) for k, v in self.labels.items()}
        for name, value in bound.items():
            if isinstance(value, Tensor) and len(value) != len(x):
                raise InvalidArgumentError(
                    f"`{name}` is bound to {len(value)} values, one a sample, but the batch has {len(x)} samples; "
                    f"labels that belong to a solve are its `context`."
                )
        return self.ask(self.score_fns[0], x, node, {**context, **bound})


def conditional(score_fn: ScoreFn, *, sde: AffineSDE | None = None, **labels: Any) -> Conditional:
    """A score function with labels, or other context, bound to it.

    Args:
        score_fn: ``score_fn(x, t, **context)``: a `ScoreModel`, or any callable.
        sde: the process, if the score function does not know it.
        **labels: what to pass to every call: numbers are expanded to ``(batch,)``; tensors ``(batch, …)`` belong to one
            batch, and the score function is then not ``rowwise``. The ``context`` of a solve cannot change them.

    Raises:
        InvalidArgumentError: the score function has no such argument.

    Example:
        >>> score_fn = lambda x, t, shift: -(x - shift[:, None])
        >>> conditional(score_fn, shift=2.0)(torch.zeros(1, 1), 0.5)
        tensor([[2.]])
    """
    return Conditional(score_fn, labels, sde)
