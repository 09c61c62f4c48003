"""The forward process itself, step by step, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.support.combination import combine
from ...core.support.tensors import expm1
from ..base import EstimateSolver, Node, Process, Step, StepResult


@dataclass(frozen=True)
class Transition(EstimateSolver):
    r"""Draws from :math:`q(x_t|x_s)` for growing times; `scoresde.simulate` uses it. It composes exactly, so the steps
    only determine which states are seen.

    Example:
        >>> Transition().evaluations
        0
    """

    name: ClassVar[str] = "transition"
    kind: ClassVar[str] = "forward"
    stochastic: ClassVar[bool] = True
    evaluations: ClassVar[int] = 0

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        return StepResult(leap(x, start, stop, (yield process.increment(start.t, stop.t, x))))


def leap(x: Tensor, start: Node, stop: Node, z: Tensor) -> Tensor:
    r"""The state at a noisier node,
    :math:`\frac{\alpha_t}{\alpha_s}x_s + \sigma_t\sqrt{1-e^{2(\lambda_t-\lambda_s)}}\,z`.

    Example:
        >>> import torch, scoresde
        >>> sde = scoresde.EDMSDE()
        >>> # 5^2 = 3^2 + 4^2
        >>> leap(torch.zeros(1, 1), sde.node(3.0), sde.node(5.0), torch.ones(1, 1)).round(
        ...     decimals=4
        ... )
        tensor([[4.]])
    """
    spread = stop.sigma * (-expm1(2 * (stop.lam - start.lam))) ** 0.5
    return combine(stop.alpha / start.alpha, x, spread, (1.0,), (z,))
