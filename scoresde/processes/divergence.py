r"""The divergence of a field, :math:`\mathrm{tr}\,J`, from products with its Jacobian J.

A `Divergence` belongs to one solve: its probes are drawn once, so that what is integrated is a smooth function. It
gives one value for each of its ``paths``: independent estimates whose mean is the divergence and whose spread tells how
well it is known.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._tensors import take

Product = Callable[[Tensor], Tensor]  # J^T v of every sample, shaped like x


@dataclass(frozen=True)
class Divergence(abc.ABC):
    """How a trace is made of products with the Jacobian.

    Args:
        probes: ``(batch, m, *event)``.
    """

    probes: Tensor

    @property
    @abc.abstractmethod
    def paths(self) -> int:
        """The number of independent estimates."""

    @abc.abstractmethod
    def __call__(self, product: Product) -> Tensor:
        """The estimates ``(batch, paths)``, float64."""

    def take(self, rows: Tensor) -> Divergence:
        """For some samples of the batch."""
        return replace(self, probes=take(self.probes, rows))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of samples, float64."""
    return (a.flatten(1).to(torch.float64) * b.flatten(1)).sum(1)


@dataclass(frozen=True)
class Exact(Divergence):
    """All the unit vectors, one after the other; the probes are not used."""

    @property
    def paths(self) -> int:
        """One."""
        return 1

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        event = self.probes.shape[2:]
        size = math.prod(event)
        total = torch.zeros(len(self.probes), dtype=torch.float64, device=self.probes.device)
        for i in range(size):
            unit = self.probes.new_zeros(size)
            unit[i] = 1.0
            total = total + product(unit.reshape(1, *event).expand(len(self.probes), *event)).flatten(1)[:, i]
        return total[:, None]


@dataclass(frozen=True)
class Hutchinson(Divergence):
    r"""The mean of :math:`v^TJv` over probes v with the covariance I.

    The variance is :math:`2(\|S\|_F^2 - \sum S_{ii}^2)` for Rademacher probes, :math:`2\|S\|_F^2` for Gaussian ones,
    with S the symmetric part of J.
    """

    @property
    def paths(self) -> int:
        """One a probe."""
        return self.probes.shape[1]

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        return torch.stack([dot(v, product(v)) for v in self.probes.unbind(1)], dim=1)


@dataclass(frozen=True)
class HutchPlusPlus(Divergence):
    r"""Hutch++: a third of the probes sketch the range of J, whose part of the trace is exact; Hutchinson's estimate is
    made of the rest.

    .. math:: \mathrm{tr}\,J = \mathrm{tr}\,Q^TJQ + E\,g^T(I-QQ^T)J(I-QQ^T)g,\qquad Q = \mathrm{orth}(J^TS).

    It is exact for a rank of up to a third of the probes.
    """

    @property
    def paths(self) -> int:
        """A third of the probes."""
        return self.probes.shape[1] // 3

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        r, event = self.paths, self.probes.shape[2:]
        sketch, rest = self.probes[:, :r], self.probes[:, r : 2 * r]
        seen = torch.stack([product(s).flatten(1) for s in sketch.unbind(1)], dim=2)  # (batch, D, r)
        q = torch.linalg.qr(seen).Q
        known = torch.zeros(len(q), dtype=torch.float64, device=q.device)
        for i in range(q.shape[2]):
            known = known + dot(q[:, :, i], product(q[:, :, i].reshape(-1, *event)))
        out = []
        for g in rest.unbind(1):
            flat = g.flatten(1)
            left = (flat - (q @ (q.mT @ flat[:, :, None]))[:, :, 0]).reshape(-1, *event)
            out.append(known + dot(left, product(left)))
        return torch.stack(out, dim=1)


DIVERGENCES: dict[str, type[Divergence]] = {"exact": Exact, "hutchinson": Hutchinson, "hutch++": HutchPlusPlus}
PROBES: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda z: z,
    "rademacher": lambda z: torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z)),
}
