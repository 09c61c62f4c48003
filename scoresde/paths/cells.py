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

from .._combination import Combination, combine, write
from .._plan import Evaluate, Run, Sum, Symbol, Tape, TapeNetwork
from .._tensors import row_sums, sample_norms
from ..processes import Network
from ..scores.base import Split
from ..sdes import Estimate, Node
from ..sdes.records import LearnedEstimate, LinearEstimate

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Scale:
    """A weight that is known on the way only: a factor times the value of a number."""

    number: int
    factor: float = 1.0

    def of(self, values: Any) -> Tensor:
        """Its value."""
        value: Tensor = values[self.number]
        return value if self.factor == 1.0 else value * self.factor


Weight: TypeAlias = float | Scale


class Value(Symbol):
    """A symbol that takes part in formulas, of which weights are made."""

    __slots__ = ("tape",)

    def __init__(self, index: int, like: Tensor, tape: CellTape) -> None:
        super().__init__(index, like)
        self.tape = tape

    def apply(self, function: Callable[..., Any], values: tuple[Any, ...]) -> Value:
        """See `Recorded.apply`."""
        return self.tape.apply(function, values)

    def __mul__(self, other: Any) -> Value:
        return self if isinstance(other, float) and other == 1.0 else self.apply(torch.mul, (self, other))

    __rmul__ = __mul__

    def __pow__(self, power: float) -> Value:
        return self.apply(torch.pow, (self, power))

    def __bool__(self) -> bool:
        return True

    def __hash__(self) -> int:
        return id(self)


