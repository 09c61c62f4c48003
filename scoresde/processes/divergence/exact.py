"""The exact trace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Divergence, Normal, Product
from .probes import Probe


@dataclass(frozen=True)
class Exact(Divergence):
    """All the unit vectors; probes ``(batch, 0, *event)`` give the shape."""

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> Exact:
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

    def std_error(self, paths: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(paths[:, 0])
