"""Values from JSON as the types that a dataclass declares."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints


def read_as(kind: Any, value: Any, name: str) -> Any:
    """A value of a declared type: numbers and text as they are, tuples from lists, dataclasses from their fields.

    Args:
        kind: a class, a tuple or mapping of such, one of them or None, or a dataclass of these.
        value: as JSON has it; what is an object of the class already stays.
        name: of the value, for the message.

    Raises:
        ValueError: it has another type, or fields are missing or unknown.

    Example:
        >>> read_as(tuple[float, ...], [1, 2.5], "times")
        (1.0, 2.5)
        >>> read_as(int, "1", "count")
        Traceback (most recent call last):
        ...
        ValueError: its count must be int, got str
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (origin is None and type(value) is kind) or (kind is float and type(value) is int):
        return float(value) if kind is float else value
    if origin is types.UnionType:
        return None if value is None else read_as(inner[0], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(read_as(of, part, name) for of, part in zip(kinds, value, strict=True))
    if origin is Mapping and isinstance(value, Mapping):
        return {key: read_as(inner[1], part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        own = [item for item in fields(kind) if item.init and not item.name.startswith("_")]
        needed = {item.name for item in own if item.default is MISSING and item.default_factory is MISSING}
        odd = (needed - value.keys()) | (value.keys() - {item.name for item in own})
        if odd:
            raise ValueError(f"its {name} has other fields: {', '.join(sorted(map(str, odd)))}")
        hints = get_type_hints(kind)
        return kind(**{key: read_as(hints[key], part, key) for key, part in value.items()})
    raise ValueError(f"its {name} must be {getattr(kind, '__name__', kind)}, got {type(value).__name__}")
