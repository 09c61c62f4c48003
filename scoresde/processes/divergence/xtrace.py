"""XTrace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .base import Divergence, Normal, Product, refuse
from .probes import Probe

_SINGULAR = 1e-14  # of the largest, a pivot that has to be inverted


class _Sketch(NamedTuple):
    r"""What m vectors :math:`\omega_i` and their products y = A\omega tell of A, in an orthonormal basis Q of the y;
    leading dimensions are free.

    Fields: R of Y = QR; H = QᵀAQ; ``inside``, :math:`Q^T\omega`; ``mixed``, :math:`\omega^TAQ` as columns; the numbers
    :math:`\omega^Ty` and :math:`\omega^T\omega`.
    """

    r: Tensor
    h: Tensor
    inside: Tensor
    mixed: Tensor
    values: Tensor
    squares: Tensor

    def without(self, i: int) -> _Sketch:
        """All vectors but one, in the basis of the others."""
        keep = [j for j in range(self.r.shape[-1]) if j != i]
        turn, r = torch.linalg.qr(self.r[..., keep])
        return _Sketch(
            r,
            turn.mT @ self.h @ turn,
            turn.mT @ self.inside[..., keep],
            turn.mT @ self.mixed[..., keep],
            self.values[..., keep],
            self.squares[..., keep],
        )

    def estimates(self, size: int) -> Tensor:
        """Those of the leave-one-out, ``(..., m)``."""
        m = self.r.shape[-1]
        pivots = self.r.diagonal(dim1=-2, dim2=-1)
        least = (_SINGULAR * pivots.abs().amax(-1, keepdim=True)).clamp_min(torch.finfo(pivots.dtype).tiny)
        r = self.r + torch.diag_embed(torch.where(pivots.abs() < least, least, 0.0))
        unit = torch.eye(m, dtype=r.dtype, device=r.device).expand_as(r)
        s = torch.linalg.solve_triangular(r.mT, unit, upper=False)
        s = s / s.norm(dim=-2, keepdim=True)  # column i has no part in the range of the others
        known = self.h.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - (s * (self.h @ s)).sum(-2)
        c = self.inside - s * (s * self.inside).sum(-2, keepdim=True)
        rest = self.values - (c * self.r).sum(-2) - (c * self.mixed).sum(-2) + (c * (self.h @ c)).sum(-2)
        length = self.squares - c.square().sum(-2)
        return known + rest * (size - m + 1) / length


@dataclass(frozen=True)
class XTrace(Divergence):
    r"""XTrace: every vector is once the probe of what the others have not seen. With r vectors :math:`\omega_i`, and
    :math:`Q_{(i)}` an orthonormal basis of the products with all but the i-th,

    .. math:: \mathrm{tr}\,J \approx \frac1r\sum_i\Big[\mathrm{tr}\,Q_{(i)}^TJQ_{(i)} + \mu_i^TJ\mu_i\Big],\qquad
        \mu_i = \sqrt{D-r+1}\,\frac{(I-Q_{(i)}Q_{(i)}^T)\omega_i}{\|(I-Q_{(i)}Q_{(i)}^T)\omega_i\|}.

    The leave-one-out bases come from one QR decomposition, and their products from those with Q, so that there are 2r
    products. The :math:`\omega_i` are Gaussian, which makes :math:`\mu_i` uniform on its sphere, and the mean unbiased.

    **Standard error.** The r terms share their vectors: they are positively correlated, and their spread tells too
    little (down to 0.7 of the true deviation, and intervals of 95 % that hold 79 %). The paths are instead those of the
    jackknife,

    .. math:: p_i = T + (r-1)\Big(\frac1r\sum_j T_{(j)} - T_{(i)}\Big),

    with :math:`T_{(i)}` the whole estimate without the i-th vector, which needs no further products. Their mean is T,
    and the usual standard error of their mean is too large on average, never too small (Efron and Stein): it is about
    the error of one vector less, which on a falling spectrum can be several times that of r.

    Facts:
        Exact for a multiple of I, and for a rank of up to r - 1.

    Args:
        probes: ``(batch, r, *event)``, standard normal.

    References:
        Epperly, Tropp, Webber (2024), XTrace: Making the Most of Every Sample in Stochastic Trace Estimation,
        section 2. https://arxiv.org/abs/2301.07825
        Efron, Stein (1981), The jackknife estimate of variance.
    """

    @classmethod
    def draw(cls, x: Tensor, count: int, probe: Probe, normal: Normal, chunk: int | None) -> XTrace:
        """See `Divergence`; the vectors are Gaussian."""
        size = x.shape[1:].numel()
        if count % 2 or count // 2 > size:
            raise refuse(f"'xtrace' must be even and at most {2 * size}, twice the numbers of an event", count)
        return cls(normal(x.new_empty((len(x), count // 2, *x.shape[1:]))), chunk=chunk)

    @property
    def paths(self) -> int:
        """Half of the products."""
        return self.probes.shape[1]

    @property
    def products(self) -> int:
        """With the vectors, and with the basis of what they give."""
        return 2 * self.probes.shape[1]

    def __call__(self, product: Product) -> Tensor:
        """See `Divergence`."""
        omega = self.probes.flatten(2).to(torch.float64)  # (batch, r, D)
        m, size = omega.shape[1:]
        seen = self.multiply(product, omega)
        q, r = torch.linalg.qr(seen.mT)
        image = self.multiply(product, q.mT)  # rows A q
        values, squares = (omega * seen).sum(2), omega.square().sum(2)
        sketch = _Sketch(r, (image @ q).mT, (omega @ q).mT, (omega @ image.mT).mT, values, squares)
        whole = sketch.estimates(size).mean(-1, keepdim=True)
        if m == 1:
            return whole
        fewer = torch.stack([sketch.without(i).estimates(size).mean(-1) for i in range(m)], dim=-1)
        return whole + (m - 1) * (fewer.mean(-1, keepdim=True) - fewer)
