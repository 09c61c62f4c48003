"""DDIM, the first-order exponential integrator, and DDIM with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.support.checks import check_number
from ..core.support.combination import sum_of
from ..core.support.tensors import expm1
from .base import EstimateSDESolver, EstimateSolver, Node, Process, Step, StepResult


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


@dataclass(frozen=True)
class DDIMEta(EstimateSDESolver):
    r"""DDIM(:math:`\eta`), for any process.

    .. math::
        x_t = \alpha_t\hat x + \sqrt{\sigma_t^2-c^2}\,\hat\varepsilon + c z,\qquad
            c^2 = \eta^2\sigma_t^2(1-e^{-2h}).

    Facts:
        Weak order 1, strong order 1; 1 evaluation per step; no state. :math:`\eta = 0` is `DDIM`, :math:`\eta = 1` is
        `Ancestral`. In between it differs from the exponential integrator of the reverse SDE with the same
        :math:`\eta`; both have the right distribution in the limit. In :math:`x/\alpha` it is k-diffusion's
        ``sample_euler_ancestral``.

    Args:
        eta: the share of noise, 0 to 1.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="ddim_eta",
        ...     eta=0.5,
        ...     steps=20,
        ...     shape=(4, 2),
        ...     seed=0,
        ... ).x.shape
        torch.Size([4, 2])

    References:
        Song, Meng, Ermon (2021), Denoising Diffusion Implicit Models, eq. 12 and 16. https://arxiv.org/abs/2010.02502
    """

    eta: float = 1.0

    keeps_estimates: ClassVar[bool] = False
    gaussian_step: ClassVar[bool] = True
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Song, Meng, Ermon (2021), eq. 12 and 16"

    def __post_init__(self) -> None:
        check_number("eta", self.eta, low=0.0, high=1.0)

    def follows(self, eta: float) -> float | None:
        """Its own eta."""
        return self.eta

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        share = -self.eta * self.eta * expm1(2 * (start.lam - stop.lam))  # c^2 / sigma_t^2
        kept, drawn = stop.sigma * (1 - share) ** 0.5, stop.sigma * share**0.5
        moved = (yield process.linear_estimate(x, start)).mix(stop.alpha, kept)
        return StepResult(sum_of([(1.0, moved), (drawn, (yield process.increment(start.t, stop.t, x)))]))
