"""The loop with stub solvers, controllers and score functions: who is counted, kept, dropped and told. No numerics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import (
    VPSDE,
    LangevinCorrector,
    MaxStepsError,
    NonFiniteError,
    SampleNoise,
    Status,
    StepSizeUnderflowError,
)
from scoresde.core.controllers import Controller, Decision, FixedGrid
from scoresde.core.loop import Recorder, integrate
from scoresde.core.noise import BatchNoise, Noise
from scoresde.core.processes import Network, Process, ReverseProcess
from scoresde.core.sdes import Node
from scoresde.core.solution import Solution
from scoresde.solvers.base import Solver, Step, StepResult

pytestmark = pytest.mark.timeout(20)

SDE = VPSDE(t_min=0.0)


class Seen:
    """A score function that writes down what it is shown. A state's second element is its sample's name."""

    def __init__(self, rowwise: bool = False) -> None:
        self.rowwise = rowwise
        self.names: list[list[int]] = []
        self.times: list[list[float]] = []
        self.labels: list[list[int]] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.names.append(x[:, 1].long().tolist())
        self.times.append(t.tolist())
        if label is not None:
            self.labels.append(label.tolist())
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Stub(Solver):
    """Adds one to a state's first element at each step; its memory counts the steps that were taken."""

    uses: int = 1
    at_init: int = 0
    draws: int = 0

    name: ClassVar[str] = "stub"
    kind: ClassVar[str] = "ode"

    def init(self, process: Process, x: Tensor, start: Node) -> Any:
        for _ in range(self.at_init):
            yield process.score(x, start)
        return (x[:, 1].clone(), x[:, 0] * 0)  # (name, steps taken)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any) -> Step:
        assert torch.equal(state[0], x[:, 1]), "a sample has another sample's memory"
        for _ in range(self.uses):
            yield process.score(x, start)
        add = torch.zeros_like(x)
        add[:, 0] = 1
        for _ in range(self.draws):
            add[:, 0] = add[:, 0] + (yield process.normal(x))[:, 0]
        return StepResult(x + add, (state[0], state[1] + 1), torch.zeros_like(x))


class Memory(NamedTuple):
    script: Tensor  # (batch, n) of 1 accept, 0 reject, -1 not finite, -2 underflow
    place: Tensor  # (batch,)
    taken: Tensor
    total: Tensor


@dataclass(frozen=True)
class Scripted(Controller):
    """Follows a script per sample: "+" takes a step, "-" rejects it, "n" fails as not finite, "u" as an underflow."""

    scripts: Sequence[str]

    def start(self, process: Process, x: Tensor) -> Node:
        return process.sde.nodes(torch.ones(len(x), dtype=torch.float64))

    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, Any]:
        width = max(map(len, self.scripts))
        codes = {"+": 1, "-": 0, "n": -1, "u": -2}
        script = torch.tensor([[codes[c] for c in s.ljust(width, "-")] for s in self.scripts])
        total = torch.tensor([s.count("+") + (s[-1] != "+") for s in self.scripts])
        memory = Memory(script, torch.zeros_like(total), torch.zeros_like(total), total)
        return process.sde.nodes(1 - 1 / total.double()), memory

    def adapt(
        self, process: Process, solver: Solver, x: Tensor, start: Node, stop: Node, result: StepResult, state: Any
    ) -> Decision:
        code = state.script.gather(1, state.place.clamp_max(state.script.shape[1] - 1)[:, None])[:, 0]
        accept = code == 1
        taken = state.taken + accept
        done = taken == state.total
        memory = Memory(state.script, state.place + 1, taken, state.total)
        t = torch.where(done, 0.0, 1 - taken.double() / state.total)
        ends = torch.where(taken + 1 >= state.total, 0.0, 1 - (taken + 1).double() / state.total)
        nodes = process.sde.nodes
        return Decision(accept, nodes(t), nodes(ends), memory, done & accept, code == -1, code == -2)


def named(rows: int) -> Tensor:
    x = torch.zeros(rows, 3, dtype=torch.float64)
    x[:, 1] = torch.arange(rows)
    return x


def run(
    scripts: Sequence[str] | None = None,
    *,
    times: Sequence[float] = (),
    rows: int | None = None,
    seen: Seen | None = None,
    solver: Solver | None = None,
    context: dict[str, Tensor] | None = None,
    noise: Noise | None = None,
    **arguments: Any,
) -> Solution:
    controller: Controller = (
        FixedGrid(torch.tensor(times, dtype=torch.float64)) if scripts is None else Scripted(scripts)
    )
    rows = rows or (len(scripts) if scripts else 2)
    process = ReverseProcess(SDE, Network(seen or Seen(), context))
    return integrate(process, solver or Stub(), controller, named(rows), noise or BatchNoise(), **arguments)


