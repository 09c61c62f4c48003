r"""Whether two sets of samples have the same distribution, how far apart they are, and whether one copies the other.

Four measures, each with an interval, a p-value and the value that chance alone reaches:

- `energy_test`: the energy distance, without bias, sensitive to every difference;
- `sliced_wasserstein`: a distance in the units of the data, without the part that is due to finite samples;
- `classifier_test`: a lower bound of the total variation distance, by a classifier that is trained to separate them;
- `nearest`: whether samples are nearer to the training data than held-out data are.

All take independent samples ``(n, *event)``, in numbers that may differ, and compute in float64 on the device of the
samples, except for the classifier's training, which is in float32. Results are determined by ``seed``, on one kind of
device with one number of threads, and torch's global generator is not used. The draws are independent of those of
``torch.Generator().manual_seed(seed)``, so that samples may have the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InvalidArgumentError
from ..core.noise import Seed
from ..core.noise.philox import fold
from ..core.support.checks import (
    check_batch,
    check_finite_rows,
    check_integer,
    check_not_empty,
    check_state,
    check_tensor,
)
from ..core.support.declared import called, checked, integer, number
from ..core.support.display import Displayed
from .conformal import errors_to

_BLOCK = 2**22  # numbers at a time
_LARGEST = 1e150  # whose square is finite
Level = Annotated[float, number(low=1e-3, high=1.0, strict=True)]
_STREAM = 0x7E57  # of the draws, which must not be those of samples that have the same seed
_MOST_PERMUTATIONS = 9_999
_FEATURE_ROWS = 1_000  # samples in a call of ``features``
# The classifiers: their units, batches and least work; the learning rates of the linear one and of the network.
_HIDDEN, _BATCH, _LEAST_STEPS, _LEAST_EPOCHS = 64, 64, 400, 10
_LINEAR_RATE, _RATE, _DECAY = 5e-2, 1e-2, 1e-2
_FARTHEST = 10.0  # standard deviations


@dataclass(frozen=True, eq=False, repr=False)
class _Comparison(Displayed):
    """What all comparisons of two sets of samples report; the attributes are described where they are computed."""

    value: float
    interval: tuple[float, float]
    level: float
    floor: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the p-value is at most ``1 - level``, the false-alarm rate for samples of one distribution."""
        return _at_most(self.p_value, 1 - self.level)

    def _summary(self) -> dict[str, str]:
        low, high = self.interval
        return {
            "value": f"{self.value:.4g}",
            f"{100 * self.level:g} % interval": f"{low:.4g} to {high:.4g}",
            "floor": f"{self.floor:.4g}",
            "p_value": f"{self.p_value:.2g}",
        }


class EnergyTest(_Comparison):
    """The result of `energy_test`.

    Attributes:
        value: the U-statistic of the squared energy distance, in the units of the data; it may be negative.
        interval: the lower and the upper end of its interval.
        level: the probability of the interval and of the floor.
        floor: the value that samples of one distribution stay below with probability ``level``, by permutations.
        p_value: the share of permutations that give at least this value, the given order included.

    Example:
        >>> EnergyTest(0.25, (0.2, 0.3), 0.95, 0.01, 0.005)
        EnergyTest(value=0.25, 95 % interval=0.2 to 0.3, floor=0.01, p_value=0.005)
    """


