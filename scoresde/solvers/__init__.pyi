# What is no method, and where it is: read by type checkers and by the package. Methods are found by their rows.
from typing import Any

from .backends.base import Backend as Backend
from .backends.base import ODEBackend as ODEBackend
from .backends.base import OwnSteps as OwnSteps
from .backends.scipy import SciPy as SciPy
from .backends.torchdiffeq import TorchDiffEqAdams as TorchDiffEqAdams
from .backends.torchdiffeq import TorchDiffEqAdaptive as TorchDiffEqAdaptive
from .backends.torchdiffeq import TorchDiffEqFixed as TorchDiffEqFixed
from .backends.torchsde import TorchSDE as TorchSDE
from .base import SDESolver as SDESolver
from .base import Solver as Solver
from .base import StepControl as StepControl
from .base import StepResult as StepResult
from .families.exponential_runge_kutta import ExponentialRungeKutta as ExponentialRungeKutta
from .families.exponential_runge_kutta import PhiTableau as PhiTableau
from .families.multistep import Multistep as Multistep
from .families.particles import ParticleInfo as ParticleInfo
from .families.particles import ParticleLog as ParticleLog
from .families.runge_kutta import RungeKutta as RungeKutta
from .families.runge_kutta import Tableau as Tableau
from .families.transition import Transition as Transition
from .pairs import Pair as Pair
from .registry.auto import choose as choose
from .registry.config import from_config as from_config
from .registry.config import to_config as to_config
from .registry.lookup import BACKENDS as BACKENDS
from .registry.lookup import Method as Method
from .registry.lookup import drift_methods as drift_methods
from .registry.lookup import make_solver as make_solver
from .registry.lookup import methods as methods
from .restart import RestartInterval as RestartInterval
from .smc import SMC as SMC

def __getattr__(name: str) -> Any: ...
