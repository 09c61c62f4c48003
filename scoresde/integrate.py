"""The loop. Every solve, in either direction, with fixed or adaptive steps, runs through `integrate`.

It asks the controller where to go, lets the solver step, accepts per sample, checks that everything is finite, saves,
calls back, and drops finished samples when the network allows it. It alone counts evaluations and enforces limits.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ._tensors import as_array, number, row_finite, take, where
from .controllers import Controller, FixedGrid
from .errors import InvalidArgumentError, MaxStepsError, NonFiniteError, ScoreSDEError, StepSizeUnderflowError
from .noise import Noise
from .processes import Process
from .sdes import Node
from .sdes.records import either, some
from .solvers.base import Solver, StepFailed, StepResult

_DEVICE_CHECK_EVERY = 16  # steps between looks at a device's state; each look waits for the device


class Status(enum.IntEnum):
    """What became of a sample; a `Solution` has one a sample.

    Example:
        >>> Status(0).name
        'SUCCESS'
    """

    SUCCESS = 0
    NON_FINITE = 1
    STEP_UNDERFLOW = 2
    MAX_STEPS = 3
    STOPPED = 4


_RUNNING = -1


class Info(NamedTuple):
    """What a callback sees after each step: the step's number, the time (per sample for adaptive methods), the whole
    batch's state, and the evaluations so far a sample.

    Example:
        >>> Info(step=1, t=0.5, x=torch.zeros(1, 2), nfe=torch.ones(1)).step
        1
    """

    step: int
    t: float | Tensor
    x: Tensor
    nfe: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of a solve.

    Attributes:
        x: the final state ``(batch, *event)``; samples that failed are NaN.
        t: the time that each sample reached, ``(batch,)`` float64.
        nfe: score evaluations a sample, ``(batch,)``.
        steps: steps of the loop; a last step that needs no evaluation is made in that of the step before.
        accepted, rejected: steps a sample, ``(batch,)``.
        evaluations: calls of the score function.
        status: one `Status` a sample, ``(batch,)`` integers.
        ts, xs: the saved times and states, ``(n,)`` (``(n, batch)`` for every step of an adaptive method) and ``(n,
            batch, *event)``; None without ``save_at``.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(sde, target.score(sde), method="ddim", steps=5, save_at="steps")
        >>> solution.xs.shape, bool(solution.success.all())
        (torch.Size([6, 1, 2]), True)
    """

    x: Tensor
    t: Tensor
    nfe: Tensor
    steps: int
    accepted: Tensor
    rejected: Tensor
    evaluations: int
    status: Tensor
    ts: Tensor | None = None
    xs: Tensor | None = None

    @property
    def success(self) -> Tensor:
        """Which samples arrived, ``(batch,)`` bool."""
        return self.status == Status.SUCCESS


