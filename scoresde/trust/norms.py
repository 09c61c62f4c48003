"""What the error of a sample is measured in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidTypeError, check_choice, short
from ..core.support.checks import check_callable
from ..sets.identity import Made

Function = Callable[[Tensor], Tensor]


def rms(difference: Tensor) -> Tensor:
    """The root mean square over dimensions, ``(batch,)``."""
    return difference.flatten(1).square().mean(1).sqrt()


def largest(difference: Tensor) -> Tensor:
    """The largest entry, ``(batch,)``."""
    return difference.flatten(1).abs().amax(1)


def entries(difference: Tensor) -> Tensor:
    """Every entry, ``(batch, *event)``."""
    return difference.abs()


NORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"rms": rms, "max": largest, "pixel": entries}


class Norm:
    """The size of differences between states: a name of `NORMS`, or a function of states.

    Args:
        given: ``"rms"``, ``"max"``, ``"pixel"``, or ``f(x)`` for states ``(batch, *event)``, with a row for each of
            them; the size is then the Euclidean length of :math:`f(x) - f(y)`.

    Example:
        >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
        >>> Norm("max").between(x, y), Norm(lambda x: x.sum(1)).between(x, y)
        (tensor([4.], dtype=torch.float64), tensor([7.], dtype=torch.float64))
    """

    def __init__(self, given: str | Function) -> None:
        self.function: Function | None = None
        if isinstance(given, str):
            self.name = check_choice("norm", given, NORMS)
        else:
            check_callable("norm", given, "norm(x)")
            self.function = given
            self.name = getattr(given, "__name__", type(given).__name__)

    @property
    def identity(self) -> str:
        """The name, or the SHA-256 of the networks that a function holds."""
        return self.name if self.function is None else Made.of(self.function).digest

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """The size of the difference, ``(batch,)`` or, of entries, ``(batch, *event)``, in float64."""
        if self.function is None:
            return NORMS[self.name](y.to(torch.float64) - x.to(torch.float64))
        return length(self._of(y) - self._of(x))

    def _of(self, x: Tensor) -> Tensor:
        values: Any = self.function(x)  # type: ignore[misc]
        if not isinstance(values, Tensor) or values.ndim < 1 or len(values) != len(x):
            found = tuple(values.shape) if isinstance(values, Tensor) else short(values)
            raise InvalidTypeError(
                f"`norm` must return a tensor with a row for each of the {len(x)} states, got {found}."
            )
        return values.to(torch.float64).reshape(len(x), -1)


def length(difference: Tensor) -> Tensor:
    """The Euclidean length, ``(batch,)``."""
    return difference.flatten(1).square().sum(1).sqrt()
