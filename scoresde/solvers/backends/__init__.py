"""Solvers of other libraries, each as a method of its own name: ``"torchdiffeq:dopri5"``, ``"scipy:RK45"``,
``"torchsde:srk"``.

A method with fixed steps is called once a step, on the grid of `scoresde.solve`. One that makes its own steps gets the
whole interval, cut at the times to save. The libraries are imported when they are used.
"""

from .base import Backend, ODEBackend, OwnSteps
from .scipy import METHODS as SCIPY
from .scipy import SciPy
from .torchdiffeq import METHODS as TORCHDIFFEQ
from .torchdiffeq import TorchDiffEqAdams, TorchDiffEqAdaptive, TorchDiffEqFixed
from .torchsde import METHODS as TORCHSDE
from .torchsde import TorchSDE

BACKENDS: tuple[type[Backend], ...] = (*TORCHDIFFEQ, *SCIPY, *TORCHSDE)

__all__ = [
    "BACKENDS",
    "Backend",
    "ODEBackend",
    "OwnSteps",
    "SciPy",
    "TorchDiffEqAdams",
    "TorchDiffEqAdaptive",
    "TorchDiffEqFixed",
    "TorchSDE",
]