class Recorder:
    """Keeps the states at given times (each hit exactly by the controller), or of every step."""

    def __init__(self, save_at: Sequence[float] | str, batch: int) -> None:
        self.every = save_at == "steps"
        self.wanted = [] if self.every else [float(t) for t in save_at]
        self.batch = batch
        self.ts: list[Tensor] = []
        self.xs: list[Tensor | None] = [None] * len(self.wanted)

    def record(self, t: float | Tensor, x: Tensor, fresh: Tensor | None = None) -> None:
        """See a state at a time, whole batch; ``fresh`` are the samples that have just moved."""
        if self.every:
            self.ts.append(torch.as_tensor(t, dtype=torch.float64).detach().cpu().clone())
            self.xs.append(x)
            return
        if not isinstance(t, Tensor):
            for j in [j for j, wanted in enumerate(self.wanted) if wanted == t]:
                self.xs[j] = x
            return
        here = t[:, None] == torch.tensor(self.wanted, dtype=torch.float64)  # (batch, times)
        here = here if fresh is None else here & fresh[:, None]
        for j in here.any(0).nonzero()[:, 0].tolist():
            kept = self.xs[j]
            self.xs[j] = where(here[:, j].to(x.device), x, torch.full_like(x, torch.nan) if kept is None else kept)

    def result(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Times and states; a state that was never reached is NaN."""
        xs = [torch.full_like(x, torch.nan) if v is None else v for v in self.xs]
        stacked = torch.stack(xs) if xs else x.new_zeros((0, *x.shape))
        ts = torch.stack(self.ts) if self.every else torch.tensor(self.wanted, dtype=torch.float64)
        return ts, stacked


class _Ledger:
    """The whole batch, every sample in its place, while some of it is still under way; on the host.

    What steps add to samples under way is kept (in numbers, while they move together) until they part, or somebody
    asks: then `flush` spreads it.
    """

    def __init__(self, x: Tensor, t: float | Tensor) -> None:
        batch = len(x)
        self.x = x
        self.t = np.empty(batch)
        self.t[:] = as_array(t)
        self.nfe = np.zeros(batch, dtype=np.int64)
        self.accepted = np.zeros(batch, dtype=np.int64)
        self.rejected = np.zeros(batch, dtype=np.int64)
        self.status = np.full(batch, _RUNNING, dtype=np.int64)
        self.rows = np.arange(batch)  # the samples still in the loop, by their place
        self._used = 0
        self._time: float | Tensor | None = None  # where nothing is kept
        self._steps: int | np.ndarray = 0
        self._taken: int | np.ndarray = 0

    @property
    def running(self) -> np.ndarray:
        """Of the samples in the loop, which are under way."""
        return self.status[self.rows] == _RUNNING

    def whole(self, x: Tensor) -> Tensor:
        """The whole batch's state, given that of the samples in the loop."""
        if len(self.rows) == len(self.x):
            return x
        return self.x.index_copy(0, torch.from_numpy(self.rows).to(x.device), x)

    def account(self, used: int, accept: bool | np.ndarray, t: float | Tensor, tried: bool | np.ndarray = True) -> None:
        """Add a step of the samples under way: its evaluations, whether it was taken, the time reached, and which of
        them tried it."""
        self._steps, self._used = self._steps + tried, self._used + used
        self._taken, self._time = self._taken + accept, t

    def flush(self) -> None:
        """Spread what was kept over the samples."""
        if self._time is None:
            return
        running = self.running
        rows = self.rows[running]
        kept: Any = (self._steps, self._taken, as_array(self._time))
        steps, taken, time = (v[running] if np.ndim(v) else v for v in kept)
        self.nfe[rows] += self._used
        self.accepted[rows] += taken
        self.rejected[rows] += steps - taken
        self.t[rows] = time
        self._steps, self._used, self._taken, self._time = 0, 0, 0, None

    def close(self, which: np.ndarray | None, status: Status) -> bool:
        """Give a status to samples of the loop that are under way (None: to none); says whether there were any."""
        if which is None or not np.count_nonzero(which):
            return False
        rows = self.rows[which & self.running]
        if not len(rows):
            return False
        self.flush()
        self.status[rows] = status
        return True

    def undo(self, reached: float | Tensor, t: float | Tensor) -> None:
        """Samples that have just failed in a step of the whole batch did not take it: they are where it began."""
        failed = (self.status == Status.NON_FINITE) & (self.t == as_array(reached))
        self.accepted[failed] -= 1
        self.rejected[failed] += 1
        self.t[failed] = as_array(t)[failed] if isinstance(t, Tensor) else t

    def close_all(self, status: Status) -> None:
        """Give a status to all samples under way."""
        self.close(np.ones(len(self.rows), dtype=bool), status)


def integrate(
    process: Process,
    solver: Solver,
    controller: Controller,
    x: Tensor,
    noise: Noise,
    *,
    compact: bool = False,
    recorder: Recorder | None = None,
    callback: Callable[[Info], Any] | None = None,
    progress: tqdm | None = None,
    max_steps: int | None = None,
    throw: bool = True,
) -> Solution:
    """Run a solver from the controller's first time to its last.

    Args:
        process: what is stepped.
        solver, controller: how, and where.
        x: the state at the start, ``(batch, *event)``, float32 or wider.
        noise: the only source of randomness.
        compact: drop finished samples from the batch.
        recorder: keeps states on the way.
        callback: called as ``callback(info)`` after each step; True stops the solve.
        progress: a bar to move, in percent.
        max_steps: steps of the loop at most.
        throw: raise at the first failure; otherwise failed samples become NaN and the others go on, and those that are
            not finite at the start are never evaluated.

    Returns:
        A `Solution`.

    Raises:
        NonFiniteError: a state or a score is not finite.
        StepSizeUnderflowError: the tolerance asks for steps that the clock cannot resolve.
        MaxStepsError: ``max_steps`` were used up.
    """
    start = controller.start(process, x)
    t = number(start.t)
    ledger = _Ledger(x, t)
    first_t = ledger.t.copy()
    alive: np.ndarray | None = None  # None: all samples of the loop
    lost = None if throw else ~row_finite(x.detach())
    if lost is not None and ledger.close(as_array(lost), Status.NON_FINITE):
        x, alive = where(lost, torch.zeros_like(x), x), ledger.running
        if not alive.any():
            _record(ledger, x, t, True, recorder)
            return _solution(process, ledger, x, 0, recorder)
        if compact:
            process, noise, x, _ = _without_left(ledger, process, noise, x)
            start, alive = controller.start(process, x), None
            t = number(start.t)
    solver_state = solver.init(process, x, start)
    ledger.nfe[ledger.rows[ledger.running]] += process.network.calls
    stop: Node | None
    stop, control = controller.first(process, solver, x, start, solver_state)
    _record(ledger, x, t, True, recorder)
    look_every = 1 if x.device.type == "cpu" else _DEVICE_CHECK_EVERY
    step = 0
    while stop is not None:
        if max_steps is not None and step >= max_steps:
            ledger.close_all(Status.MAX_STEPS)
            break
        calls = process.network.calls
        try:
            result = solver.step(process, x, start, stop, solver_state, noise)
        except StepFailed as failure:  # a library gave up, and with it the whole batch
            ledger.account(process.network.calls - calls, False, t)
            ledger.close(as_array(failure.samples), _STATUS[type(failure.error)])
            ledger.close_all(Status.STOPPED)
            if throw:
                failure.error.partial = _solution(process, ledger, x, step, recorder)
                raise failure.error from failure.__cause__
            break
        if not isinstance(result, StepResult) or result.x.shape != x.shape:
            raise InvalidArgumentError(
                f"The solver {solver.name!r} must return a StepResult with x of shape {tuple(x.shape)}, got "
                f"{tuple(result.x.shape) if isinstance(result, StepResult) else type(result).__name__}."
            )
        decision = controller.adapt(process, solver, x, start, stop, result, control)
        step += 1
        before, left = x, t
        accept: bool | np.ndarray = as_array(decision.accept)
        x, solver_state = _advance(accept, alive, result, x, solver_state)
        start, stop, control = decision.start, decision.stop, decision.state
        t = number(start.t)
        ledger.account(process.network.calls - calls, accept, t)
        bad = as_array(decision.non_finite)
        if accept is True and (step % look_every == 0 or stop is None) and not math.isfinite(float(x.detach().sum())):
            bad = as_array(~row_finite(x))
            x = where(bad, before, x)
        changed = ledger.close(bad, Status.NON_FINITE)
        if changed and accept is True:
            ledger.undo(t, left)
        if changed and throw:
            raise _non_finite(process, ledger, step, t, x, recorder)
        changed |= ledger.close(as_array(decision.done), Status.SUCCESS)
        underflow = ledger.close(as_array(decision.underflow), Status.STEP_UNDERFLOW)
        if underflow and throw:
            break
        if solver.lands and stop is not None:
            landed, ends = controller.land(process, solver, x, start, stop, solver_state, noise, control)
            landed = landed & ledger.running
            if landed.any():
                _record(ledger, x, t, accept, recorder)  # what the landing leaves behind
                here = torch.from_numpy(landed).to(x.device)
                x, start = where(here, ends, x), either(here, stop, start)
                t = number(start.t)
                ledger.account(0, landed, t, landed)
                changed |= ledger.close(landed, Status.SUCCESS)
                accept = landed
        _record(ledger, x, t, accept, recorder)
        if callback is not None and _is_true(callback(_info(ledger, x, t, step))):
            if stop is not None:
                ledger.close_all(Status.STOPPED)
            break
        if progress is not None:
            _show(progress, ledger, first_t, controller, step)
        if changed or underflow:
            running = ledger.running
            if not running.any():
                break
            alive = running
            if compact:
                process, noise, x, keep = _without_left(ledger, process, noise, x)
                solver_state, alive = take(solver_state, keep), None
                if isinstance(t, Tensor):
                    start, control = some(start, keep), take(control, keep)
                    stop = None if stop is None else some(stop, keep)
    if stop is None:
        ledger.close_all(Status.SUCCESS)
    advice = "take fewer steps" if isinstance(controller, FixedGrid) else "loosen rtol and atol"
    return _finish(process, ledger, x, step, recorder, throw, f"max_steps={max_steps} is used up; raise it, {advice}")


def _without_left(ledger: _Ledger, process: Process, noise: Noise, x: Tensor) -> tuple[Process, Noise, Tensor, Tensor]:
    """Process, noise and state without the samples that have left, and the places of those that stay."""
    running = ledger.running
    ledger.x = ledger.whole(x)
    ledger.rows, keep = ledger.rows[running], torch.from_numpy(running.nonzero()[0]).to(x.device)
    return process.take(keep), noise.take(keep), x[keep], keep


def _record(ledger: _Ledger, x: Tensor, t: float | Tensor, moved: bool | np.ndarray, recorder: Recorder | None) -> None:
    """Keep the states after a move."""
    if recorder is not None:
        times, whole = _seen(ledger, x, t)
        recorder.record(times, whole, _moved(ledger, moved))


def _info(ledger: _Ledger, x: Tensor, t: float | Tensor, step: int) -> Info:
    """What a callback is told."""
    times, whole = _seen(ledger, x, t)
    return Info(step, times, whole.clone(), torch.from_numpy(ledger.nfe.copy()))


def _seen(ledger: _Ledger, x: Tensor, t: float | Tensor) -> tuple[float | Tensor, Tensor]:
    """Times and states of the whole batch; a failed sample has no state at later times."""
    ledger.flush()
    whole = ledger.whole(x)
    lost = (ledger.status == Status.NON_FINITE) | (ledger.status == Status.STEP_UNDERFLOW)
    if lost.any():
        whole = where(lost, torch.full_like(whole, torch.nan), whole)
    return torch.from_numpy(ledger.t.copy()) if isinstance(t, Tensor) else t, whole


def _is_true(value: Any) -> bool:
    """Whether a callback returned True, in Python's, NumPy's or torch's form."""
    return value is True or (str(getattr(value, "dtype", "")).rpartition(".")[2] == "bool" and bool(value))


def _advance(
    accept: bool | np.ndarray, alive: np.ndarray | None, result: Any, x: Tensor, state: Any
) -> tuple[Tensor, Any]:
    """The accepted rows of a step's state and memory (that of samples that have left does not matter)."""
    mask = accept if alive is None else alive if accept is True else accept & alive
    if mask is True:
        return result.x, result.state
    before = state if result.rejected is None else result.rejected
    moved = np.count_nonzero(mask)
    if not moved:  # a rejected trial leaves no trace in a gradient
        return x, before
    every = result.state is None or accept is True or moved == len(x)
    memory = result.state if every else where(accept, result.state, before)  # type: ignore[arg-type]
    return result.x if moved == len(x) else where(mask, result.x, x), memory  # type: ignore[arg-type]


def _moved(ledger: _Ledger, accept: bool | np.ndarray) -> Tensor | None:
    """Which samples of the whole batch have just moved, or None for all."""
    if accept is True:
        return None
    moved = np.zeros(len(ledger.x), dtype=bool)
    moved[ledger.rows] = accept
    return torch.from_numpy(moved)


def _show(progress: Any, ledger: _Ledger, first_t: np.ndarray, controller: Any, step: int) -> None:
    """Move the bar to the mean share of the way that samples have gone."""
    ledger.flush()
    if hasattr(controller, "steps"):
        share = step / controller.steps
    else:
        share = float(((ledger.t - first_t) / (controller.targets[-1] - first_t)).mean()) if len(first_t) else 1.0
    progress.update(progress.total * share - progress.n)


def _non_finite(
    process: Process, ledger: _Ledger, step: int, t: float | Tensor, x: Tensor, recorder: Recorder | None
) -> NonFiniteError:
    bad = ledger.status[ledger.rows] == Status.NON_FINITE
    rows = ledger.rows[bad].tolist()
    seen = process.network.last
    stage = "score" if any(not as_array(row_finite(v))[bad].all() for v in seen if len(v) == len(bad)) else "state"
    time = float(as_array(t)[bad][0] if isinstance(t, Tensor) else t)
    what = (
        "The score function returned NaN or infinity"
        if stage == "score"
        else "The state became NaN or infinite, though the score was finite"
    )
    hint = (
        "check the network at this time (scoresde.check_score)"
        if stage == "score"
        else "take more steps, or a method with smaller error"
    )
    ledger.close_all(Status.STOPPED)
    partial = _solution(process, ledger, x, step, recorder)
    return NonFiniteError(
        f"{what} in {len(rows)} of {len(ledger.x)} samples (first: {rows[:5]}) at step {step}, t={time:.6g}; {hint}, "
        f"or pass throw=False "
        "to let the other samples finish.",
        stage=stage,
        step=step,
        t=time,
        indices=rows[:5],
        partial=partial,
    )


_STATUS: dict[type[ScoreSDEError], Status] = {
    NonFiniteError: Status.NON_FINITE,
    MaxStepsError: Status.MAX_STEPS,
    StepSizeUnderflowError: Status.STEP_UNDERFLOW,
}
_FAILURES: dict[Status, type[MaxStepsError] | type[StepSizeUnderflowError]] = {
    Status.MAX_STEPS: MaxStepsError,
    Status.STEP_UNDERFLOW: StepSizeUnderflowError,
}
_UNDERFLOW = "the step size fell below what the clock resolves; loosen rtol and atol, use float64"


def _solution(process: Process, ledger: _Ledger, x: Tensor, step: int, recorder: Recorder | None) -> Solution:
    ledger.flush()
    final = ledger.whole(x)
    failed = (
        (ledger.status == Status.NON_FINITE)
        | (ledger.status == Status.STEP_UNDERFLOW)
        | (ledger.status == Status.MAX_STEPS)
    )
    if failed.any():
        final = where(failed, torch.full_like(final, torch.nan), final)
    ts, xs = recorder.result(final) if recorder is not None else (None, None)
    return Solution(
        final,
        torch.from_numpy(ledger.t),
        torch.from_numpy(ledger.nfe),
        step,
        torch.from_numpy(ledger.accepted),
        torch.from_numpy(ledger.rejected),
        process.network.calls,
        torch.from_numpy(ledger.status),
        ts,
        xs,
    )


def _finish(
    process: Process,
    ledger: _Ledger,
    x: Tensor,
    step: int,
    recorder: Recorder | None,
    throw: bool,
    limit: str,
) -> Solution:
    if throw:
        for status, error in _FAILURES.items():
            rows = (ledger.status == status).nonzero()[0].tolist()
            if rows:
                ledger.close_all(Status.STOPPED)
                raise error(
                    f"{len(rows)} of {len(ledger.x)} samples (first: {rows[:5]}) did not arrive: at "
                    f"t={float(ledger.t[rows[0]]):.6g} after "
                    f"{step} steps: {limit if status is Status.MAX_STEPS else _UNDERFLOW}, "
                    "or pass throw=False to let the others finish.",
                    partial=_solution(process, ledger, x, step, recorder),
                )
    return _solution(process, ledger, x, step, recorder)


__all__ = ["Info", "Recorder", "Solution", "Status", "integrate"]
