"""Adaptive exponential Adams methods: the step and the order of every sample follow its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .._tensors import check_integer, expand, power
from ..noise import Noise
from ..processes import LOG_SNR, Coordinate, Process
from ..sdes import Node
from .base import Estimates, Solver, StepResult
from .exponential import check_prediction, frame, moments, read

_CAUTION = 4.0  # the estimate belongs to the corrector of one order less; this brings errors near the tolerance
_FAR = 12.0  # stands for an infinite log-SNR


class AdamsState(NamedTuple):
    """Per sample, newest first: where the estimates in memory were made, the estimates, how many there are; and of the
    last step its size and the error norms of all orders."""

    lams: Tensor
    values: Tensor
    known: Tensor
    h: Tensor
    norms: Tensor


@dataclass(frozen=True)
class Adams(Solver):
    r"""An adaptive exponential Adams predictor-corrector for the probability flow, of variable step and order.

    Between nodes of :math:`\lambda = \ln(\alpha/\sigma)` the linear part is exact, and the data estimate is a
    polynomial through the last q estimates (predictor), and through the new one as well (corrector),

    .. math::
        x_t = \frac{\sigma_t}{\sigma_s}x_s + \alpha_t h\int_0^1 e^{-(1-\tau)h}P(\tau)\,d\tau, \qquad
        P_{q+1}(\tau) = P_q(\tau) + \frac{m_t - P_q(1)}{\prod_{i<q}(1-r_i)}\prod_{i<q}(\tau-r_i),

    with :math:`m_t` evaluated once at the predicted state, at which it stays in the memory (PEC): a step, accepted or
    not, costs one evaluation. The difference to the corrector of one order less estimates the error. From the same
    evaluation come the errors that other orders would have had; the next step takes the order with the smallest, so
    that a rough network, for which they do not fall, is stepped with a low order.

    Facts:
        Order q + 1 for q up to ``max_order``; 1 evaluation a trial step and one before the first; every sample has its
        own time, step, order and memory. Starts with order 1.

    Differs from:
        Adams codes as torchdiffeq's, which step the whole drift of a batch; deis and UniPC, whose steps are given.

    Args:
        max_order: of the predictor, 1 to 8.
        prediction: ``"data"`` or ``"noise"``, what is integrated.

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

    max_order: int = 5
    prediction: str = "data"

    name: ClassVar[str] = "adams"
    kind: ClassVar[str] = "ode"
    adaptive: ClassVar[bool] = True
    coordinate: ClassVar[Coordinate] = LOG_SNR
    growth: ClassVar[float] = 2.5
    safety: ClassVar[float] = 0.75
    reference: ClassVar[str] = "Hairer, Norsett, Wanner (1993), III.7; Hochbruck, Ostermann (2010)"

    def __post_init__(self) -> None:
        check_integer("max_order", self.max_order, low=1, high=8)
        check_prediction(self.prediction)

    @property
    def ode_order(self) -> int:
        """Of the corrector at the highest order."""
        return self.max_order + 1

    @property
    def noise_limit(self) -> bool:
        """In the data's frame."""
        return self.prediction == "data"

    @property
    def data_limit(self) -> bool:
        """In the noise's frame."""
        return self.prediction == "noise"

    def init(self, process: Process, x: Tensor, start: Node) -> AdamsState:
        """The estimate at the start."""
        value = read(process, x, start, self.prediction)
        unknown = value.new_zeros((len(x), self.max_order - 1, *x.shape[1:]))
        lams = _lam(start)[:, None] - torch.arange(self.max_order, dtype=torch.float64, device=x.device)
        one = torch.ones_like(lams[:, 0])
        norms = torch.full_like(lams, torch.inf)
        norms[:, 0] = 1.0
        return AdamsState(lams, torch.cat([value[:, None], unknown], dim=1), one.long(), one, norms)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """See `Solver.step`."""
        part = frame(self.prediction, start._replace(lam=_lam(start)), stop._replace(lam=_lam(stop)))
        orders = torch.arange(1, self.max_order + 1, device=x.device)
        known = orders <= state.known[:, None]
        r = torch.where(known, (state.lams - _lam(start)[:, None]) / part.h[:, None], -1.0 - orders)
        newton = _newton(r, part.z)
        length = (part.gain * part.h)[:, None]
        # the order less 1 whose error, seen from the last step, is the smallest for this one
        used = (state.norms * power((part.h / state.h).abs()[:, None], orders + 1)).argmin(1)
        degree = torch.where(orders <= used[:, None] + 1, newton.integrals[:, :-1], 0.0)
        weights = (degree[:, None] @ newton.differences)[:, 0]
        predicted = expand(part.keep, x) * x + _times((length * weights)[:, None], state.values)[:, 0]

        value = read(process, predicted, stop, self.prediction)
        continued = (newton.reach[:, :-1, None] * newton.differences).cumsum(1)  # P_q(1) for all q
        missed = value[:, None] - _times(continued, state.values)
        share = length / newton.reach[:, 1:]
        rows = torch.arange(len(x), device=x.device)
        gain = (share * newton.integrals[:, 1:])[rows, used]
        moved = predicted + expand(gain, x) * missed[rows, used]

        errors = missed * _against(_CAUTION * share * newton.backward, missed)
        usable = known & (orders <= used[:, None] + 2)
        size = errors.detach().flatten(2).to(torch.float64).square().mean(2).sqrt()
        norms = torch.where(usable, size, torch.inf)
        lams = torch.cat([_lam(stop)[:, None], state.lams[:, :-1]], dim=1)
        values = torch.cat([value[:, None], state.values[:, :-1]], dim=1)
        after = AdamsState(lams, values, (state.known + 1).clamp_max(self.max_order), part.h, norms)
        return StepResult(
            moved, after, Estimates(errors, orders + 1.0, used, usable), state._replace(h=part.h, norms=norms)
        )


