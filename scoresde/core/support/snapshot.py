"""The state of a running solve as tensors, numbers, strings, lists and dicts, which need no pickle to be kept."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError

_PLAIN = (bool, int, float, str)


class _Kind(NamedTuple):
    """How values of a class are written, and read ``(packed, into)``."""

    cls: type
    write: Callable[[Any], Any]
    read: Callable[[Any, Any], Any]


def pack(value: Any) -> Any:
    """A value in plain parts; tensors are copied. Of an object of this package the attributes are written, but for
    functions.

    Raises:
        InvalidArgumentError: it holds an object of another package.

    Example:
        >>> pack((1.0, torch.zeros(2)))
        {'tuple': ['', [1.0, tensor([0., 0.])]]}
    """
    value = value.item() if isinstance(value, np.generic) else value
    for plain in _PLAIN:
        if isinstance(value, plain):
            return plain(value)  # an enum is one, which `torch.load` would refuse
    if value is None:
        return None
    for name, kind in _KINDS.items():
        if isinstance(value, kind.cls):
            return {name: kind.write(value)}
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        return copy if copy.is_cpu else {"device": [str(copy.device), copy]}  # wherever `torch.load` will put it
    if isinstance(value, list):
        return [pack(v) for v in value]
    if not f"{type(value).__module__}.".startswith(f"{__package__.partition('.')[0]}."):
        raise InvalidArgumentError(f"A {type(value).__module__}.{type(value).__qualname__} cannot be saved.")
    return {"object": {k: pack(v) for k, v in vars(value).items() if not callable(v)}}


def unpack(packed: Any, into: Any = None) -> Any:
    """The value that `pack` wrote.

    Args:
        packed: what it returned.
        into: the value as it is now: objects and generators are filled, and stay what they are. An object whose parts
            are not there from the beginning has a method ``_make_room(attributes)``.

    Example:
        >>> unpack(pack((1.0, [True])))
        (1.0, [True])
    """
    if isinstance(packed, Tensor):
        return packed.to("cpu", copy=True)
    if isinstance(packed, list):
        there = into if isinstance(into, list) and len(into) == len(packed) else [None] * len(packed)
        return [unpack(v, old) for v, old in zip(packed, there, strict=True)]
    if not isinstance(packed, Mapping):
        return packed
    (name, content), *_ = packed.items()
    if name != "object":
        return _KINDS[name].read(content, into)
    if hasattr(into, "_make_room"):
        into._make_room(content)
    for key, v in content.items():
        setattr(into, key, unpack(v, getattr(into, key)))
    return into


def digest(packed: Any) -> str:
    """SHA-256 of what `pack` wrote, in text, so that a damaged state is noticed.

    Example:
        >>> digest({"x": torch.zeros(2)}) == digest({"x": torch.zeros(3)})
        False
    """
    total = hashlib.sha256()
    left = [packed]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)};".encode())
            total.update(bytes_of(value))
        elif isinstance(value, Mapping | list):
            total.update(f"{type(value).__name__} {len(value)};".encode())
            left += [part for row in value.items() for part in row] if isinstance(value, Mapping) else value
        else:
            total.update(f"{type(value).__name__} {value!r};".encode())
    return total.hexdigest()


def bytes_of(value: Tensor) -> memoryview:
    """The bytes of a tensor.

    Example:
        >>> bytes_of(torch.ones(2, dtype=torch.int16)).tolist()
        [1, 0, 1, 0]
    """
    plain = value.detach().cpu().resolve_conj().resolve_neg().to_dense()
    return plain.contiguous().flatten().view(torch.uint8).numpy().data


def _read_generator(state: Tensor, into: torch.Generator) -> torch.Generator:
    into.set_state(state.cpu())
    return into


def _read_numpy_generator(state: Any, into: np.random.Generator | None) -> np.random.Generator:
    generator = np.random.Generator(np.random.Philox()) if into is None else into
    generator.bit_generator.state = unpack(state)
    return generator


def _write_tuple(value: tuple[object, ...]) -> list[Any]:
    cls = type(value)
    return [f"{cls.__module__}:{cls.__qualname__}" if hasattr(cls, "_fields") else "", [pack(v) for v in value]]


def _read_tuple(content: Any, into: object) -> Any:
    name, packed = content
    values = [unpack(v) for v in packed]
    if not name:
        return tuple(values)
    module, _, path = name.partition(":")
    cls: Any = sys.modules.get(module)
    for part in path.split("."):
        cls = getattr(cls, part, None)
    if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
        raise InvalidArgumentError(f"The state names {name!r}, which is no named tuple here.")
    return cls(*values)


def _read_dict(content: Any, into: Any) -> Any:
    there = {} if into is None else into
    there.clear()
    there.update((unpack(k), unpack(v)) for k, v in content)
    return there


_KINDS = {
    "array": _Kind(np.ndarray, lambda v: torch.from_numpy(v.copy()), lambda v, into: v.cpu().numpy().copy()),
    "generator": _Kind(torch.Generator, torch.Generator.get_state, _read_generator),
    "numpy": _Kind(np.random.Generator, lambda v: pack(v.bit_generator.state), _read_numpy_generator),
    "device": _Kind((), lambda v: v, lambda v, into: v[1].to(v[0], copy=True)),  # type: ignore[arg-type]
    "dtype": _Kind(torch.dtype, lambda v: str(v).removeprefix("torch."), lambda v, into: getattr(torch, v)),
    "tuple": _Kind(tuple, _write_tuple, _read_tuple),
    "dict": _Kind(dict, lambda v: [[pack(k), pack(x)] for k, x in v.items()], _read_dict),
}
