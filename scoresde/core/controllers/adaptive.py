"""Steps chosen from an error estimate, for each sample by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...solvers.base import Estimates, StepControl, of_power
from ..errors import InvalidArgumentError
from ..sdes.records import either
from ..support.tensors import as_array, expand, on_host, rms
from .base import Asking, Controller, Decision, Node, Process, Solver, StepResult

_TINY = 1e-10  # error norms below this count as this
_FAR = 12.0  # where an infinite log-SNR is on the clock
_SLIVER = 256.0  # an interval of so many units in the last place of t is one step
_EPS = float(np.finfo(np.float64).eps)
_UNSEEN = 0.25  # of the tolerance: what a step may err that no evaluation checks
_ULPS = 16.0  # a step of fewer units in the last place of t is an underflow


class AdaptiveState(NamedTuple):
    """Per sample, on the host: step size, last accepted error norm, trial steps with a NaN, which target time comes
    next; what the clock shows at the start of the step and at all target times; and the accepted steps."""

    h: np.ndarray
    last_error: np.ndarray
    non_finite: np.ndarray
    target: np.ndarray
    now: np.ndarray
    ends: np.ndarray
    taken: np.ndarray


@dataclass(frozen=True)
class Adaptive(Controller):
    r"""A PI controller with one time, step size and acceptance per sample.

    With :math:`e = \sqrt{\max(1, n/m)}\,\mathrm{RMS}[\,\mathrm{error}/(\mathrm{atol} + \mathrm{rtol}\max(|x|, |x'|))]`
    over one sample's event in its step n, p the order of the pair, and m of the method, infinite for most (see
    `Adams`), a step is accepted if :math:`e \le 1`, and

    .. math:: h \leftarrow h\cdot\mathrm{clip}\big(c\, e^{-a/p}\, e_{last}^{b/p},\ 0.2,\ r\big),

    where the method's `StepControl` declares c (``safety``, 0.9), a and b (``gains``, 0.7 and 0.4) and r (``growth``,
    10). After a rejection the step does not grow. A trial step with a NaN is rejected and shrinks by five; the eighth
    is a failure. Steps land exactly on every target time.

    Args:
        targets: times to hit exactly, in order; the last is the end.
        t_start: the first time.
        rtol, atol: tolerances.

    Example:
        >>> Adaptive(t_start=1.0, targets=(0.5, 0.0), rtol=1e-3, atol=1e-3).rtol
        0.001

    References:
        Gustafsson (1991), Control theoretic techniques for stepsize selection in explicit Runge-Kutta methods.
    """

    t_start: float
    targets: tuple[float, ...]
    rtol: float
    atol: float
    shrink: float = 0.2
    attempts: int = 8

    def start(self, process: Process, x: Tensor) -> Node[Tensor]:
        """See `Controller.start`."""
        return process.sde.nodes(torch.full((len(x),), self.t_start, dtype=torch.float64))

    def first(
        self, process: Process, solver: Solver, x: Tensor, start: Node[Tensor], solver_state: object
    ) -> tuple[Node[Tensor], object]:
        """The first step is the solver's share of the way, or less: where the derivative is known, one that moves the
        state by a hundredth of itself. A small derivative does not justify a long one, at whose end an error estimate
        may be small by chance."""
        now, t = on_host(_clock(solver, start), start.t)
        ends = self._ends(process, solver, x)
        span = np.abs(ends[:, -1] - now)
        h = most = solver.control.first_step * span
        if isinstance(solver_state, Tensor):  # the first derivative
            scale = self.atol + self.rtol * x.detach().abs()
            size, speed = on_host(rms(x / scale), rms(solver_state / scale))
            with np.errstate(all="ignore"):
                h = np.nan_to_num(0.01 * size / speed, nan=0.0, posinf=np.inf)
            h = np.minimum(np.maximum(np.where(h > 0, h, most), 1e-6 * span), most)
        h = np.minimum(h, solver.control.longest)
        none = np.zeros(len(h), dtype=np.int64)
        state = AdaptiveState(h, np.ones_like(h), none, none, now, ends, none)
        return process.sde.nodes(torch.from_numpy(self._stop(process, solver, t, state))), state

    def _ends(self, process: Process, solver: Solver, x: Tensor) -> np.ndarray:
        """The target times on the solver's clock, ``(batch, targets)``."""
        times = torch.tensor(self.targets, dtype=torch.float64)
        (clocks,) = on_host(_clock(solver, process.sde.nodes(times)))
        return np.broadcast_to(clocks, (len(x), len(clocks)))

    def _target(self, state: AdaptiveState) -> np.ndarray:
        """The target time that comes next."""
        return np.array(self.targets)[state.target]

    def _stop(self, process: Process, solver: Solver, t: np.ndarray, state: AdaptiveState) -> np.ndarray:
        """The time at which a step from t ends: h later on the clock, at the next target if that is nearer, half-way if
        two steps would reach it."""
        way = state.ends[np.arange(len(t)), state.target] - state.now
        left, target = np.abs(way), self._target(state)
        moved = state.now + np.sign(way) * np.minimum(state.h, 0.5 * left)
        if solver.coordinate.lam is not None:
            (moved,) = on_host(process.nodes.times_at(torch.from_numpy(moved), solver.coordinate))
        moved = np.minimum(np.maximum(moved, np.minimum(t, target)), np.maximum(t, target))
        near = np.abs(target - t) <= _SLIVER * _EPS * np.maximum(np.abs(t), np.abs(target))
        return np.where(near | (state.h >= left * (1 - 1e-6)), target, moved)

    def adapt(
        self,
        process: Process,
        solver: Solver,
        x: Tensor,
        start: Node[Tensor],
        stop: Node[Tensor],
        result: StepResult,
        state: Any,
    ) -> Decision:
        """See `Controller.adapt`. Steps are constants to differentiation, and chosen on the host."""
        if result.error is None:
            raise InvalidArgumentError(
                f"The solver {solver.name!r} is adaptive, but its step returned no error estimate."
            )
        # nodes are on the host; what steps err comes there in one transfer
        ratios, factors, powers, used, usable = self._ratios(solver, x, result, result.error)
        total = result.x.detach().flatten(1).sum(1)
        norms, sums, then, t, end = on_host(ratios, total, _clock(solver, stop), start.t, stop.t)
        norms = norms if factors is None else norms * factors
        control = solver.control
        if control.many < math.inf:
            norms = norms * np.sqrt(np.maximum((state.taken + 1) / control.many, 1.0))[:, None]

        # accept what meets the tolerance
        error, p = norms[np.arange(len(t)), used], powers[used]
        finite = np.isfinite(error) & np.isfinite(sums)
        accept = finite & (error <= 1)
        bounded = np.maximum(np.where(finite, error, 1.0), _TINY)

        # the size of the next step
        factor = _factor(control, accept, bounded, state.last_error, p, norms, powers, usable, self.shrink)
        h = np.abs(then - state.now)
        h_next = h * np.where(finite, factor, self.shrink)
        # a step that was cut to land on a target does not shrink the next one
        h_next = np.where(accept & (h < state.h * (1 - 1e-6)), np.maximum(h_next, state.h), h_next)
        h_next = np.minimum(h_next, control.longest)

        # where the samples are now
        begin, now = np.where(accept, end, t), np.where(accept, then, state.now)
        hit = accept & (begin == self._target(state))
        done = hit & (state.target == len(self.targets) - 1)
        state = AdaptiveState(
            h=h_next,
            last_error=np.where(accept, np.maximum(bounded, 1e-4), state.last_error),
            non_finite=state.non_finite + ~finite,
            target=state.target + (hit & ~done),
            now=now,
            ends=state.ends,
            taken=state.taken + accept,
        )

        # where their next steps end; those that cannot go on stay where they are
        failed = state.non_finite >= self.attempts
        ends = self._stop(process, solver, begin, state)
        still = (h_next < _ULPS * _EPS * np.abs(now)) | (ends == begin)
        tiny = ~(done | failed | accept) & still
        times = torch.from_numpy(np.where(done | failed | tiny, begin, ends))
        moved = np.count_nonzero(accept)
        here = stop if moved == len(t) else either(torch.from_numpy(accept), stop, start)
        return Decision(accept, here, process.sde.nodes(times), state, done, failed, tiny)

    def land(
        self,
        process: Process,
        solver: Solver,
        x: Tensor,
        start: Node[Tensor],
        stop: Node[Tensor],
        memory: object,
        state: Any,
    ) -> Asking[tuple[np.ndarray, Tensor] | None]:
        """See `Controller.land`. All samples draw, whether it is their last step or not, since what others do must not
        change the draws of a sample."""
        result = yield from solver.land(process, x, start, stop, memory)
        if result is None:
            return None
        (t,) = on_host(stop.t)
        last = (state.target == len(self.targets) - 1) & (t == self.targets[-1])
        ratios, factors, _, used, _ = self._ratios(solver, x, result, result.error)  # type: ignore[arg-type]
        norms, sums = on_host(ratios, result.x.detach().flatten(1).sum(1))
        norms = norms if factors is None else norms * factors
        error = norms[np.arange(len(t)), used]
        return last & (error <= _UNSEEN) & np.isfinite(sums), result.x

    def _ratios(
        self, solver: Solver, x: Tensor, result: StepResult, error: Tensor | Estimates
    ) -> tuple[Tensor, np.ndarray | None, np.ndarray, np.ndarray, np.ndarray]:
        """The norms of the errors of all orders, ``(batch, orders)``, of which 1, times the factor that follows, just
        meets the tolerance; and the `Estimates`' factors, powers, used and usable, on the host."""
        if not isinstance(error, Estimates):  # one, of the method's order
            error = of_power(error, float(solver.ode_order or 1))
        powers, used, usable = (as_array(v) for v in error[1:4])
        factors = as_array(error.factors)
        if error.size is None:
            allowed = self.atol + self.rtol * torch.maximum(x.detach().abs(), result.x.detach().abs())
        else:
            allowed = expand((self.rtol * error.size.detach()).clamp_min(self.atol), x)
        scale = allowed.clamp_min(torch.finfo(x.dtype).tiny)
        return rms(error.values.detach() / scale[:, None], 2), factors, powers, used, usable


