r"""Random vectors v with :math:`E\,vv^T = I`.

Pairs v and -v, the usual antithetic ones, are not among them: :math:`v^TJv` is the same for both. What makes the
estimates of two vectors fall on opposite sides of the trace is that they are orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _frames(m: int, size: int) -> float:
    if m == 1:
        return 1.0
    last = m % size
    alone = last * (size - last) / (max(size - 1, 1) * m * m)  # in units of the variance of one vector's estimate
    return alone * (m - 1) / (m * (1 - alone))


@dataclass(frozen=True)
class Probe:
    """A kind of random vectors.

    Args:
        made: ``(batch, m, *event)`` standard normal draws become as many vectors.
        share: of m vectors in D dimensions, the variance of the mean of their estimates, in units of the expected
            variance among them.
    """

    made: Callable[[Tensor], Tensor]
    share: Callable[[int, int], float] = lambda m, size: 1 / m

    def __call__(self, z: Tensor) -> Tensor:
        """The vectors."""
        return self.made(z)


def _signs(z: Tensor) -> Tensor:
    return torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))


def _orthogonal(z: Tensor) -> Tensor:
    r"""Frames of up to D orthogonal vectors of the length :math:`\sqrt D`, turned at random; after D of them a new
    frame.

    One has the variance :math:`\frac{2D}{D+2}\|S_0\|_F^2`, :math:`S_0` the symmetric part of J less its trace's share
    :math:`\frac{\mathrm{tr}J}{D}I`. The sum over a whole frame is D times the trace, whatever J is, so that two in a
    frame have the correlation :math:`-1/(D-1)`: the mean of :math:`m \le D` has :math:`\frac{D-m}{D-1}` of the variance
    of as many independent ones, and :math:`1-m/D` of the expected square of their usual standard error.
    """
    size = z[0, 0].numel() if z.numel() else 1
    frames = [_frame(part.flatten(2).to(torch.float64)) for part in z.split(size, dim=1)]
    return (size**0.5 * torch.cat(frames, dim=1)).to(z).reshape(z.shape) if frames else z


def _frame(z: Tensor) -> Tensor:
    """Orthonormal rows, uniformly distributed, of at most D normal ones ``(batch, m, D)``."""
    q, r = torch.linalg.qr(z.mT)
    return (q * _signs(r.diagonal(dim1=1, dim2=2))[:, None]).mT


PROBES: dict[str, Probe] = {
    "gaussian": Probe(lambda z: z),
    "rademacher": Probe(_signs),
    "orthogonal": Probe(_orthogonal, _frames),
}
