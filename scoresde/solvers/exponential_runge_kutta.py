# Classes under the name that their module has had; the code is in `scoresde.solvers.families.exponential_runge_kutta`.
from .families.exponential_runge_kutta import ExponentialRungeKutta, PhiTableau

__all__ = ["ExponentialRungeKutta", "PhiTableau"]
