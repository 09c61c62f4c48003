"""The records that processes, models and solvers exchange."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._tensors import Scalar


class Node(NamedTuple):
    r"""A forward process at one time: Python floats on a fixed grid, ``(batch,)`` float64 tensors when steps are per
    sample.

    Fields: ``t``; :math:`\alpha`; :math:`\sigma`; :math:`\lambda = \ln(\alpha/\sigma)` (half the log-SNR); :math:`f =
    d\ln\alpha/dt`; :math:`g^2 = -2\sigma^2 d\lambda/dt`; and the derivatives :math:`\alpha', \sigma'`, which stay
    finite where f does not. Of a process that is not affine only ``t`` is known, the rest is NaN.

    Example:
        >>> import scoresde
        >>> node = scoresde.VESDE().node(0.5)
        >>> node.alpha, round(node.sigma, 4)
        (1.0, 0.7071)
    """

    t: Scalar
    alpha: Scalar
    sigma: Scalar
    lam: Scalar
    f: Scalar
    g2: Scalar
    dalpha: Scalar
    dsigma: Scalar


class Estimate(NamedTuple):
    r"""What a score network says of a state: :math:`\hat x = E[x_0|x_t]` and :math:`\hat\varepsilon = (x_t-\alpha\hat
    x)/\sigma`.

    Both are kept, because each is ill-conditioned to derive from the other at one end of the interval.

    Example:
        >>> import torch
        >>> Estimate(data=torch.zeros(1, 2), noise=torch.ones(1, 2)).noise
        tensor([[1., 1.]])
    """

    data: Tensor
    noise: Tensor
