"""A digest of what a score function is, so that a set is not continued with another one."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError, short

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, range)
_DEEPEST = 50


def identity_of(score_fn: object) -> str:
    """SHA-256 of the parameters of modules, of tensors, numbers and names of functions: all that an object was made of,
    in its attributes without an underscore or with the name of an argument.

    Raises:
        InvalidArgumentError: something in it, such as a function inside a function, cannot be told from others.

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
    for part in _parts(score_fn, 0):
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def _parts(value: Any, depth: int) -> Iterator[bytes | memoryview]:
    if depth > _DEEPEST:
        raise _unknown(value)
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        return
    if isinstance(value, np.ndarray):
        value = [str(value.dtype), value.shape, value.tobytes()]
    elif isinstance(value, torch.nn.Module):
        value = [type(value), repr(value), dict(value.state_dict())]
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for name in sorted(value, key=repr):
            yield from _parts(name, depth + 1)
            yield from _parts(value[name], depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        yield f"{type(value).__name__} {len(value)}".encode()
        for part in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            yield from _parts(part, depth + 1)
    elif isinstance(value, functools.partial):
        yield from _parts(["partial", value.func, value.args, value.keywords], depth + 1)
    elif isinstance(value, types.MethodType):
        yield from _parts(["method", value.__func__, value.__self__], depth + 1)
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        if "<" in value.__qualname__:  # a lambda, or a function inside a function
            raise _unknown(value)
        yield f"{value.__module__}.{value.__qualname__}".encode()
    elif hasattr(value, "__dict__"):
        given = _parameters(type(value))
        kept = {k: v for k, v in vars(value).items() if k[:1] != "_" or k[1:] in given}
        yield from _parts([type(value), kept], depth + 1)
    else:
        raise _unknown(value)


def _parameters(cls: type) -> set[str]:
    """The names of what objects of a class are made of."""
    try:
        return {*inspect.signature(cls).parameters}
    except (ValueError, TypeError):  # a class of C
        return set()


def _unknown(value: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"`identity` is missing: nothing tells {short(value)} from others, so that a set could be continued with "
        f"another score function; pass identity='…', such as the digest of its file."
    )
