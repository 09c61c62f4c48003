"""Correctors: Markov chains that leave the distribution at one time unchanged, and so repair the distribution of a
state there."""

from .base import Corrector
from .langevin import LangevinCorrector
from .mala import MALACorrector
from .underdamped import UnderdampedCorrector

__all__ = ["Corrector", "LangevinCorrector", "MALACorrector", "UnderdampedCorrector"]