@dataclass(slots=True, eq=False)
class Apply(Sum):
    """Compute a formula.

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

    def run(self, run: Any) -> None:
        """Repeat it."""
        for number, part in zip(self.to, self.parts(run.network, run.values[self.x]), strict=True):
            run.values[number] = part

    def parts(self, network: Network, x: Tensor) -> tuple[Tensor, ...]:
        """What it gives."""
        out: Any = getattr(network, self.method)(x, self.node)
        if self.method == "score":
            return (out,)
        estimate, shift = (out.estimate, (out.shift,)) if self.method == "twisted" else (out, ())
        learned = (estimate.variance,) if isinstance(estimate, LearnedEstimate) else ()
        return (*estimate, *learned, *shift)


class Normal(NamedTuple):
    """The law of a cell given what came before: its mean, and its standard deviation (a number, or one per sample
    ``(batch,)``, or one per element)."""

    mean: Tensor
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
        """The numbers of what its law follows from."""
        scales = [w.number for w in (*(w for w, _ in self.mean), self.std) if isinstance(w, Scale)]
        return [*(i for _, i in self.mean), *(i for i, _ in self.before), *scales]

    @property
    def read(self) -> list[int]:
        """See `Evaluate.read`."""
        return [*self.whole.read, *self.needs]

    def run(self, run: Any) -> None:
        """Make the state, and tell its density."""
        count, values = len(self.mean), run.values
        if type(self.whole) is Sum and [*zip(self.whole.weights, self.whole.read, strict=True)][:count] == self.mean:
            # the draws come last, and the mean is what is there before
            weights, terms = self.whole.weights, [values[i] for i in self.whole.read]
            room, buffer = run.room(), run.room()
            mean = write(weights[:count], terms[:count], room.base)
            values[self.whole.to] = write([1.0, *weights[count:]], [mean, *terms[count:]], buffer.base)
            run.buffers[self.whole.to] = buffer
        else:
            self.whole.run(run)
            room, mean = None, total(self.mean, values, values[self.whole.to])
        state = values[self.whole.to]
        for number, weight in self.before:
            mean = torch.add(mean, values[number], alpha=weight, out=None if room is None else mean)
        off = torch.sub(state, mean, out=None if room is None else mean)
        run.keep(state.detach(), self.step, log_normal(off, self.spread(values)))
        if self.draw is not None:
            values[self.draw], run.buffers[self.draw] = off, room
        elif room is not None:
            run.spare(room)

    def spread(self, values: Any) -> float | Tensor:
        """The standard deviation."""
        return self.std.of(values) if isinstance(self.std, Scale) else self.std

    def law(self, values: Any, state: Tensor) -> Normal:
        """Its law, where it is known what came of it."""
        mean, std = total(self.mean, values, state), self.spread(values)
        for number, weight in self.before:
            mean = mean.add(values[number], alpha=weight)
        values[self.whole.to] = state
        if self.draw is not None:
            values[self.draw] = state - mean
        return Normal(mean, std)


def log_normal(off: Tensor, std: float | Tensor) -> Tensor:
    r""":math:`\ln N(off; 0, std^2 I)` of each sample, ``(batch,)``, summed in float64.

    Args:
        off: ``(batch, *event)``.
        std: a number, or one per sample ``(batch,)``, or one per element.

    Example:
        >>> log_normal(torch.zeros(1, 2), 1.0)
        tensor([-1.8379], dtype=torch.float64)
    """
    size = off[0].numel() if len(off) else 0
    if not isinstance(std, Tensor):
        return -0.5 * (sample_norms(off) / std).square() - size * (math.log(std) + _HALF_LOG_2PI)
    if std.ndim == 1:
        std = std.to(torch.float64)
        return -0.5 * (sample_norms(off) / std).square() - size * (std.log() + _HALF_LOG_2PI)
    spread = row_sums(std.to(torch.float64).log())
    return -0.5 * sample_norms(off / std).square() - spread - size * _HALF_LOG_2PI


def total(terms: Sequence[tuple[Weight, int]], values: Any, like: Tensor) -> Tensor:
    """A sum of values by their numbers, a new tensor; of nothing it is zero."""
    if not terms:
        return torch.zeros_like(like)
    weights = [w.of(values) if isinstance(w, Scale) else w for w, _ in terms]
    added = [values[i] for _, i in terms]
    if any(isinstance(w, Tensor) for w in weights):
        return combine(weights[0], added[0], 1.0, weights[1:], added[1:])
    return Combination(weights, added)._apart()  # type: ignore[arg-type]


class CellNetwork(TapeNetwork):
    """Records evaluations of any score function."""

    def linear(self, x: Any, node: Node[float]) -> LinearEstimate | Estimate:  # type: ignore[override]
        if self.direct is not None and node.t in self.direct.rows and not self.variance:
            return super().linear(x, node)
        return self._estimate(x, node, "estimate")[0]

    def linear_score(self, x: Any, node: Node[float]) -> Any:
        if self.direct is not None and node.t in self.direct.rows and not self.variance:
            return super().linear_score(x, node)
        return Combination([1.0], list(self._call(x, node, "score", 1)))

    def twisted(self, x: Any, node: Node[float]) -> Split:
        return Split(*self._estimate(x, node, "twisted", 1))

    @property
    def variance(self) -> bool:
        """Whether the network gives a variance beside its estimate, in channels of its own."""
        return bool(self.network.traits.variance)

    def estimate(self, x: Any, node: Node[float]) -> Estimate:
        return self._estimate(x, node, "estimate")[0]

    def score(self, x: Any, node: Node[float]) -> Any:
        return self._call(x, node, "score", 1)[0]

    def _estimate(self, x: Any, node: Node[float], method: str, more: int = 0) -> tuple[Any, ...]:
        data, noise, *rest = self._call(x, node, method, 2 + self.variance + more)
        if not self.variance:
            return Estimate(data, noise), *rest
        return LearnedEstimate(data, noise, variance=rest[0]), *rest[1:]

    def _call(self, x: Any, node: Node[float], method: str, count: int) -> list[Any]:
        parts = [self.tape.symbol() for _ in range(count)]
        to = tuple(part.index for part in parts)
        self.tape.instructions.append(Call(x.index, to, node, method=method))
        return parts


class CellTape(Tape):
    """Records steps whose weights may be formulas."""

    def symbol(self) -> Value:
        self.count += 1
        return Value(self.count - 1, self.like, self)

    def network(self, network: Network) -> CellNetwork:
        return CellNetwork(self, network)

    def apply(self, function: Callable[..., Any], values: tuple[Any, ...]) -> Value:
        """A formula."""
        read = [v.index for v in values if isinstance(v, Value)]
        arguments = tuple(None if isinstance(v, Value) else v for v in values)
        result = self.symbol()
        self.instructions.append(Apply([], read, result.index, function=function, arguments=arguments))
        return result

    def sum(self, combination: Combination) -> Any:
        weights: list[Any] = list(combination.weights)
        if not any(isinstance(w, Value) for w in weights):
            return super().sum(combination)
        total = self.symbol()
        values: list[Any] = list(combination.values)
        kept = [(w, v.index) for w, v in zip(weights, values, strict=True) if isinstance(w, Value) or w]
        scales: list[Weight] = [Scale(w.index) if isinstance(w, Value) else w for w, _ in kept]
        read = [*(i for _, i in kept), *(w.index for w, _ in kept if isinstance(w, Value))]
        self.instructions.append(Blend([], read, total.index, scales=scales))
        return total
