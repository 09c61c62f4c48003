r"""Single-step exponential methods: a tableau of :math:`\varphi`-functions is all there is to one."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

from torch import Tensor

from ...core.processes import LOG_SNR, Coordinate, Process
from ...core.support.checks import check_choice
from ...core.support.combination import Term, combination, combine, weighted
from ...core.support.tensors import Scalar
from ..base import Asking, EstimateSolver, Node, Step, StepResult
from .exponential import PREDICTIONS, endless, frame, read, transfer
from .phi import phi

Weight = tuple[tuple[int, float, float], ...]  # ((k, w, c), ...) is the sum of w phi_k(c z)

_MOST = 3  # the highest function that a tableau here has


def times(factor: float, weight: Weight) -> Weight:
    """A multiple of a weight."""
    return tuple((k, factor * w, c) for k, w, c in weight)


def minus(weight: Weight) -> Weight:
    """The negative of a weight."""
    return times(-1.0, weight)


class PhiTableau(NamedTuple):
    r"""Stages at fractions c of the step in :math:`\lambda`, and the weights of the earlier estimates.

    .. math:: u_i = K_i x + G_i h \sum_{j<i} a_{ij}(z)\,m_j,\qquad x' = K x + G h\sum_j b_j(z)\,m_j.

    Fields: nodes ``c`` (the first is 0), rows ``a`` (the first is empty) and ``b`` of weights, each a sum of
    :math:`w\varphi_k(cz)`, written ``((k, w, c), ...)``; for pairs also ``b_error``, those of the error estimate.

    Example:
        >>> PhiTableau(c=(0.0,), a=((),), b=(((1, 1.0, 1.0),),)).c  # DDIM
        (0.0,)
    """

    c: tuple[float, ...]
    a: tuple[tuple[Weight, ...], ...]
    b: tuple[Weight, ...]
    b_error: tuple[Weight, ...] | None = None


class ExponentialRungeKutta(EstimateSolver):
    """An explicit exponential Runge-Kutta method of the probability flow. Subclasses give a ``tableau`` and declare
    their order. A step that begins at alpha = 0 or ends at sigma = 0 is one of DDIM."""

    prediction: str

    coordinate: ClassVar[Coordinate] = LOG_SNR

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, PREDICTIONS)

    @property
    @abc.abstractmethod
    def tableau(self) -> PhiTableau:
        """The method's coefficients."""

    @property
    def evaluations(self) -> int:
        """One per stage."""
        return len(self.tableau.c)

    @property
    def stages(self) -> tuple[float, ...]:
        """The fractions of a step inside it."""
        return tuple(sorted({c for c in self.tableau.c if 0 < c < 1}))

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        estimate = yield process.linear_estimate(x, start)
        if endless(start, stop):
            return StepResult(transfer(estimate, start, stop))
        first = estimate.part(self.prediction)
        moved, error = yield from exponential_step(self.tableau, self.prediction, process, x, start, stop, first)
        return StepResult(moved, error=error)


def exponential_step(
    tableau: PhiTableau, prediction: str, process: Process, x: Tensor, start: Node, stop: Node, first: Tensor
) -> Asking[tuple[Term, Tensor | None]]:
    """One step of a tableau, given the estimate at its start; and the error estimate of a pair."""
    whole = frame(prediction, start, stop)
    inner = sorted({c for c in tableau.c if 0 < c < 1})
    nodes = dict(zip(inner, process.nodes.between(start, stop, inner, LOG_SNR), strict=True))
    nodes[1.0] = stop
    phis = _Phis(whole.z)
    ms = [first]
    for row, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
        part = frame(prediction, start, nodes[c])
        stage = combine(part.keep, x, part.gain * whole.h, [phis.sum(weight) for weight in row], ms)
        ms.append((yield read(process, stage, nodes[c], prediction)))
    length = whole.gain * whole.h
    moved = combination(whole.keep, x, length, [phis.sum(weight) for weight in tableau.b], ms)
    if tableau.b_error is None:
        return moved, None
    return moved, weighted([(length * phis.sum(w), m) for w, m in zip(tableau.b_error, ms, strict=True) if w])


class _Phis:
    """The functions of one step, each computed once."""

    def __init__(self, z: Scalar) -> None:
        self.z = z
        self.known: dict[float, list[Scalar]] = {}

    def sum(self, weight: Weight) -> Scalar:
        total: Scalar = 0.0
        for k, w, c in weight:
            if c not in self.known:
                self.known[c] = phi(_MOST, c * self.z)
            total = total + w * self.known[c][k]
        return total
