"""The error of a network's estimate."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._tensors import expand, row_finite
from ...errors import NonFiniteError
from ...processes import Network
from ...sdes import Estimate, Node


def estimated(network: Network, x: Tensor, noise: Tensor, node: Node) -> tuple[Estimate, Tensor]:
    r"""The network's estimate of the data at a level of noise, and :math:`\hat\varepsilon-\varepsilon` in float64.

    Raises:
        NonFiniteError: the network returned NaN or infinity.

    Example:
        >>> import scoresde
        >>> x, noise = torch.zeros(1, 2), torch.ones(1, 2)
        >>> estimated(Network(lambda x, t: 0 * x), x, noise, scoresde.VPSDE().node(0.5))[1]
        tensor([[-1., -1.]], dtype=torch.float64)
    """
    state = expand(node.alpha, x) * x + expand(node.sigma, x) * noise
    estimate = network.estimate(state, node)
    missed = estimate.noise.to(torch.float64) - noise.to(torch.float64)
    bad = ~torch.stack([row_finite(part) for part in (missed, *network.last)]).all(0)
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0].tolist()
        raise NonFiniteError(
            f"The score function returned NaN or infinity for {len(rows)} of {len(x)} samples (first: {rows[:5]}).",
            stage="score",
            indices=rows[:5],
        )
    return estimate, missed
