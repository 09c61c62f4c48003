"""Between the levels of a chain: its schedule, and the label of the nearest level."""

from __future__ import annotations

import torch
from torch import Tensor


class Tables:
    """Tensors that are copied to a device once."""

    def __init__(self, *tensors: Tensor) -> None:
        self._copies = {tensors[0].device: tensors}
        self._source = tensors

    def __reduce__(self) -> tuple[type[Tables], tuple[Tensor, ...]]:
        return Tables, self._source  # a copy starts without those on other devices

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._copies:
            self._copies[device] = tuple(t.to(device) for t in self._source)
        return self._copies[device]


class NearestLabel:
    """From a log-SNR to the label of the nearest level."""

    def __init__(self, log_snrs: Tensor, labels: Tensor) -> None:
        self._tables = Tables(-0.5 * (log_snrs[1:] + log_snrs[:-1]), labels)

    def __call__(self, log_snr: Tensor) -> Tensor:
        edges, labels = self._tables.on(log_snr.device)
        return labels[torch.bucketize(-log_snr.detach(), edges)]


class MonotoneCurve:
    r"""A rising curve through points, cubic between them and straight beyond (PCHIP).

    On a cell of width h with secant d, end slopes :math:`m_0, m_1` and :math:`s = (t-t_0)/h`,

    .. math:: y = y_0 + (t-t_0)\,[m_0 + s\,(3d - 2m_0 - m_1 + s\,(m_0 + m_1 - 2d))].

    The slope at an inner point is a weighted harmonic mean of the secants beside it, which keeps the curve strictly
    rising; at an end it is that of the parabola through three points, kept within the secant's half and double.

    References:
        Fritsch, Butland (1984), A Method for Constructing Local Monotone Piecewise Cubic Interpolants.
    """

    def __init__(self, t: Tensor, y: Tensor) -> None:
        h = t.diff()
        d = y.diff() / h
        near, far = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        inner = (near + far) / (near / d[:-1] + far / d[1:])
        first, last = (_end_slope(h[[i, j]], d[[i, j]]) if len(d) > 1 else d for i, j in ((0, 1), (-1, -2)))
        self._tables = Tables(t, y, torch.cat([first, inner, last]))
        self._points, self._low, self._high = len(t), float(t[0]), float(t[-1])

    def __call__(self, t: Tensor) -> Tensor:
        points, values, slopes = self._tables.on(t.device)
        inside = t.clamp(self._low, self._high)
        k = torch.bucketize(inside.detach(), points[1:-1], right=True)
        h, m0, m1 = points[k + 1] - points[k], slopes[k], slopes[k + 1]
        d = (values[k + 1] - values[k]) / h
        u = inside - points[k]
        s = u / h
        cubic = values[k] + u * (m0 + s * (3 * d - 2 * m0 - m1 + s * (m0 + m1 - 2 * d)))
        return cubic + torch.where(t < self._low, slopes[0], slopes[-1]) * (t - inside)

    def __repr__(self) -> str:
        return f"a monotone curve through {self._points} levels"


def _end_slope(h: Tensor, d: Tensor) -> Tensor:
    """The slope at an end, ``(1,)``, from the widths and secants of the end cell and its neighbour."""
    parabola = d[:1] + h[:1] * (d[:1] - d[1:]) / (h[:1] + h[1:])
    return torch.minimum(torch.maximum(parabola, 0.5 * d[:1]), 2 * d[:1])
