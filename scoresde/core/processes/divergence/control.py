r"""A known field beside the network's.

With the exact field of a distribution of data, whose Jacobian K and its trace are closed formulas,

.. math:: \mathrm{tr}\,J = \mathrm{tr}(J - cK) + c\,\mathrm{tr}\,K,

and only the first trace is estimated. It has no bias for any c that does not depend on the probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....targets import Gaussian, GaussianMixture
from ...sdes import AffineSDE, Estimate, Node
from ...support.tensors import expand
from ..base import ReverseProcess
from ..coordinates import Coordinate


@dataclass(frozen=True)
class Control:
    """A control variate for the trace; see the module.

    Args:
        law: the distribution of the data whose field is the control.
        scale: c.
    """

    law: Gaussian | GaussianMixture
    scale: float = 1.0

    def product(self, sde: AffineSDE, coordinate: Coordinate, x: Tensor, node: Node, v: Tensor) -> Tensor:
        """c K v of vectors ``(batch, k, *event)``, like them. K is symmetric."""
        known = self.law.tangent(x, v, expand(node.alpha, x), expand(node.sigma, x))
        return self.scale * _slope(sde, coordinate, node, v, known)

    def trace(self, sde: AffineSDE, coordinate: Coordinate, x: Tensor, node: Node) -> Tensor:
        """c tr K, ``(batch,)`` float64."""
        wide = x.to(torch.float64)
        data, noise = self.law.trace(wide, expand(node.alpha, wide), expand(node.sigma, wide))
        size = torch.full((len(x), 1), float(x[0].numel()) if len(x) else 0.0, dtype=torch.float64, device=x.device)
        return self.scale * _slope(sde, coordinate, node, size, Estimate(data[:, None], noise[:, None]))[:, 0]


def _slope(sde: AffineSDE, coordinate: Coordinate, node: Node, v: Tensor, estimate: Estimate) -> Tensor:
    """The slope is linear in x and its estimates: that of their derivatives is the derivative of the slope."""
    request: Any = ReverseProcess(sde, None).slope(coordinate, v, node)  # type: ignore[arg-type]  # of no network
    slope: Tensor = request.read(estimate)
    return slope
