"""Densities: the log-likelihood of the probability flow with its error bars, and the units it is told in."""

from .bits import bits_per_dim, dequantize
from .flow import Likelihood, log_likelihood

__all__ = ["Likelihood", "bits_per_dim", "dequantize", "log_likelihood"]
