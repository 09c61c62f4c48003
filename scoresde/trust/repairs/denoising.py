r"""Denoising errors by noise level, of a network and of denoisers that need no training.

With :math:`\lambda = \ln(\alpha/\sigma)`, :math:`g^2dt = -2\sigma^2d\lambda`, so that the part of a network in the
Kullback-Leibler divergence of the distributions of the reverse SDEs is

.. math:: \tfrac12\int g^2E\|s_\theta - s\|^2dt = \int E\|\hat\varepsilon_\theta - \hat\varepsilon\|^2d\lambda,

and the denoising errors :math:`E\|\hat\varepsilon_\theta - \varepsilon\|^2` differ from its integrand by a constant of
the data. Differences of the errors of two denoisers at the same states are therefore differences in nats.

References:
    Song, Durkan, Murray, Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models.
    https://arxiv.org/abs/2101.09258
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.sdes import AffineSDE
from ...core.support.intervals import Interval
from ...core.support.tensors import expand
from ...scores import Score
from ..conformal import errors_to
from .base import CLEAR, SHARE, mean_interval
from .subject import Rows, Subject, repeated

LEVELS = 12
TRAIN, HELD = 31, 32  # purposes of seeds
_FARTHEST = 7.0  # of lambda, in units of the data: what is beyond is nothing but data, or nothing but noise
_DENSE = 1024  # elements of which a covariance matrix is used


class QuadratureNodes(NamedTuple):
    r"""Nodes of a quadrature in :math:`\lambda`.

    Attributes:
        times, lam, weights: float64 ``(levels,)``.
    """

    times: Tensor
    lam: Tensor
    weights: Tensor


def levels_of(sde: AffineSDE, t_end: float, unit: float, count: int = LEVELS) -> QuadratureNodes:
    r"""Gauss–Legendre nodes between the ends of a process, as far as :math:`|\lambda + \ln` unit :math:`|\le 7`.

    Example:
        >>> levels = levels_of(scoresde.VPSDE(), 1e-3, 1.0)
        >>> len(levels.times), bool((levels.lam.diff() > 0).all())
        (12, True)
    """
    ends = torch.tensor([sde.t_max, t_end], dtype=torch.float64)
    with torch.no_grad():
        found = 0.5 * sde.log_snr(ends)
    centre = -math.log(unit)
    low, high = (min(max(float(v), centre - _FARTHEST), centre + _FARTHEST) for v in found)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(count))
    lam = low + 0.5 * (high - low) * (nodes + 1)
    with torch.no_grad():
        times = sde.time(2 * lam).clamp(sde.t_min, sde.t_max)
    return QuadratureNodes(times, lam, 0.5 * (high - low) * weights)


class States(NamedTuple):
    """Noised data at all levels, level after level.

    Attributes:
        x0, noise, x: ``(levels * n, *event)``, float64.
        times: ``(levels * n,)``.
        rows: n.
        context: of all.
    """

    x0: Tensor
    noise: Tensor
    x: Tensor
    times: Tensor
    rows: int
    context: Mapping[str, Any]

    @classmethod
    def of(cls, subject: Subject, rows: Rows, levels: QuadratureNodes, purpose: int) -> States:
        """Of some data, each row with its own noise at each level."""
        n, k = len(rows.x), len(levels.times)
        x0 = rows.x.to("cpu", torch.float64).repeat((k,) + (1,) * (rows.x.ndim - 1))
        noise = torch.randn(x0.shape, generator=subject.generator(purpose), dtype=torch.float64)
        times = levels.times.repeat_interleave(n)
        node = subject.task.sde.nodes(times)
        x = expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise
        return cls(x0, noise, x, times, n, repeated(rows.context, k, n))

    def errors(self, sde: AffineSDE, data: Tensor, noise: Tensor, like: tuple[Tensor, Tensor] | None = None) -> Tensor:
        r""":math:`\|\hat\varepsilon-\varepsilon\|^2`, ``(n, levels)``, against the noise, or against other estimates
        (data, noise); from the data estimate where that is the accurate one."""
        node = sde.nodes(self.times)
        clean = expand(node.sigma <= node.alpha, self.x0).bool()
        ratio = expand(node.alpha / node.sigma, self.x0)
        x0, eps = (self.x0, self.noise) if like is None else like
        off = torch.where(clean, noise - eps, ratio * (data - x0))
        return off.flatten(1).square().sum(1).reshape(-1, self.rows).T


def isotropic_errors(sde: AffineSDE, states: States, mean: float, std: float) -> Tensor:
    """The denoising errors ``(n, levels)`` of the denoiser of a normal distribution with one mean and one standard
    deviation of all elements. What chance adds to the errors of a network at the same states, it adds to these."""
    node = sde.nodes(states.times)
    alpha, sigma = expand(node.alpha, states.x), expand(node.sigma, states.x)
    noise = sigma / ((alpha * std) ** 2 + sigma**2) * (states.x - alpha * mean)
    data = mean + alpha * std**2 / ((alpha * std) ** 2 + sigma**2) * (states.x - alpha * mean)
    return states.errors(sde, data, noise)


class Gap(NamedTuple):
    """The denoising errors of a network less those of the best linear denoiser.

    Attributes:
        nats: the mean of the difference, summed over all levels.
        levels: the number of levels at which the network's errors are larger.
        worse: whether they are larger beyond chance, and by more than a tenth.
    """

    nats: Interval
    levels: int
    worse: bool

    @classmethod
    def of(cls, levels: QuadratureNodes, held: Tensor, linear: Tensor, confidence: float) -> Gap:
        """Of errors ``(n, levels)`` at the same states."""
        gap = mean_interval((held - linear) @ levels.weights, confidence)
        error = (gap.high - gap.value) / errors_to(confidence)
        least = max(CLEAR * error, SHARE * float((linear @ levels.weights).mean()))
        worse = not math.isfinite(gap.value) or gap.value > least
        return cls(gap, int((held.mean(0) > linear.mean(0)).sum()), worse)


def errors_of(subject: Subject, states: States, score: Score | None = None, **context: Any) -> Tensor:
    r"""The denoising errors of the network, ``(n, levels)``; infinite where it fails."""
    data, noise = subject.estimate(states.x, states.times, {**states.context, **context}, score)
    return states.errors(subject.task.sde, data, noise).nan_to_num(nan=math.inf)


class Linear:
    r"""The best denoiser that is linear in the state: that of a normal distribution with the data's mean and
    covariance matrix (beyond 1,024 elements, with their variances),

    .. math:: \hat x = m + \alpha\Sigma(\alpha^2\Sigma + \sigma^2I)^{-1}(x - \alpha m).

    Args:
        data: ``(n, *event)``.
        labels: ``(n,)`` classes, each of which then has its own mean; the covariance is that within classes.
    """

    def __init__(self, data: Tensor, labels: Tensor | None = None) -> None:
        x = data.to("cpu", torch.float64).flatten(1)
        self.classes = torch.zeros(1, dtype=torch.long) if labels is None else labels.unique()
        which = self._which(labels, len(x))
        sums = torch.zeros(len(self.classes), x.shape[1], dtype=torch.float64).index_add(0, which, x)
        self.means = sums / torch.bincount(which, minlength=len(self.classes))[:, None]
        x = x - self.means[which]
        self.basis: Tensor | None = None
        if x.shape[1] <= _DENSE:
            values, self.basis = torch.linalg.eigh(x.T @ x / len(x))
            self.values = values.clamp_min(0.0)
        else:
            self.values = x.square().mean(0)

    def _which(self, labels: Tensor | None, count: int) -> Tensor:
        """The class of each of some rows, which have the labels again and again."""
        if labels is None:
            return torch.zeros(count, dtype=torch.long)
        return torch.searchsorted(self.classes, labels).repeat(count // len(labels))

    def errors(self, sde: AffineSDE, states: States, labels: Tensor | None = None) -> Tensor:
        """Its denoising errors, ``(n, levels)``; ``labels`` belong to the n rows."""
        node = sde.nodes(states.times)
        alpha, sigma = node.alpha[:, None], node.sigma[:, None]
        mean = self.means[self._which(labels, len(states.x))]
        away = states.x.flatten(1) - alpha * mean
        inside = away if self.basis is None else away @ self.basis
        total = alpha**2 * self.values + sigma**2
        data, noise = alpha * self.values / total * inside, sigma / total * inside
        if self.basis is not None:
            data, noise = data @ self.basis.T, noise @ self.basis.T
        return states.errors(sde, (mean + data).reshape(states.x.shape), noise.reshape(states.x.shape))


class Denoised:
    """The denoising errors of a network on training data and on held-out data, made once per diagnosis."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @functools.cached_property
    def levels(self) -> QuadratureNodes:
        """The noise levels."""
        return levels_of(self.subject.task.sde, self.subject.t_end, self.subject.unit)

    @functools.cached_property
    def rows(self) -> Rows:
        """The held-out data that are used, or training data where there are none."""
        return self.subject.some(self.subject.held_out, self.subject.pilot, HELD)

    @functools.cached_property
    def states(self) -> States:
        """Of these."""
        return States.of(self.subject, self.rows, self.levels, HELD)

    @functools.cached_property
    def held(self) -> Tensor:
        """Their errors, ``(n, levels)``."""
        return errors_of(self.subject, self.states, self.subject.bare)

    @functools.cached_property
    def known(self) -> States:
        """Of training data."""
        rows = self.subject.some(self.subject.data, self.subject.pilot, TRAIN)
        return States.of(self.subject, rows, self.levels, TRAIN)

    @functools.cached_property
    def train(self) -> Tensor:
        """Their errors, ``(n, levels)``."""
        return errors_of(self.subject, self.known, self.subject.bare)

    def beyond(self, errors: Tensor, states: States) -> Interval:
        """The mean, in nats, of errors less those of an isotropic denoiser, which have the same chance."""
        x, sde = self.subject.data.x, self.subject.task.sde
        plain = isotropic_errors(sde, states, float(x.mean()), float(x.std()))
        return mean_interval(self.nats(errors - plain).tolist(), self.subject.confidence)

    @functools.cached_property
    def linear(self) -> Tensor:
        """The errors of the best linear denoiser on the held-out data."""
        return Linear(self.subject.data.x).errors(self.subject.task.sde, self.states)

    @property
    def worse(self) -> bool:
        """Whether the network denoises held-out data worse than the best linear denoiser."""
        return Gap.of(self.levels, self.held, self.linear, self.subject.confidence).worse

    def nats(self, errors: Tensor) -> Tensor:
        """Per row, summed over the levels."""
        return errors @ self.levels.weights

    def moved(self, mean: float, stretch: float) -> tuple[Gap, Tensor]:
        """How the network denoises data that are brought to another mean and stretched, and what that is per row, in
        nats above the best linear denoiser; well, if this is the range that it was trained on."""
        subject, centre = self.subject, float(self.subject.compared.mean())

        def move(x: Tensor) -> Tensor:
            return (x.to("cpu", torch.float64) - centre) * stretch + mean

        levels = levels_of(subject.task.sde, subject.t_end, subject.unit * stretch)
        states = States.of(subject, self.rows._replace(x=move(self.rows.x)), levels, HELD)
        linear = Linear(move(subject.data.x)).errors(subject.task.sde, states)
        held = errors_of(subject, states, subject.bare)
        return Gap.of(levels, held, linear, subject.confidence), (held - linear) @ levels.weights
