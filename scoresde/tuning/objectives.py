"""What `tune` compares candidates by: errors of the end points, or a distance of the distributions."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ..core.errors import InvalidArgumentError
from .energy import difference, energy
from .pilot import Pilot, distances, summary
from .records import PilotErrors

_LEAST = 1e-300  # an error that is 0 has a logarithm, too
_SAFE, _STEEP = 1.5, 3.0  # of an RMS, in smallest ones, and the power of what is beyond that
_STEPS, _TIMES = 100, 10  # of the solve whose samples stand for the exact ones: so many, or times the evaluations


class Comparison(abc.ABC):
    """The end states of all candidates, compared.

    Args:
        ends: those of each candidate, ``(batch, *event)``, NaN for samples that failed.
        exact: what counts as exact.

    Attributes:
        pilot: the default number of samples; ``least``: the smallest.
        stochastic: whether candidates may draw noise.
        scores: one number per candidate, smaller for a better one; not finite if a sample failed.
    """

    pilot: ClassVar[int]
    least: ClassVar[int] = 2
    stochastic: ClassVar[bool] = False
    scores: Sequence[float]

    @abc.abstractmethod
    def __init__(self, ends: Sequence[Tensor], exact: Tensor) -> None: ...

    @classmethod
    def check(cls, batch: Pilot) -> None:
        """Refuse a pilot that is too small."""
        if len(batch.x) < cls.least:
            raise InvalidArgumentError(
                f"The pilot must have at least {cls.least} samples to compare distributions, got {len(batch.x)}; "
                f"{cls.pilot} are the default."
            )

    @staticmethod
    @abc.abstractmethod
    def exact(batch: Pilot, evaluations: int) -> Tensor:
        """What counts as exact if nothing is given, for candidates of so many evaluations."""

    @abc.abstractmethod
    def errors(self, i: int) -> PilotErrors:
        """The errors of a candidate."""

    @abc.abstractmethod
    def warn(self, batch: Pilot, best: int) -> None:
        """Say what the errors of the best candidate show of the pilot."""

    @abc.abstractmethod
    def behind(self, i: int, best: int) -> tuple[float, float]:
        """How many times as large the error of a candidate is as that of the best one, and the uncertainty: of those
        that are not more than ``exp(2 * uncertainty)`` times as large, no one is known to be worse than the best."""


class EndPoints(Comparison):
    """By the geometric mean of the samples' errors, which varies least from pilot to pilot. Where the RMS is r times
    the smallest of all and r > 1.5, as single samples run away, it is multiplied by (r / 1.5)^3. No candidate is first
    whose geometric mean is more than 1.5 times the smallest, as single samples decide an RMS by chance, too."""

    pilot = 16

    def __init__(self, ends: Sequence[Tensor], exact: Tensor) -> None:
        self._exact = exact
        self._errors = [distances(x, exact) for x in ends]
        sizes = [float(errors.square().mean().sqrt()) for errors in self._errors]
        least = max(min((size for size in sizes if math.isfinite(size)), default=1.0), _LEAST)
        means = [_score(errors) for errors in self._errors]
        good = min(means) + math.log(_SAFE)
        scores = [m + _STEEP * math.log(max(r / (_SAFE * least), 1.0)) for m, r in zip(means, sizes, strict=True)]
        first = min(score for score, mean in zip(scores, means, strict=True) if mean <= good)
        self.scores = [s if m <= good else max(s, first + m - good) for s, m in zip(scores, means, strict=True)]

    @staticmethod
    def exact(batch: Pilot, evaluations: int) -> Tensor:
        """An accurate solve."""
        return batch.reference(accurate(evaluations))

    def errors(self, i: int) -> PilotErrors:
        return summary(self._errors[i])

    def warn(self, batch: Pilot, best: int) -> None:
        """That many of its samples end in another mode."""
        batch.warn_of_modes(self._errors[best], self._exact)

    def behind(self, i: int, best: int) -> tuple[float, float]:
        errors = [self._errors[k].clamp_min(_LEAST).log() for k in (i, best)]
        ratios = errors[0] - errors[1]
        spread = float(ratios.std()) / math.sqrt(len(ratios)) if bool(ratios.isfinite().all()) else math.inf
        gap = self.scores[i] - self.scores[best]
        return math.exp(gap) if gap < 700 else math.inf, spread


class Distributions(Comparison):
    r"""By the energy distance :math:`D^2`, or by its standard error where that is larger.

    An estimate of :math:`D^2` that is near 0 or negative shows no more than that :math:`D^2` is not much larger than
    its standard error s. Candidates are therefore ranked by :math:`d = \max(D^2, s)`, so that luck gains nothing, and a
    small distance that is known well comes before one that is not known.
    """

    pilot = 256
    least = 16
    stochastic = True

    def __init__(self, ends: Sequence[Tensor], exact: Tensor) -> None:
        self._ends, self._exact = ends, exact
        self._energies = [energy(x, self._exact) for x in ends]
        self.scores = [max(estimate) for estimate in self._energies]

    @staticmethod
    def exact(batch: Pilot, evaluations: int) -> Tensor:
        """An accurate solve from where the candidates begin."""
        return batch.flow(batch.start, batch.x, _STEPS)

    def warn(self, batch: Pilot, best: int) -> None:
        """Nothing: a sample may end elsewhere than on its path."""

    def errors(self, i: int) -> PilotErrors:
        points, (distance, error) = summary(distances(self._ends[i], self._exact)), self._energies[i]
        return PilotErrors(points.rms, points.median, distance, error)

    def behind(self, i: int, best: int) -> tuple[float, float]:
        unit = max(self.scores[best], _LEAST)
        error = difference(self._ends[i], self._ends[best], self._exact).error
        return max(self.scores[i], _LEAST) / unit, 0.5 * math.log1p(2 * error / unit)


OBJECTIVES: dict[str, type[Comparison]] = {"log": EndPoints, "law": Distributions}


def accurate(evaluations: int) -> int:
    """The steps of the solve whose ends count as exact.

    Example:
        >>> accurate(5), accurate(20)
        (100, 200)
    """
    return max(_STEPS, _TIMES * evaluations)


def _score(errors: Tensor) -> float:
    """The mean of the logarithms."""
    return float(errors.clamp_min(_LEAST).log().mean())
