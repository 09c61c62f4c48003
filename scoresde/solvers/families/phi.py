r"""The functions :math:`\varphi_k` of exponential integrators.

.. math:: \varphi_k(z) = \int_0^1 e^{(1-\tau)z}\frac{\tau^{k-1}}{(k-1)!}\,d\tau,\qquad
    \varphi_0 = e^z,\quad \varphi_{k+1}(z) = \frac{\varphi_k(z) - 1/k!}{z},\quad \varphi_k(0) = \frac1{k!}.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...core.support.tensors import Scalar, exp, expm1

_NEAR = 1.0  # below this the recursion loses digits and the series is taken
_TERMS = 19  # of the series: 1/19! of the first term at |z| = 1


def phi(count: int, z: Scalar) -> list[Scalar]:
    r""":math:`\varphi_0, \ldots, \varphi_{count}` of a float or a float64 tensor, to about 15 digits.

    Example:
        >>> [round(v, 6) for v in phi(2, 1.0)]
        [2.718282, 1.718282, 0.718282]
    """
    if isinstance(z, Tensor) and not z.ndim:
        return list(_Phi.apply(z, count))
    if isinstance(z, Tensor):
        near = z.abs() < _NEAR
        far = torch.where(near, torch.ones_like(z), z)  # keeps the branch not taken finite, for gradients
        pairs = zip(_series(count, torch.where(near, z, torch.zeros_like(z))), _recursion(count, far), strict=True)
        return [torch.where(near, a, b) for a, b in pairs]
    return _series(count, z) if abs(z) < _NEAR else _recursion(count, z)


class _Phi(torch.autograd.Function):
    r"""The functions of a 0-d tensor, by numbers: a graph of the series would cost more than the rest of a step.

    .. math:: \varphi_k' = \varphi_k - k\,\varphi_{k+1}.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(z)
        ctx.count = count
        return z.new_tensor(phi(count, z.item())).unbind()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        values = phi(ctx.count + 1, z)
        terms = [slope * (values[k] - k * values[k + 1]) for k, slope in enumerate(slopes)]
        return torch.stack(terms).sum(), None


def _series(count: int, z: Scalar) -> list[Scalar]:
    total = z * 0 + 1 / math.factorial(count)
    term = total
    for n in range(1, _TERMS):
        term = term * z / (count + n)
        total = total + term
    values = [total]
    for k in range(count - 1, -1, -1):  # downwards: multiplication by z loses nothing
        values.append(values[-1] * z + 1 / math.factorial(k))
    return values[::-1]


def _recursion(count: int, z: Scalar) -> list[Scalar]:
    values = [exp(z)]
    for k in range(count):
        values.append((expm1(z) if k == 0 else values[-1] - 1 / math.factorial(k)) / z)
    return values
