"""Runge-Kutta methods: a tableau is all there is to one."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from .._tensors import expand
from ..noise import Noise
from ..processes import Process
from ..sdes import Node
from .base import Solver, StepResult


class Tableau(NamedTuple):
    r"""Butcher's tableau: :math:`k_i = F(x + h\sum_j a_{ij}k_j,\ t + c_i h)`, :math:`x' = x + h\sum_i b_i k_i`.

    Fields: rows ``a`` (the first is empty), nodes ``c``, weights ``b``, and for pairs the weights ``b_error`` of the
    error estimate.

    Example:
        >>> Tableau(a=((), (1.0,)), c=(0.0, 1.0), b=(0.5, 0.5)).b_error is None
        True
    """

    a: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] | None = None


class RungeKutta(Solver):
    """An explicit Runge-Kutta method of the drift, in time. Subclasses give a ``tableau`` and declare their order.

    A pair (``b_error`` given) is adaptive and keeps its last derivative as the first of the next step.
    """

    tableau: ClassVar[Tableau]
    kind: ClassVar[str] = "ode"
    affine: ClassVar[bool] = False
    noise_limit: ClassVar[bool] = True  # the drift of the probability flow has the limit

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """One a stage; a pair that keeps its last derivative saves one."""
        return len(self.tableau.c) - (1 if self.adaptive else 0)

    @property
    def data_limit(self) -> bool:  # type: ignore[override]
        """Only methods that never evaluate at the end of a step can end at sigma = 0."""
        return self.tableau.c[-1] < 1.0

    @property
    def stages(self) -> tuple[float, ...]:  # type: ignore[override]
        """The fractions of a step strictly inside it."""
        return tuple(sorted({c for c in self.tableau.c if 0 < c < 1}))

    def init(self, process: Process, x: Tensor, start: Node) -> Tensor | None:
        """The first derivative, which a pair keeps."""
        return process.drift(x, start) if self.adaptive else None

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """See `Solver.step`."""
        h = stop.t - start.t
        nodes = dict(zip(self.stages, process.between(start, stop, self.stages), strict=True))
        nodes[0.0], nodes[1.0] = start, stop
        ks: list[Tensor] = []
        for row, c in zip(self.tableau.a, self.tableau.c, strict=True):
            if not row:
                ks.append(process.drift(x, start) if state is None else state)
            else:
                ks.append(process.drift(_combine(x, h, row, ks), nodes[c]))
        if not self.adaptive:
            return StepResult(_combine(x, h, self.tableau.b, ks))
        error = _combine(None, h, self.tableau.b_error or (), ks)
        return StepResult(_combine(x, h, self.tableau.b, ks), ks[-1], error)


def _combine(x: Tensor | None, h: Any, weights: tuple[float, ...], ks: list[Tensor]) -> Tensor:
    """x + h sum(w k); without x, the increment alone."""
    terms = [(w, k) for w, k in zip(weights, ks, strict=False) if w]
    total = terms[0][0] * terms[0][1]
    for w, k in terms[1:]:
        total = total.add(k, alpha=w)
    increment = expand(h, total) * total
    return increment if x is None else x + increment
