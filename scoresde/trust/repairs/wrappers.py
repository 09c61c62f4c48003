"""Guidance and clipping, which are score functions made from score functions."""

from __future__ import annotations

import copy
import math

from ...guidance.classifier import Shifted
from ...guidance.combination import Combination
from ...guidance.scale import AtMostOne, Scale
from ...scores import Score, ScoreModel
from ...scores.limits import Clip, Limited
from ...scores.wrapper import Wrapper
from ...tuning.energy import difference
from .base import Repair, Rung, number, root_mean_square
from .subject import Subject, rms


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
    if fault == "guidance" and isinstance(score, Combination):
        return None if score.is_first else score.score_fns[0]
    if fault == "guidance" and isinstance(score, Shifted) and score.scale.constant != 1:
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


class _Wrapped(Repair):
    """A wrapper that is removed: samples of the same noise with and without it, both by exact integration."""

    what: str

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        plain = without(subject.score, self.name)
        if plain is None:
            return self.missing(f"The score function has no {self.what}.")
        given, bare = subject.samples("loose"), subject.samples("loose", score=plain)
        good = given.flatten(1).isfinite().all(1) & bare.flatten(1).isfinite().all(1)
        apart = root_mean_square((given[good] - bare[good]).flatten(1).square().mean(1), subject.confidence)
        far, near = subject.remaining, subject.far(bare, subject.compared)
        y = subject.compared[: int(good.sum())]
        n = min(len(y), int(good.sum()))
        farther = difference(given[good][:n], bare[good][:n], y[:n])
        worse = farther.value > 3 * farther.error
        size = math.sqrt(max(0.0, far.sliced.square - near.sliced.square))
        moved = "farther from" if worse else "not measurably farther from"
        return Rung(
            self.name,
            apart,
            kind="upper bound",
            matters=worse and subject.large(size),
            size=size,
            finding=f"The {self.what} moves samples by {number(apart.value)}, and they are {moved} the data with it "
            f"({number(far.value)}) than without ({number(near.value)}).",
            remedy=self.remedy,
            details={"with": far.value, "without": near.value, **self._details(subject)},
        )

    def _details(self, subject: Subject) -> dict[str, float]:
        """Other numbers."""
        return {}


class Guidance(_Wrapped):
    """Guided samples against those of the distribution that guidance aims at."""

    name, what = "guidance", "guidance"
    remedy = "Take a smaller scale of guidance, or an interval of noise levels for it."


class Clipping(_Wrapped):
    """Clipped samples against samples without limits, and the range of samples against that of the data."""

    name, what = "range", "clipping"
    remedy = "Widen the limits of the data estimate to the range of the data, or leave them out."

    def _details(self, subject: Subject) -> dict[str, float]:
        score = subject.score
        while isinstance(score, Wrapper) and not isinstance(score, Clip):
            score = score.score_fns[0]
        if not isinstance(score, Clip):
            return {}
        x = subject.data.x
        beyond = (x - x.clamp(score.low, score.high)).abs()
        return {"data outside the limits": float((beyond > 0).double().mean()), "by, RMS": rms(beyond)}
