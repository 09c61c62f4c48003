r"""What predicts the error of a sample without a reference.

Every step is compared with the step of first order (DDIM) that the same data estimate :math:`\hat x` would have made,

.. math:: d_k = \frac{x_{k+1}}{\alpha_{k+1}} - \hat x
    - \frac{\sigma_{k+1}}{\alpha_{k+1}}\,\frac{x_k - \alpha_k \hat x}{\sigma_k},

which takes no evaluation. A difference at the noise level :math:`\rho = \sigma/\alpha` is carried to the end, if the
data are like a Gaussian with standard deviation s, with the factor
:math:`\sqrt{(s^2 + \rho_{end}^2)/(s^2 + \rho^2)}`. Data have structure on several scales, of which each counts at other
levels, so that there is a sum :math:`|\sum_k d_k|` and a root :math:`(\sum_k d_k^2)^{1/2}` for each of several s. The
logarithm of the error is regressed on the logarithms of these sizes, on draws that take no other part.

The difference between N and N/2 steps is another size, which costs half of the evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.sdes import AffineSDE
from ..core.solution import Info
from ..core.support.tensors import expand

SCALES = (1.0, 0.3, 0.1, 0.03, 0.01)  # s, in standard deviations of the data
_RIDGE = 1e-3
_SMALL = 1e-3  # medians: what an indicator is never below
_ROWS = 200_000  # of a regression
# What an indicator is made of: sizes along the path, and the difference from half as many steps.
INDICATORS: Mapping[str, tuple[bool, bool]] = {
    "constant": (False, False),
    "embedded": (True, False),
    "half": (False, True),
    "embedded_half": (True, True),
}


class PathWatch:
    """Follows a solve by its callback, and sums the differences along the path of each sample.

    Args:
        sde: the process.
        scale: the standard deviation of the data.
        t, x: where the solve begins.
    """

    def __init__(self, sde: AffineSDE, scale: float, t: float, x: Tensor) -> None:
        self._sde = sde
        self._scales = [scale * s for s in SCALES]
        self._t = torch.full((len(x),), float(t), dtype=torch.float64)
        self._x = _wide(x)
        self._sums = [torch.zeros_like(self._x) for _ in SCALES]
        self._squares = [torch.zeros_like(self._x) for _ in SCALES]

    def __call__(self, info: Info) -> None:
        """See a step."""
        with torch.no_grad():
            t = torch.as_tensor(info.t, dtype=torch.float64).detach().cpu().expand(len(self._x)).clone()
            x, estimate = _wide(info.x), _wide(info.denoised)
            old, new = ([expand(v, x) for v in (self._sde.alpha(at), self._sde.sigma(at))] for at in (self._t, t))
            first_order = new[0] * estimate + new[1] / old[1] * (self._x - old[0] * estimate)
            difference = (x - first_order) / new[0]
            moved = expand((t != self._t).to(x), x).bool()  # those who arrived, or repeat a step, stand still
            level = (new[1] / new[0]).square()
            for i, scale in enumerate(self._scales):
                part = torch.where(moved, difference / (scale**2 + level).sqrt(), torch.zeros_like(x))
                self._sums[i] += part
                self._squares[i] += part.square()
            self._t, self._x = t, torch.where(moved, x, self._x)

    def fields(self) -> list[Tensor]:
        """The sums and the roots at the end, each in units of the state and up to a factor, ``(batch, *event)``."""
        sizes = [torch.sqrt(total) for total in self._squares]
        return [scale * part for parts in (self._sums, sizes) for scale, part in zip(self._scales, parts, strict=True)]


@dataclass(frozen=True)
class Indicator:
    r"""The size that goes with the error: :math:`I = \exp(b_0 + \sum_j b_j \ln f_j) + \delta` of sizes :math:`f_j`.

    Args:
        name: a key of `INDICATORS`.
        offset, slopes: :math:`b_0` and :math:`b_j`.
        floors: the smallest values of the sizes that count.
        least: :math:`\delta`.

    Example:
        >>> constant = Indicator("constant", 0.0, (), (), 0.0)
        >>> constant([], torch.zeros(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    name: str
    offset: float
    slopes: tuple[float, ...]
    floors: tuple[float, ...]
    least: float

    @property
    def parts(self) -> tuple[bool, bool]:
        """Whether it needs the path, and half as many steps."""
        return INDICATORS[self.name]

    def __call__(self, sizes: Sequence[Tensor], like: Tensor) -> Tensor:
        """Its value for each sample, or entry, shaped like ``like``."""
        total = torch.full_like(like, self.offset, dtype=torch.float64)
        for slope, floor, size in zip(self.slopes, self.floors, sizes if self.slopes else (), strict=True):
            total += slope * size.to(total).clamp_min(floor).log()
        return total.exp() + self.least

    @classmethod
    def fit(cls, name: str, sizes: Sequence[Tensor], errors: Tensor) -> tuple[Indicator, Tensor]:
        r"""Regress the logarithms of errors (ridge, :math:`10^{-3}` of the number of rows).

        Args:
            name: a key of `INDICATORS`.
            sizes: for each sample, or entry.
            errors: likewise; those that are not finite take no part.

        Returns:
            The indicator, and what it would be for each row without that row (leave one out).
        """
        flat = errors.reshape(-1).to(torch.float64)
        columns = [size.reshape(-1).to(torch.float64) for size in sizes]
        known = flat.isfinite()
        for column in columns:
            known &= column.isfinite()
        flat, columns = flat[known], [column[known] for column in columns]
        stride = max(1, math.ceil(len(flat) / _ROWS))
        flat, columns = flat[::stride], [column[::stride] for column in columns]
        if not columns or len(flat) < 2:
            return cls(name, 0.0, (), (), 0.0), torch.ones_like(flat)
        floors = [_least_positive(column) for column in columns]
        logs = torch.stack([c.clamp_min(f).log() for c, f in zip(columns, floors, strict=True)], 1)
        target = flat.clamp_min(_least_positive(flat)).log()
        centre, spread = logs.mean(0), logs.std(0)
        spread = torch.where(spread > 1e-12, spread, torch.full_like(spread, math.inf))  # one that says nothing
        scaled = (logs - centre) / spread
        n = len(flat)
        inverse = torch.linalg.inv(scaled.T @ scaled + _RIDGE * n * torch.eye(len(columns), dtype=scaled.dtype))
        slopes = inverse @ scaled.T @ (target - target.mean())
        fitted = target.mean() + scaled @ slopes
        leverage = (scaled @ inverse * scaled).sum(1) + 1 / n
        without = target - (target - fitted) / (1 - leverage).clamp_min(1e-6)
        slopes = slopes / spread
        offset = float(target.mean() - centre @ slopes)
        least = _SMALL * float(fitted.exp().median())
        return cls(name, offset, tuple(slopes.tolist()), tuple(floors), least), without.exp() + least


def _least_positive(values: Tensor) -> float:
    """A millionth of the median, for values that are 0."""
    return max(1e-6 * float(values.median()), 1e-300)


def _wide(x: Tensor) -> Tensor:
    """In float64 on the CPU, in float32 at least elsewhere."""
    return x.detach().to(torch.float64 if x.is_cpu else torch.promote_types(x.dtype, torch.float32))