def both(test: Callable[[bool], None]) -> Callable[[], None]:
    """Runs a test with a batch that finished samples leave, and with one in which they stay."""

    def run_both() -> None:
        for compact in (False, True):
            test(compact)

    return run_both


@both
def test_evaluations_are_counted_for_each_sample(compact: bool) -> None:
    scripts = ["++", "+-+", "-----+", "+", "-+-+-+-+"]
    for uses, at_init in ((1, 0), (3, 0), (2, 2), (0, 0)):
        seen = Seen()
        solution = run(scripts, seen=seen, solver=Stub(uses, at_init), compact=compact)
        assert solution.nfe.tolist() == [at_init + uses * len(s) for s in scripts]
        assert solution.accepted.tolist() == [s.count("+") for s in scripts]
        assert solution.rejected.tolist() == [s.count("-") for s in scripts]
        assert solution.steps == 8
        assert solution.evaluations == len(seen.names) == at_init + uses * 8
        assert solution.status.tolist() == [Status.SUCCESS] * 5
        assert solution.x[:, 0].tolist() == [s.count("+") for s in scripts]  # each accepted step, once
        assert solution.x[:, 1].tolist() == [0, 1, 2, 3, 4]  # each sample in its place
        assert solution.t.tolist() == [0.0] * 5


def test_what_the_network_sees_of_the_samples() -> None:
    """Unfinished samples only, if it allows that, each with its own time and context."""
    scripts, label = ["+++", "+", "++", "-+++-+"], torch.tensor([7, 8, 9, 5])
    seen = Seen()
    run(scripts, seen=seen, compact=True, context={"label": label})
    assert seen.names == [[0, 1, 2, 3], [0, 2, 3], [0, 3], [3], [3], [3]]
    assert seen.labels == [label[names].tolist() for names in seen.names]
    seen = Seen()
    run(scripts, seen=seen, compact=False, context={"label": label})
    assert seen.names == [[0, 1, 2, 3]] * 6 and seen.labels == [label.tolist()] * 6
    seen = Seen()
    run(["++", "-++", "++++"], seen=seen, compact=True)
    assert seen.times == [[1.0, 1.0, 1.0], [0.5, 1.0, 0.75], [0.5, 0.5], [0.25]]


@both
def test_noise_goes_with_the_sample(compact: bool) -> None:
    scripts = ["+++", "+", "++++", "-+-+"]
    both = run(scripts, solver=Stub(draws=2), compact=compact, noise=SampleNoise([5, 6, 7, 8]))
    for i, script in enumerate(scripts):
        alone = run([script], solver=Stub(draws=2), noise=SampleNoise([5 + i]))
        assert float(alone.x[0, 0]) == float(both.x[i, 0])


def test_a_rejected_step_leaves_state_and_memory_as_they_were() -> None:
    states: list[float] = []

    class Watch(Stub):
        def step(self, process: Any, x: Tensor, start: Node, stop: Node, state: Any) -> Step:
            states.append((float(x[0, 0]), float(state[1][0])))  # type: ignore[arg-type]
            return (yield from super().step(process, x, start, stop, state))

    run(["+--+-+"], solver=Watch())
    assert states == [(0, 0), (1, 1), (1, 1), (1, 1), (2, 2), (2, 2)]


def test_a_fixed_grid_visits_its_nodes_and_no_others() -> None:
    times = [1.0, 0.7, 0.3, 0.1, 0.0]
    seen = Seen()
    solution = run(times=times, seen=seen, rows=3)
    assert seen.times == [[t] * 3 for t in times[:-1]]
    assert solution.t.tolist() == [0.0] * 3 and solution.steps == 4
    assert solution.nfe.tolist() == solution.accepted.tolist() == [4] * 3 and solution.rejected.tolist() == [0] * 3


@both
def test_failed_samples_leave_and_the_others_finish(compact: bool) -> None:
    scripts = ["+++", "+n", "-++++", "u", "+-u"]
    seen = Seen()
    solution = run(scripts, seen=seen, compact=compact, throw=False)
    assert solution.status.tolist() == [0, Status.NON_FINITE, 0, Status.STEP_UNDERFLOW, Status.STEP_UNDERFLOW]
    assert solution.nfe.tolist() == [len(s) for s in scripts]
    assert solution.x.isnan().all(1).tolist() == [False, True, False, True, True]
    assert solution.x[[0, 2], 0].tolist() == [3, 4]
    if compact:
        assert seen.names == [[0, 1, 2, 3, 4], [0, 1, 2, 4], [0, 2, 4], [2], [2]]
    assert solution.success.tolist() == [True, False, True, False, False]


