"""Densities: the log-likelihood of the probability flow with its error bars, variational bounds, and the units they are
reported in."""

from .bits import bits_per_dim, dequantize
from .bounds import Bound, Term, chain_bound, variational_bound
from .dequantisation import Dequantizer, TruncatedNormalDequantizer, UniformDequantizer, VariationalDequantizer
from .discrete import LowerBound, decoder_bound, discrete_log_likelihood
from .flow import Likelihood, fit_control_scale, log_likelihood
from .profile import DensityProfile, density_profile

__all__ = [
    "Bound",
    "DensityProfile",
    "Dequantizer",
    "Likelihood",
    "LowerBound",
    "Term",
    "TruncatedNormalDequantizer",
    "UniformDequantizer",
    "VariationalDequantizer",
    "bits_per_dim",
    "chain_bound",
    "decoder_bound",
    "density_profile",
    "dequantize",
    "discrete_log_likelihood",
    "fit_control_scale",
    "log_likelihood",
    "variational_bound",
]
