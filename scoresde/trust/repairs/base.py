"""The parts of a diagnosis: a repair, and what it found."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ...core.support.display import Displayed
from ...core.support.intervals import Interval
from ..conformal import errors_to

if TYPE_CHECKING:
    from .subject import Subject

MATTERS = 0.05  # of the standard deviation of the data: what a fault must change, or of a probability
SHARE = 0.1  # of the whole distance to held-out data, likewise
CLEAR = 3.0  # standard errors that means must be apart
TESTS = 5  # tests of distributions in one diagnosis, which share 1 - confidence


@dataclass(frozen=True, repr=False)
class Rung(Displayed):
    """What one repair of a diagnosis found.

    Attributes:
        name: of the fault.
        distance: what the repair changes, with its limits; None where it could not be tried.
        floor: the distance that chance alone reaches.
        kind: what the distance is: ``"exact"``, ``"upper bound"``, ``"estimate"`` or ``"asymptotic"``; ``""`` where
            it could not be tried.
        unit: of the distance: ``"data"`` (the units of the data, RMS per element), ``"probability"``, ``"share"``, or
            what else it is.
        matters: whether the fault limits the samples: the distance is beyond its floor, and large.
        size: how much of the samples' distance to the data it explains, at least about, in the units of the data; what
            orders the faults.
        finding: in a sentence.
        remedy: in a sentence.
        details: other numbers that were measured.
        explains: the names of other faults that are due to this one where it matters.

    Example:
        >>> from scoresde.trust import Rung
        >>> Rung("steps").applies, Rung("steps")
        (False, Rung(name=steps, distance=not applicable))
    """

    name: str
    distance: Interval | None = None
    floor: float = 0.0
    kind: str = ""
    unit: str = "data"
    matters: bool = False
    size: float = 0.0
    finding: str = ""
    remedy: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    explains: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether the repair could be tried."""
        return self.distance is not None

    def _summary(self) -> dict[str, str]:
        if self.distance is None:
            return {"name": self.name, "distance": "not applicable"}
        return {"name": self.name, "distance": self.shown, "kind": self.kind, "matters": str(self.matters)}

    @property
    def shown(self) -> str:
        """The distance and its limits as text."""
        if self.distance is None:
            return "-"
        value, low, high = (number(v) for v in (self.distance.value, self.distance.low, self.distance.high))
        return value if low == value == high else f"{value} ({low} to {high})"


class Repair(abc.ABC):
    """One way to change how samples are made, and what that changes.

    Attributes:
        name: of the fault that it repairs.
        remedy: in a sentence.
    """

    name: str
    remedy: str

    @abc.abstractmethod
    def try_on(self, subject: Subject) -> Rung:
        """What the repair changes."""

    def found(
        self,
        distance: Interval,
        floor: float,
        finding: str,
        *,
        kind: str = "estimate",
        unit: str = "data",
        matters: bool = False,
        size: float = 0.0,
        remedy: str | None = None,
        details: Mapping[str, float] | None = None,
        explains: tuple[str, ...] = (),
    ) -> Rung:
        """The result; the arguments are the attributes of a `Rung`, with the remedy of the repair by default."""
        remedy = self.remedy if remedy is None else remedy
        return Rung(self.name, distance, floor, kind, unit, matters, size, finding, remedy, details or {}, explains)

    def missing(self, why: str) -> Rung:
        """The result where it cannot be tried."""
        return Rung(self.name, finding=why)


def certain(value: float, confidence: float) -> Interval:
    """A number without an error of sampling."""
    return Interval(value, value, value, confidence, "exact")


def root_mean_square(squares: Tensor, confidence: float) -> Interval:
    """The root of the mean of independent squares ``(n,)``, with its limits for many of them.

    Example:
        >>> root_mean_square(torch.tensor([4.0, 4.0, 4.0]), 0.95).value
        2.0
    """
    found = mean_interval(squares.tolist(), confidence)
    value, low, high = (math.sqrt(max(0.0, v)) for v in (found.value, found.low, found.high))
    return Interval(value, low, high, confidence, "asymptotic")


def mean_interval(values: Tensor | Iterable[float], confidence: float) -> Interval:
    """The mean of independent numbers, with its limits for many of them.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0], 0.95).value
        2.0
    """
    numbers = [float(v) for v in values]
    n = len(numbers)
    mean = sum(numbers) / n if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return Interval(mean, -math.inf, math.inf, confidence, "asymptotic")
    error = math.sqrt(sum((v - mean) ** 2 for v in numbers) / (n - 1) / n)
    half = errors_to(confidence) * error
    return Interval(mean, mean - half, mean + half, confidence, "asymptotic")


def number(value: float) -> str:
    """A number for a sentence, with three digits.

    Example:
        >>> number(0.04512), number(119.2), number(12345.6)
        ('0.0451', '119', '12,346')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
