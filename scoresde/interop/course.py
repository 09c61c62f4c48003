"""Solves in the caller's hands, one after another: a method, and DDIM where that has no limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from ..core.errors import InvalidArgumentError, NonFiniteError, ScoreSDEError
from ..core.stepper import Question, Stepper
from ..solvers import DDIM, Solver

T = TypeVar("T")


class Leg(NamedTuple):
    """A part of a solve: a method, and its grid."""

    solver: Solver
    times: Tensor


class Course:
    """Solves one after another, each from where the one before it has come to.

    Args:
        begin: makes the stepper of a leg from a state.
        legs: one or more.
        x: the state at the start.

    Attributes:
        leg, now: the part that is under way, and its stepper.
    """

    def __init__(self, begin: Callable[[Leg, Tensor], Stepper], legs: Sequence[Leg], x: Tensor) -> None:
        self._begin, self._left = begin, list(legs[1:])
        self.leg = legs[0]
        self.now = self._told = begin(self.leg, x)

    @property
    def done(self) -> bool:
        """Whether no evaluation is left."""
        return self.now.done and not self._left

    @property
    def between(self) -> bool:
        """See `Stepper.between`."""
        return self.now.between

    @property
    def t(self) -> Any:
        """See `Stepper.t`."""
        return self.now.t

    @property
    def x(self) -> Tensor:
        """See `Stepper.x`."""
        return self.now.x

    @x.setter
    def x(self, value: Tensor) -> None:
        self.now.x = value

    @property
    def denoised(self) -> Tensor | None:
        """See `Stepper.denoised`."""
        return self._told.denoised

    def ask(self) -> Question:
        """See `Stepper.ask`."""
        return self.now.ask()

    def tell(self, output: Tensor, x: Tensor | None = None) -> None:
        """See `Stepper.tell`."""
        self.now.ask()
        self.now.tell(output, x)
        self._told = self.now
        while self.now.done and self._left:
            self.leg = self._left.pop(0)
            self.now = self._begin(self.leg, self.now.x)


def legs_of(
    solver: Solver,
    times: Tensor,
    attempt: Callable[[Sequence[Leg]], T],
    ends: tuple[bool, bool] = (True, True),
) -> tuple[list[Leg], T]:
    """The legs of a solve on a grid: one, if that works; where the method has no limit at an end without signal or
    without noise, DDIM makes the step there.

    Args:
        solver, times: the method and the grid.
        attempt: tries legs, and returns what is made of them.
        ends: whether the first and the last time may be such ends.

    Raises:
        InvalidArgumentError: nothing works, for the reason that the method alone does not.
        NonFiniteError: likewise.
    """
    problems: list[ScoreSDEError] = []
    for first, last in itertools.product((False, True), repeat=2):
        inner = times[int(first) : len(times) - int(last)]
        if (first and not ends[0]) or (last and not ends[1]) or (first and last and len(times) < 3):
            continue
        legs = [Leg(solver, inner)] if len(inner) > 1 else []
        legs = [Leg(DDIM(), times[:2])] * first + legs + [Leg(DDIM(), times[-2:])] * last
        try:
            return legs, attempt(legs)
        except (InvalidArgumentError, NonFiniteError) as problem:
            problems.append(problem)
    raise problems[0]
