"""Estimates with limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .display import Displayed


@dataclass(frozen=True, repr=False)
class Interval(Displayed):
    """A value between two limits.

    Attributes:
        value: the estimate.
        low, high: the limits.
        confidence: of both together.
        kind: ``"exact"`` where the confidence holds for any number of draws, ``"asymptotic"`` where it holds for many.

    Example:
        >>> Interval(0.5, 0.4, 0.6, 0.95, "exact")
        Interval(value=0.5, low=0.4, high=0.6, confidence=0.95, kind=exact)
    """

    value: float
    low: float
    high: float
    confidence: float
    kind: str

    def _summary(self) -> dict[str, str]:
        return {
            **{name: f"{getattr(self, name):.4g}" for name in ("value", "low", "high", "confidence")},
            "kind": self.kind,
        }


def mean_interval(values: Tensor, confidence: float = 0.95) -> Interval:
    """The mean of independent values ``(n,)`` with Student's interval.

    Example:
        >>> import torch
        >>> mean_interval(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        Interval(value=2, low=-0.4841, high=4.484, confidence=0.95, kind=asymptotic)
    """
    from scipy import special

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, -math.inf, math.inf, confidence, "asymptotic")
    off = float(special.stdtrit(count - 1, 0.5 * (1 + confidence))) * float(values.std()) / math.sqrt(count)
    return Interval(mean, mean - off, mean + off, confidence, "asymptotic")
