"""A solve that records the densities of its steps: what must hold, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..core.arguments import SolveOptions
from ..core.errors import InvalidArgumentError
from ..core.loop import Loop
from ..core.recorder.tracing import TracedRun, check_gaussian
from ..core.sdes import SDE
from ..core.solution import Solution
from ..core.support.checks import shown
from ..solvers import Solver
from .path import path_of


def check_path_wanted(given: SolveOptions, sde: SDE, solver: Solver) -> None:
    """Refuse a solve whose steps have no density."""
    wanted = given.path_log_prob
    if not (isinstance(wanted, bool) or (isinstance(wanted, str) and wanted == "sums")):
        raise InvalidArgumentError(f"`path_log_prob` must be True, False or 'sums', got {shown(wanted)}.")
    check_gaussian(sde, solver)
    if given.differentiable:
        raise InvalidArgumentError(
            "`path_log_prob` is recorded without a graph; pass differentiable=False, and differentiate "
            "scoresde.paths.log_prob(solution.path, sde, score_fn)."
        )
    if not given.throw:
        raise InvalidArgumentError("`path_log_prob` needs every sample to finish; pass throw=True.")


@dataclass(frozen=True)
class Told:
    """What a path needs besides its states.

    Attributes:
        solver, stochasticity, prior, seeds: see `Path`; of those ``prior`` is the log-density of the start.
    """

    solver: Solver
    stochasticity: float
    prior: Tensor | None
    seeds: Any

    def on(self, solution: Solution, sde: SDE, loop: Loop | None) -> Solution:
        """The solution with its path."""
        run = None if loop is None else loop.run
        if not isinstance(run, TracedRun):
            raise InvalidArgumentError(
                "`path_log_prob` needs at least one step and one sample, and no functional transform of torch."
            )
        context = loop.process.network.context  # type: ignore[union-attr]
        path = path_of(run, context, sde, self.solver, self.stochasticity, self.prior, self.seeds)
        return replace(solution, path_log_prob=path.log_prob, path=path)
