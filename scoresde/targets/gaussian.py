r"""A Gaussian target: every formula of a linear score is closed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..sdes import AffineSDE, Estimate
from .base import Target, _kernel
from .spectrum import Spectrum


class Gaussian(Target):
    r"""The data law :math:`N(m, \Sigma)`.

    With :math:`S_t = \alpha_t^2\Sigma + \sigma_t^2 I` the diffused law is :math:`N(\alpha_t m, S_t)`, and

    .. math:: \hat x = m + \alpha\Sigma S^{-1}(x - \alpha m), \qquad \hat\varepsilon = \sigma S^{-1}(x - \alpha m).

    Args:
        mean: m, a tensor of the event's shape.
        cov: :math:`\Sigma`: a ``(D, D)`` matrix over the flattened event, a tensor of variances of the event's shape,
            or a number.

    Example:
        >>> target = Gaussian(torch.zeros(2), torch.tensor([1.0, 4.0]))
        >>> target.log_prob(torch.zeros(1, 2))
        tensor([-2.5310])
    """

    def __init__(self, mean: Tensor, cov: Tensor | float) -> None:
        mean = torch.as_tensor(mean)
        if mean.ndim < 1 or not mean.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"`mean` must be a floating-point tensor of the event's shape, got {mean.dtype} {tuple(mean.shape)}."
            )
        if not bool(torch.isfinite(mean).all()):
            raise InvalidArgumentError("`mean` must be finite.")
        self.dtype = mean.dtype
        self.event_shape = tuple(mean.shape)
        self.mean = mean.to(torch.float64)
        self.spectrum = Spectrum.of(torch.as_tensor(cov, dtype=torch.float64), self.event_shape, "cov")

    def _estimate(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        m, spectrum = self.mean.to(x), self.spectrum.to(x)
        centred = spectrum.into(x - alpha * m)
        scaled = centred / (alpha * alpha * spectrum.values + sigma * sigma)
        return Estimate(data=m + spectrum.back(alpha * spectrum.values * scaled), noise=spectrum.back(sigma * scaled))

    def _log_prob(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        spectrum = self.spectrum.to(x)
        variance = (alpha * alpha * spectrum.values + sigma * sigma).expand(x.shape)
        centred = spectrum.into(x - alpha * self.mean.to(x))
        return -0.5 * (centred**2 / variance + variance.log() + math.log(2 * math.pi)).flatten(1).sum(1)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=self.dtype)
        spectrum = self.spectrum.to(z)
        return self.mean.to(z) + spectrum.back(spectrum.values.sqrt() * z)

    def flow_map(self, x: Tensor, sde: AffineSDE, s: Any, t: Any) -> Tensor:
        r"""The exact probability-flow map from time s to time t, in either direction:
        :math:`x_t = \alpha_t m + S_t^{1/2}S_s^{-1/2}(x_s - \alpha_s m)`."""
        self._check(x)
        (alpha_s, sigma_s), (alpha_t, sigma_t) = ([AffineSDE._on(x, v) for v in _kernel(sde, u)] for u in (s, t))
        m, spectrum = self.mean.to(x), self.spectrum.to(x)
        ratio = (alpha_t**2 * spectrum.values + sigma_t**2) / (alpha_s**2 * spectrum.values + sigma_s**2)
        return alpha_t * m + spectrum.back(ratio.sqrt() * spectrum.into(x - alpha_s * m))
