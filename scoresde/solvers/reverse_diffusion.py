"""Reverse diffusion sampling, the predictor of Score-SDE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.support.combination import combination
from ..core.support.tensors import expm1
from .base import Node, Process, SDESolver, Step, StepResult


@dataclass(frozen=True)
class ReverseDiffusion(SDESolver):
    r"""Reverse diffusion: the forward transition between two levels, discretised the same way backwards.

    With :math:`q(x_s|x_t) = N(a x_t, b^2 I)` from the cleaner time t to the noisier s,

    .. math::
        x_t = (2-a)\,x_s + b^2 s(x_s, s) + b z, \qquad a = \frac{\alpha_s}{\alpha_t},\quad
            b^2 = \sigma_s^2 - a^2\sigma_t^2.

    For VE this is :math:`x + (\sigma_s^2-\sigma_t^2)s + \ldots`, for VP :math:`(2-\sqrt{1-\beta})x + \beta s + \ldots`,
    as published, with :math:`\beta = 1-(\alpha_s/\alpha_t)^2`; every other process gets the same formula.

    Facts:
        Weak order 1, strong order 1; 1 evaluation per step; no state.

    Differs from:
        score_sde, where :math:`\beta = \beta(t)/N`, which exceeds 1 for few steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.SubVPSDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="reverse_diffusion",
        ...     steps=20,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).x.shape
        torch.Size([4, 2])

    References:
        Song et al. (2021), appendix E, eq. 46. https://arxiv.org/abs/2011.13456
    """

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Song et al. (2021), appendix E"
    data_limit: ClassVar[bool] = True

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        a = start.alpha / stop.alpha
        b2 = start.sigma * start.sigma * -expm1(2 * (start.lam - stop.lam))
        values = ((yield process.linear_score(x, start)), (yield process.increment(start.t, stop.t, x)))
        return StepResult(combination(2 - a, x, 1.0, (b2, b2**0.5), values))
