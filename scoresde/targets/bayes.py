"""Gaussian components given linear measurements with Gaussian noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import check_matrix, check_number, check_tensor

LARGEST_STD = 1e100  # whose square is a number


class Components(NamedTuple):
    """Gaussians and their shares: log-weights ``(K,)``, means ``(K, D)``, covariances ``(K, D, D)``, float64.

    Example:
        >>> Components(torch.zeros(1), torch.zeros(1, 2), torch.eye(2)[None]).means.shape
        torch.Size([1, 2])
    """

    log_weights: Tensor
    means: Tensor
    covs: Tensor


def update(prior: Components, operator: object, y: object, noise: object) -> tuple[Components, Tensor]:
    r"""Bayes' rule for :math:`y = Ax + n`, :math:`n \sim N(0, R)`, component by component:

    .. math::
        G = \Sigma A^T(A\Sigma A^T+R)^{-1},\quad m' = m + G(y - Am),\quad
            \Sigma' = (I-GA)\Sigma(I-GA)^T + GRG^T, \quad w' \propto w\,N(y; Am, A\Sigma A^T+R).

    Returned are the components given y, and :math:`\ln p(y)`. Joseph's form of :math:`\Sigma'` stays positive
    semi-definite when the noise is small.

    Example:
        >>> prior = Components(
        ...     torch.zeros(1), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
        ... )
        >>> update(prior, torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), 1.0)[
        ...     0
        ... ].means.float()
        tensor([[1., 0.]])
    """
    size = prior.means.shape[1]
    a, seen, cov = _checked(operator, y, noise, size)
    if not len(a):
        return prior, torch.zeros((), dtype=torch.float64)
    cross = prior.covs @ a.mT  # (K, D, M)
    spread = a @ cross + cov  # (K, M, M)
    spread = (spread + spread.mT) / 2
    values = torch.linalg.eigvalsh(spread)
    if bool((values[:, 0] <= len(a) * torch.finfo(torch.float64).eps * values[:, -1]).any()):
        raise InvalidArgumentError(
            "The measurements have no density: with this noise some combination of them is determined by the others "
            f"(or by the distribution itself); the smallest eigenvalue of A Σ Aᵀ + R is {float(values.min()):.3g}. "
            "Give a `noise_std` above 0, or drop the redundant rows."
        )
    factor = torch.linalg.cholesky(spread)
    gain = torch.cholesky_solve(cross.mT, factor).mT  # (K, D, M)
    residual = seen - prior.means @ a.mT  # (K, M)
    means = prior.means + (gain @ residual[..., None])[..., 0]
    keep = torch.eye(size, dtype=torch.float64) - gain @ a
    covs = keep @ prior.covs @ keep.mT + gain @ cov @ gain.mT
    white = torch.linalg.solve_triangular(factor, residual[..., None], upper=False)[..., 0]
    log_norm = factor.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * len(a) * math.log(2 * math.pi)
    joint = prior.log_weights - 0.5 * white.square().sum(1) - log_norm
    evidence = joint.logsumexp(0)
    return Components(joint - evidence, means, (covs + covs.mT) / 2), evidence


def _checked(operator: object, y: object, noise: object, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix ``(M, D)``, the measurements ``(M,)`` and the covariance of their noise, float64."""
    dense = getattr(operator, "matrix", None)
    given = dense() if callable(dense) else operator
    if not isinstance(given, Tensor) or not given.dtype.is_floating_point:
        raise InvalidTypeError(
            f"`operator` must be a real matrix (M, {size}) or have a method matrix(), got {type(operator).__name__}."
        )
    a = check_matrix("operator", given, size)
    y = check_tensor("y", y)
    if y.numel() != len(a) or not bool(y.isfinite().all()):
        raise InvalidArgumentError(f"`y` must be {len(a)} finite numbers, got shape {tuple(y.shape)}.")
    return a, y.detach().to(torch.float64).flatten(), noise_covariance(noise, len(a), tuple(y.shape))


def noise_covariance(noise: object, size: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """The covariance ``(M, M)`` of measurement noise, float64, given that, or one or M standard deviations.

    Example:
        >>> noise_covariance(2.0, 1)
        tensor([[4.]], dtype=torch.float64)
    """
    if not isinstance(noise, Tensor) or noise.ndim == 0:
        std = check_number("noise_std", noise, low=0.0, high=LARGEST_STD)
        return std * std * torch.eye(size, dtype=torch.float64)
    check_tensor("noise_std", noise, kind="real")
    cov = noise.detach().to(torch.float64)
    if tuple(cov.shape) in ((size,), shape) and tuple(cov.shape) != (size, size):
        if not bool(((cov >= 0) & (cov <= LARGEST_STD)).all()):
            raise InvalidArgumentError(f"`noise_std` must be at least 0 and at most {LARGEST_STD:g} for every value.")
        return cov.flatten().square().diag()
    if tuple(cov.shape) != (size, size):
        raise InvalidArgumentError(
            f"`noise_std` must be a standard deviation, one for each measured value ({size},), or a covariance "
            f"({size}, {size}), got shape {tuple(cov.shape)}."
        )
    if not bool(cov.isfinite().all()) or not torch.allclose(cov, cov.mT, rtol=1e-5, atol=1e-8):
        raise InvalidArgumentError("`noise_std` must be a finite, symmetric covariance.")
    values = torch.linalg.eigvalsh(cov) if size else cov.new_zeros(1)
    if float(values.min()) < -1e-10 * max(1e-300, float(values.abs().max())):
        raise InvalidArgumentError(
            f"`noise_std` must be positive semi-definite; its smallest eigenvalue is {float(values.min()):.3g}."
        )
    return cov
