"""The loop of all solves, in either direction, with fixed or adaptive steps.

The loop takes the next node from the controller, lets the solver step, accepts per sample, checks that everything is
finite, saves, calls back, and drops finished samples when the network allows it. It alone counts evaluations and
enforces limits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..solvers.base import Node, Process, Solver, StepFailed, StepResult
from .controllers import Controller, FixedGrid
from .errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MaxStepsError,
    NonFiniteError,
    ScoreSDEError,
    StepSizeUnderflowError,
)
from .noise import Noise
from .processes import Asking, Request, result_of
from .processes.requests import refuse_request
from .recorder.plan import Plan, plan_of
from .sdes.records import either, some
from .solution import Info, Solution, Status
from .support.checks import form, refuse_rows
from .support.snapshot import pack, unpack
from .support.tensors import as_array, number, row_finite, take, transforming, where

_RUNNING = -1  # beside the values of `Status`
EVERY = 32  # steps between two reads of another device


class Recorder:
    """Keeps the states at given times (each hit exactly by the controller), or of every step."""

    def __init__(self, save_at: Sequence[float] | str) -> None:
        self.every = save_at == "steps"
        self.wanted = [] if self.every else [float(t) for t in save_at]
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

    What steps add to samples under way is kept (in numbers, while they move together) until they part, or the
    result is needed: then `flush` spreads it.
    """

    def __init__(self, x: Tensor, t: float | Tensor) -> None:
        batch = len(x)
        self.batch = batch
        self.left: Tensor | None = None  # the whole batch's state when samples left last
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
        """Which of the samples in the loop are under way."""
        return self.status[self.rows] == _RUNNING

    def whole(self, x: Tensor) -> Tensor:
        """The whole batch's state, given that of the samples in the loop."""
        if self.left is None:
            return x
        return self.left.index_copy(0, torch.from_numpy(self.rows).to(x.device), x)

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
        """Give a status to samples of the loop that are under way (None: to none); return whether there were any."""
        if which is None or not np.count_nonzero(which):
            return False
        rows = self.rows[which & self.running]
        if not len(rows):
            return False
        self.flush()
        self.status[rows] = status
        return True

    def undo(self, found: Found) -> None:
        """Samples that have just failed did not make the step after which they were not finite for the first time,
        nor those after it: they are where it began."""
        for ago in sorted({*found.ago[found.ago > 0].tolist()}):
            rows = self.rows[(found.ago == ago) & (self.status[self.rows] == Status.NON_FINITE)]
            left = as_array(found.window[-ago][0])
            self.accepted[rows] -= ago
            self.rejected[rows] += 1
            self.nfe[rows] -= sum(used for _, used in found.window[len(found.window) - ago + 1 :])
            self.t[rows] = left[rows] if isinstance(left, np.ndarray) else left

    def close_all(self, status: Status) -> None:
        """Give a status to all samples under way."""
        self.flush()
        self.status[self.rows[self.running]] = status


class Found(NamedTuple):
    """Samples that are not finite.

    Fields: how many steps ago each of them was so for the first time, ``(batch,)``: 1 for the last step, 0 for a sample
    that is finite; whether the score was not finite in that step, ``(batch,)`` bool; and for each of the last steps the
    time where it began and its evaluations.
    """

    ago: np.ndarray
    wrong: np.ndarray
    window: Sequence[tuple[float | Tensor, int]]

    @property
    def first(self) -> Found:
        """Those that were not finite first."""
        return self._replace(ago=np.where(self.ago == self.ago.max(), self.ago, 0))


