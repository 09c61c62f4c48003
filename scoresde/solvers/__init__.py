"""Solvers: one method, one small file. `registry` holds the list that `scoresde.solve` reads."""

from .ancestral import Ancestral
from .base import Solver, StepResult
from .ddim import DDIM
from .euler import Euler
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .langevin import Langevin
from .midpoint import Midpoint
from .predictor_corrector import PredictorCorrector
from .registry import Method, make_solver, methods
from .reverse_diffusion import ReverseDiffusion
from .rk4 import RK4
from .rk45 import RK45
from .runge_kutta import RungeKutta, Tableau
from .transition import Transition

__all__ = [
    "DDIM",
    "RK4",
    "RK45",
    "Ancestral",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "Method",
    "Midpoint",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RungeKutta",
    "Solver",
    "StepResult",
    "Tableau",
    "Transition",
    "make_solver",
    "methods",
]
