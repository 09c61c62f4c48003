r"""Where the diffusion term is evaluated and with which weight, and how the levels are drawn.

In continuous time the term is :math:`\tfrac12\int E\|\varepsilon-\hat\varepsilon\|^2\,d\gamma` with
:math:`d\gamma = (g^2/\sigma^2)\,dt`; on a grid it is :math:`\tfrac12\sum_i\mathrm{expm1}(\gamma_i-\gamma_{i-1})
E\|\varepsilon-\hat\varepsilon\|_i^2`. Either is the mean over uniform u of a weight w(u) times half the square at a
level that u chooses. Drawn on the clock ``"log_snr"`` the weight is constant: this is the importance sampling with
:math:`t \propto g^2/\sigma^2`, which for every affine process is uniform in :math:`\gamma`, so that `AffineSDE.time`
inverts it.

A design of the draws gives numbers in [0, 1), ``(count, batch)``, every one of them uniform, and has a standard error
for the mean of a function of them:

- *stratified*: each sample's interval is cut into strata of two draws (one of three if their number is odd). What
  changes from level to level then hardly counts, and the differences within the strata give an unbiased variance.
  Where values are w(u) q with weights w that vary much inside a stratum, few draws seldom see the largest weights, and
  most estimates of the variance are too small. The weights are known, though, and with them the larger part of it,

  .. math:: \mathrm{Var}[wq] \approx E[w]^2\,\mathrm{Var}[q] + \mathrm{Var}[w]\,E[q^2],

  for a q that does not depend on the weight; an interval takes the larger of the two variances.
- *even*: each sample's draws are an even grid, and the grids of the samples interleave to one of all, which a single
  uniform number shifts (low discrepancy). The standard error is that of strata, and a little too large.
- *independent*: independent draws, with the usual standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ...core.sdes import AffineSDE, Node
from .result import Term, pooled_freedom


@dataclass(frozen=True)
class BoundLevels:
    """Where the term is evaluated.

    Attributes:
        at: from u in [0, 1), ``(batch,)``, to the nodes and the weights, ``(batch,)``.
        moments: from the edges of strata of u, ``(strata + 1,)``, to the means of the weight and of its square in each;
            None where the weight is constant.
    """

    at: Callable[[Tensor], tuple[Node[Tensor], Tensor]]
    moments: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


CLOCKS = ("log_snr", "time")
_POINTS = 16


def continuous(sde: AffineSDE, clock: str) -> BoundLevels:
    """All levels from t_min to t_max.

    Example:
        >>> import scoresde
        >>> node, weight = continuous(scoresde.VDMSDE(), "log_snr").at(
        ...     torch.tensor([0.5], dtype=torch.float64)
        ... )
        >>> # of gamma from -13.3 to 5
        >>> (round(float(-2 * node.lam), 6), round(float(weight), 6))
        (-4.15, 18.3)
    """
    low, high = (-2 * sde.node(t).lam for t in (sde.t_min, sde.t_max))

    def by_log_snr(u: Tensor) -> tuple[Node[Tensor], Tensor]:
        t = sde.time(-(low + (high - low) * u)).clamp(sde.t_min, sde.t_max)
        return sde.nodes(t), torch.full_like(u, high - low)

    def by_time(u: Tensor) -> tuple[Node[Tensor], Tensor]:
        node = sde.nodes(sde.t_min + (sde.t_max - sde.t_min) * u)
        return node, weight(node)

    def weight(node: Node[Tensor]) -> Tensor:
        return (sde.t_max - sde.t_min) * node.g2 / (node.sigma * node.sigma)

    def moments(edges: Tensor) -> tuple[Tensor, Tensor]:
        """With w du = dgamma: the first exactly, the second by a quadrature in gamma, where w is smooth."""
        gamma = -2 * sde.nodes(sde.t_min + (sde.t_max - sde.t_min) * edges).lam
        points, parts = (torch.from_numpy(v).to(edges) for v in leggauss(_POINTS))
        inside = gamma[:-1, None] + gamma.diff()[:, None] * 0.5 * (points + 1)
        t = sde.time(-inside.flatten()).clamp(sde.t_min, sde.t_max)
        first = gamma.diff() / edges.diff()
        return first, first * (weight(sde.nodes(t)).reshape(inside.shape) @ parts) / 2

    return BoundLevels(by_log_snr) if clock == "log_snr" else BoundLevels(by_time, moments)


def discrete(sde: AffineSDE, times: Tensor, clock: str) -> BoundLevels:
    """The noisier ends of the steps of a grid (rising times), chosen in proportion to their weight or to their length.

    Example:
        >>> import scoresde
        >>> levels = discrete(
        ...     scoresde.VDMSDE(), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), "time"
        ... )
        >>> levels.at(torch.tensor([0.2, 0.9], dtype=torch.float64))[0].t
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    nodes = sde.nodes(times)
    gaps = torch.expm1(-2 * nodes.lam.diff())
    pick = choose(gaps if clock == "log_snr" else times.diff())

    def levels(u: Tensor) -> tuple[Node[Tensor], Tensor]:
        index, inverse = pick(u)
        return Node(*(v[index + 1] for v in nodes)), gaps[index] * inverse

    def moments(edges: Tensor) -> tuple[Tensor, Tensor]:
        ends = (times - times[0]) / (times[-1] - times[0])
        upper, lower = torch.minimum(edges[1:, None], ends[1:]), torch.maximum(edges[:-1, None], ends[:-1])
        shares = (upper - lower).clamp_min(0.0) / edges.diff()[:, None]  # of each step in each stratum
        weight = gaps / ends.diff()
        return shares @ weight, shares @ weight.square()

    return BoundLevels(levels) if clock == "log_snr" else BoundLevels(levels, moments)


