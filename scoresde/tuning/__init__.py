"""What is fitted to a network and a process before many solves: the method, where the steps are, where they begin."""

from .grid import fit_grid
from .learning import fit_solver
from .records import Cost, Errors, FittedGrid, FittedSolver, Ranked, Tuned
from .start import fit_start
from .tuning import tune

__all__ = [
    "Cost",
    "Errors",
    "FittedGrid",
    "FittedSolver",
    "Ranked",
    "Tuned",
    "fit_grid",
    "fit_solver",
    "fit_start",
    "tune",
]
