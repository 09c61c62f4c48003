"""How strongly guidance acts: one number, one for each level of noise, or one for each sample."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import Node
from ..core.support.checks import check_number, form
from ..core.support.context import per_row
from ..core.support.tensors import has_graph, transforming
from ..scores import Score

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
            InvalidArgumentError, InvalidTypeError: it is another.

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

    def check_apart(self, score_fns: Sequence[Score], own: Iterable[str] = ()) -> None:
        """Refuse a name that what is guided, or what guides, takes itself, since it would not get it.

        Args:
            score_fns: the score functions.
            own: names that what guides takes.
        """
        if self.name is not None and any(
            self.name in taken for taken in (own, *(s.context_arguments for s in score_fns))
        ):
            raise InvalidArgumentError(
                f"scale={self.name!r} is the name of an argument that the score function, or what guides it, takes "
                "itself; give the scale another name."
            )

    @property
    def context_arguments(self) -> dict[str, bool]:
        """See `Score.context_arguments`; what is missing has an error of its own."""
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
        """See `Scale.at`. A tensor where a gradient is recorded, of the level or of what the function holds."""
        lam = node.lam if isinstance(node.lam, Tensor) else torch.tensor(node.lam, dtype=torch.float64)
        found = self.function(2 * lam)
        if isinstance(found, np.ndarray):
            found = torch.as_tensor(found, device=lam.device)
        if not isinstance(found, Tensor) or not (found.ndim or has_graph(found)):
            value = found.item() if isinstance(found, Tensor) else found
            where = f" The log-SNR was {2 * float(lam):.4g}." if not lam.ndim else ""
            return check_number("scale(log_snr)", value, hint=where)
        if found.shape not in (lam.shape, ()) or found.dtype.is_complex:
            raise InvalidArgumentError(
                f"`scale(log_snr)` must return a number, or {tuple(lam.shape)} as its argument, got {form(found)}."
            )
        if found.device.type == "cpu" and not transforming() and not bool(found.isfinite().all()):  # others would wait
            bad = float(2 * lam.expand(found.shape)[~found.isfinite()][0])
            raise InvalidArgumentError(f"`scale(log_snr)` must be finite. It is not where the log-SNR is {bad:.4g}.")
        return found if found.is_floating_point() else found.to(torch.float64)


class OfSamples(Scale):
    """An entry of the context, with a number for each sample."""

    def __init__(self, name: str) -> None:
        if not name.isidentifier() or name in ("x", "t", "node", "self"):
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
        if not isinstance(rows, Tensor) or rows.shape != (len(x),) or rows.dtype.is_complex or rows.dtype == torch.bool:
            raise InvalidArgumentError(
                f"`context[{self.name!r}]`, the scale of the guidance, must be one number per sample, ({len(x)},), got "
                f"{form(rows)}."
            )
        return rows if rows.is_floating_point() else rows.to(torch.float64)


class AtMostOne(Scale):
    """Another one, limited to what is between 0 and 1."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.name, self.by_level = scale, scale.name, scale.by_level

    def at(self, x: Tensor, node: Node, context: Mapping[str, object]) -> float | Tensor:
        """See `Scale.at`."""
        found = self.scale.at(x, node, context)
        return found.clamp(0.0, 1.0) if isinstance(found, Tensor) else min(1.0, max(0.0, found))
