"""What a set of samples, or a certificate, belongs to: weights, settings, and what is said of code that is not ours."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.snapshot import bytes_of
from ..scores.fixed import constants_of
from ..scores.networks import enclosed, held_by

_PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice, pathlib.PurePath, torch.dtype, torch.device)
_OWN = __package__.partition(".")[0]
_KNOWN = (_OWN, "torch", "numpy", "builtins", "math")
_USED = ("training", "_served")  # attributes that change with the use of an object
Parts = Iterator[bytes | memoryview]


@dataclass(frozen=True)
class Made:
    """What something is made of.

    Attributes:
        digest: SHA-256 of the weights and buffers of its networks, and of the settings of objects of this package.
        foreign: the first part whose code is not of this package, as text; None where there is none.

    Example:
        >>> sde = scoresde.VPSDE()
        >>> one, same, other = (
        ...     Made.of(scoresde.targets.Gaussian(torch.zeros(2), v).score(sde))
        ...     for v in (1.0, 1.0, 2.0)
        ... )
        >>> one == same, one.digest == other.digest
        (True, False)
        >>> Made.of(torch.nn.Linear(2, 2)).foreign
        'Linear'
    """

    digest: str
    foreign: str | None

    @classmethod
    def of(cls, value: object) -> Made:
        """Of a value: numbers, text and tensors count as they are, objects of this package by their attributes without
        an underscore, or with the name of an argument; whatever else there is by the weights and buffers of the
        networks that it holds, see `held_by`. Code is not read."""
        total = hashlib.sha256()
        foreign: list[str] = []
        for part in _parts(value, (), foreign):
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
        return cls(total.hexdigest(), foreign[0] if foreign else None)

    def check_stated(self, identity: str | None, where: str) -> None:
        """Require an ``identity``, where code that is not of this package may have changed.

        Raises:
            InvalidArgumentError: there is such code, and none is given.
        """
        if self.foreign is not None and identity is None:
            raise InvalidArgumentError(
                f"`identity` is missing: {where}, and only its author can say if the code of {self.foreign} is what "
                "it was. Pass identity='…', a text that names this version of it; networks that it holds are compared "
                "by their weights."
            )


def _parts(value: Any, inside: tuple[object, ...], foreign: list[str]) -> Parts:
    """The parts of a value; ``inside`` are the objects that it is a part of, and ``foreign`` gets what is not ours."""
    if any(value is outer for outer in inside):
        yield b"itself"
        return
    inside = (*inside, value)
    plain = not callable(value) or type(value) in _PLAIN or _of(type(value), _OWN)
    if isinstance(value, Tensor):
        yield from _numbers(value)
    elif isinstance(value, torch.ScriptObject):  # which quantised layers pack their weights into
        yield from _parts(value.__getstate__(), inside, foreign)
    elif isinstance(value, _PLAIN) and plain:
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, list | tuple) and plain:
        yield f"{len(value)} parts".encode()
        for part in value:
            yield from _parts(part, inside, foreign)
    elif isinstance(value, Mapping) and plain:
        yield from _parts([(name, value[name]) for name in sorted(value, key=repr)], inside, foreign)
    elif isinstance(value, set | frozenset) and plain:
        yield from _parts(sorted(value, key=repr), inside, foreign)
    else:
        made = _made_of(value, inside)
        if made is None:
            foreign.append(getattr(value, "__name__", type(value).__name__))
            made = ["foreign", *map(_tensors, held_by(value))]
        yield from _parts(made, inside, foreign)


def _numbers(value: Tensor) -> Parts:
    """The bytes of a tensor; of one that is made of others, such as a part of a distributed one, theirs."""
    if hasattr(value, "__tensor_flatten__"):
        names, rest = value.__tensor_flatten__()
        yield f"{type(value).__name__} {rest!r}".encode()
        for part in (getattr(value, name) for name in names):
            if isinstance(part, Tensor):
                yield from _numbers(part)
        return
    yield f"{value.dtype} {tuple(value.shape)}".encode()
    yield bytes_of(value.dequantize() if value.is_quantized else value)


def _made_of(value: Any, inside: tuple[object, ...]) -> list[object] | None:
    """What an object that is no plain value was made of; None where its code is not of this package, or of a version
    that a set names."""
    if isinstance(value, np.ndarray | np.generic):
        return [str(value.dtype), value.shape, value.tobytes()]
    if isinstance(value, torch.nn.Module):
        in_ours = any(isinstance(outer, torch.nn.Module) and hasattr(outer, "arguments") for outer in inside)
        if not _of(type(value), _OWN, *(["torch.nn.modules"] if in_ours else [])):
            return None
        added = [list(part.values()) for name, part in sorted(vars(value).items()) if name.endswith("_hooks")]
        return [type(value), _attributes(value), _tensors(value, deep=False), list(value._modules.items()), added]
    if type(value) is functools.partial:
        return ["partial", value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return ["method", value.__func__, value.__self__] if _made_of(value.__self__, inside) is not None else None
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        if not (_of(value, *_KNOWN) or getattr(torch, value.__name__, None) is value):
            return None
        return [_name(value), *(enclosed(value) if isinstance(value, types.FunctionType) else [])]
    return [type(value), _attributes(value)] if _of(type(value), _OWN) and hasattr(value, "__dict__") else None


def _tensors(net: torch.nn.Module, deep: bool = True) -> dict[str, object]:
    """The parameters and buffers of a network, those included that are not saved; of a whole one also what quantised
    layers pack, and the constants of a script."""
    found: dict[str, object] = {**net._parameters, **net._buffers}
    if deep:
        found = {
            **dict(net.named_parameters(remove_duplicate=False)),
            **dict(net.named_buffers(remove_duplicate=False)),
        }
        found |= {name: packed for name, packed in net.state_dict().items() if name not in found}
    if deep and isinstance(net, torch.jit.ScriptModule):
        found["constants"] = list(constants_of(net.inlined_graph))
    return found


def _attributes(value: object) -> dict[str, object]:
    """The attributes of an object but for what it computes when it is used; of a module, those that have no underscore,
    or the name of an argument of its class, or are code."""
    own, given = type(value), inspect.signature(type(value)).parameters
    shown, module = {}, isinstance(value, torch.nn.Module)
    for name, part in vars(value).items():
        inner = module and name[:1] == "_" and name[1:] not in given
        code = callable(getattr(own, name, None)) or inspect.isroutine(part)
        made = isinstance(inspect.getattr_static(own, name, None), functools.cached_property)
        if name not in _USED and not made and (code or not inner):
            shown[name] = part
    return shown


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _of(value: Any, *packages: str) -> bool:
    """Whether a class or a function is of one of these packages, and not only named after one, as wrappers are."""
    defined, function = value.__module__ or "", isinstance(value, types.FunctionType)
    if function:  # what a function of a package returns has no name in it
        defined = str(value.__globals__.get("__name__"))
    found = sys.modules.get(defined)
    for name in [] if function else value.__qualname__.split("."):
        found = getattr(found, name, None)
    return (function or found is value) and any(f"{defined}.".startswith(f"{package}.") for package in packages)
