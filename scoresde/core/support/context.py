"""The context of a network: tensors, or nests (dicts, lists, tuples, …) of tensors, each with one entry per sample.

A tensor ``(1, …)`` is expanded to the batch. What is no tensor, as None, a name or a flag, is the same for all samples
and is passed as it is; so is a 0-d tensor inside a nest. All that goes into nests is in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import InvalidArgumentError, ScoreFnError
from .checks import as_torch, form

_NUMBERS = (bool, int, float, np.generic)
_PLAIN = (str, type(None), *_NUMBERS)  # what a nest of a solve may hold besides tensors


def tensors(values: Iterable[object]) -> list[Tensor]:
    """The tensors among values, and in nests.

    Example:
        >>> tensors([torch.ones(1), None, {"a": (torch.zeros(1), "b")}])
        [tensor([1.]), tensor([0.])]
    """
    return [leaf for v in values for leaf in ((v,) if isinstance(v, Tensor) else _tensors_in(v))]


def _tensors_in(nest: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor)]


def places(nest: object) -> list[tuple[str, Tensor]]:
    """The tensors of a nest, each after its place.

    Example:
        >>> places({"a": (torch.ones(1), None)})
        [("['a'][0]", tensor([1.]))]
    """
    leaves, _ = pytree.tree_flatten_with_path(nest)
    return [(pytree.keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, Tensor)]


def named(context: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a context by their names in the text of an error.

    Example:
        >>> named({"label": torch.ones(1), "more": {"size": torch.zeros(1)}})
        {"context['label']": tensor([1.]), "context['more']['size']": tensor([0.])}
    """
    return {f"context[{k!r}]{place}": v for k, nest in context.items() for place, v in places(nest)}


