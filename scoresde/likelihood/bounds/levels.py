r"""Where the diffusion term is evaluated, and with which weight.

In continuous time the term is :math:`\tfrac12\int E\|\varepsilon-\hat\varepsilon\|^2\,d\gamma` with
:math:`d\gamma = (g^2/\sigma^2)\,dt`; on a grid it is :math:`\tfrac12\sum_i\mathrm{expm1}(\gamma_i-\gamma_{i-1})
E\|\varepsilon-\hat\varepsilon\|_i^2`. Either is the mean over uniform u of a weight w(u) times half the square at a
level that u chooses. Drawn on the clock ``"log_snr"`` the weight is constant: this is the importance sampling with
:math:`t \propto g^2/\sigma^2`, which for every affine process is uniform in :math:`\gamma`, so that `AffineSDE.time`
inverts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ...sdes import AffineSDE, Node


@dataclass(frozen=True)
class Levels:
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


def continuous(sde: AffineSDE, clock: str) -> Levels:
    """All levels from t_min to t_max.

    Example:
        >>> import scoresde
        >>> node, weight = continuous(scoresde.VDMSDE(), "log_snr").at(torch.tensor([0.5], dtype=torch.float64))
        >>> round(float(-2 * node.lam), 6), round(float(weight), 6)  # of gamma from -13.3 to 5
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

    return Levels(by_log_snr) if clock == "log_snr" else Levels(by_time, moments)


def discrete(sde: AffineSDE, times: Tensor, clock: str) -> Levels:
    """The noisier ends of the steps of a grid (rising times), chosen in proportion to their weight or to their length.

    Example:
        >>> import scoresde
        >>> levels = discrete(scoresde.VDMSDE(), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), "time")
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

    return Levels(levels) if clock == "log_snr" else Levels(levels, moments)


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
