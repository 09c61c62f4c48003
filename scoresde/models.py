"""Former names of what is in `scoresde.scores`, which still work; write ``scoresde.scores.Clip``, and so on."""

from .scores import PREDICTIONS, TIME_INPUTS, Clip, DynamicThreshold, ScoreModel
from .sdes.span import log_snr_range, within

__all__ = ["PREDICTIONS", "TIME_INPUTS", "Clip", "DynamicThreshold", "ScoreModel", "log_snr_range", "within"]
