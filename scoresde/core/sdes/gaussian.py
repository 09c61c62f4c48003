r"""Any Gaussian process, given by two functions of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.declared import Number, called, checked
from .base import AffineSDE, NormalPrior
from .inverse import decreasing_root, derivative, evaluate


class GaussianSDE(AffineSDE):
    r"""Any process :math:`x_t = \alpha(t) x_0 + \sigma(t)\varepsilon`; f and g are computed by automatic
    differentiation.

    .. math:: f = \frac{d\ln\alpha}{dt}, \qquad g^2 = \frac{d\sigma^2}{dt} - 2 f \sigma^2,

    and the inverse of the log-SNR by a bracketed root.

    Args:
        alpha: an elementwise function of a float64 tensor of times, positive on the interval.
        sigma: likewise; write it without cancellation (``torch.expm1``, ``torch.log1p``) where it is small.
        t_min, t_max: the interval.
        prior: the distribution at ``t_max``; by default :math:`N(0, \sigma(t_{max})^2 I)`.

    Example:
        >>> sde = GaussianSDE(
        ...     lambda t: torch.cos(t), lambda t: torch.sin(t), t_min=1e-3, t_max=1.5
        ... )
        >>> round(float(sde.diffusion(0.5)) ** 2, 6), round(float(sde.time(0.0)), 6)
        (1.092605, 0.785398)
    """

    @checked
    def __init__(
        self,
        alpha: Annotated[Callable[[Tensor], Tensor], called("alpha(t) with a tensor of times")],
        sigma: Annotated[Callable[[Tensor], Tensor], called("sigma(t) with a tensor of times")],
        t_min: float,
        t_max: Number,
        *,
        prior: NormalPrior | None = None,
    ) -> None:
        self._functions = {"alpha": alpha, "sigma": sigma}
        if prior is None:
            end = self._value("sigma", torch.tensor(t_max, dtype=torch.float64)).detach().item()
            if not end > 0:
                raise InvalidArgumentError(f"sigma(t_max) must be positive, got {end} at t_max={t_max}.")
            prior = NormalPrior(end)
        super().__init__(t_min=t_min, t_max=t_max, prior=prior)

    def _value(self, name: str, t: Tensor) -> Tensor:
        value = evaluate(name, self._functions[name], t)
        return value if isinstance(value, Tensor) else torch.full_like(t, value)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return self._value("alpha", t).log()

    def _log_sigma(self, t: Tensor) -> Tensor:
        return self._value("sigma", t).log()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return derivative(self._log_alpha, t), derivative(self._log_sigma, t)

    def _sigma_rate(self, t: Tensor) -> Tensor:
        return derivative(lambda u: self._value("sigma", u), t)

    def _g2(self, t: Tensor) -> Tensor:
        sigma = self._value("sigma", t)
        return 2 * sigma * (self._sigma_rate(t) - sigma * self._rates(t)[0])

    def _alpha_rate(self, t: Tensor) -> Tensor:
        return derivative(lambda u: self._value("alpha", u), t)

    def _time(self, lam: Tensor) -> Tensor:
        return decreasing_root(lambda t: self._log_alpha(t) - self._log_sigma(t), lam, self.t_min, self.t_max)
