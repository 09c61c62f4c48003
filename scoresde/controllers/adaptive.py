"""Steps chosen from an error estimate, for each sample by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._tensors import where
from ..errors import InvalidArgumentError
from ..processes import Process
from ..sdes import Node
from ..solvers.base import Estimates, Solver, StepResult
from .base import Controller, Decision

_TINY = 1e-10  # error norms below this count as this
_FAR = 12.0  # where an infinite log-SNR is on the clock
_SLIVER = 256.0  # an interval of so many units in the last place of t is one step
_ULPS = 16.0  # a step of fewer units in the last place of t is an underflow


class AdaptiveState(NamedTuple):
    """Per sample: step size, last accepted error norm, trial steps with a NaN, which target time comes next; and what
    the clock shows at the start of the step and at all target times."""

    h: Tensor
    last_error: Tensor
    non_finite: Tensor
    target: Tensor
    now: Tensor
    ends: Tensor


@dataclass(frozen=True)
class Adaptive(Controller):
    r"""A PI controller with one time, step size and acceptance a sample.

    With :math:`e = \mathrm{RMS}[\,\mathrm{error}/(\mathrm{atol} + \mathrm{rtol}\max(|x|, |x'|))]` over one sample's
    event and p the order of the pair, a step is accepted if :math:`e \le 1`, and

    .. math:: h \leftarrow h\cdot\mathrm{clip}\big(0.9\, e^{-0.7/p}\, e_{last}^{0.4/p},\ 0.2,\ 10\big).

    After a rejection the step does not grow. A trial step with a NaN is rejected and shrinks by five; the eighth is a
    failure. Steps land exactly on every target time.

    Args:
        targets: times to hit exactly, in order; the last is the end.
        t_start: where to begin.
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

    def start(self, process: Process, x: Tensor) -> Node:
        """See `Controller.start`."""
        return process.sde.nodes(torch.full((len(x),), self.t_start, dtype=torch.float64, device=x.device))

    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, Any]:
        """The first step is the solver's share of the way, or less: where the derivative is known, one that moves the
        state by a hundredth of itself. A small derivative is no reason for a long one, at whose end an error estimate
        may be small by chance."""
        now, ends = _clock(solver, start), self._ends(process, solver, x)
        span = (ends[:, -1] - now).abs()
        h = most = solver.first_step * span
        if isinstance(solver_state, Tensor):  # the first derivative
            at, slope = x.detach(), solver_state.detach()
            scale = self.atol + self.rtol * at.abs()
            size, speed = _rms(at / scale), _rms(slope / scale)
            h = torch.nan_to_num(0.01 * size / speed, nan=0.0, posinf=torch.inf)
            h = torch.minimum(torch.where(h > 0, h, most).clamp_min(1e-6 * span), most)
        none = torch.zeros_like(h, dtype=torch.long)
        state = AdaptiveState(h, torch.ones_like(h), none, none, now, ends)
        return process.sde.nodes(self._stop(process, solver, start.t, state)), state

    def _ends(self, process: Process, solver: Solver, x: Tensor) -> Tensor:
        """The target times on the solver's clock, ``(batch, targets)``."""
        times = torch.tensor(self.targets, dtype=torch.float64, device=x.device)
        return _clock(solver, process.sde.nodes(times)).expand(len(x), -1)

    def _target(self, state: AdaptiveState) -> Tensor:
        """The target time that comes next."""
        if len(self.targets) == 1:
            return state.h.new_full((1,), self.targets[0])
        return state.h.new_tensor(self.targets)[state.target]

    def _stop(self, process: Process, solver: Solver, t: Tensor, state: AdaptiveState) -> Tensor:
        """The time at which a step from t ends: h later on the clock, at the next target if that is nearer, half-way if
        two steps would reach it."""
        way = state.ends.gather(1, state.target[:, None])[:, 0] - state.now
        left, target = way.abs(), self._target(state)
        moved = process.times_at(state.now + torch.sign(way) * torch.minimum(state.h, 0.5 * left), solver.coordinate)
        moved = torch.minimum(torch.maximum(moved, torch.minimum(t, target)), torch.maximum(t, target))
        near = (target - t).abs() <= _SLIVER * torch.finfo(torch.float64).eps * torch.maximum(t.abs(), target.abs())
        return torch.where(near | (state.h >= left * (1 - 1e-6)), target, moved)

    def adapt(
        self, process: Process, solver: Solver, x: Tensor, start: Node, stop: Node, result: StepResult, state: Any
    ) -> Decision:
        """See `Controller.adapt`. Steps are constants to differentiation."""
        if result.error is None:
            raise InvalidArgumentError(
                f"The solver {solver.name!r} is adaptive, but its step returned no error estimate."
            )
        new = result.x.detach()
        scale = solver.allowed(x, result, self.rtol, self.atol)
        errors, powers, used, usable = _estimates(result.error, solver)
        norms = _rms((errors / scale[:, None]).masked_fill(errors == 0, 0.0), 2)
        error, p = norms.gather(1, used[:, None])[:, 0], powers[used]
        finite = torch.isfinite(error) & torch.isfinite(new.flatten(1).sum(1))
        accept = finite & (error <= 1)
        then = _clock(solver, stop)
        h = (then - state.now).abs()
        bounded = torch.where(finite, error, 1.0).clamp_min(_TINY)
        size, caution = torch.log(bounded), math.log(solver.safety)
        now_gain, last_gain = solver.gains
        factor = caution + (last_gain * torch.log(state.last_error) - now_gain * size) / p  # its logarithm
        if errors.shape[1] > 1:  # another order may allow a longer step
            others = caution - torch.log(norms.clamp_min(_TINY)) / powers
            factor = torch.maximum(factor, torch.where(usable, others, -torch.inf).amax(1))
        factor = factor.clamp(math.log(self.shrink), math.log(solver.growth))
        alone = (caution - size / p).clamp(math.log(self.shrink), math.log(0.9))  # a rejection looks at this error only
        h_next = h * torch.where(finite, torch.exp(torch.where(accept, factor, alone)), self.shrink)
        # a step that was cut to land on a target does not shrink the next one
        cut_short = accept & (h < state.h * (1 - 1e-6))
        h_next = torch.where(cut_short, torch.maximum(h_next, state.h), h_next)
        begin, now = where(accept, (stop, then), (start, state.now))
        hit = accept & (begin.t == self._target(state))
        done = hit & (state.target == len(self.targets) - 1)
        state = AdaptiveState(
            h=h_next,
            last_error=torch.where(accept, bounded.clamp_min(1e-4), state.last_error),
            non_finite=state.non_finite + ~finite,
            target=state.target + (hit & ~done) if len(self.targets) > 1 else state.target,
            now=now,
            ends=state.ends,
        )
        failed = state.non_finite >= self.attempts
        ends = self._stop(process, solver, begin.t, state)
        still = (h_next < _ULPS * torch.finfo(torch.float64).eps * now.abs()) | (ends == begin.t)
        tiny = ~(done | failed | accept) & still
        end = process.sde.nodes(torch.where(done | failed | tiny, begin.t, ends))
        return Decision(accept, begin, end, state, done, failed, tiny)


def _estimates(error: Tensor | Estimates, solver: Solver) -> Estimates:
    """The error estimates of a step; a plain one is of the method's order."""
    if isinstance(error, Estimates):
        return error._replace(values=error.values.detach())
    used = torch.zeros(len(error), dtype=torch.long, device=error.device)
    powers = torch.full((1,), float(solver.ode_order or 1), dtype=torch.float64, device=error.device)
    return Estimates(error.detach()[:, None], powers, used, used[:, None] == 0)


def _clock(solver: Solver, node: Node) -> Tensor:
    """What the solver's clock shows; the ends of the noise and of the data are far, not infinitely far."""
    return torch.nan_to_num(solver.coordinate.clock(node), nan=torch.nan, posinf=_FAR, neginf=-_FAR)


def _rms(x: Tensor, start: int = 1) -> Tensor:
    """Root mean square over each sample's event, float64; 0 for an empty event."""
    flat = x.flatten(start).to(torch.float64)
    return flat.square().sum(start).div(max(1, flat.shape[start])).sqrt()
