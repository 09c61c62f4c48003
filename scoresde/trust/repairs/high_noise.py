"""The network where noise is far larger than the data."""

from __future__ import annotations

import math

import torch

from ...scores.high_noise import LOWEST, HighNoise, best_of, cures
from .base import Repair, Rung, certain
from .denoising import Denoised
from .subject import Subject

_ROWS = 34  # a purpose of seeds
_HALF = 0.7  # the root of a half: of the distance, where a cure takes away half of its square
_SOUND = 1.3  # times the error of the best linear denoiser


class NoisyStart(Repair):
    """The estimate of a Gaussian, or one that is limited to the range of the data, in place of the network's where
    noise is far larger than the data; see `scoresde.scores.high_noise`."""

    name = "high noise"
    remedy = "Train the network for longer, or with more weight on high noise."

    def __init__(self, denoised: Denoised) -> None:
        self.denoised = denoised

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        score, task, generator = subject.bare or subject.score, subject.task, subject.generator(_ROWS)
        rows = subject.some(subject.held_out, subject.pilot, _ROWS)
        data = rows.x.to(task.device, task.dtype)
        with torch.no_grad():
            found = HighNoise.of(score, task.sde, data, rows.context, generator)
            if not found.levels:
                return self.missing("The process has no noise far larger than the data.")
            subject.evaluations += found.evaluations
            share, finding = max(found.shares), f"The network is used up to sigma/alpha = {found.levels[-1]:.3g}"
            if not found.bad:
                text = f"{finding}, and denoises there no worse than a constant, or nearly so."
                return self.found(certain(share, subject.confidence), share, text, unit="of noise", remedy="")
            helped = cures(score, task.sde, data, rows.context, generator)
        moved = f"its errors move states by {share:.0%} of their noise"
        text = f"{finding}, and {found}: {moved}. What helps most: {best_of(helped)}."
        far = subject.of_network
        of, rho = self.denoised, (-self.denoised.levels.lam).exp() / subject.unit
        near = (rho > 1) & (rho < LOWEST)  # where the network must be sound, or it errs at all levels
        sound = bool(near.any()) and float(of.held[:, near].mean()) <= _SOUND * float(of.linear[:, near].mean())
        left = helped[best_of(helped)] / helped[""]  # by the best cure
        size = far.value * math.sqrt(max(0.0, 1 - left))
        shown = (far.seen and subject.large(size)) or of.worse
        matters = shown and size > _HALF * far.value and sound
        details = {f"energy distance with {name or 'nothing'}": value for name, value in helped.items()}
        distance, size = certain(share, subject.confidence), size if matters else 0.0
        return self.found(
            distance, 0.0, text, unit="of noise", matters=matters, size=size, details=details,
            explains=("network", "range"),
        )  # fmt: skip
