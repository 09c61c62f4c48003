"""A covariance in its eigenbasis, over events of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import as_tensor, check_number, check_tensor

# Of eigenvalues, broadcasting against states.
Function = Callable[[Tensor], Tensor]


class Spectrum(NamedTuple):
    r"""A covariance :math:`\Sigma = U\,\mathrm{diag}(\lambda)\,U^T`; ``basis`` None is the identity (a diagonal
    covariance).

    Fields: ``values``, the eigenvalues in the event's shape (with leading dimensions for a stack); ``basis``, ``(...,
    D, D)``.
    """

    values: Tensor
    basis: Tensor | None

    @classmethod
    def of(cls, cov: object, event_shape: tuple[int, ...], name: str, lead: tuple[int, ...] = ()) -> Spectrum:
        """From a number, variances of the event's shape, or ``(D, D)`` matrices, each with leading dimensions
        ``lead``. Negative eigenvalues of the size of the rounding of a matrix are 0."""
        if isinstance(cov, str | bytes) or cov is None or (isinstance(cov, Tensor) and cov.is_complex()):
            raise InvalidTypeError(f"`{name}` must be a number or a real tensor, got {cov!r}.")
        given = cov.dtype if isinstance(cov, Tensor) and cov.dtype.is_floating_point else torch.float64
        resolution = torch.finfo(given).eps
        cov = check_tensor(name, as_tensor(name, cov, torch.float64), finite=True)
        size = math.prod(event_shape)
        if tuple(cov.shape) == (*lead, size, size) and event_shape != (*lead, size, size)[len(lead) :]:
            if not torch.allclose(cov, cov.mT, rtol=1e-5, atol=1e-8):
                raise InvalidArgumentError(f"`{name}` must be symmetric.")
            values, basis = torch.linalg.eigh(cov)
            floor = max(1e-10, resolution * size) * values.abs().amax(-1, keepdim=True)
            if bool((values < -floor).any()):
                raise InvalidArgumentError(
                    f"`{name}` must be positive semi-definite; its smallest eigenvalue is {float(values.min()):.3g}."
                )
            return cls(values.clamp_min(0).reshape(*lead, *event_shape), basis)
        if tuple(cov.shape) == lead:
            cov = cov.reshape(*lead, *([1] * len(event_shape))).expand(*lead, *event_shape)
        if tuple(cov.shape) != (*lead, *event_shape):
            raise InvalidArgumentError(
                f"`{name}` must have shape {lead}, {(*lead, *event_shape)} or {(*lead, size, size)} for events of "
                f"shape {event_shape}, got {tuple(cov.shape)}."
            )
        if bool((cov < 0).any()):
            raise InvalidArgumentError(f"`{name}` must not be negative.")
        return cls(cov, None)

    @property
    def mean(self) -> float:
        """The mean of the eigenvalues."""
        return float(self.values.mean())

    def map(self, x: Tensor, function: Function) -> Tensor:
        r""":math:`f(\Sigma)\,x`."""
        return self.back(function(self.values) * self.into(x))

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """All of them ``(n,)``, and how often each is there."""
        values = self.values.reshape(-1)
        return values, torch.ones_like(values)

    def draw(self, z: Tensor) -> Tensor:
        """A draw of N(0, cov), given one of N(0, I)."""
        return self.back(self.values.sqrt() * z)

    def log_density(self, centred: Tensor, variance: Function) -> Tensor:
        """The log-density of N(0, variance(cov)), ``(batch,)``."""
        turned = self.into(centred)
        values = variance(self.values).expand(turned.shape)
        return -0.5 * (turned**2 / values + values.log() + math.log(2 * math.pi)).flatten(1).sum(1)

    def to(self, like: Tensor) -> Spectrum:
        """In the dtype and on the device of a tensor."""
        return Spectrum(self.values.to(like), None if self.basis is None else self.basis.to(like))

    def into(self, x: Tensor) -> Tensor:
        """From the event's coordinates ``(batch, ..., *event)`` to the eigenbasis."""
        return self._turn(x, self.basis)

    def back(self, x: Tensor) -> Tensor:
        """From the eigenbasis to the event's coordinates."""
        return self._turn(x, None if self.basis is None else self.basis.mT)

    def _turn(self, x: Tensor, matrix: Tensor | None) -> Tensor:
        if matrix is None:
            return x
        lead = matrix.ndim - 2
        flat = x.flatten(1 + lead)  # (batch, *lead, D)
        turned = (flat.unsqueeze(-2) @ matrix).squeeze(-2) if lead else flat @ matrix
        return turned.reshape(x.shape)


