"""DDPM's chain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..core.sdes import VDMSDE, AffineSDE, NormalPrior, SigmoidVPSDE
from ..core.support.checks import MOST_LEVELS, check_integer, check_number
from .base import Chain, numbers_of


class BetaChain(Chain):
    r"""DDPM's chain, variance preserving: :math:`q(x_i|x_{i-1}) = N(\sqrt{1-\beta_i}\,x_{i-1}, \beta_i I)`.

    .. math:: \bar\alpha_i = \prod_{j\le i}(1-\beta_j), \qquad \alpha = \sqrt{\bar\alpha_i}, \qquad
              \sigma = \sqrt{1-\bar\alpha_i}.

    Labels are 0 … N - 1, as in the published code (the paper's t is the label plus 1), and the time is the label.

    Args:
        betas: N numbers in (0, 1), the first level's first; at least two.

    Attributes:
        betas: :math:`1-\bar\alpha_i/\bar\alpha_{i-1}` between the levels of this chain, with :math:`\bar\alpha_{-1} =
            1`.
        alphas_bar: :math:`\bar\alpha_i`.
        posterior_variances: :math:`\tilde\beta_i = \beta_i(1-\bar\alpha_{i-1})/(1-\bar\alpha_i)`, 0 at the first, where
            improved DDPM's code repeats the second; no sampler draws noise there.

    Raises:
        InvalidArgumentError: a beta is not in (0, 1), or there are fewer than two.
        InvalidTypeError: betas is not a list of real numbers.

    Example:
        >>> chain = BetaChain.linear()
        >>> sde = chain.sde()
        >>> x = torch.randn(4, 2, dtype=torch.float64)
        >>> model = scoresde.ScoreModel(
        ...     lambda x, i: x, sde, "noise", time_input="index", chain=chain
        ... )
        >>> scoresde.solve(
        ...     sde,
        ...     model,
        ...     x,
        ...     method="ancestral",
        ...     variance="large",
        ...     grid=chain.grid(50),
        ...     denoise=True,
        ... ).evaluations
        50

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, section 2. https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal (2021), eq. 19 (respacing). https://arxiv.org/abs/2102.09672
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        values = numbers_of("betas", betas, 1.0)
        log_alphas_bar = torch.log1p(-values).cumsum(0)
        log_snrs = log_alphas_bar - torch.log(-torch.expm1(log_alphas_bar))
        super().__init__("betas", log_snrs, torch.arange(len(values), device=values.device))

    @classmethod
    def linear(cls, n: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> BetaChain:
        r"""n values of :math:`\beta` evenly from ``beta_min`` to ``beta_max``.

        They belong to n = 1000; improved DDPM multiplies both by 1000/n for other n.

        Example:
            >>> round(float(BetaChain.linear().alphas_bar[-1]), 8)
            4.036e-05
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        low = check_number("beta_min", beta_min, low=0.0, high=1.0, strict=True)
        high = check_number("beta_max", beta_max, low=0.0, high=1.0, strict=True)
        return cls(torch.linspace(low, high, n, dtype=torch.float64))

    @classmethod
    def cosine(cls, n: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> BetaChain:
        r"""Improved DDPM's cosine schedule: :math:`\beta_i = \min(1 - f_{i+1}/f_i,\ \beta_{max})` with :math:`f_i =
        \cos^2 a_i,\ a_i = \frac{i/n+s}{1+s}\frac{\pi}{2}`.

        It is computed as :math:`\sin(a_{i+1}-a_i)\sin(a_{i+1}+a_i)/\cos^2 a_i`, which loses no digits.

        Example:
            >>> round(float(BetaChain.cosine(1000).betas[0]), 7)
            4.13e-05

        References:
            Nichol, Dhariwal (2021), eq. 17. https://arxiv.org/abs/2102.09672
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        s = check_number("s", s, low=0.0, strict=True)
        max_beta = check_number("max_beta", max_beta, low=0.0, high=1.0, strict=True)
        speed = 0.5 * math.pi / (1 + s) / n
        a = speed * (torch.arange(n, dtype=torch.float64) + n * s)
        betas = math.sin(speed) * torch.sin(2 * a + speed) / torch.cos(a) ** 2
        return cls(betas.clamp(max=max_beta))

    @classmethod
    def sigmoid(
        cls, n: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
    ) -> BetaChain:
        r"""The betas of the sigmoid schedule: :math:`\beta_i = \min(1 - \bar\alpha_{i+1}/\bar\alpha_i,\ \beta_{max})`
        with :math:`\bar\alpha_i = \alpha^2(i/n)` of `scoresde.SigmoidVPSDE`.

        Example:
            >>> round(float(BetaChain.sigmoid(1000).alphas_bar[499]), 12)
            0.5

        References:
            Jabri, Fleet, Chen (2022), algorithm 3. https://arxiv.org/abs/2212.11972
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        max_beta = check_number("max_beta", max_beta, low=0.0, high=1.0, strict=True)
        return cls(SigmoidVPSDE(start, end, tau).betas(n).clamp(max=max_beta))

    @property
    def alphas_bar(self) -> Tensor:
        return torch.sigmoid(self.log_snrs)

    @property
    def betas(self) -> Tensor:
        log_alphas_bar = logsigmoid(self.log_snrs)
        return -torch.expm1(torch.cat([log_alphas_bar[:1], log_alphas_bar.diff()]))

    @property
    def posterior_variances(self) -> Tensor:
        log_rest = logsigmoid(-self.log_snrs)  # ln(1 - alpha_bar)
        return self.betas * torch.cat([log_rest.new_zeros(1), (-log_rest.diff()).exp()])

    def scale(self, log_snr: Tensor) -> Tensor:
        r""":math:`\alpha = \mathrm{sigmoid}(\mathrm{log\text{-}SNR})^{1/2}`."""
        return torch.sigmoid(log_snr).sqrt()

    def sde(
        self, *, t_min: float | None = None, t_max: float | None = None, prior: NormalPrior | None = None
    ) -> AffineSDE:
        r"""The variance preserving process through the levels, prior :math:`N(0, I)`; see `Chain.sde`.

        Example:
            >>> chain = BetaChain.linear()
            >>> sde = chain.sde()
            >>> bool((sde.alpha(chain.times) ** 2 - chain.alphas_bar).abs().max() < 1e-12)
            True
        """
        low, high = self._ends(t_min, t_max)
        return VDMSDE(self._curve, t_min=low, t_max=high, prior=prior)
