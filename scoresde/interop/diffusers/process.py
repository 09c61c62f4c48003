r"""The process of a list of levels, with clean data at time 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...core.errors import InvalidArgumentError
from ...core.sdes import AffineSDE, NormalPrior
from ...core.sdes.inverse import decreasing_root, derivative
from ...core.support.checks import check_times
from ...core.support.tensors import sigmoid
from ...discrete.curve import MonotoneCurve


class TimestepSDE(AffineSDE):
    r"""The variance preserving process through the levels of a chain, with the timestep plus 1 as its time.

    At the time k + 1 the log-SNR is that of level k, k = 0 … N - 1, and at the time 0 the data are clean. Between the
    levels :math:`\gamma = -\ln\mathrm{SNR}` is a monotone cubic of time. With its slopes s at the cleanest and q at the
    noisiest finite level it goes on as

    .. math:: \gamma(t) = \gamma(1) + s\ln t \quad (t < 1), \qquad
              \gamma(t) = \gamma(N-1) - q\ln(N-t) \quad (t > N-1),

    the second only if the noisiest level has no signal (a terminal SNR of zero). It is the time of DDPM's paper; that
    of `scoresde.discrete.BetaChain` is the label, which is 1 less, and ends at the cleanest level.

    Args:
        log_snrs: :math:`\ln(\alpha^2/\sigma^2)` of the levels, falling; the last may be -inf.
        prior: the distribution at the noisiest level, :math:`N(0, I)` by default.

    Raises:
        InvalidArgumentError: there are fewer than three levels, or they do not fall.
        InvalidTypeError: the log-SNRs are not a list of real numbers.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear()
        >>> sde = TimestepSDE(chain.log_snrs)
        >>> (
        ...     float(sde.sigma(0.0)),
        ...     bool((sde.log_snr(chain.times + 1) - chain.log_snrs).abs().max() < 1e-12),
        ... )
        (0.0, True)
        >>> round(float(sde.time(sde.log_snr(500.5))), 9)
        500.5

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, section 2. https://arxiv.org/abs/2006.11239
        Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, section 3.1 (zero terminal
        SNR). https://arxiv.org/abs/2305.08891
    """

    def __init__(self, log_snrs: Tensor, *, prior: NormalPrior | None = None) -> None:
        self.log_snrs = check_times("log_snrs", log_snrs, "numbers")
        self._ends_silent = len(self.log_snrs) > 0 and float(self.log_snrs[-1]) == -math.inf
        finite = self.log_snrs[:-1] if self._ends_silent else self.log_snrs
        if len(finite) < 3 or not bool((finite.diff() < 0).all()) or not bool(finite.isfinite().all()):
            raise InvalidArgumentError(
                "`log_snrs` must be at least 3 finite numbers that fall; the last one after them may be -inf."
            )
        self._last = float(len(finite))  # the time of the noisiest level with a signal
        self._curve = MonotoneCurve(torch.arange(1.0, self._last + 1, dtype=torch.float64), -finite)
        ends = self._curve(torch.tensor([0.0, 1.0, self._last, self._last + 1], dtype=torch.float64)).tolist()
        self._low, self._high = ends[1], ends[2]
        self._first_slope, self._last_slope = ends[1] - ends[0], ends[3] - ends[2]  # it is straight beyond its ends
        super().__init__(t_min=0.0, t_max=float(len(self.log_snrs)), prior=prior)

    def _gamma(self, t: Tensor) -> Tensor:
        one = torch.ones_like(t)
        early, late = t < 1, t > self._last
        near_data = self._low + self._first_slope * torch.where(early, t, one).log()
        gamma = torch.where(early, near_data, self._curve(torch.where(early | late, one, t)))
        if not self._ends_silent:
            return torch.where(late, self._high + self._last_slope * (t - self._last), gamma)
        near_noise = self._high - self._last_slope * torch.where(late, self.t_max - t, one).log()
        return torch.where(late, near_noise, gamma)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return 0.5 * logsigmoid(-self._gamma(t))

    def _log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * logsigmoid(self._gamma(t))

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        gamma, rate = self._gamma(t), derivative(self._gamma, t)
        clean, silent = gamma == -math.inf, gamma == math.inf
        f = torch.where(clean, -self._g2_at_data, -0.5 * sigmoid(gamma) * rate)
        return f, torch.where(silent, -f, 0.5 * sigmoid(-gamma) * rate)

    @property
    def _g2_at_data(self) -> float:
        """Half of g^2 at the time 0, the limit of rho_1^2 s t^(s-1) / 2."""
        limits = {True: math.inf, False: 0.0}
        slope = self._first_slope
        return 0.5 * math.exp(self._low) if slope == 1 else limits[slope < 1]

    def _g2(self, t: Tensor) -> Tensor:
        return -2 * self._rates(t)[0]

    def _time(self, lam: Tensor) -> Tensor:
        gamma = -2 * lam
        early, late = gamma < self._low, gamma > self._high
        inside = torch.where(early | late, torch.full_like(gamma, self._low), gamma)
        levels = decreasing_root(lambda t: -self._curve(t), -inside, 1.0, self._last)
        near_data = ((gamma - self._low) / self._first_slope).clamp(max=0.0).exp()
        time = torch.where(early, near_data, levels)
        beyond = (gamma - self._high).clamp(min=0.0) / self._last_slope
        near_noise = self.t_max - (-beyond).exp() if self._ends_silent else self._last + beyond
        return torch.where(late, near_noise, time)

    def __repr__(self) -> str:
        return f"TimestepSDE({len(self.log_snrs)} levels, t_min={self.t_min:g}, t_max={self.t_max:g})"
