"""Variance preserving processes and the sub-variance preserving one."""

from __future__ import annotations

import abc
import math
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import InvalidArgumentError
from ..support.checks import check_positive
from ..support.declared import Kind, Positive, checked, number
from ..support.tensors import sigmoid
from .base import AffineSDE, Node, NormalPrior

_Beta = Annotated[float, Kind(partial(check_positive, high=1e100))]  # its square is a float


class _Schedule(NamedTuple):
    r""":math:`\sigma`, :math:`\ln\sigma`, its derivative, :math:`g^2` and :math:`\sigma'`."""

    sigma: Tensor
    log_sigma: Tensor
    rate: Tensor
    g2: Tensor
    dsigma: Tensor


class _LinearBeta(AffineSDE):
    r""":math:`\beta(t)` linear, :math:`B(t) = \beta_{min} t + \tfrac12(\beta_{max}-\beta_{min})t^2`, :math:`\alpha =
    e^{-B/2}`."""

    @checked
    def __init__(
        self,
        beta_min: _Beta = 0.1,
        beta_max: _Beta = 20.0,
        *,
        t_min: float = 1e-3,
        t_max: float = 1.0,
        prior: NormalPrior | None = None,
    ) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max
        if self.beta_max < self.beta_min:
            raise InvalidArgumentError(f"`beta_min` must not exceed `beta_max`, got {beta_min} and {beta_max}.")
        super().__init__(t_min=t_min, t_max=t_max, prior=prior)

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def _inverse_integral(self, b: Tensor) -> Tensor:
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * b))

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self._integral(t)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return self._of_integral(self._integral(t), self._beta(t)).log_sigma

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self._beta(t)
        return -0.5 * beta, self._of_integral(self._integral(t), beta).rate

    def _sigma_rate(self, t: Tensor) -> Tensor:
        return self._of_integral(self._integral(t), self._beta(t)).dsigma

    def _g2(self, t: Tensor) -> Tensor:
        return self._of_integral(self._integral(t), self._beta(t)).g2

    @abc.abstractmethod
    def _of_integral(self, b: Tensor, beta: Tensor) -> _Schedule:
        """What depends on how sigma follows from B."""

    def nodes(self, t: Tensor) -> Node[Tensor]:
        """See `AffineSDE.nodes`; beta and its integral are computed once."""
        t = t.to(torch.float64)
        beta, b = self._beta(t), self._integral(t)
        log_alpha, f, own = -0.5 * b, -0.5 * beta, self._of_integral(b, beta)
        alpha = log_alpha.exp()
        return Node(t, alpha, own.sigma, log_alpha - own.log_sigma, f, own.g2, alpha * f, own.dsigma)


class VPSDE(_LinearBeta):
    r"""Variance preserving with linear :math:`\beta`: :math:`\alpha = e^{-B/2},\ \sigma^2 = 1 - e^{-B}`, prior
    :math:`N(0, I)`.

    Args:
        beta_min: :math:`\beta(0)`.
        beta_max: :math:`\beta(1)`.
        t_min, t_max: the interval.
        prior: the distribution at ``t_max``.

    Example:
        >>> sde = VPSDE()
        >>> round(float(sde.alpha(0.3) ** 2 + sde.sigma(0.3) ** 2), 12)
        1.0

    References:
        Song et al. (2021), eq. 11 and appendix C. https://arxiv.org/abs/2011.13456
    """

    def _of_integral(self, b: Tensor, beta: Tensor) -> _Schedule:
        log_sigma, rate = 0.5 * torch.log(-torch.expm1(-b)), 0.5 * beta / torch.expm1(b)
        sigma = log_sigma.exp()
        return _Schedule(sigma, log_sigma, rate, beta, sigma * rate)

    def _time(self, lam: Tensor) -> Tensor:
        return self._inverse_integral(-logsigmoid(2 * lam))


