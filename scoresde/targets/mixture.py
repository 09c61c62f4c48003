r"""Gaussian mixtures, and empirical data as one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._tensors import check_number
from ..errors import InvalidArgumentError
from ..sdes import Estimate
from .base import Target
from .spectrum import Spectrum

_CHUNK_ELEMENTS = 2**24  # batch x components x event handled at once


class GaussianMixture(Target):
    r"""The data law :math:`\sum_k w_k N(m_k, \Sigma_k)`.

    With :math:`S_k = \alpha^2\Sigma_k + \sigma^2 I` and responsibilities :math:`r_k \propto w_k N(x; \alpha m_k, S_k)`

    .. math:: \hat x = \sum_k r_k\,[m_k + \alpha\Sigma_k S_k^{-1}(x-\alpha m_k)], \qquad
              \hat\varepsilon = \sigma\sum_k r_k S_k^{-1}(x - \alpha m_k).

    Args:
        weights: ``(K,)``, positive; normalised to sum to one.
        means: ``(K, *event)``.
        covs: ``(K, D, D)`` matrices, or variances ``(K, *event)`` or ``(K,)``.
        scales: instead of ``covs``, standard deviations: a number, ``(K,)`` or ``(K, *event)``.

    Example:
        >>> ring = GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.1)
        >>> ring.sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(
        self, weights: Tensor, means: Tensor, covs: Tensor | None = None, *, scales: Tensor | float | None = None
    ) -> None:
        means = torch.as_tensor(means)
        if means.ndim < 2 or not means.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"`means` must be a floating-point tensor (K, *event), got {means.dtype} {tuple(means.shape)}."
            )
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if (
            tuple(weights.shape) != (len(means),)
            or bool((weights <= 0).any())
            or not bool(torch.isfinite(weights).all())
        ):
            raise InvalidArgumentError(f"`weights` must be {len(means)} positive numbers, got {weights.tolist()}.")
        if (covs is None) == (scales is None):
            raise InvalidArgumentError("Give exactly one of `covs` and `scales`.")
        if not bool(torch.isfinite(means).all()):
            raise InvalidArgumentError("`means` must be finite.")
        self.dtype = means.dtype
        self.event_shape = tuple(means.shape[1:])
        self.means = means.to(torch.float64)
        self.log_weights = (weights / weights.sum()).log()
        lead = (len(means),)
        if scales is not None:
            std = torch.as_tensor(scales, dtype=torch.float64)
            if std.ndim > 1 and std.shape != means.shape:
                raise InvalidArgumentError(
                    f"`scales` must have shape {lead} or {tuple(means.shape)}, or be a number, got {tuple(std.shape)}; "
                    "covariance matrices are `covs`."
                )
            if bool((std < 0).any()):
                raise InvalidArgumentError("`scales` are standard deviations and must not be negative.")
            self.spectrum = Spectrum.of(
                (std**2).expand(lead) if std.ndim == 0 else std**2, self.event_shape, "scales", lead
            )
        else:
            self.spectrum = Spectrum.of(covs, self.event_shape, "covs", lead)

    def _components(self, x: Tensor, alpha: Any, sigma: Any) -> tuple[Tensor, Tensor, Spectrum]:
        """The log of w_k N(x; .), ``(batch, K)``, and :math:`S_k^{-1}(x - \\alpha m_k)` in the eigenbases, ``(batch,
        K, *event)``."""
        spectrum = self.spectrum.to(x)
        variance = alpha * alpha * spectrum.values + sigma * sigma
        centred = spectrum.into(x.unsqueeze(1) - alpha * self.means.to(x))
        scaled = centred / variance
        log_norm = (variance.log() + math.log(2 * math.pi)).expand(centred.shape)
        log_prob = -0.5 * (centred * scaled + log_norm).flatten(2).sum(2)
        return self.log_weights.to(x) + log_prob, scaled, spectrum

    def _estimate(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        return _chunked(self._estimate_chunk, x, alpha, sigma, self.means.numel())

    def _estimate_chunk(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        alpha, sigma = (v.unsqueeze(1) if isinstance(v, Tensor) and v.ndim else v for v in (alpha, sigma))
        logits, scaled, spectrum = self._components(x, alpha, sigma)
        r = logits.softmax(1).reshape(*logits.shape, *([1] * len(self.event_shape)))
        data = (r * (self.means.to(x) + spectrum.back(alpha * spectrum.values * scaled))).sum(1)
        return Estimate(data=data, noise=(r * spectrum.back(sigma * scaled)).sum(1))

    def _log_prob(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        alpha, sigma = (v.unsqueeze(1) if isinstance(v, Tensor) and v.ndim else v for v in (alpha, sigma))
        return self._components(x, alpha, sigma)[0].logsumexp(1)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        k = (
            torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
            if n
            else torch.zeros(0, dtype=torch.long)
        )
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=self.dtype)
        spectrum = self.spectrum.to(z)
        chosen = Spectrum(spectrum.values[k], None if spectrum.basis is None else spectrum.basis[k])
        deviation = chosen.values.sqrt() * z
        if chosen.basis is not None:
            deviation = (chosen.basis @ deviation.flatten(1).unsqueeze(-1)).squeeze(-1).reshape(z.shape)
        return self.means.to(z)[k] + deviation


class Empirical(GaussianMixture):
    r"""Data points themselves, each a Gaussian of standard deviation ``bandwidth``.

    With bandwidth 0 the score is that of a network which has learnt the training set by heart: samples collapse on data
    points as t goes to 0, and the data's own density does not exist.

    Args:
        data: ``(n, *event)``.
        bandwidth: a standard deviation, 0 by default.

    Example:
        >>> Empirical(torch.eye(3)).event_shape
        (3,)
    """

    def __init__(self, data: Tensor, bandwidth: float = 0.0) -> None:
        self.bandwidth = check_number("bandwidth", bandwidth, low=0.0)
        data = torch.as_tensor(data)
        if data.ndim < 2 or len(data) == 0:
            raise InvalidArgumentError(f"`data` must be (n, *event) with n >= 1, got shape {tuple(data.shape)}.")
        if not data.dtype.is_floating_point or not bool(torch.isfinite(data).all()):
            raise InvalidArgumentError(f"`data` must be a finite floating-point tensor, got {data.dtype}.")
        super().__init__(torch.ones(len(data)), data, scales=self.bandwidth)

    def _log_prob(self, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
        if self.bandwidth == 0 and not isinstance(sigma, Tensor) and sigma == 0:
            raise InvalidArgumentError("Data points have no density; give `sde` and `t`, or a `bandwidth` above 0.")
        return super()._log_prob(x, alpha, sigma)


def _chunked(function: Any, x: Tensor, alpha: Any, sigma: Any, elements: int) -> Estimate:
    """Call ``function`` on parts of the batch small enough that batch x components x event stays in bounds."""
    size = max(1, _CHUNK_ELEMENTS // max(1, elements))
    if len(x) <= size:
        return function(x, alpha, sigma)
    part = lambda v, i: v[i : i + size] if isinstance(v, Tensor) and v.ndim else v  # noqa: E731
    parts = [function(x[i : i + size], part(alpha, i), part(sigma, i)) for i in range(0, len(x), size)]
    return Estimate(*(torch.cat(column) for column in zip(*parts, strict=True)))