class Watch:
    """Examines the states of a solve after each step that all samples make.

    On the host one sum shows at once whether all numbers are finite. A device is not waited for: the largest number of
    each sample, and of its scores, is written to a table there, which is read after `EVERY` steps and at the end.

    Args:
        x: the state at the start.

    Attributes:
        late: whether what is found may be some steps old.
    """

    def __init__(self, x: Tensor) -> None:
        self.late = waits(x)
        self._table: Sequence[Tensor] = ()
        self._window: list[tuple[float | Tensor, int]] = []

    def fine(self, x: Tensor) -> bool:
        """Whether all samples are known to be finite, without waiting for a device."""
        return not self.late and math.isfinite(x.sum().item())

    def look(self, x: Tensor, outputs: Sequence[Tensor], left: float | Tensor, used: int, *, now: bool) -> Found | None:
        """What is not finite after a step; None if nothing is, or if it is not read yet, unless that must be ``now``.

        Args:
            x, outputs: the state, and what the network returned last.
            left, used: the time where the step began, and its evaluations.
        """
        if not self.late:
            bad = ~as_array(row_finite(x))
            return Found(bad.astype(np.int64), wrong_rows(outputs, len(x)), [(left, used)]) if bad.any() else None
        if not len(self._table) or self._table[0].shape[1] != len(x):
            self._table, self._window = x.new_zeros((EVERY, 2, len(x))).unbind(), []
        row = self._table[len(self._window)]
        for part, tensors in zip(row, ((x,), outputs), strict=True):
            _largest(tensors, part)
        self._window.append((left, used))
        if not now and len(self._window) < EVERY:
            return None
        window, self._window = self._window, []
        good = np.isfinite(torch.stack(list(self._table[: len(window)])).cpu().numpy())  # (steps, 2, batch)
        bad = ~good[:, 0]
        since = bad.argmax(0)
        wrong = ~np.take_along_axis(good[:, 1], since[None], 0)[0]
        return Found(np.where(bad.any(0), len(bad) - since, 0), wrong, window) if bad.any() else None


def waits(x: Tensor) -> bool:
    """Whether the host waits for a tensor's device where it reads a number.

    Example:
        >>> waits(torch.zeros(1))
        False
    """
    return not x.is_cpu


def wrong_rows(outputs: Sequence[Tensor], batch: int) -> np.ndarray:
    """Of which samples an output of the network is not finite, ``(batch,)`` bool.

    Example:
        >>> wrong_rows([torch.tensor([[0.0], [torch.inf]])], 2)
        array([False,  True])
    """
    wrong = np.zeros(batch, dtype=bool)
    for value in outputs:
        if len(value) == batch:
            wrong |= ~as_array(row_finite(value))
    return wrong


def _largest(tensors: Sequence[Tensor], out: Tensor) -> None:
    """Write the largest absolute value of each sample, 0 where there is none; NaN is larger than any."""
    first = True
    for value in tensors:
        if len(value) != len(out) or not value.numel():
            continue
        value, over = value.detach(), tuple(range(1, value.ndim))
        if first:
            torch.linalg.vector_norm(value, math.inf, over, dtype=out.dtype, out=out)
        else:
            torch.maximum(out, torch.linalg.vector_norm(value, math.inf, over, dtype=out.dtype), out=out)
        first = False
    if first:
        out.zero_()


def progress_bar(name: str | None) -> AbstractContextManager[Any]:
    """A bar in percent on standard error; None for no name."""
    if name is None:
        return nullcontext()
    shape = "{desc} {bar} {percentage:3.0f}% [{elapsed}<{remaining}]"
    return tqdm(total=100, desc=name, unit="%", file=sys.stderr, bar_format=shape)


_recorded: ContextVar[bool] = ContextVar("recorded", default=True)


@contextmanager
def step_by_step() -> Iterator[None]:
    """Inside this context a solve runs the ``step`` of its method at every step, where it otherwise repeats what was
    recorded of it before the first one: a debugger stops in it. The results are the same, bit for bit. A solve with
    ``path_log_prob`` is always recorded.

    Example:
        >>> sde, x = scoresde.VPSDE(), torch.ones(1, 2)
        >>> with step_by_step():
        ...     slow = scoresde.solve(sde, lambda x, t: -x, x, method="ddim", steps=4).x
        >>> bool(
        ...     (
        ...         slow == scoresde.solve(sde, lambda x, t: -x, x, method="ddim", steps=4).x
        ...     ).all()
        ... )
        True
    """
    token = _recorded.set(False)
    try:
        yield
    finally:
        _recorded.reset(token)


