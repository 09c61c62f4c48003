"""Denoising diffusion restoration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.declared import Probability, checked
from ...core.support.tensors import expand
from ...solvers.base import Node, Process, Step, StepResult
from .base import SpectralSolver


@checked
@dataclass(frozen=True, eq=False)
class DDRM(SpectralSolver):
    r"""DDRM: each singular direction is stepped separately, with its component of y. With :math:`\bar y = U^Hy/s`, of
    standard deviation :math:`\sigma_y/s`, in coordinates :math:`V^Hx/\alpha` and with :math:`\rho = \sigma/\alpha`,

    .. math::
        \bar x_t = \begin{cases}
        \bar x_\theta + \sqrt{1-\eta^2}\,\rho_t\hat\varepsilon + \eta\rho_tz & s = 0\\
        \bar x_\theta + \sqrt{1-\eta^2}\,\rho_t\,\frac{\bar y-\bar x_\theta}{\sigma_y/s} + \eta\rho_tz
            & \rho_t < \sigma_y/s\\
        (1-\eta_b)\bar x_\theta + \eta_b\bar y + \sqrt{\rho_t^2-\eta_b^2\sigma_y^2/s^2}\,z & \rho_t \ge \sigma_y/s.
        \end{cases}

    Facts:
        1 evaluation per step, no vector-Jacobian product. It takes into account how noisy each direction is, but not
        how directions depend on each other under the data's distribution. With :math:`\eta > 0` every step redraws the
        same share of the noise, however short it is. So it suits few steps (20 in the paper); with many steps it does
        not tend to the posterior, nor to the prior without a measurement.

    Differs from:
        the paper, which also draws the first state near y: here it is the prior's draw, which at ``t_max`` hardly
        differs.

    Args:
        measurement: of a linear operator with singular values.
        eta, eta_b: the shares of new noise and of y.

    Example:
        >>> from scoresde.inverse import DDRM, Mask, Measurement
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> seen = Measurement(Mask(torch.tensor([True, False])), torch.tensor([3.0]))
        >>> options = {"method": DDRM(seen), "steps": 20, "shape": (9, 2), "seed": 0}
        >>> x = scoresde.solve(sde, target.score(sde), **options).x
        >>> bool((x[:, 0] - 3).abs().max() < 0.1)
        True

    References:
        Kawar et al. (2022), Denoising Diffusion Restoration Models, eq. 7-8. https://arxiv.org/abs/2201.11793
    """

    eta: Probability = 0.85
    eta_b: Probability = 1.0

    name: ClassVar[str] = "ddrm"
    keeps_estimates: ClassVar[bool] = False
    reference: ClassVar[str] = "Kawar et al. (2022), eq. 7-8"
    data_limit: ClassVar[bool] = True

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Tensor) -> Step:
        """See `Solver.step`."""
        values, into, back = self.operator.svd
        values = values.to(x)
        estimate, z = (yield process.estimate(x, start)), (yield process.normal(x))
        data, epsilon, seen, z = (into(v) for v in (estimate.data, estimate.noise, state, z))
        alpha, sigma = expand(stop.alpha, data.real), expand(stop.sigma, data.real)
        blur = self.measurement.std / torch.where(values > 0, values, torch.ones_like(values))  # of y, in data units
        keep = (1 - self.eta**2) ** 0.5
        toward = (seen - data) / torch.where(blur > 0, blur, torch.ones_like(blur))
        rest = alpha * data + sigma * (keep * torch.where(values > 0, toward, epsilon) + self.eta * z)
        spread = (sigma**2 - (alpha * self.eta_b * blur) ** 2).clamp_min(0).sqrt()
        told = alpha * ((1 - self.eta_b) * data + self.eta_b * seen) + spread * z
        return StepResult(back(torch.where((values > 0) & (sigma >= alpha * blur), told, rest)), state)
