"""Euler-Maruyama, on any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.support.combination import combination
from ..core.support.tensors import absolute, expand
from .base import DriftSolver, Node, Process, Step, StepResult


@dataclass(frozen=True)
class EulerMaruyama(DriftSolver):
    r"""Euler-Maruyama on the reverse family.

    .. math:: x' = x + h\,[fx - \tfrac12(1+\eta^2)g^2 s] + \eta g\sqrt{|h|}\,z, \qquad h = t_{next} - t < 0.

    Facts:
        Weak order 1 and, the noise being additive, strong order 1; 1 evaluation per step; no state. :math:`\eta` is the
        ``stochasticity`` of `scoresde.solve`.

    Differs from:
        score_sde's ``EulerMaruyamaPredictor``, whose dt = -1/N is not the spacing of its grid and whose last step ends
        below zero.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="euler_maruyama",
        ...     steps=20,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).x.shape
        torch.Size([4, 2])

    References:
        Song et al. (2021), appendix E. https://arxiv.org/abs/2011.13456
    """

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Maruyama (1955); Song et al. (2021), appendix E"
    data_limit: ClassVar[bool] = True

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        h = stop.t - start.t
        spread = process.diffusion(x, start) * expand(absolute(h) ** 0.5, x)
        values = ((yield process.linear_drift(x, start)), (yield process.increment(start.t, stop.t, x)))
        return StepResult(combination(1.0, x, 1.0, (h, spread), values))
