"""How strongly guidance acts: one number, one for each level of noise, or one for each sample."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._checks import check_number, form
from .._context import per_row
from .._tensors import number
from ..errors import InvalidArgumentError, InvalidTypeError
from ..sdes import Node

ScaleLike = float | str | Callable[[Tensor], Any]


class Scale(abc.ABC):
    """The scale w of a guidance.

    Attributes:
        constant: the number, if there is one for all.
        name: of the entry of the context that has it, if there is one.
        by_level: whether it depends on the level of noise.
    """

    constant: float | None = None
    name: str | None = None
    by_level = False

    @staticmethod
    def of(given: ScaleLike) -> Scale:
        """What a user passes: a number, a function of the log-SNR, or a name.

        Raises:
            InvalidArgumentError, InvalidTypeError: it is none of them.

        Example:
            >>> (
            ...     Scale.of(2.0).constant,
            ...     Scale.of("guidance").name,
            ...     Scale.of(torch.sigmoid).by_level,
            ... )
            (2.0, 'guidance', True)
        """
        if isinstance(given, str):
            return OfSamples(given)
        if callable(given):
            return OfLevels(given)
        if isinstance(given, Tensor) and given.ndim:
            raise InvalidTypeError(
                f"`scale` must be a number, got {form(given)}. For one number per sample pass a name, as "
                "scale='guidance', and the tensor in the context of the solve, context={'guidance': tensor}."
            )
        return Constant(check_number("scale", given))

    @abc.abstractmethod
    def at(self, x: Tensor, node: Node, context: Mapping[str, object]) -> float | Tensor:
        """The number at a level of noise: one for all samples, or ``(batch,)``."""

    @property
    def arguments(self) -> dict[str, bool]:
        """See `Score.arguments`; what is missing has an error of its own."""
        return {} if self.name is None else {self.name: False}

    def rest(self, context: dict[str, object]) -> dict[str, object]:
        """The context without the scale, which is for nobody else."""
        return {name: value for name, value in context.items() if name != self.name}


class Constant(Scale):
    """One number."""

    def __init__(self, value: float) -> None:
        self.constant = self.value = value

    def at(self, x: Tensor, node: Node, context: Mapping[str, object]) -> float:
        """See `Scale.at`."""
        return self.value


class OfLevels(Scale):
    """A function of the log-SNR, ``()`` or ``(batch,)`` in float64."""

    by_level = True

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function

    def at(self, x: Tensor, node: Node, context: Mapping[str, object]) -> float | Tensor:
        """See `Scale.at`."""
        log_snr = 2 * number(node.lam)
        if not isinstance(log_snr, Tensor):
            found = self.function(torch.tensor(log_snr, dtype=torch.float64))
            return check_number("scale(log_snr)", found, hint=f" The log-SNR was {log_snr:.4g}.")
        found = self.function(log_snr.clone())
        if not isinstance(found, Tensor) or not found.ndim:
            return check_number("scale(log_snr)", found)
        if found.shape != log_snr.shape:
            raise InvalidArgumentError(
                f"`scale(log_snr)` must return a number, or {tuple(log_snr.shape)} as its argument, got {form(found)}."
            )
        return found


class OfSamples(Scale):
    """An entry of the context, with a number for each sample."""

    def __init__(self, name: str) -> None:
        if not name.isidentifier():
            raise InvalidArgumentError(
                f"`scale` must be a number, a function of the log-SNR, or the name of an entry of the context with a "
                f"number for each sample, got {name!r}."
            )
        self.name: str = name

    def at(self, x: Tensor, node: Node, context: Mapping[str, object]) -> Tensor:
        """See `Scale.at`."""
        given = context.get(self.name)
        if given is None:
            raise InvalidArgumentError(
                f"The scale of the guidance is `context[{self.name!r}]`, which is missing. Pass "
                f"context={{{self.name!r}: torch.tensor([2.0])}} for all samples, or one number for each."
            )
        rows = per_row({self.name: given}, x)[self.name]
        if not isinstance(rows, Tensor) or rows.shape != (len(x),) or rows.dtype.is_complex:
            raise InvalidArgumentError(
                f"`context[{self.name!r}]`, the scale of the guidance, must be one number per sample, ({len(x)},), got "
                f"{form(rows)}."
            )
        return rows
