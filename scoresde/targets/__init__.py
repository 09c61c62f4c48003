"""Data distributions with exact scores, to measure solvers against."""

from .base import Target
from .exact import ExactScore
from .gaussian import Gaussian
from .mixture import Empirical, GaussianMixture
from .spectrum import LowRank
from .start import GaussianStart
from .uniform import Uniform

__all__ = ["Empirical", "ExactScore", "Gaussian", "GaussianMixture", "GaussianStart", "LowRank", "Target", "Uniform"]
