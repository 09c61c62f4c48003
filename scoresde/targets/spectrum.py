"""A covariance in its eigenbasis, over events of any shape."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidArgumentError


class Spectrum(NamedTuple):
    r"""A covariance :math:`\Sigma = U\,\mathrm{diag}(\lambda)\,U^T`; ``basis`` None is the identity (a diagonal
    covariance).

    Fields: ``values``, the eigenvalues in the event's shape (with leading dimensions for a stack); ``basis``, ``(...,
    D, D)``.
    """

    values: Tensor
    basis: Tensor | None

    @classmethod
    def of(cls, cov: Tensor, event_shape: tuple[int, ...], name: str, lead: tuple[int, ...] = ()) -> Spectrum:
        """From a number, variances of the event's shape, or ``(D, D)`` matrices, each with leading dimensions
        ``lead``."""
        size = math.prod(event_shape)
        if not bool(torch.isfinite(cov).all()):
            raise InvalidArgumentError(f"`{name}` must be finite.")
        if tuple(cov.shape) == (*lead, size, size) and event_shape != (*lead, size, size)[len(lead) :]:
            if not torch.allclose(cov, cov.mT, rtol=1e-5, atol=1e-8):
                raise InvalidArgumentError(f"`{name}` must be symmetric.")
            values, basis = torch.linalg.eigh(cov)
            floor = 1e-10 * values.abs().amax(-1, keepdim=True)
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
                f"shape {event_shape}, "
                f"got {tuple(cov.shape)}."
            )
        if bool((cov < 0).any()):
            raise InvalidArgumentError(f"`{name}` must not be negative.")
        return cls(cov, None)

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
