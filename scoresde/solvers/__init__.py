"""Solvers: one method, one small file. `registry` holds the list that `scoresde.solve` reads."""

from .ancestral import Ancestral
from .base import Solver, StepResult
from .ddim import DDIM
from .deis import TAB, TAB2, TAB3, TAB4, RhoAB, RhoAB2, RhoAB3, RhoAB4
from .dpm_multistep import DPM2M, DPM3M, DPMpp2M, DPMpp3M
from .dpm_singlestep import DPM2S, DPM3S, DPMpp2S, DPMpp3S
from .euler import Euler
from .euler_maruyama import EulerMaruyama
from .exponential_runge_kutta import ExponentialRungeKutta, PhiTableau
from .heun import Heun
from .ipndm import IPNDM, PLMS
from .langevin import Langevin
from .midpoint import Midpoint
from .multistep import Multistep
from .predictor_corrector import PredictorCorrector
from .registry import Method, make_solver, methods
from .res import RES2S, RES3S
from .reverse_diffusion import ReverseDiffusion
from .rho_runge_kutta import RhoHeun, RhoKutta3, RhoMidpoint, RhoRalston, RhoRK4
from .rk4 import RK4
from .rk45 import RK45
from .runge_kutta import RungeKutta, Tableau
from .transition import Transition
from .unipc import UniP, UniP2, UniP3, UniPC, UniPC1, UniPC2, UniPC3

__all__ = [
    "DDIM",
    "DPM2M",
    "DPM2S",
    "DPM3M",
    "DPM3S",
    "IPNDM",
    "PLMS",
    "RES2S",
    "RES3S",
    "RK4",
    "RK45",
    "TAB",
    "TAB2",
    "TAB3",
    "TAB4",
    "Ancestral",
    "DPMpp2M",
    "DPMpp2S",
    "DPMpp3M",
    "DPMpp3S",
    "Euler",
    "EulerMaruyama",
    "ExponentialRungeKutta",
    "Heun",
    "Langevin",
    "Method",
    "Midpoint",
    "Multistep",
    "PhiTableau",
    "PredictorCorrector",
    "ReverseDiffusion",
    "RhoAB",
    "RhoAB2",
    "RhoAB3",
    "RhoAB4",
    "RhoHeun",
    "RhoKutta3",
    "RhoMidpoint",
    "RhoRK4",
    "RhoRalston",
    "RungeKutta",
    "Solver",
    "StepResult",
    "Tableau",
    "Transition",
    "UniP",
    "UniP2",
    "UniP3",
    "UniPC",
    "UniPC1",
    "UniPC2",
    "UniPC3",
    "make_solver",
    "methods",
]