class Newton(NamedTuple):
    r"""Newton's form of interpolation at nodes :math:`r_0, \ldots, r_{k-1}` in units of the step.

    Fields: the matrix of divided differences ``(batch, k, k)``; ``reach`` :math:`N_m = \prod_{i<m}(1-r_i)` and
    ``integrals`` :math:`\int_0^1 e^{(1-\tau)z}\prod_{i<m}(\tau-r_i)\,d\tau`, m = 0 … k; ``backward``
    :math:`\int_0^1 e^{(1-\tau)z}(\tau-1)\prod_{i<m-1}(\tau-r_i)\,d\tau`, m = 1 … k.
    """

    differences: Tensor
    reach: Tensor
    integrals: Tensor
    backward: Tensor


def _newton(r: Tensor, z: Tensor) -> Newton:
    k = r.shape[1]
    gaps = r[:, :, None] - r[:, None, :] + torch.eye(k, dtype=r.dtype, device=r.device)
    differences = (1 / gaps).cumprod(2).mT.tril()
    one = torch.ones_like(r[:, :1])
    reach = torch.cat([one, (1 - r).cumprod(1)], dim=1)
    powers = torch.stack(moments(k + 1, z), dim=1)
    basis = torch.nn.functional.pad(one, (0, k))  # coefficients of the product, lowest power first
    integrals, backward = [basis], []
    for i in range(k):
        shifted = torch.nn.functional.pad(basis[:, :-1], (1, 0))
        backward.append(shifted - basis)
        basis = shifted - r[:, i : i + 1] * basis
        integrals.append(basis)
    integrate = lambda polynomials: (torch.stack(polynomials, 1) @ powers[:, :, None])[:, :, 0]  # noqa: E731
    return Newton(differences, reach, integrate(integrals), integrate(backward))


def _lam(node: Node) -> Tensor:
    """The node's log-SNR (its half), finite."""
    return torch.nan_to_num(node.lam, nan=torch.nan, posinf=_FAR, neginf=-_FAR)


def _times(matrix: Tensor, values: Tensor) -> Tensor:
    """A matrix ``(batch, m, k)`` times values ``(batch, k, *event)``."""
    out = matrix.to(values.dtype) @ values.flatten(2)
    return out.reshape(*out.shape[:2], *values.shape[2:])


def _against(factors: Tensor, like: Tensor) -> Tensor:
    """Factors ``(batch, k)``, to multiply with ``(batch, k, *event)``."""
    return factors.to(like.dtype).reshape(*factors.shape, *(1,) * (like.ndim - 2))
