"""From the recorded instructions of a solve to its cells, and a solve that returns their densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ...solvers import Solver
from ...solvers.base import THROUGH_NETWORK
from ..errors import InvalidArgumentError
from ..noise import Noise
from ..processes import Asking, Process
from ..sdes import SDE, Node
from .cells import Apply, Blend, Cell, CellTape, LateWeight, Weight
from .plan import DrawNoise, Evaluate, Instruction, NotLinear, Plan, Run, Sum, bury, evaluated_in

_ROUNDING = 1e-9  # relative: what is left of a draw that rounding alone leaves
_SIZE = "the size of a move depends on its draw"
_KEPT = "a step uses draws of an earlier step, which is not supported"
_OTHER = (
    "what it does with tensors cannot be recorded; take sums of tensors times numbers, or functions of "
    "scoresde.solvers, and no others"
)
Latent = tuple[int, int]  # an independent draw: the number of the first tensor of its instruction, and which
Form = dict[Latent, Weight]  # the weights of draws in a value


class NothingDrawn(InvalidArgumentError):
    """A solve, or a step, draws no noise."""


class NotGaussian(Exception):
    """The steps of a method have no Gaussian density; the text is the reason."""


@dataclass(frozen=True)
class TracedPlan(Plan):
    """A plan whose random states are cells.

    Attributes:
        cells: all of them, in order.
        means: the instructions of each step from which the distributions of its cells follow, without draws.
        keep: whether a solve keeps the states of the cells.
    """

    cells: list[Cell] = field(default_factory=list)
    means: list[list[Instruction]] = field(default_factory=list)

    def run(self, noise: Noise, x: Tensor) -> TracedRun:
        """See `Plan.run`."""
        return TracedRun(self, noise, x)

    keep: bool = True

    @property
    def noisy(self) -> list[bool]:
        """Which steps have a density."""
        drawn = {cell.step for cell in self.cells}
        return [step in drawn for step in range(len(self.steps))]


class TracedRun(Run):
    """A solve by such a plan.

    Attributes:
        begin: the state at its start.
        reached: how many steps it has made.
        states: of the cells so far.
        densities: of each step, ``(batch,)``; those of its cells are added.
    """

    plan: TracedPlan

    def __init__(self, plan: TracedPlan, noise: Noise, x: Tensor) -> None:
        super().__init__(plan, noise, x)
        self.begin = x
        self.reached = 0
        self.states: list[Tensor] = []
        self.densities: dict[int, Tensor] = {}

    def step(self, index: int) -> Asking[Tensor]:
        """See `Run.step`."""
        state = yield from super().step(index)
        self.reached = index + 1
        return state

    def keep(self, state: Tensor, step: int, density: Tensor) -> None:
        """Keep a state and add its density to that of its step."""
        if self.plan.keep:
            self.states.append(state)
        known = self.densities.get(step)
        self.densities[step] = density if known is None else known + density


def traced(process: Process, solver: Solver, times: Tensor, x: Tensor, *, keep: bool = True) -> TracedPlan:
    """The plan of a solve with its cells; the solver and the network are prepared.

    Args:
        keep: whether the solve keeps the path, too.

    Raises:
        InvalidArgumentError: the steps of the method have no Gaussian density.
    """
    nodes, like = process.nodes.grid(times), x.detach()
    solver.prepare(process, nodes)
    process.network.plan(like, process.nodes.known())
    tape = CellTape(process, like)
    try:
        steps, states = tape.record(solver, nodes)
        plan = _Tracer(tape).plan(nodes, steps, states)
    except (NotGaussian, NotLinear) as error:
        raise refusal(solver.name, str(error) or _OTHER) from None
    if not plan.cells:
        raise NothingDrawn(str(refusal(solver.name, "it draws nothing with these options on this grid")))
    return replace(plan, keep=keep)


def refusal(name: str, reason: str) -> InvalidArgumentError:
    """The error for a method whose steps have no density."""
    return InvalidArgumentError(f"`path_log_prob`: the steps of {name!r} have no density here: {reason}.")


def check_gaussian(sde: SDE, solver: Solver) -> None:
    """Refuse a method whose steps have no density, by what it declares."""
    reasons = (
        (not solver.stochastic, "it draws no noise"),
        (not sde.affine, f"{type(sde).__name__} has no alpha and sigma"),
        (solver.own_steps or solver.kind == "backend", "another library makes its steps"),
        (solver.adaptive, "the lengths of its steps depend on their draws"),
        (not solver.gaussian_step, solver.not_gaussian),
    )
    for wrong, reason in reasons:
        if wrong:
            raise refusal(solver.name, reason)


class _Tracer:
    """Goes through the instructions of a solve, and keeps how each value depends on the draws."""

    def __init__(self, tape: CellTape) -> None:
        self.count = tape.count
        self.forms: dict[int, Form] = {}  # of values that hold draws
        self.twins: dict[int, int | None] = {}  # the numbers of their means; None for zero
        self.cells: list[Cell] = []
        self.start = 0  # the number of the state before the step
        # of the step: its cells, their deviations, and orthonormal combinations of its draws
        self.basis: list[tuple[Cell, float, dict[Latent, float]]] = []
        self.scaled: set[Latent] = set()  # draws of the step whose weights are known on the way only

    def plan(self, nodes: Sequence[Node[Any]], steps: list[list[Instruction]], states: list[int]) -> TracedPlan:
        """The plan."""
        whole: list[list[Instruction]] = []
        means: list[list[Instruction]] = []
        for index, (step, state) in enumerate(zip(steps, states[1:], strict=True)):
            self.start = states[index]
            wanted = {i.x: i.node.t for i in step if isinstance(i, Evaluate)} | {state: nodes[index + 1].t}
            made: list[Instruction] = []
            for instruction in step:
                made += self.instructions(instruction, index, wanted)
            last = index + 1 == len(steps) and (self.basis or self.scaled)
            if state in self.forms or (last and self.cells[-1].whole.to != state):
                raise NotGaussian(THROUGH_NETWORK)
            whole.append(made)
            means.append([i for i in made if not self._is_random(i)])
            self._end()
        bury(whole, states)
        return TracedPlan(list(nodes), evaluated_in(whole), whole, states, self.count, cells=self.cells, means=means)

    def _is_random(self, instruction: Any) -> bool:
        """Whether an instruction is of no use without draws."""
        if isinstance(instruction, DrawNoise):
            return True
        return isinstance(instruction, Sum) and instruction.to in self.forms

    def _end(self) -> None:
        """After a step its draws are known, as far as they are of any use."""
        self.basis, self.scaled = [], set()
        self.forms = {number: {} for number in self.forms}  # which may not be read any more

    def instructions(self, instruction: Any, step: int, wanted: dict[int, float]) -> list[Any]:
        """What takes the place of an instruction."""
        stale = [i for i in instruction.read if i in self.forms and not self.forms[i]]
        if stale:
            raise NotGaussian(_KEPT)
        if isinstance(instruction, DrawNoise):
            self._draw(instruction)
        elif isinstance(instruction, Apply) and not instruction.weights:
            if any(i in self.forms for i in instruction.read):
                raise NotGaussian(_SIZE)
        elif isinstance(instruction, Sum):
            return self._sum(instruction, step, wanted)
        elif instruction.x in self.forms:
            raise NotGaussian(THROUGH_NETWORK)
        return [instruction]

    def _draw(self, draw: DrawNoise) -> None:
        first = draw.to[0]
        self.forms[first] = {(first, 0): 1.0}
        self.twins |= dict.fromkeys(draw.to)
        if len(draw.to) == 2:  # the increment, and the mean of the path: see `Noise.increment_and_mean`
            self.forms[draw.to[1]] = {(first, 0): 0.5, (first, 1): 12**-0.5}

    def _sum(self, instruction: Sum, step: int, wanted: dict[int, float]) -> list[Any]:
        if isinstance(instruction, Blend):
            terms = instruction.terms
        else:
            terms = list(zip(instruction.weights, instruction.read, strict=True))
        form = self._form(terms)
        if not form:
            return [instruction]
        instruction.over = False
        mean = [(w, self.twins[i] if i in self.forms else i) for w, i in terms]
        kept = [(w, i) for w, i in mean if i is not None]
        if instruction.to in wanted:
            first: list[Any] = []
            inner = len(kept) - 1
            if inner > 1 and kept == terms[: inner + 1] and kept[inner][1] == self.start:  # see `with_noise`
                first = [_sum_of(kept[:inner], self.number())]
                kept = [(1.0, first[0].to), kept[inner]]
                instruction = _sum_of([kept[0], *terms[inner:]], instruction.to)
            return [*first, self._cell(instruction, kept, form, step, wanted[instruction.to])]
        self.forms[instruction.to], self.twins[instruction.to] = form, None
        if not kept:
            return [instruction]
        twin = self.twins[instruction.to] = self.number()
        return [instruction, _sum_of(kept, twin)]

    def number(self) -> int:
        """A new number."""
        self.count += 1
        return self.count - 1

    def _form(self, terms: list[tuple[Weight, int]]) -> Form:
        """The draws in a sum."""
        form: Form = {}
        for weight, number in terms:
            for latent, own in self.forms.get(number, {}).items():
                form[latent] = _added(form.get(latent, 0.0), _product(weight, own))
        return {latent: weight for latent, weight in form.items() if isinstance(weight, LateWeight) or weight}

    def _cell(self, whole: Sum, mean: list[tuple[Weight, int]], form: Form, step: int, t: float) -> Cell:
        """The cell of a sum that holds draws."""
        if any(isinstance(w, LateWeight) for w in form.values()):
            ((latent, weight),) = form.items() if len(form) == 1 else (((0, 0), 0.0),)
            if not isinstance(weight, LateWeight) or latent in self.scaled or self._projected({latent: 1.0})[0]:
                raise NotGaussian("a draw whose weight depends on the network is used twice in a step")
            self.scaled.add(latent)
            return self._made(Cell(whole, mean, [], weight, len(self.cells), step, t))
        weights = {latent: w for latent, w in form.items() if not isinstance(w, LateWeight)}  # all of them
        if self.scaled & set(weights):
            raise NotGaussian("a draw whose weight depends on the network is used twice in a step")
        before, left = self._projected(weights)
        size, std = _norm(weights), _norm(left)
        if std <= _ROUNDING * size:
            raise NotGaussian(THROUGH_NETWORK)
        known: list[tuple[int, float]] = []
        for cell, weight in before:
            cell.draw = self.number() if cell.draw is None else cell.draw
            known.append((cell.draw, weight))
        cell = Cell(whole, mean, known, std, len(self.cells), step, t)
        self.basis.append((cell, std, {latent: w / std for latent, w in left.items()}))
        return self._made(cell)

    def _made(self, cell: Cell) -> Cell:
        self.cells.append(cell)
        return cell

    def _projected(self, weights: dict[Latent, float]) -> tuple[list[tuple[Cell, float]], dict[Latent, float]]:
        """The weights of what earlier cells are off their means, and what is left of the draws, with two turns of Gram
        and Schmidt."""
        shares, left = dict.fromkeys(range(len(self.basis)), 0.0), dict(weights)
        for _ in range(2):
            for i, (*_, direction) in enumerate(self.basis):
                share = sum(left.get(latent, 0.0) * w for latent, w in direction.items())
                shares[i] += share
                for latent, w in direction.items():
                    left[latent] = left.get(latent, 0.0) - share * w
        size = _norm(weights)
        kept = [i for i, share in shares.items() if abs(share) > _ROUNDING * size]
        return [(self.basis[i][0], shares[i] / self.basis[i][1]) for i in kept], left


def _sum_of(terms: list[tuple[Weight, int]], to: int) -> Sum:
    """An instruction that sums terms."""
    weights, numbers = [w for w, _ in terms], [i for _, i in terms]
    scales = [w.number for w in weights if isinstance(w, LateWeight)]
    if scales:
        return Blend([], [*numbers, *scales], to, scales=weights)
    return Sum([w for w in weights if not isinstance(w, LateWeight)], numbers, to)


def _norm(weights: dict[Latent, float]) -> float:
    return math.sqrt(sum(w * w for w in weights.values()))


def _product(a: Weight, b: Weight) -> Weight:
    if isinstance(a, LateWeight):
        if isinstance(b, LateWeight):
            raise NotGaussian("a weight of a draw is a product of two values")
        return LateWeight(a.number, a.factor * b)
    return LateWeight(b.number, a * b.factor) if isinstance(b, LateWeight) else a * b


def _added(a: Weight, b: Weight) -> Weight:
    if isinstance(a, LateWeight) or isinstance(b, LateWeight):
        if a:
            raise NotGaussian("a draw whose weight depends on the network is used twice in a step")
        return b
    return a + b
