"""The exact trace, Hutchinson's estimate, and Hutch++."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .base import Divergence, Normal, Probe, Product, refuse


@dataclass(frozen=True)
class ExactTrace(Divergence):
    """All the unit vectors; probes ``(batch, 0, *event)`` give the shape."""

    share: float | None = field(default=0.0, kw_only=True)

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> ExactTrace:
        """See `Divergence`; nothing is drawn."""
        return cls(x.new_zeros((len(x), 0, *x.shape[1:])), chunk=chunk)

    @property
    def paths(self) -> int:
        """A single path."""
        return 1

    @property
    def products(self) -> int:
        """D."""
        return self.event.numel()

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        batch, size = len(self.probes), self.products
        total = torch.zeros(batch, dtype=torch.float64, device=self.probes.device)
        for some in torch.arange(size, device=self.probes.device).split(self.block):
            units = self.probes.new_zeros((len(some), size))
            units[torch.arange(len(some)), some] = 1.0
            out = product(units.reshape(1, len(some), *self.event).expand(batch, len(some), *self.event))
            total = total + out.flatten(2)[:, torch.arange(len(some)), some].to(torch.float64).sum(1)
        return total[:, None]


@dataclass(frozen=True)
class Hutchinson(Divergence):
    r"""The mean of :math:`v^TJv` over probes v with the covariance I.

    The variance of one is :math:`2(\|S\|_F^2 - \sum S_{ii}^2)` for Rademacher probes, :math:`2\|S\|_F^2` for Gaussian
    ones, with S the symmetric part of J; see ``PROBES["orthogonal"]`` for frames. Each probe is a path.
    """

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> Hutchinson:
        """See `Divergence`."""
        probes = probe(normal(x.new_empty((len(x), count, *x.shape[1:]))))
        return cls(probes, chunk=chunk, share=probe.share(count, x.shape[1:].numel()))

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        return torch.cat([(v * out).sum(2) for v, out in self.blocks(product, self.probes)], dim=1)


@dataclass(frozen=True)
class HutchPlusPlus(Divergence):
    r"""Hutch++ of :math:`J - cI`: a third of the products sketches the range, a third gives the exact part of the trace
    in it, and a third is Hutchinson's estimate of the rest,

    .. math:: \mathrm{tr}\,J = cD + \mathrm{tr}\,Q^TAQ + E\,g^T(I-QQ^T)A(I-QQ^T)g,\qquad A = J - cI,\quad
        Q = \mathrm{orth}(A^TS),\qquad c = \frac{\sum s^TJs}{\sum s^Ts}.

    The shift c comes from the sketch and costs no product; the other probes are independent of the sketch, so there is
    no bias. The sketch is Gaussian: random signs could miss the range. Each probe g is a path: given the sketch they
    are independent.

    Facts:
        Exact for a multiple of I, and without the shift for a rank of up to a third of the products.

    Differs from:
        The published method, which does not shift: a multiple of I has full rank, and there it is worse than
        Hutchinson's, which is exact.

    Args:
        probes: ``(batch, 2r, *event)``, the sketch, then the probes g.
        shift: False for the published method.

    References:
        Meyer, Musco, Musco, Woodruff (2021), Hutch++: Optimal Stochastic Trace Estimation, algorithm 1.
        https://arxiv.org/abs/2010.09649
    """

    shift: bool = field(default=True, kw_only=True)

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> HutchPlusPlus:
        """See `Divergence`."""
        if count % 3:
            raise refuse("'hutch++' must be a multiple of 3", count)
        r = count // 3
        z = normal(x.new_empty((len(x), 2 * r, *x.shape[1:])))
        return cls(torch.cat([z[:, :r], probe(z[:, r:])], dim=1), chunk=chunk)

    @property
    def paths(self) -> int:
        """A third of the products."""
        return self.probes.shape[1] // 2

    @property
    def products(self) -> int:
        """Sketch, range and rest."""
        return 3 * self.paths

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        sketch, rest = self.probes.flatten(2).to(torch.float64).split(self.paths, dim=1)  # (batch, r, D)
        seen = self.multiply(product, sketch)
        c = (sketch * seen).sum((1, 2), keepdim=True) / sketch.square().sum((1, 2), keepdim=True)
        c = c if self.shift else torch.zeros_like(c)
        q = torch.linalg.qr((seen - c * sketch).mT).Q.mT  # (batch, r, D), orthonormal rows
        known = (q * (self.multiply(product, q) - c * q)).sum((1, 2))
        left = rest - (rest @ q.mT) @ q
        unknown = (left * (self.multiply(product, left) - c * left)).sum(2)
        return c[:, 0] * sketch.shape[2] + known[:, None] + unknown
