"""Score functions without a part of what is around their network."""

from __future__ import annotations

import copy

from ...guidance.classifier import ShiftedScore
from ...guidance.combination import WeightedScores
from ...guidance.scale import AtMostOne, Scale
from ...scores import Score, ScoreModel
from ...scores.limits import Limited
from ...scores.wrapper import Wrapper


def without(score: Score, fault: str) -> Score | None:
    """A score function without its guidance, or without its limits; None where it has none.

    The score without guidance is that of the distribution that guidance aims at: the first score function of a weighted
    sum (of classifier-free guidance the conditional one), and that of a classifier with a scale between 0 and 1.

    Example:
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), 1.0).score(scoresde.VPSDE())
        >>> clipped = scoresde.scores.Clip(score)
        >>> without(clipped, "range") is score, without(clipped, "guidance") is None
        (True, True)
    """
    if not isinstance(score, Wrapper):
        return None
    if fault == "range" and isinstance(score, Limited):
        return without(score.score_fns[0], fault) or score.score_fns[0]
    if fault == "guidance" and isinstance(score, WeightedScores):
        return None if score.is_first else score.score_fns[0]
    if fault == "guidance" and isinstance(score, ShiftedScore) and score.scale.constant != 1:
        scale = score.scale.constant
        plain = copy.copy(score)
        plain.scale = AtMostOne(score.scale) if scale is None else Scale.of(min(1.0, max(0.0, scale)))
        return plain if scale is None or plain.scale.constant != scale else None
    inner = without(score.score_fns[0], fault)
    return None if inner is None else _around(score, inner)


def with_sigma_data(score: Score, factor: float) -> tuple[Score, float] | None:
    """A score function whose network has another ``sigma_data`` in EDM's preconditioning, and that number; None where
    it has none.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.EDMSDE(), "edm")
        >>> changed, value = with_sigma_data(scoresde.scores.Clip(model), 4.0)
        >>> value, changed.score_fns[0].sigma_data, model.sigma_data
        (2.0, 2.0, 0.5)
    """
    if isinstance(score, Wrapper):
        inner = with_sigma_data(score.score_fns[0], factor)
        return None if inner is None else (_around(score, inner[0]), inner[1])
    if not isinstance(score, ScoreModel) or score.prediction != "edm":
        return None
    changed = copy.copy(score)
    changed.sigma_data = factor * score.sigma_data
    return changed, changed.sigma_data


def _around(score: Wrapper, inner: Score) -> Wrapper:
    changed = copy.copy(score)
    changed.score_fns = (inner, *score.score_fns[1:])
    return changed
