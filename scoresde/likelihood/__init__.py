"""Densities: the log-likelihood of the probability flow with its error bars, and the units it is told in."""

from .bits import bits_per_dim, dequantize
from .bound import Bound, Term, variational_bound
from .flow import Likelihood, log_likelihood

__all__ = ["Bound", "Likelihood", "Term", "bits_per_dim", "dequantize", "log_likelihood", "variational_bound"]
