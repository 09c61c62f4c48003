"""Steps on a grid that is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .base import Controller, Decision, Node, Process, Solver, StepResult


@dataclass(frozen=True)
class FixedGrid(Controller):
    """The same steps for all samples. All schedule values are computed before the first step, as Python floats.

    Args:
        times: ``(steps + 1,)`` float64; if it has a gradient, the nodes are 0-d tensors, and the result has one, too.

    Example:
        >>> import torch
        >>> FixedGrid(torch.tensor([1.0, 0.5])).steps
        1
    """

    times: Tensor

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.times) - 1

    @property
    def targets(self) -> tuple[float, ...]:  # type: ignore[override]
        """See `Controller`."""
        return tuple(self.times.tolist()[1:])

    def start(self, process: Process, x: Tensor) -> Node:
        """See `Controller.start`."""
        return process.nodes.grid(self.times)[0]

    def first(self, process: Process, solver: Solver, x: Tensor, start: Node, solver_state: Any) -> tuple[Node, object]:
        """See `Controller.first`."""
        nodes = process.nodes.grid(self.times)
        if not isinstance(nodes[0].t, Tensor):  # with a gradient, nodes inside a step are computed in the step
            solver.prepare(process, nodes)
            process.network.plan(x, process.nodes.known())
        return nodes[1], (nodes, 2)

    def share(self, step: int, first: np.ndarray, now: np.ndarray) -> float:
        """See `Controller.share`."""
        return step / self.steps

    def adapt(
        self, process: Process, solver: Solver, x: Tensor, start: Node, stop: Node, result: StepResult, state: Any
    ) -> Decision:
        """See `Controller.adapt`."""
        nodes, following = state
        return Decision(True, stop, nodes[following] if following < len(nodes) else None, (nodes, following + 1))
