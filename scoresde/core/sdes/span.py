"""The log-SNRs that a process runs through, and processes trimmed to some of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch

from ..errors import InvalidArgumentError, InvalidTypeError
from ..support.checks import check_number, shown
from ..support.declared import checked
from .base import AffineSDE, NormalPrior

_SLACK = 1e-6  # of log-SNRs that are compared, relative


@checked
def log_snr_range(sde: AffineSDE) -> tuple[float, float]:
    """The lowest and the highest log-SNR of a process, those of its noise end and its data end.

    Example:
        >>> log_snr_range(scoresde.VDMSDE())
        (-5.0, 13.3)
    """
    with torch.no_grad():
        ends = torch.tensor([sde.t_max, sde.t_min], dtype=torch.float64)
        low, high = (2 * (sde._log_alpha(t) - sde._log_sigma(t)) for t in ends)
    return float(low), float(high)


def within(sde: AffineSDE, limits: tuple[float, float]) -> AffineSDE:
    r"""A process on the part of its interval where the log-SNR stays within limits; the process itself if that is all
    of it.

    A prior :math:`N(\cdot, \sigma(t_{max})^2 I)` follows the end, another one stays.

    Args:
        sde: the process.
        limits: the lowest and the highest log-SNR.

    Raises:
        InvalidArgumentError: no part of the interval is within the limits.

    Example:
        >>> flow = within(scoresde.FlowSDE(), (-10.0, 10.0))
        >>> round(flow.t_min, 6), round(flow.t_max, 6), flow.prior.std == flow.t_max
        (0.006693, 0.993307, True)
    """
    low, high = log_snr_range(sde)
    lowest, highest = _limits(limits)
    slack = [_SLACK * (1 + abs(v)) if math.isfinite(v) else 0.0 for v in limits]
    if low >= lowest - slack[0] and high <= highest + slack[1]:
        return sde
    if not max(low, lowest) < min(high, highest):
        raise InvalidArgumentError(
            f"`sde`: its log-SNR runs from {high:.4g} to {low:.4g}, of which nothing is between {highest:.4g} and "
            f"{lowest:.4g}."
        )
    part = copy.copy(sde)
    if high > highest + slack[1]:
        part.t_min = float(sde.time(highest))
    if low < lowest - slack[0]:
        part.t_max = float(sde.time(lowest))
        at_end, now = float(sde.sigma(sde.t_max)), float(sde.sigma(part.t_max))
        if isinstance(sde.prior, NormalPrior) and math.isclose(sde.prior.std, at_end, rel_tol=1e-9):
            part.prior = NormalPrior(now, sde.prior.mean)
    return part


def _limits(limits: object) -> tuple[float, float]:
    """Two log-SNRs, which may be infinite."""
    if not isinstance(limits, Sequence) or len(limits) != 2:
        raise InvalidTypeError(f"`limits` must be the lowest and the highest log-SNR, got {shown(limits)}.")
    low, high = (float(v) if v in (-math.inf, math.inf) else check_number("limits", v) for v in limits)
    return low, high