class LowRank(NamedTuple):
    r"""A covariance :math:`\Sigma = F F^T + v I` of few directions and the same variance v in all others.

    Fields: ``factor``, F, ``(D, r)`` over the flattened event; ``variance``, v.

    Example:
        >>> LowRank(torch.ones(4, 1), 0.1).variance
        0.1
    """

    factor: Tensor
    variance: float


class LowRankSpectrum(NamedTuple):
    r"""The eigenvectors of a `LowRank` covariance that are known, ``(D, r)``, their eigenvalues ``(r,)``, and that of
    all the others. A product costs 2 D r multiplications, and nothing has the size D x D."""

    values: Tensor
    basis: Tensor
    rest: Tensor
    event_shape: tuple[int, ...]

    @classmethod
    def of(cls, cov: LowRank, event_shape: tuple[int, ...], name: str) -> LowRankSpectrum:
        """The spectrum of a low-rank factor."""
        factor = check_tensor(f"{name}.factor", cov.factor).to(torch.float64)
        size = math.prod(event_shape)
        if factor.ndim != 2 or len(factor) != size or factor.shape[1] > size or not bool(factor.isfinite().all()):
            raise InvalidArgumentError(
                f"The factor of `{name}` must be finite, (D, r) with D = {size} and r <= D, got {tuple(factor.shape)}."
            )
        rest = check_number(f"{name}.variance", cov.variance, low=0.0)
        basis, scales, _ = torch.linalg.svd(factor, full_matrices=False)
        return cls(scales**2 + rest, basis, torch.tensor(rest, dtype=torch.float64), event_shape)

    @property
    def mean(self) -> float:
        """The mean of the eigenvalues."""
        size, known = self.basis.shape
        return float((self.values.sum() + (size - known) * self.rest) / size)

    def to(self, like: Tensor) -> LowRankSpectrum:
        """In the dtype and on the device of a tensor."""
        return LowRankSpectrum(self.values.to(like), self.basis.to(like), self.rest.to(like), self.event_shape)

    def map(self, x: Tensor, function: Function) -> Tensor:
        r""":math:`f(\Sigma)\,x = f(v)x + U(f(\lambda) - f(v))U^Tx`."""
        own, rest = self._functions(function)
        inside, outside = self._split(x)
        moved = ((own * inside) @ self.basis.mT).reshape(x.shape)
        return moved if self.complete else moved + rest * outside

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """All of them ``(n,)``, and how often each is there."""
        size, known = self.basis.shape
        values = torch.cat([self.values, self.rest[None]])
        return values, torch.cat([torch.ones_like(self.values), torch.full_like(self.rest[None], size - known)])

    def draw(self, z: Tensor) -> Tensor:
        """A draw of N(0, cov), given one of N(0, I)."""
        return self.map(z, torch.sqrt)

    def log_density(self, centred: Tensor, variance: Function) -> Tensor:
        """The log-density of N(0, variance(cov)), ``(batch,)``."""
        size, known = self.basis.shape
        own, rest = (v.flatten(1) for v in self._functions(variance))
        inside, outside = self._split(centred)
        total = (inside.square() / own + own.log()).sum(1) + size * math.log(2 * math.pi)
        if not self.complete:
            total = total + outside.flatten(1).square().sum(1) / rest[:, 0] + (size - known) * rest.log()[:, 0]
        return -0.5 * total

    @property
    def complete(self) -> bool:
        """Whether all eigenvectors are known, so that there are no others."""
        return self.basis.shape[0] == self.basis.shape[1]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of the known eigenvectors ``(batch, r)``, and what is left of x, projected twice, since it
        may be far smaller than x."""
        flat = x.flatten(1)
        inside = flat @ self.basis
        outside = flat - inside @ self.basis.mT
        outside = outside - (outside @ self.basis) @ self.basis.mT
        return inside, outside.reshape(x.shape)

    def _functions(self, function: Function) -> tuple[Tensor, Tensor]:
        """At the known eigenvalues ``(1 or batch, r)``, and at the other one ``(1 or batch, 1, ...)``."""
        ones = (1,) * len(self.event_shape)
        return function(self.values.reshape(*ones, -1)).flatten(1), function(self.rest.reshape(1, *ones))
