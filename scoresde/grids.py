r"""Where a fixed-step solver puts its steps: pure functions ``grid(sde, t_start, t_end, steps) -> (steps + 1,)``,
float64.

Both ends are hit exactly, and both directions work. A function of yours, a tensor of times or a fitted `Grid` works
as well.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .core.errors import InvalidArgumentError, InvalidTypeError, short
from .core.support.checks import MOST_STEPS, check_choice, check_integer, check_number
from .core.support.checks import check_times as real_times
from .core.support.declared import Positive, Steps, called, checked, number
from .core.support.registries import GRIDS
from .core.support.tensors import Scalar

__all__ = [
    "GRIDS",
    "Angle",
    "Beta",
    "Grid",
    "GridFunction",
    "Levels",
    "SamplerGrid",
    "Shifted",
    "VPTime",
    "angle",
    "karras",
    "log_snr",
    "quadratic",
    "tangent",
    "time",
]


class Schedule(Protocol):
    """What grids use of a process: an `scoresde.AffineSDE`."""

    t_min: float
    t_max: float

    def log_snr(self, t: Scalar) -> Tensor: ...

    def time(self, log_snr: Scalar) -> Tensor: ...


GridFunction = Callable[[Any, float, float, int], Tensor]  # of a process, the ends and the number of steps
Power = Annotated[float, number(low=0.01, high=100.0)]
_BESIDE = 1e-9  # an end, as a share of the interval
_EVEN = 4.0


def _pinned(times: Tensor, t_start: float, t_end: float) -> Tensor:
    times[0], times[-1] = t_start, t_end
    return times


def _line(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def _grid(affine: bool) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Make a function check the arguments that all grids take; an affine one needs the process's log-SNR."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(function)
        def grid(sde: Any, t_start: float, t_end: float, steps: int, **options: float) -> Tensor:
            ends = (("t_start", t_start), ("t_end", t_end))
            if affine:
                if isinstance(sde, type) or not (getattr(sde, "affine", False) and hasattr(sde, "t_min")):
                    raise InvalidTypeError(
                        f"`sde` must be an affine process such as scoresde.VPSDE(), got {short(sde)}."
                    )
                first, last = (time_of(name, t, sde, t) for name, t in ends)
            else:
                first, last = (check_number(name, t, low=0.0) for name, t in ends)
            return function(sde, first, last, check_integer("steps", steps, low=1, high=MOST_STEPS), **options)

        grid.affine = affine  # type: ignore[attr-defined]
        return grid

    return decorate


@_grid(affine=False)
def time(sde: object, t_start: float, t_end: float, steps: int) -> Tensor:
    """Uniform in time.

    Example:
        >>> import scoresde
        >>> time(scoresde.VPSDE(), 1.0, 0.5, 2).tolist()
        [1.0, 0.75, 0.5]
    """
    return _pinned(_line(t_start, t_end, steps), t_start, t_end)


@_grid(affine=True)
def log_snr(sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
    """Uniform in the log-SNR, where the first-order exponential methods spread their error evenly.

    Example:
        >>> import scoresde
        >>> [round(t, 3) for t in log_snr(scoresde.EDMSDE(), 80.0, 0.002, 2).tolist()]
        [80.0, 0.4, 0.002]
    """
    ends = [float(sde.log_snr(t)) for t in (t_start, t_end)]
    _finite(ends, t_start, t_end, "log_snr")
    return _pinned(sde.time(_line(ends[0], ends[1], steps)).clone(), t_start, t_end)


@_grid(affine=True)
def karras(sde: Schedule, t_start: float, t_end: float, steps: int, exponent: float = 7.0) -> Tensor:
    r"""EDM's grid: uniform in :math:`\rho^{1/7}`, :math:`\rho = \sigma/\alpha`.

    Example:
        >>> import scoresde
        >>> [round(t, 3) for t in karras(scoresde.EDMSDE(), 80.0, 0.002, 2).tolist()]
        [80.0, 2.515, 0.002]

    References:
        Karras et al. (2022), eq. 5. https://arxiv.org/abs/2206.00364
    """
    exponent = check_number("exponent", exponent, low=0.1, high=1000.0)
    ends = [-float(sde.log_snr(t)) / 2 for t in (t_start, t_end)]  # ln(rho)
    _finite(ends, t_start, t_end, "karras")
    roots = _line(math.exp(ends[0] / exponent), math.exp(ends[1] / exponent), steps)
    return _pinned(sde.time(-2 * exponent * roots.log()).clone(), t_start, t_end)


@_grid(affine=False)
def quadratic(sde: object, t_start: float, t_end: float, steps: int) -> Tensor:
    """Uniform in the square root of time, DDIM's grid for CIFAR-10.

    Example:
        >>> import scoresde
        >>> quadratic(scoresde.VPSDE(), 1.0, 0.25, 2).tolist()
        [1.0, 0.5625, 0.25]
    """
    return _pinned(_line(t_start**0.5, t_end**0.5, steps) ** 2, t_start, t_end)


@_grid(affine=True)
def angle(sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
    r"""Uniform in the angle :math:`\arctan(\sigma/\alpha)`, nearly the time of the cosine schedule, for any process.

    Example:
        >>> import scoresde
        >>> [
        ...     round(t, 3)
        ...     for t in angle(scoresde.FlowSDE(t_min=0.0, t_max=1.0), 1.0, 0.0, 2).tolist()
        ... ]
        [1.0, 0.5, 0.0]
    """
    return _in_angle(sde, t_start, t_end, steps, scale=1.0, power=1.0)


@_grid(affine=True)
def tangent(sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
    r"""Uniform in :math:`u = \arctan\sqrt{\sigma/\alpha}`, so that :math:`\sigma/\alpha = \tan^2 u`.

    Where the log-SNR is infinite the steps beside the end have :math:`\sigma/\alpha`, or its inverse, in proportion to
    the square of their number: exponential methods keep their orders there, up to 4.

    Example:
        >>> import scoresde
        >>> [
        ...     round(t, 4)
        ...     for t in tangent(
        ...         scoresde.FlowSDE(t_min=0.0, t_max=1.0), 1.0, 0.0, 4
        ...     ).tolist()
        ... ]
        [1.0, 0.8536, 0.5, 0.1464, 0.0]
    """
    return _in_angle(sde, t_start, t_end, steps, scale=1.0, power=0.5)


@_grid(affine=True)
def _in_angle(sde: Schedule, t_start: float, t_end: float, steps: int, *, scale: float, power: float) -> Tensor:
    """Uniform in the arc tangent of (rho/scale)^power."""
    ends = [math.atan(math.exp(-power * (0.5 * float(sde.log_snr(t)) + math.log(scale)))) for t in (t_start, t_end)]
    inner = _line(ends[0], ends[1], steps)[1:-1]
    times = sde.time(-2 / power * inner.tan().log() - 2 * math.log(scale))
    return torch.cat([torch.tensor([t_start], dtype=torch.float64), times, torch.tensor([t_end], dtype=torch.float64)])


@_grid(affine=True)
def _in_vp_time(sde: Schedule, t_start: float, t_end: float, steps: int, *, scale: float, power: float) -> Tensor:
    """Uniform in ln(1 + (rho/scale)^2)^power."""
    ends = [-float(sde.log_snr(t)) - 2 * math.log(scale) for t in (t_start, t_end)]  # ln(rho^2/s^2)
    if max(ends) == math.inf:
        _finite(ends, t_start, t_end, "vp_time")
    first, last = (float(np.logaddexp(0.0, end)) ** power for end in ends)
    inner = _line(first, last, steps)[1:-1] ** (1 / power)
    times = sde.time(-torch.log(torch.expm1(inner)) - 2 * math.log(scale))
    return torch.cat([torch.tensor([t_start], dtype=torch.float64), times, torch.tensor([t_end], dtype=torch.float64)])


@checked
@dataclass(frozen=True)
class VPTime:
    r"""Uniform in a power of the time of a VP process whose :math:`\beta` is proportional to time, for any process.

    The steps are even in :math:`\ln(1+\rho^2/s^2)^p`, :math:`\rho = \sigma/\alpha`. With s = 1 and p = 1/2, the grid
    ``"vp_time"``, this is that time; with p = 1/4, the grid ``"vp_quadratic"``, its square root, and the levels are
    those of `quadratic` on that process.

    Args:
        scale: s; far below it steps are even in a power of rho, far above it in a power of its logarithm.
        power: p.

    Example:
        >>> import scoresde
        >>> vp = scoresde.VPSDE(beta_min=1e-9, beta_max=20.0, t_min=0.1)
        >>> [round(t, 3) for t in VPTime()(vp, 1.0, 0.1, 3).tolist()]
        [1.0, 0.7, 0.4, 0.1]
        >>> quadratic = VPTime(power=0.25)
        >>> [round(t, 2) for t in quadratic(scoresde.EDMSDE(), 80.0, 0.002, 3).tolist()]
        [80.0, 2.28, 0.38, 0.0]
    """

    scale: Positive = 1.0
    power: Power = 0.5

    affine = True  # it needs the process's log-SNR

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        return _in_vp_time(sde, t_start, t_end, steps, scale=self.scale, power=self.power)


@checked
@dataclass(frozen=True)
class Angle:
    r"""Uniform in the arc tangent of a power of :math:`\rho = \sigma/\alpha`.

    The steps are even in :math:`\arctan (\rho/s)^p`. With s = 1, p = 1 is the grid ``"cosine"``, and p = 1/2 the grid
    ``"tangent"``; a small p spreads the steps over all levels, as ``"log_snr"`` does, but fewer far from s.

    Args:
        scale: s, around which steps are dense.
        power: p; far below s the steps are even in :math:`\rho^p`, far above it in :math:`\rho^{-p}`.

    Example:
        >>> import scoresde
        >>> [
        ...     round(t, 3)
        ...     for t in Angle(3.0, 0.25)(scoresde.EDMSDE(), 80.0, 0.002, 3).tolist()
        ... ]
        [80.0, 4.085, 0.247, 0.002]
    """

    scale: Positive = 1.0
    power: Power = 1.0

    affine = True

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        return _in_angle(sde, t_start, t_end, steps, scale=self.scale, power=self.power)


VP_TIME, VP_QUADRATIC = VPTime(), VPTime(power=0.25)


@checked
@dataclass(frozen=True)
class Beta:
    r"""Times at the quantiles of a Beta distribution, both ends denser than the middle for a, b < 1.

    With even u from 1 to 0, :math:`t = t_{end} + (t_{start}-t_{end})F^{-1}_{a,b}(u)`.

    Args:
        a, b: the parameters of the distribution.

    Example:
        >>> import scoresde
        >>> [round(t, 3) for t in Beta(0.6, 0.6)(scoresde.VPSDE(), 1.0, 0.0, 4).tolist()]
        [1.0, 0.824, 0.5, 0.176, 0.0]

    References:
        Lee et al. (2024), Beta Sampling is All You Need. https://arxiv.org/abs/2407.12173
    """

    a: Positive = 0.6
    b: Positive = 0.6

    def __call__(self, sde: object, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        from scipy.stats import beta  # takes long to import

        quantiles = torch.from_numpy(beta.ppf(_line(1.0, 0.0, steps).numpy(), self.a, self.b))
        return _pinned(t_end + (t_start - t_end) * quantiles, t_start, t_end)


@dataclass(frozen=True)
class Levels:
    r"""A published list of noise levels :math:`\rho = \sigma/\alpha`, as those of Align Your Steps, stretched to any
    number of steps and any interval.

    The levels are interpolated log-linearly in their position, as their authors do for other numbers of steps, and then
    scaled log-linearly so that both ends are those of the solve.

    Args:
        rho: decreasing levels, all positive (a final 0 is what ``denoise=True`` is for).

    Example:
        >>> import scoresde
        >>> levels = Levels((80.0, 4.0, 0.5, 0.002))
        >>> [round(t, 3) for t in levels(scoresde.EDMSDE(), 80.0, 0.002, 3).tolist()]
        [80.0, 4.0, 0.5, 0.002]

    References:
        Sabour, Fidler, Kreis (2024), Align Your Steps. https://arxiv.org/abs/2404.14507
    """

    rho: tuple[float, ...]

    def __post_init__(self) -> None:
        values = tuple(real_times("rho", self.rho, "levels").tolist())
        if len(values) < 2 or not all(a > b for a, b in itertools.pairwise(values)) or not 0 < values[-1] < values[0]:
            raise InvalidArgumentError(f"`rho` must be at least 2 decreasing positive levels, got {values}.")
        if not math.isfinite(values[0]):
            raise InvalidArgumentError(f"`rho` must be finite, got {values}.")
        object.__setattr__(self, "rho", values)

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        ends = [-float(sde.log_snr(t)) / 2 for t in (t_start, t_end)]
        _finite(ends, t_start, t_end, "Levels")
        known = np.log(self.rho) if t_start > t_end else np.log(self.rho)[::-1]
        at = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(known)), known)
        scaled = ends[0] + (at - at[0]) / (at[-1] - at[0]) * (ends[1] - ends[0])
        return _pinned(sde.time(-2 * torch.from_numpy(scaled)).clone(), t_start, t_end)


@checked
@dataclass(frozen=True)
class Shifted:
    r"""Another grid with its steps moved towards the noise, as for larger images.

    With the flow's time :math:`w = \rho/(1+\rho)`, made to run from 0 to 1 over the solve, :math:`w' = \frac{s w}{1 +
    (s-1)w}`: over the whole of the flow this multiplies :math:`\rho` by s, that is, lowers the log-SNR by
    :math:`2\ln s`.

    Args:
        factor: s, the square root of the ratio of the numbers of pixels in the published rule; 1 changes nothing.
        grid: the grid to shift.

    Example:
        >>> import scoresde
        >>> flow = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
        >>> Shifted(3.0)(flow, 1.0, 0.0, 2).tolist()
        [1.0, 0.75, 0.0]

    References:
        Esser et al. (2024), Scaling Rectified Flow Transformers, eq. 23. https://arxiv.org/abs/2403.03206
    """

    factor: Positive
    grid: Annotated[GridFunction, called("grid(sde, t_start, t_end, steps), such as grids.time")] = time

    def __call__(self, sde: Schedule, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid."""
        w = torch.sigmoid(-0.5 * sde.log_snr(self.grid(sde, t_start, t_end, steps)))
        low, high = (w[-1], w[0]) if t_start > t_end else (w[0], w[-1])
        share = (w[1:-1] - low) / (high - low)
        moved = low + (high - low) * self.factor * share / (1 + (self.factor - 1) * share)
        ends = torch.tensor([t_start, t_end], dtype=torch.float64)
        return torch.cat([ends[:1], sde.time(-2 * torch.logit(moved)), ends[1:]])


@dataclass(frozen=True)
class Grid:
    """A list of times for one process, made once and used again.

    Args:
        times: strictly monotone, from the start to the end of the solve.
        name: a name for it.

    Example:
        >>> Grid((1.0, 0.5, 0.1)).steps
        2
    """

    times: tuple[float, ...]
    name: str = "given"
    method = ""  # the method that it belongs to, if any: a solver as text
    from_noise = False  # whether a state at t_max is scaled to the first time, as noise is, where it begins below t_max
    data_scale: float | None = None  # of the data, for that; 1 where it is None
    context: tuple[str, ...] | None = None  # the names of the context that it was made with, if they are known
    prediction = ""  # of the network that it was made with, if it is known

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.times) - 1

    def times_for(self, sde: object) -> tuple[float, ...]:
        """The times, for a solve of this process; a grid that belongs to another one refuses."""
        return self.times


@checked
@dataclass(frozen=True)
class SamplerGrid:
    """The grid of a sampler, whose ends follow from the number of steps, as those of diffusers do.

    `scoresde.solve` begins and ends where it does; a state that is drawn is that of the prior, wherever it begins.

    Args:
        times: the times for a number of steps, from the start to the end of the solve.
        default_steps: for a solve without ``steps``.

    Example:
        >>> import scoresde
        >>> grid = SamplerGrid(
        ...     lambda steps: torch.linspace(1.0 - 1 / (steps + 1), 0.1, steps + 1)
        ... )
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="ddim", grid=grid, steps=4, shape=(3, 2)
        ... ).evaluations
        4
    """

    times: Annotated[Callable[[int], Tensor], called("times(steps)")]
    default_steps: Steps = 50

    def __call__(self, sde: object, t_start: float, t_end: float, steps: int) -> Tensor:
        """The grid, whose ends must be those that are given."""
        return self.times(steps)


def _finite(ends: list[float], t_start: float, t_end: float, name: str) -> None:
    for end, t in zip(ends, (t_start, t_end), strict=True):
        if not abs(end) < float("inf"):
            raise InvalidArgumentError(
                f"grid={name!r} has no end at t={t:g}, where the log-SNR is infinite; "
                'pass grid="tangent" or grid="time".'
            )


def check_times(times: Tensor, low: float, high: float, name: str = "grid") -> Tensor:
    """Refuse times that are not finite, strictly monotone and inside [low, high]; names the first bad index."""
    if times.ndim != 1 or len(times) < 2:
        raise InvalidArgumentError(f"`{name}` must be a 1-d list of at least 2 times, got shape {tuple(times.shape)}.")
    bad = ~torch.isfinite(times)
    if bool(bad.any()):
        raise InvalidArgumentError(f"`{name}` must be finite; entry {int(bad.int().argmax())} is {times[bad][0]}.")
    outside = (times < low) | (times > high)
    if bool(outside.any()):
        raise InvalidArgumentError(
            f"`{name}` must lie in [t_min, t_max] = [{low:g}, {high:g}]; entry {int(outside.int().argmax())} is "
            f"{float(times[outside][0]):.6g}."
        )
    gaps = times.diff()
    wrong = gaps * torch.sign(times[-1] - times[0]) <= 0
    if bool(wrong.any()):
        i = int(wrong.int().argmax())
        raise InvalidArgumentError(
            f"`{name}` must be strictly monotone; entries {i} and {i + 1} are {float(times[i]):.6g} and "
            f"{float(times[i + 1]):.6g}."
        )
    return times


def snap(value: float, sde: Any) -> float:
    """A time that differs from an end of the process's interval by rounding only (of a float32, say) is that end."""
    return next((end for end in (sde.t_min, sde.t_max) if abs(value - end) <= 1e-6 * abs(end)), value)


def time_of(name: str, value: Any, sde: Any, default: float) -> float:
    """A time of the process, or the default for None; rounding at an end of its interval is forgiven (see `snap`)."""
    time = default if value is None else snap(check_number(name, value), sde)
    return check_number(name, time, low=sde.t_min, high=sde.t_max, hint=" (the process's [t_min, t_max])")


def default(sde: Any, t_start: float, t_end: float) -> GridFunction:
    r"""The grid that `solve` takes if none is given: `log_snr` for affine processes with a finite log-SNR at both ends.

    Where it is infinite at an end, `tangent`; but `time` if the angle :math:`\arctan(\sigma/\alpha)` grows evenly with
    time, at rates that differ by less than a factor of 4 (they are measured beside both ends and in between). This is
    so for flow matching from pure noise to clean data, and never where :math:`\sigma\sim t^p` at the data end with
    another p than 1. Steps even in time then suit methods that step in time, and solves of few steps; orders are
    at most 2.

    Example:
        >>> import scoresde
        >>> default(scoresde.FlowSDE(t_min=0.0, t_max=1.0), 1.0, 0.0).__name__
        'time'
        >>> (
        ...     default(scoresde.VPSDE(t_min=0.0), 1.0, 0.0).__name__,
        ...     default(scoresde.VPSDE(), 1.0, 0.001).__name__,
        ... )
        ('tangent', 'log_snr')
    """
    if not sde.affine:
        return time
    low, high = min(t_start, t_end), max(t_start, t_end)
    with torch.no_grad():
        if all(abs(float(sde.log_snr(t))) < math.inf for t in (low, high)):
            return log_snr
        inner = torch.linspace(0, 1, 33, dtype=torch.float64)[1:-1]
        near, far = (inner.new_tensor(pair) for pair in ([0, _BESIDE], [1 - _BESIDE, 1]))
        times = low + (high - low) * torch.cat([near, inner, far])
        rates = torch.exp(-0.5 * sde.log_snr(times)).atan().diff() / times.diff()
    return time if float(rates.max()) < _EVEN * float(rates.min()) else tangent


def resolve(grid: Any, sde: Any, t_start: float, t_end: float, steps: int) -> Tensor:
    """The times of a name or a function, checked; None is the `default` grid."""
    if grid is None:
        grid = default(sde, t_start, t_end)
    if isinstance(grid, str):
        check_choice("grid", grid, GRIDS)
        name, grid = grid, GRIDS[grid]
        if getattr(grid, "affine", False) and not sde.affine:
            raise InvalidArgumentError(f'grid={name!r} needs a process with alpha and sigma; pass grid="time".')
    if not callable(grid) or isinstance(grid, type):
        raise InvalidTypeError(
            f"`grid` must be a name or a function (sde, t_start, t_end, steps), got {type(grid).__name__}."
        )
    with torch.no_grad():
        times = real_times("grid", grid(sde, t_start, t_end, steps)).clone()
    for place, end in ((0, t_start), (-1, t_end)):  # ends that were rounded on the way
        if len(times) and abs(float(times[place]) - end) <= 1e-6 * abs(end):
            times[place] = end
    check_times(times, min(t_start, t_end), max(t_start, t_end))
    if len(times) != steps + 1 or float(times[0]) != t_start or float(times[-1]) != t_end:
        raise InvalidArgumentError(
            f"`grid` must give steps + 1 = {steps + 1} times from {t_start:g} to {t_end:g}, got {len(times)} from "
            f"{float(times[0]):g} to {float(times[-1]):g}."
        )
    return times
