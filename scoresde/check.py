# `check_score` under the name that its module has had; the code is in `scoresde.scores.conventions`.
from .scores.conventions import ScoreReport, check_score

__all__ = ["ScoreReport", "check_score"]
