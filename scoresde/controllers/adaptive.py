"""Steps chosen from an error estimate, for each sample by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._tensors import power
from ..errors import InvalidArgumentError
from ..processes import Process
from ..sdes import Node
from ..solvers.base import Estimates, Solver, StepResult
from .base import Controller, Decision

_TINY = 1e-10  # error norms below this count as this
_FAR = 12.0  # where an infinite log-SNR is on the clock
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
    shrink: float = 0.2
    attempts: int = 8

    def start(self, process: Process, x: Tensor) -> Node:
        """See `Controller.start`."""
        return process.sde.nodes(torch.full((len(x),), self.t_start, dtype=torch.float64, device=x.device))

    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, Any]:
        """The first step moves the state by about a hundredth of itself, and is at most a tenth of the way."""
        now, ends = _clock(solver, start), self._ends(process, solver, x.device)
        span = (ends[-1] - now).abs()
        h = 0.01 * span
        if isinstance(solver_state, Tensor):  # the first derivative
            at, slope = x.detach(), solver_state.detach()
            scale = self.atol + self.rtol * at.abs()
            size, speed = _rms(at / scale), _rms(slope / scale)
            h = torch.nan_to_num(0.01 * size / speed, nan=0.0, posinf=torch.inf)
            h = torch.where(h > 0, h, 0.01 * span).clamp(1e-6 * span, 0.1 * span)
        state = AdaptiveState(
            h, torch.ones_like(h), torch.zeros_like(h, dtype=torch.long), torch.zeros_like(h, dtype=torch.long)
        )
        return process.sde.nodes(self._stop(process, solver, start, now, ends, state)), state

    def _ends(self, process: Process, solver: Solver, device: torch.device) -> Tensor:
        """The target times on the solver's clock."""
        return _clock(solver, process.sde.nodes(torch.tensor(self.targets, dtype=torch.float64, device=device)))

    def _stop(
        self, process: Process, solver: Solver, start: Node, now: Tensor, ends: Tensor, state: AdaptiveState
    ) -> Tensor:
        """The time at which a step ends: h later on the clock, at the next target if that is nearer, half-way if two
        steps would reach it."""
        end = ends[state.target]
        left = (end - now).abs()
        step = torch.where(state.h >= 0.5 * left, 0.5 * left, state.h)
        moved = process.times_at(now + step * torch.sign(end - now), solver.coordinate)
        target = moved.new_tensor(self.targets)[state.target]
        low, high = torch.minimum(start.t, target), torch.maximum(start.t, target)
        return torch.where(state.h >= left * (1 - 1e-6), target, torch.minimum(torch.maximum(moved, low), high))

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
        finite = torch.isfinite(error) & torch.isfinite(_rms(new))
        accept = finite & (error <= 1)
        h = (_clock(solver, stop) - _clock(solver, start)).abs()
        bounded = torch.where(finite, error, torch.ones_like(error)).clamp_min(_TINY)
        now_gain, last_gain = solver.gains
        factor = solver.safety * power(bounded, -now_gain / p) * power(state.last_error, last_gain / p)
        if errors.shape[1] > 1:  # another order may allow a longer step
            others = solver.safety * power(norms.clamp_min(_TINY), -1 / powers)
            factor = torch.where(accept, torch.maximum(factor, torch.where(usable, others, 0.0).amax(1)), factor)
        alone = (solver.safety * power(bounded, -1 / p)).clamp(self.shrink, 0.9)  # a rejection looks at this error only
        factor = torch.where(accept, factor.clamp(self.shrink, solver.growth), alone)
        factor = torch.where(finite, factor, torch.full_like(factor, self.shrink))
        h_next = h * factor
        cut_short = accept & (
            h < state.h * (1 - 1e-6)
        )  # a step that was cut to land on a target does not shrink the next one
        h_next = torch.where(cut_short, torch.maximum(h_next, state.h), h_next)
        begin = Node(*(torch.where(accept, b, a) for a, b in zip(start, stop, strict=True)))
        hit = accept & (begin.t == begin.t.new_tensor(self.targets)[state.target])
        done = hit & (state.target == len(self.targets) - 1)
        state = AdaptiveState(
            h=h_next,
            last_error=torch.where(accept, bounded.clamp_min(1e-4), state.last_error),
            non_finite=state.non_finite + (~finite).long(),
            target=torch.where(hit & ~done, state.target + 1, state.target),
        )
        failed = state.non_finite >= self.attempts
        now = _clock(solver, begin)
        ends = self._stop(process, solver, begin, now, self._ends(process, solver, x.device), state)
        resolution = torch.finfo(torch.float64).eps * now.abs().clamp_min(1e-300)
        tiny = ~done & ~failed & ~accept & ((h_next < _ULPS * resolution) | (ends == begin.t))
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
