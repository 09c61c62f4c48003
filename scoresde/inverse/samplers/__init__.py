"""Solvers whose steps know a measurement, one published method a file."""

from ...solvers import ParticleInfo
from .base import InverseSolver
from .ddnm_plus import DDNMPlus
from .ddrm import DDRM
from .gradient_step import MCG, DPSStep
from .replacement import Replacement
from .split_gibbs import SplitGibbs
from .twisted import TwistedSMC

SAMPLERS: dict[str, type[InverseSolver]] = {
    sampler.name: sampler for sampler in (Replacement, DPSStep, MCG, DDRM, DDNMPlus, TwistedSMC, SplitGibbs)
}

__all__ = [
    "DDRM",
    "MCG",
    "SAMPLERS",
    "DDNMPlus",
    "DPSStep",
    "InverseSolver",
    "ParticleInfo",
    "Replacement",
    "SplitGibbs",
    "TwistedSMC",
]