@both
def test_a_sample_that_is_not_finite_stops_the_solve(compact: bool) -> None:
    seen = Seen()
    with pytest.raises(NonFiniteError) as caught:
        run(["+", "++", "+-n"], seen=seen, compact=compact)
    error = caught.value
    assert (error.step, error.indices) == (3, [2]) and len(seen.names) == 3
    assert "step 3" in str(error) and "1 of 3" in str(error)
    assert error.partial.status.tolist() == [0, 0, 1]
    assert error.partial.x[0, 0] == 1 and bool(error.partial.x[2].isnan().all())


@both
def test_an_underflow_stops_the_solve(compact: bool) -> None:
    seen = Seen()
    with pytest.raises(StepSizeUnderflowError, match=r"1 of 3 samples \(first: \[1\]\)") as caught:
        run(["+", "+-u", "++++++"], seen=seen, compact=compact)
    assert len(seen.names) == 3
    assert caught.value.partial.status.tolist() == [Status.SUCCESS, Status.STEP_UNDERFLOW, Status.STOPPED]
    assert caught.value.partial.nfe.tolist() == [1, 3, 3]


@both
def test_max_steps_end_the_loop(compact: bool) -> None:
    scripts = ["++", "+-+-+-+", "+++"]
    seen = Seen()
    solution = run(scripts, seen=seen, compact=compact, max_steps=4, throw=False)
    assert solution.status.tolist() == [0, Status.MAX_STEPS, 0]
    assert solution.steps == len(seen.names) == 4 and solution.nfe.tolist() == [2, 4, 3]
    assert solution.x[[0, 2], 0].tolist() == [2, 3] and bool(solution.x[1].isnan().all())
    with pytest.raises(MaxStepsError, match=r"\[1\]") as caught:
        run(scripts, compact=compact, max_steps=4)
    assert caught.value.partial.status.tolist() == [0, 3, 0]
    assert bool(run(scripts, compact=compact, max_steps=7).success.all())  # exactly enough


@both
def test_the_limit_may_be_met_when_samples_have_just_left(compact: bool) -> None:
    for limit in range(1, 7):
        solution = run(["++", "+-+-+-+", "+++"], compact=compact, max_steps=limit, throw=False)
        assert solution.nfe.tolist() == [min(2, limit), limit, min(3, limit)]
        assert solution.status.tolist() == [0 if n <= limit else Status.MAX_STEPS for n in (2, 7, 3)]


def breaking(spoil: Callable[[Tensor, float, float], None]) -> Solver:
    """Steps that spoil their results, by the times of their ends."""

    class Breaks(Stub):
        def step(self, process: Any, x: Tensor, start: Node, stop: Node, state: Any) -> Step:
            result = yield from super().step(process, x, start, stop, state)
            spoil(result.x, float(start.t), float(stop.t))
            return result

    return Breaks()


def test_a_fixed_grid_checks_every_state() -> None:
    def spoil(x: Tensor, start: float, stop: float) -> None:
        if start <= 0.5:
            x[1, 2] = torch.inf

    given = {"times": [1.0, 0.5, 0.2, 0.0], "rows": 3}
    with pytest.raises(NonFiniteError) as caught:
        run(**given, solver=breaking(spoil))
    error = caught.value
    assert (error.stage, error.step, error.indices) == ("state", 2, [1]) and error.t == pytest.approx(0.2)
    solution = run(**given, solver=breaking(spoil), throw=False)
    assert solution.status.tolist() == [0, 1, 0] and solution.x[[0, 2], 0].tolist() == [3, 3]
    assert bool(solution.x[1].isnan().all()) and solution.nfe.tolist() == [3, 2, 3]

    def opposite(x: Tensor, start: float, stop: float) -> None:  # do not cancel, and large states are not infinite
        x[0, 2], x[1, 2] = (torch.inf, -torch.inf) if start < 0.5 else (1.7e308, 1.7e308)

    with pytest.raises(NonFiniteError) as caught:
        run(**given, solver=breaking(opposite))
    assert (caught.value.step, caught.value.indices) == (3, [0, 1])

    def last(x: Tensor, start: float, stop: float) -> None:
        if stop == 0.0:
            x[0, 0] = torch.nan

    assert run(times=[1.0, 0.0], rows=2, solver=breaking(last), throw=False).status.tolist() == [1, 0]


@both
def test_a_callback_sees_the_whole_batch_in_its_order(compact: bool) -> None:
    infos: list[Any] = []
    run(["++", "+-++", "+"], compact=compact, callback=infos.append)
    assert [i.step for i in infos] == [1, 2, 3, 4]
    assert [i.x[:, 0].tolist() for i in infos] == [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 3, 1]]
    assert all(i.x[:, 1].tolist() == [0, 1, 2] for i in infos)
    assert [i.nfe.tolist() for i in infos] == [[1, 1, 1], [2, 2, 1], [2, 3, 1], [2, 4, 1]]
    assert [[round(t, 6) for t in i.t.tolist()] for i in infos] == [
        [0.5, 0.666667, 0.0],
        [0.0, 0.666667, 0.0],
        [0.0, 0.333333, 0.0],
        [0.0, 0.0, 0.0],
    ]


