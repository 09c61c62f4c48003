# Classes under the name that their module has had; the code is in `scoresde.solvers.families.runge_kutta`.
from .families.runge_kutta import RungeKutta, Tableau

__all__ = ["RungeKutta", "Tableau"]