def integrate(
    process: Process, solver: Solver, controller: Controller, x: Tensor, noise: Noise, **options: Any
) -> Solution:
    """Run a solver from the controller's first time to its last; the arguments are those of `Loop`.

    Raises:
        NonFiniteError: a state or a score is not finite.
        StepSizeUnderflowError: the tolerance requires steps that the clock cannot resolve.
        MaxStepsError: ``max_steps`` were used up.
    """
    loop = Loop(process, solver, controller, x, noise, **options)
    loop.complete()
    return loop.finish()


class Loop:
    """One solve: the samples that are still in the loop, and the stages of a step.

    Args:
        process: what is stepped.
        solver, controller: how, and where.
        x: the state at the start, ``(batch, *event)``, float32 or wider.
        noise: the only source of randomness.
        compact: drop finished samples from the batch.
        throw: raise at the first failure; otherwise failed samples become NaN and the others go on, and those that are
            not finite at the start are never evaluated.
        recorder: keeps states on the way.
        callback: called as ``callback(info)`` after each step; True stops the solve.
        progress: a bar to move, in percent.
        max_steps: steps of the loop at most.
        planner: makes the plan of a solve on a fixed grid, or None.

    Attributes:
        x, start, stop: the state of the samples in the loop, where they are, and where the next step ends; None when
            all have arrived.
        memory, control: the solver's state and the controller's.
        run: the steps by a plan, where there is one.
        alive: which of the samples in the loop are under way; None for all.
        changed: whether a sample has left since the batch was last cut.
        replaced: whether another state was put in the place of that before the next step.
        seen: whether states are used on the way, by a callback or a recorder, so that what is not finite must be found
            at once.
        limit: the most steps.
    """

    def __init__(
        self,
        process: Process,
        solver: Solver,
        controller: Controller,
        x: Tensor,
        noise: Noise,
        *,
        compact: bool = False,
        throw: bool = True,
        recorder: Recorder | None = None,
        callback: Callable[[Info], object] | None = None,
        progress: tqdm | None = None,
        max_steps: int | None = None,
        planner: Callable[[Process, Solver, Tensor, Tensor], Plan | None] = plan_of,
    ) -> None:
        self.process, self.solver, self.controller = replace(process, noise=noise), solver, controller
        self.compact, self.recorder, self.throw = compact, recorder, throw
        self.callback, self.progress, self.limit = callback, progress, max_steps
        self.seen = callback is not None or (recorder is not None and not throw)
        process.network.remembers |= callback is not None
        plan: Plan | None = None
        plain = throw and not (torch.is_grad_enabled() or transforming())
        if isinstance(controller, FixedGrid) and plain and (_recorded.get() or planner is not plan_of):
            plan = planner(process, solver, controller.times, x)
        self.run = None if plan is None else plan.run(noise, x)
        self.x = x
        self.start = controller.start(process, x) if plan is None else plan.nodes[0]
        self.t = number(self.start.t)
        self.ledger = _Ledger(x, self.t)
        self.first_t = self.ledger.t.copy()
        self.alive: np.ndarray | None = None
        self.changed = False
        self.step = self.calls = 0
        self.watch = Watch(x)
        self.memory: Any = None
        self.control: Any = None
        self.stop: Node | None = None if plan is None else plan.nodes[1]
        self.begun = self.replaced = False

    def complete(self) -> None:
        """Make all turns, and answer their requests."""
        turns, answer = self.turns(), None
        while True:
            try:
                request = turns.send(answer)
            except StopIteration:
                return
            if not isinstance(request, Request):
                refuse_request(request)
            answer = request.answer(self.process)
            del request  # and the state that it holds

    def turns(self) -> Asking[None]:
        """All turns."""
        while (yield from self.turn()):
            pass

    def turn(self) -> Asking[bool]:
        """Begin, or go on by a step; returns whether a step follows. A turn that is left before its step is made can be
        made again."""
        if not self.begun:
            yield from self._begin()
            return self.stop is not None
        if self.limit is not None and self.step >= self.limit:
            self.ledger.close_all(Status.MAX_STEPS)
            return False
        # step, and judge: accept, move, close what has failed or arrived
        try:
            stop: Any = self.stop
            if self.run is None:
                moved = yield from self.advance(stop)
            else:
                self.x = None  # type: ignore[assignment]  # the plan holds it as long as the step needs it
                self.x = yield from self.run.step(self.step)
                moved = self._repeated(stop, self.run.plan.nodes)
        except StepFailed as failure:
            self.give_up(failure)
            return False
        if moved is None:
            return False
        if self.solver.adaptive and self.stop is not None:
            moved = yield from self.land(self.stop, moved)
        # save, call back, show
        if self.recorder is not None:
            self.record(moved)
        if self.callback is not None and self.stopped(self.callback):
            return False
        if self.progress is not None:
            self.show(self.progress)
        # leave out what has finished
        if self.changed and not self.drop():
            return False
        return self.stop is not None

    def _begin(self) -> Asking[None]:
        """What comes before the first step."""
        if self.run is None and (self.throw or self._left_out()):  # where no sample is finite, there is nothing to do
            yield from self._prepare()
        self.record(True)
        self.begun = True

    def _prepare(self) -> Asking[None]:
        """Prepare the solver and the controller, where there is no plan."""
        process, solver, controller = self.process, self.solver, self.controller
        self.memory = yield from result_of(solver.init(process, self.x, self.start))
        self.ledger.nfe[self.ledger.rows[self.ledger.running]] += self.used()
        self.stop, self.control = controller.first(process, solver, self.x, self.start, self.memory)

    def _left_out(self) -> bool:
        """Leave out the samples that are not finite; returns whether others are there."""
        lost = as_array(~row_finite(self.x.detach()))
        if self.ledger.close(lost, Status.NON_FINITE):
            self.x = where(lost, torch.zeros_like(self.x), self.x)
            if not self.drop():
                return False
            if self.compact:
                self.start = self.controller.start(self.process, self.x)
                self.t = number(self.start.t)
        return True

    def used(self) -> int:
        """Evaluations since the last call."""
        before, self.calls = self.calls, self.process.network.calls
        return self.calls - before

    def give_up(self, failure: StepFailed) -> None:
        """Close the whole batch, as a library has failed with it."""
        self.ledger.account(self.used(), False, self.t)
        self.ledger.close(as_array(failure.samples), _STATUS[type(failure.error)])
        self.ledger.close_all(Status.STOPPED)
        if self.throw:
            failure.error.partial = self.solution()
            raise failure.error from failure.__cause__

    def _repeated(self, stop: Node, nodes: Sequence[Node]) -> bool | np.ndarray | None:
        """Go on after a step by the plan on some nodes. Returns which samples have moved, as `advance` does."""
        left, self.start, self.t = self.t, stop, stop.t
        self.step += 1
        self.stop = nodes[self.step + 1] if self.step + 1 < len(nodes) else None
        found = self._look(left)
        return True if found is None else self._close(True, None, None, None, found)

    def advance(self, stop: Node) -> Asking[bool | np.ndarray | None]:
        """Make a step, and say which samples have moved: the controller accepts, samples move on, and those that fail
        or arrive are closed. None where a step size underflowed, which is an error."""
        if self.replaced:  # until a step is made, since one that waits for an answer is made again
            self.memory = yield from result_of(self.solver.init(self.process, self.x, self.start))
        result = yield from result_of(self.solver.step(self.process, self.x, self.start, stop, self.memory))
        if not isinstance(result, StepResult) or result.moved.shape != self.x.shape:
            raise InvalidArgumentError(
                f"The solver {type(self.solver).__name__} must return a StepResult with x of shape "
                f"{tuple(self.x.shape)}, got "
                f"{tuple(result.moved.shape) if isinstance(result, StepResult) else type(result).__name__}."
            )
        decision = self.controller.adapt(self.process, self.solver, self.x, self.start, stop, result, self.control)
        accept, done, bad, tiny = (True, None, None, None) if decision.together else decision.masks()
        self.step, self.replaced = self.step + 1, False
        left, before = self.t, None if self.throw or self.watch.late else self.x
        if accept is True and self.alive is None:
            self.x, self.memory = result.x, result.state
        else:
            self.x, self.memory = _advance(accept, self.alive, result, self.x, self.memory)
        self.start, self.stop, self.control = decision.start, decision.stop, decision.state
        self.t = number(self.start.t)
        found = None
        if accept is True:
            found = self._look(left)
            if found is None and decision.together:
                return True
        else:
            self.ledger.account(self.used(), accept, self.t)
        return self._close(accept, done, bad, tiny, found, before)

    def _look(self, left: float | Tensor) -> Found | None:
        """Account for a step that all samples have made, and find what is not finite."""
        used = self.used()
        self.ledger.account(used, True, self.t)
        if self.watch.fine(self.x):
            return None
        now = self.stop is None or self.seen or self.step == self.limit
        return self.watch.look(self.x, self.process.network.last, left, used, now=now)

    def _close(
        self,
        accept: bool | np.ndarray,
        done: np.ndarray | None,
        bad: np.ndarray | None,
        tiny: np.ndarray | None,
        found: Found | None,
        before: Tensor | None = None,
    ) -> bool | np.ndarray | None:
        """Close samples that are done, bad or tiny after a step. Those found not to be finite have not moved: their
        state is that before the step, or zero."""
        ledger = self.ledger
        if found is not None:
            found = found.first if self.throw else found
            bad = found.ago > 0
            self.x = where(bad, torch.zeros_like(self.x) if before is None else before, self.x)
        failed = ledger.close(bad, Status.NON_FINITE)
        if failed and found is not None:
            ledger.undo(found)
        if failed and self.throw:
            self._refuse_non_finite(found)
        arrived = ledger.close(done, Status.SUCCESS)
        underflow = ledger.close(tiny, Status.STEP_UNDERFLOW)
        self.changed = failed or arrived or underflow
        return None if underflow and self.throw else accept

    def land(self, stop: Node, moved: bool | np.ndarray) -> Asking[bool | np.ndarray]:
        """Samples that can go to the end without another evaluation do. Returns which have moved last."""
        possible = yield from self.controller.land(
            self.process, self.solver, self.x, self.start, stop, self.memory, self.control
        )
        if possible is None or not (landed := possible[0] & self.ledger.running).any():
            return moved
        self.record(moved)  # what the landing leaves behind
        here = torch.from_numpy(landed).to(self.x.device)
        self.x, self.start = where(here, possible[1], self.x), either(torch.from_numpy(landed), stop, self.start)
        self.t = number(self.start.t)
        self.ledger.account(0, landed, self.t, landed)
        self.changed |= self.ledger.close(landed, Status.SUCCESS)
        return landed

    def record(self, moved: bool | np.ndarray) -> None:
        """Keep the states after a move."""
        if self.recorder is not None:
            times, whole = self._seen()
            self.recorder.record(times, whole, _moved(self.ledger, moved))

    def stopped(self, callback: Callable[[Info], object]) -> bool:
        """Call back; returns whether that ends the solve."""
        times, whole = self._seen()
        info = Info(self.step, times, whole.clone(), torch.from_numpy(self.ledger.nfe.copy()))
        info._estimate = self._denoised
        stop = _is_true(callback(info))
        info._estimate = None
        if not stop:
            return False
        if self.stop is not None:
            self.ledger.close_all(Status.STOPPED)
        return True

    def _denoised(self) -> Tensor:
        """The data estimate of the last evaluation, whole batch."""
        data, ledger = self.process.network.denoised(), self.ledger
        if data is None or not self.process.sde.affine:
            raise InvalidArgumentError("`denoised` needs an evaluation, and a process with alpha and sigma.")
        if ledger.left is None:
            return data
        gone = torch.full_like(ledger.left, torch.nan)
        return gone.index_copy(0, torch.from_numpy(ledger.rows).to(data.device), data)

    def _seen(self) -> tuple[float | Tensor, Tensor]:
        """Times and states of the whole batch; a failed sample has no state at later times."""
        ledger = self.ledger
        ledger.flush()
        whole = ledger.whole(self.x)
        lost = (ledger.status == Status.NON_FINITE) | (ledger.status == Status.STEP_UNDERFLOW)
        if lost.any():
            whole = where(lost, torch.full_like(whole, torch.nan), whole)
        return torch.from_numpy(ledger.t.copy()) if isinstance(self.t, Tensor) else self.t, whole

    def show(self, progress: tqdm) -> None:
        """Move the bar to the mean share of the way that samples have gone."""
        self.ledger.flush()
        share = self.controller.share(self.step, self.first_t, self.ledger.t)
        progress.update(progress.total * share - progress.n)

    def drop(self) -> bool:
        """Leave out the samples that have finished, if the batch may be cut. Returns whether any are under way."""
        ledger, running = self.ledger, self.ledger.running
        if not running.any():
            return False
        self.alive = running
        if self.compact:
            ledger.left = ledger.whole(self.x)
            ledger.rows, kept = ledger.rows[running], torch.from_numpy(running.nonzero()[0])
            keep = kept.to(self.x.device)
            self.process = self.process.take(keep)
            self.x, self.memory, self.alive = self.x[keep], take(self.memory, keep), None
            if isinstance(self.t, Tensor):
                self.start, self.control = some(self.start, kept), take(self.control, kept)
                self.stop = None if self.stop is None else some(self.stop, kept)
        else:
            self.process.noise.finish(torch.from_numpy(~running))
        return True

    def _refuse_non_finite(self, found: Found | None) -> None:
        """Raise the error of a score or a state that is not finite."""
        ledger, t, step = self.ledger, self.t, self.step
        lost = ledger.status == Status.NON_FINITE
        bad = lost[ledger.rows]
        ago = 1 if found is None else int(found.ago.max())
        wrong = wrong_rows(self.process.network.last, len(bad)) if found is None else found.wrong
        if found is not None and ago > 1:
            step, t = step - ago + 1, found.window[1 - ago][0]  # where the next step began
        stage = "score" if wrong[bad].any() else "state"
        time = float(as_array(t)[bad][0] if isinstance(t, Tensor) else t)
        what, hint = _NON_FINITE[stage]
        ledger.close_all(Status.STOPPED)
        why = f" at step {step}, t={time:.6g}; {hint}, or pass throw=False to let the other samples finish"
        refuse_rows(torch.from_numpy(lost), f"{what} in", why, stage, step=step, t=time, partial=self.solution())

    def solution(self) -> Solution:
        ledger = self.ledger
        ledger.flush()
        final = ledger.whole(self.x)
        if _LOST[ledger.status].any():
            final = where(_LOST[ledger.status], torch.full_like(final, torch.nan), final)
        ts, xs = self.recorder.result(final) if self.recorder is not None else (None, None)
        return Solution(
            x=final,
            t=torch.from_numpy(ledger.t),
            nfe=torch.from_numpy(ledger.nfe),
            steps=self.step,
            accepted=torch.from_numpy(ledger.accepted),
            rejected=torch.from_numpy(ledger.rejected),
            evaluations=self.process.network.calls,
            status=torch.from_numpy(ledger.status),
            ts=ts,
            xs=xs,
        )

    def replace(self, x: Tensor) -> None:
        """Go on from another state, between two steps. What an adaptive method has kept, such as the derivative there,
        is that of the state before, and is made again."""
        self.x = x
        self.replaced = self.begun and self.solver.adaptive
        if self.run is not None:
            self.run.replace(self.step, x)

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in plain parts (see `_snapshot`)."""
        self.ledger.flush()
        state = {name: pack(getattr(self, name)) for name in (*_MOVES, "ledger", "watch", "recorder")}
        run = None if self.run is None else [self.run.at, pack(self.run.values)]
        return state | {"noise": self.process.noise.state_dict(), "run": run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loop was that was made with the same arguments."""
        for name in ("ledger", "watch", "recorder"):
            unpack(state[name], getattr(self, name))
        for name in _MOVES:
            setattr(self, name, unpack(state[name]))
        self.process.noise.load_state_dict(state["noise"])
        if self.run is not None:
            self.run.at, self.run.values[:] = state["run"][0], unpack(state["run"][1])

    def finish(self) -> Solution:
        """The solution, or the error of samples that did not arrive."""
        ledger = self.ledger
        if self.stop is None:
            ledger.close_all(Status.SUCCESS)
        for status, error in _FAILURES.items() if self.throw and ledger.status.any() else ():
            rows = (ledger.status == status).nonzero()[0].tolist()
            if not rows:
                continue
            advice = "take fewer steps" if isinstance(self.controller, FixedGrid) else "loosen rtol and atol"
            limit = f"max_steps={self.limit} is used up; raise it, {advice}"
            reason = limit if status is Status.MAX_STEPS else _UNDERFLOW
            ledger.close_all(Status.STOPPED)
            raise error(
                f"{len(rows)} of {ledger.batch} samples (first: {rows[:5]}) did not arrive: at "
                f"t={float(ledger.t[rows[0]]):.6g} after {self.step} steps: {reason}, or pass throw=False to let the "
                "others finish.",
                partial=self.solution(),
            )
        return self.solution()


