"""A descent on the error of a pilot: what fits of grids and of solvers share.

The gradient is that of one half of the pilot; the other half decides which iterate is kept.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import check_choice, check_flag, form
from ..solvers import Solver
from .path import PilotPaths
from .pilot import Pilot, distances, squares, summary
from .records import PilotErrors

_SMOOTH = 0.1  # of the median error: samples nearer than that pull no more
_STEP = 0.02  # of a finite difference in theta
_PATIENCE = 8  # evaluations of the held-out half without progress
_LOOK_EVERY = 3  # iterations

Objective = Callable[[Tensor, Tensor], Tensor]


def check_objective(objective: object, names: Sequence[str] = ("log", "rms")) -> None:
    """Refuse what is neither the name of an objective nor a function."""
    if isinstance(objective, str):
        check_choice("objective", objective, names)
    elif not callable(objective):
        raise InvalidTypeError(
            f"`objective` must be a name or a function (x, reference) -> (batch,), got {objective!r}."
        )


def check_ways(gradient: object, checkpoint: object) -> None:
    """Refuse what are no flags, and a fit by gradients where torch keeps none."""
    for name, flag in (("gradient", gradient), ("checkpoint", checkpoint)):
        check_flag(name, flag)
    if gradient and torch.is_inference_mode_enabled():
        raise InvalidArgumentError(
            "A fit needs gradients, which torch.inference_mode() forbids; call it outside, or pass gradient=False."
        )


@dataclass(frozen=True)
class PilotProblem(abc.ABC):
    """The error of a pilot as a function of theta.

    Attributes:
        pilot: the pilot.
        exact: its end states.
        objective: what is minimised.
        gradient: False for finite differences.
    """

    pilot: Pilot
    exact: Tensor
    objective: str | Objective | PilotPaths
    gradient: bool

    @abc.abstractmethod
    def method(self, theta: Tensor) -> tuple[Solver, Tensor]:
        """The method, and the times of its steps."""

    def end(self, theta: Tensor, rows: slice, differentiable: bool) -> Tensor:
        """The end states of some rows."""
        return self.pilot.solve(*self.method(theta), rows, differentiable=differentiable)

    def _solved(self, theta: Tensor, rows: slice, floor: float, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """The end states of some rows, and the objective."""
        if not isinstance(self.objective, PilotPaths):
            end = self.end(theta, rows, differentiable)
            return end, self._loss(end, rows, floor)
        solver, times = self.method(theta)
        states = self.pilot.states(solver, times, rows, differentiable=differentiable)
        return states[-1], self.objective.losses(times, states, rows, floor).mean()

    @property
    def train(self) -> slice:
        """The rows to learn from."""
        return self.pilot.halves[0]

    @property
    def held_out(self) -> slice:
        """The others."""
        return self.pilot.halves[1]

    def _loss(self, end: Tensor, rows: slice, floor: float) -> Tensor:
        if not isinstance(self.objective, str | PilotPaths):
            losses = self.objective(end, self.exact[rows])
            if not isinstance(losses, Tensor) or losses.shape != (len(end),):
                raise InvalidArgumentError(
                    f"`objective` must return ({len(end)},), one loss per sample, got {form(losses)}."
                )
            return losses.to(torch.float64).mean()
        errors = squares(end, self.exact[rows])
        if self.objective == "rms":
            return 0.5 * errors.mean().log()
        return 0.5 * (errors + floor**2).log().mean()

    def floor(self, theta: Tensor) -> float:
        """The error below which a sample no longer counts."""
        with torch.no_grad():
            errors = squares(self.end(theta, self.train, False), self.exact[self.train])
        return _SMOOTH * max(math.sqrt(float(errors.nanmedian())), 1e-14)

    def value(self, theta: Tensor, rows: slice, floor: float) -> float:
        with torch.no_grad():
            return float(self._solved(theta, rows, floor)[1])

    def judged(self, theta: Tensor) -> tuple[float, bool]:
        """The value on the half that is held out, and whether this theta may be kept."""
        return self.value(theta, self.held_out, 1e-14), True

    def value_and_gradient(self, theta: Tensor, floor: float) -> tuple[float, Tensor]:
        """The objective and its gradient on the half that is learned from."""
        rows = self.train
        if not self.gradient:
            shifts = _STEP * torch.eye(len(theta), dtype=torch.float64)
            slopes = [
                (self.value(theta + s, rows, floor) - self.value(theta - s, rows, floor)) / (2 * _STEP) for s in shifts
            ]
            return self.value(theta, rows, floor), torch.tensor(slopes, dtype=torch.float64)
        with torch.enable_grad():
            theta = theta.detach().clone().requires_grad_(True)
            loss = self._solved(theta, rows, floor, True)[1]
            if not bool(torch.isfinite(loss)):
                return math.inf, torch.zeros_like(theta)
            if not loss.requires_grad:
                raise InvalidArgumentError(
                    "`objective` must be differentiable in its first argument, but its result has no gradient "
                    "(.detach(), integers?); pass gradient=False."
                )
            (slope,) = torch.autograd.grad(loss, theta)
        return loss.item(), slope

    def errors(self, theta: Tensor) -> PilotErrors:
        """The errors of the held-out half."""
        with torch.no_grad():
            return summary(distances(self.end(theta, self.held_out, False), self.exact[self.held_out]))


class _Spent(Exception):
    """The iterations are used up, or nothing improves any more."""


class Search:
    """The best theta so far, by the held-out half."""

    def __init__(self, problem: PilotProblem) -> None:
        self.problem, self.best, self.kept = problem, torch.zeros(0), math.inf
        self.lowest, self.idle = math.inf, 0

    def look(self, theta: Tensor) -> float:
        """Keep theta if it is the best so far of those that are allowed."""
        value, allowed = self.problem.judged(theta)
        self.idle += 1
        if value < self.lowest:
            self.lowest, self.idle = value, 0
        if (allowed and value < self.kept) or not len(self.best):
            self.best, self.kept = theta.detach().clone(), value if allowed else math.inf
        return value

    def adam(self, theta: Tensor, count: int, rate: float) -> Tensor:
        """Some iterations of Adam, with a rate that falls to a tenth along a cosine; returns the last theta."""
        floor, self.idle = self.problem.floor(theta), 0
        theta = theta.clone()
        optimiser = torch.optim.Adam([theta], lr=rate, betas=(0.9, 0.95))
        for i in range(count):
            optimiser.param_groups[0]["lr"] = rate * (0.55 + 0.45 * math.cos(math.pi * i / count))
            value, theta.grad = self.problem.value_and_gradient(theta, floor)
            if not math.isfinite(value) or self.idle >= _PATIENCE:
                return self.best
            optimiser.step()
            if i % _LOOK_EVERY == _LOOK_EVERY - 1 or i == count - 1:
                self.look(theta)
        return theta

    def bfgs(self, theta: Tensor, count: int, most: float = math.inf) -> None:
        """BFGS with so many gradients, until so many calls on the pilot are spent in all."""
        from scipy.optimize import minimize  # takes long to import

        floor, self.idle, used = self.problem.floor(theta), 0, itertools.count()

        def function(point: Any) -> tuple[float, Any]:
            if next(used) >= count or self.problem.pilot.cost.pilots >= most:
                raise _Spent
            value, slope = self.problem.value_and_gradient(torch.as_tensor(point), floor)
            return (value if math.isfinite(value) else 1e6), slope.numpy()

        def after(point: Any) -> None:
            self.look(torch.tensor(point))
            if self.idle >= _PATIENCE:
                raise _Spent

        try:
            minimize(function, theta.numpy(), jac=True, method="BFGS", callback=after, options={"gtol": 1e-6})
        except _Spent:
            return