@checked
def energy_test(x: Tensor, y: Tensor, *, permutations: int = 199, level: Level = 0.95, seed: Seed) -> EnergyTest:
    r"""Test whether two independent sets of samples have one distribution, by their energy distance.

    .. math:: D^2 = 2E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    is 0 if and only if the distributions are the same. The means over all pairs (:math:`i \ne j` within a set) make a
    U-statistic, whose mean is :math:`D^2` for any numbers of samples. The p-value is that of random permutations of the
    pooled samples. It is exact: if the distributions are the same, it is at most a with a probability of at most a.

    The variance of the U-statistic U is about :math:`v + bD^2`, with v that of the permutations and :math:`bU` the
    jackknife's. The interval, which is approximate, has all :math:`D^2` with :math:`(U - D^2)^2 \le z^2(v + bD^2)`; a
    symmetric one would be too short where U is small by chance.

    One pass over the distances serves all permutations. It needs memory for the samples in float64, for a matrix of
    n + m by ``permutations`` numbers, and for a block of distances.

    Args:
        x: samples ``(n, *event)``, n ≥ 2.
        y: samples ``(m, *event)``, m ≥ 2, independent of x (`scoresde.tuning.energy` is for pairs).
        permutations: their number, at least ``1 / (1 - level) - 1`` and at most 9,999.
        level: the probability of the interval and of the floor, in (0, 1).
        seed: of the permutations.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices differ, or there are too few samples or permutations.
        NonFiniteError: a sample has NaN or infinite values.

    Example:
        >>> from scoresde.trust.two_samples import energy_test
        >>> x, y = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(1))
        >>> energy_test(x, y, seed=0).significant, energy_test(x, y + 1, seed=0).p_value
        (False, 0.005)

    References:
        Székely, Rizzo (2013), Energy statistics: A class of statistics based on distances.
        https://doi.org/10.1016/j.jspi.2013.03.018
    """
    x, y = _pair("y", x, y)
    _check_permutations(permutations, level)
    generator = torch.Generator().manual_seed(fold(seed, _STREAM))
    rows, unit = _scaled(x, y)
    n, m, total = len(x), len(y), len(rows)
    marks = rows.new_zeros(total, permutations + 1)  # which rows are x, in the given order and in the permutations
    marks[:n, 0] = 1
    for k, order in enumerate(_orders(total, permutations, rows.device, generator)):
        marks[order[:n], k + 1] = 1

    within, to_x, to_all = rows.new_zeros(permutations + 1), rows.new_zeros(total), rows.new_zeros(total)
    for block in _blocks(total, total):
        lengths = _lengths(rows[block], rows)
        lengths.diagonal(block.start).zero_()
        sums = lengths @ marks
        within += (marks[block] * sums).sum(0)
        to_x[block], to_all[block] = sums[:, 0], lengths.sum(1)
    from_x = to_all @ marks
    across, within_y = from_x - within, to_all.sum() - 2 * from_x + within
    values = 2 / (n * m) * across - within / (n * (n - 1)) - within_y / (m * (m - 1))
    value, null = float(values[0]), values[1:]

    to_y = to_all - to_x
    # With two samples, the only distance between them is the same for both, so any divisor will do.
    of_x = 2 * (to_y[:n] / m - to_x[:n] / max(n - 2, 1))
    of_y = 2 * (to_x[n:] / n - to_y[n:] / max(m - 2, 1))
    jackknife, noise = float(of_x.var() / n + of_y.var() / m), float(null.square().mean())
    size = max(value, math.sqrt(noise))
    slope, z = jackknife / size if size else 0.0, errors_to(level)
    centre, half = value + 0.5 * z**2 * slope, z * math.sqrt(noise + slope * max(value, 0.0) + (0.5 * z * slope) ** 2)
    p_value, floor = _permutation_test(value, null.cpu().numpy(), level, float(to_all.mean()) / total)
    return EnergyTest(value * unit, ((centre - half) * unit, (centre + half) * unit), level, floor * unit, p_value)


@dataclass(frozen=True, eq=False, repr=False)
class SlicedWasserstein(_Comparison):
    """The result of `sliced_wasserstein`.

    Attributes:
        value: the distance without the part of finite samples, 0 where ``square`` is negative.
        interval: the lower and the upper end of its interval, at least 0.
        level: the probability of the interval and of the floor.
        floor: the value that samples of one distribution stay below with probability ``level``, by permutations.
        p_value: the share of permutations that give at least this value, the given order included.
        square: the estimate of the squared distance, ``plain**2 - subtracted**2``, which may be negative.
        plain: the distance of the two sets, which is above 0 for samples of one distribution, too.
        subtracted: what two sets of these sizes give on average if they have one distribution.

    Example:
        >>> SlicedWasserstein(0.4, (0.3, 0.5), 0.95, 0.1, 0.005, 0.16, 0.5, 0.3)
        SlicedWasserstein(value=0.4, 95 % interval=0.3 to 0.5, floor=0.1, p_value=0.005, plain=0.5, subtracted=0.3)
    """

    square: float
    plain: float
    subtracted: float

    def _summary(self) -> dict[str, str]:
        return {**super()._summary(), "plain": f"{self.plain:.4g}", "subtracted": f"{self.subtracted:.4g}"}


