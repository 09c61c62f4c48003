r"""Methods of strong order 1.5 for additive noise: SRA1 and ShARK.

The diffusion of a score-based SDE depends on time alone, which is what they need. A step takes two draws: the increment
of the path, and its mean over the step. ``noise=BrownianPath(..., areas=True)`` gives both from one path, so that
solves with more steps come closer to each other with order 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.processes import TIME, Process
from ..core.support.combination import combination, combine, weighted
from ..core.support.tensors import absolute, expand
from .base import THROUGH_NETWORK, DriftSolver, Node, Step, StepResult


class _StrongOrder(DriftSolver):
    """What the two share."""

    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.5
    evaluations: ClassVar[int] = 2
    data_limit: ClassVar[bool] = True


@dataclass(frozen=True)
class SRA1(_StrongOrder):
    r"""Roessler's SRA1, with :math:`\Delta W` and :math:`I_{10} = \int\!\!\int dW\,ds = \frac12|h|(\Delta W + \Delta
    Z/\sqrt3)`.

    .. math::
        f_1 = F(x, s),\quad f_2 = F(x + \tfrac34 h f_1 + \tfrac32 g_t I_{10}/|h|,\ s + \tfrac34h),\quad
        x' = x + h(\tfrac13 f_1 + \tfrac23 f_2) + g_t\Delta W + (g_s-g_t) I_{10}/|h|.

    Facts:
        Strong order 1.5, weak order 2; 2 evaluations and 2 draws per step; no state. :math:`\eta` is the
        ``stochasticity`` of `scoresde.solve`.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="sra1", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        40

    References:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, table 6.3.
    """

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Roessler (2010), SRA1"
    stages: ClassVar[tuple[float, ...]] = (0.75,)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        h = stop.t - start.t
        (inner,) = process.nodes.between(start, stop, self.stages, TIME)
        w, mean = yield process.increment_and_mean(start.t, stop.t, x)  # over the root of |h|; the second is I_10 / |h|
        g_s, g_t = (process.diffusion(x, node) * expand(absolute(h) ** 0.5, x) for node in (start, stop))
        f1 = yield process.drift(x, start)
        there = combine(1.0, x, 1.0, (0.75 * h, 1.5 * g_t), (f1, mean))
        values = (f1, (yield process.linear_drift(there, inner)), w, mean)
        return StepResult(combination(1.0, x, 1.0, (h / 3, 2 * h / 3, g_t, g_s - g_t), values))


@dataclass(frozen=True)
class ShARK(_StrongOrder):
    r"""ShARK, the shifted additive-noise Runge-Kutta method, with :math:`W` and the space-time Lévy area :math:`H =
    \frac1{|h|}\int(W_u - \frac{u}{|h|}W)\,du \sim N(0, |h|/12)`.

    .. math::
        \tilde x = x + g H,\quad f_1 = F(\tilde x, s),\quad
        f_2 = F(\tilde x + \tfrac56(h f_1 + g W),\ s+\tfrac56h),\quad
        x' = x + h(\tfrac25 f_1 + \tfrac35 f_2) + \tfrac12(g_s+g_t) W - (g_t-g_s)H,

    the last two terms being :math:`\int g\,dW` for a diffusion that is a line over the step, and g its value in the
    middle of the line.

    Facts:
        Strong order 1.5, weak order 2; 2 evaluations and 2 draws per step; no state.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="shark", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        40

    References:
        Foster, dos Reis, Strange (2024), High order splitting methods for SDEs satisfying a commutativity condition,
        section 6. https://arxiv.org/abs/2210.17543
    """

    keeps_estimates: ClassVar[bool] = False
    not_gaussian: ClassVar[str] = THROUGH_NETWORK
    reference: ClassVar[str] = "Foster, dos Reis, Strange (2024), ShARK"
    stages: ClassVar[tuple[float, ...]] = (5 / 6,)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        h = stop.t - start.t
        (inner,) = process.nodes.between(start, stop, self.stages, TIME)
        w, mean = yield process.increment_and_mean(start.t, stop.t, x)  # over the root of |h|
        area = weighted([(1.0, mean), (-0.5, w)])
        g_s, g_t = (process.diffusion(x, node) * expand(absolute(h) ** 0.5, x) for node in (start, stop))
        g = 0.5 * (g_s + g_t)
        shifted = combine(1.0, x, g, (1.0,), (area,))
        f1 = yield process.drift(shifted, start)
        there = combine(1.0, shifted, 1.0, (5 / 6 * h, 5 / 6 * g), (f1, w))
        values = (f1, (yield process.linear_drift(there, inner)), w, area)
        return StepResult(combination(1.0, x, 1.0, (0.4 * h, 0.6 * h, g, g_s - g_t), values))
