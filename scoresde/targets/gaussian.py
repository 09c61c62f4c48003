r"""A Gaussian target: every formula of a linear score is closed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, Estimate
from ..core.support.checks import as_tensor, check_choice, check_integer, check_not_empty, check_state, check_tensor
from ..core.support.tensors import Scalar
from .base import _kernel
from .bayes import Components
from .mixture import MixtureTarget
from .spectrum import LowRank, LowRankSpectrum, Spectrum


class Gaussian(MixtureTarget):
    r"""The data distribution :math:`N(m, \Sigma)`.

    With :math:`S_t = \alpha_t^2\Sigma + \sigma_t^2 I` the diffused distribution is :math:`N(\alpha_t m, S_t)`, and

    .. math:: \hat x = m + \alpha\Sigma S^{-1}(x - \alpha m), \qquad \hat\varepsilon = \sigma S^{-1}(x - \alpha m).

    Args:
        mean: m, a tensor of the event's shape.
        cov: :math:`\Sigma`: a ``(D, D)`` matrix over the flattened event, a tensor of variances of the event's shape,
            a number, or a `LowRank`.

    Example:
        >>> target = Gaussian(torch.zeros(2), torch.tensor([1.0, 4.0]))
        >>> target.log_prob(torch.zeros(1, 2))
        tensor([-2.5310])
    """

    def __init__(self, mean: Tensor, cov: Tensor | float | LowRank) -> None:
        mean = as_tensor("mean", mean)
        if mean.ndim < 1 or not mean.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"`mean` must be a floating-point tensor of the event's shape, got {mean.dtype} {tuple(mean.shape)}."
            )
        check_tensor("mean", mean, finite=True)
        if isinstance(cov, Tensor) and mean.ndim == 2 and tuple(cov.shape) == (*mean.shape, mean.shape[1]):
            raise InvalidArgumentError(
                f"`cov` has {len(cov)} matrices; a distribution of several components is GaussianMixture(weights, "
                "means, covs), with torch.ones(K) for equal weights."
            )
        self.dtype = mean.dtype
        self.event_shape = shape = tuple(mean.shape)
        self.mean = mean.to(torch.float64)
        self.spectrum: Spectrum | LowRankSpectrum = (
            LowRankSpectrum.of(cov, shape, "cov") if isinstance(cov, LowRank) else Spectrum.of(cov, shape, "cov")
        )

    @classmethod
    def fit(cls, data: Tensor, covariance: str | int = "dense") -> Gaussian:
        r"""The Gaussian of the greatest likelihood: mean and covariance of data.

        Args:
            data: ``(n, *event)``, n > 1.
            covariance: ``"dense"``, ``"diagonal"``, or a rank r below the event's size: the r largest eigenvalues, and
                the mean of the others in all other directions (probabilistic principal components), for events whose
                covariance would not fit into memory.

        Example:
            >>> data = torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]])
            >>> Gaussian.fit(data, "diagonal").spectrum.values.float()
            tensor([0.6667, 2.0000])

        References:
            Tipping, Bishop (1999), Probabilistic principal component analysis, equations 7-8.
        """
        check_not_empty("data", check_state("data", data))
        if len(data) < 2:
            raise InvalidArgumentError(f"`data` must have at least 2 samples, got {len(data)}.")
        flat = data.detach().flatten(1).to(torch.float64)
        mean = flat.mean(0)
        centred = flat - mean
        place = mean.reshape(data.shape[1:]).to(data.dtype)
        if isinstance(covariance, str):
            check_choice("covariance", covariance, ("dense", "diagonal"))
            if covariance == "diagonal":
                return cls(place, centred.square().mean(0).reshape(data.shape[1:]))
            return cls(place, centred.mT @ centred / len(flat))
        size = flat.shape[1]
        rank = check_integer("covariance", covariance, low=0, high=size - 1)
        values, axes = _principal(centred, min(rank, len(flat) - 1))
        rest = max(0.0, float(centred.square().sum()) / len(flat) - float(values.sum())) / (size - len(values))
        return cls(place, LowRank(axes * (values - rest).clamp_min(0).sqrt(), rest))

    def _estimate(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        m = self.mean.to(x)
        data, noise = self._slope(x - alpha * m, alpha, sigma)
        return Estimate(data=m + data, noise=noise)

    def _slope(self, v: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        r"""The products of the Jacobians of :math:`\hat x` and :math:`\hat\varepsilon`, which are the same everywhere,
        with vectors ``(batch, *event)``."""
        spectrum = self.spectrum.to(v)

        def variance(values: Tensor) -> Tensor:
            return alpha * alpha * values + sigma * sigma

        data = spectrum.map(v, lambda values: alpha * values / variance(values))
        return Estimate(data=data, noise=spectrum.map(v, lambda values: sigma / variance(values)))

    def tangent(self, x: Tensor, v: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        r"""The products of the Jacobians of :math:`\hat x` and :math:`\hat\varepsilon` at x with vectors ``(batch, m,
        *event)``; alpha and sigma are floats or broadcast against x."""
        alpha, sigma = (_repeated(value, v.shape[1]) for value in (alpha, sigma))
        data, noise = self._slope(v.flatten(0, 1), alpha, sigma)
        return Estimate(data=data.reshape(v.shape), noise=noise.reshape(v.shape))

    def trace(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        r"""The traces of the Jacobians of :math:`\hat x` and :math:`\hat\varepsilon`, ``(batch,)`` float64."""
        values, counts = self.spectrum.eigenvalues()
        values, counts = values.to(x.device), counts.to(x.device, torch.float64)
        alpha, sigma = (_column(value, x) for value in (alpha, sigma))
        variance = alpha * alpha * values + sigma * sigma
        ones = torch.ones((len(x), 1), dtype=torch.float64, device=x.device)
        data, noise = ((ones * f / variance) @ counts for f in (alpha * values, sigma))
        return Estimate(data=data, noise=noise)

    def _log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        centred = x - alpha * self.mean.to(x)
        values, counts = self.spectrum.eigenvalues()
        if not bool(torch.as_tensor(sigma > 0).all()) and float(values[counts > 0].min()) == 0.0:
            raise InvalidArgumentError(
                "This distribution has no density: its covariance is singular, and no noise is added."
            )
        return self.spectrum.to(x).log_density(centred, lambda v: alpha * alpha * v + sigma * sigma)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=self.dtype)
        return self.mean.to(z) + self.spectrum.to(z).draw(z)

    @property
    def data_std(self) -> float:
        """The standard deviation, RMS over dimensions."""
        return math.sqrt(self.spectrum.mean)

    def _moments(self) -> Components:
        size = self.mean.numel()
        unit = torch.eye(size, dtype=torch.float64).reshape(size, *self.event_shape)
        cov = self.spectrum.map(unit, lambda v: v).reshape(size, size)
        return Components(torch.zeros(1, dtype=torch.float64), self.mean.reshape(1, size), cov[None])

    def flow_map(self, x: Tensor, sde: AffineSDE, s: Scalar, t: Scalar) -> Tensor:
        r"""The exact probability-flow map from time s to time t, in either direction:
        :math:`x_t = \alpha_t m + S_t^{1/2}S_s^{-1/2}(x_s - \alpha_s m)`."""
        self._check(x)
        (alpha_s, sigma_s), (alpha_t, sigma_t) = (
            [AffineSDE._on(x, torch.as_tensor(v)) for v in _kernel(sde, u)] for u in (s, t)
        )
        m, spectrum = self.mean.to(x), self.spectrum.to(x)

        def stretch(values: Tensor) -> Tensor:
            return ((alpha_t**2 * values + sigma_t**2) / (alpha_s**2 * values + sigma_s**2)).sqrt()

        return alpha_t * m + spectrum.map(x - alpha_s * m, stretch)


def _repeated(value: Scalar, times: int) -> Scalar:
    """For every vector of a sample."""
    return value.repeat_interleave(times, dim=0) if isinstance(value, Tensor) and value.ndim else value


def _column(value: Scalar, x: Tensor) -> Scalar:
    """One number per sample, ``(batch, 1)``, float64."""
    return value.to(x.device, torch.float64).reshape(-1, 1) if isinstance(value, Tensor) else value


def _principal(centred: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues ``(rank,)`` and their axes ``(D, rank)`` of the covariance of ``(n, D)`` data, by the
    smaller of its two Gram matrices."""
    count, size = centred.shape
    if size <= count:
        values, axes = torch.linalg.eigh(centred.mT @ centred / count)
        return values[size - rank :], axes[:, size - rank :]
    values, mixtures = torch.linalg.eigh(centred @ centred.mT / count)
    values = values[count - rank :]
    return values, centred.mT @ mixtures[:, count - rank :] / (values * count).clamp_min(1e-300).sqrt()