def test_a_callback_stops_the_solve_by_returning_true() -> None:
    for true in (True, torch.tensor(True)):
        seen, infos = Seen(), []

        def stop(info: Any, true: Any = true, infos: list[Any] = infos) -> Any:
            infos.append(info)
            return true if info.step == 2 else None

        solution = run(times=[1.0, 0.5, 0.2, 0.0], seen=seen, callback=stop)
        assert [(i.step, i.t) for i in infos] == [(1, 0.5), (2, 0.2)]
        assert len(seen.names) == 2 and solution.steps == 2
        assert solution.status.tolist() == [Status.STOPPED] * 2 and solution.t.tolist() == [0.2, 0.2]
        assert solution.x[:, 0].tolist() == [2, 2]  # a stopped sample is where it is, not NaN


@both
def test_stopping_leaves_those_that_had_arrived(compact: bool) -> None:
    solution = run(["+", "+++"], compact=compact, callback=lambda info: info.step == 2)
    assert solution.status.tolist() == [Status.SUCCESS, Status.STOPPED]
    assert solution.x[:, 0].tolist() == [1, 2]


def test_stopping_at_the_last_step_is_an_arrival() -> None:
    """Whoever is at the end when the callback stops the solve has arrived, with fixed steps as with adaptive ones."""
    stop = lambda info: info.step == 2  # noqa: E731
    for solution in (run(["++", "++"], callback=stop), run(times=[1.0, 0.5, 0.0], callback=stop)):
        assert solution.t.tolist() == [0.0, 0.0] and solution.status.tolist() == [Status.SUCCESS] * 2


@both
def test_saved_states_are_those_of_the_moment(compact: bool) -> None:
    scripts = ["++", "++++", "-+-+"]
    recorder = Recorder([0.5, 1.0, 0.0, 0.9])
    solution = run(scripts, compact=compact, recorder=recorder)
    assert solution.ts is not None and solution.ts.tolist() == [0.5, 1.0, 0.0, 0.9]
    assert solution.xs is not None and solution.xs.shape == (4, 3, 3)
    assert solution.xs[0, :, 0].tolist() == [1, 2, 1]  # at 0.5
    assert solution.xs[1, :, 0].tolist() == [0, 0, 0]  # at the start
    assert torch.equal(solution.xs[2], solution.x)  # at the end
    assert bool(solution.xs[3].isnan().all())  # never there


@both
def test_every_step_is_saved(compact: bool) -> None:
    solution = run(["++", "+-++"], compact=compact, recorder=Recorder("steps"))
    assert solution.xs is not None and solution.ts is not None
    assert solution.xs[:, :, 0].tolist() == [[0, 0], [1, 1], [2, 1], [2, 2], [2, 3]]
    assert solution.ts.shape == (5, 2) and solution.ts[:, 0].tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
    fixed = run(times=[1.0, 0.4, 0.0], recorder=Recorder("steps"))
    assert fixed.ts is not None and fixed.ts.tolist() == [1.0, 0.4, 0.0]


class Bar:
    total = 100

    def __init__(self) -> None:
        self.n = 0
        self.shown: list[int] = []

    def update(self, n: float) -> None:
        self.n += n
        self.shown.append(round(self.n))


@both
def test_the_bar_moves_to_its_end_and_never_back(compact: bool) -> None:
    bar = Bar()
    run(times=[1.0, 0.9, 0.8, 0.1, 0.0], progress=bar)
    assert bar.shown == [25, 50, 75, 100]

    class WithTargets(Scripted):
        targets = (0.0,)

    bar = Bar()
    process = ReverseProcess(SDE, Network(Seen()))
    scripts = ["++", "-+-+++", "+"]
    integrate(process, Stub(), WithTargets(scripts), named(3), BatchNoise(), compact=compact, progress=bar)
    assert bar.shown == sorted(bar.shown) and bar.shown[-1] == 100 and len(bar.shown) == 6


def test_a_corrector_may_be_a_plain_function_of_the_state() -> None:
    @dataclass(frozen=True)
    class Halving(LangevinCorrector):
        evaluations: ClassVar[int] = 0  # type: ignore[misc]

        def correct(self, process: Process, x: Tensor, node: Node) -> Tensor:  # type: ignore[override]
            return 0.5 * x

    method = scoresde.solvers.PredictorCorrector(scoresde.solvers.DDIM(), Halving())
    x = torch.ones(2, 3)
    found = scoresde.solve(VPSDE(), lambda x, t: -x, x, method=method, steps=1)
    plain = scoresde.solve(VPSDE(), lambda x, t: -x, 0.5 * x, method="ddim", steps=1)
    assert torch.equal(found.x, plain.x) and found.evaluations == 1
