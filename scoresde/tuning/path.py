"""The distance of a solve from the exact paths, at its own nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import grids
from ..core.sdes import AffineSDE
from ..core.support.checks import MOST_STEPS, check_integer
from ..solvers import UniPC
from .pilot import Pilot

_END = 0.9  # the weight of the end point; with 0.5 its error is 4 to 24 times as large


@dataclass(frozen=True)
class PilotPaths:
    """A pilot's paths, known at levels that are even in the log-SNR.

    Attributes:
        sde: the process.
        ends: the log-SNRs between which they are known.
        states: ``(n, batch, *event)``, in units of ``hypot(alpha, sigma)``.
    """

    sde: AffineSDE
    ends: tuple[float, float]
    states: Tensor

    @classmethod
    def of(cls, pilot: Pilot, count: object) -> PilotPaths:
        """The paths by so many steps of `UniPC3`."""
        hint = ' objective="path" needs a number of steps.'
        (start, x), sde = pilot.origin, pilot.sde
        times = grids.log_snr(
            sde, start, pilot.end, check_integer("reference", count, low=3, high=MOST_STEPS, hint=hint)
        )
        exact = replace(pilot, x=x).states(UniPC(order=3), times, throw=True)
        first, last = (float(sde.log_snr(t)) for t in (start, pilot.end))
        return cls(sde, (first, last), exact / _unit(sde, times, exact))

    def losses(self, times: Tensor, states: Tensor, rows: slice, floor: float) -> Tensor:
        """The logarithm of the error of each of some samples, the mean over the times after the first; the end has a
        weight of its own. The exact states are interpolated by cubics in the log-SNR."""
        first, last = self.ends
        at = (self.sde.log_snr(times) - first) / (last - first) * (len(self.states) - 1)
        place = at.detach().floor().clamp(1, len(self.states) - 3).long()
        s = _column(at - place, states)
        weights = -s * (s - 1) * (s - 2) / 6, (s * s - 1) * (s - 2) / 2, -s * (s + 1) * (s - 2) / 2, s * (s * s - 1) / 6
        exact = sum(w * self.states[place + i - 1, rows] for i, w in enumerate(weights))
        away = (states / _unit(self.sde, times, states) - exact)[1:].flatten(2).square().mean(2)
        logs = 0.5 * (away + floor**2).log()
        return _END * logs[-1] + (1 - _END) * logs[:-1].mean(0)


def _unit(sde: AffineSDE, times: Tensor, like: Tensor) -> Tensor:
    """The scale of states at the times, which states are divided by."""
    return _column(torch.hypot(sde.alpha(times), sde.sigma(times)), like)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device).reshape(-1, *[1] * (like.ndim - 1))
