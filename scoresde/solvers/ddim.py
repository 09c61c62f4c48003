"""DDIM: the first-order exponential integrator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import EstimateSolver, Node, Process, Step, StepResult


@dataclass(frozen=True)
class DDIM(EstimateSolver):
    r"""First-order exponential integrator of the probability flow.

    With :math:`\hat x` and :math:`\hat\varepsilon` estimated at :math:`t` and held fixed until :math:`s`,

    .. math:: x_s = \alpha_s\,\hat x(x_t, t) + \sigma_s\,\hat\varepsilon(x_t, t).

    The linear part is exact, so only the change of :math:`\hat x` along the path contributes error; a point mass is
    exact in one step.

    Facts:
        Order 1 in the log-SNR; 1 evaluation per step; no state; no noise; finite where :math:`\alpha = 0` or
        :math:`\sigma = 0`.

    Differs from:
        diffusers' ``DDIMScheduler``: no clipping, no integer time steps; any process, not only VP.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="ddim", steps=20, shape=(4, 2), seed=0
        ... ).nfe.tolist()
        [20, 20, 20, 20]

    References:
        Song, Meng, Ermon (2021), Denoising Diffusion Implicit Models, eq. 12. https://arxiv.org/abs/2010.02502
    """

    ode_order: ClassVar[int] = 1
    reference: ClassVar[str] = "Song, Meng, Ermon (2021), eq. 12"
    keeps_estimates: ClassVar[bool] = False

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        return StepResult((yield process.linear_estimate(x, start)).mix(stop.alpha, stop.sigma))
