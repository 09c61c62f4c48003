"""Common parts of multistep methods: their history, and a start that keeps their order."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...core.processes import LOG_SNR, RHO, Coordinate, Process
from ...core.sdes import Estimate, Node
from ...core.sdes.records import LinearEstimate
from ...core.support.checks import check_choice, check_flag, check_integer
from ...core.support.combination import Combination, Term, combination, tensor_of, with_noise
from ...core.support.tensors import Scalar
from ..base import Asking, EstimateSolver, Step, StepResult
from ..dpm_singlestep import second_order, third_order
from ..rk45 import RK45
from ..runge_kutta import RK4
from .exponential import PREDICTIONS, History, adams_weights, complete, endless, frame, positions, read, transfer
from .exponential_runge_kutta import PhiTableau, exponential_step
from .runge_kutta import Tableau, runge_kutta_step

START_UPS = ("single", "published")
# The single steps of a given order at the start.
_EXPONENTIAL: dict[int, PhiTableau] = {2: second_order(0.5), 3: third_order(1 / 3, 2 / 3)}
_CLASSICAL: dict[int, Tableau] = {
    4: RK4.tableau,
    5: Tableau(RK45.tableau.a[:6], RK45.tableau.c[:6], RK45.tableau.b[:6]),  # its last stage has weight 0
}
HIGHEST = max(_CLASSICAL)


class StepRow(NamedTuple):
    """The coefficients of a step, keep x + gain times the weighted estimates, and the size of its noise."""

    keep: Scalar
    gain: Scalar
    weights: Sequence[Scalar]
    spread: Scalar


_FEW = 16  # nodes of a grid whose rows are not worth to be computed at once


class Multistep(EstimateSolver):
    """A method that keeps the network's estimates at earlier nodes.

    With k nodes known, `advance` makes a step of order k. The error of a single step of order q is of order q + 1, so
    a method of order p keeps its order if its first steps have order p - 1: with ``start_up="single"`` these are single
    steps, until all nodes but one are known (then `advance` has order p - 1 itself). ``start_up="published"`` uses
    the known nodes, with orders 1, 2, …, as the published codes do, which limits the order of the whole.

    A step that begins at alpha = 0 or ends at sigma = 0 is one of DDIM.

    With a ``corrector_order`` the network is evaluated at the predicted state, and the step is made again with this
    estimate as one more node, and with the same noise. The estimate is not renewed at the corrected state (PEC) and
    serves the next step, so that a correction costs nothing but at the end of the last step.

    A subclass must set `order`, `prediction` and `start_up`. By default a step is the exponential integral of the
    polynomial through the estimates, of the order that they give. To change it, override one of: `weights`, the weight
    of each estimate; `coefficients`, those of a step with the state; `advance`, the whole step.

    Attributes:
        lower_order_final: whether the last steps use only as many nodes as there are steps left.
        correct_last: whether the last step is corrected too, for one more evaluation.
    """

    order: int
    lower_order_final: bool = False
    correct_last: bool = False

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, PREDICTIONS)
        check_choice("start_up", self.start_up, START_UPS)
        check_flag("lower_order_final", self.lower_order_final)
        check_flag("correct_last", self.correct_last)

    @property
    @abc.abstractmethod
    def prediction(self) -> str:
        """The estimate that is kept, ``"data"`` or ``"noise"``."""

    @property
    @abc.abstractmethod
    def start_up(self) -> str:
        """``"single"`` or ``"published"``."""

    @property
    def memory(self) -> int:
        """How many nodes a step uses, its own start included: as many as its order, unless a method says otherwise."""
        return self.order

    @property
    def corrector_order(self) -> int:
        """How many nodes the correction of a step uses, its end included; 0 means that there is none."""
        return 0

    @property
    def looks_ahead(self) -> bool:
        """True with a corrector."""
        return self.corrector_order > 0

    def advance(self, process: Process, x: Tensor, stop: Node, history: History) -> Term:
        """The step to ``stop`` from the newest node of the history, with all that it holds."""
        row = self.planned(process, history.nodes[0], stop, history.nodes)
        return combination(row.keep, x, row.gain, row.weights, history.values)

    def planned(self, process: Process, start: Node, stop: Node, nodes: tuple[Node, ...]) -> StepRow:
        """The `coefficients` of a step, computed before the first one if its nodes follow each other on the grid."""
        known = process.nodes.rows.get((stop.t, nodes[0] is stop, len(nodes)))
        if known is not None and known[0] == nodes:
            row: StepRow = known[1]
            return row
        return self.coefficients(start, stop, nodes, self.stochasticity(start))

    def coefficients(self, start: Node, stop: Node, nodes: Sequence[Node], eta: float) -> StepRow:
        """The coefficients of the step from start to stop by the `weights` of estimates at some nodes."""
        part = frame(self.prediction, start, stop, eta)
        weights = self.weights(positions([n.lam for n in nodes], start.lam, part.h), part.z)
        return StepRow(part.keep, part.gain * part.h, weights, part.spread)

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Solver.prepare`. The rows of all steps that have their full number of nodes are computed at once."""
        super().prepare(process, nodes)
        fractions, coordinate = start_stages(self.start_order)
        process.nodes.prepare_between(nodes[: self.memory], fractions, coordinate)
        etas = {self.stochasticity(node) for node in nodes[:-1]}
        if len(nodes) < _FEW or len(etas) > 1:
            return
        table = Node(*(torch.tensor(column, dtype=torch.float64) for column in zip(*nodes, strict=True)))
        for ahead, count in ((0, self.predictor_nodes), (1, self.corrector_order)):
            first = max(count - 1 - ahead, 0)  # the first step that has so many nodes before it
            steps = len(nodes) - 1 - first
            if not count or steps < 1:
                continue

            def at(offset: int, first: int = first, steps: int = steps) -> Node[Tensor]:
                return Node(*(column[first + offset : first + offset + steps] for column in table))

            row = self.coefficients(at(0), at(1), [at(ahead - j) for j in range(count)], min(etas))
            numbers = torch.stack([torch.as_tensor(v).expand(steps) for v in (*row[:2], row.spread, *row.weights)], 1)
            for i, (keep, gain, spread, *weights) in enumerate(numbers.tolist(), first):
                if all(map(math.isfinite, (keep, gain, *weights))):
                    window = tuple(nodes[i + ahead - j] for j in range(count))
                    key = (nodes[i + 1].t, bool(ahead), count)
                    process.nodes.rows[key] = (window, StepRow(keep, gain, weights, spread))

    @property
    def predictor_nodes(self) -> int:
        """How many nodes a prediction uses by its `coefficients`, its start included; 0 where `advance` uses none."""
        return self.memory

    def weights(self, r: Sequence[Scalar], z: Scalar) -> list[Scalar]:
        r"""The weights of the estimates in a step of length 1 from 0, where they stand at positions r, the newest at 0
        and earlier ones below; by default :math:`\int_0^1 e^{(1-\tau)z}\ell_i(\tau)\,d\tau`, with the polynomials
        :math:`\ell_i` of Lagrange at r and z the exponent of the step. Others may have a lower order."""
        return adams_weights(r, z)

    @property
    def start_order(self) -> int:
        """The order of the single steps at the start; 1 means that there are none."""
        return (self.ode_order or 1) - 1 if self.start_up == "single" else 1

    @property
    def extra_evaluations(self) -> int:
        """The evaluations of the single steps at the start, and of the correction at the end."""
        return self.cost(self.memory) - self.memory

    def cost(self, steps: int, limits: int = 0) -> int:
        """See `Solver.cost`."""
        single = max(0, min(self.memory - 2, steps - limits))
        corrected = self.correct_last and self.corrector_order > 0
        return steps + single * (start_evaluations(self.start_order) - 1) + corrected

    def init(self, process: Process, x: Tensor, start: Node) -> History:
        """No history."""
        return History()

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: History) -> Step:
        """See `Solver.step`."""
        history, estimate = yield from self.look(process, x, start, state)
        moved, correctable = yield from self.predict(process, x, start, stop, history, estimate)
        draws: list[tuple[Scalar, Term]] = []
        if self.stochastic:
            spread = frame(self.prediction, start, stop, self.stochasticity(start)).spread  # also at an infinite end
            draws.append((spread, (yield process.increment(start.t, stop.t, x))))
        moved = with_noise(moved, x, draws) if draws else moved
        count = self.corrector_order
        if not count or not correctable or (not self.correct_last and process.nodes.steps_left(stop) == 0):
            return StepResult(moved, history)
        predicted = tensor_of(moved)
        value = yield read(process, predicted, stop, self.prediction)
        near = history.apart(stop)
        row = self.planned(process, start, stop, (stop, *near.nodes)[:count])
        better = combination(row.keep, x, row.gain, row.weights, (value, *near.values)[:count])
        better = with_noise(better, x, draws) if draws else better
        if isinstance(moved, Combination) and isinstance(better, Combination):
            better = better.since(moved, predicted)
        return StepResult(better, history.push(stop, value, self.memory))

    def stochasticity(self, node: Node) -> float:
        r""":math:`\eta` of the step from a node; a stochastic method adds the noise of its frame."""
        return 0.0

    def look(
        self, process: Process, x: Tensor, start: Node, history: History
    ) -> Asking[tuple[History, LinearEstimate | Estimate | None]]:
        """The history up to the start of a step, and the estimate there (None if a correction has made it before)."""
        if history.ends_at(start):
            return history, None
        estimate = yield process.linear_estimate(x, start)
        return history.push(start, estimate.part(self.prediction), self.memory), estimate

    def predict(
        self,
        process: Process,
        x: Tensor,
        start: Node,
        stop: Node,
        history: History,
        estimate: LinearEstimate | Estimate | None,
    ) -> Asking[tuple[Term, bool]]:
        """The step by DDIM at an infinite end, by a single step at the start, else by `advance`; and whether by the
        last."""
        if endless(start, stop):
            given = estimate or complete(x, start, self.prediction, history.values[0])
            return transfer(given, start, stop, self.stochasticity(start)), False
        known = len(history.nodes)  # a node dropped below costs one step an order, not a single step
        if known < self.memory - 1 and self.start_order > 1:
            first = estimate or complete(x, start, self.prediction, history.values[0])
            moved = yield from start_step(self.start_order, self.prediction, process, x, start, stop, first)
            return moved, False
        history = history.apart(stop)
        known = len(history.nodes)
        left = process.nodes.steps_left(stop)
        if self.lower_order_final and left is not None and known > left + 1:
            history = History(history.nodes[: left + 1], history.values[: left + 1])
        return self.advance(process, x, stop, history), True