def _factor(
    control: StepControl,
    accept: np.ndarray,
    error: np.ndarray,
    last_error: np.ndarray,
    p: np.ndarray,
    norms: np.ndarray,
    powers: np.ndarray,
    usable: np.ndarray,
    shrink: float,
) -> np.ndarray:
    """The ratio of the next step to this one, computed by logarithms from the errors of this and the last step."""
    size, caution = np.log(error), math.log(control.safety)
    now_gain, last_gain = control.gains
    factor = caution + (last_gain * np.log(last_error) - now_gain * size) / p
    if norms.shape[1] > 1:  # another order may allow a longer step
        others = caution - np.log(np.maximum(norms, _TINY)) / powers
        factor = np.maximum(factor, np.where(usable, others, -np.inf).max(1))
    factor = np.where(accept, factor, caution - size / p)  # after a rejection only this error counts
    most = np.where(accept, math.log(control.growth), math.log(0.9))
    return np.exp(np.maximum(np.minimum(factor, most), math.log(shrink)))


def _clock(solver: Solver, node: Node[Tensor]) -> Tensor:
    """What the solver's clock shows; the ends of the noise and of the data are far, not infinitely far."""
    return torch.nan_to_num(solver.coordinate.clock(node), nan=torch.nan, posinf=_FAR, neginf=-_FAR)
