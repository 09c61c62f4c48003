"""Adaptive Adams methods: the step and the order of every sample follow its error."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.processes import Coordinate, Process, angle
from ..core.sdes.records import either
from ..core.support.checks import check_integer, check_number
from ..core.support.tensors import Array, as_array, constants, expand, on_host, rms, where
from .base import Asking, Estimates, EstimateSolver, Node, Step, StepControl, StepResult

_SPREAD = 0.2  # of data of scale 1
_POWERS = 12  # of ten: data of a smaller scale are points
_CAUTION = 2.0  # the estimate belongs to the corrector of one order less; this brings errors near the tolerance
_STILL = 1e-14  # a step of this length has none
_CLOSE = 1e-6  # in units of the last step: a very short step, as at times to save at
_FAR = 12.0  # the log-SNR (its half) that stands for an infinite one
_ELSEWHERE = 16.0  # no two angles are that far apart
_TINY = 1e-300
_MOMENTS = np.array([1 / ((n + 1) * (n + 2)) for n in range(8)])  # of 1 - u


class AdamsState(NamedTuple):
    """Per sample, newest first: the angles at which the kept derivatives were evaluated, their differences, how many
    there are; of the last step its size and the error norms of all orders; and the scale of the state at its end. All
    but the differences are NumPy arrays, or tensors where a schedule has a gradient."""

    clocks: Array
    values: Tensor
    known: np.ndarray
    h: np.ndarray
    norms: np.ndarray
    scale: Array


@dataclass(frozen=True)
class Adams(EstimateSolver):
    r"""An adaptive Adams predictor-corrector for the probability flow, of variable step and order.

    It steps :math:`y = x/\sqrt{\sigma^2 + s^2\alpha^2}` in the angle :math:`\varphi`, :math:`\tan\varphi =
    \sigma/(s\alpha)`, where :math:`dy/d\varphi = \cos\varphi\,\hat\varepsilon - \sin\varphi\,\hat x/s` has no linear
    part and is tame at both ends. It is a polynomial through the last q values (predictor), and through the new one as
    well (corrector); for a step from :math:`\tau` = 0 to 1,

    .. math::
        y_t = y_s + h\int_0^1 P(\tau)\,d\tau, \qquad
        P_{q+1}(\tau) = P_q(\tau) + \frac{f_t - P_q(1)}{\prod_{i<q}(1-r_i)}\prod_{i<q}(\tau-r_i),

    with :math:`f_t` evaluated once at the predicted state, where it is kept (PEC): a step, accepted or
    not, costs one evaluation. The difference to the corrector of one order less estimates the error. From the same
    evaluation come the errors that other orders would have had; the next step takes the order with the smallest, so
    that a rough network, for which they do not fall, is stepped with a low order. There a small tolerance takes many
    steps, whose errors add up like random numbers; step n > 16 may therefore err by :math:`\sqrt{16/n}` of the
    tolerance, so that the error of the result follows it.

    Facts:
        Order q + 1 for q up to ``max_order``; 1 evaluation per trial step and one before the first; every sample has
        its own time, step, order and solver state. Starts with order 1.

    Differs from:
        Adams codes such as torchdiffeq's, which step the whole drift of a batch in time; DEIS and UniPC, whose steps
        are given and which integrate the noise or the data estimate (s large or small).

    Args:
        max_order: of the predictor, 1 to 8.
        spread: s, in units of the data; a size between that of their finest details and their standard deviation. None
            is 0.2 times the power of ten that is nearest to the data's standard deviation, where the score function
            declares it (``data_std`` of its traits: that of a target, of a `ScoreModel` with an EDM prediction, or one
            that you set). Where it is not known it is 0.2, which suits data of scale 1; for others give it, or errors
            are larger than the tolerance: tens of times with data of scale 1e-3.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([1.0, 0.01]))
        >>> sde = scoresde.VPSDE()
        >>> x = torch.ones(3, 2, dtype=torch.float64)
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), x, method="adams", rtol=1e-4, atol=1e-4
        ... )
        >>> error = (solution.x - target.flow_map(x, sde, sde.t_max, sde.t_min)).abs().max()
        >>> bool(error < 1e-3), bool((solution.nfe < 40).all())
        (True, True)

    References:
        Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, III.5 and III.7.
        Hochbruck, Ostermann (2010), Exponential integrators, section 2.5.
    """

    max_order: int = 6
    spread: float | None = None

    keeps_estimates: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True
    extra_evaluations: ClassVar[int] = 1
    control: ClassVar[StepControl] = StepControl(growth=4.0, safety=0.68, many=16.0)
    reference: ClassVar[str] = "Hairer, Norsett, Wanner (1993), III.7"

    def __post_init__(self) -> None:
        check_integer("max_order", self.max_order, low=1, high=8)
        if self.spread is not None:
            check_number("spread", self.spread, low=0.0, strict=True)

    @property
    def ode_order(self) -> int:
        """The order of the corrector at the highest order."""
        return self.max_order + 1

    @property
    def coordinate(self) -> Coordinate:
        """The angle."""
        return angle(self._s)

    @property
    def _s(self) -> float:
        return _SPREAD if self.spread is None else self.spread

    def for_data(self, std: float) -> Adams:
        """With a spread of the data's order of magnitude, unless one is given."""
        if self.spread is not None:
            return self
        power = min(max(round(math.log10(std)), -_POWERS), _POWERS)
        return replace(self, spread=_SPREAD * 10.0**power)

    def init(self, process: Process, x: Tensor, start: Node[Tensor]) -> Asking[AdamsState]:
        """The derivative at the start."""
        value = yield process.slope(self.coordinate, x, start)
        now, size, _ = self._place(start)
        clocks = now[:, None] + _ELSEWHERE * _like(np.arange(self.max_order), now)  # of what is not known: not here
        values = torch.cat([value[:, None], value.new_zeros((len(x), self.max_order - 1, *x.shape[1:]))], dim=1)
        norms = np.full((len(x), self.max_order), np.inf)
        norms[:, 0] = 1.0
        return AdamsState(clocks, values, np.ones(len(x), dtype=np.int64), np.ones(len(x)), norms, size)

    def step(self, process: Process, x: Tensor, start: Node[Tensor], stop: Node[Tensor], state: AdamsState) -> Step:
        """See `Solver.step`. One that ends without noise goes to a little, and takes the data estimate from there."""
        # the end of the step
        then, size, sigma = self._place(stop)
        ended, end = as_array(sigma) == 0, stop
        some = np.count_nonzero(ended) > 0
        if some:
            near = process.nodes.at((start.lam + 1).clamp_min(_FAR))
            stop = either(torch.from_numpy(ended), near, stop)
            then, size, _ = self._place(stop)
        way = then - state.clocks[:, 0]
        h = as_array(way)

        # choose the order less 1 whose error, seen from the last step, is the smallest for this one
        orders, rows = np.arange(1, self.max_order + 1)[:, None], np.arange(len(x))  # orders come first here
        shrunk = np.maximum(np.abs(h) / np.maximum(np.abs(state.h), _TINY), _TINY)
        used = (np.log(state.norms.T) + (orders + 1) * np.log(shrunk)).argmin(0)

        # predict, by the integral of the polynomial through the last values
        growth, integrals = _coefficients(state.clocks, then)
        lengths = size * way * integrals
        terms = expand(growth.T, state.values) * state.values
        part = expand((lengths[:-1] * _like(orders <= used + 1, lengths)).T, terms)
        added = functools.reduce(torch.add, (part * terms).unbind(1))  # a sum's order depends on the place in a tensor
        predicted = expand(size / state.scale, x) * x + added

        # evaluate: what P_q(1) missed, q = 0 ... max_order, are the differences at the next step
        value = yield process.slope(self.coordinate, predicted, stop)
        missed = torch.stack([*itertools.accumulate(terms.unbind(1), torch.sub, initial=value)], dim=1)

        # correct, by the term that goes through the new value
        place = torch.from_numpy(rows * (self.max_order + 1) + used + 1).to(x.device)
        gain = expand(lengths[used + 1, rows], x)
        moved = torch.addcmul(predicted, gain, missed.flatten(0, 1).index_select(0, place))
        if some:
            moved = where(ended, self._clean(predicted, value, stop, end), moved)

        # the errors that all orders had
        factors = _CAUTION * np.abs(as_array(lengths[1:] - lengths[:-1])).T
        usable = ((orders <= state.known) & (orders <= used + 2)).T
        norms = np.where(usable, np.maximum(factors * on_host(rms(missed[:, 1:], 2))[0], _TINY), np.inf)
        estimates = Estimates(missed[:, 1:], orders[:, 0] + 1.0, used, usable, factors)

        # the memory, of an accepted step and of a rejected one
        clocks = _joined((then[:, None], state.clocks[:, :-1]))
        after = AdamsState(clocks, missed[:, :-1], np.minimum(state.known + 1, self.max_order), h, norms, size)
        close = (np.abs(h) < _STILL) | ((state.known > 1) & (shrunk < _CLOSE))
        if np.count_nonzero(close):  # differences need nodes apart: the new one takes the place of the last
            after = where(close, _replaced(state, then, missed)._replace(scale=size), after)
        return StepResult(moved, after, estimates, state._replace(h=h, norms=norms))

    def _clean(self, predicted: Tensor, value: Tensor, stop: Node[Tensor], end: Node[Tensor]) -> Tensor:
        r"""The state where the noise ends, by the data estimate at a state a little before: with :math:`y =
        \cos\varphi\,x/s + \sin\varphi\,\hat\varepsilon` the derivative has the other combination."""
        unit = self.coordinate.scale(stop)
        clean = expand(self._s**2 * stop.alpha / unit**2, predicted) * predicted
        clean = clean - expand(self._s * stop.sigma / unit, predicted) * value
        return expand(end.alpha, predicted) * clean

    def _place(self, node: Node[Tensor]) -> list[Array]:
        """The angle, the scale of the state, and sigma."""
        return constants(self.coordinate.clock(node), self.coordinate.scale(node), node.sigma)


