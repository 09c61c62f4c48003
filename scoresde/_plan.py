"""Plans: the steps of a solve on a fixed grid, recorded once and then repeated.

Most methods make steps that are linear in the state, in what the network returns and in the draws, with coefficients
that depend on the grid alone. Such a solve is recorded before the first step, by the solver's own `step` with symbols
for tensors, as a list of three instructions: evaluate, draw, sum. A step then repeats its instructions, bit for bit
what the solver would have done, and nothing else. A method that does anything else with a tensor has no plan.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from ._combination import Combination, Term, write, write_over
from ._workspace import MOST_BUFFERS, Buffer, Workspace, working_in
from .noise import Noise
from .processes import Network, Process, ReverseProcess
from .sdes import Node
from .sdes.records import LinearEstimate
from .solvers import Solver

_MOST_PLANS = 16  # that are kept for later solves
_MOST_STEPS = 4096  # of a solve that is planned


class NotLinear(Exception):
    """A step did something with a tensor that is not in a plan."""


def _refuse(*args: object, **options: object) -> Any:
    raise NotLinear


class Symbol:
    """Stands for a tensor like the state while steps are recorded. It can only be a term of a `Combination`, and be
    given to the network.

    Args:
        index: its number.
        like: the state.
    """

    __slots__ = ("index", "like")

    def __init__(self, index: int, like: Tensor) -> None:
        self.index, self.like = index, like

    @property
    def shape(self) -> torch.Size:
        """That of the state."""
        return self.like.shape

    def tensor(self) -> Symbol:
        """Itself."""
        return self

    def view_as(self, other: object) -> Symbol:
        """Itself."""
        return self

    __getattr__ = _refuse
    __torch_function__ = classmethod(_refuse)
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

    def run(self, run: Run) -> None:
        """Repeat it."""
        run.values[self.to] = run.output(run.direct, run.values[self.x], self.node)


@dataclass(slots=True, eq=False)
class Draw:
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
        drawn = getattr(run.noise, self.method)(*self.times, run.values[self.like].detach())
        for number, value in zip(self.to, drawn if len(self.to) > 1 else (drawn,), strict=True):
            run.values[number] = value


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
        values, buffers = run.values, run.buffers
        terms = [values[i] for i in self.read]
        buffer = buffers[self.read[0]] if self.over else None
        if buffer is not None and buffer.free:
            write_over(self.weights, terms)
            buffers[self.read[0]] = None
        else:
            buffer = run.room()
            write(self.weights, terms, buffer.base)
        values[self.to], buffers[self.to] = buffer.base, buffer


Instruction: TypeAlias = Evaluate | Draw | Sum


@dataclass(frozen=True)
class Plan:
    """The instructions of a solve.

    Attributes:
        nodes: those of the grid; ``known``: all that the network is evaluated at.
        steps: the instructions of each step.
        states: the numbers of the states, the first and those after each step.
        count: how many numbers there are.
    """

    nodes: list[Node[float]]
    known: list[Node[float]]
    steps: list[list[Instruction]]
    states: list[int]
    count: int


class Run:
    """One solve by a plan.

    Args:
        plan: the plan.
        network: prepared at the plan's nodes.
        noise: the source.
        x: the state at the start.
        workspace: of the solve.

    Attributes:
        values, buffers: tensors by their numbers, and the memory of those that were written here.
    """

    def __init__(self, plan: Plan, network: Network, noise: Noise, x: Tensor, workspace: Workspace) -> None:
        self.plan, self.noise, self.workspace = plan, noise, workspace
        self.output, self.direct = network.output, network.prepared
        self.values: list[Any] = [None] * plan.count
        self.buffers: list[Buffer | None] = [None] * plan.count
        self.values[plan.states[0]] = x
        self._spare: list[Buffer] = []

    def step(self, index: int) -> Tensor:
        """Make a step. The state that it returns may be written over by the next one, unless it is kept as a view."""
        values, buffers = self.values, self.buffers
        for instruction in self.plan.steps[index]:
            instruction.run(self)
            for number in instruction.dead:
                values[number] = None
                buffer = buffers[number]
                if buffer is not None:
                    self._spare.append(buffer)
                    buffers[number] = None
        state: Tensor = values[self.plan.states[index + 1]]
        return state

    def room(self) -> Buffer:
        """Memory that nobody holds."""
        for i, buffer in enumerate(self._spare):
            if buffer.free:
                return self._spare.pop(i)
        del self._spare[:-MOST_BUFFERS]
        return Buffer(self.workspace.empty())


class _TapeNetwork:
    """Records evaluations."""

    def __init__(self, tape: _Tape, network: Network) -> None:
        self.tape, self.direct, self.copies = tape, network.prepared, network.copies

    def linear(self, x: Any, node: Node[float]) -> LinearEstimate:
        if self.direct is None or node.t not in self.direct.rows:
            raise NotLinear
        out = self.tape.symbol()
        self.tape.instructions.append(Evaluate(x.index, out.index, node))
        estimate = self.direct.read(x, out, node)
        estimate.keep = self.copies
        return estimate

    def linear_score(self, x: Any, node: Node[float]) -> Term:
        return self.linear(x, node).score()

    def __getattr__(self, name: str) -> Any:
        raise NotLinear


class _TapeNoise(Noise):
    """Records draws."""

    def __init__(self, tape: _Tape) -> None:
        self.tape = tape

    def _drawn(self, count: int, method: str, like: Any, *times: float) -> Any:
        drawn = tuple(self.tape.symbol() for _ in range(count))
        self.tape.instructions.append(Draw(like.index, tuple(s.index for s in drawn), method, times))
        return drawn if count > 1 else drawn[0]

    def normal(self, like: Any) -> Any:
        return self._drawn(1, "normal", like)

    def increment(self, start: Any, stop: Any, like: Any) -> Any:
        return self._drawn(1, "increment", like, start, stop)

    def increment_and_mean(self, start: Any, stop: Any, like: Any) -> Any:
        return self._drawn(2, "increment_and_mean", like, start, stop)

    def __getattr__(self, name: str) -> Any:
        raise NotLinear


class _Tape(Workspace):
    """Records sums: where a solve has memory, there are symbols."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self.like = like
        self.count = 0
        self.instructions: list[Instruction] = []

    def symbol(self) -> Symbol:
        """A new symbol."""
        self.count += 1
        return Symbol(self.count - 1, self.like)

    def fits(self, x: object) -> bool:
        return isinstance(x, Symbol)

    def sum(self, combination: Combination) -> Any:
        total = self.symbol()
        weights, values = combination.terms()
        self.instructions.append(Sum(list(weights), [v.index for v in values], total.index))  # type: ignore[attr-defined]
        return total