@dataclass(frozen=True)
class NoiseMultistep(Multistep):
    """A method of up to four noise estimates."""

    order: int = 4
    start_up: str = "single"
    lower_order_final: bool = False

    prediction: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("order", self.order, low=1, high=4)

    @property
    def ode_order(self) -> int:
        """p."""
        return self.order


def start_stages(order: int) -> tuple[Sequence[float], Coordinate]:
    """Where a single step evaluates inside it, and the clock.

    Example:
        >>> start_stages(2)[0]
        [0.5]
    """
    known = order in _EXPONENTIAL
    nodes = _EXPONENTIAL[order].c if known else _CLASSICAL[order].c if order in _CLASSICAL else ()
    return sorted({c for c in nodes if 0 < c < 1}), LOG_SNR if known else RHO


def start_evaluations(order: int) -> int:
    """Evaluations of a single step.

    Example:
        >>> [start_evaluations(order) for order in (1, 2, 3, 4, 5)]
        [1, 2, 3, 4, 6]
    """
    return len(_EXPONENTIAL[order].c if order in _EXPONENTIAL else _CLASSICAL[order].c) if order > 1 else 1


def start_step(
    order: int,
    prediction: str,
    process: Process,
    x: Tensor,
    start: Node,
    stop: Node,
    estimate: LinearEstimate | Estimate,
) -> Asking[Term]:
    """One step of the order, given the estimate at its start: DDIM, DPM-Solver 2S or 3S, or a Runge-Kutta method in
    sigma/alpha."""
    if order in _EXPONENTIAL:
        first = estimate.part(prediction)
        moved, _ = yield from exponential_step(_EXPONENTIAL[order], prediction, process, x, start, stop, first)
        return moved
    if order in _CLASSICAL:
        noise = estimate.part("noise")
        moved, _ = yield from runge_kutta_step(_CLASSICAL[order], RHO, process, x, start, stop, noise)
        return moved
    return transfer(estimate, start, stop)
