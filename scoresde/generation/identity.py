"""A digest of what a score function is, so that a set is not continued with another one."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError, short

_NUMBERS = (bool, int, float, complex, str, bytes, type(None))
_PLAIN = (*_NUMBERS, range, pathlib.PurePath, torch.dtype, torch.device, torch.Size)
# What every module has, apart from its mode.
_OF_MODULES = vars(torch.nn.Module()).keys() - {"training"}
_OF_CLASSES = ("__doc__", "__module__", "__firstlineno__")
_DEEPEST = 50
Parts = Iterator[bytes | memoryview]


def identity_of(value: object) -> str:
    """SHA-256 of all that an object was made of: parameters, tensors, numbers, and functions.

    Of an object of this package these are its attributes without an underscore, or with the name of an argument; of
    others all, and the code of its class. A function counts by its name, its code, what it encloses, and the objects of
    its module that it names. A module counts by its state, buffers that are not saved, and hooks; its attributes by
    those that are numbers, text, tensors or containers of these, and of the private ones by floats.

    Raises:
        InvalidArgumentError: something in it cannot be told from others.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> one, same, other = (
        ...     identity_of(scoresde.targets.Gaussian(torch.zeros(2), v).score(sde))
        ...     for v in (1.0, 1.0, 2.0)
        ... )
        >>> one == same, one == other
        (True, False)
    """
    total = hashlib.sha256()
    for part in _parts(value, ()):
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def _parts(value: Any, inside: tuple[object, ...]) -> Parts:
    """The parts of a value; ``inside`` are the objects that it is a part of."""
    if any(value is outer for outer in inside):
        yield b"itself"
        return
    if len(inside) > _DEEPEST:
        raise _unknown(value)
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        return
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
        return
    if isinstance(value, Mapping):
        value = ("mapping", *((name, value[name]) for name in sorted(value, key=repr)))
    elif isinstance(value, set | frozenset):
        value = ("set", *sorted(value, key=repr))
    if isinstance(value, list | tuple):
        yield f"{len(value)} parts".encode()
        for part in value:
            yield from _parts(part, (*inside, value))
        return
    yield from _parts(_made_of(value), (*inside, value))


def _made_of(value: Any) -> list[object]:
    """What an object that is no plain value was made of."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tobytes()]
    if isinstance(value, torch.nn.Module):
        state = dict(value.state_dict())
        own = {
            f"{name}.{key}": v
            for name, module in value.named_modules()
            for key, v in vars(module).items()
            if key not in _OF_MODULES and (isinstance(v, float) if key[:1] == "_" else _plain(v))
        }
        hidden = {name: v for name, v in value.named_buffers() if name not in state}
        added = [  # functions of its own in the place of methods, and hooks
            _outline(f)
            for module in value.modules()
            for f in (
                *(v for v in vars(module).values() if isinstance(v, types.FunctionType) and not _known(v.__module__)),
                *module._forward_hooks.values(),
                *module._forward_pre_hooks.values(),
            )
        ]
        classes = sorted({type(module) for module in value.modules()}, key=_name)
        return [type(value), repr(value), own, state, classes, *([hidden] if hidden else []), *added]
    if isinstance(value, functools.partial):
        return ["partial", value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return ["method", value.__func__, value.__self__]
    if isinstance(value, types.FunctionType) and not _ours(value.__module__):
        enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
        named = {n: value.__globals__[n] for n in _names(value.__code__) if n in value.__globals__}
        more = [given for given in (value.__kwdefaults__, vars(value)) if given]
        return [_name(value), _code(value.__code__), enclosed, value.__defaults__, _near(value, named), *more]
    if isinstance(value, type):
        return [_name(value), *(_class_code(cls) for cls in value.__mro__ if not _known(cls.__module__))]
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return [_name(value)]
    if isinstance(value, types.ModuleType):
        return [value.__name__]
    if not hasattr(value, "__dict__"):
        raise _unknown(value)
    ours, given = _ours(type(value).__module__), _parameters(type(value))
    return [type(value), {k: v for k, v in vars(value).items() if not ours or k[:1] != "_" or k[1:] in given}]


def _plain(value: object) -> bool:
    """Whether a value is made of nothing but numbers, text, tensors and arrays."""
    if isinstance(value, Mapping):
        return all(map(_plain, value)) and all(map(_plain, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_plain, value))
    return isinstance(value, (*_PLAIN, Tensor, np.ndarray))


def _outline(function: Any) -> list[object]:
    """The code of a function, without what it names; of another object its class."""
    function = getattr(function, "__func__", function)
    is_function = isinstance(function, types.FunctionType)
    return [_name(function), _code(function.__code__)] if is_function else [_name(type(function))]


def _class_code(cls: type) -> list[object]:
    """The code of the methods of a class, with its plain attributes."""
    found: list[object] = [_name(cls)]
    for name, value in sorted(vars(cls).items()):
        parts = [value.fget, value.fset] if isinstance(value, property) else [getattr(value, "__func__", value)]
        found += [(name, _code(part.__code__)) for part in parts if isinstance(part, types.FunctionType)]
        if isinstance(value, _PLAIN) and name not in _OF_CLASSES:
            found.append((name, value))
    return found


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _code(code: types.CodeType) -> list[object]:
    """The instructions of a function, and of those inside it."""
    return [code.co_code, code.co_names, *(_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)]


def _names(code: types.CodeType) -> list[str]:
    """The names of its module that a function, or one inside it, looks up; names of attributes are none."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = [name for c in code.co_consts if isinstance(c, types.CodeType) for name in _names(c)]
    return sorted({*own, *inner})


def _near(function: types.FunctionType, named: Mapping[str, object]) -> dict[str, object]:
    """What a function names; functions and classes of other modules by their names only."""
    return {
        name: _name(v) if isinstance(v, type | types.FunctionType) and v.__module__ != function.__module__ else v
        for name, v in named.items()
    }


def _known(module: str | None) -> bool:
    """Whether a module's code is that of a version which the set names, or of Python."""
    first = _package(module)
    return _ours(module) or first in ("torch", "numpy") or first in sys.stdlib_module_names


def _ours(module: str | None) -> bool:
    """Whether a module is of this package."""
    return _package(module) == _package(__package__)


def _package(module: str | None) -> str:
    """The package of a module; code that `exec` has made may have none."""
    return (module or "").partition(".")[0]


def _parameters(cls: type) -> set[str]:
    """The names of what objects of a class are made of."""
    try:
        return {*inspect.signature(cls).parameters}
    except (ValueError, TypeError):  # a class of C
        return set()


def _unknown(value: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"`identity` is missing: nothing tells {short(value)} from others, so that a set could be continued with "
        f"another function; pass identity='…', such as the digest of its file."
    )
