r"""The ancestral split of k-diffusion: a deterministic step to less noise than the target level, and fresh noise on
top.

From :math:`\rho_s` to :math:`\rho_t < \rho_s`, with :math:`\rho_{up} = \eta\rho_t\sqrt{1-\rho_t^2/\rho_s^2}` and
:math:`\rho_{dn} = \sqrt{\rho_t^2-\rho_{up}^2}`.
"""

from __future__ import annotations

from typing import NamedTuple

from ..._tensors import Scalar, exp, expm1, log
from ...sdes import Node


class Split(NamedTuple):
    """The noise that is added (of the state, not of :math:`\\rho`) and :math:`\\ln(1/\\rho_{dn})`, where the
    deterministic step goes."""

    up: Scalar
    lam: Scalar


def split(start: Node, stop: Node, eta: float) -> Split:
    """The split of a step.

    Example:
        >>> import scoresde
        >>> sde = scoresde.EDMSDE()
        >>> up, lam = split(sde.node(2.0), sde.node(1.0), eta=1.0)
        >>> round(up**2, 12), round(lam, 6)  # 1 - 1/4, and rho_dn = 1/2
        (0.75, 0.693147)
    """
    back = 2 * (start.lam - stop.lam)
    added = -eta * eta * expm1(back)  # rho_up^2 / rho_t^2
    # ln(1 - added), which for eta = 1 is the exponent itself
    left = back if eta == 1.0 else log((1 - eta) * (1 + eta) + eta * eta * exp(back))
    return Split(stop.sigma * added**0.5, stop.lam - 0.5 * left)
