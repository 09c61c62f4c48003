"""Guidance and clipping, which are score functions made from score functions."""

from __future__ import annotations

import math

from ...core.support.tensors import row_finite
from ...scores.limits import Clip
from ...scores.wrapper import Wrapper
from ...tuning.energy import difference
from .base import Repair, Rung, number, root_mean_square
from .subject import Subject, rms
from .unwrapped import without


class _Wrapped(Repair):
    """A wrapper that is removed: samples of the same noise with and without it, both by exact integration."""

    what: str

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        plain = without(subject.score, self.name)
        if plain is None:
            return self.missing(f"The score function has no {self.what}.")
        given, bare = subject.samples("loose"), subject.samples("loose", score=plain)
        good = row_finite(given) & row_finite(bare)
        apart = root_mean_square((given[good] - bare[good]).flatten(1).square().mean(1), subject.confidence)
        far, near = subject.remaining, subject.far(bare, subject.compared)
        y = subject.compared[: int(good.sum())]
        n = min(len(y), int(good.sum()))
        farther = difference(given[good][:n], bare[good][:n], y[:n])
        worse = farther.value > 3 * farther.error
        size = math.sqrt(max(0.0, far.sliced.square - near.sliced.square))
        moved = "farther from" if worse else "not measurably farther from"
        finding = (
            f"The {self.what} moves samples by {number(apart.value)}, and they are {moved} the data with it "
            f"({number(far.value)}) than without ({number(near.value)})."
        )
        details = {"with": far.value, "without": near.value, **self._details(subject)}
        matters = worse and subject.large(size)
        return self.found(apart, 0.0, finding, kind="upper bound", matters=matters, size=size, details=details)

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
