"""The calibration of the posteriors of a conditional network."""

from __future__ import annotations

import math

import torch

from ...core.support.intervals import Interval
from ..calibration import simulation_based_calibration, tarp
from .base import MATTERS, Repair, Rung
from .subject import Subject, varies

_POSTERIOR = 41  # a purpose of seeds
_MOST = 32  # elements of which each has a test of its own
_SHIFT = math.sqrt(2 * math.pi)  # standard deviations of a normal posterior's shift, per coverage that is wrong by it


class Posterior(Repair):
    r"""The ranks of held-out data among samples of the method with the same context.

    If samples have the distribution of the data given the context, the rank of each element of a row among those of the
    samples is uniform (simulation-based calibration), and so is that of its distance from a random point (TARP). Up to
    32 elements have a test each; the distance has one.

    Args:
        draws: the samples for each row; None for no test.
    """

    name = "calibration"
    remedy = "Train the network further, or with more simulations; until then do not rely on the width of posteriors."

    def __init__(self, draws: int | None) -> None:
        self.draws = draws

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        if self.draws is None:
            return self.missing("No samples of posteriors were requested; pass `posterior_draws`.")
        rows = subject.some(subject.held_out, subject.pilot, _POSTERIOR)
        if not any(varies(value, len(rows.x)) for value in rows.context.values()):
            return self.missing("All samples have the same context.")
        samples = subject.given(rows, self.draws, _POSTERIOR).flatten(2)
        good = samples.isfinite().all(2).all(0)
        theta, samples = rows.x.to("cpu", torch.float64).flatten(1)[good], samples[:, good]
        if len(theta) < 2:
            return self.missing("Draws failed for all contexts but one.")
        level = 0.5 * (1 + subject.level)  # two tests share one level
        tests = [tarp(theta, samples, level=level, seed=subject.seed)]
        if theta.shape[1] <= _MOST:
            tests.insert(0, simulation_based_calibration(theta, samples, level=level, seed=subject.seed))
        wrong = [found for found in tests if not found.calibrated]
        worst = max(wrong or tests, key=lambda found: found.value)
        half = 0.5 * float((worst.band[1] - worst.band[0]).max())
        interval = Interval(worst.value, max(0.0, worst.value - half), worst.value + half, worst.level, "exact")
        lost = f"; draws failed for {int((~good).sum())} rows" if not bool(good.all()) else ""
        said = f"are {worst.verdict}" if wrong else "cannot be distinguished from calibrated ones"
        finding = (
            f"The posteriors of {len(theta)} rows {said}: the coverage of {self.draws} samples each is wrong by up to "
            f"{worst.value:.2g}{lost}."
        )
        matters = bool(wrong) and worst.value > MATTERS
        size = min(1.0, _SHIFT * worst.value) * subject.unit if wrong else 0.0
        details = {"p-value": min(found.p_value for found in tests)}
        return self.found(interval, half, finding, unit="probability", matters=matters, size=size, details=details)
