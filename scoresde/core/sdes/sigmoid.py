"""The variance preserving process with a sigmoid schedule."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.checks import MOST_LEVELS, check_below, check_integer
from ..support.declared import Number, Positive, checked, number
from .base import AffineSDE, NormalPrior


class SigmoidVPSDE(AffineSDE):
    r"""Variance preserving with a sigmoid for the signal's variance, prior :math:`N(0, I)`.

    .. math::
        \alpha^2(t) = \frac{\varsigma(u_1) - \varsigma(u_t)}{\varsigma(u_1) - \varsigma(u_0)}, \qquad
            u_t = \frac{start + (end - start)\,t}{\tau}, \qquad \sigma^2 = 1 - \alpha^2,

    with :math:`\varsigma` the logistic function. With :math:`w = (u_t-u_0)/2` and :math:`W = (u_1-u_0)/2` this is
    computed as

    .. math::
        \alpha^2 = \frac{\sinh(W-w)\,\cosh(u_0/2)}{\sinh W\,\cosh(u_t/2)}, \qquad
        \sigma^2 = \frac{\sinh w\,\cosh(u_1/2)}{\sinh W\,\cosh(u_t/2)},

    which loses no digits at either end.

    Args:
        start, end: the part of the logistic function that is used, start < end. A larger ``start`` spends less time on
            small noise.
        tau: :math:`\tau > 0`, the temperature; large values make :math:`\alpha^2` a line, small ones a step.
        t_min, t_max: the interval, inside (0, 1): at t = 1 the signal is gone and :math:`\alpha'` infinite. At the
            default ``t_max`` :math:`\lambda` is -5.2, as for `VPSDE`.
        prior: the distribution at ``t_max``.

    Differs from:
        the published code, which clips :math:`\alpha^2` at 1e-9.

    Raises:
        InvalidArgumentError: start is not below end, or tau is so small that the SNR does not fall strictly in float64.

    Example:
        >>> sde = SigmoidVPSDE()
        >>> round(float(sde.alpha(0.5)) ** 2, 12)
        0.5

    References:
        Jabri, Fleet, Chen (2022), Scalable Adaptive Computation for Iterative Generation, algorithm 3.
        https://arxiv.org/abs/2212.11972
        Chen (2023), On the Importance of Noise Scheduling for Diffusion Models, algorithm 1.
        https://arxiv.org/abs/2301.10972
    """

    @checked
    def __init__(
        self,
        start: Number = -3.0,
        end: Number = 3.0,
        tau: Positive = 1.0,
        *,
        t_min: float = 1e-3,
        t_max: Annotated[float, number(low=0.0, high=1.0, strict=True)] = 0.9999,
        prior: NormalPrior | None = None,
    ) -> None:
        self.start, self.end, self.tau = start, end, tau
        check_below("start", self.start, "end", self.end)
        smallest = max(abs(self.start), abs(self.end)) / _LARGEST
        if self.tau < smallest:
            raise InvalidArgumentError(f"`tau` must be at least {smallest:.3g} from {start} to {end}, got {tau}.")
        self._first, self._last = 0.5 * self.start / self.tau, 0.5 * self.end / self.tau  # u_0 / 2, u_1 / 2
        self._width = 0.5 * (self.end - self.start) / self.tau  # W
        self._whole = _log_sinh(torch.tensor(self._width, dtype=torch.float64)).item()
        self._log_ends = [_log_cosh(torch.tensor(v, dtype=torch.float64)).item() for v in (self._first, self._last)]
        super().__init__(t_min=t_min, t_max=t_max, prior=prior)

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """w, W - w and u_t/2."""
        w = self._width * t
        return w, self._width * (1 - t), self._first + w

    def _log_alpha(self, t: Tensor) -> Tensor:
        _, rest, half = self._at(t)
        return 0.5 * (_log_sinh(rest) - _log_cosh(half) + (self._log_ends[0] - self._whole))

    def _log_sigma(self, t: Tensor) -> Tensor:
        w, _, half = self._at(t)
        return 0.5 * (_log_sinh(w) - _log_cosh(half) + (self._log_ends[1] - self._whole))

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # coth(W - w) + tanh(u/2) and coth(w) - tanh(u/2), each as one quotient
        w, rest, half = self._at(t)
        near_noise = (self._log_ends[1] - _log_sinh(rest) - _log_cosh(half)).exp()
        near_data = (self._log_ends[0] - _log_sinh(w) - _log_cosh(half)).exp()
        return -0.5 * self._width * near_noise, 0.5 * self._width * near_data

    def _g2(self, t: Tensor) -> Tensor:
        return -2 * self._rates(t)[0]

    def _time(self, lam: Tensor) -> Tensor:
        # sinh(W - w)/sinh(w) = r, so e^{2w} - 1 = (e^{W} - e^{-W})/(r + e^{-W}) = (e^{2W} - 1)/(r e^{W} + 1)
        log_r = 2 * lam + (self._log_ends[1] - self._log_ends[0])
        return 0.5 * torch.log1p(math.expm1(2 * self._width) / (torch.exp(log_r + self._width) + 1)) / self._width

    def betas(self, n: int) -> Tensor:
        r""":math:`1 - \alpha^2((i+1)/n)/\alpha^2(i/n)`, i = 0 … n - 1, float64 ``(n,)``; the last is 1.

        Example:
            >>> round(float(SigmoidVPSDE().betas(10)[-1]), 12)
            1.0
        """
        n = check_integer("n", n, low=1, high=MOST_LEVELS)
        i = torch.arange(n, dtype=torch.float64)
        step = torch.tensor(self._width / n, dtype=torch.float64)
        rest, half = (n - i) * step, self._first + (i + 1) * step
        return (_log_sinh(step) + self._log_ends[1] - _log_sinh(rest) - _log_cosh(half)).exp()


_LARGEST = 300.0  # of the logistic function's argument, so that e^{2W} is a float


def _log_sinh(z: Tensor) -> Tensor:
    """ln sinh of positive numbers."""
    return z + torch.log(-torch.expm1(-2 * z)) - math.log(2)


def _log_cosh(z: Tensor) -> Tensor:
    return z.abs() + torch.log1p(torch.exp(-2 * z.abs())) - math.log(2)
