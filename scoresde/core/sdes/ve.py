"""Variance exploding processes: the noise grows, the signal keeps its scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.checks import check_below
from ..support.declared import Number, Positive, checked
from .base import LARGEST, AffineSDE, NormalPrior


class VESDE(AffineSDE):
    r"""Variance exploding: :math:`\alpha = 1,\ \sigma(t) = \sigma_{min}(\sigma_{max}/\sigma_{min})^t`, prior
    :math:`N(0, \sigma(t_{max})^2 I)`.

    Args:
        sigma_min: noise at t = 0, below what can be seen in the data.
        sigma_max: noise at t = 1, about the largest distance between two data points.
        t_min, t_max: the interval.
        prior: the distribution at ``t_max``.

    Example:
        >>> round(float(VESDE(sigma_max=100.0).sigma(0.5)), 6)
        1.0

    References:
        Song et al. (2021), eq. 9 and appendix C. https://arxiv.org/abs/2011.13456
    """

    @checked
    def __init__(
        self,
        sigma_min: Positive = 0.01,
        sigma_max: Positive = 50.0,
        *,
        t_min: float = 1e-5,
        t_max: Number = 1.0,
        prior: NormalPrior | None = None,
    ) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        check_below("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)
        self._rate = math.log(self.sigma_max) - math.log(self.sigma_min)
        log_end = math.log(self.sigma_min) + self._rate * t_max
        if log_end > LARGEST:
            largest = (LARGEST - math.log(self.sigma_min)) / self._rate
            raise InvalidArgumentError(
                f"`t_max`={t_max} makes sigma(t_max) = exp({log_end:.4g}), more than a float32 holds. "
                f"The largest t_max that works is {0.999 * largest:.4g}."
            )
        at_end = math.exp(log_end)
        super().__init__(t_min=t_min, t_max=t_max, prior=NormalPrior(at_end) if prior is None else prior)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + self._rate * t

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.full_like(t, self._rate)

    def _time(self, lam: Tensor) -> Tensor:
        return -(lam + math.log(self.sigma_min)) / self._rate


class EDMSDE(AffineSDE):
    r"""Variance exploding with the noise level as time: :math:`\alpha = 1,\ \sigma(t) = t`, prior :math:`N(0,
    \sigma(t_{max})^2 I)`.

    Args:
        sigma_min: the data end of the interval.
        sigma_max: the noise end.
        t_min, t_max: the interval, by default [sigma_min, sigma_max].
        prior: the distribution at ``t_max``.

    Example:
        >>> float(EDMSDE().prior.std)
        80.0

    References:
        Karras et al. (2022), Elucidating the Design Space of Diffusion-Based Generative Models.
        https://arxiv.org/abs/2206.00364
    """

    @checked
    def __init__(
        self,
        sigma_min: Positive = 0.002,
        sigma_max: Positive = 80.0,
        *,
        t_min: float | None = None,
        t_max: Positive | None = None,
        prior: NormalPrior | None = None,
    ) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        end = sigma_max if t_max is None else t_max
        super().__init__(
            t_min=self.sigma_min if t_min is None else t_min,
            t_max=end,
            prior=NormalPrior(end) if prior is None else prior,
        )
        check_below("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), 1 / t

    def _sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _g2(self, t: Tensor) -> Tensor:
        return 2 * t

    def _time(self, lam: Tensor) -> Tensor:
        return (-lam).exp()