def choose(shares: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From u in [0, 1) to an index that has a probability in proportion to its share, and to the inverse of that.

    Example:
        >>> choose(torch.tensor([1.0, 3.0]))(torch.tensor([0.2, 0.3, 0.9]))
        (tensor([0, 1, 1]), tensor([4.0000, 1.3333, 1.3333]))
    """
    edges = shares.cumsum(0)

    def pick(u: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.searchsorted(edges, u * edges[-1], right=True).clamp_max(len(shares) - 1)
        return index, edges[-1] / shares[index]

    return pick


# ---- designs of the draws


class BoundWeights(NamedTuple):
    """Known weights of values: those drawn, ``(count, batch)``, and the means of the weight and of its square in each
    stratum, ``(strata,)``."""

    drawn: Tensor
    mean: Tensor
    square: Tensor


class Design(NamedTuple):
    """How numbers are drawn, ``(count, batch)``; the mean of the values that they led to, of the same shape; whether
    they are drawn in strata, whose mean takes `BoundWeights`."""

    draw: Callable[[int, int, torch.Generator | None, torch.device], Tensor]
    mean: Callable[..., Term]
    strata: bool


def independent_mean(values: Tensor) -> Term:
    """The mean of independent draws along axis 0.

    Example:
        >>> term = independent_mean(torch.tensor([[1.0], [3.0]]))
        >>> term.value, term.std_error
        (tensor([2.]), tensor([1.]))
    """
    freedom = torch.full(values.shape[1:], len(values) - 1.0, dtype=torch.float64, device=values.device)
    return Term(values.mean(0), (_variance(values) / len(values)) ** 0.5, freedom=freedom)


def stratified_mean(values: Tensor, weights: BoundWeights | None = None) -> Term:
    r"""The mean of draws in strata of 2 or 3: the variance is :math:`\sum_j (n_j/n)^2 s_j^2/n_j`.

    Example:
        >>> term = stratified_mean(torch.tensor([[1.0], [3.0], [7.0], [7.0]]))
        >>> term.value, term.std_error
        (tensor([4.5000]), tensor([0.5000]))
    """
    count, sizes = len(values), _sizes(len(values))
    whole = sum(len(part) * _variance(part) for part in values.split(sizes))
    std_error = (whole / count**2) ** 0.5
    size = torch.tensor(sizes, dtype=torch.float64, device=values.device)[:, None]
    each = _by_stratum(values, _variance) * size / count**2
    freedom = pooled_freedom(each, size - 1)
    if weights is None:
        return Term(values.mean(0), std_error, freedom=freedom)
    q, mean, square = values / weights.drawn, weights.mean[:, None], weights.square[:, None]
    within = mean.square() * _by_stratum(q, _variance) * size / count**2
    squares = q.square()
    among = (square - mean.square()).clamp_min(0.0) * _by_stratum(squares, lambda part: part.mean(0)) * size / count**2
    # the squared coefficient of variation of q^2, of all strata together
    scatter = _by_stratum(squares, _variance).sum(0) / _by_stratum(squares, _product).sum(0)
    known = pooled_freedom(torch.cat([within, among]), torch.cat([(size - 1).expand_as(within), 2 * size / scatter]))
    variance = (within + among).sum(0)
    larger = variance > std_error.square()
    return Term(
        values.mean(0), std_error, torch.where(larger, variance.sqrt(), std_error), torch.where(larger, known, freedom)
    )


def _by_stratum(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``(strata, batch)``."""
    return torch.stack([function(part) for part in values.split(_sizes(len(values)))])


def _product(values: Tensor) -> Tensor:
    """The mean product of two different values along axis 0."""
    return (values.sum(0).square() - values.square().sum(0)) / (len(values) * (len(values) - 1))


def _variance(values: Tensor) -> Tensor:
    """Along axis 0, NaN of one value; of empty batches, too, which `Tensor.var` warns of."""
    if len(values) < 2:
        return torch.full_like(values[0], math.nan)
    return (values - values.mean(0)).square().sum(0) / (len(values) - 1)


def _sizes(count: int) -> list[int]:
    """The sizes of the strata: pairs, and one of three if the number is odd."""
    return [2] * (count // 2) if count % 2 == 0 else [2] * ((count - 3) // 2) + [3]


def stratum_edges(count: int, device: torch.device) -> Tensor:
    """The edges of the strata in [0, 1], ``(strata + 1,)``.

    Example:
        >>> stratum_edges(4, torch.device("cpu")).tolist()
        [0.0, 0.5, 1.0]
    """
    return torch.tensor([0, *_sizes(count)], dtype=torch.float64, device=device).cumsum(0) / count


def _stratified(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    sizes = torch.tensor(_sizes(count), device=device)
    begin, width = ((v.repeat_interleave(sizes) / count)[:, None].double() for v in (sizes.cumsum(0) - sizes, sizes))
    return (begin + width * _uniform(count, batch, generator, device)).clamp_max(_BELOW_ONE)


def _even(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    place = torch.randperm(batch, generator=generator, device=device)
    first = (place.to(torch.float64) + shift) / max(1, batch)
    return ((torch.arange(count, device=device)[:, None] + first) / count).clamp_max(_BELOW_ONE)


def _uniform(count: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.rand((count, batch), generator=generator, dtype=torch.float64, device=device)


_BELOW_ONE = math.nextafter(1.0, 0.0)

DESIGNS = {
    "stratified": Design(_stratified, stratified_mean, True),
    "even": Design(_even, stratified_mean, True),
    "independent": Design(_uniform, independent_mean, False),
}
