r"""The variational diffusion model's process: any increasing :math:`\gamma(t)`, fixed or learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import InvalidTypeError
from ..support.checks import check_below, check_kind
from ..support.declared import Number, checked
from ..support.tensors import sigmoid
from .base import AffineSDE, Node, NormalPrior
from .inverse import check_reached, decreasing_root, evaluate, with_derivative


@checked
@dataclass(frozen=True)
class LinearGamma:
    r""":math:`\gamma(t) = \gamma_{min} + (\gamma_{max} - \gamma_{min})\,t`.

    Example:
        >>> LinearGamma()(torch.tensor(0.5))
        tensor(-4.1500)
    """

    gamma_min: Number = -13.3
    gamma_max: Number = 5.0

    def __post_init__(self) -> None:
        check_below("gamma_min", self.gamma_min, "gamma_max", self.gamma_max)

    def __call__(self, t: Tensor) -> Tensor:
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t

    def inverse(self, gamma: Tensor) -> Tensor:
        """The t of a value."""
        return (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)


@checked
@dataclass(frozen=True)
class ShiftedGamma:
    r""":math:`\gamma(t) = shift - \mathrm{log\text{-}SNR}(t)` of another process: the same schedule with more noise.

    Larger images hide less behind the same noise. Simple diffusion therefore adds :math:`2\ln(64/d)` to the log-SNR of
    a schedule that suits 64 pixels, for images of d pixels per side: ``shift = 2 * math.log(d / 64)``.

    Args:
        sde: the process whose log-SNR is shifted.
        shift: the number that is subtracted from the log-SNR.

    Example:
        >>> cosine = scoresde.CosineVPSDE()
        >>> gamma = ShiftedGamma(cosine, 2 * math.log(256 / 64))
        >>> sde = VDMSDE(gamma, t_min=cosine.t_min, t_max=cosine.t_max)
        >>> round(float(cosine.log_snr(0.5) - sde.log_snr(0.5)), 6)
        2.772589

    References:
        Hoogeboom, Heek, Salimans (2023), Simple Diffusion, section 3.1. https://arxiv.org/abs/2301.11093
    """

    sde: AffineSDE
    shift: Number

    def __call__(self, t: Tensor) -> Tensor:
        return self.shift - self.sde.log_snr(t)

    def inverse(self, gamma: Tensor) -> Tensor:
        """The t of a value."""
        return self.sde.time(self.shift - gamma)


class VDMSDE(AffineSDE):
    r"""Variance preserving through :math:`\gamma = -\ln \mathrm{SNR}`: :math:`\alpha^2 = \mathrm{sigmoid}(-\gamma(t)),\
    \sigma^2 = \mathrm{sigmoid}(\gamma(t))`.

    Args:
        gamma: an increasing elementwise function of a tensor of times, or an ``nn.Module``; gradients flow through
            :math:`\alpha` and :math:`\sigma` to its parameters. Its derivative is taken by automatic differentiation,
            its inverse by bisection, unless it has a method ``inverse(gamma) -> t``.
        t_min, t_max: the interval.
        prior: the distribution at ``t_max``, :math:`N(0, I)` by default.

    Example:
        >>> sde = VDMSDE()
        >>> round(float(sde.log_snr(0.0)), 6), round(float(sde.time(-5.0)), 6)
        (13.3, 1.0)

    References:
        Kingma et al. (2021), Variational Diffusion Models, section 3.2. https://arxiv.org/abs/2107.00630
    """

    def __init__(
        self,
        gamma: Callable[[Tensor], Tensor] | None = None,
        *,
        t_min: float = 0.0,
        t_max: float = 1.0,
        prior: NormalPrior | None = None,
    ) -> None:
        self.gamma = LinearGamma() if gamma is None else gamma
        check_kind("gamma", self.gamma, Callable, "a function of t or an nn.Module")  # type: ignore[arg-type]
        super().__init__(t_min=t_min, t_max=t_max, prior=prior)

    def _gamma(self, t: Tensor) -> Tensor:
        """γ in float64; a module is called in its own dtype, with times as a flat batch ``(n,)``."""
        parameter = next(self.gamma.parameters(), None) if isinstance(self.gamma, torch.nn.Module) else None
        flat = t.reshape(-1).to(parameter) if parameter is not None else t.reshape(-1)
        value = evaluate("gamma", self.gamma, flat)
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"`gamma` must return a tensor like its input, got {type(value).__name__}.")
        return value.to(t).reshape(t.shape)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return 0.5 * logsigmoid(-self._gamma(t))

    def _log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * logsigmoid(self._gamma(t))

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return _rates(*with_derivative(self._gamma, t))

    def nodes(self, t: Tensor) -> Node[Tensor]:
        """See `AffineSDE`; one call of the network that gamma may be, where the functions of time take one each."""
        t = t.to(torch.float64)
        gamma, rate = with_derivative(self._gamma, t)
        log_alpha, log_sigma = 0.5 * logsigmoid(-gamma), 0.5 * logsigmoid(gamma)
        alpha, sigma = log_alpha.exp(), log_sigma.exp()
        f, growth = _rates(gamma, rate)
        g2 = 2 * (2 * log_sigma).exp() * (growth - f)
        return Node(t, alpha, sigma, log_alpha - log_sigma, f, g2, alpha * f, sigma * growth)

    def _time(self, lam: Tensor) -> Tensor:
        known, inverse = lambda t: -0.5 * self._gamma(t), getattr(self.gamma, "inverse", None)
        if not callable(inverse):
            return decreasing_root(known, lam, self.t_min, self.t_max)
        check_reached(known, lam.detach(), self.t_min, self.t_max)
        return inverse(-2 * lam).clamp(self.t_min, self.t_max)


def _rates(gamma: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The time derivatives of ln alpha and ln sigma."""
    return -0.5 * sigmoid(gamma) * rate, 0.5 * sigmoid(-gamma) * rate
