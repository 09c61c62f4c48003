"""Densities of the paths of stochastic methods: recorded by ``solve(..., path_log_prob=True)``, and of a recorded path
under any network; weights to a known target; ratios in continuous time.
"""

from .continuous import Girsanov, girsanov
from .density import kl, log_prob, log_ratio
from .path import Path
from .weights import Weights, divergence, weights

__all__ = ["Girsanov", "Path", "Weights", "divergence", "girsanov", "kl", "log_prob", "log_ratio", "weights"]
