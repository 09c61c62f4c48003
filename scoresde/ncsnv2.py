# NCSNv2's techniques under the name that they have had; the code is in `scoresde.chains.ncsnv2`.
from .chains.ncsnv2 import best_step, largest_distance, overlap, ratio, spread

__all__ = ["best_step", "largest_distance", "overlap", "ratio", "spread"]
