# Records of particles under the name that their module has had; the code is in `scoresde.solvers.families.particles`.
from .families.particles import ParticleInfo, ParticleLog

__all__ = ["ParticleInfo", "ParticleLog"]
