"""Steps chosen from an error estimate, for each sample by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..processes import Process
from ..sdes import Node
from ..solvers.base import Solver, StepResult
from .base import Controller, Decision

_TINY = 1e-10  # error norms below this count as this
_ULPS = 16.0  # a step of fewer units in the last place of t is an underflow


class AdaptiveState(NamedTuple):
    """Per sample: step size, last accepted error norm, trial steps with a NaN, and which target time comes next."""

    h: Tensor
    last_error: Tensor
    non_finite: Tensor
    target: Tensor


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
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    attempts: int = 8

    def start(self, process: Process, x: Tensor) -> Node:
        """See `Controller.start`."""
        return process.sde.nodes(torch.full((len(x),), self.t_start, dtype=torch.float64, device=x.device))

    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, Any]:
        """The first step moves the state by about a hundredth of itself, and is at most a tenth of the way."""
        span = abs(self.targets[-1] - self.t_start)
        h = torch.full_like(start.t, 0.01 * span)
        if isinstance(solver_state, Tensor):  # the first derivative
            at, slope = x.detach(), solver_state.detach()
            scale = self.atol + self.rtol * at.abs()
            size, speed = _rms(at / scale), _rms(slope / scale)
            h = torch.nan_to_num(0.01 * size / speed, nan=0.01 * span, posinf=span).clamp(1e-6 * span, 0.1 * span)
        state = AdaptiveState(
            h, torch.ones_like(h), torch.zeros_like(h, dtype=torch.long), torch.zeros_like(h, dtype=torch.long)
        )
        return process.sde.nodes(self._stop(start.t, state)), state

    def _stop(self, t: Tensor, state: AdaptiveState) -> Tensor:
        """Where a step from t ends: at t + h, at the next target if that is nearer, half-way if two steps would reach
        it."""
        end = t.new_tensor(self.targets)[state.target]
        left = (end - t).abs()
        step = torch.where(state.h >= 0.5 * left, 0.5 * left, state.h)
        moved = t + step * torch.sign(end - t)
        return torch.where(state.h >= left * (1 - 1e-6), end, moved)

    def adapt(
        self, process: Process, solver: Solver, x: Tensor, start: Node, stop: Node, result: StepResult, state: Any
    ) -> Decision:
        """See `Controller.adapt`. Steps are constants to differentiation."""
        if result.error is None:
            raise InvalidArgumentError(
                f"The solver {solver.name!r} is adaptive, but its step returned no error estimate."
            )
        new, raw = result.x.detach(), result.error.detach()
        scale = self.atol + self.rtol * torch.maximum(x.detach().abs(), new.abs())
        error = _rms(torch.where(raw == 0, raw, raw / scale))
        finite = torch.isfinite(error) & torch.isfinite(_rms(new))
        accept = finite & (error <= 1)
        h = (stop.t - start.t).abs()
        p = float(solver.ode_order or 1)
        bounded = torch.where(finite, error, torch.ones_like(error)).clamp_min(_TINY)
        factor = (self.safety * bounded ** (-0.7 / p) * state.last_error ** (0.4 / p)).clamp(self.shrink, self.grow)
        factor = torch.where(accept, factor, factor.clamp_max(1.0))
        factor = torch.where(finite, factor, torch.full_like(factor, self.shrink))
        h_next = h * factor
        cut_short = accept & (
            h < state.h * (1 - 1e-6)
        )  # a step that was cut to land on a target does not shrink the next one
        h_next = torch.where(cut_short, torch.maximum(h_next, state.h), h_next)
        t = torch.where(accept, stop.t, start.t)
        targets = t.new_tensor(self.targets)
        hit = accept & (t == targets[state.target])
        done = hit & (state.target == len(self.targets) - 1)
        state = AdaptiveState(
            h=h_next,
            last_error=torch.where(accept, bounded.clamp_min(1e-4), state.last_error),
            non_finite=state.non_finite + (~finite).long(),
            target=torch.where(hit & ~done, state.target + 1, state.target),
        )
        failed = state.non_finite >= self.attempts
        tiny = ~done & ~failed & (h_next < _ULPS * torch.finfo(torch.float64).eps * t.abs().clamp_min(1e-300)) & ~accept
        ends = self._stop(t, state)
        finished = done | failed | tiny
        nodes = process.sde.nodes(torch.cat([t, torch.where(finished, t, ends)]))
        begin, end = (Node(*(v[half] for v in nodes)) for half in (slice(None, len(t)), slice(len(t), None)))
        return Decision(accept, begin, end, state, done, failed, tiny)


def _rms(x: Tensor) -> Tensor:
    """Root mean square over each sample's event, float64 ``(batch,)``; 0 for an empty event."""
    flat = x.flatten(1).to(torch.float64)
    return flat.square().sum(1).div(max(1, flat.shape[1])).sqrt()
