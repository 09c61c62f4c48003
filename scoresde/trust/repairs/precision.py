"""Half precision."""

from __future__ import annotations

import functools
import math

import torch

from .base import MATTERS, Repair, Rung, certain, root_mean_square
from .subject import Subject, rms


class Precision(Repair):
    """States and products of matrices in half precision against those in full precision, of the same draws.

    The states have the dtype, and the network runs under ``torch.autocast`` with it.

    Args:
        half: the dtype, None where nothing was requested.
    """

    name = "dtype"
    remedy = "Evaluate the network in float32 or bfloat16, at least the layers that overflow."

    def __init__(self, half: torch.dtype | None) -> None:
        self.half = half

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        if self.half is None:
            return self.missing("No half precision was requested.")
        cast = functools.partial(torch.autocast, subject.task.device.type, dtype=self.half)
        half = subject.samples("method", dtype=self.half, cast=cast)
        full = subject.samples("method")
        sound = full.flatten(1).isfinite().all(1)
        lost = sound & ~half.flatten(1).isfinite().all(1)
        good = sound & ~lost
        if bool(good.any()):
            apart = root_mean_square((half[good] - full[good]).flatten(1).square().mean(1), subject.confidence)
        else:
            apart = certain(math.inf, subject.confidence)
        share = float(lost.sum()) / max(1, int(sound.sum()))
        rounding = torch.finfo(self.half).eps * rms(full[sound])  # of the states
        name = str(self.half).removeprefix("torch.")
        overflow = (
            f"{share:.0%} of the draws overflow to values that are not finite in {name}; the others"
            if share
            else (f"Samples in {name}")
        )
        return Rung(
            self.name,
            apart,
            rounding,
            "estimate",
            matters=share > MATTERS or subject.large(apart.value),
            size=math.inf if share > MATTERS else apart.value,
            finding=f"{overflow} are {apart.value:.3g} from those in full precision, RMS over the same draws.",
            remedy=self.remedy,
            details={"not finite": share},
        )
