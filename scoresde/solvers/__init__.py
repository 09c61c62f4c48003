"""Solvers: one method, one small file. `registry` holds the list that `scoresde.solve` reads."""

from .adams import Adams
from .ancestral import Ancestral
from .annealed_langevin import AnnealedLangevin
from .auto import choose
from .backends import (
    BACKENDS,
    Backend,
    ODEBackend,
    OwnSteps,
    SciPy,
    TorchDiffEqAdams,
    TorchDiffEqAdaptive,
    TorchDiffEqFixed,
    TorchSDE,
)
from .base import Solver, StepResult
from .cas import CAS
from .ddim import DDIM
from .ddim_eta import DDIMEta
from .deis import TAB, TAB2, TAB3, TAB4, RhoAB, RhoAB2, RhoAB3, RhoAB4
from .dpm_multistep import DPM2M, DPM3M, DPMpp2M, DPMpp3M
from .dpm_multistep_sde import DPMpp2MSDE, DPMpp3MSDE
from .dpm_singlestep import DPM2S, DPM3S, DPMpp2S, DPMpp3S
from .dpmpp_sde import DPMpp2SAncestral, DPMppSDE
from .dpmpp_sde12 import DPMppSDE12
from .edm import EDM
from .er_sde import ERSDE, ERSDE1, ERSDE2, ERSDE3
from .euler import Euler
from .euler_maruyama import EulerMaruyama
from .exponential_pairs import DPM12, DPM23, ERK32, ERK43
from .exponential_runge_kutta import ExponentialRungeKutta, PhiTableau
from .ggf import GGF
from .heun import Heun
from .heun_sde import HeunSDE
from .ipndm import IPNDM, PLMS
from .langevin import Langevin
from .midpoint import Midpoint
from .multistep import Multistep
from .pairs import DOP853, RK23, Pair, Tsit5
from .particles import ParticleInfo, ParticleLog
from .predictor_corrector import PredictorCorrector
from .registry import Method, described, drift_methods, make_solver, methods
from .res import RES2S, RES3S
from .restart import Interval, Restart
from .reverse_diffusion import ReverseDiffusion
from .rho_runge_kutta import RhoHeun, RhoKutta3, RhoMidpoint, RhoRalston, RhoRK4
from .rk4 import RK4
from .rk45 import RK45
from .runge_kutta import RungeKutta, Tableau
from .sa_solver import SASolver
from .seeds import SEEDS1, SEEDS2, SEEDS3
from .smc import SMC
from .sra import SRA1, ShARK
from .transition import Transition
from .unipc import UniP, UniP2, UniP3, UniPC, UniPC1, UniPC2, UniPC3

__all__ = [
    "BACKENDS",
    "CAS",
    "DDIM",
    "DOP853",
    "DPM2M",
    "DPM2S",
    "DPM3M",
    "DPM3S",
    "DPM12",
    "DPM23",
    "EDM",
    "ERK32",
    "ERK43",
    "ERSDE",
    "ERSDE1",
    "ERSDE2",
    "ERSDE3",
    "GGF",
    "IPNDM",
    "PLMS",
    "RES2S",
    "RES3S",
    "RK4",
    "RK23",
    "RK45",
    "SEEDS1",
    "SEEDS2",
    "SEEDS3",
    "SMC",
    "SRA1",
    "TAB",
    "TAB2",
    "TAB3",
    "TAB4",
    "Adams",
    "Ancestral",
    "AnnealedLangevin",
    "Backend",
    "DDIMEta",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp2S",
    "DPMpp2SAncestral",
    "DPMpp3M",
    "DPMpp3MSDE",
    "DPMpp3S",
    "DPMppSDE",
    "DPMppSDE12",
    "Euler",
    "EulerMaruyama",
    "ExponentialRungeKutta",
    "Heun",
    "HeunSDE",
    "Interval",
    "Langevin",
    "Method",
    "Midpoint",
    "Multistep",
    "ODEBackend",
    "OwnSteps",
    "Pair",
    "ParticleInfo",
    "ParticleLog",
    "PhiTableau",
    "PredictorCorrector",
    "Restart",
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
    "SASolver",
    "SciPy",
    "ShARK",
    "Solver",
    "StepResult",
    "Tableau",
    "TorchDiffEqAdams",
    "TorchDiffEqAdaptive",
    "TorchDiffEqFixed",
    "TorchSDE",
    "Transition",
    "Tsit5",
    "UniP",
    "UniP2",
    "UniP3",
    "UniPC",
    "UniPC1",
    "UniPC2",
    "UniPC3",
    "choose",
    "described",
    "drift_methods",
    "make_solver",
    "methods",
]
