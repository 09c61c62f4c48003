"""Score functions: the protocol, networks with their conventions, the user's callables, wrappers and limits."""

from .bare import ScoreFn, as_score
from .base import Score, Split, Traits
from .limits import Clip, DynamicThreshold, GaussianAbove, Limited
from .model import PREDICTIONS, TIME_INPUTS, ScoreModel
from .wrapper import Wrapper

__all__ = [
    "PREDICTIONS",
    "TIME_INPUTS",
    "Clip",
    "DynamicThreshold",
    "GaussianAbove",
    "Limited",
    "Score",
    "ScoreFn",
    "ScoreModel",
    "Split",
    "Traits",
    "Wrapper",
    "as_score",
]