def _coefficients(clocks: Array, then: Array) -> tuple[Array, Array]:
    r"""The coefficients of a step from the first of the clocks :math:`c_0, \ldots, c_{k-1}` to t.

    Differences are kept as :math:`\delta_m = f[c_0, \ldots, c_m]\prod_{1\le i\le m}(c_0-c_i)`, which is what
    the polynomial through :math:`c_1, \ldots, c_m` missed at :math:`c_0`. Then with :math:`u = 1-\tau`

    .. math::
        P_q(\tau) = \sum_{m<q}\beta_m\delta_m\prod_{i<m}(1-\rho_iu), \qquad
        \beta_m = \prod_{1\le i\le m}\frac{t-c_{i-1}}{c_0-c_i}, \qquad \rho_i = \frac{t-c_0}{t-c_i}.

    Returns:
        :math:`\beta_m`, ``(k, batch)``, and :math:`\int_0^1\prod_{i<m}(1-\rho_iu)\,du`, ``(k + 1, batch)``, the
        latter by the moments :math:`\int u^n\prod_{i<m}(1-\rho_iu)\,du`, each of which follows from two before.
    """
    c = clocks.T.copy() if isinstance(clocks, np.ndarray) else clocks.T
    ahead = then - c
    one = _like(np.ones(len(then)), then)
    growth = _joined((one[None], ahead[:-1] / (c[0] - c[1:])), 0).cumprod(0)
    moments = _like(_MOMENTS[: len(c), None], ahead)  # with the first factor, which is 1 - u
    integrals: list[Any] = [one, 0.5 * one]
    for distance in ahead[1:]:
        moments = moments[:-1] - ahead[0] / distance * moments[1:]
        integrals.append(moments[0])
    return growth, torch.stack(integrals) if isinstance(one, Tensor) else np.array(integrals)


def _replaced(state: AdamsState, then: Array, missed: Tensor) -> AdamsState:
    """The state with its newest node elsewhere: :math:`P_{m+1}` without its last term has not seen the old one."""
    apart = (then[:, None] - state.clocks[:, 1:]) / (state.clocks[:, :1] - state.clocks[:, 1:])
    kept = _joined((_like(np.ones((len(then), 1)), then), apart)).cumprod(1)
    clocks = _joined((then[:, None], state.clocks[:, 1:]))
    return state._replace(clocks=clocks, values=missed[:, 1:] + expand(kept, missed) * state.values)


def _like(array: np.ndarray, like: Array) -> Array:
    """An array, or the tensor where there is a gradient."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device) if isinstance(like, Tensor) else array


def _joined(parts: Sequence[Any], axis: int = 1) -> Array:
    """Side by side."""
    return torch.cat(list(parts), axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)
