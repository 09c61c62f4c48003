"""Solvers: one method, one small file. `families` has what several of them share; `registry` lists them, and makes
solvers by name for `scoresde.solve`.

Names are imported when they are first used: `scoresde.solvers.UniPC2` and the like are found by the rows.
"""

from typing import TYPE_CHECKING

from .._lazy import homes, lazy
from .registry.rows import MODULES, ROWS

if TYPE_CHECKING:  # what is no method, for type checkers
    from .base import SDESolver as SDESolver
    from .base import Solver as Solver
    from .base import StepControl as StepControl
    from .base import StepResult as StepResult
    from .families.multistep import Multistep as Multistep
    from .families.particles import ParticleInfo as ParticleInfo
    from .families.particles import ParticleLog as ParticleLog
    from .families.runge_kutta import RungeKutta as RungeKutta
    from .registry.auto import choose as choose
    from .registry.config import from_config as from_config
    from .registry.config import to_config as to_config
    from .registry.lookup import Method as Method
    from .registry.lookup import drift_methods as drift_methods
    from .registry.lookup import make_solver as make_solver
    from .registry.lookup import methods as methods

_OTHERS = homes(
    {
        ".registry.auto": "choose",
        ".backends.base": "Backend ODEBackend OwnSteps",
        ".backends.scipy": "SciPy",
        ".backends.torchdiffeq": "TorchDiffEqAdams TorchDiffEqAdaptive TorchDiffEqFixed",
        ".backends.torchsde": "TorchSDE",
        ".base": "SDESolver Solver StepControl StepResult",
        ".registry.config": "from_config to_config",
        ".families.exponential_runge_kutta": "ExponentialRungeKutta PhiTableau",
        ".families.multistep": "Multistep",
        ".pairs": "Pair",
        ".families.particles": "ParticleInfo ParticleLog",
        ".registry.lookup": "BACKENDS Method drift_methods make_solver methods",
        ".restart": "Interval",
        ".families.runge_kutta": "RungeKutta Tableau",
        ".smc": "SMC",
        ".families.transition": "Transition",
    }
)
_METHODS = {name for row in ROWS if ":" not in row.name for name in (row.title, row.cls)}

__all__ = sorted(_METHODS | set(_OTHERS))
__getattr__, __dir__ = lazy(__name__, MODULES | _OTHERS)
