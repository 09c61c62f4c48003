# `Transition` under the name that its module has had; the code is in `scoresde.solvers.families.transition`.
from .families.transition import Transition

__all__ = ["Transition"]
