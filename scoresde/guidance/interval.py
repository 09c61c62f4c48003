"""Where guidance acts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import Node
from ..core.support.checks import check_number
from ..core.support.tensors import number


class GuidanceInterval(NamedTuple):
    r"""Log-SNRs, :math:`\ln\alpha^2/\sigma^2`, from ``low`` to ``high``, both included."""

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of(cls, given: Sequence[float | None] | None) -> GuidanceInterval:
        """An interval from two numbers, or None for everywhere; an end may be None or infinite."""
        if given is None:
            return cls()
        if isinstance(given, str | bytes) or not isinstance(given, Sequence) or len(given) != 2:
            raise InvalidTypeError(
                f"`interval` must be two log-SNRs (low, high), such as (float(sde.log_snr(0.8)), "
                f"float(sde.log_snr(0.2))), got {given!r}."
            )
        low, high = (_end(v, open_end) for v, open_end in zip(given, (-math.inf, math.inf), strict=True))
        if not low < high:
            raise InvalidArgumentError(
                f"`interval` must be (low, high) in log-SNR, which is low where noise dominates, got {tuple(given)}."
            )
        return cls(low, high)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self == GuidanceInterval()

    def inside(self, node: Node) -> bool | Tensor:
        """Whether a node is inside: a bool, or a mask ``(batch,)`` where times are per sample."""
        if self.whole:
            return True
        log_snr = 2 * number(node.lam)
        return (self.low <= log_snr) & (log_snr <= self.high)


def _end(value: object, open_end: float) -> float:
    return open_end if value is None or value in (-math.inf, math.inf) else check_number("interval", value)
