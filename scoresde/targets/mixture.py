r"""Gaussian mixtures, and empirical data as one."""

from __future__ import annotations

import abc
import functools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import AffineSDE, Estimate
from ..core.support.checks import (
    as_tensor,
    check_choice,
    check_integer,
    check_number,
    check_state,
    check_tensor,
    check_weights,
)
from ..core.support.tensors import Scalar, expand
from .base import Target
from .bayes import Components, update
from .spectrum import Spectrum

_KINDS = {"dense": "full", "diagonal": "diag", "shared": "tied"}  # covariances, as scikit-learn calls them
_CHUNK_ELEMENTS = 2**24  # batch x components x event handled at once
_ORDER = (
    "; write GaussianMixture(weights, means, covs), with torch.ones(K) for equal weights, or Gaussian(mean, cov) for a "
    "single Gaussian"
)
_COLUMNS = 256  # of a data set handled at once


class MixtureTarget(Target):
    """A mixture of one or more Gaussians, whose posteriors given linear measurements are mixtures, too; a subclass
    gives `_moments`."""

    @abc.abstractmethod
    def _moments(self) -> Components:
        """The components with dense covariances."""

    def _covariance(self) -> Tensor:
        log_weights, means, covs = self._moments()
        weights = log_weights.exp()
        away = means - weights @ means
        return torch.einsum("k,kij->ij", weights, covs) + torch.einsum("k,ki,kj->ij", weights, away, away)

    def posterior(self, operator: object, y: Tensor, noise_std: Tensor | float) -> GaussianMixture:
        r"""The distribution of the data given :math:`y = Ax_0 + n`, exactly: a Gaussian mixture again, with the exact
        score of its diffusion, :math:`\nabla\log p_t(x_t|y)`.

        Args:
            operator: A, a matrix ``(M, D)`` over the flattened event, or an operator of `scoresde.inverse`.
            y: the M measured values, of any shape.
            noise_std: the noise's standard deviation, one for each measured value, or the covariance ``(M, M)``.

        Raises:
            InvalidArgumentError: a shape does not fit, or :math:`A\Sigma A^T + R` is singular.

        Example:
            >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
            >>> law = target.posterior(
            ...     torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), noise_std=1.0
            ... )
            >>> law.means.float(), law.spectrum.values.float()
            (tensor([[1., 0.]]), tensor([[0.5000, 1.0000]]))
        """
        (log_weights, means, covs), _ = update(self._moments(), operator, y, noise_std)
        weights = log_weights.exp()
        there = weights > 0  # what y excludes altogether
        places = means[there].reshape(-1, *self.event_shape)
        law = GaussianMixture(weights[there], places, covs[there])
        law.dtype = self.dtype
        return law

    def log_evidence(self, operator: object, y: Tensor, noise_std: Tensor | float) -> Tensor:
        r""":math:`\ln p(y)` in nats, 0-d float64; so :math:`\ln p(y|x_t) = \ln p_t(x_t|y) - \ln p_t(x_t) +
        \ln p(y)`.

        Example:
            >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
            >>> target.log_evidence(
            ...     torch.tensor([[1.0, 0.0]]), torch.tensor([0.0]), noise_std=0.0
            ... )
            tensor(-0.9189, dtype=torch.float64)
        """
        return update(self._moments(), operator, y, noise_std)[1]


