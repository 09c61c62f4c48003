"""Single steps of a given order, with which multistep methods start."""

from __future__ import annotations

from torch import Tensor

from ...processes import RHO, Process
from ...sdes import Estimate, Node
from ..dpm_singlestep import second_order, third_order
from ..rk4 import RK4
from ..rk45 import RK45
from .exponential import transfer
from .exponential_runge_kutta import PhiTableau, exponential_step
from .runge_kutta import Tableau, runge_kutta_step

_EXPONENTIAL: dict[int, PhiTableau] = {2: second_order(0.5), 3: third_order(1 / 3, 2 / 3)}
_CLASSICAL: dict[int, Tableau] = {
    4: RK4.tableau,
    5: Tableau(RK45.tableau.a[:6], RK45.tableau.c[:6], RK45.tableau.b[:6]),  # its last stage has weight 0
}
HIGHEST = max(_CLASSICAL)


def start_evaluations(order: int) -> int:
    """Evaluations of a single step.

    Example:
        >>> [start_evaluations(order) for order in (1, 2, 3, 4, 5)]
        [1, 2, 3, 4, 6]
    """
    return len(_EXPONENTIAL[order].c if order in _EXPONENTIAL else _CLASSICAL[order].c) if order > 1 else 1


def start_step(
    order: int, prediction: str, process: Process, x: Tensor, start: Node, stop: Node, estimate: Estimate
) -> Tensor:
    """One step of the order, given the estimate at its start: DDIM, DPM-Solver 2S or 3S, or a Runge-Kutta method in
    sigma/alpha."""
    if order in _EXPONENTIAL:
        first = getattr(estimate, prediction)
        return exponential_step(_EXPONENTIAL[order], prediction, process, x, start, stop, first)[0]
    if order in _CLASSICAL:
        return runge_kutta_step(_CLASSICAL[order], RHO, process, x, start, stop, estimate.noise)[0]
    return transfer(estimate, start, stop)
