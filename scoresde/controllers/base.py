"""The protocol of a controller: where the next step goes."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..noise import Noise
from ..processes import Process
from ..sdes import Node
from ..solvers.base import Solver, StepResult


class Decision(NamedTuple):
    """What becomes of a step.

    Fields:
        accept: True, or which samples take the step, ``(batch,)`` bool.
        start, stop: the next step's ends; ``stop`` is None when the whole batch has arrived.
        state: the controller's memory.
        done: which samples have arrived, ``(batch,)`` bool, or None while all are under way together.
        non_finite, underflow: which samples have failed, or None.

    Which samples is told by tensors, or by NumPy arrays, for which no device is waited for.
    """

    accept: bool | Tensor | np.ndarray
    start: Node
    stop: Node | None
    state: Any
    done: Tensor | np.ndarray | None = None
    non_finite: Tensor | np.ndarray | None = None
    underflow: Tensor | np.ndarray | None = None


class Controller(abc.ABC):
    """Chooses steps; frozen, with its memory in the state that it returns."""

    @abc.abstractmethod
    def start(self, process: Process, x: Tensor) -> Node:
        """The first node."""

    @abc.abstractmethod
    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, Any]:
        """The end of the first step, and the controller's memory."""

    @abc.abstractmethod
    def adapt(
        self, process: Process, solver: Solver, x: Tensor, start: Node, stop: Node, result: StepResult, state: Any
    ) -> Decision:
        """Judge a step and choose the next."""

    def land(
        self,
        process: Process,
        solver: Solver,
        x: Tensor,
        start: Node,
        stop: Node,
        memory: Any,
        noise: Noise,
        state: Any,
    ) -> tuple[np.ndarray, Tensor]:
        """Which samples go to the end without another evaluation (see `Solver.land`), and their states there."""
        return np.zeros(len(x), dtype=bool), x
