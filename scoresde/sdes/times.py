"""Times, as a user or a solver gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._checks import check_number
from .._tensors import compute_dtype
from ..errors import InvalidArgumentError, InvalidTypeError


def as_time(name: str, t: Any, low: float = 0.0) -> Tensor:
    """A time as a float64 tensor, 0-d or ``(batch,)``; as a number it must not be below ``low``."""
    if isinstance(t, Tensor):
        if not t.dtype.is_floating_point:
            raise InvalidTypeError(f"`{name}` must be a float or a floating-point tensor, got {t.dtype}.")
        if t.ndim > 1:
            raise InvalidArgumentError(f"`{name}` must be a scalar or (batch,), got shape {tuple(t.shape)}.")
        return t.to(torch.float64)
    return torch.tensor(check_number(name, t, low=low), dtype=torch.float64)


def times_of(x: Tensor, t: Any) -> Tensor:
    """The time of each sample of a batch, float64 ``(batch,)`` on the batch's device."""
    time = as_time("t", t)
    if time.ndim and len(time) not in (1, len(x)):
        raise InvalidArgumentError(f"`t` must be a scalar or (batch,) = ({len(x)},), got shape {tuple(time.shape)}.")
    return time.to(x.device).expand(len(x))


def like_time(value: Tensor, t: Any) -> Tensor:
    """float64 for a float; the dtype of a tensor, float32 or wider."""
    return value.to(compute_dtype(t.dtype)) if isinstance(t, Tensor) else value
