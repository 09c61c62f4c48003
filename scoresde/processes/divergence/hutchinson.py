"""Hutchinson's estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Divergence, Normal, Product
from .probes import Probe


@dataclass(frozen=True)
class Hutchinson(Divergence):
    r"""The mean of :math:`v^TJv` over probes v with the covariance I.

    The variance of one is :math:`2(\|S\|_F^2 - \sum S_{ii}^2)` for Rademacher probes, :math:`2\|S\|_F^2` for Gaussian
    ones, with S the symmetric part of J; see `ORTHOGONAL` for frames. Each probe is a path.
    """

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> Hutchinson:
        """See `Divergence`."""
        probes = probe(normal(x.new_empty((len(x), count, *x.shape[1:]))))
        return cls(probes, chunk=chunk, share=probe.share(count, x.shape[1:].numel()))

    @property
    def paths(self) -> int:
        """One per probe."""
        return self.probes.shape[1]

    @property
    def products(self) -> int:
        """One per probe."""
        return self.probes.shape[1]

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        return torch.cat([(v * out).sum(2) for v, out in self.blocks(product, self.probes)], dim=1)

    def std_error(self, paths: Tensor) -> Tensor:
        """See `Divergence`; 0 for whole frames of orthogonal probes, whose mean is the trace."""
        whole = self.share == 0.0
        return torch.zeros_like(paths[:, 0]) if whole else super().std_error(paths)