def record(process: Process, solver: Solver, nodes: list[Node[float]], like: Tensor) -> Plan | None:
    """The plan of a solve on a grid, for which the solver and the network are prepared; None if it has none."""
    tape = _Tape(like)
    taped = replace(process, network=_TapeNetwork(tape, process.network))  # type: ignore[arg-type]
    noise, x = _TapeNoise(tape), tape.symbol()
    states, ends = [x.index], [0]
    try:
        with working_in(tape):
            memory: Any = solver.init(taped, x, nodes[0])  # type: ignore[arg-type]
            for start, stop in itertools.pairwise(nodes):
                result = solver.step(taped, x, start, stop, memory, noise)  # type: ignore[arg-type]
                moved: Any = result.moved
                if isinstance(moved, Combination):
                    over, moved = moved.terms()[1][:1] == [x], tape.sum(moved)
                    tape.instructions[-1].over = over  # type: ignore[union-attr]
                x, memory = moved, result.state
                states.append(x.index)
                ends.append(len(tape.instructions))
    except NotLinear:
        return None
    steps = [_late(tape.instructions[a:b], states) for a, b in itertools.pairwise(ends)]
    _bury(steps, states[-1])
    return Plan(list(nodes), process.nodes.known(), steps, states, tape.count)


def _late(instructions: list[Instruction], states: Sequence[int]) -> list[Instruction]:
    """The instructions of a step in which what the network returns is copied as late as possible, before the network
    is called again, and read itself until then."""
    out: list[Instruction] = []
    fresh: set[int] = set()  # what the network returned last
    waiting: dict[int, Sum] = {}
    for instruction in instructions:
        if isinstance(instruction, Evaluate):
            out += waiting.values()
            waiting, fresh = {}, {instruction.to}
        elif isinstance(instruction, Sum):
            copies = instruction.weights == [1.0] and instruction.read[0] in fresh
            if copies and instruction.to not in states:
                waiting[instruction.to] = instruction
                continue
            instruction.read = [waiting[i].read[0] if i in waiting else i for i in instruction.read]
        out.append(instruction)
    return [*out, *waiting.values()]


