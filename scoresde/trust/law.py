r"""Distances between the distribution of a solver's samples and the distribution of the exact flow of the network, from
coupled draws.

Each draw is solved twice from the same noise, with the result x by the method and y by the reference. The distances
:math:`D_i = \|x_i - y_i\|` bound distances of the two distributions, without assumptions on either:

- The **Ky Fan distance** :math:`K = \inf\{\delta : P(D > \delta) \le \delta\}` is not smaller than the Prokhorov
  distance of the distributions, since :math:`P(x \in A) \le P(y \in A^\delta) + P(D > \delta)`. With D sorted and U(m)
  the upper Clopper-Pearson limit of m in n,

  .. math:: \hat K = \min\bigl(1, \min_j \max(D_{(j)}, U(n-j))\bigr), \qquad P(\hat K < K) \le 1 - \text{confidence},

  for one n, whatever j: a failure at any j means :math:`\#\{D \ge K\} \le n-j` with :math:`U(n-j) < P(D \ge K)`, which
  is the same miss of one Clopper-Pearson limit. It is a length and a probability at once, so that a unit of length
  belongs to it, and it is never below U(0), about 3/n at 95 %.
- The **2-Wasserstein distance** of the distributions is not larger than :math:`(E D^2)^{1/2}`. No finite sample gives a
  limit of a mean square without a bound on D; with :math:`D \le B` the empirical Bernstein inequality does.
- Without one, :math:`(\varepsilon, U)` means that :math:`D \le \varepsilon` but for a probability of at most U.

References:
    Dudley (2002), Real Analysis and Probability, section 11.3 (Strassen's theorem).
    Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
    Maurer and Pontil (2009), Empirical Bernstein bounds and sample variance penalization, theorem 4.
    https://arxiv.org/abs/0907.3740
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_number, check_tensor
from ..core.support.declared import Kind, NonNegative, Positive, checked
from ..core.support.display import Displayed
from ..core.support.intervals import Interval
from .conformal import Confidence, errors_to

_LARGEST = 1e100  # its square is a float
_ROUNDING = 1e-6  # relative, of distances in single precision
_OUT = 30.0  # median distances: what is more may be due to another mode
_APART = 0.3  # standard deviations of the samples: so far are modes apart, at least


def upper_limit(count: int, draws: int, confidence: float) -> float:
    """The upper Clopper-Pearson limit of a probability of which ``count`` of ``draws`` have come true.

    Example:
        >>> round(upper_limit(0, 256, 0.95), 4)
        0.0116
    """
    from scipy.special import betaincinv  # takes long to import

    return 1.0 if count >= draws else float(betaincinv(count + 1, draws - count, confidence))


def lower_limit(count: int, draws: int, confidence: float) -> float:
    """The lower Clopper-Pearson limit.

    Example:
        >>> round(lower_limit(256, 256, 0.95), 4)
        0.9884
    """
    return 1.0 - upper_limit(draws - count, draws, confidence)


def _distances(name: str, value: object) -> Tensor:
    distances = check_tensor(name, value, (-1,))
    if len(distances) < 2 or bool(distances.isnan().any() | (distances < 0).any()):
        raise InvalidArgumentError(f"`{name}` must be at least two numbers, not NaN and not negative.")
    return distances.detach().to("cpu", torch.float64)


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Law(Displayed):
    """How far the distribution of a solver's samples is from the distribution of the network's exact flow, or of the
    fine solution of its SDE, at most. It says nothing of the distance to the data, which depends on the network.

    Args:
        distances: of n coupled draws, RMS per dimension, ``(n,)``; infinite for draws that failed.
        unit: the length that counts as 1 in the Prokhorov distance: the standard deviation per dimension of the
            reference's samples.
        confidence: of each statement.

    Example:
        >>> law = Law(torch.linspace(0.01, 0.02, 500), unit=1.0)
        >>> law
        Law(prokhorov<=0.01992, wasserstein=0.01528 <= 0.01552 (asymptotic), another mode=0 of 500 <= 0.006)
        >>> round(law.exceeding(0.02), 3)
        0.006
    """

    distances: Annotated[Tensor, Kind(_distances)]
    unit: Positive
    confidence: Confidence = 0.95

    @property
    def prokhorov(self) -> float:
        """An upper limit of the Ky Fan distance of the coupling in units of `unit`, and so of the Prokhorov distance of
        the distributions; valid for any number of draws. It is never below 3/n, about, whatever the solver."""
        ordered, n = (self.distances / self.unit).sort().values.tolist(), len(self.distances)
        best = 1.0
        for above, distance in enumerate(reversed(ordered)):  # draws that are farther
            limit = upper_limit(above, n, self.confidence)
            if limit >= best:
                break
            best = min(best, max(distance, limit))
        return best

    def wasserstein(self, bound: float | None = None) -> Interval:
        r"""The RMS distance of the coupling, which the 2-Wasserstein distance of the distributions (per root of the
        dimension) does not exceed, with its limits.

        Args:
            bound: a length that no distance exceeds, if one is known. The limits are then those of the empirical
                Bernstein inequality,

                .. math:: \overline{D^2} \pm \sqrt{\tfrac2n V \ln\tfrac4\delta} \pm \tfrac{7 B^2 \ln(4/\delta)}{3(n-1)},

                valid for any number of draws. Without it they are :math:`\pm z` standard errors, and are called
                asymptotic: with heavy tails they may fail far more often than they say.

        Raises:
            InvalidArgumentError: a distance is larger than ``bound``.
        """
        squares, n = self.distances.square(), len(self.distances)
        mean, variance = float(squares.mean()), float(squares.var())
        if bound is None:
            kind, half = "asymptotic", errors_to(self.confidence) * math.sqrt(variance / n)
        else:
            if float(self.distances.max()) > check_number("bound", bound, high=_LARGEST) * (1 + _ROUNDING):
                raise InvalidArgumentError(
                    f"`bound` must be at least the largest distance, {float(self.distances.max()):g}, got {bound:g}."
                )
            log = math.log(4 / (1 - self.confidence))
            kind, half = "exact", math.sqrt(2 * variance * log / n) + 7 * bound**2 * log / (3 * (n - 1))
        if not math.isfinite(mean):
            return Interval(math.inf, 0.0, math.inf, self.confidence, kind)
        low, high = math.sqrt(max(0.0, mean - half)), math.sqrt(mean + half)
        return Interval(math.sqrt(mean), low, high, self.confidence, kind)

    @checked
    def exceeding(self, distance: NonNegative) -> float:
        """An upper limit of the probability that a sample is farther than ``distance`` from that of the reference, RMS
        per dimension; valid for any number of draws."""
        return upper_limit(int((self.distances > distance).sum()), len(self.distances), self.confidence)

    @property
    def switched(self) -> int:
        """How many draws stand apart, as draws do that end in another mode: their distances are more than 30 times the
        median, and more than 0.3 standard deviations of the samples. Where half of the draws are far off, or typical
        distances are near those of the modes, it sees none; `exceeding` needs no such assumption."""
        far = (self.distances > _OUT * self.distances.median()) & (self.distances > _APART * self.unit)
        return int(far.sum())

    @property
    def switching(self) -> Interval:
        """The probability that a sample stands apart, see `switched`, with the limits of Clopper and Pearson. They are
        asymptotic, since what stands apart depends on the median."""
        n, each = len(self.distances), 0.5 + self.confidence / 2
        low, high = lower_limit(self.switched, n, each), upper_limit(self.switched, n, each)
        return Interval(self.switched / n, low, high, self.confidence, "asymptotic")

    def _summary(self) -> dict[str, str]:
        n, distance = len(self.distances), self.wasserstein()
        modes = upper_limit(self.switched, n, self.confidence)
        return {
            "prokhorov<": f"{self.prokhorov:.4g}",
            "wasserstein": f"{distance.value:.4g} <= {distance.high:.4g} ({distance.kind})",
            "another mode": f"{self.switched} of {n} <= {modes:.2g}",
        }
