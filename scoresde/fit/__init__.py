"""What is fitted to a network, a process and a method before many solves: where the steps are, and where they begin."""

from .grid import fit_grid
from .records import Cost, Errors, FittedGrid
from .start import fit_start

__all__ = ["Cost", "Errors", "FittedGrid", "fit_grid", "fit_start"]
