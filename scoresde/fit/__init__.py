"""What is fitted to a network and a process before many solves: the method, where the steps are, where they begin."""

from .grid import fit_grid
from .records import Cost, Errors, FittedGrid, Ranked, Tuned
from .start import fit_start
from .tuning import tune

__all__ = ["Cost", "Errors", "FittedGrid", "Ranked", "Tuned", "fit_grid", "fit_start", "tune"]
