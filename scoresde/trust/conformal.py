r"""What the order statistics of n exchangeable numbers say of the next one (split-conformal prediction).

With the numbers :math:`s_1, \dots, s_n` of a pilot, sorted, and the number s of a new draw,

.. math:: P(s \le s_{(k)}) \ge \frac{k}{n+1}, \qquad k = \lceil (n+1)c \rceil,

whatever their distribution, with equality where they have no ties. The probability is over the pilot and the new draw
together. Given the pilot, the share of new draws with :math:`s \le s_{(k)}` has the distribution
:math:`\mathrm{Beta}(k, n+1-k)`, or is larger where there are ties.

References:
    Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World.
    Vovk (2012), Conditional validity of inductive conformal predictors. https://arxiv.org/abs/1209.2673
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from ..core.errors import InvalidArgumentError
from ..core.support.checks import MOST_DRAWS, check_integer, check_number
from ..core.support.declared import Kind, Probability, checked, integer

_ROUNDING = 1e-9
_LEAST = 1e-6
Draws = Annotated[int, integer(low=1, high=MOST_DRAWS)]


def check_confidence(name: str, value: float) -> float:
    """A probability that is not, nearly, 0 or 1."""
    value = check_number(name, value)
    if not _LEAST <= value <= 1.0 - _LEAST:
        raise InvalidArgumentError(f"`{name}` must be between 0 and 1, by at least {_LEAST:g}, got {value:g}.")
    return value


Confidence = Annotated[float, Kind(check_confidence)]


def errors_to(confidence: float) -> float:
    """The standard errors of a normal distribution that an interval reaches to.

    Example:
        >>> round(errors_to(0.95), 4)
        1.96
    """
    from scipy.special import ndtri  # takes long to import

    return float(ndtri(0.5 + confidence / 2))


@checked
@dataclass(frozen=True)
class Coverage:
    """The guarantee of an order statistic.

    Args:
        draws: n, the number of draws that calibrate.
        rank: k, from 1 to n: the bound is the k-th smallest of their numbers.

    Example:
        >>> coverage = Coverage.of(128, 0.95)
        >>> coverage.rank, round(coverage.mean, 4), round(coverage.std, 4)
        (123, 0.9535, 0.0185)
        >>> round(
        ...     coverage.at_least(0.95), 3
        ... )  # of the draws of this pilot, with confidence 95 %
        0.92
        >>> Coverage.of(128, 0.95, 0.95).rank  # at least 95 % of them, with confidence 95 %
        126
    """

    draws: Draws
    rank: int

    def __post_init__(self) -> None:
        check_integer("rank", self.rank, low=1, high=self.draws)

    @classmethod
    @checked
    def of(cls, draws: Draws, confidence: Confidence, confidence_in_pilot: Confidence | None = None) -> Coverage:
        """The smallest rank that covers a new draw with a probability of at least ``confidence``, over pilots; or, with
        a probability of at least ``confidence_in_pilot``, a share of at least ``confidence`` given the pilot.

        Raises:
            InvalidArgumentError: there are too few draws.
        """
        least = cls.least(confidence, confidence_in_pilot)
        if draws < least:
            given = "" if confidence_in_pilot is None else f" and confidence_in_pilot={confidence_in_pilot:g}"
            raise InvalidArgumentError(
                f"confidence={confidence:g}{given} takes at least {least} draws that calibrate, got {draws}; take a "
                "larger `pilot`."
            )
        if confidence_in_pilot is None:
            return cls(draws, min(draws, math.ceil((draws + 1) * confidence * (1 - _ROUNDING))))
        low, high = 1, draws  # the largest rank suffices
        while low < high:
            middle = (low + high) // 2
            if cls(draws, middle).probability(confidence) >= confidence_in_pilot:
                high = middle
            else:
                low = middle + 1
        return cls(draws, low)

    @staticmethod
    @checked
    def least(confidence: Confidence, confidence_in_pilot: Confidence | None = None) -> int:
        r"""The smallest number of draws: :math:`c/(1-c)`, or :math:`\ln\delta/\ln c` for a confidence of
        :math:`1-\delta` in the pilot.

        Example:
            >>> Coverage.least(0.95), Coverage.least(0.95, 0.95)
            (19, 59)
        """
        if confidence_in_pilot is None:
            return math.ceil(confidence / (1 - confidence) * (1 - _ROUNDING))
        return math.ceil(math.log(1 - confidence_in_pilot) / math.log(confidence) * (1 - _ROUNDING))

    @property
    def mean(self) -> float:
        """The probability that a new draw is covered, over pilots: k/(n+1)."""
        return self.rank / (self.draws + 1)

    @property
    def std(self) -> float:
        """The standard deviation, from pilot to pilot, of the share that is covered."""
        n = self.draws + 1
        return math.sqrt(self.rank * (n - self.rank) / (n**2 * (n + 1)))

    @checked
    def probability(self, share: Probability) -> float:
        """The probability, over pilots, that at least this share of new draws is covered."""
        from scipy.special import betainc  # takes long to import

        return float(1 - betainc(self.rank, self.draws + 1 - self.rank, share))

    @checked
    def at_least(self, confidence: Confidence) -> float:
        """The share of new draws that a pilot covers at least, with this confidence."""
        from scipy.special import betaincinv  # takes long to import

        return float(betaincinv(self.rank, self.draws + 1 - self.rank, 1 - confidence))

    @checked
    def all_of(self, count: Draws) -> float:
        r"""The probability that all of ``count`` new draws are covered, over pilots: :math:`E[u^m]` for
        :math:`u \\sim \\mathrm{Beta}(k, n+1-k)`.

        Example:
            >>> round(Coverage(99, 99).all_of(1), 4), round(Coverage(99, 99).all_of(99), 4)
            (0.99, 0.5)
        """
        k, n = self.rank, self.draws + 1
        logs = math.lgamma(k + count) - math.lgamma(n + count) - math.lgamma(k) + math.lgamma(n)
        return math.exp(min(0.0, logs))

    @checked
    def number_of(self, count: Draws, confidence: Confidence) -> int:
        """How many of ``count`` new draws are covered at least, with this confidence over pilots and draws (their
        number is beta-binomial).

        Example:
            >>> Coverage.of(128, 0.95).number_of(1000, 0.95)
            918
        """
        from scipy.stats import betabinom  # takes long to import

        law = betabinom(count, self.rank, self.draws + 1 - self.rank)
        low, high = 0, count  # the largest number with P(fewer) <= 1 - confidence
        while low < high:
            middle = (low + high + 1) // 2
            if law.cdf(middle - 1) <= 1 - confidence:
                low = middle
            else:
                high = middle - 1
        return low
