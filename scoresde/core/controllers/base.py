"""The protocol of a controller: where the next step goes. Controllers import from here what its signatures name."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...solvers.base import Asking, Node, Process, Solver, StepResult
from ..support.tensors import as_array


class Decision(NamedTuple):
    """The controller's decision on a step.

    Fields:
        accept: True, or which samples take the step, ``(batch,)`` bool.
        start, stop: the next step's ends; ``stop`` is None when the whole batch has arrived.
        state: the controller's new state.
        done: which samples have arrived, ``(batch,)`` bool, or None while all are under way together.
        non_finite, underflow: which samples have failed, or None.

    Masks are tensors, or NumPy arrays, which need no synchronisation with the device.
    """

    accept: bool | Tensor | np.ndarray
    start: Node
    stop: Node | None
    state: Any
    done: Tensor | np.ndarray | None = None
    non_finite: Tensor | np.ndarray | None = None
    underflow: Tensor | np.ndarray | None = None

    @property
    def together(self) -> bool:
        """Whether the whole batch takes the step, and goes on."""
        return self.accept is True and self.done is self.non_finite is self.underflow is None

    def masks(self) -> tuple[bool | np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """``accept``, ``done``, ``non_finite`` and ``underflow`` on the host."""
        return as_array(self.accept), as_array(self.done), as_array(self.non_finite), as_array(self.underflow)


class Controller(abc.ABC):
    """Chooses steps. It is frozen: what it keeps is in the state that it returns.

    Attributes:
        targets: the times to hit exactly, in order; the last is the end.
    """

    targets: tuple[float, ...]

    @abc.abstractmethod
    def start(self, process: Process, x: Tensor) -> Node:
        """The first node."""

    @abc.abstractmethod
    def first(
        self, process: Process, solver: Solver, x: Tensor, start: Node[Any], solver_state: object
    ) -> tuple[Node, object]:
        """The end of the first step, and the controller's first state."""

    @abc.abstractmethod
    def adapt(
        self,
        process: Process,
        solver: Solver,
        x: Tensor,
        start: Node[Any],
        stop: Node[Any],
        result: StepResult,
        state: Any,
    ) -> Decision:
        """Judge a step and choose the next."""

    def share(self, step: int, first: np.ndarray, now: np.ndarray) -> float:
        """The mean share of the way that the samples have gone, for a progress bar, after a number of steps and given
        their first times and their times now."""
        return float(((now - first) / (self.targets[-1] - first)).mean()) if len(first) else 1.0

    def land(
        self,
        process: Process,
        solver: Solver,
        x: Tensor,
        start: Node[Any],
        stop: Node[Any],
        memory: object,
        state: Any,
    ) -> Asking[tuple[np.ndarray, Tensor] | None]:
        """Which samples go to the end without another evaluation (see `Solver.land`), and their states there; None
        where none can."""
        yield from ()
        return None
