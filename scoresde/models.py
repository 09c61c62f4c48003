"""Networks as score functions, under the names that they have had; the code is in `scoresde.scores`."""

from .scores import PREDICTIONS, TIME_INPUTS, Clip, DynamicThreshold, ScoreModel
from .sdes.span import log_snr_range, within

__all__ = ["PREDICTIONS", "TIME_INPUTS", "Clip", "DynamicThreshold", "ScoreModel", "log_snr_range", "within"]
