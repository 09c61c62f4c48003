"""SA-Solver: a stochastic Adams method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..core.errors import InvalidTypeError
from ..core.support.checks import check_integer, check_number
from ..core.support.combination import Term
from .base import THROUGH_NETWORK, Node, Process, SDESolver
from .families.exponential import History
from .families.multistep import Multistep


@dataclass(frozen=True)
class SASolver(SDESolver, Multistep):
    r"""SA-Solver(p, c): Adams-Bashforth and -Moulton in :math:`\hat x` for the reverse SDE with stochasticity
    :math:`\tau(t)`.

    .. math::
        x_t = \frac{\sigma_t}{\sigma_s}e^{-\tau^2h}x_s + (1+\tau^2)\alpha_t h\sum_j \omega_j\hat x_j +
            \sigma_t\sqrt{1-e^{-2\tau^2h}}\,\xi

    with the p last nodes to predict, and with the c nodes from the new one backwards to correct, with the same
    :math:`\xi`. The estimate at the predicted state serves the next step (PEC), so a step costs one evaluation.

    Facts:
        With q = min(p + 1, c), or p without a corrector (a corrector of one node has order 1, whatever the predictor):
        for :math:`\tau > 0` weak order min(q, 2), strong order 1, more nodes lowering the constant; for
        :math:`\tau = 0` order q, once the history is full. 1 evaluation per step.

    Differs from:
        the official code, which interpolates with lower orders near the end and is written for VP.

    Args:
        predictor_order: p, 1 to 4.
        corrector_order: c, 0 (none) to 4.
        tau: the stochasticity, a number or a function of t.
        lower_order_final: predict with fewer nodes in the last steps.
        correct_last: correct the last step too, for one more evaluation.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="sa_solver", steps=20, shape=(4, 2), seed=0
        ... ).evaluations
        20

    References:
        Xue et al. (2023), SA-Solver, algorithm 1. https://arxiv.org/abs/2309.05019
    """

    predictor_order: int = 2
    corrector_order: int = 2
    tau: float | Callable[[float], float] = 1.0
    lower_order_final: bool = False
    correct_last: bool = False

    prediction: ClassVar[str] = "data"
    start_up: ClassVar[str] = "published"
    strong_order: ClassVar[float] = 1.0
    reference: ClassVar[str] = "Xue et al. (2023), SA-Solver"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("predictor_order", self.predictor_order, low=1, high=4)
        check_integer("corrector_order", self.corrector_order, low=0, high=4)
        if not callable(self.tau):
            if isinstance(self.tau, str):
                raise InvalidTypeError(f"`tau` must be a number or a function of t, got {self.tau!r}.")
            check_number("tau", self.tau, low=0.0)

    @property
    def weak_order(self) -> int:
        """2, or 1 where only one node is used."""
        c = self.corrector_order
        return min(2, min(self.predictor_order + 1, c) if c else self.predictor_order)

    not_gaussian: ClassVar[str] = THROUGH_NETWORK

    @property
    def gaussian_step(self) -> bool:
        """True, of the predicted states, unless the last one is corrected."""
        return not self.correct_last

    @property
    def memory(self) -> int:
        """The earlier nodes that predictor and corrector use."""
        return max(self.predictor_order, self.corrector_order - 1)

    def stochasticity(self, node: Node[Any]) -> float:
        r""":math:`\tau` of the step from a node."""
        return check_number("tau(t)", self.tau(node.t), low=0.0) if callable(self.tau) else self.tau

    def follows(self, eta: float) -> float | None:
        r""":math:`\tau`, if it is a number."""
        return None if callable(self.tau) else self.tau

    def advance(self, process: Process, x: Tensor, stop: Node, history: History) -> Term:
        """See `Multistep.advance`."""
        count = self.predictor_order
        return super().advance(process, x, stop, History(history.nodes[:count], history.values[:count]))

    @property
    def predictor_nodes(self) -> int:
        """Its order."""
        return self.predictor_order
