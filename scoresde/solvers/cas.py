"""Consistent annealed sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.support.checks import check_positive
from ..core.support.combination import sum_of
from ..core.support.tensors import at_most, exp
from .base import EstimateSolver, MCMCSolver, Node, Process, Step, StepResult


@dataclass(frozen=True)
class CAS(MCMCSolver, EstimateSolver):
    r"""Consistent annealed sampling: a Langevin move whose noise is chosen so that the next level is met exactly.

    In :math:`y = x/\alpha`, :math:`y' = y + \epsilon\rho_s^2\nabla_y\ln p + \beta\rho_t z`, :math:`\beta =
    \sqrt{1 - ((1-\epsilon)\rho_s/\rho_t)^2}`: of the noise :math:`\rho_s` the share :math:`1-\epsilon` stays, and what
    :math:`\rho_t` lacks is drawn,

    .. math:: x_t = \alpha_t\hat x + \min(\sigma_t, (1-\epsilon)\alpha_t\rho_s)\,\hat\varepsilon + \beta\sigma_t z.

    Facts:
        No order: with fixed :math:`\epsilon` and finer grids it becomes annealed Langevin dynamics. It is exact for a
        point mass. 1 evaluation per step; no state. Where :math:`(1-\epsilon)\rho_s > \rho_t` it is `DDIM`.

    Args:
        epsilon: the share of the noise that is removed, in (0, 1].

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="cas", steps=50, shape=(4, 2), seed=0
        ... ).evaluations
        50

    References:
        Jolicoeur-Martineau et al. (2021), Adversarial score matching and improved sampling for image generation,
        algorithm 2. https://arxiv.org/abs/2009.05475
    """

    epsilon: float = 0.2

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    reference: ClassVar[str] = "Jolicoeur-Martineau et al. (2021), algorithm 2"

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon, high=1.0)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        left = (1 - self.epsilon) * exp(stop.lam - start.lam)  # (1 - epsilon) rho_s / rho_t
        kept = at_most(left, 1.0)
        drawn = stop.sigma * (1 - kept * kept) ** 0.5
        moved = (yield process.linear_estimate(x, start)).mix(stop.alpha, stop.sigma * kept)
        return StepResult(sum_of([(1.0, moved), (drawn, (yield process.increment(start.t, stop.t, x)))]))
