"""Runge-Kutta methods: a tableau is all there is to one."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ...core.processes import TIME, Coordinate, Process
from ...core.support.combination import Term, combination, combine, tensor_of, weighted
from ...core.support.tensors import expand, times
from ..base import Asking, Node, Solver, Step, StepResult
from .exponential import endless, transfer


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

    @property
    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The weights of all stages but the first, and of the step."""
        return (*self.a[1:], self.b)


class RungeKutta(Solver):
    """An explicit Runge-Kutta method on the clock of a coordinate, time by default.

    Subclasses give a ``tableau`` and declare their order. A pair (``b_error`` given) is adaptive and keeps its last
    derivative as the first of the next step. A step that begins where alpha = 0 or ends where sigma = 0 is one of DDIM
    on any clock but time.
    """

    coordinate: ClassVar[Coordinate] = TIME
    noise_limit: ClassVar[bool] = True  # the drift of the probability flow has the limit

    @property
    @abc.abstractmethod
    def tableau(self) -> Tableau:
        """The method's coefficients."""

    @property
    def affine(self) -> bool:
        """True on any clock but time."""
        return self.coordinate is not TIME

    @property
    def keeps_estimates(self) -> bool:
        """True where slopes are estimates, and more than the last one is added up."""
        kept = self.adaptive or any(any(row[:-1]) for row in self.tableau.rows)
        return self.coordinate.is_estimate and kept

    @property
    def evaluations(self) -> int:
        """One per stage; a pair that keeps its last derivative saves one."""
        return len(self.tableau.c) - (1 if self.adaptive else 0)

    @property
    def extra_evaluations(self) -> int:
        """A pair's first derivative."""
        return int(self.adaptive)

    @property
    def limit_evaluations(self) -> int:
        """On any clock but time such a step is DDIM's."""
        return self.evaluations if self.coordinate is TIME else 1

    @property
    def data_limit(self) -> bool:
        """In time only methods that never evaluate at the end of a step can end at sigma = 0."""
        return self.coordinate is not TIME or self.tableau.c[-1] < 1.0

    @property
    def stages(self) -> tuple[float, ...]:
        """The fractions of a step strictly inside it."""
        return tuple(sorted({c for c in self.tableau.c if 0 < c < 1}))

    def init(self, process: Process, x: Tensor, start: Node) -> Asking[Tensor | None]:
        """The first derivative, which a pair keeps."""
        return (yield process.slope(self.coordinate, x, start)) if self.adaptive else None

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Tensor | None) -> Step:
        """See `Solver.step`."""
        if self.coordinate is not TIME and endless(start, stop):
            return StepResult(transfer((yield process.linear_estimate(x, start)), start, stop))
        first = (yield process.linear_slope(self.coordinate, x, start)) if state is None else state
        moved, ks = yield from runge_kutta_step(self.tableau, self.coordinate, process, x, start, stop, first)
        if self.tableau.b_error is None:
            return StepResult(moved)
        h = self.coordinate.clock(stop) - self.coordinate.clock(start)
        return StepResult(moved, ks[-1], self.error(ks) * expand(self.coordinate.scale(stop) * h, x))

    def error(self, ks: Sequence[Tensor]) -> Tensor:
        """The error estimate of a pair, for a step of length 1."""
        weights: Any = self.tableau.b_error
        return weighted([(w, k) for w, k in zip(weights, ks, strict=True) if w])


def runge_kutta_step(
    tableau: Tableau, coordinate: Coordinate, process: Process, x: Tensor, start: Node, stop: Node, first: Term
) -> Asking[tuple[Term, list[Any]]]:
    """A step and the derivatives at all stages, given the first of them. A derivative that is only in the sum that
    follows is not computed as a tensor."""
    scale, h = coordinate.scale(start), coordinate.clock(stop) - coordinate.clock(start)
    inner = sorted({c for c in tableau.c if 0 < c < 1})
    nodes = dict(zip(inner, process.nodes.between(start, stop, inner, coordinate), strict=True))
    nodes[1.0] = stop
    alone = [
        tableau.b_error is None and not any(row[j] for row in tableau.rows[j + 1 :]) for j in range(len(tableau.c))
    ]
    ks: list[Any] = [first if alone[0] else tensor_of(first)]
    moved: Term = x
    sums: Iterator[Any] = ((row, ks) for row in tableau.rows)
    if isinstance(h, Tensor) and h.ndim:
        ks[0], alone = tensor_of(first), [False] * len(tableau.c)
        h, sums = expand(h, x) if isinstance(scale, float) else h, _sums(tableau, ks)
    for c, lone, (weights, values) in zip(tableau.c[1:], alone[1:], sums, strict=False):
        moved = x  # the last stage is let go
        here = coordinate.scale(nodes[c])
        moved = combine(here / scale, x, times(here, h), weights, values)
        given = moved.view_as(moved) if nodes[c] is stop else moved  # what a network is given it may mark
        slope = yield process.linear_slope(coordinate, given, nodes[c])
        ks.append(slope if lone else tensor_of(slope))
    if tableau.b[:-1] != tableau.a[-1] or tableau.b[-1]:  # else the last stage is where the step ends
        end = coordinate.scale(stop)
        moved = combination(end / scale, x, times(end, h), *next(sums))
    return moved, ks


def _sums(tableau: Tableau, ks: list[Tensor]) -> Iterator[tuple[tuple[float], tuple[Tensor]]]:
    """For every row of a tableau what is to be summed of the derivatives, to which the caller adds. A derivative is
    added to all rows at once when it is known: one operation per stage, where steps have no time to lose."""
    columns = _columns(tableau, ks[0].dtype, ks[0].device, ks[0].ndim)
    add = torch.addcmul if torch.is_grad_enabled() else Tensor.addcmul_
    sums = columns[0] * ks[0]
    for column in columns[1:]:
        yield (1.0,), (sums[0],)
        sums = add(sums[1:], column, ks[-1])
    yield (1.0,), (sums[0],)


@functools.cache
def _columns(tableau: Tableau, dtype: torch.dtype, device: torch.device, rank: int) -> list[Tensor]:
    """The columns of a tableau, from where they begin, to multiply with derivatives."""
    count = len(tableau.c)
    with torch.inference_mode(False):  # whose tensors a later gradient could not keep
        matrix = torch.tensor([[*row, *(0.0,) * (count - len(row))] for row in tableau.rows], dtype=torch.float64)
        return [matrix[j:, j].to(device, dtype).reshape(-1, *(1,) * rank) for j in range(count)]
