"""Looking for samples that are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._tensors import as_array, row_finite

EVERY = 32  # steps between two reads of another device


class Found(NamedTuple):
    """Samples that are not finite.

    Fields: how many steps ago each of them was so for the first time, ``(batch,)``: 1 for the last step, 0 for a sample
    that is finite; whether the score was not finite in that step, ``(batch,)`` bool; and for each of the last steps the
    time where it began and its evaluations.
    """

    ago: np.ndarray
    wrong: np.ndarray
    window: Sequence[tuple[float | Tensor, int]]

    @property
    def first(self) -> Found:
        """Those that were not finite first."""
        return self._replace(ago=np.where(self.ago == self.ago.max(), self.ago, 0))


class Watch:
    """Looks at the states of a solve after each step that all samples make.

    On the host a sum tells at once whether all numbers are finite. A device is not waited for: the largest number of
    each sample, and of its scores, is written to a table there, which is read after `EVERY` steps and at the end.

    Args:
        x: the state at the start.

    Attributes:
        late: whether what is found may be some steps old.
    """

    def __init__(self, x: Tensor) -> None:
        self.late = waits(x)
        self._table: Sequence[Tensor] = ()
        self._window: list[tuple[float | Tensor, int]] = []

    def fine(self, x: Tensor) -> bool:
        """Whether all samples are known to be finite, without waiting for a device."""
        return not self.late and math.isfinite(x.sum().item())

    def look(self, x: Tensor, outputs: Sequence[Tensor], left: float | Tensor, used: int, *, now: bool) -> Found | None:
        """What is not finite after a step; None if nothing is, or if it is not read yet, unless that must be ``now``.

        Args:
            x, outputs: the state, and what the network returned last.
            left, used: the time where the step began, and its evaluations.
        """
        if not self.late:
            bad = ~as_array(row_finite(x))
            return Found(bad.astype(np.int64), wrong_rows(outputs, len(x)), [(left, used)]) if bad.any() else None
        if not len(self._table) or self._table[0].shape[1] != len(x):
            self._table, self._window = x.new_zeros((EVERY, 2, len(x))).unbind(), []
        row = self._table[len(self._window)]
        for part, tensors in zip(row, ((x,), outputs), strict=True):
            _largest(tensors, part)
        self._window.append((left, used))
        if not now and len(self._window) < EVERY:
            return None
        window, self._window = self._window, []
        good = np.isfinite(torch.stack(list(self._table[: len(window)])).cpu().numpy())  # (steps, 2, batch)
        bad = ~good[:, 0]
        since = bad.argmax(0)
        wrong = ~np.take_along_axis(good[:, 1], since[None], 0)[0]
        return Found(np.where(bad.any(0), len(bad) - since, 0), wrong, window) if bad.any() else None


def waits(x: Tensor) -> bool:
    """Whether the host waits for a tensor's device where it reads a number.

    Example:
        >>> waits(torch.zeros(1))
        False
    """
    return not x.is_cpu


def wrong_rows(outputs: Sequence[Tensor], batch: int) -> np.ndarray:
    """Of which samples an output of the network is not finite, ``(batch,)`` bool.

    Example:
        >>> wrong_rows([torch.tensor([[0.0], [torch.inf]])], 2)
        array([False,  True])
    """
    wrong = np.zeros(batch, dtype=bool)
    for value in outputs:
        if len(value) == batch:
            wrong |= ~as_array(row_finite(value))
    return wrong


def _largest(tensors: Sequence[Tensor], out: Tensor) -> None:
    """Write the largest absolute value of each sample, 0 where there is none; NaN is larger than any."""
    first = True
    for value in tensors:
        if len(value) != len(out) or not value.numel():
            continue
        value, over = value.detach(), tuple(range(1, value.ndim))
        if first:
            torch.linalg.vector_norm(value, math.inf, over, dtype=out.dtype, out=out)
        else:
            torch.maximum(out, torch.linalg.vector_norm(value, math.inf, over, dtype=out.dtype), out=out)
        first = False
    if first:
        out.zero_()