class GaussianMixture(MixtureTarget):
    r"""The data distribution :math:`\sum_k w_k N(m_k, \Sigma_k)`.

    With :math:`S_k = \alpha^2\Sigma_k + \sigma^2 I` and responsibilities :math:`r_k \propto w_k N(x; \alpha m_k, S_k)`

    .. math:: \hat x = \sum_k r_k\,[m_k + \alpha\Sigma_k S_k^{-1}(x-\alpha m_k)], \qquad
              \hat\varepsilon = \sigma\sum_k r_k S_k^{-1}(x - \alpha m_k).

    Args:
        weights: ``(K,)``, positive; normalised to sum to one.
        means: ``(K, *event)``.
        covs: ``(K, D, D)`` matrices, or variances ``(K, *event)`` or ``(K,)``.
        scales: instead of ``covs``, standard deviations: a number, ``(K,)`` or ``(K, *event)``.

    Example:
        >>> ring = GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.1
        ... )
        >>> ring.sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor | None = None,
        covs: Tensor | None = None,
        *,
        scales: Tensor | float | None = None,
    ) -> None:
        if means is None:  # as where the means are given first, and `scales` by name
            raise InvalidTypeError(f"`means` is missing{_ORDER}.")
        means = as_tensor("means", means)
        if means.ndim < 2 or not means.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"`means` must be a floating-point tensor (K, *event), got {means.dtype} {tuple(means.shape)}{_ORDER}."
            )
        weights = check_weights(as_tensor("weights", weights, torch.float64), len(means), _ORDER)
        if (covs is None) == (scales is None):
            raise InvalidArgumentError("Give exactly one of `covs` and `scales`.")
        if covs is not None and as_tensor("covs", covs).ndim == 0:
            raise InvalidArgumentError(
                "`covs` must be matrices (K, D, D) or variances (K, *event) or (K,), got one number; a standard "
                "deviation of all components is scales=."
            )
        check_tensor("means", means, finite=True)
        self.dtype = means.dtype
        self.event_shape = tuple(means.shape[1:])
        self.means = means.to(torch.float64)
        self.log_weights = (weights / weights.sum()).log()
        lead = (len(means),)
        if scales is not None:
            std = as_tensor("scales", scales, torch.float64)
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

    @classmethod
    def fit(
        cls, data: Tensor, components: int, covariance: str = "dense", *, ridge: float = 1e-6, seed: int = 0
    ) -> GaussianMixture:
        r"""A mixture fitted to data by expectation maximisation, by scikit-learn.

        Args:
            data: ``(n, *event)``, n at least the number of components.
            components: K.
            covariance: ``"dense"``, ``"diagonal"``, or ``"shared"``, one matrix for all.
            ridge: added to the variances in every iteration, in units of the data squared. A large one makes the
                mixture as smooth as a network that has not learnt its details, which serves as a ``control`` of
                `scoresde.log_likelihood`.
            seed: of the start.

        Raises:
            ImportError: scikit-learn is not installed.

        Example:
            >>> data = torch.cat(
            ...     [
            ...         torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) + m
            ...         for m in (-9, 9)
            ...     ]
            ... )
            >>> GaussianMixture.fit(data, 2).means.mean(1).sort().values.round().tolist()
            [-9.0, 9.0]
        """
        check_choice("covariance", covariance, _KINDS)
        check_state("data", data)
        count = check_integer("components", components, low=1, high=len(data), hint=" (at most one per sample)")
        check_tensor("data", data, finite=True)
        least, start = check_number("ridge", ridge, low=0.0), check_integer("seed", seed, low=0, high=2**32 - 1)
        try:
            from sklearn import exceptions, mixture
        except ImportError as error:
            raise ImportError("A mixture is fitted by scikit-learn: pip install 'scoresde[train]'.") from error
        em = mixture.GaussianMixture(count, covariance_type=_KINDS[covariance], reg_covar=least, random_state=start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # a hundred iterations are enough
            try:
                em.fit(data.detach().flatten(1).to("cpu", torch.float64).numpy())
            except ValueError as error:
                raise InvalidArgumentError(
                    f"`data` does not determine {count} covariances; take fewer components, or a larger `ridge`."
                ) from error
        covs = torch.from_numpy(em.covariances_)
        if covariance == "shared":
            covs = covs.expand(count, -1, -1)
        elif covariance == "diagonal":
            covs = covs.reshape(count, *data.shape[1:])
        means = torch.from_numpy(em.means_).reshape(count, *data.shape[1:]).to(data.dtype)
        return GaussianMixture(torch.from_numpy(em.weights_), means, covs)

    def _components(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> tuple[Tensor, Tensor, Spectrum, Scalar, Scalar]:
        """The log of w_k N(x; .), ``(batch, K)``, and :math:`S_k^{-1}(x - \\alpha m_k)` in the eigenbases, ``(batch,
        K, *event)``, with the bases and the scales that broadcast against it."""
        alpha, sigma = (v.unsqueeze(1) if isinstance(v, Tensor) and v.ndim else v for v in (alpha, sigma))
        spectrum = self.spectrum.to(x)
        variance = alpha * alpha * spectrum.values + sigma * sigma
        centred = spectrum.into(x.unsqueeze(1) - alpha * self.means.to(x))
        scaled = centred / variance
        log_norm = (variance.log() + math.log(2 * math.pi)).expand(centred.shape)
        log_prob = -0.5 * (centred * scaled + log_norm).flatten(2).sum(2)
        return self.log_weights.to(x) + log_prob, scaled, spectrum, alpha, sigma

    def _estimate(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        # parts of the batch so small that batch x components x event stays in bounds
        size = max(1, _CHUNK_ELEMENTS // max(1, self.means.numel()))
        if len(x) <= size:
            return self._estimate_chunk(x, alpha, sigma)

        def part(v: Any, i: int) -> Any:
            return v[i : i + size] if isinstance(v, Tensor) and v.ndim else v

        parts = [self._estimate_chunk(part(x, i), part(alpha, i), part(sigma, i)) for i in range(0, len(x), size)]
        return Estimate(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _estimate_chunk(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        logits, scaled, spectrum, alpha, sigma = self._components(x, alpha, sigma)
        r = logits.softmax(1).reshape(*logits.shape, *([1] * len(self.event_shape)))
        data = (r * (self.means.to(x) + spectrum.back(alpha * spectrum.values * scaled))).sum(1)
        return Estimate(data=data, noise=(r * spectrum.back(sigma * scaled)).sum(1))

    def tangent(self, x: Tensor, v: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        r"""The products of the Jacobians of :math:`\hat x` and :math:`\hat\varepsilon` at x with vectors ``(batch, m,
        *event)``; alpha and sigma are floats or broadcast against x. With :math:`a_k = S_k^{-1}(x-\alpha m_k)`,
        :math:`\bar a = \sum r_k a_k` and :math:`\hat x_k = m_k + \alpha\Sigma_k a_k`,

        .. math:: J_{\hat x}v = \sum_k r_k\big[\alpha\Sigma_kS_k^{-1}v - \hat x_k\,(a_k-\bar a)^Tv\big],\qquad
                  J_{\hat\varepsilon}v = \sigma\sum_k r_k\big[S_k^{-1}v - a_k\,(a_k-\bar a)^Tv\big].
        """
        r, away, basis, sides = self._parts(x, alpha, sigma)
        given = v.flatten(2)
        weights = r[:, None] * torch.einsum("bkd,bmd->bmk", away, given)
        turned = given[:, :, None] if basis is None else torch.einsum("bmd,kde->bmke", given, basis)
        out = []
        for diagonal, centres in sides:
            if basis is None:
                inner = (r[:, :, None] * diagonal).sum(1)[:, None] * given
            else:
                inner = torch.einsum("bk,bke,bmke,kde->bmd", r, diagonal, turned, basis)
            out.append((inner - torch.einsum("bmk,bkd->bmd", weights, centres)).reshape(v.shape))
        return Estimate(data=out[0], noise=expand(sigma, v) * out[1])

    def trace(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        r"""The traces of the Jacobians of :math:`\hat x` and :math:`\hat\varepsilon`, ``(batch,)`` float64: for
        :math:`\hat x` it is :math:`\frac{\alpha}{\sigma^2}\,\mathrm{tr}\,\mathrm{Cov}[x_0|x]`."""
        alpha, sigma = (v.to(torch.float64) if isinstance(v, Tensor) else v for v in (alpha, sigma))
        r, away, _, sides = self._parts(x.to(torch.float64), alpha, sigma)
        data, noise = ((r * (diagonal.sum(2) - (away * centres).sum(2))).sum(1) for diagonal, centres in sides)
        return Estimate(data=data, noise=noise * (sigma.flatten() if isinstance(sigma, Tensor) else sigma))

    def _parts(
        self, x: Tensor, alpha: Scalar, sigma: Scalar
    ) -> tuple[Tensor, Tensor, Tensor | None, list[tuple[Tensor, Tensor]]]:
        r"""What the Jacobians of both estimates are made of: r ``(batch, K)``, the differences of the :math:`a_k` from
        their mean, the eigenbases, and for either estimate, ``(batch, K, D)``, the eigenvalues of :math:`\alpha\Sigma_k
        S_k^{-1}` with the :math:`\hat x_k`, and those of :math:`S_k^{-1}` with the :math:`a_k`."""
        logits, scaled, spectrum, alpha, sigma = self._components(x, alpha, sigma)
        variance = (alpha * alpha * spectrum.values + sigma * sigma).expand(scaled.shape)
        shrink = alpha * spectrum.values / variance
        centres = (self.means.to(x) + spectrum.back(alpha * spectrum.values * scaled)).flatten(2)
        r, turned = logits.softmax(1), spectrum.back(scaled).flatten(2)
        away = turned - (r[:, :, None] * turned).sum(1, keepdim=True)
        return r, away, spectrum.basis, [(shrink.flatten(2), centres), ((1 / variance).flatten(2), turned)]

    def _log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        return self._components(x, alpha, sigma)[0].logsumexp(1)

    def log_responsibilities(self, x: Tensor, sde: AffineSDE | None = None, t: Scalar | None = None) -> Tensor:
        r"""The exact classifier: :math:`\log p(k|x)` of each component, ``(batch, K)``, of the data or of the data
        diffused to time ``t`` of ``sde``.

        Example:
            >>> pair = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=1.0)
            >>> pair.log_responsibilities(torch.zeros(1, 1)).exp()
            tensor([[0.5000, 0.5000]])
        """
        return self._components(*self._diffused(x, sde, t))[0].log_softmax(1)

    @functools.cached_property
    def data_std(self) -> float:
        """The standard deviation, RMS over dimensions."""
        weights = self.log_weights.exp()
        columns = self.means.flatten(1).split(_COLUMNS, 1)  # in parts: the means may be a data set
        between = sum(float(weights @ (part - weights @ part).square().sum(1)) for part in columns)
        values = self.spectrum.values
        within = float(weights @ values.mean(tuple(range(1, values.ndim))).to(weights))
        return math.sqrt(between / math.prod(self.event_shape) + within)

    def _moments(self) -> Components:
        values, basis = self.spectrum.values.flatten(1), self.spectrum.basis
        covs = torch.diag_embed(values) if basis is None else basis * values[:, None] @ basis.mT
        return Components(self.log_weights, self.means.flatten(1), covs)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        k = (
            torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
            if n
            else torch.zeros(0, dtype=torch.long)
        )
        z = torch.randn((n, *self.event_shape), generator=generator, dtype=self.dtype)
        spectrum = self.spectrum.to(z)
        deviation = spectrum.values[k].sqrt() * z
        if spectrum.basis is not None:
            deviation = (spectrum.basis[k] @ deviation.flatten(1).unsqueeze(-1)).squeeze(-1).reshape(z.shape)
        return self.means.to(z)[k] + deviation


class Empirical(GaussianMixture):
    r"""Data points themselves, each a Gaussian of standard deviation ``bandwidth``.

    With bandwidth 0 the score is that of a network that has memorised the training set: samples collapse on data
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
        data = as_tensor("data", data)
        if data.ndim < 2 or len(data) == 0:
            raise InvalidArgumentError(f"`data` must be (n, *event) with n >= 1, got shape {tuple(data.shape)}.")
        if not data.dtype.is_floating_point or not bool(torch.isfinite(data).all()):
            raise InvalidArgumentError(f"`data` must be a finite floating-point tensor, got {data.dtype}.")
        super().__init__(torch.ones(len(data)), data, scales=self.bandwidth)

    def _log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        if self.bandwidth == 0 and not isinstance(sigma, Tensor) and sigma == 0:
            raise InvalidArgumentError("Data points have no density; give `sde` and `t`, or a `bandwidth` above 0.")
        return super()._log_prob(x, alpha, sigma)
