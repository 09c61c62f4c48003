"""Plans: the steps of a solve on a fixed grid, recorded once and then repeated.

Most methods make steps that are linear in the state, in what the network returns and in the draws, with coefficients
that depend on the grid alone. Such a solve is recorded before the first step, by the solver's own `step` with symbols
for tensors, as a list of three instructions: evaluate, draw, sum. A step then repeats its instructions, bit for bit
what the solver would have done, and nothing else. A method that does anything else with a tensor has no plan.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...solvers import Solver, StepResult
from ..noise import Noise
from ..processes import Asking, Drawing, Evaluation, Network, Process, Request, ReverseProcess, drive
from ..sdes import SDE, Node
from ..support.combination import Combination, Recorded, tensor_of, written, written_over
from ..support.memo import Memo, constants_of
from ..support.tensors import has_graph, transforming

_MOST_PLANS = 8  # that are kept for later solves
_RECORDED = ("builtins.", "scoresde.solvers.")  # modules of solvers and their parts
_MOST_STEPS = 2000  # of a solve that is planned


class NotLinear(Exception):
    """A step did something with a tensor that is not in a plan."""


def _refused(*args: object, **options: object) -> Any:
    raise NotLinear


_refuse: Any = _refused


class Symbol(Recorded):
    """Stands for a tensor like the state while steps are recorded. It can only be a term of a `Combination`, and be
    given to the network.

    Args:
        index: its number.
        tape: where it was recorded.
    """

    __slots__ = ("index", "tape")

    def __init__(self, index: int, tape: Tape) -> None:
        self.index, self.tape = index, tape

    @property
    def shape(self) -> torch.Size:
        """That of the state."""
        return self.tape.like.shape

    def sum(self, combination: Combination) -> Symbol:
        """See `Recorded.sum`."""
        return self.tape.sum(combination)

    def tensor(self) -> Symbol:
        """Itself."""
        return self

    def view_as(self, other: object) -> Symbol:
        """Itself."""
        return self

    apply = _refuse
    __getattr__ = _refuse
    __torch_function__: Any = classmethod(_refuse)
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse
    __len__ = __iter__ = __getitem__ = __bool__ = __float__ = __array__ = __pow__ = __matmul__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse


@dataclass(slots=True, eq=False)
class Evaluate:
    """Evaluate the network.

    Attributes:
        x, to: the numbers of the state and of what the network returns.
        node: where.
        dead: the numbers of values that are not needed any more.
    """

    x: int
    to: int
    node: Node[float]
    dead: list[int] = field(default_factory=list)

    @property
    def read(self) -> list[int]:
        """The numbers of what it reads."""
        return [self.x]

    def evaluate(self, values: Any, network: Network) -> None:
        """Make it."""
        values[self.to] = network.output(values[self.x], self.node)


@dataclass(slots=True, eq=False)
class DrawNoise:
    """Draw noise.

    Attributes:
        like: the number of the state.
        to: the numbers of what is drawn, one or two.
        method, times: the method of `Noise`, and its first arguments.
        dead: see `Evaluate`.
    """

    like: int
    to: tuple[int, ...]
    method: str
    times: tuple[float, ...]
    dead: list[int] = field(default_factory=list)

    @property
    def read(self) -> list[int]:
        """See `Evaluate.read`."""
        return [self.like]

    def run(self, run: Run) -> None:
        """Repeat it."""
        values, draw = run.values, getattr(run.noise, self.method)
        drawn = draw(*self.times, values[self.like].detach())
        if len(self.to) == 1:
            values[self.to[0]] = drawn
        else:
            for number, value in zip(self.to, drawn, strict=True):
                values[number] = value


@dataclass(slots=True, eq=False)
class Sum:
    r"""Write :math:`\sum_j w_j v_j`.

    Attributes:
        weights, read: those of the terms, and their numbers.
        to: the number of the sum.
        over: whether it may be written over its first term.
        dead: see `Evaluate`.
    """

    weights: list[float]
    read: list[int]
    to: int
    over: bool = False
    dead: list[int] = field(default_factory=list)

    def run(self, run: Run) -> None:
        """Repeat it."""
        values = run.values
        if not self.weights[0]:  # of nothing
            values[self.to] = torch.zeros_like(values[self.read[0]])
            return
        make = written_over if self.over else written
        values[self.to] = make(self.weights, [values[i] for i in self.read], run.firsts[self.to])


Instruction: TypeAlias = Evaluate | DrawNoise | Sum


@dataclass(frozen=True)
class Plan:
    """The instructions of a solve.

    Attributes:
        nodes: those of the grid.
        evaluated: those where the network is evaluated.
        steps: the instructions of each step.
        states: the numbers of the states, the first and those after each step.
        count: how many numbers there are.
    """

    nodes: list[Node[Any]]
    evaluated: list[Node[Any]]
    steps: list[list[Instruction]]
    states: list[int]
    count: int
    _firsts: dict[torch.dtype, list[Tensor | None]] = field(default_factory=dict)

    def run(self, noise: Noise, x: Tensor) -> Run:
        """A solve by the plan; see `Run`."""
        return Run(self, noise, x)

    def firsts(self, like: Tensor) -> list[Tensor | None]:
        """The first weights of sums, unless they are 1, by the sums' numbers, as 0-d tensors of a state's dtype."""
        if like.dtype in self._firsts:
            return self._firsts[like.dtype]
        every = (instruction for step in self.steps for instruction in step)
        sums = [sum_ for sum_ in every if type(sum_) is Sum and sum_.weights and sum_.weights[0] != 1.0]
        weights = torch.tensor([sum_.weights[0] for sum_ in sums], dtype=like.dtype, device="cpu").unbind()
        firsts: list[Tensor | None] = [None] * self.count
        for sum_, weight in zip(sums, weights, strict=True):
            firsts[sum_.to] = weight
        if type(like) is Tensor:  # those of another class may belong to a mode that ends
            self._firsts[like.dtype] = firsts
        return firsts


class Output(Request):
    """What a step by a plan requests: an evaluation, whose answer goes into the values of a `Run`.

    Attributes:
        instruction: the evaluation.
    """

    __slots__ = ("instruction", "values")
    evaluates = True
    instruction: Evaluate

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def answer(self, process: Process) -> None:
        self.instruction.evaluate(self.values, process.network)


class Run:
    """One solve by a plan.

    Args:
        plan: the plan, at whose nodes the network is prepared.
        noise: the source.
        x: the state at the start.

    Attributes:
        values: tensors by their numbers.
        firsts: the first weights of sums, as tensors.
        at: how many instructions of the step have been made.
    """

    def __init__(self, plan: Plan, noise: Noise, x: Tensor) -> None:
        self.plan, self.noise = plan, noise
        self.firsts = plan.firsts(x)
        self.values: list[Any] = [None] * plan.count
        self.values[plan.states[0]] = x
        self.at = 0
        self._output = Output(self.values)

    def step(self, index: int) -> Asking[Tensor]:
        """Make a step; one that was left goes on with the instruction that it had not made."""
        values, instructions = self.values, self.plan.steps[index]
        for instruction in instructions[self.at :] if self.at else instructions:
            if isinstance(instruction, Evaluate):
                self._output.instruction = instruction
                yield self._output
            else:
                instruction.run(self)
            self.at += 1
            for number in instruction.dead:
                values[number] = None
        self.at = 0
        state: Tensor = values[self.plan.states[index + 1]]
        return state

    def replace(self, index: int, x: Tensor) -> None:
        """Put another state in the place of that before a step."""
        self.values[self.plan.states[index]] = x

    def move(self, index: int, x: Tensor) -> None:
        """Put another state in the place of what the evaluation reads that a step has come to."""
        self.values[self.plan.steps[index][self.at].read[0]] = x


class Tape:
    """Records the requests of steps, and sums."""

    def __init__(self, process: Process, like: Tensor) -> None:
        self.process, self.like = process, like
        self.count = 0
        self.instructions: list[Instruction] = []

    def symbol(self) -> Symbol:
        """A new symbol."""
        self.count += 1
        return Symbol(self.count - 1, self)

    def answer(self, request: Request) -> Any:
        """A symbol for the answer to a request."""
        if isinstance(request, Drawing):
            return self._drawn(request)
        if not isinstance(request, Evaluation):
            raise NotLinear
        return request.read(self.evaluated(request))

    def evaluated(self, request: Evaluation) -> Any:
        """What the network returns, in the form that is requested."""
        x: Any = request.x
        direct, node = self.process.network.prepared, request.node
        if direct is None or node.t not in direct.rows or request.form not in ("linear", "linear_score"):
            raise NotLinear
        out = self.symbol()
        self.instructions.append(Evaluate(x.index, out.index, node))
        estimate = direct.read(x, out, node)
        estimate.keep = self.process.network.copies
        return estimate if request.form == "linear" else estimate.score()

    def _drawn(self, request: Drawing) -> Any:
        like: Any = request.like
        drawn = tuple(self.symbol() for _ in range(2 if request.method == "increment_and_mean" else 1))
        self.instructions.append(DrawNoise(like.index, tuple(s.index for s in drawn), request.method, request.times))
        return drawn if len(drawn) > 1 else drawn[0]

    def sum(self, combination: Combination) -> Any:
        total = self.symbol()
        weights, values = combination.terms()
        if not weights:  # of nothing, in the form of the first
            weights, values = [0.0], combination.values[:1]
        self.instructions.append(Sum(list(weights), numbers_of(values), total.index))
        return total

    def record(self, solver: Solver, nodes: list[Node[float]]) -> tuple[list[list[Instruction]], list[int]]:
        """The instructions of each step, and the numbers of the states.

        Raises:
            NotLinear: a step does something else with a tensor.
        """
        x: Any = self.symbol()
        states, ends = [x.index], [0]
        memory: Any = drive(solver.init(self.process, x, nodes[0]), self.answer)
        for start, stop in itertools.pairwise(nodes):
            result = drive(solver.step(self.process, x, start, stop, memory), self.answer)
            if not isinstance(result, StepResult):
                raise NotLinear
            x, memory = tensor_of(result.moved), result.state
            if not isinstance(x, Symbol):
                raise NotLinear
            states.append(x.index)
            ends.append(len(self.instructions))
        return [_late(self.instructions[a:b], states) for a, b in itertools.pairwise(ends)], states


def numbers_of(values: Sequence[object]) -> list[int]:
    """The numbers of symbols; anything else among them is not in a plan."""
    numbers = [value.index for value in values if isinstance(value, Symbol)]
    if len(numbers) < len(values):
        raise NotLinear
    return numbers


def record(process: Process, solver: Solver, nodes: list[Node[float]], like: Tensor) -> Plan | None:
    """The plan of a solve on a grid, for which the solver and the network are prepared; None if it has none."""
    tape = Tape(process, like)
    try:
        steps, states = tape.record(solver, nodes)
    except NotLinear:
        return None
    bury(steps, states)
    return Plan(list(nodes), evaluated_in(steps), steps, states, tape.count)


def evaluated_in(steps: list[list[Instruction]]) -> list[Node[Any]]:
    """The nodes at which the network is evaluated."""
    return list({i.node.t: i.node for step in steps for i in step if isinstance(i, Evaluate)}.values())


def _late(instructions: list[Instruction], states: Sequence[int]) -> list[Instruction]:
    """The instructions of a step in which what the network returns is copied as late as possible, before the network
    is called again, and read directly until then."""
    out: list[Instruction] = []
    fresh: set[int] = set()  # what the network returned last
    waiting: dict[int, Sum] = {}
    for instruction in instructions:
        if isinstance(instruction, Evaluate):
            out += waiting.values()
            waiting, fresh = {}, {instruction.to}
        elif isinstance(instruction, DrawNoise):
            if instruction.like in waiting:
                instruction.like = waiting[instruction.like].read[0]
        else:
            copies = instruction.weights == [1.0] and instruction.read[0] in fresh
            if copies and instruction.to not in states:
                waiting[instruction.to] = instruction
                continue
            instruction.read = [waiting[i].read[0] if i in waiting else i for i in instruction.read]
        out.append(instruction)
    return [*out, *waiting.values()]


def bury(steps: list[list[Instruction]], states: Sequence[int]) -> None:
    """Say where each value is needed for the last time, and leave out sums that nobody needs. A state is needed until
    the next step begins."""
    needed = set(states)
    for step in reversed(steps):
        for instruction in reversed(step):
            if isinstance(instruction, Sum) and instruction.to not in needed:
                step.remove(instruction)
            else:
                needed.update(instruction.read)
    coming: list[Instruction | None] = [None]  # the next instruction from each step on, backwards
    for step in reversed(steps):
        coming.append(step[0] if step else coming[-1])
    last: dict[int, Instruction | None] = {}
    for state, step, following in zip(states, [*steps, []], reversed(coming), strict=True):
        last[state] = following
        for instruction in step:
            written = instruction.to if isinstance(instruction.to, tuple) else (instruction.to,)
            last |= dict.fromkeys((*written, *instruction.read), instruction)
    for number, user in last.items():
        if user is not None:
            user.dead.append(number)
    # what is written over nobody else has seen: no state, nothing that a network or a source of noise was given
    every = list(itertools.chain.from_iterable(steps))
    own = {i.to for i in every if type(i) is Sum} - set(states)  # a formula may return what it was given
    own -= {number for i in every if not isinstance(i, Sum) for number in i.read}
    for instruction in every:
        if isinstance(instruction, Sum) and instruction.read:
            first, *others = instruction.read
            instruction.over = first in own and first in instruction.dead and first not in others


class Values:
    """The numbers of a process that a plan depends on: those at all its nodes, and where the process ends. A process
    may change between two solves.

    Args:
        sde: the process, which may be forgotten.
        known: nodes.
    """

    def __init__(self, sde: SDE, known: Sequence[Node[Any]]) -> None:
        self.sde = weakref.ref(sde)
        self.times = torch.tensor([node.t for node in known], dtype=torch.float64)
        self.numbers = self._read(sde)

    def _read(self, sde: SDE) -> list[list[float]]:
        times = torch.cat([self.times, torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)])
        return [column.tolist() for column in sde.nodes(times)]

    def hold(self, sde: SDE) -> bool:
        """Whether they are still those of the process."""
        return self.sde() is sde and str(self._read(sde)) == str(self.numbers)  # NaN is NaN


class _Kept(NamedTuple):
    plan: Plan | None
    values: Values | None  # None for a process whose constants are in the key


_plans: Memo[_Kept] = Memo(_MOST_PLANS)


def plan_of(process: Process, solver: Solver, times: Tensor, x: Tensor) -> Plan | None:
    """The plan of a solve at given times, recorded now or in an earlier solve, with the network prepared for it; None
    if it has none.

    An earlier plan serves if the solver, the grid and what the network's output means are equal, and the process has
    equal constants, or is the same and has not changed.
    """
    network, nodes = process.network, process.nodes
    kind = network.score_fn.kind
    options = constants_of(solver) if _is_recorded(solver) else None
    if options is None or kind is None or not isinstance(process, ReverseProcess):
        return None
    if solver.own_steps or solver.adaptive or len(times) > _MOST_STEPS or transforming() or has_graph(times):
        return None
    constants = constants_of(process.sde)
    if constants is None and has_graph(*nodes.columns(times)):
        return None

    def recorded() -> _Kept:
        grid = nodes.grid(times)
        solver.prepare(process, grid)
        network.plan(x, nodes.known())
        plan = record(process, solver, grid, x)
        return _Kept(plan, None if constants is not None else Values(process.sde, nodes.known()))

    key = (options, process.eta, network.copies, kind, constants or id(process.sde), tuple(times.tolist()))
    kept = _plans.get(key, recorded)
    if kept.values is not None and not kept.values.hold(process.sde):
        _plans.drop(key)
        kept = _plans.get(key, recorded)
    if kept.plan is not None and network.prepared is None:
        network.plan(x, kept.plan.evaluated)
    return None if network.prepared is None else kept.plan


def _is_recorded(solver: Solver) -> bool:
    """Whether a solver and its parts are of this package, so that their steps may be recorded."""
    return all(f"{type(part).__module__}.".startswith(_RECORDED) for part in (solver, *vars(solver).values()))