class SubVPSDE(_LinearBeta):
    r"""Sub-variance preserving: :math:`\alpha = e^{-B/2},\ \sigma = 1 - e^{-B}`, prior :math:`N(0, I)`.

    Args:
        beta_min: :math:`\beta(0)`.
        beta_max: :math:`\beta(1)`.
        t_min, t_max: the interval.
        prior: the distribution at ``t_max``.

    Example:
        >>> bool(SubVPSDE().sigma(0.3) < VPSDE().sigma(0.3))
        True

    References:
        Song et al. (2021), eq. 12 and appendix C. https://arxiv.org/abs/2011.13456
    """

    def _of_integral(self, b: Tensor, beta: Tensor) -> _Schedule:
        log_sigma = torch.log(-torch.expm1(-b))
        rate, g2 = beta / torch.expm1(b), -beta * torch.expm1(-2 * b)
        return _Schedule(log_sigma.exp(), log_sigma, rate, g2, beta * torch.exp(-b))

    def _time(self, lam: Tensor) -> Tensor:
        return self._inverse_integral(2 * torch.asinh(0.5 * torch.exp(-lam)))  # alpha/sigma = 1/(2 sinh(B/2))


class CosineVPSDE(AffineSDE):
    r"""Variance preserving with the cosine schedule of improved DDPM, prior :math:`N(0, I)`.

    .. math::
        \alpha(t) = \frac{\cos a(t)}{\cos a(0)}, \qquad a(t) = \frac{t+s}{1+s}\,\frac{\pi}{2}, \qquad
            \sigma^2 = 1-\alpha^2.

    Args:
        s: the offset that keeps the noise of the first steps visible.
        t_min, t_max: the interval; :math:`\lambda` is -4.8 at the default ``t_max``, and :math:`\alpha` vanishes at 1.
        prior: the distribution at ``t_max``.

    Example:
        >>> round(float(CosineVPSDE().alpha(0.0)), 12)
        1.0

    References:
        Nichol, Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, eq. 17.
        https://arxiv.org/abs/2102.09672
    """

    @checked
    def __init__(
        self,
        s: Positive = 0.008,
        *,
        t_min: float = 1e-3,
        t_max: Annotated[float, number(high=1.0)] = 0.9946,
        prior: NormalPrior | None = None,
    ) -> None:
        self.s = s
        self._speed = 0.5 * math.pi / (1 + self.s)
        self._start = self._speed * self.s
        super().__init__(t_min=t_min, t_max=t_max, prior=prior)

    # With d = a(t) - a(0): sigma^2 = sin(d + 2 a(0)) sin(d) / cos^2 a(0), which loses no digits at either end.
    def _sigma2(self, t: Tensor) -> Tensor:
        d = self._speed * t
        return torch.sin(d + 2 * self._start) * torch.sin(d) / math.cos(self._start) ** 2

    def _log_alpha(self, t: Tensor) -> Tensor:
        sigma2 = self._sigma2(t)
        early = sigma2 < 0.5
        near_data = 0.5 * torch.log1p(-torch.where(early, sigma2, torch.zeros_like(sigma2)))
        # cos a = sin(speed (1 - t)), exact where the signal vanishes
        near_noise = torch.log(torch.sin(self._speed * (1 - t)) / math.cos(self._start))
        return torch.where(early, near_data, near_noise)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(self._sigma2(t))

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        d = self._speed * t
        f = -self._speed / torch.tan(self._speed * (1 - t))
        return f, 0.5 * self._speed * (1 / torch.tan(d + 2 * self._start) + 1 / torch.tan(d))

    def _g2(self, t: Tensor) -> Tensor:
        return -2 * self._rates(t)[0]

    def _alpha_rate(self, t: Tensor) -> Tensor:
        return -self._speed * torch.cos(self._speed * (1 - t)) / math.cos(self._start)

    def _time(self, lam: Tensor) -> Tensor:
        cos0, sin0 = math.cos(self._start), math.sin(self._start)
        alpha, sigma2 = sigmoid(2 * lam).sqrt(), sigmoid(-2 * lam)
        cos_a, sin_a = alpha * cos0, torch.sqrt(sin0**2 + sigma2 * cos0**2)
        sin_d = cos0 * sigma2 / (sin_a + alpha * sin0)
        return torch.atan(sin_d / (cos_a * cos0 + sin_a * sin0)) / self._speed
