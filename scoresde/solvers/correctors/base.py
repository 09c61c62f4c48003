"""The protocol of a corrector. Correctors import from here what the signature of a move names."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ...core.processes import Process
from ...core.processes.requests import Asking
from ...core.sdes import Node


class Corrector(abc.ABC):
    """Moves a state towards the distribution at one time; a frozen dataclass without state.

    Attributes:
        name: its name in ``corrector=`` of ``pc``.
        moves: moves per call; ``evaluations``: score evaluations per call.
        gaussian_step: whether the state after each move is Gaussian given that before; see
            `scoresde.solvers.Solver`, and ``not_gaussian`` there.
        keeps_estimates: whether a score is read again after a later evaluation; see `scoresde.solvers.Solver`.
    """

    name: ClassVar[str] = "own"
    keeps_estimates: ClassVar[bool] = True
    not_gaussian: ClassVar[str] = "its moves are not declared Gaussian (set gaussian_step = True if they are)"
    moves: int = 1

    @property
    def gaussian_step(self) -> bool:
        return False

    @property
    def evaluations(self) -> int:
        """One per move, unless a corrector says otherwise."""
        return self.moves

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """Called once before the first step, with the nodes where it will be called: refuse what cannot work there."""
        return None

    @abc.abstractmethod
    def correct(self, process: Process, x: Tensor, node: Node) -> Asking[Tensor] | Tensor:
        """The corrected state; it yields requests, as a step does (see `scoresde.solvers.Solver`)."""
