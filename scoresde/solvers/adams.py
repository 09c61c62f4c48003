"""Adaptive Adams methods: the step and the order of every sample follow its error."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._tensors import check_integer, check_number, expand, where
from ..noise import Noise
from ..processes import Coordinate, Process, angle
from ..sdes import Node
from .base import Estimates, Solver, StepResult

_CAUTION = 2.0  # the estimate belongs to the corrector of one order less; this brings errors near the tolerance
_STILL = 1e-14  # a step of this length has none
_CLOSE = 1e-6  # in units of the last step, a sliver, as at times to save at
_FAR = 12.0  # the log-SNR (its half) that stands for an infinite one


class AdamsState(NamedTuple):
    """Per sample, newest first: the angles at which the derivatives in memory were made, the derivatives, how many
    there are; of the last step its size and the error norms of all orders; and the scale of the state at its end."""

    clocks: Tensor
    values: Tensor
    known: Tensor
    h: Tensor
    norms: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Adams(Solver):
    r"""An adaptive Adams predictor-corrector for the probability flow, of variable step and order.

    It steps :math:`y = x/\sqrt{\sigma^2 + s^2\alpha^2}` in the angle :math:`\varphi`, :math:`\tan\varphi =
    \sigma/(s\alpha)`, where :math:`dy/d\varphi = \cos\varphi\,\hat\varepsilon - \sin\varphi\,\hat x/s` has no linear
    part and is tame at both ends. It is a polynomial through the last q values (predictor), and through the new one as
    well (corrector); for a step from :math:`\tau` = 0 to 1,

    .. math::
        y_t = y_s + h\int_0^1 P(\tau)\,d\tau, \qquad
        P_{q+1}(\tau) = P_q(\tau) + \frac{f_t - P_q(1)}{\prod_{i<q}(1-r_i)}\prod_{i<q}(\tau-r_i),

    with :math:`f_t` evaluated once at the predicted state, at which it stays in the memory (PEC): a step, accepted or
    not, costs one evaluation. The difference to the corrector of one order less estimates the error. From the same
    evaluation come the errors that other orders would have had; the next step takes the order with the smallest, so
    that a rough network, for which they do not fall, is stepped with a low order.

    Facts:
        Order q + 1 for q up to ``max_order``; 1 evaluation a trial step and one before the first; every sample has its
        own time, step, order and memory. Starts with order 1.

    Differs from:
        Adams codes as torchdiffeq's, which step the whole drift of a batch in time; deis and UniPC, whose steps are
        given, and which integrate the noise or the data estimate (s large or small).

    Args:
        max_order: of the predictor, 1 to 8.
        spread: s, in units of the data; a size between that of their finest details and their standard deviation.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([1.0, 0.01]))
        >>> sde = scoresde.VPSDE()
        >>> x = torch.ones(3, 2, dtype=torch.float64)
        >>> solution = scoresde.solve(sde, target.score(sde), x, method="adams", rtol=1e-4, atol=1e-4)
        >>> error = (solution.x - target.flow_map(x, sde, sde.t_max, sde.t_min)).abs().max()
        >>> bool(error < 1e-3), bool((solution.nfe < 40).all())
        (True, True)

    References:
        Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, III.5 and III.7.
        Hochbruck, Ostermann (2010), Exponential integrators, section 2.5.
    """

    max_order: int = 6
    spread: float = 0.2

    name: ClassVar[str] = "adams"
    kind: ClassVar[str] = "ode"
    adaptive: ClassVar[bool] = True
    extra_evaluations: ClassVar[int] = 1
    noise_limit: ClassVar[bool] = True
    data_limit: ClassVar[bool] = True
    growth: ClassVar[float] = 4.0
    safety: ClassVar[float] = 0.65
    reference: ClassVar[str] = "Hairer, Norsett, Wanner (1993), III.7"

    def __post_init__(self) -> None:
        check_integer("max_order", self.max_order, low=1, high=8)
        check_number("spread", self.spread, low=0.0, strict=True)

    @property
    def ode_order(self) -> int:
        """Of the corrector at the highest order."""
        return self.max_order + 1

    @property
    def coordinate(self) -> Coordinate:
        """The angle."""
        return angle(self.spread)

    def init(self, process: Process, x: Tensor, start: Node) -> AdamsState:
        """The derivative at the start."""
        value = process.slope(self.coordinate, x, start)
        unknown = value.new_zeros((len(x), self.max_order - 1, *x.shape[1:]))
        clocks = self.coordinate.clock(start)[:, None].repeat(
            1, self.max_order
        )  # those of what is not known do not count
        one = torch.ones_like(clocks[:, 0].detach())
        norms = torch.full_like(clocks.detach(), torch.inf)
        norms[:, 0] = 1.0
        values = torch.cat([value[:, None], unknown], dim=1)
        return AdamsState(clocks, values, one.long(), one, norms, self.coordinate.scale(start))

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """See `Solver.step`. One that ends without noise goes to a little, and takes the data estimate from there."""
        ended, end = stop.sigma == 0, stop
        some = bool(ended.any())
        if some:
            near = process.at((start.lam + 1).clamp_min(_FAR))
            stop = Node(*(torch.where(ended, a, b) for a, b in zip(near, stop, strict=True)))
        now, then = state.clocks[:, :1], self.coordinate.clock(stop)
        size, h = self.coordinate.scale(stop), then - now[:, 0]
        orders = torch.arange(1, self.max_order + 1, device=x.device)
        known = orders <= state.known[:, None]
        shrunk = (h / state.h).abs()
        still = h.abs() < _STILL
        close = still | ((state.known > 1) & (shrunk < _CLOSE))
        unit = torch.where(still, _STILL, h)[:, None]
        newton = _newton(torch.where(known, (state.clocks - now) / unit, -1.0 - orders))
        length = (size * h)[:, None]
        # the order less 1 whose error, seen from the last step, is the smallest for this one
        used = (torch.log(state.norms) + (orders + 1) * torch.log(shrunk)[:, None]).argmin(1)
        degree = torch.where(orders <= used[:, None] + 1, newton.integrals[:, :-1], 0.0)
        weights = length[:, None] * (degree[:, None] @ newton.differences)
        predicted = expand(size / state.scale, x) * x + _times(weights, state.values)[:, 0]

        value = process.slope(self.coordinate, predicted, stop)
        continued = (newton.reach[:, :-1, None] * newton.differences).cumsum(1)  # P_q(1) for all q
        missed = value[:, None] - _times(continued, state.values)
        share = length / newton.reach[:, 1:]
        rows = torch.arange(len(x), device=x.device)
        gain = (share * newton.integrals[:, 1:])[rows, used]
        moved = predicted + expand(gain, x) * missed[rows, used]
        if some:  # y = cos(phi) x / s + sin(phi) eps, and the derivative has the other combination
            cos, sin = (expand(v, x) for v in (torch.cos(then), torch.sin(then)))
            clean = self.spread * (cos * (predicted / expand(size, x)) - sin * value)
            moved = where(ended, expand(end.alpha, x) * clean, moved)

        errors = missed * _against(_CAUTION * share * newton.backward, missed)
        usable = known & (orders <= used[:, None] + 2)
        norms = errors.detach().flatten(2).to(torch.float64).square().mean(2).sqrt()
        norms = torch.where(usable, norms, torch.inf)
        clocks = torch.cat([then[:, None], state.clocks[:, :-1]], dim=1)
        values = torch.cat([value[:, None], state.values[:, :-1]], dim=1)
        after = AdamsState(clocks, values, (state.known + 1).clamp_max(self.max_order), h, norms, size)
        if bool(close.any()):  # divided differences need nodes apart
            instead = state._replace(
                clocks=torch.cat([then[:, None], state.clocks[:, 1:]], dim=1),
                values=torch.cat([value[:, None], state.values[:, 1:]], dim=1),
                scale=size,
            )
            after = where(close, instead, after)
        return StepResult(moved, after, Estimates(errors, orders + 1.0, used, usable), state._replace(h=h, norms=norms))


class Newton(NamedTuple):
    r"""Newton's form of interpolation at nodes :math:`r_0, \ldots, r_{k-1}` in units of the step.

    Fields: the matrix of divided differences ``(batch, k, k)``; ``reach`` :math:`N_m = \prod_{i<m}(1-r_i)` and
    ``integrals`` :math:`\int_0^1 \prod_{i<m}(\tau-r_i)\,d\tau`, m = 0 … k; ``backward``
    :math:`\int_0^1 (\tau-1)\prod_{i<m-1}(\tau-r_i)\,d\tau`, m = 1 … k.
    """

    differences: Tensor
    reach: Tensor
    integrals: Tensor
    backward: Tensor


def _newton(r: Tensor) -> Newton:
    k = r.shape[1]
    gaps = r[:, :, None] - r[:, None, :] + torch.eye(k, dtype=r.dtype, device=r.device)
    differences = (1 / gaps).cumprod(2).mT.tril()
    one = torch.ones_like(r[:, :1])
    reach = torch.cat([one, (1 - r).cumprod(1)], dim=1)
    at, weights = _gauss(k, r.device)
    products = (at - r[:, None, :]).cumprod(2)  # (batch, points, k)
    products = weights * torch.cat([torch.ones_like(products[:, :, :1]), products], dim=2)
    return Newton(differences, reach, products.sum(1), ((at - 1) * products[:, :, :-1]).sum(1))


@functools.cache
def _gauss(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss on [0, 1], ``(points, 1)``, exact for polynomials of degree k + 1."""
    at, weights = np.polynomial.legendre.leggauss(k // 2 + 1)
    return tuple(torch.tensor(v, device=device)[:, None] for v in (0.5 * (at + 1), 0.5 * weights))  # type: ignore[return-value]


def _times(matrix: Tensor, values: Tensor) -> Tensor:
    """A matrix ``(batch, m, k)`` times values ``(batch, k, *event)``."""
    out = matrix.to(values.dtype) @ values.flatten(2)
    return out.reshape(*out.shape[:2], *values.shape[2:])


def _against(factors: Tensor, like: Tensor) -> Tensor:
    """Factors ``(batch, k)``, to multiply with ``(batch, k, *event)``."""
    return factors.to(like.dtype).reshape(*factors.shape, *(1,) * (like.ndim - 2))
