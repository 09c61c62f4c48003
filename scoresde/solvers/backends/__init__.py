"""Solvers of other libraries, each as a method of its own name: ``"torchdiffeq:dopri5"``, ``"scipy:RK45"``,
``"torchsde:srk"``.

A method with fixed steps is called once per step, on the grid of `scoresde.solve`. One that makes its own steps gets
the whole interval, cut at the times to save. The libraries are imported when they are used.
"""

from ...core.support.lazy import lazy, listed

_MODULES, _ = listed(__file__)

__all__ = sorted(_MODULES)
__getattr__, __dir__ = lazy(__name__, _MODULES)