# What changes in a step.
_MOVES = ("x", "memory", "control", "start", "stop", "t", "alive", "changed", "step", "calls", "begun", "replaced")


def _is_true(value: object) -> bool:
    """Whether a callback returned True, in Python's, NumPy's or torch's form."""
    if str(getattr(value, "dtype", "")).rpartition(".")[2] != "bool":
        return value is True
    if getattr(value, "ndim", 0):
        raise InvalidTypeError(
            f"`callback` must return True or False for all samples, got {form(value)}; to end single ones is for no "
            "callback. Try bool(mask.all())."
        )
    return bool(value)


def _advance(
    accept: bool | np.ndarray, alive: np.ndarray | None, result: Any, x: Tensor, state: Any
) -> tuple[Tensor, Any]:
    """The accepted rows of x and of the solver state (those of samples that have left do not matter)."""
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
    moved = np.zeros(ledger.batch, dtype=bool)
    moved[ledger.rows] = accept
    return torch.from_numpy(moved)


_STATUS: dict[type[ScoreSDEError], Status] = {
    NonFiniteError: Status.NON_FINITE,
    MaxStepsError: Status.MAX_STEPS,
    StepSizeUnderflowError: Status.STEP_UNDERFLOW,
}
_FAILURES: dict[Status, type[MaxStepsError] | type[StepSizeUnderflowError]] = {
    Status.MAX_STEPS: MaxStepsError,
    Status.STEP_UNDERFLOW: StepSizeUnderflowError,
}
# By status, _RUNNING being the last: whether a sample is NaN in the result.
_LOST = np.isin([*Status, _RUNNING], (Status.NON_FINITE, Status.STEP_UNDERFLOW, Status.MAX_STEPS))
_UNDERFLOW = "the step size fell below what the clock resolves; loosen rtol and atol, use float64"
_NON_FINITE = {
    "score": (
        "The score function returned NaN or infinity",
        "check the network at this time (scoresde.check_score)",
    ),
    "state": (
        "The state became NaN or infinite, though the score was finite",
        "take more steps, or a method with smaller error",
    ),
}


__all__ = ["Recorder", "integrate", "step_by_step"]
