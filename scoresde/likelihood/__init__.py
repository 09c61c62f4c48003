"""Densities: the log-likelihood of the probability flow with its error bars, variational bounds, and the units they are
told in."""

from .bits import bits_per_dim, dequantize
from .bounds import Bound, Term, chain_bound, variational_bound
from .flow import Likelihood, log_likelihood
from .profile import DensityProfile, density_profile

__all__ = [
    "Bound",
    "DensityProfile",
    "Likelihood",
    "Term",
    "bits_per_dim",
    "chain_bound",
    "density_profile",
    "dequantize",
    "log_likelihood",
    "variational_bound",
]
