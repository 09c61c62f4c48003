"""Densities of the paths of stochastic methods: recorded by ``solve(..., path_log_prob=True)``, and of a recorded path
under any network.
"""

from .density import kl, log_prob, log_ratio
from .path import Path

__all__ = ["Path", "kl", "log_prob", "log_ratio"]