def mapped(function: Callable[..., Tensor], context: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """The context with a function of every tensor, or of those at the same place in other contexts too.

    Example:
        >>> mapped(lambda v: 2 * v, {"label": torch.ones(1), "more": [None, torch.ones(1)]})
        {'label': tensor([2.]), 'more': [None, tensor([2.])]}
    """
    return {
        name: function(value, *(c[name] for c in others))
        if isinstance(value, Tensor)
        else pytree.tree_map(partial(_of_tensor, function), value, *(c[name] for c in others))
        for name, value in context.items()
    }


def _of_tensor(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    return function(value, *others) if isinstance(value, Tensor) else value


def cut(context: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """The context of some samples.

    Example:
        >>> cut({"label": torch.arange(3), "more": {"name": "a"}}, torch.tensor([2]))
        {'label': tensor([2]), 'more': {'name': 'a'}}
    """

    def some(value: Tensor) -> Tensor:
        if not value.ndim:
            return value
        return value[rows.to(value.device) if isinstance(rows, Tensor) else rows]

    return mapped(some, context)


def has_rows(context: Mapping[str, object]) -> bool:
    """Whether a tensor has entries of samples, so that it belongs to one batch.

    Example:
        >>> (
        ...     has_rows({"label": 3, "more": [torch.ones(1, 5)]}),
        ...     has_rows({"more": [torch.ones(2, 5)]}),
        ... )
        (False, True)
    """
    return any(v.ndim and v.size(0) != 1 for v in tensors(context.values()))


def is_rows(value: Tensor, batch: int) -> bool:
    """Whether a tensor has one entry per sample.

    Example:
        >>> is_rows(torch.ones(3, 2), 3), is_rows(torch.tensor(3.0), 3)
        (True, False)
    """
    return value.ndim > 0 and value.size(0) == batch


def per_row(context: Mapping[str, Any], x: Tensor, *, tables: bool = False) -> dict[str, Any]:
    """The context of a state, with one entry per sample in every tensor: ``(1, …)`` is expanded, a number or a 0-d
    tensor that is an argument becomes ``(batch,)``, and a tensor with other entries is refused; where there may be
    ``tables``, an argument is one that all samples share.

    Example:
        >>> per_row(
        ...     {"label": 3, "more": {"size": torch.ones(1), "name": "a"}}, torch.zeros(2, 5)
        ... )
        {'label': tensor([3, 3]), 'more': {'size': tensor([1., 1.]), 'name': 'a'}}
    """
    batch = x.size(0)
    return {
        name: value
        if isinstance(value, Tensor) and value.ndim and value.size(0) == batch
        else _in_rows(name, value, batch, x, tables)
        for name, value in context.items()
    }


def _in_rows(name: str, value: Any, batch: int, x: Tensor, tables: bool) -> Any:
    if isinstance(value, _NUMBERS) or (isinstance(value, Tensor) and not value.ndim):
        return torch.as_tensor(value, device=x.device).expand(batch)
    if all(not v.ndim or is_rows(v, batch) for v in tensors([value])):
        return value

    def expanded(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim or is_rows(leaf, batch):
            return leaf
        if leaf.size(0) == 1:
            return leaf.expand(batch, *leaf.shape[1:])
        if tables and not path:
            return leaf
        raise _no_rows(f"context[{name!r}]{pytree.keystr(path)}", leaf, batch)

    return pytree.tree_map_with_path(expanded, value)


def check_values(context: Mapping[str, object], batch: int) -> None:
    """Refuse what a solve cannot follow with its samples: numbers and lists of them in the place of a tensor (they may
    be meant for all samples or for each), and objects whose inside is not known. `per_row` checks the rows.

    Example:
        >>> check_values(
        ...     {"label": torch.ones(3), "more": {"size": torch.ones(1, 2), "scale": 0.5}},
        ...     batch=3,
        ... )
    """
    for name, value in context.items():
        given = f"context[{name!r}]"
        if not (value is None or isinstance(value, str | dict) or tensors([value])):
            raise _no_rows(given, value, batch)
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            if not _is_known(leaf, inside=bool(path)):
                raise _no_rows(given + pytree.keystr(path), leaf, batch)


def _is_known(leaf: object, *, inside: bool) -> bool:
    """Whether it can be followed, in the place of an argument or inside a nest."""
    if not isinstance(leaf, Tensor):
        return isinstance(leaf, _PLAIN)
    return inside or leaf.ndim > 0


def _no_rows(name: str, value: object, batch: int) -> InvalidArgumentError:
    """The error of a value that has no entry per sample."""
    counted = isinstance(value, Tensor) and value.ndim
    count = f" has {value.size(0)} rows; the batch has {batch}. It" if counted else ""  # type: ignore[attr-defined]
    hint = "" if (tensor := _instead(name, value)) is None else f"; try {tensor}"
    return InvalidArgumentError(
        f"`{name}`{count} must be a tensor ({batch}, …) with one entry per sample, or (1, …) with one for all, got "
        f"{form(value)}{hint}."
    )


def _instead(name: str, value: object) -> str | None:
    """What to write in the place of a value that is no tensor ``(batch, …)``, where that is clear."""
    if isinstance(value, _NUMBERS):
        return f"torch.tensor([{value}]), the same for all samples"
    if isinstance(value, Tensor) and not value.ndim:
        return f"{name}[None], the same for all samples"
    numbers = isinstance(value, list | tuple) and all(isinstance(leaf, _NUMBERS) for leaf in pytree.tree_leaves(value))
    return as_torch(name, value) if numbers or isinstance(value, np.ndarray) else None


def stackable(a: Mapping[str, Any], b: Mapping[str, Any], batch: int) -> bool:
    """Whether two contexts of one batch, `per_row`, can be that of one batch of twice the size.

    Example:
        >>> label = {"label": torch.ones(2)}
        >>> stackable(label, {"label": torch.zeros(2)}, 2), stackable(label, {}, 2)
        (True, False)
    """
    return a.keys() == b.keys() and all(_alike(value, b[name], batch) for name, value in a.items())


def _alike(a: Any, b: Any, batch: int) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and is_rows(a, batch) and is_rows(b, batch):
        return a.shape[1:] == b.shape[1:] and a.dtype == b.dtype and a.device == b.device
    if pytree.tree_is_leaf(a) or pytree.tree_is_leaf(b):
        return a is b or (isinstance(a, _PLAIN) and type(a) is type(b) and bool(a == b))
    (ours, form_), (theirs, other) = pytree.tree_flatten(a), pytree.tree_flatten(b)
    return form_ == other and all(_alike(*pair, batch) for pair in zip(ours, theirs, strict=True))


def stacked(contexts: Sequence[Mapping[str, Any]], batch: int) -> dict[str, Any]:
    """The context of several batches after each other, of `stackable` contexts.

    Example:
        >>> stacked([{"label": torch.ones(1)}, {"label": torch.zeros(1)}], batch=1)
        {'label': tensor([1., 0.])}
    """
    return mapped(lambda *values: torch.cat(values) if is_rows(values[0], batch) else values[0], *contexts)


def repeated(value: Any, count: int) -> Any:
    """A tensor of one batch, for as many of them after each other; what has no rows passes through.

    Example:
        >>> repeated(torch.tensor([1, 2]), 2), repeated(0.5, 2)
        (tensor([1, 2, 1, 2]), 0.5)
    """
    return torch.cat([value] * count) if isinstance(value, Tensor) and value.ndim else value


def versions(x: Tensor, context: Mapping[str, object]) -> list[int]:
    """Torch's gradient mode, and how often a state and a context were written to; of inference tensors nobody counts
    it."""
    found = [int(torch.is_grad_enabled())]
    for value in (x, *context.values()):  # a step takes it: tensors that are arguments go first
        if not isinstance(value, Tensor):
            found += [leaf._version for leaf in _tensors_in(value) if not leaf.is_inference()]
        elif not value.is_inference():
            found.append(value._version)
    return found


def check_unwritten(what: str, before: list[int], x: Tensor, context: Mapping[str, object], where: str = "") -> None:
    """Refuse a network that wrote to what it was given, whose `versions` were ``before``, or that left torch in another
    gradient mode."""
    after = versions(x, context)
    if after == before:
        return
    if after[0] != before[0]:
        torch.set_grad_enabled(bool(before[0]))
        mode, manager = ("on", "enable_grad") if after[0] else ("off", "no_grad")
        raise ScoreFnError(f"{what} left torch's gradient mode {mode}{where}; use `with torch.{manager}():` inside it.")
    given = {"its input": x, **{f"`{name}`": value for name, value in named(context).items()}}
    counted = [name for name, value in given.items() if not value.is_inference()]
    written = next(n for n, a, b in zip(counted, after[1:], before[1:], strict=True) if a != b)
    clone = "x.clone()" if written == "its input" else "a clone"
    raise ScoreFnError(f"{what} modified {written} in place{where}; work on {clone} inside it.")
