"""Solves in the caller's hands, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ...solvers import Solver
from ...stepping import Question, Stepper


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
    """

    def __init__(self, begin: Callable[[Leg, Tensor], Stepper], legs: Sequence[Leg], x: Tensor) -> None:
        self._begin, self._left = begin, list(legs[1:])
        self.now = self._told = begin(legs[0], x)

    @property
    def done(self) -> bool:
        """Whether nothing more is asked."""
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
            self.now = self._begin(self._left.pop(0), self.now.x)
