r"""The Gaussian cells of a solve, read off its plan.

A step draws :math:`z_1, \ldots, z_m \sim N(0, I)`, and is linear in them. The states that it computes with them, those
inside it at which the network is evaluated and the one at its end, are therefore :math:`V_i = \mu_i + \sum_k W_{ik}
z_k` with numbers W, where :math:`\mu_i` follows from what came before, earlier V of the step included. With the
factors :math:`W = LQ` of a lower triangle and orthonormal rows,

.. math:: V_i \mid V_{<i} \sim N\Big(\mu_i + \sum_{j<i} L_{ij}\tilde z_j,\ L_{ii}^2 I\Big), \qquad
    \tilde z_i = \frac{V_i - \mu_i - \sum_{j<i} L_{ij}\tilde z_j}{L_{ii}}.

Each such state is a *cell*, and a path is the list of its cells: no method needs a formula of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...scores.base import Split
from ..processes import Evaluation, Network
from ..sdes import Estimate
from ..sdes.records import LearnedEstimate
from ..support.combination import Combination, combine
from ..support.tensors import row_sums, sample_norms, transforming
from .plan import Evaluate, NotLinear, Run, Sum, Symbol, Tape, numbers_of

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class LateWeight:
    """A weight that is known on the way only: a factor times the value of a number."""

    number: int
    factor: float = 1.0

    def of(self, values: Any) -> Tensor:
        """Its value."""
        value: Tensor = values[self.number]
        return value if self.factor == 1.0 else value * self.factor


Weight: TypeAlias = float | LateWeight


class Value(Symbol):
    """A symbol that takes part in sums, and in formulas, of which weights are made."""

    __slots__ = ()
    tape: CellTape

    def apply(self, function: Callable[..., Any], values: tuple[Any, ...]) -> Value:
        """See `Recorded.apply`."""
        return self.tape.apply(function, values)

    def __mul__(self, other: Any) -> Value:
        if isinstance(other, Value):
            return self.apply(torch.mul, (self, other))
        return self if isinstance(other, float) and other == 1.0 else self._linear(torch.mul, (self, other), [other])

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Value:
        if not isinstance(other, float | int):
            raise NotLinear
        return self._linear(torch.div, (self, other), [1 / other])

    def __add__(self, other: Any) -> Value:
        return self._linear(torch.add, (self, other), [1.0, 1.0])

    def __sub__(self, other: Any) -> Value:
        return self._linear(torch.sub, (self, other), [1.0, -1.0])

    def __neg__(self) -> Value:
        return self._linear(torch.neg, (self,), [-1.0])

    def __pow__(self, power: float) -> Value:
        return self.apply(torch.pow, (self, power))

    def __bool__(self) -> bool:
        return True  # as a weight, which is not 0

    def __eq__(self, other: object) -> bool:
        raise NotLinear

    def __hash__(self) -> int:
        return id(self)

    def _linear(self, function: Callable[..., Any], values: tuple[Any, ...], weights: Sequence[Any]) -> Value:
        read = [v for v in values if isinstance(v, Value)]
        if len(read) < len(weights) or not all(isinstance(w, float | int) for w in weights):
            raise NotLinear
        return self.tape.apply(function, values, [float(w) for w in weights])


@dataclass(slots=True, eq=False)
class Apply(Sum):
    """Compute a formula; one with weights is a sum.

    Attributes:
        function: of tensors and numbers.
        arguments: numbers, and None in the places of what it reads.
    """

    function: Callable[..., Tensor] = torch.mul
    arguments: tuple[float | None, ...] = ()

    def run(self, run: Run) -> None:
        """Repeat it."""
        run.values[self.to] = self.value(run.values)

    def value(self, values: Any) -> Tensor:
        """What it gives."""
        read = iter(self.read)
        return self.function(*(values[next(read)] if v is None else v for v in self.arguments))


@dataclass(slots=True, eq=False)
class Blend(Sum):
    """A sum with weights that are known on the way only, the last of what it reads; None stands in their places."""

    scales: list[Weight] = field(default_factory=list)

    def run(self, run: Run) -> None:
        """Repeat it."""
        run.values[self.to] = total(self.terms, run.values, run.values[self.read[0]])

    @property
    def terms(self) -> list[tuple[Weight, int]]:
        """Weights, and the numbers of values."""
        return list(zip(self.scales, self.read, strict=False))


@dataclass(slots=True, eq=False)
class Call(Evaluate):
    """Evaluate a score function by a method of `Network`, where it is not prepared.

    Attributes:
        method: its name.
    """

    to: tuple[int, ...]  # type: ignore[assignment]
    method: str = "estimate"

    def evaluate(self, values: Any, network: Network) -> None:
        answer = getattr(network, self.method)(values[self.x], self.node)
        estimate, shift = (answer.estimate, answer.shift) if isinstance(answer, Split) else (answer, None)
        parts = [*estimate] if isinstance(estimate, tuple) else [estimate]
        parts += [estimate.variance] if isinstance(estimate, LearnedEstimate) else []
        if isinstance(answer, Split):  # where nothing guides there is no shift
            parts.append(torch.zeros_like(values[self.x]) if shift is None else shift)
        for number, part in zip(self.to, parts, strict=True):
            values[number] = part


class Normal(NamedTuple):
    """The distribution of a state given what came before: how far the state is from the mean, float64, and the standard
    deviation: a number, or one per sample ``(batch,)``, or one per element."""

    off: Tensor
    std: float | Tensor


@dataclass(slots=True, eq=False)
class Cell:
    r"""A state that is Gaussian given what came before, :math:`V_i = \mu_i + \sum_{j<i} L_{ij}\tilde z_j + L_{ii}\tilde
    z_i`.

    Attributes:
        whole: V itself, as the solver computes it.
        mean: the terms of :math:`\mu`: weights and the numbers of values.
        before: the numbers of :math:`L_{jj}\tilde z_j`, and :math:`L_{ij}/L_{jj}`.
        std: :math:`L_{ii}`.
        place: its number among all cells.
        step: the step that it belongs to.
        t: its time.
        draw: the number of its own :math:`L_{ii}\tilde z_i`, if a later one needs it.
        dead: see `Evaluate`.
    """

    whole: Sum
    mean: list[tuple[Weight, int]]
    before: list[tuple[int, float]]
    std: Weight
    place: int
    step: int
    t: float
    draw: int | None = None
    dead: list[int] = field(default_factory=list)

    @property
    def to(self) -> tuple[int, ...]:
        """The numbers of the state and of its draw."""
        return (self.whole.to,) if self.draw is None else (self.whole.to, self.draw)

    @property
    def needs(self) -> list[int]:
        """The numbers of the values from which its distribution follows."""
        scales = [w.number for w in (*(w for w, _ in self.mean), self.std) if isinstance(w, LateWeight)]
        return [*(i for _, i in self.mean), *(i for i, _ in self.before), *scales]

    @property
    def read(self) -> list[int]:
        """See `Evaluate.read`."""
        return [*self.whole.read, *self.needs]

    def run(self, run: Any) -> None:
        """Make the state, and add its log-density."""
        self.whole.run(run)
        state = run.values[self.whole.to]
        law = self.law(run.values, state)
        run.keep(state.detach(), self.step, log_normal(*law))

    def law(self, values: Any, state: Tensor) -> Normal:
        """Its distribution at the state that was drawn. All is in float64: where there is little noise, the state and
        its mean are nearly equal, and their difference would be mostly rounding."""
        terms = [(w.of(values) if isinstance(w, LateWeight) else w, values[i]) for w, i in self.mean]
        terms += [(share, values[i]) for i, share in self.before]
        off = _less(state, terms)
        if self.draw is not None:
            values[self.draw] = off
        return Normal(off, self.std.of(values).to(torch.float64) if isinstance(self.std, LateWeight) else self.std)


def _less(state: Tensor, terms: Sequence[tuple[float | Tensor, Tensor]]) -> Tensor:
    r""":math:`V - \sum_j w_j v_j`, a new float64 tensor, in one pass for each term. The first weight is a tensor, so
    that the sum is made in float64 without a copy of V.

    Example:
        >>> ones = torch.ones(1, 2)
        >>> _less(3 * ones, [(0.5, ones), (torch.ones(1), ones)])
        tensor([[1.5000, 1.5000]], dtype=torch.float64)
    """
    if not terms:
        return state.to(torch.float64, copy=True)
    apart, off = torch.is_grad_enabled() or transforming(), state
    for weight, value in terms:
        if off is state or isinstance(weight, Tensor):
            off = torch.addcmul(off, value, -_wide(weight, state))
        else:
            off = off.sub(value, alpha=weight) if apart else off.sub_(value, alpha=weight)
    return off


def _wide(weight: float | Tensor, like: Tensor) -> Tensor:
    """A weight as a float64 tensor that broadcasts against a state."""
    if not isinstance(weight, Tensor):
        return torch.full((1,), weight, dtype=torch.float64, device=like.device)
    return weight.to(torch.float64).reshape(weight.shape + (1,) * (like.ndim - weight.ndim))


def log_normal(off: Tensor, std: float | Tensor) -> Tensor:
    r""":math:`\ln N(off; 0, std^2 I)` of each sample, ``(batch,)``, summed in float64.

    Args:
        off: ``(batch, *event)``.
        std: a number, or one per sample ``(batch,)``, or one per element.

    Example:
        >>> log_normal(torch.zeros(1, 2), 1.0)
        tensor([-1.8379], dtype=torch.float64)
    """
    size = math.prod(off.shape[1:])
    if not isinstance(std, Tensor):
        return -0.5 * (sample_norms(off) / std).square() - size * (math.log(std) + _HALF_LOG_2PI)
    std = std.abs()
    if std.ndim == 1:
        return -0.5 * (sample_norms(off) / std).square() - size * (std.log() + _HALF_LOG_2PI)
    return -0.5 * sample_norms(off / std).square() - row_sums(std.log()) - size * _HALF_LOG_2PI


def total(terms: Sequence[tuple[Weight, int]], values: Any, like: Tensor) -> Tensor:
    """A sum of values by their numbers, a new tensor; of nothing it is zero."""
    if not terms:
        return torch.zeros_like(like)
    weights = [w.of(values) if isinstance(w, LateWeight) else w for w, _ in terms]
    added = [values[i] for _, i in terms]
    if any(isinstance(w, Tensor) for w in weights):
        return combine(weights[0], added[0], 1.0, weights[1:], added[1:])
    return Combination(weights, added).tensor()  # type: ignore[arg-type]


class CellTape(Tape):
    """Records steps whose weights may be formulas."""

    def symbol(self) -> Value:
        self.count += 1
        return Value(self.count - 1, self)

    def evaluated(self, request: Evaluation) -> Any:
        """See `Tape.evaluated`; here of any score function."""
        network, form = self.process.network, request.form
        learned = bool(network.traits.variance)  # in channels of its own
        prepared = network.prepared is not None and request.node.t in network.prepared.rows and not learned
        if prepared and form in ("linear", "linear_score"):
            return super().evaluated(request)
        form = {"linear": "estimate", "linear_score": "score"}.get(form, form)
        parts = [self.symbol() for _ in range(1 if form == "score" else 2 + learned + (form == "twisted"))]
        x: Any = request.x
        self.instructions.append(Call(x.index, tuple(part.index for part in parts), request.node, method=form))
        if form == "score":
            return parts[0] if request.form == "score" else Combination([1.0], [parts[0]])  # type: ignore[list-item]
        data, noise, *rest = parts
        estimate: Any = LearnedEstimate(data, noise, variance=rest[0]) if learned else Estimate(data, noise)  # type: ignore[arg-type]
        return Split(estimate, rest[-1]) if form == "twisted" else estimate  # type: ignore[arg-type]

    def apply(self, function: Callable[..., Any], values: tuple[Any, ...], weights: Sequence[float] = ()) -> Value:
        """A formula, which is a sum if it has weights."""
        read = [v.index for v in values if isinstance(v, Value)]
        arguments = tuple(None if isinstance(v, Value) else v for v in values)
        result = self.symbol()
        self.instructions.append(Apply(list(weights), read, result.index, function=function, arguments=arguments))
        return result

    def sum(self, combination: Combination) -> Any:
        weights: list[Any] = list(combination.weights)
        if not any(isinstance(w, Value) for w in weights):
            return super().sum(combination)
        total = self.symbol()
        numbers = numbers_of(combination.values)
        kept = [(w, i) for w, i in zip(weights, numbers, strict=True) if isinstance(w, Value) or w]
        scales: list[Weight] = [LateWeight(w.index) if isinstance(w, Value) else w for w, _ in kept]
        read = [*(i for _, i in kept), *(w.index for w, _ in kept if isinstance(w, Value))]
        self.instructions.append(Blend([], read, total.index, scales=scales))
        return total
