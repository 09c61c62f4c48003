"""What is fitted to a network and a process before many solves: the method, where the steps are, where they begin."""

from .grid import fit_grid
from .learning import fit_solver
from .records import Cost, FittedGrid, FittedSolver, PilotErrors, Ranked, Tuned
from .start import fit_start
from .tuning import tune

__all__ = [
    "Cost",
    "FittedGrid",
    "FittedSolver",
    "PilotErrors",
    "Ranked",
    "Tuned",
    "fit_grid",
    "fit_solver",
    "fit_start",
    "tune",
]
