"""Restart sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import SDE, AffineSDE, Node
from ..core.support.checks import MOST_LEVELS, check_integer, check_number, shown
from ..grids import karras
from .base import THROUGH_NETWORK, EstimateSDESolver, Process, Step, StepResult
from .families.transition import leap
from .rho_runge_kutta import RhoHeun


class RestartInterval(NamedTuple):
    r"""Where to restart: between two levels of :math:`\rho = \sigma/\alpha`, how often, and in how many steps each
    time.

    Example:
        >>> RestartInterval(0.1, 0.3, times=2, steps=4).times
        2
    """

    low: float
    high: float
    times: int = 1
    steps: int = 3


@dataclass(frozen=True)
class Restart(EstimateSDESolver):
    r"""Restart sampling: a deterministic solver that returns to a higher noise level now and then.

    When the solve passes the lower end of an interval, it adds the forward process's noise up to the upper end, and
    comes down again by Heun's method in :math:`\rho`, as often as the interval says. The added noise contracts the
    error made so far, and the deterministic steps keep their own error small.

    Facts:
        No order of the distribution's error other than Heun's in each descent: for finer grids the distribution is
        right whatever the intervals. 2 evaluations per downward step, none upwards.

    Differs from:
        the official code: any process, and the descents end on the node where they began.

    Args:
        intervals: a tuple of `RestartInterval` (or of its fields), in :math:`\rho`; parts outside the solve are
            left out.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.EDMSDE()
        >>> options = {"grid": "karras", "steps": 10, "shape": (4, 2), "seed": 0}
        >>> scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="restart",
        ...     intervals=((0.1, 0.3, 2, 3),),
        ...     **options,
        ... ).evaluations
        32

    References:
        Xu et al. (2023), Restart Sampling for Improving Generative Processes, algorithm 1.
        https://arxiv.org/abs/2306.14878
    """

    intervals: tuple[Any, ...] = (RestartInterval(0.1, 0.3, times=1, steps=3),)

    evaluations: ClassVar[int] = 2
    looks_ahead: ClassVar[bool] = True
    not_gaussian: ClassVar[str] = THROUGH_NETWORK
    reference: ClassVar[str] = "Xu et al. (2023), Restart, algorithm 1"

    def __post_init__(self) -> None:
        try:
            found = tuple(RestartInterval(*each) for each in self.intervals)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidTypeError(f"`intervals` must be a tuple of Interval, got {shown(self.intervals)}.") from error
        for each in found:
            if not check_number("low", each.low, low=0.0) < check_number("high", each.high, low=0.0):
                raise InvalidArgumentError(f"An interval must have low < high, got {each}.")
            check_integer("times", each.times, low=1, high=MOST_LEVELS)
            check_integer("steps", each.steps, low=1, high=MOST_LEVELS)
        object.__setattr__(self, "intervals", found)

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The grid with its detours: up in one leap, down again in steps."""
        if not isinstance(sde, AffineSDE) or len(times) < 2:
            return times
        lam, moments = (sde.log_snr(times) / 2).tolist(), times.tolist()
        path = [times[:1]]
        for i in range(1, len(times)):
            path.append(times[i : i + 1])
            for each in self.intervals:
                # at the first node below the interval, or at the last; before a node without noise, where no grid ends
                bottom = min(-math.log(each.low) if each.low else math.inf, lam[-1])
                here = lam[i - 1] < bottom <= lam[i] and lam[i] < math.inf
                if here or (i + 1 < len(times) and lam[i] < bottom <= lam[i + 1] == math.inf):
                    top = _level(sde, -math.log(each.high), lam[0], moments[0])
                    if top > moments[i]:
                        path += [karras(sde, top, moments[i], each.steps)] * each.times
        return torch.cat(path)

    def step(self, process: Process, x: Tensor, start: Node[float], stop: Node[float], state: Tensor | None) -> Step:
        """See `Solver.step`."""
        if stop.lam < start.lam:  # the noise of each leap is new, also where a path would answer twice
            return StepResult(leap(x, start, stop, (yield process.normal(x))))
        return (yield from RhoHeun().step(process, x, start, stop, state))


def _level(sde: AffineSDE, lam: float, first: float, start: float) -> float:
    """The time with a log-SNR of 2 lam, but not before the start, where lam is ``first``."""
    return start if lam <= first else float(sde.time(torch.tensor(2 * lam, dtype=torch.float64)))
