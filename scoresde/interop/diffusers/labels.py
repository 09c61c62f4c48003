r"""What a network of diffusers receives as its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.checks import check_choice
from ...discrete import BetaChain
from ...discrete.curve import Tables
from .process import TimestepSDE

# The coordinate in which a timestep between two levels is linear.
BETWEEN = ("rho", "log_rho")


@dataclass(frozen=True, eq=False)
class Timestep:
    r"""The timestep of a time on a chain: the place of its :math:`\rho = \sigma/\alpha` among the levels.

    .. math:: k + \frac{\rho-\rho_k}{\rho_{k+1}-\rho_k}, \quad\text{or}\quad
              k + \frac{\ln\rho-\ln\rho_k}{\ln\rho_{k+1}-\ln\rho_k}

    Beyond the ends it is that of the end.

    Args:
        sde: the process of the chain.
        between: ``"rho"`` or ``"log_rho"``, which of the two.
        whole: cut to the integer below, as a cast to ``int64`` does.

    Raises:
        InvalidArgumentError: ``between`` is neither.

    Example:
        >>> sde = TimestepSDE(scoresde.discrete.BetaChain.linear().log_snrs)
        >>> label = Timestep(sde, "log_rho")
        >>> (
        ...     label(torch.tensor([1000.0, 1.0, 0.0])).tolist(),
        ...     round(float(label(label.time(torch.tensor(10.25)))), 9),
        ... )
        ([999.0, 0.0, 0.0], 10.25)
    """

    sde: TimestepSDE
    between: str = "rho"
    whole: bool = False
    _tables: Tables = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("between", self.between, BETWEEN)
        object.__setattr__(self, "_tables", Tables(self._place(self.sde.log_snrs)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timestep):
            return NotImplemented
        same = (self.between, self.whole) == (other.between, other.whole)
        return same and torch.equal(self.sde.log_snrs, other.sde.log_snrs)

    def __hash__(self) -> int:
        return hash((self.between, self.whole, len(self.sde.log_snrs)))

    def _place(self, log_snr: Tensor) -> Tensor:
        """The coordinate, which rises with the timestep."""
        log_rho = -0.5 * log_snr
        return log_rho if self.between == "log_rho" else log_rho.exp()

    def __call__(self, t: Tensor) -> Tensor:
        """The timesteps of times; float64, or int64 if they are whole."""
        (levels,) = self._tables.on(t.device)
        place = self._place(self.sde.log_snr(t.to(torch.float64)))
        k = torch.bucketize(place, levels[1:-1], right=True)
        share = (place - levels[k]) / (levels[k + 1] - levels[k])
        share = torch.where(place >= levels[k + 1], torch.ones_like(place), share.clamp(0.0, 1.0))
        label = k + torch.where(place <= levels[k], torch.zeros_like(place), share)
        return label.floor().to(torch.int64) if self.whole else label

    def time(self, label: Tensor) -> Tensor:
        """The times of timesteps, float64."""
        (levels,) = self._tables.on(label.device)
        at = label.to(torch.float64).clamp(0.0, len(levels) - 1.0)
        k = at.floor().clamp(max=len(levels) - 2.0).to(torch.int64)
        share = at - k
        whole = (share == 0.0) | (share == 1.0)
        place = torch.where(whole, levels[k], levels[k] + share * (levels[k + 1] - levels[k]))
        log_rho = place if self.between == "log_rho" else place.log()
        return torch.where(whole, at + 1, self.sde.time(-2 * log_rho))


@dataclass(frozen=True)
class NearestTimestep:
    """The timestep of the level that is nearest in log-SNR, int64; ``time_input="index"`` of a `ScoreModel`.

    Args:
        sde: the process of the chain.
        chain: the chain.

    Example:
        >>> chain = scoresde.discrete.BetaChain.linear()
        >>> label = NearestTimestep(TimestepSDE(chain.log_snrs), chain)
        >>> (
        ...     label(torch.tensor([1000.0, 500.4, 0.0])).tolist(),
        ...     label.time(torch.tensor([999])).tolist(),
        ... )
        ([999, 499, 0], [1000.0])
    """

    sde: TimestepSDE
    chain: BetaChain

    name: ClassVar[str] = "index"

    def __call__(self, t: Tensor) -> Tensor:
        """The timesteps of times."""
        return self.chain.label(self.sde.log_snr(t.to(torch.float64)))

    def time(self, label: Tensor) -> Tensor:
        """The times of timesteps, float64."""
        return label.to(torch.float64) + 1


@dataclass(frozen=True)
class ScaledTime:
    r"""A multiple of the time, as :math:`1000\,\sigma` in flow matching.

    Args:
        factor: the multiple.
        whole: cut to the integer below, as a cast to ``int64`` does.

    Example:
        >>> (
        ...     ScaledTime(1000.0)(torch.tensor([0.25])).tolist(),
        ...     ScaledTime(1000.0, whole=True)(torch.tensor([0.2509])).tolist(),
        ... )
        ([250.0], [250])
    """

    factor: float
    whole: bool = False

    def __call__(self, t: Tensor) -> Tensor:
        """The timesteps of times."""
        label = self.factor * t.to(torch.float64)
        return label.floor().to(torch.int64) if self.whole else label

    def time(self, label: Tensor) -> Tensor:
        """The times of timesteps, float64."""
        return label.to(torch.float64) / self.factor


@dataclass(frozen=True)
class LogSigma:
    r"""EDM's :math:`\tfrac14\ln\sigma`; ``time_input="edm"`` of a `ScoreModel`.

    Example:
        >>> (
        ...     LogSigma()(torch.tensor([1.0])).tolist(),
        ...     LogSigma().time(torch.tensor([0.0])).tolist(),
        ... )
        ([0.0], [1.0])
    """

    name: ClassVar[str] = "edm"

    def __call__(self, t: Tensor) -> Tensor:
        """The timesteps of times."""
        return 0.25 * t.to(torch.float64).log()

    def time(self, label: Tensor) -> Tensor:
        """The times of timesteps, float64."""
        return (4 * label.to(torch.float64)).exp()


Label = Timestep | NearestTimestep | ScaledTime | LogSigma