@checked
def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    held_out: Tensor | None = None,
    *,
    projections: Annotated[int, integer(low=2, high=10_000)] = 128,
    permutations: int = 199,
    level: Level = 0.95,
    seed: Seed,
) -> SlicedWasserstein:
    r"""The sliced 2-Wasserstein distance of two distributions, without the floor that finite samples add.

    .. math:: SW_2^2 = E_\theta\int_0^1\bigl(Q^x_\theta(u) - Q^y_\theta(u)\bigr)^2du

    with :math:`\theta` uniform on the sphere and :math:`Q_\theta` the quantile functions of :math:`\theta\cdot x` and
    :math:`\theta\cdot y`. A shift by c has :math:`SW_2 = \|c\|/\sqrt D` in D dimensions. For quantile functions
    :math:`\hat Q` of independent samples,

    .. math:: E\int(\hat Q^x - \hat Q^y)^2 = \int(E\hat Q^x - E\hat Q^y)^2 + \int\mathrm{Var}\,\hat Q^x +
        \int\mathrm{Var}\,\hat Q^y,

    so the sum of the variances, which is the floor of finite samples, subtracts in squares. It is estimated as the mean
    over random permutations of the pooled samples, which also give the p-value, exact as that of `energy_test`. If the
    distributions differ much, the pool has a higher floor than either, which matters little beside the distance;
    ``held_out`` avoids it.

    The interval is symmetric in squares. Its standard error is the root of the sum of squares of two: that of random
    halves of both sets (the jackknife that leaves out half of the samples), and that of the directions.

    Args:
        x: samples ``(n, *event)``, n ≥ 2.
        y: samples ``(m, *event)``, m ≥ 2, independent of x, such as data.
        held_out: more samples of the distribution of y, ``(k, *event)``. If given, the floor is that of random splits
            of y and these. If they are fewer than n + m, the splits are smaller, and the floor is scaled as the inverse
            of their size, which gives too little for distributions with gaps.
        projections: the number of directions, from 2 to 10,000; in one dimension there is one.
        permutations: their number, and that of the halves; at least ``1 / (1 - level) - 1`` and at most 9,999.
        level: the probability of the interval and of the floor, in (0, 1).
        seed: of the directions, permutations and halves.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices differ, or there are too few samples or permutations.
        NonFiniteError: a sample has NaN or infinite values.

    Example:
        >>> from scoresde.trust.two_samples import sliced_wasserstein
        >>> x, y = torch.randn(2, 1000, 1, generator=torch.Generator().manual_seed(0))
        >>> low, high = sliced_wasserstein(x, y + 0.5, seed=0).interval
        >>> low < 0.5 < high
        True

    References:
        Bonneel, Rabin, Peyré, Pfister (2015), Sliced and Radon Wasserstein Barycenters of Measures.
        https://doi.org/10.1007/s10851-014-0506-3
        Shao, Wu (1989), A General Theory for Jackknife Variance Estimation. https://doi.org/10.1214/aos/1176347263
    """
    x, y = _pair("y", x, y)
    more = None if held_out is None else _pair("held_out", x, held_out)[1]
    _check_permutations(permutations, level)
    generator = torch.Generator().manual_seed(fold(seed, _STREAM))
    z, unit = _scaled(x, y, *([] if more is None else [more]))
    n, m = len(x), len(y)
    directions = torch.randn(projections, z.shape[1], generator=generator, dtype=z.dtype, device="cpu")
    directions = functional.normalize(directions) if z.shape[1] > 1 else torch.ones(1, 1, dtype=z.dtype)
    slices = (directions.to(z) @ z.T).cpu().numpy()  # (projections, rows)

    def orders(size: int) -> Iterator[np.ndarray]:
        return (order.numpy() for order in _orders(size, permutations, torch.device("cpu"), generator))

    pool, rows = _Sorted(slices[:, : n + m]), np.arange(n + m)
    given = pool.squares(rows[:n], rows[n:])
    plain = float(given.mean())
    null = np.array([pool.squares(order[:n], order[n:]).mean() for order in orders(n + m)])
    floor = float(null.mean())
    if more is not None:
        data, share = _Sorted(slices[:, n:]), min(1.0, (m + len(more)) / (n + m))
        a, b = max(1, int(share * n)), max(1, int(share * m))
        splits = [data.squares(order[:a], order[a : a + b]).mean() for order in orders(m + len(more))]
        floor = float(np.mean(splits)) * (1 / n + 1 / m) / (1 / a + 1 / b)
    pairs = zip(orders(n), orders(m), strict=True)
    halves = np.array([pool.squares(i[: n // 2], n + j[: m // 2]).mean() for i, j in pairs])
    variance = halves.var(ddof=1) + (given.var(ddof=1) / len(given) if len(given) > 1 else 0.0)
    p_value, edge = _permutation_test(plain, null, level, plain)
    square, half = plain - floor, errors_to(level) * math.sqrt(variance)

    def root(value: float) -> float:
        return math.sqrt(max(0.0, value)) * unit

    ends = root(square - half), root(square + half)
    return SlicedWasserstein(
        root(square), ends, level, root(edge - floor), p_value, square * unit**2, root(plain), root(floor)
    )


class _Sorted:
    """Numbers sorted in rows, of which subsets are taken in this order without sorting them."""

    def __init__(self, slices: np.ndarray) -> None:
        self.count, self.size = slices.shape
        order = slices.argsort(1)
        self.values, self.order = np.take_along_axis(slices, order, 1).ravel(), order.ravel()

    def take(self, columns: np.ndarray) -> np.ndarray:
        """The numbers of some columns of the slices, sorted, ``(slices, columns)``."""
        chosen = np.zeros(self.size, dtype=bool)
        chosen[columns] = True
        return np.compress(chosen.take(self.order), self.values).reshape(self.count, -1)

    def squares(self, columns: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The squared 2-Wasserstein distance of two subsets of the columns in each slice, ``(slices,)``."""
        a, b = self.take(columns), self.take(others)
        n, m = len(columns), len(others)
        if n == m:
            difference, widths = a - b, np.full(n, 1 / n)
        else:  # the quantile functions are constant between the multiples of 1/n and 1/m, here in units of 1/nm
            ends = np.sort(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))
            difference = a[:, (ends - 1) // m] - b[:, (ends - 1) // n]
            widths = np.diff(ends, prepend=0) / (n * m)
        squares: np.ndarray = np.square(difference, out=difference) @ widths
        return squares


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierTest(_Comparison):
    """The result of `classifier_test`.

    Attributes:
        value: the accuracy of the classifier on held-out samples, half of them from each set.
        interval: its Clopper–Pearson interval.
        level: the probability of the interval, the floor and ``total_variation``.
        floor: the accuracy that guessing exceeds with a probability of at most ``1 - level``.
        p_value: the probability that guessing is at least as accurate.
        total_variation: the lower bound of the total variation distance, at least 0.
        tested: the number of held-out samples.

    Example:
        >>> ClassifierTest(0.75, (0.7, 0.8), 0.95, 0.54, 1e-9, 0.42, 400)
        ClassifierTest(value=0.75, 95 % interval=0.7 to 0.8, floor=0.54, p_value=1e-09, total_variation=0.42)
    """

    total_variation: float
    tested: int

    def _summary(self) -> dict[str, str]:
        return {**super()._summary(), "total_variation": f"{self.total_variation:.4g}"}


@checked
def classifier_test(
    x: Tensor,
    y: Tensor,
    *,
    features: Annotated[Callable[[Tensor], Tensor], called("features(x)")] | None = None,
    level: Level = 0.95,
    seed: Seed,
) -> ClassifierTest:
    r"""Bound the total variation distance of two distributions from below, by a classifier that separates the samples.

    A classifier with accuracy a on balanced classes shows that

    .. math:: TV = \sup_A|P(x \in A) - P(y \in A)| \ge 2a - 1.

    A random half of each set trains two: a linear one and a network with two hidden layers of 64 units, both of the
    standardised elements of a sample and of their mean square, by AdamW. The one that is best on a fifth of that half,
    after the epoch in which it is, is tested on the other half, which has as many samples of x as of y. The bound is
    :math:`2\underline a - 1`, with :math:`\underline a` the one-sided Clopper–Pearson limit of its accuracy; it is
    wrong with a probability of at most ``1 - level``, however good the classifier is. A bound near 0 means that these
    classifiers found nothing, not that the distributions are close.

    Args:
        x: samples ``(n, *event)``, n ≥ 4.
        y: samples ``(m, *event)``, m ≥ 4, independent of x. Of the larger set, a random part is used.
        features: a function of samples ``(k, *event)`` that returns ``(k, *features)``, for the classifier to use
            instead of the elements. It is called with at most 1,000 samples, without gradients, and must treat samples
            independently. The bound also holds for x and y, since a function of them cannot be farther apart.
        level: the probability of the bound, the interval and the floor, in (0, 1).
        seed: of the halves, the first weights and the batches.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices differ, or there are fewer than 4 samples.
        NonFiniteError: a sample or its features have NaN or infinite values.

    Example:
        >>> from scoresde.trust.two_samples import classifier_test
        >>> x, y = torch.randn(2, 400, 2, generator=torch.Generator().manual_seed(0))
        >>> bound = classifier_test(x, y + 1, seed=0).total_variation
        >>> 0.2 < bound < math.erf(0.5)  # the exact distance, for a shift by sqrt(2)
        True

    References:
        Lopez-Paz, Oquab (2017), Revisiting Classifier Two-Sample Tests. https://arxiv.org/abs/1610.06545
        Clopper, Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
        https://doi.org/10.1093/biomet/26.4.404
        Hoeffding (1956), On the Distribution of the Number of Successes in Independent Trials, theorem 4: the limit
        also holds for a fixed number of each class. https://doi.org/10.1214/aoms/1177728178
    """
    from scipy.stats import beta, binom

    x, y = _pair("y", x, y, least=4)
    generator = torch.Generator().manual_seed(fold(seed, _STREAM))
    size = min(len(x), len(y))
    parts = [next(_orders(len(v), 1, v.device, generator))[:size] for v in (x, y)]
    inputs = [_features(v[order], features) for v, order in zip((x, y), parts, strict=True)]
    first, second = (torch.stack([v[s] for v in inputs], 1) for s in (slice(size // 2), slice(size // 2, None)))
    classify = _train(first, generator)  # (pairs, 2, features)
    scores = classify(second)
    tested = scores.numel()
    right = int((scores[:, 0] <= 0).sum() + (scores[:, 1] > 0).sum())

    def limits(tail: float) -> tuple[float, float]:
        low = float(beta.ppf(tail, right, tested - right + 1)) if right else 0.0
        high = float(beta.isf(tail, right + 1, tested - right)) if right < tested else 1.0
        return low, high

    floor, p_value = float(binom.isf(1 - level, tested, 0.5)) / tested, float(binom.sf(right - 1, tested, 0.5))
    least = max(0.0, 2 * limits(1 - level)[0] - 1)
    return ClassifierTest(right / tested, limits(0.5 * (1 - level)), level, floor, p_value, least, tested)


def _features(x: Tensor, features: Callable[[Tensor], Tensor] | None) -> Tensor:
    """What the classifier receives, as float64 ``(n, features)``."""
    if features is None:
        return x.to(torch.float64).flatten(1)
    blocks = []
    with torch.no_grad():
        for start in range(0, len(x), _FEATURE_ROWS):
            block = x[start : start + _FEATURE_ROWS]
            found = check_tensor("features(x)", features(block))
            if found.ndim < 1 or len(found) != len(block) or not found.numel():
                raise InvalidArgumentError(
                    f"`features` must return one row per sample, ({len(block)}, ...), got shape {tuple(found.shape)}."
                )
            blocks.append(found.to(torch.float64).reshape(len(block), -1))
    if len({block.shape[1] for block in blocks}) > 1:
        raise InvalidArgumentError("`features` must return features of one shape, got different ones.")
    check_finite_rows("`features(x)`", rows := torch.cat(blocks))
    return rows


def _train(pairs: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A classifier of features ``(..., d)``, trained on pairs of a sample of x and one of y, ``(n, 2, d)``; it is
    positive where it takes a sample for one of y."""
    device, width = pairs.device, pairs.shape[-1]
    kept = max(1, len(pairs) // 5)  # to judge the epochs
    rows = pairs[kept:].flatten(0, 1)
    centre, spread = rows.mean(0), rows.std(0)
    spread = torch.where(spread > 1e-12 * rows.abs().amax(0), spread, 1.0)

    def inputs(features: Tensor) -> Tensor:
        """Standard features, so scaled that their length is about 1, and what their length adds to that."""
        z = ((features - centre) / spread).clamp(-_FARTHEST, _FARTHEST)
        length = (z.square().mean(-1, keepdim=True) - 1) * math.sqrt(width / 2)
        return torch.cat([z / math.sqrt(width), length], -1).to(torch.float32)

    def logits(x: Tensor, layers: list[Tensor]) -> Tensor:
        for weight, shift in zip(layers[:-2:2], layers[1:-2:2], strict=True):
            x = functional.silu(x @ weight + shift)
        return (x @ layers[-2] + layers[-1]).squeeze(-1)

    def loss(x: Tensor, layers: list[Tensor]) -> Tensor:
        found = logits(x, layers)
        return 0.5 * (functional.softplus(found[:, 0]) + functional.softplus(-found[:, 1])).mean()

    with torch.inference_mode(False), torch.enable_grad():
        data, judged = inputs(pairs[kept:]), inputs(pairs[:kept])
        epochs = max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / math.ceil(len(data) / _BATCH)))
        best: list[Tensor] = []
        least = math.inf
        for sizes, rate in (((width + 1, 1), _LINEAR_RATE), ((width + 1, _HIDDEN, _HIDDEN, 1), _RATE)):
            layers = []
            for a, b in pairwise(sizes):
                weight = torch.randn(a, b, generator=generator, dtype=torch.float32, device="cpu")
                scale = 0.0 if b == 1 else 1.0 if a == width + 1 else 1 / math.sqrt(a)
                layers += [scale * weight, torch.zeros(b, dtype=torch.float32, device="cpu")]
            layers = [v.to(device).requires_grad_() for v in layers]
            optimizer = torch.optim.AdamW(layers, lr=rate, weight_decay=_DECAY)
            for order in _orders(len(data), epochs, device, generator):
                for start in range(0, len(order), _BATCH):
                    optimizer.zero_grad()
                    torch.autograd.backward(loss(data[order[start : start + _BATCH]], layers))
                    optimizer.step()
                reached = float(loss(judged, layers).detach())
                if reached < least:
                    best, least = [v.detach().clone() for v in layers], reached
    return lambda features: logits(inputs(features), best)


@dataclass(frozen=True, eq=False, repr=False)
class Nearest(_Comparison):
    """The result of `nearest`.

    Attributes:
        value: the probability that a sample is nearer to the data than a held-out row, ties counted as half: 0.5 if
            nothing is copied, 1 if all samples are copies.
        interval: the lower and the upper end of its interval.
        level: the probability of the interval and of the floor.
        floor: the value that samples like the held-out rows stay below with probability ``level``.
        p_value: that of the Mann–Whitney test, small if samples are nearer than held-out rows.
        z: the Mann–Whitney statistic in standard errors, negative if samples are nearer.
        share: the share of samples that are nearer than ``radius``.
        expected: its mean if nothing is copied, about ``quantile``.
        share_p_value: the probability of at least this share if nothing is copied.
        radius: the ``quantile`` of the held-out distances.
        distances: from each sample to the nearest row of the data, ``(n,)`` float64.
        indices: of these rows, ``(n,)``.
        held_out_distances: likewise from the held-out rows, ``(m,)``.

    Example:
        >>> one = torch.ones(1)
        >>> shown = Nearest(
        ...     0.9, (0.8, 1), 0.95, 0.6, 0.01, -3, 0.5, 0.05, 0.01, 1, one, one, one
        ... )
        >>> shown
        Nearest(value=0.9, 95 % interval=0.8 to 1, floor=0.6, p_value=0.01, share=0.5, expected=0.05)
        >>> shown.memorised
        True
    """

    z: float
    share: float
    expected: float
    share_p_value: float
    radius: float
    distances: Tensor
    indices: Tensor
    held_out_distances: Tensor

    @property
    def memorised(self) -> bool:
        """Whether one of the two p-values is at most half of ``1 - level``, so that the false-alarm rate is at most
        ``1 - level``."""
        return _at_most(min(self.p_value, self.share_p_value), 0.5 * (1 - self.level))

    def _summary(self) -> dict[str, str]:
        return {**super()._summary(), "share": f"{self.share:.4g}", "expected": f"{self.expected:.4g}"}


@checked
def nearest(
    x: Tensor,
    data: Tensor,
    held_out: Tensor | None = None,
    *,
    quantile: Annotated[float, number(low=0.0, high=1.0, strict=True)] = 0.05,
    level: Level = 0.95,
) -> Nearest:
    r"""Test whether samples are nearer to the training data than held-out data are, as copies would be.

    With :math:`d_i = \min_j\|x_i - a_j\|` the distances of samples to the data a, and :math:`h_k` those of held-out
    rows, the value is

    .. math:: P(d < h) + \tfrac12P(d = h),

    estimated over all pairs. Its interval is that of DeLong et al., with a sample on either side added to each set, so
    that it has a width where all samples are copies. ``z`` is the statistic :math:`C_T` of Meehan et al. with one cell.
    Where only some samples are copies, most of the distances do not change; the share of samples that are nearer than
    the k-th of m held-out distances then shows more. If nothing is copied, the number of these samples is beta-binomial
    with the mean :math:`nk/(m+1)`, which is exact for any distribution.

    Samples of poor quality, far from all data, hide copies among the others in the value, but not in the share.

    Args:
        x: samples ``(n, *event)``, n ≥ 2.
        data: the training data, ``(N, *event)``, N ≥ 2.
        held_out: data of the same distribution that were not used in training, ``(m, *event)``, m ≥ 2. None takes
            evenly spaced rows of the data in their place, about as many as there are samples, each compared with the
            other rows; rows that occur twice in the data then hide copies of the data.
        quantile: the share of held-out rows within ``radius``, in (0, 1); it is rounded to a multiple of 1/(m + 1).
        level: the probability of the interval and of the floor, in (0, 1).

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices differ, or there are fewer than 2 samples.
        NonFiniteError: a sample has NaN or infinite values.

    Example:
        >>> from scoresde.trust.two_samples import nearest
        >>> data, held_out, x = torch.randn(
        ...     3, 500, 3, generator=torch.Generator().manual_seed(0)
        ... )
        >>> nearest(x, data, held_out).memorised
        False
        >>> copies = data[:100] + 1e-3
        >>> nearest(copies, data, held_out).memorised
        True
        >>> bool((nearest(copies, data).indices == torch.arange(100)).all())
        True

    References:
        Meehan, Chaudhuri, Dasgupta (2020), A Non-Parametric Test to Detect Data-Copying in Generative Models.
        https://arxiv.org/abs/2004.05675
        DeLong, DeLong, Clarke-Pearson (1988), Comparing the Areas under Two or More Correlated Receiver Operating
        Characteristic Curves. https://doi.org/10.2307/2531595
    """
    from scipy.stats import betabinom, norm

    x, data = _pair("data", x, data)
    rest = None if held_out is None else _pair("held_out", x, held_out)[1]
    distances, indices = _to_nearest(x, data)
    if rest is None:
        own = torch.arange(0, len(data), max(1, len(data) // len(x)), device=data.device)
        others, _ = _to_nearest(data[own], data, own)
    else:
        others, _ = _to_nearest(rest, data)
    n, m = len(distances), len(others)

    nearer = _shares_above(distances, others)  # of held-out rows, for each sample
    farther = 1 - _shares_above(others, distances)  # of samples nearer, for each held-out row
    value, ends = float(nearer.mean()), nearer.new_tensor([0.0, 1.0])
    error = math.sqrt(sum(float(torch.cat([v, ends]).var()) / len(v) for v in (nearer, farther)))
    half = errors_to(level) * error
    ties = torch.unique_consecutive(torch.cat([distances, others]).sort()[0], return_counts=True)[1].to(torch.float64)
    tied = float((ties**3 - ties).sum()) / ((n + m) * (n + m - 1))
    spread = math.sqrt(max(0.0, n + m + 1 - tied) / (12 * n * m))
    z = (0.5 - value) / spread if spread else 0.0

    k = min(m, max(1, round(quantile * (m + 1))))
    radius = float(others.sort()[0][k - 1])
    count = int((distances < radius).sum())
    interval = max(0.0, value - half), min(1.0, value + half)
    floor, p_value = 0.5 + float(norm.isf(1 - level)) * spread, float(norm.cdf(z))
    p_share = float(betabinom.sf(count - 1, n, k, m + 1 - k))
    return Nearest(
        value, interval, level, floor, p_value, z, count / n, k / (m + 1), p_share, radius, distances, indices, others
    )


def _shares_above(values: Tensor, others: Tensor) -> Tensor:
    """The share of others that is larger than each value, ties counted as half."""
    others = others.sort()[0]
    below, up_to = (torch.searchsorted(others, values, right=right) for right in (False, True))
    return 1 - (below + up_to).to(torch.float64) / (2 * len(others))


def _to_nearest(x: Tensor, data: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances to the nearest rows of the data, and their indices; without the row ``own`` of each, if given."""
    centre = data.flatten(1).mean(0, dtype=torch.float64)
    a = x.flatten(1) - centre
    least, where = torch.full((len(a),), math.inf, dtype=a.dtype, device=a.device), torch.zeros_like(a[:, 0]).long()
    for rows in _blocks(len(data), max(a.shape)):
        lengths = _lengths(a, data[rows].flatten(1) - centre)
        if own is not None:
            here = (own >= rows.start) & (own < rows.stop)
            lengths[here, own[here] - rows.start] = math.inf
        found, index = lengths.min(1)
        closer = found < least
        least, where = torch.where(closer, found, least), torch.where(closer, index + rows.start, where)
    # The products of `_lengths` cancel for copies, so the distances of the rows found are computed directly.
    for rows in _blocks(len(a), a.shape[1]):
        there = data[where[rows]].flatten(1).to(a.dtype)
        least[rows] = (x[rows].flatten(1).to(a.dtype) - there).norm(dim=1)
    return least, where


def _pair(name: str, x: Tensor, y: Tensor, *, least: int = 2) -> tuple[Tensor, Tensor]:
    """x and another set of samples, called ``name``, if they can be compared."""
    for key, value in (("x", x), (name, y)):
        check_not_empty(key, check_state(key, value))
        if len(value) < least:
            raise InvalidArgumentError(f"`{key}` must have at least {least} samples, got {len(value)}.")
        check_finite_rows(f"`{key}`", value)
        if float(value.detach().abs().max()) > _LARGEST:
            raise InvalidArgumentError(f"`{key}` must have elements of at most {_LARGEST:g}; divide all by one number.")
    check_batch(name, y, tuple(x.shape[1:]))
    if x.device != y.device:
        raise InvalidArgumentError(f"`{name}` must be on {x.device}, like `x`, got {y.device}; write .to(x.device).")
    return x.detach(), y.detach()


def _check_permutations(permutations: int, level: float) -> None:
    """Refuse a number of permutations with which no p-value is as small as ``1 - level``."""
    needed = math.ceil(1 / (1 - level) - 1e-9) - 1
    hint = f" With fewer than {needed}, no p-value is as small as 1 - level." if needed > 2 else ""
    check_integer("permutations", permutations, low=max(2, needed), high=_MOST_PERMUTATIONS, hint=hint)


def _scaled(*sets: Tensor) -> tuple[Tensor, float]:
    """All sets as float64 ``(rows, elements)`` about the first row and at most 1, and the unit of their elements."""
    z = torch.cat([v.to(torch.float64).flatten(1) for v in sets])
    z = z - z[0]  # equal rows become exactly 0, which they do not about their mean
    unit = float(z.abs().max()) or 1.0
    return z / unit, unit


def _orders(size: int, count: int, device: torch.device, generator: torch.Generator) -> Iterator[Tensor]:
    """Random permutations of some rows."""
    for _ in range(count):
        yield torch.randperm(size, generator=generator, device="cpu").to(device)


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of some rows, such that a block of them has a limited number of elements."""
    size = max(1, _BLOCK // width)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _lengths(a: Tensor, b: Tensor) -> Tensor:
    """Distances of all pairs of rows, by a product of matrices: their error is about 1e-8 of the rows' lengths."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


def _permutation_test(value: float, null: np.ndarray, level: float, size: float) -> tuple[float, float]:
    """The p-value of a value among those of permutations, and the value that it must exceed to be significant; all are
    sums of numbers of a size, by which their rounding is judged."""
    count = len(null) + 1
    p_value = (1 + int((null >= value - 1e-10 * size).sum())) / count
    allowed = math.floor(count * (1 - level) + 1e-9)
    return p_value, float(np.sort(null)[-min(allowed, len(null))])


def _at_most(p_value: float, rate: float) -> bool:
    return p_value <= rate + 1e-12  # 1 - 0.9 is less than 0.1
