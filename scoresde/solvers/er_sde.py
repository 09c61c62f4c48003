r"""ER-SDE: exponential methods for reverse SDEs with a noise scale of your own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.processes import RHO, Process
from ..core.support.checks import check_callable, check_integer
from ..core.support.combination import Term, combination, with_noise
from ..core.support.tensors import Scalar, at_most, exp, log
from .ancestral import Ancestral
from .base import Node, SDESolver, Step, StepResult
from .families.exponential import GAUSS_NODES, GAUSS_WEIGHTS, History, endless, interpolation_weights, positions
from .families.multistep import Multistep
from .registry.variants import variants

__getattr__ = variants(__name__)  # the public names of rows

_ROUNDING = 1e-12
_LARGEST = 600.0  # exp of it is finite; there, rho is 1.8e9, and nothing is left of the data or of the noise before


def published_scale(rho: Scalar) -> Scalar:
    r"""ER-SDE's choice, :math:`\phi(\rho) = \rho\,(e^{\rho^{0.3}} + 10)`.

    Example:
        >>> round(published_scale(1.0), 4)
        12.7183
    """
    return rho * (exp(at_most(rho**0.3, _LARGEST)) + 10)


@dataclass(frozen=True)
class ERSDE(SDESolver, Multistep):
    r"""ER-SDE of order p: the data estimate interpolated in :math:`\rho = \sigma/\alpha`, noise by a scale
    :math:`\phi`.

    .. math::
        \frac{x_t}{\alpha_t} = \frac{\phi_t}{\phi_s}\frac{x_s}{\alpha_s} + \int_{\rho_t}^{\rho_s}
            \frac{\phi_t\,\phi'(\rho)}{\phi(\rho)^2}\,\hat x(\rho)\,d\rho + \sqrt{\rho_t^2 -
            \rho_s^2\frac{\phi_t^2}{\phi_s^2}}\,z.

    :math:`\phi = \rho` is the probability flow, :math:`\phi = \rho^2` the reverse SDE, :math:`\phi =
    \rho^{1+\eta^2}` the one with stochasticity :math:`\eta`. The integrals are taken by 16 Gauss nodes in
    :math:`\ln\rho`.

    Facts:
        Weak order min(p, 2), strong order 1; 1 evaluation per step; keeps p - 1 estimates.

    Differs from:
        the official code, which integrates by a Riemann sum of 100 points.

    Args:
        order: p, 1 to 3.
        scale: :math:`\phi`, an increasing function with :math:`\phi(\rho)/\rho` not decreasing.
        lower_order_final: use lower orders in the last p - 1 steps.

    Raises:
        InvalidArgumentError: :math:`\phi(\rho)/\rho` decreases.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="er_sde3", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        20

    References:
        Cui et al. (2023), Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models.
        https://arxiv.org/abs/2309.06169
    """

    order: int = 3
    scale: Callable[[Scalar], Scalar] = published_scale
    lower_order_final: bool = False

    prediction: ClassVar[str] = "data"
    start_up: ClassVar[str] = "published"
    strong_order: ClassVar[float] = 1.0
    gaussian_step: ClassVar[bool] = True
    predictor_nodes: ClassVar[int] = 0
    reference: ClassVar[str] = "Cui et al. (2023), ER-SDE"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("order", self.order, low=1, high=3)
        check_callable("scale", self.scale, "scale(rho)")

    def follows(self, eta: float) -> float | None:
        """None: its process has the noise of its ``scale``."""
        return None

    @property
    def weak_order(self) -> int:
        """2 at most."""
        return min(self.order, 2)

    @property
    def keeps_estimates(self) -> bool:
        """True from order 2 on."""
        return self.order > 1

    def _kept(self, start: Node, stop: Node) -> Scalar:
        r""":math:`\phi_t/\phi_s`."""
        return self.scale(RHO.clock(stop)) / self.scale(RHO.clock(start))

    def _share(self, start: Node, stop: Node) -> Scalar:
        r"""Of the noise :math:`\rho_t`, what is left of that before; 1 for the probability flow."""
        return self._kept(start, stop) * exp(stop.lam - start.lam)

    def _drawn(self, start: Node, stop: Node) -> Scalar:
        """The share of the noise's variance that is drawn; none where it is positive only by rounding."""
        share = self._share(start, stop)
        return (1 - share) * (1 + share) * (share < 1 - _ROUNDING)

    @torch.no_grad()
    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """See `Solver.prepare`."""
        for rho in [float(RHO.clock(node)) for node in nodes if not endless(node, node)]:
            try:
                value = float(self.scale(rho))
            except (ArithmeticError, TypeError, ValueError) as error:
                raise InvalidArgumentError(f"`scale` has no value at rho = {rho:.4g}: {error}") from error
            if not 0.0 < value < math.inf:
                raise InvalidArgumentError(f"`scale` must be positive and finite, got {value:g} at rho = {rho:.4g}.")
        for a, b in itertools.pairwise(nodes):
            share = 0.0 if endless(a, b) else float(self._share(a, b))
            if not share <= 1 + 1e-9:
                raise InvalidArgumentError(
                    f"`scale` must rise at least as fast as rho; from rho = {float(RHO.clock(a)):.4g} to "
                    f"{float(RHO.clock(b)):.4g} scale(rho)/rho grows by {share:.4g}."
                )

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: History) -> Step:
        """See `Solver.step`."""
        if endless(start, stop):
            result = yield from Ancestral().step(process, x, start, stop, state)
            return result._replace(state=state)
        history, estimate = yield from self.look(process, x, start, state)
        moved, _ = yield from self.predict(process, x, start, stop, history, estimate)
        spread = stop.sigma * self._drawn(start, stop) ** 0.5
        return StepResult(with_noise(moved, x, [(spread, (yield process.increment(start.t, stop.t, x)))]), history)

    def advance(self, process: Process, x: Tensor, stop: Node, history: History) -> Term:
        """See `Multistep.advance`."""
        start = history.nodes[0]
        kept = self._kept(start, stop)
        now, then = RHO.clock(start), RHO.clock(stop)
        r = positions([RHO.clock(n) for n in history.nodes], now, then - now)
        weights = interpolation_weights(r, self._moments(now, then, len(r)))
        return combination(stop.alpha / start.alpha * kept, x, stop.alpha, weights, history.values)

    def _moments(self, now: Scalar, then: Scalar, count: int) -> list[Scalar]:
        r""":math:`\int \phi_t\phi'/\phi^2\,\tau^k\,d\rho` with :math:`\tau` the fraction of the step: by parts, with
        :math:`I_k = \int_0^1 \tau^{k-1}\phi_t/\phi\,d\tau`, it is :math:`1-\phi_t/\phi_s` for k = 0 and
        :math:`1 - k I_k` after."""
        end = self.scale(then)
        moments = [1 - end / self.scale(now)]
        nodes = []  # (tau, phi_t/phi, dtau), even in ln(rho), where the integrand is smooth
        for c, w in zip(GAUSS_NODES, GAUSS_WEIGHTS, strict=True):
            rho = now * (then / now) ** c
            nodes.append(((rho - now) / (then - now), end / self.scale(rho), w * rho * log(then / now) / (then - now)))
        for k in range(1, count):
            moments.append(1 - k * sum(tau ** (k - 1) * value * width for tau, value, width in nodes))
        return moments
