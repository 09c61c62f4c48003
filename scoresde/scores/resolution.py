r"""How finely a network resolves its input.

Where the states are far larger than the data, the noise that a sound network estimates is nearly linear in the state,
so that :math:`\hat\varepsilon(x + h) - 2\hat\varepsilon(x) + \hat\varepsilon(x - h)` with an h of a thousandth of x
or less is what the rounding inside of the network leaves: :math:`\sqrt 6` times its size. An adaptive solve mistakes
that for an error of its steps, and tolerances far below it cost many evaluations and are not reached.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .._checks import warn_caller
from .._context import cut
from ..sdes import AffineSDE
from .base import Score

_MOVED, _ROWS = 1e-3, 4  # of the state, at most


def resolution_of(
    score: Score,
    sde: AffineSDE,
    t: float,
    shape: Sequence[int],
    context: Mapping[str, Any],
    tolerance: float,
    **like: Any,
) -> float:
    """The RMS change of the noise estimate by rounding, relative to it, at no more than four states; three evaluations.
    The ends of a solve err by about twice as much, in units of the data.

    Args:
        score, sde, t: the network, its process, and a time near ``t_max``.
        shape: of states, ``(batch, *event)``.
        context: of the network at these.
        tolerance: what it is compared with; of a smooth network less than a hundredth of it is found.
        like: the dtype and the device of states.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(sde)
        >>> resolution_of(score, sde, 1.0, (4, 2), {}, 1e-6, dtype=torch.float64) < 1e-8
        True
    """
    node, generator, count = sde.node(t), torch.Generator().manual_seed(0), min(shape[0], _ROWS)
    size = math.hypot(node.alpha * (score.traits.data_std or 1.0), node.sigma)
    x = (size * torch.randn((count, *shape[1:]), generator=generator, dtype=torch.float64)).to(**like)
    given, moved = cut(context, slice(count)), min(_MOVED, math.sqrt(0.1 * tolerance))
    with torch.no_grad():
        less, same, more = (
            score.estimate(x * (1 + by), node, **given).noise.to(torch.float64) for by in (-moved, 0.0, moved)
        )
    return float(((less - 2 * same + more).square().mean() / 6 / same.square().mean()).sqrt())


def warn_of_resolution(resolution: float, rtol: float, atol: float) -> None:
    """Warn of tolerances that are not reached."""
    warn_caller(
        f"rtol={rtol:g} and atol={atol:g} are below the resolution of the network: rounding inside of it changes its "
        f"estimates by {resolution:.1g} of their size, so that the samples err by more than that and take many "
        "evaluations. Loosen them, or evaluate the network in a wider dtype."
    )
