"""DEIS: Adams-Bashforth for the noise estimate, interpolated in time, in a time of its own, or in sigma/alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.processes import RHO, TIME, Coordinate, Process
from ..core.sdes import Node
from ..core.support.checks import check_choice
from ..core.support.combination import Term, combination
from ..core.support.tensors import Scalar, exp, expm1, log1p, sqrt
from .families.exponential import GAUSS_NODES, GAUSS_WEIGHTS, History, adams_weights, interpolation_weights, positions
from .families.multistep import NoiseMultistep, StepRow
from .registry.variants import variants

__getattr__ = variants(__name__)  # the public names of rows

CLOCKS = ("time", "vp_time")


@dataclass(frozen=True)
class TAB(NoiseMultistep):
    r"""tAB-DEIS: a polynomial in time through the last estimates of the noise.

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s + \alpha_t\sum_{j<p} C_j\,\hat\varepsilon_{-j},\qquad
        C_j = \int_s^t \frac{d(\sigma/\alpha)}{d\tau} L_j(\tau)\,d\tau,

    with L the Lagrange basis in time and the integrals by 16 Gauss nodes, computed before the first step. With
    ``clock="vp_time"`` the polynomial is in :math:`u = \sqrt{\ln(1+\rho^2)}`, :math:`\rho = \sigma/\alpha`, in place
    of the time: on a VP process whose :math:`\beta` is proportional to time, u is proportional to time, and on any
    other process the method makes the same steps as there.

    Facts:
        Order p on grids that are even in the clock; 1 evaluation per step (more in the first steps of p >= 3); keeps
        p - 1 estimates; no noise. The time of EDM's process is rho itself: there ``clock="time"`` is `RhoAB`, and a
        polynomial in it is far from the estimate of a network at 5 evaluations; ``clock="vp_time"`` is not.

    Differs from:
        the official code, which counts from r = p - 1 and starts with lower orders; diffusers' ``DEISMultistep``, which
        interpolates in :math:`\ln(\sigma/\alpha)`.

    Args:
        order: p = r + 1, 1 to 4; p = 1 is DDIM.
        start_up: ``"single"`` steps of order p - 1, or ``"published"``, with lower orders.
        lower_order_final: use lower orders in the last p - 1 steps.
        clock: ``"time"``, that of the process, or ``"vp_time"``.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> method = scoresde.solvers.TAB(order=2)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=10, shape=(4, 2), grid="time"
        ... ).evaluations
        10

    References:
        Zhang, Chen (2023), Fast Sampling of Diffusion Models with Exponential Integrator, eq. 14-16.
        https://arxiv.org/abs/2204.13902
    """

    clock: str = "time"

    reference: ClassVar[str] = "Zhang, Chen (2023), DEIS"
    coordinate: ClassVar[Coordinate] = TIME

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("clock", self.clock, CLOCKS)

    @property
    def stages(self) -> tuple[float, ...]:
        """See `Solver.stages`: the integrals in time need the process inside a step."""
        return GAUSS_NODES if self.clock == "time" else ()

    @property
    def predictor_nodes(self) -> int:
        """See `Multistep.predictor_nodes`."""
        return 0 if self.clock == "time" else self.memory

    def advance(self, process: Process, x: Tensor, stop: Node, history: History) -> Term:
        """See `Multistep.advance`."""
        if self.clock != "time":
            return super().advance(process, x, stop, history)
        start = history.nodes[0]
        h = stop.t - start.t
        inside = zip(process.nodes.between(start, stop, GAUSS_NODES, TIME), GAUSS_WEIGHTS, strict=True)
        rates = [0.5 * h * w * n.g2 / (n.sigma * n.alpha) for n, w in inside]
        moments = [
            sum(rate * c**k for rate, c in zip(rates, GAUSS_NODES, strict=True)) for k in range(len(history.nodes))
        ]
        weights = interpolation_weights(positions([n.t for n in history.nodes], start.t, h), moments)
        return combination(stop.alpha / start.alpha, x, stop.alpha, weights, history.values)

    def coefficients(self, start: Node, stop: Node, nodes: Sequence[Node], eta: float) -> StepRow:
        """See `Multistep.coefficients`; for ``clock="vp_time"``."""
        now = _vp_time(start)
        h = _vp_time(stop) - now
        rates = [h * w * _rho_rate(now + c * h) for c, w in zip(GAUSS_NODES, GAUSS_WEIGHTS, strict=True)]
        moments = [sum(rate * c**k for rate, c in zip(rates, GAUSS_NODES, strict=True)) for k in range(len(nodes))]
        weights = interpolation_weights(positions([_vp_time(n) for n in nodes], now, h), moments)
        return StepRow(stop.alpha / start.alpha, stop.alpha, weights, 0.0)


def _vp_time(node: Node) -> Scalar:
    """:math:`u = \\sqrt{\\ln(1+\\rho^2)}`."""
    return sqrt(log1p(exp(-2 * node.lam)))


def _rho_rate(u: Scalar) -> Scalar:
    """The derivative of rho by u."""
    return u * exp(u * u) / sqrt(expm1(u * u))


@dataclass(frozen=True)
class RhoAB(NoiseMultistep):
    r"""ρAB-DEIS: Adams-Bashforth in :math:`\rho = \sigma/\alpha`, where :math:`d(x/\alpha)/d\rho = \hat\varepsilon`.

    .. math:: x_t = \frac{\alpha_t}{\alpha_s}x_s + \alpha_t(\rho_t-\rho_s)\sum_{j<p}\omega_j\hat\varepsilon_{-j},

    with the weights of Adams-Bashforth for uneven steps.

    Facts:
        Order p; 1 evaluation per step (more in the first steps of p >= 3); keeps p - 1 estimates; no noise. It is
        k-diffusion's ``sample_lms``.

    Differs from:
        the official code and k-diffusion, which start with lower orders.

    Args:
        order: p = r + 1, 1 to 4; p = 1 is DDIM.
        start_up: ``"single"`` steps of order p - 1, or ``"published"``, with lower orders.
        lower_order_final: use lower orders in the last p - 1 steps.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.EDMSDE()
        >>> method = scoresde.solvers.RhoAB(order=2)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=10, shape=(4, 2), grid="karras"
        ... ).evaluations
        10

    References:
        Zhang, Chen (2023), DEIS, section 3.3. https://arxiv.org/abs/2204.13902
    """

    reference: ClassVar[str] = "Zhang, Chen (2023), DEIS"

    def coefficients(self, start: Node, stop: Node, nodes: Sequence[Node], eta: float) -> StepRow:
        """See `Multistep.coefficients`."""
        now = RHO.clock(start)
        h = RHO.clock(stop) - now
        weights = adams_weights(positions([RHO.clock(n) for n in nodes], now, h), 0.0)
        return StepRow(stop.alpha / start.alpha, stop.alpha * h, weights, 0.0)
