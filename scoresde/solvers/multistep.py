# Classes under the name that their module has had; the code is in `scoresde.solvers.families.multistep`.
from .families.multistep import Multistep

__all__ = ["Multistep"]