def _bury(steps: list[list[Instruction]], end: int) -> None:
    """Say where each value is needed for the last time, and leave out sums that nobody needs."""
    needed = {end}
    for step in reversed(steps):
        for instruction in reversed(step):
            if isinstance(instruction, Sum) and instruction.to not in needed:
                step.remove(instruction)
            else:
                needed.update(instruction.read)
    last = {}
    every = [instruction for step in steps for instruction in step]
    for instruction in every:
        written = instruction.to if isinstance(instruction.to, tuple) else (instruction.to,)
        last |= dict.fromkeys((*written, *instruction.read), instruction)
    del last[end]
    for number, instruction in last.items():
        instruction.dead.append(number)
    for instruction in every:
        if isinstance(instruction, Sum) and instruction.over:
            instruction.over = instruction.read[0] in instruction.dead


class _Kept:
    """The plans of the last solves, by what they depend on."""

    def __init__(self) -> None:
        self.plans: OrderedDict[Hashable, tuple[object, Plan | None]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: Hashable) -> tuple[object, Plan | None] | None:
        with self.lock:
            found = self.plans.get(key)
            if found is not None:
                self.plans.move_to_end(key)
            return found

    def put(self, key: Hashable, owner: object, plan: Plan | None) -> None:
        with self.lock:
            self.plans[key] = (owner, plan)
            while len(self.plans) > _MOST_PLANS:
                self.plans.popitem(last=False)


_kept: Final = _Kept()


def plan_of(process: Process, solver: Solver, times: Tensor, x: Tensor) -> Plan | None:
    """The plan of a solve at given times, recorded now or in an earlier solve, with the network prepared for it; None
    if it has none.

    An earlier plan serves if the solver and what the network's output means are equal, the process is the same, and
    its nodes have the same values.
    """
    kind = process.network.score_fn.kind
    own = solver.own_steps or solver.adaptive or not all(map(_is_own, (solver, *vars(solver).values())))
    if own or kind is None or not isinstance(process, ReverseProcess) or len(times) > _MOST_STEPS:
        return None
    stamp = process.nodes.stamp(times)
    if stamp is None:
        return None
    key = (solver, process.eta, process.network.copies, kind, id(process.sde), stamp)
    found = _kept.get(key)
    if found is not None:
        plan = found[1]
        if plan is not None:
            process.network.plan(x, plan.known)
        return plan
    nodes = process.nodes.grid(times)
    solver.prepare(process, nodes)
    process.network.plan(x, process.nodes.known())
    plan = record(process, solver, nodes, x)
    _kept.put(key, process.sde, plan)
    return plan


def _is_own(value: object) -> bool:
    """Whether a solver, or a part of one, is of this package, so that its steps may be recorded."""
    return type(value).__module__.partition(".")[0] in ("builtins", __package__)
