"""The networks of a score function, and whether they are ready to be evaluated."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator

import torch

from ..errors import InvalidArgumentError
from .base import Score


def networks_of(score_fn: object) -> list[torch.nn.Module]:
    """The networks of a score function, of a combination those of its parts.

    Example:
        >>> len(networks_of(scoresde.load("digits").score())), networks_of(lambda x, t: -x)
        (1, [])
    """
    found = [net for part in getattr(score_fn, "score_fns", ()) for net in networks_of(part)]
    net = getattr(score_fn, "net", score_fn)
    return [*found, *([net] if isinstance(net, torch.nn.Module) and net not in found else [])]


def check_evaluating(name: str, function: object) -> None:
    """Refuse a network in training mode, also one that a function encloses, and whatever `check_quiet` refuses."""
    for part in (function, getattr(function, "__self__", None), *_enclosed(function)):
        if isinstance(part, torch.nn.Module) and part.training:
            raise InvalidArgumentError(f"A network of `{name}` is in training mode, and may draw noise; call .eval().")
    check_quiet(name, function)


def check_quiet(name: str, function: object) -> None:
    """Refuse a network with a layer in training mode that asks for its mode, as dropout does, which draws noise."""
    layers = (layer for net in _within(function, set()) for layer in net.modules())
    for cls in dict.fromkeys(type(layer) for layer in layers if layer.training):
        if _asks(cls):
            raise InvalidArgumentError(
                f"The network of `{name}` is in training mode, and a layer asks whether it is, {cls.__name__}, "
                "which may draw noise; call .eval()."
            )


def _within(part: object, seen: set[int]) -> Iterator[torch.nn.Module]:
    """The networks that something calls: of a score function, of what a function encloses, and of the variables and
    functions of its own module that it names."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, torch.nn.Module):
        yield part
    inner: list[object] = []
    if isinstance(part, Score):
        inner = [getattr(part, name, None) for name in ("net", "score_fn")] + [*getattr(part, "score_fns", ())]
    elif isinstance(part, functools.partial):
        inner = [part.func, *part.args, *part.keywords.values()]
    elif isinstance(part, types.MethodType):
        inner = [part.__func__, part.__self__]
    elif isinstance(part, types.FunctionType):
        named = [part.__globals__.get(name) for name in part.__code__.co_names]
        inner = [*_enclosed(part), *(value for value in named if _of_module(value, part.__module__))]
    for value in inner:
        yield from _within(value, seen)


def _of_module(value: object, module: str) -> bool:
    """Whether a global variable is a network or a score, or a function of that module."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    return isinstance(value, torch.nn.Module | Score)


def _enclosed(function: object) -> list[object]:
    """What the variables of a function have that it encloses, as far as they have been assigned."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _asks(layer: type[torch.nn.Module]) -> bool:
    """Whether a method of a layer names its mode; of compiled code that is not known.

    Example:
        >>> _asks(torch.nn.Dropout), _asks(torch.nn.Linear)
        (True, False)
    """
    own = [cls for cls in layer.__mro__ if cls not in torch.nn.Module.__mro__]
    methods = [value for cls in own for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    return issubclass(layer, torch.jit.ScriptModule) or any("training" in f.__code__.co_names for f in methods)
