"""The networks of a score function, and whether they are ready to be evaluated."""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import types

import torch

from ..errors import InvalidArgumentError
from .base import Score

# What has its own way to be looked into, or none.
_FOLLOWED = (torch.nn.Module, Score, type, types.ModuleType, types.FunctionType, types.MethodType)
_COMPILERS = ("torch.fx.", "torch._dynamo.", "torch.export.")  # whose wrappers keep the mode for others


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
    owner = function.__self__ if isinstance(function, types.MethodType) else None
    for part in (function, owner, *_enclosed(function)):
        if isinstance(part, torch.nn.Module) and not isinstance(part, torch.fx.GraphModule) and _trains(part):
            raise InvalidArgumentError(f"A network of `{name}` is in training mode, and may draw noise; call .eval().")
    check_quiet(name, function)


def check_quiet(name: str, function: object) -> None:
    """Refuse a network with a layer in training mode that asks for its mode, as dropout does, which draws noise."""
    layers = (layer for net in _within(function) for layer in net.modules())
    for cls in dict.fromkeys(type(layer) for layer in layers if _trains(layer)):
        if _asks(cls):
            raise InvalidArgumentError(
                f"The network of `{name}` is in training mode, and a layer depends on the mode, {cls.__name__}: it may "
                "draw noise, or compute something else than in evaluation; call .eval()."
            )


def _trains(layer: torch.nn.Module) -> bool:
    """Whether a layer is in training mode; frozen code of TorchScript has none."""
    return bool(getattr(layer, "training", False))


def _within(function: object) -> list[torch.nn.Module]:
    """The networks that something calls, as far as its code and its parts show."""
    found: list[torch.nn.Module] = []
    seen: dict[int, object] = {}  # they are kept, so that no two have the same number
    left = [function]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, torch.nn.Module):
            found.append(part)
        left += _called(part)
    return found


def _called(part: object) -> list[object]:
    """What something may call: the parts of a score function, what a function encloses, has as a default, or names
    among the variables of its module, and the attributes of these, and of a callable object, that its code names."""
    if isinstance(part, torch.nn.Module | type):
        return []
    if isinstance(part, functools.partial):
        return [part.func, *part.args, *part.keywords.values()]
    if isinstance(part, functools._lru_cache_wrapper):
        return [part.__wrapped__]
    if isinstance(part, list | tuple | dict):
        return [value for value in (part.values() if isinstance(part, dict) else part) if callable(value)]
    if isinstance(part, types.FunctionType):
        named = [part.__globals__.get(name) for name in _globals(part.__code__)]
        kept = [value for value in named if _of_module(value, part.__module__)]
        given = [*_enclosed(part), *(part.__defaults__ or ()), *(part.__kwdefaults__ or {}).values()]
        return [*given, *kept, *(value for owner in (*given, *named) for value in _attributes(owner, part))]
    if isinstance(part, Score):
        return list(vars(part).values())
    if isinstance(part, types.MethodType):
        return [part.__func__, part.__self__, *_attributes(part.__self__, part.__func__)]
    call = inspect.getattr_static(type(part), "__call__", None)
    return [call, *_attributes(part, call)] if isinstance(call, types.FunctionType) else []


def _enclosed(function: object) -> list[object]:
    """What the variables of a function have that it encloses, as far as they have been assigned."""
    found = []
    for cell in (function.__closure__ or ()) if isinstance(function, types.FunctionType) else ():
        with contextlib.suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _attributes(owner: object, function: object) -> list[object]:
    """The attributes of an object, and theirs, that the code of a function names."""
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    found: list[object] = []
    seen = {id(owner)}
    left = [] if isinstance(owner, _FOLLOWED) else [owner]
    while left:
        own = getattr(left.pop(), "__dict__", None)
        values = [own[name] for name in names if name in own] if isinstance(own, dict) else []
        new = [value for value in values if id(value) not in seen]
        seen |= {id(value) for value in new}
        found += new
        left += [value for value in new if not isinstance(value, _FOLLOWED)]
    return found


def _globals(code: types.CodeType) -> list[str]:
    """The variables of its module that a function reads, inner ones included."""
    named = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _globals(part)]
    return [*named, *inner]


def _of_module(value: object, module: str) -> bool:
    """Whether a global variable is a network, a score or a list of these, or something callable of that module."""
    if isinstance(value, torch.nn.Module | Score | functools.partial | list | tuple | dict):
        return True
    return callable(value) and getattr(value, "__module__", None) == module


def _asks(layer: type[torch.nn.Module]) -> bool:
    """Whether a method of a layer names its mode; of compiled code that is not known.

    Example:
        >>> _asks(torch.nn.Dropout), _asks(torch.nn.Linear)
        (True, False)
    """
    own = [
        cls for cls in layer.__mro__ if cls not in torch.nn.Module.__mro__ and not cls.__module__.startswith(_COMPILERS)
    ]
    methods = [value for cls in own for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    return issubclass(layer, torch.jit.ScriptModule) or any("training" in f.__code__.co_names for f in methods)
