"""Gotta Go Fast: an adaptive pair for the reverse SDE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..core.support.combination import combine, tensor_of
from .base import DriftSolver, Node, Process, Step, StepControl, StepResult, of_power
from .euler_maruyama import increments

_POWER = 1 / 0.9  # the paper's r = 0.9


class GGFState(NamedTuple):
    """The Euler-Maruyama state of the last accepted step (the start, before the first)."""

    low: Tensor


@dataclass(frozen=True)
class GGF(DriftSolver):
    r"""Gotta Go Fast: Euler-Maruyama inside stochastic Heun, with a step size per sample.

    .. math::
        K_1 = hF(x, s) + g_s\sqrt{|h|}\,z,\quad x' = x + K_1,\quad K_2 = hF(x', t) + g_t\sqrt{|h|}\,z,\quad
        x'' = x + \tfrac12(K_1+K_2).

    With the error :math:`E = \frac12(K_2-K_1)` and the tolerance :math:`\delta = \max(\mathrm{atol},
    \mathrm{rtol}\max(|x'|, |x'_{last}|))` of each element, and :math:`e = \mathrm{RMS}[E/\delta]` over a sample, a step
    is accepted if :math:`e\le1`; it continues from :math:`x''`, and :math:`h \leftarrow 0.9\,h\,e^{-0.9}`.

    Facts:
        Two evaluations per trial step. On given steps it is `HeunSDE`: weak order 2, strong order 1 for additive noise.
        :math:`\eta` is the ``stochasticity`` of `scoresde.solve`. It steps in time, where the last tenth of the way
        takes most of the steps; `DPMppSDE12` takes far fewer.

    Differs from:
        the published code in the noise of a rejected step: it redraws, which throws large noise away, while here the
        shorter step sees the same Brownian path (`scoresde.core.noise.FollowedPath`). The step grows by no more than
        ten times and shrinks by no more than five, and the first one is a hundredth of the way.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> options = {
        ...     "method": "ggf",
        ...     "rtol": 0.1,
        ...     "atol": 0.01,
        ...     "shape": (4, 2),
        ...     "seeds": range(4),
        ... }
        >>> solution = scoresde.solve(sde, target.score(sde), **options)
        >>> (
        ...     bool(solution.success.all()),
        ...     bool((solution.nfe == 2 * (solution.accepted + solution.rejected)).all()),
        ... )
        (True, True)

    References:
        Jolicoeur-Martineau et al. (2021), Gotta Go Fast When Generating Data with Score-Based Models, algorithm 1.
        https://arxiv.org/abs/2105.14080
    """

    keeps_estimates: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True
    weak_order: ClassVar[int] = 2
    strong_order: ClassVar[float] = 1.0
    evaluations: ClassVar[int] = 2
    reference: ClassVar[str] = "Jolicoeur-Martineau et al. (2021), Gotta Go Fast"
    control: ClassVar[StepControl] = StepControl(gains=(1.0, 0.0))

    def init(self, process: Process, x: Tensor, start: Node) -> GGFState:
        """See `Solver.init`."""
        return GGFState(x)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: GGFState) -> Step:
        """See `Solver.step`."""
        first, second = yield from increments(process, x, start, stop)
        second = tensor_of(second)
        moved = combine(1.0, x, 1.0, (0.5, 0.5), (first, second))
        low = x + first
        size = torch.maximum(low.abs(), state.low.abs())
        return StepResult(moved, GGFState(low), of_power(0.5 * (second - first), _POWER, size), state)
