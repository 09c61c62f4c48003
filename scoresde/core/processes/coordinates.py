r"""Other clocks for the same path.

The probability flow is one curve; the error of a method depends on the variable that it steps in. A `Coordinate`
names a clock u and a scale S with :math:`y = x/S`, and gives :math:`dy/du`. In :math:`u = \sigma/\alpha` the linear
part is gone, :math:`dy/du = \hat\varepsilon`: there Euler's method is DDIM and Heun's is EDM's sampler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..sdes import Node
from ..support.combination import sum_of
from ..support.tensors import Scalar, arctan, exp, log, sqrt, tan

if TYPE_CHECKING:
    from .base import Process
    from .requests import Request


@dataclass(frozen=True)
class Coordinate:
    r"""A clock u, a scale S of the state, and the derivative of :math:`y = x/S`.

    Args:
        name: the name of the clock.
        clock: u at a node.
        lam: :math:`\lambda = \ln(\alpha/\sigma)` as a function of u; None if u is the time itself.
        scale: S at a node.
        slope: ``(process, x, node)``, a request for dy/du, shaped like ``x``, or the `Combination` that it is.
        is_estimate: whether a slope is an estimate of the network itself; False promises a new tensor.

    Example:
        >>> import scoresde
        >>> node = scoresde.VESDE().node(1.0)
        >>> round(RHO.clock(node), 6), round(-RHO.lam(50.0), 6) == round(-node.lam, 6)
        (50.0, True)
    """

    name: str
    clock: Callable[[Node], Any]  # a number of numbers, a tensor of tensors
    lam: Callable[[Any], Any] | None
    scale: Callable[[Node], Any]
    slope: Callable[[Process, Tensor, Node], Request]
    is_estimate: bool = True


def _one(node: Node) -> float:
    return 1.0


def _log_snr_slope(process: Process, x: Tensor, node: Node) -> Request:
    rate = -2 * node.sigma * node.sigma / node.g2  # dt/dlambda
    return process.linear_drift(x, node).then(lambda drift: sum_of([(rate, drift)]))


@functools.cache
def angle(spread: float) -> Coordinate:
    r"""The angle between signal and noise, :math:`\tan\varphi = \sigma/(s\alpha)`, from 0 at the data to
    :math:`\pi/2` at the noise, and :math:`y = x/\sqrt{\sigma^2 + s^2\alpha^2}`, which has the variance 1 for data of
    the variance :math:`s^2`,

    .. math:: \frac{dy}{d\varphi} = \cos\varphi\,\hat\varepsilon - \sin\varphi\,\hat x/s.

    It is EDM's scaling by :math:`\sigma_{data} = s`, with the output of its network for the derivative. For small s it
    is the data estimate that is integrated, for large s the noise estimate.

    Example:
        >>> import scoresde
        >>> flow = scoresde.FlowSDE(t_max=1.0)
        >>> (
        ...     round(angle(0.5).clock(flow.node(1.0)), 6),
        ...     round(angle(0.5).clock(flow.node(1 / 3)), 6),
        ... )
        (1.570796, 0.785398)

    References:
        Karras et al. (2022), EDM, appendix B.6. https://arxiv.org/abs/2206.00364
    """

    def size(node: Node) -> Scalar:
        data = spread * node.alpha
        return sqrt(node.sigma * node.sigma + data * data)

    def slope(process: Process, x: Tensor, node: Node) -> Request:
        unit = size(node)
        cos, sin = spread * node.alpha / unit, node.sigma / unit
        return process.linear_estimate(x, node).then(lambda estimate: estimate.mix(-sin / spread, cos))

    return Coordinate(
        f"angle of {spread:g}",
        lambda n: arctan(exp(-n.lam) / spread),
        lambda u: -log(spread * tan(u)),
        size,
        slope,
        is_estimate=False,
    )


TIME = Coordinate("time", lambda n: n.t, None, _one, lambda p, x, n: p.linear_drift(x, n), is_estimate=False)
LOG_SNR = Coordinate("log_snr", lambda n: n.lam, lambda u: u, _one, _log_snr_slope, is_estimate=False)
RHO = Coordinate(
    "rho",
    lambda n: n.sigma / n.alpha,
    lambda u: -log(u),
    lambda n: n.alpha,
    lambda p, x, n: p.linear_estimate(x, n).then(lambda estimate: estimate.mix(0.0, 1.0)),
)
SNR = Coordinate(
    "snr",
    lambda n: exp(n.lam),
    log,
    lambda n: n.sigma,
    lambda p, x, n: p.linear_estimate(x, n).then(lambda estimate: estimate.mix(1.0, 0.0)),
)
