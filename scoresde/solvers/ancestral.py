"""Ancestral sampling: the Gaussian posterior with the estimated data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .._tensors import expand, expm1
from ..noise import Noise
from ..processes import Process
from ..sdes import Node
from .base import Solver, StepResult


@dataclass(frozen=True)
class Ancestral(Solver):
    r"""Ancestral sampling for any process: draw from :math:`q(x_t|x_s, x_0=\hat x)` (t cleaner, s noisier,
    :math:`h=\lambda_t-\lambda_s`).

    .. math:: x_t = \frac{\sigma_t}{\sigma_s}e^{-h}x_s + \alpha_t(1-e^{-2h})\hat x + \sigma_t\sqrt{1-e^{-2h}}\,z.

    Facts:
        Weak order 1, strong order 1; 1 evaluation a step; no state; exact for a point mass. It is DDPM's sampler with
        the small variance, VDM's ancestral sampler, DDIM with :math:`\eta = 1` and the first-order SDE-DPM-Solver++.

    Differs from:
        DDPM with the large variance :math:`\beta`; score_sde's ``AncestralSamplingPredictor``, which knows VE and VP
        only.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.FlowSDE()
        >>> scoresde.solve(sde, target.score(sde), method="ancestral", steps=20, shape=(4, 2), seed=0).x.shape
        torch.Size([4, 2])

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, eq. 7. https://arxiv.org/abs/2006.11239
        Kingma et al. (2021), Variational Diffusion Models, appendix A. https://arxiv.org/abs/2107.00630
    """

    name: ClassVar[str] = "ancestral"
    kind: ClassVar[str] = "sde"
    stochastic: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Ho, Jain, Abbeel (2020), eq. 7; Kingma et al. (2021), appendix A"
    noise_limit: ClassVar[bool] = True
    data_limit: ClassVar[bool] = True

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """See `Solver.step`."""
        shrink = -expm1(2 * (start.lam - stop.lam))  # 1 - exp(-2h)
        keep = (start.alpha / stop.alpha) * (stop.sigma / start.sigma) * (stop.sigma / start.sigma)
        mean = expand(keep, x) * x + expand(stop.alpha * shrink, x) * process.estimate(x, start).data
        return StepResult(mean + expand(stop.sigma * shrink**0.5, x) * noise.increment(start.t, stop.t, x))
